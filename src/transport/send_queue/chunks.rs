//! [`Chunks`]: the chunks of a queue that is not empty.
//!
//! | the first chunk is | `head` | `more` | `lent` |
//! |---|---|---|---|
//! | copied bytes | it | the chunks after it | `None` |
//! | shared bytes, a file's part | empty | it, and the chunks after it | `None` |
//! | lent | empty | the chunks after it | the number of its bytes |

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes};

use super::CHUNK;
use super::pool::BufferPool;
use crate::transport::file::FilePart;

/// The chunks of a queue that is not empty. See the module.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The first chunk, if it has copied bytes. Usually there is no other.
    pub(super) head: Vec<u8>,
    /// Number of bytes of `head` that have left: fewer than all of them.
    pub(super) sent: usize,
    /// The first chunk is lent, and it has this many unsent bytes.
    pub(super) lent: Option<usize>,
    /// The other chunks, and the number of their bytes.
    pub(super) more: VecDeque<Chunk>,
    pub(super) more_bytes: usize,
}

/// A chunk other than `head`.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes that were copied in, or were written into a buffer. Small writes are added to it.
    Copied(Vec<u8>),
    /// Bytes that others may have too. Sent bytes are cut off.
    Shared(Bytes),
    /// Bytes that the system reads when it sends them.
    File(Box<FilePart>),
}

impl Chunk {
    /// Returns the bytes, which a part of a file does not have here.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Copied(buffer) => Some(buffer),
            Self::Shared(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Copied(buffer) => buffer.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::File(part) => part.left(),
        }
    }
}

impl Chunks {
    /// Returns the unsent bytes of `head`.
    #[inline(always)]
    pub(super) fn unsent_head(&self) -> &[u8] {
        &self.head[self.sent..]
    }

    /// Returns the unsent bytes of the first chunk, which are elsewhere while it is lent.
    #[inline]
    pub(super) fn front(&self) -> &[u8] {
        if self.head.is_empty() {
            self.bare_front().and_then(Chunk::bytes).unwrap_or_default()
        } else {
            self.unsent_head()
        }
    }

    /// Returns the first chunk if it is not `head`, and not lent.
    fn bare_front(&self) -> Option<&Chunk> {
        self.more.front().filter(|_| self.head.is_empty() && self.lent.is_none())
    }

    /// Returns the first chunk if it is a part of a file.
    pub(super) fn file_front(&self) -> Option<&FilePart> {
        match self.bare_front() {
            Some(Chunk::File(part)) => Some(part),
            _ => None,
        }
    }

    /// Number of unsent bytes of the first chunk, which is not lent.
    fn first_len(&self) -> usize {
        if self.head.is_empty() { self.bare_front().map_or(0, Chunk::len) } else { self.unsent_head().len() }
    }

    /// Adds bytes to the first chunk if it is here, is the last too, and has room for all of them.
    #[inline(never)]
    pub(super) fn push_first(&mut self, data: &[u8]) -> bool {
        let takes = self.lent.is_none() && self.more.is_empty() && self.head.len() + data.len() <= CHUNK;
        if takes {
            copy(&mut self.head, data);
        }
        takes
    }

    /// Adds a chunk at the end.
    pub(super) fn push_back(&mut self, chunk: Chunk) {
        self.more_bytes += chunk.len();
        if self.more.capacity() == 0 {
            // A reader that is slow has one message waiting, as a rule.
            self.more.reserve_exact(1);
        }
        self.more.push_back(chunk);
    }

    /// Fills the last chunk, and begins another one with the rest.
    pub(super) fn push(&mut self, data: &[u8], pool: &BufferPool) {
        let (mut rest, is_head) = (data, self.more.is_empty());
        let tail = match self.more.back_mut() {
            Some(Chunk::Copied(tail)) => Some(tail),
            None if self.lent.is_none() => Some(&mut self.head),
            Some(Chunk::Shared(_) | Chunk::File(_)) | None => None,
        };
        let has_tail = tail.is_some();
        if let Some(tail) = tail {
            let room = CHUNK.saturating_sub(tail.len()).min(data.len());
            copy(tail, &data[..room]);
            rest = &data[room..];
            self.more_bytes += if is_head { 0 } else { room };
        }
        if rest.is_empty() {
            return;
        }
        // Behind a chunk in flight or a shared one there are seldom many bytes; behind a full chunk
        // there are.
        let is_small = !has_tail && rest.len() <= CHUNK;
        let mut chunk = if is_small { pool.take() } else { Vec::with_capacity(rest.len().max(CHUNK)) };
        copy(&mut chunk, rest);
        self.push_back(Chunk::Copied(chunk));
    }

    /// Takes `count` sent bytes off the front, and gives emptied buffers to the pool. Returns
    /// `true` if none are left, and none are lent.
    pub(super) fn advance(&mut self, mut count: usize, pool: &BufferPool) -> bool {
        while self.lent.is_none() {
            let first = self.first_len();
            if count < first {
                self.cut(count);
                return false;
            }
            count -= first;
            if self.more.is_empty() {
                return true;
            }
            self.drop_first(pool);
        }
        false
    }

    /// Takes bytes off the first chunk, which has more.
    fn cut(&mut self, count: usize) {
        if !self.head.is_empty() {
            self.sent += count;
            return;
        }
        match self.more.front_mut() {
            Some(Chunk::Shared(bytes)) => bytes.advance(count),
            Some(Chunk::File(part)) => part.advance(count),
            Some(Chunk::Copied(_)) | None => return,
        }
        self.more_bytes -= count;
    }

    /// Drops the first chunk, which is not lent.
    fn drop_first(&mut self, pool: &BufferPool) {
        if self.head.is_empty() {
            self.pop_more();
        }
        let next = if let Some(Chunk::Copied(_)) = self.more.front() { self.pop_more() } else { None };
        let next = if let Some(Chunk::Copied(next)) = next { next } else { Vec::new() };
        self.sent = 0;
        let emptied = mem::replace(&mut self.head, next);
        if emptied.capacity() > 0 {
            pool.give(emptied);
        }
    }

    fn pop_more(&mut self) -> Option<Chunk> {
        let chunk = self.more.pop_front()?;
        self.more_bytes -= chunk.len();
        Some(chunk)
    }

    /// Copies the front of the first chunk to `head`, if it is shared: a chunk at most.
    #[cold]
    #[inline(never)]
    pub(super) fn copy_to_head(&mut self) -> Option<()> {
        let bytes = self.bare_front()?.bytes()?;
        let count = bytes.len().min(CHUNK);
        let mut head = Vec::with_capacity(count);
        copy(&mut head, &bytes[..count]);
        if count < self.first_len() {
            self.cut(count);
        } else {
            self.pop_more();
        }
        self.head = head;
        Some(())
    }
}

/// Number of bytes that are copied at a time.
const PIECE_BYTES: usize = 2048;

/// Adds bytes to a buffer, in small pieces. In one piece, a C library may copy them by an
/// instruction of the processor that is many times slower if the addresses of both ends agree in
/// their low bits. Between two buffers that are used again and again, such addresses stay
/// (`docs/costs.md`).
#[inline(always)]
pub(super) fn copy(buffer: &mut Vec<u8>, data: &[u8]) {
    if data.len() <= PIECE_BYTES { buffer.extend_from_slice(data) } else { copy_pieces(buffer, data) }
}

#[inline(never)]
fn copy_pieces(buffer: &mut Vec<u8>, data: &[u8]) {
    buffer.reserve(data.len());
    for piece in data.chunks(PIECE_BYTES) {
        buffer.extend_from_slice(piece);
    }
}
