//! The end of a reactor's life: closed, or dropped with its last handle. Nothing keeps a closed
//! reactor, everything it had knows of its end, and every call says so.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::{Abandoned, Promise};
use ropewalk::error::{ConnectError, ListenError, ReactorError, ReactorGone, Unavailable};
use ropewalk::interfaces::*;
use ropewalk::reactor::Resolver;
use ropewalk::task::LoopingCall;
use ropewalk::testing::Network;
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{
    Address, Connection, Deferred, Failure, ListenOptions, Phase, Port, Reactor, Result, SystemEvent, Transport,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Values that a reactor is given to keep: a handle of that reactor, and one that shows when it is
/// dropped.
struct Kept {
    _reactor: Reactor,
    _token: Rc<()>,
}

impl Kept {
    fn new(reactor: &Reactor, token: &Rc<()>) -> Self {
        Self { _reactor: reactor.clone(), _token: Rc::clone(token) }
    }
}

impl Producer for Kept {
    fn resume_producing(&mut self, _: &Transport) -> Result<()> {
        Ok(())
    }

    fn stop_producing(&mut self, _: &Transport) {}
}

/// A resolver that keeps a handle of the reactor that keeps it, once it was given one.
#[derive(Clone, Default)]
struct Keeping(Rc<RefCell<Option<Kept>>>);

impl Resolver for Keeping {
    fn resolve(&self, _: &Reactor, _: &str, _: u16) -> Deferred<Vec<SocketAddr>> {
        Promise::with_canceller(|| ()).1
    }
}

/// A way to give a reactor something to keep. The result stays in the program's hands.
type Keep = fn(&Reactor, Kept) -> Box<dyn std::any::Any>;

/// Every place in which a reactor keeps a value of the program's.
const PLACES: [(&str, Keep); 18] = [
    ("a timer", |reactor, kept| {
        reactor.call_later(HOUR, move || drop(kept));
        Box::new(())
    }),
    ("a looping call", |reactor, kept| {
        let looping = LoopingCall::new(reactor, move || {
            let _ = &kept;
        });
        drop(looping.start(HOUR));
        Box::new(())
    }),
    ("a future", |reactor, kept| {
        let (promise, never) = Promise::<()>::new();
        drop(reactor.spawn(async move {
            let _kept = kept;
            never.await
        }));
        Box::new(promise)
    }),
    ("a future that waits for a timer", |reactor, kept| {
        let handle = reactor.clone();
        drop(reactor.spawn(async move {
            let _kept = kept;
            ropewalk::task::defer_later(&handle, HOUR, || Ok(())).await
        }));
        Box::new(())
    }),
    ("a call for when it runs", |reactor, kept| {
        reactor.call_when_running(move || drop(kept));
        Box::new(())
    }),
    ("a trigger of the shutdown", |reactor, kept| {
        reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || drop(kept));
        Box::new(())
    }),
    ("the factory of a port", |reactor, kept| {
        Box::new(listen(reactor, move |_| {
            let _ = &kept;
            Some(Echo)
        }))
    }),
    ("the factory of a port without a handle", |reactor, kept| {
        drop(listen(reactor, move |_| {
            let _ = &kept;
            Some(Echo)
        }));
        Box::new(())
    }),
    ("the Deferred of a port that stops", |reactor, kept| {
        let (port, _) = listen(reactor, |_| Some(Echo));
        drop(port.stop_listening().add_callback(move |()| drop(kept)));
        Box::new(())
    }),
    ("a protocol of a server", |reactor, kept| {
        let (made, mut kept) = (Rc::new(Cell::new(false)), Some(kept));
        let own = Rc::clone(&made);
        let (_, address) = listen(reactor, move |_| {
            own.set(true);
            let kept = kept.take();
            Some(Script::new(&Log::default()).data(move |_, _| {
                let _ = &kept;
                Ok(())
            }))
        });
        let client = TcpStream::connect(address).unwrap();
        run_until(reactor, || made.get());
        Box::new(client)
    }),
    ("a protocol, its producer and the factory of a client", |reactor, kept| {
        let (_, address) = listen(reactor, |_| Some(Echo));
        let mut kept = Some(kept);
        let connecting = connect(reactor, address, move |_| {
            let mut kept = kept.take();
            Some(Script::new(&Log::default()).made(move |transport| {
                let producer = kept.take().expect("it is made once");
                Ok(transport.register_producer(producer, Streaming::Push)?)
            }))
        });
        let connection = result_of(reactor, connecting).unwrap();
        Box::new(connection)
    }),
    ("the factory of a client that has no answer", |reactor, kept| {
        let (socket, first, address) = silent();
        let attempt = connect(reactor, address, move |_| {
            let _ = &kept;
            Some(Echo)
        });
        drop(attempt.add_both(|_| ()));
        Box::new((socket, first))
    }),
    ("the callback of a client that has no answer", |reactor, kept| {
        let (socket, first, address) = silent();
        let attempt = connect(reactor, address, |_| Some(Echo));
        drop(attempt.add_both(move |_| drop(kept)));
        Box::new((socket, first))
    }),
    ("the callback of a look-up", |reactor, kept| {
        drop(reactor.resolve("never.example", 1).add_both(move |_| drop(kept)));
        Box::new(())
    }),
    ("the callback of a job that runs", |reactor, kept| {
        let (release, released) = mpsc::channel::<()>();
        let job = reactor.defer_to_thread(move || {
            let _ = released.recv();
            Ok(())
        });
        drop(job.add_both(move |_| drop(kept)));
        Box::new(release)
    }),
    ("the callback of a job that has not begun", |reactor, kept| {
        reactor.suggest_thread_pool_size(0);
        drop(reactor.defer_to_thread(|| Ok(())).add_both(move |_| drop(kept)));
        Box::new(())
    }),
    ("the answer that a thread waits for", |reactor, kept| {
        let (remote, place) = (reactor.remote(), Rc::new(RefCell::new(Some(kept))));
        reactor.call_later(HOUR, move || drop(place.take()));
        let thread = thread::spawn(move || {
            remote.blocking_call_from_thread(|reactor| {
                let (promise, never) = Promise::<()>::new();
                let handle = reactor.clone();
                reactor.call_later(HOUR, move || drop((promise, handle)));
                never
            })
        });
        run_until(reactor, || reactor.delayed_calls().len() == 2);
        Box::new(thread)
    }),
    ("nothing but what a thread has", |reactor, kept| {
        drop(kept);
        Box::new(reactor.remote())
    }),
];

