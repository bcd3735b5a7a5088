//! Pools of threads of the program's own: their threads, their places, and their end.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Cancelled;
use ropewalk::error::{OwnThread, PoolStopped, ReactorGone};
use ropewalk::testing::Network;
use ropewalk::{Deferred, Failure, Phase, Reactor, Result, SystemEvent, ThreadPool};

/// A job that says that it has begun, and ends with its number when the sender is dropped.
fn block(pool: &ThreadPool, begun: &Sender<usize>, number: usize) -> (Deferred<usize>, Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let begun = begun.clone();
    let done = pool.defer_to_thread(move || {
        begun.send(number)?;
        let _ = released.recv();
        Ok(number)
    });
    (done, release)
}

#[track_caller]
fn next(begins: &Receiver<usize>) -> usize {
    begins.recv_timeout(LIMIT).expect("a job begins")
}

/// Idle threads, threads at work, and jobs that wait.
fn load(pool: &ThreadPool) -> (usize, usize, usize) {
    let load = pool.statistics();
    (load.idle, load.working, load.queued)
}

/// Number of threads of this process with this name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim_end() == name).count()
}

/// True if it failed so.
fn fails_with<E: std::error::Error + 'static>(deferred: &mut Deferred<impl Sized + 'static>) -> bool {
    deferred.take_result().is_some_and(|result| result.is_err_and(|failure| failure.check::<E>().is_some()))
}

/// The work runs on threads with the pool's name, callbacks on the reactor's thread; a value, an
/// error or a panic comes back. A job may wait for the reactor.
#[test]
fn jobs_run_on_threads_of_the_pool() {
    let (reactor, here) = (reactor(), thread::current().id());
    let pool = reactor.thread_pool("pictures", 2);
    assert_eq!(pool.name(), "pictures");
    let named = pool.defer_to_thread(|| Ok(thread::current().name().map(str::to_owned))).add_callback(move |name| {
        assert_eq!(thread::current().id(), here);
        Ok(name)
    });
    assert_eq!(result_of(&reactor, named).unwrap().as_deref(), Some("pictures"));
    let failed = pool.defer_to_thread(|| Err::<(), _>(Failure::message("no")));
    assert_eq!(result_of(&reactor, failed).unwrap_err().to_string(), "no");
    let panicked = pool.defer_to_thread(|| -> Result<()> { panic!("of a job") });
    assert!(result_of(&reactor, panicked).unwrap_err().to_string().contains("of a job"));
    let remote = reactor.remote();
    let asked = pool.defer_to_thread(move || {
        assert!(!remote.is_in_reactor_thread());
        remote.blocking_call_from_thread(|reactor| Ok(reactor.remote().is_in_reactor_thread()))
    });
    assert!(result_of(&reactor, asked).unwrap());
    // A name that the system would not have is had without its NUL.
    let odd = reactor.thread_pool("a\0b", 1);
    assert_eq!(odd.name(), "ab");
    let named = odd.defer_to_thread(|| Ok(thread::current().name().map(str::to_owned)));
    assert_eq!(result_of(&reactor, named).unwrap().as_deref(), Some("ab"));
}

/// A pool that is full holds up neither the reactor's, nor another of the program's, nor the
/// looking up of names; nor does the reactor's it.
#[test]
fn pools_do_not_hinder_one_another() {
    let (reactor, (begun, begins)) = (reactor(), mpsc::channel());
    let (full, other) = (reactor.thread_pool("full", 1), reactor.thread_pool("other", 1));
    let (jobs, releases): (Vec<_>, Vec<_>) = (0..3).map(|n| block(&full, &begun, n)).unzip();
    assert_eq!(next(&begins), 0);
    assert_eq!(load(&full), (0, 1, 2));
    assert_eq!(result_of(&reactor, reactor.defer_to_thread(|| Ok(1))).unwrap(), 1);
    assert_eq!(result_of(&reactor, other.defer_to_thread(|| Ok(2))).unwrap(), 2);
    assert!(!result_of(&reactor, reactor.resolve("localhost", 80)).unwrap().is_empty());
    assert_eq!((reactor.counters().jobs_waiting, reactor.counters().threads_at_work), (0, 0));
    drop(releases);
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(result_of(&reactor, job).unwrap(), n);
    }

    reactor.suggest_thread_pool_size(0);
    let held_back = reactor.defer_to_thread(|| Ok(3));
    assert_eq!(result_of(&reactor, full.defer_to_thread(|| Ok(4))).unwrap(), 4);
    reactor.suggest_thread_pool_size(1);
    assert_eq!(result_of(&reactor, held_back).unwrap(), 3);
}

