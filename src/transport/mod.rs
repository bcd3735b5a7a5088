//! The transport side of a connection (Twisted: `ITransport`, `ITCPTransport`,
//! `twisted.internet.tcp.Connection`).
//!
//! [`Transport`] is the handle that a protocol is given. Behind it is a state machine without any
//! I/O (`stream/`): the reactor reports events to it, and asks it for the next thing to do. This
//! room makes no system call and knows no protocol.
//!
//! **Peers that do not read.** Written bytes that the peer does not take wait in the connection's
//! queue, which has no limit of its own. Three methods bound it:
//!
//! | | bounds | by |
//! |---|---|---|
//! | [`register_producer`](Transport::register_producer) | one producer's bytes | pausing it at the [marks](Transport::set_write_marks) |
//! | [`set_queue_limit`](Transport::set_queue_limit) | all queued bytes | telling the protocol, pausing the peer, or aborting |
//! | [`set_close_timeout`](Transport::set_close_timeout) | the time that a close waits for a stuck peer | aborting |

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

pub(crate) mod context;
mod discard;
mod drained;
pub(crate) mod driver;
pub(crate) mod file;
pub(crate) mod id;
pub(crate) mod layer;
pub(crate) mod observer;
pub(crate) mod outgoing;
pub(crate) mod policy;
mod producer;
pub(crate) mod queue_limit;
mod readdressed;
mod rest;
pub(crate) mod send_queue;
pub(crate) mod settle;
mod shared;
mod socket;
pub(crate) mod step;
pub(crate) mod stream;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::address::{Address, AddressPair};
use crate::error::ConnectionClosed;
use crate::failure::guarded;
use crate::log::error;
use crate::time::Timers;
pub use bytes::Bytes;
use context::{Entered, TransportContext};
pub use discard::DiscardMode;
pub use driver::Credentials;
use driver::{Driver, SocketOption};
use id::Id;
use layer::{Layer, Opened};
use observer::Callback;
pub(crate) use producer::Notice;
pub use producer::{Producer, ProducerError, Streaming, TransportProducer};
pub use queue_limit::{LimitAction, QueueLimit};
use send_queue::BufferPool;
use stream::Stream;

/// A longer write onto an empty queue goes to the socket at once, which saves a copy. 32 KiB: such
/// a write costs one more system call, because later writes are to leave with it. Up to this size a
/// copy costs less (`docs/costs.md`).
const COPIED_WRITE_BYTES: usize = 32 * 1024;

/// One end of a connection (Twisted: `ITransport`): a protocol writes to it, and closes with it.
///
/// It is a cheap handle: clone it, keep it, and use it from any callback on the reactor's thread
/// (it is not `Send`). Every request takes effect at the end of the reactor's turn, or later. No
/// request calls a protocol before the present callback has returned. Once the connection is over,
/// requests are ignored.
///
/// ```
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Answers every segment, and closes after "bye".
/// struct Polite;
///
/// impl Protocol for Polite {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(b"you said: ");
///         transport.write(data);
///         if data.starts_with(b"bye") {
///             transport.lose_connection();
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Transport(Rc<TransportInner>);

struct TransportInner {
    id: Id,
    context: Rc<TransportContext>,
    stream: RefCell<Stream>,
    ends: AddressPair,
}

impl Transport {
    pub(crate) fn new(id: Id, context: Rc<TransportContext>, ends: AddressPair) -> Self {
        Self(Rc::new(TransportInner { id, context, stream: RefCell::new(Stream::new()), ends }))
    }

    /// Queues bytes to be sent (Twisted: `write`).
    ///
    /// They leave at the end of this turn of the reactor, in one system call with everything else
    /// that was written. Bytes that the socket does not take are kept, and sent when it has room. A
    /// piece of more than 32 KiB with nothing queued before it goes to the system at once, so that
    /// it is not copied, and leaves with the others.
    ///
    /// The queue has no limit by default. If the peer decides how much is written, set one
    /// ([`set_queue_limit`](Self::set_queue_limit)), or watch [`queued_bytes`](Self::queued_bytes).
    /// Bytes written after [`lose_connection`](Self::lose_connection) and before the connection has
    /// closed are still sent. After `lose_write_connection` took effect, and once the connection is
    /// over, bytes are dropped.
    pub fn write(&self, data: &[u8]) {
        self.write_on(&mut self.0.stream.borrow_mut(), data);
    }

