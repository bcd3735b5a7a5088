//! [`Pool`]: threads for what blocks (Twisted: `twisted.python.threadpool`). Threads are started when there is work and no
//! free thread, up to a limit, and leave when they were idle for a while, or when the limit shrank. The pool knows nothing
//! of reactors; who waits for a job is `jobs.rs`'s business.
//!
//! 1. Jobs begin in the order in which they were queued. One that has not begun can be taken out.
//! 2. A job is refused only if the system gives us no thread and there is none at all; otherwise it waits for one of those
//!    there are. With a limit of zero, it waits until the limit grows.
//! 3. No job, and nothing of a job, is called or dropped under the lock.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::guarded;
use crate::log::error;

/// How long a thread waits for work before it leaves. 10 s: bursts reuse threads, a quiet program has none.
const IDLE: Duration = Duration::from_secs(10);

/// Names a job: later ones have higher numbers.
pub(in crate::reactor) type JobId = u64;

/// Work for a thread. What it returns is called when the thread counts as free again: it tells whoever waits.
pub(in crate::reactor) type Job = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// A handle on a pool of threads.
#[derive(Clone)]
pub(in crate::reactor) struct Pool(Arc<PoolShared>);

struct PoolShared {
    name: Arc<str>,
    state: Mutex<PoolState>,
    /// Work came, or the end, or a lower limit.
    work: Condvar,
    /// A thread left.
    left: Condvar,
}

struct PoolState {
    /// What has not begun.
    jobs: BTreeMap<JobId, Job>,
    limit: usize,
    threads: usize,
    /// Threads that are in a job. All others look for one, are about to, or have just been started to do so.
    working: usize,
    stopping: bool,
}

/// The system gives us no thread, and there is none: these will not be done.
pub(in crate::reactor) struct Refused {
    pub(in crate::reactor) error: io::Error,
    pub(in crate::reactor) jobs: BTreeMap<JobId, Job>,
}

/// The load of a pool of threads (Twisted: `twisted._threads.Statistics`). From
/// [`ThreadPool::statistics`](crate::reactor::ThreadPool::statistics).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPoolStatistics {
    /// Threads without a job (Twisted: `waiters`).
    pub idle: usize,
    /// Threads that are in a job (Twisted: `working`).
    pub working: usize,
    /// Jobs that have not begun (Twisted: `q.qsize()`).
    pub queued: usize,
}

impl Pool {
    /// A pool without threads yet.
    pub(in crate::reactor) fn new(name: &Arc<str>, limit: usize) -> Self {
        let name = Arc::clone(name);
        let state = PoolState { jobs: BTreeMap::new(), limit, threads: 0, working: 0, stopping: false };
        Self(Arc::new(PoolShared { name, state: Mutex::new(state), work: Condvar::new(), left: Condvar::new() }))
    }

    /// Queues a job.
    pub(in crate::reactor) fn submit(&self, id: JobId, job: Job) -> Result<(), Refused> {
        let mut state = self.state();
        state.stopping = false;
        state.jobs.insert(id, job);
        self.0.work.notify_one();
        self.start_threads(state)
    }

    /// Changes how many threads there may be. Jobs that wait get the new ones; surplus threads leave when they are free.
    pub(in crate::reactor) fn resize(&self, limit: usize) -> Result<(), Refused> {
        let mut state = self.state();
        state.limit = limit;
        self.0.work.notify_all();
        self.start_threads(state)
    }

    /// How many threads there may be.
    pub(in crate::reactor) fn limit(&self) -> usize {
        self.state().limit
    }

    /// How many jobs wait for the limit to grow.
    pub(in crate::reactor) fn held_back(&self) -> usize {
        let state = self.state();
        if state.limit == 0 { state.jobs.len() } else { 0 }
    }

    /// Takes out a job that has not begun.
    pub(in crate::reactor) fn remove(&self, id: JobId) -> Option<Job> {
        self.state().jobs.remove(&id)
    }

    /// Takes out all that has not begun.
    pub(in crate::reactor) fn clear(&self) -> BTreeMap<JobId, Job> {
        mem::take(&mut self.state().jobs)
    }

    /// How much there is to do.
    pub(in crate::reactor) fn load(&self) -> ThreadPoolStatistics {
        let state = self.state();
        let working = state.working;
        ThreadPoolStatistics { idle: state.threads - working, working, queued: state.jobs.len() }
    }

