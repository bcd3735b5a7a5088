//! Jobs in threads when a reactor stops: it goes on turning until they are done, and not for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::ReactorGone;
use ropewalk::interfaces::*;
use ropewalk::{Deferred, Phase, Reactor, Result, SystemEvent};

/// A reactor that waits for its jobs for 50 ms when it stops.
fn impatient() -> Reactor {
    Reactor::builder().signals(false).shutdown_timeout(Some(Duration::from_millis(50))).build().unwrap()
}

fn stop_at_once(reactor: &Reactor) {
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
}

/// A job that says that it has begun, and ends when its sender is dropped.
fn blocked(reactor: &Reactor) -> (Deferred<()>, Receiver<()>, Sender<()>) {
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let job = reactor.defer_to_thread(move || {
        begun.send(())?;
        let _ = released.recv();
        Ok(())
    });
    (job, begins, release)
}

/// Logs a job's result as "name done" or "name failed: why".
fn log_result(log: &Log, name: &'static str, job: Deferred<()>) {
    let log = log.clone();
    drop(job.add_both(move |result| match result {
        Ok(()) => log.add(format!("{name} done")),
        Err(failure) => log.add(format!("{name} failed: {failure}")),
    }));
}

/// Jobs that run and jobs that wait are all done before the `After` phase, and their callbacks run;
/// they don't hold the triggers of `During` up.
#[test]
fn a_shutdown_waits_for_jobs() {
    let (reactor, log) = (reactor(), Log::default());
    reactor.suggest_thread_pool_size(1);
    let (first, begins, release) = blocked(&reactor);
    log_result(&log, "first", first);
    log_result(&log, "second", reactor.defer_to_thread(|| Ok(())));
    let (ran, runs) = mpsc::channel();
    reactor.call_in_thread(move || ran.send(()).unwrap());
    begins.recv_timeout(LIMIT).unwrap();
    let release = Rc::new(RefCell::new(Some(release)));
    for (phase, name) in [(Phase::Before, "before"), (Phase::During, "during"), (Phase::After, "after")] {
        let (log, release) = (log.clone(), Rc::clone(&release));
        reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || {
            log.add(name);
            if phase == Phase::During {
                release.take();
            }
        });
    }
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["before", "during", "first done", "second done", "after"]);
    assert_eq!(runs.try_recv(), Ok(()));
    assert_eq!(reactor.counters().threads_at_work, 0);
}

/// F39: a job that waits for the reactor does not deadlock with a reactor that waits for the job,
/// and gets its answer.
#[test]
fn a_job_may_need_the_reactor_until_it_is_done() {
    let (reactor, log) = (reactor(), Log::default());
    let (remote, (gate, gated)) = (reactor.remote(), mpsc::channel::<()>());
    let job = reactor.defer_to_thread(move || {
        let _ = gated.recv();
        for n in 0..3 {
            let answer = remote.blocking_call_from_thread(move |reactor| {
                let (promise, deferred) = Promise::new();
                reactor.call_later(Duration::from_millis(1), move || promise.callback(n).unwrap());
                deferred
            })?;
            assert_eq!(answer, n);
        }
        Ok(())
    });
    log_result(&log, "job", job);
    let gate = Cell::new(Some(gate));
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || drop(gate.take()));
    let last = log.clone();
    reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || last.add("after"));
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["job done", "after"]);
}

/// Jobs that are asked for during the shutdown are done too: by triggers of both later phases, and
/// by callbacks.
#[test]
fn jobs_of_a_shutdown_are_done() {
    let (reactor, log) = (reactor(), Log::default());
    for (phase, name) in [(Phase::During, "during"), (Phase::After, "after")] {
        let (handle, log) = (reactor.clone(), log.clone());
        reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || {
            let again = handle.clone();
            let job = handle.defer_to_thread(|| Ok(())).add_callback(move |()| again.defer_to_thread(|| Ok(())));
            log_result(&log, name, job);
        });
    }
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["during done", "after done"]);
}

