//! Faults of a real kernel on the simulated network, as programs meet them.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Echo, Log, Script, logged, once};
use ropewalk::error::{ConnectError, ListenError};
use ropewalk::testing::{Conditions, Network, Peer};
use ropewalk::{Clock, ConnectOptions, Failure, ListenOptions, Port, Reactor};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn address() -> SocketAddr {
    SocketAddr::new(SERVER, 7)
}

/// A reactor that serves one connection with this script, and the peer at its other end.
fn served(network: &Network, script: Script) -> (Reactor, Peer) {
    let reactor = network.reactor(SERVER);
    drop(reactor.listen_tcp(address(), &ListenOptions::new(), once(script)).unwrap());
    let peer = network.connect(address());
    network.settle().unwrap();
    assert!(peer.is_connected());
    (reactor, peer)
}

/// F09: a send fails because the peer is gone, while bytes that came before are unread. They are
/// delivered, then the connection is lost.
#[test]
fn what_arrived_before_a_failed_send_is_given() {
    let network = Network::with_conditions(1, Conditions::ideal().chunk(1));
    let log = Log::default();
    let script = Script::new(&log).made(|transport| {
        transport.write(b"never read");
        Ok(())
    });
    let received = Rc::clone(&script.received);
    let script = script.data(|transport, _| {
        transport.write(b"an answer to each byte");
        Ok(())
    });
    let (_reactor, peer) = served(&network, script);
    peer.write(b"hello").unwrap();
    // With something unread that is a reset.
    peer.close();
    network.run_until(SECOND, || log.is_over()).unwrap();
    assert_eq!(*received.borrow(), b"hello");
    assert!(log.reason().contains("reset"), "{}", log.reason());
}

/// F11: a reset comes while reading is paused. The bytes in the socket are delivered after
/// resuming, then the connection is lost.
#[test]
fn what_arrived_before_a_reset_waits_for_the_reader() {
    let network = Network::new(1);
    let log = Log::default();
    let script = Script::new(&log).made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let (received, transport) = (Rc::clone(&script.received), Rc::clone(&script.transport));
    let (_reactor, peer) = served(&network, script);
    peer.write(b"hello").unwrap();
    network.settle().unwrap();
    peer.abort();
    network.settle().unwrap();
    assert!(received.borrow().is_empty() && !log.is_over());
    transport.borrow().as_ref().unwrap().resume_producing();
    network.run_until(SECOND, || log.is_over()).unwrap();
    assert_eq!(*received.borrow(), b"hello");
    assert!(log.reason().contains("reset"), "{}", log.reason());
}

/// A receive stops at an urgent byte, and the stream goes on behind it.
#[test]
fn a_stream_goes_on_behind_an_urgent_byte() {
    for seed in 0..10 {
        let network = Network::with_conditions(seed, Conditions::rough(seed).window(1024));
        let log = Log::default();
        let script = Script::new(&log);
        let received = Rc::clone(&script.received);
        let reactor = network.reactor(SERVER);
        drop(reactor.listen_tcp(address(), &ListenOptions::new(), once(script)).unwrap());
        let peer = network.connect(address());
        network.run_until(60 * SECOND, || log.has("made")).unwrap();
        network.settle().unwrap();
        assert_eq!(peer.write(b"abc").unwrap() + peer.write_urgent(b'!').unwrap() + peer.write(b"def").unwrap(), 7);
        network.run_until(60 * SECOND, || received.borrow().len() == 6).unwrap();
        assert_eq!(*received.borrow(), b"abcdef", "seed {seed}");
        peer.close();
        network.run_until(60 * SECOND, || log.is_over()).unwrap();
        assert_eq!(log.reason(), "the connection was closed cleanly", "seed {seed}");
    }
}

/// A port stops while connections are in its backlog: each is served, or reset if the program asks
/// for that, and none ends cleanly.
#[test]
fn a_port_that_stops_serves_or_resets_its_backlog() {
    const PEERS: usize = 100;
    for serves in [true, false] {
        let network = Network::new(1);
        let reactor = network.reactor(SERVER);
        let (made, stops) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Port>)));
        let (count, stopping) = (Rc::clone(&made), Rc::clone(&stops));
        let factory = move |_| {
            count.set(count.get() + 1);
            if let Some(port) = stopping.take() {
                drop(if serves { port.stop_listening() } else { port.abort_listening() });
            }
            Some(Echo)
        };
        let port = reactor.listen_tcp(address(), &ListenOptions::new().backlog(PEERS as u32), factory).unwrap();
        stops.replace(Some(port));
        let peers: Vec<_> = (0..PEERS).map(|_| network.connect(address())).collect();
        network.settle().unwrap();
        for peer in &peers {
            // A reset may have come.
            let _ = peer.write(b"there?");
        }
        network.settle().unwrap();
        let served = peers.iter().filter(|peer| peer.read() == b"there?").count();
        let reset = peers.iter().filter(|peer| peer.is_reset()).count();
        assert_eq!((served, served + reset), (made.get(), PEERS));
        assert_eq!(served, if serves { PEERS } else { 1 });
        assert!(peers.iter().all(|peer| !peer.is_ended()));
    }
}

