//! Cases about foreign descriptors (Twisted: `ReactorFDSetTests` and others of
//! `twisted.internet.test.test_fdset`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::scene::{Role, SeenCall};
use super::{CaseOutcome, Scene, Setting};
use crate::error::WatchError;
use crate::failure::{Failure, Result};
use crate::reactor::{Descriptor, Interest, Reactor, Watch, WatchCallbacks, WatchHandle};
use crate::time::Clock;
use crate::transport::Transport;

/// A descriptor of a setting, whose readiness a case sets. It begins neither readable nor hung up.
pub trait SetDescriptor: fmt::Debug {
    /// Returns the descriptor to watch.
    fn descriptor(&self) -> Descriptor;

    /// Makes the descriptor readable, or not readable any more.
    fn set_readable(&self, on: bool);

    /// Makes the descriptor writable, or not writable any more.
    fn set_writable(&self, on: bool);

    /// Hangs up for good.
    fn hang_up(&self);
}

/// The reason for which a setting skips these cases.
const NONE: &str = "the setting has no descriptors";

/// Makes a descriptor that is not ready.
fn idle(setting: &mut dyn Setting) -> Option<Rc<dyn SetDescriptor>> {
    let made: Rc<dyn SetDescriptor> = setting.descriptor()?.into();
    made.set_readable(false);
    made.set_writable(false);
    Some(made)
}

/// A watch that records its callbacks with their turns.
struct Recorded {
    watch: Watch,
    calls: Rc<RefCell<Vec<(u64, &'static str)>>>,
    lost: Rc<RefCell<Vec<Failure>>>,
}

/// An action of a callback of a [`Recorded`], besides its record.
type Act = Rc<dyn Fn(&WatchHandle) -> Result<()>>;

impl Recorded {
    fn new(reactor: &Reactor, made: &Rc<dyn SetDescriptor>, interest: Interest) -> Self {
        Self::acting(reactor, made, interest, |_| Ok(()))
    }

