//! A host that waits in the place of the loop is woken by everything that would end a wait of the
//! loop, and by nothing else (F37).

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::hosted::{Guest, host};
use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::interfaces::*;
use ropewalk::reactor::SIGWINCH;
use ropewalk::{BackendKind, Deferred, DelayedCall, Phase, Port, Reactor, Result, SystemEvent, Transport};

/// Counts how often the host was woken.
#[derive(Default)]
pub(super) struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Alarm {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Calls `test` with a reactor on each backend that there is.
pub(super) fn on_each_backend(test: impl Fn(Reactor)) {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(reactor_on).for_each(test);
}

/// Steps until nothing is left to do, and marks the host as waiting. Returns the longest wait.
#[track_caller]
pub(super) fn fall_asleep(guest: &Guest, waker: Option<&Waker>) -> Option<Duration> {
    for _ in 0..100 {
        let longest = guest.run.prepare_to_wait(waker);
        if longest != Some(Duration::ZERO) && !guest.is_readable(Duration::ZERO) {
            return longest;
        }
        assert!(guest.run.step(Some(Duration::ZERO)).expect("the loop turns"), "the run is over");
    }
    panic!("the loop does not come to rest");
}

/// A hosted run with a connection, and what a test may ask for from outside of a turn.
struct Scene {
    reactor: Reactor,
    guest: Guest,
    port: Port,
    transport: Transport,
    client: TcpStream,
    timer: DelayedCall,
    answer: Promise<()>,
}

/// The deadline of the scene's own timer.
const FAR: Duration = Duration::from_secs(3600);

impl Scene {
    fn new(reactor: Reactor) -> Self {
        let place = Rc::<RefCell<Option<Transport>>>::default();
        let (log, kept) = (Log::default(), Rc::clone(&place));
        let (port, address) = listen(&reactor, move |_| Some(Script::new(&log).transport_into(&kept)));
        let client = TcpStream::connect(address).expect("the port listens");
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run yet")];
        host(&mut guests, &mut || place.borrow().is_some()).expect("the loop turns");
        let guest = guests.pop().expect("it runs");
        let timer = reactor.call_later(FAR, || {});
        let (answer, awaited) = Promise::new();
        drop(reactor.spawn(awaited));
        let transport = place.take().expect("it was made");
        Self { reactor, guest, port, transport, client, timer, answer }
    }
}

type Request = fn(&Scene);

/// All that a program can ask for while the host waits.
const REQUESTS: &[(&str, Request)] = &[
    ("a write", |scene| scene.transport.write(b"now")),
    ("a large write", |scene| scene.transport.write(&[7; 1 << 20])),
    ("lose_connection", |scene| scene.transport.lose_connection()),
    ("abort_connection", |scene| scene.transport.abort_connection()),
    ("lose_write_connection", |scene| scene.transport.lose_write_connection()),
    ("pause_producing", |scene| scene.transport.pause_producing()),
    ("stop", |scene| scene.reactor.stop().expect("it runs")),
    ("crash", |scene| scene.reactor.crash().expect("it runs")),
    ("close", |scene| scene.reactor.close().expect("no turn is under way")),
    ("listening", |scene| drop(listen(&scene.reactor, |_| Some(Echo)))),
    ("connecting", |scene| drop(connect(&scene.reactor, scene.port.host().socket_addr().unwrap(), |_| Some(Echo)))),
    ("a refused attempt", |scene| drop(connect(&scene.reactor, "255.255.255.255:9".parse().unwrap(), |_| Some(Echo)))),
    ("cancelling an attempt", |scene| {
        let (_socket, _first, address) = silent();
        let attempt = connect(&scene.reactor, address, |_| Some(Echo));
        attempt.cancel();
    }),
    ("stop_listening", |scene| drop(scene.port.stop_listening())),
    ("a woken future", |scene| scene.answer.callback(()).expect("it is awaited")),
    ("a future that wakes itself", |scene| {
        let mut woken = false;
        drop(scene.reactor.spawn(std::future::poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut woken, true) { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
        })));
    }),
    ("an earlier timer", |scene| drop(scene.reactor.call_later(FAR / 2, || {}))),
    ("a timer of no time", |scene| drop(scene.reactor.call_later(Duration::ZERO, || {}))),
    ("a timer that is moved", |scene| scene.timer.reset(FAR / 2).expect("it is pending")),
    ("a timer that is hastened", |scene| scene.timer.hasten(FAR / 2).expect("it is pending")),
    ("a timer of the transport", |scene| drop(scene.transport.timers().call_later(FAR / 2, || {}))),
    ("a call from this thread", |scene| scene.reactor.remote().call_from_thread(|_| {}).expect("it is open")),
    ("a call from another thread", |scene| {
        let remote = scene.reactor.remote();
        thread::spawn(move || remote.call_from_thread(|_| {})).join().unwrap().expect("it is open");
    }),
];

