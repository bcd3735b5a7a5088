//! The end of a reactor: [`Reactor::close`], which the last handle does when it goes.
//!
//! The clones of a [`Reactor`] share one [`Handle`], and only clones keep it. Nothing of the engine does, so the handle goes with the
//! program's last clone, wherever that is kept. What the program has given to the reactor (timers, futures, triggers, factories,
//! protocols, callbacks of Deferreds) may keep clones: then only `close` ends the circle, by dropping all of that.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;

use super::backend::Closed;
use super::{Core, Reactor};
use crate::error::ReactorError;
use crate::log::error;

impl Reactor {
    /// Ends this reactor for good, and everything that waits in it.
    ///
    /// Every protocol gets its `connection_lost`, with the reason
    /// [`ReactorStopped`](crate::error::ConnectionClosed::ReactorStopped); what it wrote is sent as far as the socket takes it at
    /// once. Ports close, and every factory stops. Timers are cancelled. Futures, triggers and calls from threads are dropped. Every
    /// Deferred of the engine that has no result fails. Threads without work leave. Then all descriptors are closed.
    ///
    /// Callbacks that run meanwhile can use the reactor, but begin nothing new. Afterwards [`run`](Self::run) and
    /// [`iterate`](Self::iterate) fail with [`ReactorError::Closed`], listening with
    /// [`ListenError::ReactorGone`](crate::error::ListenError::ReactorGone), connecting with
    /// [`ConnectError::ReactorStopped`](crate::error::ConnectError::ReactorStopped), jobs and calls from threads with
    /// [`ReactorGone`](crate::error::ReactorGone), futures with [`Abandoned`](crate::deferred::Abandoned). A timer is cancelled from
    /// the start, and a trigger is dropped. Closing twice is fine.
    ///
    /// A reactor whose last handle is dropped closes in the same way. A handle that is kept by something that waits in the reactor
    /// counts as well: a program whose timers, futures, factories or protocols keep handles calls `close` where it is done.
    ///
    /// (Twisted's reactor is never closed: it ends with its process.)
    ///
    /// # Errors
    /// [`ReactorError::AlreadyRunning`] from inside the loop: [`stop`](Self::stop) it first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, Reactor, error::ReactorError};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let kept = reactor.clone();
    /// let timer = reactor.call_later(Duration::from_secs(60), move || println!("{kept:?}"));
    /// reactor.close()?;
    /// assert!(!timer.active());
    /// assert!(matches!(reactor.run(), Err(ReactorError::Closed)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) -> Result<(), ReactorError> {
        if self.0.is_foreign() {
            self.0.leave_to_parent();
            return Ok(());
        }
        if self.0.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        self.0.end();
        Ok(())
    }

    /// Whether this reactor was closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// What the clones of a [`Reactor`] share, and nobody else keeps. Dropped, the reactor is closed.
pub(crate) struct Handle(Rc<Core>);

impl Handle {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Self(core)
    }
}

impl Deref for Handle {
    type Target = Rc<Core>;

    fn deref(&self) -> &Rc<Core> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The loop has no control, for running and turning it borrows a handle. But a protocol may be reached from outside.
        let Self(core) = self;
        if core.is_foreign() {
            core.leave_to_parent();
        } else if core.context.is_entered() {
            let core = Rc::clone(core);
            core.clone().context.postpone(move || core.end());
        } else {
            core.end();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Core {
    /// Whether the loop, or a call that protocols must not be called inside of, is on the stack.
    pub(super) fn has_control(&self) -> bool {
        self.run.is_turning() || self.context.is_entered()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.run.is_closed()
    }

    /// Whether this is a forked child of the process that the reactor belongs to.
    pub(super) fn is_foreign(&self) -> bool {
        !self.process.is_current()
    }

    /// Whether this process may use the reactor. A child that was forked before the loop was entered takes it over: it gets a poller of its
    /// own, and the sockets go on.
    pub(super) fn is_ours(&self) -> bool {
        if !self.is_foreign() {
            return true;
        }
        if self.process.is_parent() || self.is_closed() {
            return false;
        }
        let reopened = self.backend.borrow_mut().reopen();
        if let Err(error) = reopened {
            error!(%error, "a forked child has no poller of its own");
            return false;
        }
        self.threads.reopen(self.backend.borrow().waker());
        self.process.take_over();
        self.renew_jobs();
        true
    }

    /// The end in a forked child: its copies of the descriptors are closed, and that is all. What waits in the reactor is the parent's:
    /// it is neither called nor dropped.
    fn leave_to_parent(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        self.run.close_in_child();
        self.signals.leave_to_parent();
        self.threads.leave_to_parent();
        let backend = self.backend.replace(Box::new(Closed::new(0)).into());
        drop(backend);
        mem::forget(Rc::clone(self));
    }

    /// A handle, for calls that are given one. `None`: the last has gone, and the reactor with it.
    pub(super) fn reactor(&self) -> Option<Reactor> {
        self.handle.upgrade().map(Reactor)
    }

    /// Ends everything, in an order in which those who are told can still be answered.
    fn end(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        self.run.close();
        self.disconnect_all();
        self.end_jobs();
        // Futures hear of what has ended before they are dropped.
        self.poll_last();
        self.spawner.close();
        self.triggers.close();
        self.timers.close();
        self.threads.refuse_calls();
        self.net.close();
        self.signals.close();
        self.remove_signals();
        self.threads.close();
        let stale = self.backend.borrow().stale();
        let backend = self.backend.replace(Box::new(Closed::new(stale)).into());
        drop(backend);
    }
}
