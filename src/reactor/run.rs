//! The life of a run: its startup, its stop or crash, and its end (Twisted: `startRunning`, `stop`, `crash`).
//!
//! | state | leads to | by |
//! |---|---|---|
//! | idle | starting | `run`; `begin_run` of the simulated network |
//! | starting | running; stop asked; crashed | the last startup trigger's Deferred; a `stop` or `crash` meanwhile |
//! | running | stop asked; crashed | `stop`; `crash` |
//! | stop asked | stopping | the end of the turn |
//! | stopping | idle; crashed | the last phase of the shutdown, or its time limit; `crash` |
//! | crashed | idle | the end of the turn |
//! | closed | | `close`, from any state |

use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::Core;
use super::triggers::{Pending, Phase, SystemEvent};
use crate::error::ReactorError;
use crate::log::error;
use crate::time::{Clock, DelayedCall};

/// How often futures are polled once more at the end of a run: a future that unwinds through so many waits is rare, and one
/// that wakes itself for ever must not hold up the end.
const LAST_POLLS: usize = 100;

/// The state of the run, and its causes.
pub(super) struct Run {
    state: RefCell<State>,
    /// The loop has control: a turn is being made, or triggers run.
    is_turning: Cell<bool>,
    /// Everything is being closed: nothing new is begun.
    is_closing: Cell<bool>,
    exit_signal: Cell<Option<i32>>,
}

/// The events of a run. Others are the program's, and `triggers.rs`'s business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunEvent {
    Startup,
    Shutdown,
}

/// See the module.
enum State {
    Idle,
    /// Startup triggers.
    Starting(Event),
    Running,
    /// `stop` was called.
    StopAsked,
    /// Shutdown triggers.
    Stopping(Event),
    /// Leave at the end of the turn.
    Crashed,
    /// Never again.
    Closed,
}

/// An event that is under way.
struct Event {
    phase: Phase,
    /// The Deferreds that the phase waits for.
    pending: Pending,
    /// When it stops waiting.
    deadline: Option<(Duration, DelayedCall)>,
    /// The state that a startup leads to, unless it is running. It waits for nothing then, and its other triggers run first.
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
            state: RefCell::new(State::Idle),
            is_turning: Cell::new(false),
            is_closing: Cell::new(false),
            exit_signal: Cell::new(None),
        }
    }

    /// True if the loop has control.
    pub(super) fn is_turning(&self) -> bool {
        self.is_turning.get()
    }

    /// True if no run is under way, and one may begin.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&*self.state.borrow(), State::Idle)
    }

    /// True if everything is being closed, by a shutdown or for good.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Closed)
    }

    pub(super) fn is_running(&self) -> bool {
        match &*self.state.borrow() {
            State::Idle | State::Crashed | State::Closed => false,
            State::Starting(event) => event.phase > Phase::Before && event.leaving != Some(Leaving::Crash),
            State::Running | State::StopAsked => true,
            State::Stopping(event) => event.phase == Phase::Before,
        }
    }

    /// The signal that stopped the run, or the one before.
    pub(super) fn exit_signal(&self) -> Option<i32> {
        self.exit_signal.get()
    }

    pub(super) fn set_exit_signal(&self, signal: i32) {
        self.exit_signal.set(Some(signal));
    }

    /// From now on nothing new is begun.
    pub(super) fn begin_closing(&self) {
        self.is_closing.set(true);
    }

    /// Ends the run for good, whatever its state.
    pub(super) fn close(&self) {
        self.enter(State::Closed);
    }

    /// As `close`, in a forked child: an event that is under way is the parent's.
    pub(super) fn close_in_child(&self) {
        mem::forget(self.state.replace(State::Closed));
        self.begin_closing();
    }

    fn enter(&self, state: State) {
        let old = self.state.replace(state);
        // It may hold Deferreds, whose callbacks are the program's.
        drop(old);
    }

    fn stop(&self) -> Result<(), ReactorError> {
        let mut state = self.state.borrow_mut();
        match &mut *state {
            State::Starting(Event { leaving: leaving @ None, .. }) => *leaving = Some(Leaving::Stop),
            State::Running => *state = State::StopAsked,
            _ => return Err(ReactorError::NotRunning),
        }
        Ok(())
    }

    fn crash(&self) -> Result<(), ReactorError> {
        match &mut *self.state.borrow_mut() {
            State::Starting(Event { leaving: Some(Leaving::Crash), .. })
            | State::Idle
            | State::Crashed
            | State::Closed => return Err(ReactorError::NotRunning),
            State::Starting(Event { leaving, .. }) => {
                *leaving = Some(Leaving::Crash);
                return Ok(());
            }
            State::Running | State::StopAsked | State::Stopping(_) => {}
        }
        self.enter(State::Crashed);
        Ok(())
    }

    /// The startup is over, and leads to what was asked for meanwhile.
    fn started(&self) {
        let leaving = if let State::Starting(event) = &*self.state.borrow() { event.leaving } else { None };
        self.enter(match leaving {
            None => State::Running,
            Some(Leaving::Stop) => State::StopAsked,
            Some(Leaving::Crash) => State::Crashed,
        });
    }

    /// Goes on to a later phase of an event.
    fn enter_phase(&self, event: RunEvent, phase: Phase) {
        let left = match &mut *self.state.borrow_mut() {
            State::Starting(current) | State::Stopping(current) => {
                current.report(event);
                current.phase = phase;
                mem::take(&mut current.pending)
            }
            _ => Pending::default(),
        };
        drop(left);
    }

    /// Keeps what the triggers of a phase returned, unless they stopped or crashed the reactor.
    fn note_pending(&self, event: RunEvent, phase: Phase, pending: Pending) {
        match (&mut *self.state.borrow_mut(), event) {
            (State::Starting(current), RunEvent::Startup) | (State::Stopping(current), RunEvent::Shutdown)
                if current.phase == phase =>
            {
                current.pending = pending;
            }
            _ => {}
        }
    }
}

