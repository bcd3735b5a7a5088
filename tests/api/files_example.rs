//! The example `files` and the same program on Twisted, run as a user would.

#[path = "../../examples/files.rs"]
#[allow(dead_code, reason = "its main is for real sockets")]
mod files;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use ropewalk::endpoints::server_from_string;
use ropewalk::for_protocol;
use ropewalk::interfaces::*;
use ropewalk::testing::MemoryReactor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::file_servers::{ENDPOINT, Folder};
use crate::common::programs::{has, run_program, said};
use crate::common::*;

/// Bound of the server's memory, whatever the size of the file: a download holds one piece of
/// 64 KiB. 9.5 MB were measured with a file of 500 MB, in a build without optimisation.
const MOST_MEMORY_KB: u64 = 16 * 1024;

/// Sends requests. Returns the answers.
fn ask(to: SocketAddr, requests: &[u8]) -> BufReader<TcpStream> {
    let mut stream = dial(to);
    stream.write_all(requests).unwrap();
    BufReader::new(stream)
}

#[track_caller]
fn expect_line(answers: &mut impl BufRead, expected: &str) {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), expected);
}

/// A file in two halves has the same SHA-256 as the whole, requests behind them are answered in
/// order, and the server's memory does not grow with the file.
#[test]
fn a_download_is_resumed() {
    own_process!();
    resume(64_000_003);
}

/// The same with 500 MB.
#[test]
#[ignore = "it takes some seconds; run: cargo test --test api five_hundred -- --ignored"]
fn a_download_of_five_hundred_megabytes_is_resumed() {
    own_process!();
    resume(500_000_003);
}

/// Resumes a download of so many bytes. The peer is a program in Python.
#[track_caller]
fn resume(bytes: u64) {
    if !has("python3") {
        return;
    }
    let folder = Folder::new("resume");
    folder.add_large("large", bytes);
    let (script, served) = (format!("{}/tests/api/resume.py", env!("CARGO_MANIFEST_DIR")), folder.path("served"));
    for server in folder.servers("files", &[ENDPOINT, "20"]) {
        let output = run_program(&["python3", &script, &server.address.port().to_string(), &served, "large"], b"");
        let output = output.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{bytes} bytes are the same\n"));
        let peak = server.program.peak_memory_kb();
        assert!(server.is_on_twisted || peak < MOST_MEMORY_KB, "{peak} kB");
        let errors = server.end();
        assert!(errors.contains("a download"), "the first connection was lost in the middle: {errors}");
    }
}

/// Names that are not those of files in the folder, and lines that are no requests, get a line, and
/// the connection goes on. A line without an end closes it.
#[test]
fn other_files_are_refused() {
    own_process!();
    let folder = Folder::new("refused");
    for server in folder.servers("files", &[ENDPOINT, "20"]) {
        let secret = folder.path("secret");
        let names = [
            "../secret",
            "sub/../../secret",
            &secret,
            "outside",
            "absent",
            "fifo",
            "sub",
            ".",
            "",
            "a\0b",
            "/etc/passwd",
        ];
        let mut answers = ask(server.address, b"");
        for name in names {
            answers.get_mut().write_all(format!("GET 0 {name}\n").as_bytes()).unwrap();
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert!(line.starts_with("ERROR "), "{name:?}: {line}");
        }
        answers
            .get_mut()
            .write_all(
                b"GET 0\nget 0 small\nGET -1 small\n\xff\nGET 7 small\nGET 6 small\nGET 0 inside\r\nGET 0 a file.txt\n",
            )
            .unwrap();
        for _ in 0..5 {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert!(line.starts_with("ERROR "), "{line}");
        }
        for expected in ["OK 0", "OK 5", "page", "OK 7", "spaces"] {
            expect_line(&mut answers, expected);
        }
        // The system may report the dropped bytes as a reset.
        let mut rest = Vec::new();
        let end = ask(server.address, &[b'x'; 5000]).read_to_end(&mut rest);
        assert!(end.is_ok_and(|count| count == 0) || rest.is_empty());
        drop(answers);
        assert_eq!(server.end(), "");
    }
}

/// A peer that takes nothing of a file is reset after the limit. Others are served meanwhile.
#[test]
fn a_stalled_peer_is_cut_off() {
    own_process!();
    let folder = Folder::new("stalled");
    folder.add_large("large", 64 << 20);
    for server in folder.servers("files", &[ENDPOINT, "1"]) {
        let stalled = ask(server.address, b"GET 0 large\n");
        let mut other = ask(server.address, b"");
        let mut is_cut_off = false;
        let mut answered = 0;
        while !is_cut_off {
            other.get_mut().write_all(b"GET 0 small\n").unwrap();
            expect_line(&mut other, "OK 6");
            expect_line(&mut other, "small");
            answered += 1;
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            is_cut_off = poll(&mut [PollFd::new(stalled.get_ref(), PollFlags::empty())], Some(&wait)).unwrap() > 0;
            assert!(answered < 600, "it is still there");
        }
        assert!(answered > 1, "it was cut off at once");
        let errors = server.end();
        assert!(errors.contains("a download"), "{errors}");
    }
}

/// The limits of the description hold: an idle peer is closed, and further ones wait for a place.
#[test]
fn an_idle_peer_is_closed() {
    own_process!();
    let folder = Folder::new("idle");
    let server = folder.example("files", &[&format!("{ENDPOINT}:maxConnections=1:receiveTimeout=1"), "20"]);
    let mut idle = dial(server.address);
    let mut next = ask(server.address, b"GET 0 small\n");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    expect_line(&mut next, "OK 6");
    assert_eq!(server.end(), "");
}

/// The default description is one that the endpoints understand.
#[test]
fn the_default_endpoint_listens() {
    let memory = MemoryReactor::new();
    let port = server_from_string(memory.reactor(), files::DEFAULT_ENDPOINT).unwrap().listen(for_protocol(|_| Echo));
    port.or_log("listening");
    assert_eq!(memory.ports().iter().map(|port| port.port()).collect::<Vec<_>>(), [Some(7000)]);
}

/// SIGTERM closes the port and idle connections. A download ends first.
#[test]
fn a_download_outlives_sigterm() {
    own_process!();
    let folder = Folder::new("drained");
    folder.add_large("large", 64 << 20);
    for server in folder.servers("files", &[ENDPOINT, "20"]) {
        let mut idle = dial(server.address);
        let mut download = ask(server.address, b"GET 0 large\nGET 0 small\n");
        expect_line(&mut download, "OK 67108864");
        server.program.signal(Signal::TERM);
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        assert_eq!(TcpStream::connect(server.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let mut file = Vec::new();
        download.read_to_end(&mut file).unwrap();
        assert!(file == fs::read(folder.served().join("large")).unwrap(), "{} bytes", file.len());
        assert_eq!(server.ends(), "");
    }
}
