//! The callbacks of a datagram protocol: their order, their failures, and calls that they make.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use ropewalk::error::{ListenError, ReactorError};
use ropewalk::failure::Panicked;

/// F59: a callback that fails or panics is logged, and the port goes on.
#[test]
fn a_failing_callback_leaves_the_port_open() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).received(|_, data, _| match data {
            b"fail" => Err("a bad datagram".into()),
            b"panic" => panic!("a worse one"),
            _ => Ok(()),
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        let ((), lines) = logged(|| {
            for data in [&b"fail"[..], b"panic", b"good"] {
                port.write(data, &port.host()).expect("it is sent");
            }
            run_until(&reactor, || log.has("received good"));
        });
        assert_eq!(log.count("received"), 3);
        let failures: Vec<_> = lines.iter().filter(|line| line.contains("the port goes on")).collect();
        assert_eq!(failures.len(), 2, "{lines:?}");
        assert!(failures[0].contains("a bad datagram") && failures[1].contains("a worse one"), "{failures:?}");
    });
}

/// A protocol that does not start closes its port: the error carries the failure, nothing else is
/// called, and the address is free.
#[test]
fn a_protocol_that_does_not_start_has_no_port() {
    on_each(|reactor| {
        let log = Log::default();
        let host = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&host);
        let failing = Recorder::new(&log).started(move |transport| {
            kept.replace(Some(transport.clone()));
            Err("not today".into())
        });
        let refused = reactor.listen_udp(loopback(), &UdpOptions::new(), failing).expect_err("it does not start");
        assert_eq!(refused.to_string(), "the datagram protocol did not start: not today");
        let dead = host.take().expect("it was started");
        assert!(!dead.is_listening());
        bind(&reactor, &dead.host().to_string(), Recorder::new(&log));
        let panicking = Recorder::new(&log).started(|_| panic!("never"));
        let refused = reactor.listen_udp(loopback(), &UdpOptions::new(), panicking);
        assert!(matches!(refused, Err(ListenError::Protocol(failure)) if failure.check::<Panicked>().is_some()));
        settle(&reactor);
        assert_eq!(log.all(), ["started"; 3]);
    });
}

/// A callback may write to its own port, and stop it: nothing is re-entered, and nothing but
/// `stop_protocol` follows a stop.
#[test]
fn a_callback_may_stop_its_port() {
    on_each(|reactor| {
        let log = Log::default();
        let seen = log.clone();
        let protocol = Recorder::new(&log).received(move |transport, _, peer| {
            transport.write(b"again", peer)?;
            drop(transport.stop_listening());
            seen.add("returns");
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        for _ in 0..5 {
            port.write(b"stop", &port.host()).expect("it is sent");
        }
        run_until(&reactor, || log.has("stopped"));
        settle(&reactor);
        assert_eq!(log.all(), ["started", "received stop", "returns", "stopped"]);
    });
}

/// The same in `start_protocol`: the port is bound, and ends at the end of the turn.
#[test]
fn a_protocol_may_stop_its_port_while_it_starts() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).started(|transport| {
            drop(transport.stop_listening());
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        assert!(!port.is_listening());
        run_until(&reactor, || log.has("stopped"));
        assert_eq!(log.all(), ["started", "stopped"]);
    });
}

/// The loop cannot be entered from `start_protocol`, which would call the protocol again. Datagrams
/// that the protocol sends to itself meanwhile come later.
#[test]
fn the_loop_is_not_entered_from_start_protocol() {
    on_each(|reactor| {
        let log = Log::default();
        let (turned, inner) = (Rc::new(Cell::new(false)), reactor.clone());
        let tried = Rc::clone(&turned);
        let protocol = Recorder::new(&log).started(move |transport| {
            transport.write(b"early", &transport.host())?;
            let refused = inner.iterate(std::time::Duration::ZERO);
            tried.set(matches!(refused, Err(ReactorError::AlreadyRunning)));
            Ok(())
        });
        bind(&reactor, LOCAL[0], protocol);
        assert!(turned.get());
        assert_eq!(log.all(), ["started"]);
        run_until(&reactor, || log.has("received early"));
    });
}

/// A panic in `stop_protocol` is the failure of the Deferred.
#[test]
fn a_panic_at_the_end_fails_the_deferred() {
    struct Bad;
    impl DatagramProtocol for Bad {
        fn datagram_received(&mut self, _: &DatagramTransport, _: &[u8], _: &Address) -> Result<()> {
            Ok(())
        }
        fn stop_protocol(&mut self, _: &DatagramTransport) {
            panic!("the end");
        }
    }
    on_each(|reactor| {
        let port = reactor.listen_udp(loopback(), &UdpOptions::new(), Bad).expect("a port");
        let failure = result_of(&reactor, port.stop_listening()).expect_err("it panics");
        assert!(failure.check::<Panicked>().is_some(), "{failure}");
    });
}

/// A paused port delivers nothing. Datagrams that arrive meanwhile come when it resumes.
#[test]
fn a_paused_port_delivers_nothing() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).received(|transport, _, _| {
            transport.pause_receiving();
            Ok(())
        });
        let port = bind(&reactor, LOCAL[0], protocol);
        for data in ["1", "2", "3"] {
            port.write(data.as_bytes(), &port.host()).expect("it is sent");
        }
        for round in 1..=3 {
            run_until(&reactor, || log.count("received") == round);
            settle(&reactor);
            assert_eq!(log.count("received"), round);
            port.resume_receiving();
        }
        assert_eq!(log.all(), ["started", "received 1", "received 2", "received 3"]);
    });
}

/// The port lives on without a handle, and its protocol is dropped with the reactor.
#[test]
fn a_port_needs_no_handle() {
    on_each(|reactor| {
        let log = Log::default();
        let host = address_of(&bind(&reactor, LOCAL[0], Recorder::echo(&log)));
        let (peer, _) = peer_at(LOCAL[0]);
        peer.send_to(b"hello", host).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
        assert_eq!(receive(&peer).0, b"hello");
        drop(reactor);
        assert!(log.has("stopped"));
    });
}

/// A reactor that is a guest of another loop delivers datagrams, and sends those that are written
/// between its turns.
#[test]
fn a_guest_of_another_loop_has_datagrams() {
    on_each(|reactor| {
        let log = Log::default();
        let answer = |transport: &DatagramTransport, data: &[u8], peer: &Address| match data {
            b"one" => Ok(transport.write(data, peer)?),
            _ => Ok(()),
        };
        let port = bind(&reactor, LOCAL[0], Recorder::new(&log).received(answer));
        let (peer, address) = peer_at(LOCAL[0]);
        let mut guests = vec![hosted::Guest::begin(&reactor).expect("the run begins")];
        peer.send_to(b"one", address_of(&port)).expect("it is sent");
        hosted::host(&mut guests, &mut || log.has("received one")).expect("the host runs");
        port.write(b"two", &address).expect("it is sent");
        port.write(b"three", &port.host()).expect("it is sent");
        hosted::host(&mut guests, &mut || log.has("received three")).expect("the host runs");
        assert_eq!((receive(&peer).0, receive(&peer).0), (b"one".to_vec(), b"two".to_vec()));
    });
}
