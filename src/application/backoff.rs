//! Delays between attempts to connect (Twisted: `backoffPolicy`).

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use crate::random::Random;

/// Twisted's delay before it grows.
const INITIAL_DELAY: Duration = Duration::from_secs(1);

/// Twisted's limit of a delay, without jitter.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(60);

/// Twisted's growth of the delay from one failure to the next.
const FACTOR: f64 = 1.5;

/// Twisted's limit of the jitter.
const JITTER: Duration = Duration::from_secs(1);

/// Number of failures after which a delay no longer grows, as in Twisted. It keeps the power finite
/// for every sensible factor.
const MAX_EXPONENT: u32 = 100;

/// Delays that grow from one failure to the next, with jitter (Twisted: `backoffPolicy`).
///
/// The delay after `n` failures in a row is `initial * factor^n`, or the maximum if that is less,
/// plus a random part from zero to the jitter. With Twisted's defaults (1 s, a factor of 1.5, a
/// maximum of 60 s, and 1 s of jitter) the first three delays are 1.5, 2.25 and 3.375 s, and the
/// twelfth and all later ones are of 60 s, each plus its jitter.
///
/// Jitter keeps clients that have lost the same server from coming back at the same moment. Its
/// random numbers differ from process to process. With a [`seed`](Self::seed) they can be repeated,
/// as tests need it.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::application::Backoff;
///
/// let backoff = Backoff::new().jitter(Duration::ZERO).max_delay(Duration::from_secs(3));
/// let delays = [1, 2, 3, 4].map(|failures| backoff.delay(failures).as_millis());
/// assert_eq!(delays, [1500, 2250, 3000, 3000]);
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    longest: Duration,
    factor: f64,
    jitter: Duration,
    random: RefCell<Random>,
}

impl Backoff {
    /// Makes a policy with Twisted's defaults.
    pub fn new() -> Self {
        // The standard library seeds each process at random, for its hash maps.
        let seed = RandomState::new().build_hasher().finish();
        let random = RefCell::new(Random::new(seed));
        Self { initial: INITIAL_DELAY, longest: MAX_DELAY, factor: FACTOR, jitter: JITTER, random }
    }

    /// Sets the delay that the factor is applied to (Twisted: `initialDelay`). The default is 1 s.
    #[must_use]
    pub fn initial_delay(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// Sets the longest delay, without jitter (Twisted: `maxDelay`). The default is 60 s.
    #[must_use]
    pub fn max_delay(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Sets the growth from one failure to the next (Twisted: `factor`). The default is 1.5. With 1
    /// all delays are equal. A factor that is negative or not a number makes every delay the
    /// longest.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the limit of the random part (Twisted: `jitter`, a function). The default is 1 s.
    #[must_use]
    pub fn jitter(mut self, at_most: Duration) -> Self {
        self.jitter = at_most;
        self
    }

    /// Makes the random numbers those of `seed`.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.random.replace(Random::new(seed));
        self
    }

    /// Returns the delay after `failures` failures in a row. Each call draws a random number.
    pub fn delay(&self, failures: u32) -> Duration {
        // A product that is too large for a `Duration`, or not a number, becomes the longest delay.
        let grown = match self.factor >= 0.0 {
            true => self.initial.as_secs_f64() * self.factor.powi(failures.min(MAX_EXPONENT) as i32),
            false => f64::INFINITY,
        };
        let delay = Duration::try_from_secs_f64(grown).unwrap_or(self.longest).min(self.longest);
        delay.saturating_add(self.random_part())
    }

    /// Draws a part from zero to the jitter.
    fn random_part(&self) -> Duration {
        let most = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.borrow_mut().between(0, most))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}
