//! Calls from other threads: none lost, in order, and the loop is woken for them.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ReactorGone;
use ropewalk::interfaces::*;
use ropewalk::{Connection, Deferred, DelayedCall, Port, Reactor, Remote, Transport};

/// F37: of the calls of 16 threads, 20,000 each, none is lost, and those of one thread are made in
/// their order.
#[test]
fn no_call_is_lost_and_each_threads_calls_stay_in_order() {
    const THREADS: usize = 16;
    const CALLS: usize = 20_000;
    let reactor = reactor();
    let seen: Rc<RefCell<Vec<usize>>> = Rc::new(RefCell::new(vec![0; THREADS]));
    thread_local! {
        static SEEN: RefCell<Option<Rc<RefCell<Vec<usize>>>>> = const { RefCell::new(None) };
    }
    SEEN.set(Some(Rc::clone(&seen)));
    let (start, wrong) = (Arc::new(Barrier::new(THREADS)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (remote, start, wrong) = (reactor.remote(), Arc::clone(&start), Arc::clone(&wrong));
            thread::spawn(move || {
                start.wait();
                for n in 0..CALLS {
                    let wrong = Arc::clone(&wrong);
                    let call = move |reactor: &Reactor| {
                        let seen = SEEN.with_borrow(|seen| seen.clone().expect("it runs on the reactor's thread"));
                        let mut seen = seen.borrow_mut();
                        if seen[thread] != n {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        seen[thread] += 1;
                        if n + 1 == CALLS && seen.iter().sum::<usize>() == THREADS * CALLS {
                            reactor.stop().unwrap();
                        }
                    };
                    remote.call_from_thread(call).unwrap();
                }
            })
        })
        .collect();
    // Nothing but a call ends a wait of this run.
    run(&reactor).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(seen.borrow().iter().all(|&count| count == CALLS));
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "out of order");
    SEEN.set(None);
}

/// A loop that has nothing to wait for sleeps until a thread calls, and a thread can stop it.
#[test]
fn a_sleeping_loop_is_woken() {
    for _ in 0..50 {
        let reactor = reactor();
        let remote = reactor.remote();
        let (runs, running) = mpsc::channel();
        reactor.call_when_running(move || runs.send(()).unwrap());
        let thread = thread::spawn(move || {
            running.recv().unwrap();
            let (made, answer) = mpsc::channel();
            // Each of these is waited for, so that the loop falls asleep in between.
            for n in 0..20 {
                let made = made.clone();
                remote.call_from_thread(move |_| made.send(n).unwrap()).unwrap();
                assert_eq!(answer.recv_timeout(LIMIT), Ok(n));
            }
            remote.call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
        });
        run(&reactor).unwrap();
        thread.join().unwrap();
        assert!(reactor.counters().turns <= 45, "the loop spun: {} turns", reactor.counters().turns);
    }
}

