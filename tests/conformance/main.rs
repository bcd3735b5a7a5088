//! The conformance suite (`ropewalk::testing::conformance`) on every backend and on the simulated
//! network.

#[path = "../common/mod.rs"]
mod common;

mod conformance_memory;
mod conformance_mio;
#[cfg(feature = "tls")]
mod conformance_tls;
mod conformance_unix;
#[cfg(feature = "io-uring")]
mod conformance_uring;
