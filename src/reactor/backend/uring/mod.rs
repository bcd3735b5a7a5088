//! The backend on io_uring: Linux receives, sends and accepts, and reports the completions. A turn
//! is one system call, for any number of connections.
//!
//! | source | operations |
//! |---|---|
//! | a TCP stream | one multishot receive into buffers of the ring; one send at a time, of a chunk that the ring holds meanwhile |
//! | a port | one multishot accept; one accept at a time if the system has no multishot accept |
//! | a UNIX stream | readiness, because descriptors come with the bytes |
//! | a connection attempt | readiness |
//! | a datagram socket, a pipe | readiness, and plain calls |
//! | the poller of foreign descriptors (`foreign.rs`) | readiness |
//! | a port without descriptors left | readiness, until there are descriptors again |
//!
//! Rules, besides those of the contract and of `ring.rs`:
//! 1. Pausing a stream cancels its receive. Bytes that were received before the cancellation are
//!    handed over, and the stream holds them. After the pause, plain calls empty the socket, 64 KiB
//!    a turn, before the ring receives again: so a stream that pauses again and again holds little.
//! 2. A stream without a receive, because it is paused or the peer has ended, is polled for errors.
//! 3. A receive that ran out of buffers is started anew. From then on there are more buffers, up to
//!    a limit.
//! 4. Bytes beyond a connection's budget of a turn wait in its backlog. While the backlog is long,
//!    nothing is received. Until the cancellation reaches the kernel, it may fill as many buffers
//!    as there are; it serves other connections after 32.
//! 5. Plain calls send several chunks, and the last bytes before a close, as far as the socket
//!    takes them: the end is to follow in the same turn. Large writes onto an empty queue use plain
//!    calls too ([`Backend::send_now`]), and so need no copy.
//! 6. Its sockets are blocking. On a nonblocking socket, a request to the ring fails instead of
//!    waiting. Plain calls never wait.

mod buffers;
mod completions;
#[cfg(test)]
mod faults;
mod flow;
mod pipes;
mod port;
mod ring;
#[cfg(test)]
mod tests;
mod waker;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

pub(super) use self::buffers::Buffer;
use self::flow::Flow;
use self::port::Accepting;
use self::ring::{Done, Kind, Ring};
use self::waker::RingWaker;
use super::adopted::{self, AdoptedOptions, Examined, Role};
use super::batch::DatagramBatch;
use super::datagrams::PolledDatagrams;
use super::foreign::ForeignDescriptors;
use super::pipe::{PipeEnds, PolledPipe};
use super::readiness::{self, PolledSource as Polled, PolledStream};
use super::reported::Readiness;
use super::socket::{self, Send};
use super::table::Table;
use super::udp::{self, DatagramReceive, DatagramsBound, no_such_socket};
use super::{
    Backend, BackendEvent, ConnectRefusal, Inbox, Incoming, IncomingSocket, Interest, ListenRefusal, Monotonic,
    Progress, Wake,
};
use crate::address::Address;
use crate::datagram::{DatagramQueue, DatagramSend, DatagramSocketOptions, Destination};
use crate::error::AdoptError;
use crate::reactor::backend::{DialOptions, PortOptions};
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;
use crate::transport::send_queue::InFlight;

/// The readiness that a UNIX stream is polled for throughout. Room to write is polled for once a
/// send was blocked.
const READABLE: PollFlags = PollFlags::IN.union(PollFlags::PRI).union(PollFlags::RDHUP);

/// The id of the waker's descriptor.
const WAKER: Id = Id { slot: 0, generation: 0 };
/// The id of the poller of foreign descriptors.
const FOREIGN: Id = Id { slot: 0, generation: 0 };

