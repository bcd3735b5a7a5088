//! Time limits of Deferreds (Twisted: `Deferred.addTimeout`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use super::{Cancelled, Deferred, Outcome};
use crate::error::ConnectError;
use crate::failure::{Failure, Result};
use crate::time::Clock;

impl<T> Deferred<T> {
    /// Cancels the chain if it has no result when `after` has passed on `clock` (Twisted:
    /// `addTimeout`). The chain then fails with [`TimedOut`], in place of [`Cancelled`] or
    /// [`ConnectError::ConnectingCancelled`]. An errback before this call, or a canceller that
    /// fires a result of its own, may still produce another result, which is passed on. Callbacks
    /// added after this call have no time limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::deferred::{Promise, TimedOut};
    /// use ropewalk::testing::VirtualClock;
    ///
    /// let clock = VirtualClock::new();
    /// let (_promise, answer) = Promise::<u32>::new();
    /// let mut answer = answer.add_timeout(Duration::from_secs(5), &clock);
    /// clock.advance(Duration::from_secs(5));
    /// let failure = answer.take_result().unwrap().unwrap_err();
    /// assert_eq!(failure.check::<TimedOut>().unwrap().after, Duration::from_secs(5));
    /// ```
    #[track_caller]
    pub fn add_timeout(self, after: Duration, clock: &impl Clock) -> Self {
        self.add_timeout_with(after, clock, move |result| match result {
            Err(failure) if was_cancelled(&failure) => Err(TimedOut { after }.into()),
            result => result,
        })
    }

    /// Sets a time limit as [`add_timeout`](Self::add_timeout) does. If the time runs out,
    /// `on_timeout` receives the result of the cancelled chain and returns the final one (Twisted:
    /// `addTimeout` with `onTimeoutCancel`).
    #[track_caller]
    pub fn add_timeout_with<R: Outcome<Output = T>>(
        self,
        after: Duration,
        clock: &impl Clock,
        on_timeout: impl FnOnce(Result<T>) -> R + 'static,
    ) -> Self {
        if self.is_called() {
            return self;
        }
        let (canceller, ran_out) = (self.canceller(), Rc::new(Cell::new(false)));
        let tell = Rc::clone(&ran_out);
        let timer = clock.timers().call_later(after, move || {
            tell.set(true);
            canceller.cancel();
        });
        self.add(move |result| {
            if ran_out.get() {
                return on_timeout(result).resolve();
            }
            // The timer is pending, unless its clock is gone.
            let _ = timer.cancel();
            super::Resolved::Now(result)
        })
    }
}

fn was_cancelled(failure: &Failure) -> bool {
    failure.check::<Cancelled>().is_some() || matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. }))
}

/// The operation exceeded its time limit and was cancelled (Twisted: `defer.TimeoutError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no result within {after:?}")]
#[non_exhaustive]
pub struct TimedOut {
    /// The time limit.
    pub after: Duration,
}
