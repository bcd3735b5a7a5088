//! Multicast groups of a datagram port, over IPv4 and IPv6 (Twisted: `IMulticastTransport`,
//! `listenMulticast`).
//!
//! Twisted's methods return Deferreds, since they resolve names. Ours take addresses, and return
//! results.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::driver::{DatagramOption, DatagramValue, InterfaceChoice};
use super::transport::DatagramTransport;
use crate::error::DatagramError;
use crate::failure::Result;

/// A network interface for multicast.
///
/// ```
/// use ropewalk::datagram::MulticastInterface;
///
/// let loopback = MulticastInterface::from(std::net::Ipv4Addr::LOCALHOST);
/// assert_eq!(loopback, MulticastInterface::Address(std::net::Ipv4Addr::LOCALHOST));
/// assert_eq!(MulticastInterface::default(), MulticastInterface::Default);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MulticastInterface {
    /// The interface that the system's routes choose.
    #[default]
    Default,
    /// The interface that has this address. For IPv4 groups.
    Address(Ipv4Addr),
    /// The interface with this index of the system.
    Index(u32),
    /// The interface with this name, such as `eth0`. Linux only: elsewhere it is an error that says
    /// so.
    Name(String),
}

impl From<Ipv4Addr> for MulticastInterface {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address)
    }
}

/// Multicast. The groups, the interfaces and the sizes are those of the port's family: a port at an
/// IPv4 address joins IPv4 groups, and one at an IPv6 address IPv6 groups.
///
/// To have several listeners on one port number, set
/// [`UdpOptions::reuse_address`](super::UdpOptions::reuse_address) for each of them (Twisted:
/// `listenMultiple`). Each gets every datagram of the groups that it has joined.
impl DatagramTransport {
    /// Joins a group (Twisted: `joinGroup`). The port receives the datagrams to the group that
    /// arrive on the interface, until it [leaves](Self::leave_group) the group or stops.
    ///
    /// On Linux, a port that is bound to all addresses (`0.0.0.0`) also receives the datagrams of
    /// groups that other sockets of the host have joined. One that is bound to the address of the
    /// group receives those of this group alone.
    ///
    /// ```
    /// # use ropewalk::datagram::{MulticastInterface, UdpOptions};
    /// # use ropewalk::interfaces::*;
    /// # use ropewalk::{Address, DatagramTransport, Reactor, Result};
    /// struct Announcements;
    ///
    /// impl DatagramProtocol for Announcements {
    ///     fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
    ///         transport.join_group("239.255.0.1".parse()?, &MulticastInterface::Default)?;
    ///         Ok(())
    ///     }
    ///
    ///     fn datagram_received(&mut self, _: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
    ///         println!("{peer} announces {data:?}");
    ///         Ok(())
    ///     }
    /// }
    /// # fn main() -> Result<()> {
    /// # let reactor = Reactor::new()?;
    /// let options = UdpOptions::new().reuse_address(true);
    /// # if false {
    /// reactor.listen_udp("0.0.0.0:9876".parse()?, &options, Announcements)?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Group`](DatagramError::Group): the address is no multicast group or of the wrong family,
    /// the group was joined already, or the system has no such interface.
    /// [`UnknownInterface`](DatagramError::UnknownInterface),
    /// [`NotListening`](DatagramError::NotListening).
    pub fn join_group(&self, group: IpAddr, interface: &MulticastInterface) -> Result<(), DatagramError> {
        self.change_group(group, interface, DatagramOption::JoinGroup)
    }

    /// Leaves a group (Twisted: `leaveGroup`). The interface is the one that was given to
    /// [`join_group`](Self::join_group).
    ///
    /// # Errors
    /// As `join_group`.
    pub fn leave_group(&self, group: IpAddr, interface: &MulticastInterface) -> Result<(), DatagramError> {
        self.change_group(group, interface, DatagramOption::LeaveGroup)
    }

    /// Sets the number of routers that datagrams to groups may pass, plus one (Twisted: `setTTL`;
    /// IPv6: the hop limit). 1 by default: they stay in the local network. 0 keeps them in this
    /// host.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn set_multicast_ttl(&self, ttl: u8) -> Result<(), DatagramError> {
        self.set("set_multicast_ttl", DatagramOption::MulticastTtl(ttl))
    }

    /// Returns the number that [`set_multicast_ttl`](Self::set_multicast_ttl) sets (Twisted:
    /// `getTTL`).
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn multicast_ttl(&self) -> Result<u32, DatagramError> {
        self.value("multicast_ttl", DatagramValue::MulticastTtl)
    }

    /// Sets whether datagrams to groups are also delivered to the members on this host (Twisted:
    /// `setLoopbackMode`). On by default.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn set_multicast_loopback(&self, on: bool) -> Result<(), DatagramError> {
        self.set("set_multicast_loopback", DatagramOption::MulticastLoopback(on))
    }

    /// Returns `true` if datagrams to groups are also delivered to the members on this host
    /// (Twisted: `getLoopbackMode`).
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn multicast_loopback(&self) -> Result<bool, DatagramError> {
        Ok(self.value("multicast_loopback", DatagramValue::MulticastLoopback)? != 0)
    }

    /// Sets the interface through which datagrams to groups leave (Twisted:
    /// `setOutgoingInterface`). By default the routes decide.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed), and
    /// [`UnknownInterface`](DatagramError::UnknownInterface).
    pub fn set_outgoing_interface(&self, interface: &MulticastInterface) -> Result<(), DatagramError> {
        let interface = self.choice(interface)?;
        self.set("set_outgoing_interface", DatagramOption::OutgoingInterface(interface))
    }

    fn change_group(
        &self,
        group: IpAddr,
        interface: &MulticastInterface,
        change: fn(IpAddr, InterfaceChoice) -> DatagramOption,
    ) -> Result<(), DatagramError> {
        let is_same_family = self.state().ends().has_groups_of(group);
        let reason = match group.is_multicast() {
            true if is_same_family => None,
            true => Some("the group is of another family than the port"),
            false => Some("the address is no multicast group"),
        };
        if let Some(reason) = reason {
            let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
            return Err(DatagramError::Group { group, source });
        }
        let interface = self.choice(interface)?;
        let changed = self.state().driver()?.set_option(self.state().id(), change(group, interface));
        changed.map_err(|source| DatagramError::Group { group, source })
    }

    /// Resolves the name of an interface.
    fn choice(&self, interface: &MulticastInterface) -> Result<InterfaceChoice, DatagramError> {
        Ok(match interface {
            MulticastInterface::Default => InterfaceChoice::Default,
            MulticastInterface::Address(address) => InterfaceChoice::Address(*address),
            MulticastInterface::Index(index) => InterfaceChoice::Index(*index),
            MulticastInterface::Name(name) => InterfaceChoice::Index(self.interface_index(name)?),
        })
    }
}
