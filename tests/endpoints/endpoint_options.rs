//! Every option that a description or an endpoint can set arrives at the socket (A25), whatever
//! else is set, and in whatever order: read back from the kernel where it knows, and from virtual
//! time where it does not.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use proptest::prelude::*;
use proptest::test_runner::Config;
use ropewalk::endpoints::{
    ClientEndpoint, ClientEndpointExt, HostnameEndpoint, ServerEndpointExt, TcpClientEndpoint, client_from_string,
    quote_string_argument, server_from_string,
};
use ropewalk::error::{ConnectError, ListenError};
use ropewalk::testing::{Conditions, MemoryReactor, Network};
use ropewalk::transport::QueueLimit;
use ropewalk::{Address, BackendKind, ConnectOptions, ListenOptions, Reactor, Transport};
use rustix::net::sockopt;

/// A peer waits this long to be sure of no answer: on one host an answer takes microseconds.
const PATIENCE: Duration = Duration::from_millis(30);

/// How many connections may wait to be accepted, found out by having them wait. Linux lets one more
/// wait than it is told.
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

/// Returns for both ends of a connection between these descriptions `true` if Nagle's algorithm is
/// off.
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

/// The timeout in the error of an attempt without an answer, and the time that the attempt took.
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

/// The address from which an endpoint connects, once the attempt is answered.
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
    /// The timeout of a description is that of the attempt, to the nanosecond, for an address and
    /// for a name.
    #[test]
    fn a_timeout_is_the_attempts(seconds in 0..5_000_u64, nanoseconds in 0..1_000_000_000_u32, with_address: bool) {
        let (memory, timeout) = (MemoryReactor::new(), Duration::new(seconds, nanoseconds));
        memory.network().add_name("mute.example", [IpAddr::from([198, 51, 100, 1])]);
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
        network.add_name("mute.example", [1, 2].map(|last| IpAddr::from([198, 51, 100, last])));
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

// Read back from the kernel.

/// The listening socket of this process at an address.
#[allow(unsafe_code, reason = "a port does not tell its descriptor")]
fn with_listener<T>(at: SocketAddr, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        // SAFETY: another test may close it meanwhile, and then these calls fail, or it is another
        // socket, which is not at this address: the port that is stays open during this call, for
        // its reactor lives on this thread.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let listens = sockopt::socket_acceptconn(socket).unwrap_or(false);
        let bound = rustix::net::getsockname(socket).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
        if listens && bound.is_some_and(|bound| bound.port() == at.port()) {
            return ask(socket);
        }
    }
    panic!("nothing listens at {at}")
}

/// Options of a socket: receive buffer, send buffer, address and port reused.
type Options = (usize, usize, bool, bool);

fn options_of(socket: BorrowedFd<'_>) -> Options {
    (
        sockopt::socket_recv_buffer_size(socket).unwrap(),
        sockopt::socket_send_buffer_size(socket).unwrap(),
        sockopt::socket_reuseaddr(socket).unwrap(),
        sockopt::socket_reuseport(socket).unwrap(),
    )
}

/// The options of a listening socket, of an accepted one, and of a client's, between these
/// descriptions.
fn sockets(reactor: &Reactor, server: &str, client: &str) -> [Options; 3] {
    let (log, serving) = (Log::default(), Rc::default());
    let factory = once(Script::new(&log).transport_into(&serving));
    let port = result_of(reactor, server_from_string(reactor, server).expect(server).listen(factory)).expect(server);
    let bound = port.host().socket_addr().unwrap();
    let client = client_from_string(reactor, &client.replace("PORT", &bound.port().to_string())).expect(client);
    let connection = result_of(reactor, client.connect(scripts(&Log::default()))).expect("it listens");
    run_until(reactor, || serving.borrow().is_some());
    let serving: Transport = serving.take().unwrap();
    let listening = with_listener(bound, options_of);
    [listening, with_descriptor(&serving, options_of), with_descriptor(connection.transport(), options_of)]
}

