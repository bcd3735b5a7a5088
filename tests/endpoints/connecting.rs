//! Outgoing connections (F51), over real sockets.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::Deferred;
use ropewalk::error::{ConnectError, ListenError, Unavailable};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::protocol::{AnyConnection, BoxedFactory};
use ropewalk::{Address, ConnectOptions, Connection, Failure, ListenOptions, Phase, Reactor, SystemEvent, Transport};

/// A listener that is not ours, and where it is.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The failure of an attempt. It has not failed before the loop turned.
#[track_caller]
fn error_of<P: Protocol>(reactor: &Reactor, attempt: Deferred<Connection<P>>) -> Failure {
    assert!(!attempt.is_called(), "it fired before connect_tcp returned");
    result_of(reactor, attempt).expect_err("the attempt fails")
}

/// A place for what a callback needs of the connection that it belongs to.
fn place<T>() -> Rc<RefCell<Option<T>>> {
    Rc::default()
}

/// A connection: nothing fires before `connect_tcp` returns; the Deferred comes after
/// `connection_made`, and `do_stop` after `connection_lost`.
#[test]
fn a_client_in_order() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    let before = descriptors();
    let fired = log.clone();
    let connecting = connect(&reactor, address, Watched::new(&log, scripts(&log)));
    assert!(!connecting.is_called());
    assert_eq!(log.all(), ["start"]);
    let connecting = connecting.add_callback(move |connection| {
        fired.add("connected");
        Ok(connection)
    });
    let connection = result_of(&reactor, connecting).unwrap();
    let (peer, from) = server.accept().unwrap();
    assert_eq!(connection.transport().peer(), address.into());
    assert_eq!(connection.transport().host(), from.into());
    drop(peer);
    run_until(&reactor, || log.has("stop"));
    let lost = "lost: the connection was closed cleanly";
    assert_eq!(log.all(), ["start", "build", "made", "connected", lost, "stop"]);
    run_until(&reactor, || reactor.counters().watched == 0);
    assert_eq!(descriptors(), before);
}

/// F51: an address without a listener refuses.
#[test]
fn refused() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_taken, address) = refusing();
    let before = descriptors();
    let failure = error_of(&reactor, connect(&reactor, address, Watched::new(&log, scripts(&log))));
    match failure.check::<ConnectError>() {
        Some(ConnectError::Refused { address: at }) => assert_eq!(*at, address.into()),
        other => panic!("{other:?}"),
    }
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// F51: a peer that never answers is given up at the timeout, which starts and stops the factory as
/// any other end.
#[test]
fn timed_out() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_full, _first, address) = silent();
    let (before, after) = (descriptors(), Duration::from_millis(30));
    let options = ConnectOptions::new().timeout(Some(after));
    let attempt = reactor.connect_tcp(address, &options, Watched::new(&log, scripts(&log)));
    settle(&reactor);
    assert!(!attempt.is_called(), "somebody answered: the test shows nothing");
    let failure = error_of(&reactor, attempt);
    match failure.check::<ConnectError>() {
        Some(ConnectError::NoAnswer { address: at, after: limit }) => {
            assert_eq!((at, *limit), (&address.into(), after));
        }
        other => panic!("{other:?}"),
    }
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// However an attempt ends, its timer ends with it.
#[test]
fn the_timeout_ends_with_the_attempt() {
    let (reactor, log) = (reactor(), Log::default());
    let ((_server, open), (_taken, closed), (_full, _first, mute)) = (listener(), refusing(), silent());
    let connected = connect(&reactor, open, scripts(&log));
    let refused = connect(&reactor, closed, scripts(&log));
    let mut cancelled = connect(&reactor, mute, scripts(&log));
    assert_eq!(reactor.timers().len(), 3);
    cancelled.cancel();
    assert!(cancelled.take_result().unwrap().is_err());
    assert_eq!(reactor.timers().len(), 2);
    result_of(&reactor, refused).unwrap_err();
    result_of(&reactor, connected).unwrap();
    assert!(reactor.timers().is_empty());
}

