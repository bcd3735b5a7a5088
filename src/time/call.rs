//! One call that is due later, and its handle (Twisted: `DelayedCall`, `IDelayedCall`).
//!
//! | stage     | `active` | `cancel`, `reset`, `delay`, `hasten` | its function              |
//! |-----------|----------|--------------------------------------|---------------------------|
//! | pending   | true     | done                                 | kept                      |
//! | called    | false    | [`TimerError::AlreadyCalled`]        | running, or ran           |
//! | cancelled | false    | [`TimerError::AlreadyCancelled`]     | dropped, or being dropped |
//!
//! The only steps are pending to called (before the function runs) and pending to cancelled (before
//! the function is dropped). So a call that ended keeps the way in which it ended. The stage lives
//! in the call, not in a table: an old handle never speaks for another call.

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Shared;
use super::nanos::Nanos;
use crate::error::TimerError;

/// Handle to a call that [`call_later`](crate::Clock::call_later) has scheduled (Twisted:
/// `DelayedCall`, `IDelayedCall`).
///
/// Clones are handles to the same call, and compare equal. Dropping them changes nothing: the call
/// is still made. It belongs to the thread of its clock; no method waits.
///
/// ```
/// use std::cell::RefCell;
/// use std::time::Duration;
/// use ropewalk::{Clock, DelayedCall};
///
/// /// Closes after a minute without input.
/// struct Idle(RefCell<Option<DelayedCall>>);
///
/// impl Idle {
///     fn start(&self, clock: &impl Clock, close: impl FnOnce() + 'static) {
///         self.0.replace(Some(clock.call_later(Duration::from_secs(60), close)));
///     }
///
///     fn heard_something(&self) {
///         if let Some(call) = &*self.0.borrow() {
///             // An error says that it closed already.
///             let _ = call.reset(Duration::from_secs(60));
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct DelayedCall {
    timers: Weak<Shared>,
    call: Rc<TimedCall<dyn Body>>,
}

impl DelayedCall {
    pub(super) fn new(timers: Weak<Shared>, call: Rc<TimedCall<dyn Body>>) -> Self {
        Self { timers, call }
    }

    /// Cancels the call (Twisted: `cancel`). Its function is dropped before this returns.
    ///
    /// If a captured value of the function panics when it is dropped, the panic goes through to the
    /// caller. The call is cancelled even so.
    ///
    /// # Errors
    ///
    /// [`TimerError::AlreadyCalled`] once the call was made, or is being made, and
    /// [`TimerError::AlreadyCancelled`] after an earlier `cancel`. Nothing has happened then.
    ///
    /// ```
    /// use ropewalk::DelayedCall;
    /// use ropewalk::error::TimerError;
    ///
    /// fn give_up(call: &DelayedCall) {
    ///     match call.cancel() {
    ///         Ok(()) | Err(TimerError::AlreadyCancelled) => println!("it won't happen"),
    ///         Err(_) => println!("too late"),
    ///     }
    /// }
    /// ```
    pub fn cancel(&self) -> Result<(), TimerError> {
        let (timers, position) = self.pending()?;
        let at = timers.queue.borrow_mut().remove(position);
        self.call.cancelled(at);
        self.call.discard();
        Ok(())
    }

    /// Makes the call due when `delay` from now has passed, sooner or later than planned (Twisted:
    /// `reset`).
    ///
    /// It queues anew: behind calls with the same deadline, and not in a turn that has begun. A
    /// delay too long to be represented is as good as never.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::DelayedCall;
    /// use ropewalk::error::TimerError;
    ///
    /// fn another_minute(call: &DelayedCall) -> Result<(), TimerError> {
    ///     call.reset(Duration::from_secs(60))
    /// }
    /// ```
    pub fn reset(&self, delay: Duration) -> Result<(), TimerError> {
        let (timers, _) = self.pending()?;
        let at = timers.deadline(delay);
        self.move_to(|_| at)
    }

    /// Makes the call due `by` later than planned (Twisted: `delay`; for its negative numbers see
    /// [`hasten`](Self::hasten)).
    ///
    /// It queues anew, as after [`reset`](Self::reset), even with a delay of zero.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::DelayedCall;
    /// use ropewalk::error::TimerError;
    ///
    /// fn grant(call: &DelayedCall) -> Result<Duration, TimerError> {
    ///     call.delay(Duration::from_secs(5))?;
    ///     Ok(call.time())
    /// }
    /// ```
    pub fn delay(&self, by: Duration) -> Result<(), TimerError> {
        self.move_to(|at| at.plus(by))
    }

    /// Makes the call due `by` sooner than planned, at the soonest in the next turn (Twisted:
    /// `delay` with a negative number).
    ///
    /// It queues anew, as after [`reset`](Self::reset). Its deadline stays at or after the time at
    /// which the present turn began.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::DelayedCall;
    /// use ropewalk::error::TimerError;
    ///
    /// fn hurry(call: &DelayedCall) -> Result<(), TimerError> {
    ///     call.hasten(Duration::from_secs(5))
    /// }
    /// ```
    pub fn hasten(&self, by: Duration) -> Result<(), TimerError> {
        self.move_to(|at| at.minus(by))
    }

    /// Returns `true` if the call is still to be made (Twisted: `active`). While its function runs,
    /// it returns `false`.
    ///
    /// ```
    /// fn still_waiting(call: &ropewalk::DelayedCall) -> bool {
    ///     call.active()
    /// }
    /// ```
    pub fn active(&self) -> bool {
        matches!(self.call.stage.get(), CallStage::Pending(_))
    }

