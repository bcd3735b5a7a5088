//! Many Deferreds at once: lists with their flags, gathering, racing, and cancelling through each.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::deferred::{
    Cancelled, DeferredList, FailureGroup, FirstError, Listed, NoDeferreds, Promise, gather_or_cancel, gather_results,
    race, unhandled,
};
use ropewalk::{Deferred, Failure, Result};

type Cancels = Rc<RefCell<Vec<usize>>>;

/// So many unfired Deferreds, and who was cancelled.
fn unfired(count: usize) -> (Vec<Promise<u32>>, Vec<Deferred<u32>>, Cancels) {
    let cancels = Cancels::default();
    let pairs = (0..count).map(|index| {
        let cancels = Rc::clone(&cancels);
        Promise::with_canceller(move || cancels.borrow_mut().push(index))
    });
    let (promises, deferreds) = pairs.unzip();
    (promises, deferreds, cancels)
}

fn fails<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// Each result as text, so that lists of them can be compared.
fn texts(listed: Listed<u32>) -> Vec<String> {
    let text = |result: Result<u32>| match result {
        Ok(value) => value.to_string(),
        Err(failure) => failure.to_string(),
    };
    match listed {
        Listed::All(results) => results.into_iter().map(text).collect(),
        Listed::First { value, index } => vec![format!("{value} from {index}")],
    }
}

/// A list waits for every result, in whatever order they come, and gives them in the order of the
/// Deferreds.
#[test]
fn a_list_gives_every_result_in_order() {
    let (promises, deferreds, _) = unfired(3);
    let mut list = DeferredList::new(deferreds).into_deferred();
    promises[2].callback(2).unwrap();
    promises[0].callback(0).unwrap();
    assert!(!list.is_called());
    promises[1].errback("one").unwrap();
    assert_eq!(texts(list.take_result().unwrap().unwrap()), ["0", "one", "2"]);
}

/// A list of nothing, and one of results that are there, has its result at once.
#[test]
fn a_list_may_be_there_at_once() {
    let mut nothing = DeferredList::<u32>::new([]).into_deferred();
    assert_eq!(texts(nothing.take_result().unwrap().unwrap()), [""; 0]);
    let mut there = DeferredList::new([Deferred::succeed(1), Deferred::succeed(2)]).into_deferred();
    assert_eq!(texts(there.take_result().unwrap().unwrap()), ["1", "2"]);
}

/// With `fire_on_one_callback` the first value is the result, and failures before it are not; if
/// all fail, all are listed.
#[test]
fn a_list_can_fire_on_one_callback() {
    let (promises, deferreds, _) = unfired(3);
    let mut list = DeferredList::new(deferreds).fire_on_one_callback(true).into_deferred();
    promises[0].errback("zero").unwrap();
    assert!(!list.is_called());
    promises[2].callback(7).unwrap();
    assert_eq!(texts(list.take_result().unwrap().unwrap()), ["7 from 2"]);
    promises[1].callback(8).unwrap();

    let (promises, deferreds, _) = unfired(2);
    let mut list = DeferredList::new(deferreds).fire_on_one_callback(true).into_deferred();
    for promise in &promises {
        promise.errback("no").unwrap();
    }
    assert_eq!(texts(list.take_result().unwrap().unwrap()), ["no", "no"]);
    let nothing = DeferredList::<u32>::new([]).fire_on_one_callback(true).into_deferred();
    assert!(fails(nothing).check::<NoDeferreds>().is_some());
}

/// With `fire_on_one_errback` the first failure is the list's, with its index; the others are not
/// cancelled.
#[test]
fn a_list_can_fire_on_one_errback() {
    let (promises, deferreds, cancels) = unfired(3);
    let list = DeferredList::new(deferreds).fire_on_one_errback(true).into_deferred();
    promises[1].errback("one").unwrap();
    let failure = fails(list);
    let first = failure.check::<FirstError>().expect("a FirstError");
    assert_eq!((first.index, first.failure.to_string().as_str()), (1, "one"));
    assert_eq!(failure.to_string(), "number 1 failed: one");
    assert!(cancels.borrow().is_empty());
    promises[0].callback(0).unwrap();
}

