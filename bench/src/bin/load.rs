//! `load ADDRESS SIZE DEPTH [SOURCE]`: the load generator, a process of its own on the last core.
//! It reads commands from standard input, one on each line.
//!
//! Messages have SIZE bytes, and DEPTH of them are sent as one segment. SOURCE is the number of the
//! first loopback address to connect from.
//!
//! | command | effect | answer |
//! |---|---|---|
//! | `grow N` | opens connections until there are N, each echoed and compared | `done` |
//! | `check` | echoes on all connections and compares | `done` |
//! | `echo MILLISECONDS N` | sends, with N segments in flight | `window MESSAGES NANOSECONDS BUCKET:COUNT..` |
//! | `rounds N` | sends on all connections and waits for all answers, N times | the same |
//! | `churn MILLISECONDS N` | connects, echoes once and closes, N at a time | the same |
//!
//! The process ends at the end of its input, or when its parent does.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use ropewalk_bench::Result;
use ropewalk_bench::load::{LoadGenerator, StopCondition, Window};
use ropewalk_bench::system::{Core, end_with_parent, pin, raise_descriptor_limit};

fn run() -> Result<()> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    pin(Core::Load)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, size, depth, source @ ..] = &arguments[..] else {
        return Err("usage: load ADDRESS SIZE DEPTH [SOURCE]".into());
    };
    let source = source.first().map_or(Ok(0), |source| source.parse())?;
    let mut load = LoadGenerator::new(server.parse()?, size.parse()?, depth.parse()?, source)?;
    for line in std::io::stdin().lock().lines() {
        let answer = execute(&mut load, &line?)?;
        let mut output = std::io::stdout().lock();
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn execute(load: &mut LoadGenerator, command: &str) -> Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let window = match words[..] {
        ["grow", count] => return load.grow(count.parse()?).map(|()| "done".into()),
        ["check"] => return load.check_all().map(|()| "done".into()),
        ["echo", time, in_flight] => load.echo(StopCondition::Time(milliseconds(time)?), in_flight.parse()?)?,
        ["rounds", count] => load.rounds(count.parse()?)?,
        ["churn", time, at_once] => load.churn(milliseconds(time)?, at_once.parse()?)?,
        _ => return Err(format!("unknown command: {command}").into()),
    };
    let Window { messages, nanoseconds, latency } = window;
    Ok(format!("window {messages} {nanoseconds}{}", latency.to_text()))
}

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
