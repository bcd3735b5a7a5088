//! [`Observer`]: how the test kit sees the calls between transports and protocols.

use super::id::Id;

/// A callback of a protocol, for who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback<'a> {
    Made,
    Data(&'a [u8]),
    Descriptor,
    HandshakeCompleted,
    ReadLost,
    WriteLost,
    QueueLimit,
    Lost,
}

impl Callback<'_> {
    /// The method of `Protocol`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Made => "connection_made",
            Self::Data(_) => "data_received",
            Self::Descriptor => "file_descriptor_received",
            Self::HandshakeCompleted => "handshake_completed",
            Self::ReadLost => "read_connection_lost",
            Self::WriteLost => "write_connection_lost",
            Self::QueueLimit => "queue_limit_reached",
            Self::Lost => "connection_lost",
        }
    }
}

/// Watches what passes between transports and their protocols: the test kit, where a network looks after its reactors. Nothing
/// of it may call back.
pub(crate) trait Observer {
    /// A protocol above so many layers has written this, and it will be sent.
    fn written(&self, id: Id, level: usize, data: &[u8]);
    /// A stream has so many layers now.
    fn layered(&self, id: Id, levels: usize);
    /// A protocol above so many layers is about to be called.
    fn calls(&self, id: Id, level: usize, call: Callback<'_>);
    /// The call is over, however it ended.
    fn returned(&self, id: Id);
}
