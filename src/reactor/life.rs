//! The end of a reactor: [`Reactor::close`], also called when the last handle is dropped.
//!
//! The clones of a [`Reactor`] share one [`Handle`], and only clones keep it. The engine itself
//! never does, so the handle ends with the program's last clone. The objects that the program has
//! given to the reactor (timers, futures, triggers, factories, protocols, callbacks of Deferreds)
//! may keep clones. Then only `close` breaks the cycle, by dropping all these objects.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;

use super::backend::Closed;
use super::{Core, Reactor};
use crate::error::ReactorError;
use crate::log::error;

impl Reactor {
    /// Closes this reactor for good, with everything that waits in it.
    ///
    /// - Every protocol gets its `connection_lost`, with the reason
    ///   [`ReactorStopped`](crate::error::ConnectionClosed::ReactorStopped). Its written bytes are
    ///   sent as far as the socket takes them at once.
    /// - Ports close, and every factory stops.
    /// - Timers are cancelled. Futures, triggers and calls from threads are dropped.
    /// - Every Deferred of the engine without a result fails.
    /// - Idle threads exit. Then all descriptors are closed.
    ///
    /// Callbacks that run meanwhile can use the reactor, but start nothing new. Afterwards
    ///
    /// - [`run`](Self::run) and [`iterate`](Self::iterate) fail with [`ReactorError::Closed`];
    /// - listening fails with [`ListenError::ReactorGone`](crate::error::ListenError::ReactorGone);
    /// - connecting fails with
    ///   [`ConnectError::ReactorStopped`](crate::error::ConnectError::ReactorStopped);
    /// - jobs and calls from threads fail with [`ReactorGone`](crate::error::ReactorGone);
    /// - futures fail with [`Abandoned`](crate::deferred::Abandoned);
    /// - a new timer is cancelled from the start, and a new trigger is dropped.
    ///
    /// Closing twice is fine.
    ///
    /// A reactor whose last handle is dropped closes in the same way. A handle that is kept by
    /// something that waits in the reactor counts as well. So a program whose timers, futures,
    /// factories or protocols keep handles calls `close` when it is done.
    ///
    /// (Twisted's reactor is never closed: it ends with its process.)
    ///
    /// # Errors
    /// [`ReactorError::AlreadyRunning`] from inside the loop. [`stop`](Self::stop) the reactor
    /// first.
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
        if self.0.is_forked_child() {
            self.0.leave_to_parent();
            return Ok(());
        }
        if self.0.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        self.0.end();
        Ok(())
    }

    /// Returns `true` if this reactor was closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The object that the clones of a [`Reactor`] share, and that only they keep. Dropping it closes
/// the reactor.
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
        // The loop has no control here, since running and turning it borrow a handle. But code
        // outside of the loop may be inside a call of a protocol.
        let Self(core) = self;
        if core.is_forked_child() {
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
    /// Returns `true` if the loop is on the stack, or a call inside of which protocols must not be
    /// called.
    pub(super) fn has_control(&self) -> bool {
        self.run.is_turning() || self.context.is_entered()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.run.is_closed()
    }

    /// Returns `true` in a forked child of the process that the reactor belongs to.
    pub(super) fn is_forked_child(&self) -> bool {
        !self.process.is_current()
    }

    /// Returns `true` if this process may use the reactor. A child that was forked before the loop
    /// was entered takes the reactor over: it gets a poller of its own, and keeps the sockets.
    pub(super) fn is_ours(&self) -> bool {
        if !self.is_forked_child() {
            return true;
        }
        if self.process.is_parent() || self.is_closed() {
            return false;
        }
        let reopened = self.backend.borrow_mut().reopen();
        if let Err(error) = reopened {
            error!(%error, "a forked child could not get a poller of its own");
            return false;
        }
        self.threads.reopen(self.backend.borrow().waker());
        self.process.take_over();
        self.renew_jobs();
        true
    }

    /// Ends the reactor in a forked child: closes the child's copies of the descriptors, and
    /// nothing else. Everything that waits in the reactor belongs to the parent, so it is neither
    /// called nor dropped.
    fn leave_to_parent(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        self.run.close_in_child();
        self.signals.leave_to_parent();
        self.threads.leave_to_parent();
        // Another thread may have forked while the loop waited. There is no such thread in the
        // child, and its borrow of the backend never ends: the descriptors stay open.
        if !self.postponed.is_waiting() {
            let backend = self.backend.replace(Box::new(Closed::new(0)).into());
            drop(backend);
        }
        mem::forget(Rc::clone(self));
    }

    /// Returns a handle, for calls that take one. Returns `None` if the last handle was dropped,
    /// and the reactor is closed.
    pub(super) fn reactor(&self) -> Option<Reactor> {
        self.handle.upgrade().map(Reactor)
    }

    /// Ends everything. The order lets callbacks react to the ends that they are told of.
    fn end(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        self.run.close();
        // The next step of a host finds the run over.
        self.threads.wake_host();
        self.disconnect_all();
        self.end_jobs();
        // Futures see these ends before they are dropped.
        self.poll_finally();
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
