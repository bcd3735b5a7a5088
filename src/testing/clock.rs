//! A virtual clock for tests.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::deferred::Spawner;
use crate::time::{self, Timers};

/// A clock that moves only on request (Twisted: `twisted.internet.task.Clock`).
///
/// The clock takes the place of a reactor: pass it where a function takes `&impl Clock` (the trait
/// [`time::Clock`](crate::Clock)), and its [`spawner`](Self::spawner) where one takes a
/// [`Spawner`]. Its time begins at zero.
///
/// Clones are handles to the same clock. Dropping the last one cancels all pending calls, and drops
/// all unfinished futures.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use ropewalk::{Clock, testing};
///
/// let clock = testing::VirtualClock::new();
/// let rung = Rc::new(Cell::new(false));
/// let bell = Rc::clone(&rung);
/// clock.call_later(Duration::from_secs(60), move || bell.set(true));
///
/// clock.advance(Duration::from_secs(59));
/// assert!(!rung.get());
/// clock.advance(Duration::from_secs(1));
/// assert!(rung.get());
/// assert_eq!(clock.seconds(), Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct VirtualClock(Rc<ClockInner>);

struct ClockInner {
    now: Rc<Cell<Duration>>,
    timers: Timers,
    spawner: Spawner,
}

impl VirtualClock {
    /// Creates a clock at time zero, without pending calls.
    pub fn new() -> Self {
        let now: Rc<Cell<Duration>> = Rc::default();
        let source = Rc::clone(&now);
        // The spawner needs no wakeup: no event loop sleeps here.
        Self(Rc::new(ClockInner { now, timers: Timers::new(move || source.get()), spawner: Spawner::new(|| {}) }))
    }

    /// Advances the time, then makes every call that is due, in the order of the deadlines, and
    /// polls every woken future (Twisted: `advance`).
    ///
    /// The time advances in one step, so each call sees the new time. If a call schedules another
    /// one that is due by then, the clock makes that as well, turn by turn like a reactor. A call
    /// may itself advance the clock. The clock stands still after 100 years.
    ///
    /// # Panics
    ///
    /// If a call panics, its panic reaches the test, and the next `advance` makes the remaining due
    /// calls.
    ///
    /// If calls keep scheduling further calls without delay, `advance` panics after 100,000 turns
    /// instead of hanging. Use single [`turn`](Self::turn)s for those.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let now = self.0.now.get().saturating_add(by).min(END);
        self.0.now.set(now);
        for _ in 0..TURNS {
            if self.turn() == 0 {
                return;
            }
        }
        panic!(
            "after {TURNS} turns of the virtual clock at {now:?} calls are still due: something keeps scheduling its next \
             call without delay (an interval of zero? an endless iterator?). Stop it, or make single \
             turns with `turn`"
        );
    }

    /// [Advances](Self::advance) by each of these durations, one after the other (Twisted: `pump`).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, testing};
    ///
    /// let clock = testing::VirtualClock::new();
    /// clock.pump([1, 2, 3].map(Duration::from_secs));
    /// assert_eq!(clock.seconds(), Duration::from_secs(6));
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`advance`](Self::advance).
    #[track_caller]
    pub fn pump(&self, timings: impl IntoIterator<Item = Duration>) {
        for by in timings {
            self.advance(by);
        }
    }

    /// Makes the calls that are due now, then polls the woken futures, and returns the number of
    /// both.
    ///
    /// This is one turn of a reactor, without advancing the time. Calls scheduled meanwhile wait
    /// for the next turn.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, testing};
    ///
    /// let clock = testing::VirtualClock::new();
    /// let inner = clock.clone();
    /// clock.call_later(Duration::ZERO, move || {
    ///     inner.call_later(Duration::ZERO, || {});
    /// });
    /// assert_eq!([clock.turn(), clock.turn(), clock.turn()], [1, 1, 0]);
    /// ```
    ///
    /// # Panics
    ///
    /// With the panic of a call.
    pub fn turn(&self) -> usize {
        let calls = self.0.timers.begin(self.0.now.get()).map(|ready| ready.run()).count();
        calls + self.0.spawner.poll_woken()
    }

    /// Returns a spawner, which runs futures in the turns of this clock, as a reactor does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::task::defer_later;
    /// use ropewalk::testing;
    ///
    /// let clock = testing::VirtualClock::new();
    /// let timer = defer_later(&clock, Duration::from_secs(1), || Ok(7));
    /// let mut answer = clock.spawner().spawn(async move { Ok(timer.await? + 1) });
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(answer.take_result().unwrap().unwrap(), 8);
    /// ```
    pub fn spawner(&self) -> &Spawner {
        &self.0.spawner
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl time::Clock for VirtualClock {
    fn timers(&self) -> &Timers {
        &self.0.timers
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock").field("now", &self.0.now.get()).field("pending", &self.0.timers.len()).finish()
    }
}

impl Drop for ClockInner {
    /// Breaks the cycle with queued functions, which may hold clones of the timers.
    fn drop(&mut self) {
        self.timers.close();
        self.spawner.close();
    }
}

/// Turns at one time after which a chain of calls counts as endless. A step of a chain is a turn,
/// and a thousand steps are a long chain, so no test needs as many. Reaching the limit takes a
/// moment, so that a test fails soon.
const TURNS: usize = 100_000;

/// The time at which the clock stands still. It lies before the deadline of calls that are never to
/// be made (146 years), so that even the longest advance of a test does not make them.
const END: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
