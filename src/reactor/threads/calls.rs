//! [`Calls`]: the queue of calls from other threads to the loop.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use super::wakeup::Wakeup;
use crate::error::ReactorGone;
use crate::failure::drop_guarded;
use crate::reactor::process::Process;

/// A call to the reactor's thread. Its argument is an `R`.
pub(in crate::reactor) type RemoteCall<R> = Box<dyn FnOnce(&R) + Send>;

/// The queue of the module.
pub(in crate::reactor) struct Calls<R> {
    /// `None` once the reactor is closed.
    calls: Mutex<Option<Vec<RemoteCall<R>>>>,
    /// Set if there may be calls, or a ring. The reactor checks it each turn, without the lock.
    waiting: AtomicBool,
    /// A thread has rung. It is set before `waiting`, and taken after it.
    rung: AtomicBool,
    wakeup: Arc<Wakeup>,
    process: Arc<Process>,
    /// The reactor's thread.
    thread: ThreadId,
}

impl<R> Calls<R> {
    pub(in crate::reactor) fn new(wakeup: Arc<Wakeup>, process: Arc<Process>) -> Self {
        Self {
            calls: Mutex::new(Some(Vec::new())),
            waiting: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            wakeup,
            process,
            thread: thread::current().id(),
        }
    }

    /// Queues a call, from any thread, and wakes the loop.
    ///
    /// # Errors
    /// [`ReactorGone`] if the reactor is closed, or in a forked child of its process. The call is
    /// dropped then.
    pub(in crate::reactor) fn add(&self, call: RemoteCall<R>) -> Result<(), ReactorGone> {
        if self.process.is_parent() {
            return Err(ReactorGone);
        }
        let mut calls = self.lock();
        let queue = calls.as_mut().ok_or(ReactorGone)?;
        queue.push(call);
        self.waiting.store(true, Ordering::Release);
        drop(calls);
        self.wakeup.notify();
        Ok(())
    }

    /// Rings, from any thread, and wakes the loop. Allocates nothing, and takes no lock unless the
    /// loop sleeps.
    pub(in crate::reactor) fn ring(&self) {
        if self.process.is_parent() {
            return;
        }
        self.rung.store(true, Ordering::Release);
        self.waiting.store(true, Ordering::Release);
        self.wakeup.notify();
    }

    /// Takes the rings since the last call, after the calls were taken. Returns `true` if there was
    /// one.
    pub(in crate::reactor) fn take_ring(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Returns `true` on the thread of the reactor.
    pub(in crate::reactor) fn is_in_reactor_thread(&self) -> bool {
        thread::current().id() == self.thread
    }

    /// Returns `true` if there may be calls, or a ring.
    #[inline]
    pub(in crate::reactor) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes the calls that are queued so far.
    pub(in crate::reactor) fn take(&self) -> Vec<RemoteCall<R>> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let mut calls = self.lock();
        // It acquires: the ring that has set it is seen by `take_ring`.
        self.waiting.swap(false, Ordering::AcqRel);
        calls.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Closes the queue with the reactor, and drops the calls that will never run.
    pub(in crate::reactor) fn close(&self) {
        let calls = self.lock().take();
        for call in calls.into_iter().flatten() {
            drop_guarded("a call from a thread", call);
        }
    }

    /// Abandons the calls in a forked child. They belong to the parent, so they are neither made
    /// nor dropped.
    pub(in crate::reactor) fn leave(&self) {
        // A thread of the parent may have held the lock during the fork.
        if let Ok(mut calls) = self.calls.try_lock() {
            mem::forget(calls.take());
        }
    }

    fn lock(&self) -> Locked<'_, R> {
        // No code panics while it holds the lock, so a poisoned lock is as good as any.
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(test)]
        let calls = tests::Watched::from(calls);
        calls
    }
}

#[cfg(not(test))]
type Locked<'a, R> = std::sync::MutexGuard<'a, Option<Vec<RemoteCall<R>>>>;
#[cfg(test)]
type Locked<'a, R> = tests::Watched<'a, R>;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::MutexGuard;

    use super::*;
    use crate::reactor::backend::Wake;

    thread_local! {
        /// A function that runs once when this thread next releases the lock.
        static UNLOCKED: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
    }

    /// A guard that reports the release of the lock.
    pub(super) struct Watched<'a, R>(Option<MutexGuard<'a, Option<Vec<RemoteCall<R>>>>>);

    impl<'a, R> From<MutexGuard<'a, Option<Vec<RemoteCall<R>>>>> for Watched<'a, R> {
        fn from(guard: MutexGuard<'a, Option<Vec<RemoteCall<R>>>>) -> Self {
            Self(Some(guard))
        }
    }

    impl<R> Deref for Watched<'_, R> {
        type Target = Option<Vec<RemoteCall<R>>>;

        fn deref(&self) -> &Self::Target {
            self.0.as_deref().expect("it is there until the guard is dropped")
        }
    }

    impl<R> DerefMut for Watched<'_, R> {
        fn deref_mut(&mut self) -> &mut Self::Target {
            self.0.as_deref_mut().expect("it is there until the guard is dropped")
        }
    }

    impl<R> Drop for Watched<'_, R> {
        fn drop(&mut self) {
            drop(self.0.take());
            let then = UNLOCKED.take();
            if let Some(then) = then {
                then();
            }
        }
    }

    /// A call that another thread queues at the very moment when the reactor releases the lock is
    /// found the next time.
    #[test]
    fn a_call_behind_the_lock_is_not_lost() {
        let wakeup = Arc::new(Wakeup::new(Arc::new(NoWaker)));
        let calls = Arc::new(Calls::<()>::new(wakeup, Arc::new(Process::current())));
        calls.add(Box::new(|()| {})).expect("it is open");
        let others = Arc::clone(&calls);
        UNLOCKED.set(Some(Box::new(move || {
            let add = move || others.add(Box::new(|()| {}));
            thread::spawn(add).join().expect("the thread did not panic").expect("it is open");
        })));
        assert_eq!((calls.take().len(), calls.take().len(), calls.take().len()), (1, 1, 0));
    }

    struct NoWaker;

    impl Wake for NoWaker {
        fn wake(&self) {}
    }
}
