//! The contract between the reactor and what does its system calls (Twisted: "pluggable reactors").
//!
//! It is completion-shaped: the reactor asks for an operation by [`Id`], and is told what finished. A poller that only
//! knows readiness imitates completion at no cost; the reverse would throw away what completion I/O is good for. No other
//! file knows which backend runs.
//!
//! | operation | the reactor hears |
//! |---|---|
//! | [`listen`](Backend::listen), [`accept`](Backend::accept), [`stop_listening`](Backend::stop_listening) | [`Accepted`](Completion::Accepted), [`NoDescriptors`](Completion::NoDescriptors), [`Shed`](Completion::Shed), [`AcceptFailed`](Completion::AcceptFailed) |
//! | [`connect`](Backend::connect) | [`Connected`](Completion::Connected), [`ConnectFailed`](Completion::ConnectFailed) |
//! | [`receive`](Backend::receive), [`receive_rest`](Backend::receive_rest) | [`Received`](BackendEvent::Received), [`EndOfStream`](Completion::EndOfStream), [`Broken`](Completion::Broken) |
//! | [`send`](Backend::send) | the outcome at once, or [`SendReady`](Completion::SendReady) when it can go on, or [`Returned`](BackendEvent::Returned) with the chunk that was being sent |
//! | [`watch`](Backend::watch) | [`Readable`](Completion::Readable), [`Writable`](Completion::Writable) |
//! | [`waker`](Backend::waker) | [`wait`](Backend::wait) returns |
//! | [`clock`](Backend::clock) | what time it is, which is the backend's business too |
//!
//! Rules for a backend:
//! 1. It never calls out: [`next`](Backend::next) hands completions over one at a time, so that the reactor holds no
//!    borrow of it while a protocol runs.
//! 2. A completion for an id that was closed is never handed over; what the poller still says of it is dropped and counted.
//! 3. One turn hands over at most [`RECEIVE`] bytes per connection, and a bounded number of accepted connections per port: that is the budget that keeps one fast peer from starving the others. What is left is handed
//!    over in the next turn, without waiting.
//! 4. While a connection is not receiving, nothing is read from it, and no readiness is forgotten. A fatal error is reported all
//!    the same; bytes that arrived before it stay, for [`receive_rest`](Backend::receive_rest).
//! 5. `wait` never returns before its deadline unless something happened, and no later than the system's timers make it: the deadline
//!    reaches the system in nanoseconds, and a system that counts in milliseconds is asked for the rest in another way.

mod any;
mod closed;
mod fine_timer;
mod mio;
mod options;
mod outstanding;
mod poller;
mod readiness;
pub(super) mod socket;
mod socket_file;
mod table;
#[cfg(test)]
mod tests;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod uring;

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::{Address, AddressPair};
use crate::transport::driver::{Credentials, SocketOption};
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;
use crate::transport::send_queue::InFlight;

pub(crate) use self::any::AnyBackend;
pub(crate) use self::closed::Closed;
pub(crate) use self::mio::Mio;
pub(crate) use self::options::{ConnectionOptions, DialOptions, PortOptions};
pub(in crate::reactor) use self::socket_file::lock_of;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use self::uring::Buffer;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) use self::uring::Uring;

/// How many bytes a connection may bring in a turn, and one receive by a plain call. 64 KiB, as Twisted.
pub(crate) const RECEIVE: usize = 64 * 1024;

/// What does the reactor's system calls.
pub(crate) trait Backend {
    /// The clock, from zero when the backend was made. Deadlines of [`wait`](Self::wait) are on its scale.
    fn clock(&self) -> Box<dyn Fn() -> Duration>;

    /// Makes a listening socket, and of a UNIX socket its file, which goes when the socket is closed. Accepting starts at once.
    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal>;

    /// Goes on accepting after [`Completion::AcceptFailed`] or [`Completion::NoDescriptors`].
    fn accept(&mut self, id: Id);

    /// Closes a listening socket, so that its address is free, and gives the connections that the system had accepted by then.
    fn stop_listening(&mut self, id: Id) -> Vec<Incoming>;

    /// Resets an accepted connection that is not to be served.
    fn refuse(&mut self, socket: IncomingSocket);

    /// Takes an accepted connection under `id`.
    fn adopt(&mut self, id: Id, socket: IncomingSocket) -> io::Result<()>;

    /// Begins to connect. The outcome is a completion, even if it is known at once.
    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal>;

    /// Starts or stops receiving.
    fn receive(&mut self, id: Id, on: bool);

    /// Receives what arrived before a fatal error, of which a send or [`Completion::Broken`] has told; then [`Completion::EndOfStream`]
    /// or [`Completion::Broken`] says that there is no more. [`receive`](Self::receive) pauses it, and this resumes it.
    fn receive_rest(&mut self, id: Id);

    /// Whether descriptors can be sent, and come with what is received.
    fn passes_descriptors(&self, id: Id) -> bool;

    /// Sends from the front of the queue, and takes the sent bytes off it; or takes a chunk of it along, as far as its
    /// [`SendMode`](crate::transport::outgoing::SendMode) allows, which comes back when it was sent.
    fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress>;

