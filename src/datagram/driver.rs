//! [`DatagramDriver`]: the requests of a datagram transport to its reactor. None calls a protocol.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::queue::DatagramQueue;
use crate::address::{Address, UnixAddress};
use crate::transport::id::Id;

/// The reactor's services for its datagram transports.
pub(crate) trait DatagramDriver {
    /// Returns `true` if this process may use the port.
    fn is_usable(&self) -> bool;
    /// Passes one datagram to the socket.
    fn send(&self, id: Id, data: &[u8], to: Destination<'_>) -> DatagramSend;
    /// Passes the first datagrams of a queue to the socket, as many as one call takes. Returns
    /// their number. The queue itself is not changed.
    fn send_queue(&self, id: Id, queue: &DatagramQueue) -> (usize, DatagramSend);
    /// Sends the queue of a port when the loop no longer waits.
    fn flush_when_awake(&self, id: Id);
    /// Sends the queue of a port after a short time ([`DatagramState::retry`]), because the system
    /// lacks memory, or because it does not report the room of a full receiver.
    ///
    /// [`DatagramState::retry`]: super::state::DatagramState::retry
    fn flush_later(&self, id: Id);
    /// Calls `connection_refused` at the end of the turn.
    fn tell_of_refusal(&self, id: Id);
    /// Starts or stops receiving.
    fn receive(&self, id: Id, on: bool);
    /// Gives the socket a peer, or the same one again. Returns its own address, which may have
    /// become more specific.
    fn connect(&self, id: Id, peer: Destination<'_>) -> io::Result<Address>;
    /// Sets an option of the socket.
    fn set_option(&self, id: Id, option: DatagramOption) -> io::Result<()>;
    /// Returns the value of an option of the socket: a number, or 1 for `true`.
    fn option(&self, id: Id, option: DatagramValue) -> io::Result<u32>;
    /// Returns the index of the network interface with this name.
    fn interface_index(&self, name: &str) -> io::Result<u32>;
    /// Closes the socket, and ends the protocol at the end of the turn.
    fn stop(&self, id: Id);
}

/// The destination of a datagram, in the form that the socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// The peer of a connected socket.
    Peer,
    /// An address of the socket's family.
    Inet(SocketAddr),
    /// A UNIX socket with a name.
    Unix(&'a UnixAddress),
}

/// The result of passing datagrams to a socket.
#[derive(Debug)]
pub(crate) enum DatagramSend {
    /// The socket took all of them.
    Sent,
    /// Over UDP, the peer has refused an earlier datagram, which this call has reported in place of
    /// its own work: call again. Over UNIX sockets, the receiver of this datagram is gone, and a
    /// connected socket has lost its peer.
    Refused,
    /// The socket is full, and the reactor learns when it has room. Or the receiver is full: then
    /// the reactor learns of its room only if it is the peer of the socket.
    Full,
    /// The system lacks memory at the moment.
    Starved,
    /// The loop waits, and has the socket.
    Waits,
    /// The first datagram is too long for the network or for the socket.
    TooLong,
    /// The first datagram was refused by the system, for another reason.
    Failed(io::Error),
}

/// An option of a socket, with the value to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatagramOption {
    Broadcast(bool),
    ReceiveBuffer(u32),
    SendBuffer(u32),
    MulticastTtl(u8),
    MulticastLoopback(bool),
    OutgoingInterface(InterfaceChoice),
    JoinGroup(IpAddr, InterfaceChoice),
    LeaveGroup(IpAddr, InterfaceChoice),
}

/// An option of a socket, to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatagramValue {
    Broadcast,
    ReceiveBuffer,
    SendBuffer,
    MulticastTtl,
    MulticastLoopback,
}

/// A network interface, as the system takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InterfaceChoice {
    /// The system chooses.
    Default,
    /// The interface with this address. For IPv4 only.
    Address(Ipv4Addr),
    Index(u32),
}
