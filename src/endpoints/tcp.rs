//! TCP endpoints (Twisted: `TCP4ServerEndpoint`, `TCP6ServerEndpoint`, `TCP4ClientEndpoint`, `TCP6ClientEndpoint`).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use std::vec;

use super::{ClientEndpoint, ServerEndpoint};
use crate::deferred::{Cancelled, Deferred};
use crate::error::ConnectError;
use crate::failure::Failure;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{ConnectOptions, ListenOptions, Port, Reactor, WeakReactor};

/// Listens on a TCP port (Twisted: `TCP4ServerEndpoint`; with an IPv6 interface, `TCP6ServerEndpoint`).
///
/// ```
/// use ropewalk::endpoints::{ServerEndpoint, TcpServerEndpoint};
/// # use ropewalk::{Address, Protocol, Reactor, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = TcpServerEndpoint::at(&reactor, "127.0.0.1:0".parse()?).backlog(128);
/// let port = endpoint.listen(|_peer: &Address| Some(Echo));
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
    /// Listens on all IPv4 interfaces, with a backlog of 50; port 0 lets the system choose one.
    pub fn new(reactor: &Reactor, port: u16) -> Self {
        Self::at(reactor, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
    }

    /// Listens on one address. `[::]` is all of them, over IPv6 and, as Linux has it by default, IPv4.
    pub fn at(reactor: &Reactor, address: SocketAddr) -> Self {
        Self { reactor: reactor.clone(), address, options: ListenOptions::new() }
    }

    /// How many connections may wait to be accepted.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.options = self.options.backlog(backlog);
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

/// Connects to a TCP port of a host (Twisted: `TCP4ClientEndpoint`, `TCP6ClientEndpoint`).
///
/// A name is looked up in a thread. Its addresses are tried one after the other, in the resolver's order, until one answers;
/// if none does, the failure is that of the last.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::endpoints::{ClientEndpoint, TcpClientEndpoint};
/// # use ropewalk::{Address, Protocol, Reactor, Result, Transport};
/// # struct Greeter;
/// # impl Protocol for Greeter {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = TcpClientEndpoint::new(&reactor, "localhost", 8888).timeout(Duration::from_secs(5));
/// let connecting = endpoint.connect(|_peer: &Address| Some(Greeter)).add_callback(|connection| {
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
    host: String,
    port: u16,
    options: ConnectOptions,
    bind_address: Option<SocketAddr>,
}

impl TcpClientEndpoint {
    /// Connects to a name or an IP address, with a timeout of 30 s for each address.
    pub fn new(reactor: &Reactor, host: impl Into<String>, port: u16) -> Self {
        let options = ConnectOptions::new();
        Self { reactor: reactor.clone(), host: host.into(), port, options, bind_address: None }
    }

    /// How long each address may take to answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(Some(timeout));
        self
    }

    /// The local address to connect from; port 0 lets the system choose one. Of the host's addresses, those of its family are
    /// tried.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        self.bind_address = Some(address);
        self.options = self.options.bind_address(address);
        self
    }
}

impl ClientEndpoint for TcpClientEndpoint {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        let (host, bind_address) = (self.host.clone(), self.bind_address);
        let (reactor, options) = (self.reactor.downgrade(), self.options.clone());
        let cancelled = ConnectError::Cancelled { to: host.clone() };
        self.reactor.resolve(&self.host, self.port).add_callbacks(
            move |mut addresses| {
                if let Some(from) = bind_address {
                    addresses.retain(|to| to.is_ipv4() == from.is_ipv4());
                }
                // Started once for all addresses, however many are tried.
                if let Err(panic) = factory.start() {
                    return Deferred::fail(panic);
                }
                let reason = "none of its addresses is of the family of the address to connect from".to_owned();
                let nothing = ConnectError::Lookup { host, reason };
                let attempts =
                    Attempts { reactor, options, addresses: addresses.into_iter(), factory: factory.clone() };
                attempts.next(nothing.into()).add_both(move |result| {
                    factory.stop();
                    result
                })
            },
            move |failure| match failure.check::<Cancelled>() {
                Some(Cancelled) => Deferred::fail(cancelled),
                None => Deferred::fail(failure),
            },
        )
    }
}

/// The addresses that are still to be tried. The reactor keeps this while an attempt is under way, so this does not keep
/// the reactor.
struct Attempts {
    reactor: WeakReactor,
    options: ConnectOptions,
    addresses: vec::IntoIter<SocketAddr>,
    factory: BoxedFactory,
}

impl Attempts {
    /// Tries the first address, and the others if it fails; `last` is what the one before failed with.
    fn next(mut self, last: Failure) -> Deferred<AnyConnection> {
        let (Some(to), Some(reactor)) = (self.addresses.next(), self.reactor.upgrade()) else {
            return Deferred::fail(last);
        };
        reactor.connect_tcp_boxed(to, &self.options, self.factory.clone()).add_errback(move |failure| {
            if is_the_networks(&failure) { self.next(failure) } else { Deferred::fail(failure) }
        })
    }
}

/// Whether it was the network that refused: only then is another address worth an attempt.
fn is_the_networks(failure: &Failure) -> bool {
    use ConnectError::{Cancelled, NoProtocol, ReactorStopped};
    let error = failure.check::<ConnectError>();
    error.is_some_and(|error| !matches!(error, Cancelled { .. } | NoProtocol { .. } | ReactorStopped { .. }))
}
