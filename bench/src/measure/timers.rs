//! Time of Ropewalk's timers while many are pending: to schedule, to cancel and to fire.
//!
//! The clock is virtual, so a minute takes no real time. Timers are due at random moments of the
//! next minute, and the cancelled ones are chosen at random. `benches/timers.rs` measures more
//! operations, and tokio beside them.

use std::time::{Duration, Instant};

use ropewalk::{Clock, DelayedCall, testing};

use super::Effort;
use crate::results::Timers;
use crate::stats::spread;

/// Number of operations that are timed together.
const BATCH: usize = 1000;

/// Latest deadline of a pending timer, in nanoseconds.
const MINUTE_NANOSECONDS: u64 = 60_000_000_000;

/// Measures with ascending numbers of pending timers. `tick` is called after each number.
pub fn measure(effort: &Effort, mut tick: impl FnMut()) -> Vec<Timers> {
    let numbers: &[usize] = effort.or(&[1_000, 10_000, 100_000, 1_000_000], &[1_000, 10_000]);
    let batches = effort.or(100, 10);
    numbers
        .iter()
        .map(|&pending| {
            let figures = PendingTimers::new(pending).measure(batches);
            tick();
            figures
        })
        .collect()
}

struct PendingTimers {
    clock: testing::VirtualClock,
    calls: Vec<DelayedCall>,
    random: u64,
}

impl PendingTimers {
    fn new(count: usize) -> Self {
        let mut new = Self { clock: testing::VirtualClock::new(), calls: Vec::new(), random: 0x9e37_79b9_7f4a_7c15 };
        for _ in 0..count {
            let delay = new.delay();
            new.calls.push(new.clock.call_later(delay, || {}));
        }
        new
    }

    fn measure(mut self, batches: usize) -> Timers {
        let pending = self.calls.len();
        let (mut schedule, mut cancel, mut fire) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..batches {
            let (scheduled, cancelled) = self.replace_any();
            schedule.push(scheduled);
            cancel.push(cancelled);
        }
        // A handle would keep the memory of its call.
        self.calls.clear();
        for _ in 0..batches {
            fire.push(self.fire(pending));
        }
        let median = |numbers: Vec<f64>| spread(numbers).map_or(f64::NAN, |spread| spread.median);
        Timers { pending, schedule: median(schedule), cancel: median(cancel), fire: median(fire) }
    }

    /// Schedules a batch, and then cancels as many of the older timers.
    fn replace_any(&mut self) -> (f64, f64) {
        let delays: Vec<_> = (0..BATCH).map(|_| self.delay()).collect();
        let mut new = Vec::with_capacity(BATCH);
        let start = Instant::now();
        for delay in delays {
            new.push(self.clock.call_later(delay, || {}));
        }
        let scheduled = each(start, BATCH);
        let old: Vec<_> = new
            .into_iter()
            .map(|new| {
                let index = (self.next() % self.calls.len() as u64) as usize;
                std::mem::replace(&mut self.calls[index], new)
            })
            .collect();
        let start = Instant::now();
        for call in old {
            // All are pending, because time stands still.
            let _ = call.cancel();
        }
        (scheduled, each(start, BATCH))
    }

    /// Advances the clock until about a batch is due, and then schedules as many new timers.
    fn fire(&mut self, pending: usize) -> f64 {
        let step = Duration::from_nanos(MINUTE_NANOSECONDS / pending as u64 * BATCH as u64);
        let start = Instant::now();
        self.clock.advance(step);
        let fired = pending - self.clock.timers().len();
        let took = each(start, fired);
        for _ in 0..fired {
            let delay = self.delay();
            self.clock.call_later(delay, || {});
        }
        took
    }

    fn delay(&mut self) -> Duration {
        Duration::from_nanos(1_000_000 + self.next() % MINUTE_NANOSECONDS)
    }

    /// Returns pseudo-random numbers, the same in every run (xorshift).
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}
