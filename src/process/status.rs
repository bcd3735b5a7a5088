//! [`ProcessStatus`]: the way in which a child process ended.

use std::fmt;

use super::signal::Signal;

/// The end of a child process (Twisted: the reasons `ProcessDone` and `ProcessTerminated`).
///
/// ```
/// use ropewalk::process::{ProcessStatus, Signal};
///
/// assert!(ProcessStatus::Exited(0).is_success());
/// let killed = ProcessStatus::Killed { signal: Signal::TERM, is_core_dumped: false };
/// assert_eq!(killed.to_string(), "killed by SIGTERM");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessStatus {
    /// The process has exited with this code, from 0 to 255.
    Exited(i32),
    /// A signal has ended the process.
    Killed {
        /// The signal.
        signal: Signal,
        /// Set if the system has written a core dump.
        is_core_dumped: bool,
    },
    /// The process has ended, and other code of this process has taken its status: a `wait` for any
    /// child, or `SIGCHLD` is ignored. (Twisted never reports such an end.)
    Unknown,
    /// The reactor has stopped before the process has ended. The process runs on.
    LeftRunning,
}

impl ProcessStatus {
    /// Returns `true` if the process has exited with code 0 (Twisted: `ProcessDone`).
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Returns the exit code, if the process has exited by itself.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// Returns the signal that has ended the process.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Killed { signal, .. } => Some(signal),
            _ => None,
        }
    }
}

impl fmt::Display for ProcessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Killed { signal, is_core_dumped } => {
                write!(f, "killed by {signal}{}", if *is_core_dumped { ", with a core dump" } else { "" })
            }
            Self::Unknown => f.write_str("ended, with an unknown status"),
            Self::LeftRunning => f.write_str("left running by the reactor"),
        }
    }
}
