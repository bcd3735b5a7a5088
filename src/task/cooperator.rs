//! Many long jobs in small steps, in rotation (Twisted: `Cooperator`, `cooperate`, `coiterate`).
//!
//! Rules:
//! 1. Tasks take steps in rotation (round robin): no task takes a second step before every other
//!    ready task has taken one. New tasks, and those that become ready again, come at the end of
//!    the present round.
//! 2. Steps are made in slices. Each slice is a call on the clock without delay, so that other
//!    events are handled between two slices. A slice ends after 10 ms, or after a number of steps.
//! 3. A slice is planned only while the Cooperator runs and a task is ready: an idle one costs
//!    nothing.
//! 4. A task is out of the Cooperator before the Deferreds that wait for it fire.
//!
//! Ownership: the queue holds the ready tasks, the clock holds the Cooperator while a slice is
//! planned, and a Deferred that a task waits for holds both. Tasks refer back weakly. A task that
//! nothing can wake any more is dropped, and its Deferreds fail with
//! [`Abandoned`](crate::deferred::Abandoned).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::alarm::{Alarm, AlarmOwner};
use super::cooperative_task::{CooperativeTask, OnCancel, SchedulerError, Task, TaskPlace};
use crate::deferred::{Deferred, Outcome};
use crate::time::{Clock, Timers};

/// Runs iterators beside each other, a step at a time (Twisted: `Cooperator`).
///
/// An iterator is a long job, cut into steps: one `next` is one step. Each item is an [`Outcome`].
/// Nothing, or `Ok(())`, goes on. An error fails the task. A `Deferred<()>` pauses this task, and
/// no other, until it has its result. Keep steps short: a step is never interrupted.
///
/// Clones are handles to the same Cooperator. Dropping them changes nothing for the tasks that are
/// running. There is no global one (Twisted: `task.cooperate`): make one per reactor, and pass it
/// on.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use ropewalk::task::Cooperator;
/// use ropewalk::testing;
///
/// let clock = testing::VirtualClock::new();
/// let cooperator = Cooperator::new(&clock);
/// let said = Rc::new(RefCell::new(String::new()));
/// let say = |words: &'static str| {
///     let said = Rc::clone(&said);
///     words.chars().map(move |letter| said.borrow_mut().push(letter))
/// };
/// let (one, two) = (cooperator.coiterate(say("ace")), cooperator.coiterate(say("bdf")));
/// clock.advance(Duration::ZERO);
/// assert!(one.is_called() && two.is_called());
/// assert_eq!(*said.borrow(), "abcdef");
/// ```
#[derive(Clone)]
pub struct Cooperator(Rc<CooperatorShared>);

impl Cooperator {
    /// Creates a running Cooperator with slices of 10 ms and 1,000 steps.
    pub fn new(clock: &impl Clock) -> Self {
        Self::builder(clock).build()
    }

    /// Returns a builder, for a Cooperator with other slices or one that is not started.
    pub fn builder(clock: &impl Clock) -> CooperatorBuilder {
        CooperatorBuilder { timers: clock.timers().clone(), slice: SLICE, steps: STEPS, started: true }
    }

