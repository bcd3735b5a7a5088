//! The rules of LoopingCall and of `defer_later`, each as Twisted has it unless it says otherwise.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ropewalk::deferred::{Abandoned, Cancelled, Promise, unhandled};
use ropewalk::failure::Panicked;
use ropewalk::task::{LoopingCall, LoopingCallError};
use ropewalk::{Clock, Deferred, Failure, testing};

/// The unit of all times here.
pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// When the function was called, in ms, and the count that it was given.
type Calls = Vec<(u64, u64)>;

/// A counting loop whose calls are noted, on a clock of its own.
struct Fixture {
    clock: testing::VirtualClock,
    looping: Rc<LoopingCall>,
    calls: Rc<RefCell<Calls>>,
    /// The promises of the Deferreds that the function has returned.
    promises: Rc<RefCell<VecDeque<Promise<()>>>>,
}

impl Fixture {
    /// `call` is handed the loop, and the number of the call, from 1.
    fn new<R: ropewalk::interfaces::Outcome<Output = ()> + 'static>(
        mut call: impl FnMut(&LoopingCall, usize) -> R + 'static,
    ) -> Self {
        let (clock, calls) = (testing::VirtualClock::new(), Rc::new(RefCell::new(Vec::new())));
        let looping = Rc::new_cyclic(|me: &Weak<LoopingCall>| {
            let (me, timers, calls) = (Weak::clone(me), clock.timers().clone(), Rc::clone(&calls));
            let mut number = 0;
            LoopingCall::with_count(&clock, move |count| {
                calls.borrow_mut().push((timers.seconds().as_millis() as u64, count));
                number += 1;
                call(&me.upgrade().expect("the fixture keeps the loop"), number)
            })
        });
        Self { clock, looping, calls, promises: Rc::default() }
    }

    fn plain() -> Self {
        Self::new(|_, _| ())
    }

    /// One whose function returns a Deferred that is not fired in the calls of these numbers, and
    /// one that is in the others.
    fn waiting_in(numbers: &'static [usize]) -> Self {
        let promises: Rc<RefCell<VecDeque<Promise<()>>>> = Rc::default();
        let made = Rc::clone(&promises);
        let me = Self::new(move |_, number| {
            if !numbers.contains(&number) {
                return Deferred::succeed(());
            }
            let (promise, deferred) = Promise::new();
            made.borrow_mut().push_back(promise);
            deferred
        });
        Self { promises, ..me }
    }

    fn advance(&self, by: &[u64]) {
        self.clock.pump(by.iter().copied().map(ms));
    }

    fn fire(&self) {
        let promise = self.promises.borrow_mut().pop_front().expect("a Deferred was returned");
        promise.callback(()).expect("it was not fired");
    }

    fn taken(&self) -> Calls {
        self.calls.take()
    }

    fn times(&self) -> Vec<u64> {
        self.taken().into_iter().map(|(time, _)| time).collect()
    }
}

pub(super) fn succeeded(mut deferred: Deferred<()>) -> bool {
    deferred.take_result().is_some_and(|result| result.is_ok())
}

pub(super) fn failure(mut deferred: Deferred<()>) -> Failure {
    deferred.take_result().expect("a result").expect_err("a failure")
}

/// The function is called at once, and then at multiples of the interval from the start; slots that
/// have passed are skipped, and the calls do not drift (observed with Twisted 26.10).
#[test]
fn calls_come_at_multiples_of_the_interval() {
    let me = Fixture::plain();
    let ended = me.looping.start(ms(10));
    me.advance(&[10, 10, 35, 1, 4, 100, 3, 7]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (20, 1), (55, 3), (60, 1), (160, 10), (170, 1)]);
    assert!(!ended.is_called() && me.looping.is_running());
}

/// The same without the first call (observed with Twisted 26.10).
#[test]
fn a_later_start_waits_one_interval() {
    let me = Fixture::plain();
    drop(me.looping.start_later(ms(10)));
    me.advance(&[10, 10, 35, 1, 4, 100, 3, 7]);
    assert_eq!(me.taken(), [(10, 1), (20, 1), (55, 3), (60, 1), (160, 10), (170, 1)]);
}

