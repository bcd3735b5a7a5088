//! A result that is not there yet, and what is to be done with it (Twisted: `twisted.internet.defer.Deferred`).
//!
//! [`Promise`] is the firing side, [`Deferred`] the waiting side. Callbacks are added to the waiting side; each takes the
//! result of the one before and makes the next, so each addition consumes the Deferred and gives that of the next result.
//! This room knows nothing of networks or time.
//!
//! A link of a chain is in one of these states:
//!
//! | state | means | goes on when |
//! |---|---|---|
//! | waiting | no result yet | the promise is fired, or the callback before it has run |
//! | following | its callback returned a Deferred | that has its result, which becomes this one's |
//! | there | it has its result, and nobody has asked for it | a callback is added, it is awaited, or taken |
//! | paused | as *there*, but kept back | every [`Pause`] is gone |
//! | gone | the result went on | never |
//!
//! Rules:
//! 1. A promise is fired once. Firing it again is an error that gives the value back; except that after a cancel without a
//!    canceller one firing is swallowed, for it was already on its way.
//! 2. Callbacks run at once if the result is there, otherwise when it comes, in the order in which they were added. None is
//!    entered while another of the same chain runs.
//! 3. An `Err` or a panic goes on to the next errback, a value to the next callback; each can turn one into the other.
//! 4. Cancelling goes to what is being waited for: the promise's canceller, or the Deferred that is followed. A chain that has
//!    its result is not affected.
//! 5. A failure that reaches the end, and that nobody took before the last handle went, is reported once ([`unhandled`]).
//! 6. A promise that is dropped unfired fires with [`Abandoned`].
//! 7. Running, cancelling and dropping take no stack, however long the chain: one link hands the next to a loop.

mod chain;
mod outcome;
pub mod unhandled;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use thiserror::Error;

use self::chain::{Cancel, Fired, Link, Root, Source, Taken};
pub use self::outcome::{Outcome, Resolved};
use crate::failure::{Failure, Result, guarded};

/// The waiting side of a result (Twisted: `Deferred`). Not `Send`.
///
/// ```
/// use ropewalk::deferred::Promise;
///
/// let (promise, deferred) = Promise::<u32>::new();
/// let mut answer = deferred
///     .add_callback(|n| Ok(n + 1))
///     .add_callback(|n| if n > 40 { Ok(n) } else { Err(ropewalk::Failure::message("too small")) })
///     .add_errback(|_failure| Ok(0));
/// assert!(answer.take_result().is_none());
/// promise.callback(41).unwrap();
/// assert_eq!(answer.take_result().unwrap().unwrap(), 42);
/// ```
#[must_use = "a Deferred that is dropped goes on without you: its failure is only reported in the log"]
pub struct Deferred<T: 'static>(Rc<dyn Source<T>>);

impl<T> Deferred<T> {
    /// One that has its value (Twisted: `succeed`).
    #[track_caller]
    pub fn succeed(value: T) -> Self {
        Self::with_result(Ok(value))
    }

    /// One that has failed (Twisted: `fail`).
    #[track_caller]
    pub fn fail(failure: impl Into<Failure>) -> Self {
        Self::with_result(Err(failure.into()))
    }

    /// One that has its result.
    #[track_caller]
    pub fn with_result(result: Result<T>) -> Self {
        Self(Root::settled(result, Location::caller()))
    }

    /// Has `call` called with the value; a failure passes by (Twisted: `addCallback`).
    ///
    /// It returns a `Result`, another Deferred (whose result is waited for), or nothing; see [`Outcome`].
    #[track_caller]
    pub fn add_callback<R: Outcome>(self, call: impl FnOnce(T) -> R + 'static) -> Deferred<R::Output> {
        self.add(|result| match result {
            Ok(value) => call(value).resolve(),
            Err(failure) => Resolved::Now(Err(failure)),
        })
    }

