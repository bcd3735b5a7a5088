//! The rules of time, one test each, on a clock that only the test moves. The model is in
//! [`model`].

mod model;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::{Clock, DelayedCall, Timers};
use crate::error::TimerError::{AlreadyCalled, AlreadyCancelled};
use crate::failure::guarded;

/// No entry of the log.
const NONE: [u64; 0] = [];

/// Twisted: a call is made at its deadline, once, and not before.
#[test]
fn a_call_is_made_at_its_deadline() {
    let clock = Virtual::new();
    clock.note(ms(10), 1);
    clock.advance(ms(9));
    assert_eq!(clock.turn(), NONE);
    clock.advance(ms(1));
    assert_eq!(clock.turn(), [1]);
    assert_eq!(clock.turn(), NONE);
}

/// Twisted: calls are made in the order of their deadlines, for any order of scheduling.
#[test]
fn calls_are_made_in_the_order_of_their_deadlines() {
    let clock = Virtual::new();
    for delay in [5, 3, 9, 1, 7] {
        clock.note(ms(delay), delay);
    }
    clock.advance(ms(100));
    assert_eq!(clock.turn(), [1, 3, 5, 7, 9]);
}

/// F29: calls with equal deadlines are made first in, first out; one that was moved counts from
/// then.
#[test]
fn equal_deadlines_are_first_in_first_out() {
    let clock = Virtual::new();
    let calls: Vec<_> = (0..100).map(|id| clock.note(ms(5), id)).collect();
    calls[7].reset(ms(5)).unwrap();
    calls[3].delay(ms(0)).unwrap();
    clock.advance(ms(5));
    let expected: Vec<_> = (0..100).filter(|id| ![3, 7].contains(id)).chain([7, 3]).collect();
    assert_eq!(clock.turn(), expected);
}

/// Twisted, F28: a call never runs in the turn that scheduled it, so a chain of zero delays makes
/// one step a turn.
#[test]
fn a_zero_delay_chain_makes_one_step_a_turn() {
    fn again(clock: Virtual, step: u64) {
        clock.log.borrow_mut().push(step);
        let next = clock.clone();
        clock.call_later(Duration::ZERO, move || again(next, step + 1));
    }
    let clock = Virtual::new();
    again(clock.clone(), 0);
    clock.log.borrow_mut().clear();
    for step in 1..10 {
        assert_eq!(clock.turn(), [step]);
    }
    clock.timers.close();
}

/// Twisted: the set of due calls is fixed when the turn begins, even if a function takes so long
/// that more become due.
#[test]
fn what_becomes_due_during_a_turn_waits() {
    let clock = Virtual::new();
    let inner = clock.clone();
    clock.call_later(ms(1), move || {
        inner.note(ms(1), 2);
        inner.advance(ms(1000));
    });
    clock.note(ms(500), 1);
    clock.advance(ms(1));
    assert_eq!(clock.turn(), NONE);
    assert_eq!(clock.turn(), [2, 1]);
}

/// Calls that are added after a turn began wait for the next one, even if no call had run yet.
#[test]
fn a_turn_does_not_take_what_was_added_after_it_began() {
    let clock = Virtual::new();
    let due = clock.timers.begin(clock.seconds());
    clock.note(ms(0), 1);
    due.for_each(|ready| ready.run());
    assert_eq!(clock.take_log(), NONE);
    assert_eq!(clock.turn(), [1]);
}

/// Twisted: a cancelled call is not made, and its captured values are dropped before `cancel`
/// returns.
#[test]
fn a_cancelled_call_is_dropped_at_once() {
    let clock = Virtual::new();
    let held = Rc::new(());
    let kept = Rc::clone(&held);
    let call = clock.call_later(ms(1), move || drop(kept));
    assert_eq!(Rc::strong_count(&held), 2);
    call.cancel().unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(clock.timers.is_empty());
    clock.advance(ms(1));
    assert_eq!(clock.turn(), NONE);
}

