//! [`Address`]: who is at the other end, or at this one (Twisted: `IPv4Address`, `IPv6Address`, `IAddress`).

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address of one end of a connection, or of a listening port.
///
/// ```
/// use ropewalk::Address;
///
/// let address: Address = "127.0.0.1:8888".parse::<std::net::SocketAddr>().unwrap().into();
/// assert_eq!(address.port(), Some(8888));
/// assert_eq!(address.to_string(), "127.0.0.1:8888");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address, IPv4 or IPv6.
    Tcp(SocketAddr),
}

impl Address {
    /// The IP address, where there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
        }
    }

    /// The port number, where there is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
        }
    }

    /// The socket address, where there is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl From<SocketAddr> for Address {
    /// A TCP address.
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// An [`Address`] in half the room: each connection keeps two.
#[derive(Debug)]
pub(crate) enum CompactAddress {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl From<SocketAddr> for CompactAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(Box::new(address)),
        }
    }
}

impl From<&CompactAddress> for Address {
    fn from(address: &CompactAddress) -> Self {
        Self::Tcp(match address {
            CompactAddress::V4(address) => SocketAddr::V4(*address),
            CompactAddress::V6(address) => SocketAddr::V6(**address),
        })
    }
}
