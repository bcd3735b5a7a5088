//! The life of a run inside another event loop: how it begins and ends, and what is refused.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::hosting_wakes::{fall_asleep, on_each_backend};
use crate::common::hosted::{Guest, host};
use crate::common::*;
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::reactor::HostedRun;
use ropewalk::{Phase, Reactor, SystemEvent, Transport};

/// A hosted run has the triggers, the states and the end of any other run, and a second one may
/// follow.
#[test]
fn a_hosted_run_begins_and_ends_in_order() {
    on_each_backend(|reactor| {
        for _ in 0..2 {
            let log = Log::default();
            for (event, name) in [(SystemEvent::Startup, "startup"), (SystemEvent::Shutdown, "shutdown")] {
                for phase in [Phase::Before, Phase::During, Phase::After] {
                    let (log, reactor) = (log.clone(), reactor.clone());
                    reactor.clone().add_system_event_trigger(phase, event.clone(), move || {
                        log.add(format!("{name} {phase:?} {}", reactor.is_running()));
                    });
                }
            }
            let (stopping, running) = (reactor.clone(), log.clone());
            let (_port, address) = listen(&reactor, move |_| {
                let stopping = stopping.clone();
                Some(Script::new(&running).made(move |_| Ok(stopping.stop()?)))
            });
            let client = dial(address);
            let guest = Guest::begin(&reactor).expect("it does not run");
            host(&mut vec![guest], &mut || false).expect("the loop turns");
            drop(client);
            let expected = [
                "startup Before false",
                "startup During true",
                "startup After true",
                "made",
                "shutdown Before true",
                "lost: the reactor stopped",
                "shutdown During false",
                "shutdown After false",
            ];
            let all = log.all();
            assert_eq!(all.len(), expected.len(), "{all:?}");
            for (is, expected) in all.iter().zip(expected) {
                assert!(is.starts_with(expected.split(':').next().unwrap()), "{is} in {all:?}");
            }
            assert!(!reactor.is_running());
        }
    });
}

/// Each misuse is a typed error, and harms nothing.
#[test]
fn misuse_is_an_error() {
    on_each_backend(|reactor| {
        let guest = Rc::new(Guest::begin(&reactor).expect("it does not run"));
        for error in [
            reactor.begin_run().map(drop).unwrap_err(),
            reactor.run().unwrap_err(),
            reactor.iterate(Duration::ZERO).unwrap_err(),
        ] {
            assert!(matches!(error, ReactorError::AlreadyRunning), "{error}");
        }
        let (inside, refused, handle) = (Rc::clone(&guest), Rc::<RefCell<Vec<_>>>::default(), reactor.clone());
        let kept = Rc::clone(&refused);
        reactor.call_later(Duration::ZERO, move || {
            assert_eq!(inside.run.prepare_to_wait(None), Some(Duration::ZERO));
            kept.borrow_mut().extend([
                inside.run.step(Some(Duration::ZERO)).map(drop),
                handle.begin_run().map(drop),
                handle.close(),
            ]);
        });
        while refused.borrow().is_empty() {
            assert!(guest.run.step(Some(Duration::ZERO)).expect("the loop turns"));
        }
        for refused in refused.take() {
            assert!(matches!(refused, Err(ReactorError::AlreadyRunning)), "{refused:?}");
        }
        reactor.stop().expect("it runs");
        while guest.run.step(Some(Duration::ZERO)).expect("the loop turns") {}
        assert!(guest.run.is_over());
        assert!(matches!(guest.run.step(Some(Duration::ZERO)), Err(ReactorError::NotRunning)));
        assert!(matches!(guest.run.poller(), Err(ReactorError::NotRunning)));
        assert_eq!(guest.run.prepare_to_wait(None), Some(Duration::ZERO));
        assert!(matches!(reactor.stop(), Err(ReactorError::NotRunning)));
        // A run that is over has no power over the next one.
        let next = reactor.begin_run().expect("the last one is over");
        drop(guest);
        assert!(next.step(Some(Duration::ZERO)).expect("the loop turns"));
    });
}

