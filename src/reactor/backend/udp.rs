//! The socket calls of datagram sockets, sorted into the reactions of a backend, as `socket.rs`
//! does for streams. No call waits. Interrupted calls are repeated here. Several queued datagrams
//! leave in one call on Linux (`sendmmsg`). UNIX sockets are bound in `unix_datagrams.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::batch::DatagramBatch;
#[cfg(test)]
use super::socket::faults;
use super::socket::{local_address, set_receive_buffer, set_send_buffer};
use super::socket_file::SocketFile;
use super::system::{self, unix_address};
use super::{ListenRefusal, unix_datagrams};
use crate::address::Address;
use crate::datagram::{
    DatagramOption, DatagramQueue, DatagramSend, DatagramSocketOptions, DatagramValue, Destination, InterfaceChoice,
    Reach,
};

/// Datagrams that the system carries as one at most. 64: `UDP_MAX_SEGMENTS` of Linux, which later
/// versions raise.
const MOST_SEGMENTS: usize = 64;

/// The result of a receive, behind the datagrams that it has put into its batch.
#[derive(Debug)]
pub(crate) enum DatagramReceive {
    /// There are more, or the batch was full.
    More,
    /// The system had no more. A socket with a peer may have an error to report.
    Last,
    /// There is nothing left.
    Empty,
    /// The peer has refused a datagram, or is gone. There may be others to receive.
    Refused,
    /// The receive failed, and is to be tried again after a while.
    Failed(io::Error),
}

/// The result of binding a socket: its address, and the addresses that it reaches.
pub(crate) type DatagramsBound = Result<(Address, Reach), ListenRefusal>;

/// A bound datagram socket.
pub(super) struct BoundDatagrams {
    pub(super) socket: OwnedFd,
    pub(super) host: Address,
    pub(super) reach: Reach,
    /// The file of a UNIX socket with a path.
    pub(super) file: Option<SocketFile>,
    /// The system carries runs of datagrams as one.
    pub(super) is_offloaded: bool,
}

/// Makes a datagram socket.
pub(super) fn bind(address: &Address, options: &DatagramSocketOptions) -> Result<BoundDatagrams, ListenRefusal> {
    match address {
        Address::Inet(address) => Ok(bind_udp(*address, options)?),
        Address::Unix(name) => unix_datagrams::bind(name, options),
        Address::Pipe => Err(io::Error::from(io::ErrorKind::InvalidInput).into()),
    }
}

