//! `top`: one view, a stream of views, and JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Server, assert_code, dial, path, ropewalk, run, text};

/// An echo server with a status socket, and one connection that has sent five bytes.
fn watched() -> (Server, std::net::TcpStream, String) {
    let socket = path("status.sock").display().to_string();
    let (server, address) = Server::on_a_port(&["echo", "--status", &socket]);
    let mut stream = dial(address);
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    (server, stream, socket)
}

#[test]
fn one_view_shows_the_connections() {
    let (_server, stream, socket) = watched();
    let output = run(&["top", "--once", &socket]);
    assert_code(&output, 0);
    let shown = text(&output.stdout);
    let peer = stream.local_addr().unwrap().to_string();
    let row = shown.lines().find(|line| line.contains(&peer)).unwrap_or_else(|| panic!("{shown}"));
    let cells: Vec<_> = row.split_whitespace().collect();
    // Age, two rates that are not known, five bytes each way, nothing queued.
    assert_eq!(cells[1..9], ["-", "-", "5", "B", "5", "B", "0", "B"], "{shown}");
    assert!(row.ends_with("Echo") && row.contains(" open "), "{shown}");
    assert!(shown.starts_with("reactor on ") && shown.contains("port 127.0.0.1:"), "{shown}");
}

#[test]
fn json_is_one_object_in_a_line() {
    let (_server, stream, socket) = watched();
    let output = run(&["top", "--once", "--json", &socket]);
    assert_code(&output, 0);
    let shown = text(&output.stdout);
    assert_eq!(shown.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let connections = json["connections"].as_array().expect("a list");
    let peer = stream.local_addr().unwrap().to_string();
    let shown = connections.iter().find(|shown| shown["peer"] == peer.as_str()).expect("the connection");
    assert_eq!((shown["received"].as_u64(), shown["written"].as_u64()), (Some(5), Some(5)));
    assert_eq!((json["format"].as_u64(), json["running"].as_bool()), (Some(1), Some(true)));
    assert!(shown["age"].as_f64().is_some() && shown["descriptor"].as_i64().is_some());
}

/// Without a terminal, one view follows the other, with rates from the second on.
#[test]
fn views_follow_one_another() {
    let (_server, _stream, socket) = watched();
    let mut child = ropewalk(&["top", "--interval", "0.1", &socket]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.by_ref().any(|line| line.starts_with("in -/s")), "the first view");
    assert!(lines.by_ref().any(|line| line.starts_with("in 0 B/s")), "a later view");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// The end of the watched program is the end of the view.
#[test]
fn the_end_of_the_program_ends_it() {
    let (server, _stream, socket) = watched();
    let child = ropewalk(&["top", "--interval", "0.1", &socket]).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    reader.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn no_socket_is_a_failure() {
    let output = run(&["top", "--once", "/nowhere/status.sock"]);
    assert_code(&output, 1);
    assert!(text(&output.stderr).starts_with("ropewalk: "));
    assert_code(&run(&["top", "--interval", "0", "/nowhere"]), 2);
}
