//! An allocator that counts, for the tests that measure memory. A program that uses it names it as
//! its `#[global_allocator]`.
//!
//! Each thread has counts of its own, so the peers of a test in their threads do not disturb them.
//! The counts of the process are exact only in a process of its own
//! ([`own_process`](crate::common::own_process)).
#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; see the SAFETY comments")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with counts of bytes and of allocations.
pub struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

static LIVE_IN_PROCESS: AtomicUsize = AtomicUsize::new(0);

/// Bytes that this thread holds. A thread that frees memory of other threads may hold less than
/// nothing: the count wraps.
pub fn live() -> usize {
    LIVE.get()
}

/// The most that this thread has held since [`begin_peak`].
pub fn peak() -> usize {
    PEAK.get()
}

/// Begins a new [`peak`] at the bytes that this thread holds now.
pub fn begin_peak() {
    PEAK.set(live());
}

/// Number of allocations that this thread has made; a reallocation counts as one.
pub fn allocations() -> usize {
    ALLOCATIONS.get()
}

/// Bytes that all threads of this process hold.
pub fn live_in_process() -> usize {
    LIVE_IN_PROCESS.load(Ordering::Relaxed)
}

fn took(size: usize) {
    // The cells are never dropped, and making them allocates nothing: this can't fail, nor recurse.
    LIVE.with(|live| {
        live.set(live.get().wrapping_add(size));
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
    LIVE_IN_PROCESS.fetch_add(size, Ordering::Relaxed);
}

fn gave(size: usize) {
    LIVE.with(|live| live.set(live.get().wrapping_sub(size)));
    LIVE_IN_PROCESS.fetch_sub(size, Ordering::Relaxed);
}

// SAFETY: every request goes unchanged to the system's allocator, which keeps the contract.
// Counting touches no memory but the cells of this thread and an atomic, and does not allocate or
// unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        // SAFETY: as above; the block came from `System`, as every block does.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
