//! What runs when a reactor starts and stops (Twisted: `addSystemEventTrigger`), in three phases each.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use thiserror::Error;

use crate::deferred::{Deferred, Outcome, maybe_deferred};
use crate::failure::drop_guarded;
use crate::log::error;

/// When in an event a trigger runs. A phase begins when every Deferred of the one before has its result; the last one of a
/// shutdown, when jobs in threads are done as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// First. Before [`SystemEvent::Shutdown`]: finish what needs the network.
    Before,
    /// Then. During [`SystemEvent::Shutdown`], ports and connections are closed first.
    During,
    /// Last.
    After,
}

impl Phase {
    /// The phase that follows.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Before => Some(Self::During),
            Self::During => Some(Self::After),
            Self::After => None,
        }
    }
}

/// What a reactor goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SystemEvent {
    /// `run` was called.
    Startup,
    /// `stop` was called.
    Shutdown,
}

/// Names a trigger, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TriggerId(u64);

/// The trigger has run, or was taken back already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no such trigger: it has run, or was removed")]
pub struct NoSuchTrigger;

/// The triggers of a reactor.
#[derive(Default)]
pub(super) struct Triggers {
    waiting: RefCell<Vec<Trigger>>,
    made: Cell<u64>,
    closed: Cell<bool>,
}

struct Trigger {
    id: TriggerId,
    phase: Phase,
    event: SystemEvent,
    place: &'static Location<'static>,
    call: Box<dyn FnOnce() -> Deferred<()>>,
}

/// The Deferreds of a phase that is under way: where those came from that have no result yet.
pub(super) type Pending = Rc<RefCell<Vec<(TriggerId, &'static Location<'static>)>>>;

impl Triggers {
    #[track_caller]
    pub(super) fn add<R>(&self, phase: Phase, event: SystemEvent, call: impl FnOnce() -> R + 'static) -> TriggerId
    where
        R: Outcome<Output = ()> + 'static,
    {
        let id = TriggerId(self.made.replace(self.made.get() + 1));
        let call = Box::new(move || maybe_deferred(call));
        let trigger = Trigger { id, phase, event, place: Location::caller(), call };
        if self.closed.get() {
            drop_guarded("a trigger", trigger);
        } else {
            self.waiting.borrow_mut().push(trigger);
        }
        id
    }

    /// Drops every trigger, those that are added from now on too.
    pub(super) fn close(&self) {
        self.closed.set(true);
        for trigger in self.waiting.take() {
            drop_guarded("a trigger", trigger);
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

    /// Runs the triggers of a phase in the order in which they were added, those added meanwhile included. Each is used up.
    pub(super) fn fire(&self, event: SystemEvent, phase: Phase) -> Pending {
        let pending = Pending::default();
        while let Some(trigger) = self.next(event, phase) {
            let Trigger { id, place, call, .. } = trigger;
            pending.borrow_mut().push((id, place));
            let ended = Rc::clone(&pending);
            let done = call().add_both(move |result| {
                ended.borrow_mut().retain(|(pending, _)| *pending != id);
                if let Err(failure) = result {
                    error!(?event, ?phase, trigger = %place, %failure, "a trigger failed");
                }
            });
            drop(done);
        }
        pending
    }

    fn next(&self, event: SystemEvent, phase: Phase) -> Option<Trigger> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|trigger| trigger.event == event && trigger.phase == phase)?;
        Some(waiting.remove(place))
    }
}

impl fmt::Debug for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Triggers").field("waiting", &self.waiting.borrow().len()).finish_non_exhaustive()
    }
}
