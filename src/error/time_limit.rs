//! [`TimeLimit`]: the limit of time that has ended a connection.

use std::fmt;

/// A limit of time of a connection, as
/// [`ConnectionPolicies`](crate::policies::ConnectionPolicies) sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeLimit {
    /// The time without a byte in either direction.
    Idle,
    /// The time without a received byte.
    Receive,
    /// The time until the first byte for the protocol.
    FirstByte,
    /// The time from the beginning of the connection.
    Lifetime,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "no byte was received or sent",
            Self::Receive => "the peer sent nothing",
            Self::FirstByte => "the peer sent no first byte",
            Self::Lifetime => "the connection was open",
        })
    }
}
