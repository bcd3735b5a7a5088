//! TLS with programs of other projects: OpenSSL's `s_client` and `s_server`, curl, and Python's
//! `ssl` module.

use std::net::SocketAddr;
use std::process::Output;
use std::rc::Rc;
use std::thread::JoinHandle;

use crate::common::certificates::{self, Authority, Folder, Issued};
use crate::common::programs::*;
use crate::common::tls::Seen;
use crate::common::*;
use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint, wrap_client_tls, wrap_server_tls};
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::tls::{ClientTls, ServerTls, TlsError, TlsVersion};
use ropewalk::{Reactor, Result, Transport};

/// OpenSSL's server, which sends every line back reversed.
fn openssl_server(files: &Files, more: &[&str]) -> Listening {
    let (certificate, key) = (files.folder.at("server.pem"), files.folder.at("server.key"));
    let command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", &certificate, "-key", &key];
    Listening::start(&[&command, more].concat(), "ACCEPT")
}

/// An authority, its certificate for `localhost`, and both in files.
struct Files {
    authority: Authority,
    folder: Folder,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new();
        let issued = authority.issue(&["localhost", "127.0.0.1"]);
        Self::with(authority, &issued)
    }

    fn with(authority: Authority, issued: &Issued) -> Self {
        let folder = Folder::new();
        folder.put("ca.pem", &authority.pem());
        folder.put("server.pem", &issued.certificate);
        folder.put("server.key", &issued.key);
        Self { authority, folder }
    }

    fn server(&self) -> ServerTls {
        let identity =
            ropewalk::tls::Identity::from_pem_files(self.folder.at("server.pem"), self.folder.at("server.key"));
        ServerTls::new(identity.expect("good files")).expect("a configuration")
    }

    fn ca(&self) -> String {
        self.folder.at("ca.pem")
    }
}

/// Listens over TLS, and sends lines back until one of them is "bye".
fn serve_echo(reactor: &Reactor, tls: ServerTls) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let sees = seen.clone();
    let factory = move |_| {
        Some(sees.script().data(|transport, data| {
            transport.write(data);
            if data.ends_with(b"bye\n") {
                transport.lose_connection();
            }
            Ok(())
        }))
    };
    let endpoint = wrap_server_tls(tls, TcpServerEndpoint::bind_to(reactor, loopback()));
    let port = result_of(reactor, endpoint.listen(factory)).expect("a port");
    (port.host().socket_addr().expect("a TCP port"), seen)
}

/// Connects over TLS, sends a line, and closes when a whole line has come back.
fn ask(reactor: &Reactor, tls: ClientTls, to: SocketAddr) -> Seen {
    let seen = Seen::default();
    let script = seen.script().made(|transport| {
        transport.write(b"hello\n");
        Ok(())
    });
    let script = script.data(|transport, data| {
        if data.ends_with(b"\n") {
            transport.lose_connection();
        }
        Ok(())
    });
    let endpoint = wrap_client_tls(tls, TcpClientEndpoint::new(reactor, to));
    drop(result_of(reactor, endpoint.connect(once(script))).expect("somebody listens"));
    run_until(reactor, || seen.log.is_over());
    seen
}

const VERSIONS: [(TlsVersion, &str); 2] = [(TlsVersion::Tls12, "-tls1_2"), (TlsVersion::Tls13, "-tls1_3")];

/// `s_client`, which trusts the authority and believes nothing else, and stays when its input has
/// ended.
fn s_client(files: &Files, to: SocketAddr, more: &[&str], input: &'static [u8]) -> JoinHandle<Output> {
    commanded_s_client(files, to, &[more, &["-ign_eof"]].concat(), input)
}

/// The same, but it takes letters at the beginning of a line for commands, and goes when its input
/// has ended.
fn commanded_s_client(files: &Files, to: SocketAddr, more: &[&str], input: &'static [u8]) -> JoinHandle<Output> {
    let (to, ca) = (to.to_string(), files.ca());
    let command = ["openssl", "s_client", "-connect", &to, "-CAfile", &ca, "-servername", "localhost"];
    let strict = ["-verify_return_error", "-verify_hostname", "localhost"];
    run_program(&[&command, &strict[..], more].concat(), input)
}

#[test]
fn openssls_client() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    for (version, option) in VERSIONS {
        let reactor = reactor();
        let (to, seen) = serve_echo(&reactor, files.server());
        let output = run_beside(&reactor, s_client(&files, to, &[option], b"a line\nbye\n"));
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("a line\nbye\n"), "{}", said(&output));
        assert!(said(&output).contains("Verify return code: 0 (ok)"), "{}", said(&output));
        run_until(&reactor, || seen.log.is_over());
        assert_eq!(seen.log.reason(), "the connection was closed cleanly");
        assert_eq!((seen.session().version, seen.session().server_name.as_deref()), (version, Some("localhost")));
    }
}

