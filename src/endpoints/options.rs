//! The options of ports and connections in descriptions: their names, and how they are read.
//!
//! | argument | applies to | sets |
//! |---|---|---|
//! | `backlog=128` | ports | [`ListenOptions::backlog`] |
//! | `ipv6Only=1` | TCP ports | [`ListenOptions::ipv6_only`] |
//! | `timeout=30` | clients | [`ConnectOptions::timeout`] |
//! | `bindAddress=192.0.2.1` | TCP clients | [`ConnectOptions::bind_address`] |
//! | `noDelay=0` | TCP | [`ListenOptions::tcp_no_delay`] |
//! | `reuseAddress=0` | TCP | [`ListenOptions::reuse_address`] |
//! | `reusePort=1` | TCP | [`ListenOptions::reuse_port`] |
//! | `receiveBuffer=65536`, `sendBuffer=65536` | all | [`ListenOptions::receive_buffer_bytes`], [`ListenOptions::send_buffer_bytes`] |
//! | `queueLimit=8388608` | all | [`ListenOptions::queue_limit`] |
//! | `atQueueLimit=abort` | all | [`LimitAction`](crate::transport::LimitAction): `abort`, `pause` or `tell` |
//!
//! Ports also have limits and policies: see `policies.rs`.
//!
//! `atQueueLimit` is `abort` unless given: a limit in a description holds whatever the program
//! does.

use super::arguments::{Argument, Arguments, ScopedIp};
use super::description_error::DescriptionError;
use crate::reactor::{ConnectOptions, ConnectionOptions, ListenOptions};
use crate::transport::QueueLimit;

/// Options of TCP ports that are given by name only, besides their [policies](POLICIES).
pub(super) const LISTEN: [&str; 8] =
    ["noDelay", "ipv6Only", "reuseAddress", "reusePort", "receiveBuffer", "sendBuffer", "queueLimit", "atQueueLimit"];

/// Options of TCP clients that are given by name only, besides those that have a position in some
/// types.
pub(super) const CONNECT: [&str; 7] =
    ["noDelay", "reuseAddress", "reusePort", "receiveBuffer", "sendBuffer", "queueLimit", "atQueueLimit"];

/// Options of UNIX sockets that are given by name only, besides the [policies](POLICIES) of ports.
pub(super) const UNIX: [&str; 4] = ["receiveBuffer", "sendBuffer", "queueLimit", "atQueueLimit"];

/// Limits and policies of ports, which are given by name only: see `policies.rs`.
pub(super) const POLICIES: [&str; 16] = [
    "maxConnections",
    "maxPerPeer",
    "peerPrefix",
    "acceptRate",
    "whenFull",
    "idleTimeout",
    "receiveTimeout",
    "firstBytes",
    "lifetime",
    "rate",
    "receiveRate",
    "sendRate",
    "totalRate",
    "totalReceiveRate",
    "totalSendRate",
    "trafficLog",
];

/// Returns the names of a TCP port's options: `more`, those of all ports, and their policies.
pub(super) fn of_port(more: &[&'static str]) -> Vec<&'static str> {
    [more, &LISTEN, &POLICIES].concat()
}

impl<'d> Arguments<'d> {
    /// Reads the options of a TCP port on this interface.
    pub(super) fn listen_options(&self, interface: ScopedIp<'d>) -> Result<ListenOptions, DescriptionError> {
        let mut options = ListenOptions::new();
        if let Some(backlog) = self.optional("backlog", Argument::backlog)? {
            options = options.backlog(backlog);
        }
        let is_ipv6 = interface.ip.to_canonical().is_ipv6();
        let only = self.optional("ipv6Only", |only| match is_ipv6 {
            true => only.flag(),
            false => Err(only.invalid("nothing here: the interface is one of IPv4")),
        })?;
        if let Some(only) = only {
            options = options.ipv6_only(only);
        }
        if let Some(name) = interface.scope_name {
            options = options.scope(name);
        }
        self.read_connection_options(options.connections())?;
        self.read_policies(options.port_policies())?;
        Ok(options)
    }

    /// Reads the options of a TCP client.
    pub(super) fn connect_options(&self) -> Result<ConnectOptions, DescriptionError> {
        let mut options = ConnectOptions::new();
        if let Some(timeout) = self.optional("timeout", Argument::seconds)? {
            options = options.timeout(Some(timeout));
        }
        if let Some(local) = self.optional("bindAddress", Argument::ip_unless_empty)?.flatten() {
            options = match (local.socket_addr(0), local.scope_name) {
                (std::net::SocketAddr::V6(address), Some(name)) => options.bind_address_on(address, name),
                (address, _) => options.bind_address(address),
            };
        }
        self.read_connection_options(options.connections())?;
        Ok(options)
    }

    /// Reads the given options among those that apply to any connection.
    pub(super) fn read_connection_options(&self, options: &mut ConnectionOptions) -> Result<(), DescriptionError> {
        let flag = |name, unless_given| Ok(self.optional(name, Argument::flag)?.unwrap_or(unless_given));
        options.no_delay = flag("noDelay", options.no_delay)?;
        options.reuse_address = flag("reuseAddress", options.reuse_address)?;
        options.reuse_port = flag("reusePort", options.reuse_port)?;
        options.receive_buffer = self.optional("receiveBuffer", Argument::buffer)?;
        options.send_buffer = self.optional("sendBuffer", Argument::buffer)?;
        options.queue_limit = self.queue_limit()?;
        Ok(())
    }

    pub(super) fn queue_limit(&self) -> Result<Option<QueueLimit>, DescriptionError> {
        let bytes = self.optional("queueLimit", |bytes| bytes.number(1..=u32::MAX))?;
        let limit: Option<fn(u32) -> QueueLimit> = self.optional("atQueueLimit", |action| match action.value() {
            _ if bytes.is_none() => Err(action.invalid("nothing without queueLimit, the number of bytes")),
            "abort" => Ok(QueueLimit::abort as _),
            "pause" => Ok(QueueLimit::pause as _),
            "tell" => Ok(QueueLimit::tell as _),
            _ => Err(action.invalid("abort, pause or tell")),
        })?;
        Ok(bytes.map(limit.unwrap_or(QueueLimit::abort)))
    }

    /// Refuses options that belong to the nested description.
    #[cfg(feature = "tls")]
    pub(super) fn refuse(&self, names: &[&'static str], expected: &str) -> Result<(), DescriptionError> {
        names
            .iter()
            .try_for_each(|name| self.optional(name, |given| Err(given.invalid(expected))).map(|_: Option<()>| ()))
    }
}
