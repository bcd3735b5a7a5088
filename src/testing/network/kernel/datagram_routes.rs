//! The ways of UDP datagrams: sending, the fate of each, and its receivers. The answers are those
//! of Linux, as far as the table says nothing else:
//!
//! | a datagram | fate |
//! |---|---|
//! | to a host or a port without a socket | is dropped; a connected sender is refused by a known host |
//! | to the unspecified address | goes to the loopback address |
//! | longer than the send buffer | leaves when the buffer is empty |
//! | to a group | reaches each member on the interface: own host with loop-back, others with a TTL above 0 |
//! | to 255.255.255.255 | reaches each socket of the port on every host, if the sender permits broadcasts |
//! | to a socket whose receive buffer is full | is dropped |
//! | across a [partition](crate::testing::Network::partition) | is dropped, and never sent again |
//!
//! Linux also gives datagrams of any group to sockets that are bound to all addresses and have not
//! joined it. Here, members alone receive them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::datagrams::{Arrived, COST, LOOPBACK, OUTER, SimulatedDatagrams, is_broadcast, specified};
use super::sent_datagrams::{DatagramUnderWay, SentRecord};
use super::sharing::reaches;
use super::{Kernel, KernelEvent, SocketId, draw};
use crate::address::{Address, unmapped};
use crate::datagram::DatagramSend;

impl Kernel {
    /// Sends a datagram. `None` sends to the peer.
    pub(super) fn send_udp(&mut self, id: SocketId, data: &[u8], to: Option<SocketAddr>) -> DatagramSend {
        let (short_sends, limit) = (self.conditions.short_sends, self.conditions.refused_above);
        let is_held = self.random.chance(short_sends);
        let Some(socket) = self.datagrams.get_mut(&id) else {
            return DatagramSend::Failed(io::ErrorKind::NotConnected.into());
        };
        if std::mem::take(&mut socket.refused) {
            return DatagramSend::Refused;
        }
        if to.is_some_and(|to| to.port() == 0) {
            // A peer may have this port: only the addresses of single datagrams are checked.
            return DatagramSend::Failed(io::ErrorKind::InvalidInput.into());
        }
        let Some(to) = to.or(socket.peer).map(unmapped).map(specified) else {
            return DatagramSend::Failed(io::ErrorKind::NotConnected.into());
        };
        let (from, host) = match socket.source(to) {
            Ok(from) => (from, socket.host),
            Err(kind) => return DatagramSend::Failed(kind.into()),
        };
        let takes = data.len() + COST;
        if data.len() > limit {
            return DatagramSend::TooLong;
        }
        let is_held = is_held && !socket.held;
        socket.held = is_held;
        // The buffer takes a datagram of any size while it is empty.
        if is_held || socket.sent_bytes > 0 && socket.sent_bytes + takes > socket.send_buffer {
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
            vec![if to.ip().is_loopback() { host } else { to.ip() }]
        };
        self.datagrams_sent += 1;
        let number = self.datagrams_sent;
        let record = SentRecord::new(number, from, to, data);
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
