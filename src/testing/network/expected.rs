//! [`Expected`]: bytes recorded on one side of a joint, to be compared with those on the other.

use std::collections::VecDeque;

/// Bytes that must come next, in order.
#[derive(Default)]
pub(super) struct Expected(VecDeque<u8>);

impl Expected {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends bytes.
    pub(super) fn add(&mut self, data: &[u8]) {
        self.0.extend(data);
    }

    /// Puts bytes back in front.
    pub(super) fn put_back(&mut self, data: &[u8]) {
        data.iter().rev().for_each(|byte| self.0.push_front(*byte));
    }

    /// Takes arrived bytes off the front. Returns the number of bytes beyond the expected ones, or
    /// `None` if the bytes differ.
    pub(super) fn take(&mut self, data: &[u8]) -> Option<usize> {
        let known = data.len().min(self.0.len());
        let (first, second) = self.0.as_slices();
        let split = known.min(first.len());
        let is_same = first[..split] == data[..split] && second[..known - split] == data[split..known];
        self.0.drain(..known);
        is_same.then_some(data.len() - known)
    }
}
