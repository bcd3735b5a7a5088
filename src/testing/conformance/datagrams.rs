//! Cases about datagram ports (Twisted: `twisted.internet.test.test_udpserver` and
//! `twisted.test.test_udp`). They send to themselves and to each other on one host, where a network
//! that loses nothing delivers in order.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::scene::{Log, pattern};
use super::{CaseOutcome, Scene, Setting};
use crate::address::Address;
use crate::datagram::{DatagramProtocol, DatagramTransport, UdpOptions, UnixDatagramOptions};
use crate::error::{DatagramError, ListenError};
use crate::failure::Result;
use crate::reactor::Reactor;

/// The reason for which a setting skips the case about refusals.
const REFUSES_WRITES: &str = "a UNIX socket refuses the write itself";

/// Datagrams that one port delivers in a turn at most.
const IN_A_TURN: usize = 128;

/// Bytes that ports take of a datagram: more than UDP has.
const LONGEST: usize = 65_536;

/// A callback of a datagram protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Start,
    Datagram,
    Truncated,
    Refused,
    Stop,
}

type Act = Box<dyn FnMut(Seen, &DatagramTransport, &[u8], Option<&Address>) -> Result<()>>;

/// A protocol that logs its callbacks, and acts as its case directs.
struct Speaker {
    log: Log,
    act: Act,
}

impl Speaker {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), act: Box::new(|_, _, _, _| Ok(())) }
    }

    fn acts(
        mut self,
        act: impl FnMut(Seen, &DatagramTransport, &[u8], Option<&Address>) -> Result<()> + 'static,
    ) -> Self {
        self.act = Box::new(act);
        self
    }

    fn call(
        &mut self,
        seen: Seen,
        transport: &DatagramTransport,
        data: &[u8],
        peer: Option<&Address>,
        entry: String,
    ) -> Result<()> {
        self.log.add(format!("{entry} begins"));
        let result = (self.act)(seen, transport, data, peer);
        self.log.add(entry);
        result
    }
}

impl DatagramProtocol for Speaker {
    fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
        self.call(Seen::Start, transport, b"", None, "started".to_owned())
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        self.call(Seen::Datagram, transport, data, Some(peer), format!("received {}", show(data)))
    }

    fn truncated_datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        length: Option<usize>,
        peer: &Address,
    ) -> Result<()> {
        assert!(length.is_none_or(|length| length > data.len()), "{length:?}");
        self.call(Seen::Truncated, transport, data, Some(peer), format!("truncated {}", show(data)))
    }

    fn connection_refused(&mut self, transport: &DatagramTransport) -> Result<()> {
        self.call(Seen::Refused, transport, b"", None, "refused".to_owned())
    }

    fn stop_protocol(&mut self, transport: &DatagramTransport) {
        // A failure after the end can't be reported.
        let _ = self.call(Seen::Stop, transport, b"", None, "stopped".to_owned());
    }
}

