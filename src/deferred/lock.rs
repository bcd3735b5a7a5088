//! Limits on concurrent operations: a lock and a semaphore (Twisted: `DeferredLock`,
//! `DeferredSemaphore`).

use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::wait_queue::WaitQueue;
use super::{Deferred, Outcome, maybe_deferred};

/// A lock that one operation holds at a time (Twisted: `DeferredLock`). A cheap handle; clones name
/// the same lock. Waiting operations get it in the order of their requests.
///
/// ```
/// use ropewalk::deferred::{DeferredLock, Promise};
///
/// let lock = DeferredLock::new();
/// let (written, write) = Promise::<()>::new();
/// let first = lock.run(move || write);
/// let second = lock.run(|| Ok("its turn"));
/// assert!(!second.is_called());
/// written.callback(()).unwrap();
/// assert!(second.is_called());
/// # drop((first, second));
/// ```
#[derive(Clone)]
pub struct DeferredLock(DeferredSemaphore);

impl DeferredLock {
    /// Creates a lock that is free.
    pub fn new() -> Self {
        Self(DeferredSemaphore { wait_queue: WaitQueue::new([()]), limit: 1 })
    }

    /// Acquires the lock as soon as it is free (Twisted: `acquire`). Dropping the [`Permit`]
    /// releases it. Cancelling the Deferred gives up its place in the queue.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Permit> {
        self.0.acquire()
    }

    /// Calls `call` when the lock is free, and holds the lock until the outcome of `call` has its
    /// result (Twisted: `run`). The lock is released on a value, a failure, a panic and a
    /// cancellation.
    #[track_caller]
    pub fn run<R: Outcome>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Output> {
        self.0.run(call)
    }

    /// Returns `true` if the lock is held (Twisted: `locked`).
    pub fn is_locked(&self) -> bool {
        self.0.tokens() == 0
    }

    /// Number of Deferreds that wait for the lock (Twisted: `len(lock.waiting)`).
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }
}

impl Default for DeferredLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DeferredLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DeferredLock");
        shown.field("locked", &self.is_locked()).field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// A semaphore: it limits the number of concurrent operations (Twisted: `DeferredSemaphore`). A
/// cheap handle; clones name the same semaphore. Waiting operations get a token in the order of
/// their requests.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::deferred::{DeferredSemaphore, gather_results};
///
/// /// At most three fetches at once.
/// fn fetch_all(urls: Vec<String>, fetch: fn(String) -> Deferred<Vec<u8>>) -> Deferred<Vec<Vec<u8>>> {
///     let three = DeferredSemaphore::new(3).expect("three is not zero");
///     gather_results(urls.into_iter().map(|url| three.run(move || fetch(url))))
/// }
/// ```
#[derive(Clone)]
pub struct DeferredSemaphore {
    wait_queue: Rc<WaitQueue<()>>,
    limit: usize,
}

impl DeferredSemaphore {
    /// Creates a semaphore with `tokens` tokens.
    ///
    /// # Errors
    /// [`NoTokens`] if `tokens` is 0: every request would wait for ever.
    pub fn new(tokens: usize) -> Result<Self, NoTokens> {
        if tokens == 0 {
            return Err(NoTokens);
        }
        Ok(Self { wait_queue: WaitQueue::new(std::iter::repeat_n((), tokens)), limit: tokens })
    }

    /// Acquires a token as soon as one is free (Twisted: `acquire`). Dropping the [`Permit`] gives
    /// it back. Cancelling the Deferred gives up its place in the queue.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Permit> {
        let wait_queue = Rc::clone(&self.wait_queue);
        self.wait_queue.get().add_callback(|()| Ok(Permit(wait_queue)))
    }

    /// Calls `call` when a token is free, and holds the token until the outcome of `call` has its
    /// result (Twisted: `run`). The token is given back on a value, a failure, a panic and a
    /// cancellation.
    #[track_caller]
    pub fn run<R: Outcome>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Output> {
        self.acquire().add_callback(move |permit| {
            maybe_deferred(call).add_both(move |result| {
                drop(permit);
                result
            })
        })
    }

    /// Number of free tokens (Twisted: `tokens`).
    pub fn tokens(&self) -> usize {
        self.wait_queue.idle()
    }

    /// Total number of tokens (Twisted: `limit`).
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Number of Deferreds that wait for a token (Twisted: `len(semaphore.waiting)`).
    pub fn waiting(&self) -> usize {
        self.wait_queue.waiters()
    }
}

impl fmt::Debug for DeferredSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DeferredSemaphore");
        shown.field("tokens", &self.tokens()).field("limit", &self.limit).field("waiting", &self.waiting());
        shown.finish_non_exhaustive()
    }
}

/// A held lock, or a token. Dropping it releases it (Twisted: `release`; releasing a lock that is
/// not held does not compile). The next waiting operation has it before the drop returns.
#[must_use = "it is released when it is dropped"]
pub struct Permit(Rc<WaitQueue<()>>);

impl Permit {
    /// Releases the lock or the token, as dropping it does (Twisted: `release`).
    pub fn release(self) {}
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.put(());
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// A semaphore without tokens was requested (Twisted: a `ValueError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a semaphore needs at least one token")]
pub struct NoTokens;
