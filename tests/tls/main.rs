//! TLS: the layer, its endpoints, trust, hostile peers, and peers of other libraries.
#![cfg(feature = "tls")]

#[path = "../common/mod.rs"]
mod common;

mod tls;
mod tls_endpoints;
mod tls_ends;
mod tls_forward;
mod tls_hostile;
mod tls_interop;
mod tls_memory;
mod tls_reload;
mod tls_tickets;
mod tls_trust;

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;
