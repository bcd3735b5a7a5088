//! [`DeferredFilesystemLock`]: waiting for a lock between processes (Twisted:
//! `defer.DeferredFilesystemLock`).
//!
//! The system does not report that another process has released its lock, so the lock is polled. At
//! most one attempt is in progress. Its promise belongs to the timer of its next try, so it fails
//! when the clock is dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::FilesystemLock;
use crate::deferred::{Cancelled, Deferred, Promise};
use crate::error::FilesystemLockError;
use crate::failure::{Failure, Result};
use crate::time::{Clock, DelayedCall, Timers};

/// Default time between two tries: a second, as in Twisted.
const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval. With a shorter one, the program would do little else than try.
const SHORTEST: Duration = Duration::from_millis(1);

/// A [`FilesystemLock`] with a wait that does not block (Twisted: `DeferredFilesystemLock`). It
/// belongs to its clock's thread.
///
/// Dropping it releases the lock, and ends a wait for it: the Deferred then fails with
/// [`Abandoned`](crate::deferred::Abandoned).
///
/// ```
/// use ropewalk::{Reactor, locks::DeferredFilesystemLock};
/// use std::rc::Rc;
///
/// # fn main() -> ropewalk::Result<()> {
/// # let path = std::env::temp_dir().join(format!("ropewalk-deferred-example-{}.lock", std::process::id()));
/// let reactor = Reactor::new()?;
/// let lock = Rc::new(DeferredFilesystemLock::new(&reactor, path));
/// let held = Rc::clone(&lock);
/// let mut done = lock.defer_until_locked(None).add_callback(move |()| {
///     // Work for one process at a time.
///     Ok(held.unlock()?)
/// });
/// assert!(done.take_result().is_some(), "no other process had it");
/// # Ok(())
/// # }
/// ```
pub struct DeferredFilesystemLock(Rc<LockShared>);

struct LockShared {
    timers: Timers,
    interval: Cell<Duration>,
    lock: RefCell<FilesystemLock>,
    /// Kept alive by the timer of its next try.
    attempt: RefCell<Weak<LockAttempt>>,
}

/// A wait for the lock.
struct LockAttempt {
    promise: Promise<()>,
    next: RefCell<Option<DelayedCall>>,
    end: RefCell<Option<DelayedCall>>,
}

impl DeferredFilesystemLock {
    /// Makes a lock that is not held yet. The timers of `clock` poll it.
    pub fn new(clock: &impl Clock, path: impl Into<PathBuf>) -> Self {
        Self(Rc::new(LockShared {
            timers: clock.timers().clone(),
            interval: Cell::new(INTERVAL),
            lock: RefCell::new(FilesystemLock::new(path)),
            attempt: RefCell::default(),
        }))
    }

    /// Sets the time from one try to the next; a second by default, and at least a millisecond
    /// (Twisted: `_interval`). It applies from the next try on.
    ///
    /// ```
    /// # fn f(lock: &ropewalk::locks::DeferredFilesystemLock) {
    /// lock.set_interval(std::time::Duration::from_millis(50));
    /// # }
    /// ```
    pub fn set_interval(&self, interval: Duration) {
        self.0.interval.set(interval.max(SHORTEST));
    }

    /// Takes the lock as soon as it is free (Twisted: `deferUntilLocked`): at once, or at one of
    /// the tries that follow. The Deferred fires when this value holds the lock. If this value
    /// holds it already, the Deferred fires after the lock was released and taken again.
    ///
    /// Cancelling the Deferred ends the wait. Several processes that wait get the lock in no
    /// particular order.
    ///
    /// # Errors
    /// The Deferred fails with a [`FilesystemLockError`]:
    /// - [`StillHeld`](FilesystemLockError::StillHeld) if the lock is still held at the last try,
    ///   after `timeout`;
    /// - [`AlreadyTrying`](FilesystemLockError::AlreadyTrying) if this value waits already;
    /// - [`Io`](FilesystemLockError::Io) at the first try that fails for another reason than a
    ///   holder.
    #[track_caller]
    pub fn defer_until_locked(&self, timeout: Option<Duration>) -> Deferred<()> {
        if self.is_waiting() {
            return Deferred::fail(FilesystemLockError::AlreadyTrying { path: self.path() });
        }
        match self.lock() {
            Ok(true) => return Deferred::succeed(()),
            Ok(false) => {}
            Err(error) => return Deferred::fail(error),
        }
        let shared = Rc::downgrade(&self.0);
        let (promise, locked) = Promise::with_canceller(move || {
            if let Some(attempt) = shared.upgrade().and_then(|shared| shared.attempt.take().upgrade()) {
                attempt.finish(Err(Cancelled.into()));
            }
        });
        self.0.begin(promise, timeout);
        locked
    }

