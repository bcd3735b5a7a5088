//! Connections of the program's own sockets, with addresses and a protocol that it has already
//! (`Reactor::adopt_stream`), and those that it accepts by itself (`Reactor::accept_from`).

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::address::{AddressFamily, UnixAddress};
use ropewalk::error::{AdoptError, ConnectError};
use ropewalk::reactor::AdoptOptions;
use ropewalk::transport::DiscardMode;
use ropewalk::{Address, BackendKind, Reactor};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

fn on_each(test: impl Fn(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// A socket that the program has accepted, its addresses, and its peer.
fn accepted() -> (TcpStream, SocketAddr, SocketAddr, TcpStream) {
    let listener = TcpListener::bind(loopback()).expect("a port");
    let host = listener.local_addr().expect("an address");
    let peer = dial(host);
    let (socket, from) = listener.accept().expect("it is there");
    (socket, host, from, peer)
}

/// Whatever the blocking mode was, bytes go both ways, more than the socket takes at once, and the
/// end closes the socket.
#[test]
fn a_socket_of_either_mode_is_served() {
    on_each(|reactor| {
        for nonblocking in [true, false] {
            let (socket, host, from, mut peer) = accepted();
            socket.set_nonblocking(nonblocking).expect("a mode");
            let log = Log::default();
            let script = Script::new(&log).data(|transport, _| {
                transport.write(&[7; 3_000_000]);
                transport.lose_connection();
                Ok(())
            });
            let adopted = reactor.adopt_stream(socket, host, from, &AdoptOptions::new(), script).expect("a stream");
            assert_eq!(adopted.transport().host(), Address::from(host));
            assert_eq!(adopted.transport().peer(), Address::from(from));
            assert_eq!(log.all(), Vec::<String>::new(), "connection_made comes at the end of the turn");
            reactor.iterate(LIMIT).expect("the loop turns");
            assert_eq!(log.all(), ["made"]);
            peer.write_all(b"more").expect("it is open");
            let all = read_to_end(&reactor, &mut peer).expect("an end");
            assert_eq!(all.len(), 3_000_000);
            drop(peer);
            run_until(&reactor, || log.is_over() && reactor.counters().watched == 0);
        }
    });
}

/// The first call comes first, also if an end is asked for or known before: the peer's, a reset,
/// ours, a stop of the reactor. A discarded connection gets none.
#[test]
fn the_first_call_comes_first() {
    on_each(|reactor| {
        let adopt = |log: &Log| {
            let (socket, host, from, peer) = accepted();
            let adopted = reactor.adopt_stream(socket, host, from, &AdoptOptions::new(), Script::new(log));
            (adopted.expect("a stream").transport().clone(), peer)
        };
        let (ours, theirs, reset, aborted, bytes) =
            (Log::default(), Log::default(), Log::default(), Log::default(), Log::default());
        let (transport, _peer) = adopt(&ours);
        transport.lose_connection();
        drop(adopt(&theirs));
        let (_, peer) = adopt(&reset);
        reset_on_close(&peer);
        drop(peer);
        let (transport, _second) = adopt(&aborted);
        transport.abort_connection();
        let (_, mut third) = adopt(&bytes);
        third.write_all(b"early").expect("it is open");
        drop(third);
        let discarded = Log::default();
        adopt(&discarded).0.discard(DiscardMode::Reset);
        let all = [&ours, &theirs, &reset, &aborted, &bytes];
        run_until(&reactor, || all.iter().all(|log| log.is_over()));
        for log in all {
            assert!(log.all()[0] == "made" && log.count("made") == 1, "{:?}", log.all());
        }
        assert!(bytes.has("data"), "{:?}", bytes.all());
        assert_eq!(discarded.all(), Vec::<String>::new());
        let stopped = Log::default();
        let (_transport, _peer) = adopt(&stopped);
        reactor.close().expect("it does not run");
        assert_eq!((stopped.count("made"), stopped.count("lost")), (1, 1), "{:?}", stopped.all());
    });
}

/// A socket pair has whatever addresses its owner gives it. Its descriptor is close-on-exec from
/// then on.
#[test]
fn a_socket_pair_is_served_under_any_address() {
    on_each(|reactor| {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        fcntl_setfd(&ours, FdFlags::empty()).expect("a flag");
        let here = UnixAddress::path("/run/made-up").expect("a path");
        let adopted = reactor.adopt_stream(ours, here.clone(), UnixAddress::unnamed(), &AdoptOptions::new(), Echo);
        let transport = adopted.expect("a stream").transport().clone();
        assert_eq!(transport.host(), Address::from(here));
        with_descriptor(&transport, |descriptor| assert!(fcntl_getfd(descriptor).unwrap().contains(FdFlags::CLOEXEC)));
        theirs.write_all(b"pair").expect("it is open");
        theirs.set_read_timeout(Some(LIMIT)).expect("a limit");
        settle(&reactor);
        let mut answer = [0; 4];
        theirs.set_nonblocking(true).expect("a mode");
        run_until(&reactor, || theirs.read_exact(&mut answer).is_ok());
        assert_eq!(&answer, b"pair");
    });
}

/// A descriptor that is no stream socket comes back, with the reason, and so does any on a reactor
/// that takes none. A socket that is not connected is lost with its first receive.
#[test]
fn other_descriptors_come_back() {
    let address = loopback();
    let adopt = |reactor: &Reactor, descriptor: OwnedFd, options: &AdoptOptions| {
        let number = descriptor.as_raw_fd();
        let refused = reactor.adopt_stream(descriptor, address, address, options, Echo).expect_err("a refusal");
        assert_eq!(refused.descriptor.as_raw_fd(), number);
        refused.error
    };
    let options = AdoptOptions::new();
    on_each(|reactor| {
        let file = std::fs::File::open("/proc/self/exe").expect("a file");
        assert!(matches!(adopt(&reactor, file.into(), &options), ConnectError::Adopt(AdoptError::NotASocket)));
        let datagrams = UdpSocket::bind(address).expect("a port");
        assert!(matches!(adopt(&reactor, datagrams.into(), &options), ConnectError::Adopt(AdoptError::NotAStream)));
        let wrong = adopt(&reactor, tcp_socket(), &AdoptOptions::new().family(AddressFamily::Unix));
        assert!(matches!(wrong, ConnectError::Adopt(AdoptError::WrongFamily { .. })));
        let log = Log::default();
        let unconnected = reactor.adopt_stream(tcp_socket(), address, address, &options, Script::new(&log));
        assert!(unconnected.is_ok());
        run_until(&reactor, || log.is_over());
        assert_eq!((log.count("made"), reactor.counters().watched), (1, 0));
        reactor.close().expect("it does not run");
        assert!(matches!(adopt(&reactor, tcp_socket(), &options), ConnectError::ReactorStopped { .. }));
    });
    let network = ropewalk::testing::Network::new(1);
    let simulated = network.reactor([192, 0, 2, 7].into());
    assert!(matches!(adopt(&simulated, tcp_socket(), &options), ConnectError::Adopt(AdoptError::Unsupported)));
    assert_eq!(simulated.counters().watched, 0);
}

/// A failure of `connection_made` ends the connection with that reason.
#[test]
fn a_failing_first_call_is_the_reason() {
    on_each(|reactor| {
        let (socket, host, from, mut peer) = accepted();
        let (log, reason) = (Log::default(), Rc::new(RefCell::new(None)));
        let failing = Script::new(&log).made(|_| Err(ropewalk::Failure::message("not today"))).reason_into(&reason);
        let (adopted, lines) = logged(|| {
            let adopted = reactor.adopt_stream(socket, host, from, &AdoptOptions::new(), failing);
            run_until(&reactor, || log.is_over());
            adopted
        });
        assert!(adopted.is_ok() && lines.iter().any(|line| line.contains("not today")), "{lines:?}");
        assert!(reason.borrow().as_ref().is_some_and(|reason| reason.to_string().contains("not today")));
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        assert!(matches!(
            peer.read(&mut [0; 8]).map_err(|error| error.kind()),
            Ok(0) | Err(ErrorKind::ConnectionReset)
        ));
    });
}

/// A listener of the program's that does not block.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback()).expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let host = listener.local_addr().expect("an address");
    (listener, host)
}

/// A connection that the program accepts from its own listener is served, though nothing about its
/// socket is examined. It ends for both sides.
#[test]
fn an_accepted_socket_is_served() {
    on_each(|reactor| {
        let (listener, host) = listener();
        let none = reactor.accept_from(&listener).expect_err("no connection waits");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        let mut peer = dial(host);
        let accepted = reactor.accept_from(&listener).expect("a connection");
        assert_eq!(accepted.peer(), &Address::from(peer.local_addr().expect("an address")));
        assert!(fcntl_getfd(&accepted).expect("flags").contains(FdFlags::CLOEXEC));
        let log = Log::default();
        let script = Script::new(&log).data(|transport, _| {
            transport.write(&[7; 3_000_000]);
            transport.lose_connection();
            Ok(())
        });
        let adopted = reactor.adopt_accepted(accepted, host, script).expect("a stream");
        assert_eq!(adopted.transport().host(), Address::from(host));
        assert_eq!(log.all(), Vec::<String>::new(), "connection_made comes at the end of the turn");
        peer.write_all(b"more").expect("it is open");
        let all = read_to_end(&reactor, &mut peer).expect("an end");
        assert_eq!(all.len(), 3_000_000);
        drop(peer);
        run_until(&reactor, || log.is_over() && reactor.counters().watched == 0);
        assert_eq!(log.count("made"), 1, "{:?}", log.all());
    });
}

/// An accepted socket without a transport is closed when it is dropped, or when the reactor takes
/// no connections any more. Its descriptor can be taken out.
#[test]
fn an_accepted_socket_is_closed_unless_it_is_taken() {
    on_each(|reactor| {
        let (listener, host) = listener();
        let accept = || {
            let peer = dial(host);
            (reactor.accept_from(&listener).expect("a connection"), peer)
        };
        let ended = |mut peer: TcpStream| peer.read(&mut [0]).expect("an end, and no reset") == 0;
        let (dropped, peer) = accept();
        drop(dropped);
        assert!(ended(peer));
        let (taken, peer) = accept();
        let taken = TcpStream::from(OwnedFd::from(taken));
        assert_eq!(taken.peer_addr().expect("an address"), peer.local_addr().expect("an address"));
        let (refused, peer) = accept();
        reactor.close().expect("it does not run");
        let log = Log::default();
        let error = reactor.adopt_accepted(refused, host, Script::new(&log)).expect_err("the reactor is closed");
        assert!(matches!(error, ConnectError::ReactorStopped { .. }), "{error:?}");
        assert!(ended(peer));
        assert_eq!(log.all(), Vec::<String>::new());
    });
}
