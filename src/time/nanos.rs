//! [`Nanos`]: a moment of a clock, in the form in which the queue keeps it.

use std::time::Duration;

/// A moment: nanoseconds since the start of the clock, at most [`FAR`](Self::FAR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(u64);

impl Nanos {
    /// About 146 years: a [`CallStage`](super::call) keeps a moment and two bits more in 64.
    pub(super) const FAR: Self = Self(u64::MAX >> 2);

    /// The clock's start, before which there is no deadline.
    pub(super) const ZERO: Self = Self(0);

    /// Later than every deadline.
    pub(super) const NEVER: Self = Self(u64::MAX);

    pub(super) fn new(nanos: u64) -> Self {
        Self(nanos).min(Self::FAR)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(super) fn plus(self, delay: Duration) -> Self {
        // Two moments are less than 2^63 together.
        Self::new(self.0 + Self::from(delay).0)
    }

    pub(super) fn minus(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(Self::from(delay).0))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let nanos = duration.as_secs().saturating_mul(SECOND).saturating_add(u64::from(duration.subsec_nanos()));
        Self::new(nanos)
    }
}
