//! A limit on how long a Deferred may take (Twisted: `Deferred.addTimeout`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use super::{Cancelled, Deferred, Outcome};
use crate::error::ConnectError;
use crate::failure::{Failure, Result};
use crate::time::Clock;

impl<T> Deferred<T> {
    /// Cancels what is being waited for when `after` has passed on `clock` without a result (Twisted: `addTimeout`). It fails
    /// with [`TimedOut`] then, in place of [`Cancelled`] and of [`ConnectError::ConnectingCancelled`]; an errback before this one, or a
    /// canceller with an answer of its own, may still give another result, which is passed on. Callbacks that are added behind
    /// this one take as long as they like.
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

    /// As [`add_timeout`](Self::add_timeout); if the time ran out, `on_timeout` makes the result of what the cancelled chain
    /// gave (Twisted: `addTimeout` with `onTimeoutCancel`).
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
            // It is pending, unless the clock is gone.
            let _ = timer.cancel();
            super::Resolved::Now(result)
        })
    }
}

fn was_cancelled(failure: &Failure) -> bool {
    failure.check::<Cancelled>().is_some() || matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. }))
}

/// It took too long, and was cancelled (Twisted: `defer.TimeoutError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no result within {after:?}")]
#[non_exhaustive]
pub struct TimedOut {
    /// The limit.
    pub after: Duration,
}