/// Waits until threads have let go of their descriptors.
#[track_caller]
fn await_descriptors(expected: usize, place: &str) {
    let until = std::time::Instant::now() + LIMIT;
    while descriptors() > expected {
        assert!(std::time::Instant::now() < until, "{place}: {} descriptors, {expected} before", descriptors());
        thread::yield_now();
    }
}

/// A reactor that is closed is freed, with all that it kept, even where that kept the reactor: no
/// descriptor is left of twenty, and no value.
#[test]
fn nothing_keeps_a_closed_reactor() {
    own_process!();
    for (place, keep) in PLACES {
        let before = descriptors();
        let token = Rc::new(());
        for _ in 0..20 {
            let resolver = Keeping::default();
            let reactor = Reactor::builder().signals(false).resolver(resolver.clone()).build().unwrap();
            *resolver.0.borrow_mut() = Some(Kept::new(&reactor, &token));
            drop(resolver);
            let in_hand = keep(&reactor, Kept::new(&reactor, &token));
            let (closed, _) = logged(|| reactor.close());
            closed.unwrap();
            assert!(reactor.timers().is_empty() && reactor.spawner().is_empty(), "{place}");
            drop((reactor, in_hand));
        }
        await_descriptors(before, place);
        assert_eq!(Rc::strong_count(&token), 1, "{place}");
    }
}

