//! Forwarded connections: bytes and ends each way, slow readers, and connections that break or
//! can't be made. The test plays the client and the target.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::common::{repeated, seeds};
use ropewalk::endpoints::{ClientEndpoint, TcpClientEndpoint};
use ropewalk::error::ConnectError;
use ropewalk::protocols::{ForwardCounters, ForwardFactory, ForwardServer};
use ropewalk::testing::{Conditions, Network, Peer};
use ropewalk::{Connections, ListenOptions, Reactor};

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const HOUR: Duration = Duration::from_secs(3600);

/// A proxy on a network, and the connections that it has.
struct Proxy {
    network: Network,
    reactor: Reactor,
    connections: Connections<ForwardServer>,
    counters: ForwardCounters,
}

impl Proxy {
    fn new(network: Network) -> Self {
        Self::with(network, |factory| factory)
    }

    fn with(network: Network, change: impl FnOnce(ForwardFactory) -> ForwardFactory) -> Self {
        network.answer_by_hand();
        let reactor = network.reactor(PROXY);
        let endpoint = TcpClientEndpoint::new(&reactor, SocketAddr::new(TARGET, 7)).timeout(Duration::from_secs(20));
        Self::forwarding(network, reactor, change(ForwardFactory::new(endpoint)))
    }

    fn forwarding(network: Network, reactor: Reactor, factory: ForwardFactory) -> Self {
        let (connections, counters) = (Connections::new(), factory.counters());
        let factory = connections.track(factory);
        reactor.listen_tcp(SocketAddr::new(PROXY, 80), &ListenOptions::new(), factory).unwrap();
        Self { network, reactor, connections, counters }
    }

    fn settle(&self) {
        self.network.settle().unwrap();
    }

    /// A client that has reached the proxy.
    fn client(&self) -> Peer {
        let client = self.network.connect(SocketAddr::new(PROXY, 80));
        self.settle();
        client
    }

    /// Accepts the oldest attempt to reach the target.
    fn target(&self) -> Peer {
        self.settle();
        let target = self.network.attempts().remove(0).accept().expect("the proxy waits for it");
        self.settle();
        target
    }

    fn pair(&self) -> (Peer, Peer) {
        let client = self.client();
        (client, self.target())
    }

    /// Asserts that no connection is left.
    fn assert_done(&self) {
        self.network.run_for(HOUR).unwrap();
        assert_eq!(self.network.open_sockets(&self.reactor), 1, "only the port is left");
        assert_eq!((self.counters.open(), self.connections.len()), (0, 0));
    }
}

/// Bytes that differ from place to place.
fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    repeated((0..251).map(|at| ((at + seed) % 251) as u8), bytes)
}

/// Many bytes go through in both directions at once, cut anywhere, and each end comes behind all
/// bytes.
#[test]
fn bytes_and_ends_go_both_ways() {
    let mut complete = 0;
    let count = u64::from(seeds(10, 100));
    for seed in 0..count {
        let conditions = if seed < 2 { Conditions::ideal() } else { Conditions::rough(seed).window(4096) };
        let bytes = if seed < 2 { 1_000_000 } else { 10_000 };
        let proxy = Proxy::new(Network::with_conditions(seed, conditions));
        let client = proxy.client();
        // A rough network may have lost either connection.
        proxy.network.run_for(Duration::from_secs(5)).unwrap();
        let Some(attempt) = proxy.network.attempts().pop() else { continue };
        let Some(target) = attempt.accept() else { continue };
        let (request, answer) = (pattern(seed, bytes), pattern(seed + 100, bytes + 1));
        let (mut sent, mut answered, mut read, mut heard) = (0, 0, Vec::new(), Vec::new());
        let mut rounds = 0;
        while read.len() < request.len() || heard.len() < answer.len() {
            sent += client.write(&request[sent..]).unwrap_or(0);
            answered += target.write(&answer[answered..]).unwrap_or(0);
            proxy.network.run_for(Duration::from_millis(5)).unwrap();
            read.extend(target.read());
            heard.extend(client.read());
            rounds += 1;
            if client.is_reset() || target.is_reset() || rounds > 200_000 {
                break;
            }
        }
        assert!(request.starts_with(&read) && answer.starts_with(&heard), "seed {seed}");
        if client.is_reset() || target.is_reset() || rounds > 200_000 {
            continue;
        }
        complete += 1;
        assert_eq!((proxy.counters.sent_bytes(), proxy.counters.returned_bytes()), (bytes as u64, bytes as u64 + 1));
        client.shut_down().unwrap();
        proxy.network.run_for(Duration::from_secs(30)).unwrap();
        assert!(target.is_ended() && !client.is_ended(), "seed {seed}");
        target.shut_down().unwrap();
        proxy.network.run_for(Duration::from_secs(30)).unwrap();
        assert!(client.is_ended() && !client.is_reset() && !target.is_reset(), "seed {seed}");
        proxy.assert_done();
    }
    assert!(complete >= count / 2, "{complete} of {count} transfers were complete");
}

