//! The test kit: what a test of a program for this engine is made of. Nothing here makes a system call, waits, or reads a
//! clock, so what a test sees depends on nothing but the test.
//!
//! | for | there is | Twisted's name |
//! |---|---|---|
//! | time | [`Clock`], which only the test moves | `twisted.internet.task.Clock` |

mod clock;

pub use self::clock::Clock;
