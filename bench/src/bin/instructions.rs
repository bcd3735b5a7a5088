//! The instruction gate: counts the user instructions of the reactor, and fails if a case exceeds
//! its bound.
//!
//! `cargo run --release -p ropewalk-bench --bin instructions [-- --set]`
//!
//! | case, on each backend | one unit | connections |
//! |---|---|---|
//! | `echo` | 64 bytes arrive on an open connection and are sent back | 64 |
//! | `accept-echo-close` | a connection is accepted, echoed once and closed by its client | 16 |
//!
//! The program runs itself under valgrind's callgrind. The counts do not depend on other load on
//! the machine. Only turns of the event loop are counted: the clients and the kernel are left out.
//! The difference of two runs of different lengths leaves out one-time work.
//!
//! The bounds are in `bench/instructions.txt`. The program ends with status 1 if a case exceeds its
//! bound by more than 5 %, or has no bound. A case that is more than 5 % below its bound does not
//! fail: the program asks for the new number to be recorded. `--set` records all measured numbers.
//! Where io_uring is not available, its cases are skipped, and a line says so.
//!
//! The gate also checks that the event loop makes the system calls of an echo in its own frame. A
//! return that crosses a system call is mispredicted, and no count of instructions shows that
//! (`docs/costs.md`). Two checks are made, on Linux on x86_64:
//!
//! - The machine code of `Core::run` and `Core::iterate`, disassembled by objdump, contains the
//!   system calls of [`IN_FRAME`].
//! - The turns of the case `echo` on mio make no system call in any other function, according to
//!   callgrind.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ropewalk::{BackendKind, ListenOptions, Protocol, Reactor, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::bounds::{Bounds, TOLERANCE_PERCENT, Verdict, change_percent};
use ropewalk_bench::callgrind::Profile;
use ropewalk_bench::machine_code::system_calls;
use ropewalk_bench::peers::Missing;

/// All cases, in the order of the file of bounds.
const CASES: [Case; 4] = [
    Case { backend: BackendKind::Mio, ..ECHO },
    Case { backend: BackendKind::IoUring, ..ECHO },
    Case { backend: BackendKind::Mio, ..ACCEPT_ECHO_CLOSE },
    Case { backend: BackendKind::IoUring, ..ACCEPT_ECHO_CLOSE },
];

const ECHO: Case = Case { name: "echo", backend: BackendKind::Mio, connections: 64, rounds: [100, 300], run: echo };

/// Same number of connections at a time as in the scenario `churn` of `compare`.
const ACCEPT_ECHO_CLOSE: Case = Case {
    name: "accept-echo-close",
    backend: BackendKind::Mio,
    connections: 16,
    rounds: [40, 120],
    run: accept_echo_close,
};

/// Size of a message in bytes.
const MESSAGE_BYTES: usize = 64;

/// Name of the function whose instructions are counted. No other name has this prefix.
const COUNTED: &str = "instructions::turn";

/// Suffixes of the names of the functions that the event loop is compiled into. The second is
/// called by [`turn`].
const LOOP_FUNCTIONS: [&str; 2] = ["ropewalk::reactor::core::Core>::run", "ropewalk::reactor::core::Core>::iterate"];

/// System calls of an echo, with their numbers on x86_64.
const IN_FRAME: [(&str, u32); 3] = [("epoll_pwait", 0x119), ("recvfrom", 0x2d), ("sendto", 0x2c)];

/// Least number of system calls that the event loop makes itself for an echo: a receive and a send.
const LEAST_CALLS_IN_LOOP: f64 = 2.0;

/// Number of system calls for an echo that other functions may make. Both runs open connections,
/// and the number of calls for that varies.
const CALLS_ELSEWHERE_LIMIT: f64 = 0.01;

