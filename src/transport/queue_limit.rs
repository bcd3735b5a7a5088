//! [`QueueLimit`]: the bound on the bytes that wait for a peer which does not read.

/// A bound on the queue of a connection, and the action that is taken when the queue grows above
/// it. (Twisted has nothing of the kind: the queue of a peer that never reads grows without end.)
///
/// | at the limit | memory for a peer that does not read | for |
/// |---|---|---|
/// | [`abort`](Self::abort): the connection is reset | at most the limit | servers of unknown peers |
/// | [`pause`](Self::pause): the peer is not read | the limit, and the answers to one turn's input | protocols that answer their input |
/// | [`tell`](Self::tell): the protocol decides | as the protocol decides | protocols that can drop or shed something |
///
/// Bytes count from the write until the operating system has taken them
/// ([`Transport::queued_bytes`](crate::Transport::queued_bytes)). Bytes that wait for a TLS
/// handshake count too.
///
/// An aborting limit is checked in each write. So it has to be above the largest answer that is
/// written at once, and above the pieces of a [`FileSender`](crate::protocols::FileSender). The
/// other two are checked at the end of a turn, when all bytes that the socket takes have left.
///
/// ```
/// use ropewalk::transport::QueueLimit;
/// use ropewalk::{ListenOptions, Transport};
///
/// let every_connection = ListenOptions::new().queue_limit(QueueLimit::abort(8 << 20));
///
/// fn begin_upload(transport: &Transport) {
///     transport.set_queue_limit(Some(QueueLimit::pause(64 << 10)));
/// }
/// # drop(every_connection);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimit {
    bytes: u32,
    action: LimitAction,
}

/// The action that is taken when the queue of a connection grows above its [`QueueLimit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitAction {
    /// The protocol is called: [`QueueLimit::tell`].
    Tell,
    /// Reading is paused: [`QueueLimit::pause`].
    Pause,
    /// The connection is aborted: [`QueueLimit::abort`].
    Abort,
}

impl QueueLimit {
    /// Calls the protocol ([`queue_limit_reached`](crate::Protocol::queue_limit_reached)) when more
    /// than `bytes` are queued at the end of a turn.
    ///
    /// It is called once, and again only after the queue has come down to half the limit. If a
    /// protocol does not implement that callback, its connection is aborted.
    pub const fn tell(bytes: u32) -> Self {
        Self { bytes, action: LimitAction::Tell }
    }

    /// Pauses reading from the peer when more than `bytes` are queued at the end of a turn, until
    /// the queue has come down to half the limit.
    ///
    /// That is apart from [`pause_producing`](crate::Transport::pause_producing): bytes are
    /// delivered when neither of the two holds them back. Two ends that both write unasked, and
    /// both pause, may wait for each other for ever.
    pub const fn pause(bytes: u32) -> Self {
        Self { bytes, action: LimitAction::Pause }
    }

    /// Aborts the connection with the first write that would make the queue longer than `bytes`. No
    /// byte of that write is queued. The reason is
    /// [`ConnectionClosed::QueueLimit`](crate::error::ConnectionClosed::QueueLimit).
    pub const fn abort(bytes: u32) -> Self {
        Self { bytes, action: LimitAction::Abort }
    }

    /// Returns the largest number of bytes that may be queued.
    pub const fn bytes(self) -> u32 {
        self.bytes
    }

    /// Returns the action above that number.
    pub const fn action(self) -> LimitAction {
        self.action
    }

    pub(super) const fn new(bytes: u32, action: LimitAction) -> Self {
        Self { bytes, action }
    }
}
