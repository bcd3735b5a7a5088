//! TCP endpoints (Twisted: `TCP4ServerEndpoint`, `TCP6ServerEndpoint`, `TCP4ClientEndpoint`,
//! `TCP6ClientEndpoint`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{
    ClientEndpoint, Description, DescriptionError, HostnameEndpoint, ServerEndpoint, TcpClientSpec, TcpServerSpec,
};
use crate::address::{Address, literal};
use crate::deferred::Deferred;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{ConnectOptions, ListenOptions, Port, Reactor};

/// Listens on a TCP port (Twisted: `TCP4ServerEndpoint`; with an IPv6 interface,
/// `TCP6ServerEndpoint`).
///
/// ```
/// use ropewalk::endpoints::{ServerEndpointExt, TcpServerEndpoint};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = TcpServerEndpoint::bind_to(&reactor, "127.0.0.1:0".parse()?).backlog(128);
/// let port = endpoint.listen(for_protocol(|_| Echo));
/// # drop(port);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TcpServerEndpoint {
    reactor: Reactor,
    address: SocketAddr,
    options: ListenOptions,
}

impl TcpServerEndpoint {
    /// Listens on all IPv4 interfaces; port 0 lets the system choose one.
    pub fn new(reactor: &Reactor, port: u16) -> Self {
        Self::bind_to(reactor, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
    }

    /// Listens on one address. `[::]` is all interfaces, over IPv6 and, by the default of Linux,
    /// IPv4.
    pub fn bind_to(reactor: &Reactor, address: SocketAddr) -> Self {
        Self { reactor: reactor.clone(), address, options: ListenOptions::new() }
    }

    /// Sets all options, in place of those set before.
    ///
    /// ```
    /// use ropewalk::endpoints::TcpServerEndpoint;
    /// use ropewalk::transport::QueueLimit;
    /// use ropewalk::{ListenOptions, Reactor};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let options = ListenOptions::new().ipv6_only(false).queue_limit(QueueLimit::abort(8 << 20));
    /// let both_families = TcpServerEndpoint::bind_to(&reactor, "[::]:8888".parse()?).options(options);
    /// # drop(both_families);
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(mut self, options: ListenOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the number of connections that may wait to be accepted.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.options = self.options.backlog(backlog);
        self
    }

    /// Turns Nagle's algorithm off (`true`, the default) or on for accepted connections; see
    /// [`ListenOptions::tcp_no_delay`].
    pub fn tcp_no_delay(mut self, on: bool) -> Self {
        self.options = self.options.tcp_no_delay(on);
        self
    }
}

impl ServerEndpoint for TcpServerEndpoint {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        match self.reactor.listen_tcp_boxed(self.address, &self.options, factory) {
            Ok(port) => Deferred::succeed(port),
            Err(error) => Deferred::fail(error),
        }
    }
}

/// Connects to one TCP address (Twisted: `TCP4ClientEndpoint`, `TCP6ClientEndpoint`). For a host
/// name, use [`HostnameEndpoint`](super::HostnameEndpoint).
///
/// ```
/// use std::time::Duration;
/// use ropewalk::endpoints::{ClientEndpointExt, TcpClientEndpoint};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Greeter;
/// # impl Protocol for Greeter {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = TcpClientEndpoint::new(&reactor, "127.0.0.1:8888".parse()?).timeout(Duration::from_secs(5));
/// let connecting = endpoint.connect(for_protocol(|_| Greeter)).add_callback(|connection| {
///     connection.transport().write(b"hello");
/// });
/// # connecting.cancel();
/// # drop(connecting.add_errback(|_| ()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TcpClientEndpoint {
    reactor: Reactor,
    address: SocketAddr,
    options: ConnectOptions,
}

impl TcpClientEndpoint {
    /// Creates an endpoint for an address, with a timeout of 30 s.
    pub fn new(reactor: &Reactor, address: SocketAddr) -> Self {
        Self { reactor: reactor.clone(), address, options: ConnectOptions::new() }
    }

    /// Sets all options, in place of those set before.
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the time limit for the address to answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(Some(timeout));
        self
    }

    /// Sets the local address to connect from, of the same family; port 0 lets the system choose
    /// one.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        self.options = self.options.bind_address(address);
        self
    }

    /// Turns Nagle's algorithm off (`true`, the default) or on; see
    /// [`ListenOptions::tcp_no_delay`].
    pub fn tcp_no_delay(mut self, on: bool) -> Self {
        self.options = self.options.tcp_no_delay(on);
        self
    }
}

impl ClientEndpoint for TcpClientEndpoint {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        self.reactor.connect_tcp_boxed(self.address, &self.options, factory)
    }
}

impl Port {
    /// Returns a description with which clients on this host reach the port: `tcp:127.0.0.1:8888`,
    /// `tcp:[::1]:8888`. For a port that listens on all interfaces it names the loopback address of
    /// its family.
    ///
    /// ```
    /// # use ropewalk::{ListenOptions, Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// # let reactor = Reactor::new()?;
    /// let port = reactor.listen_tcp("0.0.0.0:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    /// let number = port.host().port().expect("a TCP port has a number");
    /// assert_eq!(port.client_description(), format!("tcp:127.0.0.1:{number}"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_description(&self) -> String {
        let mut address = match self.host() {
            Address::Inet(address) => address,
            Address::Unix(address) => return super::unix::client_description(&address),
            // No port listens on a pipe.
            Address::Pipe => return String::new(),
        };
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        // An IPv6 address is in brackets, so it needs no escapes.
        format!("tcp:{address}")
    }
}

/// Creates the endpoint of a description of type `tcp` or `tcp6`.
pub(super) fn server(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let spec = TcpServerSpec::from_description(description)?;
    Ok(Box::new(TcpServerEndpoint::bind_to(reactor, spec.address()).options(spec.options)))
}

/// Creates the endpoint of a description of type `tcp`.
pub(super) fn client(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let spec = TcpClientSpec::from_description(description)?;
    Ok(to_host(reactor, &spec.host, spec.port, spec.options))
}

/// Creates the endpoint for a host: a `TcpClientEndpoint` for an address, a `HostnameEndpoint` for
/// a name.
pub(super) fn to_host(reactor: &Reactor, host: &str, port: u16, options: ConnectOptions) -> Box<dyn ClientEndpoint> {
    match literal(host, port) {
        Some(to) => Box::new(TcpClientEndpoint::new(reactor, to).options(options)),
        None => Box::new(HostnameEndpoint::new(reactor, host, port).options(options)),
    }
}
