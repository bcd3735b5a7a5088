//! [`Run`]: the state machine of a run.
//!
//! | state | leads to | by |
//! |---|---|---|
//! | idle | starting | `run`, `begin_run` |
//! | starting | running; stop asked; crashed | the last startup trigger's Deferred; a `stop` or `crash` meanwhile |
//! | running | stop asked; crashed | `stop`; `crash` |
//! | stop asked | stopping | the end of the turn |
//! | stopping | idle; crashed | the last phase of the shutdown, or its time limit; `crash` |
//! | crashed | idle | the end of the turn |
//! | closed | | `close`, from any state |

use std::cell::{Cell, RefCell};
use std::mem;
use std::time::Duration;

use super::triggers::{PendingTriggers, Phase, SystemEvent};
use crate::error::ReactorError;
use crate::log::error;
use crate::time::DelayedCall;

/// The state of the run, and its flags.
pub(super) struct Run {
    state: RefCell<RunStage>,
    /// The loop has control: a turn is under way, or triggers run.
    is_turning: Cell<bool>,
    /// Everything is being closed, and nothing new begins.
    is_closing: Cell<bool>,
    exit_signal: Cell<Option<i32>>,
}

/// The events of a run. `triggers.rs` handles the program's own events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEvent {
    Startup,
    Shutdown,
}

/// See the table of the module.
enum RunStage {
    Idle,
    /// The startup triggers run.
    Starting(EventProgress),
    Running,
    /// `stop` was called.
    StopAsked,
    /// The shutdown triggers run.
    Stopping(EventProgress),
    /// The loop ends with this turn.
    Crashed,
    /// The reactor never runs again.
    Closed,
}

/// The next step of a run.
pub(super) enum RunStep {
    /// The run is over.
    Over,
    /// No step before another turn.
    Wait,
    /// Enter this phase of an event, or end the event if it has no further phase.
    Go(RunEvent, Option<Phase>),
}

/// The facts about its reactor that a run depends on.
pub(super) trait RunContext {
    fn now(&self) -> Duration;
    /// Returns `true` if jobs of the program are unfinished.
    fn has_jobs(&self) -> bool;
}

