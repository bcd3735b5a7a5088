//! [`Refusal`]: a verifier's reason, which passes through the TLS library to `error.rs`.

use super::Fingerprint;

/// The reason why a certificate is refused, for reasons that the TLS library has no variant for.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the certificate is an authority's")]
    Authority { fingerprint: Fingerprint },
    #[error("the certificate is not among the trusted ones")]
    NotNamed { fingerprint: Fingerprint },
    #[error("{kind} is not supported")]
    UnusableKey { kind: String },
}
