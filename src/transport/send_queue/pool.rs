//! [`BufferPool`]: emptied buffers, to be used again.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::CHUNK;
use super::chunks::Chunks;

/// Emptied buffers, shared by all connections of a reactor. So an idle connection holds no buffer,
/// and a busy one does not allocate.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(pub(super) RefCell<Buffers>);

#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Chunks of emptied queues, each with its buffer.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    chunks: Vec<Box<Chunks>>,
    /// Chunks without buffers.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    bare: Vec<Box<Chunks>>,
    /// Buffers without chunks.
    pub(super) buffers: Vec<Vec<u8>>,
    /// Capacity of all buffers together.
    pub(super) bytes: usize,
}

impl BufferPool {
    /// Limit of the kept capacity. Streams write and flush within one turn, so as many buffers are
    /// in use at a time as connections answer in one turn. 2 MiB is 512 answers of 4 KiB, or 128 of
    /// 16 KiB; a larger batch allocates for the rest.
    const KEPT: usize = 2 * 1024 * 1024;

    /// Returns an empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut pool = self.0.borrow_mut();
        let buffer = pool.buffers.pop().unwrap_or_else(|| pool.take_apart());
        pool.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer for the next write that needs one, or drops it.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut pool = self.0.borrow_mut();
        if pool.keeps(buffer.capacity()) {
            buffer.clear();
            pool.buffers.push(buffer);
        }
    }

    /// Returns empty chunks, with a buffer if one is kept.
    #[inline(always)]
    pub(super) fn take_chunks(&self) -> Box<Chunks> {
        let mut pool = self.0.borrow_mut();
        let Some(chunks) = pool.chunks.pop() else { return pool.make_chunks() };
        pool.bytes -= chunks.head.capacity();
        chunks
    }

    /// Returns empty chunks without a buffer, for a queue that begins with shared bytes. These may
    /// wait for long, and a buffer would wait with them.
    pub(super) fn take_bare_chunks(&self) -> Box<Chunks> {
        self.0.borrow_mut().bare.pop().unwrap_or_default()
    }

    /// Keeps the chunks of a queue that has only the first, which was sent.
    #[inline(always)]
    pub(super) fn give_chunks(&self, mut chunks: Box<Chunks>) {
        let mut pool = self.0.borrow_mut();
        if pool.keeps(chunks.head.capacity()) {
            chunks.head.clear();
            chunks.sent = 0;
            if chunks.more.capacity() > KEPT_CHUNKS {
                chunks.more = VecDeque::new();
            }
            pool.chunks.push(chunks);
        } else {
            pool.keep_bare(chunks);
        }
    }
}

impl Buffers {
    /// Returns the buffer of kept chunks, if the pool could not keep many more buffers. Otherwise a
    /// server that reads and answers would take chunks apart and make others in each turn.
    #[cold]
    fn take_apart(&mut self) -> Vec<u8> {
        let is_scarce = self.bytes > BufferPool::KEPT / 2;
        let chunks = if is_scarce { self.chunks.pop() } else { None };
        chunks.map_or_else(Vec::new, |chunks| chunks.head)
    }

    #[cold]
    fn make_chunks(&mut self) -> Box<Chunks> {
        let mut chunks = self.bare.pop().unwrap_or_default();
        chunks.head = self.buffers.pop().unwrap_or_default();
        self.bytes -= chunks.head.capacity();
        chunks
    }

    /// Keeps chunks whose buffer is not to be kept, or drops them.
    #[cold]
    fn keep_bare(&mut self, mut chunks: Box<Chunks>) {
        if self.bare.len() < KEPT_BARE && chunks.more.capacity() <= KEPT_CHUNKS {
            (chunks.head, chunks.sent) = (Vec::new(), 0);
            self.bare.push(chunks);
        }
    }

    /// Returns `true` if a buffer of this capacity is worth keeping and there is room for it.
    /// Counts it as kept then.
    #[inline(always)]
    fn keeps(&mut self, capacity: usize) -> bool {
        let bytes = self.bytes + capacity;
        let keeps = capacity <= CHUNK && capacity > 0 && bytes <= BufferPool::KEPT;
        if keeps {
            self.bytes = bytes;
        }
        keeps
    }
}

/// Number of kept chunks without a buffer. 1,024: a broadcast to as many readers that keep up
/// allocates nothing, and they take some 200 KiB at most.
const KEPT_BARE: usize = 1024;

/// Room for chunks after the first that emptied chunks keep. 16: a queue of 1 MiB of small writes.
const KEPT_CHUNKS: usize = 16;
