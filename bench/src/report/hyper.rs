//! The section of the report about hyper on Ropewalk and on tokio.

use std::fmt::Write;

use crate::hello::{Engine, cheaper};
use crate::plot::number_text;
use crate::results::{HelloCost, Outcome, Results};

/// Returns the section. It is empty if hyper was not measured.
pub(super) fn section(results: &Results) -> String {
    let hyper = &results.hyper;
    if hyper.rows.is_empty() {
        return String::new();
    }
    let cost = |engine: Engine| {
        let row = hyper.rows.iter().find(|row| row.peer == engine.to_string());
        row.and_then(|row| row.outcome.measured())
    };
    let tokio = match Engine::TOKIO.map(cost) {
        [Some(one), Some(other)] => Some(cheaper(one, other)),
        _ => None,
    };
    let mut text = format!(
        "## hyper's 'Hello, world', on Ropewalk and on tokio\n\nHTTP/1.1 over connections that are kept alive: user instructions and system calls \
         of a server for a request, 64 connections at a time, and private memory of an idle connection after one request, as the slope from 1,000 to 4,000. \
         tokio runs its `current_thread` runtime. Ratios are to the lower of tokio's two figures. {}, {}.\n\n\
         | engine | instructions of a request | against tokio | system calls of a request | memory of an idle connection, B | against tokio |\n\
         |---|---|---|---|---|---|\n",
        hyper.versions, hyper.date
    );
    let against = |figure: fn(&HelloCost) -> f64, cost: &HelloCost| {
        tokio.as_ref().map_or_else(|| "–".into(), |tokio| format!("{:.3}", figure(cost) / figure(tokio)))
    };
    for row in &hyper.rows {
        // Writing to a string cannot fail.
        let _ = match &row.outcome {
            Outcome::Measured(cost) => writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                row.peer,
                number_text(cost.instructions.round()),
                against(|cost| cost.instructions, cost),
                cost.system_calls.map_or_else(|| "–".into(), |calls| format!("{calls:.2}")),
                number_text(cost.bytes.round()),
                against(|cost| cost.bytes, cost)
            ),
            other => {
                writeln!(text, "| {} | {} | | | | |", row.peer, other.reason().unwrap_or_default().replace('|', "/"))
            }
        };
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Hyper, Row};

    fn row(engine: Engine, outcome: Outcome<HelloCost>) -> Row<HelloCost> {
        Row { scenario: "hyper".into(), peer: engine.to_string(), outcome }
    }

    fn measured(engine: Engine, instructions: f64, bytes: f64) -> Row<HelloCost> {
        row(engine, Outcome::Measured(HelloCost { instructions, system_calls: Some(2.046), bytes }))
    }

    /// Each ratio is to the lower of tokio's figures, and a missing engine has its reason.
    #[test]
    fn ratios_are_to_the_lower_figure() {
        let rows = vec![
            measured(Engine::TokioSpawn, 8000.0, 10_000.0),
            measured(Engine::TokioLocal, 9000.0, 5000.0),
            measured(Engine::Mio, 8400.4, 4000.0),
            row(Engine::IoUring, Outcome::Missing("no | ring".into())),
        ];
        let hyper = Hyper { date: "2026-11-29".into(), versions: "hyper 1.12.0".into(), rows };
        let text = section(&Results { hyper, ..Results::default() });
        assert!(text.contains("hyper 1.12.0, 2026-11-29."), "{text}");
        assert!(text.contains("| tokio-spawn | 8,000 | 1.000 | 2.05 | 10,000 | 2.000 |"), "{text}");
        assert!(text.contains("| ropewalk-mio | 8,400 | 1.050 | 2.05 | 4,000 | 0.800 |"), "{text}");
        assert!(text.contains("| ropewalk-io_uring | missing: no / ring | | | | |"), "{text}");
        assert_eq!(section(&Results::default()), "");
    }

    /// Without tokio's figures there are no ratios.
    #[test]
    fn without_tokio_there_are_no_ratios() {
        let rows = vec![measured(Engine::Mio, 8000.0, 4000.0)];
        let text = section(&Results { hyper: Hyper { rows, ..Hyper::default() }, ..Results::default() });
        assert!(text.contains("| ropewalk-mio | 8,000 | – | 2.05 | 4,000 | – |"), "{text}");
    }
}
