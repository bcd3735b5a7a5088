//! Triggers of startup and shutdown: three phases each, in order, once, and patient with Deferreds,
//! within limits.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::{Deferred, Failure, Phase, Reactor, SystemEvent};

const PHASES: [(Phase, &str); 3] = [(Phase::Before, "before"), (Phase::During, "during"), (Phase::After, "after")];
const EVENTS: [(SystemEvent, &str); 2] = [(SystemEvent::Startup, "startup"), (SystemEvent::Shutdown, "shutdown")];

/// Has the reactor stop as soon as it runs.
fn stop_at_once(reactor: &Reactor) {
    let handle = reactor.clone();
    reactor.call_when_running(move || {
        handle.clone().call_later(Duration::ZERO, move || handle.stop().unwrap());
    });
}

/// A Deferred that a timer fires, and that writes down when.
fn fired_by_a_timer(reactor: &Reactor, log: &Log, what: &str) -> Deferred<()> {
    let (promise, deferred) = Promise::new();
    let (log, what) = (log.clone(), format!("{what} fired"));
    reactor.call_later(Duration::from_millis(1), move || {
        log.add(what);
        promise.callback(()).unwrap();
    });
    deferred
}

/// Phases come in order whatever the order of addition, and the triggers of one phase in the order
/// of addition.
#[test]
fn phases_and_triggers_come_in_order() {
    let (reactor, log) = (reactor(), Log::default());
    for (event, event_name) in EVENTS.into_iter().rev() {
        for (phase, phase_name) in PHASES.into_iter().rev() {
            for n in 0..3 {
                let log = log.clone();
                reactor.add_system_event_trigger(phase, event.clone(), move || {
                    log.add(format!("{event_name} {phase_name} {n}"));
                });
            }
        }
    }
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    let order: Vec<String> = EVENTS
        .iter()
        .flat_map(|(_, event)| {
            PHASES.iter().flat_map(move |(_, phase)| (0..3).map(move |n| format!("{event} {phase} {n}")))
        })
        .collect();
    assert_eq!(log.all(), order);
}

/// A Deferred holds the next phase up, in every phase of both events, while the loop turns; several
/// are all waited for.
#[test]
fn deferreds_hold_the_next_phase_up() {
    let (reactor, log) = (reactor(), Log::default());
    let mut order = Vec::new();
    for (event, event_name) in EVENTS {
        for (phase, phase_name) in PHASES {
            for n in 0..2 {
                let (own, handle, name) = (log.clone(), reactor.clone(), format!("{event_name} {phase_name} {n}"));
                reactor.add_system_event_trigger(phase, event.clone(), move || {
                    own.add(&*name);
                    fired_by_a_timer(&handle, &own, &name)
                });
            }
            let names = ["0", "1", "0 fired", "1 fired"];
            order.extend(names.map(|what| format!("{event_name} {phase_name} {what}")));
        }
    }
    let (handle, own) = (reactor.clone(), log.clone());
    // After a trigger of the phase in which it was added, and before its Deferreds: it is there
    // already.
    reactor.add_system_event_trigger(Phase::After, SystemEvent::Startup, move || {
        let again = handle.clone();
        own.add("startup after last");
        handle.call_later(Duration::from_millis(20), move || again.stop().unwrap());
    });
    run(&reactor).unwrap();
    let last = order.iter().position(|entry| entry == "startup after 0 fired").unwrap();
    order.insert(last, "startup after last".to_owned());
    assert_eq!(log.all(), order);
}

