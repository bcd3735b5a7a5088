//! [`Pool`]: threads for what blocks (Twisted: `twisted.python.threadpool`). Threads are started when there is work and no
//! idle thread, up to a limit, and leave when they were idle for a while. Stopping waits for them within a deadline.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits for work before it leaves. 10 s: bursts reuse threads, a quiet program has none.
const IDLE: Duration = Duration::from_secs(10);

/// Work for a thread. It handles its own panics.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// A handle on a pool of threads.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    limit: usize,
    state: Mutex<State>,
    /// Work came, or the end.
    work: Condvar,
    /// A thread left.
    left: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stopping: bool,
}

impl Pool {
    /// A pool without threads yet.
    pub(super) fn new(name: &'static str, limit: usize) -> Self {
        Self(Arc::new(Shared { name, limit, state: Mutex::default(), work: Condvar::new(), left: Condvar::new() }))
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The system gives us no thread, and there is none yet that could do it.
    pub(super) fn submit(&self, job: Job) -> io::Result<()> {
        let mut state = self.state();
        state.stopping = false;
        state.jobs.push_back(job);
        if state.jobs.len() > state.idle && state.threads < self.0.limit {
            let pool = self.clone();
            match thread::Builder::new().name(self.0.name.to_owned()).spawn(move || pool.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.jobs.pop_back();
                    return Err(error);
                }
                Err(error) => tracing::warn!(%error, "no further thread; the job waits for one of those there are"),
            }
        }
        drop(state);
        self.0.work.notify_one();
        Ok(())
    }

    /// Has the threads finish what is queued, and leave. Waits for them at most `patience`; those that are stuck in a job
    /// are left behind. Says how many.
    pub(super) fn stop(&self, patience: Duration) -> usize {
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
        state.threads
    }

    /// A thread's life.
    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state();
                continue;
            }
            if state.stopping {
                break;
            }
            state.idle += 1;
            let (guard, waited) = self.0.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.0.left.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Jobs run without the lock, and nothing else here panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_beside_each_other_up_to_the_limit() {
        let pool = Pool::new("test", 2);
        let (met, meeting) = mpsc::channel();
        let barrier = Arc::new(std::sync::Barrier::new(2));
        for _ in 0..4 {
            let (met, barrier) = (met.clone(), Arc::clone(&barrier));
            pool.submit(Box::new(move || {
                barrier.wait();
                met.send(thread::current().id()).unwrap();
            }))
            .unwrap();
        }
        let threads: std::collections::HashSet<_> = meeting.iter().take(4).collect();
        assert_eq!(threads.len(), 2);
        assert_eq!(pool.stop(Duration::from_secs(10)), 0);
    }

    #[test]
    fn stopping_finishes_what_is_queued() {
        let pool = Pool::new("test", 1);
        let (done, finished) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            pool.submit(Box::new(move || done.send(n).unwrap())).unwrap();
        }
        assert_eq!(pool.stop(Duration::from_secs(10)), 0);
        assert_eq!(finished.try_iter().count(), 100);
    }

    /// F39: a stuck worker does not hold up the end for longer than the deadline, and is reported.
    #[test]
    fn a_stuck_job_is_left_behind_at_the_deadline() {
        let pool = Pool::new("test", 1);
        let (release, stuck) = mpsc::channel::<()>();
        pool.submit(Box::new(move || {
            let _ = stuck.recv();
        }))
        .unwrap();
        assert_eq!(pool.stop(Duration::from_millis(10)), 1);
        drop(release);
        assert_eq!(pool.stop(Duration::from_secs(10)), 0);
    }
}
