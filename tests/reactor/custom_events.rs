//! Events of the program's own: three phases each, on Twisted's terms. A virtual network has the
//! time; nothing here is the kernel's.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::{Cancelled, Promise, unhandled};
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::reactor::NoSuchTrigger;
use ropewalk::testing::Network;
use ropewalk::{Deferred, Failure, Phase, Reactor, SystemEvent};

const MINUTE: Duration = Duration::from_secs(60);

const PHASES: [(Phase, &str); 3] = [(Phase::Before, "before"), (Phase::During, "during"), (Phase::After, "after")];

fn simulated() -> (Network, Reactor) {
    let network = Network::new(1);
    let reactor = network.reactor("10.0.0.1".parse().unwrap());
    (network, reactor)
}

fn reload() -> SystemEvent {
    SystemEvent::custom("reload")
}

/// Adds a trigger that writes its name down.
fn note(reactor: &Reactor, log: &Log, phase: Phase, name: &str) {
    let (log, name) = (log.clone(), name.to_owned());
    reactor.add_system_event_trigger(phase, reload(), move || log.add(name));
}

/// Adds a trigger whose Deferred the promise fires.
fn hold(reactor: &Reactor, log: &Log, phase: Phase, name: &str) -> Promise<()> {
    let (promise, deferred) = Promise::new();
    let (log, name) = (log.clone(), name.to_owned());
    reactor.add_system_event_trigger(phase, reload(), move || {
        log.add(name);
        deferred
    });
    promise
}

/// Phases come in order, and triggers in the order of their addition, all before the call returns,
/// on a reactor that does not run. The other events and the reactor's own stay as they are.
#[test]
fn an_event_goes_through_its_phases_at_once() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    for (phase, name) in PHASES.into_iter().rev() {
        for n in 0..2 {
            note(&reactor, &log, phase, &format!("{name} {n}"));
        }
        for other in [SystemEvent::custom("shutdown"), SystemEvent::Startup, SystemEvent::Shutdown] {
            reactor.add_system_event_trigger(phase, other, || -> ropewalk::Result<()> { panic!("another event") });
        }
    }
    let (mut done, errors) = logged(|| reactor.fire_system_event("reload"));
    assert_eq!(log.all(), ["before 0", "before 1", "during 0", "during 1", "after 0", "after 1"]);
    assert!(done.take_result().unwrap().is_ok());
    assert_eq!(errors, Vec::<String>::new());
    // Used up, and nothing is under way; an event without triggers is done too.
    for name in ["reload", "unknown", ""] {
        assert!(reactor.fire_system_event(name).take_result().unwrap().is_ok());
    }
    assert_eq!(log.all().len(), 6);
}

/// Each phase waits for every Deferred of the one before, and goes on at the moment at which the
/// last one fires; the event is done when those of the last phase are.
#[test]
fn a_phase_waits_for_the_one_before() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    let mut held = Vec::new();
    for (phase, name) in PHASES {
        held.push([0, 1].map(|n| hold(&reactor, &log, phase, &format!("{name} {n}"))));
        note(&reactor, &log, phase, name);
    }
    let own = log.clone();
    let done = reactor.fire_system_event("reload").add_callback(move |()| own.add("done"));
    let mut expected = Vec::new();
    for ([first, second], (_, name)) in held.iter().zip(PHASES) {
        expected.extend([format!("{name} 0"), format!("{name} 1"), name.to_owned()]);
        assert_eq!(log.all(), expected);
        second.callback(()).unwrap();
        assert_eq!(log.all(), expected, "one is still waited for");
        first.callback(()).unwrap();
    }
    expected.push("done".to_owned());
    assert_eq!(log.all(), expected);
    assert!(done.is_called());
}

/// The loop may run meanwhile: an event waits for a timer, in virtual time.
#[test]
fn an_event_waits_while_the_loop_turns() {
    let (network, reactor) = simulated();
    let log = Log::default();
    for (phase, name) in PHASES {
        let (own, handle) = (log.clone(), reactor.clone());
        reactor.add_system_event_trigger(phase, reload(), move || {
            own.add(name);
            let (promise, deferred) = Promise::new();
            handle.call_later(Duration::from_secs(5), move || promise.callback(()).unwrap());
            deferred
        });
    }
    let (handle, own) = (reactor.clone(), log.clone());
    let began = reactor.seconds();
    reactor.call_when_running(move || {
        let clock = handle.clone();
        let stopped = handle.fire_system_event("reload").add_callback(move |()| {
            own.add("done");
            assert_eq!(clock.seconds() - began, Duration::from_secs(15));
            Ok(clock.stop()?)
        });
        stopped.or_log("the event");
    });
    network.run_for(MINUTE).unwrap();
    assert_eq!(log.all(), ["before", "during", "after", "done"]);
}

