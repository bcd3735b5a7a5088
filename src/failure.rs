//! [`Failure`]: any error, on its way to the code that handles it (Twisted:
//! `twisted.python.failure.Failure`).
//!
//! The errback side of a [`Deferred`](crate::deferred::Deferred) carries a failure. A protocol
//! returns one to close its connection, and `connection_lost` takes one as the reason. A failure is
//! not an error type of its own: it holds an error, and [`check`](Failure::check) asks for its
//! type.
//!
//! It deliberately does not implement [`std::error::Error`], so that `?` can turn every error type
//! into a failure.

use std::any::{Any, type_name};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::log::error;

/// The result of an operation that can fail for a reason that the caller did not choose.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Any error, cheap to clone and to send to another thread.
///
/// A backtrace is captured if the environment asks for one (`RUST_BACKTRACE`,
/// `RUST_LIB_BACKTRACE`). The reason of a connection's own end has none, because no code in
/// particular caused it.
///
/// ```
/// use ropewalk::Failure;
///
/// fn port(text: &str) -> ropewalk::Result<u16> {
///     Ok(text.parse()?)
/// }
/// let failure: Failure = port("eighty").unwrap_err();
/// assert!(failure.check::<std::num::ParseIntError>().is_some());
/// assert_eq!(failure.to_string(), "invalid digit found in string");
/// ```
///
/// `From` takes every error type, `&str`, `String` and `Box<dyn Error + Send + Sync>`. Text becomes
/// a failure with `into`, and a formatted message with [`bail!`](crate::bail):
///
/// ```
/// use ropewalk::Deferred;
///
/// let mut port = Deferred::succeed("8O").add_callback(|text| match text.parse::<u16>() {
///     Ok(number) => Ok(number),
///     Err(_) => Err("a port is a number".into()),
/// });
/// assert_eq!(port.take_result().unwrap().unwrap_err().to_string(), "a port is a number");
/// ```
#[derive(Clone)]
pub struct Failure(Arc<FailureInner>);

struct FailureInner {
    error: Guarded<Box<dyn Error + Send + Sync>>,
    backtrace: Backtrace,
}

impl Failure {
    /// Wraps an error. `?` and [`From`] do the same.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self::from_box(Box::new(error))
    }

    /// Makes a failure from a message alone, for protocols and scripts whose errors are not matched
    /// on. [`From`] does the same if the type is known. [`bail!`](crate::bail) formats the message
    /// and returns.
    ///
    /// ```
    /// let failure = ropewalk::Failure::message("the peer speaks another language");
    /// assert_eq!(failure.to_string(), "the peer speaks another language");
    /// ```
    pub fn message(message: impl Into<String>) -> Self {
        Self::from_box(message.into().into())
    }

    /// Makes a failure caused by the network or a peer, without a backtrace: there is no code to
    /// trace it to. Such failures are as frequent as connections, and a backtrace costs many times
    /// as much as a connection.
    pub(crate) fn untraced(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(FailureInner { error: Guarded::new(Box::new(error)), backtrace: Backtrace::disabled() }))
    }

    fn from_box(error: Box<dyn Error + Send + Sync>) -> Self {
        Self(Arc::new(FailureInner { error: Guarded::new(error), backtrace: Backtrace::capture() }))
    }

    /// Puts a message in front of the failure, which becomes the source of the new one.
    /// [`check`](Self::check), [`trap`](Self::trap) and [`backtrace`](Self::backtrace) still refer
    /// to the original failure. For a `Result`, use [`Context::context`].
    ///
    /// ```
    /// use ropewalk::{Deferred, Failure};
    ///
    /// let mut order = Deferred::<u32>::fail("no such key")
    ///     .add_errback(|failure: Failure| Err(failure.context("reading the order")));
    /// assert_eq!(order.take_result().unwrap().unwrap_err().to_string(), "reading the order: no such key");
    /// ```
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Self::untraced(InContext { message: message.into(), failure: self })
    }

    /// Returns the error if it is an `E` (Twisted: `Failure.check`). [Context](Self::context) is
    /// skipped.
    pub fn check<E: Error + 'static>(&self) -> Option<&E> {
        self.cause().0.error.downcast_ref()
    }

    /// Returns the failure as `Err` unless it is an `E` (Twisted: `Failure.trap`). Use it as the
    /// first line of a callback that handles one kind of error and passes on the rest.
    ///
    /// ```
    /// use ropewalk::Failure;
    /// use std::num::ParseIntError;
    ///
    /// fn or_zero(failure: Failure) -> ropewalk::Result<u16> {
    ///     failure.trap::<ParseIntError>()?;
    ///     Ok(0)
    /// }
    /// assert_eq!(or_zero("x".parse::<u16>().unwrap_err().into()).unwrap(), 0);
    /// assert!(or_zero(Failure::message("something else")).is_err());
    /// ```
    pub fn trap<E: Error + 'static>(self) -> Result<Self> {
        if self.check::<E>().is_some() { Ok(self) } else { Err(self) }
    }

    /// Returns the error itself, for its source chain.
    ///
    /// ```
    /// let failure = ropewalk::Failure::message("broken");
    /// assert!(failure.error().source().is_none());
    /// ```
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &**self.0.error
    }

    /// Returns the backtrace of the place where the failure was made, if the environment asked for
    /// backtraces.
    pub fn backtrace(&self) -> Option<&Backtrace> {
        let backtrace = &self.cause().0.backtrace;
        (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace)
    }

    /// Returns the failure without its context.
    fn cause(&self) -> &Self {
        let mut cause = self;
        while let Some(inner) = cause.0.error.downcast_ref::<InContext>() {
            cause = &inner.failure;
        }
        cause
    }
}

