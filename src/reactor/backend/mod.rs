//! The contract between the reactor and a backend, which makes the reactor's system calls (Twisted:
//! "pluggable reactors").
//!
//! The contract is completion-shaped: the reactor starts an operation by [`Id`], and the backend
//! reports its completion. A readiness poller can imitate completions at no cost. A readiness
//! contract would throw away the advantages of completion I/O. No other file knows which backend
//! runs.
//!
//! | operation | reported as |
//! |---|---|
//! | [`listen`], [`accept`], [`pause_accept`], [`stop_listening`] | [`Accepted`], [`NoDescriptors`], [`Shed`], [`AcceptFailed`] |
//! | [`connect`] | [`Connected`], [`ConnectFailed`] |
//! | [`receive`], [`receive_rest`] | [`Received`], [`EndOfStream`], [`Broken`] |
//! | [`adopt_descriptors`] | the same events, over pipes and terminals |
//! | [`send`] | its result; [`SendReady`] when a blocked send can go on; [`Returned`] with a chunk that was in flight |
//! | [`bind_datagrams`], [`receive`] | [`DatagramsReady`], after which [`receive_datagrams`] returns them |
//! | [`send_datagram`], [`send_datagrams`] | their result; [`SendReady`] when a full socket has room |
//! | [`watch`], [`rewatch`] | [`Ready`], [`DescriptorLost`] |
//! | [`waker`] | [`wait`] returns, and the [`poller`] becomes readable |
//! | [`clock`] | the time, which is the backend's business too |
//!
//! Rules for a backend:
//! 1. A backend never calls out. [`next`] hands completions over one at a time, so the reactor
//!    holds no borrow of the backend while a protocol runs.
//! 2. No completion is handed over for a closed id. Later events of the poller for that id are
//!    dropped and counted.
//! 3. One turn hands over at most [`RECEIVE`] bytes per connection, and a bounded number of
//!    accepted connections per port. This budget keeps one fast peer from starving the others. The
//!    remainder is handed over in the next turn, which does not wait.
//! 4. While a connection is not receiving, nothing is read from it, and no readiness is forgotten.
//!    A fatal error is reported all the same. Bytes that arrived before the error stay for
//!    [`receive_rest`].
//! 5. `wait` never returns before its deadline unless something happened, and no later than the
//!    system's timers allow. The deadline reaches the system in nanoseconds. If the system counts
//!    in milliseconds, another call covers the rest.
//!
//! [`listen`]: Backend::listen
//! [`accept`]: Backend::accept
//! [`pause_accept`]: Backend::pause_accept
//! [`stop_listening`]: Backend::stop_listening
//! [`Accepted`]: Completion::Accepted
//! [`NoDescriptors`]: Completion::NoDescriptors
//! [`Shed`]: Completion::Shed
//! [`AcceptFailed`]: Completion::AcceptFailed
//! [`connect`]: Backend::connect
//! [`Connected`]: Completion::Connected
//! [`ConnectFailed`]: Completion::ConnectFailed
//! [`receive`]: Backend::receive
//! [`receive_rest`]: Backend::receive_rest
//! [`Received`]: BackendEvent::Received
//! [`EndOfStream`]: Completion::EndOfStream
//! [`Broken`]: Completion::Broken
//! [`adopt_descriptors`]: Backend::adopt_descriptors
//! [`send`]: Backend::send
//! [`SendReady`]: Completion::SendReady
//! [`Returned`]: BackendEvent::Returned
//! [`bind_datagrams`]: Backend::bind_datagrams
//! [`receive_datagrams`]: Backend::receive_datagrams
//! [`send_datagram`]: Backend::send_datagram
//! [`send_datagrams`]: Backend::send_datagrams
//! [`DatagramsReady`]: Completion::DatagramsReady
//! [`watch`]: Backend::watch
//! [`rewatch`]: Backend::rewatch
//! [`Ready`]: Completion::Ready
//! [`DescriptorLost`]: Completion::DescriptorLost
//! [`waker`]: Backend::waker
//! [`wait`]: Backend::wait
//! [`poller`]: Backend::poller
//! [`clock`]: Backend::clock
//! [`next`]: Backend::next

