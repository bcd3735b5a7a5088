//! The charts of the report, and their contents.

use super::twisted;
use crate::measure::echo::SCENARIOS;
use crate::plot::{Bar, Curve, Panel, Scale, bars, curves};
use crate::programs::{BASELINE, OURS};
use crate::results::{Latency, Results, Row, ScalePoint, WindowFigures, WindowPair};
use crate::stats::{Spread, spread};

/// Returns all charts by name, with `None` where nothing was measured.
pub(super) fn all(results: &Results) -> Vec<(&'static str, Option<String>)> {
    vec![
        (
            "throughput",
            ratios(
                results,
                "Messages a second, against the baseline",
                "bars to the right are better",
                WindowPair::rate,
            ),
        ),
        (
            "cpu",
            ratios(
                results,
                "Server CPU for a message, against the baseline",
                "bars to the left are better",
                WindowPair::cpu,
            ),
        ),
        ("latency", latency(results)),
        (
            "instructions",
            single(&results.instructions, "User instructions for an echo", "64 connections, 64 B", |it| it.each()),
        ),
        (
            "memory",
            single(&results.memory, "User memory of an idle connection", "bytes, after one echo", |it| it.each()),
        ),
        ("connections", connections(results)),
        ("timers", timers(results)),
        ("pending", pending(results)),
        ("twisted", twisted::picture(results)),
    ]
}

/// Returns a panel with a bar for each row.
fn panel<T>(title: &str, rows: &[&Row<T>], bar: impl Fn(&T) -> Option<(f64, Vec<f64>)>) -> Panel {
    let bars = rows.iter().map(|row| {
        let measured = row.outcome.measured().and_then(&bar);
        let ours = OURS.iter().any(|peer| peer.name == row.peer);
        let (value, ticks) = match measured {
            Some((value, ticks)) => (Ok(value), ticks),
            None => (Err(row.outcome.reason().unwrap_or_default()), Vec::new()),
        };
        Bar { label: row.peer.clone(), value, ticks, ours }
    });
    Panel { title: title.into(), bars: bars.collect() }
}

/// Returns a panel for each measured scenario of echoes.
fn panels(results: &Results, bar: impl Fn(&crate::results::Echo) -> Option<(f64, Vec<f64>)>) -> Vec<Panel> {
    let of = |name: &str| results.echo.iter().filter(|row| row.scenario == name).collect::<Vec<_>>();
    let all = SCENARIOS.iter().map(|scenario| panel(scenario.title, &of(scenario.name), &bar));
    all.filter(|panel| !panel.bars.is_empty()).collect()
}

fn ratios(results: &Results, title: &str, unit: &str, ratio: fn(&WindowPair) -> f64) -> Option<String> {
    let panels = panels(results, |echo| {
        let Spread { low, median, high } = spread(echo.pairs.iter().map(ratio))?;
        Some((median, vec![low, high]))
    });
    let unit = format!("medians with quartiles; {unit}; the line is the baseline");
    (!panels.is_empty()).then(|| bars(title, &unit, &panels, Scale::Ratio { low: 0.5, high: 1.5 }))
}

fn latency(results: &Results) -> Option<String> {
    let micro = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let panels = panels(results, |echo| {
        let Latency { p50, p99, p99_9 } = echo.latency;
        Some((micro(p50), [p50, p99, p99_9].map(micro).to_vec()))
    });
    let unit = "microseconds: the median, and ticks at 99 % and 99.9 %; with many connections mostly queueing delay";
    (!panels.is_empty()).then(|| bars("Latency of a segment", unit, &panels, Scale::Log))
}

fn single<T>(rows: &[Row<T>], title: &str, unit: &str, value: impl Fn(&T) -> f64) -> Option<String> {
    let panel = panel("", &rows.iter().collect::<Vec<_>>(), |figures| Some((value(figures).max(1.0), Vec::new())));
    (!rows.is_empty()).then(|| bars(title, unit, &[panel], Scale::Log))
}

fn connections(results: &Results) -> Option<String> {
    let cost = |crowd: &ScalePoint, side: fn(&WindowPair) -> WindowFigures| {
        let spread = spread(crowd.pairs.iter().map(|pair| side(pair).cpu_each() / 1000.0))?;
        Some((crowd.connections as f64, spread.median))
    };
    let mut all = Vec::new();
    for row in &results.connections {
        let Some(crowds) = row.outcome.measured() else { continue };
        let curve = |side| crowds.iter().filter_map(|crowd| cost(crowd, side)).collect();
        all.push(Curve { label: row.peer.clone(), points: curve(|pair| pair.peer) });
        all.push(Curve {
            label: format!("{}, beside {}", BASELINE.name, row.peer),
            points: curve(|pair| pair.baseline),
        });
    }
    let unit = "microseconds of server CPU for a message of 64 B, 64 in flight";
    (!all.is_empty()).then(|| curves("CPU time as connections grow", "connections", unit, &all, false))
}

fn timers(results: &Results) -> Option<String> {
    let curve = |label: &str, value: fn(&crate::results::Timers) -> f64| Curve {
        label: label.into(),
        points: results.timers.iter().map(|it| (it.pending as f64, value(it))).collect(),
    };
    let all =
        [curve("schedule", |it| it.schedule), curve("cancel at random", |it| it.cancel), curve("fire", |it| it.fire)];
    let unit = "nanoseconds for each operation";
    (!results.timers.is_empty()).then(|| curves("Time as timers grow", "pending timers", unit, &all, true))
}

fn pending(results: &Results) -> Option<String> {
    let curve = |row: &Row<Vec<crate::results::Pending>>| {
        let points = row.outcome.measured()?.iter();
        let points = points.map(|it| (it.bytes as f64 / 1_048_576.0, it.memory as f64 / it.bytes as f64)).collect();
        Some(Curve { label: format!("{}, {}", row.peer, row.scenario), points })
    };
    let all: Vec<_> = results.pending.iter().filter_map(curve).collect();
    let unit = "memory for each queued byte, in bytes";
    (!all.is_empty()).then(|| curves("Memory of a queue whose peer does not read", "MiB queued", unit, &all, false))
}
