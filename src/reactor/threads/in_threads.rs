//! Jobs of a reactor in threads (Twisted: `IReactorInThreads`, `deferToThread`, `callInThread`,
//! `suggestThreadPoolSize`).
//!
//! A reactor has two pools, one for the program's jobs and one for name lookups, so that slow jobs
//! do not delay lookups. The program may add pools (`thread_pool.rs`). The result of a job comes
//! back as a call from a thread, and goes to its entry in the pool's table. A shutdown waits until
//! every table is empty, except for that of name lookups.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::jobs::{Answer, JobKind, Jobs, drop_jobs};
use super::pool::{Job, JobId, Refused};
use crate::deferred::{Cancelled, Deferred, Promise};
use crate::error::{NoThread, PoolStopped, ReactorGone};
use crate::failure::{Failure, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;
use crate::reactor::{Core, Reactor};

/// Time limit at the end of a run for threads to exit: idle threads, and threads of name lookups,
/// whose results are not needed any longer.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

impl Reactor {
    /// Runs `work` in a thread of the reactor's pool (Twisted: `deferToThread`). Its result or its
    /// panic becomes the result of the Deferred, whose callbacks run on the reactor's thread.
    ///
    /// For work that blocks, or computes for a long time. A job begins as soon as a thread is free,
    /// whether the reactor runs or not. Its result arrives only while the loop turns.
    ///
    /// Cancelling the Deferred of a job that has not begun removes the job, and `work` is dropped
    /// without a call. A job that has begun goes on, and its result is dropped. (Twisted cannot
    /// cancel.)
    ///
    /// A reactor that stops goes on turning until all jobs are done, also the jobs that wait for a
    /// thread, but no longer than
    /// [`Builder::shutdown_timeout`](crate::reactor::Builder::shutdown_timeout). A job that has not
    /// begun by then never runs.
    ///
    /// The Deferred fails with the failure of `work`; with [`NoThread`] if the system provides no
    /// thread and the pool has none; and with [`ReactorGone`] if the reactor stopped without
    /// waiting any longer, or was closed.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let handle = reactor.clone();
    /// let printed = reactor.defer_to_thread(|| Ok(std::fs::read_to_string("Cargo.toml")?)).add_both(move |text| {
    ///     println!("{} bytes", text?.len());
    ///     Ok(handle.stop()?)
    /// });
    /// reactor.run()?;
    /// # drop(printed);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn defer_to_thread<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Deferred<T> {
        self.0.in_thread(JobKind::Program, work)
    }

    /// Calls `work` in a thread of the reactor's pool, without reporting its end (Twisted:
    /// `callInThread`). For several calls in sequence (Twisted: `callMultipleInThread`), make one
    /// closure of them.
    ///
    /// A panic is logged, by that thread. If there is no thread for `work`, that is logged as well.
    /// Otherwise as [`defer_to_thread`](Self::defer_to_thread).
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let remote = reactor.remote();
    /// reactor.call_in_thread(move || {
    ///     let sum: u64 = (0..1_000).sum();
    ///     let queued = remote.call_from_thread(move |reactor| {
    ///         println!("{sum}");
    ///         reactor.stop().expect("the reactor runs this call, so it is running");
    ///     });
    ///     queued.expect("the reactor waits for its jobs");
    /// });
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn call_in_thread(&self, work: impl FnOnce() + Send + 'static) {
        self.0.call_in_thread(JobKind::Program, work);
    }

    /// Sets the maximum number of threads that work on jobs at the same time (Twisted:
    /// `suggestThreadPoolSize`). The default is 10. Threads are started when they are needed, and
    /// exit after 10 s without work.
    ///
    /// When the size grows, waiting jobs begin. When it shrinks, threads exit once they are idle;
    /// no job is interrupted. With a size of zero, no job begins until the size grows again, and a
    /// shutdown drops the jobs that wait for that. The pool of name lookups is not affected.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// reactor.suggest_thread_pool_size(2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn suggest_thread_pool_size(&self, size: usize) {
        self.0.resize_pool(JobKind::Program, size);
    }
}

impl Core {
    /// Runs `work` in a thread. Its result or its panic becomes the result of the Deferred, on this
    /// thread.
    #[track_caller]
    pub(in crate::reactor) fn in_thread<T: Send + 'static>(
        self: &Rc<Self>,
        kind: JobKind,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Deferred<T> {
        let jobs = match self.jobs_for(kind) {
            Ok(jobs) => jobs,
            Err(failure) => {
                drop_guarded("a job", work);
                return Deferred::fail(failure);
            }
        };
        let (core, id) = (Rc::downgrade(self), jobs.next_id());
        let (promise, answer) = Promise::with_canceller(move || {
            if let Some(core) = core.upgrade() {
                core.cancel_job(kind, id);
            }
        });
        let work = move || work().map(|value| Box::new(value) as Answer);
        self.begin_job(kind, &jobs, id, work, move |result| {
            let result =
                result.map(|value| *value.downcast::<T>().expect("an answer has the type that its job returns"));
            // The job may have been cancelled meanwhile.
            let _ = promise.complete(result);
        });
        answer
    }

    /// Calls `work` in a thread, which logs a panic.
    #[track_caller]
    pub(in crate::reactor) fn call_in_thread(&self, kind: JobKind, work: impl FnOnce() + Send + 'static) {
        let place = Location::caller();
        let not_done = move |failure: Failure| {
            // A reactor that is gone logs the number of its abandoned jobs in one line.
            if failure.check::<ReactorGone>().is_none() {
                job_failed(place, "was not run", &failure);
            }
        };
        let jobs = match self.jobs_for(kind) {
            Ok(jobs) => jobs,
            Err(failure) => {
                drop_guarded("a job", work);
                return not_done(failure);
            }
        };
        let work = move || {
            if let Err(panic) = guarded(work) {
                job_failed(place, "failed", &panic);
            }
            Ok(Box::new(()) as Answer)
        };
        self.begin_job(kind, &jobs, jobs.next_id(), work, move |result| {
            if let Err(failure) = result {
                not_done(failure);
            }
        });
    }