mod adopted;
mod any;
mod batch;
mod closed;
mod datagrams;
mod files;
mod fine_timer;
mod foreign;
mod mio;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod mmsg;
mod monotonic;
mod options;
mod outstanding;
mod pipe;
mod pipe_threads;
mod poller;
mod readiness;
mod reported;
pub(super) mod socket;
mod socket_file;
mod system;
mod table;
#[cfg(test)]
mod tests;
mod udp;
mod unix_datagrams;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod uring;

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::address::{Address, AddressPair};
use crate::datagram::{DatagramOption, DatagramQueue, DatagramSend, DatagramSocketOptions, DatagramValue, Destination};
use crate::error::AdoptError;
use crate::reactor::interest::{Interest, Ready};
use crate::transport::driver::{Credentials, SocketOption};
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;
use crate::transport::send_queue::InFlight;

pub(crate) use self::adopted::{AdoptedOptions, Examined, Role};
pub(in crate::reactor) use self::adopted::{accept_from, prepare_named};
pub(crate) use self::any::AnyBackend;
#[cfg(feature = "testing")]
pub(crate) use self::batch::ReceivedDatagram;
pub(crate) use self::batch::{DatagramBatch, TakenDatagram};
pub(crate) use self::closed::Closed;
pub(in crate::reactor) use self::files::{bytes_left, duplicate};
pub(crate) use self::mio::Mio;
use self::monotonic::Monotonic;
pub(crate) use self::options::{ConnectionOptions, DialOptions, PortOptions, PortPolicies};
pub(crate) use self::pipe::PipeEnds;
pub(crate) use self::pipe_threads::EndError;
pub(in crate::reactor) use self::socket_file::lock_of;
pub(crate) use self::udp::{DatagramReceive, DatagramsBound};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use self::uring::Buffer;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) use self::uring::Uring;

/// Bytes that one connection may deliver in a turn, and the size of one receive by a plain call. 64
/// KiB, as Twisted.
pub(crate) const RECEIVE: usize = 64 * 1024;

/// Makes the reactor's system calls.
pub(crate) trait Backend {
    /// Returns the clock, which starts at zero when the backend is made. Deadlines of
    /// [`wait`](Self::wait) are on its scale.
    fn clock(&self) -> Box<dyn Fn() -> Duration>;

    /// Makes a listening socket. A UNIX socket also gets its file, which is removed when the socket
    /// is closed. Accepting starts at once.
    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal>;

    /// Resumes accepting after [`pause_accept`](Self::pause_accept), [`Completion::AcceptFailed`]
    /// or [`Completion::NoDescriptors`].
    fn accept(&mut self, id: Id);

    /// Suspends accepting until [`accept`](Self::accept). No connection is handed over meanwhile:
    /// connections wait in the system's queue, or in the backend if it has accepted them already.
    /// [`stop_listening`](Self::stop_listening) returns these too.
    fn pause_accept(&mut self, id: Id);

    /// Closes a listening socket, so that its address is free. Returns the connections that the
    /// system had accepted by then.
    fn stop_listening(&mut self, id: Id) -> Vec<Incoming>;

    /// Resets an accepted connection that is not to be served.
    fn refuse(&mut self, socket: IncomingSocket);

    /// Takes over an accepted connection under `id`.
    fn adopt(&mut self, id: Id, socket: IncomingSocket) -> io::Result<()>;

    /// Examines a socket of the program's, and makes it ready for [`adopt`](Self::adopt) or
    /// [`adopt_port`](Self::adopt_port). A backend without descriptors refuses.
    fn examine(
        &self,
        _descriptor: BorrowedFd<'_>,
        _role: Role,
        _options: &AdoptedOptions,
    ) -> Result<Examined, AdoptError> {
        Err(AdoptError::Unsupported)
    }

