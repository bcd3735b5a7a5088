//! [`Flow`]: a TCP stream, and what was asked of the kernel for it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::PollFlags;

use super::buffers::Buffer;
use super::ring::{Kind, Ring};
use crate::reactor::backend::readiness;
use crate::reactor::backend::socket::{self, Receive};
use crate::reactor::backend::table::Requeue;
use crate::reactor::backend::{BackendEvent, Completion, Inbox, Progress, RECEIVE};
use crate::transport::id::Id;
use crate::transport::outgoing::{Outgoing, SendMode};
use crate::transport::send_queue::SendQueue;

/// What a stream is polled for that is not being received from.
pub(super) const FAILED: PollFlags = PollFlags::ERR.union(PollFlags::HUP);

/// How many completions of a connection may wait before it is received from no more. 16: four turns' worth, so that the next
/// receive has begun to bring something when they are used up.
const BACKLOG: usize = 16;

/// See the module.
pub(super) struct Flow {
    pub(super) socket: OwnedFd,
    /// The reactor wants what comes.
    pub(super) receiving: bool,
    /// There is a receive under way.
    pub(super) armed: bool,
    /// It was told to end.
    cancelled: bool,
    /// Receiving what arrived before a fatal error, by plain calls: when there is no more, that is the end.
    rest: bool,
    /// The peer's end was read.
    pub(super) ended: bool,
    /// It is polled for errors.
    pub(super) watched: bool,
    /// The chunk that is being sent.
    pub(super) flight: Option<u32>,
    /// Which turn it was last handed on for, and how many bytes in that.
    turn: u32,
    taken: u32,
    /// What has to wait for the next turns.
    #[expect(clippy::box_collection, reason = "in each stream, a pointer takes less than an empty queue")]
    backlog: Option<Box<VecDeque<Arrival>>>,
}

/// What a receive came to.
pub(super) enum Arrival {
    Bytes(Buffer),
    End,
    Broken(io::Error),
}

impl Arrival {
    /// How many bytes it takes of a turn's budget.
    fn len(&self) -> u32 {
        if let Self::Bytes(buffer) = self { buffer.len() as u32 } else { 0 }
    }

    pub(super) fn into_event(self, inbox: &mut Inbox) -> BackendEvent {
        match self {
            Self::Bytes(buffer) => {
                inbox.lend(buffer);
                BackendEvent::Received
            }
            Self::End => Completion::EndOfStream.into(),
            Self::Broken(error) => Completion::Broken { error, rest: false }.into(),
        }
    }
}