/// The protocol that ALPN chose, and a session that is resumed.
#[test]
fn openssls_client_resumes() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    let identity = files.authority.issue(&["localhost"]).identity();
    let tls = ServerTls::builder().identity(identity).protocols(["smtp", "imap"]).build().expect("a configuration");
    for (_, option) in VERSIONS {
        let session = files.folder.at("session");
        for (use_it, resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let reactor = reactor();
            let (to, seen) = serve_echo(&reactor, tls.clone());
            let more = [option, use_it, &session, "-alpn", "imap"];
            let output = run_beside(&reactor, s_client(&files, to, &more, b"bye\n"));
            assert!(output.status.success(), "{}", said(&output));
            assert_eq!(said(&output).contains("Reused, TLS"), resumed, "{}", said(&output));
            assert!(said(&output).contains("ALPN protocol: imap"), "{}", said(&output));
            assert_eq!(seen.session().resumed, resumed, "{option}");
            assert_eq!(seen.session().negotiated_protocol.as_deref(), Some(b"imap".as_slice()));
        }
    }
}

/// A client certificate, which is shown or missing.
#[test]
fn openssls_client_has_to_say_who_it_is() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    let issued = files.authority.issue(&["a.client"]);
    let (certificate, key) = (files.folder.put("me.pem", &issued.certificate), files.folder.put("me.key", &issued.key));
    let identity = files.authority.issue(&["localhost"]).identity();
    let tls = ServerTls::builder().identity(identity).require_client_certificates(files.authority.roots());
    let tls = tls.build().expect("a configuration");
    for (_, option) in VERSIONS {
        for shown in [true, false] {
            let reactor = reactor();
            let (to, seen) = serve_echo(&reactor, tls.clone());
            let more: &[&str] = if shown { &[option, "-cert", &certificate, "-key", &key] } else { &[option] };
            let output = run_beside(&reactor, s_client(&files, to, more, b"bye\n"));
            run_until(&reactor, || seen.log.is_over());
            if shown {
                assert!(said(&output).contains("bye\n"), "{}", said(&output));
                assert!(!seen.session().peer_certificates.is_empty());
            } else {
                assert_eq!(seen.log.reason(), "the peer sent no certificate");
                let alert = if option == "-tls1_3" { "certificate required" } else { "alert" };
                assert!(said(&output).contains(alert), "{}", said(&output));
            }
        }
    }
}

/// STARTTLS as mail servers have it: our server, their client.
#[test]
fn openssls_client_starts_tls() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    for (_, option) in VERSIONS {
        let (reactor, seen, tls) = (reactor(), Seen::default(), files.server());
        let script = seen.script().made(|transport| {
            transport.write(b"220 localhost\r\n");
            Ok(())
        });
        let script = script.data(move |transport, data| {
            match data {
                b"STARTTLS\r\n" => {
                    transport.write(b"220 go ahead\r\n");
                    transport.start_tls(&tls)?;
                }
                _ if data.starts_with(b"EHLO") => transport.write(b"250-localhost\r\n250 STARTTLS\r\n"),
                _ if transport.tls_session().is_some() => {
                    transport.write(data);
                    transport.lose_connection();
                }
                other => ropewalk::bail!("what is {other:?}?"),
            }
            Ok(())
        });
        let (_port, to) = listen(&reactor, once(script));
        let output = run_beside(&reactor, s_client(&files, to, &[option, "-starttls", "smtp"], b"a secret line\n"));
        assert!(said(&output).contains("a secret line\n"), "{}", said(&output));
        run_until(&reactor, || seen.log.is_over());
        assert_eq!(seen.log.reason(), "the connection was closed cleanly");
        assert!(seen.text().starts_with("EHLO") && seen.text().ends_with("STARTTLS\r\na secret line\n"));
    }
}

/// F56: a client that asks for another handshake again and again (TLS 1.2) is refused, and the
/// reactor goes on.
#[test]
fn openssls_client_renegotiates() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    let reactor = reactor();
    let (to, seen) = serve_echo(&reactor, files.server());
    let output = run_beside(&reactor, commanded_s_client(&files, to, &["-tls1_2"], b"R\nR\nR\nR\n"));
    assert!(said(&output).contains("no renegotiation"), "{}", said(&output));
    run_until(&reactor, || seen.log.is_over());
    assert_eq!(seen.text(), "");
    let output = run_beside(&reactor, s_client(&files, to, &[], b"bye\n"));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn openssls_server() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    for (version, option) in VERSIONS {
        let reactor = reactor();
        let server = openssl_server(&files, &[option, "-alpn", "imap"]);
        let client = files.authority.client_builder().protocols(["smtp", "imap"]);
        let client = client.for_server("localhost").expect("a configuration");
        for resumed in [false, true] {
            let seen = ask(&reactor, client.clone(), server.address);
            assert_eq!(seen.text(), "olleh\n");
            assert_eq!(seen.log.reason(), "the connection was closed cleanly");
            let session = seen.session();
            assert_eq!((session.version, session.resumed), (version, resumed));
            assert_eq!(session.negotiated_protocol.as_deref(), Some(b"imap".as_slice()));
            assert_eq!(session.peer_certificates.len(), 1);
        }
    }
}