fn show(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// Returns a finished log. A callback that was entered while another ran fails the case.
#[track_caller]
fn calls(log: &Log) -> Vec<String> {
    let all = log.all();
    let (pairs, rest) = all.as_chunks::<2>();
    assert!(rest.is_empty(), "a callback is under way: {all:?}");
    for [begin, end] in pairs {
        assert_eq!(*begin, format!("{end} begins"), "a callback inside another: {all:?}");
    }
    pairs.iter().map(|[_, end]| end.clone()).collect()
}

fn has(log: &Log, entry: &str) -> bool {
    log.all().iter().any(|it| it == entry)
}

/// Binds a port at an address of the setting's kind.
#[track_caller]
fn bind(scene: &mut Scene<'_>, protocol: impl DatagramProtocol) -> DatagramTransport {
    let at = scene.setting.address();
    let port = listen(&scene.reactor, &at, LONGEST, protocol);
    port.unwrap_or_else(|error| panic!("no datagram port: {error:?}"))
}

fn listen(
    reactor: &Reactor,
    at: &Address,
    longest: usize,
    protocol: impl DatagramProtocol,
) -> Result<DatagramTransport, ListenError> {
    match at {
        Address::Inet(at) => reactor.listen_udp(*at, &UdpOptions::new().max_packet_bytes(longest), protocol),
        Address::Unix(at) => {
            let options = UnixDatagramOptions::new().max_packet_bytes(longest);
            reactor.listen_unix_datagram(at, &options, protocol)
        }
        Address::Pipe => panic!("a pipe is no address of a port"),
    }
}

#[track_caller]
fn send(from: &DatagramTransport, data: &[u8], to: &Address) {
    from.write(data, to).unwrap_or_else(|error| panic!("not sent: {error:?}"));
}

pub(super) fn datagrams_of_every_size_come_back(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let echo = Speaker::new(&Log::default()).acts(|_, transport, data, peer| match peer {
        Some(peer) => Ok(transport.write(data, peer)?),
        None => Ok(()),
    });
    let server = bind(&mut scene, echo).host();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&answers);
    let asker = Speaker::new(&Log::default()).acts(move |seen, _, data, _| {
        if seen == Seen::Datagram {
            told.borrow_mut().push(data.to_vec());
        }
        Ok(())
    });
    let asker = bind(&mut scene, asker);
    for size in [0, 1, 511, 1_472, 9_000, 65_506, 65_507] {
        let data = pattern(size);
        send(&asker, &data, &server);
        scene.until(|| !answers.borrow().is_empty());
        assert!(answers.take() == [data], "{size} bytes came back changed");
    }
    // The system's send buffer is the limit of a UNIX socket.
    if !scene.is_unix() {
        let too_long = asker.write(&pattern(65_508), &server);
        assert!(matches!(too_long, Err(DatagramError::MessageTooLong { .. })), "{too_long:?}");
    }
    CaseOutcome::Passed
}

pub(super) fn datagram_callbacks_come_in_order(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    // Each callback writes to its own port, which calls nothing at once.
    let chatty = Speaker::new(&log).acts(|seen, transport, data, _| match seen {
        Seen::Start => Ok(transport.write(b"a", &transport.host())?),
        Seen::Datagram if data != b"aaa" => Ok(transport.write(&[data, b"a"].concat(), &transport.host())?),
        _ => Ok(()),
    });
    let port = bind(&mut scene, chatty);
    scene.until(|| has(&log, "received aaa"));
    send(&port, b"late", &port.host());
    let (first, second) = (port.stop_listening(), port.stop_listening());
    assert!(!port.is_listening() && !has(&log, "stopped"), "a stop never calls back");
    for stopped in [first, second, port.stop_listening()] {
        let stopped = scene.result_of(stopped);
        assert!(stopped.is_ok(), "{stopped:?}");
    }
    let after = port.write(b"late", &port.host());
    assert!(matches!(after, Err(DatagramError::NotListening)), "{after:?}");
    scene.moment();
    assert_eq!(calls(&log), ["started", "received a", "received aa", "received aaa", "stopped"]);
    assert_eq!(scene.reactor.counters().watched, 0);
    CaseOutcome::Passed
}

pub(super) fn a_longer_datagram_is_said_to_be_truncated(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    let at = scene.setting.address();
    let port = listen(&scene.reactor, &at, 4, Speaker::new(&log));
    let port = port.unwrap_or_else(|error| panic!("no datagram port: {error:?}"));
    for data in [&b"1234"[..], b"12345", b"end"] {
        send(&port, data, &port.host());
    }
    scene.until(|| has(&log, "received end"));
    assert_eq!(calls(&log), ["started", "received 1234", "truncated 1234", "received end"]);
    CaseOutcome::Passed
}

