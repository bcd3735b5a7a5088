//! A transport that is connected to nothing, alone or joined to a protocol.

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

/// A [`Transport`] that is connected to nothing and keeps what is written to it (Twisted: `StringTransport`).
///
/// On its own it is for calling a protocol's callbacks by hand, one by one; nothing is called back. To have a whole connection
/// without a network, with its rules and its end, [join](Self::joined) a protocol to it.
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
    /// An open one, whose host is 10.0.0.1:12345 and whose peer 192.168.1.1:54321.
    pub fn new() -> Self {
        Self::between(HOST, PEER)
    }

    /// One with this address of its own. To be called first: it is another transport.
    pub fn with_host(self, host: impl Into<SocketAddr>) -> Self {
        let peer = self.transport().peer().socket_addr().unwrap_or(PEER);
        Self::between(host.into(), peer)
    }

    /// One whose peer has this address. To be called first: it is another transport.
    pub fn with_peer(self, peer: impl Into<SocketAddr>) -> Self {
        let host = self.transport().host().socket_addr().unwrap_or(HOST);
        Self::between(host, peer.into())
    }

    fn between(host: SocketAddr, peer: SocketAddr) -> Self {
        Self(End::new(host, peer, usize::MAX, VirtualClock::new()))
    }

    /// Joins a protocol to it, and makes its `connection_made` (Twisted: `StringTransportWithDisconnection`).
    pub fn joined<P: Protocol>(self, protocol: P) -> StringConnection<P> {
        let connection = self.0.put(protocol);
        let joined = StringConnection { string: self, connection, incoming: RefCell::default(), busy: Cell::default() };
        joined.drive(|| joined.string.0.join());
        joined
    }

    /// The transport, as a protocol is handed it.
    pub fn transport(&self) -> &Transport {
        self.0.transport()
    }

    /// All that was written (Twisted: `value`), whether the connection lasted until it would have been sent or not. What the
    /// transport dropped is not in it: what was written after `abort_connection`, and after the connection, or its writing
    /// side, had closed. Writes after `lose_connection` in the same turn are sent, as on a socket.
    ///
    /// Looking counts as sending: [`Transport::queued_bytes`] is zero afterwards.
    pub fn value(&self) -> Vec<u8> {
        self.0.send_ahead();
        self.0.socket().out.borrow().bytes.iter().copied().collect()
    }

    /// What was written since this was last called (Twisted: `value` and then `clear`).
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

    /// Ends the turn: what was asked for takes effect, as at the end of the reactor's turn. From then on a connection that was
    /// to be closed is over, and writes are dropped. A [`StringConnection`] does this by itself.
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

    /// The clock that [`Transport::timers`] and close timeouts go by. [`advance`](Self::advance) moves it together with the transport.
    pub fn clock(&self) -> &VirtualClock {
        &self.0.socket().clock
    }

    /// Time passes (Twisted: `Clock.advance`): the timers that are due by then are made, each deadline for itself, and behind each
    /// what was asked of the transport takes effect.
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
    /// As [`VirtualClock::advance`].
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        self.pass(by, || self.turn());
    }

    /// Moves the clock from deadline to deadline, with a turn behind each.
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

    /// Whether it is closing or closed (Twisted: `disconnecting`): after `lose_connection`, `abort_connection`, and where it is
    /// joined after the peer's end or a failed callback.
    pub fn is_disconnecting(&self) -> bool {
        self.transport().is_disconnecting()
    }

    /// Whether `abort_connection` was called.
    pub fn is_aborted(&self) -> bool {
        self.0.is_aborted()
    }

    /// Whether `lose_write_connection` was called (Twisted: `_writeDisconnecting`).
    pub fn is_write_disconnecting(&self) -> bool {
        self.transport().stream().is_write_closing()
    }

    /// Whether reading is paused (Twisted: `producerState`).
    pub fn is_paused(&self) -> bool {
        self.transport().stream().is_paused()
    }

    /// Whether Nagle's algorithm was turned off.
    pub fn tcp_no_delay(&self) -> bool {
        self.0.socket().options.borrow().no_delay
    }

    /// Whether keep-alive was turned on.
    pub fn tcp_keep_alive(&self) -> bool {
        self.0.socket().options.borrow().keep_alive
    }

    /// What was said to `set_tcp_keep_alive_times`: idle time, interval, count.
    pub fn tcp_keep_alive_times(&self) -> Option<(Duration, Duration, u32)> {
        self.0.socket().options.borrow().keep_alive_times
    }

    /// What was said to `set_tcp_user_timeout`.
    pub fn tcp_user_timeout(&self) -> Option<Duration> {
        self.0.socket().options.borrow().user_timeout
    }

    /// What is written is kept before anything closes, so that an abort does not hide it from the test.
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

