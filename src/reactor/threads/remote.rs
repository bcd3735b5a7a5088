//! Calls from other threads (Twisted: `callFromThread`, `blockingCallFromThread`).

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use super::wakeup::Wakeup;
use crate::deferred::{Deferred, Outcome, maybe_deferred};
use crate::error::{OwnThread, ReactorGone};
use crate::failure::{Result, drop_guarded};
use crate::reactor::process::Process;
use crate::reactor::{Core, Reactor};

impl Reactor {
    /// What other threads use to reach this reactor (Twisted: `callFromThread`, `blockingCallFromThread`).
    pub fn remote(&self) -> Remote {
        self.0.threads.remote()
    }
}

/// A reactor as other threads see it: `Send`, `Sync`, cheap to clone. From [`Reactor::remote`].
///
/// ```
/// use ropewalk::Reactor;
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::new()?;
/// let remote = reactor.remote();
/// let worker = std::thread::spawn(move || {
///     remote.call_from_thread(|reactor| {
///         reactor.stop().expect("it runs, for it runs this call");
///     })
/// });
/// reactor.run()?;
/// worker.join().expect("the thread did not panic")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Remote(Arc<Queue>);

/// A call on its way to the reactor's thread.
pub(in crate::reactor) type Call = Box<dyn FnOnce(&Reactor) + Send>;

struct Queue {
    /// `None` once the reactor is closed.
    calls: Mutex<Option<Vec<Call>>>,
    /// Whether there may be calls: what the reactor looks at each turn, without the lock.
    waiting: AtomicBool,
    wakeup: Arc<Wakeup>,
    process: Arc<Process>,
    /// The reactor's.
    thread: ThreadId,
}

impl Remote {
    pub(in crate::reactor) fn new(wakeup: Arc<Wakeup>, process: Arc<Process>) -> Self {
        Self(Arc::new(Queue {
            calls: Mutex::new(Some(Vec::new())),
            waiting: AtomicBool::new(false),
            wakeup,
            process,
            thread: thread::current().id(),
        }))
    }

    /// Has `call` run on the reactor's thread, in its next turn, and wakes the reactor if it sleeps (Twisted:
    /// `callFromThread`). Callable from any thread, the reactor's own included. The calls of one thread run in their order.
    ///
    /// A reactor that is not running keeps the calls until it is.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor was closed, and in a forked child of the process that ran it; `call` is dropped then, on this
    /// thread.
    pub fn call_from_thread(&self, call: impl FnOnce(&Reactor) + Send + 'static) -> Result<(), ReactorGone> {
        if self.0.process.is_parent() {
            return Err(ReactorGone);
        }
        let mut calls = self.calls();
        let queue = calls.as_mut().ok_or(ReactorGone)?;
        queue.push(Box::new(call));
        self.0.waiting.store(true, Ordering::Release);
        drop(calls);
        self.0.wakeup.ring();
        Ok(())
    }

    /// Runs `call` on the reactor's thread, and waits for what it returned: its result is given to the caller (Twisted:
    /// `blockingCallFromThread`). A Deferred is waited for until it has its result. For any thread but the reactor's own, jobs of
    /// [`Reactor::defer_to_thread`] included.
    ///
    /// While the reactor does not run, the caller waits until it does, or is closed.
    ///
    /// # Errors
    /// What `call` failed or panicked with, or what its Deferred failed with; [`OwnThread`] on the reactor's own thread, without
    /// calling anything; [`ReactorGone`] if the reactor was closed before there was a result, or if `call` was made and the
    /// shutdown of that run is over.
    ///
    /// ```
    /// use ropewalk::Reactor;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let remote = reactor.remote();
    /// let worker = std::thread::spawn(move || -> ropewalk::Result<usize> {
    ///     let addresses = remote.blocking_call_from_thread(|reactor| reactor.resolve("127.0.0.1", 80))?;
    ///     remote.blocking_call_from_thread(|reactor| Ok(reactor.stop()?))?;
    ///     Ok(addresses.len())
    /// });
    /// reactor.run()?;
    /// assert_eq!(worker.join().expect("the thread did not panic")?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn blocking_call_from_thread<R: Outcome>(
        &self,
        call: impl FnOnce(&Reactor) -> R + Send + 'static,
    ) -> Result<R::Output>
    where
        R::Output: Send,
    {
        if self.is_in_reactor_thread() {
            return Err(OwnThread.into());
        }
        let (tell, told) = mpsc::sync_channel(1);
        self.call_from_thread(move |reactor| reactor.0.answer_caller(tell, maybe_deferred(|| call(reactor))))?;
        // Whoever was to tell was dropped: with the queue, or by `fail_blocked_callers`.
        told.recv().unwrap_or_else(|_| Err(ReactorGone.into()))
    }

    /// Returns true on the reactor's own thread, inside and outside of the loop (Twisted: `threadable.isInIOThread`). Blocking there would
    /// stop the loop, so [`blocking_call_from_thread`](Self::blocking_call_from_thread) fails there.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let remote = ropewalk::Reactor::new()?.remote();
    /// assert!(remote.is_in_reactor_thread());
    /// let beside = std::thread::spawn(move || remote.is_in_reactor_thread());
    /// assert!(!beside.join().expect("the thread did not panic"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_in_reactor_thread(&self) -> bool {
        thread::current().id() == self.0.thread
    }

    /// Whether there may be calls.
    pub(in crate::reactor) fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// The calls queued so far.
    pub(in crate::reactor) fn take(&self) -> Vec<Call> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let mut calls = self.calls();
        self.0.waiting.store(false, Ordering::Relaxed);
        calls.as_mut().map(mem::take).unwrap_or_default()
    }

    /// The reactor goes; so do the calls that nobody will make.
    pub(in crate::reactor) fn close(&self) {
        let calls = self.calls().take();
        for call in calls.into_iter().flatten() {
            drop_guarded("a call from a thread", call);
        }
    }

    /// In a forked child the calls are the parent's: they are neither made nor dropped.
    pub(in crate::reactor) fn leave(&self) {
        // A thread of the parent's may have had the lock.
        if let Ok(mut calls) = self.0.calls.try_lock() {
            mem::forget(calls.take());
        }
    }

    fn calls(&self) -> Locked<'_> {
        // Nothing in here panics while it holds the lock; a poisoned one is as good as any.
        let calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(test)]
        let calls = tests::Watched::from(calls);
        calls
    }
}

