//! F19: requests made inside callbacks, all of them inside all of them, and random sequences of requests and of what peers do.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::Unavailable;
use ropewalk::interfaces::*;
use ropewalk::{Address, Connection, Failure, Reactor, Result, Transport};

/// When a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Made,
    /// In a callback of the Deferred that `connect_tcp` gave.
    Connected,
    /// In the turn after `connection_made`.
    Timer,
    Data,
    /// In a callback of a Deferred that fires inside `data_received`.
    DeferredInData,
    ReadLost,
    WriteLost,
    Lost,
}

const MOMENTS: [Moment; 8] = [
    Moment::Made,
    Moment::Connected,
    Moment::Timer,
    Moment::Data,
    Moment::DeferredInData,
    Moment::ReadLost,
    Moment::WriteLost,
    Moment::Lost,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Write,
    WriteSequence,
    Lose,
    Abort,
    LoseWrite,
    Pause,
    Resume,
    SetCloseTimeout,
    Stop,
    WithItself,
    WithAnother,
}

const REQUESTS: [Request; 11] = [
    Request::Write,
    Request::WriteSequence,
    Request::Lose,
    Request::Abort,
    Request::LoseWrite,
    Request::Pause,
    Request::Resume,
    Request::SetCloseTimeout,
    Request::Stop,
    Request::WithItself,
    Request::WithAnother,
];

/// What is written by a request: some of it is queued, some is offered to the socket at once.
const SMALL: &[u8] = b"a few bytes";
const LARGE: &[u8] = &[b'L'; 20_000];

/// One cell of the table: what it does, and what happened.
struct Case {
    moment: Moment,
    request: Request,
    reactor: Reactor,
    log: Log,
    reason: RefCell<Option<Failure>>,
    transport: RefCell<Option<Transport>>,
    itself: RefCell<Option<Connection<Member>>>,
    another: Connection<Counter>,
    performed: Cell<usize>,
}

impl Case {
    /// Makes the request if its moment has come.
    fn at(&self, moment: Moment, transport: &Transport) {
        if moment != self.moment {
            return;
        }
        match self.request {
            Request::Write => {
                transport.write(SMALL);
                transport.write(LARGE);
            }
            Request::WriteSequence => transport.write_sequence([SMALL, LARGE]),
            Request::Lose => transport.lose_connection(),
            Request::Abort => transport.abort_connection(),
            Request::LoseWrite => transport.lose_write_connection(),
            Request::Pause => transport.pause_producing(),
            Request::Resume => transport.resume_producing(),
            Request::SetCloseTimeout => transport.set_close_timeout(Some(LIMIT)),
            Request::Stop => self.reactor.stop().expect("it runs"),
            Request::WithItself => self.reach_itself(),
            Request::WithAnother => {
                let reached = self.another.with(|counter, transport| {
                    transport.write(b"ping");
                    counter.asked += 1;
                });
                assert_eq!(reached, Ok(()));
            }
        }
        self.performed.set(self.performed.get() + 1);
    }

    fn reach_itself(&self) {
        let itself = self.itself.borrow().clone();
        let reached = itself.map(|itself| itself.with(|_, transport| transport.write(b"")));
        let expected = match self.moment {
            // Nobody has the handle yet.
            Moment::Made => None,
            Moment::Connected | Moment::Timer => Some(Ok(())),
            Moment::Data | Moment::DeferredInData | Moment::ReadLost | Moment::WriteLost => {
                Some(Err(Unavailable::Busy))
            }
            Moment::Lost => Some(Err(Unavailable::Gone)),
        };
        assert_eq!(reached, expected);
    }

    /// Where the peer's answer must hold what was written.
    fn is_sent(&self) -> bool {
        matches!(self.request, Request::Write | Request::WriteSequence)
            && !matches!(self.moment, Moment::WriteLost | Moment::Lost)
    }

    fn expected_reason(&self) -> &'static str {
        match self.request {
            Request::Abort if self.moment != Moment::Lost => "the connection was aborted",
            Request::Stop if self.moment != Moment::Lost => "the reactor stopped",
            _ => "the connection was closed cleanly",
        }
    }
}

