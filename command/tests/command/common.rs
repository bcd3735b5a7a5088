//! Starting the command, with a time limit.

#[path = "../../../tests/common/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the library")]
pub(crate) mod certificates;
#[path = "../../../tests/common/programs.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the library")]
pub(crate) mod programs;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The program.
pub(crate) const ROPEWALK: &str = env!("CARGO_BIN_EXE_ropewalk");

/// Time limit of each program and each read, in seconds.
pub(crate) const LIMIT_SECONDS: u64 = 30;

/// A description of a port that the system chooses.
pub(crate) const ANY_PORT: &str = "tcp:0:interface=127.0.0.1";

/// The command with these arguments. It is killed when its time is over.
pub(crate) fn ropewalk(arguments: &[&str]) -> Command {
    ropewalk_within(LIMIT_SECONDS, arguments)
}

/// The same with a time limit of its own.
fn ropewalk_within(seconds: u64, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    // Without `--foreground`, `timeout` passes a signal on twice: to the program and to its group.
    // A second signal ends a server at once.
    command.args(["--foreground", "-s", "KILL", &seconds.to_string(), ROPEWALK]);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a line of the shell. The exit code is that of the first program of a pipeline that fails.
pub(crate) fn shell(line: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &LIMIT_SECONDS.to_string(), "bash", "-o", "pipefail", "-c", line]);
    command.stdin(Stdio::null()).output().expect("bash runs")
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    ropewalk(arguments).output().expect("it runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Checks the exit code of a program that has ended.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
}

/// A path for a file of this test alone.
pub(crate) fn path(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ropewalk-command-{}-{count}-{name}", std::process::id()))
}

/// A server of the command. Dropped, it ends.
pub(crate) struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Server {
    /// Starts a server. The first arguments are the subcommand and its descriptions.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_within(LIMIT_SECONDS, arguments)
    }

    /// Starts a server that is killed after so many seconds.
    pub(crate) fn start_within(seconds: u64, arguments: &[&str]) -> Self {
        let mut child = ropewalk_within(seconds, arguments).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        Self { child, stderr }
    }

    /// Returns the next address on which it says that it listens.
    pub(crate) fn listens_on(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("text");
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).trim_end().to_owned()
    }

    /// Starts a server on one port, and returns it with the address.
    pub(crate) fn on_a_port(arguments: &[&str]) -> (Self, SocketAddr) {
        let mut server = Self::start(&[&[arguments[0], ANY_PORT], &arguments[1..]].concat());
        let address = server.listens_on().parse().expect("an address");
        (server, address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // `timeout` passes the signal on.
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Returns the most memory that the program has used so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.process().join("status")).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Returns the number of descriptors that the program has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(self.process().join("fd")).expect("it runs").count()
    }

    /// The folder of the process in `/proc`. The program is the child of `timeout`.
    fn process(&self) -> PathBuf {
        let timeout = self.child.id();
        let children = format!("/proc/{timeout}/task/{timeout}/children");
        PathBuf::from("/proc").join(std::fs::read_to_string(children).expect("it runs").trim())
    }

    /// Waits for the end. Returns the exit code, and the rest of standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Connects, with a limit for each read.
pub(crate) fn dial(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a server");
    stream.set_read_timeout(Some(Duration::from_secs(LIMIT_SECONDS))).expect("a socket option");
    stream
}