/// The descriptors of a closed reactor are closed while its handles, ports, connections and remotes
/// are still there.
#[test]
fn handles_of_a_closed_reactor_hold_no_descriptor() {
    own_process!();
    let before = descriptors();
    let reactor = reactor();
    let (port, address) = listen(&reactor, |_| Some(Echo));
    let connection = result_of(&reactor, connect(&reactor, address, |_| Some(Echo))).unwrap();
    let (remote, (_, never)) = (reactor.remote(), Promise::<()>::new());
    let woken = reactor.spawn(never);
    reactor.close().unwrap();
    await_descriptors(before, "all handles are kept");
    assert!(remote.call_from_thread(|_| ()).is_err());
    drop((reactor, port, connection, remote, woken.add_both(|_| ())));
}

/// A handle that waits in the reactor keeps it as any other does, and the last handle closes it.
#[test]
fn a_handle_in_a_timer_keeps_the_reactor() {
    own_process!();
    let before = descriptors();
    let reactor = reactor();
    let timers = reactor.timers().clone();
    let kept = reactor.clone();
    let timer = reactor.call_later(HOUR, move || drop(kept));
    drop(reactor);
    assert!(timer.active() && descriptors() > before, "the timer keeps it");
    timer.cancel().unwrap();
    assert_eq!(descriptors(), before, "the last handle went with the timer");
    assert!(!timers.call_later(HOUR, || ()).active(), "its clock has gone");
}

type End = fn(Reactor);

/// The ways in which a reactor ends.
const ENDINGS: [(&str, End); 3] = [
    ("closed", |reactor| reactor.close().unwrap()),
    ("dropped", drop),
    ("crashed and dropped", |reactor| {
        let handle = reactor.clone();
        reactor.call_later(Duration::ZERO, move || handle.crash().unwrap());
        run(&reactor).unwrap();
    }),
];

/// However a reactor ends, every connection is lost, with the reason that the reactor stopped,
/// every factory stops, every handle knows, and every Deferred has its result.
#[test]
fn everything_knows_that_the_reactor_has_ended() {
    own_process!();
    for (name, end) in ENDINGS {
        let (_socket, _first, mute) = silent();
        let before = descriptors();
        let (server, client, other) = (Log::default(), Log::default(), Log::default());
        let reactor = reactor();
        let (port, address) = listen(&reactor, Watched::new(&server, echoes(&server)));
        let connecting = connect(&reactor, address, Watched::new(&client, scripts(&client)));
        let connection: Connection<Script> = result_of(&reactor, connecting).unwrap();
        run_until(&reactor, || server.has("made"));
        connection.transport().write(b"hello");
        let mut attempt = connect(&reactor, mute, Watched::new(&other, scripts(&other)));
        let (going, _) = listen(&reactor, Watched::new(&other, scripts(&other)));
        let mut stopped = going.stop_listening();
        let (_promise, never) = Promise::<()>::new();
        let mut future = reactor.spawn(never);
        reactor.suggest_thread_pool_size(0);
        let mut job = reactor.defer_to_thread(|| Ok(()));
        let timer = reactor.call_later(HOUR, || ());
        let ((), _) = logged(|| end(reactor));

        let reason = "lost: the reactor stopped";
        assert_eq!((server.count(reason), server.count("lost"), server.count("stop")), (1, 1, 1), "{name}");
        assert_eq!((client.count(reason), client.count("lost"), client.count("stop")), (1, 1, 1), "{name}");
        assert_eq!((other.count("start"), other.count("stop")), (2, 2), "{name}");
        let transport = connection.transport();
        assert!(transport.is_disconnecting() && transport.is_disconnected(), "{name}");
        transport.write(&[0; 100_000]);
        assert_eq!((transport.queued_bytes(), transport.raw_fd()), (0, None), "{name}");
        assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone), "{name}");
        assert!(!port.is_listening() && port.stop_listening().is_called(), "{name}");
        assert!(matches!(port.start_listening(), Err(ListenError::ReactorGone)), "{name}");
        let failed = attempt.take_result().expect(name).unwrap_err();
        assert!(matches!(failed.check(), Some(ConnectError::ReactorStopped { .. })), "{name}: {failed}");
        stopped.take_result().expect(name).expect(name);
        let failed = future.take_result().expect(name).unwrap_err();
        assert!(failed.check::<Abandoned>().is_some(), "{name}: {failed}");
        let failed = job.take_result().expect(name).unwrap_err();
        assert!(failed.check::<ReactorGone>().is_some(), "{name}: {failed}");
        assert!(!timer.active(), "{name}");
        await_descriptors(before, name);
    }
}

