//! Twisted's engine in Rust: a **reactor** that is the event loop, **protocols** that say what is done with a connection,
//! **transports** that carry the bytes, **factories** that build a protocol for each connection, **Deferreds** for answers
//! that take a while, and **endpoints** made from strings.
//!
//! One thread, every callback run to completion, no `await` in the middle. Names and order of events are Twisted's.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use ropewalk::endpoints::server_from_string;
//! use ropewalk::interfaces::*;
//! use ropewalk::{Result, Transport, for_protocol};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
//!         transport.write(data);
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     ropewalk::run(|reactor| {
//!         let stopped = reactor.when_stopped();
//!         let listening = server_from_string(reactor, "tcp:8888")?.listen(for_protocol(|_| Echo));
//!         Ok(listening.add_callback(|_port| stopped))
//!     })
//! }
//! ```
//!
//! Start with [`interfaces`]: the page of all that you write and are handed. Each module says first what it is, and what
//! rules it keeps.
//!
//! **Threads.** A [`Reactor`] and everything that belongs to it live on the thread that made it, and are not `Send`. Other
//! threads reach it through its [`Remote`]. What blocks is done in threads, by [`Reactor::defer_to_thread`].
//!
//! **Errors.** What a callback returns as `Err`, or panics with, ends its own connection, with that [`Failure`] as the reason. The
//! engine itself does not panic, whatever the peer or a description says. (It catches panics, so build with
//! `panic = "unwind"`.)
//!
//! **Tests** of programs for this engine find what they need in [`testing`]: a clock that they move themselves, transports without
//! sockets, and a check that a protocol does the same however its input is cut.
//!
//! **Logs** go to [`tracing`](https://docs.rs/tracing): failures of callbacks, and those that nothing handles, at error level,
//! shortages of the system at warning level, connections that were lost at debug level. Events of error level that no
//! subscriber hears are lines on standard error.

pub mod address;
pub mod deferred;
pub mod endpoints;
pub mod error;
pub mod failure;
pub mod interfaces;
pub mod locks;
mod log;
pub mod protocol;
pub mod protocols;
pub mod reactor;
pub mod task;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
pub mod time;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS is the one layer that there is"))]
pub mod transport;

pub use address::Address;
pub use deferred::Deferred;
pub use failure::{Failure, Result};
pub use protocol::{Connection, Connections, Factory, Protocol, SharedFactory, for_protocol};
pub use reactor::{
    BackendKind, ConnectOptions, ListenOptions, Phase, Port, Reactor, Remote, SystemEvent, ThreadPool, run,
};
pub use time::{Clock, DelayedCall};
pub use transport::Transport;

/// The README's program compiles.
#[cfg(all(doctest, feature = "tls"))]
#[doc = include_str!("../README.md")]
struct Readme;
