//! Running, stopping, and one turn of the loop.
//!
//! The phases of a turn, in order:
//! 1. calls from other threads, as many as were queued when the turn began;
//! 2. timers that were due when the turn began, a bounded slice of them; those added meanwhile wait for the next turn;
//! 3. (compaction of cancelled timers: nothing to do, they leave the queue when they are cancelled;)
//! 4. the wait's deadline: none to wait for if anything is queued, otherwise the next timer's;
//! 5. the wait, unless other threads brought something since 1 (`doorbell.rs`);
//! 6. completions, joint by joint; then the futures that were woken, each once;
//! 7. settling: every stream that was asked for something, or written to, is seen to;
//! 8. producers are told to pause or to resume; `write_connection_lost` and `connection_lost`; then whatever else had to wait until no callback is on the stack.

use std::cell::RefCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;
use std::vec;

use super::Core;
use super::backend::Completion;
use super::triggers::{Pending, Phase, SystemEvent};
use crate::error::ReactorError;
use crate::failure::guarded;
use crate::log::error;
use crate::time::{Clock, DelayedCall};

/// Timers run in one turn. 10,000: a few milliseconds of small functions; the rest come first in the next turn, after the
/// network had its say.
const TIMERS: usize = 10_000;

/// How often futures are polled once more at the end of a run: a future that unwinds through so many waits is rare, and one
/// that wakes itself for ever must not hold up the end.
const LAST_POLLS: usize = 100;

/// The events of a run. Others are the program's, and `triggers.rs`'s business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunEvent {
    Startup,
    Shutdown,
}

/// What the loop is at.
pub(super) enum State {
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
pub(super) struct Event {
    phase: Phase,
    /// What the phase waits for.
    pending: Pending,
    /// When it stops waiting.
    deadline: Option<(Duration, DelayedCall)>,
    /// What a startup leads to, unless it is running. It waits for nothing then, and its other triggers run first.
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Stop,
    Crash,
}

impl Core {
    pub(super) fn run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.begin_run()?;
        while self.step(None)? {}
        Ok(())
    }

    /// A run begins: the rest of it is steps.
    pub(super) fn begin_run(self: &Rc<Self>) -> Result<(), ReactorError> {
        self.check_idle()?;
        self.exit_signal.set(None);
        self.install_signals()?;
        self.controlled(|| self.begin(RunEvent::Startup));
        Ok(())
    }

    /// Checks that the loop can be entered, which is about to happen.
    fn check_idle(&self) -> Result<(), ReactorError> {
        let is_ours = self.is_ours();
        match &*self.state.borrow() {
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
        self.turning.set(true);
        let result = catch_unwind(AssertUnwindSafe(act));
        self.turning.set(false);
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
        // A callback may have forked.
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        self.controlled(|| self.step_on(longest))
    }

    fn step_on(self: &Rc<Self>, longest: Option<Duration>) -> Result<bool, ReactorError> {
        if !self.advance() {
            self.finish();
            return Ok(false);
        }
        let turned = self.turn(longest);
        if turned.is_err() && !self.is_foreign() {
            self.fail_all();
            self.finish();
        }
        turned.map(|()| true)
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
        let mut state = self.state.borrow_mut();
        match &mut *state {
            State::Starting(Event { leaving: leaving @ None, .. }) => *leaving = Some(Leaving::Stop),
            State::Running => *state = State::StopAsked,
            _ => return Err(ReactorError::NotRunning),
        }
        Ok(())
    }

    pub(super) fn crash(&self) -> Result<(), ReactorError> {
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
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
        let old = self.state.replace(State::Crashed);
        drop(old);
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        match &*self.state.borrow() {
            State::Idle | State::Crashed | State::Closed => false,
            State::Starting(event) => event.phase > Phase::Before && event.leaving != Some(Leaving::Crash),
            State::Running | State::StopAsked => true,
            State::Stopping(event) => event.phase == Phase::Before,
        }
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
        self.state.replace(State::of(event, Event { phase, pending, deadline, leaving: None }));
        let pending = self.triggers.fire(&event.into(), phase);
        self.note_pending(event, phase, pending);
    }

    /// Brings the state as far as it goes without another turn. `false`: the run is over.
    fn advance(self: &Rc<Self>) -> bool {
        loop {
            let (event, phase) = match &*self.state.borrow() {
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
                (event, Some(phase)) => self.enter(event, phase),
                (RunEvent::Startup, None) => self.started(),
                (RunEvent::Shutdown, None) => {
                    self.end_jobs();
                    self.poll_last();
                    return false;
                }
            }
        }
    }

    /// The startup is over, and leads to what was asked for meanwhile.
    fn started(&self) {
        let mut state = self.state.borrow_mut();
        let leaving = if let State::Starting(event) = &*state { event.leaving } else { None };
        let next = match leaving {
            None => State::Running,
            Some(Leaving::Stop) => State::StopAsked,
            Some(Leaving::Crash) => State::Crashed,
        };
        let old = mem::replace(&mut *state, next);
        drop(state);
        drop(old);
    }

    /// Goes on to a later phase of an event.
    fn enter(self: &Rc<Self>, event: RunEvent, phase: Phase) {
        let left = match &mut *self.state.borrow_mut() {
            State::Starting(current) | State::Stopping(current) => {
                current.report(event);
                current.phase = phase;
                mem::take(&mut current.pending)
            }
            _ => Pending::default(),
        };
        drop(left);
        match (event, phase) {
            (RunEvent::Shutdown, Phase::During) => {
                self.disconnect_all();
                self.stop_names();
            }
            (RunEvent::Shutdown, Phase::After) => self.abandon_jobs(),
            _ => {}
        }
        let pending = self.triggers.fire(&event.into(), phase);
        self.note_pending(event, phase, pending);
    }

    /// Whether an event waits before it goes over to its next phase: for Deferreds of its triggers, and a shutdown for the
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
        self.send_callers_away();
    }

