//! Waiting for many Deferreds at once (Twisted: `DeferredList`, `gatherResults`, `race`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::{Canceller, Deferred, Promise};
use crate::failure::{Failure, Result};

/// Waits for many Deferreds (Twisted: `DeferredList`). Flags select which other results end the
/// wait.
///
/// Cancelling the resulting Deferred cancels every Deferred that has no result yet.
///
/// ```
/// use ropewalk::deferred::{DeferredList, Listed};
/// use ropewalk::Deferred;
///
/// let both = [Deferred::succeed(1), Deferred::fail("no")];
/// let mut list = DeferredList::new(both).into_deferred();
/// let Listed::All(results) = list.take_result().unwrap().unwrap() else { unreachable!("no flag was set") };
/// assert_eq!(*results[0].as_ref().unwrap(), 1);
/// assert_eq!(results[1].as_ref().unwrap_err().to_string(), "no");
/// ```
#[derive(Debug)]
#[must_use = "it waits for nothing until it is turned into a Deferred"]
pub struct DeferredList<T: 'static> {
    deferreds: Vec<Deferred<T>>,
    flags: ListFlags,
}

#[derive(Debug, Clone, Copy, Default)]
struct ListFlags {
    fire_on_one_callback: bool,
    fire_on_one_errback: bool,
    consume_errors: bool,
}

/// Result of a [`DeferredList`].
#[derive(Debug)]
pub enum Listed<T> {
    /// Every result, in the order of the Deferreds.
    All(Vec<Result<T>>),
    /// The first value, for a list that fires on one callback.
    First {
        /// The value.
        value: T,
        /// Index of the Deferred it came from.
        index: usize,
    },
}

