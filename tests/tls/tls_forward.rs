//! A forwarding port with TLS: the target is reached for clients whose handshake is complete.

use std::net::SocketAddr;

use crate::common::certificates::Authority;
use crate::common::tls::Seen;
use crate::common::*;
use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint, wrap_client_tls, wrap_server_tls};
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::protocols::{ForwardCounters, ForwardFactory};
use ropewalk::testing::Network;
use ropewalk::{Address, Reactor};

const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 443);
const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

/// A port that ends TLS and forwards, on a network where the test plays the target.
fn forwarding(authority: &Authority) -> (Network, Reactor, ForwardCounters) {
    let network = Network::new(1);
    network.answer_by_hand();
    let reactor = network.reactor(PROXY.ip());
    let target = TcpClientEndpoint::new(&reactor, SocketAddr::from(([10, 0, 0, 2], 80)));
    let factory = ForwardFactory::new(target);
    let counters = factory.counters();
    let endpoint = wrap_server_tls(authority.server(&["localhost"]), TcpServerEndpoint::bind_to(&reactor, PROXY));
    endpoint.listen(factory).or_log("listening");
    (network, reactor, counters)
}

/// Bytes that are no handshake, and a handshake that the client gives up, do not reach the target.
#[test]
fn a_client_without_a_handshake_does_not_reach_the_target() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (network, _reactor, counters) = forwarding(&authority);
    let plain = network.connect(PROXY);
    network.settle().unwrap();
    assert!(network.attempts().is_empty(), "the handshake has not begun");
    plain.write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    network.settle().unwrap();
    assert!(plain.is_ended());

    let client = network.reactor(CLIENT);
    let seen = Seen::default();
    let endpoint = wrap_client_tls(other.client("localhost"), TcpClientEndpoint::new(&client, PROXY));
    let connecting = endpoint.connect(once(seen.script()));
    network.settle().unwrap();
    assert!(seen.error().contains("authority") || seen.error().contains("issuer"), "{}", seen.error());
    assert!(network.attempts().is_empty());
    assert_eq!((counters.accepted(), counters.open(), counters.failed()), (2, 0, 0));
    drop(connecting);
}

/// A client that completes its handshake reaches the target once. Bytes that it sent meanwhile
/// arrive, and so do the answer and the ends.
#[test]
fn a_handshake_reaches_the_target() {
    let authority = Authority::new();
    let (network, _reactor, counters) = forwarding(&authority);
    let client = network.reactor(CLIENT);
    let seen = Seen::default();
    let script = seen.script().made(|transport| {
        transport.write(b"hello");
        Ok(())
    });
    let endpoint = wrap_client_tls(authority.client("localhost"), TcpClientEndpoint::new(&client, PROXY));
    let connecting = endpoint.connect(once(script));
    network.settle().unwrap();
    let mut attempts = network.attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!(*attempts[0].to(), Address::from(SocketAddr::from(([10, 0, 0, 2], 80))));
    let target = attempts.remove(0).accept().expect("the proxy waits for it");
    network.settle().unwrap();
    assert_eq!(target.read(), b"hello");
    target.write(b"good evening").unwrap();
    network.settle().unwrap();
    assert_eq!(seen.text(), "good evening");
    target.close();
    network.settle().unwrap();
    assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)), "{}", seen.reason());
    assert_eq!((counters.open(), counters.sent_bytes(), counters.returned_bytes()), (0, 5, 12));
    drop(connecting);
}
