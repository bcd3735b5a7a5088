//! [`WaitQueue`]: things on one side, those who wait for one on the other; what locks, semaphores and queues have in common.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Cancelled, Deferred, Promise};

/// Hands things out in the order in which they came, to those who wait in the order in which they came.
pub(super) struct WaitQueue<T: 'static> {
    items: RefCell<VecDeque<T>>,
    waiting: RefCell<VecDeque<Waiter<T>>>,
    tickets: Cell<u64>,
    /// Somebody is being given something. What is put meanwhile, from inside of that, is given afterwards: the stack stays as
    /// deep as it is, however long those wait who put something back at once.
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

    /// Things that nobody waits for.
    pub(super) fn idle(&self) -> usize {
        self.items.borrow().len().saturating_sub(self.waiting.borrow().len())
    }

    /// Those for whom there is nothing.
    pub(super) fn waiters(&self) -> usize {
        self.waiting.borrow().len().saturating_sub(self.items.borrow().len())
    }

    /// Puts a thing there, and gives it to whoever waits, before this returns unless it is called from inside of a giving.
    pub(super) fn put(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        if self.giving.replace(true) {
            return;
        }
        let _giving = ReentryFlag(&self.giving);
        while let Some((item, promise)) = self.pair() {
            // It is unfired: cancelling takes it out of the list.
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

    /// A thing, when there is one. Cancelling gives up the place in the queue.
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
                // Its canceller runs, so it is unfired.
                let _ = promise.errback(Cancelled);
            }
        });
        self.waiting.borrow_mut().push_back(Waiter { ticket, promise });
        item
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
