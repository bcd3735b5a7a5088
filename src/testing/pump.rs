//! Two protocols connected to each other without a reactor, and pumped step by step.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::VirtualClock;
use super::end::{End, EndArrival};
use super::quote::excerpt;
use super::reentry_guard::ReentryGuard;
use crate::address::Address;
use crate::error::Unavailable;
use crate::failure::{Failure, Result};
use crate::protocol::{Connection, Factory, Protocol};
use crate::transport::Transport;

/// Connects two protocols to each other without a network (Twisted: `iosim.connect`,
/// `connectedServerAndClient`). Uses the defaults of [`PumpOptions`].
///
/// ```
/// use ropewalk::testing::{AccumulatingProtocol, connected_pair};
///
/// let (client, server) = (AccumulatingProtocol::new(), AccumulatingProtocol::new());
/// let heard = server.record();
/// let pump = connected_pair(client, server);
/// pump.client().transport().write(b"hello");
/// pump.client().transport().lose_connection();
/// pump.flush();
/// assert_eq!(heard.data(), b"hello");
/// assert!(heard.is_lost(), "{}", pump.transcript());
/// ```
pub fn connected_pair<C: Protocol, S: Protocol>(client: C, server: S) -> Pump<C, S> {
    PumpOptions::new().connect(client, server)
}

/// Options of the connection between two protocols: clock, buffer size, addresses.
///
/// ```
/// use ropewalk::testing::{self, AccumulatingProtocol, PumpOptions};
///
/// let clock = testing::VirtualClock::new();
/// let pump = PumpOptions::new()
///     .clock(&clock)
///     .room(1000)
///     .connect(AccumulatingProtocol::new(), AccumulatingProtocol::new());
/// pump.server().transport().pause_producing();
/// pump.client().transport().write(&[0; 3000]);
/// pump.flush();
/// assert_eq!(pump.client().in_flight(), 1000);
/// assert_eq!(pump.client().transport().queued_bytes(), 2000);
/// ```
#[derive(Debug, Clone)]
pub struct PumpOptions {
    clock: VirtualClock,
    room: usize,
    client: SocketAddr,
    server: SocketAddr,
}

impl PumpOptions {
    /// Creates the default options: a clock of its own, room for 64 KiB in each direction, the
    /// client at 10.0.0.2:49152 and the server at 10.0.0.1:8000.
    pub fn new() -> Self {
        Self { clock: VirtualClock::new(), room: ROOM, client: CLIENT, server: SERVER }
    }

