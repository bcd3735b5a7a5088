//! [`DatagramProtocol`]: the callbacks of a datagram port.

use super::transport::DatagramTransport;
use crate::address::Address;
use crate::failure::Result;

/// Handles the events of one datagram port (Twisted: `DatagramProtocol`,
/// `ConnectedDatagramProtocol`).
///
/// The order of the callbacks is fixed: `start_protocol` once; the others any number of times;
/// `stop_protocol` once, last. Every callback runs to completion on the reactor's thread. None is
/// entered while another callback of the same protocol runs.
///
/// A callback that returns `Err` or panics is logged, with the address of the port, and the port
/// goes on: one bad datagram must not end the service of all other peers. Only `start_protocol`
/// ends its port by that.
///
/// ```
/// use ropewalk::interfaces::*;
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
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a datagram protocol",
    note = "write `impl DatagramProtocol for ..` with a `datagram_received`"
)]
pub trait DatagramProtocol: 'static {
    /// Called when the port is bound, before [`listen_udp`](crate::Reactor::listen_udp) and its
    /// like return (Twisted: `startProtocol`). Nothing was received yet. Join groups here, and
    /// connect.
    ///
    /// # Errors
    /// An `Err` closes the port, and the call that has made it fails with it.
    fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called with a whole datagram, which may be empty (Twisted: `datagramReceived`). The slice is
    /// borrowed for the call.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()>;

    /// Called with the first bytes of a datagram that is longer than
    /// [`UdpOptions::max_packet_bytes`](super::UdpOptions::max_packet_bytes), or its like for UNIX
    /// sockets. The others are lost.
    /// `length` is that of the whole datagram, where the system reports it (Linux).
    ///
    /// Such a datagram never goes to `datagram_received`, as it does in Twisted. The default
    /// implementation drops it. Each is counted
    /// ([`DatagramCounts::truncated`](super::DatagramCounts::truncated)), and the first of a port
    /// is logged.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn truncated_datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        length: Option<usize>,
        peer: &Address,
    ) -> Result<()> {
        let _ = (transport, data, length, peer);
        Ok(())
    }

    /// Called when the peer of a [connected](DatagramTransport::connect) port has no socket for our
    /// datagrams (Twisted: `connectionRefused`). The port goes on, and so does its connection: the
    /// peer may be there later. Several refusals may come to one call. Over a UNIX socket the write
    /// fails too, and a later one reaches the socket that has the peer's address by then.
    ///
    /// # Errors
    /// An `Err` is logged; see the trait.
    fn connection_refused(&mut self, transport: &DatagramTransport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called when the port has stopped and its socket is closed (Twisted: `stopProtocol`).
    fn stop_protocol(&mut self, transport: &DatagramTransport) {
        let _ = transport;
    }
}
