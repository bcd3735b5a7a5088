//! Twisted's engine in Rust.

pub mod address;
pub mod deferred;
pub mod endpoints;
pub mod error;
pub mod failure;
pub mod interfaces;
pub mod protocol;
pub mod reactor;
pub mod time;
pub mod transport;

pub use address::Address;
pub use deferred::Deferred;
pub use failure::{Failure, Result};
pub use protocol::{Connection, Factory, Protocol, SharedFactory};
pub use reactor::{ConnectOptions, ListenOptions, Phase, Port, Reactor, Remote, SystemEvent};
pub use time::{Clock, DelayedCall};
pub use transport::Transport;
