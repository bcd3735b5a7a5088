//! Datagram sockets of the UNIX family, on one host. The answers are those of Linux:
//!
//! | a datagram | fate |
//! |---|---|
//! | to a name without a socket | an error: `NotFound` for a path, else a refusal |
//! | to a socket that is connected to another | `PermissionDenied` |
//! | to a socket with more than 10 waiting datagrams | is refused; the socket is full |
//! | beyond the sender's buffer | waits for the receivers of earlier ones |
//! | any other | arrives at once, whole and in order |
//!
//! Conditions of the network do not apply, except for [`short_sends`](crate::testing::Conditions),
//! which finds sockets full for no reason. A sender learns of room when a datagram of its own is
//! taken, or when its peer has room: not when another receiver has taken a datagram of another
//! sender.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use super::datagrams::{BUFFER_BYTES, COST, doubled};
use super::{Kernel, Owner, SocketId, too_many_open};
use crate::address::UnixAddress;
use crate::datagram::{DatagramOption, DatagramSend, DatagramSocketOptions, DatagramValue};
use crate::reactor::ReceivedDatagram;

/// Datagrams that wait in a socket before it is full: `net.unix.max_dgram_qlen`, by default.
const WAITING: usize = 10;

/// The error of Linux for an option of another family.
const UNSUPPORTED: i32 = 95;

/// A UNIX datagram socket.
pub(crate) struct SimulatedUnixDatagrams {
    owner: Owner,
    host: IpAddr,
    name: UnixAddress,
    /// The peer, until that is closed.
    peer: Option<SocketId>,
    incoming: VecDeque<Arrived>,
    /// Bytes of the send buffer, with their costs, that no receiver has taken yet.
    sent_bytes: usize,
    receive_buffer: usize,
    send_buffer: usize,
    broadcast: bool,
    receiving: bool,
    /// The reactor has asked for a report, whatever has arrived.
    pub(super) asked: bool,
    /// A send waits for room.
    pub(super) blocked: bool,
    /// There may be room since then.
    woken: bool,
    /// The last send was held back for no reason, so the next one is not.
    held: bool,
}

/// A datagram in a receive buffer.
struct Arrived {
    data: Rc<[u8]>,
    from: UnixAddress,
    sender: SocketId,
}

impl Kernel {
    /// Makes a socket. One without a name is not bound.
    pub(super) fn bind_unix_datagrams(
        &mut self,
        owner: Owner,
        host: IpAddr,
        name: &UnixAddress,
        options: &DatagramSocketOptions,
    ) -> io::Result<SocketId> {
        if self.is_full(owner) {
            return Err(too_many_open());
        }
        // As for a listener of streams.
        let is_file_in_use = name.as_path().is_some() && self.has_unix_listener(host, name);
        if is_file_in_use || self.unix_receiver(host, name).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = SimulatedUnixDatagrams {
            owner,
            host,
            name: name.clone(),
            peer: None,
            incoming: VecDeque::new(),
            sent_bytes: 0,
            receive_buffer: options.receive_buffer.map_or(BUFFER_BYTES, doubled),
            send_buffer: options.send_buffer.map_or(BUFFER_BYTES, doubled),
            broadcast: false,
            receiving: true,
            asked: false,
            blocked: false,
            woken: false,
            held: false,
        };
        let id = self.next_id();
        self.unix_datagrams.insert(id, socket);
        self.note(format_args!("bind   {name} on {host}"));
        Ok(id)
    }

    /// Returns the socket with a name.
    pub(super) fn unix_receiver(&self, host: IpAddr, name: &UnixAddress) -> Option<SocketId> {
        let is_it = |socket: &SimulatedUnixDatagrams| socket.host == host && socket.name == *name;
        let named = || self.unix_datagrams.iter().find(|(_, socket)| is_it(socket));
        if name.is_unnamed() { None } else { named().map(|(id, _)| *id) }
    }

    /// Returns the names of an owner's sockets, the oldest first.
    pub(super) fn unix_datagram_ports(&self, owner: Owner) -> impl Iterator<Item = UnixAddress> {
        self.unix_datagrams.values().filter(move |socket| socket.owner == owner).map(|socket| socket.name.clone())
    }

    /// Closes a socket, if there is one of this id. Its waiting datagrams are gone, and their
    /// senders have room.
    pub(super) fn close_unix_datagrams(&mut self, id: SocketId) {
        let Some(socket) = self.unix_datagrams.remove(&id) else { return };
        for datagram in socket.incoming {
            self.give_room(datagram.sender, datagram.data.len() + COST);
        }
        self.wake_unix_senders(id);
        self.note(format_args!("unbind {}", socket.name));
    }

    /// Connects a socket to another.
    pub(super) fn connect_unix_datagrams(&mut self, id: SocketId, to: &UnixAddress) -> io::Result<UnixAddress> {
        let socket = self.unix_datagrams.get(&id).ok_or(io::ErrorKind::NotConnected)?;
        let (host, name) = (socket.host, socket.name.clone());
        let peer = self.unix_destination(id, host, to)?;
        if let Some(socket) = self.unix_datagrams.get_mut(&id) {
            socket.peer = Some(peer);
        }
        Ok(name)
    }

