//! One iterator that is run in steps, and the handle to it (Twisted: `CooperativeTask`).
//!
//! | state | means | goes on when |
//! |---|---|---|
//! | ready | it has a place in the Cooperator's queue | its turn comes |
//! | stepping | its iterator is on the stack | that returns |
//! | waiting | the iterator gave a Deferred | that has its result |
//! | paused | by [`pause`](CooperativeTask::pause), perhaps while waiting | each `pause` has its `resume`, and nothing is waited for |
//! | ended | done, failed or stopped | never |
//!
//! Ending comes first, then the iterator is dropped, then the Deferreds fire, in the order in which they were asked for. A task
//! that is stopped during its own step ends at once; its iterator is dropped when it returns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};

use thiserror::Error;

use super::cooperator::CooperatorShared;
use super::report;
use crate::deferred::{Cancelled, Canceller, Deferred, Promise, Resolved};
use crate::failure::{Failure, Result, guarded};
use crate::log::error;

/// The handle to an iterator that a [`Cooperator`](super::Cooperator) runs (Twisted: `CooperativeTask`).
///
/// Clones are handles to the same task. Dropping them changes nothing for a task that is running; one that is paused, and that
/// nobody can resume any more, is dropped.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::task::{Cooperator, SchedulerError};
/// use ropewalk::testing;
///
/// let clock = testing::VirtualClock::new();
/// let task = Cooperator::new(&clock).cooperate(std::iter::repeat(()));
/// let mut done = task.when_done();
/// task.pause()?;
/// clock.advance(Duration::ZERO);
/// task.resume()?;
/// assert_eq!(task.resume(), Err(SchedulerError::NotPaused));
/// task.stop()?;
/// assert_eq!(task.stop(), Err(SchedulerError::TaskStopped));
/// assert!(done.take_result().unwrap().unwrap_err().check::<SchedulerError>().is_some());
/// # Ok::<(), SchedulerError>(())
/// ```
#[derive(Clone)]
pub struct CooperativeTask {
    task: Rc<Task>,
    cooperator: Rc<CooperatorShared>,
}

impl CooperativeTask {
    pub(super) fn new(task: Rc<Task>, cooperator: Rc<CooperatorShared>) -> Self {
        Self { task, cooperator }
    }

    /// A Deferred that fires when the task has ended (Twisted: `whenDone`). It may be asked for any number of times, at any
    /// time. Cancelling it gives up this Deferred, and nothing else.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the failure of an item, with [`Panicked`](crate::failure::Panicked) if the iterator panicked, with
    /// [`SchedulerError::TaskStopped`] or [`SchedulerError::SchedulerStopped`] if either was stopped, and with
    /// [`Abandoned`](crate::deferred::Abandoned) if the task was dropped before it ended.
    #[track_caller]
    pub fn when_done(&self) -> Deferred<()> {
        self.task.when_done(OnCancel::GiveUp)
    }

    /// Makes no more steps until [`resume`](Self::resume) was called as often as this (Twisted: `pause`).
    ///
    /// # Errors
    ///
    /// How the task ended, if it did: [`SchedulerError::TaskDone`], [`TaskFailed`](SchedulerError::TaskFailed),
    /// [`TaskStopped`](SchedulerError::TaskStopped) or [`SchedulerStopped`](SchedulerError::SchedulerStopped).
    pub fn pause(&self) -> Result<(), SchedulerError> {
        self.task.check()?;
        self.task.pauses.set(self.task.pauses.get() + 1);
        if let Some(place) = self.task.place.take() {
            self.cooperator.unready(place);
        }
        Ok(())
    }

    /// Takes back one [`pause`](Self::pause) (Twisted: `resume`). A task that ended while it was paused stays as it is, which
    /// is no error.
    ///
    /// # Errors
    ///
    /// If it is not paused: how it ended, as [`pause`](Self::pause), and otherwise [`SchedulerError::NotPaused`]. A task that
    /// waits for a Deferred is not paused.
    pub fn resume(&self) -> Result<(), SchedulerError> {
        let Some(left) = self.task.pauses.get().checked_sub(1) else {
            return Err(self.task.check().err().unwrap_or(SchedulerError::NotPaused));
        };
        self.task.pauses.set(left);
        self.task.go_on(&self.cooperator);
        Ok(())
    }

