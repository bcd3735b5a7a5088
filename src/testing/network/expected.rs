//! [`Expected`]: bytes that were named on one side, and have to come next on the other.

use std::collections::VecDeque;

/// Bytes that have to come, in order. What has come is compared and taken off the front.
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

    /// Expects these behind the others.
    pub(super) fn add(&mut self, data: &[u8]) {
        self.0.extend(data);
    }

    /// Takes bytes that have come. Returns how many came beyond the expected ones, or `None` if others were expected.
    pub(super) fn take(&mut self, data: &[u8]) -> Option<usize> {
        let known = data.len().min(self.0.len());
        let (first, second) = self.0.as_slices();
        let split = known.min(first.len());
        let is_same = first[..split] == data[..split] && second[..known - split] == data[split..known];
        self.0.drain(..known);
        is_same.then_some(data.len() - known)
    }
}