/// Calls without a count come at the same times.
#[test]
fn a_function_without_a_count_is_called_as_often() {
    let clock = testing::VirtualClock::new();
    let (times, timers) = (Rc::new(RefCell::new(Vec::new())), clock.timers().clone());
    let noted = Rc::clone(&times);
    drop(LoopingCall::new(&clock, move || noted.borrow_mut().push(timers.seconds())).start(ms(10)));
    clock.pump([10, 10, 35, 1, 4].map(ms));
    assert_eq!(*times.borrow(), [0, 10, 20, 55, 60].map(ms));
}

/// The next call is planned when the Deferred that the function returned has fired; what was missed
/// meanwhile is counted (observed with Twisted 26.10).
#[test]
fn a_returned_deferred_is_waited_for() {
    let me = Fixture::waiting_in(&[2, 4]);
    drop(me.looping.start(ms(10)));
    me.advance(&[10, 25]);
    assert!(me.clock.delayed_calls().is_empty(), "nothing is planned while it is waited for");
    me.fire();
    me.advance(&[4, 1, 10, 33]);
    me.fire();
    me.advance(&[6, 1, 10]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (40, 3), (50, 1), (90, 4), (100, 1)]);
}

/// A reset skips the next call, and begins to count the intervals anew (observed with Twisted
/// 26.10).
#[test]
fn a_reset_begins_anew() {
    let me = Fixture::plain();
    drop(me.looping.start(ms(10)));
    let reset = || me.looping.reset().unwrap();
    me.advance(&[10, 7]);
    reset();
    me.advance(&[3, 7, 9]);
    reset();
    me.advance(&[5, 5, 10, 8]);
    for _ in 0..2 {
        reset();
        me.advance(&[8]);
    }
    reset();
    me.advance(&[25]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (27, 1), (46, 1), (56, 1), (105, 4)]);
}

/// The same before the first call of a later start (observed with Twisted 26.10).
#[test]
fn a_reset_before_the_first_call_puts_it_off() {
    let me = Fixture::plain();
    drop(me.looping.start_later(ms(10)));
    me.advance(&[7]);
    me.looping.reset().unwrap();
    me.advance(&[5, 5, 10, 25]);
    assert_eq!(me.taken(), [(17, 1), (27, 1), (52, 2)]);
}

/// A reset while a Deferred is waited for, or from inside the function, changes nothing (observed
/// with Twisted 26.10).
#[test]
fn a_reset_during_a_call_changes_nothing() {
    let me = Fixture::waiting_in(&[2]);
    drop(me.looping.start(ms(10)));
    me.advance(&[10, 25]);
    me.looping.reset().unwrap();
    me.advance(&[2]);
    me.fire();
    me.advance(&[3, 5, 10]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (40, 3), (55, 1)]);

    let inside = Fixture::new(|looping, _| looping.reset().unwrap());
    drop(inside.looping.start(ms(10)));
    inside.advance(&[13, 7]);
    assert_eq!(inside.times(), [0, 13, 20]);
}

/// A stop between calls fires the Deferred before it returns, takes the timer away, and is no
/// longer running by then.
#[test]
fn a_stop_ends_it() {
    let me = Fixture::plain();
    let (looping, running) = (Rc::clone(&me.looping), Rc::new(Cell::new(true)));
    let place = Rc::clone(&running);
    let ended = me.looping.start(ms(10)).add_callback(move |()| place.set(looping.is_running()));
    me.looping.stop().unwrap();
    assert!(!running.get());
    assert!(succeeded(ended));
    assert!(me.clock.delayed_calls().is_empty());
    me.advance(&[100]);
    assert_eq!(me.times(), [0]);
}

/// A stop before the first call of a later start prevents that call.
#[test]
fn a_stop_before_the_first_call_prevents_it() {
    let me = Fixture::plain();
    let ended = me.looping.start_later(ms(10));
    me.looping.stop().unwrap();
    me.advance(&[100]);
    assert!(succeeded(ended));
    assert!(me.times().is_empty());
}