/// The backend on io_uring: see the module.
pub(crate) struct Uring {
    ring: Ring,
    waker: Arc<RingWaker>,
    /// Present from the first watch on.
    foreign: Option<Box<ForeignDescriptors>>,
    table: Table<RingSource>,
    clock: Monotonic,
    /// Readiness that was reported in this turn, and not recorded yet.
    said: VecDeque<(Id, Readiness)>,
    /// The ring polls the poller of foreign descriptors.
    is_foreign_polled: bool,
    /// A spare descriptor, given up when descriptors run out, to shed waiting connections.
    reserve: Option<OwnedFd>,
    /// Number of waits, for the budgets per turn.
    turn: u32,
}

/// A source, as the ring serves it.
enum RingSource {
    /// A TCP stream.
    Stream(Flow),
    Port(Box<Accepting>),
    /// Boxed as well, since there are few.
    Datagrams(Box<PolledDatagrams>),
    /// Any other source.
    Polled(Polled),
}

impl Uring {
    /// Makes a ring.
    ///
    /// # Errors
    /// The system does not let this process use io_uring, or its io_uring lacks a needed feature.
    pub(crate) fn new() -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let waker = Arc::new(RingWaker::new()?);
        ring.poll(Kind::Wake, WAKER, waker.bell().as_raw_fd(), PollFlags::IN, true);
        let (table, clock) = (Table::new(), Monotonic::new());
        Ok(Self {
            ring,
            waker,
            foreign: None,
            table,
            clock,
            said: VecDeque::new(),
            is_foreign_polled: false,
            reserve: None,
            turn: 0,
        })
    }

    /// Returns the foreign descriptors, whose poller is made for the first of them.
    fn foreign(&mut self) -> io::Result<&mut ForeignDescriptors> {
        if self.foreign.is_none() {
            self.foreign = Some(Box::new(ForeignDescriptors::new()?));
        }
        Ok(self.foreign.as_mut().expect("it was just made"))
    }

    fn datagrams(&mut self, id: Id) -> Option<&mut PolledDatagrams> {
        match self.table.get_mut(id)? {
            RingSource::Datagrams(datagrams) => Some(datagrams),
            _ => None,
        }
    }

    /// Closes a datagram socket. Its address is free when this returns, as on mio.
    #[inline(never)]
    fn close_datagrams(&mut self, id: Id, datagrams: PolledDatagrams) {
        self.ring.cancel(Kind::Poll, id);
        if datagrams.is_armed {
            self.ring.cancel(Kind::Room, id);
        }
        self.ring.flush();
        drop(datagrams);
    }

    /// Polls a datagram socket for room to write, when it is full for the first time.
    fn await_room(&mut self, id: Id) {
        if let Some(RingSource::Datagrams(datagrams)) = self.table.get_mut(id)
            && datagrams.is_to_be_armed()
        {
            self.ring.poll(Kind::Room, id, datagrams.socket.as_raw_fd(), PollFlags::OUT, true);
        }
    }

    /// Fast path: returns `true` if a receive returned bytes that fit the budget of this turn, and
    /// goes on.
    #[inline(always)]
    fn takes(&mut self, done: &Done) -> bool {
        let (Ok(count @ 1..), true) = (done.count(), done.goes_on()) else { return false };
        let Some(RingSource::Stream(flow)) = self.table.get_mut(done.id()) else { return false };
        flow.may_take(count, self.turn)
    }

    /// Returns the chunk that was in flight, and its stream. Returns `None` if the stream was
    /// closed meanwhile.
    #[inline(always)]
    fn landed(&mut self, done: &Done) -> Option<(Id, InFlight)> {
        let (id, in_flight) = self.ring.land(done)?;
        let Some(RingSource::Stream(flow)) = self.table.get_mut(id) else { return None };
        flow.flight = None;
        Some((id, in_flight))
    }
}

