//! Locks between processes: one holder at a time, whatever becomes of it; and waiting for one
//! without blocking.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::{Abandoned, Cancelled};
use ropewalk::error::FilesystemLockError;
use ropewalk::interfaces::*;
use ropewalk::locks::{DeferredFilesystemLock, FilesystemLock};
use ropewalk::testing::VirtualClock;
use ropewalk::{DelayedCall, Failure, Reactor};

/// Names the lock of the child.
const CHILD: &str = "ROPEWALK_TEST_LOCK";

/// Often enough that no test takes long.
const OFTEN: Duration = Duration::from_millis(2);

/// A folder of its own for a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ropewalk-lock-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Not a test by itself: takes the lock, says so, and gives it back when its input ends.
#[test]
#[ignore = "run by the other tests of this file, in a process of its own"]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let _watchdog = Watchdog::new();
    let mut lock = FilesystemLock::new(path);
    eprintln!("child: {}", lock.lock().unwrap());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    lock.unlock().unwrap();
}

/// A process that holds the lock.
fn holder(path: &Path) -> Child {
    let mut command = this_program("filesystem_lock::child");
    let mut child =
        command.env(CHILD, path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.find(|line| line.starts_with("child: ")).as_deref(), Some("child: true"));
    child
}

fn deferred_lock(reactor: &Reactor, path: &Path) -> DeferredFilesystemLock {
    let lock = DeferredFilesystemLock::new(reactor, path);
    lock.set_interval(OFTEN);
    lock
}

/// The holder of the lock excludes all others, itself included, until it releases it. The file
/// names the holder meanwhile, and is removed afterwards.
#[test]
fn one_holder_at_a_time() {
    let folder = Folder::new();
    let (mut first, mut second) = (FilesystemLock::new(folder.lock()), FilesystemLock::new(folder.lock()));
    assert!(!FilesystemLock::is_held(folder.lock()).unwrap());
    assert!(!folder.lock().exists(), "looking makes no file");
    assert!(first.lock().unwrap() && first.is_locked());
    assert_eq!(fs::read_to_string(folder.lock()).unwrap(), format!("{}\n", std::process::id()));
    assert!(FilesystemLock::is_held(folder.lock()).unwrap());
    assert!(!second.lock().unwrap() && !second.is_locked());
    assert!(!first.lock().unwrap(), "it is not handed out twice");
    first.unlock().unwrap();
    assert!(!folder.lock().exists());
    assert!(second.lock().unwrap());
    assert_eq!((first.is_clean(), second.is_clean()), (Some(true), Some(true)));
    assert!(matches!(first.unlock(), Err(FilesystemLockError::NotHeld { path }) if path == folder.lock()));
    drop(second);
    assert!(!folder.lock().exists(), "a lock that is dropped is given back");
}

/// Another process excludes this one, and gives the lock back in order.
#[test]
fn processes_exclude_each_other() {
    own_process!();
    let folder = Folder::new();
    let mut process = holder(&folder.lock());
    let mut lock = FilesystemLock::new(folder.lock());
    assert!(!lock.lock().unwrap());
    assert!(FilesystemLock::is_held(folder.lock()).unwrap());
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    assert!(lock.lock().unwrap());
    assert_eq!(lock.is_clean(), Some(true));
}

/// F63: a killed holder does not keep the lock, even if another process has its number later, and
/// the next holder finds the lock unclean.
#[test]
fn a_killed_holder_frees_the_lock() {
    own_process!();
    let folder = Folder::new();
    let mut process = holder(&folder.lock());
    let mut lock = FilesystemLock::new(folder.lock());
    assert!(!lock.lock().unwrap());
    process.kill().unwrap();
    process.wait().unwrap();
    // The file that is left names a process that may well live: this one. More bytes follow.
    let own = format!("{}\n", std::process::id());
    fs::write(folder.lock(), own.repeat(2)).unwrap();
    assert!(!FilesystemLock::is_held(folder.lock()).unwrap());
    assert!(lock.lock().unwrap());
    assert_eq!(fs::read_to_string(folder.lock()).unwrap(), own);
    assert_eq!(lock.is_clean(), Some(false));
    lock.unlock().unwrap();
    assert!(lock.lock().unwrap());
    assert_eq!(lock.is_clean(), Some(true));
}

