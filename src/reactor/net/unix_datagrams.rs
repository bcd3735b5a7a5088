//! Datagram ports on UNIX sockets (Twisted: `IReactorUNIXDatagram`, `listenUNIXDatagram`,
//! `connectUNIXDatagram`). They share all but their addresses with those of UDP (`udp.rs`).
//!
//! | | UDP | a UNIX socket |
//! |---|---|---|
//! | the receiver is full | the datagram is lost | the datagram waits in a queue for this receiver |
//! | the receiver has no socket | the datagram is lost; a connected port is told | the write fails; a connected port is told too |
//! | a client without an address of its own | gets one from the system | has none: nothing can be sent to it |

use crate::address::UnixAddress;
use crate::datagram::{DatagramProtocol, DatagramTransport, UnixDatagramOptions};
use crate::error::{ConnectDatagramError, ListenError};
use crate::reactor::Reactor;

impl Reactor {
    /// Binds a UNIX socket for datagrams, and calls `protocol` for each of them (Twisted:
    /// `listenUNIXDatagram`).
    ///
    /// The socket is bound and the protocol started when this returns. The file of a path is
    /// removed when the port stops, and when the reactor closes, if it is still the file that the
    /// port has made. (Twisted leaves it behind.) An [unnamed](UnixAddress::unnamed) address makes
    /// a port that can send, and that nothing can be sent to. Otherwise as
    /// [`listen_udp`](Self::listen_udp).
    ///
    /// ```
    /// use ropewalk::address::UnixAddress;
    /// use ropewalk::datagram::UnixDatagramOptions;
    /// use ropewalk::interfaces::*;
    /// use ropewalk::{Address, DatagramTransport, Reactor, Result};
    ///
    /// struct Log;
    ///
    /// impl DatagramProtocol for Log {
    ///     fn datagram_received(&mut self, _: &DatagramTransport, data: &[u8], _: &Address) -> Result<()> {
    ///         println!("{}", String::from_utf8_lossy(data));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// # let path = std::env::temp_dir().join(format!("ropewalk-datagrams-{}.sock", std::process::id()));
    /// let reactor = Reactor::new()?;
    /// let options = UnixDatagramOptions::new().mode(0o600);
    /// let port = reactor.listen_unix_datagram(&UnixAddress::path(path)?, &options, Log)?;
    /// # drop(port);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ListenError`]: the path exists already, or cannot be made; another process holds its lock;
    /// `start_protocol` failed; the reactor is stopping or closed.
    pub fn listen_unix_datagram(
        &self,
        address: &UnixAddress,
        options: &UnixDatagramOptions,
        protocol: impl DatagramProtocol,
    ) -> Result<DatagramTransport, ListenError> {
        self.0.listen_datagrams(address.clone().into(), &options.socket, options.limits, Box::new(protocol))
    }

    /// Makes a datagram port that sends to one UNIX socket, and receives from it alone (Twisted:
    /// `connectUNIXDatagram`, with a `ConnectedDatagramProtocol`).
    ///
    /// `from` is the address of the port itself (Twisted: `bindAddress`), at which the peer can
    /// answer. [`UnixAddress::unnamed`] is none. The port is connected and the protocol started
    /// when this returns: [`write_to_peer`](DatagramTransport::write_to_peer) sends.
    ///
    /// The connection outlives a peer that is gone. A write to it fails, and the protocol is
    /// [told](DatagramProtocol::connection_refused). A later write reaches the socket that has the
    /// address by then.
    ///
    /// ```no_run
    /// use ropewalk::address::UnixAddress;
    /// use ropewalk::datagram::UnixDatagramOptions;
    /// # use ropewalk::interfaces::*;
    /// # use ropewalk::{Address, DatagramTransport, Reactor, Result};
    /// # struct Silent;
    /// # impl DatagramProtocol for Silent {
    /// #     fn datagram_received(&mut self, _: &DatagramTransport, _: &[u8], _: &Address) -> Result<()> { Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let (to, from) = (UnixAddress::path("/dev/log")?, UnixAddress::unnamed());
    /// let log = reactor.connect_unix_datagram(&to, &from, &UnixDatagramOptions::new(), Silent)?;
    /// log.write_to_peer(b"<13>hello")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectDatagramError`], where Twisted calls `connectionFailed` of the protocol. The
    /// protocol was not started then, unless its `start_protocol` failed.
    pub fn connect_unix_datagram(
        &self,
        to: &UnixAddress,
        from: &UnixAddress,
        options: &UnixDatagramOptions,
        protocol: impl DatagramProtocol,
    ) -> Result<DatagramTransport, ConnectDatagramError> {
        let (limits, protocol) = (options.limits, Box::new(protocol));
        let port = self.0.bind_datagrams(from.clone().into(), &options.socket, limits, protocol)?;
        if let Err(error) = port.connect(&to.clone().into()) {
            self.0.discard_datagrams(&port);
            return Err(error.into());
        }
        self.0.start_datagrams(&port)?;
        Ok(port)
    }
}
