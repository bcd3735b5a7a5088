//! What each kind of thing that is watched remembers, and what comes of it when it is looked at.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use ::mio::{Interest, Registry};

use super::super::socket::{self, Accept, Receive};
use super::super::{Chunk, Completion, Incoming, IncomingSocket, RECEIVE};
use super::token;
use crate::address::Address;
use crate::reactor::unix::SocketFile;
use crate::transport::agenda::Id;

/// Connections accepted per port and turn. 64: a burst of 64 takes under a millisecond, so other connections barely notice.
const ACCEPTS: usize = 64;

/// Connections shed per turn when descriptors ran out. Closing is all that is done for them.
const SHED: usize = 1024;

pub(super) enum Source {
    Vacant,
    /// Boxed, for a port needs more room than a stream, of which there are more.
    Listener(Box<Listener>),
    /// An attempt, already remembering what is said of the stream that it may become.
    Connecting(Stream),
    Stream(Stream),
    /// Somebody else's descriptor.
    Watched,
}

pub(super) struct Listener {
    /// Removed before the socket is closed: nobody is to find a file that nobody listens behind.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    /// Our address of every connection, unless we listen on all.
    host: Option<Address>,
    /// There may be connections waiting.
    waiting: bool,
    /// Not suspended.
    accepting: bool,
    /// Accepted in this turn.
    accepted: usize,
    /// Which turn that is.
    turn: u32,
}

pub(super) struct Stream {
    pub(super) socket: OwnedFd,
    pub(super) receiving: bool,
    /// There may be something to receive.
    pub(super) readable: bool,
    /// The peer's end, or an error, was announced.
    hung_up: bool,
    /// An error was announced.
    failed: bool,
    /// The other end of a UNIX socket was closed: there are no resets that would say so.
    gone: bool,
    /// The peer's end was read.
    ended: bool,
    /// Somebody waits for room.
    blocked: bool,
    /// There may be room.
    writable: bool,
    /// Registered for writing.
    armed: bool,
    /// Descriptors may come.
    pub(super) unix: bool,
}

/// When a source is to be looked at again without being told to by the poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Rest,
    /// At once: it may have something else.
    Next,
    /// In the next turn: it had its share of this one.
    Again,
}

impl Source {
    /// What is next of this source, and when it is to be looked at after that.
    pub(super) fn next(
        &mut self,
        turn: u32,
        buffer: &mut Box<[u8]>,
        reserve: &mut Option<OwnedFd>,
    ) -> (Option<Completion>, Then) {
        match self {
            Self::Stream(stream) => stream.next(buffer),
            Self::Listener(listener) => listener.next(turn, reserve),
            Self::Connecting(_) => (self.next_connected(), Then::Rest),
            Self::Watched => (Some(Completion::Readable), Then::Rest),
            Self::Vacant => (None, Then::Rest),
        }
    }

    /// What became of an attempt, which a source is no longer after that.
    fn next_connected(&mut self) -> Option<Completion> {
        let Self::Connecting(attempt) = self else { return None };
        let outcome = socket::connected(attempt.socket.as_fd())?;
        let Self::Connecting(stream) = mem::replace(self, Self::Vacant) else { return None };
        Some(match outcome {
            Ok(host) => {
                *self = Self::Stream(stream);
                Completion::Connected(host)
            }
            Err(error) => Completion::ConnectFailed(error),
        })
    }
}

impl Listener {
    /// Accepting, nobody known to wait.
    pub(super) fn new(socket: OwnedFd, bound: &Address, file: Option<SocketFile>) -> Self {
        let on_all = bound.ip().is_some_and(|ip| ip.is_unspecified());
        let host = (!on_all).then(|| bound.clone());
        Self { _file: file, socket, host, waiting: false, accepting: true, accepted: 0, turn: 0 }
    }

    /// Accepts again after a failure; somebody may have come meanwhile.
    pub(super) fn resume(&mut self) {
        self.accepting = true;
        self.waiting = true;
    }

    /// Takes note that the poller said something.
    pub(super) fn note(&mut self) {
        self.waiting = true;
    }

    fn next(&mut self, turn: u32, reserve: &mut Option<OwnedFd>) -> (Option<Completion>, Then) {
        if mem::replace(&mut self.turn, turn) != turn {
            self.accepted = 0;
        }
        while self.waiting && self.accepting {
            if self.accepted == ACCEPTS {
                return (None, Then::Again);
            }
            self.accepted += 1;
            match socket::accept(self.socket.as_fd()) {
                Accept::Connection(socket, peer) => {
                    // Whoever has already gone again has no address at this end either.
                    let Ok(host) = self.host.clone().map_or_else(|| socket::local_address(&socket), Ok) else {
                        continue;
                    };
                    let socket = IncomingSocket::Descriptor { socket, unix: host.unix().is_some() };
                    return (Some(Completion::Accepted(Incoming { socket, host, peer })), Then::Next);
                }
                Accept::Empty => self.waiting = false,
                Accept::Skip => {}
                Accept::NoDescriptors => return self.shed(reserve),
                Accept::Failed(error) => {
                    self.accepting = false;
                    return (Some(Completion::AcceptFailed(error)), Then::Rest);
                }
            }
        }
        (None, Then::Rest)
    }

