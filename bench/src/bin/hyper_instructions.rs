//! hyper's 'Hello, world' on Ropewalk, beside tokio: user instructions and system calls of a
//! request, and memory of an idle connection.
//!
//! `cargo run --release -p ropewalk-bench --bin hyper_instructions`
//!
//! | figure | one unit | connections |
//! |---|---|---|
//! | instructions, system calls | a request arrives on an open connection and is answered | 64 |
//! | memory | a connection that is kept alive after one request: slope of the private memory | 1,000 to 4,000 |
//!
//! The service and the clients are those of `src/hello.rs`. For the first two, the program runs
//! itself under callgrind, with a server and its clients in one thread. callgrind counts only in
//! the functions that turn the server's loop. The difference of two runs of different lengths
//! leaves out the work that is done once. For the memory, the server is a process of its own.
//!
//! tokio's figure is that of the cheaper of `tokio::spawn` and a `LocalSet`. The program ends with
//! status 1 if a figure on mio is more than [`LIMIT`] times tokio's.
//!
//! | argument | effect |
//! |---|---|
//! | `--figures ENGINE` | prints `figures INSTRUCTIONS SYSTEM_CALLS BYTES` of this engine, for `compare` |
//! | `--few ENGINE` | the same, of short runs |

use std::io::Write;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use ropewalk_bench::Result;
use ropewalk_bench::callgrind::Profile;
use ropewalk_bench::hello::{COUNTED, Client, Engine, Server, cheaper};
use ropewalk_bench::peers::Missing;
use ropewalk_bench::process::Process;
use ropewalk_bench::results::HelloCost;
use ropewalk_bench::system::{end_with_parent, private_memory, raise_descriptor_limit};

/// The largest ratio to tokio's figure.
const LIMIT: f64 = 1.03;

/// Number of connections that send a request in each round.
const CONNECTIONS: usize = 64;

/// Extent of a measurement.
struct Extent {
    /// Numbers of rounds of the two runs.
    rounds: [usize; 2],
    /// Numbers of idle connections.
    idle: [usize; 2],
}

const WHOLE: Extent = Extent { rounds: [20, 70], idle: [1_000, 4_000] };

/// Shows that everything works.
const FEW: Extent = Extent { rounds: [2, 6], idle: [100, 400] };

/// Descriptors of the program and of the server besides those of the connections.
const RESERVED_DESCRIPTORS: u64 = 100;

/// The longest wait for the server process.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Time in which the server process becomes idle.
const SETTLING_TIME: Duration = Duration::from_millis(100);

