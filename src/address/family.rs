//! The address families of stream sockets.

use std::fmt;

/// The family of a socket's addresses (Twisted: `addressFamily`, one of `socket.AF_*`).
///
/// ```
/// use ropewalk::address::AddressFamily;
///
/// assert_eq!(AddressFamily::Inet6.to_string(), "INET6");
/// assert_eq!("UNIX".parse(), Ok(AddressFamily::Unix));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressFamily {
    /// IPv4.
    Inet,
    /// IPv6, and IPv4 as far as the socket serves both.
    Inet6,
    /// UNIX sockets.
    Unix,
}

impl fmt::Display for AddressFamily {
    /// Writes the name of the family without its `AF_`, as descriptions of endpoints have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "INET",
            Self::Inet6 => "INET6",
            Self::Unix => "UNIX",
        })
    }
}

impl std::str::FromStr for AddressFamily {
    type Err = UnknownFamily;

    fn from_str(name: &str) -> Result<Self, UnknownFamily> {
        let all = [Self::Inet, Self::Inet6, Self::Unix];
        all.into_iter().find(|family| family.to_string() == name).ok_or(UnknownFamily)
    }
}

/// The text is not the name of an [`AddressFamily`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected INET, INET6 or UNIX")]
pub struct UnknownFamily;
