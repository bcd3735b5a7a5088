//! `soak [CONNECTIONS]`: opens and closes a million connections, or so many, and sees that nothing of them is left.
//!
//! The server is Ropewalk, in a process of its own, on the backend that `ROPEWALK_BACKEND` names. Connections are echoed once, sixty-four at a
//! time, and end in every way: the client closes first, or resets, after the answer or before it; it ends its direction and reads on;
//! the server closes (`lose_connection`) or resets (`abort_connection`). After the first tenth, and at the end, when the server has come to
//! rest, its memory, its descriptors and its counters are read. It fails if there are more descriptors or more that is watched than after the first tenth,
//! if memory has grown by more than [`ALLOWED`], or if a connection was not accepted or not served. Where the kernel accepts by itself, one that was
//! reset before the server saw it may not count as accepted.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ropewalk::{BackendKind, ListenOptions, Protocol, Reactor, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::load::Sources;
use ropewalk_bench::peers::{Missing, ropewalk_reactor};
use ropewalk_bench::process::Process;
use ropewalk_bench::system::{Core, descriptors, end_with_parent, pin, private_memory, raise_descriptor_limit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

/// How much more memory the server may have at the end than after the first tenth, in bytes. The allocator has pages
/// that were not touched before, now and then; a byte for each of the million connections would be more.
const ALLOWED: u64 = 512 << 10;

/// How many connections are open at a time.
const AT_ONCE: usize = 64;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

const MESSAGE: usize = 64;

/// How a connection ends, by the first byte of its message as far as the server has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ClientCloses,
    ClientResets,
    /// Before it has read the answer.
    ClientResetsAtOnce,
    ClientEndsItsDirection,
    ServerCloses,
    ServerResets,
}

const ENDS: [End; 6] = [
    End::ClientCloses,
    End::ServerCloses,
    End::ClientResets,
    End::ServerResets,
    End::ClientEndsItsDirection,
    End::ClientResetsAtOnce,
];

const CLOSE: u8 = b'c';
const RESET: u8 = b'r';
const STATUS: u8 = b'?';

/// The server's side.
struct Served(Reactor);

impl Protocol for Served {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        match data.first() {
            Some(&RESET) => transport.abort_connection(),
            Some(&STATUS) => {
                let it = self.0.counters();
                let text = format!("{} {} {} {}", it.watched, it.accepted, it.shed, it.accept_failures);
                transport.write(text.as_bytes());
                transport.lose_connection();
            }
            Some(&CLOSE) => {
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
    let port = reactor.listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &options, move |_| Some(Served(handle.clone())))?;
    println!("ready {} {}", port.host().port().ok_or("the port is TCP's")?, reactor.backend().name());
    Ok(reactor.run()?)
}

/// What the server has at some moment.
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
    sources: Sources,
    /// How many connections the server should have accepted.
    opened: u64,
    /// How many of them may have been reset before it saw them.
    reset_at_once: u64,
    backend: String,
}

impl Soak {
    fn start() -> Result<Self> {
        let mut process = Process::start("the server", Command::new(std::env::current_exe()?).arg("--serve"))?;
        let line = process.line(LIMIT)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", port, backend] = words[..] else { return Err(line.into()) };
        println!("backend {backend}");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
        Ok(Self { process, server, sources: Sources::new(0), opened: 0, reset_at_once: 0, backend: backend.to_owned() })
    }

    /// Opens and closes so many.
    fn run(&mut self, count: usize, total: usize) -> Result<()> {
        let (start, before, mut told) = (Instant::now(), self.opened, Instant::now());
        let mut left = count;
        while left > 0 {
            let batch = left.min(AT_ONCE);
            self.batch(batch)?;
            left -= batch;
            if told.elapsed() > Duration::from_secs(if std::io::stderr().is_terminal() { 1 } else { 10 }) {
                told = Instant::now();
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
            let end = ENDS[(self.opened as usize + number) % ENDS.len()];
            let socket = self.sources.connect(self.server)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
            let mut message = [b'e'; MESSAGE];
            message[0] = end.order();
            send(&socket, &message, SendFlags::NOSIGNAL)?;
            open.push((socket, end));
        }
        self.opened += count as u64;
        self.reset_at_once += open.iter().filter(|(_, end)| *end == End::ClientResetsAtOnce).count() as u64;
        open.into_iter()
            .try_for_each(|(socket, end)| end.come_about(socket).map_err(|why| format!("{end:?}: {why}").into()))
    }

    /// What the server has when it has come to rest: when nothing is watched but what was before there were connections.
    fn status(&mut self, watched: Option<u64>) -> Result<Status> {
        let end = Instant::now() + LIMIT;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let status = self.ask()?;
            if watched.is_none_or(|watched| status.watched <= watched) || Instant::now() > end {
                return Ok(status);
            }
        }
    }

    /// Whether the server has accepted all that it should have.
    fn is_accepted(&self, accepted: u64) -> bool {
        let may_miss = if self.backend == BackendKind::IoUring.name() { self.reset_at_once } else { 0 };
        (self.opened - may_miss..=self.opened).contains(&accepted)
    }

    fn ask(&mut self) -> Result<Status> {
        let socket = self.sources.connect(self.server)?;
        self.opened += 1;
        send(&socket, &[STATUS], SendFlags::NOSIGNAL)?;
        let answer = read_to_end(&socket)?;
        drop(socket);
        // So that the connection that asked is gone, too.
        std::thread::sleep(Duration::from_millis(50));
        let said = String::from_utf8(answer)?;
        let numbers: Vec<u64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [watched, accepted, shed, accept_failures] = numbers[..] else { return Err(said.into()) };
        let (memory, descriptors) = (private_memory(self.process.id())?, descriptors(self.process.id())?);
        Ok(Status { memory, descriptors, watched, accepted, shed, accept_failures })
    }
}

impl End {
    fn order(self) -> u8 {
        match self {
            Self::ServerCloses => CLOSE,
            Self::ServerResets => RESET,
            _ => b'e',
        }
    }

    /// Sees a connection to its end, which must be what it should be.
    fn come_about(self, socket: OwnedFd) -> Result<()> {
        let resets = matches!(self, Self::ClientResets | Self::ClientResetsAtOnce);
        if resets {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        match self {
            Self::ClientResetsAtOnce => Ok(()),
            Self::ClientCloses | Self::ClientResets => {
                let mut answer = [0; MESSAGE];
                let mut have = 0;
                while have < MESSAGE {
                    match recv(&socket, &mut answer[have..], RecvFlags::empty())? {
                        (0, _) => return Err("closed before the answer".into()),
                        (count, _) => have += count,
                    }
                }
                Ok(())
            }
            Self::ClientEndsItsDirection | Self::ServerCloses => {
                if self == Self::ClientEndsItsDirection {
                    shutdown(&socket, Shutdown::Write)?;
                }
                match read_to_end(&socket)?.len() {
                    MESSAGE => Ok(()),
                    count => Err(format!("{count} bytes and the end").into()),
                }
            }
            Self::ServerResets => match recv(&socket, &mut [0; MESSAGE], RecvFlags::empty()) {
                Err(Errno::CONNRESET) => Ok(()),
                other => Err(format!("no reset, but {other:?}").into()),
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
        (late.memory > early.memory + ALLOWED, "memory has grown"),
        (late.descriptors > early.descriptors, "descriptors are left open"),
        (late.watched > early.watched, "something is still watched"),
        (!soak.is_accepted(late.accepted), "not all connections were accepted"),
        (late.shed + late.accept_failures > 0, "accepting has failed"),
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
