//! [`Session`]: one TLS connection as a layer. rustls receives bytes and returns bytes; no code in
//! this file does I/O.

use std::any::Any;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection};
use webpki::EndEntityCert;

use super::{Fingerprint, Tls, TlsError};
use crate::error::ConnectionClosed;
use crate::failure::{Failure, Result, guarded};
use crate::log::error;
use crate::transport::layer::{Layer, Opened};
use crate::transport::send_queue::BufferPool;

/// Negotiated parameters of a TLS session, as
/// [`Transport::tls_session`](crate::Transport::tls_session) returns them.
///
/// `Debug` names the peer's certificate by its first DNS name and its [`Fingerprint`]; the
/// certificates themselves are not printed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSession {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// The cipher suite, by its registered name.
    pub cipher_suite: String,
    /// The protocol that ALPN chose, if both sides named any (Twisted: `negotiatedProtocol`).
    pub negotiated_protocol: Option<Vec<u8>>,
    /// The name that the client asked for. Set on the server only.
    pub server_name: Option<String>,
    /// The peer's certificates, its own first, in DER (Twisted: `getPeerCertificate`). Empty if it
    /// sent none.
    pub peer_certificates: Vec<Vec<u8>>,
    /// `true` if an earlier session was resumed.
    pub resumed: bool,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("version", &self.version)
            .field("cipher_suite", &self.cipher_suite)
            .field("negotiated_protocol", &self.negotiated_protocol.as_deref().map(String::from_utf8_lossy))
            .field("server_name", &self.server_name)
            .field("peer_certificates", &format_args!("{}", name_of(&self.peer_certificates)))
            .field("resumed", &self.resumed)
            .finish()
    }
}

