//! [`ConnectionLimits`] of a port, and the [`Gate`] that counts its connections. It makes no system
//! call: the reactor asks it about each accepted connection (`reactor/net/admission.rs`).
//!
//! A port of a group of reactors has one gate, on whichever threads its connections are. So a gate
//! and its seats are shared between threads, under a lock that is held for a few comparisons.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::address::Address;
use crate::transport::policy::rate::{Bucket, Rate};

/// Leading bits of an IPv6 address that are one peer, unless set otherwise. 64: the smallest net
/// that a site is given, all of whose addresses are at the disposal of one host.
const PEER_PREFIX_BITS: u8 = 64;

/// The reason of a reset at [`ConnectionLimits::max_connections`], for the log.
const TOO_MANY: &str = "too many connections are open";

/// Limits of the connections of a port (Twisted: `ThrottlingFactory.maxConnectionCount`,
/// `LimitTotalConnectionsFactory`, `LimitConnectionsByPeer`). Nothing is limited by default.
///
/// A connection counts until its socket is closed, the time included in which a closed one
/// [lingers](crate::Reactor::end_lingering). So the limit bounds descriptors as well. Each port
/// counts by itself. A port of a [`ReactorGroup`](crate::reactor::ReactorGroup) is one port,
/// however many reactors serve its connections.
///
/// ```
/// use ropewalk::ListenOptions;
/// use ropewalk::policies::{ConnectionLimits, WhenFull};
///
/// let limits = ConnectionLimits::new().max_connections(1_000).max_per_peer(20).when_full(WhenFull::Shed);
/// let options = ListenOptions::new().limits(limits);
/// # drop(options);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    most: Option<u32>,
    per_peer: Option<u32>,
    peer_prefix: u8,
    per_second: Option<u32>,
    when_full: WhenFull,
}

/// The conduct of a port that has as many connections as it may have, or has accepted as many as a
/// second permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Stop accepting. Further peers wait in the system's queue, up to the
    /// [backlog](crate::ListenOptions::backlog), until there is room.
    #[default]
    Pause,
    /// Accept, and reset at once, so that peers know, and can go elsewhere.
    Shed,
}

impl ConnectionLimits {
    /// Creates limits that limit nothing.
    pub fn new() -> Self {
        Self { most: None, per_peer: None, peer_prefix: PEER_PREFIX_BITS, per_second: None, when_full: WhenFull::Pause }
    }

    /// Sets the number of connections that may be open at the same time. 0 counts as 1.
    #[must_use]
    pub fn max_connections(self, most: u32) -> Self {
        Self { most: Some(most.max(1)), ..self }
    }

    /// Sets the number of connections that one peer may have open at the same time. 0 counts as 1.
    /// Further ones are reset, whatever the port does [when it is full](Self::when_full): only an
    /// accepted connection has a peer.
    ///
    /// A peer is an IPv4 address, or the first 64 bits of an IPv6 address. Peers behind one network
    /// address translator are one peer. UNIX sockets have no addresses of peers, and no such limit.
    #[must_use]
    pub fn max_per_peer(self, most: u32) -> Self {
        Self { per_peer: Some(most.max(1)), ..self }
    }

    /// Sets the number of leading bits of an IPv6 address that are one peer, up to 128. The default
    /// is 64: a host has all the addresses of such a net, and would otherwise be as many peers as
    /// it likes. 48 or 56 suit providers that give larger nets to their customers.
    #[must_use]
    pub fn peer_prefix(self, bits: u8) -> Self {
        Self { peer_prefix: bits.min(Ipv6Addr::BITS as u8), ..self }
    }

    /// Sets the number of connections that are accepted in a second, at a steady pace after a burst
    /// of as many. 0 counts as 1.
    #[must_use]
    pub fn accepts_per_second(self, count: u32) -> Self {
        Self { per_second: Some(count.max(1)), ..self }
    }

    /// Sets the conduct of the port when the number of all connections, or of those accepted in a
    /// second, is reached.
    #[must_use]
    pub fn when_full(self, conduct: WhenFull) -> Self {
        Self { when_full: conduct, ..self }
    }

