//! mio used directly, as its documentation shows: edge-triggered, with one shared buffer.
//!
//! A read that does not fill the buffer has drained the socket. Bytes that a socket does not take
//! are kept until it is writable again.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{CHUNK_BYTES, listener, print_ready};
use crate::Result;

struct Server {
    poll: Poll,
    listener: TcpListener,
    /// Indexed by descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
}

struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, "")?;
    let buffer = vec![0; CHUNK_BYTES].into_boxed_slice();
    let listener = TcpListener::from_std(listener);
    let mut server = Server { poll: Poll::new()?, listener, connections: Vec::new(), buffer };
    let own = Token(server.listener.as_raw_fd() as usize);
    server.poll.registry().register(&mut server.listener, own, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                token if token == own => server.accept()?,
                token => server.serve(token.0, event),
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let index = stream.as_raw_fd() as usize;
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { stream, unsent: Vec::new() });
        }
    }

    fn serve(&mut self, index: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        if connection.on_event(event, &mut self.buffer).is_err() {
            self.connections[index] = None;
        }
    }
}

impl Connection {
    fn on_event(&mut self, event: &Event, buffer: &mut [u8]) -> std::io::Result<()> {
        let had_unsent = !self.unsent.is_empty();
        if had_unsent {
            let sent = would_block(self.stream.write(&self.unsent))?;
            self.unsent.drain(..sent);
        }
        // A connection that read nothing while it kept bytes gets no second edge for the bytes that
        // have arrived, so it is read here.
        if (!event.is_readable() && !had_unsent) || !self.unsent.is_empty() {
            return Ok(());
        }
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            };
            let sent = would_block(self.stream.write(&buffer[..count]))?;
            if sent < count {
                self.unsent.extend_from_slice(&buffer[sent..count]);
                return Ok(());
            }
            if count < buffer.len() && !event.is_read_closed() {
                return Ok(());
            }
        }
    }
}

/// Returns the number of written bytes, which is 0 if the write would block.
fn would_block(written: std::io::Result<usize>) -> std::io::Result<usize> {
    match written {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
