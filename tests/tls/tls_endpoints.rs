//! TLS in descriptions and around other endpoints, over real sockets, with certificates in files.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::certificates::{self, Authority, Folder};
use crate::common::programs::said;
use crate::common::*;
use ropewalk::endpoints::{
    DescriptionErrorKind, client_from_string, quote_string_argument, server_from_string, wrap_client_tls,
    wrap_server_tls,
};
use ropewalk::interfaces::*;
use ropewalk::tls::{ClientTls, ConfigError, Identity, ServerTls, TlsSession, TrustRoots};
use ropewalk::{Port, Reactor};

/// An authority, with what it has signed: `ca/ca.pem`; `server.pem` and `server.key` for
/// `localhost` and 127.0.0.1; `both.pem`, which is both in one; `me.pem` and `me.key`, a client's.
struct Files {
    folder: Folder,
}

impl Files {
    fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        folder.put("ca/ca.pem", &authority.pem());
        folder.put("ca/not-a-certificate.txt", "this is not one");
        let server = authority.issue(&["localhost", "127.0.0.1"]);
        folder.put("server.pem", &server.certificate);
        folder.put("server.key", &server.key);
        folder.put("both.pem", &format!("{}{}", server.certificate, server.key));
        let client = authority.issue(&["a.client"]);
        folder.put("me.pem", &client.certificate);
        folder.put("me.key", &client.key);
        Self { folder }
    }

    /// A path as a description has it.
    fn at(&self, name: &str) -> String {
        quote_string_argument(&self.folder.at(name)).into_owned()
    }
}

/// The log of the protocols of one side.
#[derive(Clone, Default)]
struct Seen {
    log: Log,
    sessions: Rc<RefCell<Vec<TlsSession>>>,
}

impl Seen {
    fn script(&self) -> Script {
        let sessions = Rc::clone(&self.sessions);
        Script::new(&self.log).secured(move |transport| {
            sessions.borrow_mut().extend(transport.tls_session());
            Ok(())
        })
    }

    /// A factory of scripts that echo.
    fn echoes(&self) -> impl Factory {
        let seen = self.clone();
        move |_| {
            Some(seen.script().data(|transport, data| {
                transport.write(data);
                Ok(())
            }))
        }
    }

    fn last_session(&self) -> TlsSession {
        self.sessions.borrow().last().expect("a handshake is done").clone()
    }
}

#[track_caller]
fn serve(reactor: &Reactor, description: &str) -> (Port, u16, Seen) {
    let (endpoint, seen) = (server_from_string(reactor, description).expect(description), Seen::default());
    let port = result_of(reactor, endpoint.listen(seen.echoes())).expect(description);
    let number = port.host().port().expect("a TCP port");
    (port, number, seen)
}

/// Connects, says hello, and gives what happened when the answer has come or the connection is
/// over.
#[track_caller]
fn ask(reactor: &Reactor, endpoint: &impl ClientEndpoint) -> Seen {
    let seen = Seen::default();
    let script = seen.script().made(|transport| {
        transport.write(b"hello");
        Ok(())
    });
    let script = script.data(|transport, data| {
        assert_eq!(data, b"hello");
        transport.lose_connection();
        Ok(())
    });
    drop(result_of(reactor, endpoint.connect(once(script))).expect("somebody listens"));
    run_until(reactor, || seen.log.is_over());
    seen
}

#[track_caller]
fn ask_string(reactor: &Reactor, description: &str) -> Seen {
    ask(reactor, &client_from_string(reactor, description).expect(description))
}

const ANSWERED: [&str; 4] = ["made", "secured", "data", "lost: the connection was closed cleanly"];