/// Reactors on all backends that there are.
fn reactors() -> impl Iterator<Item = Reactor> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(|kind| {
        let reactor = reactor_on(kind);
        if reactor.is_none() {
            println!("skipped: {NO_BACKEND}");
        }
        reactor
    })
}

/// Servers and clients over TLS, and the folder of their certificates.
#[cfg(feature = "tls")]
fn over_tls() -> (Vec<String>, Vec<String>, crate::common::certificates::Folder) {
    let (authority, folder) =
        (crate::common::certificates::Authority::new(), crate::common::certificates::Folder::new());
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    folder.put("both/both.pem", &format!("{}{}", issued.certificate, issued.key));
    folder.put("ca/ca.pem", &authority.pem());
    let at = |name: &str| quote_string_argument(&folder.at(name)).into_owned();
    let servers = vec![
        format!("ssl:0:{}:interface=127.0.0.1", at("both/both.pem")),
        format!("tls:{}:0:interface=127.0.0.1", at("both")),
    ];
    let clients = vec![
        format!("tls:127.0.0.1:PORT:trustRoots={}", at("ca")),
        format!("ssl:127.0.0.1:PORT:caCertsDir={}", at("ca")),
    ];
    (servers, clients, folder)
}

#[cfg(not(feature = "tls"))]
fn over_tls() -> (Vec<String>, Vec<String>, ()) {
    (Vec::new(), Vec::new(), ())
}

/// An option of descriptions arrives at every socket of every type of endpoint, on every backend.
/// Linux doubles the sizes of buffers.
#[test]
fn options_of_sockets() {
    let (tls_servers, tls_clients, _folder) = over_tls();
    let all = |plain: [&str; 2], tls: Vec<String>| plain.map(str::to_owned).into_iter().chain(tls).collect::<Vec<_>>();
    let servers = all(["tcp:0:127.0.0.1", "tcp6:0:interface=[::ffff:127.0.0.1]"], tls_servers);
    let clients = all(["tcp:127.0.0.1:PORT", "tcp:localhost:PORT"], tls_clients);
    for reactor in reactors() {
        for (server, client) in servers.iter().flat_map(|server| clients.iter().map(move |client| (server, client))) {
            let [listening, accepted, connected] = sockets(&reactor, server, client);
            let usual = (listening.2, listening.3, accepted.2, accepted.3, connected.2, connected.3);
            assert_eq!(usual, (true, false, true, false, false, false), "{server}, {client}");
            let given = "receiveBuffer=50000:sendBuffer=60000:reusePort=1:reuseAddress=0";
            let client = format!(
                "{client}:bindAddress=127.0.0.1:receiveBuffer=70000:sendBuffer=80000:reusePort=1:reuseAddress=0"
            );
            let [listening, accepted, connected] = sockets(&reactor, &format!("{server}:{given}"), &client);
            assert_eq!(listening, (100_000, 120_000, false, true), "{server}");
            assert_eq!(accepted, listening, "{server}");
            assert_eq!(connected, (140_000, 160_000, false, true), "{client}");
            let client = client.replace(":reusePort=1:reuseAddress=0", "");
            let [.., connected] = sockets(&reactor, server, &client);
            assert_eq!(connected, (140_000, 160_000, true, false), "{client}");
        }
    }
}

/// The buffers of UNIX sockets, which accepted ones do not inherit from the kernel.
#[test]
fn options_of_unix_sockets() {
    for reactor in reactors() {
        let name = format!("\0{}", String::from_utf8_lossy(unix_name().as_abstract_name().unwrap()));
        let name = quote_string_argument(&name).into_owned();
        let (log, serving) = (Log::default(), Rc::default());
        let server =
            server_from_string(&reactor, &format!("unix:{name}:receiveBuffer=50000:sendBuffer=60000")).unwrap();
        let port = result_of(&reactor, server.listen(once(Script::new(&log).transport_into(&serving)))).unwrap();
        let client =
            client_from_string(&reactor, &format!("unix:{name}:receiveBuffer=70000:sendBuffer=80000")).unwrap();
        let connection = result_of(&reactor, client.connect(scripts(&Log::default()))).unwrap();
        run_until(&reactor, || serving.borrow().is_some());
        let serving: Transport = serving.take().unwrap();
        let buffers =
            |transport: &Transport| with_descriptor(transport, |socket| (options_of(socket).0, options_of(socket).1));
        assert_eq!(buffers(&serving), (100_000, 120_000));
        assert_eq!(buffers(connection.transport()), (140_000, 160_000));
        drop(port);
    }
}

