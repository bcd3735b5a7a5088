//! Addresses to listen on and to connect to, as objects and as strings (Twisted:
//! `twisted.internet.endpoints`, `IStreamServerEndpoint`, `IStreamClientEndpoint`).
//!
//! An endpoint holds the address, a factory holds the protocol. No module below this one knows
//! descriptions.
//!
//! | description | listens or connects |
//! |---|---|
//! | `tcp:8888` | on port 8888 of all IPv4 interfaces |
//! | `tcp:8888:interface=127.0.0.1:backlog=128` | on one interface, with a backlog of 128 connections |
//! | `tcp6:8888` | on port 8888 of all interfaces, over IPv6 and, by the default of Linux, IPv4 |
//! | `tcp6:8888:ipv6Only=0` | on port 8888 of all interfaces, over both, whatever the system's setting |
//! | `tcp:8888:[fe80::1%eth0]` | on one interface, by its name |
//! | `tcp:8888:reusePort=1` | on a port that several reactors or processes share |
//! | `tcp:8888:queueLimit=8388608` | on a port whose connections are aborted when more than 8 MiB wait for a peer that does not read |
//! | `tcp:8888:idleTimeout=60:maxConnections=1000` | on a port with at most 1,000 connections, closed after a minute of silence |
//! | `tcp6:8888:128:[::1]` | on one interface, with a backlog; note the order, which is Twisted's |
//! | `tcp:localhost:8888` | to a host, on the first of its addresses that answers |
//! | `tcp:[::1]:8888` | to an address |
//! | `tcp:host=example.org:port=80:timeout=5:bindAddress=192.0.2.1` | to a host, from a given local address |
//! | `unix:/run/ropewalk.sock:mode=660` | on a UNIX socket, with a lock file beside it |
//! | `unix:/run/ropewalk.sock` | to a UNIX socket |
//! | `fd:3` | on a listening socket that the process has inherited, by its number |
//! | `systemd:domain=INET:index=0` | on a listening socket that a service manager has passed, by its place |
//! | `systemd:domain=UNIX:name=web` | on one of them, by its name |
//! | `ssl:8443:privateKey=key.pem:certKey=chain.pem` | on port 8443 of all IPv4 interfaces, over TLS |
//! | `tls:/etc/certificates:8443` | on port 8443 of all interfaces, over TLS, with the certificate for the requested host name |
//! | `tls:example.org:443` | to a host over TLS, verified by the platform's trust roots |
//! | `tls:example.org:443:trustRoots=/etc/ours:certificate=me.pem:privateKey=me.key` | the same, with other roots and an identity |
//! | `tls:example.org:443:endpoint=unix\:/run/tunnel.sock` | to that host over TLS through another endpoint |
//! | `stdio:` | on standard input and output: one connection, at once |
//! | `process:/bin/sort:-r:env.LC_ALL=C` | to the standard input and output of a program, which is started |
//! | `haproxy:tcp:8080` | on port 8080, behind a proxy that names its clients; any other type may stand there |
//! | `haproxy:tcp:localhost:8080` | to a host that expects such a header |
//!
//! Some options are given by name only. Ports and clients over TCP and TLS take `noDelay`,
//! `reuseAddress`, `reusePort`, `receiveBuffer`, `sendBuffer`, `queueLimit` and `atQueueLimit`
//! (`abort`, `pause` or `tell`). Ports also take `ipv6Only`. UNIX sockets take the last four of the
//! seven. Inherited sockets take `noDelay`, `queueLimit` and `atQueueLimit`. Each option is a
//! method of [`ListenOptions`](crate::ListenOptions) or [`ConnectOptions`](crate::ConnectOptions),
//! where its effect is documented.
//!
//! All ports take limits and policies: `maxConnections`, `maxPerPeer`, `peerPrefix`, `acceptRate`,
//! `whenFull` (`pause` or `shed`), `idleTimeout`, `receiveTimeout`, `firstBytes`, `lifetime`,
//! `rate`, `receiveRate`, `sendRate`, `totalRate`, `totalReceiveRate`, `totalSendRate` and
//! `trafficLog` (`text` or `hex`). Each is a method of
//! [`ConnectionLimits`](crate::policies::ConnectionLimits) or
//! [`ConnectionPolicies`](crate::policies::ConnectionPolicies). Times are seconds, and rates are
//! bytes per second.
//!
//! A `process` takes its program and arguments by position, and `directory`, `uid`, `gid`,
//! `clearEnv`, `stderr` (`log`, `drop` or `inherit`), `queueLimit`, `atQueueLimit` and variables of
//! its environment (`env.NAME`) by name. An argument with an equals sign is written `--level\=3`.
//!
//! Fields are separated by colons; a field is positional or `name=value`. A backslash takes the
//! next character literally (`\:`, `\=`, `\\`), and [`quote_string_argument`] adds backslashes
//! where they are needed.

