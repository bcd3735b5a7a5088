//! mio's poller, with the system calls of an echo in the frame of the loop.
//!
//! Registers sockets through mio, edge-triggered, as the peer `mio` does, and keeps unsent bytes in
//! the same way. Waits, receives and sends with rustix, on mio's own epoll descriptor and on the
//! sockets. rustix inlines these calls, and the path of an echo is inlined into [`run`]. So no
//! return crosses a system call between two waits: a disassembly of `run` shows it.
//!
//! mio itself cannot do that: `Poll::poll`, and `Read` and `Write` of its sockets, end in functions
//! of libc. The two peers differ by the functions of mio, std and libc around the same system
//! calls. Accepting and closing have functions of their own, because they are no part of an echo.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::{CHUNK_BYTES, listener, print_ready};
use crate::Result;

/// Event flags after which a receive returns bytes, an end or an error.
const RECEIVABLE: EventFlags = EventFlags::IN.union(EventFlags::HUP).union(EventFlags::ERR);

/// Event flags after which there may be no further edge, so that receiving continues until nothing
/// is left.
const LAST: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

struct Server {
    listener: TcpListener,
    /// Indexed by descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
}

struct Connection {
    socket: OwnedFd,
    rest: Vec<u8>,
}

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, "")?;
    let poll = Poll::new()?;
    register(poll.registry(), &listener, Interest::READABLE)?;
    let buffer = vec![0; CHUNK_BYTES].into_boxed_slice();
    run(poll.registry(), Server { listener, connections: Vec::new(), buffer })
}

/// Runs the loop. Never inlined, so that the disassembly has it under its name.
#[inline(never)]
fn run(registry: &Registry, mut server: Server) -> Result<Infallible> {
    let (epoll, own) = (registry.as_fd(), token(&server.listener));
    let mut events = Vec::with_capacity(1024);
    loop {
        match epoll::wait(epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() as usize {
                token if token == own.0 => server.accept(registry)?,
                index => server.serve(index, event.flags),
            }
        }
    }
}

fn register(registry: &Registry, socket: &impl AsRawFd, interest: Interest) -> Result<()> {
    Ok(registry.register(&mut SourceFd(&socket.as_raw_fd()), token(socket), interest)?)
}

fn token(socket: &impl AsRawFd) -> Token {
    Token(socket.as_raw_fd() as usize)
}

impl Server {
    #[inline(never)]
    fn accept(&mut self, registry: &Registry) -> Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            register(registry, &socket, Interest::READABLE | Interest::WRITABLE)?;
            let Token(index) = token(&socket);
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { socket, rest: Vec::new() });
        }
    }

    #[inline(always)]
    fn serve(&mut self, index: usize, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        if !connection.on_event(flags, &mut self.buffer) {
            self.close(index);
        }
    }

    /// Closes the socket, which removes it from epoll.
    #[inline(never)]
    fn close(&mut self, index: usize) {
        self.connections[index] = None;
    }
}

impl Connection {
    /// Receives and echoes. Returns `true` if the connection stays open.
    #[inline(always)]
    fn on_event(&mut self, flags: EventFlags, buffer: &mut [u8]) -> bool {
        if !self.rest.is_empty() {
            if !self.flush() {
                return false;
            }
            if !self.rest.is_empty() {
                return true;
            }
            // Edges of bytes that arrived meanwhile were not used, so the socket is read here.
        } else if !flags.intersects(RECEIVABLE) {
            return true;
        }
        loop {
            let count = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((count, _)) => count,
                Err(error) => return error == Errno::AGAIN,
            };
            let sent = match send(&self.socket, &buffer[..count], SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(_) => return false,
            };
            if sent < count {
                self.keep(&buffer[sent..count]);
                return true;
            }
            // A receive that does not fill the buffer has drained the socket: more bytes are
            // another edge.
            if count < buffer.len() && !flags.intersects(LAST) {
                return true;
            }
        }
    }

    #[inline(never)]
    fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
    }

    /// Sends the kept bytes. Returns `true` if the connection stays open.
    #[inline(never)]
    fn flush(&mut self) -> bool {
        match send(&self.socket, &self.rest, SendFlags::NOSIGNAL) {
            Ok(count) => drop(self.rest.drain(..count)),
            Err(error) => return error == Errno::AGAIN,
        }
        true
    }
}