/// F39: a stuck job is left behind at the deadline, with the jobs that have not begun. The log says
/// how many, and their Deferreds fail. The next run has a whole pool, and the stuck job does no
/// harm later.
#[test]
fn a_stuck_job_is_left_behind() {
    let (reactor, log) = (impatient(), Log::default());
    reactor.suggest_thread_pool_size(2);
    let (stuck, begins, release) = blocked(&reactor);
    let (other, other_begins, other_release) = blocked(&reactor);
    log_result(&log, "stuck", stuck);
    log_result(&log, "other", other);
    let (ran, runs) = mpsc::channel();
    let told = ran.clone();
    log_result(&log, "waiting", reactor.defer_to_thread(move || Ok(told.send("deferred")?)));
    reactor.call_in_thread(move || ran.send("called").unwrap());
    begins.recv_timeout(LIMIT).unwrap();
    other_begins.recv_timeout(LIMIT).unwrap();
    let last = log.clone();
    reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || last.add("after"));
    stop_at_once(&reactor);
    let began = reactor.seconds();
    let (result, warnings) = logged(|| run(&reactor));
    result.unwrap();
    assert!(reactor.seconds() - began >= Duration::from_millis(50), "it did not wait");
    let gone = ["stuck", "other", "waiting"].map(|name| format!("{name} failed: the reactor is gone"));
    assert_eq!(log.all()[..3], gone);
    assert_eq!(log.all()[3..], ["after"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("stuck=2 dropped=2"), "{warnings:?}");
    assert_eq!(runs.try_recv(), Err(mpsc::TryRecvError::Disconnected), "what had not begun is gone");
    let counters = reactor.counters();
    assert_eq!((counters.jobs_waiting, counters.threads_at_work), (0, 0));

    // Both places of the pool are free again, while the two old threads hang.
    let (first, first_begins, first_release) = blocked(&reactor);
    let (second, second_begins, second_release) = blocked(&reactor);
    first_begins.recv_timeout(LIMIT).unwrap();
    second_begins.recv_timeout(LIMIT).unwrap();
    drop((release, other_release, first_release, second_release));
    log_result(&log, "first", first);
    log_result(&log, "second", second);
    stop_at_once(&reactor);
    let (result, warnings) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((log.count("first done"), log.count("second done"), log.count("stuck")), (1, 1, 1));
}

/// A thread that is stuck because it waits for the reactor is set free when the run is over.
#[test]
fn a_job_that_waits_for_us_in_vain_is_set_free() {
    let (reactor, (told, tells)) = (impatient(), mpsc::channel());
    let remote = reactor.remote();
    reactor.call_in_thread(move || {
        let asked: Result<()> = remote.blocking_call_from_thread(|reactor| {
            let (promise, deferred) = Promise::new();
            // It keeps itself for ever.
            reactor.call_later(Duration::MAX, move || drop(promise));
            reactor.stop().unwrap();
            deferred
        });
        told.send(asked).unwrap();
    });
    let (result, warnings) = logged(|| run(&reactor));
    result.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("stuck=1 dropped=0"), "{warnings:?}");
    assert!(tells.recv_timeout(LIMIT).unwrap().unwrap_err().check::<ReactorGone>().is_some());
}

/// Jobs that a size of zero holds back are not waited for: they are dropped, and their Deferreds
/// fail.
#[test]
fn a_shutdown_does_not_wait_for_what_is_held_back() {
    let (reactor, log) = (reactor(), Log::default());
    reactor.suggest_thread_pool_size(0);
    log_result(&log, "held back", reactor.defer_to_thread(|| Ok(())));
    stop_at_once(&reactor);
    let (result, warnings) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(log.all(), ["held back failed: the reactor is gone"]);
    assert!(warnings.len() == 1 && warnings[0].contains("had not begun are dropped"), "{warnings:?}");
    assert!(warnings[0].contains("dropped=1") && !warnings[0].contains("stuck"), "no thread hangs: {warnings:?}");
}

