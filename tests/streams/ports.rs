//! Listening ports and their factories, over real sockets.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ListenError;
use ropewalk::interfaces::*;
use ropewalk::{Address, ListenOptions, Port, Reactor, SharedFactory};

/// A place for a port that its own connections stop.
type PortSlot = Rc<RefCell<Option<Port>>>;

fn stop(port: &PortSlot, log: &Log, serves: bool) {
    let log = log.clone();
    let Some(port) = port.take() else { return };
    let stopping = if serves { port.stop_listening() } else { port.abort_listening() };
    drop(stopping.add_callback(move |()| log.add("fired")));
}

/// Every peer's end: the protocol served it, or the system closed it.
fn is_cut_off(reactor: &Reactor, peer: &mut TcpStream) -> bool {
    match read_to_end(reactor, peer) {
        Ok(received) => received.is_empty(),
        Err(kind) => kind == ErrorKind::ConnectionReset,
    }
}

/// A port that was asked for as 0 says which one it got, and peers reach it there.
#[test]
fn host_is_the_real_address() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, address) = listen(&reactor, echoes(&log));
    assert_ne!(address.port(), 0);
    assert!(port.is_listening());
    let mut peer = dial(address);
    assert_eq!(peer.peer_addr().unwrap(), address);
    peer.write_all(b"here?").unwrap();
    assert_eq!(read_exact(&reactor, &mut peer, 5), b"here?");
}

/// The factory starts before anything is built, and stops when the socket is closed and before the
/// Deferred fires, which happens in a turn of its own.
#[test]
fn the_factory_starts_first_and_stops_before_the_deferred_fires() {
    let (reactor, log) = (reactor(), Log::default());
    let address = Rc::new(Cell::new(loopback()));
    let (place, seen) = (Rc::clone(&address), log.clone());
    let factory = Watched::new(&log, scripts(&log)).on_stop(move || {
        // The address can be had only if the socket is closed.
        TcpListener::bind(place.get()).expect("the socket is closed");
        seen.add("free");
    });
    let (port, bound) = listen(&reactor, factory);
    address.set(bound);
    assert_eq!(log.all(), ["start"]);
    let _peer = dial(bound);
    run_until(&reactor, || log.has("made"));
    let fired = log.clone();
    let stopped = port.stop_listening().add_callback(move |()| fired.add("fired"));
    assert!(!port.is_listening());
    assert_eq!(log.all(), ["start", "build", "made"], "nothing is called from inside stop_listening");
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(log.all(), ["start", "build", "made", "stop", "free", "fired"]);
    assert!(stopped.is_called());
}

/// A factory panics in `do_start`, when a connection waits for it already: the peer is reset.
#[test]
fn a_connection_that_waits_for_a_factory_that_does_not_start_is_reset() {
    /// Where it listens, once it is to fail; and the connection that waits then.
    type Waiting = Option<(SocketAddr, Option<TcpStream>)>;
    struct Unready(Rc<RefCell<Waiting>>);
    impl Factory for Unready {
        type Protocol = Echo;
        fn do_start(&mut self) {
            if let Some((address, waiting)) = &mut *self.0.borrow_mut() {
                *waiting = Some(dial(*address));
                panic!("not ready");
            }
        }
        fn build_protocol(&mut self, _: &Address) -> Option<Echo> {
            Some(Echo)
        }
    }
    let (reactor, waiting) = (reactor(), Rc::new(RefCell::new(None)));
    let (port, address) = listen(&reactor, Unready(Rc::clone(&waiting)));
    result_of(&reactor, port.stop_listening()).unwrap();
    waiting.replace(Some((address, None)));
    assert!(matches!(port.start_listening(), Err(ListenError::Factory(_))));
    let mut peer = waiting.take().unwrap().1.unwrap();
    assert_eq!(read_to_end(&reactor, &mut peer), Err(ErrorKind::ConnectionReset));
    // The address is free, and the port may try again.
    port.start_listening().unwrap();
}