    /// Returns `true` if nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.most.or(self.per_peer).or(self.per_second).is_none()
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// The connections of a port with limits. The reactors of a group share the gate of their port.
pub(crate) struct Gate {
    limits: ConnectionLimits,
    count: Mutex<OpenSeats>,
}

/// The counted connections, and the ports that wait for the end of one.
struct OpenSeats {
    open: u32,
    peers: HashMap<Peer, u32>,
    accepts: Option<Bucket>,
    waiting: Vec<RoomCall>,
}

/// Tells a port, from any thread, that a full gate has room again.
pub(crate) type RoomCall = Arc<dyn Fn() + Send + Sync>;

/// One peer, as far as limits are concerned.
type Peer = IpAddr;

/// The decision about an accepted connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The connection is served. Further ones have to wait: until there is room, or for a time.
    Admitted { seat: Seat, is_full: bool, pause: Option<Duration> },
    /// There is no place: another port of the gate has taken the last. The connection waits for the
    /// next one, or is reset for this reason if its port stops.
    Full(&'static str),
    /// The connection is reset, for this reason.
    Refused(&'static str),
}

impl Gate {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let accepts = limits.per_second.map(|count| {
            let count = u64::from(count);
            Bucket::new(Rate::bytes_per_second(count).burst(count))
        });
        let count = OpenSeats { open: 0, peers: HashMap::new(), accepts, waiting: Vec::new() };
        Arc::new(Self { limits, count: Mutex::new(count) })
    }

    /// Decides on a connection that was accepted now. `room` is called once there is room again, if
    /// the gate is full afterwards, and the port is to wait for that. The clocks of ports that
    /// share a gate need not agree: the latest one counts.
    pub(crate) fn admit(self: &Arc<Self>, peer: &Address, now: Duration, room: &RoomCall) -> Admission {
        let mut count = self.lock();
        if self.is_full(&count) {
            return match self.waits(&mut count, room) {
                true => Admission::Full(TOO_MANY),
                false => Admission::Refused(TOO_MANY),
            };
        }
        let peer = self.limits.per_peer.and(peer.ip()).map(|ip| self.peer(ip));
        if let (Some(peer), Some(most)) = (peer, self.limits.per_peer)
            && count.peers.get(&peer).is_some_and(|&open| open >= most)
        {
            return Admission::Refused("a peer has too many connections");
        }
        let debt = count.accepts.as_ref().map_or(Duration::ZERO, |accepts| accepts.take(1, now));
        if self.limits.when_full == WhenFull::Shed && !debt.is_zero() {
            count.accepts.iter().for_each(|accepts| accepts.give_back(1));
            return Admission::Refused("too many connections came in a second");
        }
        count.open += 1;
        if let Some(peer) = peer {
            *count.peers.entry(peer).or_default() += 1;
        }
        let is_full = self.waits(&mut count, room);
        let seat = Seat { gate: Arc::clone(self), peer };
        Admission::Admitted { seat, is_full, pause: (!debt.is_zero()).then_some(debt) }
    }

    /// Returns `true` if a port is to accept nothing until there is room. `room` is called then.
    pub(crate) fn pauses(&self, room: &RoomCall) -> bool {
        self.waits(&mut self.lock(), room)
    }

    /// Adds a port to those that wait for room, if it is to wait. No room is missed, as the places
    /// are freed under the same lock.
    fn waits(&self, count: &mut OpenSeats, room: &RoomCall) -> bool {
        let waits = self.limits.when_full == WhenFull::Pause && self.is_full(count);
        if waits && !count.waiting.iter().any(|other| Arc::ptr_eq(other, room)) {
            count.waiting.push(Arc::clone(room));
        }
        waits
    }

    fn is_full(&self, count: &OpenSeats) -> bool {
        self.limits.most.is_some_and(|most| count.open >= most)
    }

    /// Returns the peer of an address.
    fn peer(&self, ip: IpAddr) -> Peer {
        match ip.to_canonical() {
            IpAddr::V6(ip) => {
                let hidden = Ipv6Addr::BITS - u32::from(self.limits.peer_prefix);
                let mask = u128::MAX.checked_shl(hidden).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
            ip => ip,
        }
    }

    /// Frees a place. Returns the ports to be told.
    fn leave(&self, peer: Option<Peer>) -> Vec<RoomCall> {
        let mut count = self.lock();
        count.open -= 1;
        if let Some(peer) = peer {
            // A peer without connections is forgotten, so that the map is as long as the list of
            // open connections at most.
            if let Some(open) = count.peers.get_mut(&peer).filter(|open| **open > 1) {
                *open -= 1;
            } else {
                count.peers.remove(&peer);
            }
        }
        std::mem::take(&mut count.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, OpenSeats> {
        // Nothing panics under the lock, and the numbers would be whole if something did.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection. Dropping it ends the counting, on any thread.
pub(crate) struct Seat {
    gate: Arc<Gate>,
    peer: Option<Peer>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        for room in self.gate.leave(self.peer) {
            room();
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).field("open", &self.lock().open).finish_non_exhaustive()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn address(ip: &str) -> Address {
        Address::Inet((ip.parse::<IpAddr>().unwrap(), 7).into())
    }

    /// Counts its calls.
    fn counted() -> (RoomCall, Arc<AtomicUsize>) {
        let rooms = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rooms);
        let room: RoomCall = Arc::new(move || {
            counted.fetch_add(1, Relaxed);
        });
        (room, rooms)
    }

    fn admitted(gate: &Arc<Gate>, ip: &str, now: Duration) -> Result<(Seat, bool, Option<Duration>), &'static str> {
        match gate.admit(&address(ip), now, &counted().0) {
            Admission::Admitted { seat, is_full, pause } => Ok((seat, is_full, pause)),
            Admission::Full(_) => Err("wait"),
            Admission::Refused(reason) => Err(reason),
        }
    }

    /// At the limit the gate is full. A freed place is announced once to each port that waits, and
    /// can be taken, on any thread.
    #[test]
    fn a_full_gate_says_when_there_is_room() {
        let gate = Gate::new(ConnectionLimits::new().max_connections(2));
        let [(one, ones), (other, others)] = [counted(), counted()];
        let enter = |room| match gate.admit(&address("192.0.2.1"), Duration::ZERO, room) {
            Admission::Admitted { seat, is_full, .. } => Some((seat, is_full)),
            _ => None,
        };
        let first = enter(&one).unwrap();
        assert!(!first.1 && !gate.pauses(&one));
        let second = enter(&one).unwrap();
        assert!(second.1, "the last seat says that it is the last");
        assert!(enter(&other).is_none() && enter(&other).is_none() && gate.pauses(&one));
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert_eq!((ones.load(Relaxed), others.load(Relaxed)), (1, 1));
        drop(second);
        assert_eq!((ones.load(Relaxed), others.load(Relaxed)), (1, 1), "there was room already");
        assert!(enter(&other).is_some());
    }

    /// A gate that sheds has no waiting ports.
    #[test]
    fn a_shedding_gate_refuses() {
        let gate = Gate::new(ConnectionLimits::new().max_connections(1).when_full(WhenFull::Shed));
        let seat = admitted(&gate, "192.0.2.1", Duration::ZERO).unwrap();
        assert!(!seat.1, "the port goes on accepting");
        assert_eq!(admitted(&gate, "192.0.2.1", Duration::ZERO).err(), Some(TOO_MANY));
        assert!(gate.lock().waiting.is_empty());
    }

    /// Addresses of one /64 are one peer, and a mapped address is the IPv4 address that it maps.
    #[test]
    fn peers_are_nets() {
        let one = ConnectionLimits::new().max_per_peer(1);
        for (limits, first, same, other) in [
            (one, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            (one, "2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
            (one.peer_prefix(128), "2001:db8::1", "2001:db8::1", "2001:db8::2"),
            (one.peer_prefix(48), "2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::1"),
        ] {
            let gate = Gate::new(limits);
            let seat = admitted(&gate, first, Duration::ZERO).unwrap();
            assert!(admitted(&gate, same, Duration::ZERO).is_err(), "{same}");
            assert!(admitted(&gate, other, Duration::ZERO).is_ok(), "{other}");
            drop(seat);
            assert!(admitted(&gate, same, Duration::ZERO).is_ok(), "{same}");
            assert!(gate.lock().peers.is_empty(), "peers without connections are forgotten");
        }
        let all = Gate::new(one.peer_prefix(0));
        let seat = admitted(&all, "2001:db8::1", Duration::ZERO).unwrap();
        assert!(admitted(&all, "fe80::1", Duration::ZERO).is_err());
        drop(seat);
    }

    /// Two in a second: a burst of two, then a pause of half a second behind each, or a refusal.
    #[test]
    fn accepts_keep_to_their_rate() {
        let limits = ConnectionLimits::new().accepts_per_second(2);
        let (gate, half) = (Gate::new(limits), Duration::from_millis(500));
        let pauses: Vec<_> = (0..3).map(|_| admitted(&gate, "192.0.2.1", Duration::ZERO).unwrap().2).collect();
        assert_eq!(pauses, [None, None, Some(half)]);
        // A clock that is behind pays the debt of the one that is ahead.
        assert_eq!(admitted(&gate, "192.0.2.1", half).unwrap().2, Some(half));
        assert_eq!(admitted(&gate, "192.0.2.1", Duration::ZERO).unwrap().2, Some(half * 2));
        let gate = Gate::new(limits.when_full(WhenFull::Shed));
        let results: Vec<_> = (0..3).map(|_| admitted(&gate, "192.0.2.1", Duration::ZERO).is_ok()).collect();
        assert_eq!(results, [true, true, false]);
        assert!(admitted(&gate, "192.0.2.1", half).is_ok(), "a refusal costs nothing");
    }
}
