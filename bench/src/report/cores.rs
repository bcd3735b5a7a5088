//! The section of the report about one thread and several.

use std::fmt::Write;

use crate::plot::number_text;
use crate::results::{Outcome, Results};

/// Returns the section. It is empty if the servers were not measured.
pub(super) fn section(results: &Results) -> String {
    let cores = &results.cores;
    if cores.rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## One thread and several\n\nGroups of reactors beside tokio's multi-threaded runtime, each with the number of threads in its name. \
         `-reuse` is a group with `SO_REUSEPORT`; the other groups hand connections over. CPU of all threads of the server, in ns, for an echo \
         of 64 B on an open connection, and for a connection with one echo. The load generators share the cores with the server, so the rates \
         show only part of what a further core brings. Measured on {}, {}; other programs took {:.0} % of the cores' time meanwhile.\n\n\
         | server | CPU for an echo, ns | echoes in a second | CPU for a short connection, ns | in a second |\n|---|---|---|---|---|\n",
        cores.processor,
        cores.date,
        100.0 * cores.others
    );
    for row in &cores.rows {
        // Writing to a string cannot fail.
        let _ = match &row.outcome {
            Outcome::Measured(cost) => {
                let figures = [cost.echo, cost.echoes_per_second, cost.connection, cost.connections_per_second];
                writeln!(text, "| {} | {} |", row.peer, figures.map(|it| number_text(it.round())).join(" | "))
            }
            other => {
                writeln!(text, "| {} | {} | | | |", row.peer, other.reason().unwrap_or_default().replace('|', "/"))
            }
        };
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Cores, CoresCost, Row};

    /// A server is a row, and a missing one has its reason.
    #[test]
    fn servers_are_rows() {
        let cost =
            CoresCost { echo: 9000.4, echoes_per_second: 62_500.0, connection: 74_600.0, connections_per_second: 9.0 };
        let rows = [("mio-2", Outcome::Measured(cost)), ("io_uring-2", Outcome::Missing("no | ring".into()))];
        let rows = rows.map(|(peer, outcome)| Row { scenario: "cores".into(), peer: peer.into(), outcome });
        let cores = Cores { rows: rows.into(), others: 0.034, ..Cores::default() };
        let text = section(&Results { cores, ..Results::default() });
        assert!(text.contains("| mio-2 | 9,000 | 62,500 | 74,600 | 9 |\n"), "{text}");
        assert!(text.contains("| io_uring-2 | missing: no / ring | | | |\n"), "{text}");
        assert!(text.contains("other programs took 3 %"), "{text}");
        assert_eq!(section(&Results::default()), "");
    }
}
