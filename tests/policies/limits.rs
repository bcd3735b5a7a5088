//! Limits of the connections of a port, on a simulated network.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::*;
use crate::common::{Echo, Log, Script, logged, once};
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionLimits, WhenFull};
use ropewalk::testing::{Conditions, MemoryReactor, Network, Peer};
use ropewalk::{ConnectOptions, ListenOptions, Port};

/// A memory reactor that echoes on port 7, with these limits.
fn echo(limits: ConnectionLimits) -> (MemoryReactor, Port) {
    let memory = MemoryReactor::new();
    let address = SocketAddr::new(MemoryReactor::HOST, 7);
    let port = memory.reactor().listen_tcp(address, &ListenOptions::new().limits(limits), |_| Some(Echo)).unwrap();
    (memory, port)
}

/// Connects this many peers, each of which asks. Returns them once nothing is under way.
fn askers(memory: &MemoryReactor, count: usize) -> Vec<Peer> {
    let peers: Vec<_> = (0..count).map(|_| memory.connect(7).unwrap()).collect();
    for peer in &peers {
        // A peer that was turned away can't write.
        let _ = peer.write(b"?");
    }
    memory.settle().unwrap();
    peers
}

fn answered(peers: &[Peer]) -> usize {
    peers.iter().filter(|peer| peer.read() == b"?").count()
}

/// A full port accepts nothing, and the next connection whenever one has ended.
#[test]
fn a_full_port_pauses() {
    let (memory, port) = echo(ConnectionLimits::new().max_connections(2));
    let mut peers = askers(&memory, 5);
    assert_eq!((answered(&peers), port.is_paused()), (2, true));
    assert!(peers.iter().all(|peer| peer.is_connected() && !peer.is_ended()), "further peers wait");
    for left in (0..3).rev() {
        peers.remove(0).close();
        memory.settle().unwrap();
        // Our end lingers until the peer's is known.
        memory.advance(SECOND).unwrap();
        assert_eq!((answered(&peers), port.is_paused()), (1, left > 0 || peers.len() == 2), "{left}");
    }
    assert_eq!(memory.reactor().counters().shed, 0);
    // A program's own pause adds to it.
    port.pause_accepting();
    peers.into_iter().for_each(Peer::close);
    memory.advance(SECOND).unwrap();
    let late = askers(&memory, 1);
    assert_eq!((answered(&late), port.is_paused()), (0, true));
    port.resume_accepting();
    memory.settle().unwrap();
    assert_eq!((answered(&late), port.is_paused()), (1, false));
}

/// A shedding port resets further peers at once, counts them, and says so once a second.
#[test]
fn a_full_port_sheds() {
    let (memory, port) = echo(ConnectionLimits::new().max_connections(2).when_full(WhenFull::Shed));
    let (peers, lines) = logged(|| askers(&memory, 5));
    assert_eq!((answered(&peers), port.is_paused()), (2, false));
    assert_eq!(peers.iter().filter(|peer| peer.is_reset()).count(), 3);
    assert_eq!(memory.reactor().counters().shed, 3);
    assert_eq!(lines.iter().filter(|line| line.contains("too many connections are open")).count(), 1, "{lines:?}");
}

/// A connection counts until its socket is closed: a peer that keeps its end open holds its place.
#[test]
fn a_lingering_socket_counts() {
    let limits = ConnectionLimits::new().max_connections(1);
    let memory = MemoryReactor::new();
    let closing = |_| {
        Some(Script::new(&Log::default()).data(|transport, _| {
            transport.write(b"bye");
            transport.lose_connection();
            Ok(())
        }))
    };
    let address = SocketAddr::new(MemoryReactor::HOST, 7);
    let port = memory.reactor().listen_tcp(address, &ListenOptions::new().limits(limits), closing).unwrap();
    let first = memory.connect(7).unwrap();
    first.write(b"?").unwrap();
    memory.settle().unwrap();
    assert_eq!((first.read(), port.is_paused()), (b"bye".to_vec(), true));
    memory.reactor().end_lingering();
    memory.settle().unwrap();
    assert!(!port.is_paused());
}

