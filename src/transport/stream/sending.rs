//! A stream's writes and sends: bytes that enter and leave its queue, and the results of the sends.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::{Closing, Stream, StreamFlags, Writing};
use crate::transport::file::FilePart;
use crate::transport::outgoing::{Outgoing, SendMode};
use crate::transport::send_queue::{BufferPool, InFlight};

impl Stream {
    /// Queues bytes, unless they pass a limit that ends the stream.
    pub(crate) fn push(&mut self, data: &[u8], pool: &BufferPool) {
        if !data.is_empty() && self.admits(data.len()) {
            self.push_above(data, pool);
            self.note_overflow();
        }
    }

    /// Does the same with bytes that are not copied, unless they are few.
    pub(crate) fn push_shared(&mut self, bytes: Bytes, pool: &BufferPool) {
        if !bytes.is_empty() && self.admits(bytes.len()) {
            self.top_queue().push_shared(bytes, pool);
            self.note_overflow();
        }
    }

    /// Queues a part of a file, unless it passes a limit that ends the stream. Only a stream that
    /// [takes files](Self::takes_files) may get one.
    pub(crate) fn push_file(&mut self, part: FilePart, pool: &BufferPool) {
        if self.admits(part.left()) {
            self.queue.push_file(part, pool);
            self.note_overflow();
        }
    }

    /// Returns `true` if written bytes leave as they are: no layer changes them, no rate holds
    /// them, and no log shows them.
    pub(crate) fn takes_files(&self) -> bool {
        let policy = self.policy();
        self.layers().is_none() && !policy.is_some_and(|policy| policy.paces() || policy.has_traffic())
    }

    /// Returns `true` if a write may bypass the queue: nothing is queued ahead of it, and the
    /// socket has not reported that it is full.
    pub(crate) fn may_send_directly(&self) -> bool {
        self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED) && self.layers().is_none() && !self.paces()
    }

    /// Returns `true` if the queue has bytes that the backend would take.
    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        !self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED)
    }

    /// Returns the queue, and the way in which it is to be sent.
    #[inline]
    pub(crate) fn outgoing<'a>(&'a mut self, pool: &'a BufferPool) -> Outgoing<'a> {
        let mode = match self.states.closing {
            Closing::No if self.states.writing == Writing::Open => SendMode::Gather,
            Closing::Failing => SendMode::Last,
            _ => SendMode::Flush,
        };
        let descriptors = self.extras.as_mut().map(|extras| &mut extras.descriptors);
        // Without descriptors, a backend sends on its fast path.
        let descriptors = descriptors.filter(|descriptors| !descriptors.is_empty());
        Outgoing { queue: &mut self.queue, descriptors, mode, pool }
    }

    /// Attaches a descriptor to the next byte that is queued.
    pub(crate) fn attach(&mut self, descriptor: OwnedFd) {
        let ahead = self.queued_bytes();
        self.extras.get_or_insert_default().descriptors.push_back((ahead, descriptor));
    }

    /// Attaches a descriptor to the first queued byte that has none. Gives it back if there is no
    /// such byte.
    pub(crate) fn attach_to_queued(&mut self, descriptor: OwnedFd) -> Result<(), OwnedFd> {
        let descriptors = self.extras.as_ref().map(|extras| &extras.descriptors);
        let ahead = descriptors.and_then(|descriptors| descriptors.back()).map_or(0, |(ahead, _)| ahead + 1);
        if ahead >= self.queue.len() {
            return Err(descriptor);
        }
        self.extras.get_or_insert_default().descriptors.push_back((ahead, descriptor));
        Ok(())
    }

    /// Records that the socket took `count` bytes straight from a write, and keeps them for the
    /// bytes behind them.
    pub(crate) fn sent_directly(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::CORKED);
        }
        self.sent(count);
    }

    /// Takes the corked mark. Returns `true` if the socket keeps bytes with nothing behind them: it
    /// is to send them.
    pub(crate) fn take_corked(&mut self) -> bool {
        self.flags.take(StreamFlags::CORKED) && self.queue.is_empty()
    }

    /// Records that the backend took `count` bytes off the queue.
    pub(crate) fn sent(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::HAS_SENT);
            if let Some(production) = self.production() {
                production.sent();
            }
        }
    }

    /// Takes a chunk of the queue back from the backend, with the result of its send. Returns
    /// `false` if the system lacked memory for it; it is to be tried again later.
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

    /// Records that the socket is full, or has a chunk in flight. The backend reports when that has
    /// changed.
    pub(crate) fn blocked(&mut self) {
        self.flags.add(StreamFlags::BLOCKED);
    }

    /// Records that the socket has room again. A chunk in flight comes back first.
    pub(crate) fn unblocked(&mut self) {
        self.flags.set(StreamFlags::BLOCKED, self.queue.is_lent());
    }
}