    /// Puts what the triggers of a phase returned where `advance` looks, unless they stopped or crashed the reactor.
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

    /// The end of a run, whatever ended it.
    fn finish(&self) {
        if self.is_foreign() {
            return;
        }
        if !self.is_closed() {
            self.closing.set(false);
            let old = self.state.replace(State::Idle);
            drop(old);
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

    /// One turn. `longest` bounds the wait.
    fn turn(self: &Rc<Self>, longest: Option<Duration>) -> Result<(), ReactorError> {
        self.count(|counters| counters.turns += 1);
        // 1
        self.run_remote_calls();
        // 2
        self.run_timers();
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        // 4
        let until = self.wait_until(longest);
        // 5
        // Whatever other threads may bring is looked for once more when the doorbell is set.
        let is_idle = || !self.remote.is_waiting() && !self.spawner.is_woken();
        let wait = |until| self.backend.borrow_mut().wait(until);
        self.doorbell.sleep(until, is_idle, wait).map_err(ReactorError::Poll)?;
        // 6
        self.deliver_held();
        let mut inbox = self.inbox.take();
        while !self.is_foreign() {
            let next = self.backend.borrow_mut().next(&mut inbox);
            match next {
                Some((id, completion @ Completion::Received)) => {
                    // It holds nothing, which the compiler does not see.
                    mem::forget(completion);
                    self.received(id, &mut inbox);
                }
                Some((id, Completion::Returned(loan, result))) => self.returned(id, loan, result),
                Some((id, completion)) => self.complete(id, completion, &mut inbox),
                None => break,
            }
        }
        self.inbox.set(inbox);
        self.spawner.poll_woken();
        if self.is_foreign() {
            return Err(ReactorError::ForkedChild);
        }
        // 7
        self.settle();
        // 8
        self.deliver_losses();
        self.run_later();
        Ok(())
    }

    fn run_remote_calls(self: &Rc<Self>) {
        let calls = self.remote.take();
        if calls.is_empty() {
            return;
        }
        let Some(reactor) = self.reactor() else { return };
        for call in calls {
            if let Err(failure) = guarded(|| call(&reactor)) {
                error!(%failure, "a call from a thread failed");
            }
        }
    }

    fn run_timers(&self) {
        if self.timers.is_empty() {
            return;
        }
        let mut longest = Duration::ZERO;
        for ready in self.timers.begin(self.timers.seconds()).take(TIMERS) {
            longest = longest.max(ready.late());
            if let Err(failure) = guarded(|| ready.run()) {
                error!(%failure, "a delayed call failed");
            }
        }
        if longest > self.counters.get().longest_lateness {
            self.count(|counters| counters.longest_lateness = longest);
        }
    }

    /// Whether there is something to do that nothing has to happen for.
    pub(super) fn is_busy(&self) -> bool {
        !self.agenda.is_empty()
            || self.remote.is_waiting()
            || self.spawner.is_woken()
            || !self.later.borrow().is_empty()
            || !self.resumed.borrow().is_empty()
            || self.is_to_advance()
    }

    /// Until when phase 5 may wait. Zero: not at all.
    fn wait_until(&self, longest: Option<Duration>) -> Option<Duration> {
        if self.is_busy() || longest == Some(Duration::ZERO) {
            return Some(Duration::ZERO);
        }
        let longest = longest.map(|longest| self.timers.seconds().saturating_add(longest));
        [self.timers.next_deadline(), longest].into_iter().flatten().min()
    }

    /// Whether `advance` has something to do after this turn: a call or a timer of this one changed the state.
    fn is_to_advance(&self) -> bool {
        match &*self.state.borrow() {
            State::StopAsked | State::Crashed => true,
            State::Starting(event) => !self.is_waiting(RunEvent::Startup, event),
            State::Stopping(event) => !self.is_waiting(RunEvent::Shutdown, event),
            State::Idle | State::Running | State::Closed => false,
        }
    }

    /// The end of phase 8. What these calls ask for in turn waits for the next one, so that a client that tries again at
    /// once does not hold up the loop.
    pub(super) fn run_later(&self) {
        for call in Batch::of(&self.later) {
            if let Err(failure) = guarded(|| call(self)) {
                error!(%failure, "a callback failed at the end of a turn");
            }
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

/// A list that is taken, an item at a time. What a panic leaves of it goes back in front of what was added meanwhile.
pub(super) struct Batch<'a, T> {
    items: vec::IntoIter<T>,
    list: &'a RefCell<Vec<T>>,
}

impl<'a, T> Batch<'a, T> {
    pub(super) fn of(list: &'a RefCell<Vec<T>>) -> Self {
        Self { items: list.take().into_iter(), list }
    }
}

impl<T> Iterator for Batch<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.items.next()
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        if self.items.len() > 0 {
            self.list.borrow_mut().splice(..0, self.items.by_ref());
        }
    }
}