fn bind_udp(address: SocketAddr, options: &DatagramSocketOptions) -> io::Result<BoundDatagrams> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = system::nonblocking_socket(family, SocketType::DGRAM)?;
    if let (Some(only), SocketAddr::V6(_)) = (options.ipv6_only, address) {
        sockopt::set_ipv6_v6only(&socket, only)?;
    }
    // These are off by default.
    if options.reuse_address {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if options.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if options.broadcast {
        sockopt::set_socket_broadcast(&socket, true)?;
    }
    if let Some(bytes) = options.receive_buffer {
        set_receive_buffer(socket.as_fd(), bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        set_send_buffer(socket.as_fd(), bytes)?;
    }
    if options.segmentation_offload {
        system::coalesce_datagrams(socket.as_fd())?;
    }
    rustix::net::bind(&socket, &address)?;
    let host = local_address(&socket)?;
    let reach = match address {
        SocketAddr::V4(_) => Reach::Ipv4,
        SocketAddr::V6(_) if address.ip().is_unspecified() && !sockopt::ipv6_v6only(&socket)? => Reach::Both,
        SocketAddr::V6(_) => Reach::Ipv6,
    };
    Ok(BoundDatagrams { socket, host, reach, file: None, is_offloaded: options.segmentation_offload })
}

/// Gives a socket a peer. Returns its own address.
pub(super) fn connect(socket: BorrowedFd<'_>, peer: Destination<'_>) -> io::Result<Address> {
    match peer {
        Destination::Inet(peer) => rustix::net::connect(socket, &peer)?,
        Destination::Unix(peer) => rustix::net::connect(socket, &unix_address(peer)?)?,
        // It has this peer already.
        Destination::Peer => {}
    }
    local_address(socket)
}

/// Receives datagrams, as many as there are and as the batch has room for.
pub(super) fn receive(socket: BorrowedFd<'_>, is_unix: bool, batch: &mut DatagramBatch) -> DatagramReceive {
    loop {
        let mut call = || system::receive_datagrams(socket, is_unix, batch);
        #[cfg(test)]
        let received = faults::call(faults::SystemCall::ReceiveDatagram, &mut call);
        #[cfg(not(test))]
        let received = call();
        return match received {
            Ok(()) if batch.is_full() => DatagramReceive::More,
            Ok(()) => DatagramReceive::Last,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => DatagramReceive::Empty,
            // A UNIX socket whose peer was connected to it reports that peer's end as a reset.
            Err(Errno::CONNREFUSED | Errno::CONNRESET) => DatagramReceive::Refused,
            Err(error) => DatagramReceive::Failed(error.into()),
        };
    }
}

/// Sends a datagram.
pub(super) fn send(socket: BorrowedFd<'_>, data: &[u8], to: Destination<'_>) -> DatagramSend {
    let call = || system::send_datagram(socket, data, to);
    loop {
        #[cfg(test)]
        let sent = faults::call(faults::SystemCall::SendDatagram, call);
        #[cfg(not(test))]
        let sent = call();
        match sent {
            Err(Errno::INTR) => {}
            sent => return sort_sent(sent),
        }
    }
}

/// Sends the first datagrams of a queue, as many as one call takes. Returns their number.
///
/// With `offload`, runs of datagrams leave as one. A run that the path does not take is sent as
/// single datagrams. A device that takes none turns `offload` off.
pub(super) fn send_queue(socket: BorrowedFd<'_>, queue: &DatagramQueue, offload: &mut bool) -> (usize, DatagramSend) {
    let mut most = if *offload { MOST_SEGMENTS } else { 1 };
    loop {
        let call = || system::send_datagrams(socket, queue, most);
        #[cfg(test)]
        let sent = faults::call(faults::SystemCall::SendDatagram, call);
        #[cfg(not(test))]
        let sent = call();
        match sent {
            Err(Errno::INTR) => {}
            Err(error @ (Errno::IO | Errno::INVAL | Errno::MSGSIZE))
                if queue.runs(most).next().is_some_and(|run| run.count > 1) =>
            {
                most = 1;
                if error == Errno::IO {
                    tracing::debug!("a device takes no runs of datagrams, which leave one by one from now on");
                    *offload = false;
                }
            }
            Ok(taken) => return (taken, DatagramSend::Sent),
            Err(error) => return (0, sort_sent(Err(error))),
        }
    }
}

/// Returns the result of a send for an id without a datagram socket.
pub(super) fn no_such_socket() -> DatagramSend {
    DatagramSend::Failed(io::ErrorKind::NotConnected.into())
}

/// Sorts the result of a send that was not interrupted.
fn sort_sent(sent: rustix::io::Result<usize>) -> DatagramSend {
    match sent {
        Ok(_) => DatagramSend::Sent,
        Err(Errno::AGAIN) => DatagramSend::Full,
        Err(Errno::NOBUFS | Errno::NOMEM) => DatagramSend::Starved,
        // A UNIX socket reports the end of its peer by any of these, and has no peer any more.
        Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN) => DatagramSend::Refused,
        Err(Errno::MSGSIZE) => DatagramSend::TooLong,
        Err(error) => DatagramSend::Failed(error.into()),
    }
}

