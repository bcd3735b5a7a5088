//! [`SendQueue`]: the bytes that were written and are not yet the operating system's.
//!
//! Rules:
//! - Small writes are copied together into chunks of up to [`CHUNK`] bytes, so that many small messages leave in one
//!   system call. A chunk is filled before the next is begun, and what a large write has left then becomes one chunk,
//!   however long. Nothing is moved again: a queue of any size is never copied as a whole, and takes little more memory
//!   than its bytes, however they were cut.
//! - An empty queue is a null pointer: its chunks go back to the reactor's [`BufferPool`] as they are, with the buffer of the
//!   first, and the next write takes them from there.
//! - The first chunk can be lent ([`InFlight`]) to who sends it without being waited for. Its bytes count as queued until it is back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

/// How many bytes small writes are gathered into. 64 KiB: what one receive brings, and enough that the number of chunks
/// does not matter.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How many chunks one vectored send may take. 16 x 64 KiB is more than a socket buffer usually has room for.
pub(crate) const MAX_SLICES: usize = 16;

/// Bytes in order, in chunks. Empty, it is nothing.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(Option<Box<Chunks>>);

/// The chunks of a queue that is not empty.
#[derive(Debug, Default)]
struct Chunks {
    /// The first chunk. Usually there is no other.
    head: Vec<u8>,
    /// How much of the first chunk is gone already: less than all of it.
    sent: usize,
    /// The first chunk is lent, and this much of it was not sent.
    lent: Option<usize>,
    /// The chunks after the first, and their bytes.
    more: VecDeque<Vec<u8>>,
    more_bytes: usize,
}

/// A chunk that is being sent, by somebody who has it until then.
#[derive(Debug)]
pub(crate) struct InFlight {
    buffer: Vec<u8>,
    /// How much of it was gone already.
    sent: usize,
}

impl InFlight {
    /// What is to be sent.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }

