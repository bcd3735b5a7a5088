//! Locks, semaphores and queues: the order in which waiters are served. Nothing is lost or kept
//! when a waiter gives up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ropewalk::deferred::{
    Cancelled, DeferredLock, DeferredQueue, DeferredSemaphore, NoTokens, Permit, Promise, PutError, QueueUnderflow,
};
use ropewalk::failure::Panicked;
use ropewalk::{Deferred, Failure, Result};

fn value<T>(deferred: &mut Deferred<T>) -> T {
    deferred.take_result().expect("a result").expect("a value")
}

fn fails<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// A free lock is acquired at once; those who come later wait in order, and each has it when the
/// one before released it.
#[test]
fn a_lock_goes_from_hand_to_hand() {
    let lock = DeferredLock::new();
    assert!(!lock.is_locked());
    let first = value(&mut lock.acquire());
    assert!(lock.is_locked());
    let (mut second, mut third) = (lock.acquire(), lock.acquire());
    assert!(!second.is_called());
    assert_eq!(lock.waiting(), 2);
    first.release();
    assert!(!third.is_called());
    drop(value(&mut second));
    drop(value(&mut third));
    assert!(!lock.is_locked());
}

/// A waiter that gives up is left out, and the lock goes to the next.
#[test]
fn cancelling_gives_up_the_place_in_the_queue() {
    let lock = DeferredLock::new();
    let held = value(&mut lock.acquire());
    let (second, mut third) = (lock.acquire(), lock.acquire());
    second.cancel();
    assert!(fails(second).check::<Cancelled>().is_some());
    assert_eq!(lock.waiting(), 1);
    drop(held);
    drop(value(&mut third));
    assert!(!lock.is_locked());
}

/// A lock that is granted to a dropped Deferred is released again.
#[test]
fn a_forgotten_deferred_does_not_keep_the_lock() {
    let lock = DeferredLock::new();
    let held = value(&mut lock.acquire());
    drop(lock.acquire());
    let mut third = lock.acquire();
    drop(held);
    drop(value(&mut third));
    assert!(!lock.is_locked());
}

/// `run` holds the lock until the result is there, and releases it on a value, a failure, a panic
/// and a cancel.
#[test]
fn run_releases_whatever_happens() {
    let lock = DeferredLock::new();
    let (promise, waiting) = Promise::<u32>::new();
    let mut run = lock.run(move || waiting);
    assert!(lock.is_locked());
    promise.callback(3).unwrap();
    assert!(!lock.is_locked());
    assert_eq!(value(&mut run), 3);

    assert_eq!(fails(lock.run(|| Err::<(), _>(Failure::message("failed")))).to_string(), "failed");
    assert!(!lock.is_locked());
    assert!(fails(lock.run(|| -> Result<()> { panic!("in the lock") })).check::<Panicked>().is_some());
    assert!(!lock.is_locked());

    let (_promise, waiting) = Promise::<u32>::new();
    let run = lock.run(move || waiting);
    run.cancel();
    assert!(fails(run).check::<Cancelled>().is_some());
    assert!(!lock.is_locked());
}

/// A `run` that is cancelled while it waits for the lock is never called.
#[test]
fn a_run_that_is_cancelled_while_it_waits_is_not_called() {
    let lock = DeferredLock::new();
    let held = value(&mut lock.acquire());
    let run = lock.run(|| -> Result<()> { panic!("it was cancelled") });
    run.cancel();
    drop(held);
    assert!(fails(run).check::<Cancelled>().is_some());
    assert!(!lock.is_locked());
}

/// A semaphore lets as many in as it has tokens.
#[test]
fn a_semaphore_has_tokens() {
    let semaphore = DeferredSemaphore::new(2).unwrap();
    let (mut first, mut second, mut third) = (semaphore.acquire(), semaphore.acquire(), semaphore.acquire());
    assert_eq!((semaphore.tokens(), semaphore.limit(), semaphore.waiting()), (0, 2, 1));
    let (first, second) = (value(&mut first), value(&mut second));
    drop(second);
    drop(value(&mut third));
    assert_eq!(semaphore.tokens(), 1);
    drop(first);
    assert_eq!(semaphore.tokens(), 2);
    assert_eq!(DeferredSemaphore::new(0).unwrap_err(), NoTokens);
}

