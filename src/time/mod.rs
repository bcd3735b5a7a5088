//! Time: functions that are called later (Twisted: `IReactorTime`, `IDelayedCall`, `callLater`,
//! `getDelayedCalls`).
//!
//! [`Clock`] is the trait for callers: the reactor is a clock, and so is the virtual clock of the
//! test kit. [`Timers`] is the implementation behind every clock, and [`DelayedCall`] is the handle
//! to one call. This room reads no clock and does not wait. The owner of the [`Timers`] supplies
//! the time, and decides when due calls run.
//!
//! Time is a [`Duration`] since the clock's own start. It only grows, even if the time of day is
//! set (Twisted's reactor follows the wall clock), and says nothing about the date.
//!
//! The rules:
//!
//! 1. A call is never made before its deadline, and never before the end of the turn of the loop
//!    that scheduled it: a delay of zero means the next turn.
//! 2. Calls are made in the order of their deadlines; equal deadlines in the order in which they
//!    were scheduled (Twisted leaves that open).
//! 3. The due calls are fixed when a turn begins. A call that was added, or moved (even to where it
//!    was), since then waits for the next turn. A call that was cancelled is not made.
//! 4. A call counts as made before its function starts, so it can't cancel or move itself.
//! 5. The function of a cancelled call is dropped before `cancel` returns.
//! 6. No delay is too long. A deadline further than about 146 years from the clock's start is put
//!    there.
//! 7. When the clock goes (the reactor is closed), every call that is still pending is cancelled.
//!
//! Costs: scheduling, moving and cancelling take O(log n) at worst. Memory is freed when calls are
//! cancelled, not at their deadlines. Everything here belongs to one thread.

mod call;
mod heap;
mod nanos;
mod queue;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub use self::call::DelayedCall;
use self::call::{Body, TimedCall};
use self::nanos::Nanos;
use self::queue::Queue;
use crate::failure::guarded;
use crate::log::error;

/// Tells the time, and calls functions later (Twisted: `IReactorTime`).
///
/// Code that needs timers takes `&impl Clock`, so that a test can pass a virtual clock, and a
/// program the reactor. To keep the clock, keep a clone of its [`timers`](Self::timers). A
/// `&dyn Clock` works as well; call `clock.timers().call_later(..)` there instead of
/// [`call_later`](Self::call_later).
///
/// ```
/// use std::time::Duration;
/// use ropewalk::{Clock, DelayedCall};
///
/// fn remind(clock: &impl Clock, what: &'static str) -> DelayedCall {
///     clock.call_later(Duration::from_secs(30), move || println!("{what}"))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a clock",
    note = "a clock is a reactor, `transport.timers()`, or in a test a `testing::VirtualClock`"
)]
pub trait Clock {
    /// Returns the timers of this clock: the only method to write for a clock that wraps another
    /// one.
    ///
    /// ```
    /// use ropewalk::{Clock, time::Timers};
    ///
    /// struct Session {
    ///     timers: Timers,
    /// }
    ///
    /// impl Session {
    ///     fn new(clock: &impl Clock) -> Self {
    ///         Self { timers: clock.timers().clone() }
    ///     }
    /// }
    ///
    /// impl Clock for Session {
    ///     fn timers(&self) -> &Timers {
    ///         &self.timers
    ///     }
    /// }
    /// ```
    fn timers(&self) -> &Timers;

    /// Returns the time since this clock's own start (Twisted: `seconds`). It never goes back, and
    /// is not the time of day.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::Clock;
    ///
    /// fn took(clock: &impl Clock, since: Duration) -> Duration {
    ///     clock.seconds().saturating_sub(since)
    /// }
    /// ```
    fn seconds(&self) -> Duration {
        self.timers().now()
    }

    /// Schedules `call` to run once, on this thread, after `delay` (Twisted: `callLater`).
    ///
    /// It is never called before this method has returned, and never in the same turn of the loop.
    /// With a delay of zero it is called in the next turn, after that turn's network events. Calls
    /// with equal deadlines are made in the order in which they were scheduled. A delay too long to
    /// be represented is as good as never. A negative delay, or one that is no number, can't be
    /// written ([`Duration::try_from_secs_f64`] returns an error for it).
    ///
    /// Dropping the [`DelayedCall`] changes nothing; [`DelayedCall::cancel`] cancels the call. On a
    /// clock whose reactor is gone, the call is cancelled from the start.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::Clock;
    ///
    /// fn tick(clock: &impl Clock) {
    ///     clock.call_later(Duration::from_millis(250), || println!("a quarter of a second later"));
    /// }
    /// ```
    fn call_later<F: FnOnce() + 'static>(&self, delay: Duration, call: F) -> DelayedCall
    where
        Self: Sized,
    {
        self.timers().schedule(delay, call)
    }

