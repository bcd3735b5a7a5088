//! Locks between processes, as files (Twisted: `twisted.python.lockfile`, `DeferredFilesystemLock`).
//!
//! | to | there is |
//! |---|---|
//! | take a lock, or hear that another holds it | [`FilesystemLock`] |
//! | wait for it, without blocking a loop | [`DeferredFilesystemLock`] |
//!
//! The one room beside the reactor that makes system calls: on files that are small and local, which nothing waits for.

mod deferred_lock;
mod filesystem_lock;

pub use self::deferred_lock::DeferredFilesystemLock;
pub use self::filesystem_lock::FilesystemLock;
