//! [`EndpointRegistry`]: the types of endpoints that descriptions may name, and the functions that
//! create them (Twisted: the plugins for `IStreamServerEndpointStringParser` and
//! `IStreamClientEndpointStringParserWithReactor`).
//!
//! A registry is a value, not process-wide state. A program that adds types owns a registry, and
//! passes it to the code that reads descriptions. Every registry has the built-in types from the
//! start.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::description::Description;
use super::description_error::DescriptionError;
#[cfg(feature = "tls")]
use super::tls;
use super::{ClientEndpoint, ServerEndpoint, adopted, haproxy, process, stdio, tcp, unix};
use crate::reactor::Reactor;

/// The types of endpoints that descriptions may name, each with the function that creates its
/// endpoints (Twisted: `IStreamServerEndpointStringParser`,
/// `IStreamClientEndpointStringParserWithReactor`). A type may be for servers, for clients, or for
/// both, independently.
///
/// A function receives the reactor, the [`Description`] and the registry. It reads the fields of
/// the description best with [`Arguments`](super::Arguments), so that its errors state a position
/// and an expectation as those of the built-in types do. It needs the registry for types that
/// contain other descriptions. A clone has the same types, and is extended separately.
///
/// ```
/// use ropewalk::Reactor;
/// use ropewalk::endpoints::{Argument, Arguments, EndpointRegistry, TcpServerEndpoint};
///
/// # fn main() -> ropewalk::Result<()> {
/// let mut registry = EndpointRegistry::new();
/// // `local:port`
/// registry.add_server("local", |reactor, description, _registry| {
///     let arguments = Arguments::of(description, "local", &["port"], &[])?;
///     let port = arguments.required("port", Argument::port)?;
///     Ok(Box::new(TcpServerEndpoint::bind_to(reactor, ([127, 0, 0, 1], port).into())))
/// })?;
///
/// let reactor = Reactor::new()?;
/// let endpoint = registry.server_from_string(&reactor, "local:8888")?;
/// let error = registry.server_from_string(&reactor, "local:http").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"in "local:http" at byte 6: "http" is not a port: expected a whole number from 0 to 65535"#,
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EndpointRegistry {
    servers: Types<dyn ServerEndpoint>,
    clients: Types<dyn ClientEndpoint>,
}

/// Creates an endpoint from a description.
type Parser<E> = dyn Fn(&Reactor, &Description, &EndpointRegistry) -> Result<Box<E>, DescriptionError>;

/// Parsers by the name of their type, in lower case.
type Types<E> = BTreeMap<String, Rc<Parser<E>>>;

impl EndpointRegistry {
    /// Creates a registry with the built-in types: `tcp`, `tcp6`, `unix`, `fd`, `systemd`,
    /// `stdio`, `haproxy`, `ssl` and `tls` for servers, `tcp`, `unix`, `process`, `haproxy`, `ssl`
    /// and `tls` for clients. `ssl` and `tls` need the feature `tls`.
    pub fn new() -> Self {
        let mut registry = Self { servers: BTreeMap::new(), clients: BTreeMap::new() };
        for kind in ["tcp", "tcp6"] {
            registry.servers.insert(kind.to_owned(), Rc::new(|reactor, text, _| tcp::server(reactor, text)));
        }
        registry.clients.insert("tcp".to_owned(), Rc::new(|reactor, text, _| tcp::client(reactor, text)));
        registry.servers.insert("unix".to_owned(), Rc::new(|reactor, text, _| unix::server(reactor, text)));
        registry.servers.insert("fd".to_owned(), Rc::new(|reactor, text, _| adopted::descriptor(reactor, text)));
        registry.servers.insert("systemd".to_owned(), Rc::new(|reactor, text, _| adopted::systemd(reactor, text)));
        registry.servers.insert("stdio".to_owned(), Rc::new(|reactor, text, _| stdio::server(reactor, text)));
        registry.clients.insert("unix".to_owned(), Rc::new(|reactor, text, _| unix::client(reactor, text)));
        registry.servers.insert(
            "haproxy".to_owned(),
            Rc::new(|reactor, text, types| haproxy::server(text, |inner| types.server_from_string(reactor, inner))),
        );
        registry.clients.insert("process".to_owned(), Rc::new(|reactor, text, _| process::client(reactor, text)));
        registry.clients.insert(
            "haproxy".to_owned(),
            Rc::new(|reactor, text, types| haproxy::client(text, |inner| types.client_from_string(reactor, inner))),
        );
        #[cfg(feature = "tls")]
        {
            let (servers, clients) = (&mut registry.servers, &mut registry.clients);
            servers.insert("ssl".to_owned(), Rc::new(|reactor, text, _| tls::ssl_server(reactor, text)));
            servers.insert("tls".to_owned(), Rc::new(|reactor, text, _| tls::tls_server(reactor, text)));
            clients.insert("ssl".to_owned(), Rc::new(|reactor, text, _| tls::ssl_client(reactor, text)));
            clients.insert("tls".to_owned(), Rc::new(tls::tls_client));
        }
        registry
    }

