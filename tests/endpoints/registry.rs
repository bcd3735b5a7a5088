//! Types of endpoints of one's own beside those that are built in, and what else makes endpoints.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use crate::common::*;
use proptest::prelude::*;
use ropewalk::endpoints::{
    Argument, Arguments, Description, DescriptionError, EndpointRegistry, RegistryError, TcpClientEndpoint,
    TcpServerEndpoint, client_from_string, connect_protocol, server_from_string,
};
use ropewalk::error::ConnectError;
use ropewalk::interfaces::*;
use ropewalk::testing::Network;
use ropewalk::{Address, ListenOptions, Reactor};

type Server = Result<Box<dyn ServerEndpoint>, DescriptionError>;
type Client = Result<Box<dyn ClientEndpoint>, DescriptionError>;

/// `local:port`, on both sides.
fn local_server(reactor: &Reactor, description: &Description, _: &EndpointRegistry) -> Server {
    let arguments = Arguments::of(description, "local", &["port"], &[])?;
    let port = arguments.required("port", Argument::port)?;
    Ok(Box::new(TcpServerEndpoint::bind_to(reactor, ([127, 0, 0, 1], port).into())))
}

fn local_client(reactor: &Reactor, description: &Description, _: &EndpointRegistry) -> Client {
    let arguments = Arguments::of(description, "local", &["port"], &[])?;
    let port = arguments.required("port", Argument::peer_port)?;
    Ok(Box::new(TcpClientEndpoint::new(reactor, ([127, 0, 0, 1], port).into())))
}

/// The fault of a description, and its place.
#[track_caller]
fn error<E: std::fmt::Debug + ?Sized>(result: Result<Box<E>, DescriptionError>) -> (usize, String) {
    let error = result.expect_err("it is wrong");
    (error.position(), error.to_string())
}

/// A type of one's own listens and connects, whatever case it is written in, and the built-in ones
/// still do.
#[test]
fn types_of_ones_own() {
    let (reactor, mut registry) = (reactor(), EndpointRegistry::new());
    registry.add_server("Local", local_server).unwrap();
    registry.add_client("LOCAL", local_client).unwrap();
    for (server, client) in [("local:0", "LOCAL:"), ("LoCaL:port=0", "tcp:127.0.0.1:"), ("tcp:0", "local:")] {
        let listening = registry.server_from_string(&reactor, server).unwrap().listen(echoes(&Log::default()));
        let number = result_of(&reactor, listening).unwrap().host().port().unwrap();
        let endpoint = registry.client_from_string(&reactor, &format!("{client}{number}")).unwrap();
        let connection = result_of(&reactor, endpoint.connect(scripts(&Log::default()))).unwrap();
        connection.transport().write(b"hello");
        run_until(&reactor, || connection.with(|script, _| script.received.borrow().len()) == Ok(5));
    }
}