impl<T> DeferredList<T> {
    /// Creates a list without flags: it waits for every result, and does not fail.
    pub fn new(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Self {
        Self { deferreds: deferreds.into_iter().collect(), flags: ListFlags::default() }
    }

    /// If `yes`, the first value ends the wait, and the result is [`Listed::First`] (Twisted:
    /// `fireOnOneCallback`).
    pub fn fire_on_one_callback(mut self, yes: bool) -> Self {
        self.flags.fire_on_one_callback = yes;
        self
    }

    /// If `yes`, the first failure ends the wait, and the list fails with [`FirstError`] (Twisted:
    /// `fireOnOneErrback`).
    pub fn fire_on_one_errback(mut self, yes: bool) -> Self {
        self.flags.fire_on_one_errback = yes;
        self
    }

    /// If `yes`, failures that arrive after the end of the wait are dropped. Otherwise they are
    /// reported as unhandled (Twisted: `consumeErrors`, which there concerns every failure; here
    /// failures that are part of the result are left to the caller).
    pub fn consume_errors(mut self, yes: bool) -> Self {
        self.flags.consume_errors = yes;
        self
    }

    /// Starts to wait.
    #[track_caller]
    pub fn into_deferred(self) -> Deferred<Listed<T>> {
        let flags = self.flags;
        if self.deferreds.is_empty() && flags.fire_on_one_callback {
            return Deferred::fail(NoDeferreds);
        }
        let judge = move |index, result| match result {
            Ok(value) if flags.fire_on_one_callback => Verdict::End(Ok(Listed::First { value, index })),
            Err(failure) if flags.fire_on_one_errback => Verdict::End(Err(FirstError { index, failure }.into())),
            result => Verdict::Keep(result),
        };
        Many { judge, all: |results| Ok(Listed::All(results)), quiet: flags.consume_errors, cancel_rest: false }
            .wait_for(self.deferreds)
    }
}

/// Collects the values of all Deferreds, in their order (Twisted: `gatherResults`). The first
/// failure ends the wait, with [`FirstError`]. Later failures are reported as unhandled;
/// [`gather_or_cancel`] cancels the remaining Deferreds instead. Cancelling the result cancels all.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::deferred::gather_results;
///
/// let mut all = gather_results([Deferred::succeed(1), Deferred::succeed(2)]);
/// assert_eq!(all.take_result().unwrap().unwrap(), [1, 2]);
/// ```
#[track_caller]
pub fn gather_results<T>(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Deferred<Vec<T>> {
    gather(deferreds, false)
}

/// Collects values as [`gather_results`] does, and leaves no operation running. The first failure
/// cancels the Deferreds that have no result yet, and their results are dropped. After that the
/// result fails with [`FirstError`]. (Twisted's `gatherResults` cancels none.)
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::deferred::{FirstError, Promise, gather_or_cancel};
///
/// let (slow, answer) = Promise::<u8>::new();
/// let mut all = gather_or_cancel([answer, Deferred::fail("no")]);
/// assert!(slow.is_called(), "it was cancelled");
/// let failure = all.take_result().unwrap().unwrap_err();
/// assert_eq!(failure.check::<FirstError>().unwrap().index, 1);
/// ```
#[track_caller]
pub fn gather_or_cancel<T>(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Deferred<Vec<T>> {
    gather(deferreds, true)
}

#[track_caller]
fn gather<T>(deferreds: impl IntoIterator<Item = Deferred<T>>, cancel_rest: bool) -> Deferred<Vec<T>> {
    let judge = |index, result| match result {
        Err(failure) => Verdict::End(Err(FirstError { index, failure }.into())),
        result => Verdict::Keep(result),
    };
    let all = |results: Vec<Result<T>>| results.into_iter().collect();
    Many { judge, all, quiet: cancel_rest, cancel_rest }.wait_for(deferreds.into_iter().collect())
}

/// Returns the first value, and the index of its Deferred (Twisted: `race`). The other Deferreds
/// are cancelled, and their results are dropped. If all fail, the race fails with [`FailureGroup`];
/// without any Deferred, it fails with [`NoDeferreds`]. Cancelling the result cancels all.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::deferred::{Promise, race};
///
/// let (slow, answer) = Promise::<&str>::new();
/// let mut first = race([answer, Deferred::succeed("fast")]);
/// assert_eq!(first.take_result().unwrap().unwrap(), (1, "fast"));
/// assert!(slow.is_called(), "it was cancelled");
/// ```
#[track_caller]
pub fn race<T>(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Deferred<(usize, T)> {
    let deferreds: Vec<_> = deferreds.into_iter().collect();
    if deferreds.is_empty() {
        return Deferred::fail(NoDeferreds);
    }
    let judge = |index, result| match result {
        Ok(value) => Verdict::End(Ok((index, value))),
        failed => Verdict::Keep(failed),
    };
    let all = |results: Vec<Result<T>>| {
        Err(FailureGroup { failures: results.into_iter().filter_map(Result::err).collect() }.into())
    };
    Many { judge, all, quiet: true, cancel_rest: true }.wait_for(deferreds)
}

/// The rules by which many results become one.
struct Many<J, A> {
    /// Decides for each result if it ends the wait.
    judge: J,
    /// Makes the final result once every result was kept.
    all: A,
    /// Late failures are dropped.
    quiet: bool,
    /// The end of the wait cancels the Deferreds that have no result yet.
    cancel_rest: bool,
}

enum Verdict<T, R> {
    Keep(Result<T>),
    End(Result<R>),
}

impl<J, A> Many<J, A> {
    #[track_caller]
    fn wait_for<T: 'static, R: 'static>(self, deferreds: Vec<Deferred<T>>) -> Deferred<R>
    where
        J: Fn(usize, Result<T>) -> Verdict<T, R> + 'static,
        A: Fn(Vec<Result<T>>) -> Result<R> + 'static,
    {
        if deferreds.is_empty() {
            return Deferred::with_result((self.all)(Vec::new()));
        }
        let cancellers = deferreds.iter().map(Deferred::canceller).collect();
        let all = Rc::new(All { cancellers, quiet: Cell::new(self.quiet) });
        let to_cancel = Rc::clone(&all);
        let (promise, answer) = Promise::with_canceller(move || to_cancel.cancel());
        let waiting = Rc::new(ListWaiter {
            many: self,
            results: RefCell::new(deferreds.iter().map(|_| None).collect()),
            left: Cell::new(deferreds.len()),
            ended: Cell::new(false),
            promise,
            all,
        });
        for (index, deferred) in deferreds.into_iter().enumerate() {
            let waiting = Rc::clone(&waiting);
            drop(deferred.add_both(move |result| waiting.arrived(index, result)));
        }
        answer
    }
}

/// State of a wait in progress. Owned by the callbacks of the Deferreds that it waits for.
struct ListWaiter<T: 'static, R: 'static, J, A> {
    many: Many<J, A>,
    results: RefCell<Vec<Option<Result<T>>>>,
    left: Cell<usize>,
    ended: Cell<bool>,
    promise: Promise<R>,
    all: Rc<All>,
}

impl<T, R, J, A> ListWaiter<T, R, J, A>
where
    J: Fn(usize, Result<T>) -> Verdict<T, R>,
    A: Fn(Vec<Result<T>>) -> Result<R>,
{
    /// Records a result. A failure that this returns is reported as unhandled.
    fn arrived(&self, index: usize, result: Result<T>) -> Result<()> {
        if self.ended.get() {
            return if self.all.quiet.get() { Ok(()) } else { result.map(drop) };
        }
        match (self.many.judge)(index, result) {
            Verdict::Keep(result) => {
                self.results.borrow_mut()[index] = Some(result);
                self.left.set(self.left.get() - 1);
                if self.left.get() == 0 {
                    let results = self.results.take().into_iter().flatten().collect();
                    self.end((self.many.all)(results));
                }
            }
            Verdict::End(result) => {
                self.ended.set(true);
                if self.many.cancel_rest {
                    self.all.cancel();
                }
                drop(self.results.take());
                self.end(result);
            }
        }
        Ok(())
    }

    fn end(&self, result: Result<R>) {
        self.ended.set(true);
        // The promise may have been cancelled already, by a canceller that fired nothing.
        let _ = self.promise.complete(result);
    }
}

/// Cancellers of all Deferreds of a wait.
struct All {
    cancellers: Box<[Canceller]>,
    quiet: Cell<bool>,
}

impl All {
    /// Cancels the Deferreds that have no result yet, and silences their failures.
    fn cancel(&self) {
        self.quiet.set(true);
        for canceller in &self.cancellers {
            canceller.cancel();
        }
    }
}

/// One of many Deferreds failed (Twisted: `FirstError`).
#[derive(Debug, Clone, Error)]
#[error("number {index} failed: {failure}")]
#[non_exhaustive]
pub struct FirstError {
    /// Index of the Deferred.
    pub index: usize,
    /// Its failure (Twisted: `subFailure`).
    pub failure: Failure,
}

/// All Deferreds failed (Twisted: `FailureGroup`).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub struct FailureGroup {
    /// The failures, in the order of the Deferreds.
    pub failures: Vec<Failure>,
}

impl fmt::Display for FailureGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} failed", self.failures.len())?;
        for (at, failure) in self.failures.iter().enumerate() {
            write!(f, "{} {failure}", if at == 0 { ':' } else { ';' })?;
        }
        Ok(())
    }
}

/// The first result of no Deferreds was requested, which would never arrive (Twisted waits for
/// ever).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there are no Deferreds, so the first result would never arrive")]
pub struct NoDeferreds;
