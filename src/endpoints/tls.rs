//! TLS endpoints (Twisted: `wrapClientTLS`, `wrapServerTLS`, `SSL4ServerEndpoint`,
//! `SSL4ClientEndpoint`, and the types `ssl` and `tls` of descriptions).
//!
//! Arguments by position or name, in this order:
//!
//! - server `ssl`: `port`, `privateKey=server.pem`, `certKey` (default: the file of `privateKey`),
//!   `sslmethod`, `interface`, `backlog`, `extraCertChain`
//! - server `tls`: `path` (a folder of `.pem` files), `port=443`, `backlog`, `interface=::`
//! - client `ssl`: `host`, `port`, then by name only `timeout=30`, `bindAddress`, `privateKey`,
//!   `certKey`, `caCertsDir`, `hostname` (default: `host`)
//! - client `tls`: `host`, `port`, `timeout=30`, `bindAddress`, `certificate`, `privateKey`,
//!   `trustRoots`, `endpoint`
//!
//! By name only, servers take `protocols` and the options of ports, and clients take `protocols`,
//! `fingerprints` and the options of clients. Both sets of options are those of the type `tcp`
//! (`options.rs`). Options of clients are refused beside `endpoint`: the nested description has its
//! own.
//!
//! `protocols` are names for ALPN in order of preference, with commas between them, such as
//! `protocols=h2,http/1.1`. A server selects one of them, and a client offers them.
//!
//! `fingerprints` are SHA-256 [fingerprints](crate::tls::Fingerprint) separated by commas, in place
//! of a folder of authorities. Only the certificates with these fingerprints are trusted. Colons in
//! them are left out, or escaped.
//!
//! Servers check their files for changes every minute, as
//! [`ServerTlsBuilder::build_from_directory`](crate::tls::ServerTlsBuilder::build_from_directory)
//! does.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::arguments::{Argument, Arguments, ScopedIp};
use super::description::Description;
use super::description_error::DescriptionError;
use super::{ClientEndpoint, EndpointRegistry, ServerEndpoint, TcpServerEndpoint, options, tcp};
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{ConnectOptions, Port, Reactor};
use crate::tls::{ClientTls, ClientTlsBuilder, ConfigError, Fingerprint, Identity, ServerTls, TlsVersion, TrustRoots};

/// An endpoint, of a server or a client, whose connections use TLS. Created by [`wrap_server_tls`]
/// and [`wrap_client_tls`].
#[derive(Debug, Clone)]
pub struct TlsEndpoint<T, E> {
    tls: T,
    endpoint: E,
}

/// Uses TLS on every connection that `endpoint` accepts, whatever its type (Twisted:
/// `wrapServerTLS`).
///
/// ```
/// use ropewalk::endpoints::{ServerEndpointExt, server_from_string, wrap_server_tls};
/// use ropewalk::tls::ServerTls;
/// use ropewalk::{Deferred, Factory, Port, Reactor, Result};
///
/// fn serve(reactor: &Reactor, tls: ServerTls, factory: impl Factory) -> Result<Deferred<Port>> {
///     Ok(wrap_server_tls(tls, server_from_string(reactor, "unix:/run/secret.sock")?).listen(factory))
/// }
/// ```
pub fn wrap_server_tls<E: ServerEndpoint>(tls: ServerTls, endpoint: E) -> TlsEndpoint<ServerTls, E> {
    TlsEndpoint { tls, endpoint }
}

/// Uses TLS on the connections that `endpoint` makes (Twisted: `wrapClientTLS`). The Deferred fires
/// after `connection_made`, as for every endpoint, which is before the handshake is done.
///
/// ```
/// use ropewalk::endpoints::{ClientEndpointExt, client_from_string, wrap_client_tls};
/// use ropewalk::tls::ClientTls;
/// use ropewalk::{Connection, Deferred, Factory, Reactor, Result};
///
/// fn ask<F: Factory>(reactor: &Reactor, factory: F) -> Result<Deferred<Connection<F::Protocol>>> {
///     let through_a_tunnel = client_from_string(reactor, "tcp:localhost:8443")?;
///     Ok(wrap_client_tls(ClientTls::for_server("example.org")?, through_a_tunnel).connect(factory))
/// }
/// ```
pub fn wrap_client_tls<E: ClientEndpoint>(tls: ClientTls, endpoint: E) -> TlsEndpoint<ClientTls, E> {
    TlsEndpoint { tls, endpoint }
}

impl<E: ServerEndpoint> ServerEndpoint for TlsEndpoint<ServerTls, E> {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        let tls = self.tls.clone();
        self.endpoint.listen_boxed(factory.prepared(move |transport| Ok(transport.start_tls(&tls)?)))
    }
}