    #[track_caller]
    fn acting(
        reactor: &Reactor,
        made: &Rc<dyn SetDescriptor>,
        interest: Interest,
        act: impl Fn(&WatchHandle) -> Result<()> + 'static,
    ) -> Self {
        let (calls, lost) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<Vec<Failure>>>::default());
        let act: Act = Rc::new(act);
        let noting = |name: &'static str| {
            let (calls, reactor, act) = (Rc::clone(&calls), reactor.clone(), Rc::clone(&act));
            move |watch: &WatchHandle| {
                calls.borrow_mut().push((reactor.counters().turns, name));
                act(watch)
            }
        };
        let reasons = Rc::clone(&lost);
        let callbacks = WatchCallbacks::new()
            .on_read(noting("read"))
            .on_write(noting("write"))
            .on_lost(move |reason| reasons.borrow_mut().push(reason.clone()));
        let watch = reactor.watch(made.descriptor(), interest, callbacks);
        Self { watch: watch.unwrap_or_else(|error| panic!("can't watch: {error}")), calls, lost }
    }

    fn count(&self) -> usize {
        self.calls.borrow().len()
    }

    /// Takes the names of the recorded callbacks, without repetitions.
    fn take_names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.calls.take().into_iter().map(|(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

pub(super) fn a_ready_descriptor_is_reported_in_every_turn(setting: &mut dyn Setting) -> CaseOutcome {
    let Some(made) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
    let mut scene = Scene::new(setting);
    let recorded = Recorded::new(&scene.reactor, &made, Interest::READ);
    scene.moment();
    assert_eq!(recorded.count(), 0, "it is not ready");
    made.set_readable(true);
    scene.until(|| recorded.count() >= 5);
    let turns: Vec<u64> = recorded.calls.borrow().iter().map(|(turn, _)| *turn).collect();
    assert!(turns.windows(2).all(|pair| pair[1] == pair[0] + 1), "once in each turn: {turns:?}");
    made.set_readable(false);
    let drained = recorded.count();
    scene.moment();
    assert_eq!(recorded.count(), drained, "it was drained");
    made.set_readable(true);
    scene.until(|| recorded.count() > drained);
    CaseOutcome::Passed
}

pub(super) fn reading_and_writing_are_paused_apart(setting: &mut dyn Setting) -> CaseOutcome {
    let Some(made) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
    let mut scene = Scene::new(setting);
    let recorded = Recorded::new(&scene.reactor, &made, Interest::READ | Interest::WRITE);
    made.set_readable(true);
    scene.until(|| recorded.count() > 2);
    assert_eq!(recorded.take_names(), ["read"]);
    made.set_writable(true);
    scene.until(|| recorded.count() > 4);
    assert_eq!(recorded.take_names(), ["read", "write"]);
    let watch = recorded.watch.handle();
    for (change, interest, names) in [
        (WatchHandle::pause_reading as Change, Interest::WRITE, &["write"][..]),
        (WatchHandle::pause_writing, Interest::NONE, &[]),
        (WatchHandle::resume_reading, Interest::READ, &["read"]),
        (WatchHandle::resume_writing, Interest::READ | Interest::WRITE, &["read", "write"]),
    ] {
        change(&watch).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((watch.interest(), watch.is_active()), (interest, true));
        recorded.calls.take();
        if names.is_empty() {
            scene.moment()
        } else {
            scene.until(|| recorded.count() > 4)
        }
        assert_eq!(recorded.take_names(), names);
    }
    CaseOutcome::Passed
}

/// A method of a handle.
type Change = fn(&WatchHandle) -> Result<(), WatchError>;

pub(super) fn a_hang_up_is_reported_to_every_interest(setting: &mut dyn Setting) -> CaseOutcome {
    for (interest, names) in [
        (Interest::READ, &["read"][..]),
        (Interest::WRITE, &["write"]),
        (Interest::READ | Interest::WRITE, &["read", "write"]),
    ] {
        let Some(made) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
        let mut scene = Scene::new(setting);
        let recorded = Recorded::new(&scene.reactor, &made, interest);
        scene.moment();
        assert!(recorded.count() == 0 && !recorded.watch.is_hung_up());
        made.hang_up();
        scene.until(|| recorded.count() > 4);
        assert!(recorded.watch.is_hung_up() && recorded.take_names() == names, "{interest:?}");
        // A paused watch is told of nothing.
        recorded.watch.set_interest(Interest::NONE).unwrap_or_else(|error| panic!("{error}"));
        recorded.calls.take();
        scene.moment();
        assert!(recorded.count() == 0 && recorded.lost.borrow().is_empty());
    }
    CaseOutcome::Passed
}

/// The first callback ends its own watch, a ready one and an idle one, and begins another.
pub(super) fn a_callback_ends_and_begins_watches(setting: &mut dyn Setting) -> CaseOutcome {
    let Some(first) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
    let Some((second, third)) = idle(setting).zip(idle(setting)) else { return CaseOutcome::Skipped(NONE) };
    let mut scene = Scene::new(setting);
    let others = [&second, &third].map(|made| Recorded::new(&scene.reactor, made, Interest::READ));
    let handles = others.each_ref().map(|other| other.watch.handle());
    let (begun, reactor, again) = (Rc::new(RefCell::new(None)), scene.reactor.clone(), Rc::clone(&third));
    let place = Rc::clone(&begun);
    let recorded = Recorded::acting(&scene.reactor, &first, Interest::READ | Interest::WRITE, move |watch| {
        handles.iter().for_each(WatchHandle::stop);
        watch.stop();
        watch.stop();
        place.replace(Some(Recorded::new(&reactor, &again, Interest::READ)));
        assert!(matches!(watch.set_interest(Interest::READ), Err(WatchError::Ended)));
        Ok(())
    });
    for made in [&first, &second, &third] {
        made.set_readable(true);
    }
    first.set_writable(true);
    scene.until(|| begun.borrow().as_ref().is_some_and(|begun| begun.count() > 2));
    assert_eq!(recorded.take_names().len(), 1, "reading and writing were ready, and one has ended the watch");
    let told: usize = others.iter().map(Recorded::count).sum();
    third.set_readable(false);
    scene.moment();
    assert_eq!(others.iter().map(Recorded::count).sum::<usize>(), told, "ended watches are told of nothing");
    assert!(others.iter().all(|other| other.count() <= 1 && other.lost.borrow().is_empty()));
    assert_eq!(scene.reactor.watched_descriptors().len(), 1);
    begun.take();
    assert_eq!(scene.reactor.watched_descriptors().len(), 0);
    CaseOutcome::Passed
}

pub(super) fn a_failing_callback_ends_its_own_watch_only(setting: &mut dyn Setting) -> CaseOutcome {
    for panics in [false, true] {
        let Some((bad, good)) = idle(setting).zip(idle(setting)) else { return CaseOutcome::Skipped(NONE) };
        let mut scene = Scene::new(setting);
        let failing = Recorded::acting(&scene.reactor, &bad, Interest::READ, move |_| {
            if panics {
                panic!("as ordered");
            }
            Err(Failure::message("as ordered"))
        });
        let other = Recorded::new(&scene.reactor, &good, Interest::READ);
        bad.set_readable(true);
        good.set_readable(true);
        scene.until(|| other.count() > 3);
        assert_eq!((failing.count(), failing.lost.borrow().len(), failing.watch.is_active()), (1, 1, false));
        assert!(failing.lost.borrow()[0].to_string().ends_with("as ordered"), "{:?}", failing.lost.borrow());
        assert!(other.watch.is_active());
        // The descriptor can be watched anew.
        let anew = Recorded::new(&scene.reactor, &bad, Interest::READ);
        scene.until(|| anew.count() > 0);
    }
    CaseOutcome::Passed
}

pub(super) fn a_descriptor_is_watched_once(setting: &mut dyn Setting) -> CaseOutcome {
    let Some(made) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
    let mut scene = Scene::new(setting);
    let recorded = Recorded::new(&scene.reactor, &made, Interest::READ);
    let second = scene.reactor.watch(made.descriptor(), Interest::WRITE, WatchCallbacks::new());
    assert!(matches!(second, Err(WatchError::AlreadyWatched { .. })), "{second:?}");
    made.set_readable(true);
    scene.until(|| recorded.count() > 1);
    drop(recorded);
    let recorded = Recorded::new(&scene.reactor, &made, Interest::READ);
    scene.until(|| recorded.count() > 1);
    CaseOutcome::Passed
}

/// A descriptor that is never drained shares the turns with timers and connections.
pub(super) fn a_busy_descriptor_starves_nothing(setting: &mut dyn Setting) -> CaseOutcome {
    let Some(made) = idle(setting) else { return CaseOutcome::Skipped(NONE) };
    let mut scene = Scene::new(setting);
    let recorded = Recorded::new(&scene.reactor, &made, Interest::READ);
    let came = Rc::new(Cell::new(false));
    let seen = Rc::clone(&came);
    let reader = Role::new().on(SeenCall::Data, move |_, _| {
        seen.set(true);
        Ok(())
    });
    let (end, peer) = scene.pair(reader, Role::new());
    let (watch, pause) = (recorded.watch.handle(), scene.setting.moment() / 20);
    let set = |interest| watch.set_interest(interest).unwrap_or_else(|error| panic!("{error}"));
    let mut rounds = 0;
    made.set_readable(true);
    peer.with_transport(|transport| transport.write(b"x"));
    while !came.get() {
        set(Interest::READ);
        let (timer, seen) = (Rc::new(Cell::new(false)), recorded.count());
        let fired = Rc::clone(&timer);
        scene.reactor.call_later(Duration::ZERO, move || fired.set(true));
        scene.until(|| timer.get() && recorded.count() > seen);
        // On a simulated network no time passes while there is work.
        set(Interest::NONE);
        scene.pass(pause);
        rounds += 1;
        assert!(rounds < 100_000, "the byte does not come");
    }
    drop(recorded);
    end.with_transport(Transport::lose_connection);
    peer.with_transport(Transport::lose_connection);
    scene.until(|| end.is_over() && peer.is_over());
    scene.finish(&[]);
    CaseOutcome::Passed
}

/// Watches end with the reactor's stop, and the next run has others.
pub(super) fn watches_end_when_the_reactor_stops(setting: &mut dyn Setting) -> CaseOutcome {
    let Some((made, paused)) = idle(setting).zip(idle(setting)) else { return CaseOutcome::Skipped(NONE) };
    let reactor = setting.reactor();
    let refused = Rc::new(Cell::new(false));
    for _ in 0..2 {
        let (note, stopping, again) = (Rc::clone(&refused), reactor.clone(), Rc::clone(&made));
        let callbacks = WatchCallbacks::new().on_lost(move |reason| {
            let next = stopping.watch(again.descriptor(), Interest::READ, WatchCallbacks::new());
            let is_stop = |reason: Option<&WatchError>| matches!(reason, Some(WatchError::ReactorStopped));
            note.set(is_stop(reason.check()) && is_stop(next.as_ref().err()));
        });
        let watch = reactor.watch(paused.descriptor(), Interest::NONE, callbacks);
        let _watch = watch.unwrap_or_else(|error| panic!("can't watch: {error}"));
        let stopping = reactor.clone();
        let recorded = Recorded::acting(&reactor, &made, Interest::READ, move |_| Ok(stopping.stop()?));
        made.set_readable(true);
        setting.run(&reactor).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((recorded.count(), recorded.lost.borrow().len()), (1, 1));
        assert!(refused.take() && reactor.watched_descriptors().is_empty());
    }
    CaseOutcome::Passed
}
