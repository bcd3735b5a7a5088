//! [`ServerTls`]: the configuration of a server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::Watched;
use super::verifier::Verifier;
use super::{ConfigError, HANDSHAKE_TIMEOUT, Identity, TlsVersion, TrustRoots, cryptography, provider, versions};

/// TLS configuration of a server (Twisted: `CertificateOptions`, `PrivateCertificate.options`).
/// Cheap to clone. Clones share their state: [`reload`](Self::reload) and
/// [`replace_with`](Self::replace_with) affect all of them. Sessions are resumed by tickets, so the
/// server keeps no state for each client.
///
/// ```no_run
/// use ropewalk::tls::{Identity, ServerTls};
///
/// # fn main() -> Result<(), ropewalk::tls::ConfigError> {
/// let tls = ServerTls::builder()
///     .identity(Identity::from_pem_files("example.org.pem", "example.org.key")?)
///     .identity(Identity::from_pem_files("example.com.pem", "example.com.key")?)
///     .protocols(["http/1.1"])
///     .build()?;
/// # drop(tls); Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerTls {
    /// Shared by the clones. Locked briefly when a handshake begins; no other code is called under
    /// the lock.
    current: Arc<RwLock<Current>>,
    pub(super) timeout: Option<Duration>,
}

/// The configuration of handshakes that begin now.
#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    files: Option<Arc<Watched>>,
}

impl ServerTls {
    /// Creates the default configuration: one certificate, TLS 1.2 and 1.3, no client certificates.
    ///
    /// # Errors
    /// [`ConfigError::Unusable`].
    pub fn new(identity: Identity) -> Result<Self, ConfigError> {
        Self::builder().identity(identity).build()
    }

    /// Returns a builder for a configuration with other settings.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// Sets the time limit of a handshake; `None` waits without limit, as Twisted does. The default
    /// is 30 s.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads the files of the certificates again now, on this thread, changed or not. It is for
    /// programs that are notified when a certificate was renewed. Established connections and
    /// handshakes that have begun keep their certificates.
    ///
    /// ```
    /// use ropewalk::Reactor;
    /// use ropewalk::error::SignalError;
    /// use ropewalk::reactor::{SIGHUP, SignalSubscription};
    /// use ropewalk::tls::ServerTls;
    ///
    /// fn reload_on_hangup(reactor: &Reactor, tls: &ServerTls) -> Result<SignalSubscription, SignalError> {
    ///     let tls = tls.clone();
    ///     reactor.on_signal(SIGHUP, move || match tls.reload() {
    ///         Ok(()) => println!("the certificates were read again"),
    ///         Err(error) => eprintln!("the old certificates stay: {error}"),
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// The first fault of the files. All other files have been read. A faulty file keeps its old
    /// certificate, and the log names every fault. [`ConfigError::NoFiles`] if the certificates
    /// were not read [from files](ServerTlsBuilder::build_from_directory).
    pub fn reload(&self) -> Result<(), ConfigError> {
        self.current().files.ok_or(ConfigError::NoFiles)?.reload()
    }

    /// Replaces the configuration with that of `other`, in this value and all its clones, for
    /// handshakes that begin from now on. Sessions of the old configuration are not resumed. The
    /// time limit of handshakes is not replaced.
    ///
    /// ```
    /// use ropewalk::tls::{ConfigError, Identity, ServerTls};
    ///
    /// /// Gives a listening server a new certificate.
    /// fn renew(serving: &ServerTls, certificate: &[u8], key: &[u8]) -> Result<(), ConfigError> {
    ///     serving.replace_with(&ServerTls::new(Identity::from_pem(certificate, key)?)?);
    ///     Ok(())
    /// }
    /// ```
    pub fn replace_with(&self, other: &Self) {
        let new = other.current();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Returns the configuration for a handshake that begins now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current().config
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(config: Arc<ServerConfig>, files: Option<Arc<Watched>>) -> Self {
        Self { current: Arc::new(RwLock::new(Current { config, files })), timeout: Some(HANDSHAKE_TIMEOUT) }
    }
}

/// Uses a configuration of rustls itself, of the version that this crate uses (0.23), for settings
/// that this crate does not have. Early data is never read: the protocol could not tell it from
/// data that is protected against replay.
impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self::of(config, None)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificates", &self.config().cert_resolver)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Builds a [`ServerTls`].
///
/// A server that requires client certificates, and a protocol that reads them:
///
/// ```no_run
/// use ropewalk::tls::{ConfigError, Fingerprint, Identity, ServerTls, TrustRoots};
/// use ropewalk::{Protocol, Result, Transport};
///
/// fn configuration() -> Result<ServerTls, ConfigError> {
///     ServerTls::builder()
///         .identity(Identity::from_pem_files("server.pem", "server.key")?)
///         .require_client_certificates(TrustRoots::from_pem_file("client-authority.pem")?)
///         .build()
/// }
///
/// struct Private;
///
/// impl Protocol for Private {
///     fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
///         if let Some(certificate) = transport.tls_session().and_then(|session| session.peer_certificates.into_iter().next()) {
///             println!("the client is {}", Fingerprint::of(&certificate));
///         }
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
/// # drop((configuration, Private));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ServerTlsBuilder {
    identities: Vec<Identity>,
    clients: Option<(TrustRoots, bool)>,
    protocols: Vec<Vec<u8>>,
    version: Option<TlsVersion>,
    tickets: Option<u8>,
}