/// Sets an option.
pub(super) fn set_option(socket: BorrowedFd<'_>, option: DatagramOption) -> io::Result<()> {
    match option {
        DatagramOption::Broadcast(on) => sockopt::set_socket_broadcast(socket, on)?,
        DatagramOption::ReceiveBuffer(bytes) => set_receive_buffer(socket, bytes)?,
        DatagramOption::SendBuffer(bytes) => set_send_buffer(socket, bytes)?,
        DatagramOption::MulticastTtl(ttl) if is_ipv4(socket)? => sockopt::set_ip_multicast_ttl(socket, ttl.into())?,
        DatagramOption::MulticastTtl(ttl) => sockopt::set_ipv6_multicast_hops(socket, ttl.into())?,
        DatagramOption::MulticastLoopback(on) if is_ipv4(socket)? => sockopt::set_ip_multicast_loop(socket, on)?,
        DatagramOption::MulticastLoopback(on) => sockopt::set_ipv6_multicast_loop(socket, on)?,
        DatagramOption::OutgoingInterface(interface) if is_ipv4(socket)? => match interface {
            InterfaceChoice::Index(index) => system::set_outgoing_index(socket, index)?,
            interface => sockopt::set_ip_multicast_if(socket, &address_of(interface))?,
        },
        DatagramOption::OutgoingInterface(interface) => sockopt::set_ipv6_multicast_if(socket, index_of(interface)?)?,
        DatagramOption::JoinGroup(group, interface) => change_group(socket, group, interface, true)?,
        DatagramOption::LeaveGroup(group, interface) => change_group(socket, group, interface, false)?,
    }
    Ok(())
}

/// Returns the value of an option.
pub(super) fn option(socket: BorrowedFd<'_>, option: DatagramValue) -> io::Result<u32> {
    let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    Ok(match option {
        DatagramValue::Broadcast => sockopt::socket_broadcast(socket)?.into(),
        DatagramValue::ReceiveBuffer => bytes(sockopt::socket_recv_buffer_size(socket)?),
        DatagramValue::SendBuffer => bytes(sockopt::socket_send_buffer_size(socket)?),
        DatagramValue::MulticastTtl if is_ipv4(socket)? => sockopt::ip_multicast_ttl(socket)?,
        DatagramValue::MulticastTtl => sockopt::ipv6_multicast_hops(socket)?,
        DatagramValue::MulticastLoopback if is_ipv4(socket)? => sockopt::ip_multicast_loop(socket)?.into(),
        DatagramValue::MulticastLoopback => sockopt::ipv6_multicast_loop(socket)?.into(),
    })
}

fn change_group(socket: BorrowedFd<'_>, group: IpAddr, interface: InterfaceChoice, joins: bool) -> io::Result<()> {
    match (group, interface) {
        (IpAddr::V4(group), InterfaceChoice::Index(index)) => {
            system::change_group_by_index(socket, group, index, joins)
        }
        (IpAddr::V4(group), interface) if joins => {
            Ok(sockopt::set_ip_add_membership(socket, &group, &address_of(interface))?)
        }
        (IpAddr::V4(group), interface) => Ok(sockopt::set_ip_drop_membership(socket, &group, &address_of(interface))?),
        (IpAddr::V6(group), interface) if joins => {
            Ok(sockopt::set_ipv6_add_membership(socket, &group, index_of(interface)?)?)
        }
        (IpAddr::V6(group), interface) => Ok(sockopt::set_ipv6_drop_membership(socket, &group, index_of(interface)?)?),
    }
}

/// Returns the address that names an interface to IPv4. The unspecified address is the default.
fn address_of(interface: InterfaceChoice) -> Ipv4Addr {
    match interface {
        InterfaceChoice::Address(address) => address,
        InterfaceChoice::Default | InterfaceChoice::Index(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Returns the index that names an interface to IPv6. Zero is the default.
fn index_of(interface: InterfaceChoice) -> io::Result<u32> {
    match interface {
        InterfaceChoice::Default => Ok(0),
        InterfaceChoice::Index(index) => Ok(index),
        InterfaceChoice::Address(_) => {
            let reason = "an IPv6 socket takes the index or the name of an interface, and no IPv4 address";
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        }
    }
}

/// Returns `true` for a socket of IPv4, and `false` for one of IPv6. A UNIX socket is an error.
fn is_ipv4(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?.is_ipv4())
}
