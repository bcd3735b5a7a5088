//! The reasons why a child process does not start, and why a request to one is refused.

use std::fmt;
use std::io;

use thiserror::Error;

use super::ConnectionClosed;
use crate::failure::Failure;

/// The reason why [`Reactor::spawn_process`](crate::Reactor::spawn_process) starts no process
/// (Twisted: `OSError` from `spawnProcess`, or exit code 1 and a traceback on the child's standard
/// error).
///
/// No child is left behind, and no descriptor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The system did not start the program: there is no such file, it may not be executed, an
    /// argument has a byte 0, or there are too many processes.
    #[error("cannot start {program}: {source}")]
    Program {
        /// The program, as the command names it.
        program: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A step before the program failed, such as a working directory that does not exist.
    #[error("cannot start {program}: {step} failed: {source}")]
    Setup {
        /// The program, as the command names it.
        program: String,
        /// The step.
        step: SpawnStep,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The system has no descriptors of processes, which the engine needs to see their ends (Linux
    /// 5.4), or the reactor is on a simulated network.
    #[error("child processes are not supported here")]
    Unsupported,
    /// The reactor is stopping or closed.
    #[error("the reactor is stopping, and starts no process")]
    ReactorStopped,
    /// This process was forked from the reactor's.
    #[error("the reactor belongs to the parent of this process")]
    ForkedChild,
}

/// A step of starting a process, before the program itself: in [`SpawnError::Setup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnStep {
    /// Making the pipes, opening the null device, or finding the descriptors that the child is to
    /// share.
    Pipes,
    /// Giving the child its descriptors, and no others.
    Descriptors,
    /// Making a session or a process group.
    Session,
    /// Setting the user and the groups.
    Credentials,
    /// Entering the working directory.
    WorkingDirectory,
    /// Watching for the end of the process. The process was killed.
    Watch,
}

impl fmt::Display for SpawnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pipes => "making its pipes",
            Self::Descriptors => "mapping its descriptors",
            Self::Session => "making its session or process group",
            Self::Credentials => "setting its user and groups",
            Self::WorkingDirectory => "entering its working directory",
            Self::Watch => "watching for its end",
        })
    }
}

/// The reason why a [`ProcessTransport`](crate::ProcessTransport) refuses a request.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The process has exited, and its status was taken (Twisted: `ProcessExitedAlready`).
    #[error("the process has exited already")]
    ExitedAlready,
    /// The reactor has stopped. The process may still run, out of its reach.
    #[error("the reactor of the process has stopped")]
    ReactorStopped,
    /// The child has no such pipe, or the pipe is closed (Twisted: `KeyError`).
    #[error("the process has no open pipe at its descriptor {descriptor}")]
    NoPipe {
        /// The child's descriptor.
        descriptor: i32,
    },
    /// The child writes to this descriptor, so that nothing can be written to it.
    #[error("descriptor {descriptor} of the process is not open for writing to it")]
    NotWritable {
        /// The child's descriptor.
        descriptor: i32,
    },
    /// There is no signal of this name or number (Twisted: `ValueError`).
    #[error("there is no signal {name:?}")]
    UnknownSignal {
        /// The name or the number.
        name: String,
    },
    /// The system refused the signal, for instance because the child has changed its user.
    #[error("the signal was refused")]
    Signal(#[source] io::Error),
    /// The process has no terminal, or it was closed.
    #[error("the process has no terminal")]
    NoTerminal,
    /// The system refused the size of the terminal.
    #[error("the size of the terminal was refused")]
    WindowSize(#[source] io::Error),
    /// This process was forked from the reactor's: the child is its parent's.
    #[error("the process is a child of this process's parent")]
    ForkedChild,
}

/// The end of a process that was the peer of a connection: a code other than 0, or a signal
/// (Twisted: `ProcessTerminated`). It is the source of [`ConnectionClosed::Lost`], where
/// [`of`](Self::of) finds it.
///
/// ```
/// use ropewalk::error::{ConnectionClosed, ProcessTerminated};
/// use ropewalk::Failure;
///
/// let done = Failure::new(ConnectionClosed::Done);
/// assert!(ProcessTerminated::of(&done).is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the process did not succeed: {status}")]
#[non_exhaustive]
pub struct ProcessTerminated {
    /// The exit code, if the process has exited by itself (Twisted: `exitCode`).
    pub code: Option<i32>,
    /// The number of the signal that has ended the process (Twisted: `signal`).
    pub signal: Option<i32>,
    /// The status as text, such as `exited with code 1`.
    pub status: String,
}

impl ProcessTerminated {
    /// Returns the end of a process, if it is the reason for which a connection was lost.
    pub fn of(reason: &Failure) -> Option<&Self> {
        match reason.check()? {
            ConnectionClosed::Lost { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

/// The reason why [`Reactor::process_output`](crate::Reactor::process_output) and its siblings
/// fail, beside a [`SpawnError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessOutputError {
    /// The output is longer than the limit. The process was killed.
    #[error("the output of the process is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes, for each of the two streams.
        limit: usize,
    },
    /// The process has written to its standard error (Twisted: `IOError`). The process was killed.
    #[error("the process wrote to its standard error: {start:?}")]
    StandardError {
        /// The beginning of the text.
        start: String,
    },
    /// The process did not exit by itself: a signal ended it, or its status is not known.
    #[error("the process did not exit by itself: {status}")]
    NoExitCode {
        /// The status, as text.
        status: String,
    },
}