/// Preparations are made from the last to the first. One that fails ends the connection before
/// those that would follow.
#[test]
fn preparations_are_made_in_order() {
    for fails in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let (inner, outer) = (log.clone(), log.clone());
        let factory = ropewalk::protocol::BoxedFactory::new(scripts(&log))
            .prepared(move |_| {
                inner.add("inner");
                Ok(())
            })
            .prepared(move |_| {
                outer.add("outer");
                if fails { Err(ropewalk::Failure::message("not this one")) } else { Ok(()) }
            });
        let port = reactor.listen_tcp_boxed(loopback(), &ListenOptions::new(), factory).unwrap();
        let _peer = dial(port.host().socket_addr().unwrap());
        let ((), _lines) = logged(|| run_until(&reactor, || log.has("made") || log.is_over()));
        assert_eq!(log.has("inner"), !fails);
        assert_eq!(log.all()[0], "outer");
    }
}

/// Stopping while stopping, and when stopped, is fine: each Deferred fires, and the factory stops
/// once.
#[test]
fn stopping_twice_fires_both() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, _) = listen(&reactor, Watched::new(&log, scripts(&log)));
    let (first, second) = (port.stop_listening(), port.stop_listening());
    assert!(!first.is_called() && !second.is_called());
    result_of(&reactor, first).unwrap();
    result_of(&reactor, second).unwrap();
    result_of(&reactor, port.stop_listening()).unwrap();
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
}

/// A Deferred that was cancelled, or dropped, does not keep a port from stopping.
#[test]
fn nobody_has_to_wait_for_a_port_to_stop() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, _) = listen(&reactor, Watched::new(&log, scripts(&log)));
    let cancelled = port.stop_listening();
    cancelled.cancel();
    drop(port.stop_listening());
    let last = port.stop_listening();
    result_of(&reactor, last).unwrap();
    drop(cancelled.add_errback(|_| ()));
    assert_eq!(log.all(), ["start", "stop"]);
}

/// A port that has stopped listens again on the number that it had, with its factory started anew;
/// one that listens, or is still stopping, refuses.
#[test]
fn a_stopped_port_listens_again_on_its_number() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, address) = listen(&reactor, Watched::new(&log, scripts(&log)));
    let listening = port.start_listening().unwrap_err();
    assert!(matches!(&listening, ListenError::AlreadyListening { address: at } if *at == address.into()));
    let stopped = port.stop_listening();
    assert!(matches!(port.start_listening(), Err(ListenError::AlreadyListening { .. })), "it is still stopping");
    result_of(&reactor, stopped).unwrap();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    port.start_listening().unwrap();
    assert_eq!(port.host(), address.into());
    let _peer = dial(address);
    run_until(&reactor, || log.has("made"));
    assert_eq!(log.all(), ["start", "stop", "start", "build", "made"]);
}

/// A port may listen again from the very callback that hears that it has stopped.
#[test]
fn a_port_may_listen_again_once_its_deferred_fires() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, address) = listen(&reactor, Watched::new(&log, scripts(&log)));
    let again = port.clone();
    let restarted = port.stop_listening().add_callback(move |()| Ok(again.start_listening()?));
    result_of(&reactor, restarted).unwrap();
    let _peer = dial(address);
    run_until(&reactor, || log.has("made"));
}

/// Once the reactor is gone a port can't listen, and stopping it is nothing.
#[test]
fn a_port_without_its_reactor_is_stopped() {
    own_process!();
    let before = descriptors();
    let (port, address) = listen(&reactor(), scripts(&Log::default()));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(port.stop_listening().is_called());
    assert!(port.start_listening().is_err());
    drop(port);
    assert_eq!(descriptors(), before);
}

/// A factory on two ports starts once, and stops once, with the last of them.
#[test]
fn a_shared_factory_starts_and_stops_once() {
    let (reactor, log) = (reactor(), Log::default());
    let shared = SharedFactory::new(Watched::new(&log, scripts(&log)));
    let (first, one) = listen(&reactor, shared.clone());
    let (second, two) = listen(&reactor, shared.clone());
    let _peers = (dial(one), dial(two));
    run_until(&reactor, || log.count("made") == 2);
    result_of(&reactor, first.stop_listening()).unwrap();
    assert_eq!((log.count("start"), log.count("build"), log.count("stop")), (1, 2, 0));
    result_of(&reactor, second.stop_listening()).unwrap();
    assert_eq!((log.count("start"), log.count("stop")), (1, 1));
    first.start_listening().unwrap();
    assert_eq!((log.count("start"), log.count("stop")), (2, 1), "it starts again");
}

