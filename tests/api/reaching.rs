//! A protocol that is reached from outside of its callbacks, its own included: from Deferreds that
//! fire inside of it, from timers, from other connections, and through protocols that wrap it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::{Cancelled, Promise};
use ropewalk::error::{ConnectionClosed, Unavailable};
use ropewalk::interfaces::*;
use ropewalk::protocol::Connection;
use ropewalk::testing::{PumpOptions, StringTransport, Witness, Witnessed};
use ropewalk::{Deferred, Failure, Result, Transport};

/// A client of requests and replies of one byte each, in order.
#[derive(Default)]
struct Asking {
    waiting: VecDeque<Promise<u8>>,
    log: Log,
}

impl Asking {
    fn ask(&mut self, transport: &Transport, request: u8) -> Deferred<u8> {
        let (promise, reply) = Promise::new();
        self.waiting.push_back(promise);
        transport.write(&[request]);
        reply
    }
}

impl Protocol for Asking {
    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.log.add(format!("data {data:?}"));
        for byte in data {
            let promise = self.waiting.pop_front().ok_or_else(|| Failure::message("a reply to nothing"))?;
            promise.callback(*byte)?;
        }
        self.log.add("returned");
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        for promise in self.waiting.drain(..) {
            let _ = promise.errback(reason.clone());
        }
    }
}

/// Asks, and asks again with what came, until it is 5.
fn chain(connection: &Connection<Asking>, log: &Log, request: u8) -> Deferred<u8> {
    let (again, said) = (connection.clone(), log.clone());
    connection.later(move |asking, transport| asking.ask(transport, request)).add_callback(move |reply| {
        said.add(format!("reply {reply}"));
        if reply < 5 { chain(&again, &said, reply) } else { Deferred::succeed(reply) }
    })
}

/// Commands in a chain, each asked for from inside the callback that has the reply before: over a
/// reactor.
#[test]
fn a_chain_of_commands() {
    let (reactor, log) = (reactor(), Log::default());
    let counting = |transport: &Transport, data: &[u8]| {
        data.iter().for_each(|byte| transport.write(&[byte + 1]));
        Ok(())
    };
    let (_port, address) = listen(&reactor, move |_| Some(Script::new(&Log::default()).data(counting)));
    let own = log.clone();
    let connecting = connect(&reactor, address, move |_| Some(Asking { log: own.clone(), ..Asking::default() }));
    let connection = result_of(&reactor, connecting).unwrap();
    assert_eq!(result_of(&reactor, chain(&connection, &log, 0)).unwrap(), 5);
    let expected = (1..=5).flat_map(|n| [format!("data [{n}]"), format!("reply {n}"), "returned".into()]);
    assert_eq!(log.all(), expected.collect::<Vec<_>>());
}

/// A protocol that asks for more of itself from inside its callback.
struct Eager(Log);

impl Protocol for Eager {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let connection = transport.connection::<Self>();
        assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Busy));
        for n in 0..3 {
            let again = connection.clone();
            let waiting = connection.later(move |eager, transport| {
                eager.0.add(format!("later {n}"));
                transport.write(&[b'0' + n]);
                // Behind those that wait already.
                drop(again.later(move |eager, _| eager.0.add(format!("later {n} again"))));
                eager.0.add(format!("end of {n}"));
            });
            assert!(!waiting.is_called());
            drop(waiting);
        }
        self.0.add(format!("data {data:?}"));
        Ok(())
    }
}

const ORDER: [&str; 10] = [
    "data [1]",
    "later 0",
    "end of 0",
    "later 1",
    "end of 1",
    "later 2",
    "end of 2",
    "later 0 again",
    "later 1 again",
    "later 2 again",
];

