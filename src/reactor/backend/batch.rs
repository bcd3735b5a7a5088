//! [`DatagramBatch`]: the datagrams of one receive, and room for them.

use std::num::NonZeroUsize;

use crate::address::Address;

/// Datagrams that one call receives at most. 64: then the call itself costs little beside its
/// datagrams, and the room of a batch is 4 MiB, of which the system provides only what was used.
pub(crate) const BATCH: usize = 64;

/// Bytes between two datagrams. They keep the starts of datagrams out of one set of the processor's
/// cache.
const GAP: usize = 64;

/// Bytes of a room for datagrams that the system has put together: as many as one datagram may
/// have.
const COALESCED_BYTES: usize = 65_535;

/// Bytes of a datagram that are received beside those of the others of its batch, for a call that
/// takes a room in two pieces. Nearly all datagrams fit. In rooms of 64 KiB each would touch a page
/// of its own, which takes a few hundredths of the time of an echo (`docs/decisions/008`).
const HEAD_BYTES: usize = 2048;

/// Bytes from one of these heads to the next.
const HEAD_STRIDE: usize = HEAD_BYTES + GAP;

/// Bytes of all heads of a batch.
const HEADS_BYTES: usize = BATCH * HEAD_STRIDE;

/// A received datagram, or several of one peer, one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReceivedDatagram {
    /// Number of bytes in the batch.
    pub(crate) filled: usize,
    /// The length of each of several datagrams, of which the last may be shorter.
    pub(crate) each: Option<NonZeroUsize>,
    /// The datagram was longer than its room. Its whole length, where the system reports it.
    pub(crate) truncated: Option<Option<usize>>,
    pub(crate) peer: Address,
}

/// A datagram that was taken out of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenDatagram<'a> {
    pub(crate) data: &'a [u8],
    /// The datagram was longer than `data`. Its whole length, where the system reports it.
    pub(crate) truncated: Option<Option<usize>>,
    pub(crate) peer: &'a Address,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DatagramBatch {
    /// The heads, if there are any, and then the rooms. A room begins with a place for its head.
    room: Vec<u8>,
    /// The first bytes of the datagrams are among the heads.
    has_heads: bool,
    /// Bytes that are taken of one datagram.
    most: usize,
    /// The system may put several datagrams into one room.
    coalesces: bool,
    /// Number of rooms for the next receive.
    offered: usize,
    received: Vec<ReceivedDatagram>,
    /// Number of rooms that were taken out.
    taken: usize,
    /// Number of bytes that were taken out of the next room.
    taken_bytes: usize,
}

impl DatagramBatch {
    /// Empties the batch, and makes room for datagrams of up to `most` bytes, and for several in
    /// one room if the socket `coalesces` them.
    pub(crate) fn prepare(&mut self, most: usize, coalesces: bool) {
        self.clear();
        (self.most, self.coalesces, self.offered) = (most, coalesces, BATCH);
        let length = HEADS_BYTES + BATCH * self.stride();
        if self.room.len() < length {
            // Memory that is asked for as zeros is provided by the system when it is written to.
            self.room = vec![0; length];
        }
    }

    /// Sets the number of rooms that a receive may fill: a call prepares each of them, whether it
    /// is filled or not.
    pub(crate) fn offer(&mut self, rooms: usize) {
        self.offered = rooms.min(BATCH);
    }

