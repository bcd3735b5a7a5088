//! [`Process`]: the process that a reactor belongs to. Checking that this is still the current one
//! costs the read of a byte.
//!
//! A forked child has its parent's memory and shares its descriptors: the poller, the ring, the
//! sockets. An operation of the child on them would affect its parent. The system marks a child by
//! clearing a page that it was asked to clear on a fork (`MADV_WIPEONFORK`, Linux 4.14). Without
//! such a page, the check asks for the process number.
//!
//! [`survives_sigpipe`] is about the process too.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use rustix::process::getpid;

/// The process that a reactor belongs to: the process that made it, or a child that took it over
/// before the loop was entered.
pub(super) struct Process {
    id: AtomicI32,
    mark: Mark,
    bound: AtomicBool,
}

impl Process {
    /// Returns the current process.
    pub(super) fn current() -> Self {
        Self { id: own_id().into(), mark: Mark::new(), bound: AtomicBool::new(false) }
    }

    /// Returns `true` if this is the current process.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.mark.is_set() || self.has_own_id()
    }

    #[cold]
    fn has_own_id(&self) -> bool {
        self.id.load(Ordering::Relaxed) == own_id()
    }

    /// Binds the reactor when the loop is entered: no forked child can take it over any more.
    pub(super) fn bind(&self) {
        self.bound.store(true, Ordering::Relaxed);
    }

    /// Returns `true` in a forked child that cannot take the reactor over.
    pub(super) fn is_parent(&self) -> bool {
        self.bound.load(Ordering::Relaxed) && !self.is_current()
    }

    /// Makes the current process the owner.
    pub(super) fn take_over(&self) {
        self.id.store(own_id(), Ordering::Relaxed);
        self.mark.set();
    }
}

/// Returns `true` if SIGPIPE does not end this process. Rust's runtime ignores it; a program may
/// have given it back its default action.
pub(super) fn survives_sigpipe() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: The call sets no action. It writes to a structure that is large enough, and lives
    // until it returns.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: The structure has no invariants, and zeros are one of its values.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction != libc::SIG_DFL
}

fn own_id() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// A byte in a page of its own that is zero in forked children. Without such a page, the byte is
/// zero everywhere.
struct Mark {
    byte: NonNull<AtomicU8>,
    is_mapped: bool,
}

/// The shared byte of all marks without a page.
static UNSET: AtomicU8 = AtomicU8::new(0);

/// Length of the mapping: one page, whatever its size.
#[cfg(target_os = "linux")]
const MAPPED_BYTES: usize = 1;

impl Mark {
    fn new() -> Self {
        let mark = Self::mapped().unwrap_or_else(Self::unset);
        mark.set();
        mark
    }

    fn unset() -> Self {
        Self { byte: NonNull::from(&UNSET), is_mapped: false }
    }

    #[cfg(target_os = "linux")]
    fn mapped() -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the system chooses an address that is not in use.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), MAPPED_BYTES, access, MapFlags::PRIVATE) }.ok()?;
        let mark = Self { byte: NonNull::new(page.cast())?, is_mapped: true };
        // SAFETY: only this value uses the page, and in children it stays a page of zeros.
        unsafe { madvise(page, MAPPED_BYTES, Advice::LinuxWipeOnFork) }.ok()?;
        Some(mark)
    }

    #[cfg(not(target_os = "linux"))]
    fn mapped() -> Option<Self> {
        None
    }

    fn set(&self) {
        if self.is_mapped {
            self.byte().store(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn is_set(&self) -> bool {
        self.byte().load(Ordering::Relaxed) != 0
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped until this value is dropped, and only accessed as this byte.
        // The other byte is a static.
        unsafe { self.byte.as_ref() }
    }
}

// SAFETY: the value owns its page, and accesses the byte only by atomic operations.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Drop for Mark {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if self.is_mapped {
            // SAFETY: `mapped` made this mapping with this length, and nothing refers to it any
            // more. The call fails for no such mapping.
            let _ = unsafe { rustix::mm::munmap(self.byte.as_ptr().cast(), MAPPED_BYTES) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both with a page that the system clears on a fork, and without.
    #[test]
    fn the_process_that_made_it_is_the_current_one() {
        let here = Process::current();
        assert!(here.is_current());
        assert!(cfg!(not(target_os = "linux")) || here.mark.is_set());
        let without = |id: i32| Process { id: id.into(), mark: Mark::unset(), bound: AtomicBool::new(true) };
        assert!(without(own_id()).is_current() && !without(own_id()).is_parent());
        assert!(!without(1).is_current() && without(1).is_parent());
        let taken = without(1);
        taken.take_over();
        assert!(taken.is_current() && !taken.mark.is_set());
    }
}
