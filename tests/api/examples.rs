//! The examples, run as a user would: processes with arguments, output and an exit status.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::running::{Running, TERMINATED, listening, output};
use crate::common::*;
use rustix::process::{Pid, Signal, kill_process};

/// The echo server on a port of its own, and where it listens, as it says itself.
fn server() -> (Running, SocketAddr) {
    listening("echo_server", "tcp:0:interface=127.0.0.1")
}

/// `echo` is a server and ten clients: ten answers, and a good end.
#[test]
fn echo_prints_ten_answers() {
    own_process!();
    let output = output("echo", &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let mut answers: Vec<&str> =
        printed.lines().filter_map(|line| line.split_once(" answers: ")).map(|(_, a)| a).collect();
    answers.sort_unstable();
    let mut expected: Vec<String> = (1..=10).map(|number| format!("hello, I am client {number}")).collect();
    expected.sort_unstable();
    assert_eq!(answers, expected);
    assert!(printed.starts_with("listening on 127.0.0.1:"), "{printed}");
}

/// `echo_server` says where it listens, answers a peer that is not ours and closes, and ends well
/// on both signals.
#[test]
fn echo_server_answers_and_ends_on_signals() {
    own_process!();
    for signal in [Signal::TERM, Signal::INT] {
        if is_ignored(signal) {
            println!("skipped: {signal:?} is ignored here, and so it is by the example");
            continue;
        }
        let (server, address) = server();
        for message in ["hello", "and again"] {
            let mut stream = dial(address);
            let from = stream.local_addr().unwrap();
            stream.write_all(message.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, message);
            assert_eq!(server.line(), "new connection, 1 open");
            assert_eq!(server.line(), format!("data: {message}"));
            assert_eq!(server.line(), format!("host: {address}, peer: {from}"));
            assert_eq!(server.line(), "connection lost, 0 open: the connection was closed cleanly");
        }
        // A connection that is open does not keep it from ending.
        let mut open = dial(address);
        assert_eq!(server.line(), "new connection, 1 open");
        server.signal(signal);
        let (status, rest, errors) = server.end();
        assert_eq!(status.code(), Some(128 + signal.as_raw()), "{signal:?}: {status}, {errors}");
        assert_eq!(rest, ["connection lost, 0 open: the reactor stopped"]);
        assert_eq!(errors, "");
        let mut nothing = Vec::new();
        open.read_to_end(&mut nothing).unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port no longer listens");
    }
}

/// Returns `true` if this process ignores the signal, and so do its children. Shells ignore signals
/// for programs in the background.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a number");
    mask >> (signal.as_raw() - 1) & 1 == 1
}