/// Lost wake-ups 1 to 3 (and those of ports, attempts and ends): what is asked for outside of a
/// turn wakes the host, at once and once.
#[test]
fn every_request_from_outside_wakes_the_host() {
    for &(name, request) in REQUESTS {
        on_each_backend(|reactor| {
            let (kind, scene, alarm) = (reactor.backend(), Scene::new(reactor), Arc::new(Alarm::default()));
            let waker = Waker::from(Arc::clone(&alarm));
            assert!(fall_asleep(&scene.guest, Some(&waker)).is_some_and(|longest| longest > FAR / 2), "{name}");
            assert_eq!(alarm.count(), 0, "{name} on {kind:?}, before");
            request(&scene);
            assert_eq!(alarm.count(), 1, "{name} on {kind:?}");
            // A host that is awake is not woken again.
            scene.transport.write(b"more");
            assert_eq!(alarm.count(), 1, "{name} on {kind:?}, and a write");
        });
    }
}

/// The same for a host without a waker: its descriptor becomes readable.
#[test]
fn every_request_from_outside_makes_the_poller_readable() {
    for &(name, request) in REQUESTS {
        on_each_backend(|reactor| {
            let (kind, scene) = (reactor.backend(), Scene::new(reactor));
            fall_asleep(&scene.guest, None);
            request(&scene);
            // A reactor that was closed has nothing to tell by.
            if !scene.reactor.is_closed() {
                assert!(scene.guest.is_readable(LIMIT), "{name} on {kind:?}");
            }
        });
    }
}

/// A timer behind the deadline that the host knows, a cancelled one, and a read of the clock do not
/// wake the host. Nor do bytes from the network: the poller reports them.
#[test]
fn the_host_is_not_woken_without_need() {
    on_each_backend(|reactor| {
        let (mut scene, alarm) = (Scene::new(reactor), Arc::new(Alarm::default()));
        let waker = Waker::from(Arc::clone(&alarm));
        fall_asleep(&scene.guest, Some(&waker));
        let later = scene.reactor.call_later(2 * FAR, || {});
        later.cancel().expect("it is pending");
        scene.timer.delay(FAR).expect("it is pending");
        scene.reactor.seconds();
        scene.transport.set_tcp_no_delay(true).expect("an open connection");
        assert!(!scene.guest.is_readable(Duration::from_millis(20)), "on {:?}", scene.reactor.backend());
        scene.client.write_all(b"now").expect("an open connection");
        assert!(scene.guest.is_readable(LIMIT), "on {:?}", scene.reactor.backend());
        assert_eq!(alarm.count(), 0);
    });
}

/// Lost wake-up 4: bytes beyond the budget of a turn are told of by no descriptor. All of them
/// come, and the host that slept before made no turn meanwhile.
#[test]
fn leftovers_of_a_turn_are_work() {
    const BYTES: usize = 3_000_000;
    on_each_backend(|reactor| {
        let received = Rc::<Cell<usize>>::default();
        let counted = Rc::clone(&received);
        let (_port, address) = listen(&reactor, move |_| {
            let counted = Rc::clone(&counted);
            Some(Script::new(&Log::default()).data(move |_, data| {
                counted.set(counted.get() + data.len());
                Ok(())
            }))
        });
        let sent = thread::spawn(move || {
            let mut client = dial(address);
            client.write_all(&vec![1; BYTES]).expect("it is read");
            client
        });
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run yet")];
        host(&mut guests, &mut || received.get() == BYTES).expect("the loop turns");
        let _client = sent.join().expect("it was sent");
        let turns = reactor.counters().turns;
        fall_asleep(&guests[0], None);
        let idle = reactor.counters().turns;
        assert!(idle - turns <= 3, "{} turns for nothing", idle - turns);
        assert!(!guests[0].is_readable(Duration::from_millis(50)), "on {:?}", reactor.backend());
        assert_eq!(guests[0].run.prepare_to_wait(None), None, "on {:?}", reactor.backend());
        assert_eq!(reactor.counters().turns, idle);
    });
}

