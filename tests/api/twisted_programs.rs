//! Twisted's programs of the guide's page "Programs side by side", run where Python has Twisted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::guide::{blocks, read};
use super::running::Running;
use crate::common::*;

/// Returns `true` if Python has these modules of Twisted.
pub(crate) fn has_twisted(modules: &str) -> bool {
    let mut import = Command::new("python3");
    import.args(["-c", &format!("import {modules}")]).stderr(Stdio::null());
    let has = import.status().is_ok_and(|status| status.success());
    if !has {
        println!("skipped: python3 has no {modules}");
    }
    has
}

/// Returns the command that runs a program of `docs/programs`.
pub(crate) fn twisted_program(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-W", "ignore"]).arg(format!("{}/docs/programs/{name}.py", env!("CARGO_MANIFEST_DIR")));
    command
}

/// A file with the program in Python below this heading, with its endpoint replaced.
struct Program(PathBuf);

impl Program {
    /// Returns `None` if Python or Twisted is missing.
    fn below(heading: &str, endpoint: &str, replacement: &str) -> Option<Self> {
        if !has_twisted("twisted") {
            return None;
        }
        let page = read("docs/guide/src/from-twisted/programs.md");
        let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
        let (_, text) = blocks(section).into_iter().find(|(language, _)| *language == "python").expect("a program");
        assert!(text.contains(endpoint), "{text}");
        let path = std::env::temp_dir().join(format!("ropewalk-guide-{}.py", std::process::id()));
        std::fs::write(&path, text.replace(endpoint, replacement)).expect("a file");
        Some(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    /// Runs a server on a listening socket that it inherits, with these words before the path.
    fn serve(&self, words: &[&str]) -> (Running, SocketAddr) {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=chat exec "$@" 3<&0 </dev/null"#,
            "sh",
            "python3",
        ]);
        command.args(words).arg(self.path());
        (Running::of(command, Stdio::from(OwnedFd::from(listener))), address)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A file that is gone already leaves nothing behind.
        let _ = std::fs::remove_file(&self.0);
    }
}

const INHERITED: &str = "systemd:domain=INET:index=0";

fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, expected);
}

#[test]
fn the_echo_server_sends_all_bytes_back() {
    own_process!();
    let Some(program) = Program::below("An echo server", "tcp:8888", INHERITED) else { return };
    let (_server, address) = program.serve(&[]);
    let mut stream = dial(address);
    stream.write_all(b"hello").unwrap();
    hears(&mut stream, b"hello");
}

#[test]
fn the_client_prints_the_answer() {
    own_process!();
    let listener = TcpListener::bind(loopback()).unwrap();
    let endpoint = format!("tcp:{}", listener.local_addr().unwrap());
    let Some(program) = Program::below("A client with inlineCallbacks", "tcp:localhost:8888", &endpoint) else {
        return;
    };
    let mut command = Command::new("python3");
    command.arg(program.path());
    let client = Running::of(command, Stdio::null());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    hears(&mut stream, b"hello");
    stream.write_all(b"good evening").unwrap();
    assert_eq!(client.line(), "b'good evening'");
    assert!(client.end().0.success());
}

#[test]
fn the_service_passes_bytes_on_to_all() {
    own_process!();
    let Some(program) = Program::below("A service", "tcp:6000", INHERITED) else { return };
    let twistd = ["-c", "from twisted.scripts.twistd import run; run()", "--pidfile=", "-ny"];
    let (_server, address) = program.serve(&twistd);
    let mut first = dial(address);
    first.write_all(b"one").unwrap();
    hears(&mut first, b"one");
    let mut second = dial(address);
    second.write_all(b"two").unwrap();
    hears(&mut second, b"two");
    hears(&mut first, b"two");
}