/// A protocol joined to a [`StringTransport`] by what joins them in a reactor, so that what the test
/// makes happen goes through the same guards: an `Err` or a panic of a callback closes the connection, nothing is delivered
/// while reading is paused or after the connection was closed, `connection_lost` comes once and last (Twisted:
/// `StringTransportWithDisconnection`). From [`StringTransport::joined`].
///
/// Each thing that the test makes happen is a turn of its own, at the end of which closes take effect. What the test does to the
/// transport directly takes effect with the next one, or with [`turn`](Self::turn).
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
    /// What the test sent and the protocol was not given yet.
    incoming: RefCell<Pipe>,
    busy: Cell<bool>,
}

impl<P: Protocol> StringConnection<P> {
    /// The transport's other side: what was written, and what was asked for.
    pub fn string(&self) -> &StringTransport {
        &self.string
    }

    /// The transport, as the protocol is handed it.
    pub fn transport(&self) -> &Transport {
        self.string.transport()
    }

    /// The handle that `connect` would have given.
    pub fn connection(&self) -> &Connection<P> {
        &self.connection
    }

    /// Bytes come (Twisted: `dataReceived`): the protocol is given them in one piece, or in pieces of 64 KiB, as a reactor would.
    /// While reading is paused they wait, and a connection that is closing drops them.
    ///
    /// # Panics
    ///
    /// From inside a callback of the same protocol, as all that makes something happen: see [`turn`](Self::turn).
    #[track_caller]
    pub fn deliver(&self, data: &[u8]) {
        self.drive(|| self.incoming.borrow_mut().bytes.extend(data));
    }

    /// The peer has sent its last byte. Without half-close that is the end of the connection; while reading is paused it waits.
    #[track_caller]
    pub fn end_of_stream(&self) {
        self.drive(|| self.incoming.borrow_mut().ended = true);
    }

    /// The connection is over, for this reason (Twisted: `connectionLost`): usually a
    /// [`ConnectionClosed`](crate::error::ConnectionClosed). It comes through a pause. Nothing happens if it is over, or was
    /// aborted, already.
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

    /// Runs `call` with the protocol and its transport; what it asks for takes effect afterwards.
    ///
    /// # Errors
    /// [`Unavailable`], as [`Connection::with`].
    #[track_caller]
    pub fn with<R>(&self, call: impl FnOnce(&mut P, &Transport) -> R) -> Result<R, Unavailable> {
        let result = self.connection.with(call)?;
        self.turn();
        Ok(result)
    }

    /// Lets what was asked of the transport from outside take effect.
    ///
    /// # Panics
    ///
    /// From inside a callback of the same protocol: nothing is called before a callback has returned. (The panic is guarded as
    /// any other of a callback's, and closes the connection.)
    #[track_caller]
    pub fn turn(&self) {
        self.drive(|| {});
    }

    /// Time passes, as [`StringTransport::advance`] has it: timers are called, and what they ask for takes effect.
    ///
    /// # Panics
    ///
    /// As [`VirtualClock::advance`] and [`turn`](Self::turn).
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        self.string.pass(by, || self.turn());
    }

    /// Bytes that were delivered while reading was paused, and wait.
    pub fn waiting(&self) -> usize {
        self.incoming.borrow().bytes.len()
    }

    /// Why the connection ended, once `connection_lost` was called.
    pub fn lost(&self) -> Option<Failure> {
        self.string.0.lost()
    }

    /// Turns until nothing moves. That is soon: nothing comes but what the test sent.
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

/// The addresses of Twisted's `StringTransport`, for tests that come from there.
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 12345);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)), 54321);
