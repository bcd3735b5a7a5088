//! Readiness, reported as completions. Listeners, streams and datagram sockets record the readiness
//! that a poller reports once, and turn it into events when they are visited. Made for
//! edge-triggered pollers; it depends on none of them.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::datagrams::PolledDatagrams;
use super::files;
use super::pipe::PolledPipe;
use super::reported::Readiness;
use super::socket::{self, Accept, Receive, Send};
use super::socket_file::SocketFile;
use super::system;
use super::table::Requeue;
use super::{BackendEvent, Completion, Inbox, Incoming, IncomingSocket, Progress, RECEIVE};
use super::{ConnectionOptions, PortOptions};
use crate::address::{Address, AddressPair, UnixAddress};
use crate::transport::outgoing::Outgoing;
use crate::transport::send_queue::CHUNK;

/// Connections accepted per port and turn. 64: a burst of 64 takes under a millisecond, so other
/// connections barely notice.
const ACCEPTS: usize = 64;

/// Connections shed per turn when descriptors ran out. They are closed without further work.
const SHED: usize = 1024;

/// Bytes sent per connection and turn, before the other sources are visited. 1 MiB: more than a
/// socket buffer usually has room for.
const SEND: usize = 16 * CHUNK;

/// Bytes read before a close, so that closing does not become a reset.
const LAST_READ: usize = 4 * RECEIVE;

/// A source that is watched for readiness.
#[derive(Default)]
pub(super) enum PolledSource {
    #[default]
    Vacant,
    /// Boxed, because a port needs more room than a stream, and there are more streams than ports.
    Listener(Box<Listener>),
    /// A connection attempt. It already records the readiness of the stream that it may become.
    Connecting(PolledStream),
    Stream(PolledStream),
    /// Boxed as well, since there are few.
    Datagrams(Box<PolledDatagrams>),
    /// Boxed as well.
    Pipe(Box<PolledPipe>),
}

pub(super) struct Listener {
    /// Removed before the socket is closed, so that no peer finds a file without a listener.
    file: Option<SocketFile>,
    pub(super) socket: OwnedFd,
    /// The local address of every connection, unless the port listens on all addresses.
    host: Option<Address>,
    /// Options that accepted connections do not inherit from the listener.
    given: Option<ConnectionOptions>,
    /// The socket has other descriptors, perhaps in other processes.
    pub(super) shared: bool,
    /// The waiting connections are left to the other descriptors when this one is closed.
    leaves_waiting: bool,
    /// Connections may be waiting.
    pub(super) waiting: bool,
    /// Accepting is not suspended.
    pub(super) accepting: bool,
    /// There was no descriptor for the last accept.
    pub(super) short: bool,
    /// The progress towards shedding the waiting connections.
    shortage: Shortage,
    /// Connections accepted in `turn`.
    accepted: usize,
    /// The turn that `accepted` counts for.
    turn: u32,
}

/// The steps taken about a connection for which there is no descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    None,
    Asked,
    /// Waits for a turn other than this one.
    Waits(u32),
    AskedAgain,
}

pub(super) struct PolledStream {
    pub(super) socket: OwnedFd,
    /// Reported readiness that no system call has disproved yet.
    readiness: Readiness,
    pub(super) receiving: bool,
    /// Receives the bytes that arrived before a fatal error. The stream ends behind them.
    rest: bool,
    /// The peer's end was read.
    ended: bool,
    /// A send waits for room.
    pub(super) blocked: bool,
    /// The poller is registered for room to write.
    pub(super) armed: bool,
    /// The socket has other descriptors, so that closing this one does not take it out of the
    /// poller.
    pub(super) shared: bool,
    /// Received bytes may carry descriptors. A closed peer has to be reported, because UNIX sockets
    /// have no resets to report it.
    pub(super) unix: bool,
}

impl PolledSource {
    pub(super) fn stream(&mut self) -> Option<&mut PolledStream> {
        if let Self::Stream(stream) = self { Some(stream) } else { None }
    }

    pub(super) fn datagrams(&mut self) -> Option<&mut PolledDatagrams> {
        if let Self::Datagrams(datagrams) = self { Some(datagrams) } else { None }
    }

    pub(super) fn pipe(&mut self) -> Option<&mut PolledPipe> {
        if let Self::Pipe(pipe) = self { Some(pipe) } else { None }
    }

