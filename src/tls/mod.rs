//! TLS, by [rustls](https://docs.rs/rustls) (Twisted: `ITLSTransport`, `twisted.internet.ssl`,
//! `twisted.protocols.tls`).
//!
//! TLS is a layer of a connection, not another kind of transport. [`Transport::start_tls`] puts it
//! between the protocol and the layer or socket below, at any moment, in either role, also above
//! TLS. Transport and protocol stay the same. The endpoints `ssl:` and `tls:`, and wrapped
//! endpoints ([`wrap_client_tls`](crate::endpoints::wrap_client_tls)), start it before
//! `connection_made`.
//!
//! | role | configuration | contents |
//! |---|---|---|
//! | client | [`ClientTls`] | the server's name, the trusted authorities, an optional client certificate |
//! | server | [`ServerTls`] | its certificates, one for each name, and the certificates it requires of clients |
//!
//! Guarantees:
//! 1. `connection_made` is called before the handshake. Bytes written before the handshake is
//!    complete wait, are counted by [`queued_bytes`](Transport::queued_bytes), and are sent
//!    afterwards.
//! 2. [`handshake_completed`](crate::Protocol::handshake_completed) is called once for each
//!    handshake, before any data that arrived over it.
//! 3. Bytes that arrived before `start_tls` and were not delivered belong to the handshake. So
//!    plaintext injected before it makes the handshake fail, and never reaches the protocol as if
//!    it had been protected.
//! 4. A handshake has a time limit: 30 s unless set. It also applies to a handshake that the peer
//!    never begins.
//! 5. A client verifies the certificate and the name of its server, even if it trusts just this
//!    certificate ([`TrustRoots::from_fingerprints`]). No setting of this crate turns that off;
//!    rustls' own configuration can ([`ClientTls::from_rustls`]).
//! 6. A connection ends cleanly only if the peer ended TLS (`close_notify`). Otherwise the reason
//!    is [`Truncated`](crate::error::ConnectionClosed::Truncated). Our own `close_notify` is sent
//!    after all written data. Data that the peer sends in answer to it is read for 5 s at most, and
//!    discarded.
//! 7. `lose_write_connection` ends our direction of TLS too; the other direction stays open.
//! 8. A server sends nothing on its own when a handshake is complete: its
//!    [tickets](ServerTlsBuilder::session_tickets) are sent with its first answer.
//! 9. A TLS error ends the connection with a [`TlsError`]. The peer receives an alert with the
//!    reason, as far as TLS has one.

mod client;
mod error;
mod files;
mod fingerprint;
mod identity;
mod keys;
mod refusal;
mod roots;
mod server;
mod session;
mod verifier;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as cryptography;
use rustls::pki_types::ServerName;
use thiserror::Error;

pub use self::client::{ClientTls, ClientTlsBuilder};
pub use self::error::{ConfigError, TlsError};
pub use self::fingerprint::{BadFingerprint, Fingerprint};
pub use self::identity::Identity;
pub use self::roots::TrustRoots;
pub use self::server::{ServerTls, ServerTlsBuilder};
use self::session::Session;
pub use self::session::{TlsSession, TlsVersion};
use crate::address::{parse_ipv6, to_ascii};
use crate::transport::Transport;

/// The configuration of either role in TLS, as [`Transport::start_tls`] takes it.
#[derive(Debug, Clone)]
pub enum Tls {
    /// This side is the client.
    Client(ClientTls),
    /// This side is the server.
    Server(ServerTls),
}

impl From<ClientTls> for Tls {
    fn from(tls: ClientTls) -> Self {
        Self::Client(tls)
    }
}

impl From<ServerTls> for Tls {
    fn from(tls: ServerTls) -> Self {
        Self::Server(tls)
    }
}

impl From<&ClientTls> for Tls {
    fn from(tls: &ClientTls) -> Self {
        tls.clone().into()
    }
}

impl From<&ServerTls> for Tls {
    fn from(tls: &ServerTls) -> Self {
        tls.clone().into()
    }
}

/// The reason why TLS cannot be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartTlsError {
    /// The connection is closing, or one of its directions has ended, or was requested to end.
    #[error("cannot start TLS on a connection that is closing")]
    Closing,
    /// rustls does not accept this configuration for a connection.
    #[error("cannot start TLS")]
    Refused(#[source] rustls::Error),
}

/// TLS on a connection.
impl Transport {
    /// Starts TLS between the protocol and the network (Twisted: `startTLS`; its `normal=False` is
    /// the other role here). Data written before is sent first, in plaintext. Data written
    /// afterwards waits for the handshake. Bytes already delivered to the protocol are unaffected;
    /// all later bytes are TLS. A second call starts TLS inside TLS.
    ///
    /// ```
    /// use ropewalk::tls::ServerTls;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Uses plaintext until the peer asks for TLS.
    /// struct Discreet(ServerTls);
    ///
    /// impl Protocol for Discreet {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
    ///         if data == b"STARTTLS\n" && transport.tls_session().is_none() {
    ///             transport.write(b"go ahead\n");
    ///             transport.start_tls(&self.0)?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`StartTlsError`]; nothing has changed then. A failed handshake is reported as the reason of
    /// the connection's end.
    pub fn start_tls(&self, tls: impl Into<Tls>) -> Result<(), StartTlsError> {
        let session = Session::new(&tls.into()).map_err(StartTlsError::Refused)?;
        self.add_layer(Box::new(session)).ok_or(StartTlsError::Closing)
    }

    /// Returns the parameters negotiated in the latest handshake (Twisted:
    /// `INegotiated.negotiatedProtocol`, `getPeerCertificate`). `None` if TLS was not started, or
    /// the handshake is not complete.
    pub fn tls_session(&self) -> Option<TlsSession> {
        let stream = self.stream();
        let session: &Session = stream.top_layer()?.as_any().downcast_ref()?;
        session.describe()
    }
}

/// Returns the cryptography that the features select, even if another crate has installed a
/// different one for the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(cryptography::default_provider())
}

/// Returns the protocol versions, latest first.
fn versions(only: Option<TlsVersion>) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match only {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::Tls12) => TLS12,
        Some(TlsVersion::Tls13) => TLS13,
    }
}

/// Converts a server's name to its form in TLS: in ASCII, without the dot at the end that makes a
/// name absolute. An address loses its network interface, which has a meaning on this host only.
fn server_name(name: &str) -> Result<ServerName<'static>, ConfigError> {
    let bad = |source| ConfigError::BadName { name: name.to_owned(), source };
    if let Some((ip, _)) = parse_ipv6(name) {
        return Ok(ServerName::from(IpAddr::from(ip)));
    }
    let ascii = to_ascii(name).map_err(|source| bad(Some(source)))?;
    ServerName::try_from(ascii.strip_suffix('.').unwrap_or(&ascii).to_owned()).map_err(|_| bad(None))
}

/// Default time limit of a handshake: the same as for an attempt to connect.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
