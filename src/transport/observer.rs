//! [`Observer`]: a view of the calls between transports and protocols, for the test kit and for the
//! reactor's meter.

use super::id::Id;

/// A callback of a protocol, as an observer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback<'a> {
    Made,
    Data(&'a [u8]),
    Descriptor,
    HandshakeCompleted,
    ReadLost,
    WriteLost,
    QueueLimit,
    /// A call from another thread, through a `RemoteConnection`.
    Remote,
    Lost,
}

impl Callback<'_> {
    /// Returns the name of the method of `Protocol`, or of the call.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Made => "connection_made",
            Self::Data(_) => "data_received",
            Self::Descriptor => "file_descriptor_received",
            Self::HandshakeCompleted => "handshake_completed",
            Self::ReadLost => "read_connection_lost",
            Self::WriteLost => "write_connection_lost",
            Self::QueueLimit => "queue_limit_reached",
            Self::Remote => "a call from another thread",
            Self::Lost => "connection_lost",
        }
    }
}

/// Watches the calls between transports and their protocols. The test kit has one, where a network
/// looks after its reactors, and a reactor has one while it counts bytes. No method may call back.
pub(crate) trait Observer {
    /// A protocol above `level` layers has written `data`, and it will be sent.
    fn written(&self, id: Id, level: usize, data: &[u8]);
    /// A protocol has written `count` bytes of a file, which the system reads itself. There are no
    /// layers.
    fn file_written(&self, id: Id, count: usize);
    /// A stream has `levels` layers now.
    fn layered(&self, id: Id, levels: usize);
    /// A protocol above `level` layers is about to be called.
    fn calls(&self, id: Id, level: usize, call: Callback<'_>);
    /// A protocol above `level` layers has returned the end of the bytes that it was given. It will
    /// be given them again.
    fn kept(&self, id: Id, level: usize, rest: &[u8]);
    /// The engine has taken the next bytes for itself, before there is a protocol or a layer.
    fn taken(&self, id: Id, data: &[u8]);
    /// The call is over: it returned, failed, or panicked.
    fn returned(&self, id: Id);
    /// A connection was discarded: its protocol is not called any more, and its unsent bytes are
    /// dropped.
    fn discarded(&self, id: Id);
}
