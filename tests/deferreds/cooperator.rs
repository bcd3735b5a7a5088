//! The rules of Cooperator and CooperativeTask, each as Twisted has it unless it says otherwise.

use std::cell::{Cell, RefCell};
use std::iter;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::deferred::{Abandoned, Cancelled, Promise, unhandled};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::Outcome;
use ropewalk::task::{CooperativeTask, Cooperator, LoopingCall, SchedulerError};
use ropewalk::{Clock, Deferred, Failure, Reactor, Result, testing};

type Log = Rc<RefCell<String>>;

/// An iterator that notes a letter with each step, and gives nothing.
fn say(log: &Log, letters: &str) -> impl Iterator<Item = ()> + use<> {
    let log = Rc::clone(log);
    letters.chars().collect::<Vec<_>>().into_iter().map(move |letter| log.borrow_mut().push(letter))
}

/// A clock, a Cooperator on it whose slices are one step, and what its tasks have said.
struct Fixture {
    clock: testing::VirtualClock,
    cooperator: Cooperator,
    log: Log,
}

impl Fixture {
    fn new() -> Self {
        let clock = testing::VirtualClock::new();
        let cooperator = Cooperator::builder(&clock).steps(1).build();
        Self { clock, cooperator, log: Log::default() }
    }

    fn say(&self, letters: &str) -> CooperativeTask {
        self.cooperator.cooperate(say(&self.log, letters))
    }

    /// Makes so many steps, and says what was said in them.
    fn steps(&self, count: usize) -> String {
        for _ in 0..count {
            self.clock.turn();
        }
        self.log.take()
    }

    /// Returns `true` if a slice is planned.
    fn is_planned(&self) -> bool {
        !self.clock.delayed_calls().is_empty()
    }
}

#[track_caller]
fn ended(mut deferred: Deferred<()>) -> Result<()> {
    deferred.take_result().expect("it has ended")
}

#[track_caller]
fn scheduler_error(deferred: Deferred<()>) -> SchedulerError {
    *ended(deferred).expect_err("a failure").check().expect("a SchedulerError")
}

/// A task whose third step gives what `item` gives, and whose others give nothing.
fn third<R: Outcome<Output = ()> + 'static>(
    cooperator: &Cooperator,
    nothing: impl Fn() -> R + 'static,
    item: impl FnOnce() -> R + 'static,
) -> CooperativeTask {
    let mut item = Some(item);
    cooperator.cooperate((1..).map(move |step| if step == 3 { item.take().unwrap()() } else { nothing() }))
}

/// Tasks take steps by turns, from the next turn of the loop on.
#[test]
fn tasks_take_turns() {
    let me = Fixture::new();
    let tasks = ["abc", "123", "def", "456"].map(|letters| me.say(letters));
    assert_eq!(*me.log.borrow(), "");
    assert_eq!(me.steps(12), "a1d4b2e5c3f6");
    let done = tasks.map(|task| task.when_done());
    assert!(done.iter().all(|done| !done.is_called()));
    me.steps(4);
    assert!(done.into_iter().all(|done| ended(done).is_ok()));
    assert!(!me.is_planned());
}

/// A task that comes later has its first turn at the end of the round that is under way.
#[test]
fn a_new_task_comes_at_the_end_of_the_round() {
    let me = Fixture::new();
    let _tasks = ["aaa", "bbb", "ccc"].map(|letters| me.say(letters));
    assert_eq!(me.steps(1), "a");
    let late = me.say("ddd");
    assert_eq!(me.steps(7), "bcdabcd");
    late.stop().unwrap();
    assert_eq!(me.steps(3), "abc");
}

/// A slice makes steps for 10 ms, and then lets the rest of the program have its say.
#[test]
fn a_slice_takes_ten_milliseconds() {
    let clock = testing::VirtualClock::new();
    let (steps, inner) = (Rc::new(Cell::new(0)), clock.clone());
    let count = Rc::clone(&steps);
    let task = Cooperator::new(&clock).cooperate(iter::repeat_with(move || {
        count.set(count.get() + 1);
        inner.advance(Duration::from_millis(4));
    }));
    assert_eq!(clock.turn(), 1);
    assert_eq!(steps.get(), 3);
    clock.turn();
    assert_eq!(steps.get(), 6);
    task.stop().unwrap();
}

