//! The live line: connections and bytes a second, rewritten each second on a terminal.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use ropewalk::Reactor;
use ropewalk::application::TimerService;
use ropewalk::reactor::Snapshot;

use crate::quantity::bytes;

const INTERVAL: Duration = Duration::from_secs(1);

/// Returns `true` if standard error is a terminal, which gets the line.
pub(crate) fn is_shown() -> bool {
    stderr().is_terminal()
}

/// Makes a service that writes the line each second while it runs.
pub(crate) fn service(reactor: &Reactor) -> TimerService {
    let (observed, last) = (reactor.clone(), Cell::new(None));
    TimerService::new(reactor, INTERVAL, move || {
        let snapshot = observed.snapshot();
        let now = Totals::of(&snapshot);
        let line = line(&snapshot, last.replace(Some(now)), now);
        // The carriage return lets the next line, or a message, take its place.
        eprint!("{line}\u{1b}[K\r");
    })
}

/// Leaves the last line where it stands.
pub(crate) fn end() {
    eprintln!();
}

/// The bytes of a reactor up to a time.
#[derive(Debug, Clone, Copy)]
struct Totals {
    time: Duration,
    received: u64,
    written: u64,
}

impl Totals {
    fn of(snapshot: &Snapshot) -> Self {
        let (received, written) = (snapshot.received_bytes, snapshot.written_bytes);
        Self { time: snapshot.time, received: received.unwrap_or_default(), written: written.unwrap_or_default() }
    }
}

fn line(snapshot: &Snapshot, before: Option<Totals>, now: Totals) -> String {
    let rates = before.filter(|before| before.time < now.time).map(|before| {
        let seconds = (now.time - before.time).as_secs_f64();
        let rate = |now: u64, before: u64| bytes(now.saturating_sub(before) as f64 / seconds);
        format!(", {}/s in, {}/s out", rate(now.received, before.received), rate(now.written, before.written))
    });
    let (open, accepted) = (snapshot.connections.len(), snapshot.counters.accepted);
    format!("{open} open, {accepted} accepted{}", rates.unwrap_or_default())
}