    /// Takes the lock if it is free, as [`FilesystemLock::lock`] does.
    ///
    /// # Errors
    /// See [`FilesystemLock::lock`].
    pub fn lock(&self) -> Result<bool, FilesystemLockError> {
        self.0.lock.borrow_mut().lock()
    }

    /// Releases the lock, as [`FilesystemLock::unlock`] does.
    ///
    /// # Errors
    /// See [`FilesystemLock::unlock`].
    pub fn unlock(&self) -> Result<(), FilesystemLockError> {
        self.0.lock.borrow_mut().unlock()
    }

    /// Returns `true` if this value holds the lock.
    pub fn is_locked(&self) -> bool {
        self.0.lock.borrow().is_locked()
    }

    /// Returns `true` if a Deferred of this value waits for the lock.
    pub fn is_waiting(&self) -> bool {
        self.0.attempt.borrow().strong_count() > 0
    }

    /// Returns `true` if the previous holder released the lock, as [`FilesystemLock::is_clean`]
    /// does.
    pub fn is_clean(&self) -> Option<bool> {
        self.0.lock.borrow().is_clean()
    }

    /// Returns the path of the lock file.
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }
}

impl Drop for DeferredFilesystemLock {
    fn drop(&mut self) {
        if let Some(attempt) = self.0.attempt.take().upgrade() {
            attempt.cancel_timers();
        }
    }
}

impl fmt::Debug for DeferredFilesystemLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredFilesystemLock")
            .field("lock", &self.0.lock.borrow())
            .field("waiting", &self.is_waiting())
            .finish()
    }
}

impl LockShared {
    fn begin(self: &Rc<Self>, promise: Promise<()>, timeout: Option<Duration>) {
        let attempt = Rc::new(LockAttempt { promise, next: RefCell::default(), end: RefCell::default() });
        self.attempt.replace(Rc::downgrade(&attempt));
        if let Some(after) = timeout {
            let (shared, waiting) = (Rc::downgrade(self), Rc::downgrade(&attempt));
            let end = self.timers.call_later(after, move || {
                if let (Some(shared), Some(attempt)) = (shared.upgrade(), waiting.upgrade())
                    && !shared.attempt_to_lock(&attempt)
                {
                    shared.finish(&attempt, Err(FilesystemLockError::StillHeld { path: shared.path(), after }.into()));
                }
            });
            attempt.end.replace(Some(end));
        }
        self.try_later(&attempt);
    }

    /// Schedules the next try.
    fn try_later(self: &Rc<Self>, attempt: &Rc<LockAttempt>) {
        let (shared, waiting) = (Rc::downgrade(self), Rc::clone(attempt));
        let next = self.timers.call_later(self.interval.get(), move || {
            if let Some(shared) = shared.upgrade()
                && !shared.attempt_to_lock(&waiting)
            {
                shared.try_later(&waiting);
            }
        });
        let made = attempt.next.replace(Some(next));
        drop(made);
    }

    /// Tries once. Returns `true` if the wait is over.
    fn attempt_to_lock(&self, attempt: &Rc<LockAttempt>) -> bool {
        let tried = self.lock.borrow_mut().lock();
        match tried {
            Ok(true) => self.finish(attempt, Ok(())),
            Ok(false) => return false,
            Err(error) => self.finish(attempt, Err(error.into())),
        }
        true
    }

    /// Ends the wait before the promise fires, so that a callback may start another.
    fn finish(&self, attempt: &Rc<LockAttempt>, result: Result<(), Failure>) {
        self.attempt.take();
        attempt.finish(result);
    }

    fn path(&self) -> PathBuf {
        self.lock.borrow().path().to_owned()
    }
}

impl LockAttempt {
    fn finish(&self, result: Result<()>) {
        self.cancel_timers();
        // A cancelled promise has its result already.
        let _ = self.promise.complete(result);
    }

    fn cancel_timers(&self) {
        for timer in [self.next.take(), self.end.take()].into_iter().flatten() {
            // The timer that is running now cannot be cancelled.
            let _ = timer.cancel();
        }
    }
}
