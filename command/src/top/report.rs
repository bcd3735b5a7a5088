//! A snapshot as the status service sends it, and the rates between two of them.

use std::collections::HashMap;

use serde::Deserialize;

/// A line of a status service.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    /// Seconds since the reactor was made.
    pub(super) time: f64,
    pub(super) backend: String,
    pub(super) running: bool,
    pub(super) received: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) accepted: u64,
    pub(super) longest_lateness: f64,
    pub(super) connecting: u64,
    pub(super) lingering: u64,
    pub(super) timers: Timers,
    pub(super) jobs: Load,
    pub(super) lookups: Load,
    pub(super) longest_callback: Option<LongestCallback>,
    pub(super) ports: Vec<Port>,
    pub(super) connections: Vec<Connection>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Timers {
    pub(super) pending: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Load {
    pub(super) working: u64,
    pub(super) queued: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct LongestCallback {
    pub(super) took: f64,
    pub(super) callback: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Port {
    pub(super) host: String,
    pub(super) accepted: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Connection {
    pub(super) id: String,
    pub(super) peer: String,
    pub(super) protocol: String,
    pub(super) state: String,
    pub(super) paused: bool,
    pub(super) queued: u64,
    pub(super) age: Option<f64>,
    pub(super) received: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) busy: Option<f64>,
}

/// The answer of the service to a wrong request.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
}

/// Bytes a second, received and written.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) received: f64,
    pub(super) written: f64,
    /// Share of the time that was spent in callbacks, from 0 to 1.
    pub(super) busy: f64,
}

impl Rate {
    pub(super) fn sum(self) -> f64 {
        self.received + self.written
    }
}

/// The rates of a report's connections since the report before.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) all: Option<Rate>,
    connections: HashMap<String, Rate>,
}

impl Rates {
    /// Computes the rates. A connection that was not there before began with nothing.
    pub(super) fn between(before: &Report, now: &Report) -> Self {
        let seconds = now.time - before.time;
        if seconds <= 0.0 {
            return Self::default();
        }
        let bytes = |now: Option<u64>, before: Option<u64>| {
            now.unwrap_or(0).saturating_sub(before.unwrap_or(0)) as f64 / seconds
        };
        let earlier: HashMap<&str, &Connection> =
            before.connections.iter().map(|connection| (&*connection.id, connection)).collect();
        let rate = |now: &Connection| {
            let before = earlier.get(&*now.id).copied();
            let busy = now.busy.unwrap_or(0.0) - before.and_then(|before| before.busy).unwrap_or(0.0);
            let rate = Rate {
                received: bytes(now.received, before.and_then(|before| before.received)),
                written: bytes(now.written, before.and_then(|before| before.written)),
                busy: (busy / seconds).clamp(0.0, 1.0),
            };
            (now.id.clone(), rate)
        };
        let connections: HashMap<String, Rate> = now.connections.iter().map(rate).collect();
        let busy = connections.values().map(|rate| rate.busy).sum::<f64>().min(1.0);
        let (received, written) = (bytes(now.received, before.received), bytes(now.written, before.written));
        Self { all: now.received.map(|_| Rate { received, written, busy }), connections }
    }

    /// Returns the rate of a connection, unless there is nothing to compare it with.
    pub(super) fn of(&self, connection: &Connection) -> Option<Rate> {
        self.connections.get(&connection.id).copied()
    }
}