/// Where no time passes a slice ends after a number of steps, so that an iterator without end does
/// not hang the loop.
#[test]
fn a_slice_is_bounded_where_time_stands_still() {
    for (cooperator, expected) in [
        (Cooperator::builder as fn(&testing::VirtualClock) -> _, 1_000),
        (|clock| Cooperator::builder(clock).steps(7), 7),
        (|clock| Cooperator::builder(clock).steps(0), 1),
        (|clock| Cooperator::builder(clock).slice(Duration::ZERO), 1),
    ] {
        let clock = testing::VirtualClock::new();
        let steps = Rc::new(Cell::new(0));
        let count = Rc::clone(&steps);
        let task = cooperator(&clock).build().cooperate(iter::repeat_with(move || count.set(count.get() + 1)));
        clock.turn();
        assert_eq!(steps.get(), expected);
        clock.turn();
        assert_eq!(steps.get(), 2 * expected);
        task.stop().unwrap();
    }
}

/// A task fails with an item that is an error, a Deferred that fails now or later, or a panic of
/// the iterator. Other tasks go on.
#[test]
fn a_failure_fails_its_task_alone() {
    let me = Fixture::new();
    let other = me.say("abcdefghijkl");
    let (promise, later) = Promise::new();
    let (abandoned, gone) = Promise::new();
    let no_deferred = || Deferred::succeed(());
    let tasks = [
        third(&me.cooperator, || Ok(()), || Err(Failure::message("returned"))),
        third(&me.cooperator, || (), || panic!("panicked")),
        third(&me.cooperator, no_deferred, || Deferred::fail("fired")),
        third(&me.cooperator, no_deferred, || later),
        third(&me.cooperator, no_deferred, || gone),
    ];
    let done = tasks.each_ref().map(CooperativeTask::when_done);
    me.steps(6 * 3);
    promise.errback("later").unwrap();
    drop(abandoned);
    let failures = done.map(|done| ended(done).unwrap_err());
    let messages = failures.each_ref().map(ToString::to_string);
    assert_eq!(messages[..1], ["returned"]);
    assert_eq!(failures[1].check::<Panicked>().unwrap().message, "panicked");
    assert_eq!(messages[2..4], ["fired", "later"]);
    assert!(failures[4].check::<Abandoned>().is_some());
    for task in &tasks {
        assert_eq!(task.pause(), Err(SchedulerError::TaskFailed));
        assert_eq!(task.resume(), Err(SchedulerError::TaskFailed));
        assert_eq!(task.stop(), Err(SchedulerError::TaskFailed));
    }
    assert!(ended(tasks[0].when_done()).is_err());
    assert_eq!(me.steps(9), "defghijkl");
    assert!(other.stop().is_ok());
}

