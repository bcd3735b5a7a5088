//! Twisted's engine in Rust.

pub mod address;
pub mod error;
pub mod failure;
pub mod protocol;
pub mod transport;

pub use address::Address;
pub use failure::{Failure, Result};
pub use protocol::{Factory, Protocol, SharedFactory};
pub use transport::Transport;
