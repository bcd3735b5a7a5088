//! Memory of idle connections: each was echoed once, so that it has had whatever buffers it takes for that.
//!
//! It is what the process has written to (`Private_Dirty`), with few connections and with many: the slope is what one takes. What
//! the kernel has for a socket is not in it.

use super::Effort;
use crate::Result;
use crate::programs::{Peer, Programs};
use crate::results::Memory;
use crate::server::{Generator, Server};

/// Measures a peer.
///
/// # Errors
/// The peer is missing or fails, or there are too few descriptors.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort) -> Result<Memory> {
    let connections = effort.or([1_000, 10_000], [500, 2_000]);
    let server = Server::start(programs, peer, &[])?;
    let mut load = Generator::start(programs, &server, 64, 1, 0)?;
    let mut bytes = [0; 2];
    for (count, bytes) in connections.into_iter().zip(&mut bytes) {
        load.grow(count)?;
        *bytes = server.memory()?;
    }
    Ok(Memory { connections: connections.map(|count| count as u64), bytes })
}