/// The queue limit of a description is the one with which connections begin, on both sides and over
/// everything.
#[test]
fn queue_limits_of_descriptions() {
    let (abort, pause, tell) = (QueueLimit::abort(8 << 20), QueueLimit::pause(65_536), QueueLimit::tell(7));
    let name = quote_string_argument(&format!("\0ropewalk-queue-limit-{}", std::process::id())).into_owned();
    let reactor = reactor();
    for (server, client) in [
        ("tcp:0:127.0.0.1".to_owned(), "tcp:127.0.0.1:PORT".to_owned()),
        ("tcp:0:127.0.0.1".to_owned(), "tcp:localhost:PORT".to_owned()),
        (format!("unix:{name}"), format!("unix:{name}")),
    ] {
        for (text, limit) in [
            ("", None),
            (":queueLimit=8388608", Some(abort)),
            (":queueLimit=65536:atQueueLimit=pause", Some(pause)),
            (":queueLimit=7:atQueueLimit=tell", Some(tell)),
        ] {
            let serving = Rc::default();
            let server = server_from_string(&reactor, &format!("{server}{text}")).unwrap();
            let script = Script::new(&Log::default()).transport_into(&serving);
            let port = result_of(&reactor, server.listen(once(script))).unwrap();
            let number = port.host().port().unwrap_or(0).to_string();
            let client = client_from_string(&reactor, &format!("{client}{text}").replace("PORT", &number)).unwrap();
            let connection = result_of(&reactor, client.connect(scripts(&Log::default()))).unwrap();
            run_until(&reactor, || serving.borrow().is_some());
            let serving: Transport = serving.take().unwrap();
            assert_eq!((serving.queue_limit(), connection.transport().queue_limit()), (limit, limit), "{text}");
            result_of(&reactor, port.stop_listening()).unwrap();
        }
    }
}

/// True if there is IPv6 on the loopback interface.
fn has_ipv6() -> bool {
    let bound = TcpListener::bind("[::1]:0");
    if let Err(error) = &bound {
        println!("skipped: no IPv6 loopback here: {error}");
    }
    bound.is_ok()
}

/// A port on both families tells IPv4 peers by their IPv4 addresses; one of IPv6 only does not
/// serve them.
#[test]
fn one_family_or_both() {
    if !has_ipv6() {
        return;
    }
    for reactor in reactors() {
        let kept = Rc::default();
        let peers = Rc::new(RefCell::new(Vec::new()));
        let (place, seen) = (Rc::clone(&kept), Rc::clone(&peers));
        let factory = move |peer: Address| {
            seen.borrow_mut().push(peer);
            Some(Script::new(&Log::default()).transport_into(&place))
        };
        let both = server_from_string(&reactor, "tcp6:0:ipv6Only=0").unwrap();
        let port = result_of(&reactor, both.listen(factory)).unwrap();
        let number = port.host().port().unwrap();
        assert!(!with_listener(port.host().socket_addr().unwrap(), |it| sockopt::ipv6_v6only(it).unwrap()));
        for host in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(host.parse().unwrap(), number);
            let peer = dial(to);
            run_until(&reactor, || kept.borrow().is_some());
            let transport: Transport = kept.take().unwrap();
            let from = peer.local_addr().unwrap();
            assert_eq!(from.ip().to_string(), host);
            assert_eq!((transport.host(), transport.peer()), (to.into(), from.into()));
            assert_eq!(peers.borrow_mut().pop(), Some(from.into()));
            assert_eq!(transport.peer().to_string(), from.to_string());
        }
        let only = server_from_string(&reactor, "tcp6:0:ipv6Only=1").unwrap();
        let port = result_of(&reactor, only.listen(scripts(&Log::default()))).unwrap();
        let at = port.host().socket_addr().unwrap();
        assert!(with_listener(at, |it| sockopt::ipv6_v6only(it).unwrap()));
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, at.port())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // Waiting connections are told in the same way.
        let both = server_from_string(&reactor, "tcp6:0:ipv6Only=0").unwrap();
        let seen = Rc::clone(&peers);
        let factory = move |peer: Address| {
            seen.borrow_mut().push(peer);
            Some(Script::new(&Log::default()))
        };
        let port = result_of(&reactor, both.listen(factory)).unwrap();
        let waiting = dial((Ipv4Addr::LOCALHOST, port.host().port().unwrap()).into());
        result_of(&reactor, port.stop_listening()).unwrap();
        assert_eq!(peers.take(), [waiting.local_addr().unwrap().into()]);
    }
}