    /// Starts or stops receiving. Returns `true` if there may be something to receive.
    #[inline(always)]
    pub(super) fn set_receiving(&mut self, on: bool) -> bool {
        match self {
            Self::Stream(stream) => {
                stream.receiving = on;
                on && stream.is_readable()
            }
            Self::Datagrams(datagrams) => datagrams.set_receiving(on),
            Self::Pipe(pipe) => pipe.set_receiving(on),
            Self::Vacant | Self::Listener(_) | Self::Connecting(_) => false,
        }
    }

    /// Starts to receive the bytes that arrived before a fatal error. Returns `false` if this is no
    /// stream.
    pub(super) fn receive_rest(&mut self) -> bool {
        match self {
            Self::Stream(stream) => stream.receive_rest(),
            Self::Pipe(pipe) => pipe.receive_rest(),
            _ => return false,
        }
        true
    }

    /// Records the readiness that the poller reported. Returns `false` for a vacant source.
    pub(super) fn note(&mut self, readiness: Readiness) -> bool {
        match self {
            Self::Vacant => return false,
            Self::Listener(listener) => listener.waiting = true,
            Self::Connecting(stream) | Self::Stream(stream) => stream.readiness.add(readiness),
            Self::Datagrams(datagrams) => datagrams.note(readiness),
            Self::Pipe(pipe) => pipe.note(readiness),
        }
        true
    }

    /// Returns the next event of this source, and when to visit the source again.
    pub(super) fn next(
        &mut self,
        turn: u32,
        inbox: &mut Inbox,
        reserve: &mut Option<OwnedFd>,
    ) -> (Option<BackendEvent>, Requeue) {
        let (completion, requeue) = match self {
            Self::Stream(stream) => return stream.next(inbox),
            Self::Listener(listener) => listener.next(turn, reserve),
            Self::Connecting(_) => (self.next_connected(), Requeue::No),
            Self::Datagrams(datagrams) => return datagrams.next(),
            Self::Pipe(pipe) => return pipe.next(inbox),
            Self::Vacant => (None, Requeue::No),
        };
        (completion.map(BackendEvent::Other), requeue)
    }

    /// Returns the outcome of a connection attempt. The source is then a stream, or vacant.
    fn next_connected(&mut self) -> Option<Completion> {
        let Self::Connecting(attempt) = self else { return None };
        let outcome = socket::connected(attempt.socket.as_fd())?;
        let Self::Connecting(stream) = mem::take(self) else { return None };
        Some(match outcome {
            Ok(host) => {
                *self = Self::Stream(stream);
                Completion::Connected(host)
            }
            Err(error) => Completion::ConnectFailed(error),
        })
    }
}

impl Listener {
    /// Makes this process the one that removes the file.
    pub(super) fn adopt(&mut self) {
        if let Some(file) = &mut self.file {
            file.adopt();
        }
    }

    /// Makes a listener that accepts. No connection is known to wait.
    pub(super) fn new(socket: OwnedFd, bound: &Address, file: Option<SocketFile>, options: &PortOptions) -> Self {
        let on_all = bound.ip().is_some_and(|ip| ip.is_unspecified());
        let host = (!on_all).then(|| bound.clone());
        let has_buffers = options.connections.receive_buffer.or(options.connections.send_buffer).is_some();
        let given = (bound.unix().is_some() && has_buffers).then_some(options.connections);
        Self {
            file,
            socket,
            host,
            given,
            shared: false,
            leaves_waiting: false,
            waiting: false,
            accepting: true,
            short: false,
            shortage: Shortage::None,
            accepted: 0,
            turn: 0,
        }
    }

    /// Makes a listener of a socket that the program has handed over.
    pub(super) fn of_adopted(socket: OwnedFd, host: &Address, options: &PortOptions, remove_file: bool) -> Self {
        let path = host.unix().and_then(UnixAddress::as_path).filter(|_| remove_file);
        let mut listener = Self::new(socket, host, path.map(SocketFile::of_adopted), options);
        listener.shared = true;
        listener
    }

    /// Leaves the connections that wait to the other descriptors of the socket.
    pub(super) fn leave_waiting(&mut self) {
        self.leaves_waiting = true;
    }

