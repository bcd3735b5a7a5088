//! Lingering: the state of a connection that is over for its protocol, but whose socket stays open
//! for a while. Our end was sent. The bytes that still arrive are read and dropped, so that closing
//! does not cause a reset that destroys the last bytes we sent.
//!
//! | lingering ends | reason |
//! |---|---|
//! | with the peer's end, or an error | there is nothing more to wait for |
//! | after [`LINGER_TIME`], or [`LINGER_BYTES`](crate::transport::step::LINGER_BYTES) | a peer must not hold a descriptor for ever |
//! | when the peer has acknowledged everything and was silent for [`QUIET_TIME`] | nothing of ours can be destroyed |
//! | when descriptors run out, the oldest socket first | a new connection is worth more |
//! | when the reactor stops, or the program asks for it | |

use std::rc::Rc;
use std::time::Duration;

use super::lingering_socket::Lingering;
use super::port_role::CountedGuard;
use crate::reactor::{Core, Reactor, Slot};
use crate::time::{Clock, DelayedCall};
use crate::transport::id::Id;
use crate::transport::step::LINGER_TIME;

/// Time that a peer has to be silent after it has acknowledged everything. 250 ms is one or two
/// round trips of a peer that is still sending.
const QUIET_TIME: Duration = Duration::from_millis(250);

impl Reactor {
    /// Ends all lingering: closes the sockets that are read on after the `connection_lost` of their
    /// protocols. For a program that makes no more turns, after a run that left by
    /// [`crash`](Self::crash) for instance, or that is about to end: a socket that lingers would
    /// stay open for as long as the reactor.
    ///
    /// When this returns, the descriptors are closed. A peer that is still sending gets a reset,
    /// which can destroy the last bytes that it was sent. [`stop`](Self::stop) and
    /// [`close`](Self::close) end lingering by themselves. Does nothing in a forked child.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// reactor.iterate(std::time::Duration::ZERO)?;
    /// reactor.end_lingering();
    /// assert_eq!(reactor.counters().watched, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn end_lingering(&self) {
        if !self.0.is_forked_child() {
            self.0.when_awake(Core::end_all_lingering);
        }
    }
}

impl Core {
    /// Ends the lingering of all sockets, and submits that to the system.
    fn end_all_lingering(&self) {
        while self.end_oldest_lingering() {}
        self.backend.borrow_mut().flush();
    }

    /// Sends our end, unless that was done, and keeps the connection open without a protocol. A
    /// counted connection counts until its socket is closed.
    pub(in crate::reactor) fn linger(self: &Rc<Self>, id: Id, was_shut: bool, counted: Option<CountedGuard>) {
        if !self.backend.borrow().lingers(id) {
            self.backend.borrow_mut().close(id, false);
            self.slots.borrow_mut().remove(id);
            return;
        }
        let until = self.timers.seconds().saturating_add(LINGER_TIME);
        let lingering = Lingering::new(until, self.schedule_lingering_check(id, QUIET_TIME), counted);
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Lingering(Box::new(lingering));
        }
        self.push_lingering(id);
        let mut backend = self.backend.borrow_mut();
        if !was_shut {
            backend.shut_down_writing(id);
        }
        backend.receive(id, true);
    }

    fn schedule_lingering_check(self: &Rc<Self>, id: Id, after: Duration) -> DelayedCall {
        let core = Rc::downgrade(self);
        self.timers.call_later(after, move || {
            if let Some(core) = core.upgrade() {
                core.check_lingering(id);
            }
        })
    }

    /// Ends lingering if its time is over or if none of our bytes is outstanding. Otherwise
    /// schedules the next check.
    fn check_lingering(self: &Rc<Self>, id: Id) {
        let now = self.timers.seconds();
        let is_acknowledged = self.backend.borrow().is_acknowledged(id);
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Lingering(lingering)) = slots.get_mut(id) else { return };
        if let Some(left) = lingering.time_left(now, is_acknowledged) {
            lingering.set_timer(self.schedule_lingering_check(id, QUIET_TIME.min(left)));
            return;
        }
        drop(slots);
        self.end_lingering(id);
    }

    /// Counts received bytes, which are dropped.
    pub(in crate::reactor) fn lingering_received(&self, id: Id, count: usize) {
        let over = match self.slots.borrow_mut().get_mut(id) {
            Some(Slot::Lingering(lingering)) => lingering.received(count),
            _ => false,
        };
        if over {
            self.end_lingering(id);
        }
    }

    pub(in crate::reactor) fn end_lingering(&self, id: Id) {
        if !self.is_lingering(id) {
            return;
        }
        self.backend.borrow_mut().close(id, false);
        let slot = self.slots.borrow_mut().remove(id);
        if let Some(Slot::Lingering(lingering)) = slot {
            lingering.cancel_timer();
        }
    }

    /// Ends the socket that has lingered longest, because descriptors ran out. Returns `false` if
    /// no socket lingers.
    pub(in crate::reactor) fn end_oldest_lingering(&self) -> bool {
        let oldest = loop {
            let Some(id) = self.net.lingering.borrow_mut().pop_front() else { return false };
            if self.is_lingering(id) {
                break id;
            }
        };
        self.end_lingering(oldest);
        true
    }

    /// Appends a socket to the list. Ended sockets at its front are removed, so that the list holds
    /// at most the sockets that began to linger within [`LINGER_TIME`].
    fn push_lingering(&self, id: Id) {
        let mut all = self.net.lingering.borrow_mut();
        while all.front().is_some_and(|first| !self.is_lingering(*first)) {
            all.pop_front();
        }
        all.push_back(id);
    }

    fn is_lingering(&self, id: Id) -> bool {
        matches!(self.slots.borrow().get(id), Some(Slot::Lingering(_)))
    }
}
