//! [`Buffers`]: the memory that the kernel receives into as bytes come (a "provided buffer ring"), so that an idle connection
//! holds none.
//!
//! Rules:
//! 1. A buffer is the kernel's while its number stands in the ring. A completion makes it ours, as a [`Buffer`]; dropping that gives
//!    it back.
//! 2. The kernel's ring and every [`Buffer`] keep the mapping in which all of it is.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::log::error;

/// How many buffers there may be: as many as were enough for 1,000 connections that all send at a time. A power of two, as the
/// kernel wants.
const COUNT: u16 = 256;

/// How many there are at first, and how many more whenever they were used up. 64: the kernel does some twenty requests at a time,
/// and what they brought is used before it goes on; a few buffers are in the processor's cache, and 256 are not, which cost a
/// fifth at 16 KiB a message. Kernels that do all requests at once use more.
const STEP: u16 = 64;

/// How large each is. 16 KiB: as much as a TLS record.
const SIZE: usize = 16 * 1024;

/// The name of this group of buffers, of which a ring has no other.
pub(super) const GROUP: u16 = 0;

/// The bytes of the ring, ahead of those of the buffers.
const RING: usize = COUNT as usize * size_of::<BufRingEntry>();

/// The bytes of it all. What was never used takes no memory.
const MAPPING: usize = RING + COUNT as usize * SIZE;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The ring's entries, and the buffers behind them. The ring's tail, which says how much of it is valid, stands in the first
    /// entry.
    entries: NonNull<BufRingEntry>,
    tail: Cell<u16>,
    /// How many buffers are in use.
    used: Cell<u16>,
}

/// Received bytes, in a buffer that goes back to the kernel when this is dropped.
#[derive(Debug)]
pub(in crate::reactor::backend) struct Buffer {
    buffers: Rc<Buffers>,
    number: u16,
    filled: u32,
}

impl Buffers {
    /// Makes the buffers, and tells the kernel of them. The kernel's ring has to be gone before the last of these.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Rc<Self>> {
        // SAFETY: a new mapping is nobody's memory.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), MAPPING, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
        let entries = NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let buffers = Rc::new(Self { entries, tail: Cell::new(0), used: Cell::new(0) });
        // SAFETY: the mapping begins a page, has that many entries, zeros are valid ones, and it lives until `buffers` is dropped,
        // which is after the kernel's ring.
        unsafe { submitter.register_buf_ring_with_flags(mapping as u64, COUNT, GROUP, 0)? };
        buffers.add();
        Ok(buffers)
    }

    /// They were used up: there are to be more, if there may be.
    pub(super) fn add(&self) {
        let first = self.used.get();
        self.used.set(COUNT.min(first + STEP));
        (first..self.used.get()).for_each(|number| self.give(number));
    }

    /// The buffer that a completion names, with so many bytes in it.
    #[inline(always)]
    pub(super) fn take(self: &Rc<Self>, number: u16, filled: u32) -> Buffer {
        debug_assert!(number < self.used.get() && filled as usize <= SIZE, "the kernel names what it was given");
        Buffer { buffers: Rc::clone(self), number, filled }
    }

    /// Where a buffer begins.
    #[inline(always)]
    fn address(&self, number: u16) -> *mut u8 {
        // SAFETY: there are `COUNT` buffers behind the entries, and `number` is below that.
        unsafe { self.entries.as_ptr().cast::<u8>().add(RING + usize::from(number) * SIZE) }
    }

    /// Makes a buffer the kernel's.
    #[inline(always)]
    fn give(&self, number: u16) {
        let tail = self.tail.replace(self.tail.get().wrapping_add(1));
        // SAFETY: the mapping has COUNT entries. The kernel reads none at or behind the tail, and there are no more buffers than
        // entries, so this one is not in its hands. The fields are written one by one, for the first entry has the tail where
        // others have nothing; it is aligned for an u16, and only ever accessed as an atomic one. Release: the kernel is to see the
        // entry before the tail.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(tail % COUNT));
            entry.set_addr(self.address(number) as u64);
            entry.set_len(SIZE as u32);
            entry.set_bid(number);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail.get(), Ordering::Release);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel has written so many bytes to the buffer, and does not touch it again before `give` (rule 1). The
        // mapping is there as long as `buffers` is (rule 2).
        unsafe { slice::from_raw_parts(self.buffers.address(self.number), self.filled as usize) }
    }
}

impl Drop for Buffer {
    #[inline(always)]
    fn drop(&mut self) {
        self.buffers.give(self.number);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: mapped in `register`, the kernel has forgotten it together with its ring, and no buffer is left (rule 2).
        if let Err(error) = unsafe { munmap(self.entries.as_ptr().cast(), MAPPING) } {
            error!(%error, "the receive buffers were not unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MsyncFlags, msync};

    use super::super::ring::{Done, Ring};

    /// Received bytes stay when the ring goes, and the last of them unmaps all buffers.
    #[test]
    fn the_last_buffer_unmaps_them_all() {
        // Another thread may map something there at once, but not each time.
        let is_unmapped = || {
            let Ok(ring) = Ring::new() else { return true };
            let (first, last) = (ring.buffer(Done::bytes(0, 9)), ring.buffer(Done::bytes(1, 9)));
            drop((ring, first));
            assert_eq!(*last, [0; 9]);
            let mapping = last.buffers.entries.as_ptr().cast();
            drop(last);
            // SAFETY: nothing is accessed; the call fails if there is no mapping.
            unsafe { msync(mapping, super::MAPPING, MsyncFlags::ASYNC) }.is_err()
        };
        assert!((0..20).any(|_| is_unmapped()));
    }
}
