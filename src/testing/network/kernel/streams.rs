//! Streams: packets sent by one end, and their arrival at the other.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;

use super::ledger::Ledger;
use super::nagle::Nagle;
use super::{Kernel, KernelEvent, News, Owner, Sharing, SimulatedSocket, SocketId};

pub(crate) struct SimulatedStream {
    pub(crate) owner: Owner,
    pub(super) host: IpAddr,
    pub(super) peer_host: IpAddr,
    pub(crate) local: Address,
    pub(crate) remote: Address,
    /// Both addresses as text for the trace: of sends, and of reads.
    names: Rc<[String; 2]>,
    pub(in crate::testing::network) peer: SocketId,
    /// Packets under way to the peer, each with its time of arrival.
    pub(super) wire: VecDeque<(Duration, Packet)>,
    /// Bytes on the wire.
    pub(super) under_way: usize,
    /// Bytes sent and not known to be read.
    pub(super) unread: usize,
    /// The time at which the last sent bit has left.
    pub(super) busy_until: Duration,
    pub(super) incoming: VecDeque<u8>,
    /// Number of unread bytes in front of an urgent byte, which is among them.
    urgent: Option<usize>,
    pub(super) nagle: Nagle,
    /// The bytes of this end, as checked by the invariants.
    pub(super) ledger: Ledger,
    pub(super) end_arrived: bool,
    pub(super) end_told: bool,
    /// One of the ends has reset the stream, and nothing comes or goes any more.
    pub(super) reset: bool,
    /// The error of a reset, until a send or a receive has reported it.
    pub(super) error: Option<io::ErrorKind>,
    pub(crate) receiving: bool,
    pub(super) blocked: bool,
    pub(super) shut: bool,
    /// This end closed first.
    ended_first: bool,
    /// The other end was closed, and its system reports that.
    pub(super) gone: bool,
    /// A break was reported to the owner, which may come after the end.
    pub(super) broken_told: bool,
    /// Cleared while the stream waits at a listener to be accepted and served.
    pub(crate) accepted: bool,
    /// The owner has closed the stream.
    pub(super) closed: bool,
    pub(super) sharing: Sharing,
    pub(crate) no_delay: bool,
    pub(crate) keep_alive: bool,
}

#[derive(Debug)]
pub(super) enum Packet {
    Data(Vec<u8>),
    /// A byte out of band.
    Urgent(u8),
    End,
    Reset,
    /// The other end of a UNIX socket was closed: bytes sent to it would never be read.
    Gone,
}

impl Kernel {
    /// Takes bytes to be sent, as many as there is room for. `Ok(0)` means that there is none; news
    /// follow when there is.
    pub(crate) fn send(&mut self, id: SocketId, data: &[u8]) -> io::Result<usize> {
        let (window, segment) = (self.conditions.window, self.conditions.segment);
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if let Some(kind) = stream.send_error() {
            return Err(kind.into());
        }
        let room = window.saturating_sub(stream.unread).min(data.len());
        if room == 0 {
            stream.blocked = !data.is_empty();
            return Ok(0);
        }
        let mut count = room;
        if self.random.chance(self.conditions.short_sends) {
            count = self.random.between(1, room as u64) as usize;
        }
        if self.may_hold(id) {
            self.send_or_hold(id, &data[..count]);
        } else {
            for piece in data[..count].chunks(segment) {
                self.transmit(id, Packet::Data(piece.to_vec()));
            }
        }
        self.sent(id, &data[..count]);
        Ok(count)
    }

    /// Sends a byte out of band, in its place among the others. `Ok(0)` means that there is no
    /// room.
    pub(crate) fn send_urgent(&mut self, id: SocketId, byte: u8) -> io::Result<usize> {
        let window = self.conditions.window;
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if stream.local.unix().is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if let Some(kind) = stream.send_error() {
            return Err(kind.into());
        }
        if stream.unread >= window {
            return Ok(0);
        }
        self.push_out(id, true);
        self.transmit(id, Packet::Urgent(byte));
        self.sent(id, &[byte]);
        Ok(1)
    }