pub(super) fn a_refusal_reaches_a_connected_port_only(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    if scene.is_unix() {
        return CaseOutcome::Skipped(REFUSES_WRITES);
    }
    let (log, other) = (Log::default(), Log::default());
    let gone = bind(&mut scene, Speaker::new(&Log::default()));
    let (connected, open) = (bind(&mut scene, Speaker::new(&log)), bind(&mut scene, Speaker::new(&other)));
    let to = gone.host();
    let stopped = scene.result_of(gone.stop_listening());
    assert!(stopped.is_ok(), "{stopped:?}");
    connected.connect(&to).unwrap_or_else(|error| panic!("not connected: {error}"));
    send(&open, b"anyone", &to);
    send(&connected, b"anyone", &to);
    assert_eq!(calls(&log), ["started"], "a write calls nothing");
    scene.until(|| has(&log, "refused"));
    scene.moment();
    assert_eq!((calls(&log), calls(&other)), (vec!["started".into(), "refused".into()], vec!["started".into()]));
    // The peer comes back, and is heard. A stranger is not.
    let back = listen(&scene.reactor, &to, LONGEST, Speaker::new(&Log::default()));
    let back = back.unwrap_or_else(|error| panic!("no datagram port: {error:?}"));
    send(&open, b"strange", &connected.host());
    send(&back, b"hello", &connected.host());
    scene.until(|| has(&log, "received hello"));
    scene.moment();
    assert_eq!(calls(&log), ["started", "refused", "received hello"]);
    CaseOutcome::Passed
}

pub(super) fn a_datagram_port_stops_in_every_callback(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    for place in [Seen::Start, Seen::Datagram, Seen::Truncated, Seen::Refused, Seen::Stop] {
        if place == Seen::Refused && scene.is_unix() {
            continue;
        }
        let log = Log::default();
        let stopper = Speaker::new(&log).acts(move |seen, transport, _, _| {
            if seen == place {
                drop(transport.stop_listening());
            }
            Ok(())
        });
        let gone = bind(&mut scene, Speaker::new(&Log::default()));
        let at = scene.setting.address();
        let port = listen(&scene.reactor, &at, 4, stopper);
        let port = port.unwrap_or_else(|error| panic!("{place:?}: {error:?}"));
        let from = bind(&mut scene, Speaker::new(&Log::default()));
        let refusing = gone.host();
        drop(gone.stop_listening());
        for _ in 0..3 {
            match place {
                Seen::Start => {}
                Seen::Datagram => send(&from, b"one", &port.host()),
                Seen::Truncated => send(&from, b"longer", &port.host()),
                Seen::Refused if port.peer().is_some() => send(&port, b"anyone", &refusing),
                Seen::Refused => port.connect(&refusing).unwrap_or_else(|error| panic!("not connected: {error}")),
                Seen::Stop => drop(port.stop_listening()),
            }
        }
        scene.until(|| has(&log, "stopped"));
        drop(from.stop_listening());
        scene.moment();
        let middle = match place {
            Seen::Start | Seen::Stop => None,
            Seen::Datagram => Some("received one"),
            Seen::Truncated => Some("truncated long"),
            Seen::Refused => Some("refused"),
        };
        let expected: Vec<_> = [Some("started"), middle, Some("stopped")].into_iter().flatten().collect();
        assert_eq!(calls(&log), expected, "{place:?}");
        assert_eq!(scene.reactor.counters().watched, 0, "{place:?}");
    }
    CaseOutcome::Passed
}

