//! Version 1: a line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Command, ProxyHeader, ProxyHeaderError, ProxyVersion};
use crate::address::Address;

/// The beginning of a line.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line with its CR LF.
pub(super) const MAX_LINE_BYTES: usize = 107;

/// Returns the number of bytes of the line that `data` begins with. `None` if it is incomplete.
pub(super) fn length(data: &[u8]) -> Result<Option<usize>, ProxyHeaderError> {
    let line = &data[..data.len().min(MAX_LINE_BYTES)];
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(end + 2)),
        None if data.len() >= MAX_LINE_BYTES => Err(ProxyHeaderError::TooLong { limit: MAX_LINE_BYTES }),
        None => Ok(None),
    }
}

/// Reads a line with its CR LF.
pub(super) fn parse(line: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let fields = line.strip_prefix(SIGNATURE).and_then(|rest| rest.strip_suffix(b"\r\n"));
    let fields: Vec<&[u8]> = fields.ok_or(ProxyHeaderError::Missing)?.split(|byte| *byte == b' ').collect();
    let (family, fields) = fields.split_first().ok_or(ProxyHeaderError::Fields)?;
    let read_ip: fn(&str) -> Option<IpAddr> = match *family {
        b"TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        b"TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        // The sender may put anything behind it.
        b"UNKNOWN" => return Ok(ProxyHeader::unknown().version(ProxyVersion::V1)),
        _ => return Err(ProxyHeaderError::LineFamily),
    };
    let [source, destination, source_port, destination_port] = *fields else { return Err(ProxyHeaderError::Fields) };
    let end = |ip: &[u8], port: &[u8]| {
        let ip = str::from_utf8(ip).ok().and_then(read_ip).ok_or(ProxyHeaderError::InvalidAddress)?;
        Ok(Address::from(SocketAddr::new(ip, read_port(port)?)))
    };
    let (source, destination) = (end(source, source_port)?, end(destination, destination_port)?);
    Ok(ProxyHeader::proxied(source, destination).version(ProxyVersion::V1))
}

/// Reads a port. `FromStr` of the standard library also accepts a sign and leading zeros.
fn read_port(text: &[u8]) -> Result<u16, ProxyHeaderError> {
    let is_number = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"));
    let number = str::from_utf8(text).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    number.ok_or(ProxyHeaderError::InvalidPort)
}

/// Writes a header as a line.
pub(super) fn encode(header: &ProxyHeader) -> Vec<u8> {
    let inet = |address: &Address| address.socket_addr();
    let line = match &header.command {
        Command::Proxied { source, destination } => match (inet(source), inet(destination)) {
            (Some(SocketAddr::V4(source)), Some(SocketAddr::V4(destination))) => Some(format!(
                "PROXY TCP4 {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            )),
            (Some(source), Some(destination)) => Some(format!(
                "PROXY TCP6 {} {} {} {}\r\n",
                mapped(source.ip()),
                mapped(destination.ip()),
                source.port(),
                destination.port()
            )),
            _ => None,
        },
        Command::Local | Command::Unknown => None,
    };
    line.map_or_else(|| b"PROXY UNKNOWN\r\n".to_vec(), String::into_bytes)
}

/// Returns an address as an IPv6 address.
pub(super) fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