mod adopted;
mod arguments;
mod description;
mod description_error;
mod group;
mod haproxy;
mod hostname;
mod options;
mod policies;
mod process;
mod registry;
mod stdio;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
mod unix;

use std::fmt;
use std::rc::Rc;

pub use self::adopted::AdoptedStreamServerEndpoint;
pub use self::arguments::{Argument, Arguments, ScopedIp, TcpClientSpec, TcpServerSpec};
pub use self::description::{Description, Field, quote_string_argument};
pub use self::description_error::{DescriptionError, DescriptionErrorKind};
pub use self::haproxy::{HaproxyClientEndpoint, HaproxyServerEndpoint};
pub use self::hostname::HostnameEndpoint;
pub use self::process::ProcessEndpoint;
pub use self::registry::{EndpointRegistry, RegistryError};
pub use self::stdio::StandardIoEndpoint;
pub use self::tcp::{TcpClientEndpoint, TcpServerEndpoint};
#[cfg(feature = "tls")]
pub use self::tls::{TlsEndpoint, wrap_client_tls, wrap_server_tls};
pub use self::unix::{UnixClientEndpoint, UnixServerEndpoint};
use crate::deferred::Deferred;
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory, Protocol};
use crate::reactor::{Port, Reactor};

/// An address to listen on (Twisted: `IStreamServerEndpoint`). Programs call
/// [`ServerEndpointExt::listen`].
///
/// An endpoint that wraps another one:
///
/// ```
/// use ropewalk::endpoints::ServerEndpoint;
/// use ropewalk::protocol::BoxedFactory;
/// use ropewalk::{Deferred, Port};
///
/// /// Prints each address it listens on.
/// #[derive(Debug)]
/// struct Announced<E>(E);
///
/// impl<E: ServerEndpoint> ServerEndpoint for Announced<E> {
///     fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
///         self.0.listen_boxed(factory).add_callback(|port| {
///             println!("listening on {}", port.host());
///             Ok(port)
///         })
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a server endpoint",
    note = "`ropewalk::endpoints::server_from_string(reactor, description)?` makes an endpoint of a description"
)]
pub trait ServerEndpoint: fmt::Debug {
    /// Listens, and lets `factory` build a protocol for each connection. An endpoint implements
    /// this method. The Deferred fires with the port, or fails with a
    /// [`ListenError`](crate::error::ListenError).
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port>;
}

/// An address to connect to (Twisted: `IStreamClientEndpoint`). Programs call
/// [`ClientEndpointExt::connect`].
///
/// An endpoint that chooses between two others:
///
/// ```
/// use std::cell::Cell;
/// use ropewalk::Deferred;
/// use ropewalk::endpoints::ClientEndpoint;
/// use ropewalk::protocol::{AnyConnection, BoxedFactory};
///
/// /// Connects to two servers in turn.
/// #[derive(Debug)]
/// struct Alternating<E> {
///     servers: [E; 2],
///     next: Cell<usize>,
/// }
///
/// impl<E: ClientEndpoint> ClientEndpoint for Alternating<E> {
///     fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
///         let index = self.next.replace(1 - self.next.get());
///         self.servers[index].connect_boxed(factory)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a client endpoint",
    note = "`ropewalk::endpoints::client_from_string(reactor, description)?` makes an endpoint of a description"
)]
pub trait ClientEndpoint: fmt::Debug {
    /// Connects, and attaches the protocol that `factory` builds to the connection. An endpoint
    /// implements this method. The Deferred fires after `connection_made`, or fails with a
    /// [`ConnectError`](crate::error::ConnectError). Cancelling it aborts the attempt.
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection>;
}

/// Provides `listen` for every [`ServerEndpoint`], `dyn ServerEndpoint` included. It is an
/// extension trait because a method that takes any factory cannot be called on a trait object.
pub trait ServerEndpointExt: ServerEndpoint {
    /// Listens, and lets `factory` build a protocol for each connection (Twisted: `listen`). The
    /// Deferred fires with the port, or fails with a [`ListenError`](crate::error::ListenError).
    ///
    /// ```
    /// use ropewalk::endpoints::server_from_string;
    /// use ropewalk::interfaces::*;
    /// use ropewalk::{Deferred, Port, for_protocol};
    /// # use ropewalk::{Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// fn serve_echoes(endpoint: &dyn ServerEndpoint) -> Deferred<Port> {
    ///     endpoint.listen(for_protocol(|_| Echo))
    /// }
    /// # fn main() -> Result<()> {
    /// # let reactor = Reactor::new()?;
    /// # serve_echoes(&server_from_string(&reactor, "tcp:0:interface=127.0.0.1")?).or_log("listening");
    /// # Ok(())
    /// # }
    /// ```
    fn listen(&self, factory: impl Factory) -> Deferred<Port> {
        self.listen_boxed(BoxedFactory::new(factory))
    }
}