/// A side that reads nothing stops the other one: no more than the high mark and a chunk wait for
/// it, whatever is sent. When it reads, everything comes.
#[test]
fn a_slow_reader_stops_the_other_side() {
    const HIGH: usize = 20_000;
    for is_target_slow in [true, false] {
        let network = Network::with_conditions(1, Conditions::ideal().window(10_000));
        let proxy = Proxy::with(network, |factory| factory.write_marks(1_000, HIGH));
        let (client, target) = proxy.pair();
        let (fast, slow) = if is_target_slow { (&client, &target) } else { (&target, &client) };
        let data = pattern(3, 10_000_000);
        let (mut sent, mut idle) = (0, 0);
        while idle < 3 {
            let count = fast.write(&data[sent..]).unwrap();
            idle = if count == 0 { idle + 1 } else { 0 };
            sent += count;
            proxy.settle();
            let queued = proxy.connections.iter().next().expect("it is open").with(|server, inward| {
                server.outward().map_or(0, |outward| outward.queued_bytes()) + inward.queued_bytes()
            });
            assert!(queued.is_ok_and(|bytes| bytes <= HIGH + 64 * 1024), "{queued:?} are queued");
        }
        assert!(sent < HIGH + 2 * 64 * 1024 + 4 * 10_000, "{sent} bytes were taken");
        let mut read = Vec::new();
        while read.len() < data.len() {
            sent += fast.write(&data[sent..]).unwrap();
            proxy.settle();
            read.extend(slow.read());
        }
        assert!(read == data);
    }
}

/// An end of stream is passed on as one, in each order, and the other direction goes on.
#[test]
fn half_closes_are_passed_on() {
    for is_client_first in [true, false] {
        let proxy = Proxy::new(Network::new(1));
        let (client, target) = proxy.pair();
        let (first, second) = if is_client_first { (&client, &target) } else { (&target, &client) };
        first.write(b"request").unwrap();
        first.shut_down().unwrap();
        proxy.settle();
        assert_eq!((second.read(), second.is_ended()), (b"request".to_vec(), true));
        assert!(!first.is_ended());
        proxy.network.run_for(HOUR).unwrap();
        second.write(b"late answer").unwrap();
        proxy.settle();
        assert_eq!((first.read(), first.is_ended()), (b"late answer".to_vec(), false));
        second.shut_down().unwrap();
        proxy.settle();
        assert!(first.is_ended() && !first.is_reset() && !second.is_reset());
        proxy.assert_done();
    }
}

/// An end that comes while the other side is full is passed on behind all bytes.
#[test]
fn an_end_behind_many_bytes() {
    let proxy = Proxy::new(Network::with_conditions(1, Conditions::ideal().window(300_000)));
    let (client, target) = proxy.pair();
    let data = pattern(9, 250_000);
    assert_eq!(client.write(&data).unwrap(), data.len());
    client.shut_down().unwrap();
    proxy.settle();
    let mut read = Vec::new();
    while !target.is_ended() {
        read.extend(target.read());
        proxy.settle();
    }
    // The end has arrived behind the last bytes.
    read.extend(target.read());
    assert!(read == data);
    target.shut_down().unwrap();
    proxy.assert_done();
}

/// A reset is passed on as a reset, in both directions, and not as an end.
#[test]
fn a_reset_is_passed_on() {
    for is_client in [true, false] {
        let proxy = Proxy::new(Network::new(1));
        let (client, target) = proxy.pair();
        let (gone, left) = if is_client { (client, target) } else { (target, client) };
        gone.write(b"half of a").unwrap();
        proxy.settle();
        gone.abort();
        proxy.settle();
        assert!(left.is_reset() && !left.is_ended());
        proxy.assert_done();
    }
}

