//! Endpoints as strings and as objects, from the description to the bytes, over real sockets.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::unhandled;
use ropewalk::endpoints::{
    DescriptionError, HostnameEndpoint, TcpClientEndpoint, TcpServerEndpoint, client_from_string,
    quote_string_argument, server_from_string,
};
use ropewalk::error::{ConnectError, FailedAttempt, ListenError};
use ropewalk::interfaces::*;
use ropewalk::protocol::{AnyConnection, BoxedFactory};
use ropewalk::reactor::{Resolver, SystemResolver};
use ropewalk::{Address, Connection, Deferred, Failure, Port, Reactor};

/// Listens where the description says.
#[track_caller]
fn serve(reactor: &Reactor, description: &str, factory: impl Factory) -> (Port, u16) {
    let endpoint = server_from_string(reactor, description).expect(description);
    let port = result_of(reactor, endpoint.listen(factory)).expect(description);
    let number = port.host().port().expect("a TCP port");
    (port, number)
}

/// Asserts that a client of the description is answered, and gives its connection.
#[track_caller]
fn assert_answered(reactor: &Reactor, description: &str) -> Connection<Script> {
    let (log, received) = (Log::default(), Rc::<RefCell<Vec<u8>>>::default());
    let script = Script::new(&log).into_buffer(&received).made(|transport| {
        transport.write(b"hello");
        Ok(())
    });
    let endpoint = client_from_string(reactor, description).expect(description);
    let connection = result_of(reactor, endpoint.connect(once(script))).expect(description);
    run_until(reactor, || received.borrow().len() == 5);
    assert_eq!(*received.borrow(), b"hello", "{description}");
    connection
}

/// A port of the loopback interface.
fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The failure of connecting.
#[track_caller]
fn error_of<P: Protocol>(reactor: &Reactor, attempt: Deferred<Connection<P>>) -> Failure {
    result_of(reactor, attempt).expect_err("the attempt fails")
}

/// Every way to write a server is one to listen.
#[test]
fn descriptions_of_servers_listen() {
    let reactor = reactor();
    for description in [
        "tcp:0:interface=127.0.0.1",
        "TCP:0:interface=127.0.0.1",
        "tCp:port=0:interface=127.0.0.1",
        "tcp:interface=127.0.0.1:0",
        "tcp:0:127.0.0.1",
        "tcp:0:127.0.0.1:5",
        "tcp:0:interface=127.0.0.1:backlog=128",
        r"tcp:\0:interface=127.0.0.1",
    ] {
        let log = Log::default();
        let (port, number) = serve(&reactor, description, Watched::new(&log, echoes(&log)));
        assert_eq!(port.host().ip(), Some("127.0.0.1".parse().unwrap()), "{description}");
        assert_ne!(number, 0, "{description}");
        assert_answered(&reactor, &format!("tcp:127.0.0.1:{number}"));
        result_of(&reactor, port.stop_listening()).unwrap();
        assert_eq!((log.count("start"), log.count("stop")), (1, 1), "{description}");
    }
    let (port, _) = serve(&reactor, "tcp:0", echoes(&Log::default()));
    assert_eq!(port.host().ip(), Some("0.0.0.0".parse().unwrap()), "all interfaces, if none is named");
}

/// Every way to write a client is one to connect.
#[test]
fn descriptions_of_clients_connect() {
    let reactor = reactor();
    let (_port, number) = serve(&reactor, "tcp:0:interface=127.0.0.1", echoes(&Log::default()));
    for description in [
        format!("tcp:127.0.0.1:{number}"),
        format!("TCP:127.0.0.1:{number}"),
        format!("tcp:host=127.0.0.1:port={number}"),
        format!("tcp:127.0.0.1:port={number}"),
        format!("tcp:{number}:host=127.0.0.1"),
        format!("tcp:127.0.0.1:{number}:timeout=5"),
        format!("tcp:timeout=2.5:127.0.0.1:{number}"),
    ] {
        assert_answered(&reactor, &description);
    }
    let bound = assert_answered(&reactor, &format!("tcp:127.0.0.1:{number}:bindAddress=127.0.0.2"));
    assert_eq!(bound.transport().host().ip(), Some("127.0.0.2".parse().unwrap()));
}

