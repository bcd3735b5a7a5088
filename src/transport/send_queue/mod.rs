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
//! - Shared bytes of [`SHARED_BYTES`] or more are a chunk of their own, and are never copied. The
//!   queue holds a reference, so that one message to many readers is in memory once. A shared first
//!   chunk stands behind an empty buffer: such a queue is not single, and takes the slow paths.
//! - A part of a file is a chunk too. Only a backend that sends from files is given one.
//! - The first chunk can be lent ([`InFlight`]) to a backend that completes sends later. Its bytes
//!   count as queued until it is back.

mod chunks;
mod pool;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

use self::chunks::{Chunk, Chunks, copy};
pub(crate) use self::pool::BufferPool;
use super::file::FilePart;

/// Number of bytes up to which small writes share a chunk. 64 KiB: as much as one receive brings,
/// and enough that the number of chunks does not matter.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Number of chunks that one vectored send takes at most. 64 of the smallest shared chunks are 256
/// KiB, and of full chunks of copied bytes far more than a socket buffer has room for.
pub(crate) const MAX_SLICES: usize = 64;

/// Bytes in order, in chunks. An empty queue owns no memory.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(Option<Box<Chunks>>);

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

    /// Adds shared bytes at the end: as a chunk of their own if they are many enough, as a copy
    /// otherwise.
    pub(crate) fn push_shared(&mut self, bytes: Bytes, pool: &BufferPool) {
        if bytes.len() < SHARED_BYTES {
            return self.push(&bytes, pool);
        }
        self.0.get_or_insert_with(|| pool.take_bare_chunks()).push_back(Chunk::Shared(bytes));
    }

    /// Adds a part of a file at the end.
    pub(crate) fn push_file(&mut self, part: FilePart, pool: &BufferPool) {
        if part.left() > 0 {
            self.0.get_or_insert_with(|| pool.take_bare_chunks()).push_back(Chunk::File(Box::new(part)));
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
                chunks.push_back(Chunk::Copied(buffer));
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
    /// number of filled slices. A part of a file ends them.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let Some(chunks) = &self.0 else { return 0 };
        let head = Some(chunks.unsent_head()).filter(|head| !head.is_empty());
        let mut filled = 0;
        for (slot, bytes) in slices.iter_mut().zip(head.into_iter().chain(chunks.more.iter().map_while(Chunk::bytes))) {
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Returns the part of a file that is the first chunk.
    pub(crate) fn file(&self) -> Option<&FilePart> {
        self.0.as_ref()?.file_front()
    }

    /// Returns the rest of the first chunk, which is empty while the chunk is lent, and if it is a
    /// part of a file.
    #[inline]
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| chunks.front())
    }

    /// Returns the same of a queue that [`is_single`](Self::is_single).
    #[inline(always)]
    pub(crate) fn single(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| chunks.unsent_head())
    }

    /// Returns `true` if there is one chunk at most, and it has copied bytes.
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

    /// Slow path: bytes stay in the queue, or there are several chunks, or one is lent or shared.
    #[inline(never)]
    fn advance_slow(&mut self, count: usize, pool: &BufferPool) {
        let Some(chunks) = &mut self.0 else { return };
        if chunks.advance(count, pool) {
            self.finish(pool);
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

    /// Lends the first chunk for a send. `None`: there is none, it is lent already, or it is a part
    /// of a file. Shared bytes are lent as a copy, a chunk at most.
    pub(crate) fn lend(&mut self) -> Option<InFlight> {
        let chunks = self.0.as_mut().filter(|chunks| chunks.lent.is_none())?;
        if chunks.head.is_empty() {
            chunks.copy_to_head()?;
        }
        let in_flight = InFlight { buffer: mem::take(&mut chunks.head), sent: mem::take(&mut chunks.sent) };
        chunks.lent = Some(in_flight.bytes().len());
        Some(in_flight)
    }

    /// Returns `true` if the first chunk has copied bytes, so that it can be lent as it is.
    #[cfg(any(test, all(feature = "io-uring", target_os = "linux")))]
    pub(crate) fn begins_copied(&self) -> bool {
        self.0.as_ref().is_some_and(|chunks| !chunks.head.is_empty())
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

/// Shorter shared bytes are copied. 4 KiB, a page: a chunk of its own takes an entry of 40 bytes
/// and a vectored send. From there on the memory of a queue that waits counts for more.
const SHARED_BYTES: usize = 4 * 1024;
