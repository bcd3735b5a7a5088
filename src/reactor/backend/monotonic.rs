//! [`Monotonic`]: the clock of the backends that have the system's time.

use std::time::{Duration, Instant};

use super::LONGEST_WAIT;

/// A monotonic system clock, which starts at zero when it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Monotonic(Instant);

impl Monotonic {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn boxed(self) -> Box<dyn Fn() -> Duration> {
        Box::new(move || self.0.elapsed())
    }

    /// Returns the duration that a kernel is to wait. A deadline of zero is over, whatever the
    /// time.
    #[inline]
    pub(super) fn left(self, until: Duration) -> Duration {
        if until.is_zero() { until } else { until.saturating_sub(self.0.elapsed()).min(LONGEST_WAIT) }
    }
}