    /// Gives back a chunk that was taken along, with the number of its bytes that the socket has taken. `None`: there is no such
    /// chunk, or the socket is still busy with it.
    fn recall(&mut self, _id: Id) -> Option<(InFlight, io::Result<usize>)> {
        None
    }

    /// Hands the socket what it takes at once of bytes that are in no queue. It keeps the last of them for what is sent next, or
    /// until [`uncork`](Self::uncork).
    fn send_now(&mut self, id: Id, data: &[u8]) -> usize;

    /// Has the socket send what it keeps after [`send_now`](Self::send_now): nothing follows.
    fn uncork(&mut self, id: Id) {
        if let Some(socket) = self.descriptor(id) {
            socket::uncork(socket);
        }
    }

    /// Sends the end of our side.
    fn shut_down_writing(&mut self, id: Id);

    /// Whether the peer has acknowledged everything that was sent, and nothing that it has sent is unread.
    fn is_acknowledged(&self, id: Id) -> bool {
        let is_done = |socket| outstanding::is_acknowledged(socket) && !socket::has_unread(socket);
        self.descriptor(id).is_some_and(is_done)
    }

    /// Closes whatever `id` names but a listening socket; with a reset if so asked. Reads first what already came, so that a plain close does not
    /// become a reset, but within bounds and without waiting.
    fn close(&mut self, id: Id, reset: bool);

    /// Makes the poller anew, in a forked child of the process that made it. Nothing was waited for before, so there are only
    /// ports and attempts, which go on.
    fn reopen(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Hands on to the system whatever is still to be: the next [`wait`](Self::wait), which does so too, may be far off.
    fn flush(&mut self) {}

    /// Watches a descriptor that is not ours, until [`close`](Self::close). Each completion says that the descriptor has become ready:
    /// there is no other until it was found not to be.
    fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()>;

    /// Waits until something happened, but no longer than until the [clock](Self::clock) says `until` (`None`: without limit). Zero is
    /// no wait at all.
    fn wait(&mut self, until: Option<Duration>) -> io::Result<()>;

    /// Fast path of [`next`](Self::next): the stream of which bytes came, if that is the next thing that happened and there is no more to it.
    /// `None` says nothing: `next` does.
    #[inline]
    fn next_received(&mut self, _inbox: &mut Inbox) -> Option<Id> {
        None
    }

    /// The next thing that happened. What was received is in the inbox until this is called again.
    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)>;

    /// What wakes [`wait`](Self::wait) from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// The number of the network interface that has this name.
    fn interface_index(&self, name: &str) -> io::Result<u32> {
        socket::interface_index(name)
    }

    /// Sets an option of a stream's socket.
    fn set_option(&mut self, id: Id, option: SocketOption) -> io::Result<()> {
        socket::set_option(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?, option)
    }

    /// The descriptor of a stream, for reading options of it.
    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>>;

