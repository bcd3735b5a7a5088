//! [`Lingering`]: a lingering socket in the reactor's table. `lingering.rs` has the rules.

use std::mem;
use std::time::Duration;

use crate::time::DelayedCall;
use crate::transport::step::LINGER_BYTES;

/// A socket whose protocol is gone. Boxed in its slot, for it needs more room than a connection, of which there are more.
pub(in crate::reactor) struct Lingering {
    /// How many bytes may still come.
    left: usize,
    /// Something came since the last look.
    heard: bool,
    /// When it ends at the latest.
    until: Duration,
    /// The next look.
    timer: DelayedCall,
}

impl Lingering {
    pub(super) fn new(until: Duration, timer: DelayedCall) -> Self {
        Self { left: LINGER_BYTES, heard: false, until, timer }
    }

    /// Counts received bytes. Returns true when the limit is reached.
    pub(super) fn received(&mut self, count: usize) -> bool {
        self.heard = true;
        self.left = self.left.saturating_sub(count);
        self.left == 0
    }

    /// Returns the time that is left. `None`: lingering is over, because its time has passed, or because everything of ours is
    /// acknowledged and nothing came since the last look.
    pub(super) fn time_left(&mut self, now: Duration, is_acknowledged: bool) -> Option<Duration> {
        let was_heard = mem::take(&mut self.heard);
        (now < self.until && (was_heard || !is_acknowledged)).then(|| self.until - now)
    }

    pub(super) fn set_timer(&mut self, timer: DelayedCall) {
        self.timer = timer;
    }

    /// Cancels the next look. The caller may be that look itself.
    pub(super) fn cancel_timer(&self) {
        let _ = self.timer.cancel();
    }
}
