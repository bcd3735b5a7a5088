//! F18: a callback that fails, by an `Err` or a panic, ends its own connection and nothing else.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ListenError;
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::{Address, ConnectOptions, Failure, ListenOptions, Reactor, Result, Transport};

/// The callback in which a protocol fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Made,
    Data,
    ReadLost,
    /// After the peer's end: with this direction the connection is over.
    WriteLost,
    /// Before the peer's end.
    WriteLostFirst,
    Lost,
    Drop,
    /// In `connection_lost`, and once more when it is dropped.
    LostAndDrop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Error,
    Panic,
}

impl How {
    fn fail(self) -> Result<()> {
        match self {
            Self::Error => Err(Failure::message("on purpose")),
            Self::Panic => panic!("on purpose"),
        }
    }

    fn is_reason(self, reason: &Failure) -> bool {
        match self {
            Self::Error => reason.to_string() == "on purpose",
            Self::Panic => reason.check::<Panicked>().is_some_and(|panic| panic.message == "on purpose"),
        }
    }
}

/// Fails in one place; elsewhere it ends its side when the peer has ended its own.
struct Failing {
    place: Place,
    how: How,
    log: Log,
    reason: Rc<RefCell<Option<Failure>>>,
}

impl Failing {
    fn at(&self, place: Place, what: &str) -> Result<()> {
        self.log.add(what);
        if self.place == place { self.how.fail() } else { Ok(()) }
    }
}

impl Protocol for Failing {
    fn half_close(&self) -> bool {
        true
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(b"hello");
        self.at(Place::Made, "made")
    }

    fn data_received(&mut self, transport: &Transport, _: &[u8]) -> Result<()> {
        if self.place == Place::WriteLostFirst {
            transport.lose_write_connection();
        }
        self.at(Place::Data, "data")
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        transport.lose_write_connection();
        self.at(Place::ReadLost, "read lost")
    }

    fn write_connection_lost(&mut self, _: &Transport) -> Result<()> {
        self.log.add("write lost");
        if matches!(self.place, Place::WriteLost | Place::WriteLostFirst) { self.how.fail() } else { Ok(()) }
    }

    fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
        self.log.add("lost");
        self.reason.replace(Some(reason.clone()));
        if matches!(self.place, Place::Lost | Place::LostAndDrop) {
            panic!("on purpose");
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.log.add("dropped");
        if matches!(self.place, Place::Drop | Place::LostAndDrop) {
            panic!("on purpose");
        }
    }
}

/// A reactor with a connection that goes on echoing whatever happens to others.
struct Others {
    reactor: Reactor,
    client: [Client; 1],
    watched: usize,
}

impl Others {
    fn begin() -> Self {
        let reactor = reactor();
        let (_port, address) = listen(&reactor, |_| Some(Echo));
        let mut client = [Client::connect(&reactor, address)];
        echo_round(&reactor, &mut client, b"before");
        let watched = reactor.counters().watched;
        Self { reactor, client, watched }
    }

    /// Nothing is left of what failed, and the others are well.
    #[track_caller]
    fn are_well(&mut self) {
        let (reactor, watched) = (&self.reactor, self.watched);
        run_until(reactor, || reactor.counters().watched == watched);
        settle(reactor);
        echo_round(reactor, &mut self.client, b"after");
    }
}

/// A protocol that fails in any of its callbacks, by an `Err` or a panic, ends its own connection
/// with that as the reason, is lost and dropped once, and another connection goes on.
#[test]
fn a_failing_protocol_ends_its_own_connection_only() {
    let all: &[&str] = &["made", "data", "read lost", "write lost", "lost", "dropped"];
    let cases: [(Place, &[How], &[&str]); 9] = [
        (Place::Nowhere, &[How::Error], all),
        (Place::Made, &[How::Error, How::Panic], &["made", "lost", "dropped"]),
        (Place::Data, &[How::Error, How::Panic], &["made", "data", "lost", "dropped"]),
        (Place::ReadLost, &[How::Error, How::Panic], &["made", "data", "read lost", "lost", "dropped"]),
        (Place::WriteLost, &[How::Error, How::Panic], all),
        (Place::WriteLostFirst, &[How::Error, How::Panic], &["made", "data", "write lost", "lost", "dropped"]),
        (Place::Lost, &[How::Panic], all),
        (Place::Drop, &[How::Panic], all),
        (Place::LostAndDrop, &[How::Panic], all),
    ];
    for (place, ways, expected) in cases {
        for &how in ways {
            for client in [false, true] {
                fails_alone(place, how, client, expected);
            }
        }
    }
}

