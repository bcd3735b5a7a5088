//! The tables of the report.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::measure::echo::SCENARIOS;
use crate::measure::scale::IN_FLIGHT;
use crate::plot::number_text;
use crate::programs::PEERS;
use crate::results::{Echo, Latency, Outcome, Results, Row, WindowPair};
use crate::stats::{Spread, spread};

/// Returns the introduction, with the machine of the measurement.
pub(super) fn head(results: &Results) -> String {
    let machine = &results.machine;
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "# Ropewalk's costs beside its peers\n\n\
         Made by `cargo run --release -p ropewalk-bench --bin compare`; [bench/README.md](../README.md) describes the method. The baseline is the \
         smallest level-triggered epoll server in C (`epoll-c`). `epoll-inline` is the same server in Rust, with its system calls inlined. \
         `control` is the baseline as a peer of itself: the difference of its ratios from 1 is the error of all ratios.\n\n\
         {}, {} cores, Linux {}, {}; {} descriptors in a process. Ratios are medians of {} pairs of windows of {} ms. The run took {} s.\n\n\
         Versions: {}.\n\n",
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

/// Returns the tables, with the charts that exist.
pub(super) fn all(results: &Results, pictures: &[&str]) -> String {
    let mut text = String::new();
    let picture = |text: &mut String, name: &str| {
        if pictures.contains(&name) {
            // Writing to a string cannot fail, here and everywhere below.
            let _ = write!(text, "![{name}]({name}.svg)\n\n");
        }
    };
    text += "## Server CPU for a message, against the baseline\n\nBelow 1 is less than the baseline. In brackets: the quartiles of the pairs.\n\n";
    text += &echo_table(&results.echo, |echo| ratio(echo, WindowPair::cpu));
    picture(&mut text, "cpu");
    text += "## Messages a second, against the baseline\n\nThe core of the load generator caps high rates. Where it is full, compare CPU instead.\n\n";
    text += &echo_table(&results.echo, |echo| ratio(echo, WindowPair::rate));
    picture(&mut text, "throughput");
    text += "## Latency\n\nMicroseconds until a segment is back; in brackets the baseline in the same run. The loop is closed, so with \
             many connections most of the time is queueing delay.\n\n";
    text += &latency_table(&results.echo, "Median", |it| it.p50);
    text += &latency_table(&results.echo, "99 %", |it| it.p99);
    text += &latency_table(&results.echo, "99.9 %", |it| it.p99_9);
    picture(&mut text, "latency");
    text += "## User instructions for an echo\n\n64 connections, 64 B, the whole process under callgrind.\n\n";
    text += &single_table(&results.instructions, "instructions", |it| number_text(it.each().round()));
    picture(&mut text, "instructions");
    text += "## User memory of an idle connection\n\nAfter one echo: the slope of the private memory that was written to.\n\n";
    text += &single_table(&results.memory, "bytes (range of connections)", |it| {
        let [few, many] = it.connections.map(|count| number_text(count as f64));
        format!("{} ({few} to {many})", number_text(it.each().round()))
    });
    picture(&mut text, "memory");
    text += &scale(results, picture);
    text
}

fn scale(results: &Results, picture: impl Fn(&mut String, &str)) -> String {
    let mut text = format!(
        "## As connections grow\n\nNanoseconds of server CPU for a message of 64 B: closed loop, {IN_FLIGHT} messages in flight, connections take \
         turns. In brackets the baseline, in windows that alternate.\n\n"
    );
    let most =
        results.connections.iter().filter_map(|row| row.outcome.measured()?.last()).map(|it| it.connections).max();
    if most.is_some_and(|most| most < 15_000) {
        let _ = write!(
            text,
            "Fewer than 15,000 connections: the limit is {} descriptors.\n\n",
            number_text(results.machine.descriptors as f64)
        );
    }
    text += &connections_table(results);
    picture(&mut text, "connections");
    text += "## Many connections, over several processes\n\nEach connection was echoed and compared when it was opened, and again when all were open.\n\n\
             | peer | reached | target | servers | user memory for each, B | time to open, s | stopped by |\n|---|---|---|---|---|---|---|\n";
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
    text += "\n## As timers grow\n\nNanoseconds for each operation. Timers to cancel are chosen at random.\n\n| pending | schedule | cancel | fire |\n|---|---|---|---|\n";
    for it in &results.timers {
        let pending = number_text(it.pending as f64);
        let _ = writeln!(text, "| {pending} | {:.0} | {:.0} | {:.0} |", it.schedule, it.cancel, it.fire);
    }
    text.push('\n');
    picture(&mut text, "timers");
    text += "## A queue whose peer does not read\n\nBytes of memory for each queued byte.\n\n| peer | writes | queued MiB: memory |\n|---|---|---|\n";
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

/// Returns a table with a row for each peer and a column for each scenario.
fn echo_table(rows: &[Row<Echo>], cell: impl Fn(&Echo) -> String) -> String {
    let measured: Vec<_> = SCENARIOS.iter().filter(|it| rows.iter().any(|row| row.scenario == it.name)).collect();
    let titles: Vec<_> = measured.iter().map(|it| it.title).collect();
    let mut text = format!("| peer | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
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

/// Returns a section with a table of one percentile of the latency.
fn latency_table(rows: &[Row<Echo>], title: &str, percentile: fn(&Latency) -> u64) -> String {
    let microseconds = |latency: &Latency| number_text((percentile(latency) as f64 / 1000.0).round());
    let cell = |echo: &Echo| format!("{} ({})", microseconds(&echo.latency), microseconds(&echo.baseline_latency));
    format!("### {title}\n\n{}", echo_table(rows, cell))
}

fn single_table<T>(rows: &[Row<T>], unit: &str, cell: impl Fn(&T) -> String) -> String {
    let mut text = format!("| peer | {unit} |\n|---|---|\n");
    for row in rows {
        let said = row.outcome.measured().map_or_else(|| reason(row), &cell);
        let _ = writeln!(text, "| {} | {said} |", row.peer);
    }
    text.push('\n');
    text
}

/// Returns a table with a row for each number of connections and a column for each measured peer.
fn connections_table(results: &Results) -> String {
    let rows = || results.connections.iter().filter_map(|row| Some((row, row.outcome.measured()?)));
    let counts: BTreeSet<usize> = rows().flat_map(|(_, points)| points.iter().map(|it| it.connections)).collect();
    let names: Vec<_> = rows().map(|(row, _)| row.peer.as_str()).collect();
    let mut text = String::new();
    if !names.is_empty() {
        let _ = writeln!(text, "| connections | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    }
    for count in counts {
        let cells = rows().map(|(_, points)| {
            let point = points.iter().find(|it| it.connections == count);
            let cost =
                |side: fn(&WindowPair) -> f64| Some(number_text(spread(point?.pairs.iter().map(side))?.median.round()));
            let figures = cost(|it| it.peer.cpu_each()).zip(cost(|it| it.baseline.cpu_each()));
            figures.map_or_else(|| "–".into(), |(peer, baseline)| format!("{peer} ({baseline})"))
        });
        let _ = writeln!(text, "| {} | {} |", number_text(count as f64), cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
    for row in results.connections.iter().filter(|row| row.outcome.measured().is_none()) {
        let _ = write!(text, "{}: {}\n\n", row.peer, reason(row));
    }
    text
}

fn reason<T>(row: &Row<T>) -> String {
    row.outcome.reason().unwrap_or_default().replace('|', "/")
}

fn ratio(echo: &Echo, ratio: fn(&WindowPair) -> f64) -> String {
    let Some(Spread { low, median, high }) = spread(echo.pairs.iter().map(ratio)) else { return "–".into() };
    format!("{median:.2} ({low:.2}–{high:.2})")
}
