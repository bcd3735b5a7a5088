//! Endpoints behind a proxy: the protocol is built behind the header, and the header's addresses
//! are its connection's.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::endpoints::{
    DescriptionError, DescriptionErrorKind, HaproxyClientEndpoint, HaproxyServerEndpoint, TcpClientEndpoint,
    TcpServerEndpoint, client_from_string, server_from_string,
};
use ropewalk::haproxy::{ProxyHeader, ProxyVersion};
use ropewalk::interfaces::*;
use ropewalk::testing::{Accumulated, AccumulatingProtocol, Conditions, MemoryReactor, Network, Witness};
use ropewalk::{Address, Reactor, Transport};

/// A connection as its factory and its protocol have seen it.
#[derive(Clone)]
struct Seen {
    /// The peer's address, as the factory was told.
    built_for: Address,
    record: Accumulated,
}

impl Seen {
    fn peer(&self) -> Address {
        self.transport().peer()
    }

    fn host(&self) -> Address {
        self.transport().host()
    }

    fn transport(&self) -> Transport {
        self.record.transport().expect("the connection is made")
    }
}

/// A factory of protocols that record, and the list of its connections.
fn recording() -> (impl Factory, Rc<RefCell<Vec<Seen>>>) {
    let list = Rc::<RefCell<Vec<Seen>>>::default();
    let built = Rc::clone(&list);
    let factory = move |peer: Address| {
        let protocol = AccumulatingProtocol::new().with_half_close();
        built.borrow_mut().push(Seen { built_for: peer, record: protocol.record() });
        protocol
    };
    (factory, list)
}

/// A reactor that listens behind a proxy, and the list of its connections.
fn behind_a_proxy(
    change: impl FnOnce(HaproxyServerEndpoint<TcpServerEndpoint>) -> HaproxyServerEndpoint<TcpServerEndpoint>,
) -> (MemoryReactor, Rc<RefCell<Vec<Seen>>>) {
    let memory = MemoryReactor::new();
    let (factory, list) = recording();
    let endpoint = TcpServerEndpoint::bind_to(memory.reactor(), SocketAddr::new(MemoryReactor::HOST, 80));
    drop(change(HaproxyServerEndpoint::new(endpoint)).listen(factory));
    memory.settle().unwrap();
    (memory, list)
}

/// The same by a description, behind as many proxies as there are `headers`.
fn behind_proxies(headers: usize, options: &str) -> (MemoryReactor, Rc<RefCell<Vec<Seen>>>) {
    let memory = MemoryReactor::new();
    let (factory, list) = recording();
    let description = format!("{}tcp:80:{}{options}", "haproxy:".repeat(headers), MemoryReactor::HOST);
    drop(server_from_string(memory.reactor(), &description).unwrap().listen(factory));
    memory.settle().unwrap();
    (memory, list)
}

fn inet(text: &str) -> Address {
    text.parse::<SocketAddr>().unwrap().into()
}

fn header() -> ProxyHeader {
    ProxyHeader::proxied(inet("198.51.100.7:49152"), inet("203.0.113.1:443"))
}

/// F62: the header may be cut anywhere. The protocol is built once it is complete, with its
/// addresses, and gets the bytes behind it, in order. The peer's end comes behind them.
#[test]
fn each_cut_of_a_header_and_of_the_bytes_behind_it() {
    let line = header().version(ProxyVersion::V1).encode();
    for front in [line, header().encode()] {
        let input = [&front[..], b"hello"].concat();
        let halves = (0..input.len()).map(|place| vec![&input[..place], &input[place..]]);
        for chunks in halves.chain([input.chunks(1).collect()]) {
            let (memory, list) = behind_a_proxy(|endpoint| endpoint);
            let peer = memory.connect(80).unwrap();
            let mut sent = 0;
            for chunk in chunks {
                assert_eq!(list.borrow().len(), usize::from(sent >= front.len()), "after {sent} bytes");
                peer.write(chunk).unwrap();
                memory.settle().unwrap();
                sent += chunk.len();
            }
            peer.shut_down().unwrap();
            memory.settle().unwrap();
            let [seen] = &list.borrow()[..] else { panic!("one protocol is built") };
            assert_eq!((&seen.built_for, seen.peer()), (&inet("198.51.100.7:49152"), inet("198.51.100.7:49152")));
            assert_eq!((seen.host(), seen.record.data()), (inet("203.0.113.1:443"), b"hello".to_vec()));
            assert!(seen.record.is_read_lost() && !seen.record.is_lost());
            seen.transport().write(b"bye");
            seen.transport().lose_connection();
            memory.settle().unwrap();
            assert_eq!((peer.read(), peer.is_ended(), seen.record.is_lost()), (b"bye".to_vec(), true, true));
        }
    }
}

