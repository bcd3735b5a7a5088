//! [`ServerTls`]: what a server needs.

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

/// How a server does TLS (Twisted: `CertificateOptions`, `PrivateCertificate.options`). Cheap to clone, and clones stay one: what
/// [`reload`](Self::reload) and [`replace_with`](Self::replace_with) change, changes for all of them. Sessions are resumed by tickets,
/// for which the server keeps nothing for each client.
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
    /// Shared by the clones. Locked when a handshake begins, and never while anything is called.
    current: Arc<RwLock<Current>>,
    pub(super) timeout: Option<Duration>,
}

/// What a handshake that begins now is given.
#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    files: Option<Arc<Watched>>,
}

impl ServerTls {
    /// The usual: one certificate, TLS 1.2 and 1.3, and clients need not say who they are.
    ///
    /// # Errors
    /// [`ConfigError::Unusable`].
    pub fn new(identity: Identity) -> Result<Self, ConfigError> {
        Self::builder().identity(identity).build()
    }

    /// To say more.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// How long a handshake may take; `None` waits without limit, as Twisted does. 30 s unless set.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads the files of the certificates again now, on this thread, whether they have changed or not. For programs that are told
    /// when a certificate was renewed. Connections that are there keep what they have, and so do handshakes that have begun.
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
    /// The first thing that is wrong with the files. All else has been read, and what was wrong keeps the old certificate; the log
    /// names all of it. [`ConfigError::NoFiles`]: the certificates did not come
    /// [from files](ServerTlsBuilder::build_from_directory).
    pub fn reload(&self) -> Result<(), ConfigError> {
        self.current().files.ok_or(ConfigError::NoFiles)?.reload()
    }

    /// Replaces the configuration by another's, in this value and all its clones: for handshakes that begin from now on. Sessions of
    /// the old configuration are not resumed. The time limit of handshakes stays what it is.
    ///
    /// ```
    /// use ropewalk::tls::{ConfigError, Identity, ServerTls};
    ///
    /// /// Gives a server that listens a new certificate.
    /// fn renew(serving: &ServerTls, certificate: &[u8], key: &[u8]) -> Result<(), ConfigError> {
    ///     serving.replace_with(&ServerTls::new(Identity::from_pem(certificate, key)?)?);
    ///     Ok(())
    /// }
    /// ```
    pub fn replace_with(&self, other: &Self) {
        let new = other.current();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// The configuration for a handshake that begins.
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

/// With a configuration of rustls' own, of the version that this crate uses (0.23), for what has no setting here. Early data is never
/// read: the protocol could not know it from what is safe against replay.
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

/// Makes a [`ServerTls`].
#[derive(Debug, Clone, Default)]
pub struct ServerTlsBuilder {
    identities: Vec<Identity>,
    clients: Option<(TrustRoots, bool)>,
    protocols: Vec<Vec<u8>>,
    version: Option<TlsVersion>,
    tickets: Option<u8>,
}

impl ServerTlsBuilder {
    /// Adds a certificate. Clients that ask for a name are shown the first certificate that is for it, all others the first of
    /// all (Twisted: `SNIConnectionCreator`).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Clients have to show a certificate of one of these authorities (Twisted: `trustRoot` of `CertificateOptions`).
    #[must_use]
    pub fn require_client_certificates(mut self, roots: TrustRoots) -> Self {
        self.clients = Some((roots, true));
        self
    }

    /// Clients may show a certificate; if they do, it has to be one of these authorities'.
    #[must_use]
    pub fn accept_client_certificates(mut self, roots: TrustRoots) -> Self {
        self.clients = Some((roots, false));
        self
    }

    /// The protocols that are spoken, the best first (Twisted: `acceptableProtocols`). A client that names others only is
    /// refused; one that names none is not.
    #[must_use]
    pub fn protocols(mut self, protocols: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.protocols = protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        self
    }

    /// One version of TLS only, instead of 1.2 and 1.3.
    #[must_use]
    pub fn only_version(mut self, version: TlsVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// How many tickets a client gets for each handshake of TLS 1.3, each of which resumes one session. 2 unless set. 0 turns
    /// resumption off, in TLS 1.2 as well, where a client gets one.
    ///
    /// The tickets of TLS 1.3 are sent with the server's first answer, or with its end: a client that only sends, and closes
    /// without reading, would answer them with a reset, and its last bytes would be lost.
    #[must_use]
    pub fn session_tickets(mut self, count: u8) -> Self {
        self.tickets = Some(count);
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`ConfigError`]: there is no certificate, or something does not fit together.
    pub fn build(self) -> Result<ServerTls, ConfigError> {
        let missing = || ConfigError::Missing { what: "certificate", source_name: "what was given".to_owned() };
        let names = Names::new(&self.identities).ok_or_else(missing)?;
        self.build_with(Arc::new(names), None)
    }

    /// The same with certificates from elsewhere.
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

/// As many as browsers ask for and rustls sends: one for the next connection, and one for another beside it.
const TICKETS: u8 = 2;

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Names {
    first: Identity,
    by_name: BTreeMap<String, Identity>,
}

impl Names {
    /// `None`: there are no certificates.
    pub(super) fn new(identities: &[Identity]) -> Option<Self> {
        let mut by_name = BTreeMap::new();
        for identity in identities {
            for name in identity.names() {
                by_name.entry(name).or_insert_with(|| identity.clone());
            }
        }
        Some(Self { first: identities.first()?.clone(), by_name })
    }

    /// The certificate for a name in lower case: one that is for it, or for all names of its domain.
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
        // The library has put it into lower case.
        hello.server_name().and_then(|name| self.find(name)).or_else(|| Some(self.first()))
    }
}
