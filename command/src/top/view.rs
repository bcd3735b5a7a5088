//! The view of a report: a head, the ports, and the connections with the highest rates first.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::{Connection, Rate, Rates, Report};
use crate::quantity::{age, bytes};

/// Titles of the columns. The last two are aligned to the left.
const COLUMNS: [&str; 10] = ["AGE", "IN/S", "OUT/S", "IN", "OUT", "QUEUED", "BUSY", "STATE", "PEER", "PROTOCOL"];

/// The first column that is aligned to the left.
const FIRST_LEFT: usize = 7;

/// A value that is not known.
const UNKNOWN: &str = "-";

/// Returns the lines of the view: the head, and a line for each connection.
pub(super) fn lines(report: &Report, rates: &Rates) -> Vec<String> {
    let mut lines = head(report, rates);
    let mut connections: Vec<_> = report.connections.iter().map(|it| (it, rates.of(it))).collect();
    let sum = |rate: &Option<Rate>| rate.map_or(0.0, Rate::sum);
    let total = |it: &Connection| it.received.unwrap_or(0).saturating_add(it.written.unwrap_or(0));
    connections.sort_by(|(one, first), (other, second)| {
        sum(second).total_cmp(&sum(first)).then_with(|| total(other).cmp(&total(one)))
    });
    let rows: Vec<_> = connections.iter().map(|(connection, rate)| row(connection, *rate)).collect();
    if !rows.is_empty() {
        lines.push(String::new());
        lines.extend(table(&rows));
    }
    lines.iter_mut().for_each(|line| *line = line.replace(char::is_control, "?"));
    lines
}

/// Returns the lines cut to the size of a terminal. The last line tells the number of connections
/// that have no room.
pub(super) fn fit(mut lines: Vec<String>, rows: usize, columns: usize) -> Vec<String> {
    if lines.len() > rows && rows > 0 {
        let left = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(format!("{left} more"));
    }
    lines.iter().map(|line| line.chars().take(columns).collect()).collect()
}

fn head(report: &Report, rates: &Rates) -> Vec<String> {
    let state = if report.running { "running" } else { "not running" };
    let mut first = format!("reactor on {}, {state}, {}: ", report.backend, seconds(report.time));
    let _ = write!(
        first,
        "{} open, {} accepted, {} connecting, {} lingering",
        report.connections.len(),
        report.accepted,
        report.connecting,
        report.lingering
    );
    let all = rates.all;
    let second = format!(
        "in {}/s, out {}/s, busy {}; timers {}, jobs {} + {} queued, lookups {} + {} queued",
        all.map_or_else(|| UNKNOWN.to_owned(), |all| bytes(all.received)),
        all.map_or_else(|| UNKNOWN.to_owned(), |all| bytes(all.written)),
        all.map_or_else(|| UNKNOWN.to_owned(), percent),
        report.timers.pending,
        report.jobs.working,
        report.jobs.queued,
        report.lookups.working,
        report.lookups.queued
    );
    let mut third = format!("latest timer by {}", milliseconds(report.longest_lateness));
    if let Some(longest) = &report.longest_callback {
        let _ = write!(third, ", longest call {} ({})", milliseconds(longest.took), longest.callback);
    }
    let ports = report.ports.iter().map(|port| format!("port {}: {} accepted", port.host, port.accepted));
    [first, second, third].into_iter().chain(ports).collect()
}

fn row(connection: &Connection, rate: Option<Rate>) -> [String; COLUMNS.len()] {
    let known = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    let mut state = connection.state.clone();
    if connection.paused {
        state.push_str(" paused");
    }
    [
        known(connection.age.map(seconds)),
        known(rate.map(|rate| bytes(rate.received))),
        known(rate.map(|rate| bytes(rate.written))),
        known(connection.received.map(|count| bytes(count as f64))),
        known(connection.written.map(|count| bytes(count as f64))),
        bytes(connection.queued as f64),
        known(rate.map(percent)),
        state,
        connection.peer.clone(),
        without_paths(&connection.protocol),
    ]
}

/// Returns the name of a type without the modules in front of it and in front of its parameters.
fn without_paths(name: &str) -> String {
    let mut short = String::new();
    for piece in name.split_inclusive(['<', '>', ',', ' ', '(', ')', '&', '[', ']', ';']) {
        short.push_str(piece.rsplit_once("::").map_or(piece, |(_, last)| last));
    }
    short
}

