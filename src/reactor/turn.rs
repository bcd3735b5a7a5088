//! One turn of the loop. Its phases, in order:
//!
//! 1. Run the calls from other threads, as many as were queued when the turn began. Then call the
//!    hook for rings, if there were any.
//! 2. Run the timers that were due when the turn began, a bounded slice of them. Timers that are
//!    added meanwhile wait for the next turn.
//! 3. (Compaction of cancelled timers: nothing to do, since they leave the queue when they are
//!    cancelled.)
//! 4. Compute the wait's deadline: zero if anything is queued, otherwise the next timer's.
//! 5. Wait, unless other threads have queued something since phase 1 (`wakeup.rs`).
//! 6. Deliver completions, joint by joint. Then poll the futures that were woken, each once.
//! 7. Settle: serve every stream with a request or with written bytes.
//! 8. Tell producers to pause or to resume, call `write_connection_lost` and `connection_lost`,
//!    then run the other calls that had to wait until no callback is on the stack.

use std::rc::Rc;
use std::time::Duration;

use super::backend::BackendEvent;
use super::{Core, Reactor};
use crate::error::ReactorError;
use crate::failure::guarded;
use crate::log::error;
use crate::time::Clock;

/// Maximum number of timers in one turn. 10,000 small functions take a few milliseconds. The others
/// come first in the next turn, after the network has been served.
const TIMERS_PER_TURN: usize = 10_000;

impl Core {
    /// Makes one turn. `longest` bounds the wait.
    ///
    /// It is compiled into the loop of [`Core::run`], and so are the backend's wait, its receive
    /// and its send: no function returns across one of these system calls (`backend/any.rs` says
    /// why). So code that makes one of them must not be called from here out of line or through a
    /// closure. Rare code must be, and is marked so. The instruction gate checks this in the
    /// machine code (`bench/src/bin/instructions.rs`).
    #[inline(always)]
    pub(super) fn turn(self: &Rc<Self>, longest: Option<Duration>) -> Result<(), ReactorError> {
        self.count(|counters| counters.turns += 1);
        // 1
        if self.threads.has_calls() {
            self.run_remote_calls();
        }
        // 2
        self.run_timers();
        if self.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        // 4
        let mut until = self.wait_until(longest);
        // 5
        // The loop is marked as asleep first, and then looks once more for calls from threads and
        // for woken futures. So no wake-up is lost.
        let sleeps = until != Some(Duration::ZERO);
        let mut is_hooked = false;
        if sleeps {
            if !self.threads.fall_asleep(|| !self.spawner.is_woken()) {
                until = Some(Duration::ZERO);
            } else if self.settings.around_wait.is_some() {
                is_hooked = self.wait_begins(&mut until);
            }
        }
        let waited = self.backend.borrow_mut().wait(until);
        if sleeps {
            self.threads.wake_up();
            if is_hooked {
                self.wait_ended();
            }
        }
        waited.map_err(ReactorError::Poll)?;
        // 6
        if self.aftermath.has_resumed() {
            self.deliver_held();
        }
        let mut inbox = self.inbox.take();
        // A callback may fork. In the child, the remaining events belong to the parent.
        while !self.is_forked_child() {
            let mut backend = self.backend.borrow_mut();
            if let Some(id) = backend.next_received(&mut inbox) {
                // No borrow is held during a callback.
                drop(backend);
                self.received(id, &mut inbox);
                continue;
            }
            let next = backend.next(&mut inbox);
            drop(backend);
            match next {
                Some((id, BackendEvent::Received)) => self.received(id, &mut inbox),
                Some((id, BackendEvent::Returned(in_flight, result))) => self.returned(id, in_flight, result),
                Some((id, BackendEvent::Other(completion))) => self.complete(id, completion),
                None => break,
            }
        }
        self.inbox.set(inbox);
        if self.spawner.is_woken() {
            self.spawner.poll_woken();
        }
        if self.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        // 7
        self.settle();
        // 8
        self.deliver_losses();
        self.end_turn();
        Ok(())
    }

    #[inline(never)]
    fn run_remote_calls(self: &Rc<Self>) {
        let calls = self.threads.take_calls();
        let is_rung = self.threads.take_ring();
        let Some(reactor) = self.reactor() else { return };
        for call in calls {
            if let Err(failure) = self.measured("a call from a thread", || guarded(|| call(&reactor))) {
                error!(%failure, "a call from a thread failed");
            }
        }
        if is_rung {
            self.rung(&reactor);
        }
    }

    /// Calls the program's hook for rings.
    fn rung(&self, reactor: &Reactor) {
        // A turn with a call for its end does not wait. So a ring is never used up by a turn that
        // sleeps behind it, whatever the program does about it, and when.
        self.at_end_of_turn(|_| ());
        if let Some(hook) = &self.settings.on_ring
            && let Err(failure) = guarded(|| hook.call(reactor))
        {
            error!(%failure, "a hook for rings failed");
        }
    }

    fn run_timers(&self) {
        if !self.timers.is_empty() {
            self.run_due_timers();
        }
    }

    #[inline(never)]
    fn run_due_timers(&self) {
        let mut longest = Duration::ZERO;
        for ready in self.timers.begin(self.timers.seconds()).take(TIMERS_PER_TURN) {
            longest = longest.max(ready.late());
            if let Err(failure) = self.measured("a delayed call", || guarded(|| ready.run())) {
                error!(%failure, "a delayed call failed");
            }
        }
        if longest > self.counters.get().longest_lateness {
            self.count(|counters| counters.longest_lateness = longest);
        }
    }

    /// Runs a guarded call of the program, and measures it if the reactor is observed.
    pub(super) fn measured<R>(&self, name: &'static str, call: impl FnOnce() -> R) -> R {
        match self.meter.get() {
            Some(meter) => meter.measured(name, call),
            None => call(),
        }
    }

    /// Returns `true` if there is work that needs no event.
    pub(super) fn is_busy(&self) -> bool {
        !self.context.is_clean()
            || self.threads.has_calls()
            || self.spawner.is_woken()
            || self.aftermath.forbids_waiting()
            || self.can_advance()
    }

    /// Returns the deadline of the wait in phase 5. Zero means no wait.
    #[inline(never)]
    fn wait_until(&self, longest: Option<Duration>) -> Option<Duration> {
        if self.is_busy() || longest == Some(Duration::ZERO) {
            return Some(Duration::ZERO);
        }
        let longest = longest.map(|longest| self.timers.seconds().saturating_add(longest));
        [self.timers.next_deadline(), longest].into_iter().flatten().min()
    }

    /// Schedules `call` for the end of this turn, or of the next one if no turn is under way.
    pub(super) fn at_end_of_turn(&self, call: impl FnOnce(&Self) + 'static) {
        self.aftermath.push_call(call);
        self.threads.wake_host();
    }

    /// Runs the calls at the end of phase 8. Calls that these schedule in turn wait for the next
    /// turn, so that a client that retries at once does not hold up the loop.
    pub(super) fn end_turn(&self) {
        for call in self.aftermath.take_calls() {
            if let Err(failure) = guarded(|| call(self)) {
                error!(%failure, "a callback failed at the end of a turn");
            }
        }
    }
}
