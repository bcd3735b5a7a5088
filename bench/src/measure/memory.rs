//! Memory of idle connections. Each was echoed once, so it has the buffers that an echo takes.
//!
//! The figure is the memory that the process has written to (`Private_Dirty`), with few connections
//! and with many. The slope is the memory of one connection. Kernel memory of sockets is not
//! included. There are fewer connections where the descriptor limit requires it.

use super::Effort;
use super::scale::connection_limit;
use crate::Result;
use crate::peers::Service;
use crate::programs::{Peer, Programs};
use crate::results::Memory;
use crate::server::{LoadProcess, Server};

/// Measures a peer.
///
/// # Errors
/// Fails if the peer is missing, or if it fails.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort, descriptors: u64) -> Result<Memory> {
    let many = effort.or(10_000, 2_000).min(connection_limit(descriptors));
    let connections = [many / 10, many];
    let server = Server::start(programs, peer, Service::ECHO, &[])?;
    let mut load = LoadProcess::start(programs, &server, 64, 1, 0)?;
    let mut bytes = [0; 2];
    for (count, bytes) in connections.into_iter().zip(&mut bytes) {
        load.grow(count)?;
        *bytes = server.memory()?;
    }
    Ok(Memory { connections: connections.map(|count| count as u64), bytes })
}
