//! [`Ends`]: the address of a datagram port, its peer, and the addresses that it reaches.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};

use super::driver::Destination;
use crate::address::{Address, unmapped};
use crate::error::DatagramError;

/// The longest payloads of a UDP datagram, without IPv6's jumbograms: 65,535 bytes less the
/// headers.
const MOST_IPV4_BYTES: usize = 65_507;
const MOST_IPV6_BYTES: usize = 65_527;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ends {
    host: RefCell<Address>,
    reach: Reach,
    peer: OnceCell<Address>,
}

/// The addresses that a socket reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Ipv4,
    Ipv6,
    /// A socket of IPv6 that reaches IPv4 addresses too.
    Both,
    Unix,
}

impl Ends {
    pub(super) fn new(host: Address, reach: Reach) -> Self {
        Self { host: RefCell::new(host), reach, peer: OnceCell::new() }
    }

    pub(super) fn host(&self) -> Address {
        self.host.borrow().clone()
    }

    pub(super) fn peer(&self) -> Option<&Address> {
        self.peer.get()
    }

    /// Records the peer, and the port's own address, which may have become more specific.
    pub(super) fn set_peer(&self, peer: Address, host: Address) {
        // The peer is set once: the state has checked that there is none.
        let _ = self.peer.set(peer);
        self.host.replace(host);
    }

    /// Returns `true` if the port can be a member of such a group.
    pub(super) fn has_groups_of(&self, group: IpAddr) -> bool {
        match self.reach {
            Reach::Ipv4 => group.is_ipv4(),
            Reach::Ipv6 | Reach::Both => group.is_ipv6(),
            Reach::Unix => false,
        }
    }

    /// Returns the destination for the socket, and the address that errors name. `None` is the
    /// peer.
    #[inline]
    pub(super) fn destination<'a>(
        &'a self,
        to: Option<&'a Address>,
    ) -> Result<(Destination<'a>, &'a Address), DatagramError> {
        match (to, self.peer()) {
            (None, Some(peer)) => Ok((Destination::Peer, peer)),
            (None, None) => Err(DatagramError::NotConnected),
            (Some(to), None) => Ok((self.reachable(to)?, to)),
            (Some(to), Some(peer)) if self.reachable(to)? == self.reachable(peer)? => Ok((Destination::Peer, peer)),
            (Some(to), Some(peer)) => Err(DatagramError::OtherPeer { to: to.clone(), peer: peer.clone() }),
        }
    }

    /// Returns an address in the form that the socket takes.
    #[inline]
    pub(super) fn reachable<'a>(&self, to: &'a Address) -> Result<Destination<'a>, DatagramError> {
        match (self.reach, to) {
            (Reach::Ipv4, Address::Inet(to @ SocketAddr::V4(_))) => Ok(Destination::Inet(*to)),
            _ => self.converted(to),
        }
    }

    #[inline(never)]
    fn converted<'a>(&self, to: &'a Address) -> Result<Destination<'a>, DatagramError> {
        let to = match to {
            Address::Inet(to) => unmapped(*to),
            Address::Unix(name) if self.reach == Reach::Unix && !name.is_unnamed() => {
                return Ok(Destination::Unix(name));
            }
            Address::Unix(_) if self.reach == Reach::Unix => {
                return Err(DatagramError::Unnamed { host: self.host() });
            }
            Address::Unix(_) | Address::Pipe => {
                return Err(DatagramError::WrongFamily { to: to.clone(), host: self.host() });
            }
        };
        match (self.reach, to) {
            (Reach::Ipv4, SocketAddr::V4(_)) | (Reach::Ipv6 | Reach::Both, SocketAddr::V6(_)) => {
                Ok(Destination::Inet(to))
            }
            (Reach::Both, SocketAddr::V4(to)) => {
                let mapped = IpAddr::V6(to.ip().to_ipv6_mapped());
                Ok(Destination::Inet(SocketAddr::new(mapped, to.port())))
            }
            _ => Err(DatagramError::WrongFamily { to: to.into(), host: self.host() }),
        }
    }
}

/// Returns the longest datagram to an address. The system knows the limit of UNIX sockets.
#[inline]
pub(super) fn most_bytes(to: &Address) -> usize {
    match to {
        Address::Inet(to) if unmapped(*to).is_ipv4() => MOST_IPV4_BYTES,
        Address::Inet(_) => MOST_IPV6_BYTES,
        Address::Unix(_) | Address::Pipe => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::UnixAddress;

    fn inet(address: &str) -> Address {
        Address::Inet(address.parse().expect("an address"))
    }

    fn unix(name: &str) -> Address {
        UnixAddress::abstract_name(name).expect("a name").into()
    }

    /// A port reaches the addresses of its family, and its peer alone once it has one.
    #[test]
    fn a_port_reaches_addresses_of_its_family() {
        let (v4, v6, mapped) = (inet("192.0.2.1:7"), inet("[2001:db8::1]:7"), inet("[::ffff:192.0.2.1]:7"));
        let all = [&v4, &v6, &mapped, &unix("a"), &Address::Pipe];
        let reached = |host: &Address, reach: Reach| {
            let ends = Ends::new(host.clone(), reach);
            all.map(|to| ends.destination(Some(to)).is_ok())
        };
        assert_eq!(reached(&inet("0.0.0.0:1"), Reach::Ipv4), [true, false, true, false, false]);
        assert_eq!(reached(&inet("[::]:1"), Reach::Ipv6), [false, true, false, false, false]);
        assert_eq!(reached(&inet("[::]:1"), Reach::Both), [true, true, true, false, false]);
        assert_eq!(reached(&unix("host"), Reach::Unix), [false, false, false, true, false]);
        let ends = Ends::new(inet("[::]:1"), Reach::Both);
        let form = Destination::Inet("[::ffff:192.0.2.1]:7".parse().expect("an address"));
        assert_eq!(ends.destination(Some(&v4)).expect("it is reached"), (form, &v4));
        assert!(matches!(ends.destination(None), Err(DatagramError::NotConnected)));
        ends.set_peer(v4.clone(), inet("192.0.2.2:1"));
        for to in [None, Some(&v4), Some(&mapped)] {
            assert_eq!(ends.destination(to).expect("the peer"), (Destination::Peer, &v4));
        }
        assert!(matches!(ends.destination(Some(&v6)), Err(DatagramError::OtherPeer { .. })));
    }

    /// A UNIX socket without a name has no address to answer to.
    #[test]
    fn an_unnamed_socket_is_not_reached() {
        let ends = Ends::new(unix("host"), Reach::Unix);
        let unnamed = UnixAddress::unnamed().into();
        assert!(matches!(ends.destination(Some(&unnamed)), Err(DatagramError::Unnamed { .. })));
        assert!(!ends.has_groups_of("239.255.0.1".parse().expect("a group")));
    }
}
