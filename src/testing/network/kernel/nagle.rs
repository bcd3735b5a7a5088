//! Nagle's algorithm and delayed acknowledgements, on networks whose
//! [`Conditions`](super::super::Conditions) have them.
//!
//! | of TCP | rule |
//! |---|---|
//! | a full segment | leaves at once |
//! | a partial one | is held while earlier bytes are unacknowledged, unless Nagle's algorithm is off or the end follows it |
//! | an acknowledgement | leaves with anything sent back, at once for two full segments, and otherwise 40 ms late |

use std::collections::VecDeque;
use std::time::Duration;

use super::streams::Packet;
use super::{Kernel, KernelEvent, SimulatedSocket, SocketId};

/// Bytes and acknowledgements that one end holds back.
#[derive(Default)]
pub(super) struct Nagle {
    /// Bytes taken from the owner and not yet on the wire.
    held: VecDeque<u8>,
    /// Bytes sent and not yet acknowledged.
    unacknowledged: usize,
    /// Bytes arrived and not yet acknowledged to the other end.
    unanswered: usize,
    /// A delayed acknowledgement is scheduled.
    is_late: bool,
}

impl Kernel {
    /// Returns `true` if a socket may hold small segments back.
    pub(super) fn may_hold(&self, id: SocketId) -> bool {
        let is_tcp = matches!(self.sockets.get(id), Some(SimulatedSocket::Stream(stream)) if !stream.is_unix());
        self.conditions.nagle && is_tcp
    }

    /// Queues bytes, and transmits those that Nagle's algorithm lets go.
    pub(super) fn send_or_hold(&mut self, id: SocketId, data: &[u8]) {
        if let Some(stream) = self.stream(id) {
            stream.nagle.held.extend(data);
        }
        self.push_out(id, false);
    }

    /// Transmits held bytes: those that Nagle's algorithm lets go, or `all`.
    pub(super) fn push_out(&mut self, id: SocketId, all: bool) {
        let full = self.full_segment();
        while let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) {
            let (held, is_free) = (stream.nagle.held.len(), stream.no_delay || stream.nagle.unacknowledged == 0);
            let size = if held >= full || all || is_free { held.min(full) } else { 0 };
            if size == 0 {
                return;
            }
            stream.nagle.unacknowledged += size;
            let bytes = stream.nagle.held.drain(..size).collect();
            self.transmit(id, Packet::Data(bytes));
            self.acknowledge(id);
        }
    }

    /// Turns Nagle's algorithm off (`true`), which releases held bytes, or on.
    pub(crate) fn set_no_delay(&mut self, id: SocketId, on: bool) {
        let Some(stream) = self.stream(id) else { return };
        stream.no_delay = on;
        self.push_out(id, false);
    }

    /// Counts arrived bytes, and acknowledges them at once or schedules it.
    pub(super) fn answer_late(&mut self, id: SocketId, count: usize) {
        let (full, at) = (self.full_segment(), self.now + DELAYED_ACK);
        let Some(stream) = self.stream(id) else { return };
        stream.nagle.unanswered += count;
        if stream.nagle.unanswered >= 2 * full {
            self.acknowledge(id);
        } else if !std::mem::replace(&mut stream.nagle.is_late, true) {
            self.later(at, KernelEvent::Acknowledges(id));
        }
    }

    /// Sends an acknowledgement whose delay is over.
    pub(super) fn answer_now(&mut self, id: SocketId) {
        if let Some(stream) = self.stream(id) {
            stream.nagle.is_late = false;
            self.acknowledge(id);
        }
    }

    fn acknowledge(&mut self, id: SocketId) {
        let Some(stream) = self.stream(id) else { return };
        let (peer, count) = (stream.peer, std::mem::take(&mut stream.nagle.unanswered));
        if count > 0 {
            let at = self.now + self.latency();
            self.later(at, KernelEvent::Acknowledged(peer, count));
        }
    }

    /// Handles an acknowledgement from the other end.
    pub(super) fn acknowledged(&mut self, id: SocketId, count: usize) {
        if let Some(stream) = self.stream(id) {
            stream.nagle.unacknowledged = stream.nagle.unacknowledged.saturating_sub(count);
            self.push_out(id, false);
        }
    }

    /// Bytes of a full segment.
    fn full_segment(&self) -> usize {
        self.conditions.segment.min(ETHERNET_SEGMENT_BYTES)
    }
}

impl Nagle {
    /// Returns `true` if no bytes are held or wait for an acknowledgement.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.held.is_empty() && self.unacknowledged == 0
    }

    /// Drops the held bytes.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.unacknowledged = 0;
    }
}

/// The delay of an acknowledgement. 40 ms, the minimum of Linux.
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// Bytes of a full segment on an Ethernet; networks without a limit of their own use it.
const ETHERNET_SEGMENT_BYTES: usize = 1460;