impl Backend for Uring {
    fn clock(&self) -> Box<dyn Fn() -> Duration> {
        self.clock.boxed()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let made = Self::new()?;
        (self.ring, self.waker) = (made.ring, made.waker);
        let ring = &mut self.ring;
        self.table.each(|id, source| {
            match source {
                RingSource::Port(port) => port.adopt(id, ring),
                RingSource::Polled(Polled::Connecting(attempt)) => {
                    ring.poll(Kind::Poll, id, attempt.socket.as_raw_fd(), PollFlags::OUT, false);
                }
                RingSource::Datagrams(datagrams) => {
                    datagrams.adopt();
                    ring.poll(Kind::Poll, id, datagrams.socket.as_raw_fd(), READABLE, true);
                }
                RingSource::Polled(Polled::Stream(stream)) => {
                    ring.poll(Kind::Poll, id, stream.socket.as_raw_fd(), READABLE, true);
                }
                RingSource::Polled(Polled::Pipe(pipe)) => pipes::poll_ends(ring, id, pipe),
                // No turn has started a receive of these streams.
                RingSource::Stream(_) | RingSource::Polled(_) => {}
            }
            Ok(())
        })?;
        self.is_foreign_polled = false;
        if let Some(foreign) = &mut self.foreign {
            foreign.reopen()?;
        }
        Ok(())
    }

    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal> {
        // Sockets that were closed in this turn may still hold their descriptors.
        let (socket, bound, file) = socket::listen(address, options).or_else(|refusal| match refusal {
            ListenRefusal::NoDescriptors(_) => {
                self.flush();
                socket::listen(address, options)
            }
            refusal => Err(refusal),
        })?;
        socket::keep_reserve(&mut self.reserve)?;
        socket::set_blocking(socket.as_fd(), true)?;
        let mut port = Accepting::new(readiness::Listener::new(socket, &bound, file, options));
        port.arm(id, &mut self.ring);
        self.table.insert(id, RingSource::Port(Box::new(port)));
        Ok(bound)
    }

    fn examine(
        &self,
        descriptor: BorrowedFd<'_>,
        role: Role,
        options: &AdoptedOptions,
    ) -> Result<Examined, AdoptError> {
        let examined = adopted::examine(descriptor, role, options)?;
        if let Examined::Connection(ends) = &examined
            && ends.host().unix().is_none()
        {
            socket::set_blocking(descriptor, true)?;
        }
        Ok(examined)
    }

    fn adopt_stream(&mut self, id: Id, socket: OwnedFd, unix: bool) -> Result<(), (OwnedFd, io::Error)> {
        // A UNIX stream is polled, and read by plain calls.
        if !unix && let Err(error) = socket::set_blocking(socket.as_fd(), true) {
            return Err((socket, error));
        }
        self.insert_stream(id, socket, unix);
        Ok(())
    }

    fn adopt_descriptors(&mut self, id: Id, ends: PipeEnds) -> io::Result<()> {
        self.insert_pipe(id, PolledPipe::new(ends)?);
        Ok(())
    }

    fn lingers(&self, id: Id) -> bool {
        !matches!(self.table.get(id), Some(RingSource::Polled(Polled::Pipe(_))))
    }

    fn adopt_port(
        &mut self,
        id: Id,
        socket: OwnedFd,
        host: &Address,
        options: &PortOptions,
        remove_file: bool,
    ) -> Result<(), (OwnedFd, io::Error)> {
        if let Err(error) = socket::keep_reserve(&mut self.reserve) {
            return Err((socket, error));
        }
        let listener = readiness::Listener::of_adopted(socket, host, options, remove_file);
        let mut port = Accepting::polled(listener);
        port.arm(id, &mut self.ring);
        self.table.insert(id, RingSource::Port(Box::new(port)));
        Ok(())
    }

    fn share(&mut self, id: Id) -> io::Result<()> {
        match self.table.get_mut(id) {
            Some(RingSource::Port(port)) => {
                port.share(id, &mut self.ring)?;
                self.table.requeue_next_turn(id);
            }
            Some(RingSource::Stream(_) | RingSource::Polled(Polled::Stream(_))) => {}
            _ => return Err(io::ErrorKind::NotConnected.into()),
        }
        Ok(())
    }

    fn leave_waiting(&mut self, id: Id) {
        if let Some(RingSource::Port(port)) = self.table.get_mut(id) {
            port.leave_waiting();
        }
    }

