//! [`ThreadPool`]: a pool of threads of the program's own (Twisted: `ThreadPool`,
//! `deferToThreadPool`), for jobs that must not occupy the threads of other jobs. It is a handle to
//! one more pool of `jobs.rs`.

use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::jobs::{JobKind, Jobs};
use super::pool::ThreadPoolStatistics;
use crate::deferred::{Deferred, Promise};
use crate::error::{PoolStopped, ReactorGone};
use crate::failure::{Result, drop_guarded};
use crate::reactor::{Core, Reactor};
use crate::transport::id::Id;

impl Reactor {
    /// Makes a pool of at most `size` threads, beside the reactor's (Twisted:
    /// `ThreadPool(0, maxthreads, name)`). Its jobs do not occupy threads of
    /// [`defer_to_thread`](Self::defer_to_thread) or of any other pool.
    ///
    /// `name` is the name of its threads, and its name in the log. The system may show only the
    /// beginning of it. NUL characters are removed.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// let images = reactor.thread_pool("images", 2);
    /// let handle = reactor.clone();
    /// let scaled = images.defer_to_thread(|| Ok(640 * 480)).add_callback(move |pixels| {
    ///     println!("{pixels} pixels");
    ///     Ok(handle.stop()?)
    /// });
    /// reactor.run()?;
    /// # drop(scaled);
    /// # Ok(())
    /// # }
    /// ```
    pub fn thread_pool(&self, name: &str, size: usize) -> ThreadPool {
        let name = name.replace('\0', "");
        let id = self.0.threads.own_pools.borrow_mut().insert(Jobs::new(name.as_str(), size));
        ThreadPool(Rc::new(PoolHandle { core: Rc::downgrade(&self.0), kind: JobKind::Own(id), name }))
    }
}

/// A pool of threads of the program's own (Twisted: `ThreadPool`), from [`Reactor::thread_pool`].
///
/// A `ThreadPool` is a cheap handle: clones name the same pool. It is not `Send`, since the results
/// of jobs are Deferreds.
///
/// Threads are started when there is work and none is idle, and exit after 10 s without work. The
/// pool belongs to its reactor. A reactor that stops waits for the jobs of the pool, as for those
/// of [`Reactor::defer_to_thread`], and a later run goes on with the pool. The pool ends once it
/// was [stopped](Self::stop) or its last handle was dropped, and its jobs are done. A handle does
/// not keep the reactor alive.
#[derive(Clone)]
pub struct ThreadPool(Rc<PoolHandle>);

impl ThreadPool {
    /// Runs `work` in a thread of this pool (Twisted: `deferToThreadPool`). Its result or its panic
    /// becomes the result of the Deferred. Otherwise as [`Reactor::defer_to_thread`]. For a
    /// callback in the thread itself (Twisted: `callInThreadWithCallback`), call it at the end of
    /// `work`.
    ///
    /// The Deferred fails with [`PoolStopped`](crate::error::PoolStopped) after a
    /// [`stop`](Self::stop), and with [`ReactorGone`] if the reactor was closed.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let disk = reactor.thread_pool("disk", 1);
    /// # let handle = reactor.clone();
    /// let read = disk.defer_to_thread(|| Ok(std::fs::read("Cargo.toml")?.len()));
    /// # let read = read.add_both(move |_| Ok(handle.stop()?));
    /// # reactor.run()?;
    /// # drop(read);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn defer_to_thread<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Deferred<T> {
        match self.0.core.upgrade() {
            Some(core) => core.in_thread(self.0.kind, work),
            None => {
                drop_guarded("a job", work);
                Deferred::fail(ReactorGone)
            }
        }
    }

    /// Calls `work` in a thread of this pool (Twisted: `ThreadPool.callInThread`). A panic is
    /// logged by that thread. If `work` is not called because the pool was stopped, that is logged
    /// as well. Otherwise as [`Reactor::call_in_thread`].
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// reactor.thread_pool("once", 1).call_in_thread(|| println!("in a thread"));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn call_in_thread(&self, work: impl FnOnce() + Send + 'static) {
        match self.0.core.upgrade() {
            Some(core) => core.call_in_thread(self.0.kind, work),
            None => drop_guarded("a job", work),
        }
    }

    /// Changes the maximum number of threads (Twisted: `adjustPoolsize`): see
    /// [`Reactor::suggest_thread_pool_size`]. On a stopped pool this has no effect.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let pool = reactor.thread_pool("jobs", 2);
    /// pool.suggest_size(8);
    /// # Ok(())
    /// # }
    /// ```
    pub fn suggest_size(&self, size: usize) {
        if let Some(core) = self.0.core() {
            core.resize_pool(self.0.kind, size);
        }
    }

    /// Returns the numbers of idle threads, working threads and queued jobs at present. All are
    /// zero once the pool or its reactor has ended.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let pool = reactor.thread_pool("later", 0);
    /// pool.call_in_thread(|| println!("when the pool has grown"));
    /// assert_eq!(pool.statistics().queued, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn statistics(&self) -> ThreadPoolStatistics {
        let jobs = self.0.core().and_then(|core| core.jobs(self.0.kind));
        jobs.map(|jobs| jobs.load()).unwrap_or_default()
    }

    /// Ends the pool (Twisted: `ThreadPool.stop`). It takes no more jobs, finishes those that it
    /// has, and its threads exit. Stopping twice is fine.
    ///
    /// The Deferred fires when every job has delivered its result, which needs a loop that turns.
    /// Jobs that wait for a pool of size zero to grow fail with
    /// [`PoolStopped`](crate::error::PoolStopped).
    ///
    /// The Deferred fails with [`ReactorGone`] in a forked child, which has none of its parent's
    /// threads.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let pool = reactor.thread_pool("jobs", 2);
    /// pool.call_in_thread(|| println!("it is done first"));
    /// let handle = reactor.clone();
    /// let stopped = pool.stop().add_callback(move |()| Ok(handle.stop()?));
    /// reactor.run()?;
    /// assert!(stopped.is_called());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) -> Deferred<()> {
        match self.0.core.upgrade() {
            Some(core) if core.is_forked_child() => Deferred::fail(ReactorGone),
            Some(core) => core.stop_pool(self.0.kind),
            None => Deferred::succeed(()),
        }
    }

    /// Returns the name, without NUL characters.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// The state that the clones of a [`ThreadPool`] share. Dropping it stops the pool.