/// `echo_client` against `echo_server`: an answer, and a good end.
#[test]
fn echo_client_is_answered() {
    own_process!();
    let (server, address) = server();
    let output = output("echo_client", &[&format!("tcp:{address}")]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!printed.is_empty());
    for line in printed.lines() {
        let (before, after) = line.split_once(" was answered: hello, I am ").expect(line);
        assert_eq!(before, after, "each gets its own answer");
    }
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// `echo_client` without a server: a line that says so for each client, and a bad end.
#[test]
fn echo_client_without_a_server_says_so() {
    own_process!();
    let (_taken, address) = refusing();
    let output = output("echo_client", &[&format!("tcp:{address}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    let each = [&*format!("{address} refused the connection"); 10].join("; ");
    assert_eq!(said, format!("Error: all 10 failed: {each}\n"));
}

/// A description that is wrong: one line that says where, and a bad end.
#[test]
fn a_wrong_description_is_one_line() {
    own_process!();
    for (name, description, position) in [
        ("echo_server", "tcp:http", 4),
        ("echo_server", "tpc:8888", 0),
        ("echo_client", "tcp:localhost:port", 14),
        ("echo_client", r"tcp:localhost\", 13),
    ] {
        let output = output(name, &[description]);
        assert_eq!(output.status.code(), Some(1), "{name} {description}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("Error: in \"{description}\" at byte {position}: ")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// A server that can't listen says why, and ends badly.
#[test]
fn echo_server_without_its_port_says_so() {
    own_process!();
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let output = output("echo_server", &[&format!("tcp:{}:interface=127.0.0.1", address.port())]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("Error: cannot listen on {address}: ")), "{said}");
}

/// The process that a line of `handover` names, and the rest of the line.
#[track_caller]
fn process_in(line: &str) -> (Pid, &str) {
    let (number, rest) = line.strip_prefix("process ").and_then(|line| line.split_once(' ')).expect(line);
    (Pid::from_raw(number.parse().expect(line)).expect("a process"), rest)
}

/// Ends a process that is no child of this one, if the test fails.
struct EndsWithTest(Pid);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// `handover` replaces itself twice on SIGHUP: an open connection goes on, new ones are served, and
/// each old process leaves.
#[test]
fn handover_replaces_itself() {
    if is_ignored(Signal::HUP) {
        return println!("skipped: SIGHUP is ignored here, and so it is by the example");
    }
    let server = Running::start("handover", &["tcp:0:interface=127.0.0.1"]);
    let line = server.line();
    let (mut old, rest) = process_in(&line);
    let address: SocketAddr = rest.strip_prefix("listens on ").expect("it says where").parse().expect("an address");
    let asks = |stream: &mut TcpStream| {
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"hello");
    };
    let mut guards = Vec::new();
    for _ in 0..2 {
        let mut open = dial(address);
        asks(&mut open);
        kill_process(old, Signal::HUP).unwrap();
        let line = server.line();
        let (new, rest) = process_in(&line);
        guards.push(EndsWithTest(new));
        assert!(new != old && rest == format!("listens on {address}"), "{line}");
        asks(&mut open);
        asks(&mut dial(address));
        drop(open);
        let line = server.line();
        assert_eq!(process_in(&line), (old, "is done"), "{line}");
        asks(&mut dial(address));
        old = new;
    }
    kill_process(old, Signal::TERM).unwrap();
    let (status, rest, errors) = server.end();
    assert!(status.success() && rest.is_empty() && errors.is_empty(), "{status}: {rest:?}, {errors}");
    guards.into_iter().for_each(std::mem::forget);
    assert!(TcpStream::connect(address).is_err(), "the port no longer listens");
}

/// `proxy`: much goes through both ways, an end of stream too, and answers that come after it.
#[test]
fn proxy_passes_everything_on() {
    own_process!();
    let (target, answering) = listening_peer(|mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&request).unwrap();
    });
    let proxy = Running::start("proxy", &["tcp:0:interface=127.0.0.1", &format!("tcp:{target}")]);
    let line = proxy.line();
    let address: SocketAddr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
    let mut stream = dial(address);
    let request: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == request, "{} bytes came back, or others", answer.len());
    answering.join().unwrap();
    proxy.signal(Signal::TERM);
    let (status, _, errors) = proxy.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
}

/// Two `proxy` in a row: the first one names its client to the second one, which would refuse a
/// connection without a header.
#[test]
fn a_proxy_behind_a_proxy() {
    own_process!();
    let (target, answering) = listening_peer(|mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&request).unwrap();
    });
    let address = |proxy: &Running| -> SocketAddr {
        proxy.line().strip_prefix("listening on ").expect("its address").parse().expect("an address")
    };
    let back = Running::start("proxy", &["haproxy:tcp:0:interface=127.0.0.1", &format!("tcp:{target}")]);
    let behind = format!("tcp:{}", address(&back));
    let front = Running::start("proxy", &["tcp:0:interface=127.0.0.1", &behind, "named"]);
    let mut stream = dial(address(&front));
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hello");
    answering.join().unwrap();
    for proxy in [front, back] {
        proxy.signal(Signal::TERM);
        let (status, _, errors) = proxy.end();
        assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
    }
}

/// `proxy` with a target that refuses: it closes the connection, prints the reason, and goes on.
#[test]
fn proxy_without_a_target_closes() {
    own_process!();
    let (_taken, target) = refusing();
    let proxy = Running::start("proxy", &["tcp:0:interface=127.0.0.1", &format!("tcp:{target}")]);
    let line = proxy.line();
    let address: SocketAddr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
    let mut expected = Vec::new();
    for _ in 0..2 {
        let mut stream = dial(address);
        expected.push(format!(
            "ropewalk::protocols::forward: error: a connection can't be forwarded, and is closed (peer: {}; failure: \
             {target} refused the connection)",
            stream.local_addr().unwrap()
        ));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    proxy.signal(Signal::TERM);
    let (status, _, errors) = proxy.end();
    assert_eq!(status.code(), Some(TERMINATED));
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected);
}

/// A connection to the chat that has been asked for its name.
struct Guest(BufReader<TcpStream>);

impl Guest {
    fn new(chat: SocketAddr) -> Self {
        let mut guest = Self(BufReader::new(dial(chat)));
        assert_eq!(guest.hears(), "what is your name?");
        guest
    }

