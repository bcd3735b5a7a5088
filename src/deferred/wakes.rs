//! [`Woken`] and [`TaskWaker`]: the part of a [`Spawner`](super::Spawner) that other threads share.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use super::task_table::TaskId;

/// The woken tasks, in order. Wakers on any thread share them with the spawner.
pub(super) struct Woken {
    tasks: Mutex<Vec<TaskId>>,
    /// Set if the list may be non-empty. The owner reads it in each turn, without taking the lock.
    any: AtomicBool,
    call: Box<dyn Fn() + Send + Sync>,
}

impl Woken {
    /// `call` is called when a task is woken and none was woken before, on the thread that wakes
    /// it.
    pub(super) fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self { tasks: Mutex::default(), any: AtomicBool::new(false), call: Box::new(call) }
    }

    /// Returns `true` if the list may be non-empty.
    pub(super) fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes the list, and leaves `empty` for later wake-ups.
    pub(super) fn take(&self, empty: Vec<TaskId>) -> Vec<TaskId> {
        let mut tasks = self.tasks();
        self.any.store(false, Ordering::Relaxed);
        mem::replace(&mut *tasks, empty)
    }

    fn push(&self, id: TaskId) {
        let mut tasks = self.tasks();
        tasks.push(id);
        let first = tasks.len() == 1;
        self.any.store(true, Ordering::Release);
        drop(tasks);
        if first {
            (self.call)();
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<TaskId>> {
        // No code panics while it holds the lock, so a poisoned one is consistent.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one task.
pub(super) struct TaskWaker {
    id: TaskId,
    /// The task is on the list, and was not polled since.
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl TaskWaker {
    pub(super) fn new(id: TaskId, woken: &Arc<Woken>) -> Arc<Self> {
        Arc::new(Self { id, queued: AtomicBool::new(false), woken: Arc::clone(woken) })
    }

    /// Records that the task is about to be polled: later wake-ups count again.
    pub(super) fn polled(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.woken.push(self.id);
        }
    }
}
