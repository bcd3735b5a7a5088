//! Ports that accept: refusals, addresses that cannot be bound, bursts, and peers that are gone.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ListenError;
use ropewalk::interfaces::*;
use ropewalk::{Address, ListenOptions, Reactor};

/// F06: a factory that builds nothing, or panics, has the connection closed at once; the port goes
/// on, and no descriptor is lost.
#[test]
fn a_refused_connection_is_closed_and_the_port_goes_on() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (calls, events) = (Rc::new(Cell::new(0)), log.clone());
    let count = Rc::clone(&calls);
    let factory = move |_| {
        count.set(count.get() + 1);
        match count.get() {
            1 => None,
            2 => panic!("no protocol for number two"),
            _ => echoes(&events)(loopback().into()),
        }
    };
    let (_port, address) = listen(&reactor, factory);
    settle(&reactor);
    let before = (descriptors(), reactor.counters().watched);
    for _ in 0..2 {
        let mut refused = dial(address);
        assert_eq!(read_to_end(&reactor, &mut refused), Ok(Vec::new()));
    }
    assert_eq!((descriptors(), reactor.counters().watched), before);
    let mut served = dial(address);
    served.write_all(b"me").unwrap();
    assert_eq!(read_exact(&reactor, &mut served, 2), b"me");
    assert_eq!((calls.get(), reactor.counters().accepted), (3, 3));
}

/// Asserts that an address can't be listened on, for which reason, and that nothing is left of the
/// attempt.
#[track_caller]
fn assert_not_bound(reactor: &Reactor, address: SocketAddr, expected: ErrorKind) {
    // The descriptor that is kept in reserve comes with the first attempt.
    let log = Log::default();
    drop(reactor.listen_tcp(address, &ListenOptions::new(), Watched::new(&log, scripts(&log))));
    let before = (descriptors(), reactor.counters().watched);
    let error = reactor.listen_tcp(address, &ListenOptions::new(), Watched::new(&log, scripts(&log))).unwrap_err();
    match &error {
        ListenError::Bind { address: at, source } => {
            assert_eq!(*at, address.into());
            assert_eq!(source.kind(), expected);
        }
        other => panic!("not a Bind: {other:?}"),
    }
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
    assert_eq!((descriptors(), reactor.counters().watched), before);
    assert!(log.all().is_empty(), "the factory of a port that is not bound does not start");
}

/// F08: an address in use.
#[test]
fn an_address_in_use_is_an_error() {
    own_process!();
    let reactor = reactor();
    let taken = TcpListener::bind(loopback()).unwrap();
    assert_not_bound(&reactor, taken.local_addr().unwrap(), ErrorKind::AddrInUse);
    let (_port, own) = listen(&reactor, scripts(&Log::default()));
    assert_not_bound(&reactor, own, ErrorKind::AddrInUse);
}

/// F08: an address that is not this machine's.
#[test]
fn an_address_that_is_not_ours_is_an_error() {
    own_process!();
    let reactor = reactor();
    assert_not_bound(&reactor, "192.0.2.1:0".parse().unwrap(), ErrorKind::AddrNotAvailable);
}

/// F08: a port that this user may not have.
#[test]
fn a_privileged_port_is_an_error() {
    own_process!();
    let reactor = reactor();
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if rustix::process::geteuid().is_root() || lowest.trim().parse().is_ok_and(|port: u16| port <= 1) {
        println!("skipped: this user may listen on any port");
        return;
    }
    assert_not_bound(&reactor, "127.0.0.1:1".parse().unwrap(), ErrorKind::PermissionDenied);
}

