//! A function that is called at regular intervals (Twisted: `LoopingCall`).
//!
//! A loop goes on in runs: each begins with a [`start`](LoopingCall::start), and ends when the loop
//! is stopped, cancelled, or fails. In its present run a loop is in one of these states:
//!
//! | state | means | goes on with |
//! |---|---|---|
//! | idle | no run | `start` |
//! | waiting | the alarm is set | the alarm, to calling; `reset` moves it |
//! | calling | the function runs, or the Deferred that it returned has no result yet | the end of that call, to waiting |
//! | queued | it was started while a call of the run before is not over | the end of that call, to waiting |
//!
//! Rules:
//! 1. Calls are due at multiples of the interval, counted from the start of the run, or from its
//!    last `reset`. Slots that have passed when a call is over are skipped. An interval of zero
//!    means every turn.
//! 2. Calls never overlap: the next one is planned when the previous call, and the Deferred that it
//!    returned, is over.
//! 3. A run that is stopped, or fails, is no longer the present one before its Deferred fires.
//! 4. A run that is stopped during a call ends with that call.
//! 5. The function is called without anything borrowed, so it may stop, reset and start its own
//!    loop.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use super::alarm::{Alarm, AlarmOwner};
use super::report;
use crate::deferred::{Cancelled, Canceller, Deferred, Outcome, Promise, Resolved};
use crate::failure::{Result, guarded};
use crate::time::{Clock, Timers};

/// A function that is called again and again, at regular intervals (Twisted: `LoopingCall`).
///
/// The function returns nothing, a `Result<()>`, or a `Deferred<()>`, see [`Outcome`]. The loop
/// waits for that Deferred before it plans the next call. Calls are due at multiples of the
/// interval from the start, so they do not drift; missed calls are skipped.
///
/// Clones are handles to the same loop. Dropping them changes nothing: a running loop goes on, and
/// its clock keeps it alive. A function that owns a handle to its own loop keeps both for ever;
/// give it a [`Weak`](std::rc::Weak) to one instead:
///
/// ```
/// use std::cell::Cell;
/// use std::rc::{Rc, Weak};
/// use std::time::Duration;
/// use ropewalk::task::LoopingCall;
/// use ropewalk::testing;
///
/// let clock = testing::VirtualClock::new();
/// let calls = Cell::new(0);
/// let looping = Rc::new_cyclic(|me: &Weak<LoopingCall>| {
///     let me = Weak::clone(me);
///     LoopingCall::new(&clock, move || {
///         calls.set(calls.get() + 1);
///         if calls.get() == 3 {
///             let _ = me.upgrade().map(|looping| looping.stop());
///         }
///     })
/// });
/// let ended = looping.start(Duration::from_secs(1));
/// clock.pump([Duration::from_secs(1); 2]);
/// assert!(ended.is_called() && !looping.is_running());
/// ```
#[derive(Clone)]
pub struct LoopingCall(Rc<LoopInner>);

impl LoopingCall {
    /// Creates a loop that calls `call`. It does not run before [`start`](Self::start).
    pub fn new<R: Outcome<Output = ()>>(clock: &impl Clock, mut call: impl FnMut() -> R + 'static) -> Self {
        Self::with(clock, false, Box::new(move |_count| call().resolve()))
    }

    /// Creates a loop whose function gets the number of calls that were due since the one before:
    /// 1, or more if some were skipped (Twisted: `withCount`).
    ///
    /// Each start begins a new count, so the call that [`start`](Self::start) makes at once has a
    /// count of 1. With an interval of zero every call has a count of 1. There is no call for a
    /// count of zero.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// use ropewalk::task::LoopingCall;
    /// use ropewalk::testing;
    ///
    /// let clock = testing::VirtualClock::new();
    /// let frame = Rc::new(Cell::new(0));
    /// let shown = Rc::clone(&frame);
    /// let looping = LoopingCall::with_count(&clock, move |frames| shown.set(shown.get() + frames));
    /// drop(looping.start_later(Duration::from_millis(40)));
    /// clock.advance(Duration::from_secs(1)); // once, and late
    /// assert_eq!(frame.get(), 25);
    /// ```
    pub fn with_count<R: Outcome<Output = ()>>(clock: &impl Clock, mut call: impl FnMut(u64) -> R + 'static) -> Self {
        Self::with(clock, true, Box::new(move |count| call(count).resolve()))
    }

