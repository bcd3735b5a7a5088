//! Factories and endpoints of every form that a program may hold them in: closures, boxes,
//! references, shared pointers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint, connect_protocol};
use ropewalk::interfaces::*;
use ropewalk::testing::{AccumulatingProtocol, MemoryReactor, VirtualClock};
use ropewalk::{Address, Result, Transport, for_protocol};

/// Writes its number.
struct Numbered(u8);

impl Protocol for Numbered {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(&[self.0]);
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(MemoryReactor::HOST, port)
}

/// The bytes that the protocol of a connection to `port` writes.
fn greeting(memory: &MemoryReactor, port: u16) -> Vec<u8> {
    memory.connect(port).unwrap().read()
}

/// A factory of a closure builds a protocol for each connection; the closure may count, and may
/// look at the peer.
#[test]
fn a_closure_builds_each_protocol() {
    let memory = MemoryReactor::new();
    let mut next = 0;
    let counting = for_protocol(move |_| {
        next += 1;
        Numbered(next)
    });
    TcpServerEndpoint::bind_to(memory.reactor(), at(1)).listen(counting).or_log("listening");
    assert_eq!(greeting(&memory, 1), [1]);
    assert_eq!(greeting(&memory, 1), [2]);

    let by_peer = for_protocol(|peer| Numbered(u8::from(matches!(peer, Address::Inet(_)))));
    TcpServerEndpoint::bind_to(memory.reactor(), at(2)).listen(by_peer).or_log("listening");
    assert_eq!(greeting(&memory, 2), [1]);
}

/// Counts its starts and stops in `running`, and refuses all but the first peer.
struct Exclusive {
    running: Rc<Cell<i32>>,
    is_taken: bool,
}

impl Factory for Exclusive {
    type Protocol = Numbered;

    fn build_protocol(&mut self, _peer: &Address) -> Option<Numbered> {
        (!std::mem::replace(&mut self.is_taken, true)).then_some(Numbered(9))
    }

    fn do_start(&mut self) {
        self.running.set(self.running.get() + 1);
    }

    fn do_stop(&mut self) {
        self.running.set(self.running.get() - 1);
    }
}

/// A boxed factory is started, asked and stopped as the factory in it is; factories of different
/// types fit into one list.
#[test]
fn a_boxed_factory_is_a_factory() {
    let memory = MemoryReactor::new();
    let running = Rc::new(Cell::new(0));
    let factories: [Box<dyn Factory<Protocol = Numbered>>; 3] = [
        Box::new(Exclusive { running: Rc::clone(&running), is_taken: false }),
        Box::new(|_| Some(Numbered(1))),
        Box::new(for_protocol(|_| Numbered(2))),
    ];
    let mut ports = Vec::new();
    for (number, factory) in (1..).zip(factories) {
        let mut listening = TcpServerEndpoint::bind_to(memory.reactor(), at(number)).listen(factory);
        ports.push(listening.take_result().unwrap().unwrap());
    }
    assert_eq!(running.get(), 1);
    assert_eq!([1, 2, 3].map(|port| greeting(&memory, port)), [[9], [1], [2]]);
    assert!(greeting(&memory, 1).is_empty(), "the second peer is refused");
    ports.remove(0).stop_listening().or_log("stopping");
    memory.settle().unwrap();
    assert_eq!(running.get(), 0);
}

/// Endpoints listen and connect through references and shared pointers to trait objects, as through
/// boxes.
#[test]
fn pointers_to_endpoints_listen_and_connect() {
    fn listen_by_reference(endpoint: &dyn ServerEndpoint) {
        endpoint.listen(for_protocol(|_| Numbered(1))).or_log("listening");
    }
    fn listen_by_value(endpoint: impl ServerEndpoint) {
        endpoint.listen(for_protocol(|_| Numbered(2))).or_log("listening");
    }
    fn connect_by_reference(endpoint: &dyn ClientEndpoint) {
        endpoint.connect(for_protocol(|_| Numbered(1))).or_log("connecting");
    }
    fn connect_by_value(endpoint: impl ClientEndpoint) {
        endpoint.connect(for_protocol(|_| Numbered(2))).or_log("connecting");
    }

    let memory = MemoryReactor::new();
    let server = |port| TcpServerEndpoint::bind_to(memory.reactor(), at(port));
    let shared: Rc<dyn ServerEndpoint> = Rc::new(server(1));
    listen_by_reference(&*shared);
    let second: &dyn ServerEndpoint = &server(2);
    listen_by_value(second);
    let shared: Rc<dyn ServerEndpoint> = Rc::new(server(3));
    shared.listen(for_protocol(|_| Numbered(3))).or_log("listening");
    let boxed: Box<dyn ServerEndpoint> = Box::new(Rc::new(server(4)));
    listen_by_value(boxed);
    assert_eq!([1, 2, 3, 4].map(|port| greeting(&memory, port)), [[1], [2], [3], [2]]);

    let client = |port| TcpClientEndpoint::new(memory.reactor(), at(port));
    let shared: Rc<dyn ClientEndpoint> = Rc::new(client(11));
    connect_by_reference(&*shared);
    connect_by_value(&*shared);
    connect_by_value(Rc::clone(&shared));
    shared.connect(for_protocol(|_| Numbered(3))).or_log("connecting");
    connect_protocol(&shared, AccumulatingProtocol::new()).or_log("connecting");
    let boxed: Box<dyn ClientEndpoint> = Box::new(client(12));
    connect_by_reference(&boxed);
    let ports: Vec<_> = memory.attempts().iter().map(|attempt| attempt.to().port()).collect();
    assert_eq!(ports, [Some(11), Some(11), Some(11), Some(11), Some(11), Some(12)]);
}

/// Writes the seconds that a clock shows.
struct Watch<C>(C);

impl<C: Clock + 'static> Protocol for Watch<C> {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(self.0.seconds().as_secs().to_string().as_bytes());
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A factory may be made by a function of any clock, by a borrowed one of which it keeps the timers
/// or by one that it keeps itself: with a reactor in the program, and a virtual clock in a test.
#[test]
fn a_function_of_a_clock_makes_a_factory() {
    fn of_timers(clock: &(impl Clock + ?Sized)) -> impl Factory {
        let timers = clock.timers().clone();
        for_protocol(move |_| Watch(timers.clone()))
    }
    fn of_clock<C: Clock + Clone + 'static>(clock: &C) -> impl Factory<Protocol = Watch<C>> {
        let clock = clock.clone();
        for_protocol(move |_| Watch(clock.clone()))
    }
    fn of_a_trait_object(clock: &dyn Clock) -> impl Factory {
        of_timers(clock)
    }
    let memory = MemoryReactor::new();
    let clock = VirtualClock::new();
    clock.advance(Duration::from_secs(60));
    memory.advance(Duration::from_secs(7)).unwrap();
    let endpoint = |port| TcpServerEndpoint::bind_to(memory.reactor(), at(port));
    endpoint(1).listen(of_timers(memory.reactor())).or_log("listening");
    endpoint(2).listen(of_clock(memory.reactor())).or_log("listening");
    endpoint(3).listen(of_a_trait_object(memory.reactor())).or_log("listening");
    endpoint(4).listen(of_timers(&clock)).or_log("listening");
    endpoint(5).listen(of_clock(&clock)).or_log("listening");
    assert_eq!((1..=5).map(|port| greeting(&memory, port)).collect::<Vec<_>>(), [b"7", b"7", b"7", &b"60"[..], b"60"]);
}