/// Twisted: after `cancel`, every method returns `AlreadyCancelled`, through every clone and for
/// ever.
#[test]
fn after_cancel_everything_says_already_cancelled() {
    let clock = Virtual::new();
    let call = clock.note(ms(1), 1);
    let clone = call.clone();
    call.cancel().unwrap();
    for _ in 0..3 {
        assert_eq!(outcomes(&call), [Err(AlreadyCancelled); 4]);
        assert_eq!(outcomes(&clone), [Err(AlreadyCancelled); 4]);
        clock.note(ms(1), 2);
        clock.advance(ms(1));
        assert_eq!(clock.turn(), [2]);
    }
    assert!(!call.active());
}

/// Twisted: a call counts as called before its function runs, so in it, and ever after, every
/// method returns `AlreadyCalled`.
#[test]
fn from_its_own_start_everything_says_already_called() {
    let clock = Virtual::new();
    let own: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let inside = Rc::clone(&own);
    let call = clock.call_later(ms(1), move || {
        let call = inside.take().unwrap();
        assert!(!call.active());
        assert_eq!(outcomes(&call), [Err(AlreadyCalled); 4]);
    });
    own.replace(Some(call.clone()));
    clock.advance(ms(1));
    clock.turn();
    assert!(own.borrow().is_none(), "it did not run");
    assert_eq!(outcomes(&call), [Err(AlreadyCalled); 4]);
    assert!(!call.active());
}

/// F28: a due call that an earlier one of the same turn cancels is not made.
#[test]
fn a_due_sibling_can_be_cancelled() {
    let clock = Virtual::new();
    let sibling: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let inside = Rc::clone(&sibling);
    clock.call_later(ms(1), move || inside.take().unwrap().cancel().unwrap());
    let call = clock.note(ms(1), 2);
    sibling.replace(Some(call.clone()));
    clock.note(ms(1), 3);
    clock.advance(ms(1));
    assert_eq!(clock.turn(), [3]);
    assert_eq!(call.cancel(), Err(AlreadyCancelled));
}

/// F28: a due call that an earlier one of the same turn moves, even to where it was, waits for a
/// later turn.
#[test]
fn a_due_sibling_that_is_moved_waits() {
    type Move = fn(&DelayedCall) -> Result<(), crate::error::TimerError>;
    let moves: [(Move, bool); 5] = [
        (|call| call.reset(ms(0)), true),
        (|call| call.delay(ms(0)), true),
        (|call| call.hasten(ms(1)), true),
        (|call| call.reset(ms(5)), false),
        (|call| call.delay(ms(5)), false),
    ];
    for (index, (how, next_turn)) in moves.into_iter().enumerate() {
        let clock = Virtual::new();
        let sibling: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
        let inside = Rc::clone(&sibling);
        clock.call_later(ms(1), move || how(&inside.take().unwrap()).unwrap());
        sibling.replace(Some(clock.note(ms(1), 2)));
        clock.note(ms(1), 3);
        clock.advance(ms(1));
        assert_eq!(clock.turn(), [3], "case {index}");
        assert_eq!(clock.turn(), if next_turn { vec![2] } else { vec![] }, "case {index}");
        clock.advance(ms(5));
        assert_eq!(clock.turn(), if next_turn { vec![] } else { vec![2] }, "case {index}");
    }
}

/// A call moved into the past during a turn does not stand in front of that turn's due calls.
#[test]
fn a_hastened_call_does_not_hide_those_that_are_due() {
    let clock = Virtual::new();
    let late: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let inside = Rc::clone(&late);
    clock.call_later(ms(1), move || inside.take().unwrap().hasten(ms(1000)).unwrap());
    clock.note(ms(2), 2);
    clock.note(ms(3), 3);
    late.replace(Some(clock.note(ms(100), 4)));
    clock.advance(ms(10));
    assert_eq!(clock.turn(), [2, 3]);
    assert_eq!(clock.turn(), [4]);
}

