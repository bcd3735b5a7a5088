//! Peers that reset, flood, dribble and vanish, over real sockets: F04, F09, F22, F23.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::*;
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::{Failure, Result, Transport};

/// One receive, and so what one connection may bring per turn.
const CHUNK: usize = 64 * 1024;

/// Reads, and answers nothing.
struct Sink {
    received: Rc<Cell<usize>>,
    transport: Rc<RefCell<Option<Transport>>>,
}

impl Protocol for Sink {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.transport.replace(Some(transport.clone()));
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.received.set(self.received.get() + data.len());
        Ok(())
    }
}

/// F09: a peer that resets while we are still writing ends the connection once, as `Reset`, and the
/// reason says how much had not been sent.
#[test]
fn a_reset_while_we_write_tells_what_was_unsent() {
    const WRITTEN: usize = 64 << 20;
    const READ: usize = 300_000;
    let (reactor, log, reason) = (reactor(), Log::default(), Rc::default());
    let script = Script::new(&log).reason_into(&reason).made(|transport| {
        transport.write(&vec![b'w'; WRITTEN]);
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.read_exact(&mut vec![0; READ]).unwrap();
        reset_on_close(&stream);
    });
    run_beside(&reactor, client);
    run_until(&reactor, || log.is_over());
    settle(&reactor);
    let reason: Failure = reason.take().unwrap();
    match reason.check() {
        Some(&ConnectionClosed::Reset { unsent }) => assert!(unsent > 0 && unsent <= WRITTEN - READ, "{unsent}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((log.count("made"), log.count("lost")), (1, 1));
    assert_eq!(reactor.counters().watched, 1);
}

/// F09: writing twice to a peer that has gone is an error that names what was unsent, and never
/// SIGPIPE. (The test processes of std ignore that signal; here it has a handler, which would see
/// it.)
#[test]
fn a_peer_that_has_gone_is_an_error_and_never_a_signal() {
    own_process!();
    let signalled = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&signalled)).unwrap();
    let (reactor, log, kept, reason) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let script = Script::new(&log).half_close().transport_into(&kept).reason_into(&reason);
    let (_port, address) = listen(&reactor, once(script));
    run_beside(&reactor, peer(address, drop));
    run_until(&reactor, || log.has("read lost"));
    let transport: Transport = kept.take().unwrap();
    // The first is sent at once, and answered with a reset; the second fails at once; the rest
    // fails with it when the turn ends, in one vectored send.
    for _ in 0..4 {
        transport.write(&vec![b'x'; 2 * CHUNK]);
    }
    run_until(&reactor, || log.is_over());
    let reason: Failure = reason.take().unwrap();
    match reason.check() {
        Some(&ConnectionClosed::Reset { unsent }) => assert_eq!(unsent, 3 * 2 * CHUNK),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.count("lost"), 1);
    assert!(!signalled.load(Ordering::Relaxed), "a write raised SIGPIPE");
    signal_hook::low_level::unregister(handler);
}

/// A peer that sends 1 GiB has it read at 64 KiB per turn, and another connection gets every echo
/// within a few turns.
#[test]
fn a_flood_does_not_keep_others_waiting() {
    const FLOOD: usize = 1 << 30;
    let (reactor, received, kept) = (reactor(), Rc::new(Cell::new(0)), Rc::default());
    let sink = Sink { received: Rc::clone(&received), transport: Rc::clone(&kept) };
    let (_sink_port, sink_address) = listen(&reactor, sole(sink));
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    let flooder = peer(sink_address, |mut stream| {
        let piece = vec![b'f'; 1 << 20];
        (0..FLOOD / piece.len()).for_each(|_| stream.write_all(&piece).unwrap());
    });
    run_until(&reactor, || received.get() > 0);
    let mut clients = [Client::connect(&reactor, address)];
    let mut rounds = 0;
    while received.get() < FLOOD {
        let before = received.get();
        let turns = echo_round(&reactor, &mut clients, b"are you there?");
        assert!(received.get() - before <= turns * CHUNK, "one connection took more than its share");
        rounds += 1;
    }
    assert!(rounds > 100, "the flood was over too soon to say anything: {rounds} rounds");
    run_beside(&reactor, flooder);
    assert_eq!(received.get(), FLOOD);
}

