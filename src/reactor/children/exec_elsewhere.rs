//! The place of `exec.rs` on systems other than Linux, which start no process: the check for a
//! descriptor of a process fails before.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::pidfd::ProcessDescriptor;
use crate::error::SpawnError;
use crate::process::Settings;

/// A descriptor of the child, and its object.
#[expect(dead_code, reason = "no child takes them")]
pub(super) struct Mapping {
    pub(super) number: RawFd,
    pub(super) source: Option<OwnedFd>,
}

/// Starts nothing.
pub(super) fn start(_: &Settings, _: Vec<Mapping>, _: ProcessDescriptor) -> Result<(u32, OwnedFd), SpawnError> {
    Err(SpawnError::Unsupported)
}

/// Leaves it to the check for a descriptor of a process.
pub(super) fn check_open(_number: RawFd) -> io::Result<()> {
    Ok(())
}

/// Makes no descriptor.
pub(super) fn duplicate(_number: RawFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sends nothing.
pub(super) fn send_signal(_process: BorrowedFd<'_>, _signal: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
