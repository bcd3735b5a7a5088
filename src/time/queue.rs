//! The queue of pending calls: an indexed sixteen-way heap, in chunks.
//!
//! Invariants:
//!
//! - The order is that of (deadline, sequence number). A call gets the next sequence number when it
//!   is added and again whenever it is moved, so calls with equal deadlines stand in the order of
//!   their last scheduling.
//! - No deadline is put before the latest turn's beginning (`floor`). So every call that arrives
//!   after a turn began stands behind the due calls of that turn, and the first call alone tells if
//!   the turn is over.
//! - Every call stores its position, and each step of the heap updates it. Cancelling takes the
//!   call out, for good.
//! - Entries live in chunks of [`CHUNK`]. So neither growing nor shrinking ever copies the whole,
//!   and memory is freed chunk by chunk. One empty chunk is kept, so that a queue whose length goes
//!   up and down does not pay for each change.
//!
//! The queue never runs or drops a function: entries hold counted references, and callers get
//! theirs back.
//!
//! Positions: the root is at 15, and the children of `p` are at `16p - 224` to `16p - 209`. The
//! fifteen unused positions in front let every group of sixteen start at a multiple of sixteen,
//! inside one chunk and on as few cache lines as possible.

use std::rc::Rc;
use std::time::Duration;

use super::call::{Body, TimedCall};

/// The pending calls of one clock, in order.
#[derive(Default)]
pub(super) struct Queue {
    heap: Heap,
    next_sequence: u64,
    /// Beginning of the latest turn.
    floor: Nanos,
    closed: bool,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Adds a call. Returns `false` if the queue is closed, and does not take the call then.
    #[must_use]
    pub(super) fn push(&mut self, at: Nanos, call: Rc<TimedCall<dyn Body>>) -> bool {
        if self.closed {
            return false;
        }
        let (at, sequence) = (at.max(self.floor), self.sequence());
        self.heap.push(HeapEntry { at, sequence, call: Some(call) });
        true
    }

    /// Takes out the call at `position`, and returns its deadline.
    pub(super) fn remove(&mut self, position: usize) -> Nanos {
        self.heap.remove(position).at
    }

    /// Gives the call at `position` another deadline, computed from the present one.
    pub(super) fn reschedule(&mut self, position: usize, at: impl FnOnce(Nanos) -> Nanos) {
        let (at, sequence) = (at(self.deadline(position)).max(self.floor), self.sequence());
        self.heap.rekey(position, at, sequence);
    }

    /// Returns the deadline of the call at `position`.
    pub(super) fn deadline(&self, position: usize) -> Nanos {
        self.heap.at(position).at
    }

    /// Begins a turn. Calls with the returned sequence number, or a later one, are not part of it.
    pub(super) fn begin(&mut self, now: Nanos) -> u64 {
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
        let mut entries: Vec<&HeapEntry> = self.heap.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.key());
        entries.into_iter().filter_map(|entry| entry.call.clone()).collect()
    }

    /// Closes the queue, which takes no more calls, and cancels the pending ones. The caller drops
    /// their functions.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Rc<TimedCall<dyn Body>>> + use<> {
        self.closed = true;
        for entry in self.heap.entries() {
            if let Some(call) = &entry.call {
                call.cancelled(entry.at);
            }
        }
        std::mem::take(&mut self.heap).into_entries().filter_map(|entry| entry.call)
    }

    fn sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }
}

/// A moment: nanoseconds since the start of the clock, at most [`FAR`](Self::FAR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(u64);

impl Nanos {
    /// About 146 years: a [`CallStage`](super::call) keeps a moment and two bits more in 64.
    pub(super) const FAR: Self = Self(u64::MAX >> 2);

    /// The clock's start, before which there is no deadline.
    pub(super) const ZERO: Self = Self(0);

    /// Later than every deadline.
    pub(super) const NEVER: Self = Self(u64::MAX);

