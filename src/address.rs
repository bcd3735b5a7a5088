//! [`Address`]: who is at the other end, or at this one (Twisted: `IPv4Address`, `IPv6Address`, `IAddress`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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