    /// Returns the pool, if it takes jobs.
    fn jobs_for(&self, kind: JobKind) -> Result<Rc<Jobs>> {
        if self.is_closed() || !self.is_ours() {
            return Err(ReactorGone.into());
        }
        Ok(self.jobs(kind).filter(|jobs| jobs.is_open()).ok_or(PoolStopped)?)
    }

    fn begin_job(
        &self,
        kind: JobKind,
        jobs: &Jobs,
        id: JobId,
        work: impl FnOnce() -> Result<Answer> + Send + 'static,
        waiting: impl FnOnce(Result<Answer>) + 'static,
    ) {
        let calls = Arc::clone(self.threads.calls());
        jobs.expect(id, waiting);
        let job: Job = Box::new(move || {
            let result = guarded_result(work);
            Box::new(move || {
                // If the reactor is gone, its callbacks have failed already.
                let _ = calls.add(Box::new(move |reactor| reactor.0.answer_job(kind, id, result)));
            })
        });
        if let Some(takes) = &self.settings.simulated_jobs {
            return jobs.simulate(&self.timers, id, takes.draw(), job);
        }
        let submitted = jobs.pool().submit(id, job);
        if let Err(refused) = submitted {
            self.refuse(kind, refused);
        }
    }

    /// Cancels a job that has not begun.
    fn cancel_job(&self, kind: JobKind, id: JobId) {
        let Some(jobs) = self.jobs(kind) else { return };
        let taken = jobs.pool().remove(id).or_else(|| jobs.take_simulated(id));
        if let Some(job) = taken {
            drop_jobs(BTreeMap::from([(id, job)]));
            self.answer_job(kind, id, Err(Cancelled.into()));
        }
        // A shutdown may be waiting for this job.
        self.threads.wake_host();
    }

    /// Hands a job's result to its entry in the table.
    fn answer_job(&self, kind: JobKind, id: JobId, result: Result<Answer>) {
        if let Some(jobs) = self.jobs(kind) {
            jobs.answer(id, result);
            self.end_pool(kind);
        }
    }

    /// Changes the maximum number of threads of a pool, unless it was stopped.
    pub(in crate::reactor) fn resize_pool(&self, kind: JobKind, size: usize) {
        let open = self.jobs(kind).filter(|jobs| jobs.is_open());
        let resized = open.map_or(Ok(()), |jobs| jobs.pool().resize(size));
        if let Err(refused) = resized {
            self.refuse(kind, refused);
        }
    }

    /// Fails the jobs for which there is no thread.
    fn refuse(&self, kind: JobKind, refused: Refused) {
        let Refused { error, jobs } = refused;
        self.fail_jobs(kind, jobs, &Failure::new(NoThread(error)));
    }

    /// Drops jobs that have not begun, and fails their callbacks.
    pub(in crate::reactor) fn fail_jobs(&self, kind: JobKind, jobs: BTreeMap<JobId, Job>, failure: &Failure) {
        let ids: Vec<JobId> = jobs.keys().copied().collect();
        drop_jobs(jobs);
        for id in ids {
            self.answer_job(kind, id, Err(failure.clone()));
        }
    }

    /// Returns `true` while a shutdown has jobs to wait for.
    pub(in crate::reactor) fn has_jobs(&self) -> bool {
        self.threads.job_pool.is_busy() || self.own_pools().iter().any(|(_, jobs)| jobs.is_busy())
    }

    /// Replaces the pools in a forked child, which has none of its parent's threads.
    pub(in crate::reactor) fn renew_jobs(&self) {
        for jobs in self.all_jobs() {
            jobs.renew();
        }
        self.end_pools();
    }

    /// Ends name lookups when a shutdown enters `During`: their results are not needed any more.
    pub(in crate::reactor) fn stop_lookups(&self) {
        self.threads.resolver_pool.pool().stop(EXIT_TIMEOUT);
        self.threads.resolver_pool.abandon();
    }

    /// Abandons the jobs of all pools.
    pub(in crate::reactor) fn abandon_jobs(&self) {
        for jobs in self.all_jobs() {
            jobs.abandon();
        }
        self.end_pools();
    }

    /// Lets idle threads exit, at the end of a run.
    pub(in crate::reactor) fn end_threads(&self) {
        for jobs in self.all_jobs() {
            let patience = if jobs.load().working == 0 { EXIT_TIMEOUT } else { Duration::ZERO };
            jobs.pool().stop(patience);
        }
    }

    pub(in crate::reactor) fn jobs(&self, kind: JobKind) -> Option<Rc<Jobs>> {
        match kind {
            JobKind::Program => Some(Rc::clone(&self.threads.job_pool)),
            JobKind::Lookup => Some(Rc::clone(&self.threads.resolver_pool)),
            JobKind::Own(id) => self.threads.own_pools.borrow().get(id).cloned(),
        }
    }

    fn all_jobs(&self) -> Vec<Rc<Jobs>> {
        let own = self.own_pools().into_iter().map(|(_, jobs)| jobs);
        [Rc::clone(&self.threads.resolver_pool), Rc::clone(&self.threads.job_pool)].into_iter().chain(own).collect()
    }
}

/// Logs that a job which gives no answer was not done. It is compiled once, and not for each job.
#[cold]
fn job_failed(place: &'static Location<'static>, what: &str, failure: &dyn fmt::Display) {
    error!(%place, %failure, "a job in a thread {what}");
}
