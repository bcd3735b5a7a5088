//! The backend on [mio](https://docs.rs/mio): epoll, made to look like completion.
//!
//! mio is edge-triggered: it says once that something became ready. So each stream remembers here what it was told
//! (`readable`, `hung_up`), and forgets it only when the system said otherwise:
//! - A receive that brought less than it had room for has drained the socket: `readable` is cleared without asking again,
//!   and the next edge is the next event. Unless the peer's end was announced too: then there may be no other edge, and
//!   receiving goes on until it is seen.
//! - A stream is registered for reading only. The first time that a socket is full it is registered for writing too, and
//!   stays so: an edge comes only after a send fell short, so nothing wakes for nothing.
//! - Not receiving needs no system call: the edge is remembered.
//!
//! What was left over for fairness is in `again`, and makes the next wait return at once.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::socket::{self, Accept, Receive, Send};
use super::{Backend, Chunk, Completion, ConnectRefusal, Incoming, Progress, RECEIVE, Wake};
use crate::transport::agenda::{Id, SocketOption};
use crate::transport::send_queue::{CHUNK, MAX_SLICES, SendQueue, Spares};

/// Events taken per wait. 1,024, as libuv and tokio; the rest is taken in the next turn, and epoll hands them out in rotation.
const EVENTS: usize = 1024;

/// Connections accepted per port and turn. 64: a burst of 64 takes under a millisecond, so other connections barely notice.
const ACCEPTS: usize = 64;

/// Connections shed per turn when descriptors ran out. Closing is all that is done for them.
const SHED: usize = 1024;

/// Bytes sent per connection and turn, after which the others have their turn. 1 MiB: as much as a vectored send takes.
const SEND: usize = MAX_SLICES * CHUNK;

/// Bytes read before a close, so that closing does not become a reset.
const LAST_READ: usize = 4 * RECEIVE;

/// The token of the waker: no slot has this number.
const WAKE: Token = Token(usize::MAX);

/// See the module.
pub(crate) struct Mio {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    table: Table,
    /// The one receive buffer, while it is not lent.
    buffer: Box<[u8]>,
    /// Given up when descriptors ran out, to shed those who wait.
    reserve: Option<OwnedFd>,
    /// Counts the waits, for budgets per turn.
    turn: u32,
}

/// What is watched, and who has something.
#[derive(Default)]
struct Table {
    /// What each slot of the reactor's table means to the poller.
    entries: Vec<Entry>,
    /// Who has something, in this turn.
    ready: VecDeque<Id>,
    /// Who will have something in the next turn without being told so.
    again: Vec<Id>,
    /// Events for somebody who is gone.
    stale: u64,
}

struct Entry {
    generation: u32,
    /// In `ready` or `again`.
    listed: bool,
    source: Source,
}

enum Source {
    Vacant,
    Listener(Listener),
    /// An attempt, already remembering what is said of the stream that it may become.
    Connecting(Stream),
    Stream(Stream),
    /// Somebody else's descriptor.
    Watched,
}

struct Listener {
    socket: OwnedFd,
    /// Our address of every connection, unless we listen on all.
    host: Option<SocketAddr>,
    /// There may be connections waiting.
    waiting: bool,
    /// Not suspended.
    accepting: bool,
    /// Accepted in this turn.
    accepted: usize,
    /// Which turn that is.
    turn: u32,
}

struct Stream {
    socket: OwnedFd,
    receiving: bool,
    /// There may be something to receive.
    readable: bool,
    /// The peer's end, or an error, was announced.
    hung_up: bool,
    /// An error was announced.
    failed: bool,
    /// Somebody waits for room.
    blocked: bool,
    /// There may be room.
    writable: bool,
    /// Registered for writing.
    armed: bool,
}

