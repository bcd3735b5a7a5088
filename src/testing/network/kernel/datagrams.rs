//! Datagram sockets of UDP, and the datagrams between them. Those of UNIX sockets stand in
//! `unix_datagrams.rs`. The answers are those of Linux, as far as the
//! table says nothing else:
//!
//! | a datagram | fate |
//! |---|---|
//! | to a host or a port without a socket | is dropped; a connected sender is refused by a known host |
//! | to a group | reaches each member on the interface: own host with loop-back, others with a TTL above 0 |
//! | to 255.255.255.255 | reaches each socket of the port on every host, if the sender permits broadcasts |
//! | to a socket whose receive buffer is full | is dropped |
//! | across a [partition](crate::testing::Network::partition) | is dropped, and never sent again |
//!
//! Linux also gives datagrams of any group to sockets that are bound to all addresses and have not
//! joined it. Here, members alone receive them.
//!
//! Each datagram carries a record of its sending, with which its reception is compared: it must be
//! unchanged, and come no more often than the network has made copies.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::sharing::{Sharing, is_of, overlap, reaches};
use super::{FIRST_PORT, Host, Kernel, KernelEvent, News, Owner, SocketId, draw, too_many_open};
use crate::address::{Address, unmapped};
use crate::datagram::{DatagramOption, DatagramSend, DatagramSocketOptions, DatagramValue, InterfaceChoice};
use crate::reactor::{DatagramBatch, DatagramReceive, ReceivedDatagram};

/// The default size of a socket's buffers in bytes, as on Linux.
pub(super) const BUFFER_BYTES: usize = 212_992;

/// Bytes that a datagram takes of a buffer beside its own, so that empty ones are bounded too.
pub(super) const COST: usize = 64;

/// The indexes of a host's interfaces: the loopback's, and the one to other hosts.
const LOOPBACK: u32 = 1;
const OUTER: u32 = 2;

/// The errors of Linux, by number.
const NO_DEVICE: i32 = 19;
const ADDRESS_IN_USE: i32 = 98;
const ADDRESS_NOT_AVAILABLE: i32 = 99;

/// A bound UDP socket.
pub(crate) struct SimulatedDatagrams {
    owner: Owner,
    host: IpAddr,
    bound: SocketAddr,
    sharing: Sharing,
    peer: Option<SocketAddr>,
    incoming: VecDeque<Arrived>,
    /// Bytes in the receive buffer, and those under way of the send buffer, with their costs.
    received_bytes: usize,
    sent_bytes: usize,
    receive_buffer: usize,
    send_buffer: usize,
    /// A refusal that no call has reported yet.
    refused: bool,
    receiving: bool,
    /// The reactor has asked for a report, whatever has arrived.
    asked: bool,
    /// A send waits for room.
    blocked: bool,
    /// The last send was held back for no reason, so the next one is not.
    held: bool,
    broadcast: bool,
    ttl: u8,
    loopback: bool,
    outgoing: u32,
    groups: BTreeSet<(IpAddr, u32)>,
    /// The time at which the last sent bit has left, and the last datagram in order arrives.
    busy_until: Duration,
    arrives_last: Duration,
}

/// A datagram in a receive buffer.
struct Arrived {
    data: Rc<[u8]>,
    record: Rc<SentRecord>,
}

/// A datagram under way to one host.
#[derive(Debug)]
pub(super) struct DatagramUnderWay {
    sender: SocketId,
    from_host: IpAddr,
    there: IpAddr,
    /// The interface of the members, if it goes to a group.
    interface: u32,
    data: Rc<[u8]>,
    record: Rc<SentRecord>,
    /// Bytes of the sender's buffer that are free when it has arrived.
    frees: usize,
    is_lost: bool,
}

/// The record of a sent datagram.
#[derive(Debug)]
struct SentRecord {
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    checksum: u64,
    /// Receptions that are still permitted.
    permitted: Cell<usize>,
}