/// Bytes that a stopping reactor or a failed callback drops are a reset for the peer. If all of
/// them had been sent, the end is clean.
#[test]
fn what_is_given_up_is_reset() {
    for fails in [true, false] {
        for (bytes, is_reset) in [(5000, true), (500, false)] {
            let network = Network::with_conditions(1, Conditions::ideal().window(1000));
            let log = Log::default();
            let script = Script::new(&log).made(move |transport| {
                transport.write(&vec![7; bytes]);
                Ok(())
            });
            let script = script.data(move |_, _| if fails { Err(Failure::message("on purpose")) } else { Ok(()) });
            let (reactor, peer) = served(&network, script);
            if fails {
                peer.write(b"fail").unwrap();
            } else {
                reactor.stop().unwrap();
            }
            network.run_for(SECOND * 30).unwrap();
            assert!(log.is_over());
            assert_eq!(peer.is_reset(), is_reset, "{bytes} bytes, fails {fails}");
            assert_eq!(peer.is_ended(), !is_reset, "{bytes} bytes, fails {fails}");
            assert_eq!(peer.read().len(), bytes.min(1000));
        }
    }
}

/// Two small segments of one turn: 40 ms with Nagle's algorithm, for the peer has nothing to
/// answer; none without it.
#[test]
fn nagle_waits_for_a_late_acknowledgement() {
    for (off, expected) in [(false, 40), (true, 0)] {
        let network = Network::with_conditions(1, Conditions::ideal().nagle(true));
        let (server, client) = (network.reactor(SERVER), network.reactor(CLIENT));
        let (serving, asking) = (Log::default(), Log::default());
        let server_script = Script::new(&serving);
        let received = Rc::clone(&server_script.received);
        drop(server.listen_tcp(address(), &ListenOptions::new(), once(server_script)).unwrap());
        let later = client.clone();
        let client_script = Script::new(&asking).made(move |transport| {
            transport.write(b"one");
            let transport = transport.clone();
            later.call_later(Duration::ZERO, move || transport.write(b"two"));
            Ok(())
        });
        let options = ConnectOptions::new().tcp_no_delay(off);
        drop(client.connect_tcp(address(), &options, once(client_script)).add_both(|_| ()));
        network.run_until(SECOND, || *received.borrow() == b"onetwo").unwrap();
        assert_eq!(network.now().as_millis(), expected, "no delay {off}");
    }
}