    /// Descriptors ran out: gives the reserve up to accept and close those who wait, and takes it back. Linux says so even
    /// when nobody waits, because it looks for a descriptor first.
    fn shed(&mut self, reserve: &mut Option<OwnedFd>) -> (Option<Completion>, Then) {
        let had_reserve = reserve.take().is_some();
        let mut shed = 0;
        while had_reserve && shed < SHED && self.waiting {
            match socket::accept(self.socket.as_fd()) {
                Accept::Connection(socket, _) => {
                    drop(socket);
                    shed += 1;
                }
                Accept::Skip => {}
                Accept::Empty => self.waiting = false,
                Accept::NoDescriptors | Accept::Failed(_) => break,
            }
        }
        *reserve = socket::reserve().ok();
        if shed == 0 && (reserve.is_none() || !had_reserve) {
            self.accepting = false;
            return (Some(Completion::AcceptFailed(rustix::io::Errno::MFILE.into())), Then::Rest);
        }
        ((shed > 0).then_some(Completion::Shed(shed)), if self.waiting { Then::Again } else { Then::Rest })
    }
}

impl Stream {
    /// An attempt: registered for both directions from the start, for the outcome is told as room for writing.
    pub(super) fn attempt(socket: OwnedFd, unix: bool) -> Self {
        Self { armed: true, ..Self::new(socket, unix) }
    }

    /// Registered for reading, nothing known.
    pub(super) fn new(socket: OwnedFd, unix: bool) -> Self {
        Self {
            socket,
            receiving: false,
            readable: false,
            hung_up: false,
            failed: false,
            gone: false,
            ended: false,
            blocked: false,
            writable: false,
            armed: false,
            unix,
        }
    }

    /// Takes note of what the poller said.
    pub(super) fn note(&mut self, event: &Event) {
        let hung_up = event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || hung_up;
        self.hung_up |= hung_up;
        self.failed |= event.is_error();
        self.gone |= self.unix && event.is_write_closed();
        self.writable |= event.is_writable();
    }

    fn next(&mut self, buffer: &mut Box<[u8]>) -> (Option<Completion>, Then) {
        if self.blocked && self.writable {
            self.blocked = false;
            return (Some(Completion::SendReady), Then::Next);
        }
        if self.receiving && self.readable {
            return self.receive(buffer);
        }
        if self.failed {
            // Not being read, or read to its end: reading would not say so.
            self.failed = false;
            return (socket::pending_error(self.socket.as_fd()).map(Completion::Broken), Then::Rest);
        }
        if self.gone && self.ended {
            // What it sent was read, and nobody would read what is sent to it.
            self.gone = false;
            return (Some(Completion::Broken(io::ErrorKind::BrokenPipe.into())), Then::Rest);
        }
        (None, Then::Rest)
    }

    fn receive(&mut self, buffer: &mut Box<[u8]>) -> (Option<Completion>, Then) {
        if buffer.is_empty() {
            // The last chunk was not released yet.
            *buffer = vec![0; RECEIVE].into_boxed_slice();
        }
        self.readable = false;
        let mut descriptors = Vec::new();
        let received = match self.unix {
            false => socket::receive(self.socket.as_fd(), buffer),
            true => socket::receive_attached(self.socket.as_fd(), buffer, &mut descriptors),
        };
        match received {
            Receive::Bytes(filled) if !self.hung_up => {
                (Some(Completion::Received(Chunk::of(buffer, filled))), Then::Rest)
            }
            Receive::Full(filled) | Receive::Bytes(filled) => {
                self.readable = true;
                (Some(Completion::Received(Chunk::of(buffer, filled).with(descriptors))), Then::Again)
            }
            Receive::End => {
                self.ended = true;
                // A reset may have come behind the end: it is told in the next turn, if the connection lasts as long.
                let more = self.failed || self.gone;
                (Some(Completion::EndOfStream), if more { Then::Again } else { Then::Rest })
            }
            Receive::Empty => (None, Then::Rest),
            Receive::Starved => {
                self.readable = true;
                (None, Then::Again)
            }
            Receive::Failed(error) => (Some(Completion::Broken(error)), Then::Rest),
        }
    }

    /// Waits for room: the next edge says so.
    pub(super) fn block(&mut self, registry: &Registry, id: Id) -> io::Result<()> {
        self.blocked = true;
        self.writable = false;
        if !mem::replace(&mut self.armed, true) {
            let descriptor = self.socket.as_raw_fd();
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.reregister(&mut SourceFd(&descriptor), token(id), both)?;
        }
        Ok(())
    }
}
