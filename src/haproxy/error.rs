//! [`ProxyHeaderError`]: the reasons why bytes are no PROXY header.

use std::time::Duration;

use thiserror::Error;

/// The reason why a connection does not begin with a good PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// The first bytes are those of no header. The peer is no proxy, or does not send headers.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// The header is longer than the limit. A line has 107 bytes at most.
    #[error("a PROXY header is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A line has another number of fields, or more than a space between two of them.
    #[error("a PROXY line does not have the fields of its family, with one space between them")]
    Fields,
    /// The family of a line is none of TCP4, TCP6 and UNKNOWN.
    #[error("the family of a PROXY line is none of TCP4, TCP6 and UNKNOWN")]
    LineFamily,
    /// An address of a line is no IP address of its family, or the name of a UNIX socket has a NUL
    /// in the middle or no end.
    #[error("an address of a PROXY header is not one of its family")]
    InvalidAddress,
    /// A port of a line is no whole number from 0 to 65535.
    #[error("a port of a PROXY line is no whole number from 0 to 65535")]
    InvalidPort,
    /// The version of a binary header is not 2, or its command is unknown.
    #[error("version and command {byte:#04x} of a PROXY header are unknown")]
    Version {
        /// The byte that has both.
        byte: u8,
    },
    /// The family of a binary header is unknown.
    #[error("family and transport {byte:#04x} of a PROXY header are unknown")]
    Family {
        /// The byte that has both.
        byte: u8,
    },
    /// A binary header is shorter than the addresses of its family.
    #[error("a PROXY header of {length} bytes has no room for its addresses, which take {needed}")]
    Short {
        /// Number of bytes behind the length.
        length: usize,
        /// Number of bytes that the addresses take.
        needed: usize,
    },
    /// A value of a binary header goes beyond the header's end.
    #[error("a value of a PROXY header goes beyond its end")]
    Value,
    /// The checksum of a binary header is wrong.
    #[error("the checksum of a PROXY header is wrong")]
    Checksum,
    /// The connection ended in the middle of the header.
    #[error("the connection ended in the middle of its PROXY header")]
    Cut,
    /// The header took too long to arrive.
    #[error("the PROXY header did not arrive within {after:?}")]
    TimedOut {
        /// The time limit.
        after: Duration,
    },
}
