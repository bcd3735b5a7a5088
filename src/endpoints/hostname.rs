//! [`HostnameEndpoint`]: connects to a host by its name, on the first of its addresses that answers
//! (Twisted: `HostnameEndpoint`).
//!
//! This is RFC 8305, "Happy Eyeballs", for a resolver that returns all addresses at once. The rules
//! of the RFC for answers that arrive one by one do not apply.
//!
//! | | RFC 8305 | here |
//! |---|---|---|
//! | order | section 4 | as the resolver sorts them (by RFC 6724, if it is the system's), interleaved by family |
//! | first family | section 4 | that of the resolver's first address: IPv6, unless the resolver decides otherwise |
//! | delay between two attempts | section 5 | 250 ms, or until an attempt fails, if that is sooner |
//! | first connection | section 5 | is attached to a protocol; the sockets of the other attempts are closed before that |
//!
//! The attempts themselves are made by the reactor (`reactor/net/connect.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use super::ClientEndpoint;
use crate::address::{Address, unmapped};
use crate::deferred::{Cancelled, Deferred};
use crate::error::ConnectError;
use crate::failure::Failure;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{ConnectOptions, Destination, Reactor};

/// Connects to a TCP port of a named host (Twisted: `HostnameEndpoint`).
///
/// The name is looked up by the reactor's [`Resolver`](crate::reactor::Resolver). Then its
/// addresses are tried, IPv6 and IPv4 alternately, starting with the family of the resolver's first
/// address. The first attempt starts at once. Each later one starts a quarter of a second after the
/// previous one, or as soon as an attempt fails. The first address that answers gets the
/// connection. The other attempts are closed, and the factory is not called for them. At most 16
/// addresses are tried. The host may also be an IP address, or an international name with the
/// feature `idna`.
///
/// It fails with a [`ConnectError`]:
///
/// - [`BadHostName`](ConnectError::BadHostName) for a name that no resolver should be asked for;
/// - [`UnknownInterface`](ConnectError::UnknownInterface) if the host is an address of an interface
///   that does not exist;
/// - [`Lookup`](ConnectError::Lookup) if the name has no address, or the resolver does not answer
///   in time;
/// - [`AllFailed`](ConnectError::AllFailed), which lists every attempt, if no address answers;
/// - [`NoProtocol`](ConnectError::NoProtocol) if the factory declines the connection;
/// - [`ConnectingCancelled`](ConnectError::ConnectingCancelled) if the Deferred was cancelled,
///   which stops the look-up and closes every socket.
///
/// A time limit for all of it together is set with [`add_timeout`](Deferred::add_timeout):
///
/// ```
/// use std::time::Duration;
/// use ropewalk::endpoints::{ClientEndpointExt, HostnameEndpoint};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Greeter;
/// # impl Protocol for Greeter {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = HostnameEndpoint::new(&reactor, "localhost", 8888).timeout(Duration::from_secs(5));
/// let connecting = endpoint
///     .connect(for_protocol(|_| Greeter))
///     .add_timeout(Duration::from_secs(10), &reactor)
///     .add_callback(|connection| {
///         connection.transport().write(b"hello");
///     });
/// # connecting.cancel();
/// # drop(connecting.add_errback(|_| ()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HostnameEndpoint {
    reactor: Reactor,
    host: String,
    port: u16,
    options: ConnectOptions,
    attempt_delay: Duration,
    lookup_timeout: Duration,
}

