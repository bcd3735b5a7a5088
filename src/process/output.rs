//! [`Collector`]: the protocol behind [`Reactor::process_output`](crate::Reactor::process_output)
//! and its siblings (Twisted: `twisted.internet.utils`).

use std::mem;

use super::protocol::ProcessProtocol;
use super::status::ProcessStatus;
use super::transport::ProcessTransport;
use crate::deferred::Promise;
use crate::error::ProcessOutputError;
use crate::failure::{Failure, Result};

/// Bytes of the standard error that an error quotes. Arbitrary: a line or two.
const QUOTED_BYTES: usize = 200;

/// The character that ends the input of a terminal in its usual mode: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// The output of a program that has ended, from
/// [`Reactor::process_output_and_value`](crate::Reactor::process_output_and_value).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessOutput {
    /// The standard output.
    pub stdout: Vec<u8>,
    /// The standard error.
    pub stderr: Vec<u8>,
    /// The status.
    pub status: ProcessStatus,
}

/// The output that is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collected {
    /// The standard output. Any byte of the standard error is a failure.
    Output,
    /// Both.
    Both,
    /// Neither: all output is dropped.
    Nothing,
}

/// Collects the output of a process, up to a limit for each stream, and fires a promise at its end.
pub(crate) struct Collector {
    collected: Collected,
    limit: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The first failure. It is told at the end, when the process is gone.
    failure: Option<ProcessOutputError>,
    promise: Promise<ProcessOutput>,
}

impl Collector {
    pub(crate) fn new(collected: Collected, limit: usize, promise: Promise<ProcessOutput>) -> Self {
        Self { collected, limit, stdout: Vec::new(), stderr: Vec::new(), failure: None, promise }
    }

    /// Ends the process. The rest of its output is dropped.
    fn fail(&mut self, process: &ProcessTransport, failure: ProcessOutputError) -> Result<()> {
        self.failure = Some(failure);
        process.lose_connection();
        // It may have exited by itself just before.
        if process.is_running() { Ok(process.kill()?) } else { Ok(()) }
    }
}

impl ProcessProtocol for Collector {
    fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
        if process.state().has_terminal() {
            // Closing would hang up.
            return Ok(process.write(&[END_OF_INPUT])?);
        }
        process.close_stdin();
        Ok(())
    }

    fn child_data_received(&mut self, process: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
        if self.failure.is_some() || self.collected == Collected::Nothing {
            return Ok(());
        }
        if descriptor == 2 && self.collected == Collected::Output {
            let quoted = &data[..data.len().min(QUOTED_BYTES)];
            let start = String::from_utf8_lossy(quoted).into_owned();
            return self.fail(process, ProcessOutputError::StandardError { start });
        }
        let buffer = match descriptor {
            1 => &mut self.stdout,
            2 => &mut self.stderr,
            // A pipe of the command's own map, which has no place here.
            _ => return Ok(()),
        };
        if data.len() > self.limit - buffer.len() {
            return self.fail(process, ProcessOutputError::TooLong { limit: self.limit });
        }
        buffer.extend_from_slice(data);
        Ok(())
    }

    fn process_ended(&mut self, _process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        let result = match self.failure.take() {
            Some(failure) => Err(Failure::new(failure)),
            None => {
                let (stdout, stderr) = (mem::take(&mut self.stdout), mem::take(&mut self.stderr));
                Ok(ProcessOutput { stdout, stderr, status: *status })
            }
        };
        // It was cancelled meanwhile, and has killed the process.
        let _ = self.promise.complete(result);
        Ok(())
    }
}