/// IPv6 in brackets, in escapes and as an object.
#[test]
fn ipv6_end_to_end() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("skipped: no IPv6 loopback here: {error}");
        return;
    }
    let reactor = reactor();
    for description in ["tcp:0:interface=[::1]", r"tcp:0:interface=\:\:1"] {
        let (_port, number) = serve(&reactor, description, echoes(&Log::default()));
        assert_answered(&reactor, &format!("tcp:[::1]:{number}"));
        assert_answered(&reactor, &format!(r"tcp:\:\:1:{number}"));
        assert_answered(&reactor, &format!("tcp:host={}:port={number}", quote_string_argument("::1")));
    }
}

/// The backlog of the description is the socket's: a listener with room for none leaves the second
/// peer without an answer, until the reactor has accepted the first.
#[test]
fn the_backlog_reaches_the_socket() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, _) = serve(&reactor, "tcp:0:interface=127.0.0.1:backlog=0", echoes(&log));
    let address = port.host().socket_addr().unwrap();
    let _first = dial(address);
    let second = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(20));
    assert!(matches!(second.unwrap_err().kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
    run_until(&reactor, || log.count("made") == 1);
    let _third = dial(address);
}

/// The timeout of the description is the attempt's.
#[test]
fn the_timeout_is_the_attempts() {
    let reactor = reactor();
    let (_full, _first, address) = silent();
    let endpoint = client_from_string(&reactor, &format!("tcp:{address}:timeout=0.03")).unwrap();
    let failure = error_of(&reactor, endpoint.connect(scripts(&Log::default())));
    match failure.check::<ConnectError>() {
        Some(ConnectError::NoAnswer { after, .. }) => assert_eq!(*after, Duration::from_millis(30)),
        other => panic!("{other:?}"),
    }
}

/// A name is tried on all its addresses: a server on 127.0.0.1 is found as localhost, whatever the
/// resolver says first, and the factory starts and stops once.
#[test]
fn a_name_is_tried_on_all_its_addresses() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, number) = serve(&reactor, "tcp:0:interface=127.0.0.1", echoes(&Log::default()));
    let addresses = result_of(&reactor, reactor.resolve("localhost", number)).unwrap();
    if addresses.first().is_some_and(SocketAddr::is_ipv4) {
        println!("localhost is {addresses:?} here: the first one answers, and the others are not tried");
    }
    let endpoint = client_from_string(&reactor, &format!("tcp:localhost:{number}")).unwrap();
    let attempt = endpoint.connect(Watched::new(&log, echoes(&log)));
    assert!(!attempt.is_called());
    let connection = result_of(&reactor, attempt).unwrap();
    settle(&reactor);
    assert_eq!(log.all(), ["start", "build", "made"]);
    connection.transport().lose_connection();
    run_until(&reactor, || log.has("stop"));
    settle(&reactor);
    assert_eq!(log.all(), ["start", "build", "made", "lost: the connection was closed cleanly", "stop"]);
}