/// In order, never nested, and before anything else happens to the connection.
#[test]
fn calls_wait_until_the_protocol_is_free() {
    let log = Log::default();
    let connection = StringTransport::new().joined(Eager(log.clone()));
    connection.deliver(&[1]);
    assert_eq!(log.all(), ORDER);
    assert_eq!(connection.string().value(), b"012");

    let (reactor, log) = (reactor(), Log::default());
    let eager = log.clone();
    let (_port, address) = listen(&reactor, move |_| Some(Eager(eager.clone())));
    let mut client = Client::connect(&reactor, address);
    client.send(&[1]);
    run_until(&reactor, || client.answered(b"012"));
    assert_eq!(log.all(), ORDER);
}

/// A call that comes while none runs is made at once; one that comes during `with`, behind that.
#[test]
fn a_free_protocol_is_called_at_once() {
    let log = Log::default();
    let joined = StringTransport::new().joined(Eager(log.clone()));
    let connection = joined.connection().clone();
    let mut now = connection.later(|_, _| Ok(7));
    assert_eq!(now.take_result().unwrap().unwrap(), 7);
    let within = connection.with(|eager, transport| {
        let waiting = transport.connection::<Eager>().later(|eager, _| eager.0.add("behind"));
        eager.0.add("within");
        (waiting.is_called(), waiting)
    });
    let (called, waiting) = within.unwrap();
    assert!(!called && waiting.is_called());
    assert_eq!(log.all(), ["within", "behind"]);
}

/// A connection that is over first: the waiting calls fail, in their order, and are dropped.
#[test]
fn calls_that_come_too_late_are_told() {
    let log = Log::default();
    let joined = StringTransport::new().joined(Asking::default());
    let connection = joined.connection().clone();
    joined.lose(ConnectionClosed::Reset { unsent: 0 });
    let mut late = connection.later(|_, _| Ok("there is none"));
    assert_eq!(late.take_result().unwrap().unwrap_err().check(), Some(&Unavailable::Gone));

    // Calls that wait for a protocol in its last callback, and then fail.
    let said = log.clone();
    let script = Script::new(&log).lost(move |_| {});
    let joined = StringTransport::new().joined(script);
    let transport = joined.transport().clone();
    let waiting = joined.with(|_, transport| {
        transport.abort_connection();
        transport.connection::<Script>().later(|_, _| Ok("it was there still"))
    });
    let mut waiting = waiting.unwrap();
    assert_eq!(waiting.take_result().unwrap().unwrap(), "it was there still");
    let mut gone = transport.connection::<Script>().later(move |_, _| said.add("called"));
    assert_eq!(gone.take_result().unwrap().unwrap_err().check(), Some(&Unavailable::Gone));
    assert!(!log.has("called"));
}

/// A failure that a protocol is to be told of is not lost with the connection.
#[test]
fn a_failure_for_a_protocol_that_has_gone_is_kept() {
    let joined = StringTransport::new().joined(Asking::default());
    let connection = joined.connection().clone();
    let reply = joined.with(|asking, transport| asking.ask(transport, 1)).unwrap();
    let mut told = reply.then_with(&connection, |_, _, reply| reply);
    joined.lose(ConnectionClosed::Reset { unsent: 0 });
    let failure = told.take_result().unwrap().unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectionClosed::Reset { .. })), "{failure}");
    let mut gone = Deferred::succeed(1).then_with(&connection, |_, _, value| value);
    assert_eq!(gone.take_result().unwrap().unwrap_err().check(), Some(&Unavailable::Gone));
}