    fn named(chat: SocketAddr, name: &str) -> Self {
        let mut guest = Self::new(chat);
        guest.says(&format!("{name}\n"));
        assert_eq!(guest.hears(), format!("* {name} is here"));
        guest
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next line, or the empty one at the end of the stream.
    #[track_caller]
    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// `chat`: lines go to all, in however many pieces they come; a name is one talker's at a time; a
/// line that is too long ends its connection and no other.
#[test]
fn chat_passes_lines_on() {
    own_process!();
    let chat = Running::start("chat", &["tcp:0:interface=127.0.0.1"]);
    let address = chat.line().strip_prefix("listening on ").expect("it says where").parse().unwrap();
    let mut ann = Guest::named(address, "ann");
    let mut bob = Guest::new(address);
    for taken in ["ann\n", "\r\n"] {
        bob.says(taken);
        assert_eq!(bob.hears(), "choose another name");
    }
    bob.says("b");
    bob.says("ob\r\nhel");
    assert_eq!((ann.hears(), bob.hears()), ("* bob is here".into(), "* bob is here".into()));
    bob.says("lo\nand more\n");
    for guest in [&mut ann, &mut bob] {
        assert_eq!(guest.hears(), "<bob> hello");
        assert_eq!(guest.hears(), "<bob> and more");
    }
    bob.says(&"x".repeat(5_000));
    assert_eq!(bob.hears(), "");
    assert_eq!(ann.hears(), "* bob has left");
    let mut bob = Guest::named(address, "bob");
    assert_eq!(ann.hears(), "* bob is here");
    ann.says("hello again\n");
    assert_eq!((ann.hears(), bob.hears()), ("<ann> hello again".into(), "<ann> hello again".into()));
    chat.signal(Signal::TERM);
    let (status, _, errors) = chat.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
}

/// `cores`: talkers of both threads hear one another, SIGTERM says farewell to all, and each thread
/// has passed its own lines on.
#[test]
fn cores_passes_lines_on_between_threads() {
    own_process!();
    let chat = Running::start("cores", &["tcp:0:interface=127.0.0.1", "2"]);
    let address = chat.line().strip_prefix("listening on ").expect("it says where").parse::<SocketAddr>().unwrap();
    let mut talkers: Vec<_> = (0..4).map(|_| BufReader::new(dial(address))).collect();
    let hears = |talker: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        talker.read_line(&mut line).unwrap();
        line
    };
    for (number, talker) in talkers.iter_mut().enumerate() {
        assert_eq!(hears(talker), format!("served by member {}\n", number % 2));
    }
    for speaker in 0..3 {
        talkers[speaker].get_mut().write_all(b"hello\n").unwrap();
        for talker in &mut talkers {
            assert_eq!(hears(talker), format!("<member {}> hello\n", speaker % 2));
        }
    }
    // A talker that leaves is no talker any more, and the others go on.
    drop(talkers.remove(0));
    chat.signal(Signal::TERM);
    for mut talker in talkers {
        let mut rest = String::new();
        talker.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "the server stops\n");
    }
    let (status, lines, errors) = chat.end();
    assert_eq!((status.code(), &*errors), (Some(TERMINATED), ""));
    assert_eq!(lines, ["member 0 passed on 2 lines", "member 1 passed on 1 lines"]);
}

/// `chat` cuts off a peer that does not read, and no other.
#[test]
fn chat_cuts_off_who_does_not_read() {
    own_process!();
    let chat = Running::start("chat", &["tcp:0:interface=127.0.0.1:sendBuffer=4096:queueLimit=65536"]);
    let address = chat.line().strip_prefix("listening on ").expect("it says where").parse().unwrap();
    let mut ann = Guest::named(address, "ann");
    let _slow = Guest::named(address, "slow");
    assert_eq!(ann.hears(), "* slow is here");
    let line = "x".repeat(1000);
    // More than any receive buffer holds.
    for _ in 0..100_000 {
        ann.says(&format!("{line}\n"));
        match &*ann.hears() {
            "* slow has left" => return,
            heard => assert_eq!(heard, format!("<ann> {line}")),
        }
    }
    panic!("it is still there");
}

/// Reads a command as Redis does: the number of its words, and each with its length in front.
fn command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |input: &mut dyn BufRead, kind: char| {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let number = line.strip_suffix("\r\n")?.strip_prefix(kind)?.parse().expect("a number");
        Some(number)
    };
    let words: usize = number(input, '*')?;
    let word = |_| {
        let length: usize = number(input, '$').expect("a length");
        let mut word = vec![0; length + 2];
        input.read_exact(&mut word).unwrap();
        Some(String::from_utf8(word).unwrap().strip_suffix("\r\n")?.to_owned())
    };
    (0..words).map(word).collect()
}