    /// Does the same with the stream of this transport, which the caller has borrowed.
    #[inline(always)]
    pub(crate) fn write_on(&self, stream: &mut Stream, data: &[u8]) {
        let is_small = data.len() <= COPIED_WRITE_BYTES && stream.is_fast_path() && self.0.context.observer().is_none();
        if is_small && stream.queue.push_first(data, &self.0.context.pool) {
            self.mark_stream_dirty(stream);
        } else {
            self.write_slow(stream, data);
        }
    }

    /// Slow path: any write but a small one onto an empty queue.
    #[inline(never)]
    fn write_slow(&self, stream: &mut Stream, data: &[u8]) {
        if !stream.accepts_writes() {
            return;
        }
        self.observe_write(stream, data);
        stream.note_written(data);
        let rest = if data.len() > COPIED_WRITE_BYTES && stream.may_send_directly() {
            let count = self.0.context.driver.upgrade().map_or(0, |driver| driver.send_now(self.0.id, data));
            stream.sent_directly(count);
            &data[count..]
        } else {
            data
        };
        stream.push(rest, &self.0.context.pool);
        self.mark_stream_dirty(stream);
    }

    /// Writes each piece, in order, as [`write`](Self::write) does (Twisted: `writeSequence`).
    pub fn write_sequence<T: AsRef<[u8]>>(&self, pieces: impl IntoIterator<Item = T>) {
        for piece in pieces {
            self.write(piece.as_ref());
        }
    }

    /// Sends a descriptor with the first byte of `data` (Twisted: `sendFileDescriptor`, whose
    /// descriptors leave with bytes that have to be written apart).
    ///
    /// With empty `data`, the descriptor leaves with the first byte that is queued already and has
    /// none.
    ///
    /// It works over a UNIX socket only. Our descriptor is closed once it was sent, and the peer
    /// then has its own. The descriptor arrives at the peer no later than that byte, if the peer's
    /// process may have another descriptor. A system without room for it drops it, and only the
    /// peer can know. If more descriptors are in flight than this process may have, the descriptor
    /// waits.
    ///
    /// # Errors
    /// Gives the descriptor back if
    /// - `data` is empty, and each queued byte has a descriptor,
    /// - this is no UNIX socket of the system, or TLS was started on it,
    /// - nothing can be written any more, or
    /// - `data` passes the [limit of the queue](QueueLimit::abort).
    ///
    /// # Examples
    /// ```
    /// use ropewalk::interfaces::*;
    /// use ropewalk::{Result, Transport};
    ///
    /// /// Hands a file to each peer.
    /// struct Librarian;
    ///
    /// impl Protocol for Librarian {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         let book = std::fs::File::open("/etc/hostname")?;
    ///         transport.send_file_descriptor(book.into(), b"hostname\n")?;
    ///         transport.lose_connection();
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn send_file_descriptor(&self, descriptor: OwnedFd, data: &[u8]) -> Result<(), NotSent> {
        let passes = self.driver().is_ok_and(|driver| driver.passes_descriptors(self.0.id));
        let mut stream = self.0.stream.borrow_mut();
        if !passes || stream.is_layered() || !stream.accepts_writes() {
            return Err(NotSent(descriptor));
        }
        if data.is_empty() {
            return stream.attach_to_queued(descriptor).map_err(NotSent);
        }
        if !stream.admits(data.len()) {
            self.mark_stream_dirty(&mut stream);
            return Err(NotSent(descriptor));
        }
        self.observe_write(&stream, data);
        stream.note_written(data);
        stream.attach(descriptor);
        stream.push(data, &self.0.context.pool);
        self.mark_stream_dirty(&mut stream);
        Ok(())
    }

    /// Closes the connection once all written bytes have been sent (Twisted: `loseConnection`).
    ///
    /// No more data is delivered. A peer that takes no queued bytes for the whole
    /// [close timeout](Self::set_close_timeout) is cut off. Unread input does not destroy the bytes
    /// that were sent: after `connection_lost` the reactor goes on reading for a short while, and
    /// drops the input.
    pub fn lose_connection(&self) {
        self.update(Stream::lose);
    }