    /// Has `call` called with the failure; a value passes by (Twisted: `addErrback`).
    #[track_caller]
    pub fn add_errback<R: Outcome<Output = T>>(self, call: impl FnOnce(Failure) -> R + 'static) -> Self {
        self.add(|result| match result {
            Ok(value) => Resolved::Now(Ok(value)),
            Err(failure) => call(failure).resolve(),
        })
    }

    /// Has one of the two called, and not the second for a failure of the first (Twisted: `addCallbacks`).
    #[track_caller]
    pub fn add_callbacks<U, R, S>(
        self,
        callback: impl FnOnce(T) -> R + 'static,
        errback: impl FnOnce(Failure) -> S + 'static,
    ) -> Deferred<U>
    where
        R: Outcome<Output = U>,
        S: Outcome<Output = U>,
    {
        self.add(|result| match result {
            Ok(value) => callback(value).resolve(),
            Err(failure) => errback(failure).resolve(),
        })
    }

    /// Has `call` called with the result, whatever it is (Twisted: `addBoth`).
    #[track_caller]
    pub fn add_both<R: Outcome>(self, call: impl FnOnce(Result<T>) -> R + 'static) -> Deferred<R::Output> {
        self.add(|result| call(result).resolve())
    }

    /// Fires `promise` with the result (Twisted: `chainDeferred`).
    #[track_caller]
    pub fn chain(self, promise: Promise<T>) {
        let end = self.add_both(move |result| {
            // Whoever fired it meanwhile, or cancelled it, was first.
            let _ = promise.complete(result);
        });
        drop(end);
    }

    /// Whether the result is there (Twisted: `called`).
    pub fn is_called(&self) -> bool {
        self.0.place().is_there()
    }

    /// The result, if it is there. Afterwards this Deferred never has one again.
    pub fn take_result(&mut self) -> Option<Result<T>> {
        self.0.place().take()
    }

    /// Gives up on the result (Twisted: `cancel`). What is being waited for is told: the promise's canceller runs, and if it
    /// fires nothing itself, the chain fails with [`Cancelled`]; a Deferred that is followed is cancelled in turn. A Deferred
    /// that has its result is not affected.
    pub fn cancel(&self) {
        chain::cancel(Rc::clone(&self.0).into_cancel());
    }

    /// What cancels this Deferred after callbacks were added to it, or it was handed on.
    pub fn canceller(&self) -> Canceller {
        Canceller(Rc::downgrade(&Rc::clone(&self.0).into_cancel()))
    }

    /// Keeps the result back until the [`Pause`] is dropped (Twisted: `pause`, `unpause`). Pauses add up. Callbacks added
    /// before run on; those added to what is paused wait.
    pub fn pause(&self) -> Pause<T> {
        self.0.place().pause();
        Pause(Rc::clone(&self.0))
    }

    #[track_caller]
    fn add<U: 'static>(self, call: impl FnOnce(Result<T>) -> Resolved<U> + 'static) -> Deferred<U> {
        let place = Location::caller();
        if let Some(result) = self.0.place().take() {
            return match guarded(|| call(result)) {
                Ok(Resolved::Now(result)) => Deferred(Root::settled(result, place)),
                Ok(Resolved::Later(inner)) => inner,
                Err(panic) => Deferred(Root::settled(Err(panic.into()), place)),
            };
        }
        let link = Link::new(call, Rc::downgrade(&Rc::clone(&self.0).into_cancel()), place);
        self.0.place().hand_on_to(Rc::clone(&link));
        Deferred(link)
    }
}

impl<T> Future for Deferred<T> {
    type Output = Result<T>;

    /// Ready with the result. Polled again after that, it fails with [`Exhausted`].
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.0.place().poll(context) {
            Taken::Result(result) => Poll::Ready(result),
            Taken::NotYet => Poll::Pending,
            Taken::Gone => Poll::Ready(Err(Exhausted.into())),
        }
    }
}

impl<T> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("called", &self.is_called()).finish_non_exhaustive()
    }
}

