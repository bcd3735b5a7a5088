//! [`Identity`]: a certificate and its key.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::{ConfigError, provider};

/// A certificate, its chain up to an authority, and the private key (Twisted:
/// `PrivateCertificate`). It identifies a server or a client. Cheap to clone.
///
/// ```no_run
/// # fn main() -> Result<(), ropewalk::tls::ConfigError> {
/// use ropewalk::tls::Identity;
/// let identity = Identity::from_pem_files("fullchain.pem", "privkey.pem")?;
/// # drop(identity); Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

impl Identity {
    /// Reads an identity from PEM: the certificate first, followed by its intermediate
    /// certificates. The key is in PKCS #8, PKCS #1 or SEC1. Other items in either text are
    /// skipped, so both may be the same text.
    ///
    /// # Errors
    /// The certificate or the key is missing or of an unsupported kind, or they do not belong
    /// together.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        let chain = chain(certificates, "the certificates")?;
        let key = private_key(key, "the key").map_err(|error| error.of_key(&chain))?;
        Self::of(chain, key)
    }

    /// Creates an identity from a chain and a key, and checks that they belong together.
    pub(super) fn of(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<Self, ConfigError> {
        let identity = Self::with_key(chain, key);
        identity.0.keys_match().map_err(ConfigError::Unusable)?;
        Ok(identity)
    }

    /// Creates an identity whose key is known to belong to the certificate.
    pub(super) fn with_key(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Self {
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }

    /// Returns the host names of the certificate, in lower case; a name may start with `*.`.
    pub(super) fn names(&self) -> Vec<String> {
        let parsed = self.0.cert.first().and_then(|certificate| webpki::EndEntityCert::try_from(certificate).ok());
        let names = parsed.iter().flat_map(|certificate| certificate.valid_dns_names());
        names.map(str::to_ascii_lowercase).collect()
    }
}

/// Returns the certificates of a PEM text, at least one.
pub(super) fn chain(pem: &[u8], source_name: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let missing = || ConfigError::Missing { what: "certificate", source_name: source_name.to_owned() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(missing)
}

/// Returns the first private key of a PEM text.
pub(super) fn private_key(pem: &[u8], source_name: &str) -> Result<Arc<dyn SigningKey>, ConfigError> {
    let missing = |_| ConfigError::Missing { what: "private key", source_name: source_name.to_owned() };
    signing_key(PrivateKeyDer::from_pem_slice(pem).map_err(missing)?, source_name)
}

/// Converts a private key to one that can sign.
pub(super) fn signing_key(key: PrivateKeyDer<'static>, source_name: &str) -> Result<Arc<dyn SigningKey>, ConfigError> {
    let unusable = |source| ConfigError::UnusableKey { source_name: source_name.to_owned(), kind: None, source };
    provider().key_provider.load_private_key(key).map_err(unusable)
}

impl fmt::Debug for Identity {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names()).finish_non_exhaustive()
    }
}