/// A reset after a half-close is passed on as a reset, too.
#[test]
fn a_reset_after_a_half_close() {
    let proxy = Proxy::new(Network::new(1));
    let (client, target) = proxy.pair();
    client.shut_down().unwrap();
    proxy.settle();
    assert!(target.is_ended());
    target.write(b"half of an").unwrap();
    proxy.settle();
    target.abort();
    proxy.settle();
    assert!(client.is_reset());
    proxy.assert_done();
}

/// Bytes and an end that come before the target is reached wait for it. No more than a chunk is
/// taken from the client meanwhile.
#[test]
fn bytes_before_the_target_is_reached() {
    let proxy = Proxy::new(Network::with_conditions(1, Conditions::ideal().window(10_000)));
    let client = proxy.client();
    let data = pattern(5, 1_000_000);
    let (mut sent, mut idle) = (0, 0);
    while idle < 3 {
        let count = client.write(&data[sent..]).unwrap();
        idle = if count == 0 { idle + 1 } else { 0 };
        sent += count;
        proxy.settle();
    }
    assert!(sent <= 2 * 10_000 + 64 * 1024, "{sent} bytes were taken");
    assert_eq!(proxy.counters.sent_bytes(), 0);
    client.shut_down().unwrap();
    let target = proxy.target();
    let mut read = target.read();
    while !target.is_ended() {
        proxy.settle();
        read.extend(target.read());
    }
    assert!(read == data[..sent]);
}

/// A client is closed if the target can't be reached, and its connection ends with the reason.
#[test]
fn a_target_that_refuses() {
    let proxy = Proxy::new(Network::new(1));
    let client = proxy.client();
    client.write(b"hello").unwrap();
    proxy.settle();
    proxy.network.attempts().remove(0).refuse();
    proxy.settle();
    assert!(client.is_ended() && client.read().is_empty());
    assert_eq!((proxy.counters.failed(), proxy.counters.accepted()), (1, 1));
    // One that does not answer at all is given up.
    let client = proxy.client();
    proxy.network.run_for(Duration::from_secs(21)).unwrap();
    assert!(client.is_ended() || client.is_reset());
    assert_eq!((proxy.counters.failed(), proxy.network.attempts().len()), (2, 0));
    proxy.assert_done();
}

/// The connection of a client whose target can't be reached ends with the failure to connect.
#[test]
fn the_reason_is_the_failure_to_connect() {
    use std::cell::RefCell;

    use ropewalk::interfaces::*;
    use ropewalk::{Failure, Result, Transport};

    /// Keeps the reason of its protocol's end.
    struct Reasoned(ForwardServer, Rc<RefCell<Option<Failure>>>);
    impl Protocol for Reasoned {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            self.0.connection_made(transport)
        }
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.0.data_received(transport, data)
        }
        fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
            self.1.replace(Some(reason.clone()));
            self.0.connection_lost(transport, reason);
        }
    }

    let (network, reason) = (Network::new(1), Rc::<RefCell<Option<Failure>>>::default());
    network.answer_by_hand();
    let reactor = network.reactor(PROXY);
    let endpoint = TcpClientEndpoint::new(&reactor, SocketAddr::new(TARGET, 7));
    let (mut factory, place) = (ForwardFactory::new(endpoint), Rc::clone(&reason));
    let wrapping = move |peer: ropewalk::Address| Some(Reasoned(factory.build_protocol(&peer)?, Rc::clone(&place)));
    reactor.listen_tcp(SocketAddr::new(PROXY, 80), &ListenOptions::new(), wrapping).unwrap();
    let client = network.connect(SocketAddr::new(PROXY, 80));
    network.settle().unwrap();
    network.attempts().remove(0).refuse();
    network.settle().unwrap();
    assert!(client.is_ended());
    let reason = reason.take().expect("the connection is over");
    assert!(matches!(reason.check(), Some(ConnectError::Refused { .. })), "{reason}");
}

/// A client that breaks off while the target is being reached takes the attempt with it.
#[test]
fn a_client_that_does_not_wait() {
    let proxy = Proxy::new(Network::new(1));
    proxy.client().abort();
    proxy.settle();
    assert_eq!((proxy.network.attempts().len(), proxy.counters.failed()), (0, 0));
    proxy.assert_done();
}

