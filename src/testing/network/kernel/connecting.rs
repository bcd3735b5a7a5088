//! Ports and attempts to connect.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::address::{Address, UnixAddress};

use super::sharing::{Sharing, is_of, overlap, reaches};
use super::{
    FIRST_PORT, Host, Kernel, KernelEvent, News, Owner, SimulatedSocket, SimulatedStream, SocketId, too_many_open,
};

pub(crate) struct SimulatedListener {
    pub(super) owner: Owner,
    pub(super) host: IpAddr,
    pub(super) bound: Address,
    pub(super) backlog: usize,
    pub(super) sharing: Sharing,
    /// Streams that are connected and not accepted yet.
    pub(super) waiting: VecDeque<SocketId>,
    /// Cleared while the port is suspended.
    pub(crate) accepting: bool,
    /// Number of times in a row that the owner was asked for a descriptor: once in each of two
    /// turns.
    pub(crate) asked: u8,
    /// The next request for a descriptor waits for the next turn.
    waits: bool,
}

/// An attempt to connect.
pub(crate) struct SimulatedAttempt {
    pub(super) owner: Owner,
    pub(super) host: IpAddr,
    pub(super) local: Address,
    pub(super) sharing: Sharing,
    pub(crate) to: Address,
    /// The answer of the other host.
    pub(super) outcome: Option<Result<SocketId, io::ErrorKind>>,
    /// The answer has come back.
    pub(super) told: bool,
    /// The attempt has reached the other host, where the test decides.
    pub(super) arrived: bool,
}

impl Kernel {
    pub(crate) fn listen(
        &mut self,
        owner: Owner,
        host: IpAddr,
        address: &Address,
        backlog: u32,
        sharing: Sharing,
    ) -> io::Result<(SocketId, Address)> {
        if self.is_full(owner) {
            return Err(too_many_open());
        }
        let bound = self.bind(host, address, sharing)?;
        let backlog = backlog.max(1) as usize;
        let listener = SimulatedListener {
            owner,
            host,
            bound: bound.clone(),
            backlog,
            sharing,
            waiting: VecDeque::new(),
            accepting: true,
            asked: 0,
            waits: false,
        };
        let id = self.add(SimulatedSocket::Listener(listener));
        self.note(format_args!("listen {bound} on {host}"));
        Ok((id, bound))
    }

    /// Binds a listener: checks that the address belongs to the host and is free, and chooses a
    /// port if the address has none.
    fn bind(&mut self, host: IpAddr, address: &Address, sharing: Sharing) -> io::Result<Address> {
        let bound = match address {
            Address::Inet(address) => self.bind_port(host, *address, None)?.into(),
            Address::Unix(_) => address.clone(),
            Address::Pipe => return Err(io::ErrorKind::InvalidInput.into()),
        };
        // Streams and datagrams share the file system, and no abstract names.
        let path = bound.unix().filter(|name| name.as_path().is_some());
        let is_file_in_use = path.is_some_and(|path| self.unix_receiver(host, path).is_some());
        if is_file_in_use || self.is_in_use(host, &bound, sharing) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(bound)
    }

    /// Returns `true` if a listener of the host has this name.
    pub(super) fn has_unix_listener(&self, host: IpAddr, name: &UnixAddress) -> bool {
        self.is_in_use(host, &name.clone().into(), Sharing::default())
    }

    /// Returns `true` if other sockets of the host, or a connection in TIME_WAIT, keep a socket
    /// from binding to the address.
    fn is_in_use(&self, host: IpAddr, address: &Address, sharing: Sharing) -> bool {
        let is_kept = |socket: &SimulatedSocket| {
            let is_there = socket.host() == host && overlap((socket.local(), socket.sharing()), (address, sharing));
            is_there && !sharing.is_possible(socket.sharing(), matches!(socket, SimulatedSocket::Listener(_)))
        };
        let waits = |((of, port, _), (until, other)): (&(IpAddr, u16, SocketAddr), &(Duration, Sharing))| {
            let is_there = *of == host && Some(*port) == address.port() && *until > self.now;
            is_there && !sharing.is_possible(*other, false)
        };
        self.sockets.any(is_kept) || self.time_waits.iter().any(waits)
    }