    /// Returns the socket with a name, if it takes datagrams from this sender.
    fn unix_destination(&self, sender: SocketId, host: IpAddr, to: &UnixAddress) -> io::Result<SocketId> {
        let missing = if to.as_path().is_some() { io::ErrorKind::NotFound } else { io::ErrorKind::ConnectionRefused };
        let receiver = self.unix_receiver(host, to).ok_or(missing)?;
        let peer = self.unix_datagrams.get(&receiver).and_then(|socket| socket.peer);
        if peer.is_some_and(|peer| peer != sender) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(receiver) }
    }

    /// Sends a datagram. `None` sends to the peer.
    pub(super) fn send_unix_datagram(&mut self, id: SocketId, data: &[u8], to: Option<&UnixAddress>) -> DatagramSend {
        let is_held = self.random.chance(self.conditions.short_sends);
        let Some(socket) = self.unix_datagrams.get(&id) else {
            return DatagramSend::Failed(io::ErrorKind::NotConnected.into());
        };
        let takes = data.len() + COST;
        if takes > socket.send_buffer {
            return DatagramSend::TooLong;
        }
        let (owner, host, from, peer) = (socket.owner, socket.host, socket.name.clone(), socket.peer);
        let (has_room, is_held) = (socket.sent_bytes + takes <= socket.send_buffer, is_held && !socket.held);
        let found = match to {
            Some(to) => self.unix_destination(id, host, to),
            None => peer.filter(|peer| self.unix_datagrams.contains_key(peer)).ok_or(refused()),
        };
        let receiver = match found {
            Ok(receiver) => receiver,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return DatagramSend::Refused,
            Err(error) => return DatagramSend::Failed(error),
        };
        let is_full = !has_room || self.unix_datagrams.get(&receiver).is_some_and(|there| there.is_full_for(id));
        if let Some(socket) = self.unix_datagrams.get_mut(&id) {
            socket.held = is_held;
            // A full receiver is remembered while others are sent to.
            if is_held || is_full {
                (socket.blocked, socket.woken) = (true, is_held);
            } else {
                socket.sent_bytes += takes;
            }
        }
        if is_held {
            self.make_ready_again(owner, id);
        }
        if is_held || is_full {
            return DatagramSend::Full;
        }
        if let Some(there) = self.unix_datagrams.get_mut(&receiver) {
            there.incoming.push_back(Arrived { data: data.into(), from: from.clone(), sender: id });
            let (there_owner, name) = (there.owner, there.name.clone());
            self.note(format_args!("sendto {from} > {name} {}", data.len()));
            self.make_ready(there_owner, receiver);
        }
        DatagramSend::Sent
    }

    /// Takes a datagram from the receive buffer, as far as it fits into `room`.
    pub(super) fn take_unix_datagram(&mut self, id: SocketId, room: &mut [u8]) -> Option<ReceivedDatagram> {
        let socket = self.unix_datagrams.get_mut(&id)?;
        let Arrived { data, from, sender } = socket.incoming.pop_front()?;
        let filled = data.len().min(room.len());
        room[..filled].copy_from_slice(&data[..filled]);
        let name = socket.name.clone();
        self.note(format_args!("take   {from} > {name} {filled}"));
        self.give_room(sender, data.len() + COST);
        self.wake_unix_senders(id);
        let truncated = (filled < data.len()).then_some(Some(data.len()));
        Some(ReceivedDatagram { filled, each: None, truncated, peer: from.into() })
    }

    /// A datagram of a sender has left its buffer.
    fn give_room(&mut self, sender: SocketId, bytes: usize) {
        let Some(socket) = self.unix_datagrams.get_mut(&sender) else { return };
        socket.sent_bytes -= bytes;
        socket.woken = true;
        if socket.blocked {
            let owner = socket.owner;
            self.make_ready(owner, sender);
        }
    }

    /// Wakes the blocked sockets that are connected to one that has room, or is closed.
    fn wake_unix_senders(&mut self, receiver: SocketId) {
        let mut woken = Vec::new();
        for (id, socket) in &mut self.unix_datagrams {
            if socket.peer == Some(receiver) && socket.blocked {
                socket.woken = true;
                woken.push((socket.owner, *id));
            }
        }
        for (owner, id) in woken {
            self.make_ready(owner, id);
        }
    }
}

impl SimulatedUnixDatagrams {
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    pub(super) fn set_receiving(&mut self, on: bool) {
        (self.receiving, self.asked) = (on, on);
    }

    /// Returns `true` if a receive has a result.
    pub(super) fn has_news(&self) -> bool {
        self.receiving && (self.asked || !self.incoming.is_empty())
    }

    /// Returns `true` if the receiver of a blocked send has room again.
    pub(super) fn has_room(&self) -> bool {
        self.woken
    }

    /// A socket whose peer is the sender is bounded by the sender's buffer alone.
    fn is_full_for(&self, sender: SocketId) -> bool {
        self.incoming.len() > WAITING && self.peer != Some(sender)
    }

    pub(super) fn set_option(&mut self, option: DatagramOption) -> io::Result<()> {
        match option {
            DatagramOption::Broadcast(on) => self.broadcast = on,
            DatagramOption::ReceiveBuffer(bytes) => self.receive_buffer = doubled(bytes),
            DatagramOption::SendBuffer(bytes) => self.send_buffer = doubled(bytes),
            DatagramOption::MulticastTtl(_)
            | DatagramOption::MulticastLoopback(_)
            | DatagramOption::OutgoingInterface(_)
            | DatagramOption::JoinGroup(..)
            | DatagramOption::LeaveGroup(..) => return Err(io::Error::from_raw_os_error(UNSUPPORTED)),
        }
        Ok(())
    }

    pub(super) fn option(&self, option: DatagramValue) -> io::Result<u32> {
        let bytes = |size: usize| Ok(u32::try_from(size).unwrap_or(u32::MAX));
        match option {
            DatagramValue::Broadcast => Ok(self.broadcast.into()),
            DatagramValue::ReceiveBuffer => bytes(self.receive_buffer),
            DatagramValue::SendBuffer => bytes(self.send_buffer),
            DatagramValue::MulticastTtl | DatagramValue::MulticastLoopback => {
                Err(io::Error::from_raw_os_error(UNSUPPORTED))
            }
        }
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}