    fn with(clock: &impl Clock, counts: bool, function: Function) -> Self {
        Self(Rc::new(LoopInner {
            timers: clock.timers().clone(),
            function: Cell::new(Some(function)),
            counts,
            alarm: Alarm::default(),
            run: RefCell::default(),
            calling: RefCell::default(),
            starts: Cell::new(0),
            interval: Cell::new(None),
        }))
    }

    /// Calls the function now, before this returns, and then at every multiple of `interval` from
    /// now (Twisted: `start`).
    ///
    /// The Deferred fires when the loop was stopped. Cancelling it stops the loop. It cancels the
    /// Deferred that the loop waits for if there is one; otherwise the returned Deferred fails with
    /// [`Cancelled`].
    ///
    /// A loop may be started again once it was stopped, even by its own function. If the last call
    /// of the run before is not over, the first call comes in the turn after its end.
    ///
    /// # Errors
    ///
    /// The Deferred fails with [`LoopingCallError::AlreadyRunning`], and nothing else happens,
    /// while the loop runs. It fails with the failure that the function returned (or its Deferred
    /// came to), or with [`Panicked`](crate::failure::Panicked) if the function panicked; both stop
    /// the loop. And it fails with [`Abandoned`](crate::deferred::Abandoned) if the clock goes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::task::LoopingCall;
    /// use ropewalk::{Clock, Deferred, Failure, Result};
    ///
    /// fn keep_alive(clock: &impl Clock, mut ping: impl FnMut() -> Result<()> + 'static) -> Deferred<()> {
    ///     LoopingCall::new(clock, move || ping()).start(Duration::from_secs(20)).add_errback(|failure: Failure| {
    ///         println!("no more pings: {failure}");
    ///     })
    /// }
    /// ```
    #[track_caller]
    pub fn start(&self, interval: Duration) -> Deferred<()> {
        self.0.start(interval, true)
    }

    /// Starts as [`start`](Self::start) does, but the first call comes when `interval` has passed
    /// (Twisted: `start` with `now=False`).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    #[track_caller]
    pub fn start_later(&self, interval: Duration) -> Deferred<()> {
        self.0.start(interval, false)
    }

    /// Stops the loop (Twisted: `stop`). The Deferred that `start` returned fires before this
    /// returns.
    ///
    /// During a call (the function runs, or the Deferred that it returned has no result yet), it
    /// fires when that call is over, with the failure of that call if it fails.
    ///
    /// # Errors
    ///
    /// [`LoopingCallError::NotRunning`].
    pub fn stop(&self) -> Result<(), LoopingCallError> {
        self.0.stop()
    }

    /// Skips the next call, and counts the intervals from now on: the next call comes when one has
    /// passed (Twisted: `reset`). During a call, until its Deferred has its result, this changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`LoopingCallError::NotRunning`].
    ///
    /// ```
    /// use ropewalk::task::LoopingCall;
    ///
    /// /// Delays the next ping: it is due after an interval without other messages.
    /// fn sent_something(pings: &LoopingCall) {
    ///     if pings.reset().is_err() {
    ///         println!("there are no pings any more");
    ///     }
    /// }
    /// ```
    pub fn reset(&self) -> Result<(), LoopingCallError> {
        self.0.reset()
    }

    /// Returns `true` if the loop was started, and not stopped since (Twisted: `running`). It
    /// returns `false` when the loop's Deferred fires, and while the last call of a stopped loop is
    /// not over.
    pub fn is_running(&self) -> bool {
        self.0.run.borrow().is_some()
    }

    /// Returns the interval of the last start (Twisted: `interval`); `None` before the first start.
    pub fn interval(&self) -> Option<Duration> {
        self.0.interval.get()
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LoopingCall");
        shown.field("running", &self.is_running()).field("interval", &self.interval()).finish_non_exhaustive()
    }
}