/// The protocol that requests are made of and in.
struct Member(Rc<Case>);

impl Protocol for Member {
    fn half_close(&self) -> bool {
        true
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let cell = &self.0;
        cell.log.add("made");
        cell.transport.replace(Some(transport.clone()));
        let (later, timed) = (Rc::clone(cell), transport.clone());
        cell.reactor.call_later(Duration::ZERO, move || later.at(Moment::Timer, &timed));
        cell.at(Moment::Made, transport);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, _: &[u8]) -> Result<()> {
        self.0.log.add("data");
        let (promise, deferred) = Promise::new();
        let (cell, inner) = (Rc::clone(&self.0), transport.clone());
        drop(deferred.add_callback(move |()| cell.at(Moment::DeferredInData, &inner)));
        promise.callback(())?;
        self.0.at(Moment::Data, transport);
        Ok(())
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.0.log.add("read lost");
        self.0.at(Moment::ReadLost, transport);
        transport.lose_write_connection();
        Ok(())
    }

    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.0.log.add("write lost");
        self.0.at(Moment::WriteLost, transport);
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        self.0.log.add("lost");
        self.0.reason.replace(Some(reason.clone()));
        self.0.at(Moment::Lost, transport);
    }
}

/// Another connection, to an echo.
#[derive(Default)]
struct Counter {
    asked: usize,
    answered: Rc<Cell<usize>>,
}

impl Protocol for Counter {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        assert!(self.asked > 0);
        self.answered.set(self.answered.get() + data.len());
        Ok(())
    }
}

/// Whatever is asked in whatever callback, nothing panics, the connection is lost once, for the reason that was asked for, and
/// nothing is called after that.
#[test]
fn every_request_can_be_made_in_every_callback() {
    for moment in MOMENTS {
        for request in REQUESTS {
            request_in_callback(moment, request);
        }
    }
}

