//! [`TrustRoots`]: the trusted certificates.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::identity::chain;
use super::{ConfigError, Fingerprint};

/// Trusted authorities and individually trusted certificates (Twisted: `trustRoot`,
/// `trustRootFromCertificates`). An authority vouches for the names of peers. Cheap to clone.
///
/// Every given certificate is trusted as an authority's, and as a peer's own. So a self-signed
/// certificate, as `openssl req -x509` makes it, may be given as its own root. A peer with exactly
/// this certificate, down to the last byte, needs no chain. Its dates, its names and the
/// handshake's signature are verified as always.
///
/// ```no_run
/// # fn main() -> Result<(), ropewalk::tls::ConfigError> {
/// use ropewalk::tls::TrustRoots;
/// let system_roots = TrustRoots::platform()?;
/// let own_roots = TrustRoots::from_directory("/etc/ours/authorities")?;
/// # drop((system_roots, own_roots)); Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TrustRoots {
    pub(super) authorities: Arc<RootCertStore>,
    /// Certificates that are trusted individually.
    pub(super) certificates: Arc<BTreeSet<Fingerprint>>,
}

impl TrustRoots {
    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// There is no certificate, or one that cannot be an authority's.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, ConfigError> {
        let mut roots = Collected::new("the certificates");
        roots.add_pem(certificates, "the certificates")?;
        roots.finish()
    }

    /// Trusts the certificates with these fingerprints, regardless of their issuers, and no others
    /// (certificate pinning). A peer's dates, its names and the handshake's signature are verified
    /// as always.
    ///
    /// ```
    /// use ropewalk::tls::{ClientTls, ConfigError, Fingerprint, TrustRoots};
    ///
    /// fn only(fingerprint: Fingerprint, name: &str) -> Result<ClientTls, ConfigError> {
    ///     ClientTls::builder().trust_roots(TrustRoots::from_fingerprints([fingerprint])?).for_server(name)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] if there are none, so that no peer could be trusted.
    pub fn from_fingerprints(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Result<Self, ConfigError> {
        let mut roots = Collected::new("the fingerprints");
        roots.certificates.extend(fingerprints);
        roots.finish()
    }
}

/// Roots under construction.
pub(super) struct Collected {
    store: RootCertStore,
    certificates: BTreeSet<Fingerprint>,
    from: String,
    /// The fault of the last certificate that was skipped.
    reason: String,
}

impl Collected {
    pub(super) fn new(from: impl Into<String>) -> Self {
        let (store, certificates) = (RootCertStore::empty(), BTreeSet::new());
        Self { store, certificates, from: from.into(), reason: "none was found".to_owned() }
    }

    /// Adds every certificate of a PEM text; all have to be usable.
    pub(super) fn add_pem(&mut self, pem: &[u8], name: &str) -> Result<(), ConfigError> {
        for certificate in chain(pem, name)? {
            let unusable =
                |error: rustls::Error| ConfigError::NoRoots { source_name: name.to_owned(), reason: error.to_string() };
            self.add(certificate).map_err(unusable)?;
        }
        Ok(())
    }

    /// Adds a certificate, or skips it if it is unusable: stores of operating systems contain some
    /// unusable ones.
    pub(super) fn add_if_good(&mut self, certificate: CertificateDer<'static>) {
        if let Err(error) = self.add(certificate) {
            self.reason = error.to_string();
        }
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        let fingerprint = Fingerprint::of(&certificate);
        self.store.add(certificate)?;
        self.certificates.insert(fingerprint);
        Ok(())
    }

    /// Records a reason why there may be no roots.
    pub(super) fn note(&mut self, reason: String) {
        self.reason = reason;
    }

    /// Returns the roots, if there are any.
    pub(super) fn finish(self) -> Result<TrustRoots, ConfigError> {
        let Self { store, certificates, from: source_name, reason } = self;
        if certificates.is_empty() {
            Err(ConfigError::NoRoots { source_name, reason })
        } else {
            Ok(TrustRoots { authorities: Arc::new(store), certificates: Arc::new(certificates) })
        }
    }
}

impl fmt::Debug for TrustRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRoots").field("count", &self.certificates.len()).finish()
    }
}
