//! The clone of a child, the steps up to its exec, and the other calls that take raw numbers.
//!
//! The child shares the memory of the program, which is suspended meanwhile, and has a stack of its
//! own: `clone` with `CLONE_VM` and `CLONE_VFORK`, as in glibc's `posix_spawn`. So no page table is
//! copied. `docs/decisions/009-a-child-without-a-copy.md` says why, and what it was measured to be.
//!
//! | danger | answer |
//! |---|---|
//! | locks of suspended or other threads | the child allocates nothing, and takes no lock: the parent prepares all |
//! | a signal's handler that runs in the child | every signal is blocked from before the clone until no handler is left |
//! | a parent that goes on and reuses memory | it is suspended until the exec or the exit (`CLONE_VFORK`) |
//! | functions of the C library that look at its threads (`setuid`) | system calls in their place |
//! | a changed user of shared memory | no sharing then: [`Memory::Copied`] |
//!
//! The steps of the child:
//!
//! 1. session, process group;
//! 2. descriptors: those of the command are put in their places, all others become close-on-exec;
//!    then the terminal, if there is one, becomes that of the session;
//! 3. groups, group, user: in this order, since a later one may take the right to set the earlier;
//! 4. the working directory, with the rights of the new user;
//! 5. signals: none is ignored, none is handled, none is blocked;
//! 6. the program's file: each that it may be, until one is executed.
//!
//! A failed step is left in a [`Report`], which the parent reads when the child is gone.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_uint, c_void};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::image::ProgramImage;
use super::listed;
use super::pidfd::ProcessDescriptor;
use crate::error::{SpawnError, SpawnStep};
use crate::process::Settings;

/// The highest number of a signal.
const LAST_SIGNAL: i32 = 64;

/// Bytes of a set of signals in the kernel.
const SIGNAL_SET_BYTES: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };

/// The first descriptor that programs do not expect to be open.
const FIRST_OTHER: RawFd = 3;

/// The highest limit of descriptors up to which each number is tried, if the system can name the
/// open ones in no other way. The default of the system's own limit: a tenth of a second.
const TRIED_NUMBERS: RawFd = 1 << 20;

/// The stack of a child. Twice glibc's, since the code may be compiled without optimisation. Only
/// used pages cost memory.
const STACK_BYTES: usize = 64 * 1024;

/// Pages below the stack that cannot be used: one, where pages are as large as they can be.
const GUARD_BYTES: usize = 64 * 1024;

/// The exit code of a child that did not execute its program. It is never reported.
const EXIT_CODE: c_int = 127;

/// The user, group and groups, by calls that take 32 bits on every architecture.
#[cfg(not(any(target_arch = "x86", target_arch = "arm", target_arch = "sparc")))]
use libc::{SYS_setgid as SET_GID, SYS_setgroups as SET_GROUPS, SYS_setuid as SET_UID};
#[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "sparc"))]
use libc::{SYS_setgid32 as SET_GID, SYS_setgroups32 as SET_GROUPS, SYS_setuid32 as SET_UID};

/// A descriptor of the child, and its object. `None` closes it.
pub(super) struct Mapping {
    pub(super) number: RawFd,
    pub(super) source: Option<OwnedFd>,
}

/// Starts the program. Returns when it was loaded, with the number and the descriptor of its
/// process. `kept` has the place of that descriptor.
pub(super) fn start(
    settings: &Settings,
    mappings: Vec<Mapping>,
    kept: ProcessDescriptor,
) -> Result<(u32, OwnedFd), SpawnError> {
    let failure = |step, source| {
        let program = settings.program.to_string_lossy().into_owned();
        match step {
            Some(step) => SpawnError::Setup { program, step, source },
            None => SpawnError::Program { program, source },
        }
    };
    let image = ProgramImage::new(settings).map_err(|error| failure(None, error.into()))?;
    let mut plan =
        Plan::new(settings, &mappings, image).map_err(|error| failure(Some(SpawnStep::WorkingDirectory), error))?;
    drop(kept);
    let (child, report) = plan.clone_child().map_err(|error| failure(None, error))?;
    match report {
        None => Ok(child),
        Some((step, error)) => {
            // It is gone, or about to go. Its status is taken, and dropped.
            let ended = ProcessDescriptor::of_child(child.1).wait_for_end();
            Err(failure(step, ended.err().unwrap_or_else(|| io::Error::from_raw_os_error(error))))
        }
    }
}

/// The memory of a child, up to its exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// The parent's memory.
    Shared,
    /// A copy. The system copies the page tables, for which the time grows with the memory.
    Copied,
}

/// A failed step, and the system's error. `None` is the exec.
type Failed = (Option<SpawnStep>, i32);

/// The result of a child: `None` once it has executed its program.
type Report = Option<Failed>;