/// Every way to write a server is one to be reached at, by every way to write a client.
#[test]
fn descriptions() {
    let (reactor, files) = (reactor(), Files::new());
    let (key, certificate, both, ca) =
        (files.at("server.key"), files.at("server.pem"), files.at("both.pem"), files.at("ca"));
    let (my_key, my_certificate) = (files.at("me.key"), files.at("me.pem"));
    for server in [
        format!("ssl:0:{key}:{certificate}:interface=127.0.0.1"),
        format!("ssl:0:{both}:interface=127.0.0.1:backlog=5"),
        format!("ssl:port=0:privateKey={both}:interface=127.0.0.1:sslmethod=TLS_METHOD"),
        format!("ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1:sslmethod=TLSv1_2_METHOD"),
        format!("ssl:0:{key}:{certificate}::127.0.0.1:5:extraCertChain={ca}/ca.pem")
            .replace("::127", ":SSLv23_METHOD:127"),
        format!("tls:{}:0:interface=127.0.0.1", files.at("")),
        format!("TLS:{}:0:50:127.0.0.1", files.at("")),
    ] {
        let (_port, number, served) = serve(&reactor, &server);
        for client in [
            format!("ssl:localhost:{number}:caCertsDir={ca}"),
            format!("ssl:127.0.0.1:{number}:caCertsDir={ca}:hostname=localhost"),
            format!("ssl:{number}:host=127.0.0.1:caCertsDir={ca}:timeout=5:bindAddress=127.0.0.1"),
            format!("ssl:localhost:{number}:caCertsDir={ca}:privateKey={my_key}:certKey={my_certificate}"),
            format!("tls:localhost:{number}:trustRoots={ca}"),
            format!("tls:127.0.0.1:{number}:5:127.0.0.1:trustRoots={ca}"),
            format!("tls:localhost:{number}:trustRoots={ca}:certificate={my_certificate}:privateKey={my_key}"),
            format!("tls:localhost:1:trustRoots={ca}:endpoint=tcp\\:127.0.0.1\\:{number}"),
        ] {
            let seen = ask_string(&reactor, &client);
            assert_eq!(seen.log.all(), ANSWERED, "{server} {client}");
        }
        let version = served.last_session().version;
        let only = server.contains("TLSv1_2").then_some(ropewalk::tls::TlsVersion::Tls12);
        assert!(only.is_none_or(|only| only == version));
    }
}

/// Protocols for ALPN in the descriptions of both sides: the server chooses, in its order.
#[test]
fn descriptions_negotiate_protocols() {
    let (reactor, files) = (reactor(), Files::new());
    let (both, folder, ca) = (files.at("both.pem"), files.at(""), files.at("ca"));
    for server in [format!("ssl:0:{both}:interface=127.0.0.1"), format!("tls:{folder}:0:interface=127.0.0.1")] {
        let (_port, number, served) = serve(&reactor, &format!("{server}:protocols=h2,http/1.1"));
        for client in [
            format!("ssl:localhost:{number}:caCertsDir={ca}"),
            format!("tls:localhost:{number}:trustRoots={ca}"),
            format!("tls:localhost:1:trustRoots={ca}:endpoint=tcp\\:127.0.0.1\\:{number}"),
        ] {
            for (asked, chosen) in
                [("", None), (":protocols=http/1.1", Some("http/1.1")), (":protocols=x,http/1.1,h2", Some("h2"))]
            {
                let seen = ask_string(&reactor, &format!("{client}{asked}"));
                assert_eq!(seen.log.all(), ANSWERED, "{server} {client}");
                for session in [seen.last_session(), served.last_session()] {
                    assert_eq!(session.negotiated_protocol.as_deref(), chosen.map(str::as_bytes), "{client}{asked}");
                }
            }
        }
    }
    let long = "x".repeat(256);
    for wrong in ["", "h2,", ",h2", &long] {
        let expected = "expected names of protocols for ALPN";
        let server = server_from_string(&reactor, &format!("ssl:0:{both}:protocols={wrong}")).map(drop).unwrap_err();
        let client = client_from_string(&reactor, &format!("tls:localhost:1:protocols={wrong}")).map(drop).unwrap_err();
        assert!(server.to_string().contains(expected) && client.to_string().contains(expected), "{server}; {client}");
    }
}

