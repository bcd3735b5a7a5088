//! The programs of `docs/tutorial.md`, run as its reader would, and its text beside them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::running::{Running, TERMINATED, executable, listening};
use crate::common::*;

const PAGE: &str = include_str!("../../docs/tutorial.md");
const ANY_PORT: &str = "tcp:0:interface=127.0.0.1";

/// The blocks of the page in this language, each with the heading of its step.
fn blocks(language: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (begin, end) = (format!("```{language}\n"), "\n```");
    PAGE.split("\n## ").flat_map(move |step| {
        let found: Vec<_> = step.split(&begin).skip(1).filter_map(|rest| rest.split_once(end)).collect();
        let heading = step.lines().next().unwrap_or_default();
        found.into_iter().map(move |(block, _)| (heading, block))
    })
}

/// Each piece of a program on the page is part of the program that its step links to, and a program
/// has sixty lines at most.
#[test]
fn the_page_shows_the_programs() {
    let mut count = 0;
    for (heading, block) in blocks("rust") {
        let step = PAGE.split("\n## ").find(|step| step.starts_with(heading)).expect("a step");
        let links = step.split("](../").skip(1).filter_map(|rest| rest.split_once(".rs)"));
        let path = links.map(|(path, _)| format!("{path}.rs")).next().expect(heading);
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).expect(&path);
        assert!(text.contains(block), "{path} has no such lines:\n{block}");
        assert!(text.lines().count() <= 60, "{path} is too long");
        count += 1;
    }
    assert!(count >= 5, "{count} pieces");
}

/// Connects, and reads lines.
fn reader(to: SocketAddr) -> (TcpStream, BufReader<TcpStream>) {
    let stream = dial(to);
    (stream.try_clone().expect("a descriptor"), BufReader::new(stream))
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("text");
    line
}

#[test]
fn step_1_sends_all_bytes_back() {
    own_process!();
    let (server, address) = listening("tutorial_echo", ANY_PORT);
    let mut stream = dial(address);
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// Lines reach all talkers. The limits of the description hold: a third connection is refused, and
/// one that reads nothing is reset.
#[test]
fn steps_2_and_3_pass_lines_on_within_limits() {
    own_process!();
    let limits = blocks("text").find_map(|(_, block)| block.strip_prefix("tcp:6000:")).expect("a description");
    assert!(limits.contains("maxConnections=1000"), "{limits}");
    let limits = limits.replace("maxConnections=1000", "maxConnections=2");
    let (server, address) = listening("tutorial_chat", &format!("{ANY_PORT}:{limits}"));
    let (mut first, mut heard) = reader(address);
    assert_eq!(line(&mut heard), "1 in the room\n");
    let (_second, mut also_heard) = reader(address);
    assert_eq!(line(&mut also_heard), "2 in the room\n");
    first.write_all(b"hello\n").unwrap();
    assert_eq!([line(&mut heard), line(&mut also_heard)], ["hello\n", "hello\n"]);
    let refused = dial(address).read(&mut [0]);
    assert!(
        matches!(refused, Ok(0)) || refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    // A line that is too long ends its connection.
    first.write_all(&[b'x'; 2000]).unwrap();
    assert!(heard.read_to_end(&mut Vec::new()).is_ok_and(|count| count == 0));
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// The client says hello on each connection, and comes back after the first one is closed.
#[test]
fn step_5_comes_back() {
    own_process!();
    let server = TcpListener::bind(loopback()).unwrap();
    let client = Running::start("tutorial_client", &[&format!("tcp:{}", server.local_addr().unwrap())]);
    for round in 1..=2 {
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(line(&mut BufReader::new(stream.try_clone().unwrap())), "a guest says hello\n");
        stream.write_all(format!("welcome {round}\n").as_bytes()).unwrap();
        assert_eq!(client.line(), format!("welcome {round}"));
    }
    client.signal(Signal::TERM);
    let (status, _, errors) = client.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
}

/// The page's commands make certificates. With them, the chat and its client speak TLS.
#[cfg(feature = "tls")]
#[test]
fn step_6_speaks_tls() {
    own_process!();
    if !programs::has("openssl") {
        return;
    }
    let folder = certificates::Folder::new();
    let commands = blocks("sh").find_map(|(_, block)| block.contains("openssl").then_some(block)).expect("commands");
    let mut shell = std::process::Command::new("timeout");
    shell.args(["30", "bash", "-ec", commands]).current_dir(folder.at("")).stdin(Stdio::null());
    let output = shell.output().expect("a shell");
    assert!(output.status.success(), "{}", programs::said(&output));
    let description = format!("tls:{}:0:interface=127.0.0.1", folder.at("certificates"));
    let (server, address) = listening("tutorial_chat", &description);
    let trusted = format!("tls:localhost:{}:trustRoots={}", address.port(), folder.at("trusted"));
    let client = Running::start("tutorial_client", &[&trusted]);
    assert_eq!([client.line(), client.line()], ["1 in the room", "a guest says hello"]);
    client.signal(Signal::TERM);
    assert_eq!(client.end().0.code(), Some(TERMINATED));
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// The service gets its socket from a service manager, tells it that it is ready, and says good-bye
/// to its connections when it stops.
#[test]
fn step_7_drains() {
    own_process!();
    let name = format!("ropewalk-tutorial-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let message = || {
        let mut buffer = [0; 100];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    // The shell plays systemd: descriptor 3 is the socket, for this process.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" systemd:index=0 3<&0 </dev/null"#]);
    command.arg(executable("tutorial_service")).env("NOTIFY_SOCKET", format!("@{name}"));
    let service = Running::of(command, Stdio::from(OwnedFd::from(listener)));
    assert_eq!(message(), "READY=1");
    let (_stream, mut heard) = reader(address);
    assert_eq!(line(&mut heard), "1 in the room\n");
    service.signal(Signal::TERM);
    assert_eq!(message(), "STOPPING=1");
    let mut rest = String::new();
    heard.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the chat closes\n");
    let (status, _, errors) = service.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
    assert!(TcpStream::connect(address).is_err(), "the port no longer listens");
}