    fn leave_file(&mut self, id: Id) -> io::Result<()> {
        match self.table.get_mut(id) {
            Some(RingSource::Port(port)) => port.leave_file(),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn accept(&mut self, id: Id) {
        if let Some(RingSource::Port(port)) = self.table.get_mut(id) {
            port.resume(id, &mut self.ring);
            self.table.requeue_next_turn(id);
        }
    }

    fn pause_accept(&mut self, id: Id) {
        if let Some(RingSource::Port(port)) = self.table.get_mut(id) {
            port.pause(id, &mut self.ring);
        }
    }

    fn stop_listening(&mut self, id: Id) -> Vec<Incoming> {
        match self.table.take(id) {
            RingSource::Port(port) => port.close(id, &mut self.ring),
            _ => Vec::new(),
        }
    }

    fn refuse(&mut self, socket: IncomingSocket) {
        socket::refuse(&socket);
    }

    fn adopt(&mut self, id: Id, socket: IncomingSocket) -> io::Result<()> {
        let IncomingSocket::Descriptor { socket, unix } = socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.insert_stream(id, socket, unix);
        Ok(())
    }

    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal> {
        // Sockets that were closed in this turn may still hold their descriptors.
        let begun = socket::connect(to, options).or_else(|refusal| match refusal {
            ConnectRefusal::NoDescriptors(_) => {
                self.flush();
                socket::connect(to, options)
            }
            refusal => Err(refusal),
        });
        let (socket, done) = begun?;
        if !done {
            self.ring.poll(Kind::Poll, id, socket.as_raw_fd(), PollFlags::OUT, false);
        }
        self.table
            .insert(id, RingSource::Polled(Polled::Connecting(PolledStream::attempt(socket, to.unix().is_some()))));
        if done {
            self.table.requeue_next_turn(id);
        }
        Ok(())
    }

    fn receive(&mut self, id: Id, on: bool) {
        let is_due = match self.table.get_mut(id) {
            Some(RingSource::Stream(flow)) => flow.receive(id, on, &mut self.ring),
            Some(RingSource::Polled(polled)) => polled.set_receiving(on),
            Some(RingSource::Datagrams(datagrams)) => datagrams.set_receiving(on),
            _ => false,
        };
        if is_due {
            self.table.requeue_next_turn(id);
        }
    }

    fn receive_rest(&mut self, id: Id) {
        let is_due = match self.table.get_mut(id) {
            Some(RingSource::Stream(flow)) => {
                flow.receive_rest(id, &mut self.ring);
                true
            }
            Some(RingSource::Polled(polled)) => polled.receive_rest(),
            _ => false,
        };
        if is_due {
            self.table.requeue_next_turn(id);
        }
    }

    fn passes_descriptors(&self, id: Id) -> bool {
        matches!(self.table.get(id), Some(RingSource::Polled(Polled::Stream(_))))
    }

    fn sends_files(&self, id: Id) -> bool {
        matches!(self.table.get(id), Some(RingSource::Stream(_)))
    }

    fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        match self.table.get_mut(id) {
            Some(RingSource::Stream(flow)) => flow.send(id, outgoing, &mut self.ring),
            Some(RingSource::Polled(Polled::Stream(source))) => {
                let progress = source.send(outgoing)?;
                if source.blocked && !mem::replace(&mut source.armed, true) {
                    self.ring.poll(Kind::Room, id, source.socket.as_raw_fd(), PollFlags::OUT, true);
                }
                Ok(progress)
            }
            _ => self.send_to_pipe(id, outgoing),
        }
    }

    fn bind_datagrams(&mut self, id: Id, address: &Address, options: &DatagramSocketOptions) -> DatagramsBound {
        // Sockets that were closed in this turn may still hold their descriptors and addresses.
        let bound = udp::bind(address, options).or_else(|refusal| {
            let is_held = match &refusal {
                ListenRefusal::NoDescriptors(_) => true,
                ListenRefusal::System(error) => error.kind() == io::ErrorKind::AddrInUse,
                ListenRefusal::Locked => false,
            };
            if !is_held {
                return Err(refusal);
            }
            self.flush();
            udp::bind(address, options)
        });
        let (source, host, reach) = PolledDatagrams::new(bound?);
        self.ring.poll(Kind::Poll, id, source.socket.as_raw_fd(), READABLE, true);
        self.table.insert(id, RingSource::Datagrams(Box::new(source)));
        Ok((host, reach))
    }

    fn receive_datagrams(&mut self, id: Id, batch: &mut DatagramBatch) -> DatagramReceive {
        self.datagrams(id).map_or(DatagramReceive::Empty, |datagrams| datagrams.receive(batch))
    }

    fn send_datagram(&mut self, id: Id, data: &[u8], to: Destination<'_>) -> DatagramSend {
        let Some(datagrams) = self.datagrams(id) else { return no_such_socket() };
        let result = datagrams.send(data, to);
        self.await_room(id);
        result
    }

    fn send_datagrams(&mut self, id: Id, queue: &DatagramQueue) -> (usize, DatagramSend) {
        let Some(datagrams) = self.datagrams(id) else { return (0, no_such_socket()) };
        let sent = datagrams.send_queue(queue);
        self.await_room(id);
        sent
    }

    fn recall(&mut self, id: Id) -> Option<(InFlight, io::Result<usize>)> {
        let Some(RingSource::Stream(flow)) = self.table.get_mut(id) else { return None };
        let (done, in_flight) = self.ring.recall(flow.flight?)?;
        flow.flight = None;
        Some((in_flight, sent(&done)))
    }

    fn send_now(&mut self, id: Id, data: &[u8]) -> usize {
        match self.descriptor(id).map(|socket| socket::send_and_wait_for_more(socket, data)) {
            Some(Send::Bytes(count)) => count,
            Some(_) => 0,
            None => self.pipe(id).map_or(0, |pipe| pipe.send_now(data)),
        }
    }

    fn shut_down_writing(&mut self, id: Id) {
        match self.descriptor(id) {
            Some(socket) => socket::shut_down_writing(socket),
            None => self.close_writing_end(id),
        }
    }

    fn end_shared(&mut self, id: Id) {
        // The ring does not know which sockets are shared. A pipe ends with its descriptor.
        self.shut_down_writing(id);
    }

    fn close(&mut self, id: Id, reset: bool) {
        match self.table.take(id) {
            RingSource::Stream(flow) => flow.close(id, reset, &mut self.ring),
            RingSource::Polled(Polled::Connecting(stream)) => {
                self.ring.cancel(Kind::Poll, id);
                self.flush();
                drop(stream);
            }
            RingSource::Polled(Polled::Stream(stream)) => {
                if reset {
                    socket::reset_on_close(stream.socket.as_fd());
                } else {
                    stream.read_last();
                }
                self.ring.cancel(Kind::Poll, id);
                if stream.armed {
                    self.ring.cancel(Kind::Room, id);
                }
                self.ring.close(stream.socket);
            }
            RingSource::Datagrams(datagrams) => self.close_datagrams(id, *datagrams),
            RingSource::Polled(Polled::Pipe(pipe)) => self.close_pipe(id, *pipe),
            RingSource::Polled(Polled::Vacant) => {
                if let Some(foreign) = &mut self.foreign {
                    foreign.unwatch(id);
                }
            }
            RingSource::Port(_) | RingSource::Polled(_) => {}
        }
    }

    fn flush(&mut self) {
        self.ring.flush();
    }

    fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.foreign()?.watch(id, descriptor, interest)
    }

