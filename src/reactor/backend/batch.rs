//! [`DatagramBatch`]: the datagrams of one receive, and room for them.

use crate::address::Address;

/// Datagrams that one call receives at most. 64: then the call itself costs little beside its
/// datagrams, and the room of a batch is 4 MiB, of which the system provides only what was used.
pub(crate) const BATCH: usize = 64;

/// Bytes between two datagrams. They keep the starts of datagrams out of one set of the processor's
/// cache.
const GAP: usize = 64;

/// A received datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReceivedDatagram {
    /// Number of its bytes in the batch.
    pub(crate) filled: usize,
    /// The datagram was longer than its room. Its whole length, where the system reports it.
    pub(crate) truncated: Option<Option<usize>>,
    pub(crate) peer: Address,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DatagramBatch {
    room: Vec<u8>,
    /// Bytes that are taken of one datagram.
    most: usize,
    received: Vec<ReceivedDatagram>,
    /// Number of datagrams that were taken out.
    taken: usize,
}

impl DatagramBatch {
    /// Empties the batch, and makes room for datagrams of up to `most` bytes.
    pub(crate) fn prepare(&mut self, most: usize) {
        self.clear();
        self.most = most;
        let length = BATCH * self.stride();
        if self.room.len() < length {
            // Memory that is asked for as zeros is provided by the system when it is written to.
            self.room = vec![0; length];
        }
    }

    /// Removes all datagrams.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
        self.taken = 0;
    }

    /// Returns the rooms that are free, one for each datagram.
    pub(crate) fn rooms(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (most, stride) = (self.most, self.stride());
        self.room.chunks_exact_mut(stride).take(BATCH).skip(self.received.len()).map(move |room| &mut room[..most])
    }

    /// Records a datagram that is in the first of the free [rooms](Self::rooms).
    pub(crate) fn push(&mut self, datagram: ReceivedDatagram) {
        self.received.push(datagram);
    }

    /// Takes the next datagram.
    pub(crate) fn take(&mut self) -> Option<(&ReceivedDatagram, &[u8])> {
        let datagram = self.received.get(self.taken)?;
        let start = self.taken * (self.most + GAP);
        self.taken += 1;
        Some((datagram, &self.room[start..start + datagram.filled]))
    }

    /// Returns `true` if all datagrams were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.received.len()
    }

    /// Returns `true` if there is no room for another datagram.
    pub(crate) fn is_full(&self) -> bool {
        self.received.len() == BATCH
    }

    fn stride(&self) -> usize {
        self.most + GAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams come out in order with their bytes, and a batch is used again for other lengths.
    #[test]
    fn datagrams_come_out_in_order() {
        let mut batch = DatagramBatch::default();
        assert!(batch.is_empty() && batch.take().is_none());
        let peer = Address::Inet(([127, 0, 0, 1], 7).into());
        for most in [3, 0, 70_000] {
            batch.prepare(most);
            assert_eq!(batch.rooms().count(), BATCH);
            for number in 0..BATCH as u8 {
                let room = batch.rooms().next().expect("there is room");
                assert_eq!(room.len(), most);
                room.fill(number);
                batch.push(ReceivedDatagram { filled: most, truncated: None, peer: peer.clone() });
            }
            assert!(batch.rooms().next().is_none());
            for number in 0..BATCH as u8 {
                assert!(!batch.is_empty());
                let (datagram, data) = batch.take().expect("a datagram");
                assert_eq!((datagram.filled, data), (most, &vec![number; most][..]));
            }
            assert!(batch.is_empty() && batch.take().is_none());
        }
    }
}
