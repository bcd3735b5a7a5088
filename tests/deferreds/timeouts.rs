//! Limits on how long a Deferred may take: on virtual time, and for an attempt to connect on a
//! reactor.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::{Cancelled, Promise, TimedOut};
use ropewalk::interfaces::*;
use ropewalk::{Deferred, Failure, Result, testing};

const LONG: Duration = Duration::from_secs(10);

fn fails<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// A result in time passes, and the timer goes with it; one that is there needs none.
#[test]
fn a_result_in_time_passes() {
    let clock = testing::VirtualClock::new();
    let (promise, deferred) = Promise::<u32>::new();
    let mut answer = deferred.add_timeout(LONG, &clock);
    assert_eq!(clock.delayed_calls().len(), 1);
    clock.advance(LONG / 2);
    promise.callback(1).unwrap();
    assert_eq!(answer.take_result().unwrap().unwrap(), 1);
    assert!(clock.delayed_calls().is_empty());

    let failed = Deferred::<u32>::fail("at once").add_timeout(LONG, &clock);
    assert!(clock.delayed_calls().is_empty());
    assert_eq!(fails(failed).to_string(), "at once");
}

/// When the time is over, what is waited for is cancelled, and the failure says how long that was.
#[test]
fn running_out_of_time_cancels() {
    let clock = testing::VirtualClock::new();
    let cancelled = Rc::new(Cell::new(false));
    let told = Rc::clone(&cancelled);
    let (promise, deferred) = Promise::<u32>::with_canceller(move || told.set(true));
    let answer = deferred.add_callback(|n| Ok(n + 1)).add_timeout(LONG, &clock);
    clock.advance(LONG);
    assert!(cancelled.get() && promise.is_called());
    let failure = fails(answer);
    assert_eq!(failure.check::<TimedOut>().unwrap().after, LONG);
    assert_eq!(failure.to_string(), "no result within 10s");
}

/// The limit is for what comes before it: callbacks behind it take their time.
#[test]
fn only_what_comes_before_is_limited() {
    let clock = testing::VirtualClock::new();
    let (slow_promise, slow) = Promise::<u32>::new();
    let (promise, deferred) = Promise::<u32>::new();
    let mut answer = deferred.add_timeout(LONG, &clock).add_callback(move |_| slow);
    promise.callback(1).unwrap();
    clock.advance(LONG * 2);
    slow_promise.callback(2).unwrap();
    assert_eq!(answer.take_result().unwrap().unwrap(), 2);
}

/// An errback before the limit may still make something of the cancelled chain; a failure of its
/// own passes as it is; and a cancel that is not ours is no timeout.
#[test]
fn other_results_pass_as_they_are() {
    let clock = testing::VirtualClock::new();
    let (_promise, deferred) = Promise::<u32>::new();
    let mut rescued = deferred.add_errback(|_| Ok(7)).add_timeout(LONG, &clock);
    let (_promise, deferred) = Promise::<u32>::new();
    let renamed = deferred.add_errback(|_| Err(Failure::message("mine"))).add_timeout(LONG, &clock);
    let (_promise, deferred) = Promise::<u32>::new();
    let cancelled = deferred.add_timeout(LONG, &clock);
    cancelled.cancel();
    clock.advance(LONG);
    assert_eq!(rescued.take_result().unwrap().unwrap(), 7);
    assert_eq!(fails(renamed).to_string(), "mine");
    assert!(fails(cancelled).check::<Cancelled>().is_some());
}

/// `add_timeout_with` makes the result itself, and only if the time ran out.
#[test]
fn a_timeout_of_ones_own() {
    let clock = testing::VirtualClock::new();
    let (_promise, late) = Promise::<u32>::new();
    let (promise, early) = Promise::<u32>::new();
    let mut late = late.add_timeout_with(LONG, &clock, |result| {
        assert!(result.unwrap_err().check::<Cancelled>().is_some());
        Ok(0)
    });
    let mut early = early.add_timeout_with(LONG, &clock, |_| -> Result<u32> { panic!("it was in time") });
    promise.callback(1).unwrap();
    clock.advance(LONG);
    assert_eq!(late.take_result().unwrap().unwrap(), 0);
    assert_eq!(early.take_result().unwrap().unwrap(), 1);
}

/// Of two limits the shorter one ends it.
#[test]
fn the_shorter_of_two_limits_counts() {
    let clock = testing::VirtualClock::new();
    for (inner, outer) in [(1, 2), (2, 1)] {
        let (_promise, deferred) = Promise::<u32>::new();
        let answer =
            deferred.add_timeout(Duration::from_secs(inner), &clock).add_timeout(Duration::from_secs(outer), &clock);
        clock.advance(LONG);
        let expected = Duration::from_secs(1);
        assert_eq!(fails(answer).check::<TimedOut>().unwrap().after, expected);
    }
}

/// An attempt to connect that is cut off fails with a timeout, not with a cancellation (Twisted's
/// fails with the latter).
#[test]
fn an_attempt_to_connect_times_out() {
    let reactor = reactor();
    let (_full, _first, address) = silent();
    let after = Duration::from_millis(20);
    let connecting = reactor
        .connect_tcp(address, &ropewalk::ConnectOptions::new(), |_| Some(Script::new(&Log::default())))
        .add_timeout(after, &reactor);
    run_until(&reactor, || connecting.is_called());
    assert_eq!(fails(connecting).check::<TimedOut>().unwrap().after, after);
}
