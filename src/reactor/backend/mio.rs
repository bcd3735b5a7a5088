//! The backend on [mio](https://docs.rs/mio): epoll (or kqueue) readiness, reported as completions.
//!
//! mio is edge-triggered: it reports once that a source became ready. So each stream records its
//! readiness here, and clears it only when a system call has disproved it:
//! - A receive that returned fewer bytes than it had room for has drained the socket. Its readiness
//!   is cleared without another call, and the next edge is the next event. The exception is an
//!   announced end of the peer: then there may be no other edge, and receiving goes on until the
//!   end is seen.
//! - A stream is registered for reading only. It is registered for writing too when its socket is
//!   full for the first time, and stays so. An edge comes only after a send fell short, so there is
//!   no spurious wakeup.
//! - Pausing a receive takes no system call: the edge is recorded.
//!
//! Sources left over for fairness are queued in the table (`table.rs`), and make the next wait
//! return at once.
//!
//! `epoll_wait` counts in milliseconds, and mio rounds up to them. A timer of 100 us would take ten
//! times as long. So the poller is asked for whole milliseconds, rounded down. Only if no event
//! came, a kernel timer (`fine_timer.rs`) is armed for the rest, in nanoseconds, and the poller
//! waits for that. A loop that is busy, or whose next timer is far off, makes no call but
//! `epoll_wait`. (`epoll_pwait2` and `ppoll` on the poller take nanoseconds too, but Linux lets
//! each be 50 us late, so that one wakeup can serve several timers. It does not do so for a timer
//! descriptor.)

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ::mio::Interest as PollInterest;
use ::mio::Waker;

use super::adopted::{self, AdoptedOptions, Examined, Role};
use super::batch::DatagramBatch;
use super::datagrams::PolledDatagrams;
use super::files;
use super::fine_timer::FineTimer;
use super::foreign::ForeignDescriptors;
use super::pipe::{PipeEnds, PolledPipe};
use super::poller::Poller;
use super::readiness::{Listener, PolledSource, PolledStream};
use super::socket::{self, Receive, Send};
use super::table::Table;
use super::udp::{self, DatagramReceive, DatagramsBound, no_such_socket};
use super::{
    Backend, BackendEvent, ConnectRefusal, Inbox, Incoming, IncomingSocket, Interest, ListenRefusal, Monotonic,
    Progress, Wake,
};
use super::{DialOptions, PortOptions};
use crate::address::Address;
use crate::datagram::{DatagramQueue, DatagramSend, DatagramSocketOptions, Destination};
use crate::error::AdoptError;
use crate::log::error;
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;

/// The readiness that a stream is registered for. An urgent byte is no event of its own: it means
/// that a receive may stop before the socket is drained.
#[cfg(any(target_os = "linux", target_os = "android"))]
const RECEIVING: PollInterest = PollInterest::READABLE.add(PollInterest::PRIORITY);
/// The readiness that a stream is registered for.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const RECEIVING: PollInterest = PollInterest::READABLE;

/// Events taken per wait. 1,024, as libuv and tokio. The next turn takes the rest, and epoll hands
/// events out in rotation.
const EVENTS: usize = 1024;

/// The backend on mio: see the module.
pub(crate) struct Mio {
    poller: Poller,
    waker: Arc<Waker>,
    /// Present from the first watch on.
    foreign: Option<Box<ForeignDescriptors>>,
    table: Table<PolledSource>,
    /// The event of a receive on the fast path that did not return bytes.
    aside: Option<(Id, BackendEvent)>,
    clock: Monotonic,
    /// Present if the poller counts in milliseconds.
    fine: Option<FineTimer>,
    /// A spare descriptor, given up when descriptors run out, to shed waiting connections.
    reserve: Option<OwnedFd>,
    /// Number of waits, for the budgets per turn.
    turn: u32,
}

