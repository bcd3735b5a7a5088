//! [`ProcessDriver`]: the requests of a process's transport to its reactor. None calls a protocol.

use std::time::Duration;

use super::signal::Signal;
use crate::error::ProcessError;
use crate::transport::id::Id;

/// The reactor's services for its child processes.
pub(crate) trait ProcessDriver {
    /// Sends a signal to the process.
    fn signal(&self, id: Id, signal: Signal) -> Result<(), ProcessError>;
    /// Calls `call` after a delay.
    fn call_later(&self, delay: Duration, call: Box<dyn FnOnce()>);
}