/// A shared factory whose start panicked has not started: the next port starts it.
#[test]
fn a_shared_factory_that_did_not_start_starts_with_the_next_port() {
    struct Hesitant(Log);
    impl Factory for Hesitant {
        type Protocol = Script;
        fn build_protocol(&mut self, _: &Address) -> Option<Script> {
            None
        }
        fn do_start(&mut self) {
            self.0.add("start");
            assert!(self.0.count("start") > 1, "not yet");
        }
        fn do_stop(&mut self) {
            self.0.add("stop");
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let shared = SharedFactory::new(Hesitant(log.clone()));
    let refused = reactor.listen_tcp(loopback(), &ListenOptions::new(), shared.clone());
    assert!(matches!(refused, Err(ListenError::Factory(_))));
    let (port, _) = listen(&reactor, shared);
    assert_eq!(log.all(), ["start", "start"]);
    result_of(&reactor, port.stop_listening()).unwrap();
    assert_eq!(log.all(), ["start", "start", "stop"]);
}

/// A shared factory that listens once more when it starts, and again when it stops, has the
/// callbacks of that start behind the call that it came from, and never inside it.
#[test]
fn a_shared_factory_that_starts_itself_again() {
    struct Eager {
        reactor: Reactor,
        log: Log,
        me: Rc<RefCell<Option<SharedFactory<Self>>>>,
        ports: Rc<RefCell<Vec<Port>>>,
    }
    impl Eager {
        fn listen(&self) {
            let me = self.me.borrow().clone().expect("it is shared");
            self.ports.borrow_mut().push(listen(&self.reactor, me).0);
            self.log.add("listening");
        }
    }
    impl Factory for Eager {
        type Protocol = Script;
        fn build_protocol(&mut self, _: &Address) -> Option<Script> {
            None
        }
        fn do_start(&mut self) {
            self.log.add("start");
            if self.log.count("start") == 1 {
                self.listen();
            }
        }
        fn do_stop(&mut self) {
            self.log.add("stop");
            if self.log.count("stop") == 1 {
                self.listen();
            }
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let (me, ports) = (Rc::default(), Rc::<RefCell<Vec<Port>>>::default());
    let (handle, own) = (reactor.clone(), log.clone());
    let shared = SharedFactory::new(Eager { reactor: handle, log: own, me: Rc::clone(&me), ports: Rc::clone(&ports) });
    *me.borrow_mut() = Some(shared.clone());
    let (port, _) = listen(&reactor, shared);
    assert_eq!(log.all(), ["start", "listening"]);
    result_of(&reactor, port.stop_listening()).unwrap();
    let inner = ports.borrow_mut().remove(0);
    result_of(&reactor, inner.stop_listening()).unwrap();
    assert_eq!(log.all(), ["start", "listening", "stop", "listening", "start"]);
    let last = ports.borrow_mut().remove(0);
    result_of(&reactor, last.stop_listening()).unwrap();
    assert_eq!(log.all()[5..], ["stop"]);
    me.take();
}

/// Connections that were accepted live on after their port has stopped.
#[test]
fn accepted_connections_outlive_the_port() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, address) = listen(&reactor, echoes(&log));
    let mut peer = dial(address);
    run_until(&reactor, || log.has("made"));
    result_of(&reactor, port.stop_listening()).unwrap();
    drop(port);
    peer.write_all(b"still there?").unwrap();
    assert_eq!(read_exact(&reactor, &mut peer, 12), b"still there?");
    assert!(!log.is_over());
}

/// A rolling restart: connections that the system had accepted when the port stops are served,
/// before its Deferred fires, and nothing is accepted after that. Another port has the address at
/// once.
#[test]
fn connections_that_wait_when_a_port_stops_are_served() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, address) = listen(&reactor, Watched::new(&log, echoes(&log)));
    settle(&reactor);
    let mut waiting: Vec<TcpStream> = (0..100).map(|_| dial(address)).collect();
    for peer in &mut waiting {
        peer.write_all(b"early").unwrap();
    }
    let stopped = port.stop_listening();
    assert!(!port.is_listening());
    assert_eq!(log.all(), ["start"], "it called back");
    let (next, _) = (reactor.listen_tcp(address, &ListenOptions::new(), echoes(&Log::default())).unwrap(), ());
    result_of(&reactor, stopped).unwrap();
    assert_eq!((log.count("build"), log.count("made"), log.count("stop")), (100, 100, 1));
    for peer in &mut waiting {
        assert_eq!(read_exact(&reactor, peer, 5), b"early");
    }
    result_of(&reactor, next.stop_listening()).unwrap();
    settle(&reactor);
    assert_eq!((reactor.counters().accepted, log.count("build")), (100, 100));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// The same over a UNIX socket.
#[test]
fn unix_connections_that_wait_when_a_port_stops_are_served() {
    use std::io::Read;
    let (reactor, log) = (reactor(), Log::default());
    let path = std::env::temp_dir().join(format!("ropewalk-restart-{}", std::process::id()));
    let at = ropewalk::address::UnixAddress::path(&path).unwrap();
    let port = reactor.listen_unix(&at, &ropewalk::reactor::UnixListenOptions::new(), echoes(&log)).unwrap();
    settle(&reactor);
    let mut waiting: Vec<_> = (0..100).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    for peer in &mut waiting {
        peer.write_all(b"early").unwrap();
    }
    let stopped = port.stop_listening();
    assert!(!path.exists());
    result_of(&reactor, stopped).unwrap();
    run_until(&reactor, || log.count("data") == 100);
    settle(&reactor);
    for peer in &mut waiting {
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"early");
    }
}

