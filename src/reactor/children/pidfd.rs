//! [`ProcessDescriptor`]: the descriptor of a child process (`pidfd_open(2)`, Linux 5.4). It names
//! one process for good, unlike a number, which the system gives away again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::exec::send_signal;
use crate::error::ProcessError;
use crate::process::{ProcessStatus, Signal};

/// See the module. It is close-on-exec.
pub(super) struct ProcessDescriptor(OwnedFd);

impl ProcessDescriptor {
    /// Opens the descriptor of this process itself: a check that the system has such descriptors,
    /// which keeps the place of a later one.
    pub(super) fn of_this_process() -> io::Result<Self> {
        open(getpid()).map(Self)
    }

    /// Takes the descriptor of a child, which was opened with it.
    pub(super) fn of_child(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Takes the status of the process, which the system then forgets. Returns `None` while it
    /// runs. A process that other code has waited for has an unknown status.
    pub(super) fn take_status(&self) -> io::Result<Option<ProcessStatus>> {
        match wait(self.0.as_fd(), true) {
            Err(Errno::CHILD) => Ok(Some(ProcessStatus::Unknown)),
            waited => Ok(waited?),
        }
    }

    /// Waits until the process has ended, which blocks, and drops its status.
    pub(super) fn wait_for_end(&self) -> io::Result<()> {
        loop {
            match wait(self.0.as_fd(), false) {
                // The system drops the status of its own accord if SIGCHLD is ignored.
                Ok(_) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills the process, and waits for its end.
    pub(super) fn kill_and_wait(&self) -> io::Result<()> {
        match send_signal(self.0.as_fd(), Signal::KILL.number()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::SRCH) => Err(error),
            _ => self.wait_for_end(),
        }
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        send_signal(self.0.as_fd(), signal.number()).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::SRCH) => ProcessError::ExitedAlready,
            _ => ProcessError::Signal(error),
        })
    }
}

impl AsFd for ProcessDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ProcessDescriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(target_os = "linux")]
fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn open(_pid: Pid) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn wait(process: BorrowedFd<'_>, at_once: bool) -> Result<Option<ProcessStatus>, Errno> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let waiting = if at_once { WaitIdOptions::NOHANG } else { WaitIdOptions::empty() };
    let waited = waitid(WaitId::PidFd(process), WaitIdOptions::EXITED | waiting)?;
    Ok(waited.map(|status| {
        if let Some(code) = status.exit_status() {
            return ProcessStatus::Exited(code);
        }
        match status.terminating_signal().map(Signal::from_number) {
            Some(Ok(signal)) => ProcessStatus::Killed { signal, is_core_dumped: status.dumped() },
            // Not reached: the system reports ends only, by a signal from 1 to 64.
            _ => ProcessStatus::Unknown,
        }
    }))
}

#[cfg(not(target_os = "linux"))]
fn wait(_process: BorrowedFd<'_>, _at_once: bool) -> Result<Option<ProcessStatus>, Errno> {
    Err(Errno::NOSYS)
}
