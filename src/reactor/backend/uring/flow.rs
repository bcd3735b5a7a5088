//! [`Flow`]: a TCP stream, and its requests to the kernel.

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

/// The flags that a stream without a receive is polled for.
pub(super) const FAILED: PollFlags = PollFlags::ERR.union(PollFlags::HUP);

/// Completions in a connection's backlog at which its receive is cancelled. 16: four turns' worth,
/// so that the next receive returns its first bytes by the time they are used up.
const BACKLOG: usize = 16;

/// A TCP stream: see the module.
pub(super) struct Flow {
    pub(super) socket: OwnedFd,
    /// The reactor wants received bytes.
    pub(super) receiving: bool,
    /// A receive is under way.
    pub(super) armed: bool,
    /// The receive was cancelled.
    cancelled: bool,
    /// Receives the bytes that arrived before a fatal error, by plain calls. The stream ends behind
    /// them.
    rest: bool,
    /// The stream was paused. Plain calls empty its socket when it is resumed: a receive of the
    /// ring would fill as many buffers as there are, whatever the stream wants.
    drains: bool,
    /// The peer's end was read.
    pub(super) ended: bool,
    /// A poll for errors is under way.
    pub(super) watched: bool,
    /// A poll for room is under way. It goes on once there was no room for shared bytes or a file.
    pub(super) polls_room: bool,
    /// The number of the chunk in flight.
    pub(super) flight: Option<u32>,
    /// The last turn that handed over bytes, and the number of bytes in that turn.
    turn: u32,
    taken: u32,
    /// Arrivals that wait for the next turns.
    #[expect(clippy::box_collection, reason = "in each stream, a pointer takes less than an empty queue")]
    backlog: Option<Box<VecDeque<Arrival>>>,
}

/// The outcome of a receive.
pub(super) enum Arrival {
    Bytes(Buffer),
    End,
    Broken(io::Error),
}