/// An IPv4-mapped address is the IPv4 address: to listen on, to connect to, and to connect from.
#[test]
fn mapped_addresses() {
    for reactor in reactors() {
        let mapped = |port| SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port);
        let port = reactor.listen_tcp(mapped(0), &ListenOptions::new(), scripts(&Log::default())).unwrap();
        let at = port.host().socket_addr().unwrap();
        assert_eq!(at.ip(), Ipv4Addr::LOCALHOST);
        assert_eq!(port.client_description(), format!("tcp:{at}"));
        let by_name = HostnameEndpoint::new(&reactor, "::ffff:127.0.0.1", at.port());
        let clients: [Box<dyn ClientEndpoint>; 2] = [
            Box::new(TcpClientEndpoint::new(&reactor, mapped(at.port())).bind_address(mapped(0))),
            Box::new(by_name.bind_address((Ipv4Addr::LOCALHOST, 0).into())),
        ];
        for client in clients {
            let connection = result_of(&reactor, client.connect(scripts(&Log::default()))).unwrap();
            assert_eq!(connection.transport().peer(), at.into());
            assert_eq!(connection.transport().host().ip(), Some(Ipv4Addr::LOCALHOST.into()));
        }
        result_of(&reactor, port.stop_listening()).unwrap();
        port.start_listening().unwrap();
        assert_eq!(port.host(), at.into());
    }
}

/// Options for IPv6 on an IPv4 address, and interfaces that do not exist, are errors that say so.
#[test]
fn options_that_do_not_fit() {
    for reactor in reactors() {
        let listen = |at: &str, options: ListenOptions| {
            reactor.listen_tcp(at.parse().unwrap(), &options, scripts(&Log::default())).unwrap_err()
        };
        for at in ["127.0.0.1:0", "[::ffff:127.0.0.1]:0"] {
            let error = listen(at, ListenOptions::new().ipv6_only(false));
            assert_eq!(error.to_string(), "ipv6_only is for IPv6, and 127.0.0.1:0 is no IPv6 address");
            assert!(matches!(error, ListenError::NotIpv6 { option: "ipv6_only", .. }));
            let error = listen(at, ListenOptions::new().scope("lo"));
            assert!(matches!(error, ListenError::NotIpv6 { option: "scope", .. }), "{error}");
        }
        for name in ["nosuchinterface", "a-name-that-is-too-long-for-any"] {
            let error = listen("[::1]:0", ListenOptions::new().scope(name));
            assert_eq!(error.to_string(), format!("there is no network interface {name:?}"));
            assert!(matches!(error, ListenError::UnknownInterface { .. }));
            let hosts = [format!("tcp:[fe80::1%{name}]:80"), format!("tcp:127.0.0.1:80:bindAddress=[fe80::1%{name}]")];
            for description in hosts {
                let log = Log::default();
                let client = client_from_string(&reactor, &description).unwrap();
                let failure = result_of(&reactor, client.connect(Watched::new(&log, scripts(&log)))).err().unwrap();
                match failure.check::<ConnectError>() {
                    Some(ConnectError::UnknownInterface { name: said, .. }) => assert_eq!(said, name),
                    _ => panic!("{description}: {failure}"),
                }
                assert!(log.all().is_empty(), "the factory was not started");
            }
        }
        // One that exists is bound to: an address of another interface, or with a number for
        // another, would be refused.
        if has_ipv6() {
            for description in ["tcp:0:[::1%lo]", "tcp6:0:interface=[::1%lo]"] {
                let server = server_from_string(&reactor, description).unwrap();
                let port = result_of(&reactor, server.listen(scripts(&Log::default()))).expect(description);
                let number = port.host().port().unwrap();
                assert!(!port.host().to_string().contains("lo"), "{}", port.host());
                for client in [format!("tcp:[::1%lo]:{number}"), format!("tcp:[::1]:{number}:bindAddress=[::1%lo]")] {
                    let client = client_from_string(&reactor, &client).unwrap();
                    result_of(&reactor, client.connect(scripts(&Log::default()))).unwrap();
                }
                result_of(&reactor, port.stop_listening()).unwrap();
                port.start_listening().unwrap();
            }
        }
    }
}

