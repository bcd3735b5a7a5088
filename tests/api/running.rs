//! Programs of the examples, as processes with arguments, output and an exit status.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Once;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use crate::common::*;
use rustix::process::{Pid, Signal, kill_process};

/// An example's executable: beside those of the tests, where `cargo test` puts it, and built first
/// if only this test was asked for.
pub(crate) fn executable(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("this executable");
    let profile = tests.parent().and_then(Path::parent).expect("the directory of the profile");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        static BUILT: Once = Once::new();
        BUILT.call_once(|| build_into(profile.parent().expect("the target directory")));
    }
    assert!(path.exists(), "{} was not built", path.display());
    path
}

fn build_into(target: &Path) {
    let mut build = process::cargo();
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--examples", "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo").success());
}

/// The exit code of a program that SIGTERM stopped, as a shell has it.
pub(crate) const TERMINATED: i32 = 128 + 15;

/// An example that runs; killed if the test fails.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(executable(name));
        command.args(arguments);
        Self::of(command, Stdio::null())
    }

    /// Starts a command that becomes an example, with this standard input.
    pub(crate) fn of(mut command: Command, input: Stdio) -> Self {
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a program");
        let (printed, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            for line in output.lines() {
                // A test that failed does not read on.
                let _ = printed.send(line.expect("text"));
            }
        });
        Self { child, lines }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("another line")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// The most memory that it has had so far, in kB.
    pub(crate) fn peak_memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Its exit status, what else it printed, and its complaints.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => rest.push(line),
                // Its output has ended, and so will it.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end within {LIMIT:?}"),
            }
        }
        let mut errors = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        (self.child.wait().expect("a child"), rest, errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an example to its end.
pub(crate) fn output(name: &str, arguments: &[&str]) -> Output {
    let (status, lines, errors) = Running::start(name, arguments).end();
    Output { status, stdout: lines.join("\n").into_bytes(), stderr: errors.into_bytes() }
}

/// Starts an example that listens, and says where.
pub(crate) fn listening(name: &str, description: &str) -> (Running, SocketAddr) {
    let server = Running::start(name, &[description]);
    let line = server.line();
    let address = line.strip_prefix("listening on ").expect("it says where").parse().expect("an address");
    (server, address)
}
