//! A server that runs, and the load generator that asks it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::histogram::Histogram;
use crate::load::Window;
use crate::peers::{Missing, Service};
use crate::process::Process;
use crate::programs::{Peer, Programs};
use crate::{Result, system};

/// How long a server may take to listen: those in Python do so under valgrind too.
const START: Duration = Duration::from_secs(120);

/// How long anything else may take that has no time of its own.
const LIMIT: Duration = Duration::from_secs(60);

/// A server in a process of its own, on the first core.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// The line that it printed of itself: over TLS its certificate, see [`tls::to_text`](crate::tls::to_text).
    pub detail: String,
}

impl Server {
    /// Starts one, and waits until it listens. It is run by `under`, if that names a program.
    ///
    /// # Errors
    /// It is [`Missing`], or it does not start.
    pub fn start(programs: &Programs, peer: &Peer, service: Service, under: &[OsString]) -> Result<Self> {
        let command = programs.command(peer, service)?;
        let mut pinned = Command::new(programs.own("serve"));
        pinned.arg("--").args(under).args(command);
        if let Some(backend) = peer.backend() {
            pinned.env("ROPEWALK_BACKEND", backend);
        }
        let mut process = Process::start(peer.name, &mut pinned)?;
        let line = process.line(START)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (port, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        match (word, port.parse()) {
            ("ready", Ok(port)) => {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                Ok(Self { process, address, detail: detail.to_owned() })
            }
            ("missing", _) => Err(Missing(rest.to_owned()).into()),
            _ => Err(format!("{} said: {line}", peer.name).into()),
        }
    }

    /// Nanoseconds that it has run.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_time(&self) -> Result<u64> {
        system::cpu_time(self.process.id())
    }

    /// Its own memory in bytes, when it has come to rest.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> Result<u64> {
        std::thread::sleep(Duration::from_millis(50));
        system::private_memory(self.process.id())
    }
}

/// A load generator in a process of its own, on the last core.
#[derive(Debug)]
pub struct Generator(Process);

impl Generator {
    /// For a server: messages of `size` bytes, `depth` of them a segment, from loopback addresses from this number on.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(programs: &Programs, server: &Server, size: usize, depth: usize, source: u32) -> Result<Self> {
        let mut command = Command::new(programs.own("load"));
        command.args([server.address.to_string(), size.to_string(), depth.to_string(), source.to_string()]);
        Ok(Self(Process::start("the load", &mut command)?))
    }

    /// Has so many connections open, each echoed and compared.
    ///
    /// # Errors
    /// One can't be opened, or was not answered as it should be.
    pub fn grow(&mut self, count: usize) -> Result<()> {
        self.done(&format!("grow {count}"))
    }

    /// Has all connections echoed and compared.
    ///
    /// # Errors
    /// As [`grow`](Self::grow).
    pub fn check(&mut self) -> Result<()> {
        self.done("check")
    }

    /// Sends for so long, with so many segments under way.
    ///
    /// # Errors
    /// A connection was not answered.
    pub fn echo(&mut self, time: Duration, in_flight: usize) -> Result<Window> {
        self.window(&format!("echo {} {in_flight}", time.as_millis()))
    }

    /// Has all connections send and waits for all of them, so many times.
    ///
    /// # Errors
    /// As [`echo`](Self::echo).
    pub fn rounds(&mut self, rounds: u64) -> Result<Window> {
        self.window(&format!("rounds {rounds}"))
    }

    /// Connects, is echoed and closes for so long, so many at a time.
    ///
    /// # Errors
    /// As [`echo`](Self::echo).
    pub fn churn(&mut self, time: Duration, at_once: usize) -> Result<Window> {
        self.window(&format!("churn {} {at_once}", time.as_millis()))
    }

    fn done(&mut self, order: &str) -> Result<()> {
        match self.0.ask(order, LIMIT)?.as_str() {
            "done" => Ok(()),
            other => Err(format!("the load said: {other}").into()),
        }
    }

    fn window(&mut self, order: &str) -> Result<Window> {
        let line = self.0.ask(order, LIMIT)?;
        let mut words = line.split_whitespace();
        let window = (|| {
            words.next().filter(|&word| word == "window")?;
            let (messages, nanoseconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(Window { messages, nanoseconds, latency: Histogram::from_text(words)? })
        })();
        window.ok_or_else(|| format!("the load said: {line}").into())
    }
}
