//! Connections on the simulated network whose two ends do not have the same layers. Each end is
//! held to its own bytes.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::tls::{CLEAN, Seen, side, tls_side, usual};
use crate::common::{Script, once};
use ropewalk::testing::{Conditions, Network};
use ropewalk::{ConnectOptions, ListenOptions};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn address() -> SocketAddr {
    SocketAddr::new(SERVER, 7)
}

/// Networks on which bytes come as they were sent, and networks that cut them anywhere.
fn networks() -> impl Iterator<Item = Network> {
    (0..12).map(|seed| {
        let conditions = if seed == 0 { Conditions::ideal() } else { Conditions::rough(seed).window(4096) };
        Network::with_conditions(seed, conditions)
    })
}

/// Connects two scripts on reactors of their own, and waits until both have ended.
fn meet(network: &Network, client: (Script, &Seen), server: (Script, &Seen)) {
    let (serving, asking) = (network.reactor(SERVER), network.reactor(CLIENT));
    let _port = serving.listen_tcp(address(), &ListenOptions::new(), once(server.0)).unwrap();
    drop(asking.connect_tcp(address(), &ConnectOptions::new(), once(client.0)).add_both(|_| ()));
    let ended = || client.1.log.is_over() && server.1.log.is_over();
    network.run_until(Duration::from_secs(3600), ended).unwrap();
}

/// A client that speaks plain to a TLS port is an error of that connection, on either side.
#[test]
fn a_plain_client_of_a_tls_port() {
    let (_, _, tls) = usual();
    for network in networks() {
        let ((client, asking), (server, serving)) = (side(), tls_side(tls.clone()));
        let client = client.made(|transport| {
            transport.write(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
            Ok(())
        });
        meet(&network, (client, &asking), (server, &serving));
        serving.error();
        assert_eq!(serving.text(), "", "unsealed bytes are not delivered");
    }
}

/// A TLS client of a plain port: the server is given the client's records as they came, and the
/// client fails at the answer.
#[test]
fn a_tls_client_of_a_plain_port() {
    let (_, tls, _) = usual();
    for network in networks() {
        let ((client, asking), (server, serving)) = (tls_side(tls.clone()), side());
        let server = server.data(|transport, _| {
            transport.write(b"500 what was that?\r\n");
            Ok(())
        });
        meet(&network, (client, &asking), (server, &serving));
        asking.error();
        assert_eq!(serving.received.borrow()[..2], [22, 3], "a record of a handshake");
    }
}

/// STARTTLS on the server's side only, and on the client's only.
#[test]
fn starttls_on_one_side() {
    let (_, client_tls, server_tls) = usual();
    for network in networks() {
        let ((client, asking), (server, serving)) = (side(), side());
        let tls = server_tls.clone();
        let server = server.data(move |transport, data| {
            if data.contains(&b'\n') {
                transport.write(b"go ahead\n");
                transport.start_tls(&tls)?;
                transport.write(b"secret");
            }
            Ok(())
        });
        let begin = |transport: &ropewalk::Transport| {
            transport.write(b"STARTTLS\n");
            Ok(())
        };
        let heard = Rc::clone(&asking.received);
        let client = client.made(begin).data(move |transport, _| {
            if heard.borrow().ends_with(b"\n") {
                transport.write(b"and now without, all the same\n");
            }
            Ok(())
        });
        meet(&network, (client, &asking), (server, &serving));
        serving.error();
        assert_eq!(serving.text(), "STARTTLS\n");
        assert!(asking.text().starts_with("go ahead\n") && !asking.text().contains("secret"), "{}", asking.text());
    }
    for network in networks() {
        let ((client, asking), (server, serving)) = (side(), side());
        let tls = client_tls.clone();
        let client = client.made(move |transport| {
            transport.write(b"STARTTLS\n");
            transport.start_tls(&tls)?;
            transport.write(b"secret");
            Ok(())
        });
        let server = server.data(|transport, _| {
            transport.write(b"500 never heard of it\n");
            Ok(())
        });
        meet(&network, (client, &asking), (server, &serving));
        asking.error();
        assert!(serving.received.borrow().starts_with(b"STARTTLS\n\x16\x03"), "{}", serving.text());
    }
}

/// Garbage at a TLS port, from a peer that the test plays, and from one that says nothing and goes,
/// as a port scanner does.
#[test]
fn garbage_at_a_tls_port() {
    let (_, _, tls) = usual();
    let garbage: [&[u8]; 4] = [b"", b"\0", &[0xff; 600], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"];
    for network in networks() {
        for garbage in garbage {
            let (server, serving) = tls_side(tls.clone());
            let reactor = network.reactor(SERVER);
            let port = reactor.listen_tcp(address(), &ListenOptions::new(), once(server)).unwrap();
            let peer = network.connect(address());
            network.run_until(Duration::from_secs(60), || serving.log.has("made")).unwrap();
            network.settle().unwrap();
            peer.write(garbage).unwrap();
            peer.shut_down().unwrap();
            network.run_until(Duration::from_secs(60), || serving.log.is_over()).unwrap();
            assert_eq!(serving.text(), "");
            network.settle().unwrap();
            let answer = peer.read();
            assert!(answer.first().is_none_or(|kind| *kind == 21), "an alert, or nothing: {answer:?}");
            peer.close();
            drop(port.stop_listening());
            network.settle().unwrap();
        }
    }
}

/// Where both ends have the same layers they are compared as before: what is sealed on one side
/// arrives on the other, whole.
#[test]
fn two_sides_with_tls() {
    let (_, client_tls, server_tls) = usual();
    for network in networks() {
        let ((client, asking), (server, serving)) = (tls_side(client_tls.clone()), tls_side(server_tls.clone()));
        let server = server.data(|transport, data| {
            transport.write(data);
            Ok(())
        });
        let heard = Rc::clone(&asking.received);
        let client = client.data(move |transport, _| {
            if heard.borrow().len() == 3000 {
                transport.lose_connection();
            }
            Ok(())
        });
        let client = client.secured(|transport| {
            transport.write(&[7; 3000]);
            Ok(())
        });
        meet(&network, (client, &asking), (server, &serving));
        assert_eq!(
            (asking.log.reason(), serving.log.reason()),
            (CLEAN["lost: ".len()..].into(), CLEAN["lost: ".len()..].into())
        );
        assert_eq!((asking.received.borrow().len(), serving.received.borrow().len()), (3000, 3000));
    }
}