/// Describes a peer's certificates: `example.org (SHA-256 2C:F2:..) and 1 above it`.
fn name_of(certificates: &[Vec<u8>]) -> String {
    let Some((own, above)) = certificates.split_first() else { return "none".to_owned() };
    let certificate = CertificateDer::from(&own[..]);
    let parsed = EndEntityCert::try_from(&certificate).ok();
    let name = parsed.and_then(|parsed| parsed.valid_dns_names().next()).unwrap_or("no DNS name").to_owned();
    let above = if above.is_empty() { String::new() } else { format!(" and {} above it", above.len()) };
    format!("{name} (SHA-256 {}){above}", Fingerprint::of(own))
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// One side of a TLS connection.
pub(super) struct Session {
    connection: Box<Connection>,
    timeout: Option<Duration>,
    ready: bool,
    /// The peer ended its direction, or TLS failed: later bytes are ignored.
    ended: bool,
    /// rustls holds a server's tickets of TLS 1.3, which wait until there is other data to send.
    holds_tickets: bool,
}

impl Session {
    pub(super) fn new(tls: &Tls) -> Result<Self, rustls::Error> {
        let (mut connection, timeout) = match tls {
            Tls::Client(tls) => {
                let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())?;
                (Connection::from(connection), tls.timeout)
            }
            Tls::Server(tls) => (Connection::from(ServerConnection::new(tls.config())?), tls.timeout),
        };
        // The caller bounds the plaintext, and it is taken out at once, so rustls needs no limit.
        connection.set_buffer_limit(None);
        Ok(Self { connection: Box::new(connection), timeout, ready: false, ended: false, holds_tickets: false })
    }

    /// Returns the negotiated parameters, once the handshake is complete.
    pub(super) fn describe(&self) -> Option<TlsSession> {
        if !self.ready {
            return None;
        }
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        let server_name = match &*self.connection {
            Connection::Client(_) => None,
            Connection::Server(connection) => connection.server_name().map(str::to_owned),
        };
        let certificates = self.connection.peer_certificates().unwrap_or_default();
        Some(TlsSession {
            version,
            cipher_suite: suite.as_str().map_or_else(|| format!("{suite:?}"), str::to_owned),
            negotiated_protocol: self.connection.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Passes received bytes to rustls and takes out the plaintext, record by record, so that
    /// rustls never holds more than one record.
    fn take_in(&mut self, mut data: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        while !data.is_empty() && !self.ended {
            self.connection.read_tls(&mut data).map_err(|error| TlsError::Refused { what: error.to_string() })?;
            let processed = self.connection.process_new_packets();
            self.ready = !self.connection.is_handshaking();
            match processed {
                Ok(state) => {
                    self.ended = state.peer_has_closed();
                    self.take_plain(state.plaintext_bytes_to_read(), plain);
                }
                Err(error) => {
                    // Records before the faulty one are as good as if they had come alone.
                    self.take_plain(usize::MAX, plain);
                    return Err(TlsError::of(error, self.ready));
                }
            }
        }
        Ok(())
    }

    /// Takes out `left` bytes of plaintext, or as many as rustls holds.
    fn take_plain(&mut self, mut left: usize, plain: &mut Vec<u8>) {
        if left == 0 {
            return;
        }
        let mut reader = self.connection.reader();
        // A record at a time. Another call, to find that there are no more, would make an error.
        while left > 0
            && let Ok(data @ [_, ..]) = reader.fill_buf()
        {
            plain.extend_from_slice(data);
            let count = data.len();
            reader.consume(count);
            left -= count;
        }
    }

    /// Encrypts plaintext, and takes out the result.
    fn put_in(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        let taken = self.connection.writer().write(plain)?;
        self.take_out(sealed)?;
        // rustls takes everything, unless the keys are exhausted.
        if taken < plain.len() { Err(TlsError::KeysUsedUp.into()) } else { Ok(()) }
    }

    /// Returns `true` if rustls has only tickets of TLS 1.3 to send, at the end of a handshake. A
    /// client that sends its data and closes does not read them: its kernel would answer them with
    /// a reset, which destroys data that this side has not read yet. So the tickets wait for the
    /// first answer, or the end, of this side. They are encrypted already, and later records go
    /// behind them.
    fn has_only_tickets(&self) -> bool {
        let is_server = matches!(*self.connection, Connection::Server(_));
        is_server && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Takes out the bytes that rustls has to send.
    fn take_out(&mut self, sealed: &mut Vec<u8>) -> io::Result<()> {
        self.holds_tickets = false;
        while self.connection.wants_write() {
            self.connection.write_tls(sealed)?;
        }
        Ok(())
    }
}

impl Layer for Session {
    fn open(&mut self, data: &[u8], answer: &mut Vec<u8>, pool: &BufferPool) -> Opened {
        let mut plain = pool.take();
        let (was_ready, had_ended) = (self.ready, self.ended);
        let taken = guarded(|| self.take_in(data, &mut plain)).unwrap_or_else(|panic| Err(TlsError::Panicked(panic)));
        let completed = self.ready && !was_ready;
        self.holds_tickets |= completed && self.has_only_tickets();
        // While tickets are held back, an alert behind them is taken out when the failure ends our
        // direction.
        if !self.holds_tickets {
            // Writing to memory does not fail.
            let _ = self.take_out(answer);
        }
        match taken {
            Ok(()) => Opened { plain, completed, ended: self.ended && !had_ended, ..Opened::default() },
            Err(error) => {
                self.ended = true;
                Opened { plain, completed, failure: Some(Failure::untraced(error)), ..Opened::default() }
            }
        }
    }

    fn end(&mut self) -> Option<Failure> {
        match (std::mem::replace(&mut self.ended, true), self.ready) {
            (true, _) => None,
            (false, true) => Some(Failure::untraced(ConnectionClosed::Truncated)),
            (false, false) => Some(Failure::untraced(TlsError::HandshakeCut)),
        }
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn is_late(&self, after: Duration) -> Failure {
        Failure::untraced(TlsError::HandshakeTimedOut { after })
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        guarded(|| self.put_in(plain, sealed)).unwrap_or_else(|panic| Err(TlsError::Panicked(panic).into()))
    }

    fn close(&mut self, sealed: &mut Vec<u8>) {
        let closed = guarded(|| {
            self.connection.send_close_notify();
            self.take_out(sealed)
        });
        // Writing to memory does not fail.
        if let Err(panic) = closed {
            error!(%panic, "the TLS library failed to end a connection");
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debug output names the certificate and contains no bytes of any. It works for a peer without
    /// a certificate, and for one whose certificate is malformed.
    #[test]
    fn debug_names_the_peers_certificate() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned(), "b.example".to_owned()]).expect("made");
        let own = made.cert.der().to_vec();
        let mut session = TlsSession {
            version: TlsVersion::Tls13,
            cipher_suite: "TLS13_AES_128_GCM_SHA256".to_owned(),
            negotiated_protocol: Some(b"h2".to_vec()),
            server_name: None,
            peer_certificates: vec![own.clone(), b"another".to_vec()],
            resumed: false,
        };
        let expected = |certificates: &str| {
            format!(
                "TlsSession {{ version: Tls13, cipher_suite: \"TLS13_AES_128_GCM_SHA256\", negotiated_protocol: Some(\"h2\"), \
                 server_name: None, peer_certificates: {certificates}, resumed: false }}"
            )
        };
        let named = format!("a.example (SHA-256 {})", Fingerprint::of(&own));
        assert_eq!(format!("{session:?}"), expected(&format!("{named} and 1 above it")));
        session.peer_certificates.pop();
        assert_eq!(format!("{session:?}"), expected(&named));
        session.peer_certificates = vec![b"junk".to_vec()];
        assert_eq!(format!("{session:?}"), expected(&format!("no DNS name (SHA-256 {})", Fingerprint::of(b"junk"))));
        session.peer_certificates.clear();
        assert_eq!(format!("{session:?}"), expected("none"));
    }
}
