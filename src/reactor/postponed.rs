//! [`Postponed`]: requests to the backend that are made while it waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// The requests. A `C` is the argument of each.
pub(super) struct Postponed<C> {
    /// The loop waits between the program's hooks, and the backend is in use meanwhile.
    is_waiting: Cell<bool>,
    requests: RefCell<VecDeque<PostponedRequest<C>>>,
}

type PostponedRequest<C> = Box<dyn FnOnce(&C)>;

impl<C> Postponed<C> {
    /// Returns `true` while requests have to wait.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }

    pub(super) fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.set(is_waiting);
    }

    /// Keeps a request until the wait is over.
    pub(super) fn push(&self, request: impl FnOnce(&C) + 'static) {
        self.requests.borrow_mut().push_back(Box::new(request));
    }

    /// Takes the first request.
    pub(super) fn pop(&self) -> Option<PostponedRequest<C>> {
        self.requests.borrow_mut().pop_front()
    }
}

impl<C> Default for Postponed<C> {
    fn default() -> Self {
        Self { is_waiting: Cell::new(false), requests: RefCell::default() }
    }
}
