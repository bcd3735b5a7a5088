//! [`ConnectionClosed`]: the reason why a connection ended.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::TimeLimit;
use crate::failure::Failure;

/// The reason why a connection ended, as passed to `connection_lost`. If a callback of the protocol
/// failed, the reason is that failure instead.
///
/// ```
/// use ropewalk::error::ConnectionClosed;
/// use ropewalk::{Failure, Protocol, Result, Transport};
///
/// /// Tells a clean end from the others.
/// struct Download { received: usize }
///
/// impl Protocol for Download {
///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
///         self.received += data.len();
///         Ok(())
///     }
///
///     fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
///         match reason.check::<ConnectionClosed>() {
///             Some(ConnectionClosed::Done) => println!("{} bytes, and the end", self.received),
///             Some(ConnectionClosed::Reset { .. }) => println!("the peer has reset the connection"),
///             Some(closed) => println!("{} bytes, then: {closed}", self.received),
///             None => println!("a callback failed: {reason}"),
///         }
///     }
/// }
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionClosed {
    /// Either side closed the connection in an orderly way (Twisted: `ConnectionDone`).
    #[error("the connection was closed cleanly")]
    Done,
    /// The peer reset the connection (Twisted: `ConnectionLost`).
    #[error("the peer reset the connection ({unsent} bytes were still to be sent)")]
    Reset {
        /// Bytes that were written, and not yet handed to the operating system.
        unsent: usize,
    },
    /// The operating system gave up on the peer: there was no answer within its own limits, or
    /// within those of keep-alive (Twisted: `ConnectionLost`).
    #[error("the peer no longer answers ({unsent} bytes were still to be sent)")]
    TcpTimedOut {
        /// Bytes that were written, and not yet handed to the operating system.
        unsent: usize,
    },
    /// Any other network error (Twisted: `ConnectionLost`).
    #[error("the connection was lost ({unsent} bytes were still to be sent)")]
    Lost {
        /// The error of the operating system.
        source: io::Error,
        /// Bytes that were written, and not yet handed to the operating system.
        unsent: usize,
    },
    /// The peer ended the connection without ending TLS (Twisted: `ConnectionLost`). The received
    /// data may be truncated.
    #[error("the peer ended the connection without ending TLS: the received data may be truncated")]
    Truncated,
    /// This side called `abort_connection` (Twisted: `ConnectionAborted`).
    #[error("the connection was aborted")]
    Aborted,
    /// `lose_connection` was called, and the peer took none of the queued bytes for the whole close
    /// timeout (Twisted waits without limit).
    #[error(
        "the peer took nothing for {after:?} while the connection was closing ({unsent} bytes were still to be sent)"
    )]
    CloseTimedOut {
        /// The close timeout.
        after: Duration,
        /// Bytes that were written, and not yet handed to the operating system.
        unsent: usize,
    },
    /// A write passed the limit of the queue, because the peer took less than was written (Twisted
    /// has no limit). See [`QueueLimit`](crate::transport::QueueLimit).
    #[error("the peer took too little of what was written: {unsent} bytes were to be sent, and {limit} may be queued")]
    QueueLimit {
        /// The limit, in bytes.
        limit: u32,
        /// Bytes not yet handed to the operating system, including those of the write that passed
        /// the limit.
        unsent: usize,
    },
    /// A limit of time has passed, and this side closed the connection (Twisted:
    /// `ConnectionDone`, after `timeoutConnection`). See
    /// [`ConnectionPolicies`](crate::policies::ConnectionPolicies).
    #[error("{limit} for {after:?}")]
    TimeLimit {
        /// The limit.
        limit: TimeLimit,
        /// Its length.
        after: Duration,
    },
    /// The reactor stopped while the connection was open (Twisted: `ConnectionLost`).
    #[error("the reactor stopped")]
    ReactorStopped,
}

thread_local! {
    /// The failure of a clean end, shared by all of them: such an end allocates nothing.
    static DONE: Failure = Failure::untraced(ConnectionClosed::Done);
}

impl ConnectionClosed {
    /// Returns [`Done`](Self::Done) as a failure.
    pub(crate) fn done() -> Failure {
        // A thread that ends may drop `DONE` before the last connection that needs it.
        DONE.try_with(Failure::clone).unwrap_or_else(|_| Failure::untraced(Self::Done))
    }

    /// Classifies a network error.
    pub(crate) fn from_io(source: io::Error, unsent: usize) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset { unsent },
            io::ErrorKind::TimedOut => Self::TcpTimedOut { unsent },
            _ => Self::Lost { source, unsent },
        }
    }
}