/// A result is handed to a method when the protocol is free: here from inside `data_received`,
/// twice.
#[test]
fn a_result_is_handed_to_a_method() {
    let echo = Script::new(&Log::default()).data(|transport, data| {
        transport.write(data);
        Ok(())
    });
    let pump = PumpOptions::new().connect(Asking::default(), echo);
    let connection = pump.client().connection().clone();
    let again = connection.clone();
    let first = pump.client().with(|asking, transport| asking.ask(transport, 3)).unwrap();
    let mut sum = first.then_with(&connection, move |asking, transport, reply| {
        let second = match reply {
            Ok(first) => asking.ask(transport, first + 1).add_callback(move |second| Ok(first + second)),
            Err(failure) => Deferred::fail(failure),
        };
        second.then_with(&again, |asking, _, sum| {
            asking.log.add("the sum");
            sum
        })
    });
    pump.flush();
    assert_eq!(sum.take_result().unwrap().unwrap(), 7);
    let log = pump.client().with(|asking, _| asking.log.all()).unwrap();
    assert_eq!(log, ["data [3]", "returned", "data [4]", "returned", "the sum"]);
}

/// A call that panics or fails has its Deferred fail, and the connection goes on.
#[test]
fn a_call_that_fails_is_its_own_affair() {
    let joined = StringTransport::new().joined(Eager(Log::default()));
    let connection = joined.connection();
    let mut failed = connection.later(|_, _| Err::<(), _>(Failure::message("no")));
    assert_eq!(failed.take_result().unwrap().unwrap_err().to_string(), "no");
    let mut panicked = connection.later(|_, _| -> Result<()> { panic!("the rope broke") });
    assert!(panicked.take_result().unwrap().unwrap_err().to_string().contains("the rope broke"));
    assert!(joined.lost().is_none() && connection.with(|_, _| ()).is_ok());
}

/// A call that was cancelled while it waited is not made.
#[test]
fn a_cancelled_call_is_not_made() {
    let log = Log::default();
    let joined = StringTransport::new().joined(Eager(log.clone()));
    let cancelled = joined.with(|_, transport| {
        let mut waiting = transport.connection::<Eager>().later(|eager, _| eager.0.add("called"));
        waiting.cancel();
        waiting.take_result().unwrap().unwrap_err()
    });
    assert!(cancelled.unwrap().check::<Cancelled>().is_some());
    assert!(log.all().is_empty());
}

/// A value that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the rope broke");
    }
}

/// A waiting call that is dropped instead of made, cancelled or for another protocol, harms nothing
/// by what it holds.
#[test]
fn a_waiting_call_is_dropped_guarded() {
    let log = Log::default();
    let joined = StringTransport::new().joined(Eager(log.clone()));
    let ((), lines) = logged(|| {
        let dropped = joined.with(|_, transport| {
            let (cancelled, other) = (Bomb, Bomb);
            let waiting = transport.connection::<Eager>().later(move |_, _| drop(cancelled));
            waiting.cancel();
            drop(waiting.add_errback(|_| ()));
            drop(transport.connection::<Asking>().later(move |_, _| drop(other)).add_errback(|_| ()));
            drop(transport.connection::<Eager>().later(|eager, _| eager.0.add("behind")));
        });
        assert!(dropped.is_ok());
    });
    assert_eq!(log.all(), ["behind"]);
    assert_eq!(
        lines.iter().filter(|line| line.contains("a waiting call panicked when it was dropped")).count(),
        2,
        "{lines:?}"
    );
    assert!(joined.lost().is_none() && joined.connection().with(|_, _| ()).is_ok());
}

/// Passes everything on.
struct Wrapper<P>(P);

impl<P: Protocol> Protocol for Wrapper<P> {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.0.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.0.data_received(transport, data)
    }

    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some(&mut self.0)
    }
}