/// A run from inside a call of a protocol is refused, and so is a step.
#[test]
fn a_step_inside_a_call_from_outside_is_refused() {
    on_each_backend(|reactor| {
        let (_port, address) = listen(&reactor, |_| Some(Echo));
        let mut dialled = connect(&reactor, address, |_| Some(Echo));
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run")];
        let mut made = None;
        host(&mut guests, &mut || {
            made = made.take().or_else(|| dialled.take_result());
            made.is_some()
        })
        .expect("the loop turns");
        let connection = made.expect("it was made").expect("it was accepted");
        let stepped = connection.with(|_, _| guests[0].run.step(Some(Duration::ZERO)));
        assert!(matches!(stepped, Ok(Err(ReactorError::AlreadyRunning))), "{stepped:?}");
        assert!(guests[0].run.step(Some(Duration::ZERO)).expect("the loop turns"));
    });
}

/// A crash from outside, and the drop of the host, leave connections open for the next run: in it
/// they go on, hosted or not.
#[test]
fn a_run_that_was_left_goes_on_in_the_next() {
    on_each_backend(|reactor| {
        let (log, shut) = (Log::default(), Rc::<Cell<bool>>::default());
        let told = Rc::clone(&shut);
        reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || told.set(true));
        let scripts = log.clone();
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
        let mut client = dial(address);
        let begin = || vec![Guest::begin(&reactor).expect("it does not run")];
        // By a crash.
        let mut guests = begin();
        host(&mut guests, &mut || log.has("made")).expect("the loop turns");
        reactor.crash().expect("it runs");
        assert!(!reactor.is_running());
        host(&mut guests, &mut || false).expect("the loop turns");
        // By a drop, with and without a poller, waiting and not.
        client.write_all(b"1").expect("an open connection");
        let mut guests = begin();
        host(&mut guests, &mut || log.count("data") == 1).expect("the loop turns");
        fall_asleep(&guests[0], None);
        drop(guests);
        assert!(!reactor.is_running() && !log.is_over());
        drop(reactor.begin_run().expect("the last one was left"));
        // In a run of our own.
        client.write_all(b"2").expect("an open connection");
        let stopping = reactor.clone();
        let heard = log.clone();
        let poll = std::future::poll_fn(move |cx| {
            if heard.count("data") < 2 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(stopping.stop().map_err(Into::into))
        });
        let stopped = reactor.spawn(poll);
        assert!(!shut.get(), "no shutdown until now");
        run(&reactor).expect("the loop turns");
        assert!(stopped.is_called() && shut.get() && log.is_over());
    });
}

/// `close` from outside ends the run in order: protocols hear of it, and the next step says that
/// the run is over.
#[test]
fn closing_from_outside_ends_the_run() {
    on_each_backend(|reactor| {
        let log = Log::default();
        let scripts = log.clone();
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
        let _client = dial(address);
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run")];
        host(&mut guests, &mut || log.has("made")).expect("the loop turns");
        fall_asleep(&guests[0], None);
        reactor.close().expect("no turn is under way");
        assert!(log.is_over());
        assert_eq!(guests[0].run.prepare_to_wait(None), Some(Duration::ZERO));
        assert!(!guests[0].run.step(Some(Duration::ZERO)).expect("it is over, which is no failure"));
        assert!(matches!(guests[0].run.step(None), Err(ReactorError::NotRunning)));
        assert!(matches!(reactor.begin_run().map(drop), Err(ReactorError::Closed)));
    });
}

/// The value of a run keeps its reactor, which closes when both are gone: no descriptor stays.
#[test]
fn a_run_keeps_its_reactor() {
    on_each_backend(|reactor| {
        let dropped = Rc::new(());
        let kept = Rc::clone(&dropped);
        reactor.call_later(Duration::from_secs(3600), move || drop(kept));
        let run = reactor.begin_run().expect("it does not run");
        let poller = run.poller().expect("a descriptor");
        drop(reactor);
        assert!(run.step(Some(Duration::ZERO)).expect("the loop turns"));
        assert!(!run.reactor().is_closed() && Rc::strong_count(&dropped) == 2);
        drop(run);
        assert_eq!(Rc::strong_count(&dropped), 1, "the reactor is closed");
        drop(poller);
    });
}