/// Connections are served while a shutdown waits for what was to be done before it, and closed
/// afterwards.
#[test]
fn the_network_is_served_before_the_shutdown() {
    let (reactor, log) = (reactor(), Log::default());
    let (own, handle) = (log.clone(), reactor.clone());
    let finish: Rc<RefCell<Option<Promise<()>>>> = Rc::default();
    let (finishing, waiting) = (Rc::clone(&finish), log.clone());
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
        waiting.add("waiting");
        let (promise, deferred) = Promise::new();
        finishing.replace(Some(promise));
        deferred
    });
    let script = Script::new(&log).data(move |transport, data| {
        transport.write(data);
        own.add(String::from_utf8_lossy(data));
        match data {
            b"stop" => handle.stop()?,
            _ => drop(finish.take()),
        }
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        use std::io::Write;
        let mut answer = [0; 4];
        for message in ["stop", "last"] {
            stream.write_all(message.as_bytes()).unwrap();
            stream.read_exact(&mut answer).unwrap();
        }
        stream.read_to_end(&mut Vec::new()).unwrap()
    });
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(client.join().unwrap(), 0);
    assert_eq!(log.all(), ["made", "data", "stop", "waiting", "data", "last", "lost: the reactor stopped"]);
    // The promise was dropped, which is a failure, and a failure ends the wait as well.
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("abandoned"), "{errors:?}");
}

/// A trigger that fails, panics, or whose Deferred fails, is logged with its place, and the others
/// run.
#[test]
fn a_failing_trigger_harms_nobody() {
    let (reactor, log) = (reactor(), Log::default());
    for (event, event_name) in EVENTS {
        for (phase, phase_name) in PHASES {
            let (own, handle) = (log.clone(), reactor.clone());
            reactor
                .add_system_event_trigger(phase, event.clone(), || -> ropewalk::Result<()> { panic!("it panicked") });
            reactor.add_system_event_trigger(phase, event.clone(), || Err(Failure::message("it failed")));
            reactor.add_system_event_trigger(phase, event.clone(), || {
                Deferred::<()>::fail(Failure::message("its Deferred failed"))
            });
            reactor.add_system_event_trigger(phase, event.clone(), move || {
                fired_by_a_timer(&handle, &Log::default(), "")
                    .add_callback(|()| -> ropewalk::Result<()> { Err(Failure::message("its Deferred gave up")) })
            });
            reactor
                .add_system_event_trigger(phase, event.clone(), move || own.add(format!("{event_name} {phase_name}")));
        }
    }
    stop_at_once(&reactor);
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    let order =
        ["startup before", "startup during", "startup after", "shutdown before", "shutdown during", "shutdown after"];
    assert_eq!(log.all(), order);
    assert_eq!(errors.len(), 24, "{errors:#?}");
    for (what, count) in [
        ("failure=a callback panicked: it panicked ", 6),
        ("failure=it failed ", 6),
        ("failure=its Deferred failed ", 6),
        ("failure=its Deferred gave up ", 6),
        ("event=Startup phase=Before ", 4),
        ("event=Shutdown phase=After ", 4),
        ("trigger=tests/reactor/triggers.rs:", 24),
    ] {
        assert_eq!(errors.iter().filter(|line| line.contains(what)).count(), count, "{what}: {errors:#?}");
    }
}

/// A trigger that is added while triggers run, for the present phase or a later one, runs in this
/// run; one for an earlier phase waits for the next.
#[test]
fn triggers_added_by_triggers_run() {
    let (reactor, log) = (reactor(), Log::default());
    let (handle, own) = (reactor.clone(), log.clone());
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || {
        own.add("during");
        for (phase, name) in PHASES {
            let own = own.clone();
            handle.add_system_event_trigger(phase, SystemEvent::Shutdown, move || own.add(format!("added {name}")));
        }
    });
    let own = log.clone();
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || own.add("during, the second"));
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    let first = ["during", "during, the second", "added during", "added after"];
    assert_eq!(log.all(), first);
    stop_at_once(&reactor);
    run(&reactor).unwrap();
    assert_eq!(log.all()[4..], ["added before"]);
}