/// A future hears of what ended with its reactor before it is dropped.
#[test]
fn a_future_hears_of_the_end() {
    let (reactor, log) = (reactor(), Log::default());
    reactor.suggest_thread_pool_size(0);
    let (told, job) = (log.clone(), reactor.defer_to_thread(|| Ok(())));
    drop(reactor.spawn(async move {
        let is_gone = job.await.is_err_and(|failure| failure.check::<ReactorGone>().is_some());
        told.add(format!("gone: {is_gone}"));
        Ok(())
    }));
    reactor.iterate(Duration::ZERO).unwrap();
    assert!(log.all().is_empty());
    reactor.close().unwrap();
    assert_eq!(log.all(), ["gone: true"]);
}

/// Bytes written before the reactor was dropped arrive, and the peer sees an orderly end.
#[test]
fn a_dropped_reactor_sends_what_was_written() {
    let reactor = reactor();
    let (kept, log) = (Rc::default(), Log::default());
    let (_port, address) = listen(&reactor, once(Script::new(&log).transport_into(&kept)));
    let mut client = dial(address);
    run_until(&reactor, || log.has("made"));
    let transport: Transport = kept.borrow_mut().take().unwrap();
    transport.write(b"last words");
    drop(reactor);
    let mut words = Vec::new();
    client.read_to_end(&mut words).unwrap();
    assert_eq!(words, b"last words");
}

/// Every call on a closed reactor says so with an error of its type, and gives nothing to keep.
#[test]
fn every_call_on_a_closed_reactor_says_so() {
    let (reactor, token) = (reactor(), Rc::new(()));
    let remote = reactor.remote();
    assert!(!reactor.is_closed());
    reactor.close().unwrap();
    reactor.close().expect("closing twice is fine");
    assert!(reactor.is_closed() && !reactor.is_running());
    assert!(matches!(reactor.run(), Err(ReactorError::Closed)));
    assert!(matches!(reactor.iterate(Duration::ZERO), Err(ReactorError::Closed)));
    assert!(matches!(reactor.stop(), Err(ReactorError::NotRunning)));
    assert!(matches!(reactor.crash(), Err(ReactorError::NotRunning)));
    let factory = |_| Some(Echo);
    let listening = reactor.listen_tcp(loopback(), &ListenOptions::new(), factory);
    assert!(matches!(listening, Err(ListenError::ReactorGone)));
    let stopped = |failure: Failure| matches!(failure.check(), Some(ConnectError::ReactorStopped { .. }));
    let failed = connect(&reactor, loopback(), factory).take_result().unwrap().unwrap_err();
    assert!(stopped(failed));
    assert!(stopped(reactor.resolve("example.com", 1).take_result().unwrap().unwrap_err()));
    let held = Rc::clone(&token);
    assert!(!reactor.call_later(Duration::ZERO, move || drop(held)).active());
    let held = Rc::clone(&token);
    let trigger = reactor.call_when_running(move || drop(held)).unwrap();
    assert!(reactor.remove_system_event_trigger(trigger).is_err());
    let held = Rc::clone(&token);
    let mut future = reactor.spawn(async move { drop(held) });
    assert!(future.take_result().unwrap().unwrap_err().check::<Abandoned>().is_some());
    let mut job = reactor.defer_to_thread(|| Ok(()));
    assert!(job.take_result().unwrap().unwrap_err().check::<ReactorGone>().is_some());
    reactor.call_in_thread(|| unreachable!("there are no threads any more"));
    assert_eq!(remote.call_from_thread(|_| ()), Err(ReactorGone));
    let blocked = thread::spawn(move || remote.blocking_call_from_thread(|_| ())).join().unwrap();
    assert!(blocked.unwrap_err().check::<ReactorGone>().is_some());
    assert_eq!((reactor.counters().watched, reactor.counters().jobs_waiting), (0, 0));
    assert_eq!(Rc::strong_count(&token), 1);
}

