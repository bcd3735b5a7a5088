//! Every option that a description or an endpoint can set arrives at the socket (A25), whatever else is set, and in whatever
//! order: read back from the kernel where it knows, and from virtual time where it does not.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use common::*;
use proptest::prelude::*;
use proptest::test_runner::Config;
use ropewalk::endpoints::{
    ClientEndpoint, ClientEndpointExt, HostnameEndpoint, ServerEndpointExt, TcpClientEndpoint, client_from_string,
    server_from_string,
};
use ropewalk::error::ConnectError;
use ropewalk::testing::{Conditions, MemoryReactor, Network};
use ropewalk::{Reactor, Transport};

/// So long does a peer wait to be sure that nobody answers it: on this host, an answer takes microseconds.
const PATIENCE: Duration = Duration::from_millis(30);

/// How many connections may wait to be accepted, found out by having them wait. Linux lets one more wait than it is told.
fn backlog_of(listener: SocketAddr) -> usize {
    let mut waiting = Vec::new();
    loop {
        match TcpStream::connect_timeout(&listener, PATIENCE) {
            Ok(stream) => waiting.push(stream),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{error}");
                return waiting.len() - 1;
            }
        }
    }
}

/// Whether Nagle's algorithm is off at both ends of a connection between these descriptions.
fn no_delays(server: &str, client: &str) -> (bool, bool) {
    let reactor = reactor();
    let (log, serving, asking) = (Log::default(), Rc::default(), Rc::default());
    let factory = once(Script::new(&log).transport_into(&serving));
    let port = result_of(&reactor, server_from_string(&reactor, server).unwrap().listen(factory)).unwrap();
    let number = port.host().port().unwrap();
    let client = client_from_string(&reactor, &client.replace("PORT", &number.to_string())).unwrap();
    let script = Script::new(&log).transport_into(&asking);
    let connection = result_of(&reactor, client.connect(once(script))).unwrap();
    run_until(&reactor, || serving.borrow().is_some());
    let serving: Transport = serving.take().unwrap();
    let ends = (serving.tcp_no_delay().unwrap(), connection.transport().tcp_no_delay().unwrap());
    serving.set_tcp_no_delay(!ends.0).unwrap();
    assert_eq!(serving.tcp_no_delay().unwrap(), !ends.0);
    ends
}

/// Nagle's algorithm is off at both ends unless a description turns it on, by address and by name.
#[test]
fn nagles_algorithm_is_an_option() {
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(no_delays("tcp:0:127.0.0.1", &format!("tcp:{host}:PORT")), (true, true));
        assert_eq!(no_delays("tcp:0:127.0.0.1:noDelay=0", &format!("tcp:{host}:PORT")), (false, true));
        assert_eq!(no_delays("tcp:0:127.0.0.1", &format!("tcp:{host}:PORT:noDelay=0")), (true, false));
        assert_eq!(no_delays("tcp:0:127.0.0.1:noDelay=1", &format!("tcp:{host}:PORT:noDelay=1")), (true, true));
    }
}

/// One of the 16 million addresses of this host.
fn loopbacks() -> impl Strategy<Value = IpAddr> {
    (0..=255_u8, 0..=255_u8, 1..=254_u8).prop_map(|(b, c, d)| IpAddr::from([127, b, c, d]))
}

/// What an attempt to reach nobody says of its timeout, and how long it really took.
fn timeout_of(network: &Network, endpoint: &dyn ClientEndpoint) -> (Duration, Duration) {
    let start = network.now();
    let mut connecting = endpoint.connect_boxed(ropewalk::protocol::BoxedFactory::new(scripts(&Log::default())));
    network.run_until(Duration::MAX, || connecting.is_called()).unwrap();
    let failure = connecting.take_result().unwrap().map(drop).unwrap_err();
    let after = match failure.check::<ConnectError>() {
        Some(ConnectError::NoAnswer { after, .. }) => *after,
        Some(ConnectError::AllFailed { attempts, .. }) => match attempts[0].error {
            ConnectError::NoAnswer { after, .. } => after,
            _ => panic!("{failure}"),
        },
        _ => panic!("{failure}"),
    };
    (after, network.now() - start)
}

/// The address from which an endpoint connects, once somebody answers.
fn local_address_of(memory: &MemoryReactor, endpoint: &impl ClientEndpoint) -> SocketAddr {
    let mut connecting = endpoint.connect(scripts(&Log::default()));
    let _peer = memory.attempts().remove(0).accept().unwrap();
    memory.settle().unwrap();
    connecting.take_result().unwrap().unwrap().transport().host().socket_addr().unwrap()
}

