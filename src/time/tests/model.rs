//! Random histories, played on the timers and on a model that is too simple to be wrong: a list,
//! sorted when a turn begins. The events, and the state of every call afterwards, must be the same.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Clock, DelayedCall, Timers};
use crate::error::TimerError;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Every request, from outside or from inside a call, has the effect that it has in the model
    /// (F25, F28, F29, F30).
    #[test]
    fn timers_do_what_the_model_does(history in history()) {
        play(&history);
    }
}

/// The same with so many calls, moves and cancellations that the queue is deep.
#[test]
fn a_long_history_is_that_of_the_model() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut history: Vec<Step> =
        (0..1_000).map(|_| Step::Act(Action::Later(Duration::from_nanos(random(2_000)), Vec::new()))).collect();
    for step in 0..1_000 {
        let (which, by) = (random(1_000) as usize, Duration::from_nanos(random(1_000)));
        history.push(Step::Act(match random(4) {
            0 => Action::Cancel(which),
            1 => Action::Reset(which, by),
            2 => Action::Delay(which, by),
            _ => Action::Hasten(which, by),
        }));
        if step % 100 == 0 {
            history.push(Step::Turn { after: Duration::from_nanos(60), budget: 50 });
        }
    }
    history.push(Step::Turn { after: Duration::from_secs(1), budget: usize::MAX });
    play(&history);
}

