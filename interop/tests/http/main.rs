//! The server of files, and the HTTP server below it: with curl, wrk, h2load and raw sockets as
//! clients, on each backend; and with hyper's client on simulated networks.

#[path = "../../../tests/common/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is shared with the tests of the crate")]
mod certificates;

#[path = "../common/backends.rs"]
mod backends;
mod clients;
mod draining;
mod files;
mod limits;
mod load;
mod simulated;
mod simulation;