impl Mio {
    pub(crate) fn new() -> io::Result<Self> {
        let poller = Poller::new(EVENTS)?;
        let waker = poller.make_waker()?;
        let fine = FineTimer::new()?;
        if let Some(fine) = &fine {
            poller.register_timer(fine)?;
        }
        Ok(Self {
            poller,
            waker,
            foreign: None,
            table: Table::new(),
            aside: None,
            clock: Monotonic::new(),
            fine,
            reserve: None,
            turn: 0,
        })
    }

    fn stream(&mut self, id: Id) -> Option<&mut PolledStream> {
        self.table.get_mut(id)?.stream()
    }

    fn datagrams(&mut self, id: Id) -> Option<&mut PolledDatagrams> {
        self.table.get_mut(id)?.datagrams()
    }

    /// Registers a datagram socket for room to write, when it is full for the first time. Returns
    /// `false` if the poller refuses, which takes memory.
    fn await_room(&mut self, id: Id) -> bool {
        let Some(datagrams) = self.table.get_mut(id).and_then(PolledSource::datagrams) else { return true };
        if !datagrams.is_to_be_armed() {
            return true;
        }
        let (socket, both) = (datagrams.socket.as_raw_fd(), PollInterest::READABLE | PollInterest::WRITABLE);
        datagrams.is_armed = self.poller.reregister(id, socket, both).is_ok();
        datagrams.is_armed
    }

    /// Takes a socket with other descriptors out of the poller: closing ours would not. The poller
    /// would report events of the others for ever.
    fn deregister_shared(&self, descriptor: RawFd) {
        if let Err(error) = self.poller.deregister(descriptor) {
            tracing::warn!(%error, "the poller keeps a socket that another descriptor holds open");
        }
    }

    fn pipe(&mut self, id: Id) -> Option<&mut PolledPipe> {
        self.table.get_mut(id)?.pipe()
    }

    #[cold]
    #[inline(never)]
    fn send_to_pipe(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        self.pipe(id).ok_or(io::ErrorKind::NotConnected)?.send(outgoing)
    }

    fn close_writing_end(&mut self, id: Id) {
        let Some(PolledSource::Pipe(pipe)) = self.table.get_mut(id) else { return };
        if let Some((end, _)) = pipe.writing_end() {
            deregister_end(&self.poller, end);
        }
        pipe.close_writing_end();
    }

    /// Takes the ends of a pipe out of the poller.
    #[inline(never)]
    fn deregister_pipe(&self, pipe: &PolledPipe) {
        let writing_end = pipe.writing_end().map(|(end, _)| end);
        [pipe.reading_end(), writing_end].into_iter().flatten().for_each(|end| deregister_end(&self.poller, end));
    }

    /// Returns the foreign descriptors, whose poller is made for the first of them.
    fn foreign(&mut self) -> io::Result<&mut ForeignDescriptors> {
        if self.foreign.is_none() {
            let foreign = ForeignDescriptors::new()?;
            self.poller.register_nested(foreign.poller())?;
            self.foreign = Some(Box::new(foreign));
        }
        Ok(self.foreign.as_mut().expect("it was just made"))
    }

    /// Slow path: returns the next event of a foreign descriptor.
    #[cold]
    fn next_foreign(&mut self) -> Option<(Id, BackendEvent)> {
        let foreign = self.foreign.as_mut()?;
        if self.poller.take_nested() {
            foreign.note_events();
        }
        foreign.next().map(|(id, completion)| (id, completion.into()))
    }

    /// Returns the duration of the first wait: all of it, or the part that the poller can count.
    #[inline]
    fn first_wait(&self, until: Option<Duration>) -> Option<Duration> {
        let wait = self.clock.left(until?);
        Some(if self.fine.is_some() { whole_milliseconds(wait) } else { wait })
    }

