//! Twisted's engine in Rust.

pub mod address;
pub mod error;
pub mod failure;
pub mod time;

pub use address::Address;
pub use failure::{Failure, Result};
pub use time::{Clock, DelayedCall};
