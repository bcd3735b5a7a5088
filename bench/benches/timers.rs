//! Time of a timer while many are pending, beside tokio's `sleep`.
//!
//! `cargo bench -p ropewalk-bench --bench timers`
//!
//! Pending timers are due at random moments of the next minute. Both clocks are virtual, so a
//! minute takes no real time. Only the operation that a line names is timed. Restoring the number
//! of pending timers is not.

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

/// Number of operations that are timed together.
const BATCH: usize = 1000;

/// Latest deadline of a pending timer.
const MINUTE: Duration = Duration::from_secs(60);

/// Pseudo-random numbers, the same in every run (xorshift).
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

    /// Returns a delay of one millisecond to one minute, with nanosecond resolution.
    fn delay(&mut self) -> Duration {
        Duration::from_nanos(1_000_000 + self.next() % 60_000_000_000)
    }
}

/// Runs `batch` until it has done at least `operations` operations. `batch` returns its duration
/// and its number of operations. Returns the time scaled to `operations`.
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

/// A virtual clock with pending calls, which do almost nothing.
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

    /// Makes a turn at the present time, so that new calls enter the heap.
    fn turn(&self) {
        self.clock.advance(Duration::ZERO);
    }

    fn schedule(&mut self) -> (Duration, usize) {
        let delays: Vec<_> = (0..BATCH).map(|_| (self.random.delay(), Rc::clone(&self.made))).collect();
        let mut new = Vec::with_capacity(BATCH);
        let (took, ()) = time(|| {
            for (delay, made) in delays {
                new.push(self.clock.call_later(delay, move || made.set(made.get() + 1)));
            }
            self.turn();
        });
        for call in new {
            call.cancel().expect("the call is pending");
        }
        (took, BATCH)
    }

    /// Cancels the newest calls, in the order in which they were scheduled.
    fn cancel_new(&mut self) -> (Duration, usize) {
        let new: Vec<_> = (0..BATCH).map(|_| self.later()).collect();
        self.turn();
        (cancel(new), BATCH)
    }

    /// Cancels calls chosen at random among all pending ones.
    fn cancel_any(&mut self) -> (Duration, usize) {
        let chosen: Vec<_> = (0..BATCH)
            .map(|_| {
                let (index, new) = (self.random.index(self.pending.len()), self.later());
                std::mem::replace(&mut self.pending[index], new)
            })
            .collect();
        self.turn();
        (cancel(chosen), BATCH)
    }

    fn reset_any(&mut self) -> (Duration, usize) {
        let chosen: Vec<_> = (0..BATCH)
            .map(|_| {
                let index = self.random.index(self.pending.len());
                (self.pending[index].clone(), self.random.delay())
            })
            .collect();
        let (took, ()) = time(|| {
            for (call, delay) in &chosen {
                call.reset(*delay).expect("the call is pending");
            }
        });
        (took, BATCH)
    }

    /// Advances the clock until about a batch of calls is due. The calls run, and the rest of them
    /// is dropped.
    fn fire(&mut self) -> (Duration, usize) {
        // A handle would keep the memory of its call.
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

/// Returns the time in which a batch becomes due, with this number of pending timers.
fn batch_of(pending: usize) -> Duration {
    MINUTE.mul_f64(BATCH as f64 / pending as f64)
}

fn cancel(calls: Vec<DelayedCall>) -> Duration {
    let (took, ()) = time(|| {
        for call in calls {
            call.cancel().expect("the call is pending");
        }
    });
    took
}

/// A runtime with a paused clock and pending sleeps.
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

    /// Returns a registered sleep: its first poll has returned.
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
        let chosen: Vec<_> = (0..BATCH)
            .map(|_| {
                let (index, new) = (self.random.index(self.pending.len()), self.later());
                std::mem::replace(&mut self.pending[index], new)
            })
            .collect();
        (time(|| drop(chosen)).0, BATCH)
    }

    fn reset_any(&mut self) -> (Duration, usize) {
        let _guard = self.runtime.enter();
        let chosen: Vec<_> = (0..BATCH).map(|_| (self.random.index(self.pending.len()), self.random.delay())).collect();
        let (took, ()) = time(|| {
            for (index, delay) in chosen {
                let at = tokio::time::Instant::now() + delay;
                self.pending[index].as_mut().reset(at);
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
        .expect("a runtime without I/O needs no system resource")
}

/// Tasks that sleep and then do almost nothing: the equivalent in tokio of a delayed call.
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
                // Some of the runnable tasks run between two polls of this one.
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

/// Blocks of a cache line, in as much memory as the timers take: the memory accesses of cancelling,
/// without the timers.
struct Blocks {
    blocks: Vec<[u64; 8]>,
    random: Random,
}

impl Blocks {
    fn new(count: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        Self { blocks: (0..count).map(|_| [random.next(); 8]).collect(), random }
    }

    /// Reads a random block, and a second block that the first one names, as a call names its
    /// position in the queue. Without `wait`, pairs are read as fast as the processor can, which
    /// has several reads in flight. With `wait`, one pair is read after the other, because each
    /// depends on the one before.
    fn read_pairs(&mut self, wait: bool) -> (Duration, usize) {
        let chosen: Vec<_> = (0..BATCH).map(|_| self.random.index(self.blocks.len())).collect();
        let len = self.blocks.len();
        let (took, _) = time(|| {
            chosen.into_iter().fold(0, |last, index| {
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
