//! Programs of other projects, as peers. If one of them is missing, its tests are skipped. If
//! `CI` is set in the environment they fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

/// Returns `true` if the program is there.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// Returns a Python that has this module: that of the environment variable `PYTHON`, the first of
/// the path, or the system's.
pub fn python_with(module: &str) -> Option<String> {
    let named = std::env::var("PYTHON").ok();
    let python = named.into_iter().chain(["python3", "/usr/bin/python3"].map(str::to_owned)).find(|python| {
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    });
    assert!(python.is_some() || std::env::var_os("CI").is_none(), "no Python has {module}");
    if python.is_none() {
        println!("skipped: no Python has {module}");
    }
    python
}

/// Runs a program with a time limit, in a thread. Its standard input is `input`.
pub fn run_program(command: &[&str], input: &'static [u8]) -> JoinHandle<Output> {
    let mut child = spawn(command);
    thread::spawn(move || {
        let mut stdin = child.stdin.take().expect("it was asked for");
        // A program that has ended already does not read.
        drop(stdin.write_all(input));
        let output = child.wait_with_output().expect("it ends");
        drop(stdin);
        output
    })
}

pub fn spawn(command: &[&str]) -> Child {
    let mut limited = Command::new("timeout");
    limited.arg("25").args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limited.spawn().expect("a program")
}

pub fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A program that listens and prints its address.
pub struct Listening {
    child: Child,
    pub address: SocketAddr,
}

impl Listening {
    /// Starts the program. Its first line with `marker` in it ends with its address.
    pub fn start(command: &[&str], marker: &str) -> Self {
        let mut child = spawn(command);
        let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            line.contains(marker).then(|| line.rsplit(' ').next().and_then(|word| word.parse().ok()))?
        });
        let Some(address) = address else {
            let mut errors = String::new();
            child.stderr.take().expect("it was asked for").read_to_string(&mut errors).expect("text");
            panic!("{command:?} does not listen: {errors}");
        };
        // The program may go on writing, and would block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // `timeout` passes the signal on to the program, which it could not do for SIGKILL. The
        // program may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