/// F51: an attempt that is cancelled before an answer fails at once and frees its descriptor. The
/// factory stops when nothing of the engine's is on the stack.
#[test]
fn cancelled_while_connecting() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_full, _first, address) = silent();
    let before = descriptors();
    let mut attempt = connect(&reactor, address, Watched::new(&log, scripts(&log)));
    settle(&reactor);
    assert_eq!((descriptors(), reactor.counters().watched), (before + 1, 1));
    attempt.cancel();
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
    let failure = attempt.take_result().expect("it fires at once").unwrap_err();
    match failure.check::<ConnectError>() {
        Some(ConnectError::ConnectingCancelled { to }) => assert_eq!(*to, address.to_string()),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.all(), ["start"]);
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
}

/// Cancelled before the loop has turned at all, and twice.
#[test]
fn cancelled_at_once() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_server, address) = listener();
    let before = descriptors();
    let mut attempt = connect(&reactor, address, Watched::new(&log, scripts(&log)));
    attempt.cancel();
    attempt.cancel();
    let failure = attempt.take_result().expect("it fires at once").unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. })));
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// Once there is a connection, cancelling what waited for it does nothing.
#[test]
fn cancelling_a_made_connection_does_nothing() {
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    let mut attempt = connect(&reactor, address, echoes(&log));
    let canceller = attempt.canceller();
    run_until(&reactor, || attempt.is_called());
    attempt.cancel();
    canceller.cancel();
    let connection = attempt.take_result().unwrap().unwrap();
    let (mut peer, _) = server.accept().unwrap();
    peer.write_all(b"alive").unwrap();
    assert_eq!(read_exact(&reactor, &mut peer, 5), b"alive");
    assert!(!connection.transport().is_disconnected());
}

/// Cancelled from inside `build_protocol` or `connection_made`: the Deferred fails as cancelled,
/// the connection goes, the factory stops, and the loop goes on.
#[test]
fn cancelled_from_inside_a_callback() {
    own_process!();
    for inside in ["build_protocol", "connection_made"] {
        let (reactor, log) = (reactor(), Log::default());
        let (server, address) = listener();
        let before = descriptors();
        let own = place::<Deferred<Connection<Script>>>();
        let (kept, events) = (Rc::clone(&own), log.clone());
        let factory = Watched::new(&log, move |_| {
            if inside == "build_protocol" {
                kept.borrow().as_ref().unwrap().cancel();
            }
            let in_made = Rc::clone(&kept);
            Some(Script::new(&events).made(move |_| {
                if inside == "connection_made" {
                    in_made.borrow().as_ref().unwrap().cancel();
                }
                Ok(())
            }))
        });
        own.replace(Some(connect(&reactor, address, factory)));
        run_until(&reactor, || log.has("stop"));
        let failure = own.borrow_mut().take().unwrap().take_result().expect("it fired").unwrap_err();
        assert!(matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. })), "{inside}: {failure}");
        let (mut peer, _) = server.accept().unwrap();
        assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()), "{inside}");
        drop(peer);
        run_until(&reactor, || reactor.counters().watched == 0);
        assert_eq!(descriptors(), before, "{inside}");
        match inside {
            "build_protocol" => assert_eq!(log.all(), ["start", "build", "stop"]),
            _ => assert_eq!(log.all(), ["start", "build", "made", "lost: the connection was closed cleanly", "stop"]),
        }
    }
}

/// `bind_address` is where the peer sees us come from.
#[test]
fn bind_address_is_what_the_peer_sees() {
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    let options = ConnectOptions::new().bind_address("127.0.0.2:0".parse().unwrap());
    let connection = result_of(&reactor, reactor.connect_tcp(address, &options, scripts(&log))).unwrap();
    let (_peer, from) = server.accept().unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.2");
    assert_eq!(connection.transport().host(), from.into());
}