    /// Waits for events until the clock reads `until`: see the module. An interrupted wait ends.
    #[inline(always)]
    fn poll(&mut self, until: Option<Duration>) -> io::Result<()> {
        #[cfg(test)]
        socket::faults::call(socket::faults::SystemCall::Wait, || Ok(()))?;
        self.poller.wait(self.first_wait(until))?;
        match until {
            Some(until) if self.poller.is_silent() => self.wait_on(until),
            _ => Ok(()),
        }
    }

    /// Waits for the rest, which the poller could not count.
    #[cold]
    fn wait_on(&mut self, until: Duration) -> io::Result<()> {
        let rest = self.clock.left(until);
        if let Some(fine) = self.fine.as_ref().filter(|_| !rest.is_zero()) {
            fine.arm(rest)?;
            self.poller.wait(Some(rest))?;
        }
        Ok(())
    }

    /// Slow path: handles a receive that did not just drain the socket.
    #[cold]
    fn received_slow(&mut self, id: Id, received: Receive, inbox: &mut Inbox) -> Option<Id> {
        let (event, requeue) = self.table.get_mut(id)?.stream()?.received(received, inbox);
        self.table.requeue(id, requeue);
        if let Some(BackendEvent::Received) = event {
            return Some(id);
        }
        self.aside = event.map(|event| (id, event));
        None
    }
}

fn register_pipe(poller: &Poller, id: Id, pipe: &PolledPipe) -> io::Result<()> {
    if let Some(end) = pipe.reading_end() {
        poller.register(id, end.as_raw_fd(), PollInterest::READABLE)?;
    }
    match pipe.writing_end() {
        Some((end, true)) => poller.register(id, end.as_raw_fd(), PollInterest::WRITABLE),
        Some((bell, false)) => poller.register(id, bell.as_raw_fd(), PollInterest::READABLE),
        None => Ok(()),
    }
}

/// Takes the end of a pipe out of the poller. Another process may have it too, and the poller
/// would report its events for ever.
fn deregister_end(poller: &Poller, end: BorrowedFd<'_>) {
    if let Err(error) = poller.deregister(end.as_raw_fd())
        // The end was not registered: the poller has refused it, or one before it.
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the poller keeps the end of a pipe");
    }
}

/// Returns the part of a wait that `epoll_wait` can count.
fn whole_milliseconds(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_millis() as u64)
}

impl Backend for Mio {
    fn clock(&self) -> Box<dyn Fn() -> Duration> {
        self.clock.boxed()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let made = Self::new()?;
        (self.poller, self.waker, self.fine) = (made.poller, made.waker, made.fine);
        let poller = &self.poller;
        if let Some(foreign) = &mut self.foreign {
            foreign.reopen()?;
            poller.register_nested(foreign.poller())?;
        }
        self.table.each(|id, source| {
            let (descriptor, interest) = match source {
                PolledSource::Listener(listener) => {
                    listener.adopt();
                    (listener.socket.as_raw_fd(), PollInterest::READABLE)
                }
                PolledSource::Connecting(stream) => {
                    (stream.socket.as_raw_fd(), PollInterest::READABLE | PollInterest::WRITABLE)
                }
                PolledSource::Datagrams(datagrams) => {
                    datagrams.adopt();
                    (datagrams.socket.as_raw_fd(), PollInterest::READABLE)
                }
                PolledSource::Stream(stream) => {
                    stream.armed = false;
                    (stream.socket.as_raw_fd(), RECEIVING)
                }
                PolledSource::Pipe(pipe) => return register_pipe(poller, id, pipe),
                PolledSource::Vacant => return Ok(()),
            };
            poller.register(id, descriptor, interest)
        })
    }

    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal> {
        let (socket, bound, file) = socket::listen(address, options)?;
        socket::keep_reserve(&mut self.reserve)?;
        self.poller.register(id, socket.as_raw_fd(), PollInterest::READABLE)?;
        self.table.insert(id, PolledSource::Listener(Box::new(Listener::new(socket, &bound, file, options))));
        Ok(bound)
    }

