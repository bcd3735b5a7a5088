//! `soak [CONNECTIONS]`: opens and closes a million connections, or the given number, and checks
//! that nothing leaks.
//!
//! The server is Ropewalk in a process of its own, on the backend that `ROPEWALK_BACKEND` names.
//! Each connection is echoed once, with sixty-four open at a time. Connections end in every way:
//! the client closes first, or resets, after the answer or before it; the client shuts its
//! direction down and reads on; the server closes (`lose_connection`) or resets
//! (`abort_connection`).
//!
//! Memory, descriptors and counters of the server are read after the first tenth and at the end,
//! each time once the server is idle. The run fails if there are more descriptors or more watched
//! sources than after the first tenth, if memory has grown by more than [`ALLOWED_GROWTH_BYTES`],
//! or if a connection was not accepted or not served. Where the kernel accepts by itself, a
//! connection that was reset before the server saw it may be missing from the accepted ones.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ropewalk::{BackendKind, ListenOptions, Protocol, Reactor, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::load::SourceAddresses;
use ropewalk_bench::peers::{Missing, ropewalk_reactor};
use ropewalk_bench::process::Process;
use ropewalk_bench::system::{Core, descriptors, end_with_parent, pin, private_memory, raise_descriptor_limit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

/// Greatest growth of the memory of the server after the first tenth, in bytes. The allocator now
/// and then touches a new page. One leaked byte for each of the million connections would exceed
/// the limit.
const ALLOWED_GROWTH_BYTES: u64 = 512 << 10;

/// Number of connections that are open at a time.
const OPEN_AT_ONCE: usize = 64;

/// Timeout for every step.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

const MESSAGE_BYTES: usize = 64;

/// Way in which a connection ends. The first byte of its message tells the server its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    ClientCloses,
    ClientResets,
    /// The client resets before it has read the answer.
    ClientResetsAtOnce,
    ClientShutsDown,
    ServerCloses,
    ServerResets,
}

const ENDINGS: [Ending; 6] = [
    Ending::ClientCloses,
    Ending::ServerCloses,
    Ending::ClientResets,
    Ending::ServerResets,
    Ending::ClientShutsDown,
    Ending::ClientResetsAtOnce,
];

const CLOSE_COMMAND: u8 = b'c';
const RESET_COMMAND: u8 = b'r';
const STATUS_COMMAND: u8 = b'?';

/// Protocol of the server.
struct SoakServer(Reactor);

impl Protocol for SoakServer {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        match data.first() {
            Some(&RESET_COMMAND) => transport.abort_connection(),
            Some(&STATUS_COMMAND) => {
                let it = self.0.counters();
                let text = format!("{} {} {} {}", it.watched, it.accepted, it.shed, it.accept_failures);
                transport.write(text.as_bytes());
                transport.lose_connection();
            }
            Some(&CLOSE_COMMAND) => {
                transport.write(data);
                transport.lose_connection();
            }
            _ => transport.write(data),
        }
        Ok(())
    }
}

fn serve() -> Result<()> {
    end_with_parent()?;
    pin(Core::Server)?;
    let reactor = ropewalk_reactor()?;
    let (handle, options) = (reactor.clone(), ListenOptions::new().backlog(1024));
    let port =
        reactor.listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &options, move |_| Some(SoakServer(handle.clone())))?;
    println!("ready {} {}", port.host().port().ok_or("the port has no TCP port number")?, reactor.backend().name());
    Ok(reactor.run()?)
}

/// State of the server at one moment.
#[derive(Debug, Clone, Copy)]
struct Status {
    memory: u64,
    descriptors: u64,
    watched: u64,
    accepted: u64,
    shed: u64,
    accept_failures: u64,
}

struct Soak {
    process: Process,
    server: SocketAddr,
    sources: SourceAddresses,
    /// Number of connections that the server should have accepted.
    opened: u64,
    /// Number of connections that may have been reset before the server saw them.
    reset_at_once: u64,
    backend: String,
}

impl Soak {
    fn start() -> Result<Self> {
        let mut process = Process::start("the server", Command::new(std::env::current_exe()?).arg("--serve"))?;
        let line = process.line(STEP_TIMEOUT)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", port, backend] = words[..] else { return Err(line.into()) };
        println!("backend {backend}");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
        Ok(Self {
            process,
            server,
            sources: SourceAddresses::new(0),
            opened: 0,
            reset_at_once: 0,
            backend: backend.to_owned(),
        })
    }