/// A factory that panics when it starts is an error of the listener, and the socket is closed
/// again.
#[test]
fn a_factory_that_does_not_start_leaves_nothing() {
    own_process!();
    struct Broken(Rc<Cell<usize>>);
    impl Factory for Broken {
        type Protocol = Script;
        fn build_protocol(&mut self, _: &Address) -> Option<Script> {
            None
        }
        fn do_start(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("not today");
        }
        fn do_stop(&mut self) {
            panic!("what never started is not stopped");
        }
    }
    let (reactor, starts) = (reactor(), Rc::default());
    let (_keeps_the_reserve, free) = listen(&reactor, scripts(&Log::default()));
    let before = (descriptors(), reactor.counters().watched);
    let error = reactor.listen_tcp(loopback(), &ListenOptions::new(), Broken(Rc::clone(&starts))).unwrap_err();
    match error {
        ListenError::Factory(panic) => assert_eq!(panic.message, "not today"),
        other => panic!("not a Factory: {other:?}"),
    }
    settle(&reactor);
    assert_eq!((descriptors(), reactor.counters().watched), before);
    assert_eq!(starts.get(), 1);
    // The loop is none the worse for it.
    assert!(TcpStream::connect(free).is_ok());
}

/// F05: a burst of 500 connections is accepted in portions of at most 64 a turn, and a connection
/// that was there before gets its answer before they are all in.
#[test]
fn a_burst_of_connections_leaves_room_for_others() {
    const BURST: usize = 500;
    let (reactor, log) = (reactor(), Log::default());
    let options = ListenOptions::new().backlog(1024);
    let port = reactor.listen_tcp(loopback(), &options, echoes(&log)).unwrap();
    let address = port.host().socket_addr().unwrap();
    let mut old = dial(address);
    run_until(&reactor, || log.has("made"));
    // The burst is there before the bytes are.
    let burst: Vec<TcpStream> = (0..BURST).map(|_| dial(address)).collect();
    old.write_all(b"still served?").unwrap();
    let (mut answer, mut answered_after, mut portions) = (Vec::new(), None, Vec::new());
    run_until(&reactor, || {
        let before = reactor.counters().accepted;
        reactor.iterate(Duration::ZERO).unwrap();
        portions.push(reactor.counters().accepted - before);
        let _ = read_now(&mut old, &mut answer);
        if answer == b"still served?" && answered_after.is_none() {
            answered_after = Some(portions.iter().sum::<u64>());
        }
        reactor.counters().accepted as usize == BURST + 1 && answered_after.is_some()
    });
    assert!(portions.iter().all(|&portion| portion <= 64), "{portions:?}");
    assert!(answered_after.unwrap() < BURST as u64 / 2, "only after {answered_after:?} of {BURST}");
    drop(burst);
    run_until(&reactor, || log.count("lost") == BURST);
}

/// F04: peers that reset their connection before it is accepted are connections like any other:
/// made once, lost once, by a reset, with the right address; or none at all, where the kernel has
/// accepted them by itself.
#[test]
fn peers_that_reset_before_they_are_accepted() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (peers, seen) = (Rc::new(RefCell::new(Vec::new())), log.clone());
    let noted = Rc::clone(&peers);
    let factory = move |peer: Address| {
        noted.borrow_mut().push(peer.socket_addr().unwrap());
        Some(Script::new(&seen))
    };
    let (_port, address) = listen(&reactor, factory);
    let mut expected = Vec::new();
    settle(&reactor);
    let before = (descriptors(), reactor.counters().watched);
    for _ in 0..10 {
        let stream = dial(address);
        expected.push(stream.local_addr().unwrap());
        reset_on_close(&stream);
    }
    let mut survivor = dial(address);
    let reset = if accepts_what_was_reset(&reactor) { 10 } else { 0 };
    run_until(&reactor, || (log.count("made"), log.count("lost")) == (reset + 1, reset));
    settle(&reactor);
    assert_eq!((log.count("made"), log.count("lost: the peer reset the connection")), (reset + 1, reset));
    assert_eq!(peers.borrow()[..reset], expected[..reset]);
    survivor.write_all(b"x").unwrap();
    run_until(&reactor, || log.has("data"));
    drop(survivor);
    run_until(&reactor, || reactor.counters().watched == before.1);
    assert_eq!((descriptors(), reactor.counters().watched), before);
}

