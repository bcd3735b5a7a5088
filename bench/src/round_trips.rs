//! A client that makes one round trip after the other: it sends a request, waits for the whole
//! answer, and sends again.
//!
//! The client blocks, with Nagle's algorithm off. While a socket does not take the whole request,
//! the client waits for both directions at once: a server whose echo is not read could stop
//! reading.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use rustls::{ClientConfig, ClientConnection};

use crate::{Result, tls};

/// Timeout for each step of a round trip. The run fails after it.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

impl Client {
    /// Connects, over TLS if there is a configuration for it.
    ///
    /// # Errors
    /// Fails if the connection or the handshake fails.
    pub fn connect(server: SocketAddr, config: Option<Arc<ClientConfig>>) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        let mut socket = Socket(stream);
        let tls = match config {
            Some(config) => {
                let mut session = ClientConnection::new(config, tls::NAME.try_into()?)?;
                session.set_buffer_limit(None);
                while session.is_handshaking() {
                    session.complete_io(&mut socket)?;
                }
                Some(Box::new(session))
            }
            None => None,
        };
        Ok(Self { socket, tls })
    }

    /// Sends a request and fills `answer`. Returns the time from just before the first byte was
    /// sent to the last byte received.
    ///
    /// # Errors
    /// Fails if the connection ends, or if the server is silent for too long.
    pub fn round_trip(&mut self, request: &[u8], answer: &mut [u8]) -> Result<Duration> {
        let begun = Instant::now();
        let (mut unsent, mut received) = (request, 0);
        let mut is_sent = self.send(&mut unsent)?;
        while received < answer.len() {
            if is_sent || self.socket.wait_for_either()? {
                received += self.receive(&mut answer[received..])?;
            }
            is_sent = is_sent || self.send(&mut unsent)?;
        }
        let took = begun.elapsed();
        if is_sent { Ok(took) } else { Err("the answer arrived before the whole request was sent".into()) }
    }

    /// Sends as much as the socket takes. Returns `true` once everything is sent.
    fn send(&mut self, data: &mut &[u8]) -> Result<bool> {
        loop {
            let sent = match &mut self.tls {
                Some(session) => {
                    session.writer().write_all(std::mem::take(data))?;
                    if !session.wants_write() {
                        return Ok(true);
                    }
                    session.write_tls(&mut self.socket).map(|_| ())
                }
                None if data.is_empty() => return Ok(true),
                None => self.socket.write(data).map(|count| *data = &data[count..]),
            };
            match sent {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                sent => sent?,
            }
        }
    }

    /// Receives once from the socket. Returns the number of bytes, which is 0 while a TLS record is
    /// incomplete.
    fn receive(&mut self, room: &mut [u8]) -> Result<usize> {
        let Some(session) = &mut self.tls else { return Ok(self.socket.read(room)?) };
        session.read_tls(&mut self.socket)?;
        session.process_new_packets()?;
        let mut filled = 0;
        while filled < room.len() {
            match session.reader().read(&mut room[filled..]) {
                Ok(0) => return Err("the server ended TLS".into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }
}

/// Socket with blocking reads, which fail if the peer closes, and non-blocking writes.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    /// Waits until the socket is readable or writable. Returns `true` if it is readable.
    fn wait_for_either(&self) -> Result<bool> {
        let mut ready = [PollFd::new(&self.0, PollFlags::IN | PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::try_from(STEP_TIMEOUT)?))? == 0 {
            return Err(format!("the server took nothing within {STEP_TIMEOUT:?}").into());
        }
        Ok(ready[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.0.read(room) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, format!("no answer within {STEP_TIMEOUT:?}")))
            }
            result => result,
        }
    }
}

impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
