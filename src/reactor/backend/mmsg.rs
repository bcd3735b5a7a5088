//! [`receive`] and [`send`]: several datagrams in one system call (`recvmmsg`, `sendmmsg`, Linux),
//! and several as one (`UDP_GRO`, `UDP_SEGMENT`), for which no library of ours has functions.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::mem::{self, MaybeUninit, offset_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::slice;

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;

use super::batch::{BATCH, DatagramBatch, ReceivedDatagram};
use super::system::unix_receiver;
use crate::address::{Address, UnixAddress};
use crate::datagram::{DatagramQueue, Destination};

/// Bytes of the longest address of IP, which is that of IPv6.
pub(super) const INET_BYTES: usize = mem::size_of::<libc::sockaddr_in6>();

/// Bytes of the longest address of a UNIX socket.
pub(super) const UNIX_BYTES: usize = mem::size_of::<libc::sockaddr_un>();

/// Receives as many datagrams as are there and as the batch has room for. The addresses of the
/// socket's family have `ADDRESS_BYTES` at most.
pub(super) fn receive<const ADDRESS_BYTES: usize>(
    socket: BorrowedFd<'_>,
    batch: &mut DatagramBatch,
) -> rustix::io::Result<()> {
    // Only what a call uses is written. Most calls receive a few datagrams, and clearing the arrays
    // would take longer than the rest.
    let mut addresses = [const { MaybeUninit::<[u8; ADDRESS_BYTES]>::uninit() }; BATCH];
    let mut slices = [const { MaybeUninit::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::uninit() }; BATCH];
    let mut controls = batch.coalesces().then_some([Control::<libc::c_int>::EMPTY; BATCH]);
    let mut rooms = 0;
    let free = batch.rooms_in_pieces().zip(&mut addresses).zip(&mut slices).zip(&mut headers);
    for (((pieces, address), slice), header) in free {
        let count = if pieces[1].is_empty() { 1 } else { 2 };
        let slice =
            slice.write(pieces.map(|piece| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() }));
        let header = &mut header.write(NO_HEADER).msg_hdr;
        header.msg_name = address.as_mut_ptr().cast();
        header.msg_namelen = ADDRESS_BYTES as libc::socklen_t;
        header.msg_iov = slice.as_mut_ptr();
        header.msg_iovlen = count;
        rooms += 1;
    }
    let headers = &mut headers[..rooms];
    // SAFETY: The loop has written as many headers as there are rooms.
    let headers: &mut [libc::mmsghdr] = unsafe { &mut *(ptr::from_mut(headers) as *mut _) };
    for (control, header) in controls.iter_mut().flatten().zip(&mut *headers) {
        header.msg_hdr.msg_control = ptr::from_mut(control).cast();
        header.msg_hdr.msg_controllen = mem::size_of_val(control) as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: Each header names an address, slices, through them the pieces of a room of the batch,
    // and a control message or none, each with its length or number. All of them live until the
    // call returns, and nothing else uses them meanwhile: the pieces are borrowed from the batch
    // one by one and do not overlap. The timeout is none.
    let received = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), rooms as libc::c_uint, flags as _, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| last_error())?;
    let room = batch.room_bytes();
    for (index, (header, address)) in headers.iter().zip(&addresses).enumerate().take(received) {
        let length = header.msg_len as usize;
        let address_bytes = (header.msg_hdr.msg_namelen as usize).min(ADDRESS_BYTES);
        // SAFETY: The system has written so many bytes of the address.
        let address = unsafe { slice::from_raw_parts(address.as_ptr().cast(), address_bytes) };
        batch.push(ReceivedDatagram {
            filled: length.min(room),
            each: controls.as_ref().and_then(|controls| controls[index].coalesced()),
            // With `MSG_TRUNC`, the length is that of the whole datagram.
            truncated: (header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0).then_some((length > room).then_some(length)),
            peer: decode(address, ADDRESS_BYTES == UNIX_BYTES).ok_or(Errno::AFNOSUPPORT)?,
        });
    }
    Ok(())
}