    /// Takes over a [prepared](prepare_named) stream socket of the program's under `id`: it is
    /// nonblocking, and gets the mode that the backend needs. An error gives it back. A backend
    /// without descriptors refuses.
    fn adopt_stream(&mut self, _id: Id, socket: OwnedFd, _unix: bool) -> Result<(), (OwnedFd, io::Error)> {
        Err((socket, io::ErrorKind::Unsupported.into()))
    }

    /// Takes over descriptors that are not one socket, under `id`, as a stream. A writing end whose
    /// reader is gone is [`Completion::Broken`]. A backend without descriptors refuses.
    ///
    /// # Errors
    /// The system's: `EPERM` if it cannot poll this kind of file. The descriptors are closed.
    fn adopt_descriptors(&mut self, _id: Id, _ends: PipeEnds) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns `true` if a close of `id` may be a reset that destroys sent bytes, so that the
    /// socket is read on for a while before.
    fn lingers(&self, _id: Id) -> bool {
        true
    }

    /// Takes over an examined listening socket. Accepting starts at once. With `remove_file`, the
    /// file of a UNIX socket is removed when the socket is closed. An error gives the socket back.
    fn adopt_port(
        &mut self,
        _id: Id,
        socket: OwnedFd,
        _host: &Address,
        _options: &PortOptions,
        _remove_file: bool,
    ) -> Result<(), (OwnedFd, io::Error)> {
        Err((socket, io::ErrorKind::Unsupported.into()))
    }

    /// Notes that the socket of `id` has a second descriptor, perhaps in another process: closing
    /// ours does not end it, and others accept from it.
    fn share(&mut self, _id: Id) -> io::Result<()> {
        Ok(())
    }

    /// Leaves the connections that wait at a port to the other descriptors of its socket.
    fn leave_waiting(&mut self, _id: Id) {}

    /// Leaves the file of a UNIX port behind when the port stops.
    fn leave_file(&mut self, _id: Id) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Starts a connection attempt. The outcome is a completion, even if it is known at once.
    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal>;

    /// Starts or stops receiving. A datagram socket that is to receive is reported in the next
    /// turn, even if nothing has arrived.
    fn receive(&mut self, id: Id, on: bool);

    /// Receives the bytes that arrived before a fatal error, which a send or [`Completion::Broken`]
    /// has reported. [`Completion::EndOfStream`] or [`Completion::Broken`] marks their end.
    /// [`receive`](Self::receive) pauses this, and another call resumes it.
    fn receive_rest(&mut self, id: Id);

    /// Returns `true` if the stream can send descriptors, and receive them along with bytes.
    fn passes_descriptors(&self, id: Id) -> bool;

    /// Returns `true` if the queue of the stream may have parts of files.
    fn sends_files(&self, _id: Id) -> bool {
        false
    }

    /// Sends from the front of the queue, and removes the sent bytes from it. Alternatively takes a
    /// chunk of it in flight, as far as its [`SendMode`](crate::transport::outgoing::SendMode)
    /// allows. That chunk comes back as a completion when it was sent.
    fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress>;

    /// Gives back a chunk that is in flight, with the number of its bytes that the socket has
    /// taken. Returns `None` if there is no such chunk, or if the socket is still busy with it.
    fn recall(&mut self, _id: Id) -> Option<(InFlight, io::Result<usize>)> {
        None
    }

    /// Passes bytes that are in no queue to the socket, as many as it takes at once. Returns their
    /// number. The socket holds back the last of them until the next send or
    /// [`uncork`](Self::uncork). Systems without `MSG_MORE` send them at once.
    fn send_now(&mut self, id: Id, data: &[u8]) -> usize;

    /// Makes the socket send the bytes held back since [`send_now`](Self::send_now): nothing
    /// follows.
    fn uncork(&mut self, id: Id) {
        if let Some(socket) = self.descriptor(id) {
            socket::uncork(socket);
        }
    }

