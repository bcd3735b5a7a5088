//! [`Buffers`]: the receive buffers that the kernel takes from as bytes come (a "provided buffer ring"), so that an idle connection
//! holds none.
//!
//! A buffer is either the kernel's, as a raw pointer here and an entry of the ring that it reads, or ours, as a box. It
//! changes hands by [`take`](Buffers::take), when a completion names it, and by [`give`](Buffers::give).
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// How many buffers there may be: as many as were enough for 1,000 connections that all send at a time. A power of two, as the
/// kernel wants.
const COUNT: u16 = 256;

/// How many there are at first, and how many more whenever they were used up. 64: the kernel does some twenty requests at a time,
/// and what they brought is used before it goes on; a few buffers are in the processor's cache, and 256 are not, which cost a
/// fifth at 16 KiB a message. Kernels that do all requests at once use more.
const STEP: usize = 64;

/// How large each is. 16 KiB: as much as a TLS record.
pub(super) const SIZE: usize = 16 * 1024;

/// The name of this group of buffers, of which a ring has no other.
pub(super) const GROUP: u16 = 0;

const LAYOUT: Layout = match Layout::from_size_align(COUNT as usize * size_of::<BufRingEntry>(), LARGEST_PAGE) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// The entries have to begin a page, and this is the largest there is (on some 64-bit ARM).
const LARGEST_PAGE: usize = 64 * 1024;

/// See the module.
pub(super) struct Buffers {
    /// What the kernel reads, in a page of its own; its tail, which says how much of it is valid, stands in the first entry.
    entries: NonNull<BufRingEntry>,
    tail: u16,
    /// By number: those that are the kernel's.
    lent: Vec<Option<NonNull<[u8]>>>,
    /// The numbers that no buffer has.
    free: Vec<u16>,
    made: usize,
    leaked: bool,
}

impl Buffers {
    /// Makes the buffers, and tells the kernel of them. The ring has to be gone before these are dropped.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        // SAFETY: the layout has a size, and zeros are valid entries.
        let page = unsafe { alloc::alloc_zeroed(LAYOUT) };
        let Some(entries) = NonNull::new(page.cast()) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        let (lent, free) = (vec![None; COUNT.into()], (0..COUNT).collect());
        let mut buffers = Self { entries, tail: 0, lent, free, made: 0, leaked: false };
        let address = buffers.entries.as_ptr() as u64;
        // SAFETY: the page is aligned, has that many entries, and lives until `buffers` is dropped, which is after the ring.
        unsafe { submitter.register_buf_ring_with_flags(address, COUNT, GROUP, 0)? };
        buffers.add();
        Ok(buffers)
    }

    /// They were used up: there are to be more, if there may be.
    pub(super) fn add(&mut self) {
        let room = usize::from(COUNT) - self.made;
        for _ in 0..STEP.min(room) {
            self.give(vec![0; SIZE].into_boxed_slice());
            self.made += 1;
        }
    }

    /// A buffer that a completion names: from now on it is ours.
    pub(super) fn take(&mut self, number: u16) -> Option<Box<[u8]>> {
        let buffer = self.lent.get_mut(usize::from(number))?.take()?;
        self.free.push(number);
        // SAFETY: the pointer came from a box in `give`, and was taken out here, so that no other box is made of it. The kernel
        // named it in a completion: it has done with it.
        Some(unsafe { Box::from_raw(buffer.as_ptr()) })
    }

    /// Makes a buffer the kernel's. One that is not needed is dropped.
    pub(super) fn give(&mut self, buffer: Box<[u8]>) {
        if buffer.len() != SIZE {
            return;
        }
        let Some(number) = self.free.pop() else { return };
        let mut buffer = NonNull::from(Box::leak(buffer));
        // SAFETY: it was a box a line ago, and nobody else has it.
        let address = unsafe { buffer.as_mut() }.as_mut_ptr() as u64;
        self.lent[usize::from(number)] = Some(buffer);
        let at = usize::from(self.tail & (COUNT - 1));
        // SAFETY: the page has COUNT entries, and `at` is below that. The kernel reads no entry at or behind the tail, and there
        // are no more numbers than entries, so this one is not in its hands. The fields are written one by one, for the
        // first entry has the tail where others have nothing.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(address);
            entry.set_len(SIZE as u32);
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is valid, and the address inside it that this gives is aligned for an u16, which is only ever
        // accessed as an atomic one from here on. Release: the kernel is to see the entry before the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Gives up all of it without freeing it: the kernel may still write there.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        for number in 0..COUNT {
            drop(self.take(number));
        }
        // SAFETY: allocated in `register` with this layout, and the kernel has forgotten it together with the ring.
        unsafe { alloc::dealloc(self.entries.as_ptr().cast(), LAYOUT) };
    }
}
