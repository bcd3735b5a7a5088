//! [`UdpOptions`]: the options of a UDP port.

use super::state::DatagramLimits;

/// The default of the largest packet, and the most. 64 KiB: more than any UDP datagram has.
/// (Twisted: 8,192.)
const MAX_PACKET_BYTES: usize = 64 * 1024;

/// The default limit of the queue. 256 KiB: somewhat more than Linux' own default buffer, which is
/// full before anything is queued.
const QUEUE_BYTES: usize = 256 * 1024;

/// Options of a UDP port, for [`Reactor::listen_udp`](crate::Reactor::listen_udp) (Twisted: the
/// arguments of `listenUDP` and `listenMulticast`).
///
/// ```
/// use ropewalk::datagram::UdpOptions;
///
/// let small = UdpOptions::new().max_packet_bytes(512).receive_buffer_bytes(1 << 20);
/// let one_of_several_listeners = UdpOptions::new().reuse_address(true);
/// # drop((small, one_of_several_listeners));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpOptions {
    pub(crate) limits: DatagramLimits,
    pub(crate) socket: DatagramSocketOptions,
}

/// The options that the socket needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DatagramSocketOptions {
    /// If `true`, an IPv6 address serves IPv6 peers only. `None` leaves it to the system.
    pub(crate) ipv6_only: Option<bool>,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) broadcast: bool,
    /// The sizes of the system's buffers, in bytes. `None` leaves them to the system.
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) send_buffer: Option<u32>,
}

impl UdpOptions {
    /// Default options: datagrams of any length, and an address of its own.
    pub fn new() -> Self {
        let limits = DatagramLimits { max_packet: MAX_PACKET_BYTES, queue: QUEUE_BYTES, collects: false };
        Self { limits, socket: DatagramSocketOptions::default() }
    }

    /// Sets the largest number of bytes that are taken of one datagram (Twisted: `maxPacketSize`).
    /// The default is 64 KiB, which no UDP datagram exceeds. A longer datagram goes to
    /// [`truncated_datagram_received`](super::DatagramProtocol::truncated_datagram_received).
    ///
    /// Larger sizes count as 64 KiB. The ports of a reactor share one receive buffer, of the
    /// largest of their sizes.
    pub fn max_packet_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_packet = bytes.min(MAX_PACKET_BYTES);
        self
    }

    /// Sets the limit of the queue of datagrams that the system does not take, in bytes. The
    /// default is 256 KiB. Each queued datagram counts 64 bytes more than it has. At the limit,
    /// [`write`](crate::DatagramTransport::write) fails.
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.limits.queue = bytes;
        self
    }

    /// Collects what callbacks of `datagram_received` write, and sends it when the datagrams of the
    /// turn are delivered, up to 64 in one system call (`sendmmsg`, Linux). Off by default. It
    /// saves a busy server a system call for each answer.
    ///
    /// The price is the error of the system, which is known only when
    /// [`write`](crate::DatagramTransport::write) has returned. Such datagrams are counted
    /// ([`DatagramCounts::failed`](super::DatagramCounts::failed)), and the first is logged. Errors
    /// of the address and of the length are returned as ever. A write that finds the queue full
    /// sends it first. Writes outside of these callbacks leave at once.
    pub fn collect_writes(mut self, on: bool) -> Self {
        self.limits.collects = on;
        self
    }

    /// Serves only IPv6 peers (`true`), or IPv4 peers too (`false`), on the address `[::]`
    /// (`IPV6_V6ONLY`). By default the system decides. IPv4 peers have
    /// [IPv4 addresses](crate::Address) here. On an IPv4 address, listening fails with
    /// [`NotIpv6`](crate::error::ListenError::NotIpv6).
    pub fn ipv6_only(mut self, on: bool) -> Self {
        self.socket.ipv6_only = Some(on);
        self
    }

    /// Shares the address with other sockets that set this (`SO_REUSEADDR`; Twisted:
    /// `listenMultiple`). Off by default. Each of them gets every datagram to the multicast groups
    /// that it has joined. Other datagrams go to one of them, which the system chooses.
    ///
    /// On BSD and Apple's systems, [`reuse_port`](Self::reuse_port) is needed in its place.
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.socket.reuse_address = on;
        self
    }

    /// Shares the address with other sockets of the same user that set this (`SO_REUSEPORT`). Off
    /// by default. On Linux the system spreads datagrams over them by the peers' addresses, so
    /// several processes can serve one port.
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.socket.reuse_port = on;
        self
    }

    /// Permits datagrams to broadcast addresses from the start: see
    /// [`set_broadcast_allowed`](crate::DatagramTransport::set_broadcast_allowed).
    pub fn broadcast(mut self, on: bool) -> Self {
        self.socket.broadcast = on;
        self
    }

    /// Sets the size of the system's receive buffer in bytes, before the port is bound: see
    /// [`set_receive_buffer_bytes`](crate::DatagramTransport::set_receive_buffer_bytes).
    pub fn receive_buffer_bytes(mut self, bytes: u32) -> Self {
        self.socket.receive_buffer = Some(bytes);
        self
    }

    /// Sets the size of the system's send buffer in bytes: see
    /// [`set_send_buffer_bytes`](crate::DatagramTransport::set_send_buffer_bytes).
    pub fn send_buffer_bytes(mut self, bytes: u32) -> Self {
        self.socket.send_buffer = Some(bytes);
        self
    }
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self::new()
    }
}
