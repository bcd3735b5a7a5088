//! Programs that are replaced by a new process without a lost connection, and handovers that fail.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Termination};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::generations::{Askers, Ends, Letter, ROLE, child, role};
use crate::common::process::own_process;
use crate::common::*;
use ropewalk::application::{
    HandoverError, MultiService, Service, StreamServerEndpointService, TakenPorts, hand_over_ports, run_service,
    take_over_ports,
};
use ropewalk::deferred::Cancelled;
use ropewalk::endpoints::{AdoptedStreamServerEndpoint, server_from_string};
use ropewalk::reactor::{AdoptOptions, InheritedDescriptor, UnixListenOptions};
use ropewalk::testing::{assert_no_result, failure_result_of, success_result_of};
use ropewalk::{Deferred, ListenOptions, Reactor, Result, for_protocol};

/// The answers of the programs, one after the other.
const LETTERS: &[u8] = b"abcd";

/// Connections over all restarts, at least.
const CONNECTIONS: usize = 10_000;

/// A program of services is restarted three times under load. Each new process takes the listening
/// socket over from the one before, which drains and ends with status 0. No connection is refused,
/// reset or left without its answer, and every process has served some.
#[test]
fn restarts_lose_no_connection() {
    if let Some(letter) = role() {
        return generation(letter.as_bytes()[0]);
    }
    own_process!();
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    // The first program gets its socket as from a service manager, the others from their
    // predecessors, over one end of a socket pair each.
    let mut source = OwnedFd::from(listener);
    let mut old: Option<Ends> = None;
    let askers = Askers::start(address, LETTERS, usize::MAX);
    for &letter in LETTERS {
        let (to_next, from_this) = UnixStream::pair().unwrap();
        let new = start(letter, source, to_next.into());
        source = from_this.into();
        wait(|| askers.count(letter) > CONNECTIONS / 5);
        if let Some(old) = old.replace(new) {
            old.well(|| ());
        }
    }
    wait(|| askers.total() >= CONNECTIONS);
    askers.stop();
    let counts = askers.end();
    println!("answers of the processes: {counts:?}");
    // The last program finds that no successor comes.
    drop(source);
    old.expect("the last program").well(|| ());
}

/// Starts a program that answers with this letter. A shell puts the sockets where a service manager
/// would: the one that the program takes its port from, and the one that it hands it over on.
fn start(letter: u8, source: OwnedFd, successor: OwnedFd) -> Ends {
    let name = char::from(letter).to_string();
    let this = child("restarts::restarts_lose_no_connection", &name);
    let script = r#"exec 3<&0 4<&1 </dev/null >&2; exec "$@""#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]).arg(this.get_program()).args(this.get_args()).env(ROLE, &name);
    Ends(shell.stdin(source).stdout(successor).spawn().unwrap())
}

#[track_caller]
fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::yield_now();
    }
}

/// The program: one port, whose connections have ten seconds for their answers when it stops.
fn generation(letter: u8) {
    let code = ropewalk::run(move |reactor| {
        let source = InheritedDescriptor::Number(3).take()?;
        let successor = InheritedDescriptor::Number(4).take()?;
        if letter == LETTERS[0] {
            let web = web(reactor, letter, source);
            let stopped = run_service(reactor, web.clone());
            offer(reactor, &web, successor);
            return Ok(stopped);
        }
        let reactor = reactor.clone();
        Ok(take_over_ports(&reactor, source).add_callback(move |mut ports| {
            let socket = ports.take("web").expect("the predecessor has such a port");
            let web = web(&reactor, letter, socket);
            let stopped = run_service(&reactor, ports.ready_after(web.clone()));
            offer(&reactor, &web, successor);
            stopped
        }))
    });
    assert_eq!(format!("{:?}", code.report()), format!("{:?}", ExitCode::SUCCESS));
}

fn web(reactor: &Reactor, letter: u8, socket: OwnedFd) -> StreamServerEndpointService<Letter> {
    let endpoint = AdoptedStreamServerEndpoint::new(reactor, socket);
    let served = Rc::new(Cell::new(0));
    let factory = for_protocol(move |_| Letter(letter, Rc::clone(&served)));
    // A connection ends with its answer, and the drain waits for that.
    StreamServerEndpointService::new(endpoint, factory).drain_with(reactor, Duration::from_secs(10), |_| ())
}

/// Offers the port to a successor, and stops once that is ready, or will never come.
fn offer(reactor: &Reactor, web: &StreamServerEndpointService<Letter>, successor: OwnedFd) {
    let stopping = reactor.clone();
    let handed = hand_over_ports(reactor, successor, [("web", web.port().expect("it listens"))]);
    let stopped = handed.add_both(move |result| {
        if let Err(failure) = &result {
            assert!(matches!(failure.check(), Some(HandoverError::Ended { .. })), "{failure}");
        }
        Ok(stopping.stop()?)
    });
    stopped.or_log("handing the port over");
}

/// Both sides of a handover on one reactor, without ports unless a test adds some.
struct Pair {
    reactor: Reactor,
    web: ropewalk::Port,
}

impl Pair {
    fn new() -> Self {
        let reactor = reactor();
        let web = reactor.listen_tcp(loopback(), &ListenOptions::new(), |_| Some(Echo)).unwrap();
        Self { reactor, web }
    }

    /// Hands the port over. Returns the result, and the other end of the socket pair.
    fn hand_over(&self) -> (Deferred<()>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (hand_over_ports(&self.reactor, ours, [("web", self.web.clone())]), theirs)
    }

    fn take_over(&self, control: UnixStream) -> TakenPorts {
        result_of(&self.reactor, take_over_ports(&self.reactor, control)).unwrap()
    }

