//! [`Ring`]: the queues shared with the kernel, and all memory that the kernel may read or write
//! meanwhile.
//!
//! Requests go out with the next [`enter`](Ring::enter), in order. Each completion is read once, in
//! place, as a [`Done`]. Rules:
//! 1. Memory that the kernel may touch belongs to the ring: chunks in flight, and receive buffers.
//!    It stays there until the completion reports that the kernel is done with it, even if the
//!    connection is closed.
//! 2. The ring is dropped before that memory. Dropping it takes everything back first, and leaks
//!    the memory that the kernel does not give back.
//! 3. The kernel closes a descriptor, behind all earlier requests on it. So no request under way
//!    can meet another descriptor with the same number.
#![allow(unsafe_code)]

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use rustix::process::{Pid, getpid};

use super::buffers::{self, Buffer, Buffers};
#[cfg(test)]
use super::faults::Faults;
use crate::log::error;
#[cfg(test)]
use crate::reactor::backend::{socket::faults, tests::ID};
use crate::transport::id::Id;
use crate::transport::send_queue::InFlight;

/// Requests submitted together. 1,024: as many as 1,000 connections make in a turn. More are
/// submitted in several parts.
const REQUESTS: u32 = 1024;

/// Entries of the completion queue. 8,192: the kernel sizes its own table of waiting requests by
/// this. It keeps completions that find no room.
const COMPLETIONS: u32 = 8192;

/// Completions taken per turn. 1,024, as with epoll. The next turn takes the rest.
const EVENTS: usize = 1024;

/// Completions held by a flush, at most. 100,000: usually more than there are connections, and no
/// more than a few megabytes. A flood must not keep the flush going.
const FLUSHED: usize = 100_000;

/// Rounds without a completion, in a row, after which a flush takes the kernel to be idle. 16:
/// little is completed without a report. The kernel's flag of pending work can stay set for ever,
/// because it is set by another thread: one thread may add work while the other has just done it.
const IDLE: usize = 16;

/// Rounds in which a dropped ring waits for the kernel to release its memory, and the length of a
/// round. 100 times 10 ms: it takes one round unless something is badly wrong.
const LAST_ROUNDS: usize = 100;
const LAST_WAIT: Duration = Duration::from_millis(10);

/// The queues, and the memory in the kernel's hands: see the module.
pub(super) struct Ring {
    // Dropped in this order: rule 2.
    ring: IoUring,
    pub(super) buffers: Rc<Buffers>,
    flights: Flights,
    /// Completions that were taken out of the kernel's queue early, to make room there or to search
    /// them.
    held: VecDeque<Done>,
    /// Number of completions that this turn may still take.
    left: usize,
    /// Requests for which the kernel had no room.
    waiting: VecDeque<squeue::Entry>,
    /// Number of requests that still have a completion to come.
    pending: usize,
    /// A counter is registered for reports.
    reports: bool,
    /// The process that may use the queues, which are shared with forked children.
    process: Pid,
    #[cfg(test)]
    faults: Faults,
}

/// A completion. [`Ring::received`], [`Ring::land`] or [`into_socket`](Self::into_socket) takes its
/// payload.
pub(super) struct Done {
    name: u64,
    result: i32,
    flags: u32,
}

/// The kind of a request, which is a part of its name. The rest of the name is an [`Id`] or a
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    /// Needs no completion.
    Nothing,
    Receive,
    Accept,
    Poll,
    Room,
    Send,
    Wake,
    /// Polls the poller of foreign descriptors.
    Foreign,
}

impl Ring {
    /// Makes a ring of the kind that the backend needs: for a single thread, and without work
    /// outside of calls.
    ///
    /// # Errors
    /// The system's error: Linux before 6.1 has no such rings, and many environments forbid all
    /// rings. `Unsupported` if the kernel lacks another feature.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .build(REQUESTS)?;
        let has = ring.params();
        if !has.is_feature_nodrop() || !has.is_feature_ext_arg() || !has.is_feature_skip_cqe_on_success() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let buffers = Buffers::register(&ring.submitter())?;
        Ok(Self {
            ring,
            buffers,
            flights: Flights::default(),
            held: VecDeque::new(),
            left: 0,
            waiting: VecDeque::new(),
            pending: 0,
            reports: false,
            process: getpid(),
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    /// Submits all requests, and waits for a completion, at most for `timeout` (`None`: without
    /// limit).
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.push_waiting()?;
        }
        let entered = match timeout {
            _ if !self.waiting.is_empty() => self.ring.submit(),
            Some(Duration::ZERO) => self.ring.submit(),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
            None => self.ring.submit_and_wait(1),
        };
        self.left = EVENTS;
        entered.map(drop).or_else(forgive)
    }

