//! Endpoints behind a proxy, and endpoints that are one (Twisted: `haproxy.proxyEndpoint`, and the
//! server type `haproxy` of descriptions).
//!
//! The type is a prefix of another description, which needs no escapes:
//!
//! - server `haproxy:`, then by name only `headerTimeout=10`, then a server's description
//! - client `haproxy:`, then by name only `version=2`, then a client's description
//!
//! The header is the first thing on the wire, also around TLS: `haproxy:tls:/etc/certificates`
//! reads it before the handshake, as HAProxy sends it. Twisted looks for it inside of TLS.
//!
//! A port takes a connection's addresses from the header of any peer. So the port must be reachable
//! for the proxy alone, or be [told](HaproxyServerEndpoint::trust) the proxies' addresses.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::description::Description;
use super::description_error::{DescriptionError, DescriptionErrorKind};
use super::{Argument, ClientEndpoint, ServerEndpoint};
use crate::address::{Address, AddressPair};
use crate::deferred::Deferred;
use crate::failure::{Failure, Guarded, Result};
use crate::haproxy::{ProxyHeader, ProxyHeaderError, ProxyHeaderReader, ProxyVersion};
use crate::protocol::{AnyConnection, BoxedFactory, Preamble, PreambleRead};
use crate::reactor::Port;
use crate::transport::Transport;

/// Time for a header to arrive. 10 s: three retransmissions of a lost segment. HAProxy has no limit
/// of its own for it, and nginx waits for 30 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Listens behind a proxy that sends a PROXY header at the front of each connection (Twisted:
/// `proxyEndpoint`). Both versions are read.
///
/// The protocol of a connection is built when its header is complete. `build_protocol`,
/// [`Transport::peer`] and [`Transport::host`] have the addresses of the header: of the client, and
/// of the place that it connected to. If the header has none, as for a health check of the proxy,
/// they are those of the connection itself. [`Transport::proxy_header`] has the whole header.
///
/// A connection without a good header is closed with a [`ProxyHeaderError`], which is logged, and
/// no protocol is built for it. So is a connection whose header does not arrive in
/// [time](Self::header_timeout). A peer that connects and closes, without a byte, is not logged.
///
/// A port that stops goes on to serve connections whose header is still to come. The factory's
/// `do_stop` comes after the last of them was built.
///
/// ```
/// use ropewalk::endpoints::{HaproxyServerEndpoint, ServerEndpointExt, TcpServerEndpoint};
/// use ropewalk::{Address, Deferred, Port, Protocol, Reactor, Result, Transport};
///
/// /// Tells each client its address.
/// struct Mirror;
///
/// impl Protocol for Mirror {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         transport.write(transport.peer().to_string().as_bytes());
///         Ok(())
///     }
///
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// fn serve(reactor: &Reactor) -> Deferred<Port> {
///     let own_proxy = |peer: &Address| peer.ip().is_some_and(|ip| ip.to_string() == "192.0.2.80");
///     HaproxyServerEndpoint::new(TcpServerEndpoint::new(reactor, 8080)).trust(own_proxy).listen(|_| Mirror)
/// }
/// ```
#[derive(Clone)]
pub struct HaproxyServerEndpoint<E> {
    endpoint: E,
    timeout: Option<Duration>,
    max_length: Option<usize>,
    trusted: Option<Rc<Guarded<Box<Trust>>>>,
}

/// Returns `true` for the address of a trusted proxy.
type Trust = dyn Fn(&Address) -> bool;

impl<E> HaproxyServerEndpoint<E> {
    /// Reads a header on every connection that `endpoint` accepts, before anything else, even if
    /// the endpoint uses TLS.
    pub fn new(endpoint: E) -> Self {
        Self { endpoint, timeout: Some(HEADER_TIMEOUT), max_length: None, trusted: None }
    }

    /// Sets the time limit for the header to arrive, from the moment when the connection is
    /// accepted. The default is 10 s, and `None` is no limit.
    pub fn header_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the longest header of version 2 that is read, in bytes. The default is 16 KiB.
    pub fn max_header_bytes(mut self, bytes: usize) -> Self {
        self.max_length = Some(bytes);
        self
    }

