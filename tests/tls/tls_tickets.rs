//! Session tickets of TLS 1.3: how many there are, and when they are sent. In memory, and over
//! sockets with Python's client.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;

use crate::common::certificates::{Authority, Folder};
use crate::common::programs::*;
use crate::common::tls::{CLEAN, Library, Seen, play, tls_side, usual, with_library_client};
use crate::common::*;
use ropewalk::endpoints::{TcpServerEndpoint, wrap_server_tls};
use ropewalk::interfaces::*;
use ropewalk::tls::{ServerTls, TlsVersion};
use ropewalk::{BackendKind, Reactor};

fn server(authority: &Authority, tickets: Option<u8>) -> ServerTls {
    let builder = ServerTls::builder().identity(authority.issue(&["example.org"]).identity());
    let builder = tickets.into_iter().fold(builder, |builder, count| builder.session_tickets(count));
    builder.build().expect("a configuration")
}

/// Number of tickets that a client has received which is the library.
fn tickets(library: &Library) -> u32 {
    match &library.connection {
        rustls::Connection::Client(client) => client.tls13_tickets_received(),
        rustls::Connection::Server(_) => unreachable!("it is a client"),
    }
}

/// As many tickets come as were asked for, and not before the server's first answer, whatever the
/// client says until then; or with the server's end.
#[test]
fn tickets_wait_for_the_first_answer() {
    for (asked_for, count) in [(None, 2), (Some(0), 0), (Some(1), 1), (Some(200), 200)] {
        for answers in [true, false] {
            let authority = Authority::new();
            let (pump, raw, serving) = with_library_client(server(&authority, asked_for));
            let (client, answering) = (pump.client().transport(), pump.server().transport());
            let mut library = Library::client(&authority, "example.org");
            library.talk(&pump, client, &raw);
            let handshake = raw.received.borrow().len();
            for part in ["some", "thing"] {
                client.write(&library.write(part.as_bytes()));
                library.connection.refresh_traffic_keys().expect("the handshake is done");
                library.talk(&pump, client, &raw);
            }
            assert_eq!((serving.text().as_str(), raw.received.borrow().len()), ("something", handshake));
            assert_eq!(tickets(&library), 0);
            if answers {
                answering.write(b"an answer");
            } else {
                answering.lose_write_connection();
            }
            library.talk(&pump, client, &raw);
            assert_eq!((tickets(&library), library.plain == b"an answer"), (count, answers), "{asked_for:?}");
            assert!(!serving.log.is_over());
        }
    }
}

/// An error behind the handshake sends an alert, which stands behind the tickets that waited.
#[test]
fn an_alert_behind_tickets_that_wait() {
    let (authority, _, server_tls) = usual();
    let (pump, raw, serving) = with_library_client(server_tls);
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, pump.client().transport(), &raw);
    let mut record = library.write(b"something");
    record[7] ^= 1;
    pump.client().transport().write(&record);
    pump.flush();
    assert_eq!(serving.error(), "the peer violated the TLS protocol: cannot decrypt peer's message");
    let came = raw.received.borrow()[library.taken..].to_vec();
    library.connection.read_tls(&mut came.as_slice()).expect("there is room");
    let told = library.connection.process_new_packets().expect_err("an alert").to_string();
    assert_eq!((told.as_str(), tickets(&library)), ("received fatal alert: BadRecordMac", 2));
}

/// A client that was answered resumes its session, as often as it has tickets; without any, no
/// version resumes.
#[test]
fn sessions_with_and_without_tickets() {
    let authority = Authority::new();
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for count in [0, 1, 3] {
            let server = server(&authority, Some(count));
            let client = authority.client_builder().only_version(version).for_server("example.org");
            let client = client.expect("a configuration");
            for round in 0..3 {
                let (pump, asking, serving) = play(&client, &server);
                assert_eq!(serving.session().resumed, round > 0 && count > 0, "{version:?}, {count}");
                pump.server().transport().write(b"an answer");
                pump.flush();
                assert_eq!(asking.text(), "an answer");
            }
        }
    }
}

