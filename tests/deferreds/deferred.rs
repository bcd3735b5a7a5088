//! The rules of Deferred, each as Twisted has it unless it says otherwise.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ropewalk::deferred::{Abandoned, Cancelled, Circular, Exhausted, Promise, maybe_deferred, unhandled};
use ropewalk::failure::Panicked;
use ropewalk::{Deferred, Failure, Result};

type Log = Rc<RefCell<Vec<&'static str>>>;

pub(super) fn value<T>(deferred: &mut Deferred<T>) -> T {
    deferred.take_result().expect("a result").expect("a value")
}

pub(super) fn failure<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// Callbacks run in the order in which they were added, each with the result of the one before,
/// when the promise is fired.
#[test]
fn callbacks_run_in_order() {
    let (promise, deferred) = Promise::<u32>::new();
    let mut end = deferred.add_callback(|n| Ok(n + 1)).add_callback(|n| Ok(n * 10)).add_callback(|n| Ok(n.to_string()));
    assert!(!end.is_called());
    promise.callback(1).unwrap();
    assert_eq!(value(&mut end), "20");
}

/// A callback that is added when the result is there runs at once.
#[test]
fn callbacks_on_a_result_run_now() {
    let seen = Rc::new(Cell::new(0));
    let place = Rc::clone(&seen);
    let end = Deferred::succeed(7).add_callback(move |n| place.set(n));
    assert_eq!(seen.get(), 7);
    drop(end);
}

/// A failure goes past callbacks to the next errback, a value past errbacks to the next callback,
/// and each can turn one into the other.
#[test]
fn values_and_failures_change_lanes() {
    let mut end = Deferred::succeed(1)
        .add_errback(|_| -> Result<i32> { panic!("a value goes past errbacks") })
        .add_callback(|_| Err::<i32, _>(Failure::message("first")))
        .add_callback(|_| -> Result<i32> { panic!("a failure goes past callbacks") })
        .add_errback(|failure| {
            assert_eq!(failure.to_string(), "first");
            Ok(5)
        })
        .add_callbacks(|n| Ok(n + 1), |_| Ok(0));
    assert_eq!(value(&mut end), 6);
}

/// Of `add_callbacks` the errback does not hear of its own callback's failure.
#[test]
fn a_pair_of_callbacks_is_one_step() {
    let end = Deferred::succeed(1).add_callbacks(
        |_| Err::<u32, _>(Failure::message("mine")),
        |_| -> Result<u32> { panic!("it is the next one's") },
    );
    assert_eq!(failure(end).to_string(), "mine");
}

/// `add_both` hears either.
#[test]
fn add_both_hears_either() {
    let mut good = Deferred::succeed(1).add_both(|result| Ok(result.is_ok()));
    let mut bad = Deferred::<u32>::fail("x").add_both(|result| Ok(result.is_ok()));
    assert!(value(&mut good));
    assert!(!value(&mut bad));
}

/// A panic in a callback becomes a failure of the chain.
#[test]
fn a_panic_becomes_a_failure() {
    let waiting = {
        let (promise, deferred) = Promise::<u32>::new();
        let end = deferred.add_callback(|_| -> Result<u32> { panic!("in the chain") });
        promise.callback(1).unwrap();
        failure(end)
    };
    assert_eq!(waiting.check::<Panicked>().unwrap().message, "in the chain");
    let at_once = failure(Deferred::succeed(1).add_callback(|_| -> Result<u32> { panic!("at once") }));
    assert_eq!(at_once.check::<Panicked>().unwrap().message, "at once");
}

/// Firing twice is an error that gives the value back, and does nothing.
#[test]
fn firing_twice_is_an_error() {
    let (promise, mut deferred) = Promise::new();
    promise.callback("first").unwrap();
    assert_eq!(promise.callback("second").unwrap_err().0, "second");
    assert_eq!(promise.errback("third").unwrap_err().0.to_string(), "third");
    assert!(promise.complete(Ok("fourth")).is_err());
    assert!(promise.is_called());
    assert_eq!(value(&mut deferred), "first");
}

/// A promise that is dropped unfired fails its Deferred.
#[test]
fn a_dropped_promise_abandons() {
    let (promise, deferred) = Promise::<()>::new();
    drop(promise);
    assert!(failure(deferred).check::<Abandoned>().is_some());
}