/// Puts a message in front of the failure of a `Result`, or makes a failure of a `None`.
///
/// ```
/// use ropewalk::Result;
/// use ropewalk::failure::Context;
///
/// fn port(text: &str) -> Result<u16> {
///     text.parse().context("reading the port")
/// }
/// let failure = port("eighty").unwrap_err();
/// assert_eq!(failure.to_string(), "reading the port: invalid digit found in string");
/// assert!(failure.check::<std::num::ParseIntError>().is_some());
/// assert_eq!(None::<u16>.context("no port was given").unwrap_err().to_string(), "no port was given");
/// ```
pub trait Context<T> {
    /// Turns an `Err` into a [`Failure`] with `message` in front (see [`Failure::context`]), or a
    /// `None` into a failure with `message` alone.
    ///
    /// # Errors
    /// Returns that failure.
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(message))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Failure::message(message))
    }
}

/// Returns a [`Failure`] from the enclosing function or callback, with a message formatted as by
/// [`format!`].
///
/// ```
/// use ropewalk::{Protocol, Result, Transport, bail};
///
/// struct Greeted;
///
/// impl Protocol for Greeted {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         if !data.starts_with(b"hello") {
///             bail!("{} does not greet", transport.peer());
///         }
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::std::result::Result::Err($crate::failure::Failure::message(::std::format!($($message)+)))
    };
}

impl fmt::Display for Failure {
    /// Writes the error, and after a colon each of its sources that adds to the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.error.to_string();
        f.write_str(&said)?;
        let mut source = self.0.error.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    /// Writes the same text as [`Display`](fmt::Display), and the backtrace if there is one. A
    /// `main` that returns a failure prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match self.backtrace() {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// Converts every error type, `&str`, `String`, and a boxed error, which is not boxed again.
///
/// One implementation serves them all. Beside an implementation for `E: Error`, the language allows
/// none for `&str` or `String`, because a later standard library could make errors of them.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::from_box(error.into())
    }
}

/// A failure with a message in front of it.
#[derive(Debug)]
struct InContext {
    message: String,
    failure: Failure,
}

impl fmt::Display for InContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for InContext {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.failure.error())
    }
}

