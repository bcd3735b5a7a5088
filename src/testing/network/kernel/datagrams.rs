//! Datagram sockets of UDP. The ways of datagrams between them stand in `datagram_routes.rs`, and
//! UNIX sockets in `unix_datagrams.rs`. The answers are those of Linux, as far as the tables of
//! those files say nothing else.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::sent_datagrams::SentRecord;
use super::sharing::{Sharing, is_of, overlap};
use super::{FIRST_PORT, Host, Kernel, News, Owner, SocketId, too_many_open};
use crate::address::{Address, unmapped};
use crate::datagram::{
    DatagramOption, DatagramSend, DatagramSocketOptions, DatagramValue, Destination, InterfaceChoice, Reach,
};
use crate::reactor::{DatagramBatch, DatagramReceive, ReceivedDatagram};

/// The default size of a socket's buffers in bytes, as on Linux.
pub(super) const BUFFER_BYTES: usize = 212_992;

/// Bytes that a datagram takes of a buffer beside its own, so that empty ones are bounded too.
pub(super) const COST: usize = 64;

/// The indexes of a host's interfaces: the loopback's, and the one to other hosts.
pub(super) const LOOPBACK: u32 = 1;
pub(super) const OUTER: u32 = 2;

/// The errors of Linux, by number.
const NO_DEVICE: i32 = 19;
const ADDRESS_IN_USE: i32 = 98;
const ADDRESS_NOT_AVAILABLE: i32 = 99;

/// A bound UDP socket.
pub(crate) struct SimulatedDatagrams {
    pub(super) owner: Owner,
    pub(super) host: IpAddr,
    pub(super) bound: SocketAddr,
    pub(super) sharing: Sharing,
    pub(super) peer: Option<SocketAddr>,
    pub(super) incoming: VecDeque<Arrived>,
    /// Bytes in the receive buffer, and those under way of the send buffer, with their costs.
    pub(super) received_bytes: usize,
    pub(super) sent_bytes: usize,
    pub(super) receive_buffer: usize,
    pub(super) send_buffer: usize,
    /// A refusal that no call has reported yet.
    pub(super) refused: bool,
    pub(super) receiving: bool,
    /// The reactor has asked for a report, whatever has arrived.
    pub(super) asked: bool,
    /// A send waits for room.
    pub(super) blocked: bool,
    /// The last send was held back for no reason, so the next one is not.
    pub(super) held: bool,
    pub(super) broadcast: bool,
    pub(super) ttl: u8,
    pub(super) loopback: bool,
    pub(super) outgoing: u32,
    pub(super) groups: BTreeSet<(IpAddr, u32)>,
    /// The time at which the last sent bit has left, and the last datagram in order arrives.
    pub(super) busy_until: Duration,
    pub(super) arrives_last: Duration,
}

/// A datagram in a receive buffer.
pub(super) struct Arrived {
    pub(super) data: Rc<[u8]>,
    pub(super) record: Rc<SentRecord>,
}

