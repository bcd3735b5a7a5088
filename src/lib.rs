//! Twisted's engine in Rust.

pub mod address;
pub mod endpoints;
pub mod error;
pub mod failure;

pub use address::Address;
pub use failure::{Failure, Result};
