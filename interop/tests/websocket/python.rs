//! Python's `websockets` as the peer, over sockets, plain and over TLS, on each backend.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ropewalk::endpoints::server_from_string;
use ropewalk::{BackendKind, Reactor};
use ropewalk_interop::chat::{Chat, Limits};
use rustix::process::{Pid, Signal, kill_process};

use super::common::certificates::{Authority, Folder};
use super::common::programs::{run_program, said};
use super::common::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/websocket/peer.py");

/// Returns a Python that has `websockets`: that of the environment variable `PYTHON`, the first of
/// the path, or the system's, for which Debian has a package of it.
fn python() -> Option<String> {
    let named = std::env::var("PYTHON").ok();
    let candidates = named.into_iter().chain(["python3", "/usr/bin/python3"].map(str::to_owned));
    let python = candidates.into_iter().find(|python| {
        let mut import = Command::new(python);
        import.args(["-c", "import websockets"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    });
    assert!(python.is_some() || std::env::var_os("CI").is_none(), "no Python has websockets");
    if python.is_none() {
        println!("skipped: no Python has websockets");
    }
    python
}

/// The certificate of `localhost` in files, and a description of a server with it.
fn with_tls() -> (Folder, String) {
    let (authority, folder) = (Authority::new(), Folder::new());
    let issued = authority.issue(&["localhost"]);
    folder.put("ca.pem", &authority.pem());
    let (certificate, key) = (folder.put("server.pem", &issued.certificate), folder.put("server.key", &issued.key));
    let description = format!("ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}");
    (folder, description)
}

/// Runs a role against a chat, plain and over TLS. Returns the output of each run.
fn play(reactor: &Reactor, python: &str, role: &'static str) -> Vec<String> {
    let (folder, tls) = with_tls();
    let ca = folder.at("ca.pem");
    let plain = "tcp:0:interface=127.0.0.1".to_owned();
    let run = |(description, scheme, ca): (String, &str, &str)| {
        let chat = Chat::new(reactor, Limits::default());
        let endpoint = server_from_string(reactor, &description).expect("a good description");
        let port = result_of(reactor, chat.listen(&endpoint)).expect("a port");
        let number = port.host().socket_addr().expect("a TCP port").port();
        let uri = format!("{scheme}://localhost:{number}/room");
        let peer = run_program(&[python, SCRIPT, &uri, ca, role], b"");
        run_until(reactor, || peer.is_finished());
        let output = peer.join().expect("it has ended");
        assert!(output.status.success(), "{}", said(&output));
        run_until(reactor, || chat.sessions() == 0);
        result_of(reactor, port.stop_listening()).expect("it listens");
        String::from_utf8(output.stdout).expect("text")
    };
    [(plain, "ws", "-"), (tls, "wss", &ca)].map(run).into()
}

/// Twenty members hear each other's texts, each once.
#[test]
fn a_crowd_hears_everything() {
    own_process!();
    let Some(python) = python() else { return };
    on_each(|reactor| assert_eq!(play(reactor, &python, "crowd"), ["heard 10000\n"; 2]));
}

/// Binary messages and messages that are too long have their codes. A member beside them is told
/// that they came and went, and nothing else.
#[test]
fn broken_rules_have_their_codes() {
    own_process!();
    let Some(python) = python() else { return };
    let told = |name: &str| format!("* {name} has joined\n* {name} has left\n");
    let full = "* full has joined\n16391\n* full has left\n";
    let expected = format!("binary 1003\nlong 1009\nfull 16391\n{}{}{full}", told("binary"), told("long"));
    on_each(|reactor| assert_eq!(play(reactor, &python, "faults"), [&expected[..]; 2]));
}

/// SIGTERM closes the connections of the program with code 1001, and ends it.
#[test]
fn sigterm_says_that_the_server_goes() {
    own_process!();
    let Some(python) = python() else { return };
    let (folder, tls) = with_tls();
    let ca = folder.at("ca.pem");
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let backend = if kind == BackendKind::Mio { "mio" } else { "io_uring" };
        let mut server = Command::new(example("websocket_chat", "websocket"));
        server.args(["tcp:0:interface=127.0.0.1", &tls]).env("ROPEWALK_BACKEND", backend).stdout(Stdio::piped());
        let mut server = server.spawn().expect("the example runs");
        let lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
        let ports: Vec<String> = lines
            .take(2)
            .map(|line| line.expect("text").rsplit_once(':').expect("an address and a port").1.to_owned())
            .collect();
        let peers = [("ws", "-", &ports[0]), ("wss", &ca, &ports[1])].map(|(scheme, ca, port)| {
            let mut peer = Command::new("timeout");
            let uri = format!("{scheme}://localhost:{port}/{scheme}");
            peer.args(["25", &python, SCRIPT, &uri, ca, "stay"]).stdout(Stdio::piped());
            let mut peer = peer.spawn().expect("it runs");
            let mut lines = BufReader::new(peer.stdout.take().expect("a pipe")).lines();
            assert_eq!(lines.next().expect("a line").expect("text"), "ready");
            (peer, lines)
        });
        kill_process(Pid::from_child(&server), Signal::TERM).expect("it runs");
        for (mut peer, mut lines) in peers {
            assert_eq!(lines.next().expect("a line").expect("text"), "code 1001");
            assert!(peer.wait().expect("it ends").success());
        }
        assert_eq!(server.wait().expect("it ends").code(), Some(128 + 15));
    }
}