/// A12: nothing in a description turns verification off: without roots of one's own those of the
/// platform count, and the name is that of the host unless another is given.
#[test]
fn descriptions_verify() {
    let (reactor, files) = (reactor(), Files::new());
    let (_port, number, served) = serve(&reactor, &format!("ssl:0:{}:interface=127.0.0.1", files.at("both.pem")));
    let ca = files.at("ca");
    for (client, expected) in [
        (format!("ssl:127.0.0.1:{number}:caCertsDir={ca}:hostname=other.example"), "is not for other.example"),
        (
            format!("tls:other.example:1:trustRoots={ca}:endpoint=tcp\\:127.0.0.1\\:{number}"),
            "is not for other.example",
        ),
        (format!("ssl:localhost:{number}"), "its issuer is not trusted"),
        (format!("tls:localhost:{number}"), "its issuer is not trusted"),
        (format!("ssl:localhost:{number}:hostname=localhost"), "its issuer is not trusted"),
    ] {
        // A machine may have no roots at all, which is an error as good.
        match client_from_string(&reactor, &client) {
            Ok(endpoint) => {
                let seen = ask(&reactor, &endpoint);
                assert!(seen.log.reason().contains(expected), "{client}: {}", seen.log.reason());
            }
            Err(error) => assert!(error.to_string().contains("platform"), "{error}"),
        }
    }
    run_until(&reactor, || served.log.count("made") == served.log.count("lost"));
    assert_eq!(served.log.count("data"), 0);
}

/// The platform's roots are those that the environment names, if it names any: a client needs no
/// others then. The environment is that of a process, so this test runs itself in one of its own.
#[test]
fn the_platforms_roots() {
    const INSIDE: &str = "ROPEWALK_TEST_PLATFORM_ROOTS";
    if let Some(identity) = std::env::var_os(INSIDE) {
        let reactor = reactor();
        let both = quote_string_argument(identity.to_str().expect("a path")).into_owned();
        let (_port, number, _served) = serve(&reactor, &format!("ssl:0:{both}:interface=127.0.0.1"));
        for client in [format!("tls:localhost:{number}"), format!("ssl:localhost:{number}")] {
            assert_eq!(ask_string(&reactor, &client).log.all(), ANSWERED, "{client}");
        }
        return;
    }
    own_process!();
    let files = Files::new();
    let inside = |roots: &str| {
        let mut test = this_program("tls_endpoints::the_platforms_roots");
        test.env(INSIDE, files.folder.at("both.pem"));
        test.env("SSL_CERT_FILE", files.folder.at(roots)).env_remove("SSL_CERT_DIR").output().expect("this test")
    };
    let good = inside("ca/ca.pem");
    assert!(good.status.success(), "{}", said(&good));
    let bad = inside("no-such-file.pem");
    let said = said(&bad);
    assert!(
        !bad.status.success() && said.contains("no usable certificate of an authority in the platform's store"),
        "{said}"
    );
}

/// The interface that an address belongs to is this host's affair: the certificate is for the
/// address.
#[test]
fn an_address_with_an_interface() {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        return println!("skipped: no IPv6 loopback here: {error}");
    }
    let (reactor, authority, folder) = (reactor(), Authority::new(), Folder::new());
    let issued = authority.issue(&["::1"]);
    folder.put("ca/ca.pem", &authority.pem());
    folder.put("both.pem", &format!("{}{}", issued.certificate, issued.key));
    let at = |name: &str| quote_string_argument(&folder.at(name)).into_owned();
    let (_port, number, _served) = serve(&reactor, &format!("ssl:0:{}:interface=[::1%lo]", at("both.pem")));
    for scope in ["lo", "1"] {
        let client = format!("tls:[::1%{scope}]:{number}:trustRoots={}", at("ca"));
        assert_eq!(ask_string(&reactor, &client).log.all(), ANSWERED, "{client}");
    }
}

/// Options beside another endpoint are that one's.
#[test]
fn options_beside_an_endpoint() {
    let (reactor, files) = (reactor(), Files::new());
    let client = |option: &str| {
        let text = format!("tls:example.org:443:trustRoots={}:endpoint=tcp\\:localhost\\:1:{option}", files.at("ca"));
        client_from_string(&reactor, &text).map(drop)
    };
    for option in ["noDelay=0", "queueLimit=1", "receiveBuffer=1", "reusePort=1"] {
        let error = client(option).unwrap_err().to_string();
        assert!(error.ends_with("expected nothing beside endpoint, which has options of its own"), "{error}");
    }
    client("timeout=1").unwrap();
}

