//! Rings of other threads, and the function that they call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use ropewalk::error::ReactorError;
use ropewalk::{BackendKind, Reactor};

/// Runs a test on each backend that the system has, with a function for rings.
fn on_each(test: impl Fn(Reactor, Rc<RefCell<Vec<u64>>>)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let turns = Rc::<RefCell<Vec<u64>>>::default();
        let noted = Rc::clone(&turns);
        let hook = move |reactor: &Reactor| noted.borrow_mut().push(reactor.counters().turns);
        let reactor = Reactor::builder().signals(false).backend(kind).on_ring(hook).build().expect("a poller");
        if reactor.backend() == kind {
            test(reactor, turns);
        } else {
            println!("skipped on {kind:?}: {NO_BACKEND}");
        }
    }
}

/// Rings before a turn are one ring. That turn calls the function once, behind the calls from
/// threads, and does not wait.
#[test]
fn rings_before_a_turn_are_one() {
    on_each(|reactor, rings| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&log);
        let remote = reactor.remote();
        (0..100).for_each(|_| remote.ring());
        remote.call_from_thread(move |_| noted.lock().unwrap().push("call")).expect("it is open");
        let begun = Instant::now();
        reactor.iterate(LIMIT).expect("the loop turns");
        assert!(begun.elapsed() < LIMIT / 2, "the ring was lost");
        assert_eq!((&*rings.borrow(), log.lock().unwrap().len()), (&vec![1], 1));
        reactor.iterate(Duration::from_millis(1)).expect("the loop turns");
        assert_eq!(*rings.borrow(), [1], "an old ring rings again");
    });
}

/// A ring inside the function is for the next turn, which does not wait either.
#[test]
fn a_ring_inside_the_function_is_for_the_next_turn() {
    let (known, count) = (Rc::<RefCell<Option<Reactor>>>::default(), Rc::<Cell<usize>>::default());
    let (rings, counted) = (Rc::clone(&known), Rc::clone(&count));
    let hook = move |reactor: &Reactor| {
        counted.set(counted.get() + 1);
        assert!(matches!(reactor.iterate(Duration::ZERO), Err(ReactorError::AlreadyRunning)));
        if let Some(reactor) = rings.take() {
            reactor.remote().ring();
        }
    };
    let reactor = Reactor::builder().signals(false).on_ring(hook).build().expect("a poller");
    known.replace(Some(reactor.clone()));
    reactor.remote().ring();
    for rung in [1, 2, 2] {
        reactor.iterate(Duration::from_millis(1)).expect("the loop turns");
        assert_eq!(count.get(), rung);
    }
}

/// Without a function, a ring ends the wait at hand, or keeps the next turn from waiting.
#[test]
fn a_ring_without_a_function_keeps_a_turn_from_waiting() {
    let reactor = reactor();
    let _watchdog = Watchdog::new();
    for _ in 0..3 {
        reactor.remote().ring();
        reactor.iterate(LIMIT).expect("the loop turns");
    }
    let remote = reactor.remote();
    let ringing = thread::spawn(move || remote.ring());
    // The ring may come before the turn or in its wait.
    reactor.iterate(LIMIT).expect("the loop turns");
    ringing.join().expect("it does not panic");
}

/// No ring is lost, however it meets the loop's falling asleep: each value is put once, and rung
/// for once.
#[test]
fn no_ring_is_lost() {
    const ROUNDS: usize = 2_000;
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let (put, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (data, seen) = (Arc::clone(&put), Arc::clone(&taken));
        let hook = move |reactor: &Reactor| {
            // Relaxed: the ring carries the data across.
            let count = data.load(Ordering::Relaxed);
            seen.store(count, Ordering::Relaxed);
            if count == ROUNDS {
                // A second ring may find the loop stopping.
                let _ = reactor.stop();
            }
        };
        let reactor = Reactor::builder().signals(false).backend(kind).on_ring(hook).build().expect("a poller");
        let remote = reactor.remote();
        let ringing = thread::spawn(move || {
            for round in 1..=ROUNDS {
                put.store(round, Ordering::Relaxed);
                remote.ring();
                while taken.load(Ordering::Relaxed) < round {
                    thread::yield_now();
                }
            }
        });
        run(&reactor).expect("the loop turns");
        ringing.join().expect("it does not panic");
    }
}

/// A panic of the function is logged, and the loop goes on. A closed reactor ignores rings.
#[test]
fn a_function_that_panics_harms_nothing() {
    let hook = |_: &Reactor| panic!("not a good time");
    let reactor = Reactor::builder().signals(false).on_ring(hook).build().expect("a poller");
    let remote = reactor.remote();
    remote.ring();
    let ((), lines) = logged(|| reactor.iterate(Duration::ZERO).expect("the loop turns"));
    assert!(lines.len() == 1 && lines[0].contains("not a good time"), "{lines:?}");
    reactor.close().expect("it does not run");
    remote.ring();
}
