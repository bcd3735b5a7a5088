//! [`Outgoing`]: all that a backend is told of a stream when it is to send.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::send_queue::{BufferPool, SendQueue};

/// What is to be sent, and how.
pub(crate) struct Outgoing<'a> {
    pub(crate) queue: &'a mut SendQueue,
    /// The descriptors that leave with the queue.
    pub(crate) descriptors: Option<&'a mut Attached>,
    #[cfg_attr(not(any(feature = "testing", feature = "io-uring")), expect(dead_code, reason = "mio keeps no chunk"))]
    pub(crate) mode: SendMode,
    /// Where emptied buffers go.
    pub(crate) pool: &'a BufferPool,
}

/// How a queue is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMode {
    /// A backend may take a chunk along, and send it later.
    Gather,
    /// The end of our direction is to follow in the same turn: the socket is given all that it takes before a chunk is taken along.
    Flush,
    /// The connection closes with what the socket takes now: nothing is taken along.
    Last,
}

/// Descriptors to be sent, in order, each with the number of bytes that go ahead of it: it leaves with the byte behind those,
/// which is in the queue.
pub(crate) type Attached = VecDeque<(usize, OwnedFd)>;