/// A callback panicked. The panic was caught and turned into this error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a callback panicked: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// The message of the panic, or `no message` if its payload is not text.
    pub message: String,
}

/// Runs a callback of the program. A panic becomes an error.
///
/// Unwind safety is asserted: the values that the callback had access to are either dropped
/// afterwards, or reached again only through the same guarded calls.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(panicked)
}

/// Does the same as [`guarded`] for a callback that can return a failure of its own.
#[inline]
pub(crate) fn guarded_result<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded(call)?
}

/// Drops a value of the program. A panic of its `Drop` is logged and goes no further. `what` names
/// the value.
pub(crate) fn drop_guarded<T>(what: &'static str, value: T) {
    if let Err(panic) = guarded(|| drop(value)) {
        drop_panicked(what, &panic);
    }
}

/// Logs the panic of a drop. It is compiled once, and not for each type.
#[cold]
fn drop_panicked(what: &str, panic: &Panicked) {
    error!(%panic, "{what} panicked when it was dropped");
}

/// A value of the program whose drop is guarded, wherever it happens.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is taken only by `Drop`")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the value is taken only by `Drop`")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        drop_guarded(type_name::<T>(), self.0.take());
    }
}

/// Turns the payload of a panic into an error. The drop of the payload is guarded too, because its
/// `Drop` is the program's.
fn panicked(payload: Box<dyn Any + Send>) -> Panicked {
    let message = match payload.downcast_ref::<&'static str>() {
        Some(text) => (*text).to_owned(),
        None => payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_owned()),
    };
    if let Err(second) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Panicked { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    fn parse_error() -> std::num::ParseIntError {
        "x".parse::<u8>().unwrap_err()
    }

    #[test]
    fn display_walks_the_source_chain() {
        let failure = Failure::new(Outer(parse_error()));
        assert_eq!(failure.to_string(), "outer: invalid digit found in string");
    }

    /// Text becomes a failure, and a boxed error becomes a failure with the error in the box.
    #[test]
    fn text_and_boxed_errors_become_failures() {
        let text: [Failure; 2] = ["bad".into(), format!("b{}", "ad").into()];
        assert!(text.iter().all(|failure| failure.to_string() == "bad"));
        let boxed: Box<dyn Error + Send + Sync> = Box::new(parse_error());
        assert!(Failure::from(boxed).check::<std::num::ParseIntError>().is_some());
    }

    /// Context is printed in front, and hides neither the type, nor the sources, nor the backtrace.
    #[test]
    fn context_stands_in_front_and_is_looked_through() {
        let plain = Failure::new(Outer(parse_error()));
        let failure =
            Err::<(), _>(plain.clone()).context("reading a field").context(format!("line {}", 7)).unwrap_err();
        assert_eq!(failure.to_string(), "line 7: reading a field: outer: invalid digit found in string");
        assert!(failure.check::<Outer>().is_some());
        assert_eq!(failure.backtrace().is_some(), plain.backtrace().is_some());
        let sources = std::iter::successors(failure.error().source(), |&error| error.source()).count();
        assert_eq!(sources, 3);
        assert!(failure.clone().trap::<Outer>().is_ok_and(|kept| kept.to_string() == failure.to_string()));
        assert!(failure.trap::<Panicked>().is_err());
    }

    /// `bail!` formats its message, and returns from a closure as it does from a function.
    #[test]
    fn bail_returns_a_message() {
        let check = |number: u8| {
            if number > 3 {
                bail!("{number} is too {}", "large");
            }
            Ok(number)
        };
        assert_eq!(check(3).unwrap(), 3);
        assert_eq!(check(4).unwrap_err().to_string(), "4 is too large");
    }

    #[test]
    fn a_panic_becomes_a_failure_with_its_message() {
        let failure = guarded_result::<()>(|| panic!("seven of {}", 9)).unwrap_err();
        assert_eq!(failure.check::<Panicked>().unwrap().message, "seven of 9");
    }

    #[test]
    fn a_panic_payload_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let failure = guarded(|| std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(failure.message, "no message");
    }
}
