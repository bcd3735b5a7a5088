//! The table of watched sources by id, and the queue of sources to visit without a new event.

use std::io;
use std::mem;

use crate::reactor::paged_vec::PagedVec;
use crate::transport::id::Id;

/// Watched sources, and those of them that have work left.
pub(super) struct Table<S> {
    /// The sources, by slot of the reactor's table.
    entries: PagedVec<TableEntry<S>>,
    /// The source to visit again at once.
    current: Option<Id>,
    /// Sources that the previous turn left over, and the number of them that were visited.
    carried_over: Vec<Id>,
    next_carried: usize,
    /// Sources to visit in the next turn without a new event.
    requeued: Vec<Id>,
    /// Number of events for sources that were closed.
    stale: u64,
}

#[derive(Default)]
struct TableEntry<S> {
    generation: u32,
    /// True if the id is in `requeued` or `carried_over`.
    is_queued: bool,
    source: S,
}

/// The time of the next visit to a source without a new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requeue {
    No,
    /// At once: the source may have another event.
    Now,
    /// In the next turn: the source has used up its budget of this one.
    NextTurn,
}

/// Initial capacity of the lists, so that none grows in the middle of a quiet program.
const CAPACITY: usize = 64;

/// `S::default()` is a vacant source.
impl<S: Default> Table<S> {
    pub(super) fn new() -> Self {
        Self {
            entries: PagedVec::new(),
            current: None,
            carried_over: Vec::with_capacity(CAPACITY),
            next_carried: 0,
            requeued: Vec::with_capacity(CAPACITY),
            stale: 0,
        }
    }

    /// Calls `call` with each source.
    pub(super) fn each(&mut self, mut call: impl FnMut(Id, &mut S) -> io::Result<()>) -> io::Result<()> {
        for slot in 0..self.entries.len() as u32 {
            if let Some(entry) = self.entries.get_mut(slot) {
                call(Id { slot, generation: entry.generation }, &mut entry.source)?;
            }
        }
        Ok(())
    }

    /// Starts a turn: sources that the last turn left over are visited in this one, after those
    /// with new events.
    pub(super) fn begin_turn(&mut self) {
        self.carried_over.drain(..mem::take(&mut self.next_carried));
        self.carried_over.append(&mut self.requeued);
    }

    /// Returns `true` if no source is left over.
    pub(super) fn is_drained(&self) -> bool {
        self.requeued.is_empty() && self.carried_over.len() == self.next_carried
    }

    /// Records an event, and returns its source if it is to be visited now. A source that is queued
    /// for later, or has used up its budget of this turn, is not. `note` records the event, and
    /// returns `false` for a vacant source.
    pub(super) fn note(&mut self, id: Id, note: impl FnOnce(&mut S) -> bool) -> Option<Id> {
        if let Some(entry) = find(&mut self.entries, id)
            && note(&mut entry.source)
        {
            return (!entry.is_queued).then_some(id);
        }
        self.stale += 1;
        None
    }

    /// Returns the source of `id`, unless it is queued for later.
    #[inline(always)]
    pub(super) fn get_unless_queued(&mut self, id: Id) -> Option<&mut S> {
        find(&mut self.entries, id).filter(|entry| !entry.is_queued).map(|entry| &mut entry.source)
    }

    /// Returns `true` if a source is to be visited again before all others.
    #[inline(always)]
    pub(super) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Takes the next source to visit without a new event.
    pub(super) fn next_queued(&mut self) -> Option<Id> {
        if let Some(id) = self.current.take() {
            return Some(id);
        }
        let id = *self.carried_over.get(self.next_carried)?;
        self.next_carried += 1;
        Some(id)
    }

    /// Records a visit to a source, and when the next one is due.
    pub(super) fn requeue(&mut self, id: Id, requeue: Requeue) {
        if let Some(entry) = find(&mut self.entries, id) {
            entry.is_queued = requeue == Requeue::NextTurn;
        }
        match requeue {
            Requeue::No => {}
            Requeue::Now => self.current = Some(id),
            Requeue::NextTurn => self.requeued.push(id),
        }
    }

    /// Returns the number of events for closed sources.
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    /// Counts an event for a closed source.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(super) fn count_stale(&mut self) {
        self.stale += 1;
    }

    pub(super) fn insert(&mut self, id: Id, source: S) {
        while self.entries.len() <= id.slot as usize {
            self.entries.push(TableEntry::default());
        }
        if let Some(entry) = self.entries.get_mut(id.slot) {
            *entry = TableEntry { generation: id.generation, is_queued: false, source };
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&S> {
        let entry = self.entries.get(id.slot).filter(|entry| entry.generation == id.generation)?;
        Some(&entry.source)
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut S> {
        find(&mut self.entries, id).map(|entry| &mut entry.source)
    }

    pub(super) fn take(&mut self, id: Id) -> S {
        self.get_mut(id).map(mem::take).unwrap_or_default()
    }

    /// Queues `id` for a visit in the next turn.
    pub(super) fn requeue_next_turn(&mut self, id: Id) {
        if find(&mut self.entries, id).is_some_and(|entry| !mem::replace(&mut entry.is_queued, true)) {
            self.requeued.push(id);
        }
    }
}

/// Returns the entry of `id`, unless its slot was reused.
#[inline(always)]
fn find<S: Default>(entries: &mut PagedVec<TableEntry<S>>, id: Id) -> Option<&mut TableEntry<S>> {
    entries.get_mut(id.slot).filter(|entry| entry.generation == id.generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::backend::tests::ID;

    /// Visited sources leave the list, and each event for a closed source is counted.
    #[test]
    fn nothing_piles_up() {
        let mut table = Table::<u8>::new();
        table.insert(ID, 1);
        for turn in 1..=100 {
            table.requeue_next_turn(ID);
            assert!(!table.is_drained() && table.get_unless_queued(ID).is_none());
            table.begin_turn();
            assert_eq!(table.note(ID, |_| true), None, "it is queued for later");
            assert_eq!(table.note(ID, |_| false), None);
            assert_eq!(table.note(Id { generation: ID.generation + 1, ..ID }, |_| true), None);
            assert_eq!(table.next_queued(), Some(ID));
            table.requeue(ID, Requeue::No);
            assert_eq!((table.next_queued(), table.note(ID, |_| true)), (None, Some(ID)));
            assert!(table.carried_over.len() <= 1, "{} are queued", table.carried_over.len());
            assert_eq!(table.stale(), 2 * turn);
        }
        table.requeue(ID, Requeue::Now);
        assert!(table.has_current() && table.next_queued() == Some(ID) && !table.has_current());
    }
}