/// Where nothing ever waited for the result, a promise that is dropped unfired is no failure that
/// is missed, whichever end goes first. With a callback it is, also if a pause keeps the result
/// back from it.
#[test]
fn an_abandoned_result_that_nothing_waited_for_is_not_reported() {
    let ((), reports) = unhandled::collect(|| {
        let (promise, deferred) = Promise::<()>::new();
        drop(promise);
        drop(deferred);
        let (promise, deferred) = Promise::<()>::new();
        drop(deferred);
        drop(promise);
        let (promise, mut paused) = Promise::<()>::new();
        let pause = paused.pause();
        drop(promise);
        drop(pause);
        drop(paused);
    });
    assert!(reports.is_empty(), "{reports:?}");

    let ((), reports) = unhandled::collect(|| {
        let (promise, deferred) = Promise::<()>::new();
        let with_a_callback = deferred.add_callback(|()| ());
        drop(promise);
        drop(with_a_callback);
        let (promise, deferred) = Promise::<()>::new();
        drop(promise);
        drop(deferred.add_callback(|()| ()));
        let (promise, mut paused) = Promise::<()>::new();
        let pause = paused.pause();
        let behind = paused.add_callback(|()| ());
        drop(promise);
        drop(pause);
        drop(behind);
    });
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(reports.iter().all(|report| report.failure.check::<Abandoned>().is_some()));
}

/// A callback that returns a Deferred pauses the chain until that one has its result, and its
/// result goes on.
#[test]
fn a_returned_deferred_is_waited_for() {
    let (inner_promise, inner) = Promise::<u32>::new();
    let mut end = Deferred::succeed(()).add_callback(move |()| inner).add_callback(|n| Ok(n + 1));
    assert!(end.take_result().is_none());
    inner_promise.callback(41).unwrap();
    assert_eq!(value(&mut end), 42);
}

/// The same when the chain is fired later, when the inner result is there already, and when it is a
/// failure.
#[test]
fn a_returned_deferred_in_every_order() {
    for inner_first in [true, false] {
        for fails in [true, false] {
            let (promise, deferred) = Promise::<()>::new();
            let (inner_promise, inner) = Promise::<u32>::new();
            let mut end = deferred.add_callback(move |()| inner).add_both(|result| Ok(result.ok()));
            let result = if fails { Err("inner".into()) } else { Ok(3) };
            if inner_first {
                inner_promise.complete(result).unwrap();
                promise.callback(()).unwrap();
            } else {
                promise.callback(()).unwrap();
                assert!(!end.is_called());
                inner_promise.complete(result).unwrap();
            }
            assert_eq!(value(&mut end), if fails { None } else { Some(3) });
        }
    }
}

/// A callback added from inside a running callback of the same chain runs after it, never inside
/// it.
#[test]
fn callbacks_are_never_nested() {
    let log = Log::default();
    let end: Rc<RefCell<Option<Deferred<()>>>> = Rc::default();
    let (promise, deferred) = Promise::<()>::new();
    let (first, place, second) = (Rc::clone(&log), Rc::clone(&end), Rc::clone(&log));
    let link = deferred.add_callback(move |()| {
        first.borrow_mut().push("first begins");
        let own = place.take().unwrap();
        place.replace(Some(own.add_callback(move |()| second.borrow_mut().push("second"))));
        first.borrow_mut().push("first ends");
    });
    end.replace(Some(link));
    promise.callback(()).unwrap();
    assert_eq!(*log.borrow(), ["first begins", "first ends", "second"]);
}

/// Cancelling without a canceller fails the chain with `Cancelled`, and swallows one firing that
/// was on its way.
#[test]
fn cancelling_without_a_canceller_swallows_one_firing() {
    let (promise, deferred) = Promise::<u32>::new();
    deferred.cancel();
    assert!(promise.is_called());
    assert!(promise.callback(1).is_ok());
    assert!(promise.callback(2).is_err());
    assert!(failure(deferred).check::<Cancelled>().is_some());
}

/// A canceller runs once; if it fires nothing, the chain fails with `Cancelled`, and nothing is
/// swallowed.
#[test]
fn a_canceller_runs_once() {
    let runs = Rc::new(Cell::new(0));
    let counted = Rc::clone(&runs);
    let (promise, deferred) = Promise::<u32>::with_canceller(move || counted.set(counted.get() + 1));
    let end = deferred.add_callback(|n| Ok(n + 1));
    end.cancel();
    end.cancel();
    assert_eq!(runs.get(), 1);
    assert!(promise.callback(1).is_err());
    assert!(failure(end).check::<Cancelled>().is_some());
}

/// A canceller may fire the promise itself: that is the result.
#[test]
fn a_canceller_may_fire() {
    let place: Rc<RefCell<Option<Promise<u32>>>> = Rc::default();
    let own = Rc::clone(&place);
    let (promise, mut deferred) = Promise::with_canceller(move || {
        own.borrow().as_ref().unwrap().callback(9).unwrap();
    });
    place.replace(Some(promise));
    deferred.cancel();
    assert_eq!(value(&mut deferred), 9);
}

