//! [`Kernel`]: sockets and what is under way between them. What an operating system and the wires are to a real backend.
//!
//! A stream is two sockets. What one sends lies on its *wire*, in order, until it arrives at the other; how much may be on the
//! wire and unread is the window. Both are plain data, and time is a number: whoever drives the network moves it on.
//!
//! | what arrives | at a socket | at one that its owner has closed |
//! |---|---|---|
//! | data | is kept until it is read | is answered with a reset |
//! | end | is told once everything before it was read | |
//! | reset | is told at once, or after what is unread while it is being read | |
//!
//! Every random choice is drawn from one seed, and nothing depends on an address in memory or the order of a hash table: the
//! same program on the same seed does the same, and leaves the same trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::random::Random;
use super::conditions::Conditions;

/// Names a socket; later ones have higher numbers.
pub(super) type SocketId = u64;

/// Whose socket it is: a reactor's, or the test's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(pub(super) u32);

impl Owner {
    /// The test itself.
    pub(super) const TEST: Self = Self(0);
}

/// All sockets, and all that is under way.
pub(super) struct Kernel {
    pub(super) seed: u64,
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) conditions: Conditions,
    sockets: BTreeMap<SocketId, Socket>,
    sockets_made: SocketId,
    events: BTreeMap<(Duration, u64), Event>,
    events_made: u64,
    /// What has something to say, by owner.
    lists: Vec<Lists>,
    limits: BTreeMap<Owner, usize>,
    hosts: BTreeMap<IpAddr, Host>,
    names: BTreeMap<String, Vec<IpAddr>>,
    partitions: BTreeSet<(IpAddr, IpAddr)>,
    /// Whether attempts to connect wait for the test to decide.
    pub(super) attempts_wait: bool,
    trace: Trace,
}

/// The sockets of an owner that have something to say.
#[derive(Default)]
struct Lists {
    ready: VecDeque<SocketId>,
    /// In the owner's next turn.
    again: VecDeque<SocketId>,
}

#[derive(Default)]
struct Host {
    next_port: u16,
}

pub(super) enum Socket {
    Listener(Listener),
    Attempt(Attempt),
    Stream(Stream),
}

pub(super) struct Listener {
    owner: Owner,
    host: IpAddr,
    bound: SocketAddr,
    backlog: usize,
    /// Connected, and not accepted.
    waiting: VecDeque<SocketId>,
    /// Not suspended.
    pub(super) accepting: bool,
}

/// A connection that one side has asked for.
pub(super) struct Attempt {
    owner: Owner,
    host: IpAddr,
    local: SocketAddr,
    pub(super) to: SocketAddr,
    /// Its answer.
    outcome: Option<Result<SocketId, io::ErrorKind>>,
    /// The answer has come back.
    told: bool,
    /// It has reached the other host, where the test decides.
    arrived: bool,
}

pub(super) struct Stream {
    pub(super) owner: Owner,
    host: IpAddr,
    peer_host: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    peer: SocketId,
    /// Under way to the peer, each with the time at which it arrives.
    wire: VecDeque<(Duration, Packet)>,
    /// Sent, and not known to be read.
    unread: usize,
    /// When the last bit of what was sent has left.
    busy_until: Duration,
    incoming: VecDeque<u8>,
    end_arrived: bool,
    end_told: bool,
    broken: Option<io::ErrorKind>,
    pub(super) receiving: bool,
    blocked: bool,
    shut: bool,
    /// It is no longer among those that wait to be accepted, or never was.
    accepted: bool,
    /// Its owner has closed it.
    closed: bool,
    pub(super) no_delay: bool,
    pub(super) keep_alive: bool,
}

#[derive(Debug)]
enum Packet {
    Data(Vec<u8>),
    End,
    Reset,
}

#[derive(Debug)]
enum Event {
    /// An attempt to connect reaches the other host.
    Arrives(SocketId),
    /// Its answer reaches the one who asked.
    Answered(SocketId),
    /// What is on the wire of a socket may have arrived.
    Wire(SocketId),
    /// The sender hears that so much was read.
    Read(SocketId, usize),
}

