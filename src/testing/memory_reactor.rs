//! A reactor for tests that play all of its peers.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::network::{DatagramPeer, Network, Peer, PendingAttempt, SimulationError};
use crate::address::Address;
use crate::log::error;
use crate::reactor::Reactor;

/// A reactor alone on an ideal simulated network, for tests of a server or a client whose peers the
/// test plays (Twisted: `MemoryReactor`, `MemoryReactorClock`).
///
/// It records the ports on which the program listens, and its attempts to connect. An attempt waits
/// until the test accepts or refuses it. Time is virtual. It is a [`Network`] with one
/// [`reactor`](Self::reactor); [`network`](Self::network) gives access to everything else.
///
/// ```
/// use ropewalk::endpoints::client_from_string;
/// use ropewalk::interfaces::*;
/// use ropewalk::testing::MemoryReactor;
/// use ropewalk::{Result, Transport};
///
/// struct Greeter;
///
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         transport.write(b"hello");
///         Ok(())
///     }
///
///     fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
///         transport.lose_connection();
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let memory = MemoryReactor::new();
/// let connecting = client_from_string(memory.reactor(), "tcp:198.51.100.7:80")?.connect(|_| Some(Greeter));
/// let attempt = memory.attempts().remove(0);
/// assert_eq!(attempt.to().to_string(), "198.51.100.7:80");
/// let server = attempt.accept().expect("it was not given up");
/// memory.settle()?;
/// assert_eq!(server.read(), b"hello");
/// server.write(b"go away")?;
/// memory.settle()?;
/// assert!(server.is_ended());
/// # drop(connecting);
/// # Ok(())
/// # }
/// ```
pub struct MemoryReactor {
    network: Network,
    reactor: Reactor,
}

impl MemoryReactor {
    /// Creates an unused reactor, at 127.0.0.1 and [`HOST`](Self::HOST).
    pub fn new() -> Self {
        let network = Network::new(0);
        network.answer_by_hand();
        let reactor = network.reactor(Self::HOST);
        Self { network, reactor }
    }

    /// The address of the reactor's host. It is one of those reserved for documentation.
    pub const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 80));

    /// Returns the reactor, to be given to the program.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Returns the network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the addresses on which the program listens (Twisted: `tcpServers`), the oldest
    /// first.
    pub fn ports(&self) -> Vec<Address> {
        self.network.ports(&self.reactor)
    }

    /// Returns the addresses of the program's datagram ports (Twisted: `udpPorts`), the oldest
    /// first.
    pub fn datagram_ports(&self) -> Vec<Address> {
        self.network.datagram_ports(&self.reactor)
    }

    /// Makes a datagram socket that the test plays, on a host of its own, 192.0.2.1.
    ///
    /// # Errors
    /// `AddrInUse`: all ports of that host are taken.
    pub fn datagram_peer(&self) -> io::Result<DatagramPeer> {
        self.network.datagram_peer(([192, 0, 2, 1], 0).into())
    }

    /// Connects to a port of the program, as a client that the test plays.
    ///
    /// # Errors
    /// [`SimulationError::Reactor`].
    pub fn connect(&self, port: u16) -> Result<Peer, SimulationError> {
        let peer = self.network.connect(SocketAddr::new(Self::HOST, port));
        self.network.settle()?;
        Ok(peer)
    }

    /// Returns the program's attempts to connect that have no answer yet (Twisted: `tcpClients`),
    /// the oldest first.
    pub fn attempts(&self) -> Vec<PendingAttempt> {
        // Requests of the program are still under way. On an ideal network that takes no time.
        if let Err(error) = self.network.settle() {
            error!(%error, "the reactor failed");
        }
        self.network.attempts()
    }

    /// Runs until nothing is under way. Does not wait for pending timers.
    ///
    /// # Errors
    /// [`SimulationError::Reactor`].
    pub fn settle(&self) -> Result<(), SimulationError> {
        self.network.settle()
    }

    /// Advances the time. Everything due happens at its own moment (Twisted: `advance`).
    ///
    /// # Errors
    /// [`SimulationError::Reactor`].
    pub fn advance(&self, by: Duration) -> Result<(), SimulationError> {
        self.network.run_for(by)
    }
}

impl Default for MemoryReactor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReactor").field("ports", &self.ports()).finish_non_exhaustive()
    }
}
