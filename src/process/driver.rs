//! [`ProcessDriver`]: the requests of a process's transport to its reactor. None calls a protocol.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::command::WindowSize;
use super::signal::Signal;
use crate::error::ProcessError;
use crate::time::DelayedCall;
use crate::transport::id::Id;

/// The reactor's services for its child processes.
pub(crate) trait ProcessDriver {
    /// Sends a signal to the process.
    fn signal(&self, id: Id, signal: Signal) -> Result<(), ProcessError>;
    /// Sets the size of a terminal.
    fn set_window_size(&self, terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()>;
    /// Calls `call` after a delay.
    fn call_later(&self, delay: Duration, call: Box<dyn FnOnce()>) -> DelayedCall;
}
