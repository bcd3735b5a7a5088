//! [`Lingering`]: a lingering socket in the reactor's table. `lingering.rs` has the rules.

use std::mem;
use std::time::Duration;

use super::port_role::CountedGuard;
use crate::time::DelayedCall;
use crate::transport::step::LINGER_BYTES;

/// A socket without a protocol. It is boxed in its slot, since it needs more room than a
/// connection, and connections are more numerous.
pub(in crate::reactor) struct Lingering {
    /// Number of bytes that may still arrive.
    left: usize,
    /// Bytes arrived since the last check.
    received_since_check: bool,
    /// The latest time of its end.
    until: Duration,
    /// The timer of the next check.
    timer: DelayedCall,
    /// Counts the connection, if its port's connections are counted.
    _counted: Option<CountedGuard>,
}

impl Lingering {
    pub(super) fn new(until: Duration, timer: DelayedCall, counted: Option<CountedGuard>) -> Self {
        Self { left: LINGER_BYTES, received_since_check: false, until, timer, _counted: counted }
    }

    /// Counts received bytes. Returns true when the limit is reached.
    pub(super) fn received(&mut self, count: usize) -> bool {
        self.received_since_check = true;
        self.left = self.left.saturating_sub(count);
        self.left == 0
    }

    /// Returns the remaining time, or `None` if lingering is over: its time has passed, or the peer
    /// has acknowledged everything and no bytes arrived since the last check.
    pub(super) fn time_left(&mut self, now: Duration, is_acknowledged: bool) -> Option<Duration> {
        let has_received = mem::take(&mut self.received_since_check);
        (now < self.until && (has_received || !is_acknowledged)).then(|| self.until - now)
    }

    pub(super) fn set_timer(&mut self, timer: DelayedCall) {
        self.timer = timer;
    }

    /// Cancels the next check. The caller may be that check itself.
    pub(super) fn cancel_timer(&self) {
        let _ = self.timer.cancel();
    }
}
