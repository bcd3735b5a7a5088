//! PROXY headers, with which a proxy names the client and the address that the client connected to
//! (Twisted: `twisted.protocols.haproxy`). [`ProxyHeader`] is a header, [`ProxyHeaderReader`] finds
//! one at the front of a stream. Neither does I/O.
//!
//! | version | form | bytes at most |
//! |---|---|---|
//! | 1 | a line, `PROXY TCP4 192.0.2.1 192.0.2.2 49152 80` and CR LF | 107 |
//! | 2 | a signature, a length, addresses and further values, in binary | 65,551; the reader has a lower limit |
//!
//! Endpoints that read or send a header are
//! [`HaproxyServerEndpoint`](crate::endpoints::HaproxyServerEndpoint) and
//! [`HaproxyClientEndpoint`](crate::endpoints::HaproxyClientEndpoint).
//!
//! Rules of the reader:
//! 1. A header is refused at the first byte that no header can have there.
//! 2. The result is the same for any cut of the bytes.
//! 3. No memory is reserved for a length that was only announced.
//! 4. Numbers are decimal digits without signs and leading zeros, and addresses are IP addresses of
//!    the announced family. Fields of a line are separated by one space.

mod binary;
mod error;
mod reader;
mod text;

pub use self::binary::ProxyValues;
pub use self::error::ProxyHeaderError;
pub use self::reader::ProxyHeaderReader;
use crate::address::Address;

/// A PROXY header: the addresses of a connection that a proxy passes on.
///
/// ```
/// use ropewalk::haproxy::{ProxyHeader, ProxyHeaderReader, ProxyVersion};
/// use std::net::SocketAddr;
///
/// # fn main() -> ropewalk::Result<()> {
/// let client: SocketAddr = "192.0.2.1:49152".parse()?;
/// let server: SocketAddr = "192.0.2.2:80".parse()?;
/// let header = ProxyHeader::proxied(client.into(), server.into()).version(ProxyVersion::V1);
/// assert_eq!(header.encode(), b"PROXY TCP4 192.0.2.1 192.0.2.2 49152 80\r\n");
///
/// let (length, read) = ProxyHeaderReader::new().read(&[&header.encode()[..], b"GET /"].concat())?;
/// assert_eq!((length, read), (41, Some(header)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    version: ProxyVersion,
    command: Command,
    /// The values behind the addresses, as they are sent.
    values: Vec<u8>,
}

/// The version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    /// The proxy's own connection, such as a health check.
    Local,
    /// A connection that the proxy passes on. The addresses are unknown, or of a family without a
    /// form in the header.
    Unknown,
    Proxied {
        source: Address,
        destination: Address,
    },
}

impl ProxyHeader {
    /// Makes a header of version 2 for a connection from `source`, the client, which was made to
    /// `destination`.
    ///
    /// Addresses of an IPv4 and an IPv6 end are both sent as IPv6 addresses. A header has no form
    /// for the two ends of a connection of which one is a UNIX socket, and version 1 has none for
    /// UNIX sockets at all: such addresses are sent as unknown.
    pub fn proxied(source: Address, destination: Address) -> Self {
        Self { version: ProxyVersion::V2, command: Command::Proxied { source, destination }, values: Vec::new() }
    }

    /// Makes a header of version 2 for a connection that the sender makes for itself, such as a
    /// health check. The receiver takes the connection's own addresses. In version 1 it is sent as
    /// one of unknown addresses.
    pub fn local() -> Self {
        Self { version: ProxyVersion::V2, command: Command::Local, values: Vec::new() }
    }

    /// Makes a header of version 2 for a connection whose addresses are unknown. The receiver takes
    /// the connection's own.
    pub fn unknown() -> Self {
        Self { version: ProxyVersion::V2, command: Command::Unknown, values: Vec::new() }
    }

    /// Sets the version in which the header is sent. Version 1 has no [values](Self::values).
    pub fn version(mut self, version: ProxyVersion) -> Self {
        self.version = version;
        self
    }

    /// Adds a value, such as a host name that the client asked for (type 2), behind those added
    /// before. The types are the protocol's (`PP2_TYPE_..`). A header without addresses is sent
    /// without values. The four bytes of a checksum (type 3) are computed when the header is sent.
    ///
    /// # Errors
    /// [`ProxyHeaderError::TooLong`] if all values together take more bytes than a header has.
    pub fn with_value(mut self, kind: u8, value: &[u8]) -> Result<Self, ProxyHeaderError> {
        binary::add_value(&mut self.values, kind, value)?;
        Ok(self)
    }

    /// Returns the version.
    pub fn protocol_version(&self) -> ProxyVersion {
        self.version
    }

    /// Returns `true` if the proxy made the connection for itself.
    pub fn is_local(&self) -> bool {
        self.command == Command::Local
    }

    /// Returns the address of the client, if the header has it.
    pub fn source(&self) -> Option<&Address> {
        match &self.command {
            Command::Proxied { source, .. } => Some(source),
            Command::Local | Command::Unknown => None,
        }
    }

    /// Returns the address that the client connected to, if the header has it.
    pub fn destination(&self) -> Option<&Address> {
        match &self.command {
            Command::Proxied { destination, .. } => Some(destination),
            Command::Local | Command::Unknown => None,
        }
    }

    /// Returns the values behind the addresses, each with its type, in order. Only a header of
    /// version 2 with addresses has any.
    ///
    /// ```
    /// use ropewalk::haproxy::{ProxyHeader, ProxyHeaderReader};
    /// use std::net::SocketAddr;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let client: SocketAddr = "[2001:db8::1]:49152".parse()?;
    /// let server: SocketAddr = "[2001:db8::2]:443".parse()?;
    /// let header = ProxyHeader::proxied(client.into(), server.into()).with_value(2, b"example.org")?;
    /// let (_, read) = ProxyHeaderReader::new().read(&header.encode())?;
    /// let values: Vec<_> = read.expect("it is complete").values().map(|(kind, value)| (kind, value.to_vec())).collect();
    /// assert_eq!(values, [(2, b"example.org".to_vec())]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn values(&self) -> ProxyValues<'_> {
        ProxyValues::of(&self.values)
    }

    /// Returns the bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        match self.version {
            ProxyVersion::V1 => text::encode(self),
            ProxyVersion::V2 => binary::encode(self),
        }
    }
}