/// Timeout for one step. Arbitrary: a round takes milliseconds under valgrind.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Argument that makes the program run a case instead of the gate.
const RUN_ARGUMENT: &str = "--run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => gate(false),
        ["--set"] => gate(true),
        [RUN_ARGUMENT, case, rounds] => run(case, rounds),
        _ => Err("usage: instructions [--set]".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

/// Measures all cases and compares them with their bounds. If `set` is `true`, records the numbers
/// first.
fn gate(set: bool) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let in_file = |error| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(|error| in_file(error.into()))?;
    let mut bounds = Bounds::parse(&text).map_err(in_file)?;
    let measured = CASES.map(|case| (case.to_string(), case.measure()));
    // The first case is the echo on mio.
    let frame = match &measured[0] {
        (_, Ok(echo)) => check_frame(echo),
        (name, Err(_)) => Err(format!("{name} was not measured").into()),
    };
    if set {
        for (name, measured) in &measured {
            if let Ok(measured) = measured {
                bounds.set(name, measured.instructions.round() as u64);
            }
        }
        std::fs::write(&file, bounds.to_string()).map_err(|error| in_file(error.into()))?;
    }
    let stale = bounds.names().filter(|name| measured.iter().all(|(case, _)| case != name));
    let mut failures: Vec<String> = stale.map(|name| format!("the bound {name:?} has no case")).collect();
    let verdicts = measured.map(|(name, measured)| {
        (name.clone(), measured.and_then(|one| verdict_line(&name, one.instructions, &bounds)))
    });
    for (name, verdicts) in
        verdicts.into_iter().chain([("system calls in the frame of the event loop".to_owned(), frame)])
    {
        match verdicts {
            Ok(line) => println!("{name}: {line}"),
            Err(error) if error.is::<Missing>() => println!("{name}: skipped: {error}"),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Returns the line to print for a case, or an error if the case fails.
fn verdict_line(name: &str, instructions: f64, bounds: &Bounds) -> Result<String> {
    let recorded = bounds
        .get(name)
        .ok_or_else(|| format!("{instructions:.0} instructions, but no bound is recorded: `--set` records one"))?;
    let change = change_percent(instructions, recorded);
    let line = format!("{instructions:.0} instructions, {change:+.1} % of {recorded}");
    match Verdict::of(instructions, recorded) {
        Verdict::Kept => Ok(line),
        Verdict::Better => Ok(format!("{line}: better by more than {TOLERANCE_PERCENT:.0} %, record it with `--set`")),
        Verdict::Worse => Err(format!("{line}: worse by more than {TOLERANCE_PERCENT:.0} %").into()),
    }
}

/// Checks that the event loop makes the system calls of an echo itself. Returns their names.
fn check_frame(echo: &Unit) -> Result<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Missing("only x86_64 machine code for Linux is supported".into()).into());
    }
    check_calls(&echo.system_calls)?;
    // Without this call, `Core::run` would not be linked into the program.
    run_loop()?;
    let program = std::env::current_exe()?;
    let objdump =
        Command::new("objdump").args(["--disassemble", "--demangle", "--no-show-raw-insn"]).arg(program).output();
    let objdump = match objdump {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Missing("objdump is not installed".into()).into());
        }
        objdump => objdump?,
    };
    if !objdump.status.success() {
        return Err(format!("objdump failed:\n{}", String::from_utf8_lossy(&objdump.stderr)).into());
    }
    check_code(&String::from_utf8_lossy(&objdump.stdout))?;
    Ok(IN_FRAME.map(|(name, _)| name).join(", "))
}

/// Checks that the system calls of an echo are made by the event loop. `calls` has their number for
/// each function.
fn check_calls(calls: &BTreeMap<String, f64>) -> Result<()> {
    let (of_loop, others): (Vec<_>, Vec<_>) =
        calls.iter().partition(|(function, _)| function.ends_with(LOOP_FUNCTIONS[1]));
    let in_loop: f64 = of_loop.into_iter().map(|(_, count)| count).sum();
    let elsewhere = others.into_iter().filter(|(_, count)| **count > CALLS_ELSEWHERE_LIMIT);
    let elsewhere: Vec<String> = elsewhere.map(|(function, count)| format!("{count:.2} in {function}")).collect();
    if in_loop >= LEAST_CALLS_IN_LOOP && elsewhere.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the event loop makes {in_loop:.2} system calls of an echo; other functions make: {}",
        elsewhere.join(", ")
    )
    .into())
}

/// Checks that each function of the event loop contains all system calls of an echo, in a
/// disassembly.
fn check_code(disassembly: &str) -> Result<()> {
    for function in LOOP_FUNCTIONS {
        let copies = system_calls(disassembly, function);
        if copies.is_empty() {
            return Err(format!("no machine code of {function} was found").into());
        }
        for (name, number) in IN_FRAME {
            if copies.iter().any(|calls| !calls.contains(&number)) {
                return Err(format!("{function} does not call {name} in its own frame").into());
            }
        }
    }
    Ok(())
}

