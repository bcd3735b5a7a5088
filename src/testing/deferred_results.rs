//! Assertions about the result of a Deferred: a value, a failure, or none yet.

use std::fmt;

use crate::deferred::Deferred;
use crate::failure::Failure;

/// Returns the value of a Deferred that must have one (Twisted: `TestCase.successResultOf`).
///
/// ```
/// use ropewalk::{Deferred, testing::success_result_of};
///
/// let mut answer = Deferred::succeed(41).add_callback(|n| Ok(n + 1));
/// assert_eq!(success_result_of(&mut answer), 42);
/// ```
///
/// # Panics
///
/// If there is no result, or a failure. The message says which.
#[track_caller]
pub fn success_result_of<T>(deferred: &mut Deferred<T>) -> T {
    match deferred.take_result() {
        Some(Ok(value)) => value,
        Some(Err(failure)) => panic!("a value was expected of the Deferred, but it has failed: {failure:?}"),
        None => panic!("a value was expected of the Deferred, but {NOTHING}"),
    }
}

/// Returns the failure of a Deferred that must have one (Twisted: `TestCase.failureResultOf`). This
/// handles the failure.
///
/// ```
/// use ropewalk::{Deferred, deferred::Cancelled, testing::failure_result_of};
///
/// let mut answer = Deferred::<u8>::fail(Cancelled);
/// assert!(failure_result_of(&mut answer).check::<Cancelled>().is_some());
/// ```
///
/// # Panics
///
/// If there is no result, or a value. The message says which.
#[track_caller]
pub fn failure_result_of<T: fmt::Debug>(deferred: &mut Deferred<T>) -> Failure {
    match deferred.take_result() {
        Some(Err(failure)) => failure,
        Some(Ok(value)) => panic!("a failure was expected of the Deferred, but it has the value {value:?}"),
        None => panic!("a failure was expected of the Deferred, but {NOTHING}"),
    }
}

/// Asserts that a Deferred has no result yet (Twisted: `TestCase.assertNoResult`).
///
/// Takes `&mut`, because a result must be taken out to be shown in the message. A Deferred without
/// a result is unchanged, and may still get one.
///
/// ```
/// use ropewalk::{deferred::Promise, testing::{assert_no_result, success_result_of}};
///
/// let (promise, mut answer) = Promise::new();
/// assert_no_result(&mut answer);
/// promise.callback(7).unwrap();
/// assert_eq!(success_result_of(&mut answer), 7);
/// ```
///
/// # Panics
///
/// If there is a result. The message shows it.
#[track_caller]
pub fn assert_no_result<T: fmt::Debug>(deferred: &mut Deferred<T>) {
    match deferred.take_result() {
        None => {}
        Some(Ok(value)) => panic!("the Deferred was to have no result yet, but it has the value {value:?}"),
        Some(Err(failure)) => panic!("the Deferred was to have no result yet, but it has failed: {failure:?}"),
    }
}

const NOTHING: &str =
    "it has no result (it was not fired, is paused or waits for another one, or its result was taken)";
