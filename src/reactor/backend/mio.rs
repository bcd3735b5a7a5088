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
//!
//! `epoll_wait` counts in milliseconds, and mio rounds up to them, which would make a timer of 100 us ten times as long. So it is
//! asked for whole milliseconds, rounded down, and only if nothing came of that, a timer of the kernel (`fine_timer.rs`) is armed for the
//! rest, in nanoseconds, and the poller waits for that. A loop that is busy, or whose next timer is far off, makes no other call than
//! `epoll_wait`. (`epoll_pwait2` and `ppoll` on the poller take nanoseconds too, but Linux lets each be 50 us late, so that it may wake for
//! several at once. Of a timer descriptor it does not.)

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Token, Waker};

use super::fine_timer::FineTimer;
use super::readiness::{Edge, Listener, Source, Stream};
use super::socket::{self, Send};
use super::table::Table;
use super::{
    Backend, Completion, ConnectRefusal, Inbox, Incoming, IncomingSocket, ListenRefusal, Monotonic, Progress, Wake,
};
use super::{DialOptions, PortOptions};
use crate::address::Address;
use crate::log::error;
use crate::transport::agenda::Id;
use crate::transport::send_queue::Spares;
use crate::transport::stream as transport;

/// Events taken per wait. 1,024, as libuv and tokio; the rest is taken in the next turn, and epoll hands them out in rotation.
const EVENTS: usize = 1024;

/// What a stream is registered for. An urgent byte is no event of its own, but says that a receive may stop before the socket is
/// drained.
#[cfg(any(target_os = "linux", target_os = "android"))]
const RECEIVING: Interest = Interest::READABLE.add(Interest::PRIORITY);
/// What a stream is registered for.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const RECEIVING: Interest = Interest::READABLE;

/// The token of the waker: no slot has this number.
const WAKE: Token = Token(usize::MAX);
/// The token of the fine timer. Smaller ones are those of sockets.
const FINE: Token = Token(usize::MAX - 1);

/// See the module.
pub(crate) struct Mio {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    table: Table<Source>,
    clock: Monotonic,
    /// There where the poller counts in milliseconds.
    fine: Option<FineTimer>,
    /// Given up when descriptors ran out, to shed those who wait.
    reserve: Option<OwnedFd>,
    /// Counts the waits, for budgets per turn.
    turn: u32,
}

impl Mio {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let fine = FineTimer::new()?;
        if let Some(fine) = &fine {
            poll.registry().register(&mut SourceFd(&fine.as_raw_fd()), FINE, Interest::READABLE)?;
        }
        let (events, table, clock) = (Events::with_capacity(EVENTS), Table::new(), Monotonic::new());
        Ok(Self { poll, events, waker, table, clock, fine, reserve: None, turn: 0 })
    }

    fn register(&self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&descriptor), token(id), interest)
    }

    fn stream(&mut self, id: Id) -> Option<&mut Stream> {
        self.table.get_mut(id)?.stream()
    }

    /// Waits for events until the clock says `until`: see the module.
    fn poll(&mut self, until: Option<Duration>) -> io::Result<()> {
        let wait = until.map(|until| self.clock.left(until));
        let (Some(until), Some(fine)) = (until, &self.fine) else {
            return self.poll.poll(&mut self.events, wait);
        };
        self.poll.poll(&mut self.events, wait.map(whole_milliseconds))?;
        let rest = self.clock.left(until);
        if self.events.is_empty() && !rest.is_zero() {
            fine.arm(rest)?;
            self.poll.poll(&mut self.events, Some(rest))?;
        }
        Ok(())
    }
}

/// As much of a wait as `epoll_wait` can count.
fn whole_milliseconds(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_millis() as u64)
}

impl Backend for Mio {
    fn clock(&self) -> Box<dyn Fn() -> Duration> {
        self.clock.boxed()
    }

    fn reopen(&mut self) -> io::Result<()> {
        let made = Self::new()?;
        (self.poll, self.waker, self.fine) = (made.poll, made.waker, made.fine);
        let registry = self.poll.registry();
        self.table.each(|id, source| {
            let (descriptor, interest) = match source {
                Source::Listener(listener) => {
                    listener.adopt();
                    (listener.socket.as_raw_fd(), Interest::READABLE)
                }
                Source::Connecting(stream) => (stream.socket.as_raw_fd(), Interest::READABLE | Interest::WRITABLE),
                Source::Vacant | Source::Stream(_) | Source::Watched => return Ok(()),
            };
            registry.register(&mut SourceFd(&descriptor), token(id), interest)
        })
    }

    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal> {
        let (socket, bound, file) = socket::listen(address, options)?;
        if self.reserve.is_none() {
            self.reserve = Some(socket::reserve()?);
        }
        self.register(id, socket.as_raw_fd(), Interest::READABLE)?;
        self.table.insert(id, Source::Listener(Box::new(Listener::new(socket, &bound, file, options))));
        Ok(bound)
    }