/// A request that a [`LoopingCall`] refuses in its present state (Twisted: an `AssertionError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoopingCallError {
    /// `start` of a loop that runs.
    #[error("the looping call is already running")]
    AlreadyRunning,
    /// `stop` or `reset` of a loop that does not run.
    #[error("the looping call is not running")]
    NotRunning,
}

type Function = Box<dyn FnMut(u64) -> Resolved<()>>;

struct LoopInner {
    timers: Timers,
    /// `None` while it is called.
    function: Cell<Option<Function>>,
    counts: bool,
    /// The alarm of the present run; not set while a call is not over.
    alarm: Alarm,
    run: RefCell<Option<Rc<LoopRun>>>,
    /// The run whose call is not over: the present one, or one that was stopped meanwhile.
    calling: RefCell<Option<Rc<LoopRun>>>,
    starts: Cell<u64>,
    interval: Cell<Option<Duration>>,
}

impl LoopInner {
    #[track_caller]
    fn start(self: &Rc<Self>, interval: Duration, at_once: bool) -> Deferred<()> {
        if self.run.borrow().is_some() {
            return Deferred::fail(LoopingCallError::AlreadyRunning);
        }
        let number = self.starts.get() + 1;
        self.starts.set(number);
        self.interval.set(Some(interval));
        let weak = Rc::downgrade(self);
        let (promise, ended) = Promise::with_canceller(move || {
            if let Some(inner) = weak.upgrade() {
                inner.cancel(number);
            }
        });
        let run = Rc::new(LoopRun::new(number, promise, interval, self.timers.seconds(), at_once));
        self.run.replace(Some(Rc::clone(&run)));
        let is_busy = self.calling.borrow().is_some();
        if is_busy {
            // `over` goes on with the run.
        } else if at_once {
            self.call(run);
        } else {
            self.plan(&run);
        }
        ended
    }

    fn stop(&self) -> Result<(), LoopingCallError> {
        let run = self.run.take().ok_or(LoopingCallError::NotRunning)?;
        if !self.is_calling(&run) {
            self.alarm.cancel();
            run.end(Ok(()));
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), LoopingCallError> {
        let run = self.run.borrow().clone().ok_or(LoopingCallError::NotRunning)?;
        if self.alarm.is_set() {
            run.began.set(self.timers.seconds());
            run.at_once.set(false);
            self.alarm.reset(run.interval);
        }
        Ok(())
    }

    /// Handles the cancellation of a run's Deferred.
    fn cancel(&self, number: u64) {
        let calling = self.calling.borrow().clone().filter(|run| run.number == number);
        let is_present = self.run.borrow().as_ref().is_some_and(|run| run.number == number);
        if is_present {
            self.alarm.cancel();
            let run = self.run.take();
            if let (Some(run), None) = (run, &calling) {
                let _ = run.promise.errback(Cancelled);
            }
        }
        if let Some(run) = calling {
            run.given_up.set(true);
            let awaited = run.awaited.take();
            if let Some(awaited) = awaited {
                awaited.cancel();
            }
        }
    }

    /// Calls the function for `run`, which is the present one. No call is under way.
    fn call(self: &Rc<Self>, run: Rc<LoopRun>) {
        self.calling.replace(Some(Rc::clone(&run)));
        let count = if self.counts { run.count(self.timers.seconds()) } else { 1 };
        if count == 0 {
            return self.over(Ok(()));
        }
        let mut function =
            self.function.take().expect("the function is out only during a call, and calls don't overlap");
        let outcome = guarded(|| function(count));
        self.function.set(Some(function));
        match outcome {
            Ok(Resolved::Now(result)) => self.over(result),
            Ok(Resolved::Later(deferred)) => self.wait(&run, deferred),
            Err(panic) => self.over(Err(panic.into())),
        }
    }

    /// Waits for the Deferred that the function returned.
    fn wait(self: &Rc<Self>, run: &LoopRun, mut deferred: Deferred<()>) {
        if run.given_up.get() {
            deferred.cancel();
        }
        if let Some(result) = deferred.take_result() {
            return self.over(result);
        }
        run.awaited.set(Some(deferred.canceller()));
        let inner = Rc::clone(self);
        drop(deferred.add_both(move |result| inner.over(result)));
    }

    /// Handles the end of the call that was under way.
    fn over(self: &Rc<Self>, result: Result<()>) {
        let Some(run) = self.calling.take() else { return };
        run.awaited.take();
        let present = self.run.borrow().clone();
        match present {
            Some(present) if Rc::ptr_eq(&present, &run) => {
                if result.is_ok() {
                    return self.plan(&run);
                }
                drop(present);
                self.run.take();
            }
            // Not called from here: a function that stops and starts its loop in each call would
            // never return.
            Some(next) if next.at_once.get() => Alarm::set(self, &self.timers, Duration::ZERO),
            Some(next) => self.plan(&next),
            None => {}
        }
        run.end(result);
    }

    fn plan(self: &Rc<Self>, run: &LoopRun) {
        let delay = run.until_next(self.timers.seconds());
        Alarm::set(self, &self.timers, delay);
    }

    fn is_calling(&self, run: &Rc<LoopRun>) -> bool {
        self.calling.borrow().as_ref().is_some_and(|calling| Rc::ptr_eq(calling, run))
    }
}

impl AlarmOwner for LoopInner {
    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn ring(self: Rc<Self>) {
        let run = self.run.borrow().clone();
        if let Some(run) = run {
            self.call(run);
        }
    }

