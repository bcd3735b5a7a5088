//! Futures that are bound to a connection: they end with it, in their order, before its protocol
//! has its last call.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use crate::common::*;
use ropewalk::deferred::{Cancelled, Promise, Spawner, unhandled};
use ropewalk::error::Unavailable;
use ropewalk::interfaces::*;
use ropewalk::testing::{MemoryReactor, StringConnection, StringTransport, failure_result_of, success_result_of};
use ropewalk::transport::DiscardMode;
use ropewalk::{Connection, Deferred, Failure, ListenOptions, Result, Transport, for_protocol};

/// Logs its drop.
struct Dropped(Log, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add(format!("{} is dropped", self.1));
    }
}

/// A future that never ends, and logs its drop.
async fn endless(log: Log, name: &'static str) -> Result<()> {
    let _dropped = Dropped(log, name);
    pending().await
}

/// A connection of the test kit whose script logs its callbacks, and the spawner of its clock.
fn connection(log: &Log) -> (StringConnection<Script>, Spawner) {
    let connection = StringTransport::new().joined(Script::new(log));
    let spawner = connection.string().clock().spawner().clone();
    (connection, spawner)
}

/// The futures of a lost connection are dropped in the order in which they were spawned, their
/// Deferreds fail, and the last call of the protocol follows. Others go on.
#[test]
fn futures_end_before_the_last_call() {
    let log = Log::default();
    let (connection, spawner) = connection(&log);
    let (bound, free) = (log.clone(), spawner.spawn(pending::<Result<()>>()));
    let ended: Vec<Deferred<()>> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let told = log.clone();
            spawner.spawn_for(connection.transport(), endless(bound.clone(), name)).add_errback(move |failure| {
                assert!(failure.check::<Cancelled>().is_some(), "{failure}");
                told.add(format!("{name} has failed"));
            })
        })
        .collect();
    let before = log.all().len();
    connection.lose("over");
    let lines = log.all();
    assert_eq!(
        lines[before..],
        ["first is dropped", "first has failed", "second is dropped", "second has failed", "lost: over"]
    );
    assert!(ended.iter().all(Deferred::is_called) && !free.is_called());
    assert_eq!(spawner.len(), 1);
}

/// A connection that closes keeps its futures until it is lost, and what they write is sent.
#[test]
fn a_closing_connection_keeps_its_futures() {
    let log = Log::default();
    let memory = MemoryReactor::new();
    let made: Rc<RefCell<Option<Transport>>> = Rc::default();
    let script = Script::new(&log).transport_into(&made);
    memory.reactor().listen_tcp(([0, 0, 0, 0], 7000).into(), &ListenOptions::new(), once(script)).unwrap();
    let peer = memory.connect(7000).unwrap();
    let transport = made.take().expect("it was made");
    let (promise, word) = Promise::<&[u8]>::new();
    let speaks = transport.clone();
    let mut spoken = memory.reactor().spawner().spawn_for(&transport, async move {
        speaks.write(word.await?);
        Ok(())
    });
    transport.write(b"bye, ");
    transport.lose_connection();
    promise.callback(b"and again bye").unwrap();
    let mut last = memory.reactor().spawner().spawn_for(&transport, endless(log.clone(), "the last"));
    memory.settle().unwrap();
    assert!(failure_result_of(&mut last).check::<Cancelled>().is_some());
    success_result_of(&mut spoken);
    assert_eq!(peer.read(), b"bye, and again bye");
    assert!(peer.is_ended() && memory.reactor().spawner().is_empty());
}

/// The Deferred has the result of a future that ends first, its failure included, and the
/// connection goes on.
#[test]
fn a_result_comes_as_that_of_any_future() {
    let log = Log::default();
    let (connection, spawner) = connection(&log);
    let transport = connection.transport();
    assert_eq!(success_result_of(&mut spawner.spawn_for(transport, async { Ok(7) })), 7);
    let (promise, number) = Promise::<u32>::new();
    let mut later = spawner.spawn_for(transport, async move { Ok(number.await? + 1) });
    let mut fails = spawner.spawn_for(transport, async { Err::<(), Failure>("no".into()) });
    assert_eq!(failure_result_of(&mut fails).to_string(), "no");
    promise.callback(1).unwrap();
    connection.string().advance(std::time::Duration::ZERO);
    assert_eq!(success_result_of(&mut later), 2);
    let ((), unhandled) = unhandled::collect(|| connection.lose("over"));
    assert!(unhandled.is_empty() && spawner.is_empty());
}

/// A Deferred that nothing handles reports the cancellation, as that of `spawn` does.
#[test]
fn a_dropped_deferred_reports_its_failure() {
    let log = Log::default();
    let (connection, spawner) = connection(&log);
    drop(spawner.spawn_for(connection.transport(), endless(log.clone(), "it")));
    assert_eq!(spawner.len(), 1);
    let ((), unhandled) = unhandled::collect(|| connection.lose("over"));
    assert_eq!(unhandled.len(), 1);
    assert!(unhandled[0].failure.check::<Cancelled>().is_some());
    assert!(log.has("it is dropped"));
}

