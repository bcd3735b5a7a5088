//! The instruction gate: counts the reactor's user instructions, and fails if a case takes more than its bound.
//!
//! `cargo run --release -p ropewalk-bench --bin instructions [-- --set]`
//!
//! | case, on each backend | one unit | at a time |
//! |---|---|---|
//! | `echo` | 64 bytes arrive on an open connection and are sent back | 64 |
//! | `accept-echo-close` | a connection is accepted, echoed once and closed by its client | 16 |
//!
//! The program runs itself under valgrind's callgrind, which counts instructions and takes no notice
//! of how busy the machine is. Only turns of the loop are counted, neither the clients nor the
//! kernel. The difference of two runs of different lengths leaves out the work that is done once.
//!
//! The bounds stand in `bench/instructions.txt`. The program ends with status 1 if a case takes more
//! than five percent above its bound, or has none. A case that takes over five percent less does not
//! fail: the program asks for the new number to be recorded. `--set` records all measured numbers. A
//! case on io_uring is skipped, with a line that says so, where there is no ring.
//!
//! The gate also checks that the loop makes the system calls of an echo in its own frame. Returns across them are predicted
//! wrongly, and no count of instructions shows that (`docs/costs.md`). Two things are checked, on Linux on x86_64:
//!
//! - The machine code of `Core::run` and `Core::iterate`, disassembled by objdump, has the system calls of [`IN_FRAME`].
//! - The turns of the case `echo` on mio make no system call in any other function, by callgrind's count.

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

/// All cases, in the order of the file.
const CASES: [Case; 4] = [
    Case { backend: BackendKind::Mio, ..ECHO },
    Case { backend: BackendKind::IoUring, ..ECHO },
    Case { backend: BackendKind::Mio, ..ACCEPT_ECHO_CLOSE },
    Case { backend: BackendKind::IoUring, ..ACCEPT_ECHO_CLOSE },
];

const ECHO: Case = Case { name: "echo", backend: BackendKind::Mio, connections: 64, rounds: [100, 300], run: echo };

/// As many connections at a time as in the scenario `churn` of `compare`.
const ACCEPT_ECHO_CLOSE: Case = Case {
    name: "accept-echo-close",
    backend: BackendKind::Mio,
    connections: 16,
    rounds: [40, 120],
    run: accept_echo_close,
};

/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;

/// The function whose instructions are counted, by its name in the program. No other name begins like this.
const COUNTED: &str = "instructions::turn";

/// The functions that the loop is compiled into, by the ends of their names. The second is the one of [`turn`].
const LOOPS: [&str; 2] = ["ropewalk::reactor::core::Core>::run", "ropewalk::reactor::core::Core>::iterate"];

/// The system calls of an echo, with their numbers on x86_64.
const IN_FRAME: [(&str, u32); 3] = [("epoll_pwait", 0x119), ("recvfrom", 0x2d), ("sendto", 0x2c)];

/// The fewest system calls that the loop makes itself for an echo: a receive and a send.
const IN_LOOP: f64 = 2.0;

/// System calls for an echo that may be made in other functions. Connections are made in both runs, and not always with as many.
const ELSEWHERE: f64 = 0.01;

/// The longest that the loop may turn for one thing. Arbitrary: a round takes milliseconds under valgrind.
const LIMIT: Duration = Duration::from_secs(30);