/// A server that wants to know who we are.
#[test]
fn openssls_server_has_to_be_told_who_we_are() {
    own_process!();
    let files = Files::new();
    if !has("openssl") {
        return;
    }
    let ca = files.ca();
    for (version, option) in VERSIONS {
        let reactor = reactor();
        let server = openssl_server(&files, &[option, "-Verify", "1", "-verify_return_error", "-CAfile", &ca]);
        let client = || files.authority.client_builder().only_version(version);
        let me = client().identity(files.authority.issue(&["a.client"]).identity());
        let seen = ask(&reactor, me.for_server("localhost").expect("a configuration"), server.address);
        assert_eq!(seen.text(), "olleh\n");
        let seen = ask(&reactor, client().for_server("localhost").expect("a configuration"), server.address);
        assert!(seen.log.reason().starts_with("the peer ended TLS: "), "{}", seen.log.reason());
    }
}

/// A wrong name, an expired and a self-signed certificate: each an error of its own, from a server
/// that is not ours.
#[test]
fn openssls_server_is_not_who_it_should_be() {
    own_process!();
    if !has("openssl") {
        return;
    }
    let sign =
        |authority: &Authority, change: fn(&mut rcgen::CertificateParams)| authority.issue_with(&["localhost"], change);
    for (what, expected) in [
        ("wrong name", "the peer's certificate is not for localhost, but for other.example"),
        ("expired", "the peer's certificate has expired ("),
        ("not yet valid", "the peer's certificate is not valid yet ("),
        ("self-signed", "the peer's certificate is self-signed, or its issuer is not trusted"),
    ] {
        let authority = Authority::new();
        let issued = match what {
            "wrong name" => authority.issue(&["other.example"]),
            "expired" => sign(&authority, certificates::expired),
            "not yet valid" => sign(&authority, certificates::not_yet_valid),
            _ => certificates::self_signed(&["localhost"]),
        };
        let files = Files::with(authority, &issued);
        let reactor = reactor();
        let server = openssl_server(&files, &[]);
        let seen = ask(&reactor, files.authority.client("localhost"), server.address);
        assert!(seen.log.reason().starts_with(expected), "{what}: {}", seen.log.reason());
        let reason = seen.reason.borrow();
        assert!(reason.as_ref().is_some_and(|reason| reason.check::<TlsError>().is_some()));
        assert_eq!((seen.text().as_str(), seen.log.count("secured")), ("", 0));
    }
}

/// A page over HTTPS, which curl fetches, and does not fetch if the certificate is wrong.
#[test]
fn curl() {
    own_process!();
    if !has("curl") {
        return;
    }
    for (names, change, fetched) in [
        (&["localhost"][..], None, true),
        (&["other.example"], None, false),
        (&["localhost"], Some(certificates::expired as fn(&mut rcgen::CertificateParams)), false),
    ] {
        let authority = Authority::new();
        let issued = authority.issue_with(names, |params| change.into_iter().for_each(|change| change(params)));
        let (files, reactor, seen) = (Files::with(authority, &issued), reactor(), Seen::default());
        let sees = seen.clone();
        let factory = move |_| {
            let received = Rc::clone(&sees.received);
            Some(sees.script().data(move |transport, _| {
                if received.borrow().ends_with(b"\r\n\r\n") {
                    transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\na page\n");
                    transport.lose_connection();
                }
                Ok(())
            }))
        };
        let endpoint = wrap_server_tls(files.server(), TcpServerEndpoint::bind_to(&reactor, loopback()));
        let port = result_of(&reactor, endpoint.listen(factory)).expect("a port");
        let url = format!("https://localhost:{}/", port.host().port().expect("a TCP port"));
        let ca = files.ca();
        let output = run_beside(&reactor, run_program(&["curl", "-4", "-sS", "--cacert", &ca, &url], b""));
        assert_eq!(output.status.success(), fetched, "{}", said(&output));
        run_until(&reactor, || seen.log.is_over());
        if fetched {
            assert_eq!(output.stdout, b"a page\n");
            assert_eq!(seen.log.reason(), "the connection was closed cleanly");
        } else {
            // curl's number for a certificate that it does not accept; names it compares when the
            // handshake is done.
            assert_eq!((output.status.code(), seen.text().as_str()), (Some(60), ""), "{}", said(&output));
        }
    }
}

