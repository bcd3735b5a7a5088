//! Errors of TLS connections ([`TlsError`]) and of their configuration ([`ConfigError`]).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error};

use super::refusal::Refusal;
use super::{Fingerprint, keys};
use crate::address::BadHostName;
use crate::failure::Panicked;

/// The reason why a TLS connection did not end cleanly (Twisted: `OpenSSL.SSL.Error`), as
/// `connection_lost` receives it. If the peer ends the connection without ending TLS, the reason is
/// [`ConnectionClosed::Truncated`](crate::error::ConnectionClosed::Truncated) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate is for other names.
    #[error("the peer's certificate is not for {expected}, but for {}", list(.presented))]
    WrongName {
        /// The expected name.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The peer's certificate, or one above it, has expired.
    #[error("the peer's certificate has expired{}", span(.since, "ago"))]
    Expired {
        /// Time since it expired.
        since: Option<Duration>,
    },
    /// The peer's certificate, or one above it, is not valid yet.
    #[error("the peer's certificate is not valid yet{}", span(.until, "to go"))]
    NotYetValid {
        /// Time until it becomes valid.
        until: Option<Duration>,
    },
    /// The peer's certificate is not signed by a trusted authority: it is self-signed, or signed by
    /// an unknown one.
    #[error("the peer's certificate is self-signed, or its issuer is not trusted")]
    UnknownIssuer,
    /// The peer's certificate is an authority's (`CA:TRUE`), and not one that is trusted
    /// individually; see [`TrustRoots`](super::TrustRoots).
    #[error(
        "the peer's certificate is an authority's (CA:TRUE), which is accepted only if it is trusted individually; its SHA-256 fingerprint is {fingerprint}"
    )]
    AuthorityCertificate {
        /// Its fingerprint, with which it can be trusted.
        fingerprint: Fingerprint,
    },
    /// The peer's certificate is not among those whose
    /// [fingerprints](super::TrustRoots::from_fingerprints) are trusted.
    #[error("the peer's certificate is not among the trusted ones; its SHA-256 fingerprint is {fingerprint}")]
    WrongFingerprint {
        /// The fingerprint of the peer's certificate.
        fingerprint: Fingerprint,
    },
    /// The key of the peer's certificate, or of one above it, is of a kind that is not supported.
    #[error("the peer's certificate, or one above it, has {kind}: expected {}", keys::USABLE)]
    UnusableKey {
        /// Kind and length of the key: "an RSA key of 1024 bits".
        kind: String,
    },
    /// The peer's certificate was revoked.
    #[error("the peer's certificate was revoked")]
    Revoked,
    /// The peer's certificate is unacceptable in another way: for example, issued for another
    /// purpose, or malformed.
    #[error("the peer's certificate is not acceptable: {what}")]
    BadCertificate {
        /// A description of the fault.
        what: String,
    },
    /// The peer has to send a certificate, and has sent none.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// The peer ended TLS with an alert.
    #[error("the peer ended TLS: {alert}{}", hint(.alert))]
    Alert {
        /// The alert, by its registered name.
        alert: String,
    },
    /// The received bytes are not TLS.
    #[error("the peer does not speak TLS: {what}")]
    NotTls {
        /// A description of the fault.
        what: String,
    },
    /// No version, cipher suite or key exchange is supported by both sides.
    #[error("the peer and this side have no TLS parameters in common: {what}")]
    NothingInCommon {
        /// The missing parameter.
        what: String,
    },
    /// No protocol was offered by both sides in ALPN.
    #[error("the peer and this side have no ALPN protocol in common")]
    NoCommonProtocol,
    /// The peer violated the TLS protocol, or its bytes were modified on the way.
    #[error("the peer violated the TLS protocol: {what}")]
    Refused {
        /// A description of the violation.
        what: String,
    },
    /// The handshake did not complete in time.
    #[error("the TLS handshake timed out after {after:?}")]
    HandshakeTimedOut {
        /// The time limit.
        after: Duration,
    },
    /// The peer ended the connection during the handshake.
    #[error("the peer ended the connection during the TLS handshake")]
    HandshakeCut,
    /// The keys of this connection have encrypted as much as they may (TLS 1.2 cannot change them).
    #[error("the keys of this TLS connection are exhausted")]
    KeysUsedUp,
    /// Any other error of the TLS library.
    #[error("TLS failed")]
    Other(#[source] Error),
    /// The TLS library panicked, or a verifier that it was given.
    #[error("TLS failed")]
    Panicked(#[source] Panicked),
}

impl TlsError {
    /// Converts an error of rustls, which occurred in a handshake or after it.
    pub(super) fn of(error: Error, was_ready: bool) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => Self::Alert { alert: name(alert) },
            Error::InvalidMessage(what) if !was_ready => Self::NotTls { what: format!("{what:?}") },
            Error::PeerIncompatible(what) => Self::NothingInCommon { what: format!("{what:?}") },
            Error::NoApplicationProtocol => Self::NoCommonProtocol,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Self::Refused { what: error.to_string() },
            other => Self::Other(other),
        }
    }

    fn of_certificate(error: CertificateError) -> Self {
        match error {
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented = presented.iter().map(|name| readable(name)).collect();
                Self::WrongName { expected: expected.to_str().into_owned(), presented }
            }
            CertificateError::Expired => Self::Expired { since: None },
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { since: seconds_between(not_after.as_secs(), time.as_secs()) }
            }
            CertificateError::NotValidYet => Self::NotYetValid { until: None },
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { until: seconds_between(time.as_secs(), not_before.as_secs()) }
            }
            // `BadSignature` means that the certificate names a trusted authority which has not
            // signed it.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::Other(cause) => match cause.0.downcast_ref() {
                Some(Refusal::Authority { fingerprint }) => Self::AuthorityCertificate { fingerprint: *fingerprint },
                Some(Refusal::NotNamed { fingerprint }) => Self::WrongFingerprint { fingerprint: *fingerprint },
                Some(Refusal::UnusableKey { kind }) => Self::UnusableKey { kind: kind.clone() },
                None => Self::BadCertificate { what: cause.to_string() },
            },
            other => Self::BadCertificate { what: other.to_string() },
        }
    }
}