/// A job that was cancelled while it ran is waited for all the same: its thread is at work.
#[test]
fn a_cancelled_job_that_runs_is_waited_for() {
    let (reactor, (ended, ends)) = (reactor(), mpsc::channel());
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let job = reactor.defer_to_thread(move || {
        begun.send(())?;
        let _ = released.recv();
        Ok(ended.send(())?)
    });
    begins.recv_timeout(LIMIT).unwrap();
    job.cancel();
    drop(job.add_errback(|_| Ok(())));
    let release = Cell::new(Some(release));
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || drop(release.take()));
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(ends.try_recv(), Ok(()));
}

/// A crash leaves jobs as they are: they go on, and their results come in the next run.
#[test]
fn a_crash_leaves_jobs_alone() {
    let (reactor, log) = (reactor(), Log::default());
    let (job, begins, release) = blocked(&reactor);
    log_result(&log, "job", job);
    begins.recv_timeout(LIMIT).unwrap();
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.crash().unwrap());
    run(&reactor).unwrap();
    assert_eq!(log.all(), Vec::<String>::new());
    assert_eq!(reactor.counters().threads_at_work, 1);
    drop(release);
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["job done"]);
}

/// Run after run, the pool works.
#[test]
fn every_run_has_a_pool() {
    let (reactor, log) = (reactor(), Log::default());
    for round in 1..=20 {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(5));
        for _ in 0..5 {
            let barrier = std::sync::Arc::clone(&barrier);
            let job = reactor.defer_to_thread(move || {
                barrier.wait();
                Ok(())
            });
            log_result(&log, "job", job);
        }
        stop_at_once(&reactor);
        run(&reactor).unwrap();
        assert_eq!(log.count("job done"), 5 * round);
    }
}

/// A job that was cancelled before it began is not waited for.
#[test]
fn a_cancelled_job_does_not_hold_a_shutdown_up() {
    let (reactor, log) = (reactor(), Log::default());
    reactor.suggest_thread_pool_size(1);
    let (first, begins, release) = blocked(&reactor);
    log_result(&log, "first", first);
    begins.recv_timeout(LIMIT).unwrap();
    let second = reactor.defer_to_thread(|| Ok(()));
    second.cancel();
    log_result(&log, "second", second);
    drop(release);
    stop_at_once(&reactor);
    let began = std::time::Instant::now();
    run(&reactor).unwrap();
    assert!(began.elapsed() < LIMIT);
    assert_eq!(log.all(), ["second failed: the operation was cancelled", "first done"]);
}

/// Jobs that a reactor gives up fail in the order in which they were asked for, and so does the
/// looking up of a name.
#[test]
fn jobs_are_given_up_in_order() {
    let (reactor, log) = (reactor(), Log::default());
    reactor.suggest_thread_pool_size(0);
    for number in 0..20 {
        let log = log.clone();
        drop(reactor.defer_to_thread(|| Ok(())).add_errback(move |_| {
            log.add(number.to_string());
            Ok(())
        }));
    }
    let mut name = reactor.resolve("localhost", 7);
    reactor.close().unwrap();
    assert_eq!(log.all(), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(name.take_result().expect("it has failed").is_err());
}

/// A thread that has nothing to do does not outlive its reactor.
#[test]
fn idle_threads_leave_with_their_reactor() {
    struct Tells(mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    thread_local! {
        static LEAVES: RefCell<Option<Tells>> = const { RefCell::new(None) };
    }
    let reactor = reactor();
    let (leaves, left) = mpsc::channel();
    let job = reactor.defer_to_thread(move || {
        LEAVES.set(Some(Tells(leaves)));
        Ok(())
    });
    result_of(&reactor, job).unwrap();
    assert!(left.try_recv().is_err(), "it waits for work");
    reactor.close().unwrap();
    // Idle threads leave by themselves, after 10 s.
    left.recv_timeout(Duration::from_secs(5)).expect("it has left");
}
