//! [`Address`], the address of either end of a connection (Twisted: `IPv4Address`, `IPv6Address`,
//! `UNIXAddress`, `PipeAddress`, `IAddress`), and the syntax of hosts: the texts that are
//! addresses, and those that could be names.

mod family;
mod host;
mod unix;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

pub use self::family::{AddressFamily, UnknownFamily};
pub use self::host::BadHostName;
pub(crate) use self::host::{literal, parse_ipv6, to_ascii};
pub use self::unix::{UnixAddress, UnixAddressError};

/// The address of one end of a connection, or of a listening port.
///
/// An IPv4-mapped IPv6 address (`::ffff:127.0.0.1`) is an IPv4 address here. A port that listens on
/// both families reports IPv4 peers with their IPv4 addresses. Listening on a mapped address, or
/// connecting to it, uses the IPv4 address.
///
/// ```
/// use ropewalk::Address;
///
/// let address: Address = "127.0.0.1:8888".parse::<std::net::SocketAddr>().unwrap().into();
/// assert_eq!(address.port(), Some(8888));
/// assert_eq!(address.to_string(), "127.0.0.1:8888");
///
/// let mapped: Address = "[::ffff:127.0.0.1]:8888".parse::<std::net::SocketAddr>().unwrap().into();
/// assert_eq!(mapped, address);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address, IPv4 or IPv6. `Address::from` turns an IPv4-mapped address into an IPv4
    /// address.
    Inet(SocketAddr),
    /// The address of a UNIX socket.
    Unix(UnixAddress),
    /// Either end of a connection without a network: over pipes, a terminal, or standard input and
    /// output (Twisted: `PipeAddress`).
    Pipe,
}

impl Address {
    /// Returns the IP address, or `None` if this is no TCP address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix(_) | Self::Pipe => None,
        }
    }

    /// Returns the port number, or `None` if this is no TCP address.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet(address) => Some(address.port()),
            Self::Unix(_) | Self::Pipe => None,
        }
    }

    /// Returns the address of a UNIX socket, or `None` for any other.
    pub fn unix(&self) -> Option<&UnixAddress> {
        match self {
            Self::Inet(_) | Self::Pipe => None,
            Self::Unix(address) => Some(address),
        }
    }

    /// Returns the family of the address. A pipe has none.
    pub(crate) fn family(&self) -> Option<AddressFamily> {
        match self {
            Self::Inet(SocketAddr::V4(_)) => Some(AddressFamily::Inet),
            Self::Inet(SocketAddr::V6(_)) => Some(AddressFamily::Inet6),
            Self::Unix(_) => Some(AddressFamily::Unix),
            Self::Pipe => None,
        }
    }

    /// Returns the socket address, or `None` if this is no TCP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) | Self::Pipe => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
            Self::Pipe => f.write_str("a pipe"),
        }
    }
}

impl From<SocketAddr> for Address {
    /// Makes a TCP address. An IPv4-mapped address becomes an IPv4 address.
    fn from(address: SocketAddr) -> Self {
        Self::Inet(unmapped(address))
    }
}

impl From<UnixAddress> for Address {
    fn from(address: UnixAddress) -> Self {
        Self::Unix(address)
    }
}

/// Returns the IPv4 address of an IPv4-mapped IPv6 address, and any other address unchanged.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => (ip, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// The two addresses of a connection. The common case, IPv4, takes a quarter of the memory.
#[derive(Debug)]
pub(crate) enum AddressPair {
    V4 {
        host: SocketAddrV4,
        peer: SocketAddrV4,
    },
    Other(Box<(Address, Address)>),
    /// Addresses that a preamble has given, and the value that it has read.
    Given(Box<(Address, Address, Box<dyn Any + Send>)>),
}

impl AddressPair {
    pub(crate) fn new(host: Address, peer: Address) -> Self {
        match (host, peer) {
            (Address::Inet(SocketAddr::V4(host)), Address::Inet(SocketAddr::V4(peer))) => Self::V4 { host, peer },
            ends => Self::Other(Box::new(ends)),
        }
    }

    /// Makes the addresses that a preamble gives, with the value that it has read.
    pub(crate) fn given(host: Address, peer: Address, by: impl Any + Send) -> Self {
        Self::Given(Box::new((host, peer, Box::new(by))))
    }

    /// Returns the value that a preamble has read.
    pub(crate) fn given_by<T: Any>(&self) -> Option<&T> {
        match self {
            Self::Given(ends) => ends.2.downcast_ref(),
            Self::V4 { .. } | Self::Other(_) => None,
        }
    }

    /// Returns the address of this end.
    pub(crate) fn host(&self) -> Address {
        match self {
            Self::V4 { host, .. } => Address::Inet((*host).into()),
            Self::Other(ends) => ends.0.clone(),
            Self::Given(ends) => ends.0.clone(),
        }
    }

    /// Returns the address of the other end.
    pub(crate) fn peer(&self) -> Address {
        match self {
            Self::V4 { peer, .. } => Address::Inet((*peer).into()),
            Self::Other(ends) => ends.1.clone(),
            Self::Given(ends) => ends.1.clone(),
        }
    }
}