fn fails_alone(place: Place, how: How, as_client: bool, expected: &[&str]) {
    let case = format!("{place:?}, {how:?}, as a client: {as_client}");
    let (mut others, log, reason) = (Others::begin(), Log::default(), Rc::new(RefCell::new(None)));
    let failing = Failing { place, how, log: log.clone(), reason: Rc::clone(&reason) };
    let mut failing = Some(failing);
    let factory = move |_| failing.take();
    let outcome = Rc::new(RefCell::new(None));
    let act = move |mut stream: TcpStream| {
        stream.write_all(b"x").unwrap();
        if place != Place::WriteLostFirst {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        // Until the other end has gone, in whatever way.
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    };
    let peer = if as_client {
        let (address, peer) = listening_peer(act);
        let result = Rc::clone(&outcome);
        drop(connect(&others.reactor, address, factory).add_both(move |made| {
            result.replace(Some(made.map(drop)));
        }));
        peer
    } else {
        let (port, address) = listen(&others.reactor, factory);
        let peer = peer(address, act);
        run_until(&others.reactor, || log.has("made"));
        drop(port.stop_listening());
        peer
    };
    run_until(&others.reactor, || log.has("dropped"));
    run_beside(&others.reactor, peer);
    others.are_well();
    assert_eq!(log.all(), expected, "{case}");
    let reason = reason.take().unwrap();
    if matches!(place, Place::Nowhere | Place::Lost | Place::Drop | Place::LostAndDrop) {
        assert_eq!(reason.to_string(), "the connection was closed cleanly", "{case}");
    } else {
        assert!(how.is_reason(&reason), "{case}: {reason}");
    }
    if as_client {
        // The Deferred of the connection fails with a failed `connection_made`, and with nothing
        // later.
        match outcome.take().expect("the attempt is over") {
            Ok(()) => assert!(place != Place::Made, "{case}"),
            Err(failure) => assert!(place == Place::Made && how.is_reason(&failure), "{case}: {failure}"),
        }
    }
}

/// A factory that panics in one of its calls.
struct FailingFactory {
    call: &'static str,
    log: Log,
}

impl FailingFactory {
    fn at(&self, call: &str) {
        self.log.add(call);
        assert!(call != self.call, "on purpose");
    }
}

impl Factory for FailingFactory {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Address) -> Option<Echo> {
        self.at("build");
        Some(Echo)
    }

    fn do_start(&mut self) {
        self.at("start");
    }

    fn do_stop(&mut self) {
        self.at("stop");
    }
}

/// A server's factory that panics when it builds refuses that connection, when it starts keeps the
/// port from listening, and when it stops fails the Deferred of the port that stops; no protocol is
/// ever made or lost by it, and others go on.
#[test]
fn a_failing_factory_harms_nobody_else() {
    for call in ["start", "build", "stop"] {
        let (mut others, log) = (Others::begin(), Log::default());
        let factory = FailingFactory { call, log: log.clone() };
        let listening = others.reactor.listen_tcp(loopback(), &ListenOptions::new(), factory);
        let port = match (call, listening) {
            ("start", Err(ListenError::Factory(Panicked { message, .. }))) => {
                assert_eq!(message, "on purpose");
                others.are_well();
                assert_eq!(log.all(), ["start"]);
                continue;
            }
            (_, listening) => listening.expect("it listens"),
        };
        let address = port.host().socket_addr().unwrap();
        for _ in 0..2 {
            let answers = run_beside(&others.reactor, peer(address, echoes_once));
            assert_eq!(answers, call != "build", "{call}");
        }
        let mut stopped = port.stop_listening();
        run_until(&others.reactor, || stopped.is_called());
        let failure = stopped.take_result().unwrap().err();
        let panic = failure.as_ref().and_then(|failure| failure.check::<Panicked>());
        assert_eq!(panic.map(|panic| &*panic.message), (call == "stop").then_some("on purpose"), "{call}");
        assert!(!port.is_listening());
        others.are_well();
        assert_eq!(log.all(), ["start", "build", "build", "stop"], "{call}");
    }
}