/// A header without addresses leaves those of the connection. The header itself can be had.
#[test]
fn headers_without_addresses() {
    for header in [ProxyHeader::local(), ProxyHeader::unknown(), ProxyHeader::unknown().version(ProxyVersion::V1)] {
        let (memory, list) = behind_a_proxy(|endpoint| endpoint);
        memory.connect(80).unwrap().write(&header.encode()).unwrap();
        memory.settle().unwrap();
        let seen = list.borrow()[0].clone();
        assert_eq!(seen.host(), Address::from(SocketAddr::new(MemoryReactor::HOST, 80)));
        assert_eq!((seen.built_for.clone(), seen.transport().proxy_header()), (seen.peer(), Some(&header)));
    }
    let (memory, list) = behind_a_proxy(|endpoint| endpoint);
    let valued = header().with_value(2, b"example.org").unwrap();
    memory.connect(80).unwrap().write(&valued.encode()).unwrap();
    memory.settle().unwrap();
    assert_eq!(list.borrow()[0].transport().proxy_header(), Some(&valued));
}

/// UNIX sockets behind a proxy that is reached over TCP.
#[test]
fn addresses_of_unix_sockets() {
    let (memory, list) = behind_a_proxy(|endpoint| endpoint);
    let (client, server) = (UnixAddress::unnamed(), UnixAddress::path("/run/http").unwrap());
    let header = ProxyHeader::proxied(client.clone().into(), server.clone().into());
    memory.connect(80).unwrap().write(&header.encode()).unwrap();
    memory.settle().unwrap();
    let seen = list.borrow()[0].clone();
    assert_eq!((seen.built_for.clone(), seen.host()), (client.into(), server.into()));
}

/// A7: a connection without a good header is closed, and no protocol is built. One that ends in the
/// middle is closed too, and so is one that sends nothing.
#[test]
fn bad_headers_build_nothing() {
    let inputs: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 banana 192.0.2.2 1 2\r\nhello",
        &[b'P'; 70_000],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"PROXY TCP4 192.0",
        b"",
    ];
    for input in inputs {
        let (memory, list) = behind_a_proxy(|endpoint| endpoint);
        let peer = memory.connect(80).unwrap();
        let mut rest = input;
        while let Ok(count @ 1..) = peer.write(rest) {
            rest = &rest[count..];
            memory.settle().unwrap();
        }
        if input.len() < 17 && !input.starts_with(b"GET") && !input.starts_with(b"\r") {
            assert!(!peer.is_ended(), "{}", input.escape_ascii());
            peer.shut_down().unwrap();
            memory.settle().unwrap();
        }
        assert!(peer.is_ended() || peer.is_reset(), "{}", input.escape_ascii());
        assert!(list.borrow().is_empty() && peer.read().is_empty(), "{}", input.escape_ascii());
        memory.advance(Duration::from_secs(60)).unwrap();
        assert_eq!(memory.network().open_sockets(memory.reactor()), 1, "only the port is left");
    }
}