    /// Accounts for bytes that a socket has taken.
    fn sent(&mut self, id: SocketId, data: &[u8]) {
        let window = self.conditions.window;
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        stream.unread += data.len();
        let (peer, names, under_way) = (stream.peer, Rc::clone(&stream.names), stream.under_way);
        self.note(format_args!("send   {} {}", names[0], data.len()));
        let Some(SimulatedSocket::Stream(peer)) = self.sockets.get_mut(peer) else {
            return self.faults.add(format_args!("the other end of {} is gone", names[0]));
        };
        peer.ledger.due.add(data);
        let unread = under_way + peer.incoming.len();
        if unread > window {
            let [sender, _] = &*names;
            self.faults.add(format_args!("{unread} bytes under way and unread, with a window of {window}: {sender}"));
        }
    }

    /// Sends the end of a direction.
    pub(crate) fn shut_down(&mut self, id: SocketId) {
        if let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id)
            && !stream.shut
            && !stream.reset
        {
            stream.shut = true;
            stream.ended_first = !stream.end_arrived;
            self.push_out(id, true);
            self.ends_cleanly(id);
            self.transmit(id, Packet::End);
        }
    }

    /// Closes a socket of any kind for its owner.
    pub(crate) fn close(&mut self, id: SocketId, reset: bool) {
        match self.sockets.get_mut(id) {
            Some(SimulatedSocket::Stream(stream)) if !stream.closed => {
                stream.closed = true;
                let (local, remote) = (stream.local.clone(), stream.remote.clone());
                // A close destroys unread bytes, and bytes that may still be on their way to the
                // peer. A UNIX socket can't be asked for a reset.
                let is_unix = stream.is_unix();
                let reset = (reset && !is_unix) || !stream.incoming.is_empty();
                let is_over = stream.reset;
                self.note(format_args!("close  {local} > {remote}{}", if reset { " with a reset" } else { "" }));
                if is_over {
                    self.forget(id);
                } else if reset {
                    self.reset(id);
                } else {
                    self.shut_down(id);
                    if is_unix {
                        self.transmit(id, Packet::Gone);
                    }
                    self.forget(id);
                }
            }
            Some(SimulatedSocket::Stream(_)) => {}
            None => self.close_datagrams(id),
            Some(SimulatedSocket::Attempt(attempt)) => {
                // A system resets a connection whose answer arrives after the attempt was given up.
                let (outcome, is_unheard) = (attempt.outcome, !attempt.told);
                self.sockets.remove(id);
                if let Some(Ok(stream)) = outcome {
                    self.close(stream, reset || is_unheard);
                }
            }
            Some(SimulatedSocket::Listener(listener)) => {
                let waiting = std::mem::take(&mut listener.waiting);
                let bound = listener.bound.clone();
                self.sockets.remove(id);
                self.note(format_args!("close  {bound}"));
                for stream in waiting {
                    if let Some(it) = self.stream(stream) {
                        it.closed = true;
                    }
                    self.reset(stream);
                }
            }
        }
    }

    /// Resets a stream that its owner has closed.
    fn reset(&mut self, id: SocketId) {
        if let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) {
            (stream.reset, stream.error) = (true, None);
            stream.nagle.clear();
            self.transmit(id, Packet::Reset);
        }
    }

    /// Reads into `into`, but not past an urgent byte, and returns the number of bytes.
    pub(crate) fn read(&mut self, id: SocketId, into: &mut [u8]) -> usize {
        self.pass_urgent(id);
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return 0 };
        let count = stream.readable().min(into.len());
        let (first, second) = stream.incoming.as_slices();
        let split = count.min(first.len());
        into[..split].copy_from_slice(&first[..split]);
        into[split..count].copy_from_slice(&second[..count - split]);
        stream.incoming.drain(..count);
        stream.urgent = stream.urgent.map(|ahead| ahead - count);
        if !stream.ledger.reads(&into[..count]) {
            let (local, remote) = (&stream.local, &stream.remote);
            self.faults.add(format_args!("{local} reads bytes that differ from those {remote} has sent"));
        }
        let names = Rc::clone(&stream.names);
        if count > 0 {
            self.note(format_args!("read   {} {count}", names[1]));
            self.makes_room(id, count);
        }
        count
    }

    /// Drops an urgent byte that is next. It stays inline only if a socket asks for that, and no
    /// backend does.
    fn pass_urgent(&mut self, id: SocketId) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        if stream.urgent != Some(0) {
            return;
        }
        stream.urgent = None;
        let byte = stream.incoming.pop_front();
        if !stream.ledger.passes(byte.as_slice()) {
            let (local, remote) = (&stream.local, &stream.remote);
            self.faults.add(format_args!("{local} reads bytes that differ from those {remote} has sent"));
        }
        self.makes_room(id, 1);
    }

    /// Opens the peer's window by the bytes read, and marks the socket as ready for more.
    fn makes_room(&mut self, id: SocketId, count: usize) {
        let at = self.now + self.latency();
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(id) else { return };
        let (peer, owner) = (stream.peer, stream.owner);
        self.later(at, KernelEvent::Read(peer, count));
        self.make_ready(owner, id);
    }

    /// Reads and drops at most `most` bytes.
    pub(crate) fn discard(&mut self, id: SocketId, most: usize) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        let mut into = vec![0; stream.incoming.len().min(most)];
        let mut left = into.len();
        // A read stops at an urgent byte.
        while left > 0 {
            let count = self.read(id, &mut into[..left]);
            if count == 0 {
                return;
            }
            left -= count;
        }
    }

    /// Damages the unread bytes of a host's stream, as no wire does. Returns `false` if there is no
    /// such stream.
    #[cfg(test)]
    pub(crate) fn harm(&mut self, host: IpAddr, harm: impl FnOnce(&mut VecDeque<u8>)) -> bool {
        let now = self.now;
        self.advance_to(now);
        let mut open = self.sockets.iter();
        let found = open.find_map(|(id, socket)| match socket {
            SimulatedSocket::Stream(stream) if stream.host == host && stream.owner != Owner::TEST => Some(id),
            _ => None,
        });
        drop(open);
        let Some((id, stream)) = found.and_then(|id| Some((id, self.stream(id)?))) else { return false };
        harm(&mut stream.incoming);
        let owner = stream.owner;
        self.make_ready(owner, id);
        true
    }

    /// Returns `true` if there are bytes to read, or connections to accept.
    pub(crate) fn has_more(&self, id: SocketId) -> bool {
        match self.sockets.get(id) {
            Some(SimulatedSocket::Stream(stream)) => stream.receiving && !stream.incoming.is_empty(),
            Some(SimulatedSocket::Listener(listener)) => listener.accepting && !listener.waiting.is_empty(),
            _ => false,
        }
    }

    /// Returns `true` if the other host has acknowledged all sent bytes, and all arrived bytes were
    /// read.
    pub(crate) fn is_acknowledged(&self, id: SocketId) -> bool {
        match self.sockets.get(id) {
            Some(SimulatedSocket::Stream(stream)) => {
                stream.incoming.is_empty() && stream.under_way == 0 && stream.nagle.is_acknowledged()
            }
            _ => false,
        }
    }

    /// Returns `true` if a stream can still end cleanly, where a reset would report a loss to its
    /// peer.
    pub(crate) fn can_end_cleanly(&self, id: SocketId) -> bool {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(id) else { return false };
        !stream.reset && !stream.shut && !stream.is_unix() && !stream.ledger.has_given_up
    }

    /// Returns the number of readable bytes, whether the end has arrived behind them, and whether
    /// the connection was reset.
    pub(crate) fn state(&self, id: SocketId) -> (usize, bool, bool) {
        match self.sockets.get(id) {
            Some(SimulatedSocket::Stream(stream)) => (stream.incoming.len(), stream.end_arrived, stream.reset),
            _ => (0, false, true),
        }
    }

    /// Puts a packet on the wire.
    pub(super) fn transmit(&mut self, id: SocketId, packet: Packet) {
        let latency = self.latency();
        let (now, bandwidth) = (self.now, self.conditions.bandwidth);
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        if let (Packet::Data(bytes), Some(bandwidth)) = (&packet, bandwidth) {
            let takes = Duration::from_nanos((bytes.len() as u64).saturating_mul(1_000_000_000) / bandwidth);
            stream.busy_until = stream.busy_until.max(now) + takes;
        }
        let last = stream.wire.back().map_or(Duration::ZERO, |(at, _)| *at);
        let arrives = (now.max(stream.busy_until) + latency).max(last);
        stream.under_way += packet.len();
        stream.wire.push_back((arrives, packet));
        self.later(arrives, KernelEvent::Wire(id));
    }

    /// Delivers the packets of a socket's wire that have arrived.
    pub(super) fn deliver(&mut self, sender: SocketId) {
        loop {
            let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(sender) else { return };
            if self.is_parted(stream.host, stream.peer_host) {
                // The end of the partition delivers it.
                return;
            }
            let peer = stream.peer;
            if stream.wire.front().is_none_or(|(at, _)| *at > self.now) {
                return;
            }
            let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(sender) else { return };
            let Some((_, packet)) = stream.wire.pop_front() else { return };
            stream.under_way -= packet.len();
            self.arrive(peer, packet);
            self.forget(sender);
        }
    }

    pub(super) fn arrive(&mut self, id: SocketId, packet: Packet) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        let owner = stream.owner;
        match packet {
            // A closed socket never reads this. One reset reports it to the sender.
            Packet::Data(_) | Packet::Urgent(_) if stream.closed && !stream.reset => return self.reset(id),
            Packet::Data(_) | Packet::Urgent(_) if stream.reset => {}
            Packet::Data(bytes) => {
                stream.incoming.extend(&bytes);
                if self.may_hold(id) {
                    self.answer_late(id, bytes.len());
                }
            }
            Packet::Urgent(byte) => {
                stream.urgent = Some(stream.incoming.len());
                stream.incoming.push_back(byte);
            }
            Packet::End => stream.end_arrived = true,
            Packet::Gone => stream.gone = true,
            Packet::Reset => stream.was_reset(),
        }
        self.make_ready(owner, id);
        self.forget(id);
    }

    /// Removes a stream that nothing refers to any more: closed at both ends, with nothing under
    /// way.
    pub(super) fn forget(&mut self, id: SocketId) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(id) else { return };
        let peer = stream.peer;
        let is_done = |socket: Option<&SimulatedSocket>| match socket {
            Some(SimulatedSocket::Stream(stream)) => stream.closed && stream.wire.is_empty(),
            _ => true,
        };
        if is_done(self.sockets.get(id)) && is_done(self.sockets.get(peer)) {
            for id in [id, peer] {
                if let Some(SimulatedSocket::Stream(stream)) = self.sockets.remove(id)
                    && stream.ended_first
                    && !stream.reset
                {
                    self.begin_time_wait(stream.host, &stream.local, &stream.remote, stream.sharing);
                }
            }
        }
    }

    pub(super) fn stream_news(&mut self, id: SocketId) -> Option<News> {
        let (window, chunk) = (self.conditions.window, self.conditions.chunk);
        let stream = self.stream(id)?;
        if stream.closed {
            return None;
        }
        if stream.receiving {
            self.pass_urgent(id);
        }
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return None };
        let owner = stream.owner;
        if stream.blocked && (stream.unread < window || stream.reset || stream.gone) {
            stream.blocked = false;
            self.make_ready(owner, id);
            return Some(News::SendReady);
        }
        if stream.receiving && !stream.incoming.is_empty() {
            let most = stream.readable().min(chunk) as u64;
            // Reading puts the socket on the list again.
            return Some(
                News::Received(if chunk == usize::MAX { most } else { self.random.between(1, most) } as usize),
            );
        }
        let news = stream.end_news()?;
        if matches!(news, News::EndOfStream) && stream.end_arrived && !stream.ledger.due.is_empty() {
            let (missing, local) = (stream.ledger.due.len(), &stream.local);
            self.faults.add(format_args!("the end is reported to {local}, but {missing} bytes before it are missing"));
        }
        self.make_ready(owner, id);
        Some(news)
    }
}

impl SimulatedStream {
    /// Returns the number of bytes that one receive can bring: those in front of an urgent byte.
    fn readable(&self) -> usize {
        self.urgent.unwrap_or(self.incoming.len())
    }

    pub(super) fn new(owner: Owner, hosts: (IpAddr, IpAddr), local: Address, remote: Address, peer: SocketId) -> Self {
        Self {
            owner,
            names: Rc::new([format!("{local} > {remote}"), format!("{local} < {remote}")]),
            host: hosts.0,
            peer_host: hosts.1,
            local,
            remote,
            peer,
            wire: VecDeque::new(),
            under_way: 0,
            unread: 0,
            busy_until: Duration::ZERO,
            incoming: VecDeque::new(),
            urgent: None,
            nagle: Nagle::default(),
            ledger: Ledger::default(),
            end_arrived: false,
            end_told: false,
            reset: false,
            error: None,
            receiving: false,
            blocked: false,
            shut: false,
            ended_first: false,
            gone: false,
            broken_told: false,
            accepted: true,
            closed: false,
            sharing: Sharing::default(),
            no_delay: false,
            keep_alive: false,
        }
    }
}

impl Packet {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Urgent(_) => 1,
            Self::End | Self::Reset | Self::Gone => 0,
        }
    }
}