/// A canceller that panics does not keep the chain from being cancelled.
#[test]
fn a_canceller_may_panic() {
    let (_promise, deferred) = Promise::<()>::with_canceller(|| panic!("no"));
    deferred.cancel();
    assert!(failure(deferred).check::<Cancelled>().is_some());
}

/// Cancelling a chain that waits for an inner Deferred cancels that one, whose errbacks may still
/// make it a value.
#[test]
fn cancelling_goes_to_what_is_waited_for() {
    let cancelled = Rc::new(Cell::new(false));
    let told = Rc::clone(&cancelled);
    let (_inner_promise, inner) = Promise::<u32>::with_canceller(move || told.set(true));
    let inner = inner.add_errback(|failure| {
        failure.trap::<Cancelled>()?;
        Ok(0)
    });
    let mut end = Deferred::succeed(()).add_callback(move |()| inner).add_callback(|n| Ok(n + 1));
    end.cancel();
    assert!(cancelled.get());
    assert_eq!(value(&mut end), 1);
}

/// A chain that has its result is not affected by cancelling.
#[test]
fn cancelling_a_result_does_nothing() {
    let mut deferred = Deferred::succeed(3).add_callback(|n| Ok(n + 1));
    deferred.cancel();
    assert_eq!(value(&mut deferred), 4);
}

/// A canceller handle works after the Deferred was handed on, and does nothing once it is gone.
#[test]
fn a_canceller_handle_outlives_the_deferred() {
    let (promise, deferred) = Promise::<u32>::new();
    let canceller = deferred.canceller();
    let end = deferred.add_callback(|n| Ok(n + 1));
    canceller.clone().cancel();
    assert!(failure(end).check::<Cancelled>().is_some());
    drop(promise);
    canceller.cancel();
}

/// A pause keeps the result back until every pause is gone.
#[test]
fn pauses_add_up() {
    let (promise, mut deferred) = Promise::<u32>::new();
    let (first, second) = (deferred.pause(), deferred.pause());
    let mut end = deferred.add_callback(|n| Ok(n + 1));
    promise.callback(1).unwrap();
    assert!(end.take_result().is_none());
    drop(first);
    assert!(end.take_result().is_none());
    drop(second);
    assert_eq!(value(&mut end), 2);
}

/// An unhandled failure is reported once, when the last handle of its chain is dropped, and only
/// then.
#[test]
fn an_unhandled_failure_is_reported_once() {
    let ((), reports) = unhandled::collect(|| {
        let (promise, deferred) = Promise::<u32>::new();
        let end = deferred.add_callback(|n| Ok(n + 1)).add_callback(|n| Ok(n + 1));
        promise.errback("an unhandled failure").unwrap();
        drop(promise);
        let ((), while_held) = unhandled::collect(|| ());
        assert!(while_held.is_empty());
        drop(end);
    });
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].failure.to_string(), "an unhandled failure");
    assert!(reports[0].place.file().ends_with("deferred.rs"));
}

/// A failure that was handled or taken, and a value, are not reported.
#[test]
fn what_was_handled_is_not_reported() {
    let ((), reports) = unhandled::collect(|| {
        drop(Deferred::<u32>::fail("x").add_errback(|_| Ok(1)));
        let mut taken = Deferred::<u32>::fail("x");
        assert!(taken.take_result().unwrap().is_err());
        drop(taken);
        drop(Deferred::succeed(1));
    });
    assert!(reports.is_empty());
}

/// `or_log` throws a value away, and reports a failure at its own line with the word in front, now
/// or when it comes.
#[test]
fn or_log_reports_with_its_word() {
    let (promise, later) = Promise::<u32>::new();
    let ((), reports) = unhandled::collect(|| {
        Deferred::succeed(1).or_log("counting");
        Deferred::<u32>::fail(Cancelled).or_log("fetching");
        later.or_log("listening");
    });
    let line = line!() - 2;
    let ((), late) = unhandled::collect(|| promise.errback("the port is taken").unwrap());
    let told: Vec<_> = reports.iter().chain(&late).map(|report| report.failure.to_string()).collect();
    assert_eq!(told, ["fetching: the operation was cancelled", "listening: the port is taken"]);
    assert!(reports[0].failure.check::<Cancelled>().is_some());
    assert!(late[0].place.file().ends_with("deferred.rs"));
    assert_eq!(late[0].place.line(), line);
}