impl Arrival {
    /// Returns the number of bytes that count against a turn's budget.
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
            drains: false,
            ended: false,
            watched: false,
            polls_room: false,
            flight: None,
            turn: 0,
            taken: 0,
            backlog: None,
        }
    }

    /// Starts or stops receiving. Returns `true` if the stream is to be visited in the next turn.
    pub(super) fn receive(&mut self, id: Id, on: bool, ring: &mut Ring) -> bool {
        self.drains |= self.receiving && !on;
        self.receiving = on;
        if on || !self.armed {
            self.arm(id, ring);
        } else {
            self.stop(id, ring);
        }
        self.is_plain()
    }

    /// Returns `true` if plain calls receive, in the place of the ring.
    fn is_plain(&self) -> bool {
        self.receiving && (self.rest || self.drains)
    }

    /// Starts a receive, or a poll for errors, unless it is under way or the backlog is not empty.
    pub(super) fn arm(&mut self, id: Id, ring: &mut Ring) {
        let socket = self.socket.as_raw_fd();
        if self.backlog.is_some() {
            return;
        }
        if self.is_plain() {
            // `next` receives.
        } else if self.receiving && !self.ended {
            if !mem::replace(&mut self.armed, true) {
                ring.receive(id, socket);
            }
        } else if !mem::replace(&mut self.watched, true) {
            ring.poll(Kind::Poll, id, socket, FAILED, true);
        }
    }

    /// Starts to receive the bytes that arrived before a fatal error. A receive under way may not
    /// notice the error any more, so it is cancelled. Its bytes come first.
    pub(super) fn receive_rest(&mut self, id: Id, ring: &mut Ring) {
        (self.receiving, self.rest) = (true, true);
        self.stop(id, ring);
    }

    /// Returns `true` if received bytes were not handed over.
    pub(super) fn has_rest(&self) -> bool {
        !self.ended && (self.armed || self.backlog.is_some() || socket::has_unread(self.socket.as_fd()))
    }

    fn stop(&mut self, id: Id, ring: &mut Ring) {
        if self.armed && !mem::replace(&mut self.cancelled, true) {
            ring.cancel(Kind::Receive, id);
        }
    }

    /// Returns `true` if `count` bytes can be handed over at once: they fit the budget of this
    /// turn, and the backlog is empty. Counts them in that case.
    #[inline(always)]
    pub(super) fn may_take(&mut self, count: u32, turn: u32) -> bool {
        self.backlog.is_none() && self.fits(count, turn)
    }

    /// Handles the outcome of a receive: returns it if it can be handed over in this turn, and
    /// otherwise adds it to the backlog.
    #[inline(always)]
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
            return (arrival, if self.is_plain() { Requeue::NextTurn } else { Requeue::No });
        };
        if backlog.len() >= BACKLOG {
            self.stop(id, ring);
        }
        (arrival, Requeue::NextTurn)
    }

    /// Returns `true` if the stream is about to close, as it usually is, or to be paused: then no
    /// new request is needed.
    fn goes_out(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Bytes(_) => false,
            Arrival::End => self.receiving,
            Arrival::Broken(_) => true,
        }
    }

    /// Takes `count` bytes from the budget of a turn. Returns `false` if they do not fit.
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

    /// Returns the next arrival of the backlog, and when to visit the stream again.
    pub(super) fn next(
        &mut self,
        id: Id,
        turn: u32,
        inbox: &mut Inbox,
        ring: &mut Ring,
    ) -> (Option<BackendEvent>, Requeue) {
        let Some(mut backlog) = self.backlog.take() else { return self.receive_plainly(id, inbox, ring) };
        let first = backlog.front().map_or(0, Arrival::len);
        let arrival = if self.fits(first, turn) { backlog.pop_front() } else { None };
        let requeue = match &arrival {
            None => Requeue::NextTurn,
            Some(_) if !backlog.is_empty() => Requeue::Now,
            Some(arrival) => {
                if !self.goes_out(arrival) {
                    self.arm(id, ring);
                }
                if self.is_plain() { Requeue::NextTurn } else { Requeue::No }
            }
        };
        self.backlog = Some(backlog).filter(|backlog| !backlog.is_empty());
        (arrival.map(|arrival| arrival.into_event(inbox)), requeue)
    }

    /// Receives with one plain call a turn: the bytes that arrived before a fatal error, or during
    /// a pause. The ring goes on behind the latter.
    fn receive_plainly(&mut self, id: Id, inbox: &mut Inbox, ring: &mut Ring) -> (Option<BackendEvent>, Requeue) {
        if !self.is_plain() || self.armed || self.ended {
            return (None, Requeue::No);
        }
        match socket::receive(self.socket.as_fd(), inbox.room().0) {
            // Less than a full buffer does not mean that the socket is empty: the peer's system may
            // have waited for room in it.
            Receive::Full(count) | Receive::Bytes(count) => {
                inbox.fill(count);
                (Some(BackendEvent::Received), Requeue::NextTurn)
            }
            Receive::Starved => (None, Requeue::NextTurn),
            Receive::Empty if !self.rest => {
                self.drains = false;
                self.arm(id, ring);
                (None, Requeue::No)
            }
            Receive::Failed(error) if !self.rest => {
                self.ended = true;
                (Some(Completion::Broken { error, rest: false }.into()), Requeue::No)
            }
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

    /// Sends by plain calls, if the queue is long, has other bytes than copied ones, or the end is
    /// to follow in the same turn. The ring sends the rest, if the stream stays open for it.
    #[inline(never)]
    fn send_plainly(&mut self, id: Id, outgoing: Outgoing<'_>, ring: &mut Ring) -> io::Result<Progress> {
        let Outgoing { queue, descriptors, mode, pool } = outgoing;
        let progress = readiness::send(self.socket.as_fd(), Outgoing { queue: &mut *queue, descriptors, mode, pool })?;
        if matches!(progress, Progress::Blocked(_)) && mode != SendMode::Last {
            if queue.begins_copied() {
                self.send_chunk(id, queue, ring);
            } else if !mem::replace(&mut self.polls_room, true) {
                // The ring would need a copy: plain calls go on when there is room.
                ring.poll(Kind::Room, id, self.socket.as_raw_fd(), PollFlags::OUT, true);
            }
        }
        Ok(progress)
    }

    #[inline(always)]
    fn send_chunk(&mut self, id: Id, queue: &mut SendQueue, ring: &mut Ring) {
        if let Some(in_flight) = queue.lend() {
            self.flight = Some(ring.send(id, self.socket.as_raw_fd(), in_flight));
        }
    }

    /// Closes the stream, behind all its requests.
    pub(super) fn close(self, id: Id, reset: bool, ring: &mut Ring) {
        if reset {
            socket::reset_on_close(self.socket.as_fd());
        } else if !self.ended {
            readiness::read_last(self.socket.as_fd());
        }
        if !self.armed && !self.watched && !self.polls_room && self.flight.is_none() {
            // No request names its descriptor.
            return drop(self.socket);
        }
        if self.armed {
            ring.cancel(Kind::Receive, id);
        }
        if self.watched {
            ring.cancel(Kind::Poll, id);
        }
        if self.polls_room {
            ring.cancel(Kind::Room, id);
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

    /// A turn hands over 64 KiB of a stream. The rest waits, in order. A full backlog cancels the
    /// receive, which is started anew after the last of it.
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

    /// Plain calls receive only the bytes that arrived before a fatal error, and only if no receive
    /// of the ring is under way.
    #[test]
    fn plain_calls_receive_the_rest_only() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let ((socket, mut peer), mut inbox) = (tcp_pair(), Inbox::default());
        peer.write_all(b"rest").expect("the socket is open");
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

    /// An error leaves a rest if bytes are unread, in the backlog, or possibly under way, and none
    /// behind the peer's end.
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
        peer.write_all(b"unread").expect("the socket is open");
        assert!(flow.has_rest());
        flow.ended = true;
        assert!(!flow.has_rest());
    }
}
