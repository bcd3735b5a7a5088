//! The load generator: connections that send, and wait to be answered with the same bytes.
//!
//! The loop is closed: a connection sends a segment of so many messages, and the next one when that has come back. So a slow server is
//! asked less, and never has a queue. Every run ends when all that was sent has been answered: the server sleeps before and after.

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

/// How many seconds an answer may take before the run is given up.
const PATIENCE: u64 = 20;

/// So many connections are asked at once while answers are compared.
const CHECKED: usize = 64;

/// Connections to one server.
pub struct Load {
    server: SocketAddr,
    sources: Sources,
    depth: usize,
    segment: Vec<u8>,
    buffer: Vec<u8>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    clients: Vec<Client>,
    next: usize,
}

/// Where connections come from: one port of a loopback address after the other, and then those of the next address. The system itself
/// would have to look for one that is free, which takes milliseconds when most are waiting for their time to pass.
#[derive(Debug)]
pub struct Sources {
    first: u32,
    opened: u64,
}

/// The ports of every source address.
const PORTS: Range<u64> = 10_000..30_000;

/// One connection.
struct Client {
    socket: OwnedFd,
    sent: usize,
    /// How much of what was sent is still to come back; 0 if nothing is under way.
    awaited: usize,
    since: Instant,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Window {
    /// Messages that were answered.
    pub messages: u64,
    /// From the first that was sent to the last answer.
    pub nanoseconds: u64,
    /// How long each segment took to come back.
    pub latency: Histogram,
}

/// When a run sends nothing more.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so much time.
    Time(Duration),
    /// After so many segments.
    Segments(u64),
}

