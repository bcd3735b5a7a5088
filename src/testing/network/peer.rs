//! Peers played by the test: sockets of a simulated network without a reactor.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::kernel::{Kernel, SocketId};
use crate::address::Address;

/// The other end of a connection, played by the test.
///
/// Its operations happen at once. Their effects follow when the network is driven. A dropped peer
/// stays open until the network is dropped: [`close`](Self::close) or [`abort`](Self::abort) it.
///
/// ```
/// use ropewalk::testing::Network;
/// use ropewalk::{ListenOptions, Protocol, Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let network = Network::new(1);
/// let reactor = network.reactor("10.0.0.1".parse()?);
/// reactor.listen_tcp("0.0.0.0:7".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
/// let peer = network.connect("10.0.0.1:7".parse()?);
/// network.settle()?;
/// peer.write(b"hello")?;
/// network.settle()?;
/// assert_eq!(peer.read(), b"hello");
/// # Ok(())
/// # }
/// ```
pub struct Peer {
    kernel: Rc<RefCell<Kernel>>,
    socket: RefCell<PeerSocket>,
}

enum PeerSocket {
    /// The attempt has no answer yet.
    Attempt(SocketId),
    Stream(SocketId),
    Refused(io::ErrorKind),
}

impl Peer {
    pub(super) fn attempt(kernel: &Rc<RefCell<Kernel>>, attempt: SocketId) -> Self {
        Self { kernel: Rc::clone(kernel), socket: RefCell::new(PeerSocket::Attempt(attempt)) }
    }

    pub(super) fn of(kernel: &Rc<RefCell<Kernel>>, stream: SocketId) -> Self {
        Self { kernel: Rc::clone(kernel), socket: RefCell::new(PeerSocket::Stream(stream)) }
    }

    /// Returns `true` if the connection was made.
    pub fn is_connected(&self) -> bool {
        self.stream().is_ok()
    }

    /// Sends as many bytes as the network takes, and returns their number.
    ///
    /// # Errors
    /// Fails if the connection is not made yet, or was refused. After a reset the first call fails
    /// with `ConnectionReset`, later ones with `BrokenPipe`.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        let mut sent = 0;
        let mut kernel = self.kernel.borrow_mut();
        while sent < data.len() {
            let count = kernel.send(stream, &data[sent..])?;
            if count == 0 {
                break;
            }
            kernel.writes(stream, 0, &data[sent..sent + count]);
            kernel.sends(stream, &data[sent..sent + count]);
            sent += count;
        }
        Ok(sent)
    }

    /// Sends a byte out of band (`MSG_OOB`), and returns the number of bytes taken: 1, or 0 if the
    /// window is full. A receive stops in front of the byte, and drops it. A second urgent byte
    /// before that turns the first into an ordinary byte.
    ///
    /// # Errors
    /// Like [`write`](Self::write). UNIX sockets have no bytes out of band.
    pub fn write_urgent(&self, byte: u8) -> io::Result<usize> {
        let stream = self.stream()?;
        let mut kernel = self.kernel.borrow_mut();
        let count = kernel.send_urgent(stream, byte)?;
        kernel.writes(stream, 0, &[byte][..count]);
        kernel.sends(stream, &[byte][..count]);
        Ok(count)
    }

    /// Returns all bytes received since the last call. Not reading fills the window, as a slow
    /// reader does.
    pub fn read(&self) -> Vec<u8> {
        let Ok(stream) = self.stream() else { return Vec::new() };
        let mut kernel = self.kernel.borrow_mut();
        let mut data = vec![0; kernel.state(stream).0];
        let count = kernel.read(stream, &mut data);
        data.truncate(count);
        kernel.gives(stream, 0, &data);
        data
    }

    /// Returns `true` if the other end's end of stream has arrived. Bytes before it may be unread.
    pub fn is_ended(&self) -> bool {
        self.stream().is_ok_and(|stream| self.kernel.borrow().state(stream).1)
    }

    /// Returns `true` if the other end has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.stream().is_ok_and(|stream| self.kernel.borrow().state(stream).2)
    }

    /// Ends this direction. Reading goes on.
    ///
    /// # Errors
    /// Like [`write`](Self::write).
    pub fn shut_down(&self) -> io::Result<()> {
        let stream = self.stream()?;
        self.kernel.borrow_mut().shut_down(stream);
        Ok(())
    }

    /// Closes the connection. Unread bytes turn the close into a reset, as with real sockets.
    pub fn close(self) {
        self.end(false);
    }

    /// Resets the connection.
    pub fn abort(self) {
        self.end(true);
    }

    fn end(&self, reset: bool) {
        let mut kernel = self.kernel.borrow_mut();
        match *self.socket.borrow() {
            PeerSocket::Attempt(id) | PeerSocket::Stream(id) => kernel.close(id, reset),
            PeerSocket::Refused(_) => {}
        }
    }

    /// Returns the stream, once the attempt was answered.
    fn stream(&self) -> io::Result<SocketId> {
        let mut socket = self.socket.borrow_mut();
        if let PeerSocket::Attempt(attempt) = *socket
            && let Some(outcome) = self.kernel.borrow_mut().take_outcome(attempt)
        {
            *socket = outcome.map_or_else(PeerSocket::Refused, PeerSocket::Stream);
        }
        match *socket {
            PeerSocket::Stream(stream) => Ok(stream),
            PeerSocket::Attempt(_) => Err(io::ErrorKind::NotConnected.into()),
            PeerSocket::Refused(kind) => Err(kind.into()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// A reactor's attempt to connect, waiting for the test's answer. From
/// [`Network::attempts`](super::Network::attempts). A dropped one is never answered.
pub struct PendingAttempt {
    kernel: Rc<RefCell<Kernel>>,
    attempt: SocketId,
    to: Address,
}

impl PendingAttempt {
    pub(super) fn new(kernel: &Rc<RefCell<Kernel>>, attempt: SocketId, to: Address) -> Self {
        Self { kernel: Rc::clone(kernel), attempt, to }
    }

    /// Returns the address to which the reactor connects.
    pub fn to(&self) -> &Address {
        &self.to
    }

    /// Accepts the attempt, and plays the other end. Returns `None` if the attempt was given up
    /// meanwhile.
    pub fn accept(self) -> Option<Peer> {
        let stream = self.kernel.borrow_mut().join(self.attempt, super::kernel::Owner::TEST)?;
        Some(Peer::of(&self.kernel, stream))
    }

    /// Refuses the attempt.
    pub fn refuse(self) {
        self.fail(io::ErrorKind::ConnectionRefused);
    }

    /// Fails the attempt with any error.
    pub fn fail(self, kind: io::ErrorKind) {
        self.kernel.borrow_mut().answer(self.attempt, Err(kind));
    }
}

impl fmt::Debug for PendingAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAttempt").field("to", &self.to).finish_non_exhaustive()
    }
}
