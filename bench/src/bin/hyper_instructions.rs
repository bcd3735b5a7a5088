//! hyper's 'Hello, world' on Ropewalk beside tokio: user instructions and system calls of a
//! request, and memory of an idle connection.
//!
//! `cargo run --release -p ropewalk-bench --bin hyper_instructions`
//!
//! The program runs itself: under callgrind for the instructions, and as a server for the memory.
//! The clients are plain sockets. They are not counted: callgrind counts only in the functions that
//! turn the server's loop (`src/hello.rs`). The difference of two runs of different lengths leaves
//! out the work that is done once.
//!
//! tokio's figure is that of the cheaper of `tokio::spawn` and a `LocalSet`. The program ends with
//! status 1 if a figure on mio is more than [`LIMIT`] times tokio's.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ropewalk_bench::callgrind::Profile;
use ropewalk_bench::hello::{COUNTED, Client, Engine, Server};
use ropewalk_bench::peers::Missing;
use ropewalk_bench::process::Process;
use ropewalk_bench::system::{end_with_parent, private_memory, raise_descriptor_limit};
use ropewalk_bench::Result;

/// The largest ratio to tokio's figure.
const LIMIT: f64 = 1.03;

/// Number of connections that send a request in each round.
const CONNECTIONS: usize = 64;

/// Lengths of the two runs.
const ROUNDS: [usize; 2] = [20, 70];

/// Numbers of idle connections, each of which was answered once.
const IDLE: [usize; 2] = [1_000, 4_000];

/// Arguments with which the program runs itself.
const RUN: &str = "--run";
const SERVE: &str = "--serve";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => compare(),
        [RUN, engine, rounds] => run(engine, rounds),
        [SERVE, engine] => serve(engine),
        _ => Err("usage: hyper_instructions".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

struct Figures { instructions: f64, system_calls: f64, memory: f64 }

fn compare() -> Result<()> {
    for engine in Engine::ALL {
        let [short, long] = ROUNDS;
        let count = |rounds: usize| Profile::of_this_program(&[RUN, &engine.to_string(), &rounds.to_string()], COUNTED);
        let (less, more) = match count(short).and_then(|less| Ok((less, count(long)?))) {
            Err(error) if error.is::<Missing>() => { println!("{engine}: skipped: {error}"); continue; }
            counted => counted?,
        };
        let units = ((long - short) * CONNECTIONS) as f64;
        let calls = |p: &Profile| p.system_calls.values().sum::<u64>() as f64;
        let f = Figures { instructions: (more.instructions - less.instructions) as f64 / units, system_calls: (calls(&more) - calls(&less)) / units, memory: memory(engine)? };
        println!("{engine}: {:.0} instructions, {:.3} system calls, {:.0} B", f.instructions, f.system_calls, f.memory);
    }
    Ok(())
}

fn run(engine: &str, rounds: &str) -> Result<()> {
    let server = Server::new(Engine::named(engine)?)?;
    let clients: Result<Vec<_>> = (0..CONNECTIONS).map(|_| Client::connect(server.address)).collect();
    let mut clients = clients?;
    for _ in 0..rounds.parse()? {
        for client in &mut clients { client.ask()?; }
        let mut waiting: Vec<&mut Client> = clients.iter_mut().collect();
        server.turn_until("answers", || {
            let mut still = Vec::new();
            for client in waiting.drain(..) { if !client.is_answered()? { still.push(client); } }
            waiting = still;
            Ok(waiting.is_empty())
        })?;
    }
    Ok(())
}

fn serve(engine: &str) -> Result<()> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    let server = Server::new(Engine::named(engine)?)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready {}", server.address)?;
    output.flush()?;
    drop(output);
    server.run().map(|never| match never {})
}

fn memory(engine: Engine) -> Result<f64> {
    raise_descriptor_limit()?;
    let mut process = Process::start("server", Command::new(std::env::current_exe()?).args([SERVE, &engine.to_string()]))?;
    let line = process.line(Duration::from_secs(20))?;
    let address = line.strip_prefix("ready ").ok_or_else(|| line.clone())?.parse()?;
    let mut clients = Vec::new();
    let mut bytes = [0.0; 2];
    for (count, bytes) in IDLE.into_iter().zip(&mut bytes) {
        while clients.len() < count {
            let mut client = Client::connect(address)?;
            client.ask()?;
            while !client.is_answered()? { std::thread::yield_now(); }
            clients.push(client);
        }
        std::thread::sleep(Duration::from_millis(100));
        *bytes = private_memory(process.id())? as f64;
    }
    Ok((bytes[1] - bytes[0]) / (IDLE[1] - IDLE[0]) as f64)
}
