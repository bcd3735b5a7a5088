//! A transport without a peer, alone or joined to a protocol.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::VirtualClock;
use super::end::{End, EndArrival, Pipe};
use super::quote::excerpt;
use super::reentry_guard::ReentryGuard;
use crate::error::Unavailable;
use crate::failure::Failure;
use crate::protocol::{Connection, Protocol};
use crate::time::Clock as _;
use crate::transport::Transport;

/// A [`Transport`] without a peer that keeps all written bytes (Twisted: `StringTransport`).
///
/// Use it alone to call a protocol's callbacks by hand, one by one; it makes no callbacks. To test
/// a whole connection without a network, from its rules to its end, [join](Self::joined) a protocol
/// to it.
///
/// ```
/// use ropewalk::{Protocol, Result, Transport, testing::StringTransport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         transport.lose_connection();
///         Ok(())
///     }
/// }
///
/// let string = StringTransport::new();
/// Echo.data_received(string.transport(), b"hello").unwrap();
/// assert_eq!(string.value(), b"hello");
/// assert!(string.is_disconnecting());
/// ```
pub struct StringTransport(End);

impl StringTransport {
    /// Creates an open transport whose host is 10.0.0.1:12345 and whose peer is 192.168.1.1:54321.
    pub fn new() -> Self {
        Self::between(HOST, PEER)
    }

    /// Sets the transport's own address. Call this first: it returns a new transport.
    pub fn with_host(self, host: impl Into<SocketAddr>) -> Self {
        let peer = self.transport().peer().socket_addr().unwrap_or(PEER);
        Self::between(host.into(), peer)
    }

    /// Sets the peer's address. Call this first: it returns a new transport.
    pub fn with_peer(self, peer: impl Into<SocketAddr>) -> Self {
        let host = self.transport().host().socket_addr().unwrap_or(HOST);
        Self::between(host, peer.into())
    }

    fn between(host: SocketAddr, peer: SocketAddr) -> Self {
        Self(End::new(host, peer, usize::MAX, VirtualClock::new()))
    }

    /// Joins a protocol to the transport, and calls its `connection_made` (Twisted:
    /// `StringTransportWithDisconnection`).
    pub fn joined<P: Protocol>(self, protocol: P) -> StringConnection<P> {
        let connection = self.0.put(protocol);
        let joined = StringConnection { string: self, connection, incoming: RefCell::default(), busy: Cell::default() };
        joined.drive(|| joined.string.0.join());
        joined
    }

    /// Returns the transport, as a protocol gets it.
    pub fn transport(&self) -> &Transport {
        self.0.transport()
    }

    /// Returns all written bytes (Twisted: `value`), even if the connection did not last until they
    /// would have been sent.
    ///
    /// Dropped bytes are not included: those written after `abort_connection`, and those written
    /// after the connection, or its writing side, had closed. Writes after `lose_connection` in the
    /// same turn are sent, as on a socket.
    ///
    /// Calling this counts as sending: [`Transport::queued_bytes`] is zero afterwards.
    pub fn value(&self) -> Vec<u8> {
        self.0.send_ahead();
        self.0.socket().out.borrow().bytes.iter().copied().collect()
    }

    /// Takes the bytes written since the last call (Twisted: `value` and then `clear`).
    ///
    /// ```
    /// let string = ropewalk::testing::StringTransport::new();
    /// string.transport().write(b"one");
    /// assert_eq!(string.take_value(), b"one");
    /// string.transport().write(b"two");
    /// assert_eq!(string.take_value(), b"two");
    /// ```
    pub fn take_value(&self) -> Vec<u8> {
        self.0.send_ahead();
        std::mem::take(&mut self.0.socket().out.borrow_mut().bytes).into()
    }

    /// Ends the turn: requests take effect, as at the end of a reactor's turn. From then on, a
    /// connection that was to be closed has ended, and writes are dropped. A [`StringConnection`]
    /// does this by itself.
    ///
    /// ```
    /// let string = ropewalk::testing::StringTransport::new();
    /// string.transport().lose_connection();
    /// string.transport().write(b"still sent");
    /// string.turn();
    /// string.transport().write(b"too late");
    /// assert_eq!(string.value(), b"still sent");
    /// ```
    pub fn turn(&self) {
        self.settle();
    }

    /// Returns the clock of [`Transport::timers`] and of close timeouts. [`advance`](Self::advance)
    /// moves it together with the transport.
    pub fn clock(&self) -> &VirtualClock {
        &self.0.socket().clock
    }

