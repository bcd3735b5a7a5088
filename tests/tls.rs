//! TLS as a layer, without a network: two protocols on a pump, or one and a peer that is the TLS library alone.
#![cfg(feature = "tls")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::certificates::{self, Authority};
use common::{Log, Script};
use ropewalk::error::ConnectionClosed;
use ropewalk::testing::{Conditions, Network, Pump, PumpOptions};
use ropewalk::tls::{ClientTls, ServerTls, StartTlsError, Tls, TlsError, TlsSession, TlsVersion};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{ConnectOptions, Failure, ListenOptions, Result, Transport};

const CLEAN: &str = "lost: the connection was closed cleanly";

/// One side of a connection, and what happened to it.
#[derive(Default)]
struct Seen {
    log: Log,
    received: Rc<RefCell<Vec<u8>>>,
    reason: Rc<RefCell<Option<Failure>>>,
    session: Rc<RefCell<Option<TlsSession>>>,
}

impl Seen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.borrow()).into_owned()
    }

    /// Why it ended.
    #[track_caller]
    fn reason(&self) -> Failure {
        self.reason.borrow().clone().expect("the connection is over")
    }

    /// What went wrong with TLS.
    #[track_caller]
    fn error(&self) -> String {
        let reason = self.reason();
        assert!(reason.check::<TlsError>().is_some(), "{reason}");
        reason.to_string()
    }

    #[track_caller]
    fn session(&self) -> TlsSession {
        self.session.borrow().clone().expect("a handshake is done")
    }
}

/// A side that keeps what happens to it.
fn side() -> (Script, Seen) {
    let seen = Seen::default();
    let session = Rc::clone(&seen.session);
    let script = Script::new(&seen.log).into_buffer(&seen.received).reason_into(&seen.reason);
    let script = script.secured(move |transport| {
        session.replace(transport.tls_session());
        Ok(())
    });
    (script, seen)
}

/// A side that speaks TLS from the beginning.
fn tls_side(tls: impl Into<Tls>) -> (Script, Seen) {
    let (tls, (script, seen)) = (tls.into(), side());
    (script.made(move |transport| Ok(transport.start_tls(tls.clone())?)), seen)
}

fn connect(client: Script, server: Script) -> Pump<Script, Script> {
    PumpOptions::new().connect(client, server)
}

/// Both sides speak TLS, and the handshakes are over, well or not.
fn play(client: impl Into<Tls>, server: impl Into<Tls>) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, asking), (server, serving)) = (tls_side(client), tls_side(server));
    let pump = connect(client, server);
    pump.flush();
    (pump, asking, serving)
}

/// An authority, what a client needs that trusts it, and what a server of the name needs.
fn usual() -> (Authority, ClientTls, ServerTls) {
    let authority = Authority::new();
    let (client, server) = (authority.client("example.org"), authority.server(&["example.org"]));
    (authority, client, server)
}

/// The TLS library without an engine: what a peer would be that breaks rules.
struct Library {
    connection: rustls::Connection,
    /// How much of what the other side sent it has been given.
    taken: usize,
    plain: Vec<u8>,
}

impl Library {
    fn client(authority: &Authority, name: &'static str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&authority.pem())).expect("an authority");
        let config = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("ring has them").with_root_certificates(roots).with_no_client_auth();
        let name = name.try_into().expect("a name");
        Self::new(rustls::ClientConnection::new(Arc::new(config), name).expect("a client").into())
    }

    fn server(authority: &Authority, name: &str) -> Self {
        let issued = authority.issue(&[name]);
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("ring has them").with_no_client_auth();
        let config = config.with_single_cert(vec![der(&issued.certificate)], key).expect("they fit");
        Self::new(rustls::ServerConnection::new(Arc::new(config)).expect("a server").into())
    }

    fn new(connection: rustls::Connection) -> Self {
        Self { connection, taken: 0, plain: Vec::new() }
    }

    /// What it has to send now.
    fn send(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut sent).expect("memory takes all");
        }
        sent
    }

    fn write(&mut self, data: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.connection.writer(), data).expect("it is small");
        self.send()
    }

    /// Takes what has come since.
    fn take(&mut self, came: &Seen) {
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

    /// Talks until nobody has anything to say.
    fn talk(&mut self, pump: &Pump<Script, Script>, transport: &Transport, came: &Seen) {
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

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// A server of ours, and a client that is the library.
fn with_library_client(server: ServerTls) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, raw), (server, serving)) = (side(), tls_side(server));
    (connect(client.half_close(), server), raw, serving)
}

/// A client of ours, and a server that is the library.
fn with_library_server(client: ClientTls) -> (Pump<Script, Script>, Seen, Seen) {
    let ((client, asking), (server, raw)) = (tls_side(client), side());
    (connect(client, server), asking, raw)
}

/// F55: what is written at once is sent over TLS when the handshake is done, both ways, and both sides are told in order.
#[test]
fn a_conversation() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side(), tls_side(server_tls));
    let client = client.made(move |transport| {
        transport.start_tls(&client_tls)?;
        transport.write(b"a question");
        assert!(transport.queued() >= b"a question".len());
        Ok(())
    });
    let server = server.data(|transport, data| {
        transport.write(b"an answer to ");
        transport.write(data);
        transport.lose_connection();
        Ok(())
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.text(), "a question");
    assert_eq!(asking.text(), "an answer to a question");
    assert_eq!(serving.log.all(), ["made", "secured", "data", CLEAN]);
    assert_eq!(asking.log.all(), ["made", "secured", "data", CLEAN]);
    assert!(!pump.transcript().contains("question"), "{}", pump.transcript());
}

