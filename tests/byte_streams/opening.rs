//! Streams from endpoints: connecting, a callback for each stream, a queue of streams.

use std::cell::RefCell;
use std::net::SocketAddr;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ropewalk::deferred::{Cancelled, Promise};
use ropewalk::endpoints::{ServerEndpoint, client_from_string, server_from_string};
use ropewalk::error::ConnectError;
use ropewalk::protocol::BoxedFactory;
use ropewalk::streams::{accept_streams, connect_stream, listen_streams};
use ropewalk::testing::MemoryReactor;
use ropewalk::{Deferred, Port};

use super::*;

/// Each connection of a port has a stream, and a panic in the callback ends one of them alone.
#[test]
fn a_callback_gets_each_stream() {
    let memory = MemoryReactor::new();
    let made = Rc::new(RefCell::new(Vec::new()));
    let streams = Rc::clone(&made);
    let endpoint = server_from_string(memory.reactor(), "tcp:7").unwrap();
    let listening = listen_streams(&endpoint, move |stream| {
        assert_ne!(streams.borrow().len(), 1, "the second one");
        streams.borrow_mut().push(stream);
    });
    assert!(listening.is_called());
    let (peers, lines) = common::logged(|| {
        let peers: Vec<_> = (0..2).map(|_| memory.connect(7).unwrap()).collect();
        memory.settle().unwrap();
        peers
    });
    assert_eq!((made.borrow().len(), lines.len()), (1, 1), "{lines:?}");
    assert!(!peers[0].is_ended() && peers[1].is_ended());
}

/// Streams are taken in order. No more than the limit wait: the port pauses, and accepts the next
/// when one is taken.
#[test]
fn a_full_queue_of_streams_pauses_its_port() {
    let memory = MemoryReactor::new();
    let endpoint = server_from_string(memory.reactor(), "tcp:7").unwrap();
    let mut incoming = accept_streams(&endpoint, 2).take_result().unwrap().unwrap();
    let task = Task::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(incoming.poll_accept(&mut cx).is_pending());
    let peers: Vec<_> = (0..5_u8).map(|_| memory.connect(7).unwrap()).collect();
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(peer.write(&[n as u8; 3]).unwrap(), 3);
    }
    memory.settle().unwrap();
    assert_eq!((task.woken(), incoming.waiting(), incoming.port().is_paused()), (1, 2, true));
    for n in 0..5 {
        let Poll::Ready(Some(mut stream)) = incoming.poll_accept(&mut cx) else { panic!("a stream") };
        assert!(matches!(task.read(&mut stream, 9), Poll::Ready(Ok(bytes)) if bytes == [n as u8; 3]));
        memory.settle().unwrap();
        let left: usize = 4 - n;
        assert_eq!((incoming.waiting(), incoming.port().is_paused()), (left.min(2), left >= 2));
    }
    memory.settle().unwrap();
    assert!(peers.iter().all(|peer| peer.is_ended()), "each stream was dropped");
    // The program's own pause is another one.
    incoming.port().pause_accepting();
    let late = memory.connect(7).unwrap();
    memory.settle().unwrap();
    assert!(incoming.poll_accept(&mut cx).is_pending() && incoming.port().is_paused());
    incoming.port().resume_accepting();
    memory.settle().unwrap();
    assert_eq!(incoming.waiting(), 1);
    drop((incoming, late));
}

/// An endpoint that returns its port only when it is told to.
#[derive(Debug)]
struct Late(Box<dyn ServerEndpoint>, RefCell<Option<Promise<()>>>);

impl ServerEndpoint for Late {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        let (promise, told) = Promise::new();
        self.1.replace(Some(promise));
        let listening = self.0.listen_boxed(factory);
        told.add_callback(move |()| listening)
    }
}

