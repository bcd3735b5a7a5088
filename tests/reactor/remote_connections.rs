//! Messages to connections from other threads: each is delivered once, in order, or comes back.

use std::cell::RefCell;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::{Undelivered, UndeliveredReason};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::reactor::RemoteConnection;
use ropewalk::testing::{Network, StringTransport};
use ropewalk::{ConnectOptions, Connection, Connections, Failure, ListenOptions, Reactor, Result, Transport};

/// Writes what it hears, and lists it.
#[derive(Default)]
struct Listener {
    heard: Rc<RefCell<Vec<u32>>>,
    end: Rc<RefCell<Option<String>>>,
}

impl Listener {
    fn hear(&mut self, transport: &Transport, number: u32) -> Result<()> {
        self.heard.borrow_mut().push(number);
        transport.write(format!("{number}\n").as_bytes());
        Ok(())
    }
}

impl Protocol for Listener {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.end.replace(Some(reason.to_string()));
    }
}

/// A connection of a reactor on this thread, and its peer.
struct Joined {
    connection: Connection<Listener>,
    heard: Rc<RefCell<Vec<u32>>>,
    end: Rc<RefCell<Option<String>>>,
    peer: TcpStream,
}

fn join(reactor: &Reactor) -> Joined {
    let (heard, end) = (Rc::default(), Rc::default());
    let listener = Listener { heard: Rc::clone(&heard), end: Rc::clone(&end) };
    let mut listener = Some(listener);
    let (peer, ours) = {
        let listening = std::net::TcpListener::bind(loopback()).unwrap();
        let peer = dial(listening.local_addr().unwrap());
        (peer, listening.accept().unwrap().0)
    };
    let adopting =
        reactor.adopt_stream_connection(ours, &ropewalk::reactor::AdoptOptions::new(), move |_| listener.take());
    let connection = result_of(reactor, adopting.unwrap()).unwrap();
    Joined { connection, heard, end, peer }
}

/// Collects the messages that come back, with their reasons.
fn returns() -> (impl Fn(Undelivered<u32>) + Clone + Send + 'static, Receiver<(u32, UndeliveredReason)>) {
    let (sender, receiver) = mpsc::channel();
    (move |Undelivered { message, reason, .. }| sender.send((message, reason)).unwrap(), receiver)
}

/// Fails the test: the message is expected to be delivered.
fn never<M>(undelivered: Undelivered<M>) {
    panic!("{undelivered}");
}

/// The messages of one thread arrive in their order, and a reactor that sleeps is woken for them.
#[test]
fn messages_arrive_in_order() {
    let reactor = reactor();
    let mut joined = join(&reactor);
    let remote = joined.connection.remote();
    let sender = thread::spawn(move || (0..1000).for_each(|number| remote.send(number, Listener::hear, never)));
    run_until(&reactor, || joined.heard.borrow().len() == 1000);
    sender.join().unwrap();
    assert!(joined.heard.borrow().iter().copied().eq(0..1000));
    let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
    let mut received = vec![0; expected.len()];
    reactor.iterate(Duration::ZERO).unwrap();
    joined.peer.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), expected);
}

/// The handles of one connection are equal, and those of connections of different reactors are not,
/// though both are the first of their reactor.
#[test]
fn a_handle_names_one_connection_of_one_reactor() {
    let (first, second) = (reactor(), reactor());
    let (one, other) = (join(&first), join(&second));
    assert!(one.connection.remote() == one.connection.remote().clone());
    assert!(one.connection.remote() != other.connection.remote());
}

/// A message for a connection that is over comes back on the reactor's thread, also if the
/// connection ends after the message was sent.
#[test]
fn a_closed_connection_gives_the_message_back() {
    let reactor = reactor();
    let joined = join(&reactor);
    let remote = joined.connection.remote();
    let (returned, back) = returns();
    let here = thread::current().id();
    joined.connection.transport().abort_connection();
    run_until(&reactor, || joined.end.borrow().is_some());
    remote.send(1, Listener::hear, {
        let returned = returned.clone();
        move |undelivered| {
            assert_eq!(thread::current().id(), here);
            returned(undelivered);
        }
    });
    assert!(back.try_recv().is_err(), "the reactor has not turned");
    run_until(&reactor, || true);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(back.try_recv().unwrap(), (1, UndeliveredReason::ConnectionGone));
    assert!(joined.heard.borrow().is_empty());
    // A later connection in the same place of the reactor's table is another one.
    let later = join(&reactor);
    remote.send(2, Listener::hear, returned);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(back.try_recv().unwrap(), (2, UndeliveredReason::ConnectionGone));
    assert!(later.heard.borrow().is_empty());
}

