//! [`Aftermath`]: the work that one phase leaves for a later one, when nothing is borrowed and no callback is on the stack.

use std::cell::RefCell;
use std::vec;

use super::Core;
use crate::failure::guarded;
use crate::log::error;
use crate::transport::agenda::Id;
use crate::transport::settle::Later;
use crate::transport::step::CloseMode;

/// See the module.
#[derive(Default)]
pub(super) struct Aftermath {
    /// For phase 6 of the next turn: streams that hold bytes for a protocol that resumed.
    pub(super) resumed: List<Id>,
    /// For phase 8: protocols and producers that are to be told of their queues, directions that were shut, and connections that are over.
    pub(super) queue_notices: List<Id>,
    pub(super) shut: List<Id>,
    pub(super) lost: List<(Id, CloseMode)>,
    /// For the end of phase 8: calls that have to wait until no callback is on the stack.
    calls: List<Call>,
}

/// Something to be done at the end of a turn.
type Call = Box<dyn FnOnce(&Core)>;

impl Aftermath {
    /// Keeps what the settling of a connection leaves.
    pub(super) fn leave(&self, id: Id, later: Later) {
        match later {
            Later::DeliverHeld => self.resumed.push(id),
            Later::TellOfQueue => self.queue_notices.push(id),
            Later::TellOfShut => self.shut.push(id),
            Later::Close(mode) => self.lost.push((id, mode)),
        }
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

impl Core {
    /// Has something done at the end of this turn, or of the next if none is being made.
    pub(super) fn at_end_of_turn(&self, call: impl FnOnce(&Self) + 'static) {
        self.aftermath.calls.push(Box::new(call));
    }

    /// The end of phase 8. What these calls ask for in turn waits for the next one, so that a client that tries again at
    /// once does not hold up the loop.
    pub(super) fn end_turn(&self) {
        for call in self.aftermath.calls.take() {
            if let Err(failure) = guarded(|| call(self)) {
                error!(%failure, "a callback failed at the end of a turn");
            }
        }
    }
}

/// A list that is added to while it is worked off.
pub(super) struct List<T>(RefCell<Vec<T>>);

impl<T> List<T> {
    fn push(&self, item: T) {
        self.0.borrow_mut().push(item);
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes what the list has now, an item at a time. What a panic leaves of it goes back in front of what was added meanwhile.
    pub(super) fn take(&self) -> Batch<'_, T> {
        Batch { items: self.0.take().into_iter(), list: self }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// See [`List::take`].
pub(super) struct Batch<'a, T> {
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
