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
//! The service and the clients are those of `src/hello.rs`. For the instructions, the program runs
//! itself under callgrind, with a server and its clients in one thread. callgrind counts only in
//! the functions that turn the server's loop. For the system calls it runs itself under strace, if
//! that is installed, and the clients subtract their own. The difference of two runs of different
//! lengths leaves out the work that is done once. For the memory, the server is a process of its
//! own.
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
    let system_calls = system_calls.map_or_else(|| "-".into(), |calls| format!("{calls:.2}"));
    println!("{engine}: {instructions:.0} instructions, {system_calls} system calls, {bytes:.0} B");
    Ok(cost)
}

fn print_figures(engine: &str, extent: &Extent) -> Result<()> {
    let HelloCost { instructions, system_calls, bytes } = measure(Engine::named(engine)?, extent)?;
    let system_calls = system_calls.map_or_else(|| "-".into(), |calls| calls.to_string());
    println!("figures {instructions} {system_calls} {bytes}");
    Ok(())
}

fn measure(engine: Engine, extent: &Extent) -> Result<HelloCost> {
    Ok(HelloCost {
        instructions: instructions(engine, extent.rounds)?,
        system_calls: system_calls(engine, extent.rounds)?,
        bytes: memory(engine, extent.idle)?,
    })
}

/// Counts the instructions of a request.
fn instructions(engine: Engine, rounds: [usize; 2]) -> Result<f64> {
    per_request(rounds, |rounds| {
        let arguments = [RUN, &engine.to_string(), rounds];
        Ok(Profile::of_this_program(&arguments, COUNTED)?.instructions)
    })
}

/// Counts the server's system calls of a request. `None` without strace, or where it may not trace.
fn system_calls(engine: Engine, rounds: [usize; 2]) -> Result<Option<f64>> {
    let traces = Command::new("strace").args(["-c", "true"]).output();
    if !traces.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let counted = per_request(rounds, |rounds| {
        let output = std::env::temp_dir().join(format!("ropewalk-strace-{}", std::process::id()));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&output).arg(std::env::current_exe()?);
        let ran = command.args([RUN, &engine.to_string(), rounds]).output()?;
        let table = std::fs::read_to_string(&output);
        // Absent if strace did not write it, which is reported below.
        drop(std::fs::remove_file(&output));
        let own = String::from_utf8_lossy(&ran.stdout);
        let own: u64 = own.trim().strip_prefix("clients ").ok_or("the run under strace failed")?.parse()?;
        Ok(total_calls(&table?)? - own)
    });
    counted.map(Some)
}

/// Reads the last line of a table of strace: percentage, seconds, microseconds of a call, calls,
/// perhaps errors, and the word `total`.
fn total_calls(table: &str) -> Result<u64> {
    let total = table.lines().find(|line| line.ends_with(" total")).ok_or("strace counted nothing")?;
    Ok(total.split_whitespace().nth(3).ok_or("strace printed no number of calls")?.parse()?)
}

/// Returns the figure of one request, from those of a short run and a long one.
fn per_request([short, long]: [usize; 2], count: impl Fn(&str) -> Result<u64>) -> Result<f64> {
    let (few, many) = (count(&short.to_string())?, count(&long.to_string())?);
    Ok((many as f64 - few as f64) / ((long - short) * CONNECTIONS) as f64)
}

/// Runs a server and its clients, under valgrind or strace as a rule. In each round every client
/// sends a request and is answered. Prints the number of the clients' system calls.
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
    println!("clients {}", clients.iter().map(Client::system_calls).sum::<u64>());
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

    /// The total of a table is found with and without a column of errors.
    #[test]
    fn totals_of_strace_are_read() {
        let head = "% time     seconds  usecs/call     calls    errors syscall\n";
        for line in [
            "100.00    0.002571           1      2569         3 total",
            "100.00    0.002571           1      2569           total",
        ] {
            assert_eq!(total_calls(&format!("{head}{line}\n")).unwrap(), 2569);
        }
        assert!(total_calls(head).is_err());
    }
}
