//! [`Aftermath`]: the work that one phase leaves for a later one, when nothing is borrowed and no callback is on the stack.

use std::cell::RefCell;
use std::vec;

use crate::transport::agenda::Id;
use crate::transport::settle::Later;
use crate::transport::step::CloseMode;

/// See the module. `C` is what calls at the end of a turn are given.
pub(super) struct Aftermath<C> {
    /// For phase 6 of the next turn: streams that hold bytes for a protocol that resumed.
    resumed: List<Id>,
    /// For phase 8: protocols and producers that are to be told of their queues, directions that were shut, and connections that are over.
    queue_notices: List<Id>,
    shut: List<Id>,
    lost: List<(Id, CloseMode)>,
    /// For the end of phase 8: calls that have to wait until no callback is on the stack.
    calls: List<Call<C>>,
}

/// Something to be done at the end of a turn.
type Call<C> = Box<dyn FnOnce(&C)>;

impl<C> Aftermath<C> {
    /// Keeps what the settling of a connection leaves.
    pub(super) fn leave(&self, id: Id, later: Later) {
        match later {
            Later::DeliverHeld => self.resumed.push(id),
            Later::TellOfQueue => self.queue_notices.push(id),
            Later::TellOfShut => self.shut.push(id),
            Later::Close(mode) => self.lost.push((id, mode)),
        }
    }

    /// Keeps a call for the end of the turn.
    pub(super) fn leave_call(&self, call: impl FnOnce(&C) + 'static) {
        self.calls.push(Box::new(call));
    }

    /// Takes the streams that hold bytes for a protocol that resumed.
    pub(super) fn take_resumed(&self) -> impl Iterator<Item = Id> {
        self.resumed.take()
    }

    /// Takes the connections whose protocols and producers are to be told of their queues.
    pub(super) fn take_queue_notices(&self) -> impl Iterator<Item = Id> {
        self.queue_notices.take()
    }

    /// Takes the connections whose own direction was shut.
    pub(super) fn take_shut(&self) -> impl Iterator<Item = Id> {
        self.shut.take()
    }

    /// Takes the connections that are over.
    pub(super) fn take_lost(&self) -> impl Iterator<Item = (Id, CloseMode)> {
        self.lost.take()
    }

    /// Takes the calls for the end of the turn.
    pub(super) fn take_calls(&self) -> impl Iterator<Item = Call<C>> {
        self.calls.take()
    }

    /// True if the next turn may not wait.
    pub(super) fn is_pressing(&self) -> bool {
        self.has_calls() || !self.resumed.is_empty()
    }

    /// True if calls wait for the end of the turn.
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }
}

impl<C> Default for Aftermath<C> {
    fn default() -> Self {
        Self {
            resumed: List::default(),
            queue_notices: List::default(),
            shut: List::default(),
            lost: List::default(),
            calls: List::default(),
        }
    }
}

/// A list that is added to while it is worked off.
struct List<T>(RefCell<Vec<T>>);

impl<T> List<T> {
    fn push(&self, item: T) {
        self.0.borrow_mut().push(item);
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes what the list has now, an item at a time. What a panic leaves of it goes back in front of what was added meanwhile.
    fn take(&self) -> Batch<'_, T> {
        Batch { items: self.0.take().into_iter(), list: self }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// See [`List::take`].
struct Batch<'a, T> {
    items: vec::IntoIter<T>,
    list: &'a List<T>,
}

impl<T> Iterator for Batch<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.items.next()
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        if self.items.len() > 0 {
            self.list.0.borrow_mut().splice(..0, self.items.by_ref());
        }
    }
}
