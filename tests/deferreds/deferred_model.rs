//! Random programs over Deferreds do what a small model of them does: callbacks, errbacks, firings,
//! pauses, cancels, and chains that wait for one another, in any order.

use std::cell::RefCell;
use std::rc::Rc;

use crate::common::{own_process, seeds};
use proptest::prelude::*;
use ropewalk::deferred::{Abandoned, Cancelled, Circular, Exhausted, Pause, Promise, unhandled};
use ropewalk::failure::Panicked;
use ropewalk::{Deferred, Result};

/// The effect of a callback on a value or a failure. Both are numbers, so results can be compared.
#[derive(Debug, Clone, Copy)]
enum Callback {
    /// A value becomes the next one; a failure passes.
    Add,
    /// A value becomes a failure; a failure passes.
    Raise,
    /// A value becomes a failure by a panic; a failure passes.
    Panic,
    /// A failure becomes a value; a value passes.
    Recover,
    /// Either becomes the other.
    Swap,
    /// Either becomes the result of a chain that is so many further on (cycles would wait for
    /// ever), or its own. That one is used up.
    Wait(usize),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Callback(usize, Callback),
    Fire(usize, bool),
    Cancel(usize),
    Pause(usize),
    Unpause(usize),
    /// The promise goes.
    Abandon(usize),
}

const CHAINS: usize = 5;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let callback = prop_oneof![
        3 => Just(Callback::Add),
        1 => Just(Callback::Raise),
        1 => Just(Callback::Panic),
        2 => Just(Callback::Recover),
        1 => Just(Callback::Swap),
        4 => (0..CHAINS).prop_map(Callback::Wait),
    ];
    let chain = 0..CHAINS;
    let step = prop_oneof![
        8 => (chain.clone(), callback).prop_map(|(chain, callback)| Step::Callback(chain, callback)),
        3 => (chain.clone(), any::<bool>()).prop_map(|(chain, good)| Step::Fire(chain, good)),
        1 => chain.clone().prop_map(Step::Cancel),
        1 => chain.clone().prop_map(Step::Pause),
        2 => chain.clone().prop_map(Step::Unpause),
        1 => chain.prop_map(Step::Abandon),
    ];
    prop::collection::vec(step, 1..60)
}

/// A result as a number: a value, or a failure.
type Number = std::result::Result<u32, u32>;

const CANCELLED: Number = Err(1_000_001);
const ABANDONED: Number = Err(1_000_002);
const PANICKED: Number = Err(1_000_003);
const CIRCULAR: Number = Err(1_000_004);
const EXHAUSTED: Number = Err(1_000_005);

/// The calls that were made: chain, callback and argument; and the firings that were accepted.
type Log = Vec<(usize, usize, Number)>;

/// Stands in the log for a firing.
const FIRED: usize = usize::MAX;

/// The model: a chain is its callbacks, how far it got, and the result there.
#[derive(Default, Clone)]
struct Chain {
    callbacks: Vec<Callback>,
    /// How many pauses stand before each callback, and behind the last.
    pauses: Vec<usize>,
    at: usize,
    result: Option<Number>,
    fired: bool,
    swallows: bool,
    waits_for: Option<usize>,
    follower: Option<usize>,
    used_up: bool,
}

#[derive(Default)]
struct Model {
    chains: Vec<Chain>,
    log: Log,
}

impl Model {
    fn fire(&mut self, chain: usize, result: Number) -> bool {
        let it = &mut self.chains[chain];
        if it.fired {
            return std::mem::take(&mut it.swallows);
        }
        (it.fired, it.result) = (true, Some(result));
        self.run(chain);
        true
    }

    fn run(&mut self, mut chain: usize) {
        while self.chains[chain].pauses[self.chains[chain].at] == 0 {
            let it = &mut self.chains[chain];
            let Some(result) = it.result.take() else { return };
            if let Some(&callback) = it.callbacks.get(it.at) {
                self.log.push((chain, it.at, result));
                it.at += 1;
                let result = match (callback, result) {
                    (Callback::Add, Ok(n)) => Some(Ok(n + 1)),
                    (Callback::Raise | Callback::Swap, Ok(n)) => Some(Err(n)),
                    (Callback::Panic, Ok(_)) => Some(PANICKED),
                    (Callback::Recover | Callback::Swap, Err(n)) => Some(Ok(n)),
                    (Callback::Wait(further), _) => self.wait(chain, inner(chain, further)),
                    (_, passed) => Some(passed),
                };
                self.chains[chain].result = result;
            } else if let Some(follower) = it.follower.take() {
                (self.chains[follower].result, self.chains[follower].waits_for) = (Some(result), None);
                chain = follower;
            } else {
                it.result = Some(result);
                return;
            }
        }
    }

