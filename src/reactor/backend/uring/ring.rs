//! [`Ring`]: the queues that are shared with the kernel, and all memory that it may read or write meanwhile.
//!
//! Requests go out with the next [`enter`](Ring::enter), in order. Each completion is read once, as a [`Done`], where the kernel has
//! written it. Rules:
//! 1. What the kernel may touch, a chunk that is being sent or a buffer for what comes, belongs to the ring until the kernel has
//!    said that it has done with it, whatever has become of the connection.
//! 2. The ring goes before that memory does: dropping it takes everything back first, and what cannot be had back is leaked.
//! 3. A descriptor is closed by the kernel, behind all that was asked of it before: nothing that is on its way can meet another
//!    that has got its number.
#![allow(unsafe_code)]

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

/// Requests that go out together. 1,024: what 1,000 connections ask for in a turn; more go out in several parts.
const REQUESTS: u32 = 1024;

/// Room for what the kernel has done. 8,192: it sizes its own table of what waits by this, and what finds no room it keeps.
const COMPLETIONS: u32 = 8192;

/// How many completions a turn takes. 1,024, as with epoll; the next turn takes the rest.
const EVENTS: usize = 1024;

/// How many completions are held, at most. 100,000: more than there are connections, usually, and no more than a few megabytes; a
/// flood must not keep us.
const FLUSHED: usize = 100_000;

/// How often in a row nothing may come of having it go on before it is believed that there is nothing. 16: what is done without being
/// told is little; and the kernel may say for ever that there is something, for it says so behind its back: a thread that adds something
/// and one that has just done it meet.
const IDLE: usize = 16;

/// How often, and how long each time, a ring that is dropped waits for the kernel to let go of its memory. 100 times 10 ms: it
/// takes one round unless something is badly wrong.
const LAST_ROUNDS: usize = 100;
const LAST_WAIT: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Ring {
    // Dropped in this order: rule 2.
    ring: IoUring,
    pub(super) buffers: Rc<Buffers>,
    flights: Flights,
    /// Completions that were taken out of the kernel's queue ahead of their turn: to make room there, or to search them.
    held: VecDeque<Done>,
    /// How many more completions this turn may take.
    left: usize,
    /// What the kernel had no room for.
    waiting: VecDeque<squeue::Entry>,
    /// How many requests will still be answered.
    pending: usize,
    /// The queues are shared with forked children: only this process may use them.
    process: Pid,
    #[cfg(test)]
    faults: Faults,
}

/// A completion. What it brings is taken by one of [`Ring::received`], [`Ring::land`] and [`into_socket`](Self::into_socket).
pub(super) struct Done {
    name: u64,
    result: i32,
    flags: u32,
}

/// What a request was about, as it is written in its name: the rest of that is an [`Id`], or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    /// What needs no answer.
    Nothing,
    Receive,
    Accept,
    Poll,
    Room,
    Send,
    Wake,
}

impl Ring {
    /// A ring of the kind that the backend needs: one that only this thread uses, and that works only when asked.
    ///
    /// # Errors
    /// What the system says: Linux before 6.1 knows no such rings, and many places forbid all of them. `Unsupported`: the kernel
    /// lacks something else.
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
            process: getpid(),
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    /// Hands on what was asked for, and waits for something to be done, at most `timeout` (`None`: without limit).
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

    /// How many completions were not read yet.
    pub(super) fn completions(&mut self) -> usize {
        self.held.len() + self.ring.completion().len()
    }

    /// The next completion of this turn.
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

    /// The kernel does a bounded part of what there is to be done at a time: has it go on, while the turn lasts. So few buffers are
    /// in use at a time, which then are in the processor's cache.
    #[inline(never)]
    fn go_on(&mut self) -> bool {
        if !self.is_behind() {
            return false;
        }
        if let Err(error) = self.submit() {
            error!(%error, "the ring does not take requests");
        }
        self.completions() > 0
    }

    /// Whether the kernel has completions, or work for them, that it comes to when it is entered.
    fn is_behind(&mut self) -> bool {
        let requests = self.ring.submission();
        requests.taskrun() || requests.cq_overflow()
    }