/// If none of the addresses answers, the failure lists them all, and the factory was started once
/// and stopped once.
#[test]
fn a_name_that_nobody_answers_for() {
    let (reactor, log) = (reactor(), Log::default());
    let (_taken, address) = refusing();
    let addresses = result_of(&reactor, reactor.resolve("localhost", address.port())).unwrap();
    let endpoint = HostnameEndpoint::new(&reactor, "localhost", address.port());
    let failure = error_of(&reactor, endpoint.connect(Watched::new(&log, scripts(&log))));
    match failure.check::<ConnectError>() {
        Some(ConnectError::AllFailed { to, attempts }) => {
            assert_eq!(to, "localhost");
            let tried: HashSet<_> = attempts.iter().filter_map(|attempt| attempt.address.socket_addr()).collect();
            assert_eq!(tried, addresses.into_iter().collect());
            let refused = |attempt: &FailedAttempt| matches!(attempt.error, ConnectError::Refused { .. });
            assert!(attempts.iter().any(refused), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!(reactor.counters().watched, 0);
}

/// A factory that builds nothing is not asked again for the next address.
#[test]
fn no_protocol_ends_the_attempts() {
    let (reactor, log) = (reactor(), Log::default());
    let server = TcpListener::bind(loopback()).unwrap();
    let endpoint = TcpClientEndpoint::new(&reactor, server.local_addr().unwrap());
    let failure = error_of(&reactor, endpoint.connect(Watched::new(&log, |_| None::<Script>)));
    assert!(matches!(failure.check(), Some(ConnectError::NoProtocol { .. })), "{failure}");
    settle(&reactor);
    assert_eq!(log.all(), ["start", "build", "stop"]);
}

/// One factory handed to two connects starts once, and stops once, after the last of them.
#[test]
fn a_boxed_factory_starts_and_stops_once() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, number) = serve(&reactor, "tcp:0:interface=127.0.0.1", echoes(&Log::default()));
    let factory = BoxedFactory::new(Watched::new(&log, scripts(&log)));
    let endpoint = TcpClientEndpoint::new(&reactor, at(number));
    let first = result_of(&reactor, endpoint.connect_boxed(factory.clone())).unwrap();
    let second = result_of(&reactor, endpoint.connect_boxed(factory)).unwrap();
    first.transport().lose_connection();
    run_until(&reactor, || log.count("lost") == 1);
    settle(&reactor);
    assert_eq!((log.count("start"), log.count("stop")), (1, 0));
    second.transport().lose_connection();
    run_until(&reactor, || log.count("lost") == 2);
    settle(&reactor);
    assert_eq!((log.count("start"), log.count("stop")), (1, 1));
}

/// Asks the system for an address of an interface that does not exist, whatever it is asked for.
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, reactor: &Reactor, _host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        SystemResolver.resolve(reactor, "fe80::1%nosuchinterface", port)
    }
}

/// A name without an address is a look-up error that says which name. None of these is asked of the
/// network: the system's resolver itself knows that there is no such interface.
#[test]
fn a_name_that_does_not_resolve() {
    let (reactor, log) = (Reactor::builder().signals(false).resolver(Nowhere).build().unwrap(), Log::default());
    let scoped = "fe80::1%nosuchinterface";
    let by_name = HostnameEndpoint::new(&reactor, "nowhere.example", 80).connect(Watched::new(&log, scripts(&log)));
    let by_string = client_from_string(&reactor, "tcp:nowhere.example:80").unwrap();
    for attempt in [by_name, by_string.connect(Watched::new(&log, scripts(&log)))] {
        let failure = error_of(&reactor, attempt);
        match failure.check::<ConnectError>() {
            Some(ConnectError::Lookup { host, reason }) => {
                assert_eq!(host, scoped);
                assert!(!reason.is_empty());
            }
            other => panic!("{other:?}"),
        }
        assert!(failure.to_string().contains(scoped), "{failure}");
    }
    settle(&reactor);
    assert!(log.all().is_empty(), "the factory was not started: there was nothing to connect to");
}

/// A local address of the other family leaves no address of a name to connect to, and can't be had
/// for a socket of this one.
#[test]
fn a_bind_address_of_the_other_family() {
    let reactor = reactor();
    let other: SocketAddr = "[::1]:0".parse().unwrap();
    let by_name = HostnameEndpoint::new(&reactor, "127.0.0.1", 80).bind_address(other);
    let failure = error_of(&reactor, by_name.connect(scripts(&Log::default())));
    assert!(matches!(failure.check(), Some(ConnectError::Lookup { host, .. }) if host == "127.0.0.1"), "{failure}");
    let by_address = TcpClientEndpoint::new(&reactor, at(80)).bind_address(other);
    let failure = error_of(&reactor, by_address.connect(scripts(&Log::default())));
    assert!(matches!(failure.check(), Some(ConnectError::Bind { .. })), "{failure}");
}

/// Cancelled while the name is being looked up: the failure comes at once, and nothing comes of the
/// answer.
#[test]
fn cancelled_while_resolving() {
    let (reactor, log) = (reactor(), Log::default());
    let server = TcpListener::bind(loopback()).unwrap();
    server.set_nonblocking(true).unwrap();
    let endpoint = HostnameEndpoint::new(&reactor, "localhost", server.local_addr().unwrap().port());
    let mut attempt = endpoint.connect(Watched::new(&log, scripts(&log)));
    attempt.cancel();
    let failure = attempt.take_result().expect("it fires at once").unwrap_err();
    assert!(
        matches!(failure.check(), Some(ConnectError::ConnectingCancelled { to }) if to == "localhost"),
        "{failure}"
    );
    // A run that ends waits for the look-ups that are under way.
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
    run(&reactor).expect("the loop runs");
    settle(&reactor);
    assert!(log.all().is_empty());
    assert_eq!(reactor.counters().watched, 0);
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody connects");
}