impl<E: ClientEndpoint> ClientEndpoint for TlsEndpoint<ClientTls, E> {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        let tls = self.tls.clone();
        self.endpoint.connect_boxed(factory.prepared(move |transport| Ok(transport.start_tls(&tls)?)))
    }
}

/// Creates the endpoint of a server's description of type `ssl`.
pub(super) fn ssl_server(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let order =
        ["port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters"];
    let arguments = Arguments::of(description, "ssl", &order, &options::of_port(&["protocols"]))?;
    let port = arguments.required("port", Argument::port)?;
    let key = arguments.optional("privateKey", path)?.unwrap_or("server.pem");
    let certificate = arguments.optional("certKey", path)?.unwrap_or(key);
    let version = arguments.optional("sslmethod", version)?.flatten();
    let interface = arguments.optional("interface", Argument::ip_unless_empty)?.flatten();
    let interface = interface.unwrap_or(ScopedIp::new(Ipv4Addr::UNSPECIFIED));
    let options = arguments.listen_options(interface)?;
    let more = arguments.optional("extraCertChain", path)?;
    arguments.optional("dhParameters", |given| {
        Err::<(), _>(given.invalid("nothing: keys are exchanged over elliptic curves, which need no parameters"))
    })?;
    let builder = ServerTls::builder().protocols(alpn(&arguments)?);
    let builder = version.into_iter().fold(builder, |builder, version| builder.only_version(version));
    let tls = builder.build_from_files(certificate, more, key);
    let tls = tls.map_err(|error| unusable(&arguments, error))?;
    let endpoint = TcpServerEndpoint::bind_to(reactor, interface.socket_addr(port)).options(options);
    Ok(Box::new(wrap_server_tls(tls, endpoint)))
}

/// Creates the endpoint of a server's description of type `tls`.
pub(super) fn tls_server(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let names = options::of_port(&["protocols"]);
    let arguments = Arguments::of(description, "tls", &["path", "port", "backlog", "interface"], &names)?;
    let folder = arguments.required("path", path)?;
    let port = arguments.optional("port", Argument::port)?.unwrap_or(HTTPS);
    let interface = arguments.optional("interface", Argument::ip_unless_empty)?.flatten();
    let interface = interface.unwrap_or(ScopedIp::new(Ipv6Addr::UNSPECIFIED));
    let options = arguments.listen_options(interface)?;
    let tls = ServerTls::builder()
        .protocols(alpn(&arguments)?)
        .build_from_directory(folder)
        .map_err(|error| unusable(&arguments, error))?;
    let endpoint = TcpServerEndpoint::bind_to(reactor, interface.socket_addr(port)).options(options);
    Ok(Box::new(wrap_server_tls(tls, endpoint)))
}

/// Creates the endpoint of a client's description of type `ssl`.
pub(super) fn ssl_client(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let names =
        ["timeout", "bindAddress", "privateKey", "certKey", "caCertsDir", "hostname", "fingerprints", "protocols"];
    let arguments = Arguments::of_client(description, "ssl", &[&names[..], &options::CONNECT].concat())?;
    let target = Target::read(&arguments)?;
    let key = arguments.optional("privateKey", path)?;
    let certificate = arguments.optional("certKey", path)?;
    let trusted = Trusted::read(&arguments, "caCertsDir")?;
    let name = arguments.optional("hostname", Argument::host)?.unwrap_or(target.host);
    let builder = ClientTls::builder().protocols(alpn(&arguments)?);
    let tls = client_tls(builder, name, certificate, key, trusted).map_err(|error| unusable(&arguments, error))?;
    Ok(Box::new(wrap_client_tls(tls, target.endpoint(reactor))))
}

/// Creates the endpoint of a client's description of type `tls`.
pub(super) fn tls_client(
    reactor: &Reactor,
    description: &Description,
    registry: &EndpointRegistry,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let order = ["host", "port", "timeout", "bindAddress", "certificate", "privateKey", "trustRoots", "endpoint"];
    let names = [&["fingerprints", "protocols"], &options::CONNECT[..]].concat();
    let arguments = Arguments::of(description, "tls", &order, &names)?;
    let target = Target::read(&arguments)?;
    let certificate = arguments.optional("certificate", path)?;
    let key = arguments.optional("privateKey", path)?;
    let trusted = Trusted::read(&arguments, "trustRoots")?;
    let inner = arguments.optional("endpoint", |inner| Ok(inner.value()))?;
    let inner = match inner {
        Some(inner) => {
            arguments.refuse(&options::CONNECT, "nothing beside endpoint, which has options of its own")?;
            registry.client_from_string(reactor, inner)?
        }
        None => target.endpoint(reactor),
    };
    let builder = ClientTls::builder().protocols(alpn(&arguments)?);
    let tls =
        client_tls(builder, target.host, certificate, key, trusted).map_err(|error| unusable(&arguments, error))?;
    Ok(Box::new(wrap_client_tls(tls, inner)))
}

