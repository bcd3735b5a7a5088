//! The targets, and the amounts by which they were missed.

use std::fmt::Write;

use crate::measure::echo::SCENARIOS;
use crate::plot::number_text;
use crate::programs::{BASELINE, INLINE, OURS};
use crate::results::{Outcome, Results, Row, ScalePoint, WindowFigures, WindowPair};
use crate::stats::spread;

/// A target: its title, the maximum for each backend, and the function that finds its figure.
struct Target {
    title: String,
    most: [f64; 2],
    measured: fn(&Results, &str, &str) -> Option<f64>,
    scenario: &'static str,
    /// `true` if the figure is a ratio to the baseline.
    is_ratio: bool,
}

impl Target {
    /// Converts a ratio to the baseline into a ratio to the baseline with inlined system calls.
    fn against_inline(&self, results: &Results, measured: Option<f64>) -> Option<f64> {
        let inline = (self.measured)(results, INLINE.name, self.scenario);
        Some(measured.filter(|_| self.is_ratio)? / inline?)
    }
}

fn all() -> Vec<Target> {
    let cpu = |scenario: &'static str, most| {
        let title = SCENARIOS.iter().find(|it| it.name == scenario).map_or(scenario, |it| it.title);
        Target {
            title: format!("server CPU, {title}, against the baseline"),
            most,
            measured: cpu_of,
            scenario,
            is_ratio: true,
        }
    };
    let other = |title: &str, most, measured, scenario| Target {
        title: title.into(),
        most,
        measured,
        scenario,
        is_ratio: false,
    };
    vec![
        other("user instructions for an echo, 64 × 64 B", [500.0, 900.0], instructions_of, ""),
        cpu("64x64", [0.94, 0.87]),
        cpu("64x64x16", [0.94, 0.88]),
        cpu("1000x64", [0.95, 0.92]),
        cpu("64x16k", [0.96, 0.96]),
        cpu("churn", [0.98, 0.93]),
        cpu("1x64", [0.95, 1.02]),
        other("user memory of an idle connection, B", [185.0, 400.0], memory_of, ""),
        other("CPU for a message, 15,000 connections against 1,000", [1.2, 1.2], crowd_of, ""),
        other("memory of a queue against its size, writes of 64 KiB", [1.05, 1.05], pending_of, "writes of 65536 B"),
        other("the same, writes of 64 B", [1.05, 1.05], pending_of, "writes of 64 B"),
    ]
}

/// Returns all targets as a table.
pub(super) fn table(results: &Results) -> String {
    let mut text = format!(
        "## Targets\n\nThe baseline is `{}`. The last column is the same figure against `{}` instead: the quotient of both ratios to the \
         baseline.\n\n| figure | backend | maximum | measured | verdict | against `{}` |\n|---|---|---|---|---|---|\n",
        BASELINE.name, INLINE.name, INLINE.name
    );
    for target in all() {
        for (peer, most) in OURS.iter().zip(target.most) {
            let measured = (target.measured)(results, peer.name, target.scenario);
            let inline = target.against_inline(results, measured).map_or(String::new(), number_text);
            let verdict = measured.map_or("not measured".into(), |measured| verdict(measured, most));
            let measured = measured.map_or("–".into(), number_text);
            let backend = peer.backend().unwrap_or_default();
            // Writing to a string cannot fail.
            let (title, most) = (&target.title, number_text(most));
            let _ = writeln!(text, "| {title} | {backend} | {most} | {measured} | {verdict} | {inline} |");
        }
    }
    text.push('\n');
    text
}

/// Compares the figure as it is printed: numbers that are equal to two digits are equal.
fn verdict(measured: f64, most: f64) -> String {
    let shown = if most < 10.0 { (measured * 100.0).round() / 100.0 } else { measured.round() };
    if shown <= most { "reached".into() } else { format!("missed by {:.1} %", (shown / most - 1.0) * 100.0) }
}

fn find<'a, T>(rows: &'a [Row<T>], peer: &str, scenario: &str) -> Option<&'a T> {
    let row = rows.iter().find(|row| row.peer == peer && (scenario.is_empty() || row.scenario == scenario));
    row.map(|row| &row.outcome).and_then(Outcome::measured)
}

fn cpu_of(results: &Results, peer: &str, scenario: &str) -> Option<f64> {
    let echo = find(&results.echo, peer, scenario)?;
    Some(spread(echo.pairs.iter().map(WindowPair::cpu))?.median)
}

fn instructions_of(results: &Results, peer: &str, scenario: &str) -> Option<f64> {
    find(&results.instructions, peer, scenario).map(|it| it.each())
}

fn memory_of(results: &Results, peer: &str, scenario: &str) -> Option<f64> {
    find(&results.memory, peer, scenario).map(|it| it.each())
}

fn crowd_of(results: &Results, peer: &str, scenario: &str) -> Option<f64> {
    let crowds = find(&results.connections, peer, scenario)?;
    let cost = |crowd: &ScalePoint| {
        spread(crowd.pairs.iter().map(|pair| WindowFigures::cpu_each(&pair.peer))).map(|spread| spread.median)
    };
    let few = crowds.iter().find(|crowd| crowd.connections == 1_000)?;
    let many = crowds.iter().find(|crowd| crowd.connections == 15_000)?;
    Some(cost(many)? / cost(few)?)
}

fn pending_of(results: &Results, peer: &str, scenario: &str) -> Option<f64> {
    let last = find(&results.pending, peer, scenario)?.last()?;
    Some(last.memory as f64 / last.bytes as f64)
}
