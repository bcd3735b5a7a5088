//! A queue between those who have something and those who wait for it (Twisted: `DeferredQueue`).

use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::Deferred;
use super::wait_queue::WaitQueue;

/// A queue whose `get` is a Deferred (Twisted: `DeferredQueue`). A cheap handle; clones name the same queue.
///
/// Values go out in the order in which they came in, to those who wait in the order in which they asked.
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
    /// A queue without limits.
    pub fn new() -> Self {
        Self::with_limits(None, None)
    }

    /// A queue that keeps at most `size` values that nobody has asked for, and lets at most `backlog` wait; `None` is no limit
    /// (Twisted: the arguments of the same names).
    pub fn with_limits(size: Option<usize>, backlog: Option<usize>) -> Self {
        Self { wait_queue: WaitQueue::new([]), size, backlog }
    }

    /// Gives a value to whoever has waited longest, whose callbacks run before this returns (or, called from inside of them,
    /// after they have returned); otherwise keeps it (Twisted: `put`).
    ///
    /// # Errors
    /// [`QueueOverflow`] gives the value back: nobody waits, and as many are kept as may be.
    pub fn put(&self, value: T) -> Result<(), QueueOverflow<T>> {
        let full = self.size.is_some_and(|size| self.wait_queue.idle() >= size) && self.wait_queue.waiters() == 0;
        if full {
            return Err(QueueOverflow(value));
        }
        self.wait_queue.put(value);
        Ok(())
    }

    /// The next value, when there is one (Twisted: `get`). Fails at once with [`QueueUnderflow`] if there is none, and as many
    /// wait as may. Cancelling gives up the place in the queue.
    #[track_caller]
    pub fn get(&self) -> Deferred<T> {
        let refused =
            self.backlog.is_some_and(|backlog| self.wait_queue.waiters() >= backlog) && self.wait_queue.idle() == 0;
        if refused {
            return Deferred::fail(QueueUnderflow);
        }
        self.wait_queue.get()
    }

    /// How many values are kept (Twisted: `len(queue.pending)`).
    pub fn len(&self) -> usize {
        self.wait_queue.idle()
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait for a value (Twisted: `len(queue.waiting)`).
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

/// The queue is full (Twisted: `QueueOverflow`). Holds the value that was not taken.
#[derive(Error)]
#[error("the queue is full")]
pub struct QueueOverflow<T>(pub T);

impl<T> fmt::Debug for QueueOverflow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueOverflow")
    }
}

/// The queue is empty, and no more may wait for a value (Twisted: `QueueUnderflow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue is empty, and as many wait as may")]
pub struct QueueUnderflow;