/// Twisted: `reset` counts from now, `delay` from the deadline (negative there, `hasten` here);
/// `getTime` follows.
#[test]
fn reset_counts_from_now_and_delay_from_the_deadline() {
    let clock = Virtual::new();
    let call = clock.note(ms(10), 1);
    clock.advance(ms(4));
    assert_eq!(call.time(), ms(10));
    call.reset(ms(10)).unwrap();
    assert_eq!(call.time(), ms(14));
    call.delay(ms(10)).unwrap();
    assert_eq!(call.time(), ms(24));
    call.hasten(ms(5)).unwrap();
    assert_eq!(call.time(), ms(19));
    call.reset(ms(1)).unwrap();
    assert_eq!(call.time(), ms(5));
    clock.advance(ms(1));
    assert_eq!(clock.turn(), [1]);
}

/// A call can be hastened as far as the beginning of the latest turn, and then runs in the next.
#[test]
fn a_call_cannot_be_hastened_past_the_present_turn() {
    let clock = Virtual::new();
    clock.advance(ms(100));
    clock.turn();
    let call = clock.note(ms(1000), 1);
    call.hasten(Duration::MAX).unwrap();
    assert_eq!(call.time(), ms(100));
    assert_eq!(clock.turn(), [1]);
}

/// A call that is over keeps its deadline.
#[test]
fn time_is_known_after_the_end() {
    let clock = Virtual::new();
    let (called, cancelled) = (clock.note(ms(3), 1), clock.note(ms(4), 2));
    cancelled.cancel().unwrap();
    clock.advance(ms(50));
    clock.turn();
    assert_eq!((called.time(), cancelled.time()), (ms(3), ms(4)));
}

/// Twisted: `getDelayedCalls` lists the pending calls, without the cancelled, with the calls that
/// were added in this turn; ours in order.
#[test]
fn delayed_calls_lists_what_is_pending_in_order() {
    let clock = Virtual::new();
    let calls: Vec<_> = [5, 2, 8].map(|delay| clock.note(ms(delay), delay)).into();
    calls[0].cancel().unwrap();
    let (inner, seen) = (clock.clone(), Rc::new(Cell::new(0)));
    let count = Rc::clone(&seen);
    clock.call_later(ms(1), move || {
        inner.note(ms(0), 9);
        count.set(inner.delayed_calls().len());
    });
    assert_eq!(clock.delayed_calls().len(), 3);
    assert_eq!(clock.delayed_calls()[1..], [calls[1].clone(), calls[2].clone()]);
    clock.advance(ms(1));
    clock.turn();
    assert_eq!(seen.get(), 3);
    assert_eq!(clock.timers.len(), 3);
}

/// The reactor sleeps until the first deadline, if there is one.
#[test]
fn the_next_deadline_is_that_of_the_first_call() {
    let clock = Virtual::new();
    assert_eq!(clock.timers.next_deadline(), None);
    clock.note(ms(7), 1);
    let first = clock.note(ms(3), 2);
    assert_eq!(clock.timers.next_deadline(), Some(ms(3)));
    first.cancel().unwrap();
    assert_eq!(clock.timers.next_deadline(), Some(ms(7)));
}

/// F24: if the source of time steps back, no call is lost, no due call is hidden, and no call is
/// early by that clock.
#[test]
fn a_source_that_steps_back_does_no_harm() {
    let clock = Virtual::new();
    clock.advance(ms(10_000));
    let inner = clock.clone();
    clock.call_later(ms(0), move || {
        inner.now.set(ms(7_000));
        inner.note(ms(0), 3);
        inner.note(ms(5_000), 4);
    });
    clock.note(ms(0), 1);
    clock.note(ms(0), 2);
    assert_eq!(clock.turn(), [1, 2]);
    assert_eq!(clock.turn(), NONE, "due by the earlier turn's time, which has not come again");
    clock.now.set(ms(10_000));
    assert_eq!(clock.turn(), [3]);
    clock.now.set(ms(11_999));
    assert_eq!(clock.turn(), NONE);
    clock.now.set(ms(12_000));
    assert_eq!(clock.turn(), [4]);
}

