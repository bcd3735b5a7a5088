//! Values of the program's that panic when they are dropped: the loop goes on wherever it drops
//! them. Also the state behind a panic that leaves a turn all the same.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::protocol::BoxedFactory;
use ropewalk::reactor::{Resolver, SIGUSR2};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{
    Address, ConnectOptions, Deferred, Failure, ListenOptions, Phase, Reactor, Result, SystemEvent, Transport,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Panics when it is dropped, and counts that.
#[derive(Debug)]
struct Bomb(Arc<AtomicUsize>);

impl Bomb {
    fn of(count: &Arc<AtomicUsize>) -> Self {
        Self(Arc::clone(count))
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("of a drop");
    }
}

impl Factory for Bomb {
    type Protocol = Script;

    /// Protocols that end their connection at once.
    fn build_protocol(&mut self, _: &Address) -> Option<Script> {
        Some(Script::new(&Log::default()).made(|transport| {
            transport.lose_connection();
            Ok(())
        }))
    }
}

impl Protocol for Bomb {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.lose_connection();
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Producer for Bomb {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        consumer.lose_connection();
        consumer.unregister_producer();
        Ok(())
    }

    fn stop_producing(&mut self, _: &Transport) {}
}

impl Resolver for Bomb {
    fn resolve(&self, _: &Reactor, _: &str, _: u16) -> Deferred<Vec<SocketAddr>> {
        Deferred::succeed(Vec::new())
    }
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct BombError(#[expect(dead_code, reason = "it is there to be dropped")] Bomb);

impl fmt::Display for BombError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error with a drop")
    }
}

impl std::error::Error for BombError {}

type Plant = fn(&Reactor, Bomb);

/// A connection from inside the reactor to `server`'s protocols.
fn join(reactor: &Reactor, server: impl Factory, client: impl Factory) {
    let (_, address) = listen(reactor, server);
    drop(connect(reactor, address, client).add_both(|_| ()));
}

/// Every place in which the engine drops a value of the program's.
const PLACES: [(&str, Plant); 22] = [
    ("a client's factory", |reactor, bomb| join(reactor, |_| Some(Echo), bomb)),
    ("a server's factory", |reactor, bomb| join(reactor, bomb, |_| Some(Echo))),
    ("the factory of a client that is refused", |reactor, bomb| {
        let (_socket, address) = refusing();
        drop(connect(reactor, address, bomb).add_both(|_| ()));
    }),
    ("a client's protocol", |reactor, bomb| {
        let mut bomb = Some(bomb);
        join(reactor, |_| Some(Echo), move |_| bomb.take());
    }),
    ("a server's protocol", |reactor, bomb| {
        let mut bomb = Some(bomb);
        join(reactor, move |_| bomb.take(), |_| Some(Echo));
    }),
    ("a preparation of transports", |reactor, bomb| {
        let factory = BoxedFactory::new(|_| Some(Echo)).prepared(move |transport| {
            let _ = &bomb;
            transport.lose_connection();
            Ok(())
        });
        let (_, address) = listen(reactor, |_| Some(Echo));
        drop(reactor.connect_tcp_boxed(address, &ConnectOptions::new(), factory).add_both(|_| ()));
    }),
    ("a producer", |reactor, bomb| {
        let mut bomb = Some(bomb);
        let script = Script::new(&Log::default())
            .made(move |transport| Ok(transport.register_producer(bomb.take().expect("made once"), Streaming::Pull)?));
        join(reactor, |_| Some(Echo), once(script));
    }),
    ("a timer", |reactor, bomb| {
        reactor.call_later(Duration::ZERO, move || drop(bomb));
    }),
    ("a timer that is not made", |reactor, bomb| {
        reactor.call_later(HOUR, move || drop(bomb));
    }),
    ("a future", |reactor, bomb| {
        let handle = reactor.clone();
        drop(reactor.spawn(async move {
            let _bomb = bomb;
            ropewalk::task::defer_later(&handle, Duration::ZERO, || Ok(())).await
        }));
    }),
    ("what a future gives", |reactor, bomb| {
        let handle = reactor.clone();
        drop(reactor.spawn(async move {
            ropewalk::task::defer_later(&handle, Duration::ZERO, || Ok(())).await?;
            Ok(bomb)
        }));
    }),
    ("a trigger", |reactor, bomb| {
        reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || drop(bomb));
    }),
    ("a job, and what it gives", |reactor, bomb| drop(reactor.defer_to_thread(move || Ok(bomb)))),
    ("a job that does not begin", |reactor, bomb| {
        reactor.suggest_thread_pool_size(0);
        reactor.call_in_thread(move || drop(bomb));
    }),
    ("a job that is cancelled", |reactor, bomb| {
        reactor.suggest_thread_pool_size(0);
        let job = reactor.defer_to_thread(move || {
            drop(bomb);
            Ok(())
        });
        job.cancel();
        drop(job.add_both(|_| ()));
    }),
    ("a callback for a signal", |reactor, bomb| {
        let subscription = reactor.on_signal(SIGUSR2, move || {
            let _ = &bomb;
        });
        drop(subscription.unwrap());
    }),
    ("a callback for a signal that ends with the reactor", |reactor, bomb| {
        let subscription = reactor.on_signal(SIGUSR2, move || {
            let _ = &bomb;
        });
        // It outlives the reactor.
        std::mem::forget(subscription.unwrap());
    }),
    ("a call from a thread", |reactor, bomb| {
        reactor.remote().call_from_thread(move |_| drop(bomb)).unwrap();
    }),
    ("a callback of a connection", |reactor, bomb| {
        let (_, address) = listen(reactor, |_| Some(Echo));
        let connecting = connect(reactor, address, |_| Some(Echo));
        drop(connecting.add_callback(move |connection| {
            connection.transport().lose_connection();
            drop(bomb);
        }));
    }),
    ("what a callback of a connection gives", |reactor, bomb| {
        let (_, address) = listen(reactor, |_| Some(Echo));
        let connecting = connect(reactor, address, |_| Some(Echo));
        drop(connecting.add_both(move |_| Ok(bomb)));
    }),
    ("an errback that is not called", |reactor, bomb| {
        let (_, address) = listen(reactor, |_| Some(Echo));
        let connecting = connect(reactor, address, |_| Some(Echo));
        drop(connecting.add_errback(move |failure| {
            drop(bomb);
            Err::<ropewalk::Connection<Echo>, _>(failure)
        }));
    }),
    ("an error of a protocol", |reactor, bomb| {
        let mut bomb = Some(bomb);
        let script = Script::new(&Log::default())
            .made(move |_| bomb.take().map_or(Ok(()), |bomb| Err(Failure::new(BombError(bomb)))));
        join(reactor, once(script), |_| Some(Echo));
    }),
];

