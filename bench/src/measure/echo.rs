//! Echoes and short connections. Windows of a peer and of the baseline alternate, so that drift
//! affects both.

use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::histogram::Histogram;
use crate::peers::Service;
use crate::programs::{BASELINE, Peer, Programs};
use crate::results::{Echo, Latency, WindowFigures, WindowPair};
use crate::server::{LoadProcess, Server};

/// Load that is put on a server.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name for `--scenario`.
    pub name: &'static str,
    /// Title in the tables.
    pub title: &'static str,
    connections: usize,
    size: usize,
    depth: usize,
    churn: bool,
}

const fn echoes(name: &'static str, title: &'static str, connections: usize, size: usize, depth: usize) -> Scenario {
    Scenario { name, title, connections, size, depth, churn: false }
}

/// All scenarios, in the order of the tables.
pub const SCENARIOS: [Scenario; 6] = [
    echoes("1x64", "1 × 64 B", 1, 64, 1),
    echoes("64x64", "64 × 64 B", 64, 64, 1),
    echoes("1000x64", "1,000 × 64 B", 1000, 64, 1),
    echoes("64x16k", "64 × 16 KiB", 64, 16 << 10, 1),
    echoes("64x64x16", "64 × 64 B, 16 a segment", 64, 64, 16),
    // Sixteen at a time: enough that the server does not sleep for each connection, and few enough
    // that each is served at once.
    Scenario { name: "churn", title: "connect, echo, close", connections: 16, size: 64, depth: 1, churn: true },
];

/// Measures a peer. `tick` is called after each round.
///
/// # Errors
/// Fails if the peer is missing, or if it fails.
pub fn measure(
    programs: &Programs,
    scenario: &Scenario,
    peer: &Peer,
    effort: &Effort,
    mut tick: impl FnMut(),
) -> Result<Echo> {
    let mut tested = PeerUnderLoad::start(programs, scenario, peer, 0)?;
    let mut baseline = PeerUnderLoad::start(programs, scenario, &BASELINE, 1000)?;
    // Warm-up: cold caches and one-time allocations are left out of the figures.
    tested.window(scenario, effort.window / 2)?;
    baseline.window(scenario, effort.window / 2)?;
    (tested.latency, baseline.latency) = Default::default();
    let mut pairs = Vec::new();
    for round in 0..effort.rounds {
        // The side that begins alternates.
        let pair = if round % 2 == 0 {
            let peer = tested.window(scenario, effort.window)?;
            WindowPair { peer, baseline: baseline.window(scenario, effort.window)? }
        } else {
            let baseline = baseline.window(scenario, effort.window)?;
            WindowPair { peer: tested.window(scenario, effort.window)?, baseline }
        };
        pairs.push(pair);
        tick();
    }
    Ok(Echo { pairs, latency: percentiles(&tested.latency), baseline_latency: percentiles(&baseline.latency) })
}

struct PeerUnderLoad {
    server: Server,
    load: LoadProcess,
    latency: Histogram,
}

impl PeerUnderLoad {
    fn start(programs: &Programs, scenario: &Scenario, peer: &Peer, source: u32) -> Result<Self> {
        let server = Server::start(programs, peer, Service::ECHO, &[])?;
        let mut load = LoadProcess::start(programs, &server, scenario.size, scenario.depth, source)?;
        if !scenario.churn {
            load.grow(scenario.connections)?;
        }
        Ok(Self { server, load, latency: Histogram::default() })
    }

    fn window(&mut self, scenario: &Scenario, time: Duration) -> Result<WindowFigures> {
        let before = self.server.cpu_time()?;
        let window = if scenario.churn {
            self.load.churn(time, scenario.connections)?
        } else {
            self.load.echo(time, scenario.connections)?
        };
        self.latency.merge(&window.latency);
        let cpu = self.server.cpu_time()? - before;
        Ok(WindowFigures { messages: window.messages, nanoseconds: window.nanoseconds, cpu })
    }
}

fn percentiles(latency: &Histogram) -> Latency {
    let [p50, p99, p99_9] = [50.0, 99.0, 99.9].map(|percent| latency.percentile(percent));
    Latency { p50, p99, p99_9 }
}
