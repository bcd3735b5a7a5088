//! Round trips by size, and the cliffs in them.
//!
//! A cliff is a size that is slower than its neighbours explain: see [`cliffs`]. It is printed, and
//! the run does not fail.

use std::fmt::Write;

use crate::measure::round_trips::{KINDS, SIZES};
use crate::plot::number_text;
use crate::results::{Results, RoundTrip, Row};

/// Ratio of a time to the expected time above which a size is a cliff.
const CLIFF_RATIO: f64 = 2.0;

/// A size that is too slow.
#[derive(Debug, PartialEq)]
struct Cliff {
    size: usize,
    /// Median time in nanoseconds.
    took: u64,
    /// Expected time in nanoseconds, from its neighbours.
    expected: f64,
}

/// Returns the sizes whose median is more than twice the expected time. The figures are in the
/// order of sizes.
///
/// The expected time is interpolated between both neighbours, by size. It is at most the time of
/// the smaller neighbour grown in proportion, which also finds the first of several slow sizes, and
/// a slow last one. The first size is expected to take no longer than the second.
fn cliffs(figures: &[RoundTrip]) -> Vec<Cliff> {
    let expected = |index: usize| {
        let at = |index: usize| figures.get(index).map(|it| (it.size as f64, it.p50 as f64));
        let (size, _) = at(index)?;
        let Some((smaller, before)) = index.checked_sub(1).and_then(at) else { return at(1).map(|(_, after)| after) };
        let grown = before * size / smaller;
        let between =
            at(index + 1).map(|(larger, after)| before + (after - before) * (size - smaller) / (larger - smaller));
        Some(between.map_or(grown, |between| between.min(grown)))
    };
    let found = figures.iter().enumerate().filter_map(|(index, it)| {
        let expected = expected(index)?;
        (it.p50 as f64 > CLIFF_RATIO * expected).then_some(Cliff { size: it.size, took: it.p50, expected })
    });
    found.collect()
}

/// Returns the tables and cliffs, or an empty text if nothing was measured.
pub(super) fn section(results: &Results) -> String {
    let trips = &results.round_trips;
    if trips.rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## Round trips by size\n\nMicroseconds for one round trip at a time, on one connection: the median, and 99 %. In `echo` the bytes \
         are sent and come back. Otherwise a request of 10 B is answered with the bytes: in one write, in two (all bytes but the last 4, \
         then those), or in many (of 1 KiB). Measured on {}, {}; other programs took {:.0} % of the cores' time meanwhile.\n\n",
        trips.processor,
        trips.date,
        100.0 * trips.others
    );
    for kind in KINDS.map(|kind| kind.title()) {
        let rows: Vec<_> = trips.rows.iter().filter(|row| row.scenario == kind).collect();
        if !rows.is_empty() {
            // Writing to a string cannot fail, here and below.
            let _ = write!(text, "### {}\n\n{}", capitalized(kind), table(&rows));
        }
    }
    text + &cliffs_table(&trips.rows)
}

/// Returns a table with a row for each size and a column for each peer. Cliffs are bold.
fn table(rows: &[&Row<Vec<RoundTrip>>]) -> String {
    let names: Vec<_> = rows.iter().map(|row| row.peer.as_str()).collect();
    let mut text = format!("| B | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for size in SIZES {
        let cells: Vec<_> = rows.iter().map(|row| cell(row, size)).collect();
        let _ = writeln!(text, "| {} | {} |", number_text(size as f64), cells.join(" | "));
    }
    text.push('\n');
    text
}

fn cell(row: &Row<Vec<RoundTrip>>, size: usize) -> String {
    let Some(figures) = row.outcome.measured() else {
        return row.outcome.reason().unwrap_or_default().replace('|', "/");
    };
    let Some(it) = figures.iter().find(|it| it.size == size) else { return "–".into() };
    let cell_text = format!("{}, {}", microseconds(it.p50 as f64), microseconds(it.p99 as f64));
    if cliffs(figures).iter().any(|cliff| cliff.size == size) { format!("**{cell_text}**") } else { cell_text }
}