/// F24: nor does a turn that begins by the earlier time hide the remaining calls of an unfinished
/// turn.
#[test]
fn a_turn_by_an_earlier_time_does_not_disturb_a_later_one() {
    let clock = Virtual::new();
    clock.note(ms(8), 1);
    let last = clock.note(ms(100), 2);
    clock.advance(ms(10));
    let unfinished = clock.timers.begin(clock.seconds());
    clock.now.set(ms(7));
    assert_eq!(clock.turn(), NONE);
    last.hasten(ms(100)).unwrap();
    unfinished.for_each(|ready| ready.run());
    assert_eq!(clock.take_log(), [1]);
}

/// F25: delays too long to represent are as good as never, in every method, and stay in order.
#[test]
fn delays_saturate() {
    let clock = Virtual::new();
    clock.now.set(ms(5));
    let century = Duration::from_secs(100 * 366 * 24 * 3600);
    let calls: Vec<_> = [Duration::MAX, Duration::from_secs(u64::MAX), ms(1)].map(|delay| clock.note(delay, 1)).into();
    for _ in 0..3 {
        calls[2].delay(Duration::MAX).unwrap();
        calls[1].reset(Duration::MAX).unwrap();
    }
    for call in &calls {
        assert!(call.time() > century);
    }
    assert_eq!(clock.timers.next_deadline(), Some(calls[0].time()));
    assert_eq!(clock.delayed_calls(), [calls[0].clone(), calls[2].clone(), calls[1].clone()]);
    clock.now.set(century);
    assert_eq!(clock.turn(), NONE);
    calls[1].hasten(Duration::MAX).unwrap();
    assert_eq!(clock.turn(), [1]);
}

/// F25: a clock at the end of all time works on: calls that are scheduled then are due in the next
/// turn.
#[test]
fn a_clock_at_the_end_of_time_still_turns() {
    let clock = Virtual::new();
    clock.now.set(Duration::MAX);
    clock.note(Duration::MAX, 1);
    clock.note(ms(0), 2);
    assert_eq!(clock.turn(), [1, 2]);
}

/// F27: moving one call of many to an earlier time moves only the entries on its way up.
#[test]
fn a_reset_to_an_earlier_time_moves_few() {
    const CALLS: u64 = 20_000;
    let clock = Virtual::new();
    let calls: Vec<_> = (0..CALLS).map(|id| clock.note(ms(1_000 + id), id)).collect();
    for (index, call) in calls.iter().rev().take(20).enumerate() {
        let before = places(&clock);
        call.reset(ms(20 - index as u64)).unwrap();
        let after = places(&clock);
        let moved = before.iter().filter(|(sequence, place)| after.get(sequence) != Some(place)).count();
        assert!(moved <= 5, "{moved} calls moved: more than the heap is deep");
    }
    clock.advance(ms(1_000));
    assert_eq!(clock.turn()[..3], [CALLS - 20, CALLS - 19, CALLS - 18]);
    clock.timers.0.queue.borrow().check();
}

/// Calls from now to the end of all time are made in order, for moves and cancellations anywhere in
/// a deep queue.
#[test]
fn a_deep_queue_keeps_its_order() {
    const CALLS: u64 = 6_000;
    let clock = Virtual::new();
    // Each octave of nanoseconds gets as many deadlines as any other.
    let delay = |id: u64| Duration::from_nanos((id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63) >> (id * 31 % 64));
    let calls: Vec<_> = (0..CALLS).map(|id| clock.note(delay(id), id)).collect();
    clock.timers.0.queue.borrow().check();
    let mut expected = Vec::new();
    for (index, call) in (0..CALLS).zip(&calls) {
        match index % 5 {
            0 => call.cancel().unwrap(),
            1 | 2 => {
                call.reset(delay(index + CALLS)).unwrap();
                expected.push((call.time(), CALLS + index, index));
            }
            _ => expected.push((call.time(), index, index)),
        }
    }
    clock.timers.0.queue.borrow().check();
    expected.sort_unstable();
    let mut made = Vec::new();
    while let Some(next) = clock.timers.next_deadline() {
        clock.now.set(next);
        made.extend(clock.turn());
    }
    assert!(made.into_iter().eq(expected.into_iter().map(|(_, _, id)| id)));
}

