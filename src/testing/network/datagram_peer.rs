//! Datagram sockets played by the test, without a reactor.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::kernel::{Kernel, SocketId};
use crate::datagram::{DatagramSend, Destination};

/// Bytes that a peer takes of a datagram: more than any UDP datagram has.
const ROOM_BYTES: usize = 64 * 1024;

/// A datagram socket that the test plays. From
/// [`Network::datagram_peer`](super::Network::datagram_peer). Its drop closes it.
///
/// ```
/// use ropewalk::datagram::UdpOptions;
/// use ropewalk::interfaces::*;
/// use ropewalk::testing::MemoryReactor;
/// use ropewalk::{Address, DatagramTransport, Result};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
///         transport.write(data, peer)?;
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let memory = MemoryReactor::new();
/// let port = memory.reactor().listen_udp("0.0.0.0:7".parse()?, &UdpOptions::new(), Echo)?;
/// assert_eq!(memory.datagram_ports(), [port.host()]);
/// let peer = memory.datagram_peer()?;
/// let server = "192.0.2.80:7".parse()?;
/// peer.send_to(b"hello", server)?;
/// memory.settle()?;
/// assert_eq!(peer.receive(), Some((b"hello".to_vec(), server)));
/// assert_eq!(peer.receive(), None);
/// # Ok(())
/// # }
/// ```
pub struct DatagramPeer {
    kernel: Rc<RefCell<Kernel>>,
    socket: SocketId,
    address: SocketAddr,
}

impl DatagramPeer {
    pub(super) fn new(kernel: &Rc<RefCell<Kernel>>, socket: SocketId, address: SocketAddr) -> Self {
        Self { kernel: Rc::clone(kernel), socket, address }
    }

    /// Returns the address of the socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram. It arrives when the network is driven.
    ///
    /// # Errors
    /// `WouldBlock`: the send buffer is full. `InvalidInput`: the datagram is too long. Others as
    /// Linux has them.
    pub fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.kernel.borrow_mut().send_datagram(self.socket, data, Destination::Inet(to)) {
            DatagramSend::Sent => Ok(()),
            DatagramSend::Full | DatagramSend::Starved | DatagramSend::Waits => Err(io::ErrorKind::WouldBlock.into()),
            DatagramSend::TooLong => Err(io::Error::new(io::ErrorKind::InvalidInput, "the datagram is too long")),
            DatagramSend::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            DatagramSend::Failed(error) => Err(error),
        }
    }

    /// Takes the next datagram that has arrived, with its sender.
    pub fn receive(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut data = vec![0; ROOM_BYTES];
        let received = self.kernel.borrow_mut().take_datagram(self.socket, &mut data)?;
        data.truncate(received.filled);
        Some((data, received.peer.socket_addr()?))
    }
}

impl Drop for DatagramPeer {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close(self.socket, false);
    }
}

impl fmt::Debug for DatagramPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramPeer").field("address", &self.address).finish_non_exhaustive()
    }
}