/// A trigger that was taken back does not run and is dropped at once; taking back what ran, or was
/// taken back, is an error.
#[test]
fn triggers_can_be_taken_back() {
    let (reactor, log) = (reactor(), Log::default());
    let (own, token) = (log.clone(), Rc::new(()));
    let weak = Rc::downgrade(&token);
    let removed = reactor.add_system_event_trigger(Phase::Before, SystemEvent::Startup, move || {
        let _kept = &token;
        own.add("removed");
    });
    let own = log.clone();
    let kept = reactor.add_system_event_trigger(Phase::Before, SystemEvent::Startup, move || own.add("kept"));
    assert_ne!(removed, kept);
    reactor.remove_system_event_trigger(removed).unwrap();
    assert!(weak.upgrade().is_none(), "its function stayed");
    assert_eq!(reactor.remove_system_event_trigger(removed), Err(ropewalk::reactor::NoSuchTrigger));
    // One trigger takes back the one after it, and can't take itself back.
    let own = log.clone();
    let (handle, victim) = (reactor.clone(), Rc::new(RefCell::new(Vec::new())));
    let victims = Rc::clone(&victim);
    let this = reactor.add_system_event_trigger(Phase::During, SystemEvent::Startup, move || {
        let [this, victim] = victims.borrow()[..] else { panic!("both are known") };
        assert_eq!(handle.remove_system_event_trigger(this), Err(ropewalk::reactor::NoSuchTrigger));
        handle.remove_system_event_trigger(victim).unwrap();
        own.add("took the next one back");
    });
    let own = log.clone();
    let next = reactor.add_system_event_trigger(Phase::During, SystemEvent::Startup, move || own.add("victim"));
    victim.borrow_mut().extend([this, next]);
    stop_at_once(&reactor);
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(log.all(), ["kept", "took the next one back"]);
    for ran in [kept, this, next] {
        assert_eq!(reactor.remove_system_event_trigger(ran), Err(ropewalk::reactor::NoSuchTrigger));
    }
}

/// A trigger runs once: a second run does not repeat it.
#[test]
fn triggers_run_once() {
    let (reactor, log) = (reactor(), Log::default());
    for (event, event_name) in EVENTS {
        for (phase, phase_name) in PHASES {
            let log = log.clone();
            reactor
                .add_system_event_trigger(phase, event.clone(), move || log.add(format!("{event_name} {phase_name}")));
        }
    }
    for _ in 0..2 {
        stop_at_once(&reactor);
        run(&reactor).unwrap();
        assert_eq!(log.all().len(), 6);
    }
}

/// Stopping while the startup waits goes over to the shutdown; what the startup waited for is not
/// waited for any more.
#[test]
fn a_startup_that_waits_can_be_stopped() {
    let (reactor, log) = (reactor(), Log::default());
    let (promise, hanging) = Promise::<()>::new();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Startup, move || hanging);
    let (handle, own) = (reactor.clone(), log.clone());
    reactor.call_later(Duration::ZERO, move || {
        assert!(!handle.is_running());
        own.add("stop");
        handle.stop().unwrap();
        assert!(matches!(handle.stop(), Err(ReactorError::NotRunning)));
    });
    let own = log.clone();
    reactor.call_when_running(move || own.add("when running"));
    let own = log.clone();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || own.add("shutdown"));
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(log.all(), ["stop", "when running", "shutdown"]);
    assert_eq!(errors, Vec::<String>::new());
    promise.callback(()).unwrap();
}

/// A stop in the middle of the startup lets the startup finish, in this run, before the shutdown
/// begins; a crash lets it finish and leaves without a turn. Nothing of the startup is left for the
/// next run.
#[test]
fn a_startup_is_finished_before_it_is_left() {
    for (at, crashes) in PHASES.into_iter().flat_map(|(phase, _)| [(phase, false), (phase, true)]) {
        let (reactor, log) = (reactor(), Log::default());
        let handle = reactor.clone();
        reactor.add_system_event_trigger(at, SystemEvent::Startup, move || {
            if crashes { handle.crash() } else { handle.stop() }.unwrap();
            assert!(matches!(handle.stop(), Err(ReactorError::NotRunning)));
            assert_eq!(handle.is_running(), at > Phase::Before && !crashes, "{at:?}");
        });
        for (event, name) in [(SystemEvent::Startup, "startup"), (SystemEvent::Shutdown, "shutdown")] {
            for (phase, when) in PHASES {
                let own = log.clone();
                reactor.add_system_event_trigger(phase, event.clone(), move || own.add(format!("{when} {name}")));
            }
        }
        let own = log.clone();
        reactor.call_when_running(move || own.add("when running"));
        let turns = reactor.counters().turns;
        run(&reactor).unwrap();
        let startup = ["before startup", "during startup", "after startup", "when running"];
        let shutdown = ["before shutdown", "during shutdown", "after shutdown"];
        assert_eq!(log.all()[..4], startup, "{at:?}");
        assert_eq!(log.all()[4..], shutdown[..if crashes { 0 } else { 3 }], "{at:?}");
        assert_eq!(reactor.counters().turns, turns, "{at:?}: a turn was made");
        stop_at_once(&reactor);
        run(&reactor).unwrap();
        assert!(log.all()[4..].iter().all(|entry| entry.ends_with("shutdown")), "{at:?}: {:?}", log.all());
        assert_eq!(log.count(""), 7, "{at:?}: {:?}", log.all());
    }
}

