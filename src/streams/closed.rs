//! The end of a connection as an [`io::Error`]. The module's page has the table.

use std::io::{self, ErrorKind};

use thiserror::Error;

use crate::error::ConnectionClosed;
use crate::failure::Failure;

/// The connection of a stream is over, as the cause of an [`io::Error`]. It has the [`Failure`].
///
/// ```
/// use std::io;
/// use ropewalk::error::ConnectionClosed;
/// use ropewalk::streams::StreamClosed;
///
/// /// Returns the number of bytes that a reset left unsent.
/// fn unsent(error: &io::Error) -> Option<usize> {
///     let closed = error.get_ref()?.downcast_ref::<StreamClosed>()?;
///     match closed.failure().check()? {
///         ConnectionClosed::Reset { unsent } => Some(*unsent),
///         _ => None,
///     }
/// }
/// # assert!(unsent(&io::ErrorKind::Other.into()).is_none());
/// ```
#[derive(Debug, Clone, Error)]
#[error("{failure}")]
pub struct StreamClosed {
    failure: Failure,
}

impl StreamClosed {
    /// Returns the reason of the connection's end.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

/// Returns the error of a read, or `None` for an end of file.
pub(super) fn read_error(failure: &Failure) -> Option<io::Error> {
    match failure.check() {
        Some(ConnectionClosed::Done) => None,
        _ => Some(error(kind(failure), failure)),
    }
}

/// Returns the error of a write.
pub(super) fn write_error(failure: &Failure) -> io::Error {
    match failure.check() {
        Some(ConnectionClosed::Done) => error(ErrorKind::BrokenPipe, failure),
        _ => error(kind(failure), failure),
    }
}

fn error(kind: ErrorKind, failure: &Failure) -> io::Error {
    io::Error::new(kind, StreamClosed { failure: failure.clone() })
}

fn kind(failure: &Failure) -> ErrorKind {
    match failure.check() {
        Some(ConnectionClosed::Reset { .. }) => ErrorKind::ConnectionReset,
        Some(
            ConnectionClosed::TcpTimedOut { .. }
            | ConnectionClosed::CloseTimedOut { .. }
            | ConnectionClosed::TimeLimit { .. },
        ) => ErrorKind::TimedOut,
        Some(ConnectionClosed::Truncated) => ErrorKind::UnexpectedEof,
        Some(ConnectionClosed::Aborted | ConnectionClosed::ReactorStopped | ConnectionClosed::QueueLimit { .. }) => {
            ErrorKind::ConnectionAborted
        }
        Some(ConnectionClosed::Lost { source, .. }) => source.kind(),
        Some(ConnectionClosed::Done) | None => other_kind(failure),
    }
}

/// Returns the kind of a failure that is no `ConnectionClosed`: of a callback, or of TLS.
fn other_kind(failure: &Failure) -> ErrorKind {
    #[cfg(feature = "tls")]
    if failure.check::<crate::tls::TlsError>().is_some() {
        return ErrorKind::InvalidData;
    }
    failure.check::<io::Error>().map_or(ErrorKind::Other, io::Error::kind)
}