/// Arguments with which the program runs itself.
const RUN: &str = "--run";
const SERVE: &str = "--serve";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => gate(),
        ["--figures", engine] => print_figures(engine, &WHOLE),
        ["--few", engine] => print_figures(engine, &FEW),
        [RUN, engine, rounds] => run(engine, rounds),
        [SERVE, engine] => serve(engine),
        _ => Err("usage: hyper_instructions [--figures ENGINE | --few ENGINE]".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

/// Measures all engines, and checks the ratios on mio.
fn gate() -> Result<()> {
    let [spawn, local] = Engine::TOKIO.map(|engine| report(engine, &WHOLE));
    let tokio = cheaper(&spawn?, &local?);
    let mut failures = Vec::new();
    for engine in [Engine::Mio, Engine::IoUring] {
        let ours = match report(engine, &WHOLE) {
            Err(error) if error.is::<Missing>() => {
                println!("{engine}: skipped: {error}");
                continue;
            }
            ours => ours?,
        };
        let ratios = [
            ("instructions", ours.instructions / tokio.instructions),
            ("memory of an idle connection", ours.bytes / tokio.bytes),
        ];
        for (figure, ratio) in ratios {
            println!("{engine}: {figure}: {ratio:.3} of tokio's");
            // A ring costs more instructions, and fewer system calls.
            if engine == Engine::Mio && ratio > LIMIT {
                failures.push(format!("{figure} on mio: more than {LIMIT} times tokio's"));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

fn report(engine: Engine, extent: &Extent) -> Result<HelloCost> {
    let cost = measure(engine, extent)?;
    let HelloCost { instructions, system_calls, bytes } = cost;
    println!("{engine}: {instructions:.0} instructions, {system_calls:.2} system calls, {bytes:.0} B");
    Ok(cost)
}

fn print_figures(engine: &str, extent: &Extent) -> Result<()> {
    let HelloCost { instructions, system_calls, bytes } = measure(Engine::named(engine)?, extent)?;
    println!("figures {instructions} {system_calls} {bytes}");
    Ok(())
}

fn measure(engine: Engine, extent: &Extent) -> Result<HelloCost> {
    let [instructions, system_calls] = request(engine, extent.rounds)?;
    Ok(HelloCost { instructions, system_calls, bytes: memory(engine, extent.idle)? })
}

/// Counts the instructions and the system calls of a request.
fn request(engine: Engine, rounds: [usize; 2]) -> Result<[f64; 2]> {
    let count = |rounds: usize| -> Result<[f64; 2]> {
        let arguments = [RUN, &engine.to_string(), &rounds.to_string()];
        let profile = Profile::of_this_program(&arguments, COUNTED)?;
        Ok([profile.instructions, profile.system_calls.values().sum()].map(|count: u64| count as f64))
    };
    let [short, long] = rounds;
    let (few, many) = (count(short)?, count(long)?);
    let requests = ((long - short) * CONNECTIONS) as f64;
    Ok([0, 1].map(|figure| (many[figure] - few[figure]) / requests))
}

/// Runs a server and its clients, under valgrind as a rule. In each round every client sends a
/// request and is answered.
fn run(engine: &str, rounds: &str) -> Result<()> {
    let server = Server::new(Engine::named(engine)?)?;
    let clients: Result<Vec<_>> = (0..CONNECTIONS).map(|_| Client::connect(server.address)).collect();
    let mut clients = clients?;
    for _ in 0..rounds.parse()? {
        for client in &mut clients {
            client.ask()?;
        }
        let mut answered = 0;
        server.turn_until("answers", || {
            while answered < CONNECTIONS && clients[answered].is_answered()? {
                answered += 1;
            }
            Ok(answered == CONNECTIONS)
        })?;
    }
    Ok(())
}

/// Measures the memory of an idle connection in bytes.
fn memory(engine: Engine, idle: [usize; 2]) -> Result<f64> {
    let [_, most] = idle;
    if raise_descriptor_limit()? < most as u64 + RESERVED_DESCRIPTORS {
        return Err(Missing(format!("the limit of descriptors is below {most} connections")).into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    let mut server = Process::start("the server", command.args([SERVE, &engine.to_string()]))?;
    let line = server.line(WAIT_LIMIT)?;
    if let Some(why) = line.strip_prefix("missing ") {
        return Err(Missing(why.to_owned()).into());
    }
    let address = line.strip_prefix("ready ").ok_or_else(|| format!("the server printed: {line}"))?.parse()?;
    let (mut clients, mut bytes) = (Vec::new(), [0.0; 2]);
    for (count, bytes) in idle.into_iter().zip(&mut bytes) {
        while clients.len() < count {
            let mut client = Client::connect(address)?;
            client.ask()?;
            let end = Instant::now() + WAIT_LIMIT;
            while !client.is_answered()? {
                if Instant::now() > end {
                    return Err(format!("no answer for {WAIT_LIMIT:?}").into());
                }
                thread::yield_now();
            }
            clients.push(client);
        }
        thread::sleep(SETTLING_TIME);
        *bytes = private_memory(server.id())? as f64;
    }
    let ([few, many], [less, more]) = (idle, bytes);
    Ok((more - less) / (many - few) as f64)
}

/// Serves until the process that started this one ends or kills it.
fn serve(engine: &str) -> Result<()> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    let server = Server::new(Engine::named(engine)?)?;
    {
        let mut output = std::io::stdout().lock();
        writeln!(output, "ready {}", server.address)?;
        output.flush()?;
    }
    server.run().map(|never| match never {})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without valgrind, each engine answers every request of some rounds.
    #[test]
    fn engines_answer() {
        for engine in Engine::ALL {
            match run(&engine.to_string(), "3") {
                Err(error) if error.is::<Missing>() => println!("{engine}: skipped: {error}"),
                done => done.unwrap(),
            }
        }
        assert!(run("libuv", "1").is_err());
    }
}