    /// Returns the number of completions that were not read yet.
    pub(super) fn completions(&mut self) -> usize {
        self.held.len() + self.ring.completion().len()
    }

    /// Returns the next completion of this turn.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Done> {
        while self.left > 0 {
            let held = if self.held.is_empty() { None } else { self.held.pop_front() };
            if let Some(done) = held.or_else(|| self.ring.completion().next().map(Done::from)) {
                self.left -= 1;
                return Some(self.end(done));
            }
            if !self.go_on() {
                break;
            }
        }
        None
    }

    /// Counts a request that has ended with its completion.
    #[inline(always)]
    fn end(&mut self, done: Done) -> Done {
        self.pending -= usize::from(done.name != Kind::Nothing as u64 && !done.goes_on());
        #[cfg(test)]
        let done = Done { result: self.faults.result(done.name, done.result), ..done };
        done
    }

    /// Lets the kernel go on, while the turn lasts: it does a bounded part of its pending work at a
    /// time. So few buffers are in use at a time, and these are in the processor's cache. Returns
    /// `true` if there are completions.
    #[inline(never)]
    fn go_on(&mut self) -> bool {
        if !self.is_behind() {
            return false;
        }
        if let Err(error) = self.submit() {
            error!(%error, "cannot submit requests to the ring");
        }
        self.completions() > 0
    }

    /// Returns `true` if the kernel has completions, or work for them, that wait for the next call.
    pub(super) fn is_behind(&mut self) -> bool {
        let requests = self.ring.submission();
        requests.taskrun() || requests.cq_overflow()
    }

    /// Adds to a counter whenever the kernel has completions, or work for them, after it had none.
    /// A second call changes nothing.
    pub(super) fn report_to(&mut self, counter: RawFd) -> io::Result<()> {
        if !self.reports {
            self.ring.submitter().register_eventfd(counter)?;
            self.reports = true;
        }
        Ok(())
    }

    /// Ends the reports.
    pub(super) fn end_reports(&mut self) {
        if mem::replace(&mut self.reports, false)
            && let Err(error) = self.ring.submitter().unregister_eventfd()
        {
            error!(%error, "cannot end the reports of the ring");
        }
    }

    /// Returns the result of a receive. `None` is the peer's end.
    pub(super) fn received(&self, done: Done) -> Result<Option<Buffer>, Errno> {
        Ok(if done.count()? > 0 { Some(self.buffer(done)) } else { None })
    }

    /// Returns the buffer of a receive that returned bytes.
    #[inline(always)]
    pub(super) fn buffer(&self, done: Done) -> Buffer {
        let number = cqueue::buffer_select(done.flags).expect("the kernel selects a buffer for received bytes");
        self.buffers.take(number, done.result as u32)
    }

    /// Takes back the chunk of a completed send.
    #[inline(always)]
    pub(super) fn land(&mut self, done: &Done) -> Option<(Id, InFlight)> {
        self.flights.land(done.name as u32)
    }

    /// Receives until the stream ends, fails or the receive is cancelled.
    pub(super) fn receive(&mut self, id: Id, socket: RawFd) {
        self.ask(opcode::RecvMulti::new(Fd(socket), buffers::GROUP).build(), name(Kind::Receive, id));
    }

    /// Accepts all connections, or the next one only.
    pub(super) fn accept(&mut self, id: Id, listener: RawFd, all: bool) {
        let (listener, flags) = (Fd(listener), SocketFlags::CLOEXEC.bits() as i32);
        let request = if all {
            opcode::AcceptMulti::new(listener).flags(flags).build()
        } else {
            opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        self.ask(request, name(Kind::Accept, id));
    }

    /// Polls for readiness: reports it each time that it begins, or once. On a socket whose peer
    /// has ended, a poll without `again` completes at once, for any flags.
    pub(super) fn poll(&mut self, kind: Kind, id: Id, descriptor: RawFd, flags: PollFlags, again: bool) {
        #[cfg(test)]
        let again = again && faults::goes_on();
        let request = opcode::PollAdd::new(Fd(descriptor), flags.bits().into()).multi(again).build();
        self.ask(request, name(kind, id));
    }

    /// Sends a chunk, which comes back with the completion. Returns its number, for
    /// [`recall`](Self::recall).
    #[inline(always)]
    pub(super) fn send(&mut self, id: Id, socket: RawFd, in_flight: InFlight) -> u32 {
        let (address, length) = (in_flight.bytes().as_ptr(), in_flight.bytes().len().min(i32::MAX as usize) as u32);
        #[cfg(test)]
        let length = faults::shorten(faults::SystemCall::RingSend, length as usize) as u32;
        // The bytes are on the heap, so their address stays the same when the chunk moves.
        let flight = self.flights.leave(id, in_flight);
        let flags = SendFlags::NOSIGNAL.bits() as i32;
        let request = opcode::Send::new(Fd(socket), address, length).flags(flags).build();
        self.ask(request, name_of_flight(flight));
        flight
    }

    /// Takes back a chunk in flight, with its completion. Returns `None` if the socket does not
    /// take any more at once.
    pub(super) fn recall(&mut self, flight: u32) -> Option<(Done, InFlight)> {
        self.flush();
        let done = self.find(name_of_flight(flight))?;
        let (_, in_flight) = self.land(&done)?;
        Some((done, in_flight))
    }

    /// Ends accepting. Returns the accepted connections that were not handed over.
    pub(super) fn end_accept(&mut self, id: Id) -> Vec<OwnedFd> {
        self.cancel(Kind::Accept, id);
        self.flush();
        let mut accepted = Vec::new();
        while let Some(done) = self.find(name(Kind::Accept, id)) {
            accepted.extend(done.into_socket());
        }
        accepted
    }

    /// Submits all requests, and lets the kernel do all work that needs no waiting.
    pub(super) fn flush(&mut self) {
        let mut entered = self.enter(Some(Duration::ZERO));
        let mut idle = 0;
        while entered.is_ok() && idle < IDLE && self.held.len() < FLUSHED && self.is_behind() {
            let before = self.completions();
            entered = self.submit();
            idle = if self.completions() > before { 0 } else { idle + 1 };
        }
        if let Err(error) = entered {
            error!(%error, "cannot submit requests to the ring");
        }
    }

    /// Takes the first completion of a request early.
    fn find(&mut self, name: u64) -> Option<Done> {
        self.hold();
        let at = self.held.iter().position(|done| done.name == name)?;
        let done = self.held.remove(at)?;
        Some(self.end(done))
    }

    /// Takes all completions out of the kernel's queue.
    fn hold(&mut self) {
        self.held.extend(self.ring.completion().map(Done::from));
    }

    /// Cancels a request that may still be under way. It completes as cancelled, unless it was done
    /// before.
    pub(super) fn cancel(&mut self, kind: Kind, id: Id) {
        self.tell(opcode::AsyncCancel::new(name(kind, id)).build());
    }

    /// Cancels the send of a chunk.
    pub(super) fn cancel_flight(&mut self, flight: u32) {
        self.tell(opcode::AsyncCancel::new(name_of_flight(flight)).build());
    }

    /// Closes a descriptor, behind all earlier requests on it.
    pub(super) fn close(&mut self, descriptor: OwnedFd) {
        self.tell(opcode::Close::new(Fd(descriptor.into_raw_fd())).build());
    }

    /// Adds a request that has a completion.
    #[inline(always)]
    fn ask(&mut self, request: squeue::Entry, name: u64) {
        self.pending += 1;
        #[cfg(test)]
        let request = self.faults.meet(request, kind_of(name), name);
        self.push(request.user_data(name));
    }

    /// Adds a request that needs no completion.
    fn tell(&mut self, request: squeue::Entry) {
        self.push(request.user_data(Kind::Nothing as u64).flags(Flags::SKIP_SUCCESS));
    }

    #[inline(always)]
    fn push(&mut self, request: squeue::Entry) {
        if self.waiting.is_empty() && self.queue(&request) {
            return;
        }
        self.push_slow(request);
    }

    #[cold]
    #[inline(never)]
    fn push_slow(&mut self, request: squeue::Entry) {
        self.waiting.push_back(request);
        if let Err(error) = self.push_waiting() {
            error!(%error, "cannot submit requests to the ring");
        }
    }

    /// Makes room by submitting requests, as long as that helps.
    fn push_waiting(&mut self) -> io::Result<()> {
        loop {
            let left = self.waiting.len();
            self.submit()?;
            while let Some(request) = self.waiting.pop_front() {
                if !self.queue(&request) {
                    self.waiting.push_front(request);
                    break;
                }
            }
            if self.waiting.is_empty() || self.waiting.len() == left {
                return Ok(());
            }
        }
    }

    /// Adds a request to the kernel's queue. Returns `false` if the queue is full.
    #[inline(always)]
    fn queue(&mut self, request: &squeue::Entry) -> bool {
        // SAFETY: all memory that a request points to belongs to this ring until its completion has
        // come: chunks to `flights`, buffers to `buffers` (rules 1 and 2). Descriptors are open
        // when they are named, and are closed behind that (rule 3).
        unsafe { self.ring.submission().push(request) }.is_ok()
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.ring.completion().is_full() {
            self.hold();
        }
        let submitted = self.ring.submit();
        submitted.map(drop).or_else(forgive)
    }

    /// Takes everything back from the kernel. Returns `false` if the kernel does not give it back.
    fn take_back(&mut self) -> bool {
        self.tell(opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        for _ in 0..LAST_ROUNDS {
            let entered = self.enter(Some(LAST_WAIT));
            self.left = usize::MAX;
            while let Some(done) = self.next() {
                // This closes an accepted socket.
                drop(done.into_socket());
            }
            if self.pending == 0 && self.waiting.is_empty() {
                return true;
            }
            if entered.is_err() {
                return false;
            }
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // In a forked child, the kernel writes to the parent's memory, so there is nothing to take
        // back.
        if self.process == getpid() && !self.take_back() {
            error!(pending = self.pending, "the kernel has not released the memory of the ring, which is leaked");
            mem::forget(Rc::clone(&self.buffers));
            mem::forget(mem::take(&mut self.flights));
        }
    }
}

impl Done {
    #[inline(always)]
    pub(super) fn kind(&self) -> Kind {
        kind_of(self.name)
    }

    /// Returns the id in the request's name. The name of a send has none.
    #[inline(always)]
    pub(super) fn id(&self) -> Id {
        Id { slot: (self.name >> 32) as u32 & (u32::MAX >> 3), generation: self.name as u32 }
    }

    /// Returns `true` if the request has further completions.
    #[inline(always)]
    pub(super) fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Returns the number of bytes of a receive or a send.
    #[inline(always)]
    pub(super) fn count(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw_os_error(-self.result))
    }

    /// Returns the flags of a poll.
    pub(super) fn poll_flags(&self) -> Result<PollFlags, Errno> {
        self.count().map(|bits| PollFlags::from_bits_retain(bits as u16))
    }

    /// Returns the accepted socket.
    pub(super) fn into_socket(self) -> Result<OwnedFd, Errno> {
        if self.kind() != Kind::Accept {
            return Err(Errno::INVAL);
        }
        // SAFETY: the kernel has made this descriptor for us, and reports it in this completion
        // only, which is consumed here.
        self.count().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
    }
}

#[cfg(test)]
impl Done {
    /// Makes the completion of a receive of `count` bytes.
    pub(super) fn bytes(buffer: u16, count: usize) -> Self {
        let is_buffer = 1;
        Self { name: name(Kind::Receive, ID), result: count as i32, flags: u32::from(buffer) << 16 | is_buffer }
    }
}

impl From<cqueue::Entry> for Done {
    #[inline(always)]
    fn from(entry: cqueue::Entry) -> Self {
        Self { name: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}

/// The chunks in flight, by number.
#[derive(Default)]
struct Flights {
    places: Vec<Option<(Id, InFlight)>>,
    free: Vec<u32>,
}

impl Flights {
    #[inline(always)]
    fn leave(&mut self, id: Id, in_flight: InFlight) -> u32 {
        if let Some(number) = self.free.pop() {
            self.places[number as usize] = Some((id, in_flight));
            return number;
        }
        self.places.push(Some((id, in_flight)));
        self.places.len() as u32 - 1
    }

    #[inline(always)]
    fn land(&mut self, number: u32) -> Option<(Id, InFlight)> {
        let landed = self.places.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(landed)
    }
}

/// Ignores errors that only mean that there was no completion, or that the call is to be repeated.
fn forgive(error: io::Error) -> io::Result<()> {
    match Errno::from_io_error(&error) {
        // The timeout has expired; a signal arrived; or the completion queue is full, and is being
        // emptied.
        Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
        _ => Err(error),
    }
}

/// Three bits for the kind, 29 for the slot and 32 for the generation. A process would need 500
/// million descriptors for more slots.
fn name(kind: Kind, id: Id) -> u64 {
    debug_assert!(id.slot >> 29 == 0, "a slot has 29 bits");
    (kind as u64) << 61 | u64::from(id.slot) << 32 | u64::from(id.generation)
}

fn name_of_flight(number: u32) -> u64 {
    name(Kind::Send, Id { slot: 0, generation: number })
}

#[inline(always)]
fn kind_of(name: u64) -> Kind {
    match name >> 61 {
        1 => Kind::Receive,
        2 => Kind::Accept,
        3 => Kind::Poll,
        4 => Kind::Room,
        5 => Kind::Send,
        6 => Kind::Wake,
        7 => Kind::Foreign,
        _ => Kind::Nothing,
    }
}
