//! Results that arrive later, and the callbacks that process them (Twisted:
//! `twisted.internet.defer.Deferred`).
//!
//! [`Promise`] is the firing side, [`Deferred`] the waiting side. Callbacks are added to the
//! waiting side. Each callback takes the result of the previous one and produces the next. So each
//! addition consumes the Deferred and returns the Deferred of the next result. This module knows
//! nothing of networks or time.
//!
//! A link of a chain is in one of these states:
//!
//! | state | meaning | leaves it when |
//! |---|---|---|
//! | waiting | it has no result yet | the promise is fired, or the previous callback has run |
//! | following | its callback returned a Deferred | that Deferred has its result, which becomes the result of this link |
//! | ready | it has its result, and nothing has consumed it | a callback is added, or the result is awaited or taken |
//! | paused | as *ready*, but the result is held back | every [`Pause`] is dropped |
//! | gone | the result was handed on | never |
//!
//! Rules:
//! 1. A promise is fired once. Firing it again is an error that gives the value back. There is one
//!    exception: after a cancellation without a canceller, one firing is swallowed, because it was
//!    already on its way.
//! 2. Callbacks run at once if the result is ready, otherwise when it arrives, in the order in
//!    which they were added. No callback is entered while another one of the same chain runs.
//! 3. An `Err` or a panic goes to the next errback, a value to the next callback. Each can turn one
//!    into the other.
//! 4. Cancelling goes to the source that the chain waits for: the promise's canceller, or the
//!    Deferred that is followed. A chain that has its result is not affected.
//! 5. A failure that reaches the end of a chain, and is not taken before the last handle is
//!    dropped, is reported once ([`unhandled`]).
//! 6. A promise that is dropped unfired fires with [`Abandoned`].
//! 7. A Deferred that was awaited and is dropped before it has its result is cancelled silently.
//! 8. Running, cancelling and dropping use constant stack space, however long the chain: each link
//!    hands the next one to a loop.

mod chain;
mod list;
mod lock;
mod outcome;
mod promise;
mod queue;
mod spawn;
mod task_table;
mod timeout;
pub mod unhandled;
mod wait_queue;
mod wakes;

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use thiserror::Error;

use self::chain::{ChainSource, Head, Kept, Link, Paused, Taken};
pub use self::list::{
    DeferredList, FailureGroup, FirstError, Listed, NoDeferreds, gather_or_cancel, gather_results, race,
};
pub use self::lock::{DeferredLock, DeferredSemaphore, NoTokens, Permit};
pub use self::outcome::{Outcome, OutcomeOf, Resolved};
pub use self::promise::{Abandoned, AlreadyCalled, Promise};
pub use self::queue::{DeferredQueue, PutError, QueueUnderflow};
pub use self::spawn::Spawner;
pub use self::timeout::TimedOut;
use crate::failure::{Failure, Result, guarded, guarded_result};

/// The waiting side of a result (Twisted: `Deferred`). Not `Send`.
///
/// ```
/// use ropewalk::deferred::Promise;
///
/// let (promise, deferred) = Promise::<u32>::new();
/// let mut answer = deferred
///     .add_callback(|n| Ok(n + 1))
///     .add_callback(|n| if n > 40 { Ok(n) } else { Err("too small".into()) })
///     .add_errback(|_failure| Ok(0));
/// assert!(answer.take_result().is_none());
/// promise.callback(41).unwrap();
/// assert_eq!(answer.take_result().unwrap().unwrap(), 42);
/// ```
#[must_use = "a Deferred that is dropped goes on without you: add an errback, return it, or end with `or_log(\"what it does\")`"]
pub struct Deferred<T: 'static>(DeferredState<T>);

/// State of a Deferred. One that is ready needs no allocation, and neither do the callbacks added
/// to it.
enum DeferredState<T: 'static> {
    Ready(Result<T>, &'static Location<'static>),
    Waiting(Rc<dyn ChainSource<T>>, Weak<dyn Head>),
    Gone,
}

/// A Deferred taken apart: its result, or the source of the result and the head of its chain.
enum Split<T: 'static> {
    Now(Result<T>),
    Later(Rc<dyn ChainSource<T>>, Weak<dyn Head>),
}

impl<T> Deferred<T> {
    /// Creates a Deferred that already has its value (Twisted: `succeed`).
    #[track_caller]
    pub fn succeed(value: T) -> Self {
        Self::with_result(Ok(value))
    }

    /// Creates a Deferred that has already failed (Twisted: `fail`).
    #[track_caller]
    pub fn fail(failure: impl Into<Failure>) -> Self {
        Self::with_result(Err(failure.into()))
    }

