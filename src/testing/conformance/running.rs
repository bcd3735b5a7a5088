//! Cases about running and stopping, and about events from outside the network: calls, jobs,
//! futures.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::link;
use super::scene::{Log, Role, SeenCall, connect_error, once};
use super::{CaseOutcome, Scene, Setting};
use crate::address::Address;
use crate::deferred::Promise;
use crate::error::{ConnectError, ConnectionClosed, ReactorError};
use crate::failure::Result;
use crate::reactor::{Phase, Reactor, SystemEvent};
use crate::task::defer_later;
use crate::time::Clock;
use crate::transport::Transport;

/// A few bytes. More would take long on a network that cuts to single bytes.
const FEW: &[u8] = b"few";

/// The place at which the reactor is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunPlace {
    Build,
    In(SeenCall),
    /// In a callback of a Deferred that fires inside `data_received`.
    DeferredInData,
    Deferred,
    Timer,
    CallFromThread,
    Future,
    StartupTrigger,
}

/// F32.
pub(super) fn stop_works_inside_every_callback(setting: &mut dyn Setting) {
    let mut places = SeenCall::ALL.map(RunPlace::In).to_vec();
    places.extend([RunPlace::Build, RunPlace::Deferred, RunPlace::Timer, RunPlace::CallFromThread, RunPlace::Future]);
    places.extend([RunPlace::DeferredInData, RunPlace::StartupTrigger]);
    for place in places {
        stops(setting, place);
    }
    // A timer or a future left by a stop would keep a reference to the reactor that it is to stop.
    Scene::new(setting).moment();
}

/// Connects two bystanders first, and then a client to a server that stops the reactor at `place`.
fn stops(setting: &mut dyn Setting, place: RunPlace) {
    let mut scene = Scene::new(setting);
    let stopper = Rc::new(Stopper { reactor: scene.reactor.clone(), place, stopped: Cell::new(false) });
    let (bystander, idle) = (Role::new(), Role::new());
    let (bystander_end, idle_end) = (bystander.end(), idle.end());
    let (_, bystanders) = scene.listen(once(idle));

    let mut server = Role::new().half_close();
    for call in SeenCall::ALL {
        let stopper = Rc::clone(&stopper);
        server = server.does(call, move |_| stopper.at(RunPlace::In(call)));
    }
    let inside = Rc::clone(&stopper);
    let server = server.on(SeenCall::Data, move |_, _| {
        let (promise, deferred) = Promise::new();
        let stopper = Rc::clone(&inside);
        drop(deferred.add_callback(move |()| stopper.at(RunPlace::DeferredInData)));
        Ok(promise.callback(())?)
    });
    let server_end = server.end();
    let mut server = Some(server.does(SeenCall::ReadLost, Transport::lose_write_connection));
    let building = Rc::clone(&stopper);
    let (_, to) = scene.listen(move |_| {
        building.at(RunPlace::Build);
        server.take()
    });
    let client = scene.asking(once(Role::new().half_close().does(SeenCall::Made, |transport| {
        transport.write(FEW);
        transport.lose_write_connection();
    })));
    let (then, stop) = (scene.reactor.clone(), Rc::clone(&stopper));
    let connecting = scene.connect(&bystanders, once(bystander));
    let begun = connecting.add_callback(move |_| {
        let (timer, future, call) = (Rc::clone(&stop), Rc::clone(&stop), stop.place);
        stop.at(RunPlace::Deferred);
        then.call_later(Duration::ZERO, move || timer.at(RunPlace::Timer));
        if call == RunPlace::CallFromThread {
            stop.stopped.set(true);
            // Can't fail: the reactor that makes the call exists.
            let _ = then.remote().call_from_thread(|reactor| drop(reactor.stop()));
        }
        let later = then.clone();
        drop(then.spawn(async move {
            defer_later(&later, Duration::ZERO, || Ok(())).await?;
            future.at(RunPlace::Future);
            Ok(())
        }));
        // It may fail, because the reactor stops.
        drop(link::connect(&then, &to, client).add_both(|_| ()));
    });
    drop(begun.add_both(|_| ()));
    let starting = Rc::clone(&stopper);
    scene.reactor.call_when_running(move || starting.at(RunPlace::StartupTrigger));

    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{place:?}: {ran:?}");
    assert!(stopper.stopped.get(), "{place:?}: the reactor was not stopped there");
    assert!(!scene.reactor.is_running());
    assert!(matches!(scene.reactor.stop(), Err(ReactorError::NotRunning)));
    for end in [&bystander_end, &idle_end, &server_end] {
        if end.has(SeenCall::Made) {
            let reason = end.reason();
            match reason.check() {
                Some(ConnectionClosed::ReactorStopped) => {}
                // The connection that stops the reactor in its end already had a reason.
                Some(ConnectionClosed::Done) if place == RunPlace::In(SeenCall::Lost) && end.has(SeenCall::Data) => {}
                _ => panic!("{place:?}: {reason}"),
            }
        }
    }
    assert!(place == RunPlace::StartupTrigger || bystander_end.has(SeenCall::Made), "{place:?}");
    assert_eq!(scene.reactor.counters().watched, 0, "{place:?}: something is left open");
    scene.witness.assert_all_lost();
}

