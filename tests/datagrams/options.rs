//! Options at the socket.

use std::net::{Ipv6Addr, SocketAddrV6};

use super::*;
use ropewalk::address::UnixAddress;
use ropewalk::datagram::UnixDatagramOptions;
use ropewalk::error::{DatagramError, ListenError};
use ropewalk::{ListenOptions, for_protocol};

/// The sizes of the buffers reach the socket, before the bind and later.
#[test]
fn buffer_sizes_reach_the_socket() {
    on_each(|reactor| {
        let log = Log::default();
        let options = UdpOptions::new().receive_buffer_bytes(20_000).send_buffer_bytes(30_000);
        let port = bind_with(&reactor, LOCAL[0], &options, Recorder::new(&log));
        // Linux reports twice the number.
        assert_eq!(port.receive_buffer_bytes().expect("a size"), 40_000);
        assert_eq!(port.send_buffer_bytes().expect("a size"), 60_000);
        port.set_receive_buffer_bytes(50_000).expect("it is set");
        port.set_send_buffer_bytes(60_000).expect("it is set");
        assert_eq!(port.receive_buffer_bytes().expect("a size"), 100_000);
        assert_eq!(port.send_buffer_bytes().expect("a size"), 120_000);
    });
}

/// Sizes below the system's minimum and above its maximum are the nearest, up to the last number.
#[test]
fn buffers_of_any_size_are_taken() {
    on_each(|reactor| {
        let log = Log::default();
        for bytes in [0, 1, i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX] {
            let options = UdpOptions::new().receive_buffer_bytes(bytes).send_buffer_bytes(bytes);
            let port = bind_with(&reactor, LOCAL[0], &options, Recorder::new(&log));
            let sizes = || [port.receive_buffer_bytes().expect("a size"), port.send_buffer_bytes().expect("a size")];
            let bound = sizes();
            port.set_receive_buffer_bytes(bytes).expect("it is set");
            port.set_send_buffer_bytes(bytes).expect("it is set");
            assert_eq!(sizes(), bound);
            assert!(bound.iter().all(|size| (1_000..i32::MAX as u32).contains(size)), "{bytes}: {bound:?}");
            let name = UnixAddress::unnamed();
            let options = UnixDatagramOptions::new().send_buffer_bytes(bytes);
            reactor.listen_unix_datagram(&name, &options, Recorder::new(&log)).expect("a port");
            let options = ListenOptions::new().receive_buffer_bytes(bytes).send_buffer_bytes(bytes);
            let factory = for_protocol(|_| Script::new(&Log::default()));
            reactor.listen_tcp(LOCAL[0].parse().expect("an address"), &options, factory).expect("a port");
        }
    });
}

/// Broadcasts are refused until they are allowed, with a typed error.
#[test]
fn broadcasts_have_to_be_allowed() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, "0.0.0.0:0", Recorder::new(&log));
        let everyone: SocketAddr = ([255, 255, 255, 255], port.host().port().expect("a number")).into();
        assert!(!port.broadcast_allowed().expect("a flag"));
        let error = port.write(b"hello", &everyone.into()).expect_err("it is not allowed");
        assert!(
            matches!(&error, DatagramError::Send { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied),
            "{error}"
        );
        port.set_broadcast_allowed(true).expect("it is set");
        assert!(port.broadcast_allowed().expect("a flag"));
        // The loopback network has a broadcast address on every host.
        let local: SocketAddr = ([127, 255, 255, 255], port.host().port().expect("a number")).into();
        port.write(b"hello", &local.into()).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
        let allowed = bind_with(&reactor, "0.0.0.0:0", &UdpOptions::new().broadcast(true), Recorder::new(&log));
        assert!(allowed.broadcast_allowed().expect("a flag"));
    });
}