impl Kernel {
    /// Binds a socket. Returns its address, and `true` if it reaches both families.
    pub(crate) fn bind_datagrams(
        &mut self,
        owner: Owner,
        host: IpAddr,
        address: SocketAddr,
        options: &DatagramSocketOptions,
    ) -> io::Result<(SocketId, SocketAddr, bool)> {
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
        Ok((id, bound, bound.is_ipv6() && bound.ip().is_unspecified() && !sharing.ipv6_only))
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

    pub(crate) fn datagrams(&mut self, id: SocketId) -> Option<&mut SimulatedDatagrams> {
        self.datagrams.get_mut(&id)
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
        let Some(socket) = self.datagrams.get_mut(&id) else { return self.unix_datagram_news(id) };
        let has_room = socket.blocked && socket.sent_bytes < socket.send_buffer;
        let (owner, has_news) =
            (socket.owner, socket.receiving && (socket.asked || socket.refused || !socket.incoming.is_empty()));
        if has_room {
            socket.blocked = false;
            if has_news {
                self.make_ready(owner, id);
            }
            return Some(News::SendReady);
        }
        if has_news {
            socket.asked = false;
        }
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
        let seen = checksum(if is_whole { &room[..filled] } else { &data });
        let permitted = record.permitted.get();
        let SentRecord { number, from, to, .. } = *record;
        if seen != record.checksum {
            self.faults.add(format_args!("datagram {number} from {from} to {to} was changed"));
        }
        match permitted.checked_sub(1) {
            Some(rest) => record.permitted.set(rest),
            None => self.faults.add(format_args!("datagram {number} from {from} to {to} comes too often")),
        }
        self.note(format_args!("take   #{number} {from} > {to} {filled}"));
        let truncated = (!is_whole).then_some(Some(data.len()));
        Some(ReceivedDatagram { filled, each: None, truncated, peer: from.into() })
    }

    /// Sends a datagram. `None` sends to the peer.
    pub(crate) fn send_datagram(&mut self, id: SocketId, data: &[u8], to: Option<SocketAddr>) -> DatagramSend {
        let (short_sends, limit) = (self.conditions.short_sends, self.conditions.refused_above);
        let is_held = self.random.chance(short_sends);
        let Some(socket) = self.datagrams.get_mut(&id) else {
            return DatagramSend::Failed(io::ErrorKind::NotConnected.into());
        };
        if std::mem::take(&mut socket.refused) {
            return DatagramSend::Refused;
        }
        let Some(to) = to.or(socket.peer).map(unmapped) else {
            return DatagramSend::Failed(io::ErrorKind::NotConnected.into());
        };
        let (from, host) = match socket.source(to) {
            Ok(from) => (from, socket.host),
            Err(kind) => return DatagramSend::Failed(kind.into()),
        };
        let takes = data.len() + COST;
        if data.len() > limit || takes > socket.send_buffer {
            return DatagramSend::TooLong;
        }
        let is_held = is_held && !socket.held;
        socket.held = is_held;
        if is_held || socket.sent_bytes + takes > socket.send_buffer {
            socket.blocked = true;
            if is_held {
                // No arrival has to make room for it. Otherwise one is to come.
                let owner = socket.owner;
                self.make_ready_again(owner, id);
            }
            return DatagramSend::Full;
        }
        let (outgoing, ttl, loopback) = (socket.outgoing, socket.ttl, socket.loopback);
        let hosts = if to.ip().is_multicast() {
            self.hosts_of_a_group(host, outgoing, ttl, loopback)
        } else if is_broadcast(to.ip()) {
            self.hosts.keys().copied().filter(IpAddr::is_ipv4).collect()
        } else {
            vec![if to.ip().is_loopback() || to.ip().is_unspecified() { host } else { to.ip() }]
        };
        self.datagrams_sent += 1;
        let number = self.datagrams_sent;
        let record = SentRecord { number, from, to, checksum: checksum(data), permitted: Cell::new(0) };
        let (record, data) = (Rc::new(record), Rc::from(data));
        for there in hosts {
            let under_way = DatagramUnderWay {
                sender: id,
                from_host: host,
                there,
                interface: outgoing,
                data: Rc::clone(&data),
                record: Rc::clone(&record),
                frees: 0,
                is_lost: false,
            };
            self.launch(under_way);
        }
        DatagramSend::Sent
    }

    /// Returns the hosts that a datagram to a group reaches.
    fn hosts_of_a_group(&self, own: IpAddr, interface: u32, ttl: u8, loopback: bool) -> Vec<IpAddr> {
        let is_reached = |host: &IpAddr| match *host == own {
            true => interface == LOOPBACK || loopback,
            false => interface == OUTER && ttl > 0,
        };
        self.hosts.keys().copied().filter(is_reached).collect()
    }

    /// Draws the fate of a datagram, and puts it under way.
    fn launch(&mut self, mut datagram: DatagramUnderWay) {
        let length = datagram.data.len();
        let (bandwidth, lost_above) = (self.conditions.bandwidth, self.conditions.lost_above);
        let (loss, twice) = (self.conditions.datagram_loss, self.conditions.datagram_duplicates);
        datagram.is_lost = length > lost_above || self.random.chance(loss);
        let is_doubled = !datagram.is_lost && self.random.chance(twice);
        let fate = if datagram.is_lost {
            " lost"
        } else if is_doubled {
            " twice"
        } else {
            ""
        };
        let SentRecord { number, from, to, .. } = *datagram.record;
        self.note(format_args!("sendto #{number} {from} > {to} {length}{fate}"));
        let now = self.now;
        let Some(socket) = self.datagrams.get_mut(&datagram.sender) else { return };
        datagram.frees = length + COST;
        socket.sent_bytes += datagram.frees;
        let takes = bandwidth.map_or(Duration::ZERO, |bytes| Duration::from_secs_f64(length as f64 / bytes as f64));
        socket.busy_until = socket.busy_until.max(now) + takes;
        if is_doubled {
            let (data, record) = (Rc::clone(&datagram.data), Rc::clone(&datagram.record));
            let copy = DatagramUnderWay { data, record, frees: 0, ..datagram };
            self.schedule(copy);
        }
        self.schedule(datagram);
    }

    /// Draws the time at which a datagram arrives. Datagrams of a socket stay in order, except for
    /// those that are to be late.
    fn schedule(&mut self, datagram: DatagramUnderWay) {
        let latency = self.latency();
        let (late, most) = self.conditions.datagram_reordering;
        let is_late = self.random.chance(late);
        let delay = if is_late { draw(&mut self.random, Duration::ZERO, most) } else { Duration::ZERO };
        let Some(socket) = self.datagrams.get_mut(&datagram.sender) else { return };
        let mut at = socket.busy_until + latency;
        if is_late {
            at += delay;
        } else {
            at = at.max(socket.arrives_last);
            socket.arrives_last = at;
        }
        datagram.record.permit(1);
        self.later(at, KernelEvent::Datagram(Box::new(datagram)));
    }

    /// A datagram has left its sender's buffer, and arrives unless it is lost.
    pub(super) fn datagram_arrives(&mut self, datagram: &DatagramUnderWay) {
        if let Some(sender) = self.datagrams.get_mut(&datagram.sender) {
            sender.sent_bytes -= datagram.frees;
            let (owner, is_blocked) = (sender.owner, sender.blocked);
            if is_blocked {
                self.make_ready(owner, datagram.sender);
            }
        }
        let SentRecord { number, from, to, .. } = *datagram.record;
        if datagram.is_lost {
            return;
        }
        if self.is_parted(datagram.from_host, datagram.there) {
            return self.note(format_args!("drop   #{number} {from} > {to} parted"));
        }
        let receivers = self.datagram_receivers(datagram);
        if receivers.is_empty() {
            self.note(format_args!("drop   #{number} {from} > {to} no socket"));
            let is_single = !to.ip().is_multicast() && !is_broadcast(to.ip());
            if is_single && self.hosts.contains_key(&datagram.there) {
                let at = self.now + self.latency();
                self.later(at, KernelEvent::Refused(datagram.sender, to));
            }
        }
        // A copy that was sent permits one reception. To many receivers it is one for each.
        datagram.record.permit(receivers.len().saturating_sub(1));
        for id in receivers {
            let Some(socket) = self.datagrams.get_mut(&id) else { continue };
            let takes = datagram.data.len() + COST;
            // Linux takes a datagram of any size into an empty buffer.
            if !socket.incoming.is_empty() && socket.received_bytes + takes > socket.receive_buffer {
                let bound = socket.bound;
                self.note(format_args!("drop   #{number} {from} > {to} {bound} is full"));
                continue;
            }
            socket.received_bytes += takes;
            let (data, record) = (Rc::clone(&datagram.data), Rc::clone(&datagram.record));
            socket.incoming.push_back(Arrived { data, record });
            let owner = socket.owner;
            self.note(format_args!("arrive #{number} {from} > {to}"));
            self.make_ready(owner, id);
        }
    }

    /// Returns the sockets that receive a datagram on its host: each member of a group, each for a
    /// broadcast, or one. A connected socket comes before others, then the more exact address.
    /// Among equal ones that share by `SO_REUSEPORT` the sender's port decides, otherwise the
    /// newest.
    fn datagram_receivers(&self, datagram: &DatagramUnderWay) -> Vec<SocketId> {
        let SentRecord { from, to, .. } = *datagram.record;
        let is_group = to.ip().is_multicast();
        let to_all = is_broadcast(to.ip());
        let named = Address::from(to);
        let rank = |socket: &SimulatedDatagrams| {
            let is_there = socket.host == datagram.there && socket.bound.port() == to.port();
            if !is_there || socket.peer.is_some_and(|peer| unmapped(peer) != from) {
                return None;
            }
            if is_group && !socket.groups.contains(&(to.ip(), datagram.interface)) {
                return None;
            }
            if to_all && !socket.bound.ip().is_unspecified() {
                return None;
            }
            Some((socket.peer.is_some(), reaches(&named, (&socket.bound.into(), socket.sharing))?))
        };
        let all: Vec<_> =
            self.datagrams.iter().filter_map(|(id, socket)| Some((rank(socket)?, *id, socket.sharing))).collect();
        if is_group || to_all {
            return all.into_iter().map(|(_, id, _)| id).collect();
        }
        let Some(best) = all.iter().map(|(rank, ..)| *rank).max() else { return Vec::new() };
        let best: Vec<_> = all.into_iter().filter(|(rank, ..)| *rank == best).collect();
        let is_spread = best.iter().all(|(.., sharing)| sharing.reuse_port);
        let place = if is_spread { usize::from(from.port()) % best.len() } else { best.len() - 1 };
        vec![best[place].1]
    }

    /// The news that a datagram was refused reach its sender. An unconnected socket ignores them.
    pub(super) fn datagram_refused(&mut self, id: SocketId, to: SocketAddr) {
        let Some(socket) = self.datagrams.get_mut(&id) else { return };
        if socket.peer.map(unmapped) == Some(to) {
            socket.refused = true;
            let owner = socket.owner;
            self.note(format_args!("refuse {to}"));
            self.make_ready(owner, id);
        }
    }
}

impl SentRecord {
    fn permit(&self, receptions: usize) {
        self.permitted.set(self.permitted.get() + receptions);
    }
}

impl SimulatedDatagrams {
    /// Returns the address from which datagrams to another leave.
    fn source(&self, to: SocketAddr) -> Result<SocketAddr, io::ErrorKind> {
        if is_broadcast(to.ip()) && !self.broadcast {
            return Err(io::ErrorKind::PermissionDenied);
        }
        let bound = unmapped(self.bound);
        let is_inner = to.ip().is_loopback() || to.ip().is_unspecified();
        if !bound.ip().is_unspecified() && !bound.ip().is_multicast() {
            // Linux sends nothing from the loopback interface to others.
            let is_away = bound.ip().is_loopback() && !is_inner && !to.ip().is_multicast() && to.ip() != self.host;
            return if is_away { Err(io::ErrorKind::InvalidInput) } else { Ok(bound) };
        }
        let ip = if to.ip().is_loopback() { to.ip() } else { self.host };
        if ip.is_ipv4() != to.is_ipv4() {
            return Err(io::ErrorKind::NetworkUnreachable);
        }
        Ok(SocketAddr::new(ip, bound.port()))
    }

