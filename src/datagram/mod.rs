//! Datagrams: a [`DatagramProtocol`] for each port, and a [`DatagramTransport`] that sends
//! (Twisted: `IReactorUDP`, `IReactorMulticast`, `IReactorUNIXDatagram`, `IUDPTransport`,
//! `DatagramProtocol`).
//!
//! A datagram has boundaries, and no guarantee: it arrives whole, twice, late or not at all. So a
//! port has no connection to lose, and one protocol serves all its peers.
//!
//! | to | use |
//! |---|---|
//! | receive and send | [`Reactor::listen_udp`](crate::Reactor::listen_udp), [`DatagramTransport::write`] |
//! | the same over UNIX sockets | [`Reactor::listen_unix_datagram`](crate::Reactor::listen_unix_datagram) |
//! | talk to one peer | [`DatagramTransport::connect`], [`Reactor::connect_unix_datagram`](crate::Reactor::connect_unix_datagram) |
//! | reach many at once | [`DatagramTransport::join_group`], [`DatagramTransport::set_broadcast_allowed`] |
//! | bound what is taken and queued | [`UdpOptions`], [`UnixDatagramOptions`], [`DatagramTransport::counts`] |
//!
//! Nothing here makes a system call: the reactor does.

// | file | holds |
// |---|---|
// | `protocol.rs`, `transport.rs`, `multicast.rs`, `options.rs` | the interface |
// | `state.rs`, `ends.rs` | a port without I/O; its address, its peer and the addresses that it reaches |
// | `lanes.rs`, `queue.rs` | the bounded queues of a port, and one of them |
// | `joint.rs` | the only caller of a datagram protocol |
// | `driver.rs` | the requests to the reactor |

mod driver;
mod ends;
mod joint;
mod lanes;
mod multicast;
mod options;
mod protocol;
mod queue;
mod state;
mod transport;

pub(crate) use self::driver::{
    DatagramDriver, DatagramOption, DatagramSend, DatagramValue, Destination, InterfaceChoice,
};
pub(crate) use self::ends::Reach;
pub(crate) use self::joint::{DatagramJoint, Spent};
pub use self::multicast::MulticastInterface;
pub(crate) use self::options::DatagramSocketOptions;
pub use self::options::{UdpOptions, UnixDatagramOptions};
pub use self::protocol::DatagramProtocol;
pub(crate) use self::queue::DatagramQueue;
pub use self::state::DatagramCounts;
pub(crate) use self::state::{DatagramLimits, DatagramState};
pub use self::transport::DatagramTransport;
