//! [`ConnectionLimits`] of a port, and the [`Gate`] that counts its connections. It makes no system
//! call: the reactor asks it about each accepted connection (`reactor/net/hold.rs`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::transport::policy::rate::{Bucket, Rate};

/// Leading bits of an IPv6 address that are one peer, unless set otherwise. 64: the smallest net
/// that a site is given, all of whose addresses are at the disposal of one host.
const PEER_PREFIX_BITS: u8 = 64;

/// Limits of the connections of a port (Twisted: `ThrottlingFactory.maxConnectionCount`,
/// `LimitTotalConnectionsFactory`, `LimitConnectionsByPeer`). Nothing is limited by default.
///
/// A connection counts until its socket is closed, the time included in which a closed one
/// [lingers](crate::Reactor::end_lingering). So the limit bounds descriptors as well. Each port
/// counts by itself. In a [`ReactorGroup`](crate::reactor::ReactorGroup), each reactor does.
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

/// The connections of a port with limits.
pub(crate) struct Gate {
    limits: ConnectionLimits,
    open: Cell<u32>,
    peers: RefCell<HashMap<Peer, u32>>,
    accepts: Option<Bucket>,
    /// Called when there is room again after the gate was full.
    has_room: RefCell<Option<Rc<dyn Fn()>>>,
}

/// One peer, as far as limits are concerned.
type Peer = IpAddr;

/// The decision about an accepted connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The connection is served. Further ones have to wait: until there is room, or for a time.
    Admitted { seat: Seat, is_full: bool, pause: Option<Duration> },
    /// The connection is reset, for this reason.
    Refused(&'static str),
}

impl Gate {
    pub(crate) fn new(limits: ConnectionLimits) -> Rc<Self> {
        let accepts = limits.per_second.map(|count| {
            let count = u64::from(count);
            Bucket::new(Rate::bytes_per_second(count).burst(count))
        });
        Rc::new(Self { limits, open: Cell::new(0), peers: RefCell::default(), accepts, has_room: RefCell::default() })
    }

    /// Sets the function that is called when there is room again.
    pub(crate) fn when_room(&self, call: impl Fn() + 'static) {
        self.has_room.replace(Some(Rc::new(call)));
    }

    /// Decides on a connection that was accepted now.
    pub(crate) fn admit(self: &Rc<Self>, peer: &Address, now: Duration) -> Admission {
        if self.is_full() {
            return Admission::Refused("too many connections are open");
        }
        let peer = self.limits.per_peer.and(peer.ip()).map(|ip| self.peer(ip));
        if let (Some(peer), Some(most)) = (peer, self.limits.per_peer)
            && self.peers.borrow().get(&peer).is_some_and(|&open| open >= most)
        {
            return Admission::Refused("a peer has too many connections");
        }
        let debt = self.accepts.as_ref().map_or(Duration::ZERO, |accepts| accepts.take(1, now));
        if self.limits.when_full == WhenFull::Shed && !debt.is_zero() {
            self.accepts.iter().for_each(|accepts| accepts.give_back(1));
            return Admission::Refused("too many connections came in a second");
        }
        let seat = Seat::new(self, peer);
        Admission::Admitted { seat, is_full: self.pauses(), pause: (!debt.is_zero()).then_some(debt) }
    }

    /// Returns `true` if the port is to accept nothing until there is room.
    pub(crate) fn pauses(&self) -> bool {
        self.limits.when_full == WhenFull::Pause && self.is_full()
    }

    /// Counts a connection that goes to another reactor. Returns the pause until the next one.
    pub(crate) fn pass_on(&self, now: Duration) -> Option<Duration> {
        let debt = self.accepts.as_ref()?.take(1, now);
        (!debt.is_zero()).then_some(debt)
    }

    fn is_full(&self) -> bool {
        self.limits.most.is_some_and(|most| self.open.get() >= most)
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
}

/// One counted connection. Dropping it ends the counting.
pub(crate) struct Seat {
    gate: Rc<Gate>,
    peer: Option<Peer>,
}

impl Seat {
    fn new(gate: &Rc<Gate>, peer: Option<Peer>) -> Self {
        gate.open.set(gate.open.get() + 1);
        if let Some(peer) = peer {
            *gate.peers.borrow_mut().entry(peer).or_default() += 1;
        }
        Self { gate: Rc::clone(gate), peer }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let was_full = self.gate.is_full();
        self.gate.open.set(self.gate.open.get() - 1);
        if let Some(peer) = &self.peer {
            let mut peers = self.gate.peers.borrow_mut();
            // A peer without connections is forgotten, so that the map is as long as the list of
            // open connections at most.
            if let Some(open) = peers.get_mut(peer).filter(|open| **open > 1) {
                *open -= 1;
            } else {
                peers.remove(peer);
            }
        }
        let call = self.gate.has_room.borrow().clone().filter(|_| was_full);
        if let Some(call) = call {
            call();
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).field("open", &self.open.get()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str) -> Address {
        Address::Inet((ip.parse::<IpAddr>().unwrap(), 7).into())
    }

    fn admitted(gate: &Rc<Gate>, ip: &str, now: Duration) -> Result<(Seat, bool, Option<Duration>), &'static str> {
        match gate.admit(&address(ip), now) {
            Admission::Admitted { seat, is_full, pause } => Ok((seat, is_full, pause)),
            Admission::Refused(reason) => Err(reason),
        }
    }

    /// At the limit the gate is full; a freed seat is announced, once, and can be taken.
    #[test]
    fn a_full_gate_says_when_there_is_room() {
        let gate = Gate::new(ConnectionLimits::new().max_connections(2));
        let rooms = Rc::new(Cell::new(0));
        let counted = Rc::clone(&rooms);
        gate.when_room(move || counted.set(counted.get() + 1));
        let first = admitted(&gate, "192.0.2.1", Duration::ZERO).unwrap();
        assert!(!first.1);
        let second = admitted(&gate, "192.0.2.1", Duration::ZERO).unwrap();
        assert!(second.1, "the last seat says that it is the last");
        assert!(admitted(&gate, "192.0.2.2", Duration::ZERO).is_err());
        drop(first);
        assert_eq!(rooms.get(), 1);
        drop(second);
        assert_eq!(rooms.get(), 1, "there was room already");
        assert!(admitted(&gate, "192.0.2.2", Duration::ZERO).is_ok());
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
            assert!(gate.peers.borrow().is_empty(), "peers without connections are forgotten");
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
        assert_eq!(gate.pass_on(half), Some(half));
        let gate = Gate::new(limits.when_full(WhenFull::Shed));
        let results: Vec<_> = (0..3).map(|_| admitted(&gate, "192.0.2.1", Duration::ZERO).is_ok()).collect();
        assert_eq!(results, [true, true, false]);
        assert!(admitted(&gate, "192.0.2.1", half).is_ok(), "a refusal costs nothing");
    }
}
