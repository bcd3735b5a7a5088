//! The test kit's clock: its time moves by `advance` and `pump` only.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::deferred::Abandoned;
use ropewalk::error::TimerError;
use ropewalk::task::defer_later;
use ropewalk::{Clock, testing};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A clock, and what its calls have noted: who, and at what time.
#[derive(Clone, Default)]
struct Noting {
    clock: testing::VirtualClock,
    notes: Rc<RefCell<Vec<(u32, Duration)>>>,
}

impl Noting {
    fn note(&self, who: u32) {
        self.notes.borrow_mut().push((who, self.clock.seconds()));
    }

    fn note_later(&self, delay: Duration, who: u32) -> ropewalk::DelayedCall {
        let me = self.clone();
        self.clock.call_later(delay, move || me.note(who))
    }

    fn taken(&self) -> Vec<(u32, Duration)> {
        self.notes.take()
    }
}

/// A new clock stands at zero, and moves by the given amount, whatever time passes meanwhile.
#[test]
fn time_moves_when_it_is_told_to() {
    let clock = testing::VirtualClock::new();
    assert_eq!(clock.seconds(), Duration::ZERO);
    clock.advance(ms(5));
    clock.advance(Duration::ZERO);
    clock.pump([ms(1), ms(2)]);
    assert_eq!(clock.seconds(), ms(8));
}

/// The time is moved first: every call that is due sees the new one, and they are made in the order
/// of their deadlines.
#[test]
fn time_is_moved_before_calls_are_made() {
    let me = Noting::default();
    for delay in [3, 1, 2, 5] {
        me.note_later(ms(delay.into()), delay);
    }
    me.clock.advance(ms(4));
    assert_eq!(me.taken(), [(1, ms(4)), (2, ms(4)), (3, ms(4))]);
    assert_eq!(me.clock.delayed_calls().len(), 1);
}

/// A call that another one schedules is made in the same advance if it is due, after the calls that
/// were due before it.
#[test]
fn calls_that_become_due_meanwhile_are_made() {
    let me = Noting::default();
    let inner = me.clone();
    me.clock.call_later(ms(1), move || {
        inner.note(1);
        inner.note_later(Duration::ZERO, 3);
        inner.note_later(ms(1), 4);
    });
    me.note_later(ms(10), 2);
    me.clock.advance(ms(10));
    assert_eq!(me.taken(), [(1, ms(10)), (2, ms(10)), (3, ms(10))]);
    me.clock.advance(ms(1));
    assert_eq!(me.taken(), [(4, ms(11))]);
}

/// A pump advances step by step, so calls see the time of their own step.
#[test]
fn a_pump_advances_step_by_step() {
    let me = Noting::default();
    me.note_later(ms(1), 1);
    me.note_later(ms(3), 3);
    me.clock.pump([ms(1), ms(1), ms(1)]);
    assert_eq!(me.taken(), [(1, ms(1)), (3, ms(3))]);
}

/// Calls can be cancelled and moved, before the advance and during it.
#[test]
fn calls_can_be_cancelled_and_moved() {
    let me = Noting::default();
    let (one, two, three) = (me.note_later(ms(1), 1), me.note_later(ms(2), 2), me.note_later(ms(3), 3));
    one.cancel().unwrap();
    two.reset(ms(9)).unwrap();
    let victim = three.clone();
    me.clock.call_later(ms(2), move || victim.cancel().unwrap());
    me.clock.advance(ms(8));
    assert_eq!(me.taken(), []);
    assert_eq!(three.cancel(), Err(TimerError::AlreadyCancelled));
    me.clock.advance(ms(1));
    assert_eq!(me.taken(), [(2, ms(9))]);
    assert_eq!(two.cancel(), Err(TimerError::AlreadyCalled));
}

/// A call may advance the clock itself: what is due then is made inside it, once.
#[test]
fn a_call_may_advance_the_clock() {
    let me = Noting::default();
    let inner = me.clone();
    me.clock.call_later(ms(1), move || {
        inner.clock.advance(ms(10));
        inner.note(1);
    });
    me.note_later(ms(1), 2);
    me.note_later(ms(5), 3);
    me.clock.advance(ms(1));
    assert_eq!(me.taken(), [(2, ms(11)), (3, ms(11)), (1, ms(11))]);
    assert_eq!(me.clock.seconds(), ms(11));
}