    /// Gives the socket a peer. Returns its own address, in the family of the socket.
    pub(crate) fn connect(&mut self, peer: SocketAddr) -> io::Result<SocketAddr> {
        let source = self.source(unmapped(peer))?;
        self.peer = Some(peer);
        self.bound = match (self.bound, source.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), source.port()),
            _ => source,
        };
        Ok(self.bound)
    }

    pub(crate) fn set_option(&mut self, option: DatagramOption) -> io::Result<()> {
        match option {
            DatagramOption::Broadcast(on) => self.broadcast = on,
            DatagramOption::ReceiveBuffer(bytes) => self.receive_buffer = doubled(bytes),
            DatagramOption::SendBuffer(bytes) => self.send_buffer = doubled(bytes),
            DatagramOption::MulticastTtl(ttl) => self.ttl = ttl,
            DatagramOption::MulticastLoopback(on) => self.loopback = on,
            DatagramOption::OutgoingInterface(interface) => self.outgoing = self.interface(interface)?,
            DatagramOption::JoinGroup(group, interface) => {
                if !self.groups.insert((group, self.interface(interface)?)) {
                    return Err(io::Error::from_raw_os_error(ADDRESS_IN_USE));
                }
            }
            DatagramOption::LeaveGroup(group, interface) => {
                if !self.groups.remove(&(group, self.interface(interface)?)) {
                    return Err(io::Error::from_raw_os_error(ADDRESS_NOT_AVAILABLE));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn option(&self, option: DatagramValue) -> u32 {
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        match option {
            DatagramValue::Broadcast => self.broadcast.into(),
            DatagramValue::ReceiveBuffer => bytes(self.receive_buffer),
            DatagramValue::SendBuffer => bytes(self.send_buffer),
            DatagramValue::MulticastTtl => self.ttl.into(),
            DatagramValue::MulticastLoopback => self.loopback.into(),
        }
    }

    /// Returns the index of an interface of the host.
    fn interface(&self, interface: InterfaceChoice) -> io::Result<u32> {
        let index = match interface {
            InterfaceChoice::Default => Some(OUTER),
            InterfaceChoice::Address(address) if self.bound.is_ipv6() => {
                let reason = format!("an IPv6 socket takes the index of an interface, not {address}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            InterfaceChoice::Address(address) if address.is_loopback() => Some(LOOPBACK),
            InterfaceChoice::Address(address) => (self.host == address).then_some(OUTER),
            InterfaceChoice::Index(0) => Some(OUTER),
            InterfaceChoice::Index(index) => [LOOPBACK, OUTER].contains(&index).then_some(index),
        };
        index.ok_or_else(|| io::Error::from_raw_os_error(NO_DEVICE))
    }
}

/// Linux doubles the sizes of buffers that it is asked for.
pub(super) fn doubled(bytes: u32) -> usize {
    (bytes as usize).saturating_mul(2)
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// FNV-1a over whole words, and the rest byte by byte.
fn checksum(data: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = data.as_chunks::<8>();
    let hash = words.iter().fold(data.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, (*byte).into()))
}
