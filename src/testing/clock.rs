//! Virtual time.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::deferred::Spawner;
use crate::time::{self, Timers};

/// A clock whose time moves only when it is told to (Twisted: `twisted.internet.task.Clock`).
///
/// It stands where a program has its reactor: whatever takes `&impl Clock` (the trait [`time::Clock`](crate::Clock)) takes
/// this one, and whatever takes a [`Spawner`] its [`spawner`](Self::spawner). Its time begins at zero. Clones are handles to the
/// same clock; when the last of them goes, the calls that are still to be made are cancelled, and the futures that are not done
/// are dropped.
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
    /// A clock that stands at zero, and has no calls to make.
    pub fn new() -> Self {
        let now: Rc<Cell<Duration>> = Rc::default();
        let source = Rc::clone(&now);
        // Nobody sleeps who would have to be called.
        Self(Rc::new(ClockInner { now, timers: Timers::new(move || source.get()), spawner: Spawner::new(|| {}) }))
    }

    /// Moves the time on, and then makes every call that is due, in the order of their deadlines, and polls every future that
    /// was woken (Twisted: `advance`).
    ///
    /// The time is moved in one step: each of the calls sees the new time. Calls that they ask for, and that are due by then
    /// too, are made as well, turn by turn as in a reactor. A call may itself advance the clock. After 100 years the clock
    /// stands still.
    ///
    /// # Panics
    ///
    /// A panic of a call goes through to the test; what else is due is made by the next `advance`. And calls that without
    /// end ask for the next one without delay make it panic, rather than hang, after 100,000 turns: single
    /// [`turn`](Self::turn)s are for those.
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
            "after {TURNS} turns of the virtual clock at {now:?} calls are still due: something asks for its next call \
             without delay, again and again (an interval of zero? an iterator without end?). Stop it, or make single \
             turns with `turn`"
        );
    }

    /// [`advance`](Self::advance)s by each of these, one after the other (Twisted: `pump`).
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
    /// As [`advance`](Self::advance).
    #[track_caller]
    pub fn pump(&self, timings: impl IntoIterator<Item = Duration>) {
        for by in timings {
            self.advance(by);
        }
    }

    /// Makes the calls that are due now, those that they ask for not included, then polls the futures that were woken, and says
    /// how many calls and futures that were: one turn of a reactor, without moving the time.
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
    /// With what one of the calls panics with.
    pub fn turn(&self) -> usize {
        let calls = self.0.timers.begin(self.0.now.get()).map(|ready| ready.run()).count();
        calls + self.0.spawner.poll_woken()
    }

    /// What runs futures in the turns of this clock, as a reactor would.
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
    /// Functions in the queue may hold clones of the timers: they would keep each other.
    fn drop(&mut self) {
        self.timers.close();
        self.spawner.close();
    }
}

/// So many turns at one time are a chain without end. No test needs as many: a step of a chain is a turn, and a thousand
/// steps are a long chain. It takes a moment to get there, so that a test fails soon.
const TURNS: usize = 100_000;

/// Where the time stands still: before the deadline of what is never to be called (146 years), so that it isn't called even
/// if a test advances by as much as it can.
const END: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
