//! Datagrams arrive whole, in both families, and `write` says why one is not sent.

use super::*;
use ropewalk::Deferred;
use ropewalk::error::{DatagramError, ListenError};

/// A datagram arrives as it was written, with its sender, and an answer reaches the sender.
#[test]
fn datagrams_go_to_and_fro_over_both_families() {
    on_each(|reactor| {
        for local in LOCAL {
            let log = Log::default();
            let port = bind(&reactor, local, Recorder::echo(&log));
            let (peer, address) = peer_at(local);
            for data in [&b"one"[..], b"two", &[7; 1400]] {
                peer.send_to(data, address_of(&port)).expect("it is sent");
                run_until(&reactor, || log.has(&format!("received {}", show(data))));
                assert_eq!(receive(&peer), (data.to_vec(), address_of(&port)));
            }
            port.write(b"unasked", &address).expect("it is sent");
            assert_eq!(receive(&peer).0, b"unasked");
            assert_eq!((port.counts().received, port.counts().sent), (3, 4));
        }
    });
}

/// F59: an empty datagram is a datagram, in both directions.
#[test]
fn an_empty_datagram_is_delivered_and_sent() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, LOCAL[0], Recorder::echo(&log));
        let (peer, _) = peer_at(LOCAL[0]);
        for _ in 0..3 {
            peer.send_to(b"", address_of(&port)).expect("it is sent");
        }
        run_until(&reactor, || log.count("received") == 3);
        assert_eq!([receive(&peer).0, receive(&peer).0, receive(&peer).0], [[0; 0]; 3]);
        assert!(!log.has("truncated"));
    });
}

/// The longest datagram of each family arrives whole. One more byte is an error, and not sent.
#[test]
fn the_longest_datagram_arrives_and_a_longer_one_is_an_error() {
    on_each(|reactor| {
        for (local, most) in [(LOCAL[0], 65_507), (LOCAL[1], 65_527)] {
            let log = Log::default();
            let port = bind(&reactor, local, Recorder::new(&log));
            port.write(&vec![1; most], &port.host()).expect("it is sent");
            run_until(&reactor, || log.has("received"));
            assert_eq!(log.all(), ["started".to_owned(), format!("received {most} bytes")]);
            let error = port.write(&vec![1; most + 1], &port.host()).expect_err("it is too long");
            assert!(matches!(error, DatagramError::MessageTooLong { length, .. } if length == most + 1), "{error}");
            let error = port.write(&vec![1; 1 << 20], &port.host()).expect_err("it is too long");
            assert_eq!(error.to_string(), format!("a datagram of 1048576 bytes is too long for {}", port.host()));
        }
    });
}

/// F59: a datagram that is longer than the port takes is said to be truncated, with its whole
/// length. The ones at the limit and below are not.
#[test]
fn a_longer_datagram_is_said_to_be_truncated() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind_with(&reactor, LOCAL[0], &UdpOptions::new().max_packet_bytes(5), Recorder::new(&log));
        let (peer, _) = peer_at(LOCAL[0]);
        for data in ["1234", "12345", "123456", "abc"] {
            peer.send_to(data.as_bytes(), address_of(&port)).expect("it is sent");
        }
        run_until(&reactor, || log.has("received abc"));
        let expected = ["started", "received 1234", "received 12345", "truncated 12345 of Some(6)", "received abc"];
        assert_eq!(log.all(), expected);
        assert_eq!((port.counts().received, port.counts().truncated), (4, 1));
    });
}

/// A port that takes no byte is told of each datagram all the same, and empty ones are whole.
#[test]
fn a_port_for_no_bytes_is_told_of_each_datagram() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind_with(&reactor, LOCAL[0], &UdpOptions::new().max_packet_bytes(0), Recorder::new(&log));
        port.write(b"ping", &port.host()).expect("it is sent");
        port.write(b"", &port.host()).expect("it is sent");
        run_until(&reactor, || log.has("received"));
        assert_eq!(log.all(), ["started", "truncated  of Some(4)", "received "]);
    });
}

/// Addresses of another family are refused by type, before a system call.
#[test]
fn an_address_of_another_family_is_an_error() {
    on_each(|reactor| {
        let log = Log::default();
        let v4 = bind(&reactor, LOCAL[0], Recorder::new(&log));
        let v6 = bind(&reactor, LOCAL[1], Recorder::new(&log));
        for (port, to) in [(&v4, v6.host()), (&v6, v4.host()), (&v4, unix_name().into())] {
            let error = port.write(b"lost", &to).expect_err("it is out of reach");
            assert!(matches!(&error, DatagramError::WrongFamily { to: named, .. } if *named == to), "{error}");
        }
        assert_eq!((v4.counts().sent, v6.counts().sent), (0, 0));
    });
}

