//! [`DatagramQueue`]: the datagrams that wait because the socket or their receiver is full.
//!
//! - All bytes stand in one buffer, one datagram behind the other. So a queued datagram costs no
//!   allocation of its own, and a batch is a list of slices.
//! - The queue is bounded in bytes. Each datagram counts [`COST`] bytes more than it has, so empty
//!   datagrams are bounded too.
//! - A datagram that finds no room is refused. The queue never drops an earlier one in its place.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::driver::Destination;
use crate::address::UnixAddress;

/// Bytes that a datagram counts beside its own. 64: about the size of its entry, rounded up.
pub(crate) const COST: usize = 64;

/// Bytes of the datagrams that leave together as a [`Run`]. 65,000: the system takes as many as one
/// datagram may have, which is 65,535 with its headers.
const MOST_RUN_BYTES: usize = 65_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct DatagramQueue {
    /// The bytes of the queued datagrams, behind those of the sent ones.
    bytes: Vec<u8>,
    /// The start of the first queued datagram.
    start: usize,
    entries: VecDeque<QueuedDatagram>,
    /// The receiver of the datagrams that have no destination of their own. `None` is the peer of a
    /// connected socket.
    receiver: Option<UnixAddress>,
    limit: usize,
}

/// The length and the destination of a queued datagram. `None` is the receiver of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct QueuedDatagram {
    length: usize,
    to: Option<SocketAddr>,
}

impl QueuedDatagram {
    /// Returns `true` if this one and those behind it, `bytes` together, make a run with `next`.
    fn is_run_with(&self, next: &Self, bytes: usize) -> bool {
        next.to == self.to && (1..=self.length).contains(&next.length) && bytes + next.length <= MOST_RUN_BYTES
    }
}

/// Datagrams of one length to one destination, in order. The last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    /// The bytes of all of them.
    pub(crate) data: &'a [u8],
    pub(crate) to: Destination<'a>,
    pub(crate) count: usize,
    /// The length of the first.
    pub(crate) length: usize,
}

