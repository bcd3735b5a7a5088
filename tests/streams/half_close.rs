//! F12: the two directions of a connection end one by one, in every order, over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::common::*;
use ropewalk::{Reactor, Transport};

/// More than the buffers of both sockets hold while the peer does not read.
const MUCH: usize = 24_000_000;

/// The order in which the sides end their directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The peer ends its side, and we ours once we know.
    Peer,
    /// Both in the same turn.
    Together,
    /// We ask first; the peer ends its side before everything was sent.
    WeAsk,
    /// We end our side; the peer its own once it has seen ours.
    We,
}

const ORDERS: [Order; 4] = [Order::Peer, Order::Together, Order::WeAsk, Order::We];

/// Every byte that was queued arrives, each end has one callback, in order, in a protocol that
/// asked for it, and the connection is lost once, in every order of the ends.
#[test]
fn every_order_of_ends_delivers_everything() {
    for order in ORDERS {
        for queued in [0, MUCH] {
            for half_close in [true, false] {
                ends_in_order(order, queued, half_close);
            }
        }
    }
}

fn ends_in_order(order: Order, queued: usize, half_close: bool) {
    let case = format!("{order:?}, {queued} bytes queued, half_close {half_close}");
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let body = pattern(queued);
    let script = Script::new(&log).transport_into(&kept).made({
        let body = body.clone();
        move |transport| {
            transport.write(&body);
            Ok(())
        }
    });
    let script = if half_close { script.half_close() } else { script };
    let (_port, address) = listen(&reactor, once(script));
    let mut peer = Peer::connect(address, order);
    run_until(&reactor, || log.has("made"));
    settle(&reactor);
    let transport: Transport = kept.take().unwrap();
    assert_eq!(transport.queued_bytes() > 0, queued > 0, "{case}: the case needs a full socket");
    match order {
        Order::Peer => {
            peer.end_its_side();
            run_until(&reactor, || log.has("read lost") || transport.is_disconnecting());
            transport.lose_write_connection();
        }
        Order::Together => {
            peer.end_its_side();
            transport.lose_write_connection();
        }
        Order::WeAsk => {
            transport.lose_write_connection();
            settle(&reactor);
            assert_eq!(log.has("write lost"), half_close && queued == 0, "{case}");
            peer.end_its_side();
        }
        Order::We => transport.lose_write_connection(),
    }
    let received = peer.read_everything(&reactor);
    assert!(received == body, "{case}: {} bytes arrived", received.len());
    run_until(&reactor, || log.is_over());
    run_until(&reactor, || reactor.counters().watched == 1);
    settle(&reactor);
    assert_eq!(log.all(), expected(order, queued, half_close), "{case}");
    assert_eq!(transport.queued_bytes(), 0, "{case}");
}

fn expected(order: Order, queued: usize, half_close: bool) -> Vec<&'static str> {
    let between: &[&str] = match (order, half_close) {
        (Order::We, true) => &["write lost", "data", "read lost"],
        (Order::We, false) => &["data"],
        (Order::WeAsk, true) if queued == 0 => &["write lost", "read lost"],
        (_, true) => &["read lost", "write lost"],
        (_, false) => &[],
    };
    [&["made"], between, &["lost: the connection was closed cleanly"]].concat()
}

/// A peer that does each step on request.
struct Peer {
    end: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
    read: mpsc::Sender<()>,
    thread: Option<JoinHandle<Vec<u8>>>,
}

impl Peer {
    fn connect(to: std::net::SocketAddr, order: Order) -> Self {
        let ((end, wait_to_end), (read, wait_to_read)) = (mpsc::channel(), mpsc::channel());
        let (say_ended, ended) = mpsc::channel();
        let thread = peer(to, move |mut stream| {
            if order == Order::We {
                wait_to_read.recv().unwrap();
                let all = read_all(&mut stream);
                stream.write_all(b"late").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                return all;
            }
            wait_to_end.recv().unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            say_ended.send(()).unwrap();
            wait_to_read.recv().unwrap();
            read_all(&mut stream)
        });
        Self { end, ended, read, thread: Some(thread) }
    }

    /// Returns when our kernel has the end; the loop does not turn meanwhile.
    fn end_its_side(&mut self) {
        self.end.send(()).unwrap();
        self.ended.recv().unwrap();
    }

    fn read_everything(mut self, reactor: &Reactor) -> Vec<u8> {
        self.read.send(()).unwrap();
        run_beside(reactor, self.thread.take().unwrap())
    }
}

fn pattern(length: usize) -> Vec<u8> {
    repeated(0..251, length)
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

/// F10: a reset that comes together with the peer's end of stream is noticed, although the socket
/// then reads as merely ended for ever.
#[test]
fn a_reset_right_behind_the_peers_end_is_noticed() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, once(Script::new(&log).half_close()));
    let (go, wait) = mpsc::channel::<()>();
    let (say, reset) = mpsc::channel::<()>();
    let client = peer(address, move |stream| {
        wait.recv().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reset_on_close(&stream);
        drop(stream);
        say.send(()).unwrap();
    });
    run_until(&reactor, || log.has("made"));
    settle(&reactor);
    go.send(()).unwrap();
    reset.recv().unwrap();
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the peer reset the connection (0 bytes were still to be sent)");
    run_beside(&reactor, client);
}

/// F11: a reset is noticed while reading is paused also when the peer's end had come in the very
/// turn of the pause.
#[test]
fn a_reset_is_noticed_behind_an_end_that_met_a_pause() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let (_port, address) = listen(&reactor, once(Script::new(&log).half_close().transport_into(&kept)));
    let (go, wait) = mpsc::channel::<()>();
    let (say, done) = mpsc::channel::<()>();
    let client = peer(address, move |stream| {
        wait.recv().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        say.send(()).unwrap();
        wait.recv().unwrap();
        reset_on_close(&stream);
        drop(stream);
        say.send(()).unwrap();
    });
    run_until(&reactor, || log.has("made"));
    settle(&reactor);
    go.send(()).unwrap();
    done.recv().unwrap();
    let transport: Transport = kept.take().unwrap();
    transport.pause_producing();
    settle(&reactor);
    assert_eq!(log.all(), ["made"], "an end stays behind a pause");
    go.send(()).unwrap();
    done.recv().unwrap();
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the peer reset the connection (0 bytes were still to be sent)");
    run_beside(&reactor, client);
}
