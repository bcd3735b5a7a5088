//! The load generator: connections that send a segment and wait for the same bytes to come back.
//!
//! The loop is closed: a connection sends a segment of several messages, and the next segment once
//! the first has come back. A slow server therefore receives less load, and never has a queue.
//! Every run ends once all sent bytes are answered, so the server sleeps before and after the run.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::net::{bind, connect, recv, send, socket_with};

use crate::Result;
use crate::histogram::Histogram;
use crate::system::loopback;

/// Timeout for an answer, in seconds. The run fails after it.
const ANSWER_TIMEOUT_SECONDS: u64 = 20;

/// Number of connections that send at once while answers are compared.
const CHECKS_AT_ONCE: usize = 64;

/// Load generator: connections to one server.
pub struct LoadGenerator {
    server: SocketAddr,
    sources: SourceAddresses,
    depth: usize,
    segment: Vec<u8>,
    buffer: Vec<u8>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<LoadConnection>,
    next: usize,
}

/// Source addresses of connections: the ports of one loopback address in turn, then those of the
/// next address. The kernel would have to search for a free port, which takes milliseconds when
/// most ports are in `TIME_WAIT`.
#[derive(Debug)]
pub struct SourceAddresses {
    first: u32,
    opened: u64,
}

/// Ports used on each source address.
const SOURCE_PORTS: Range<u64> = 10_000..30_000;

/// A connection of the load generator.
struct LoadConnection {
    socket: OwnedFd,
    sent: usize,
    /// Number of sent bytes that have not come back yet; 0 if the connection is idle.
    awaited: usize,
    since: Instant,
}

/// Figures of one run.
#[derive(Debug, Default)]
pub struct Window {
    /// Number of answered messages.
    pub messages: u64,
    /// Time from the first send to the last answer.
    pub nanoseconds: u64,
    /// Round-trip times of the segments.
    pub latency: Histogram,
}

/// Condition after which a run sends nothing more.
#[derive(Debug, Clone, Copy)]
pub enum StopCondition {
    /// Once this time has passed.
    Time(Duration),
    /// Once this many segments have been sent.
    Segments(u64),
}

