//! Jobs in threads: their results, their order and number, and what becomes of them when they are
//! given up.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};

use crate::common::*;
use ropewalk::deferred::Cancelled;
use ropewalk::error::ReactorGone;
use ropewalk::failure::Panicked;
use ropewalk::{Deferred, Failure, Reactor};

/// Jobs that say that they have begun, and end on request.
struct Gate {
    begun: Sender<usize>,
    begins: Receiver<usize>,
}

impl Gate {
    fn new() -> Self {
        let (begun, begins) = mpsc::channel();
        Self { begun, begins }
    }

    /// A job with a number; it ends when the sender is dropped.
    fn job(&self, reactor: &Reactor, number: usize) -> (Deferred<usize>, Sender<()>) {
        let (release, released) = mpsc::channel();
        let begun = self.begun.clone();
        let done = reactor.defer_to_thread(move || {
            begun.send(number)?;
            let _ = released.recv();
            Ok(number)
        });
        (done, release)
    }

    /// The number of the next job that begins.
    #[track_caller]
    fn next(&self) -> usize {
        self.begins.recv_timeout(LIMIT).expect("a job begins")
    }

    /// The numbers of the next jobs that begin.
    #[track_caller]
    fn all(&self, count: usize) -> HashSet<usize> {
        (0..count).map(|_| self.next()).collect()
    }

    #[track_caller]
    fn is_quiet(&self) {
        assert_eq!(self.begins.try_recv(), Err(mpsc::TryRecvError::Empty));
    }
}

fn load(reactor: &Reactor) -> (usize, usize) {
    let counters = reactor.counters();
    (counters.jobs_waiting, counters.threads_at_work)
}

/// The work runs on another thread, its callbacks on this one, with a value, an error or a panic.
#[test]
fn a_result_comes_back_to_the_reactors_thread() {
    let (reactor, here) = (reactor(), thread::current().id());
    let there = reactor.defer_to_thread(|| Ok(thread::current().id()));
    let there = there.add_callback(move |there| {
        assert_eq!(thread::current().id(), here);
        Ok(there)
    });
    assert_ne!(result_of(&reactor, there).unwrap(), here);
    let error = result_of(&reactor, reactor.defer_to_thread(|| Ok("eighty".parse::<u16>()?))).unwrap_err();
    assert!(error.check::<std::num::ParseIntError>().is_some(), "{error}");
    let work = || -> ropewalk::Result<()> { panic!("job {} failed", 7) };
    let panic = result_of(&reactor, reactor.defer_to_thread(work)).unwrap_err();
    assert_eq!(panic.check::<Panicked>().unwrap().message, "job 7 failed");
    assert_eq!(load(&reactor), (0, 0));
}

/// Nothing of a result is delivered before the loop turns, however long it has been there.
#[test]
fn a_result_waits_for_the_loop() {
    let reactor = reactor();
    let (done, finished) = mpsc::channel();
    let mut deferred = reactor.defer_to_thread(move || Ok(done.send(())?));
    finished.recv_timeout(LIMIT).unwrap();
    assert!(deferred.take_result().is_none());
    result_of(&reactor, deferred).unwrap();
}

/// An unhandled failure is reported with the place that asked for the job.
#[test]
fn an_unhandled_failure_names_its_place() {
    let reactor = reactor();
    reactor.suggest_thread_pool_size(1);
    let ((), errors) = logged(|| {
        drop(reactor.defer_to_thread(|| Err::<(), _>(Failure::message("lost"))));
        // The one thread tells of the first job before it begins this one.
        result_of(&reactor, reactor.defer_to_thread(|| Ok(()))).unwrap();
    });
    assert!(errors.len() == 1 && errors[0].contains("lost") && errors[0].contains("thread_pool.rs"), "{errors:?}");
}

/// `call_in_thread` runs on another thread; a panic is logged there, with the place that asked, and
/// harms no other job.
#[test]
fn a_call_in_a_thread_is_nobodys_result() {
    own_process!();
    let (lines, reactor) = (log_of_other_threads(), reactor());
    reactor.suggest_thread_pool_size(1);
    let (ran, runs) = mpsc::channel();
    let place = format!("place=tests/reactor/thread_pool.rs:{}:", line!() + 1);
    reactor.call_in_thread(|| panic!("of one call"));
    reactor.call_in_thread(move || ran.send(thread::current().id()).unwrap());
    assert_ne!(runs.recv_timeout(LIMIT).unwrap(), thread::current().id());
    let lines = lines.lock().unwrap().clone();
    let told = lines.iter().filter(|line| line.contains(&place) && line.contains("of one call")).count();
    assert_eq!(told, 1, "{lines:?}");
    run_until(&reactor, || load(&reactor) == (0, 0));
}

