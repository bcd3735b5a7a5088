//! The io_uring backend where the kernel's part of it shows: receive buffers that run out, data
//! that has come before a pause, sends and receives that are under way when a connection ends, and
//! places that are used again. Where the system has no io_uring for us, every test says that it was
//! skipped.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::{ListenOptions, Reactor, Result, Transport};
use rustix::net::sockopt;

const KIB: usize = 1024;

/// A receive buffer of the ring.
const BUFFER: usize = 16 * KIB;

/// More than what the sockets of a connection take whose sending side was made small.
const STUCK: usize = 512 * KIB;

/// The bytes that peer `number` sends. They do not repeat soon, and begin differently for each
/// peer.
fn message(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number + at * 31 + at / 251) as u8).collect()
}

/// A client on the reactor's thread, and what it was answered.
struct Peer {
    stream: TcpStream,
    sent: Vec<u8>,
    answer: Vec<u8>,
}

impl Peer {
    fn send(&mut self, data: Vec<u8>) {
        self.stream.write_all(&data).expect("it fits into the socket");
        self.sent.extend(data);
    }

    /// Returns `true` if all its bytes have come back, and nothing else.
    fn is_answered(&mut self) -> bool {
        let end = read_now(&mut self.stream, &mut self.answer);
        assert_eq!(end, None, "it ended after {} bytes of {}", self.answer.len(), self.sent.len());
        assert!(self.sent.starts_with(&self.answer), "something else came back");
        self.answer.len() == self.sent.len()
    }
}

/// So many clients, all of them accepted.
fn peers(reactor: &Reactor, to: SocketAddr, count: usize) -> Vec<Peer> {
    peers_by(dial, reactor, to, count)
}

/// A client whose socket takes next to nothing: who sends to it has soon sent all that he ever can.
fn dial_narrow(to: SocketAddr) -> TcpStream {
    let socket = tcp_socket();
    sockopt::set_socket_recv_buffer_size(&socket, 4 * KIB).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    socket.into()
}

/// A client whose socket is full after some 100 KiB.
fn dial_short(to: SocketAddr) -> TcpStream {
    let socket = tcp_socket();
    sockopt::set_socket_send_buffer_size(&socket, 4 * BUFFER).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    socket.into()
}

fn peers_by(dial: fn(SocketAddr) -> TcpStream, reactor: &Reactor, to: SocketAddr, count: usize) -> Vec<Peer> {
    let accepted = reactor.counters().accepted;
    let mut peers = Vec::new();
    while peers.len() < count {
        // No more than a backlog at a time.
        for _ in 0..(count - peers.len()).min(50) {
            peers.push(Peer { stream: dial(to), sent: Vec::new(), answer: Vec::new() });
        }
        run_until(reactor, || reactor.counters().accepted == accepted + peers.len() as u64);
    }
    peers
}

/// More turns than it takes to echo a receive buffer's worth to each of 300 clients if nearly all
/// receive buffers are there.
const FEW: u64 = 10;

/// Clients of an echo server that each send as much as is given, all of them before a single turn.
/// Gives the turns that it took.
fn all_at_once(reactor: &Reactor, lengths: impl ExactSizeIterator<Item = usize>) -> u64 {
    let (port, address) = listen(reactor, |_| Some(Echo));
    let mut peers = peers(reactor, address, lengths.len());
    for (number, (peer, length)) in peers.iter_mut().zip(lengths).enumerate() {
        peer.send(message(number, length));
    }
    let before = reactor.counters().turns;
    run_until(reactor, || peers.iter_mut().all(Peer::is_answered));
    drop((peers, port.stop_listening()));
    reactor.counters().turns - before
}

/// 1,600 connections send before a single turn, most of them as much as a receive buffer holds, of
/// which there are 256: all is echoed, complete and in order.
#[test]
fn receive_buffers_run_out() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    all_at_once(&reactor, (0..1_600).map(|number| if number % 8 < 5 { BUFFER } else { 100 }));
}

