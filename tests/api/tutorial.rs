//! The programs of the tutorial, run as its reader would, and its text beside them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram, UnixStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::guide::{blocks, read};
use super::running::{Running, TERMINATED, executable, listening};
use crate::common::*;

const ANY_PORT: &str = "tcp:0:interface=127.0.0.1";

/// The block in this language of a page that contains this text.
fn block(page: &str, language: &str, text: &str) -> String {
    let page = read(format!("docs/guide/src/tutorial/{page}.md"));
    let found = blocks(&page).into_iter().find(|(marked, block)| *marked == language && block.contains(text));
    found.unwrap_or_else(|| panic!("no block with {text}")).1.to_owned()
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
    let description = block("3-limits", "text", "maxConnections=1000");
    let limits = description.strip_prefix("tcp:6000:").expect("a description").trim_end();
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
    let commands = block("6-tls", "sh", "openssl");
    let mut shell = Command::new("timeout");
    shell.args(["30", "bash", "-ec", &commands]).current_dir(folder.at("")).stdin(Stdio::null());
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

/// The socket of a service manager, which services tell of their state.
struct Manager {
    name: String,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let name = format!("ropewalk-tutorial-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { name, socket }
    }

    /// Starts a command that becomes the service, with this standard input.
    fn start(&self, mut command: Command, input: Stdio) -> Running {
        command.env("NOTIFY_SOCKET", format!("@{}", self.name));
        Running::of(command, input)
    }

    fn message(&self) -> String {
        let mut buffer = [0; 100];
        let count = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }
}

/// All ports of the service share a room, and its end is told to each connection.
#[test]
fn step_7_drains() {
    own_process!();
    let paths = ["a", "b"].map(|end| std::env::temp_dir().join(format!("ropewalk-{}-{end}", std::process::id())));
    let mut command = Command::new(executable("tutorial_service"));
    command.args(paths.each_ref().map(|path| format!("unix:{}", path.display())));
    let manager = Manager::new();
    let service = manager.start(command, Stdio::null());
    assert_eq!(manager.message(), "READY=1");
    let [(mut first, _), (_, mut heard)] = paths.each_ref().map(|path| {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut heard = BufReader::new(stream.try_clone().unwrap());
        assert!(line(&mut heard).ends_with(" in the room\n"));
        (stream, heard)
    });
    first.write_all(b"hello\n").unwrap();
    assert_eq!(line(&mut heard), "hello\n");
    service.signal(Signal::TERM);
    let mut rest = String::new();
    heard.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the chat closes\n");
    let (status, _, errors) = service.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
}

/// The service gets its socket from a service manager, tells it that it is ready, and says good-bye
/// to its connections when it stops. The first description is that of the page's unit.
#[test]
fn step_8_runs_under_a_service_manager() {
    own_process!();
    let manager = Manager::new();
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    // The shell plays systemd: descriptor 3 is the socket, for this process.
    let mut command = Command::new("sh");
    command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$1" 3<&0 </dev/null"#]);
    let unit = block("8-systemd", "ini", "ExecStart");
    let description = unit.split_whitespace().find(|word| word.starts_with("systemd:")).expect("a description");
    command.args([executable("tutorial_service").as_os_str(), description.as_ref()]);
    let service = manager.start(command, Stdio::from(OwnedFd::from(listener)));
    assert_eq!(manager.message(), "READY=1");
    let (_stream, mut heard) = reader(address);
    assert_eq!(line(&mut heard), "1 in the room\n");
    service.signal(Signal::TERM);
    assert_eq!(manager.message(), "STOPPING=1");
    let mut rest = String::new();
    heard.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the chat closes\n");
    let (status, _, errors) = service.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
    assert!(unit.contains(&format!("\nSuccessExitStatus={TERMINATED}\n")), "{unit}");
    assert!(TcpStream::connect(address).is_err(), "the port no longer listens");
}