/// The errors of a type of one's own are as good as those of the others.
#[test]
fn errors_of_ones_own() {
    let (reactor, mut registry) = (reactor(), EndpointRegistry::default());
    registry.add_server("local", local_server).unwrap();
    registry
        .add_server("named", |reactor, description, _| {
            let arguments = Arguments::of(description, "named", &["name"], &["port"])?;
            let name = arguments.required("name", |name| match name.value() {
                "blog" => Ok(127),
                _ => Err(name.invalid("the name of a service that there is")),
            })?;
            let port = arguments.required("port", Argument::port)?;
            Ok(Box::new(TcpServerEndpoint::bind_to(reactor, ([name, 0, 0, 1], port).into())))
        })
        .unwrap();
    for (text, position, expectation) in [
        ("local", 5, "port is missing"),
        ("local:http", 6, "expected a whole number from 0 to 65535"),
        ("local:80:81", 9, "expected port without a name"),
        ("local:80:port=81", 9, "port is given twice"),
        ("local:80:size=3", 9, "expected port"),
        ("named:wiki:port=80", 6, "\"wiki\" is not a name: expected the name of a service that there is"),
        ("named:blog", 10, "port is missing"),
        ("named:name=wiki", 11, "expected the name of a service"),
        (r"local:8\", 7, "a backslash ends the description"),
        ("loca:80", 0, "\"loca\" is not a type of endpoint: expected fd, haproxy, local, named, "),
    ] {
        let (at, said) = error(registry.server_from_string(&reactor, text));
        assert!(at == position && said.contains(expectation), "{said}: not {expectation:?} at {position}");
    }
}

/// A prefix is taken once, for servers and for clients independently; an empty one never.
#[test]
fn prefixes_are_taken() {
    let mut registry = EndpointRegistry::new();
    let taken = |prefix: &str| Err(RegistryError::Taken { prefix: prefix.to_owned() });
    assert_eq!(registry.add_server("tcp", local_server), taken("tcp"));
    assert_eq!(registry.add_server("TCP6", local_server), taken("tcp6"));
    assert_eq!(registry.add_client("Tcp", local_client), taken("tcp"));
    assert_eq!(registry.add_client("tcp6", local_client), Ok(()));
    assert_eq!(registry.add_client("tcp6", local_client), taken("tcp6"));
    assert_eq!(registry.add_server("local", local_server), Ok(()));
    assert_eq!(registry.add_server("LOCAL", local_server), taken("local"));
    assert_eq!(registry.add_client("local", local_client), Ok(()));
    assert_eq!(registry.add_server("", local_server), Err(RegistryError::Empty));
    assert_eq!(registry.add_client("", local_client), Err(RegistryError::Empty));
    assert_eq!(taken("tcp").unwrap_err().to_string(), "there is a type of endpoint \"tcp\" already");
    // The refused type has replaced nothing.
    let reactor = reactor();
    assert!(registry.server_from_string(&reactor, "tcp:0:interface=127.0.0.1:backlog=3").is_ok());
}

/// The types that are built in, as errors list them.
const SERVERS: &str = if cfg!(feature = "tls") {
    "fd, haproxy, ssl, stdio, systemd, tcp, tcp6, tls or unix"
} else {
    "fd, haproxy, stdio, systemd, tcp, tcp6 or unix"
};
const CLIENTS: &str =
    if cfg!(feature = "tls") { "haproxy, process, ssl, tcp, tls or unix" } else { "haproxy, process, tcp or unix" };

/// The same one by one.
fn listed(types: &str) -> Vec<&str> {
    types.split(", ").flat_map(|some| some.split(" or ")).collect()
}

/// Each side lists its own types; those of the free functions are the built-in ones, whatever
/// registries there are.
#[test]
fn unknown_types_list_what_is_known() {
    let (reactor, mut registry) = (reactor(), EndpointRegistry::new());
    let before = registry.clone();
    registry.add_client("local", local_client).unwrap();
    let is_not = |known: &str| format!("\"local\" is not a type of endpoint: expected {known}");
    for (said, known) in [
        (error(registry.server_from_string(&reactor, "local:1")), SERVERS),
        (error(server_from_string(&reactor, "local:1")), SERVERS),
        (error(client_from_string(&reactor, "local:1")), CLIENTS),
        (error(before.client_from_string(&reactor, "local:1")), CLIENTS),
    ] {
        assert!(said.1.ends_with(&is_not(known)), "{}", said.1);
    }
    let (_, said) = error(registry.client_from_string(&reactor, "tcp6:::1:80"));
    let known = CLIENTS.replace("haproxy, ", "haproxy, local, ");
    assert!(said.ends_with(&format!("\"tcp6\" is not a type of endpoint: expected {known}")), "{said}");
    let (servers, clients) = (listed(SERVERS), listed(&known));
    assert_eq!(format!("{registry:?}"), format!("EndpointRegistry {{ servers: {servers:?}, clients: {clients:?} }}"));
}

/// A type that contains another description reads it with the registry that it is in, so types
/// nest.
#[test]
fn types_that_contain_descriptions() {
    let (reactor, mut registry, seen) = (reactor(), EndpointRegistry::new(), Rc::new(RefCell::new(Vec::new())));
    let sees = Rc::clone(&seen);
    registry
        .add_server("noted", move |reactor, description, registry| {
            let arguments = Arguments::of(description, "noted", &["endpoint"], &[])?;
            let inner = arguments.required("endpoint", |inner| Ok(inner.value()))?;
            sees.borrow_mut().push(inner.to_owned());
            registry.server_from_string(reactor, inner)
        })
        .unwrap();
    registry.add_server("local", local_server).unwrap();
    let endpoint = registry.server_from_string(&reactor, r"noted:endpoint=noted\:local\\\:0").unwrap();
    assert_eq!(*seen.borrow(), [r"noted:local\:0", "local:0"]);
    let port = result_of(&reactor, endpoint.listen(echoes(&Log::default()))).unwrap();
    assert_eq!(port.host().ip(), Some("127.0.0.1".parse().unwrap()));
    let (_, said) = error(registry.server_from_string(&reactor, r"noted:nothing\:0"));
    assert!(said.starts_with("in \"nothing:0\" at byte 0"), "{said}");
}

/// One protocol, one connection: through an endpoint of a type, and one without.
#[test]
fn one_protocol_is_connected() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, echoes(&Log::default()));
    let endpoint = TcpClientEndpoint::new(&reactor, address);
    let boxed: Box<dyn ClientEndpoint> = Box::new(endpoint.clone());
    for connecting in [
        connect_protocol(&endpoint, Script::new(&log)),
        connect_protocol(&boxed, Script::new(&log)),
        connect_protocol(&*boxed, Script::new(&log)),
    ] {
        let connection = result_of(&reactor, connecting).unwrap();
        connection.transport().write(b"alone");
        run_until(&reactor, || connection.with(|script, _| script.received.borrow().len()) == Ok(5));
    }
    assert_eq!(log.count("made"), 3);
    let (_taken, refusing) = refusing();
    let failing = connect_protocol(&TcpClientEndpoint::new(&reactor, refusing), Script::new(&log));
    let failure = result_of(&reactor, failing).unwrap_err();
    assert!(matches!(failure.check(), Some(ConnectError::Refused { .. })), "{failure}");
    assert_eq!(log.count("made"), 3);
}

