//! [`Outgoing`]: the part of a stream that a backend needs for a send.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::send_queue::{BufferPool, SendQueue};

/// The bytes to be sent, and the way to send them.
pub(crate) struct Outgoing<'a> {
    pub(crate) queue: &'a mut SendQueue,
    /// The descriptors that leave with the queue.
    pub(crate) descriptors: Option<&'a mut Attached>,
    pub(crate) mode: SendMode,
    /// The pool that takes emptied buffers.
    pub(crate) pool: &'a BufferPool,
}

/// The way in which a queue is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMode {
    /// A backend may take a chunk along, and send it later.
    Gather,
    /// The end of the write direction follows in the same turn. The socket gets as many bytes as it
    /// takes before a chunk is taken along.
    Flush,
    /// The connection closes with the bytes that the socket takes now. No chunk is taken along.
    Last,
}

/// Descriptors to be sent, in order, each with the number of bytes that go ahead of it. It leaves
/// with the byte behind those, which is in the queue.
pub(crate) type Attached = VecDeque<(usize, OwnedFd)>;