impl<E: ServerEndpoint + ?Sized> ServerEndpointExt for E {}

/// Provides `connect` for every [`ClientEndpoint`], `dyn ClientEndpoint` included.
pub trait ClientEndpointExt: ClientEndpoint {
    /// Connects, and attaches the protocol that `factory` builds to the connection (Twisted:
    /// `connect`). The Deferred fires after `connection_made`, or fails with a
    /// [`ConnectError`](crate::error::ConnectError). Cancelling it aborts the attempt.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ropewalk::interfaces::*;
    /// use ropewalk::{Connection, Deferred, for_protocol};
    /// # use ropewalk::{Result, Transport};
    /// # struct Greeter;
    /// # impl Protocol for Greeter {
    /// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
    /// # }
    ///
    /// struct Client {
    ///     server: Rc<dyn ClientEndpoint>,
    /// }
    ///
    /// impl Client {
    ///     fn greet(&self) -> Deferred<Connection<Greeter>> {
    ///         self.server.connect(for_protocol(|_| Greeter))
    ///     }
    /// }
    /// ```
    fn connect<F: Factory>(&self, factory: F) -> Deferred<Connection<F::Protocol>> {
        self.connect_boxed(BoxedFactory::new(factory)).add_callback(AnyConnection::expect)
    }
}

impl<E: ClientEndpoint + ?Sized> ClientEndpointExt for E {}

/// Creates a server endpoint from a description of a built-in type (Twisted: `serverFromString`).
/// An [`EndpointRegistry`] may know further types.
///
/// ```
/// use ropewalk::endpoints::{ServerEndpointExt, server_from_string};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let listening = server_from_string(&reactor, "tcp:0:interface=127.0.0.1")?.listen(for_protocol(|_| Echo));
/// listening.or_log("listening");
///
/// let error = server_from_string(&reactor, "tcp:http").err().expect("http is not a port number");
/// assert_eq!(error.position(), 4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`DescriptionError`] states where the description is wrong, and what was expected there.
pub fn server_from_string(reactor: &Reactor, description: &str) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    EndpointRegistry::new().server_from_string(reactor, description)
}

/// Creates a client endpoint from a description of a built-in type (Twisted: `clientFromString`).
/// An [`EndpointRegistry`] may know further types.
///
/// ```
/// use ropewalk::endpoints::client_from_string;
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = ropewalk::Reactor::new()?;
/// let endpoint = client_from_string(&reactor, "tcp:localhost:8888:timeout=5")?;
/// # drop(endpoint);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`DescriptionError`] states where the description is wrong, and what was expected there.
pub fn client_from_string(reactor: &Reactor, description: &str) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    EndpointRegistry::new().client_from_string(reactor, description)
}

/// Connects a single protocol, without a factory (Twisted: `connectProtocol`). The Deferred is the
/// one of [`ClientEndpointExt::connect`].
///
/// ```
/// use ropewalk::endpoints::{client_from_string, connect_protocol};
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Greeter;
/// # impl Protocol for Greeter {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = client_from_string(&reactor, "tcp:localhost:8888")?;
/// let connecting = connect_protocol(&endpoint, Greeter);
/// # connecting.cancel();
/// # drop(connecting.add_errback(|_| Err(ropewalk::Failure::message("cancelled"))).add_both(|_| ()));
/// # Ok(())
/// # }
/// ```
pub fn connect_protocol<E, P>(endpoint: &E, protocol: P) -> Deferred<Connection<P>>
where
    E: ClientEndpoint + ?Sized,
    P: Protocol,
{
    let mut protocol = Some(protocol);
    let factory = BoxedFactory::new(move |_| protocol.take());
    endpoint.connect_boxed(factory).add_callback(AnyConnection::expect)
}

/// Implements the endpoint traits for pointers to endpoints.
macro_rules! for_pointers {
    ($($pointer:ty),+) => {$(
        impl<E: ServerEndpoint + ?Sized> ServerEndpoint for $pointer {
            fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
                (**self).listen_boxed(factory)
            }
        }

        impl<E: ClientEndpoint + ?Sized> ClientEndpoint for $pointer {
            fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
                (**self).connect_boxed(factory)
            }
        }
    )+};
}
for_pointers!(&E, Box<E>, Rc<E>);
