//! [`Process`]: the process that a reactor belongs to. Whether that is this one costs a byte to read.
//!
//! A forked child has its parent's memory and shares its descriptors: the poller, the ring, the sockets. Whatever it did to them would
//! happen to its parent. The system tells a child by clearing a page that it was asked to clear on a fork (`MADV_WIPEONFORK`, Linux
//! 4.14). Where there is no such thing, the process is asked for its number.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use rustix::process::getpid;

/// The process that a reactor belongs to: the one that made it, or a child of that which took it over before the loop was entered.
pub(super) struct Process {
    id: AtomicI32,
    mark: Mark,
    bound: AtomicBool,
}

impl Process {
    /// This one.
    pub(super) fn current() -> Self {
        Self { id: own_id().into(), mark: Mark::new(), bound: AtomicBool::new(false) }
    }

    /// True if it is the one that runs.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.mark.is_set() || self.has_own_id()
    }

    #[cold]
    fn has_own_id(&self) -> bool {
        self.id.load(Ordering::Relaxed) == own_id()
    }

    /// The loop is entered: no forked child can take the reactor over any more.
    pub(super) fn bind(&self) {
        self.bound.store(true, Ordering::Relaxed);
    }

    /// True in a forked child that can't take the reactor over.
    pub(super) fn is_parent(&self) -> bool {
        self.bound.load(Ordering::Relaxed) && !self.is_current()
    }

    /// It is this one from now on.
    pub(super) fn take_over(&self) {
        self.id.store(own_id(), Ordering::Relaxed);
        self.mark.set();
    }
}

fn own_id() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// A byte that is zero in forked children, in a page of its own; or where there is no such page, zero everywhere.
struct Mark {
    byte: NonNull<AtomicU8>,
    is_mapped: bool,
}

/// The byte of all those that have no page.
static UNSET: AtomicU8 = AtomicU8::new(0);

/// As much as is mapped: a page, whatever its size.
const LENGTH: usize = 1;

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
        // SAFETY: the system chooses the place, so that nothing is there that is in use.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), LENGTH, access, MapFlags::PRIVATE) }.ok()?;
        let mark = Self { byte: NonNull::new(page.cast())?, is_mapped: true };
        // SAFETY: the page is ours alone, and in children it keeps being one of zeros.
        unsafe { madvise(page, LENGTH, Advice::LinuxWipeOnFork) }.ok()?;
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
        // SAFETY: a page is mapped until this is dropped, and only ever accessed as this byte; the other byte is a static.
        unsafe { self.byte.as_ref() }
    }
}

// SAFETY: it owns its page, and accesses a byte by an atomic alone.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Drop for Mark {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if self.is_mapped {
            // SAFETY: it was mapped in `mapped` with this length, and nothing refers to it any more. It fails for no such mapping.
            let _ = unsafe { rustix::mm::munmap(self.byte.as_ptr().cast(), LENGTH) };
        }
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
        assert!(cfg!(not(target_os = "linux")) || here.mark.is_set());
        let without = |id: i32| Process { id: id.into(), mark: Mark::unset(), bound: AtomicBool::new(true) };
        assert!(without(own_id()).is_current() && !without(own_id()).is_parent());
        assert!(!without(1).is_current() && without(1).is_parent());
        let taken = without(1);
        taken.take_over();
        assert!(taken.is_current() && !taken.mark.is_set());
    }
}