impl Core {
    pub(super) fn run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.begin_run()?;
        // The turn is compiled into this loop: see there.
        self.controlled(|| {
            while self.step_on(None)? {}
            Ok(())
        })
    }

    /// A run begins: the rest of it is steps.
    pub(super) fn begin_run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.check_idle()?;
        self.run.exit_signal.set(None);
        self.install_signals()?;
        self.controlled(|| self.begin(RunEvent::Startup));
        Ok(())
    }

    /// Checks that the loop can be entered, which is about to happen.
    fn check_idle(&self) -> Result<(), ReactorError> {
        let is_ours = self.is_ours();
        match &*self.run.state.borrow() {
            State::Closed => Err(ReactorError::Closed),
            _ if !is_ours => Err(ReactorError::ForkedChild),
            State::Idle if !self.has_control() => {
                self.process.bind();
                Ok(())
            }
            _ => Err(ReactorError::AlreadyRunning),
        }
    }

    /// Gives the loop control. A panic that gets out of it ends the run, and goes on: everything in the program's hands is guarded, so
    /// that none should.
    fn controlled<T>(self: &Rc<Self>, act: impl FnOnce() -> T) -> T {
        self.run.is_turning.set(true);
        let result = catch_unwind(AssertUnwindSafe(act));
        self.run.is_turning.set(false);
        result.unwrap_or_else(|panic| {
            self.finish();
            resume_unwind(panic)
        })
    }

    /// One turn of a run. `false`: the run is over.
    pub(super) fn step(self: &Rc<Self>, longest: Option<Duration>) -> Result<bool, ReactorError> {
        if self.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        self.controlled(|| self.step_on(longest))
    }

    #[inline(always)]
    fn step_on(self: &Rc<Self>, longest: Option<Duration>) -> Result<bool, ReactorError> {
        // A callback may have forked.
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        if !self.advance() {
            self.finish();
            return Ok(false);
        }
        let turned = self.turn(longest);
        if turned.is_err() {
            self.turn_failed();
        }
        turned.map(|()| true)
    }

    #[cold]
    fn turn_failed(self: &Rc<Self>) {
        if !self.is_foreign() {
            self.fail_all();
            self.finish();
        }
    }

    pub(super) fn iterate(self: &Rc<Self>, delay: Duration) -> Result<(), ReactorError> {
        self.check_idle()?;
        self.controlled(|| self.turn(Some(delay)))?;
        self.backend.borrow_mut().flush();
        Ok(())
    }

    pub(super) fn stop(&self) -> Result<(), ReactorError> {
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        self.run.stop()
    }

    pub(super) fn crash(&self) -> Result<(), ReactorError> {
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        self.run.crash()
    }

    /// Starts an event.
    fn begin(self: &Rc<Self>, event: RunEvent) {
        let deadline = match (event, self.settings.shutdown_timeout) {
            (RunEvent::Shutdown, Some(timeout)) => {
                // The timer does nothing but end the wait of the loop.
                let timer = self.timers.call_later(timeout, || {});
                Some((self.timers.seconds().saturating_add(timeout), timer))
            }
            _ => None,
        };
        let (phase, pending) = (Phase::Before, Pending::default());
        self.run.enter(State::of(event, Event { phase, pending, deadline, leaving: None }));
        let pending = self.triggers.fire(&event.into(), phase);
        self.run.note_pending(event, phase, pending);
    }

    /// Brings the state as far as it goes without another turn. `false`: the run is over.
    fn advance(self: &Rc<Self>) -> bool {
        loop {
            let (event, phase) = match &*self.run.state.borrow() {
                State::Idle | State::Crashed | State::Closed => return false,
                State::Running => return true,
                State::Starting(event) if self.is_waiting(RunEvent::Startup, event) => return true,
                State::Stopping(event) if self.is_waiting(RunEvent::Shutdown, event) => return true,
                State::Starting(event) => (RunEvent::Startup, event.phase.next()),
                State::Stopping(event) => (RunEvent::Shutdown, event.phase.next()),
                State::StopAsked => (RunEvent::Shutdown, Some(Phase::Before)),
            };
            match (event, phase) {
                (RunEvent::Shutdown, Some(Phase::Before)) => self.begin(event),
                (event, Some(phase)) => self.enter_phase(event, phase),
                (RunEvent::Startup, None) => self.run.started(),
                (RunEvent::Shutdown, None) => {
                    self.end_jobs();
                    self.poll_last();
                    return false;
                }
            }
        }
    }

    /// Goes on to a later phase of an event.
    fn enter_phase(self: &Rc<Self>, event: RunEvent, phase: Phase) {
        self.run.enter_phase(event, phase);
        match (event, phase) {
            (RunEvent::Shutdown, Phase::During) => {
                self.disconnect_all();
                self.stop_names();
            }
            (RunEvent::Shutdown, Phase::After) => self.abandon_jobs(),
            _ => {}
        }
        let pending = self.triggers.fire(&event.into(), phase);
        self.run.note_pending(event, phase, pending);
    }

    /// True if an event waits before it goes over to its next phase: for Deferreds of its triggers, and a shutdown for the
    /// program's jobs, in whatever pool, which may need us until they are done.
    fn is_waiting(&self, what: RunEvent, event: &Event) -> bool {
        let patient =
            event.leaving.is_none() && event.deadline.as_ref().is_none_or(|(until, _)| self.timers.seconds() < *until);
        let with_jobs = what == RunEvent::Shutdown && event.phase >= Phase::During;
        patient && (event.pending.places().next().is_some() || with_jobs && self.has_jobs())
    }

    /// There is no turn any more in which futures would be told of connections and jobs that have ended.
    pub(super) fn poll_last(&self) {
        for _ in 0..LAST_POLLS {
            self.spawner.poll_woken();
        }
    }

    /// The end of a shutdown, or of everything: nobody waits for threads, and no thread for us.
    pub(super) fn end_jobs(&self) {
        self.abandon_jobs();
        self.end_threads();
        self.fail_blocked_callers();
    }

    /// The end of a run, whatever ended it.
    fn finish(&self) {
        if self.is_foreign() {
            return;
        }
        if !self.is_closed() {
            self.run.is_closing.set(false);
            self.run.enter(State::Idle);
        }
        self.remove_signals();
        self.backend.borrow_mut().flush();
    }

    /// The poller failed: everybody is told, for nothing can come any more.
    fn fail_all(self: &Rc<Self>) {
        error!("the poller failed; all connections are closed");
        self.disconnect_all();
        self.end_jobs();
    }

    /// True if `advance` has something to do after this turn: a call or a timer of this one changed the state.
    pub(super) fn is_to_advance(&self) -> bool {
        match &*self.run.state.borrow() {
            State::StopAsked | State::Crashed => true,
            State::Starting(event) => !self.is_waiting(RunEvent::Startup, event),
            State::Stopping(event) => !self.is_waiting(RunEvent::Shutdown, event),
            State::Idle | State::Running | State::Closed => false,
        }
    }
}

impl State {
    fn of(event: RunEvent, under_way: Event) -> Self {
        match event {
            RunEvent::Startup => Self::Starting(under_way),
            RunEvent::Shutdown => Self::Stopping(under_way),
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

impl Event {
    /// Tells the log of triggers that are no longer waited for.
    fn report(&self, event: RunEvent) {
        if self.leaving.is_some() {
            return;
        }
        for place in self.pending.places() {
            error!(?event, phase = ?self.phase, trigger = %place, "a trigger's Deferred has no result yet; going on without it");
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some((_, timer)) = &self.deadline {
            // It may be what ended the wait.
            let _ = timer.cancel();
        }
    }
}