/// A port may reset the connections that wait, and a reactor that stops does: their peers can tell
/// it from an answer.
#[test]
fn connections_that_wait_are_reset_on_request_and_at_a_stop() {
    for stops_all in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let (port, address) = listen(&reactor, Watched::new(&log, scripts(&log)));
        settle(&reactor);
        let (mut late, handle) = (None, reactor.clone());
        let dialled = Rc::new(RefCell::new(Vec::new()));
        let peers = Rc::clone(&dialled);
        reactor.call_when_running(move || {
            peers.borrow_mut().extend((0..10).map(|_| dial(address)));
            if stops_all {
                handle.stop().unwrap();
            } else {
                let stopping = port.abort_listening();
                drop(stopping.add_callback(move |()| handle.stop().unwrap()));
            }
        });
        run(&reactor).unwrap();
        for peer in &mut *dialled.borrow_mut() {
            let ended = read_now(peer, &mut Vec::new());
            assert_eq!(ended, Some(Err(ErrorKind::ConnectionReset)), "stops all: {stops_all}");
        }
        late.get_or_insert_with(|| TcpStream::connect(address)).as_ref().unwrap_err();
        assert_eq!((log.count("build"), log.count("stop")), (0, 1));
    }
}

/// F07: a port that is stopped from inside `build_protocol`, `connection_made` or `data_received`
/// takes nothing more from the system. Connections that the system had let in by then, in the same
/// batch, are served before the factory stops, or reset if the port was told so.
#[test]
fn stopping_from_inside_a_callback_stops_at_once() {
    for place in ["build_protocol", "connection_made", "data_received"] {
        stops_from_inside(place, true);
        stops_from_inside(place, false);
    }
}

