//! The tables.

use std::fmt::Write;

use crate::measure::crowds::IN_FLIGHT;
use crate::measure::echo::SCENARIOS;
use crate::plot::number_text;
use crate::programs::PEERS;
use crate::results::{Echo, Latency, Outcome, Pair, Results, Row};
use crate::stats::{Spread, spread};

/// What this is, and where it was measured.
pub(super) fn head(results: &Results) -> String {
    let machine = &results.machine;
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "# What Ropewalk costs, beside its peers\n\n\
         Made by `cargo run --release -p ropewalk-bench --bin compare`; how, is in [bench/README.md](../README.md). The baseline is the smallest \
         level-triggered epoll server in C (`epoll-c`), and `epoll-inline` the same in Rust with its system calls in line. `control` is the baseline once more: by what its ratios differ from 1, all others may be wrong.\n\n\
         {}, {} cores, Linux {}, {}; {} descriptors a process. Ratios are medians of {} pairs of windows of {} ms; all of it took {} s.\n\
         {}.\n\n",
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.date,
        number_text(machine.descriptors as f64),
        machine.rounds,
        machine.window,
        machine.took,
        versions.join(", ")
    )
}

/// All others, with those pictures that there are.
pub(super) fn all(results: &Results, pictures: &[&str]) -> String {
    let mut text = String::new();
    let picture = |text: &mut String, name: &str| {
        if pictures.contains(&name) {
            // Writing to a string does not fail, here and everywhere below.
            let _ = write!(text, "![{name}]({name}.svg)\n\n");
        }
    };
    text += "## Server CPU for a message, against the baseline\n\nBelow 1 is less. In brackets what half of the pairs lie between.\n\n";
    text += &echo_table(&results.echo, |echo| ratio(echo, Pair::cpu));
    picture(&mut text, "cpu");
    text += "## Messages a second, against the baseline\n\nWhere the load's core is full, rates are capped: compare CPU.\n\n";
    text += &echo_table(&results.echo, |echo| ratio(echo, Pair::rate));
    picture(&mut text, "throughput");
    text += "## Latency\n\nMicroseconds until a segment is back: the median, 99 %, 99.9 %; in brackets the baseline's in the same run. The loop is \
             closed, so with many connections most of it is waiting for the others.\n\n";
    text +=
        &echo_table(&results.echo, |echo| format!("{} ({})", latency(&echo.latency), latency(&echo.baseline_latency)));
    picture(&mut text, "latency");
    text += "## User instructions for an echo\n\n64 connections, 64 B, all of the process under callgrind.\n\n";
    text += &single_table(&results.instructions, "instructions", |it| number_text(it.each().round()));
    picture(&mut text, "instructions");
    text +=
        "## User memory of an idle connection\n\nAfter one echo: the slope of private memory that was written to.\n\n";
    text += &single_table(&results.memory, "bytes (slope between so many connections)", |it| {
        let [few, many] = it.connections.map(|count| number_text(count as f64));
        format!("{} ({few} to {many})", number_text(it.each().round()))
    });
    picture(&mut text, "memory");
    text += &scale(results, picture);
    text
}

