//! [`Alarm`]: the one timer of an object that schedules itself, which also reports that its clock
//! is gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::time::{Clock, DelayedCall, Timers};

/// An object with an [`Alarm`].
pub(super) trait AlarmOwner: 'static {
    fn alarm(&self) -> &Alarm;

    /// Handles the deadline. The alarm is not set any more.
    fn ring(self: Rc<Self>);

    /// Handles the end of the clock: the alarm will never ring, and is not set any more.
    fn silenced(self: Rc<Self>);
}

/// The timer. While it is set, it keeps its owner alive.
#[derive(Default)]
pub(super) struct Alarm(RefCell<Option<DelayedCall>>);

impl Alarm {
    /// Sets the alarm of `owner`, which must not be set.
    pub(super) fn set<T: AlarmOwner>(owner: &Rc<T>, timers: &Timers, delay: Duration) {
        let guard = AlarmGuard(Some(Rc::clone(owner)));
        let call = timers.call_later(delay, move || guard.ring());
        if call.active() {
            owner.alarm().0.replace(Some(call));
        } else {
            Rc::clone(owner).silenced();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Moves the alarm, if it is set: it rings when `delay` from now has passed.
    pub(super) fn reset(&self, delay: Duration) {
        if let Some(call) = &*self.0.borrow() {
            // It is active: it leaves the cell before it is called or cancelled.
            let _ = call.reset(delay);
        }
    }

    pub(super) fn cancel(&self) {
        let call = self.0.take();
        if let Some(call) = call {
            let _ = call.cancel();
        }
    }
}

/// The clock's handle to the owner. If it is dropped unrung while the alarm is set, the clock is
/// gone.
struct AlarmGuard<T: AlarmOwner>(Option<Rc<T>>);

impl<T: AlarmOwner> AlarmGuard<T> {
    fn ring(mut self) {
        if let Some(owner) = self.0.take() {
            owner.alarm().0.take();
            owner.ring();
        }
    }
}

impl<T: AlarmOwner> Drop for AlarmGuard<T> {
    fn drop(&mut self) {
        if let Some(owner) = self.0.take() {
            let was_set = owner.alarm().0.take().is_some();
            if was_set {
                owner.silenced();
            }
        }
    }
}