    /// Creates a Deferred that already has its result, a value or a failure.
    #[track_caller]
    pub fn with_result(result: Result<T>) -> Self {
        Self(DeferredState::Ready(result, Location::caller()))
    }

    /// Calls `call` with the value; a failure skips it (Twisted: `addCallback`).
    ///
    /// The callback returns a `Result`, another Deferred (the chain waits for its result), or
    /// nothing; see [`Outcome`].
    ///
    /// ```
    /// use ropewalk::deferred::Promise;
    ///
    /// let (promise, length) = Promise::<String>::new();
    /// let mut doubled = length.add_callback(|text| Ok(text.len())).add_callback(|length| Ok(2 * length));
    /// promise.callback("four".to_owned()).unwrap();
    /// assert_eq!(doubled.take_result().unwrap().unwrap(), 8);
    /// ```
    #[track_caller]
    pub fn add_callback<R: Outcome>(self, call: impl FnOnce(T) -> R + 'static) -> Deferred<R::Output> {
        self.add(|result| match result {
            Ok(value) => call(value).resolve(),
            Err(failure) => Resolved::Now(Err(failure)),
        })
    }

    /// Calls `call` with the failure; a value skips it (Twisted: `addErrback`).
    ///
    /// The errback returns a value in place of the failure, or passes a failure on; see
    /// [`OutcomeOf`].
    ///
    /// ```
    /// use ropewalk::Deferred;
    /// use ropewalk::deferred::TimedOut;
    ///
    /// fn or_zero(answer: Deferred<u32>) -> Deferred<u32> {
    ///     answer.add_errback(|failure| match failure.check::<TimedOut>() {
    ///         Some(_) => Ok(0),
    ///         None => Err(failure),
    ///     })
    /// }
    /// let mut answer = or_zero(Deferred::fail("no route"));
    /// assert_eq!(answer.take_result().unwrap().unwrap_err().to_string(), "no route");
    /// ```
    #[track_caller]
    pub fn add_errback<R: OutcomeOf<T>>(self, call: impl FnOnce(Failure) -> R + 'static) -> Self {
        self.add(|result| match result {
            Ok(value) => Resolved::Now(Ok(value)),
            Err(failure) => call(failure).resolve(),
        })
    }

    /// Calls one of the two. `errback` is not called for a failure of `callback` (Twisted:
    /// `addCallbacks`).
    ///
    /// ```
    /// use ropewalk::Deferred;
    ///
    /// let describe = |answer: Deferred<u32>| {
    ///     answer.add_callbacks(|n| Ok(format!("{n} bytes")), |failure| Ok(format!("nothing: {failure}")))
    /// };
    /// let mut texts = [Deferred::succeed(3), Deferred::fail("refused")].map(describe);
    /// assert_eq!(texts[0].take_result().unwrap().unwrap(), "3 bytes");
    /// assert_eq!(texts[1].take_result().unwrap().unwrap(), "nothing: refused");
    /// ```
    #[track_caller]
    pub fn add_callbacks<U, R, S>(
        self,
        callback: impl FnOnce(T) -> R + 'static,
        errback: impl FnOnce(Failure) -> S + 'static,
    ) -> Deferred<U>
    where
        R: Outcome<Output = U>,
        S: OutcomeOf<U>,
    {
        self.add(|result| match result {
            Ok(value) => callback(value).resolve(),
            Err(failure) => errback(failure).resolve(),
        })
    }

    /// Calls `call` with the result, a value or a failure (Twisted: `addBoth`).
    ///
    /// ```
    /// use ropewalk::Deferred;
    ///
    /// let mut worked = Deferred::<u32>::fail("refused").add_both(|result| Ok(result.is_ok()));
    /// assert!(!worked.take_result().unwrap().unwrap());
    /// ```
    #[track_caller]
    pub fn add_both<R: Outcome>(self, call: impl FnOnce(Result<T>) -> R + 'static) -> Deferred<R::Output> {
        self.add(|result| call(result).resolve())
    }

    /// Fires `promise` with the result (Twisted: `chainDeferred`). If the promise was already
    /// fired, a failure is reported as unhandled. A promise that was cancelled without a canceller
    /// swallows the failure.
    #[track_caller]
    pub fn chain_deferred(self, promise: Promise<T>) {
        let end = self.add_both(move |result| match promise.complete(result) {
            Err(AlreadyCalled(Err(failure))) => Err(failure),
            _ => Ok(()),
        });
        drop(end);
    }

