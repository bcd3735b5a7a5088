//! Datagrams are received in batches, and sent in batches by a port that collects its writes.
//! Neither shows in the order of datagrams, and none is lost by it.

use std::cell::Cell;
use std::rc::Rc;

use super::*;

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("received {number}")).collect()
}

/// Sends numbered datagrams to a port, which arrive in one batch.
fn send_numbers(port: &DatagramTransport, count: usize) {
    let (peer, _) = peer_at(LOCAL[0]);
    for number in 0..count {
        peer.send_to(number.to_string().as_bytes(), address_of(port)).expect("it is sent");
    }
}

/// A pause in the midst of a batch holds its rest back. It comes first after the resumption, before
/// datagrams that have arrived meanwhile.
#[test]
fn a_pause_holds_the_rest_of_a_batch_back() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).received(|transport, data, _| {
            if data == b"2" || data == b"5" {
                transport.pause_receiving();
            }
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        send_numbers(&port, 8);
        run_until(&reactor, || log.has("received 2"));
        settle(&reactor);
        assert_eq!(log.count("received"), 3);
        peer_at(LOCAL[0]).0.send_to(b"8", address_of(&port)).expect("it is sent");
        port.resume_receiving();
        run_until(&reactor, || log.has("received 5"));
        settle(&reactor);
        assert_eq!(log.count("received"), 6);
        port.resume_receiving();
        run_until(&reactor, || log.has("received 8"));
        assert_eq!(log.all()[1..], numbers(9));
        assert_eq!(port.counts().received, 9);
    });
}

/// A port that is paused in the midst of a batch, and one that stops there, leave the batches of
/// others alone.
#[test]
fn a_stop_drops_the_rest_of_its_own_batch_only() {
    on_each(|reactor| {
        let (paused, stopped) = (Log::default(), Log::default());
        let pausing = Recorder::new(&paused).received(|transport, data, _| {
            if data == b"0" {
                transport.pause_receiving();
            }
            Ok(())
        });
        let stopping = Recorder::new(&stopped).received(|transport, _, _| {
            drop(transport.stop_listening());
            Ok(())
        });
        let kept = bind(&reactor, LOCAL[0], pausing);
        let dropped = bind(&reactor, LOCAL[0], stopping);
        send_numbers(&kept, 5);
        run_until(&reactor, || paused.has("received 0"));
        send_numbers(&dropped, 5);
        run_until(&reactor, || stopped.has("stopped"));
        settle(&reactor);
        assert_eq!(stopped.all(), ["started", "received 0", "stopped"]);
        kept.resume_receiving();
        run_until(&reactor, || paused.has("received 4"));
        assert_eq!(paused.all()[1..], numbers(5));
    });
}

/// A port that is stopped while it is paused in the midst of a batch delivers nothing more.
#[test]
fn a_stop_during_a_pause_drops_the_rest() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).received(|transport, _, _| {
            transport.pause_receiving();
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        send_numbers(&port, 5);
        run_until(&reactor, || log.has("received 0"));
        let stopped = port.stop_listening();
        port.resume_receiving();
        result_of(&reactor, stopped).expect("it stops");
        settle(&reactor);
        assert_eq!(log.all(), ["started", "received 0", "stopped"]);
    });
}

/// Collected answers leave in the order of their writes, more of them than a batch has too, and all
/// of them in the turn of their questions.
#[test]
fn collected_answers_leave_in_order() {
    on_each(|reactor| {
        let options = UdpOptions::new().collect_writes(true);
        let seen = Rc::new(Cell::new(0));
        let count = Rc::clone(&seen);
        let protocol = Recorder::new(&Log::default()).received(move |transport, data, peer| {
            count.set(count.get() + 1);
            for answer in 0..10 {
                transport.write(format!("{}.{answer}", show(data)).as_bytes(), peer)?;
            }
            Ok(())
        });
        let port = bind_with(&reactor, LOCAL[0], &options, protocol);
        let (peer, _) = peer_at(LOCAL[0]);
        for number in 0..10 {
            peer.send_to(number.to_string().as_bytes(), address_of(&port)).expect("it is sent");
        }
        run_until(&reactor, || seen.get() == 10);
        assert_eq!((port.queued_bytes(), port.counts().sent), (0, 100));
        for number in 0..10 {
            for answer in 0..10 {
                let (data, _) = receive(&peer);
                assert_eq!(String::from_utf8_lossy(&data), format!("{number}.{answer}"));
            }
        }
    });
}

/// A write that the system refuses is an error of that write, unless it is collected: then it is
/// counted, the first is logged, and the others leave. Errors that need no system call are returned
/// in both cases.
#[test]
fn the_error_of_a_collected_write_is_counted() {
    let broadcast: Address = "255.255.255.255:9".parse::<SocketAddr>().expect("an address").into();
    let other: Address = "[::1]:9".parse::<SocketAddr>().expect("an address").into();
    for collects in [false, true] {
        on_each(|reactor| {
            let log = Log::default();
            let (told, to, wrong) = (log.clone(), broadcast.clone(), other.clone());
            let protocol = Recorder::new(&log).received(move |transport, data, peer| {
                assert!(transport.write(b"", &wrong).is_err(), "another family");
                assert!(transport.write(&[0; 66_000], peer).is_err(), "too long");
                for _ in 0..2 {
                    if let Err(error) = transport.write(b"to all", &to) {
                        told.add(format!("refused: {error}"));
                    }
                }
                Ok(transport.write(data, peer)?)
            });
            let port = bind_with(&reactor, LOCAL[0], &UdpOptions::new().collect_writes(collects), protocol);
            let (peer, _) = peer_at(LOCAL[0]);
            let ((), lines) = logged(|| {
                peer.send_to(b"question", address_of(&port)).expect("it is sent");
                run_until(&reactor, || log.has("received question"));
            });
            assert_eq!(receive(&peer).0, b"question");
            let told_now = if collects { 0 } else { 2 };
            assert_eq!((log.count("refused"), port.counts().failed), (told_now, 2 - told_now as u64));
            let dropped = lines.iter().filter(|line| line.contains("a queued datagram is dropped")).count();
            assert_eq!(dropped, usize::from(collects), "{lines:?}");
            assert!(port.write(b"to all", &broadcast).is_err(), "outside of a callback it is sent at once");
        });
    }
}

/// A port without a queue sends each answer at once, even if it is to collect.
#[test]
fn nothing_is_collected_without_a_queue() {
    on_each(|reactor| {
        let options = UdpOptions::new().collect_writes(true).queue_limit(0);
        let port = bind_with(&reactor, LOCAL[0], &options, Recorder::echo(&Log::default()));
        let (peer, _) = peer_at(LOCAL[0]);
        for data in [&b"one"[..], b"", b"three"] {
            peer.send_to(data, address_of(&port)).expect("it is sent");
        }
        run_until(&reactor, || port.counts().sent == 3);
        for data in [&b"one"[..], b"", b"three"] {
            assert_eq!(receive(&peer).0, data);
        }
    });
}