    /// Runs an iterator, and returns the handle to its task (Twisted: `cooperate`). The first step
    /// is made in the next turn at the soonest. Dropping the handle changes nothing.
    ///
    /// A failure of the task is reported in the log, as an unhandled failure of a Deferred is,
    /// unless [`CooperativeTask::when_done`] was called for it. On a Cooperator that was stopped
    /// the task has failed from the start, with [`SchedulerError::SchedulerStopped`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::task::Cooperator;
    /// use ropewalk::testing;
    ///
    /// let clock = testing::VirtualClock::new();
    /// let task = Cooperator::new(&clock).cooperate((0..3).map(|step| println!("step {step}")));
    /// let done = task.when_done();
    /// clock.advance(Duration::ZERO);
    /// assert!(done.is_called());
    /// ```
    pub fn cooperate<R: Outcome<Output = ()> + 'static>(
        &self,
        iterator: impl Iterator<Item = R> + 'static,
    ) -> CooperativeTask {
        let task = self.task(iterator);
        self.0.ready(&task);
        CooperativeTask::new(task, Rc::clone(&self.0))
    }

    /// Runs an iterator, and returns a Deferred that fires when the iterator has ended (Twisted:
    /// `coiterate`). Cancelling the Deferred stops the task, and cancels the Deferred that the task
    /// waits for, if there is one.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the failure of an item, with [`Panicked`](crate::failure::Panicked)
    /// if the iterator panics, with [`SchedulerError::SchedulerStopped`] when the Cooperator is
    /// stopped, or with [`Cancelled`](crate::deferred::Cancelled).
    #[track_caller]
    pub fn coiterate<R: Outcome<Output = ()> + 'static>(
        &self,
        iterator: impl Iterator<Item = R> + 'static,
    ) -> Deferred<()> {
        let task = self.task(iterator);
        let done = task.when_done(OnCancel::StopTask);
        self.0.ready(&task);
        done
    }

    /// Starts to make steps, for the first time or again after [`stop`](Self::stop) (Twisted:
    /// `start`).
    pub fn start(&self) {
        self.0.stopped.set(false);
        self.0.started.set(true);
        self.0.plan();
    }

    /// Stops for good all tasks that have not ended, the paused ones too (Twisted: `stop`). They
    /// fail with [`SchedulerError::SchedulerStopped`] before this returns. A task that is added
    /// before the next [`start`](Self::start) fails in the same way, at once.
    ///
    /// ```
    /// use ropewalk::task::{Cooperator, SchedulerError};
    /// use ropewalk::testing;
    ///
    /// let clock = testing::VirtualClock::new();
    /// let cooperator = Cooperator::new(&clock);
    /// let mut done = cooperator.coiterate(std::iter::repeat(()));
    /// cooperator.stop();
    /// assert!(!cooperator.is_running());
    /// let failure = done.take_result().unwrap().unwrap_err();
    /// assert_eq!(failure.check(), Some(&SchedulerError::SchedulerStopped));
    /// ```
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Returns `true` if it was started, and not stopped since (Twisted: `running`).
    pub fn is_running(&self) -> bool {
        self.0.started.get() && !self.0.stopped.get()
    }

    fn task<R: Outcome<Output = ()> + 'static>(&self, iterator: impl Iterator<Item = R> + 'static) -> Rc<Task> {
        let number = self.0.number();
        let task = Rc::new(Task::new(number, Rc::downgrade(&self.0), Box::new(iterator.map(R::resolve))));
        self.0.unfinished.borrow_mut().insert(number, Rc::downgrade(&task));
        task
    }
}

impl fmt::Debug for Cooperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Cooperator");
        shown.field("running", &self.is_running());
        shown.field("tasks", &self.0.unfinished.borrow().len()).finish_non_exhaustive()
    }
}

/// Builder of a [`Cooperator`]. From [`Cooperator::builder`].
///
/// ```
/// use std::time::Duration;
/// use ropewalk::Clock;
/// use ropewalk::task::Cooperator;
///
/// fn in_the_background(clock: &impl Clock) -> Cooperator {
///     Cooperator::builder(clock).slice(Duration::from_millis(1)).started(false).build()
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is made before `build`"]
pub struct CooperatorBuilder {
    timers: Timers,
    slice: Duration,
    steps: usize,
    started: bool,
}

impl CooperatorBuilder {
    /// Sets the time of a slice; the step in which that time is over is its last (Twisted:
    /// `terminationPredicateFactory`). The default is 10 ms. With zero a slice is one step.
    pub fn slice(mut self, slice: Duration) -> Self {
        self.slice = slice;
        self
    }

    /// Sets the largest number of steps in a slice, of all tasks together; at least one. The
    /// default is 1,000.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps.max(1);
        self
    }

    /// Sets whether it makes steps before [`Cooperator::start`] is called (Twisted: `started`). The
    /// default is `true`.
    pub fn started(mut self, started: bool) -> Self {
        self.started = started;
        self
    }

    /// Makes the Cooperator.
    pub fn build(self) -> Cooperator {
        Cooperator(Rc::new(CooperatorShared {
            timers: self.timers,
            slice: self.slice,
            steps: self.steps,
            started: Cell::new(self.started),
            stopped: Cell::new(false),
            alarm: Alarm::default(),
            is_stepping: Cell::new(false),
            queue: RefCell::default(),
            round: Cell::new(0),
            numbers: Cell::new(0),
            unfinished: RefCell::default(),
        }))
    }
}

