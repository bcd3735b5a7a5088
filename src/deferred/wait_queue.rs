//! [`WaitQueue`]: items on one side, waiters on the other. Locks, semaphores and queues are built
//! on it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Cancelled, Deferred, Promise};
use crate::failure::Failure;

/// Hands out items in the order in which they were put, to waiters in the order in which they
/// asked.
pub(super) struct WaitQueue<T: 'static> {
    items: RefCell<VecDeque<T>>,
    waiting: RefCell<VecDeque<Waiter<T>>>,
    tickets: Cell<u64>,
    /// Set while an item is handed to a waiter. Items put from inside its callbacks are handed out
    /// afterwards, so that the stack does not grow, however many waiters put their item back at
    /// once.
    giving: Cell<bool>,
}

struct Waiter<T: 'static> {
    ticket: u64,
    promise: Promise<T>,
}

impl<T> WaitQueue<T> {
    pub(super) fn new(items: impl IntoIterator<Item = T>) -> Rc<Self> {
        Rc::new(Self {
            items: RefCell::new(items.into_iter().collect()),
            waiting: RefCell::default(),
            tickets: Cell::new(0),
            giving: Cell::new(false),
        })
    }

    /// Number of items that no waiter has asked for.
    pub(super) fn idle(&self) -> usize {
        self.items.borrow().len().saturating_sub(self.waiting.borrow().len())
    }

    /// Number of waiters without an item.
    pub(super) fn waiters(&self) -> usize {
        self.waiting.borrow().len().saturating_sub(self.items.borrow().len())
    }

    /// Adds an item, and hands it to the first waiter before this returns. Called from inside a
    /// callback of a waiter, it returns first, and the item is handed over afterwards.
    pub(super) fn put(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        if self.giving.replace(true) {
            return;
        }
        let _giving = ReentryFlag(&self.giving);
        while let Some((item, promise)) = self.pair() {
            // The promise is unfired: a cancelled waiter leaves the queue.
            let _ = promise.callback(item);
        }
    }

    fn pair(&self) -> Option<(T, Promise<T>)> {
        let (mut items, mut waiting) = (self.items.borrow_mut(), self.waiting.borrow_mut());
        if waiting.is_empty() {
            return None;
        }
        let item = items.pop_front()?;
        let first = waiting.pop_front()?;
        Some((item, first.promise))
    }

    /// Returns an item, as soon as there is one. Cancelling the Deferred gives up its place in the
    /// queue.
    #[track_caller]
    pub(super) fn get(self: &Rc<Self>) -> Deferred<T> {
        if self.waiting.borrow().is_empty()
            && let Some(item) = self.items.borrow_mut().pop_front()
        {
            return Deferred::succeed(item);
        }
        let ticket = self.tickets.replace(self.tickets.get() + 1);
        let wait_queue = Rc::downgrade(self);
        let (promise, item) = Promise::with_canceller(move || {
            let left = wait_queue.upgrade().and_then(|wait_queue| wait_queue.leave(ticket));
            if let Some(promise) = left {
                // The canceller is running, so the promise is unfired.
                let _ = promise.errback(Cancelled);
            }
        });
        self.waiting.borrow_mut().push_back(Waiter { ticket, promise });
        item
    }

    /// Fails the waiters that no item is there for, in their order. Waiters with an item get it
    /// after the callback that is under way.
    pub(super) fn fail_waiters(&self, failure: &Failure) {
        let served = self.items.borrow().len().min(self.waiting.borrow().len());
        let failed = self.waiting.borrow_mut().split_off(served);
        for waiter in failed {
            // The callbacks of a waiter before it may have cancelled this one.
            let _ = waiter.promise.errback(failure.clone());
        }
    }

    fn leave(&self, ticket: u64) -> Option<Promise<T>> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()?;
        waiting.remove(place).map(|waiting| waiting.promise)
    }
}

struct ReentryFlag<'a>(&'a Cell<bool>);

impl Drop for ReentryFlag<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