/// Failures that come when a list has its result are reported as unhandled, unless `consume_errors`
/// drops them. Failures in the result belong to the owner of the result.
#[test]
fn late_failures_are_reported_unless_consumed() {
    for consume in [false, true] {
        let ((), reports) = unhandled::collect(|| {
            let (promises, deferreds, _) = unfired(3);
            let list = DeferredList::new(deferreds).fire_on_one_callback(true).consume_errors(consume).into_deferred();
            promises[0].errback("early").unwrap();
            promises[1].callback(1).unwrap();
            promises[2].errback("late").unwrap();
            drop(list);
        });
        let reported: Vec<_> = reports.iter().map(|report| report.failure.to_string()).collect();
        assert_eq!(reported, if consume { vec![] } else { vec!["late"] });
    }
}

/// Cancelling a list cancels every Deferred that has no result, and the list ends with what they
/// say.
#[test]
fn cancelling_a_list_cancels_all() {
    let (promises, deferreds, cancels) = unfired(3);
    let mut list = DeferredList::new(deferreds).into_deferred();
    promises[1].callback(1).unwrap();
    list.cancel();
    assert_eq!(*cancels.borrow(), [0, 2]);
    let Listed::All(results) = list.take_result().unwrap().unwrap() else { panic!("no flag was set") };
    assert!(results[0].as_ref().unwrap_err().check::<Cancelled>().is_some());
    assert_eq!(*results[1].as_ref().unwrap(), 1);
}

/// Gathering gives the values in order, or the first failure.
#[test]
fn gathering_gives_values_or_the_first_failure() {
    let (promises, deferreds, _) = unfired(2);
    let mut all = gather_results(deferreds);
    promises[1].callback(1).unwrap();
    promises[0].callback(0).unwrap();
    assert_eq!(all.take_result().unwrap().unwrap(), [0, 1]);
    assert!(gather_results(Vec::<Deferred<u32>>::new()).take_result().unwrap().unwrap().is_empty());

    let ((), reports) = unhandled::collect(|| {
        let (promises, deferreds, _) = unfired(3);
        let all = gather_results(deferreds);
        promises[2].errback("two").unwrap();
        assert_eq!(fails(all).check::<FirstError>().unwrap().index, 2);
        promises[0].errback("zero").unwrap();
        promises[1].callback(1).unwrap();
    });
    assert_eq!(reports.len(), 1, "what came later is reported");
}

/// Cancelling a gathering cancels all, and what they fail with is reported by the gathering alone.
#[test]
fn cancelling_a_gathering_cancels_all() {
    let ((), reports) = unhandled::collect(|| {
        for gather in [gather_results, gather_or_cancel] {
            let (_promises, deferreds, cancels) = unfired(3);
            let all: Deferred<Vec<u32>> = gather(deferreds);
            all.cancel();
            assert_eq!(*cancels.borrow(), [0, 1, 2]);
            assert!(fails(all).check::<FirstError>().unwrap().failure.check::<Cancelled>().is_some());
        }
    });
    assert!(reports.is_empty());
}

/// A gathering that cancels gives the values of all, or the first failure with its index. By then
/// the others are cancelled, and their results, then and later, are dropped.
#[test]
fn a_gathering_may_cancel_the_rest() {
    let (promises, deferreds, cancels) = unfired(2);
    let mut all = gather_or_cancel(deferreds);
    promises[1].callback(1).unwrap();
    promises[0].callback(0).unwrap();
    assert_eq!(all.take_result().unwrap().unwrap(), [0, 1]);
    assert!(cancels.borrow().is_empty());

    let ((), reports) = unhandled::collect(|| {
        let (promises, mut deferreds, cancels) = unfired(4);
        let (stubborn, last) = Promise::with_canceller(|| ());
        deferreds.push(last.add_errback(|_| Err(Failure::message("not like that"))));
        let known = Rc::clone(&cancels);
        let all = gather_or_cancel(deferreds).add_errback(move |failure| {
            assert_eq!(*known.borrow(), [0, 3], "it is told before they are cancelled");
            Err(failure)
        });
        promises[1].callback(7).unwrap();
        promises[2].errback("two").unwrap();
        let failure = fails(all);
        let first = failure.check::<FirstError>().unwrap();
        assert_eq!((first.index, first.failure.to_string()), (2, "two".to_owned()));
        assert!(stubborn.is_called());
    });
    assert!(reports.is_empty(), "{reports:?}");
}

