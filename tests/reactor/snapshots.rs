//! Snapshots of reactors: their contents, their cost while no program asks, and their texts.

use std::io::{Read, Write};
use std::time::Duration;

use ropewalk::address::UnixAddress;
use ropewalk::interfaces::*;
use ropewalk::reactor::{ConnectionState, UnixListenOptions};
use ropewalk::testing::MemoryReactor;
use ropewalk::transport::DiscardMode;
use ropewalk::{BackendKind, ConnectOptions, ListenOptions, Reactor, Result, Transport, for_protocol};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::common::*;
use crate::group::{ANY_PORT, backends, counters, counting, greeted, group, inet};

/// Answers as its peer asks.
struct Obedient;

impl Protocol for Obedient {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        match data {
            b"pause" => transport.pause_producing(),
            b"close" => transport.lose_connection(),
            b"shut" => transport.lose_write_connection(),
            b"discard" => transport.discard(DiscardMode::End),
            _ => transport.write(&data.repeat(2)),
        }
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        Ok(())
    }
}

fn serving() -> MemoryReactor {
    let memory = MemoryReactor::new();
    let port = memory.reactor().listen_tcp(([0, 0, 0, 0], 7).into(), &ListenOptions::new(), for_protocol(|_| Obedient));
    port.expect("a free port");
    memory
}

/// Bytes and ages are kept from the moment on at which the program asks, and not before.
#[test]
fn bytes_and_ages_are_counted_once_a_program_asks() {
    let memory = serving();
    let early = memory.connect(7).unwrap();
    early.write(b"12345").unwrap();
    memory.settle().unwrap();
    let before = memory.reactor().snapshot();
    let shown = &before.connections[0];
    assert_eq!((shown.age, shown.received_bytes, shown.written_bytes, shown.busy), (None, None, None, None));
    assert_eq!((before.observed, before.ports[0].accepted), (None, 1));
    assert_eq!(shown.state, ConnectionState::Open);
    assert!(shown.protocol.ends_with("Obedient") && !shown.is_client && shown.descriptor.is_none());

    memory.reactor().observe();
    let late = memory.connect(7).unwrap();
    memory.advance(Duration::from_secs(3)).unwrap();
    late.write(b"123").unwrap();
    early.write(b"1").unwrap();
    memory.settle().unwrap();
    let after = memory.reactor().snapshot();
    assert_eq!(after.observed, Some(Duration::from_secs(3)));
    let numbers: Vec<_> = after.connections.iter().map(|c| (c.age, c.received_bytes, c.written_bytes)).collect();
    assert_eq!(numbers, [(None, Some(1), Some(2)), (Some(Duration::from_secs(3)), Some(3), Some(6))]);
    assert_ne!(after.connections[0].id, after.connections[1].id);
}

/// The state of a connection is that of its machine: paused, half closed, closing, gone.
#[test]
fn a_connection_shows_its_state() {
    let state = |message: &[u8]| {
        let memory = serving();
        memory.reactor().observe();
        let peer = memory.connect(7).unwrap();
        peer.write(message).unwrap();
        memory.settle().unwrap();
        let snapshot = memory.reactor().snapshot();
        snapshot.connections.first().map(|shown| (shown.state, shown.is_paused))
    };
    assert_eq!(state(b"?"), Some((ConnectionState::Open, false)));
    assert_eq!(state(b"pause"), Some((ConnectionState::Open, true)));
    assert_eq!(state(b"shut"), Some((ConnectionState::WriteClosed, false)));
    assert_eq!(state(b"discard"), None);
    let memory = serving();
    let peer = memory.connect(7).unwrap();
    peer.shut_down().unwrap();
    memory.settle().unwrap();
    let shown = memory.reactor().snapshot().connections.pop().unwrap();
    assert_eq!(shown.state, ConnectionState::ReadClosed);
}

/// A snapshot may be taken inside of a callback, which is the call under way.
#[test]
fn a_callback_may_take_one() {
    let memory = MemoryReactor::new();
    let reactor = memory.reactor().clone();
    let script = Log::default();
    let (log, taken) = (script.clone(), reactor.clone());
    let factory = for_protocol(move |_| {
        let (log, taken) = (log.clone(), taken.clone());
        Script::new(&log.clone()).data(move |transport, _| {
            transport.lose_connection();
            log.add(format!("{:?}", taken.snapshot().connections[0].state));
            Ok(())
        })
    });
    reactor.listen_tcp(([0, 0, 0, 0], 7).into(), &ListenOptions::new(), factory).unwrap();
    let peer = memory.connect(7).unwrap();
    peer.write(b"now").unwrap();
    memory.settle().unwrap();
    assert!(script.has("Closing"), "{:?}", script.all());
    reactor.close().unwrap();
}

/// Timers, jobs and attempts are in it, without an observation.
#[test]
fn timers_and_attempts_are_counted() {
    let memory = MemoryReactor::new();
    let reactor = memory.reactor();
    let timer = reactor.call_later(Duration::from_secs(5), || ());
    let connecting =
        reactor.connect_tcp(([192, 0, 2, 1], 9).into(), &ConnectOptions::new().timeout(None), |_| Some(Obedient));
    memory.settle().unwrap();
    memory.advance(Duration::from_secs(2)).unwrap();
    let snapshot = reactor.snapshot();
    assert_eq!(snapshot.timers.next_due, Some(Duration::from_secs(3)));
    assert_eq!((snapshot.timers.pending, snapshot.connecting, snapshot.connections.len()), (1, 1, 0));
    timer.cancel().unwrap();
    connecting.cancel();
    drop(connecting.add_errback(|_| Err(ropewalk::Failure::message("cancelled"))).add_both(|_| ()));
    memory.settle().unwrap();
    assert_eq!(reactor.snapshot().connecting, 0);
}

