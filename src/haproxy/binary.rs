//! Version 2: the binary form.
//!
//! ```text
//! signature  version and command  family and transport  length  addresses  values
//! 12 bytes   1 byte               1 byte                2       12, 36, 216 bytes; the rest
//! ```
//!
//! Numbers are big-endian. A value is a type (1 byte), a length (2 bytes) and its bytes.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use super::text::mapped;
use super::{Command, ProxyHeader, ProxyHeaderError};
use crate::address::{Address, UnixAddress};

/// The beginning of a header.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Number of bytes of a header before its addresses.
pub(super) const PREFIX_BYTES: usize = 16;

/// The most bytes behind the prefix: their number has 16 bits.
const MAX_BODY_BYTES: usize = u16::MAX as usize;

/// Number of bytes of the name of a UNIX socket.
const UNIX_NAME_BYTES: usize = 108;

/// Number of bytes of two such names, the longest addresses.
const UNIX_BYTES: usize = 2 * UNIX_NAME_BYTES;

/// Number of bytes of a value's type and length.
const VALUE_PREFIX_BYTES: usize = 3;

/// The type of the value that is a CRC32c of the whole header (`PP2_TYPE_CRC32C`).
const CHECKSUM_KIND: u8 = 3;

/// Number of bytes of a checksum.
const CHECKSUM_BYTES: usize = 4;

/// Version 2 with the command LOCAL, and with the command PROXY.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Families, in the upper half of their byte.
const UNSPECIFIED: u8 = 0x00;
const INET: u8 = 0x10;
const INET6: u8 = 0x20;
const UNIX: u8 = 0x30;

/// Transports, in the lower half: streams and datagrams.
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

/// Returns the number of bytes of the header that `data` begins with. `None` if its prefix is
/// incomplete.
pub(super) fn length(data: &[u8], limit: usize) -> Result<Option<usize>, ProxyHeaderError> {
    let Some(prefix) = data.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *prefix;
    if command != LOCAL && command != PROXY {
        return Err(ProxyHeaderError::Version { byte: command });
    }
    // A local connection has no addresses. Its family means nothing.
    if command == PROXY && family_bytes(family).is_none() {
        return Err(ProxyHeaderError::Family { byte: family });
    }
    let length = PREFIX_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > limit { Err(ProxyHeaderError::TooLong { limit }) } else { Ok(Some(length)) }
}

/// Number of bytes of the addresses of a family, or `None` if there is no such family.
fn family_bytes(family: u8) -> Option<usize> {
    match (family & 0xf0, family & 0x0f) {
        (UNSPECIFIED, 0) => Some(0),
        (INET, STREAM | DATAGRAM) => Some(12),
        (INET6, STREAM | DATAGRAM) => Some(36),
        (UNIX, STREAM | DATAGRAM) => Some(UNIX_BYTES),
        _ => None,
    }
}

/// Reads a complete header, whose [`length`] is known.
pub(super) fn parse(header: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let (prefix, body) = header.split_first_chunk::<PREFIX_BYTES>().ok_or(ProxyHeaderError::Cut)?;
    let [.., command, family, _, _] = *prefix;
    if command == LOCAL {
        return Ok(ProxyHeader::local());
    }
    let needed = family_bytes(family).ok_or(ProxyHeaderError::Family { byte: family })?;
    if needed == 0 {
        // The sender may put anything behind an unspecified family.
        return Ok(ProxyHeader::unknown());
    }
    let short = ProxyHeaderError::Short { length: body.len(), needed };
    let (addresses, values) = body.split_at_checked(needed).ok_or(short)?;
    let (source, destination) = match family & 0xf0 {
        INET => inet::<4>(addresses).ok_or(short)?,
        INET6 => inet::<16>(addresses).ok_or(short)?,
        _ => (unix(&addresses[..UNIX_NAME_BYTES])?, unix(&addresses[UNIX_NAME_BYTES..])?),
    };
    check_values(header, values)?;
    Ok(ProxyHeader { values: values.to_vec(), ..ProxyHeader::proxied(source, destination) })
}

/// Reads two IP addresses of `N` bytes, and two ports.
fn inet<const N: usize>(data: &[u8]) -> Option<(Address, Address)>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = data.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let destination_port = rest.first_chunk()?;
    let end = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port)).into();
    Some((end(source, source_port), end(destination, destination_port)))
}

/// Reads the name of a UNIX socket: a path up to a NUL, an abstract name behind one, or none. The
/// bytes behind it are zero.
fn unix(name: &[u8]) -> Result<Address, ProxyHeaderError> {
    let (is_abstract, name) = match name.split_first() {
        Some((0, rest)) => (true, rest),
        _ => (false, name),
    };
    let end = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let address = match (is_abstract, &name[..end]) {
        (true, []) => Ok(UnixAddress::unnamed()),
        (true, name) => UnixAddress::abstract_name(name),
        (false, path) => UnixAddress::path(OsStr::from_bytes(path)),
    };
    address.map(Address::from).map_err(|_| ProxyHeaderError::InvalidAddress)
}

