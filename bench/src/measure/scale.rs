//! CPU time of a message as connections grow in one process, and the number of connections that
//! several processes can hold.
//!
//! As connections grow, 64 messages are in flight and the connections take turns. Every connection
//! is active, and none sends twice before the others have sent. The state that the server holds
//! grows, and the work that it has at one time does not.

use std::time::{Duration, Instant};

use super::Effort;
use crate::Result;
use crate::peers::Service;
use crate::programs::{BASELINE, Peer, Programs};
use crate::results::{ManyConnections, ScalePoint, WindowFigures, WindowPair};
use crate::server::{LoadProcess, Server};

/// Number of messages in flight while connections grow.
pub const IN_FLIGHT: usize = 64;

/// Number of descriptors of a process that are not connections.
const RESERVED_DESCRIPTORS: u64 = 100;

/// Returns the numbers of connections to measure, in ascending order.
///
/// Numbers above the descriptor limit are replaced by the largest number that fits.
pub fn sizes(effort: &Effort, descriptors: u64) -> Vec<usize> {
    let all: &[usize] = effort.or(&[1, 10, 100, 1_000, 5_000, 15_000], &[1, 100, 1_000]);
    let most = connection_limit(descriptors);
    let mut sizes: Vec<usize> = all.iter().map(|&size| size.min(most)).collect();
    sizes.dedup();
    sizes
}

/// Returns the number of connections that one process may have.
pub(super) fn connection_limit(descriptors: u64) -> usize {
    descriptors.saturating_sub(RESERVED_DESCRIPTORS).try_into().unwrap_or(usize::MAX)
}

/// Measures a peer. `tick` is called after each number of connections.
///
/// # Errors
/// Fails if the peer is missing, or if it fails.
pub fn measure(
    programs: &Programs,
    peer: &Peer,
    effort: &Effort,
    descriptors: u64,
    mut tick: impl FnMut(),
) -> Result<Vec<ScalePoint>> {
    let (server, baseline) =
        (Server::start(programs, peer, Service::ECHO, &[])?, Server::start(programs, &BASELINE, Service::ECHO, &[])?);
    let mut load = LoadProcess::start(programs, &server, 64, 1, 0)?;
    let mut baseline_load = LoadProcess::start(programs, &baseline, 64, 1, 10)?;
    let mut points = Vec::new();
    for connections in sizes(effort, descriptors) {
        load.grow(connections)?;
        baseline_load.grow(connections)?;
        let mut pairs = Vec::new();
        // The first pair of windows is a warm-up.
        for round in 0..=effort.rounds {
            let peer = window(&server, &mut load, effort.window)?;
            let pair = WindowPair { peer, baseline: window(&baseline, &mut baseline_load, effort.window)? };
            if round > 0 {
                pairs.push(pair);
            }
        }
        points.push(ScalePoint { connections, pairs });
        tick();
    }
    Ok(points)
}

fn window(server: &Server, load: &mut LoadProcess, time: Duration) -> Result<WindowFigures> {
    let before = server.cpu_time()?;
    let window = load.echo(time, IN_FLIGHT)?;
    Ok(WindowFigures { messages: window.messages, nanoseconds: window.nanoseconds, cpu: server.cpu_time()? - before })
}

/// Opens `wanted` connections to as many servers of one kind as the descriptor limit requires. Each
/// connection is echoed when it is opened, and again when all are open.
///
/// # Errors
/// Fails if the peer is missing, or if a connection was not echoed when all were open.
pub fn many(programs: &Programs, peer: &Peer, wanted: usize, descriptors: u64) -> Result<ManyConnections> {
    let each = connection_limit(descriptors);
    let servers = wanted.div_ceil(each.max(1));
    let share = wanted.div_ceil(servers);
    let start = Instant::now();
    let (mut open, mut reached, mut before, mut stopped_by) = (Vec::new(), 0, 0, None);
    for number in 0..servers {
        let count = share.min(wanted - reached);
        let server = Server::start(programs, peer, Service::ECHO, &[])?;
        before += server.memory()?;
        let mut load = LoadProcess::start(programs, &server, 64, 1, 10 * number as u32)?;
        if let Err(error) = load.grow(count) {
            stopped_by = Some(error.to_string());
            break;
        }
        reached += count;
        open.push((server, load));
    }
    let opening = start.elapsed().as_secs_f64();
    let mut after = 0;
    for (server, load) in &mut open {
        load.check()?;
        after += server.memory()?;
    }
    let bytes = after.saturating_sub(before);
    Ok(ManyConnections { wanted, reached, stopped_by, servers: open.len(), bytes, opening })
}
