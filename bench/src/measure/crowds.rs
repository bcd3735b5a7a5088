//! What a message costs as connections grow, in one process; and how many connections there can be in several.
//!
//! In a crowd, 64 connections at a time have a message under way, and connections have their turn one after the other: all of them are
//! at work, and none twice before the others. So what grows is what the server holds, not how much it does at once.

use std::time::{Duration, Instant};

use super::Effort;
use crate::Result;
use crate::peers::Service;
use crate::programs::{BASELINE, Peer, Programs};
use crate::results::{Crowd, Figure, Many, Pair};
use crate::server::{Generator, Server};

/// How many messages are under way in a crowd.
pub const IN_FLIGHT: usize = 64;

/// Descriptors of a process that are no connections.
const OTHERS: u64 = 100;

/// How many connections there are one after the other.
///
/// Those above what the descriptors allow are left out, and the most that they allow takes their place.
pub fn sizes(effort: &Effort, descriptors: u64) -> Vec<usize> {
    let all: &[usize] = effort.or(&[1, 10, 100, 1_000, 5_000, 15_000], &[1, 100, 1_000]);
    let most = fitting(descriptors);
    let mut sizes: Vec<usize> = all.iter().map(|&size| size.min(most)).collect();
    sizes.dedup();
    sizes
}

/// How many connections one process may have.
pub(super) fn fitting(descriptors: u64) -> usize {
    descriptors.saturating_sub(OTHERS).try_into().unwrap_or(usize::MAX)
}

/// Measures a peer; `tick` is called after each size.
///
/// # Errors
/// The peer is missing, or fails.
pub fn measure(
    programs: &Programs,
    peer: &Peer,
    effort: &Effort,
    descriptors: u64,
    mut tick: impl FnMut(),
) -> Result<Vec<Crowd>> {
    let (server, baseline) =
        (Server::start(programs, peer, Service::ECHO, &[])?, Server::start(programs, &BASELINE, Service::ECHO, &[])?);
    let mut load = Generator::start(programs, &server, 64, 1, 0)?;
    let mut baseline_load = Generator::start(programs, &baseline, 64, 1, 10)?;
    let mut crowds = Vec::new();
    for connections in sizes(effort, descriptors) {
        load.grow(connections)?;
        baseline_load.grow(connections)?;
        let mut pairs = Vec::new();
        // The first pair warms up.
        for round in 0..=effort.rounds {
            let peer = window(&server, &mut load, effort.window)?;
            let pair = Pair { peer, baseline: window(&baseline, &mut baseline_load, effort.window)? };
            if round > 0 {
                pairs.push(pair);
            }
        }
        crowds.push(Crowd { connections, pairs });
        tick();
    }
    Ok(crowds)
}

fn window(server: &Server, load: &mut Generator, time: Duration) -> Result<Figure> {
    let before = server.cpu_time()?;
    let window = load.echo(time, IN_FLIGHT)?;
    Ok(Figure { messages: window.messages, nanoseconds: window.nanoseconds, cpu: server.cpu_time()? - before })
}

/// Opens so many connections to as many servers of a kind as it takes, and has each echoed when it is opened and when all are.
///
/// # Errors
/// The peer is missing; one of them was not echoed when all were open.
pub fn many(programs: &Programs, peer: &Peer, wanted: usize, descriptors: u64) -> Result<Many> {
    let each = fitting(descriptors);
    let servers = wanted.div_ceil(each.max(1));
    let share = wanted.div_ceil(servers);
    let start = Instant::now();
    let (mut open, mut reached, mut before, mut stopped_by) = (Vec::new(), 0, 0, None);
    for number in 0..servers {
        let count = share.min(wanted - reached);
        let server = Server::start(programs, peer, Service::ECHO, &[])?;
        before += server.memory()?;
        let mut load = Generator::start(programs, &server, 64, 1, 10 * number as u32)?;
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
    Ok(Many { wanted, reached, stopped_by, servers: open.len(), bytes, opening })
}