    /// Leaves the file behind when the socket is closed.
    pub(super) fn leave_file(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.take()
            && let Err(locked) = file.leave()
        {
            self.file = Some(locked);
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the lock of a UNIX socket is not handed over"));
        }
        Ok(())
    }

    /// Resumes accepting after a failure. Connections may have arrived meanwhile.
    pub(super) fn resume(&mut self) {
        self.accepting = true;
        self.waiting = true;
        self.shortage = Shortage::None;
    }

    pub(super) fn next(&mut self, turn: u32, reserve: &mut Option<OwnedFd>) -> (Option<Completion>, Requeue) {
        while self.waiting && self.accepting {
            if !self.may_accept(turn) {
                return (None, Requeue::NextTurn);
            }
            match socket::accept(self.socket.as_fd()) {
                Accept::Connection(socket, peer) => {
                    self.short = false;
                    if let Some(incoming) = self.incoming(socket, peer) {
                        return (Some(Completion::Accepted(incoming)), Requeue::Now);
                    }
                }
                Accept::Empty => (self.waiting, self.short) = (false, false),
                Accept::Skip => {}
                // Linux reports this even if no connection waits, because it looks for a descriptor
                // first.
                Accept::NoDescriptors if !socket::has_waiting(self.socket.as_fd()) => {
                    (self.waiting, self.short) = (false, true);
                }
                Accept::NoDescriptors => match self.next_of_shortage(turn) {
                    Some(next) => return next,
                    None => return self.shed(reserve),
                },
                Accept::Failed(error) => {
                    self.accepting = false;
                    return (Some(Completion::AcceptFailed(error)), Requeue::No);
                }
            }
        }
        (None, Requeue::No)
    }

    /// Takes one accept from the budget of this turn. Returns `false` if the budget is used up.
    pub(super) fn may_accept(&mut self, turn: u32) -> bool {
        if mem::replace(&mut self.turn, turn) != turn {
            self.accepted = 0;
        }
        let may = self.accepted < ACCEPTS;
        self.accepted += usize::from(may);
        may
    }

    /// Accepts the waiting connections, before the socket is closed. A UNIX socket's file is
    /// removed first, so that no more arrive.
    pub(super) fn waiting_connections(&mut self) -> Vec<Incoming> {
        self.file = None;
        if self.leaves_waiting {
            return Vec::new();
        }
        let waiting = socket::accept_waiting(self.socket.as_fd());
        waiting.filter_map(|(socket, peer)| self.incoming(socket, peer)).collect()
    }

    /// Returns an accepted connection with its addresses. A peer that is already gone has none at
    /// this end: the result is `None`.
    pub(super) fn incoming(&self, socket: OwnedFd, peer: Address) -> Option<Incoming> {
        let host = self.host.clone().map_or_else(|| socket::local_address(&socket), Ok).ok()?;
        if let Some(given) = &self.given {
            socket::set_buffers(&socket, given).ok()?;
        }
        let socket = IncomingSocket::Descriptor { socket, unix: host.unix().is_some() };
        Some(Incoming { socket, ends: AddressPair::new(host, peer) })
    }

    /// Handles a lack of descriptors: asks the reactor for one in this turn, and again in the next.
    /// Connections of this turn may be closed by then. Returns `None` if the reactor had none.
    fn next_of_shortage(&mut self, turn: u32) -> Option<(Option<Completion>, Requeue)> {
        self.short = true;
        let (shortage, next) = match self.shortage {
            Shortage::None => (Shortage::Asked, (Some(Completion::NoDescriptors), Requeue::Now)),
            Shortage::Asked => (Shortage::Waits(turn), (None, Requeue::NextTurn)),
            Shortage::Waits(since) if since == turn => (self.shortage, (None, Requeue::NextTurn)),
            Shortage::Waits(_) => (Shortage::AskedAgain, (Some(Completion::NoDescriptors), Requeue::Now)),
            Shortage::AskedAgain => return None,
        };
        self.shortage = shortage;
        Some(next)
    }