/// Whatever the room between them, one byte at a time included, the conversation is the same; and so is a long one.
#[test]
fn however_the_bytes_are_cut() {
    let (_, client_tls, server_tls) = usual();
    for (room, size) in [(1, 10), (2, 300), (7, 5000), (1000, 100_000), (64 * 1024, 3_000_000)] {
        let ((client, asking), (server, serving)) = (tls_side(&client_tls), tls_side(&server_tls));
        let server = server.data(|transport, data| {
            transport.write(data);
            Ok(())
        });
        let pump = PumpOptions::new().room(room).connect(client, server);
        let sent: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(7919) >> 3) as u8).collect();
        pump.client().transport().write(&sent);
        while pump.client().transport().queued() + pump.server().transport().queued() > 0 {
            pump.pump();
        }
        pump.flush();
        assert!(*serving.received.borrow() == sent, "room for {room}");
        assert!(*asking.received.borrow() == sent, "room for {room}");
        pump.server().transport().lose_connection();
        pump.flush();
        assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// F58: a connection becomes TLS in the middle. What was written before goes out first, as it was written; what is written at once
/// after it is TLS.
#[test]
fn starttls() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side(), side());
    let client = client.made(|transport| {
        transport.write(b"STARTTLS\n");
        Ok(())
    });
    let client = client.data(move |transport, data| {
        if data == b"go ahead\n" {
            transport.start_tls(&client_tls)?;
            transport.write(b"secret question");
        }
        Ok(())
    });
    let server = server.data(move |transport, data| {
        if data == b"STARTTLS\n" {
            transport.write(b"go ahead\n");
            transport.start_tls(&server_tls)?;
            transport.write(b"secret greeting");
        }
        Ok(())
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.text(), "STARTTLS\nsecret question");
    assert_eq!(asking.text(), "go ahead\nsecret greeting");
    assert_eq!(serving.log.all(), ["made", "data", "secured", "data"]);
    assert!(pump.transcript().contains("STARTTLS") && !pump.transcript().contains("secret"));
}

/// F58: who connected may be the server of TLS, and who listens its client.
#[test]
fn starttls_in_the_other_role() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side(), side());
    let client = client.made(move |transport| {
        transport.write(b"STARTTLS\n");
        transport.start_tls(&server_tls)?;
        transport.write(b"secret question");
        Ok(())
    });
    let server = server.data(move |transport, data| {
        if data == b"STARTTLS\n" {
            transport.start_tls(&client_tls)?;
            transport.write(b"secret answer");
        }
        Ok(())
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.text(), "STARTTLS\nsecret question");
    assert_eq!(asking.text(), "secret answer");
    assert_eq!(asking.session().server_name.as_deref(), Some("example.org"));
}

/// F58: bytes that were held back because reading was paused are the handshake's, and so are those that come while it still is.
#[test]
fn what_was_held_back_is_the_handshakes() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), side());
    let server = server.data(|transport, data| {
        if data == b"STARTTLS\n" {
            transport.pause_producing();
        }
        Ok(())
    });
    let pump = connect(client, server);
    let mut library = Library::client(&authority, "example.org");
    let hello = library.send();
    pump.client().transport().write(b"STARTTLS\n");
    pump.pump();
    pump.pump();
    pump.client().transport().write(&hello);
    pump.flush();
    pump.server().transport().start_tls(&server_tls).expect("it is open");
    pump.server().transport().write(b"welcome");
    library.talk(&pump, pump.client().transport(), &raw);
    assert_eq!(serving.log.all(), ["made", "data", "secured"]);
    assert_eq!(library.plain, b"welcome");
    pump.client().transport().write(&library.write(b"hello"));
    pump.flush();
    assert_eq!(serving.text(), "STARTTLS\n", "reading is paused");
    pump.server().transport().resume_producing();
    pump.flush();
    assert_eq!(serving.text(), "STARTTLS\nhello");
}

/// A13: what somebody slips in between the request for TLS and the handshake makes that fail, and never reaches the protocol.
#[test]
fn starttls_injection() {
    for paused in [true, false] {
        let (authority, _, server_tls) = usual();
        let ((client, _raw), (server, serving)) = (side(), side());
        let server = server.data(move |transport, data| {
            if data == b"STARTTLS\n" {
                transport.start_tls(&server_tls)?;
                if paused {
                    transport.pause_producing();
                }
            }
            Ok(())
        });
        let pump = connect(client, server);
        pump.client().transport().write(b"STARTTLS\n");
        pump.flush();
        let mut library = Library::client(&authority, "example.org");
        pump.client().transport().write(b"DELETE everything\n");
        pump.client().transport().write(&library.send());
        pump.flush();
        assert_eq!(serving.text(), "STARTTLS\n");
        assert!(serving.error().starts_with("the peer does not speak TLS"), "{}", serving.error());
    }
}

/// F58: TLS can't be started on a connection that is closing, or that nothing can be sent on.
#[test]
fn not_on_a_connection_that_closes() {
    let (_, client_tls, server_tls) = usual();
    let ((client, _), (server, _)) = (side(), tls_side(server_tls));
    let client = client.half_close();
    let pump = connect(client, server);
    let transport = pump.client().transport();
    transport.lose_write_connection();
    pump.flush();
    assert!(matches!(transport.start_tls(&client_tls), Err(StartTlsError::Closing)));
    transport.lose_connection();
    assert!(matches!(transport.start_tls(&client_tls), Err(StartTlsError::Closing)));
    pump.flush();
    assert!(matches!(transport.start_tls(&client_tls), Err(StartTlsError::Closing)));
}