/// The host and port of a client's description, and its options.
struct Target<'d> {
    host: &'d str,
    port: u16,
    options: ConnectOptions,
}

impl<'d> Target<'d> {
    fn read(arguments: &Arguments<'d>) -> Result<Self, DescriptionError> {
        let options = arguments.connect_options()?;
        Ok(Self {
            host: arguments.required("host", Argument::host)?,
            port: arguments.required("port", Argument::peer_port)?,
            options,
        })
    }

    fn endpoint(&self, reactor: &Reactor) -> Box<dyn ClientEndpoint> {
        tcp::to_host(reactor, self.host, self.port, self.options.clone())
    }
}

/// The certificates that a client trusts.
enum Trusted<'d> {
    Platform,
    Folder(&'d str),
    Certificates(Vec<Fingerprint>),
}

impl<'d> Trusted<'d> {
    /// Reads a folder of authorities, or fingerprints, or nothing. Both together are refused:
    /// fingerprints allow no other certificates.
    fn read(arguments: &Arguments<'d>, folder_name: &'static str) -> Result<Self, DescriptionError> {
        let folder = arguments.optional(folder_name, path)?;
        let certificates =
            arguments.optional("fingerprints", |given| match folder {
                Some(_) => Err(given
                    .invalid(format!("nothing beside {folder_name}: only one of the two can name the trust roots"))),
                None => fingerprints(given),
            })?;
        Ok(match (folder, certificates) {
            (_, Some(certificates)) => Self::Certificates(certificates),
            (Some(folder), None) => Self::Folder(folder),
            (None, None) => Self::Platform,
        })
    }
}

/// Completes the configuration of a client by its files. A certificate and its key may be in one
/// file; then one path is enough.
fn client_tls(
    mut builder: ClientTlsBuilder,
    name: &str,
    certificate: Option<&str>,
    key: Option<&str>,
    trusted: Trusted<'_>,
) -> Result<ClientTls, ConfigError> {
    builder = match trusted {
        Trusted::Platform => builder,
        Trusted::Folder(folder) => builder.trust_roots(TrustRoots::from_directory(folder)?),
        Trusted::Certificates(fingerprints) => builder.trust_roots(TrustRoots::from_fingerprints(fingerprints)?),
    };
    if let (Some(certificate), Some(key)) = (certificate.or(key), key.or(certificate)) {
        builder = builder.identity(Identity::from_pem_files(certificate, key)?);
    }
    builder.for_server(name)
}

fn path(argument: Argument<'_>) -> Result<&str, DescriptionError> {
    match argument.value() {
        "" => Err(argument.invalid("a path")),
        path => Ok(path),
    }
}

fn fingerprints(argument: Argument<'_>) -> Result<Vec<Fingerprint>, DescriptionError> {
    let all: Result<Vec<_>, _> = argument.value().split(',').map(str::parse).collect();
    all.map_err(|_| {
        argument
            .invalid("SHA-256 fingerprints of certificates, each of 64 hexadecimal digits, with commas between them")
    })
}

/// Reads the protocols for ALPN. Empty if none are given.
fn alpn<'d>(arguments: &Arguments<'d>) -> Result<Vec<&'d str>, DescriptionError> {
    let protocols = arguments.optional("protocols", |given| {
        let all: Vec<_> = given.value().split(',').collect();
        let is_good = all.iter().all(|protocol| (1..=ALPN_NAME_BYTES).contains(&protocol.len()));
        is_good.then_some(all).ok_or_else(|| {
            given.invalid("names of protocols for ALPN, each of 1 to 255 bytes, with commas between them")
        })
    })?;
    Ok(protocols.unwrap_or_default())
}

/// Reads a TLS version. The names are those of OpenSSL's functions, as Twisted takes them.
fn version(argument: Argument<'_>) -> Result<Option<TlsVersion>, DescriptionError> {
    match argument.value() {
        "TLS_METHOD" | "TLS_SERVER_METHOD" | "SSLv23_METHOD" => Ok(None),
        "TLSv1_2_METHOD" => Ok(Some(TlsVersion::Tls12)),
        _ => Err(argument.invalid("TLS_METHOD, or TLSv1_2_METHOD (no version before TLS 1.2 is supported)")),
    }
}

/// Creates the error for an unusable configuration, with its cause.
fn unusable(arguments: &Arguments<'_>, error: ConfigError) -> DescriptionError {
    arguments.unusable(Failure::from(error))
}

/// Maximum length of a protocol's name for ALPN: its length is sent in one byte (RFC 7301).
const ALPN_NAME_BYTES: usize = 255;

/// The port of a server whose description names none, as in Twisted.
const HTTPS: u16 = 443;
