//! A client that sends, waits until all of the answer is there, and sends again: one round trip after the other.
//!
//! It blocks, with Nagle's algorithm off. Only while a socket does not take the whole of what is sent does it wait for both directions
//! at once: an echo that is not read could stop its server from reading.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use rustls::{ClientConfig, ClientConnection};

use crate::{Result, tls};

/// How long a step of a round trip may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);

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
    /// The connection or the handshake fails.
    pub fn connect(server: SocketAddr, config: Option<Arc<ClientConfig>>) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
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

    /// Sends a request and fills `answer`. Returns the time from before the first byte was sent until the last was received.
    ///
    /// # Errors
    /// The connection ends, or the server stays silent for too long.
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
        if is_sent { Ok(took) } else { Err("the answer came before the whole request was sent".into()) }
    }

    /// Sends as much as the socket takes, and returns whether that was the last of it.
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

    /// Receives once from the socket, and returns the number of bytes: none if a record of TLS is not whole yet.
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

/// A socket whose reads block, and end by an error if the peer closes; its writes take what fits.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    /// Waits until it can be read or written, and returns whether it can be read.
    fn wait_for_either(&self) -> Result<bool> {
        let mut ready = [PollFd::new(&self.0, PollFlags::IN | PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::try_from(PATIENCE)?))? == 0 {
            return Err(format!("the server took nothing within {PATIENCE:?}").into());
        }
        Ok(ready[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.0.read(room) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")))
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
