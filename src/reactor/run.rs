//! The life of a run: startup, stop or crash, and end (Twisted: `startRunning`, `stop`, `crash`).
//! `run_state.rs` has its states.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::Core;
use super::run_state::{RunContext, RunEvent, RunStep};
use super::triggers::Phase;
use crate::error::ReactorError;
use crate::log::error;
use crate::time::Clock;

/// Number of times that futures are polled once more at the end of a run. A future that unwinds
/// through so many waits is rare, and a future that wakes itself forever must not delay the end.
const FINAL_POLLS: usize = 100;

impl Core {
    pub(super) fn run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.begin_run()?;
        // `turn` is compiled into this loop: see there.
        self.with_control(|| {
            while self.step_in_control(None)? {}
            Ok(())
        })
    }

    /// Begins a run. The rest of the run is steps.
    pub(super) fn begin_run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.check_idle()?;
        self.run.set_exit_signal(None);
        self.install_signals()?;
        self.with_control(|| self.begin(RunEvent::Startup));
        Ok(())
    }

    /// Checks that the loop can be entered, and binds the reactor to this process.
    fn check_idle(&self) -> Result<(), ReactorError> {
        let is_ours = self.is_ours();
        if self.run.is_closed() {
            return Err(ReactorError::Closed);
        }
        if !is_ours {
            return Err(ReactorError::ForkedChild);
        }
        if !self.run.is_idle() || self.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        self.process.bind();
        Ok(())
    }

    /// Runs `act` with the loop in control. A panic that gets out of it ends the run, and is
    /// resumed. None should: every call of the program's code is guarded.
    fn with_control<T>(self: &Rc<Self>, act: impl FnOnce() -> T) -> T {
        self.run.set_turning(true);
        let result = catch_unwind(AssertUnwindSafe(act));
        self.run.set_turning(false);
        result.unwrap_or_else(|panic| {
            self.finish();
            resume_unwind(panic)
        })
    }

    /// Makes one turn of a run. Returns `false` if the run is over.
    pub(super) fn step(self: &Rc<Self>, longest: Option<Duration>) -> Result<bool, ReactorError> {
        if self.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        self.with_control(|| self.step_in_control(longest))
    }

    #[inline(always)]
    fn step_in_control(self: &Rc<Self>, longest: Option<Duration>) -> Result<bool, ReactorError> {
        // A callback may have forked.
        if self.is_forked_child() {
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
        if !self.is_forked_child() {
            self.fail_all();
            self.finish();
        }
    }

    pub(super) fn iterate(self: &Rc<Self>, delay: Duration) -> Result<(), ReactorError> {
        self.check_idle()?;
        self.with_control(|| self.turn(Some(delay)))?;
        self.backend.borrow_mut().flush();
        Ok(())
    }

    pub(super) fn stop(&self) -> Result<(), ReactorError> {
        if self.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        self.run.stop()?;
        self.threads.wake_host();
        Ok(())
    }

    pub(super) fn crash(&self) -> Result<(), ReactorError> {
        if self.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        self.run.crash()?;
        self.threads.wake_host();
        Ok(())
    }

    /// Starts an event, with the triggers of its first phase.
    fn begin(self: &Rc<Self>, event: RunEvent) {
        let deadline = match (event, self.settings.shutdown_timeout) {
            (RunEvent::Shutdown, Some(timeout)) => {
                // The timer only ends the wait of the loop.
                let timer = self.timers.call_later(timeout, || {});
                Some((self.timers.seconds().saturating_add(timeout), timer))
            }
            _ => None,
        };
        let phase = Phase::Before;
        self.run.begin(event, phase, deadline);
        let pending = self.triggers.fire(&event.into(), phase, self.threads.waker());
        self.run.note_pending(event, phase, pending);
    }

    /// Advances the state as far as possible without another turn. Returns `false` if the run is
    /// over.
    fn advance(self: &Rc<Self>) -> bool {
        loop {
            let (event, phase) = match self.run.next(&**self) {
                RunStep::Over => return false,
                RunStep::Wait => return true,
                RunStep::Go(event, phase) => (event, phase),
            };
            match (event, phase) {
                (RunEvent::Shutdown, Some(Phase::Before)) => self.begin(event),
                (event, Some(phase)) => self.enter_phase(event, phase),
                (RunEvent::Startup, None) => self.run.started(),
                (RunEvent::Shutdown, None) => {
                    self.end_jobs();
                    self.poll_finally();
                    return false;
                }
            }
        }
    }

    /// Enters a later phase of an event.
    fn enter_phase(self: &Rc<Self>, event: RunEvent, phase: Phase) {
        self.run.enter_phase(event, phase);
        match (event, phase) {
            (RunEvent::Shutdown, Phase::During) => {
                self.disconnect_all();
                self.stop_lookups();
            }
            (RunEvent::Shutdown, Phase::After) => self.abandon_jobs(),
            _ => {}
        }
        let pending = self.triggers.fire(&event.into(), phase, self.threads.waker());
        self.run.note_pending(event, phase, pending);
    }

    /// Polls the woken futures for the last time: no later turn reports ended connections and jobs
    /// to them.
    pub(super) fn poll_finally(&self) {
        for _ in 0..FINAL_POLLS {
            self.spawner.poll_woken();
        }
    }

    /// Ends jobs and threads, at the end of a shutdown or when the reactor closes. No job is
    /// awaited any longer, and no blocked thread waits any longer for the reactor.
    pub(super) fn end_jobs(&self) {
        self.abandon_jobs();
        self.end_threads();
        self.fail_blocked_callers();
    }

    /// Ends a run, for whatever reason it ended.
    pub(super) fn finish(&self) {
        if self.is_forked_child() {
            return;
        }
        if !self.is_closed() {
            self.run.become_idle();
        }
        // A panic in the wait leaves it open.
        if self.postponed.is_waiting() {
            self.end_wait();
        }
        self.remove_signals();
        self.backend.borrow_mut().flush();
    }

    /// Ends every connection and job after the poller has failed: no event can arrive any more.
    fn fail_all(self: &Rc<Self>) {
        error!("the poller failed; all connections are closed");
        self.disconnect_all();
        self.end_jobs();
    }

    /// Returns `true` if `advance` has something to do after this turn.
    pub(super) fn can_advance(&self) -> bool {
        self.run.can_advance(self)
    }
}

impl RunContext for Core {
    fn now(&self) -> Duration {
        self.timers.seconds()
    }

    fn has_jobs(&self) -> bool {
        Self::has_jobs(self)
    }
}