impl Mio {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            table: Table::default(),
            buffer: vec![0; RECEIVE].into_boxed_slice(),
            reserve: None,
            turn: 0,
        })
    }

    fn register(&self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&descriptor), token(id), interest)
    }

    fn next_of(&mut self, id: Id) -> Option<Completion> {
        match self.table.source(id)? {
            Source::Vacant => None,
            Source::Listener(_) => self.next_accepted(id),
            Source::Connecting(_) => self.next_connected(id),
            Source::Stream(_) => self.next_of_stream(id),
            Source::Watched => Some(Completion::Readable),
        }
    }

    fn next_accepted(&mut self, id: Id) -> Option<Completion> {
        loop {
            let listener = self.table.listener(id)?;
            if !listener.waiting || !listener.accepting {
                return None;
            }
            if mem::replace(&mut listener.turn, self.turn) != self.turn {
                listener.accepted = 0;
            }
            if listener.accepted == ACCEPTS {
                self.table.list_again(id);
                return None;
            }
            listener.accepted += 1;
            match socket::accept(listener.socket.as_fd()) {
                Accept::Connection(socket, peer) => {
                    // Whoever has already gone again has no address at this end either.
                    let Ok(host) = listener.host.map_or_else(|| socket::local_address(&socket), Ok) else { continue };
                    self.table.list_now(id);
                    return Some(Completion::Accepted(Incoming { socket, host, peer }));
                }
                Accept::Empty => {
                    listener.waiting = false;
                    return None;
                }
                Accept::Skip => {}
                Accept::NoDescriptors => return self.shed(id),
                Accept::Failed(error) => {
                    listener.accepting = false;
                    return Some(Completion::AcceptFailed(error));
                }
            }
        }
    }

    /// Descriptors ran out: gives the reserve up to accept and close those who wait, and takes it back. Linux says so even
    /// when nobody waits, because it looks for a descriptor first.
    fn shed(&mut self, id: Id) -> Option<Completion> {
        let listener = self.table.listener(id)?;
        let had_reserve = self.reserve.take().is_some();
        let mut shed = 0;
        while had_reserve && shed < SHED && listener.waiting {
            match socket::accept(listener.socket.as_fd()) {
                Accept::Connection(socket, _) => {
                    drop(socket);
                    shed += 1;
                }
                Accept::Skip => {}
                Accept::Empty => listener.waiting = false,
                Accept::NoDescriptors | Accept::Failed(_) => break,
            }
        }
        self.reserve = socket::reserve().ok();
        if self.reserve.is_none() || !had_reserve {
            listener.accepting = false;
            return Some(Completion::AcceptFailed(rustix::io::Errno::MFILE.into()));
        }
        if listener.waiting {
            self.table.list_again(id);
        }
        (shed > 0).then_some(Completion::Shed(shed))
    }

    fn next_connected(&mut self, id: Id) -> Option<Completion> {
        let Some(Source::Connecting(attempt)) = self.table.source(id) else { return None };
        let outcome = socket::connected(attempt.socket.as_fd())?;
        let Source::Connecting(stream) = self.table.take(id) else { return None };
        Some(match outcome {
            Ok(host) => {
                self.table.insert(id, Source::Stream(stream));
                Completion::Connected(host)
            }
            Err(error) => Completion::ConnectFailed(error),
        })
    }

    fn next_of_stream(&mut self, id: Id) -> Option<Completion> {
        let stream = self.table.stream(id)?;
        if stream.blocked && stream.writable {
            stream.blocked = false;
            // It may have something to receive as well.
            self.table.list_now(id);
            return Some(Completion::SendReady);
        }
        if stream.receiving && stream.readable {
            return self.receive_once(id);
        }
        if stream.failed {
            // Not being read, or read to its end: reading would not say so.
            stream.failed = false;
            return socket::pending_error(stream.socket.as_fd()).map(Completion::Broken);
        }
        None
    }

    fn receive_once(&mut self, id: Id) -> Option<Completion> {
        let stream = self.table.stream(id)?;
        let mut buffer = mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // The last chunk was not released yet.
            buffer = vec![0; RECEIVE].into_boxed_slice();
        }
        let completion = match socket::receive(stream.socket.as_fd(), &mut buffer) {
            Receive::Bytes(filled) if !stream.hung_up => {
                stream.readable = false;
                return Some(Completion::Received(Chunk { buffer, filled }));
            }
            Receive::Full(filled) | Receive::Bytes(filled) => {
                self.table.list_again(id);
                return Some(Completion::Received(Chunk { buffer, filled }));
            }
            Receive::End => {
                stream.readable = false;
                if stream.failed {
                    // A reset came behind the end. It is told in the next turn, if the connection lasts as long.
                    self.table.list_again(id);
                }
                Some(Completion::EndOfStream)
            }
            Receive::Empty => {
                stream.readable = false;
                None
            }
            Receive::Starved => {
                self.table.list_again(id);
                None
            }
            Receive::Failed(error) => {
                stream.readable = false;
                Some(Completion::Broken(error))
            }
        };
        self.buffer = buffer;
        completion
    }
}