/// Asserts that connecting from there fails, for which reason, and that nothing is left of the
/// attempt.
#[track_caller]
fn assert_not_bound(from: SocketAddr, expected: ErrorKind) {
    let (reactor, log) = (reactor(), Log::default());
    let (_server, address) = listener();
    let before = descriptors();
    let options = ConnectOptions::new().bind_address(from);
    let failure = error_of(&reactor, reactor.connect_tcp(address, &options, Watched::new(&log, scripts(&log))));
    match failure.check::<ConnectError>() {
        Some(ConnectError::Bind { local, source }) => {
            assert_eq!((local, source.kind()), (&from.into(), expected));
        }
        other => panic!("{other:?}"),
    }
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// A local address that is not this machine's, and one with a listener.
#[test]
fn a_local_address_that_cannot_be_had() {
    own_process!();
    assert_not_bound("192.0.2.1:0".parse().unwrap(), ErrorKind::AddrNotAvailable);
    let (_listening, taken) = listener();
    assert_not_bound(taken, ErrorKind::AddrInUse);
}

/// F51: a socket that meets itself is no connection: it is tried anew, and refused in the end.
#[test]
fn a_socket_does_not_connect_to_itself() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let before = descriptors();
    let (taken, address) = refusing();
    drop(taken);
    let options = ConnectOptions::new().bind_address(address);
    let failure = error_of(&reactor, reactor.connect_tcp(address, &options, Watched::new(&log, scripts(&log))));
    assert!(matches!(failure.check(), Some(ConnectError::Refused { .. })), "{failure}");
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// F51: a peer that closes, or resets, as soon as it has accepted: a connection like any other,
/// made once and lost once.
#[test]
fn closed_as_soon_as_it_is_made() {
    for reset in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let (server, address) = listener();
        let attempt = connect(&reactor, address, Watched::new(&log, scripts(&log)));
        // It is over before the loop has turned once.
        let (peer, _) = server.accept().unwrap();
        if reset {
            reset_on_close(&peer);
        }
        drop(peer);
        let result = result_of(&reactor, attempt);
        run_until(&reactor, || log.has("stop"));
        settle(&reactor);
        match (reset, result) {
            (false, Ok(connection)) => {
                assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone));
                let lost = "lost: the connection was closed cleanly";
                assert_eq!(log.all(), ["start", "build", "made", lost, "stop"]);
            }
            // The system may tell of the reset as the attempt's own error.
            (true, Ok(_)) => assert_eq!((log.count("made"), log.count("lost: the peer reset")), (1, 1)),
            (true, Err(failure)) => {
                assert!(failure.check::<ConnectError>().is_some(), "{failure}");
                assert_eq!(log.all(), ["start", "stop"]);
            }
            (false, Err(failure)) => panic!("{failure}"),
        }
        run_until(&reactor, || reactor.counters().watched == 0);
    }
}

