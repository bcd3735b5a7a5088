//! Random histories, played on a LoopingCall and on a model that is too simple to be wrong:
//! numbers, and one list of runs.
//!
//! The same kind of history (3,000 of them, without what Twisted does otherwise: restarts and
//! cancels) was played once on the LoopingCall of Twisted 26.10 and on ours, with the same events
//! in the same order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::common::seeds;
use proptest::prelude::*;
use ropewalk::deferred::{Cancelled, Canceller, Promise, unhandled};
use ropewalk::failure::Panicked;
use ropewalk::task::{LoopingCall, LoopingCallError};
use ropewalk::{Clock, Deferred, testing};

proptest! {
    #![proptest_config(ProptestConfig { cases: seeds(600, 20_000), ..ProptestConfig::default() })]

    /// Whatever is asked for, from outside or from inside the function, happens as in the model.
    #[test]
    fn a_looping_call_does_what_the_model_does(script in script(), history in history()) {
        let ((real, model), unheard) = unhandled::collect(|| play(script, &history));
        drop(real);
        let unheard = unheard.iter().filter(|unheard| unheard.failure.check::<Cancelled>().is_none());
        assert_eq!(unheard.count(), model.unheard);
    }
}

fn play(script: Vec<Call>, history: &[Action]) -> (Rc<Real>, Model) {
    let (real, mut model) = (Real::new(script.clone()), Model::new(script));
    for action in history {
        real.act(*action);
        model.act(*action);
        assert_eq!(real.events.take(), std::mem::take(&mut model.events), "in {action:?}");
        assert_eq!(real.looping.is_running(), model.present.is_some(), "after {action:?}");
        let due: Vec<_> = real.clock.delayed_calls().iter().map(|call| call.time().as_millis() as i64).collect();
        assert_eq!(due, Vec::from_iter(model.due), "after {action:?}");
    }
    (real, model)
}

/// A request to the loop, made outside of the function or in it. Times are in ms.
#[derive(Clone, Copy, Debug)]
enum Action {
    Advance(i64),
    Start(i64),
    StartLater(i64),
    Stop,
    Reset,
    /// The Deferred of the latest start.
    Cancel,
    /// Fires the Deferred that the function has returned.
    Fire(bool),
}

/// The actions of the function in one call, and its result.
#[derive(Clone, Debug)]
struct Call(Vec<Action>, Returned);

#[derive(Clone, Copy, Debug)]
enum Returned {
    Value,
    Failure,
    Panic,
    /// A Deferred that has no result yet.
    Later,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..40_i64).prop_map(Action::Advance),
        2 => (1..12_i64).prop_map(Action::Start),
        2 => (1..12_i64).prop_map(Action::StartLater),
        2 => Just(Action::Stop),
        3 => Just(Action::Reset),
        1 => Just(Action::Cancel),
        4 => prop::bool::weighted(0.9).prop_map(Action::Fire),
    ]
}

fn history() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(action(), 1..40)
}

fn script() -> impl Strategy<Value = Vec<Call>> {
    let returned = prop_oneof![
        6 => Just(Returned::Value),
        4 => Just(Returned::Later),
        1 => Just(Returned::Failure),
        1 => Just(Returned::Panic),
    ];
    let actions = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(action(), 0..4)];
    prop::collection::vec((actions, returned).prop_map(|(actions, returned)| Call(actions, returned)), 0..20)
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Called { at: i64, count: i64 },
    Answered(bool),
    Ended { start: usize, how: How },
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum How {
    Stopped,
    Failed,
    Panicked,
    Cancelled,
    AlreadyRunning,
}

/// The loop itself.
struct Real {
    clock: testing::VirtualClock,
    looping: LoopingCall,
    script: RefCell<VecDeque<Call>>,
    events: RefCell<Vec<Event>>,
    /// One for each start that has returned.
    cancellers: RefCell<Vec<Option<Canceller>>>,
    awaited: RefCell<Option<Promise<()>>>,
}