    fn failure(&self, handed: Deferred<()>) -> String {
        result_of(&self.reactor, handed).unwrap_err().to_string()
    }
}

/// Several ports keep their names and their order, and each is a socket of the same address. The
/// file of a UNIX socket is the new process's to remove.
#[test]
fn ports_keep_their_names() {
    let pair = Pair::new();
    let name = std::env::temp_dir().join(format!("ropewalk-restart-{}.sock", std::process::id()));
    let address = ropewalk::address::UnixAddress::path(&name).unwrap();
    let unix = pair.reactor.listen_unix(&address, &UnixListenOptions::new(), |_| Some(Echo)).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ports = [("web", pair.web.clone()), ("admin", unix.clone()), ("web", pair.web.clone())];
    let mut handed = hand_over_ports(&pair.reactor, ours, ports);
    let mut taken = pair.take_over(theirs);
    assert_eq!(taken.names().collect::<Vec<_>>(), ["web", "admin", "web"]);
    assert!(taken.take("mail").is_none());
    let [admin, web] = ["admin", "web"].map(|name| taken.take(name).unwrap());
    assert_eq!(taken.names().collect::<Vec<_>>(), ["web"]);
    let options = AdoptOptions::new().remove_file(true);
    let admin = pair.reactor.adopt_stream_port(admin, &options, |_| Some(Echo)).unwrap();
    let web = pair.reactor.adopt_stream_port(web, &options, |_| Some(Echo)).unwrap();
    assert_eq!((admin.host(), web.host()), (unix.host(), pair.web.host()));
    assert_no_result(&mut handed);
    taken.ready();
    result_of(&pair.reactor, handed).unwrap();
    result_of(&pair.reactor, unix.stop_listening()).unwrap();
    assert!(name.exists(), "the old port has left its file");
    result_of(&pair.reactor, admin.stop_listening()).unwrap();
    assert!(!name.exists(), "the new port has removed it");
}

/// A successor that ends without being ready leaves the port to the old process, which can hand it
/// over to another one.
#[test]
fn a_failed_successor_changes_nothing() {
    let pair = Pair::new();
    let (handed, theirs) = pair.hand_over();
    drop(theirs);
    let failure = pair.failure(handed);
    assert!(failure.starts_with("the other process has ended before the ports were handed over: "), "{failure}");
    let (handed, theirs) = pair.hand_over();
    drop(pair.take_over(theirs));
    assert!(pair.failure(handed).starts_with("the other process has ended"));
    let (handed, theirs) = pair.hand_over();
    // A service that fails to start is not ready.
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    let description = format!("tcp:{}:interface=127.0.0.1", taken.local_addr().unwrap().port());
    let endpoint = server_from_string(&pair.reactor, &description).unwrap();
    let service = StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo));
    let service = pair.take_over(theirs).ready_after(service);
    failure_result_of(&mut service.start_service());
    assert!(pair.failure(handed).starts_with("the other process has ended"));
    let (handed, theirs) = pair.hand_over();
    let service = pair.take_over(theirs).ready_after(MultiService::new());
    success_result_of(&mut service.start_service());
    result_of(&pair.reactor, handed).unwrap();
    assert!(pair.web.is_listening());
}

/// A peer that speaks something else, and a name that cannot be sent, are failures.
#[test]
fn wrong_peers_and_names_are_refused() {
    let pair = Pair::new();
    let (handed, mut theirs) = pair.hand_over();
    theirs.write_all(b"GET / HTTP/1.0").unwrap();
    assert_eq!(pair.failure(handed), "the other process does not speak the protocol of a handover");
    for wrong in [&b"name without a socket\n\n"[..], b"\xff\n\n", &[b'x'; 20_000]] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(wrong).unwrap();
        let taking = take_over_ports(&pair.reactor, ours);
        let failure = result_of(&pair.reactor, taking).map(drop).unwrap_err();
        assert!(matches!(failure.check(), Some(HandoverError::Protocol)), "{failure}");
    }
    for name in ["", "two\nlines"] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut handed = hand_over_ports(&pair.reactor, ours, [(name, pair.web.clone())]);
        let failure = failure_result_of(&mut handed);
        assert!(matches!(failure.check(), Some(HandoverError::Name { .. })), "{failure}");
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    failure_result_of(&mut hand_over_ports(&pair.reactor, file, [("web", pair.web.clone())]));
}

/// A cancelled handover closes its connection, on either side.
#[test]
fn a_cancelled_handover_ends() {
    let pair = Pair::new();
    let (mut handed, mut theirs) = pair.hand_over();
    settle(&pair.reactor);
    handed.cancel();
    assert!(failure_result_of(&mut handed).check::<Cancelled>().is_some());
    run_until(&pair.reactor, || ended(&mut theirs));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut taking = take_over_ports(&pair.reactor, ours);
    settle(&pair.reactor);
    taking.cancel();
    assert!(failure_result_of(&mut taking).check::<Cancelled>().is_some());
    run_until(&pair.reactor, || ended(&mut theirs));
}

/// Reads what is there. True at the end.
fn ended(stream: &mut UnixStream) -> bool {
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A service that is stopped before its start tells the old process that it will not serve.
#[test]
fn a_stopped_successor_is_not_ready() {
    let pair = Pair::new();
    let (handed, theirs) = pair.hand_over();
    let service = pair.take_over(theirs).ready_after(MultiService::new());
    let stopped: Result<()> = result_of(&pair.reactor, service.stop_service());
    stopped.unwrap();
    assert!(pair.failure(handed).starts_with("the other process has ended"));
}