fn request_in_callback(moment: Moment, request: Request) {
    let case = format!("{request:?} in {moment:?}");
    let reactor = reactor();
    let (_port, echo) = listen(&reactor, |_: &Address| Some(Echo));
    let answered = Rc::new(Cell::new(0));
    let another = connected(&reactor, echo, Counter { asked: 0, answered: Rc::clone(&answered) });
    let cell = Rc::new(Case {
        moment,
        request,
        reactor: reactor.clone(),
        log: Log::default(),
        reason: RefCell::default(),
        transport: RefCell::default(),
        itself: RefCell::default(),
        another,
        performed: Cell::new(0),
    });
    let (address, peer) = listening_peer(|mut stream| {
        // A connection that was aborted takes none of this.
        let _ = stream.write_all(b"hello");
        let _ = stream.shutdown(Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    });
    let mut member = Some(Member(Rc::clone(&cell)));
    let made = Rc::clone(&cell);
    let attempt = connect(&reactor, address, move |_: &Address| member.take());
    drop(attempt.add_callback(move |itself| {
        let transport = itself.transport().clone();
        made.itself.replace(Some(itself));
        made.at(Moment::Connected, &transport);
    }));
    watch(&reactor, Rc::clone(&cell), Rc::clone(&answered), Instant::now() + LIMIT);
    reactor.run().unwrap();
    let received = run_beside(&reactor, peer);
    settle(&reactor);
    assert_eq!(cell.performed.get(), 1, "{case}: it did not come to it, or panicked");
    let calls = cell.log.all();
    assert_eq!(calls.first().map(String::as_str), Some("made"), "{case}: {calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("lost"), "{case}: {calls:?}");
    assert_eq!((cell.log.count("made"), cell.log.count("lost")), (1, 1), "{case}: {calls:?}");
    let reason = cell.reason.take().unwrap();
    assert_eq!(reason.to_string(), cell.expected_reason(), "{case}");
    if cell.is_sent() {
        assert!(received == [SMALL, LARGE].concat(), "{case}: {} bytes arrived", received.len());
    } else {
        assert_eq!(received, b"", "{case}");
    }
}

/// Resumes whoever paused, and stops the reactor when nothing is left to happen.
fn watch(reactor: &Reactor, cell: Rc<Case>, answered: Rc<Cell<usize>>, until: Instant) {
    let expired = Instant::now() > until;
    let waits_for_other = cell.request == Request::WithAnother && answered.get() == 0;
    if expired || (cell.log.has("lost") && !waits_for_other) {
        // The request may have been to stop.
        let _ = reactor.stop();
        return;
    }
    if let Some(transport) = &*cell.transport.borrow() {
        transport.resume_producing();
    }
    let again = reactor.clone();
    reactor.call_later(Duration::from_millis(1), move || watch(&again, cell, answered, until));
}

fn connected<P: Protocol>(reactor: &Reactor, to: std::net::SocketAddr, protocol: P) -> Connection<P> {
    let place = Rc::new(RefCell::new(None));
    let (mut protocol, made) = (Some(protocol), Rc::clone(&place));
    let attempt = connect(reactor, to, move |_: &Address| protocol.take());
    drop(attempt.add_callback(move |connection| {
        made.replace(Some(connection));
    }));
    run_until(reactor, || place.borrow().is_some());
    place.take().unwrap()
}

/// The connection is over for its protocol while the socket is still being read: it has no descriptor and no options any
/// more.
#[test]
fn a_lost_connection_has_no_socket_even_while_it_lingers() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let script = Script::new(&log).transport_into(&kept).made(|transport| {
        transport.write(b"bye");
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = TcpStream::connect(address).unwrap();
    run_until(&reactor, || log.is_over());
    assert_eq!(reactor.counters().watched, 2, "it lingers");
    let transport: Transport = kept.take().unwrap();
    assert_eq!(transport.raw_fd(), None);
    assert_eq!(transport.set_tcp_no_delay(true).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.tcp_no_delay().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.tcp_keep_alive().unwrap_err().kind(), ErrorKind::NotConnected);
    drop(client);
    run_until(&reactor, || reactor.counters().watched == 1);
}

/// A reactor that stops tells a connection of its end also when more is queued than one turn sends.
#[test]
fn stopping_with_much_queued_loses_the_connection_once() {
    let (reactor, log) = (reactor(), Log::default());
    let stop = reactor.clone();
    let script = Script::new(&log).data(move |transport, _| {
        (0..4096).for_each(|_| transport.write(&[b'q'; 4096]));
        stop.stop().expect("it runs");
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"go").unwrap();
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            total += count;
        }
        total
    });
    reactor.run().unwrap();
    assert_eq!(log.all(), ["made", "data", "lost: the reactor stopped"]);
    assert_eq!(reactor.counters().watched, 0);
    assert!(client.join().unwrap() >= 1 << 20);
}

/// A small generator of random numbers (SplitMix64), so that a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let scale = [10, 1000, 10_000, 1_000_000][self.below(4)];
        let length = 1 + self.below(scale);
        let mut cycle: Vec<u8> = (0..=250).collect();
        cycle.rotate_left(self.below(251));
        cycle.repeat(length / cycle.len() + 1)[..length].to_vec()
    }
}

/// Two ends that do random things, and what each has sent and received.
struct Pair {
    random: Random,
    transport: Transport,
    peer: Option<TcpStream>,
    /// Given to `write`, in order.
    written: Vec<u8>,
    /// How much of it was written before anything was closed by anybody.
    owed: usize,
    read_by_peer: Vec<u8>,
    sent_by_peer: Vec<u8>,
    closing: bool,
    violent: bool,
}

