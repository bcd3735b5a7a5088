//! What a callback may return.

use super::Deferred;
use crate::failure::{Failure, Result};

/// What a callback of a [`Deferred`] may return: a `Result`, another `Deferred`, or nothing (Twisted: a value, an exception,
/// or a Deferred).
pub trait Outcome {
    /// The type of the value that comes of it.
    type Output: 'static;

    /// The result, or where it will come from.
    fn resolve(self) -> Resolved<Self::Output>;
}

/// A result, or where it will come from.
#[derive(Debug)]
pub enum Resolved<T: 'static> {
    /// It is there.
    Now(Result<T>),
    /// It will be that Deferred's.
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