    /// Handles a lack of descriptors: gives up the reserve, accepts and closes the waiting
    /// connections with it, and takes the reserve back.
    fn shed(&mut self, reserve: &mut Option<OwnedFd>) -> (Option<Completion>, Requeue) {
        (self.short, self.shortage) = (true, Shortage::None);
        let had_reserve = reserve.take().is_some();
        let mut shed = 0;
        while had_reserve && shed < SHED && self.waiting {
            match socket::accept(self.socket.as_fd()) {
                Accept::Connection(socket, _) => {
                    drop(socket);
                    shed += 1;
                }
                Accept::Skip => {}
                Accept::Empty => self.waiting = false,
                Accept::NoDescriptors | Accept::Failed(_) => break,
            }
        }
        *reserve = socket::reserve().ok();
        if shed == 0 && (reserve.is_none() || !had_reserve) {
            self.accepting = false;
            return (Some(Completion::AcceptFailed(rustix::io::Errno::MFILE.into())), Requeue::No);
        }
        ((shed > 0).then_some(Completion::Shed(shed)), if self.waiting { Requeue::NextTurn } else { Requeue::No })
    }
}

impl PolledStream {
    /// Makes a connection attempt. It is registered for both directions from the start, because the
    /// outcome is reported as room for writing.
    pub(super) fn attempt(socket: OwnedFd, unix: bool) -> Self {
        Self { armed: true, ..Self::new(socket, unix) }
    }

    /// Makes a stream that is registered for reading. Its readiness is unknown.
    pub(super) fn new(socket: OwnedFd, unix: bool) -> Self {
        Self {
            socket,
            readiness: Readiness::NONE,
            receiving: false,
            rest: false,
            ended: false,
            blocked: false,
            armed: false,
            shared: false,
            unix,
        }
    }

    /// Returns `true` if there may be something to receive.
    pub(super) fn is_readable(&self) -> bool {
        self.readiness.has(Readiness::READABLE)
    }

    /// Fast path: returns `true` if the poller reports received bytes and nothing else, for a TCP
    /// stream that is receiving.
    #[inline(always)]
    pub(super) fn may_just_receive(&self, readiness: Readiness) -> bool {
        let said = readiness.and(self.readiness);
        said.without(Readiness::WRITABLE) == Readiness::READABLE && self.receiving && !self.unix && !self.blocked
    }

    fn next(&mut self, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        if self.blocked && self.readiness.has(Readiness::WRITABLE) {
            self.blocked = false;
            return (Some(Completion::SendReady.into()), Requeue::Now);
        }
        if self.receiving && self.is_readable() {
            return self.receive(inbox);
        }
        if self.readiness.has(Readiness::FAILED) {
            // The stream is paused, or read to its end: a receive would not return the error.
            self.readiness.remove(Readiness::FAILED);
            let error = socket::pending_error(self.socket.as_fd());
            let broken = error.map(|error| Completion::Broken { error, rest: self.has_rest() });
            return (broken.map(BackendEvent::Other), Requeue::No);
        }
        if self.is_gone() && self.ended {
            // The bytes of the peer were read, and it will not read ours.
            self.readiness.remove(Readiness::GONE);
            let error = io::ErrorKind::BrokenPipe.into();
            return (Some(Completion::Broken { error, rest: false }.into()), Requeue::No);
        }
        (None, Requeue::No)
    }

    /// Starts to receive the bytes that arrived before a fatal error. The poller reports no more of
    /// them.
    pub(super) fn receive_rest(&mut self) {
        (self.receiving, self.rest) = (true, true);
        if self.unix {
            // A peer that has only stopped to read may write without an end.
            system::refuse_input(self.socket.as_fd());
        }
        self.readiness.add(Readiness::READABLE.with(Readiness::HUNG_UP, true));
    }

    /// Returns `true` if received bytes were not handed over.
    fn has_rest(&self) -> bool {
        !self.ended && socket::has_unread(self.socket.as_fd())
    }

    fn is_gone(&self) -> bool {
        self.unix && self.readiness.has(Readiness::GONE)
    }

    /// Receives from a TCP stream. Its readiness is cleared.
    #[inline(always)]
    pub(super) fn receive_bytes(&mut self, inbox: &mut Inbox) -> Receive {
        self.readiness.remove(Readiness::READABLE);
        socket::receive(self.socket.as_fd(), inbox.room().0)
    }

    fn receive(&mut self, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        let received = if self.unix {
            self.readiness.remove(Readiness::READABLE);
            let (buffer, descriptors) = inbox.room();
            socket::receive_attached(self.socket.as_fd(), buffer, descriptors)
        } else {
            self.receive_bytes(inbox)
        };
        self.received(received, inbox)
    }