/// The reason why a TLS configuration is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or a folder cannot be read.
    #[error("cannot read {path:?}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A text that should be PEM is not, or does not contain the expected item.
    #[error("there is no {what} in PEM format in {source_name}")]
    Missing {
        /// The expected item.
        what: &'static str,
        /// The name of the source.
        source_name: String,
    },
    /// The private key cannot be read, or is of a kind that the TLS library does not support.
    #[error("the private key in {source_name} cannot be used{}: expected {}", aside(.kind), keys::USABLE)]
    UnusableKey {
        /// The name of the source.
        source_name: String,
        /// Kind and length of the key, if the certificate states it: "an ECDSA key on P-521".
        kind: Option<String>,
        /// The error of the TLS library.
        source: Error,
    },
    /// The private key of a certificate is not in the folder: the key there is another's, or the
    /// file is not written yet.
    #[error("there is no private key for the certificate in {path:?}")]
    NoKey {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The configuration was not made from files, so there are none to read again.
    #[error("the certificates were not read from files, so they cannot be reloaded")]
    NoFiles,
    /// There are no roots: no authority would be trusted, so no peer could be.
    #[error("there is no usable certificate of an authority in {source_name}: {reason}")]
    NoRoots {
        /// The name of the source.
        source_name: String,
        /// The fault of the certificates found there.
        reason: String,
    },
    /// The name is neither a host name nor an address.
    #[error("{name:?} cannot be the name of a server's certificate: expected a host name or an IP address")]
    BadName {
        /// The name.
        name: String,
        /// The rule of host names that it violates, if it is one of those.
        source: Option<BadHostName>,
    },
    /// The TLS library does not accept the configuration: for example, a key does not match its
    /// certificate, or is of an unsupported kind.
    #[error("the TLS configuration is not usable")]
    Unusable(#[source] Error),
}

impl ConfigError {
    /// Adds the kind of the key of this chain's certificate to the error.
    pub(super) fn of_key(mut self, chain: &[CertificateDer<'_>]) -> Self {
        if let Self::UnusableKey { kind, .. } = &mut self {
            *kind = chain.first().and_then(keys::unusable_of);
        }
        self
    }

    /// Returns the error with its cause, in one line.
    pub(super) fn with_cause(&self) -> String {
        use std::error::Error as _;
        self.source().map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name (only subjectAltName counts)".to_owned() } else { names.join(", ") }
}

/// Returns a name of a certificate in readable form: `localhost` for `DnsName("localhost")`, which
/// is the form of the TLS library. The name is the peer's choice, so non-printing characters are
/// escaped.
fn readable(name: &str) -> String {
    let (kind, inner) = name.strip_suffix(')').and_then(|name| name.split_once('(')).unwrap_or((name, name));
    let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(inner);
    match kind {
        "DirectoryName" => "a directory name".to_owned(),
        "Unsupported" => "a name of an unsupported kind".to_owned(),
        _ => inner.escape_debug().to_string(),
    }
}

/// Explains an alert that says little by itself.
fn hint(alert: &str) -> String {
    match alert {
        "handshake_failure" => format!(
            " (the peer and this side have no TLS version, cipher suite or kind of certificate in common; supported are {})",
            keys::USABLE
        ),
        _ => String::new(),
    }
}

fn aside(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

fn span(time: &Option<Duration>, which: &str) -> String {
    time.map(|time| format!(" ({time:?} {which})")).unwrap_or_default()
}

fn seconds_between(earlier: u64, later: u64) -> Option<Duration> {
    later.checked_sub(earlier).map(Duration::from_secs)
}

/// Returns the registered name of an alert: `unknown_ca` for `UnknownCA` of the library.
fn name(alert: AlertDescription) -> String {
    let Some(camel) = alert.as_str() else { return format!("alert {}", u8::from(alert)) };
    let mut snake = String::new();
    let mut letters = camel.chars().peekable();
    let mut before_was_upper = true;
    while let Some(letter) = letters.next() {
        let begins =
            letter.is_uppercase() && (!before_was_upper || letters.peek().is_some_and(|next| next.is_lowercase()));
        if begins && !snake.is_empty() {
            snake.push('_');
        }
        before_was_upper = letter.is_uppercase();
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of other kinds than DNS are readable too, and a name with which a peer would forge a
    /// line of the log is escaped.
    #[test]
    fn names_are_readable() {
        for (given, expected) in [
            ("DnsName(\"*.example.org\")", "*.example.org"),
            ("IpAddress(192.0.2.1)", "192.0.2.1"),
            ("IpAddress(2001:db8::1)", "2001:db8::1"),
            ("UniformResourceIdentifier(\"spiffe://a(b)\")", "spiffe://a(b)"),
            ("DirectoryName", "a directory name"),
            ("Unsupported(0x01)", "a name of an unsupported kind"),
            ("DnsName(\"a\nERROR \x1b[1m\")", "a\\nERROR \\u{1b}[1m"),
            ("example.org", "example.org"),
            ("", ""),
        ] {
            assert_eq!(readable(given), expected);
        }
    }

    #[test]
    fn alerts_have_their_registered_names() {
        for (alert, expected) in [
            (AlertDescription::CloseNotify, "close_notify"),
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (AlertDescription::NoApplicationProtocol, "no_application_protocol"),
            (AlertDescription::Unknown(77), "alert 77"),
        ] {
            assert_eq!(name(alert), expected);
        }
    }
}
