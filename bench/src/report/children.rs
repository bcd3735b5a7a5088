//! Starts of child processes, as ratios to `posix_spawn`.

use super::pairs::{self, median, ratio};
use crate::measure::children::HELD_MEBIBYTES;
use crate::results::{Results, WindowPair};

/// Returns the table, or an empty text if nothing was measured.
pub(super) fn section(results: &Results) -> String {
    let children = &results.children;
    if children.rows.is_empty() {
        return String::new();
    }
    let head = ["program", "time", "CPU", "µs"];
    let tables = pairs::tables(&children.rows, HELD_MEBIBYTES.map(scenario), head, |pairs| {
        let time = ratio(pairs, |pair| 1.0 / pair.rate());
        [time, ratio(pairs, WindowPair::cpu), median(pairs, |pair| 1e6 / pair.peer.rate())]
    });
    format!(
        "## Child processes\n\nA start and an end of `/bin/true`, one after the other: time, and CPU time of the program that starts it, as \
         ratios to `posix_spawn` of the standard library. Median, and quartiles. The last column is the time in microseconds. Measured on \
         {}, {}.\n\n{tables}",
        children.processor, children.date
    )
}

/// Returns the name of the scenario with this memory.
pub fn scenario(held: usize) -> String {
    if held == 0 { "A small program".to_owned() } else { format!("A program that holds {held} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Children, Outcome, Row, WindowFigures};

    /// The table has a line for each program, with ratios or the reason for which there are none.
    #[test]
    fn ratios_and_reasons() {
        let figures = |nanoseconds, cpu| WindowFigures { messages: 10, nanoseconds, cpu };
        let pair = WindowPair { peer: figures(3_000_000, 24_000), baseline: figures(2_000_000, 20_000) };
        let row = |peer: &str, outcome| Row { scenario: scenario(0), peer: peer.into(), outcome };
        let rows = vec![row("ours", Outcome::Measured(vec![pair])), row("gone", Outcome::Missing("no | here".into()))];
        let children = Children { processor: "AMD".into(), date: "2026-11-30".into(), rows };
        let text = section(&Results { children, ..Results::default() });
        assert!(text.contains("| ours | 1.50 (1.50 to 1.50) | 1.20 (1.20 to 1.20) | 300 |"), "{text}");
        assert!(text.contains("| gone | missing: no / here | – | – |"), "{text}");
        assert_eq!(section(&Results::default()), "");
    }
}
