//! The reason why standard input and output are not joined to a protocol.

use std::fmt;
use std::io;

use thiserror::Error;

use super::ConnectError;

/// One of the two standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandardStream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
}

impl fmt::Display for StandardStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "standard input",
            Self::Output => "standard output",
        })
    }
}

/// The reason why [`StandardIo::join`](crate::reactor::StandardIo::join) has joined no protocol,
/// which is dropped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StandardIoError {
    /// A connection of the same reactor has standard input and output already.
    #[error("another connection has standard input and output")]
    InUse,
    /// The descriptor is closed, or not open for its direction.
    #[error("{stream} cannot be used")]
    Unusable {
        /// The stream that the descriptor stands for.
        stream: StandardStream,
        /// The error of the operating system: `EBADF`.
        source: io::Error,
    },
    /// The reactor has not joined the protocol: it is stopping, is on a simulated network, or the
    /// system refused a descriptor or a thread.
    #[error("standard input and output cannot be joined to a protocol")]
    NotJoined(#[from] ConnectError),
}
