//! [`FilesystemLock`]: a lock between processes, by the name of a file (Twisted: `twisted.python.lockfile.FilesystemLock`,
//! `isLocked`).
//!
//! The lock is `flock(2)` on the file, so it ends with its holder, however that dies. (Twisted's is a symbolic link with the
//! holder's process number, which outlives a killed holder, and names somebody else when the number comes round again.) The
//! number in the file is for people who look.
//!
//! 1. Whoever has locked the file must find it still under its name; otherwise the holder before has removed it, and the file
//!    to lock is another one.
//! 2. Whoever releases the lock empties the file and removes it while the lock is still held. So a file that is not empty was
//!    left by a holder that died.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::error::FilesystemLockError;
use crate::failure::Result;

/// How often a file is opened anew that was removed before it was locked. 100: each time somebody held the lock and gave it
/// back meanwhile, so after that many it is as good as held.
const ATTEMPTS: usize = 100;

/// Anybody may read who holds the lock; who may write the file can hold it. The process's mask applies.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// A lock that one holder has at a time, among processes and within one (Twisted: `FilesystemLock`). Dropped, it is
/// released; a holder that dies releases it as well. It waits for nobody: see
/// [`DeferredFilesystemLock`](super::DeferredFilesystemLock) for that. For any thread.
///
/// The file is the lock's own: it is made, written and removed. Give it a name that nothing else has, in a folder that all who
/// use it may write to, on a file system that supports `flock(2)`. Programs that are executed don't inherit the lock; a `fork`
/// without one does, and keeps it if this process dies.
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
    /// Where it was locked.
    process: Pid,
}

impl FilesystemLock {
    /// A lock that is not held yet. Nothing is done with the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: None, clean: None, process: getpid() }
    }

    /// Takes the lock if nobody has it (Twisted: `lock`). Says whether it was taken: `false` if somebody has it, this value
    /// included.
    ///
    /// # Errors
    /// [`FilesystemLockError::Io`] if the file can't be made, opened or locked. A symbolic link is refused.
    pub fn lock(&mut self) -> Result<bool, FilesystemLockError> {
        if self.held.is_some() {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            match self.attempt().map_err(|error| self.error(error))? {
                FileAttempt::Locked(file) => {
                    self.clean = Some(is_empty(&file));
                    // For people only: a lock whose file can't be written is a lock.
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

    /// Gives the lock back, and removes the file (Twisted: `unlock`).
    ///
    /// # Errors
    /// [`FilesystemLockError::NotHeld`] if this value does not hold it, or did so in a process that this one was forked from; [`FilesystemLockError::Io`] if the file can't be removed:
    /// the lock is given back all the same.
    pub fn unlock(&mut self) -> Result<(), FilesystemLockError> {
        let Some(file) = self.held.take().filter(|_| self.process == getpid()) else {
            return Err(FilesystemLockError::NotHeld { path: self.path.clone() });
        };
        // If it can't be removed either, whoever takes it next is told that we died.
        let _ = rustix::fs::ftruncate(&file, 0);
        let removed = self.remove(&file);
        release(&file);
        removed.map_err(|error| self.error(error))
    }

    /// Whether this value holds the lock (Twisted: `locked`).
    pub fn is_locked(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the holder before gave the lock back, or did not and died (Twisted: `clean`): then what the lock guards may have
    /// been left half done. Known once the lock was taken, and until it is taken again.
    pub fn is_clean(&self) -> Option<bool> {
        self.clean
    }

    /// The lock file (Twisted: `name`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anybody holds the lock of that name at this moment (Twisted: `isLocked`). Makes no file. Whoever tries to take
    /// the lock in the same moment may find it held.
    ///
    /// # Errors
    /// [`FilesystemLockError::Io`] if the file can't be looked at.
    pub fn is_held(path: impl AsRef<Path>) -> Result<bool, FilesystemLockError> {
        let path = path.as_ref();
        let io = |error: Errno| FilesystemLockError::Io { path: path.to_owned(), source: error.into() };
        match open(path, OFlags::RDONLY) {
            // Shared, so that those who only ask don't disturb each other.
            Ok(file) => {
                let free = flock(&file, FlockOperation::NonBlockingLockShared).map_err(io)?;
                release(&file);
                Ok(!free)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(io(error)),
        }
    }

    /// It is this process that gives the lock back.
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

    /// Whether the file is (still) the one that the path names.
    fn is_named(&self, file: &OwnedFd) -> Result<bool, Errno> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        match rustix::fs::lstat(&self.path) {
            Ok(named) => Ok(identity(named) == identity(rustix::fs::fstat(file)?)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file, unless somebody else has done so: what has its name now is not ours.
    fn remove(&self, file: &OwnedFd) -> Result<(), Errno> {
        if self.is_named(file)? { rustix::fs::unlink(&self.path) } else { Ok(()) }
    }

    fn error(&self, error: Errno) -> FilesystemLockError {
        FilesystemLockError::Io { path: self.path.clone(), source: io::Error::from(error) }
    }
}

impl Drop for FilesystemLock {
    fn drop(&mut self) {
        // A forked child has a copy of this, and of the descriptor; the lock is its parent's.
        if self.is_locked()
            && self.process == getpid()
            && let Err(error) = self.unlock()
        {
            tracing::warn!(%error, path = %self.path.display(), "a lock file stays behind");
        }
    }
}

impl fmt::Debug for FilesystemLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesystemLock").field("path", &self.path).field("locked", &self.is_locked()).finish()
    }
}

/// How one attempt to lock ended.
enum FileAttempt {
    Locked(OwnedFd),
    /// By somebody.
    Held,
    /// It was locked, and is not what the path names any more.
    Removed,
}

/// Opens a lock file: never through a symbolic link, which could name any file, and without waiting if it is a pipe or a
/// terminal.
fn open(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    let always = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    retry(|| rustix::fs::open(path, how | always, MODE))
}

/// Locks a file; `false` if somebody else has it locked.
fn flock(file: &OwnedFd, how: FlockOperation) -> Result<bool, Errno> {
    match retry(|| rustix::fs::flock(file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a lock back. Closing would not do: a process that is just being started has a copy of the descriptor until it
/// executes its program.
fn release(file: &OwnedFd) {
    // It can't fail for a descriptor that was locked; and then it is closed.
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

/// A signal may interrupt any call.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
