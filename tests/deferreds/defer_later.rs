//! `defer_later`: a function that is called after a delay, as a Deferred.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::deferred::{Cancelled, Promise};
use ropewalk::failure::Panicked;
use ropewalk::task::defer_later;
use ropewalk::{Clock, Failure, Result, testing};

use super::looping_call::{failure, ms, succeeded};

/// `defer_later` calls when the delay has passed, and gives what the function returns.
#[test]
fn defer_later_calls_later() {
    let clock = testing::VirtualClock::new();
    let mut value = defer_later(&clock, ms(3), || Ok(7));
    let failed = defer_later(&clock, ms(3), || Err::<(), _>(Failure::message("no")));
    let panicked = defer_later(&clock, ms(3), || -> Result<()> { panic!("oh") });
    let (promise, inner) = Promise::new();
    let chained = defer_later(&clock, ms(3), move || inner);
    clock.advance(ms(2));
    assert!(!value.is_called());
    clock.advance(ms(1));
    assert_eq!(value.take_result().unwrap().unwrap(), 7);
    assert_eq!(failure(failed).to_string(), "no");
    assert_eq!(failure(panicked).check::<Panicked>().unwrap().message, "oh");
    assert!(!chained.is_called());
    promise.callback(()).unwrap();
    assert!(succeeded(chained));
}

/// Cancelling it cancels the timer and drops the function; afterwards it cancels what the function
/// returned.
#[test]
fn defer_later_can_be_cancelled() {
    let clock = testing::VirtualClock::new();
    let token = Rc::new(());
    let held = Rc::clone(&token);
    let early = defer_later(&clock, ms(3), move || drop(held));
    early.cancel();
    assert_eq!(Rc::strong_count(&token), 1);
    assert!(clock.delayed_calls().is_empty());
    assert!(failure(early).check::<Cancelled>().is_some());

    let cancelled = Rc::new(Cell::new(false));
    let noted = Rc::clone(&cancelled);
    let (promise, inner) = Promise::<()>::with_canceller(move || noted.set(true));
    let late = defer_later(&clock, ms(3), move || inner);
    clock.advance(ms(3));
    late.cancel();
    assert!(cancelled.get());
    assert!(failure(late).check::<Cancelled>().is_some());
    drop(promise);
}

/// Dropping its Deferred changes nothing.
#[test]
fn defer_later_goes_on_when_dropped() {
    let clock = testing::VirtualClock::new();
    let called = Rc::new(Cell::new(false));
    let noted = Rc::clone(&called);
    drop(defer_later(&clock, ms(3), move || noted.set(true)));
    clock.advance(ms(3));
    assert!(called.get());
}