/// Errors of descriptions name the fault and its place; files are read when the endpoint is made.
#[test]
fn descriptions_that_are_wrong() {
    let (reactor, files) = (reactor(), Files::new());
    let (both, ca) = (files.at("both.pem"), files.at("ca"));
    let strangers_key = files.folder.put("stranger.key", &Authority::new().issue(&["localhost"]).key);
    let empty = files.folder.put("empty/nothing.txt", "").replace("/nothing.txt", "");
    let unusable = |client: bool, text: &str| {
        let error = match client {
            true => client_from_string(&reactor, text).map(drop).expect_err(text),
            false => server_from_string(&reactor, text).map(drop).expect_err(text),
        };
        assert!(error.to_string().starts_with("in \"") && error.to_string().lines().count() == 1, "{error}");
        error
    };
    for (client, text, expected) in [
        (false, "ssl".to_owned(), "port is missing"),
        (false, "ssl:0".to_owned(), "cannot read \"server.pem\": No such file"),
        (false, "ssl:0:/no/such/file".to_owned(), "cannot read \"/no/such/file\": No such file"),
        (false, format!("ssl:0:{both}:certKey={}", files.at("server.key")), "there is no certificate in PEM format in"),
        (false, format!("ssl:0:{}:{both}", files.at("server.pem")), "there is no private key in PEM format in"),
        (
            false,
            format!("ssl:0:{strangers_key}:{both}"),
            "the TLS configuration is not usable: keys may not be consistent: KeyMismatch",
        ),
        (false, format!("ssl:0:{both}:sslmethod=SSLv3_METHOD"), "expected TLS_METHOD, or TLSv1_2_METHOD"),
        (false, format!("ssl:0:{both}:dhParameters=dh.pem"), "expected nothing"),
        (false, format!("ssl:0:{both}:extraCertChain="), "expected a path"),
        (false, "tls".to_owned(), "path is missing"),
        (false, "tls:/no/such/folder".to_owned(), "cannot read \"/no/such/folder\""),
        (false, format!("tls:{ca}"), "there is no certificate with its private key in PEM format in the .pem files of"),
        (true, "ssl:localhost".to_owned(), "port is missing"),
        (true, "ssl:localhost:443:caCertsDir=/no/such/folder".to_owned(), "cannot read \"/no/such/folder\""),
        (true, format!("ssl:localhost:443:caCertsDir={empty}"), "there is no usable certificate of an authority in"),
        (true, format!("ssl:localhost:443:caCertsDir={ca}:method=TLS"), "expected host, port, timeout"),
        (true, format!("tls:localhost:443:trustRoots={ca}:endpoint=tpc\\:1"), "\"tpc\" is not a type of endpoint"),
        (true, format!("tls:-:443:trustRoots={ca}"), "cannot be the name of a server's certificate"),
    ] {
        let said = unusable(client, &text).to_string();
        assert!(said.contains(expected), "{said}: not {expected:?}");
    }
    let error = unusable(false, "ssl:0");
    assert!(matches!(error.kind(), DescriptionErrorKind::Unusable { .. }) && error.position() == 5);
}

/// A folder of certificates: each name has its own, keys may be apart, others' certificates are
/// passed over; and a request for a name that came later reads the folder again.
#[test]
fn a_folder_of_certificates() {
    let (reactor, authority, folder) = (reactor(), Authority::new(), Folder::new());
    folder.put("authority.pem", &authority.pem());
    let first = authority.issue(&["first.example"]);
    folder.put("first/fullchain.pem", &first.certificate);
    folder.put("first/privkey.pem", &first.key);
    let wild = authority.issue(&["*.wild.example"]);
    folder.put("wild.pem", &format!("{}{}", wild.key, wild.certificate));
    let description = format!("tls:{}:0:interface=127.0.0.1", quote_string_argument(&folder.at("")));
    let (_port, number, served) = serve(&reactor, &description);
    let ask_for = |name: &str| {
        let to = client_from_string(&reactor, &format!("tcp:127.0.0.1:{number}")).expect("a description");
        ask(&reactor, &wrap_client_tls(authority.client(name), to))
    };
    for name in ["first.example", "any.wild.example"] {
        assert_eq!(ask_for(name).log.all(), ANSWERED);
        assert_eq!(served.last_session().server_name.as_deref(), Some(name));
    }
    assert!(ask_for("later.example").log.reason().contains("is not for later.example"));
    // One that can't be read changes nothing.
    let later = authority.issue(&["later.example"]);
    folder.put("later/cert.pem", "-----BEGIN CERTIFICATE-----\nnonsense");
    assert!(ask_for("later.example").log.reason().contains("is not for later.example"));
    assert_eq!(ask_for("first.example").log.all(), ANSWERED);
    folder.put("later/cert.pem", &format!("{}{}", later.certificate, later.key));
    assert_eq!(ask_for("later.example").log.all(), ANSWERED);
    assert_eq!(ask_for("first.example").log.all(), ANSWERED);
}