/// TLS within TLS: started at once, or when the outer one is done; each side is told once for each handshake that it sees the end of.
#[test]
fn tls_within_tls() {
    let (authority, outer_client, outer_server) = usual();
    let (inner_client, inner_server) = (authority.client("inner.example"), authority.server(&["inner.example"]));
    for at_once in [true, false] {
        let ((client, asking), (server, serving)) = (side(), side());
        let nest = move |outer: Tls, inner: Tls, script: Script, seen: &Seen| {
            let (log, second) = (seen.log.clone(), inner.clone());
            let script = script.made(move |transport| {
                transport.start_tls(outer.clone())?;
                if at_once {
                    transport.start_tls(inner.clone())?;
                }
                transport.write(b"twice wrapped");
                Ok(())
            });
            script.secured(move |transport| {
                if !at_once && log.count("secured") == 1 {
                    assert!(transport.tls_session().is_some());
                    transport.start_tls(second.clone())?;
                    assert!(transport.tls_session().is_none());
                }
                Ok(())
            })
        };
        let client = nest(outer_client.clone().into(), inner_client.clone().into(), client, &asking);
        let server = nest(outer_server.clone().into(), inner_server.clone().into(), server, &serving);
        let pump = PumpOptions::new().room(100).connect(client, server);
        pump.flush();
        if at_once {
            assert_eq!(serving.text(), "twice wrapped");
            assert_eq!(asking.text(), "twice wrapped");
        } else {
            // It was written before the second began, so it was wrapped once, and came while the second handshake was awaited.
            assert!(serving.reason().check::<TlsError>().is_some(), "{}", serving.reason());
            continue;
        }
        let session = pump.server().transport().tls_session().expect("it is done");
        assert_eq!(session.server_name.as_deref(), Some("inner.example"));
        assert_eq!(serving.log.all(), ["made", "secured", "data"]);
        let big = vec![7; 300_000];
        pump.client().transport().write(&big);
        while pump.client().transport().queued() > 0 {
            pump.pump();
        }
        pump.flush();
        assert_eq!(serving.received.borrow().len(), big.len() + "twice wrapped".len());
        pump.client().transport().lose_connection();
        pump.flush();
        assert_eq!(serving.log.all().last().map(String::as_str), Some(CLEAN));
        assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// The second handshake may begin in the callback that tells of the first: nothing that comes afterwards passes it by.
#[test]
fn tls_within_tls_begun_when_the_first_is_done() {
    let (authority, outer_client, outer_server) = usual();
    let (inner_client, inner_server) = (authority.client("inner.example"), authority.server(&["inner.example"]));
    let again = |outer: Tls, inner: Tls| {
        let ((script, seen), log) = (tls_side(outer), Log::default());
        let script = script.secured(move |transport| {
            log.add("secured");
            match log.count("secured") {
                1 => transport.start_tls(inner.clone())?,
                _ => transport.write(b"inside"),
            }
            Ok(())
        });
        (script, seen)
    };
    let (client, asking) = again(outer_client.into(), inner_client.into());
    let (server, serving) = again(outer_server.into(), inner_server.into());
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(asking.text(), "inside");
    assert_eq!(serving.text(), "inside");
    assert_eq!(asking.log.all(), ["made", "secured", "secured", "data"]);
    assert_eq!(
        pump.server().transport().tls_session().and_then(|session| session.server_name).as_deref(),
        Some("inner.example")
    );
}

/// What was agreed on can be asked for, and only when it was agreed on: version, suite, protocol, names, certificates.
#[test]
fn what_was_agreed_on() {
    let authority = Authority::new();
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let client = authority.client_builder().protocols(["h2", "http/1.1"]).only_version(version);
        let client = client.for_server("Example.org.").expect("a configuration");
        let identity = authority.issue(&["example.org"]).identity();
        let server =
            ServerTls::builder().identity(identity).protocols(["http/1.1", "h2"]).build().expect("a configuration");
        let (pump, asking, serving) = play(client, server);
        let (asked, served) = (asking.session(), serving.session());
        assert_eq!((asked.version, served.version), (version, version));
        assert_eq!(asked.cipher_suite, served.cipher_suite);
        assert!(asked.cipher_suite.starts_with("TLS"), "{}", asked.cipher_suite);
        assert_eq!(asked.negotiated_protocol.as_deref(), Some(b"http/1.1".as_slice()), "the server chooses");
        assert_eq!(served.negotiated_protocol, asked.negotiated_protocol);
        assert_eq!(served.server_name.as_deref(), Some("example.org"));
        assert_eq!((asked.server_name, asked.peer_certificates.len(), served.peer_certificates.len()), (None, 1, 0));
        assert_eq!(pump.server().transport().tls_session(), Some(served));
    }
    let plain = connect(side().0, side().0);
    plain.flush();
    assert_eq!(plain.client().transport().tls_session(), None);
}

/// Without a protocol in common the handshake fails, and both sides know why; a client that names none is served.
#[test]
fn no_protocol_in_common() {
    let authority = Authority::new();
    let identity = authority.issue(&["example.org"]).identity();
    let server = ServerTls::builder().identity(identity).protocols(["h2"]).build().expect("a configuration");
    let client = authority.client_builder().protocols(["smtp"]).for_server("example.org").expect("a configuration");
    let (_, asking, serving) = play(client, &server);
    assert_eq!(serving.error(), "none of the protocols that the peer named is one of ours");
    assert_eq!(asking.error(), "the peer ended TLS: no_application_protocol");
    let (_, asking, _) = play(authority.client("example.org"), &server);
    assert_eq!(asking.session().negotiated_protocol, None);
}

/// No version in common.
#[test]
fn no_version_in_common() {
    let authority = Authority::new();
    let client = authority.client_builder().only_version(TlsVersion::Tls13).for_server("example.org");
    let server = ServerTls::builder().identity(authority.issue(&["example.org"]).identity());
    let server = server.only_version(TlsVersion::Tls12).build();
    let (_, asking, serving) = play(client.expect("a configuration"), server.expect("a configuration"));
    assert!(serving.error().starts_with("the peer has no kind of TLS in common with us"), "{}", serving.error());
    assert_eq!(asking.error(), "the peer ended TLS: protocol_version");
}

/// A server shows the certificate for the name that it is asked for, the one for all names of a domain if there is no better, and
/// the first to whom asks for another or for none.
#[test]
fn a_certificate_for_each_name() {
    let authority = Authority::new();
    let issued = [&["first.example"][..], &["*.wild.example", "wild.example"], &["exact.wild.example"], &["127.0.0.1"]];
    let identities = issued.map(|names| authority.issue(names).identity());
    let server = identities.into_iter().fold(ServerTls::builder(), |builder, identity| builder.identity(identity));
    let server = server.build().expect("a configuration");
    for name in ["first.example", "any.wild.example", "wild.example", "exact.wild.example", "ANY.wild.example"] {
        let (_, asking, serving) = play(authority.client(name), &server);
        assert_eq!(asking.log.all(), ["made", "secured"], "{name}");
        assert_eq!(serving.session().server_name, Some(name.to_ascii_lowercase()));
    }
    for name in ["other.example", "too.deep.wild.example", "127.0.0.1"] {
        let (_, asking, _) = play(authority.client(name), &server);
        assert!(asking.error().contains("but for DnsName(\"first.example\")"), "{name}: {}", asking.error());
    }
}

/// A12: everything that can be wrong with a server's certificate makes its handshake fail, in every version, each with an error of
/// its own; the server hears of it; and nothing that was written leaves.
#[test]
fn certificates_that_are_wrong() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let name = "example.org";
    let with = |change: fn(&mut rcgen::CertificateParams)| authority.issue_with(&[name], change);
    for (issued, asked, expected, alert) in [
        (
            authority.issue(&["other.example"]),
            name,
            "is not for example.org, but for DnsName(\"other.example\")",
            "bad_certificate",
        ),
        (authority.issue(&["127.0.0.1"]), "127.0.0.2", "is not for 127.0.0.2", "bad_certificate"),
        (authority.issue(&[name]), "127.0.0.1", "is not for 127.0.0.1", "bad_certificate"),
        (with(certificates::expired), name, "has expired (", "certificate_expired"),
        (with(certificates::not_yet_valid), name, "is not valid yet (", "certificate_expired"),
        (with(certificates::for_signing_code), name, "is not acceptable", "unsupported_certificate"),
        (strangers.issue(&[name]), name, "self-signed, or signed by nobody whom we trust", "unknown_ca"),
        (certificates::self_signed(&[name]), name, "self-signed, or signed by nobody whom we trust", "unknown_ca"),
    ] {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let client = authority.client_builder().only_version(version).for_server(asked).expect("a configuration");
            let server = ServerTls::new(issued.identity()).expect("a configuration");
            let ((client, asking), (server, serving)) = (side_that_writes(client), tls_side(server));
            let pump = connect(client, server);
            pump.flush();
            assert!(asking.error().contains(expected), "{}: not {expected}", asking.error());
            assert_eq!(serving.error(), format!("the peer ended TLS: {alert}"), "{expected}");
            assert_eq!((serving.text().as_str(), asking.log.count("secured")), ("", 0));
        }
    }
}

