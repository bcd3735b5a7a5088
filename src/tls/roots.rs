//! [`TrustRoots`]: whom we trust.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;

use super::ConfigError;
use super::identity::chain;

/// The authorities whose word for a peer's name is taken (Twisted: `trustRoot`, `trustRootFromCertificates`). Cheap to clone.
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
pub struct TrustRoots(pub(super) Arc<RootCertStore>);

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
}

/// Roots that are being gathered.
pub(super) struct Collected {
    store: RootCertStore,
    from: String,
    /// What was wrong with the last that was left out.
    reason: String,
}

impl Collected {
    pub(super) fn new(from: impl Into<String>) -> Self {
        Self { store: RootCertStore::empty(), from: from.into(), reason: "there are none".to_owned() }
    }

    /// Adds every certificate of a PEM text; all have to be good.
    pub(super) fn add_pem(&mut self, pem: &[u8], name: &str) -> Result<(), ConfigError> {
        for certificate in chain(pem, name)? {
            let reason = |error: rustls::Error| error.to_string();
            self.store
                .add(certificate)
                .map_err(|error| ConfigError::NoRoots { source_name: name.to_owned(), reason: reason(error) })?;
        }
        Ok(())
    }

    /// Adds a certificate that may be left out: stores of systems have some that nobody can use.
    pub(super) fn add_if_good(&mut self, certificate: rustls::pki_types::CertificateDer<'static>) {
        if let Err(error) = self.store.add(certificate) {
            self.reason = error.to_string();
        }
    }

    /// Takes note of why there may be none.
    pub(super) fn note(&mut self, reason: String) {
        self.reason = reason;
    }

    /// The roots, if there are any.
    pub(super) fn finish(self) -> Result<TrustRoots, ConfigError> {
        let Self { store, from: source_name, reason } = self;
        if store.is_empty() {
            Err(ConfigError::NoRoots { source_name, reason })
        } else {
            Ok(TrustRoots(Arc::new(store)))
        }
    }
}

impl fmt::Debug for TrustRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRoots").field("count", &self.0.len()).finish()
    }
}
