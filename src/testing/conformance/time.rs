//! Cases about timers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::scene::Log;
use super::{Scene, Setting};
use crate::time::{Clock, DelayedCall};

/// Short enough that a test on a real clock takes no time, and longer than the resolution of any
/// clock.
const STEP: Duration = Duration::from_millis(3);

/// Steps to the first deadline: it lies after the setting of all timers, even on a busy machine.
const FIRST: u32 = 10;

pub(super) fn timers_come_in_order_and_not_early(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let came: Rc<RefCell<Vec<(u32, Duration)>>> = Rc::default();
    let delays = [5, 1, 4, 0, 2, 2, 2, 3, 0, 1];
    let began = scene.reactor.seconds();
    let mut due = Vec::new();
    for (number, steps) in (0_u32..).zip(delays) {
        let (came, clock) = (Rc::clone(&came), scene.reactor.clone());
        let call = scene.reactor.call_later(Duration::ZERO, move || came.borrow_mut().push((number, clock.seconds())));
        // Time passes between the calls. Moved to the same time, their deadlines are equal.
        let deadline = began + STEP * (FIRST + steps);
        assert!(call.delay(deadline.saturating_sub(call.time())).is_ok());
        due.push((call.time().max(deadline), number));
    }
    scene.until(|| came.borrow().len() == delays.len());
    due.sort();
    let came = came.borrow();
    assert_eq!(
        came.iter().map(|(number, _)| number).collect::<Vec<_>>(),
        due.iter().map(|(_, number)| number).collect::<Vec<_>>()
    );
    for ((number, at), (due, _)) in came.iter().zip(&due) {
        assert!(at >= due, "timer {number} was due at {due:?}, and came at {at:?}");
    }
    drop(came);
    scene.finish(&[]);
}

pub(super) fn a_timer_cancels_another(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (log, sibling) = (Log::default(), Rc::new(RefCell::new(None::<DelayedCall>)));
    let (first, other, witness) = (log.clone(), Rc::clone(&sibling), scene.witness.clone());
    let itself = Rc::new(RefCell::new(None::<DelayedCall>));
    let own = Rc::clone(&itself);
    let canceller = scene.reactor.call_later(STEP, move || {
        first.add("canceller");
        if other.take().is_none_or(|call| call.cancel().is_err()) {
            witness.fault("a timer that is due could not be cancelled");
        }
        if own.take().is_some_and(|call| call.cancel().is_ok()) {
            witness.fault("a timer that runs could be cancelled");
        }
    });
    itself.replace(Some(canceller));
    let second = log.clone();
    sibling.replace(Some(scene.reactor.call_later(STEP, move || second.add("cancelled"))));
    let third = log.clone();
    scene.reactor.call_later(STEP * 2, move || third.add("last"));
    scene.until(|| log.len() >= 2);
    assert_eq!(log.all(), ["canceller", "last"]);
    scene.finish(&[]);
}

pub(super) fn a_timer_can_be_moved(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    let hour = Duration::from_secs(3600);
    let (early, late) = (log.clone(), log.clone());
    let brought = scene.reactor.call_later(hour, move || early.add("brought forward"));
    let put_off = scene.reactor.call_later(STEP, move || late.add("put off"));
    let (mover, forward, off) = (log.clone(), brought.clone(), put_off.clone());
    scene.reactor.call_later(Duration::ZERO, move || {
        let moved = forward.reset(STEP).is_ok() && off.reset(STEP).is_ok() && off.delay(STEP).is_ok();
        mover.add(if moved { "moved" } else { "not moved" });
    });
    scene.until(|| log.len() == 3);
    assert_eq!(log.all(), ["moved", "brought forward", "put off"]);
    assert!(brought.cancel().is_err() && put_off.reset(STEP).is_err(), "they were called");
    assert!(scene.reactor.seconds() >= put_off.time(), "it came early");
    scene.finish(&[]);
}
