//! [`SocketFile`]: the file that a bound UNIX socket leaves, and the lock beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dev, FileType, Mode, RawMode, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::{Pid, getpid};

use super::{ListenRefusal, system};
use crate::locks::FilesystemLock;

/// The device and inode of a file.
type Identity = (Dev, u64);

/// The file of a bound socket, and its lock. Dropping it removes the file and then releases the
/// lock.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The device and inode of the file, once the socket is bound.
    identity: Option<Identity>,
    /// The process that removes the file. Forked children have copies of this value.
    process: Pid,
    /// Released after the file was removed.
    lock: Option<FilesystemLock>,
}

impl SocketFile {
    /// Binds a socket to a path. The file never grants more than `mode`, and in the end grants
    /// exactly that, for any umask.
    pub(super) fn bind(socket: &OwnedFd, path: &Path, mode: u32, lock: bool) -> Result<Self, ListenRefusal> {
        let mut file = Self::before_bind(path, lock)?;
        // The cast loses no permission bit.
        let mode = Mode::from_raw_mode(mode as RawMode);
        system::set_mode_before_bind(socket, mode)?;
        rustix::net::bind(socket, &SocketAddrUnix::new(path)?)?;
        file.identity = rustix::fs::lstat(path).ok().map(identity);
        rustix::fs::chmod(path, mode)?;
        Ok(file)
    }

    /// Prepares a path for a socket to be bound to it.
    fn before_bind(path: &Path, lock: bool) -> Result<Self, ListenRefusal> {
        let mut held = None;
        if lock {
            let mut lock = FilesystemLock::new(lock_of(path));
            if !lock.lock().map_err(io::Error::other)? {
                return Err(ListenRefusal::Locked);
            }
            // The process that made a socket there has died, because we hold the lock.
            remove_socket(path, None)?;
            held = Some(lock);
        }
        Ok(Self { path: path.to_owned(), identity: None, process: getpid(), lock: held })
    }

    /// Takes over the file of a socket that another process has made. It is removed when this is
    /// dropped, if it is still the present file.
    pub(super) fn of_adopted(path: &Path) -> Self {
        let identity = rustix::fs::lstat(path).ok().map(identity);
        Self { path: path.to_owned(), identity, process: getpid(), lock: None }
    }

    /// Leaves the file behind, for another process.
    ///
    /// # Errors
    /// Gives it back if there is a lock: that goes with this process, and a file without its lock
    /// would be taken for one that a dead process has left.
    pub(super) fn leave(mut self) -> Result<(), Self> {
        if self.lock.is_some() {
            return Err(self);
        }
        self.identity = None;
        Ok(())
    }

    /// Makes this process the one that removes the file and releases the lock.
    pub(super) fn adopt(&mut self) {
        self.process = getpid();
        if let Some(lock) = &mut self.lock {
            lock.adopt();
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(identity) = self.identity
            && self.process == getpid()
            && let Err(error) = remove_socket(&self.path, Some(identity))
        {
            tracing::warn!(%error, path = %self.path.display(), "the file of a UNIX socket stays behind");
        }
    }
}

/// Removes a socket, but nothing else of that name. A file of another type stays, and so does a
/// socket with another identity than `meant`.
fn remove_socket(path: &Path, meant: Option<Identity>) -> Result<(), Errno> {
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if !is_socket || meant.is_some_and(|meant| meant != identity(stat)) {
        return Ok(());
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(stat: Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Returns the path of the lock beside a socket's file.
pub(in crate::reactor) fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}