/// The header has a time limit from the beginning on, which slow bytes do not move. A connection
/// whose header came in time stays open.
#[test]
fn a_header_has_a_time_limit() {
    let second = Duration::from_secs(1);
    for (limit, seconds) in [(None, 10), (Some(3 * second), 3)] {
        let (memory, list) = behind_a_proxy(|endpoint| match limit {
            Some(limit) => endpoint.header_timeout(Some(limit)),
            None => endpoint,
        });
        let (slow, fast) = (memory.connect(80).unwrap(), memory.connect(80).unwrap());
        let bytes = header().version(ProxyVersion::V1).encode();
        for byte in 0..seconds - 1 {
            slow.write(&bytes[byte..=byte]).unwrap();
            memory.advance(second).unwrap();
        }
        fast.write(&bytes).unwrap();
        memory.advance(second - Duration::from_millis(1)).unwrap();
        assert!(!slow.is_ended());
        memory.advance(Duration::from_millis(1)).unwrap();
        assert!(slow.is_ended());
        memory.advance(Duration::from_secs(3600)).unwrap();
        assert!(!fast.is_ended() && list.borrow().len() == 1);
    }
    let (memory, list) = behind_a_proxy(|endpoint| endpoint.header_timeout(None));
    let peer = memory.connect(80).unwrap();
    memory.advance(Duration::from_secs(86_400)).unwrap();
    peer.write(&header().encode()).unwrap();
    memory.settle().unwrap();
    assert_eq!(list.borrow().len(), 1);
}

/// A longest header can be set.
#[test]
fn a_header_has_a_limit() {
    let (memory, list) = behind_a_proxy(|endpoint| endpoint.max_header_bytes(28));
    memory.connect(80).unwrap().write(&header().encode()).unwrap();
    let long = memory.connect(80).unwrap();
    long.write(&header().with_value(4, b"").unwrap().encode()).unwrap();
    memory.settle().unwrap();
    assert!(list.borrow().len() == 1 && long.is_ended());
}

/// A peer that is not a trusted proxy is refused before it sends anything.
#[test]
fn only_trusted_proxies() {
    for (is_trusted, count) in [(true, 1), (false, 0)] {
        let (memory, list) = behind_a_proxy(|endpoint| endpoint.trust(move |_| is_trusted));
        let peer = memory.connect(80).unwrap();
        assert_eq!(peer.is_ended() || peer.is_reset(), !is_trusted);
        if is_trusted {
            peer.write(&header().encode()).unwrap();
        }
        memory.settle().unwrap();
        assert_eq!(list.borrow().len(), count);
    }
    // A check that panics refuses, too.
    let (memory, list) = behind_a_proxy(|endpoint| endpoint.trust(|_| panic!("as ordered")));
    let peer = memory.connect(80).unwrap();
    assert!((peer.is_ended() || peer.is_reset()) && list.borrow().is_empty());
}

/// A pause, a close or a failure in the first callback holds for the bytes behind the header, even
/// if they came with it. A factory may refuse.
#[test]
fn the_first_callback_counts() {
    let input = [&header().encode()[..], b"hello"].concat();
    let serve = |factory: Box<dyn Factory<Protocol = Script>>| {
        let memory = MemoryReactor::new();
        let endpoint = TcpServerEndpoint::bind_to(memory.reactor(), SocketAddr::new(MemoryReactor::HOST, 80));
        drop(HaproxyServerEndpoint::new(endpoint).listen(factory));
        memory.settle().unwrap();
        let peer = memory.connect(80).unwrap();
        peer.write(&input).unwrap();
        memory.settle().unwrap();
        (memory, peer)
    };
    let (log, received) = (Log::default(), Rc::<RefCell<Vec<u8>>>::default());
    let paused = Rc::<RefCell<Option<Transport>>>::default();
    let place = Rc::clone(&paused);
    let script = Script::new(&log).into_buffer(&received).made(move |transport| {
        transport.pause_producing();
        place.replace(Some(transport.clone()));
        Ok(())
    });
    let (memory, peer) = serve(Box::new(once(script)));
    assert!(received.borrow().is_empty());
    paused.borrow().as_ref().expect("it is made").resume_producing();
    memory.settle().unwrap();
    assert_eq!(*received.borrow(), b"hello");
    drop(peer);

    for fails in [false, true] {
        let (log, received) = (Log::default(), Rc::<RefCell<Vec<u8>>>::default());
        let script = Script::new(&log).into_buffer(&received).made(move |transport| {
            transport.write(b"no");
            transport.lose_connection();
            if fails { Err("as ordered".into()) } else { Ok(()) }
        });
        let (_memory, peer) = serve(Box::new(once(script)));
        assert!(log.is_over() && received.borrow().is_empty() && peer.read() == b"no" && peer.is_ended());
    }
    let (_memory, peer) = serve(Box::new(|_| None::<Script>));
    assert!(peer.is_ended() || peer.is_reset());
    let (_memory, peer) = serve(Box::new(|_: Address| -> Option<Script> { panic!("as ordered") }));
    assert!(peer.is_ended() || peer.is_reset());
}