impl ServerTlsBuilder {
    /// Adds a certificate. A client that asks for a name gets the first certificate for that name;
    /// any other client gets the first certificate added (Twisted: `SNIConnectionCreator`).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Requires clients to send a certificate of one of these authorities (Twisted: `trustRoot` of
    /// `CertificateOptions`).
    #[must_use]
    pub fn require_client_certificates(mut self, roots: TrustRoots) -> Self {
        self.clients = Some((roots, true));
        self
    }

    /// Lets clients send a certificate. If they do, it has to be issued by one of these
    /// authorities.
    #[must_use]
    pub fn accept_client_certificates(mut self, roots: TrustRoots) -> Self {
        self.clients = Some((roots, false));
        self
    }

    /// Sets the protocols to select from by ALPN, in order of preference (Twisted:
    /// `acceptableProtocols`). A client that offers only others is refused; a client that offers
    /// none is accepted.
    #[must_use]
    pub fn protocols(mut self, protocols: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.protocols = protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        self
    }

    /// Restricts TLS to one version, instead of 1.2 and 1.3.
    #[must_use]
    pub fn only_version(mut self, version: TlsVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets the number of tickets that a client gets for each handshake of TLS 1.3; each resumes
    /// one session. The default is 2. 0 turns resumption off, in TLS 1.2 as well, where a client
    /// gets one.
    ///
    /// The tickets of TLS 1.3 are sent with the server's first answer, or at its end. If they were
    /// sent at once, a client that only sends, and closes without reading, would answer them with a
    /// reset, and its last bytes would be lost.
    #[must_use]
    pub fn session_tickets(mut self, count: u8) -> Self {
        self.tickets = Some(count);
        self
    }

    /// Builds the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no certificate, or some settings do not fit together.
    pub fn build(self) -> Result<ServerTls, ConfigError> {
        let missing = || ConfigError::Missing { what: "certificate", source_name: "the configuration".to_owned() };
        let names = Names::new(&self.identities).ok_or_else(missing)?;
        self.build_with(Arc::new(names), None)
    }

    /// Builds the configuration with certificates from another source.
    pub(super) fn build_with(
        self,
        certificates: Arc<dyn ResolvesServerCert>,
        files: Option<Arc<Watched>>,
    ) -> Result<ServerTls, ConfigError> {
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_protocol_versions(versions(self.version)).map_err(ConfigError::Unusable)?;
        let config = match self.clients {
            None => config.with_no_client_auth(),
            Some((roots, is_required)) => {
                config.with_client_cert_verifier(Arc::new(Verifier::of_clients(roots, is_required)?))
            }
        };
        let mut config = config.with_cert_resolver(certificates);
        config.send_tls13_tickets = self.tickets.unwrap_or(TICKETS).into();
        if config.send_tls13_tickets == 0 {
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.ticketer = cryptography::Ticketer::new().map_err(ConfigError::Unusable)?;
        }
        config.alpn_protocols = self.protocols;
        Ok(ServerTls::of(Arc::new(config), files))
    }
}

/// The number that browsers ask for and rustls sends: one for the next connection, and one for a
/// parallel one.
const TICKETS: u8 = 2;

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Names {
    first: Identity,
    by_name: BTreeMap<String, Identity>,
}

impl Names {
    /// Indexes certificates by their names. Returns `None` if there are none.
    pub(super) fn new(identities: &[Identity]) -> Option<Self> {
        let mut by_name = BTreeMap::new();
        for identity in identities {
            for name in identity.names() {
                by_name.entry(name).or_insert_with(|| identity.clone());
            }
        }
        Some(Self { first: identities.first()?.clone(), by_name })
    }

    /// Returns the certificate for a name in lower case: one for that name, or a wildcard of its
    /// domain.
    pub(super) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let any = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let found = self.by_name.get(name).or_else(|| self.by_name.get(&any?))?;
        Some(Arc::clone(&found.0))
    }

    pub(super) fn first(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.first.0)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The TLS library has put the name into lower case.
        hello.server_name().and_then(|name| self.find(name)).or_else(|| Some(self.first()))
    }
}
