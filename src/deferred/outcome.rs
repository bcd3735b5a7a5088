//! Return types of callbacks.

use super::Deferred;
use crate::failure::{Failure, Result};

/// Return type of a callback of a [`Deferred`]: a `Result`, another `Deferred`, or nothing
/// (Twisted: a value, an exception, or a Deferred). All branches of a callback return the same
/// type. If one branch returns a Deferred, the others return [`Deferred::succeed`] or
/// [`Deferred::fail`].
///
/// ```
/// use ropewalk::{Deferred, Failure};
///
/// let mut answer = Deferred::succeed(20)
///     .add_callback(|n| Ok(n + 1)) // a value
///     .add_callback(|n| if n < 100 { Ok(n) } else { Err("too large".into()) }) // a value or a failure
///     .add_callback(|n| Deferred::succeed(2 * n)); // a result that may come later
/// assert_eq!(answer.take_result().unwrap().unwrap(), 42);
///
/// let mut done = Deferred::<u32>::fail("no answer").add_both(|result| println!("{result:?}")); // nothing
/// assert!(done.take_result().unwrap().is_ok());
/// ```
#[diagnostic::on_unimplemented(
    message = "a callback can't return `{Self}`",
    label = "expected a `Result`, a `Deferred` or `()`",
    note = "a value is returned as `Ok(value)`, a failure as `Err(failure)`",
    note = "where one branch returns a `Deferred`, the others return `Deferred::succeed(value)` or `Deferred::fail(failure)`",
    note = "a future becomes a `Deferred` with `reactor.spawn(future)`"
)]
pub trait Outcome {
    /// Type of the resulting value.
    type Output: 'static;

    /// Returns the result, or the Deferred that will have it.
    fn resolve(self) -> Resolved<Self::Output>;
}

/// A result, or the Deferred that will have it.
#[derive(Debug)]
pub enum Resolved<T: 'static> {
    /// The result is ready.
    Now(Result<T>),
    /// The result will be that of this Deferred.
    Later(Deferred<T>),
}

impl<T: 'static> Outcome for Result<T, Failure> {
    type Output = T;

    fn resolve(self) -> Resolved<T> {
        Resolved::Now(self)
    }
}

impl<T: 'static> Outcome for Deferred<T> {
    type Output = T;

    fn resolve(self) -> Resolved<T> {
        Resolved::Later(self)
    }
}

impl Outcome for () {
    type Output = ();

    fn resolve(self) -> Resolved<()> {
        Resolved::Now(Ok(()))
    }
}

/// An [`Outcome`] whose value is a `T`. An errback of a [`Deferred<T>`](Deferred) returns one,
/// because the chain continues with a `T` in either case.
///
/// ```
/// use ropewalk::{Deferred, Failure};
///
/// let mut answer = Deferred::<u32>::fail("no answer").add_errback(|failure: Failure| {
///     println!("{failure}");
///     Ok(0) // or Err(failure), to pass it on
/// });
/// assert_eq!(answer.take_result().unwrap().unwrap(), 0);
/// ```
#[diagnostic::on_unimplemented(
    message = "an errback of a `Deferred<{T}>` can't return `{Self}`",
    label = "expected a `Result<{T}>` or a `Deferred<{T}>`",
    note = "an errback returns a value in place of the failure, `Ok(value)`, or passes it on, `Err(failure)`",
    note = "if the result is no longer needed: `add_both(|result| ..)`, or `or_log(\"what it does\")`"
)]
pub trait OutcomeOf<T: 'static>: Outcome<Output = T> {}

impl<T: 'static> OutcomeOf<T> for Result<T, Failure> {}

impl<T: 'static> OutcomeOf<T> for Deferred<T> {}

impl OutcomeOf<()> for () {}