/// Ten jobs run beside each other, and the next wait; the counters say so.
#[test]
fn ten_jobs_run_at_the_same_time() {
    let (reactor, gate) = (reactor(), Gate::new());
    let barrier = Arc::new(Barrier::new(10));
    for _ in 0..10 {
        let barrier = Arc::clone(&barrier);
        reactor.call_in_thread(move || {
            barrier.wait();
        });
    }
    let (jobs, releases): (Vec<_>, Vec<_>) = (0..15).map(|n| gate.job(&reactor, n)).unzip();
    gate.all(10);
    assert_eq!(load(&reactor), (5, 10));
    gate.is_quiet();
    drop(releases);
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(result_of(&reactor, job).unwrap(), n);
    }
    assert_eq!(load(&reactor), (0, 0));
}

/// F38: a pool that is full of jobs does not hold up the looking up of names.
#[test]
fn names_do_not_wait_for_jobs() {
    let (reactor, gate) = (reactor(), Gate::new());
    let (jobs, releases): (Vec<_>, Vec<_>) = (0..20).map(|n| gate.job(&reactor, n)).unzip();
    gate.all(10);
    let found = result_of(&reactor, reactor.resolve("localhost", 80)).unwrap();
    assert!(!found.is_empty());
    assert_eq!(load(&reactor), (10, 10));
    drop(releases);
    for job in jobs {
        result_of(&reactor, job).unwrap();
    }
}

/// A size of one runs jobs in their order; growing has waiting ones begin at once, on threads of
/// their own.
#[test]
fn the_pool_can_grow() {
    let (reactor, gate) = (reactor(), Gate::new());
    reactor.suggest_thread_pool_size(1);
    let (jobs, mut releases): (Vec<_>, Vec<_>) = (0..6).map(|n| gate.job(&reactor, n)).unzip();
    assert_eq!(gate.next(), 0);
    drop(releases.remove(0));
    assert_eq!(gate.next(), 1);
    gate.is_quiet();
    reactor.suggest_thread_pool_size(4);
    assert_eq!(gate.all(3), [2, 3, 4].into());
    assert_eq!(load(&reactor), (1, 4));
    drop(releases);
    for job in jobs {
        result_of(&reactor, job).unwrap();
    }
}

/// Shrinking interrupts no job. Excess threads take no further job, and a size of zero holds all
/// jobs back until the pool grows.
#[test]
fn the_pool_can_shrink_to_nothing() {
    let (reactor, gate) = (reactor(), Gate::new());
    let (first, first_release) = gate.job(&reactor, 1);
    assert_eq!(gate.next(), 1);
    reactor.suggest_thread_pool_size(0);
    let (second, second_release) = gate.job(&reactor, 2);
    assert_eq!(load(&reactor), (1, 1));
    drop((first_release, second_release));
    assert_eq!(result_of(&reactor, first).unwrap(), 1);
    settle(&reactor);
    gate.is_quiet();
    assert_eq!(load(&reactor), (1, 0));
    reactor.suggest_thread_pool_size(1);
    assert_eq!(result_of(&reactor, second).unwrap(), 2);
}

