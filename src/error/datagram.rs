//! The reasons why a datagram is not sent, and why a datagram port refuses a request.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use super::ListenError;
use crate::address::Address;

/// The reason why a [`DatagramTransport`](crate::DatagramTransport) refuses a request (Twisted:
/// `MessageLengthError`, `InvalidAddressError`, `MulticastJoinError`, or an `OSError`).
///
/// An error of [`write`](crate::DatagramTransport::write) means that this datagram was not sent.
/// The port itself goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The port has stopped, its reactor is gone, or this process was forked from the reactor's.
    #[error("the datagram port does not listen")]
    NotListening,
    /// The datagram is longer than UDP or the system permits (Twisted: `MessageLengthError`). Over
    /// a UNIX socket, that is the size of the send buffer.
    #[error("a datagram of {length} bytes is too long for {to}")]
    MessageTooLong {
        /// The destination.
        to: Address,
        /// The length of the datagram.
        length: usize,
    },
    /// The address is of a family that the socket does not reach (Twisted: `InvalidAddressError`).
    #[error("{to} is out of reach for a socket at {host}: it is of another family")]
    WrongFamily {
        /// The destination.
        to: Address,
        /// The address of the port.
        host: Address,
    },
    /// The destination is a UNIX socket without a name, which nothing can be sent to. Its sender
    /// expects no answer, or forgot to bind an address.
    #[error("an unnamed UNIX socket cannot be reached from {host}")]
    Unnamed {
        /// The address of the port.
        host: Address,
    },
    /// The system takes no more for now, and the queue of the port is full as well (Twisted has no
    /// queue: UDP raises the system's `EWOULDBLOCK`, and a UNIX socket drops the datagram).
    #[error("the datagram is dropped: {queued} bytes are queued for the socket, and {limit} are permitted")]
    QueueFull {
        /// The size of the queue, with the cost of each datagram.
        queued: usize,
        /// The limit of the queue.
        limit: usize,
    },
    /// The port has no peer: [`connect`](crate::DatagramTransport::connect) it first.
    #[error("the datagram port is not connected")]
    NotConnected,
    /// The port has a peer already (Twisted: `RuntimeError`).
    #[error("the datagram port is connected to {peer} already")]
    AlreadyConnected {
        /// The peer.
        peer: Address,
    },
    /// The port has a peer, and sends to no other address.
    #[error("the datagram port is connected to {peer}, and cannot send to {to}")]
    OtherPeer {
        /// The destination.
        to: Address,
        /// The peer.
        peer: Address,
    },
    /// The operating system refused the datagram: there is no route, or a rule forbids it, or
    /// broadcasts are [not allowed](crate::DatagramTransport::set_broadcast_allowed).
    #[error("cannot send a datagram to {to}")]
    Send {
        /// The destination.
        to: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The operating system refused the peer.
    #[error("cannot connect the datagram port to {peer}")]
    Connect {
        /// The requested peer.
        peer: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The group was not joined, or not left (Twisted: `MulticastJoinError`).
    #[error("the membership of {group} cannot be changed")]
    Group {
        /// The group.
        group: IpAddr,
        /// The error of the operating system, or the reason why it was not asked.
        source: io::Error,
    },
    /// There is no network interface of that name.
    #[error("there is no network interface {name:?}")]
    UnknownInterface {
        /// The name of the interface.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// An option of the socket was not set, or not read.
    #[error("the socket refuses {option}")]
    SocketOption {
        /// The option, by the name of its method.
        option: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The reason why there is no connected datagram port
/// ([`Reactor::connect_unix_datagram`](crate::Reactor::connect_unix_datagram)).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectDatagramError {
    /// The port was not bound to its own address, or its protocol did not start.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The port was not connected: [`DatagramError::Connect`] has the error of the operating
    /// system. No file (`NotFound`), no socket behind the file (`ConnectionRefused`), no
    /// permission, a stream socket, or one that is connected to another peer.
    #[error(transparent)]
    Connect(#[from] DatagramError),
}
