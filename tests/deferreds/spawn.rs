//! Futures on a reactor and on a virtual clock: when they are polled, who wakes them, and how they
//! end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::common::*;
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use ropewalk::deferred::{Abandoned, Cancelled, DeferredQueue, Promise, gather_results};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::task::defer_later;
use ropewalk::{Deferred, Failure, Phase, Result, SystemEvent, testing};

fn fails<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// Waits once, having told its own waker.
async fn yield_now() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn panics(message: &str) -> Result<()> {
    panic!("{message}")
}

/// A future runs at once up to where it has to wait, and what is there already is not waited for.
#[test]
fn a_future_runs_at_once() {
    let clock = testing::VirtualClock::new();
    let mut answer = clock.spawner().spawn(async { Ok(Deferred::succeed(1).await? + Deferred::succeed(2).await?) });
    assert_eq!(answer.take_result().unwrap().unwrap(), 3);
    assert!(clock.spawner().is_empty());
}

/// It goes on in the next turn after what it awaits has its result, and its own result is its
/// Deferred's: a value, an error, what a Deferred that it returns comes to, or nothing.
#[test]
fn a_future_goes_on_when_it_is_woken() {
    let clock = testing::VirtualClock::new();
    let (promise, number) = Promise::<u32>::new();
    let mut answer = clock.spawner().spawn(async move { Ok(number.await? + 1) });
    promise.callback(1).unwrap();
    assert!(!answer.is_called(), "not on the stack of the firing call");
    assert_eq!(clock.turn(), 1);
    assert_eq!(answer.take_result().unwrap().unwrap(), 2);

    let failed = clock.spawner().spawn(async { Err::<(), _>(Failure::message("no")) });
    assert_eq!(fails(failed).to_string(), "no");
    let (promise, last) = Promise::<u32>::new();
    let mut chained = clock.spawner().spawn(std::future::ready(last));
    promise.callback(5).unwrap();
    assert_eq!(chained.take_result().unwrap().unwrap(), 5);
    assert!(clock.spawner().spawn(async {}).is_called());
}

/// A panic in a future, at its first poll and later, is its Deferred's failure; others go on.
#[test]
fn a_panic_is_the_deferreds_failure() {
    let clock = testing::VirtualClock::new();
    let at_once = clock.spawner().spawn(panics("at once"));
    let later = clock.spawner().spawn(async {
        yield_now().await;
        panics("later").await
    });
    let other = clock.spawner().spawn(yield_now());
    clock.advance(Duration::ZERO);
    for (failed, message) in [(at_once, "at once"), (later, "later")] {
        assert_eq!(fails(failed).check::<Panicked>().unwrap().message, message);
    }
    assert!(other.is_called());
}