/// Returns a table of the measured peers with their cliffs.
fn cliffs_table(rows: &[Row<Vec<RoundTrip>>]) -> String {
    let mut text = format!(
        "### Cliffs\n\nA cliff is a size that takes more than {} times as long as interpolation between its neighbours predicts, or more \
         than {0} times as long as its smaller neighbour, grown in proportion. Its times are bold above.\n\n| peer | cliffs |\n|---|---|\n",
        number_text(CLIFF_RATIO)
    );
    let mut peers: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome.measured().is_some()) {
        if !peers.contains(&row.peer.as_str()) {
            peers.push(&row.peer);
        }
    }
    for peer in peers {
        let of_peer = rows.iter().filter(|row| row.peer == peer);
        let found: Vec<_> = of_peer.flat_map(described).collect();
        let cell_text = if found.is_empty() { "none".into() } else { found.join("; ") };
        let _ = writeln!(text, "| {peer} | {cell_text} |");
    }
    text.push('\n');
    text
}

fn described(row: &Row<Vec<RoundTrip>>) -> Vec<String> {
    let each = |Cliff { size, took, expected }| {
        let (took, expected) = (microseconds(took as f64), microseconds(expected));
        format!("{}, {} B: {took} µs for {expected}", row.scenario, number_text(size as f64))
    };
    row.outcome.measured().map_or_else(Vec::new, |figures| cliffs(figures).into_iter().map(each).collect())
}

fn microseconds(nanoseconds: f64) -> String {
    number_text((nanoseconds / 1000.0).round())
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Outcome, RoundTrips};

    /// Times of 20 µs plus 1 ns for each byte, except for the slow sizes.
    fn figures(slow: &[usize]) -> Vec<RoundTrip> {
        let time = |index: usize, size: usize| if slow.contains(&index) { 52_000_000 } else { 20_000 + size as u64 };
        let each = |(index, size)| RoundTrip { size, count: 400, p50: time(index, size), p99: time(index, size) * 2 };
        SIZES.into_iter().enumerate().map(each).collect()
    }

    fn found(slow: &[usize]) -> Vec<usize> {
        cliffs(&figures(slow)).iter().map(|cliff| cliff.size).collect()
    }

    /// A time that grows with the size has no cliff, and a single size that stalls is one, at any
    /// position.
    #[test]
    fn one_slow_size_is_a_cliff() {
        assert_eq!(found(&[]), [0; 0]);
        for (index, size) in SIZES.into_iter().enumerate() {
            assert_eq!(found(&[index]), [size]);
        }
    }

    /// Of several slow sizes in a row, the first is a cliff: its larger neighbour does not hide it.
    #[test]
    fn several_slow_sizes_begin_with_a_cliff() {
        for (first, size) in SIZES.into_iter().enumerate().skip(1) {
            let slow: Vec<_> = (first..SIZES.len()).collect();
            assert_eq!(found(&slow), [size]);
        }
    }

    /// A time of exactly twice the expected one is not a cliff.
    #[test]
    fn up_to_twice_is_no_cliff() {
        let figure = |size, p50| RoundTrip { size, count: 1, p50, p99: p50 };
        let around = |p50| cliffs(&[figure(100, 1_000), figure(200, p50), figure(300, 3_000)]).len();
        assert_eq!((around(4_000), around(4_001)), (0, 1));
    }

    /// The report marks each cliff, and lists the cliffs of each peer.
    #[test]
    fn the_report_shows_cliffs() {
        let row = |peer: &str, slow: &[usize]| Row {
            scenario: "two writes".into(),
            peer: peer.into(),
            outcome: Outcome::Measured(figures(slow)),
        };
        let missing =
            Row { scenario: "echo".into(), peer: "gone".into(), outcome: Outcome::Missing("no | here".into()) };
        let rows = vec![row("stalls", &[4]), row("runs", &[]), missing];
        let round_trips = RoundTrips { processor: "AMD".into(), date: "2026-11-29".into(), others: 0.456, rows };
        let text = section(&Results { round_trips, ..Results::default() });
        assert!(text.contains("| 9,004 | **52,000, 104,000** | 29, 58 |"), "{text}");
        assert!(text.contains("| stalls | two writes, 9,004 B: 52,000 µs for "), "{text}");
        assert!(text.contains("| runs | none |"), "{text}");
        assert!(
            text.contains("| 64 | missing: no / here |") && !text.contains("| gone |\n|---|---|\n| gone"),
            "{text}"
        );
        assert!(text.contains("on AMD, 2026-11-29;") && text.contains("took 46 % of"), "{text}");
        assert_eq!(section(&Results::default()), "");
    }
}