/// A stop from inside the function ends the loop with that call, also in the call that `start`
/// makes.
#[test]
fn a_function_may_stop_its_loop() {
    let me = Fixture::new(|looping, number| {
        if number == 2 {
            looping.stop().unwrap();
            assert!(!looping.is_running());
            assert_eq!(looping.reset(), Err(LoopingCallError::NotRunning));
        }
    });
    let ended = me.looping.start(ms(10));
    me.advance(&[10, 10, 10]);
    assert_eq!(me.times(), [0, 10]);
    assert!(succeeded(ended));

    let at_once = Fixture::new(|looping, _| looping.stop().unwrap());
    assert!(succeeded(at_once.looping.start(ms(10))));
    at_once.advance(&[100]);
    assert_eq!(at_once.times(), [0]);
}

/// A stop while a Deferred is waited for ends the loop when that has fired (observed with Twisted
/// 26.10).
#[test]
fn a_stop_waits_for_the_call() {
    let me = Fixture::waiting_in(&[2]);
    let ended = me.looping.start(ms(10));
    me.advance(&[10, 25]);
    me.looping.stop().unwrap();
    assert!(!me.looping.is_running());
    assert_eq!(me.looping.stop(), Err(LoopingCallError::NotRunning));
    me.advance(&[10]);
    assert!(!ended.is_called());
    me.fire();
    assert!(succeeded(ended));
    me.advance(&[50]);
    assert_eq!(me.times(), [0, 10]);
}

/// A failure of that last call is the loop's.
#[test]
fn a_failure_of_the_last_call_is_heard() {
    let me = Fixture::waiting_in(&[1]);
    let ended = me.looping.start(ms(10));
    me.looping.stop().unwrap();
    me.promises.borrow_mut().pop_front().unwrap().errback("at last").unwrap();
    assert_eq!(failure(ended).to_string(), "at last");
}

/// A failure of the function, in any way, stops the loop and is the failure of its Deferred.
#[test]
fn a_failure_stops_the_loop() {
    fn ends_with(call: impl Fn() -> Deferred<()> + 'static) -> Failure {
        let me = Fixture::new(move |_, number| if number == 2 { call() } else { Deferred::succeed(()) });
        let ended = me.looping.start(ms(10));
        me.advance(&[10]);
        assert!(!me.looping.is_running());
        assert!(me.clock.delayed_calls().is_empty());
        me.advance(&[10]);
        assert_eq!(me.times(), [0, 10]);
        failure(ended)
    }
    assert_eq!(ends_with(|| Deferred::fail("failed")).to_string(), "failed");
    assert_eq!(ends_with(|| panic!("panicked")).check::<Panicked>().unwrap().message, "panicked");
    assert!(ends_with(|| Promise::new().1).check::<Abandoned>().is_some());

    let me = Fixture::new(|_, _| Err::<(), _>(Failure::message("at once")));
    assert_eq!(failure(me.looping.start(ms(10))).to_string(), "at once");
    assert!(!me.looping.is_running());
}

/// A failure that the Deferred comes to later does the same.
#[test]
fn a_later_failure_stops_the_loop() {
    let me = Fixture::waiting_in(&[1]);
    let ended = me.looping.start(ms(10));
    me.advance(&[15]);
    me.promises.borrow_mut().pop_front().unwrap().errback("late").unwrap();
    assert!(!me.looping.is_running());
    assert_eq!(failure(ended).to_string(), "late");
}

/// Starting what runs, and stopping or resetting what doesn't, are errors that change nothing.
#[test]
fn wrong_requests_are_errors() {
    let me = Fixture::plain();
    assert_eq!(me.looping.interval(), None);
    assert_eq!(me.looping.stop(), Err(LoopingCallError::NotRunning));
    assert_eq!(me.looping.reset(), Err(LoopingCallError::NotRunning));
    drop(me.looping.start(ms(10)));
    for again in [me.looping.start(ms(3)), me.looping.start_later(ms(3))] {
        assert_eq!(failure(again).check(), Some(&LoopingCallError::AlreadyRunning));
    }
    assert_eq!(me.looping.interval(), Some(ms(10)));
    me.advance(&[10]);
    assert_eq!(me.times(), [0, 10]);
}

