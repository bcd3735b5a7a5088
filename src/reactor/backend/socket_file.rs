//! [`SocketFile`]: the file that a listening UNIX socket leaves, and the lock beside it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::ListenRefusal;
use crate::locks::FilesystemLock;

/// The file of a listening socket, and its lock. Dropped, the file is removed, and the lock given back.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is, once it is bound.
    identity: Option<(u64, u64)>,
    /// The process that removes the file. Forked children have copies of this.
    process: Pid,
    /// Given back after the file was removed.
    lock: Option<FilesystemLock>,
}

impl SocketFile {
    /// Makes way for a socket to be bound to a path.
    pub(super) fn before_bind(path: &Path, lock: bool) -> Result<Self, ListenRefusal> {
        let mut held = None;
        if lock {
            let mut lock = FilesystemLock::new(lock_of(path));
            if !lock.lock().map_err(io::Error::other)? {
                return Err(ListenRefusal::Locked);
            }
            // Whoever made a socket there has died, for we have the lock.
            remove_socket(path, None)?;
            held = Some(lock);
        }
        Ok(Self { path: path.to_owned(), identity: None, process: getpid(), lock: held })
    }

    /// It is this process's to remove the file, and to give the lock back.
    pub(super) fn adopt(&mut self) {
        self.process = getpid();
        if let Some(lock) = &mut self.lock {
            lock.adopt();
        }
    }

    /// The socket was bound.
    pub(super) fn bound(&mut self) {
        self.identity = rustix::fs::lstat(&self.path).ok().map(identity);
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

/// Removes a socket, but nothing else that has its name: what is no socket, or not the one that is meant, stays.
fn remove_socket(path: &Path, meant: Option<(u64, u64)>) -> Result<(), Errno> {
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

fn identity(stat: Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The lock beside a socket's file.
pub(in crate::reactor) fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}