/// Runs an event loop that stops at once.
fn run_loop() -> Result<()> {
    let reactor = Reactor::builder().signals(false).backend(BackendKind::Mio).build()?;
    let stopped = reactor.clone();
    reactor.call_when_running(move || stopped.stop().expect("the reactor runs"));
    Ok(reactor.run()?)
}

/// Counts for one unit of a case.
struct Unit {
    instructions: f64,
    /// Number of system calls, by the function that makes them itself.
    system_calls: BTreeMap<String, f64>,
}

/// Operation to count, on one backend.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    backend: BackendKind,
    /// Number of connections in a round. Each is one unit.
    connections: usize,
    /// Number of rounds of the two runs.
    rounds: [usize; 2],
    run: fn(&Server, connections: usize, rounds: usize) -> Result<()>,
}

impl Case {
    /// Counts the instructions and system calls of one unit.
    ///
    /// # Errors
    /// Fails if the backend is [`Missing`], or if valgrind fails.
    fn measure(&self) -> Result<Unit> {
        let [short, long] = self.rounds;
        let (less, more) = (self.count(short)?, self.count(long)?);
        let units = ((long - short) * self.connections) as f64;
        let of_unit = |less: u64, more: u64| (more as f64 - less as f64) / units;
        let calls_of_unit = |(function, more): (String, u64)| {
            let less = less.system_calls.get(&function).copied().unwrap_or(0);
            (function, of_unit(less, more))
        };
        let system_calls = more.system_calls.into_iter().map(calls_of_unit).collect();
        Ok(Unit { instructions: of_unit(less.instructions, more.instructions), system_calls })
    }

    /// Counts in a run of `rounds` rounds.
    fn count(&self, rounds: usize) -> Result<Profile> {
        let program = std::env::current_exe()?;
        let output = std::env::temp_dir().join(format!("ropewalk-instructions-{}-{rounds}", std::process::id()));
        let ran = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-systime=yes", &format!("--toggle-collect={COUNTED}*")])
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(program)
            .args([RUN_ARGUMENT, &self.to_string(), &rounds.to_string()])
            .output()
            .map_err(|error| format!("valgrind cannot be run: {error}"))?;
        let counted = std::fs::read_to_string(&output);
        // The file is absent if valgrind did not write it, which is reported below.
        drop(std::fs::remove_file(&output));
        let (output_text, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if let Some(why) = output_text.lines().find_map(|line| line.strip_prefix("missing ")) {
            return Err(Missing(why.to_owned()).into());
        }
        if !ran.status.success() {
            return Err(format!("the run under valgrind failed:\n{errors}").into());
        }
        let counted = counted.map_err(|error| format!("valgrind counted nothing: {error}\n{errors}"))?;
        Profile::parse(&counted).map_err(|error| format!("{COUNTED}: {error}").into())
    }
}

/// Formats the name in the file of bounds.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.backend.name())
    }
}

/// Runs a case, normally under valgrind.
fn run(case: &str, rounds: &str) -> Result<()> {
    let case = CASES.into_iter().find(|known| known.to_string() == case);
    let case = case.ok_or("unknown case")?;
    (case.run)(&Server::new(case.backend)?, case.connections, rounds.parse()?)
}

/// Runs rounds in which every connection sends a message and is answered.
fn echo(server: &Server, connections: usize, rounds: usize) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(server.connect()?);
        turn(&server.reactor);
    }
    (0..rounds).try_for_each(|_| server.echo(&mut clients))
}

/// Runs rounds in which `connections` clients connect, are answered once, and close.
fn accept_echo_close(server: &Server, connections: usize, rounds: usize) -> Result<()> {
    let idle = server.reactor.counters().watched;
    for _ in 0..rounds {
        let clients: Result<Vec<_>> = (0..connections).map(|_| server.connect()).collect();
        let mut clients = clients?;
        server.echo(&mut clients)?;
        drop(clients);
        server.turn_until("connections that close", || Ok(server.reactor.counters().watched == idle))?;
    }
    Ok(())
}

/// Reactor with an echo server.
struct Server {
    reactor: Reactor,
    address: SocketAddr,
}

impl Server {
    /// # Errors
    /// Fails if the backend is [`Missing`].
    fn new(backend: BackendKind) -> Result<Self> {
        let reactor = Reactor::builder().signals(false).backend(backend).build()?;
        if reactor.backend() != backend {
            return Err(Missing(format!("the backend {} is not available under valgrind here", backend.name())).into());
        }
        let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
        let address = port.host().socket_addr().ok_or("the port is TCP's")?;
        Ok(Self { reactor, address })
    }