    /// Turns the result of a receive into an event, and when to visit the stream again.
    pub(super) fn received(&mut self, received: Receive, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        match received {
            Receive::Bytes(filled) if !self.readiness.has(Readiness::UNDRAINED) => {
                inbox.fill(filled);
                (Some(BackendEvent::Received), Requeue::No)
            }
            Receive::Full(filled) | Receive::Bytes(filled) => {
                self.readiness.add(Readiness::READABLE);
                inbox.fill(filled);
                (Some(BackendEvent::Received), Requeue::NextTurn)
            }
            Receive::End => {
                self.ended = true;
                // A reset may follow the end. It is reported in the next turn, if the connection
                // still exists.
                let more = self.readiness.has(Readiness::FAILED) || self.is_gone();
                (Some(Completion::EndOfStream.into()), if more { Requeue::NextTurn } else { Requeue::No })
            }
            Receive::Empty if self.rest => {
                self.ended = true;
                (Some(Completion::EndOfStream.into()), Requeue::No)
            }
            Receive::Empty => {
                self.readiness.remove(Readiness::URGENT);
                (None, Requeue::No)
            }
            Receive::Starved => {
                self.readiness.add(Readiness::READABLE);
                (None, Requeue::NextTurn)
            }
            Receive::Failed(error) => (Some(Completion::Broken { error, rest: false }.into()), Requeue::No),
        }
    }

    /// Sends from the front of a queue, with the descriptors that leave with it, and removes the
    /// sent bytes. A blocked stream waits for room, which the next edge reports.
    #[inline(always)]
    pub(super) fn send(&mut self, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        let progress = send(self.socket.as_fd(), outgoing)?;
        if let Progress::Blocked(_) = progress {
            self.blocked = true;
            self.readiness.remove(Readiness::WRITABLE);
        }
        Ok(progress)
    }

    /// Reads the arrived bytes, within bounds, so that closing the socket does not become a reset.
    /// The poller may not have reported them yet.
    pub(super) fn read_last(&self) {
        if !self.ended {
            read_last(self.socket.as_fd());
        }
    }
}

/// Sends until the socket is full, or the budget of the turn is used up.
#[inline(always)]
pub(super) fn send(socket: BorrowedFd<'_>, outgoing: Outgoing<'_>) -> io::Result<Progress> {
    let mut sent = 0;
    if outgoing.descriptors.is_none() && outgoing.queue.is_single() {
        // Fast path: one call usually takes everything.
        let front = outgoing.queue.single();
        match socket::send(socket, front) {
            Send::Bytes(count) if count == front.len() => {
                outgoing.queue.finish(outgoing.pool);
                return Ok(Progress::Advanced(count));
            }
            Send::Bytes(count) => {
                outgoing.queue.advance(count, outgoing.pool);
                sent = count;
            }
            Send::Full => return Ok(Progress::Blocked(0)),
            Send::Starved => return Ok(Progress::Starved(0)),
            Send::Failed(error) => return Err(error),
        }
    }
    send_slow(socket, outgoing, sent)
}

#[cold]
#[inline(never)]
fn send_slow(socket: BorrowedFd<'_>, outgoing: Outgoing<'_>, mut sent: usize) -> io::Result<Progress> {
    let Outgoing { queue, mut descriptors, pool, .. } = outgoing;
    while !queue.is_empty() && sent < SEND {
        let outcome = match queue.file() {
            Some(part) => files::send(socket, part),
            None => {
                let descriptors = descriptors.as_deref_mut().filter(|descriptors| !descriptors.is_empty());
                socket::send_queue(socket, queue, descriptors)
            }
        };
        match outcome {
            Send::Bytes(count) => {
                queue.advance(count, pool);
                sent += count;
            }
            Send::Full => return Ok(Progress::Blocked(sent)),
            Send::Starved => return Ok(Progress::Starved(sent)),
            Send::Failed(error) => return Err(error),
        }
    }
    Ok(Progress::Advanced(sent))
}

/// Reads the arrived bytes, within bounds.
pub(super) fn read_last(socket: BorrowedFd<'_>) {
    let mut buffer = [0; 16 * 1024];
    let mut left = LAST_READ / buffer.len();
    // A short receive may have stopped at an urgent byte.
    while left > 0 && matches!(socket::receive(socket, &mut buffer), Receive::Full(_) | Receive::Bytes(_)) {
        left -= 1;
    }
}
