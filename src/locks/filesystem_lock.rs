//! [`FilesystemLock`]: a lock between processes, identified by the name of a file (Twisted:
//! `twisted.python.lockfile.FilesystemLock`, `isLocked`).
//!
//! The lock is `flock(2)` on the file, so it ends with its holder, however the holder dies.
//! (Twisted's lock is a symbolic link with the holder's process number. It outlives a killed
//! holder, and refers to another process once the number is reused.) The number in the file is for
//! people to read.
//!
//! 1. After locking the file, a holder has to find it still under its name. Otherwise the previous
//!    holder has removed it, and the file to lock is another one.
//! 2. A holder that releases the lock first empties the file and removes it, while the lock is
//!    still held. So a file that is not empty was left by a holder that died.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::error::FilesystemLockError;
use crate::failure::Result;

/// Maximum number of times that a file is opened again because it was removed before it was locked.
/// 100: each time, another holder took the lock and released it in between. After that many, the
/// lock counts as held.
const ATTEMPTS: usize = 100;

/// Every user may read the file to see the holder. A user who may write to it can hold the lock.
/// The process's umask applies.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// A lock with one holder at a time, among processes and within one (Twisted: `FilesystemLock`).
/// Dropping it releases the lock. So does the death of its holder. It never waits: see
/// [`DeferredFilesystemLock`](super::DeferredFilesystemLock) for a wait. It may be used on any
/// thread.
///
/// The lock makes, writes and removes its file. Use a name that is used for nothing else, in a
/// folder that every user of the lock may write to, on a file system that supports `flock(2)`.
/// Executed programs don't inherit the lock. A `fork` without `exec` does, and keeps it if this
/// process dies.
///
/// ```
/// use ropewalk::locks::FilesystemLock;
///
/// # fn main() -> ropewalk::Result<()> {
/// # let path = std::env::temp_dir().join(format!("ropewalk-example-{}.lock", std::process::id()));
/// let mut lock = FilesystemLock::new(&path);
/// assert!(lock.lock()?);
/// assert!(!FilesystemLock::new(&path).lock()?, "only one can have it");
/// lock.unlock()?;
/// # Ok(())
/// # }
/// ```
pub struct FilesystemLock {
    path: PathBuf,
    held: Option<OwnedFd>,
    clean: Option<bool>,
    /// The process that took the lock.
    process: Pid,
}