/// The number and the descriptor of a child, and its report.
type Cloned = ((u32, OwnedFd), Report);

/// The work of the child.
struct Plan {
    /// Numbers of the child, and ours. -1 closes.
    descriptors: Vec<(RawFd, RawFd)>,
    is_session: bool,
    has_terminal: bool,
    group: Option<i32>,
    uid: Option<u32>,
    gid: Option<u32>,
    directory: Option<CString>,
    image: ProgramImage,
}

impl Plan {
    fn new(settings: &Settings, mappings: &[Mapping], image: ProgramImage) -> io::Result<Self> {
        let directory =
            settings.directory.as_ref().map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let source = |mapping: &Mapping| mapping.source.as_ref().map_or(-1, |source| source.as_raw_fd());
        Ok(Self {
            descriptors: mappings.iter().map(|mapping| (mapping.number, source(mapping))).collect(),
            is_session: settings.is_session || settings.terminal.is_some(),
            has_terminal: settings.terminal.is_some(),
            group: settings.group,
            uid: settings.uid,
            gid: settings.gid,
            directory,
            image,
        })
    }

    /// Runs the child up to its exec or its exit.
    fn clone_child(&mut self) -> io::Result<Cloned> {
        // A process that changes its user marks its memory as not to be dumped or traced. The
        // program would bear that mark for good.
        let changes_user = self.uid.is_some() || self.gid.is_some();
        if changes_user || !library_shares_memory() {
            return self.clone_with(Memory::Copied);
        }
        match self.clone_with(Memory::Shared) {
            // The system refuses it at times: in a new namespace of time, for instance.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.clone_with(Memory::Copied),
            cloned => cloned,
        }
    }

    fn clone_with(&mut self, memory: Memory) -> io::Result<Cloned> {
        let stack = ChildStack::new(memory)?;
        let mut work = Work { plan: self, report: stack.report };
        // Exactly as in a `vfork`, the thread goes on when the child has executed or exited.
        let flags = libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let flags = if memory == Memory::Shared { flags | libc::CLONE_VM } else { flags };
        let mut descriptor: RawFd = -1;
        let mask = set_signal_mask([u64::MAX; 2]);
        // SAFETY: the function runs on a stack of its own. It gets the work, which outlives it as
        // this thread is suspended. The kernel writes a number to `descriptor`. No signal's handler
        // runs in the child: all are blocked.
        let pid = check(unsafe {
            libc::clone(run_child, stack.report.cast(), flags, (&raw mut work).cast(), &raw mut descriptor)
        });
        set_signal_mask(mask);
        let pid = pid.map_err(io::Error::from_raw_os_error)?;
        // SAFETY: the number was opened by the call, and has no other owner.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: the place was written by `ChildStack::new`, and perhaps by the child, which is
        // gone from this memory.
        let report = unsafe { stack.report.read_volatile() };
        let pid = u32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(((pid, descriptor), report))
    }

