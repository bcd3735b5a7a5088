//! [`Driver`]: requests of a transport that cannot wait for the end of the turn.

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::discard::DiscardMode;
use super::id::Id;

use crate::time::Timers;

/// Identity of the process at the other end of a UNIX socket, from the moment when it connected or
/// listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The process. The system may have given its number to another one since.
    pub pid: i32,
    /// The user of that process.
    pub uid: u32,
    /// The group of that process.
    pub gid: u32,
}

/// A socket option that is set at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOption {
    NoDelay(bool),
    KeepAlive(bool),
    /// Idle time before the first probe, time between probes, number of probes before giving up.
    KeepAliveTimes(Duration, Duration, u32),
    /// Time that sent bytes may stay unacknowledged.
    UserTimeout(Duration),
    /// Acknowledges received bytes at once, instead of with the next answer.
    QuickAck,
}

/// The reactor's services for its transports between two settlings. No method calls a protocol.
pub(crate) trait Driver {
    /// Sends as many bytes as the socket takes at once, without queueing. Returns their number: 0
    /// if the socket is full or fails (the settling phase will meet the error again). The system
    /// holds these bytes back for the bytes behind them, until the settling phase.
    fn send_now(&self, id: Id, data: &[u8]) -> usize;
    /// Sets an option of the socket.
    fn set_option(&self, id: Id, option: SocketOption) -> io::Result<()>;
    /// Returns `true` if Nagle's algorithm is off.
    fn no_delay(&self, id: Id) -> io::Result<bool>;
    /// Returns `true` if keep-alive is on.
    fn keep_alive(&self, id: Id) -> io::Result<bool>;
    /// Returns `true` if descriptors can be sent with bytes.
    fn passes_descriptors(&self, id: Id) -> bool;
    /// Returns another descriptor of a file, if parts of it can be sent over a connection. A driver
    /// without sockets of the system sends none.
    fn system_file(&self, _id: Id, _file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Number of bytes between the position of a file and its end.
    fn bytes_left(&self, _file: BorrowedFd<'_>) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns the identity of the process at the other end of a UNIX socket.
    fn peer_credentials(&self, id: Id) -> io::Result<Credentials>;
    /// Returns the descriptor.
    fn raw_fd(&self, id: Id) -> Option<RawFd>;
    /// Returns a second descriptor of the socket. With `lasting`, it outlives the present call.
    fn duplicate(&self, id: Id, lasting: bool) -> io::Result<OwnedFd>;
    /// Closes the socket of a connection at once, and drops its protocol without a call.
    fn discard(&self, id: Id, mode: DiscardMode);
    /// Shows `look` the object above the transport, which a room above this one built.
    fn above(&self, id: Id, look: &mut dyn FnMut(&dyn Any));
    /// Shows `look` the queue for calls from other threads, which a room above this one built. A
    /// driver that has no such queue shows nothing.
    fn remote(&self, _look: &mut dyn FnMut(&dyn Any)) {}
    /// Wakes the host that waits in the place of the loop, if there is one.
    fn wake_host(&self) {}
    /// Returns the timers that belong to the connection.
    fn timers(&self) -> Timers;
}