    /// The buffer, for whose bytes there is no queue any more.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl SendQueue {
    /// Bytes still queued.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| {
            let first = chunks.lent.unwrap_or(chunks.head.len() - chunks.sent);
            first + chunks.more_bytes
        })
    }

    /// Whether everything was sent.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, data: &[u8], pool: &BufferPool) {
        if data.is_empty() {
            return;
        }
        match &mut self.0 {
            Some(chunks) => chunks.push(data, pool),
            None => {
                let mut chunks = pool.take_chunks();
                copy(&mut chunks.head, data);
                self.0 = Some(chunks);
            }
        }
    }

    /// Adds no more than a chunk to an empty queue, or nothing to any. `false`: the queue is not empty.
    #[inline(always)]
    pub(crate) fn push_first(&mut self, data: &[u8], pool: &BufferPool) -> bool {
        if data.is_empty() {
            return true;
        }
        match &mut self.0 {
            None => {
                let mut chunks = pool.take_chunks();
                copy(&mut chunks.head, data);
                self.0 = Some(chunks);
                true
            }
            _ => false,
        }
    }

    /// Adds a buffer at the end, as a chunk of its own if it is worth one.
    pub(crate) fn append(&mut self, buffer: Vec<u8>, pool: &BufferPool) {
        match &mut self.0 {
            None if !buffer.is_empty() => {
                let mut chunks = pool.take_chunks();
                pool.give(mem::replace(&mut chunks.head, buffer));
                self.0 = Some(chunks);
            }
            Some(chunks) if buffer.len() >= CHUNK / 4 => {
                chunks.more_bytes += buffer.len();
                chunks.more.push_back(buffer);
            }
            _ => {
                self.push(&buffer, pool);
                pool.give(buffer);
            }
        }
    }

    /// The queue's bytes as the operating system wants them: fills `slices` from the front, and says how many it filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let rest = self.0.iter().flat_map(|chunks| chunks.more.iter()).map(Vec::as_slice);
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(std::iter::once(self.front()).chain(rest)) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// What is left of the first chunk, unless it is lent.
    #[inline]
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| &chunks.head[chunks.sent..])
    }

    /// Whether the first chunk is all there is.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        self.0.as_ref().is_none_or(|chunks| chunks.more.is_empty())
    }

    /// Takes `count` sent bytes off the front, and hands emptied buffers back. `count` is at most [`len`](Self::len).
    pub(crate) fn advance(&mut self, count: usize, pool: &BufferPool) {
        debug_assert!(count <= self.len(), "the operating system can't have taken more than there was");
        let Some(chunks) = &mut self.0 else { return };
        chunks.sent += count;
        while chunks.lent.is_none() && chunks.sent >= chunks.head.len() {
            let Some(next) = chunks.more.pop_front() else { return self.finish(pool) };
            chunks.more_bytes -= next.len();
            chunks.sent -= chunks.head.len();
            pool.give(mem::replace(&mut chunks.head, next));
        }
    }

    /// The only chunk was sent, whole.
    #[inline(always)]
    pub(crate) fn finish(&mut self, pool: &BufferPool) {
        if let Some(chunks) = self.0.take() {
            debug_assert!(chunks.more.is_empty(), "there is no other chunk");
            pool.give_chunks(chunks);
        }
    }

    /// Lends the first chunk to who sends it. `None`: there is none, or it is lent already.
    #[cfg_attr(not(any(feature = "testing", feature = "io-uring")), expect(dead_code, reason = "mio keeps no chunk"))]
    pub(crate) fn lend(&mut self) -> Option<InFlight> {
        let chunks = self.0.as_mut().filter(|chunks| chunks.lent.is_none())?;
        let in_flight = InFlight { buffer: mem::take(&mut chunks.head), sent: mem::take(&mut chunks.sent) };
        chunks.lent = Some(in_flight.bytes().len());
        Some(in_flight)
    }

    /// Takes a chunk back of which so many bytes were sent.
    #[inline]
    pub(crate) fn take_back(&mut self, in_flight: InFlight, count: usize, pool: &BufferPool) {
        let Some(chunks) = self.0.as_mut().filter(|chunks| chunks.lent.is_some()) else {
            // Everything was dropped meanwhile.
            return pool.give(in_flight.buffer);
        };
        let is_all = count == in_flight.bytes().len() && chunks.more.is_empty();
        (chunks.head, chunks.sent, chunks.lent) = (in_flight.buffer, in_flight.sent, None);
        if is_all { self.finish(pool) } else { self.advance(count, pool) }
    }

    /// Whether the first chunk is lent.
    pub(crate) fn is_lent(&self) -> bool {
        self.0.as_ref().is_some_and(|chunks| chunks.lent.is_some())
    }

    /// Drops everything, as an abort does.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl Chunks {
    /// Fills the last chunk, and begins another with the rest.
    fn push(&mut self, data: &[u8], pool: &BufferPool) {
        let has_tail = self.lent.is_none() || !self.more.is_empty();
        let mut rest = data;
        if has_tail {
            let is_head = self.more.is_empty();
            let tail = self.more.back_mut().unwrap_or(&mut self.head);
            let room = CHUNK.saturating_sub(tail.len()).min(data.len());
            copy(tail, &data[..room]);
            rest = &data[room..];
            self.more_bytes += if is_head { 0 } else { room };
        }
        if rest.is_empty() {
            return;
        }
        // Behind what is only being sent there is seldom much; behind a full chunk there is.
        let is_small = !has_tail && rest.len() <= CHUNK;
        let mut chunk = if is_small { pool.take() } else { Vec::with_capacity(rest.len().max(CHUNK)) };
        copy(&mut chunk, rest);
        self.more_bytes += rest.len();
        self.more.push_back(chunk);
    }
}

/// How much is copied at a time.
const PIECE_BYTES: usize = 2048;

/// Adds bytes to a buffer, in small pieces. In one piece, a C library may copy them by an instruction of the processor that is
/// many times slower where the addresses of both ends agree in their low bits, as they do for good between two buffers that
/// are used again and again (`docs/costs.md`).
#[inline(always)]
fn copy(buffer: &mut Vec<u8>, data: &[u8]) {
    if data.len() <= PIECE_BYTES { buffer.extend_from_slice(data) } else { copy_pieces(buffer, data) }
}

#[inline(never)]
fn copy_pieces(buffer: &mut Vec<u8>, data: &[u8]) {
    buffer.reserve(data.len());
    for piece in data.chunks(PIECE_BYTES) {
        buffer.extend_from_slice(piece);
    }
}

/// Emptied buffers, shared by all connections of a reactor, so that an idle connection holds none and a busy one does not
/// allocate.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(RefCell<Buffers>);