    pub(super) fn new(nanos: u64) -> Self {
        Self(nanos).min(Self::FAR)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(super) fn plus(self, delay: Duration) -> Self {
        // Two moments are less than 2^63 together.
        Self::new(self.0 + Self::from(delay).0)
    }

    pub(super) fn minus(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(Self::from(delay).0))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let nanos = duration.as_secs().saturating_mul(SECOND).saturating_add(u64::from(duration.subsec_nanos()));
        Self::new(nanos)
    }
}

/// The heap itself, which knows keys and positions but no turns.
#[derive(Default)]
struct Heap {
    /// All full but the last one in use. Behind it at most one empty chunk.
    chunks: Vec<Vec<HeapEntry>>,
    /// Number of positions in use, including the unused ones in front; zero before the first call.
    end: usize,
}

impl Heap {
    fn len(&self) -> usize {
        self.end.saturating_sub(ROOT)
    }

    fn first(&self) -> Option<&HeapEntry> {
        (self.end > ROOT).then(|| self.at(ROOT))
    }

    fn entries(&self) -> impl Iterator<Item = &HeapEntry> {
        self.chunks.iter().flatten().skip(ROOT)
    }

    fn into_entries(self) -> impl Iterator<Item = HeapEntry> {
        self.chunks.into_iter().flatten().skip(ROOT)
    }

    fn push(&mut self, entry: HeapEntry) {
        while self.end < ROOT {
            self.append(HeapEntry::VACANT);
        }
        self.append(HeapEntry::VACANT);
        self.rise(self.end - 1, entry);
    }

    fn remove(&mut self, position: usize) -> HeapEntry {
        let last = self.cut();
        if position == self.end {
            return last;
        }
        let removed = self.take(position);
        self.settle(position, last);
        removed
    }

    fn rekey(&mut self, position: usize, at: Nanos, sequence: u64) {
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

    fn at(&self, position: usize) -> &HeapEntry {
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
struct HeapEntry {
    at: Nanos,
    sequence: u64,
    call: Option<Rc<TimedCall<dyn Body>>>,
}

impl HeapEntry {
    const VACANT: Self = Self { at: Nanos(0), sequence: 0, call: None };

    /// Deadline and sequence number as one number, which is compared without a branch. On random
    /// deadlines, the processor mispredicts every second comparison.
    #[inline]
    fn key(&self) -> u128 {
        u128::from(self.at.0) << 64 | u128::from(self.sequence)
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

const ROOT: usize = WAYS - 1;

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
const CHUNK: usize = if cfg!(test) { WAYS } else { 512 };

fn parent(position: usize) -> usize {
    position / WAYS + WAYS - 2
}

fn children(position: usize) -> usize {
    position * WAYS - WAYS * (WAYS - 2)
}

#[cfg(test)]
impl Queue {
    /// The positions of all calls, by sequence number.
    pub(super) fn places(&self) -> std::collections::HashMap<u64, usize> {
        (ROOT..self.heap.end).map(|position| (self.heap.at(position).sequence, position)).collect()
    }

    pub(super) fn pieces(&self) -> usize {
        self.heap.chunks.len()
    }

    /// Asserts the invariants that every method of the heap relies on.
    pub(super) fn check(&self) {
        let heap = &self.heap;
        for position in ROOT..heap.end {
            let entry = heap.at(position);
            let call = entry.call.as_ref().expect("vacant");
            assert_eq!(call.place(), Some(position), "a call stores another position");
            if position > ROOT {
                assert!(heap.at(parent(position)).key() < entry.key(), "out of order at {position}");
            }
        }
        assert_eq!(heap.chunks.iter().map(Vec::len).sum::<usize>(), heap.end);
        let used = heap.end.div_ceil(CHUNK);
        assert!(heap.chunks.len() <= used + 1, "{} chunks for {} positions", heap.chunks.len(), heap.end);
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
