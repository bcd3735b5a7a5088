//! `connect`: standard input and output of each kind, and each way to end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::programs::{Listening, has};
use crate::common::{ROPEWALK, Server, assert_code, path, ropewalk, run, shell, text};

/// In a pipeline, the end of the input is the end of the connection's write direction.
#[test]
fn a_pipeline_passes_through_a_connection() {
    let (_server, address) = Server::on_a_port(&["echo"]);
    let to = format!("tcp:127.0.0.1:{}", address.port());
    let output = shell(&format!("printf 'hello\\nworld\\n' | {ROPEWALK} connect {to} | tr a-z A-Z"));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "HELLO\nWORLD\n");
}

/// The server is socat, in front of a program that answers at the end of its input. The pipeline
/// has all of the answer, short or long.
#[test]
fn socat_answers_a_pipeline() {
    if !has("socat") {
        return;
    }
    let serve = |program: &str| {
        let line = format!("exec socat -d -d -t 20 TCP-LISTEN:0,bind=127.0.0.1,fork EXEC:'{program}' 2>&1");
        Listening::start(&["bash", "-c", &line], "listening on")
    };
    let reversed = serve("sort -r");
    let output = shell(&format!("printf 'one\\ntwo\\n' | {ROPEWALK} connect tcp:{} | tr a-z A-Z", reversed.address));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "TWO\nONE\n");
    let echo = serve("cat");
    let lines = "seq 300000";
    let output = shell(&format!("cmp <({lines}) <({lines} | {ROPEWALK} connect tcp:{})", echo.address));
    assert_code(&output, 0);
    let output = shell(&format!("{lines} | {ROPEWALK} connect tcp:{} | tail -n 1", echo.address));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "300000\n");
}

/// The poller refuses regular files, and they are read and written all the same.
#[test]
fn regular_files_and_devices_are_read_and_written() {
    let (_server, address) = Server::on_a_port(&["echo"]);
    let (request, answer) = (path("request"), path("answer"));
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|index| (index % 241) as u8).collect();
    fs::write(&request, &bytes).unwrap();
    let to = format!("tcp:127.0.0.1:{}", address.port());
    let output = shell(&format!("{ROPEWALK} connect {to} < {} > {}", request.display(), answer.display()));
    assert_code(&output, 0);
    assert!(fs::read(&answer).unwrap() == bytes, "the answer is another one");
    fs::remove_file(request).unwrap();
    fs::remove_file(answer).unwrap();
    assert_code(&shell(&format!("{ROPEWALK} connect {to} < /dev/null > /dev/null")), 0);
}

/// A reader that has enough ends the command, although the server has no end.
#[test]
fn a_closed_output_ends_it_well() {
    let (_server, address) = Server::on_a_port(&["chargen"]);
    let to = format!("tcp:127.0.0.1:{}", address.port());
    let pipeline = format!("yes | {ROPEWALK} connect {to} | head -c 100000 | wc -c; echo ${{PIPESTATUS[1]}}");
    let output = shell(&pipeline);
    assert_eq!(text(&output.stdout), "100000\n0\n", "{}", text(&output.stderr));
}

/// All bytes arrive at a slow reader, in order.
#[test]
fn a_slow_reader_gets_every_byte() {
    let (_server, address) = Server::on_a_port(&["chargen"]);
    let mut child = ropewalk(&["connect", &format!("tcp:127.0.0.1:{}", address.port())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = vec![0; 74 * 95];
    stdout.read_exact(&mut first).unwrap();
    for round in 0..300 {
        let mut next = vec![0; 74 * 95];
        for piece in next.chunks_mut(997) {
            stdout.read_exact(piece).unwrap();
        }
        assert!(next == first, "round {round}");
    }
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The peer's end closes the connection, although the input has none.
#[test]
fn the_peers_end_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"bye").unwrap();
        request
    });
    let mut child = ropewalk(&["connect", &to]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"over").unwrap();
    assert_eq!(&peer.join().unwrap(), b"over");
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "bye".to_owned()));
}

#[test]
fn a_refused_connection_is_a_failure() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&["connect", &format!("tcp:{address}")]);
    assert_code(&output, 1);
    assert!(text(&output.stderr).starts_with("ropewalk: "));
    let wrong = run(&["connect", "tcp:localhost:http"]);
    assert_code(&wrong, 2);
    assert!(text(&wrong.stderr).starts_with("tcp:localhost:http\n              ^^^^\n"), "{}", text(&wrong.stderr));
}

/// A connection that is reset is a failure, and an event of the log.
#[test]
fn a_reset_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Bytes that are not read make the close a reset.
        stream.read_exact(&mut [0]).unwrap();
    });
    let arguments = ["--log", "debug", "--log-format", "json", "connect", &to];
    let mut child = ropewalk(&arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"more than is read").unwrap();
    peer.join().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 1);
    drop(stdin);
    let said = text(&output.stderr);
    let mut events = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    assert!(events.any(|event| event["fields"]["message"] == "a connection was lost"), "{said}");
}

/// A signal ends it with the exit code that shells have for it.
#[test]
fn a_signal_ends_it() {
    let (_server, address) = Server::on_a_port(&["chargen"]);
    let mut child = ropewalk(&["connect", &format!("tcp:127.0.0.1:{}", address.port())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