/// A function that starts its own running loop gets the same error.
#[test]
fn a_function_can_t_start_its_running_loop() {
    let me = Fixture::new(|looping, _| {
        assert_eq!(failure(looping.start(ms(1))).check(), Some(&LoopingCallError::AlreadyRunning));
    });
    drop(me.looping.start(ms(10)));
    me.advance(&[10]);
    assert_eq!(me.times(), [0, 10]);
}

/// A loop can be started again, with another interval; it counts anew (Twisted counts the time in
/// which it did not run).
#[test]
fn a_stopped_loop_starts_anew() {
    let me = Fixture::plain();
    drop(me.looping.start(ms(10)));
    me.advance(&[10]);
    me.looping.stop().unwrap();
    me.advance(&[53]);
    drop(me.looping.start(ms(7)));
    me.advance(&[7]);
    me.looping.stop().unwrap();
    drop(me.looping.start_later(ms(5)));
    me.advance(&[5]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (63, 1), (70, 1), (75, 1)]);
    assert_eq!(me.looping.interval(), Some(ms(5)));
}

/// A callback of the Deferred may start the loop again.
#[test]
fn the_end_may_start_it_again() {
    let me = Fixture::new(|_, number| if number == 2 { Err("once".into()) } else { Ok(()) });
    let looping = Rc::clone(&me.looping);
    drop(me.looping.start(ms(10)).add_errback(move |_| drop(looping.start_later(ms(3)))));
    me.advance(&[10, 3, 3]);
    assert_eq!(me.times(), [0, 10, 13, 16]);

    let stopped = Fixture::plain();
    let looping = Rc::clone(&stopped.looping);
    drop(stopped.looping.start(ms(10)).add_callback(move |()| drop(looping.start_later(ms(3)))));
    stopped.looping.stop().unwrap();
    stopped.advance(&[3, 3]);
    assert_eq!(stopped.times(), [0, 3, 6]);
}

/// The function may stop its loop and start it with another interval; the calls do not overlap, and
/// each run has its end (in Twisted there would be two timers, and the first Deferred would not
/// fire).
#[test]
fn a_function_may_start_its_loop_anew() {
    let starts = Rc::new(RefCell::new(Vec::new()));
    let made = Rc::clone(&starts);
    let me = Fixture::new(move |looping, number| {
        if number == 2 {
            looping.stop().unwrap();
            made.borrow_mut().push(looping.start(ms(3)));
            assert!(looping.is_running());
        } else if number == 4 {
            looping.stop().unwrap();
            made.borrow_mut().push(looping.start_later(ms(5)));
        }
    });
    let first = me.looping.start(ms(10));
    me.clock.advance(ms(10));
    assert!(succeeded(first));
    assert_eq!(me.clock.delayed_calls().len(), 1);
    me.advance(&[3, 4, 1, 5]);
    assert_eq!(me.taken(), [(0, 1), (10, 1), (10, 1), (13, 1), (18, 1), (23, 1)]);
    let mut starts = starts.borrow_mut().drain(..).collect::<Vec<_>>();
    assert!(!starts.pop().unwrap().is_called());
    assert!(succeeded(starts.pop().unwrap()));
}

/// A function that starts its loop anew in each call makes one call a turn, and no recursion.
#[test]
fn starting_anew_in_each_call_takes_a_turn() {
    let me = Fixture::new(|looping, _| {
        looping.stop().unwrap();
        drop(looping.start(ms(3)));
    });
    drop(me.looping.start(ms(3)));
    for calls in 2..100 {
        assert_eq!(me.clock.turn(), 1);
        assert_eq!(me.calls.borrow().len(), calls);
    }
}