/// The firing side of a result (Twisted: `Deferred.callback`, `errback`). Not `Send`. Dropped unfired, it fires with
/// [`Abandoned`].
pub struct Promise<T: 'static>(Rc<Root<T>>);

impl<T> Promise<T> {
    /// A promise, and the Deferred that waits for it.
    #[track_caller]
    pub fn new() -> (Self, Deferred<T>) {
        Self::of(Root::waiting(None, Location::caller()))
    }

    /// A promise whose work can be given up: `canceller` is called, once, when the Deferred is cancelled before it was fired.
    /// It may fire the promise itself; if it does not, the Deferred fails with [`Cancelled`].
    #[track_caller]
    pub fn with_canceller(canceller: impl FnOnce() + 'static) -> (Self, Deferred<T>) {
        Self::of(Root::waiting(Some(Box::new(canceller)), Location::caller()))
    }

    fn of(root: Rc<Root<T>>) -> (Self, Deferred<T>) {
        (Self(Rc::clone(&root)), Deferred(root))
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

    /// Fires with either.
    ///
    /// # Errors
    /// [`AlreadyCalled`] gives the result back.
    pub fn complete(&self, result: Result<T>) -> Result<(), AlreadyCalled<Result<T>>> {
        match self.fire(result) {
            Fired::Now | Fired::Swallowed => Ok(()),
            Fired::Before(result) => Err(AlreadyCalled(result)),
        }
    }

    /// Whether it was fired or cancelled.
    pub fn is_called(&self) -> bool {
        self.0.is_called()
    }

    fn fire(&self, result: Result<T>) -> Fired<T> {
        chain::fire(&self.0, result)
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

/// Cancels a Deferred that is elsewhere. Cheap to clone; keeps nothing alive. From [`Deferred::canceller`].
#[derive(Clone)]
pub struct Canceller(Weak<dyn Cancel>);

impl Canceller {
    /// As [`Deferred::cancel`]. Nothing happens if the Deferred is gone.
    pub fn cancel(&self) {
        if let Some(link) = self.0.upgrade() {
            chain::cancel(link);
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// Keeps the result of a Deferred back until it is dropped. From [`Deferred::pause`].
pub struct Pause<T: 'static>(Rc<dyn Source<T>>);

impl<T> Drop for Pause<T> {
    fn drop(&mut self) {
        chain::unpause(&self.0);
    }
}

impl<T> fmt::Debug for Pause<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").finish_non_exhaustive()
    }
}

/// Calls `call` now, and turns whatever it returns, an error or a panic too, into a Deferred (Twisted: `maybeDeferred`,
/// `execute`).
///
/// ```
/// let mut deferred = ropewalk::deferred::maybe_deferred(|| -> ropewalk::Result<u8> { panic!("oh") });
/// assert!(deferred.take_result().unwrap().is_err());
/// ```
#[track_caller]
pub fn maybe_deferred<R: Outcome>(call: impl FnOnce() -> R) -> Deferred<R::Output> {
    match guarded(|| call().resolve()) {
        Ok(Resolved::Now(result)) => Deferred::with_result(result),
        Ok(Resolved::Later(deferred)) => deferred,
        Err(panic) => Deferred::fail(panic),
    }
}

/// The promise was fired before (Twisted: `AlreadyCalledError`). Holds what was not fired.
#[derive(Error)]
#[error("the promise was already fired")]
pub struct AlreadyCalled<T>(pub T);

impl<T> fmt::Debug for AlreadyCalled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlreadyCalled")
    }
}

/// The Deferred was cancelled (Twisted: `CancelledError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operation was cancelled")]
pub struct Cancelled;

/// The promise was dropped before it was fired: whoever was to have the result is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operation was abandoned: its promise was dropped before it was fired")]
pub struct Abandoned;

/// The Deferred was polled again after it had given its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the result was taken before")]
pub struct Exhausted;