/// A factory that builds nothing fails the Deferred, and the peer sees the connection closed.
#[test]
fn no_protocol() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    let before = descriptors();
    let factory = Watched::new(&log, |_| None::<Script>);
    let failure = error_of(&reactor, connect(&reactor, address, factory));
    assert!(matches!(failure.check(), Some(ConnectError::NoProtocol { address: at }) if *at == address.into()));
    let (mut peer, _) = server.accept().unwrap();
    assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()));
    drop(peer);
    settle(&reactor);
    assert_eq!(log.all(), ["start", "build", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// A factory that panics fails the Deferred with the panic, whether it builds or starts.
#[test]
fn a_factory_that_panics() {
    own_process!();
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
            panic!("what never started is not stopped");
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let (_server, address) = listener();
    let before = descriptors();
    let building = Watched::new(&log, |_| -> Option<Script> { panic!("not this one") });
    let failure = error_of(&reactor, connect(&reactor, address, building));
    assert_eq!(failure.check::<Panicked>().unwrap().message, "not this one");
    let failure = result_of(&reactor, connect(&reactor, address, Broken)).unwrap_err();
    assert_eq!(failure.check::<Panicked>().unwrap().message, "not today");
    settle(&reactor);
    assert_eq!(log.all(), ["start", "build", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));
}

/// A `connection_made` that fails, or panics, fails the Deferred, and `connection_lost` hears the
/// same reason.
#[test]
fn a_failed_connection_made_fails_the_deferred() {
    for panics in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let (server, address) = listener();
        let events = log.clone();
        let factory = Watched::new(&log, move |_| {
            Some(Script::new(&events).made(move |transport| {
                transport.write(b"first words");
                assert!(!panics, "on second thoughts");
                Err(Failure::message("on second thoughts"))
            }))
        });
        let failure = error_of(&reactor, connect(&reactor, address, factory));
        assert!(failure.to_string().ends_with("on second thoughts"), "{failure}");
        assert_eq!(failure.check::<Panicked>().is_some(), panics);
        run_until(&reactor, || log.has("stop"));
        assert_eq!(log.all(), ["start", "build", "made", &format!("lost: {failure}"), "stop"]);
        let (mut peer, _) = server.accept().unwrap();
        assert_eq!(read_to_end(&reactor, &mut peer), Ok(b"first words".to_vec()));
    }
}

/// A `Connection` reaches its protocol from outside, not from inside the protocol's own callbacks,
/// and not after the end.
#[test]
fn a_connection_reaches_its_protocol() {
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    let own = place::<Connection<Script>>();
    let (kept, in_lost, said) = (Rc::clone(&own), Rc::clone(&own), log.clone());
    let script = Script::new(&log)
        .data(move |_, _| {
            let answer = kept.borrow().as_ref().unwrap().with(|_, _| ());
            said.add(format!("with: {answer:?}"));
            Ok(())
        })
        .lost({
            let said = log.clone();
            move |_| {
                let answer = in_lost.borrow().as_ref().unwrap().with(|_, _| ());
                said.add(format!("with: {answer:?}"));
            }
        });
    let connection = result_of(&reactor, connect(&reactor, address, once(script))).unwrap();
    own.replace(Some(connection.clone()));
    let (mut peer, _) = server.accept().unwrap();
    let written = connection.with(|script, transport| {
        transport.write(b"from outside");
        script.log.count("made")
    });
    assert_eq!(written, Ok(1));
    assert_eq!(read_exact(&reactor, &mut peer, 12), b"from outside");
    let nested = connection.with(|_, _| own.borrow().as_ref().unwrap().with(|_, _| ()));
    assert_eq!(nested, Ok(Err(Unavailable::Busy)));
    peer.write_all(b"?").unwrap();
    run_until(&reactor, || log.has("data"));
    drop(peer);
    run_until(&reactor, || log.is_over());
    assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone));
    assert!(connection.transport().is_disconnected());
    connection.transport().write(b"nobody is there");
    settle(&reactor);
    let lost = "lost: the connection was closed cleanly";
    assert_eq!(log.all(), ["made", "data", "with: Err(Busy)", lost, "with: Err(Gone)"]);
}

/// Dropping the Deferred, or the `Connection`, does not end the connection.
#[test]
fn a_dropped_deferred_stops_nothing() {
    let (reactor, log) = (reactor(), Log::default());
    let (server, address) = listener();
    drop(connect(&reactor, address, echoes(&log)));
    run_until(&reactor, || log.has("made"));
    let (mut peer, _) = server.accept().unwrap();
    peer.write_all(b"anybody?").unwrap();
    assert_eq!(read_exact(&reactor, &mut peer, 8), b"anybody?");
}

/// A reactor that stops fails the attempts that are under way, and those that are begun while
/// everything closes; the next run connects again.
#[test]
fn a_stopping_reactor_does_not_connect() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_full, _first, address) = silent();
    let before = descriptors();
    let (handle, said) = (reactor.clone(), log.clone());
    let attempt = connect(&reactor, address, Watched::new(&log, scripts(&log))).add_errback(move |failure| {
        said.add(format!("under way: {failure}"));
        // It asks at once for another, as programs do.
        connect(&handle, address, scripts(&said))
    });
    let said = log.clone();
    let attempt = attempt.add_errback(move |failure| {
        said.add(format!("again: {failure}"));
        Err(failure)
    });
    let (handle, said) = (reactor.clone(), log.clone());
    reactor.add_system_event_trigger(Phase::During, SystemEvent::Shutdown, move || {
        let failure = connect(&handle, address, scripts(&said)).take_result().expect("at once").unwrap_err();
        assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })));
        said.add("during");
        let listening = handle.listen_tcp(loopback(), &ListenOptions::new(), scripts(&said));
        assert!(matches!(listening, Err(ListenError::ReactorStopping)));
    });
    let handle = reactor.clone();
    reactor.call_when_running(move || handle.stop().unwrap());
    run(&reactor).expect("the loop runs");
    let failure = result_of(&reactor, attempt).unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { to }) if *to == address.to_string()));
    let stopped = format!("the reactor stopped while connecting to {address}");
    let expected =
        ["start", &format!("under way: {stopped}"), &format!("again: {stopped}"), "stop", "during"].map(str::to_owned);
    assert_eq!(log.all(), expected);
    assert_eq!((descriptors(), reactor.counters().watched), (before, 0));

    let (_server, address) = listener();
    result_of(&reactor, connect(&reactor, address, scripts(&log))).unwrap();
}

