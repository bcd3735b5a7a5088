//! [`DatagramUnderWay`], and the record of its sending, with which its reception is compared: it
//! must be unchanged, and come no more often than the network has made copies.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::{FaultList, SocketId};

/// A datagram under way to one host.
#[derive(Debug)]
pub(super) struct DatagramUnderWay {
    pub(super) sender: SocketId,
    pub(super) from_host: IpAddr,
    pub(super) there: IpAddr,
    /// The interface of the members, if it goes to a group.
    pub(super) interface: u32,
    pub(super) data: Rc<[u8]>,
    pub(super) record: Rc<SentRecord>,
    /// Bytes of the sender's buffer that are free when it has arrived.
    pub(super) frees: usize,
    pub(super) is_lost: bool,
}

/// The record of a sent datagram.
#[derive(Debug)]
pub(super) struct SentRecord {
    pub(super) number: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    checksum: u64,
    /// Receptions that are still permitted.
    permitted: Cell<usize>,
}

impl SentRecord {
    pub(super) fn new(number: u64, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Self {
        Self { number, from, to, checksum: checksum(data), permitted: Cell::new(0) }
    }

    /// Checks a reception: the data is unchanged, and comes no more often than was permitted.
    pub(super) fn check(&self, data: &[u8], faults: &mut FaultList) {
        let Self { number, from, to, .. } = *self;
        if checksum(data) != self.checksum {
            faults.add(format_args!("datagram {number} from {from} to {to} was changed"));
        }
        match self.permitted.get().checked_sub(1) {
            Some(rest) => self.permitted.set(rest),
            None => faults.add(format_args!("datagram {number} from {from} to {to} comes too often")),
        }
    }

    /// Permits receptions.
    pub(super) fn permit(&self, receptions: usize) {
        self.permitted.set(self.permitted.get() + receptions);
    }
}

/// FNV-1a over whole words, and the rest byte by byte.
fn checksum(data: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = data.as_chunks::<8>();
    let hash = words.iter().fold(data.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, (*byte).into()))
}