    /// Sets the clock, whose calls are made while pumping. Close timeouts follow it as well.
    pub fn clock(mut self, clock: &VirtualClock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Sets the number of bytes that each direction holds, as the buffers of both sockets would. At
    /// least 1. Once a direction is full, further bytes wait at the sender, in
    /// [`Transport::queued_bytes`].
    pub fn room(mut self, bytes: usize) -> Self {
        self.room = bytes.max(1);
        self
    }

    /// Sets the addresses of both ends.
    pub fn addresses(mut self, client: impl Into<SocketAddr>, server: impl Into<SocketAddr>) -> Self {
        (self.client, self.server) = (client.into(), server.into());
        self
    }

    /// Connects two protocols. Calls `connection_made` on the server first, then on the client.
    /// Moves no bytes.
    pub fn connect<C: Protocol, S: Protocol>(&self, client: C, server: S) -> Pump<C, S> {
        self.join((client, || {}), (server, || {}), |_, _| {})
    }

    /// Connects a protocol of each of two factories. Starts the factories before, and stops each
    /// once its side of the connection has ended.
    ///
    /// # Panics
    ///
    /// If a factory builds no protocol.
    #[track_caller]
    pub fn connect_factories<C: Factory, S: Factory>(
        &self,
        mut client: C,
        mut server: S,
    ) -> Pump<C::Protocol, S::Protocol> {
        server.do_start();
        client.do_start();
        let Some(server_protocol) = server.build_protocol(&Address::from(self.client)) else {
            panic!("the server's factory built no protocol")
        };
        let Some(client_protocol) = client.build_protocol(&Address::from(self.server)) else {
            panic!("the client's factory built no protocol")
        };
        let (client, server) = (Rc::new(RefCell::new(client)), Rc::new(RefCell::new(server)));
        let (client_stop, server_stop) = (Rc::clone(&client), Rc::clone(&server));
        self.join(
            (client_protocol, move || client_stop.borrow_mut().do_stop()),
            (server_protocol, move || server_stop.borrow_mut().do_stop()),
            |client_end, server_end| {
                server_end.prepare(|transport| server.borrow_mut().prepare_transport(transport));
                client_end.prepare(|transport| client.borrow_mut().prepare_transport(transport));
            },
        )
    }

    /// Joins two protocols, each with the function that stops its factory. Calls `prepare` before
    /// the protocols.
    fn join<C: Protocol, S: Protocol>(
        &self,
        (client, client_stop): (C, impl FnOnce() + 'static),
        (server, server_stop): (S, impl FnOnce() + 'static),
        prepare: impl FnOnce(&End, &End),
    ) -> Pump<C, S> {
        let end = |host, peer| End::new(host, peer, self.room, self.clock.clone());
        let pump = Pump {
            client: Side::new(client, end(self.client, self.server), Box::new(client_stop)),
            server: Side::new(server, end(self.server, self.client), Box::new(server_stop)),
            clock: self.clock.clone(),
            transcript: RefCell::default(),
            busy: Cell::default(),
        };
        {
            let _busy = ReentryGuard::enter(&pump.busy);
            prepare(&pump.client.end, &pump.server.end);
            pump.server.end.join();
            pump.client.end.join();
        }
        pump
    }
}

impl Default for PumpOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Two connected protocols, and the pump that moves bytes between them (Twisted: `iosim.IOPump`).
/// From [`connected_pair`] or [`PumpOptions`].
///
/// Everything else is as on a socket:
///
/// - The protocols are joined to their transports as in a reactor.
/// - Bytes written before a close, or after it in the same turn, arrive.
/// - A side whose peer aborts, or that writes to an end that has closed for good, sees a reset.
/// - A paused side receives nothing. Bytes that it does not take wait at the sender.
/// - A reset does not overtake bytes that arrived before it, unless reading is paused.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::error::ConnectionClosed;
/// use ropewalk::testing::{AccumulatingProtocol, PumpOptions};
///
/// // The close timeout cuts off a peer that takes none of its bytes.
/// let pump = PumpOptions::new().room(10).connect(AccumulatingProtocol::new(), AccumulatingProtocol::new());
/// pump.client().transport().pause_producing();
/// pump.server().transport().write(b"more than there is room for");
/// pump.server().transport().lose_connection();
/// pump.flush();
/// assert!(pump.server().lost().is_none());
/// pump.advance(Duration::from_secs(30));
/// let reason = pump.server().lost().expect("it was cut off");
/// assert!(matches!(reason.check(), Some(ConnectionClosed::CloseTimedOut { unsent: 17, .. })), "{}", pump.transcript());
/// ```
///
/// A pump does not simulate a network: nothing here takes time or gets lost. It does not cut the
/// bytes either; for that, see [`ChunkingCheck`](super::ChunkingCheck).
pub struct Pump<C, S> {
    client: Side<C>,
    server: Side<S>,
    clock: VirtualClock,
    transcript: RefCell<Transcript>,
    busy: Cell<bool>,
}

impl<C: Protocol, S: Protocol> Pump<C, S> {
    /// Returns the side that connected.
    pub fn client(&self) -> &Side<C> {
        &self.client
    }

    /// Returns the side that was connected to.
    pub fn server(&self) -> &Side<S> {
        &self.server
    }

    /// Returns the clock.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Makes the clock's due calls, then moves the sent bytes of each side to the other once: at
    /// most 64 KiB in each direction, or an end (Twisted: `pump`). Answers stay for the next call.
    /// Returns `true` if anything moved or was called.
    ///
    /// # Panics
    ///
    /// If called from inside a callback of one of the protocols. (That panic is guarded like any
    /// other of a callback.) And with the panic of a call of the clock.
    #[track_caller]
    pub fn pump(&self) -> bool {
        let _busy = ReentryGuard::enter(&self.busy);
        self.transcript.borrow_mut().turn += 1;
        let calls = self.clock.turn();
        if calls > 0 {
            self.note(format!("the clock made {calls} calls or polls of futures"));
        }
        let mut moved = self.settle() | (calls > 0);
        let (to_server, to_client) = (self.client.in_flight(), self.server.in_flight());
        moved |= self.carry(&self.client.end, &self.server.end, to_server, "client -> server");
        moved |= self.carry(&self.server.end, &self.client.end, to_client, "server -> client");
        moved |= self.client.end.deliver_held() | self.server.end.deliver_held();
        moved | self.settle()
    }

    /// [Pumps](Self::pump) until nothing moves (Twisted: `flush`). Returns `true` if anything did.
    ///
    /// # Panics
    ///
    /// After 10,000 rounds, with the last lines of the transcript: two protocols answer each other
    /// endlessly, or a call of the clock endlessly schedules the next one. And like
    /// [`pump`](Self::pump).
    #[track_caller]
    pub fn flush(&self) -> bool {
        for round in 0..ROUNDS {
            if !self.pump() {
                return round > 0;
            }
        }
        panic!(
            "bytes or calls still move after {ROUNDS} rounds:\n  client: {}\n  server: {}\nlast moves:\n{}",
            self.client.state(),
            self.server.state(),
            self.transcript.borrow().last(LAST)
        );
    }

    /// [Flushes](Self::flush) pending requests, advances the time, and flushes the effects.
    ///
    /// # Panics
    ///
    /// Like [`flush`](Self::flush) and [`VirtualClock::advance`].
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        self.flush();
        self.clock.advance(by);
        self.flush();
    }

    /// Returns the last 1,000 lines of the transcript, for failure messages: one line for each
    /// move.
    pub fn transcript(&self) -> String {
        self.transcript.borrow().last(LINES)
    }

    /// Runs phases 7 and 8 of both sides.
    fn settle(&self) -> bool {
        let mut moved = self.client.end.settle() | self.server.end.settle();
        let to_client = self.client.tell(self.server.end.socket().is_ended());
        let to_server = self.server.tell(self.client.end.socket().is_ended());
        for (name, reason) in [("client", to_client), ("server", to_server)] {
            if let Some(reason) = reason {
                self.note(format!("{name} lost: {reason}"));
                moved = true;
            }
        }
        moved
    }

    fn carry(&self, from: &End, to: &End, limit: usize, way: &str) -> bool {
        let arrival = to.take_in(&from.socket().out, limit);
        let line = match &arrival {
            EndArrival::Nothing => return false,
            EndArrival::Data(data) => format!("{way}: {}", excerpt(data)),
            EndArrival::Ended => format!("{way}: end of stream"),
            EndArrival::Reset => format!("{way}: reset"),
            EndArrival::Dropped(count) => format!("{way}: {count} bytes, dropped: the connection is closed"),
            EndArrival::Refused(count) => format!("{way}: {count} bytes, answered with a reset: the socket is closed"),
        };
        self.note(line);
        from.room_again();
        true
    }

    fn note(&self, line: String) {
        self.transcript.borrow_mut().add(line);
    }
}

impl<C, S> fmt::Debug for Pump<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump")
            .field("client", &self.client.state())
            .field("server", &self.server.state())
            .finish_non_exhaustive()
    }
}