/// A connection that is over takes no future: it is dropped, and was never polled. So it is in the
/// last call of the protocol, and in the callbacks of futures that end with the connection.
#[test]
fn a_connection_that_is_over_takes_none() {
    let log = Log::default();
    let refused: Rc<RefCell<Vec<Deferred<()>>>> = Rc::default();
    let (last, losing) = (log.clone(), Rc::clone(&refused));
    let string = StringTransport::new();
    let spawner = string.clock().spawner().clone();
    let spawns = spawner.clone();
    let connection = string.joined(Script::new(&log).lost(move |transport| {
        losing.borrow_mut().push(spawns.spawn_for(transport, polled(last.clone())));
    }));
    let transport = connection.transport().clone();
    let (inside, ending, spawns) = (log.clone(), Rc::clone(&refused), spawner.clone());
    let of_errback = transport.clone();
    let ended = spawner.spawn_for(&transport, endless(log.clone(), "it")).add_errback(move |_| {
        ending.borrow_mut().push(spawns.spawn_for(&of_errback, polled(inside)));
    });
    connection.lose("over");
    assert!(ended.is_called());
    refused.borrow_mut().push(spawner.spawn_for(&transport, polled(log.clone())));
    assert_eq!(refused.borrow().len(), 3);
    for refused in &mut *refused.borrow_mut() {
        assert!(failure_result_of(refused).check::<Cancelled>().is_some());
    }
    assert!(!log.has("it was polled") && spawner.is_empty());
}

async fn polled(log: Log) -> Result<()> {
    log.add("it was polled");
    pending().await
}

/// `discard` calls nothing, also in the middle of a callback. The futures end in the next turn, and
/// one that discards its own connection ends with its poll.
#[test]
fn a_discarded_connection_ends_its_futures_in_the_next_turn() {
    let log = Log::default();
    let string = StringTransport::new();
    let (clock, spawner) = (string.clock().clone(), string.clock().spawner().clone());
    let during = log.clone();
    let connection = string.joined(Script::new(&log).data(move |transport, _| {
        transport.discard(DiscardMode::End);
        assert!(!during.has("it is dropped"));
        Ok(())
    }));
    let mut ended = spawner.spawn_for(connection.transport(), endless(log.clone(), "it"));
    connection.deliver(b"?");
    clock.advance(std::time::Duration::ZERO);
    assert!(failure_result_of(&mut ended).check::<Cancelled>().is_some());
    assert!(log.has("it is dropped") && spawner.is_empty());

    let (connection, spawner) = self::connection(&log);
    let transport = connection.transport().clone();
    let mut own = spawner.spawn_for(connection.transport(), async move {
        transport.discard(DiscardMode::Reset);
        pending::<Result<()>>().await
    });
    assert!(failure_result_of(&mut own).check::<Cancelled>().is_some());
    assert!(spawner.is_empty());
}

/// Counts received bytes, each in a future of its own.
struct Busy {
    spawner: Spawner,
    count: Rc<Cell<u32>>,
}

impl Protocol for Busy {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let connection: Connection<Self> = transport.connection();
        let end = self.spawner.spawn_for(transport, pending::<Result<()>>());
        end.add_errback(move |failure| {
            assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone));
            failure.trap::<Cancelled>().map(drop)
        })
        .or_log("the end");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for _ in data {
            let connection: Connection<Self> = transport.connection();
            let counts = self.spawner.spawn_for(transport, async move {
                connection.later(|busy, _| busy.count.set(busy.count.get() + 1)).await
            });
            counts.or_log("counting");
        }
        Ok(())
    }
}

/// Thousands of short futures of a long connection leave nothing behind.
#[test]
fn short_futures_of_a_long_connection() {
    let memory = MemoryReactor::new();
    let (spawner, count) = (memory.reactor().spawner().clone(), Rc::<Cell<u32>>::default());
    let counted = Rc::clone(&count);
    let factory = for_protocol(move |_| Busy { spawner: spawner.clone(), count: Rc::clone(&counted) });
    memory.reactor().listen_tcp(([0, 0, 0, 0], 7000).into(), &ListenOptions::new(), factory).unwrap();
    let peer = memory.connect(7000).unwrap();
    for _ in 0..100 {
        peer.write(&[b'x'; 50]).unwrap();
        memory.settle().unwrap();
        assert_eq!(memory.reactor().spawner().len(), 1);
    }
    assert_eq!(count.get(), 5000);
    let ((), unhandled) = unhandled::collect(|| {
        peer.close();
        memory.settle().unwrap();
    });
    assert!(unhandled.is_empty(), "{unhandled:?}");
    assert!(memory.reactor().spawner().is_empty());
}