/// F22: with one peer that sends as fast as it can, fifty others are each served in every round.
#[test]
fn one_fast_peer_and_fifty_others_are_all_served() {
    let (reactor, received, kept) = (reactor(), Rc::new(Cell::new(0)), Rc::default());
    let sink = Sink { received: Rc::clone(&received), transport: Rc::clone(&kept) };
    let (_sink_port, sink_address) = listen(&reactor, sole(sink));
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    let flooder = peer(sink_address, |mut stream| {
        let piece = vec![b'f'; 1 << 20];
        while stream.write_all(&piece).is_ok() {}
    });
    run_until(&reactor, || received.get() > 0);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(&reactor, address)).collect();
    for round in 0..100 {
        let before = received.get();
        let message = format!("round {round}");
        let turns = echo_round(&reactor, &mut clients, message.as_bytes());
        assert!(received.get() - before <= turns * CHUNK, "one connection took more than its share");
    }
    // The fast peer is not starved either.
    let so_far = received.get();
    run_until(&reactor, || received.get() > so_far + 10 * CHUNK);
    let transport: Transport = kept.take().unwrap();
    transport.abort_connection();
    run_beside(&reactor, flooder);
}

/// A hundred thousand segments of one byte each come back complete and in order.
#[test]
fn a_hundred_thousand_tiny_segments_come_back() {
    const SEGMENTS: usize = 100_000;
    let reactor = reactor();
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    let client = peer(address, |stream| {
        stream.set_nodelay(true).unwrap();
        let (mut reading, mut writing) = (stream.try_clone().unwrap(), stream);
        let writer = std::thread::spawn(move || {
            (0..SEGMENTS).for_each(|i| writing.write_all(&[(i % 251) as u8]).unwrap());
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        reading.read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        all
    });
    let answer = run_beside(&reactor, client);
    assert_eq!(answer.len(), SEGMENTS);
    assert!(answer.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
    run_until(&reactor, || reactor.counters().watched == 1);
}

/// F04, F23: a thousand peers that connect and at once reset, close, or do both by halves, before
/// or after they were accepted, are each made and lost once, leave no descriptor and nothing
/// watched, and do not disturb another connection.
#[test]
fn a_thousand_peers_that_go_at_once_leave_nothing() {
    own_process!();
    const PEERS: usize = 1000;
    let (reactor, log) = (reactor(), Log::default());
    let (_echo_port, echo_address) = listen(&reactor, |_| Some(Echo));
    let scripts = log.clone();
    let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
    let mut clients = [Client::connect(&reactor, echo_address)];
    echo_round(&reactor, &mut clients, b"before");
    let (watched, open) = (reactor.counters().watched, descriptors());
    // Every other one goes before it was accepted: two thirds of those by a reset.
    let all = accepts_what_was_reset(&reactor);
    let made = |gone: usize| if all { gone } else { gone - (0..gone).filter(|i| i % 2 == 1 && i % 3 != 1).count() };
    for i in 0..PEERS {
        let stream = TcpStream::connect(address).expect("somebody listens");
        if i % 2 == 0 {
            run_until(&reactor, || log.count("made") == made(i + 1));
        }
        match i % 3 {
            0 => reset_on_close(&stream),
            1 => {}
            _ => {
                stream.shutdown(Shutdown::Write).unwrap();
                reset_on_close(&stream);
            }
        }
        drop(stream);
        if i % 2 == 0 {
            echo_round(&reactor, &mut clients, b"still there?");
        } else {
            run_until(&reactor, || log.count("made") == made(i + 1));
        }
    }
    let made = made(PEERS);
    run_until(&reactor, || log.count("lost") == made && reactor.counters().watched == watched);
    settle(&reactor);
    assert_eq!((log.count("made"), log.count("lost")), (made, made));
    assert_eq!(descriptors(), open);
    assert_eq!(reactor.counters().watched, watched);
    echo_round(&reactor, &mut clients, b"after");
}

/// A factory for one protocol; a second connection is refused.
fn sole<P: Protocol>(protocol: P) -> impl Factory<Protocol = P> {
    let mut protocol = Some(protocol);
    move |_| protocol.take()
}