/// Keeps what it is given, and stops reading at its first chunk.
#[derive(Clone, Default)]
struct Pausing {
    received: Rc<RefCell<Vec<u8>>>,
    transport: Rc<RefCell<Option<Transport>>>,
    paused: Rc<Cell<bool>>,
}

impl Protocol for Pausing {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        assert!(!self.paused.get(), "{} bytes were delivered during a pause", data.len());
        self.received.borrow_mut().extend_from_slice(data);
        if self.transport.replace(Some(transport.clone())).is_none() {
            transport.pause_producing();
            self.paused.set(true);
        }
        Ok(())
    }
}

/// 300 connections pause at their first chunk when the kernel has already brought more, and their
/// sockets are full. Nothing is delivered meanwhile, others are served within a few turns, and
/// afterwards everything comes, in order.
#[test]
fn a_pause_when_more_has_already_come() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    let (made, kept) = (Rc::new(RefCell::new(Vec::new())), Pausing::default);
    let all = Rc::clone(&made);
    let (_port, address) = listen(&reactor, move |_| {
        let protocol = kept();
        all.borrow_mut().push(protocol.clone());
        Some(protocol)
    });
    let mut full = peers_by(dial_short, &reactor, address, 300);
    for (number, peer) in full.iter_mut().enumerate() {
        peer.sent = fill(&mut peer.stream, number);
        assert!(peer.sent.len() > 4 * BUFFER, "the socket took {} bytes only", peer.sent.len());
    }
    run_until(&reactor, || made.borrow().iter().all(|it| it.paused.get()));
    let (_echo_port, echo_address) = listen(&reactor, |_| Some(Echo));
    let mut others: Vec<_> = (0..20).map(|_| Client::connect(&reactor, echo_address)).collect();
    for _ in 0..50 {
        echo_round(&reactor, &mut others, b"how long does it take");
    }
    for (protocol, peer) in made.borrow().iter().zip(&full) {
        let received = protocol.received.borrow();
        assert!(received.len() <= BUFFER && peer.sent.starts_with(&received), "{} bytes", received.len());
        protocol.paused.set(false);
        protocol.transport.borrow().as_ref().unwrap().resume_producing();
        peer.stream.shutdown(Shutdown::Write).unwrap();
    }
    run_until(&reactor, || reactor.counters().watched == 2 + others.len());
    for (protocol, peer) in made.borrow().iter().zip(&full) {
        assert!(*protocol.received.borrow() == peer.sent, "something is missing or out of order");
    }
}

/// Writes until the socket takes no more; what it took. The block's length has no divisor, so it
/// never lines up with a buffer.
fn fill(stream: &mut TcpStream, number: usize) -> Vec<u8> {
    let (block, mut all) = (message(number, 65_521), Vec::new());
    stream.set_nonblocking(true).unwrap();
    while let Ok(count) = stream.write(&block[all.len() % block.len()..]) {
        let at = all.len() % block.len();
        all.extend_from_slice(&block[at..at + count]);
    }
    stream.set_nonblocking(false).unwrap();
    all
}

/// The operation of a connection that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Send,
    Receive,
    Both,
}

/// Has the kernel be given something of a connection whose peer reads nothing.
fn begin(transport: &Transport, has: Has, data: &[u8]) {
    with_descriptor(transport, |socket| sockopt::set_socket_send_buffer_size(socket, 32 * KIB)).unwrap();
    if has == Has::Send {
        transport.pause_producing();
    }
    if has != Has::Receive {
        transport.write(data);
    }
}