/// Where one has failed before the gathering begins, those in front of it and behind it are
/// cancelled, and a second failure is dropped.
#[test]
fn a_gathering_may_be_over_at_once() {
    let ((), reports) = unhandled::collect(|| {
        let (_promises, mut deferreds, cancels) = unfired(2);
        deferreds.insert(1, Deferred::fail("no"));
        deferreds.push(Deferred::fail("nor this"));
        assert_eq!(fails(gather_or_cancel(deferreds)).check::<FirstError>().unwrap().index, 1);
        assert_eq!(*cancels.borrow(), [0, 1]);
    });
    assert!(reports.is_empty(), "{reports:?}");
}

/// A race gives the first value and its index, and cancels the others, whose failures are dropped.
#[test]
fn a_race_cancels_the_losers() {
    let ((), reports) = unhandled::collect(|| {
        let (promises, deferreds, cancels) = unfired(4);
        let mut first = race(deferreds);
        promises[0].errback("early").unwrap();
        promises[2].callback(9).unwrap();
        assert_eq!(first.take_result().unwrap().unwrap(), (2, 9));
        assert_eq!(*cancels.borrow(), [1, 3]);
    });
    assert!(reports.is_empty());
}

/// Where one has its value before the race begins, it wins, and those behind it are cancelled too.
#[test]
fn a_race_may_be_over_at_once() {
    let (_promises, mut deferreds, cancels) = unfired(2);
    deferreds.insert(1, Deferred::succeed(5));
    assert_eq!(race(deferreds).take_result().unwrap().unwrap(), (1, 5));
    assert_eq!(*cancels.borrow(), [0, 1]);
}

/// If all fail, a race fails with all failures, in the order of the Deferreds; of none, it fails at
/// once.
#[test]
fn a_race_that_everybody_loses() {
    let (promises, deferreds, _) = unfired(2);
    let first = race(deferreds);
    promises[1].errback("one").unwrap();
    promises[0].errback("zero").unwrap();
    let failure = fails(first);
    let group = failure.check::<FailureGroup>().expect("a FailureGroup");
    assert_eq!(group.failures.iter().map(Failure::to_string).collect::<Vec<_>>(), ["zero", "one"]);
    assert_eq!(failure.to_string(), "all 2 failed: zero; one");
    assert!(fails(race(Vec::<Deferred<u32>>::new())).check::<NoDeferreds>().is_some());
}

/// Cancelling a race cancels all.
#[test]
fn cancelling_a_race_cancels_all() {
    let (_promises, deferreds, cancels) = unfired(2);
    let first = race(deferreds);
    first.cancel();
    assert_eq!(*cancels.borrow(), [0, 1]);
    assert_eq!(fails(first).check::<FailureGroup>().unwrap().failures.len(), 2);
}

/// A Deferred that cannot be cancelled (its canceller fires nothing, and a callback turns the
/// failure into something that is waited for) does not keep the cancelled list from ending.
#[test]
fn a_cancelled_list_ends_even_if_one_of_its_own_goes_on() {
    let (promise, deferred) = Promise::<u32>::new();
    let (_never, waiting) = Promise::<u32>::new();
    let stubborn = deferred.add_errback(move |_| waiting);
    let list = DeferredList::new([stubborn]).into_deferred();
    list.cancel();
    assert!(fails(list).check::<Cancelled>().is_some());
    drop(promise);
}

/// A hundred thousand at once take no stack.
#[test]
fn many_take_no_stack() {
    const MANY: usize = if cfg!(miri) { 500 } else { 100_000 };
    let (promises, deferreds, _) = unfired(MANY);
    let mut all = gather_results(deferreds);
    for promise in &promises {
        promise.callback(1).unwrap();
    }
    assert_eq!(all.take_result().unwrap().unwrap().len(), MANY);
}