/// Returns `true` if one message comes back.
fn echoes_once(mut stream: TcpStream) -> bool {
    // Refused, it may be closed before or after this.
    let sent = stream.write_all(b"x").is_ok();
    let came = std::io::Read::read(&mut stream, &mut [0; 8]).is_ok_and(|count| count == 1);
    sent && came
}

/// A client's factory that panics fails the Deferred of its own attempt, where a callback waits for
/// it. Other attempts go on.
#[test]
fn a_failing_client_factory_fails_its_own_attempt() {
    for (call, expected) in
        [("start", &["start"][..]), ("build", &["start", "build", "stop"]), ("stop", &["start", "build", "stop"])]
    {
        let (mut others, log, outcome) = (Others::begin(), Log::default(), Rc::new(RefCell::new(None)));
        let (address, peer) = listening_peer(drop::<TcpStream>);
        let factory = FailingFactory { call, log: log.clone() };
        let result = Rc::clone(&outcome);
        let attempt = others.reactor.connect_tcp(address, &ConnectOptions::new(), factory);
        drop(attempt.add_both(move |made| {
            result.replace(Some(made.map(drop)));
        }));
        if call == "start" {
            // No callback was called: the peer would wait for ever.
            drop(TcpStream::connect(address).unwrap());
        }
        run_beside(&others.reactor, peer);
        run_until(&others.reactor, || outcome.borrow().is_some() && log.count("") == expected.len());
        others.are_well();
        assert_eq!(log.all(), expected, "{call}");
        match outcome.take().unwrap() {
            Ok(()) => assert_eq!(call, "stop"),
            Err(failure) => assert!(call != "stop" && How::Panic.is_reason(&failure), "{call}: {failure}"),
        }
    }
}

/// A timer, a call from a thread, and a callback of a Deferred that panic keep neither their own
/// kind nor any connection from going on.
#[test]
fn failing_calls_harm_nobody_else() {
    let mut others = Others::begin();
    let reactor = others.reactor.clone();
    for kind in ["timer", "thread", "deferred"] {
        let log = Log::default();
        match kind {
            "timer" => {
                for panics in [true, false] {
                    let log = log.clone();
                    reactor.call_later(Duration::ZERO, move || {
                        log.add("called");
                        assert!(!panics, "on purpose");
                    });
                }
            }
            "thread" => {
                let remote = reactor.remote();
                let (say, said) = std::sync::mpsc::channel();
                let thread = std::thread::spawn(move || {
                    for panics in [true, false] {
                        let say = say.clone();
                        let call = move |_: &Reactor| {
                            say.send(()).unwrap();
                            assert!(!panics, "on purpose");
                        };
                        remote.call_from_thread(call).unwrap();
                    }
                });
                run_beside(&reactor, thread);
                settle(&reactor);
                said.try_iter().for_each(|()| log.add("called"));
            }
            _ => {
                let (promise, deferred) = ropewalk::deferred::Promise::<()>::new();
                let first = log.clone();
                let failing = deferred.add_callback(move |()| {
                    first.add("called");
                    How::Panic.fail()
                });
                let second = log.clone();
                drop(failing.add_both(move |result: Result<()>| {
                    assert!(How::Panic.is_reason(&result.unwrap_err()));
                    second.add("called");
                }));
                reactor.call_later(Duration::ZERO, move || promise.callback(()).unwrap());
            }
        }
        run_until(&reactor, || log.count("called") == 2);
        others.are_well();
        assert_eq!(log.count("called"), 2, "{kind}");
    }
}