    fn examine(
        &self,
        descriptor: BorrowedFd<'_>,
        role: Role,
        options: &AdoptedOptions,
    ) -> Result<Examined, AdoptError> {
        adopted::examine(descriptor, role, options)
    }

    fn adopt_stream(&mut self, id: Id, socket: OwnedFd, unix: bool) -> Result<(), (OwnedFd, io::Error)> {
        if let Err(error) = self.poller.register(id, socket.as_raw_fd(), RECEIVING) {
            return Err((socket, error));
        }
        let mut stream = PolledStream::new(socket, unix);
        stream.shared = true;
        self.table.insert(id, PolledSource::Stream(stream));
        Ok(())
    }

    fn adopt_descriptors(&mut self, id: Id, ends: PipeEnds) -> io::Result<()> {
        let pipe = Box::new(PolledPipe::new(ends)?);
        if let Err(error) = register_pipe(&self.poller, id, &pipe) {
            self.deregister_pipe(&pipe);
            return Err(error);
        }
        self.table.insert(id, PolledSource::Pipe(pipe));
        Ok(())
    }

    fn lingers(&self, id: Id) -> bool {
        !matches!(self.table.get(id), Some(PolledSource::Pipe(_)))
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
        if let Err(error) = self.poller.register(id, socket.as_raw_fd(), PollInterest::READABLE) {
            return Err((socket, error));
        }
        let listener = Listener::of_adopted(socket, host, options, remove_file);
        self.table.insert(id, PolledSource::Listener(Box::new(listener)));
        Ok(())
    }

    fn share(&mut self, id: Id) -> io::Result<()> {
        match self.table.get_mut(id) {
            Some(PolledSource::Listener(listener)) => listener.shared = true,
            Some(PolledSource::Stream(stream)) => stream.shared = true,
            _ => return Err(io::ErrorKind::NotConnected.into()),
        }
        Ok(())
    }

    fn leave_waiting(&mut self, id: Id) {
        if let Some(PolledSource::Listener(listener)) = self.table.get_mut(id) {
            listener.leave_waiting();
        }
    }