fn side_that_writes(tls: ClientTls) -> (Script, Seen) {
    let (script, seen) = side();
    let script = script.made(move |transport| {
        transport.start_tls(&tls)?;
        transport.write(b"for the right server only");
        Ok(())
    });
    (script, seen)
}

/// A certificate for an address, and the endpoint's usual name for it.
#[test]
fn a_certificate_for_an_address() {
    let authority = Authority::new();
    for address in ["127.0.0.1", "::1"] {
        let (_, asking, _) = play(authority.client(address), authority.server(&[address]));
        assert_eq!(asking.log.all(), ["made", "secured"]);
    }
}

/// Clients show certificates where they have to, or may, and the server sees which; one that is missing, or nobody's whom it
/// trusts, ends the handshake.
#[test]
fn client_certificates() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let client = |of: Option<&Authority>| {
            let builder = authority.client_builder().only_version(version);
            let identity = of.map(|authority| authority.issue(&["a.client"]).identity());
            let builder = identity.into_iter().fold(builder, |builder, identity| builder.identity(identity));
            builder.for_server("example.org").expect("a configuration")
        };
        let server = || ServerTls::builder().identity(authority.issue(&["example.org"]).identity());
        let required = server().require_client_certificates(authority.roots()).build().expect("a configuration");
        let accepted = server().accept_client_certificates(authority.roots()).build().expect("a configuration");
        for (server, shown) in [(&required, Some(&authority)), (&accepted, Some(&authority)), (&accepted, None)] {
            let (_, asking, serving) = play(client(shown), server);
            assert_eq!(asking.log.all(), ["made", "secured"]);
            assert_eq!(serving.session().peer_certificates.len(), usize::from(shown.is_some()));
        }
        let (_, asking, serving) = play(client(None), &required);
        assert_eq!(serving.error(), "the peer showed no certificate");
        assert!(asking.error().starts_with("the peer ended TLS: "), "{}", asking.error());
        for server in [&required, &accepted] {
            let (_, _, serving) = play(client(Some(&strangers)), server);
            assert!(serving.error().contains("signed by nobody whom we trust"), "{}", serving.error());
        }
    }
}