    /// Ends our direction of the stream.
    fn shut_down_writing(&mut self, id: Id);

    /// Ends our direction of a stream that is about to be closed, where another descriptor may keep
    /// its socket open. Elsewhere the close ends it.
    fn end_shared(&mut self, _id: Id) {}

    /// Returns `true` if the peer has acknowledged all sent bytes, and no received byte is unread.
    fn is_acknowledged(&self, id: Id) -> bool {
        let is_done = |socket| outstanding::is_acknowledged(socket) && !socket::has_unread(socket);
        self.descriptor(id).is_some_and(is_done)
    }

    /// Closes the source of `id`, which is anything but a listening socket. With `reset`, the
    /// connection is reset. Otherwise the bytes that already arrived are read first, so that a
    /// plain close does not become a reset. That read is bounded and does not wait.
    fn close(&mut self, id: Id, reset: bool);

    /// Makes the poller anew, in a forked child of the process that made it. The reactor has not
    /// waited for anything before the fork. So there are only ports, connection attempts, adopted
    /// connections and pipes, which go on. (Threads that read or write for a pipe do not.)
    fn reopen(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a datagram socket under `id`, and starts to receive. A UNIX socket with a path gets
    /// its file, which is removed when the socket is closed, and one without a name is not bound. A
    /// backend without datagrams refuses.
    ///
    /// # Errors
    /// As [`listen`](Self::listen). `Unsupported`: the backend has no datagrams.
    fn bind_datagrams(&mut self, _id: Id, _address: &Address, _with: &DatagramSocketOptions) -> DatagramsBound {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    /// Receives datagrams of a socket that is [ready](Completion::DatagramsReady), as many as the
    /// batch has room for. Unless it was left to the next turn ([`receive`](Self::receive)), the
    /// socket is not reported before something arrives.
    fn receive_datagrams(&mut self, _id: Id, _batch: &mut DatagramBatch) -> DatagramReceive {
        DatagramReceive::Empty
    }

    /// Sends a datagram at once.
    fn send_datagram(&mut self, _id: Id, _data: &[u8], _to: Destination<'_>) -> DatagramSend {
        DatagramSend::Failed(io::ErrorKind::NotConnected.into())
    }

    /// Sends the first datagrams of a queue, as many as one call takes. Returns their number. The
    /// queue itself is not changed.
    fn send_datagrams(&mut self, _id: Id, _queue: &DatagramQueue) -> (usize, DatagramSend) {
        (0, DatagramSend::Failed(io::ErrorKind::NotConnected.into()))
    }

    /// Gives a datagram socket a peer. Returns its own address.
    fn connect_datagrams(&mut self, id: Id, peer: Destination<'_>) -> io::Result<Address> {
        udp::connect(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?, peer)
    }

    /// Sets an option of a datagram socket.
    fn set_datagram_option(&mut self, id: Id, option: DatagramOption) -> io::Result<()> {
        udp::set_option(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?, option)
    }

    /// Returns the value of an option of a datagram socket.
    fn datagram_option(&self, id: Id, option: DatagramValue) -> io::Result<u32> {
        udp::option(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?, option)
    }

    /// Submits all pending requests to the system. The next [`wait`](Self::wait) does so too, but
    /// may be far off.
    fn flush(&mut self) {}

    /// Watches a foreign descriptor until [`close`](Self::close), or until it is
    /// [lost](Completion::DescriptorLost). It is level-triggered: each turn reports each descriptor
    /// that is ready, once. An interest in nothing reports nothing.
    ///
    /// # Errors
    /// The system's: `EBADF`, `EPERM` for a regular file, `EEXIST` if it is watched already.
    fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()>;

    /// Changes the interest of a watch, which is checked on that occasion.
    ///
    /// # Errors
    /// `EBADF` or `ENOENT`: the descriptor was closed, or its number belongs to another file.
    /// `Unsupported`: the system has no such interest. `id` names nothing any more.
    fn rewatch(&mut self, id: Id, interest: Interest) -> io::Result<()>;

    /// Waits for an event, at most until the [clock](Self::clock) reads `until`. `None` waits
    /// without limit. Zero does not wait at all.
    fn wait(&mut self, until: Option<Duration>) -> io::Result<()>;

    /// Returns `true` if a wait would last until its deadline, unless something happens. `false`:
    /// it returns at once, because events are left over.
    fn is_idle(&mut self) -> bool {
        true
    }

    /// Returns a descriptor for the poller of a host: it becomes readable when a wait would return
    /// for another reason than its deadline or [`is_idle`](Self::is_idle). The backend keeps
    /// reporting to it until [`end_hosting`](Self::end_hosting).
    fn poller(&mut self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Prepares a wait of the host: submits all pending requests, and silences the
    /// [`poller`](Self::poller) as far as it reports known events. Returns
    /// [`is_idle`](Self::is_idle).
    fn prepare_to_wait(&mut self) -> bool {
        self.is_idle()
    }

    /// Ends the reports to the [`poller`](Self::poller).
    fn end_hosting(&mut self) {}

    /// Fast path of [`next`](Self::next): returns the stream that received bytes, if that is the
    /// next event and nothing else belongs to it. `None` carries no information: call `next`.
    #[inline]
    fn next_received(&mut self, _inbox: &mut Inbox) -> Option<Id> {
        None
    }

    /// Returns the next event. Received bytes stay in the inbox until the next call.
    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)>;

    /// Returns a handle that wakes [`wait`](Self::wait) from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Returns the index of the network interface with this name.
    fn interface_index(&self, name: &str) -> io::Result<u32> {
        socket::interface_index(name)
    }

    /// Sets an option of a stream's socket.
    fn set_option(&mut self, id: Id, option: SocketOption) -> io::Result<()> {
        socket::set_option(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?, option)
    }

    /// Returns the descriptor of a stream, of a port or of a datagram socket, for its options.
    fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>>;

    /// Returns `true` if Nagle's algorithm is off.
    fn no_delay(&self, id: Id) -> io::Result<bool> {
        socket::no_delay(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Returns `true` if keep-alive is on.
    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        socket::keep_alive(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Returns the credentials of the peer of a UNIX socket.
    fn peer_credentials(&self, id: Id) -> io::Result<Credentials> {
        socket::peer_credentials(self.descriptor(id).ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Returns the number of events that were dropped because their id was closed.
    fn stale(&self) -> u64;
}

/// The longest wait that a kernel is asked for. 24 days: 31 bits of milliseconds, the most that
/// `epoll_wait` takes. A later deadline takes several turns. (Of a longer wait, epoll would see the
/// low bits only, and io_uring a time in the past.)
const LONGEST_WAIT: Duration = Duration::from_millis(i32::MAX as u64);

/// Wakes a sleeping backend.
pub(crate) trait Wake: Send + Sync {
    /// Wakes the backend. Callable from any thread; cheap if the backend is already awake.
    fn wake(&self);
}

/// The reason why there is no listening socket.
#[derive(Debug)]
pub(crate) enum ListenRefusal {
    /// Another process or socket holds the lock of the UNIX socket.
    Locked,
    /// There is no descriptor for a socket.
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

/// The reason why a connection attempt could not even begin.
#[derive(Debug)]
pub(crate) enum ConnectRefusal {
    /// The local address is not available.
    Bind(io::Error),
    /// There is no descriptor for a socket.
    NoDescriptors(io::Error),
    /// The socket was not made, or a call on it failed.
    Socket(io::Error),
    /// The peer's queue is full, and no event tells when it has room: retry after a delay.
    Busy,
}

/// The result of a send, with the number of sent bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The send used up its budget of this turn: call again in the next one.
    Advanced(usize),
    /// The socket is full: [`Completion::SendReady`] follows.
    Blocked(usize),
    /// The system lacks memory for more at the moment: retry after a delay.
    Starved(usize),
}

/// An event: the two that a busy connection consists of, and all others.
#[derive(Debug)]
pub(crate) enum BackendEvent {
    /// Bytes were received. They are in the inbox.
    Received,
    /// A chunk that was in flight, and the number of its bytes that were sent. If the system lacked
    /// memory, the error is `OutOfMemory`.
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
    /// A port has accepted a connection.
    Accepted(Incoming),
    /// A port has no descriptor for a waiting connection. [`Backend::accept`] retries, once other
    /// descriptors were closed. Otherwise the port [sheds](Self::Shed) the waiting connections.
    NoDescriptors,
    /// Descriptors ran out. This many waiting connections were closed instead of accepted, so that
    /// their peers know.
    Shed(usize),
    /// Accepting failed, and is suspended until [`Backend::accept`].
    AcceptFailed(io::Error),
    /// The attempt succeeded. From here on `id` is a stream, not yet receiving. The address is the
    /// local one.
    Connected(Address),
    /// The attempt failed. `id` names nothing any more.
    ConnectFailed(io::Error),
    /// The peer has ended its direction of the stream.
    EndOfStream,
    /// A blocked send can go on.
    SendReady,
    /// A fatal network error. With `rest`, bytes that arrived before it were not handed over:
    /// [`Backend::receive_rest`] delivers them.
    Broken { error: io::Error, rest: bool },
    /// A datagram socket may have something to receive.
    DatagramsReady,
    /// A watched descriptor is ready.
    Ready(Ready),
    /// A watched descriptor was closed by its owner, or its number belongs to another file. `id`
    /// names nothing any more.
    DescriptorLost(io::Error),
}

/// An accepted connection that has no id yet. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) socket: IncomingSocket,
    pub(crate) ends: AddressPair,
}

/// An accepted connection, as the backend that accepted it represents it.
#[derive(Debug)]
pub(crate) enum IncomingSocket {
    Descriptor {
        socket: OwnedFd,
        unix: bool,
    },
    /// The representation of a backend without descriptors.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "the test kit has such a backend"))]
    Other(Box<dyn Any>),
}

/// Holds received bytes. The reactor owns it, and lends it to each [`Backend::next`].
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The buffer for receives by plain calls. It has [`RECEIVE`] bytes once it was used.
    scratch: Box<[u8]>,
    chunk: Chunk,
    descriptors: Vec<OwnedFd>,
}

/// The location of the bytes of a [`BackendEvent::Received`].
#[derive(Debug)]
enum Chunk {
    /// The first bytes of the inbox's own buffer, this many.
    Scratch(usize),
    /// A buffer of the kernel, which gets it back when this is dropped.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Lent(Buffer),
}

impl Default for Chunk {
    fn default() -> Self {
        Self::Scratch(0)
    }
}

impl Inbox {
    /// Returns the bytes of the last [`BackendEvent::Received`].
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.chunk {
            Chunk::Scratch(filled) => &self.scratch[..*filled],
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Chunk::Lent(buffer) => buffer,
        }
    }

    /// Takes the descriptors that came with the bytes, if there are any.
    #[inline]
    pub(crate) fn take_descriptors(&mut self) -> Option<Vec<OwnedFd>> {
        if self.descriptors.is_empty() { None } else { Some(std::mem::take(&mut self.descriptors)) }
    }

    /// Returns room for [`RECEIVE`] bytes and a list for descriptors, to be [`fill`](Self::fill)ed.
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

    /// Marks the first `count` bytes of the room as received.
    #[inline(always)]
    pub(crate) fn fill(&mut self, count: usize) {
        match &mut self.chunk {
            Chunk::Scratch(filled) => *filled = count,
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            chunk @ Chunk::Lent(..) => *chunk = Chunk::Scratch(count),
        }
    }

    /// Stores received bytes that are in a buffer of the kernel.
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