/// A reactor that closes gives back the messages that wait, and refuses later ones at once.
#[test]
fn a_closed_reactor_gives_the_messages_back() {
    let reactor = reactor();
    let joined = join(&reactor);
    let (remote, (returned, back)) = (joined.connection.remote(), returns());
    for number in [1, 2] {
        remote.send(number, Listener::hear, returned.clone());
    }
    assert_eq!(reactor.counters().messages_waiting, 2);
    reactor.close().unwrap();
    let waited: Vec<_> = back.try_iter().collect();
    assert_eq!(waited, [(1, UndeliveredReason::ReactorGone), (2, UndeliveredReason::ReactorGone)]);
    thread::spawn(move || {
        remote.send(3, Listener::hear, returned);
        assert_eq!(back.try_recv().unwrap(), (3, UndeliveredReason::ReactorGone));
    })
    .join()
    .unwrap();
    assert!(joined.heard.borrow().is_empty());
}

/// A reactor has room for as many messages as its limit says, whichever connections they are for,
/// and has room again once they are delivered.
#[test]
fn a_full_queue_gives_the_message_back_at_once() {
    let reactor = Reactor::builder().signals(false).message_limit(Some(2)).build().unwrap();
    let (one, other) = (join(&reactor), join(&reactor));
    let (returned, back) = returns();
    one.connection.remote().send(1, Listener::hear, never);
    other.connection.remote().send(2, Listener::hear, never);
    one.connection.remote().send(3, Listener::hear, returned);
    assert_eq!(back.try_recv().unwrap(), (3, UndeliveredReason::QueueFull));
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!((one.heard.take(), other.heard.take()), (vec![1], vec![2]));
    assert_eq!(reactor.counters().messages_waiting, 0);
    one.connection.remote().send(4, Listener::hear, never);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(one.heard.take(), [4]);
}

/// Without a limit there is room for more messages than by default.
#[test]
fn no_limit_is_no_limit() {
    let reactor = Reactor::builder().signals(false).message_limit(None).build().unwrap();
    let joined = join(&reactor);
    let remote = joined.connection.remote();
    (0..70_000).for_each(|number| remote.send(number, |_, _, _| Ok(()), drop));
    assert_eq!(reactor.counters().messages_waiting, 70_000);
}

/// A message whose call fails or panics ends its own connection, with that failure, and no other.
/// The messages behind it come back.
#[test]
fn a_failing_message_ends_its_connection_alone() {
    let reactor = reactor();
    let (fails, panics, goes_on) = (join(&reactor), join(&reactor), join(&reactor));
    let (returned, back) = returns();
    let (_, lines) = logged(|| {
        fails.connection.remote().send((), |_, _, ()| Err("of the message".into()), never);
        panics.connection.remote().send((), |_, _, ()| panic!("of the other message"), never);
        for joined in [&fails, &panics, &goes_on] {
            joined.connection.remote().send(7, Listener::hear, returned.clone());
        }
        run_until(&reactor, || fails.end.borrow().is_some() && panics.end.borrow().is_some());
    });
    assert_eq!(fails.end.take().unwrap(), "of the message");
    assert_eq!(panics.end.take().unwrap(), "a callback panicked: of the other message");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("a call from another thread failed")), "{lines:?}");
    let back: Vec<_> = back.try_iter().collect();
    assert_eq!(back, [(7, UndeliveredReason::ConnectionGone); 2]);
    assert_eq!((goes_on.heard.take(), goes_on.end.take()), (vec![7], None));
}

/// A panic of the function for a message that comes back is logged, and the turn goes on.
#[test]
fn a_panic_of_a_return_is_logged() {
    let reactor = reactor();
    let (gone, open) = (join(&reactor), join(&reactor));
    gone.connection.transport().abort_connection();
    run_until(&reactor, || gone.end.borrow().is_some());
    gone.connection.remote().send(1, Listener::hear, |_| panic!("of the return"));
    open.connection.remote().send(2, Listener::hear, never);
    let (_, lines) = logged(|| reactor.iterate(Duration::ZERO).unwrap());
    assert_eq!(open.heard.take(), [2]);
    assert!(lines[0].contains("a function for an undelivered message failed"), "{lines:?}");
}