/// A second connection resumes the first one's session, in either version; another configuration does not.
#[test]
fn sessions_are_resumed() {
    let authority = Authority::new();
    let server = authority.server(&["example.org"]);
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let client =
            || authority.client_builder().only_version(version).for_server("example.org").expect("a configuration");
        let usual = client();
        for (client, resumed) in [(&usual, false), (&usual, true), (&usual, true), (&client(), false)] {
            let (pump, asking, serving) = play(client, &server);
            assert_eq!((asking.session().resumed, serving.session().resumed), (resumed, resumed), "{version:?}");
            assert_eq!(asking.session().peer_certificates.len(), 1);
            pump.client().transport().lose_connection();
            pump.flush();
        }
    }
}

/// F52, A11: a peer that ends the connection without ending TLS has cut something short, whatever came before, and whether or not
/// the protocol knows half-closes; one that ends TLS has not.
#[test]
fn truncation() {
    for (half_close, notify) in [(false, false), (true, false), (false, true), (true, true)] {
        let (authority, _, server_tls) = usual();
        let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
        let server = if half_close { server.half_close() } else { server };
        let pump = connect(client, server);
        let transport = pump.client().transport();
        let mut library = Library::client(&authority, "example.org");
        library.talk(&pump, transport, &raw);
        transport.write(&library.write(b"first half"));
        if notify {
            library.connection.send_close_notify();
            transport.write(&library.send());
        }
        transport.lose_write_connection();
        pump.flush();
        assert_eq!(serving.text(), "first half");
        match (half_close, notify) {
            (_, false) => {
                let reason = serving.reason();
                assert!(matches!(reason.check(), Some(ConnectionClosed::Truncated)), "{reason}");
                assert_eq!(serving.log.count("read lost"), 0);
            }
            (true, true) => assert_eq!(serving.log.all(), ["made", "secured", "data", "read lost"]),
            (false, true) => assert_eq!(serving.log.all(), ["made", "secured", "data", CLEAN]),
        }
    }
}

/// F52: what came before the cut is delivered first, even if reading was paused; and what was written is still sent.
#[test]
fn a_cut_waits_behind_what_was_held_back() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = connect(
        client,
        server.secured(|transport| {
            transport.pause_producing();
            Ok(())
        }),
    );
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    transport.write(&library.send());
    pump.flush();
    library.take(&raw);
    // The end of the handshake, data, and the cut come together, while the server still reads for the handshake.
    transport.write(&library.write(b"held"));
    transport.lose_write_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured"]);
    pump.server().transport().write(b"last words");
    pump.server().transport().resume_producing();
    pump.flush();
    assert_eq!(serving.text(), "held");
    assert!(matches!(serving.reason().check(), Some(ConnectionClosed::Truncated)), "{}", serving.reason());
    library.take(&raw);
    assert_eq!(library.plain, b"last words");
}

