//! A forwarding port with TLS: the target is reached for clients whose handshake is complete.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::common::certificates::Authority;
use crate::common::tls::Seen;
use crate::common::*;
use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint, wrap_client_tls, wrap_server_tls};
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::protocols::{ForwardCounters, ForwardFactory};
use ropewalk::testing::Network;
use ropewalk::tls::ClientTls;
use ropewalk::{ListenOptions, Reactor};

const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 80);

/// A port that ends TLS and forwards, on a network with its target and a client.
struct Scene {
    network: Network,
    client: Reactor,
    counters: ForwardCounters,
    /// The callbacks of the target's connections.
    target: Log,
    _reactors: [Reactor; 2],
}

impl Scene {
    fn new(authority: &Authority) -> Self {
        let (network, target) = (Network::new(1), Log::default());
        let [proxy, behind] = [PROXY, TARGET].map(|at| network.reactor(at.ip()));
        let log = target.clone();
        let factory = move |_| {
            Some(Script::new(&log).data(|transport, data| {
                transport.write(&data.to_ascii_uppercase());
                transport.lose_connection();
                Ok(())
            }))
        };
        behind.listen_tcp(TARGET, &ListenOptions::new(), factory).unwrap();
        let factory = ForwardFactory::new(TcpClientEndpoint::new(&proxy, TARGET));
        let counters = factory.counters();
        let endpoint = wrap_server_tls(authority.server(&["localhost"]), TcpServerEndpoint::bind_to(&proxy, PROXY));
        endpoint.listen(factory).or_log("listening");
        let client = network.reactor(Ipv4Addr::new(10, 0, 0, 3).into());
        Self { network, client, counters, target, _reactors: [proxy, behind] }
    }

    /// Connects over TLS, and sends a word.
    fn connect(&self, tls: ClientTls) -> Seen {
        let seen = Seen::default();
        let script = seen.script().made(|transport| {
            transport.write(b"hello");
            Ok(())
        });
        wrap_client_tls(tls, TcpClientEndpoint::new(&self.client, PROXY)).connect(once(script)).or_log("connecting");
        self.network.settle().unwrap();
        seen
    }
}

/// Bytes that are no handshake, and a handshake that the client gives up, do not reach the target.
#[test]
fn a_client_without_a_handshake_does_not_reach_the_target() {
    let (authority, other) = (Authority::new(), Authority::new());
    let scene = Scene::new(&authority);
    let plain = scene.network.connect(PROXY);
    scene.network.settle().unwrap();
    plain.write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    scene.network.settle().unwrap();
    assert!(plain.is_ended());
    let seen = scene.connect(other.client("localhost"));
    assert!(seen.error().contains("authority") || seen.error().contains("issuer"), "{}", seen.error());
    assert_eq!(scene.target.all(), Vec::<String>::new());
    let counters = &scene.counters;
    assert_eq!((counters.accepted(), counters.open(), counters.failed()), (2, 0, 0));
}

/// A client that completes its handshake reaches the target once. Bytes that it sent meanwhile
/// arrive, and so do the answer and the ends.
#[test]
fn a_handshake_reaches_the_target() {
    let authority = Authority::new();
    let scene = Scene::new(&authority);
    let seen = scene.connect(authority.client("localhost"));
    assert_eq!((seen.text().as_str(), scene.target.count("made")), ("HELLO", 1));
    assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)), "{}", seen.reason());
    let counters = &scene.counters;
    assert_eq!((counters.open(), counters.sent_bytes(), counters.returned_bytes()), (0, 5, 5));
}
