//! Locks between processes, as files (Twisted: `twisted.python.lockfile`,
//! `DeferredFilesystemLock`).
//!
//! | purpose | type |
//! |---|---|
//! | take a lock, or learn that another holder has it | [`FilesystemLock`] |
//! | wait for it, without blocking a loop | [`DeferredFilesystemLock`] |
//!
//! Beside the reactor, this is the only module that makes system calls. They are on small, local
//! files, and do not wait.

mod deferred_lock;
mod filesystem_lock;

pub use self::deferred_lock::DeferredFilesystemLock;
pub use self::filesystem_lock::FilesystemLock;
