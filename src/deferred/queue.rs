//! A queue between producers of values and Deferreds that wait for them (Twisted: `DeferredQueue`).

use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::Deferred;
use super::wait_queue::WaitQueue;

/// A queue whose `get` returns a Deferred (Twisted: `DeferredQueue`). A cheap handle; clones name
/// the same queue.
///
/// Values leave in the order in which they were put. Waiting Deferreds get them in the order of
/// their calls to `get`.
///
/// ```
/// use ropewalk::deferred::DeferredQueue;
///
/// let queue = DeferredQueue::new();
/// let mut first = queue.get();
/// queue.put("a").unwrap();
/// queue.put("b").unwrap();
/// assert_eq!(first.take_result().unwrap().unwrap(), "a");
/// assert_eq!(queue.len(), 1);
/// ```
pub struct DeferredQueue<T: 'static> {
    wait_queue: Rc<WaitQueue<T>>,
    size: Option<usize>,
    backlog: Option<usize>,
}

impl<T> DeferredQueue<T> {
    /// Creates a queue without limits.
    pub fn new() -> Self {
        Self::with_limits(None, None)
    }

    /// Creates a queue that stores at most `size` values that no Deferred waits for, and lets at
    /// most `backlog` Deferreds wait. `None` is no limit (Twisted: the arguments of the same
    /// names).
    pub fn with_limits(size: Option<usize>, backlog: Option<usize>) -> Self {
        Self { wait_queue: WaitQueue::new([]), size, backlog }
    }

    /// Gives a value to the Deferred that has waited longest, otherwise stores it (Twisted: `put`).
    /// The callbacks of that Deferred run before this returns. If `put` is called from inside such
    /// a callback, they run after that callback has returned.
    ///
    /// # Errors
    /// [`QueueOverflow`] gives the value back: no Deferred waits, and `size` values are stored.
    pub fn put(&self, value: T) -> Result<(), QueueOverflow<T>> {
        let full = self.size.is_some_and(|size| self.wait_queue.idle() >= size) && self.wait_queue.waiters() == 0;
        if full {
            return Err(QueueOverflow(value));
        }
        self.wait_queue.put(value);
        Ok(())
    }

    /// Returns the next value, when there is one (Twisted: `get`). Fails at once with
    /// [`QueueUnderflow`] if the queue is empty and `backlog` Deferreds already wait. Cancelling
    /// the Deferred gives up its place in the queue.
    #[track_caller]
    pub fn get(&self) -> Deferred<T> {
        let refused =
            self.backlog.is_some_and(|backlog| self.wait_queue.waiters() >= backlog) && self.wait_queue.idle() == 0;
        if refused {
            return Deferred::fail(QueueUnderflow);
        }
        self.wait_queue.get()
    }

    /// Number of stored values (Twisted: `len(queue.pending)`).
    pub fn len(&self) -> usize {
        self.wait_queue.idle()
    }

    /// Returns `true` if no value is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of Deferreds that wait for a value (Twisted: `len(queue.waiting)`).
    pub fn waiting(&self) -> usize {
        self.wait_queue.waiters()
    }
}

impl<T> Default for DeferredQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for DeferredQueue<T> {
    fn clone(&self) -> Self {
        Self { wait_queue: Rc::clone(&self.wait_queue), size: self.size, backlog: self.backlog }
    }
}

impl<T> fmt::Debug for DeferredQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredQueue")
            .field("len", &self.len())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// The queue is full (Twisted: `QueueOverflow`). Holds the refused value.
#[derive(Error)]
#[error("the queue is full")]
pub struct QueueOverflow<T>(pub T);

impl<T> fmt::Debug for QueueOverflow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueOverflow")
    }
}

/// The queue is empty, and no further Deferred may wait for a value (Twisted: `QueueUnderflow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue is empty, and no further request may wait")]
pub struct QueueUnderflow;