/// A reactor that stops closes connections that wait for their header, and stops the factory once.
#[test]
fn a_stop_before_the_header() {
    let memory = MemoryReactor::new();
    let log = Log::default();
    let endpoint = TcpServerEndpoint::bind_to(memory.reactor(), SocketAddr::new(MemoryReactor::HOST, 80));
    drop(HaproxyServerEndpoint::new(endpoint).listen(Watched::new(&log, scripts(&log))));
    memory.settle().unwrap();
    let peer = memory.connect(80).unwrap();
    peer.write(b"PROXY").unwrap();
    memory.settle().unwrap();
    memory.reactor().stop().unwrap();
    memory.settle().unwrap();
    assert!(peer.is_ended() || peer.is_reset());
    assert_eq!((log.count("start"), log.count("stop"), log.count("made")), (1, 1, 0));
}

/// A port that stops serves the connections that wait for their header, and its factory stops after
/// the last of them. One that never sends its header holds it no longer than the time limit.
#[test]
fn a_port_that_stops_before_the_header() {
    for completes in [true, false] {
        let memory = MemoryReactor::new();
        let (log, witness) = (Log::default(), Witness::new());
        let endpoint = TcpServerEndpoint::bind_to(memory.reactor(), SocketAddr::new(MemoryReactor::HOST, 80));
        let factory = witness.factory(Watched::new(&log, scripts(&log)));
        let mut listening = HaproxyServerEndpoint::new(endpoint).listen(factory);
        let port = listening.take_result().expect("it listens at once").unwrap();
        memory.settle().unwrap();
        let (first, second) = (memory.connect(80).unwrap(), memory.connect(80).unwrap());
        drop(port.stop_listening());
        memory.settle().unwrap();
        assert_eq!((log.count("start"), log.count("stop")), (1, 0));
        first.write(&header().encode()).unwrap();
        memory.settle().unwrap();
        assert_eq!((witness.made(), log.count("stop")), (1, 0));
        if completes {
            second.write(&header().encode()).unwrap();
            memory.settle().unwrap();
        } else {
            memory.advance(Duration::from_secs(10)).unwrap();
            assert!(second.is_ended());
        }
        assert_eq!((witness.made(), log.count("stop")), (1 + usize::from(completes), 1));
        first.close();
        second.close();
        memory.settle().unwrap();
        witness.assert_all_lost();
        assert_eq!((log.count("start"), log.count("stop")), (1, 1));
    }
}

/// A traffic log and a rate of the port do not disturb the reading of a header.
#[test]
fn a_header_on_a_port_with_policies() {
    let (memory, list) = behind_proxies(1, ":trafficLog=text:rate=100000");
    let input = [header().encode(), b"hello".to_vec()].concat();
    for chunks in [vec![&input[..]], input.chunks(1).collect()] {
        let peer = memory.connect(80).unwrap();
        for chunk in chunks {
            peer.write(chunk).unwrap();
            memory.settle().unwrap();
        }
        let seen = list.borrow_mut().pop().expect("a protocol is built");
        assert_eq!(seen.record.data(), b"hello");
    }
}

