//! Tables of peers that were measured in pairs of windows: ratios to a baseline.

use std::fmt::Write;

use crate::plot::number_text;
use crate::results::{Row, WindowPair};
use crate::stats::spread;

/// Returns a table for each scenario, with a line for each peer: its ratios, or the reason for
/// which there are none. `head` names the columns, and `cells` fills those behind the name.
pub(super) fn tables(
    rows: &[Row<Vec<WindowPair>>],
    scenarios: impl IntoIterator<Item = String>,
    head: [&str; 4],
    cells: fn(&[WindowPair]) -> [String; 3],
) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "### {scenario}\n\n| {} |\n|---|---|---|---|", head.join(" | "));
        for row in rows.iter().filter(|row| row.scenario == scenario) {
            let cells = match row.outcome.measured() {
                Some(pairs) => cells(pairs),
                None => {
                    let reason = row.outcome.reason().unwrap_or_default().replace('|', "/");
                    [reason, "–".into(), "–".into()]
                }
            };
            let _ = writeln!(text, "| {} | {} |", row.peer, cells.join(" | "));
        }
        text.push('\n');
    }
    text
}

/// Returns the median and the quartiles of a ratio.
pub(super) fn ratio(pairs: &[WindowPair], of: impl Fn(&WindowPair) -> f64) -> String {
    let ratios = spread(pairs.iter().map(of));
    ratios.map_or_else(|| "–".into(), |it| format!("{:.2} ({:.2} to {:.2})", it.median, it.low, it.high))
}

/// Returns the median of a number, without a fraction.
pub(super) fn median(pairs: &[WindowPair], of: impl Fn(&WindowPair) -> f64) -> String {
    spread(pairs.iter().map(of)).map_or_else(|| "–".into(), |it| number_text(it.median.round()))
}
