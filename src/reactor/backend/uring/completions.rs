//! The slow path of completions: all but sent chunks, and receives that fit the budget of the turn.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::flow::{Arrival, FAILED, Flow};
use super::ring::{Done, Kind};
use super::{READABLE, RingSource, Uring, WAKER};
use crate::address::Address;
use crate::reactor::backend::readiness::{PolledSource as Polled, PolledStream};
use crate::reactor::backend::reported::Readiness;
use crate::reactor::backend::table::Requeue;
use crate::reactor::backend::{BackendEvent, Completion, Inbox, socket};
use crate::transport::id::Id;

impl Uring {
    /// Slow path: handles any other completion.
    #[inline(never)]
    pub(super) fn handle_slow(&mut self, done: Done, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        let (id, goes_on) = (done.id(), done.goes_on());
        match done.kind() {
            Kind::Receive => return self.received(done, inbox),
            Kind::Accept => {
                let socket = done.into_socket();
                match self.table.get_mut(id) {
                    Some(RingSource::Port(port)) => {
                        port.arrived(id, socket, goes_on, &mut self.ring);
                        self.said.push_back((id, Readiness::NONE));
                    }
                    _ => self.is_stale(socket.err()),
                }
            }
            Kind::Poll => return Some((id, self.polled(id, done.poll_flags(), goes_on)?.into())),
            Kind::Room => {
                if let Some(RingSource::Stream(flow)) = self.table.get_mut(id) {
                    // A failed poll as well: the next send polls again.
                    flow.polls_room = goes_on;
                    return Some((id, Completion::SendReady.into()));
                }
                match self.table.get_mut(id) {
                    Some(RingSource::Polled(Polled::Stream(stream))) => stream.armed = goes_on,
                    Some(RingSource::Datagrams(datagrams)) => datagrams.is_armed = goes_on,
                    Some(RingSource::Polled(Polled::Pipe(_))) if !goes_on => self.poll_pipe_again(Kind::Room, id),
                    _ => {}
                }
                self.note(id, done.poll_flags());
            }
            Kind::Wake if !goes_on => {
                self.ring.poll(Kind::Wake, WAKER, self.waker.bell().as_raw_fd(), PollFlags::IN, true)
            }
            Kind::Foreign => {
                if let Some(foreign) = &mut self.foreign {
                    foreign.note_events();
                    self.is_foreign_polled = false;
                }
            }
            Kind::Nothing | Kind::Send | Kind::Wake => {}
        }
        None
    }

    fn polled(&mut self, id: Id, flags: Result<PollFlags, Errno>, goes_on: bool) -> Option<Completion> {
        if let Some(RingSource::Stream(flow)) = self.table.get_mut(id) {
            flow.watched = goes_on;
            if !goes_on && flags.is_ok() {
                flow.arm(id, &mut self.ring);
            }
            let error =
                flags.is_ok_and(|flags| flags.intersects(FAILED)).then(|| socket::pending_error(flow.socket.as_fd()));
            return error.flatten().map(|error| Completion::Broken { error, rest: flow.has_rest() });
        }
        self.note(id, flags);
        if !goes_on && flags.is_ok() {
            self.poll_again(id);
        }
        None
    }

    /// Queues a visit to the source for which the poll has reported readiness.
    fn note(&mut self, id: Id, flags: Result<PollFlags, Errno>) {
        match flags {
            Ok(flags) => self.said.push_back((id, Readiness::of(flags))),
            Err(error) => self.is_stale(Some(error)),
        }
    }

    /// Polls again after a poll that ended although it need not.
    fn poll_again(&mut self, id: Id) {
        let socket = match self.table.get(id) {
            Some(RingSource::Polled(Polled::Stream(stream))) => stream.socket.as_raw_fd(),
            Some(RingSource::Datagrams(datagrams)) => datagrams.socket.as_raw_fd(),
            _ => return self.poll_pipe_again(Kind::Poll, id),
        };
        self.ring.poll(Kind::Poll, id, socket, READABLE, true);
    }

