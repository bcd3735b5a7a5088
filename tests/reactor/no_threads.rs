//! F40: the system gives us no thread. The test has a process of its own, whose memory
//! is limited to what it has.

use std::sync::mpsc;
use std::time::Duration;

use crate::common::*;
use ropewalk::Reactor;
use ropewalk::deferred::Promise;
use ropewalk::error::{ConnectError, NoThread};
use ropewalk::interfaces::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names the child.
const CHILD: &str = "ROPEWALK_TEST_NO_THREADS";

/// A thread's stack in the child, and what it may have more than it has: enough for all but a
/// thread.
const STACK: u64 = 16 << 20;
const SPARE: u64 = STACK / 2;

/// Lets this process have no further thread, until the limit is given back.
fn allow_no_thread() -> Rlimit {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(size * 1024 + SPARE), ..before }).unwrap();
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there is a thread after all");
    before
}

/// The loop turns, and its timers run.
fn lives(reactor: &Reactor) {
    let (promise, deferred) = Promise::new();
    reactor.call_later(Duration::from_millis(1), move || promise.callback(()).unwrap());
    result_of(reactor, deferred).unwrap();
}

/// Without any thread, jobs and look-ups fail with a typed error, or are logged; with one, jobs
/// wait for it. The loop lives. Afterwards everything works.
#[test]
fn without_threads_the_loop_lives() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    own_process!();
    let mut command = this_program("no_threads::without_threads_the_loop_lives");
    let output = command.env(CHILD, "1").env("RUST_MIN_STACK", STACK.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
}

/// Each of its waits has a limit of its own: the thread of a watchdog could be caught without
/// memory while it starts.
fn child() {
    let (none, one) = (reactor(), reactor());
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let first = one.defer_to_thread(move || {
        begun.send(())?;
        let _ = released.recv_timeout(LIMIT);
        Ok(1)
    });
    begins.recv_timeout(LIMIT).unwrap();
    let before = allow_no_thread();

    // No thread at all.
    let mut refused = none.defer_to_thread(|| Ok(()));
    assert!(refused.take_result().unwrap().unwrap_err().check::<NoThread>().is_some());
    let ((), errors) = logged(|| none.call_in_thread(|| unreachable!("there is no thread")));
    assert!(errors.len() == 1 && errors[0].contains("no thread"), "{errors:?}");
    none.suggest_thread_pool_size(0);
    let mut held_back = none.defer_to_thread(|| Ok(()));
    assert!(held_back.take_result().is_none());
    none.suggest_thread_pool_size(2);
    assert!(held_back.take_result().unwrap().unwrap_err().check::<NoThread>().is_some());
    let lookup = result_of(&none, none.resolve("localhost", 80)).unwrap_err();
    assert!(matches!(lookup.check(), Some(ConnectError::Lookup { .. })), "{lookup}");
    lives(&none);

    // One thread: a job waits for it.
    let (second, warnings) = logged(|| one.defer_to_thread(|| Ok(2)));
    assert!(warnings.len() == 1 && warnings[0].contains("no further thread"), "{warnings:?}");
    assert_eq!((one.counters().jobs_waiting, one.counters().threads_at_work), (1, 1));
    lives(&one);
    drop(release);
    assert_eq!(result_of(&one, first).unwrap(), 1);
    assert_eq!(result_of(&one, second).unwrap(), 2);

    setrlimit(Resource::As, before).unwrap();
    assert_eq!(result_of(&none, none.defer_to_thread(|| Ok(3))).unwrap(), 3);
}
