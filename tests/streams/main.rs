//! Connections and listening ports over real sockets: rules of streams, flow control, hostile peers
//! and memory.

#[path = "../common/mod.rs"]
mod common;

mod accepting;
mod discard;
mod files;
mod half_close;
mod hostile_peers;
mod lingering;
mod lost_data;
mod memory;
mod passed_descriptors;
mod ports;
mod producers;
mod queue_limit;
mod scale;
mod streams;
mod together;
mod unix_sockets;
mod urgent;

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;