/// Cancelling the Deferred drops the future at once, and cancels what it awaited.
#[test]
fn cancelling_drops_the_future() {
    struct Tells(Rc<Cell<bool>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let clock = testing::VirtualClock::new();
    let (dropped, cancelled) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (tells, told) = (Tells(Rc::clone(&dropped)), Rc::clone(&cancelled));
    let (_promise, never) = Promise::<()>::with_canceller(move || told.set(true));
    let answer = clock.spawner().spawn(async move {
        let _tells = tells;
        never.await
    });
    answer.cancel();
    assert!(dropped.get() && cancelled.get());
    assert!(fails(answer).check::<Cancelled>().is_some());
    assert!(clock.spawner().is_empty());
}

/// A future that cancels its own Deferred is dropped when its poll is over, whether it then waits,
/// ends or panics.
#[test]
fn a_future_may_cancel_itself() {
    for ending in 0..3 {
        let clock = testing::VirtualClock::new();
        let own: Rc<RefCell<Option<Deferred<()>>>> = Rc::default();
        let place = Rc::clone(&own);
        let answer = clock.spawner().spawn(async move {
            yield_now().await;
            place.borrow().as_ref().expect("put there below").cancel();
            match ending {
                0 => std::future::pending().await,
                1 => Ok(()),
                _ => panics("after its end").await,
            }
        });
        own.replace(Some(answer));
        clock.advance(Duration::ZERO);
        assert!(fails(own.take().unwrap()).check::<Cancelled>().is_some());
        assert!(clock.spawner().is_empty());
    }
}

/// A future whose Deferred is dropped runs on.
#[test]
fn a_future_runs_on_without_its_deferred() {
    let clock = testing::VirtualClock::new();
    let done = Rc::new(Cell::new(false));
    let tell = Rc::clone(&done);
    drop(clock.spawner().spawn(async move {
        yield_now().await;
        tell.set(true);
    }));
    clock.advance(Duration::ZERO);
    assert!(done.get());
}

/// A future that wakes itself has its next poll in the next turn, and futures are polled in the
/// order in which they were woken.
#[test]
fn each_is_polled_once_a_turn() {
    let clock = testing::VirtualClock::new();
    let order: Rc<RefCell<Vec<&str>>> = Rc::default();
    for name in ["a", "b"] {
        let order = Rc::clone(&order);
        drop(clock.spawner().spawn(async move {
            for _ in 0..3 {
                order.borrow_mut().push(name);
                yield_now().await;
            }
        }));
    }
    assert_eq!(*order.borrow(), ["a", "b"]);
    assert_eq!(clock.turn(), 2);
    assert_eq!(*order.borrow(), ["a", "b", "a", "b"]);
    clock.advance(Duration::ZERO);
    assert_eq!(*order.borrow(), ["a", "b", "a", "b", "a", "b"]);
}

/// Many wakes before a poll are one poll; a waker that outlives its task, its spawner and its
/// reactor does nothing.
#[test]
fn wakes_are_counted_once_and_stale_ones_do_nothing() {
    let clock = testing::VirtualClock::new();
    let (polls, waker) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Waker>)));
    let (counted, kept) = (Rc::clone(&polls), Rc::clone(&waker));
    let answer = clock.spawner().spawn(poll_fn(move |context: &mut Context<'_>| {
        counted.set(counted.get() + 1);
        kept.replace(Some(context.waker().clone()));
        if counted.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
    }));
    let waker = || waker.borrow().clone().unwrap();
    for _ in 0..10 {
        waker().wake();
    }
    assert_eq!((clock.turn(), polls.get()), (1, 2));
    waker().wake_by_ref();
    assert_eq!((clock.turn(), polls.get()), (1, 3));
    assert!(answer.is_called());
    waker().wake();
    assert_eq!(clock.turn(), 0);
    drop(clock);
    waker().wake();
}

/// A waker that outlives its task does not wake the next task, which has taken its place.
#[test]
fn a_stale_waker_wakes_no_other_task() {
    let clock = testing::VirtualClock::new();
    let first = Rc::new(RefCell::new(None::<Waker>));
    let kept = Rc::clone(&first);
    drop(clock.spawner().spawn(poll_fn(move |context: &mut Context<'_>| {
        kept.replace(Some(context.waker().clone()));
        Poll::Ready(())
    })));
    assert!(clock.spawner().is_empty());
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    drop(clock.spawner().spawn(poll_fn(move |_: &mut Context<'_>| {
        counted.set(counted.get() + 1);
        Poll::<()>::Pending
    })));
    first.take().unwrap().wake();
    assert_eq!((clock.turn(), polls.get(), clock.spawner().len()), (0, 1, 1));
}

/// A clock that goes drops its futures: their Deferreds are abandoned, and what is spawned on its
/// spawner then never runs.
#[test]
fn futures_go_with_their_clock() {
    let clock = testing::VirtualClock::new();
    let spawner = clock.spawner().clone();
    let waits = spawner.spawn(std::future::pending::<()>());
    drop(clock);
    assert!(fails(waits).check::<Abandoned>().is_some());
    let late = spawner.spawn(panics("no loop runs it"));
    assert!(fails(late).check::<Abandoned>().is_some());
}