impl Load {
    /// For a server: messages of `size` bytes, `depth` of them a segment. The first source address has this number.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(server: SocketAddr, size: usize, depth: usize, first_source: u32) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            server,
            sources: Sources::new(first_source),
            depth,
            segment: vec![7; size * depth],
            buffer: vec![0; 64 << 10],
            epoll,
            events: Vec::with_capacity(1024),
            clients: Vec::new(),
            next: 0,
        })
    }

    /// Opens connections until there are so many, each of which sends a segment of its own and compares what comes back.
    ///
    /// # Errors
    /// A connection can't be opened, or is not answered, or with something else.
    pub fn grow(&mut self, count: usize) -> Result<()> {
        while self.clients.len() < count {
            let number = self.clients.len();
            self.open()?;
            // Few enough that none waits long to be accepted.
            if (number + 1).is_multiple_of(CHECKED) || number + 1 == count {
                self.check(number / CHECKED * CHECKED..number + 1)?;
            }
        }
        Ok(())
    }

    /// Has every connection send a segment of its own, and compares.
    ///
    /// # Errors
    /// As [`grow`](Self::grow).
    pub fn check_all(&mut self) -> Result<()> {
        let count = self.clients.len();
        (0..count).step_by(CHECKED).try_for_each(|first| self.check(first..count.min(first + CHECKED)))
    }

    /// Sends and receives. So many segments are under way at a time: if these are fewer than there are connections, connections have their
    /// turn one after the other; otherwise each sends again as soon as it is answered.
    ///
    /// # Errors
    /// A connection is not answered.
    pub fn echo(&mut self, until: Until, in_flight: usize) -> Result<Window> {
        let (start, mut window) = (Instant::now(), Window::default());
        let mut left = match until {
            Until::Segments(count) => count,
            Until::Time(_) => u64::MAX,
        };
        let in_turn = in_flight < self.clients.len();
        let mut busy = in_flight.min(self.clients.len()).min(left.try_into().unwrap_or(usize::MAX));
        for place in 0..busy {
            let client = if in_turn { self.in_turn() } else { place };
            self.begin(client)?;
            left -= 1;
        }
        while busy > 0 {
            for index in 0..self.wait()? {
                let event = self.events[index];
                let place = event.data.u64() as usize;
                if !self.go_on(place, event.flags)? {
                    continue;
                }
                let now = Instant::now();
                window.messages += self.depth as u64;
                window.latency.record((now - self.clients[place].since).as_nanos() as u64);
                let more = left > 0 && !matches!(until, Until::Time(time) if now - start >= time);
                if more {
                    left -= 1;
                    let client = if in_turn { self.in_turn() } else { place };
                    self.begin(client)?;
                } else {
                    busy -= 1;
                }
            }
        }
        window.nanoseconds = start.elapsed().as_nanos() as u64;
        Ok(window)
    }

    /// Has all connections send at the same time, and waits for all answers, so many times.
    ///
    /// # Errors
    /// As [`echo`](Self::echo).
    pub fn rounds(&mut self, rounds: u64) -> Result<Window> {
        let (start, mut all) = (Instant::now(), Window::default());
        for _ in 0..rounds {
            let window = self.echo(Until::Segments(self.clients.len() as u64), self.clients.len())?;
            all.messages += window.messages;
            all.latency.merge(&window.latency);
        }
        all.nanoseconds = start.elapsed().as_nanos() as u64;
        Ok(all)
    }

    /// Connects, sends one segment, waits for it to come back, and closes; so many at a time, with none of the other connections open.
    ///
    /// # Errors
    /// As [`echo`](Self::echo).
    pub fn churn(&mut self, time: Duration, at_once: usize) -> Result<Window> {
        let (start, mut window) = (Instant::now(), Window::default());
        self.clients.clear();
        for place in 0..at_once {
            self.open()?;
            self.begin(place)?;
        }
        let mut busy = at_once;
        while busy > 0 {
            for index in 0..self.wait()? {
                let event = self.events[index];
                let place = event.data.u64() as usize;
                if !self.go_on(place, event.flags)? {
                    continue;
                }
                let now = Instant::now();
                window.messages += 1;
                window.latency.record((now - self.clients[place].since).as_nanos() as u64);
                if now - start < time {
                    let began = Instant::now();
                    self.open()?;
                    // The new one takes the place of the old, which is closed.
                    self.clients.swap_remove(place);
                    let data = epoll::EventData::new_u64(place as u64);
                    epoll::modify(&self.epoll, &self.clients[place].socket, data, epoll::EventFlags::IN)?;
                    self.begin(place)?;
                    self.clients[place].since = began;
                } else {
                    busy -= 1;
                }
            }
        }
        window.nanoseconds = start.elapsed().as_nanos() as u64;
        self.clients.clear();
        Ok(window)
    }

    fn open(&mut self) -> Result<()> {
        let socket = self.sources.connect(self.server)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(PATIENCE)))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let data = epoll::EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        self.clients.push(Client { socket, sent: 0, awaited: 0, since: Instant::now() });
        Ok(())
    }

    /// The next one in turn that has nothing under way.
    fn in_turn(&mut self) -> usize {
        loop {
            self.next = (self.next + 1) % self.clients.len();
            if self.clients[self.next].awaited == 0 {
                return self.next;
            }
        }
    }

    fn begin(&mut self, place: usize) -> Result<()> {
        let client = &mut self.clients[place];
        (client.sent, client.awaited, client.since) = (0, self.segment.len(), Instant::now());
        self.send(place)
    }

    /// Sends what is left of the segment; if the socket takes less, it says when it takes more.
    fn send(&mut self, place: usize) -> Result<()> {
        let client = &mut self.clients[place];
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

    /// Does what can be done, and says whether all of the segment is back now.
    fn go_on(&mut self, place: usize, ready: epoll::EventFlags) -> Result<bool> {
        if ready.contains(epoll::EventFlags::OUT) {
            let data = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, &self.clients[place].socket, data, epoll::EventFlags::IN)?;
            self.send(place)?;
        }
        if ready.difference(epoll::EventFlags::OUT).is_empty() {
            return Ok(false);
        }
        let client = &mut self.clients[place];
        let count = match recv(&client.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a connection".into()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(format!("receiving: {error}").into()),
        };
        client.awaited = client.awaited.checked_sub(count).ok_or("the server sent more than it was sent")?;
        Ok(client.awaited == 0)
    }

    fn wait(&mut self) -> Result<usize> {
        self.events.clear();
        epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&Timespec { tv_sec: PATIENCE as i64, tv_nsec: 0 }),
        )?;
        if self.events.is_empty() {
            return Err(format!("no answer within {} s", PATIENCE).into());
        }
        Ok(self.events.len())
    }

    /// Has these send a segment that begins with their number, and compares. They wait; nothing else is under way.
    fn check(&mut self, places: Range<usize>) -> Result<()> {
        let mut segment = self.segment.clone();
        for place in places.clone() {
            mark(&mut segment, place);
            self.clients[place].send_all(&segment)?;
        }
        let mut answer = segment.clone();
        for place in places {
            mark(&mut segment, place);
            self.clients[place].receive_all(&mut answer).map_err(|error| format!("connection {place}: {error}"))?;
            if answer != segment {
                return Err(format!("connection {place} was answered with something else").into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, connections) = (self.server, self.clients.len());
        f.debug_struct("Load").field("server", &server).field("connections", &connections).finish_non_exhaustive()
    }
}

impl Client {
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

impl Sources {
    /// From the loopback address of this number on.
    pub fn new(first: u32) -> Self {
        Self { first, opened: 0 }
    }

    /// A socket that is connected, from the next port; or from one of the next, where these are taken. It blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(&mut self, server: SocketAddr) -> Result<OwnedFd> {
        let mut tried = 0;
        loop {
            let ports = PORTS.end - PORTS.start;
            let source = loopback(self.first + (self.opened / ports) as u32, PORTS.start + self.opened % ports);
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

/// Puts a number where a segment begins.
fn mark(segment: &mut [u8], number: usize) {
    for (byte, mark) in segment.iter_mut().zip(number.to_le_bytes()) {
        *byte = mark;
    }
}
