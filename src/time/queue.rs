//! The queue of pending calls: a heap, and the calls that are too new for it.
//!
//! Invariants:
//!
//! - The order is that of (deadline, sequence number). A call gets the next sequence number when it
//!   is added and again whenever it is moved, so calls with equal deadlines stand in the order of
//!   their last scheduling.
//! - No deadline is put before the latest turn's beginning (`floor`). So every call that arrives
//!   after a turn began stands behind the due calls of that turn, and the first call alone tells if
//!   the turn is over.
//! - A new call waits in a short list, in no order (`fresh`). The calls of the list enter the heap
//!   when a turn begins, or when the next deadline is asked for. So a call that is cancelled in the
//!   turn that scheduled it costs the heap nothing.
//! - Every call stores its position, in the heap or in the list. Cancelling takes the call out, for
//!   good.
//!
//! The queue never runs or drops a function: entries hold counted references, and callers get
//! theirs back.

use std::mem;
use std::rc::Rc;

use super::call::{Body, TimedCall};
use super::heap::{CHUNK, Heap, HeapEntry, ROOT};
use super::nanos::Nanos;

/// The pending calls of one clock, in order.
#[derive(Default)]
pub(super) struct Queue {
    heap: Heap,
    /// The newest calls, at most [`FRESH_MOST`]. None of them is part of the latest turn.
    fresh: Vec<HeapEntry>,
    next_sequence: u64,
    /// Beginning of the latest turn.
    floor: Nanos,
    closed: bool,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.heap.len() + self.fresh.len()
    }

    pub(super) fn next_deadline(&mut self) -> Option<Nanos> {
        self.sort_in();
        self.heap.first().map(|entry| entry.at)
    }

    /// Adds a call. Returns `false` if the queue is closed, and does not take the call then.
    #[must_use]
    pub(super) fn push(&mut self, at: Nanos, call: Rc<TimedCall<dyn Body>>) -> bool {
        if self.closed {
            return false;
        }
        let (at, sequence) = (at.max(self.floor), self.sequence());
        if self.fresh.len() < FRESH_MOST {
            call.placed(FRESH | self.fresh.len());
            self.fresh.push(HeapEntry { at, sequence, call: Some(call) });
        } else {
            self.heap.push(HeapEntry { at, sequence, call: Some(call) });
        }
        true
    }

    /// Takes out the call at `position`, and returns its deadline.
    pub(super) fn remove(&mut self, position: usize) -> Nanos {
        if position & FRESH == 0 {
            return self.heap.remove(position).at;
        }
        let index = position & !FRESH;
        let removed = self.fresh.swap_remove(index);
        if let Some(HeapEntry { call: Some(call), .. }) = self.fresh.get(index) {
            call.placed(position);
        }
        removed.at
    }

    /// Gives the call at `position` another deadline, computed from the present one.
    pub(super) fn reschedule(&mut self, position: usize, at: impl FnOnce(Nanos) -> Nanos) {
        let (at, sequence) = (at(self.deadline(position)).max(self.floor), self.sequence());
        if position & FRESH == 0 {
            self.heap.rekey(position, at, sequence);
        } else {
            let entry = &mut self.fresh[position & !FRESH];
            (entry.at, entry.sequence) = (at, sequence);
        }
    }

    /// Returns the deadline of the call at `position`.
    pub(super) fn deadline(&self, position: usize) -> Nanos {
        if position & FRESH == 0 { self.heap.at(position).at } else { self.fresh[position & !FRESH].at }
    }

    /// Begins a turn. Calls with the returned sequence number, or a later one, are not part of it.
    pub(super) fn begin(&mut self, now: Nanos) -> u64 {
        self.sort_in();
        self.floor = self.floor.max(now);
        self.next_sequence
    }

    /// Takes out the first call, if it is due `now` and older than `limit`, with its deadline.
    pub(super) fn pop(&mut self, now: Nanos, limit: u64) -> Option<(Nanos, Rc<TimedCall<dyn Body>>)> {
        let first = self.heap.first()?;
        if first.at > now || first.sequence >= limit {
            return None;
        }
        let HeapEntry { at, call, .. } = self.heap.remove(ROOT);
        Some((at, call.expect("an entry in the heap holds its call")))
    }

    /// Returns every call, in order.
    pub(super) fn calls(&self) -> Vec<Rc<TimedCall<dyn Body>>> {
        let mut entries: Vec<&HeapEntry> = self.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.key());
        entries.into_iter().filter_map(|entry| entry.call.clone()).collect()
    }

    /// Closes the queue, which takes no more calls, and cancels the pending ones. The caller drops
    /// their functions.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Rc<TimedCall<dyn Body>>> + use<> {
        self.closed = true;
        for entry in self.entries() {
            if let Some(call) = &entry.call {
                call.cancelled(entry.at);
            }
        }
        let (heap, fresh) = (mem::take(&mut self.heap), mem::take(&mut self.fresh));
        heap.into_entries().chain(fresh).filter_map(|entry| entry.call)
    }

    fn entries(&self) -> impl Iterator<Item = &HeapEntry> {
        self.heap.entries().chain(&self.fresh)
    }

    /// Moves the new calls into the heap.
    #[inline]
    fn sort_in(&mut self) {
        if !self.fresh.is_empty() {
            self.sort_fresh_in();
        }
    }

    #[inline(never)]
    fn sort_fresh_in(&mut self) {
        for entry in self.fresh.drain(..) {
            self.heap.push(entry);
        }
    }

    fn sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }
}

/// Marks a position in the list of new calls. A [`CallStage`](super::call) keeps a position without
/// its two highest bits.
const FRESH: usize = 1 << (usize::BITS - 3);

/// Number of new calls that the list takes, those of a chunk. A turn that schedules more puts them
/// into the heap at once, so that no turn begins with an unbounded number of them.
const FRESH_MOST: usize = CHUNK;

#[cfg(test)]
impl Queue {
    /// The positions of all calls, by sequence number.
    pub(super) fn places(&self) -> std::collections::HashMap<u64, usize> {
        let place = |entry: &HeapEntry| entry.call.as_ref().and_then(|call| call.place());
        self.entries().filter_map(|entry| Some((entry.sequence, place(entry)?))).collect()
    }

    pub(super) fn pieces(&self) -> usize {
        self.heap.pieces()
    }

    /// Asserts the invariants that every method relies on.
    pub(super) fn check(&self) {
        self.heap.check();
        for (index, entry) in self.fresh.iter().enumerate() {
            let call = entry.call.as_ref().expect("vacant");
            assert_eq!(call.place(), Some(FRESH | index), "a new call stores another position");
            assert!(entry.at >= self.floor, "a new call has a deadline before the latest turn");
        }
        assert!(self.fresh.len() <= FRESH_MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The memory of a timer is an entry of four words and one allocation: two counts, the stage,
    /// the function.
    #[test]
    fn a_pending_call_is_small() {
        let counted = Rc::new(0);
        let call = TimedCall::new(move || drop(counted));
        assert_eq!(size_of::<HeapEntry>(), 32);
        assert_eq!(size_of_val(&*call), 16);
        assert_eq!(size_of::<Option<Cell<Option<Rc<()>>>>>(), 16, "a function that holds one Rc costs one word");
    }
}