    /// Connects a client. The kernel completes the connection; the reactor accepts it in a later
    /// turn.
    fn connect(&self) -> Result<TcpStream> {
        let client = TcpStream::connect(self.address)?;
        client.set_nodelay(true)?;
        client.set_nonblocking(true)?;
        Ok(client)
    }

    /// Sends a message on every client, and turns the event loop until all are answered.
    fn echo(&self, clients: &mut [TcpStream]) -> Result<()> {
        for client in &mut *clients {
            client.write_all(&[7; MESSAGE_BYTES])?;
        }
        let mut answered = 0;
        self.turn_until("answers", || {
            for client in &mut *clients {
                let mut answer = [0; MESSAGE_BYTES];
                match client.read(&mut answer) {
                    Ok(0) => return Err("the server closed a connection".into()),
                    Ok(count) => answered += black_box(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(answered == clients.len() * MESSAGE_BYTES)
        })
    }

    fn turn_until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + STEP_TIMEOUT;
        while Instant::now() < end {
            turn(&self.reactor);
            if done()? {
                return Ok(());
            }
        }
        Err(format!("no {what} for {STEP_TIMEOUT:?}").into())
    }
}

/// Turns the event loop once, without waiting.
#[inline(never)]
fn turn(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).expect("the event loop turns");
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        transport.write(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case has a bound, and each bound a case.
    #[test]
    fn bounds_are_those_of_the_cases() {
        let bounds = Bounds::parse(include_str!("../../instructions.txt")).unwrap();
        assert_eq!(bounds.names().collect::<Vec<_>>(), CASES.map(|case| case.to_string()));
    }

    /// System calls of another function fail the gate, unless they are too few to belong to an
    /// echo.
    #[test]
    fn calls_of_other_functions_are_found() {
        let calls = |in_loop, others| {
            let functions = [(LOOP_FUNCTIONS[1], in_loop), ("accept", others)];
            check_calls(&functions.map(|(name, count)| (name.to_owned(), count)).into())
        };
        calls(2.03, 0.005).unwrap();
        let error = calls(2.03, 0.5).unwrap_err().to_string();
        assert_eq!(error, "the event loop makes 2.03 system calls of an echo; other functions make: 0.50 in accept");
        assert!(calls(1.99, 0.0).is_err() && check_calls(&BTreeMap::new()).is_err());
    }

    /// Every function of the event loop must be present, with every system call of an echo.
    #[test]
    fn code_without_a_call_in_the_frame_is_refused() {
        let function = |name: &str, calls: &[u32]| {
            let calls: String =
                calls.iter().map(|number| format!(" 1:\tmov    $0x{number:x},%eax\n 2:\tsyscall\n")).collect();
            format!("00d9880 <<impl {name}>:\n{calls}")
        };
        let all = IN_FRAME.map(|(_, number)| number);
        let whole = LOOP_FUNCTIONS.map(|name| function(name, &all));
        check_code(&whole.concat()).unwrap();
        for lacking in [0, 1] {
            let mut part = whole.clone();
            part[lacking] = String::new();
            assert!(check_code(&part.concat()).is_err(), "without {}", LOOP_FUNCTIONS[lacking]);
            for (name, number) in IN_FRAME {
                let others: Vec<u32> = all.into_iter().filter(|other| *other != number).collect();
                part[lacking] = function(LOOP_FUNCTIONS[lacking], &others);
                let error = check_code(&part.concat()).unwrap_err().to_string();
                assert_eq!(error, format!("{} does not call {name} in its own frame", LOOP_FUNCTIONS[lacking]));
            }
        }
    }

    /// Without valgrind, each case completes, with the connections that it counts.
    #[test]
    fn cases_run() {
        for case in CASES {
            let server = match Server::new(case.backend) {
                Err(error) if error.is::<Missing>() => {
                    println!("{case}: skipped: {error}");
                    continue;
                }
                server => server.unwrap(),
            };
            (case.run)(&server, case.connections, 3).unwrap();
            let rounds_that_accept = if case.name == ACCEPT_ECHO_CLOSE.name { 3 } else { 1 };
            assert_eq!(server.reactor.counters().accepted, rounds_that_accept * case.connections as u64, "{case}");
        }
    }
}