    /// The result of another chain, if it is there.
    fn wait(&mut self, chain: usize, inner: usize) -> Option<Number> {
        let it = &mut self.chains[inner];
        if std::mem::replace(&mut it.used_up, true) {
            return Some(EXHAUSTED);
        }
        if inner == chain {
            return Some(CIRCULAR);
        }
        if it.at == it.callbacks.len() && it.pauses[it.at] == 0 && it.result.is_some() {
            return it.result.take();
        }
        it.follower = Some(chain);
        self.chains[chain].waits_for = Some(inner);
        None
    }

    fn cancel(&mut self, mut chain: usize) {
        while let Some(inner) = self.chains[chain].waits_for {
            chain = inner;
        }
        if !self.chains[chain].fired {
            self.fire(chain, CANCELLED);
            self.chains[chain].swallows = true;
        }
    }
}

fn inner(chain: usize, further: usize) -> usize {
    (chain + further).min(CHAINS - 1)
}

/// The real thing, driven in the same way.
struct Real {
    promises: Vec<Option<Promise<u32>>>,
    ends: Ends,
    pauses: Vec<Vec<Pause<u32>>>,
    log: Rc<RefCell<Log>>,
}

type Ends = Rc<RefCell<Vec<Option<Deferred<u32>>>>>;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Numbered(u32);

fn number(result: &Result<u32>) -> Number {
    let failure = match result {
        Ok(n) => return Ok(*n),
        Err(failure) => failure,
    };
    let known = [
        (failure.check::<Cancelled>().is_some(), CANCELLED),
        (failure.check::<Abandoned>().is_some(), ABANDONED),
        (failure.check::<Panicked>().is_some(), PANICKED),
        (failure.check::<Circular>().is_some(), CIRCULAR),
        (failure.check::<Exhausted>().is_some(), EXHAUSTED),
    ];
    known.iter().find(|(is, _)| *is).map_or_else(|| Err(failure.check::<Numbered>().unwrap().0), |(_, number)| *number)
}

fn result(number: Number) -> Result<u32> {
    number.map_err(|n| match Err(n) {
        CANCELLED => Cancelled.into(),
        ABANDONED => Abandoned.into(),
        CIRCULAR => Circular.into(),
        EXHAUSTED => Exhausted.into(),
        _ => Numbered(n).into(),
    })
}

impl Real {
    fn new() -> Self {
        let (promises, ends): (Vec<_>, Vec<_>) = (0..CHAINS).map(|_| Promise::new()).unzip();
        Self {
            promises: promises.into_iter().map(Some).collect(),
            ends: Rc::new(RefCell::new(ends.into_iter().map(Some).collect())),
            pauses: (0..CHAINS).map(|_| Vec::new()).collect(),
            log: Rc::default(),
        }
    }

    fn add(&self, chain: usize, at: usize, callback: Callback) {
        let Some(end) = self.take(chain) else { return };
        let (ends, log) = (Rc::clone(&self.ends), Rc::clone(&self.log));
        let end = end.add_both(move |given| {
            log.borrow_mut().push((chain, at, number(&given)));
            match (callback, given) {
                (Callback::Add, Ok(n)) => Deferred::succeed(n + 1),
                (Callback::Raise | Callback::Swap, Ok(n)) => Deferred::fail(Numbered(n)),
                (Callback::Panic, Ok(_)) => panic!("as it was told"),
                (Callback::Recover | Callback::Swap, Err(failure)) => {
                    Deferred::succeed(number(&Err(failure)).unwrap_err())
                }
                (Callback::Wait(further), _) => {
                    let other = ends.borrow_mut()[inner(chain, further)].take();
                    other.unwrap_or_else(|| Deferred::fail(Exhausted))
                }
                (_, passed) => Deferred::with_result(passed),
            }
        });
        // A callback that ran at once may have used up its own chain.
        self.ends.borrow_mut()[chain] = Some(end);
    }

