//! [`ProcessTransport`]: a child process, for its protocol and for code outside of it.

use std::fmt;
use std::rc::Rc;

use super::command::WindowSize;
use super::signal::Signal;
use super::state::ProcessState;
use super::status::ProcessStatus;
use crate::error::ProcessError;
use crate::transport::Transport;

/// A child process (Twisted: `IProcessTransport`). From
/// [`Reactor::spawn_process`](crate::Reactor::spawn_process).
///
/// It is a cheap handle: clones name the same process, and neither a clone nor its drop ends the
/// process. It lives on the reactor's thread. No method calls a protocol.
///
/// ```
/// use ropewalk::interfaces::*;
/// use ropewalk::process::{Command, ProcessStatus, Signal};
/// use ropewalk::{ProcessTransport, Reactor, Result};
///
/// struct Silent(Reactor);
///
/// impl ProcessProtocol for Silent {
///     fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
///         assert_eq!(status.signal(), Some(Signal::TERM));
///         self.0.stop()?;
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let process = reactor.spawn_process(&Command::new("cat"), Silent(reactor.clone()))?;
/// process.write(b"hello")?;
/// process.signal(Signal::TERM)?;
/// reactor.run()?;
/// assert!(!process.is_running());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProcessTransport(Rc<ProcessState>);

impl ProcessTransport {
    pub(crate) fn new(state: ProcessState) -> Self {
        Self(Rc::new(state))
    }

    pub(crate) fn state(&self) -> &ProcessState {
        &self.0
    }

    /// Returns the number of the process (Twisted: `pid`). Once the process has
    /// [exited](Self::is_running), the system may give the number to another process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Returns `true` until the engine has noticed the exit, just before `process_exited`.
    pub fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Returns the status, once the process has exited.
    pub fn status(&self) -> Option<ProcessStatus> {
        self.0.status()
    }

    /// Writes to the standard input of the child (Twisted: `write`), as
    /// [`write_to_child`](Self::write_to_child) does to descriptor 0.
    ///
    /// # Errors
    /// As `write_to_child`.
    pub fn write(&self, data: &[u8]) -> Result<(), ProcessError> {
        self.write_to_child(0, data)
    }

    /// Writes to a descriptor of the child (Twisted: `writeToChild`). The bytes are queued until
    /// the child takes them: see [`child`](Self::child) for limits of the queue and producers.
    ///
    /// # Errors
    /// [`ProcessError::NoPipe`] if there is no such pipe, or if it was closed;
    /// [`ProcessError::NotWritable`].
    pub fn write_to_child(&self, descriptor: i32, data: &[u8]) -> Result<(), ProcessError> {
        self.0.writable(descriptor)?.write(data);
        Ok(())
    }

    /// Closes the standard input of the child, once it has taken the queued bytes (Twisted:
    /// `closeStdin`). Does nothing if it is closed.
    pub fn close_stdin(&self) {
        self.close_child(0);
    }

    /// Closes a pipe (Twisted: `closeChildFD`, `closeStdout`, `closeStderr`). Bytes that are queued
    /// for the child are sent first, however long it takes, and `child_connection_lost` follows.
    /// Does nothing if there is no such pipe.
    pub fn close_child(&self, descriptor: i32) {
        if let Some(transport) = self.0.transport(descriptor) {
            transport.lose_connection();
        }
    }

    /// Closes all pipes (Twisted: `loseConnection`). Most programs then end by themselves.
    pub fn lose_connection(&self) {
        self.0.transports().iter().for_each(Transport::lose_connection);
    }

    /// Delivers no output of this descriptor until [`resume_child`](Self::resume_child) (Twisted:
    /// `pauseProducing`, for all of them). The child waits when its pipe is full. Does nothing if
    /// there is no such pipe.
    pub fn pause_child(&self, descriptor: i32) {
        if let Some(transport) = self.0.transport(descriptor) {
            transport.pause_producing();
        }
    }

    /// Delivers output of this descriptor again (Twisted: `resumeProducing`).
    pub fn resume_child(&self, descriptor: i32) {
        if let Some(transport) = self.0.transport(descriptor) {
            transport.resume_producing();
        }
    }

    /// Returns the transport of an open pipe, for limits of its queue, producers and counts. It has
    /// no addresses, and no close timeout unless the program sets one. Use it to write to pipes of
    /// [`Write`](super::ChildDescriptor::Write) only.
    pub fn child(&self, descriptor: i32) -> Option<Transport> {
        self.0.transport(descriptor)
    }

    /// Sets the size of the process's [terminal](super::Command::terminal). Its programs get
    /// SIGWINCH (Twisted: an `ioctl` on the transport's `fileno`).
    ///
    /// # Errors
    /// [`ProcessError::NoTerminal`] if it has none, or if it was closed;
    /// [`ProcessError::WindowSize`], [`ProcessError::ReactorStopped`].
    pub fn set_window_size(&self, size: WindowSize) -> Result<(), ProcessError> {
        self.0.set_window_size(size)
    }

    /// Sends a signal to the process (Twisted: `signalProcess`). It never reaches another process,
    /// even if the system has given its number away.
    ///
    /// # Errors
    /// [`ProcessError::ExitedAlready`], [`ProcessError::Signal`], [`ProcessError::ForkedChild`],
    /// [`ProcessError::ReactorStopped`].
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.0.signal(signal)
    }

    /// Kills the process (Twisted: `signalProcess("KILL")`).
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub fn kill(&self) -> Result<(), ProcessError> {
        self.signal(Signal::KILL)
    }
}

impl fmt::Debug for ProcessTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessTransport")
            .field("pid", &self.pid())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
