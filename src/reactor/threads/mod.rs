//! Threads: those that work for the loop, and those that call it.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | a pool of threads and its queue, without anything of reactors |
//! | `jobs.rs` | a pool, and the callbacks of its jobs |
//! | `in_threads.rs` | jobs in the reactor's pools |
//! | `thread_pool.rs` | pools of the program's own |
//! | `calls.rs`, `wakeup.rs` | calls from other threads, and what wakes the loop for them |
//! | `remote.rs` | the handle by which a program makes them |

pub(in crate::reactor) mod calls;
pub(in crate::reactor) mod in_threads;
pub(in crate::reactor) mod jobs;
pub(in crate::reactor) mod pool;
pub(in crate::reactor) mod remote;
pub(in crate::reactor) mod thread_pool;
pub(in crate::reactor) mod wakeup;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use self::calls::{Calls, RemoteCall};
use self::jobs::Jobs;
use self::pool::ThreadPoolStatistics;
use self::wakeup::Wakeup;
use super::backend::Wake;
use super::process::Process;
use super::slot_map::SlotMap;

/// A reactor's part in threads. Calls from threads are given an `R`.
pub(super) struct Threads<R> {
    wakeup: Arc<Wakeup>,
    /// Calls from other threads.
    calls: Arc<Calls<R>>,
    /// The program's jobs.
    job_pool: Rc<Jobs>,
    /// Names that are looked up, so that slow jobs do not hold them up.
    resolver_pool: Rc<Jobs>,
    /// Pools that the program has made.
    own_pools: RefCell<SlotMap<Rc<Jobs>>>,
    /// Threads that are blocked until the loop has an answer for them: the call that sends each away without one.
    blocked_callers: RefCell<SlotMap<Box<dyn FnOnce()>>>,
}

impl<R> Threads<R> {
    pub(super) fn new(waker: Arc<dyn Wake>, process: &Arc<Process>) -> Self {
        let wakeup = Arc::new(Wakeup::new(waker));
        Self {
            calls: Arc::new(Calls::new(Arc::clone(&wakeup), Arc::clone(process))),
            wakeup,
            job_pool: Jobs::of_program(),
            resolver_pool: Jobs::of_names(),
            own_pools: RefCell::new(SlotMap::new()),
            blocked_callers: RefCell::new(SlotMap::new()),
        }
    }

    pub(super) fn calls(&self) -> &Arc<Calls<R>> {
        &self.calls
    }

    /// Wakes the loop if it sleeps, from any thread.
    pub(super) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let wakeup = Arc::clone(&self.wakeup);
        move || wakeup.ring()
    }

    /// True if calls from other threads wait.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.is_waiting()
    }

    /// Takes the calls that other threads have made so far.
    pub(super) fn take_calls(&self) -> Vec<RemoteCall<R>> {
        self.calls.take()
    }

    /// The loop is about to wait. `false`: it is not to, for other threads have brought something, or `is_idle` says so.
    #[inline]
    pub(super) fn fall_asleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.wakeup.fall_asleep();
        !self.has_calls() && is_idle()
    }

    /// The loop has waited.
    #[inline]
    pub(super) fn wake_up(&self) {
        self.wakeup.wake_up();
    }

    /// The load of the program's pool.
    pub(super) fn load(&self) -> ThreadPoolStatistics {
        self.job_pool.load()
    }

    /// In a forked child that takes the reactor over: it has a waker of its own.
    pub(super) fn reopen(&self, waker: Arc<dyn Wake>) {
        self.wakeup.reopen(waker);
    }

    /// In a forked child that does not: calls that wait are the parent's.
    pub(super) fn leave_to_parent(&self) {
        self.calls.leave();
        self.wakeup.close();
    }

    /// Drops the calls that wait, and those that are made from now on.
    pub(super) fn refuse_calls(&self) {
        self.calls.close();
    }

    /// Lets the waker go, with its descriptor.
    pub(super) fn close(&self) {
        self.wakeup.close();
    }
}
