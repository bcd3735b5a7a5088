//! Timers on the real reactor: never early, in order, and asleep in between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::TimerError;
use ropewalk::interfaces::*;
use ropewalk::{BackendKind, DelayedCall, Reactor};

const FAR: Duration = Duration::from_secs(3600);

/// Another reactor, on a thread of its own, calls `call` after a while: the clock by which a
/// sleeping loop is judged.
fn from_outside(after: Duration, call: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let other = reactor();
        let handle = other.clone();
        other.call_later(after, move || {
            call();
            handle.stop().unwrap();
        });
        run(&other).unwrap();
    })
}

/// No timer runs before its time, whatever the mixture; and all of them run, in the order of their
/// deadlines.
#[test]
fn timers_are_never_early() {
    let reactor = reactor();
    let ran: Rc<RefCell<Vec<(Duration, Duration)>>> = Rc::default();
    for n in 0..100_u64 {
        let (ran, handle) = (Rc::clone(&ran), reactor.clone());
        // 0 to 20 ms, out of order, and not whole milliseconds.
        let delay = Duration::from_micros(n * 7919 % 20_000);
        let own: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
        let call = Rc::clone(&own);
        let asked = reactor.seconds();
        own.replace(Some(reactor.call_later(delay, move || {
            let due = call.borrow().as_ref().unwrap().time();
            assert!(due >= asked + delay);
            ran.borrow_mut().push((due, handle.seconds()));
        })));
    }
    let (_, errors) = logged(|| run_until(&reactor, || ran.borrow().len() == 100));
    assert_eq!(errors, Vec::<String>::new());
    for (due, at) in ran.borrow().iter() {
        assert!(at >= due, "due {due:?}, run {at:?}");
    }
    assert!(ran.borrow().is_sorted_by_key(|(due, _)| *due));
    assert!(reactor.timers().is_empty());
}

/// How late timers are is printed, and not judged: that depends on the machine. Early they never
/// are.
#[test]
fn lateness_is_measured() {
    let reactor = reactor();
    let late: Rc<RefCell<Vec<Duration>>> = Rc::default();
    for n in 0..200_u64 {
        let (late, handle) = (Rc::clone(&late), reactor.clone());
        let due: Rc<Cell<Duration>> = Rc::default();
        let known = Rc::clone(&due);
        let call = reactor.call_later(Duration::from_micros(n * 500), move || {
            let now = handle.seconds();
            assert!(now >= known.get(), "early");
            late.borrow_mut().push(now - known.get());
        });
        due.set(call.time());
    }
    let (_, errors) = logged(|| run_until(&reactor, || late.borrow().len() == 200));
    assert_eq!(errors, Vec::<String>::new());
    let mut late = late.take();
    late.sort();
    let longest = reactor.counters().longest_lateness;
    println!("200 timers over 100 ms: late by {:?} (median), {:?} (most), {longest:?} (counted)", late[100], late[199]);
    assert!(longest > Duration::ZERO && longest <= late[199]);
}