/// F30: a turn may stop at any number of calls. The rest comes first in the next turn, in the same
/// order, and reports its lateness.
#[test]
fn a_turn_can_be_cut_into_slices() {
    let clock = Virtual::new();
    for id in 0..10_000 {
        clock.note(ms(id / 100), id);
    }
    clock.advance(ms(100));
    let mut seen = Vec::new();
    for turn in 0..10 {
        clock.timers.begin(clock.seconds()).take(1_000).for_each(|ready| ready.run());
        seen.extend(clock.take_log());
        assert_eq!(clock.timers.len(), 10_000 - seen.len() + turn, "with what this test added");
        clock.note(ms(0), 0);
        clock.advance(ms(1));
    }
    assert!(seen.iter().copied().eq(0..10_000));
    let late: Vec<_> = clock.timers.begin(clock.seconds()).map(|ready| ready.late()).collect();
    assert_eq!((late[0], late[9]), (ms(10), ms(1)));
}

/// A function that panics counts as called, and the next ones run.
#[test]
fn a_panic_leaves_the_rest_in_order() {
    let clock = Virtual::new();
    let bad = clock.call_later(ms(0), || panic!("no"));
    clock.note(ms(0), 1);
    for ready in clock.timers.begin(clock.seconds()) {
        let _ = guarded(|| ready.run());
    }
    assert_eq!(clock.take_log(), [1]);
    assert_eq!(bad.cancel(), Err(AlreadyCalled));
}

/// Code that runs while a function is dropped may use the timers, and the call that is being
/// cancelled.
#[test]
fn a_function_may_use_the_timers_while_it_is_dropped() {
    let clock = Virtual::new();
    let own: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let (inner, inside) = (clock.clone(), Rc::clone(&own));
    let other = clock.note(ms(1), 1);
    let guard = OnDrop(Some(Box::new(move || {
        assert_eq!(inside.take().unwrap().cancel(), Err(AlreadyCancelled));
        other.cancel().unwrap();
        inner.note(ms(0), 2);
    })));
    let call = clock.call_later(ms(1), move || drop(guard));
    own.replace(Some(call.clone()));
    call.cancel().unwrap();
    clock.advance(ms(1));
    assert_eq!(clock.turn(), [2]);
}

/// When the clock goes, every pending call is cancelled before the first function is dropped, and
/// later calls are cancelled from the start.
#[test]
fn a_closed_clock_cancels_everything() {
    let clock = Virtual::new();
    let calls: Rc<RefCell<Vec<DelayedCall>>> = Rc::default();
    for id in 0..20 {
        let (calls_inside, inner) = (Rc::clone(&calls), clock.clone());
        let guard = OnDrop(Some(Box::new(move || {
            assert!(calls_inside.borrow().iter().all(|call| !call.active()));
            let late = inner.note(ms(0), 100);
            assert_eq!(late.cancel(), Err(AlreadyCancelled));
            inner.log.borrow_mut().push(id);
        })));
        calls.borrow_mut().push(clock.call_later(ms(id), move || drop(guard)));
    }
    clock.timers.close();
    assert_eq!(clock.take_log().len(), 20);
    assert!(clock.timers.is_empty());
    assert_eq!(clock.turn(), NONE);
    assert!(calls.borrow().iter().all(|call| call.cancel() == Err(AlreadyCancelled)));
    assert_eq!(calls.borrow()[3].time(), ms(3));
}

/// A function that a closed clock does not take is dropped at once, like that of a cancelled call.
#[test]
fn a_closed_clock_keeps_no_function() {
    let clock = Virtual::new();
    clock.timers.close();
    let held = Rc::new(());
    let kept = Rc::clone(&held);
    let call = clock.call_later(ms(1), move || drop(kept));
    assert_eq!(Rc::strong_count(&held), 1);
    assert_eq!((call.active(), call.time()), (false, ms(1)));
}

