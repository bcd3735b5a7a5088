//! What goes wrong in TLS ([`TlsError`]), and in saying how it is to be done ([`ConfigError`]).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error};

use super::refusal::Refusal;
use super::{Fingerprint, keys};
use crate::address::BadHostName;
use crate::failure::Panicked;

/// Why a TLS connection ended otherwise than cleanly (Twisted: `OpenSSL.SSL.Error`): the reason that `connection_lost` is given. A
/// peer that ends the connection without ending TLS is not here, but
/// [`ConnectionClosed::Truncated`](crate::error::ConnectionClosed::Truncated).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate is for other names.
    #[error("the peer's certificate is not for {expected}, but for {}", list(.presented))]
    WrongName {
        /// The name that it should be for.
        expected: String,
        /// Those that it is for.
        presented: Vec<String>,
    },
    /// The peer's certificate, or one above it, has expired.
    #[error("the peer's certificate has expired{}", span(.since, "ago"))]
    Expired {
        /// How long it has been so.
        since: Option<Duration>,
    },
    /// The peer's certificate, or one above it, is not valid yet.
    #[error("the peer's certificate is not valid yet{}", span(.until, "to go"))]
    NotYetValid {
        /// How long it will be so.
        until: Option<Duration>,
    },
    /// Nobody whom we trust has signed the peer's certificate: it is self-signed, or of an authority that is not ours.
    #[error("the peer's certificate is self-signed, or signed by nobody whom we trust")]
    UnknownIssuer,
    /// The peer's certificate is an authority's (`CA:TRUE`), and not one that is trusted by itself: see [`TrustRoots`](super::TrustRoots).
    #[error(
        "the peer's certificate is an authority's (CA:TRUE), and would have to be trusted by itself; its SHA-256 fingerprint is {fingerprint}"
    )]
    AuthorityCertificate {
        /// To trust it by.
        fingerprint: Fingerprint,
    },
    /// The peer's certificate is none of those whose [fingerprints](super::TrustRoots::from_fingerprints) are trusted.
    #[error("the peer's certificate is none of those that are trusted; its SHA-256 fingerprint is {fingerprint}")]
    WrongFingerprint {
        /// That of its certificate.
        fingerprint: Fingerprint,
    },
    /// The key of the peer's certificate, or of one above it, is of a kind that is not supported.
    #[error("the peer's certificate, or one above it, has {kind}: expected {}", keys::USABLE)]
    UnusableKey {
        /// Its kind and length: "an RSA key of 1024 bits".
        kind: String,
    },
    /// The peer's certificate was revoked.
    #[error("the peer's certificate was revoked")]
    Revoked,
    /// The peer's certificate is wrong in another way: made for another purpose, not readable.
    #[error("the peer's certificate is not acceptable: {what}")]
    BadCertificate {
        /// In which.
        what: String,
    },
    /// The peer has to show a certificate, and has shown none.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The peer gave up, and said why.
    #[error("the peer ended TLS: {alert}{}", hint(.alert))]
    Alert {
        /// What it said, by its registered name.
        alert: String,
    },
    /// What came is not TLS.
    #[error("the peer does not speak TLS: {what}")]
    NotTls {
        /// What is wrong with it.
        what: String,
    },
    /// There is no version, cipher suite or key exchange that both sides know.
    #[error("the peer has no kind of TLS in common with us: {what}")]
    NothingInCommon {
        /// What is missing.
        what: String,
    },
    /// There is no protocol that both sides named for ALPN.
    #[error("none of the protocols that the peer named is one of ours")]
    NoCommonProtocol,
    /// The peer broke the rules of TLS, or somebody has changed what it sent.
    #[error("the peer broke the rules of TLS: {what}")]
    Refused {
        /// How.
        what: String,
    },
    /// The handshake was not done in time.
    #[error("the TLS handshake was not done after {after:?}")]
    HandshakeTimedOut {
        /// The time that it had.
        after: Duration,
    },
    /// The peer ended the connection during the handshake.
    #[error("the peer ended the connection during the TLS handshake")]
    HandshakeCut,
    /// So much was sent that the keys of this connection may not be used any more (TLS 1.2 can't change them).
    #[error("the keys of this TLS connection are used up")]
    KeysUsedUp,
    /// Anything else that the TLS library says.
    #[error("TLS failed")]
    Other(#[source] Error),
    /// The TLS library, or a verifier that was given to it, panicked.
    #[error("TLS failed")]
    Panicked(#[source] Panicked),
}

impl TlsError {
    /// What an error of rustls means, in a handshake or after it.
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
            // The second: it names an authority that we trust, which has not signed it.
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

/// Why TLS can't be done in the way that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or a folder can't be read.
    #[error("cannot read {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What should be PEM is none, or has no such thing in it.
    #[error("there is no {what} in PEM format in {source_name}")]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// Where.
        source_name: String,
    },
    /// The private key can't be read, or is of a kind that the TLS library does not know.
    #[error("the private key in {source_name} can't be used{}: expected {}", aside(.kind), keys::USABLE)]
    UnusableKey {
        /// Where it is.
        source_name: String,
        /// Its kind and length, if the certificate says it: "an ECDSA key on P-521".
        kind: Option<String>,
        /// What the TLS library said.
        source: Error,
    },
    /// A certificate's private key is not in the folder: it is another's, or not written yet.
    #[error("there is no private key for the certificate in {path:?}")]
    NoKey {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The configuration was not made from files, so there are none to read again.
    #[error("the certificates were not read from files that could be read again")]
    NoFiles,
    /// No authority would be trusted, so no peer could be.
    #[error("there is no usable certificate of an authority in {source_name}: {reason}")]
    NoRoots {
        /// Where they were looked for.
        source_name: String,
        /// What is wrong with what is there.
        reason: String,
    },
    /// It is neither a host name nor an address.
    #[error("{name:?} is no name that a server's certificate could be for: expected a host name or an IP address")]
    BadName {
        /// The name.
        name: String,
        /// The rule of host names that it breaks, if it is one of those.
        source: Option<BadHostName>,
    },
    /// The TLS library does not take it: a key that is not that of its certificate, a kind that is not supported.
    #[error("TLS can't be done like this")]
    Unusable(#[source] Error),
}

impl ConfigError {
    /// The same error, which now says of what kind the key of this chain's certificate is.
    pub(super) fn of_key(mut self, chain: &[CertificateDer<'_>]) -> Self {
        if let Self::UnusableKey { kind, .. } = &mut self {
            *kind = chain.first().and_then(keys::unusable_of);
        }
        self
    }

    /// The error with its cause, in one line.
    pub(super) fn with_cause(&self) -> String {
        use std::error::Error as _;
        self.source().map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name (subjectAltName counts, and nothing else)".to_owned() } else { names.join(", ") }
}

/// A name of a certificate as people write it: `localhost` for `DnsName("localhost")`, the form in which the TLS library gives it.
/// The name is the peer's choice, so characters that do not print are escaped.
fn readable(name: &str) -> String {
    let (kind, inner) = name.strip_suffix(')').and_then(|name| name.split_once('(')).unwrap_or((name, name));
    let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(inner);
    match kind {
        "DirectoryName" => "a directory name".to_owned(),
        "Unsupported" => "a name of a kind that is not supported".to_owned(),
        _ => inner.escape_debug().to_string(),
    }
}

/// What an alert may mean that says little.
fn hint(alert: &str) -> String {
    match alert {
        "handshake_failure" => format!(
            " (it has nothing in common with us: no version of TLS, no cipher suite, or no certificate of a kind that we know: {})",
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

/// The registered name of an alert: `unknown_ca` for what the library calls `UnknownCA`.
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

    /// The other names than DNS's too, and what a peer put into a name to forge a line of the log.
    #[test]
    fn names_are_readable() {
        for (given, expected) in [
            ("DnsName(\"*.example.org\")", "*.example.org"),
            ("IpAddress(192.0.2.1)", "192.0.2.1"),
            ("IpAddress(2001:db8::1)", "2001:db8::1"),
            ("UniformResourceIdentifier(\"spiffe://a(b)\")", "spiffe://a(b)"),
            ("DirectoryName", "a directory name"),
            ("Unsupported(0x01)", "a name of a kind that is not supported"),
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
