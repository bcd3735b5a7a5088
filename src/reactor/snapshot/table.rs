//! The text of a [`Snapshot`] for people: a head, then a table each of ports and of connections.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::{ConnectionSnapshot, PortSnapshot, Snapshot};
use crate::reactor::ThreadPoolStatistics;

/// A value that is not known.
const UNKNOWN: &str = "-";

impl Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counters, timers) = (&self.counters, &self.timers);
        let state = if self.is_running { "running" } else { "not running" };
        let observed = if self.observed.is_some() { "observed" } else { "not observed" };
        writeln!(
            f,
            "reactor on {}, {state}, {observed}, {} turns in {}",
            self.backend.name(),
            counters.turns,
            Age(self.time)
        )?;
        write!(f, "accepted {}, shed {}, ", counters.accepted, counters.shed)?;
        writeln!(f, "connecting {}, lingering {}, watched {}", self.connecting, self.lingering, self.descriptors)?;
        let (received, written) = (optional(self.received_bytes), optional(self.written_bytes));
        writeln!(f, "bytes in {received}, bytes out {written}")?;
        write!(f, "timers {}, next in ", timers.pending)?;
        writeln!(f, "{}, latest by {}", optional(timers.next_due.map(Age)), Age(counters.longest_lateness))?;
        write!(f, "jobs {}, lookups {}", Load(self.jobs), Load(self.lookups))?;
        for pool in &self.pools {
            write!(f, ", own pool {}", Load(*pool))?;
        }
        writeln!(f)?;
        if let Some(longest) = self.longest_callback {
            write!(f, "longest call {}: {}", Age(longest.took), longest.callback)?;
            match longest.connection {
                Some(id) => writeln!(f, " of connection {id}")?,
                None => writeln!(f)?,
            }
        }
        let ports = self.ports.iter().map(port_row);
        Table::new(["PORT", "HOST", "ACCEPTED", "FD"], ports).write(f)?;
        let connections = self.connections.iter().map(connection_row);
        let head = ["CONNECTION", "PEER", "AGE", "IN", "OUT", "QUEUED", "STATE", "FD", "PROTOCOL"];
        Table::new(head, connections).write(f)
    }
}

fn port_row(port: &PortSnapshot) -> [String; 4] {
    [port.id.to_string(), port.host.to_string(), port.accepted.to_string(), optional(port.descriptor)]
}

fn connection_row(connection: &ConnectionSnapshot) -> [String; 9] {
    let mut state = connection.state.name().to_owned();
    if connection.is_paused {
        state.push_str(", paused");
    }
    [
        connection.id.to_string(),
        connection.peer.to_string(),
        optional(connection.age.map(Age)),
        optional(connection.received_bytes),
        optional(connection.written_bytes),
        connection.queued_bytes.to_string(),
        state,
        optional(connection.descriptor),
        connection.protocol.to_owned(),
    ]
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// Rows below a head, in columns as wide as their widest cell. An empty table is not written.
struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(head: [&'static str; N], rows: impl Iterator<Item = [String; N]>) -> Self {
        // The path of a socket may hold any character.
        let rows = rows.map(|row| row.map(|cell| cell.replace(char::is_control, "?")));
        Self { head, rows: rows.collect() }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut widths = self.head.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        write_row(f, &self.head, &widths)?;
        self.rows.iter().try_for_each(|row| write_row(f, row, &widths))
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, cells: &[impl AsRef<str>], widths: &[usize]) -> fmt::Result {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        write!(line, "{:width$}  ", cell.as_ref())?;
    }
    writeln!(f, "{}", line.trim_end())
}

/// A duration in the unit that suits it: `1.5s`, `12ms`.
struct Age(Duration);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{:.1}ms", self.0.as_secs_f64() * 1000.0),
            1..60 => write!(f, "{:.1}s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{}m{:02}s", seconds / 60, seconds % 60),
            _ => write!(f, "{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// The load of a pool: threads that work, idle ones, queued jobs.
struct Load(ThreadPoolStatistics);

impl Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at work {} idle {} queued", self.0.working, self.0.idle, self.0.queued)
    }
}