/// F57: our direction of TLS ends with `lose_write_connection`, once, behind what was written; the other one goes on until
/// `lose_connection`, or until it has ended too.
#[test]
fn half_closes() {
    for lose in [true, false] {
        let (_, client_tls, server_tls) = usual();
        let ((client, asking), (server, serving)) = (tls_side(client_tls), tls_side(server_tls));
        let pump = connect(client.half_close(), server.half_close());
        pump.client().transport().write(b"the whole question");
        pump.client().transport().lose_write_connection();
        pump.flush();
        assert_eq!(asking.log.all(), ["made", "secured", "write lost"]);
        assert_eq!(serving.log.all(), ["made", "secured", "data", "read lost"]);
        pump.client().transport().write(b"too late");
        pump.server().transport().write(b"an answer");
        pump.flush();
        assert_eq!(asking.text(), "an answer");
        pump.client().transport().lose_write_connection();
        if lose {
            pump.client().transport().lose_connection();
        } else {
            pump.server().transport().lose_write_connection();
        }
        pump.flush();
        pump.server().transport().lose_connection();
        pump.flush();
        assert_eq!(serving.text(), "the whole question");
        assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
        assert_eq!(serving.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// F57: our direction may be ended before the handshake is done, with something to be sent or without: it ends when that is.
#[test]
fn a_half_close_during_the_handshake() {
    for write in [true, false] {
        let (_, client_tls, server_tls) = usual();
        let ((client, asking), (server, serving)) = (side(), tls_side(server_tls));
        let client = client.half_close().made(move |transport| {
            transport.start_tls(&client_tls)?;
            if write {
                transport.write(b"all of it");
            }
            transport.lose_write_connection();
            Ok(())
        });
        let server = server.half_close().read_lost(|transport| {
            transport.write(b"an answer");
            transport.lose_connection();
            Ok(())
        });
        let pump = PumpOptions::new().room(100).connect(client, server);
        pump.flush();
        assert_eq!(serving.text(), if write { "all of it" } else { "" });
        assert_eq!(asking.text(), "an answer");
        assert_eq!(asking.log.all(), ["made", "secured", "write lost", "data", "read lost", CLEAN]);
        assert_eq!(serving.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// A peer that has all that was written, and goes before it has our end of TLS, has missed nothing.
#[test]
fn a_peer_that_does_not_wait_for_the_end() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = PumpOptions::new().room(10).connect(client, server);
    let transport = pump.client().transport();
    Library::client(&authority, "example.org").talk(&pump, transport, &raw);
    transport.pause_producing();
    pump.flush();
    pump.server().transport().lose_connection();
    pump.flush();
    assert!(pump.server().transport().queued() > 0, "there is no room for it");
    transport.abort_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", CLEAN]);
}

/// F54: a peer that never ends its direction holds nothing up: `connection_lost` comes as soon as everything was sent, and the
/// socket is closed 5 s later.
#[test]
fn a_close_notify_that_is_never_answered() {
    let (authority, _, server_tls) = usual();
    let (pump, raw, serving) = with_library_client(server_tls);
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, pump.client().transport(), &raw);
    pump.server().transport().write(b"last words");
    pump.server().transport().lose_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", CLEAN]);
    library.take(&raw);
    assert_eq!(library.plain, b"last words");
    pump.advance(Duration::from_millis(4999));
    pump.client().transport().write(b"still here");
    pump.flush();
    assert!(pump.client().lost().is_none(), "it lingers");
    pump.advance(Duration::from_millis(1));
    pump.client().transport().write(b"still here");
    pump.flush();
    assert!(matches!(raw.reason().check(), Some(ConnectionClosed::Reset { .. })), "{}", raw.reason());
}

/// F53, A9: a handshake has 30 s, however the peer trickles; or as long as is said.
#[test]
fn a_handshake_that_stalls() {
    let (authority, client_tls, server_tls) = usual();
    let short = Duration::from_secs(3);
    for (tls, limit) in [
        (Tls::from(server_tls.clone()), Duration::from_secs(30)),
        (client_tls.clone().into(), Duration::from_secs(30)),
        (server_tls.clone().with_handshake_timeout(Some(short)).into(), short),
        (client_tls.clone().with_handshake_timeout(Some(short)).into(), short),
    ] {
        let ((server, serving), (client, _)) = (tls_side(tls), side());
        let pump = connect(client, server);
        let hello = [0x16, 3, 1, 1, 0];
        for byte in &hello {
            pump.client().transport().write(&[*byte]);
            pump.advance(limit / 6);
        }
        assert_eq!(serving.log.all(), ["made"]);
        pump.advance(limit / 6 - Duration::from_millis(1));
        assert_eq!(serving.log.all(), ["made"]);
        pump.advance(Duration::from_millis(1));
        assert_eq!(serving.error(), format!("the TLS handshake was not done after {limit:?}"));
    }
    let (pump, _raw, serving) = with_library_client(server_tls.with_handshake_timeout(None));
    pump.advance(Duration::from_secs(10_000));
    assert_eq!(serving.log.all(), ["made"]);
    // One that is done has no limit any more.
    let (pump, asking, _) = play(client_tls, authority.server(&["example.org"]));
    pump.advance(Duration::from_secs(10_000));
    assert_eq!(asking.log.all(), ["made", "secured"]);
}

/// F55: a connection that is lost during the handshake closes at once if there is nothing to be sent, and otherwise when that was
/// sent; one that is aborted does not wait.
#[test]
fn closing_during_the_handshake() {
    for (write, lose, expected) in [
        (false, true, CLEAN),
        (true, true, CLEAN),
        (false, false, "lost: the connection was aborted"),
        (true, false, "lost: the connection was aborted"),
    ] {
        let (authority, client_tls, _) = usual();
        let (pump, asking, raw) = with_library_server(client_tls);
        pump.flush();
        let transport = pump.client().transport();
        if write {
            transport.write(b"what has to be said");
        }
        if lose {
            transport.lose_connection();
        } else {
            transport.abort_connection();
        }
        pump.flush();
        let waits = write && lose;
        assert_eq!(asking.log.is_over(), !waits);
        let mut library = Library::server(&authority, "example.org");
        if waits {
            library.talk(&pump, pump.server().transport(), &raw);
            assert_eq!(library.plain, b"what has to be said");
        }
        assert_eq!(asking.log.all().last().map(String::as_str), Some(expected));
    }
}

/// F55: what waits for the handshake counts, so a producer is paused; and it is resumed when the peer takes what was sent.
#[test]
fn a_producer_during_the_handshake() {
    struct Logs(Log);
    impl Producer for Logs {
        fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
            self.0.add("resume");
            Ok(())
        }
        fn pause_producing(&mut self, _consumer: &Transport) -> Result<()> {
            self.0.add("pause");
            Ok(())
        }
        fn stop_producing(&mut self, _consumer: &Transport) {
            self.0.add("stop");
        }
    }
    let (authority, client_tls, _) = usual();
    let (pump, _asking, raw) = with_library_server(client_tls);
    let (transport, told) = (pump.client().transport(), Log::default());
    transport.register_producer(Logs(told.clone()), Streaming::Push).expect("nobody else has");
    pump.flush();
    transport.write(&[7; 100_000]);
    pump.flush();
    assert_eq!(told.all(), ["pause"]);
    let mut library = Library::server(&authority, "example.org");
    library.talk(&pump, pump.server().transport(), &raw);
    assert_eq!(told.all(), ["pause", "resume"]);
    assert_eq!(library.plain.len(), 100_000);
    transport.unregister_producer();
    transport.lose_connection();
    pump.flush();
    assert_eq!(told.all(), ["pause", "resume"]);
}

/// A protocol that does not read yet does not hold up the handshake; what comes behind it waits.
#[test]
fn paused_from_the_beginning() {
    let (_, client_tls, server_tls) = usual();
    let ((client, _asking), (server, serving)) = (side_that_writes(client_tls), side());
    let server = server.made(move |transport| {
        transport.pause_producing();
        Ok(transport.start_tls(&server_tls)?)
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured"]);
    pump.client().transport().write(&[7; 1_000_000]);
    pump.flush();
    assert!(pump.client().transport().queued() > 800_000, "nobody reads");
    pump.server().transport().resume_producing();
    pump.flush();
    assert!(serving.text().starts_with("for the right server only\u{7}"));
    assert_eq!(serving.received.borrow().len(), 1_000_025);
}

/// Garbage in the place of a handshake ends the connection with an error that says so, in either role; the peer is told in TLS.
#[test]
fn garbage_instead_of_a_handshake() {
    let (_, client_tls, server_tls) = usual();
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let (zeros, ones, random) = (
        vec![0; 70_000],
        vec![255; 70_000],
        (0..70_000_u32).map(|at| (at.wrapping_mul(at) >> 5) as u8).collect::<Vec<_>>(),
    );
    for tls in [Tls::from(client_tls), Tls::from(server_tls)] {
        for garbage in
            [&http[..], &zeros, &ones, &random, b"\x16\x03\x01\x00\x04\xff\xff\xff\xff", b"\x17\x03\x03\x00\x01\x00"]
        {
            let ((server, serving), (client, raw)) = (tls_side(tls.clone()), side());
            let pump = connect(client, server);
            pump.client().transport().write(garbage);
            pump.flush();
            let error = serving.error();
            assert!(error.contains("does not speak TLS") || error.contains("broke the rules of TLS"), "{error}");
            let alert = raw.received.borrow();
            assert!(alert.windows(5).any(|record| record == b"\x15\x03\x03\x00\x02"), "no alert: {alert:?}");
        }
    }
}

/// A11: a handshake that ends anywhere, by an end of the stream, by a `close_notify`, or by a reset, ends the connection with a
/// reason; and one that comes a byte at a time is as good as any.
#[test]
fn a_hello_that_is_cut_anywhere() {
    let (authority, _, server_tls) = usual();
    let hello = Library::client(&authority, "example.org").send();
    for cut in 0..=hello.len() {
        for how in 0..3 {
            let (pump, _raw, serving) = with_library_client(server_tls.clone());
            let transport = pump.client().transport();
            transport.write(&hello[..cut]);
            match how {
                0 => transport.lose_write_connection(),
                1 => {
                    transport.write(b"\x15\x03\x03\x00\x02\x01\x00");
                    transport.lose_write_connection();
                }
                _ => {
                    pump.flush();
                    transport.abort_connection();
                }
            }
            pump.flush();
            match how {
                2 => assert!(matches!(serving.reason().check(), Some(ConnectionClosed::Reset { .. }))),
                _ => drop(serving.error()),
            }
            assert_eq!(serving.log.count("secured") + serving.log.count("data"), 0);
        }
    }
}

/// A `ClientHello` with a name of 1 MiB, in as many records as that takes, is refused before it was kept: nothing that a peer says
/// before the handshake is done takes more than a handshake message may have.
#[test]
fn a_megabyte_of_names() {
    let (_, _, server_tls) = usual();
    let (pump, _raw, serving) = with_library_client(server_tls);
    // A handshake message of type 1 with a length of 1 MiB, in records of 16 KiB.
    let mut message = vec![1, 0x10, 0, 0, 3, 3];
    message.resize(4 + (1 << 20), b'a');
    let mut sent = 0;
    for piece in message.chunks(16 * 1024) {
        let mut record = vec![0x16, 3, 1];
        record.extend((piece.len() as u16).to_be_bytes());
        record.extend_from_slice(piece);
        pump.client().transport().write(&record);
        pump.flush();
        if serving.log.is_over() {
            break;
        }
        sent += piece.len();
    }
    assert!(serving.log.is_over() && sent <= 64 * 1024, "{sent} bytes were taken");
    assert!(serving.error().contains("does not speak TLS"), "{}", serving.error());
}

/// F56: floods of what is allowed once: empty records, alerts that are warnings. They end the connection, or cost nothing.
#[test]
fn floods() {
    let (authority, _, server_tls) = usual();
    let flood = |record: &[u8], after_the_handshake: bool| {
        let (pump, raw, serving) = with_library_client(server_tls.clone());
        let transport = pump.client().transport();
        if after_the_handshake {
            Library::client(&authority, "example.org").talk(&pump, transport, &raw);
        }
        for _ in 0..200 {
            transport.write(&record.repeat(100));
            pump.flush();
        }
        assert_eq!(serving.log.count("data"), 0);
        serving
    };
    for (record, ready) in [
        (&b"\x16\x03\x03\x00\x00"[..], false),
        (b"\x15\x03\x03\x00\x02\x01\x5a", false),
        (b"\x14\x03\x03\x00\x01\x01", false),
        (b"\x14\x03\x03\x00\x01\x01", true),
        (b"\x17\x03\x03\x00\x00", true),
        (b"\x15\x03\x03\x00\x02\x01\x5a", true),
    ] {
        assert!(flood(record, ready).log.is_over(), "{record:?} {ready}");
    }
}

/// F56, A10: a peer that has its keys renewed all the time, and reads nothing, makes us keep nothing for it.
#[test]
fn a_flood_of_key_updates() {
    let (authority, _, server_tls) = usual();
    let (pump, raw, serving) = with_library_client(server_tls);
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, transport, &raw);
    pump.client().transport().pause_producing();
    for _ in 0..1000 {
        if library.connection.refresh_traffic_keys().is_err() {
            break;
        }
        transport.write(&library.send());
        pump.flush();
        assert!(pump.server().transport().queued() + pump.server().in_flight() < 70_000);
    }
    assert!(serving.log.is_over() || pump.server().transport().queued() < 1000);
}

/// A record that was changed on the way ends the connection, whatever has been ended before, and never brings the engine down.
#[test]
fn a_record_that_was_changed() {
    for shut in [true, false] {
        let (authority, _, server_tls) = usual();
        let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
        let pump = connect(client.half_close(), server.half_close());
        let transport = pump.client().transport();
        let mut library = Library::client(&authority, "example.org");
        library.talk(&pump, transport, &raw);
        if shut {
            pump.server().transport().lose_write_connection();
            pump.flush();
        }
        let mut record = library.write(b"one hundred");
        let last = record.len() - 1;
        record[last] ^= 1;
        transport.write(&record);
        pump.flush();
        // Having ended its direction, the library trips over an assertion of its own, which it has in debug builds only.
        let trips = shut && cfg!(debug_assertions);
        let expected = if trips { "TLS failed" } else { "the peer broke the rules of TLS: cannot decrypt" };
        assert!(serving.error().starts_with(expected), "{}", serving.error());
        assert_eq!(serving.text(), "");
    }
}

/// What comes behind the peer's end of TLS is nobody's.
#[test]
fn behind_a_close_notify() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = connect(client, server.half_close());
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, transport, &raw);
    library.connection.send_close_notify();
    transport.write(&library.send());
    transport.write(&b"plain text behind it".repeat(10_000));
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", "read lost"]);
    pump.server().transport().write(b"still heard");
    pump.flush();
    library.take(&raw);
    assert_eq!(library.plain, b"still heard");
}

/// F19: TLS is asked for inside every callback, on a plain connection and on one that speaks it: nothing panics, it is refused where the
/// connection is closing, and both sides hear of the end once.
#[test]
fn start_tls_in_every_callback() {
    let (authority, client_tls, server_tls) = usual();
    for secure in [false, true] {
        for when in ["made", "secured", "data", "read lost", "write lost", "lost"] {
            let (started, tls) = (Rc::new(RefCell::new(Vec::new())), authority.client("example.org"));
            let (log, starts) = (Log::default(), Rc::clone(&started));
            let ask = move |now: &str, transport: &Transport| {
                log.add(now);
                if now == when && log.count(now) == 1 {
                    starts.borrow_mut().push(transport.start_tls(&tls).is_ok());
                }
            };
            let ask = Rc::new(ask);
            let at = |now: &'static str| {
                let ask = Rc::clone(&ask);
                move |transport: &Transport| {
                    ask(now, transport);
                    Ok(())
                }
            };
            let ((client, asking), (server, serving)) = (side(), side());
            let (made, outer) = (at("made"), client_tls.clone());
            let client = client.half_close().made(move |transport| {
                if secure {
                    transport.start_tls(&outer)?;
                }
                transport.write(b"a question");
                made(transport)
            });
            let (data, lost) = (Rc::clone(&ask), Rc::clone(&ask));
            let client = client
                .secured(at("secured"))
                .data(move |transport, _| {
                    data("data", transport);
                    transport.lose_write_connection();
                    Ok(())
                })
                .read_lost(at("read lost"))
                .write_lost(at("write lost"))
                .lost(move |transport| lost("lost", transport));
            let tls = server_tls.clone();
            let server =
                server.half_close().made(move |transport| if secure { Ok(transport.start_tls(&tls)?) } else { Ok(()) });
            let server = server.data(|transport, _| {
                transport.write(b"an answer");
                Ok(())
            });
            let server = server.read_lost(|transport| {
                transport.lose_connection();
                Ok(())
            });
            let pump = connect(client, server);
            pump.advance(Duration::from_secs(31));
            pump.advance(Duration::from_secs(31));
            let case = format!("{when}, secure {secure}: {:?} {:?}", asking.log.all(), serving.log.all());
            assert_eq!((asking.log.count("lost"), serving.log.count("lost")), (1, 1), "{case}");
            let expected: &[bool] = match when {
                "secured" if !secure => &[],
                "made" | "secured" | "data" => &[true],
                // Both directions of a connection end before it is lost, and then nothing can be begun.
                _ => &[false],
            };
            assert_eq!(*started.borrow(), expected, "{case}");
        }
    }
}

/// A callback that fails closes the connection with TLS's own end, behind what was written.
#[test]
fn a_callback_that_fails() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side_that_writes(client_tls), tls_side(server_tls));
    let server = server.data(|transport, _| {
        transport.write(b"up to here");
        Err(Failure::message("the disk is full"))
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.log.all().last().map(String::as_str), Some("lost: the disk is full"));
    assert_eq!(asking.text(), "up to here");
    assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
}

