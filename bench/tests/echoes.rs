//! The baseline, and every server that is built with us, sends back what it is sent, also to a peer that reads late, when what was not taken has to be kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ropewalk_bench::programs::{BASELINE, compile_baseline};

/// More than the sockets of both ends take.
const BYTES: usize = 24 << 20;

const LIMIT: Duration = Duration::from_secs(60);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A server and its port; or nothing, if it says that it is missing here.
fn start(peer: &[&str]) -> Option<(Server, u16)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
    let mut child = command.arg("--unpinned").args(peer).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server(child);
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["ready", port, ..] => Some((server, port.parse().unwrap())),
        ["missing", ..] => None,
        _ => panic!("{peer:?} said {line:?}"),
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn echoes(peer: &str) {
    serves(peer, &[peer]);
}

/// `arguments` are what `serve` is told.
fn serves(peer: &str, arguments: &[&str]) {
    let Some((_server, port)) = start(arguments) else { return println!("{peer} is missing here") };
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || writing.write_all(&bytes(BYTES)).unwrap());
    // Reading begins when nothing more can be written, or a little before: either must do.
    thread::sleep(Duration::from_millis(300));
    let mut answer = vec![0; BYTES];
    (&stream).read_exact(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer == bytes(BYTES), "{peer} sent something else");
    (&stream).write_all(b"once more").unwrap();
    let mut answer = [0; 9];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"once more", "{peer}");
    // The server closes when its peer has: the end comes.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&stream).read(&mut answer).unwrap(), 0, "{peer}");
}

#[test]
fn baseline() {
    let folder = Path::new(env!("CARGO_BIN_EXE_serve")).parent().unwrap();
    let program = compile_baseline(folder).unwrap();
    serves(BASELINE.name, &["--", program.to_str().unwrap()]);
}

#[test]
fn epoll_inline() {
    echoes("epoll-inline");
}

#[test]
fn ropewalk() {
    echoes("ropewalk");
}

#[test]
fn mio() {
    echoes("mio");
}

#[test]
fn mio_inline() {
    echoes("mio-inline");
}

#[test]
fn calloop() {
    echoes("calloop");
}

#[test]
fn tokio() {
    echoes("tokio");
}

#[test]
fn monoio() {
    echoes("monoio");
}
