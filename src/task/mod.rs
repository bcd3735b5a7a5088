//! Work that is done again and again, later, or bit by bit (Twisted: `twisted.internet.task`).
//!
//! | to | there is | Twisted's name |
//! |---|---|---|
//! | call a function at regular intervals | [`LoopingCall`] | `LoopingCall` |
//! | call a function once, later, and have its result | [`defer_later`] | `deferLater` |
//! | do something long in small steps, beside other things | [`Cooperator`], [`CooperativeTask`] | the same |
//!
//! All of it runs on any [`Clock`]: the reactor in a program, [`testing::VirtualClock`](crate::testing::VirtualClock) in a test. This room
//! reads no clock itself. Time is counted in whole nanoseconds, so nothing drifts.
//!
//! Whatever runs here that is not ours (functions, iterators, callbacks, what they drop) may call back into the same object:
//! nothing is borrowed meanwhile. A panic becomes a failure, as everywhere.

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

/// Calls `call` when `delay` has passed, and gives what it returns (Twisted: `deferLater`).
///
/// With `|| ()` it is a pause in a chain of callbacks. Cancelling the Deferred cancels the timer, and drops `call`; once it was
/// called, cancelling goes to the Deferred that it returned. Dropping the Deferred changes nothing.
///
/// # Errors
///
/// The Deferred fails with the failure that `call` returns, with [`Panicked`](crate::failure::Panicked) if it panics, with
/// [`Cancelled`], or with [`Abandoned`](crate::deferred::Abandoned) if the clock goes first.
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
    // The timer alone keeps the promise, so that it is dropped, and fails, when the clock goes.
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

/// What [`defer_later`] waits with.
#[derive(Default)]
struct Waiting {
    promise: Cell<Option<Promise<()>>>,
    timer: Cell<Option<DelayedCall>>,
}

impl Waiting {
    fn fire(&self) {
        if let Some(promise) = self.promise.take() {
            // It is fired here or in `cancel`, whichever takes it.
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

/// Reports a failure that came too late for whoever would have heard of it. That it was cancelled is no news.
fn report(failure: Failure) {
    if failure.check::<Cancelled>().is_none() {
        drop(Deferred::<()>::fail(failure));
    }
}
