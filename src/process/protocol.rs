//! [`ProcessProtocol`]: the callbacks of a child process.

use super::status::ProcessStatus;
use super::transport::ProcessTransport;
use crate::failure::Result;

/// Handles the events of one child process (Twisted: `IProcessProtocol`, `ProcessProtocol`).
///
/// | callback | called |
/// |---|---|
/// | `connection_made` | once, first, before `spawn_process` returns |
/// | `child_data_received`, `child_connection_lost` | for each pipe: data, and its end once |
/// | `process_exited` | once, when the process has exited; pipes may still be open |
/// | `process_ended` | once, last: after the exit, and after all pipes are closed |
///
/// A child of the child may keep a pipe open after the exit. Then `process_ended` waits for it:
/// see [`Command::pipe_grace`](super::Command::pipe_grace). If the reactor stops first,
/// `process_exited` is not called, and `process_ended` gets
/// [`LeftRunning`](ProcessStatus::LeftRunning).
///
/// Every callback runs to completion on the reactor's thread, and none is entered while another
/// callback of the same protocol runs. A callback that returns `Err` or panics is logged, and the
/// process goes on, as in Twisted.
///
/// ```
/// use ropewalk::interfaces::*;
/// use ropewalk::process::{Command, ProcessStatus};
/// use ropewalk::{ProcessTransport, Reactor, Result};
///
/// struct Print(Reactor);
///
/// impl ProcessProtocol for Print {
///     fn child_data_received(&mut self, _: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
///         println!("{descriptor}: {data:?}");
///         Ok(())
///     }
///
///     fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
///         println!("{status}");
///         self.0.stop()?;
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// reactor.spawn_process(Command::new("echo").arg("hello"), Print(reactor.clone()))?;
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the protocol of a process",
    note = "write `impl ProcessProtocol for ..`"
)]
pub trait ProcessProtocol: 'static {
    /// Called when the process has started (Twisted: `connectionMade`), before
    /// [`spawn_process`](crate::Reactor::spawn_process) returns. Write its first input here.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
        let _ = process;
        Ok(())
    }

    /// Called with bytes that the child has written to one of its descriptors: 1 is its standard
    /// output, 2 its standard error (Twisted: `childDataReceived`, `outReceived`, `errReceived`).
    /// The slice is borrowed for the call. The default implementation drops it.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn child_data_received(&mut self, process: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
        let _ = (process, descriptor, data);
        Ok(())
    }

    /// Called when a pipe is closed, by either side (Twisted: `childConnectionLost`,
    /// `inConnectionLost` and its siblings).
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn child_connection_lost(&mut self, process: &ProcessTransport, descriptor: i32) -> Result<()> {
        let _ = (process, descriptor);
        Ok(())
    }

    /// Called when the process has exited (Twisted: `processExited`). The system has forgotten the
    /// process, and signals are refused.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn process_exited(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        let _ = (process, status);
        Ok(())
    }

    /// Called once, last: the process has exited, and all of its output was delivered (Twisted:
    /// `processEnded`). The protocol is dropped afterwards.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn process_ended(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        let _ = (process, status);
        Ok(())
    }
}

/// A protocol of any type, chosen when the program runs.
impl ProcessProtocol for Box<dyn ProcessProtocol> {
    fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
        (**self).connection_made(process)
    }

    fn child_data_received(&mut self, process: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
        (**self).child_data_received(process, descriptor, data)
    }

    fn child_connection_lost(&mut self, process: &ProcessTransport, descriptor: i32) -> Result<()> {
        (**self).child_connection_lost(process, descriptor)
    }

    fn process_exited(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        (**self).process_exited(process, status)
    }

    fn process_ended(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        (**self).process_ended(process, status)
    }
}