/// The calls, under the lock. In unit tests something can be done at the moment at which it is given back.
#[cfg(not(test))]
type Locked<'a> = std::sync::MutexGuard<'a, Option<Vec<Call>>>;
#[cfg(test)]
type Locked<'a> = tests::Watched<'a>;

impl Core {
    /// Tells a thread the result, when it is there.
    fn answer_caller<T: Send>(self: &Rc<Self>, tell: SyncSender<Result<T>>, result: Deferred<T>) {
        let tell = Rc::new(Cell::new(Some(tell)));
        let sent_away = Rc::clone(&tell);
        let id = self.threads.blocked_callers.borrow_mut().insert(Box::new(move || drop(sent_away.take())));
        let core = Rc::downgrade(self);
        let told = result.add_both(move |result| {
            if let Some(tell) = tell.take() {
                // The thread waits, and the channel has room for the one message that it is for.
                let _ = tell.send(result);
            }
            let caller = core.upgrade().and_then(|core| core.threads.blocked_callers.borrow_mut().remove(id));
            drop(caller);
        });
        drop(told);
    }

    /// Threads that wait for an answer are told that there will be none.
    pub(in crate::reactor) fn fail_blocked_callers(&self) {
        let ids = self.threads.blocked_callers.borrow().ids(|_| true);
        for id in ids {
            let caller = self.threads.blocked_callers.borrow_mut().remove(id);
            if let Some(send_away) = caller {
                send_away();
            }
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::MutexGuard;

    use super::*;

    thread_local! {
        /// Runs once when this thread gives the lock back the next time.
        static UNLOCKED: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::default();
    }

    /// A guard that tells when it has given the lock back.
    pub(super) struct Watched<'a>(Option<MutexGuard<'a, Option<Vec<Call>>>>);

    impl<'a> From<MutexGuard<'a, Option<Vec<Call>>>> for Watched<'a> {
        fn from(guard: MutexGuard<'a, Option<Vec<Call>>>) -> Self {
            Self(Some(guard))
        }
    }

    impl Deref for Watched<'_> {
        type Target = Option<Vec<Call>>;

        fn deref(&self) -> &Self::Target {
            self.0.as_deref().expect("it is there until the guard is dropped")
        }
    }

    impl DerefMut for Watched<'_> {
        fn deref_mut(&mut self) -> &mut Self::Target {
            self.0.as_deref_mut().expect("it is there until the guard is dropped")
        }
    }

    impl Drop for Watched<'_> {
        fn drop(&mut self) {
            drop(self.0.take());
            let then = UNLOCKED.take();
            if let Some(then) = then {
                then();
            }
        }
    }

    /// A call that another thread makes at the very moment at which the reactor gives the lock back is found the next time.
    #[test]
    fn a_call_behind_the_lock_is_not_lost() {
        let reactor = Reactor::builder().signals(false).build().expect("the system gives us a poller");
        let remote = reactor.remote();
        remote.call_from_thread(|_| {}).expect("the reactor is there");
        let other = remote.clone();
        UNLOCKED.set(Some(Box::new(move || {
            let call = move || other.call_from_thread(|_| {});
            thread::spawn(call).join().expect("the thread did not panic").expect("the reactor is there");
        })));
        assert_eq!((remote.take().len(), remote.take().len(), remote.take().len()), (1, 1, 0));
    }
}
