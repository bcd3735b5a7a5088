//! What a [`Stream`](super::stream::Stream) is told, and what it says is to be done.

use std::time::Duration;

use crate::failure::Failure;

/// How the peer's direction ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// As it should.
    Clean,
    /// So that bytes may be missing.
    Cut(Failure),
}

/// What the reactor is to do for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Turn what was written into what is sent: [`Stream::seal`].
    Seal,
    /// Send from the queue; then say [`Stream::sent`], [`Stream::blocked`] or [`Stream::broken`].
    Send,
    /// Send the end of our side; [`Stream::shut`] was said already.
    ShutDownWriting,
    /// The protocol is to be told of its queue's limit ([`Stream::take_limit_notice`]), or the producer something
    /// ([`Stream::take_producer`]); the rest waits until then.
    TellOfQueue,
    /// Start or stop receiving.
    Receive(bool),
    /// Receive what arrived before the network was over: [`Stream::ended`] says when there is no more.
    ReceiveRest,
    /// Bytes or an end were held back and can be delivered now: take them in the next turn.
    DeliverHeld,
    /// Look again after this time ([`Stream::deadline_passed`]).
    ArmDeadline(Duration),
    /// The deadline is not needed any more.
    DisarmDeadline,
    /// Close in this way, and tell the protocol.
    Close(CloseMode),
    /// Nothing to do.
    Rest,
}

/// How long, and how many bytes, are read and dropped behind our end of a connection that lingers. 5 s is what web servers use; 8 MiB
/// lets a peer finish an upload that has no reader, and costs a few milliseconds.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// How a descriptor is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// Both sides are done, or the network is: just close.
    Plain,
    /// We are done and the peer may not be: end our side, then read what still comes, within bounds, so that closing does
    /// not destroy with a reset what was sent last.
    Linger,
    /// With a reset.
    Reset,
}

/// What to do with received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The protocol's.
    Deliver,
    /// Held or dropped.
    Kept,
    /// They are for a layer: [`Stream::open`].
    Sealed,
}

/// What a closed direction means for the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndNotice {
    /// Tell the protocol: it asked to hear of half-closes.
    Tell,
    /// `connection_lost` will say it.
    Silent,
}