/// Wherever a value of the program's panics when it is dropped, the run ends as it should, the
/// reactor runs again, and closes. The same if it is closed at once.
#[test]
fn a_drop_that_panics_harms_nobody_else() {
    for (place, plant) in PLACES {
        for runs in [2, 0] {
            let count = Arc::new(AtomicUsize::new(0));
            let reactor = reactor();
            let ((), _log) = logged(|| {
                plant(&reactor, Bomb::of(&count));
                for _ in 0..runs {
                    let handle = reactor.clone();
                    reactor.call_later(Duration::from_millis(20), move || handle.stop().unwrap());
                    run(&reactor).expect(place);
                }
                reactor.close().expect(place);
            });
            await_count(&count, place);
        }
    }
}

/// Waits for a thread that drops it.
#[track_caller]
fn await_count(count: &AtomicUsize, place: &str) {
    let until = std::time::Instant::now() + LIMIT;
    while count.load(Ordering::SeqCst) == 0 {
        assert!(std::time::Instant::now() < until, "{place}: it was not dropped");
        std::thread::yield_now();
    }
}

/// A closed reactor catches panics when it drops the values that it is given.
#[test]
fn what_a_closed_reactor_is_given_is_dropped_guarded() {
    let count = Arc::new(AtomicUsize::new(0));
    let reactor = reactor();
    reactor.close().unwrap();
    let ((), errors) = logged(|| {
        let bomb = Bomb::of(&count);
        reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || drop(bomb));
        let bomb = Bomb::of(&count);
        let job = reactor.defer_to_thread(move || {
            drop(bomb);
            Ok(())
        });
        drop(job.add_both(|_| ()));
    });
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let named = ["a trigger", "a job"].map(|name| format!("{name} panicked when it was dropped"));
    assert!(named.iter().all(|name| errors.iter().any(|line| line.contains(name))), "{errors:?}");
}