    /// Removes all datagrams.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
        (self.taken, self.taken_bytes, self.has_heads) = (0, 0, false);
    }

    /// Returns `true` if the system may put several datagrams into one room.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn coalesces(&self) -> bool {
        self.coalesces
    }

    /// Returns the rooms that are free, one for each datagram.
    #[cfg(any(test, feature = "testing", not(any(target_os = "linux", target_os = "android"))))]
    pub(crate) fn rooms(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (bytes, stride) = (self.room_bytes(), self.stride());
        let free = self.received.len() * stride..self.offered * stride;
        self.room[HEADS_BYTES..][free].chunks_exact_mut(stride).map(move |room| &mut room[..bytes])
    }

    /// Returns the rooms that are free in two pieces each. The second one is empty if the first is
    /// large enough.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn rooms_in_pieces(&mut self) -> impl Iterator<Item = [&mut [u8]; 2]> {
        let (bytes, stride) = (self.room_bytes(), self.stride());
        self.has_heads = !self.coalesces && bytes > HEAD_BYTES;
        let has_heads = self.has_heads;
        let (heads, rooms) = self.room.split_at_mut(HEADS_BYTES);
        let rooms = rooms[..self.offered * stride].chunks_exact_mut(stride);
        heads.chunks_exact_mut(HEAD_STRIDE).zip(rooms).skip(self.received.len()).map(move |(head, room)| {
            if has_heads {
                [&mut head[..HEAD_BYTES], &mut room[HEAD_BYTES..bytes]]
            } else {
                [&mut room[..bytes], &mut []]
            }
        })
    }

    /// Records a datagram that is in the first of the free [rooms](Self::rooms).
    pub(crate) fn push(&mut self, datagram: ReceivedDatagram) {
        self.received.push(datagram);
    }

    /// Takes the next datagram.
    pub(crate) fn take(&mut self) -> Option<TakenDatagram<'_>> {
        if self.coalesces {
            return self.take_of_several();
        }
        let ReceivedDatagram { filled, truncated, .. } = *self.received.get(self.taken)?;
        let start = match (self.has_heads, filled <= HEAD_BYTES) {
            (true, true) => self.taken * HEAD_STRIDE,
            (true, false) => self.join_pieces(),
            (false, _) => self.start(),
        };
        self.taken += 1;
        let peer = &self.received[self.taken - 1].peer;
        Some(TakenDatagram { data: &self.room[start..][..filled], truncated, peer })
    }

    /// Takes the next datagram, where a room may have several.
    #[inline(never)]
    fn take_of_several(&mut self) -> Option<TakenDatagram<'_>> {
        let start = self.start() + self.taken_bytes;
        let ReceivedDatagram { filled, each, truncated, peer } = self.received.get(self.taken)?;
        let rest = filled - self.taken_bytes;
        let length = each.map_or(rest, |each| each.get().min(rest));
        if length == rest {
            (self.taken, self.taken_bytes) = (self.taken + 1, 0);
        } else {
            self.taken_bytes += length;
        }
        // The room has more bytes than are taken of one datagram.
        let truncated = if length > self.most { Some(Some(length)) } else { *truncated };
        Some(TakenDatagram { data: &self.room[start..][..length.min(self.most)], truncated, peer })
    }

    /// Returns the start of the next room.
    fn start(&self) -> usize {
        HEADS_BYTES + self.taken * self.stride()
    }

    /// Puts the head of the next datagram in front of the rest of it. Returns its start.
    #[inline(never)]
    fn join_pieces(&mut self) -> usize {
        let (head, start) = (self.taken * HEAD_STRIDE, self.start());
        self.room.copy_within(head..head + HEAD_BYTES, start);
        start
    }

    /// Returns `true` if all datagrams were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.received.len()
    }

    /// Returns `true` if all rooms that were offered are filled.
    pub(crate) fn is_full(&self) -> bool {
        self.received.len() == self.offered
    }

    /// Returns the number of rooms that are filled.
    pub(crate) fn filled_rooms(&self) -> usize {
        self.received.len()
    }

    /// Returns the length of each room.
    pub(crate) fn room_bytes(&self) -> usize {
        if self.coalesces { COALESCED_BYTES.max(self.most) } else { self.most }
    }

    fn stride(&self) -> usize {
        self.room_bytes() + GAP
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
            batch.prepare(most, false);
            assert_eq!(batch.rooms().count(), BATCH);
            for number in 0..BATCH as u8 {
                let room = batch.rooms().next().expect("there is room");
                assert_eq!(room.len(), most);
                room.fill(number);
                batch.push(ReceivedDatagram { filled: most, each: None, truncated: None, peer: peer.clone() });
            }
            assert!(batch.rooms().next().is_none());
            for number in 0..BATCH as u8 {
                assert!(!batch.is_empty());
                let datagram = batch.take().expect("a datagram");
                assert_eq!((datagram.data, datagram.truncated), (&vec![number; most][..], None));
            }
            assert!(batch.is_empty() && batch.take().is_none());
        }
    }

    /// Datagrams that came in two pieces are whole, of every length around that of the first piece.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn datagrams_in_pieces_are_whole() {
        let mut batch = DatagramBatch::default();
        let peer = Address::Inet(([127, 0, 0, 1], 7).into());
        for (most, coalesces) in
            [(3000, false), (HEAD_BYTES + 1, false), (HEAD_BYTES, false), (70, false), (3000, true)]
        {
            batch.prepare(most, coalesces);
            let lengths = [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 2999, 3000].map(|length| length.min(most));
            let pattern: Vec<u8> = (0..3000_usize).map(|at| (at % 251) as u8).collect();
            for (number, length) in lengths.into_iter().enumerate() {
                let pieces = batch.rooms_in_pieces().next().expect("there is room");
                assert_eq!(pieces[1].is_empty(), coalesces || most <= HEAD_BYTES);
                let places = pieces.into_iter().flatten();
                places.zip(&pattern[..length]).for_each(|(place, byte)| *place = byte.wrapping_add(number as u8));
                batch.push(ReceivedDatagram { filled: length, each: None, truncated: None, peer: peer.clone() });
            }
            for (number, length) in lengths.into_iter().enumerate() {
                let data = batch.take().expect("a datagram").data;
                assert!(data.iter().zip(&pattern).all(|(byte, own)| *byte == own.wrapping_add(number as u8)));
                assert_eq!(data.len(), length, "{most} bytes at most");
            }
        }
    }

    /// Datagrams that the system has put together come out one by one, each cut to the length that
    /// is taken, beside those that came alone.
    #[test]
    fn coalesced_datagrams_come_out_one_by_one() {
        let mut batch = DatagramBatch::default();
        let peer = Address::Inet(([127, 0, 0, 1], 7).into());
        batch.prepare(4, true);
        for (bytes, each) in
            [(&b"aaaaabbbbbcc"[..], NonZeroUsize::new(5)), (b"", None), (b"ddd", None), (b"eeff", NonZeroUsize::new(2))]
        {
            let room = batch.rooms().next().expect("there is room");
            assert_eq!(room.len(), COALESCED_BYTES);
            room[..bytes.len()].copy_from_slice(bytes);
            batch.push(ReceivedDatagram { filled: bytes.len(), each, truncated: None, peer: peer.clone() });
        }
        let cut = Some(Some(5));
        let expected: [(&[u8], _); 7] =
            [(b"aaaa", cut), (b"bbbb", cut), (b"cc", None), (b"", None), (b"ddd", None), (b"ee", None), (b"ff", None)];
        for (data, truncated) in expected {
            assert!(!batch.is_empty());
            assert_eq!(batch.take(), Some(TakenDatagram { data, truncated, peer: &peer }));
        }
        assert!(batch.is_empty() && batch.take().is_none());
    }
}