struct Stopper {
    reactor: Reactor,
    place: RunPlace,
    stopped: Cell<bool>,
}

impl Stopper {
    fn at(&self, place: RunPlace) {
        if place == self.place && !self.stopped.get() {
            let (first, second) = (self.reactor.stop(), self.reactor.stop());
            // A stop works once. The case checks that from outside.
            self.stopped.set(first.is_ok() && matches!(second, Err(ReactorError::NotRunning)));
        }
    }
}

pub(super) fn a_stopped_reactor_runs_again(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for _ in 0..3 {
        let (server, client) = (Role::echo(), asking(&scene.reactor));
        let ends = (server.end(), client.end());
        let (_, to) = scene.listen(once(server));
        drop(scene.connect(&to, once(client)).add_both(|_| ()));
        let ran = scene.setting.run(&scene.reactor);
        assert!(ran.is_ok(), "{ran:?}");
        assert_eq!(ends.1.received(), FEW);
        for end in [&ends.0, &ends.1] {
            let reason = end.reason();
            assert!(matches!(reason.check(), Some(ConnectionClosed::ReactorStopped)), "{reason}");
        }
        assert_eq!(scene.reactor.counters().watched, 0);
    }
    scene.witness.assert_all_lost();
}

pub(super) fn a_crash_closes_nothing(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let crash = |reactor: &Reactor| {
        let reactor = reactor.clone();
        move |_: &Transport| drop(reactor.crash())
    };
    let (server, client) = (Role::echo(), Role::new());
    let ends = (server.end(), client.end());
    let heard = client.end();
    let crashed = crash(&scene.reactor);
    let client = client.does(SeenCall::Made, |transport| transport.write(FEW)).does(SeenCall::Data, move |transport| {
        if heard.count_received() % FEW.len() == 0 {
            crashed(transport);
        }
    });
    let (port, to) = scene.listen(once(server));
    drop(scene.connect(&to, once(client)).add_both(|_| ()));
    for round in 1..=3 {
        let ran = scene.setting.run(&scene.reactor);
        assert!(ran.is_ok(), "{ran:?}");
        assert_eq!(ends.1.count_received(), round * FEW.len());
        assert!(!scene.reactor.is_running() && !ends.0.is_over() && !ends.1.is_over() && port.is_listening());
        assert!(matches!(scene.reactor.crash(), Err(ReactorError::NotRunning)));
        ends.1.transport().write(FEW);
    }
    drop(port.stop_listening());
    scene.finish(&[&ends.0, &ends.1]);
}

pub(super) fn a_run_inside_a_run_is_an_error(setting: &mut dyn Setting) {
    let scene = Scene::new(setting);
    let (reactor, log) = (scene.reactor.clone(), Log::default());
    let told = log.clone();
    assert!(matches!(reactor.stop(), Err(ReactorError::NotRunning)));
    assert!(matches!(reactor.crash(), Err(ReactorError::NotRunning)));
    scene.reactor.call_later(Duration::ZERO, move || {
        for again in [reactor.run(), reactor.iterate(Duration::ZERO)] {
            told.add(if matches!(again, Err(ReactorError::AlreadyRunning)) { "refused" } else { "not refused" });
        }
        told.add(if reactor.is_running() { "running" } else { "not running" });
        // Can't fail: the reactor runs.
        let _ = reactor.stop();
    });
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(log.all(), ["refused", "refused", "running"]);
}

pub(super) fn a_stop_waits_for_its_triggers(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    for (phase, name) in [(Phase::After, "after"), (Phase::During, "during"), (Phase::Before, "before")] {
        let (log, reactor) = (log.clone(), scene.reactor.clone());
        scene.reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || {
            log.add(format!("{name} begins"));
            defer_later(&reactor, SHORT, move || {
                log.add(format!("{name} ends"));
                Ok(())
            })
        });
    }
    let (lost, stop) = (log.clone(), scene.reactor.clone());
    // Data in the turn of the stop may come in several chunks. The second stop is refused.
    let server =
        Role::new().does(SeenCall::Data, move |_| drop(stop.stop())).does(SeenCall::Lost, move |_| lost.add("lost"));
    let (_, to) = scene.listen(once(server));
    let client = Role::new().does(SeenCall::Made, |transport| transport.write(FEW));
    drop(scene.connect(&to, once(client)).add_both(|_| ()));
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    let expected =
        ["before begins", "before ends", "lost", "during begins", "during ends", "after begins", "after ends"];
    assert_eq!(log.all(), expected);
    scene.witness.assert_all_lost();
}

