//! The baseline, `peers/epoll.c`, in Rust: the smallest server on epoll.
//!
//! Level-triggered, with one shared buffer: one connection after the other is read and then
//! written. Bytes that a socket does not take are kept, and the connection waits for writability
//! and reads nothing meanwhile. Its system calls are inlined, where those of the baseline go
//! through libc. The difference between the two is the cost of that.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::{CHUNK_BYTES, listener, print_ready};
use crate::Result;

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// Indexed by descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
}

struct Connection {
    socket: OwnedFd,
    unsent: Vec<u8>,
}

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, "")?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, token(&listener), EventFlags::IN)?;
    let buffer = vec![0; CHUNK_BYTES].into_boxed_slice();
    let mut server = Server { epoll, listener, connections: Vec::new(), buffer };
    let own = server.listener.as_raw_fd() as u64;
    let mut events = Vec::with_capacity(1024);
    loop {
        match epoll::wait(&server.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                token if token == own => server.accept()?,
                token => server.serve(token as usize, event.flags)?,
            }
        }
    }
}

fn token(socket: &impl AsRawFd) -> EventData {
    EventData::new_u64(socket.as_raw_fd() as u64)
}

impl Server {
    fn accept(&mut self) -> Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            epoll::add(&self.epoll, &socket, token(&socket), EventFlags::IN)?;
            let index = socket.as_raw_fd() as usize;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { socket, unsent: Vec::new() });
        }
    }

    fn serve(&mut self, index: usize, flags: EventFlags) -> Result<()> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let is_open = if flags.contains(EventFlags::OUT) {
            connection.flush(&self.epoll)?
        } else {
            connection.echo(&self.epoll, &mut self.buffer)?
        };
        if !is_open {
            // Dropping the connection closes the socket, which removes it from epoll.
            self.connections[index] = None;
        }
        Ok(())
    }
}

impl Connection {
    /// Receives and echoes. Returns `true` if the connection stays open.
    fn echo(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) -> Result<bool> {
        let data = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((count, _)) => &buffer[..count],
            Err(error) => return Ok(error == Errno::AGAIN),
        };
        let sent = match send(&self.socket, data, SendFlags::NOSIGNAL) {
            Ok(count) => count,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Ok(false),
        };
        if sent < data.len() {
            self.unsent.extend_from_slice(&data[sent..]);
            epoll::modify(epoll, &self.socket, token(&self.socket), EventFlags::OUT)?;
        }
        Ok(true)
    }

    /// Sends the kept bytes. Returns `true` if the connection stays open.
    fn flush(&mut self, epoll: &OwnedFd) -> Result<bool> {
        match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
            Ok(count) => drop(self.unsent.drain(..count)),
            Err(error) => return Ok(error == Errno::AGAIN),
        }
        if self.unsent.is_empty() {
            epoll::modify(epoll, &self.socket, token(&self.socket), EventFlags::IN)?;
        }
        Ok(true)
    }
}