/// Never more run at once than there are tokens, and all run.
#[test]
fn a_semaphore_bounds_what_runs() {
    let semaphore = DeferredSemaphore::new(3).unwrap();
    let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let promises: Rc<RefCell<Vec<Promise<()>>>> = Rc::default();
    let done: Vec<_> = (0..20)
        .map(|_| {
            let (running, most, promises) = (Rc::clone(&running), Rc::clone(&most), Rc::clone(&promises));
            semaphore.run(move || {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                let (promise, ended) = Promise::new();
                promises.borrow_mut().push(promise);
                ended.add_callback(move |()| running.set(running.get() - 1))
            })
        })
        .collect();
    loop {
        let promise = promises.borrow_mut().pop();
        let Some(promise) = promise else { break };
        promise.callback(()).unwrap();
    }
    assert_eq!(most.get(), 3);
    assert!(done.iter().all(Deferred::is_called));
}

/// Releasing from inside of what the lock was given to does not nest: a hundred thousand who
/// release at once take no stack.
#[test]
fn handing_on_takes_no_stack() {
    const WAITING: usize = if cfg!(miri) { 500 } else { 100_000 };
    let lock = DeferredLock::new();
    let held = value(&mut lock.acquire());
    let order: Rc<RefCell<Vec<usize>>> = Rc::default();
    let waiting: Vec<_> = (0..WAITING)
        .map(|n| {
            let order = Rc::clone(&order);
            lock.acquire().add_callback(move |permit: Permit| {
                order.borrow_mut().push(n);
                drop(permit);
            })
        })
        .collect();
    drop(held);
    assert!(order.borrow().iter().copied().eq(0..WAITING));
    drop(waiting);
    assert!(!lock.is_locked());
}

/// Values go out in the order of their puts: to a waiter, or kept for a later get.
#[test]
fn a_queue_keeps_order_on_both_sides() {
    let queue = DeferredQueue::new();
    let (mut first, mut second) = (queue.get(), queue.get());
    assert_eq!(queue.waiting(), 2);
    for n in 0..4 {
        queue.clone().put(n).unwrap();
    }
    assert_eq!((value(&mut first), value(&mut second)), (0, 1));
    assert_eq!(queue.len(), 2);
    assert_eq!((value(&mut queue.get()), value(&mut queue.get())), (2, 3));
    assert!(queue.is_empty());
}

/// A full queue gives the value back. A queue with a full backlog refuses a further waiter.
#[test]
fn a_queue_has_limits() {
    let queue = DeferredQueue::with_limits(Some(1), Some(1));
    queue.put("kept").unwrap();
    let refused = queue.put("too many").unwrap_err();
    assert!(matches!(refused, PutError::Full("too many")), "{refused:?}");
    assert_eq!((refused.to_string().as_str(), refused.into_inner()), ("the queue is full", "too many"));
    assert_eq!(value(&mut queue.get()), "kept");
    let mut waits = queue.get();
    assert!(fails(queue.get()).check::<QueueUnderflow>().is_some());
    queue.put("for who waits").unwrap();
    assert_eq!(value(&mut waits), "for who waits");

    let rendezvous = DeferredQueue::with_limits(Some(0), None);
    assert!(rendezvous.put(1).is_err(), "no call waits");
    let mut waits = rendezvous.get();
    rendezvous.put(2).unwrap();
    assert_eq!(value(&mut waits), 2);
    let impatient = DeferredQueue::<u32>::with_limits(None, Some(0));
    assert!(fails(impatient.get()).check::<QueueUnderflow>().is_some());
}

/// A value goes to the next waiter when the one before gives up.
#[test]
fn giving_up_loses_no_value() {
    let queue = DeferredQueue::new();
    let (first, mut second) = (queue.get(), queue.get());
    first.cancel();
    queue.put(1).unwrap();
    assert!(fails(first).check::<Cancelled>().is_some());
    assert_eq!(value(&mut second), 1);
}