    /// Closes the connection and drops the queue (Twisted: `abortConnection`). The peer sees a
    /// reset.
    ///
    /// ```
    /// use ropewalk::testing::{AccumulatingProtocol, StringTransport};
    ///
    /// let connection = StringTransport::new().joined(AccumulatingProtocol::new());
    /// connection.transport().abort_connection();
    /// connection.turn();
    /// assert!(connection.string().is_aborted());
    /// assert_eq!(connection.lost().unwrap().to_string(), "the connection was aborted");
    /// ```
    pub fn abort_connection(&self) {
        self.update(|stream| stream.abort(ConnectionClosed::Aborted.into()));
    }

    /// Shuts the write direction once all written bytes have been sent, and goes on receiving
    /// (Twisted: `loseWriteConnection`).
    pub fn lose_write_connection(&self) {
        self.update(Stream::lose_write);
    }

    /// Stops delivery: `data_received` is not called until
    /// [`resume_producing`](Self::resume_producing) (Twisted: `pauseProducing`).
    ///
    /// The peer's window fills, and it has to wait. A reset is noticed even so. An end of stream is
    /// noticed after resuming, behind the bytes before it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, Protocol, Result, Transport};
    ///
    /// /// Takes one chunk a second.
    /// struct Slow;
    ///
    /// impl Protocol for Slow {
    ///     fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         transport.pause_producing();
    ///         let paused = transport.clone();
    ///         transport.timers().call_later(Duration::from_secs(1), move || paused.resume_producing());
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn pause_producing(&self) {
        self.update(Stream::pause);
    }

    /// Resumes delivery, from the next turn on (Twisted: `resumeProducing`).
    pub fn resume_producing(&self) {
        self.update(Stream::resume);
    }

    /// Resumes delivery if it is paused. Otherwise the connection does not become dirty.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams ask"))]
    pub(crate) fn resume_if_paused(&self) {
        if self.stream().asked_to_pause() {
            self.resume_producing();
        }
    }

    /// Returns the address of this end (Twisted: `getHost`).
    pub fn host(&self) -> Address {
        self.0.ends.host()
    }

    /// Returns the address of the other end (Twisted: `getPeer`).
    pub fn peer(&self) -> Address {
        self.0.ends.peer()
    }

    /// Number of written bytes that the operating system has not taken yet. Over TLS, bytes that
    /// are sealed already count with their sealed size, which is a little larger.
    ///
    /// ```
    /// use ropewalk::testing::{AccumulatingProtocol, StringTransport};
    ///
    /// let connection = StringTransport::new().joined(AccumulatingProtocol::new());
    /// connection.transport().write(b"hello");
    /// assert_eq!(connection.transport().queued_bytes(), 5);
    /// connection.turn();
    /// assert_eq!(connection.transport().queued_bytes(), 0);
    /// ```
    pub fn queued_bytes(&self) -> usize {
        self.0.stream.borrow().queued_bytes()
    }

    /// Returns `true` if the connection is closing or closed (Twisted: `disconnecting`): after
    /// `lose_connection`, `abort_connection`, the peer's end of stream, or a failed callback.
    pub fn is_disconnecting(&self) -> bool {
        self.0.stream.borrow().is_closing()
    }

    /// Returns `true` if the connection is over (Twisted: `disconnected`): `connection_lost` was
    /// called, or will be in this turn.
    pub fn is_disconnected(&self) -> bool {
        self.0.stream.borrow().is_over()
    }

    /// Sets the time that `lose_connection` waits for a peer that takes no queued bytes. `None`
    /// waits without limit, as Twisted does. The default is 30 s. Each byte that the peer takes
    /// starts the time anew.
    pub fn set_close_timeout(&self, timeout: Option<Duration>) {
        self.update(|stream| stream.set_close_timeout(timeout));
    }