/// A trigger that fails, panics, or whose Deferred fails, is logged once with its place and the
/// event's name; the others run, and the event is done all the same.
#[test]
fn a_failing_trigger_harms_nobody() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    for (phase, name) in PHASES {
        reactor.add_system_event_trigger(phase, reload(), || -> ropewalk::Result<()> { panic!("it panicked") });
        reactor.add_system_event_trigger(phase, reload(), || Err(Failure::message("it failed")));
        reactor.add_system_event_trigger(phase, reload(), || Deferred::<()>::fail("its Deferred failed"));
        note(&reactor, &log, phase, name);
    }
    let late = hold(&reactor, &log, Phase::Before, "late");
    let ((mut done, reports), errors) = logged(|| {
        unhandled::collect(|| {
            let done = reactor.fire_system_event("reload");
            late.errback("it gave up").unwrap();
            done
        })
    });
    assert!(done.take_result().unwrap().is_ok() && reports.is_empty(), "{reports:?}");
    assert_eq!(log.all(), ["before", "late", "during", "after"]);
    assert_eq!(errors.len(), 10, "{errors:#?}");
    for (what, count) in [
        ("it panicked ", 3),
        ("it failed ", 3),
        ("its Deferred failed ", 3),
        ("it gave up ", 1),
        ("event=Custom(\"reload\") phase=Before ", 4),
        ("trigger=tests/reactor/custom_events.rs:", 10),
    ] {
        assert_eq!(errors.iter().filter(|line| line.contains(what)).count(), count, "{what}: {errors:#?}");
    }
}

/// Triggers that are added while the event is under way run if their phase is not over, otherwise
/// when it is fired again.
#[test]
fn triggers_may_be_added_and_taken_back_meanwhile() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    let held = hold(&reactor, &log, Phase::During, "during");
    let victim = reactor
        .add_system_event_trigger(Phase::After, reload(), || -> ropewalk::Result<()> { panic!("it was taken back") });
    let ran = reactor.add_system_event_trigger(Phase::Before, reload(), || ());
    let mut first = reactor.fire_system_event("reload");
    for (phase, name) in PHASES {
        note(&reactor, &log, phase, &format!("added {name}"));
    }
    reactor.remove_system_event_trigger(victim).unwrap();
    assert_eq!(reactor.remove_system_event_trigger(ran), Err(NoSuchTrigger));
    held.callback(()).unwrap();
    assert!(first.take_result().unwrap().is_ok());
    assert_eq!(log.all(), ["during", "added after"]);
    assert!(reactor.fire_system_event("reload").take_result().unwrap().is_ok());
    assert_eq!(log.all()[2..], ["added before", "added during"]);
}

/// Fired again while it waits, an event takes the triggers that are left, as Twisted's does; the
/// first firing goes on with what was added since, and each is done by itself.
#[test]
fn an_event_may_be_fired_while_it_is_under_way() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    let held = hold(&reactor, &log, Phase::Before, "held");
    note(&reactor, &log, Phase::During, "during");
    let mut first = reactor.fire_system_event("reload");
    assert_eq!(log.all(), ["held"]);
    assert!(reactor.fire_system_event("reload").take_result().unwrap().is_ok());
    assert_eq!(log.all(), ["held", "during"]);
    note(&reactor, &log, Phase::After, "after");
    assert!(first.take_result().is_none());
    held.callback(()).unwrap();
    assert!(first.take_result().unwrap().is_ok());
    assert_eq!(log.all(), ["held", "during", "after"]);

    // From inside of a trigger: the inner firing takes everything that has not run.
    let (handle, own) = (reactor.clone(), log.clone());
    reactor.add_system_event_trigger(Phase::Before, reload(), move || {
        own.add("outer");
        assert!(handle.fire_system_event("reload").take_result().unwrap().is_ok());
        own.add("outer goes on");
    });
    for (phase, name) in PHASES {
        note(&reactor, &log, phase, name);
    }
    assert!(reactor.fire_system_event("reload").take_result().unwrap().is_ok());
    assert_eq!(log.all()[3..], ["outer", "before", "during", "after", "outer goes on"]);
}

