//! [`Sharing`]: the rules by which sockets of a host share an address.

use std::net::{IpAddr, SocketAddr};

use crate::address::Address;

/// Options of a socket for sharing its address, as on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// `SO_REUSEADDR`.
    pub(crate) reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub(crate) reuse_port: bool,
    /// `IPV6_V6ONLY`. Unless it is set, a host listens on both families.
    pub(crate) ipv6_only: bool,
}

impl Sharing {
    /// True if both may be bound to one address, at which the other listens or has a connection.
    pub(super) fn is_possible(self, other: Self, other_listens: bool) -> bool {
        let by_address = self.reuse_address && other.reuse_address && !other_listens;
        by_address || (self.reuse_port && other.reuse_port)
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self { reuse_address: true, reuse_port: false, ipv6_only: false }
    }
}

/// True if there is an address whose connections both sockets of one host would get.
pub(super) fn overlap(one: (&Address, Sharing), other: (&Address, Sharing)) -> bool {
    reaches(one.0, other).is_some() || reaches(other.0, one).is_some()
}

/// Measures how exactly a listener's address matches the destination of a connection; `None`: not
/// at all.
pub(super) fn reaches(to: &Address, (bound, sharing): (&Address, Sharing)) -> Option<u8> {
    let (Address::Inet(to), Address::Inet(at)) = (to, bound) else {
        return (to == bound).then_some(EXACT);
    };
    if to.port() != at.port() {
        return None;
    }
    match (to, at) {
        _ if to.ip() == at.ip() => Some(EXACT),
        (SocketAddr::V4(_), SocketAddr::V4(at)) if at.ip().is_unspecified() => Some(FAMILY),
        (SocketAddr::V6(_), SocketAddr::V6(at)) if at.ip().is_unspecified() => Some(FAMILY),
        (_, SocketAddr::V6(at)) if at.ip().is_unspecified() && !sharing.ipv6_only => Some(BOTH_FAMILIES),
        _ => None,
    }
}

/// True if an address belongs to a host: its own, the loopback's, or the unspecified one.
pub(super) fn is_of(host: IpAddr, ip: IpAddr) -> bool {
    ip == host || ip.is_unspecified() || ip.is_loopback()
}

const EXACT: u8 = 2;
const FAMILY: u8 = 1;
const BOTH_FAMILIES: u8 = 0;
