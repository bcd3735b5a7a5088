//! Calls from other threads (Twisted: `callFromThread`, `blockingCallFromThread`).

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use super::calls::Calls;
use crate::deferred::{Deferred, Outcome, maybe_deferred};
use crate::error::{OwnThread, ReactorGone};
use crate::failure::Result;
use crate::reactor::{Core, Reactor};

impl Reactor {
    /// Returns a handle with which other threads call this reactor (Twisted: `callFromThread`,
    /// `blockingCallFromThread`).
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(self.0.threads.calls()))
    }
}

/// A handle to a reactor for other threads: `Send`, `Sync`, cheap to clone. From
/// [`Reactor::remote`].
///
/// ```
/// use ropewalk::Reactor;
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::new()?;
/// let remote = reactor.remote();
/// let worker = std::thread::spawn(move || {
///     remote.call_from_thread(|reactor| {
///         reactor.stop().expect("the reactor runs this call, so it is running");
///     })
/// });
/// reactor.run()?;
/// worker.join().expect("the thread did not panic")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Remote(Arc<Calls<Reactor>>);

impl Remote {
    /// Runs `call` on the reactor's thread, in its next turn, and wakes the reactor if it sleeps
    /// (Twisted: `callFromThread`).
    ///
    /// It may be called from any thread, the reactor's own included. The calls of one thread run in
    /// their order. A reactor that is not running keeps the calls until it runs.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor was closed, and in a forked child of the process that ran
    /// it. `call` is dropped then, on this thread.
    pub fn call_from_thread(&self, call: impl FnOnce(&Reactor) + Send + 'static) -> Result<(), ReactorGone> {
        self.0.add(Box::new(call))
    }

    /// Rings: has the loop call the function of
    /// [`Builder::on_ring`](crate::reactor::Builder::on_ring) in phase 1 of a turn, and wakes it if
    /// it sleeps (Twisted: `wakeUp`). For programs that keep a queue of their own, such as an
    /// interpreter.
    ///
    /// It may be called from any thread, the reactor's own included, and allocates nothing. Rings
    /// before that turn are one ring. The turn that takes a ring does not wait, with a function or
    /// without one. So a loop that is driven by single turns returns after a ring, also if that
    /// came between two turns. A reactor that is not running keeps the ring until it runs.
    ///
    /// It does nothing once the reactor is closed, nor in a forked child of the process that ran
    /// it. It must not be called from a signal handler, because it takes a lock. For signals there
    /// is [`Reactor::on_signal`].
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use ropewalk::Reactor;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let queue = Arc::new(Mutex::new(Vec::new()));
    /// let jobs = Arc::clone(&queue);
    /// let drain = move |reactor: &Reactor| {
    ///     let waiting: Vec<u32> = std::mem::take(&mut *jobs.lock().expect("no thread panics"));
    ///     if waiting.contains(&2) {
    ///         reactor.stop().expect("the reactor runs this");
    ///     }
    /// };
    /// let reactor = Reactor::builder().on_ring(drain).build()?;
    /// let remote = reactor.remote();
    /// let worker = std::thread::spawn(move || {
    ///     for job in 0..3 {
    ///         queue.lock().expect("no thread panics").push(job);
    ///         remote.ring();
    ///     }
    /// });
    /// reactor.run()?;
    /// worker.join().expect("the thread did not panic");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Runs `call` on the reactor's thread, and blocks until its result is there (Twisted:
    /// `blockingCallFromThread`). If `call` returns a Deferred, this waits for the result of the
    /// Deferred.
    ///
    /// It may be called from any thread but the reactor's own, also from jobs of
    /// [`Reactor::defer_to_thread`]. While the reactor does not run, the calling thread waits until
    /// it does, or is closed.
    ///
    /// # Errors
    /// - The failure of `call` or of its Deferred, or the panic of `call`.
    /// - [`OwnThread`] on the reactor's own thread. `call` is not called then.
    /// - [`ReactorGone`] if the reactor was closed before there was a result, or if `call` was made
    ///   and the shutdown of that run is over.
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
        let (sender, receiver) = mpsc::sync_channel(1);
        self.call_from_thread(move |reactor| reactor.0.answer_caller(sender, maybe_deferred(|| call(reactor))))?;
        // The sender was dropped: with the queue, or by `fail_blocked_callers`.
        receiver.recv().unwrap_or_else(|_| Err(ReactorGone.into()))
    }

    /// Returns `true` on the reactor's own thread, inside and outside of the loop (Twisted:
    /// `threadable.isInIOThread`). Blocking there would stop the loop, so
    /// [`blocking_call_from_thread`](Self::blocking_call_from_thread) fails there.
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
        self.0.is_in_reactor_thread()
    }
}

impl Core {
    /// Sends the result to a blocked thread, once it is there.
    fn answer_caller<T: Send>(self: &Rc<Self>, sender: SyncSender<Result<T>>, result: Deferred<T>) {
        let sender = Rc::new(Cell::new(Some(sender)));
        let dropped = Rc::clone(&sender);
        let id = self.threads.blocked_callers.borrow_mut().insert(Box::new(move || drop(dropped.take())));
        let core = Rc::downgrade(self);
        let finished = result.add_both(move |result| {
            if let Some(sender) = sender.take() {
                // The thread waits, and the channel has room for its one message.
                let _ = sender.send(result);
            }
            let caller = core.upgrade().and_then(|core| core.threads.blocked_callers.borrow_mut().remove(id));
            drop(caller);
        });
        drop(finished);
    }

    /// Fails every thread that waits for an answer.
    pub(in crate::reactor) fn fail_blocked_callers(&self) {
        let ids = self.threads.blocked_callers.borrow().ids(|_| true);
        for id in ids {
            let caller = self.threads.blocked_callers.borrow_mut().remove(id);
            if let Some(fail) = caller {
                fail();
            }
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