/// One turn accepts 64 connections of a port. While there are more, the host is told not to wait.
#[test]
fn a_turn_that_used_up_its_budget_is_followed_by_another() {
    on_each_backend(|reactor| {
        let log = Log::default();
        let (_port, address) = listen(&reactor, scripts(&log));
        let guest = Guest::begin(&reactor).expect("it does not run yet");
        fall_asleep(&guest, None);
        let _clients: Vec<_> = (0..100).map(|_| dial(address)).collect();
        assert!(guest.is_readable(LIMIT));
        while log.count("made") == 0 {
            assert!(guest.run.step(Some(Duration::ZERO)).expect("the loop turns"));
        }
        let made = log.count("made");
        assert!(made < 100, "{made} in one turn");
        assert_eq!(guest.run.prepare_to_wait(None), Some(Duration::ZERO), "on {:?}", reactor.backend());
    });
}

/// A startup and a shutdown wait for Deferreds of their triggers, which may fire while the host
/// waits.
#[test]
fn the_deferred_of_a_trigger_wakes_the_host() {
    on_each_backend(|reactor| {
        let (alarm, fired) = (Arc::new(Alarm::default()), Rc::<Cell<usize>>::default());
        let waker = Waker::from(Arc::clone(&alarm));
        let mut awaited = Vec::new();
        for event in [SystemEvent::Startup, SystemEvent::Shutdown] {
            let (promise, deferred) = Promise::<()>::new();
            let (mut deferred, counted) = (Some(deferred), Rc::clone(&fired));
            reactor.add_system_event_trigger(Phase::Before, event, move || {
                counted.set(counted.get() + 1);
                deferred.take().unwrap_or_else(|| Deferred::succeed(()))
            });
            awaited.push(promise);
        }
        let guest = Guest::begin(&reactor).expect("it does not run yet");
        for (at, promise) in awaited.iter().enumerate() {
            fall_asleep(&guest, Some(&waker));
            assert_eq!((fired.get(), alarm.count(), reactor.is_running()), (at + 1, at * 2, at == 1));
            promise.callback(()).expect("it is awaited");
            assert_eq!(alarm.count(), at * 2 + 1);
            if at == 0 {
                fall_asleep(&guest, Some(&waker));
                assert!(reactor.is_running());
                reactor.stop().expect("it runs");
            }
        }
        host(&mut vec![guest], &mut || false).expect("the loop turns");
        assert!(!reactor.is_running());
    });
}

/// A timer comes when the host waits for as long as it was told to.
#[test]
fn a_timer_comes_in_its_time() {
    on_each_backend(|reactor| {
        let (begun, came) = (reactor.seconds(), Rc::<Cell<Option<Duration>>>::default());
        let (kept, clock) = (Rc::clone(&came), reactor.timers().clone());
        reactor.call_later(Duration::from_millis(15), move || kept.set(Some(clock.seconds())));
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run yet")];
        host(&mut guests, &mut || came.get().is_some()).expect("the loop turns");
        assert!(came.get().is_some_and(|came| came >= begun + Duration::from_millis(15)));
        assert!(reactor.counters().turns <= 6, "{} turns", reactor.counters().turns);
    });
}