impl FilesystemLock {
    /// Makes a lock that is not held yet. It does not touch the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: None, clean: None, process: getpid() }
    }

    /// Takes the lock if it is free (Twisted: `lock`). Returns `true` if it was taken, and `false`
    /// if it has a holder, which may be this value.
    ///
    /// # Errors
    /// [`FilesystemLockError::Io`] if the file can't be created, opened or locked. A symbolic link
    /// is refused.
    pub fn lock(&mut self) -> Result<bool, FilesystemLockError> {
        if self.held.is_some() {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            match self.attempt().map_err(|error| self.error(error))? {
                FileAttempt::Locked(file) => {
                    self.clean = Some(is_empty(&file));
                    // The number is for people only: a lock whose file can't be written is still a
                    // lock.
                    let _ = write_holder(&file);
                    self.held = Some(file);
                    self.adopt();
                    return Ok(true);
                }
                FileAttempt::Held => return Ok(false),
                FileAttempt::Removed => {}
            }
        }
        Ok(false)
    }

    /// Releases the lock, and removes the file (Twisted: `unlock`).
    ///
    /// # Errors
    /// - [`FilesystemLockError::NotHeld`] if this value does not hold the lock, or took it in a
    ///   process that this one was forked from.
    /// - [`FilesystemLockError::Io`] if the file can't be removed. The lock is released all the
    ///   same.
    pub fn unlock(&mut self) -> Result<(), FilesystemLockError> {
        let Some(file) = self.held.take().filter(|_| self.process == getpid()) else {
            return Err(FilesystemLockError::NotHeld { path: self.path.clone() });
        };
        // If the file can be neither emptied nor removed, the next holder is told that this one
        // died.
        let _ = rustix::fs::ftruncate(&file, 0);
        let removed = self.remove(&file);
        release(&file);
        removed.map_err(|error| self.error(error))
    }

    /// Returns `true` if this value holds the lock (Twisted: `locked`).
    pub fn is_locked(&self) -> bool {
        self.held.is_some()
    }

    /// Returns `true` if the previous holder released the lock, and `false` if it died without
    /// doing so (Twisted: `clean`). Work that the lock guards may then be half done. It is
    /// `None` before the lock was first taken, and stays the same until the lock is taken again.
    pub fn is_clean(&self) -> Option<bool> {
        self.clean
    }

    /// Returns the path of the lock file (Twisted: `name`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `true` if the lock of that name has a holder at this moment (Twisted: `isLocked`).
    /// It creates no file. An attempt to take the lock at the same moment may find it held.
    ///
    /// # Errors
    /// [`FilesystemLockError::Io`] if the file can't be opened or locked.
    pub fn is_held(path: impl AsRef<Path>) -> Result<bool, FilesystemLockError> {
        let path = path.as_ref();
        let io = |error: Errno| FilesystemLockError::Io { path: path.to_owned(), source: error.into() };
        match open(path, OFlags::RDONLY) {
            // Shared, so that calls of this function don't disturb each other.
            Ok(file) => {
                let free = flock(&file, FlockOperation::NonBlockingLockShared).map_err(io)?;
                release(&file);
                Ok(!free)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(io(error)),
        }
    }

    /// Makes this process the one that releases the lock.
    pub(crate) fn adopt(&mut self) {
        self.process = getpid();
    }

    fn attempt(&self) -> Result<FileAttempt, Errno> {
        let file = open(&self.path, OFlags::RDWR | OFlags::CREATE)?;
        if !flock(&file, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(FileAttempt::Held);
        }
        Ok(if self.is_named(&file)? { FileAttempt::Locked(file) } else { FileAttempt::Removed })
    }

    /// Returns `true` if the path still names the file.
    fn is_named(&self, file: &OwnedFd) -> Result<bool, Errno> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        match rustix::fs::lstat(&self.path) {
            Ok(named) => Ok(identity(named) == identity(rustix::fs::fstat(file)?)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file, unless it was removed already. A file that has its name now belongs to
    /// another holder.
    fn remove(&self, file: &OwnedFd) -> Result<(), Errno> {
        if self.is_named(file)? { rustix::fs::unlink(&self.path) } else { Ok(()) }
    }

    fn error(&self, error: Errno) -> FilesystemLockError {
        FilesystemLockError::Io { path: self.path.clone(), source: io::Error::from(error) }
    }
}

impl Drop for FilesystemLock {
    fn drop(&mut self) {
        // A forked child has a copy of this value and of the descriptor, but the lock is its
        // parent's.
        if self.is_locked()
            && self.process == getpid()
            && let Err(error) = self.unlock()
        {
            tracing::warn!(%error, path = %self.path.display(), "a lock file could not be removed");
        }
    }
}

impl fmt::Debug for FilesystemLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesystemLock").field("path", &self.path).field("locked", &self.is_locked()).finish()
    }
}

/// The result of one attempt to lock.
enum FileAttempt {
    Locked(OwnedFd),
    /// Another holder has it.
    Held,
    /// The file was locked, but the path no longer names it.
    Removed,
}

/// Opens a lock file. It never follows a symbolic link, which could name any file, and never waits
/// for a pipe or a terminal.
fn open(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    let always = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    retry(|| rustix::fs::open(path, how | always, MODE))
}

/// Locks a file. Returns `false` if another holder has it locked.
fn flock(file: &OwnedFd, how: FlockOperation) -> Result<bool, Errno> {
    match retry(|| rustix::fs::flock(file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Releases a lock. Closing the descriptor is not enough: a process that is being started has a
/// copy of it until it executes its program.
fn release(file: &OwnedFd) {
    // It can't fail for a descriptor that was locked. If it did, closing the descriptor would
    // follow.
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

fn is_empty(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_size == 0)
}

fn write_holder(file: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::ftruncate(file, 0)?;
    rustix::io::pwrite(file, format!("{}\n", std::process::id()).as_bytes(), 0)?;
    Ok(())
}

/// Repeats a call that a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
