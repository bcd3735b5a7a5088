//! The life of a run: its startup, its stop or crash, and its end (Twisted: `startRunning`, `stop`, `crash`). `run_state.rs` has its states.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::Core;
use super::run_state::{Next, RunContext, RunEvent};
use super::triggers::Phase;
use crate::error::ReactorError;
use crate::log::error;
use crate::time::Clock;

/// How often futures are polled once more at the end of a run: a future that unwinds through so many waits is rare, and one
/// that wakes itself for ever must not hold up the end.
const LAST_POLLS: usize = 100;

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
        self.run.set_exit_signal(None);
        self.install_signals()?;
        self.controlled(|| self.begin(RunEvent::Startup));
        Ok(())
    }

    /// Checks that the loop can be entered, which is about to happen.
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

    /// Gives the loop control. A panic that gets out of it ends the run, and goes on: everything in the program's hands is guarded, so
    /// that none should.
    fn controlled<T>(self: &Rc<Self>, act: impl FnOnce() -> T) -> T {
        self.run.set_turning(true);
        let result = catch_unwind(AssertUnwindSafe(act));
        self.run.set_turning(false);
        result.unwrap_or_else(|panic| {
            self.finish();
            resume_unwind(panic)
        })
    }

    /// One turn of a run. `false`: the run is over.
    #[cfg(feature = "testing")]
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
        let phase = Phase::Before;
        self.run.begin(event, phase, deadline);
        let pending = self.triggers.fire(&event.into(), phase);
        self.run.note_pending(event, phase, pending);
    }

    /// Brings the state as far as it goes without another turn. `false`: the run is over.
    fn advance(self: &Rc<Self>) -> bool {
        loop {
            let (event, phase) = match self.run.next(&**self) {
                Next::Over => return false,
                Next::Wait => return true,
                Next::Go(event, phase) => (event, phase),
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
            self.run.become_idle();
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

    /// True if `advance` has something to do after this turn.
    pub(super) fn is_to_advance(&self) -> bool {
        self.run.is_to_advance(self)
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
