//! Adding triggers, and firing the program's own events (Twisted: `addSystemEventTrigger`,
//! `fireSystemEvent`).
//!
//! An event of the program advances by itself, at once or when the last Deferred of a phase fires,
//! whether the loop runs or not.

use std::rc::Rc;

use super::triggers::{NoSuchTrigger, Phase, SystemEvent, TriggerId};
use super::{Core, Reactor};
use crate::deferred::{Deferred, Outcome, Promise};
use crate::error::ReactorError;
use crate::failure::Result;

impl Reactor {
    /// Adds a trigger: `call` runs when the reactor starts or stops, or when the program fires an
    /// event of its own (Twisted: `addSystemEventTrigger`).
    ///
    /// The trigger returns nothing, a `Result<()>` (an error is logged), or a Deferred. The next
    /// phase waits for the Deferred. A trigger runs once. A closed reactor drops it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::task::defer_later;
    /// use ropewalk::{Clock, Phase, Reactor, SystemEvent};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let timers = reactor.timers().clone();
    /// reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
    ///     // The reactor stops when this has fired.
    ///     defer_later(&timers, Duration::from_millis(1), || Ok(println!("saved")))
    /// });
    /// # reactor.call_when_running({ let reactor = reactor.clone(); move || drop(reactor.stop()) });
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Removes a trigger (Twisted: `removeSystemEventTrigger`).
    ///
    /// # Errors
    /// [`NoSuchTrigger`] if the trigger has run, or was removed already.
    pub fn remove_system_event_trigger(&self, id: TriggerId) -> Result<(), NoSuchTrigger> {
        self.0.triggers.remove(id)
    }

    /// Fires an event of the program: runs the triggers of [`SystemEvent::custom`] with this name,
    /// phase by phase (Twisted: `fireSystemEvent`). The reactor need not run.
    ///
    /// The triggers of `Before` run before this returns. So do those of the later phases, unless
    /// there is a Deferred to wait for. A trigger that fails is logged, and the others run. Each
    /// trigger is used up: an event that is fired again runs the triggers that were added since. An
    /// event that is fired while it is under way goes through its phases beside the first firing,
    /// and takes the triggers that have not run yet. A firing has no time limit.
    ///
    /// The Deferred fires when the last phase is done. Cancelling it does not stop the event. A
    /// reactor that stops or crashes does not wait for the event, which advances as its Deferreds
    /// fire. For a shutdown that waits for it, return the Deferred from a shutdown trigger.
    ///
    /// The Deferred fails with [`ReactorError::Closed`] if the reactor was closed, also while the
    /// event was under way, and with [`ReactorError::ForkedChild`] in a forked child of the
    /// reactor's process. No trigger runs then.
    ///
    /// ```
    /// use ropewalk::{Clock, Phase, Reactor, SystemEvent};
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
                // If the reactor is gone, `answer` has failed already.
                done.add_callback(move |()| {
                    core.upgrade().map_or(Deferred::succeed(()), |core| core.fire_phase(&event, phase))
                })
            });
        let core = Rc::downgrade(self);
        let finished = phases.add_both(move |result| {
            if let Some(core) = core.upgrade() {
                core.triggers.fired(id, result);
            }
        });
        drop(finished);
        answer
    }

    /// Runs the triggers of a phase of a program's event. The Deferred fires when all their
    /// Deferreds have results.
    fn fire_phase(&self, event: &SystemEvent, phase: Phase) -> Deferred<()> {
        // This may be a forked child: the event was fired in it, or a Deferred of a trigger was.
        if self.process.is_parent() {
            return Deferred::fail(ReactorError::ForkedChild);
        }
        self.triggers.fire(event, phase, || {}).into_deferred()
    }
}