/// A start while the last call is waited for begins when that is over.
#[test]
fn a_start_waits_for_the_last_call() {
    let me = Fixture::waiting_in(&[1]);
    let first = me.looping.start(ms(10));
    me.looping.stop().unwrap();
    let second = me.looping.start(ms(4));
    me.advance(&[9]);
    assert!(!first.is_called() && me.looping.is_running());
    me.fire();
    assert!(succeeded(first));
    assert_eq!(me.times(), [0]);
    me.advance(&[0, 3]);
    assert_eq!(me.taken(), [(9, 3), (12, 1)]);
    me.looping.stop().unwrap();
    assert!(succeeded(second));
}

/// A start that still waits can be stopped and cancelled.
#[test]
fn a_start_that_waits_can_be_given_up() {
    let me = Fixture::waiting_in(&[1]);
    let first = me.looping.start(ms(10));
    me.looping.stop().unwrap();
    let second = me.looping.start(ms(4));
    me.looping.stop().unwrap();
    assert!(succeeded(second));
    let third = me.looping.start(ms(4));
    third.cancel();
    assert!(failure(third).check::<Cancelled>().is_some());
    assert!(!me.looping.is_running() && !first.is_called());
    me.fire();
    assert!(succeeded(first));
    me.advance(&[100]);
    assert_eq!(me.times(), [0]);
}

/// An interval of zero is a call every turn, each of count 1; a stop ends it.
#[test]
fn an_interval_of_zero_is_every_turn() {
    let me = Fixture::new(|looping, number| {
        if number == 5 {
            looping.stop().unwrap();
        }
    });
    let ended = me.looping.start(Duration::ZERO);
    for calls in 2..=5 {
        assert_eq!(me.clock.turn(), 1);
        assert_eq!(me.calls.borrow().len(), calls);
    }
    assert!(succeeded(ended));
    assert_eq!(me.clock.turn(), 0);
    assert_eq!(me.taken(), [(0, 1); 5]);
}

/// With an interval of zero too a Deferred is waited for, and nothing is counted for that time.
#[test]
fn an_interval_of_zero_waits() {
    let me = Fixture::waiting_in(&[2]);
    drop(me.looping.start(Duration::ZERO));
    me.advance(&[1, 1]);
    me.fire();
    assert_eq!(me.clock.turn(), 1);
    assert_eq!(me.taken(), [(0, 1), (1, 1), (2, 1)]);
    me.looping.stop().unwrap();
}

/// Cancelling the Deferred of `start` stops the loop (in Twisted it goes on).
#[test]
fn cancelling_stops_the_loop() {
    let me = Fixture::plain();
    let ended = me.looping.start(ms(10));
    me.advance(&[10]);
    ended.cancel();
    assert!(!me.looping.is_running() && me.clock.delayed_calls().is_empty());
    assert!(failure(ended).check::<Cancelled>().is_some());
    me.advance(&[10]);
    assert_eq!(me.times(), [0, 10]);
}

/// It cancels the Deferred that is waited for as well, after a stop too.
#[test]
fn cancelling_cancels_what_is_waited_for() {
    for stop_first in [false, true] {
        let cancelled = Rc::new(Cell::new(0));
        let (noted, unfired) = (Rc::clone(&cancelled), Rc::<RefCell<Vec<_>>>::default());
        let kept = Rc::clone(&unfired);
        let me = Fixture::new(move |_, _| {
            let noted = Rc::clone(&noted);
            let (promise, deferred) = Promise::with_canceller(move || noted.set(noted.get() + 1));
            kept.borrow_mut().push(promise);
            deferred
        });
        let ended = me.looping.start(ms(10));
        if stop_first {
            me.looping.stop().unwrap();
        }
        ended.cancel();
        assert_eq!(cancelled.get(), 1);
        assert!(!me.looping.is_running());
        assert!(failure(ended).check::<Cancelled>().is_some());
        drop(me.looping.start(ms(10)));
        assert_eq!(me.times(), [0, 0]);
        // The loop waits for one that its own function would keep.
        drop(unfired.take());
    }
}