/// Two reactors share a port, and both get connections; a port that is not shared can't be had
/// twice.
#[test]
fn a_port_that_is_shared() {
    for (one, other) in reactors().zip(reactors()) {
        let (log, other_log) = (Log::default(), Log::default());
        let first = server_from_string(&one, "tcp:0:127.0.0.1:reusePort=1").unwrap();
        let port = result_of(&one, first.listen(scripts(&log))).unwrap();
        let at = port.host().socket_addr().unwrap();
        let alone = server_from_string(&other, &format!("tcp:{}:127.0.0.1", at.port())).unwrap();
        let failure = result_of(&other, alone.listen(scripts(&other_log))).unwrap_err();
        assert!(matches!(failure.check(), Some(ListenError::Bind { .. })), "{failure}");
        let second = server_from_string(&other, &format!("tcp:{}:127.0.0.1:reusePort=1", at.port())).unwrap();
        let _port = result_of(&other, second.listen(scripts(&other_log))).unwrap();
        // Of so many, the kernel's hash of their ports gives one of the two none once in 2^99.
        let peers: Vec<TcpStream> = (0..100).map(|_| dial(at)).collect();
        run_until(&one, || {
            other.iterate(Duration::ZERO).unwrap();
            log.count("made") + other_log.count("made") == peers.len()
        });
        assert!(log.has("made") && other_log.has("made"), "{} and {}", log.count("made"), other_log.count("made"));
    }
}

/// An address that connections have not left yet can be listened on, unless that is turned off; on
/// the simulated network too.
#[test]
fn an_address_that_is_used_again() {
    let reactor = reactor();
    let log = Log::default();
    let closes = Script::new(&log).made(|transport| {
        transport.lose_connection();
        Ok(())
    });
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new(), once(closes)).unwrap();
    let at = port.host().socket_addr().unwrap();
    let mut peer = dial(at);
    assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()));
    drop(peer);
    run_until(&reactor, || log.is_over() && reactor.counters().watched == 1);
    result_of(&reactor, port.stop_listening()).unwrap();
    assert_used_again(&reactor, at);

    let network = Network::new(1);
    let host = IpAddr::from([10, 0, 0, 1]);
    let (reactor, at) = (network.reactor(host), SocketAddr::new(host, 7));
    let closes = Script::new(&Log::default()).made(|transport| {
        transport.lose_connection();
        Ok(())
    });
    let port = reactor.listen_tcp(at, &ListenOptions::new(), once(closes)).unwrap();
    let peer = network.connect(at);
    network.settle().unwrap();
    peer.close();
    network.settle().unwrap();
    drop(port.stop_listening());
    network.settle().unwrap();
    assert_used_again(&reactor, at);
    network.run_for(Duration::from_secs(61)).unwrap();
    let options = ListenOptions::new().reuse_address(false);
    reactor.listen_tcp(at, &options, scripts(&Log::default())).expect("TIME_WAIT is over");
}