/// TLS around any endpoint: over a UNIX socket, and around TLS.
#[test]
fn around_anything() {
    let (reactor, authority, folder) = (reactor(), Authority::new(), Folder::new());
    let path = quote_string_argument(&folder.at("socket")).into_owned();
    let unix = server_from_string(&reactor, &format!("unix:{path}:lockfile=0")).expect("a description");
    let (inner, outer) = (authority.server(&["inner.example"]), authority.server(&["outer.example"]));
    let seen = Seen::default();
    let endpoint = wrap_server_tls(inner, wrap_server_tls(outer, unix));
    let _port = result_of(&reactor, endpoint.listen(seen.echoes())).expect("a socket");
    let to = client_from_string(&reactor, &format!("unix:{path}")).expect("a description");
    let to = wrap_client_tls(authority.client("inner.example"), wrap_client_tls(authority.client("outer.example"), to));
    assert_eq!(ask(&reactor, &to).log.all(), ANSWERED);
    run_until(&reactor, || seen.log.is_over());
    assert_eq!(seen.log.all(), ANSWERED);
    assert_eq!(seen.last_session().server_name.as_deref(), Some("inner.example"));
}

/// F53: a client that connects and says nothing, or stops in the middle of the handshake, is sent
/// away when its time is over.
#[test]
fn a_handshake_that_stalls() {
    let (reactor, authority) = (reactor(), Authority::new());
    let limit = Duration::from_millis(200);
    for begin in [&b""[..], b"\x16\x03\x01"] {
        let tls = authority.server(&["localhost"]).with_handshake_timeout(Some(limit));
        let (seen, tcp) = (Seen::default(), server_from_string(&reactor, "tcp:0:interface=127.0.0.1").expect("good"));
        let port = result_of(&reactor, wrap_server_tls(tls, tcp).listen(seen.echoes())).expect("a port");
        let begun = Instant::now();
        let mut peer = dial(port.host().socket_addr().expect("a TCP port"));
        std::io::Write::write_all(&mut peer, begin).expect("it fits");
        run_until(&reactor, || seen.log.is_over());
        assert!(begun.elapsed() >= limit);
        assert_eq!(seen.log.reason(), "the TLS handshake timed out after 200ms");
        let told = read_to_end(&reactor, &mut peer).expect("it ends, and is not reset");
        assert!(told.starts_with(b"\x15\x03"), "an alert: {told:?}");
    }
}

/// A9: peers that send a byte of their handshake from time to time do not delay another peer's echo
/// by a turn, and are closed when their time is over.
#[test]
fn peers_that_trickle() {
    let (reactor, authority) = (reactor(), Authority::new());
    let tls = authority.server(&["localhost"]).with_handshake_timeout(Some(Duration::from_secs(3)));
    let (seen, tcp) = (Seen::default(), server_from_string(&reactor, "tcp:0:interface=127.0.0.1").expect("good"));
    let port = result_of(&reactor, wrap_server_tls(tls, tcp).listen(seen.echoes())).expect("a port");
    let to = port.host().socket_addr().expect("a TCP port");
    let (_echo, at) = listen(&reactor, |_| Some(Echo));
    let mut clients = vec![Client::connect(&reactor, at)];
    let mut slow: Vec<Client> = (0..200).map(|_| Client::connect(&reactor, to)).collect();
    let usual = echo_round(&reactor, &mut clients, b"hello");
    for byte in b"\x16\x03\x01\x01" {
        slow.iter_mut().for_each(|peer| peer.send(&[*byte]));
        assert!(echo_round(&reactor, &mut clients, b"hello") <= usual, "the others are waited for");
    }
    run_until(&reactor, || seen.log.count("lost: the TLS handshake timed out after 3s") == slow.len());
    assert_eq!(echo_round(&reactor, &mut clients, b"hello"), usual);
}