/// The statistics count threads and jobs; the size can grow and shrink to nothing, and a job that
/// has not begun can be cancelled.
#[test]
fn a_pool_can_change_its_size() {
    let (reactor, (begun, begins)) = (reactor(), mpsc::channel());
    let pool = reactor.thread_pool("sizes", 0);
    let (mut jobs, mut releases): (Vec<_>, Vec<_>) = (0..4).map(|n| block(&pool, &begun, n)).unzip();
    assert_eq!(load(&pool), (0, 0, 4));
    pool.suggest_size(2);
    let first: HashSet<_> = [next(&begins), next(&begins)].into();
    assert_eq!((first, load(&pool)), ([0, 1].into(), (0, 2, 2)));
    let mut cancelled = jobs.remove(2);
    cancelled.cancel();
    assert!(fails_with::<Cancelled>(&mut cancelled));
    assert_eq!(load(&pool), (0, 2, 1));
    pool.clone().suggest_size(3);
    assert_eq!((next(&begins), load(&pool)), (3, (0, 3, 0)));
    releases.clear();
    for job in jobs {
        result_of(&reactor, job).unwrap();
    }
    run_until(&reactor, || load(&pool) == (3, 0, 0));
    pool.suggest_size(0);
    run_until(&reactor, || load(&pool) == (0, 0, 0));
}

/// A stop lets the jobs come to their end, and tells so; by then no job is taken any more, and then
/// no thread is left.
#[test]
fn a_stopped_pool_finishes_its_jobs() {
    own_process!();
    let (reactor, (begun, begins), log) = (reactor(), mpsc::channel(), Log::default());
    let pool = reactor.thread_pool("stopped", 1);
    let (jobs, releases): (Vec<_>, Vec<_>) = (0..3).map(|n| block(&pool, &begun, n)).unzip();
    assert_eq!((next(&begins), threads_named("stopped")), (0, 1));
    for (n, job) in jobs.into_iter().enumerate() {
        let log = log.clone();
        job.add_callback(move |_| log.add(format!("job {n}"))).or_log("a job");
    }
    for n in 0..2 {
        let log = log.clone();
        pool.stop().add_callback(move |()| log.add(format!("stop {n}"))).or_log("a stop");
    }
    pool.suggest_size(0);
    assert!(fails_with::<PoolStopped>(&mut pool.defer_to_thread(|| Ok(()))));
    let ((), errors) = logged(|| pool.call_in_thread(|| unreachable!("it is not taken")));
    assert!(
        errors.len() == 1 && errors[0].contains("was stopped") && errors[0].contains("own_thread_pools.rs"),
        "{errors:?}"
    );
    settle(&reactor);
    assert_eq!(log.all(), Vec::<String>::new());
    drop(releases);
    run_until(&reactor, || log.count("stop") == 2);
    assert_eq!(log.all(), ["job 0", "job 1", "job 2", "stop 0", "stop 1"]);
    run_until(&reactor, || threads_named("stopped") == 0);
    assert_eq!(load(&pool), (0, 0, 0));
    assert!(pool.stop().is_called());
    pool.suggest_size(3);
    assert!(fails_with::<PoolStopped>(&mut pool.defer_to_thread(|| Ok(()))));
    assert!(reactor.thread_pool("unused", 1).stop().is_called());
}

/// A stop of a pool that holds its jobs back drops them: nothing would have them begin.
#[test]
fn a_stop_drops_what_waits_for_a_greater_size() {
    let reactor = reactor();
    let pool = reactor.thread_pool("nothing", 0);
    let mut held_back = pool.defer_to_thread(|| -> Result<()> { unreachable!("it never begins") });
    let (mut dropped, stopped) = (pool.clone().defer_to_thread(|| Ok(())), pool.stop());
    assert!(stopped.is_called());
    assert!(fails_with::<PoolStopped>(&mut held_back) && fails_with::<PoolStopped>(&mut dropped));
}

/// The pool ends with its last handle: jobs that it has are done and answered, and its threads
/// leave.
#[test]
fn a_pool_ends_with_its_last_handle() {
    own_process!();
    let (reactor, (begun, begins)) = (reactor(), mpsc::channel());
    let pool = reactor.thread_pool("handles", 1);
    let (jobs, releases): (Vec<_>, Vec<_>) = (0..2).map(|n| block(&pool, &begun, n)).unzip();
    let other = pool.clone();
    drop(pool);
    let (last, release) = block(&other, &begun, 2);
    assert_eq!(next(&begins), 0);
    drop(other);
    drop((releases, release));
    for (n, job) in jobs.into_iter().chain([last]).enumerate() {
        assert_eq!(result_of(&reactor, job).unwrap(), n);
    }
    run_until(&reactor, || threads_named("handles") == 0);
    // Also from inside of the callback of its own last job.
    let pool = reactor.thread_pool("inside", 1);
    let handle = Rc::new(RefCell::new(Some(pool.clone())));
    let done = pool.defer_to_thread(|| Ok(())).add_callback(move |()| drop(handle.take()));
    drop(pool);
    result_of(&reactor, done).unwrap();
    run_until(&reactor, || threads_named("inside") == 0);
}

