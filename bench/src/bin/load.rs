//! `load ADDRESS SIZE DEPTH [SOURCE]`: the load generator, a process of its own on the last core, told by lines on its standard input
//! what to do.
//!
//! Messages have SIZE bytes, DEPTH of them are sent as one segment; SOURCE is the number of the first loopback address to come from.
//!
//! | line | does | answers |
//! |---|---|---|
//! | `grow N` | opens connections until there are N, each echoed and compared | `done` |
//! | `check` | has all of them echoed and compared | `done` |
//! | `echo MILLISECONDS N` | sends, N segments under way | `window MESSAGES NANOSECONDS BUCKET:COUNT..` |
//! | `rounds N` | all send and are waited for, N times | the same |
//! | `churn MILLISECONDS N` | connects, is echoed, closes, N at a time | the same |
//!
//! It ends when its input does, or whoever started it.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use ropewalk_bench::Result;
use ropewalk_bench::load::{Load, Until, Window};
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
    let mut load = Load::new(server.parse()?, size.parse()?, depth.parse()?, source)?;
    for line in std::io::stdin().lock().lines() {
        let answer = obey(&mut load, &line?)?;
        let mut output = std::io::stdout().lock();
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn obey(load: &mut Load, order: &str) -> Result<String> {
    let words: Vec<&str> = order.split_whitespace().collect();
    let window = match words[..] {
        ["grow", count] => return load.grow(count.parse()?).map(|()| "done".into()),
        ["check"] => return load.check_all().map(|()| "done".into()),
        ["echo", time, in_flight] => load.echo(Until::Time(milliseconds(time)?), in_flight.parse()?)?,
        ["rounds", count] => load.rounds(count.parse()?)?,
        ["churn", time, at_once] => load.churn(milliseconds(time)?, at_once.parse()?)?,
        _ => return Err(format!("no such order: {order}").into()),
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
