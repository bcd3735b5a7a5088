//! [`Buffers`]: the memory that the kernel receives into as bytes come (a "provided buffer ring").
//! So an idle connection holds no buffer.
//!
//! Rules:
//! 1. A buffer is the kernel's while its number stands in the ring. A completion makes it ours, as
//!    a [`Buffer`]. Dropping that gives it back.
//! 2. All of it is one mapping, which the kernel's ring and every [`Buffer`] keep.
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

/// The largest number of buffers. 256: enough for 1,000 connections that all send at once. A power
/// of two, as the kernel requires.
const COUNT: u16 = 256;

/// The initial number of buffers, and the number added whenever they were used up. 64: the kernel
/// does some twenty requests at a time, and their bytes are used before it goes on. A few buffers
/// fit the processor's cache. 256 do not, which cost a fifth at 16 KiB a message. Kernels that do
/// all requests at once use more.
const STEP: u16 = 64;

/// The size of a buffer in bytes. 16 KiB: as much as a TLS record.
const SIZE: usize = 16 * 1024;

/// The id of this group of buffers, the only one of the ring.
pub(super) const GROUP: u16 = 0;

/// The size of the ring in bytes, which stands ahead of the buffers.
const RING: usize = COUNT as usize * size_of::<BufRingEntry>();

/// The size of the mapping in bytes. Unused pages take no memory.
const MAPPING: usize = RING + COUNT as usize * SIZE;

/// The receive buffers: see the module.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The ring's entries, with the buffers behind them. The ring's tail, which tells how many
    /// entries are valid, stands in the first entry.
    entries: NonNull<BufRingEntry>,
    tail: Cell<u16>,
    /// Number of buffers in use.
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
    /// Makes the buffers, and registers them with the kernel. The kernel's ring has to be dropped
    /// before the last reference to them.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Rc<Self>> {
        // SAFETY: a new mapping overlaps no other memory.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), MAPPING, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
        let entries = NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let buffers = Rc::new(Self { entries, tail: Cell::new(0), used: Cell::new(0) });
        // SAFETY: the mapping starts at a page and has that many entries. Zeros are valid entries.
        // It lives until `buffers` is dropped, which is after the kernel's ring.
        unsafe { submitter.register_buf_ring_with_flags(mapping as u64, COUNT, GROUP, 0)? };
        buffers.add();
        Ok(buffers)
    }

    /// Adds buffers after all were used up, up to the limit.
    pub(super) fn add(&self) {
        let first = self.used.get();
        self.used.set(COUNT.min(first + STEP));
        (first..self.used.get()).for_each(|number| self.give(number));
    }

    /// Takes the buffer that a completion names, with `filled` bytes in it.
    #[inline(always)]
    pub(super) fn take(self: &Rc<Self>, number: u16, filled: u32) -> Buffer {
        debug_assert!(
            number < self.used.get() && filled as usize <= SIZE,
            "the kernel names a buffer that it was given"
        );
        Buffer { buffers: Rc::clone(self), number, filled }
    }

    /// Returns the address of a buffer.
    #[inline(always)]
    fn address(&self, number: u16) -> *mut u8 {
        // SAFETY: there are `COUNT` buffers behind the entries, and `number` is below that.
        unsafe { self.entries.as_ptr().cast::<u8>().add(RING + usize::from(number) * SIZE) }
    }

    /// Gives a buffer to the kernel.
    #[inline(always)]
    fn give(&self, number: u16) {
        let tail = self.tail.replace(self.tail.get().wrapping_add(1));
        // SAFETY: the mapping has COUNT entries. The kernel reads none at or behind the tail, and
        // there are no more buffers than entries, so the kernel does not use this one. The fields
        // are written one by one, because the first entry holds the tail in a field that is unused
        // in the others. The tail is aligned for a u16, and is only ever accessed as an atomic one.
        // Release: the kernel has to see the entry before the tail.
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
        // SAFETY: the kernel has written `filled` bytes to the buffer, and does not touch it again
        // before `give` (rule 1). The mapping exists as long as `buffers` does (rule 2).
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
        // SAFETY: `register` has mapped it. The kernel has forgotten it together with its ring, and
        // no buffer is left (rule 2).
        if let Err(error) = unsafe { munmap(self.entries.as_ptr().cast(), MAPPING) } {
            error!(%error, "cannot unmap the receive buffers");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MsyncFlags, msync};

    use super::super::ring::{Done, Ring};

    /// Received bytes outlive the ring, and dropping the last of them unmaps all buffers.
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
            // SAFETY: no memory is accessed; the call fails if there is no mapping.
            unsafe { msync(mapping, super::MAPPING, MsyncFlags::ASYNC) }.is_err()
        };
        assert!((0..20).any(|_| is_unmapped()));
    }
}
