//! The looking up of names (Twisted: `IHostnameResolver`, `GAIResolver`).

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use super::jobs::Whose;
use super::{Core, Reactor};
use crate::address::{check_host, literal};
use crate::deferred::Deferred;
use crate::error::{ConnectError, NoThread, ReactorGone};

/// Looks names up (Twisted: `IHostnameResolver`). Given to a reactor with [`Builder::resolver`](super::Builder::resolver); the
/// reactor asks it for what is no IP address.
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
    /// The addresses of a host, the best first, each with `port`. None at all is a failure too; the reactor makes it a
    /// [`ConnectError::Lookup`], and takes out what is there twice. If the Deferred is cancelled, nobody wants the answer any
    /// more.
    fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>>;
}

/// The system's resolver, `getaddrinfo`, in threads of the reactor (Twisted: `GAIResolver`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        let (asked, host) = (host.to_owned(), host.to_owned());
        let look_up = move || Ok((asked.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        reactor.0.in_thread(Whose::Names, look_up).add_both(move |result| {
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

impl Core {
    /// Asks the resolver for what is no IP address.
    pub(super) fn resolve(self: &Rc<Self>, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        if let Some(address) = literal(host, port) {
            return Deferred::succeed(vec![address]);
        }
        if let Err(source) = check_host(host) {
            return Deferred::fail(ConnectError::BadHostName { host: host.to_owned(), source });
        }
        let Some(reactor) = self.reactor().filter(|reactor| !reactor.is_closed()) else {
            return Deferred::fail(ConnectError::ReactorStopped { to: host.to_owned() });
        };
        let resolver = Rc::clone(&*self.resolver.borrow());
        let asked = host.to_owned();
        resolver.resolve(&reactor, host, port).add_callback(move |mut addresses| {
            let mut seen = std::collections::HashSet::new();
            addresses.retain(|address| seen.insert(*address));
            if addresses.is_empty() {
                let reason = "the name has no addresses".to_owned();
                return Err(ConnectError::Lookup { host: asked, reason }.into());
            }
            Ok(addresses)
        })
    }
}

impl fmt::Debug for dyn Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