/// 2,000 connections end, by a reset or in peace, while the kernel has a send of theirs, a receive,
/// or both: their peers see a reset, or all that was written and the end; no descriptor stays open,
/// and no receive buffer is lost.
#[test]
fn ends_with_something_under_way() {
    own_process!();
    const AT_ONCE: usize = 50;
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    let (made, whole) = (Rc::new(RefCell::new(Vec::new())), message(0, STUCK));
    let keep = Rc::clone(&made);
    let (_port, address) = listen(&reactor, move |_| {
        let keep = Rc::clone(&keep);
        Some(Script::new(&Log::default()).made(move |transport| {
            keep.borrow_mut().push(transport.clone());
            Ok(())
        }))
    });
    let mut before = None;
    for round in 0..40 {
        let mut peers = peers_by(dial_narrow, &reactor, address, AT_ONCE);
        let transports = made.take();
        let has = |number: usize| [Has::Send, Has::Receive, Has::Both][(round + number) % 3];
        transports.iter().enumerate().for_each(|(number, it)| begin(it, has(number), &whole));
        // A send is under way for good when its first part has gone; or it has only just been asked
        // for.
        if round % 4 == 0 {
            reactor.iterate(Duration::ZERO).unwrap()
        } else {
            settle(&reactor)
        }
        let resets = |number: usize| ((round + number) / 3).is_multiple_of(2);
        for (number, transport) in transports.iter().enumerate() {
            assert_eq!(transport.queued_bytes() > 0, has(number) != Has::Receive);
            if resets(number) {
                transport.abort_connection();
            } else {
                transport.lose_connection();
                sockopt::set_socket_recv_buffer_size(&peers[number].stream, 1 << 20).unwrap();
            }
        }
        let mut ends = [None; AT_ONCE];
        run_until(&reactor, || {
            for (number, (peer, end)) in
                peers.iter_mut().zip(&mut ends).enumerate().filter(|(_, (_, end))| end.is_none())
            {
                *end = if resets(number) {
                    // It comes although the bytes before it are not read.
                    peer.stream.take_error().unwrap().map(|error| Err(error.kind()))
                } else {
                    read_now(&mut peer.stream, &mut peer.answer)
                };
            }
            ends.iter().all(Option::is_some)
        });
        let unread = peers.iter_mut().enumerate().filter(|(number, _)| resets(*number));
        unread.for_each(|(_, peer)| {
            let _ = read_now(&mut peer.stream, &mut peer.answer);
        });
        for (number, (peer, end)) in peers.iter().zip(ends).enumerate() {
            let expected = if has(number) == Has::Receive { &[][..] } else { &whole };
            if resets(number) {
                assert_eq!(end, Some(Err(ErrorKind::ConnectionReset)), "{:?}", has(number));
                assert!(expected.starts_with(&peer.answer));
            } else {
                assert_eq!(end, Some(Ok(())), "{:?}", has(number));
                assert!(peer.answer == expected, "{} bytes of {}", peer.answer.len(), expected.len());
            }
        }
        drop((peers, transports));
        run_until(&reactor, || reactor.counters().watched == 1);
        settle(&reactor);
        assert_eq!(descriptors(), *before.get_or_insert_with(descriptors), "round {round}");
    }
    let turns = all_at_once(&reactor, (0..300).map(|_| BUFFER));
    assert!(turns < FEW, "{turns} turns: receive buffers were lost");
}

/// 400 connections, whose peers have filled their sockets, are reset at their first chunk, when the
/// kernel has brought more of most of them already: all receive buffers are there afterwards.
#[test]
fn resets_with_data_that_was_not_handed_on() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    let (_port, address) = listen(&reactor, |_| {
        Some(Script::new(&Log::default()).data(|transport, _| {
            transport.abort_connection();
            Ok(())
        }))
    });
    let mut full = peers(&reactor, address, 400);
    full.iter_mut().enumerate().for_each(|(number, peer)| drop(fill(&mut peer.stream, number)));
    run_until(&reactor, || reactor.counters().watched == 1);
    for peer in &full {
        assert_eq!(peer.stream.take_error().unwrap().map(|error| error.kind()), Some(ErrorKind::ConnectionReset));
    }
    let turns = all_at_once(&reactor, (0..300).map(|_| BUFFER));
    assert!(turns < FEW, "{turns} turns: receive buffers were lost");
}

