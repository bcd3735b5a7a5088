//! Datagrams: a [`DatagramProtocol`] for each port, and a [`DatagramTransport`] that sends
//! (Twisted: `IReactorUDP`, `IReactorMulticast`, `IUDPTransport`, `DatagramProtocol`).
//!
//! A datagram has boundaries, and no guarantee: it arrives whole, twice, late or not at all. So a
//! port has no connection to lose, and one protocol serves all its peers.
//!
//! | to | use |
//! |---|---|
//! | receive and send | [`Reactor::listen_udp`](crate::Reactor::listen_udp), [`DatagramTransport::write`] |
//! | talk to one peer | [`DatagramTransport::connect`] |
//! | reach many at once | [`DatagramTransport::join_group`], [`DatagramTransport::set_broadcast_allowed`] |
//! | bound what is taken and queued | [`UdpOptions`], [`DatagramTransport::counts`] |
//!
//! Nothing here makes a system call: the reactor does. UNIX datagram sockets do not exist yet.

// | file | holds |
// |---|---|
// | `protocol.rs`, `transport.rs`, `multicast.rs`, `options.rs` | the interface |
// | `state.rs`, `queue.rs` | a port without I/O, and its bounded queue |
// | `joint.rs` | the only caller of a datagram protocol |
// | `driver.rs` | the requests to the reactor |

mod driver;
mod joint;
mod multicast;
mod options;
mod protocol;
mod queue;
mod state;
mod transport;

pub(crate) use self::driver::{DatagramDriver, DatagramOption, DatagramSend, DatagramValue, InterfaceChoice};
pub(crate) use self::joint::{DatagramJoint, Spent};
pub use self::multicast::MulticastInterface;
pub(crate) use self::options::DatagramSocketOptions;
pub use self::options::UdpOptions;
pub use self::protocol::DatagramProtocol;
pub(crate) use self::queue::DatagramQueue;
pub use self::state::DatagramCounts;
pub(crate) use self::state::DatagramState;
pub use self::transport::DatagramTransport;