    fn leave_file(&mut self, id: Id) -> io::Result<()> {
        match self.table.get_mut(id) {
            Some(PolledSource::Listener(listener)) => listener.leave_file(),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn accept(&mut self, id: Id) {
        if let Some(PolledSource::Listener(listener)) = self.table.get_mut(id) {
            listener.resume();
            self.table.requeue_next_turn(id);
        }
    }

    fn pause_accept(&mut self, id: Id) {
        if let Some(PolledSource::Listener(listener)) = self.table.get_mut(id) {
            listener.accepting = false;
        }
    }

    fn stop_listening(&mut self, id: Id) -> Vec<Incoming> {
        match self.table.take(id) {
            PolledSource::Listener(mut listener) => {
                if listener.shared {
                    self.deregister_shared(listener.socket.as_raw_fd());
                }
                listener.waiting_connections()
            }
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
        self.poller.register(id, socket.as_raw_fd(), RECEIVING)?;
        self.table.insert(id, PolledSource::Stream(PolledStream::new(socket, unix)));
        Ok(())
    }

    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal> {
        let (socket, done) = socket::connect(to, options)?;
        let both = RECEIVING | PollInterest::WRITABLE;
        self.poller.register(id, socket.as_raw_fd(), both).map_err(ConnectRefusal::Socket)?;
        self.table.insert(id, PolledSource::Connecting(PolledStream::attempt(socket, to.unix().is_some())));
        if done {
            self.table.requeue_next_turn(id);
        }
        Ok(())
    }

    fn receive(&mut self, id: Id, on: bool) {
        if self.table.get_mut(id).is_some_and(|source| source.set_receiving(on)) {
            self.table.requeue_next_turn(id);
        }
    }

    fn bind_datagrams(&mut self, id: Id, address: &Address, options: &DatagramSocketOptions) -> DatagramsBound {
        let (source, host, reach) = PolledDatagrams::new(udp::bind(address, options)?);
        self.poller.register(id, source.socket.as_raw_fd(), PollInterest::READABLE)?;
        self.table.insert(id, PolledSource::Datagrams(Box::new(source)));
        Ok((host, reach))
    }

    fn receive_datagrams(&mut self, id: Id, batch: &mut DatagramBatch) -> DatagramReceive {
        self.datagrams(id).map_or(DatagramReceive::Empty, |datagrams| datagrams.receive(batch))
    }

    fn send_datagram(&mut self, id: Id, data: &[u8], to: Destination<'_>) -> DatagramSend {
        let Some(datagrams) = self.datagrams(id) else { return no_such_socket() };
        let result = datagrams.send(data, to);
        if self.await_room(id) { result } else { DatagramSend::Starved }
    }

    fn send_datagrams(&mut self, id: Id, queue: &DatagramQueue) -> (usize, DatagramSend) {
        let Some(datagrams) = self.datagrams(id) else { return (0, no_such_socket()) };
        let (taken, result) = datagrams.send_queue(queue);
        (taken, if self.await_room(id) { result } else { DatagramSend::Starved })
    }

    fn receive_rest(&mut self, id: Id) {
        if self.table.get_mut(id).is_some_and(PolledSource::receive_rest) {
            self.table.requeue_next_turn(id);
        }
    }

    fn passes_descriptors(&self, id: Id) -> bool {
        matches!(self.table.get(id), Some(PolledSource::Stream(stream)) if stream.unix)
    }

    fn sends_files(&self, id: Id) -> bool {
        files::IS_SUPPORTED && matches!(self.table.get(id), Some(PolledSource::Stream(stream)) if !stream.unix)
    }

    #[inline(always)]
    fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        let Some(PolledSource::Stream(stream)) = self.table.get_mut(id) else {
            return self.send_to_pipe(id, outgoing);
        };
        let progress = stream.send(outgoing)?;
        if stream.blocked && !mem::replace(&mut stream.armed, true) {
            self.poller.reregister(id, stream.socket.as_raw_fd(), RECEIVING | PollInterest::WRITABLE)?;
        }
        Ok(progress)
    }

    fn send_now(&mut self, id: Id, data: &[u8]) -> usize {
        let Some(stream) = self.stream(id) else { return self.pipe(id).map_or(0, |pipe| pipe.send_now(data)) };
        match socket::send_and_wait_for_more(stream.socket.as_fd(), data) {
            Send::Bytes(count) => count,
            Send::Full | Send::Starved | Send::Failed(_) => 0,
        }
    }

    fn shut_down_writing(&mut self, id: Id) {
        match self.stream(id) {
            Some(stream) => socket::shut_down_writing(stream.socket.as_fd()),
            None => self.close_writing_end(id),
        }
    }

    fn end_shared(&mut self, id: Id) {
        if self.stream(id).is_some_and(|stream| stream.shared) {
            self.shut_down_writing(id);
        }
    }

    fn close(&mut self, id: Id, reset: bool) {
        match self.table.take(id) {
            PolledSource::Stream(stream) => {
                // Closing takes a descriptor out of the poller, unless there are others.
                if stream.shared {
                    self.deregister_shared(stream.socket.as_raw_fd());
                }
                if reset {
                    socket::reset_on_close(stream.socket.as_fd());
                } else {
                    stream.read_last();
                }
            }
            PolledSource::Pipe(pipe) => self.deregister_pipe(&pipe),
            PolledSource::Listener(_) | PolledSource::Connecting(_) | PolledSource::Datagrams(_) => {}
            PolledSource::Vacant => {
                if let Some(foreign) = &mut self.foreign {
                    foreign.unwatch(id);
                }
            }
        }
    }

    fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.foreign()?.watch(id, descriptor, interest)
    }

    fn rewatch(&mut self, id: Id, interest: Interest) -> io::Result<()> {
        self.foreign()?.rewatch(id, interest)
    }

    #[inline(always)]
    fn wait(&mut self, until: Option<Duration>) -> io::Result<()> {
        self.turn = self.turn.wrapping_add(1);
        if self.poller.peek().is_some() || self.aside.is_some() {
            // A panic has ended the last turn in the middle. The poller reports each edge only
            // once.
            self.table.begin_turn();
            return Ok(());
        }
        let mut is_idle = self.table.is_drained();
        if let Some(foreign) = &mut self.foreign {
            foreign.begin_turn();
            is_idle &= !foreign.has_more();
        }
        let until = if is_idle { until } else { Some(Duration::ZERO) };
        match self.poll(until) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => self.table.begin_turn(),
        }
        Ok(())
    }