/// An event that is under way.
struct EventProgress {
    phase: Phase,
    /// The Deferreds that the phase waits for.
    pending: PendingTriggers,
    /// The time when the waiting ends.
    deadline: Option<(Duration, DelayedCall)>,
    /// The state that a startup leads to, if not to `Running`. Such a startup waits for no
    /// Deferred, and its other triggers run first.
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Stop,
    Crash,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            state: RefCell::new(RunStage::Idle),
            is_turning: Cell::new(false),
            is_closing: Cell::new(false),
            exit_signal: Cell::new(None),
        }
    }

    /// Returns `true` if the loop has control.
    pub(super) fn is_turning(&self) -> bool {
        self.is_turning.get()
    }

    /// Returns `true` if no run is under way, and one may begin.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&*self.state.borrow(), RunStage::Idle)
    }

    /// Returns `true` if everything is being closed, by a shutdown or for good.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), RunStage::Closed)
    }

    pub(super) fn is_running(&self) -> bool {
        match &*self.state.borrow() {
            RunStage::Idle | RunStage::Crashed | RunStage::Closed => false,
            RunStage::Starting(event) => event.phase > Phase::Before && event.leaving != Some(Leaving::Crash),
            RunStage::Running | RunStage::StopAsked => true,
            RunStage::Stopping(event) => event.phase == Phase::Before,
        }
    }

    /// Returns the signal that stopped this run, or the last one.
    pub(super) fn exit_signal(&self) -> Option<i32> {
        self.exit_signal.get()
    }

    pub(super) fn set_exit_signal(&self, signal: Option<i32>) {
        self.exit_signal.set(signal);
    }

    pub(super) fn set_turning(&self, is_turning: bool) {
        self.is_turning.set(is_turning);
    }

    /// Ends a run. Another one may begin.
    pub(super) fn become_idle(&self) {
        self.is_closing.set(false);
        self.enter(RunStage::Idle);
    }

    /// Starts an event. Its Deferreds are awaited until the deadline, if it has one.
    pub(super) fn begin(&self, event: RunEvent, phase: Phase, deadline: Option<(Duration, DelayedCall)>) {
        let under_way = EventProgress { phase, pending: PendingTriggers::default(), deadline, leaving: None };
        self.enter(match event {
            RunEvent::Startup => RunStage::Starting(under_way),
            RunEvent::Shutdown => RunStage::Stopping(under_way),
        });
    }

    /// Returns the next step of the run.
    pub(super) fn next(&self, context: &impl RunContext) -> RunStep {
        match &*self.state.borrow() {
            RunStage::Idle | RunStage::Crashed | RunStage::Closed => RunStep::Over,
            RunStage::Running => RunStep::Wait,
            RunStage::Starting(event) if event.is_waiting(RunEvent::Startup, context) => RunStep::Wait,
            RunStage::Stopping(event) if event.is_waiting(RunEvent::Shutdown, context) => RunStep::Wait,
            RunStage::Starting(event) => RunStep::Go(RunEvent::Startup, event.phase.next()),
            RunStage::Stopping(event) => RunStep::Go(RunEvent::Shutdown, event.phase.next()),
            RunStage::StopAsked => RunStep::Go(RunEvent::Shutdown, Some(Phase::Before)),
        }
    }

    /// Returns `true` if there is a next step after this turn: a call or a timer of this turn
    /// changed the state.
    pub(super) fn can_advance(&self, context: &impl RunContext) -> bool {
        match &*self.state.borrow() {
            RunStage::StopAsked | RunStage::Crashed => true,
            RunStage::Starting(event) => !event.is_waiting(RunEvent::Startup, context),
            RunStage::Stopping(event) => !event.is_waiting(RunEvent::Shutdown, context),
            RunStage::Idle | RunStage::Running | RunStage::Closed => false,
        }
    }

    /// Refuses everything new from now on.
    pub(super) fn begin_closing(&self) {
        self.is_closing.set(true);
    }

    /// Closes the run for good, whatever its state.
    pub(super) fn close(&self) {
        self.enter(RunStage::Closed);
    }

    /// Closes the run in a forked child. An event that is under way belongs to the parent, so it is
    /// not dropped.
    pub(super) fn close_in_child(&self) {
        mem::forget(self.state.replace(RunStage::Closed));
        self.begin_closing();
    }

    fn enter(&self, state: RunStage) {
        let old = self.state.replace(state);
        // The old state may hold Deferreds, whose callbacks belong to the program.
        drop(old);
    }

    pub(super) fn stop(&self) -> Result<(), ReactorError> {
        let mut state = self.state.borrow_mut();
        match &mut *state {
            RunStage::Starting(EventProgress { leaving: leaving @ None, .. }) => *leaving = Some(Leaving::Stop),
            RunStage::Running => *state = RunStage::StopAsked,
            _ => return Err(ReactorError::NotRunning),
        }
        Ok(())
    }

    pub(super) fn crash(&self) -> Result<(), ReactorError> {
        match &mut *self.state.borrow_mut() {
            RunStage::Starting(EventProgress { leaving: Some(Leaving::Crash), .. })
            | RunStage::Idle
            | RunStage::Crashed
            | RunStage::Closed => return Err(ReactorError::NotRunning),
            RunStage::Starting(EventProgress { leaving, .. }) => {
                *leaving = Some(Leaving::Crash);
                return Ok(());
            }
            RunStage::Running | RunStage::StopAsked | RunStage::Stopping(_) => {}
        }
        self.enter(RunStage::Crashed);
        Ok(())
    }

    /// Ends the startup, and enters the state that was requested meanwhile.
    pub(super) fn started(&self) {
        let leaving = if let RunStage::Starting(event) = &*self.state.borrow() { event.leaving } else { None };
        self.enter(match leaving {
            None => RunStage::Running,
            Some(Leaving::Stop) => RunStage::StopAsked,
            Some(Leaving::Crash) => RunStage::Crashed,
        });
    }

    /// Enters a later phase of an event.
    pub(super) fn enter_phase(&self, event: RunEvent, phase: Phase) {
        let left = match &mut *self.state.borrow_mut() {
            RunStage::Starting(current) | RunStage::Stopping(current) => {
                current.report(event);
                current.phase = phase;
                mem::take(&mut current.pending)
            }
            _ => PendingTriggers::default(),
        };
        drop(left);
    }

    /// Stores the Deferreds that the triggers of a phase returned, unless a trigger has stopped or
    /// crashed the reactor.
    pub(super) fn note_pending(&self, event: RunEvent, phase: Phase, pending: PendingTriggers) {
        match (&mut *self.state.borrow_mut(), event) {
            (RunStage::Starting(current), RunEvent::Startup) | (RunStage::Stopping(current), RunEvent::Shutdown)
                if current.phase == phase =>
            {
                current.pending = pending;
            }
            _ => {}
        }
    }
}

impl From<RunEvent> for SystemEvent {
    fn from(event: RunEvent) -> Self {
        match event {
            RunEvent::Startup => Self::Startup,
            RunEvent::Shutdown => Self::Shutdown,
        }
    }
}

impl EventProgress {
    /// Returns `true` if the event waits before its next phase. It waits for the Deferreds of its
    /// triggers. A shutdown also waits for the program's jobs, in any pool: they may need the
    /// reactor until they are done.
    fn is_waiting(&self, what: RunEvent, context: &impl RunContext) -> bool {
        let is_in_time = || self.deadline.as_ref().is_none_or(|(until, _)| context.now() < *until);
        let with_jobs = what == RunEvent::Shutdown && self.phase >= Phase::During;
        let has_work = || self.pending.places().next().is_some() || with_jobs && context.has_jobs();
        self.leaving.is_none() && is_in_time() && has_work()
    }

    /// Logs the triggers that are no longer awaited.
    fn report(&self, event: RunEvent) {
        if self.leaving.is_some() {
            return;
        }
        for place in self.pending.places() {
            error!(?event, phase = ?self.phase, trigger = %place, "a trigger's Deferred has no result yet; going on without it");
        }
    }
}

impl Drop for EventProgress {
    fn drop(&mut self) {
        if let Some((_, timer)) = &self.deadline {
            // This timer may be the one that ended the wait.
            let _ = timer.cancel();
        }
    }
}
