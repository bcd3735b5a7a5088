//! The test kit: what a test of a program for this engine is made of. Nothing here makes a system call, waits, or reads a
//! clock, so what a test sees depends on nothing but the test.
//!
//! | for | there is | Twisted's name |
//! |---|---|---|
//! | time | [`Clock`], which only the test moves | `twisted.internet.task.Clock` |
//! | whole programs | [`Network`]: reactors on a simulated network, under [`Conditions`] | `iosim` |
//! | a program alone | [`MemoryReactor`]: the test plays everybody else | `MemoryReactor` |
//! | the other side | [`Peer`], [`PendingAttempt`]: connections whose other end the test plays | |

mod clock;
mod memory_reactor;
mod network;
mod random;

pub use self::clock::Clock;
pub use self::memory_reactor::MemoryReactor;
pub use self::network::{Conditions, Network, Peer, PendingAttempt, SimulationError};
