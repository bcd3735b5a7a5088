//! [`TrustRoots`]: whom we trust.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::identity::chain;
use super::{ConfigError, Fingerprint};

/// Whom to trust (Twisted: `trustRoot`, `trustRootFromCertificates`): authorities, whose word for a peer's name is taken, and single
/// certificates. Cheap to clone.
///
/// Every certificate that is given is trusted as an authority's, and as a peer's own: so one that has signed itself, as
/// `openssl req -x509` makes it, may be given as its own root. Of a peer with exactly this certificate, down to the last byte, no chain is
/// asked for; its dates, its names and the handshake's signature are verified as always.
///
/// ```no_run
/// # fn main() -> Result<(), ropewalk::tls::ConfigError> {
/// use ropewalk::tls::TrustRoots;
/// let those_of_the_system = TrustRoots::platform()?;
/// let only_ours = TrustRoots::from_directory("/etc/ours/authorities")?;
/// # drop((those_of_the_system, only_ours)); Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TrustRoots {
    pub(super) authorities: Arc<RootCertStore>,
    /// Those that are trusted as they are.
    pub(super) certificates: Arc<BTreeSet<Fingerprint>>,
}

impl TrustRoots {
    /// From PEM: every certificate in it.
    ///
    /// # Errors
    /// There is none, or one that can't be an authority's.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, ConfigError> {
        let mut roots = Collected::new("the certificates");
        roots.add_pem(certificates, "the certificates")?;
        roots.finish()
    }

    /// The certificates with these fingerprints, whoever has signed them, and no others (certificate pinning). A peer's dates, its
    /// names and the handshake's signature are verified as always.
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
    /// [`ConfigError::NoRoots`]: there are none, so no peer could be trusted.
    pub fn from_fingerprints(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Result<Self, ConfigError> {
        let mut roots = Collected::new("the fingerprints");
        roots.certificates.extend(fingerprints);
        roots.finish()
    }
}

/// Roots that are being gathered.
pub(super) struct Collected {
    store: RootCertStore,
    certificates: BTreeSet<Fingerprint>,
    from: String,
    /// What was wrong with the last that was left out.
    reason: String,
}

impl Collected {
    pub(super) fn new(from: impl Into<String>) -> Self {
        let (store, certificates) = (RootCertStore::empty(), BTreeSet::new());
        Self { store, certificates, from: from.into(), reason: "there are none".to_owned() }
    }

    /// Adds every certificate of a PEM text; all have to be good.
    pub(super) fn add_pem(&mut self, pem: &[u8], name: &str) -> Result<(), ConfigError> {
        for certificate in chain(pem, name)? {
            let unusable =
                |error: rustls::Error| ConfigError::NoRoots { source_name: name.to_owned(), reason: error.to_string() };
            self.add(certificate).map_err(unusable)?;
        }
        Ok(())
    }

    /// Adds a certificate that may be left out: stores of systems have some that nobody can use.
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

    /// Takes note of why there may be none.
    pub(super) fn note(&mut self, reason: String) {
        self.reason = reason;
    }

    /// The roots, if there are any.
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