/// The policies of a port hold for a connection whose protocol is built behind a header, or behind
/// two: limits of time, and rates in both directions.
#[test]
fn policies_hold_behind_a_header() {
    for headers in [1, 2] {
        let connect = |options: &str| {
            let (memory, list) = behind_proxies(headers, &format!(":{options}"));
            let peer = memory.connect(80).unwrap();
            peer.write(&header().encode().repeat(headers)).unwrap();
            memory.settle().unwrap();
            (memory, peer, list)
        };
        for (options, seconds) in [("idleTimeout", 60), ("receiveTimeout", 50), ("firstBytes", 5), ("lifetime", 3600)] {
            let (memory, peer, list) = connect(&format!("{options}={seconds}"));
            // A limit that the bytes of the protocol move begins with them.
            if options != "firstBytes" {
                memory.advance(Duration::from_secs(1)).unwrap();
                peer.write(b"hello").unwrap();
                memory.settle().unwrap();
            }
            let left = Duration::from_secs(if options == "lifetime" { seconds - 1 } else { seconds });
            memory.advance(left - Duration::from_millis(1)).unwrap();
            assert!(!peer.is_ended(), "{options} with {headers} headers");
            memory.advance(Duration::from_millis(1)).unwrap();
            assert!(peer.is_ended(), "{options} with {headers} headers");
            let reason = list.borrow()[0].record.reason().expect("it is lost");
            assert!(reason.to_string().contains(&format!("{seconds}s")), "{reason}");
        }
        // The header alone is over the rate: receiving is paused when the protocol is built.
        let (memory, peer, list) = connect("rate=10");
        peer.write(b"hello").unwrap();
        memory.settle().unwrap();
        let transport = list.borrow()[0].transport();
        transport.write(&[b'x'; 100]);
        memory.settle().unwrap();
        assert_eq!(list.borrow()[0].record.data(), b"");
        memory.advance(Duration::from_secs(60)).unwrap();
        assert_eq!(list.borrow()[0].record.data(), b"hello");
        assert_eq!(peer.read().len(), 100);
    }
}

/// Headers of a chain of proxies: the first on the wire is the nearest proxy's, and the last one
/// has the client.
#[test]
fn a_header_behind_a_header() {
    let (memory, list) = behind_proxies(2, "");
    let near = ProxyHeader::proxied(inet("192.0.2.10:1"), inet("192.0.2.11:2")).version(ProxyVersion::V1);
    let input = [near.encode(), header().encode(), b"hello".to_vec()].concat();
    for chunks in [vec![&input[..]], input.chunks(1).collect()] {
        let peer = memory.connect(80).unwrap();
        for chunk in chunks {
            peer.write(chunk).unwrap();
            memory.settle().unwrap();
        }
        let seen = list.borrow_mut().pop().expect("a protocol is built");
        assert_eq!((seen.peer(), seen.host()), (inet("198.51.100.7:49152"), inet("203.0.113.1:443")));
        assert_eq!(seen.record.data(), b"hello");
        let gone = memory.connect(80).unwrap();
        gone.write(&near.encode()).unwrap();
        memory.advance(Duration::from_secs(10)).unwrap();
        assert!(gone.is_ended() && list.borrow().is_empty());
    }
}

/// The places of errors are those of the whole description.
#[test]
fn descriptions() {
    let reactor = reactor();
    for good in ["haproxy:tcp:0", "HAProxy:headerTimeout=0.5:tcp:0:interface=127.0.0.1", "haproxy:haproxy:tcp:port=0"] {
        server_from_string(&reactor, good).expect(good);
    }
    for good in ["haproxy:tcp:localhost:80", "haproxy:version=1:unix:/run/socket", "haproxy:version=2:tcp:[::1]:80"] {
        client_from_string(&reactor, good).expect(good);
    }
    let server = |text: &str| server_from_string(&reactor, text).map(drop);
    let client = |text: &str| client_from_string(&reactor, text).map(drop);
    let is = |result: Result<(), DescriptionError>, position: usize, text: &str| {
        let error = result.expect_err("it is wrong");
        assert!(error.position() == position && error.to_string().contains(text), "{error}");
    };
    is(server("haproxy"), 7, "endpoint is missing");
    is(server("haproxy:"), 8, "there is no type");
    is(server("haproxy:headerTimeout=5"), 23, "endpoint is missing");
    is(server("haproxy:headerTimeout=-5:tcp:80"), 22, "seconds");
    is(server("haproxy:tcp:http"), 12, "port");
    is(server("haproxy:haproxy:tcp:http"), 20, "port");
    is(server("haproxy:version=1:tcp:80"), 8, "\"version\" is not an argument");
    is(server("timeout=5:haproxy:tcp:80"), 0, "\"timeout\" is not an argument");
    is(server(r"haproxy:tcp\:80"), 8, "is not a type of endpoint");
    is(client("haproxy:version=3:tcp:localhost:80"), 16, "1 or 2");
    is(client("haproxy:tcp6:80"), 8, "is not a type of endpoint");
    let many = "haproxy:".repeat(100_000) + "tcp:80";
    let error = server_from_string(&reactor, &many).expect_err("it is too deep");
    assert!(matches!(error.kind(), DescriptionErrorKind::Unusable { .. }), "{:?}", error.kind());
}

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