const PYTHONS_CLIENT: &str = "
import socket, ssl, sys
port, ca, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
plain = socket.create_connection(('127.0.0.1', port))
if how == 'starttls':
    plain.sendall(b'STARTTLS\\n')
    assert plain.recv(100) == b'go ahead\\n'
secure = context.wrap_socket(plain, server_hostname='localhost', suppress_ragged_eofs=False)
data = bytes(range(256)) * 4000
secure.sendall(data)
back = b''
while len(back) < len(data):
    back += secure.recv(65536)
assert back == data
if how == 'cut':
    # From here on it is a plain socket again.
    secure.shutdown(socket.SHUT_WR)
    while secure.recv(1000): pass
else:
    secure.unwrap().close()
print('good')
";

/// Python's client: a megabyte there and back, at once and after STARTTLS. It ends TLS before the
/// connection, or cuts that off.
#[test]
fn pythons_client() {
    own_process!();
    let files = Files::new();
    if !has("python3") {
        return;
    }
    for how in ["tls", "starttls", "cut"] {
        let (reactor, seen, tls) = (reactor(), Seen::default(), files.server());
        let at_once = (how != "starttls").then(|| tls.clone());
        let script = seen.script().made(move |transport| match &at_once {
            Some(tls) => Ok(transport.start_tls(tls)?),
            None => Ok(()),
        });
        let script = script.data(move |transport, data| {
            match transport.tls_session() {
                Some(_) => transport.write(data),
                None => {
                    transport.write(b"go ahead\n");
                    transport.start_tls(&tls)?;
                }
            }
            Ok(())
        });
        let (_port, to) = listen(&reactor, once(script));
        let (port, ca) = (to.port().to_string(), files.ca());
        let output = run_beside(&reactor, run_program(&["python3", "-c", PYTHONS_CLIENT, &port, &ca, how], b""));
        assert!(output.status.success(), "{how}: {}", said(&output));
        run_until(&reactor, || seen.log.is_over());
        let reason = seen.reason.borrow().clone().expect("it is over");
        let closed = reason.check::<ConnectionClosed>();
        match how {
            "cut" => assert!(matches!(closed, Some(ConnectionClosed::Truncated)), "{reason}"),
            _ => assert!(matches!(closed, Some(ConnectionClosed::Done)), "{reason}"),
        }
    }
}

const PYTHONS_SERVER: &str = "
import socket, ssl, sys
certificate, key, how = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
listener = socket.create_server(('127.0.0.1', 0))
print('listening at 127.0.0.1:%d' % listener.getsockname()[1], flush=True)
plain, _ = listener.accept()
if how == 'starttls':
    assert plain.recv(100) == b'STARTTLS\\n'
    plain.sendall(b'go ahead\\n')
secure = context.wrap_socket(plain, server_side=True)
line = secure.recv(100)
secure.sendall(b'you said ' + line)
if how == 'cut':
    secure.shutdown(socket.SHUT_WR)
else:
    secure.unwrap()
";

/// Python's server, at once and after STARTTLS. It ends TLS before the connection, or cuts that
/// off.
#[test]
fn pythons_server() {
    own_process!();
    let files = Files::new();
    if !has("python3") {
        return;
    }
    for how in ["tls", "starttls", "cut"] {
        let (certificate, key) = (files.folder.at("server.pem"), files.folder.at("server.key"));
        let command = ["python3", "-c", PYTHONS_SERVER, &certificate, &key, how];
        let (reactor, server) = (reactor(), Listening::start(&command, "listening at"));
        let (seen, tls) = (Seen::default(), files.authority.client("localhost"));
        let secure = move |transport: &Transport| -> Result<()> {
            transport.start_tls(&tls)?;
            transport.write(b"hello\n");
            Ok(())
        };
        let script = seen.script();
        let script = if how == "starttls" {
            script
                .made(|transport| {
                    transport.write(b"STARTTLS\n");
                    Ok(())
                })
                .data(move |transport, data| if data == b"go ahead\n" { secure(transport) } else { Ok(()) })
        } else {
            script.made(secure)
        };
        drop(result_of(&reactor, connect(&reactor, server.address, once(script))).expect("it listens"));
        run_until(&reactor, || seen.log.is_over());
        assert!(seen.text().ends_with("you said hello\n"), "{}: {}", seen.text(), seen.log.reason());
        let reason = seen.reason.borrow().clone().expect("it is over");
        let cut = matches!(reason.check(), Some(ConnectionClosed::Truncated));
        assert_eq!(cut, how == "cut", "{reason}");
    }
}