    fn take(&self, chain: usize) -> Option<Deferred<u32>> {
        self.ends.borrow_mut()[chain].take()
    }
}

/// Runs a program on both, and compares after every step.
fn check(steps: Vec<Step>) {
    let (model, reports) = unhandled::collect(|| run(steps));
    let lost = model.chains.iter().filter(|it| it.used_up && matches!(it.result, Some(Err(_)))).count();
    assert_eq!(reports.len(), lost, "failures without an errback");
}

fn run(steps: Vec<Step>) -> Model {
    let mut model = Model { chains: vec![Chain { pauses: vec![0], ..Chain::default() }; CHAINS], log: Log::new() };
    let mut real = Real::new();
    // Where the pauses of each chain stand, the oldest first.
    let mut paused = vec![Vec::new(); CHAINS];
    let everything_ends =
        (0..CHAINS).flat_map(|chain| [Step::Abandon(chain)].into_iter().chain([Step::Unpause(chain); 60]));
    for step in steps.into_iter().chain(everything_ends) {
        match step {
            Step::Callback(chain, callback) => {
                let it = &mut model.chains[chain];
                if it.used_up {
                    continue;
                }
                let at = it.callbacks.len();
                // A chain without its own end cannot be waited for by its own callback.
                let own = matches!(callback, Callback::Wait(further) if inner(chain, further) == chain);
                if own && it.at == at && it.result.is_some() && it.pauses[at] == 0 {
                    continue;
                }
                it.callbacks.push(callback);
                it.pauses.push(0);
                model.run(chain);
                real.add(chain, at, callback);
            }
            Step::Fire(chain, good) => {
                let given = if good { Ok(7) } else { Err(8) };
                let Some(promise) = &real.promises[chain] else { continue };
                let taken = promise.complete(result(given)).is_ok();
                real.log.borrow_mut().push((chain, FIRED, Ok(u32::from(taken))));
                let taken = model.fire(chain, given);
                model.log.push((chain, FIRED, Ok(u32::from(taken))));
            }
            Step::Cancel(chain) => {
                if model.chains[chain].used_up {
                    continue;
                }
                let canceller = real.ends.borrow()[chain].as_ref().unwrap().canceller();
                canceller.cancel();
                model.cancel(chain);
            }
            Step::Pause(chain) => {
                if let Some(end) = &mut real.ends.borrow_mut()[chain] {
                    real.pauses[chain].push(end.pause());
                    let it = &mut model.chains[chain];
                    *it.pauses.last_mut().unwrap() += 1;
                    paused[chain].push(it.callbacks.len());
                }
            }
            Step::Unpause(chain) => {
                if !paused[chain].is_empty() {
                    drop(real.pauses[chain].remove(0));
                    model.chains[chain].pauses[paused[chain].remove(0)] -= 1;
                    model.run(chain);
                }
            }
            Step::Abandon(chain) => {
                if real.promises[chain].take().is_some() && !model.chains[chain].fired {
                    model.fire(chain, ABANDONED);
                }
            }
        }
        assert_eq!(*real.log.borrow(), model.log);
        for (chain, it) in model.chains.iter().enumerate().filter(|(_, it)| !it.used_up) {
            let there = it.at == it.callbacks.len() && it.pauses[it.at] == 0 && it.result.is_some();
            assert_eq!(real.ends.borrow()[chain].as_ref().unwrap().is_called(), there, "chain {chain}");
        }
    }
    for (chain, it) in model.chains.iter().enumerate().filter(|(_, it)| !it.used_up) {
        let there = real.take(chain).unwrap().take_result();
        assert_eq!(there.as_ref().map(number), it.result, "chain {chain}");
    }
    model
}

#[test]
fn deferreds_do_what_the_model_does() {
    own_process!();
    let config =
        ProptestConfig { cases: if cfg!(miri) { 20 } else { seeds(600, 20_000) }, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        // The panics of callbacks are part of it.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let checked = std::panic::catch_unwind(|| check(steps));
        std::panic::set_hook(hook);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
}
