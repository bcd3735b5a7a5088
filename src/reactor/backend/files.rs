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

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::socket;
use super::socket::Send;
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

/// Sends from a part of a file. Does not wait, whatever the mode of the socket: `sendfile` has no
/// flag for that, and the sockets of io_uring are in the other mode. The result counts the bytes
/// that leave the queue. They are unsent ones if the part was cut, which its report tells.
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

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::reactor::backend::tests::tcp_pair;
    use crate::transport::file::{FileCut, SystemFile};

    /// A file with these bytes and no name, at its beginning.
    fn file_of(bytes: &[u8], test: &str) -> File {
        let path = std::env::temp_dir().join(format!("ropewalk-files-{}-{test}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
        std::fs::remove_file(&path).expect("the file");
        file.write_all(bytes).expect("room on the disk");
        file.rewind().expect("a regular file");
        file
    }

    /// A part is sent from the position of the file, and cut where the file ends.
    #[test]
    fn a_part_ends_with_its_file() {
        let (socket, mut peer) = tcp_pair();
        let file = file_of(b"0123456789", "ends");
        let file = SystemFile::new(duplicate(file.as_fd()).expect("a regular file"));
        let (part, report) = FilePart::new(&file, 4);
        assert!(matches!(send(socket.as_fd(), &part), Send::Bytes(4)));
        assert_eq!((bytes_left(part.file()).expect("a file"), report.take()), (6, None));
        let (part, report) = FilePart::new(&file, 20);
        assert!(matches!(send(socket.as_fd(), &part), Send::Bytes(6)));
        assert!(matches!(send(socket.as_fd(), &part), Send::Bytes(20)));
        assert_eq!(report.take(), Some(FileCut { missing: 20, is_refused: false }));
        let mut arrived = [0; 10];
        peer.read_exact(&mut arrived).expect("the bytes arrive");
        assert_eq!(&arrived, b"0123456789");
    }

    /// A descriptor that can't be read is refused, and so is one of another kind. A lost peer is an
    /// error of the connection.
    #[test]
    fn errors_are_of_the_file_or_of_the_connection() {
        let (socket, peer) = tcp_pair();
        assert_eq!(duplicate(socket.as_fd()).expect_err("a socket").kind(), io::ErrorKind::Unsupported);
        let path = std::env::temp_dir().join(format!("ropewalk-files-{}-written", std::process::id()));
        let unreadable = File::options().write(true).create_new(true).open(&path).expect("a file");
        std::fs::remove_file(&path).expect("the file");
        let (part, report) = FilePart::new(&SystemFile::new(unreadable.into()), 7);
        assert!(matches!(send(socket.as_fd(), &part), Send::Bytes(7)));
        assert_eq!(report.take(), Some(FileCut { missing: 7, is_refused: true }));

        drop(peer);
        let (part, report) = FilePart::new(&SystemFile::new(file_of(&[7; 100_000], "lost").into()), 1000);
        let failed = (0..100).find_map(|_| match send(socket.as_fd(), &part) {
            Send::Failed(error) => Some(error.kind()),
            _ => None,
        });
        assert!(matches!(failed, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)), "{failed:?}");
        assert_eq!(report.take(), None);
    }

    /// A socket that waits for other calls does not wait for this one, and waits again behind it.
    #[test]
    fn a_blocking_socket_does_not_wait() {
        let (socket, _peer) = tcp_pair();
        socket::set_blocking(socket.as_fd(), true).expect("a socket");
        let file = SystemFile::new(file_of(&vec![7; 30_000_000], "blocking").into());
        let (part, _) = FilePart::new(&file, 30_000_000);
        while let Send::Bytes(count) = send(socket.as_fd(), &part) {
            assert!(count < 30_000_000, "the test needs a full socket");
        }
        assert!(matches!(send(socket.as_fd(), &part), Send::Full));
        let flags = rustix::fs::fcntl_getfl(&socket).expect("a socket");
        assert!(!flags.contains(OFlags::NONBLOCK));
    }
}