/// Of two connections that are reset in one turn, the second is sent something while the first is
/// told, and then the ring is asked for what it has: that is for a connection that is gone by the
/// time the completion is handled. It is counted as stale, and its buffer is there again, 300
/// times.
#[test]
fn data_that_comes_between_two_ends() {
    let Some(reactor) = ring_reactor() else { return };
    let (_listener, _first, mute) = silent();
    let (made, first_lost) = (Rc::new(RefCell::new(Vec::new())), Rc::<Cell<Option<Box<dyn FnOnce()>>>>::default());
    let (keep, call) = (Rc::clone(&made), Rc::clone(&first_lost));
    let (_port, address) = listen(&reactor, move |_| {
        let (keep, call) = (Rc::clone(&keep), Rc::clone(&call));
        let script = Script::new(&Log::default()).made(move |transport| {
            keep.borrow_mut().push(transport.clone());
            Ok(())
        });
        Some(script.lost(move |_| call.take().into_iter().for_each(|call| call())))
    });
    let stale = reactor.counters().stale_events;
    for _ in 0..300 {
        let mut peers = peers(&reactor, address, 2);
        let transports = made.take();
        // To give an attempt up hands on to the system what there is.
        let attempt = connect(&reactor, mute, scripts(&Log::default()));
        settle(&reactor);
        let mut second = peers.remove(1).stream;
        first_lost.set(Some(Box::new(move || {
            second.write_all(b"too late").unwrap();
            attempt.cancel();
            drop(attempt.add_both(|_| ()));
        })));
        transports.iter().for_each(Transport::abort_connection);
        run_until(&reactor, || reactor.counters().watched == 1);
    }
    let stale = reactor.counters().stale_events - stale;
    assert!(stale > 256, "it came to that {stale} times only, not more often than there are buffers");
    let turns = all_at_once(&reactor, (0..300).map(|_| BUFFER));
    assert!(turns < FEW, "{turns} turns: receive buffers were lost");
}

/// A callback fails while a send is under way that the peer does not read: a beginning of it
/// arrives, and then a reset, for what was cut must not look whole, 200 times.
#[test]
fn a_failure_with_a_send_under_way() {
    let Some(reactor) = ring_reactor() else { return };
    let (log, whole) = (Log::default(), message(0, STUCK));
    let writes = whole.clone();
    let scripts = log.clone();
    let (_port, address) = listen(&reactor, move |_| {
        let writes = writes.clone();
        let script = Script::new(&scripts).made(move |transport| {
            with_descriptor(transport, |socket| sockopt::set_socket_send_buffer_size(socket, 32 * KIB))?;
            transport.write(&writes);
            Ok(())
        });
        Some(script.data(|transport, _| {
            assert!(transport.queued_bytes() > 0);
            Err(ropewalk::Failure::message("enough"))
        }))
    });
    for number in 0..200 {
        let mut peer = peers(&reactor, address, 1).remove(0);
        settle(&reactor);
        peer.stream.write_all(b"fail").unwrap();
        run_until(&reactor, || log.count("lost: enough") > number);
        let (mut answer, mut end) = (Vec::new(), None);
        run_until(&reactor, || {
            end = read_now(&mut peer.stream, &mut answer);
            end.is_some()
        });
        assert_eq!((end, whole.starts_with(&answer)), (Some(Err(ErrorKind::ConnectionReset)), true));
    }
}

/// From here on the numbers are of connections that another has begun as it ended.
const BEGUN: u8 = 100;

/// Echoes, and does not let a byte of another connection pass: each sends nothing but its own
/// number. Some end at their second message, by a reset or in peace, and some of these have a new
/// connection begun in the same turn.
struct Own {
    reactor: Reactor,
    to: SocketAddr,
    number: Option<u8>,
    heard: usize,
    /// Begun by one that has ended: it sends this.
    sends: Option<u8>,
    count: Rc<Cell<usize>>,
}