    /// Discards a value, and logs a failure as the failure of `what`, with the line of this call.
    /// It ends the chain of an operation that is started and not waited for. A failure collected by
    /// [`unhandled::collect`] has `what` as its [context](Failure::context).
    ///
    /// ```
    /// use ropewalk::endpoints::server_from_string;
    /// use ropewalk::interfaces::*;
    /// # use ropewalk::{Reactor, Result, Transport, for_protocol};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// # let reactor = Reactor::new()?;
    ///
    /// // If the port is taken, the log has:
    /// // "listening failed (failure: cannot listen on ..; place: src/main.rs:12:6)".
    /// server_from_string(&reactor, "tcp:0:interface=127.0.0.1")?
    ///     .listen(for_protocol(|_| Echo))
    ///     .or_log("listening");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn or_log(self, what: &'static str) {
        let place = Location::caller();
        let end = self.add_both(move |result| {
            if let Err(failure) = result {
                unhandled::report_as(what, failure, place);
            }
        });
        drop(end);
    }

    /// Returns `true` if the result is ready and not held back by a [`Pause`] (Twisted: `called`).
    pub fn is_called(&self) -> bool {
        match &self.0 {
            DeferredState::Ready(..) => true,
            DeferredState::Waiting(source, _) => source.place().is_ready(),
            DeferredState::Gone => false,
        }
    }

    /// Takes the result, if it is ready. Afterwards this Deferred never has one again.
    pub fn take_result(&mut self) -> Option<Result<T>> {
        match &self.0 {
            DeferredState::Ready(..) => match mem::replace(&mut self.0, DeferredState::Gone) {
                DeferredState::Ready(result, _) => Some(result),
                DeferredState::Waiting(..) | DeferredState::Gone => None,
            },
            DeferredState::Waiting(source, _) => source.place().take().result(),
            DeferredState::Gone => None,
        }
    }

    /// Gives up on the result (Twisted: `cancel`). Cancellation goes to the source that the chain
    /// waits for. The promise's canceller runs, and if it fires nothing itself, the chain fails
    /// with [`Cancelled`]. A Deferred that is followed is cancelled in turn. A Deferred that has
    /// its result is not affected.
    ///
    /// ```
    /// use ropewalk::deferred::{Cancelled, Promise};
    ///
    /// let (promise, mut answer) = Promise::<u32>::with_canceller(|| println!("the request is withdrawn"));
    /// answer.cancel();
    /// assert!(promise.is_called());
    /// let failure = answer.take_result().unwrap().unwrap_err();
    /// assert!(failure.check::<Cancelled>().is_some());
    /// ```
    pub fn cancel(&self) {
        if let DeferredState::Waiting(_, head) = &self.0
            && let Some(head) = head.upgrade()
        {
            chain::cancel(head);
        }
    }

    /// Returns a handle that cancels this Deferred, for use after callbacks were added to it or it
    /// was handed on.
    ///
    /// ```
    /// use ropewalk::deferred::Promise;
    ///
    /// let (_promise, answer) = Promise::<u32>::new();
    /// let canceller = answer.canceller();
    /// let mut text = answer.add_callback(|n| Ok(n.to_string()));
    /// canceller.cancel();
    /// assert!(text.take_result().unwrap().is_err());
    /// ```
    pub fn canceller(&self) -> Canceller {
        match &self.0 {
            DeferredState::Waiting(_, head) => Canceller(head.clone()),
            DeferredState::Ready(..) | DeferredState::Gone => Canceller(chain::no_head()),
        }
    }

    /// Holds the result back until the [`Pause`] is dropped (Twisted: `pause`, `unpause`). Pauses
    /// add up. Callbacks that were added before still run; those added to the paused Deferred wait.
    pub fn pause(&mut self) -> Pause<T> {
        if let DeferredState::Ready(..) = &self.0
            && let DeferredState::Ready(result, made) = mem::replace(&mut self.0, DeferredState::Gone)
        {
            self.0 = DeferredState::Waiting(Kept::new(result, made), chain::no_head());
        }
        match &mut self.0 {
            DeferredState::Waiting(source, head) => Pause(Some(Paused::new(source, head))),
            DeferredState::Ready(..) | DeferredState::Gone => Pause(None),
        }
    }

    #[track_caller]
    #[inline]
    fn add<U: 'static>(self, call: impl FnOnce(Result<T>) -> Resolved<U> + 'static) -> Deferred<U> {
        let made = Location::caller();
        let result = match self.split() {
            Split::Now(result) => result,
            Split::Later(source, head) => {
                return Deferred(DeferredState::Waiting(Link::behind(source.place(), call, made), head));
            }
        };
        match guarded(|| call(result)) {
            Ok(Resolved::Now(result)) => Deferred(DeferredState::Ready(result, made)),
            Ok(Resolved::Later(inner)) => inner,
            Err(panic) => Deferred(DeferredState::Ready(Err(panic.into()), made)),
        }
    }

    /// Takes out the result, or its source. Always inlined: moving the returned value costs more
    /// than the function itself.
    #[inline(always)]
    fn split(mut self) -> Split<T> {
        match mem::replace(&mut self.0, DeferredState::Gone) {
            DeferredState::Ready(result, _) => Split::Now(result),
            DeferredState::Waiting(source, head) => match source.place().take() {
                Taken::Result(result) => Split::Now(result),
                Taken::NotYet => Split::Later(source, head),
                Taken::Gone => Split::Now(Err(Exhausted.into())),
            },
            DeferredState::Gone => Split::Now(Err(Exhausted.into())),
        }
    }

    /// Slow path of a drop: reports an unhandled failure, or cancels a chain that was awaited.
    #[cold]
    fn abandon(&mut self) {
        match mem::replace(&mut self.0, DeferredState::Gone) {
            DeferredState::Ready(Err(failure), made) => unhandled::report(failure, made),
            DeferredState::Waiting(source, head) if !source.place().has_result() => {
                source.place().give_up();
                if let Some(head) = head.upgrade() {
                    chain::cancel(head);
                }
            }
            DeferredState::Ready(Ok(_), _) | DeferredState::Waiting(..) | DeferredState::Gone => {}
        }
    }
}