    /// Opens and closes `count` connections.
    fn run(&mut self, count: usize, total: usize) -> Result<()> {
        let (start, before, mut reported) = (Instant::now(), self.opened, Instant::now());
        let mut left = count;
        while left > 0 {
            let batch = left.min(OPEN_AT_ONCE);
            self.batch(batch)?;
            left -= batch;
            if reported.elapsed() > Duration::from_secs(if std::io::stderr().is_terminal() { 1 } else { 10 }) {
                reported = Instant::now();
                let rate = (self.opened - before) as f64 / start.elapsed().as_secs_f64();
                let more = (total as f64 - self.opened as f64) / rate;
                let line_end = if std::io::stderr().is_terminal() { '\r' } else { '\n' };
                eprint!("{} of {total}, {rate:.0} a second, {more:.0} s left {line_end}", self.opened);
                std::io::stderr().flush()?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, count: usize) -> Result<()> {
        let mut open = Vec::with_capacity(count);
        for number in 0..count {
            let end = ENDINGS[(self.opened as usize + number) % ENDINGS.len()];
            let socket = self.sources.connect(self.server)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(STEP_TIMEOUT))?;
            let mut message = [b'e'; MESSAGE_BYTES];
            message[0] = end.command();
            send(&socket, &message, SendFlags::NOSIGNAL)?;
            open.push((socket, end));
        }
        self.opened += count as u64;
        self.reset_at_once += open.iter().filter(|(_, end)| *end == Ending::ClientResetsAtOnce).count() as u64;
        open.into_iter()
            .try_for_each(|(socket, end)| end.finish(socket).map_err(|why| format!("{end:?}: {why}").into()))
    }

    /// Returns the state of the server once it is idle: when it watches no more sources than before
    /// the first connection.
    fn status(&mut self, watched: Option<u64>) -> Result<Status> {
        let end = Instant::now() + STEP_TIMEOUT;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let status = self.request_status()?;
            if watched.is_none_or(|watched| status.watched <= watched) || Instant::now() > end {
                return Ok(status);
            }
        }
    }

    /// Returns `true` if the server has accepted all connections that it should have.
    fn is_accepted(&self, accepted: u64) -> bool {
        let may_miss = if self.backend == BackendKind::IoUring.name() { self.reset_at_once } else { 0 };
        (self.opened - may_miss..=self.opened).contains(&accepted)
    }

    fn request_status(&mut self) -> Result<Status> {
        let socket = self.sources.connect(self.server)?;
        self.opened += 1;
        send(&socket, &[STATUS_COMMAND], SendFlags::NOSIGNAL)?;
        let answer = read_to_end(&socket)?;
        drop(socket);
        // Wait until the server has closed the status connection too.
        std::thread::sleep(Duration::from_millis(50));
        let text = String::from_utf8(answer)?;
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [watched, accepted, shed, accept_failures] = numbers[..] else { return Err(text.into()) };
        let (memory, descriptors) = (private_memory(self.process.id())?, descriptors(self.process.id())?);
        Ok(Status { memory, descriptors, watched, accepted, shed, accept_failures })
    }
}

impl Ending {
    fn command(self) -> u8 {
        match self {
            Self::ServerCloses => CLOSE_COMMAND,
            Self::ServerResets => RESET_COMMAND,
            _ => b'e',
        }
    }

    /// Waits for a connection to end, and checks that it ends as expected.
    fn finish(self, socket: OwnedFd) -> Result<()> {
        let resets = matches!(self, Self::ClientResets | Self::ClientResetsAtOnce);
        if resets {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        match self {
            Self::ClientResetsAtOnce => Ok(()),
            Self::ClientCloses | Self::ClientResets => {
                let mut answer = [0; MESSAGE_BYTES];
                let mut have = 0;
                while have < MESSAGE_BYTES {
                    match recv(&socket, &mut answer[have..], RecvFlags::empty())? {
                        (0, _) => return Err("closed before the answer".into()),
                        (count, _) => have += count,
                    }
                }
                Ok(())
            }
            Self::ClientShutsDown | Self::ServerCloses => {
                if self == Self::ClientShutsDown {
                    shutdown(&socket, Shutdown::Write)?;
                }
                match read_to_end(&socket)?.len() {
                    MESSAGE_BYTES => Ok(()),
                    count => Err(format!("expected {MESSAGE_BYTES} bytes before the end, got {count}").into()),
                }
            }
            Self::ServerResets => match recv(&socket, &mut [0; MESSAGE_BYTES], RecvFlags::empty()) {
                Err(Errno::CONNRESET) => Ok(()),
                other => Err(format!("expected a reset, got {other:?}").into()),
            },
        }
    }
}

fn read_to_end(socket: &OwnedFd) -> Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), [0; 256]);
    loop {
        match recv(socket, &mut piece, RecvFlags::empty())? {
            (0, _) => return Ok(all),
            (count, _) => all.extend_from_slice(&piece[..count]),
        }
    }
}

fn soak(total: usize) -> Result<()> {
    raise_descriptor_limit()?;
    pin(Core::Load)?;
    let mut soak = Soak::start()?;
    let nothing = soak.status(None)?;
    soak.run(total / 10, total)?;
    let early = soak.status(Some(nothing.watched))?;
    println!("after a tenth: {early:?}");
    soak.run(total - total / 10, total)?;
    let late = soak.status(Some(nothing.watched))?;
    println!("at the end:    {late:?}, {} of {} not accepted", soak.opened.saturating_sub(late.accepted), soak.opened);
    let failures = [
        (late.memory > early.memory + ALLOWED_GROWTH_BYTES, "memory has grown"),
        (late.descriptors > early.descriptors, "descriptors are left open"),
        (late.watched > early.watched, "sources are still watched"),
        (!soak.is_accepted(late.accepted), "not all connections were accepted"),
        (late.shed + late.accept_failures > 0, "accepting failed"),
    ];
    let failed: Vec<_> = failures.into_iter().filter_map(|(failed, what)| failed.then_some(what)).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let done = match argument.as_deref() {
        Some("--serve") => serve(),
        Some(count) => count.parse().map_err(Into::into).and_then(soak),
        None => soak(1_000_000),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