    /// Makes the child what the command says, and executes the program. Async-signal-safe.
    fn carry_out(&mut self) -> Failed {
        let failed = |step| move |error| (Some(step), error);
        let prepared = (|| {
            self.set_session().map_err(failed(SpawnStep::Session))?;
            self.move_aside().and_then(|()| self.set_descriptors()).map_err(failed(SpawnStep::Descriptors))?;
            self.take_terminal().map_err(failed(SpawnStep::Session))?;
            self.set_credentials().map_err(failed(SpawnStep::Credentials))?;
            self.enter_directory().map_err(failed(SpawnStep::WorkingDirectory))
        })();
        if let Err(failed) = prepared {
            return failed;
        }
        reset_signals();
        (None, self.execute())
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

    /// Moves our numbers away from those of the child, so that none is replaced before it is used.
    /// Not above them: the highest may be the last that the limit of descriptors permits.
    fn move_aside(&mut self) -> Result<(), i32> {
        for at in 0..self.descriptors.len() {
            let (mut source, mut least) = (self.descriptors[at].1, 0);
            // A number of the child that is taken on the way is replaced or closed later.
            while self.is_of_child(source) {
                // SAFETY: a call without pointers, on a number of the parent's owned descriptor.
                source = check(unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, least) })?;
                least = source.saturating_add(1);
            }
            self.descriptors[at].1 = source;
        }
        Ok(())
    }

    /// Returns `true` for a number of the command's map.
    fn is_of_child(&self, number: RawFd) -> bool {
        self.descriptors.iter().any(|&(of_child, _)| of_child == number)
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
        let no_groups = ptr::null::<libc::gid_t>();
        // SAFETY: calls without pointers but for an empty list. Not the C library's functions,
        // which would change the user of threads that this process does not have.
        unsafe {
            if changes && libc::geteuid() == 0 {
                check_call(libc::syscall(SET_GROUPS, 0 as libc::size_t, no_groups))?;
            }
            if let Some(gid) = self.gid {
                check_call(libc::syscall(SET_GID, gid))?;
            }
            if let Some(uid) = self.uid {
                check_call(libc::syscall(SET_UID, uid))?;
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

    /// Executes the first file that there is. Returns the error if there is none: a refusal, if
    /// there was one, tells more than that the last file is missing.
    fn execute(&self) -> i32 {
        let (mut refused, mut last) = (None, libc::ENOENT);
        for file in &self.image.files {
            // SAFETY: the texts end with a zero, the lists with a null pointer, and all of them
            // outlive the call.
            unsafe { libc::execve(file.as_ptr(), self.image.args.as_ptr(), self.image.env.as_ptr()) };
            last = last_error();
            match last {
                libc::EACCES => refused = Some(last),
                // Others are tried, as the C library does.
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                _ => return last,
            }
        }
        refused.unwrap_or(last)
    }
}

/// The argument of a child's function.
struct Work<'a> {
    plan: &'a mut Plan,
    /// The place of the report, in memory that both processes have.
    report: *mut Report,
}

/// The child. It leaves by its exec or its exit, and never returns to the parent's code.
extern "C" fn run_child(work: *mut c_void) -> c_int {
    // SAFETY: the parent has passed its work, and is suspended.
    let work = unsafe { &mut *work.cast::<Work<'_>>() };
    let failed = work.plan.carry_out();
    // SAFETY: the place outlives the child. No destructor and no hook of the program runs: they are
    // the parent's.
    unsafe {
        work.report.write_volatile(Some(failed));
        libc::_exit(EXIT_CODE)
    }
}

/// The stack of a child, with the place of its report on top.
struct ChildStack {
    base: *mut c_void,
    report: *mut Report,
}

impl ChildStack {
    const LENGTH: usize = GUARD_BYTES + STACK_BYTES;

    fn new(memory: Memory) -> io::Result<Self> {
        // The report of a child with a copy of the memory is to be seen here as well.
        let sharing = if memory == Memory::Shared { MapFlags::PRIVATE | MapFlags::STACK } else { MapFlags::SHARED };
        // SAFETY: new pages at a place that the system chooses.
        let base =
            unsafe { mmap_anonymous(ptr::null_mut(), Self::LENGTH, ProtFlags::READ | ProtFlags::WRITE, sharing)? };
        // Both are far below 4 KiB, and a stack is aligned to 16 bytes.
        let report_bytes = size_of::<Report>().next_multiple_of(64);
        let report = base.wrapping_byte_add(Self::LENGTH - report_bytes).cast::<Report>();
        let stack = Self { base, report };
        // SAFETY: the pages are ours, the guard is their lower part and the report their upper end.
        unsafe {
            mprotect(base, GUARD_BYTES, MprotectFlags::empty())?;
            report.write_volatile(None);
        }
        Ok(stack)
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: the pages were mapped here, and the child has left them. The call fails for wrong
        // arguments only.
        let _ = unsafe { munmap(self.base, Self::LENGTH) };
    }
}

/// Makes every descriptor from 3 on close-on-exec.
fn close_others_on_exec() -> Result<(), i32> {
    // Linux 5.11. The flag is CLOSE_RANGE_CLOEXEC.
    let (first, last, flags): (c_uint, c_uint, c_uint) = (FIRST_OTHER as _, u32::MAX, 4);
    // SAFETY: a call without pointers. Not `close_range`, which older C libraries do not have.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
        return Ok(());
    }
    close_listed_on_exec().or_else(close_tried_on_exec)
}

/// The same for systems without that call, by the list of open descriptors.
fn close_listed_on_exec() -> Result<(), i32> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the text ends with a zero.
    let list = check(unsafe { libc::open(c"/proc/self/fd".as_ptr(), flags) })?;
    let mut buffer = [0_u64; 256];
    let mut is_list_listed = false;
    loop {
        let room = size_of_val(&buffer);
        // SAFETY: the kernel writes into the buffer, and not beyond its length.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, list, buffer.as_mut_ptr(), room) };
        check_call(count)?;
        if count == 0 {
            break;
        }
        // SAFETY: the bytes were zeros or written by the kernel, and a byte has no alignment.
        let entries = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), room.min(count as usize)) };
        for number in listed::numbers(entries) {
            is_list_listed |= number == list;
            if number >= FIRST_OTHER {
                set_close_on_exec(number);
            }
        }
    }
    // Another file system may stand in the place of `/proc`.
    if is_list_listed { Ok(()) } else { Err(libc::ENOENT) }
}

