//! The one timer of something that schedules itself, and the news that its clock has gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::time::{Clock, DelayedCall, Timers};

/// What has an [`Alarm`].
pub(super) trait AlarmOwner: 'static {
    fn alarm(&self) -> &Alarm;

    /// The time has come. The alarm is not set any more.
    fn ring(self: Rc<Self>);

    /// The time will never come: the clock is gone. The alarm is not set any more.
    fn silenced(self: Rc<Self>);
}

/// The timer. While it is set, it keeps its owner alive.
#[derive(Default)]
pub(super) struct Alarm(RefCell<Option<DelayedCall>>);

impl Alarm {
    /// Sets the alarm of `owner`, which is not set.
    pub(super) fn set<T: AlarmOwner>(owner: &Rc<T>, timers: &Timers, delay: Duration) {
        let bell = AlarmGuard(Some(Rc::clone(owner)));
        let call = timers.call_later(delay, move || bell.ring());
        if call.active() {
            owner.alarm().0.replace(Some(call));
        } else {
            Rc::clone(owner).silenced();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Has it ring when `delay` from now has passed instead, if it is set.
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

/// What the clock holds. That it is dropped unrung while the alarm is set is the news that the clock has gone.
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