/// A timer costs a wait and the turn that runs it, however short it is: the loop sleeps until the
/// deadline, and does not spin towards it.
#[test]
fn a_short_timer_costs_one_wait() {
    for reactor in [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(reactor_on) {
        for delay in [100, 300, 999, 1_000, 1_300, 5_700].map(Duration::from_micros) {
            let before = reactor.counters().turns;
            let ran = Rc::new(Cell::new(None));
            let (told, handle) = (Rc::clone(&ran), reactor.clone());
            let call = reactor.call_later(delay, move || told.set(Some(handle.seconds())));
            while ran.get().is_none() {
                reactor.iterate(Duration::from_millis(20)).unwrap();
                assert!(reactor.counters().turns - before <= 2, "{delay:?}: it spins");
            }
            assert!(ran.get().unwrap() >= call.time(), "{delay:?}: early");
        }
    }
}

/// Timers with the same deadline run in the order in which they were asked for, across one turn and
/// the next.
#[test]
fn equal_deadlines_run_first_in_first_out() {
    let (reactor, ran) = (reactor(), Rc::<RefCell<Vec<u32>>>::default());
    // Deadlines that are brought forward beyond the present turn all become that turn's time: equal
    // to the nanosecond.
    for n in 0..15_000 {
        let ran = Rc::clone(&ran);
        reactor.call_later(FAR, move || ran.borrow_mut().push(n)).hasten(2 * FAR).unwrap();
    }
    let calls = reactor.delayed_calls();
    assert!(calls.windows(2).all(|pair| pair[0].time() == pair[1].time()));
    // Moved to where it was, a timer queues anew.
    calls[0].delay(Duration::ZERO).unwrap();
    run_until(&reactor, || ran.borrow().len() == 15_000);
    let order: Vec<u32> = (1..15_000).chain([0]).collect();
    assert!(*ran.borrow() == order);
}

/// Cancelling, moving, asking: what works on a timer that waits, and the errors of one that ran,
/// runs or was cancelled.
#[test]
fn timers_are_cancelled_moved_and_asked() {
    let (reactor, ran) = (reactor(), Log::default());
    let own = ran.clone();
    let (token, asked) = (Rc::new(()), reactor.seconds());
    let weak = Rc::downgrade(&token);
    let cancelled = reactor.call_later(FAR, move || {
        let _kept = &token;
        own.add("cancelled");
    });
    assert!(cancelled.active() && cancelled.time() >= asked + FAR && cancelled.time() <= reactor.seconds() + FAR);
    let due = cancelled.time();
    cancelled.delay(Duration::from_secs(5)).unwrap();
    assert_eq!(cancelled.time(), due + Duration::from_secs(5));
    cancelled.hasten(Duration::from_secs(10)).unwrap();
    assert_eq!(cancelled.time(), due - Duration::from_secs(5));
    cancelled.reset(2 * FAR).unwrap();
    assert!(cancelled.time() >= asked + 2 * FAR);
    cancelled.cancel().unwrap();
    assert!(!cancelled.active());
    assert!(weak.upgrade().is_none(), "its function stayed");
    let all = |call: &DelayedCall| {
        [call.cancel(), call.reset(Duration::ZERO), call.delay(Duration::ZERO), call.hasten(Duration::ZERO)]
    };
    assert_eq!(all(&cancelled), [Err(TimerError::AlreadyCancelled); 4]);
    // From inside itself, a timer counts as called.
    let own = ran.clone();
    let this: Rc<RefCell<Option<DelayedCall>>> = Rc::default();
    let inside = Rc::clone(&this);
    let called = reactor.call_later(FAR, move || {
        let this = inside.borrow_mut().take().unwrap();
        assert!(!this.active());
        assert_eq!(
            [this.cancel(), this.reset(Duration::ZERO), this.delay(Duration::ZERO)],
            [Err(TimerError::AlreadyCalled); 3]
        );
        own.add("called");
    });
    this.replace(Some(called.clone()));
    called.reset(Duration::ZERO).unwrap();
    let (_, errors) = logged(|| run_until(&reactor, || !called.active()));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(all(&called), [Err(TimerError::AlreadyCalled); 4]);
    settle(&reactor);
    assert_eq!(ran.all(), ["called"]);
}

/// F28: a timer that cancels another which is due in the same turn is obeyed; one that moves it has
/// it wait a turn.
#[test]
fn timers_reach_those_due_in_the_same_turn() {
    let (reactor, ran) = (reactor(), Log::default());
    let others: Rc<RefCell<Vec<DelayedCall>>> = Rc::default();
    let (own, known) = (ran.clone(), Rc::clone(&others));
    reactor.call_later(Duration::ZERO, move || {
        let [cancelled, moved] = &known.borrow()[..] else { panic!("both are known") };
        cancelled.cancel().unwrap();
        moved.reset(Duration::ZERO).unwrap();
        own.add("first");
    });
    for name in ["cancelled", "moved"] {
        let own = ran.clone();
        others.borrow_mut().push(reactor.call_later(Duration::ZERO, move || own.add(name)));
    }
    let own = ran.clone();
    reactor.call_later(Duration::ZERO, move || own.add("last"));
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(ran.all(), ["first", "last"]);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(ran.all(), ["first", "last", "moved"]);
}

/// A timer that panics is logged, and the next one runs.
#[test]
fn a_panic_of_one_timer_harms_no_other() {
    let (reactor, ran) = (reactor(), Log::default());
    for n in 0..3 {
        let own = ran.clone();
        reactor.call_later(Duration::ZERO, move || match n {
            1 => panic!("timer {n} failed"),
            _ => own.add(format!("timer {n}")),
        });
    }
    let (result, errors) = logged(|| reactor.iterate(Duration::ZERO));
    result.unwrap();
    assert_eq!(ran.all(), ["timer 0", "timer 2"]);
    assert!(errors.len() == 1 && errors[0].contains("timer 1 failed"), "{errors:?}");
}

/// The pending calls are listed, the next one first, without those that ran or were cancelled.
#[test]
fn delayed_calls_lists_what_waits() {
    let reactor = reactor();
    assert_eq!(reactor.delayed_calls(), []);
    let later = reactor.call_later(2 * FAR, || ());
    let never = reactor.call_later(Duration::MAX, || ());
    let sooner = reactor.call_later(FAR, || ());
    let now = reactor.call_later(Duration::ZERO, || ());
    assert_eq!(reactor.delayed_calls(), [now, sooner.clone(), later.clone(), never.clone()]);
    run_until(&reactor, || reactor.delayed_calls().len() == 3);
    sooner.cancel().unwrap();
    assert_eq!(reactor.delayed_calls(), [later, never]);
}

/// A loop that waits for a timer sleeps: until a timer that was cancelled it does not wake, nor for
/// one so far away that no poller can be told of it (F25); and it does not sleep past a near one.
#[test]
fn a_loop_sleeps_until_its_next_timer() {
    let millis = |exponent: u32| Duration::from_millis(1 << exponent);
    let delays = [
        FAR,
        // Times that overflow a poller's 32 bits of milliseconds, with a little more, in case it is
        // cut off.
        millis(31) - Duration::from_millis(1),
        millis(31),
        millis(32) + Duration::from_millis(2),
        millis(40) + Duration::from_millis(2),
        Duration::from_secs(u32::MAX.into()),
        Duration::MAX / 2,
        Duration::MAX,
    ];
    for delay in delays {
        let (reactor, ran) = (reactor(), Log::default());
        let own = ran.clone();
        let far = reactor.call_later(delay, move || own.add("far"));
        let own = ran.clone();
        let cancelled = reactor.call_later(Duration::from_millis(1), move || own.add("cancelled"));
        cancelled.cancel().unwrap();
        let remote = reactor.remote();
        let outside = from_outside(Duration::from_millis(20), move || {
            remote.call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
        });
        run(&reactor).unwrap();
        outside.join().unwrap();
        assert!(reactor.counters().turns <= 3, "{delay:?}: {} turns", reactor.counters().turns);
        assert!(far.active() && ran.all().is_empty(), "{delay:?}");
    }
}

/// Huge delays are as good as never, and are moved like others.
#[test]
fn huge_delays_are_as_good_as_never() {
    let (reactor, ran) = (reactor(), Rc::new(Cell::new(false)));
    let own = Rc::clone(&ran);
    let call = reactor.call_later(Duration::MAX, move || own.set(true));
    let far = call.time();
    assert!(far > Duration::from_secs(100 * 365 * 86_400));
    call.delay(Duration::MAX).unwrap();
    call.reset(Duration::MAX).unwrap();
    assert_eq!(call.time(), far);
    // A turn may be asked to wait for ever, too, where something else ends the wait: here a new
    // connection.
    let (_port, address) = listen(&reactor, scripts(&Log::default()));
    let _client = dial(address);
    let _watchdog = Watchdog::new();
    reactor.iterate(Duration::MAX).unwrap();
    reactor.iterate(Duration::ZERO).unwrap();
    let calls = reactor.delayed_calls();
    assert!(calls.len() == 1 && calls[0] == call);
    call.hasten(Duration::MAX).unwrap();
    reactor.iterate(Duration::ZERO).unwrap();
    assert!(ran.get());
}

/// A wait ends when a timer is due, not at the end of what `iterate` was given, and the timer runs
/// in the turn after it.
#[test]
fn a_turn_waits_no_longer_than_until_the_next_timer() {
    let _watchdog = Watchdog::new();
    let reactor = reactor();
    let (told, tell) = mpsc::channel();
    let handle: Reactor = reactor.clone();
    let call = reactor.call_later(Duration::from_millis(5), move || told.send(handle.counters().turns).unwrap());
    reactor.iterate(2 * LIMIT).unwrap();
    assert!(reactor.seconds() >= call.time());
    assert!(call.active());
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(tell.try_recv(), Ok(2));
}