    /// Returns the deadline of the call, on the scale of its clock's
    /// [`seconds`](crate::Clock::seconds) (Twisted: `getTime`).
    ///
    /// For a call that was made or cancelled, it is the last deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, DelayedCall};
    ///
    /// fn remaining(clock: &impl Clock, call: &DelayedCall) -> Duration {
    ///     call.time().saturating_sub(clock.seconds())
    /// }
    /// ```
    pub fn time(&self) -> Duration {
        let at = match self.call.stage.get() {
            CallStage::Called(at) | CallStage::Cancelled(at) => at,
            CallStage::Pending(position) => match self.timers.upgrade() {
                Some(timers) => timers.queue.borrow().deadline(position),
                // Not reached: timers cancel their pending calls when they are dropped.
                None => Nanos::FAR,
            },
        };
        at.duration()
    }

    /// Returns the position of a pending call, or the error of one that has ended.
    fn pending(&self) -> Result<(Rc<Shared>, usize), TimerError> {
        match self.call.stage.get() {
            CallStage::Called(_) => Err(TimerError::AlreadyCalled),
            CallStage::Cancelled(_) => Err(TimerError::AlreadyCancelled),
            CallStage::Pending(position) => match self.timers.upgrade() {
                Some(timers) => Ok((timers, position)),
                // Not reached, as in `time`.
                None => Err(TimerError::AlreadyCancelled),
            },
        }
    }

    fn move_to(&self, at: impl FnOnce(Nanos) -> Nanos) -> Result<(), TimerError> {
        let (timers, position) = self.pending()?;
        let mut queue = timers.queue.borrow_mut();
        queue.reschedule(position, at);
        drop(queue);
        timers.notice_moved();
        Ok(())
    }
}

impl PartialEq for DelayedCall {
    /// Returns `true` if both are handles to the same call.
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(Rc::as_ptr(&self.call), Rc::as_ptr(&other.call))
    }
}

impl Eq for DelayedCall {}

impl fmt::Debug for DelayedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.call.stage.get() {
            CallStage::Pending(_) => "pending",
            CallStage::Called(_) => "called",
            CallStage::Cancelled(_) => "cancelled",
        };
        f.debug_struct("DelayedCall").field("time", &self.time()).field("stage", &stage).finish_non_exhaustive()
    }
}

/// A call, shared by the queue and its handles: the one allocation of a timer.
pub(super) struct TimedCall<B: ?Sized> {
    stage: StageCell,
    body: B,
}

impl<F: FnOnce() + 'static> TimedCall<Cell<Option<F>>> {
    /// Creates a call. Its stage holds no real position before the queue has placed it.
    pub(super) fn new(function: F) -> Rc<Self> {
        Rc::new(Self { stage: StageCell::new(CallStage::Pending(0)), body: Cell::new(Some(function)) })
    }
}

impl TimedCall<dyn Body> {
    /// Records that it is pending, at this position of the queue.
    pub(super) fn placed(&self, position: usize) {
        self.stage.set(CallStage::Pending(position));
    }

    /// Records that it counts as made; it was due `at`.
    pub(super) fn called(&self, at: Nanos) {
        self.stage.set(CallStage::Called(at));
    }

    /// Records that it was cancelled; it would have been due `at`.
    pub(super) fn cancelled(&self, at: Nanos) {
        self.stage.set(CallStage::Cancelled(at));
    }

    #[cfg(test)]
    pub(super) fn place(&self) -> Option<usize> {
        match self.stage.get() {
            CallStage::Pending(position) => Some(position),
            _ => None,
        }
    }

    /// Runs the function, unless it ran or was dropped.
    pub(super) fn run(&self) {
        self.body.run();
    }

    /// Drops the function, unless it ran or was dropped.
    pub(super) fn discard(&self) {
        self.body.discard();
    }
}

/// The function of a call, with its type erased.
pub(super) trait Body {
    fn run(&self);
    fn discard(&self);
}

impl<F: FnOnce() + 'static> Body for Cell<Option<F>> {
    fn run(&self) {
        if let Some(function) = self.take() {
            function();
        }
    }

    fn discard(&self) {
        drop(self.take());
    }
}

#[derive(Clone, Copy)]
enum CallStage {
    Pending(usize),
    Called(Nanos),
    Cancelled(Nanos),
}

/// A [`CallStage`] in eight bytes: the kind in the lowest two bits, the position or the deadline
/// above them. A million pending calls have one each.
struct StageCell(Cell<u64>);

impl StageCell {
    const BITS: u32 = 2;
    const PENDING: u64 = 0;
    const CALLED: u64 = 1;
    const CANCELLED: u64 = 2;

    fn new(stage: CallStage) -> Self {
        Self(Cell::new(Self::pack(stage)))
    }

    fn set(&self, stage: CallStage) {
        self.0.set(Self::pack(stage));
    }

    fn get(&self) -> CallStage {
        let packed = self.0.get();
        let payload = packed >> Self::BITS;
        match packed & ((1 << Self::BITS) - 1) {
            Self::PENDING => CallStage::Pending(payload as usize),
            Self::CALLED => CallStage::Called(Nanos::new(payload)),
            _ => CallStage::Cancelled(Nanos::new(payload)),
        }
    }

    fn pack(stage: CallStage) -> u64 {
        let (payload, kind) = match stage {
            CallStage::Pending(position) => (position as u64, Self::PENDING),
            CallStage::Called(at) => (at.get(), Self::CALLED),
            CallStage::Cancelled(at) => (at.get(), Self::CANCELLED),
        };
        payload << Self::BITS | kind
    }
}