    fn accept(&mut self, id: Id) {
        if let Some(Source::Listener(listener)) = self.table.get_mut(id) {
            listener.resume();
            self.table.list_again(id);
        }
    }

    fn stop_listening(&mut self, id: Id) -> Vec<Incoming> {
        match self.table.take(id) {
            Source::Listener(mut listener) => listener.waiting_connections(),
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
        self.register(id, socket.as_raw_fd(), RECEIVING)?;
        self.table.insert(id, Source::Stream(Stream::new(socket, unix)));
        Ok(())
    }

    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal> {
        let (socket, done) = socket::connect(to, options)?;
        self.register(id, socket.as_raw_fd(), RECEIVING | Interest::WRITABLE).map_err(ConnectRefusal::Socket)?;
        self.table.insert(id, Source::Connecting(Stream::attempt(socket, to.unix().is_some())));
        if done {
            self.table.list_again(id);
        }
        Ok(())
    }

    fn receive(&mut self, id: Id, on: bool) {
        let Some(stream) = self.stream(id) else { return };
        stream.receiving = on;
        if on && stream.is_readable() {
            self.table.list_again(id);
        }
    }

    fn receive_rest(&mut self, id: Id) {
        if let Some(stream) = self.stream(id) {
            stream.receive_rest();
            self.table.list_again(id);
        }
    }

    fn passes_descriptors(&self, id: Id) -> bool {
        matches!(self.table.get(id), Some(Source::Stream(stream)) if stream.unix)
    }

    fn send(&mut self, id: Id, stream: &mut transport::Stream, spares: &Spares) -> io::Result<Progress> {
        let source = self.table.get_mut(id).and_then(Source::stream).ok_or(io::ErrorKind::NotConnected)?;
        let progress = source.send(stream, spares)?;
        if source.blocked && !mem::replace(&mut source.armed, true) {
            let descriptor = source.socket.as_raw_fd();
            let both = RECEIVING | Interest::WRITABLE;
            self.poll.registry().reregister(&mut SourceFd(&descriptor), token(id), both)?;
        }
        Ok(progress)
    }

    fn send_now(&mut self, id: Id, data: &[u8]) -> usize {
        let Some(stream) = self.stream(id) else { return 0 };
        match socket::send_and_wait_for_more(stream.socket.as_fd(), data) {
            Send::Bytes(count) => count,
            Send::Full | Send::Starved | Send::Failed(_) => 0,
        }
    }

    fn shut_down_writing(&mut self, id: Id) {
        if let Some(stream) = self.stream(id) {
            socket::shut_down_writing(stream.socket.as_fd());
        }
    }

    fn close(&mut self, id: Id, reset: bool) {
        // Closing takes a descriptor out of the poller; no call is needed for that.
        let Source::Stream(stream) = self.table.take(id) else { return };
        if reset {
            socket::reset_on_close(stream.socket.as_fd());
        } else {
            stream.read_last();
        }
    }

    fn watch(&mut self, id: Id, descriptor: RawFd) -> io::Result<()> {
        self.register(id, descriptor, Interest::READABLE)?;
        self.table.insert(id, Source::Watched);
        Ok(())
    }

    fn wait(&mut self, until: Option<Duration>) -> io::Result<()> {
        let until = if self.table.is_drained() { until } else { Some(Duration::ZERO) };
        self.turn = self.turn.wrapping_add(1);
        #[cfg(test)]
        let polled = socket::faults::call(socket::faults::Call::Wait, || Ok(()))
            .map_err(io::Error::from)
            .and_then(|()| self.poll(until));
        #[cfg(not(test))]
        let polled = self.poll(until);
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        self.table.begin_turn();
        for event in self.events.iter().filter(|event| event.token() < FINE) {
            self.table.say(id(event.token()), edge(event));
        }
        Ok(())
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, Completion)> {
        let Self { table, reserve, turn, .. } = self;
        table.next(Source::note, |_, source| source.next(*turn, inbox, reserve))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>> {
        match self.table.get(id)? {
            Source::Stream(stream) => Some(stream.socket.as_fd()),
            _ => None,
        }
    }

    fn stale(&self) -> u64 {
        self.table.stale()
    }
}

impl Wake for Waker {
    fn wake(&self) {
        // The one way in which this fails is a full counter, which wakes as well.
        if let Err(error) = Self::wake(self) {
            error!(%error, "the reactor could not be woken");
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

fn edge(event: &Event) -> Edge {
    let hung_up = event.is_read_closed() || event.is_error();
    Edge::NONE
        .with(Edge::READABLE, event.is_readable() || hung_up)
        .with(Edge::WRITABLE, event.is_writable())
        .with(Edge::HUNG_UP, hung_up)
        .with(Edge::FAILED, event.is_error())
        .with(Edge::URGENT, event.is_priority())
        .with(Edge::GONE, event.is_write_closed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::backend::LONGEST_WAIT;

    /// The poller is never asked for more than a wait, and what it is not asked for is less than a millisecond.
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