    fn is_idle(&mut self) -> bool {
        let has_more = self.foreign.as_ref().is_some_and(|foreign| foreign.has_more());
        !has_more && self.table.is_drained() && self.aside.is_none() && self.poller.peek().is_none()
    }

    fn poller(&mut self) -> io::Result<OwnedFd> {
        self.poller.duplicate()
    }

    fn prepare_to_wait(&mut self) -> bool {
        let is_armed = self.foreign.as_ref().is_none_or(|foreign| foreign.is_armed());
        is_armed && self.is_idle() && !self.poller.is_full()
    }

    #[inline(always)]
    fn next_received(&mut self, inbox: &mut Inbox) -> Option<Id> {
        if self.table.has_current() {
            return None;
        }
        let (id, readiness) = self.poller.peek()?;
        let Some(PolledSource::Stream(stream)) = self.table.get_unless_queued(id) else { return None };
        if !stream.may_just_receive(readiness) {
            return None;
        }
        self.poller.skip();
        match stream.receive_bytes(inbox) {
            Receive::Bytes(filled) => {
                inbox.fill(filled);
                Some(id)
            }
            received => self.received_slow(id, received, inbox),
        }
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        if let Some(next) = self.aside.take() {
            return Some(next);
        }
        loop {
            let told = if self.table.has_current() { None } else { self.poller.next() };
            let id = match told {
                Some((id, readiness)) => self.table.note(id, |source| source.note(readiness)),
                None => match self.table.next_queued() {
                    Some(id) => Some(id),
                    None => return self.next_foreign(),
                },
            };
            let Some(id) = id else { continue };
            let Some(source) = self.table.get_mut(id) else { continue };
            let (event, requeue) = source.next(self.turn, inbox, &mut self.reserve);
            self.table.requeue(id, requeue);
            if let Some(event) = event {
                return Some((id, event));
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>> {
        match self.table.get(id)? {
            PolledSource::Stream(stream) => Some(stream.socket.as_fd()),
            PolledSource::Listener(listener) => Some(listener.socket.as_fd()),
            PolledSource::Datagrams(datagrams) => Some(datagrams.socket.as_fd()),
            _ => None,
        }
    }

    fn stale(&self) -> u64 {
        self.table.stale() + self.foreign.as_ref().map_or(0, |foreign| foreign.stale())
    }
}

impl Wake for Waker {
    fn wake(&self) {
        // The only possible failure is a full counter, which wakes the reactor as well.
        if let Err(error) = Self::wake(self) {
            error!(%error, "cannot wake the reactor");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::backend::LONGEST_WAIT;

    /// The poller is never asked for more than the wait, and the remainder is less than a
    /// millisecond.
    #[test]
    fn the_poller_is_asked_for_whole_milliseconds() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, 300_000, 5_999_999, 86_400_000_000_001] {
            let wait = Duration::from_nanos(nanos);
            let rest = wait - whole_milliseconds(wait);
            assert!(rest < Duration::from_millis(1), "{wait:?}");
            assert!(whole_milliseconds(wait).subsec_nanos().is_multiple_of(1_000_000) || rest.is_zero(), "{wait:?}");
        }
        assert_eq!(whole_milliseconds(LONGEST_WAIT), LONGEST_WAIT);
    }
}