    /// Drops the run and its promise, whose Deferred fails with `Abandoned`.
    fn silenced(self: Rc<Self>) {
        let run = self.run.take();
        drop(run);
    }
}

/// One run of the loop, from a start to its end.
struct LoopRun {
    number: u64,
    promise: Promise<()>,
    interval: Duration,
    /// Beginning of the first slot.
    began: Cell<Duration>,
    /// The beginning is a slot itself.
    at_once: Cell<bool>,
    /// Time of the last call that got a count.
    counted: Cell<Option<Duration>>,
    /// Canceller of the Deferred that the function returned.
    awaited: Cell<Option<Canceller>>,
    /// The run's Deferred was cancelled.
    given_up: Cell<bool>,
}

impl LoopRun {
    fn new(number: u64, promise: Promise<()>, interval: Duration, began: Duration, at_once: bool) -> Self {
        Self {
            number,
            promise,
            interval,
            began: Cell::new(began),
            at_once: Cell::new(at_once),
            counted: Cell::new(None),
            awaited: Cell::new(None),
            given_up: Cell::new(false),
        }
    }

    /// Time from `now` to the next slot. At the beginning of a slot it is a whole interval.
    fn until_next(&self, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.began.get()).as_nanos();
        let Some(into) = elapsed.checked_rem(self.interval.as_nanos()) else { return Duration::ZERO };
        const SECOND: u128 = 1_000_000_000;
        // Less than the interval, which is a `Duration`.
        self.interval - Duration::new((into / SECOND) as u64, (into % SECOND) as u32)
    }

    /// Number of slots that have begun since the last call that was counted.
    fn count(&self, now: Duration) -> u64 {
        let last = self.counted.get();
        let (began, interval) = (nanos(self.began.get()), nanos(self.interval));
        let last = match last {
            Some(last) => nanos(last),
            None if self.at_once.get() => began - interval,
            None => began,
        };
        // Towards zero, as in Twisted: the rest of an interval before a `reset` doesn't count.
        let slot = |time: i128| (time - began).checked_div(interval);
        let count = match (slot(nanos(now)), slot(last)) {
            (Some(this), Some(last)) => this - last,
            _ => 1,
        };
        if count > 0 {
            self.counted.set(Some(now));
        }
        u64::try_from(count.max(0)).unwrap_or(u64::MAX)
    }

    /// Ends the run with the result of its last call.
    fn end(&self, result: Result<()>) {
        // The run was cancelled during a call, so the result of that call has no receiver.
        if let Err(late) = self.promise.complete(result)
            && let Err(failure) = late.0
        {
            report(failure);
        }
    }
}

/// A `Duration` has less than 2^94 nanoseconds.
fn nanos(time: Duration) -> i128 {
    time.as_nanos() as i128
}