proptest! {
    #![proptest_config(Config::with_cases(12))]

    /// Interface, backlog and port, over real sockets.
    #[test]
    fn a_servers_options_are_its_sockets(ip in loopbacks(), backlog in 0..6_usize, by_position: bool) {
        let reactor = reactor();
        let description = match by_position {
            true => format!("tcp:0:{ip}:{backlog}"),
            false => format!("tcp:backlog={backlog}:interface={ip}:port=0"),
        };
        let listening = server_from_string(&reactor, &description).unwrap().listen(scripts(&Log::default()));
        let port = result_of(&reactor, listening).unwrap();
        let bound = port.host().socket_addr().unwrap();
        prop_assert_eq!(bound.ip(), ip);
        prop_assert_eq!(backlog_of(bound), backlog);
        result_of(&reactor, port.stop_listening()).unwrap();
        // The number of the port is the one that was asked for.
        let again = format!("tcp:{}:{ip}", bound.port());
        let port = result_of(&reactor, server_from_string(&reactor, &again).unwrap().listen(scripts(&Log::default()))).unwrap();
        prop_assert_eq!(port.host().socket_addr(), Some(bound));
    }

    /// The local address, as our socket and as the peer sees it, for an address and for a name.
    #[test]
    fn a_clients_address_is_its_sockets(from in loopbacks(), to in loopbacks(), by_name: bool) {
        let (reactor, listener) = (reactor(), TcpListener::bind((to, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let endpoint: Box<dyn ClientEndpoint> = match by_name {
            true => Box::new(HostnameEndpoint::new(&reactor, to.to_string(), address.port()).bind_address((from, 0).into())),
            false => client_from_string(&reactor, &format!("tcp:{address}:timeout=7:bindAddress={from}")).unwrap(),
        };
        let connection = result_of(&reactor, endpoint.connect(scripts(&Log::default()))).unwrap();
        let (_, seen) = listener.accept().unwrap();
        prop_assert_eq!(seen.ip(), from);
        prop_assert_eq!(connection.transport().host().socket_addr(), Some(seen));
    }
}

proptest! {
    /// The timeout of a description is that of the attempt, to the nanosecond, for an address and for a name.
    #[test]
    fn a_timeout_is_the_attempts(seconds in 0..5_000_u64, nanoseconds in 0..1_000_000_000_u32, with_address: bool) {
        let (memory, timeout) = (MemoryReactor::new(), Duration::new(seconds, nanoseconds));
        memory.network().name("mute.example", [IpAddr::from([198, 51, 100, 1])]);
        for host in ["198.51.100.1", "mute.example"] {
            let from = if with_address { format!(":bindAddress={}", MemoryReactor::HOST) } else { String::new() };
            let description = format!("tcp:{host}:80{from}:timeout={seconds}.{nanoseconds:09}");
            let endpoint = client_from_string(memory.reactor(), &description).unwrap();
            prop_assert_eq!(timeout_of(memory.network(), &*endpoint), (timeout, timeout));
        }
    }

    /// Setters do not undo one another, in whatever order.
    #[test]
    fn settings_add_up(
        order in Just([0, 1, 2, 3]).prop_shuffle(),
        timeout in 1..100_u64,
        delay in 10..2_000_u64,
        lookup in 1..100_u64,
        port in 1_024..u16::MAX,
    ) {
        let (timeout, delay, lookup) = (Duration::from_secs(timeout), Duration::from_millis(delay), Duration::from_secs(lookup));
        let from = SocketAddr::new(MemoryReactor::HOST, port);
        let set = |reactor: &Reactor| {
            let endpoint = HostnameEndpoint::new(reactor, "mute.example", 80);
            order.into_iter().fold(endpoint, |endpoint, which| match which {
                0 => endpoint.timeout(timeout),
                1 => endpoint.attempt_delay(delay),
                2 => endpoint.lookup_timeout(lookup),
                _ => endpoint.bind_address(from),
            })
        };
        let memory = MemoryReactor::new();
        let network = memory.network();
        network.name("mute.example", [1, 2].map(|last| IpAddr::from([198, 51, 100, last])));
        // Of the two addresses the second begins after the delay, or when the first has failed.
        prop_assert_eq!(timeout_of(network, &set(memory.reactor())), (timeout, delay.min(timeout) + timeout));
        prop_assert_eq!(local_address_of(&memory, &set(memory.reactor())), from);
        // On a network whose resolver takes longer, that is what ends it.
        let slow = Network::with_conditions(1, Conditions::ideal().names(Duration::MAX / 4, Duration::MAX / 4));
        let reactor = slow.reactor(MemoryReactor::HOST);
        let mut connecting = set(&reactor).connect(scripts(&Log::default()));
        slow.run_until(Duration::MAX, || connecting.is_called()).unwrap();
        prop_assert_eq!(slow.now(), lookup);
        prop_assert!(connecting.take_result().unwrap().is_err());
    }

    #[test]
    fn the_settings_of_one_address_add_up(swapped: bool, timeout in 1..100_u64, port in 1_024..u16::MAX) {
        let (memory, timeout) = (MemoryReactor::new(), Duration::from_secs(timeout));
        let (from, to) = (SocketAddr::new(MemoryReactor::HOST, port), SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 80)));
        let endpoint = TcpClientEndpoint::new(memory.reactor(), to);
        let endpoint = match swapped {
            true => endpoint.timeout(timeout).bind_address(from),
            false => endpoint.bind_address(from).timeout(timeout),
        };
        prop_assert_eq!(timeout_of(memory.network(), &endpoint), (timeout, timeout));
        prop_assert_eq!(local_address_of(&memory, &endpoint), from);
    }
}
