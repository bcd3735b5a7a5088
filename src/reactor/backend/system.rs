//! Socket calls that differ between systems: creation flags, sends without a signal, and options
//! that only some systems have.
//!
//! | purpose | Linux, Android | FreeBSD | Apple |
//! |---|---|---|---|
//! | nonblocking, close-on-exec | flags of `socket` and `accept4` | as Linux | calls after `socket` and `accept` |
//! | a lost peer raises no signal | `MSG_NOSIGNAL` | as Linux | `SO_NOSIGPIPE` |
//! | received descriptors are close-on-exec | `MSG_CMSG_CLOEXEC` | as Linux | calls after `recvmsg` |
//! | the socket holds back a short segment | `MSG_MORE`, `TCP_CORK` | sends it at once | sends it at once |
//! | permissions of a UNIX socket's file | before and after `bind` | after `bind` | after `bind` |
//! | abstract UNIX names | supported | [`Unsupported`] | [`Unsupported`] |
//! | credentials of a UNIX peer | `SO_PEERCRED` | [`Unsupported`] | [`Unsupported`] |
//! | `TCP_USER_TIMEOUT`, `TCP_QUICKACK` | supported | [`Unsupported`] | [`Unsupported`] |
//! | whether a socket listens | `SO_ACCEPTCONN` | as Linux | a socket without a peer counts as one |
//! | indices of network interfaces | Linux only: `SIOCGIFINDEX` | [`Unsupported`] | [`Unsupported`] |
//! | IPv4 groups by the index of an interface | supported | [`Unsupported`] | [`Unsupported`] |
//! | the whole length of a truncated datagram | supported | unknown | unknown |
//!
//! A missing feature is an error that names it. The exception is held-back segments, which only
//! save packets. Other BSDs take the paths of FreeBSD, and no check of ours compiles for them.
//!
//! [`Unsupported`]: io::ErrorKind::Unsupported

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::io::Errno;
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
use rustix::net::sockopt;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use super::batch::DatagramBatch;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use super::batch::ReceivedDatagram;
use crate::address::{Address, UnixAddress};
use crate::datagram::{DatagramQueue, Destination};
use crate::transport::driver::Credentials;

/// Flags of each send: a lost peer is an error, never a signal, and no call waits.
#[cfg(not(target_vendor = "apple"))]
pub(super) const SENDING: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
/// Flags of each send: no call waits. A lost peer is an error because of `SO_NOSIGPIPE`.
#[cfg(target_vendor = "apple")]
pub(super) const SENDING: SendFlags = SendFlags::DONTWAIT;

/// Flags of a send after which the socket holds back a short segment.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const HOLDING_BACK: SendFlags = SENDING.union(SendFlags::MORE);
/// This system has no `MSG_MORE`, so the socket sends at once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const HOLDING_BACK: SendFlags = SENDING;

/// Flags of a receive with descriptors: they are close-on-exec, and no call waits.
#[cfg(not(target_vendor = "apple"))]
pub(super) const RECEIVING: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
/// Flags of a receive with descriptors: no call waits. [`close_on_exec`] does the rest.
#[cfg(target_vendor = "apple")]
pub(super) const RECEIVING: RecvFlags = RecvFlags::DONTWAIT;

#[cfg(not(target_vendor = "apple"))]
const NONBLOCKING: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Makes a nonblocking socket, which child programs do not inherit.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn nonblocking_socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, NONBLOCKING, None)
}

/// Makes a nonblocking socket, which child programs do not inherit.
#[cfg(target_vendor = "apple")]
pub(super) fn nonblocking_socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let socket = unused_socket(family, kind)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// Makes a socket on which nothing is sent or received. Child programs do not inherit it.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn unused_socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

/// Makes a socket on which nothing is sent or received. Child programs do not inherit it.
#[cfg(target_vendor = "apple")]
pub(super) fn unused_socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(family, kind, SocketFlags::empty(), None)?;
    set_close_on_exec(&socket)?;
    Ok(socket)
}