/// A port on the IPv6 loopback serves peers there, and both addresses are IPv6.
#[test]
fn ipv6_is_listened_on() {
    let (reactor, log) = (reactor(), Log::default());
    let address: SocketAddr = "[::1]:0".parse().unwrap();
    if let Err(error) = TcpListener::bind(address) {
        println!("skipped: no IPv6 loopback here: {error}");
        return;
    }
    let kept = Rc::default();
    let factory = once(Script::new(&log).transport_into(&kept).data(|transport, data| {
        transport.write(data);
        Ok(())
    }));
    let port = reactor.listen_tcp(address, &ListenOptions::new(), factory).unwrap();
    let host = port.host().socket_addr().unwrap();
    assert!(host.is_ipv6() && host.port() != 0);
    let mut peer = dial(host);
    peer.write_all(b"six").unwrap();
    assert_eq!(read_exact(&reactor, &mut peer, 3), b"six");
    let transport: ropewalk::Transport = kept.borrow_mut().take().unwrap();
    assert_eq!(transport.host(), host.into());
    assert_eq!(transport.peer(), peer.local_addr().unwrap().into());
}

/// A port on all interfaces tells each connection which of our addresses it came to.
#[test]
fn listening_on_all_interfaces_tells_them_apart() {
    let (reactor, log) = (reactor(), Log::default());
    let kept = Rc::default();
    let port = reactor
        .listen_tcp("0.0.0.0:0".parse().unwrap(), &ListenOptions::new(), once(Script::new(&log).transport_into(&kept)))
        .unwrap();
    let number = port.host().port().unwrap();
    let _peer = dial(SocketAddr::new("127.0.0.3".parse().unwrap(), number));
    run_until(&reactor, || log.has("made"));
    let transport: ropewalk::Transport = kept.borrow_mut().take().unwrap();
    assert_eq!(transport.host().to_string(), format!("127.0.0.3:{number}"));
}

/// A closure is a factory, and may keep what its protocols share.
#[test]
fn a_closure_is_a_factory() {
    let (reactor, log) = (reactor(), Log::default());
    let (mut built, events) = (0, log.clone());
    let (_port, address) = listen(&reactor, move |peer: Address| {
        built += 1;
        events.add(format!("number {built} is {peer}"));
        Some(Script::new(&events))
    });
    let (first, second) = (dial(address), dial(address));
    run_until(&reactor, || log.count("made") == 2);
    for (number, peer) in [first, second].into_iter().enumerate() {
        assert!(log.has(&format!("number {} is {}", number + 1, peer.local_addr().unwrap())));
    }
}

/// A burst of connections that meets a busy loop waits in the kernel, and each of them is served
/// when the loop turns.
#[test]
fn a_burst_that_meets_a_busy_loop_is_served() {
    const PEERS: usize = 200;
    let reactor = reactor();
    let factory = |_| {
        Some(Script::new(&Log::default()).made(|transport| {
            transport.write(b"hello");
            Ok(())
        }))
    };
    let (_port, address) = listen(&reactor, factory);
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(address)).collect();
    for peer in &mut peers {
        assert_eq!(read_exact(&reactor, peer, 5), b"hello");
    }
    assert_eq!(reactor.counters().accepted, PEERS as u64);
}

/// Tells the test below that it is the process in the empty folder.
const EMPTY_FOLDER: &str = "ROPEWALK_TEST_EMPTY_FOLDER";

/// A process that sees no file at all listens: nothing has to be there for it.
#[test]
fn a_port_needs_no_file() {
    if let Some(folder) = std::env::var_os(EMPTY_FOLDER) {
        rustix::process::chroot(folder).unwrap();
        let (reactor, log) = (reactor(), Log::default());
        let (_port, address) = listen(&reactor, echoes(&log));
        let mut peer = dial(address);
        peer.write_all(b"in here").unwrap();
        assert_eq!(read_exact(&reactor, &mut peer, 7), b"in here");
        return;
    }
    own_process!();
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root may change the root folder");
    }
    let folder = std::env::temp_dir().join(format!("ropewalk-empty-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let inside = this_program("ports::a_port_needs_no_file").env(EMPTY_FOLDER, &folder).output();
    std::fs::remove_dir(&folder).unwrap();
    let inside = inside.unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stderr));
}
