//! Adding triggers, and firing events of the program (Twisted: `addSystemEventTrigger`, `fireSystemEvent`).
//!
//! An event of the program goes on by itself, at once or when the last Deferred of a phase fires, whether the loop runs or not.

use std::rc::Rc;

use super::triggers::{NoSuchTrigger, Phase, SystemEvent, TriggerId};
use super::{Core, Reactor};
use crate::deferred::{Deferred, Outcome, Promise};
use crate::error::ReactorError;
use crate::failure::Result;

impl Reactor {
    /// Has `call` run when the reactor starts or stops, or when the program fires an event of its own (Twisted:
    /// `addSystemEventTrigger`). It returns nothing, a `Result<()>` (an error is logged), or a Deferred, which the next phase waits for.
    /// A trigger runs once. A closed reactor drops it.
    #[track_caller]
    pub fn add_system_event_trigger<R>(
        &self,
        phase: Phase,
        event: SystemEvent,
        call: impl FnOnce() -> R + 'static,
    ) -> TriggerId
    where
        R: Outcome<Output = ()> + 'static,
    {
        self.0.triggers.add(phase, event, call)
    }

    /// Takes a trigger back (Twisted: `removeSystemEventTrigger`).
    ///
    /// # Errors
    /// [`NoSuchTrigger`] if it has run, or was removed.
    pub fn remove_system_event_trigger(&self, id: TriggerId) -> Result<(), NoSuchTrigger> {
        self.0.triggers.remove(id)
    }

    /// Fires an event of the program: runs the triggers of [`SystemEvent::custom`] with this name, phase by phase (Twisted:
    /// `fireSystemEvent`). The triggers of `Before` run before this returns, and so do those of the later phases unless a Deferred is to be
    /// waited for. The reactor need not run.
    ///
    /// A trigger that fails is logged, and the others run. Triggers are used up: an event that is fired again runs those that were added
    /// since. Fired while it is under way, an event goes through its phases beside the first firing, and takes the triggers that have
    /// not run yet. Nothing limits how long a firing waits.
    ///
    /// The Deferred fires when the last phase is done. Cancelling it does not stop the event. A reactor that stops or crashes
    /// does not wait for it, and the event goes on as its Deferreds fire; a shutdown that is to wait for it returns it from a trigger.
    ///
    /// Fails with [`ReactorError::Closed`] when the reactor was closed, also while the event was under way, and with
    /// [`ReactorError::ForkedChild`] in a forked child of the reactor's process; nothing runs then.
    ///
    /// ```
    /// use ropewalk::{Phase, Reactor, SystemEvent};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// reactor.add_system_event_trigger(Phase::Before, SystemEvent::custom("reload"), || println!("reading the configuration"));
    /// let reloaded = reactor.fire_system_event("reload");
    /// assert!(reloaded.is_called());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn fire_system_event(&self, name: &str) -> Deferred<()> {
        self.0.fire_system_event(name)
    }
}

impl Core {
    #[track_caller]
    fn fire_system_event(self: &Rc<Self>, name: &str) -> Deferred<()> {
        if self.is_closed() {
            return Deferred::fail(ReactorError::Closed);
        }
        let (promise, answer) = Promise::new();
        let id = self.triggers.begin_firing(promise);
        let event = SystemEvent::custom(name.to_owned());
        let phases =
            [Phase::Before, Phase::During, Phase::After].into_iter().fold(Deferred::succeed(()), |done, phase| {
                let (core, event) = (Rc::downgrade(self), event.clone());
                // Of a reactor that is gone, `answer` has said so.
                done.add_callback(move |()| {
                    core.upgrade().map_or(Deferred::succeed(()), |core| core.fire_phase(&event, phase))
                })
            });
        let core = Rc::downgrade(self);
        let told = phases.add_both(move |result| {
            if let Some(core) = core.upgrade() {
                core.triggers.fired(id, result);
            }
        });
        drop(told);
        answer
    }

    /// Runs the triggers of a phase of a program's event. Fires when their Deferreds have their results.
    fn fire_phase(&self, event: &SystemEvent, phase: Phase) -> Deferred<()> {
        // The event may have been fired, or a Deferred of its triggers may have, in a forked child.
        if self.process.is_parent() {
            return Deferred::fail(ReactorError::ForkedChild);
        }
        self.triggers.fire(event, phase).into_deferred()
    }
}