/// A stop and a crash leave an event alone: it goes on when its Deferred fires, in no run or in the
/// next. A shutdown waits for one that a trigger of its own returns.
#[test]
fn an_event_outlives_the_run() {
    type Leave = fn(&Reactor) -> Result<(), ReactorError>;
    for leave in [Reactor::stop as Leave, Reactor::crash] {
        let (network, reactor) = simulated();
        let log = Log::default();
        let held = hold(&reactor, &log, Phase::Before, "before");
        note(&reactor, &log, Phase::During, "during");
        let (fired, handle) = (Rc::new(RefCell::new(None)), reactor.clone());
        let firing = Rc::clone(&fired);
        reactor.call_when_running(move || {
            firing.replace(Some(handle.fire_system_event("reload")));
            leave(&handle).unwrap();
        });
        network.run_for(MINUTE).unwrap();
        assert_eq!(log.all(), ["before"]);
        held.callback(()).unwrap();
        assert_eq!(log.all(), ["before", "during"]);
        assert!(fired.take().unwrap().take_result().unwrap().is_ok());
    }

    let (network, reactor) = simulated();
    let log = Log::default();
    let (handle, own) = (reactor.clone(), log.clone());
    reactor.add_system_event_trigger(Phase::Before, reload(), move || {
        own.add("event");
        let own = own.clone();
        let (promise, deferred) = Promise::new();
        handle.call_later(Duration::from_secs(2), move || {
            own.add("event done");
            promise.callback(()).unwrap();
        });
        deferred
    });
    let handle = reactor.clone();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || handle.fire_system_event("reload"));
    let own = log.clone();
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || own.add("shutdown"));
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
    network.run_for(MINUTE).unwrap();
    assert_eq!(log.all(), ["event", "event done", "shutdown"]);
}

/// A close fails an event that is under way, whose triggers are dropped; one that is fired
/// afterwards fails at once.
#[test]
fn a_close_ends_an_event() {
    let (_network, reactor) = simulated();
    let log = Log::default();
    let held = hold(&reactor, &log, Phase::Before, "before");
    note(&reactor, &log, Phase::During, "during");
    let mut under_way = reactor.fire_system_event("reload");
    reactor.close().unwrap();
    let mut later = reactor.fire_system_event("reload");
    for firing in [&mut under_way, &mut later] {
        let failure = firing.take_result().expect("it ends").unwrap_err();
        assert!(matches!(failure.check::<ReactorError>(), Some(ReactorError::Closed)), "{failure}");
    }
    note(&reactor, &log, Phase::During, "added to a closed reactor");
    held.callback(()).unwrap();
    assert_eq!(log.all(), ["before"]);
}

/// The Deferred may be cancelled or dropped: the event goes on.
#[test]
fn an_event_goes_on_without_its_deferred() {
    for cancel in [false, true] {
        let (_network, reactor) = simulated();
        let log = Log::default();
        let held = hold(&reactor, &log, Phase::Before, "before");
        note(&reactor, &log, Phase::During, "during");
        let mut firing = reactor.fire_system_event("reload");
        if cancel {
            firing.cancel();
            assert!(firing.take_result().unwrap().unwrap_err().check::<Cancelled>().is_some());
        }
        drop(firing);
        held.callback(()).unwrap();
        assert_eq!(log.all(), ["before", "during"]);
    }
}

/// However many triggers an event has, and Deferreds it waits for, it takes no stack.
#[test]
fn many_triggers_take_no_stack() {
    const MANY: usize = 10_000;
    let (_network, reactor) = simulated();
    let log = Log::default();
    let held: Vec<_> = (0..2_000).map(|_| hold(&reactor, &Log::default(), Phase::Before, "")).collect();
    let mut firing = reactor.fire_system_event("reload");
    for promise in held {
        promise.callback(()).unwrap();
    }
    assert!(firing.take_result().unwrap().is_ok());
    for n in 0..MANY {
        let log = log.clone();
        reactor.add_system_event_trigger(Phase::During, SystemEvent::custom("many"), move || {
            if n == MANY - 1 {
                log.add("last");
            }
        });
    }
    assert!(reactor.fire_system_event("many").take_result().unwrap().is_ok());
    assert_eq!(log.all(), ["last"]);
}
