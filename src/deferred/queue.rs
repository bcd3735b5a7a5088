//! A queue between producers of values and Deferreds that wait for them (Twisted: `DeferredQueue`).

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::Deferred;
use super::wait_queue::WaitQueue;
use crate::failure::Failure;

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
///
/// A queue that is [closed](Self::close) hands out its stored values, and then the failure that it
/// was closed with.
pub struct DeferredQueue<T: 'static>(Rc<Queue<T>>);

struct Queue<T: 'static> {
    wait_queue: Rc<WaitQueue<T>>,
    size: Option<usize>,
    backlog: Option<usize>,
    closed: OnceCell<Failure>,
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
        Self(Rc::new(Queue { wait_queue: WaitQueue::new([]), size, backlog, closed: OnceCell::new() }))
    }

    /// Gives a value to the Deferred that has waited longest, otherwise stores it (Twisted: `put`).
    /// The callbacks of that Deferred run before this returns. If `put` is called from inside such
    /// a callback, they run after that callback has returned.
    ///
    /// # Errors
    /// [`PutError`] gives the value back: the queue is closed, or no Deferred waits and `size`
    /// values are stored.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        if self.is_closed() {
            return Err(PutError::Closed(value));
        }
        let queue = &self.0.wait_queue;
        if self.0.size.is_some_and(|size| queue.idle() >= size) && queue.waiters() == 0 {
            return Err(PutError::Full(value));
        }
        queue.put(value);
        Ok(())
    }

    /// Returns the next value, when there is one (Twisted: `get`). Cancelling the Deferred gives up
    /// its place in the queue.
    ///
    /// # Errors
    /// If no value is stored, the Deferred fails at once
    /// - with the failure that the queue was [closed](Self::close) with, or
    /// - with [`QueueUnderflow`], if `backlog` Deferreds already wait.
    #[track_caller]
    pub fn get(&self) -> Deferred<T> {
        let queue = &self.0.wait_queue;
        if queue.idle() == 0 {
            if let Some(failure) = self.0.closed.get() {
                return Deferred::fail(failure.clone());
            }
            if self.0.backlog.is_some_and(|backlog| queue.waiters() >= backlog) {
                return Deferred::fail(QueueUnderflow);
            }
        }
        queue.get()
    }

    /// Ends the queue (Twisted has no counterpart): the Deferreds that wait fail with `failure`, in
    /// their order, before this returns. Values that are stored can still be taken. Later calls to
    /// [`get`](Self::get) fail with `failure` too, and [`put`](Self::put) is refused.
    ///
    /// Returns `false` if the queue is closed already. The first failure stays.
    ///
    /// ```
    /// use ropewalk::deferred::{DeferredQueue, PutError};
    ///
    /// let queue = DeferredQueue::new();
    /// queue.put("the last one").unwrap();
    /// queue.close("the connection was lost");
    /// assert!(matches!(queue.put("too late"), Err(PutError::Closed("too late"))));
    /// assert_eq!(queue.get().take_result().unwrap().unwrap(), "the last one");
    /// assert_eq!(queue.get().take_result().unwrap().unwrap_err().to_string(), "the connection was lost");
    /// ```
    pub fn close(&self, failure: impl Into<Failure>) -> bool {
        let failure = failure.into();
        let is_first = self.0.closed.set(failure.clone()).is_ok();
        if is_first {
            self.0.wait_queue.fail_waiters(&failure);
        }
        is_first
    }

    /// Returns `true` once the queue is [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.0.closed.get().is_some()
    }

    /// Number of stored values (Twisted: `len(queue.pending)`).
    pub fn len(&self) -> usize {
        self.0.wait_queue.idle()
    }

    /// Returns `true` if no value is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of Deferreds that wait for a value (Twisted: `len(queue.waiting)`).
    pub fn waiting(&self) -> usize {
        self.0.wait_queue.waiters()
    }
}

impl<T> Default for DeferredQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for DeferredQueue<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> fmt::Debug for DeferredQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredQueue")
            .field("len", &self.len())
            .field("waiting", &self.waiting())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// A queue took no value. Holds the refused value.
#[derive(Error)]
#[non_exhaustive]
pub enum PutError<T> {
    /// No Deferred waits, and as many values are stored as may be (Twisted: `QueueOverflow`).
    #[error("the queue is full")]
    Full(T),
    /// The queue was [closed](DeferredQueue::close).
    #[error("the queue is closed")]
    Closed(T),
}

impl<T> PutError<T> {
    /// Returns the refused value.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "PutError::Full",
            Self::Closed(_) => "PutError::Closed",
        })
    }
}

/// The queue is empty, and no further Deferred may wait for a value (Twisted: `QueueUnderflow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue is empty, and no further request may wait")]
pub struct QueueUnderflow;