/// Long enough that a stop has to wait.
const SHORT: Duration = Duration::from_millis(2);

pub(super) fn attempts_fail_when_the_reactor_stops(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let Some(to) = scene.setting.silent() else {
        return CaseOutcome::Skipped("this setting has no address that does not answer");
    };
    let (stop, results) = (scene.reactor.clone(), Rc::new(RefCell::new(Vec::new())));
    let waiting = scene.connect(&to, once(Role::new()));
    let told = Rc::clone(&results);
    drop(waiting.add_both(move |result| told.borrow_mut().push(result.map(drop))));
    scene.reactor.call_later(SHORT, move || drop(stop.stop()));
    // Too late: no new attempt begins while everything is closed.
    let (late, told) = (scene.reactor.clone(), Rc::clone(&results));
    scene
        .reactor
        .add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || connect_late(&late, &to, told));
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(results.borrow().len(), 2);
    for result in results.borrow().iter() {
        assert!(matches!(connect_error(result), ConnectError::ReactorStopped { .. }), "{result:?}");
    }
    assert_eq!(scene.reactor.counters().watched, 0);
    scene.witness.assert_all_lost();
    CaseOutcome::Passed
}

fn connect_late(reactor: &Reactor, to: &Address, told: Rc<RefCell<Vec<Result<()>>>>) {
    let attempt = link::connect(reactor, to, once(Role::new()));
    drop(attempt.add_both(move |result| told.borrow_mut().push(result.map(drop))));
}

pub(super) fn calls_from_the_own_thread_are_made(setting: &mut dyn Setting) {
    let scene = Scene::new(setting);
    let made = Arc::new(AtomicUsize::new(0));
    // Calls made before the run, in a call of the loop, and in a timer: each chain goes on by
    // itself, and the last call stops the reactor.
    let remote = scene.reactor.remote();
    for number in 0..CALLS {
        let made = Arc::clone(&made);
        let call = move |_: &Reactor| {
            // A call out of order is not counted, and then nothing stops the loop.
            let _ = made.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed);
        };
        assert!(remote.call_from_thread(call).is_ok());
    }
    let counted = Arc::clone(&made);
    scene.reactor.call_later(SHORT, move || chain(&remote, counted));
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(made.load(Ordering::Relaxed), 2 * CALLS);
}

const CALLS: usize = 100;

/// Makes a chain of calls, each of which makes the next. No other event ends a wait.
fn chain(remote: &crate::reactor::Remote, made: Arc<AtomicUsize>) {
    let again = remote.clone();
    // Can't fail: the reactor that makes the call exists.
    let _ = remote.call_from_thread(move |reactor| {
        if made.fetch_add(1, Ordering::Relaxed) + 1 == 2 * CALLS {
            // Can't fail: the reactor runs.
            let _ = reactor.stop();
        } else {
            chain(&again, made);
        }
    });
}

pub(super) fn a_job_wakes_a_loop_that_sleeps(setting: &mut dyn Setting) {
    let scene = Scene::new(setting);
    let log = Log::default();
    let (told, reactor) = (log.clone(), scene.reactor.clone());
    scene.reactor.call_when_running(move || {
        let stop = reactor.clone();
        let job = reactor.defer_to_thread(|| Ok(6 * 7));
        drop(job.add_both(move |result: Result<i32>| {
            told.add(format!("{:?}", result.ok()));
            // Can't fail: the reactor runs.
            let _ = stop.stop();
        }));
    });
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(log.all(), ["Some(42)"]);
}

pub(super) fn a_future_goes_on_in_the_loop(setting: &mut dyn Setting) {
    let scene = Scene::new(setting);
    let (handle, log) = (scene.reactor.clone(), Log::default());
    let (promise, awaited) = Promise::new();
    let told = log.clone();
    let future = scene.reactor.spawn(async move {
        defer_later(&handle, SHORT, || Ok(())).await?;
        told.add("timer");
        let number = handle.defer_to_thread(|| Ok(1)).await?;
        told.add(format!("job {number}"));
        let word: &str = awaited.await?;
        told.add(word);
        handle.stop()?;
        Ok(())
    });
    scene.reactor.call_later(SHORT * 4, move || drop(promise.callback("promise")));
    let ran = scene.setting.run(&scene.reactor);
    assert!(ran.is_ok(), "{ran:?}");
    assert_eq!(log.all(), ["timer", "job 1", "promise"]);
    assert!(future.is_called());
}

/// Returns a client that stops the reactor when it has its answer.
fn asking(reactor: &Reactor) -> Role {
    let role = Role::new().does(SeenCall::Made, |transport| transport.write(FEW));
    let (heard, reactor) = (role.end(), reactor.clone());
    role.does(SeenCall::Data, move |_| {
        if heard.count_received() == FEW.len() {
            // Can't fail: the reactor runs.
            let _ = reactor.stop();
        }
    })
}
