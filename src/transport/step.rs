//! The events and steps of a [`Stream`](super::stream::Stream).

use std::time::Duration;

use crate::failure::Failure;

/// The way in which the peer's direction ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// In the regular way.
    Clean,
    /// With a cut: bytes may be missing.
    Cut(Failure),
}

/// The next thing that the reactor does for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Seal written bytes: [`Stream::seal`].
    Seal,
    /// Send from the queue; then call [`Stream::sent`], [`Stream::blocked`] or [`Stream::broken`].
    Send,
    /// Shut the write direction of the socket. The caller reads [`Stream::shut`] afterwards.
    ShutDownWriting,
    /// Call the protocol about a connection that was handed over ([`Stream::take_unmade`]), its
    /// queue's limit ([`Stream::take_limit_notice`]), or the producer
    /// ([`Stream::take_producer`]), or wake the waiter ([`Stream::take_drained`]). All other steps
    /// wait for that.
    TellOfQueue,
    /// Start or stop receiving.
    Receive(bool),
    /// Receive the bytes that arrived before the network was over. [`Stream::ended`] reports the
    /// end of them.
    ReceiveRest,
    /// Deliver the held bytes or the held end in the next turn.
    DeliverHeld,
    /// Call [`Stream::deadline_passed`] after this time.
    ArmDeadline(Duration),
    /// Cancel the deadline.
    DisarmDeadline,
    /// Close in this way, and call `connection_lost`.
    Close(CloseMode),
    /// Nothing to do.
    Rest,
}

/// Time and number of bytes for which a lingering connection is read after its write direction has
/// ended; the bytes are dropped. 5 s is what web servers use. 8 MiB lets a peer finish an upload
/// that has no reader, and costs a few milliseconds.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// The way in which a descriptor is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// Just close: both directions have ended, or the network is over.
    Plain,
    /// End the write direction, then read the peer's bytes, within bounds, because the peer may not
    /// be done. So closing does not destroy the last sent bytes with a reset.
    Linger,
    /// Close with a reset.
    Reset,
}

/// Decision about received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The bytes go to the protocol.
    Deliver,
    /// The same, past the logs of the stream's policies.
    DeliverLogged,
    /// The bytes were held or dropped.
    Kept,
    /// The bytes go to a layer: [`Stream::open`].
    Sealed,
}

/// Decision about the callback for a closed direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndNotice {
    /// Call the protocol, which opted in to half-closes.
    Tell,
    /// No call: `connection_lost` will report it.
    Silent,
}
