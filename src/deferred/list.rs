//! Many Deferreds at once (Twisted: `DeferredList`, `gatherResults`, `race`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::{Canceller, Deferred, Promise};
use crate::failure::{Failure, Result};

/// Waits for many Deferreds (Twisted: `DeferredList`). The flags say what else ends the waiting.
///
/// Cancelling the Deferred that comes of it cancels every one that has no result yet.
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
#[must_use = "it waits for nothing before it is made a Deferred"]
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

/// What a [`DeferredList`] gives.
#[derive(Debug)]
pub enum Listed<T> {
    /// Every result, in the order of the Deferreds.
    All(Vec<Result<T>>),
    /// The first value, for a list that fires on one callback.
    First {
        /// The value.
        value: T,
        /// Which Deferred it came from.
        index: usize,
    },
}

impl<T> DeferredList<T> {
    /// A list without flags: it waits for every result, and does not fail.
    pub fn new(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Self {
        Self { deferreds: deferreds.into_iter().collect(), flags: ListFlags::default() }
    }

    /// Whether the first value ends the waiting: the result is [`Listed::First`] then (Twisted: `fireOnOneCallback`).
    pub fn fire_on_one_callback(mut self, yes: bool) -> Self {
        self.flags.fire_on_one_callback = yes;
        self
    }

    /// Whether the first failure ends the waiting: the list fails with [`FirstError`] then (Twisted: `fireOnOneErrback`).
    pub fn fire_on_one_errback(mut self, yes: bool) -> Self {
        self.flags.fire_on_one_errback = yes;
        self
    }

    /// Whether failures that come after the waiting ended are dropped. Otherwise they are reported as unhandled (Twisted:
    /// `consumeErrors`; there it is about every failure, here those that are part of the result are yours).
    pub fn consume_errors(mut self, yes: bool) -> Self {
        self.flags.consume_errors = yes;
        self
    }

    /// Begins to wait.
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

/// The values of all, in their order; the first failure ends the waiting, with [`FirstError`] (Twisted: `gatherResults`). Those
/// that come later are reported as unhandled: [`gather_or_cancel`] cancels them. Cancelling it cancels all.
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

/// [`gather_results`] that leaves nothing running: the first failure cancels the Deferreds that have no result yet, and whatever they
/// say is dropped. The gathering fails with [`FirstError`] when they are cancelled. (Twisted's `gatherResults` cancels none.)
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

/// The first value, and the index of the Deferred that had it; the others are cancelled, and whatever they say is dropped
/// (Twisted: `race`). If all fail, so does it, with [`FailureGroup`]; of none, with [`NoDeferreds`]. Cancelling it cancels all.
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

/// How many results become one.
struct Many<J, A> {
    /// What a result means for the waiting.
    judge: J,
    /// What comes of it when every result was kept.
    all: A,
    /// Failures that come too late are dropped.
    quiet: bool,
    /// The end of the waiting cancels those who have no result yet.
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

/// The waiting that is under way. The Deferreds that it waits for keep it.
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
    /// A result came. What this fails with is reported as unhandled.
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
        // It may have been cancelled, by a canceller that fired nothing.
        let _ = self.promise.complete(result);
    }
}

/// All that are waited for.
struct All {
    cancellers: Box<[Canceller]>,
    quiet: Cell<bool>,
}

impl All {
    /// Cancels those without a result, and does not want to hear of it.
    fn cancel(&self) {
        self.quiet.set(true);
        for canceller in &self.cancellers {
            canceller.cancel();
        }
    }
}

/// One of many failed (Twisted: `FirstError`).
#[derive(Debug, Clone, Error)]
#[error("number {index} failed: {failure}")]
#[non_exhaustive]
pub struct FirstError {
    /// Which Deferred it was.
    pub index: usize,
    /// What it failed with (Twisted: `subFailure`).
    pub failure: Failure,
}

/// All of them failed (Twisted: `FailureGroup`).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub struct FailureGroup {
    /// What they failed with, in the order of the Deferreds.
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

/// The first of no Deferreds was asked for, which never comes (Twisted waits for ever).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the first of no Deferreds never comes")]
pub struct NoDeferreds;