/// An attempt whose reactor is dropped fails, and its descriptor is closed.
#[test]
fn a_dropped_reactor_fails_its_attempts() {
    own_process!();
    let log = Log::default();
    let (_full, _first, address) = silent();
    let before = descriptors();
    let reactor = reactor();
    let mut attempt = connect(&reactor, address, scripts(&log));
    settle(&reactor);
    drop(reactor);
    let failure = attempt.take_result().expect("it failed").unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })), "{failure}");
    assert_eq!(descriptors(), before);
}

/// A connection whose protocol's type was erased gives it back for the right type, and gives itself
/// back for a wrong one.
#[test]
fn downcast_to_the_wrong_type_gives_itself_back() {
    struct Other;
    impl Protocol for Other {
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> ropewalk::Result<()> {
            Ok(())
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let (_server, address) = listener();
    let factory = BoxedFactory::new(scripts(&log));
    let attempt = reactor.connect_tcp_boxed(address, &ConnectOptions::new(), factory);
    let connection: AnyConnection = result_of(&reactor, attempt).unwrap();
    let connection = connection.downcast::<Other>().expect_err("it is not an Other");
    assert_eq!(connection.transport().peer(), address.into());
    let connection = connection.downcast::<Script>().expect("it is a Script");
    assert_eq!(connection.with(|script, _| script.log.count("made")), Ok(1));
}

/// A peer that is not ours, and a client of ours, in both directions: what is written arrives.
#[test]
fn bytes_go_both_ways() {
    let (reactor, log) = (reactor(), Log::default());
    let (address, peer) = listening_peer(|mut stream: TcpStream| {
        stream.write_all(b"welcome").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let received = Rc::default();
    let script = Script::new(&log).into_buffer(&received).data(|transport, _| {
        transport.write(b"thank you");
        transport.lose_connection();
        Ok(())
    });
    let _connection = result_of(&reactor, connect(&reactor, address, once(script))).unwrap();
    assert_eq!(run_beside(&reactor, peer), b"thank you");
    run_until(&reactor, || log.is_over());
    assert_eq!(*received.borrow(), b"welcome");
}

/// A local address that has a connection to the very same peer is free to be bound, and refused by
/// the system only when it connects: that too is an error of the local address.
#[test]
fn a_local_address_in_use_is_an_error_of_binding() {
    let (reactor, log) = (reactor(), Log::default());
    let (_server, address) = listener();
    let first = result_of(&reactor, connect(&reactor, address, scripts(&log))).unwrap();
    let local = first.transport().host();
    let options = ConnectOptions::new().bind_address(local.socket_addr().unwrap());
    let failure = error_of(&reactor, reactor.connect_tcp(address, &options, scripts(&log)));
    match failure.check::<ConnectError>() {
        Some(ConnectError::Bind { local: named, .. }) => assert_eq!(*named, local),
        _ => panic!("{failure}"),
    }
    // Bound by a socket that does not share it, it is in use from the beginning.
    let (_taken, in_use) = refusing();
    let options = ConnectOptions::new().bind_address(in_use);
    let failure = error_of(&reactor, reactor.connect_tcp(address, &options, scripts(&log)));
    assert!(matches!(failure.check(), Some(ConnectError::Bind { .. })), "{failure}");
}
