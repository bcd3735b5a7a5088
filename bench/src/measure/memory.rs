//! Memory of idle connections: each was echoed once, so that it has had whatever buffers it takes for that.
//!
//! It is what the process has written to (`Private_Dirty`), with few connections and with many: the slope is what one takes. What
//! the kernel has for a socket is not in it. Where the descriptors do not allow as many, it is fewer.

use super::Effort;
use super::crowds::fitting;
use crate::Result;
use crate::peers::Service;
use crate::programs::{Peer, Programs};
use crate::results::Memory;
use crate::server::{Generator, Server};

/// Measures a peer.
///
/// # Errors
/// The peer is missing, or fails.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort, descriptors: u64) -> Result<Memory> {
    let many = effort.or(10_000, 2_000).min(fitting(descriptors));
    let connections = [many / 10, many];
    let server = Server::start(programs, peer, Service::ECHO, &[])?;
    let mut load = Generator::start(programs, &server, 64, 1, 0)?;
    let mut bytes = [0; 2];
    for (count, bytes) in connections.into_iter().zip(&mut bytes) {
        load.grow(count)?;
        *bytes = server.memory()?;
    }
    Ok(Memory { connections: connections.map(|count| count as u64), bytes })
}
