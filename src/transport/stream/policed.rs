//! A stream with policies ([`StreamPolicy`]). It is on no fast path, because it has extras.

use std::rc::Rc;

use super::{Closing, Reading, Stream, StreamFlags};
use crate::transport::policy::stream_policy::{PolicyParts, PolicyTimer, StreamPolicy};
use crate::transport::policy::traffic::Traffic;
use crate::transport::send_queue::{BufferPool, SendQueue};
use crate::transport::step::Delivery;

impl Stream {
    /// Adds policies. `begin` makes empty ones, if there are none yet.
    pub(crate) fn add_policy(&mut self, begin: impl FnOnce() -> Box<StreamPolicy>, parts: PolicyParts) {
        // Bytes of an earlier time don't count.
        self.flags.take(StreamFlags::SENT);
        self.extras.get_or_insert_default().policy.get_or_insert_with(begin).add(parts);
    }

    pub(in crate::transport) fn policy(&self) -> Option<&StreamPolicy> {
        self.extras.as_ref()?.policy.as_deref()
    }

    pub(super) fn policy_mut(&mut self) -> Option<&mut StreamPolicy> {
        self.extras.as_mut()?.policy.as_deref_mut()
    }

    /// Handles a timer of the policies.
    pub(crate) fn policy_timer(&mut self, timer: PolicyTimer) {
        self.note_sent();
        let (is_open, is_paused) = (self.states.closing == Closing::No, self.reading() == Reading::Paused);
        let Some(policy) = self.policy_mut() else { return };
        match timer {
            PolicyTimer::Receive => policy.receive_debt_paid(),
            PolicyTimer::Send => policy.send_debt_paid(),
            // A connection that closes has other limits.
            PolicyTimer::Limits if !is_open => {}
            PolicyTimer::Limits => {
                if let Some(reason) = policy.limit_passed(is_paused) {
                    self.set_reason(reason);
                    self.lose();
                }
            }
        }
    }

    /// Records bytes that came from the network. Returns `true` if receiving is to pause.
    pub(crate) fn note_arrival(&mut self, count: usize) -> bool {
        let delivers = self.delivers();
        self.policy_mut().is_some_and(|policy| delivers && policy.note_arrival(count))
    }

    /// Returns the way of bytes to an open protocol: past the logs of the policies, if there are
    /// any.
    pub(super) fn delivery(&mut self) -> Delivery {
        let Some(policy) = self.policy_mut() else { return Delivery::Deliver };
        policy.note_first_byte();
        if policy.has_traffic() { Delivery::DeliverLogged } else { Delivery::Deliver }
    }

    /// Records that a byte for the protocol has arrived.
    pub(super) fn note_first_byte(&mut self) {
        if let Some(policy) = self.policy_mut() {
            policy.note_first_byte();
        }
    }

    /// Records a write of the protocol.
    pub(crate) fn note_written(&mut self, data: &[u8]) {
        if let Some(policy) = self.policy_mut() {
            policy.note_written(data);
        }
    }

    /// Returns the logs of the policies.
    pub(crate) fn traffic(&self) -> Vec<Rc<Traffic>> {
        self.policy().map_or_else(Vec::new, StreamPolicy::traffic)
    }

    /// Returns `true` if written bytes wait for a rate: they are not sent directly.
    pub(super) fn paces(&self) -> bool {
        self.policy().is_some_and(StreamPolicy::paces)
    }

    /// Returns `true` if written bytes wait for their rate, and not for the peer.
    pub(super) fn is_throttled(&self) -> bool {
        self.policy().is_some_and(StreamPolicy::is_throttled)
    }

    /// Asks for the next portion of the written bytes. Returns `true` if one is to go down.
    pub(super) fn grants_portion(&mut self) -> bool {
        self.note_sent();
        let is_empty = self.queue.is_empty();
        self.policy_mut().is_some_and(|policy| is_empty && policy.grant())
    }

    /// Ends the rate of a stream that fails. Returns `true` if bytes waited for it.
    pub(super) fn releases_all(&mut self) -> bool {
        self.policy_mut().is_some_and(StreamPolicy::release_all)
    }

    /// Records that the system took bytes since the last look.
    fn note_sent(&mut self) {
        let has_sent = self.flags.has(StreamFlags::SENT);
        if let Some(policy) = self.policy_mut().filter(|_| has_sent) {
            policy.note_sent();
            self.flags.take(StreamFlags::SENT);
        }
    }

    /// Moves the portion that was granted to the queue. Returns `false` if there is none.
    pub(super) fn release(&mut self, pool: &BufferPool) -> bool {
        let Self { extras, queue, .. } = self;
        let policy = extras.as_mut().and_then(|extras| extras.policy.as_deref_mut());
        policy.is_some_and(|policy| policy.release(queue, pool))
    }
}

/// Returns the queue that takes bytes for the network: that of the stream, or the one above it in
/// which they wait for their rate.
pub(super) fn wire<'a>(policy: &'a mut Option<Box<StreamPolicy>>, queue: &'a mut SendQueue) -> &'a mut SendQueue {
    policy.as_deref_mut().and_then(StreamPolicy::wire).unwrap_or(queue)
}
