//! Who may do something now, and who has to wait (Twisted: `DeferredLock`, `DeferredSemaphore`).

use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::wait_queue::WaitQueue;
use super::{Deferred, Outcome, maybe_deferred};

/// One at a time (Twisted: `DeferredLock`). A cheap handle; clones name the same lock. Those who wait get it in the order in
/// which they asked.
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
    /// A lock that nobody holds.
    pub fn new() -> Self {
        Self(DeferredSemaphore { wait_queue: WaitQueue::new([()]), limit: 1 })
    }

    /// The lock, when it is free (Twisted: `acquire`). Dropping the [`Permit`] releases it. Cancelling gives up the place in the
    /// queue.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Permit> {
        self.0.acquire()
    }

    /// Calls `call` when the lock is free, and holds it until what that returned has its result; it is released on a value, a
    /// failure, a panic and a cancel (Twisted: `run`).
    #[track_caller]
    pub fn run<R: Outcome>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Output> {
        self.0.run(call)
    }

    /// Whether somebody holds it (Twisted: `locked`).
    pub fn is_locked(&self) -> bool {
        self.0.tokens() == 0
    }

    /// How many wait for it (Twisted: `len(lock.waiting)`).
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

/// So many at a time (Twisted: `DeferredSemaphore`). A cheap handle; clones name the same semaphore. Those who wait get a token
/// in the order in which they asked.
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
    /// A semaphore with so many tokens.
    ///
    /// # Errors
    /// [`NoTokens`] if there are none: everybody would wait for ever.
    pub fn new(tokens: usize) -> Result<Self, NoTokens> {
        if tokens == 0 {
            return Err(NoTokens);
        }
        Ok(Self { wait_queue: WaitQueue::new(std::iter::repeat_n((), tokens)), limit: tokens })
    }

    /// A token, when there is one (Twisted: `acquire`). Dropping the [`Permit`] gives it back. Cancelling gives up the place in
    /// the queue.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<Permit> {
        let wait_queue = Rc::clone(&self.wait_queue);
        self.wait_queue.get().add_callback(|()| Ok(Permit(wait_queue)))
    }

    /// Calls `call` when there is a token, and holds that until what `call` returned has its result; it is given back on a
    /// value, a failure, a panic and a cancel (Twisted: `run`).
    #[track_caller]
    pub fn run<R: Outcome>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Output> {
        self.acquire().add_callback(move |permit| {
            maybe_deferred(call).add_both(move |result| {
                drop(permit);
                result
            })
        })
    }

    /// How many tokens are free (Twisted: `tokens`).
    pub fn tokens(&self) -> usize {
        self.wait_queue.idle()
    }

    /// How many tokens there are in all (Twisted: `limit`).
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many wait for a token (Twisted: `len(semaphore.waiting)`).
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

/// A lock that is held, or a token. Dropping it releases it (Twisted: `release`; releasing what is not held can't be written),
/// and whoever waits next has it before the drop is over.
#[must_use = "it is released when it is dropped"]
pub struct Permit(Rc<WaitQueue<()>>);

impl Permit {
    /// Releases it, as dropping it does (Twisted: `release`).
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

/// A semaphore of nothing was asked for (Twisted: a `ValueError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a semaphore needs a token at least")]
pub struct NoTokens;