fn play(history: &[Step]) {
    let (real, mut model) = (Rc::new(Real::new()), Model::default());
    for step in history {
        match step {
            Step::Act(action) => {
                real.act(action);
                model.act(action);
            }
            Step::Turn { after, budget } => {
                real.act(&Action::Tick(*after));
                real.turn(*budget);
                model.act(&Action::Tick(*after));
                model.turn(*budget);
            }
        }
        assert_eq!(real.events.take(), std::mem::take(&mut model.events), "in {step:?}");
        assert_eq!(real.states(), model.states(), "after {step:?}");
        assert_eq!(real.timers.delayed_calls(), real.handles(&model.pending()), "after {step:?}");
        assert_eq!(real.timers.len(), model.pending().len());
        // The question sorts new calls into the heap. So it is left out behind most requests.
        if matches!(step, Step::Turn { .. } | Step::Act(Action::Tick(_))) {
            assert_eq!(real.timers.next_deadline(), model.next_deadline());
        }
        assert_eq!(Rc::strong_count(&real.token) - 1, model.pending().len(), "functions are kept while pending, only");
        real.timers.0.queue.borrow().check();
    }
    real.timers.close();
    assert_eq!(Rc::strong_count(&real.token), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Act(Action),
    /// Time passes, and then at most `budget` calls are made.
    Turn {
        after: Duration,
        budget: usize,
    },
}

/// The requests of a program, outside of calls and in them. Calls are named by the order of their
/// scheduling.
#[derive(Clone, Debug)]
enum Action {
    Later(Duration, Vec<Self>),
    Cancel(usize),
    Reset(usize, Duration),
    Delay(usize, Duration),
    Hasten(usize, Duration),
    Tick(Duration),
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let turn = (delay(), prop_oneof![3 => Just(usize::MAX), 1 => 0..4_usize])
        .prop_map(|(after, budget)| Step::Turn { after, budget });
    prop::collection::vec(prop_oneof![3 => action(2).prop_map(Step::Act), 1 => turn], 1..60)
}

fn action(depth: u32) -> BoxedStrategy<Action> {
    let plain = prop_oneof![
        3 => delay().prop_map(|delay| Action::Later(delay, Vec::new())),
        1 => (0..40_usize).prop_map(Action::Cancel),
        1 => (0..40_usize, delay()).prop_map(|(which, by)| Action::Reset(which, by)),
        1 => (0..40_usize, delay()).prop_map(|(which, by)| Action::Delay(which, by)),
        1 => (0..40_usize, delay()).prop_map(|(which, by)| Action::Hasten(which, by)),
        1 => (0..3_u64).prop_map(|ms| Action::Tick(Duration::from_millis(ms))),
    ];
    if depth == 0 {
        return plain.boxed();
    }
    let scripted = (delay(), prop::collection::vec(action(depth - 1), 0..4))
        .prop_map(|(delay, script)| Action::Later(delay, script));
    prop_oneof![2 => plain, 1 => scripted].boxed()
}

/// Mostly so short that deadlines are often equal and calls often due; sometimes absurd.
fn delay() -> impl Strategy<Value = Duration> {
    prop_oneof![
        20 => (0..6_u64).prop_map(Duration::from_millis),
        1 => Just(Duration::MAX),
        1 => any::<u64>().prop_map(Duration::from_nanos),
    ]
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Called(usize),
    Answered(usize, Result<(), TimerError>),
}

/// The timers themselves.
struct Real {
    now: Rc<Cell<Duration>>,
    timers: Timers,
    calls: RefCell<Vec<DelayedCall>>,
    events: RefCell<Vec<Event>>,
    /// Captured by every function.
    token: Rc<()>,
}

impl Real {
    fn new() -> Self {
        let now: Rc<Cell<Duration>> = Rc::default();
        let source = Rc::clone(&now);
        let timers = Timers::new(move || source.get());
        Self { now, timers, calls: RefCell::default(), events: RefCell::default(), token: Rc::default() }
    }

    fn act(self: &Rc<Self>, action: &Action) {
        match action {
            Action::Later(delay, script) => {
                let (me, token, script) = (Rc::clone(self), Rc::clone(&self.token), script.clone());
                let id = self.calls.borrow().len();
                let call = self.timers.call_later(*delay, move || {
                    me.events.borrow_mut().push(Event::Called(id));
                    script.iter().for_each(|action| me.act(action));
                    drop(token);
                });
                self.calls.borrow_mut().push(call);
            }
            Action::Cancel(which) => self.ask(*which, DelayedCall::cancel),
            Action::Reset(which, by) => self.ask(*which, |call| call.reset(*by)),
            Action::Delay(which, by) => self.ask(*which, |call| call.delay(*by)),
            Action::Hasten(which, by) => self.ask(*which, |call| call.hasten(*by)),
            Action::Tick(by) => self.now.set(self.now.get().saturating_add(*by)),
        }
    }

    fn ask(&self, which: usize, request: impl FnOnce(&DelayedCall) -> Result<(), TimerError>) {
        let call = self.calls.borrow().get(which).cloned();
        if let Some(call) = call {
            let result = request(&call);
            self.events.borrow_mut().push(Event::Answered(which, result));
        }
    }

    fn turn(&self, budget: usize) {
        self.timers.begin(self.now.get()).take(budget).for_each(|ready| ready.run());
    }

    fn states(&self) -> Vec<(bool, Duration)> {
        self.calls.borrow().iter().map(|call| (call.active(), call.time())).collect()
    }

    /// Returns the handles of these calls.
    fn handles(&self, calls: &[usize]) -> Vec<DelayedCall> {
        calls.iter().map(|which| self.calls.borrow()[*which].clone()).collect()
    }
}

#[derive(Default)]
struct Model {
    now: u128,
    turn_began: u128,
    arrivals: usize,
    calls: Vec<ModelCall>,
    events: Vec<Event>,
}

struct ModelCall {
    at: u128,
    arrival: usize,
    ended: Option<TimerError>,
    script: Vec<Action>,
}

impl Model {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Later(delay, script) => {
                self.calls.push(ModelCall { at: 0, arrival: 0, ended: None, script: script.clone() });
                self.arrive(self.calls.len() - 1, self.now + delay.as_nanos());
            }
            Action::Cancel(which) => self.ask(*which, |me, which| {
                me.calls[which].ended = Some(TimerError::AlreadyCancelled);
            }),
            Action::Reset(which, by) => self.ask(*which, |me, which| me.arrive(which, me.now + by.as_nanos())),
            Action::Delay(which, by) => {
                self.ask(*which, |me, which| me.arrive(which, me.calls[which].at + by.as_nanos()));
            }
            Action::Hasten(which, by) => {
                self.ask(*which, |me, which| me.arrive(which, me.calls[which].at.saturating_sub(by.as_nanos())));
            }
            Action::Tick(by) => self.now = (self.now + by.as_nanos()).min(Duration::MAX.as_nanos()),
        }
    }

    fn arrive(&mut self, which: usize, at: u128) {
        self.calls[which].at = at.max(self.turn_began).min(FAR);
        self.calls[which].arrival = self.arrivals;
        self.arrivals += 1;
    }

    fn ask(&mut self, which: usize, change: impl FnOnce(&mut Self, usize)) {
        let Some(call) = self.calls.get(which) else { return };
        let answer = call.ended.map_or(Ok(()), Err);
        if answer.is_ok() {
            change(self, which);
        }
        self.events.push(Event::Answered(which, answer));
    }

    fn turn(&mut self, budget: usize) {
        self.turn_began = self.now.min(FAR);
        let due: Vec<(usize, usize)> = self
            .pending()
            .into_iter()
            .map(|which| (which, self.calls[which].arrival))
            .filter(|&(which, _)| self.calls[which].at <= self.now)
            .collect();
        let mut made = 0;
        for (which, arrival) in due {
            if made == budget {
                break;
            }
            let call = &mut self.calls[which];
            if call.ended.is_none() && call.arrival == arrival {
                made += 1;
                call.ended = Some(TimerError::AlreadyCalled);
                self.events.push(Event::Called(which));
                for action in std::mem::take(&mut self.calls[which].script) {
                    self.act(&action);
                }
            }
        }
    }

    fn states(&self) -> Vec<(bool, Duration)> {
        self.calls.iter().map(|call| (call.ended.is_none(), nanos(call.at))).collect()
    }

    fn pending(&self) -> Vec<usize> {
        let mut pending: Vec<usize> =
            (0..self.calls.len()).filter(|which| self.calls[*which].ended.is_none()).collect();
        pending.sort_by_key(|which| (self.calls[*which].at, self.calls[*which].arrival));
        pending
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.pending().first().map(|which| nanos(self.calls[*which].at))
    }
}

/// The latest possible deadline.
const FAR: u128 = (1 << 62) - 1;

fn nanos(at: u128) -> Duration {
    Duration::from_nanos(at as u64)
}