/// `tcp6` listens over IPv6, by default on everything; on Linux that is IPv4 too, unless the system
/// says otherwise.
#[test]
fn tcp6_end_to_end() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("skipped: no IPv6 loopback here: {error}");
        return;
    }
    let reactor = reactor();
    for (description, ip) in [
        ("tcp6:0", Ipv6Addr::UNSPECIFIED),
        ("TCP6:port=0:backlog=3", Ipv6Addr::UNSPECIFIED),
        ("tcp6:0:interface=", Ipv6Addr::UNSPECIFIED),
        ("tcp6:0:5:[::1]", Ipv6Addr::LOCALHOST),
        (r"tcp6:0:interface=\:\:1", Ipv6Addr::LOCALHOST),
    ] {
        let endpoint = server_from_string(&reactor, description).unwrap();
        let port = result_of(&reactor, endpoint.listen(echoes(&Log::default()))).expect(description);
        assert_eq!(port.host().ip(), Some(ip.into()), "{description}");
        let reached = port.client_description();
        assert_eq!(reached, format!("tcp:[::1]:{}", port.host().port().unwrap()));
        let connecting = client_from_string(&reactor, &reached).unwrap().connect(scripts(&Log::default()));
        assert_eq!(result_of(&reactor, connecting).unwrap().transport().peer().to_string(), reached[4..]);
    }
    let port = result_of(&reactor, server_from_string(&reactor, "tcp6:0").unwrap().listen(echoes(&Log::default())));
    let number = port.unwrap().host().port().unwrap();
    if std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.trim() == "0") {
        dial(([127, 0, 0, 1], number).into());
    }
}