    /// Advances the time (Twisted: `Clock.advance`). Makes the due calls one deadline at a time,
    /// and ends a turn after each, so that requests to the transport take effect.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::{Clock, testing::StringTransport};
    ///
    /// let string = StringTransport::new();
    /// let transport = string.transport().clone();
    /// transport.timers().call_later(Duration::from_secs(5), {
    ///     let transport = transport.clone();
    ///     move || transport.lose_connection()
    /// });
    /// string.advance(Duration::from_secs(5));
    /// assert!(transport.is_disconnected());
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`VirtualClock::advance`].
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        self.pass(by, || self.turn());
    }

    /// Advances the clock from deadline to deadline, with a turn after each.
    #[track_caller]
    fn pass(&self, by: Duration, turn: impl Fn()) {
        let clock = self.clock();
        let end = clock.seconds().saturating_add(by);
        loop {
            let now = clock.seconds();
            let next = clock.timers().next_deadline().filter(|next| now < *next && *next < end);
            clock.advance(next.unwrap_or(end).saturating_sub(now));
            turn();
            if next.is_none() {
                return;
            }
        }
    }

    /// Returns `true` if the connection is closing or closed (Twisted: `disconnecting`): after
    /// `lose_connection` or `abort_connection`, and, with a joined protocol, after the peer's end
    /// or a failed callback.
    pub fn is_disconnecting(&self) -> bool {
        self.transport().is_disconnecting()
    }

    /// Returns `true` if `abort_connection` was called.
    pub fn is_aborted(&self) -> bool {
        self.0.is_aborted()
    }

    /// Returns `true` if `lose_write_connection` was called (Twisted: `_writeDisconnecting`).
    pub fn is_write_disconnecting(&self) -> bool {
        self.transport().stream().is_write_closing()
    }

    /// Returns `true` if reading is paused (Twisted: `producerState`).
    pub fn is_paused(&self) -> bool {
        self.transport().stream().is_paused()
    }

    /// Returns `true` if Nagle's algorithm was turned off.
    pub fn tcp_no_delay(&self) -> bool {
        self.0.socket().options.borrow().no_delay
    }

    /// Returns `true` if keep-alive was turned on.
    pub fn tcp_keep_alive(&self) -> bool {
        self.0.socket().options.borrow().keep_alive
    }

    /// Returns the arguments of `set_tcp_keep_alive_times`: idle time, interval, count.
    pub fn tcp_keep_alive_times(&self) -> Option<(Duration, Duration, u32)> {
        self.0.socket().options.borrow().keep_alive_times
    }

    /// Returns the argument of `set_tcp_user_timeout`.
    pub fn tcp_user_timeout(&self) -> Option<Duration> {
        self.0.socket().options.borrow().user_timeout
    }

    /// Carries out requests. Keeps the written bytes first, so that an abort does not hide them
    /// from the test.
    fn settle(&self) -> bool {
        self.0.send_ahead();
        let moved = self.0.settle();
        moved | self.0.tell(false).is_some()
    }
}

impl Default for StringTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StringTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = excerpt(&self.value());
        f.debug_struct("StringTransport")
            .field("written", &written)
            .field("disconnecting", &self.is_disconnecting())
            .finish_non_exhaustive()
    }
}

/// A protocol joined to a [`StringTransport`] (Twisted: `StringTransportWithDisconnection`). From
/// [`StringTransport::joined`].
///
/// The joint is the same as in a reactor, so every event of the test passes the same guards. An
/// `Err` or a panic of a callback closes the connection. Nothing is delivered while reading is
/// paused, or after the connection was closed. `connection_lost` comes once and last.
///
/// Each event of the test is a turn of its own, at whose end closes take effect. Requests that the
/// test makes to the transport directly take effect with the next event, or with
/// [`turn`](Self::turn).
///
/// ```
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// struct UntilBye { seen: usize }
/// impl Protocol for UntilBye {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.seen += data.len();
///         if data == b"bye" {
///             transport.write(b"see you");
///             transport.lose_connection();
///         }
///         Ok(())
///     }
/// }
///
/// let connection = StringTransport::new().joined(UntilBye { seen: 0 });
/// connection.deliver(b"hello");
/// assert_eq!(connection.with(|protocol, _| protocol.seen), Ok(5));
/// connection.deliver(b"bye");
/// assert_eq!(connection.string().value(), b"see you");
/// assert_eq!(connection.lost().unwrap().to_string(), "the connection was closed cleanly");
/// ```
pub struct StringConnection<P> {
    string: StringTransport,
    connection: Connection<P>,
    /// Bytes and ends that the test sent and the protocol has not been given yet.
    incoming: RefCell<Pipe>,
    busy: Cell<bool>,
}

