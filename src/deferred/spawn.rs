//! [`Spawner`]: runs futures on one thread, driven by the event loop of that thread (Twisted:
//! `ensureDeferred`, `inlineCallbacks`).
//!
//! It is not a runtime: it has no thread, no timers and no sockets, and polls only when its owner
//! calls it. The reactor owns one, and polls the woken futures in each turn. The clock of the test
//! kit owns another.
//!
//! 1. A future is polled at once when it is spawned, up to its first wait. After that it is polled
//!    only when it was woken.
//! 2. A future that is woken while futures are being polled is polled in the next round. No future
//!    is polled from inside another.
//! 3. A waker may be used on any thread. It puts the task on a list, once, and calls the owner if
//!    the owner sleeps.
//! 4. Cancelling the Deferred drops the future, which cancels the Deferred that it awaits. A future
//!    that cancels itself is dropped when its poll returns.
//! 5. A panic in a future becomes the failure of its Deferred.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::task_table::{TaskId, TaskTable};
use super::wakes::{TaskWaker, Woken};
use super::{Cancelled, Deferred, Outcome, Promise};
use crate::failure::{drop_guarded, guarded};

/// Number of wake-ups whose list is kept for the next turn: 64 KiB of them. A turn that wakes more
/// tasks allocates.
const KEPT_WAKES: usize = 4096;

/// Runs futures on this thread. A cheap handle; not `Send`.
/// [`Reactor::spawner`](crate::Reactor::spawner) and the clock of the test kit return one. Code
/// that needs nothing else of them takes a `&Spawner`.
///
/// ```
/// use ropewalk::deferred::{Promise, Spawner};
/// use ropewalk::{Deferred, Result};
///
/// fn sum(spawner: &Spawner, first: Deferred<u32>, second: Deferred<u32>) -> Deferred<u32> {
///     spawner.spawn(async move { Ok(first.await? + second.await?) })
/// }
/// ```
#[derive(Clone)]
pub struct Spawner(Rc<Tasks>);

struct Tasks {
    table: RefCell<TaskTable<Rc<dyn SpawnedTask>>>,
    woken: Arc<Woken>,
    /// The list of woken tasks that is not in use, empty. It is kept for its capacity.
    spare: Cell<Vec<TaskId>>,
    closed: Cell<bool>,
}

impl Spawner {
    /// Creates a spawner without tasks. `call` is called when a task is woken and none was woken
    /// before, on the thread that wakes it. The owner then has to call
    /// [`poll_woken`](Self::poll_woken).
    pub(crate) fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        let woken = Arc::new(Woken::new(call));
        let (table, spare, closed) = (RefCell::default(), Cell::default(), Cell::new(false));
        Self(Rc::new(Tasks { table, woken, spare, closed }))
    }

    /// Runs a future, and returns a Deferred of its output (Twisted: `ensureDeferred`,
    /// `Deferred.fromCoroutine`). The future runs at once up to its first wait, and continues in a
    /// turn of the event loop when that wait is over.
    ///
    /// It may await any future, a Deferred included. Futures that need a runtime of their own (its
    /// timers, its sockets) do not work without that runtime. If the Deferred is dropped, the
    /// future continues. If the Deferred is cancelled, the future is dropped. A panic becomes the
    /// failure of the Deferred.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Deferred<<F::Output as Outcome>::Output>
    where
        F: Future + 'static,
        F::Output: Outcome + 'static,
    {
        let id = self.0.table.borrow_mut().reserve();
        let tasks = Rc::downgrade(&self.0);
        let (promise, answer) = Promise::with_canceller(move || {
            if let Some(tasks) = tasks.upgrade() {
                tasks.cancel(id);
            }
        });
        if self.0.closed.get() {
            self.0.table.borrow_mut().remove(id);
        } else {
            let task: Rc<dyn SpawnedTask> = Spawned::new(Box::pin(future), promise, TaskWaker::new(id, &self.0.woken));
            self.0.table.borrow_mut().set(id, Rc::clone(&task));
            self.0.poll(id, &task);
        }
        answer.add_callback(|output| output)
    }

    /// Number of futures that are not done.
    pub fn len(&self) -> usize {
        self.0.table.borrow().len()
    }

    /// Returns `true` if every future is done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns `true` if [`poll_woken`](Self::poll_woken) has tasks to poll.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.0.woken.is_any()
    }

    /// Polls every task that was woken before this call, in the order of their wake-ups. Returns
    /// their number.
    pub(crate) fn poll_woken(&self) -> usize {
        if !self.is_woken() {
            return 0;
        }
        let mut polled = 0;
        // A future may call this in turn: then there is no spare list.
        let mut woken = self.0.woken.take(self.0.spare.take());
        for &id in &woken {
            let task = self.0.table.borrow().get(id).cloned();
            if let Some(task) = task {
                self.0.poll(id, &task);
                polled += 1;
            }
        }
        if woken.capacity() <= KEPT_WAKES {
            woken.clear();
            self.0.spare.set(woken);
        }
        polled
    }

    /// Drops every future, and accepts no more. Their Deferreds fail with
    /// [`Abandoned`](super::Abandoned).
    pub(crate) fn close(&self) {
        self.0.closed.set(true);
        let tasks = self.0.table.borrow_mut().remove_all();
        for task in tasks {
            task.drop_future();
        }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").field("tasks", &self.len()).finish_non_exhaustive()
    }
}