impl Pair {
    fn act(&mut self) {
        match self.random.below(14) {
            0..=3 => {
                let data = self.random.bytes();
                self.transport.write(&data);
                self.written.extend_from_slice(&data);
                if !self.closing {
                    self.owed = self.written.len();
                }
            }
            4 => {
                self.closing = true;
                self.transport.lose_connection();
            }
            5 => {
                self.closing = true;
                self.transport.lose_write_connection();
            }
            6 if self.random.below(3) == 0 => {
                self.violent = true;
                self.transport.abort_connection();
            }
            7 => self.transport.pause_producing(),
            8 => self.transport.resume_producing(),
            9 | 10 => self.peer_sends(),
            11 => drop(self.peer_reads()),
            12 => {
                self.closing = true;
                if let Some(peer) = &self.peer {
                    // It may be closed already.
                    let _ = peer.shutdown(Shutdown::Write);
                }
            }
            13 if self.random.below(3) == 0 => {
                self.violent = true;
                let reset = self.random.below(2) == 0;
                if let Some(peer) = self.peer.take().filter(|_| reset) {
                    reset_on_close(&peer);
                }
            }
            _ => {}
        }
    }

    fn peer_sends(&mut self) {
        let data = self.random.bytes();
        if let Some(Ok(count)) = self.peer.as_mut().map(|peer| peer.write(&data)) {
            self.sent_by_peer.extend_from_slice(&data[..count]);
        }
    }

    /// What is there; whether that was all there will be.
    fn peer_reads(&mut self) -> bool {
        let Some(peer) = &mut self.peer else { return true };
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.read_by_peer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    assert!(self.violent, "{error}");
                    return true;
                }
            }
        }
    }
}

/// Whatever both ends do in whatever order: made once, lost once and last, each end reads a prefix of what the other wrote,
/// and all of it if nobody was violent; and nothing stays behind.
#[test]
fn random_sequences_keep_the_rules() {
    let mut violent = 0;
    for seed in 0..300 {
        violent += usize::from(random_sequence(seed));
    }
    assert!((50..250).contains(&violent), "the mixture is one-sided: {violent}");
}

fn random_sequence(seed: u64) -> bool {
    let mut random = Random(seed);
    let (reactor, log, kept, received) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let script = Script::new(&log).transport_into(&kept).into_buffer(&received);
    let script = if random.below(2) == 0 { script.half_close() } else { script };
    let (_port, address) = listen(&reactor, once(script));
    let peer = TcpStream::connect(address).unwrap();
    peer.set_nonblocking(true).unwrap();
    run_until(&reactor, || log.has("made"));
    let mut pair = Pair {
        random,
        transport: kept.take().unwrap(),
        peer: Some(peer),
        written: Vec::new(),
        owed: 0,
        read_by_peer: Vec::new(),
        sent_by_peer: Vec::new(),
        closing: false,
        violent: false,
    };
    for _ in 0..pair.random.below(30) {
        pair.act();
        for _ in 0..pair.random.below(3) {
            reactor.iterate(Duration::ZERO).unwrap();
        }
    }
    pair.transport.resume_producing();
    pair.transport.lose_connection();
    run_until(&reactor, || pair.peer_reads() && log.is_over());
    drop(pair.peer.take());
    run_until(&reactor, || reactor.counters().watched == 1);
    settle(&reactor);
    let calls = log.all();
    assert_eq!(calls.first().map(String::as_str), Some("made"), "seed {seed}: {calls:?}");
    assert!(calls.last().is_some_and(|last| last.starts_with("lost: ")), "seed {seed}: {calls:?}");
    assert_eq!((log.count("made"), log.count("lost")), (1, 1), "seed {seed}: {calls:?}");
    assert!(log.count("read lost") <= 1 && log.count("write lost") <= 1, "seed {seed}: {calls:?}");
    assert!(pair.written.starts_with(&pair.read_by_peer), "seed {seed}: the peer read something else");
    assert!(pair.sent_by_peer.starts_with(&received.borrow()), "seed {seed}: we read something else");
    if !pair.violent {
        assert_eq!(log.reason(), "the connection was closed cleanly", "seed {seed}");
        assert!(pair.read_by_peer.len() >= pair.owed, "seed {seed}: {} of {}", pair.read_by_peer.len(), pair.owed);
    }
    pair.violent
}