/// A resolver that panics when it is dropped does not keep its reactor from closing.
#[test]
fn a_resolver_that_panics_when_it_is_dropped() {
    let count = Arc::new(AtomicUsize::new(0));
    let reactor = Reactor::builder().signals(false).resolver(Bomb::of(&count)).build().unwrap();
    let (closed, errors) = logged(|| reactor.close());
    closed.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(errors.len() == 1 && errors[0].contains("a resolver panicked when it was dropped"), "{errors:?}");
}

/// A canceller and a value that panic when a Deferred drops them do not disturb the code that fires
/// it.
#[test]
fn a_deferred_drops_what_it_was_given_guarded() {
    let count = Arc::new(AtomicUsize::new(0));
    let bomb = || Bomb::of(&count);
    let ((), errors) = logged(|| {
        let canceller = bomb();
        let (promise, deferred) = Promise::with_canceller(move || drop(canceller));
        let value = bomb();
        drop(deferred.add_callback(move |()| Ok(value)));
        promise.callback(()).unwrap();
    });
    assert_eq!(count.load(Ordering::SeqCst), 2, "{errors:?}");
    let named = ["a canceller", "the result of a Deferred"];
    assert!(named.iter().all(|name| errors.iter().any(|line| line.contains(name))), "{errors:?}");
}

/// A log that panics once, with an error: it runs unguarded in a turn.
struct PanickingLog(AtomicBool);

impl tracing::Subscriber for PanickingLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        assert!(self.0.swap(true, Ordering::SeqCst), "of the log");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A panic that gets out of a turn ends the run with it; the reactor is not running then, runs
/// again, and tells those that had still to be told.
#[test]
fn a_panic_that_leaves_the_loop_loses_nothing() {
    let (reactor, log) = (reactor(), Log::default());
    let transports: Rc<RefCell<Vec<Transport>>> = Rc::default();
    let (own, kept) = (log.clone(), Rc::clone(&transports));
    let (_port, address) = listen(&reactor, move |_| {
        let (kept, own) = (Rc::clone(&kept), own.clone());
        let made = move |transport: &Transport| {
            kept.borrow_mut().push(transport.clone());
            Ok(())
        };
        Some(Script::new(&own).made(made).lost(|_| panic!("of connection_lost")))
    });
    let _clients: Vec<_> = (0..3).map(|_| dial(address)).collect();
    run_until(&reactor, || transports.borrow().len() == 3);
    let (closing, handle) = (Rc::clone(&transports), reactor.clone());
    reactor.call_later(Duration::ZERO, move || {
        closing.borrow().iter().for_each(Transport::abort_connection);
        handle.call_later(Duration::ZERO, || ());
    });
    let log_panics = || tracing::subscriber::with_default(PanickingLog(AtomicBool::new(false)), || run(&reactor));
    assert!(catch_unwind(AssertUnwindSafe(log_panics)).is_err(), "the panic of the log was caught");
    assert!(!reactor.is_running());
    assert_eq!(log.count("lost"), 1);
    let handle = reactor.clone();
    reactor.call_later(Duration::from_millis(1), move || handle.stop().unwrap());
    let (result, _) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(log.count("lost"), 3, "none is forgotten");
    assert!(matches!(reactor.stop(), Err(ReactorError::NotRunning)));
    let listening = reactor.listen_tcp(loopback(), &ListenOptions::new(), |_| Some(Echo));
    listening.expect("it works as before");
}