impl Tasks {
    fn poll(&self, id: TaskId, task: &Rc<dyn SpawnedTask>) {
        if task.poll() {
            let done = self.table.borrow_mut().remove(id);
            drop(done);
        }
    }

    fn cancel(&self, id: TaskId) {
        let task = self.table.borrow_mut().remove(id);
        if let Some(task) = task {
            task.cancel();
        }
    }
}

/// A task, with the types of its future and output erased.
trait SpawnedTask {
    /// Polls the future. Returns `true` if it is done and its promise was fired.
    fn poll(&self) -> bool;

    /// Fires the promise with [`Cancelled`], and drops the future.
    fn cancel(&self);

    fn drop_future(&self);
}

struct Spawned<F, T: 'static> {
    /// `None` while the future is polled, and once it is done.
    future: Cell<Option<Pin<Box<F>>>>,
    stage: Cell<SpawnStage>,
    promise: Promise<T>,
    waker: Waker,
    wakes: Arc<TaskWaker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SpawnStage {
    Waiting,
    Polled,
    /// Its turn came again while it was being polled: it is woken once more afterwards.
    PolledAndWoken,
    Done,
}

impl<F: Future> Spawned<F, F::Output> {
    fn new(future: Pin<Box<F>>, promise: Promise<F::Output>, wakes: Arc<TaskWaker>) -> Rc<Self> {
        let (future, waker) = (Cell::new(Some(future)), Waker::from(Arc::clone(&wakes)));
        Rc::new(Self { future, stage: Cell::new(SpawnStage::Waiting), promise, waker, wakes })
    }
}

impl<F: Future> SpawnedTask for Spawned<F, F::Output> {
    fn poll(&self) -> bool {
        self.wakes.polled();
        let Some(mut future) = self.future.take() else {
            if self.stage.get() == SpawnStage::Polled {
                self.stage.set(SpawnStage::PolledAndWoken);
            }
            return false;
        };
        self.stage.set(SpawnStage::Polled);
        let polled = guarded(|| future.as_mut().poll(&mut Context::from_waker(&self.waker)));
        match (polled, self.stage.get()) {
            (Ok(Poll::Pending), SpawnStage::Polled | SpawnStage::PolledAndWoken) => {
                let woken = self.stage.replace(SpawnStage::Waiting) == SpawnStage::PolledAndWoken;
                self.future.set(Some(future));
                if woken {
                    self.waker.wake_by_ref();
                }
                return false;
            }
            // The future cancelled itself.
            (Ok(Poll::Pending), SpawnStage::Waiting | SpawnStage::Done) => drop_guarded("a future", future),
            (Ok(Poll::Ready(output)), _) => {
                drop_guarded("a future", future);
                // The future may have cancelled itself: then its promise was fired.
                let _ = self.promise.callback(output);
            }
            (Err(panic), _) => {
                drop_guarded("a future", future);
                let _ = self.promise.errback(panic);
            }
        }
        self.stage.set(SpawnStage::Done);
        true
    }

    fn cancel(&self) {
        self.drop_future();
        // The canceller is running, so the promise is unfired, and this fires it.
        let _ = self.promise.errback(Cancelled);
    }

    fn drop_future(&self) {
        self.stage.set(SpawnStage::Done);
        if let Some(future) = self.future.take() {
            drop_guarded("a future", future);
        }
    }
}