/// A chain whose handle was dropped early still runs, and its failure is reported at its end.
#[test]
fn a_dropped_chain_runs_on() {
    let seen = Rc::new(Cell::new(false));
    let ((), reports) = unhandled::collect(|| {
        let (promise, deferred) = Promise::<u32>::new();
        let place = Rc::clone(&seen);
        drop(deferred.add_callback(move |_| {
            place.set(true);
            Err::<(), _>(Failure::message("late"))
        }));
        promise.callback(1).unwrap();
    });
    assert!(seen.get());
    assert_eq!(reports.len(), 1);
}

/// `maybe_deferred` makes a Deferred of a value, an error, a panic and a Deferred.
#[test]
fn maybe_deferred_takes_everything() {
    assert_eq!(value(&mut maybe_deferred(|| Ok(1))), 1);
    assert_eq!(failure(maybe_deferred(|| Err::<(), _>(Failure::message("e")))).to_string(), "e");
    assert!(failure(maybe_deferred(|| -> Result<()> { panic!("p") })).check::<Panicked>().is_some());
    assert_eq!(value(&mut maybe_deferred(|| Deferred::succeed(2))), 2);
}

/// A result can be chained into a promise.
#[test]
fn chain_fires_a_promise() {
    let (promise, mut end) = Promise::<u32>::new();
    Deferred::succeed(4).chain_deferred(promise);
    assert_eq!(value(&mut end), 4);
}

