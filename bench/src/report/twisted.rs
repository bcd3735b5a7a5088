//! The section of the report about Twisted's reactors in Python, with that of the package on
//! Ropewalk among them. `python/bench/figures` measures them.

use std::fmt::Write;

use crate::plot::{Bar, Panel, Scale, bars, number_text};
use crate::results::{Outcome, Results, Row, TwistedCost};
use crate::stats::{Spread, spread};

/// Returns the section. It is empty if nothing was measured.
pub(super) fn section(results: &Results) -> String {
    let twisted = &results.twisted;
    if twisted.rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## Twisted's reactors, in Python\n\nAn echo of 64 bytes over 64 connections, with a protocol in Python: user instructions of the server \
         (callgrind) and system calls (strace), as differences of a long and a short run. The same of a timer that is scheduled and cancelled, \
         and of one that fires. CPU time is that of the server with the kernel, beside Twisted's epoll reactor in alternating windows: the \
         median with quartiles, {}. uvloop alone runs asyncio's protocols, without Twisted. {}, {}.\n\n\
         ![Twisted's reactors](twisted.svg)\n\n\
         | reactor | instructions of an echo | system calls | CPU against epollreactor | of a cancelled timer | of a fired timer |\n\
         |---|---|---|---|---|---|\n",
        twisted.cpu_date.as_deref().map_or_else(|| "not measured".into(), |date| format!("measured on {date}")),
        twisted.versions,
        twisted.date
    );
    for row in &twisted.rows {
        // Writing to a string cannot fail.
        let _ = match &row.outcome {
            Outcome::Measured(cost) => {
                let counted = |figure: Option<f64>| figure.map_or_else(|| "–".into(), |it| number_text(it.round()));
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {} |",
                    row.peer,
                    counted(cost.instructions),
                    cost.system_calls.map_or_else(|| "–".into(), |calls| format!("{calls:.2}")),
                    cpu(cost),
                    counted(cost.cancel),
                    counted(cost.fire)
                )
            }
            other => {
                writeln!(text, "| {} | {} | | | | |", row.peer, other.reason().unwrap_or_default().replace('|', "/"))
            }
        };
    }
    text.push('\n');
    text
}

/// Returns the chart of the section, or `None` if nothing was counted.
pub(super) fn picture(results: &Results) -> Option<String> {
    let rows = &results.twisted.rows;
    let panel = |title: &str, figure: fn(&TwistedCost) -> Option<f64>| Panel {
        title: title.into(),
        bars: rows.iter().filter_map(|row| bar(row, figure)).collect(),
    };
    let all = [
        panel("an echo", |cost| cost.instructions),
        panel("a timer, cancelled", |cost| cost.cancel),
        panel("a timer, fired", |cost| cost.fire),
    ];
    let panels: Vec<_> = all.into_iter().filter(|panel| !panel.bars.is_empty()).collect();
    let title = "User instructions in Python, on Twisted's reactors";
    (!panels.is_empty()).then(|| bars(title, "logarithmic", &panels, Scale::Log))
}

fn bar(row: &Row<TwistedCost>, figure: fn(&TwistedCost) -> Option<f64>) -> Option<Bar> {
    let value = figure(row.outcome.measured()?)?;
    // The margin has room for short names.
    let label = row.peer.replace("asyncioreactor on uvloop", "asyncio, uvloop");
    Some(Bar { label, value: Ok(value.max(1.0)), ticks: Vec::new(), ours: row.peer.starts_with("ropewalk") })
}

fn cpu(cost: &TwistedCost) -> String {
    match spread(cost.cpu.iter().copied()) {
        Some(Spread { low, median, high }) => format!("{median:.3} ({low:.3} to {high:.3})"),
        None => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Twisted;

    fn results(rows: Vec<Row<TwistedCost>>) -> Results {
        let twisted = Twisted { date: "2026-11-29".into(), versions: "Twisted 26.10.0".into(), rows, cpu_date: None };
        Results { twisted, ..Results::default() }
    }

    fn row(peer: &str, outcome: Outcome<TwistedCost>) -> Row<TwistedCost> {
        Row { scenario: "twisted".into(), peer: peer.into(), outcome }
    }

    /// Each figure has its column. A figure that was not measured is a dash.
    #[test]
    fn each_figure_has_a_column() {
        let cost = TwistedCost {
            instructions: Some(68_320.4),
            system_calls: Some(2.034),
            cancel: Some(9000.0),
            fire: None,
            cpu: vec![1.0, 1.0, 1.0],
        };
        let results = results(vec![
            row("epollreactor", Outcome::Measured(cost)),
            row("ropewalk, io_uring", Outcome::Missing("no | ring".into())),
        ]);
        let text = section(&results);
        assert!(text.contains("| epollreactor | 68,320 | 2.03 | 1.000 (1.000 to 1.000) | 9,000 | – |"), "{text}");
        assert!(text.contains("| ropewalk, io_uring | missing: no / ring | | | | |"), "{text}");
        assert!(text.contains("quartiles, not measured."), "{text}");
        assert!(picture(&results).is_some_and(|picture| picture.contains("epollreactor")));
    }

    /// Nothing is written about what was not measured.
    #[test]
    fn without_figures_there_is_no_section() {
        assert_eq!(section(&Results::default()), "");
        assert_eq!(picture(&Results::default()), None);
    }
}