    /// Adds a type of server endpoints (Twisted: a plugin with its `prefix` and
    /// `parseStreamServer`). A description starts with the type, in any case.
    ///
    /// # Errors
    /// [`RegistryError`] if the type is taken, or the prefix is empty.
    pub fn add_server<F>(&mut self, prefix: &str, parser: F) -> Result<(), RegistryError>
    where
        F: Fn(&Reactor, &Description, &Self) -> Result<Box<dyn ServerEndpoint>, DescriptionError> + 'static,
    {
        self.servers.insert(free_prefix(&self.servers, prefix)?, Rc::new(parser));
        Ok(())
    }

    /// Adds a type of clients (Twisted: a plugin with its `prefix` and `parseStreamClient`).
    ///
    /// ```
    /// use ropewalk::endpoints::{Argument, Arguments, EndpointRegistry};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let mut registry = EndpointRegistry::new();
    /// // `first:endpoint=..`; a real type would add something to the inner endpoint.
    /// registry.add_client("first", |reactor, description, registry| {
    ///     let arguments = Arguments::of(description, "first", &["endpoint"], &[])?;
    ///     let inner = arguments.required("endpoint", |inner| Ok(inner.value()))?;
    ///     registry.client_from_string(reactor, inner)
    /// })?;
    /// let reactor = ropewalk::Reactor::new()?;
    /// let endpoint = registry.client_from_string(&reactor, r"first:tcp\:localhost\:8888")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RegistryError`] if the type is taken, or the prefix is empty.
    pub fn add_client<F>(&mut self, prefix: &str, parser: F) -> Result<(), RegistryError>
    where
        F: Fn(&Reactor, &Description, &Self) -> Result<Box<dyn ClientEndpoint>, DescriptionError> + 'static,
    {
        self.clients.insert(free_prefix(&self.clients, prefix)?, Rc::new(parser));
        Ok(())
    }

    /// Creates a server endpoint from a description (Twisted: `serverFromString`).
    ///
    /// # Errors
    /// [`DescriptionError`] states where the description is wrong, and what was expected there.
    pub fn server_from_string(
        &self,
        reactor: &Reactor,
        description: &str,
    ) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
        self.make(&self.servers, reactor, description)
    }

    /// Creates a client endpoint from a description (Twisted: `clientFromString`).
    ///
    /// # Errors
    /// [`DescriptionError`] states where the description is wrong, and what was expected there.
    pub fn client_from_string(
        &self,
        reactor: &Reactor,
        description: &str,
    ) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
        self.make(&self.clients, reactor, description)
    }

    fn make<E: ?Sized>(
        &self,
        types: &Types<E>,
        reactor: &Reactor,
        description: &str,
    ) -> Result<Box<E>, DescriptionError> {
        let description = Description::parse(description)?;
        match types.get(description.kind()) {
            Some(parser) => parser(reactor, &description, self),
            None => {
                let known: Vec<&str> = types.keys().map(String::as_str).collect();
                Err(description.unknown_type(&known))
            }
        }
    }
}

impl Default for EndpointRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EndpointRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (servers, clients): (Vec<_>, Vec<_>) = (self.servers.keys().collect(), self.clients.keys().collect());
        f.debug_struct("EndpointRegistry").field("servers", &servers).field("clients", &clients).finish()
    }
}

/// The reason why a type of endpoints cannot be added to an [`EndpointRegistry`].
///
/// ```
/// use ropewalk::endpoints::{EndpointRegistry, RegistryError};
///
/// let taken = EndpointRegistry::new().add_client("TCP", |_, description, _| Err(description.unknown_type(&[])));
/// assert_eq!(taken, Err(RegistryError::Taken { prefix: "tcp".to_owned() }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The type is taken. No type is replaced, so that two parts of a program do not read the same
    /// text in two ways.
    #[error("there is a type of endpoint {prefix:?} already")]
    Taken {
        /// The type, in lower case.
        prefix: String,
    },
    /// The prefix is empty: no description starts with it.
    #[error("the name of a type of endpoint must not be empty")]
    Empty,
}

/// Returns the prefix in lower case, if it may be added.
fn free_prefix<E: ?Sized>(types: &Types<E>, prefix: &str) -> Result<String, RegistryError> {
    let prefix = prefix.to_ascii_lowercase();
    match types.contains_key(&prefix) {
        true => Err(RegistryError::Taken { prefix }),
        false if prefix.is_empty() => Err(RegistryError::Empty),
        false => Ok(prefix),
    }
}
