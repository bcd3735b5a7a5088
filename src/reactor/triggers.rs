//! System events (Twisted: `addSystemEventTrigger`, `fireSystemEvent`, `_ThreePhaseEvent`):
//! functions that run when a reactor starts or stops, or when the program fires an event of its
//! own.
//!
//! 1. An event has three phases, one after the other. The triggers of a phase run in the order in
//!    which they were added.
//! 2. A phase begins when every Deferred that the triggers of the previous phase returned has its
//!    result.
//! 3. A trigger runs once. A trigger that is added while its event is under way runs in this firing
//!    if its phase is not over, otherwise in the next firing.
//! 4. A trigger that fails is logged, and does not stop the event.
//!
//! Startup and shutdown go through their phases in `run.rs`, events of the program in `events.rs`.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;

use thiserror::Error;

use super::slot_map::SlotMap;
use crate::deferred::{Deferred, DeferredList, Outcome, Promise, maybe_deferred};
use crate::error::ReactorError;
use crate::failure::{Result, drop_guarded};
use crate::log::error;
use crate::transport::id::Id;

/// The phase of an event in which a trigger runs. A phase begins when every Deferred of the
/// previous phase has its result. The last phase of a shutdown also waits for jobs in threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first phase. Before [`SystemEvent::Shutdown`], the network still works: finish the work
    /// that needs it.
    Before,
    /// The second phase. During [`SystemEvent::Shutdown`], ports and connections are closed first.
    During,
    /// The last phase.
    After,
}

impl Phase {
    /// Returns the next phase.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Before => Some(Self::During),
            Self::During => Some(Self::After),
            Self::After => None,
        }
    }
}

/// An event with three [phases](Phase): the reactor's startup or shutdown, or an event of the
/// program (Twisted: `eventType`).
///
/// ```
/// use ropewalk::SystemEvent;
///
/// assert_eq!(SystemEvent::custom("reload"), SystemEvent::custom(String::from("reload")));
/// // A custom event never equals an event of the reactor, whatever its name.
/// assert_ne!(SystemEvent::custom("shutdown"), SystemEvent::Shutdown);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemEvent {
    /// [`Reactor::run`](super::Reactor::run) was called.
    Startup,
    /// [`Reactor::stop`](super::Reactor::stop) was called.
    Shutdown,
    /// [`Reactor::fire_system_event`](super::Reactor::fire_system_event) was called with this name.
    Custom(Cow<'static, str>),
}

impl SystemEvent {
    /// Makes an event of the program, for
    /// [`Reactor::fire_system_event`](super::Reactor::fire_system_event).
    pub fn custom(name: impl Into<Cow<'static, str>>) -> Self {
        Self::Custom(name.into())
    }
}

/// Identifies a trigger, for
/// [`Reactor::remove_system_event_trigger`](super::Reactor::remove_system_event_trigger).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TriggerId(u64);

/// The error of removing a trigger that has run or was removed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no such trigger: it has run, or was removed")]
pub struct NoSuchTrigger;

/// The triggers of a reactor.
#[derive(Default)]
pub(super) struct Triggers {
    waiting: RefCell<Vec<Trigger>>,
    /// The firings of the program's events that are under way.
    firings: RefCell<SlotMap<Promise<()>>>,
    next_id: Cell<u64>,
    closed: Cell<bool>,
}

struct Trigger {
    id: TriggerId,
    phase: Phase,
    event: SystemEvent,
    place: &'static Location<'static>,
    call: Box<dyn FnOnce() -> Deferred<()>>,
}

/// The Deferreds of a phase that is under way. Failures are logged when they occur.
#[derive(Default)]
pub(super) struct PendingTriggers(Vec<(&'static Location<'static>, Deferred<()>)>);

impl PendingTriggers {
    /// Returns the places of the triggers whose Deferreds have no result yet.
    pub(super) fn places(&self) -> impl Iterator<Item = &'static Location<'static>> {
        self.0.iter().filter(|(_, deferred)| !deferred.is_called()).map(|(place, _)| *place)
    }

    /// Returns a Deferred that fires when all of them have results.
    pub(super) fn into_deferred(self) -> Deferred<()> {
        DeferredList::new(self.0.into_iter().map(|(_, deferred)| deferred)).into_deferred().add_callback(drop)
    }
}

impl Triggers {
    #[track_caller]
    pub(super) fn add<R>(&self, phase: Phase, event: SystemEvent, call: impl FnOnce() -> R + 'static) -> TriggerId
    where
        R: Outcome<Output = ()> + 'static,
    {
        let id = TriggerId(self.next_id.replace(self.next_id.get() + 1));
        let call = Box::new(move || maybe_deferred(call));
        let trigger = Trigger { id, phase, event, place: Location::caller(), call };
        if self.closed.get() {
            drop_guarded("a trigger", trigger);
        } else {
            self.waiting.borrow_mut().push(trigger);
        }
        id
    }

    /// Drops every trigger, and every trigger that is added later. Events that are under way fail.
    pub(super) fn close(&self) {
        self.closed.set(true);
        for trigger in self.waiting.take() {
            drop_guarded("a trigger", trigger);
        }
        let firings = self.firings.borrow().ids(|_| true);
        for id in firings {
            self.fired(id, Err(ReactorError::Closed.into()));
        }
    }

    /// Begins a firing of a program's event. The promise is kept until [`fired`](Self::fired).
    pub(super) fn begin_firing(&self, promise: Promise<()>) -> Id {
        self.firings.borrow_mut().insert(promise)
    }

    /// Completes the promise of a firing, unless that was done before.
    pub(super) fn fired(&self, id: Id, result: Result<()>) {
        let promise = self.firings.borrow_mut().remove(id);
        if let Some(promise) = promise {
            // The Deferred may have been cancelled.
            let _ = promise.complete(result);
        }
    }

    pub(super) fn remove(&self, id: TriggerId) -> Result<(), NoSuchTrigger> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|trigger| trigger.id == id).ok_or(NoSuchTrigger)?;
        let trigger = waiting.remove(place);
        drop(waiting);
        drop(trigger);
        Ok(())
    }

    /// Runs the triggers of a phase in the order in which they were added, those added meanwhile
    /// included. Each trigger is used up. `wake` is called when a Deferred of theirs has its
    /// result: the run may go on then, and a host may be waiting.
    pub(super) fn fire(&self, event: &SystemEvent, phase: Phase, wake: impl Fn() + Clone + 'static) -> PendingTriggers {
        let mut pending = PendingTriggers::default();
        while let Some(Trigger { event, place, call, .. }) = self.next(event, phase) {
            let wake = wake.clone();
            let done = call().add_both(move |result| {
                if let Err(failure) = result {
                    error!(?event, ?phase, trigger = %place, %failure, "a trigger failed");
                }
                wake();
            });
            pending.0.push((place, done));
        }
        pending
    }

    fn next(&self, event: &SystemEvent, phase: Phase) -> Option<Trigger> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|trigger| trigger.event == *event && trigger.phase == phase)?;
        Some(waiting.remove(place))
    }
}

impl fmt::Debug for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Triggers").field("waiting", &self.waiting.borrow().len()).finish_non_exhaustive()
    }
}