/// The argument with which the program runs a case instead of the gate.
const RUN: &str = "--run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => gate(false),
        ["--set"] => gate(true),
        [RUN, case, rounds] => run(case, rounds),
        _ => Err("usage: instructions [--set]".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

/// Measures all cases and compares them with their bounds. With `set`, records them first.
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
    let mut failures: Vec<String> = stale.map(|name| format!("no case is called {name:?}")).collect();
    let judged = measured
        .map(|(name, measured)| (name.clone(), measured.and_then(|one| judge(&name, one.instructions, &bounds))));
    for (name, judged) in judged.into_iter().chain([("in the loop's frame".to_owned(), frame)]) {
        match judged {
            Ok(line) => println!("{name}: {line}"),
            Err(error) if error.is::<Missing>() => println!("{name}: skipped: {error}"),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Returns the line to print for a case, or the reason for which it fails.
fn judge(name: &str, instructions: f64, bounds: &Bounds) -> Result<String> {
    let recorded =
        bounds.get(name).ok_or_else(|| format!("{instructions:.0} instructions and no bound: `--set` records one"))?;
    let change = change_percent(instructions, recorded);
    let line = format!("{instructions:.0} instructions, {change:+.1} % of {recorded}");
    match Verdict::of(instructions, recorded) {
        Verdict::Kept => Ok(line),
        Verdict::Better => Ok(format!("{line}: better by more than {TOLERANCE_PERCENT:.0} %, record it with `--set`")),
        Verdict::Worse => Err(format!("{line}: worse by more than {TOLERANCE_PERCENT:.0} %").into()),
    }
}

/// Checks that the loop makes the system calls of an echo itself, and returns their names.
fn check_frame(echo: &Unit) -> Result<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Missing("only machine code of x86_64 for Linux is read".into()).into());
    }
    check_calls(&echo.system_calls)?;
    // Without it the function would not be a part of this program.
    run_loop()?;
    let program = std::env::current_exe()?;
    let disassembled =
        Command::new("objdump").args(["--disassemble", "--demangle", "--no-show-raw-insn"]).arg(program).output();
    let disassembled = match disassembled {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Missing("there is no objdump".into()).into()),
        disassembled => disassembled?,
    };
    if !disassembled.status.success() {
        return Err(format!("objdump failed:\n{}", String::from_utf8_lossy(&disassembled.stderr)).into());
    }
    check_code(&String::from_utf8_lossy(&disassembled.stdout))?;
    Ok(IN_FRAME.map(|(name, _)| name).join(", "))
}

/// Checks that the system calls of an echo, by the function that makes them, are the loop's.
fn check_calls(calls: &BTreeMap<String, f64>) -> Result<()> {
    let (of_loop, others): (Vec<_>, Vec<_>) = calls.iter().partition(|(function, _)| function.ends_with(LOOPS[1]));
    let in_loop: f64 = of_loop.into_iter().map(|(_, count)| count).sum();
    let elsewhere = others.into_iter().filter(|(_, count)| **count > ELSEWHERE);
    let elsewhere: Vec<String> = elsewhere.map(|(function, count)| format!("{count:.2} in {function}")).collect();
    if in_loop >= IN_LOOP && elsewhere.is_empty() {
        return Ok(());
    }
    Err(format!("{in_loop:.2} system calls of an echo are the loop's, others are not: {}", elsewhere.join(", ")).into())
}

/// Checks in a disassembly that each function of the loop has all system calls of an echo.
fn check_code(disassembly: &str) -> Result<()> {
    for function in LOOPS {
        let copies = system_calls(disassembly, function);
        if copies.is_empty() {
            return Err(format!("there is no machine code of {function}").into());
        }
        for (name, number) in IN_FRAME {
            if copies.iter().any(|calls| !calls.contains(&number)) {
                return Err(format!("{function} calls {name} in another frame, if at all").into());
            }
        }
    }
    Ok(())
}

/// Runs a loop that stops at once.
fn run_loop() -> Result<()> {
    let reactor = Reactor::builder().signals(false).backend(BackendKind::Mio).build()?;
    let stopped = reactor.clone();
    reactor.call_when_running(move || stopped.stop().expect("it runs"));
    Ok(reactor.run()?)
}

/// The counts of one unit of a case.
struct Unit {
    instructions: f64,
    /// By the function that makes them itself.
    system_calls: BTreeMap<String, f64>,
}

/// A thing to count, on one backend.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    backend: BackendKind,
    /// Connections of a round, each of which is one unit.
    connections: usize,
    /// Lengths of the two runs.
    rounds: [usize; 2],
    run: fn(&Server, connections: usize, rounds: usize) -> Result<()>,
}

impl Case {
    /// Counts what one unit takes.
    ///
    /// # Errors
    /// The backend is [`Missing`], or valgrind fails.
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

    /// Counts in a run of so many rounds.
    fn count(&self, rounds: usize) -> Result<Profile> {
        let program = std::env::current_exe()?;
        let output = std::env::temp_dir().join(format!("ropewalk-instructions-{}-{rounds}", std::process::id()));
        let ran = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-systime=yes", &format!("--toggle-collect={COUNTED}*")])
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(program)
            .args([RUN, &self.to_string(), &rounds.to_string()])
            .output()
            .map_err(|error| format!("valgrind can't be run: {error}"))?;
        let counted = std::fs::read_to_string(&output);
        // Absent if valgrind did not come to write it, which is told below.
        drop(std::fs::remove_file(&output));
        let (said, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if let Some(why) = said.lines().find_map(|line| line.strip_prefix("missing ")) {
            return Err(Missing(why.to_owned()).into());
        }
        if !ran.status.success() {
            return Err(format!("the run under valgrind failed:\n{errors}").into());
        }
        let counted = counted.map_err(|error| format!("valgrind has counted nothing: {error}\n{errors}"))?;
        Profile::parse(&counted).map_err(|error| format!("{COUNTED}: {error}").into())
    }
}

/// Its name in the file of bounds.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.backend.name())
    }
}

