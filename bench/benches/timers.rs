//! What a timer costs while many are pending, beside tokio's `sleep`.
//!
//! `cargo bench -p ropewalk-bench --bench timers`
//!
//! The pending ones are due at random moments of the next minute. Both clocks are virtual, so that a minute takes no minute. Only
//! what a line names is timed; what brings the number of pending timers back to where it was is not.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use ropewalk::{Clock, DelayedCall, testing};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::Sleep;

/// How many operations are timed together.
const BATCH: usize = 1000;

/// Until when the last of the pending ones is due.
const MINUTE: Duration = Duration::from_secs(60);

/// Numbers that look random, the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn index(&mut self, len: usize) -> usize {
        (self.next() % len as u64) as usize
    }

    /// One millisecond to one minute, to the nanosecond.
    fn delay(&mut self) -> Duration {
        Duration::from_nanos(1_000_000 + self.next() % 60_000_000_000)
    }
}

/// Runs `batch` as often as it takes for so many operations. It says how long how many took.
fn timed(operations: u64, mut batch: impl FnMut() -> (Duration, usize)) -> Duration {
    let (mut took, mut done) = (Duration::ZERO, 0);
    while done < operations {
        let (time, count) = batch();
        took += time;
        done += count as u64;
    }
    took.mul_f64(operations as f64 / done as f64)
}

fn time<R>(call: impl FnOnce() -> R) -> (Duration, R) {
    let start = Instant::now();
    let result = call();
    (start.elapsed(), result)
}

/// A virtual clock with so many calls pending, which do next to nothing.
struct Calls {
    clock: testing::VirtualClock,
    pending: Vec<DelayedCall>,
    made: Rc<Cell<usize>>,
    random: Random,
}

impl Calls {
    fn new(count: usize) -> Self {
        let (clock, made) = (testing::VirtualClock::new(), Rc::default());
        let mut calls = Self { clock, pending: Vec::new(), made, random: Random(0x9e37_79b9_7f4a_7c15) };
        calls.pending = (0..count).map(|_| calls.later()).collect();
        calls
    }

    fn later(&mut self) -> DelayedCall {
        let (made, delay) = (Rc::clone(&self.made), self.random.delay());
        self.clock.call_later(delay, move || made.set(made.get() + 1))
    }

    fn schedule(&mut self) -> (Duration, usize) {
        let delays: Vec<_> = (0..BATCH).map(|_| (self.random.delay(), Rc::clone(&self.made))).collect();
        let mut new = Vec::with_capacity(BATCH);
        let (took, ()) = time(|| {
            for (delay, made) in delays {
                new.push(self.clock.call_later(delay, move || made.set(made.get() + 1)));
            }
        });
        for call in new {
            call.cancel().expect("it is pending");
        }
        (took, BATCH)
    }

    /// Cancels the calls that were asked for last, in the order in which they were.
    fn cancel_new(&mut self) -> (Duration, usize) {
        let new: Vec<_> = (0..BATCH).map(|_| self.later()).collect();
        (cancel(new), BATCH)
    }

    /// Cancels any calls of all that are pending.
    fn cancel_any(&mut self) -> (Duration, usize) {
        let any: Vec<_> = (0..BATCH)
            .map(|_| {
                let (place, new) = (self.random.index(self.pending.len()), self.later());
                std::mem::replace(&mut self.pending[place], new)
            })
            .collect();
        (cancel(any), BATCH)
    }

    fn reset_any(&mut self) -> (Duration, usize) {
        let any: Vec<_> = (0..BATCH)
            .map(|_| {
                let place = self.random.index(self.pending.len());
                (self.pending[place].clone(), self.random.delay())
            })
            .collect();
        let (took, ()) = time(|| {
            for (call, delay) in &any {
                call.reset(*delay).expect("it is pending");
            }
        });
        (took, BATCH)
    }

    /// Moves the clock so far that a batch of calls is due, more or less; they are made, and what is left of them is dropped.
    fn fire(&mut self) -> (Duration, usize) {
        // A handle would keep its call.
        self.pending.clear();
        let (before, step) = (self.made.get(), batch_of(self.clock.timers().len()));
        let (took, ()) = time(|| self.clock.advance(step));
        let fired = self.made.get() - before;
        for _ in 0..fired {
            self.later();
        }
        (took, fired)
    }
}

/// In how much time a batch is due of so many.
fn batch_of(pending: usize) -> Duration {
    MINUTE.mul_f64(BATCH as f64 / pending as f64)
}

fn cancel(calls: Vec<DelayedCall>) -> Duration {
    let (took, ()) = time(|| {
        for call in calls {
            call.cancel().expect("it is pending");
        }
    });
    took
}

/// A runtime with a paused clock and so many sleeps pending.
struct Sleeps {
    runtime: Runtime,
    pending: Vec<Pin<Box<Sleep>>>,
    random: Random,
}

impl Sleeps {
    fn new(count: usize) -> Self {
        let mut sleeps = Self { runtime: paused(), pending: Vec::new(), random: Random(0x9e37_79b9_7f4a_7c15) };
        sleeps.pending = (0..count).map(|_| sleeps.later()).collect();
        sleeps
    }

    /// A sleep that is registered, as it is when its first poll is over.
    fn later(&mut self) -> Pin<Box<Sleep>> {
        let _guard = self.runtime.enter();
        registered(self.random.delay())
    }

    fn schedule(&mut self) -> (Duration, usize) {
        let delays: Vec<_> = (0..BATCH).map(|_| self.random.delay()).collect();
        let mut new = Vec::with_capacity(BATCH);
        let _guard = self.runtime.enter();
        let (took, ()) = time(|| {
            for delay in delays {
                new.push(registered(delay));
            }
        });
        (took, BATCH)
    }

