//! The steps between fork and exec, in the child; and the other calls that take raw numbers.
//!
//! The child of a program with threads may only make async-signal-safe calls before its exec: no
//! allocation, no lock. So the parent prepares a [`Plan`], and the child carries it out:
//!
//! 1. session, process group;
//! 2. descriptors: those of the command are put in their places, all others become close-on-exec;
//!    then the terminal, if there is one, becomes that of the session;
//! 3. groups, group, user: in this order, since a later one may take the right to set the earlier;
//! 4. the working directory, with the rights of the new user;
//! 5. signals: none is blocked or ignored.
//!
//! The standard library forks, reports the errors of the child over a pipe, and waits for the exec.
//! It passes the number of an error only, so that the step is encoded in it ([`encode`]).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::error::{SpawnError, SpawnStep};
use crate::process::Settings;

/// The highest number of a signal.
const LAST_SIGNAL: i32 = 64;

/// The first descriptor that programs do not expect to be open.
const FIRST_OTHER: RawFd = 3;

/// Errors of the system are below this number. Steps are encoded above it.
const STEP_SHIFT: u32 = 16;

/// A descriptor of the child, and its object. `None` closes it.
pub(super) struct Mapping {
    pub(super) number: RawFd,
    pub(super) source: Option<OwnedFd>,
}

/// Starts the program. Returns when it was loaded. `any` is an open descriptor.
pub(super) fn start(settings: &Settings, mappings: Vec<Mapping>, any: BorrowedFd<'_>) -> Result<Child, SpawnError> {
    let program = || settings.program.to_string_lossy().into_owned();
    let setup = |step, source| SpawnError::Setup { program: program(), step, source };
    let mut command = std::process::Command::new(&settings.program);
    command.args(&settings.args).stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    if let Some(name) = &settings.arg0 {
        command.arg0(name);
    }
    if settings.is_env_cleared {
        command.env_clear();
    }
    for (name, value) in &settings.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let kept = keep_places(&mappings, any).map_err(|error| setup(SpawnStep::Descriptors, error))?;
    let mut plan = Plan::new(settings, &mappings).map_err(|error| setup(SpawnStep::WorkingDirectory, error))?;
    // SAFETY: the function makes system calls alone, on memory that was allocated before the fork.
    unsafe { command.pre_exec(move || plan.carry_out().map_err(encode)) };
    let child = command.spawn();
    drop((kept, mappings));
    child.map_err(|error| match decode(&error) {
        Some((step, source)) => setup(step, source),
        None => SpawnError::Program { program: program(), source: error },
    })
}

/// Opens the numbers that the child's descriptors will have, as far as they are free here. The
/// standard library's pipe for errors has the same number in parent and child: there, it must not
/// be replaced.
fn keep_places(mappings: &[Mapping], any: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut kept = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        match fcntl_dupfd_cloexec(any, mapping.number) {
            Ok(place) if place.as_raw_fd() == mapping.number => kept.push(place),
            // It is in use here, or beyond the limit of numbers: the pipe cannot get it.
            Ok(_) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(kept)
}

/// The work of the child.
struct Plan {
    /// Numbers of the child, and ours. -1 closes.
    descriptors: Vec<(RawFd, RawFd)>,
    highest: RawFd,
    is_session: bool,
    has_terminal: bool,
    group: Option<i32>,
    uid: Option<u32>,
    gid: Option<u32>,
    directory: Option<CString>,
}

/// A step that has failed, and the system's error.
type Failed = (SpawnStep, i32);

impl Plan {
    fn new(settings: &Settings, mappings: &[Mapping]) -> io::Result<Self> {
        let directory =
            settings.directory.as_ref().map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let source = |mapping: &Mapping| mapping.source.as_ref().map_or(-1, |source| source.as_raw_fd());
        Ok(Self {
            descriptors: mappings.iter().map(|mapping| (mapping.number, source(mapping))).collect(),
            highest: mappings.iter().map(|mapping| mapping.number).max().unwrap_or(0),
            is_session: settings.is_session || settings.terminal.is_some(),
            has_terminal: settings.terminal.is_some(),
            group: settings.group,
            uid: settings.uid,
            gid: settings.gid,
            directory,
        })
    }

    /// Makes the child what the command says. Async-signal-safe.
    fn carry_out(&mut self) -> Result<(), Failed> {
        let failed = |step| move |error| (step, error);
        self.set_session().map_err(failed(SpawnStep::Session))?;
        self.move_above().and_then(|()| self.set_descriptors()).map_err(failed(SpawnStep::Descriptors))?;
        self.take_terminal().map_err(failed(SpawnStep::Session))?;
        self.set_credentials().map_err(failed(SpawnStep::Credentials))?;
        self.enter_directory().map_err(failed(SpawnStep::WorkingDirectory))?;
        reset_signals();
        Ok(())
    }

    fn set_session(&self) -> Result<(), i32> {
        if self.is_session {
            // SAFETY: a call without pointers.
            check(unsafe { libc::setsid() })?;
        }
        match self.group {
            // SAFETY: a call without pointers.
            Some(group) if !self.is_session => check(unsafe { libc::setpgid(0, group) }).map(drop),
            _ => Ok(()),
        }
    }

    /// Moves our numbers above those of the child, so that none is replaced before it is used.
    fn move_above(&mut self) -> Result<(), i32> {
        let highest = self.highest;
        for (_, source) in &mut self.descriptors {
            if (0..=highest).contains(source) {
                // SAFETY: a call without pointers, on a number of the parent's owned descriptor.
                *source = check(unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, highest.saturating_add(1)) })?;
            }
        }
        Ok(())
    }

    fn set_descriptors(&self) -> Result<(), i32> {
        for &(number, source) in &self.descriptors {
            if source < 0 {
                // SAFETY: a call without pointers. The number may be closed already.
                unsafe { libc::close(number) };
            } else {
                // SAFETY: a call without pointers. The child is to have this object at this number.
                check(unsafe { libc::dup2(source, number) })?;
            }
        }
        close_others_on_exec()?;
        for &(number, source) in &self.descriptors {
            if number >= FIRST_OTHER && source >= 0 {
                // SAFETY: a call without pointers.
                check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
            }
        }
        Ok(())
    }

    /// Makes the terminal the one of the session.
    fn take_terminal(&self) -> Result<(), i32> {
        if self.has_terminal {
            // SAFETY: a call without pointers: its argument is the number 0.
            check(unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) })?;
        }
        Ok(())
    }

    fn set_credentials(&self) -> Result<(), i32> {
        let changes = self.uid.is_some() || self.gid.is_some();
        // SAFETY: calls without pointers but for an empty list.
        unsafe {
            if changes && libc::geteuid() == 0 {
                check(libc::setgroups(0, std::ptr::null()))?;
            }
            if let Some(gid) = self.gid {
                check(libc::setgid(gid))?;
            }
            if let Some(uid) = self.uid {
                check(libc::setuid(uid))?;
            }
        }
        Ok(())
    }

    fn enter_directory(&self) -> Result<(), i32> {
        match &self.directory {
            // SAFETY: the text ends with a zero, and outlives the call.
            Some(directory) => check(unsafe { libc::chdir(directory.as_ptr()) }).map(drop),
            None => Ok(()),
        }
    }
}

