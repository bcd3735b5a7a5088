//! [`UdpOptions`] and [`UnixDatagramOptions`]: the options of datagram ports.

use super::state::DatagramLimits;

/// The default of the largest packet, and the most for UDP. 64 KiB: more than any UDP datagram has.
/// (Twisted: 8,192.)
const MAX_PACKET_BYTES: usize = 64 * 1024;

/// The most for a UNIX socket. 1 MiB: more than Linux' own limits of a send buffer permit.
const MOST_UNIX_PACKET_BYTES: usize = 1024 * 1024;

/// The default permissions of a UNIX socket's file. 0o666, as Twisted: every user may send.
const MODE: u32 = 0o666;

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
    /// The name of the interface that an IPv6 address belongs to.
    pub(crate) scope: Option<String>,
}

/// The options that the socket needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatagramSocketOptions {
    /// If `true`, an IPv6 address serves IPv6 peers only. `None` leaves it to the system.
    pub(crate) ipv6_only: Option<bool>,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) broadcast: bool,
    /// If `true`, the system carries runs of datagrams as one.
    pub(crate) segmentation_offload: bool,
    /// The sizes of the system's buffers, in bytes. `None` leaves them to the system.
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) send_buffer: Option<u32>,
    /// The permissions of a UNIX socket's file.
    pub(crate) mode: u32,
    /// If `true`, a lock file beside the socket's file is held.
    pub(crate) lock: bool,
}

impl DatagramSocketOptions {
    pub(crate) fn new() -> Self {
        Self {
            ipv6_only: None,
            reuse_address: false,
            reuse_port: false,
            broadcast: false,
            segmentation_offload: false,
            receive_buffer: None,
            send_buffer: None,
            mode: MODE,
            lock: false,
        }
    }
}

/// The limits with which a port begins.
const LIMITS: DatagramLimits =
    DatagramLimits { max_packet: MAX_PACKET_BYTES, queue: QUEUE_BYTES, coalesces: false, collects: false };

impl UdpOptions {
    /// Default options: datagrams of any length, and an address of its own.
    pub fn new() -> Self {
        Self { limits: LIMITS, socket: DatagramSocketOptions::new(), scope: None }
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

    /// Lets the system carry runs of datagrams as one: those of one length, from one peer or to one
    /// (`UDP_GRO`, `UDP_SEGMENT`, Linux 5.0). Off by default. A port that exchanges many datagrams
    /// with few peers, as QUIC does, then takes a fraction of the CPU time.
    ///
    /// Nothing else changes: datagrams are delivered one by one, with their lengths, and leave so.
    /// On the way out, only queued datagrams make a run: [`collect_writes`](Self::collect_writes)
    /// as well. Runs that a device or a path does not take leave as single datagrams.
    ///
    /// Listening fails if the system has no such option. On a simulated network it has no effect.
    pub fn segmentation_offload(mut self, on: bool) -> Self {
        self.limits.coalesces = on;
        self.socket.segmentation_offload = on;
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

    /// Sets the network interface that an IPv6 address belongs to, by its name: `eth0` of
    /// `fe80::1%eth0` (Twisted: a part of `interface`). The name is looked up when the port is
    /// bound, and replaces the scope number of the address.
    ///
    /// Listening fails with [`UnknownInterface`](crate::error::ListenError::UnknownInterface) if
    /// there is no such interface, and on other systems than Linux, which do not look up names. It
    /// fails with [`NotIpv6`](crate::error::ListenError::NotIpv6) on an IPv4 address.
    /// [`DatagramTransport::address_on`](crate::DatagramTransport::address_on) makes such an
    /// address for a peer.
    pub fn scope(mut self, interface: impl Into<String>) -> Self {
        self.scope = Some(interface.into());
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

/// Options of a datagram port on a UNIX socket, for
/// [`Reactor::listen_unix_datagram`](crate::Reactor::listen_unix_datagram) and
/// [`Reactor::connect_unix_datagram`](crate::Reactor::connect_unix_datagram) (Twisted: the
/// arguments of `listenUNIXDatagram` and `connectUNIXDatagram`).
///
/// ```
/// use ropewalk::datagram::UnixDatagramOptions;
///
/// let private = UnixDatagramOptions::new().mode(0o600).want_pid(true);
/// # drop(private);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixDatagramOptions {
    pub(crate) limits: DatagramLimits,
    pub(crate) socket: DatagramSocketOptions,
}

impl UnixDatagramOptions {
    /// Default options: packets of up to 64 KiB, mode 0o666, no lock.
    pub fn new() -> Self {
        Self { limits: LIMITS, socket: DatagramSocketOptions::new() }
    }

    /// Sets the largest number of bytes that are taken of one datagram (Twisted: `maxPacketSize`).
    /// The default is 64 KiB. A longer datagram goes to
    /// [`truncated_datagram_received`](super::DatagramProtocol::truncated_datagram_received).
    ///
    /// Larger sizes than 1 MiB count as that. The ports of a reactor share one receive buffer, with
    /// room for 64 datagrams of the largest of their sizes. The system provides the memory that
    /// datagrams are written to.
    pub fn max_packet_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_packet = bytes.min(MOST_UNIX_PACKET_BYTES);
        self
    }

    /// Sets the limit of the queues of datagrams that the system does not take, in bytes, as
    /// [`UdpOptions::queue_limit`] does. The queues of all full receivers count together.
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.limits.queue = bytes;
        self
    }

    /// Sets the permissions of the socket's file, which decide who may send. The umask does not
    /// apply. An abstract name has no permissions.
    pub fn mode(mut self, mode: u32) -> Self {
        self.socket.mode = mode & 0o7777;
        self
    }

    /// Holds a lock while listening, as
    /// [`UnixListenOptions::want_pid`](crate::reactor::UnixListenOptions::want_pid) does. The file
    /// of a socket is replaced if the holder of its lock has died. (Twisted has no lock for
    /// datagram sockets.)
    pub fn want_pid(mut self, lock: bool) -> Self {
        self.socket.lock = lock;
        self
    }

    /// Sets the size of the system's send buffer in bytes, which also bounds the length of a
    /// datagram: see
    /// [`set_send_buffer_bytes`](crate::DatagramTransport::set_send_buffer_bytes).
    pub fn send_buffer_bytes(mut self, bytes: u32) -> Self {
        self.socket.send_buffer = Some(bytes);
        self
    }
}

impl Default for UnixDatagramOptions {
    fn default() -> Self {
        Self::new()
    }
}