/// Several ports share a number with `reuse_port`, and every datagram reaches one of them.
#[test]
fn ports_share_a_number() {
    on_each(|reactor| {
        let log = Log::default();
        let options = UdpOptions::new().reuse_port(true);
        let first = bind_with(&reactor, LOCAL[0], &options, Recorder::new(&log));
        let _second = bind_with(&reactor, &first.host().to_string(), &options, Recorder::new(&log));
        for _ in 0..20 {
            let (peer, _) = peer_at(LOCAL[0]);
            peer.send_to(b"hello", address_of(&first)).expect("it is sent");
        }
        run_until(&reactor, || log.count("received hello") == 20);
    });
}

/// The port counts among the watched items, and is shown in a snapshot.
#[test]
fn a_port_is_in_the_snapshot() {
    on_each(|reactor| {
        let before = reactor.counters().watched;
        let port = bind(&reactor, LOCAL[0], Recorder::new(&Log::default()));
        assert_eq!((reactor.counters().watched, reactor.snapshot().datagram_ports), (before + 1, 1));
        assert!(reactor.snapshot().to_json().contains("\"datagram_ports\":1"));
        result_of(&reactor, port.stop_listening()).expect("it stops");
        assert_eq!((reactor.counters().watched, reactor.snapshot().datagram_ports), (before, 0));
    });
}

/// A size beyond the longest datagram reserves no memory.
#[test]
fn the_largest_packet_has_a_limit() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind_with(&reactor, LOCAL[0], &UdpOptions::new().max_packet_bytes(usize::MAX), Recorder::new(&log));
        assert_eq!(port.max_packet_bytes(), 64 * 1024);
        port.write(b"hello", &port.host()).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
    });
}

/// An observed reactor measures the callbacks of datagram ports too.
#[test]
fn a_callback_is_measured() {
    on_each(|reactor| {
        reactor.observe();
        let log = Log::default();
        let port = bind(&reactor, LOCAL[0], Recorder::new(&log));
        port.write(b"hello", &port.host()).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
        let longest = reactor.snapshot().longest_callback.expect("there was a call");
        assert_eq!((longest.callback, longest.connection), ("datagram_received", None));
    });
}

/// Returns a link-local address of this host, and the name of its interface.
fn link_local() -> Option<(Ipv6Addr, String)> {
    // A line is the address in 32 digits, the index, the length of the prefix, the scope, flags,
    // and the name.
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = u128::from_str_radix(words.first()?, 16).ok().map(Ipv6Addr::from)?;
        ip.is_unicast_link_local().then_some((ip, (*words.last()?).to_owned()))
    });
    if found.is_none() {
        println!("skipped: no interface has a link-local address");
    }
    found
}

/// An address of a link belongs to an interface, which has a name. An unknown name is an error, and
/// so is a name for an address of IPv4.
#[test]
fn an_interface_is_named() {
    on_each(|reactor| {
        let listen = |address: &str, name: &str| {
            let options = UdpOptions::new().scope(name);
            reactor.listen_udp(address.parse().expect("an address"), &options, Recorder::new(&Log::default()))
        };
        let unknown = listen(LOCAL[1], "no-such-interface");
        assert!(matches!(unknown, Err(ListenError::UnknownInterface { name, .. }) if name == "no-such-interface"));
        let other = listen(LOCAL[0], "lo");
        assert!(matches!(other, Err(ListenError::NotIpv6 { option: "scope", .. })), "{other:?}");
        let port = listen(LOCAL[1], "lo").expect("a port");
        let to = "[fe80::1]:9".parse().expect("an address");
        let unknown = port.address_on(to, "no-such-interface");
        assert!(matches!(unknown, Err(DatagramError::UnknownInterface { .. })), "{unknown:?}");
        assert_eq!(port.address_on(to, "lo").expect("an address").to_string(), "[fe80::1%1]:9");
        let Some((ip, name)) = link_local() else { return };
        let log = Log::default();
        let at = SocketAddrV6::new(ip, 0, 0, 0);
        let port = reactor.listen_udp(at.into(), &UdpOptions::new().scope(&name), Recorder::new(&log)).expect("a port");
        let number = port.host().port().expect("a number");
        let itself = port.address_on(SocketAddrV6::new(ip, number, 0, 0), &name).expect("an address");
        assert_eq!(itself, port.host());
        port.write(b"hello", &itself).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
    });
}
