//! Multicast over the loopback interface, for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::sync::atomic::{AtomicU16, Ordering};

use super::*;
use ropewalk::datagram::MulticastInterface;
use ropewalk::error::DatagramError;

/// A group, the address that a member binds, and the interface.
type Group = (IpAddr, &'static str, MulticastInterface);

/// Groups that no other test has. Linux delivers the datagrams of a group to every port that is
/// bound to all addresses, as long as any socket of the host is a member.
fn new_groups() -> (Ipv4Addr, Ipv6Addr) {
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [high, low] = number.to_be_bytes();
    (Ipv4Addr::new(239, 255, 77 + high, low), Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x77, number))
}

/// The groups of both families: IPv4 on the loopback interface, IPv6 on an interface with routes
/// for groups. Without such an interface there is the first only.
fn groups() -> Vec<Group> {
    let v4 = (new_groups().0.into(), "0.0.0.0:0", Ipv4Addr::LOCALHOST.into());
    [v4].into_iter().chain(ipv6_group()).collect()
}

fn ipv6_group() -> Option<Group> {
    let (_, group) = new_groups();
    let socket = UdpSocket::bind("[::]:0").expect("a socket");
    let index = (1..64).find(|index| {
        let to = SocketAddrV6::new(group, 9, 0, *index);
        socket.join_multicast_v6(&group, *index).is_ok() && socket.send_to(b"", to).is_ok()
    });
    if index.is_none() {
        println!("skipped for IPv6: no interface has routes for groups");
    }
    Some((group.into(), "[::]:0", MulticastInterface::Index(index?)))
}

/// Groups on interfaces to other hosts, for both families as far as there are any.
fn outer_groups() -> Vec<Group> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // This sends nothing: it asks the routes for the interface.
    let routed = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let v4 = match routed {
        Ok(IpAddr::V4(address)) if !address.is_loopback() => Some((new_groups().0.into(), "0.0.0.0:0", address.into())),
        _ => {
            println!("skipped for IPv4: there is no route to other hosts");
            None
        }
    };
    v4.into_iter().chain(ipv6_group()).collect()
}

/// Makes a port that is to join groups on the loopback interface.
fn member(reactor: &Reactor, address: &str, interface: &MulticastInterface, log: &Log) -> DatagramTransport {
    let options = UdpOptions::new().reuse_address(true);
    let port = bind_with(reactor, address, &options, Recorder::new(log));
    port.set_outgoing_interface(interface).expect("it is set");
    port
}

fn to(group: IpAddr, port: &DatagramTransport) -> Address {
    SocketAddr::new(group, port.host().port().expect("a number")).into()
}

/// A member receives what is sent to the group, and no longer once it has left.
#[test]
fn a_member_receives_until_it_leaves() {
    on_each(|reactor| {
        for (group, address, interface) in groups() {
            let log = Log::default();
            let port = member(&reactor, address, &interface, &log);
            port.join_group(group, &interface).expect("it joins");
            port.write(b"one", &to(group, &port)).expect("it is sent");
            run_until(&reactor, || log.has("received one"));
            port.leave_group(group, &interface).expect("it leaves");
            port.write(b"two", &to(group, &port)).expect("it is sent");
            let local: SocketAddr = LOCAL[usize::from(group.is_ipv6())].parse().expect("an address");
            let itself = SocketAddr::new(local.ip(), port.host().port().expect("a number"));
            port.write(b"three", &itself.into()).expect("it is sent");
            run_until(&reactor, || log.has("received three"));
            assert_eq!(log.all(), ["started", "received one", "received three"]);
        }
    });
}

/// A port that is bound to the address of a group receives nothing of the groups of others. One
/// that is bound to all addresses does, on Linux.
#[test]
fn a_port_at_the_address_of_its_group() {
    on_each(|reactor| {
        let interface = Ipv4Addr::LOCALHOST.into();
        let [(own, _), (other, _)] = [new_groups(), new_groups()];
        let logs = [Log::default(), Log::default()];
        let port = member(&reactor, &format!("{own}:0"), &interface, &logs[0]);
        let everywhere = member(&reactor, &format!("0.0.0.0:{}", port.host().port().unwrap()), &interface, &logs[1]);
        port.join_group(own.into(), &interface).expect("it joins");
        everywhere.join_group(other.into(), &interface).expect("it joins");
        everywhere.write(b"other", &to(other.into(), &port)).expect("it is sent");
        everywhere.write(b"own", &to(own.into(), &port)).expect("it is sent");
        run_until(&reactor, || logs.iter().all(|log| log.has("received own")));
        assert_eq!(logs[0].all(), ["started", "received own"]);
        assert_eq!(logs[1].all(), ["started", "received other", "received own"]);
    });
}

