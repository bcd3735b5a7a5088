//! [`ClientTls`]: the configuration of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use super::verifier::Verifier;
use super::{ConfigError, HANDSHAKE_TIMEOUT, Identity, TlsVersion, TrustRoots, provider, server_name, versions};

/// TLS configuration of a client for one server (Twisted: `optionsForClientTLS`). Cheap to clone.
/// Clones, and copies made by [`with_server_name`](Self::with_server_name), resume one another's
/// sessions with the same server.
///
/// ```no_run
/// use ropewalk::tls::{ClientTls, TrustRoots};
///
/// # fn main() -> Result<(), ropewalk::tls::ConfigError> {
/// let usual = ClientTls::for_server("example.org")?;
/// let special = ClientTls::builder()
///     .trust_roots(TrustRoots::from_pem_file("our-authority.pem")?)
///     .protocols(["h2", "http/1.1"])
///     .for_server("internal.example.org")?;
/// # drop((usual, special)); Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) timeout: Option<Duration>,
}

impl ClientTls {
    /// Creates the default configuration: the platform's trust roots, TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`ConfigError`] if `name` cannot be a server's name, or the platform has no roots.
    pub fn for_server(name: &str) -> Result<Self, ConfigError> {
        Self::builder().for_server(name)
    }

    /// Returns a builder for a configuration with other settings.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// Returns the same configuration for another server.
    ///
    /// # Errors
    /// [`ConfigError::BadName`].
    pub fn with_server_name(&self, name: &str) -> Result<Self, ConfigError> {
        Ok(Self { name: server_name(name)?, ..self.clone() })
    }

    /// Uses a configuration of rustls itself, of the version that this crate uses (0.23), for
    /// settings that this crate does not have. Verification is done as that configuration defines
    /// it.
    ///
    /// # Errors
    /// [`ConfigError::BadName`].
    pub fn from_rustls(config: impl Into<Arc<ClientConfig>>, name: &str) -> Result<Self, ConfigError> {
        Ok(Self { config: config.into(), name: server_name(name)?, timeout: Some(HANDSHAKE_TIMEOUT) })
    }

    /// Sets the time limit of a handshake; `None` waits without limit, as Twisted does. The default
    /// is 30 s.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Builds a [`ClientTls`].
#[derive(Debug, Clone, Default)]
pub struct ClientTlsBuilder {
    roots: Option<TrustRoots>,
    identity: Option<Identity>,
    protocols: Vec<Vec<u8>>,
    version: Option<TlsVersion>,
}

impl ClientTlsBuilder {
    /// Sets the trust roots, instead of the platform's (Twisted: `trustRoot`).
    #[must_use]
    pub fn trust_roots(mut self, roots: TrustRoots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Sets the certificate that is sent to servers which ask for one (Twisted:
    /// `clientCertificate`).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the protocols to offer by ALPN, in order of preference (Twisted:
    /// `acceptableProtocols`).
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

    /// Builds the configuration for the server of this name, or address.
    ///
    /// # Errors
    /// [`ConfigError`] if `name` cannot be a server's name, or if no roots were given and the
    /// platform has none.
    pub fn for_server(self, name: &str) -> Result<ClientTls, ConfigError> {
        let name = server_name(name)?;
        let roots = self.roots.map_or_else(TrustRoots::platform, Ok)?;
        let config = ClientConfig::builder_with_provider(provider());
        let config = config.with_protocol_versions(versions(self.version)).map_err(ConfigError::Unusable)?;
        // rustls calls every foreign verifier dangerous. Ours delegates to that of rustls, except
        // for certificates that are trusted individually.
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::of_servers(roots)?));
        let mut config = match self.identity {
            Some(Identity(key)) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols;
        Ok(ClientTls { config: Arc::new(config), name, timeout: Some(HANDSHAKE_TIMEOUT) })
    }
}