#[track_caller]
fn assert_used_again(reactor: &Reactor, at: SocketAddr) {
    let error = reactor.listen_tcp(at, &ListenOptions::new().reuse_address(false), scripts(&Log::default()));
    match error {
        Err(ListenError::Bind { source, .. }) => assert_eq!(source.kind(), ErrorKind::AddrInUse),
        other => panic!("{other:?}"),
    }
    let port = reactor.listen_tcp(at, &ListenOptions::new(), scripts(&Log::default())).expect("it is used again");
    drop(port.stop_listening());
}

/// A simulated host shares ports, listens on one family or both, and knows its loopback interface,
/// as Linux does.
#[test]
fn options_on_the_simulated_network() {
    let network = Network::new(1);
    let (v4, v6) = (IpAddr::from([10, 0, 0, 1]), "2001:db8::1".parse::<IpAddr>().unwrap());
    let (one, other, far) = (network.reactor(v4), network.reactor(v4), network.reactor(v6));
    let (log, other_log) = (Log::default(), Log::default());
    let (shared, any) = (ListenOptions::new().reuse_port(true), |port| SocketAddr::new(v4, port));
    one.listen_tcp(any(7), &shared, scripts(&log)).unwrap();
    other.listen_tcp(any(7), &ListenOptions::new(), scripts(&log)).expect_err("it is not shared");
    other.listen_tcp(any(7), &shared, scripts(&other_log)).unwrap();
    let peers: Vec<_> = (0..10).map(|_| network.connect(any(7))).collect();
    network.settle().unwrap();
    assert_eq!((log.count("made"), other_log.count("made")), (5, 5));
    drop(peers);

    let all = |port| SocketAddr::new("::".parse().unwrap(), port);
    let (both, only) = (ListenOptions::new().ipv6_only(false), ListenOptions::new().ipv6_only(true));
    let peer = Rc::default();
    one.listen_tcp(all(8), &both, once(Script::new(&log).transport_into(&peer))).unwrap();
    one.listen_tcp(all(9), &only, scripts(&log)).unwrap();
    one.listen_tcp("0.0.0.0:9".parse().unwrap(), &ListenOptions::new(), scripts(&log)).expect("of the other family");
    one.listen_tcp("0.0.0.0:8".parse().unwrap(), &ListenOptions::new(), scripts(&log)).expect_err("it is in use");
    far.listen_tcp(all(9), &only, scripts(&log)).unwrap();
    far.listen_tcp("0.0.0.0:8".parse().unwrap(), &ListenOptions::new(), scripts(&log)).unwrap();
    let mut connecting = one.connect_tcp(any(8), &ConnectOptions::new(), scripts(&log));
    network.settle().unwrap();
    connecting.take_result().unwrap().unwrap();
    let transport: Transport = peer.take().unwrap();
    assert!(transport.peer().ip().is_some_and(|ip| ip.is_ipv4()), "{transport:?}");
    for (to, is_there) in [(SocketAddr::new(v6, 9), true), (SocketAddr::new(v6, 8), false)] {
        let mut connecting = one.connect_tcp(to, &ConnectOptions::new(), scripts(&log));
        network.settle().unwrap();
        assert_eq!(connecting.take_result().unwrap().is_ok(), is_there, "{to}");
    }
    far.listen_tcp("[::1]:5".parse().unwrap(), &ListenOptions::new().scope("lo"), scripts(&log)).unwrap();
    let error = far.listen_tcp(all(5), &ListenOptions::new().scope("eth0"), scripts(&log)).unwrap_err();
    assert!(matches!(error, ListenError::UnknownInterface { .. }), "{error}");
    let failure = far.resolve("fe80::1%eth0", 80).take_result().unwrap().unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::UnknownInterface { .. })), "{failure}");
}