#[derive(Debug, Default)]
struct Buffers {
    /// Those of queues, each with its buffer.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    chunks: Vec<Box<Chunks>>,
    /// Those that were by themselves.
    buffers: Vec<Vec<u8>>,
    /// What all buffers take.
    bytes: usize,
}

impl BufferPool {
    /// How much is kept. Streams write and flush within one turn, so as many buffers are in use at a time as connections
    /// answer in one turn: 2 MiB is 512 answers of 4 KiB, or 128 of 16 KiB; a larger batch allocates for the rest.
    const KEPT: usize = 2 * 1024 * 1024;

    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut pool = self.0.borrow_mut();
        let kept = pool.buffers.pop().or_else(|| pool.chunks.pop().map(|chunks| chunks.head));
        let buffer = kept.unwrap_or_default();
        pool.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer for the next that needs one, or drops it.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut pool = self.0.borrow_mut();
        if pool.keeps(buffer.capacity()) {
            buffer.clear();
            pool.buffers.push(buffer);
        }
    }

    /// Empty chunks, with a buffer if any is kept.
    #[inline(always)]
    fn take_chunks(&self) -> Box<Chunks> {
        let mut pool = self.0.borrow_mut();
        let Some(chunks) = pool.chunks.pop() else { return pool.make_chunks() };
        pool.bytes -= chunks.head.capacity();
        chunks
    }

    /// Keeps the chunks of a queue, of which only the first is there and was sent.
    #[inline(always)]
    fn give_chunks(&self, mut chunks: Box<Chunks>) {
        let mut pool = self.0.borrow_mut();
        if pool.keeps(chunks.head.capacity()) {
            chunks.head.clear();
            chunks.sent = 0;
            if chunks.more.capacity() > MAX_SLICES {
                chunks.more = VecDeque::new();
            }
            pool.chunks.push(chunks);
        }
    }
}

impl Buffers {
    #[cold]
    fn make_chunks(&mut self) -> Box<Chunks> {
        let head = self.buffers.pop().unwrap_or_default();
        self.bytes -= head.capacity();
        Box::new(Chunks { head, ..Chunks::default() })
    }

