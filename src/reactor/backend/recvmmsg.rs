//! [`receive`]: takes several datagrams from a socket in one system call (`recvmmsg`, Linux), for
//! which no library has a function.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use super::batch::{BATCH, DatagramBatch, ReceivedDatagram};

/// Bytes of the longest address, which is that of IPv6.
const ADDRESS_BYTES: usize = mem::size_of::<libc::sockaddr_in6>();

/// The address of a peer, as the system writes it.
type RawAddress = [u8; ADDRESS_BYTES];

/// Receives as many datagrams as are there and as the batch has room for.
pub(super) fn receive(socket: BorrowedFd<'_>, batch: &mut DatagramBatch) -> rustix::io::Result<()> {
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
            peer: decode(address).ok_or(Errno::AFNOSUPPORT)?,
        });
    }
    Ok(())
}

/// Decodes an address of IPv4 or IPv6. The fields stand where `sockaddr_in` and `sockaddr_in6` have
/// them.
fn decode(address: &RawAddress) -> Option<SocketAddr> {
    let bytes = |at: usize| [address[at], address[at + 1], address[at + 2], address[at + 3]];
    let port = u16::from_be_bytes([address[2], address[3]]);
    match libc::c_int::from(libc::sa_family_t::from_ne_bytes([address[0], address[1]])) {
        libc::AF_INET => Some((Ipv4Addr::from(bytes(4)), port).into()),
        libc::AF_INET6 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&address[8..24]);
            let (flow, scope) = (u32::from_ne_bytes(bytes(4)), u32::from_ne_bytes(bytes(24)));
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses are decoded from the bytes of the system's structures.
    #[test]
    fn addresses() {
        let mut raw = [0; ADDRESS_BYTES];
        assert_eq!(decode(&raw), None, "no family");
        raw[..2].copy_from_slice(&(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
        raw[2..8].copy_from_slice(&[0x1f, 0x90, 192, 0, 2, 7]);
        assert_eq!(decode(&raw), Some("192.0.2.7:8080".parse().unwrap()));
        raw[..2].copy_from_slice(&(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
        raw[4..8].fill(0);
        raw[8..24].copy_from_slice(&"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        raw[24..28].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(decode(&raw), Some("[fe80::1%3]:8080".parse().unwrap()));
    }
}