    fn rewatch(&mut self, id: Id, interest: Interest) -> io::Result<()> {
        self.foreign()?.rewatch(id, interest)
    }

    fn wait(&mut self, until: Option<Duration>) -> io::Result<()> {
        if let Some(foreign) = &mut self.foreign {
            foreign.begin_turn();
            // A poll of its own for each wait, because such a poll looks at the level.
            if !std::mem::replace(&mut self.is_foreign_polled, true) {
                self.ring.poll(Kind::Foreign, FOREIGN, foreign.poller().descriptor(), PollFlags::IN, false);
            }
        }
        let is_idle = self.is_idle();
        self.turn = self.turn.wrapping_add(1);
        let until = if is_idle { until } else { Some(Duration::ZERO) };
        self.ring.enter(until.map(|until| self.clock.left(until)))?;
        self.table.begin_turn();
        Ok(())
    }

    #[inline]
    fn is_idle(&mut self) -> bool {
        let has_more = self.foreign.as_ref().is_some_and(|foreign| foreign.has_more());
        !has_more && self.table.is_drained() && self.said.is_empty() && self.ring.completions() == 0
    }

    fn poller(&mut self) -> io::Result<OwnedFd> {
        let reports = self.waker.reports()?;
        self.ring.report_to(reports.as_raw_fd())?;
        reports.try_clone()
    }