    /// Whether Nagle's algorithm is off.
    fn no_delay(&self, id: Id) -> io::Result<bool> {
        socket::no_delay(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Whether keep-alive is on.
    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        socket::keep_alive(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Who is at the other end of a UNIX socket.
    fn peer_credentials(&self, id: Id) -> io::Result<Credentials> {
        socket::peer_credentials(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// How many completions were for somebody who is gone.
    fn stale(&self) -> u64;
}

/// The longest wait that a kernel is asked for. 24 days, in 31 bits of milliseconds, which is all that `epoll_wait` takes; what is further
/// off is waited for in several turns. (Of longer ones, epoll would see the low bits, and io_uring a time in the past.)
const LONGEST_WAIT: Duration = Duration::from_millis(i32::MAX as u64);

/// A clock of the system's that never goes back, from zero when it was made.
#[derive(Debug, Clone, Copy)]
struct Monotonic(Instant);

impl Monotonic {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn boxed(self) -> Box<dyn Fn() -> Duration> {
        Box::new(move || self.0.elapsed())
    }

    /// The time that a kernel is to wait. A deadline of zero is over, whatever the time.
    fn left(self, until: Duration) -> Duration {
        if until.is_zero() { until } else { until.saturating_sub(self.0.elapsed()).min(LONGEST_WAIT) }
    }
}

/// Wakes a sleeping backend.
pub(crate) trait Wake: Send + Sync {
    /// From any thread; cheap when it is already awake.
    fn wake(&self);
}

/// Why there is no listening socket.
#[derive(Debug)]
pub(crate) enum ListenRefusal {
    /// Somebody else holds the lock of the UNIX socket.
    Locked,
    /// No descriptor for a socket.
    NoDescriptors(io::Error),
    System(io::Error),
}

impl<E: Into<io::Error>> From<E> for ListenRefusal {
    fn from(error: E) -> Self {
        let error = error.into();
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE) => Self::NoDescriptors(error),
            _ => Self::System(error),
        }
    }
}

/// Why a connection attempt could not even begin.
#[derive(Debug)]
pub(crate) enum ConnectRefusal {
    /// The local address can't be had.
    Bind(io::Error),
    /// No descriptor for a socket.
    NoDescriptors(io::Error),
    /// No socket.
    Socket(io::Error),
    /// The peer's queue is full, and nobody says when it is not: ask again in a while.
    Busy,
}

/// How far a send came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// As far as its budget of this turn; ask again in the next one.
    Advanced(usize),
    /// The socket is full: [`Completion::SendReady`] follows.
    Blocked(usize),
    /// The system lacks memory for more at the moment: ask again in a while.
    Starved(usize),
}

/// Which readiness of a watched descriptor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// An event: the two that a busy connection is made of, and all others.
#[derive(Debug)]
pub(crate) enum BackendEvent {
    /// Bytes came: they are in the inbox.
    Received,
    /// A chunk that was taken along to be sent, and the number of its bytes that were. Short of memory, it is `OutOfMemory`.
    #[cfg_attr(not(any(feature = "testing", feature = "io-uring")), expect(dead_code, reason = "mio keeps no chunk"))]
    Returned(InFlight, io::Result<usize>),
    Other(Completion),
}

impl From<Completion> for BackendEvent {
    fn from(completion: Completion) -> Self {
        Self::Other(completion)
    }
}

/// The rarer events.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A connection came in.
    Accepted(Incoming),
    /// A port has no descriptor for a connection that waits. Unless [`Backend::accept`] is called over this, because some were given
    /// up, it [sheds](Self::Shed) what waits.
    NoDescriptors,
    /// Descriptors ran out; this many waiting connections were closed instead of accepted, so that their peers know.
    Shed(usize),
    /// Accepting failed, and is suspended until [`Backend::accept`].
    AcceptFailed(io::Error),
    /// The attempt succeeded; from here on `id` is a stream, not yet receiving. Our address is given.
    Connected(Address),
    /// The attempt failed; `id` names nothing any more.
    ConnectFailed(io::Error),
    /// The peer sent its last byte.
    EndOfStream,
    /// A send that was blocked can go on.
    SendReady,
    /// The network says that the connection is over. With a `rest`, bytes that arrived before were not handed over:
    /// [`Backend::receive_rest`] does it.
    Broken { error: io::Error, rest: bool },
    /// A watched descriptor can be read.
    Readable,
    /// A watched descriptor can be written to.
    Writable,
}

/// An accepted connection that has no id yet. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) socket: IncomingSocket,
    pub(crate) ends: AddressPair,
}

/// What an accepted connection is to the backend that accepted it.
#[derive(Debug)]
pub(crate) enum IncomingSocket {
    Descriptor {
        socket: OwnedFd,
        unix: bool,
    },
    /// Of a backend without descriptors.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "the test kit has such a backend"))]
    Other(Box<dyn Any>),
}

/// Where received bytes are put. The reactor has it, and lends it to each [`Backend::next`].
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The buffer for receives by plain calls, of [`RECEIVE`] bytes once there was one.
    scratch: Box<[u8]>,
    chunk: Chunk,
    descriptors: Vec<OwnedFd>,
}

/// Where the bytes of an [`BackendEvent::Received`] are.
#[derive(Debug)]
enum Chunk {
    /// So many in the inbox's own buffer.
    Scratch(usize),
    /// In a buffer of the kernel's, which gets it back when this is dropped.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Lent(Buffer),
}

impl Default for Chunk {
    fn default() -> Self {
        Self::Scratch(0)
    }
}

impl Inbox {
    /// The bytes of the last [`BackendEvent::Received`].
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.chunk {
            Chunk::Scratch(filled) => &self.scratch[..*filled],
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Chunk::Lent(buffer) => buffer,
        }
    }

    /// The descriptors that came with the bytes, if any did.
    #[inline]
    pub(crate) fn take_descriptors(&mut self) -> Option<Vec<OwnedFd>> {
        if self.descriptors.is_empty() { None } else { Some(std::mem::take(&mut self.descriptors)) }
    }

    /// [`RECEIVE`] bytes, and a place for descriptors, to be [`fill`](Self::fill)ed.
    #[inline]
    pub(crate) fn room(&mut self) -> (&mut [u8], &mut Vec<OwnedFd>) {
        if self.scratch.len() != RECEIVE {
            self.make_room();
        }
        (&mut self.scratch, &mut self.descriptors)
    }

    #[cold]
    fn make_room(&mut self) {
        self.scratch = vec![0; RECEIVE].into_boxed_slice();
    }

    /// So many bytes of the room are filled.
    #[inline(always)]
    pub(crate) fn fill(&mut self, count: usize) {
        match &mut self.chunk {
            Chunk::Scratch(filled) => *filled = count,
            #[cfg(feature = "io-uring")]
            chunk @ Chunk::Lent(..) => *chunk = Chunk::Scratch(count),
        }
    }

    /// Puts in bytes that came in a buffer of the kernel's.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    #[inline(always)]
    fn lend(&mut self, buffer: Buffer) {
        self.chunk = Chunk::Lent(buffer);
    }

    /// Gives a lent buffer back.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    fn clear(&mut self) {
        self.chunk = Chunk::default();
    }
}