/// A panic of a call goes through to the test, and the clock goes on afterwards.
#[test]
fn a_panic_goes_through() {
    let me = Noting::default();
    me.clock.call_later(ms(1), || panic!("in a call"));
    me.note_later(ms(1), 2);
    let panic = catch_unwind(AssertUnwindSafe(|| me.clock.advance(ms(1)))).unwrap_err();
    assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "in a call");
    assert_eq!(me.taken(), []);
    me.clock.advance(Duration::ZERO);
    assert_eq!(me.taken(), [(2, ms(1))]);
}

/// A turn makes what is due and leaves what that asks for to the next.
#[test]
fn a_turn_is_one_step_of_a_chain() {
    let (clock, steps) = endless();
    for step in 1..=5 {
        assert_eq!(clock.turn(), 1);
        assert_eq!(steps.get(), step);
    }
    assert_eq!(clock.seconds(), Duration::ZERO);
}

/// A chain of calls without delay that does not end is a panic that says so, and no test that
/// hangs.
#[test]
fn a_chain_without_end_is_a_panic() {
    let (clock, steps) = endless();
    let panic = catch_unwind(AssertUnwindSafe(|| clock.advance(ms(3)))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("calls are still due") && message.contains("3ms"), "{message}");
    assert_eq!(steps.get(), 100_000);
}

/// A long chain that ends is none.
#[test]
fn a_long_chain_is_followed_to_its_end() {
    fn again(clock: testing::VirtualClock, left: u32) {
        if left > 0 {
            let next = clock.clone();
            clock.call_later(Duration::ZERO, move || again(next, left - 1));
        }
    }
    let clock = testing::VirtualClock::new();
    again(clock.clone(), 50_000);
    clock.advance(Duration::ZERO);
    assert_eq!(clock.delayed_calls(), []);
}

/// Clones are the same clock; when the last is dropped, its calls are cancelled, and what they hold
/// is dropped.
#[test]
fn the_last_handle_cancels_what_is_pending() {
    let clock = testing::VirtualClock::new();
    let other = clock.clone();
    let held = Rc::new(());
    let (token, timers) = (Rc::clone(&held), clock.timers().clone());
    let call = clock.call_later(ms(1), move || drop((token, timers)));
    drop(clock);
    assert!(call.active());
    drop(other);
    assert_eq!(call.cancel(), Err(TimerError::AlreadyCancelled));
    assert_eq!(Rc::strong_count(&held), 1);
}

/// However far the clock is moved, it does not go back, and what is never to be called is not
/// called.
#[test]
fn never_does_not_come() {
    let me = Noting::default();
    let never = me.note_later(Duration::MAX, 1);
    me.clock.pump([Duration::MAX, Duration::MAX]);
    assert!(never.active());
    let end = me.clock.seconds();
    me.clock.advance(ms(1));
    assert_eq!(me.clock.seconds(), end);
    me.note_later(ms(1), 2);
    assert_eq!(me.clock.turn(), 0);
}

/// A chain of calls without delay, and how many there were.
fn endless() -> (testing::VirtualClock, Rc<Cell<u32>>) {
    fn again(clock: &impl Clock, steps: Rc<Cell<u32>>) {
        let timers = clock.timers().clone();
        clock.call_later(Duration::ZERO, move || {
            steps.set(steps.get() + 1);
            again(&timers, steps);
        });
    }
    let (clock, steps) = (testing::VirtualClock::new(), Rc::new(Cell::new(0)));
    again(&clock, Rc::clone(&steps));
    (clock, steps)
}

/// A Deferred that waits for a dropped clock fails with `Abandoned`.
#[test]
fn a_deferred_of_a_clock_that_goes_is_abandoned() {
    let clock = testing::VirtualClock::new();
    let mut later = defer_later(&clock, ms(1), || ());
    drop(clock);
    assert!(later.take_result().unwrap().unwrap_err().check::<Abandoned>().is_some());
}
