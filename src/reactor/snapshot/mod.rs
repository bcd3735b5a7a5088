//! [`Snapshot`]: a reactor seen from outside. It shows the connections, ports, timers and pools of
//! one moment, as plain values that may leave the thread. (Twisted has no such thing: its
//! `getReaders` and `getWriters` return the descriptors.)
//!
//! | file | holds |
//! |---|---|
//! | `take.rs` | taking one, and asking for the numbers that cost something |
//! | `table.rs` | the text for people |
//! | `json.rs` | the text for programs |
//!
//! | always there | once the reactor is [observed](crate::Reactor::observe) |
//! |---|---|
//! | addresses, descriptors, states, queues, protocols | ages, bytes received and written |
//! | accepted connections, timers, loads of pools | time in callbacks, the longest call, totals |
//! | [`Counters`], with the lateness of the loop | |

mod json;
mod table;
mod take;

use std::fmt;
use std::time::Duration;

use super::{BackendKind, Counters, ThreadPoolStatistics};
use crate::address::Address;
use crate::transport::id::Id;

/// The state of a reactor at one moment. From [`Reactor::snapshot`](crate::Reactor::snapshot), and
/// for members of a group from
/// [`GroupRemote::snapshots`](crate::reactor::GroupRemote::snapshots).
///
/// `Display` writes tables for people. [`to_json`](Self::to_json) writes one line for programs.
///
/// ```
/// use ropewalk::Reactor;
/// # use ropewalk::{Protocol, Result, Transport, for_protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &Default::default(), for_protocol(|_| Echo))?;
/// let snapshot = reactor.snapshot();
/// assert_eq!(snapshot.ports[0].host, port.host());
/// println!("{snapshot}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The time of the reactor's clock, which starts at zero when the reactor is made.
    pub time: Duration,
    /// The backend that makes the system calls.
    pub backend: BackendKind,
    /// `true` if the loop [runs](crate::Reactor::is_running).
    pub is_running: bool,
    /// Time since the reactor is [observed](crate::Reactor::observe). `None` if it is not.
    pub observed: Option<Duration>,
    /// Number of bytes that the protocols were given, in all, and `None` if the reactor is not
    /// observed. Over TLS they are the bytes of the protocol, not those of the network.
    pub received_bytes: Option<u64>,
    /// Number of bytes that the protocols have written, in all. `None` if the reactor is not
    /// observed.
    pub written_bytes: Option<u64>,
    /// The counters of the reactor, with the lateness of its timers.
    pub counters: Counters,
    /// The connections that have a protocol.
    pub connections: Vec<ConnectionSnapshot>,
    /// The listening ports.
    pub ports: Vec<PortSnapshot>,
    /// Number of attempts to connect that are under way.
    pub connecting: usize,
    /// Number of sockets that are read on after the end of their connections.
    pub lingering: usize,
    /// Number of foreign descriptors that are [watched](crate::Reactor::watch).
    pub descriptors: usize,
    /// Number of [datagram ports](crate::datagram).
    pub datagram_ports: usize,
    /// The delayed calls.
    pub timers: TimersSnapshot,
    /// The load of the pool of [`defer_to_thread`](crate::Reactor::defer_to_thread).
    pub jobs: ThreadPoolStatistics,
    /// The load of the pool of name lookups.
    pub lookups: ThreadPoolStatistics,
    /// The loads of the pools that the program has made.
    pub pools: Vec<ThreadPoolStatistics>,
    /// The longest call since the reactor is observed. `None` if there was none.
    pub longest_callback: Option<LongestCallback>,
}

/// A connection in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// Names the connection, as long as it lives.
    pub id: ItemId,
    /// The address of this end.
    pub host: Address,
    /// The address of the other end.
    pub peer: Address,
    /// The name of the protocol's type.
    pub protocol: &'static str,
    /// `true` if this reactor has made the connection. `false` if it was accepted or handed over.
    pub is_client: bool,
    /// The state of the connection.
    pub state: ConnectionState,
    /// `true` if delivery is paused, by the protocol or by the limit of the queue.
    pub is_paused: bool,
    /// Number of layers between the protocol and the network: 1 over TLS.
    pub layers: usize,
    /// Number of written bytes that the operating system has not taken yet.
    pub queued_bytes: usize,
    /// Number of the descriptor. `None` if the socket is simulated, and while the loop waits
    /// between the functions of [`Builder::around_wait`](super::Builder::around_wait).
    pub descriptor: Option<i32>,
    /// Time since `connection_made`. `None` if that was before the reactor was observed.
    pub age: Option<Duration>,
    /// Number of bytes that the protocol was given. `None` if the reactor is not observed.
    pub received_bytes: Option<u64>,
    /// Number of bytes that the protocol has written, queued ones included. `None` if the reactor
    /// is not observed.
    pub written_bytes: Option<u64>,
    /// Time spent in the callbacks of the protocol. `None` if the reactor is not observed.
    pub busy: Option<Duration>,
}

/// The state of a connection in a [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Both directions are open.
    Open,
    /// The peer has sent its last byte, and this end may still write.
    ReadClosed,
    /// The write direction is shut, or will be once the queue is empty.
    WriteClosed,
    /// The connection ends.
    Closing,
}

impl ConnectionState {
    /// Returns the name, as it stands in the texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ReadClosed => "read-closed",
            Self::WriteClosed => "write-closed",
            Self::Closing => "closing",
        }
    }
}

/// A listening port in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortSnapshot {
    /// Names the port, as long as it listens.
    pub id: ItemId,
    /// The address on which it listens.
    pub host: Address,
    /// Number of connections that it has accepted, or was handed by another reactor of its group.
    pub accepted: u64,
    /// Number of the descriptor, as for a [connection](ConnectionSnapshot::descriptor).
    pub descriptor: Option<i32>,
}

/// The delayed calls in a [`Snapshot`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimersSnapshot {
    /// Number of calls that are still to be made, those of the engine included.
    pub pending: usize,
    /// Time until the next one. Zero if it is due, and `None` if there is none.
    pub next_due: Option<Duration>,
}

/// The longest call of the program's code since a reactor is observed: a callback of a protocol, a
/// delayed call, or a call from a thread. Futures are not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongestCallback {
    /// The duration.
    pub took: Duration,
    /// The time of the reactor's clock at its end.
    pub ended_at: Duration,
    /// The name of the callback, such as `data_received`.
    pub callback: &'static str,
    /// The connection whose protocol was called, if one was. It may be over.
    pub connection: Option<ItemId>,
}

/// Names a connection or a port of a reactor in a [`Snapshot`]. A later one gets another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    slot: u32,
    generation: u32,
}

impl From<Id> for ItemId {
    fn from(id: Id) -> Self {
        Self { slot: id.slot, generation: id.generation }
    }
}

impl fmt::Display for ItemId {
    /// Writes the place in the reactor's table, and the number of its user: `12.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}