impl Real {
    fn new(script: Vec<Call>) -> Rc<Self> {
        let clock = testing::VirtualClock::new();
        Rc::new_cyclic(|me: &Weak<Self>| {
            let me = Weak::clone(me);
            let looping = LoopingCall::with_count(&clock, move |count| me.upgrade().unwrap().called(count));
            Self {
                clock,
                looping,
                script: RefCell::new(script.into()),
                events: RefCell::default(),
                cancellers: RefCell::default(),
                awaited: RefCell::default(),
            }
        })
    }

    fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::Advance(by) => self.clock.advance(Duration::from_millis(by as u64)),
            Action::Start(interval) => self.start(|looping| looping.start(Duration::from_millis(interval as u64))),
            Action::StartLater(interval) => {
                self.start(|looping| looping.start_later(Duration::from_millis(interval as u64)));
            }
            Action::Stop => {
                let answer = self.looping.stop();
                self.note(Event::Answered(answer.is_ok()));
            }
            Action::Reset => {
                let answer = self.looping.reset();
                self.note(Event::Answered(answer.is_ok()));
            }
            Action::Cancel => {
                let latest = self.cancellers.borrow().last().cloned().flatten();
                if let Some(canceller) = latest {
                    canceller.cancel();
                }
            }
            Action::Fire(well) => {
                let awaited = self.awaited.take();
                if let Some(promise) = awaited {
                    promise.complete(if well { Ok(()) } else { Err("late".into()) }).unwrap();
                }
            }
        }
    }

    fn start(self: &Rc<Self>, start: impl FnOnce(&LoopingCall) -> Deferred<()>) {
        let number = self.cancellers.borrow().len();
        self.cancellers.borrow_mut().push(None);
        let ended = start(&self.looping);
        self.cancellers.borrow_mut()[number] = Some(ended.canceller());
        let me = Rc::clone(self);
        drop(ended.add_both(move |result| {
            let how = match result {
                Ok(()) => How::Stopped,
                Err(failure) if failure.check::<Cancelled>().is_some() => How::Cancelled,
                Err(failure) if failure.check::<Panicked>().is_some() => How::Panicked,
                Err(failure) if failure.check::<LoopingCallError>().is_some() => How::AlreadyRunning,
                Err(_) => How::Failed,
            };
            me.note(Event::Ended { start: number, how });
        }));
    }

    fn called(self: &Rc<Self>, count: u64) -> Deferred<()> {
        self.note(Event::Called { at: self.clock.seconds().as_millis() as i64, count: count as i64 });
        let call = self.script.borrow_mut().pop_front();
        let Call(actions, returned) = call.unwrap_or(Call(Vec::new(), Returned::Value));
        actions.into_iter().for_each(|action| self.act(action));
        match returned {
            Returned::Value => Deferred::succeed(()),
            Returned::Failure => Deferred::fail("at once"),
            Returned::Panic => std::panic::resume_unwind(Box::new("without a word")),
            Returned::Later => {
                let (promise, deferred) = Promise::new();
                self.awaited.replace(Some(promise));
                deferred
            }
        }
    }
}

#[derive(Default)]
struct Model {
    now: i64,
    script: VecDeque<Call>,
    runs: Vec<Run>,
    /// The run that goes on, the one whose call is not over, and whether that waits for a Deferred.
    present: Option<usize>,
    calling: Option<usize>,
    is_waiting: bool,
    /// When the next call is due.
    due: Option<i64>,
    events: Vec<Event>,
    /// Number of failures without a waiter.
    unheard: usize,
}

struct Run {
    began: i64,
    interval: i64,
    at_once: bool,
    counted: Option<i64>,
    has_ended: bool,
    has_returned: bool,
    given_up: bool,
}

