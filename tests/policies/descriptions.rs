//! Policies in descriptions: every option reaches its port, and errors say what was expected.

use std::net::SocketAddr;

use super::*;
use crate::common::Echo;
use ropewalk::endpoints::{Description, TcpServerSpec, client_from_string, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionLimits, ConnectionPolicies, Rate, TrafficFormat, WhenFull};
use ropewalk::testing::MemoryReactor;
use ropewalk::{ListenOptions, Reactor, for_protocol};

fn options(text: &str) -> ListenOptions {
    TcpServerSpec::from_description(&Description::parse(text).unwrap()).unwrap().options
}

/// Each option is the setter of its name.
#[test]
fn options_are_setters() {
    let (limits, policies) = (ConnectionLimits::new(), ConnectionPolicies::new());
    let rate = Rate::bytes_per_second(9_000);
    for (option, limits, policies) in [
        ("maxConnections=9", limits.max_connections(9), policies),
        ("maxPerPeer=9", limits.max_per_peer(9), policies),
        ("maxPerPeer=9:peerPrefix=56", limits.max_per_peer(9).peer_prefix(56), policies),
        ("acceptRate=9", limits.accepts_per_second(9), policies),
        ("acceptRate=9:whenFull=shed", limits.accepts_per_second(9).when_full(WhenFull::Shed), policies),
        ("maxConnections=9:whenFull=pause", limits.max_connections(9).when_full(WhenFull::Pause), policies),
        ("idleTimeout=60", limits, policies.idle(SECOND * 60)),
        ("receiveTimeout=0.5", limits, policies.receive_timeout(SECOND / 2)),
        ("firstBytes=10", limits, policies.first_byte(SECOND * 10)),
        ("lifetime=3600", limits, policies.lifetime(SECOND * 3600)),
        ("rate=9000", limits, policies.rate(rate)),
        ("receiveRate=9000", limits, policies.receive_rate(rate)),
        ("sendRate=9000:rate=1", limits, policies.rate(Rate::bytes_per_second(1)).send_rate(rate)),
        ("totalRate=9000", limits, policies.total_rate(rate)),
        ("totalReceiveRate=9000", limits, policies.total_receive_rate(rate)),
        ("totalSendRate=9000", limits, policies.total_send_rate(rate)),
        ("trafficLog=text", limits, policies.log_traffic(TrafficFormat::Text)),
        ("trafficLog=hex", limits, policies.log_traffic(TrafficFormat::Hex)),
    ] {
        let expected = ListenOptions::new().limits(limits).policies(policies);
        assert_eq!(options(&format!("tcp:80:{option}")), expected, "{option}");
        assert_ne!(expected, ListenOptions::new(), "{option}");
    }
}

/// Errors name the place, the value and the expectation.
#[test]
fn errors_say_what_was_expected() {
    let reactor = Reactor::new().unwrap();
    for (text, error) in [
        (
            "tcp:80:idleTimeout=0",
            r#"in "tcp:80:idleTimeout=0" at byte 19: "0" is not an idleTimeout: expected seconds above 0, such as 30 or 0.5"#,
        ),
        ("tcp:80:maxConnections=0", "expected a whole number from 1 to 4294967295"),
        ("tcp:80:rate=fast", "expected a whole number from 1 to 18446744073709551615"),
        ("tcp:80:peerPrefix=64", "expected nothing without maxPerPeer, the number of connections"),
        ("tcp:80:maxPerPeer=1:peerPrefix=129", "expected a whole number from 0 to 128"),
        ("tcp:80:whenFull=shed", "expected nothing without maxConnections or acceptRate"),
        ("tcp:80:acceptRate=1:whenFull=wait", "expected pause or shed"),
        ("tcp:80:trafficLog=1", "expected text or hex"),
        ("unix:/tmp/s:maxPerPeer=1", "expected nothing here: the peers of a UNIX socket have no addresses"),
    ] {
        let found = server_from_string(&reactor, text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.ends_with(error.split("is not").last().unwrap()), "{text}: {found}");
    }
    // Clients have none of them.
    assert!(client_from_string(&reactor, "tcp:localhost:80:idleTimeout=60").is_err());
    assert!(client_from_string(&reactor, "unix:/tmp/s:maxConnections=60").is_err());
}

/// Every server type takes them.
#[test]
fn every_server_takes_policies() {
    let reactor = Reactor::new().unwrap();
    let policies = "idleTimeout=60:maxConnections=1000:firstBytes=10:rate=100000:trafficLog=hex";
    for text in ["tcp:0", "tcp6:0", "unix:/tmp/never-bound", "fd:3", "systemd:domain=INET:index=0"] {
        let endpoint = server_from_string(&reactor, &format!("{text}:{policies}"));
        assert!(endpoint.is_ok(), "{text}: {:?}", endpoint.err().map(|error| error.to_string()));
    }
}

/// A described port has its limits and its policies at work.
#[test]
fn a_described_port_keeps_to_its_limits() {
    let memory = MemoryReactor::new();
    let endpoint = server_from_string(memory.reactor(), "tcp:7:idleTimeout=60:maxConnections=1:sendRate=10").unwrap();
    let port = endpoint.listen(for_protocol(|_| Echo)).take_result().unwrap().unwrap();
    let first = memory.connect(7).unwrap();
    first.write(b"twenty-one bytes in all").unwrap();
    memory.settle().unwrap();
    assert_eq!((first.read(), port.is_paused()), (b"t".to_vec(), true));
    let second = memory.connect(7).unwrap();
    memory.advance(SECOND * 10).unwrap();
    assert_eq!(first.read(), b"wenty-one bytes in all");
    memory.advance(SECOND * 60).unwrap();
    assert!(first.is_ended() && !port.is_paused() || second.is_connected());
    let _: SocketAddr = port.host().socket_addr().unwrap();
    second.write(b"?").unwrap();
    memory.advance(SECOND * 6).unwrap();
    assert_eq!(second.read(), b"?");
}