/// Accepts a connection, with the peer's address. Its socket is nonblocking, and child programs do
/// not inherit it.
#[cfg(not(target_vendor = "apple"))]
#[inline(always)]
pub(super) fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    rustix::net::acceptfrom_with(listener, NONBLOCKING)
}

/// Accepts a connection, with the peer's address. Its socket is nonblocking, and child programs do
/// not inherit it.
#[cfg(target_vendor = "apple")]
pub(super) fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (socket, peer) = rustix::net::acceptfrom(listener)?;
    set_close_on_exec(&socket)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    // The kernel hands this option on from the listener. Setting it again fails for a peer that is
    // already gone, whose bytes may still wait to be received.
    let _ = sockopt::set_socket_nosigpipe(&socket, true);
    Ok((socket, peer))
}

/// Makes received descriptors close-on-exec, if [`RECEIVING`] does not. A descriptor that cannot be
/// made so is closed.
#[cfg(target_vendor = "apple")]
pub(super) fn close_on_exec(received: &mut Vec<OwnedFd>) {
    received.retain(|descriptor| {
        let set = set_close_on_exec(descriptor);
        if let Err(error) = &set {
            tracing::warn!(%error, "cannot make a received descriptor close-on-exec; it is closed");
        }
        set.is_ok()
    });
}

/// Makes a descriptor close-on-exec.
///
/// Apple's systems have no flag for this in the call that makes the descriptor. So there is a race:
/// if another thread forks and executes a program between the two calls, that program inherits the
/// descriptor.
#[cfg(target_vendor = "apple")]
fn set_close_on_exec(descriptor: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
}

/// Sets the permissions that the file of a UNIX socket gets in `bind`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_mode_before_bind(socket: &OwnedFd, mode: rustix::fs::Mode) -> rustix::io::Result<()> {
    rustix::fs::fchmod(socket, mode)
}

/// Leaves the permissions to the time after `bind`: this system has none for a socket without a
/// file. No peer of a stream can use the interval, because connections are refused before `listen`.
/// A datagram can come in it, if the umask permits.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_mode_before_bind(_socket: &OwnedFd, _mode: rustix::fs::Mode) -> rustix::io::Result<()> {
    Ok(())
}

/// Returns `true` if `listen` was called on a stream socket.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn listens(socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    rustix::net::sockopt::socket_acceptconn(socket)
}

/// Returns `true` if a stream socket has no peer: this system does not say more. An accept from a
/// socket that does not listen fails, which suspends its port.
#[cfg(target_vendor = "apple")]
pub(super) fn listens(socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match rustix::net::getpeername(socket) {
        Ok(_) => Ok(false),
        Err(Errno::NOTCONN | Errno::INVAL) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes a socket that the program hands over nonblocking.
pub(super) fn prepare_adopted(socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
    #[cfg(target_vendor = "apple")]
    sockopt::set_socket_nosigpipe(socket, true)?;
    rustix::io::ioctl_fionbio(socket, true)
}

/// Makes a TCP socket send the bytes that it holds back. Other sockets hold back none.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn uncork(socket: BorrowedFd<'_>) {
    // Clearing the option sends held bytes, even if it was not set. A UNIX socket refuses.
    let _ = sockopt::set_tcp_cork(socket, false);
}

/// Does nothing: [`HOLDING_BACK`] holds no bytes back on this system.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn uncork(_socket: BorrowedFd<'_>) {}

/// Lets the peer of a UNIX socket write no more. The bytes that have arrived stay.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn refuse_input(socket: BorrowedFd<'_>) {
    // It fails if the peer is gone, which writes no more.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
}

/// Does nothing: other systems would drop the bytes that have arrived.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn refuse_input(_socket: BorrowedFd<'_>) {}

/// Limits the time that sent bytes may stay unacknowledged.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_user_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    // Rounded up, because zero has another meaning. The system takes 31 bits at most.
    let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
    Ok(sockopt::set_tcp_user_timeout(socket, millis as u32)?)
}