/// A client that closes in the turn in which it is answered loses nothing, and neither does one
/// that is not answered at all.
#[test]
fn an_end_behind_tickets_that_wait() {
    for answers in [true, false] {
        let (_, client_tls, server_tls) = usual();
        let ((client, asking), (server, serving)) = (tls_side(client_tls), tls_side(server_tls));
        let server = server.data(move |transport, _| {
            if answers {
                transport.write(b"an answer");
            }
            transport.lose_connection();
            Ok(())
        });
        let pump = crate::common::tls::connect(client, server);
        pump.client().transport().write(b"a question");
        pump.flush();
        assert_eq!(
            (asking.text().as_str(), serving.text().as_str()),
            (if answers { "an answer" } else { "" }, "a question")
        );
        assert!([&asking, &serving].iter().all(|seen| seen.log.all().last().is_some_and(|last| last == CLEAN)));
    }
}

const SENDS_AND_CLOSES: &str = "
import socket, ssl, sys
port, ca, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(cafile=ca)
for size in sys.argv[4:]:
    data = b'x' * (int(size) * 1024)
    for _ in range(count):
        secure = context.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname='localhost')
        secure.sendall(data)
        secure.close()
print('good')
";

const ROUNDS: usize = 200;

const SIZES_KIB: [usize; 3] = [1, 64, 400];

fn everything_arrives(reactor: &Reactor) {
    let (authority, folder) = (Authority::new(), Folder::new());
    let ca = folder.put("ca.pem", &authority.pem());
    let counts = Rc::new(RefCell::new(Vec::new()));
    let done = Rc::clone(&counts);
    let factory = move |_| {
        let (seen, done) = (Log::default(), Rc::clone(&done));
        let script = Script::new(&seen);
        let received = Rc::clone(&script.received);
        Some(script.lost(move |_| done.borrow_mut().push(received.borrow().len())))
    };
    let endpoint = wrap_server_tls(authority.server(&["localhost"]), TcpServerEndpoint::bind_to(reactor, loopback()));
    let port = result_of(reactor, endpoint.listen(factory)).expect("a port");
    let number = port.host().port().expect("a TCP port").to_string();
    let (rounds, sizes) = (ROUNDS.to_string(), SIZES_KIB.map(|size| size.to_string()));
    let command =
        [&["python3", "-c", SENDS_AND_CLOSES, &number, &ca, &rounds], &sizes.each_ref().map(String::as_str)[..]];
    let output = run_beside(reactor, run_program(&command.concat(), b""));
    assert!(output.status.success(), "{}", said(&output));
    run_until(reactor, || counts.borrow().len() == ROUNDS * SIZES_KIB.len());
    let mut counts = counts.take();
    counts.sort_unstable();
    let expected: Vec<usize> = SIZES_KIB.iter().flat_map(|size| [size * 1024; ROUNDS]).collect();
    let short = counts.iter().zip(&expected).filter(|(count, expected)| count != expected).count();
    assert_eq!((short, counts.len()), (0, expected.len()));
}

/// A client that sends and closes, and never reads, is heard to its last byte, every time, on each
/// backend: nothing is sent that would meet its closed socket.
#[test]
fn a_client_that_sends_and_closes() {
    own_process!();
    if !has("python3") {
        return;
    }
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => everything_arrives(&reactor),
            None => println!("skipped: {NO_BACKEND}"),
        }
    }
}

/// A client that does not ask for `TCP_NODELAY` sends its first request when its last handshake
/// message is acknowledged: which is at once, though nothing is sent to it. Loopback connections
/// deliver within the call that sends, so few turns show it.
#[cfg(target_os = "linux")]
#[test]
fn a_first_request_does_not_wait_for_an_acknowledgement() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        for tickets in [0, 2] {
            let (authority, seen) = (Authority::new(), Seen::default());
            let endpoint =
                wrap_server_tls(server(&authority, Some(tickets)), TcpServerEndpoint::bind_to(&reactor, loopback()));
            let port = result_of(&reactor, endpoint.listen(once(seen.script()))).expect("a port");
            let mut socket = TcpStream::connect(port.host().socket_addr().expect("a TCP port")).expect("it listens");
            let mut library = Library::client(&authority, "example.org");
            socket.write_all(&library.send()).expect("a few bytes fit");
            while library.connection.is_handshaking() {
                settle(&reactor);
                library.connection.read_tls(&mut socket).expect("the server has answered");
                library.connection.process_new_packets().expect("a good server");
            }
            socket.write_all(&library.send()).expect("a few bytes fit");
            run_until(&reactor, || seen.log.has("secured"));
            socket.write_all(&library.write(b"a request")).expect("a few bytes fit");
            settle(&reactor);
            assert_eq!(seen.text(), "a request", "{kind:?}, {tickets}");
        }
    }
}