/// Without its port, a queue can't pause it. A connection beyond the limit is closed and logged
/// once. A stopped port gives the streams that are left, and then none.
#[test]
fn a_queue_of_streams_is_bounded() {
    let memory = MemoryReactor::new();
    let endpoint = Late(server_from_string(memory.reactor(), "tcp:7").unwrap(), RefCell::default());
    let mut listening = accept_streams(&endpoint, 2);
    let (early, lines) = common::logged(|| {
        let peers: Vec<_> = (0..5).map(|_| memory.connect(7).unwrap()).collect();
        memory.settle().unwrap();
        peers
    });
    assert_eq!(early.iter().filter(|peer| peer.is_ended()).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.contains("too many wait")).count(), 1, "{lines:?}");
    endpoint.1.take().unwrap().callback(()).unwrap();
    let mut incoming = listening.take_result().unwrap().unwrap();
    assert_eq!((incoming.waiting(), incoming.port().is_paused()), (2, true));

    let task = Task::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    let Poll::Ready(Some(first)) = incoming.poll_accept(&mut cx) else { panic!("a stream") };
    let sixth = memory.connect(7).unwrap();
    memory.settle().unwrap();
    assert!(!sixth.is_ended());
    drop(incoming.port().stop_listening());
    memory.settle().unwrap();
    assert!(matches!(incoming.poll_accept(&mut cx), Poll::Ready(Some(_))));
    assert!(matches!(incoming.poll_accept(&mut cx), Poll::Ready(Some(_))));
    assert!(matches!(incoming.poll_accept(&mut cx), Poll::Ready(None)));
    drop((first, incoming, early));
    memory.settle().unwrap();
}

/// Dropped, the queue stops its port and closes the streams that wait.
#[test]
fn a_dropped_queue_stops_listening() {
    let memory = MemoryReactor::new();
    let endpoint = server_from_string(memory.reactor(), "tcp:7").unwrap();
    let incoming = accept_streams(&endpoint, 0).take_result().unwrap().unwrap();
    let peer = memory.connect(7).unwrap();
    memory.settle().unwrap();
    assert_eq!(incoming.waiting(), 1, "at least one may wait");
    let port = incoming.port().clone();
    drop(incoming);
    memory.settle().unwrap();
    assert!(!port.is_listening() && peer.is_ended() && !peer.is_reset());
}

/// A refused attempt fails with its error, and a cancelled one is aborted.
#[test]
fn an_attempt_fails_as_any_other() {
    let memory = MemoryReactor::new();
    let endpoint = client_from_string(memory.reactor(), "tcp:10.9.9.9:7").unwrap();
    let mut refused = connect_stream(&endpoint);
    let attempt = memory.attempts().pop().expect("an attempt");
    attempt.refuse();
    memory.settle().unwrap();
    let failure = refused.take_result().unwrap().unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::Refused { .. })), "{failure}");

    let mut cancelled = connect_stream(&endpoint);
    cancelled.cancel();
    memory.settle().unwrap();
    let failure = cancelled.take_result().unwrap().unwrap_err();
    let is_cancelled = matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. }));
    assert!(is_cancelled || failure.check::<Cancelled>().is_some(), "{failure}");
    assert!(memory.attempts().is_empty());
}

/// Both ends are streams, over sockets and with real endpoints; the futures run on the reactor.
#[test]
fn a_client_and_a_server_talk() {
    let reactor = common::reactor();
    let endpoint = server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap();
    let mut incoming = common::result_of(&reactor, accept_streams(&endpoint, 16)).unwrap();
    let address: SocketAddr = incoming.port().host().socket_addr().unwrap();
    let served = reactor.spawn(async move {
        for _ in 0..3 {
            let mut stream = incoming.accept().await.expect("a connection");
            let mut question = String::new();
            stream.read_to_string(&mut question).await?;
            stream.write_all(question.to_uppercase().as_bytes()).await?;
            stream.close().await?;
        }
        ropewalk::Result::Ok(())
    });
    for question in ["one", "two", "three"] {
        let endpoint = client_from_string(&reactor, &format!("tcp:127.0.0.1:{}", address.port())).unwrap();
        let connecting = connect_stream(&endpoint);
        let answer = reactor.spawn(async move {
            let mut stream = connecting.await?;
            stream.write_all(question.as_bytes()).await?;
            stream.close().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ropewalk::Result::Ok(answer)
        });
        assert_eq!(common::result_of(&reactor, answer).unwrap(), question.to_uppercase());
    }
    common::result_of(&reactor, served).unwrap();
}
