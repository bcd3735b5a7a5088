//! Libraries of others on Ropewalk's loop.

#[cfg(feature = "http")]
pub mod http;
