//! The reasons why a descriptor is not adopted, and the reasons why this process has none to adopt.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use thiserror::Error;

use crate::address::AddressFamily;

/// The reason why a descriptor cannot be adopted, as a port or as a connection (Twisted:
/// `UnsupportedAddressFamily`, `UnsupportedSocketType`, `AlreadyListened`, or an `OSError`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The descriptor is a file, a pipe or a device.
    #[error("the descriptor is not a socket")]
    NotASocket,
    /// The socket carries datagrams or packets.
    #[error("the socket is not a stream socket")]
    NotAStream,
    /// The socket is neither of IPv4, nor of IPv6, nor a UNIX socket (Twisted:
    /// `UnsupportedAddressFamily`).
    #[error("the socket is of the address family {family}, which is none of INET, INET6 and UNIX")]
    UnsupportedFamily {
        /// The system's number of the family.
        family: u32,
    },
    /// The socket is not of the family that was asked for with
    /// [`AdoptOptions::family`](crate::reactor::AdoptOptions::family).
    #[error("the socket is of the address family {found}, and not {expected}")]
    WrongFamily {
        /// The family that was asked for.
        expected: AddressFamily,
        /// The family of the socket.
        found: AddressFamily,
    },
    /// A port was asked for, and the socket is a connection, or `listen(2)` was not called on it.
    #[error("the socket does not listen")]
    NotListening,
    /// A connection was asked for, and the socket listens.
    #[error("the socket listens: it is no connection")]
    Listening,
    /// A connection was asked for, and the socket has no peer, or none any more.
    #[error("the socket is not connected")]
    NotConnected,
    /// The descriptor was adopted before: an endpoint listens once, and an adopted port that has
    /// stopped does not listen again (Twisted: `AlreadyListened`).
    #[error("the descriptor was adopted before")]
    Taken,
    /// The reactors of a group cannot share the socket by `SO_REUSEPORT`: each would need a socket
    /// of its own. They can share it by [`PortSharing::HandOver`](crate::reactor::PortSharing).
    #[error("the reactors of a group cannot have a socket each on this address")]
    NotShareable,
    /// The reactor has no descriptors: it is on a simulated network.
    #[error("a simulated network has no descriptors")]
    Unsupported,
    /// A call on the descriptor failed.
    #[error("cannot adopt the descriptor")]
    System(#[from] io::Error),
}

impl AdoptError {
    /// Names the reason for which a backend takes no descriptor over.
    pub(crate) fn of_backend(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::Unsupported { Self::Unsupported } else { Self::System(error) }
    }
}

/// A descriptor that was not adopted, given back with the reason. An `E` is a
/// [`ListenError`](super::ListenError) for a port, and a [`ConnectError`](super::ConnectError) for
/// a connection.
///
/// The descriptor is open, and close-on-exec if it was one of a stream socket.
#[derive(Debug, Error)]
#[error("the descriptor was not adopted")]
#[non_exhaustive]
pub struct NotAdopted<E: std::error::Error + 'static> {
    /// The descriptor.
    pub descriptor: OwnedFd,
    /// The reason.
    #[source]
    pub error: E,
}

impl<E: std::error::Error + 'static> NotAdopted<E> {
    pub(crate) fn new(descriptor: OwnedFd, error: E) -> Self {
        Self { descriptor, error }
    }
}

/// The reason why this process has no such descriptor from the process that started it (Twisted:
/// `IndexError`, `KeyError`, or no descriptors at all).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InheritedError {
    /// The variables `LISTEN_PID` and `LISTEN_FDS` are not set: no service manager has passed
    /// descriptors.
    #[error("no descriptors were passed to this process: LISTEN_PID and LISTEN_FDS are not both set")]
    NonePassed,
    /// `LISTEN_PID` names another process: the descriptors were for a parent of this one.
    #[error("the descriptors were passed to process {pid}, and not to this one")]
    OtherProcess {
        /// The process that they were passed to.
        pid: i32,
    },
    /// `LISTEN_PID` is not the number of a process, or `LISTEN_FDS` not a number of descriptors.
    #[error("{variable} is {value:?}: expected a whole number")]
    BadNumber {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// `LISTEN_FDNAMES` has more or fewer names than there are descriptors, or is not text.
    #[error("LISTEN_FDNAMES has {names} names for {count} descriptors")]
    NamesMismatch {
        /// The number of names; 0 if the value is not text.
        names: usize,
        /// The number of descriptors.
        count: usize,
    },
    /// A name was asked for, and `LISTEN_FDNAMES` is not set.
    #[error("the descriptors have no names: LISTEN_FDNAMES is not set")]
    NoNames,
    /// No descriptor was passed under this index.
    #[error("there is no descriptor {index}: {count} were passed")]
    NoSuchIndex {
        /// The index, from 0.
        index: usize,
        /// The number of descriptors.
        count: usize,
    },
    /// No descriptor was passed under this name.
    #[error("there is no descriptor of the name {name:?}; there are {known:?}")]
    NoSuchName {
        /// The name.
        name: String,
        /// The names that were passed.
        known: Vec<String>,
    },
    /// The descriptor was taken before (Twisted: `AlreadyListened`).
    #[error("descriptor {number} was taken before")]
    Taken {
        /// The number of the descriptor.
        number: RawFd,
    },
    /// The number is not open in this process.
    #[error("descriptor {number} is not open")]
    NotOpen {
        /// The number.
        number: RawFd,
    },
    /// The descriptor was opened by this process, and not inherited: it is close-on-exec.
    #[error("descriptor {number} was not inherited: it is close-on-exec")]
    NotInherited {
        /// The number.
        number: RawFd,
    },
    /// The number is one of standard input, output and error, which belong to the standard library.
    /// Adopt a duplicate of it instead: `std::io::stdin().as_fd().try_clone_to_owned()`.
    #[error("descriptor {number} is a standard stream: adopt a duplicate of it")]
    StandardStream {
        /// The number.
        number: RawFd,
    },
}
