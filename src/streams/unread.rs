//! [`Unread`]: the received bytes of a stream that were not read yet.
//!
//! They are in one piece, so that a read is one copy. Read bytes stay in front of the others until
//! the buffer would grow. Then the unread bytes are moved to its front, if they are fewer than the
//! read ones. So each byte is moved at most once on average, and at most half of a buffer is waste.

/// Bytes in order. Without capacity while there are none.
#[derive(Debug, Default)]
pub(super) struct Unread {
    buffer: Vec<u8>,
    /// Number of bytes of the buffer that were read: fewer than all of them.
    read: usize,
}

impl Unread {
    /// Number of unread bytes.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.read
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    #[cfg(all(test, feature = "testing"))]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Adds bytes at the end. `make` returns the buffer for the first ones.
    pub(super) fn push(&mut self, data: &[u8], make: impl FnOnce() -> Vec<u8>) {
        if self.buffer.capacity() == 0 {
            self.buffer = make();
        } else if self.read > self.len() && self.buffer.capacity() - self.buffer.len() < data.len() {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// Returns the first unread bytes, at most `most` of them.
    pub(super) fn front(&self, most: usize) -> &[u8] {
        let unread = &self.buffer[self.read..];
        &unread[..unread.len().min(most)]
    }

    /// Takes `count` bytes off the front, at most [`len`](Self::len). Returns the buffer if none
    /// are left.
    pub(super) fn advance(&mut self, count: usize) -> Option<Vec<u8>> {
        self.read += count;
        if self.read < self.buffer.len() {
            return None;
        }
        self.read = 0;
        Some(std::mem::take(&mut self.buffer))
    }

    /// Returns the buffer, for the pool.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// For all sizes of pushes and reads, the bytes come out in order, an empty one has no
    /// capacity, and the buffer stays within a bound of the unread bytes.
    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (mut unread, mut model) = (Unread::default(), VecDeque::new());
        let mut most = 0;
        for round in 0..3000_usize {
            let data: Vec<u8> = (0..(round * 7919) % 900 + 1).map(|i| (i * 31 + round) as u8).collect();
            unread.push(&data, Vec::new);
            model.extend(&data);
            most = most.max(model.len());
            let count = unread.front((round * 104_729) % 1_000).len();
            let expected: Vec<u8> = model.drain(..count).collect();
            assert_eq!(unread.front(count), expected);
            let emptied = unread.advance(count);
            assert_eq!((unread.len(), unread.is_empty()), (model.len(), model.is_empty()));
            assert_eq!(emptied.is_some(), model.is_empty());
            assert!(unread.capacity() <= 4 * (most + 900), "{} for {most}", unread.capacity());
        }
        assert!(most > 900 && unread.len() == model.len());
    }

    /// A reader that is always one byte behind makes the buffer neither grow nor be moved with each
    /// byte.
    #[test]
    fn a_reader_that_is_a_byte_behind_costs_no_memory() {
        let mut unread = Unread::default();
        unread.push(b"r", Vec::new);
        for _ in 0..100_000 {
            unread.push(b"o", || unreachable!("it has a buffer"));
            assert!(unread.advance(1).is_none());
        }
        assert!(unread.capacity() <= 64, "{}", unread.capacity());
    }
}
