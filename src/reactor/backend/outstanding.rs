//! How much of what was sent a peer has not acknowledged: the one question to a socket that no library of ours asks.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{self, Getter};

/// `SIOCOUTQ`, where it has this number. Elsewhere it is not asked.
const SIOCOUTQ: ioctl::Opcode = 0x5411;

/// Whether the peer of a stream has acknowledged (of a UNIX socket: read) everything that was sent. `false` where the system does not say.
pub(super) fn is_acknowledged(socket: BorrowedFd<'_>) -> bool {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))) {
        return false;
    }
    // SAFETY: on these systems this request writes one `int` to where it is told, whatever the socket, and reads nothing.
    let outstanding = unsafe { ioctl::ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) };
    outstanding == Ok(0)
}
