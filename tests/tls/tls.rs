//! TLS as a layer, without a network: two protocols on a pump, or one and a peer that is the TLS
//! library alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::certificates::{self, Authority};
use crate::common::tls::*;
use crate::common::{Log, Script};
use ropewalk::testing::{Conditions, Network, PumpOptions};
use ropewalk::tls::{ServerTls, StartTlsError, Tls, TlsError, TlsVersion};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{ConnectOptions, ListenOptions, Result, Transport};

/// F55: what is written at once is sent over TLS when the handshake is done, both ways, and both
/// sides have their callbacks in order.
#[test]
fn a_conversation() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side(), tls_side(server_tls));
    let client = client.made(move |transport| {
        transport.start_tls(&client_tls)?;
        transport.write(b"a question");
        assert!(transport.queued_bytes() >= b"a question".len());
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

/// Whatever the room between them, one byte at a time included, the conversation is the same; and
/// so is a long one.
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
        while pump.client().transport().queued_bytes() + pump.server().transport().queued_bytes() > 0 {
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

/// F58: a connection becomes TLS in the middle. Bytes written before go out first, as plain text;
/// bytes written at once after it are TLS.
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

/// F58: bytes that were held back because reading was paused are the handshake's, and so are those
/// that come while it still is.
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
    // Nor is there a handshake with a peer that has ended its direction.
    let ((client, _), (server, serving)) = (side(), side());
    let ended = connect(client.half_close(), server.half_close());
    ended.client().transport().lose_write_connection();
    ended.flush();
    assert_eq!(serving.log.all(), ["made", "read lost"]);
    assert!(matches!(ended.server().transport().start_tls(&client_tls), Err(StartTlsError::Closing)));
    transport.lose_connection();
    assert!(matches!(transport.start_tls(&client_tls), Err(StartTlsError::Closing)));
    pump.flush();
    assert!(matches!(transport.start_tls(&client_tls), Err(StartTlsError::Closing)));
}

/// TLS within TLS: started at once, or when the outer one is done; each side has one callback for
/// each handshake that it sees the end of.
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
            // It was written before the second began, so it was wrapped once, and came while the
            // second handshake was awaited.
            assert!(serving.reason().check::<TlsError>().is_some(), "{}", serving.reason());
            continue;
        }
        let session = pump.server().transport().tls_session().expect("it is done");
        assert_eq!(session.server_name.as_deref(), Some("inner.example"));
        assert_eq!(serving.log.all(), ["made", "secured", "data"]);
        let big = vec![7; 300_000];
        pump.client().transport().write(&big);
        while pump.client().transport().queued_bytes() > 0 {
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

/// The second handshake may begin in the callback that tells of the first: nothing that comes
/// afterwards passes it by.
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

/// The negotiated version, suite, protocol, names and certificates can be read, and only once they
/// are negotiated.
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

/// Without a protocol in common the handshake fails, and both sides know why; a client that names
/// none is served.
#[test]
fn no_protocol_in_common() {
    let authority = Authority::new();
    let identity = authority.issue(&["example.org"]).identity();
    let server = ServerTls::builder().identity(identity).protocols(["h2"]).build().expect("a configuration");
    let client = authority.client_builder().protocols(["smtp"]).for_server("example.org").expect("a configuration");
    let (_, asking, serving) = play(client, &server);
    assert_eq!(serving.error(), "the peer and this side have no ALPN protocol in common");
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
    assert!(
        serving.error().starts_with("the peer and this side have no TLS parameters in common"),
        "{}",
        serving.error()
    );
    assert_eq!(asking.error(), "the peer ended TLS: protocol_version");
}

/// A server shows the certificate for the name that it is asked for, the one for all names of a
/// domain if there is no better, and the first to whom asks for another or for none.
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
        assert!(asking.error().contains("but for first.example"), "{name}: {}", asking.error());
    }
}

/// A12: everything that can be wrong with a server's certificate makes its handshake fail, in every
/// version, each with an error of its own; the server hears of it; and nothing that was written
/// leaves.
#[test]
fn certificates_that_are_wrong() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let name = "example.org";
    let with = |change: fn(&mut rcgen::CertificateParams)| authority.issue_with(&[name], change);
    for (issued, asked, expected, alert) in [
        (authority.issue(&["other.example"]), name, "is not for example.org, but for other.example", "bad_certificate"),
        (authority.issue(&["127.0.0.1"]), "127.0.0.2", "is not for 127.0.0.2", "bad_certificate"),
        (authority.issue(&[name]), "127.0.0.1", "is not for 127.0.0.1", "bad_certificate"),
        (with(certificates::expired), name, "has expired (", "certificate_expired"),
        (with(certificates::not_yet_valid), name, "is not valid yet (", "certificate_expired"),
        (with(certificates::for_signing_code), name, "is not acceptable", "unsupported_certificate"),
        (strangers.issue(&[name]), name, "self-signed, or its issuer is not trusted", "unknown_ca"),
        (certificates::self_signed(&[name]), name, "self-signed, or its issuer is not trusted", "unknown_ca"),
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

/// A certificate for an address, and the endpoint's usual name for it.
#[test]
fn a_certificate_for_an_address() {
    let authority = Authority::new();
    for address in ["127.0.0.1", "::1"] {
        let (_, asking, _) = play(authority.client(address), authority.server(&[address]));
        assert_eq!(asking.log.all(), ["made", "secured"]);
    }
}

/// Clients show certificates where they have to, or may, and the server sees which; a missing or
/// untrusted one ends the handshake.
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
        assert_eq!(serving.error(), "the peer sent no certificate");
        assert!(asking.error().starts_with("the peer ended TLS: "), "{}", asking.error());
        for server in [&required, &accepted] {
            let (_, _, serving) = play(client(Some(&strangers)), server);
            assert!(serving.error().contains("its issuer is not trusted"), "{}", serving.error());
        }
    }
}

/// A second connection resumes the first one's session, in either version; another configuration
/// does not.
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
            // The tickets of TLS 1.3 come with the server's first answer.
            pump.server().transport().write(b"an answer");
            pump.flush();
            pump.client().transport().lose_connection();
            pump.flush();
        }
    }
}

/// F55: what waits for the handshake counts, so a producer is paused; and it is resumed when the
/// peer takes what was sent.
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
    assert!(pump.client().transport().queued_bytes() > 800_000, "the peer does not read");
    pump.server().transport().resume_producing();
    pump.flush();
    assert!(serving.text().starts_with("for the right server only\u{7}"));
    assert_eq!(serving.received.borrow().len(), 1_000_025);
}

/// F19: TLS is asked for inside every callback, on a plain connection and on one that speaks it:
/// nothing panics, it is refused where the connection is closing, and both sides hear of the end
/// once.
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
                // Both directions of a connection end before it is lost, and then nothing can be
                // begun.
                _ => &[false],
            };
            assert_eq!(*started.borrow(), expected, "{case}");
        }
    }
}

/// TLS does not draw its random numbers from the seed, but its lengths do not depend on them: with
/// Ed25519 a simulated run takes the same course every time.
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
        let port = server
            .listen_tcp(([10, 0, 0, 1], 7).into(), &ListenOptions::new(), crate::common::once(echo))
            .expect("a port");
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
        drop(client.connect_tcp(to, &ConnectOptions::new(), crate::common::once(asking)));
        network.run_until(Duration::from_secs(600), || asked.log.is_over()).expect("it ends");
        assert_eq!(asked.log.reason(), "the connection was closed cleanly");
        network.fingerprint()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