/// A protocol reaches itself through those that wrap it, boxes too; and each of them is reached as
/// what it is.
#[test]
fn a_wrapped_protocol_reaches_itself() {
    let log = Log::default();
    let boxed: Box<dyn Protocol> = Box::new(Witness::new().protocol(Wrapper(Eager(log.clone()))));
    let joined = StringTransport::new().joined(Wrapper(boxed));
    joined.deliver(&[1]);
    assert_eq!(log.all(), ORDER);
    let transport = joined.transport();
    assert!(transport.connection::<Wrapper<Box<dyn Protocol>>>().with(|_, _| ()).is_ok());
    assert!(transport.connection::<Box<dyn Protocol>>().with(|_, _| ()).is_ok());
    assert!(transport.connection::<Witnessed<Wrapper<Eager>>>().with(|_, _| ()).is_ok());
    assert!(transport.connection::<Wrapper<Eager>>().with(|_, _| ()).is_ok());
    let other = transport.connection::<Asking>();
    assert_eq!(other.with(|_, _| ()), Err(Unavailable::OtherProtocol));
    let mut later = other.later(|_, _| ());
    assert_eq!(later.take_result().unwrap().unwrap_err().check(), Some(&Unavailable::OtherProtocol));
}

/// One connection reaches another from inside its callback, and itself through that.
#[test]
fn connections_reach_each_other() {
    type Peers = Rc<RefCell<Vec<Connection<Chatting>>>>;
    struct Chatting(Peers);
    impl Protocol for Chatting {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            self.0.borrow_mut().push(transport.connection());
            Ok(())
        }

        fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
            for peer in &*self.0.borrow() {
                let line = data.to_vec();
                drop(peer.later(move |_, transport| transport.write(&line)));
            }
            Ok(())
        }
    }
    let (reactor, peers) = (reactor(), Peers::default());
    let all = Rc::clone(&peers);
    let (_port, address) = listen(&reactor, move |_| Some(Chatting(Rc::clone(&all))));
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&reactor, address)).collect();
    run_until(&reactor, || peers.borrow().len() == 3);
    clients[1].send(b"hello");
    for client in &mut clients {
        run_until(&reactor, || client.answered(b"hello"));
    }
}

/// The clock at hand: the reactor's, the pump's, or the transport's own; of a reactor that is
/// closed, one that calls nothing.
#[test]
fn a_transport_has_timers() {
    let closes_after = |after: Duration| {
        move |transport: &Transport| {
            let over = transport.clone();
            transport.timers().call_later(after, move || over.lose_connection());
            Ok(())
        }
    };
    let second = Duration::from_secs(1);
    let joined = StringTransport::new().joined(Script::new(&Log::default()).made(closes_after(2 * second)));
    joined.advance(second);
    assert!(joined.lost().is_none());
    joined.advance(second);
    assert!(joined.lost().is_some());

    let pump = PumpOptions::new()
        .connect(Script::new(&Log::default()), Script::new(&Log::default()).made(closes_after(2 * second)));
    pump.advance(2 * second);
    assert!(pump.server().lost().is_some());

    let (reactor, log) = (reactor(), Log::default());
    let kept = Rc::default();
    let script = Script::new(&log).made(closes_after(Duration::from_millis(1))).transport_into(&kept);
    let (_port, address) = listen(&reactor, once(script));
    let client = dial(address);
    run_until(&reactor, || log.is_over());
    drop(client);
    let transport: Transport = kept.take().unwrap();
    assert_eq!(&transport.timers(), reactor.timers());
    reactor.close().unwrap();
    drop(reactor);
    assert!(!transport.timers().call_later(second, || {}).active());
}

/// Time passes from deadline to deadline: what a timer asked for has happened before the next is
/// called.
#[test]
fn time_passes_deadline_by_deadline() {
    let log = Log::default();
    let joined = StringTransport::new().joined(Script::new(&log));
    let timers = joined.transport().timers();
    for n in 1..=3_u8 {
        let (transport, seen) = (joined.transport().clone(), log.clone());
        timers.call_later(Duration::from_secs(n.into()), move || {
            seen.add(format!("{n}: {}", transport.is_disconnected()));
            transport.lose_connection();
        });
    }
    joined.advance(Duration::from_secs(10));
    assert_eq!(log.all()[..2], ["made", "1: false"]);
    assert!(log.has("2: true") && log.has("3: true"), "{:?}", log.all());
    assert_eq!(joined.string().clock().seconds(), Duration::from_secs(10));
}
