//! [`SendQueue`]: written bytes that the operating system has not taken yet.
//!
//! Rules:
//! - Small writes are copied together into chunks of up to [`CHUNK`] bytes, so that many small
//!   messages leave in one system call. A chunk is filled before the next one begins, and the rest
//!   of a large write then becomes one chunk of any length. No byte is moved again: a queue of any
//!   size is never copied as a whole, and takes little more memory than its bytes, for any sizes of
//!   writes.
//! - An empty queue is a null pointer. Its chunks go back to the reactor's [`BufferPool`] as they
//!   are, with the buffer of the first chunk, and the next write takes them from there.
//! - The first chunk can be lent ([`InFlight`]) to a backend that completes sends later. Its bytes
//!   count as queued until it is back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

/// Number of bytes up to which small writes share a chunk. 64 KiB: as much as one receive brings,
/// and enough that the number of chunks does not matter.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Number of chunks that one vectored send takes at most. 16 x 64 KiB is more than a socket buffer
/// usually has room for.
pub(crate) const MAX_SLICES: usize = 16;

/// Bytes in order, in chunks. An empty queue owns no memory.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(Option<Box<Chunks>>);

/// The chunks of a queue that is not empty.
#[derive(Debug, Default)]
struct Chunks {
    /// The first chunk. Usually there is no other.
    head: Vec<u8>,
    /// Number of bytes of the first chunk that have left: fewer than all of them.
    sent: usize,
    /// The first chunk is lent, and it has this many unsent bytes.
    lent: Option<usize>,
    /// The chunks after the first, and the number of their bytes.
    more: VecDeque<Vec<u8>>,
    more_bytes: usize,
}

/// A chunk in flight: a backend owns it until its send completes.
#[derive(Debug)]
pub(crate) struct InFlight {
    buffer: Vec<u8>,
    /// Number of its bytes that had left before.
    sent: usize,
}

impl InFlight {
    /// Returns the bytes to be sent.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }

    /// Returns the buffer, after the queue of its bytes is gone.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl SendQueue {
    /// Number of bytes that are still queued.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| {
            let first = chunks.lent.unwrap_or(chunks.head.len() - chunks.sent);
            first + chunks.more_bytes
        })
    }

    /// Returns `true` if all bytes were sent.
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

    /// Adds bytes to the first chunk: a chunk at most. Returns `false` if they belong behind it;
    /// nothing is added then.
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
            Some(chunks) => chunks.push_first(data),
        }
    }

    /// Adds a buffer at the end: as a chunk of its own if it is large enough, as a copy otherwise.
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

    /// Adds the bytes that `write` puts into an empty buffer. If it fails, none are added.
    pub(crate) fn append_with<E>(
        &mut self,
        pool: &BufferPool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.0.is_some() {
            let mut buffer = pool.take();
            let written = write(&mut buffer);
            // A large buffer becomes a chunk of its own; a small one joins the last chunk.
            if written.is_ok() {
                self.append(buffer, pool)
            } else {
                pool.give(buffer)
            }
            return written;
        }
        // An empty queue's first chunk is written in place.
        let mut chunks = pool.take_chunks();
        let written = write(&mut chunks.head);
        if written.is_ok() && !chunks.head.is_empty() {
            self.0 = Some(chunks);
        } else {
            pool.give_chunks(chunks);
        }
        written
    }

    /// Fills `slices` with the queue's bytes from the front, for a vectored send. Returns the
    /// number of filled slices.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let rest = self.0.iter().flat_map(|chunks| chunks.more.iter()).map(Vec::as_slice);
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(std::iter::once(self.front()).chain(rest)) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// Returns the rest of the first chunk, which is empty while the chunk is lent.
    #[inline]
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| &chunks.head[chunks.sent..])
    }

    /// Returns `true` if there is no chunk after the first.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        self.0.as_ref().is_none_or(|chunks| chunks.more.is_empty())
    }

    /// Takes `count` sent bytes off the front, and gives emptied buffers to the pool. `count` is at
    /// most [`len`](Self::len).
    #[inline]
    pub(crate) fn advance(&mut self, count: usize, pool: &BufferPool) {
        debug_assert!(count <= self.len(), "the operating system can't take more bytes than were queued");
        let Some(chunks) = &self.0 else { return };
        let is_whole = chunks.lent.is_none() && chunks.sent + count == chunks.head.len();
        if is_whole && chunks.more.is_empty() { self.finish(pool) } else { self.advance_slow(count, pool) }
    }

    /// Slow path: bytes stay in the queue, or there are several chunks, or one is lent.
    #[inline(never)]
    fn advance_slow(&mut self, count: usize, pool: &BufferPool) {
        let Some(chunks) = &mut self.0 else { return };
        chunks.sent += count;
        while chunks.lent.is_none() && chunks.sent >= chunks.head.len() {
            let Some(next) = chunks.more.pop_front() else { return self.finish(pool) };
            chunks.more_bytes -= next.len();
            chunks.sent -= chunks.head.len();
            pool.give(mem::replace(&mut chunks.head, next));
        }
    }

    /// Empties a queue whose only chunk was sent as a whole.
    #[inline(always)]
    pub(crate) fn finish(&mut self, pool: &BufferPool) {
        if let Some(chunks) = self.0.take() {
            debug_assert!(chunks.more.is_empty(), "a queue that finishes has one chunk");
            pool.give_chunks(chunks);
        }
    }

    /// Lends the first chunk for a send. `None`: there is none, or it is lent already.
    pub(crate) fn lend(&mut self) -> Option<InFlight> {
        let chunks = self.0.as_mut().filter(|chunks| chunks.lent.is_none())?;
        let in_flight = InFlight { buffer: mem::take(&mut chunks.head), sent: mem::take(&mut chunks.sent) };
        chunks.lent = Some(in_flight.bytes().len());
        Some(in_flight)
    }

    /// Takes a chunk back of which `count` bytes were sent.
    #[inline]
    pub(crate) fn take_back(&mut self, in_flight: InFlight, count: usize, pool: &BufferPool) {
        let Some(chunks) = self.0.as_mut().filter(|chunks| chunks.lent.is_some()) else {
            // The queue was dropped while the chunk was in flight.
            return pool.give(in_flight.buffer);
        };
        let is_all = count == in_flight.bytes().len() && chunks.more.is_empty();
        (chunks.head, chunks.sent, chunks.lent) = (in_flight.buffer, in_flight.sent, None);
        if is_all { self.finish(pool) } else { self.advance(count, pool) }
    }

    /// Returns `true` if the first chunk is lent.
    pub(crate) fn is_lent(&self) -> bool {
        self.0.as_ref().is_some_and(|chunks| chunks.lent.is_some())
    }

    /// Drops all bytes, as an abort does.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl Chunks {
    /// Adds bytes to the first chunk if it is here, is the last too, and has room for all of them.
    #[inline(never)]
    fn push_first(&mut self, data: &[u8]) -> bool {
        let takes = self.lent.is_none() && self.more.is_empty() && self.head.len() + data.len() <= CHUNK;
        if takes {
            copy(&mut self.head, data);
        }
        takes
    }

    /// Fills the last chunk, and begins another one with the rest.
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
        // Behind a chunk in flight there are seldom many bytes; behind a full chunk there are.
        let is_small = !has_tail && rest.len() <= CHUNK;
        let mut chunk = if is_small { pool.take() } else { Vec::with_capacity(rest.len().max(CHUNK)) };
        copy(&mut chunk, rest);
        self.more_bytes += rest.len();
        self.more.push_back(chunk);
    }
}

/// Number of bytes that are copied at a time.
const PIECE_BYTES: usize = 2048;

/// Adds bytes to a buffer, in small pieces. In one piece, a C library may copy them by an
/// instruction of the processor that is many times slower if the addresses of both ends agree in
/// their low bits. Between two buffers that are used again and again, such addresses stay
/// (`docs/costs.md`).
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

/// Emptied buffers, shared by all connections of a reactor. So an idle connection holds no buffer,
/// and a busy one does not allocate.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(RefCell<Buffers>);

#[derive(Debug, Default)]
struct Buffers {
    /// Chunks of emptied queues, each with its buffer.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    chunks: Vec<Box<Chunks>>,
    /// Buffers without chunks.
    buffers: Vec<Vec<u8>>,
    /// Capacity of all buffers together.
    bytes: usize,
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
    fn take_chunks(&self) -> Box<Chunks> {
        let mut pool = self.0.borrow_mut();
        let Some(chunks) = pool.chunks.pop() else { return pool.make_chunks() };
        pool.bytes -= chunks.head.capacity();
        chunks
    }