    /// Ends the task (Twisted: `stop`): its iterator is dropped, and its Deferreds fail with [`SchedulerError::TaskStopped`],
    /// before this returns. A Deferred that it waits for is not cancelled; its result is ignored.
    ///
    /// # Errors
    ///
    /// How the task ended, as [`pause`](Self::pause).
    pub fn stop(&self) -> Result<(), SchedulerError> {
        self.task.check()?;
        self.task.finish(SchedulerError::TaskStopped);
        Ok(())
    }
}

impl fmt::Debug for CooperativeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CooperativeTask");
        shown.field("ended", &self.task.check().err()).field("pauses", &self.task.pauses.get()).finish_non_exhaustive()
    }
}

/// Why a task won't do what it was asked for, or did not come to its end (Twisted: `SchedulerError` and its subclasses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// `resume` of a task that is not paused (Twisted: `NotPaused`).
    #[error("the task is not paused")]
    NotPaused,
    /// The task has come to its end (Twisted: `TaskDone`).
    #[error("the task is done")]
    TaskDone,
    /// The task failed (Twisted: `TaskFailed`). Its Deferreds have the failure itself.
    #[error("the task failed")]
    TaskFailed,
    /// The task was stopped (Twisted: `TaskStopped`).
    #[error("the task was stopped")]
    TaskStopped,
    /// The Cooperator was stopped, or its clock is gone (Twisted: `SchedulerStopped`).
    #[error("the cooperator was stopped")]
    SchedulerStopped,
}

/// What cancelling a Deferred does to the task that it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnCancel {
    GiveUp,
    StopTask,
}

/// A place in the queue: the round, and the order within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskPlace {
    pub(super) round: u64,
    pub(super) number: u64,
}

type Steps = Box<dyn Iterator<Item = Resolved<()>>>;

/// The task itself.
pub(super) struct Task {
    number: u64,
    cooperator: Weak<CooperatorShared>,
    /// Out during a step, gone after the end.
    iterator: Cell<Option<Steps>>,
    /// In the queue, if it is there.
    place: Cell<Option<TaskPlace>>,
    latest_round: Cell<Option<u64>>,
    is_stepping: Cell<bool>,
    is_waiting: Cell<bool>,
    /// What it waits for.
    awaited: Cell<Option<Canceller>>,
    pauses: Cell<usize>,
    ended: RefCell<Option<Ended>>,
    /// The Deferreds that wait for the end, in the order in which they were asked for.
    waiters: RefCell<BTreeMap<u64, Promise<()>>>,
    waiters_made: Cell<u64>,
}

struct Ended {
    how: SchedulerError,
    result: Result<()>,
    /// A failure that nobody has heard of is reported when the task is dropped.
    is_heard: bool,
}

impl Task {
    pub(super) fn new(number: u64, cooperator: Weak<CooperatorShared>, iterator: Steps) -> Self {
        Self {
            number,
            cooperator,
            iterator: Cell::new(Some(iterator)),
            place: Cell::new(None),
            latest_round: Cell::new(None),
            is_stepping: Cell::new(false),
            is_waiting: Cell::new(false),
            awaited: Cell::new(None),
            pauses: Cell::new(0),
            ended: RefCell::default(),
            waiters: RefCell::default(),
            waiters_made: Cell::new(0),
        }
    }

    /// It has been put there in the queue.
    pub(super) fn put_at(&self, place: TaskPlace) {
        self.place.set(Some(place));
    }

    pub(super) fn had_its_turn_in(&self, round: u64) -> bool {
        self.latest_round.get() == Some(round)
    }

    /// Makes a step. It has been taken out of the queue.
    pub(super) fn step(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, round: u64) {
        self.place.set(None);
        self.latest_round.set(Some(round));
        let Some(mut iterator) = self.iterator.take() else { return };
        self.is_stepping.set(true);
        let item = guarded(|| iterator.next());
        self.is_stepping.set(false);
        if self.check().is_err() {
            discard(iterator);
            return left_over(item);
        }
        self.iterator.set(Some(iterator));
        match item {
            Ok(Some(Resolved::Now(Ok(())))) => self.go_on(cooperator),
            Ok(Some(Resolved::Now(Err(failure)))) => self.fail(failure),
            Ok(Some(Resolved::Later(deferred))) => self.wait(cooperator, deferred),
            Ok(None) => self.end(SchedulerError::TaskDone, Ok(())),
            Err(panic) => self.fail(panic.into()),
        }
    }

    /// Goes back into the queue, if nothing keeps it from there.
    fn go_on(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>) {
        let is_held = self.is_stepping.get() || self.is_waiting.get() || self.pauses.get() > 0;
        if !is_held && self.check().is_ok() {
            cooperator.ready(self);
        }
    }

