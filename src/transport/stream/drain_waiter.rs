//! A stream's waiter for a short queue ([`DrainWaiter`]).

use std::task::Waker;

use super::{Closing, Stream};
use crate::failure::Failure;
use crate::transport::drained::DrainWaiter;

impl Stream {
    /// Returns `true` if at most `low` bytes are queued, or if nothing can be written any more.
    pub(crate) fn is_drained(&self, low: usize) -> bool {
        self.queued_bytes() <= low || !self.accepts_writes()
    }

    /// Returns `true` if the task of this waker waits already.
    pub(crate) fn keeps_drain_waiter(&mut self, low: usize, waker: &Waker) -> bool {
        let waiter = self.extras.as_mut().and_then(|extras| extras.drain_waiter.as_mut());
        waiter.filter(|waiter| waiter.waker.will_wake(waker) && !waiter.is_due).is_some_and(|waiter| {
            waiter.low = low;
            true
        })
    }

    /// Keeps a waker until at most `low` bytes are queued. Returns the one that it replaces.
    pub(crate) fn set_drain_waiter(&mut self, low: usize, waker: Waker) -> Option<Waker> {
        let waiter = DrainWaiter { low, waker, is_due: false };
        self.extras.get_or_insert_default().drain_waiter.replace(waiter).map(|old| old.waker)
    }

    /// Returns `true` if the waiter is to be woken in phase 8, and was not yet marked for it.
    pub(super) fn drain_step(&mut self) -> bool {
        let waiter = self.extras.as_ref().and_then(|extras| extras.drain_waiter.as_ref());
        let is_due = waiter.is_some_and(|waiter| !waiter.is_due && self.is_drained(waiter.low));
        if let (true, Some(extras)) = (is_due, &mut self.extras) {
            extras.drain_waiter.iter_mut().for_each(|waiter| waiter.is_due = true);
        }
        is_due
    }

    /// Takes the waker of a waiter that is due.
    pub(crate) fn take_drained(&mut self) -> Option<Waker> {
        let is_due = self.extras.as_ref()?.drain_waiter.as_ref()?.is_due;
        if is_due { self.take_drain_waiter() } else { None }
    }

    /// Takes the waker of a waiter.
    pub(crate) fn take_drain_waiter(&mut self) -> Option<Waker> {
        let waiter = self.extras.as_mut()?.drain_waiter.take();
        self.drop_empty_extras();
        waiter.map(|waiter| waiter.waker)
    }

    /// Number of bytes that may be queued by a writer that queues at most `usual`: fewer if the
    /// queue has a lower limit, which such a writer never passes.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams ask"))]
    pub(crate) fn most_queued_bytes(&self, usual: usize) -> usize {
        self.at_limit.map_or(usual, |_| (self.limit as usize).clamp(1, usual))
    }

    /// Number of bytes that such a writer may write now. `None` if writes are not accepted, or the
    /// connection is closing.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams ask"))]
    pub(crate) fn write_room(&self, usual: usize) -> Option<usize> {
        let takes = !self.is_closing() && self.accepts_writes();
        takes.then(|| self.most_queued_bytes(usual).saturating_sub(self.queued_bytes()))
    }

    /// Returns the reason of an end that is decided, and that the protocol may not have been told
    /// of.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams ask"))]
    pub(crate) fn end_reason(&self) -> Option<Failure> {
        let reason = self.extras.as_ref().and_then(|extras| extras.reason.clone());
        reason.filter(|_| self.states.closing > Closing::No)
    }
}
