//! [`Flow`]: a TCP stream, and what was asked of the kernel for it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::PollFlags;

use super::ring::{Kind, Ring};
use crate::reactor::backend::readiness;
use crate::reactor::backend::socket;
use crate::reactor::backend::table::Then;
use crate::reactor::backend::{Completion, Progress, RECEIVE};
use crate::transport::agenda::Id;
use crate::transport::send_queue::Spares;
use crate::transport::stream::Stream;

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
    backlog: Option<Box<Backlog>>,
}

/// Completions that wait. Boxed, for few streams ever have any.
#[derive(Default)]
struct Backlog(VecDeque<Completion>);

impl Flow {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receiving: false,
            armed: false,
            cancelled: false,
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
        if self.receiving && !self.ended {
            if !mem::replace(&mut self.armed, true) {
                ring.receive(id, socket);
            }
        } else if !mem::replace(&mut self.watched, true) {
            ring.poll(Kind::Poll, id, socket, FAILED, true);
        }
    }

    fn stop(&mut self, id: Id, ring: &mut Ring) {
        if self.armed && !mem::replace(&mut self.cancelled, true) {
            ring.cancel(Kind::Receive, id);
        }
    }

    /// A receive came to something: whether it fits into the budget of this turn, or waits behind what waits already.
    pub(super) fn received(
        &mut self,
        id: Id,
        completion: Option<Completion>,
        goes_on: bool,
        turn: u32,
        ring: &mut Ring,
    ) -> (Option<Completion>, Then) {
        let is_over = matches!(completion, Some(Completion::Broken(_)));
        let completion = completion.and_then(|completion| self.take_or_keep(completion, turn));
        if !goes_on {
            (self.armed, self.cancelled) = (false, false);
            if !is_over {
                self.arm(id, ring);
            }
        }
        let Some(backlog) = &self.backlog else { return (completion, Then::Rest) };
        if backlog.0.len() >= BACKLOG {
            self.stop(id, ring);
        }
        (completion, Then::Again)
    }

    fn take_or_keep(&mut self, completion: Completion, turn: u32) -> Option<Completion> {
        if self.backlog.is_none() && self.may_take(&completion, turn) {
            return Some(completion);
        }
        self.backlog.get_or_insert_default().0.push_back(completion);
        None
    }

    /// Takes a completion from the budget of a turn, if it fits.
    fn may_take(&mut self, completion: &Completion, turn: u32) -> bool {
        let Completion::Received(chunk) = completion else { return true };
        if mem::replace(&mut self.turn, turn) != turn {
            self.taken = 0;
        }
        let taken = self.taken + chunk.bytes().len() as u32;
        let may = taken <= RECEIVE as u32;
        if may {
            self.taken = taken;
        }
        may
    }

    /// What waits, and when there is more of it.
    pub(super) fn next(&mut self, id: Id, turn: u32, ring: &mut Ring) -> (Option<Completion>, Then) {
        let Some(completion) = self.backlog.as_mut().and_then(|backlog| backlog.0.pop_front()) else {
            return (None, Then::Rest);
        };
        if !self.may_take(&completion, turn) {
            self.backlog.get_or_insert_default().0.push_front(completion);
            return (None, Then::Again);
        }
        if self.backlog.as_ref().is_some_and(|backlog| !backlog.0.is_empty()) {
            return (Some(completion), Then::Next);
        }
        self.backlog = None;
        if !matches!(completion, Completion::Broken(_)) {
            self.arm(id, ring);
        }
        (Some(completion), Then::Rest)
    }

    /// Sends by the ring, one chunk at a time; or by plain calls where there is much, or the end is to follow in the same turn.
    pub(super) fn send(
        &mut self,
        id: Id,
        stream: &mut Stream,
        spares: &Spares,
        ring: &mut Ring,
    ) -> io::Result<Progress> {
        let mut sent = 0;
        if stream.is_closing() || stream.is_write_closing() || !stream.queue.is_single() {
            match readiness::send(self.socket.as_fd(), stream, spares)? {
                Progress::Blocked(count) if !stream.is_failing() => sent = count,
                progress => return Ok(progress),
            }
        }
        if let Some(loan) = stream.queue.lend() {
            self.flight = Some(ring.send(id, self.socket.as_raw_fd(), loan));
        }
        Ok(Progress::Blocked(sent))
    }

    /// Closes it, behind everything that was asked for it.
    pub(super) fn close(self, id: Id, reset: bool, buffer: &mut [u8], ring: &mut Ring) {
        if reset {
            socket::reset_on_close(self.socket.as_fd());
        } else if !self.ended {
            readiness::read_last(self.socket.as_fd(), buffer);
        }
        for completion in self.backlog.into_iter().flat_map(|backlog| backlog.0) {
            if let Completion::Received(chunk) = completion {
                ring.release(chunk.into_buffer());
            }
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