/// F54: a peer that never answers our `close_notify` is not waited for: the protocol hears of the
/// end at once.
#[test]
fn a_close_notify_that_is_never_answered() {
    let (reactor, authority) = (reactor(), Authority::new());
    let (seen, asking) = (Seen::default(), Seen::default());
    let tls = authority.server(&["localhost"]);
    let script = seen.script().made(move |transport| Ok(transport.start_tls(&tls)?)).data(|transport, data| {
        transport.write(data);
        transport.lose_connection();
        Ok(())
    });
    let (_port, to) = listen(&reactor, once(script));
    let tls = authority.client("localhost");
    // The client knows half-closes, so it does not end its direction by itself.
    let script = asking.script().half_close().made(move |transport| {
        transport.start_tls(&tls)?;
        transport.write(b"hello");
        Ok(())
    });
    let connection = result_of(&reactor, connect(&reactor, to, once(script))).expect("somebody listens");
    let begun = Instant::now();
    run_until(&reactor, || seen.log.is_over());
    assert_eq!(seen.log.reason(), "the connection was closed cleanly");
    run_until(&reactor, || asking.log.has("read lost"));
    assert_eq!(asking.log.all(), ["made", "secured", "data", "read lost"]);
    // The other end lingers for 5 s, and bytes sent to it meanwhile cause no reset.
    connection.transport().write(b"still here");
    settle(&reactor);
    assert!(begun.elapsed() < Duration::from_secs(5) && !asking.log.is_over());
    connection.transport().lose_connection();
    run_until(&reactor, || asking.log.is_over());
    assert_eq!(asking.log.reason(), "the connection was closed cleanly");
}

/// A configuration says what is wrong with it.
#[test]
fn configurations_that_are_wrong() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let issued = authority.issue(&["localhost"]);
    for name in ["", "two words", "a..b", "-", &"a".repeat(300), "localhost:443", "[::1]", "mün_chen.de"] {
        let error = authority.client_builder().for_server(name).expect_err(name);
        assert!(matches!(&error, ConfigError::BadName { name: said, .. } if said == name), "{error}");
    }
    let of = |certificate: &str, key: &str| Identity::from_pem(certificate.as_bytes(), key.as_bytes()).map(drop);
    assert!(of(&issued.certificate, &issued.key).is_ok());
    assert!(matches!(of("nonsense", &issued.key), Err(ConfigError::Missing { what: "certificate", .. })));
    assert!(matches!(of(&issued.certificate, ""), Err(ConfigError::Missing { what: "private key", .. })));
    assert!(matches!(of(&issued.certificate, &authority.issue(&["x"]).key), Err(ConfigError::Unusable(_))));
    assert!(matches!(ServerTls::builder().build(), Err(ConfigError::Missing { what: "certificate", .. })));
    assert!(matches!(TrustRoots::from_pem(b""), Err(ConfigError::Missing { .. })));
    assert!(matches!(TrustRoots::from_directory(folder.at("nowhere")), Err(ConfigError::Io { .. })));
    assert!(matches!(TrustRoots::from_directory(folder.at("")), Err(ConfigError::NoRoots { .. })));
    folder.put("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(matches!(TrustRoots::from_directory(folder.at("")), Err(ConfigError::NoRoots { .. })));
    // A key is never printed.
    let identity = certificates::self_signed(&["secret.example"]);
    let shown = format!("{:?} {:?}", identity.identity(), ClientTls::builder().identity(identity.identity()));
    assert!(shown.contains("secret.example") && !shown.contains("PRIVATE"));
}