/// F50, with the kernel: of a host that is mute at one address, refuses at another and answers at a
/// third, the third has the connection, and the other sockets are closed.
#[test]
fn the_address_that_answers() {
    struct Three([SocketAddr; 3]);
    impl Resolver for Three {
        fn resolve(&self, _: &Reactor, _: &str, _: u16) -> Deferred<Vec<SocketAddr>> {
            Deferred::succeed(self.0.to_vec())
        }
    }
    let ((_full, _first, mute), (_taken, closed)) = (silent(), refusing());
    let listener = TcpListener::bind(loopback()).unwrap();
    let open = listener.local_addr().unwrap();
    let resolver = Three([mute, closed, open]);
    let reactor = Reactor::builder().signals(false).resolver(resolver).build().unwrap();
    let log = Log::default();
    let endpoint = HostnameEndpoint::new(&reactor, "three.example", 80).attempt_delay(Duration::from_millis(10));
    let connection = result_of(&reactor, endpoint.connect(Watched::new(&log, scripts(&log)))).unwrap();
    assert_eq!(connection.transport().peer(), open.into());
    assert_eq!(log.all(), ["start", "build", "made"]);
    assert_eq!(reactor.counters().watched, 1);
    assert!(reactor.timers().is_empty());
    let (_served, from) = listener.accept().unwrap();
    assert_eq!(connection.transport().host(), from.into());
}

/// F47: a look-up whose thread hangs is given up at its deadline, and its thread is left to itself.
#[test]
fn a_look_up_that_hangs_in_its_thread() {
    struct Hangs(Arc<Mutex<mpsc::Receiver<()>>>);
    impl Resolver for Hangs {
        fn resolve(&self, reactor: &Reactor, _: &str, _: u16) -> Deferred<Vec<SocketAddr>> {
            let gate = Arc::clone(&self.0);
            reactor.defer_to_thread(move || {
                let _ = gate.lock().map(|gate| gate.recv());
                Ok(Vec::new())
            })
        }
    }
    let (open, gate) = mpsc::channel();
    let resolver = Hangs(Arc::new(Mutex::new(gate)));
    let reactor = Reactor::builder().signals(false).resolver(resolver).build().unwrap();
    let endpoint = HostnameEndpoint::new(&reactor, "hanging.example", 80).lookup_timeout(Duration::from_millis(20));
    let connecting = endpoint.connect(scripts(&Log::default()));
    run_until(&reactor, || reactor.counters().threads_at_work == 1);
    let failure = error_of(&reactor, connecting);
    assert!(matches!(failure.check(), Some(ConnectError::Lookup { .. })), "{failure}");
    assert_eq!(reactor.counters().threads_at_work, 1, "it hangs still");
    drop(open);
    run_until(&reactor, || reactor.counters().threads_at_work == 0);
}

/// Cancelled while an address is being tried: no other is.
#[test]
fn cancelled_while_connecting() {
    let (reactor, log) = (reactor(), Log::default());
    let (_full, _first, address) = silent();
    let endpoint = TcpClientEndpoint::new(&reactor, address);
    let mut attempt = endpoint.connect(Watched::new(&log, scripts(&log)));
    settle(&reactor);
    assert_eq!(reactor.counters().watched, 1);
    attempt.cancel();
    let failure = attempt.take_result().expect("it fires at once").unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. })), "{failure}");
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!(reactor.counters().watched, 0);
}

