//! [`Aftermath`]: the work that one phase leaves for a later one, when nothing is borrowed and no
//! callback is on the stack.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::transport::id::Id;
use crate::transport::settle::Later;
use crate::transport::step::CloseMode;

/// The lists of the module. A `C` is the argument of the calls at the end of a turn.
pub(super) struct Aftermath<C> {
    /// For phase 6 of the next turn: streams that hold bytes for a protocol that resumed.
    resumed: EndOfTurnList<Id>,
    /// For phase 8: protocols and producers with news about their queues, directions that were
    /// shut, and connections that are over.
    queue_notices: EndOfTurnList<Id>,
    shut: EndOfTurnList<Id>,
    lost: EndOfTurnList<(Id, CloseMode)>,
    /// For the end of phase 8: calls that must wait until no callback is on the stack.
    calls: EndOfTurnList<EndOfTurnCall<C>>,
}

/// A call at the end of a turn.
type EndOfTurnCall<C> = Box<dyn FnOnce(&C)>;

impl<C> Aftermath<C> {
    /// Stores the work that the settling of a connection has left.
    pub(super) fn push(&self, id: Id, later: Later) {
        match later {
            Later::DeliverHeld => self.resumed.push(id),
            Later::TellOfQueue => self.queue_notices.push(id),
            Later::TellOfShut => self.shut.push(id),
            Later::Close(mode) => self.lost.push((id, mode)),
        }
    }

    /// Stores a call for the end of the turn.
    pub(super) fn push_call(&self, call: impl FnOnce(&C) + 'static) {
        self.calls.push(Box::new(call));
    }

    /// Returns `true` if there are such streams as [`take_resumed`](Self::take_resumed) takes.
    #[inline]
    pub(super) fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// Takes the streams that hold bytes for a protocol that resumed.
    pub(super) fn take_resumed(&self) -> impl Iterator<Item = Id> {
        self.resumed.take()
    }

    /// Takes the connections with news about their queues for protocols and producers.
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
    pub(super) fn take_calls(&self) -> impl Iterator<Item = EndOfTurnCall<C>> {
        self.calls.take()
    }

    /// Returns `true` if the next turn must not wait.
    pub(super) fn forbids_waiting(&self) -> bool {
        self.has_calls() || self.has_resumed()
    }

    /// Returns `true` if calls wait for the end of the turn.
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }
}

impl<C> Default for Aftermath<C> {
    fn default() -> Self {
        Self {
            resumed: EndOfTurnList::default(),
            queue_notices: EndOfTurnList::default(),
            shut: EndOfTurnList::default(),
            lost: EndOfTurnList::default(),
            calls: EndOfTurnList::default(),
        }
    }
}

/// A list that may grow while it is processed. It keeps its capacity.
struct EndOfTurnList<T>(RefCell<VecDeque<T>>);

impl<T> EndOfTurnList<T> {
    fn push(&self, item: T) {
        self.0.borrow_mut().push_back(item);
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes the present items of the list, one at a time. Items that are added later stay for the
    /// next batch, and so do the items that a panic leaves.
    fn take(&self) -> impl Iterator<Item = T> {
        let count = self.0.borrow().len();
        (0..count).map_while(|_| self.0.borrow_mut().pop_front())
    }
}

impl<T> Default for EndOfTurnList<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch ends where the list ended when it was taken, even if it is not fully consumed.
    #[test]
    fn later_items_wait_for_the_next_batch() {
        let list = EndOfTurnList::default();
        list.push(1);
        list.push(2);
        let taken: Vec<i32> = list.take().inspect(|item| list.push(item + 10)).collect();
        assert_eq!(taken, [1, 2]);
        assert_eq!(list.take().next(), Some(11));
        list.push(13);
        assert_eq!(list.take().collect::<Vec<_>>(), [12, 13]);
        assert!(list.is_empty() && list.take().next().is_none());
    }
}
