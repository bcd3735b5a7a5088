//! Lookups of host names (Twisted: `IHostnameResolver`, `GAIResolver`).

use std::collections::HashSet;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::rc::Rc;

use crate::address::{literal, parse_ipv6, to_ascii};
use crate::deferred::Deferred;
use crate::error::{ConnectError, NoThread, ReactorGone};
use crate::failure::Failure;
use crate::reactor::threads::jobs::JobKind;
use crate::reactor::{Core, Reactor};

/// Looks up host names (Twisted: `IHostnameResolver`). A reactor gets it from
/// [`Builder::resolver`](crate::reactor::Builder::resolver), and asks it for every host that is not
/// an IP address.
///
/// ```
/// use std::net::SocketAddr;
/// use ropewalk::reactor::{Resolver, SystemResolver};
/// use ropewalk::{Deferred, Reactor};
///
/// /// Knows one name more than the system does.
/// struct WithRouter(SystemResolver);
///
/// impl Resolver for WithRouter {
///     fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
///         match host {
///             "router" => Deferred::succeed(vec![SocketAddr::from(([192, 168, 0, 1], port))]),
///             _ => self.0.resolve(reactor, host, port),
///         }
///     }
/// }
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::builder().resolver(WithRouter(SystemResolver)).build()?;
/// assert!(reactor.resolve("router", 80).is_called());
/// # Ok(())
/// # }
/// ```
pub trait Resolver {
    /// Returns the addresses of a host, the best first, each with `port`.
    ///
    /// An empty list is a failure too: the reactor turns it into a [`ConnectError::Lookup`]. The
    /// reactor also removes repeated addresses. If the Deferred is cancelled, the answer is not
    /// needed any longer.
    fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>>;
}

/// The system's resolver, `getaddrinfo`, in threads of the reactor (Twisted: `GAIResolver`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        let (asked, host) = (host.to_owned(), host.to_owned());
        let look_up = move || Ok((asked.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        reactor.0.in_thread(JobKind::Lookup, look_up).add_both(move |result| {
            let failure = match result {
                Ok(Ok(addresses)) => return Ok(addresses),
                Ok(Err(error)) => return Err(ConnectError::Lookup { host, reason: error.to_string() }.into()),
                Err(failure) => failure,
            };
            if failure.check::<ReactorGone>().is_some() {
                return Err(ConnectError::ReactorStopped { to: host }.into());
            }
            if failure.check::<NoThread>().is_some() {
                return Err(ConnectError::Lookup { host, reason: failure.to_string() }.into());
            }
            Err(failure)
        })
    }
}

impl Reactor {
    /// Looks up the addresses of a host, each with `port` (Twisted: `nameResolver.resolveHostName`,
    /// `GAIResolver`). They come from the reactor's [`Resolver`], which is the system's by default,
    /// in its order and without repetitions.
    ///
    /// The system's resolver runs in a thread. An IP address is returned at once. An IPv6 address
    /// may end with the number of a network interface (`fe80::1%2`), or on Linux with its name
    /// (`fe80::1%eth0`), which is looked up now. An international name (`bücher.example`) is looked
    /// up in its ASCII form, with the feature `idna`.
    ///
    /// The Deferred fails with
    ///
    /// - [`ConnectError::BadHostName`], at once and without a lookup, if the name must not be
    ///   looked up;
    /// - [`ConnectError::UnknownInterface`] if there is no such interface;
    /// - [`ConnectError::Lookup`] if there is no answer. The resolver decides how long that takes:
    ///   see [`add_timeout`](Deferred::add_timeout).
    pub fn resolve(&self, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        self.0.resolve(host, port)
    }
}

impl Core {
    /// Asks the resolver for a host that is not an IP address, and the backend for the interface of
    /// an address.
    pub(in crate::reactor) fn resolve(self: &Rc<Self>, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        if let Some(address) = literal(host, port) {
            return Deferred::succeed(vec![address]);
        }
        let ascii = match to_ascii(host) {
            Ok(ascii) => ascii,
            Err(source) => return Deferred::fail(ConnectError::BadHostName { host: host.to_owned(), source }),
        };
        let Some(reactor) = self.reactor().filter(|reactor| !reactor.is_closed()) else {
            return Deferred::fail(ConnectError::ReactorStopped { to: host.to_owned() });
        };
        if let Some((ip, Some(name))) = parse_ipv6(host) {
            return match self.interface_index(name) {
                Ok(index) => Deferred::succeed(vec![SocketAddrV6::new(ip, port, 0, index).into()]),
                Err(source) => Deferred::fail(ConnectError::UnknownInterface { name: name.to_owned(), source }),
            };
        }
        let Some(resolver) = self.net.resolver.borrow().clone() else {
            return Deferred::fail(ConnectError::ReactorStopped { to: host.to_owned() });
        };
        let (written, asked) = (host.to_owned(), ascii.clone().into_owned());
        resolver.resolve(&reactor, &ascii, port).add_both(move |result| {
            let failure = match result {
                Ok(addresses) if addresses.is_empty() => {
                    let reason = "the name has no addresses".to_owned();
                    ConnectError::Lookup { host: asked.clone(), reason }.into()
                }
                Ok(mut addresses) => {
                    let mut seen = HashSet::new();
                    addresses.retain(|address| seen.insert(*address));
                    return Ok(addresses);
                }
                Err(failure) => failure,
            };
            Err(as_written(failure, written, &asked))
        })
    }
}

/// Puts the host name as the program wrote it into a failure of the resolver, which was asked for
/// another form of the name.
fn as_written(failure: Failure, written: String, asked: &str) -> Failure {
    match failure.check() {
        Some(ConnectError::Lookup { host, reason }) if host == asked && written != asked => {
            let reason = format!("{reason} (asked for {asked})");
            ConnectError::Lookup { host: written, reason }.into()
        }
        _ => failure,
    }
}

impl fmt::Debug for dyn Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
