//! Parts of files, sent by `sendfile(2)`: the system moves the bytes from its cache to the socket.
//!
//! | system | |
//! |---|---|
//! | Linux, Android | regular files over TCP |
//! | others | no files: their bytes are read and written |
//!
//! UNIX sockets send none, because a descriptor may be attached to any byte of their queue, and
//! `sendfile` takes none along.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::fs::OFlags;
use rustix::fs::{FileType, SeekFrom};
#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::io::Errno;

use super::socket::Send;
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::socket;
use crate::transport::file::FilePart;

/// This system sends from files.
pub(super) const IS_SUPPORTED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Returns another descriptor of a regular file.
///
/// # Errors
/// `Unsupported`: it is no regular file. Others: the system's.
pub(in crate::reactor) fn duplicate(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let status = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file.try_clone_to_owned()
}

/// Number of bytes between the position of a file and its end.
///
/// # Errors
/// The system's.
pub(in crate::reactor) fn bytes_left(file: BorrowedFd<'_>) -> io::Result<u64> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    Ok(size.saturating_sub(rustix::fs::seek(file, SeekFrom::Current(0))?))
}

/// Sends from a part of a file. Does not wait, whatever the mode of the socket: `sendfile` has no flag
/// for that, and the sockets of io_uring are in the other mode. The result counts the bytes that leave the queue. They are unsent
/// ones if the part was cut, which its report tells.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn send(socket: BorrowedFd<'_>, part: &FilePart) -> Send {
    let is_nonblocking = match rustix::fs::fcntl_getfl(socket) {
        Ok(flags) => flags.contains(OFlags::NONBLOCK),
        Err(error) => return Send::Failed(error.into()),
    };
    if is_nonblocking {
        return send_from(socket, part);
    }
    if let Err(error) = socket::set_blocking(socket, false) {
        return Send::Failed(error);
    }
    let sent = send_from(socket, part);
    match socket::set_blocking(socket, true) {
        Ok(()) => sent,
        Err(error) => Send::Failed(error),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_from(socket: BorrowedFd<'_>, part: &FilePart) -> Send {
    loop {
        return match rustix::fs::sendfile(socket, part.file(), None, part.left()) {
            // The file ends before the part does.
            Ok(0) => Send::Bytes(part.cut(false)),
            Ok(count) => Send::Bytes(count),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Send::Full,
            Err(Errno::NOBUFS | Errno::NOMEM) => Send::Starved,
            Err(error) if is_of_connection(error) => Send::Failed(error.into()),
            // It may be an error of the file. A read has the same one, and says so.
            Err(_) => Send::Bytes(part.cut(true)),
        };
    }
}

/// Gives the part back to its sender: this system does not send from files.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn send(_socket: BorrowedFd<'_>, part: &FilePart) -> Send {
    Send::Bytes(part.cut(true))
}

/// Returns `true` for an error of the connection. The system reports most of them once.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_of_connection(error: Errno) -> bool {
    const OF_CONNECTIONS: [Errno; 9] = [
        Errno::PIPE,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::TIMEDOUT,
        Errno::NOTCONN,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETUNREACH,
        Errno::NETDOWN,
    ];
    OF_CONNECTIONS.contains(&error)
}