struct PoolHandle {
    core: Weak<Core>,
    kind: JobKind,
    name: String,
}

impl PoolHandle {
    /// Returns the reactor, unless it is gone or belongs to another process. There, the pool's lock
    /// may be held forever.
    fn core(&self) -> Option<Rc<Core>> {
        self.core.upgrade().filter(|core| !core.is_forked_child())
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        if let Some(core) = self.core() {
            drop(core.stop_pool(self.kind));
        }
    }
}

impl Core {
    /// Closes one of the program's pools for new jobs. The pool ends with its last job. Jobs that
    /// wait for it to grow fail.
    fn stop_pool(&self, kind: JobKind) -> Deferred<()> {
        let Some(jobs) = self.jobs(kind) else { return Deferred::succeed(()) };
        let (promise, stopped) = Promise::new();
        jobs.stopped.borrow_mut().get_or_insert_default().push(promise);
        let pool = jobs.pool();
        if pool.limit() == 0 {
            let held_back = pool.clear();
            self.fail_jobs(kind, held_back, &PoolStopped.into());
        }
        pool.stop(Duration::ZERO);
        self.end_pool(kind);
        stopped
    }

    /// Fires the promises of a stopped pool, once its last job is answered.
    pub(in crate::reactor) fn end_pool(&self, kind: JobKind) {
        let JobKind::Own(id) = kind else { return };
        let is_done = self.threads.own_pools.borrow().get(id).is_some_and(|jobs| jobs.is_done());
        if !is_done {
            return;
        }
        let jobs = self.threads.own_pools.borrow_mut().remove(id);
        for promise in jobs.and_then(|jobs| jobs.stopped.take()).into_iter().flatten() {
            // The Deferred may have been cancelled.
            let _ = promise.callback(());
        }
    }

    pub(in crate::reactor) fn own_pools(&self) -> Vec<(Id, Rc<Jobs>)> {
        let pools = self.threads.own_pools.borrow();
        pools.ids(|_| true).into_iter().filter_map(|id| Some((id, Rc::clone(pools.get(id)?)))).collect()
    }

    /// Ends every stopped pool whose jobs are answered.
    pub(in crate::reactor) fn end_pools(&self) {
        for (id, _) in self.own_pools() {
            self.end_pool(JobKind::Own(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A pool that was stopped, or that has lost its last handle, stays in the reactor's table
    /// until its jobs are answered, and no longer.
    #[test]
    fn a_pool_that_has_ended_leaves_the_table() {
        let reactor = Reactor::builder().signals(false).build().expect("the system provides a poller");
        let pools = || reactor.0.threads.own_pools.borrow().len();
        for stops in [false, true] {
            let pool = reactor.thread_pool("test", 1);
            let done = pool.defer_to_thread(|| Ok(()));
            let kept = stops.then(|| (pool.clone(), pool.stop()));
            drop(pool);
            assert_eq!(pools(), 1);
            let until = Instant::now() + Duration::from_secs(30);
            while !done.is_called() {
                assert!(Instant::now() < until, "the job is not answered");
                reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
            }
            assert_eq!(pools(), 0);
            drop(kept);
        }
        drop(reactor.thread_pool("unused", 1));
        assert_eq!(pools(), 0);
    }
}
