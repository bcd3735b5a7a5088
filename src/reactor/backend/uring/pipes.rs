//! Pipes and terminals on the ring: it polls their ends, and plain calls read and write them
//! (`pipe.rs`).

use std::io;
use std::os::fd::AsRawFd;

use rustix::event::PollFlags;

use super::ring::{Kind, Ring};
use super::{READABLE, RingSource, Uring};
use crate::reactor::backend::Progress;
use crate::reactor::backend::pipe::PolledPipe;
use crate::reactor::backend::readiness::PolledSource as Polled;
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;

impl Uring {
    /// Polls the ends of a pipe from now on.
    pub(super) fn insert_pipe(&mut self, id: Id, pipe: PolledPipe) {
        poll_ends(&mut self.ring, id, &pipe);
        self.table.insert(id, RingSource::Polled(Polled::Pipe(Box::new(pipe))));
    }

    pub(super) fn pipe(&mut self, id: Id) -> Option<&mut PolledPipe> {
        match self.table.get_mut(id)? {
            RingSource::Polled(polled) => polled.pipe(),
            _ => None,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn send_to_pipe(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        self.pipe(id).ok_or(io::ErrorKind::NotConnected)?.send(outgoing)
    }

    /// Polls an end again after a poll that ended although it need not.
    pub(super) fn poll_pipe_again(&mut self, kind: Kind, id: Id) {
        let Some(pipe) = self.pipe(id) else { return };
        let end = if kind == Kind::Poll { pipe.reading_end().map(|end| (end, false)) } else { pipe.writing_end() };
        if let Some((end, awaits_room)) = end {
            let descriptor = end.as_raw_fd();
            self.ring.poll(kind, id, descriptor, flags(awaits_room), true);
        }
    }

    /// Closes the writing end. Its reader sees the end when this returns, as on mio: a poll that
    /// goes on would keep the file open.
    pub(super) fn close_writing_end(&mut self, id: Id) {
        if self.pipe(id).is_none_or(|pipe| pipe.writing_end().is_none()) {
            return;
        }
        self.ring.cancel(Kind::Room, id);
        self.ring.flush();
        if let Some(pipe) = self.pipe(id) {
            pipe.close_writing_end();
        }
    }

    /// Closes the ends, likewise.
    #[inline(never)]
    pub(super) fn close_pipe(&mut self, id: Id, pipe: PolledPipe) {
        if pipe.reading_end().is_some() {
            self.ring.cancel(Kind::Poll, id);
        }
        if pipe.writing_end().is_some() {
            self.ring.cancel(Kind::Room, id);
        }
        self.ring.flush();
        drop(pipe);
    }
}

pub(super) fn poll_ends(ring: &mut Ring, id: Id, pipe: &PolledPipe) {
    if let Some(end) = pipe.reading_end() {
        ring.poll(Kind::Poll, id, end.as_raw_fd(), READABLE, true);
    }
    if let Some((end, awaits_room)) = pipe.writing_end() {
        ring.poll(Kind::Room, id, end.as_raw_fd(), flags(awaits_room), true);
    }
}

fn flags(awaits_room: bool) -> PollFlags {
    if awaits_room { PollFlags::OUT } else { READABLE }
}
