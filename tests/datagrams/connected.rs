//! Ports with a peer.

use super::*;
use ropewalk::error::DatagramError;

/// A connected port writes without an address, and hears its peer only.
#[test]
fn a_connected_port_talks_to_its_peer_only() {
    on_each(|reactor| {
        for local in LOCAL {
            let log = Log::default();
            let port = bind(&reactor, local, Recorder::new(&log));
            let ((peer, address), (stranger, other)) = (peer_at(local), peer_at(local));
            assert!(matches!(port.write_to_peer(b"early"), Err(DatagramError::NotConnected)));
            port.connect(&address).expect("it connects");
            assert_eq!(port.peer(), Some(address.clone()));
            port.write_to_peer(b"hello").expect("it is sent");
            port.write(b"again", &address).expect("it is sent");
            assert_eq!((receive(&peer).0, receive(&peer).0), (b"hello".to_vec(), b"again".to_vec()));
            stranger.send_to(b"strange", address_of(&port)).expect("it is sent");
            peer.send_to(b"answer", address_of(&port)).expect("it is sent");
            run_until(&reactor, || log.has("received answer"));
            assert_eq!(log.all(), ["started", "received answer"]);
            let error = port.write(b"lost", &other).expect_err("it is not the peer");
            assert!(matches!(&error, DatagramError::OtherPeer { to, peer } if (to, peer) == (&other, &address)));
            let error = port.connect(&other).expect_err("it has a peer");
            assert!(matches!(&error, DatagramError::AlreadyConnected { peer } if *peer == address), "{error}");
        }
    });
}

/// F59: a peer without a socket is told as `connection_refused`, never inside of a write, and the
/// port goes on: when the peer is there, it is reached.
#[test]
fn a_refusal_is_told_and_the_port_goes_on() {
    on_each(|reactor| {
        for local in LOCAL {
            let log = Log::default();
            let port = bind(&reactor, local, Recorder::new(&log));
            let (gone, address) = peer_at(local);
            drop(gone);
            port.connect(&address).expect("it connects");
            for _ in 0..5 {
                port.write_to_peer(b"anyone").expect("a refusal is no error of a later write");
                assert!(!log.has("refused"), "no callback is made inside of a write");
            }
            run_until(&reactor, || log.has("refused"));
            let (peer, _) = peer_at(&address.to_string());
            port.write_to_peer(b"now").expect("it is sent");
            assert_eq!(receive(&peer).0, b"now");
            assert!(port.is_listening() && !log.has("stopped"));
        }
    });
}

/// A callback may write from within `connection_refused`. It is told once for each refusal that
/// the port meets afterwards, without recursion.
#[test]
fn a_write_in_connection_refused_is_not_re_entered() {
    on_each(|reactor| {
        let log = Log::default();
        let mut left = 3;
        let protocol = Recorder::new(&log).refused(move |transport| {
            if left > 0 {
                left -= 1;
                transport.write_to_peer(b"again")?;
            }
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        let (gone, address) = peer_at(LOCAL[0]);
        drop(gone);
        port.connect(&address).expect("it connects");
        port.write_to_peer(b"first").expect("it is sent");
        run_until(&reactor, || log.count("refused") == 4);
        settle(&reactor);
        assert_eq!(log.count("refused"), 4);
    });
}

/// A port without a peer is not told of refusals, and its writes succeed.
#[test]
fn a_port_without_a_peer_hears_of_no_refusal() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, LOCAL[0], Recorder::new(&log));
        let (gone, address) = peer_at(LOCAL[0]);
        drop(gone);
        for _ in 0..10 {
            port.write(b"anyone", &address).expect("it is sent");
            settle(&reactor);
        }
        assert_eq!(log.all(), ["started"]);
    });
}

/// A port on all addresses has a definite one once it has a peer.
#[test]
fn a_connected_port_knows_its_own_address() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind(&reactor, "0.0.0.0:0", Recorder::new(&log));
        let (_peer, address) = peer_at(LOCAL[0]);
        assert!(port.host().ip().expect("an address").is_unspecified());
        port.connect(&address).expect("it connects");
        assert_eq!(port.host().ip(), Some(std::net::Ipv4Addr::LOCALHOST.into()));
        let shown = format!("{port:?}");
        assert!(shown.contains("127.0.0.1") && shown.contains("listening: true"), "{shown}");
    });
}