impl HostnameEndpoint {
    /// Creates an endpoint for a port of a host. Each attempt may take 30 s, and so may the
    /// resolver.
    ///
    /// ```
    /// use ropewalk::endpoints::HostnameEndpoint;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// let endpoint = HostnameEndpoint::new(&reactor, "example.org", 80);
    /// # drop(endpoint);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(reactor: &Reactor, host: impl Into<String>, port: u16) -> Self {
        Self {
            reactor: reactor.clone(),
            host: host.into(),
            port,
            options: ConnectOptions::new(),
            attempt_delay: ATTEMPT_DELAY,
            lookup_timeout: LOOKUP_TIMEOUT,
        }
    }

    /// Sets all options, in place of those set before. The timeout applies to each attempt.
    ///
    /// ```
    /// # use ropewalk::endpoints::HostnameEndpoint;
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let options = ropewalk::ConnectOptions::new().receive_buffer_bytes(4 << 20);
    /// let for_large_answers = HostnameEndpoint::new(&reactor, "example.org", 80).options(options);
    /// # drop(for_large_answers);
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the time limit of each attempt. The default is 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(Some(timeout));
        self
    }

    /// Sets the local address to connect from; port 0 lets the system choose one. Only addresses of
    /// the same family are tried.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        self.options = self.options.bind_address(address);
        self
    }

    /// Turns Nagle's algorithm off (`true`, the default) or on; see
    /// [`ListenOptions::tcp_no_delay`](crate::ListenOptions::tcp_no_delay).
    pub fn tcp_no_delay(mut self, on: bool) -> Self {
        self.options = self.options.tcp_no_delay(on);
        self
    }

    /// Sets the delay after which the next attempt starts if none has failed meanwhile (Twisted:
    /// `attemptDelay`, 0.3 s). The default is 250 ms. The RFC allows 10 ms to 2 s; the delay is
    /// clamped to this range.
    ///
    /// ```
    /// # use ropewalk::endpoints::HostnameEndpoint;
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let patient = HostnameEndpoint::new(&reactor, "example.org", 80).attempt_delay(std::time::Duration::from_secs(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay.clamp(SHORTEST_DELAY, LONGEST_DELAY);
        self
    }

    /// Sets the time limit of the resolver. The default is 30 s; Twisted has no limit. When it
    /// expires, the look-up is cancelled and the Deferred fails at once. A thread that hangs in the
    /// system's resolver may hang on, but nothing waits for it.
    ///
    /// ```
    /// # use ropewalk::endpoints::HostnameEndpoint;
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let hasty = HostnameEndpoint::new(&reactor, "example.org", 80).lookup_timeout(std::time::Duration::from_secs(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lookup_timeout(mut self, timeout: Duration) -> Self {
        self.lookup_timeout = timeout;
        self
    }

    /// Returns the addresses of the host, or the reason why there are none.
    fn look_up(&self) -> Deferred<Vec<SocketAddr>> {
        let (host, after) = (self.host.clone(), self.lookup_timeout);
        let looking = self.reactor.resolve(&self.host, self.port);
        looking.add_timeout_with(after, &self.reactor, move |result| {
            let reason = format!("the resolver did not answer within {after:?}");
            result.map_err(|_cancelled| ConnectError::Lookup { host, reason }.into())
        })
    }
}

impl ClientEndpoint for HostnameEndpoint {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        let (host, to) = (self.host.clone(), self.host.clone());
        let (delay, options) = (self.attempt_delay, self.options.clone());
        // The pending look-up is owned by the reactor, so its callback must not own the reactor.
        let reactor = self.reactor.downgrade();
        self.look_up().add_callbacks(
            move |mut addresses| {
                let Some(reactor) = reactor.upgrade() else {
                    return Deferred::fail(ConnectError::ReactorStopped { to: host });
                };
                addresses.iter_mut().for_each(|to| *to = unmapped(*to));
                if let Some(from) = options.local_address() {
                    addresses.retain(|to| to.is_ipv4() == from.is_ipv4());
                }
                if addresses.is_empty() {
                    let reason = "it has no address of the same family as the local address".to_owned();
                    return Deferred::fail(ConnectError::Lookup { host, reason });
                }
                let mut addresses = interleaved(addresses);
                addresses.truncate(MAX_ADDRESSES);
                let addresses = addresses.into_iter().map(Address::from).collect();
                reactor.connect_to(Destination::Name { host, addresses, delay }, &options, factory)
            },
            move |failure| Deferred::fail(unless_cancelled(failure, to)),
        )
    }
}

/// Orders addresses by RFC 8305, section 4: the first keeps its place, and after it the families
/// alternate, each in its own order. The RFC lets more than one address of the first family come
/// first, for a strong preference; it recommends one.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (leading, following): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|at| at.is_ipv4() == first_is_ipv4);
    let (mut leading, mut following) = (leading.into_iter(), following.into_iter());
    let mut ordered = Vec::with_capacity(leading.len() + following.len());
    while leading.len() + following.len() > 0 {
        ordered.extend(leading.next());
        ordered.extend(following.next());
    }
    ordered
}

/// Turns a cancelled look-up into a cancelled attempt.
fn unless_cancelled(failure: Failure, to: String) -> Failure {
    match failure.check::<Cancelled>() {
        Some(Cancelled) => ConnectError::ConnectingCancelled { to }.into(),
        None => failure,
    }
}

/// RFC 8305, section 8: the recommended delay, the shortest and the longest. (The RFC recommends at
/// least 100 ms, and forbids less than 10.)
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// The same limit as for an attempt. The system's resolver with its defaults gives up after that
/// time too, if it has three servers and none answers: two rounds of 5 s each.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of addresses of a name that are tried at most, and so the number of sockets that one
/// connection may use for a while. With 16, the last attempt starts after 4 s; if eight addresses
/// of each family are silent, the ninth will be too.
const MAX_ADDRESSES: usize = 16;