/// One peer has its number of connections, whichever they are, and others have theirs.
#[test]
fn one_peer_has_its_number() {
    let network = Network::new(1);
    let server_ip: IpAddr = "2001:db8::1".parse().unwrap();
    let server = network.reactor(server_ip);
    let address = SocketAddr::new(server_ip, 7);
    let options = ListenOptions::new().limits(ConnectionLimits::new().max_per_peer(2));
    server.listen_tcp(address, &options, |_| Some(Echo)).unwrap();
    let mut ends = Vec::new();
    // Three hosts in one /64, and one in another.
    for (ip, served) in
        [("2001:db8:0:5::1", true), ("2001:db8:0:5::2", true), ("2001:db8:0:5::3", false), ("2001:db8:0:6::1", true)]
    {
        let client = network.reactor(ip.parse().unwrap());
        let (log, received) = (Log::default(), Rc::default());
        let script = Script::new(&log).into_buffer(&received).made(|transport| {
            transport.write(b"?");
            Ok(())
        });
        let connecting = client.connect_tcp(address, &ConnectOptions::new(), once(script));
        drop(connecting.add_both(|_| ()));
        network.settle().unwrap();
        assert_eq!((received.borrow().len(), log.is_over()), (usize::from(served), !served), "{ip}");
        ends.push(client);
    }
    assert_eq!(server.counters().shed, 1);
}

/// Accepting is paced: a burst, and then one connection in each part of a second.
#[test]
fn accepting_is_paced() {
    let (memory, port) = echo(ConnectionLimits::new().accepts_per_second(4));
    let peers = askers(&memory, 10);
    // The fifth is accepted on credit.
    let mut served = answered(&peers);
    assert_eq!((served, port.is_paused()), (5, true));
    for _ in 0..5 {
        memory.advance(SECOND / 4).unwrap();
        served += answered(&peers);
    }
    assert_eq!((served, memory.reactor().counters().accepted), (10, 10));
    memory.advance(SECOND * 10).unwrap();
    assert!(!port.is_paused());
    assert_eq!(memory.reactor().timers().len(), 0, "nothing is throttled, so there is no timer");
}

/// A port that stops over waiting connections serves as many as it may have, and resets the rest. A
/// port that starts again while it is full is paused.
#[test]
fn a_full_port_stops_and_starts() {
    let (memory, port) = echo(ConnectionLimits::new().max_connections(2));
    let peers = askers(&memory, 4);
    drop(port.stop_listening());
    memory.settle().unwrap();
    assert_eq!(answered(&peers), 2);
    assert_eq!(peers.iter().filter(|peer| peer.is_reset()).count(), 2);
    port.start_listening().unwrap();
    assert!(port.is_paused());
    let late = askers(&memory, 1);
    assert_eq!(answered(&late), 0);
    peers.into_iter().for_each(Peer::close);
    memory.advance(SECOND).unwrap();
    assert_eq!((answered(&late), port.is_paused()), (1, false));
}

/// On rough networks, all clients of a port with few places are served in the end, and there are
/// never more than its number.
#[test]
fn many_seeds() {
    for seed in 0..60 {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let server_ip: IpAddr = [10, 0, 0, 1].into();
        let (server, client) = (network.reactor(server_ip), network.reactor([10, 0, 0, 2].into()));
        let address = SocketAddr::new(server_ip, 7);
        let limits = ConnectionLimits::new().max_connections(3).accepts_per_second(50);
        let open = Rc::new(std::cell::Cell::new(0_i32));
        let count = Rc::clone(&open);
        let factory = move |_| {
            let (made, lost) = (Rc::clone(&count), Rc::clone(&count));
            let script = Script::new(&Log::default())
                .made(move |_| {
                    made.set(made.get() + 1);
                    assert!(made.get() <= 3, "too many are open");
                    Ok(())
                })
                .data(|transport, data| {
                    transport.write(data);
                    Ok(())
                })
                .lost(move |_| lost.set(lost.get() - 1));
            Some(script)
        };
        server.listen_tcp(address, &ListenOptions::new().limits(limits), factory).unwrap();
        let logs: Vec<_> = (0..12_u8)
            .map(|n| {
                let log = Log::default();
                let script = Script::new(&log)
                    .made(move |transport| {
                        transport.write(&[n]);
                        Ok(())
                    })
                    .data(|transport, _| {
                        transport.lose_connection();
                        Ok(())
                    });
                let connecting = client.connect_tcp(address, &ConnectOptions::new().timeout(None), once(script));
                connecting.or_log("connecting");
                log
            })
            .collect();
        let is_done = || logs.iter().all(Log::is_over);
        network.run_until(SECOND * 600, is_done).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(logs.iter().all(|log| log.has("data")), "seed {seed}");
        assert_eq!(server.counters().shed, 0);
    }
}