/// Errors of descriptions name the fault, its place, and the expected text.
#[test]
fn wrong_descriptions_say_where_and_what() {
    type Read = fn(&Reactor, &str) -> Result<(), DescriptionError>;
    let server: Read = |reactor, text| server_from_string(reactor, text).map(drop);
    let client: Read = |reactor, text| client_from_string(reactor, text).map(drop);
    let reactor = reactor();
    for (read, description, position, expectation) in [
        (server, "", 0, "expected one, as in tcp:8888"),
        (server, "tpc:80", 0, "is not a type of endpoint: expected "),
        (server, "udp:80", 0, "is not a type of endpoint: expected "),
        (server, "tcp", 3, "port is missing"),
        (server, "tcp:", 4, "expected a whole number from 0 to 65535"),
        (server, "tcp:http", 4, "expected a whole number from 0 to 65535"),
        (server, "tcp:65536", 4, "expected a whole number from 0 to 65535"),
        (server, "tcp:-1", 4, "expected a whole number from 0 to 65535"),
        (server, "tcp:80:interface=localhost", 17, "expected an IP address"),
        (server, "tcp:80:backlog=many", 15, "expected a whole number from 0"),
        (server, "tcp:80:port=81", 7, "port is given twice"),
        (server, "tcp:80:size=3", 7, "expected port, interface, backlog, noDelay, ipv6Only,"),
        (server, "tcp:80:127.0.0.1:5:6", 19, "expected port, interface or backlog without a name"),
        (server, r"tcp:80\", 6, "a backslash ends the description"),
        (client, "tcp", 3, "host is missing"),
        (client, "tcp:localhost", 13, "port is missing"),
        (client, "tcp:localhost:0", 14, "expected a whole number from 1 to 65535"),
        (client, "tcp:local host:80", 4, "expected a host name without white space"),
        (client, "tcp:::1:80", 6, "expected host or port without a name"),
        (client, "tcp:localhost:80:timeout=soon", 25, "expected seconds"),
        (client, "tcp:localhost:80:timeout=-1", 25, "expected seconds"),
        (client, "tcp:localhost:80:bindAddress=here", 29, "expected an IP address"),
        (client, "tcp:localhost:80:backlog=5", 17, "expected host, port, timeout, bindAddress, noDelay, reuseAddress,"),
        (client, "sctp:localhost:443", 0, "is not a type of endpoint: expected "),
    ] {
        let error = read(&reactor, description).expect_err(description);
        let said = error.to_string();
        assert_eq!(error.position(), position, "{said}");
        assert_eq!(error.description(), description);
        assert!(said.contains(expectation), "{said}: not {expectation:?}");
        assert!(said.contains(&format!("at byte {position}")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// An endpoint of one's own, around another one, does as well as those that are built in, as a
/// trait object too.
#[test]
fn endpoints_of_ones_own() {
    #[derive(Debug)]
    struct Noting<E>(E, Log);
    impl<E: ServerEndpoint> ServerEndpoint for Noting<E> {
        fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
            let log = self.1.clone();
            log.add("listen");
            self.0.listen_boxed(factory).add_callback(move |port| {
                log.add("listening");
                Ok(port)
            })
        }
    }
    impl<E: ClientEndpoint> ClientEndpoint for Noting<E> {
        fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
            let log = self.1.clone();
            log.add("connect");
            self.0.connect_boxed(factory).add_callback(move |connection| {
                log.add("connected");
                Ok(connection)
            })
        }
    }
    let (reactor, notes, log) = (reactor(), Log::default(), Log::default());
    let servers: Vec<Box<dyn ServerEndpoint>> = vec![
        Box::new(Noting(TcpServerEndpoint::bind_to(&reactor, loopback()), notes.clone())),
        Box::new(Noting(server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap(), notes.clone())),
    ];
    for (round, server) in servers.into_iter().enumerate() {
        let port = result_of(&reactor, server.listen(echoes(&Log::default()))).unwrap();
        let inner = client_from_string(&reactor, &format!("tcp:{}", port.host())).unwrap();
        let client: Box<dyn ClientEndpoint> = Box::new(Noting(inner, notes.clone()));
        let connection = result_of(&reactor, client.connect(scripts(&log))).unwrap();
        connection.transport().write(b"through two boxes");
        run_until(&reactor, || log.count("data") == round + 1);
        assert_eq!(connection.with(|script, _| script.received.borrow().len()), Ok(17));
    }
    let round = ["listen", "listening", "connect", "connected"];
    assert_eq!(notes.all(), [round, round].concat());
    // As a user of two endpoints of different types would write it.
    let pair: [Box<dyn ClientEndpoint>; 2] =
        [Box::new(TcpClientEndpoint::new(&reactor, at(1))), client_from_string(&reactor, "tcp:127.0.0.1:1").unwrap()];
    for client in pair {
        client.connect(scripts(&log)).cancel();
    }
}

/// An address that can't be listened on fails the Deferred, and not the call.
#[test]
fn a_listen_failure_comes_through_the_deferred() {
    let reactor = reactor();
    let taken = TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let description = format!("tcp:{}:interface=127.0.0.1", address.port());
    let listening = server_from_string(&reactor, &description).unwrap().listen(scripts(&Log::default()));
    let failure = result_of(&reactor, listening).unwrap_err();
    match failure.check::<ListenError>() {
        Some(ListenError::Bind { address: at, source }) => {
            assert_eq!((at, source.kind()), (&address.into(), ErrorKind::AddrInUse));
        }
        other => panic!("{other:?}"),
    }
}

/// A factory that panics when it starts fails the client's Deferred, and is not stopped.
#[test]
fn a_factory_that_does_not_start_fails_the_deferred() {
    struct Broken;
    impl Factory for Broken {
        type Protocol = Script;
        fn build_protocol(&mut self, _: &Address) -> Option<Script> {
            None
        }
        fn do_start(&mut self) {
            panic!("not today");
        }
        fn do_stop(&mut self) {
            unreachable!("what never started is not stopped");
        }
    }
    let reactor = reactor();
    let endpoint = TcpClientEndpoint::new(&reactor, at(1));
    let failure = error_of(&reactor, endpoint.connect(Broken));
    assert_eq!(failure.to_string(), "a callback panicked: not today");
}

/// An unhandled failure of a callback behind `connect` is reported once, with its place; a handled
/// one is not.
#[test]
fn an_unhandled_failure_is_reported() {
    let reactor = reactor();
    let (_port, number) = serve(&reactor, "tcp:0:interface=127.0.0.1", echoes(&Log::default()));
    let endpoint = TcpClientEndpoint::new(&reactor, at(number));
    let ((), reported) = unhandled::collect(|| {
        let log = Log::default();
        let connecting = endpoint.connect(scripts(&log));
        drop(connecting.add_callback(|_connection| Err::<(), _>(Failure::message("the greeting was wrong"))));
        run_until(&reactor, || log.has("made"));
        settle(&reactor);
    });
    let reported: Vec<String> =
        reported.iter().map(|unhandled| format!("{} in {}", unhandled.failure, unhandled.place.file())).collect();
    assert_eq!(reported, [format!("the greeting was wrong in {}", file!())]);
    let ((), reported) = unhandled::collect(|| {
        let log = Log::default();
        let connecting = endpoint.connect(scripts(&log));
        let failing = connecting.add_callback(|_connection| Err::<(), _>(Failure::message("the greeting was wrong")));
        drop(failing.add_errback(|_failure| ()));
        run_until(&reactor, || log.has("made"));
        settle(&reactor);
    });
    assert!(reported.is_empty(), "{reported:?}");
}

/// The failure of a refused connection without an errback is reported too.
#[test]
fn an_unhandled_connect_error_is_reported() {
    let reactor = reactor();
    let (_taken, address): (_, SocketAddr) = refusing();
    let ((), reported) = unhandled::collect(|| {
        let log = Log::default();
        drop(TcpClientEndpoint::new(&reactor, address).connect(Watched::new(&log, scripts(&log))));
        run_until(&reactor, || log.has("stop"));
        settle(&reactor);
    });
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert!(matches!(reported[0].failure.check(), Some(ConnectError::Refused { .. })));
}

/// A server and a client from strings talk to each other on one reactor.
#[test]
fn both_ends_from_strings() {
    let (reactor, log) = (reactor(), Log::default());
    let (port, number) = serve(&reactor, "tcp:0:interface=127.0.0.1:backlog=10", echoes(&log));
    let connection = assert_answered(&reactor, &format!("tcp:localhost:{number}:timeout=10"));
    connection.transport().lose_connection();
    run_until(&reactor, || log.is_over());
    // The server serves others as well.
    let mut other = dial(port.host().socket_addr().unwrap());
    other.write_all(b"me too").unwrap();
    assert_eq!(read_exact(&reactor, &mut other, 6), b"me too");
}