fn scale(results: &Results, picture: impl Fn(&mut String, &str)) -> String {
    let mut text = format!(
        "## As connections grow\n\nServer CPU for a message of 64 B in nanoseconds: closed loop, {IN_FLIGHT} messages under way, connections have \
         their turn one after the other. In brackets the baseline's, in windows that alternate.\n\n"
    );
    let most =
        results.connections.iter().filter_map(|row| row.outcome.measured()?.last()).map(|it| it.connections).max();
    if most.is_some_and(|most| most < 15_000) {
        let _ = write!(
            text,
            "Not 15,000: {} descriptors are allowed.\n\n",
            number_text(results.machine.descriptors as f64)
        );
    }
    text += &crowds_table(results);
    picture(&mut text, "connections");
    text += "## Many connections, over several processes\n\nEach was echoed and compared when it was opened, and again when all were.\n\n\
             | | reached | wanted | servers | user memory of one, B | opening took, s | |\n|---|---|---|---|---|---|---|\n";
    for row in &results.many {
        let _ = match &row.outcome {
            Outcome::Measured(it) => writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.1} | {} |",
                row.peer,
                number_text(it.reached as f64),
                number_text(it.wanted as f64),
                it.servers,
                number_text((it.bytes as f64 / it.reached.max(1) as f64).round()),
                it.opening,
                it.stopped_by.as_deref().unwrap_or_default()
            ),
            other => writeln!(text, "| {} | – | | | | | {} |", row.peer, other.reason().unwrap_or_default()),
        };
    }
    text += "\n## As timers grow\n\nNanoseconds each; those cancelled are any of them.\n\n| pending | schedule | cancel | fire |\n|---|---|---|---|\n";
    for it in &results.timers {
        let pending = number_text(it.pending as f64);
        let _ = writeln!(text, "| {pending} | {:.0} | {:.0} | {:.0} |", it.schedule, it.cancel, it.fire);
    }
    text.push('\n');
    picture(&mut text, "timers");
    text += "## A queue that nobody reads\n\nMemory for each byte that waits.\n\n| | | pending, MiB: memory |\n|---|---|---|\n";
    for row in &results.pending {
        let said = row.outcome.measured().map_or_else(
            || row.outcome.reason().unwrap_or_default(),
            |steps| {
                let each = |it: &crate::results::Pending| {
                    format!("{:.0}: {:.3}", it.bytes as f64 / 1_048_576.0, it.memory as f64 / it.bytes as f64)
                };
                steps.iter().map(each).collect::<Vec<_>>().join(", ")
            },
        );
        let _ = writeln!(text, "| {} | {} | {said} |", row.peer, row.scenario);
    }
    text.push('\n');
    picture(&mut text, "pending");
    text
}

/// Peers down, scenarios across.
fn echo_table(rows: &[Row<Echo>], cell: impl Fn(&Echo) -> String) -> String {
    let measured: Vec<_> = SCENARIOS.iter().filter(|it| rows.iter().any(|row| row.scenario == it.name)).collect();
    let titles: Vec<_> = measured.iter().map(|it| it.title).collect();
    let mut text = format!("| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for peer in PEERS.iter().filter(|peer| rows.iter().any(|row| row.peer == peer.name)) {
        let cells: Vec<_> = measured
            .iter()
            .map(|scenario| {
                let row = rows.iter().find(|row| row.peer == peer.name && row.scenario == scenario.name);
                row.map_or_else(|| "–".into(), |row| row.outcome.measured().map_or_else(|| reason(row), &cell))
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", peer.name, cells.join(" | "));
    }
    text.push('\n');
    text
}

fn single_table<T>(rows: &[Row<T>], unit: &str, cell: impl Fn(&T) -> String) -> String {
    let mut text = format!("| | {unit} |\n|---|---|\n");
    for row in rows {
        let said = row.outcome.measured().map_or_else(|| reason(row), &cell);
        let _ = writeln!(text, "| {} | {said} |", row.peer);
    }
    text.push('\n');
    text
}

fn crowds_table(results: &Results) -> String {
    let mut text = String::from("| | connections: ns |\n|---|---|\n");
    for row in &results.connections {
        let said = row.outcome.measured().map_or_else(
            || reason(row),
            |crowds| {
                let each = crowds.iter().filter_map(|crowd| {
                    let peer = spread(crowd.pairs.iter().map(|pair| pair.peer.cpu_each()))?;
                    let baseline = spread(crowd.pairs.iter().map(|pair| pair.baseline.cpu_each()))?;
                    let count = number_text(crowd.connections as f64);
                    Some(format!(
                        "{count}: {} ({})",
                        number_text(peer.median.round()),
                        number_text(baseline.median.round())
                    ))
                });
                each.collect::<Vec<_>>().join("; ")
            },
        );
        let _ = writeln!(text, "| {} | {said} |", row.peer);
    }
    text.push('\n');
    text
}

fn reason<T>(row: &Row<T>) -> String {
    row.outcome.reason().unwrap_or_default().replace('|', "/")
}

fn ratio(echo: &Echo, ratio: fn(&Pair) -> f64) -> String {
    let Some(Spread { low, median, high }) = spread(echo.pairs.iter().map(ratio)) else { return "–".into() };
    format!("{median:.2} ({low:.2}–{high:.2})")
}

fn latency(latency: &Latency) -> String {
    let Latency { p50, p99, p99_9 } = *latency;
    [p50, p99, p99_9].map(|it| number_text((it as f64 / 1000.0).round())).join(", ")
}