/// A failure of a task without a waiter is reported when the last handle is dropped; one that was
/// delivered is not.
#[test]
fn a_failure_is_not_lost() {
    let run = |ask: bool| {
        let clock = testing::VirtualClock::new();
        let ((), unheard) = unhandled::collect(|| {
            let task = Cooperator::new(&clock).cooperate(iter::once(Err(Failure::message("lost"))));
            clock.advance(Duration::ZERO);
            if ask {
                assert!(ended(task.when_done()).is_err());
            }
        });
        unheard.into_iter().map(|unheard| unheard.failure.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(run(false), ["lost"]);
    assert!(run(true).is_empty());
}

/// A Deferred pauses its own task, until it has its result.
#[test]
fn a_deferred_pauses_its_task() {
    let me = Fixture::new();
    let (promise, deferred) = Promise::new();
    let log = Rc::clone(&me.log);
    let items = [Deferred::succeed(()), deferred, Deferred::succeed(())];
    let waits = me.cooperator.cooperate(items.into_iter().inspect(move |_| log.borrow_mut().push('w')));
    let other = me.say("abcdefg");
    assert_eq!(me.steps(6), "wawbcd");
    promise.callback(()).unwrap();
    assert_eq!(me.steps(2), "we");
    let done = waits.when_done();
    assert_eq!(me.steps(2), "f");
    assert!(ended(done).is_ok());
    other.stop().unwrap();
}

/// A task that waits costs nothing: no slice is planned.
#[test]
fn nothing_is_planned_while_nothing_is_ready() {
    let me = Fixture::new();
    assert!(!me.is_planned());
    let (promise, deferred) = Promise::new();
    let task = me.cooperator.cooperate(iter::once(deferred));
    assert!(me.is_planned());
    me.steps(1);
    assert!(!me.is_planned());
    promise.callback(()).unwrap();
    assert!(me.is_planned());
    task.pause().unwrap();
    assert!(!me.is_planned());
    task.resume().unwrap();
    assert!(me.is_planned());
    task.stop().unwrap();
    assert!(!me.is_planned());
}

/// Pauses add up, and so do resumes.
#[test]
fn pauses_are_counted() {
    let me = Fixture::new();
    let task = me.say("abcdef");
    assert_eq!(me.steps(1), "a");
    task.pause().unwrap();
    task.pause().unwrap();
    assert_eq!(me.steps(2), "");
    task.resume().unwrap();
    assert_eq!(me.steps(2), "");
    task.resume().unwrap();
    assert_eq!(me.steps(2), "bc");
    assert_eq!(task.resume(), Err(SchedulerError::NotPaused));
    assert_eq!(me.steps(1), "d");
}

/// A task that is paused and waits goes on when both are over, in either order; waiting alone is no
/// pause to be taken back (in Twisted it is).
#[test]
fn a_pause_and_a_deferred_are_two_things() {
    for resume_first in [true, false] {
        let me = Fixture::new();
        let (promise, deferred) = Promise::new();
        let task = me.cooperator.cooperate(iter::once(deferred));
        let done = task.when_done();
        me.steps(1);
        assert_eq!(task.resume(), Err(SchedulerError::NotPaused));
        task.pause().unwrap();
        if resume_first {
            task.resume().unwrap();
            assert!(!me.is_planned());
            promise.callback(()).unwrap();
        } else {
            promise.callback(()).unwrap();
            assert!(!me.is_planned());
            task.resume().unwrap();
        }
        me.steps(1);
        assert!(ended(done).is_ok());
    }
}

/// A task may pause, resume and stop itself, and its Cooperator, from inside its iterator.
#[test]
fn an_iterator_may_steer_its_own_task() {
    let me = Fixture::new();
    let own: Rc<RefCell<Option<CooperativeTask>>> = Rc::default();
    let (handle, log) = (Rc::clone(&own), Rc::clone(&me.log));
    let task = me.cooperator.cooperate((1..).map(move |step| {
        log.borrow_mut().push('.');
        let task = handle.borrow().clone().unwrap();
        match step {
            2 => task.pause().unwrap(),
            3 => {
                task.pause().unwrap();
                task.resume().unwrap();
            }
            5 => task.stop().unwrap(),
            _ => {}
        }
    }));
    own.replace(Some(task.clone()));
    let done = task.when_done();
    let other = me.say("abcdefghij");
    assert_eq!(me.steps(5), ".a.bc");
    task.resume().unwrap();
    assert_eq!(me.steps(7), ".d.e.fg", "it has one place in the queue");
    assert_eq!(me.steps(1), "h");
    other.stop().unwrap();
    assert_eq!(scheduler_error(done), SchedulerError::TaskStopped);
    assert_eq!(task.stop(), Err(SchedulerError::TaskStopped));
    assert_eq!(Rc::strong_count(&own), 1, "the iterator is dropped");
}

/// The result of the step in which a task is stopped does not reach its Deferreds; a failure is
/// reported.
#[test]
fn the_last_step_of_a_stopped_task() {
    fn last<R: Outcome<Output = ()> + 'static>(item: impl Fn() -> R + 'static) -> Vec<String> {
        let me = Fixture::new();
        let cooperator = me.cooperator.clone();
        let done = me.cooperator.coiterate(iter::repeat_with(move || {
            cooperator.stop();
            item()
        }));
        let ((), unheard) = unhandled::collect(|| drop(me.steps(1)));
        assert_eq!(scheduler_error(done), SchedulerError::SchedulerStopped);
        assert!(!me.is_planned());
        unheard.into_iter().map(|unheard| unheard.failure.to_string()).collect()
    }
    assert!(last(|| ()).is_empty());
    assert!(last(|| Promise::new().1.add_errback(|_abandoned| ())).is_empty());
    assert_eq!(last(|| Err(Failure::message("late"))), ["late"]);
    assert_eq!(last(|| -> Result<()> { panic!("late") }), ["a callback panicked: late"]);
}

/// Stopping a task ends it at once: its iterator is dropped, and then its Deferreds fail, in the
/// order they were asked for.
#[test]
fn a_stopped_task_has_ended() {
    let me = Fixture::new();
    let held = Rc::new(());
    let token = Rc::clone(&held);
    let task = me.cooperator.cooperate(iter::repeat_with(move || drop(Rc::clone(&token))));
    for letter in ["1", "2", "3"] {
        let (log, held, task) = (Rc::clone(&me.log), Rc::clone(&held), task.clone());
        drop(task.clone().when_done().add_errback(move |failure| {
            failure.trap::<SchedulerError>()?;
            assert_eq!(Rc::strong_count(&held), 4 - letter.parse::<usize>().unwrap() + 1);
            assert_eq!(task.stop(), Err(SchedulerError::TaskStopped));
            log.borrow_mut().push_str(letter);
            Ok(())
        }));
    }
    me.steps(2);
    task.stop().unwrap();
    assert_eq!(me.log.take(), "123");
    assert_eq!(task.pause(), Err(SchedulerError::TaskStopped));
    assert_eq!(task.resume(), Err(SchedulerError::TaskStopped));
    assert_eq!(scheduler_error(task.when_done()), SchedulerError::TaskStopped);
}

/// A task that has come to its end says so, and still gives Deferreds.
#[test]
fn a_task_that_is_done_says_so() {
    let me = Fixture::new();
    let task = me.say("");
    me.steps(1);
    assert_eq!(task.pause(), Err(SchedulerError::TaskDone));
    assert_eq!(task.resume(), Err(SchedulerError::TaskDone));
    assert_eq!(task.stop(), Err(SchedulerError::TaskDone));
    assert!(ended(task.when_done()).is_ok() && ended(task.when_done()).is_ok());
}

/// A paused task can be stopped; resuming it then is no error, and does nothing.
#[test]
fn a_paused_task_can_be_stopped() {
    let me = Fixture::new();
    let task = me.say("abc");
    task.pause().unwrap();
    task.stop().unwrap();
    assert_eq!(task.resume(), Ok(()));
    assert_eq!(task.resume(), Err(SchedulerError::TaskStopped));
    assert_eq!(me.steps(2), "");
}

/// The Deferred for which a task waited when it was stopped is left alone; its result is ignored, a
/// failure reported.
#[test]
fn a_stopped_task_ignores_its_deferred() {
    for fails in [false, true] {
        let me = Fixture::new();
        let cancelled = Rc::new(Cell::new(false));
        let noted = Rc::clone(&cancelled);
        let (promise, deferred) = Promise::with_canceller(move || noted.set(true));
        let task = me.cooperator.cooperate(iter::once(deferred));
        let done = task.when_done();
        me.steps(1);
        task.stop().unwrap();
        assert_eq!(scheduler_error(done), SchedulerError::TaskStopped);
        assert!(!cancelled.get());
        let result = if fails { Err("late".into()) } else { Ok(()) };
        let ((), unheard) = unhandled::collect(|| promise.complete(result).unwrap());
        assert_eq!(unheard.len(), usize::from(fails));
        assert!(!me.is_planned());
    }
}

/// Cancelling a Deferred of `when_done` gives up that Deferred, and nothing else.
#[test]
fn cancelling_when_done_gives_up_one_deferred() {
    let me = Fixture::new();
    let task = me.say("ab");
    let (one, two) = (task.when_done(), task.when_done());
    one.cancel();
    assert!(ended(one).unwrap_err().check::<Cancelled>().is_some());
    assert_eq!(me.steps(3), "ab");
    assert!(ended(two).is_ok());
}

/// Cancelling the Deferred of `coiterate` stops its task, and cancels what that waits for.
#[test]
fn cancelling_coiterate_stops_the_task() {
    let me = Fixture::new();
    let running = me.cooperator.coiterate(say(&me.log, "abc"));
    assert_eq!(me.steps(1), "a");
    running.cancel();
    assert!(ended(running).unwrap_err().check::<Cancelled>().is_some());
    assert_eq!(me.steps(2), "");

    let cancelled = Rc::new(Cell::new(false));
    let noted = Rc::clone(&cancelled);
    let (_promise, deferred) = Promise::with_canceller(move || noted.set(true));
    let waiting = me.cooperator.coiterate(iter::once(deferred));
    me.steps(1);
    let ((), unheard) = unhandled::collect(|| waiting.cancel());
    assert!(cancelled.get() && unheard.is_empty());
    assert!(ended(waiting).unwrap_err().check::<Cancelled>().is_some());
}

/// From inside its iterator too.
#[test]
fn an_iterator_may_cancel_its_own_deferred() {
    let me = Fixture::new();
    let own: Rc<RefCell<Option<Deferred<()>>>> = Rc::default();
    let (handle, log) = (Rc::clone(&own), Rc::clone(&me.log));
    own.replace(Some(me.cooperator.coiterate(iter::repeat_with(move || {
        log.borrow_mut().push('.');
        handle.borrow().as_ref().unwrap().cancel();
    }))));
    assert_eq!(me.steps(3), ".");
    assert!(ended(own.take().unwrap()).unwrap_err().check::<Cancelled>().is_some());
}

/// Stopping the Cooperator fails all its tasks, the paused ones and those that wait too (Twisted
/// forgets every second one, and tells paused ones when they are resumed), and what is added
/// afterwards.
#[test]
fn stopping_the_cooperator_fails_all() {
    let me = Fixture::new();
    let (_promise, deferred) = Promise::new();
    let tasks =
        [me.say("abc"), me.say("def"), me.say("ghi"), me.cooperator.cooperate(iter::once(deferred)), me.say("jkl")];
    assert_eq!(me.steps(4), "adg");
    tasks[1].pause().unwrap();
    let done = tasks.each_ref().map(CooperativeTask::when_done);
    me.cooperator.stop();
    assert!(!me.cooperator.is_running() && !me.is_planned());
    for (task, done) in tasks.iter().zip(done) {
        assert_eq!(scheduler_error(done), SchedulerError::SchedulerStopped);
        assert_eq!(task.stop(), Err(SchedulerError::SchedulerStopped));
    }
    assert_eq!(tasks[1].resume(), Ok(()));
    let late = me.say("mno");
    assert_eq!(scheduler_error(late.when_done()), SchedulerError::SchedulerStopped);
    assert_eq!(scheduler_error(me.cooperator.coiterate(iter::once(()))), SchedulerError::SchedulerStopped);
    assert_eq!(me.steps(3), "");
}

/// Callbacks of tasks that end may stop the Cooperator and other tasks, and start new ones.
#[test]
fn callbacks_may_do_anything() {
    let me = Fixture::new();
    let (one, two, three) = (me.say("a"), me.say("bcdef"), me.say("ghijk"));
    let (cooperator, log) = (me.cooperator.clone(), Rc::clone(&me.log));
    let third = three.when_done();
    drop(one.when_done().add_callback(move |()| {
        two.stop().unwrap();
        cooperator.stop();
        cooperator.start();
        drop(cooperator.cooperate(say(&log, "xyz")));
    }));
    assert_eq!(me.steps(4), "abg");
    assert_eq!(scheduler_error(third), SchedulerError::SchedulerStopped);
    assert_eq!(me.steps(4), "xyz");
}

/// A stopped Cooperator can be started again, for new tasks.
#[test]
fn a_stopped_cooperator_starts_again() {
    let me = Fixture::new();
    me.cooperator.stop();
    me.cooperator.stop();
    me.cooperator.start();
    assert!(me.cooperator.is_running());
    let _task = me.say("ab");
    assert_eq!(me.steps(2), "ab");
}

/// A Cooperator that was not started keeps its tasks until it is.
#[test]
fn a_cooperator_need_not_be_started() {
    let clock = testing::VirtualClock::new();
    let cooperator = Cooperator::builder(&clock).started(false).build();
    assert!(!cooperator.is_running());
    let log = Log::default();
    let done = cooperator.coiterate(say(&log, "ab"));
    assert!(clock.delayed_calls().is_empty());
    cooperator.start();
    assert!(cooperator.is_running());
    clock.advance(Duration::ZERO);
    assert_eq!(*log.borrow(), "ab");
    assert!(ended(done).is_ok());

    let idle = Cooperator::builder(&clock).started(false).build();
    let kept = idle.coiterate(say(&log, "c"));
    idle.stop();
    assert_eq!(scheduler_error(kept), SchedulerError::SchedulerStopped);
}

/// Dropped handles change nothing for running tasks. A task that can't be woken any more is
/// dropped, and its Deferreds fail.
#[test]
fn dropped_handles_change_nothing() {
    let clock = testing::VirtualClock::new();
    let log = Log::default();
    let (promise, deferred) = Promise::new();
    drop(Cooperator::new(&clock).cooperate(say(&log, "ab")));
    let waiting = Cooperator::new(&clock).coiterate(iter::once(deferred));
    clock.advance(Duration::ZERO);
    assert_eq!(*log.borrow(), "ab");
    promise.callback(()).unwrap();
    clock.advance(Duration::ZERO);
    assert!(ended(waiting).is_ok());

    let cooperator = Cooperator::new(&clock);
    let paused = cooperator.cooperate(say(&log, "c"));
    paused.pause().unwrap();
    let done = paused.when_done();
    drop(paused);
    assert!(ended(done).unwrap_err().check::<Abandoned>().is_some());

    let idle = Cooperator::builder(&clock).started(false).build();
    let done = idle.coiterate(say(&log, "d"));
    drop(idle);
    assert!(ended(done).unwrap_err().check::<Abandoned>().is_some());
}

/// A clock that goes stops the Cooperator, even if the tasks hold handles to it.
#[test]
fn a_clock_that_goes_stops_the_cooperator() {
    let clock = testing::VirtualClock::new();
    let cooperator = Cooperator::new(&clock);
    let inner = cooperator.clone();
    let held = Rc::new(());
    let token = Rc::clone(&held);
    let done = cooperator.coiterate(iter::repeat_with(move || drop((inner.clone(), Rc::clone(&token)))));
    clock.turn();
    drop(clock);
    assert_eq!(scheduler_error(done), SchedulerError::SchedulerStopped);
    assert_eq!(Rc::strong_count(&held), 1);
    cooperator.start();
    assert_eq!(scheduler_error(cooperator.coiterate(iter::once(()))), SchedulerError::SchedulerStopped);
}

/// An iterator that panics when it is dropped disturbs no other task.
#[test]
fn a_drop_that_panics_is_survived() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let me = Fixture::new();
    let bomb = Bomb;
    let done = me.cooperator.coiterate(iter::once(()).inspect(move |()| {
        let _ = &bomb;
    }));
    let other = me.say("abc");
    assert_eq!(me.steps(5), "abc");
    assert!(ended(done).is_ok());
    other.stop().unwrap_or_else(|ended| assert_eq!(ended, SchedulerError::TaskDone));
}

