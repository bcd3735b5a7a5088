//! Rates of bytes: [`Rate`], and the token bucket that keeps to one ([`Bucket`]; Twisted:
//! `htb.Bucket`).
//!
//! A bucket holds tokens, one for each byte. They come back with time, up to the burst. Bytes that
//! pass take theirs at once, so that the bucket may be in debt. Bytes wait, or the direction does,
//! until the debt is paid. Several connections can share a bucket: each taker waits for the debt
//! that it has left behind, so that they get their turns in the order of their requests.
//!
//! Tokens are counted in bytes times nanoseconds per second. So no fraction of a byte is ever lost,
//! and over a long time the rate is exact.

use std::cell::Cell;
use std::time::Duration;

/// Nanoseconds of a second: a byte in the units of a bucket.
const NANOS: i128 = 1_000_000_000;

/// The default burst is the bytes of a tenth of a second: short enough that a rate looks smooth,
/// long enough that a late timer loses none of it.
const BURSTS_PER_SECOND: u64 = 10;

/// Bytes that leave together under a rate are those of a fiftieth of a second (20 ms), so that a
/// throttled connection makes at most 50 sends in a second.
const SENDS_PER_SECOND: u64 = 50;

/// A number of bytes per second, and of bytes that may pass at once.
///
/// ```
/// use ropewalk::policies::Rate;
///
/// let modem = Rate::bytes_per_second(7_000);
/// assert_eq!(modem.burst(1_500).burst_bytes(), 1_500);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// Creates a rate of this many bytes per second. 0 counts as 1. The burst is a tenth of them.
    pub fn bytes_per_second(bytes: u64) -> Self {
        let per_second = bytes.max(1);
        Self { per_second, burst: (per_second / BURSTS_PER_SECOND).max(1) }
    }

    /// Sets the number of bytes that may pass at once after a time of silence. 0 counts as 1.
    #[must_use]
    pub fn burst(self, bytes: u64) -> Self {
        Self { burst: bytes.max(1), ..self }
    }

    /// Returns the number of bytes per second.
    pub fn per_second(self) -> u64 {
        self.per_second
    }

    /// Returns the number of bytes that may pass at once.
    pub fn burst_bytes(self) -> u64 {
        self.burst
    }

    /// Returns one of this many equal parts.
    pub(crate) fn part_of(self, parts: u64) -> Self {
        Self::bytes_per_second(self.per_second / parts).burst(self.burst / parts)
    }
}

/// The tokens of a rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Tokens; negative in debt.
    level: Cell<i128>,
    filled_at: Cell<Duration>,
}

impl Bucket {
    /// Makes a full bucket.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, level: Cell::new(i128::from(rate.burst) * NANOS), filled_at: Cell::default() }
    }

    /// Takes the tokens of `count` bytes. Returns the time until the debt is paid.
    pub(crate) fn take(&self, count: usize, now: Duration) -> Duration {
        let left = self.fill(now) - bytes(count);
        self.level.set(left);
        if left >= 0 {
            return Duration::ZERO;
        }
        let per_nanosecond = i128::from(self.rate.per_second);
        let nanos = (-left + per_nanosecond - 1) / per_nanosecond;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Gives back the tokens of bytes that do not pass after all.
    pub(crate) fn give_back(&self, count: usize) {
        self.level.set(self.level.get() + bytes(count));
    }

    /// Number of bytes that are best sent together: those that may pass now, unless they are few.
    /// Then those of a [fiftieth](SENDS_PER_SECOND) of a second.
    pub(crate) fn portion(&self, now: Duration) -> usize {
        let (level, usual) = (self.fill(now) / NANOS, (self.rate.per_second / SENDS_PER_SECOND).max(1));
        let is_enough = level >= i128::from(usual.min(self.rate.burst));
        usize::try_from(if is_enough { level } else { i128::from(usual) }).unwrap_or(usize::MAX)
    }

    /// Adds the tokens of the time that has passed. Returns all tokens.
    fn fill(&self, now: Duration) -> i128 {
        let passed = now.saturating_sub(self.filled_at.get());
        self.filled_at.set(now.max(self.filled_at.get()));
        let passed = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        let gained = passed.saturating_mul(i128::from(self.rate.per_second));
        let level = self.level.get().saturating_add(gained).min(i128::from(self.rate.burst) * NANOS);
        self.level.set(level);
        level
    }
}

/// Returns the tokens of a number of bytes.
fn bytes(count: usize) -> i128 {
    i128::try_from(count).unwrap_or(i128::MAX).saturating_mul(NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket lets through exactly its rate, however odd the rate and the moments are.
    #[test]
    fn a_rate_is_exact_over_a_long_time() {
        for (per_second, count) in [(7, 1), (1_000_003, 1_460), (3, 65_536), (4_000_000_007, 65_536)] {
            let rate = Rate::bytes_per_second(per_second).burst(10);
            let (bucket, mut now, mut passed) = (Bucket::new(rate), Duration::ZERO, 0_u128);
            for _ in 0..10_000 {
                now += bucket.take(count, now);
                passed += count as u128;
            }
            // The bytes of the time until now, and those of the burst.
            let expected = now.as_nanos() * u128::from(per_second) / 1_000_000_000 + 10;
            // Each wait ends at a whole nanosecond: at this rate, that is less than 5 bytes.
            assert!(passed <= expected && expected - passed < 6, "{passed} of {expected}");
        }
    }

    /// A bucket is full at first, and never holds more than its burst.
    #[test]
    fn a_burst_is_a_limit() {
        let bucket = Bucket::new(Rate::bytes_per_second(100).burst(50));
        assert_eq!(bucket.take(50, Duration::ZERO), Duration::ZERO);
        assert_eq!(bucket.take(1, Duration::ZERO), Duration::from_millis(10));
        let later = Duration::from_secs(1_000);
        assert_eq!(bucket.portion(later), 50);
        assert_eq!(bucket.take(150, later), Duration::from_secs(1));
        bucket.give_back(100);
        assert_eq!(bucket.take(0, later), Duration::ZERO);
    }

    /// The parts of a rate are no more than the whole, in bursts too.
    #[test]
    fn parts_are_no_more_than_the_whole() {
        let whole = Rate::bytes_per_second(1_000).burst(50);
        assert_eq!(whole.part_of(3), Rate { per_second: 333, burst: 16 });
        assert_eq!(whole.part_of(1), whole);
        assert_eq!(whole.part_of(5_000), Rate { per_second: 1, burst: 1 }, "no part is nothing");
    }

    /// A clock that steps back, or a number that is out of all bounds, does no harm.
    #[test]
    fn absurd_numbers_saturate() {
        let bucket = Bucket::new(Rate::bytes_per_second(0).burst(0));
        assert_eq!(bucket.take(1, Duration::MAX), Duration::ZERO);
        assert!(bucket.take(usize::MAX, Duration::ZERO) > Duration::from_secs(1 << 30));
        assert_eq!(bucket.portion(Duration::ZERO), 1);
    }
}