/// Over real sockets, on each backend: descriptors, queued bytes, and a text for people.
#[test]
fn real_sockets_have_descriptors_and_queues() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let builder = Reactor::builder().signals(false).backend(kind).observe(true);
        let reactor = builder.build().expect("the system gives us a poller");
        if reactor.backend() != kind {
            println!("skipped: {NO_BACKEND}");
            continue;
        }
        let port = reactor.listen_tcp(loopback(), &ListenOptions::new(), for_protocol(|_| Obedient)).unwrap();
        let mut peer = dial(port.host().socket_addr().unwrap());
        // Twice as much comes back, this peer does not read, and the system has no room for it.
        set_socket_recv_buffer_size(&peer, 64 << 10).unwrap();
        let message = vec![b'x'; 8 << 20];
        let writer = std::thread::spawn(move || {
            peer.write_all(&message).expect("room");
            peer
        });
        let peer = run_beside(&reactor, writer);
        let all = Some(8 << 20);
        run_until(&reactor, || reactor.snapshot().connections[0].received_bytes == all);
        let snapshot = reactor.snapshot();
        let shown = &snapshot.connections[0];
        assert_eq!(shown.written_bytes, Some(16 << 20), "{kind:?}");
        assert!(shown.queued_bytes > 0 && shown.age.is_some() && shown.busy.is_some(), "{shown:?}");
        let descriptors = [snapshot.ports[0].descriptor, shown.descriptor];
        assert!(descriptors.iter().all(Option::is_some) && descriptors[0] != descriptors[1], "{descriptors:?}");
        assert!(snapshot.longest_callback.is_some_and(|longest| longest.callback == "data_received"));
        let text = snapshot.to_string();
        let row = text.lines().find(|line| line.contains("Obedient")).expect("a row for the connection");
        assert!(row.contains("8388608  16777216"), "{text}");
        drop(peer);
        reactor.close().unwrap();
    }
}

/// A text for programs is one line, whatever a socket is called.
#[test]
fn a_line_of_json_is_one_line() {
    let name = std::env::temp_dir().join(format!("ropewalk \"snapshot\"\n{}", std::process::id()));
    let reactor = reactor();
    let address = UnixAddress::path(&name).unwrap();
    let port = reactor.listen_unix(&address, &UnixListenOptions::new(), for_protocol(|_| Obedient)).unwrap();
    let snapshot = reactor.snapshot();
    let text = snapshot.to_string();
    assert!(text.lines().any(|line| line.contains("ropewalk \"snapshot\"?")), "{text}");
    let json = snapshot.to_json();
    assert_eq!(json.lines().count(), 1);
    assert!(json.contains(r#"ropewalk \"snapshot\"\u000a"#) && json.contains(r#""connections":[]"#), "{json}");
    drop(port);
    reactor.close().unwrap();
}

/// Each member of a group has a snapshot of its own, with the connections that it was handed.
#[test]
fn a_group_has_one_for_each_member() {
    let _watchdog = Watchdog::new();
    for backend in backends() {
        let served = counters(2);
        let group = group(2)
            .backend(backend)
            .setup(|member| {
                member.reactor().observe();
                assert!(member.group().snapshots(LIMIT)?.is_empty(), "the group has not started");
                Ok(())
            })
            .listen(ANY_PORT, counting(&served))
            .start()
            .unwrap();
        let open: Vec<_> = (0..4).map(|_| greeted(inet(&group, 0))).collect();
        let snapshots = group.remote().snapshots(LIMIT).unwrap();
        let shown: Vec<_> = snapshots.iter().flatten().map(|member| member.connections.len()).collect();
        assert_eq!(shown, [2, 2], "{backend:?}");
        let written =
            snapshots.iter().flatten().flat_map(|member| &member.connections).map(|shown| shown.written_bytes);
        assert_eq!(written.collect::<Vec<_>>(), [Some(1); 4]);
        assert_eq!(snapshots.iter().flatten().map(|member| member.ports[0].accepted).sum::<u64>(), 4);
        drop(open);
        let remote = group.remote().clone();
        group.stop();
        assert!(group.join().unwrap().is_success());
        assert_eq!(remote.snapshots(LIMIT).unwrap(), [None, None], "they have ended");
    }
}

/// A connection of a port that a group shares can be discarded, and its member's drain does not
/// wait for it.
#[test]
fn a_connection_of_a_group_can_be_discarded() {
    let _watchdog = Watchdog::new();
    let group = group(1).listen(ANY_PORT, |_| Ok(for_protocol(|_| Obedient))).start().unwrap();
    let mut peer = dial(inet(&group, 0));
    peer.write_all(b"discard").unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the end of the stream");
    let snapshots = group.remote().snapshots(LIMIT).unwrap();
    assert!(snapshots[0].as_ref().unwrap().connections.is_empty());
    group.stop();
    assert!(group.join().unwrap().is_success());
}