/// Cancelling from inside the function fails the Deferred at once; what that call comes to is
/// reported if it fails, and its Deferred is cancelled.
#[test]
fn a_function_may_cancel_its_loop() {
    fn cancelled_in(call: impl Fn() -> Deferred<()> + 'static) -> Vec<String> {
        let ended: Rc<RefCell<Option<Deferred<()>>>> = Rc::default();
        let inner = Rc::clone(&ended);
        let me = Fixture::new(move |looping, _| {
            inner.borrow().as_ref().unwrap().cancel();
            assert!(!looping.is_running());
            assert!(failure(inner.take().unwrap()).check::<Cancelled>().is_some());
            call()
        });
        ended.replace(Some(me.looping.start_later(ms(10))));
        let ((), unheard) = unhandled::collect(|| me.advance(&[10, 10]));
        assert_eq!(me.times(), [10]);
        unheard.into_iter().map(|unheard| unheard.failure.to_string()).collect()
    }
    assert!(cancelled_in(|| Deferred::succeed(())).is_empty());
    assert_eq!(cancelled_in(|| Deferred::fail("late")), ["late"]);
    let cancelled = Rc::new(Cell::new(false));
    let (noted, unfired) = (Rc::clone(&cancelled), RefCell::new(Vec::new()));
    let unheard = cancelled_in(move || {
        let noted = Rc::clone(&noted);
        let (promise, deferred) = Promise::with_canceller(move || noted.set(true));
        unfired.borrow_mut().push(promise);
        deferred
    });
    assert!(unheard.is_empty() && cancelled.get());
}

/// Dropping the handles, and the Deferred, changes nothing.
#[test]
fn dropped_handles_change_nothing() {
    let clock = testing::VirtualClock::new();
    let calls = Rc::new(Cell::new(0));
    let noted = Rc::clone(&calls);
    let looping = LoopingCall::new(&clock, move || noted.set(noted.get() + 1));
    let other = looping.clone();
    drop(looping.start(ms(10)));
    drop((looping, other));
    clock.pump([10, 10].map(ms));
    assert_eq!(calls.get(), 3);
    drop(clock);
    assert_eq!(Rc::strong_count(&calls), 1, "with its clock the loop goes");
}

/// A loop whose clock is dropped has ended, and its Deferred fails, even if a handle is kept.
#[test]
fn a_clock_that_goes_ends_the_loop() {
    let clock = testing::VirtualClock::new();
    let looping = LoopingCall::new(&clock, || ());
    let ended = looping.start(ms(10));
    drop(clock);
    assert!(failure(ended).check::<Abandoned>().is_some());
    assert!(!looping.is_running());
    assert!(failure(looping.start_later(ms(10))).check::<Abandoned>().is_some());
    assert!(!looping.is_running());
}

/// The function is kept over stops, for the next start, and goes with the last handle.
#[test]
fn a_function_is_dropped_with_the_last_handle() {
    let clock = testing::VirtualClock::new();
    let token = Rc::new(());
    let held = Rc::clone(&token);
    let looping = LoopingCall::new(&clock, move || {
        let _ = &held;
    });
    drop(looping.start(ms(1)));
    clock.advance(ms(1));
    looping.stop().unwrap();
    assert_eq!(Rc::strong_count(&token), 2);
    drop(looping);
    assert_eq!(Rc::strong_count(&token), 1);
}

/// 100,000 calls leave one timer and no stack, whatever the function returns.
#[test]
fn many_calls_leave_nothing() {
    let me = Fixture::waiting_in(&[]);
    drop(me.looping.start(ms(1)));
    for _ in 0..100_000 {
        me.clock.advance(ms(1));
    }
    assert_eq!(me.calls.borrow().len(), 100_001);
    assert_eq!(me.clock.delayed_calls().len(), 1);
    assert_eq!(me.clock.seconds(), ms(100_000));
}

/// The longest interval, and the shortest, are intervals like others.
#[test]
fn extreme_intervals() {
    let me = Fixture::plain();
    drop(me.looping.start(Duration::MAX));
    me.clock.advance(Duration::MAX);
    assert_eq!(me.taken(), [(0, 1)]);

    let fast = Fixture::plain();
    drop(fast.looping.start(Duration::from_nanos(1)));
    fast.clock.advance(Duration::from_secs(5));
    assert_eq!(fast.taken(), [(0, 1), (5_000, 5_000_000_000)]);
}
