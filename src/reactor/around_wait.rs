//! [`Builder::around_wait`]: functions of the program before and after each wait of the loop. An
//! interpreter gives up its lock there (Python's GIL).

use std::fmt;
use std::rc::Rc;

use super::Builder;

impl Builder {
    /// Calls `before` ahead of each wait that may block, and `after` behind it. For an embedded
    /// interpreter, which must not hold its lock while the loop sleeps.
    ///
    /// - A turn that has work, and so does not wait, calls neither. Nor does one whose next timer
    ///   is due by then. A program that drives the reactor by
    ///   [`HostedRun::step`](super::HostedRun::step) with a limit of zero does not wait in the
    ///   reactor, so the hook belongs around the host's own wait there.
    /// - Both are called on the reactor's thread, with nothing borrowed. From the call of `before`
    ///   to the return of `after` the reactor [waits](super::Reactor::is_waiting). The functions
    ///   may use it meanwhile, and so may other threads that hold the interpreter's lock instead of
    ///   this one. Requests take effect when the wait is over, which they end; the few that need an
    ///   answer of the system fail with [`LoopWaits`](crate::error::LoopWaits). The guide on
    ///   embedding has the list (the guide's `how-to/embedding.md`).
    /// - `after` is called exactly once for each `before`, also if the wait fails. The exception is
    ///   a `before` that panicked: its panic is logged, and the wait goes on without `after`. A
    ///   panic of `after` is logged.
    /// - A second call replaces the functions of the first.
    ///
    /// (Twisted has no such hook: its `select` gives up the lock itself.)
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    /// use ropewalk::{Clock, Reactor};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let (waits, counted) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    /// let (begun, ended) = (waits.clone(), counted.clone());
    /// let reactor = Reactor::builder()
    ///     .around_wait(move || begun.set(begun.get() + 1), move || ended.set(ended.get() + 1))
    ///     .build()?;
    /// let handle = reactor.clone();
    /// reactor.call_later(Duration::from_millis(5), move || handle.stop().expect("the reactor runs"));
    /// reactor.run()?;
    /// assert!(waits.get() > 0 && waits.get() == counted.get());
    /// # Ok(())
    /// # }
    /// ```
    pub fn around_wait(mut self, before: impl Fn() + 'static, after: impl Fn() + 'static) -> Self {
        self.around_wait = Some(AroundWait { before: Rc::new(before), after: Rc::new(after) });
        self
    }
}

/// The two functions.
#[derive(Clone)]
pub(super) struct AroundWait {
    before: Rc<dyn Fn()>,
    after: Rc<dyn Fn()>,
}

impl AroundWait {
    pub(super) fn before(&self) {
        (self.before)();
    }

    pub(super) fn after(&self) {
        (self.after)();
    }
}

impl fmt::Debug for AroundWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AroundWait").finish_non_exhaustive()
    }
}