/// However taking and giving back of many threads meet, two never hold the lock at the same time.
#[test]
fn a_race_has_one_winner() {
    const THREADS: usize = 4;
    let folder = Folder::new();
    let (start, holders) = (Arc::new(Barrier::new(THREADS)), Arc::new(AtomicUsize::new(0)));
    let racers = (0..THREADS).map(|_| {
        let (start, holders) = (Arc::clone(&start), Arc::clone(&holders));
        let mut lock = FilesystemLock::new(folder.lock());
        thread::spawn(move || {
            start.wait();
            let mut won = 0;
            while won < 500 {
                if lock.lock().unwrap() {
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    assert_eq!(lock.is_clean(), Some(true));
                    holders.fetch_sub(1, Ordering::SeqCst);
                    lock.unlock().unwrap();
                    won += 1;
                }
            }
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.join().unwrap();
    }
    assert!(!folder.lock().exists());
}

/// A file that was removed, or replaced, under its holder is not what the others lock, and what has
/// its name is left alone.
#[test]
fn a_file_removed_by_somebody_else_is_not_ours() {
    let folder = Folder::new();
    let (mut first, mut second) = (FilesystemLock::new(folder.lock()), FilesystemLock::new(folder.lock()));
    assert!(first.lock().unwrap());
    fs::remove_file(folder.lock()).unwrap();
    assert!(second.lock().unwrap(), "removing the file breaks the lock");
    first.unlock().unwrap();
    assert!(FilesystemLock::is_held(folder.lock()).unwrap(), "the second one's file stays");
    fs::remove_file(folder.lock()).unwrap();
    second.unlock().unwrap();
}

/// A path that can't be a lock file is a typed error with the path: no folder, a folder, or a
/// symbolic link (Twisted's lock is one), whose target is left alone.
#[test]
fn what_is_no_lock_file_is_an_error() {
    let folder = Folder::new();
    let target = folder.0.join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, folder.lock()).unwrap();
    for path in [folder.0.join("nowhere/lock"), folder.0.clone(), folder.lock()] {
        let error = FilesystemLock::new(&path).lock().unwrap_err();
        assert!(matches!(&error, FilesystemLockError::Io { path: named, .. } if *named == path), "{error:?}");
        let reactor = reactor();
        let failure = result_of(&reactor, deferred_lock(&reactor, &path).defer_until_locked(None)).unwrap_err();
        assert!(failure.check::<FilesystemLockError>().is_some(), "{failure}");
    }
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
}

/// A lock that is free is had at once, without a timer.
#[test]
fn a_free_lock_is_not_waited_for() {
    let (folder, reactor) = (Folder::new(), reactor());
    let lock = deferred_lock(&reactor, &folder.lock());
    let mut locked = lock.defer_until_locked(Some(Duration::ZERO));
    assert!(locked.take_result().unwrap().is_ok());
    assert!(lock.is_locked() && !lock.is_waiting());
    assert_eq!(reactor.delayed_calls(), []);
    assert_eq!(lock.is_clean(), Some(true));
    lock.unlock().unwrap();
}

/// The first try is made at once, the next after a second unless said otherwise, and so on.
#[test]
fn the_lock_is_tried_each_second() {
    let (folder, reactor) = (Folder::new(), reactor());
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let lock = DeferredFilesystemLock::new(&reactor, folder.lock());
    let asked = reactor.seconds();
    let waiting = lock.defer_until_locked(None);
    let tries: Vec<_> = reactor.delayed_calls().iter().map(DelayedCall::time).collect();
    assert_eq!(tries.len(), 1);
    let (earliest, latest) = (asked + Duration::from_secs(1), reactor.seconds() + Duration::from_secs(1));
    assert!((earliest..=latest).contains(&tries[0]), "{tries:?} from {earliest:?} to {latest:?}");
    waiting.cancel();
    drop(waiting.add_errback(|_| Ok(())));

    // On a clock that stands still, exactly so, and never without a pause.
    let clock = VirtualClock::new();
    let lock = DeferredFilesystemLock::new(&clock, folder.lock());
    for (interval, pause) in [(250, 250), (0, 1)].map(|(of, is)| (Duration::from_millis(of), Duration::from_millis(is)))
    {
        lock.set_interval(interval);
        let waiting = lock.defer_until_locked(None);
        for _ in 0..3 {
            assert_eq!(clock.delayed_calls()[0].time(), clock.seconds() + pause);
            clock.advance(pause);
        }
        waiting.cancel();
        drop(waiting.add_errback(|_| Ok(())));
    }
}

/// The Deferred fires once the holder, another process, has given the lock back, or died; the loop
/// turns meanwhile.
#[test]
fn waiting_ends_when_the_lock_is_free() {
    own_process!();
    for killed in [false, true] {
        let (folder, reactor) = (Folder::new(), reactor());
        let mut process = holder(&folder.lock());
        let lock = deferred_lock(&reactor, &folder.lock());
        let mut locked = lock.defer_until_locked(Some(LIMIT));
        let until = reactor.seconds() + 10 * OFTEN;
        run_until(&reactor, || reactor.seconds() > until);
        assert!(locked.take_result().is_none() && lock.is_waiting());
        if killed {
            process.kill().unwrap();
        } else {
            drop(process.stdin.take());
        }
        result_of(&reactor, locked).unwrap();
        process.wait().unwrap();
        assert!(lock.is_locked() && !lock.is_waiting());
        assert_eq!(lock.is_clean(), Some(!killed));
        assert_eq!(reactor.delayed_calls(), [], "the timeout is cancelled");
    }
}

/// A second wait of the same value while one is under way is an error, and does the first no harm;
/// from inside a callback of the first, the next may begin.
#[test]
fn one_wait_at_a_time() {
    let (folder, reactor) = (Folder::new(), reactor());
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let lock = Rc::new(deferred_lock(&reactor, &folder.lock()));
    let again = Rc::clone(&lock);
    let first = lock.defer_until_locked(None).add_callback(move |()| {
        again.unlock()?;
        Ok(again.defer_until_locked(None).take_result().is_some_and(|result| result.is_ok()))
    });
    let second = result_of(&reactor, lock.defer_until_locked(None)).unwrap_err();
    let Some(FilesystemLockError::AlreadyTrying { path }) = second.check() else { panic!("{second}") };
    assert_eq!(path, &folder.lock());
    holder.unlock().unwrap();
    assert!(result_of(&reactor, first).unwrap());
}

/// A wait fails when its time is over, not earlier, with a typed error and without a timer left;
/// then the next may begin.
#[test]
fn waiting_has_a_limit() {
    let (folder, reactor) = (Folder::new(), reactor());
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let lock = deferred_lock(&reactor, &folder.lock());
    for after in [Duration::ZERO, 5 * OFTEN] {
        let begun = reactor.seconds();
        let waiting = lock.defer_until_locked(Some(after));
        let failure = result_of(&reactor, waiting).unwrap_err();
        assert!(reactor.seconds() >= begun + after);
        let told = failure.check::<FilesystemLockError>();
        let Some(FilesystemLockError::StillHeld { after: told, path }) = told else { panic!("{failure}") };
        assert_eq!((*told, path), (after, &folder.lock()));
        assert_eq!(reactor.delayed_calls(), []);
    }
    // It is tried once more at the end.
    lock.set_interval(Duration::MAX);
    let waiting = lock.defer_until_locked(Some(OFTEN));
    holder.unlock().unwrap();
    result_of(&reactor, waiting).unwrap();
    assert!(lock.is_locked());
}

/// Cancelling stops the tries at once, even if the lock is free by then.
#[test]
fn waiting_can_be_cancelled() {
    let (folder, reactor) = (Folder::new(), reactor());
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let lock = deferred_lock(&reactor, &folder.lock());
    let mut waiting = lock.defer_until_locked(Some(LIMIT));
    holder.unlock().unwrap();
    waiting.cancel();
    assert!(waiting.take_result().unwrap().unwrap_err().check::<Cancelled>().is_some());
    assert!(!lock.is_waiting() && !lock.is_locked());
    assert_eq!(reactor.delayed_calls(), []);
    assert!(lock.lock().unwrap());
}

/// A lock that is dropped, or whose clock goes, while it is waited for, fails the wait.
#[test]
fn waiting_ends_with_the_lock_or_the_clock() {
    let folder = Folder::new();
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let abandoned = |result: Option<ropewalk::Result<()>>| result.unwrap().unwrap_err().check::<Abandoned>().is_some();
    let reactor = reactor();
    let lock = deferred_lock(&reactor, &folder.lock());
    let mut waiting = lock.defer_until_locked(Some(LIMIT));
    drop(lock);
    assert!(abandoned(waiting.take_result()));
    assert_eq!(reactor.delayed_calls(), []);

    let lock = deferred_lock(&reactor, &folder.lock());
    let mut waiting = lock.defer_until_locked(Some(LIMIT));
    drop(reactor);
    assert!(abandoned(waiting.take_result()));
    assert!(!lock.is_waiting());
    assert!(abandoned(lock.defer_until_locked(None).take_result()));
}

/// A callback may drop the lock that it was called for: that gives it back.
#[test]
fn a_callback_may_drop_the_lock() {
    let (folder, reactor) = (Folder::new(), reactor());
    let mut holder = FilesystemLock::new(folder.lock());
    assert!(holder.lock().unwrap());
    let lock = Rc::new(RefCell::new(Some(deferred_lock(&reactor, &folder.lock()))));
    let owner = Rc::clone(&lock);
    let waiting = lock.borrow().as_ref().unwrap().defer_until_locked(None);
    let done = waiting.add_callback(move |()| {
        drop(owner.take());
        Err::<(), _>(Failure::message("and fail"))
    });
    holder.unlock().unwrap();
    assert_eq!(result_of(&reactor, done).unwrap_err().to_string(), "and fail");
    assert!(!folder.lock().exists());
}

/// A lock that is not held goes without a word, one that is held gives its file back.
#[test]
fn dropping_a_lock_says_nothing() {
    let folder = Folder::new();
    let mut held = FilesystemLock::new(folder.lock());
    assert!(held.lock().unwrap());
    let ((), lines) = logged(|| drop((FilesystemLock::new(folder.lock()), held)));
    assert_eq!(lines, Vec::<String>::new());
    assert!(!folder.lock().exists());
}
