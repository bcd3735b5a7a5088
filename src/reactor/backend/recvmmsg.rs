//! [`receive`]: takes several datagrams from a socket in one system call (`recvmmsg`, Linux), for
//! which no library has a function.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::io::Errno;

use super::batch::{BATCH, DatagramBatch, ReceivedDatagram};
use crate::address::{Address, UnixAddress};

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
    let mut addresses = [[0; ADDRESS_BYTES]; BATCH];
    let mut slices = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: `mmsghdr` is a structure of C without invariants. Zeros are null pointers and lengths
    // of zero.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut rooms = 0;
    for (room, (slice, (address, header))) in
        batch.rooms().zip(slices.iter_mut().zip(addresses.iter_mut().zip(&mut headers)))
    {
        *slice = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        header.msg_hdr.msg_name = address.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = ADDRESS_BYTES as libc::socklen_t;
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        rooms += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: The first `rooms` headers name an address, a slice, and through it a room of the
    // batch, each with its length. All of them live until the call returns, and nothing else uses
    // them meanwhile: the rooms are borrowed from the batch one by one and do not overlap. The
    // timeout is none.
    let received = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), rooms as libc::c_uint, flags as _, ptr::null_mut())
    };
    let Ok(received) = usize::try_from(received) else {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    for (header, (address, slice)) in headers.iter().zip(addresses.iter().zip(&slices)).take(received) {
        let (length, room) = (header.msg_len as usize, slice.iov_len);
        batch.push(ReceivedDatagram {
            filled: length.min(room),
            // With `MSG_TRUNC`, the length is that of the whole datagram.
            truncated: (header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0).then_some((length > room).then_some(length)),
            peer: decode(address, header.msg_hdr.msg_namelen as usize).ok_or(Errno::AFNOSUPPORT)?,
        });
    }
    Ok(())
}

/// Decodes an address, of which the system has written `length` bytes. The fields stand where
/// `sockaddr_in`, `sockaddr_in6` and `sockaddr_un` have them.
fn decode(address: &[u8], length: usize) -> Option<Address> {
    let written = address.get(..length).unwrap_or(address);
    let Some((family, rest)) = written.split_first_chunk() else {
        // Only a UNIX socket may have no address at all.
        return (address.len() == UNIX_BYTES).then(|| UnixAddress::unnamed().into());
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
    use super::*;

    /// Bytes of the family, with which each address begins.
    const FAMILY_BYTES: usize = mem::size_of::<libc::sa_family_t>();

    /// Addresses of IP are decoded from the bytes of the system's structures.
    #[test]
    fn addresses() {
        let of = |raw: &[u8; INET_BYTES]| decode(raw, INET_BYTES).and_then(|address| address.socket_addr());
        let mut raw = [0; INET_BYTES];
        assert_eq!((of(&raw), decode(&raw, 0)), (None, None), "no family");
        raw[..2].copy_from_slice(&(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
        raw[2..8].copy_from_slice(&[0x1f, 0x90, 192, 0, 2, 7]);
        assert_eq!(of(&raw), Some("192.0.2.7:8080".parse().unwrap()));
        assert_eq!(decode(&raw, 7), None, "it is cut short");
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
            let address = decode(&raw, FAMILY_BYTES + name.len()).expect("an address");
            address.unix().expect("a UNIX address").clone()
        };
        let path = UnixAddress::path("/run/a").unwrap();
        assert_eq!((of(b"/run/a"), of(b"/run/a\0")), (path.clone(), path));
        assert_eq!(of(b"\0a\0b"), UnixAddress::abstract_name(b"a\0b").unwrap());
        for none in [&b""[..], b"\0", &[b'x'; 108]] {
            assert_eq!(of(none), UnixAddress::unnamed());
        }
        assert_eq!(decode(&[0; UNIX_BYTES], 0), Some(UnixAddress::unnamed().into()));
        assert_eq!(of(&[b'x'; 107]), UnixAddress::path("x".repeat(107)).unwrap());
    }
}
