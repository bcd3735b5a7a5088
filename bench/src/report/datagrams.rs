//! Echoes of datagrams, as ratios to a loop in C.

use super::pairs::{self, median, ratio};
use crate::measure::datagrams::SIZES;
use crate::plot::number_text;
use crate::results::{Results, WindowPair};

/// Returns the table, or an empty text if nothing was measured.
pub(super) fn section(results: &Results) -> String {
    let datagrams = &results.datagrams;
    if datagrams.rows.is_empty() {
        return String::new();
    }
    let head = ["server", "CPU", "datagrams per second", "ns"];
    let tables = pairs::tables(&datagrams.rows, SIZES.map(scenario), head, |pairs| {
        [ratio(pairs, WindowPair::cpu), ratio(pairs, WindowPair::rate), median(pairs, |pair| pair.peer.cpu_each())]
    });
    format!(
        "## Datagrams\n\nAn echo of datagrams, from 64 sockets that each have one on the way: CPU time of the server for a datagram, and \
         datagrams per second, as ratios to a loop of `recvmmsg` and `sendmmsg` in C. It blocks in `recvmmsg`, and so serves one \
         socket; `mmsg-epoll-c` is the same loop with a wait of epoll. Median, and quartiles. The last column is the CPU time \
         in nanoseconds. Measured on {}, {}.\n\n{tables}",
        datagrams.processor, datagrams.date
    )
}

/// Returns the name of the scenario with this size.
pub fn scenario(size: usize) -> String {
    format!("64 × {} B", number_text(size as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Datagrams, Outcome, Row, WindowFigures};

    /// The table has a line for each server, with ratios or the reason for which there are none.
    #[test]
    fn ratios_and_reasons() {
        let figures = |cpu| WindowFigures { messages: 10, nanoseconds: 1_000, cpu };
        let pair = WindowPair { peer: figures(23_000), baseline: figures(20_000) };
        let row = |peer: &str, outcome| Row { scenario: scenario(64), peer: peer.into(), outcome };
        let rows = vec![row("ours", Outcome::Measured(vec![pair])), row("gone", Outcome::Missing("no | here".into()))];
        let datagrams = Datagrams { processor: "AMD".into(), date: "2026-11-30".into(), rows };
        let text = section(&Results { datagrams, ..Results::default() });
        assert!(text.contains("| ours | 1.15 (1.15 to 1.15) | 1.00 (1.00 to 1.00) | 2,300 |"), "{text}");
        assert!(text.contains("| gone | missing: no / here | – | – |"), "{text}");
        assert_eq!(section(&Results::default()), "");
    }
}
