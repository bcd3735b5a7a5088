//! The test kit: what a test of a program for this engine is made of. Nothing here makes a system call, waits, or reads a
//! clock, so what a test sees depends on nothing but the test.
//!
//! | for | there is | Twisted's name |
//! |---|---|---|
//! | time | [`Clock`], which only the test moves | `twisted.internet.task.Clock` |
//! | whole programs | [`Network`]: reactors on a simulated network, under [`Conditions`] | `MemoryReactor`, `iosim` |
//! | the other side | [`Peer`], [`PendingAttempt`]: connections whose other end the test plays | |

mod clock;
mod network;
mod random;

pub use self::clock::Clock;
pub use self::network::{Conditions, Network, Peer, PendingAttempt, SimulationError};
