//! Requests to the backend: at once, or when a wait between the program's hooks is over
//! ([`Builder::around_wait`](super::Builder::around_wait)).
//!
//! A reactor is for one thread at a time. An interpreter gives up its lock in the hooks, and then
//! other threads that take the lock use the reactor's handles while this one waits. The wait has
//! the backend, and nothing else of the reactor. So a request changes its state machine at once,
//! and everything that needs the backend waits for the end of the wait. The request ends the wait.
//!
//! | needs the backend | while the loop waits |
//! |---|---|
//! | a write, `lose_connection`, a timer, a call for the end of a turn | as in any other place: the loop wakes up |
//! | a watch, its interest, its end | takes effect when the wait has ended; an error is told to the watcher |
//! | an attempt to connect, `adopt_stream`, `discard`, the stop of a port | takes effect when the wait has ended |
//! | a socket option, a second descriptor, listening, the other ways to adopt | fails with [`LoopWaits`] |
//! | `run`, `iterate`, `step`, `close` | fails with `AlreadyRunning`, as in a callback |

use std::cell::RefMut;
use std::time::Duration;

use super::Reactor;
use super::backend::AnyBackend;
use super::core::Core;
use crate::error::LoopWaits;
use crate::failure::{Panicked, guarded};
use crate::log::error;
use crate::time::Clock;
use crate::transport::id::Id;

impl Reactor {
    /// Returns `true` while the loop waits between the functions of
    /// [`Builder::around_wait`](super::Builder::around_wait), the functions included. Without them
    /// no code can ask meanwhile, and it is always `false`.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    /// use ropewalk::Reactor;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let (asked, known) = (Rc::new(Cell::new(None)), Rc::<Cell<Option<Reactor>>>::default());
    /// let (seen, handle) = (asked.clone(), known.clone());
    /// let before = move || {
    ///     let reactor = handle.take();
    ///     seen.set(reactor.as_ref().map(Reactor::is_waiting));
    /// };
    /// let reactor = Reactor::builder().around_wait(before, || ()).build()?;
    /// known.set(Some(reactor.clone()));
    /// reactor.iterate(Duration::from_millis(1))?;
    /// assert_eq!((asked.get(), reactor.is_waiting()), (Some(true), false));
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_waiting(&self) -> bool {
        self.0.postponed.is_waiting()
    }
}

impl Core {
    /// Returns the backend, for a request that is answered at once and needs no other system call.
    ///
    /// # Errors
    /// The loop waits.
    pub(super) fn awake_backend(&self) -> Result<RefMut<'_, AnyBackend>, LoopWaits> {
        if self.postponed.is_waiting() { Err(LoopWaits) } else { Ok(self.backend.borrow_mut()) }
    }

    /// Returns the backend, for a request that may come from outside of a turn. A host that waits
    /// is woken: the request may need another system call, or may be answered already.
    ///
    /// # Errors
    /// The loop waits. It is not woken: the caller can [postpone](Self::when_awake) the request.
    pub(super) fn backend_for_request(&self) -> Result<RefMut<'_, AnyBackend>, LoopWaits> {
        let backend = self.awake_backend()?;
        self.threads.wake_host();
        Ok(backend)
    }

    /// Makes a request now, or when the wait of the loop is over, which it ends.
    pub(super) fn when_awake(&self, request: impl FnOnce(&Self) + 'static) {
        if self.postponed.is_waiting() {
            self.postponed.push(request);
            self.threads.wake_host();
        } else {
            request(self);
        }
    }

    /// Closes the source of an id, which is anything but a port, and then drops its owner.
    pub(super) fn close_source(&self, id: Id, reset: bool, owner: impl Sized + 'static) {
        self.when_awake(move |core| {
            core.threads.wake_host();
            core.backend.borrow_mut().close(id, reset);
            drop(owner);
        });
    }

    /// Returns the number of stale events, as of the begin of the wait if the loop waits.
    pub(super) fn stale_events(&self) -> u64 {
        self.awake_backend().map_or_else(|_| self.counters.get().stale_events, |backend| backend.stale())
    }

    /// Begins a wait between the program's hooks, unless it would return at once: there is an
    /// event, or the deadline `until` is over (it becomes zero then). Returns `true` if
    /// [`wait_ended`](Self::wait_ended) is to follow.
    ///
    /// From here on, everything that would wake a host wakes the loop: see `hosting.rs`.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_begins(&self, until: &mut Option<Duration>) -> bool {
        let Some(hook) = &self.settings.around_wait else { return false };
        // As with a chain of calls without a delay, each of which schedules the next.
        if until.is_some_and(|until| until <= self.timers.seconds()) {
            *until = Some(Duration::ZERO);
            return false;
        }
        let mut backend = self.backend.borrow_mut();
        if !backend.is_idle() {
            return false;
        }
        // The counter is read while the backend is out of reach.
        self.count(|counters| counters.stale_events = backend.stale());
        drop(backend);
        self.set_waiting(true);
        let begun = guarded(|| hook.before()).inspect_err(hook_failed).is_ok();
        if !begun {
            self.end_wait();
        }
        begun
    }

    /// Ends the wait: calls the program's hook, then makes the postponed requests.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_ended(&self) {
        if let Some(hook) = &self.settings.around_wait {
            // A failure was logged, and the turn goes on.
            let _ = guarded(|| hook.after()).inspect_err(hook_failed);
        }
        self.end_wait();
    }

    pub(super) fn end_wait(&self) {
        self.set_waiting(false);
        while let Some(request) = self.postponed.pop() {
            if let Err(failure) = guarded(|| request(self)) {
                error!(%failure, "a request that was made while the loop waited failed");
            }
        }
    }

    fn set_waiting(&self, is_waiting: bool) {
        self.postponed.set_waiting(is_waiting);
        self.threads.set_host_waits(is_waiting);
        self.context.watch_dirty(is_waiting);
        if is_waiting {
            self.timers.fall_asleep();
        } else {
            self.timers.wake_up();
        }
    }
}

fn hook_failed(failure: &Panicked) {
    error!(%failure, "a hook around the wait failed");
}