/// Checks that each value is complete, and the checksum if there is one.
fn check_values(header: &[u8], values: &[u8]) -> Result<(), ProxyHeaderError> {
    let mut all = ProxyValues::of(values);
    while let Some((kind, value)) = all.next() {
        if kind != CHECKSUM_KIND {
            continue;
        }
        let place = header.len() - all.0.len() - value.len();
        if checksum(header, place).to_be_bytes() != *value {
            return Err(ProxyHeaderError::Checksum);
        }
    }
    if all.0.is_empty() { Ok(()) } else { Err(ProxyHeaderError::Value) }
}

/// Returns the CRC32c of a header, in which the four bytes of the checksum itself count as zero.
fn checksum(header: &[u8], place: usize) -> u32 {
    let bytes = header.iter().enumerate();
    !bytes.fold(u32::MAX, |sum, (at, byte)| {
        let byte = if (place..place + CHECKSUM_BYTES).contains(&at) { 0 } else { *byte };
        (0..u8::BITS).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (CASTAGNOLI & (sum & 1).wrapping_neg()))
    })
}

/// Castagnoli's polynomial, with its bits in reverse.
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// Writes a header in the binary form.
pub(super) fn encode(header: &ProxyHeader) -> Vec<u8> {
    let (command, family, mut body) = match &header.command {
        Command::Local => (LOCAL, UNSPECIFIED, Vec::new()),
        Command::Unknown => (PROXY, UNSPECIFIED, Vec::new()),
        Command::Proxied { source, destination } => encode_addresses(source, destination),
    };
    if family != UNSPECIFIED {
        body.extend_from_slice(&header.values);
    }
    // `add_value` has left room for the longest addresses.
    let length = u16::try_from(body.len()).expect("a header is no longer than its length can say");
    let values = if family == UNSPECIFIED { 0 } else { header.values.len() };
    let mut header = [SIGNATURE, &[command, family], &length.to_be_bytes(), &body].concat();
    seal(&mut header, values);
    header
}

/// Computes the checksum of a header that ends with so many bytes of values, if it has one.
fn seal(header: &mut [u8], values: usize) {
    let mut all = ProxyValues::of(&header[header.len() - values..]);
    let found = all.by_ref().find(|(kind, value)| *kind == CHECKSUM_KIND && value.len() == CHECKSUM_BYTES);
    if found.is_some() {
        let place = header.len() - all.0.len() - CHECKSUM_BYTES;
        let sum = checksum(header, place).to_be_bytes();
        header[place..place + CHECKSUM_BYTES].copy_from_slice(&sum);
    }
}

fn encode_addresses(source: &Address, destination: &Address) -> (u8, u8, Vec<u8>) {
    match (source, destination) {
        (Address::Inet(SocketAddr::V4(source)), Address::Inet(SocketAddr::V4(destination))) => {
            let ips = [source.ip(), destination.ip()].map(Ipv4Addr::octets).concat();
            (PROXY, INET | STREAM, with_ports(ips, source.port(), destination.port()))
        }
        (Address::Inet(source), Address::Inet(destination)) => {
            let ips = [source.ip(), destination.ip()].map(mapped).map(|ip| Ipv6Addr::octets(&ip)).concat();
            (PROXY, INET6 | STREAM, with_ports(ips, source.port(), destination.port()))
        }
        (Address::Unix(source), Address::Unix(destination)) => {
            (PROXY, UNIX | STREAM, [source, destination].map(encode_name).concat())
        }
        _ => (PROXY, UNSPECIFIED, Vec::new()),
    }
}

fn with_ports(mut ips: Vec<u8>, source: u16, destination: u16) -> Vec<u8> {
    ips.extend([source, destination].map(u16::to_be_bytes).concat());
    ips
}

/// Writes the name of a UNIX socket. The longest one leaves room for its NUL.
fn encode_name(address: &UnixAddress) -> [u8; UNIX_NAME_BYTES] {
    let mut name = [0; UNIX_NAME_BYTES];
    let (start, bytes) = match (address.as_path(), address.as_abstract_name()) {
        (Some(path), _) => (0, path.as_os_str().as_bytes()),
        (_, Some(name)) => (1, name),
        (None, None) => (0, &[][..]),
    };
    name[start..start + bytes.len()].copy_from_slice(bytes);
    name
}

/// Adds a value, unless the header would be too long with the longest addresses.
pub(super) fn add_value(values: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), ProxyHeaderError> {
    let length = values.len().saturating_add(VALUE_PREFIX_BYTES).saturating_add(value.len());
    let most = MAX_BODY_BYTES - UNIX_BYTES;
    let own = u16::try_from(value.len()).ok().filter(|_| length <= most);
    let own = own.ok_or(ProxyHeaderError::TooLong { limit: PREFIX_BYTES + MAX_BODY_BYTES })?;
    values.push(kind);
    values.extend(own.to_be_bytes());
    values.extend(value);
    Ok(())
}

/// The values of a [`ProxyHeader`], each with its type. From [`ProxyHeader::values`].
#[derive(Debug, Clone)]
pub struct ProxyValues<'a>(&'a [u8]);

impl<'a> ProxyValues<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for ProxyValues<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.0.split_first_chunk::<VALUE_PREFIX_BYTES>()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        self.0 = rest;
        Some((kind, value))
    }
}