impl<P: Protocol> StringConnection<P> {
    /// Returns the transport's record: the written bytes, and the requests.
    pub fn string(&self) -> &StringTransport {
        &self.string
    }

    /// Returns the transport, as the protocol gets it.
    pub fn transport(&self) -> &Transport {
        self.string.transport()
    }

    /// Returns the handle that `connect` would have given.
    pub fn connection(&self) -> &Connection<P> {
        &self.connection
    }

    /// Delivers bytes (Twisted: `dataReceived`), in one chunk or in chunks of 64 KiB, as a reactor
    /// does. While reading is paused they wait. A closing connection drops them.
    ///
    /// # Panics
    ///
    /// If called from inside a callback of the same protocol, like every method that makes
    /// something happen: see [`turn`](Self::turn).
    #[track_caller]
    pub fn deliver(&self, data: &[u8]) {
        self.drive(|| self.incoming.borrow_mut().bytes.extend(data));
    }

    /// Delivers the peer's end of stream. Without half-close it ends the connection. While reading
    /// is paused it waits.
    #[track_caller]
    pub fn end_of_stream(&self) {
        self.drive(|| self.incoming.borrow_mut().ended = true);
    }

    /// Ends the connection for this reason (Twisted: `connectionLost`), usually a
    /// [`ConnectionClosed`](crate::error::ConnectionClosed). A pause does not delay it. Does
    /// nothing if the connection has already ended, or was aborted.
    ///
    /// ```
    /// use ropewalk::error::ConnectionClosed;
    /// use ropewalk::testing::{AccumulatingProtocol, StringTransport};
    ///
    /// let connection = StringTransport::new().joined(AccumulatingProtocol::new());
    /// connection.lose(ConnectionClosed::Reset { unsent: 0 });
    /// let reason = connection.lost().unwrap();
    /// assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { .. })));
    /// ```
    #[track_caller]
    pub fn lose(&self, reason: impl Into<Failure>) {
        self.drive(|| self.transport().update(|stream| stream.dead(reason.into())));
    }

    /// Runs `call` with the protocol and its transport. Its requests take effect afterwards.
    ///
    /// # Errors
    /// [`Unavailable`], like [`Connection::with`].
    #[track_caller]
    pub fn with<R>(&self, call: impl FnOnce(&mut P, &Transport) -> R) -> Result<R, Unavailable> {
        let result = self.connection.with(call)?;
        self.turn();
        Ok(result)
    }

    /// Lets requests that the test made to the transport take effect.
    ///
    /// # Panics
    ///
    /// If called from inside a callback of the same protocol, because a reactor makes no callback
    /// before another has returned. (The panic is guarded like any other of a callback, and closes
    /// the connection.)
    #[track_caller]
    pub fn turn(&self) {
        self.drive(|| {});
    }

    /// Advances the time, like [`StringTransport::advance`]: due timers fire, and their requests
    /// take effect.
    ///
    /// # Panics
    ///
    /// Like [`VirtualClock::advance`] and [`turn`](Self::turn).
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        self.string.pass(by, || self.turn());
    }

    /// Returns the number of delivered bytes that wait because reading is paused.
    pub fn waiting(&self) -> usize {
        self.incoming.borrow().bytes.len()
    }

    /// Returns the reason of the connection's end, once `connection_lost` was called.
    pub fn lost(&self) -> Option<Failure> {
        self.string.0.lost()
    }

    /// Runs turns until nothing moves. That is soon, because only the test sends anything.
    #[track_caller]
    fn drive(&self, happen: impl FnOnce()) {
        let _busy = ReentryGuard::enter(&self.busy);
        let end = &self.string.0;
        self.string.settle();
        happen();
        loop {
            let mut moved = self.string.settle();
            moved |= !matches!(end.take_in(&self.incoming, usize::MAX), EndArrival::Nothing);
            moved |= end.deliver_held();
            if !moved {
                return;
            }
        }
    }
}

impl<P> fmt::Debug for StringConnection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StringConnection").field("string", &self.string).finish_non_exhaustive()
    }
}

/// The addresses of Twisted's `StringTransport`, for ported tests.
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 12345);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)), 54321);
