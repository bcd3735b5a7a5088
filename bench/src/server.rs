//! A running server, and the load generator that sends to it. Both are processes of their own.

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

/// Timeout for a server to listen. It allows for Python under valgrind.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Timeout for any other step without a duration of its own.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Server in a process of its own, on the first core.
#[derive(Debug)]
pub struct Server {
    /// Process of the server.
    pub process: Process,
    /// Address that it listens on.
    pub address: SocketAddr,
    /// Detail that the server printed when it was ready. Over TLS it is the certificate, see
    /// [`tls::to_text`](crate::tls::to_text).
    pub detail: String,
}

impl Server {
    /// Starts a server and waits until it listens. `under` is the command that runs it, such as
    /// valgrind, or empty.
    ///
    /// # Errors
    /// Fails if the peer is [`Missing`], or if the server does not start.
    pub fn start(programs: &Programs, peer: &Peer, service: Service, under: &[OsString]) -> Result<Self> {
        let command = programs.command(peer, service)?;
        let mut pinned = Command::new(programs.own("serve"));
        pinned.arg("--").args(under).args(command);
        if let Some(backend) = peer.backend() {
            pinned.env("ROPEWALK_BACKEND", backend);
        }
        let mut process = Process::start(peer.name, &mut pinned)?;
        let line = process.line(START_TIMEOUT)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (port, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        match (word, port.parse()) {
            ("ready", Ok(port)) => {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                Ok(Self { process, address, detail: detail.to_owned() })
            }
            ("missing", _) => Err(Missing(rest.to_owned()).into()),
            _ => Err(format!("{} printed: {line}", peer.name).into()),
        }
    }

    /// Returns the CPU time of the server in nanoseconds.
    ///
    /// # Errors
    /// Fails if the server has ended.
    pub fn cpu_time(&self) -> Result<u64> {
        system::cpu_time(self.process.id())
    }

    /// Returns the private memory of the server in bytes, after a pause in which it becomes idle.
    ///
    /// # Errors
    /// Fails if the server has ended.
    pub fn memory(&self) -> Result<u64> {
        std::thread::sleep(Duration::from_millis(50));
        system::private_memory(self.process.id())
    }
}

/// Load generator in a process of its own, on the last core.
#[derive(Debug)]
pub struct LoadProcess(Process);

impl LoadProcess {
    /// Starts a load generator for a server. A segment is `depth` messages of `size` bytes.
    /// `source` is the number of the first loopback address to connect from.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start(programs: &Programs, server: &Server, size: usize, depth: usize, source: u32) -> Result<Self> {
        let mut command = Command::new(programs.own("load"));
        command.args([server.address.to_string(), size.to_string(), depth.to_string(), source.to_string()]);
        Ok(Self(Process::start("the load generator", &mut command)?))
    }

    /// Opens connections until there are `count`. Each is echoed and compared.
    ///
    /// # Errors
    /// Fails if a connection cannot be opened or gets a wrong answer.
    pub fn grow(&mut self, count: usize) -> Result<()> {
        self.done(&format!("grow {count}"))
    }

    /// Echoes on all connections and compares the answers.
    ///
    /// # Errors
    /// Fails as [`grow`](Self::grow) does.
    pub fn check(&mut self) -> Result<()> {
        self.done("check")
    }

    /// Sends for `time`, with `in_flight` segments in flight.
    ///
    /// # Errors
    /// Fails if a connection is not answered.
    pub fn echo(&mut self, time: Duration, in_flight: usize) -> Result<Window> {
        self.window(&format!("echo {} {in_flight}", time.as_millis()))
    }

    /// Sends on all connections and waits for all answers, `rounds` times.
    ///
    /// # Errors
    /// Fails as [`echo`](Self::echo) does.
    pub fn rounds(&mut self, rounds: u64) -> Result<Window> {
        self.window(&format!("rounds {rounds}"))
    }

    /// Connects, echoes once and closes, for `time`, with `at_once` connections open at a time.
    ///
    /// # Errors
    /// Fails as [`echo`](Self::echo) does.
    pub fn churn(&mut self, time: Duration, at_once: usize) -> Result<Window> {
        self.window(&format!("churn {} {at_once}", time.as_millis()))
    }

    fn done(&mut self, command: &str) -> Result<()> {
        match self.0.request(command, STEP_TIMEOUT)?.as_str() {
            "done" => Ok(()),
            other => Err(format!("the load generator answered: {other}").into()),
        }
    }

    fn window(&mut self, command: &str) -> Result<Window> {
        let line = self.0.request(command, STEP_TIMEOUT)?;
        let mut words = line.split_whitespace();
        let window = (|| {
            words.next().filter(|&word| word == "window")?;
            let (messages, nanoseconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(Window { messages, nanoseconds, latency: Histogram::from_text(words)? })
        })();
        window.ok_or_else(|| format!("the load generator answered: {line}").into())
    }
}
