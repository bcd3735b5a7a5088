//! [`Failure`]: any error, on its way to whoever asked (Twisted: `twisted.python.failure.Failure`).
//!
//! A failure is what the errback side of a [`Deferred`](crate::deferred::Deferred) carries, what a protocol returns
//! to close its connection, and the reason that `connection_lost` is given. It is not an error type of its own:
//! it holds one, and [`check`](Failure::check) asks which.
//!
//! It deliberately does not implement [`std::error::Error`], so that `?` can turn every error type into a failure.

use std::any::{Any, type_name};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::log::error;

/// The result of everything that can fail for a reason the caller did not choose.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Any error, cheap to clone and to send to another thread.
///
/// A backtrace is captured where the environment asks for one (`RUST_BACKTRACE`, `RUST_LIB_BACKTRACE`), except for what a connection
/// is told of its own end, which was done by no code in particular.
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
#[derive(Clone)]
pub struct Failure(Arc<Inner>);

struct Inner {
    error: Guarded<Box<dyn Error + Send + Sync>>,
    backtrace: Backtrace,
}

impl Failure {
    /// Wraps an error. `?` and [`From`] do the same.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self::from_box(Box::new(error))
    }

    /// A failure with nothing but a message, for protocols and scripts that nobody matches on.
    ///
    /// ```
    /// let failure = ropewalk::Failure::message("the peer speaks another language");
    /// assert_eq!(failure.to_string(), "the peer speaks another language");
    /// ```
    pub fn message(message: impl Into<String>) -> Self {
        Self::from_box(message.into().into())
    }

    /// A failure that the network or a peer has brought about, which no code is to be traced for. It is as frequent as connections
    /// are, and a backtrace costs many times what a connection does.
    pub(crate) fn untraced(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { error: Guarded::new(Box::new(error)), backtrace: Backtrace::disabled() }))
    }

    fn from_box(error: Box<dyn Error + Send + Sync>) -> Self {
        Self(Arc::new(Inner { error: Guarded::new(error), backtrace: Backtrace::capture() }))
    }

    /// The error, if it is an `E` (Twisted: `Failure.check`).
    pub fn check<E: Error + 'static>(&self) -> Option<&E> {
        self.0.error.downcast_ref()
    }

    /// Gives the failure back as `Err` unless it is an `E` (Twisted: `Failure.trap`): the first line of a callback that
    /// handles one kind of error and passes on the rest.
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
        if self.0.error.is::<E>() { Ok(self) } else { Err(self) }
    }

    /// The error itself, for its source chain.
    ///
    /// ```
    /// let failure = ropewalk::Failure::message("broken");
    /// assert!(failure.error().source().is_none());
    /// ```
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &**self.0.error
    }

    /// Where the failure was made, if the environment asked for backtraces.
    pub fn backtrace(&self) -> Option<&Backtrace> {
        (self.0.backtrace.status() == BacktraceStatus::Captured).then_some(&self.0.backtrace)
    }
}

impl fmt::Display for Failure {
    /// The error, and after a colon each of its sources that says more.
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
    /// What [`Display`](fmt::Display) says, and the backtrace if there is one: what a `main` that returns a failure prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match self.backtrace() {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// A callback panicked. The panic was caught, and became this error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a callback panicked: {message}")]
pub struct Panicked {
    /// What the panic said, where it said anything.
    pub message: String,
}

/// Runs a call-out to code that is not ours; a panic becomes an error.
///
/// Unwind safety is asserted: what the callback was handed is either dropped afterwards or only ever reached again
/// through the same guarded calls.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(panicked)
}

/// As [`guarded`], where the call has a failure of its own to give.
pub(crate) fn guarded_result<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded(call)?
}

/// Drops a value of the program's. A panic of its `Drop` is logged and goes no further; `what` names the value.
pub(crate) fn drop_guarded<T>(what: &'static str, value: T) {
    if let Err(panic) = guarded(|| drop(value)) {
        error!(%panic, "{what} panicked when it was dropped");
    }
}

/// A value of the program's that is dropped guarded, wherever that is.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is there until this is dropped")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the value is there until this is dropped")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        drop_guarded(type_name::<T>(), self.0.take());
    }
}

/// Turns what `catch_unwind` caught into an error. The payload is dropped guarded too: its `Drop` is not ours either.
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