/// A port on all addresses of both families shows IPv4 peers with IPv4 addresses, and answers them.
#[test]
fn a_port_of_both_families_answers_ipv4_peers() {
    on_each(|reactor| {
        let log = Log::default();
        let seen = log.clone();
        let options = UdpOptions::new().ipv6_only(false);
        let protocol = Recorder::new(&log).received(move |transport, data, peer| {
            seen.add(format!("from {peer}"));
            Ok(transport.write(data, peer)?)
        });
        let port = bind_with(&reactor, "[::]:0", &options, protocol);
        let number = port.host().port().expect("a number");
        for local in LOCAL {
            let (peer, address) = peer_at(local);
            peer.send_to(b"hello", (address.ip().expect("an address"), number)).expect("it is sent");
            run_until(&reactor, || log.has(&format!("from {address}")));
            assert_eq!(receive(&peer).0, b"hello");
        }
    });
}

/// A port for IPv6 only leaves the number free for IPv4, and cannot reach it.
#[test]
fn a_port_for_ipv6_only_leaves_ipv4_alone() {
    on_each(|reactor| {
        let log = Log::default();
        let v6 = bind_with(&reactor, "[::]:0", &UdpOptions::new().ipv6_only(true), Recorder::new(&log));
        let number = v6.host().port().expect("a number");
        let v4 = bind(&reactor, &format!("127.0.0.1:{number}"), Recorder::new(&log));
        let error = v6.write(b"lost", &v4.host()).expect_err("it is out of reach");
        assert!(matches!(error, DatagramError::WrongFamily { .. }), "{error}");
        let refused = reactor.listen_udp(loopback(), &UdpOptions::new().ipv6_only(true), Recorder::new(&log));
        assert!(matches!(refused, Err(ListenError::NotIpv6 { option: "ipv6_only", .. })));
    });
}

/// A taken address is an error, and a stopped port has given its address back at once.
#[test]
fn a_stopped_port_frees_its_address() {
    on_each(|reactor| {
        let log = Log::default();
        let first = bind(&reactor, LOCAL[0], Recorder::new(&log));
        let second = reactor.listen_udp(address_of(&first), &UdpOptions::new(), Recorder::new(&log));
        assert!(matches!(second, Err(ListenError::Bind { .. })), "{second:?}");
        let watched = reactor.counters().watched;
        let stopped = first.stop_listening();
        let second = bind(&reactor, &first.host().to_string(), Recorder::new(&log));
        assert_eq!((second.host(), reactor.counters().watched), (first.host(), watched));
        result_of(&reactor, stopped).expect("it stops");
        second.write(b"hello", &first.host()).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
    });
}

/// The Deferred of a stop fires behind `stop_protocol`, and never inside of the call; each call of
/// `stop_listening` has one. A stopped port refuses everything, and panics nowhere.
#[test]
fn a_stopped_port_refuses_every_request() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, LOCAL[0], Recorder::new(&log));
        let told = |deferred: Deferred<()>| {
            let log = log.clone();
            deferred.add_callback(move |()| log.add("told"))
        };
        let (first, second) = (told(port.stop_listening()), told(port.stop_listening()));
        assert_eq!(log.all(), ["started"]);
        run_until(&reactor, || log.count("told") == 2);
        let third = told(port.stop_listening());
        assert_eq!(log.all(), ["started", "stopped", "told", "told", "told"]);
        drop((first, second, third));
        let errors = [
            port.write(b"late", &port.host()).err(),
            port.write_to_peer(b"late").err(),
            port.connect(&port.host()).err(),
            port.set_broadcast_allowed(true).err(),
            port.receive_buffer_bytes().err(),
            port.multicast_ttl().err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(DatagramError::NotListening)), "{error:?}");
        }
        port.pause_receiving();
        port.resume_receiving();
        assert_eq!((port.queued_bytes(), port.is_listening()), (0, false));
    });
}

/// A reactor that closes stops its datagram ports, and their handles refuse.
#[test]
fn a_closed_reactor_stops_its_ports() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, LOCAL[0], Recorder::new(&log));
        reactor.close().expect("it closes");
        assert_eq!(log.all(), ["started", "stopped"]);
        assert!(matches!(port.write(b"late", &port.host()), Err(DatagramError::NotListening)));
        assert!(port.stop_listening().is_called());
        let late = reactor.listen_udp(loopback(), &UdpOptions::new(), Recorder::new(&log));
        assert!(matches!(late, Err(ListenError::ReactorGone)));
    });
}

/// The descriptor of a port is closed with it, also on the paths of errors (A16).
#[test]
fn no_descriptor_is_left_behind() {
    own_process!();
    on_each(|reactor| {
        let log = Log::default();
        let round = || {
            let port = bind(&reactor, LOCAL[0], Recorder::new(&log));
            let taken = reactor.listen_udp(address_of(&port), &UdpOptions::new(), Recorder::new(&log));
            assert!(taken.is_err());
            let failing = Recorder::new(&log).started(|_| Err("no".into()));
            assert!(reactor.listen_udp(loopback(), &UdpOptions::new(), failing).is_err());
            result_of(&reactor, port.stop_listening()).expect("it stops");
            settle(&reactor);
        };
        round();
        let before = descriptors();
        for _ in 0..20 {
            round();
        }
        assert_eq!(descriptors(), before);
    });
}