    fn bind_port(&mut self, host: IpAddr, address: SocketAddr, to: Option<&Address>) -> io::Result<SocketAddr> {
        if !is_of(host, address.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = match address.port() {
            0 => self.free_port(host, to).ok_or(io::ErrorKind::AddrInUse)?,
            port => port,
        };
        Ok(SocketAddr::new(address.ip(), port))
    }

    /// Binds a connecting socket, so that its four-tuple is unique.
    fn bind_to_connect(
        &mut self,
        host: IpAddr,
        to: &Address,
        from: Option<SocketAddr>,
        sharing: Sharing,
    ) -> Result<Address, SimulatedRefusal> {
        let Some(ip) = to.ip() else { return Ok(UnixAddress::unnamed().into()) };
        let Some(from) = from else {
            let port = self.free_port(host, Some(to)).ok_or(io::ErrorKind::AddrNotAvailable);
            let port = port.map_err(|kind| SimulatedRefusal::Socket(kind.into()))?;
            return Ok(SocketAddr::new(if ip.is_loopback() { ip } else { host }, port).into());
        };
        let bound = self.bind_port(host, from, Some(to)).map_err(SimulatedRefusal::Bind)?;
        let port = bound.port();
        let bound = bound.into();
        if self.is_in_use(host, &bound, sharing) {
            return Err(SimulatedRefusal::Bind(io::ErrorKind::AddrInUse.into()));
        }
        // With SO_REUSEADDR, Linux compares the peers only in `connect`, and fails with this error
        // instead of AddrInUse.
        if self.is_connected(host, port, to) {
            return Err(SimulatedRefusal::Bind(io::ErrorKind::AddrNotAvailable.into()));
        }
        Ok(bound)
    }

    /// Returns `true` if the host has a connection from this port to that address, or holds one in
    /// TIME_WAIT.
    fn is_connected(&self, host: IpAddr, port: u16, to: &Address) -> bool {
        let goes = |socket: &SimulatedSocket| match socket {
            SimulatedSocket::Listener(_) => false,
            SimulatedSocket::Attempt(attempt) => attempt.to == *to,
            SimulatedSocket::Stream(stream) => stream.remote == *to,
        };
        let is_there =
            |socket: &SimulatedSocket| socket.host() == host && socket.local().port() == Some(port) && goes(socket);
        let waits = to.socket_addr().and_then(|to| self.time_waits.get(&(host, port, to)));
        waits.is_some_and(|(until, _)| *until > self.now) || self.sockets.any(is_there)
    }

    /// Chooses a port of the host for a listener, or for a connection to an address. Returns `None`
    /// if all are taken.
    fn free_port(&mut self, host: IpAddr, to: Option<&Address>) -> Option<u16> {
        for _ in FIRST_PORT..=u16::MAX {
            let place = self.hosts.entry(host).or_insert(Host { next_port: FIRST_PORT });
            let port = place.next_port;
            place.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let is_bound = |socket: &SimulatedSocket| {
                let may_share = to.is_some() && !matches!(socket, SimulatedSocket::Listener(_));
                socket.host() == host && socket.local().port() == Some(port) && !may_share
            };
            let is_taken = self.sockets.any(is_bound) || to.is_some_and(|to| self.is_connected(host, port, to));
            if !is_taken {
                return Some(port);
            }
        }
        None
    }

    /// Holds a four-tuple in TIME_WAIT, so that no late packet of its connection reaches a later
    /// one.
    pub(super) fn begin_time_wait(&mut self, host: IpAddr, local: &Address, remote: &Address, sharing: Sharing) {
        let (Some(port), Some(remote)) = (local.port(), remote.socket_addr()) else { return };
        let now = self.now;
        self.time_waits.retain(|_, (until, _)| *until > now);
        self.time_waits.insert((host, port, remote), (now + TIME_WAIT, sharing));
    }

    /// Returns the addresses on which an owner listens.
    pub(crate) fn listening(&self, owner: Owner) -> Vec<Address> {
        let bound = self.sockets.iter().filter_map(|(_, socket)| match socket {
            SimulatedSocket::Listener(listener) if listener.owner == owner => Some(listener.bound.clone()),
            _ => None,
        });
        bound.collect()
    }

    /// Returns the listener for a connection. Among listeners that share an address, the peer's
    /// port decides.
    fn listener_at(&self, host: IpAddr, to: &Address, from: &Address) -> Option<SocketId> {
        let exactness = |socket: &SimulatedSocket| match socket {
            SimulatedSocket::Listener(it) if it.host == host => reaches(to, (&it.bound, it.sharing)),
            _ => None,
        };
        let all = || self.sockets.iter().filter_map(|(id, socket)| Some((exactness(socket)?, id)));
        let (most, _) = all().max()?;
        let best: Vec<SocketId> = all().filter(|(exact, _)| *exact == most).map(|(_, id)| id).collect();
        best.get(usize::from(from.port().unwrap_or(0)) % best.len()).copied()
    }

    pub(crate) fn connect(
        &mut self,
        owner: Owner,
        host: IpAddr,
        to: &Address,
        from: Option<SocketAddr>,
        sharing: Sharing,
    ) -> Result<SocketId, SimulatedRefusal> {
        if self.is_full(owner) {
            return Err(SimulatedRefusal::NoDescriptors(too_many_open()));
        }
        let local = self.bind_to_connect(host, to, from, sharing)?;
        self.note(format_args!("dial   {local} > {to}"));
        let attempt = SimulatedAttempt {
            owner,
            host,
            local,
            sharing,
            to: to.clone(),
            outcome: None,
            told: false,
            arrived: false,
        };
        let id = self.add(SimulatedSocket::Attempt(attempt));
        let at = self.now + self.latency();
        self.later(at, KernelEvent::Arrives(id));
        Ok(id)
    }

    pub(super) fn attempt_arrives(&mut self, id: SocketId) {
        let Some(SimulatedSocket::Attempt(attempt)) = self.sockets.get(id) else { return };
        let (owner, host, to, there) = (attempt.owner, attempt.host, attempt.to.clone(), attempt.there());
        let from = attempt.local.clone();
        if attempt.outcome.is_some() {
            return;
        }
        if self.is_parted(host, there) {
            return self.again(KernelEvent::Arrives(id));
        }
        if self.attempts_wait && owner != Owner::TEST {
            if let Some(SimulatedSocket::Attempt(attempt)) = self.sockets.get_mut(id) {
                attempt.arrived = true;
            }
            return;
        }
        if !self.hosts.contains_key(&there) {
            return self.answer(id, Err(io::ErrorKind::HostUnreachable));
        }
        let Some(listener) = self.listener_at(there, &to, &from) else {
            return self.answer(id, Err(io::ErrorKind::ConnectionRefused));
        };
        let Some(SimulatedSocket::Listener(it)) = self.sockets.get(listener) else { return };
        if it.waiting.len() >= it.backlog {
            // A full backlog does not answer.
            return self.again(KernelEvent::Arrives(id));
        }
        let (owner, sharing) = (it.owner, it.sharing);
        if let Some(served) = self.join(id, owner) {
            if let Some(SimulatedSocket::Listener(listener)) = self.sockets.get_mut(listener) {
                listener.waiting.push_back(served);
            }
            if let Some(stream) = self.stream(served) {
                (stream.accepted, stream.sharing) = (false, sharing);
            }
            self.make_ready(owner, listener);
        }
    }

    /// Accepts an attempt: creates the two ends, and returns that of `owner`.
    pub(crate) fn join(&mut self, id: SocketId, owner: Owner) -> Option<SocketId> {
        let Some(SimulatedSocket::Attempt(attempt)) = self.sockets.get(id) else { return None };
        let (asker, host, there) = (attempt.owner, attempt.host, attempt.there());
        let (local, to, sharing) = (attempt.local.clone(), attempt.to.clone(), attempt.sharing);
        let (asking, answering) = (self.next_id(), self.next_id());
        let mut ours = SimulatedStream::new(asker, (host, there), local.clone(), to.clone(), answering);
        ours.sharing = sharing;
        let theirs = SimulatedStream::new(owner, (there, host), to, local, asking);
        self.sockets.insert(asking, SimulatedSocket::Stream(ours));
        self.sockets.insert(answering, SimulatedSocket::Stream(theirs));
        self.answer(id, Ok(asking));
        Some(answering)
    }

    pub(crate) fn answer(&mut self, id: SocketId, outcome: Result<SocketId, io::ErrorKind>) {
        let Some(SimulatedSocket::Attempt(attempt)) = self.sockets.get_mut(id) else { return };
        attempt.outcome = Some(outcome);
        attempt.arrived = false;
        let (local, to) = (attempt.local.clone(), attempt.to.clone());
        self.note(format_args!("answer {local} > {to} {}", if outcome.is_ok() { "made" } else { "refused" }));
        let at = self.now + self.latency();
        self.later(at, KernelEvent::Answered(id));
    }

    /// Takes the answer to an attempt of the test, once it has arrived.
    pub(crate) fn take_outcome(&mut self, id: SocketId) -> Option<Result<SocketId, io::ErrorKind>> {
        let Some(SimulatedSocket::Attempt(attempt)) = self.sockets.get(id) else { return None };
        let outcome = attempt.outcome.filter(|_| attempt.told)?;
        self.sockets.remove(id);
        Some(outcome)
    }

    /// Returns the attempts that wait for the test's decision.
    pub(crate) fn attempts(&self) -> Vec<(SocketId, Address)> {
        let arrived = self.sockets.iter().filter_map(|(id, socket)| match socket {
            SimulatedSocket::Attempt(attempt) if attempt.arrived => Some((id, attempt.to.clone())),
            _ => None,
        });
        arrived.collect()
    }

    pub(super) fn listener_news(&mut self, id: SocketId) -> Option<News> {
        let Some(SimulatedSocket::Listener(listener)) = self.sockets.get(id) else { return None };
        let owner = listener.owner;
        if !listener.accepting || listener.waiting.is_empty() {
            return None;
        }
        let is_full = self.is_full(owner);
        let Some(SimulatedSocket::Listener(listener)) = self.sockets.get_mut(id) else { return None };
        if is_full && listener.asked == 1 && !std::mem::replace(&mut listener.waits, true) {
            self.make_ready_again(owner, id);
            return None;
        }
        listener.waits = false;
        if is_full && listener.asked < 2 {
            listener.asked += 1;
            self.make_ready(owner, id);
            return Some(News::NoDescriptors);
        }
        listener.asked = 0;
        if is_full {
            let waiting = std::mem::take(&mut listener.waiting);
            // Some systems have no descriptor in reserve. There the port is suspended.
            if self.random.chance(500) && self.conditions.spurious > 0 {
                if let Some(SimulatedSocket::Listener(listener)) = self.sockets.get_mut(id) {
                    listener.waiting = waiting;
                    listener.accepting = false;
                }
                return Some(News::AcceptFailed(too_many_open()));
            }
            let count = waiting.len();
            for stream in waiting {
                self.close(stream, false);
            }
            return Some(News::Shed(count));
        }
        let stream = listener.waiting.pop_front()?;
        let more = !listener.waiting.is_empty();
        if more {
            self.make_ready(owner, id);
        }
        let (stream, host, peer) = self.accept(stream)?;
        Some(News::Accepted { stream, host, peer })
    }

    /// Accepts the connections that wait at a listener, as long as there are descriptors.
    pub(crate) fn accept_waiting(&mut self, id: SocketId) -> Vec<(SocketId, Address, Address)> {
        let mut accepted = Vec::new();
        while let Some(listener) = self.listener(id) {
            let owner = listener.owner;
            if self.is_full(owner) {
                break;
            }
            let Some(stream) = self.listener(id).and_then(|listener| listener.waiting.pop_front()) else { break };
            accepted.extend(self.accept(stream));
        }
        accepted
    }

    /// Returns an accepted stream with its addresses.
    fn accept(&mut self, stream: SocketId) -> Option<(SocketId, Address, Address)> {
        let it = self.stream(stream)?;
        Some((stream, it.local.clone(), it.remote.clone()))
    }
}

impl SimulatedAttempt {
    /// Returns the host to which the attempt goes.
    pub(super) fn there(&self) -> IpAddr {
        let elsewhere = self.to.ip().filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        elsewhere.unwrap_or(self.host)
    }
}

/// The error of a connection that could not even be attempted.
pub(crate) enum SimulatedRefusal {
    Bind(io::Error),
    NoDescriptors(io::Error),
    Socket(io::Error),
}

/// Duration of TIME_WAIT. 60 s, as on Linux.
const TIME_WAIT: Duration = Duration::from_secs(60);
