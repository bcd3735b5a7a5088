//! [`Process`]: whether we still are the process that made a reactor, at the cost of reading a byte.
//!
//! A forked child has its parent's memory and shares its descriptors: the poller, the ring, the sockets. Whatever it did to them would
//! happen to its parent. The system tells a child by clearing a page that it was asked to clear on a fork (`MADV_WIPEONFORK`, Linux
//! 4.14). Where there is no such thing, the process is asked for its number.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::{Pid, getpid};

/// The process in which this was made.
pub(super) struct Process {
    id: Pid,
    mark: Option<Mark>,
}

impl Process {
    pub(super) fn current() -> Self {
        Self { id: getpid(), mark: Mark::new() }
    }

    /// Whether it is the one that runs.
    pub(super) fn is_current(&self) -> bool {
        self.mark.as_ref().map_or_else(|| getpid() == self.id, Mark::is_set)
    }
}

/// A byte that is zero in forked children, in a page of its own.
struct Mark(NonNull<AtomicU8>);

/// As much as is mapped: a page, whatever its size.
const LENGTH: usize = 1;

impl Mark {
    #[cfg(target_os = "linux")]
    fn new() -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the system chooses the place, so that nothing is there that is in use.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), LENGTH, access, MapFlags::PRIVATE) }.ok()?;
        let mark = Self(NonNull::new(page.cast())?);
        // SAFETY: the page is ours alone, and in children it keeps being one of zeros.
        unsafe { madvise(page, LENGTH, Advice::LinuxWipeOnFork) }.ok()?;
        mark.byte().store(1, Ordering::Relaxed);
        Some(mark)
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Option<Self> {
        None
    }

    fn is_set(&self) -> bool {
        self.byte().load(Ordering::Relaxed) == 1
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped until this is dropped, and only ever accessed as this byte.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        // SAFETY: it was mapped in `new` with this length, and nothing refers to it any more. It fails for no such mapping.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a page that the system clears on a fork, and without.
    #[test]
    fn the_process_that_made_it_is_the_current_one() {
        let here = Process::current();
        assert!(here.is_current());
        assert!(cfg!(not(target_os = "linux")) || here.mark.is_some());
        assert!(Process { id: getpid(), mark: None }.is_current());
        assert!(!Process { id: Pid::INIT, mark: None }.is_current());
    }
}
