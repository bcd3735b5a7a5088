//! [`DatagramTransport`]: a datagram port, for its protocol and for code outside of it.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::rc::Rc;

use super::driver::{DatagramOption, DatagramValue};
use super::state::{DatagramCounts, DatagramState};
use crate::address::Address;
use crate::deferred::Deferred;
use crate::error::DatagramError;
use crate::failure::Result;

/// A datagram port (Twisted: `IUDPTransport`, `IUNIXDatagramTransport`,
/// `twisted.internet.udp.Port`). From [`Reactor::listen_udp`](crate::Reactor::listen_udp),
/// [`listen_unix_datagram`](crate::Reactor::listen_unix_datagram) and
/// [`connect_unix_datagram`](crate::Reactor::connect_unix_datagram).
///
/// It is a cheap handle: clones name the same port, and the port listens even if no handle is kept.
/// It lives on the reactor's thread. No method calls a protocol.
///
/// ```
/// use ropewalk::datagram::UdpOptions;
/// use ropewalk::interfaces::*;
/// use ropewalk::{Address, DatagramTransport, Reactor, Result};
///
/// struct Client(Reactor);
///
/// impl DatagramProtocol for Client {
///     fn datagram_received(&mut self, _: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
///         println!("{peer} says {data:?}");
///         self.0.stop()?;
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let socket = reactor.listen_udp("127.0.0.1:0".parse()?, &UdpOptions::new(), Client(reactor.clone()))?;
/// socket.connect(&socket.host())?;
/// socket.write_to_peer(b"hello")?;
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DatagramTransport(Rc<DatagramState>);

impl DatagramTransport {
    pub(crate) fn new(state: DatagramState) -> Self {
        Self(Rc::new(state))
    }

    pub(crate) fn state(&self) -> &DatagramState {
        &self.0
    }

    /// Sends a datagram (Twisted: `write(datagram, addr)`). It goes to the system at once, or is
    /// queued if the system takes none at present. Datagrams leave in the order of their writes.
    /// Over UNIX sockets that holds for each receiver, and a full one holds up no other.
    ///
    /// `Ok` means that the datagram is on its way, and not that it arrives. An empty datagram is
    /// sent like any other. On a port that is [connected](Self::connect), `to` must be its peer.
    ///
    /// # Errors
    /// The datagram is not sent, and the port goes on:
    /// - [`MessageTooLong`](DatagramError::MessageTooLong): beyond 65,507 bytes over IPv4, 65,527
    ///   over IPv6, or a lower limit of the system.
    /// - [`WrongFamily`](DatagramError::WrongFamily), [`OtherPeer`](DatagramError::OtherPeer),
    ///   [`Unnamed`](DatagramError::Unnamed).
    /// - [`QueueFull`](DatagramError::QueueFull): see [`set_queue_limit`](Self::set_queue_limit).
    /// - [`Send`](DatagramError::Send): the system refuses it. Over UNIX sockets, the receiver is
    ///   gone.
    /// - [`NotListening`](DatagramError::NotListening).
    pub fn write(&self, data: &[u8], to: &Address) -> Result<(), DatagramError> {
        self.0.write(data, Some(to))
    }

    /// Sends a datagram to the peer of a [connected](Self::connect) port (Twisted:
    /// `write(datagram)`). Otherwise as [`write`](Self::write).
    ///
    /// # Errors
    /// As `write`, and [`NotConnected`](DatagramError::NotConnected).
    pub fn write_to_peer(&self, data: &[u8]) -> Result<(), DatagramError> {
        self.0.write(data, None)
    }

    /// Gives the port a peer, once and for all (Twisted: `connect`). A UNIX socket has a method
    /// that [makes it connected](crate::Reactor::connect_unix_datagram). From now on the port
    /// receives from that address only, and the protocol is told when the peer
    /// [refuses](super::DatagramProtocol::connection_refused) a datagram. Datagrams that arrived
    /// before are still delivered.
    ///
    /// # Errors
    /// [`AlreadyConnected`](DatagramError::AlreadyConnected),
    /// [`WrongFamily`](DatagramError::WrongFamily), [`Connect`](DatagramError::Connect): there is
    /// no route, no UNIX socket of the name, or the loop [waits](crate::Reactor::is_waiting).
    pub fn connect(&self, peer: &Address) -> Result<(), DatagramError> {
        self.0.connect(peer)
    }

    /// Returns an IPv6 address on a network interface that is given by its name, such as a
    /// link-local one: `fe80::1` and `eth0` are `fe80::1%eth0`. The index of the interface becomes
    /// the scope of the address, so that [`write`](Self::write) takes it as it takes a peer's.
    /// (Twisted: `write` takes the text.) Linux only, as the name in [`MulticastInterface`].
    ///
    /// ```no_run
    /// # use ropewalk::{DatagramTransport, Result};
    /// # fn example(port: &DatagramTransport) -> Result<()> {
    /// let neighbour = port.address_on("[fe80::1]:5353".parse()?, "eth0")?;
    /// port.write(b"hello", &neighbour)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnknownInterface`](DatagramError::UnknownInterface),
    /// [`NotListening`](DatagramError::NotListening).
    ///
    /// [`MulticastInterface`]: super::MulticastInterface
    pub fn address_on(&self, mut address: SocketAddrV6, interface: &str) -> Result<Address, DatagramError> {
        address.set_scope_id(self.interface_index(interface)?);
        Ok(SocketAddr::V6(address).into())
    }

    /// Returns the address of the port (Twisted: `getHost`). A port on all addresses that is
    /// [connected](Self::connect) has the address from which it reaches its peer.
    pub fn host(&self) -> Address {
        self.0.ends().host()
    }

