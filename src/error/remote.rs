//! The reasons why a message does not reach a connection of another reactor.

use std::error::Error as StdError;
use std::fmt;

use thiserror::Error;

/// A message that did not reach its protocol, given back with the reason. From
/// [`RemoteConnection`](crate::reactor::RemoteConnection).
///
/// ```
/// use ropewalk::error::{Undelivered, UndeliveredReason};
///
/// fn retry_later(undelivered: Undelivered<String>) -> Option<String> {
///     (undelivered.reason == UndeliveredReason::QueueFull).then_some(undelivered.message)
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered<M> {
    /// The message.
    pub message: M,
    /// The reason.
    pub reason: UndeliveredReason,
}

impl<M> Undelivered<M> {
    pub(crate) fn new(message: M, reason: UndeliveredReason) -> Self {
        Self { message, reason }
    }
}

impl<M> fmt::Debug for Undelivered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Undelivered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message was not delivered: {}", self.reason)
    }
}

impl<M> StdError for Undelivered<M> {}

/// The reason why a message for a connection comes back, in [`Undelivered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UndeliveredReason {
    /// The connection is over, or ends with a failure.
    #[error("the connection is over")]
    ConnectionGone,
    /// The reactor of the connection was closed, or it belongs to the parent of this process.
    #[error("the reactor is gone")]
    ReactorGone,
    /// As many messages as its limit allows wait for that reactor
    /// ([`Builder::message_limit`](crate::reactor::Builder::message_limit)).
    #[error("too many messages wait for the reactor")]
    QueueFull,
    /// The connection has a protocol of a type other than that of the handle.
    #[error("the connection's protocol is of another type")]
    OtherProtocol,
}