impl Flow {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receiving: false,
            armed: false,
            cancelled: false,
            rest: false,
            ended: false,
            watched: false,
            flight: None,
            turn: 0,
            taken: 0,
            backlog: None,
        }
    }

    /// Starts or stops receiving.
    pub(super) fn receive(&mut self, id: Id, on: bool, ring: &mut Ring) {
        self.receiving = on;
        if on || !self.armed {
            self.arm(id, ring);
        } else {
            self.stop(id, ring);
        }
    }

    /// Has it received from, or polled for errors, unless that is under way, or enough of it waits here.
    pub(super) fn arm(&mut self, id: Id, ring: &mut Ring) {
        let socket = self.socket.as_raw_fd();
        if self.backlog.is_some() {
            return;
        }
        if self.rest {
            // `next` receives it.
        } else if self.receiving && !self.ended {
            if !mem::replace(&mut self.armed, true) {
                ring.receive(id, socket);
            }
        } else if !mem::replace(&mut self.watched, true) {
            ring.poll(Kind::Poll, id, socket, FAILED, true);
        }
    }

    /// Starts to receive what arrived before a fatal error. A receive that is under way may not hear of that error any more, so it
    /// is cancelled; what it has brought comes first.
    pub(super) fn receive_rest(&mut self, id: Id, ring: &mut Ring) {
        (self.receiving, self.rest) = (true, true);
        self.stop(id, ring);
    }

    /// Whether received bytes were not handed over.
    pub(super) fn has_rest(&self) -> bool {
        !self.ended && (self.armed || self.backlog.is_some() || socket::has_unread(self.socket.as_fd()))
    }

    fn stop(&mut self, id: Id, ring: &mut Ring) {
        if self.armed && !mem::replace(&mut self.cancelled, true) {
            ring.cancel(Kind::Receive, id);
        }
    }

    /// Whether so many bytes can be handed on at once: they fit into the budget of this turn, and nothing waits. Counts them, then.
    #[inline(always)]
    pub(super) fn may_take(&mut self, count: u32, turn: u32) -> bool {
        self.backlog.is_none() && self.fits(count, turn)
    }

    /// A receive came to something: whether it can be handed on, or waits for the next turns.
    pub(super) fn received(
        &mut self,
        id: Id,
        arrival: Option<Arrival>,
        goes_on: bool,
        turn: u32,
        ring: &mut Ring,
    ) -> (Option<Arrival>, Requeue) {
        if !goes_on {
            (self.armed, self.cancelled) = (false, false);
        }
        let goes_out = arrival.as_ref().is_some_and(|arrival| self.goes_out(arrival));
        let arrival = match arrival {
            Some(arrival) if !self.may_take(arrival.len(), turn) => {
                self.backlog.get_or_insert_default().push_back(arrival);
                None
            }
            arrival => arrival,
        };
        if !goes_on && !goes_out {
            self.arm(id, ring);
        }
        let Some(backlog) = &self.backlog else {
            return (arrival, if self.rest { Requeue::NextTurn } else { Requeue::No });
        };
        if backlog.len() >= BACKLOG {
            self.stop(id, ring);
        }
        (arrival, Requeue::NextTurn)
    }

    /// Whether the stream closes over this, as it usually does, or will be told to receive no more: there is nothing to ask for.
    fn goes_out(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Bytes(_) => false,
            Arrival::End => self.receiving,
            Arrival::Broken(_) => true,
        }
    }

    /// Takes so many bytes from the budget of a turn, if they fit.
    #[inline(always)]
    fn fits(&mut self, count: u32, turn: u32) -> bool {
        if mem::replace(&mut self.turn, turn) != turn {
            self.taken = 0;
        }
        let taken = self.taken + count;
        let fits = taken <= RECEIVE as u32;
        if fits {
            self.taken = taken;
        }
        fits
    }

    /// What waits, and when there is more of it.
    pub(super) fn next(
        &mut self,
        id: Id,
        turn: u32,
        inbox: &mut Inbox,
        ring: &mut Ring,
    ) -> (Option<BackendEvent>, Requeue) {
        let Some(mut backlog) = self.backlog.take() else { return self.next_of_rest(inbox) };
        let first = backlog.front().map_or(0, Arrival::len);
        let arrival = if self.fits(first, turn) { backlog.pop_front() } else { None };
        let requeue = match &arrival {
            None => Requeue::NextTurn,
            Some(_) if !backlog.is_empty() => Requeue::Now,
            Some(arrival) => {
                if !self.goes_out(arrival) {
                    self.arm(id, ring);
                }
                if self.rest { Requeue::NextTurn } else { Requeue::No }
            }
        };
        self.backlog = Some(backlog).filter(|backlog| !backlog.is_empty());
        (arrival.map(|arrival| arrival.into_event(inbox)), requeue)
    }

    /// What arrived before a fatal error, one receive a turn.
    fn next_of_rest(&mut self, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        if !self.rest || !self.receiving || self.armed || self.ended {
            return (None, Requeue::No);
        }
        match socket::receive(self.socket.as_fd(), inbox.room().0) {
            Receive::Full(count) | Receive::Bytes(count) => {
                inbox.fill(count);
                (Some(BackendEvent::Received), Requeue::NextTurn)
            }
            Receive::Starved => (None, Requeue::NextTurn),
            Receive::End | Receive::Empty | Receive::Failed(_) => {
                self.ended = true;
                (Some(Completion::EndOfStream.into()), Requeue::No)
            }
        }
    }

    /// Sends by the ring, one chunk at a time.
    #[inline(always)]
    pub(super) fn send(&mut self, id: Id, outgoing: Outgoing<'_>, ring: &mut Ring) -> io::Result<Progress> {
        if outgoing.mode != SendMode::Gather || !outgoing.queue.is_single() {
            return self.send_plainly(id, outgoing, ring);
        }
        self.send_chunk(id, outgoing.queue, ring);
        Ok(Progress::Blocked(0))
    }

    /// Sends by plain calls, where there is much or the end is to follow in the same turn; and the rest by the ring, where the stream
    /// stays for it.
    #[inline(never)]
    fn send_plainly(&mut self, id: Id, outgoing: Outgoing<'_>, ring: &mut Ring) -> io::Result<Progress> {
        let Outgoing { queue, descriptors, mode, pool } = outgoing;
        let progress = readiness::send(self.socket.as_fd(), Outgoing { queue: &mut *queue, descriptors, mode, pool })?;
        if matches!(progress, Progress::Blocked(_)) && mode != SendMode::Last {
            self.send_chunk(id, queue, ring);
        }
        Ok(progress)
    }

    #[inline(always)]
    fn send_chunk(&mut self, id: Id, queue: &mut SendQueue, ring: &mut Ring) {
        if let Some(in_flight) = queue.lend() {
            self.flight = Some(ring.send(id, self.socket.as_raw_fd(), in_flight));
        }
    }

    /// Closes it, behind everything that was asked for it.
    pub(super) fn close(self, id: Id, reset: bool, ring: &mut Ring) {
        if reset {
            socket::reset_on_close(self.socket.as_fd());
        } else if !self.ended {
            readiness::read_last(self.socket.as_fd());
        }
        if !self.armed && !self.watched && self.flight.is_none() {
            // Nothing names its descriptor.
            return drop(self.socket);
        }
        if self.armed {
            ring.cancel(Kind::Receive, id);
        }
        if self.watched {
            ring.cancel(Kind::Poll, id);
        }
        if let Some(flight) = self.flight {
            ring.cancel_flight(flight);
        }
        ring.close(self.socket);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::ring::Done;
    use super::*;
    use crate::reactor::backend::tests::{ID, tcp_pair};

    /// A turn hands on 64 KiB of a stream. The rest waits, in order, and a full backlog cancels the receive, which begins anew behind
    /// the last of it.
    #[test]
    fn a_full_backlog_cancels_the_receive() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let ((socket, _peer), mut inbox) = (tcp_pair(), Inbox::default());
        let mut flow = Flow::new(socket);
        let mut numbers = 0..;
        let mut bytes =
            |ring: &Ring, count| numbers.next().map(|number| Arrival::Bytes(ring.buffer(Done::bytes(number, count))));
        flow.receive(ID, true, &mut ring);
        for _ in 0..4 {
            let arrival = bytes(&ring, RECEIVE / 4);
            let (arrival, requeue) = flow.received(ID, arrival, true, 1, &mut ring);
            assert_eq!((arrival.map(|arrival| arrival.len()), requeue), (Some(RECEIVE as u32 / 4), Requeue::No));
        }
        for n in 1..=BACKLOG {
            assert!(!flow.cancelled, "cancelled before the backlog is full");
            let arrival = bytes(&ring, n);
            let (arrival, requeue) = flow.received(ID, arrival, true, 1, &mut ring);
            assert!(arrival.is_none() && requeue == Requeue::NextTurn);
        }
        assert!(flow.cancelled, "a full backlog does not cancel");
        let (arrival, requeue) = flow.received(ID, None, false, 1, &mut ring);
        assert!(arrival.is_none() && requeue == Requeue::NextTurn && !flow.armed && !flow.cancelled);
        let (event, requeue) = flow.next(ID, 1, &mut inbox, &mut ring);
        assert!(event.is_none() && requeue == Requeue::NextTurn);
        for n in 1..=BACKLOG {
            assert!(!flow.armed, "received from although bytes wait");
            let (event, requeue) = flow.next(ID, 2, &mut inbox, &mut ring);
            assert!(matches!(event, Some(BackendEvent::Received)));
            assert_eq!((inbox.bytes().len(), requeue), (n, if n < BACKLOG { Requeue::Now } else { Requeue::No }));
        }
        assert!(flow.armed && flow.backlog.is_none());
        flow.close(ID, false, &mut ring);
        ring.flush();
    }

    /// Plain calls receive only what arrived before a fatal error, and only when no receive of the ring is under way.
    #[test]
    fn plain_calls_receive_the_rest_only() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let ((socket, mut peer), mut inbox) = (tcp_pair(), Inbox::default());
        peer.write_all(b"rest").expect("we are there");
        let mut flow = Flow::new(socket);
        for (rest, receiving, armed, ended) in [
            (false, false, false, false),
            (false, true, false, false),
            (true, false, false, false),
            (true, true, true, false),
            (true, true, false, true),
        ] {
            (flow.rest, flow.receiving, flow.armed, flow.ended) = (rest, receiving, armed, ended);
            let (event, requeue) = flow.next(ID, 1, &mut inbox, &mut ring);
            assert!(event.is_none() && requeue == Requeue::No, "rest {rest}, receiving {receiving}, armed {armed}");
        }
        flow.ended = false;
        let (event, requeue) = flow.next(ID, 1, &mut inbox, &mut ring);
        assert!(
            matches!(event, Some(BackendEvent::Received)) && inbox.bytes() == b"rest" && requeue == Requeue::NextTurn
        );
        let (event, requeue) = flow.next(ID, 1, &mut inbox, &mut ring);
        assert!(matches!(event, Some(BackendEvent::Other(Completion::EndOfStream))));
        assert!(requeue == Requeue::No && flow.ended);
    }

    /// An error leaves a rest where bytes are unread, wait here, or may be on their way, and none behind the peer's end.
    #[test]
    fn an_error_leaves_a_rest_where_something_was_not_handed_on() {
        let (socket, mut peer) = tcp_pair();
        let mut flow = Flow::new(socket);
        assert!(!flow.has_rest());
        flow.armed = true;
        assert!(flow.has_rest());
        (flow.armed, flow.backlog) = (false, Some(Box::default()));
        assert!(flow.has_rest());
        flow.backlog = None;
        peer.write_all(b"unread").expect("we are there");
        assert!(flow.has_rest());
        flow.ended = true;
        assert!(!flow.has_rest());
    }
}