impl Table {
    fn insert(&mut self, id: Id, source: Source) {
        let slot = id.slot as usize;
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, || Entry { generation: 0, listed: false, source: Source::Vacant });
        }
        self.entries[slot] = Entry { generation: id.generation, listed: false, source };
    }

    fn entry(&mut self, id: Id) -> Option<&mut Entry> {
        self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    fn source(&mut self, id: Id) -> Option<&mut Source> {
        self.entry(id).map(|entry| &mut entry.source)
    }

    fn stream(&mut self, id: Id) -> Option<&mut Stream> {
        match self.source(id) {
            Some(Source::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    fn listener(&mut self, id: Id) -> Option<&mut Listener> {
        match self.source(id) {
            Some(Source::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    fn take(&mut self, id: Id) -> Source {
        self.source(id).map_or(Source::Vacant, |source| mem::replace(source, Source::Vacant))
    }

    /// Has `id` looked at next.
    fn list_now(&mut self, id: Id) {
        if self.entry(id).is_some_and(|entry| !mem::replace(&mut entry.listed, true)) {
            self.ready.push_front(id);
        }
    }

    /// Has `id` looked at in the next turn.
    fn list_again(&mut self, id: Id) {
        if self.entry(id).is_some_and(|entry| !mem::replace(&mut entry.listed, true)) {
            self.again.push(id);
        }
    }

    /// The next to look at.
    fn pop(&mut self) -> Option<Id> {
        let id = self.ready.pop_front()?;
        if let Some(entry) = self.entry(id) {
            entry.listed = false;
        }
        Some(id)
    }

    /// Takes note of what the poller said.
    fn note(&mut self, id: Id, event: &Event) {
        let Some(entry) = self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
        else {
            self.stale += 1;
            return;
        };
        match &mut entry.source {
            Source::Vacant => {
                self.stale += 1;
                return;
            }
            Source::Listener(listener) => listener.waiting = true,
            Source::Connecting(stream) | Source::Stream(stream) => stream.note(event),
            Source::Watched => {}
        }
        if !mem::replace(&mut entry.listed, true) {
            self.ready.push_back(id);
        }
    }
}

impl Backend for Mio {
    fn listen(&mut self, id: Id, address: SocketAddr, backlog: u32) -> io::Result<SocketAddr> {
        if self.reserve.is_none() {
            self.reserve = Some(socket::reserve()?);
        }
        let (socket, bound) = socket::listen(address, backlog)?;
        self.register(id, socket.as_raw_fd(), Interest::READABLE)?;
        let host = (!bound.ip().is_unspecified()).then_some(bound);
        let listener = Listener { socket, host, waiting: false, accepting: true, accepted: 0, turn: 0 };
        self.table.insert(id, Source::Listener(listener));
        Ok(bound)
    }

    fn accept(&mut self, id: Id) {
        if let Some(listener) = self.table.listener(id) {
            listener.accepting = true;
            listener.waiting = true;
            self.table.list_again(id);
        }
    }

    fn adopt(&mut self, id: Id, incoming: Incoming) -> io::Result<()> {
        self.register(id, incoming.socket.as_raw_fd(), Interest::READABLE)?;
        self.table.insert(id, Source::Stream(Stream::new(incoming.socket)));
        Ok(())
    }

    fn connect(&mut self, id: Id, to: SocketAddr, from: Option<SocketAddr>) -> Result<(), ConnectRefusal> {
        let (socket, done) = socket::connect(to, from)?;
        self.register(id, socket.as_raw_fd(), Interest::READABLE | Interest::WRITABLE)
            .map_err(ConnectRefusal::Socket)?;
        // Registered for both directions from the start: the poller tells of the outcome as room for writing.
        self.table.insert(id, Source::Connecting(Stream { armed: true, ..Stream::new(socket) }));
        if done {
            self.table.list_again(id);
        }
        Ok(())
    }

    fn receive(&mut self, id: Id, on: bool) {
        let Some(stream) = self.table.stream(id) else { return };
        stream.receiving = on;
        if on && stream.readable {
            self.table.list_again(id);
        }
    }

    fn send(&mut self, id: Id, queue: &mut SendQueue, spares: &Spares) -> io::Result<Progress> {
        let stream = self.table.stream(id).ok_or(io::ErrorKind::NotConnected)?;
        let mut sent = 0;
        while !queue.is_empty() && sent < SEND {
            match socket::send_queue(stream.socket.as_fd(), queue) {
                Send::Bytes(count) => {
                    queue.advance(count, spares);
                    sent += count;
                }
                Send::Full => {
                    stream.block(self.poll.registry(), id)?;
                    return Ok(Progress::Blocked(sent));
                }
                Send::Starved => return Ok(Progress::Starved(sent)),
                Send::Failed(error) => return Err(error),
            }
        }
        Ok(Progress::Advanced(sent))
    }

    fn send_now(&mut self, id: Id, data: &[u8]) -> usize {
        let Some(stream) = self.table.stream(id) else { return 0 };
        match socket::send(stream.socket.as_fd(), data) {
            Send::Bytes(count) => count,
            Send::Full | Send::Starved | Send::Failed(_) => 0,
        }
    }

    fn shut_down_writing(&mut self, id: Id) {
        if let Some(stream) = self.table.stream(id) {
            socket::shut_down_writing(stream.socket.as_fd());
        }
    }

    fn close(&mut self, id: Id, reset: bool) {
        // Closing takes a descriptor out of the poller; no call is needed for that.
        let Source::Stream(stream) = self.table.take(id) else { return };
        if reset {
            socket::reset_on_close(stream.socket.as_fd());
            return;
        }
        if stream.readable && !self.buffer.is_empty() {
            let mut left = LAST_READ / self.buffer.len();
            while left > 0 && matches!(socket::receive(stream.socket.as_fd(), &mut self.buffer), Receive::Full(_)) {
                left -= 1;
            }
        }
    }

    fn watch(&mut self, id: Id, descriptor: RawFd) -> io::Result<()> {
        self.register(id, descriptor, Interest::READABLE)?;
        self.table.insert(id, Source::Watched);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.table.again.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.turn = self.turn.wrapping_add(1);
        #[cfg(test)]
        let polled = socket::faults::call(socket::faults::Call::Wait, || Ok(()))
            .map_err(io::Error::from)
            .and_then(|()| self.poll.poll(&mut self.events, timeout));
        #[cfg(not(test))]
        let polled = self.poll.poll(&mut self.events, timeout);
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        self.table.ready.extend(self.table.again.drain(..));
        for event in self.events.iter().filter(|event| event.token() != WAKE) {
            self.table.note(id(event.token()), event);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<(Id, Completion)> {
        loop {
            let id = self.table.pop()?;
            if let Some(completion) = self.next_of(id) {
                return Some((id, completion));
            }
        }
    }

    fn release(&mut self, chunk: Chunk) {
        self.buffer = chunk.buffer;
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn set_option(&mut self, id: Id, option: SocketOption) -> io::Result<()> {
        let socket = self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?;
        socket::set_option(socket, option)
    }

    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>> {
        match self.table.entries.get(id.slot as usize) {
            Some(Entry { generation, source: Source::Stream(stream), .. }) if *generation == id.generation => {
                Some(stream.socket.as_fd())
            }
            _ => None,
        }
    }

    fn no_delay(&self, id: Id) -> io::Result<bool> {
        socket::no_delay(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        socket::keep_alive(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    fn stale(&self) -> u64 {
        self.table.stale
    }
}

impl Stream {
    /// Registered for reading, nothing known.
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receiving: false,
            readable: false,
            hung_up: false,
            failed: false,
            blocked: false,
            writable: false,
            armed: false,
        }
    }

    fn note(&mut self, event: &Event) {
        let hung_up = event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || hung_up;
        self.hung_up |= hung_up;
        self.failed |= event.is_error();
        self.writable |= event.is_writable();
    }

    /// Waits for room: the next edge says so.
    fn block(&mut self, registry: &Registry, id: Id) -> io::Result<()> {
        self.blocked = true;
        self.writable = false;
        if !mem::replace(&mut self.armed, true) {
            let descriptor = self.socket.as_raw_fd();
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.reregister(&mut SourceFd(&descriptor), token(id), both)?;
        }
        Ok(())
    }
}

impl Wake for Waker {
    fn wake(&self) {
        // The one way in which this fails is a full counter, which wakes as well.
        if let Err(error) = Self::wake(self) {
            tracing::error!(%error, "the reactor could not be woken");
        }
    }
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ropewalk needs 64-bit tokens: a slot and a generation of 32 bits each");

fn token(id: Id) -> Token {
    Token(((id.generation as usize) << 32) | id.slot as usize)
}

fn id(token: Token) -> Id {
    Id { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