/// The same for systems that do not list them either: every number up to the limit is tried. A
/// limit that would take long is an error, the one that the list has given.
fn close_tried_on_exec(error: i32) -> Result<(), i32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let numbers = tried_numbers(limit.rlim_cur).ok_or(error)?;
    numbers.for_each(set_close_on_exec);
    Ok(())
}

fn tried_numbers(limit: libc::rlim_t) -> Option<Range<RawFd>> {
    let limit = RawFd::try_from(limit).ok().filter(|&limit| limit <= TRIED_NUMBERS)?;
    Some(FIRST_OTHER..limit)
}

/// A number that is not open is an error, and fine.
fn set_close_on_exec(number: RawFd) {
    // SAFETY: a call without pointers.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Gives all signals their default action, and unblocks them.
fn reset_signals() {
    // The kernel's structure, which is not longer than this. Zeros are the default action.
    let default = [0_u64; 8];
    let unasked = ptr::null_mut::<u8>();
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the call reads the array, and installs no handler. Not the C library's function,
        // which refuses the signals of its own threads. The system refuses two signals, which are
        // never ignored.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), unasked, SIGNAL_SET_BYTES) };
    }
    set_signal_mask([0; 2]);
}

/// Sets the blocked signals of this thread, and returns the earlier ones. Not the C library's
/// function, which leaves the signals of its own threads out.
fn set_signal_mask(mask: [u64; 2]) -> [u64; 2] {
    let mut old = [0_u64; 2];
    // SAFETY: the kernel reads and writes no more than the length of a set. The call cannot fail
    // with these arguments.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask.as_ptr(), old.as_mut_ptr(), SIGNAL_SET_BYTES)
    };
    old
}

/// Checks that a clone with shared memory leaves the C library as it was. glibc before 2.25 keeps
/// the number of the process in memory, and its `clone` would change the parent's.
#[cfg(target_env = "gnu")]
fn library_shares_memory() -> bool {
    // SAFETY: the function returns a text that ends with a zero, and that is never freed.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    is_version_at_least(version.to_str().unwrap_or(""), (2, 25))
}

/// The other C libraries keep no such number.
#[cfg(not(target_env = "gnu"))]
fn library_shares_memory() -> bool {
    true
}

/// Compares a version such as `2.36`.
#[cfg(any(target_env = "gnu", test))]
fn is_version_at_least(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

fn check(result: c_int) -> Result<c_int, i32> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn check_call(result: libc::c_long) -> Result<(), i32> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

/// Checks that a number is a descriptor of this process.
pub(super) fn check_open(number: RawFd) -> io::Result<()> {
    // SAFETY: a call without pointers. A number that is not open is an error.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }).map(drop).map_err(io::Error::from_raw_os_error)
}

/// Makes a second descriptor of a number of this process.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers. A number that is not open is an error.
    let made = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) }).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the number was opened by this call, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Sends a signal of any number to the process of a descriptor.
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (process, no_details, flags) = (process.as_raw_fd(), ptr::null::<libc::siginfo_t>(), 0 as c_uint);
    // SAFETY: the pointer is null, which the call permits.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, signal, no_details, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is not open is an error, and no other is closed.
    #[test]
    fn a_duplicate_is_close_on_exec() {
        let copy = duplicate(2).unwrap();
        assert!(rustix::io::fcntl_getfd(&copy).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        for closed in [-1, RawFd::MAX] {
            assert_eq!(duplicate(closed).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }

    /// An old glibc keeps the number of the process, and its `clone` changes it.
    #[test]
    fn an_old_library_gets_a_copy() {
        for (version, is_new) in [("2.17", false), ("2.24", false), ("2.25", true), ("2.36", true), ("3.0", true)] {
            assert_eq!(is_version_at_least(version, (2, 25)), is_new, "{version}");
        }
        assert!(!is_version_at_least("", (2, 25)) && is_version_at_least("2.40.9000", (2, 25)));
        assert!(library_shares_memory());
    }

    /// Each number is tried only if that is soon done.
    #[test]
    fn a_huge_limit_is_not_tried() {
        assert_eq!(tried_numbers(1024), Some(3..1024));
        assert_eq!(tried_numbers(1 << 20), Some(3..1 << 20));
        for limit in [(1 << 20) + 1, 1 << 30, libc::RLIM_INFINITY] {
            assert_eq!(tried_numbers(limit), None);
        }
        assert_eq!(tried_numbers(0).map(Iterator::count), Some(0));
    }

    /// The mask of the thread is the same before and after, signals of the C library included.
    #[test]
    fn a_mask_is_set_and_given_back() {
        let before = set_signal_mask([u64::MAX; 2]);
        let all = set_signal_mask(before);
        // The two signals that cannot be blocked are 9 and 19.
        assert_eq!(all[0], !(1 << 8 | 1 << 18));
        assert_eq!(set_signal_mask(before), before);
    }
}
