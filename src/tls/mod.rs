//! TLS, by [rustls](https://docs.rs/rustls) (Twisted: `ITLSTransport`, `twisted.internet.ssl`, `twisted.protocols.tls`).
//!
//! TLS is a layer of a connection, not another kind of transport: [`Transport::start_tls`] puts it between the protocol and
//! whatever carries the bytes, at any moment, in either role, also above TLS. Transport and protocol stay the same. The endpoints
//! `ssl:` and `tls:`, and those that are wrapped ([`wrap_client_tls`](crate::endpoints::wrap_client_tls)), start it before
//! `connection_made`.
//!
//! | who is | says what it needs with | that is |
//! |---|---|---|
//! | the client | [`ClientTls`] | the server's name, which authorities it trusts, a certificate of its own |
//! | the server | [`ServerTls`] | its certificates, one for each name, and whether clients have to show one |
//!
//! What holds:
//! 1. `connection_made` comes before the handshake. What is written until it is done waits, is counted by
//!    [`queued_bytes`](Transport::queued_bytes), and is sent then.
//! 2. [`handshake_completed`](crate::Protocol::handshake_completed) comes once for each handshake, before what came over it.
//! 3. Bytes that came before `start_tls` and were not delivered belong to the handshake. So what somebody slipped in before it makes
//!    it fail, and never reaches the protocol as if it had been protected.
//! 4. A handshake has a time limit: 30 s unless set. So has one that never begins.
//! 5. A client verifies the certificate and the name of its server, also if it trusts just this certificate
//!    ([`TrustRoots::from_fingerprints`]). Nothing here turns that off; who must, has rustls' own configuration
//!    ([`ClientTls::from_rustls`]).
//! 6. A connection ends cleanly only if the peer ended TLS (`close_notify`): otherwise the reason is
//!    [`Truncated`](crate::error::ConnectionClosed::Truncated). Ours is sent behind everything that was written; the peer's answer to
//!    it is read for 5 s at most, by nobody.
//! 7. `lose_write_connection` ends our direction of TLS too, and the other one goes on.
//! 8. A server sends nothing of its own accord when a handshake is done: its [tickets](ServerTlsBuilder::session_tickets) go with its
//!    first answer.
//! 9. What goes wrong in TLS ends the connection with a [`TlsError`]; the peer is told why, as far as TLS lets it be told.

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

/// A role in TLS, and all that it needs: what [`Transport::start_tls`] takes.
#[derive(Debug, Clone)]
pub enum Tls {
    /// This side asks.
    Client(ClientTls),
    /// This side answers.
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

/// Why TLS can't be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartTlsError {
    /// The connection is closing, or one of its directions has ended, or was told to.
    #[error("TLS can't be started on a connection that is closing")]
    Closing,
    /// rustls makes no connection of this configuration.
    #[error("TLS can't be started")]
    Refused(#[source] rustls::Error),
}

/// TLS on a connection.
impl Transport {
    /// Puts TLS between the protocol and the network (Twisted: `startTLS`; its `normal=False` is the other role here). What was
    /// written before goes out first, as it is; what is written afterwards waits for the handshake. Bytes that the protocol
    /// has been given stay what they were; all that come later are TLS. A second call puts TLS inside of TLS.
    ///
    /// ```
    /// use ropewalk::tls::ServerTls;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Speaks plainly until it is asked not to.
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
    /// [`StartTlsError`]; nothing has changed then. That the handshake fails is the reason of the connection's end.
    pub fn start_tls(&self, tls: impl Into<Tls>) -> Result<(), StartTlsError> {
        let session = Session::new(&tls.into()).map_err(StartTlsError::Refused)?;
        self.add_layer(Box::new(session)).ok_or(StartTlsError::Closing)
    }

    /// What was agreed on in the handshake that was started last (Twisted: `INegotiated.negotiatedProtocol`,
    /// `getPeerCertificate`). `None`: TLS was not started, or the handshake is not done.
    pub fn tls_session(&self) -> Option<TlsSession> {
        let stream = self.stream();
        let session: &Session = stream.top_layer()?.as_any().downcast_ref()?;
        session.describe()
    }
}

/// The cryptography: that of the features, whatever other crates have installed for the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(cryptography::default_provider())
}

/// The protocol versions, latest first.
fn versions(only: Option<TlsVersion>) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match only {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::Tls12) => TLS12,
        Some(TlsVersion::Tls13) => TLS13,
    }
}

/// A server's name as TLS has it: in ASCII, without the dot at the end that makes a name absolute, and an address without the network
/// interface that it belongs to on this host alone.
fn server_name(name: &str) -> Result<ServerName<'static>, ConfigError> {
    let bad = |source| ConfigError::BadName { name: name.to_owned(), source };
    if let Some((ip, _)) = parse_ipv6(name) {
        return Ok(ServerName::from(IpAddr::from(ip)));
    }
    let ascii = to_ascii(name).map_err(|source| bad(Some(source)))?;
    ServerName::try_from(ascii.strip_suffix('.').unwrap_or(&ascii).to_owned()).map_err(|_| bad(None))
}

/// How long a handshake may take unless set: as long as an attempt to connect.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