    /// Returns every call that is still to be made, the next one first (Twisted:
    /// `getDelayedCalls`).
    ///
    /// It walks all of them: use it in tests and for a look into a program, not in every turn.
    ///
    /// ```
    /// use ropewalk::Clock;
    ///
    /// fn cancel_everything(clock: &impl Clock) {
    ///     for call in clock.delayed_calls() {
    ///         // One of the dropped functions may have cancelled this one first.
    ///         let _ = call.cancel();
    ///     }
    /// }
    /// ```
    fn delayed_calls(&self) -> Vec<DelayedCall> {
        self.timers().pending()
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn timers(&self) -> &Timers {
        (**self).timers()
    }
}

impl<C: Clock + ?Sized> Clock for Rc<C> {
    fn timers(&self) -> &Timers {
        (**self).timers()
    }
}

/// The pending calls of a clock, and its time: a cheap handle, for the clock's thread only. Clones
/// are equal.
///
/// It is a [`Clock`] itself, and the form in which a long-lived value keeps one.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::{Clock, time::Timers};
///
/// fn heartbeat(timers: Timers) {
///     let again = timers.clone();
///     timers.call_later(Duration::from_secs(1), move || heartbeat(again));
/// }
/// ```
#[derive(Clone)]
pub struct Timers(Rc<Shared>);

/// State that the clones of a [`Timers`] share. A [`DelayedCall`] refers to it weakly, so that a
/// call whose function holds the call's own handle keeps nothing alive.
///
/// The queue is borrowed for the length of one of its own methods, none of which runs or drops a
/// user's function.
pub(in crate::time) struct Shared {
    queue: RefCell<Queue>,
    now: Box<dyn Fn() -> Duration>,
    /// The deadline up to which the owner sleeps. Zero while it is awake.
    wakes_at: Cell<Nanos>,
    /// Wakes the owner, for a call with an earlier deadline.
    wake: OnceCell<Box<dyn Fn()>>,
}

impl Timers {
    /// Creates timers without a call, on a clock that `now` reads: the time since the clock's
    /// start.
    ///
    /// `now` is read once for each call that is scheduled or reset, and for each `seconds`. It may
    /// return the time at which the present turn began. If it goes back, deadlines are computed
    /// from its values, and no call is made early.
    pub(crate) fn new(now: impl Fn() -> Duration + 'static) -> Self {
        Self(Rc::new(Shared {
            queue: RefCell::default(),
            now: Box::new(now),
            wakes_at: Cell::new(Nanos::ZERO),
            wake: OnceCell::new(),
        }))
    }

    /// Creates the timers of a clock that is gone.
    pub(crate) fn closed() -> Self {
        let timers = Self::new(|| Duration::ZERO);
        timers.close();
        timers
    }

    /// Number of calls that are still to be made.
    ///
    /// ```
    /// fn gauge(timers: &ropewalk::time::Timers) -> usize {
    ///     timers.len()
    /// }
    /// ```
    pub fn len(&self) -> usize {
        self.0.queue.borrow().len()
    }

    /// Returns `true` if no call is still to be made.
    ///
    /// ```
    /// fn nothing_to_wait_for(timers: &ropewalk::time::Timers) -> bool {
    ///     timers.is_empty()
    /// }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the next deadline, on the clock's scale. It may be in the past.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.0.queue.borrow_mut().next_deadline().map(Nanos::duration)
    }

    /// Sets the function that wakes the owner, once and for all: see
    /// [`fall_asleep`](Self::fall_asleep).
    pub(crate) fn set_wake(&self, wake: impl Fn() + 'static) {
        // A second function would have no effect. There is one owner, which sets it once.
        let _ = self.0.wake.set(Box::new(wake));
    }

