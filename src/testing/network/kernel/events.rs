//! [`EventQueue`]: the events of a network that are still to come, in the order of time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use super::SocketId;
use super::sent_datagrams::DatagramUnderWay;

#[derive(Debug)]
pub(super) enum KernelEvent {
    /// An attempt to connect reaches the other host.
    Arrives(SocketId),
    /// The answer to an attempt reaches its socket.
    Answered(SocketId),
    /// A packet on the wire of a socket may have arrived.
    Wire(SocketId),
    /// The sender learns that this many bytes were read.
    Read(SocketId, usize),
    /// A delayed acknowledgement of a receiver is due.
    Acknowledges(SocketId),
    /// An acknowledgement of this many bytes reaches their sender.
    Acknowledged(SocketId, usize),
    /// A datagram arrives.
    Datagram(Box<DatagramUnderWay>),
    /// A socket learns that nothing receives its datagrams at this address.
    Refused(SocketId, SocketAddr),
}

/// Events by their time. Of two at the same time, the one scheduled first comes first.
#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<ScheduledEvent>,
    scheduled: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, at: Duration, event: KernelEvent) {
        self.scheduled += 1;
        self.heap.push(ScheduledEvent { at, number: self.scheduled, event });
    }

    /// Returns the time of the next event.
    pub(super) fn next_time(&self) -> Option<Duration> {
        self.heap.peek().map(|next| next.at)
    }

    /// Takes the next event that is due at `now`, with its time.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(Duration, KernelEvent)> {
        if self.heap.peek()?.at > now {
            return None;
        }
        self.heap.pop().map(|next| (next.at, next.event))
    }
}

/// An event with its place in the order. The earliest is the greatest, as a heap has it on top.
struct ScheduledEvent {
    at: Duration,
    number: u64,
    event: KernelEvent,
}

impl Ord for ScheduledEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for ScheduledEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ScheduledEvent {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for ScheduledEvent {}