/// State that the handles share.
pub(super) struct CooperatorShared {
    timers: Timers,
    slice: Duration,
    steps: usize,
    started: Cell<bool>,
    stopped: Cell<bool>,
    /// Set for the next slice.
    alarm: Alarm,
    /// A slice is being made.
    is_stepping: Cell<bool>,
    /// The tasks that are ready for a step, in the order of their places.
    queue: RefCell<BTreeMap<TaskPlace, Rc<Task>>>,
    /// Round of the latest step.
    round: Cell<u64>,
    /// The last number that a task or a place got.
    numbers: Cell<u64>,
    /// All tasks that have not ended, in the order in which they were added.
    unfinished: RefCell<BTreeMap<u64, Weak<Task>>>,
}

impl CooperatorShared {
    /// Puts a ready task into the queue: into this round, unless it has made a step in it.
    pub(super) fn ready(self: &Rc<Self>, task: &Rc<Task>) {
        if self.stopped.get() {
            return task.finish(SchedulerError::SchedulerStopped);
        }
        let round = self.round.get() + u64::from(task.had_its_turn_in(self.round.get()));
        let place = TaskPlace { round, number: self.number() };
        task.put_at(place);
        self.queue.borrow_mut().insert(place, Rc::clone(task));
        self.plan();
    }

    /// Takes a task out of the queue.
    pub(super) fn unready(&self, place: TaskPlace) {
        let task = self.queue.borrow_mut().remove(&place);
        drop(task);
        let is_idle = self.queue.borrow().is_empty();
        if is_idle {
            self.alarm.cancel();
        }
    }

    /// Forgets a task that has ended.
    pub(super) fn forget(&self, number: u64) {
        self.unfinished.borrow_mut().remove(&number);
    }

    fn number(&self) -> u64 {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        number
    }

    /// Plans the next slice, if there is work and no slice is planned.
    fn plan(self: &Rc<Self>) {
        let is_wanted = self.started.get() && !self.is_stepping.get() && !self.queue.borrow().is_empty();
        if is_wanted && !self.alarm.is_set() {
            Alarm::set(self, &self.timers, Duration::ZERO);
        }
    }

    fn next(&self) -> Option<Rc<Task>> {
        let (place, task) = self.queue.borrow_mut().pop_first()?;
        self.round.set(place.round);
        Some(task)
    }

    fn stop(&self) {
        self.stopped.set(true);
        self.alarm.cancel();
        let unfinished: Vec<_> = self.unfinished.borrow().values().filter_map(Weak::upgrade).collect();
        for task in unfinished {
            task.finish(SchedulerError::SchedulerStopped);
        }
    }
}

impl AlarmOwner for CooperatorShared {
    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Makes a slice. No step can unwind: iterators and callbacks are guarded.
    fn ring(self: Rc<Self>) {
        self.is_stepping.set(true);
        let began = self.timers.seconds();
        for _ in 0..self.steps {
            let Some(task) = self.next() else { break };
            task.step(&self, self.round.get());
            if self.timers.seconds().saturating_sub(began) >= self.slice {
                break;
            }
        }
        self.is_stepping.set(false);
        self.plan();
    }

    /// Stops: without a clock there are no more steps.
    fn silenced(self: Rc<Self>) {
        self.stop();
    }
}

/// Time of a slice, as in Twisted. 10 ms: long enough that a turn of the loop between two slices
/// does not count, short enough that the reactor's other work is not delayed noticeably.
const SLICE: Duration = Duration::from_millis(10);

/// Number of steps in a slice. A virtual clock does not move during a slice, so an endless iterator
/// would never reach the slice's end by time. Steps of 10 µs reach both bounds at once; shorter
/// ones pay for a turn of the loop, a few µs, once in a thousand.
const STEPS: usize = 1_000;
