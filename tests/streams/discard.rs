//! Discarded connections over real sockets, as far as the kernel and foreign peers are the subject.
//! The conformance suite has the rest (`src/testing/conformance/discarding.rs`).

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use crate::common::*;
use ropewalk::transport::DiscardMode;
use ropewalk::{BackendKind, Reactor, Transport};

/// Runs a test on each backend that the system has.
fn on_each(test: impl Fn(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// Connects a foreign peer to the next connection of a port. Returns the peer and the transport.
fn pair(reactor: &Reactor, to: SocketAddr, made: &RefCell<Option<Transport>>) -> (TcpStream, Transport) {
    let peer = dial(to);
    peer.set_read_timeout(Some(LIMIT)).expect("a limit");
    run_until(reactor, || made.borrow().is_some());
    (peer, made.take().expect("it was just there"))
}

/// The peer is told before `discard` returns: the loop makes no turn any more. Bytes that the
/// socket had taken arrive, if the peer is not reset.
#[test]
fn a_peer_is_told_although_no_turn_follows() {
    on_each(|reactor| {
        let (log, made) = (Log::default(), Rc::new(RefCell::new(None)));
        let placed = Rc::clone(&made);
        let (_port, to) = listen(&reactor, move |_| Some(Script::new(&log).transport_into(&placed)));
        for (mode, sent, expected) in [
            (DiscardMode::End, &b"sent"[..], Ok(b"sent".to_vec())),
            (DiscardMode::End, b"", Ok(vec![])),
            (DiscardMode::Reset, b"", Err(ErrorKind::ConnectionReset)),
        ] {
            let (mut peer, transport) = pair(&reactor, to, &made);
            transport.write(sent);
            settle(&reactor);
            transport.write(b"dropped");
            transport.discard(mode);
            let mut all = Vec::new();
            let read = peer.read_to_end(&mut all).map(|_| all).map_err(|error| error.kind());
            assert_eq!(read, expected, "{mode:?} on {:?}", reactor.backend());
        }
    });
}

/// The connection ends although a second descriptor of its socket is open, as it does by a regular
/// close.
#[test]
fn a_duplicate_does_not_keep_the_connection() {
    on_each(|reactor| {
        let (log, made) = (Log::default(), Rc::new(RefCell::new(None)));
        let placed = Rc::clone(&made);
        let (_port, to) = listen(&reactor, move |_| Some(Script::new(&log).transport_into(&placed)));
        let (mut peer, transport) = pair(&reactor, to, &made);
        let duplicate = transport.duplicate().expect("a second descriptor");
        transport.discard(DiscardMode::End);
        assert_eq!(peer.read(&mut [0; 8]).expect("an end"), 0, "on {:?}", reactor.backend());
        drop(duplicate);
    });
}

/// Two connections have bytes in one turn. The first one's callback discards the second, which is
/// not called, although its bytes are in the hands of the backend already.
#[test]
fn bytes_of_the_same_turn_are_dropped() {
    on_each(|reactor| {
        let all: Rc<RefCell<Vec<Transport>>> = Rc::default();
        let (called, made) = (Rc::new(Cell::new(0)), Rc::clone(&all));
        let log = Log::default();
        let (_port, to) = listen(&reactor, {
            let (log, called) = (log.clone(), Rc::clone(&called));
            move |_| {
                let (made, known, called) = (Rc::clone(&made), Rc::clone(&made), Rc::clone(&called));
                let script = Script::new(&log).made(move |transport| {
                    made.borrow_mut().push(transport.clone());
                    Ok(())
                });
                Some(script.data(move |transport, _| {
                    called.set(called.get() + 1);
                    let others = known.borrow().clone().into_iter().filter(|other| other.peer() != transport.peer());
                    others.for_each(|other| other.discard(DiscardMode::End));
                    Ok(())
                }))
            }
        });
        let mut peers = [dial(to), dial(to)];
        run_until(&reactor, || all.borrow().len() == 2);
        settle(&reactor);
        peers.iter_mut().for_each(|peer| peer.write_all(b"at once").expect("it is open"));
        run_until(&reactor, || called.get() > 0);
        settle(&reactor);
        assert_eq!((called.get(), log.count("lost")), (1, 0), "on {:?}", reactor.backend());
        // The survivor goes on, and the slot of the other is free for a new connection.
        let survivor = all.borrow().iter().find(|transport| !transport.is_disconnected()).cloned();
        assert!(survivor.is_some(), "both are gone");
        let mut third = dial(to);
        run_until(&reactor, || all.borrow().len() == 3);
        third.write_all(b"hello").expect("it is open");
        run_until(&reactor, || called.get() == 2);
    });
}

/// A client's factory stops, at the end of a turn, and its Deferred has fired before.
#[test]
fn the_factory_of_a_discarded_client_stops() {
    on_each(|reactor| {
        let (log, serving) = (Log::default(), Log::default());
        let (_port, to) = listen(&reactor, scripts(&serving));
        let client = log.clone();
        let factory = Watched::new(&log, move |_| Some(Script::new(&client)));
        let connection = result_of(&reactor, connect(&reactor, to, factory)).expect("it is reached");
        connection.transport().discard(DiscardMode::Reset);
        assert!(!log.has("stop") && !log.is_over());
        run_until(&reactor, || log.has("stop"));
        run_until(&reactor, || serving.is_over());
        assert!(!log.is_over(), "the client was told");
    });
}

/// The end of lingering reaches the kernel although no turn follows: the socket is closed, and a
/// peer that goes on sending is reset.
#[test]
fn lingering_ends_although_no_turn_follows() {
    on_each(|reactor| {
        let (log, made) = (Log::default(), Rc::new(RefCell::new(None)));
        let (lost, placed) = (log.clone(), Rc::clone(&made));
        let (_port, to) = listen(&reactor, move |_| Some(Script::new(&lost).transport_into(&placed)));
        let (mut peer, transport) = pair(&reactor, to, &made);
        transport.lose_connection();
        run_until(&reactor, || log.is_over());
        assert_eq!(reactor.counters().watched, 2, "it lingers");
        reactor.end_lingering();
        assert_eq!(reactor.counters().watched, 1);
        let until = Instant::now() + LIMIT;
        while peer.write_all(b"still here").is_ok() {
            assert!(Instant::now() < until, "the socket is open, on {:?}", reactor.backend());
        }
    });
}