impl Kernel {
    /// Makes a socket. Returns its address, and the addresses that it reaches.
    pub(crate) fn bind_datagrams(
        &mut self,
        owner: Owner,
        host: IpAddr,
        address: &Address,
        options: &DatagramSocketOptions,
    ) -> io::Result<(SocketId, Address, Reach)> {
        match address {
            Address::Inet(address) => self.bind_udp(owner, host, *address, options),
            Address::Unix(name) => {
                let id = self.bind_unix_datagrams(owner, host, name, options)?;
                Ok((id, address.clone(), Reach::Unix))
            }
            Address::Pipe => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn bind_udp(
        &mut self,
        owner: Owner,
        host: IpAddr,
        address: SocketAddr,
        options: &DatagramSocketOptions,
    ) -> io::Result<(SocketId, Address, Reach)> {
        if self.is_full(owner) {
            return Err(too_many_open());
        }
        if !is_of(host, address.ip()) && !address.ip().is_multicast() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let DatagramSocketOptions { reuse_address, reuse_port, .. } = *options;
        let sharing = Sharing { reuse_address, reuse_port, ipv6_only: options.ipv6_only.unwrap_or(false) };
        let mut bound = address;
        if bound.port() == 0 {
            bound.set_port(self.free_datagram_port(host).ok_or(io::ErrorKind::AddrInUse)?);
        }
        let name = Address::from(bound);
        let is_kept = |other: &SimulatedDatagrams| {
            let may_share = (reuse_address && other.sharing.reuse_address) || (reuse_port && other.sharing.reuse_port);
            other.host == host && !may_share && overlap((&other.bound.into(), other.sharing), (&name, sharing))
        };
        if self.datagrams.values().any(is_kept) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = SimulatedDatagrams {
            owner,
            host,
            bound,
            sharing,
            peer: None,
            incoming: VecDeque::new(),
            received_bytes: 0,
            sent_bytes: 0,
            receive_buffer: options.receive_buffer.map_or(BUFFER_BYTES, doubled),
            send_buffer: options.send_buffer.map_or(BUFFER_BYTES, doubled),
            refused: false,
            receiving: true,
            asked: false,
            blocked: false,
            held: false,
            broadcast: options.broadcast,
            ttl: 1,
            loopback: true,
            outgoing: OUTER,
            groups: BTreeSet::new(),
            busy_until: Duration::ZERO,
            arrives_last: Duration::ZERO,
        };
        let id = self.next_id();
        self.datagrams.insert(id, socket);
        self.note(format_args!("bind   {bound} on {host}"));
        let reach = match bound {
            SocketAddr::V4(_) => Reach::Ipv4,
            SocketAddr::V6(at) if at.ip().is_unspecified() && !sharing.ipv6_only => Reach::Both,
            SocketAddr::V6(_) => Reach::Ipv6,
        };
        Ok((id, bound.into(), reach))
    }

    fn free_datagram_port(&mut self, host: IpAddr) -> Option<u16> {
        for _ in FIRST_PORT..=u16::MAX {
            let place = self.hosts.entry(host).or_insert(Host { next_port: FIRST_PORT });
            let port = place.next_port;
            place.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.datagrams.values().any(|socket| socket.host == host && socket.bound.port() == port) {
                return Some(port);
            }
        }
        None
    }

    pub(crate) fn has_datagrams(&self, id: SocketId) -> bool {
        self.datagrams.contains_key(&id) || self.unix_datagrams.contains_key(&id)
    }

    /// Gives a socket a peer. Returns its own address.
    pub(crate) fn connect_datagrams(&mut self, id: SocketId, peer: Destination<'_>) -> io::Result<Address> {
        match (peer, self.datagrams.get_mut(&id)) {
            (Destination::Inet(peer), Some(socket)) => Ok(socket.connect(peer)?.into()),
            (Destination::Unix(peer), None) => Ok(self.connect_unix_datagrams(id, peer)?.into()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(crate) fn set_datagram_option(&mut self, id: SocketId, option: DatagramOption) -> io::Result<()> {
        match self.datagrams.get_mut(&id) {
            Some(socket) => socket.set_option(option),
            None => self.unix_datagrams.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?.set_option(option),
        }
    }

    pub(crate) fn datagram_option(&self, id: SocketId, option: DatagramValue) -> io::Result<u32> {
        match self.datagrams.get(&id) {
            Some(socket) => Ok(socket.option(option)),
            None => self.unix_datagrams.get(&id).ok_or(io::ErrorKind::NotConnected)?.option(option),
        }
    }

    /// Sends a datagram.
    pub(crate) fn send_datagram(&mut self, id: SocketId, data: &[u8], to: Destination<'_>) -> DatagramSend {
        match to {
            Destination::Inet(to) => self.send_udp(id, data, Some(to)),
            Destination::Unix(to) => self.send_unix_datagram(id, data, Some(to)),
            Destination::Peer if self.datagrams.contains_key(&id) => self.send_udp(id, data, None),
            Destination::Peer => self.send_unix_datagram(id, data, None),
        }
    }

    /// Returns the addresses of an owner's datagram sockets, the oldest first.
    pub(crate) fn datagram_ports(&self, owner: Owner) -> Vec<Address> {
        let of_owner = self.datagrams.iter().filter(|(_, socket)| socket.owner == owner);
        let udp = of_owner.map(|(_, socket)| socket.bound.into());
        udp.chain(self.unix_datagram_ports(owner).map(Address::from)).collect()
    }

    pub(super) fn open_datagrams(&self, owner: Owner) -> usize {
        self.datagrams.values().filter(|socket| socket.owner == owner).count() + self.unix_datagram_ports(owner).count()
    }

    /// Closes a datagram socket, if there is one of this id. Its datagrams under way go on.
    pub(super) fn close_datagrams(&mut self, id: SocketId) {
        if let Some(socket) = self.datagrams.remove(&id) {
            return self.note(format_args!("unbind {}", socket.bound));
        }
        self.close_unix_datagrams(id);
    }

    /// Starts or stops receiving. A socket that is to receive is reported in the next turn.
    pub(crate) fn set_datagrams_receiving(&mut self, id: SocketId, on: bool) {
        let owner = if let Some(socket) = self.datagrams.get_mut(&id) {
            (socket.receiving, socket.asked) = (on, on);
            socket.owner
        } else if let Some(socket) = self.unix_datagrams.get_mut(&id) {
            socket.set_receiving(on);
            socket.owner()
        } else {
            return;
        };
        if on {
            self.make_ready_again(owner, id);
        }
    }

    pub(super) fn datagram_news(&mut self, id: SocketId) -> Option<News> {
        let (owner, has_room, has_news, blocked, asked) = if let Some(socket) = self.datagrams.get_mut(&id) {
            let has_news = socket.receiving && (socket.asked || socket.refused || !socket.incoming.is_empty());
            let has_room = socket.sent_bytes < socket.send_buffer;
            (socket.owner, has_room, has_news, &mut socket.blocked, &mut socket.asked)
        } else {
            let socket = self.unix_datagrams.get_mut(&id)?;
            (socket.owner(), socket.has_room(), socket.has_news(), &mut socket.blocked, &mut socket.asked)
        };
        if *blocked && has_room {
            *blocked = false;
            if has_news {
                self.make_ready(owner, id);
            }
            return Some(News::SendReady);
        }
        *asked &= !has_news;
        has_news.then_some(News::DatagramsReady)
    }

    /// Receives datagrams. The batch may end before it is full, though others are there.
    pub(crate) fn receive_datagrams(&mut self, id: SocketId, batch: &mut DatagramBatch) -> DatagramReceive {
        if self.datagrams.get_mut(&id).is_some_and(|socket| std::mem::take(&mut socket.refused)) {
            return DatagramReceive::Refused;
        }
        let short = self.conditions.short_sends;
        while !batch.is_full() {
            let taken = batch.rooms().next().and_then(|room| self.take_datagram(id, room));
            let Some(datagram) = taken else { break };
            batch.push(datagram);
            if self.random.chance(short) {
                return DatagramReceive::More;
            }
        }
        match (batch.is_full(), batch.is_empty()) {
            (true, _) => DatagramReceive::More,
            (_, true) => DatagramReceive::Empty,
            _ => DatagramReceive::Last,
        }
    }

    /// Takes a datagram from the receive buffer, as far as it fits into `room`.
    pub(crate) fn take_datagram(&mut self, id: SocketId, room: &mut [u8]) -> Option<ReceivedDatagram> {
        let Some(socket) = self.datagrams.get_mut(&id) else { return self.take_unix_datagram(id, room) };
        let Arrived { data, record } = socket.incoming.pop_front()?;
        socket.received_bytes -= data.len() + COST;
        let filled = data.len().min(room.len());
        room[..filled].copy_from_slice(&data[..filled]);
        let is_whole = filled == data.len();
        record.check(if is_whole { &room[..filled] } else { &data }, &mut self.faults);
        let SentRecord { number, from, to, .. } = *record;
        self.note(format_args!("take   #{number} {from} > {to} {filled}"));
        let truncated = (!is_whole).then_some(Some(data.len()));
        Some(ReceivedDatagram { filled, each: None, truncated, peer: from.into() })
    }
}

impl SimulatedDatagrams {
    /// Returns the address from which datagrams to another leave.
    pub(super) fn source(&self, to: SocketAddr) -> Result<SocketAddr, io::ErrorKind> {
        if is_broadcast(to.ip()) && !self.broadcast {
            return Err(io::ErrorKind::PermissionDenied);
        }
        let bound = unmapped(self.bound);
        if !bound.ip().is_unspecified() && !bound.ip().is_multicast() {
            // Linux sends nothing from the loopback interface to others.
            let to = to.ip();
            let is_away = bound.ip().is_loopback() && !to.is_loopback() && !to.is_multicast() && to != self.host;
            return if is_away { Err(io::ErrorKind::InvalidInput) } else { Ok(bound) };
        }
        let ip = if to.ip().is_loopback() { to.ip() } else { self.host };
        if ip.is_ipv4() != to.is_ipv4() {
            return Err(io::ErrorKind::NetworkUnreachable);
        }
        Ok(SocketAddr::new(ip, bound.port()))
    }

    /// Gives the socket a peer. Returns its own address, in the family of the socket.
    fn connect(&mut self, peer: SocketAddr) -> io::Result<SocketAddr> {
        let peer = specified(unmapped(peer));
        let source = self.source(peer)?;
        self.peer = Some(peer);
        self.bound = match (self.bound, source.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), source.port()),
            _ => source,
        };
        Ok(self.bound)
    }

    fn set_option(&mut self, option: DatagramOption) -> io::Result<()> {
        match option {
            DatagramOption::Broadcast(on) => self.broadcast = on,
            DatagramOption::ReceiveBuffer(bytes) => self.receive_buffer = doubled(bytes),
            DatagramOption::SendBuffer(bytes) => self.send_buffer = doubled(bytes),
            DatagramOption::MulticastTtl(ttl) => self.ttl = ttl,
            DatagramOption::MulticastLoopback(on) => self.loopback = on,
            DatagramOption::OutgoingInterface(interface) => {
                let missing = if self.bound.is_ipv6() { NO_DEVICE } else { ADDRESS_NOT_AVAILABLE };
                self.outgoing = self.interface(interface, missing)?;
            }
            DatagramOption::JoinGroup(group, interface) => {
                if !self.groups.insert((group, self.interface(interface, NO_DEVICE)?)) {
                    return Err(io::Error::from_raw_os_error(ADDRESS_IN_USE));
                }
            }
            DatagramOption::LeaveGroup(group, interface) => {
                let mut index = self.interface(interface, ADDRESS_NOT_AVAILABLE)?;
                if group.is_ipv6() && matches!(interface, InterfaceChoice::Default | InterfaceChoice::Index(0)) {
                    // The first interface on which the group was joined.
                    index = self.groups.iter().find(|(joined, _)| *joined == group).map_or(index, |(_, first)| *first);
                }
                if !self.groups.remove(&(group, index)) {
                    return Err(io::Error::from_raw_os_error(ADDRESS_NOT_AVAILABLE));
                }
            }
        }
        Ok(())
    }

    fn option(&self, option: DatagramValue) -> u32 {
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        match option {
            DatagramValue::Broadcast => self.broadcast.into(),
            DatagramValue::ReceiveBuffer => bytes(self.receive_buffer),
            DatagramValue::SendBuffer => bytes(self.send_buffer),
            DatagramValue::MulticastTtl => self.ttl.into(),
            DatagramValue::MulticastLoopback => self.loopback.into(),
        }
    }

    /// Returns the index of an interface of the host. `missing` is the error if there is none.
    fn interface(&self, interface: InterfaceChoice, missing: i32) -> io::Result<u32> {
        let index = match interface {
            InterfaceChoice::Default => Some(OUTER),
            InterfaceChoice::Address(address) if self.bound.is_ipv6() => {
                let reason = format!("an IPv6 socket takes the index of an interface, not {address}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            InterfaceChoice::Address(address) if address.is_unspecified() => Some(OUTER),
            InterfaceChoice::Address(address) if address.is_loopback() => Some(LOOPBACK),
            InterfaceChoice::Address(address) => (self.host == address).then_some(OUTER),
            InterfaceChoice::Index(0) => Some(OUTER),
            InterfaceChoice::Index(index) => [LOOPBACK, OUTER].contains(&index).then_some(index),
        };
        index.ok_or_else(|| io::Error::from_raw_os_error(missing))
    }
}

/// Linux doubles the sizes of buffers that it is asked for.
pub(super) fn doubled(bytes: u32) -> usize {
    (bytes as usize).saturating_mul(2)
}

/// Returns the loopback address of the family in the place of the unspecified one.
pub(super) fn specified(to: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return to,
    };
    SocketAddr::new(loopback, to.port())
}

pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}