/// Tells when it is dropped, and where.
struct Dropped(Sender<ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

/// A job that has not begun is taken out when it is cancelled: it is dropped at once, never runs,
/// and the rest goes on.
#[test]
fn a_waiting_job_can_be_cancelled() {
    let (reactor, gate) = (reactor(), Gate::new());
    reactor.suggest_thread_pool_size(1);
    let (first, release) = gate.job(&reactor, 1);
    let (dropped, drops) = mpsc::channel();
    let (held, begun) = (Dropped(dropped), gate.begun.clone());
    let mut cancelled = reactor.defer_to_thread(move || {
        let _held = &held;
        Ok(begun.send(2)?)
    });
    let (third, third_release) = gate.job(&reactor, 3);
    assert_eq!(gate.next(), 1);
    assert_eq!(load(&reactor), (2, 1));
    cancelled.cancel();
    assert_eq!(drops.try_recv(), Ok(thread::current().id()));
    assert_eq!(load(&reactor), (1, 1));
    assert!(cancelled.take_result().unwrap().unwrap_err().check::<Cancelled>().is_some());
    drop((release, third_release));
    assert_eq!(result_of(&reactor, first).unwrap(), 1);
    assert_eq!(result_of(&reactor, third).unwrap(), 3);
    assert_eq!(gate.next(), 3);
}

/// A job that has begun goes on when it is cancelled, and its result is dropped on the reactor's
/// thread.
#[test]
fn a_running_job_goes_on_when_it_is_cancelled() {
    let reactor = reactor();
    let (dropped, drops) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut cancelled = reactor.defer_to_thread(move || {
        begun.send(())?;
        let _ = released.recv();
        Ok(Dropped(dropped))
    });
    begins.recv_timeout(LIMIT).unwrap();
    cancelled.cancel();
    assert!(cancelled.take_result().unwrap().is_err_and(|failure| failure.check::<Cancelled>().is_some()));
    assert_eq!(load(&reactor), (0, 1));
    drop(release);
    let mut place = None;
    run_until(&reactor, || {
        place = drops.try_recv().ok();
        place.is_some()
    });
    assert_eq!(place, Some(thread::current().id()));
}

/// A job whose closure panics when a cancel drops it does no harm.
#[test]
fn a_closure_that_panics_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("it went off");
        }
    }
    let reactor = reactor();
    reactor.suggest_thread_pool_size(0);
    let bomb = Bomb;
    let mut job = reactor.defer_to_thread(move || {
        let _bomb = &bomb;
        Ok(())
    });
    let ((), errors) = logged(|| job.cancel());
    assert!(errors.len() == 1 && errors[0].contains("it went off"), "{errors:?}");
    assert!(job.take_result().unwrap().unwrap_err().check::<Cancelled>().is_some());
}

/// A callback may ask for the next job, and cancel others.
#[test]
fn callbacks_can_ask_for_jobs() {
    let (reactor, order) = (reactor(), Rc::new(RefCell::new(Vec::new())));
    reactor.suggest_thread_pool_size(1);
    let (handle, log) = (reactor.clone(), Rc::clone(&order));
    let chain = reactor.defer_to_thread(|| Ok(1)).add_callback(move |n| {
        log.borrow_mut().push(n);
        let victim = handle.defer_to_thread(|| Ok(100));
        let next = handle.defer_to_thread(move || Ok(n + 1));
        victim.cancel();
        drop(victim.add_errback(|_| Ok(0)));
        next
    });
    assert_eq!(result_of(&reactor, chain).unwrap(), 2);
    assert_eq!(*order.borrow(), [1]);
}

/// Of 20,000 jobs none is lost, and each gives its own result, with callbacks that ask for more of
/// them.
#[test]
fn no_job_is_lost() {
    const JOBS: usize = 20_000;
    let (reactor, seen) = (reactor(), Rc::new(RefCell::new(vec![0_u8; JOBS])));
    for n in 0..JOBS / 2 {
        let (handle, seen) = (reactor.clone(), Rc::clone(&seen));
        let job = reactor.defer_to_thread(move || Ok(n)).add_callback(move |n| {
            seen.borrow_mut()[n] += 1;
            let seen = Rc::clone(&seen);
            handle.defer_to_thread(move || Ok(JOBS / 2 + n)).add_callback(move |n| seen.borrow_mut()[n] += 1)
        });
        drop(job);
    }
    run_until(&reactor, || seen.borrow().iter().all(|&count| count > 0));
    assert!(seen.borrow().iter().all(|&count| count == 1));
    assert_eq!(load(&reactor), (0, 0));
}

/// A reactor that is dropped drops the jobs that have not begun, and their Deferreds fail. Running
/// jobs are left to themselves.
#[test]
fn a_dropped_reactor_gives_its_jobs_up() {
    let _watchdog = Watchdog::new();
    let (reactor, gate) = (reactor(), Gate::new());
    reactor.suggest_thread_pool_size(1);
    let (mut first, release) = gate.job(&reactor, 1);
    let (mut second, _) = gate.job(&reactor, 2);
    assert_eq!(gate.next(), 1);
    let ((), warnings) = logged(|| drop(reactor));
    for job in [&mut first, &mut second] {
        assert!(job.take_result().unwrap().unwrap_err().check::<ReactorGone>().is_some());
    }
    let told = warnings.len() == 1 && warnings[0].contains("stuck=1 dropped=1");
    assert!(told, "{warnings:?}");
    drop(release);
    // The last sender is the one of the job that ran.
    let Gate { begun, begins } = gate;
    drop(begun);
    assert_eq!(begins.recv_timeout(LIMIT), Err(mpsc::RecvTimeoutError::Disconnected));
}
