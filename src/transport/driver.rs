//! [`Driver`]: requests of a transport that cannot wait for the end of the turn.

use std::any::Any;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::id::Id;
use crate::time::Timers;

/// Who is at the other end of a UNIX socket: the process that connected, or listened, when it did so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The process; another one may have its number by now.
    pub pid: i32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What a socket can be asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOption {
    NoDelay(bool),
    KeepAlive(bool),
    /// Idle time before the first probe, time between probes, probes before giving up.
    KeepAliveTimes(Duration, Duration, u32),
    /// How long sent bytes may stay unacknowledged.
    UserTimeout(Duration),
    /// Acknowledges what was received at once, instead of waiting for an answer to go with it.
    QuickAck,
}

/// What a reactor does for its transports between two settlings. Nothing here calls a protocol.
pub(crate) trait Driver {
    /// Hands the socket what it takes at once, without queueing; 0 where it takes nothing or fails (the settling phase will
    /// meet the error again). The system waits for what is written behind it, until the settling phase.
    fn send_now(&self, id: Id, data: &[u8]) -> usize;
    /// Sets an option of the socket.
    fn set_option(&self, id: Id, option: SocketOption) -> io::Result<()>;
    /// Whether Nagle's algorithm is off.
    fn no_delay(&self, id: Id) -> io::Result<bool>;
    /// Whether keep-alive is on.
    fn keep_alive(&self, id: Id) -> io::Result<bool>;
    /// Whether descriptors can be sent with bytes.
    fn passes_descriptors(&self, id: Id) -> bool;
    /// Who is at the other end of a UNIX socket.
    fn peer_credentials(&self, id: Id) -> io::Result<Credentials>;
    /// The descriptor.
    fn raw_fd(&self, id: Id) -> Option<RawFd>;
    /// Shows `look` what stands above the transport, and was built by a room above this one.
    fn above(&self, id: Id, look: &mut dyn FnMut(&dyn Any));
    /// The timers that go with the connection.
    fn timers(&self) -> Timers;
}