/// A reactor can't be closed from inside its loop, nor while one of its protocols is reached from
/// outside, nor run or turned there.
#[test]
fn the_loop_and_a_protocol_in_use_keep_it_open() {
    let (reactor, log) = (reactor(), Log::default());
    let refused = |reactor: &Reactor, log: &Log, place: &str| {
        let handle = reactor.clone();
        let results = [handle.close(), handle.iterate(Duration::ZERO), handle.run()];
        for result in results {
            assert!(matches!(result, Err(ReactorError::AlreadyRunning)), "{place}: {result:?}");
        }
        log.add(place);
    };
    let (handle, own) = (reactor.clone(), log.clone());
    let (_port, address) = listen(
        &reactor,
        once(Script::new(&Log::default()).made(move |_| {
            refused(&handle, &own, "callback");
            Ok(())
        })),
    );
    let connection = result_of(&reactor, connect(&reactor, address, |_| Some(Echo))).unwrap();
    run_until(&reactor, || log.has("callback"));
    connection.with(|_, _| refused(&reactor, &log, "with")).unwrap();
    for (phase, event) in [(Phase::Before, SystemEvent::Startup), (Phase::After, SystemEvent::Shutdown)] {
        let (handle, own) = (reactor.clone(), log.clone());
        reactor.add_system_event_trigger(phase, event, move || refused(&handle, &own, "trigger"));
    }
    let (handle, own) = (reactor.clone(), log.clone());
    reactor.call_later(Duration::ZERO, move || {
        refused(&handle, &own, "timer");
        handle.stop().unwrap();
    });
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["callback", "with", "trigger", "timer", "trigger"]);
    reactor.close().unwrap();
}

/// A reactor whose last handle goes while a protocol is reached from outside closes behind that
/// call.
#[test]
fn the_last_handle_goes_while_a_protocol_is_in_use() {
    own_process!();
    let before = descriptors();
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    let connection = result_of(&reactor, connect(&reactor, address, once(Script::new(&log)))).unwrap();
    connection
        .with(|_, transport| {
            drop(reactor);
            assert_eq!(log.all(), ["made"], "a callback inside another");
            assert!(!transport.is_disconnected());
        })
        .unwrap();
    assert_eq!(log.all(), ["made", "lost: the reactor stopped"]);
    await_descriptors(before, "closed");
}