/// Sends `hello` from a client to a server, which answers with it. Both are of any endpoints.
fn meet(
    network: &Network,
    server: impl FnOnce(&Reactor) -> Box<dyn ServerEndpoint>,
    client: impl FnOnce(&Reactor) -> Box<dyn ClientEndpoint>,
) -> Vec<(Address, Address)> {
    let (serving, asking) = (network.reactor(SERVER), network.reactor(CLIENT));
    let (witness, addresses) = (Witness::new(), Rc::<RefCell<Vec<(Address, Address)>>>::default());
    let (log, seen) = (Log::default(), Rc::clone(&addresses));
    let factory = {
        let log = log.clone();
        move |peer: Address| {
            let seen = Rc::clone(&seen);
            let script = Script::new(&log).made(move |transport| {
                assert_eq!(transport.peer(), peer);
                seen.borrow_mut().push((transport.peer(), transport.host()));
                Ok(())
            });
            script.data(|transport, data| {
                transport.write(data);
                Ok(())
            })
        }
    };
    drop(server(&serving).listen(witness.factory(factory)));
    let (answered, received) = (Log::default(), Rc::<RefCell<Vec<u8>>>::default());
    let asks = Script::new(&answered).into_buffer(&received).made(|transport| {
        transport.write(b"hello");
        Ok(())
    });
    drop(client(&asking).connect(once(asks)).add_both(|_| ()));
    network.run_until(Duration::from_secs(3600), || received.borrow().len() == 5 || answered.is_over()).unwrap();
    if *received.borrow() != b"hello" {
        // A rough network may break the connection, and then nothing is compared.
        return Vec::new();
    }
    drop((serving.stop(), asking.stop()));
    network.run_for(Duration::from_secs(3600)).unwrap();
    witness.assert_all_lost();
    addresses.take()
}

/// A client's endpoint sends the header that a server's endpoint reads, on rough networks, plain
/// and in front of TLS. Each wrapper may be the outer one.
#[test]
fn a_client_and_a_server() {
    let (mut met, count) = (0, seeds(40, 1_000) as usize);
    let at = SocketAddr::new(SERVER, 80);
    for seed in 0..count as u64 {
        let network =
            Network::with_conditions(seed, if seed == 0 { Conditions::ideal() } else { Conditions::rough(seed) });
        let front = if seed % 2 == 0 { header() } else { header().version(ProxyVersion::V1) };
        let addresses = meet(
            &network,
            |reactor| Box::new(HaproxyServerEndpoint::new(TcpServerEndpoint::bind_to(reactor, at))),
            |reactor| Box::new(HaproxyClientEndpoint::new(TcpClientEndpoint::new(reactor, at)).header(front)),
        );
        met += addresses.len();
        assert!(addresses.iter().all(|ends| *ends == (inet("198.51.100.7:49152"), inet("203.0.113.1:443"))), "{seed}");
    }
    assert!(met > count / 2, "{met} of {count} connections came about");
}

/// Without a header of its own, a client sends the addresses of its connection.
#[test]
fn a_client_for_itself() {
    for description in ["haproxy:tcp:10.0.0.1:80", "haproxy:version=1:tcp:10.0.0.1:80"] {
        let addresses = meet(
            &Network::new(1),
            |reactor| server_from_string(reactor, "haproxy:tcp:80:10.0.0.1").unwrap(),
            |reactor| client_from_string(reactor, description).unwrap(),
        );
        assert_eq!(addresses.len(), 1);
        assert_eq!((addresses[0].0.ip(), &addresses[0].1), (Some(CLIENT), &inet("10.0.0.1:80")));
    }
}