/// More connections than the limit are refused. One that has ended makes room.
#[test]
fn at_most_so_many_connections() {
    let proxy = Proxy::with(Network::new(1), |factory| factory.max_open(2));
    let (first, _target) = proxy.pair();
    let (_second, _other) = proxy.pair();
    let third = proxy.client();
    assert!(third.is_ended() || third.is_reset());
    assert_eq!((proxy.counters.open(), proxy.counters.accepted(), proxy.counters.refused()), (2, 2, 1));
    first.abort();
    proxy.settle();
    let (_fourth, _its_target) = proxy.pair();
    assert_eq!((proxy.counters.open(), proxy.counters.accepted()), (2, 3));
}

/// The target may depend on the connection. An error, or a panic, ends the connection.
#[test]
fn a_target_for_each_connection() {
    let network = Network::new(1);
    network.answer_by_hand();
    let reactor = network.reactor(PROXY);
    let (chooser, turn) = (reactor.clone(), std::cell::Cell::new(0_u16));
    let factory = ForwardFactory::choosing(move |client| {
        assert_eq!(client.host().port(), Some(80));
        turn.set(turn.get() + 1);
        match turn.get() {
            2 => Err("no target for you".into()),
            3 => panic!("as ordered"),
            number => {
                let to = SocketAddr::new(TARGET, number);
                Ok(Rc::new(TcpClientEndpoint::new(&chooser, to)) as Rc<dyn ClientEndpoint>)
            }
        }
    });
    let proxy = Proxy::forwarding(network, reactor, factory);
    for number in 1..5 {
        let client = proxy.client();
        let attempts = proxy.network.attempts();
        let ports: Vec<_> = attempts.iter().filter_map(|attempt| attempt.to().port()).collect();
        if number == 2 || number == 3 {
            assert!(client.is_ended() && ports.is_empty());
        } else {
            assert_eq!(ports, [number]);
        }
        drop(client);
        for attempt in attempts {
            attempt.refuse();
        }
        proxy.settle();
    }
}

/// Whatever two peers do, each reads a prefix of the bytes that the other has sent, and all of them
/// if both end in order. Nothing is left when both are gone.
#[test]
fn any_history() {
    let (mut in_order, mut broken) = (0, 0);
    let count = u64::from(seeds(40, 500));
    for seed in 0..count {
        let conditions = if seed % 4 == 0 { Conditions::ideal() } else { Conditions::rough(seed) };
        let proxy = Proxy::with(Network::with_conditions(seed, conditions.window(3_000)), |factory| {
            factory.write_marks(500, 2_000)
        });
        let mut state = seed;
        let mut below = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let client = proxy.network.connect(SocketAddr::new(PROXY, 80));
        proxy.network.run_for(Duration::from_secs(3)).unwrap();
        let Some(target) = proxy.network.attempts().pop().and_then(|attempt| attempt.accept()) else { continue };
        let peers = [client, target];
        let data = [pattern(seed, 100_000), pattern(seed + 7, 100_000)];
        let (mut sent, mut read, mut shut) = ([0, 0], [Vec::new(), Vec::new()], [false, false]);
        for _ in 0..40 {
            let side = below(2) as usize;
            match below(12) {
                0 => {
                    shut[side] = true;
                    let _ = peers[side].shut_down();
                }
                1..=5 if !shut[side] => {
                    let count = below(5_000) as usize;
                    sent[side] += peers[side].write(&data[side][sent[side]..][..count]).unwrap_or(0);
                }
                6..=9 => read[1 - side].extend(peers[1 - side].read()),
                _ => proxy.network.run_for(Duration::from_millis(below(500))).unwrap(),
            }
        }
        let aborts = seed % 3 == 0;
        let [client, target] = peers;
        if aborts {
            if seed % 2 == 0 {
                client.abort()
            } else {
                target.abort()
            }
            broken += 1;
        } else {
            for round in 0..120 {
                if round == 60 {
                    // A peer that was reset has no direction left to end.
                    let _ = (client.shut_down(), target.shut_down());
                }
                proxy.network.run_for(Duration::from_millis(500)).unwrap();
                read[0].extend(client.read());
                read[1].extend(target.read());
            }
            if !client.is_reset() && !target.is_reset() {
                assert_eq!((read[1].len(), read[0].len()), (sent[0], sent[1]), "seed {seed}");
                assert!(client.is_ended() && target.is_ended(), "seed {seed}");
                in_order += 1;
            }
        }
        assert!(data[0].starts_with(&read[1]) && data[1].starts_with(&read[0]), "seed {seed}");
        proxy.assert_done();
    }
    assert!(
        in_order > count / 5 && broken > count / 6,
        "{in_order} histories ended in order, and {broken} were broken off"
    );
}
