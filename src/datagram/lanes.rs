//! [`DatagramLanes`]: the queues of a datagram port, under one limit.
//!
//! - The shared lane holds the datagrams of a full socket, in the order of their writes.
//! - A UNIX socket is refused by a full receiver, while other receivers have room. So each full
//!   receiver has a lane of its own, and holds up no other. Datagrams to one receiver stay in
//!   order.
//! - A lane exists while it has datagrams.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::driver::Destination;
use super::queue::{COST, DatagramQueue};
use crate::address::UnixAddress;

/// See the module.
#[derive(Debug)]
pub(crate) struct DatagramLanes {
    shared: DatagramQueue,
    receivers: BTreeMap<UnixAddress, DatagramQueue>,
    /// Bytes and costs in the lanes of the receivers.
    receivers_size: usize,
    /// The receiver whose lane was taken last.
    last: Option<UnixAddress>,
    limit: usize,
}

impl DatagramLanes {
    /// Makes lanes for `limit` bytes, the costs of the datagrams included.
    pub(super) fn new(limit: usize) -> Self {
        Self { shared: DatagramQueue::new(limit), receivers: BTreeMap::new(), receivers_size: 0, last: None, limit }
    }

    /// Returns `true` if a datagram has to wait behind others.
    pub(super) fn holds(&self, to: Destination<'_>) -> bool {
        match to {
            Destination::Peer | Destination::Inet(_) => !self.shared.is_empty(),
            Destination::Unix(to) => self.receivers.contains_key(to),
        }
    }

    /// Queues a datagram. Returns `false` if there is no room.
    #[inline]
    pub(super) fn push(&mut self, data: &[u8], to: Destination<'_>) -> bool {
        let address = match to {
            Destination::Peer => None,
            Destination::Inet(to) => Some(to),
            Destination::Unix(to) => return self.push_to_receiver(data, to),
        };
        // Only a UNIX socket has other lanes.
        (self.receivers_size == 0 || self.has_room(data)) && self.shared.push(data, address)
    }

    #[inline(never)]
    fn push_to_receiver(&mut self, data: &[u8], to: &UnixAddress) -> bool {
        if !self.has_room(data) {
            return false;
        }
        self.receivers_size += data.len() + COST;
        match self.receivers.get_mut(to) {
            Some(lane) => lane.push(data, None),
            None => self.receivers.entry(to.clone()).or_insert_with(|| DatagramQueue::to(to.clone())).push(data, None),
        }
    }

    fn has_room(&self, data: &[u8]) -> bool {
        self.size().saturating_add(data.len()).saturating_add(COST) <= self.limit
    }

    pub(super) fn shared(&mut self) -> &mut DatagramQueue {
        &mut self.shared
    }

    /// Takes the lane of a receiver out: the next one in a round over all of them.
    pub(super) fn take_next(&mut self) -> Option<DatagramQueue> {
        let behind = |last: &UnixAddress| (Bound::Excluded(last.clone()), Bound::Unbounded);
        let next = self.last.as_ref().and_then(|last| self.receivers.range(behind(last)).next());
        let to = next.or_else(|| self.receivers.iter().next())?.0.clone();
        let lane = self.receivers.remove(&to)?;
        self.receivers_size -= lane.size();
        self.last = Some(to);
        Some(lane)
    }

    /// Puts a lane back that [`take_next`](Self::take_next) has just returned, unless it is empty.
    pub(super) fn put_back(&mut self, lane: DatagramQueue) {
        if let (false, Some(to)) = (lane.is_empty(), &self.last) {
            self.receivers_size += lane.size();
            self.receivers.insert(to.clone(), lane);
        }
    }

    /// Returns the number of receivers that are full.
    pub(super) fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// Returns `true` if the shared lane is empty.
    pub(super) fn is_shared_empty(&self) -> bool {
        self.shared.is_empty()
    }

    /// Returns the size that counts against the limit.
    pub(super) fn size(&self) -> usize {
        self.shared.size() + self.receivers_size
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shared.set_limit(limit);
    }

    /// Removes all datagrams, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> UnixAddress {
        UnixAddress::abstract_name(name).expect("a name")
    }

    fn to(lane: &DatagramQueue) -> String {
        match lane.iter().next() {
            Some((_, Destination::Unix(to))) => to.to_string(),
            other => panic!("no receiver: {other:?}"),
        }
    }

    /// A receiver holds up its own datagrams alone, and the limit is for all together.
    #[test]
    fn a_receiver_holds_up_its_own_datagrams() {
        let (a, b) = (name("a"), name("b"));
        let mut lanes = DatagramLanes::new(3 * COST + 3);
        assert!(lanes.push(b"1", Destination::Unix(&a)));
        assert!(lanes.holds(Destination::Unix(&a)));
        assert!(!lanes.holds(Destination::Unix(&b)) && !lanes.holds(Destination::Peer));
        assert!(lanes.push(b"2", Destination::Unix(&b)) && lanes.push(b"3", Destination::Peer));
        assert!(lanes.holds(Destination::Peer) && !lanes.is_shared_empty());
        for to in [Destination::Unix(&a), Destination::Unix(&b), Destination::Peer] {
            assert!(!lanes.push(b"", to), "{to:?} has no room");
        }
        assert_eq!((lanes.size(), lanes.receivers()), (3 * COST + 3, 2));
        lanes.shared().remove(1);
        assert!(lanes.push(b"4", Destination::Unix(&a)));
        lanes.clear();
        assert_eq!((lanes.size(), lanes.receivers()), (0, 0));
    }

    /// Rounds reach each receiver, and an empty lane disappears.
    #[test]
    fn lanes_take_turns() {
        let mut lanes = DatagramLanes::new(10_000);
        for receiver in ["a", "b", "c"] {
            assert!(lanes.push(receiver.as_bytes(), Destination::Unix(&name(receiver))));
        }
        let mut seen = Vec::new();
        for _ in 0..5 {
            let lane = lanes.take_next().expect("a lane");
            seen.push(to(&lane));
            lanes.put_back(lane);
        }
        assert_eq!(seen, ["@a", "@b", "@c", "@a", "@b"]);
        let mut lane = lanes.take_next().expect("a lane");
        assert_eq!(to(&lane), "@c");
        lane.remove(1);
        lanes.put_back(lane);
        assert_eq!((lanes.receivers(), lanes.size()), (2, 2 * (COST + 1)));
        assert!(!lanes.holds(Destination::Unix(&name("c"))));
    }
}
