//! Ropewalk is Twisted's engine in Rust: an event loop, and a callback for each thing that happens
//! to a connection. It is for programs that are shaped by callbacks, and for authors who know
//! Twisted: names, the order of events and corner cases are Twisted's.
//!
//! A **reactor** is the event loop. A **protocol** handles the events of one connection, and writes
//! to its **transport**, which carries the bytes. A **factory** builds a protocol for each
//! connection. An **endpoint** is a place to listen or to connect, made from a string such as
//! `tcp:8888`. A **Deferred** is a result that is not there yet.
//!
//! Each reactor runs on one thread. Every callback runs to completion, with no `await` in the
//! middle.
//!
//! # A server in a page
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
//! Start with [`interfaces`]: the traits that you implement, and the types that you are handed.
//! Each module's page begins with its purpose, and then gives the rules that it keeps. The package
//! has a guide too, `docs/guide/src`, which begins with a tutorial.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`interfaces`] | the traits to implement, and tables of the types: the page to read first |
//! | [`reactor`] | the event loop, ports, connecting, resolving, threads, signals |
//! | [`protocol`] | [`Protocol`], [`Factory`], and the handles that reach a protocol from outside |
//! | [`transport`] | [`Transport`]: writing, closing, flow control, limits of the queue |
//! | [`datagram`] | UDP, UNIX datagrams: [`DatagramProtocol`], [`DatagramTransport`], multicast |
//! | [`process`] | child processes: their start, pipes, signals and ends |
//! | [`endpoints`] | where to listen and to connect, as objects and as strings |
//! | [`application`] | services: a client that connects again, ports that drain, orderly starts and stops |
//! | [`deferred`] | [`Deferred`] and `Promise`; lists, locks, semaphores, queues, futures |
//! | [`task`] | repeated work, delayed work, and long work in small steps |
//! | [`time`] | [`Clock`] and [`DelayedCall`] |
//! | [`tls`] | TLS for clients and servers (feature `tls`) |
//! | [`error`], [`failure`] | the errors of the engine, and [`Failure`], which carries any error |
//! | [`address`] | [`Address`] of a connection's end, and host names |
//! | [`haproxy`] | PROXY headers, with which a proxy names its clients |
//! | [`locks`] | locks between processes |
//! | [`policies`] | limits of time and of connections, rates, logs of traffic |
//! | [`protocols`] | ready-made parts of protocols, such as sending a file |
//! | `streams` | byte streams for async libraries (feature `async`) |
//! | `testing` | the test kit (feature `testing`) |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `tls` | on | TLS 1.2 and 1.3, by rustls with ring's cryptography. Building it takes a C compiler. |
//! | `io-uring` | off | The io_uring backend, on Linux 6.1 or later. |
//! | `idna` | off | International host names, by UTS 46, with 26 crates, mostly tables of Unicode. |
//! | `aws-lc-rs` | off | TLS with the cryptography of AWS-LC instead of ring's. It knows the curve P-521. |
//! | `async` | off | Byte streams with the traits of futures-io: the module `streams`. |
//! | `tokio` | off | The same with the traits of tokio, without its runtime. |
//! | `hyper` | off | The same with the traits of hyper, an executor and a timer. |
//! | `codec` | off | The codecs of tokio-util as receivers of messages. |
//! | `testing` | off | The test kit, for your dev-dependencies. |
//!
//! Every feature adds, and none changes a default behaviour.
//!
//! `io-uring` makes the backend available, and does not select it. Select it with
//! [`BackendKind::IoUring`], or with `ROPEWALK_BACKEND=io_uring` in the environment. If the system
//! forbids io_uring, the reactor falls back to epoll and logs the reason.
//!
//! `idna` converts names such as `bücher.example`. Without it they are refused.
//!
//! `aws-lc-rs` turns `tls` on. It needs a C compiler too, and takes longer to build than ring.
//!
//! `async`, `tokio` and `hyper` let async libraries run on a reactor's connections and in its
//! turns.
//!
//! `testing` has what tests of your programs need: a clock that the test advances, transports
//! without sockets, a check that a protocol does the same however its input is cut, and whole
//! programs on a simulated network. Add ropewalk with this feature to your dev-dependencies:
//!
//! ```toml
//! [dev-dependencies]
//! ropewalk = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Threads
//!
//! A [`Reactor`] and everything that belongs to it live on the thread that made it, and are not
//! `Send`. Other threads reach the reactor through its [`Remote`], and a connection through its
//! [`RemoteConnection`](reactor::RemoteConnection). Work that blocks belongs in a thread: see
//! [`Reactor::defer_to_thread`]. To serve one port on several cores, run a
//! [`ReactorGroup`](reactor::ReactorGroup).
//!
//! # Errors
//!
//! A callback that returns `Err` or panics ends its own connection, with that [`Failure`] as the
//! reason. The engine itself does not panic, whatever a peer sends or an endpoint's description
//! holds. It catches the panics of callbacks, so build with `panic = "unwind"`.
//!
//! # Logs
//!
//! Events go to [`tracing`](https://docs.rs/tracing):
//!
//! | level | events |
//! |---|---|
//! | ERROR | failures of callbacks, and failures that no errback handles |
//! | WARN | shortages of the system |
//! | DEBUG | lost connections |
//!
//! An ERROR event is written to standard error, as one line, if there is no subscriber. With the
//! feature `logging`, `logging::ProgramLog` writes all events there.
//!
//! # Platforms
//!
//! Linux on 64-bit processors is complete, with epoll and with io_uring. macOS and FreeBSD compile,
//! which CI checks; the tests are not run there. Rust 1.88 or later is needed, and no system
//! library.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod address;
pub mod application;
pub mod datagram;
pub mod deferred;
pub mod endpoints;
pub mod error;
pub mod failure;
pub mod haproxy;
pub mod interfaces;
pub mod locks;
mod log;
#[cfg(feature = "logging")]
pub mod logging;
pub mod policies;
pub mod process;
pub mod protocol;
pub mod protocols;
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the simulated network draws more kinds of numbers"))]
mod random;
pub mod reactor;
#[cfg(feature = "async")]
pub mod streams;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS is the only layer"))]
pub mod transport;

pub use address::Address;
pub use datagram::{DatagramProtocol, DatagramTransport};
pub use deferred::Deferred;
pub use failure::{Failure, Result};
pub use process::{ProcessProtocol, ProcessTransport};
pub use protocol::{Connection, Connections, Factory, Protocol, SharedFactory, for_protocol};
pub use reactor::{
    BackendKind, ConnectOptions, ListenOptions, Phase, Port, Reactor, Remote, SystemEvent, ThreadPool, run,
};
pub use time::{Clock, DelayedCall};
pub use transport::Transport;

#[cfg(all(doctest, feature = "tls"))]
mod guides;