/// Sends the first datagrams of a queue, in runs of up to `most`, each of which the system carries
/// as one. Returns the number of datagrams that were sent. An error is that of the first run.
pub(super) fn send(socket: BorrowedFd<'_>, queue: &DatagramQueue, most: usize) -> rustix::io::Result<usize> {
    let receiver = match queue.receiver() {
        Destination::Unix(to) => Some(unix_receiver(to)?.as_any()),
        Destination::Peer | Destination::Inet(_) => None,
    };
    let mut addresses = [const { MaybeUninit::uninit() }; BATCH];
    let mut slices = [const { MaybeUninit::uninit() }; BATCH];
    let mut controls = [const { MaybeUninit::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut runs = 0;
    for (index, run) in queue.runs(most).take(BATCH).enumerate() {
        let header = &mut headers[index].write(NO_HEADER).msg_hdr;
        let data = run.data.as_ptr().cast_mut().cast();
        header.msg_iov = slices[index].write(libc::iovec { iov_base: data, iov_len: run.data.len() });
        header.msg_iovlen = 1;
        (header.msg_name, header.msg_namelen) = match (run.to, &receiver) {
            (Destination::Inet(to), _) => addresses[index].write(InetAddress::ANY).set(to),
            (_, Some(to)) => (to.as_ptr().cast_mut().cast(), to.addr_len()),
            (_, None) => (ptr::null_mut(), 0),
        };
        if run.count > 1 {
            // A run has 65,000 bytes at most.
            let control = Control::new(libc::SOL_UDP, libc::UDP_SEGMENT, run.length as u16);
            header.msg_control = ptr::from_mut(controls[index].write(control)).cast();
            header.msg_controllen = mem::size_of::<Control<u16>>() as _;
        }
        runs += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let first = headers.as_mut_ptr().cast();
    // SAFETY: The first `runs` headers are written. They name bytes of the queue, an address or
    // none, and a control message or none, each with its length. All of them live until the call
    // returns, and the system writes to none of them but to `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, runs as libc::c_uint, flags as _) };
    let sent = usize::try_from(sent).map_err(|_| last_error())?;
    Ok(if most == 1 { sent } else { queue.runs(most).take(sent).map(|run| run.count).sum() })
}

/// Lets the socket receive several datagrams as one (`UDP_GRO`).
pub(super) fn coalesce(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: The value is a number of the given length, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, ptr::from_ref(&on).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

// SAFETY: `mmsghdr` is a structure of C without invariants. Zeros are null pointers and lengths of
// zero.
const NO_HEADER: libc::mmsghdr = unsafe { mem::zeroed() };

/// One control message with one value, as `CMSG_FIRSTHDR` and `CMSG_DATA` find them: the value
/// follows its header, whose size is a multiple of every alignment that counts.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control<T> {
    header: libc::cmsghdr,
    value: T,
}

impl<T: Copy> Control<T> {
    /// Bytes of the header with the value, without the room behind it.
    const LENGTH: usize = offset_of!(Self, value) + mem::size_of::<T>();

    // SAFETY: Structures of C without invariants, and a number.
    const EMPTY: Self = unsafe { mem::zeroed() };

    fn new(level: libc::c_int, kind: libc::c_int, value: T) -> Self {
        let mut control = Self { value, ..Self::EMPTY };
        control.header.cmsg_level = level;
        control.header.cmsg_type = kind;
        control.header.cmsg_len = Self::LENGTH as _;
        control
    }
}

impl Control<libc::c_int> {
    /// Returns the length of each datagram, if the system has put several together. It leaves the
    /// message empty otherwise.
    fn coalesced(&self) -> Option<NonZeroUsize> {
        let is_it = self.header.cmsg_level == libc::SOL_UDP && self.header.cmsg_type == libc::UDP_GRO;
        NonZeroUsize::new(usize::try_from(is_it.then_some(self.value)?).ok()?)
    }
}

/// An address of IP, as the system reads it.
#[derive(Clone, Copy)]
union InetAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl InetAddress {
    // SAFETY: Structures of C without invariants.
    const ANY: Self = unsafe { mem::zeroed() };

    /// Sets the address. Returns its place and its length.
    fn set(&mut self, address: SocketAddr) -> (*mut libc::c_void, libc::socklen_t) {
        let length = match address {
            SocketAddr::V4(address) => {
                self.v4.sin_family = libc::AF_INET as libc::sa_family_t;
                self.v4.sin_port = address.port().to_be();
                self.v4.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                mem::size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                self.v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                self.v6.sin6_port = address.port().to_be();
                self.v6.sin6_flowinfo = address.flowinfo();
                self.v6.sin6_addr.s6_addr = address.ip().octets();
                self.v6.sin6_scope_id = address.scope_id();
                mem::size_of::<libc::sockaddr_in6>()
            }
        };
        (ptr::from_mut(self).cast(), length as libc::socklen_t)
    }
}

/// Decodes an address that the system has written. The fields stand where `sockaddr_in`,
/// `sockaddr_in6` and `sockaddr_un` have them.
#[inline]
fn decode(written: &[u8], is_unix: bool) -> Option<Address> {
    let Some((family, rest)) = written.split_first_chunk() else {
        // Only a UNIX socket may have no address at all.
        return is_unix.then(|| UnixAddress::unnamed().into());
    };
    match libc::c_int::from(libc::sa_family_t::from_ne_bytes(*family)) {
        libc::AF_UNIX => Some(decode_name(rest).into()),
        libc::AF_INET => {
            let (port, rest) = rest.split_first_chunk()?;
            let ip: &[u8; 4] = rest.first_chunk()?;
            Some(Address::Inet((Ipv4Addr::from(*ip), u16::from_be_bytes(*port)).into()))
        }
        libc::AF_INET6 => {
            let (port, rest) = rest.split_first_chunk()?;
            let (flow, rest) = rest.split_first_chunk()?;
            let (ip, rest): (&[u8; 16], _) = rest.split_first_chunk()?;
            let (flow, scope) = (u32::from_ne_bytes(*flow), u32::from_ne_bytes(*rest.first_chunk()?));
            let address = SocketAddrV6::new(Ipv6Addr::from(*ip), u16::from_be_bytes(*port), flow, scope);
            Some(SocketAddr::V6(address).into())
        }
        _ => None,
    }
}

/// Decodes the name of a UNIX socket. A name that is too long for an address of ours counts as
/// none.
fn decode_name(name: &[u8]) -> UnixAddress {
    let named = match name {
        [] => return UnixAddress::unnamed(),
        [0, name @ ..] => UnixAddress::abstract_name(name),
        path => UnixAddress::path(OsStr::from_bytes(path.split(|byte| *byte == 0).next().unwrap_or(path))),
    };
    named.unwrap_or_else(|_| UnixAddress::unnamed())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    /// Bytes of the family, with which each address begins.
    const FAMILY_BYTES: usize = mem::size_of::<libc::sa_family_t>();

    /// Two sockets of a family, the second with the first as its peer.
    fn pair(address: IpAddr) -> (OwnedFd, OwnedFd, SocketAddr) {
        let bind = || OwnedFd::from(UdpSocket::bind((address, 0)).expect("a socket"));
        let (receiver, sender) = (bind(), bind());
        let to = rustix::net::getsockname(&receiver).expect("an address").try_into().expect("an address of IP");
        (receiver, sender, to)
    }

    /// Runs cross as one, and are told apart at the other end. Datagrams that make no run cross
    /// alone, in the same call.
    #[test]
    fn runs_cross_as_one() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let (receiver, sender, to) = pair(address);
            coalesce(receiver.as_fd()).expect("an option of Linux 5.0");
            let mut queue = DatagramQueue::new(1_000_000);
            for length in [1_000, 1_000, 400, 0, 30] {
                assert!(queue.push(&[7; 1_000][..length], Some(to)));
            }
            assert_eq!(send(sender.as_fd(), &queue, 64), Ok(5));
            let mut batch = DatagramBatch::default();
            batch.prepare(1_000, true);
            receive::<INET_BYTES>(receiver.as_fd(), &mut batch).expect("datagrams");
            assert_eq!(batch.rooms().count(), BATCH - 3, "three have crossed");
            let lengths: Vec<_> = std::iter::from_fn(|| batch.take().map(|datagram| datagram.data.len())).collect();
            assert_eq!(lengths, [1_000, 1_000, 400, 0, 30]);
        }
    }

    /// Without runs, each datagram crosses alone, to a peer as well, and an error is that of the
    /// call.
    #[test]
    fn datagrams_cross_alone() {
        let (receiver, sender, to) = pair(Ipv4Addr::LOCALHOST.into());
        rustix::net::connect(&sender, &to).expect("a peer");
        let mut queue = DatagramQueue::new(1_000_000);
        for destination in [Some(to), None, None] {
            assert!(queue.push(b"each", destination));
        }
        assert_eq!(send(sender.as_fd(), &queue, 1), Ok(3));
        let mut batch = DatagramBatch::default();
        batch.prepare(100, false);
        receive::<INET_BYTES>(receiver.as_fd(), &mut batch).expect("datagrams");
        assert_eq!(batch.rooms().count(), BATCH - 3);
        assert_eq!(send(receiver.as_fd(), &queue, 1), Ok(1), "the second has no destination");
        queue.remove(1);
        assert_eq!(send(receiver.as_fd(), &queue, 1), Err(Errno::DESTADDRREQ));
    }

    /// Addresses of IP are decoded from the bytes of the system's structures.
    #[test]
    fn addresses() {
        let of = |raw: &[u8]| decode(raw, false).and_then(|address| address.socket_addr());
        let mut raw = [0; INET_BYTES];
        assert_eq!((of(&raw), decode(&[], false)), (None, None), "no family");
        raw[..2].copy_from_slice(&(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
        raw[2..8].copy_from_slice(&[0x1f, 0x90, 192, 0, 2, 7]);
        assert_eq!(of(&raw), Some("192.0.2.7:8080".parse().unwrap()));
        assert_eq!(of(&raw[..7]), None, "it is cut short");
        raw[..2].copy_from_slice(&(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
        raw[4..8].fill(0);
        raw[8..24].copy_from_slice(&"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        raw[24..28].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(of(&raw), Some("[fe80::1%3]:8080".parse().unwrap()));
        raw[8..24].copy_from_slice(&"::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(of(&raw), Some("192.0.2.7:8080".parse().unwrap()), "a mapped one is of IPv4");
    }

    /// Names of UNIX sockets are decoded: paths with and without a NUL behind them, abstract names,
    /// and none.
    #[test]
    fn names() {
        let of = |name: &[u8]| {
            let mut raw = [0; UNIX_BYTES];
            raw[..FAMILY_BYTES].copy_from_slice(&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
            raw[FAMILY_BYTES..][..name.len()].copy_from_slice(name);
            let address = decode(&raw[..FAMILY_BYTES + name.len()], true).expect("an address");
            address.unix().expect("a UNIX address").clone()
        };
        let path = UnixAddress::path("/run/a").unwrap();
        assert_eq!((of(b"/run/a"), of(b"/run/a\0")), (path.clone(), path));
        assert_eq!(of(b"\0a\0b"), UnixAddress::abstract_name(b"a\0b").unwrap());
        for none in [&b""[..], b"\0", &[b'x'; 108]] {
            assert_eq!(of(none), UnixAddress::unnamed());
        }
        assert_eq!(decode(&[], true), Some(UnixAddress::unnamed().into()));
        assert_eq!(of(&[b'x'; 107]), UnixAddress::path("x".repeat(107)).unwrap());
    }
}