/// A turn that is made from inside a future polls others, and not that one; its wake is not lost.
#[test]
fn a_turn_from_inside_a_future_loses_no_wake() {
    let clock = testing::VirtualClock::new();
    let inner = clock.clone();
    let (promise, number) = Promise::<u32>::new();
    let mut answer = clock.spawner().spawn(async move {
        let mut number = number;
        let mut polled = pin!(&mut number);
        assert!(poll_fn(|context| Poll::Ready(polled.as_mut().poll(context).is_pending())).await);
        promise.callback(4).unwrap();
        inner.turn();
        number.await
    });
    clock.advance(Duration::ZERO);
    assert_eq!(answer.take_result().unwrap().unwrap(), 4);
}

/// Timers and Deferreds are awaited on virtual time like any other.
#[test]
fn a_future_sleeps_on_virtual_time() {
    let clock = testing::VirtualClock::new();
    let (handle, log) = (clock.clone(), Log::default());
    let told = log.clone();
    let done = clock.spawner().spawn(async move {
        for n in 0..3 {
            defer_later(&handle, Duration::from_secs(1), || Ok(())).await?;
            told.add(format!("{n} at {:?}", handle.seconds()));
        }
        Ok(())
    });
    clock.pump([Duration::from_millis(500); 8]);
    assert_eq!(log.all(), ["0 at 1s", "1 at 2s", "2 at 3s"]);
    assert!(done.is_called());
}

/// A select that drops the loser cancels it, and gives up its place in a queue: no value is lost.
#[test]
fn what_a_select_drops_is_cancelled() {
    let clock = testing::VirtualClock::new();
    let queue = DeferredQueue::<u32>::new();
    let (getter, handle) = (queue.clone(), clock.clone());
    let mut answer = clock.spawner().spawn(async move {
        let sleep = defer_later(&handle, Duration::from_secs(1), || Ok(()));
        match futures::future::select(getter.get(), sleep).await {
            futures::future::Either::Left(_) => Ok("a value"),
            futures::future::Either::Right(_) => Ok("the time"),
        }
    });
    clock.advance(Duration::from_secs(1));
    assert_eq!(answer.take_result().unwrap().unwrap(), "the time");
    assert_eq!(queue.waiting(), 0);
    queue.put(1).unwrap();
    assert_eq!(queue.len(), 1);
}

/// On a reactor that sleeps, a future is woken from another thread, through channels of the
/// `futures` crate.
#[test]
fn another_thread_wakes_a_future() {
    let reactor = reactor();
    let (sender, mut receiver) = mpsc::unbounded::<u32>();
    let (asks, answers) = oneshot::channel::<u32>();
    let handle = reactor.clone();
    let mut sum = reactor.spawn(async move {
        let mut sum = 0;
        while let Some(n) = receiver.next().await {
            sum += n;
        }
        asks.send(sum).map_err(|_| Failure::message("the receiver is gone"))?;
        handle.stop()?;
        Ok(sum)
    });
    let thread = thread::spawn(move || {
        for n in 0..1000 {
            sender.unbounded_send(n).unwrap();
        }
        drop(sender);
        futures_block_on(answers)
    });
    run(&reactor).unwrap();
    assert_eq!(thread.join().unwrap(), 499_500);
    assert_eq!(sum.take_result().unwrap().unwrap(), 499_500);
}

/// Waits for a channel on a thread without a loop.
fn futures_block_on(answers: oneshot::Receiver<u32>) -> u32 {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    let mut answers = pin!(answers);
    loop {
        if let Poll::Ready(answer) = answers.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer.unwrap();
        }
        thread::park();
    }
}

/// The synchronisation primitives of tokio work without its runtime: here between futures of one
/// reactor and a thread.
#[test]
fn foreign_primitives_work() {
    let reactor = reactor();
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
    let notify = std::sync::Arc::new(tokio::sync::Notify::new());
    let (notified, handle) = (std::sync::Arc::clone(&notify), reactor.clone());
    let reads = reactor.spawn(async move {
        let mut seen = Vec::new();
        while let Some(n) = receiver.recv().await {
            seen.push(n);
        }
        notify.notify_one();
        Ok(seen)
    });
    let waits = reactor.spawn(async move {
        notified.notified().await;
        handle.stop()?;
        Ok(Vec::new())
    });
    let thread = thread::spawn(move || {
        for n in 0..100 {
            sender.blocking_send(n).unwrap();
        }
    });
    run(&reactor).unwrap();
    thread.join().unwrap();
    let both = gather_results([reads, waits]).take_result().unwrap().unwrap();
    assert!(both[0].iter().copied().eq(0..100));
}