    /// Serves only proxies whose own address `is_trusted` accepts. Connections from other addresses
    /// are refused, and closed at once. Without this call every peer is taken for a proxy, and can
    /// claim any address.
    pub fn trust(mut self, is_trusted: impl Fn(&Address) -> bool + 'static) -> Self {
        self.trusted = Some(Rc::new(Guarded::new(Box::new(is_trusted))));
        self
    }
}

impl<E: ServerEndpoint> ServerEndpoint for HaproxyServerEndpoint<E> {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        let (timeout, max_length, trusted) = (self.timeout, self.max_length, self.trusted.clone());
        self.endpoint.listen_boxed(factory.preceded_by(move |peer| {
            if trusted.as_ref().is_some_and(|trusted| !(***trusted)(peer)) {
                return None;
            }
            let reader = ProxyHeaderReader::new();
            let reader = max_length.into_iter().fold(reader, ProxyHeaderReader::max_length);
            Some(Box::new(HeaderPreamble { reader, timeout }))
        }))
    }
}

impl<E: fmt::Debug> fmt::Debug for HaproxyServerEndpoint<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HaproxyServerEndpoint")
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("is_selective", &self.trusted.is_some())
            .finish_non_exhaustive()
    }
}

/// Connects to a server that expects a PROXY header, and sends one at the front of each connection.
/// (Twisted has no such endpoint.)
///
/// Without [`header`](Self::header) it has the connection's own addresses, as for a connection that
/// this program makes for itself. A proxy makes an endpoint for each of its clients.
///
/// ```
/// use ropewalk::endpoints::{ClientEndpointExt, HaproxyClientEndpoint, client_from_string};
/// use ropewalk::haproxy::ProxyHeader;
/// use ropewalk::{Connection, Deferred, Factory, Reactor, Result, Transport};
///
/// /// Connects to the server on behalf of a client.
/// fn pass_on<F: Factory>(reactor: &Reactor, client: &Transport, factory: F) -> Result<Deferred<Connection<F::Protocol>>> {
///     let header = ProxyHeader::proxied(client.peer(), client.host());
///     let server = client_from_string(reactor, "tcp:localhost:8080")?;
///     Ok(HaproxyClientEndpoint::new(server).header(header).connect(factory))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct HaproxyClientEndpoint<E> {
    endpoint: E,
    version: ProxyVersion,
    header: Option<ProxyHeader>,
}

impl<E> HaproxyClientEndpoint<E> {
    /// Sends a header of version 2 on every connection that `endpoint` makes, before anything else,
    /// even if the endpoint uses TLS.
    pub fn new(endpoint: E) -> Self {
        Self { endpoint, version: ProxyVersion::V2, header: None }
    }

    /// Sends the connection's own addresses in a header of this version. It replaces a
    /// [`header`](Self::header) that was set before.
    pub fn version(mut self, version: ProxyVersion) -> Self {
        (self.version, self.header) = (version, None);
        self
    }

    /// Sends this header.
    pub fn header(mut self, header: ProxyHeader) -> Self {
        self.header = Some(header);
        self
    }
}

impl<E: ClientEndpoint> ClientEndpoint for HaproxyClientEndpoint<E> {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        let (version, header) = (self.version, self.header.clone());
        self.endpoint.connect_boxed(factory.led_by(move |transport| {
            let own = || ProxyHeader::proxied(transport.host(), transport.peer()).version(version);
            transport.write(&header.clone().unwrap_or_else(own).encode());
            Ok(())
        }))
    }
}

impl Transport {
    /// Returns the PROXY header at the front of this connection, if its port reads one
    /// ([`HaproxyServerEndpoint`]).
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.given_by()
    }
}

/// The header at the front of a connection.
struct HeaderPreamble {
    reader: ProxyHeaderReader,
    timeout: Option<Duration>,
}

impl Preamble for HeaderPreamble {
    fn name(&self) -> &'static str {
        "the PROXY header"
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn is_late(&self, after: Duration) -> Failure {
        Failure::untraced(ProxyHeaderError::TimedOut { after })
    }