/// The differences between `tcp6` and `tcp`.
#[test]
fn tcp6_is_not_tcp() {
    let reactor = reactor();
    for (text, position, expectation) in [
        ("tcp6", 4, "port is missing"),
        ("tcp6:80:[::1]", 8, "is not a backlog"),
        ("tcp6:80:5:127.0.0.1", 10, "expected an IPv6 address, such as [::1]"),
        ("tcp6:80:interface=eth0", 18, "expected an IP address"),
        ("tcp6:80:interface=[fe80::1%0]", 18, "the number of a network interface"),
        ("tcp6:80:5:[::1]:6", 16, "expected port, backlog or interface without a name"),
    ] {
        let (at, said) = error(server_from_string(&reactor, text));
        assert!(at == position && said.contains(expectation), "{said}: not {expectation:?} at {position}");
    }
}

/// The client description of a port over real sockets, whatever it listens on.
#[test]
fn a_port_says_how_it_is_reached() {
    let reactor = reactor();
    for (listens, reached) in
        [("127.0.0.1:0", "tcp:127.0.0.1:"), ("0.0.0.0:0", "tcp:127.0.0.1:"), ("127.1.2.3:0", "tcp:127.1.2.3:")]
    {
        let log = Log::default();
        let address: SocketAddr = listens.parse().unwrap();
        let port = reactor.listen_tcp(address, &ListenOptions::new(), scripts(&log)).unwrap();
        let description = port.client_description();
        assert_eq!(description, format!("{reached}{}", port.host().port().unwrap()));
        let connecting = client_from_string(&reactor, &description).unwrap().connect(scripts(&Log::default()));
        result_of(&reactor, connecting).unwrap();
        run_until(&reactor, || log.has("made"));
    }
}

proptest! {
    /// Whatever address a port has, its description is read back as an endpoint that reaches it.
    #[test]
    fn every_port_is_reached_by_its_description(host: IpAddr, number in 1..=u16::MAX, everywhere: bool) {
        prop_assume!(!host.to_canonical().is_unspecified() && !host.to_canonical().is_loopback());
        let network = Network::new(1);
        let (reactor, log) = (network.reactor(host), Log::default());
        let unspecified = if host.to_canonical().is_ipv4() { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
        let address = SocketAddr::new(if everywhere { unspecified } else { host }, number);
        let port = reactor.listen_tcp(address, &ListenOptions::new(), scripts(&log)).unwrap();
        prop_assert_eq!(port.host(), Address::from(address));
        let endpoint = client_from_string(&reactor, &port.client_description()).unwrap();
        let mut connecting = endpoint.connect(scripts(&Log::default()));
        network.settle().unwrap();
        let connection = connecting.take_result().expect("an answer").unwrap();
        prop_assert_eq!(connection.transport().peer().port(), Some(number));
        prop_assert_eq!(log.count("made"), 1);
    }
}

/// `stdio:` has no fields, with and without its colon.
#[test]
fn standard_io_has_no_fields() {
    let (reactor, registry) = (reactor(), EndpointRegistry::new());
    for text in ["stdio", "stdio:", "STDIO:"] {
        assert!(registry.server_from_string(&reactor, text).is_ok(), "{text}");
    }
    for (text, message) in [
        ("stdio:1", r#"in "stdio:1" at byte 6: "1" is not a rest: expected nothing"#),
        ("stdio::", r#"at byte 7: "" is one field too many"#),
        ("stdio:0:1", r#"at byte 8: "1" is one field too many"#),
    ] {
        let Err(error) = registry.server_from_string(&reactor, text) else { panic!("{text} is taken") };
        let error = error.to_string();
        assert!(error.contains(message), "{error}");
    }
}