#[cfg(feature = "tls")]
mod with_tls {
    use super::*;
    use crate::common::tls::usual;
    use ropewalk::endpoints::{wrap_client_tls, wrap_server_tls};

    /// The header is the first thing on the wire, before the handshake, whichever endpoint wraps
    /// the other one.
    #[test]
    fn the_header_comes_before_the_handshake() {
        let ((_, client, server), at) = (usual(), SocketAddr::new(SERVER, 443));
        let (mut met, count) = (0, seeds(24, 300) as usize);
        for seed in 0..count as u64 {
            let network =
                Network::with_conditions(seed, if seed < 4 { Conditions::ideal() } else { Conditions::rough(seed) });
            let (client, server) = (client.clone(), server.clone());
            let addresses = meet(
                &network,
                |reactor| {
                    let tcp = TcpServerEndpoint::bind_to(reactor, at);
                    match seed % 2 {
                        0 => Box::new(HaproxyServerEndpoint::new(wrap_server_tls(server, tcp))),
                        _ => Box::new(wrap_server_tls(server, HaproxyServerEndpoint::new(tcp))),
                    }
                },
                |reactor| {
                    let tcp = TcpClientEndpoint::new(reactor, at);
                    match seed / 2 % 2 {
                        0 => Box::new(HaproxyClientEndpoint::new(wrap_client_tls(client, tcp)).header(header())),
                        _ => Box::new(wrap_client_tls(client, HaproxyClientEndpoint::new(tcp).header(header()))),
                    }
                },
            );
            met += addresses.len();
            let expected = (inet("198.51.100.7:49152"), inet("203.0.113.1:443"));
            assert!(addresses.iter().all(|ends| *ends == expected), "{seed}");
        }
        assert!(met > count / 2, "{met} of {count} connections came about");
    }
}

/// A descriptor that is sent with bytes behind the header is the protocol's. One that is sent with
/// the header is closed.
#[test]
fn descriptors_behind_a_header() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::os::fd::AsFd;
    own_process!();
    let reactor = reactor();
    let name = format!("ropewalk-haproxy-{}", std::process::id());
    let address = UnixAddress::abstract_name(&name).unwrap();
    let came = Rc::<RefCell<Vec<String>>>::default();

    struct Collector(Rc<RefCell<Vec<String>>>);
    impl Protocol for Collector {
        fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
            self.0.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
            Ok(())
        }
        fn file_descriptor_received(&mut self, _: &Transport, _: std::os::fd::OwnedFd) -> ropewalk::Result<()> {
            self.0.borrow_mut().push("a descriptor".to_owned());
            Ok(())
        }
    }

    let place = Rc::clone(&came);
    let endpoint = ropewalk::endpoints::UnixServerEndpoint::new(&reactor, address);
    let listening = HaproxyServerEndpoint::new(endpoint).listen(move |_| Collector(Rc::clone(&place)));
    result_of(&reactor, listening).unwrap();
    let path =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
    let stream = std::os::unix::net::UnixStream::connect_addr(&path).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let send = |bytes: &[u8]| {
        let descriptors = [pipe.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = rustix::net::sendmsg(&stream, &[std::io::IoSlice::new(bytes)], &mut ancillary, SendFlags::empty());
        assert_eq!(sent, Ok(bytes.len()));
    };
    let line = header().version(ProxyVersion::V1).encode();
    send(&line[..7]);
    settle(&reactor);
    std::io::Write::write_all(&mut &stream, &line[7..]).unwrap();
    send(b"one");
    run_until(&reactor, || came.borrow().concat().contains("one"));
    send(b"two");
    run_until(&reactor, || came.borrow().concat().contains("two"));
    assert_eq!(*came.borrow(), ["a descriptor", "one", "a descriptor", "two"]);
}
