//! [`Jobs`]: a pool of threads, and the callbacks of its unfinished jobs. `in_threads.rs` fills the pools of a reactor.

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

/// Threads for a program's jobs, unless it says otherwise. 10, as Twisted.
const THREADS: usize = 10;

/// Threads for looking names up: as many as may hang in a slow name server while the others go on. 10, as Twisted's pool.
const NAME_THREADS: usize = 10;

/// The pool that a job belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) enum JobKind {
    Program,
    Names,
    /// One that the program has made.
    Own(Id),
}

/// A result that crosses threads: of the type that was asked for.
pub(super) type Answer = Box<dyn Any + Send>;

/// Who waits for a job.
type JobCallback = Box<dyn FnOnce(Result<Answer>)>;

type SimulatedJob = (DelayedCall, Rc<Cell<Option<Job>>>);

/// A pool, and who waits for what it does.
pub(in crate::reactor) struct Jobs {
    name: Arc<str>,
    pool: RefCell<Pool>,
    unanswered: RefCell<HashMap<JobId, JobCallback>>,
    /// On a simulated network, in the place of threads: when each job is done, and the job.
    simulated: Rc<RefCell<BTreeMap<JobId, SimulatedJob>>>,
    made: Cell<JobId>,
    /// Promises of the calls that stopped the pool. `None`: it takes jobs.
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
            made: Cell::default(),
            stopped: RefCell::default(),
        })
    }

    /// Those of the program.
    pub(in crate::reactor) fn of_program() -> Rc<Self> {
        Self::new("ropewalk-jobs", THREADS)
    }

    /// The looking up of names.
    pub(in crate::reactor) fn of_names() -> Rc<Self> {
        Self::new("ropewalk-names", NAME_THREADS)
    }

    /// Whether there are jobs without an answer, those aside that have no thread to wait for.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        let unanswered = self.unanswered.borrow().len();
        unanswered > 0 && unanswered > self.pool().held_back()
    }

    /// The load of the pool. Simulated jobs are at work from the moment at which they were asked for.
    pub(in crate::reactor) fn load(&self) -> ThreadPoolStatistics {
        let load = self.pool().load();
        ThreadPoolStatistics { working: load.working + self.simulated.borrow().len(), ..load }
    }

    /// True until the pool is stopped: it takes jobs.
    pub(super) fn is_open(&self) -> bool {
        self.stopped.borrow().is_none()
    }

    /// True when the pool was stopped, and every job has its answer.
    pub(in crate::reactor) fn is_done(&self) -> bool {
        !self.is_open() && self.unanswered.borrow().is_empty()
    }

    /// Takes out a job that waits for its time, on a simulated network.
    pub(super) fn take_simulated(&self, id: JobId) -> Option<Job> {
        let (call, job) = self.simulated.borrow_mut().remove(&id)?;
        // It is pending, for it takes itself out.
        let _ = call.cancel();
        job.take()
    }

    pub(super) fn next_id(&self) -> JobId {
        let id = self.made.get();
        self.made.set(id + 1);
        id
    }

    /// Keeps the callback of a job until its result is there.
    pub(super) fn expect(&self, id: JobId, waiting: impl FnOnce(Result<Answer>) + 'static) {
        self.unanswered.borrow_mut().insert(id, Box::new(waiting));
    }

    /// Runs a job on this thread after a time, in the place of a pool's thread.
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

    /// In a forked child, which has none of its parent's threads.
    pub(super) fn renew(&self) {
        if self.made.get() > 0 {
            let limit = self.pool().limit();
            self.pool.replace(Pool::new(&self.name, limit));
            self.abandon();
        }
    }

    pub(in crate::reactor) fn pool(&self) -> Pool {
        self.pool.borrow().clone()
    }

    /// Gives whoever waits for a job its result. It may have been told already that there will be none.
    pub(super) fn answer(&self, id: JobId, result: Result<Answer>) {
        let waiting = self.unanswered.borrow_mut().remove(&id);
        if let Some(waiting) = waiting
            && let Err(failure) = guarded(|| waiting(result))
        {
            error!(%failure, "a callback failed");
        }
    }

    /// Nobody waits any longer: what has not begun is dropped, threads that are stuck are left behind, and whoever waits is
    /// told. What is asked for from now on finds a pool that works.
    pub(super) fn abandon(&self) {
        let pool = self.pool();
        let (dropped, stuck) = (pool.clear(), pool.load().working);
        if stuck > 0 {
            // They would take the places of those to come.
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

/// Drops jobs that will not be done.
pub(super) fn drop_jobs(jobs: BTreeMap<JobId, Job>) {
    for job in jobs.into_values() {
        drop_guarded("a job", job);
    }
}
