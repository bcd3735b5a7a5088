//! A stream's sends: bytes that leave its queue, and the results of that.

use std::io;
use std::os::fd::OwnedFd;

use super::{Closing, Stream, StreamFlags, Writing};
use crate::transport::outgoing::{Outgoing, SendMode};
use crate::transport::send_queue::{BufferPool, InFlight};

impl Stream {
    /// Whether a write may bypass the queue: nothing is ahead of it, and the socket did not say that it is full.
    pub(crate) fn may_send_directly(&self) -> bool {
        self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED) && self.layers().is_none()
    }

    /// Whether something is queued that the backend would take.
    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        !self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED)
    }

    /// The queue, and how it is to be sent.
    #[inline]
    pub(crate) fn outgoing<'a>(&'a mut self, pool: &'a BufferPool) -> Outgoing<'a> {
        let mode = match self.states.closing {
            Closing::No if self.states.writing == Writing::Open => SendMode::Gather,
            Closing::Failing => SendMode::Last,
            _ => SendMode::Flush,
        };
        let descriptors = self.extras.as_mut().map(|extras| &mut extras.descriptors);
        Outgoing { queue: &mut self.queue, descriptors, mode, pool }
    }

    /// Has a descriptor leave with the next byte that is queued.
    pub(crate) fn attach(&mut self, descriptor: OwnedFd) {
        let ahead = self.queue.len();
        self.extras.get_or_insert_default().descriptors.push_back((ahead, descriptor));
    }

    /// The socket took `count` bytes straight from a write, and keeps them for what follows.
    pub(crate) fn sent_directly(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::CORKED);
        }
        self.sent(count);
    }

    /// Takes the mark that the socket keeps bytes which nothing follows: it is to send them.
    pub(crate) fn take_corked(&mut self) -> bool {
        self.flags.take(StreamFlags::CORKED) && self.queue.is_empty()
    }

    /// The backend took `count` bytes off the queue.
    pub(crate) fn sent(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::PROGRESSED);
            if let Some(production) = self.production() {
                production.sent();
            }
        }
    }

    /// A chunk of the queue is back from who sent it, with what came of that. `false`: the system lacked memory for it, and it
    /// is to be tried again in a while.
    #[inline]
    pub(crate) fn returned(&mut self, in_flight: InFlight, result: io::Result<usize>, pool: &BufferPool) -> bool {
        self.queue.take_back(in_flight, *result.as_ref().unwrap_or(&0), pool);
        match result {
            Ok(count) => {
                self.sent(count);
                self.unblocked();
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return false,
            Err(error) => self.broken(error, true),
        }
        true
    }

    /// The socket is full, or has a chunk to send; the backend will say when it has not.
    pub(crate) fn blocked(&mut self) {
        self.flags.add(StreamFlags::BLOCKED);
    }

    /// The socket has room again. What it has to send already comes back first.
    pub(crate) fn unblocked(&mut self) {
        self.flags.set(StreamFlags::BLOCKED, self.queue.is_lent());
    }
}