/// One of two connected protocols, with its transport. From [`Pump::client`] and [`Pump::server`].
///
/// ```
/// # use ropewalk::{Protocol, Result, Transport};
/// use ropewalk::testing::{AccumulatingProtocol, connected_pair};
///
/// struct Asker { answer: Vec<u8> }
/// impl Asker {
///     fn ask(&self, transport: &Transport) { transport.write(b"what time is it?") }
/// }
/// impl Protocol for Asker {
///     fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
///         self.answer.extend_from_slice(data);
///         Ok(())
///     }
/// }
///
/// let pump = connected_pair(Asker { answer: Vec::new() }, AccumulatingProtocol::new());
/// pump.client().with(|asker, transport| asker.ask(transport)).unwrap();
/// pump.flush();
/// assert_eq!(pump.server().with(|server, _| server.record().data()).unwrap(), b"what time is it?");
/// ```
pub struct Side<P> {
    end: End,
    connection: Connection<P>,
    stop: Cell<Option<Box<dyn FnOnce()>>>,
}

impl<P: Protocol> Side<P> {
    fn new(protocol: P, end: End, stop: Box<dyn FnOnce()>) -> Self {
        let connection = end.put(protocol);
        Self { end, connection, stop: Cell::new(Some(stop)) }
    }

    /// Returns the transport.
    pub fn transport(&self) -> &Transport {
        self.end.transport()
    }