/// A signal with a subscriber makes the poller readable.
#[test]
fn a_signal_wakes_the_host() {
    own_process!();
    on_each_backend(|reactor| {
        let heard = Rc::<Cell<bool>>::default();
        let told = Rc::clone(&heard);
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run yet")];
        fall_asleep(&guests[0], None);
        let _subscription = reactor.on_signal(SIGWINCH, move || told.set(true)).expect("it can be handled");
        fall_asleep(&guests[0], None);
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::WINCH).expect("it is our process");
        host(&mut guests, &mut || heard.get()).expect("the loop turns");
    });
}

/// Bytes are written in the turn that the write has caused, and not later: a peer that waits for
/// them gets them although nothing else happens. On io_uring too, where a send is a request that
/// has to be submitted.
#[test]
fn a_write_from_outside_leaves_before_the_host_waits() -> Result<()> {
    on_each_backend(|reactor| {
        let mut scene = Scene::new(reactor);
        fall_asleep(&scene.guest, None);
        for _ in 0..10 {
            scene.transport.write(b"ping");
            fall_asleep(&scene.guest, None);
            let mut answer = [0; 4];
            scene.client.set_read_timeout(Some(LIMIT)).expect("a time limit");
            scene.client.read_exact(&mut answer).expect("it was sent");
            assert_eq!(&answer, b"ping");
        }
    });
    Ok(())
}

/// A turn takes 1,024 events. The host is told that there are more, because a host that is told of
/// edges would not hear of them again.
#[test]
fn events_beyond_those_of_a_turn_are_work() {
    const CLIENTS: usize = 1100;
    allow_many_descriptors();
    on_each_backend(|reactor| {
        let log = Log::default();
        let scripts = log.clone();
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run yet")];
        let mut clients = Vec::new();
        for at in 1..=CLIENTS {
            clients.push(dial(address));
            if at % 100 == 0 {
                host(&mut guests, &mut || log.count("made") == at).expect("the loop turns");
            }
        }
        fall_asleep(&guests[0], None);
        clients.iter_mut().for_each(|client| client.write_all(b"1").expect("a byte fits"));
        guests[0].run.step(Some(Duration::ZERO)).expect("the loop turns");
        assert_eq!((log.count("data"), reactor.backend()), (1024, reactor.backend()));
        assert_eq!(guests[0].run.prepare_to_wait(None), Some(Duration::ZERO), "on {:?}", reactor.backend());
        host(&mut guests, &mut || log.count("data") == CLIENTS).expect("the loop turns");
    });
}

/// A reactor without connections, whose end leaves no other trace, wakes the host when it closes.
#[test]
fn closing_an_empty_reactor_wakes_the_host() {
    on_each_backend(|reactor| {
        let alarm = Arc::new(Alarm::default());
        let guest = Guest::begin(&reactor).expect("it does not run yet");
        assert_eq!(fall_asleep(&guest, Some(&Waker::from(Arc::clone(&alarm)))), None);
        reactor.close().expect("no turn is under way");
        assert_eq!(alarm.count(), 1, "on {:?}", reactor.backend());
    });
}

/// The poller of a host without a waker reports every call from a thread, and not only the first
/// (on io_uring the counter of the calls is not the one that the host polls).
#[test]
fn the_poller_reports_each_of_many_calls() {
    on_each_backend(|reactor| {
        let guest = Guest::begin(&reactor).expect("it does not run yet");
        let (called, remote) = (Arc::<AtomicUsize>::default(), reactor.remote());
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let calls = Arc::clone(&called);
        let caller = thread::spawn(move || {
            while asked.recv().is_ok() {
                let calls = Arc::clone(&calls);
                let call = move |_: &Reactor| {
                    calls.fetch_add(1, Ordering::SeqCst);
                };
                remote.call_from_thread(call).expect("it is open");
            }
        });
        for round in 1..=200 {
            fall_asleep(&guest, None);
            ask.send(()).expect("the thread lives");
            // The ring may report a completion of the last round ahead of the call.
            while called.load(Ordering::SeqCst) < round {
                assert!(guest.is_readable(LIMIT), "round {round} on {:?}", reactor.backend());
                guest.run.step(Some(Duration::ZERO)).expect("the loop turns");
                fall_asleep(&guest, None);
            }
        }
        drop(ask);
        caller.join().expect("it does not panic");
    });
}
