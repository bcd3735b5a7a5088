//! [`Refusal`]: a verifier's reason, which passes through the TLS library to `error.rs`.

use super::Fingerprint;

/// Why a certificate is refused, where the TLS library has no word for it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the certificate is an authority's")]
    Authority { fingerprint: Fingerprint },
    #[error("the certificate is none of those that were named")]
    NotNamed { fingerprint: Fingerprint },
    #[error("{kind} is of no use")]
    UnusableKey { kind: String },
}
