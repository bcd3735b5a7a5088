//! [`Promise`]: the firing side.

use std::fmt;
use std::panic::Location;
use std::rc::{Rc, Weak};

use thiserror::Error;

use super::chain::{Fired, Root};
use super::{Deferred, DeferredState};
use crate::failure::{Failure, Result};

/// The firing side of a result (Twisted: `Deferred.callback`, `errback`). Not `Send`. A promise
/// that is dropped unfired fires with [`Abandoned`].
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::deferred::Promise;
///
/// /// Answers requests in the order in which they were sent.
/// #[derive(Default)]
/// struct Client {
///     requests: std::collections::VecDeque<Promise<String>>,
/// }
///
/// impl Client {
///     fn request(&mut self) -> Deferred<String> {
///         let (promise, answer) = Promise::new();
///         self.requests.push_back(promise);
///         answer
///     }
///
///     fn answer_received(&mut self, line: &str) {
///         if let Some(promise) = self.requests.pop_front() {
///             promise.callback(line.to_owned()).expect("a promise in the queue is unfired");
///         }
///     }
/// }
///
/// let mut client = Client::default();
/// let mut answer = client.request();
/// client.answer_received("PONG");
/// assert_eq!(answer.take_result().unwrap().unwrap(), "PONG");
/// ```
pub struct Promise<T: 'static>(Rc<Root<T>>);

impl<T> Promise<T> {
    /// Creates a promise, and the Deferred that waits for it.
    #[track_caller]
    pub fn new() -> (Self, Deferred<T>) {
        Self::of(Root::new(None, Location::caller()))
    }

    /// Creates a promise for an operation that can be given up. `canceller` is called once, when
    /// the Deferred is cancelled before the promise was fired. It may fire the promise itself; if
    /// it does not, the Deferred fails with [`Cancelled`](super::Cancelled).
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use ropewalk::deferred::Promise;
    ///
    /// let withdrawn = Rc::new(Cell::new(false));
    /// let flag = Rc::clone(&withdrawn);
    /// let (promise, mut answer) = Promise::<u32>::with_canceller(move || flag.set(true));
    /// answer.cancel();
    /// assert!(withdrawn.get() && promise.is_called());
    /// assert!(answer.take_result().unwrap().is_err());
    /// ```
    #[track_caller]
    pub fn with_canceller(canceller: impl FnOnce() + 'static) -> (Self, Deferred<T>) {
        Self::of(Root::new(Some(Box::new(canceller)), Location::caller()))
    }

    fn of(root: Rc<Root<T>>) -> (Self, Deferred<T>) {
        let head: Weak<Root<T>> = Rc::downgrade(&root);
        (Self(Rc::clone(&root)), Deferred(DeferredState::Waiting(root, head)))
    }

    /// Fires with a value (Twisted: `callback`). Callbacks run before this returns.
    ///
    /// # Errors
    /// [`AlreadyCalled`] gives the value back.
    pub fn callback(&self, value: T) -> Result<(), AlreadyCalled<T>> {
        match self.fire(Ok(value)) {
            Fired::Now | Fired::Swallowed => Ok(()),
            Fired::Before(Ok(value)) => Err(AlreadyCalled(value)),
            Fired::Before(Err(_)) => unreachable!("a value was fired"),
        }
    }

    /// Fires with a failure (Twisted: `errback`). Errbacks run before this returns.
    ///
    /// # Errors
    /// [`AlreadyCalled`] gives the failure back.
    pub fn errback(&self, failure: impl Into<Failure>) -> Result<(), AlreadyCalled<Failure>> {
        match self.fire(Err(failure.into())) {
            Fired::Now | Fired::Swallowed => Ok(()),
            Fired::Before(Err(failure)) => Err(AlreadyCalled(failure)),
            Fired::Before(Ok(_)) => unreachable!("a failure was fired"),
        }
    }

    /// Fires with a result, a value or a failure.
    ///
    /// # Errors
    /// [`AlreadyCalled`] gives the result back.
    pub fn complete(&self, result: Result<T>) -> Result<(), AlreadyCalled<Result<T>>> {
        match self.fire(result) {
            Fired::Now | Fired::Swallowed => Ok(()),
            Fired::Before(result) => Err(AlreadyCalled(result)),
        }
    }

    /// Returns `true` if the promise was fired or cancelled.
    pub fn is_called(&self) -> bool {
        self.0.is_called()
    }

    fn fire(&self, result: Result<T>) -> Fired<T> {
        self.0.fire(result)
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if !self.0.is_called() {
            self.fire(Err(Abandoned.into()));
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("called", &self.is_called()).finish_non_exhaustive()
    }
}

/// The promise was already fired (Twisted: `AlreadyCalledError`). Holds the value, failure or
/// result that was refused.
#[derive(Error)]
#[error("the promise was already fired")]
pub struct AlreadyCalled<T>(pub T);

impl<T> fmt::Debug for AlreadyCalled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlreadyCalled")
    }
}

/// The promise was dropped before it was fired: the operation that would have fired it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operation was abandoned: its promise was dropped before it was fired")]
pub struct Abandoned;