    /// Has the threads finish what is queued, and leave. Waits for them at most `patience`; those that are stuck in a job
    /// go on, and leave after it. A job that is queued afterwards has the pool going again.
    pub(in crate::reactor) fn stop(&self, patience: Duration) {
        let mut state = self.state();
        state.stopping = true;
        self.0.work.notify_all();
        let until = Instant::now() + patience;
        while state.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.left.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts as many threads as there are jobs that find none free, within the limit.
    fn start_threads(&self, mut state: MutexGuard<'_, PoolState>) -> Result<(), Refused> {
        while state.jobs.len() > state.threads - state.working && state.threads < state.limit {
            let pool = self.clone();
            let started = thread::Builder::new().name(String::from(&*self.0.name)).spawn(move || pool.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(Refused { error, jobs: mem::take(&mut state.jobs) }),
                Err(error) => {
                    drop(state);
                    tracing::warn!(%error, "no further thread; jobs wait for one of those there are");
                    break;
                }
            }
        }
        Ok(())
    }

    /// A thread's life.
    fn work(&self) {
        let mut state = self.state();
        while state.threads <= state.limit {
            if let Some((_, job)) = state.jobs.pop_first() {
                state.working += 1;
                drop(state);
                let tell = guarded(job);
                state = self.state();
                state.working -= 1;
                drop(state);
                if let Err(failure) = tell.and_then(guarded) {
                    error!(%failure, "what a thread had done could not be told");
                }
                state = self.state();
                continue;
            }
            if state.stopping {
                break;
            }
            let (guard, waited) = self.0.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.0.left.notify_all();
        // If this one was told of a job and left because of the limit, another is to hear of it.
        self.0.work.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // Jobs run without the lock, and nothing else here panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// After this, a test has failed.
    const LIMIT: Duration = Duration::from_secs(30);

    fn pool(limit: usize) -> Pool {
        Pool::new(&"test".into(), limit)
    }

    /// Jobs that wait, and threads at work.
    fn load(pool: &Pool) -> (usize, usize) {
        (pool.load().queued, pool.load().working)
    }

    fn submit(pool: &Pool, id: JobId, work: impl FnOnce() + Send + 'static) {
        let job: Job = Box::new(move || {
            work();
            Box::new(|| ())
        });
        assert!(pool.submit(id, job).is_ok(), "no thread");
    }

    /// A job that says that it has begun, and ends when its sender is dropped.
    fn block(pool: &Pool, id: JobId, begun: &Sender<JobId>) -> Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let begun = begun.clone();
        submit(pool, id, move || {
            begun.send(id).unwrap();
            let _ = released.recv();
        });
        release
    }

    fn next(begun: &Receiver<JobId>) -> JobId {
        begun.recv_timeout(LIMIT).expect("a job begins")
    }

    /// All threads have left.
    fn end(pool: &Pool) {
        pool.stop(LIMIT);
        assert_eq!(pool.state().threads, 0);
    }

    #[test]
    fn jobs_run_beside_each_other_up_to_the_limit() {
        let pool = pool(2);
        let (met, meeting) = mpsc::channel();
        let barrier = Arc::new(Barrier::new(2));
        for id in 0..4 {
            let (met, barrier) = (met.clone(), Arc::clone(&barrier));
            submit(&pool, id, move || {
                barrier.wait();
                met.send(thread::current().id()).unwrap();
            });
        }
        let threads: HashSet<_> = meeting.iter().take(4).collect();
        assert_eq!(threads.len(), 2);
        end(&pool);
    }

    #[test]
    fn stopping_finishes_what_is_queued() {
        let pool = pool(1);
        let (done, finished) = mpsc::channel();
        for id in 0..100 {
            let done = done.clone();
            submit(&pool, id, move || done.send(id).unwrap());
        }
        end(&pool);
        assert_eq!(finished.try_iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }

    /// F39: a stuck worker does not hold up the end for longer than the deadline, and leaves after its job.
    #[test]
    fn a_stuck_job_is_left_behind_at_the_deadline() {
        let pool = pool(1);
        let (begun, begins) = mpsc::channel();
        let release = block(&pool, 1, &begun);
        next(&begins);
        pool.stop(Duration::from_millis(10));
        assert_eq!(load(&pool), (0, 1));
        drop(release);
        end(&pool);
    }

    /// One that has not begun is taken out and does not run; one that has is not there any more.
    #[test]
    fn what_has_not_begun_can_be_taken_out() {
        let pool = pool(1);
        let (begun, begins) = mpsc::channel();
        let (first, second) = (block(&pool, 1, &begun), block(&pool, 2, &begun));
        drop((block(&pool, 3, &begun), second));
        assert_eq!(next(&begins), 1);
        assert_eq!(load(&pool), (2, 1));
        assert!(pool.remove(1).is_none());
        assert!(pool.remove(2).is_some());
        drop(first);
        assert_eq!(next(&begins), 3);
        end(&pool);
        assert!(begins.try_recv().is_err());
    }

    /// A limit of zero holds back; growing has what waits begin at once, and shrinking has threads leave between jobs.
    #[test]
    fn the_limit_can_change() {
        let pool = pool(0);
        let (begun, begins) = mpsc::channel();
        let mut releases: Vec<_> = (0..6).map(|id| block(&pool, id, &begun)).collect();
        assert_eq!(load(&pool), (6, 0));
        assert!(pool.resize(2).is_ok());
        let first: HashSet<_> = [next(&begins), next(&begins)].into();
        assert_eq!(first, [0, 1].into());
        assert!(pool.resize(3).is_ok());
        assert_eq!(next(&begins), 2);
        assert!(pool.resize(1).is_ok());
        releases.drain(..2);
        // Two of three leave; the one that stays is still busy.
        let mut state = pool.state();
        while state.threads > 1 {
            let (guard, waited) = pool.0.left.wait_timeout(state, LIMIT).unwrap();
            assert!(!waited.timed_out(), "{} threads", guard.threads);
            state = guard;
        }
        drop(state);
        assert_eq!(load(&pool), (3, 1));
        drop(releases);
        assert_eq!([next(&begins), next(&begins), next(&begins)], [3, 4, 5]);
        end(&pool);
    }

    /// Idle threads leave at once when the limit shrinks, and one that stays takes what comes then.
    #[test]
    fn idle_threads_leave_when_the_limit_shrinks() {
        for round in 0..100 {
            let pool = pool(3);
            let (begun, begins) = mpsc::channel();
            drop([0, 1, 2].map(|id| block(&pool, id, &begun)));
            assert!(pool.resize(1).is_ok());
            drop(block(&pool, 3, &begun));
            let all: HashSet<_> = (0..4).map(|_| next(&begins)).collect();
            assert_eq!(all.len(), 4, "round {round}");
            end(&pool);
        }
    }

    /// A panic costs nothing but its own job.
    #[test]
    fn a_thread_survives_a_panic() {
        let pool = pool(1);
        submit(&pool, 1, || panic!("of a job"));
        let (begun, begins) = mpsc::channel();
        drop(block(&pool, 2, &begun));
        assert_eq!(next(&begins), 2);
        end(&pool);
    }
}
