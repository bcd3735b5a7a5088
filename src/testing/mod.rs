//! The test kit: building blocks for tests of programs that run on this engine.
//!
//! Nothing here makes a system call, waits, or reads a clock, so a test's outcome depends on the
//! test alone. The kit panics to fail a test. The documentation of each item says where it does.
//!
//! | for | there is | Twisted's name |
//! |---|---|---|
//! | time | [`VirtualClock`], which only the test moves | `twisted.internet.task.Clock` |
//! | one callback, called by hand | [`StringTransport`] | `twisted.internet.testing.StringTransport` |
//! | one protocol, for a whole connection | [`StringConnection`], of [`StringTransport::joined`] | `StringTransportWithDisconnection` |
//! | two protocols that talk to each other | [`connected_pair`], [`PumpOptions`], [`Pump`] | `twisted.test.iosim` |
//! | input cut at every place | [`ChunkingCheck`] | none |
//! | a protocol that only records its callbacks | [`AccumulatingProtocol`], [`AccumulatingFactory`] | `AccumulatingProtocol` |
//! | the value of a Deferred | [`success_result_of`] | `successResultOf` |
//! | the failure of a Deferred, or no result yet | [`failure_result_of`], [`assert_no_result`] | `failureResultOf`, `assertNoResult` |
//! | whole programs | [`Network`]: reactors on a simulated network, under [`Conditions`] | none |
//! | a program alone | [`MemoryReactor`]: the test plays all its peers | `MemoryReactor` |
//! | the engine's promises to protocols | [`Witness`] | none |
//! | the contract of a backend | [`conformance`] | `ReactorBuilder` |
//! | a descriptor of another library | [`VirtualDescriptor`], whose readiness the test sets | none |
//! | the other side of datagrams | [`DatagramPeer`], a socket that the test plays | |
//! | the other side | [`Peer`], [`PendingAttempt`]: connections whose other end the test plays | |
//!
//! An assertion inside a callback does not fail the test. Its panic is guarded like any other, and
//! becomes the reason for which the connection ends. So record events in the callback, and assert
//! on the record from outside.

mod accumulate;
mod chunking;
mod clock;
pub mod conformance;
mod deferred_results;
mod end;
mod memory_reactor;
mod network;
mod pump;
mod quote;
mod reentry_guard;
mod string_transport;
mod witness;

pub use self::accumulate::{Accumulated, AccumulatingFactory, AccumulatingProtocol};
pub use self::chunking::ChunkingCheck;
pub use self::clock::VirtualClock;
pub use self::deferred_results::{assert_no_result, failure_result_of, success_result_of};
pub use self::memory_reactor::MemoryReactor;
pub use self::network::{Conditions, DatagramPeer, Network, Peer, PendingAttempt, SimulationError, VirtualDescriptor};
pub use self::pump::{Pump, PumpOptions, Side, connected_pair};
pub use self::string_transport::{StringConnection, StringTransport};
pub use self::witness::{Witness, Witnessed, WitnessedFactory};