/// Putting from inside of a get's callback hands on afterwards: nothing nests, the order stays,
/// limits hold.
#[test]
fn putting_from_inside_does_not_nest() {
    const GETTERS: u32 = if cfg!(miri) { 100 } else { 50_000 };
    let queue = DeferredQueue::with_limits(Some(0), None);
    let depth = Rc::new(Cell::new(0));
    let seen: Rc<RefCell<Vec<u32>>> = Rc::default();
    let getters: Vec<_> = (0..GETTERS)
        .map(|_| {
            let (queue, depth, seen) = (queue.clone(), Rc::clone(&depth), Rc::clone(&seen));
            queue.clone().get().add_callback(move |n: u32| {
                assert_eq!(depth.replace(1), 0, "nested");
                seen.borrow_mut().push(n);
                // No waiter is left for the last one.
                assert_eq!(queue.put(n + 1).is_ok(), n < 49_999);
                depth.set(0);
            })
        })
        .collect();
    queue.put(0).unwrap();
    assert!(seen.borrow().iter().copied().eq(0..GETTERS));
    drop(getters);
}

/// The Deferred of a waiter fails when the queue is dropped.
#[test]
fn a_queue_that_goes_abandons_who_waits() {
    let queue = DeferredQueue::<u32>::new();
    let waits = queue.get();
    drop(queue);
    assert!(fails(waits).check::<ropewalk::deferred::Abandoned>().is_some());
}

/// Closing a queue fails the Deferreds that wait, in their order. Stored values are still handed
/// out, later gets fail with the first failure, and puts give the value back.
#[test]
fn a_closed_queue_ends_both_sides() {
    let queue = DeferredQueue::with_limits(None, Some(2));
    let order: Rc<RefCell<Vec<u32>>> = Rc::default();
    let waits: Vec<_> = (0..2)
        .map(|n| {
            let order = Rc::clone(&order);
            queue.get().add_both(move |result: Result<u32>| {
                order.borrow_mut().push(n);
                result
            })
        })
        .collect();
    assert!(!queue.is_closed());
    assert!(queue.clone().close("over"));
    assert!(queue.is_closed() && queue.waiting() == 0);
    assert_eq!(*order.borrow(), [0, 1]);
    for waiting in waits {
        assert_eq!(fails(waiting).to_string(), "over");
    }
    assert!(!queue.close("over once more"));
    assert_eq!(fails(queue.get()).to_string(), "over");
    let refused = queue.put(7).unwrap_err();
    assert!(matches!(refused, PutError::Closed(7)), "{refused:?}");
    assert_eq!(refused.to_string(), "the queue is closed");

    let filled = DeferredQueue::with_limits(Some(2), Some(0));
    filled.put(1).unwrap();
    filled.put(2).unwrap();
    filled.close("over");
    assert!(matches!(filled.put(3), Err(PutError::Closed(3))), "closed comes before full");
    assert_eq!((filled.len(), value(&mut filled.get()), value(&mut filled.get())), (2, 1, 2));
    assert_eq!(fails(filled.get()).to_string(), "over");
}

/// A queue that is closed from inside of a get's callback keeps what was put before for those that
/// it belongs to. A waiter that another one cancels meanwhile fails once.
#[test]
fn a_queue_is_closed_from_inside() {
    let queue = DeferredQueue::new();
    let inner = queue.clone();
    let mut first = queue.get().add_callback(move |n: u32| {
        inner.put(n + 1).unwrap();
        assert!(inner.close("over"));
        Ok(n)
    });
    let mut second = queue.get();
    let last: Rc<RefCell<Option<Deferred<u32>>>> = Rc::default();
    let third = {
        let last = Rc::clone(&last);
        queue.get().add_errback(move |failure| {
            last.borrow().as_ref().expect("it waits").cancel();
            Err(failure)
        })
    };
    last.replace(Some(queue.get()));
    queue.put(1).unwrap();
    assert_eq!((value(&mut first), value(&mut second)), (1, 2));
    assert_eq!(fails(third).to_string(), "over");
    let last = last.take().expect("it was kept");
    assert!(fails(last).check::<Cancelled>().is_some());
}

/// A reader that asks again gets the failure from its next get too, without a nested call.
#[test]
fn a_reader_that_asks_again_is_told_again() {
    let queue = DeferredQueue::<u32>::new();
    let again = queue.clone();
    let mut asked = queue.get().add_errback(move |_| again.get());
    queue.close("over");
    assert_eq!(asked.take_result().unwrap().unwrap_err().to_string(), "over");
}
