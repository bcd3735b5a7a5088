//! Many long jobs in small steps, by turns (Twisted: `Cooperator`, `cooperate`, `coiterate`).
//!
//! Rules:
//! 1. Tasks take steps by turns (round robin): none takes a second step before every other that is ready has had one. New
//!    tasks, and those that are ready again, come at the end of the present round.
//! 2. Steps are made in slices, each a call on the clock without delay, so that everything else has its say between them. A
//!    slice ends after 10 ms, or after so many steps.
//! 3. A slice is planned only while the Cooperator runs and a task is ready: an idle one costs nothing.
//! 4. A task is out of the Cooperator before the Deferreds that wait for it fire.
//!
//! Ownership: the queue holds the tasks that are ready, the clock holds the Cooperator while a slice is planned, and a Deferred
//! that a task waits for holds both. Tasks refer back weakly. What nothing can wake any more is dropped, and its Deferreds fail
//! with [`Abandoned`](crate::deferred::Abandoned).

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
/// An iterator is a long job that was cut into steps: one `next` is one step. Each item is an [`Outcome`]: nothing, or
/// `Ok(())`, goes on; an error fails the task; a `Deferred<()>` pauses this task, and no other, until it has its result. Steps
/// should be short: a step is never interrupted.
///
/// Clones are handles to the same Cooperator. Dropping them changes nothing for the tasks that are running. There is no global
/// one (Twisted: `task.cooperate`): make one per reactor, and hand it on.
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
    /// A running Cooperator with the usual slices.
    pub fn new(clock: &impl Clock) -> Self {
        Self::builder(clock).build()
    }

    /// For one with other slices, or that is not started.
    pub fn builder(clock: &impl Clock) -> CooperatorBuilder {
        CooperatorBuilder { timers: clock.timers().clone(), slice: SLICE, steps: STEPS, started: true }
    }

    /// Runs an iterator, and gives the handle to its task (Twisted: `cooperate`). The first step is made in the next turn at the
    /// soonest. Dropping the handle changes nothing.
    ///
    /// A failure of the task that nobody asked for with [`CooperativeTask::when_done`] is reported in the log, as an unhandled
    /// failure of a Deferred is. On a Cooperator that was stopped the task has failed from the start, with
    /// [`SchedulerError::SchedulerStopped`].
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

    /// Runs an iterator, and gives what fires when it has ended (Twisted: `coiterate`). Cancelling that stops the task, and
    /// cancels the Deferred that the task waits for, if there is one.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the failure of an item, with [`Panicked`](crate::failure::Panicked) if the iterator panics, with
    /// [`SchedulerError::SchedulerStopped`] when the Cooperator is stopped, or with
    /// [`Cancelled`](crate::deferred::Cancelled).
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

    /// Begins, or begins again after [`stop`](Self::stop), to make steps (Twisted: `start`).
    pub fn start(&self) {
        self.0.stopped.set(false);
        self.0.started.set(true);
        self.0.plan();
    }

    /// Stops for good all tasks that have not ended, the paused ones too: they fail with [`SchedulerError::SchedulerStopped`]
    /// before this returns (Twisted: `stop`). So does, at once, what is added before the next [`start`](Self::start).
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

    /// Whether it was started, and not stopped since (Twisted: `running`).
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

/// What is to be said of a [`Cooperator`] before it is made. From [`Cooperator::builder`].
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
    /// How long a slice takes; the step in which that time is over is its last (Twisted: `terminationPredicateFactory`). 10 ms
    /// unless said otherwise. With zero a slice is one step.
    pub fn slice(mut self, slice: Duration) -> Self {
        self.slice = slice;
        self
    }

    /// How many steps a slice has at most, of all tasks together; at least one. 1,000 unless said otherwise.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps.max(1);
        self
    }

    /// Whether it makes steps before [`Cooperator::start`] is called (Twisted: `started`). It does unless told otherwise.
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

/// What the handles share.
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
    /// The tasks that are ready for a step, in the order of their turns.
    queue: RefCell<BTreeMap<TaskPlace, Rc<Task>>>,
    /// That of the latest step.
    round: Cell<u64>,
    /// The last number that was given to a task, or to a place.
    numbers: Cell<u64>,
    /// All tasks that have not ended, in the order in which they came.
    unfinished: RefCell<BTreeMap<u64, Weak<Task>>>,
}

impl CooperatorShared {
    /// Puts a task that is ready into the queue: into this round if it has had no step in it.
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

    /// Plans the next slice, if there is need of one.
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

    /// Without a clock there are no more steps.
    fn silenced(self: Rc<Self>) {
        self.stop();
    }
}

/// How long a slice takes, as in Twisted: long enough that a turn of the loop between two slices is not felt, short enough that
/// nothing else on the reactor waits noticeably.
const SLICE: Duration = Duration::from_millis(10);

/// The steps of a slice. A virtual clock does not move during a slice, so an iterator without end would not come to an end of
/// it. Steps of 10 µs reach both bounds at once; shorter ones pay for a turn of the loop, a few µs, once in a thousand.
const STEPS: usize = 1_000;
