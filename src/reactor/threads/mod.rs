//! Threads: the pools that work for the loop, and calls from other threads to the loop.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | a pool of threads and its queue, independent of reactors |
//! | `jobs.rs` | a pool, and the callbacks of its jobs |
//! | `in_threads.rs` | jobs in the reactor's pools |
//! | `thread_pool.rs` | the program's own pools |
//! | `calls.rs`, `wakeup.rs` | calls from other threads, and waking the loop for them |
//! | `remote.rs` | the handle with which a program makes them |
//! | `answer.rs` | a future for the answer of another thread |

pub(in crate::reactor) mod answer;
pub(in crate::reactor) mod calls;
pub(in crate::reactor) mod in_threads;
pub(in crate::reactor) mod jobs;
pub(in crate::reactor) mod pool;
pub(in crate::reactor) mod remote;
pub(in crate::reactor) mod thread_pool;
pub(in crate::reactor) mod wakeup;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use self::calls::{Calls, RemoteCall};
use self::jobs::Jobs;
use self::pool::ThreadPoolStatistics;
use self::wakeup::Wakeup;
use super::backend::Wake;
use super::process::Process;
use super::slot_map::SlotMap;

/// The thread pools of a reactor, and its calls from threads. A call's argument is an `R`.
pub(super) struct Threads<R> {
    wakeup: Arc<Wakeup>,
    /// A host waits in the place of the loop, or is about to.
    host_waits: Cell<bool>,
    /// Calls from other threads.
    calls: Arc<Calls<R>>,
    /// The pool of the program's jobs.
    job_pool: Rc<Jobs>,
    /// The pool of name lookups, so that slow jobs do not hold them up.
    resolver_pool: Rc<Jobs>,
    /// The pools that the program has made.
    own_pools: RefCell<SlotMap<Rc<Jobs>>>,
    /// One entry for each thread that is blocked until the loop has its answer: a call that makes
    /// the thread fail without one.
    blocked_callers: RefCell<SlotMap<Box<dyn FnOnce()>>>,
}

impl<R> Threads<R> {
    pub(super) fn new(waker: Arc<dyn Wake>, process: &Arc<Process>, message_limit: usize) -> Self {
        let wakeup = Arc::new(Wakeup::new(waker));
        Self {
            calls: Arc::new(Calls::new(Arc::clone(&wakeup), Arc::clone(process), message_limit)),
            wakeup,
            host_waits: Cell::new(false),
            job_pool: Jobs::new_job_pool(),
            resolver_pool: Jobs::new_resolver_pool(),
            own_pools: RefCell::new(SlotMap::new()),
            blocked_callers: RefCell::new(SlotMap::new()),
        }
    }

    pub(super) fn calls(&self) -> &Arc<Calls<R>> {
        &self.calls
    }

    /// Returns a function that wakes the loop if it sleeps. It may be called from any thread.
    pub(super) fn waker(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let wakeup = Arc::clone(&self.wakeup);
        move || wakeup.notify()
    }

    /// Returns `true` if calls from other threads are queued.
    #[inline]
    pub(super) fn has_calls(&self) -> bool {
        self.calls.is_waiting()
    }

    /// Takes the calls that other threads have made so far.
    pub(super) fn take_calls(&self) -> Vec<RemoteCall<R>> {
        self.calls.take()
    }

    /// Takes the rings of other threads, after [`take_calls`](Self::take_calls). Returns `true` if
    /// there was one.
    pub(super) fn take_ring(&self) -> bool {
        self.calls.take_ring()
    }

    /// Marks the loop as about to wait. Returns `false` if it must not wait, because other threads
    /// have queued calls or because `is_idle` returns `false`.
    #[inline]
    pub(super) fn fall_asleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.wakeup.fall_asleep();
        !self.has_calls() && is_idle()
    }

    /// Marks the loop as awake.
    #[inline]
    pub(super) fn wake_up(&self) {
        self.wakeup.wake_up();
    }

    /// Marks a host as about to wait in the place of the loop, as
    /// [`fall_asleep`](Self::fall_asleep) does for the loop. A notification wakes `host`, or the
    /// backend if that is `None`.
    pub(super) fn begin_host_wait(&self, host: Option<Waker>, is_idle: impl FnOnce() -> bool) -> bool {
        self.wakeup.set_host(host);
        self.host_waits.set(true);
        self.fall_asleep(is_idle)
    }

    /// Marks the host as awake. Returns `false` if none was waiting.
    pub(super) fn end_host_wait(&self) -> bool {
        let waited = self.host_waits.replace(false);
        if waited {
            self.wake_up();
            self.wakeup.set_host(None);
        }
        waited
    }

    /// Makes requests on this thread wake the loop, which waits where other code may run.
    pub(super) fn set_host_waits(&self, waits: bool) {
        self.host_waits.set(waits);
    }

    /// Wakes the host that waits in the place of the loop, if there is one. For requests on this
    /// thread; it costs nothing else if there is no host.
    #[inline]
    pub(super) fn wake_host(&self) {
        if self.host_waits.get() {
            self.wakeup.notify();
        }
    }

    /// Returns the load of the pool of the program's jobs.
    pub(super) fn load(&self) -> ThreadPoolStatistics {
        self.job_pool.load()
    }

    /// Returns the load of the pool of name lookups.
    pub(super) fn lookup_load(&self) -> ThreadPoolStatistics {
        self.resolver_pool.load()
    }

    /// Returns the load of each pool that the program has made, in the order of their table.
    pub(super) fn own_pool_loads(&self) -> Vec<ThreadPoolStatistics> {
        let pools = self.own_pools.borrow();
        pools.ids(|_| true).into_iter().filter_map(|id| Some(pools.get(id)?.load())).collect()
    }

    /// Replaces the waker, in a forked child that takes the reactor over.
    pub(super) fn reopen(&self, waker: Arc<dyn Wake>) {
        self.wakeup.reopen(waker);
    }

    /// Abandons the queued calls, in a forked child that does not take the reactor over. They
    /// belong to the parent.
    pub(super) fn leave_to_parent(&self) {
        self.calls.leave();
        self.wakeup.close();
    }

    /// Drops the queued calls, and refuses later ones.
    pub(super) fn refuse_calls(&self) {
        self.calls.close();
    }

    /// Drops the waker, with its descriptor.
    pub(super) fn close(&self) {
        self.wakeup.close();
    }
}