    /// The ring reports completions that this thread takes itself, too. So its counter is read
    /// behind the flush. If the counter had anything, and the kernel has work again, that work may
    /// have come between the two: it is done in another round.
    fn prepare_to_wait(&mut self) -> bool {
        loop {
            self.ring.flush();
            let reported = self.waker.take_reports();
            let is_armed = self.foreign.as_ref().is_none_or(|foreign| foreign.is_armed() && self.is_foreign_polled);
            if !is_armed || !self.is_idle() {
                return false;
            }
            if !reported || !self.ring.is_behind() {
                return true;
            }
        }
    }

    fn end_hosting(&mut self) {
        self.ring.end_reports();
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        while let Some(done) = self.ring.next() {
            match done.kind() {
                Kind::Receive if self.takes(&done) => {
                    let id = done.id();
                    inbox.lend(self.ring.buffer(done));
                    return Some((id, BackendEvent::Received));
                }
                Kind::Send => {
                    if let Some((id, in_flight)) = self.landed(&done) {
                        return Some((id, BackendEvent::Returned(in_flight, sent(&done))));
                    }
                }
                _ => {
                    if let Some(event) = self.handle_slow(done, inbox) {
                        return Some(event);
                    }
                }
            }
        }
        inbox.clear();
        if let Some(next) = self.next_polled(inbox) {
            return Some(next);
        }
        let (id, completion) = self.foreign.as_mut()?.next()?;
        Some((id, completion.into()))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>> {
        match self.table.get(id)? {
            RingSource::Stream(flow) => Some(flow.socket.as_fd()),
            RingSource::Polled(Polled::Stream(stream)) => Some(stream.socket.as_fd()),
            RingSource::Datagrams(datagrams) => Some(datagrams.socket.as_fd()),
            RingSource::Port(port) => Some(port.socket()),
            _ => None,
        }
    }

    fn stale(&self) -> u64 {
        self.table.stale() + self.foreign.as_ref().map_or(0, |foreign| foreign.stale())
    }
}

impl RingSource {
    fn note(&mut self, readiness: Readiness) -> bool {
        match self {
            Self::Polled(polled) => return polled.note(readiness),
            Self::Datagrams(datagrams) => datagrams.note(readiness),
            Self::Port(port) if readiness != Readiness::NONE => port.note(),
            Self::Port(_) | Self::Stream(_) => {}
        }
        true
    }
}

impl Default for RingSource {
    fn default() -> Self {
        Self::Polled(Polled::Vacant)
    }
}

/// Returns the result of a send, in the form for the reactor.
#[inline(always)]
fn sent(done: &Done) -> io::Result<usize> {
    match done.count() {
        Ok(count) => Ok(count as usize),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(Errno::NOBUFS) => Err(io::ErrorKind::OutOfMemory.into()),
        Err(error) => Err(error.into()),
    }
}