/// Makes every descriptor from 3 on close-on-exec. Closing at once would close the pipe of the
/// standard library as well.
fn close_others_on_exec() -> Result<(), i32> {
    #[cfg(target_os = "linux")]
    {
        // Linux 5.11. The flag is CLOSE_RANGE_CLOEXEC.
        let (first, last, flags): (libc::c_uint, libc::c_uint, libc::c_uint) = (FIRST_OTHER as _, u32::MAX, 4);
        // SAFETY: a call without pointers. Not `close_range`, which older C libraries do not have.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
            return Ok(());
        }
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    for number in FIRST_OTHER..RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX) {
        // SAFETY: a call without pointers. A number that is not open is an error, and fine.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Unblocks all signals, and gives ignored ones their default action. Handlers end with the exec.
fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        set_default_action(signal);
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills the set that the second one reads. Neither can fail with these
    // arguments.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Gives a signal its default action. The system refuses two signals, which are never ignored.
#[cfg(target_os = "linux")]
fn set_default_action(signal: i32) {
    // The kernel's structure, which is not longer than this. Zeros are the default action.
    let default = [0_u64; 8];
    let (unasked, set_bytes) = (std::ptr::null::<u8>(), 8_usize);
    // SAFETY: the call reads the array, and installs no handler. Not the C library's function,
    // which refuses the signals of its own threads.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), unasked, set_bytes) };
}

/// The same by the C library.
#[cfg(not(target_os = "linux"))]
fn set_default_action(signal: i32) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn check(result: libc::c_int) -> Result<libc::c_int, i32> {
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)) } else { Ok(result) }
}

/// Encodes a step in the number of an error. Makes no allocation.
fn encode((step, error): Failed) -> io::Error {
    let step = match step {
        SpawnStep::Session => 1,
        SpawnStep::Descriptors => 2,
        SpawnStep::Credentials => 3,
        SpawnStep::WorkingDirectory => 4,
        // Not steps of the child.
        SpawnStep::Pipes | SpawnStep::Watch => 0,
    };
    io::Error::from_raw_os_error(step << STEP_SHIFT | error)
}

/// Returns the step and the error of the system, if a step failed in the child.
fn decode(error: &io::Error) -> Option<(SpawnStep, io::Error)> {
    let number = error.raw_os_error()?;
    let step = match number >> STEP_SHIFT {
        1 => SpawnStep::Session,
        2 => SpawnStep::Descriptors,
        3 => SpawnStep::Credentials,
        4 => SpawnStep::WorkingDirectory,
        _ => return None,
    };
    Some((step, io::Error::from_raw_os_error(number & ((1 << STEP_SHIFT) - 1))))
}

/// Makes a second descriptor of a number of this process.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers. A number that is not open is an error.
    let made = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) }).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the number was opened by this call, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Sends a signal of any number to the process of a descriptor.
#[cfg(target_os = "linux")]
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (process, no_details, flags) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>(), 0 as libc::c_uint);
    // SAFETY: the pointer is null, which the call permits.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, signal, no_details, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The system has no descriptors of processes.
#[cfg(not(target_os = "linux"))]
pub(super) fn send_signal(_process: BorrowedFd<'_>, _signal: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_the_number_of_an_error() {
        let steps = [SpawnStep::Session, SpawnStep::Descriptors, SpawnStep::Credentials, SpawnStep::WorkingDirectory];
        for step in steps {
            let (decoded, error) = decode(&encode((step, libc::ENOENT))).unwrap();
            assert_eq!((decoded, error.kind()), (step, io::ErrorKind::NotFound));
        }
        assert!(decode(&io::Error::from_raw_os_error(libc::ENOENT)).is_none());
        assert!(decode(&io::ErrorKind::NotFound.into()).is_none());
    }

    /// A number that is not open is an error, and no other is closed.
    #[test]
    fn a_duplicate_is_close_on_exec() {
        let copy = duplicate(2).unwrap();
        assert!(rustix::io::fcntl_getfd(&copy).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        for closed in [-1, RawFd::MAX] {
            assert_eq!(duplicate(closed).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