fn stops_from_inside(place: &'static str, serves: bool) {
    let (reactor, log) = (reactor(), Log::default());
    let port = PortSlot::default();
    let (own, events) = (Rc::clone(&port), log.clone());
    let factory = Watched::new(&log, move |_| {
        if place == "build_protocol" {
            stop(&own, &events, serves);
        }
        let (in_made, in_data) = ((Rc::clone(&own), events.clone()), (Rc::clone(&own), events.clone()));
        let script = Script::new(&events).made(move |_| {
            if place == "connection_made" {
                stop(&in_made.0, &in_made.1, serves);
            }
            Ok(())
        });
        Some(script.data(move |transport, data| {
            if place == "data_received" {
                stop(&in_data.0, &in_data.1, serves);
            }
            transport.write(data);
            Ok(())
        }))
    });
    let (listening, address) = listen(&reactor, factory);
    port.replace(Some(listening));
    let mut first = dial(address);
    if place == "data_received" {
        run_until(&reactor, || log.has("made"));
    }
    // Its bytes come before the others, in the same batch.
    first.write_all(b"first").unwrap();
    let mut others: Vec<TcpStream> = (0..5).map(|_| dial(address)).collect();
    assert_eq!(read_exact(&reactor, &mut first, 5), b"first", "{place}");
    run_until(&reactor, || log.has("fired"));
    settle(&reactor);
    let served = if serves { 6 } else { 1 };
    assert_eq!(log.count("build"), served, "{place}");
    assert_eq!(log.count("made"), served, "{place}");
    assert_eq!(reactor.counters().accepted, served as u64, "{place}");
    assert_eq!((log.count("stop"), log.count("fired")), (1, 1), "{place}");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{place}");
    for other in &mut others {
        if serves {
            other.write_all(b"other").unwrap();
            assert_eq!(read_exact(&reactor, other, 5), b"other", "{place}");
        } else {
            assert_eq!(read_to_end(&reactor, other), Err(ErrorKind::ConnectionReset), "{place}");
        }
    }
    assert!(!log.is_over(), "{place}: the first lives on");
}

/// F15: a listener is closed while its event is in the batch, and a new connection gets its
/// descriptor's number: nothing that was said of the one reaches the other.
#[test]
fn a_descriptor_reused_within_a_batch_is_not_mistaken() {
    own_process!();
    let (reactor, log, fresh) = (reactor(), Log::default(), Log::default());
    let elsewhere = TcpListener::bind(loopback()).unwrap();
    let (target, port) = (elsewhere.local_addr().unwrap(), PortSlot::default());
    let connecting = Rc::new(RefCell::new(None));
    let (handle, own, events, new, place) =
        (reactor.clone(), Rc::clone(&port), log.clone(), fresh.clone(), Rc::clone(&connecting));
    let factory = move |_| {
        let (handle, own, events, new, place) =
            (handle.clone(), Rc::clone(&own), events.clone(), new.clone(), Rc::clone(&place));
        Some(Script::new(&events.clone()).data(move |_, _| {
            stop(&own, &events, false);
            place.replace(Some(connect(&handle, target, once(Script::new(&new)))));
            Ok(())
        }))
    };
    let before = open();
    let (listening, address) = listen(&reactor, factory);
    let listener = open().into_iter().find(|(fd, what)| before.get(fd) != Some(what) && what.starts_with("socket:"));
    let (listener, _) = listener.expect("a socket that listens");
    port.replace(Some(listening));
    let mut first = dial(address);
    run_until(&reactor, || log.has("made"));
    // In this order, and in one batch: bytes for the connection that closes the listener, then a
    // peer for the listener.
    first.write_all(b"now").unwrap();
    let mut second = dial(address);
    reactor.iterate(Duration::ZERO).unwrap();
    let connection = result_of(&reactor, connecting.take().expect("the connect was begun")).unwrap();
    assert_eq!(connection.transport().raw_fd(), Some(listener), "the number was not reused: the test shows nothing");
    let (mut answering, _) = elsewhere.accept().unwrap();
    assert!(is_cut_off(&reactor, &mut second));
    assert_eq!(log.all(), ["made", "data", "fired"]);
    assert_eq!(fresh.all(), ["made"]);
    answering.write_all(b"yours").unwrap();
    run_until(&reactor, || fresh.has("data"));
    drop(answering);
    run_until(&reactor, || fresh.is_over());
    assert_eq!(fresh.all(), ["made", "data", "lost: the connection was closed cleanly"]);
    assert!(!log.is_over(), "the first connection is not concerned");
}

/// The descriptors of this process: number and target.
fn open() -> BTreeMap<i32, String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let links = entries.filter_map(|path| {
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(path).ok()?.to_string_lossy().into_owned()))
    });
    links.collect()
}