/// A function that panics when the clock drops it does not keep the others from being dropped.
#[test]
fn a_panic_while_closing_is_survived() {
    let clock = Virtual::new();
    let held = Rc::new(());
    for _ in 0..3 {
        let (kept, guard) = (Rc::clone(&held), OnDrop(Some(Box::new(|| panic!("no")))));
        clock.call_later(ms(1), move || drop((kept, guard)));
    }
    clock.timers.close();
    assert_eq!(Rc::strong_count(&held), 1);
}

/// A function that holds its own handle keeps nothing alive: all calls go with the last of the
/// timers.
#[test]
fn a_call_that_holds_its_own_handle_is_no_leak() {
    let clock = Virtual::new();
    let held = Rc::new(());
    let own: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let (kept, inside) = (Rc::clone(&held), Rc::clone(&own));
    let call = clock.call_later(ms(1), move || drop((kept, inside)));
    own.replace(Some(call.clone()));
    drop(clock);
    assert_eq!(Rc::strong_count(&held), 1);
    assert_eq!(call.cancel(), Err(AlreadyCancelled));
    assert_eq!(call.time(), ms(1));
}

/// F26: cancelling frees the memory at once, chunk by chunk, not at the deadlines of the calls.
#[test]
fn memory_goes_with_the_calls() {
    let clock = Virtual::new();
    let calls: Vec<_> = (0..2_000).map(|id| clock.note(ms(id * 7919 % 2_000), id)).collect();
    assert!(clock.timers.0.queue.borrow().pieces() > 100);
    for call in &calls[1..] {
        call.cancel().unwrap();
        clock.timers.0.queue.borrow().check();
    }
    assert!(clock.timers.0.queue.borrow().pieces() <= 2);
}

/// Handles are equal if they are handles to the same call, and a clock can be lent, shared, or
/// hidden behind `dyn`.
#[test]
fn handles_and_clocks_are_ordinary_values() {
    fn ask(clock: &impl Clock) -> DelayedCall {
        clock.call_later(ms(1), || ())
    }
    let clock = Virtual::new();
    let calls = [ask(&clock), ask(&&clock), ask(&Rc::new(clock.clone())), ask(clock.timers())];
    let hidden: &dyn Clock = &clock;
    let last = hidden.timers().call_later(ms(1), || ());
    assert_eq!(calls[0].clone(), calls[0]);
    assert!(calls.iter().all(|call| *call != last));
    assert_eq!(hidden.delayed_calls().len(), 5);
    assert_eq!(clock.timers, *hidden.timers());
    assert_eq!(
        format!("{:?} {:?}", clock.timers, last),
        "Timers { pending: 5, .. } DelayedCall { time: 1ms, stage: \"pending\", .. }"
    );
}

/// A clock that stands still until the test moves it, and a log for its calls.
#[derive(Clone)]
struct Virtual {
    now: Rc<Cell<Duration>>,
    timers: Timers,
    log: Rc<RefCell<Vec<u64>>>,
}

impl Virtual {
    fn new() -> Self {
        let now: Rc<Cell<Duration>> = Rc::default();
        let source = Rc::clone(&now);
        Self { now, timers: Timers::new(move || source.get()), log: Rc::default() }
    }

    fn advance(&self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// Schedules a call that writes `id` into the log.
    fn note(&self, delay: Duration, id: u64) -> DelayedCall {
        let log = Rc::clone(&self.log);
        self.call_later(delay, move || log.borrow_mut().push(id))
    }

    /// Runs one turn, and returns the entries that it logged.
    fn turn(&self) -> Vec<u64> {
        self.timers.begin(self.seconds()).for_each(|ready| ready.run());
        self.take_log()
    }

    fn take_log(&self) -> Vec<u64> {
        self.log.take()
    }
}

impl Clock for Virtual {
    fn timers(&self) -> &Timers {
        &self.timers
    }
}

struct OnDrop(Option<Box<dyn FnOnce()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(function) = self.0.take() {
            function();
        }
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn outcomes(call: &DelayedCall) -> [Result<(), crate::error::TimerError>; 4] {
    [call.cancel(), call.reset(ms(1)), call.delay(ms(1)), call.hasten(ms(1))]
}

fn places(clock: &Virtual) -> HashMap<u64, usize> {
    clock.timers.0.queue.borrow().places()
}