/// A protocol inside of a wrapper is reached, and one of another type is not.
#[test]
fn the_type_of_the_protocol_counts() {
    let reactor = reactor();
    let heard: Rc<RefCell<Vec<u32>>> = Rc::default();
    let listener = Listener { heard: Rc::clone(&heard), ..Listener::default() };
    let mut boxed: Option<Box<dyn Protocol>> = Some(Box::new(listener));
    let (_port, address) = listen(&reactor, move |_| boxed.take());
    let connecting = connect(&reactor, address, |_| Some(Echo));
    let client = result_of(&reactor, connecting).unwrap();
    run_until(&reactor, || reactor.counters().accepted == 1);
    // The handle of the client's protocol, with a wrong type.
    let wrong: RemoteConnection<Listener> = client.transport().connection().remote();
    let (returned, back) = returns();
    wrong.send(1, Listener::hear, returned);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(back.try_recv().unwrap(), (1, UndeliveredReason::OtherProtocol));

    let place: Arc<Mutex<Option<RemoteConnection<Listener>>>> = Arc::default();
    let (_port, address) = listen(&reactor, {
        let (place, heard) = (Arc::clone(&place), Rc::clone(&heard));
        move |_| {
            let listener = Named {
                place: Arc::clone(&place),
                inner: Listener { heard: Rc::clone(&heard), ..Listener::default() },
            };
            Some(Box::new(listener) as Box<dyn Protocol>)
        }
    });
    let _peer = dial(address);
    run_until(&reactor, || place.lock().unwrap().is_some());
    let remote = place.lock().unwrap().clone().unwrap();
    remote.send(3, Listener::hear, never);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(heard.take(), [3]);
}

/// Wraps a listener, and puts its handle in a place.
struct Named {
    place: Arc<Mutex<Option<RemoteConnection<Listener>>>>,
    inner: Listener,
}

impl Protocol for Named {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        *self.place.lock().unwrap() = Some(transport.connection().remote());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.inner.data_received(transport, data)
    }

    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some(&mut self.inner)
    }
}

/// A connection that is driven without a reactor gives every message back.
#[test]
fn a_string_transport_has_no_reactor() {
    let joined = StringTransport::new().joined(Listener::default());
    let (returned, back) = returns();
    joined.transport().connection::<Listener>().remote().send(1, Listener::hear, returned);
    assert_eq!(back.try_recv().unwrap(), (1, UndeliveredReason::ConnectionGone));
}

/// A reactor on a simulated network delivers messages, and the network finds no fault in that.
#[test]
fn a_simulated_reactor_delivers() {
    let network = Network::new(1);
    let (there, here) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let reactor = network.reactor(there);
    let heard: Rc<RefCell<Vec<u32>>> = Rc::default();
    let connections = Connections::new();
    let listener = Rc::clone(&heard);
    let factory = connections.for_protocol(move |_, _| Listener { heard: Rc::clone(&listener), ..Listener::default() });
    let to = SocketAddr::from((there, 80));
    let _port = reactor.listen_tcp(to, &ListenOptions::new(), factory).unwrap();
    let client = network.reactor(here);
    let _connected = client.connect_tcp(to, &ConnectOptions::new(), |_| Some(Echo));
    network.run_until(LIMIT, || !connections.is_empty()).unwrap();
    let remote = connections.iter().next().unwrap().remote();
    thread::spawn(move || remote.send(5, Listener::hear, never)).join().unwrap();
    network.run_until(LIMIT, || !heard.borrow().is_empty()).unwrap();
    assert_eq!(heard.take(), [5]);
}

/// An answer fires on the reactor of the asker. It is the result of the call, or the failure that
/// ended the connection, or the message itself if that came back.
#[test]
fn an_answer_comes_back_to_the_asker() {
    let _watchdog = Watchdog::new();
    let here = reactor();
    let (named, handles) = mpsc::channel();
    let serving = thread::spawn(move || {
        let there = reactor();
        let joined = join(&there);
        named.send((joined.connection.remote(), there.remote())).unwrap();
        there.run().unwrap();
        joined.end.take()
    });
    let (remote, other) = handles.recv().unwrap();
    let name = remote.ask(&here, 2, |listener, _transport, number| {
        listener.heard.borrow_mut().push(number);
        Ok(format!("{number} on {:?}", thread::current().id()))
    });
    let expected = format!("2 on {:?}", serving.thread().id());
    assert_eq!(result_of(&here, name).unwrap(), expected);
    let failing = remote.ask(&here, (), |_, _, ()| -> Result<()> { panic!("of the call") });
    let failure = result_of(&here, failing).unwrap_err();
    assert_eq!(failure.check::<Panicked>().unwrap().message, "of the call");
    let late = remote.ask(&here, 9, |_, _, _| Ok(()));
    let undelivered = result_of(&here, late).unwrap_err();
    let undelivered = undelivered.check::<Undelivered<i32>>().unwrap();
    assert_eq!((undelivered.message, undelivered.reason), (9, UndeliveredReason::ConnectionGone));
    other.call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
    assert_eq!(serving.join().unwrap().unwrap(), "a callback panicked: of the call");
    let gone = remote.ask(&here, 10, |_, _, _| Ok(()));
    let undelivered = result_of(&here, gone).unwrap_err();
    assert_eq!(undelivered.check::<Undelivered<i32>>().unwrap().reason, UndeliveredReason::ReactorGone);
}
