//! [`SendQueue`]: the bytes that were written and are not yet the operating system's.
//!
//! Rules:
//! - Small writes are copied together into chunks of up to [`CHUNK`] bytes, so that many small messages leave in one
//!   system call. A chunk is filled before the next is begun, and what a large write has left then becomes one chunk,
//!   however long. Nothing is moved again: a queue of any size is never copied as a whole, and takes little more memory
//!   than its bytes, however they were cut.
//! - An empty queue owns no memory: its buffer goes back to the reactor's [`Spares`], and the next write takes one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;

/// How many bytes small writes are gathered into. 64 KiB: what one receive brings, and enough that the number of chunks
/// does not matter.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How many chunks one vectored send may take. 16 x 64 KiB is more than a socket buffer usually has room for.
pub(crate) const MAX_SLICES: usize = 16;

/// Bytes in order, in chunks.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    /// The first chunk. The usual queue has no other, and an empty queue not even this.
    head: Vec<u8>,
    /// How much of the first chunk is gone already: less than all of it.
    sent: usize,
    /// The chunks after the first. Boxed, for few connections ever have one.
    more: Option<Box<More>>,
}

/// The chunks after the first.
#[derive(Debug, Default)]
struct More {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl SendQueue {
    /// Bytes still queued.
    pub(crate) fn len(&self) -> usize {
        self.head.len() - self.sent + self.more.as_ref().map_or(0, |more| more.bytes)
    }

    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, data: &[u8], spares: &Spares) {
        if data.is_empty() {
            return;
        }
        if self.is_empty() {
            self.head = if data.len() <= CHUNK { spares.take() } else { Vec::new() };
            self.head.extend_from_slice(data);
        } else {
            self.push_behind(data);
        }
    }

    fn push_behind(&mut self, data: &[u8]) {
        let tail = match &mut self.more {
            Some(more) => more.chunks.back_mut().unwrap_or(&mut self.head),
            None => &mut self.head,
        };
        let room = CHUNK.saturating_sub(tail.len()).min(data.len());
        let (first, rest) = data.split_at(room);
        tail.extend_from_slice(first);
        if let Some(more) = &mut self.more {
            more.bytes += first.len();
        }
        if rest.is_empty() {
            return;
        }
        let mut chunk = Vec::with_capacity(rest.len().max(CHUNK));
        chunk.extend_from_slice(rest);
        let more = self.more.get_or_insert_default();
        more.bytes += rest.len();
        more.chunks.push_back(chunk);
    }

    /// Adds a buffer at the end, as a chunk of its own if it is worth one.
    pub(crate) fn append(&mut self, buffer: Vec<u8>, spares: &Spares) {
        if self.is_empty() && !buffer.is_empty() {
            self.head = buffer;
        } else if buffer.len() >= CHUNK / 4 {
            let more = self.more.get_or_insert_default();
            more.bytes += buffer.len();
            more.chunks.push_back(buffer);
        } else {
            self.push(&buffer, spares);
            spares.give(buffer);
        }
    }

    /// The queue's bytes as the operating system wants them: fills `slices` from the front, and says how many it filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let rest = self.more.iter().flat_map(|more| more.chunks.iter()).map(Vec::as_slice);
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(std::iter::once(self.front()).chain(rest)) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// What is left of the first chunk.
    pub(crate) fn front(&self) -> &[u8] {
        &self.head[self.sent..]
    }

    /// Whether the first chunk is all there is.
    pub(crate) fn is_single(&self) -> bool {
        self.more.is_none()
    }

    /// Takes `count` sent bytes off the front, and hands emptied buffers back. `count` is at most [`len`](Self::len).
    pub(crate) fn advance(&mut self, count: usize, spares: &Spares) {
        debug_assert!(count <= self.len(), "the operating system can't have taken more than there was");
        self.sent += count;
        while self.sent >= self.head.len() && !self.head.is_empty() {
            self.sent -= self.head.len();
            let next = self.next_chunk();
            spares.give(std::mem::replace(&mut self.head, next));
        }
    }

