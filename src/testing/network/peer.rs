//! The test as somebody's peer: sockets of a simulated network that belong to no reactor.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::kernel::{Kernel, SocketId};
use crate::address::Address;

/// The other end of a connection, played by the test. What it is told to do happens at once; what comes of it, when the
/// network is driven on. Dropped, it stays open until the network goes: [`close`](Self::close) or [`abort`](Self::abort) it.
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
    /// Not answered yet.
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

    /// Whether the connection was made.
    pub fn is_connected(&self) -> bool {
        self.stream().is_ok()
    }

    /// Sends bytes, as many as the network takes, and says how many that were.
    ///
    /// # Errors
    /// The connection is not made, or was refused. After a reset the first call fails with `ConnectionReset`, later ones with `BrokenPipe`.
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

    /// Sends a byte out of band (`MSG_OOB`), and returns how many the network took: 1, or 0 if the window is full. A receive stops in
    /// front of the byte, which is dropped then; another urgent byte before that puts it in line.
    ///
    /// # Errors
    /// As [`write`](Self::write). Over UNIX sockets there is no such thing.
    pub fn write_urgent(&self, byte: u8) -> io::Result<usize> {
        let stream = self.stream()?;
        let mut kernel = self.kernel.borrow_mut();
        let count = kernel.send_urgent(stream, byte)?;
        kernel.writes(stream, 0, &[byte][..count]);
        kernel.sends(stream, &[byte][..count]);
        Ok(count)
    }

    /// Everything that came since the last call. Not reading fills the window, as a slow reader does.
    pub fn read(&self) -> Vec<u8> {
        let Ok(stream) = self.stream() else { return Vec::new() };
        let mut kernel = self.kernel.borrow_mut();
        let mut data = vec![0; kernel.state(stream).0];
        let count = kernel.read(stream, &mut data);
        data.truncate(count);
        kernel.gives(stream, 0, &data);
        data
    }

    /// Whether the other end has said that nothing more will come. What came before may be unread.
    pub fn is_ended(&self) -> bool {
        self.stream().is_ok_and(|stream| self.kernel.borrow().state(stream).1)
    }

    /// Whether the connection was reset by the other end.
    pub fn is_reset(&self) -> bool {
        self.stream().is_ok_and(|stream| self.kernel.borrow().state(stream).2)
    }

    /// Says that nothing more will come, and goes on reading.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn shut_down(&self) -> io::Result<()> {
        let stream = self.stream()?;
        self.kernel.borrow_mut().shut_down(stream);
        Ok(())
    }

    /// Closes. What is unread makes that a reset, as with real sockets.
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

    /// The stream, once the attempt was answered.
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

/// An attempt of a reactor to connect, which waits for the test's answer. From [`Network::attempts`](super::Network::attempts).
/// Dropped, it is never answered.
pub struct PendingAttempt {
    kernel: Rc<RefCell<Kernel>>,
    attempt: SocketId,
    to: Address,
}

impl PendingAttempt {
    pub(super) fn new(kernel: &Rc<RefCell<Kernel>>, attempt: SocketId, to: Address) -> Self {
        Self { kernel: Rc::clone(kernel), attempt, to }
    }

    /// Where it wants to go.
    pub fn to(&self) -> &Address {
        &self.to
    }

    /// Accepts it, and plays the other end. `None` if it was given up meanwhile.
    pub fn accept(self) -> Option<Peer> {
        let stream = self.kernel.borrow_mut().join(self.attempt, super::kernel::Owner::TEST)?;
        Some(Peer::of(&self.kernel, stream))
    }

    /// Refuses it.
    pub fn refuse(self) {
        self.fail(io::ErrorKind::ConnectionRefused);
    }

    /// Fails it with any error.
    pub fn fail(self, kind: io::ErrorKind) {
        self.kernel.borrow_mut().answer(self.attempt, Err(kind));
    }
}

impl fmt::Debug for PendingAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAttempt").field("to", &self.to).finish_non_exhaustive()
    }
}
