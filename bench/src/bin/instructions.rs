//! How many instructions the engine takes for an echo: 64 connections that send 64 bytes each, and get them back, over and over.
//!
//! `cargo run --release -p ropewalk-bench --bin instructions [-- --set]`
//!
//! It runs itself under valgrind's callgrind, which counts instructions and takes no notice of how busy the machine is. Counted is what
//! happens inside a turn of the loop, and nothing of the clients, nor of the kernel; the difference of two runs of different lengths leaves
//! out what is done once. The number that may be reached stands in `bench/instructions.txt`, and `--set` writes it anew; with a number
//! that is more than five in a hundred higher this ends with status 1.

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ropewalk::{ListenOptions, Protocol, Reactor, Result, Transport};

const CONNECTIONS: usize = 64;
const BYTES: usize = 64;

/// How long the two runs are.
const ROUNDS: [usize; 2] = [100, 300];

/// How much more is too much, in a hundred.
const ALLOWED: f64 = 5.0;

/// The function whose instructions are counted, by its name in the program.
const COUNTED: &str = "instructions::turn";

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// One turn of the loop.
#[inline(never)]
fn turn(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).expect("the loop turns");
}

/// So many rounds, in each of which every client sends and is answered.
fn echo(rounds: usize) -> Result<()> {
    let reactor = Reactor::builder().signals(false).build()?;
    let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    let Some(address) = port.host().socket_addr() else { return Ok(()) };
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        client.set_nonblocking(true)?;
        clients.push(client);
        turn(&reactor);
    }
    for _ in 0..rounds {
        for client in &mut clients {
            client.write_all(&[7; BYTES])?;
        }
        let mut answered = 0;
        while answered < clients.len() * BYTES {
            turn(&reactor);
            for client in &mut clients {
                let mut answer = [0; BYTES];
                match client.read(&mut answer) {
                    Ok(count) => answered += black_box(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// The instructions of a run of so many rounds.
fn count(rounds: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("no program: {error}"))?;
    let output = std::env::temp_dir().join(format!("ropewalk-instructions-{}-{rounds}", std::process::id()));
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}*")])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(program)
        .arg(rounds.to_string())
        .output()
        .map_err(|error| format!("valgrind can't be run: {error}"))?;
    let counted = std::fs::read_to_string(&output);
    drop(std::fs::remove_file(&output));
    let said = String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() {
        return Err(format!("the run under valgrind failed:\n{said}"));
    }
    let counted = counted.map_err(|error| format!("valgrind has counted nothing: {error}\n{said}"))?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.filter(|&total| total > 0).ok_or_else(|| format!("valgrind has counted nothing of {COUNTED}"))
}

/// Instructions for one echo.
fn measure() -> Result<f64, String> {
    let [short, long] = ROUNDS;
    let (less, more) = (count(short)?, count(long)?);
    Ok((more as f64 - less as f64) / ((long - short) * CONNECTIONS) as f64)
}

fn gate(set: bool) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let measured = measure()?;
    if set {
        std::fs::write(&file, format!("{measured:.0}\n")).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let known = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let known: f64 = known.trim().parse().map_err(|error| format!("{}: {error}", file.display()))?;
    let change = (measured / known - 1.0) * 100.0;
    println!("{measured:.0} instructions for an echo, {change:+.1} % of the {known:.0} in {}", file.display());
    if change > ALLOWED {
        return Err(format!("{measured:.0} instructions are more than {known:.0} and {ALLOWED:.0} % on top"));
    }
    Ok(())
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let done = match argument.as_deref().map(str::parse) {
        Some(Ok(rounds)) => echo(rounds).map_err(|failure| failure.to_string()),
        _ => gate(argument.as_deref() == Some("--set")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
