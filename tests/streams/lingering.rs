//! The limits of lingering, on the simulated network: a socket whose protocol is gone reads on for
//! a peer that sends, but not for ever.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Log, Script, once};
use ropewalk::testing::{Conditions, Network, Peer};
use ropewalk::{ListenOptions, Reactor};

const MIB: usize = 1024 * 1024;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const WINDOW: usize = 64 * 1024;

/// The limits, and how long a peer has to be silent to be left before them.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 8 * MIB;
const QUIET_TIME: Duration = Duration::from_millis(250);

/// A network with a reactor whose one connection was lost while its peer keeps its own direction
/// open, and may be out of reach.
fn lingering(reachable: bool) -> (Network, Reactor, Peer) {
    let network = Network::with_conditions(1, Conditions::ideal().window(WINDOW));
    let reactor = network.reactor(SERVER);
    let (log, address) = (Log::default(), SocketAddr::new(SERVER, 7));
    let script = Script::new(&log);
    let transport = Rc::clone(&script.transport);
    let port = reactor.listen_tcp(address, &ListenOptions::new(), once(script)).unwrap();
    let peer = network.connect(address);
    network.settle().unwrap();
    drop(port.stop_listening());
    if !reachable {
        network.partition(SERVER, PEER);
    }
    let transport = transport.take().unwrap();
    transport.write(b"bye");
    transport.lose_connection();
    network.settle().unwrap();
    assert!(log.is_over());
    assert_eq!((peer.is_ended(), network.open_sockets(&reactor)), (reachable, 1), "it lingers");
    (network, reactor, peer)
}

/// A peer that sends without a pause is read from for 8 MiB, and no further.
#[test]
fn lingering_ends_after_so_many_bytes() {
    let (network, reactor, peer) = lingering(true);
    let mut sent = 0;
    while network.open_sockets(&reactor) == 1 && sent < 2 * LINGER_BYTES {
        sent += peer.write(&[7; WINDOW]).unwrap();
        network.settle().unwrap();
    }
    assert!((LINGER_BYTES..LINGER_BYTES + WINDOW).contains(&sent), "closed after {sent} bytes");
    assert!(network.now() < QUIET_TIME, "another limit has ended it");
}

/// A peer that trickles is read from for five seconds, and no longer, however little it sends.
#[test]
fn lingering_ends_after_so_much_time() {
    let (network, reactor, peer) = lingering(true);
    let began = network.now();
    while network.open_sockets(&reactor) == 1 && network.now() - began < 2 * LINGER_TIME {
        assert_eq!(peer.write(b".").unwrap(), 1);
        network.run_for(QUIET_TIME / 5).unwrap();
    }
    let lasted = network.now() - began;
    assert!((LINGER_TIME..LINGER_TIME + QUIET_TIME / 5).contains(&lasted), "closed after {lasted:?}");
}

/// A peer that has acknowledged everything is waited for as long as it was not silent, and 250 ms
/// more.
#[test]
fn lingering_ends_with_silence() {
    let (network, reactor, peer) = lingering(true);
    let began = network.now();
    assert_eq!(peer.write(b".").unwrap(), 1);
    network.run_for(QUIET_TIME).unwrap();
    assert_eq!(network.open_sockets(&reactor), 1, "the peer was heard");
    network.run_until(LINGER_TIME, || network.open_sockets(&reactor) == 0).unwrap();
    assert_eq!(network.now() - began, 2 * QUIET_TIME);
}

/// A peer that acknowledges nothing is waited for until the time is up, and not a moment longer.
#[test]
fn lingering_ends_without_an_acknowledgement() {
    let (network, reactor, _peer) = lingering(false);
    let began = network.now();
    network.run_until(2 * LINGER_TIME, || network.open_sockets(&reactor) == 0).unwrap();
    assert_eq!(network.now() - began, LINGER_TIME);
}

/// A program that makes no more turns ends lingering at once, and no timer of it is left.
#[test]
fn the_program_ends_lingering() {
    let (network, reactor, peer) = lingering(true);
    reactor.end_lingering();
    assert_eq!((network.open_sockets(&reactor), reactor.counters().watched), (0, 0));
    reactor.end_lingering();
    let before = network.now();
    network.settle().unwrap();
    assert_eq!(network.now(), before, "a timer is left");
    peer.write(b"late").unwrap();
    network.settle().unwrap();
    assert!(peer.is_reset());
}
