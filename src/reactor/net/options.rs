//! Options of ports and of connection attempts: [`ListenOptions`], [`ConnectOptions`], and those of
//! UNIX sockets.
//!
//! | | a port | a connection attempt |
//! |---|---|---|
//! | TCP | [`ListenOptions`] | [`ConnectOptions`] |
//! | UNIX sockets | [`UnixListenOptions`] | [`UnixConnectOptions`] |
//! | in backends | `PortOptions` | `DialOptions` |
//! | options with which each connection begins | `ConnectionOptions` | the same |

use std::net::{SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::address::unmapped;
use crate::policies::{ConnectionLimits, ConnectionPolicies};
use crate::reactor::backend::{ConnectionOptions, DialOptions, PortOptions, PortPolicies};
use crate::transport::QueueLimit;

/// The default timeout of an attempt: 30 s, as in Twisted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The setters of the options with which any connection begins, over TCP and UNIX sockets.
macro_rules! connection_setters {
    ($($field:ident).+) => {
        /// Sets the size of the receive buffer in bytes (`SO_RCVBUF`), before the port listens or
        /// the attempt begins. So the window that is offered to the peer follows it. Accepted
        /// connections have the same size.
        ///
        /// The system has a minimum and a maximum (Linux: `net.core.rmem_max`), uses the nearest
        /// size, and no longer adjusts the buffer by itself. Linux doubles the number for its own
        /// records, and reports the doubled one.
        pub fn receive_buffer_bytes(mut self, bytes: u32) -> Self {
            self.$($field).+.receive_buffer = Some(bytes);
            self
        }

        /// Sets the size of the send buffer in bytes (`SO_SNDBUF`; Linux: `net.core.wmem_max`), as
        /// [`receive_buffer_bytes`](Self::receive_buffer_bytes) does for the other direction.
        pub fn send_buffer_bytes(mut self, bytes: u32) -> Self {
            self.$($field).+.send_buffer = Some(bytes);
            self
        }

        /// Bounds the bytes that wait for a peer that does not read: sets the
        /// [queue limit](crate::Transport::set_queue_limit) with which connections begin. No limit
        /// by default.
        pub fn queue_limit(mut self, limit: QueueLimit) -> Self {
            self.$($field).+.queue_limit = Some(limit);
            self
        }

        pub(crate) fn connections(&mut self) -> &mut ConnectionOptions {
            &mut self.$($field).+
        }
    };
}

/// The setters of the options of ports.
macro_rules! port_setters {
    () => {
        /// Limits the connections of the port: in all, of one peer, accepted in a second. No limits
        /// by default.
        pub fn limits(mut self, limits: ConnectionLimits) -> Self {
            self.port.policies.limits = limits;
            self
        }

        /// Sets the policies with which connections of the port begin: limits of time, rates, a log
        /// of traffic. None by default. A total rate is that of the port.
        pub fn policies(mut self, policies: ConnectionPolicies) -> Self {
            self.port.policies.begin = policies;
            self
        }

        pub(crate) fn port_policies(&mut self) -> &mut PortPolicies {
            &mut self.port.policies
        }
    };
}

/// The setters of the options of TCP sockets.
macro_rules! tcp_setters {
    ($($field:ident).+) => {
        /// Turns Nagle's algorithm off (`true`) or on (`false`) for connections (`TCP_NODELAY`). It
        /// is off by default. Everything written in a turn leaves together, so the algorithm saves
        /// nothing. It would hold back the last part of a message until the peer has acknowledged
        /// the part before.
        pub fn tcp_no_delay(mut self, on: bool) -> Self {
            self.$($field).+.no_delay = on;
            self
        }

        /// Shares the local address with other sockets of the same user that also set this
        /// (`SO_REUSEPORT`). Then several reactors or processes can listen on one port, and the
        /// system spreads new connections over them. Off by default.
        pub fn reuse_port(mut self, on: bool) -> Self {
            self.$($field).+.reuse_port = on;
            self
        }
    };
}

/// Options of a listening TCP port, for [`Reactor::listen_tcp`](crate::Reactor::listen_tcp).
///
/// ```
/// use ropewalk::ListenOptions;
/// use ropewalk::transport::QueueLimit;
///
/// let options = ListenOptions::new().backlog(1024).queue_limit(QueueLimit::abort(8 << 20));
/// let one_of_several_processes = ListenOptions::new().reuse_port(true);
/// # drop((options, one_of_several_processes));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    pub(in crate::reactor) port: PortOptions,
}

impl ListenOptions {
    /// Default options: as many waiting connections as the system allows, and Nagle's algorithm
    /// off.
    pub fn new() -> Self {
        Self { port: PortOptions::new() }
    }