/// A loop that calls itself through its remote, from calls, timers and connections, does not fall
/// asleep over it.
#[test]
fn a_loop_that_calls_itself_does_not_sleep() {
    fn again(reactor: &Reactor, left: usize) {
        let remote = reactor.remote();
        let call = move |reactor: &Reactor| match left {
            0 => reactor.stop().unwrap(),
            _ => again(reactor, left - 1),
        };
        if left.is_multiple_of(2) {
            remote.call_from_thread(call).unwrap();
        } else {
            reactor.call_later(Duration::ZERO, move || remote.call_from_thread(call).unwrap());
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let handle = reactor.clone();
    let script = Script::new(&log).data(move |_, _| {
        again(&handle, 1_000);
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"go").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap()
    });
    // Nothing else ends a wait of this run.
    run(&reactor).unwrap();
    client.join().unwrap();
}

/// Calls made before a run are kept for it, calls made between two runs for the second.
#[test]
fn calls_wait_for_a_reactor_that_does_not_run() {
    let reactor = reactor();
    let (made, all) = mpsc::channel();
    for round in 0..3 {
        let (remote, made) = (reactor.remote(), made.clone());
        thread::spawn(move || {
            for n in 0..3 {
                let made = made.clone();
                remote.call_from_thread(move |_| made.send((round, n)).unwrap()).unwrap();
            }
            remote.call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
        })
        .join()
        .unwrap();
        assert!(all.try_recv().is_err(), "made without a run");
        run(&reactor).unwrap();
        assert_eq!(all.try_iter().collect::<Vec<_>>(), [(round, 0), (round, 1), (round, 2)]);
    }
}

/// The calls of a batch that come after one that stops the reactor are made all the same.
#[test]
fn a_stop_does_not_drop_the_rest_of_the_batch() {
    let reactor = reactor();
    let (made, all) = mpsc::channel();
    reactor.remote().call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
    reactor.remote().call_from_thread(move |_| made.send("after the stop").unwrap()).unwrap();
    run(&reactor).unwrap();
    assert_eq!(all.try_iter().collect::<Vec<_>>(), ["after the stop"]);
}

/// Tells that it was dropped, and on which thread; and calls the reactor while it is dropped.
struct Guard(Remote, mpsc::Sender<(thread::ThreadId, Result<(), ReactorGone>)>);

impl Drop for Guard {
    fn drop(&mut self) {
        let called = self.0.call_from_thread(|_| ());
        self.1.send((thread::current().id(), called)).unwrap();
    }
}

/// Once the reactor is dropped, a call is an error, and its closure is dropped on the thread that
/// asked; what was queued before is dropped with the reactor. Neither holds the queue's lock.
#[test]
fn calls_to_a_reactor_that_is_gone_are_errors() {
    let _watchdog = Watchdog::new();
    let reactor = reactor();
    let remote = reactor.remote();
    let (drops, dropped) = mpsc::channel();
    let guard = Guard(remote.clone(), drops.clone());
    remote.call_from_thread(move |_| drop(guard)).unwrap();
    drop(reactor);
    assert_eq!(dropped.try_recv(), Ok((thread::current().id(), Err(ReactorGone))));
    let thread = thread::spawn(move || {
        let guard = Guard(remote.clone(), drops);
        let called = remote.call_from_thread(move |_| drop(guard));
        (thread::current().id(), called)
    });
    let (id, called) = thread.join().unwrap();
    assert_eq!(called, Err(ReactorGone));
    assert_eq!(dropped.try_recv(), Ok((id, Err(ReactorGone))));
    assert!(dropped.try_recv().is_err());
}

/// A call that panics is logged, and the next ones are made.
#[test]
fn a_panic_of_one_call_harms_no_other() {
    let reactor = reactor();
    let (made, all) = mpsc::channel();
    for n in 0..3 {
        let made = made.clone();
        let call = move |_: &Reactor| match n {
            1 => panic!("call {n} failed"),
            _ => made.send(n).unwrap(),
        };
        reactor.remote().call_from_thread(call).unwrap();
    }
    let (result, errors) = logged(|| reactor.iterate(Duration::ZERO));
    result.unwrap();
    assert_eq!(all.try_iter().collect::<Vec<_>>(), [0, 2]);
    assert!(errors.len() == 1 && errors[0].contains("call 1 failed"), "{errors:?}");
}

/// A call may be made from the reactor's own thread, and from a thread that ends before it is made;
/// it may use everything that the reactor has.
#[test]
fn a_call_has_the_whole_reactor() {
    let reactor = reactor();
    let remote = reactor.remote();
    let (told, tell) = mpsc::channel();
    reactor.call_later(Duration::ZERO, move || {
        let call = move |reactor: &Reactor| {
            let told = told.clone();
            let handle = reactor.clone();
            reactor.call_later(Duration::ZERO, move || {
                told.send(handle.is_running()).unwrap();
                handle.stop().unwrap();
            });
        };
        thread::spawn(move || remote.call_from_thread(call)).join().unwrap().unwrap();
    });
    run(&reactor).unwrap();
    assert_eq!(tell.try_iter().collect::<Vec<_>>(), [true]);
}

/// Types that are `Send`, and types that are not, checked by the compiler. The second half does not
/// compile if one of its types becomes `Send`, for then two implementations would fit.
#[test]
fn only_the_remote_leaves_its_thread() {
    fn may_leave<T: Send + Sync + Clone + 'static>() {}
    may_leave::<Remote>();
    may_leave::<ropewalk::Failure>();

    trait Stays<A> {
        fn check() {}
    }
    impl<T: ?Sized> Stays<()> for T {}
    struct IsSend;
    impl<T: ?Sized + Send> Stays<IsSend> for T {}
    <Reactor as Stays<_>>::check();
    <Transport as Stays<_>>::check();
    <Deferred<()> as Stays<_>>::check();
    <ropewalk::deferred::Promise<()> as Stays<_>>::check();
    <Port as Stays<_>>::check();
    <DelayedCall as Stays<_>>::check();
    <Connection<Script> as Stays<_>>::check();
    <ropewalk::time::Timers as Stays<_>>::check();
}