/// A shutdown waits for the jobs of such a pool, also of one without a handle, while the loop
/// turns; the next run goes on with it.
#[test]
fn a_shutdown_waits_for_every_pool() {
    let (reactor, log) = (reactor(), Log::default());
    let pool = reactor.thread_pool("patient", 1);
    let gone = reactor.thread_pool("gone", 1);
    for run_number in 0..2 {
        for pool in [&pool, &gone].into_iter().take(2 - run_number) {
            let (remote, log) = (reactor.remote(), log.clone());
            let job = pool.defer_to_thread(move || {
                // The other may have stopped it.
                remote.blocking_call_from_thread(|reactor| drop(reactor.stop()))?;
                remote.blocking_call_from_thread(|_| Ok(()))
            });
            job.add_callback(move |()| log.add("job")).or_log("a job");
        }
        let own = log.clone();
        reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || own.add("after"));
        run(&reactor).unwrap();
    }
    drop(gone);
    assert_eq!(log.all(), ["job", "job", "after", "job", "after"]);
}

/// A job that hangs is left behind when the shutdown's time is over; the log names the pool, and
/// the pool takes jobs in the next run.
#[test]
fn a_shutdown_leaves_a_stuck_job_behind() {
    let reactor = Reactor::builder().signals(false).shutdown_timeout(Some(Duration::from_millis(50))).build().unwrap();
    let (begun, begins) = mpsc::channel();
    let pool = reactor.thread_pool("stuck", 1);
    let (mut stuck, release) = block(&pool, &begun, 0);
    let (mut waiting, _) = block(&pool, &begun, 1);
    assert_eq!(next(&begins), 0);
    let stopped = pool.clone();
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
    let (result, warnings) = logged(|| run(&reactor));
    result.unwrap();
    assert!(fails_with::<ReactorGone>(&mut stuck) && fails_with::<ReactorGone>(&mut waiting));
    assert!(warnings.iter().any(|line| line.contains("pool=\"stuck\" stuck=1 dropped=1")), "{warnings:?}");
    assert_eq!(result_of(&reactor, stopped.defer_to_thread(|| Ok(7))).unwrap(), 7);
    drop(release);
}

/// A handle does not keep its reactor. When that is closed or gone, jobs fail, and a stop has
/// nothing to wait for.
#[test]
fn a_pool_does_not_outlive_its_reactor() {
    for close in [false, true] {
        let (reactor, (begun, begins)) = (reactor(), mpsc::channel());
        let pool = reactor.thread_pool("orphan", 1);
        let (mut running, release) = block(&pool, &begun, 0);
        let mut stopped = pool.stop();
        assert_eq!(next(&begins), 0);
        let kept = close.then(|| reactor.clone());
        let (_, _) = logged(|| {
            if close {
                reactor.close().unwrap();
            }
            drop(reactor);
        });
        assert!(fails_with::<ReactorGone>(&mut running));
        assert!(stopped.take_result().unwrap().is_ok());
        assert!(fails_with::<ReactorGone>(&mut pool.defer_to_thread(|| Ok(()))));
        pool.call_in_thread(|| unreachable!("the reactor is gone"));
        pool.suggest_size(3);
        assert_eq!(load(&pool), (0, 0, 0));
        assert!(pool.stop().is_called());
        drop((pool, release, kept));
    }
}

/// On a simulated network the jobs of such a pool take virtual time, on the one thread there is; a
/// stop waits for them.
#[test]
fn a_simulated_pool_has_no_threads() {
    own_process!();
    let (network, log) = (Network::new(7), Log::default());
    let reactor = network.reactor("10.0.0.1".parse().unwrap());
    let pool = reactor.thread_pool("simulated", 1);
    let (remote, here, own) = (reactor.remote(), thread::current().id(), log.clone());
    let job = pool.defer_to_thread(move || {
        assert_eq!(thread::current().id(), here);
        assert!(remote.is_in_reactor_thread());
        let asked = remote.blocking_call_from_thread(|_| -> Result<()> { unreachable!("it would wait for itself") });
        assert!(asked.unwrap_err().check::<OwnThread>().is_some());
        Ok(())
    });
    job.add_callback(move |()| own.add("job")).or_log("a job");
    assert_eq!(load(&pool), (0, 1, 0));
    let own = log.clone();
    pool.stop().add_callback(move |()| own.add("stopped")).or_log("a stop");
    network.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(log.all(), ["job", "stopped"]);
    assert_eq!(threads_named("simulated"), 0);
}