/// Tasks that wake each other do not keep the others from their turns: in each round each that is
/// ready has one step.
#[test]
fn no_task_is_passed_over() {
    let me = Fixture::new();
    let slot: Rc<RefCell<Option<Promise<()>>>> = Rc::default();
    for letter in ['a', 'b'] {
        let (slot, log) = (Rc::clone(&slot), Rc::clone(&me.log));
        drop(me.cooperator.cooperate(iter::repeat_with(move || {
            log.borrow_mut().push(letter);
            let (promise, deferred) = Promise::new();
            let other = slot.replace(Some(promise));
            if let Some(other) = other {
                other.callback(()).unwrap();
            }
            deferred
        })));
    }
    let _other = me.say("cccccc");
    for _ in 0..5 {
        let mut round: Vec<_> = me.steps(3).chars().collect();
        round.sort_unstable();
        assert_eq!(round, ['a', 'b', 'c']);
    }
}

/// On a reactor each slice is a part of one turn, after which the others have theirs.
#[test]
fn a_reactor_turns_between_slices() {
    let reactor = Reactor::builder().signals(false).build().unwrap();
    let (steps, calls) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (step, call) = (Rc::clone(&steps), Rc::clone(&calls));
    let task = Cooperator::new(&reactor).cooperate(iter::repeat_with(move || step.set(step.get() + 1)));
    let other = LoopingCall::new(&reactor, move || call.set(call.get() + 1));
    let ended = other.start_later(Duration::ZERO);
    for turn in 1..=10 {
        let before = steps.get();
        reactor.iterate(Duration::ZERO).unwrap();
        assert!((1..=1_000).contains(&(steps.get() - before)));
        assert_eq!(calls.get(), turn);
    }
    task.stop().unwrap();
    drop(reactor);
    assert!(self::ended(ended).unwrap_err().check::<Abandoned>().is_some());
}

/// 100,000 steps, with Deferreds that have fired and Deferreds that fire later, take no stack.
#[test]
fn many_steps_take_no_stack() {
    let clock = testing::VirtualClock::new();
    let cooperator = Cooperator::new(&clock);
    let fired = cooperator.coiterate((0..100_000).map(|_| Deferred::succeed(())));
    let timers = clock.timers().clone();
    let later = cooperator
        .coiterate((0..100_000).map(move |_| ropewalk::task::defer_later(&timers, Duration::from_nanos(1), || ())));
    for _ in 0..100_001 {
        clock.advance(Duration::from_nanos(1));
    }
    assert!(ended(fired).is_ok() && ended(later).is_ok());
    assert!(clock.delayed_calls().is_empty());
}