impl LoadGenerator {
    /// Creates a load generator for a server. A segment is `depth` messages of `size` bytes.
    /// `first_source` is the number of the first source address.
    ///
    /// # Errors
    /// Returns the error of the system call.
    pub fn new(server: SocketAddr, size: usize, depth: usize, first_source: u32) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            server,
            sources: SourceAddresses::new(first_source),
            depth,
            segment: vec![7; size * depth],
            buffer: vec![0; 64 << 10],
            epoll,
            events: Vec::with_capacity(1024),
            connections: Vec::new(),
            next: 0,
        })
    }

    /// Opens connections until there are `count`. Each new connection sends a distinct segment and
    /// compares the answer.
    ///
    /// # Errors
    /// Fails if a connection cannot be opened, is not answered, or gets other bytes back.
    pub fn grow(&mut self, count: usize) -> Result<()> {
        while self.connections.len() < count {
            let number = self.connections.len();
            self.open()?;
            // The batch is small, so that no connection waits long to be accepted.
            if (number + 1).is_multiple_of(CHECKS_AT_ONCE) || number + 1 == count {
                self.check(number / CHECKS_AT_ONCE * CHECKS_AT_ONCE..number + 1)?;
            }
        }
        Ok(())
    }

    /// Sends a distinct segment on every connection, and compares the answers.
    ///
    /// # Errors
    /// Fails as [`grow`](Self::grow) does.
    pub fn check_all(&mut self) -> Result<()> {
        let count = self.connections.len();
        (0..count).step_by(CHECKS_AT_ONCE).try_for_each(|first| self.check(first..count.min(first + CHECKS_AT_ONCE)))
    }

    /// Sends and receives, with `in_flight` segments in flight at a time. If there are more
    /// connections than that, they take turns. Otherwise each connection sends again as soon as it
    /// is answered.
    ///
    /// # Errors
    /// Fails if a connection is not answered.
    pub fn echo(&mut self, until: StopCondition, in_flight: usize) -> Result<Window> {
        let (start, mut window) = (Instant::now(), Window::default());
        let mut left = match until {
            StopCondition::Segments(count) => count,
            StopCondition::Time(_) => u64::MAX,
        };
        let takes_turns = in_flight < self.connections.len();
        let mut in_progress = in_flight.min(self.connections.len()).min(left.try_into().unwrap_or(usize::MAX));
        for place in 0..in_progress {
            let client = if takes_turns { self.next_idle() } else { place };
            self.begin(client)?;
            left -= 1;
        }
        while in_progress > 0 {
            for index in 0..self.wait()? {
                let event = self.events[index];
                let place = event.data.u64() as usize;
                if !self.handle_event(place, event.flags)? {
                    continue;
                }
                let now = Instant::now();
                window.messages += self.depth as u64;
                window.latency.record((now - self.connections[place].since).as_nanos() as u64);
                let more = left > 0 && !matches!(until, StopCondition::Time(time) if now - start >= time);
                if more {
                    left -= 1;
                    let client = if takes_turns { self.next_idle() } else { place };
                    self.begin(client)?;
                } else {
                    in_progress -= 1;
                }
            }
        }
        window.nanoseconds = start.elapsed().as_nanos() as u64;
        Ok(window)
    }

    /// Sends on all connections at the same time and waits for all answers, `rounds` times.
    ///
    /// # Errors
    /// Fails as [`echo`](Self::echo) does.
    pub fn rounds(&mut self, rounds: u64) -> Result<Window> {
        let (start, mut all) = (Instant::now(), Window::default());
        for _ in 0..rounds {
            let window = self.echo(StopCondition::Segments(self.connections.len() as u64), self.connections.len())?;
            all.messages += window.messages;
            all.latency.merge(&window.latency);
        }
        all.nanoseconds = start.elapsed().as_nanos() as u64;
        Ok(all)
    }

    /// Connects, sends one segment, waits for it to come back, and closes. `at_once` connections
    /// are open at a time, and all other connections are closed first.
    ///
    /// # Errors
    /// Fails as [`echo`](Self::echo) does.
    pub fn churn(&mut self, time: Duration, at_once: usize) -> Result<Window> {
        let (start, mut window) = (Instant::now(), Window::default());
        self.connections.clear();
        for place in 0..at_once {
            self.open()?;
            self.begin(place)?;
        }
        let mut in_progress = at_once;
        while in_progress > 0 {
            for index in 0..self.wait()? {
                let event = self.events[index];
                let place = event.data.u64() as usize;
                if !self.handle_event(place, event.flags)? {
                    continue;
                }
                let now = Instant::now();
                window.messages += 1;
                window.latency.record((now - self.connections[place].since).as_nanos() as u64);
                if now - start < time {
                    let began = Instant::now();
                    self.open()?;
                    // The new connection takes the index of the old one, which is closed.
                    self.connections.swap_remove(place);
                    let data = epoll::EventData::new_u64(place as u64);
                    epoll::modify(&self.epoll, &self.connections[place].socket, data, epoll::EventFlags::IN)?;
                    self.begin(place)?;
                    self.connections[place].since = began;
                } else {
                    in_progress -= 1;
                }
            }
        }
        window.nanoseconds = start.elapsed().as_nanos() as u64;
        self.connections.clear();
        Ok(window)
    }

    fn open(&mut self) -> Result<()> {
        let socket = self.sources.connect(self.server)?;
        sockopt::set_socket_timeout(
            &socket,
            sockopt::Timeout::Recv,
            Some(Duration::from_secs(ANSWER_TIMEOUT_SECONDS)),
        )?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let data = epoll::EventData::new_u64(self.connections.len() as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        self.connections.push(LoadConnection { socket, sent: 0, awaited: 0, since: Instant::now() });
        Ok(())
    }

    /// Returns the next idle connection in turn.
    fn next_idle(&mut self) -> usize {
        loop {
            self.next = (self.next + 1) % self.connections.len();
            if self.connections[self.next].awaited == 0 {
                return self.next;
            }
        }
    }

    fn begin(&mut self, place: usize) -> Result<()> {
        let client = &mut self.connections[place];
        (client.sent, client.awaited, client.since) = (0, self.segment.len(), Instant::now());
        self.send(place)
    }

    /// Sends the rest of the segment. If the socket takes only a part, waits for writability.
    fn send(&mut self, place: usize) -> Result<()> {
        let client = &mut self.connections[place];
        match send(&client.socket, &self.segment[client.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => client.sent += count,
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(format!("sending: {error}").into()),
        }
        if client.sent < self.segment.len() {
            let data = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, &client.socket, data, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Handles an event. Returns `true` once the whole segment has come back.
    fn handle_event(&mut self, place: usize, ready: epoll::EventFlags) -> Result<bool> {
        if ready.contains(epoll::EventFlags::OUT) {
            let data = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, &self.connections[place].socket, data, epoll::EventFlags::IN)?;
            self.send(place)?;
        }
        if ready.difference(epoll::EventFlags::OUT).is_empty() {
            return Ok(false);
        }
        let client = &mut self.connections[place];
        let count = match recv(&client.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a connection".into()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(format!("receiving: {error}").into()),
        };
        client.awaited = client.awaited.checked_sub(count).ok_or("the server sent back more bytes than it received")?;
        Ok(client.awaited == 0)
    }

    fn wait(&mut self) -> Result<usize> {
        self.events.clear();
        epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&Timespec { tv_sec: ANSWER_TIMEOUT_SECONDS as i64, tv_nsec: 0 }),
        )?;
        if self.events.is_empty() {
            return Err(format!("no answer within {ANSWER_TIMEOUT_SECONDS} s").into());
        }
        Ok(self.events.len())
    }

    /// Sends on each of these connections a segment that begins with its number, and compares the
    /// answers. Blocks, with nothing else in flight.
    fn check(&mut self, places: Range<usize>) -> Result<()> {
        let mut segment = self.segment.clone();
        for place in places.clone() {
            mark(&mut segment, place);
            self.connections[place].send_all(&segment)?;
        }
        let mut answer = segment.clone();
        for place in places {
            mark(&mut segment, place);
            self.connections[place].receive_all(&mut answer).map_err(|error| format!("connection {place}: {error}"))?;
            if answer != segment {
                return Err(format!("connection {place} got other bytes back").into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LoadGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, connections) = (self.server, self.connections.len());
        f.debug_struct("LoadGenerator")
            .field("server", &server)
            .field("connections", &connections)
            .finish_non_exhaustive()
    }
}

impl LoadConnection {
    fn send_all(&self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            data = &data[send(&self.socket, data, SendFlags::NOSIGNAL)?..];
        }
        Ok(())
    }

    fn receive_all(&self, mut room: &mut [u8]) -> Result<()> {
        while !room.is_empty() {
            match recv(&self.socket, &mut *room, RecvFlags::empty())? {
                (0, _) => return Err("closed by the server".into()),
                (count, _) => room = &mut room[count..],
            }
        }
        Ok(())
    }
}

impl SourceAddresses {
    /// Starts at the loopback address with this number.
    pub fn new(first: u32) -> Self {
        Self { first, opened: 0 }
    }

    /// Returns a connected socket, bound to the next port that is free. Blocks.
    ///
    /// # Errors
    /// Returns the error of the system call.
    pub fn connect(&mut self, server: SocketAddr) -> Result<OwnedFd> {
        let mut tried = 0;
        loop {
            let ports = SOURCE_PORTS.end - SOURCE_PORTS.start;
            let source = loopback(self.first + (self.opened / ports) as u32, SOURCE_PORTS.start + self.opened % ports);
            self.opened += 1;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            match bind(&socket, &source).and_then(|()| connect(&socket, &server)) {
                Ok(()) => return Ok(socket),
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if tried < 100 => tried += 1,
                Err(error) => return Err(format!("connecting from {source} to {server}: {error}").into()),
            }
        }
    }
}

/// Writes a number at the start of a segment.
fn mark(segment: &mut [u8], number: usize) {
    for (byte, mark) in segment.iter_mut().zip(number.to_le_bytes()) {
        *byte = mark;
    }
}