    /// Marks the owner as asleep until the next deadline. A call that is scheduled or moved
    /// meanwhile, to an earlier one, wakes the owner once.
    pub(crate) fn fall_asleep(&self) {
        let next = self.0.queue.borrow_mut().next_deadline();
        self.0.wakes_at.set(next.unwrap_or(Nanos::NEVER));
    }

    /// Marks the owner as awake.
    pub(crate) fn wake_up(&self) {
        self.0.wakes_at.set(Nanos::ZERO);
    }

    /// Fixes the calls that are due in this turn, those with a deadline up to `now`, and returns
    /// them one by one.
    ///
    /// A caller that stops early leaves the rest in the queue: in the next turn it comes first, in
    /// the same order.
    pub(crate) fn begin(&self, now: Duration) -> Due {
        let now = Nanos::from(now);
        let limit = self.0.queue.borrow_mut().begin(now);
        Due { timers: self.clone(), now, limit }
    }

    /// Cancels every call, and every later one from the start: the clock is gone.
    ///
    /// The owner calls this when it is dropped, because functions in the queue may hold clones of
    /// these timers. A function that panics when it is dropped is logged.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    fn now(&self) -> Duration {
        (self.0.now)()
    }

    fn schedule<F: FnOnce() + 'static>(&self, delay: Duration, function: F) -> DelayedCall {
        let at = self.0.deadline(delay);
        let call: Rc<TimedCall<dyn Body>> = TimedCall::new(function);
        if !self.0.queue.borrow_mut().push(at, Rc::clone(&call)) {
            call.cancelled(at);
            call.discard();
        }
        self.0.notice(at);
        DelayedCall::new(Rc::downgrade(&self.0), call)
    }

    fn pending(&self) -> Vec<DelayedCall> {
        let calls = self.0.queue.borrow().calls();
        calls.into_iter().map(|call| DelayedCall::new(Rc::downgrade(&self.0), call)).collect()
    }
}

impl Clock for Timers {
    fn timers(&self) -> &Timers {
        self
    }
}

impl PartialEq for Timers {
    /// Returns `true` if both are handles to the same timers.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Timers {}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("pending", &self.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Returns the moment `delay` from now.
    fn deadline(&self, delay: Duration) -> Nanos {
        Nanos::from((self.now)()).plus(delay)
    }

    /// Wakes an owner that sleeps for longer than the deadline of a new or moved call.
    #[inline]
    fn notice(&self, at: Nanos) {
        if at < self.wakes_at.get() {
            self.wake_owner();
        }
    }

    /// Does so for a call that was moved.
    #[inline]
    fn notice_moved(&self) {
        if self.wakes_at.get() > Nanos::ZERO {
            let next = self.queue.borrow_mut().next_deadline();
            self.notice(next.unwrap_or(Nanos::NEVER));
        }
    }

    #[cold]
    fn wake_owner(&self) {
        self.wakes_at.set(Nanos::ZERO);
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    fn close(&self) {
        // All calls are cancelled before the first of their functions is dropped: a drop runs code
        // that is not ours.
        let calls = self.queue.borrow_mut().close();
        for call in calls {
            if let Err(panic) = guarded(|| call.discard()) {
                error!(%panic, "the function of a cancelled call panicked when it was dropped");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// The due calls of one turn, in order. A call leaves the queue, and counts as made, when the
/// iterator returns it.
///
/// It borrows nothing while it is kept.
#[derive(Debug)]
pub(crate) struct Due {
    timers: Timers,
    now: Nanos,
    /// Calls with this sequence number or a later one were added or moved after the turn began.
    limit: u64,
}

impl Iterator for Due {
    type Item = Ready;

    fn next(&mut self) -> Option<Ready> {
        let (at, call) = self.timers.0.queue.borrow_mut().pop(self.now, self.limit)?;
        call.called(at);
        Some(Ready { call, late: self.now.since(at) })
    }
}

/// A due call, taken out of the queue.
#[must_use = "it counts as called, and is lost unless it is run"]
pub(crate) struct Ready {
    call: Rc<TimedCall<dyn Body>>,
    late: Duration,
}

impl Ready {
    /// Runs it, on the caller's stack. A panic of the function goes through to the caller.
    pub(crate) fn run(self) {
        self.call.run();
    }

    /// Time from its deadline to the beginning of the turn in which it runs.
    pub(crate) fn late(&self) -> Duration {
        self.late
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("late", &self.late).finish_non_exhaustive()
    }
}
