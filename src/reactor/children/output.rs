//! The output or the exit code of a program, as a Deferred (Twisted: `twisted.internet.utils`).

use std::cell::OnceCell;
use std::rc::Rc;

use crate::deferred::{Deferred, Promise};
use crate::error::ProcessOutputError;
use crate::failure::Failure;
use crate::log::error;
use crate::process::{Collected, Collector, Command, ProcessOutput, ProcessStatus, ProcessTransport};
use crate::reactor::Reactor;

impl Reactor {
    /// Runs a program, and returns its standard output (Twisted: `getProcessOutput`). The exit code
    /// is not looked at. The standard input is closed at once.
    ///
    /// Cancelling the Deferred kills the process. The engine waits for its end all the same.
    ///
    /// ```
    /// use ropewalk::Reactor;
    /// use ropewalk::process::Command;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let handle = reactor.clone();
    /// let done = reactor.spawn(async move {
    ///     let text = handle.process_output(Command::new("echo").arg("hello"), 1 << 20).await?;
    ///     assert_eq!(text, b"hello\n");
    ///     handle.stop()?;
    ///     Ok(())
    /// });
    /// reactor.run()?;
    /// assert!(done.is_called());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The Deferred fails with a [`SpawnError`](crate::error::SpawnError), or with a
    /// [`ProcessOutputError`]: the output is longer than `limit` bytes, or the program has written
    /// to its standard error.
    pub fn process_output(&self, command: &Command, limit: usize) -> Deferred<Vec<u8>> {
        self.collect(command, Collected::Output, limit).add_callback(|output| Ok(output.stdout))
    }

    /// Runs a program, and returns its exit code (Twisted: `getProcessValue`). Its output is
    /// dropped, and its standard input is closed at once. Cancelling kills it.
    ///
    /// # Errors
    /// The Deferred fails with a [`SpawnError`](crate::error::SpawnError), or with
    /// [`ProcessOutputError::NoExitCode`] if a signal has ended the program.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// use ropewalk::process::Command;
    ///
    /// let reactor = ropewalk::Reactor::new()?;
    /// let handle = reactor.clone();
    /// let code = reactor.process_value(&Command::new("false")).add_callback(move |code| {
    ///     assert_eq!(code, 1);
    ///     handle.stop()?;
    ///     Ok(())
    /// });
    /// reactor.run()?;
    /// assert!(code.is_called());
    /// # Ok(())
    /// # }
    /// ```
    pub fn process_value(&self, command: &Command) -> Deferred<i32> {
        self.collect(command, Collected::Nothing, 0).add_callback(|output| match output.status {
            ProcessStatus::Exited(code) => Ok(code),
            status => Err(Failure::new(ProcessOutputError::NoExitCode { status: status.to_string() })),
        })
    }

    /// Runs a program, and returns both of its outputs and its status (Twisted:
    /// `getProcessOutputAndValue`). The standard input is closed at once. Cancelling kills it.
    ///
    /// # Errors
    /// The Deferred fails with a [`SpawnError`](crate::error::SpawnError), or with
    /// [`ProcessOutputError::TooLong`] if one of the outputs is longer than `limit` bytes. A signal
    /// that has ended the program is a status, and no error.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// use ropewalk::process::{Command, ProcessStatus};
    ///
    /// let reactor = ropewalk::Reactor::new()?;
    /// let (handle, mut command) = (reactor.clone(), Command::new("sh"));
    /// command.args(["-c", "echo out; echo err >&2; exit 3"]);
    /// let seen = reactor.process_output_and_value(&command, 1 << 20).add_callback(move |output| {
    ///     assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    ///     assert_eq!(output.status, ProcessStatus::Exited(3));
    ///     handle.stop()?;
    ///     Ok(())
    /// });
    /// reactor.run()?;
    /// assert!(seen.is_called());
    /// # Ok(())
    /// # }
    /// ```
    pub fn process_output_and_value(&self, command: &Command, limit: usize) -> Deferred<ProcessOutput> {
        self.collect(command, Collected::Both, limit)
    }

    fn collect(&self, command: &Command, collected: Collected, limit: usize) -> Deferred<ProcessOutput> {
        let started = Rc::<OnceCell<ProcessTransport>>::default();
        let cancelled = Rc::clone(&started);
        let (promise, output) = Promise::with_canceller(move || {
            let Some(process) = cancelled.get() else { return };
            // A child of the child may hold them, whether the process runs or not.
            process.lose_connection();
            if !process.is_running() {
                return;
            }
            if let Err(error) = process.kill() {
                error!(pid = process.pid(), %error, "a cancelled process is not killed");
            }
        });
        match self.spawn_process(command, Collector::new(collected, limit, promise)) {
            Ok(process) => drop(started.set(process)),
            Err(error) => return Deferred::fail(error),
        }
        output
    }
}