/// What a socket has to say to a backend.
pub(super) enum News {
    Accepted {
        stream: SocketId,
        host: SocketAddr,
        peer: SocketAddr,
    },
    Shed(usize),
    AcceptFailed(io::Error),
    Connected(SocketId, SocketAddr),
    ConnectFailed(io::ErrorKind),
    /// So many bytes can be read.
    Received(usize),
    EndOfStream,
    SendReady,
    Broken(io::ErrorKind),
}

impl Kernel {
    pub(super) fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            random: Random::new(seed),
            conditions,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            events: BTreeMap::new(),
            events_made: 0,
            lists: Vec::new(),
            limits: BTreeMap::new(),
            hosts: BTreeMap::new(),
            names: BTreeMap::new(),
            partitions: BTreeSet::new(),
            attempts_wait: false,
            trace: Trace::default(),
        }
    }

    // Time.

    /// When the next thing happens.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Moves the time on, and has everything happen that is due by then.
    pub(super) fn advance_to(&mut self, now: Duration) {
        while let Some((&(at, number), _)) = self.events.first_key_value()
            && at <= now
        {
            self.now = self.now.max(at);
            if let Some(event) = self.events.remove(&(at, number)) {
                self.happen(event);
            }
        }
        self.now = self.now.max(now);
    }

    fn later(&mut self, at: Duration, event: Event) {
        self.events_made += 1;
        self.events.insert((at, self.events_made), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(attempt) => self.attempt_arrives(attempt),
            Event::Answered(attempt) => {
                let Some(Socket::Attempt(it)) = self.sockets.get(&attempt) else { return };
                let (owner, parted) = (it.owner, self.is_parted(it.host, it.there()));
                if parted {
                    return self.again(event);
                }
                if let Some(Socket::Attempt(it)) = self.sockets.get_mut(&attempt) {
                    it.told = true;
                }
                self.make_ready(owner, attempt);
            }
            Event::Wire(sender) => self.deliver(sender),
            Event::Read(sender, count) => {
                let Some(Socket::Stream(stream)) = self.sockets.get(&sender) else { return };
                if self.is_parted(stream.host, stream.peer_host) {
                    return self.again(event);
                }
                let Some(Socket::Stream(stream)) = self.sockets.get_mut(&sender) else { return };
                stream.unread = stream.unread.saturating_sub(count);
                let owner = stream.owner;
                self.make_ready(owner, sender);
            }
        }
    }

    /// It did not get through: it is sent again, as a system does.
    fn again(&mut self, event: Event) {
        self.later(self.now + SEND_AGAIN, event);
    }

    /// A time that a packet takes.
    fn latency(&mut self) -> Duration {
        let (least, most) = self.conditions.latency;
        draw(&mut self.random, least, most)
    }

    // Hosts and names.

    pub(super) fn add_host(&mut self, host: IpAddr) {
        self.hosts.entry(host).or_insert(Host { next_port: FIRST_PORT });
    }

    pub(super) fn add_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.names.insert(name.to_ascii_lowercase(), addresses);
    }

    /// The addresses of a name, and how long it takes to find them.
    pub(super) fn look_up(&mut self, name: &str) -> (Vec<IpAddr>, Duration) {
        let name = name.to_ascii_lowercase();
        let found = match &*name {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into()],
            name => self.names.get(name).cloned().unwrap_or_default(),
        };
        let (least, most) = self.conditions.names;
        let after = draw(&mut self.random, least, most);
        self.note(format_args!("names  {name} {found:?}"));
        (found, after)
    }

    /// How long a job in a thread takes.
    pub(super) fn job_time(&mut self) -> Duration {
        let (least, most) = self.conditions.jobs;
        draw(&mut self.random, least, most)
    }

    pub(super) fn partition(&mut self, one: IpAddr, other: IpAddr) {
        self.partitions.insert(pair(one, other));
        self.note(format_args!("parted {one} {other}"));
    }

    /// The two reach each other again: what was under way between them arrives.
    pub(super) fn heal(&mut self, one: IpAddr, other: IpAddr) {
        if !self.partitions.remove(&pair(one, other)) {
            return;
        }
        self.note(format_args!("healed {one} {other}"));
        let held: Vec<SocketId> = self.sockets.keys().copied().collect();
        for id in held {
            let after = self.now + self.latency();
            if matches!(self.sockets.get(&id), Some(Socket::Stream(stream)) if !stream.wire.is_empty()) {
                self.later(after, Event::Wire(id));
            }
        }
    }

    fn is_parted(&self, one: IpAddr, other: IpAddr) -> bool {
        !self.partitions.is_empty() && self.partitions.contains(&pair(one, other))
    }

    /// How many sockets an owner may have open.
    pub(super) fn set_limit(&mut self, owner: Owner, limit: Option<usize>) {
        match limit {
            Some(limit) => drop(self.limits.insert(owner, limit)),
            None => drop(self.limits.remove(&owner)),
        }
    }

    /// How many sockets an owner has open.
    pub(super) fn open(&self, owner: Owner) -> usize {
        self.sockets.values().filter(|socket| socket.is_open_for(owner)).count()
    }

    fn is_full(&self, owner: Owner) -> bool {
        self.limits.get(&owner).is_some_and(|&limit| self.open(owner) >= limit)
    }

    // Listening.

    pub(super) fn listen(
        &mut self,
        owner: Owner,
        host: IpAddr,
        address: SocketAddr,
        backlog: u32,
    ) -> io::Result<(SocketId, SocketAddr)> {
        let bound = self.bind(host, address)?;
        let backlog = backlog.max(1) as usize;
        let listener = Listener { owner, host, bound, backlog, waiting: VecDeque::new(), accepting: true };
        let id = self.add(Socket::Listener(listener));
        self.note(format_args!("listen {bound} on {host}"));
        Ok((id, bound))
    }

    /// The address, if it is the host's, with a port if none was asked for.
    fn bind(&mut self, host: IpAddr, address: SocketAddr) -> io::Result<SocketAddr> {
        let is_ours = address.ip() == host || address.ip().is_unspecified() || address.ip().is_loopback();
        if !is_ours {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if self.is_full_of_ports(host) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let port = if address.port() == 0 { self.free_port(host) } else { address.port() };
        let bound = SocketAddr::new(address.ip(), port);
        let taken = |socket: &Socket| match socket {
            Socket::Listener(listener) => listener.host == host && overlap(listener.bound, bound),
            _ => false,
        };
        if self.sockets.values().any(taken) { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(bound) }
    }

    fn is_full_of_ports(&self, host: IpAddr) -> bool {
        let used = |socket: &&Socket| socket.host() == host;
        self.sockets.values().filter(used).count() >= usize::from(u16::MAX - FIRST_PORT)
    }

    fn free_port(&mut self, host: IpAddr) -> u16 {
        loop {
            let place = self.hosts.entry(host).or_insert(Host { next_port: FIRST_PORT });
            let port = place.next_port;
            place.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let used = self.sockets.values().any(|socket| socket.host() == host && socket.local().port() == port);
            if !used {
                return port;
            }
        }
    }

    /// Where an owner listens.
    pub(super) fn listening(&self, owner: Owner) -> Vec<SocketAddr> {
        let bound = self.sockets.values().filter_map(|socket| match socket {
            Socket::Listener(listener) if listener.owner == owner => Some(listener.bound),
            _ => None,
        });
        bound.collect()
    }

    fn listener_at(&self, host: IpAddr, to: SocketAddr) -> Option<SocketId> {
        let listens = |socket: &Socket| match socket {
            Socket::Listener(listener) => {
                listener.host == host
                    && listener.bound.port() == to.port()
                    && (listener.bound.ip() == to.ip() || listener.bound.ip().is_unspecified())
            }
            _ => false,
        };
        self.sockets.iter().find(|(_, socket)| listens(socket)).map(|(id, _)| *id)
    }

    // Connecting.

    pub(super) fn connect(
        &mut self,
        owner: Owner,
        host: IpAddr,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Result<SocketId, Refusal> {
        if self.is_full(owner) {
            return Err(Refusal::Socket(too_many_open()));
        }
        let local = match from {
            Some(from) => self.bind(host, from).map_err(Refusal::Bind)?,
            None => SocketAddr::new(if to.ip().is_loopback() { to.ip() } else { host }, self.free_port(host)),
        };
        let attempt = Attempt { owner, host, local, to, outcome: None, told: false, arrived: false };
        let id = self.add(Socket::Attempt(attempt));
        self.note(format_args!("dial   {local} > {to}"));
        let at = self.now + self.latency();
        self.later(at, Event::Arrives(id));
        Ok(id)
    }

    fn attempt_arrives(&mut self, id: SocketId) {
        let Some(Socket::Attempt(attempt)) = self.sockets.get(&id) else { return };
        let (owner, host, to, there) = (attempt.owner, attempt.host, attempt.to, attempt.there());
        if attempt.outcome.is_some() {
            return;
        }
        if self.is_parted(host, there) {
            return self.again(Event::Arrives(id));
        }
        if self.attempts_wait && owner != Owner::TEST {
            if let Some(Socket::Attempt(attempt)) = self.sockets.get_mut(&id) {
                attempt.arrived = true;
            }
            return;
        }
        if !self.hosts.contains_key(&there) {
            return self.answer(id, Err(io::ErrorKind::HostUnreachable));
        }
        let Some(listener) = self.listener_at(there, to) else {
            return self.answer(id, Err(io::ErrorKind::ConnectionRefused));
        };
        let Some(Socket::Listener(it)) = self.sockets.get(&listener) else { return };
        if it.waiting.len() >= it.backlog {
            // It is not answered.
            return self.again(Event::Arrives(id));
        }
        let (owner, there) = (it.owner, it.host);
        if let Some(served) = self.join(id, owner, there) {
            if let Some(Socket::Listener(listener)) = self.sockets.get_mut(&listener) {
                listener.waiting.push_back(served);
            }
            if let Some(stream) = self.stream(served) {
                stream.accepted = false;
            }
            self.make_ready(owner, listener);
        }
    }

    /// The attempt succeeds: makes the two ends, and gives that of `owner`.
    pub(super) fn join(&mut self, id: SocketId, owner: Owner, there: IpAddr) -> Option<SocketId> {
        let Some(Socket::Attempt(attempt)) = self.sockets.get(&id) else { return None };
        let (asker, host, local, to) = (attempt.owner, attempt.host, attempt.local, attempt.to);
        let (asking, answering) = (self.next_id(), self.next_id());
        self.sockets.insert(asking, Socket::Stream(Stream::new(asker, (host, there), local, to, answering)));
        self.sockets.insert(answering, Socket::Stream(Stream::new(owner, (there, host), to, local, asking)));
        self.answer(id, Ok(asking));
        Some(answering)
    }

    pub(super) fn answer(&mut self, id: SocketId, outcome: Result<SocketId, io::ErrorKind>) {
        let Some(Socket::Attempt(attempt)) = self.sockets.get_mut(&id) else { return };
        attempt.outcome = Some(outcome);
        attempt.arrived = false;
        let (local, to) = (attempt.local, attempt.to);
        self.note(format_args!("answer {local} > {to} {}", if outcome.is_ok() { "made" } else { "refused" }));
        let at = self.now + self.latency();
        self.later(at, Event::Answered(id));
    }

    /// Takes the answer to an attempt of the test, once it has come.
    pub(super) fn take_outcome(&mut self, id: SocketId) -> Option<Result<SocketId, io::ErrorKind>> {
        let Some(Socket::Attempt(attempt)) = self.sockets.get(&id) else { return None };
        let outcome = attempt.outcome.filter(|_| attempt.told)?;
        self.sockets.remove(&id);
        Some(outcome)
    }

    /// The attempts that wait for the test to decide.
    pub(super) fn attempts(&self) -> Vec<(SocketId, SocketAddr)> {
        let arrived = self.sockets.iter().filter_map(|(id, socket)| match socket {
            Socket::Attempt(attempt) if attempt.arrived => Some((*id, attempt.to)),
            _ => None,
        });
        arrived.collect()
    }

    // Streams.

    /// Takes bytes to be sent, as many as there is room for; `Ok(0)` is none, and news follows when there is room.
    pub(super) fn send(&mut self, id: SocketId, data: &[u8]) -> io::Result<usize> {
        let (window, segment) = (self.conditions.window, self.conditions.segment);
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if let Some(kind) = stream.broken {
            return Err(kind.into());
        }
        if stream.shut || stream.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
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
        for piece in data[..count].chunks(segment) {
            self.transmit(id, Packet::Data(piece.to_vec()));
        }
        if let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) {
            stream.unread += count;
            let (local, remote) = (stream.local, stream.remote);
            self.note(format_args!("send   {local} > {remote} {count}"));
        }
        Ok(count)
    }

    /// Sends the end of a direction.
    pub(super) fn shut_down(&mut self, id: SocketId) {
        if let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id)
            && !stream.shut
            && stream.broken.is_none()
        {
            stream.shut = true;
            self.transmit(id, Packet::End);
        }
    }

    /// Its owner lets go of a socket, whatever it is.
    pub(super) fn close(&mut self, id: SocketId, reset: bool) {
        match self.sockets.get_mut(&id) {
            Some(Socket::Stream(stream)) if !stream.closed => {
                stream.closed = true;
                let (local, remote) = (stream.local, stream.remote);
                // What was not read is destroyed, and so is what may still be on its way to the peer.
                let reset = reset || !stream.incoming.is_empty();
                let over = stream.broken.is_some();
                self.note(format_args!("close  {local} > {remote}{}", if reset { " with a reset" } else { "" }));
                if over {
                    self.forget(id);
                } else if reset {
                    self.transmit(id, Packet::Reset);
                } else {
                    self.shut_down(id);
                    self.forget(id);
                }
            }
            Some(Socket::Stream(_)) | None => {}
            Some(Socket::Attempt(attempt)) => {
                if let Some(Ok(stream)) = attempt.outcome {
                    self.close(stream, true);
                }
                self.sockets.remove(&id);
            }
            Some(Socket::Listener(listener)) => {
                let waiting = std::mem::take(&mut listener.waiting);
                let bound = listener.bound;
                self.sockets.remove(&id);
                self.note(format_args!("close  {bound}"));
                for stream in waiting {
                    self.close(stream, true);
                }
            }
        }
    }

    /// Reads up to the room in `into`, and says how many bytes that were.
    pub(super) fn read(&mut self, id: SocketId, into: &mut [u8]) -> usize {
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else { return 0 };
        let count = stream.incoming.len().min(into.len());
        for (place, byte) in into.iter_mut().zip(stream.incoming.drain(..count)) {
            *place = byte;
        }
        let (peer, local, remote, owner) = (stream.peer, stream.local, stream.remote, stream.owner);
        if count > 0 {
            self.note(format_args!("read   {local} < {remote} {count}"));
            let at = self.now + self.latency();
            self.later(at, Event::Read(peer, count));
            self.make_ready(owner, id);
        }
        count
    }

    /// Reads, and throws away, up to so many bytes.
    pub(super) fn discard(&mut self, id: SocketId, most: usize) {
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else { return };
        let mut into = vec![0; stream.incoming.len().min(most)];
        self.read(id, &mut into);
    }

    /// Whether there are bytes to read, or connections to accept.
    pub(super) fn has_more(&self, id: SocketId) -> bool {
        match self.sockets.get(&id) {
            Some(Socket::Stream(stream)) => stream.receiving && !stream.incoming.is_empty(),
            Some(Socket::Listener(listener)) => listener.accepting && !listener.waiting.is_empty(),
            _ => false,
        }
    }

    /// How many bytes can be read, whether the end has come behind them, and whether the connection is broken.
    pub(super) fn state(&self, id: SocketId) -> (usize, bool, Option<io::ErrorKind>) {
        match self.sockets.get(&id) {
            Some(Socket::Stream(stream)) => (stream.incoming.len(), stream.end_arrived, stream.broken),
            _ => (0, false, Some(io::ErrorKind::NotConnected)),
        }
    }

    /// Puts something on a wire.
    fn transmit(&mut self, id: SocketId, packet: Packet) {
        let latency = self.latency();
        let (now, bandwidth) = (self.now, self.conditions.bandwidth);
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else { return };
        if let (Packet::Data(bytes), Some(bandwidth)) = (&packet, bandwidth) {
            let takes = Duration::from_nanos((bytes.len() as u64).saturating_mul(1_000_000_000) / bandwidth);
            stream.busy_until = stream.busy_until.max(now) + takes;
        }
        let last = stream.wire.back().map_or(Duration::ZERO, |(at, _)| *at);
        let arrives = (now.max(stream.busy_until) + latency).max(last);
        stream.wire.push_back((arrives, packet));
        self.later(arrives, Event::Wire(id));
    }

    /// Hands on what has arrived of a socket's wire.
    fn deliver(&mut self, sender: SocketId) {
        loop {
            let Some(Socket::Stream(stream)) = self.sockets.get(&sender) else { return };
            if self.is_parted(stream.host, stream.peer_host) {
                // Healing delivers it.
                return;
            }
            let peer = stream.peer;
            if stream.wire.front().is_none_or(|(at, _)| *at > self.now) {
                return;
            }
            let Some(Socket::Stream(stream)) = self.sockets.get_mut(&sender) else { return };
            let Some((_, packet)) = stream.wire.pop_front() else { return };
            self.arrive(peer, packet);
            self.forget(sender);
        }
    }

    fn arrive(&mut self, id: SocketId, packet: Packet) {
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else { return };
        let owner = stream.owner;
        match packet {
            Packet::Data(_) if stream.closed => {
                // Nobody will read this: the sender is told so, once.
                if stream.broken.is_none() {
                    stream.broken = Some(io::ErrorKind::ConnectionReset);
                    self.transmit(id, Packet::Reset);
                }
                return;
            }
            Packet::Data(bytes) => {
                if stream.broken.is_none() {
                    stream.incoming.extend(bytes);
                }
            }
            Packet::End => stream.end_arrived = true,
            Packet::Reset => {
                stream.broken = Some(io::ErrorKind::ConnectionReset);
                stream.wire.clear();
            }
        }
        self.make_ready(owner, id);
        self.forget(id);
    }

    /// Removes a stream that nothing refers to any more: closed at both ends, with nothing under way.
    fn forget(&mut self, id: SocketId) {
        let Some(Socket::Stream(stream)) = self.sockets.get(&id) else { return };
        let peer = stream.peer;
        let is_done = |socket: Option<&Socket>| match socket {
            Some(Socket::Stream(stream)) => stream.closed && stream.wire.is_empty(),
            _ => true,
        };
        if is_done(self.sockets.get(&id)) && is_done(self.sockets.get(&peer)) {
            self.sockets.remove(&id);
            self.sockets.remove(&peer);
        }
    }

    // News.

    /// Puts a socket on its owner's list.
    pub(super) fn make_ready(&mut self, owner: Owner, id: SocketId) {
        if owner == Owner::TEST {
            return;
        }
        let ready = &mut self.lists(owner).ready;
        if !ready.contains(&id) {
            ready.push_back(id);
        }
    }

    /// Puts a socket on its owner's list of the next turn.
    pub(super) fn make_ready_again(&mut self, owner: Owner, id: SocketId) {
        self.lists(owner).again.push_back(id);
    }

    /// A turn of an owner begins.
    pub(super) fn begin_turn(&mut self, owner: Owner) {
        for id in std::mem::take(&mut self.lists(owner).again) {
            self.make_ready(owner, id);
        }
    }

    pub(super) fn is_ready(&self, owner: Owner) -> bool {
        let lists = self.lists.get(owner.0 as usize);
        lists.is_some_and(|lists| !lists.ready.is_empty() || !lists.again.is_empty())
    }

    /// The next socket on the list: the first, or, on some networks, any.
    pub(super) fn next_ready(&mut self, owner: Owner) -> Option<SocketId> {
        let reorder = self.random.chance(self.conditions.reordered);
        let count = self.lists(owner).ready.len() as u64;
        let place = if reorder { self.random.below(count) as usize } else { 0 };
        self.lists(owner).ready.remove(place)
    }

    fn lists(&mut self, owner: Owner) -> &mut Lists {
        let place = owner.0 as usize;
        if place >= self.lists.len() {
            self.lists.resize_with(place + 1, Lists::default);
        }
        &mut self.lists[place]
    }

    /// What a socket has to say, one thing at a time. It is on the list again if there may be more.
    pub(super) fn news(&mut self, id: SocketId) -> Option<News> {
        match self.sockets.get_mut(&id)? {
            Socket::Stream(_) => self.stream_news(id),
            Socket::Listener(_) => self.listener_news(id),
            Socket::Attempt(attempt) => {
                let (outcome, local) = (attempt.outcome?, attempt.local);
                self.sockets.remove(&id);
                Some(match outcome {
                    Ok(stream) => News::Connected(stream, local),
                    Err(kind) => News::ConnectFailed(kind),
                })
            }
        }
    }

    fn stream_news(&mut self, id: SocketId) -> Option<News> {
        let (window, chunk) = (self.conditions.window, self.conditions.chunk);
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(&id) else { return None };
        let owner = stream.owner;
        if stream.closed {
            return None;
        }
        let can_read = stream.receiving && !stream.incoming.is_empty();
        let news = if stream.blocked && (stream.unread < window || stream.broken.is_some()) {
            stream.blocked = false;
            News::SendReady
        } else if can_read {
            let most = stream.incoming.len().min(chunk) as u64;
            // Reading puts it on the list again.
            return Some(
                News::Received(if chunk == usize::MAX { most } else { self.random.between(1, most) } as usize),
            );
        } else if let Some(kind) = stream.broken {
            stream.receiving = false;
            return (!std::mem::replace(&mut stream.end_told, true)).then_some(News::Broken(kind));
        } else if stream.receiving && stream.end_arrived && !stream.end_told {
            stream.end_told = true;
            News::EndOfStream
        } else {
            return None;
        };
        self.make_ready(owner, id);
        Some(news)
    }

    fn listener_news(&mut self, id: SocketId) -> Option<News> {
        let Some(Socket::Listener(listener)) = self.sockets.get(&id) else { return None };
        let owner = listener.owner;
        if !listener.accepting || listener.waiting.is_empty() {
            return None;
        }
        let is_full = self.is_full(owner);
        let Some(Socket::Listener(listener)) = self.sockets.get_mut(&id) else { return None };
        if is_full {
            let waiting = std::mem::take(&mut listener.waiting);
            // Some systems have no descriptor in reserve: the port waits.
            if self.random.chance(500) && self.conditions.spurious > 0 {
                if let Some(Socket::Listener(listener)) = self.sockets.get_mut(&id) {
                    listener.waiting = waiting;
                    listener.accepting = false;
                }
                return Some(News::AcceptFailed(too_many_open()));
            }
            let count = waiting.len();
            for stream in waiting {
                self.close(stream, true);
            }
            return Some(News::Shed(count));
        }
        let stream = listener.waiting.pop_front()?;
        let more = !listener.waiting.is_empty();
        if more {
            self.make_ready(owner, id);
        }
        let it = self.stream(stream)?;
        it.accepted = true;
        Some(News::Accepted { stream, host: it.local, peer: it.remote })
    }

    pub(super) fn stream(&mut self, id: SocketId) -> Option<&mut Stream> {
        match self.sockets.get_mut(&id) {
            Some(Socket::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn listener(&mut self, id: SocketId) -> Option<&mut Listener> {
        match self.sockets.get_mut(&id) {
            Some(Socket::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    fn next_id(&mut self) -> SocketId {
        self.sockets_made += 1;
        self.sockets_made
    }

    fn add(&mut self, socket: Socket) -> SocketId {
        let id = self.next_id();
        self.sockets.insert(id, socket);
        id
    }

    // The trace.

    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.add(self.now, what);
    }

    pub(super) fn keep_trace(&mut self) {
        self.trace.lines.get_or_insert_default();
    }

    pub(super) fn trace(&self) -> &[String] {
        self.trace.lines.as_deref().unwrap_or_default()
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.trace.hash.0
    }

    // What always holds.

    /// Panics if something does not hold that always does, for the sockets of an owner that has made a turn.
    pub(super) fn check(&self, owner: Owner) {
        for (id, socket) in &self.sockets {
            let Socket::Stream(stream) = socket else { continue };
            if stream.owner != owner {
                continue;
            }
            let Some(Socket::Stream(peer)) = self.sockets.get(&stream.peer) else {
                panic!("socket {id} has lost its other end (seed {})", self.seed);
            };
            let under_way: usize = stream.wire.iter().map(|(_, packet)| packet.len()).sum();
            let unread = under_way + peer.incoming.len();
            let bound = self.conditions.window;
            assert!(unread <= bound, "{unread} bytes under way and unread, {bound} may be (seed {})", self.seed);
        }
        let earliest = self.next_event().unwrap_or(self.now);
        assert!(earliest >= self.now, "something happens in the past (seed {})", self.seed);
    }
}

/// Why a connection could not even be asked for.
pub(super) enum Refusal {
    Bind(io::Error),
    Socket(io::Error),
}

impl Socket {
    fn host(&self) -> IpAddr {
        match self {
            Self::Listener(Listener { host, .. })
            | Self::Attempt(Attempt { host, .. })
            | Self::Stream(Stream { host, .. }) => *host,
        }
    }

    fn local(&self) -> SocketAddr {
        match self {
            Self::Listener(listener) => listener.bound,
            Self::Attempt(attempt) => attempt.local,
            Self::Stream(stream) => stream.local,
        }
    }

    fn is_open_for(&self, owner: Owner) -> bool {
        match self {
            Self::Listener(listener) => listener.owner == owner,
            Self::Attempt(attempt) => attempt.owner == owner,
            Self::Stream(stream) => stream.owner == owner && stream.accepted && !stream.closed,
        }
    }
}

impl Attempt {
    /// The host that is to be reached.
    fn there(&self) -> IpAddr {
        let to = self.to.ip();
        if to.is_loopback() || to.is_unspecified() { self.host } else { to }
    }
}

impl Stream {
    fn new(owner: Owner, hosts: (IpAddr, IpAddr), local: SocketAddr, remote: SocketAddr, peer: SocketId) -> Self {
        Self {
            owner,
            host: hosts.0,
            peer_host: hosts.1,
            local,
            remote,
            peer,
            wire: VecDeque::new(),
            unread: 0,
            busy_until: Duration::ZERO,
            incoming: VecDeque::new(),
            end_arrived: false,
            end_told: false,
            broken: None,
            receiving: false,
            blocked: false,
            shut: false,
            accepted: true,
            closed: false,
            no_delay: false,
            keep_alive: false,
        }
    }
}

impl Packet {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

/// What happened, as lines if they are wanted, and always as a number.
struct Trace {
    lines: Option<Vec<String>>,
    hash: Hash,
}

impl Default for Trace {
    fn default() -> Self {
        Self { lines: None, hash: Hash(0xcbf2_9ce4_8422_2325) }
    }
}

impl Trace {
    fn add(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
        let written = write!(self.hash, "{seconds}.{nanos:09} {what}");
        debug_assert!(written.is_ok(), "a hash takes everything");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{seconds:>6}.{nanos:09} {what}"));
        }
    }
}

/// FNV-1a: good enough to tell two runs apart, the same everywhere.
struct Hash(u64);

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// The first port that is given to those who ask for none.
const FIRST_PORT: u16 = 1024;

/// When something is sent again that was not answered. 1 s, as systems do at first.
const SEND_AGAIN: Duration = Duration::from_secs(1);

/// EMFILE, as it is on Linux: no descriptors are left to this process.
fn too_many_open() -> io::Error {
    io::Error::from_raw_os_error(24)
}

fn draw(random: &mut Random, least: Duration, most: Duration) -> Duration {
    if least == most {
        return least;
    }
    let spread = (most - least).as_nanos().min(u128::from(u64::MAX)) as u64;
    least + Duration::from_nanos(random.between(0, spread))
}

fn pair(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    if one <= other { (one, other) } else { (other, one) }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}