    fn read(&mut self, transport: &Transport, data: &[u8]) -> Result<PreambleRead> {
        let (taken, header) = self.reader.read(data).map_err(Failure::untraced)?;
        let Some(header) = header else { return Ok(PreambleRead::Incomplete) };
        let host = header.destination().cloned().unwrap_or_else(|| transport.host());
        let peer = header.source().cloned().unwrap_or_else(|| transport.peer());
        Ok(PreambleRead::Complete { taken, ends: AddressPair::given(host, peer, header) })
    }

    fn cut(&self) -> Option<Failure> {
        self.reader.cut().map(Failure::untraced)
    }
}

/// Creates the endpoint of a server's description of type `haproxy`.
/// `make` creates that of the description behind the prefix.
pub(super) fn server(
    description: &Description,
    make: impl FnOnce(&str) -> Result<Box<dyn ServerEndpoint>, DescriptionError>,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let (timeouts, at) = prefixes(description, "headerTimeout", |timeout| timeout.seconds())?;
    let inner = make(description.text_from(at)).map_err(|error| description.error_behind(at, error))?;
    Ok(timeouts.into_iter().rfold(inner, |inner, timeout| {
        let endpoint = HaproxyServerEndpoint::new(inner);
        Box::new(match timeout {
            Some(timeout) => endpoint.header_timeout(Some(timeout)),
            None => endpoint,
        })
    }))
}

/// Creates the endpoint of a client's description of type `haproxy`.
/// `make` creates that of the description behind the prefix.
pub(super) fn client(
    description: &Description,
    make: impl FnOnce(&str) -> Result<Box<dyn ClientEndpoint>, DescriptionError>,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let (versions, at) = prefixes(description, "version", |version| match version.value() {
        "1" => Ok(ProxyVersion::V1),
        "2" => Ok(ProxyVersion::V2),
        _ => Err(version.invalid("1 or 2")),
    })?;
    let inner = make(description.text_from(at)).map_err(|error| description.error_behind(at, error))?;
    Ok(versions.into_iter().rfold(inner, |inner, version| {
        Box::new(HaproxyClientEndpoint::new(inner).version(version.unwrap_or(ProxyVersion::V2)))
    }))
}

/// Reads the prefixes in front of the inner description, and the option `name` of each. Returns the
/// options and the offset of the inner description.
fn prefixes<T>(
    description: &Description,
    name: &'static str,
    read: impl Fn(Argument<'_>) -> Result<T, DescriptionError>,
) -> Result<(Vec<Option<T>>, usize), DescriptionError> {
    let (mut options, mut at) = (Vec::new(), 0);
    loop {
        let behind = |error| description.error_behind(at, error);
        let level = Description::parse(description.text_from(at)).map_err(behind)?;
        if level.kind() != "haproxy" {
            return Ok((options, at));
        }
        if options.len() == HEADERS {
            let kind =
                DescriptionErrorKind::Unusable { reason: format!("a connection has at most {HEADERS} PROXY headers") };
            return Err(behind(level.error(level.kind_range(), kind)));
        }
        let (option, inner) = prefix(&level, name, &read).map_err(behind)?;
        options.push(option);
        at += inner;
    }
}

/// Reads one prefix. Returns the option, and the offset of the description behind it.
fn prefix<T>(
    level: &Description,
    name: &'static str,
    read: impl Fn(Argument<'_>) -> Result<T, DescriptionError>,
) -> Result<(Option<T>, usize), DescriptionError> {
    let mut option = None;
    for field in level.fields() {
        match field.name() {
            Some(given) if given == name => option = Some(read(Argument::new(level, name, field))?),
            Some(other) if level.is_before_kind(field) => {
                let kind = DescriptionErrorKind::Unknown { name: other.to_owned(), known: vec![name] };
                return Err(level.error(field.name_range(), kind));
            }
            _ => return Ok((option, field.position())),
        }
    }
    Err(level.error(level.end(), DescriptionErrorKind::Missing { name: "endpoint" }))
}

/// Number of headers that a description may ask for, one behind the other. 8: arbitrary, and more
/// than any chain of proxies has.
const HEADERS: usize = 8;