/// A host that stops stepping for a while loses nothing: connections, bytes, calls from threads and
/// timers wait for it.
#[test]
fn a_host_that_stops_stepping_loses_nothing() {
    on_each_backend(|reactor| {
        let (log, called) = (Log::default(), Arc::<AtomicUsize>::default());
        let scripts = log.clone();
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run")];
        fall_asleep(&guests[0], None);
        // The host is awake, and does not step from here on.
        assert!(guests[0].run.step(Some(Duration::ZERO)).expect("the loop turns"));
        let (remote, calls) = (reactor.remote(), Arc::clone(&called));
        let (ready, is_ready) = mpsc::channel();
        let peers = thread::spawn(move || {
            let clients: Vec<_> = (0..20)
                .map(|_| {
                    let mut client = dial(address);
                    client.write_all(b"hello").expect("the kernel takes a few bytes");
                    let calls = Arc::clone(&calls);
                    remote
                        .call_from_thread(move |_| {
                            calls.fetch_add(1, Ordering::SeqCst);
                        })
                        .expect("it is open");
                    client
                })
                .collect();
            ready.send(()).expect("it is awaited");
            clients
        });
        is_ready.recv_timeout(LIMIT).expect("the peers need no turn of ours");
        assert_eq!((log.count("made"), called.load(Ordering::SeqCst)), (0, 0));
        host(&mut guests, &mut || log.count("data") == 20).expect("the loop turns");
        assert_eq!(called.load(Ordering::SeqCst), 20);
        drop(peers.join().expect("the peers are well"));
        host(&mut guests, &mut || log.count("lost") == 20).expect("the loop turns");
    });
}

/// A step with a limit waits in the reactor, as a turn of `run` does: a call from a thread ends it.
#[test]
fn a_step_may_wait_itself() {
    on_each_backend(|reactor| {
        let run = reactor.begin_run().expect("it does not run");
        // A host that had prepared, and then lets the step wait.
        while run.prepare_to_wait(None) == Some(Duration::ZERO) {
            run.step(Some(Duration::ZERO)).expect("the loop turns");
        }
        let remote = reactor.remote();
        let caller = thread::spawn(move || remote.call_from_thread(|reactor| reactor.stop().expect("it runs")));
        let _watchdog = Watchdog::new();
        while run.step(None).expect("the loop turns") {}
        caller.join().unwrap().expect("it is open");
    });
}