/// Fails: this system has no such option.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_user_timeout(_socket: BorrowedFd<'_>, _timeout: Duration) -> io::Result<()> {
    Err(unsupported("the socket option TCP_USER_TIMEOUT"))
}

/// Acknowledges received bytes at once.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_quick_ack(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_tcp_quickack(socket, true)?)
}

/// Fails: this system has no such option.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_quick_ack(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Err(unsupported("the socket option TCP_QUICKACK"))
}

/// Returns the credentials of the peer of a UNIX socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let rustix::net::UCred { pid, uid, gid } = sockopt::socket_peercred(socket)?;
    Ok(Credentials { pid: pid.as_raw_nonzero().get(), uid: uid.as_raw(), gid: gid.as_raw() })
}

/// Fails: `getpeereid` and `LOCAL_PEERCRED` of this system have no safe interface in our libraries.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn peer_credentials(_socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    Err(unsupported("the socket option SO_PEERCRED"))
}

/// Receives datagrams, as many as there are and as the batch has room for.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn receive_datagrams(
    socket: BorrowedFd<'_>,
    is_unix: bool,
    batch: &mut DatagramBatch,
) -> rustix::io::Result<()> {
    use super::mmsg::{INET_BYTES, UNIX_BYTES, receive};
    if is_unix { receive::<UNIX_BYTES>(socket, batch) } else { receive::<INET_BYTES>(socket, batch) }
}

/// Receives datagrams, as many as there are and as the batch has room for. This system has no call
/// for several, and does not report the whole length of a truncated one.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn receive_datagrams(
    socket: BorrowedFd<'_>,
    is_unix: bool,
    batch: &mut DatagramBatch,
) -> rustix::io::Result<()> {
    use rustix::net::{RecvAncillaryBuffer, ReturnFlags};
    loop {
        let Some(room) = batch.rooms().next() else { return Ok(()) };
        let mut into = [io::IoSliceMut::new(room)];
        let received =
            rustix::net::recvmsg(socket, &mut into, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT);
        let received = match received {
            // An error comes again at the next call, where nothing is received before it.
            Err(_) if !batch.is_empty() => return Ok(()),
            received => received?,
        };
        let peer = match received.address.and_then(|address| our_address(address).ok()) {
            Some(peer) => peer,
            None if is_unix => UnixAddress::unnamed().into(),
            // No UDP socket of ours receives from an address of another family.
            None => continue,
        };
        let truncated = received.flags.contains(ReturnFlags::TRUNC).then_some(None);
        batch.push(ReceivedDatagram { filled: received.bytes, each: None, truncated, peer });
    }
}

/// Sends a datagram.
pub(super) fn send_datagram(socket: BorrowedFd<'_>, data: &[u8], to: Destination<'_>) -> rustix::io::Result<usize> {
    match to {
        Destination::Peer => rustix::net::send(socket, data, SENDING),
        Destination::Inet(to) => rustix::net::sendto(socket, data, SENDING, &to),
        Destination::Unix(to) => rustix::net::sendto(socket, data, SENDING, &unix_receiver(to)?),
    }
}

/// Returns the system's address of a UNIX socket. A system without abstract names has none for such
/// a name.
pub(super) fn unix_receiver(name: &UnixAddress) -> rustix::io::Result<SocketAddrUnix> {
    unix_address(name).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::OPNOTSUPP))
}

/// Sends the first datagrams of a queue, in runs of up to `most`. Returns the number of datagrams
/// that were sent.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn send_datagrams(socket: BorrowedFd<'_>, queue: &DatagramQueue, most: usize) -> rustix::io::Result<usize> {
    super::mmsg::send(socket, queue, most)
}

/// Sends the first datagram of a queue: this system has no call for several.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn send_datagrams(socket: BorrowedFd<'_>, queue: &DatagramQueue, _most: usize) -> rustix::io::Result<usize> {
    let Some(first) = queue.runs(1).next() else { return Ok(0) };
    send_datagram(socket, first.data, first.to)?;
    Ok(1)
}

