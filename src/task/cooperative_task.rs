//! One iterator that runs in steps, and its handle (Twisted: `CooperativeTask`).
//!
//! | state | means | goes on when |
//! |---|---|---|
//! | ready | it has a place in the Cooperator's queue | its place comes first |
//! | stepping | its iterator is on the stack | the iterator returns |
//! | waiting | the iterator returned a Deferred | the Deferred has its result |
//! | paused | by [`pause`](CooperativeTask::pause), perhaps while waiting | each `pause` has its `resume`, and no Deferred is waited for |
//! | ended | done, failed or stopped | never |
//!
//! A task ends first, then its iterator is dropped, then its Deferreds fire, in the order in which
//! they were asked for. A task that is stopped during its own step ends at once; its iterator is
//! dropped when it returns.

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

/// Handle to an iterator that a [`Cooperator`](super::Cooperator) runs (Twisted:
/// `CooperativeTask`).
///
/// Clones are handles to the same task. Dropping them changes nothing for a task that is running. A
/// paused task is dropped with its last handle, because nothing can resume it any more.
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

    /// Returns a Deferred that fires when the task has ended (Twisted: `whenDone`). It may be
    /// called any number of times, at any time. Cancelling the Deferred gives up this Deferred, and
    /// nothing else.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the failure of an item, with [`Panicked`](crate::failure::Panicked)
    /// if the iterator panicked, with [`SchedulerError::TaskStopped`] or
    /// [`SchedulerError::SchedulerStopped`] if either was stopped, and with
    /// [`Abandoned`](crate::deferred::Abandoned) if the task was dropped before it ended.
    #[track_caller]
    pub fn when_done(&self) -> Deferred<()> {
        self.task.when_done(OnCancel::GiveUp)
    }

    /// Pauses the task: it makes no more steps until [`resume`](Self::resume) was called as often
    /// as this (Twisted: `pause`).
    ///
    /// # Errors
    ///
    /// The way in which the task ended, if it did: [`SchedulerError::TaskDone`],
    /// [`TaskFailed`](SchedulerError::TaskFailed), [`TaskStopped`](SchedulerError::TaskStopped) or
    /// [`SchedulerStopped`](SchedulerError::SchedulerStopped).
    pub fn pause(&self) -> Result<(), SchedulerError> {
        self.task.check()?;
        self.task.pauses.set(self.task.pauses.get() + 1);
        if let Some(place) = self.task.place.take() {
            self.cooperator.unready(place);
        }
        Ok(())
    }

    /// Takes back one [`pause`](Self::pause) (Twisted: `resume`). A task that ended while it was
    /// paused stays as it is, which is no error.
    ///
    /// # Errors
    ///
    /// If the task is not paused: the way in which it ended, as [`pause`](Self::pause), or else
    /// [`SchedulerError::NotPaused`]. A task that waits for a Deferred is not paused.
    pub fn resume(&self) -> Result<(), SchedulerError> {
        let Some(left) = self.task.pauses.get().checked_sub(1) else {
            return Err(self.task.check().err().unwrap_or(SchedulerError::NotPaused));
        };
        self.task.pauses.set(left);
        self.task.requeue(&self.cooperator);
        Ok(())
    }

    /// Stops the task (Twisted: `stop`). Its iterator is dropped, and its Deferreds fail with
    /// [`SchedulerError::TaskStopped`], before this returns. A Deferred that the task waits for is
    /// not cancelled; its result is ignored.
    ///
    /// # Errors
    ///
    /// The way in which the task ended, as [`pause`](Self::pause).
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

/// Reason why a task refuses a request, or did not come to its end (Twisted: `SchedulerError` and
/// its subclasses).
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