    fn cancel_new(&mut self) -> (Duration, usize) {
        let new: Vec<_> = (0..BATCH).map(|_| self.later()).collect();
        (time(|| drop(new)).0, BATCH)
    }

    fn cancel_any(&mut self) -> (Duration, usize) {
        let any: Vec<_> = (0..BATCH)
            .map(|_| {
                let (place, new) = (self.random.index(self.pending.len()), self.later());
                std::mem::replace(&mut self.pending[place], new)
            })
            .collect();
        (time(|| drop(any)).0, BATCH)
    }

    fn reset_any(&mut self) -> (Duration, usize) {
        let _guard = self.runtime.enter();
        let any: Vec<_> = (0..BATCH).map(|_| (self.random.index(self.pending.len()), self.random.delay())).collect();
        let (took, ()) = time(|| {
            for (place, delay) in any {
                let at = tokio::time::Instant::now() + delay;
                self.pending[place].as_mut().reset(at);
            }
        });
        (took, BATCH)
    }
}

fn registered(delay: Duration) -> Pin<Box<Sleep>> {
    let mut sleep = Box::pin(tokio::time::sleep(delay));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    sleep
}

fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("no sockets, no failure")
}

/// Tasks that sleep and then do next to nothing: what a call that is made later is in tokio.
struct Tasks {
    runtime: Runtime,
    local: LocalSet,
    count: usize,
    asleep: Rc<Cell<usize>>,
    made: Rc<Cell<usize>>,
    random: Random,
}

impl Tasks {
    fn new(count: usize) -> Self {
        let (runtime, local, random) = (paused(), LocalSet::new(), Random(0x9e37_79b9_7f4a_7c15));
        let mut tasks = Self { runtime, local, count, asleep: Rc::default(), made: Rc::default(), random };
        tasks.spawn(count);
        tasks
    }

    fn spawn(&mut self, count: usize) {
        let all = self.asleep.get() + count;
        for _ in 0..count {
            let (asleep, made, delay) = (Rc::clone(&self.asleep), Rc::clone(&self.made), self.random.delay());
            self.local.spawn_local(async move {
                asleep.set(asleep.get() + 1);
                tokio::time::sleep(delay).await;
                made.set(made.get() + 1);
            });
        }
        let asleep = Rc::clone(&self.asleep);
        self.local.block_on(&self.runtime, async {
            while asleep.get() < all {
                tokio::task::yield_now().await;
            }
        });
    }

    fn fire(&mut self) -> (Duration, usize) {
        let (before, step) = (self.made.get(), batch_of(self.count));
        let (took, ()) = time(|| {
            self.local.block_on(&self.runtime, async {
                tokio::time::advance(step).await;
                // Some of the tasks that can run do so between two polls of this.
                let mut made = before;
                loop {
                    tokio::task::yield_now().await;
                    if made == self.made.get() && made > before {
                        break;
                    }
                    made = self.made.get();
                }
            });
        });
        let fired = self.made.get() - before;
        self.spawn(fired);
        (took, fired)
    }
}

/// As much memory as so many timers take, in blocks of a cache line: what cancelling waits for, without the timers.
struct Blocks {
    blocks: Vec<[u64; 8]>,
    random: Random,
}

impl Blocks {
    fn new(count: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        Self { blocks: (0..count).map(|_| [random.next(); 8]).collect(), random }
    }

    /// Reads any block, and another that the first one names, as a call names its place. Pairs are read as fast as the
    /// processor can, which has several under way; or one pair after the other, if the next waits for what was read.
    fn read_pairs(&mut self, wait: bool) -> (Duration, usize) {
        let any: Vec<_> = (0..BATCH).map(|_| self.random.index(self.blocks.len())).collect();
        let len = self.blocks.len();
        let (took, _) = time(|| {
            any.into_iter().fold(0, |last, index| {
                let first = if wait { self.blocks[(last as usize ^ index) % len] } else { self.blocks[index] };
                black_box(self.blocks[first[0] as usize % len][0])
            })
        });
        (took, BATCH)
    }
}

fn benches(criterion: &mut Criterion) {
    for (count, name) in [(10_000, "10,000 pending"), (1_000_000, "1,000,000 pending")] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        let mut calls = Calls::new(count);
        measure(&mut group, "ropewalk: schedule", || calls.schedule());
        measure(&mut group, "ropewalk: cancel, in order", || calls.cancel_new());
        measure(&mut group, "ropewalk: cancel, any", || calls.cancel_any());
        measure(&mut group, "ropewalk: reset, any", || calls.reset_any());
        measure(&mut group, "ropewalk: fire", || calls.fire());
        drop(calls);
        let mut sleeps = Sleeps::new(count);
        measure(&mut group, "tokio: schedule", || sleeps.schedule());
        measure(&mut group, "tokio: cancel, in order", || sleeps.cancel_new());
        measure(&mut group, "tokio: cancel, any", || sleeps.cancel_any());
        measure(&mut group, "tokio: reset, any", || sleeps.reset_any());
        drop(sleeps);
        let mut tasks = Tasks::new(count);
        measure(&mut group, "tokio: fire, a task each", || tasks.fire());
        drop(tasks);
        let mut blocks = Blocks::new(count);
        measure(&mut group, "memory: two blocks", || blocks.read_pairs(false));
        measure(&mut group, "memory: two blocks, one pair after the other", || blocks.read_pairs(true));
        group.finish();
    }
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut batch: impl FnMut() -> (Duration, usize)) {
    group.bench_function(name, |bench| bench.iter_custom(|operations| timed(operations, &mut batch)));
}

criterion_group!(timers, benches);
criterion_main!(timers);
