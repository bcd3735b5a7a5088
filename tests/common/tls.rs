//! Helpers of the tests of TLS: sides that log their callbacks, and a peer that is the TLS library
//! alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::testing::{Pump, PumpOptions};
use ropewalk::tls::{ClientTls, ServerTls, Tls, TlsError, TlsSession};
use ropewalk::{Failure, Transport};

use super::certificates::Authority;
use super::{Log, Script};

pub const CLEAN: &str = "lost: the connection was closed cleanly";

/// One side of a connection, with the log of its callbacks.
#[derive(Clone, Default)]
pub struct Seen {
    pub log: Log,
    pub received: Rc<RefCell<Vec<u8>>>,
    pub reason: Rc<RefCell<Option<Failure>>>,
    pub session: Rc<RefCell<Option<TlsSession>>>,
}

impl Seen {
    /// A protocol that logs its callbacks here.
    pub fn script(&self) -> Script {
        let session = Rc::clone(&self.session);
        let script = Script::new(&self.log).into_buffer(&self.received).reason_into(&self.reason);
        script.secured(move |transport| {
            session.replace(transport.tls_session());
            Ok(())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.borrow()).into_owned()
    }

    /// The reason of its end.
    #[track_caller]
    pub fn reason(&self) -> Failure {
        self.reason.borrow().clone().expect("the connection is over")
    }

    /// The error of TLS that ended the connection.
    #[track_caller]
    pub fn error(&self) -> String {
        let reason = self.reason();
        assert!(reason.check::<TlsError>().is_some(), "{reason}");
        reason.to_string()
    }

    #[track_caller]
    pub fn session(&self) -> TlsSession {
        self.session.borrow().clone().expect("a handshake is done")
    }
}

/// A side that logs its callbacks.
pub fn side() -> (Script, Seen) {
    let seen = Seen::default();
    (seen.script(), seen)
}

/// A side that speaks TLS from the beginning.
pub fn tls_side(tls: impl Into<Tls>) -> (Script, Seen) {
    let (tls, (script, seen)) = (tls.into(), side());
    (script.made(move |transport| Ok(transport.start_tls(tls.clone())?)), seen)
}

pub fn connect(client: Script, server: Script) -> Pump<Script, Script> {
    PumpOptions::new().connect(client, server)
}

/// Both sides speak TLS, and the handshakes are over, well or not.
pub fn play(client: impl Into<Tls>, server: impl Into<Tls>) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, asking), (server, serving)) = (tls_side(client), tls_side(server));
    let pump = connect(client, server);
    pump.flush();
    (pump, asking, serving)
}

/// An authority, and the configurations of a client that trusts it and of a server of the name.
pub fn usual() -> (Authority, ClientTls, ServerTls) {
    let authority = Authority::new();
    let (client, server) = (authority.client("example.org"), authority.server(&["example.org"]));
    (authority, client, server)
}

/// The TLS library without an engine: a peer that can break the rules.
pub struct Library {
    pub connection: rustls::Connection,
    /// Number of bytes of the other side that it has been given.
    pub taken: usize,
    pub plain: Vec<u8>,
}

impl Library {
    pub fn client(authority: &Authority, name: &'static str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&authority.pem())).expect("an authority");
        let config = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("ring has them").with_root_certificates(roots).with_no_client_auth();
        let name = name.try_into().expect("a name");
        Self::new(rustls::ClientConnection::new(Arc::new(config), name).expect("a client").into())
    }

    pub fn server(authority: &Authority, name: &str) -> Self {
        Self::new(Self::server_connection(authority, name).into())
    }

    /// A server's side of a connection.
    pub fn server_connection(authority: &Authority, name: &str) -> rustls::ServerConnection {
        let issued = authority.issue(&[name]);
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("ring has them").with_no_client_auth();
        let config = config.with_single_cert(vec![der(&issued.certificate)], key).expect("they fit");
        rustls::ServerConnection::new(Arc::new(config)).expect("a server")
    }

    pub fn new(connection: rustls::Connection) -> Self {
        Self { connection, taken: 0, plain: Vec::new() }
    }

    /// The bytes that it has to send now.
    pub fn send(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut sent).expect("memory takes all");
        }
        sent
    }

    pub fn write(&mut self, data: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.connection.writer(), data).expect("it is small");
        self.send()
    }

    /// Takes the bytes that have come since.
    pub fn take(&mut self, came: &Seen) {
        let came = came.received.borrow();
        let mut rest = &came[self.taken..];
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).expect("there is room");
            let state = self.connection.process_new_packets().expect("the engine keeps the rules");
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            std::io::Read::read_exact(&mut self.connection.reader(), &mut plain).expect("it said so");
            self.plain.extend(plain);
        }
        self.taken = came.len();
    }

    /// Exchanges bytes until neither side has any to send.
    pub fn talk(&mut self, pump: &Pump<Script, Script>, transport: &Transport, came: &Seen) {
        loop {
            self.take(came);
            let sent = self.send();
            transport.write(&sent);
            if !pump.flush() && sent.is_empty() {
                return;
            }
        }
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// A server of ours, and a client that is the library.
pub fn with_library_client(server: ServerTls) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, raw), (server, serving)) = (side(), tls_side(server));
    (connect(client.half_close(), server), raw, serving)
}

/// A client of ours, and a server that is the library.
pub fn with_library_server(client: ClientTls) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, asking), (server, raw)) = (tls_side(client), side());
    (connect(client, server), asking, raw)
}

/// A client that writes at once; only the right server may receive the bytes.
pub fn side_that_writes(tls: ClientTls) -> (Script, Seen) {
    let (script, seen) = side();
    let script = script.made(move |transport| {
        transport.start_tls(&tls)?;
        transport.write(b"for the right server only");
        Ok(())
    });
    (script, seen)
}
