//! Signals over real sockets: the first one drains a program of services, and the second one ends
//! it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::common::process::own_process;
use crate::common::{LIMIT, peer, run};
use ropewalk::application::{Service, StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::reactor::{SIGINT, SIGTERM};
use ropewalk::testing::success_result_of;
use ropewalk::{Reactor, Result, Transport, for_protocol};
use rustix::process::{Signal, getpid, kill_process};

/// Longer than the test.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Answers each message with itself, and closes after a message once it was told to finish.
#[derive(Default)]
struct Echo {
    is_last: bool,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        if self.is_last {
            transport.lose_connection();
        }
        Ok(())
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("our own process");
}

/// Runs a program with one connection, which `client` uses. `client` gets a receiver that hears
/// when the drain has begun. Returns the signal that ended the program.
fn run_program(client: impl FnOnce(TcpStream, mpsc::Receiver<()>) + Send + 'static) -> Option<i32> {
    let reactor = Reactor::new().unwrap();
    let (draining, drained) = mpsc::channel();
    let endpoint = server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap();
    let service = StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo::default()));
    let service = service.drain_with(&reactor, DEADLINE, move |connection| {
        connection.with(|echo, _| echo.is_last = true).unwrap();
        draining.send(()).unwrap();
    });
    let mut ended = run_service(&reactor, service.clone());
    let to = service.host().unwrap().socket_addr().unwrap();
    let client = peer(to, move |mut stream| {
        stream.write_all(b"one").unwrap();
        stream.read_exact(&mut [0; 3]).unwrap();
        client(stream, drained);
    });
    run(&reactor).unwrap();
    let signal = reactor.exit_signal();
    reactor.close().unwrap();
    client.join().unwrap();
    success_result_of(&mut ended);
    success_result_of(&mut service.stop_service());
    signal
}

/// After a signal the port is closed, and the open connection still gets its answer.
#[test]
fn a_signal_drains_the_program() {
    own_process!();
    let ended_by = run_program(|mut stream, drained| {
        signal(Signal::TERM);
        drained.recv_timeout(LIMIT).unwrap();
        let refused = TcpStream::connect(stream.peer_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        stream.write_all(b"two").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"two");
    });
    assert_eq!(ended_by, Some(SIGTERM));
}

/// A second signal does not wait for the connections.
#[test]
fn a_second_signal_ends_the_program() {
    own_process!();
    let ended_by = run_program(|mut stream, drained| {
        signal(Signal::TERM);
        drained.recv_timeout(LIMIT).unwrap();
        signal(Signal::INT);
        let mut rest = Vec::new();
        // The end may be a reset.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    });
    assert!(matches!(ended_by, Some(SIGTERM | SIGINT)), "{ended_by:?}");
}