impl<T> Future for Deferred<T> {
    type Output = Result<T>;

    /// Returns the result when it is ready. Polled again after that, it fails with [`Exhausted`].
    /// If it is dropped after it was polled and before it was ready, it is cancelled silently,
    /// because the task that awaited it is gone.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if let DeferredState::Waiting(source, _) = &this.0 {
            return match source.place().poll(context) {
                Taken::Result(result) => Poll::Ready(result),
                Taken::NotYet => Poll::Pending,
                Taken::Gone => Poll::Ready(Err(Exhausted.into())),
            };
        }
        Poll::Ready(this.take_result().unwrap_or_else(|| Err(Exhausted.into())))
    }
}

/// The value inside is never pinned.
impl<T> Unpin for Deferred<T> {}

impl<T> Drop for Deferred<T> {
    #[inline]
    fn drop(&mut self) {
        let matters = match &self.0 {
            DeferredState::Ready(result, _) => result.is_err(),
            DeferredState::Waiting(source, _) => source.place().is_awaited(),
            DeferredState::Gone => false,
        };
        if matters {
            self.abandon();
        }
    }
}

impl<T> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("called", &self.is_called()).finish_non_exhaustive()
    }
}

/// Handle that cancels a Deferred from elsewhere. Cheap to clone; keeps nothing alive. Created by
/// [`Deferred::canceller`].
#[derive(Clone)]
pub struct Canceller(Weak<dyn Head>);

impl Canceller {
    /// Returns `true` if there is nothing left to cancel.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// Cancels as [`Deferred::cancel`] does. Does nothing if the Deferred is gone.
    pub fn cancel(&self) {
        if let Some(head) = self.0.upgrade() {
            chain::cancel(head);
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// Holds the result of a Deferred back until it is dropped. Created by [`Deferred::pause`].
pub struct Pause<T: 'static>(#[expect(dead_code, reason = "it is kept to be dropped")] Option<Paused<T>>);

impl<T> fmt::Debug for Pause<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").finish_non_exhaustive()
    }
}

/// Calls `call` now, and turns its outcome, an error or a panic included, into a Deferred (Twisted:
/// `maybeDeferred`).
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

/// Calls `call` now, and turns the result, or the panic, into a Deferred that has it (Twisted:
/// `execute`). It is `maybe_deferred` for functions that know nothing of Deferreds.
///
/// ```
/// let mut number = ropewalk::deferred::execute(|| Ok("12".parse::<u8>()?));
/// assert_eq!(number.take_result().unwrap().unwrap(), 12);
/// ```
#[track_caller]
pub fn execute<T>(call: impl FnOnce() -> Result<T>) -> Deferred<T> {
    Deferred::with_result(guarded_result(call))
}

/// The Deferred was cancelled (Twisted: `CancelledError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operation was cancelled")]
pub struct Cancelled;

/// A callback returned a Deferred of its own chain, which would wait for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a callback returned a Deferred of its own chain, which would wait for itself")]
pub struct Circular;

/// The Deferred was polled again after it had returned its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the result was already taken")]
pub struct Exhausted;