/// Returns the rows below their titles, in columns as wide as their widest cell.
fn table(rows: &[[String; COLUMNS.len()]]) -> Vec<String> {
    let mut widths = COLUMNS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let written = match column < FIRST_LEFT {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:width$}  "),
            };
            debug_assert!(written.is_ok(), "a string takes any text");
        }
        line.trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(&row.each_ref().map(String::as_str)));
    std::iter::once(line(&COLUMNS)).chain(rows).collect()
}

fn percent(rate: Rate) -> String {
    format!("{:.0}%", rate.busy * 100.0)
}

fn seconds(seconds: f64) -> String {
    age(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(time: u32, connections: &str) -> Report {
        let json = format!(
            r#"{{"format":1,"time":{time}.0,"backend":"mio","running":true,"received":10000,"written":{written},"accepted":2,
            "longest_lateness":0.0012,"connecting":0,"lingering":1,"timers":{{"pending":3,"next_due":null}},
            "jobs":{{"idle":0,"working":1,"queued":2}},"lookups":{{"idle":0,"working":0,"queued":0}},"pools":[],
            "longest_callback":{{"took":0.003,"ended_at":1.0,"callback":"data_received","connection":"1.1"}},
            "ports":[{{"id":"0.1","host":"127.0.0.1:7","accepted":2,"descriptor":5}}],"connections":[{connections}]}}"#,
            written = time * 1000,
        );
        serde_json::from_str(&json).expect("a report")
    }

    fn connection(id: &str, peer: &str, received: u64) -> String {
        format!(
            r#"{{"id":"{id}","host":"127.0.0.1:7","peer":"{peer}","protocol":"Echo","client":false,"state":"open",
            "paused":false,"layers":0,"queued":0,"descriptor":6,"age":61.0,"received":{received},"written":0,"busy":0.5}}"#
        )
    }

    #[test]
    fn the_highest_rates_come_first() {
        let before = report(1, &[connection("1.1", "slow", 5000), connection("2.1", "quick", 0)].join(","));
        let now = report(3, &[connection("1.1", "slow", 5100), connection("2.1", "quick", 4000)].join(","));
        let shown = lines(&now, &Rates::between(&before, &now));
        assert_eq!(
            shown,
            [
                "reactor on mio, running, 3s: 2 open, 2 accepted, 0 connecting, 1 lingering",
                "in 0 B/s, out 1.00 kB/s, busy 0%; timers 3, jobs 1 + 2 queued, lookups 0 + 0 queued",
                "latest timer by 1.2 ms, longest call 3.0 ms (data_received)",
                "port 127.0.0.1:7: 2 accepted",
                "",
                "  AGE     IN/S  OUT/S       IN  OUT  QUEUED  BUSY  STATE  PEER   PROTOCOL",
                "1m01s  2.00 kB    0 B  4.00 kB  0 B     0 B    0%  open   quick  Echo",
                "1m01s     50 B    0 B  5.10 kB  0 B     0 B    0%  open   slow   Echo",
            ]
        );
    }

    /// One report alone has no rates, and totals decide the order. Control characters of a name do
    /// not reach the terminal.
    #[test]
    fn a_single_report_has_no_rates() {
        let now = report(1, &[connection("1.1", "\\u001b[2J", 5), connection("2.1", "b", 6)].join(","));
        let shown = lines(&now, &Rates::default());
        assert_eq!(shown[1], "in -/s, out -/s, busy -; timers 3, jobs 1 + 2 queued, lookups 0 + 0 queued");
        assert!(shown[6].ends_with("open   b     Echo") && shown[7].ends_with("?[2J  Echo"), "{shown:?}");
    }

    #[test]
    fn types_are_shown_without_their_modules() {
        assert_eq!(without_paths("shop::orders::Orders"), "Orders");
        assert_eq!(without_paths("a::B<c::D, (e::F, &g::H)>"), "B<D, (F, &H)>");
        assert_eq!(without_paths("Echo"), "Echo");
    }

    #[test]
    fn a_small_terminal_tells_how_many_have_no_room() {
        let lines: Vec<String> = (0..10).map(|line| format!("line {line}")).collect();
        assert_eq!(fit(lines.clone(), 3, 5), ["line ", "line ", "8 mor"]);
        assert_eq!(fit(lines.clone(), 20, 80), lines);
    }
}