impl Protocol for Own {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.count.set(self.count.get() + 1);
        if let Some(number) = self.sends {
            self.number = Some(number);
            transport.write(&[number; 64]);
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let number = *self.number.get_or_insert(data[0]);
        assert!(data.iter().all(|&byte| byte == number), "bytes of another connection");
        self.heard += 1;
        if self.heard < 2 {
            transport.write(data);
            return Ok(());
        }
        if number.is_multiple_of(2) {
            transport.abort_connection()
        } else {
            transport.lose_connection()
        }
        if number < BEGUN {
            let (reactor, to, count) = (self.reactor.clone(), self.to, Rc::clone(&self.count));
            drop(connect(&self.reactor, to, move |_| {
                let (reactor, count, sends) = (reactor.clone(), Rc::clone(&count), Some(number + BEGUN));
                Some(Self { reactor, to, number: None, heard: 0, sends, count })
            }));
        }
        Ok(())
    }
}

/// 1,000 connections one after the other, most of which end while their peers send on, and others
/// begin in the same turns, in the same slots: no connection gets another's bytes, and none is
/// left.
#[test]
fn places_are_used_again_at_once() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    let (handle, count) = (reactor.clone(), Rc::new(Cell::new(0)));
    let (kept, to) = (Rc::clone(&count), Rc::new(Cell::new(None)));
    let place = Rc::clone(&to);
    let options = ListenOptions::new().backlog(200);
    let factory = move |_| {
        let (reactor, to, count) = (handle.clone(), place.get()?, Rc::clone(&kept));
        Some(Own { reactor, to, number: None, heard: 0, sends: None, count })
    };
    let port = reactor.listen_tcp(loopback(), &options, factory).unwrap();
    let address = port.host().socket_addr().unwrap();
    to.set(Some(address));
    let (before, mut open) = (descriptors(), Vec::<(TcpStream, u8)>::new());
    let say = |stream: &mut TcpStream, number: u8| match stream.write(&[number; 64]) {
        Ok(64) => {}
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        other => panic!("{other:?}"),
    };
    for number in 0..1_000_usize {
        open.push((dial(address), (number % usize::from(BEGUN)) as u8));
        open.iter_mut().for_each(|(stream, number)| say(stream, *number));
        reactor.iterate(Duration::ZERO).unwrap();
        // Connections that were told to end in this turn are still being sent to.
        open.iter_mut().for_each(|(stream, number)| say(stream, *number));
        open.retain_mut(|(stream, number)| {
            let mut heard = Vec::new();
            let end = read_now(stream, &mut heard);
            assert!(heard.iter().all(|byte| byte == number), "bytes of another connection");
            end.is_none()
        });
        assert!(open.len() < 100, "connections do not end");
    }
    drop(open);
    run_until(&reactor, || reactor.counters().watched == 1);
    // Its factory has the reactor, which has the port.
    drop(port.stop_listening());
    settle(&reactor);
    assert!(count.get() > 1_500, "{} connections only", count.get());
    assert_eq!(descriptors(), before - 1);
}

/// Aborts its connection at the first byte, and ends the run.
struct Quits(Reactor);

impl Protocol for Quits {
    fn data_received(&mut self, transport: &Transport, _: &[u8]) -> Result<()> {
        transport.abort_connection();
        Ok(self.0.crash()?)
    }
}

/// The end of a run hands everything on to the kernel: a connection that was aborted in the last
/// turn is closed, although no other turn follows.
#[test]
fn the_end_of_a_run_is_flushed() {
    use std::io::Read;
    let Some(reactor) = ring_reactor() else { return };
    let handle = reactor.clone();
    let (_port, address) = listen(&reactor, move |_| Some(Quits(handle.clone())));
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"!").unwrap();
    run(&reactor).unwrap();
    let end = client.read(&mut [0]).expect_err("a reset");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    // The factory has a handle of it.
    reactor.close().unwrap();
}