    /// Bounds the bytes that are queued for the peer. `None` is no bound, as in Twisted.
    ///
    /// A connection begins without a limit, unless the options of the port or of the attempt have
    /// one. A new limit takes effect at once, even on bytes that are queued already. A connection
    /// that is closing keeps its limit: a write after `lose_connection` can still exceed it.
    ///
    /// ```
    /// use ropewalk::transport::QueueLimit;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Sends a feed, and drops what a slow subscriber misses.
    /// struct Feed { skipping: bool }
    ///
    /// impl Protocol for Feed {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         transport.set_queue_limit(Some(QueueLimit::tell(1 << 20)));
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    ///
    ///     fn queue_limit_reached(&mut self, _transport: &Transport) -> Result<()> {
    ///         self.skipping = true;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn set_queue_limit(&self, limit: Option<QueueLimit>) {
        self.update(|stream| stream.set_limit(limit));
    }

    /// Returns the bound on the bytes that are queued for the peer, if there is one.
    pub fn queue_limit(&self) -> Option<QueueLimit> {
        self.stream().limit()
    }

    /// Returns the timers of the reactor, or of the virtual clock that the test kit drives this
    /// connection by (Twisted: the reactor that a protocol imports; `TimeoutMixin.callLater`).
    ///
    /// Calls are not tied to the connection: cancel them in `connection_lost`, or let them find out
    /// that it is over. Once the reactor is closed, a call is cancelled from the start.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::{Clock, Protocol, Result, Transport};
    ///
    /// /// Closes after a minute.
    /// struct Brief;
    ///
    /// impl Protocol for Brief {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         let over = transport.clone();
    ///         transport.timers().call_later(Duration::from_secs(60), move || over.lose_connection());
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Brief);
    /// connection.advance(Duration::from_secs(60));
    /// assert!(connection.lost().is_some());
    /// ```
    pub fn timers(&self) -> Timers {
        self.0.context.driver.upgrade().map_or_else(Timers::closed, |driver| driver.timers())
    }

    /// Shows `look` the queue of the reactor for calls from other threads, if there is a reactor.
    pub(crate) fn remote(&self, look: &mut dyn FnMut(&dyn Any)) {
        if let Some(driver) = self.0.context.driver.upgrade() {
            driver.remote(look);
        }
    }

    /// Gives a new connection its limit, without marking it as dirty: there is nothing to do about
    /// it yet.
    #[inline]
    pub(crate) fn begin_with_limit(&self, limit: Option<QueueLimit>) {
        if limit.is_some() {
            self.stream().set_limit(limit);
        }
    }

    /// Aborts the connection because too many bytes are queued.
    pub(crate) fn abort_over_limit(&self) {
        self.update(Stream::abort_over_limit);
    }

    pub(crate) fn id(&self) -> Id {
        self.0.id
    }

    /// Borrows the state machine, for the joint and the reactor. Nothing may call out while it is
    /// borrowed.
    #[inline]
    pub(crate) fn stream(&self) -> std::cell::RefMut<'_, Stream> {
        self.0.stream.borrow_mut()
    }

    /// Decides what to do with bytes that came from the network.
    #[inline(always)]
    pub(crate) fn arrived(&self, data: &[u8]) -> step::Delivery {
        let mut stream = self.stream();
        if stream.delivers_plainly() { step::Delivery::Deliver } else { self.arrived_slow(&mut stream, data) }
    }

    #[inline(never)]
    fn arrived_slow(&self, stream: &mut Stream, data: &[u8]) -> step::Delivery {
        let delivery = stream.received_slow(0, data);
        if stream.note_arrival(data.len()) {
            self.mark_stream_dirty(stream);
        }
        delivery
    }

    /// Puts the connection on the reactor's dirty list, once.
    pub(crate) fn mark_dirty(&self) {
        self.mark_stream_dirty(&mut self.0.stream.borrow_mut());
    }

    /// Does the same as [`mark_dirty`](Self::mark_dirty) while the state machine is borrowed.
    #[inline(always)]
    pub(crate) fn mark_stream_dirty(&self, stream: &mut Stream) {
        if stream.mark_dirty() {
            self.0.context.add_dirty(self);
        }
    }

    fn pool(&self) -> &BufferPool {
        &self.0.context.pool
    }

    /// Shows `look` the joint above this transport, unless the connection is over.
    pub(crate) fn above(&self, look: &mut dyn FnMut(&dyn Any)) {
        if let Some(driver) = self.0.context.driver.upgrade() {
            driver.above(self.0.id, look);
        }
    }

    /// Keeps a call until the protocol is free.
    pub(crate) fn wait(&self, call: impl FnOnce() + 'static) {
        self.0.context.wait(self.0.id, Box::new(call));
    }

    /// Returns `true` if calls wait for the protocol.
    pub(crate) fn has_waiting_calls(&self) -> bool {
        self.0.context.has_waiting_for(self.0.id)
    }

    /// Makes the calls that wait for the protocol, which is free now, and the calls that those add.
    #[inline]
    pub(crate) fn make_waiting_calls(&self) {
        if self.0.context.has_waiting() {
            self.make_calls();
        }
    }

    #[cold]
    fn make_calls(&self) {
        while let Some(call) = self.0.context.next_waiting(self.0.id) {
            // The call itself is guarded, but its captured values may panic if they are dropped
            // without a call.
            if let Err(panic) = guarded(call) {
                error!(peer = %self.peer(), %panic, "a waiting call panicked when it was dropped");
            }
        }
    }

    /// Marks a protocol as entered from outside, until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.context.enter()
    }

    /// Puts a layer between the protocol and the network. `None`: a direction has ended, or will.
    pub(crate) fn add_layer(&self, layer: Box<dyn Layer>) -> Option<()> {
        let mut stream = self.0.stream.borrow_mut();
        if !stream.takes_layers() {
            return None;
        }
        if let Some(observer) = self.0.context.observer() {
            observer.layered(self.0.id, stream.levels() + 1);
        }
        let opened = stream.add_layer(layer, &self.0.context.pool);
        if let Some(failure) = opened.failure {
            stream.fail(failure);
        }
        self.mark_stream_dirty(&mut stream);
        Some(())
    }

    /// Hands bytes to the layer of their level.
    pub(crate) fn open(&self, level: usize, data: &[u8]) -> Opened {
        let mut stream = self.0.stream.borrow_mut();
        let opened = stream.open(level, data, &self.0.context.pool);
        self.mark_stream_dirty(&mut stream);
        drop(stream);
        if opened.unanswered {
            // A peer with Nagle's algorithm on does not send its first request until its last
            // handshake message is acknowledged, and a kernel that has answered before delays that
            // by 40 ms. A socket that refuses the option has no acknowledgements.
            let _ = self.set_option(SocketOption::QuickAck);
        }
        opened
    }

    /// Takes an empty buffer from the pool.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams keep bytes"))]
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.0.context.pool.take()
    }

    /// Returns a buffer to the pool.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        self.0.context.pool.give(buffer);
    }

    /// Applies a request to the state machine, and marks the connection as dirty, because there may
    /// be work now. Does nothing once the connection is over.
    pub(crate) fn update(&self, request: impl FnOnce(&mut Stream)) {
        let mut stream = self.0.stream.borrow_mut();
        if !stream.is_over() {
            request(&mut stream);
            self.mark_stream_dirty(&mut stream);
        }
    }

    fn observe_write(&self, stream: &Stream, data: &[u8]) {
        if let Some(observer) = self.0.context.observer() {
            observer.written(self.0.id, stream.levels(), data);
        }
    }

    /// Runs a callback of the protocol, and reports its begin and its end to the observer.
    #[inline(always)]
    pub(crate) fn observed<R>(&self, call: Callback<'_>, run: impl FnOnce() -> R) -> R {
        let observer = self.0.context.observer();
        if let Some(observer) = observer {
            observer.calls(self.0.id, self.stream().levels(), call);
        }
        let result = run();
        if let Some(observer) = observer {
            observer.returned(self.0.id);
        }
        result
    }

    /// Returns the way to the socket. A connection that is over has none, even while its socket
    /// lingers.
    fn driver(&self) -> io::Result<Rc<dyn Driver>> {
        let driver = self.0.context.driver.upgrade().filter(|_| !self.is_disconnected());
        Ok(driver.ok_or(io::ErrorKind::NotConnected)?)
    }
}

/// A descriptor that can't be sent, given back.
#[derive(Debug, Error)]
#[error("a descriptor can only be sent over an open UNIX socket, with at least one byte")]
pub struct NotSent(pub OwnedFd);

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("host", &self.host()).field("peer", &self.peer()).finish_non_exhaustive()
    }
}