/// Lets a UDP socket receive runs of datagrams as one.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn coalesce_datagrams(socket: BorrowedFd<'_>) -> io::Result<()> {
    super::mmsg::coalesce(socket)
}

/// Fails: this system has no such option.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn coalesce_datagrams(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Err(unsupported("the socket option UDP_GRO"))
}

/// Sets the interface through which datagrams to IPv4 groups leave.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_outgoing_index(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let any = Ipv4Addr::UNSPECIFIED;
    Ok(sockopt::set_ip_multicast_if_with_ifindex(socket, &any, &any, index)?)
}

/// Fails: this system names interfaces by their IPv4 addresses.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_outgoing_index(_socket: BorrowedFd<'_>, _index: u32) -> io::Result<()> {
    Err(unsupported("an IPv4 interface by its index"))
}

/// Joins or leaves an IPv4 group on the interface with this index.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn change_group_by_index(
    socket: BorrowedFd<'_>,
    group: Ipv4Addr,
    index: u32,
    joins: bool,
) -> io::Result<()> {
    let any = Ipv4Addr::UNSPECIFIED;
    if joins {
        sockopt::set_ip_add_membership_with_ifindex(socket, &group, &any, index)?;
    } else {
        sockopt::set_ip_drop_membership_with_ifindex(socket, &group, &any, index)?;
    }
    Ok(())
}

/// Fails: this system names interfaces by their IPv4 addresses.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn change_group_by_index(
    _socket: BorrowedFd<'_>,
    _group: Ipv4Addr,
    _index: u32,
    _joins: bool,
) -> io::Result<()> {
    Err(unsupported("an IPv4 group by the index of an interface"))
}

/// Returns the index of the network interface with this name.
#[cfg(target_os = "linux")]
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let any = unused_socket(AddressFamily::UNIX, SocketType::DGRAM)?;
    Ok(rustix::net::netdevice::name_to_index(&any, name)?)
}

/// Fails: `if_nametoindex` of this system has no safe interface in our libraries.
#[cfg(not(target_os = "linux"))]
pub(super) fn interface_index(_name: &str) -> io::Result<u32> {
    Err(unsupported("the index of a named network interface"))
}

/// Returns the address of a socket as the system writes it.
pub(super) fn our_address(address: SocketAddrAny) -> io::Result<Address> {
    if address.address_family() != AddressFamily::UNIX {
        return Ok(SocketAddr::try_from(address)?.into());
    }
    let address = SocketAddrUnix::try_from(address)?;
    // A path of maximal length includes the NUL behind it.
    let path = address.path_bytes().map(|path| path.strip_suffix(b"\0").unwrap_or(path));
    let named = match (path, abstract_name(&address)) {
        (Some(path), _) if !path.is_empty() => UnixAddress::path(OsStr::from_bytes(path)),
        (_, Some(name)) if !name.is_empty() => UnixAddress::abstract_name(name),
        _ => Ok(UnixAddress::unnamed()),
    };
    // The system only accepts valid addresses.
    Ok(named.map_err(io::Error::other)?.into())
}

/// Returns the name of a UNIX socket as the system takes it.
pub(super) fn unix_address(name: &UnixAddress) -> io::Result<SocketAddrUnix> {
    match (name.as_path(), name.as_abstract_name()) {
        (Some(path), _) => Ok(SocketAddrUnix::new(path)?),
        (_, Some(name)) => abstract_address(name),
        (None, None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Returns the system's address for an abstract UNIX name.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(name)?)
}

/// Fails: this system has no abstract UNIX names.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddrUnix> {
    Err(unsupported("the abstract name of a UNIX socket"))
}

/// Returns the abstract UNIX name of an address, if it has one.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(address: &SocketAddrUnix) -> Option<&[u8]> {
    address.abstract_name()
}

/// Returns `None`: this system has no abstract UNIX names.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_name(_address: &SocketAddrUnix) -> Option<&[u8]> {
    None
}

/// Makes the error for a feature that this system lacks, or our libraries' interface to it.
#[cfg(not(target_os = "linux"))]
fn unsupported(feature: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{feature} is not supported on this system"))
}
