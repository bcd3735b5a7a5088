//! Asks a socket for its unacknowledged bytes, the one socket query that none of our libraries has.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{self, Getter};

/// `SIOCOUTQ`, on the systems where it has this number. Other systems are not asked.
const SIOCOUTQ: ioctl::Opcode = 0x5411;

/// Returns `true` if the peer of a stream has acknowledged (of a UNIX socket: read) all sent bytes.
/// Returns `false` if the system does not tell.
pub(super) fn is_acknowledged(socket: BorrowedFd<'_>) -> bool {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))) {
        return false;
    }
    // SAFETY: on these systems this request writes one `int` to the given address, for any kind of
    // socket, and reads nothing.
    let outstanding = unsafe { ioctl::ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) };
    outstanding == Ok(0)
}