/// A failure that is chained into a promise that was fired before is reported as unhandled; so is
/// one whose canceller has answered for it. One that was cancelled without a canceller swallows it.
#[test]
fn a_failure_chained_too_late_is_reported() {
    let late = |promise: Promise<u32>| {
        let chain = move || Deferred::fail("late").chain_deferred(promise);
        let ((), unhandled) = unhandled::collect(chain);
        unhandled.iter().map(|it| it.failure.to_string()).collect::<Vec<_>>()
    };
    let (fired, mut end) = Promise::<u32>::new();
    fired.callback(1).unwrap();
    assert_eq!(late(fired), ["late"]);
    assert_eq!(value(&mut end), 1);
    let (cancelled, end) = Promise::<u32>::with_canceller(|| ());
    end.cancel();
    assert_eq!(late(cancelled), ["late"]);
    let (swallows, swallowed) = Promise::<u32>::new();
    swallowed.cancel();
    assert_eq!(late(swallows), Vec::<String>::new());
    drop((end.add_errback(|_| Ok(0)), swallowed.add_errback(|_| Ok(0))));
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A Deferred is a future: pending until fired, which wakes the task that polled last.
#[test]
fn a_deferred_is_a_future() {
    let (promise, deferred) = Promise::<u32>::new();
    let mut future = pin!(deferred.add_callback(|n| Ok(n + 1)));
    let (first, second) = (Arc::new(Counting(AtomicUsize::new(0))), Arc::new(Counting(AtomicUsize::new(0))));
    for counting in [&first, &second, &second] {
        let waker = Waker::from(Arc::clone(counting));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    promise.callback(1).unwrap();
    assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    let waker = Waker::from(Arc::clone(&first));
    let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) else { panic!("it was fired") };
    assert_eq!(result.unwrap(), 2);
    let Poll::Ready(again) = future.as_mut().poll(&mut Context::from_waker(&waker)) else { panic!("it is exhausted") };
    assert!(again.is_err());
}

/// A Deferred that was polled and is dropped before its result came is cancelled, and its failure
/// is not reported: who awaited it gave up.
#[test]
fn dropping_what_was_awaited_cancels_it() {
    let cancelled = Rc::new(Cell::new(false));
    let told = Rc::clone(&cancelled);
    let ((), reports) = unhandled::collect(|| {
        let (promise, deferred) = Promise::<u32>::with_canceller(move || told.set(true));
        let mut future = Box::pin(deferred.add_callback(|n| Ok(n + 1)));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(future);
        assert!(promise.is_called());
    });
    assert!(cancelled.get());
    assert!(reports.is_empty());
}

/// A Deferred that was never polled runs on without its handle, and one that was polled and then
/// got a callback too.
#[test]
fn only_what_is_still_awaited_is_cancelled() {
    let seen = Rc::new(Cell::new(0));
    let place = Rc::clone(&seen);
    let (promise, mut deferred) = Promise::<u32>::new();
    assert!(pin!(&mut deferred).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(deferred.add_callback(move |n| place.set(n)));
    promise.callback(4).unwrap();
    assert_eq!(seen.get(), 4);
}

/// A failure that was there before the awaiting task went is reported like any other.
#[test]
fn a_failure_that_came_before_the_task_went_is_reported() {
    let ((), reports) = unhandled::collect(|| {
        let (promise, mut deferred) = Promise::<u32>::new();
        assert!(pin!(&mut deferred).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        promise.errback("just before").unwrap();
        drop(deferred);
    });
    assert_eq!(reports.len(), 1);
}

/// A callback that returns a Deferred of its own chain gets an error, where Twisted waits for ever.
#[test]
fn a_chain_cannot_wait_for_itself() {
    for links_behind in 0..3 {
        let place: Rc<RefCell<Option<Deferred<u32>>>> = Rc::default();
        let own = Rc::clone(&place);
        let (promise, deferred) = Promise::<u32>::new();
        let seen = Rc::new(RefCell::new(None));
        let told = Rc::clone(&seen);
        let mut end =
            deferred.add_callback(move |_| own.take().expect("put there below")).add_errback(move |failure| {
                told.replace(Some(failure));
                Ok(0)
            });
        for _ in 0..links_behind {
            end = end.add_callback(|n| Ok(n + 1));
        }
        place.replace(Some(end));
        promise.callback(1).unwrap();
        assert!(seen.take().expect("the errback ran").check::<Circular>().is_some());
    }
}

/// Chains that wait for one another in a ring never end and are never freed (as in Twisted), but
/// cancelling them does end.
#[test]
fn cancelling_a_ring_ends() {
    for length in 2..7 {
        let ends: Rc<RefCell<Vec<Option<Deferred<u32>>>>> = Rc::default();
        let promises: Vec<_> = (0..length)
            .map(|n| {
                let (promise, deferred) = Promise::<u32>::new();
                let others = Rc::clone(&ends);
                let end =
                    deferred.add_callback(move |_| others.borrow_mut()[(n + 1) % length].take().expect("not used up"));
                ends.borrow_mut().push(Some(end));
                promise
            })
            .collect();
        let canceller = ends.borrow()[0].as_ref().unwrap().canceller();
        for promise in &promises {
            promise.callback(0).unwrap();
        }
        canceller.cancel();
    }
}

/// A chain that runs on after a pause can be cancelled, even if the promise was gone before the
/// pause.
#[test]
fn a_chain_that_was_paused_can_be_cancelled() {
    for fired_first in [true, false] {
        let (promise, mut deferred) = Promise::<u32>::new();
        let mut promise = Some(promise);
        if fired_first {
            promise.take().unwrap().callback(1).unwrap();
            // Without the promise's root: a result of its own.
            deferred = deferred.add_callback(Ok);
        }
        let pause = deferred.pause();
        let (_inner, waiting) = Promise::<u32>::new();
        let end = deferred.add_callback(move |_| waiting);
        if let Some(promise) = promise.take() {
            promise.callback(1).unwrap();
        }
        drop(pause);
        assert!(!end.is_called());
        end.cancel();
        assert!(failure(end).check::<Cancelled>().is_some());
    }
}

/// A Deferred whose result was taken never has one again.
#[test]
fn a_result_is_taken_once() {
    for fired_later in [true, false] {
        let (promise, mut deferred) = Promise::<u32>::new();
        promise.callback(1).unwrap();
        if !fired_later {
            deferred = Deferred::succeed(1);
        }
        assert_eq!(value(&mut deferred), 1);
        assert!(deferred.take_result().is_none());
        assert!(!deferred.is_called());
        assert!(failure(deferred.add_callback(|n| Ok(n + 1))).check::<Exhausted>().is_some());
    }
}

/// Callbacks, cancellers and drops may do anything to the chain that they are part of.
#[test]
fn everything_may_be_reentered() {
    struct CancelsOnDrop(Rc<RefCell<Option<ropewalk::deferred::Canceller>>>);
    impl Drop for CancelsOnDrop {
        fn drop(&mut self) {
            if let Some(canceller) = self.0.take() {
                canceller.cancel();
            }
        }
    }
    let place: Rc<RefCell<Option<ropewalk::deferred::Canceller>>> = Rc::default();
    let (promise, deferred) = Promise::<CancelsOnDrop>::new();
    let (inside, again) = (Rc::clone(&place), Rc::clone(&place));
    let promise = Rc::new(promise);
    let own = Rc::clone(&promise);
    let end = deferred
        .add_callback(move |bomb| {
            assert!(own.callback(CancelsOnDrop(Rc::default())).is_err());
            if let Some(canceller) = &*inside.borrow() {
                canceller.cancel();
            }
            drop(bomb);
            Ok(1)
        })
        .add_callback(|n| Ok(n + 1));
    place.replace(Some(end.canceller()));
    promise.callback(CancelsOnDrop(again)).unwrap();
    let mut end = end;
    assert_eq!(value(&mut end), 2);
}