    /// Sets the number of connections that may wait to be accepted. The system has a limit of its
    /// own.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.port.backlog = backlog;
        self
    }

    /// Serves only IPv6 peers (`true`), or IPv4 peers too (`false`), on an IPv6 address
    /// (`IPV6_V6ONLY`).
    ///
    /// By default the system decides, as in Twisted (Linux: `net.ipv6.bindv6only`, which admits
    /// both unless it was changed). IPv4 peers reach only the address `[::]`, and have
    /// [IPv4 addresses](crate::Address) here. On an IPv4 address, listening fails with
    /// [`NotIpv6`](crate::error::ListenError::NotIpv6).
    ///
    /// ```
    /// let both_families = ropewalk::ListenOptions::new().ipv6_only(false);
    /// # drop(both_families);
    /// ```
    pub fn ipv6_only(mut self, on: bool) -> Self {
        self.port.ipv6_only = Some(on);
        self
    }

    /// Sets the network interface that an IPv6 address belongs to, by its name: `eth0` of
    /// `fe80::1%eth0`.
    ///
    /// The name is looked up whenever the port begins to listen, and replaces the scope number of
    /// the address. Listening fails with
    /// [`UnknownInterface`](crate::error::ListenError::UnknownInterface) if there is no such
    /// interface, and with [`NotIpv6`](crate::error::ListenError::NotIpv6) on an IPv4 address.
    /// Linux only: other systems do not look up names, so that listening fails with
    /// `UnknownInterface`. Use the scope number of the address there.
    ///
    /// ```
    /// let link_local = ropewalk::ListenOptions::new().scope("eth0");
    /// # drop(link_local);
    /// ```
    pub fn scope(mut self, interface: impl Into<String>) -> Self {
        self.port.scope = Some(interface.into());
        self
    }

    /// Allows an address that connections of an earlier listener still use (`SO_REUSEADDR`). On by
    /// default: otherwise a server that is restarted would have to wait for a minute.
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.port.connections.reuse_address = on;
        self
    }

    tcp_setters!(port.connections);
    connection_setters!(port.connections);
    port_setters!();
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Options of a listening UNIX port, for [`Reactor::listen_unix`](crate::Reactor::listen_unix).
///
/// ```
/// let options = ropewalk::reactor::UnixListenOptions::new().mode(0o600).want_pid(true);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListenOptions {
    pub(in crate::reactor) port: PortOptions,
}

impl UnixListenOptions {
    /// Default options: as many waiting connections as the system allows, mode 0o666, no lock.
    pub fn new() -> Self {
        Self { port: PortOptions::new() }
    }

    /// Sets the number of connections that may wait to be accepted. The system has a limit of its
    /// own.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.port.backlog = backlog;
        self
    }

    /// Sets the permissions of the socket's file, which decide who may connect. The umask does not
    /// apply. An abstract name has no permissions.
    pub fn mode(mut self, mode: u32) -> Self {
        self.port.mode = mode & 0o7777;
        self
    }

    /// Holds a lock while listening (Twisted: `wantPID`). Its path is that of the socket with
    /// `.lock` appended.
    ///
    /// The file of a socket is replaced if the holder of its lock has died, and is not replaced
    /// while the holder lives. An abstract name needs no lock.
    pub fn want_pid(mut self, lock: bool) -> Self {
        self.port.lock = lock;
        self
    }

    connection_setters!(port.connections);
    port_setters!();
}

impl Default for UnixListenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Options of a TCP connection attempt, for [`Reactor::connect_tcp`](crate::Reactor::connect_tcp).
///
/// ```
/// use std::time::Duration;
///
/// let options = ropewalk::ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    pub(in crate::reactor) timeout: Option<Duration>,
    pub(in crate::reactor) dial: DialOptions,
    /// The name of the interface that the local address belongs to.
    pub(in crate::reactor) bind_scope: Option<String>,
}

impl ConnectOptions {
    /// Default options: a timeout of 30 s, a local address that the system chooses, and Nagle's
    /// algorithm off.
    pub fn new() -> Self {
        Self { timeout: Some(CONNECT_TIMEOUT), dial: DialOptions::new(), bind_scope: None }
    }

    /// Sets the time to wait for an answer. `None` leaves it to the operating system.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the local address to connect from. Port 0 lets the system choose a port.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        (self.dial.from, self.bind_scope) = (Some(unmapped(address)), None);
        self
    }

    /// Sets the local address to connect from, and the network interface that it belongs to, by its
    /// name: `eth0` of `fe80::1%eth0`.
    ///
    /// The name is looked up for each connection, which fails with
    /// [`UnknownInterface`](crate::error::ConnectError::UnknownInterface) if there is no such
    /// interface, and always on other systems than Linux, which do not look up names.
    ///
    /// ```
    /// use std::net::{Ipv6Addr, SocketAddrV6};
    ///
    /// let local = SocketAddrV6::new("fe80::1".parse::<Ipv6Addr>().unwrap(), 0, 0, 0);
    /// let options = ropewalk::ConnectOptions::new().bind_address_on(local, "eth0");
    /// # drop(options);
    /// ```
    pub fn bind_address_on(mut self, address: SocketAddrV6, interface: impl Into<String>) -> Self {
        (self.dial.from, self.bind_scope) = (Some(address.into()), Some(interface.into()));
        self
    }

    /// Returns the local address to connect from, if one was set.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.dial.from
    }

    /// Allows a local address that earlier connections still use (`SO_REUSEADDR`), if there is a
    /// [`bind_address`](Self::bind_address). Without one, the system chooses a free address. On by
    /// default.
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.dial.connection.reuse_address = on;
        self
    }

    tcp_setters!(dial.connection);
    connection_setters!(dial.connection);
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Options of an attempt to connect to a UNIX socket, for
/// [`Reactor::connect_unix`](crate::Reactor::connect_unix).
///
/// ```
/// use std::time::Duration;
///
/// let options = ropewalk::reactor::UnixConnectOptions::new().timeout(Some(Duration::from_secs(1))).check_pid(true);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixConnectOptions {
    pub(in crate::reactor) connect: ConnectOptions,
    pub(in crate::reactor) check_pid: bool,
}

impl UnixConnectOptions {
    /// Default options, as in Twisted: a timeout of 30 s, and no check of a lock.
    pub fn new() -> Self {
        Self { connect: ConnectOptions::new(), check_pid: false }
    }

    /// Sets the time to wait for a place in the listener's queue. `None` is no limit.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connect.timeout = timeout;
        self
    }

    /// Connects only if the lock beside the path is held (Twisted: `checkPID`).
    pub fn check_pid(mut self, check: bool) -> Self {
        self.check_pid = check;
        self
    }

    connection_setters!(connect.dial.connection);
}

impl Default for UnixConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}
