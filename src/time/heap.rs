//! An indexed sixteen-way heap of pending calls, in chunks.
//!
//! Invariants:
//!
//! - Every call stores its position, and each step of the heap updates it. Cancelling takes the
//!   call out, for good.
//! - Entries live in chunks of [`CHUNK`]. So neither growing nor shrinking ever copies the whole,
//!   and memory is freed chunk by chunk. One empty chunk is kept, so that a heap whose length goes
//!   up and down does not pay for each change.
//!
//! Positions: the root is at 15, and the children of `p` are at `16p - 224` to `16p - 209`. The
//! fifteen unused positions in front let every group of sixteen start at a multiple of sixteen,
//! inside one chunk and on as few cache lines as possible.

use std::rc::Rc;

use super::call::{Body, TimedCall};
use super::nanos::Nanos;

/// The heap itself, which knows keys and positions but no turns.
#[derive(Default)]
pub(super) struct Heap {
    /// All full but the last one in use. Behind it at most one empty chunk.
    chunks: Vec<Vec<HeapEntry>>,
    /// Number of positions in use, including the unused ones in front; zero before the first call.
    end: usize,
}

impl Heap {
    pub(super) fn len(&self) -> usize {
        self.end.saturating_sub(ROOT)
    }

    pub(super) fn first(&self) -> Option<&HeapEntry> {
        (self.end > ROOT).then(|| self.at(ROOT))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &HeapEntry> {
        self.chunks.iter().flatten().skip(ROOT)
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = HeapEntry> {
        self.chunks.into_iter().flatten().skip(ROOT)
    }

    pub(super) fn push(&mut self, entry: HeapEntry) {
        while self.end < ROOT {
            self.append(HeapEntry::VACANT);
        }
        self.append(HeapEntry::VACANT);
        self.rise(self.end - 1, entry);
    }

    pub(super) fn remove(&mut self, position: usize) -> HeapEntry {
        let last = self.cut();
        if position == self.end {
            return last;
        }
        let removed = self.take(position);
        self.settle(position, last);
        removed
    }

    pub(super) fn rekey(&mut self, position: usize, at: Nanos, sequence: u64) {
        let entry = HeapEntry { at, sequence, ..self.take(position) };
        self.settle(position, entry);
    }

    /// Places an entry in order, starting at a vacant position whose subtree is in order.
    fn settle(&mut self, hole: usize, entry: HeapEntry) {
        if hole > ROOT && entry.key() < self.at(parent(hole)).key() {
            self.rise(hole, entry);
        } else {
            self.sink(hole, entry);
        }
    }

    fn rise(&mut self, mut hole: usize, entry: HeapEntry) {
        let key = entry.key();
        while hole > ROOT {
            let above = parent(hole);
            if self.at(above).key() <= key {
                break;
            }
            self.shift(above, hole);
            hole = above;
        }
        self.place(hole, entry);
    }

    fn sink(&mut self, mut hole: usize, entry: HeapEntry) {
        let key = entry.key();
        while let Some((least, position)) = self.least_child(hole)
            && least < key
        {
            self.shift(position, hole);
            hole = position;
        }
        self.place(hole, entry);
    }

    /// Returns the key and the position of the child that comes first.
    fn least_child(&self, position: usize) -> Option<(u128, usize)> {
        let first = children(position);
        if first >= self.end {
            return None;
        }
        let group = &self.chunks[first / CHUNK][first % CHUNK..];
        let (key, index) = match group.first_chunk() {
            Some(full) => least(full),
            // Only the very last group is not full.
            None => group.iter().map(HeapEntry::key).zip(0..).min()?,
        };
        Some((key, first + index))
    }

    /// Moves the entry at `from` into the vacant position `to`.
    fn shift(&mut self, from: usize, to: usize) {
        let entry = self.take(from);
        self.place(to, entry);
    }

    fn place(&mut self, position: usize, entry: HeapEntry) {
        if let Some(call) = &entry.call {
            call.placed(position);
        }
        *self.at_mut(position) = entry;
    }

    /// Takes the entry at `position`, and leaves that position vacant.
    fn take(&mut self, position: usize) -> HeapEntry {
        std::mem::replace(self.at_mut(position), HeapEntry::VACANT)
    }

    pub(super) fn at(&self, position: usize) -> &HeapEntry {
        &self.chunks[position / CHUNK][position % CHUNK]
    }

    fn at_mut(&mut self, position: usize) -> &mut HeapEntry {
        &mut self.chunks[position / CHUNK][position % CHUNK]
    }

    fn append(&mut self, entry: HeapEntry) {
        let chunk = self.end / CHUNK;
        if chunk == self.chunks.len() {
            // The first chunk grows on demand: most clocks never fill it.
            self.chunks.push(if chunk == 0 { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        self.chunks[chunk].push(entry);
        self.end += 1;
    }

    /// Removes the last position, and returns its entry.
    fn cut(&mut self) -> HeapEntry {
        self.end -= 1;
        let chunk = self.end / CHUNK;
        let entry = self.chunks[chunk].pop().expect("every chunk up to the end holds what the end says");
        if self.end.is_multiple_of(CHUNK) {
            self.chunks.truncate(chunk + 1);
            if self.chunks.capacity() / 4 > self.chunks.len() {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        }
        entry
    }
}

/// One position of the heap. It is vacant in front of the root, and while other entries are moved.
pub(super) struct HeapEntry {
    pub(super) at: Nanos,
    pub(super) sequence: u64,
    /// `None` at a vacant position.
    pub(super) call: Option<Rc<TimedCall<dyn Body>>>,
}

impl HeapEntry {
    const VACANT: Self = Self { at: Nanos::ZERO, sequence: 0, call: None };

    /// Deadline and sequence number as one number, which is compared without a branch. On random
    /// deadlines, the processor mispredicts every second comparison.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        u128::from(self.at.get()) << 64 | u128::from(self.sequence)
    }
}

/// Returns the first key of a full group, and its index.
///
/// A tournament: its comparisons depend on one another four deep, those of a walk along the group
/// fifteen deep. Each comparison is written so that the compiler makes it a selection; it turns
/// `Iterator::min` into a jump for each key.
fn least(group: &[HeapEntry; WAYS]) -> (u128, usize) {
    let mut round: [(u128, usize); WAYS] = std::array::from_fn(|index| (group[index].key(), index));
    let mut left = WAYS;
    while left > 1 {
        left /= 2;
        for index in 0..left {
            let (one, other) = (round[index], round[index + left]);
            round[index] = if other.0 < one.0 { other } else { one };
        }
    }
    round[0]
}

/// Position of the call that comes first.
pub(super) const ROOT: usize = WAYS - 1;

/// Number of children of a position. Each level that an entry passes costs a wait for memory, for
/// the entry that makes room and for the call whose position changes, while adjacent keys cost
/// little to compare. With a million calls, firing took a sixth longer with eight ways and a
/// quarter longer with thirty-two. With ten thousand, it took a twentieth less with eight and
/// nearly twice as long with thirty-two.
const WAYS: usize = 16;

/// Number of entries in a chunk: 16 KiB. Of the powers of two from 256 to 4,096 this was the
/// fastest with a million calls, by a little. Chunks of 64 KiB and more make the C library's
/// allocator tidy up at once when one is freed, for up to a millisecond.
///
/// Tiny in this crate's own tests, so that they cross from chunk to chunk all the time.
pub(super) const CHUNK: usize = if cfg!(test) { WAYS } else { 512 };

fn parent(position: usize) -> usize {
    position / WAYS + WAYS - 2
}

fn children(position: usize) -> usize {
    position * WAYS - WAYS * (WAYS - 2)
}

#[cfg(test)]
impl Heap {
    pub(super) fn pieces(&self) -> usize {
        self.chunks.len()
    }

    /// Asserts the invariants that every method relies on.
    pub(super) fn check(&self) {
        for position in ROOT..self.end {
            let entry = self.at(position);
            let call = entry.call.as_ref().expect("vacant");
            assert_eq!(call.place(), Some(position), "a call stores another position");
            if position > ROOT {
                assert!(self.at(parent(position)).key() < entry.key(), "out of order at {position}");
            }
        }
        assert_eq!(self.chunks.iter().map(Vec::len).sum::<usize>(), self.end);
        let used = self.end.div_ceil(CHUNK);
        assert!(self.chunks.len() <= used + 1, "{} chunks for {} positions", self.chunks.len(), self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups of children partition the positions behind the root, and never straddle two
    /// chunks.
    #[test]
    fn children_and_parents_agree() {
        let mut next = ROOT + 1;
        for position in ROOT..10_000 {
            let first = children(position);
            assert_eq!(first, next);
            assert_eq!(first / CHUNK, (first + WAYS - 1) / CHUNK);
            for child in first..first + WAYS {
                assert_eq!(parent(child), position);
            }
            next += WAYS;
        }
    }
}