/// F33: a trigger whose Deferred never fires holds a shutdown up for no longer than its timeout, is
/// named in the log, and nothing else is left out.
#[test]
fn a_hanging_trigger_is_left_behind() {
    let reactor = Reactor::builder().signals(false).shutdown_timeout(Some(Duration::from_millis(50))).build().unwrap();
    let log = Log::default();
    let (promise, hanging) = Promise::<()>::new();
    let (place, own, handle) = (line!() + 1, log.clone(), reactor.clone());
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || hanging);
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
        fired_by_a_timer(&handle, &own, "other")
    });
    for (phase, name) in PHASES {
        let log = log.clone();
        reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || log.add(name));
    }
    let (handle, stopped) = (reactor.clone(), Rc::new(RefCell::new(None)));
    let when = Rc::clone(&stopped);
    let script = Script::new(&log).made(move |_| {
        when.replace(Some(handle.seconds()));
        Ok(handle.stop()?)
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| stream.read_to_end(&mut Vec::new()).unwrap());
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    client.join().unwrap();
    let order = ["made", "before", "other fired", "lost: the reactor stopped", "during", "after"];
    assert_eq!(log.all(), order);
    assert!(reactor.seconds() - stopped.take().unwrap() >= Duration::from_millis(50), "it did not wait");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let named = format!("phase=Before trigger=tests/reactor/triggers.rs:{place}:");
    assert!(errors[0].contains(&named), "{named} {errors:?}");
    assert_eq!(reactor.delayed_calls(), []);
    // Its later result is dropped.
    promise.callback(()).unwrap();
}

/// The timeout is one for all phases: once it is over, no later phase waits, and all their triggers
/// run.
#[test]
fn the_timeout_is_for_all_phases() {
    let reactor = Reactor::builder().signals(false).shutdown_timeout(Some(Duration::from_millis(50))).build().unwrap();
    let log = Log::default();
    let mut promises = Vec::new();
    for (phase, name) in PHASES {
        let (promise, hanging) = Promise::<()>::new();
        promises.push(promise);
        let log = log.clone();
        reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || {
            log.add(name);
            hanging
        });
    }
    stop_at_once(&reactor);
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    assert_eq!(log.all(), ["before", "during", "after"]);
    let hang = errors.iter().filter(|line| line.contains("no result yet")).count();
    assert_eq!(hang, 2, "before and during were waited for: {errors:#?}");
}

/// Without a timeout, or with one of many years, a shutdown waits as long as its triggers do.
#[test]
fn a_shutdown_may_wait_without_limit() {
    for timeout in [None, Some(Duration::MAX)] {
        let reactor = Reactor::builder().signals(false).shutdown_timeout(timeout).build().unwrap();
        let log = Log::default();
        let (handle, own) = (reactor.clone(), log.clone());
        reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            // Nothing but this Deferred's own timer is there to wait for.
            assert!(handle.delayed_calls().len() <= usize::from(timeout.is_some()));
            let (promise, deferred) = Promise::new();
            let again = own.clone();
            handle.call_later(Duration::from_millis(120), move || {
                again.add("fired");
                promise.callback(()).unwrap();
            });
            deferred
        });
        let own = log.clone();
        reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || own.add("during"));
        stop_at_once(&reactor);
        let (result, errors) = logged(|| run(&reactor));
        result.unwrap();
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(log.all(), ["fired", "during"], "{timeout:?}");
    }
}