/// `redis` pipelines four commands, whose replies come in pieces, and then sends each command when
/// it has the reply before.
#[test]
fn redis_pipelines_and_chains() {
    own_process!();
    let (address, server) = listening_peer(|mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut input = BufReader::new(stream.try_clone().unwrap());
        // None is answered before all have come.
        let pipelined: Vec<_> = (0..4).map(|_| command(&mut input).unwrap().join(" ")).collect();
        for byte in *b"+PONG\r\n+OK\r\n$3\r\n1\r\n\r\n:7\r\n" {
            stream.write_all(&[byte]).unwrap();
        }
        let (mut sum, mut commands) = (1, pipelined);
        while let Some(command) = command(&mut input) {
            let [_, _, by] = &command[..] else { panic!("{command:?}") };
            sum += by.parse::<i64>().unwrap();
            stream.write_all(format!(":{sum}\r\n").as_bytes()).unwrap();
            commands.push(command.join(" "));
        }
        commands
    });
    let output = output("redis", &[&format!("tcp:{address}")]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let expected = [
        "pipelined: [Bytes(Some([80, 79, 78, 71])), Bytes(Some([79, 75])), Bytes(Some([49, 13, 10])), Number(7)]",
        "chained: Number(1024)",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    let chain = (0..10).map(|n| format!("INCRBY sum {}", 1 << n));
    let expected: Vec<String> =
        ["PING", "SET sum 1", "GET sum", "INCR visits"].map(String::from).into_iter().chain(chain).collect();
    assert_eq!(server.join().unwrap(), expected);
}

/// An error of the server, a reply that is none, and an end in the middle of one: `redis` says so,
/// and ends badly.
#[test]
fn redis_says_what_went_wrong() {
    own_process!();
    for (reply, complaint) in [
        ("-ERR no such thing\r\n", "ERR no such thing"),
        ("*1\r\n", "a reply of an unknown kind: *1"),
        ("+PONG\r\n$9\r\nhalf", "the connection was closed cleanly"),
    ] {
        let (address, server) = listening_peer(move |mut stream| {
            let mut input = BufReader::new(stream.try_clone().unwrap());
            assert_eq!(command(&mut input).unwrap(), ["PING"]);
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let output = output("redis", &[&format!("tcp:{address}")]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(complaint), "{reply:?}: {said}");
        server.join().unwrap();
    }
}

/// A file of this name for one test, which is removed when the test is over.
#[cfg(feature = "tls")]
struct Scratch(String);

#[cfg(feature = "tls")]
impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ropewalk-{}-{name}", std::process::id())).display().to_string())
    }
}

#[cfg(feature = "tls")]
impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// `starttls_client` and `starttls_server`: the secret is said in secret; and it is not said to a
/// server that is not the right one.
#[cfg(feature = "tls")]
#[test]
fn starttls_client_asks_starttls_server() {
    own_process!();
    let authority = Scratch::new("starttls.pem");
    let server = Running::start("starttls_server", &["tcp:0:interface=127.0.0.1", &authority.0]);
    let line = server.line();
    let at = format!("tcp:{}", line.strip_prefix("listening on ").expect("it says where"));
    let good = output("starttls_client", &[&at, &authority.0]);
    let printed = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success() && good.stderr.is_empty(), "{printed}{}", String::from_utf8_lossy(&good.stderr));
    assert!(printed.ends_with("answer: you said in secret: the secret"), "{printed}");
    assert!(server.line().ends_with(" speaks TLS now"));
    assert!(server.line().ends_with(" is gone: the connection was closed cleanly"));

    let bad = output("starttls_client", &[&at, &authority.0, "other.example"]);
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("\nError: the peer's certificate is not for other.example"), "{said}");
    assert!(server.line().ends_with(" is gone: the peer ended TLS: bad_certificate"));

    // Plain text goes on until bytes are injected ahead of the handshake.
    let mut stream = dial(at.strip_prefix("tcp:").unwrap().parse().unwrap());
    stream.write_all(b"hello\n").unwrap();
    let mut answer = [0; 31];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"you said for all to hear: hello");
    stream.write_all(b"STARTTLS\nDELETE everything\n").unwrap();
    assert!(server.line().ends_with("data arrived after the request for TLS, and before the handshake"));
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// `tls_echo`: a page that curl can fetch, and that a client of ours can.
#[cfg(feature = "tls")]
#[test]
fn tls_echo_shows_what_it_was_asked() {
    own_process!();
    let authority = Scratch::new("tls_echo.pem");
    let server = Running::start("tls_echo", &["tcp:0:interface=127.0.0.1", &authority.0]);
    let line = server.line();
    let address: SocketAddr = line.strip_prefix("listening on ").expect("it says where").parse().unwrap();
    let url = format!("https://localhost:{}/a/page", address.port());
    match std::process::Command::new("curl").args(["-4sS", "--max-time", "20", "--cacert", &authority.0, &url]).output()
    {
        Ok(output) => {
            let page = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(page.starts_with("GET /a/page HTTP/1.1\r\n"), "{page}");
            assert!(server.line().contains(": Tls13, TLS13_"));
            assert!(server.line().ends_with(": the connection was closed cleanly"));
        }
        Err(_) if std::env::var_os("CI").is_none() => println!("skipped: there is no curl"),
        Err(error) => panic!("no curl: {error}"),
    }
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}