    /// Whether a buffer of this size is worth keeping, and there is room for it, which is taken.
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
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(b"one", &pool);
        queue.push(b"two", &pool);
        assert!(queue.is_single());
        queue.push(&vec![7; CHUNK], &pool);
        assert!(!queue.is_single());
        assert_eq!(queue.len(), 6 + CHUNK);
        assert_eq!(&contents(&queue)[..7], b"onetwo\x07");
    }

    /// Whatever the sizes of writes and sends, the bytes come out in order, and an emptied queue owns nothing.
    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        let (mut written, mut sent) = (Vec::new(), Vec::new());
        for round in 0..400_usize {
            let data: Vec<u8> = (0..(round * 7919) % 9000).map(|i| (i * 31 + round) as u8).collect();
            queue.push(&data, &pool);
            written.extend_from_slice(&data);
            let all = contents(&queue);
            let count = all.len().min((round * 104_729) % 12_000);
            sent.extend_from_slice(&all[..count]);
            queue.advance(count, &pool);
        }
        while !queue.is_empty() {
            let all = contents(&queue);
            sent.extend_from_slice(&all);
            queue.advance(all.len(), &pool);
        }
        assert!(sent == written);
        assert!(queue.0.is_none());
    }

    #[test]
    fn an_emptied_buffer_is_used_again() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(b"hello", &pool);
        let address = queue.front().as_ptr();
        queue.advance(5, &pool);
        queue.push(b"again", &pool);
        assert_eq!(queue.front().as_ptr(), address);
    }

    /// However many connections answer at once, what is kept afterwards is bounded.
    #[test]
    fn the_buffers_that_are_kept_are_bounded() {
        let pool = BufferPool::default();
        let mut queues: Vec<_> = (0..200).map(|_| SendQueue::default()).collect();
        for queue in &mut queues {
            queue.push(&vec![1; CHUNK], &pool);
        }
        for queue in &mut queues {
            queue.advance(CHUNK, &pool);
        }
        assert_eq!(pool.0.borrow().bytes, 2 * 1024 * 1024);
        drop(pool.take());
        assert_eq!(pool.0.borrow().bytes, 2 * 1024 * 1024 - CHUNK);
        for queue in &mut queues {
            queue.push(b"one each", &pool);
        }
        assert_eq!(pool.0.borrow().bytes, 0);
    }

    /// What is lent counts, what is written meanwhile goes behind it, and what was not sent of it is in front again.
    #[test]
    fn a_loan_comes_back_to_where_it_was() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        assert!(queue.lend().is_none());
        queue.push(b"0123456789", &pool);
        queue.advance(2, &pool);
        let in_flight = queue.lend().unwrap();
        assert_eq!((in_flight.bytes(), queue.len(), queue.front()), (&b"23456789"[..], 8, &b""[..]));
        assert!(queue.lend().is_none() && !queue.is_empty());
        queue.push(b"ab", &pool);
        queue.push(b"cd", &pool);
        assert_eq!(queue.len(), 12);
        queue.take_back(in_flight, 3, &pool);
        assert_eq!(contents(&queue), b"56789abcd");
        let in_flight = queue.lend().unwrap();
        queue.take_back(in_flight, 5, &pool);
        assert_eq!(contents(&queue), b"abcd");
        let in_flight = queue.lend().unwrap();
        queue.clear();
        queue.take_back(in_flight, 0, &pool);
        assert!(queue.is_empty());
    }

    /// A chunk in flight with nothing behind it comes back as well, and its buffer goes to the pool when all of it was sent.
    #[test]
    fn a_loan_without_more_comes_back() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(b"0123456789", &pool);
        let in_flight = queue.lend().unwrap();
        let address = in_flight.bytes().as_ptr();
        queue.take_back(in_flight, 4, &pool);
        assert_eq!(contents(&queue), b"456789");
        let in_flight = queue.lend().unwrap();
        queue.take_back(in_flight, 6, &pool);
        let kept = pool.take();
        assert!(queue.is_empty() && kept.as_ptr() == address);
        queue.push(b"for nobody", &pool);
        assert_eq!(queue.lend().unwrap().into_buffer(), b"for nobody");
    }

    /// Buffers that are appended are chunks of their own if they are worth one, and are copied and kept for others if not.
    #[test]
    fn appended_buffers_are_chunks_or_copied() {
        const WORTH: usize = 16 * 1024;
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.append(Vec::with_capacity(10), &pool);
        assert!(queue.is_empty());
        let first = b"first".to_vec();
        let address = first.as_ptr();
        queue.append(first, &pool);
        assert_eq!((queue.front(), queue.front().as_ptr(), queue.len()), (&b"first"[..], address, 5));
        drop((pool.take(), pool.take()));
        queue.append(vec![1; WORTH - 1], &pool);
        assert!(queue.is_single() && pool.take().capacity() == WORTH - 1);
        queue.append(vec![2; WORTH], &pool);
        assert!(!queue.is_single() && pool.take().capacity() == 0);
        queue.append(vec![3; WORTH], &pool);
        assert_eq!(queue.len(), 5 + WORTH - 1 + 2 * WORTH);
        let expected = [&b"first"[..], &[1; WORTH - 1], &[2; WORTH], &[3; WORTH]].concat();
        assert!(contents(&queue) == expected);
    }

    /// A small write behind a chunk in flight takes a kept buffer; one behind a full chunk begins another chunk.
    #[test]
    fn writes_behind_a_chunk_take_the_room_that_they_need() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(b"lent", &pool);
        let in_flight = queue.lend().unwrap();
        pool.give(Vec::with_capacity(100));
        queue.push(b"behind", &pool);
        assert_eq!(pool.take().capacity(), 0, "the kept buffer is in use");
        queue.take_back(in_flight, 4, &pool);
        assert_eq!(contents(&queue), b"behind");

        let mut queue = SendQueue::default();
        queue.push(&vec![1; CHUNK], &pool);
        pool.give(Vec::with_capacity(100));
        queue.push(b"behind", &pool);
        assert!(queue.0.is_some_and(|chunks| chunks.more[0].capacity() == CHUNK));
    }

    #[test]
    fn a_buffer_without_room_is_not_kept() {
        let pool = BufferPool::default();
        pool.give(Vec::new());
        assert!(pool.0.borrow().buffers.is_empty());
    }

    #[test]
    fn a_buffer_grown_past_a_chunk_is_not_kept() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(&vec![1; CHUNK + 1], &pool);
        queue.advance(CHUNK + 1, &pool);
        assert!(pool.0.borrow().buffers.is_empty());
    }
}