    /// The iterator gave a Deferred.
    fn wait(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, mut deferred: Deferred<()>) {
        match deferred.take_result() {
            Some(Ok(())) => return self.go_on(cooperator),
            Some(Err(failure)) => return self.fail(failure),
            None => {}
        }
        self.is_waiting.set(true);
        self.awaited.set(Some(deferred.canceller()));
        let (task, cooperator) = (Rc::clone(self), Rc::clone(cooperator));
        drop(deferred.add_both(move |result| task.heard(&cooperator, result)));
    }

    /// The Deferred has its result.
    fn heard(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, result: Result<()>) {
        self.is_waiting.set(false);
        self.awaited.take();
        match result {
            Ok(()) => self.go_on(cooperator),
            Err(failure) if self.check().is_ok() => self.fail(failure),
            Err(failure) => report(failure),
        }
    }

    /// How it ended, if it did.
    fn check(&self) -> Result<(), SchedulerError> {
        self.ended.borrow().as_ref().map_or(Ok(()), |ended| Err(ended.how))
    }

    fn fail(&self, failure: Failure) {
        self.end(SchedulerError::TaskFailed, Err(failure));
    }

    /// Ends it from outside, unless it has ended.
    pub(super) fn finish(&self, how: SchedulerError) {
        if self.check().is_ok() {
            self.end(how, Err(how.into()));
        }
    }

    fn end(&self, how: SchedulerError, result: Result<()>) {
        let is_heard = how != SchedulerError::TaskFailed;
        self.ended.replace(Some(Ended { how, result: result.clone(), is_heard }));
        if let Some(cooperator) = self.cooperator.upgrade() {
            cooperator.forget(self.number);
            if let Some(place) = self.place.take() {
                cooperator.unready(place);
            }
        }
        if let Some(iterator) = self.iterator.take() {
            discard(iterator);
        }
        while let Some(waiter) = self.next_waiter() {
            self.is_heard();
            // It is fired here or when it is cancelled, whichever takes it.
            let _ = waiter.complete(result.clone());
        }
    }

    fn next_waiter(&self) -> Option<Promise<()>> {
        self.waiters.borrow_mut().pop_first().map(|(_, waiter)| waiter)
    }

    fn is_heard(&self) {
        if let Some(ended) = &mut *self.ended.borrow_mut() {
            ended.is_heard = true;
        }
    }

    #[track_caller]
    pub(super) fn when_done(self: &Rc<Self>, on_cancel: OnCancel) -> Deferred<()> {
        let result = self.ended.borrow().as_ref().map(|ended| ended.result.clone());
        if let Some(result) = result {
            self.is_heard();
            return Deferred::with_result(result);
        }
        let waiter = self.waiters_made.get() + 1;
        self.waiters_made.set(waiter);
        let task = Rc::downgrade(self);
        let (promise, deferred) = Promise::with_canceller(move || {
            if let Some(task) = task.upgrade() {
                task.give_up(waiter, on_cancel);
            }
        });
        self.waiters.borrow_mut().insert(waiter, promise);
        deferred
    }

    /// The Deferred of a waiter was cancelled.
    fn give_up(&self, waiter: u64, on_cancel: OnCancel) {
        let promise = self.waiters.borrow_mut().remove(&waiter);
        if on_cancel == OnCancel::StopTask {
            let awaited = self.awaited.take();
            self.finish(SchedulerError::TaskStopped);
            if let Some(awaited) = awaited {
                awaited.cancel();
            }
        }
        if let Some(promise) = promise {
            let _ = promise.errback(Cancelled);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(cooperator) = self.cooperator.upgrade() {
            cooperator.forget(self.number);
        }
        if let Some(iterator) = self.iterator.take() {
            discard(iterator);
        }
        if let Some(Ended { result: Err(failure), is_heard: false, .. }) = self.ended.take() {
            report(failure);
        }
    }
}

/// Drops an iterator, which may panic.
fn discard(iterator: Steps) {
    if let Err(failure) = guarded(|| drop(iterator)) {
        error!(%failure, "an iterator panicked when it was dropped");
    }
}

/// What the last step of a task gave that had been stopped in it.
fn left_over(item: Result<Option<Resolved<()>>, crate::failure::Panicked>) {
    match item {
        Ok(Some(Resolved::Now(Err(failure)))) => report(failure),
        // Nobody waits for a Deferred; its failure is reported by itself.
        Ok(item) => {
            if let Err(panic) = guarded(|| drop(item)) {
                report(panic.into());
            }
        }
        Err(panic) => report(panic.into()),
    }
}
