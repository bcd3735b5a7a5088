//! The drain: answers under way are finished, and further requests are not taken.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ropewalk::Reactor;
use ropewalk_interop::http::start;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::clients::*;

/// A slow download ends well while idle connections are closed and new ones are refused, over each
/// version.
#[test]
fn a_drain_finishes_requests() {
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        for (option, _, is_secure) in VERSIONS {
            let server = Server::new(reactor);
            let url = if is_secure { server.secure_url("/large") } else { server.url("/large") };
            let mut download = Download::start(option, &url);
            server.run_until(|| download.has_begun());
            let address = server.plain.host().socket_addr().unwrap();
            let mut idle = TcpStream::connect(address).unwrap();
            server.run_until(|| server.http.open_connections() == 2);

            let mut drained = server.http.drain(LIMIT);
            server.run_until(|| server.http.open_connections() == 1);
            idle.set_read_timeout(Some(LIMIT)).unwrap();
            assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
            // On io_uring, the system closes the port a little later.
            server.run_until(|| TcpStream::connect(address).is_err());

            let whole = download.go_on();
            server.run_until(|| drained.is_called() && whole.is_finished());
            assert_eq!(drained.take_result().unwrap().unwrap(), 0, "{option}");
            assert!(whole.join().unwrap() == large(), "{option}");
            server.end_well();
        }
    });
}

/// A client that takes nothing is aborted at the deadline.
#[test]
fn a_drain_ends_at_its_deadline() {
    on_each(|reactor| {
        let server = Server::new(reactor);
        let mut client = TcpStream::connect(server.plain.host().socket_addr().unwrap()).unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client.set_nonblocking(true).unwrap();
        server.run_until(|| client.read(&mut [0; 1]).is_ok());
        let mut drained = server.http.drain(Duration::from_millis(50));
        server.run_until(|| drained.is_called());
        assert_eq!(drained.take_result().unwrap().unwrap(), 1);
        assert_eq!(server.http.open_connections(), 0);
    });
}

/// The program itself: SIGTERM ends it once the answer that is under way was sent to its end.
#[test]
fn a_signal_ends_the_program_in_good_order() {
    if !has("curl") {
        return;
    }
    for (backend, option) in [("mio", "--http1.1"), ("io_uring", "--http2-prior-knowledge")] {
        let site = Site::new();
        let mut program = Command::new("timeout");
        program.arg("60").arg(std::env::current_exe().unwrap());
        program.args(["--exact", "draining::the_program", "--ignored", "--nocapture"]);
        program.env("ROPEWALK_BACKEND", backend).env(ROOT, site.at("served"));
        let mut program = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
        let listening = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned())).unwrap();
        let mut download = Download::start(option, &format!("http://{listening}/large"));
        download.await_begin();

        kill_process(Pid::from_child(&program), Signal::TERM).unwrap();
        assert_eq!(lines.next().as_deref(), Some("stopping: 1 connections are open"));
        let body = download.go_on().join().unwrap();
        assert!(body == large(), "{option}: {} bytes", body.len());
        assert_eq!(lines.next().as_deref(), Some("stopped: 0 were aborted"));
        lines.for_each(drop);
        assert!(program.wait().unwrap().success());
    }
}

/// A download by curl into a pipe that is not read until the test says so.
struct Download {
    curl: Child,
    pipe: ChildStdout,
    begin: Vec<u8>,
}

impl Download {
    fn start(option: &str, url: &str) -> Self {
        let mut curl = spawn(curl().args([option, "--no-buffer", url]));
        Self { pipe: curl.stdout.take().unwrap(), curl, begin: Vec::new() }
    }

    /// Returns `true` once the first byte is there.
    fn has_begun(&mut self) -> bool {
        let mut asked = [PollFd::new(&self.pipe, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&now)).unwrap() > 0 && self.read_one()
    }

    fn await_begin(&mut self) {
        assert!(self.read_one(), "it ended");
    }

    fn read_one(&mut self) -> bool {
        let mut byte = [0];
        let count = self.pipe.read(&mut byte).unwrap();
        self.begin.extend(&byte[..count]);
        count > 0
    }

    /// Reads the rest in a thread, which returns the whole body.
    fn go_on(mut self) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut body = self.begin;
            self.pipe.read_to_end(&mut body).unwrap();
            let output = self.curl.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            body
        })
    }
}

const ROOT: &str = "ROPEWALK_TEST_HTTP_ROOT";

/// The program, for the test above.
#[test]
#[ignore = "a process of the test above"]
fn the_program() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let arguments = [root.into_string().unwrap(), "tcp:0:interface=127.0.0.1".to_owned()];
    let reactor = Reactor::new().unwrap();
    let starting = reactor.clone();
    reactor.call_when_running(move || start(&starting, &arguments).expect("it starts").or_log("the program"));
    reactor.run().unwrap();
    reactor.close().unwrap();
}
