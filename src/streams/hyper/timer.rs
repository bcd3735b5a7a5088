//! [`ClockTimer`]: hyper's timer on any [`Clock`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::hyper::rt::{Sleep, Timer};

use crate::streams::thread_bound::ThreadBound;
use crate::time::{Clock, DelayedCall, Timers};

/// Gives hyper the timers of a reactor, or of a virtual clock. hyper's time-outs need it, such as
/// that for the header of a request.
///
/// hyper wants a `Send` and `Sync` timer. It is both for the compiler, and bound to its thread, as
/// a [`ThreadBound`] is: used on another thread, it panics.
///
/// ```
/// use std::time::Duration;
/// use hyper::rt::Timer;
/// use ropewalk::streams::ClockTimer;
/// use ropewalk::testing::VirtualClock;
///
/// let clock = VirtualClock::new();
/// let timer = ClockTimer::new(&clock);
/// let begun = timer.now();
/// let slept = clock.spawner().spawn(timer.sleep(Duration::from_secs(60)));
/// clock.advance(Duration::from_secs(59));
/// assert!(!slept.is_called());
/// clock.advance(Duration::from_secs(1));
/// assert!(slept.is_called());
/// assert_eq!(timer.now() - begun, Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct ClockTimer {
    timers: ThreadBound<Timers>,
    /// One moment, on hyper's scale and on the clock's. Instants are opaque, so that one has to be
    /// read; all others are counted from it.
    origin: (Instant, Duration),
}

impl ClockTimer {
    /// Creates a timer on the timers of a clock.
    pub fn new(clock: &impl Clock) -> Self {
        let timers = clock.timers().clone();
        let origin = (Instant::now(), timers.seconds());
        Self { timers: ThreadBound::new(timers), origin }
    }

    fn delay_until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.now())
    }
}

impl Timer for ClockTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(ClockSleep(ThreadBound::new(Slept::begin(&self.timers, duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(self.delay_until(deadline))
    }

    fn now(&self) -> Instant {
        let (instant, moment) = self.origin;
        instant + self.timers.seconds().saturating_sub(moment)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        let delay = self.delay_until(new_deadline);
        // hyper resets one sleep for each request of a connection: its allocations are used again.
        let is_reset = sleep.as_mut().downcast_mut_pin::<ClockSleep>().is_some_and(|own| own.0.reset(delay));
        if !is_reset {
            *sleep = self.sleep(delay);
        }
    }
}

impl fmt::Debug for ClockTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockTimer").field("timers", &self.timers).finish_non_exhaustive()
    }
}

/// A future that is ready when a call of the clock was made. Dropped, it cancels the call.
struct ClockSleep(ThreadBound<Slept>);

impl Sleep for ClockSleep {}

impl Future for ClockSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

struct Slept {
    call: DelayedCall,
    alarm: Rc<Alarm>,
}

#[derive(Default)]
struct Alarm {
    has_rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Slept {
    fn begin(timers: &Timers, delay: Duration) -> Self {
        let alarm = Rc::new(Alarm::default());
        let rings = Rc::clone(&alarm);
        let call = timers.call_later(delay, move || rings.ring());
        Self { call, alarm }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.alarm.has_rung.get() {
            return Poll::Ready(());
        }
        let is_kept = self.alarm.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !is_kept {
            // Wakers are the program's: nothing is borrowed while one is cloned or dropped.
            let waker = cx.waker().clone();
            let old = self.alarm.waker.replace(Some(waker));
            drop(old);
        }
        Poll::Pending
    }

    /// Moves the deadline. Returns `false` if it has passed already.
    fn reset(&self, delay: Duration) -> bool {
        self.call.reset(delay).is_ok()
    }
}

impl Drop for Slept {
    fn drop(&mut self) {
        // It may have been made already.
        let _ = self.call.cancel();
    }
}

impl Alarm {
    fn ring(&self) {
        self.has_rung.set(true);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
