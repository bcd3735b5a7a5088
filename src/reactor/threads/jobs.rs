//! [`Jobs`]: a pool of threads, and the callbacks of its unfinished jobs. `in_threads.rs` fills the
//! pools of a reactor.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::pool::{Job, JobId, Pool, ThreadPoolStatistics};
use crate::deferred::Promise;
use crate::error::ReactorGone;
use crate::failure::{Result, drop_guarded, guarded};
use crate::log::error;
use crate::time::{Clock, DelayedCall, Timers};
use crate::transport::id::Id;

/// Default size of the pool of the program's jobs: 10 threads, as in Twisted.
const JOB_THREADS: usize = 10;

/// Size of the pool of name lookups: the number that may hang on a slow name server while the
/// others go on. 10 threads, as in Twisted's pool.
const RESOLVER_THREADS: usize = 10;

/// The pool that a job belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) enum JobKind {
    Program,
    Lookup,
    /// A pool that the program has made.
    Own(Id),
}

/// A result that crosses threads, as a value of the requested type.
pub(super) type Answer = Box<dyn Any + Send>;

/// The callback of a job.
type JobCallback = Box<dyn FnOnce(Result<Answer>)>;

type SimulatedJob = (DelayedCall, Rc<Cell<Option<Job>>>);

/// A pool, and the callbacks of its jobs.
pub(in crate::reactor) struct Jobs {
    name: Arc<str>,
    pool: RefCell<Pool>,
    unanswered: RefCell<HashMap<JobId, JobCallback>>,
    /// The jobs of a simulated network, which has no threads: the timer that ends each job, and the
    /// job.
    simulated: Rc<RefCell<BTreeMap<JobId, SimulatedJob>>>,
    next_job: Cell<JobId>,
    /// The promises of the calls that stopped the pool. `None` while the pool takes jobs.
    pub(in crate::reactor) stopped: RefCell<Option<Vec<Promise<()>>>>,
}

impl Jobs {
    pub(in crate::reactor) fn new(name: impl Into<Arc<str>>, threads: usize) -> Rc<Self> {
        let name = name.into();
        Rc::new(Self {
            pool: RefCell::new(Pool::new(&name, threads)),
            name,
            unanswered: RefCell::default(),
            simulated: Rc::default(),
            next_job: Cell::default(),
            stopped: RefCell::default(),
        })
    }

    /// Makes the pool of the program's jobs.
    pub(in crate::reactor) fn new_job_pool() -> Rc<Self> {
        Self::new("ropewalk-jobs", JOB_THREADS)
    }

    /// Makes the pool of name lookups.
    pub(in crate::reactor) fn new_resolver_pool() -> Rc<Self> {
        Self::new("ropewalk-names", RESOLVER_THREADS)
    }

    /// Returns `true` if jobs are unanswered, except for jobs that wait for a pool of size zero to
    /// grow.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        let unanswered = self.unanswered.borrow().len();
        unanswered > 0 && unanswered > self.pool().held_back()
    }

    /// Returns the load of the pool. Simulated jobs count as working from the moment of their
    /// request.
    pub(in crate::reactor) fn load(&self) -> ThreadPoolStatistics {
        let load = self.pool().load();
        ThreadPoolStatistics { working: load.working + self.simulated.borrow().len(), ..load }
    }

    /// Returns `true` while the pool takes jobs, which is until it is stopped.
    pub(super) fn is_open(&self) -> bool {
        self.stopped.borrow().is_none()
    }

    /// Returns `true` once the pool was stopped and every job is answered.
    pub(in crate::reactor) fn is_done(&self) -> bool {
        !self.is_open() && self.unanswered.borrow().is_empty()
    }

    /// Removes a simulated job that waits for its time.
    pub(super) fn take_simulated(&self, id: JobId) -> Option<Job> {
        let (call, job) = self.simulated.borrow_mut().remove(&id)?;
        // The timer is pending, since it removes this entry when it runs.
        let _ = call.cancel();
        job.take()
    }

    pub(super) fn next_id(&self) -> JobId {
        let id = self.next_job.get();
        self.next_job.set(id + 1);
        id
    }

    /// Stores the callback of a job until its result arrives.
    pub(super) fn expect(&self, id: JobId, waiting: impl FnOnce(Result<Answer>) + 'static) {
        self.unanswered.borrow_mut().insert(id, Box::new(waiting));
    }

    /// Runs a job on this thread after a delay, in place of a thread of a pool.
    pub(super) fn simulate(&self, timers: &Timers, id: JobId, takes: Duration, job: Job) {
        let place = Rc::new(Cell::new(Some(job)));
        let simulated = Rc::downgrade(&self.simulated);
        let (mine, kept) = (Rc::clone(&place), Rc::clone(&place));
        let call = timers.call_later(takes, move || {
            if let Some(simulated) = simulated.upgrade() {
                simulated.borrow_mut().remove(&id);
            }
            if let Some(job) = mine.take() {
                job()();
            }
        });
        self.simulated.borrow_mut().insert(id, (call, kept));
    }

    /// Replaces the pool in a forked child, which has none of its parent's threads.
    pub(super) fn renew(&self) {
        if self.next_job.get() > 0 {
            let limit = self.pool().limit();
            self.pool.replace(Pool::new(&self.name, limit));
            self.abandon();
        }
    }

    pub(in crate::reactor) fn pool(&self) -> Pool {
        self.pool.borrow().clone()
    }

    /// Hands a result to the callback of its job. The callback may be gone, if the job was
    /// cancelled or abandoned.
    pub(super) fn answer(&self, id: JobId, result: Result<Answer>) {
        let waiting = self.unanswered.borrow_mut().remove(&id);
        if let Some(waiting) = waiting
            && let Err(failure) = guarded(|| waiting(result))
        {
            error!(%failure, "a callback failed");
        }
    }

    /// Abandons all jobs: drops the jobs that have not begun, leaves stuck threads behind, and
    /// fails every callback. Later jobs find a working pool.
    pub(super) fn abandon(&self) {
        let pool = self.pool();
        let (dropped, stuck) = (pool.clear(), pool.load().working);
        if stuck > 0 {
            // Stuck threads would occupy the places of new ones.
            self.pool.replace(Pool::new(&self.name, pool.limit()));
            pool.stop(Duration::ZERO);
        }
        match (&*self.name, stuck, dropped.len()) {
            (_, 0, 0) => {}
            (pool, 0, dropped) => tracing::warn!(pool, dropped, "jobs that had not begun are dropped"),
            (pool, stuck, dropped) => {
                tracing::warn!(pool, stuck, dropped, "threads that are still at work are left behind");
            }
        }
        drop_jobs(dropped);
        let simulated: Vec<JobId> = self.simulated.borrow().keys().copied().collect();
        drop_jobs(simulated.into_iter().filter_map(|id| Some((id, self.take_simulated(id)?))).collect());
        let mut unanswered: Vec<JobId> = self.unanswered.borrow().keys().copied().collect();
        unanswered.sort_unstable();
        for id in unanswered {
            self.answer(id, Err(ReactorGone.into()));
        }
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("name", &self.name).field("load", &self.load()).finish_non_exhaustive()
    }
}

/// Drops jobs that will never run.
pub(super) fn drop_jobs(jobs: BTreeMap<JobId, Job>) {
    for job in jobs.into_values() {
        drop_guarded("a job", job);
    }
}