/// A reactor has so many descriptors, of which ports, connections, attempts and connections that
/// linger each take one. Without any left, and with none that lingers to be given up, it neither
/// listens nor connects (`EMFILE`), and sheds newcomers.
#[test]
fn descriptors_run_out_everywhere() {
    const EMFILE: Option<i32> = Some(24);
    let network = Network::new(1);
    let reactor = network.reactor(SERVER);
    let log = Log::default();
    let script = Script::new(&log).data(|transport, _| {
        transport.lose_connection();
        Ok(())
    });
    drop(reactor.listen_tcp(address(), &ListenOptions::new(), once(script)).unwrap());
    let peer = network.connect(address());
    network.settle().unwrap();
    network.limit_descriptors(&reactor, Some(2));
    assert_eq!(network.open_sockets(&reactor), 2);

    let refused = reactor.listen_tcp(SocketAddr::new(SERVER, 8), &ListenOptions::new(), |_| Some(Echo));
    let Err(ListenError::Bind { source, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(source.raw_os_error(), EMFILE);
    let connect = || reactor.connect_tcp(address(), &ConnectOptions::new(), |_| Some(Echo));
    let mut connecting = connect();
    network.settle().unwrap();
    let failure = connecting.take_result().expect("it is answered").expect_err("there is no descriptor");
    let Some(ConnectError::Other { source, .. }) = failure.check() else { panic!("{failure}") };
    assert_eq!(source.raw_os_error(), EMFILE);
    let excess = network.connect(address());
    network.settle().unwrap();
    assert!(excess.is_ended() && reactor.counters().shed == 1);

    // It closes in order, and its peer has not ended: it lingers, until its descriptor is wanted.
    peer.write(b"close").unwrap();
    network.settle().unwrap();
    assert!(log.is_over() && network.open_sockets(&reactor) == 2);
    let connecting = connect();
    network.settle().unwrap();
    assert!(connecting.is_called());
    drop(connecting);
}

/// A port takes its descriptor from a connection that lingers.
#[test]
fn a_lingering_socket_gives_way_to_a_port() {
    let network = Network::new(1);
    let script = Script::new(&Log::default()).made(|transport| {
        transport.lose_connection();
        Ok(())
    });
    let (reactor, peer) = served(&network, script);
    let port = || reactor.listen_tcp(SocketAddr::new(SERVER, 8), &ListenOptions::new(), |_| Some(Echo));
    network.limit_descriptors(&reactor, Some(2));
    assert_eq!(network.open_sockets(&reactor), 2);
    let port = port().unwrap();
    assert_eq!(network.open_sockets(&reactor), 2);
    drop((port, peer));
}

/// Of several connections that linger, the oldest gives way first. One that has ended meanwhile
/// does not count.
#[test]
fn the_oldest_lingering_socket_gives_way_first() {
    let network = Network::new(1);
    let reactor = network.reactor(SERVER);
    let factory = |_| {
        Some(Script::new(&Log::default()).made(|transport| {
            transport.write(b"bye");
            transport.lose_connection();
            Ok(())
        }))
    };
    drop(reactor.listen_tcp(address(), &ListenOptions::new(), factory).unwrap());
    let peers = [(); 4].map(|()| {
        let peer = network.connect(address());
        network.settle().unwrap();
        assert_eq!(peer.read(), b"bye");
        peer
    });
    assert_eq!(network.open_sockets(&reactor), 5);
    network.limit_descriptors(&reactor, Some(4));
    let [first, second, third, fourth] = peers;
    // It ends in order, and no longer lingers.
    first.close();
    network.settle().unwrap();
    let lingers = |peer: &Peer| peer.write(b"more").is_ok() && !peer.is_reset();
    let mut ports = Vec::new();
    for (port, expected) in [(8, [false, true, true]), (9, [false, false, true]), (10, [false; 3])] {
        let at = SocketAddr::new(SERVER, port);
        ports.push(reactor.listen_tcp(at, &ListenOptions::new(), |_| Some(Echo)).unwrap());
        for peer in [&second, &third, &fourth] {
            let _ = peer.write(b"more");
        }
        network.settle().unwrap();
        assert_eq!([&second, &third, &fourth].map(&lingers), expected, "{port}");
    }
}

/// A port that sheds connections says so once a second at most, and then how many.
#[test]
fn sheds_of_a_port_are_logged_once_a_second() {
    let network = Network::with_conditions(1, Conditions::ideal());
    let reactor = network.reactor(SERVER);
    drop(reactor.listen_tcp(address(), &ListenOptions::new(), |_| Some(Echo)).unwrap());
    network.limit_descriptors(&reactor, Some(1));
    let mut told = Vec::new();
    // The times between them in milliseconds. With the last moment of a second it may be said
    // again.
    for pause in [0, 0, 400, 599, 1, 0, 999, 1, 5_000] {
        network.run_for(Duration::from_millis(pause)).unwrap();
        let (peer, lines) = logged(|| {
            let peer = network.connect(address());
            network.settle().unwrap();
            peer
        });
        assert!(peer.is_ended());
        told.push(lines.iter().map(|line| number(line, "shed=")).collect::<Vec<_>>());
    }
    assert_eq!(told, [vec![1], vec![], vec![], vec![], vec![4], vec![], vec![], vec![3], vec![1]]);
    assert_eq!(reactor.counters().shed, 9);
}

/// A port without descriptors, one in reserve included, fails to accept, and says how often.
#[test]
fn failures_to_accept_are_logged() {
    let mut told = 0;
    for seed in 0..10 {
        // Half of the shortages are failures to accept here.
        let network = Network::with_conditions(seed, Conditions::ideal().misbehaviour(0, 0, 1, 0));
        let reactor = network.reactor(SERVER);
        drop(reactor.listen_tcp(address(), &ListenOptions::new(), |_| Some(Echo)).unwrap());
        network.limit_descriptors(&reactor, Some(1));
        let peer = network.connect(address());
        let ((), lines) = logged(|| network.run_for(SECOND).unwrap());
        assert!(peer.is_ended(), "seed {seed}");
        let first = lines.first().map(|line| (number(line, "shed="), number(line, "failures=")));
        let is_failure = reactor.counters().accept_failures > 0;
        assert_eq!(first, Some(if is_failure { (0, 1) } else { (1, 0) }), "seed {seed}");
        told += u32::from(is_failure);
    }
    assert!((1..10).contains(&told), "{told} of 10");
}

/// The number behind `name` in a line of the log.
fn number(line: &str, name: &str) -> u64 {
    line.split_whitespace().find_map(|field| field.strip_prefix(name)).unwrap().parse().unwrap()
}