pub(super) fn a_failing_datagram_callback_leaves_its_port_open(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&seen);
    let failing = Speaker::new(&Log::default()).acts(move |_, _, data, _| {
        told.borrow_mut().push(show(data));
        match data {
            b"fail" => Err("as the case asks".into()),
            b"panic" => panic!("as the case asks"),
            _ => Ok(()),
        }
    });
    let port = bind(&mut scene, failing);
    for data in [&b"fail"[..], b"panic", b"good"] {
        send(&port, data, &port.host());
    }
    scene.until(|| seen.borrow().len() == 4);
    assert_eq!(*seen.borrow(), ["", "fail", "panic", "good"]);
    assert!(port.is_listening());
    let failing = Speaker::new(&Log::default())
        .acts(|seen, _, _, _| if seen == Seen::Start { Err("as the case asks".into()) } else { Ok(()) });
    let at = scene.setting.address();
    let refused = listen(&scene.reactor, &at, LONGEST, failing);
    assert!(refused.is_err(), "a protocol that does not start has no port");
    assert_eq!(scene.reactor.counters().watched, 1);
    CaseOutcome::Passed
}

pub(super) fn a_paused_datagram_port_delivers_nothing(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    let pausing = Speaker::new(&log).acts(|seen, transport, _, _| {
        if seen == Seen::Datagram {
            transport.pause_receiving();
        }
        Ok(())
    });
    let port = bind(&mut scene, pausing);
    for data in [b"1", b"2", b"3"] {
        send(&port, data, &port.host());
    }
    for round in 1..=3 {
        scene.until(|| has(&log, &format!("received {round}")));
        scene.moment();
        assert_eq!(calls(&log).len(), 1 + round);
        port.resume_receiving();
    }
    assert_eq!(calls(&log), ["started", "received 1", "received 2", "received 3"]);
    CaseOutcome::Passed
}

pub(super) fn a_flooded_datagram_port_starves_no_other(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let turns = [Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new()))];
    let ports = turns.clone().map(|turns| {
        let reactor = scene.reactor.downgrade();
        let counting = Speaker::new(&Log::default()).acts(move |seen, _, _, _| {
            if let (Seen::Datagram, Some(reactor)) = (seen, reactor.upgrade()) {
                turns.borrow_mut().push(reactor.counters().turns);
            }
            Ok(())
        });
        let port = bind(&mut scene, counting);
        port.pause_receiving();
        port
    });
    let flood = IN_A_TURN + IN_A_TURN / 2;
    for _ in 0..flood {
        send(&ports[0], b"x", &ports[0].host());
    }
    send(&ports[1], b"x", &ports[1].host());
    // A paused UNIX socket is full, and the flood waits for it.
    let is_unix = scene.is_unix();
    scene.until(|| is_unix || ports.iter().all(|port| port.queued_bytes() == 0));
    scene.moment();
    assert!(turns.iter().all(|turns| turns.borrow().is_empty()), "paused ports deliver nothing");
    ports.iter().for_each(DatagramTransport::resume_receiving);
    scene.until(|| turns[0].borrow().len() == flood && turns[1].borrow().len() == 1);
    let (flooded, other) = (turns[0].borrow(), turns[1].borrow());
    let most = flooded.chunk_by(|one, next| one == next).map(<[u64]>::len).max();
    assert!(most <= Some(IN_A_TURN), "{most:?} datagrams in a turn");
    assert!(other.first() < flooded.last(), "the other port waits for the flood");
    CaseOutcome::Passed
}

pub(super) fn a_datagram_of_another_family_is_an_error(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let port = bind(&mut scene, Speaker::new(&Log::default()));
    let is_ipv4 = port.host().ip().is_some_and(|ip| ip.is_ipv4());
    let other: SocketAddr = if is_ipv4 { ([0, 0, 0, 0, 0, 0, 0, 1], 9).into() } else { ([127, 0, 0, 1], 9).into() };
    let refused = port.write(b"x", &other.into());
    assert!(matches!(refused, Err(DatagramError::WrongFamily { .. })), "{refused:?}");
    let refused = port.write_to_peer(b"x");
    assert!(matches!(refused, Err(DatagramError::NotConnected)), "{refused:?}");
    assert!(port.is_listening() && port.counts().sent == 0);
    let taken = listen(&scene.reactor, &port.host(), LONGEST, Speaker::new(&Log::default()));
    assert!(taken.is_err(), "the address is in use");
    CaseOutcome::Passed
}
