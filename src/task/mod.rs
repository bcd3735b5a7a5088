//! Work that is repeated, delayed, or done in small steps (Twisted: `twisted.internet.task`).
//!
//! | to | use | Twisted's name |
//! |---|---|---|
//! | call a function at regular intervals | [`LoopingCall`] | `LoopingCall` |
//! | call a function once, later, and get its result | [`defer_later`] | `deferLater` |
//! | do a long job in small steps, beside other work | [`Cooperator`], [`CooperativeTask`] | the same |
//!
//! All of it runs on any [`Clock`]: the reactor in a program, the `VirtualClock` of `testing` in a
//! test. This room reads no clock itself. Time is counted in whole nanoseconds, so nothing drifts.
//!
//! Foreign code that runs here (functions, iterators, callbacks, and the drops of their values) may
//! call back into the same object: nothing is borrowed meanwhile. A panic becomes a failure, as
//! everywhere.

mod alarm;
mod cooperative_task;
mod cooperator;
mod looping;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

pub use self::cooperative_task::{CooperativeTask, SchedulerError};
pub use self::cooperator::{Cooperator, CooperatorBuilder};
pub use self::looping::{LoopingCall, LoopingCallError};
use crate::deferred::{Cancelled, Deferred, Outcome, Promise};
use crate::failure::Failure;
use crate::time::{Clock, DelayedCall};

/// Calls `call` after `delay`, and returns a Deferred for its result (Twisted: `deferLater`).
///
/// With `|| ()` it is a pause in a chain of callbacks. Cancelling the Deferred cancels the timer,
/// and drops `call`. After the call, it cancels the Deferred that `call` returned. Dropping the
/// Deferred changes nothing.
///
/// # Errors
///
/// The Deferred fails with the failure that `call` returns, with
/// [`Panicked`](crate::failure::Panicked) if it panics, with [`Cancelled`], or with
/// [`Abandoned`](crate::deferred::Abandoned) if the clock goes first.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::task::defer_later;
/// use ropewalk::testing;
///
/// let clock = testing::VirtualClock::new();
/// let mut answer = defer_later(&clock, Duration::from_secs(3), || Ok(6 * 7));
/// assert!(!answer.is_called());
/// clock.advance(Duration::from_secs(3));
/// assert_eq!(answer.take_result().unwrap().unwrap(), 42);
/// ```
#[track_caller]
pub fn defer_later<R: Outcome>(
    clock: &impl Clock,
    delay: Duration,
    call: impl FnOnce() -> R + 'static,
) -> Deferred<R::Output> {
    let waiting: Rc<Waiting> = Rc::default();
    // Only the timer keeps the promise. So the promise is dropped when the clock goes, and its
    // Deferred fails.
    let cancelled = Rc::downgrade(&waiting);
    let (promise, deferred) = Promise::with_canceller(move || {
        if let Some(waiting) = cancelled.upgrade() {
            waiting.cancel();
        }
    });
    waiting.promise.set(Some(promise));
    let due = Rc::clone(&waiting);
    waiting.timer.set(Some(clock.timers().call_later(delay, move || due.fire())));
    deferred.add_callback(move |()| call())
}

/// State of a [`defer_later`] that waits for its timer.
#[derive(Default)]
struct Waiting {
    promise: Cell<Option<Promise<()>>>,
    timer: Cell<Option<DelayedCall>>,
}

impl Waiting {
    fn fire(&self) {
        if let Some(promise) = self.promise.take() {
            // It is fired here or in `cancel`: the first to take it fires it.
            let _ = promise.callback(());
        }
    }

    fn cancel(&self) {
        let promise = self.promise.take();
        if let Some(timer) = self.timer.take() {
            let _ = timer.cancel();
        }
        if let Some(promise) = promise {
            let _ = promise.errback(Cancelled);
        }
    }
}

/// Reports a failure that has no receiver any more. A `Cancelled` is not reported.
fn report(failure: Failure) {
    if failure.check::<Cancelled>().is_none() {
        drop(Deferred::<()>::fail(failure));
    }
}