    /// Keeps the chunks of a queue that has only the first, which was sent.
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
        let head = self.buffers.pop().unwrap_or_default();
        self.bytes -= head.capacity();
        Box::new(Chunks { head, ..Chunks::default() })
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

    /// The first chunk takes bytes as long as it is here, has room for all of them, and has none
    /// behind it.
    #[test]
    fn the_first_chunk_takes_what_fits() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        assert!(queue.push_first(b"", &pool) && queue.is_empty());
        assert!(queue.push_first(b"one", &pool) && queue.push_first(b"two", &pool) && queue.push_first(b"", &pool));
        let in_flight = queue.lend().unwrap();
        assert!(!queue.push_first(b"lent", &pool));
        queue.take_back(in_flight, 1, &pool);
        assert!(!queue.push_first(&[7; CHUNK - 5], &pool));
        assert!(queue.push_first(&[7; CHUNK - 6], &pool) && queue.is_single());
        queue.push(b"behind", &pool);
        queue.advance(CHUNK - 2, &pool);
        assert!(!queue.push_first(b"x", &pool));
        assert_eq!(contents(&queue), b"\x07behind");
    }

    /// For all sizes of writes and sends, the bytes come out in order, and an emptied queue owns
    /// nothing.
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

    /// A server that reads and answers keeps a buffer for each: one that is asked for is not taken
    /// out of kept chunks, unless the pool is nearly full.
    #[test]
    fn chunks_stay_whole_while_there_is_room() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        queue.push(b"answer", &pool);
        let address = queue.front().as_ptr();
        queue.advance(6, &pool);
        let mut read = pool.take();
        assert_eq!(read.capacity(), 0);
        read.extend_from_slice(b"request");
        let read_at = read.as_ptr();
        pool.give(read);
        queue.push(b"answer", &pool);
        let read = pool.take();
        assert_eq!((queue.front().as_ptr(), read.as_ptr()), (address, read_at));
    }

    /// The kept capacity is bounded, for any number of connections that answer at once.
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

    /// Lent bytes count, writes meanwhile go behind them, and unsent bytes of the chunk are in
    /// front again.
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

    /// A chunk in flight with nothing behind it comes back as well, and its buffer goes to the pool
    /// when all of it was sent.
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
        assert!(queue.is_empty());
        queue.push(b"taken along", &pool);
        assert_eq!(queue.front().as_ptr(), address);
        assert_eq!(queue.lend().unwrap().into_buffer(), b"taken along");
    }

    /// An appended buffer becomes a chunk of its own if it is large enough. Otherwise it is copied,
    /// and kept for other writes.
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

    /// A small write behind a chunk in flight takes a kept buffer; one behind a full chunk begins
    /// another chunk.
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

    /// Bytes that are written into the queue arrive in order, in the place of the first chunk or
    /// behind others. Nothing is added by a failure, whose buffer is kept and empty.
    #[test]
    fn bytes_are_written_in_place() {
        let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
        let write = |queue: &mut SendQueue, bytes: &[u8], result: Result<(), u8>| {
            queue.append_with(&pool, |buffer| {
                assert!(buffer.is_empty());
                buffer.extend_from_slice(bytes);
                result
            })
        };
        assert_eq!(write(&mut queue, b"lost", Err(1)), Err(1));
        assert!(queue.is_empty());
        assert_eq!(write(&mut queue, b"", Ok(())), Ok(()));
        assert!(queue.is_empty());
        assert_eq!(write(&mut queue, b"first", Ok(())), Ok(()));
        assert_eq!(write(&mut queue, b"lost", Err(2)), Err(2));
        assert_eq!(write(&mut queue, b", second", Ok(())), Ok(()));
        assert_eq!((contents(&queue), queue.is_single()), (b"first, second".to_vec(), true));
        assert_eq!(write(&mut queue, &[3; CHUNK], Ok(())), Ok(()));
        assert_eq!((queue.len(), queue.is_single()), (13 + CHUNK, false));
        queue.advance(13, &pool);
        assert!(queue.front() == [3; CHUNK]);
        queue.advance(CHUNK, &pool);
        assert!(queue.is_empty());
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