impl Model {
    fn new(script: Vec<Call>) -> Self {
        Self { script: script.into(), ..Self::default() }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Advance(by) => {
                self.now += by;
                while self.due.is_some_and(|due| due <= self.now) {
                    self.due = None;
                    self.call(self.present.unwrap());
                }
            }
            Action::Start(interval) => self.start(interval, true),
            Action::StartLater(interval) => self.start(interval, false),
            Action::Stop => {
                let present = self.present.take();
                if let Some(run) = present.filter(|_| self.calling != present) {
                    self.due = None;
                    self.end(run, How::Stopped);
                }
                self.events.push(Event::Answered(present.is_some()));
            }
            Action::Reset => {
                self.events.push(Event::Answered(self.present.is_some()));
                if let (Some(run), true) = (self.present, self.due.is_some()) {
                    (self.runs[run].began, self.runs[run].at_once) = (self.now, false);
                    self.due = Some(self.now + self.runs[run].interval);
                }
            }
            Action::Cancel => self.cancel(),
            Action::Fire(well) => {
                if std::mem::take(&mut self.is_waiting) {
                    self.over(if well { How::Stopped } else { How::Failed });
                }
            }
        }
    }

    fn start(&mut self, interval: i64, at_once: bool) {
        let run = self.runs.len();
        let (began, counted) = (self.now, None);
        self.runs.push(Run {
            began,
            interval,
            at_once,
            counted,
            has_ended: false,
            has_returned: false,
            given_up: false,
        });
        if self.present.is_some() {
            self.end(run, How::AlreadyRunning);
        } else {
            self.present = Some(run);
            if self.calling.is_none() {
                if at_once { self.call(run) } else { self.due = Some(self.now + interval) }
            }
        }
        self.runs[run].has_returned = true;
    }

    fn cancel(&mut self) {
        let Some(run) = self.runs.len().checked_sub(1).filter(|run| self.runs[*run].has_returned) else { return };
        if self.runs[run].has_ended {
            return;
        }
        if self.present == Some(run) {
            (self.present, self.due) = (None, None);
        }
        self.runs[run].given_up = true;
        if self.calling == Some(run) && std::mem::take(&mut self.is_waiting) {
            self.over(How::Cancelled);
        } else {
            self.end(run, How::Cancelled);
        }
    }

    fn call(&mut self, run: usize) {
        self.calling = Some(run);
        let Run { began, interval, at_once, counted, .. } = self.runs[run];
        let last = counted.unwrap_or(if at_once { began - interval } else { began });
        let count = (self.now - began) / interval - (last - began) / interval;
        self.runs[run].counted = Some(self.now);
        assert!(count > 0);
        self.events.push(Event::Called { at: self.now, count });
        let Call(actions, returned) = self.script.pop_front().unwrap_or(Call(Vec::new(), Returned::Value));
        actions.into_iter().for_each(|action| self.act(action));
        match returned {
            Returned::Value => self.over(How::Stopped),
            Returned::Failure => self.over(How::Failed),
            Returned::Panic => self.over(How::Panicked),
            Returned::Later if self.runs[run].given_up => self.over(How::Cancelled),
            Returned::Later => self.is_waiting = true,
        }
    }

    fn over(&mut self, how: How) {
        let run = self.calling.take().unwrap();
        if self.present == Some(run) && how != How::Stopped {
            self.present = None;
        }
        if let Some(next) = self.present {
            let Run { began, interval, at_once, .. } = self.runs[next];
            let is_first = next != run && at_once;
            let slot = began + ((self.now - began) / interval + 1) * interval;
            self.due = Some(if is_first { self.now } else { slot });
        }
        if self.present != Some(run) {
            self.end(run, how);
        }
    }

    fn end(&mut self, start: usize, how: How) {
        if !std::mem::replace(&mut self.runs[start].has_ended, true) {
            self.events.push(Event::Ended { start, how });
        } else if matches!(how, How::Failed | How::Panicked) {
            self.unheard += 1;
        }
    }
}