    /// The chunk after the first; none is an empty one.
    fn next_chunk(&mut self) -> Vec<u8> {
        let Some(more) = &mut self.more else { return Vec::new() };
        let next = more.chunks.pop_front().unwrap_or_default();
        more.bytes -= next.len();
        if more.chunks.is_empty() {
            self.more = None;
        }
        next
    }

    /// Drops everything, as an abort does.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Emptied buffers, shared by all connections of a reactor, so that an idle connection holds none and a busy one does not
/// allocate.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    buffers: RefCell<Vec<Vec<u8>>>,
    /// What they take in all.
    bytes: Cell<usize>,
}

impl Spares {
    /// How much is kept. Streams write and flush within one turn, so as many buffers are in use at a time as connections
    /// answer in one turn: 2 MiB is 512 answers of 4 KiB, or 128 of 16 KiB; a larger batch allocates for the rest.
    const KEPT: usize = 2 * 1024 * 1024;

    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        let Some(buffer) = self.buffers.borrow_mut().pop() else { return Vec::new() };
        self.bytes.set(self.bytes.get() - buffer.capacity());
        buffer
    }

    /// Keeps a buffer for the next who needs one, or drops it.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let bytes = self.bytes.get() + buffer.capacity();
        if buffer.capacity() <= CHUNK && buffer.capacity() > 0 && bytes <= Self::KEPT {
            buffer.clear();
            self.bytes.set(bytes);
            self.buffers.borrow_mut().push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(queue: &SendQueue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = queue.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn small_writes_share_a_chunk_and_large_ones_have_their_own() {
        let (mut queue, spares) = (SendQueue::default(), Spares::default());
        queue.push(b"one", &spares);
        queue.push(b"two", &spares);
        assert!(queue.is_single());
        queue.push(&vec![7; CHUNK], &spares);
        assert!(!queue.is_single());
        assert_eq!(queue.len(), 6 + CHUNK);
        assert_eq!(&contents(&queue)[..7], b"onetwo\x07");
    }

    /// Whatever the sizes of writes and sends, the bytes come out in order, and an emptied queue owns nothing.
    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (mut queue, spares) = (SendQueue::default(), Spares::default());
        let (mut written, mut sent) = (Vec::new(), Vec::new());
        for round in 0..400_usize {
            let data: Vec<u8> = (0..(round * 7919) % 9000).map(|i| (i * 31 + round) as u8).collect();
            queue.push(&data, &spares);
            written.extend_from_slice(&data);
            let all = contents(&queue);
            let count = all.len().min((round * 104_729) % 12_000);
            sent.extend_from_slice(&all[..count]);
            queue.advance(count, &spares);
        }
        while !queue.is_empty() {
            let all = contents(&queue);
            sent.extend_from_slice(&all);
            queue.advance(all.len(), &spares);
        }
        assert!(sent == written);
        assert_eq!(queue.head.capacity(), 0);
    }

    #[test]
    fn an_emptied_buffer_is_used_again() {
        let (mut queue, spares) = (SendQueue::default(), Spares::default());
        queue.push(b"hello", &spares);
        let address = queue.front().as_ptr();
        queue.advance(5, &spares);
        queue.push(b"again", &spares);
        assert_eq!(queue.front().as_ptr(), address);
    }

    /// However many connections answer at once, what is kept afterwards is bounded.
    #[test]
    fn the_buffers_that_are_kept_are_bounded() {
        let spares = Spares::default();
        let mut queues: Vec<_> = (0..200).map(|_| SendQueue::default()).collect();
        for queue in &mut queues {
            queue.push(&vec![1; CHUNK], &spares);
        }
        for queue in &mut queues {
            queue.advance(CHUNK, &spares);
        }
        assert_eq!(spares.bytes.get(), Spares::KEPT);
        for queue in &mut queues {
            queue.push(b"one each", &spares);
        }
        assert_eq!(spares.bytes.get(), 0);
    }

    #[test]
    fn a_buffer_grown_past_a_chunk_is_not_kept() {
        let (mut queue, spares) = (SendQueue::default(), Spares::default());
        queue.push(&vec![1; CHUNK + 1], &spares);
        queue.advance(CHUNK + 1, &spares);
        assert!(spares.buffers.borrow().is_empty());
    }
}
