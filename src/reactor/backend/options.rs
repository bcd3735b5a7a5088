//! Options of ports and of connecting sockets, in the form that a backend takes.

use std::net::SocketAddr;

use crate::policies::{ConnectionLimits, ConnectionPolicies};
use crate::transport::QueueLimit;

/// The default backlog: as many waiting connections as the system allows. The system cuts the
/// number down to its own limit (Linux: `net.core.somaxconn`). Twisted's 50 are too few for a burst
/// that meets a busy loop.
const BACKLOG: u32 = i32::MAX as u32;

/// The default permissions of a UNIX socket's file. 0o666, as Twisted: every user may connect.
const MODE: u32 = 0o666;

/// Options of a listening port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortOptions {
    pub(crate) backlog: u32,
    /// If `true`, an IPv6 address serves IPv6 peers only. `None` leaves it to the system.
    pub(crate) ipv6_only: Option<bool>,
    /// The name of the interface that an IPv6 address belongs to.
    pub(crate) scope: Option<String>,
    pub(crate) connections: ConnectionOptions,
    /// The permissions of a UNIX socket's file.
    pub(crate) mode: u32,
    /// If `true`, a lock file beside the socket's file is held.
    pub(crate) lock: bool,
    pub(crate) policies: PortPolicies,
}

/// The limits of a port's connections, and the policies with which they begin. No backend reads
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortPolicies {
    pub(crate) limits: ConnectionLimits,
    pub(crate) begin: ConnectionPolicies,
}

impl PortOptions {
    pub(crate) fn new() -> Self {
        let connections = ConnectionOptions::new();
        let policies = PortPolicies::default();
        Self { backlog: BACKLOG, ipv6_only: None, scope: None, connections, mode: MODE, lock: false, policies }
    }

    /// Returns the name of the first given option that applies to IPv6 only.
    pub(in crate::reactor) fn for_ipv6(&self) -> Option<&'static str> {
        let scope = self.scope.as_ref().map(|_| "scope");
        self.ipv6_only.map(|_| "ipv6_only").or(scope)
    }
}

/// Options of a connecting socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DialOptions {
    /// The local address to connect from.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) connection: ConnectionOptions,
}

impl DialOptions {
    pub(crate) fn new() -> Self {
        Self { from: None, connection: ConnectionOptions::new() }
    }
}

/// Initial options of a connection. A listening socket hands them on to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    /// Turns Nagle's algorithm off (TCP only).
    pub(crate) no_delay: bool,
    /// Shares the local address with other connections, finished or not (TCP only).
    pub(crate) reuse_address: bool,
    /// Shares the local address with other sockets that set this option (TCP only).
    pub(crate) reuse_port: bool,
    /// The sizes of the system's buffers, in bytes. `None` leaves them to the system.
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) send_buffer: Option<u32>,
    /// The bound on the queue of bytes that the system has not taken.
    pub(crate) queue_limit: Option<QueueLimit>,
}

impl ConnectionOptions {
    pub(super) fn new() -> Self {
        Self {
            no_delay: true,
            reuse_address: true,
            reuse_port: false,
            receive_buffer: None,
            send_buffer: None,
            queue_limit: None,
        }
    }
}
