//! The baseline and every Rust server echo. They do so too for a peer that reads late, so that
//! unsent bytes have to be kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ropewalk_bench::programs::{BASELINE, compile_baseline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Number of bytes. It exceeds the socket buffers of both ends.
const BYTES: usize = 24 << 20;

const LIMIT: Duration = Duration::from_secs(60);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a server and returns its port, or `None` if it reports that it is missing here.
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
        _ => panic!("{peer:?} printed {line:?}"),
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn echoes(peer: &str) {
    serves(peer, &[peer]);
}

/// Returns `true` if the socket has room at this moment.
fn is_writable(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() > 0
}

/// Tests a server. `arguments` are those of `serve`.
fn serves(peer: &str, arguments: &[&str]) {
    let Some((_server, port)) = start(arguments) else { return println!("{peer} is missing here") };
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || writing.write_all(&bytes(BYTES)).unwrap());
    // Reading begins when the socket is full, or all is written. So the server has to wait too.
    while !writer.is_finished() && is_writable(&stream) {
        thread::yield_now();
    }
    let mut answer = vec![0; BYTES];
    (&stream).read_exact(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer == bytes(BYTES), "{peer} sent other bytes back");
    (&stream).write_all(b"once more").unwrap();
    let mut answer = [0; 9];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"once more", "{peer}");
    // The server closes after its peer, so the end arrives.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&stream).read(&mut answer).unwrap(), 0, "{peer}");
}

/// The C server echoes.
#[test]
fn baseline() {
    let folder = Path::new(env!("CARGO_BIN_EXE_serve")).parent().unwrap();
    let program = compile_baseline(folder).unwrap();
    serves(BASELINE.name, &["--", program.to_str().unwrap()]);
}

/// The baseline in Rust echoes.
#[test]
fn epoll_inline() {
    echoes("epoll-inline");
}

/// Ropewalk echoes.
#[test]
fn ropewalk() {
    echoes("ropewalk");
}

/// The server on mio echoes.
#[test]
fn mio() {
    echoes("mio");
}

/// The server on mio with inlined system calls echoes.
#[test]
fn mio_inline() {
    echoes("mio-inline");
}

/// The server on calloop echoes.
#[test]
fn calloop() {
    echoes("calloop");
}

/// The server on tokio echoes.
#[test]
fn tokio() {
    echoes("tokio");
}

/// The server on monoio echoes.
#[test]
fn monoio() {
    echoes("monoio");
}