/// Effect of a cancelled Deferred on the task that it waits for.
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
    /// `None` during a step, and after the end.
    iterator: Cell<Option<Steps>>,
    /// Its place in the queue, if it is there.
    place: Cell<Option<TaskPlace>>,
    latest_round: Cell<Option<u64>>,
    is_stepping: Cell<bool>,
    is_waiting: Cell<bool>,
    /// Canceller of the Deferred that the task waits for.
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
    /// A Deferred has received the result. A failure without one is reported when the task is
    /// dropped.
    is_delivered: bool,
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

    /// Records its place in the queue.
    pub(super) fn put_at(&self, place: TaskPlace) {
        self.place.set(Some(place));
    }

    pub(super) fn had_its_turn_in(&self, round: u64) -> bool {
        self.latest_round.get() == Some(round)
    }

    /// Makes a step. The task has been taken out of the queue.
    pub(super) fn step(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, round: u64) {
        self.place.set(None);
        self.latest_round.set(Some(round));
        let Some(mut iterator) = self.iterator.take() else { return };
        self.is_stepping.set(true);
        let item = guarded(|| iterator.next());
        self.is_stepping.set(false);
        if self.check().is_err() {
            discard(iterator);
            return discard_item(item);
        }
        self.iterator.set(Some(iterator));
        match item {
            Ok(Some(Resolved::Now(Ok(())))) => self.requeue(cooperator),
            Ok(Some(Resolved::Now(Err(failure)))) => self.fail(failure),
            Ok(Some(Resolved::Later(deferred))) => self.wait(cooperator, deferred),
            Ok(None) => self.end(SchedulerError::TaskDone, Ok(())),
            Err(panic) => self.fail(panic.into()),
        }
    }

    /// Goes back into the queue, unless a step, a Deferred or a pause holds it.
    fn requeue(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>) {
        let is_held = self.is_stepping.get() || self.is_waiting.get() || self.pauses.get() > 0;
        if !is_held && self.check().is_ok() {
            cooperator.ready(self);
        }
    }

    /// Waits for the Deferred that the iterator returned.
    fn wait(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, mut deferred: Deferred<()>) {
        match deferred.take_result() {
            Some(Ok(())) => return self.requeue(cooperator),
            Some(Err(failure)) => return self.fail(failure),
            None => {}
        }
        self.is_waiting.set(true);
        self.awaited.set(Some(deferred.canceller()));
        let (task, cooperator) = (Rc::clone(self), Rc::clone(cooperator));
        drop(deferred.add_both(move |result| task.deferred_done(&cooperator, result)));
    }

    /// Handles the result of that Deferred.
    fn deferred_done(self: &Rc<Self>, cooperator: &Rc<CooperatorShared>, result: Result<()>) {
        self.is_waiting.set(false);
        self.awaited.take();
        match result {
            Ok(()) => self.requeue(cooperator),
            Err(failure) if self.check().is_ok() => self.fail(failure),
            Err(failure) => report(failure),
        }
    }

    /// Returns the way in which the task ended, if it did.
    fn check(&self) -> Result<(), SchedulerError> {
        self.ended.borrow().as_ref().map_or(Ok(()), |ended| Err(ended.how))
    }

    fn fail(&self, failure: Failure) {
        self.end(SchedulerError::TaskFailed, Err(failure));
    }

    /// Ends the task from outside, unless it has ended.
    pub(super) fn finish(&self, how: SchedulerError) {
        if self.check().is_ok() {
            self.end(how, Err(how.into()));
        }
    }

    fn end(&self, how: SchedulerError, result: Result<()>) {
        let is_delivered = how != SchedulerError::TaskFailed;
        self.ended.replace(Some(Ended { how, result: result.clone(), is_delivered }));
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
            self.mark_delivered();
            // It is fired here or when it is cancelled: the first to take it fires it.
            let _ = waiter.complete(result.clone());
        }
    }

    fn next_waiter(&self) -> Option<Promise<()>> {
        self.waiters.borrow_mut().pop_first().map(|(_, waiter)| waiter)
    }

    fn mark_delivered(&self) {
        if let Some(ended) = &mut *self.ended.borrow_mut() {
            ended.is_delivered = true;
        }
    }

    #[track_caller]
    pub(super) fn when_done(self: &Rc<Self>, on_cancel: OnCancel) -> Deferred<()> {
        let result = self.ended.borrow().as_ref().map(|ended| ended.result.clone());
        if let Some(result) = result {
            self.mark_delivered();
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

    /// Handles the cancellation of a waiter's Deferred.
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
        if let Some(Ended { result: Err(failure), is_delivered: false, .. }) = self.ended.take() {
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

/// Disposes of the last item of a task that was stopped during that step.
fn discard_item(item: Result<Option<Resolved<()>>, crate::failure::Panicked>) {
    match item {
        Ok(Some(Resolved::Now(Err(failure)))) => report(failure),
        // A Deferred has no waiter here; it reports its failure itself.
        Ok(item) => {
            if let Err(panic) = guarded(|| drop(item)) {
                report(panic.into());
            }
        }
        Err(panic) => report(panic.into()),
    }
}