/// Runs a case, under valgrind as a rule.
fn run(case: &str, rounds: &str) -> Result<()> {
    let case = CASES.into_iter().find(|known| known.to_string() == case);
    let case = case.ok_or("no such case")?;
    (case.run)(&Server::new(case.backend)?, case.connections, rounds.parse()?)
}

/// Makes rounds in each of which every connection sends a message and is answered.
fn echo(server: &Server, connections: usize, rounds: usize) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(server.connect()?);
        turn(&server.reactor);
    }
    (0..rounds).try_for_each(|_| server.echo(&mut clients))
}

/// Makes rounds in each of which so many clients connect, are answered once, and close.
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

/// A reactor with an echo server.
struct Server {
    reactor: Reactor,
    address: SocketAddr,
}

impl Server {
    /// # Errors
    /// The backend is [`Missing`].
    fn new(backend: BackendKind) -> Result<Self> {
        let reactor = Reactor::builder().signals(false).backend(backend).build()?;
        if reactor.backend() != backend {
            return Err(Missing(format!("the backend {} can't be had under valgrind here", backend.name())).into());
        }
        let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
        let address = port.host().socket_addr().ok_or("the port is TCP's")?;
        Ok(Self { reactor, address })
    }

    /// Connects a client. The kernel accepts it; the reactor has to turn for that.
    fn connect(&self) -> Result<TcpStream> {
        let client = TcpStream::connect(self.address)?;
        client.set_nodelay(true)?;
        client.set_nonblocking(true)?;
        Ok(client)
    }

    /// Has every client send a message, and turns until all are answered.
    fn echo(&self, clients: &mut [TcpStream]) -> Result<()> {
        for client in &mut *clients {
            client.write_all(&[7; MESSAGE_BYTES])?;
        }
        let mut answered = 0;
        self.turn_until("answers", || {
            for client in &mut *clients {
                let mut answer = [0; MESSAGE_BYTES];
                match client.read(&mut answer) {
                    Ok(0) => return Err("the server has closed a connection".into()),
                    Ok(count) => answered += black_box(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(answered == clients.len() * MESSAGE_BYTES)
        })
    }

    fn turn_until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            turn(&self.reactor);
            if done()? {
                return Ok(());
            }
        }
        Err(format!("no {what} for {LIMIT:?}").into())
    }
}

/// Turns the loop once, without waiting.
#[inline(never)]
fn turn(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).expect("the loop turns");
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

    /// System calls of another function fail the gate, unless they are too few to be an echo's.
    #[test]
    fn calls_of_other_functions_are_found() {
        let calls = |in_loop, others| {
            let functions = [(LOOPS[1], in_loop), ("accept", others)];
            check_calls(&functions.map(|(name, count)| (name.to_owned(), count)).into())
        };
        calls(2.03, 0.005).unwrap();
        let error = calls(2.03, 0.5).unwrap_err().to_string();
        assert_eq!(error, "2.03 system calls of an echo are the loop's, others are not: 0.50 in accept");
        assert!(calls(1.99, 0.0).is_err() && check_calls(&BTreeMap::new()).is_err());
    }

    /// Every function of the loop has to be there, with every one of the system calls.
    #[test]
    fn code_without_a_call_in_the_frame_is_refused() {
        let function = |name: &str, calls: &[u32]| {
            let calls: String =
                calls.iter().map(|number| format!(" 1:\tmov    $0x{number:x},%eax\n 2:\tsyscall\n")).collect();
            format!("00d9880 <<impl {name}>:\n{calls}")
        };
        let all = IN_FRAME.map(|(_, number)| number);
        let whole = LOOPS.map(|name| function(name, &all));
        check_code(&whole.concat()).unwrap();
        for lacking in [0, 1] {
            let mut part = whole.clone();
            part[lacking] = String::new();
            assert!(check_code(&part.concat()).is_err(), "without {}", LOOPS[lacking]);
            for (name, number) in IN_FRAME {
                let others: Vec<u32> = all.into_iter().filter(|other| *other != number).collect();
                part[lacking] = function(LOOPS[lacking], &others);
                let error = check_code(&part.concat()).unwrap_err().to_string();
                assert_eq!(error, format!("{} calls {name} in another frame, if at all", LOOPS[lacking]));
            }
        }
    }

    /// Without valgrind too, each case comes to its end, with the connections that it is to count.
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