/// The hook is called around waits that may block, each time in pairs, and around no others.
#[test]
fn the_hook_is_around_waits_that_may_block() {
    for kind in [ropewalk::BackendKind::Mio, ropewalk::BackendKind::IoUring] {
        let waiting = Rc::<Cell<bool>>::default();
        let waits = Rc::<Cell<usize>>::default();
        let (begins, ends, counted) = (Rc::clone(&waiting), Rc::clone(&waiting), Rc::clone(&waits));
        let reactor = Reactor::builder()
            .signals(false)
            .backend(kind)
            .around_wait(
                move || {
                    assert!(!begins.replace(true));
                    counted.set(counted.get() + 1);
                },
                move || assert!(ends.replace(false)),
            )
            .build()
            .expect("a poller");
        if reactor.backend() != kind {
            continue;
        }
        // A turn with work does not wait, whatever its limit.
        let (is_waiting, polls) = (Rc::clone(&waiting), Rc::<Cell<usize>>::default());
        let counted = Rc::clone(&polls);
        drop(reactor.spawn(std::future::poll_fn(move |cx| {
            assert!(!is_waiting.get());
            counted.set(counted.get() + 1);
            cx.waker().wake_by_ref();
            if counted.get() < 4 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        })));
        for _ in 0..3 {
            reactor.iterate(LIMIT).expect("the loop turns");
        }
        assert_eq!((polls.get(), waits.get()), (4, 0), "on {kind:?}");
        // Nor does one behind a timer that has become due meanwhile.
        let again = reactor.clone();
        reactor.call_later(Duration::ZERO, move || drop(again.call_later(Duration::ZERO, || ())));
        reactor.iterate(LIMIT).expect("the loop turns");
        assert_eq!(waits.get(), 0, "on {kind:?}");
        reactor.iterate(Duration::ZERO).expect("the loop turns");
        let idle = waits.get();
        reactor.iterate(Duration::from_millis(2)).expect("the loop turns");
        assert_eq!(waits.get(), idle + 1, "on {kind:?}");
        // A turn for leftovers of the one before does not wait either: one accepts 64 connections.
        let log = Log::default();
        let (_port, address) = listen(&reactor, scripts(&log));
        let _clients: Vec<_> = (0..100).map(|_| dial(address)).collect();
        run_until(&reactor, || log.has("made"));
        let (part, before) = (log.count("made"), waits.get());
        assert!(part < 100, "{part} in one turn");
        reactor.iterate(LIMIT).expect("the loop turns");
        assert!(log.count("made") > part);
        assert_eq!(waits.get(), before, "leftovers, on {kind:?}");
        run_until(&reactor, || log.count("made") == 100);
        let idle = waits.get() - 1;
        let run = reactor.begin_run().expect("it does not run");
        for _ in 0..5 {
            run.step(Some(Duration::ZERO)).expect("the loop turns");
        }
        assert_eq!(waits.get(), idle + 1, "a step without a wait, on {kind:?}");
        drop(run);
        // The loop makes this wait itself. A slow machine may find the first timer due already.
        let counted = Rc::clone(&waits);
        stop_once(&reactor, move || counted.get() > idle + 1);
        run_it(&reactor);
        assert!(!waiting.get(), "on {kind:?}");
    }
}

/// Stops the reactor at a timer that finds `is_done`.
fn stop_once(reactor: &Reactor, is_done: impl Fn() -> bool + 'static) {
    let handle = reactor.clone();
    reactor.call_later(Duration::from_millis(5), move || {
        if is_done() {
            handle.stop().expect("it runs");
        } else {
            stop_once(&handle, is_done);
        }
    });
}

fn run_it(reactor: &Reactor) {
    run(reactor).expect("the loop turns");
}

/// A hook that panics is logged with its pair left out, and the loop goes on.
#[test]
fn a_hook_that_panics_is_logged() {
    let ended = Rc::<Cell<usize>>::default();
    let counted = Rc::clone(&ended);
    let reactor = Reactor::builder()
        .signals(false)
        .around_wait(|| panic!("no lock to give up"), move || counted.set(counted.get() + 1))
        .build()
        .expect("a poller");
    let ((), lines) = logged(|| reactor.iterate(Duration::from_millis(2)).expect("the loop turns"));
    assert_eq!((ended.get(), lines.len()), (0, 1), "{lines:?}");
    assert!(lines[0].contains("no lock to give up"), "{lines:?}");
}

/// A simulated reactor has no descriptor, and says so.
#[test]
fn a_simulated_reactor_has_no_poller() {
    let network = ropewalk::testing::Network::new(1);
    let reactor = network.reactor([192, 0, 2, 7].into());
    let run: HostedRun = reactor.begin_run().expect("it does not run");
    assert!(matches!(run.poller(), Err(ReactorError::Setup(_))));
}

/// A request to a transport between two steps is served in the next one, and never calls the
/// protocol itself.
#[test]
fn a_request_between_steps_calls_nobody_back() {
    on_each_backend(|reactor| {
        let (log, kept) = (Log::default(), Rc::<RefCell<Option<Transport>>>::default());
        let (scripts, place) = (log.clone(), Rc::clone(&kept));
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts).transport_into(&place)));
        let _client = dial(address);
        let mut guests = vec![Guest::begin(&reactor).expect("it does not run")];
        host(&mut guests, &mut || log.has("made")).expect("the loop turns");
        fall_asleep(&guests[0], None);
        kept.borrow().as_ref().expect("it was made").abort_connection();
        assert!(!log.is_over(), "the protocol hears of it in a turn");
        host(&mut guests, &mut || log.is_over()).expect("the loop turns");
    });
}
