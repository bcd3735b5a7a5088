//! Threads that wait for the reactor: what they are given, and that none waits for ever.

use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::{OwnThread, ReactorGone};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::{Failure, Reactor, Remote, Result};

/// A thread that uses a reactor from outside.
fn beside<T: Send + 'static>(reactor: &Reactor, act: impl FnOnce(Remote) -> T + Send + 'static) -> JoinHandle<T> {
    let remote = reactor.remote();
    thread::spawn(move || act(remote))
}

/// The call runs on the reactor's thread, and what it returns is given to the thread: a value,
/// nothing, an error, a panic.
#[test]
fn the_thread_is_given_what_the_call_returns() {
    let (reactor, here) = (reactor(), thread::current().id());
    let worker = beside(&reactor, |remote| {
        let there = remote.blocking_call_from_thread(|_| Ok(thread::current().id())).unwrap();
        remote.blocking_call_from_thread(|_| ()).unwrap();
        let error = remote.blocking_call_from_thread(|_| Ok("eighty".parse::<u16>()?)).unwrap_err();
        assert!(error.check::<std::num::ParseIntError>().is_some(), "{error}");
        let panic = remote.blocking_call_from_thread(|_| -> Result<()> { panic!("of a call") }).unwrap_err();
        assert_eq!(panic.check::<Panicked>().unwrap().message, "of a call");
        there
    });
    assert_eq!(run_beside(&reactor, worker), here);
}

/// A Deferred that the call returned is waited for, while the loop turns; its failure is the
/// thread's.
#[test]
fn the_thread_waits_for_a_deferred() {
    let reactor = reactor();
    let worker = beside(&reactor, |remote| {
        let later = |reactor: &Reactor, result: Result<u8>| {
            let (promise, deferred) = Promise::new();
            reactor.call_later(Duration::from_millis(2), move || promise.complete(result).unwrap());
            deferred
        };
        assert_eq!(remote.blocking_call_from_thread(move |reactor| later(reactor, Ok(7))).unwrap(), 7);
        let failure = Failure::message("not today");
        remote.blocking_call_from_thread(move |reactor| later(reactor, Err(failure))).unwrap_err().to_string()
    });
    assert_eq!(run_beside(&reactor, worker), "not today");
}

/// A thread that asks before the reactor runs waits until it does.
#[test]
fn the_thread_waits_for_a_run() {
    let reactor = reactor();
    let (asking, asks) = mpsc::channel();
    let worker = beside(&reactor, move |remote| {
        asking.send(()).unwrap();
        remote.blocking_call_from_thread(|reactor| Ok(reactor.stop()?))
    });
    asks.recv_timeout(LIMIT).unwrap();
    run(&reactor).unwrap();
    worker.join().unwrap().unwrap();
}

/// On the reactor's own thread, inside the loop and outside, it is an error, and nothing is called.
#[test]
fn the_reactors_own_thread_does_not_wait_for_itself() {
    let reactor = reactor();
    let remote = reactor.remote();
    let ask = move || {
        let called = remote.blocking_call_from_thread(|_| -> Result<()> { unreachable!("it is not called") });
        assert!(called.unwrap_err().check::<OwnThread>().is_some());
    };
    ask();
    let handle = reactor.clone();
    reactor.call_later(Duration::ZERO, move || {
        ask();
        handle.stop().unwrap();
    });
    run(&reactor).unwrap();
}

/// A reactor may be waited for from the thread of another one.
#[test]
fn one_reactor_may_wait_for_another() {
    let other = reactor();
    let asked = other.remote();
    let worker = thread::spawn(move || {
        let _watchdog = Watchdog::new();
        let own = reactor();
        let handle = own.clone();
        own.call_later(Duration::ZERO, move || {
            assert_eq!(asked.blocking_call_from_thread(|_| Ok(5)).unwrap(), 5);
            handle.stop().unwrap();
        });
        own.run().unwrap();
    });
    run_beside(&other, worker);
}

/// A blocking call fails if its reactor is gone or goes: before the call was made, and while its
/// Deferred waits, even if the promise is kept.
#[test]
fn a_reactor_that_goes_sends_its_callers_away() {
    let (send, promises) = mpsc::channel();
    thread_local! {
        static KEPT: std::cell::RefCell<Vec<Promise<()>>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let reactor = reactor();
    let begun = beside(&reactor, move |remote| {
        remote.blocking_call_from_thread(move |_| {
            let (promise, deferred) = Promise::<()>::new();
            KEPT.with_borrow_mut(|kept| kept.push(promise));
            send.send(()).unwrap();
            deferred
        })
    });
    run_until(&reactor, || promises.try_recv().is_ok());
    let (dropped, drops) = mpsc::channel::<()>();
    let queued = beside(&reactor, move |remote| {
        let asked = remote.blocking_call_from_thread(move |_| {
            let _dropped = &dropped;
        });
        (asked, remote.blocking_call_from_thread(|_| ()))
    });
    // It is in the queue, or about to be: either way it fails.
    drop(reactor);
    assert!(begun.join().unwrap().unwrap_err().check::<ReactorGone>().is_some());
    let (first, second) = queued.join().unwrap();
    for asked in [first, second] {
        assert!(asked.unwrap_err().check::<ReactorGone>().is_some());
    }
    assert_eq!(drops.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    for promise in KEPT.take() {
        // No caller waits for it any more.
        promise.callback(()).unwrap();
    }
}

/// The end of a shutdown fails callers that still wait for work of that run; the next run works.
#[test]
fn a_run_that_ends_sends_its_callers_away() {
    let reactor = reactor();
    for _ in 0..3 {
        let (promise, hanging) = Promise::<()>::new();
        let kept = Rc::new(std::cell::Cell::new(Some(hanging)));
        thread_local! {
            static HANGING: std::cell::Cell<Option<ropewalk::Deferred<()>>> = const { std::cell::Cell::new(None) };
        }
        HANGING.set(kept.take());
        let worker = beside(&reactor, |remote| {
            remote.blocking_call_from_thread(|reactor| {
                reactor.stop().unwrap();
                HANGING.take().expect("it was put there")
            })
        });
        run(&reactor).unwrap();
        assert!(worker.join().unwrap().unwrap_err().check::<ReactorGone>().is_some());
        promise.callback(()).unwrap();
    }
}

/// The failure of a Deferred whose promise was dropped is returned unchanged.
#[test]
fn an_abandoned_deferred_ends_the_wait() {
    let reactor = reactor();
    let worker = beside(&reactor, |remote| {
        remote.blocking_call_from_thread(|_| Promise::<()>::new().1).unwrap_err().to_string()
    });
    assert!(run_beside(&reactor, worker).contains("abandoned"));
}

/// Many threads wait at the same time, each for its own answer, and for each other's.
#[test]
fn many_threads_may_wait() {
    let reactor = reactor();
    let workers: Vec<_> = (0..16_u64)
        .map(|n| {
            beside(&reactor, move |remote| {
                for round in 0..200 {
                    let (again, asked) = (remote.clone(), n * 1_000 + round);
                    let answer = remote
                        .blocking_call_from_thread(move |reactor| {
                            reactor.defer_to_thread(move || again.blocking_call_from_thread(move |_| Ok(asked)))
                        })
                        .unwrap();
                    assert_eq!(answer, asked);
                }
            })
        })
        .collect();
    run_until(&reactor, || workers.iter().all(JoinHandle::is_finished));
    for worker in workers {
        worker.join().unwrap();
    }
}