impl DatagramQueue {
    /// Makes a queue for `limit` bytes, the costs of the datagrams included.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, entries: VecDeque::new(), receiver: None, limit }
    }

    /// Makes a queue for one receiver. Its limit is kept by its owner.
    pub(crate) fn to(receiver: UnixAddress) -> Self {
        Self { receiver: Some(receiver), ..Self::new(usize::MAX) }
    }

    /// Queues a datagram. Returns `false` if there is no room.
    #[inline]
    pub(crate) fn push(&mut self, data: &[u8], to: Option<SocketAddr>) -> bool {
        if self.size().saturating_add(data.len()).saturating_add(COST) > self.limit {
            return false;
        }
        self.bytes.extend_from_slice(data);
        self.entries.push_back(QueuedDatagram { length: data.len(), to });
        true
    }

    /// Returns the first datagrams, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Destination<'_>)> {
        self.runs(1).map(|run| (run.data, run.to))
    }

    /// Returns the first datagrams, in order, in runs of up to `most`.
    pub(crate) fn runs(&self, most: usize) -> impl Iterator<Item = Run<'_>> {
        let receiver = self.receiver();
        let mut rest = &self.bytes[self.start..];
        let mut entries = self.entries.iter();
        std::iter::from_fn(move || {
            let first = entries.next()?;
            let (mut count, mut bytes, mut last) = (1, first.length, first.length);
            while count < most && last == first.length {
                let behind = entries.clone();
                let Some(next) = entries.next().filter(|next| first.is_run_with(next, bytes)) else {
                    entries = behind;
                    break;
                };
                (count, bytes, last) = (count + 1, bytes + next.length, next.length);
            }
            let (data, behind) = rest.split_at(bytes);
            rest = behind;
            Some(Run { data, to: first.to.map_or(receiver, Destination::Inet), count, length: first.length })
        })
    }

    /// Returns the destination of datagrams that have none of their own.
    pub(crate) fn receiver(&self) -> Destination<'_> {
        self.receiver.as_ref().map_or(Destination::Peer, Destination::Unix)
    }

    /// Removes the first `count` datagrams.
    pub(crate) fn remove(&mut self, count: usize) {
        for entry in self.entries.drain(..count.min(self.entries.len())) {
            self.start += entry.length;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > self.bytes.len() / 2 {
            // Each byte is moved at most once for each byte that was sent.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Returns the number of datagrams.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the size that counts against the limit.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() - self.start + self.entries.len() * COST
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Option<SocketAddr> {
        Some(([127, 0, 0, 1], port).into())
    }

    /// Runs have datagrams of one length and one destination, up to a shorter one, which ends them.
    #[test]
    fn runs_have_one_length() {
        let mut queue = DatagramQueue::new(1_000_000);
        let sent =
            [(4, 1), (4, 1), (3, 1), (3, 1), (4, 1), (0, 1), (0, 1), (4, 1), (4, 2), (5, 2), (5, 2), (5, 2), (5, 2)];
        for (length, port) in sent {
            assert!(queue.push(&[port as u8; 5][..length], to(port)));
        }
        let runs =
            |most: usize| queue.runs(most).map(|run| (run.count, run.length, run.data.len())).collect::<Vec<_>>();
        let alone = sent.map(|(length, _)| (1, length, length));
        assert_eq!(runs(1), alone);
        let expected =
            [(3, 4, 11), (1, 3, 3), (1, 4, 4), (1, 0, 0), (1, 0, 0), (1, 4, 4), (1, 4, 4), (3, 5, 15), (1, 5, 5)];
        assert_eq!(runs(3), expected);
        assert!(
            queue
                .runs(3)
                .all(|run| run.data.iter().all(|byte| Some(run.to) == to((*byte).into()).map(Destination::Inet)))
        );
        // A run is not longer than one datagram may be.
        let mut queue = DatagramQueue::new(1_000_000);
        for _ in 0..5 {
            assert!(queue.push(&[0; 30_000], to(1)));
        }
        assert_eq!(queue.runs(64).map(|run| run.count).collect::<Vec<_>>(), [2, 2, 1]);
    }

    /// Datagrams leave in order, with their boundaries and destinations, empty ones too.
    #[test]
    fn datagrams_keep_their_boundaries() {
        let mut queue = DatagramQueue::new(10_000);
        let sent: [(&[u8], _); 4] = [(b"one", to(1)), (b"", to(2)), (b"three", None), (b"4", to(4))];
        for (data, to) in sent {
            assert!(queue.push(data, to));
        }
        let sent = sent.map(|(data, to)| (data, to.map_or(Destination::Peer, Destination::Inet)));
        assert_eq!(queue.iter().collect::<Vec<_>>(), sent);
        queue.remove(3);
        assert_eq!(queue.iter().collect::<Vec<_>>(), sent[3..]);
        assert!(queue.push(b"five", None));
        queue.remove(9);
        assert!(queue.is_empty() && queue.size() == 0 && queue.iter().next().is_none());
    }

    /// The limit holds at its edge, and for datagrams without a byte.
    #[test]
    fn the_limit_counts_bytes_and_datagrams() {
        let mut queue = DatagramQueue::new(2 * COST + 10);
        assert!(queue.push(b"12345", None));
        assert!(!queue.push(b"123456", None), "one byte too many");
        assert!(queue.push(b"12345", None));
        assert!(!queue.push(b"", None), "an empty datagram has a cost");
        queue.remove(1);
        assert!(queue.push(b"", None));
        let mut empty = DatagramQueue::new(100 * COST);
        assert_eq!((0..1_000).filter(|_| empty.push(b"", None)).count(), 100);
    }

    /// Sent bytes do not pile up in front of a queue that is never empty.
    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut queue = DatagramQueue::new(100_000);
        assert!(queue.push(&[0; 100], None));
        for byte in 1..=200_u8 {
            assert!(queue.push(&[byte; 100], None));
            queue.remove(1);
            assert_eq!(queue.iter().next(), Some((&[byte; 100][..], Destination::Peer)));
        }
        assert!(queue.bytes.len() <= 400, "{} bytes are kept for one datagram", queue.bytes.len());
    }
}
