//! [`Pool`]: threads for blocking work (Twisted: `twisted.python.threadpool`). A thread is started
//! when there is work and no idle thread, up to a limit. It exits after it was idle for a while, or
//! when the limit has shrunk. The pool is independent of reactors; `jobs.rs` has the callbacks of
//! the jobs.
//!
//! 1. Jobs begin in the order in which they were queued. A job that has not begun can be removed.
//! 2. A job is refused only if the system provides no thread and the pool has none at all.
//!    Otherwise it waits for one of the pool's threads. With a limit of zero, it waits until the
//!    limit grows.
//! 3. No job, and no part of a job, is called or dropped under the lock.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::guarded;
use crate::log::error;

/// Time without work after which a thread exits. With 10 s, bursts of jobs reuse threads, and a
/// quiet program has none.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Identifies a job. Later jobs have higher numbers.
pub(in crate::reactor) type JobId = u64;

/// Work for a thread. The returned function delivers the result. It is called when the thread
/// counts as idle again.
pub(in crate::reactor) type Job = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// A handle to a pool of threads.
#[derive(Clone)]
pub(in crate::reactor) struct Pool(Arc<PoolShared>);

struct PoolShared {
    name: Arc<str>,
    state: Mutex<PoolState>,
    /// Notified when work arrives, when the pool stops, and when the limit shrinks.
    work: Condvar,
    /// Notified when a thread exits.
    left: Condvar,
}

struct PoolState {
    /// The jobs that have not begun.
    jobs: BTreeMap<JobId, Job>,
    limit: usize,
    threads: usize,
    /// Number of threads that run a job. All others look for a job, are about to, or were just
    /// started to do so.
    working: usize,
    stopping: bool,
}

/// The error if the system provides no thread and the pool has none. These jobs will not run.
pub(in crate::reactor) struct Refused {
    pub(in crate::reactor) error: io::Error,
    pub(in crate::reactor) jobs: BTreeMap<JobId, Job>,
}

/// The load of a pool of threads (Twisted: `twisted._threads.Statistics`), from
/// [`ThreadPool::statistics`](crate::reactor::ThreadPool::statistics).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPoolStatistics {
    /// Number of threads without a job (Twisted: `waiters`).
    pub idle: usize,
    /// Number of threads that run a job (Twisted: `working`).
    pub working: usize,
    /// Number of jobs that have not begun (Twisted: `q.qsize()`).
    pub queued: usize,
}

impl Pool {
    /// Makes a pool. It has no threads yet.
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

    /// Changes the maximum number of threads. New threads take waiting jobs. Surplus threads exit
    /// when they are idle.
    pub(in crate::reactor) fn resize(&self, limit: usize) -> Result<(), Refused> {
        let mut state = self.state();
        state.limit = limit;
        self.0.work.notify_all();
        self.start_threads(state)
    }

    /// Returns the maximum number of threads.
    pub(in crate::reactor) fn limit(&self) -> usize {
        self.state().limit
    }

    /// Returns the number of jobs that wait for the limit to grow from zero.
    pub(in crate::reactor) fn held_back(&self) -> usize {
        let state = self.state();
        if state.limit == 0 { state.jobs.len() } else { 0 }
    }

    /// Removes a job that has not begun.
    pub(in crate::reactor) fn remove(&self, id: JobId) -> Option<Job> {
        self.state().jobs.remove(&id)
    }

    /// Removes all jobs that have not begun.
    pub(in crate::reactor) fn clear(&self) -> BTreeMap<JobId, Job> {
        mem::take(&mut self.state().jobs)
    }

    /// Returns the load.
    pub(in crate::reactor) fn load(&self) -> ThreadPoolStatistics {
        let state = self.state();
        let working = state.working;
        ThreadPoolStatistics { idle: state.threads - working, working, queued: state.jobs.len() }
    }

    /// Lets the threads finish the queued jobs and exit, and waits for them at most `patience`. A
    /// thread that is stuck in a job goes on, and exits after it. A job that is queued later starts
    /// the pool again.
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

    /// Starts a thread for each job that finds no idle thread, within the limit.
    fn start_threads(&self, mut state: MutexGuard<'_, PoolState>) -> Result<(), Refused> {
        while state.jobs.len() > state.threads - state.working && state.threads < state.limit {
            let pool = self.clone();
            let started = thread::Builder::new().name(String::from(&*self.0.name)).spawn(move || pool.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(Refused { error, jobs: mem::take(&mut state.jobs) }),
                Err(error) => {
                    drop(state);
                    tracing::warn!(%error, "no further thread; jobs wait for a running thread");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The main loop of a thread.
    fn work(&self) {
        let mut state = self.state();
        while state.threads <= state.limit {
            if let Some((_, job)) = state.jobs.pop_first() {
                state.working += 1;
                drop(state);
                let deliver = guarded(job);
                // The thread counts as idle before the result is delivered.
                state = self.state();
                state.working -= 1;
                drop(state);
                if let Err(failure) = deliver.and_then(guarded) {
                    error!(%failure, "the result of a job could not be delivered");
                }
                state = self.state();
                continue;
            }
            if state.stopping {
                break;
            }
            let (guard, waited) = self.0.work.wait_timeout(state, IDLE_TIMEOUT).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.0.left.notify_all();
        // This thread may have been notified of a job, but exited because of the limit. So it
        // notifies another thread.
        self.0.work.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // Jobs run without the lock, and no other code here panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Time limit of a test.
    const LIMIT: Duration = Duration::from_secs(30);

    fn pool(limit: usize) -> Pool {
        Pool::new(&"test".into(), limit)
    }

    /// Returns the numbers of queued jobs and of working threads.
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

    /// Queues a job that reports its beginning, and ends when its sender is dropped.
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

    /// Stops the pool, and checks that all threads have exited.
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

    /// F39: a stuck worker does not delay the end beyond the deadline, and exits after its job.
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

    /// A job that has not begun is removed and does not run. A job that has begun cannot be
    /// removed.
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

    /// A limit of zero holds jobs back. When it grows, waiting jobs begin at once. When it shrinks,
    /// threads exit between jobs.
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
        // Two of the three threads exit. The remaining one still works.
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

    /// Idle threads exit at once when the limit shrinks, and the remaining one takes the next job.
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

    /// A panic ends its own job, and not the thread.
    #[test]
    fn a_thread_survives_a_panic() {
        let pool = pool(1);
        submit(&pool, 1, || panic!("a panic of a job"));
        let (begun, begins) = mpsc::channel();
        drop(block(&pool, 2, &begun));
        assert_eq!(next(&begins), 2);
        end(&pool);
    }
}
