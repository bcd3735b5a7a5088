//! [`PolledDatagrams`]: a datagram socket that is polled for readiness, edge-triggered, on mio and
//! on io_uring.
//!
//! The poller reports an edge once. So readable is recorded, and holds until a receive has found
//! the socket empty. The reactor receives a batch of datagrams at a time, within its budget of a
//! turn. When that is used up, [`Backend::receive`](super::Backend::receive) queues the socket for
//! the next turn.

use std::os::fd::{AsFd, OwnedFd};

use super::batch::{BATCH, DatagramBatch};
use super::reported::Readiness;
use super::socket_file::SocketFile;
use super::table::Requeue;
use super::udp::{self, BoundDatagrams, DatagramReceive};
use super::{BackendEvent, Completion};
use crate::address::Address;
use crate::datagram::{DatagramQueue, DatagramSend, Destination, Reach};

/// Datagrams that a receive may bring at least. A call prepares room for each, so the number
/// follows the traffic.
const FEW: usize = 8;

/// See the module.
pub(super) struct PolledDatagrams {
    /// Removed before the socket is closed, so that no peer finds a file without a socket.
    file: Option<SocketFile>,
    pub(super) socket: OwnedFd,
    is_unix: bool,
    /// Runs of datagrams leave as one.
    offload: bool,
    /// There may be a datagram, or an error to receive.
    is_readable: bool,
    /// There may be room, which the poller has reported since the last full send.
    is_writable: bool,
    is_receiving: bool,
    /// Datagrams that the next receive may bring.
    expected: usize,
    /// A send waits for room.
    is_blocked: bool,
    /// The poller is registered for room to write.
    pub(super) is_armed: bool,
}

impl PolledDatagrams {
    /// Makes a source that is registered for reading. Its readiness is unknown. Returns the address
    /// of the socket too, and the addresses that it reaches.
    pub(super) fn new(bound: BoundDatagrams) -> (Self, Address, Reach) {
        let BoundDatagrams { socket, host, reach, file, is_offloaded } = bound;
        let source = Self {
            file,
            socket,
            is_unix: reach == Reach::Unix,
            offload: is_offloaded,
            is_readable: false,
            is_writable: false,
            is_receiving: true,
            expected: FEW,
            is_blocked: false,
            is_armed: false,
        };
        (source, host, reach)
    }

    /// Makes this process the owner of the socket's file, after a fork. The poller is new too.
    pub(super) fn adopt(&mut self) {
        self.is_armed = false;
        if let Some(file) = &mut self.file {
            file.adopt();
        }
    }

    /// Records the readiness that the poller reported. An error is received.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.is_readable |= readiness.has(Readiness::READABLE) || readiness.has(Readiness::FAILED);
        self.is_writable |= readiness.has(Readiness::WRITABLE);
    }

    /// Returns the next event.
    pub(super) fn next(&mut self) -> (Option<BackendEvent>, Requeue) {
        if self.is_blocked && self.is_writable {
            self.is_blocked = false;
            return (Some(Completion::SendReady.into()), Requeue::Now);
        }
        if self.is_receiving && self.is_readable {
            return (Some(Completion::DatagramsReady.into()), Requeue::No);
        }
        (None, Requeue::No)
    }

    /// Starts or stops receiving. Returns `true` if the socket is to be reported.
    pub(super) fn set_receiving(&mut self, on: bool) -> bool {
        self.is_receiving = on;
        self.is_readable |= on;
        on
    }

    /// Receives datagrams.
    pub(super) fn receive(&mut self, batch: &mut DatagramBatch) -> DatagramReceive {
        batch.offer(self.expected);
        let received = udp::receive(self.socket.as_fd(), self.is_unix, batch);
        self.expected = expected_after(self.expected, batch.filled_rooms());
        if let DatagramReceive::Empty = received {
            self.is_readable = false;
        }
        received
    }

    /// Sends a datagram. A full socket waits for room, which the next edge reports.
    pub(super) fn send(&mut self, data: &[u8], to: Destination<'_>) -> DatagramSend {
        let result = udp::send(self.socket.as_fd(), data, to);
        self.note_result(&result);
        result
    }

    /// Sends the first datagrams of a queue.
    pub(super) fn send_queue(&mut self, queue: &DatagramQueue) -> (usize, DatagramSend) {
        let (taken, result) = udp::send_queue(self.socket.as_fd(), queue, &mut self.offload);
        self.note_result(&result);
        (taken, result)
    }

    fn note_result(&mut self, result: &DatagramSend) {
        let is_full = matches!(result, DatagramSend::Full);
        // A UNIX socket may have sent to one receiver while another is full.
        self.is_blocked = is_full || (self.is_unix && self.is_blocked);
        self.is_writable &= !is_full;
    }

    /// Returns `true`, once, if the poller is to be registered for room to write.
    pub(super) fn is_to_be_armed(&mut self) -> bool {
        self.is_blocked && !std::mem::replace(&mut self.is_armed, true)
    }
}

/// Returns the number of datagrams to expect after a receive that has brought some of those that it
/// might have.
fn expected_after(expected: usize, came: usize) -> usize {
    if came == expected {
        (expected * 2).min(BATCH)
    } else if came < expected / 2 {
        (expected / 2).max(FEW)
    } else {
        expected
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::datagram::DatagramSocketOptions;

    /// The number doubles while all that may come does come, and halves when few do, between its
    /// bounds.
    #[test]
    fn the_expected_number_follows_the_traffic() {
        let steps = [(8, 16), (16, 32), (32, 64), (64, 64), (44, 64), (32, 64), (31, 32), (0, 16), (7, 8), (0, 8)];
        let mut expected = FEW;
        for (came, next) in steps {
            expected = expected_after(expected, came);
            assert_eq!(expected, next, "{came} came");
        }
    }

    /// No receive brings more than was expected, and all datagrams come.
    #[test]
    fn all_datagrams_come() {
        let address = Address::Inet(([127, 0, 0, 1], 0).into());
        let bound = udp::bind(&address, &DatagramSocketOptions::new()).expect("a port");
        let (mut port, host, _) = PolledDatagrams::new(bound);
        let (sender, to) = (UdpSocket::bind("127.0.0.1:0").expect("a socket"), host.socket_addr().expect("an address"));
        for _ in 0..100 {
            sender.send_to(b"one of many", to).expect("it is sent");
        }
        let (mut batch, mut came) = (DatagramBatch::default(), 0);
        while came < 100 {
            batch.prepare(100, false);
            let expected = port.expected;
            let received = port.receive(&mut batch);
            let filled = batch.filled_rooms();
            assert!(filled <= expected);
            assert_eq!(matches!(received, DatagramReceive::More), filled == expected, "{received:?}");
            assert_eq!(port.expected, expected_after(expected, filled));
            came += filled;
        }
        assert_eq!(came, 100);
    }
}
