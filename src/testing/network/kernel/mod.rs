//! [`Kernel`]: sockets and the packets between them. It takes the place of an operating system and
//! its wires.
//!
//! A stream is two sockets. A packet sent by one lies on its *wire*, in order, until it arrives at
//! the other. The window is the number of bytes that may be on the wire and unread. Both are plain
//! data, and time is a number that the network or a backend advances.
//!
//! | packet | at an open socket | at a closed one |
//! |---|---|---|
//! | data | is kept until it is read | is answered with a reset |
//! | end | is reported once everything before it was read | |
//! | reset | is reported at once, or, while the owner reads, after all unread bytes (`ends.rs`) | |
//!
//! Every random choice is drawn from one seed, and nothing depends on an address in memory or the
//! order of a hash table. So the same program with the same seed does the same, and leaves the same
//! trace.

mod connecting;
mod datagram_routes;
mod datagrams;
mod descriptors;
mod ends;
mod events;
mod ledger;
mod nagle;
mod sent_datagrams;
mod sharing;
mod sockets;
mod streams;
#[cfg(test)]
mod tests;
mod trace;
mod unix_datagrams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

pub(crate) use self::connecting::SimulatedRefusal;
use self::connecting::{SimulatedAttempt, SimulatedListener};
use self::datagrams::SimulatedDatagrams;
use self::descriptors::SimulatedDescriptor;
use self::events::{EventQueue, KernelEvent};
pub(crate) use self::sharing::Sharing;
use self::sockets::Sockets;
use self::streams::SimulatedStream;
use self::trace::Trace;
use self::unix_datagrams::SimulatedUnixDatagrams;
use super::backend_invariants::FaultList;
use super::conditions::Conditions;
use crate::address::Address;
use crate::random::Random;

/// The id of a socket. Later sockets have higher numbers.
pub(crate) type SocketId = u64;

/// The owner of a socket: a reactor, or the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u32);

impl Owner {
    /// The test itself.
    pub(crate) const TEST: Self = Self(0);
}

/// All sockets, and all packets and events under way.
pub(crate) struct Kernel {
    pub(crate) seed: u64,
    pub(crate) now: Duration,
    pub(crate) random: Random,
    pub(crate) conditions: Conditions,
    sockets: Sockets,
    sockets_made: SocketId,
    datagrams: BTreeMap<SocketId, SimulatedDatagrams>,
    datagrams_sent: u64,
    unix_datagrams: BTreeMap<SocketId, SimulatedUnixDatagrams>,
    descriptors: BTreeMap<RawFd, SimulatedDescriptor>,
    events: EventQueue,
    /// The ready sockets, by owner.
    lists: Vec<Lists>,
    limits: BTreeMap<Owner, usize>,
    hosts: BTreeMap<IpAddr, Host>,
    /// Four-tuples in TIME_WAIT, by host, local port and peer, with the time at which they are
    /// free.
    time_waits: BTreeMap<(IpAddr, u16, SocketAddr), (Duration, Sharing)>,
    names: BTreeMap<String, Vec<IpAddr>>,
    partitions: BTreeSet<(IpAddr, IpAddr)>,
    /// If set, attempts to connect wait for the test's decision.
    pub(crate) attempts_wait: bool,
    trace: Trace,
    pub(in crate::testing) faults: FaultList,
}

/// The sockets of one owner that are ready: they may have news.
#[derive(Default)]
struct Lists {
    ready: VecDeque<SocketId>,
    /// Ready in the owner's next turn.
    again: VecDeque<SocketId>,
}

#[derive(Default)]
struct Host {
    next_port: u16,
}

#[expect(clippy::large_enum_variant, reason = "the table keeps each socket behind a pointer")]
pub(crate) enum SimulatedSocket {
    Listener(SimulatedListener),
    Attempt(SimulatedAttempt),
    Stream(SimulatedStream),
}

/// An event that a socket reports to a backend.
#[derive(Debug)]
pub(crate) enum News {
    Accepted {
        stream: SocketId,
        host: Address,
        peer: Address,
    },
    NoDescriptors,
    Shed(usize),
    AcceptFailed(io::Error),
    Connected(SocketId, Address),
    ConnectFailed(io::ErrorKind),
    /// This many bytes can be read.
    Received(usize),
    EndOfStream,
    SendReady,
    DatagramsReady,
    /// With or without bytes that can still be read.
    Broken {
        kind: io::ErrorKind,
        rest: bool,
    },
}