    /// Counts a completion for a closed source, unless its request was cancelled: that is the
    /// expected answer.
    fn is_stale(&mut self, error: Option<Errno>) {
        if error != Some(Errno::CANCELED) {
            self.table.count_stale();
        }
    }

    /// Inserts a socket that is a stream from now on.
    pub(super) fn insert_stream(&mut self, id: Id, socket: OwnedFd, unix: bool) {
        let source = if unix {
            self.ring.poll(Kind::Poll, id, socket.as_raw_fd(), READABLE, true);
            RingSource::Polled(Polled::Stream(PolledStream::new(socket, true)))
        } else {
            RingSource::Stream(Flow::new(socket))
        };
        self.table.insert(id, source);
    }

    /// Handles a successful attempt: the polled source becomes a stream.
    fn connected(&mut self, id: Id, host: Address) -> Completion {
        let RingSource::Polled(Polled::Stream(stream)) = self.table.take(id) else {
            return Completion::ConnectFailed(io::ErrorKind::NotConnected.into());
        };
        if !stream.unix
            && let Err(error) = socket::set_blocking(stream.socket.as_fd(), true)
        {
            return Completion::ConnectFailed(error);
        }
        self.insert_stream(id, stream.socket, stream.unix);
        Completion::Connected(host)
    }

    /// Returns the next event of the sources that are polled or queued.
    #[inline(never)]
    pub(super) fn next_polled(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        loop {
            let said = if self.table.has_current() { None } else { self.said.pop_front() };
            let id = match said {
                Some((id, readiness)) => self.table.note(id, |source| source.note(readiness)),
                None => Some(self.table.next_queued()?),
            };
            let Some(id) = id else { continue };
            let (event, requeue) = self.look(id, inbox);
            self.table.requeue(id, requeue);
            match event {
                Some(BackendEvent::Other(Completion::Connected(host))) => {
                    return Some((id, self.connected(id, host).into()));
                }
                Some(event) => return Some((id, event)),
                None => {}
            }
        }
    }

    /// Returns the next event of a source, and when to visit it again.
    fn look(&mut self, id: Id, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        let Self { table, ring, reserve, turn, .. } = self;
        let (completion, requeue) = match table.get_mut(id) {
            Some(RingSource::Stream(flow)) => return flow.next(id, *turn, inbox, ring),
            Some(RingSource::Polled(polled)) => {
                let next = polled.next(*turn, inbox, reserve);
                if let Polled::Connecting(attempt) = polled {
                    ring.poll(Kind::Poll, id, attempt.socket.as_raw_fd(), PollFlags::OUT, false);
                }
                return next;
            }
            Some(RingSource::Port(port)) => port.next(id, *turn, reserve, ring),
            Some(RingSource::Datagrams(datagrams)) => return datagrams.next(),
            None => (None, Requeue::No),
        };
        (completion.map(BackendEvent::Other), requeue)
    }

    /// Handles any other completion of a receive.
    fn received(&mut self, done: Done, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        let (id, goes_on) = (done.id(), done.goes_on());
        let received = self.ring.received(done);
        let Some(RingSource::Stream(flow)) = self.table.get_mut(id) else {
            self.is_stale(received.err());
            return None;
        };
        let arrival = match received {
            Ok(Some(buffer)) => Some(Arrival::Bytes(buffer)),
            Ok(None) => {
                flow.ended = true;
                Some(Arrival::End)
            }
            Err(Errno::NOBUFS) => {
                self.ring.buffers.add();
                None
            }
            // Transient.
            Err(Errno::CANCELED | Errno::NOMEM | Errno::INTR | Errno::AGAIN) => None,
            Err(error) => Some(Arrival::Broken(error.into())),
        };
        let (arrival, requeue) = flow.received(id, arrival, goes_on, self.turn, &mut self.ring);
        if requeue == Requeue::NextTurn {
            self.table.requeue_next_turn(id);
        }
        Some((id, arrival?.into_event(inbox)))
    }
}