    /// Returns the peer of a [connected](Self::connect) port.
    pub fn peer(&self) -> Option<Address> {
        self.0.ends().peer().cloned()
    }

    /// Returns `true` until the port stops.
    pub fn is_listening(&self) -> bool {
        self.0.is_listening()
    }

    /// Stops the port (Twisted: `stopListening`). Nothing is received any more. Queued datagrams
    /// are dropped. The socket is closed when this returns, or when the loop no longer
    /// [waits](crate::Reactor::is_waiting).
    ///
    /// The Deferred fires after the protocol's
    /// [`stop_protocol`](super::DatagramProtocol::stop_protocol), and never before this returns. It
    /// fails with [`Panicked`](crate::failure::Panicked) if that panicked. Stopping twice is fine:
    /// both Deferreds fire. A port that has stopped does not listen again; make another.
    pub fn stop_listening(&self) -> Deferred<()> {
        self.0.stop()
    }

    /// Delivers nothing until [`resume_receiving`](Self::resume_receiving) (Twisted:
    /// `stopReading`). Datagrams wait in the system's buffer, and the system drops those for which
    /// it has no room.
    pub fn pause_receiving(&self) {
        self.0.set_paused(true);
    }

    /// Delivers again after [`pause_receiving`](Self::pause_receiving) (Twisted: `startReading`).
    pub fn resume_receiving(&self) {
        self.0.set_paused(false);
    }

    /// Sets the limit of the queue, in bytes. Each queued datagram counts 64 bytes more than it
    /// has. A datagram that would pass the limit is refused. Datagrams that are queued already
    /// stay. [`UdpOptions::queue_limit`](super::UdpOptions::queue_limit) has the default.
    pub fn set_queue_limit(&self, bytes: usize) {
        self.0.set_queue_limit(bytes);
    }

    /// Returns the size of the queue, counted as for its [limit](Self::set_queue_limit). It is zero
    /// unless the system takes no datagram at present.
    pub fn queued_bytes(&self) -> usize {
        self.0.queued_bytes()
    }

    /// Returns the largest number of bytes that are taken of one datagram
    /// ([`UdpOptions::max_packet_bytes`](super::UdpOptions::max_packet_bytes)).
    pub fn max_packet_bytes(&self) -> usize {
        self.0.max_packet()
    }

    /// Returns the numbers of this port.
    pub fn counts(&self) -> DatagramCounts {
        self.0.counts()
    }

    /// Permits datagrams to broadcast addresses, or forbids them (Twisted: `setBroadcastAllowed`;
    /// `SO_BROADCAST`). They are forbidden by default.
    ///
    /// # Errors
    /// As each option: [`NotListening`](DatagramError::NotListening), or
    /// [`SocketOption`](DatagramError::SocketOption) with the error of the system, or because the
    /// loop [waits](crate::Reactor::is_waiting).
    pub fn set_broadcast_allowed(&self, on: bool) -> Result<(), DatagramError> {
        self.set("set_broadcast_allowed", DatagramOption::Broadcast(on))
    }

    /// Returns `true` if datagrams to broadcast addresses are permitted (Twisted:
    /// `getBroadcastAllowed`).
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn broadcast_allowed(&self) -> Result<bool, DatagramError> {
        Ok(self.value("broadcast_allowed", DatagramValue::Broadcast)? != 0)
    }

    /// Sets the size of the system's receive buffer in bytes (`SO_RCVBUF`). The system has a
    /// minimum and a maximum, and uses the nearest size. Linux doubles the number, for its own
    /// records.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn set_receive_buffer_bytes(&self, bytes: u32) -> Result<(), DatagramError> {
        self.set("set_receive_buffer_bytes", DatagramOption::ReceiveBuffer(bytes))
    }

    /// Returns the size of the system's receive buffer in bytes, as the system reports it.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn receive_buffer_bytes(&self) -> Result<u32, DatagramError> {
        self.value("receive_buffer_bytes", DatagramValue::ReceiveBuffer)
    }

    /// Sets the size of the system's send buffer in bytes (`SO_SNDBUF`), as
    /// [`set_receive_buffer_bytes`](Self::set_receive_buffer_bytes) does for the other direction.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn set_send_buffer_bytes(&self, bytes: u32) -> Result<(), DatagramError> {
        self.set("set_send_buffer_bytes", DatagramOption::SendBuffer(bytes))
    }

    /// Returns the size of the system's send buffer in bytes, as the system reports it.
    ///
    /// # Errors
    /// As [`set_broadcast_allowed`](Self::set_broadcast_allowed).
    pub fn send_buffer_bytes(&self) -> Result<u32, DatagramError> {
        self.value("send_buffer_bytes", DatagramValue::SendBuffer)
    }

    pub(super) fn interface_index(&self, name: &str) -> Result<u32, DatagramError> {
        let index = self.0.driver()?.interface_index(name);
        index.map_err(|source| DatagramError::UnknownInterface { name: name.to_owned(), source })
    }

    pub(super) fn set(&self, name: &'static str, option: DatagramOption) -> Result<(), DatagramError> {
        let set = self.0.driver()?.set_option(self.0.id(), option);
        set.map_err(|source| DatagramError::SocketOption { option: name, source })
    }

    pub(super) fn value(&self, name: &'static str, option: DatagramValue) -> Result<u32, DatagramError> {
        let value = self.0.driver()?.option(self.0.id(), option);
        value.map_err(|source| DatagramError::SocketOption { option: name, source })
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramTransport")
            .field("host", &self.host())
            .field("peer", &self.peer())
            .field("listening", &self.is_listening())
            .finish_non_exhaustive()
    }
}