    /// What a receive has come to. No bytes are the peer's end.
    pub(super) fn received(&self, done: Done) -> Result<Option<Buffer>, Errno> {
        Ok(if done.count()? > 0 { Some(self.buffer(done)) } else { None })
    }

    /// The buffer of a receive that has brought bytes.
    #[inline(always)]
    pub(super) fn buffer(&self, done: Done) -> Buffer {
        let number = cqueue::buffer_select(done.flags).expect("bytes come in a buffer that the kernel has selected");
        self.buffers.take(number, done.result as u32)
    }

    /// The chunk of which a completion says how much was sent.
    #[inline(always)]
    pub(super) fn land(&mut self, done: &Done) -> Option<(Id, InFlight)> {
        self.flights.land(done.name as u32)
    }

    /// Receives whatever comes, until it ends, fails or is cancelled.
    pub(super) fn receive(&mut self, id: Id, socket: RawFd) {
        self.ask(opcode::RecvMulti::new(Fd(socket), buffers::GROUP).build(), name(Kind::Receive, id));
    }

    /// Accepts whoever comes, or the next only.
    pub(super) fn accept(&mut self, id: Id, listener: RawFd, all: bool) {
        let (listener, flags) = (Fd(listener), SocketFlags::CLOEXEC.bits() as i32);
        let request = if all {
            opcode::AcceptMulti::new(listener).flags(flags).build()
        } else {
            opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        self.ask(request, name(Kind::Accept, id));
    }

    /// Tells of readiness: each time that it begins, or once. What has begun to be asked once is answered at once on a socket whose
    /// peer has ended, whatever was asked for.
    pub(super) fn poll(&mut self, kind: Kind, id: Id, descriptor: RawFd, flags: PollFlags, again: bool) {
        #[cfg(test)]
        let again = again && faults::goes_on();
        let request = opcode::PollAdd::new(Fd(descriptor), flags.bits().into()).multi(again).build();
        self.ask(request, name(kind, id));
    }

    /// Sends a chunk, which comes back with the event. Its number is for [`recall`](Self::recall).
    #[inline(always)]
    pub(super) fn send(&mut self, id: Id, socket: RawFd, in_flight: InFlight) -> u32 {
        let (address, length) = (in_flight.bytes().as_ptr(), in_flight.bytes().len().min(i32::MAX as usize) as u32);
        #[cfg(test)]
        let length = faults::shorten(faults::SystemCall::RingSend, length as usize) as u32;
        // Where the bytes are does not change as the chunk moves: they are on the heap.
        let flight = self.flights.leave(id, in_flight);
        let flags = SendFlags::NOSIGNAL.bits() as i32;
        let request = opcode::Send::new(Fd(socket), address, length).flags(flags).build();
        self.ask(request, name_of_flight(flight));
        flight
    }

    /// A chunk that was being sent, with what was sent of it, unless the socket takes nothing more of it at once.
    pub(super) fn recall(&mut self, flight: u32) -> Option<(Done, InFlight)> {
        self.flush();
        let done = self.find(name_of_flight(flight))?;
        let (_, in_flight) = self.land(&done)?;
        Some((done, in_flight))
    }

    /// Ends accepting, and gives the connections that were accepted and not handed on.
    pub(super) fn end_accept(&mut self, id: Id) -> Vec<OwnedFd> {
        self.cancel(Kind::Accept, id);
        self.flush();
        let mut accepted = Vec::new();
        while let Some(done) = self.find(name(Kind::Accept, id)) {
            accepted.extend(done.into_socket());
        }
        accepted
    }

    /// Hands on what was asked for, and has all of it done that can be done without waiting.
    pub(super) fn flush(&mut self) {
        let mut entered = self.enter(Some(Duration::ZERO));
        let mut idle = 0;
        while entered.is_ok() && idle < IDLE && self.held.len() < FLUSHED && self.is_behind() {
            let before = self.completions();
            entered = self.submit();
            idle = if self.completions() > before { 0 } else { idle + 1 };
        }
        if let Err(error) = entered {
            error!(%error, "the ring does not take requests");
        }
    }

    /// The first completion of a request, ahead of its turn.
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

    /// Ends a request that may still be under way; it is answered as cancelled, if it was not done before.
    pub(super) fn cancel(&mut self, kind: Kind, id: Id) {
        self.tell(opcode::AsyncCancel::new(name(kind, id)).build());
    }

    /// The same of a chunk that is being sent.
    pub(super) fn cancel_flight(&mut self, flight: u32) {
        self.tell(opcode::AsyncCancel::new(name_of_flight(flight)).build());
    }

    /// Closes a descriptor, behind everything that was asked of it.
    pub(super) fn close(&mut self, descriptor: OwnedFd) {
        self.tell(opcode::Close::new(Fd(descriptor.into_raw_fd())).build());
    }

    /// Asks for something that will be answered.
    #[inline(always)]
    fn ask(&mut self, request: squeue::Entry, name: u64) {
        self.pending += 1;
        #[cfg(test)]
        let request = self.faults.meet(request, kind_of(name), name);
        self.push(request.user_data(name));
    }

    /// Asks for something that needs no answer.
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
            error!(%error, "the ring does not take requests");
        }
    }

    /// Makes room by handing on what there is, as long as that helps.
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

    /// `false`: the kernel's queue is full.
    #[inline(always)]
    fn queue(&mut self, request: &squeue::Entry) -> bool {
        // SAFETY: all that a request points to belongs to this ring: chunks to `flights`, buffers to `buffers`, until its event
        // has come (rules 1 and 2). Descriptors are open when they are named, and closed behind that (rule 3).
        unsafe { self.ring.submission().push(request) }.is_ok()
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.ring.completion().is_full() {
            self.hold();
        }
        let submitted = self.ring.submit();
        submitted.map(drop).or_else(forgive)
    }

    /// Takes everything back from the kernel. `false`: it does not give it.
    fn take_back(&mut self) -> bool {
        self.tell(opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        for _ in 0..LAST_ROUNDS {
            let entered = self.enter(Some(LAST_WAIT));
            self.left = usize::MAX;
            while let Some(done) = self.next() {
                // Closes it, if it is one that was accepted.
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
        // What the kernel writes goes to the parent's memory.
        if self.process == getpid() && !self.take_back() {
            error!(pending = self.pending, "the kernel has not let go of the ring's memory, which is leaked");
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

    /// The id in the request's name, which a send's does not have.
    #[inline(always)]
    pub(super) fn id(&self) -> Id {
        Id { slot: (self.name >> 32) as u32 & (u32::MAX >> 3), generation: self.name as u32 }
    }

    /// Whether the request has further completions.
    #[inline(always)]
    pub(super) fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The number of bytes of a receive or a send.
    #[inline(always)]
    pub(super) fn count(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw_os_error(-self.result))
    }

    /// The flags of a poll.
    pub(super) fn poll_flags(&self) -> Result<PollFlags, Errno> {
        self.count().map(|bits| PollFlags::from_bits_retain(bits as u16))
    }

    /// The socket that was accepted.
    pub(super) fn into_socket(self) -> Result<OwnedFd, Errno> {
        if self.kind() != Kind::Accept {
            return Err(Errno::INVAL);
        }
        // SAFETY: the kernel has made this descriptor for us, and says so once: in this completion, which is gone with this.
        self.count().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
    }
}

#[cfg(test)]
impl Done {
    /// That of a receive that has brought so many bytes.
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

/// The chunks that are being sent, by number.
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

/// What only means that there was nothing, or that it is to be tried again.
fn forgive(error: io::Error) -> io::Result<()> {
    match Errno::from_io_error(&error) {
        // The time is up; a signal came; there is more done than there is room for, which is being taken away.
        Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
        _ => Err(error),
    }
}

/// Three bits for the kind, 29 for the slot and 32 for the generation. A process would need 500 million descriptors for more slots.
fn name(kind: Kind, id: Id) -> u64 {
    debug_assert!(id.slot >> 29 == 0, "there are fewer slots than that");
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
        _ => Kind::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::reactor::backend::tests::{ID, LIMIT, tcp_pair};

    /// Completions that were handed on leave the list, and requests beyond the kernel's queue are handed on at once.
    #[test]
    fn nothing_piles_up() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let (socket, _peer) = tcp_pair();
        let asked = 2 * REQUESTS as usize + 7;
        for _ in 0..asked {
            ring.poll(Kind::Poll, ID, socket.as_raw_fd(), PollFlags::OUT, false);
            assert!(ring.waiting.is_empty(), "a request waits although the kernel takes it");
        }
        let mut came = 0;
        for _ in 0..1000 {
            ring.enter(Some(if came < asked { LIMIT } else { Duration::ZERO })).expect("the ring turns");
            while let Some(done) = ring.next() {
                assert!(done.kind() == Kind::Poll && done.id() == ID && done.poll_flags().is_ok() && !done.goes_on());
                came += 1;
            }
            if came == asked {
                break;
            }
        }
        assert_eq!((came, ring.pending), (asked, 0));
        ring.enter(Some(Duration::ZERO)).expect("the ring turns");
        assert!(ring.next().is_none() && ring.completions() == 0, "{} completions are kept", ring.completions());
    }

    /// A ring with so many polls under way.
    fn polling(socket: &OwnedFd, count: usize) -> Option<Ring> {
        let mut ring = Ring::new().ok()?;
        for _ in 0..count {
            ring.poll(Kind::Poll, ID, socket.as_raw_fd(), PollFlags::IN, false);
        }
        ring.flush();
        assert_eq!((ring.completions(), ring.pending), (0, count));
        Some(ring)
    }

    /// A flush has everything done that can be done, however much that is; a turn takes its share of it.
    #[test]
    fn a_flush_takes_everything_and_a_turn_its_share() {
        use std::io::Write;
        const COUNT: usize = 2 * EVENTS;
        for flush in [true, false] {
            let (socket, mut peer) = tcp_pair();
            let Some(mut ring) = polling(&socket, COUNT) else { return println!("skipped: no io_uring here") };
            peer.write_all(b"wake up").expect("we are there");
            if flush {
                ring.flush();
                assert_eq!(ring.completions(), COUNT);
                continue;
            }
            ring.enter(Some(Duration::ZERO)).expect("the ring turns");
            let came = std::iter::from_fn(|| ring.next()).count();
            assert_eq!(came, EVENTS, "in a turn");
            ring.enter(Some(Duration::ZERO)).expect("the ring turns");
            assert_eq!(std::iter::from_fn(|| ring.next()).count(), COUNT - EVENTS, "in the next");
        }
    }

    /// A ring that is dropped waits until the kernel has let go of everything.
    #[test]
    fn everything_is_taken_back() {
        let (socket, _peer) = tcp_pair();
        let Some(mut ring) = polling(&socket, 3 * EVENTS) else { return println!("skipped: no io_uring here") };
        assert!(ring.take_back());
        assert_eq!(ring.pending, 0);
    }

    /// Chunks that have come back leave their numbers to the next ones.
    #[test]
    fn numbers_of_chunks_are_used_again() {
        use crate::transport::send_queue::BufferPool;
        let mut flights = Flights::default();
        let pool = BufferPool::default();
        for _ in 0..100 {
            let mut stream = crate::transport::stream::Stream::new();
            stream.push(b"a chunk", &pool);
            let in_flight = stream.queue.lend().expect("a chunk");
            let number = flights.leave(ID, in_flight);
            assert!(flights.land(number).is_some_and(|(id, _)| id == ID) && flights.land(number).is_none());
        }
        assert_eq!(flights.places.len(), 1);
    }

    /// Errors that only mean that there was nothing are forgiven. Others end the run.
    #[test]
    fn errors_of_the_ring_are_told() {
        for error in [Errno::TIME, Errno::INTR, Errno::BUSY, Errno::AGAIN] {
            assert!(forgive(error.into()).is_ok(), "{error}");
        }
        for error in [Errno::BADF, Errno::NOMEM, Errno::PERM] {
            assert!(forgive(error.into()).is_err(), "{error}");
        }
    }
}