/// Whatever is called back while a reactor closes can use it, begins nothing new, and leaves
/// nothing behind.
#[test]
fn nothing_begins_while_a_reactor_closes() {
    own_process!();
    let before = descriptors();
    let (reactor, log, token) = (reactor(), Log::default(), Rc::new(()));
    let busy = {
        let (handle, log, token) = (reactor.clone(), log.clone(), Rc::clone(&token));
        move |place: &str| {
            assert!(matches!(handle.run(), Err(ReactorError::Closed)));
            handle.close().expect("it is being closed");
            let factory = |_| Some(Echo);
            assert!(handle.listen_tcp(loopback(), &ListenOptions::new(), factory).is_err());
            assert!(connect(&handle, loopback(), factory).take_result().unwrap().is_err());
            let held = Rc::clone(&token);
            handle.call_later(Duration::ZERO, move || drop(held));
            let held = Rc::clone(&token);
            handle.call_when_running(move || drop(held));
            assert!(handle.defer_to_thread(|| Ok(())).take_result().unwrap().is_err());
            log.add(place);
        }
    };
    let lost = busy.clone();
    let script = Script::new(&Log::default()).lost(move |_| lost("connection_lost"));
    let stop = busy.clone();
    let mut script = Some(script);
    let factory = Watched::new(&Log::default(), move |_| script.take()).on_stop(move || stop("do_stop"));
    let (port, address) = listen(&reactor, factory);
    let client = TcpStream::connect(address).unwrap();
    run_until(&reactor, || reactor.counters().watched == 2);
    struct AtDrop<F: Fn(&str)>(F, &'static str);
    impl<F: Fn(&str)> Drop for AtDrop<F> {
        fn drop(&mut self) {
            (self.0)(self.1);
        }
    }
    let at_drop = AtDrop(busy.clone(), "a timer's drop");
    reactor.call_later(HOUR, move || drop(at_drop));
    let at_drop = AtDrop(busy.clone(), "a trigger's drop");
    reactor.call_when_running(move || drop(at_drop));
    let at_drop = AtDrop(busy, "a future's drop");
    let (_promise, never) = Promise::<()>::new();
    drop(
        reactor
            .spawn(async move {
                let _at_drop = at_drop;
                never.await
            })
            .add_both(|_| ()),
    );
    reactor.close().unwrap();
    let order = ["connection_lost", "do_stop", "a future's drop", "a trigger's drop", "a timer's drop"];
    assert_eq!(log.all(), order);
    assert!(reactor.timers().is_empty());
    drop((reactor, port, client));
    assert_eq!(Rc::strong_count(&token), 1);
    await_descriptors(before, "closed");
}

/// A factory that closes the reactor when it starts is stopped again, and nothing listens or
/// connects.
#[test]
fn a_factory_that_closes_the_reactor_when_it_starts() {
    own_process!();
    struct Closing(Reactor, Log);
    impl Factory for Closing {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Address) -> Option<Echo> {
            None
        }

        fn do_start(&mut self) {
            self.1.add("start");
            self.0.close().unwrap();
        }

        fn do_stop(&mut self) {
            self.1.add("stop");
        }
    }
    let before = descriptors();
    for connects in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let factory = Closing(reactor.clone(), log.clone());
        if connects {
            let failure = connect(&reactor, loopback(), factory).take_result().unwrap().unwrap_err();
            assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })), "{failure}");
        } else {
            let listening = reactor.listen_tcp(loopback(), &ListenOptions::new(), factory);
            assert!(matches!(listening, Err(ListenError::ReactorGone)));
        }
        assert_eq!(log.all(), ["start", "stop"]);
    }
    await_descriptors(before, "closed");
}

/// A simulated reactor that is closed in the middle of its run is driven no more, and the others go
/// on.
#[test]
fn a_simulated_reactor_is_closed_between_two_turns() {
    let network = Network::new(8);
    let (server, client) = (network.reactor([10, 0, 0, 1].into()), network.reactor([10, 0, 0, 2].into()));
    let (log, to) = (Log::default(), SocketAddr::from(([10, 0, 0, 1], 7)));
    let port: Port = server.listen_tcp(to, &ListenOptions::new(), |_| Some(Echo)).unwrap();
    let connecting = connect(&client, to, once(Script::new(&log)));
    network.run_until(HOUR, || connecting.is_called()).unwrap();
    server.close().unwrap();
    assert!(!port.is_listening());
    network.run_until(HOUR, || log.is_over()).unwrap();
    assert_eq!(log.reason(), "the connection was closed cleanly");
    assert_eq!((network.open_sockets(&server), network.open_sockets(&client)), (0, 0));
    drop(connecting.add_both(|_| ()));
}