/// Several listeners on one port number each get every datagram of the group.
#[test]
fn several_listeners_share_a_group() {
    on_each(|reactor| {
        for (group, address, interface) in groups() {
            let logs = [Log::default(), Log::default(), Log::default()];
            let first = member(&reactor, address, &interface, &logs[0]);
            let second = member(&reactor, &first.host().to_string(), &interface, &logs[1]);
            let outsider = member(&reactor, address, &interface, &logs[2]);
            for port in [&first, &second] {
                port.join_group(group, &interface).expect("it joins");
            }
            for data in [&b"one"[..], b"two"] {
                outsider.write(data, &to(group, &first)).expect("it is sent");
            }
            run_until(&reactor, || logs[..2].iter().all(|log| log.has("received two")));
            for log in &logs[..2] {
                assert_eq!(log.all(), ["started", "received one", "received two"]);
            }
            assert_eq!(logs[2].all(), ["started"]);
        }
    });
}

/// Without loop-back, the members on this host receive nothing. (The loopback interface delivers
/// all the same.)
#[test]
fn loopback_can_be_turned_off() {
    on_each(|reactor| {
        for (group, address, interface) in outer_groups() {
            let log = Log::default();
            let port = member(&reactor, address, &interface, &log);
            port.join_group(group, &interface).expect("it joins");
            assert!(port.multicast_loopback().expect("a flag"));
            port.set_multicast_loopback(false).expect("it is set");
            assert!(!port.multicast_loopback().expect("a flag"));
            port.write(b"unheard", &to(group, &port)).expect("it is sent");
            port.set_multicast_loopback(true).expect("it is set");
            port.write(b"heard", &to(group, &port)).expect("it is sent");
            run_until(&reactor, || log.has("received heard"));
            assert_eq!(log.all(), ["started", "received heard"]);
        }
    });
}

/// The TTL of IPv4 and the hop limit of IPv6 are one option, with a default of 1.
#[test]
fn the_ttl_reaches_the_socket() {
    on_each(|reactor| {
        for (_, address, interface) in groups() {
            let port = member(&reactor, address, &interface, &Log::default());
            assert_eq!(port.multicast_ttl().expect("a number"), 1);
            for ttl in [0, 16, 255] {
                port.set_multicast_ttl(ttl).expect("it is set");
                assert_eq!(port.multicast_ttl().expect("a number"), u32::from(ttl));
            }
        }
    });
}

/// Interfaces are named by address, index or name, and the names that do not fit are errors.
#[test]
fn interfaces_are_named_in_three_ways() {
    on_each(|reactor| {
        let (v4, v6) = new_groups();
        let (v4, v6) = (IpAddr::from(v4), IpAddr::from(v6));
        let by_name = MulticastInterface::Name("lo".to_owned());
        for interface in [by_name.clone(), MulticastInterface::Index(1), Ipv4Addr::LOCALHOST.into()] {
            let log = Log::default();
            let port = member(&reactor, "0.0.0.0:0", &interface, &log);
            port.join_group(v4, &interface).expect("it joins");
            port.write(b"hello", &to(v4, &port)).expect("it is sent");
            run_until(&reactor, || log.has("received hello"));
            port.leave_group(v4, &interface).expect("it leaves");
        }
        let port = member(&reactor, "[::]:0", &by_name, &Log::default());
        port.join_group(v6, &by_name).expect("it joins");
        let address = port.join_group("ff12::77:2".parse().unwrap(), &Ipv4Addr::LOCALHOST.into());
        assert!(matches!(address, Err(DatagramError::Group { .. })));
        let unknown = port.join_group(v6, &MulticastInterface::Name("no-such-interface".to_owned()));
        assert!(matches!(unknown, Err(DatagramError::UnknownInterface { name, .. }) if name == "no-such-interface"));
    });
}

/// A group of another family, an address that is no group, and a second join are typed errors.
#[test]
fn a_bad_group_is_an_error() {
    on_each(|reactor| {
        let (v4, v6) = new_groups();
        let (v4, v6) = (IpAddr::from(v4), IpAddr::from(v6));
        let interface = Ipv4Addr::LOCALHOST.into();
        let port = member(&reactor, "0.0.0.0:0", &interface, &Log::default());
        for (group, reason) in [(v6, "another family"), (Ipv4Addr::new(10, 0, 0, 1).into(), "no multicast group")] {
            for result in [port.join_group(group, &interface), port.leave_group(group, &interface)] {
                let Err(DatagramError::Group { group: named, source }) = result else { panic!("{result:?}") };
                assert!(named == group && source.to_string().contains(reason), "{source}");
            }
        }
        port.join_group(v4, &interface).expect("it joins");
        assert!(matches!(port.join_group(v4, &interface), Err(DatagramError::Group { .. })));
        port.leave_group(v4, &interface).expect("it leaves");
        assert!(matches!(port.leave_group(v4, &interface), Err(DatagramError::Group { .. })));
    });
}