impl Kernel {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            random: Random::new(seed),
            conditions,
            sockets: Sockets::default(),
            sockets_made: 0,
            datagrams: BTreeMap::new(),
            datagrams_sent: 0,
            unix_datagrams: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            events: EventQueue::default(),
            lists: Vec::new(),
            limits: BTreeMap::new(),
            hosts: BTreeMap::new(),
            time_waits: BTreeMap::new(),
            names: BTreeMap::new(),
            partitions: BTreeSet::new(),
            attempts_wait: false,
            trace: Trace::default(),
            faults: FaultList::default(),
        }
    }

    // Time.

    /// Returns the time of the next event.
    pub(crate) fn next_event(&self) -> Option<Duration> {
        self.events.next_time()
    }

    /// Advances the time, and handles all events that are due by then.
    pub(crate) fn advance_to(&mut self, now: Duration) {
        while let Some((at, event)) = self.events.pop_due(now) {
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(now);
    }

    fn later(&mut self, at: Duration, event: KernelEvent) {
        self.events.push(at, event);
    }

    fn happen(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Arrives(attempt) => self.attempt_arrives(attempt),
            KernelEvent::Answered(attempt) => {
                let Some(SimulatedSocket::Attempt(it)) = self.sockets.get(attempt) else { return };
                let (owner, parted) = (it.owner, self.is_parted(it.host, it.there()));
                if parted {
                    return self.again(event);
                }
                if let Some(SimulatedSocket::Attempt(it)) = self.sockets.get_mut(attempt) {
                    it.told = true;
                }
                self.make_ready(owner, attempt);
            }
            KernelEvent::Wire(sender) => self.deliver(sender),
            KernelEvent::Read(sender, count) => {
                if self.is_cut_off(sender) {
                    return self.again(event);
                }
                let Some(stream) = self.stream(sender) else { return };
                stream.unread = stream.unread.saturating_sub(count);
                let owner = stream.owner;
                self.make_ready(owner, sender);
            }
            KernelEvent::Acknowledges(receiver) => self.answer_now(receiver),
            KernelEvent::Acknowledged(sender, _) if self.is_cut_off(sender) => self.again(event),
            KernelEvent::Acknowledged(sender, count) => self.acknowledged(sender, count),
            KernelEvent::Datagram(datagram) => self.datagram_arrives(&datagram),
            KernelEvent::Refused(sender, to) => self.datagram_refused(sender, to),
        }
    }

    /// Returns `true` if a partition cuts a stream off from its other end.
    fn is_cut_off(&self, id: SocketId) -> bool {
        matches!(self.sockets.get(id), Some(SimulatedSocket::Stream(stream)) if self.is_parted(stream.host, stream.peer_host))
    }

    /// Reschedules an event that did not get through, as a system retransmits a packet.
    fn again(&mut self, event: KernelEvent) {
        self.later(self.now + SEND_AGAIN, event);
    }

    /// Draws the latency of a packet.
    fn latency(&mut self) -> Duration {
        let (least, most) = self.conditions.latency;
        draw(&mut self.random, least, most)
    }

    // Hosts and names.

    pub(crate) fn add_host(&mut self, host: IpAddr) {
        self.hosts.entry(host).or_insert(Host { next_port: FIRST_PORT });
    }

    pub(crate) fn add_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.names.insert(name.to_ascii_lowercase(), addresses);
    }

    /// Returns the addresses of a name, and the duration of the lookup.
    pub(crate) fn look_up(&mut self, name: &str) -> (Vec<IpAddr>, Duration) {
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

    /// Draws the duration of a job in a thread.
    pub(crate) fn job_time(&mut self) -> Duration {
        let (least, most) = self.conditions.jobs;
        draw(&mut self.random, least, most)
    }

    pub(crate) fn partition(&mut self, one: IpAddr, other: IpAddr) {
        self.partitions.insert(pair(one, other));
        self.note(format_args!("parted {one} {other}"));
    }

    /// Ends a partition. Packets under way between the hosts arrive.
    pub(crate) fn heal(&mut self, one: IpAddr, other: IpAddr) {
        if !self.partitions.remove(&pair(one, other)) {
            return;
        }
        self.note(format_args!("healed {one} {other}"));
        let held: Vec<SocketId> = self.sockets.iter().map(|(id, _)| id).collect();
        for id in held {
            let after = self.now + self.latency();
            if matches!(self.sockets.get(id), Some(SimulatedSocket::Stream(stream)) if !stream.wire.is_empty()) {
                self.later(after, KernelEvent::Wire(id));
            }
        }
    }

    fn is_parted(&self, one: IpAddr, other: IpAddr) -> bool {
        !self.partitions.is_empty() && self.partitions.contains(&pair(one, other))
    }

    /// Limits the number of open sockets of an owner.
    pub(crate) fn set_limit(&mut self, owner: Owner, limit: Option<usize>) {
        match limit {
            Some(limit) => drop(self.limits.insert(owner, limit)),
            None => drop(self.limits.remove(&owner)),
        }
    }

    /// Returns the number of open sockets of an owner.
    pub(crate) fn open(&self, owner: Owner) -> usize {
        self.sockets.count(|socket| socket.is_open_for(owner)) + self.open_datagrams(owner)
    }

    fn is_full(&self, owner: Owner) -> bool {
        self.limits.get(&owner).is_some_and(|&limit| self.open(owner) >= limit)
    }

    // News.

    /// Puts a socket on its owner's ready list.
    pub(crate) fn make_ready(&mut self, owner: Owner, id: SocketId) {
        if owner == Owner::TEST {
            return;
        }
        let ready = &mut self.lists(owner).ready;
        if !ready.contains(&id) {
            ready.push_back(id);
        }
    }

    /// Puts a socket on its owner's ready list of the next turn.
    pub(crate) fn make_ready_again(&mut self, owner: Owner, id: SocketId) {
        self.lists(owner).again.push_back(id);
    }

    /// Begins a turn of an owner.
    pub(crate) fn begin_turn(&mut self, owner: Owner) {
        for id in std::mem::take(&mut self.lists(owner).again) {
            self.make_ready(owner, id);
        }
        self.begin_descriptors(owner);
    }

    pub(crate) fn is_ready(&self, owner: Owner) -> bool {
        let lists = self.lists.get(owner.0 as usize);
        lists.is_some_and(|lists| !lists.ready.is_empty() || !lists.again.is_empty())
            || self.has_ready_descriptor(owner)
    }

    /// Takes the next socket off the ready list: the first, or any one under reordering conditions.
    pub(crate) fn next_ready(&mut self, owner: Owner) -> Option<SocketId> {
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

    /// Takes the next news of a socket. Puts the socket back on the list if there may be more.
    pub(crate) fn news(&mut self, id: SocketId) -> Option<News> {
        let Some(socket) = self.sockets.get_mut(id) else { return self.datagram_news(id) };
        match socket {
            SimulatedSocket::Stream(_) => self.stream_news(id),
            SimulatedSocket::Listener(_) => self.listener_news(id),
            SimulatedSocket::Attempt(attempt) => {
                let (outcome, local) = (attempt.outcome?, attempt.local.clone());
                self.sockets.remove(id);
                Some(match outcome {
                    Ok(stream) => News::Connected(stream, local),
                    Err(kind) => News::ConnectFailed(kind),
                })
            }
        }
    }

    pub(crate) fn stream(&mut self, id: SocketId) -> Option<&mut SimulatedStream> {
        match self.sockets.get_mut(id) {
            Some(SimulatedSocket::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn listener(&mut self, id: SocketId) -> Option<&mut SimulatedListener> {
        match self.sockets.get_mut(id) {
            Some(SimulatedSocket::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    fn next_id(&mut self) -> SocketId {
        self.sockets_made += 1;
        self.sockets_made
    }

    fn add(&mut self, socket: SimulatedSocket) -> SocketId {
        let id = self.next_id();
        self.sockets.insert(id, socket);
        id
    }

    // The trace.

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.add(self.now, what);
    }

    pub(crate) fn keep_trace(&mut self) {
        self.trace.lines.get_or_insert_default();
    }

    pub(crate) fn trace(&self) -> &[String] {
        self.trace.lines.as_deref().unwrap_or_default()
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.trace.hash.0
    }

    // Invariants.

    /// Panics if a fault was recorded.
    #[track_caller]
    pub(crate) fn check_faults(&self) {
        self.faults.check(self.seed);
    }

    /// Panics if an invariant does not hold after a turn.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.check_faults();
        let earliest = self.next_event().unwrap_or(self.now);
        assert!(earliest >= self.now, "something happens in the past (seed {})", self.seed);
    }
}

impl SimulatedSocket {
    fn host(&self) -> IpAddr {
        match self {
            Self::Listener(SimulatedListener { host, .. }) | Self::Attempt(SimulatedAttempt { host, .. }) => *host,
            Self::Stream(stream) => stream.host,
        }
    }

    fn local(&self) -> &Address {
        match self {
            Self::Listener(listener) => &listener.bound,
            Self::Attempt(attempt) => &attempt.local,
            Self::Stream(stream) => &stream.local,
        }
    }

    fn sharing(&self) -> Sharing {
        match self {
            Self::Listener(SimulatedListener { sharing, .. }) | Self::Attempt(SimulatedAttempt { sharing, .. }) => {
                *sharing
            }
            Self::Stream(stream) => stream.sharing,
        }
    }

    fn is_open_for(&self, owner: Owner) -> bool {
        match self {
            Self::Listener(listener) => listener.owner == owner,
            // A successful attempt has become a stream, which counts instead.
            Self::Attempt(attempt) => attempt.owner == owner && !matches!(attempt.outcome, Some(Ok(_))),
            Self::Stream(stream) => stream.owner == owner && stream.accepted && !stream.closed,
        }
    }
}

/// The first ephemeral port.
const FIRST_PORT: u16 = 1024;

/// Retransmission timeout of an unanswered packet: 1 s, the first timeout of most systems.
const SEND_AGAIN: Duration = Duration::from_secs(1);

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

/// Returns `EMFILE`, as on Linux: the process has no descriptors left.
fn too_many_open() -> io::Error {
    io::Error::from_raw_os_error(24)
}