    /// Returns the handle that `connect` would have given.
    pub fn connection(&self) -> &Connection<P> {
        &self.connection
    }

    /// Runs `call` with the protocol and its transport. Its requests take effect with the next
    /// pump.
    ///
    /// # Errors
    /// [`Unavailable`], like [`Connection::with`].
    pub fn with<R>(&self, call: impl FnOnce(&mut P, &Transport) -> R) -> Result<R, Unavailable> {
        self.connection.with(call)
    }

    /// Returns the reason of the connection's end on this side, once `connection_lost` was called.
    pub fn lost(&self) -> Option<Failure> {
        self.end.lost()
    }

    /// Returns the number of bytes that this side's socket has taken and the other side has not.
    pub fn in_flight(&self) -> usize {
        self.end.socket().out.borrow().bytes.len()
    }

    fn tell(&self, peer_ended: bool) -> Option<Failure> {
        let reason = self.end.tell(peer_ended)?;
        if let Some(stop) = self.stop.take() {
            stop();
        }
        Some(reason)
    }
}

impl<P> Side<P> {
    fn state(&self) -> String {
        let transport = self.end.transport();
        let state = match (self.end.lost(), transport.is_disconnecting(), transport.stream().is_paused()) {
            (Some(reason), _, _) => format!("lost ({reason})"),
            (None, true, _) => "closing".to_owned(),
            (None, false, true) => "open, reading is paused".to_owned(),
            (None, false, false) => "open".to_owned(),
        };
        let in_flight = self.end.socket().out.borrow().bytes.len();
        format!("{state}; {} bytes queued, {in_flight} on their way", transport.queued_bytes())
    }
}

impl<P> fmt::Debug for Side<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Side").field(&self.state()).finish()
    }
}

/// The moves of a connection, a line each.
#[derive(Default)]
struct Transcript {
    turn: usize,
    lines: VecDeque<String>,
}

impl Transcript {
    fn add(&mut self, line: String) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>5} {line}", self.turn));
    }

    fn last(&self, count: usize) -> String {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skipped).flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// Default capacity of a direction, in bytes. One round moves as much, so nothing waits at a sender
/// whose peer reads.
const ROOM: usize = 64 * 1024;

/// Rounds after which a conversation counts as endless. Moving 640 MB takes as many, and a long
/// dialogue has a hundred. Reaching the limit takes a moment, so that a test fails soon.
const ROUNDS: usize = 10_000;

/// Lines of the transcript that are kept: more than a reader needs, and less than a megabyte.
const LINES: usize = 1000;

/// Lines shown in the failure of an endless conversation.
const LAST: usize = 12;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 49152);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8000);