/// Bytes that a future writes are sent in the turn in which it was woken: it is polled before the
/// dirty list is handled.
#[test]
fn a_future_is_polled_in_phase_six() {
    let reactor = reactor();
    let log = Log::default();
    let (first, second) = (log.clone(), log.clone());
    let (promise, fired) = Promise::<()>::new();
    let answer = reactor.spawn(async move {
        fired.await?;
        first.add("future");
        Ok(())
    });
    reactor.call_later(Duration::ZERO, move || {
        second.add("timer");
        promise.callback(()).unwrap();
    });
    let turns = reactor.counters().turns;
    run_until(&reactor, || answer.is_called());
    assert_eq!(log.all(), ["timer", "future"]);
    assert_eq!(reactor.counters().turns, turns + 1);
}

/// A future that never waits for anything but its next turn does not hold up timers, and the loop
/// does not sleep meanwhile.
#[test]
fn a_busy_future_lets_others_go_on() {
    let reactor = reactor();
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    drop(reactor.spawn(async move {
        while counted.get() < usize::MAX {
            counted.set(counted.get() + 1);
            yield_now().await;
        }
    }));
    let handle = reactor.clone();
    reactor.call_later(Duration::from_millis(5), move || handle.stop().unwrap());
    run(&reactor).unwrap();
    assert!(turns.get() > 10, "{} polls", turns.get());
}

/// Futures may be what a shutdown waits for, and those that wait for what a shutdown ends hear of
/// it before `run` returns.
#[test]
fn futures_and_the_end_of_a_run() {
    let reactor = reactor();
    let log = Log::default();
    let (handle, told) = (reactor.clone(), log.clone());
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
        let inner = handle.clone();
        handle.spawn(async move {
            defer_later(&inner, Duration::from_millis(2), || Ok(())).await?;
            told.add("said goodbye");
            Ok(())
        })
    });
    let (promise, ends) = Promise::<()>::new();
    let told = log.clone();
    drop(reactor.spawn(async move {
        ends.await?;
        yield_now().await;
        told.add("heard of the end");
        Ok(())
    }));
    reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || {
        promise.callback(()).map_err(|_| Failure::message("it was not fired"))
    });
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["said goodbye", "heard of the end"]);
}

/// A future that is not done when a run ends goes on in the next.
#[test]
fn a_future_outlives_a_run() {
    let reactor = reactor();
    let (promise, number) = Promise::<u32>::new();
    let mut answer = reactor.spawn(number);
    for _ in 0..2 {
        let handle = reactor.clone();
        reactor.call_when_running(move || handle.stop().unwrap());
        run(&reactor).unwrap();
    }
    promise.callback(3).unwrap();
    run_until(&reactor, || answer.is_called());
    assert_eq!(answer.take_result().unwrap().unwrap(), 3);
}

/// A hundred thousand futures that wait at once take no stack, and leave nothing.
#[test]
fn a_hundred_thousand_futures() {
    let clock = testing::VirtualClock::new();
    let (handle, done) = (clock.clone(), Rc::new(Cell::new(0)));
    for n in 0..100_000_u64 {
        let (handle, done) = (handle.clone(), Rc::clone(&done));
        drop(clock.spawner().spawn(async move {
            defer_later(&handle, Duration::from_millis(n % 100), || Ok(())).await?;
            done.set(done.get() + 1);
            Result::Ok(())
        }));
    }
    assert_eq!(clock.spawner().len(), 100_000);
    clock.advance(Duration::from_secs(1));
    assert_eq!(done.get(), 100_000);
    assert!(clock.spawner().is_empty());
}