/// What TLS draws at random is not drawn from the seed, but its lengths do not depend on it: with Ed25519 a simulated run takes the
/// same course every time.
#[test]
fn a_simulated_run_takes_the_same_course() {
    let authority = Authority::repeatable();
    let server_tls = authority.server(&["example.org"]);
    let run = |seed: u64| {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let [server, client] = [1, 2].map(|host| network.reactor([10, 0, 0, host].into()));
        let tls = server_tls.clone();
        let (echo, _) = tls_side(tls);
        let echo = echo.data(|transport, data| {
            transport.write(data);
            Ok(())
        });
        let port =
            server.listen_tcp(([10, 0, 0, 1], 7).into(), &ListenOptions::new(), common::once(echo)).expect("a port");
        // One that has no session to resume.
        let ((asking, asked), to) =
            (tls_side(authority.client("example.org")), port.host().socket_addr().expect("a TCP port"));
        let asking = asking.data(|transport, _| {
            transport.lose_connection();
            Ok(())
        });
        let asking = asking.secured(|transport| {
            transport.write(b"a question");
            Ok(())
        });
        drop(client.connect_tcp(to, &ConnectOptions::new(), common::once(asking)));
        network.run_until(Duration::from_secs(600), || asked.log.is_over()).expect("it ends");
        assert_eq!(asked.log.reason(), "the connection was closed cleanly");
        network.fingerprint()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
