//! The test kit's parts for one protocol: `StringTransport`, alone and joined,
//! `AccumulatingProtocol`, and the assertions on Deferreds.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Echo, Log, Script};
use ropewalk::deferred::Promise;
use ropewalk::error::{ConnectionClosed, Unavailable};
use ropewalk::failure::Panicked;
use ropewalk::testing::{
    AccumulatingFactory, AccumulatingProtocol, Conditions, Network, PumpOptions, StringConnection, StringTransport,
    assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{Clock, Deferred, Failure, ListenOptions, Reactor, Transport};

/// The message of a panic.
fn panic_of<R>(call: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().expect("it panics");
    match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => payload.downcast_ref::<String>().expect("a message").clone(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Written bytes are kept, in order and of any size, until they are taken.
#[test]
fn what_is_written_is_kept() {
    let string = StringTransport::new();
    string.transport().write_sequence(["one ", "two "]);
    assert_eq!(string.value(), b"one two ");
    assert_eq!(string.take_value(), b"one two ");
    let much = vec![7; 3_000_000];
    string.transport().write(b"small");
    string.transport().write(&much);
    string.transport().write(&much);
    assert_eq!(string.value().len(), 5 + 2 * much.len());
    assert_eq!(string.transport().queued_bytes(), 0);
}

/// Writes after `lose_connection` are kept until the turn ends, and none afterwards; an abort drops
/// what comes after it, and does not hide what was before.
#[test]
fn writes_around_a_close_are_those_of_the_real_transport() {
    let string = StringTransport::new();
    string.transport().lose_connection();
    assert!(string.is_disconnecting() && !string.transport().is_disconnected());
    string.transport().write(b"after");
    string.turn();
    assert!(string.transport().is_disconnected() && !string.is_aborted());
    string.transport().write(b"late");
    assert_eq!(string.value(), b"after");

    let string = StringTransport::new();
    string.transport().write(b"before");
    string.transport().abort_connection();
    assert!(string.is_aborted() && string.is_disconnecting());
    string.transport().write(b"after");
    string.turn();
    assert!(string.is_aborted());
    assert_eq!(string.value(), b"before");

    let string = StringTransport::new();
    string.transport().lose_write_connection();
    string.transport().write(b"last");
    assert!(string.is_write_disconnecting() && !string.is_disconnecting());
    string.turn();
    string.transport().write(b"late");
    assert_eq!(string.value(), b"last");
}

/// A close is not read back: losing, pausing and shutting are distinguished.
#[test]
fn pauses_are_seen() {
    let string = StringTransport::new();
    assert!(!string.is_paused());
    string.transport().pause_producing();
    assert!(string.is_paused());
    string.transport().resume_producing();
    assert!(!string.is_paused() && !string.is_disconnecting() && !string.is_write_disconnecting());
}

/// Addresses and options are what they were set to, and options of a connection that is over are an
/// error.
#[test]
fn addresses_and_options() {
    let string = StringTransport::new().with_host(address("[::1]:1")).with_peer(address("1.2.3.4:5"));
    let transport = string.transport().clone();
    assert_eq!((transport.host().to_string(), transport.peer().to_string()), ("[::1]:1".into(), "1.2.3.4:5".into()));
    assert!(!transport.tcp_no_delay().unwrap() && !transport.tcp_keep_alive().unwrap());
    transport.set_tcp_no_delay(true).unwrap();
    transport.set_tcp_keep_alive(true).unwrap();
    let second = Duration::from_secs(1);
    transport.set_tcp_keep_alive_times(second, second, 3).unwrap();
    transport.set_tcp_user_timeout(second).unwrap();
    assert!(transport.tcp_no_delay().unwrap() && transport.tcp_keep_alive().unwrap());
    transport.lose_connection();
    string.turn();
    assert_eq!(transport.set_tcp_no_delay(false).unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(string.tcp_no_delay() && string.tcp_keep_alive());
    assert_eq!(string.tcp_keep_alive_times(), Some((second, second, 3)));
    assert_eq!(string.tcp_user_timeout(), Some(second));
    assert_eq!(transport.raw_fd(), None);
}

/// The whole of a connection: made at once, each delivery one call, the end last, and nothing
/// afterwards.
#[test]
fn a_joined_protocol_lives_a_whole_connection() {
    let log = Log::default();
    let connection = StringTransport::new().joined(Script::new(&log).data(|transport, data| {
        transport.write(data);
        Ok(())
    }));
    connection.deliver(b"one");
    connection.deliver(b"");
    connection.deliver(b"two");
    assert!(connection.lost().is_none());
    connection.end_of_stream();
    connection.deliver(b"three");
    connection.end_of_stream();
    connection.lose(ConnectionClosed::Reset { unsent: 0 });
    assert_eq!(log.all(), ["made", "data", "data", "lost: the connection was closed cleanly"]);
    assert_eq!(connection.string().value(), b"onetwo");
    assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone));
}

/// More than a reactor hands over at a time comes in pieces of 64 KiB.
#[test]
fn a_large_delivery_comes_in_pieces() {
    let protocol = AccumulatingProtocol::new();
    let record = protocol.record();
    let connection = StringTransport::new().joined(protocol);
    connection.deliver(&vec![1; 200_000]);
    assert_eq!((record.data().len(), record.deliveries()), (200_000, 4));
}

/// While reading is paused bytes and an end wait, in order; a loss does not wait.
#[test]
fn a_pause_holds_bytes_and_the_end_but_no_loss() {
    let joined = || {
        let log = Log::default();
        let connection = StringTransport::new().joined(Script::new(&log).data(|transport, _| {
            transport.pause_producing();
            Ok(())
        }));
        connection.deliver(b"one");
        connection.deliver(b"two");
        connection.deliver(b"three");
        connection.end_of_stream();
        assert_eq!((log.all(), connection.waiting()), (vec!["made".to_owned(), "data".to_owned()], 8));
        (connection, log)
    };
    let (connection, log) = joined();
    connection.transport().resume_producing();
    connection.turn();
    assert_eq!(log.count("data"), 2);
    connection.with(|_, transport| transport.resume_producing()).unwrap();
    assert_eq!(log.reason(), "the connection was closed cleanly");

    let (connection, log) = joined();
    connection.lose(ConnectionClosed::TcpTimedOut { unsent: 3 });
    assert_eq!(log.count("data"), 1);
    assert!(matches!(connection.lost().unwrap().check(), Some(ConnectionClosed::TcpTimedOut { unsent: 3 })));
    assert_eq!(connection.waiting(), 0);
}

/// A protocol that asked for half-closes has both callbacks, once, and goes on writing after the
/// peer's end.
#[test]
fn half_closes_are_told() {
    let log = Log::default();
    let connection = StringTransport::new().joined(Script::new(&log).half_close().read_lost(|transport| {
        transport.write(b"goes on");
        transport.lose_write_connection();
        Ok(())
    }));
    connection.end_of_stream();
    assert_eq!(log.all(), ["made", "read lost", "write lost", "lost: the connection was closed cleanly"]);
    assert_eq!(connection.string().value(), b"goes on");
}

/// An error or a panic of each callback is the connection's end; the bytes that it wrote before are
/// sent.
#[test]
fn failures_of_callbacks_end_the_connection() {
    type Build = fn(&Log) -> Script;
    let cases: [(&str, Build); 4] = [
        ("made", |log| Script::new(log).made(|transport| fail_after_writing(transport, "made"))),
        ("data", |log| Script::new(log).data(|transport, _| fail_after_writing(transport, "data"))),
        ("read lost", |log| Script::new(log).half_close().read_lost(|transport| fail_after_writing(transport, "read"))),
        ("write lost", |log| Script::new(log).half_close().write_lost(|_| panic!("write"))),
    ];
    for (last, build) in cases {
        let log = Log::default();
        let connection = StringTransport::new().joined(build(&log));
        connection.deliver(b"x");
        if last == "write lost" {
            connection.with(|_, transport| transport.lose_write_connection()).unwrap_or(());
        }
        connection.end_of_stream();
        let reason = connection.lost().unwrap_or_else(|| panic!("{last} failed, and the connection goes on"));
        assert!(reason.check::<Panicked>().is_some() || reason.to_string().ends_with("fails"), "{last}: {reason}");
        assert_eq!(log.count("lost"), 1, "{last}");
        assert_eq!(log.all().iter().rev().nth(1).unwrap(), last);
        assert_eq!(connection.string().value().is_empty(), last == "write lost");
    }
    let log = Log::default();
    let connection = StringTransport::new().joined(Script::new(&log).lost(|_| panic!("in the last call")));
    connection.end_of_stream();
    assert!(log.is_over() && connection.lost().is_some());
}

fn fail_after_writing(transport: &ropewalk::Transport, name: &str) -> ropewalk::Result<()> {
    transport.write(name.as_bytes());
    Err(Failure::message(format!("{name} fails")))
}

/// Whatever a callback asks of its own transport takes effect after it has returned, whichever
/// callback it is.
#[test]
fn requests_from_inside_callbacks_wait_for_their_end() {
    let busy = |log: &Log| {
        let log = log.clone();
        move |transport: &ropewalk::Transport| {
            let before = log.all().len();
            transport.write(b"x");
            transport.pause_producing();
            transport.resume_producing();
            transport.lose_connection();
            transport.write(b"y");
            assert_eq!(log.all().len(), before, "it called back");
            Ok(())
        }
    };
    for callback in ["made", "data", "read lost", "write lost"] {
        let log = Log::default();
        let script = Script::new(&log).half_close();
        let script = match callback {
            "made" => script.made(busy(&log)),
            "data" => script.data({
                let call = busy(&log);
                move |transport, _| call(transport)
            }),
            "read lost" => script.read_lost(busy(&log)),
            _ => script.write_lost(busy(&log)),
        };
        let connection = StringTransport::new().joined(script);
        match callback {
            "data" => connection.deliver(b"data"),
            "read lost" => connection.end_of_stream(),
            "write lost" => connection.with(|_, transport| transport.lose_write_connection()).unwrap(),
            _ => {}
        }
        assert_eq!(connection.lost().expect("it lost itself").to_string(), "the connection was closed cleanly");
        // A side that was shut takes nothing more.
        let written: &[u8] = if callback == "write lost" { b"" } else { b"xy" };
        assert_eq!(connection.string().value(), written, "{callback}");
        assert_eq!(log.all().iter().rev().nth(1).unwrap(), callback);
    }
}

/// A callback that drives its own connection gets an error, and the protocol is busy meanwhile.
#[test]
fn a_callback_cannot_deliver_to_its_own_connection() {
    let place: Rc<RefCell<Option<StringConnection<Script>>>> = Rc::default();
    let inner = Rc::clone(&place);
    let log = Log::default();
    let connection = StringTransport::new().joined(Script::new(&log).data(move |_, _| {
        let place = inner.borrow();
        let connection = place.as_ref().expect("it is there by now");
        assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Busy));
        connection.deliver(b"again");
        Ok(())
    }));
    place.replace(Some(connection));
    let borrowed = place.borrow();
    let connection = borrowed.as_ref().unwrap();
    connection.deliver(b"once");
    assert!(log.reason().contains("in the middle of a turn"), "{}", log.reason());
    assert_eq!(log.count("data"), 1);
    drop(borrowed);
    // The protocol holds the connection, and the connection the protocol no more.
    place.replace(None);
}

/// The record outlives the protocol, and its Deferreds fire whenever they were asked for.
#[test]
fn an_accumulating_protocol_tells_all() {
    let protocol = AccumulatingProtocol::new().with_half_close();
    let record = protocol.record();
    let (mut made, mut lost) = (record.when_made(), record.when_lost());
    let cancelled = record.when_lost();
    cancelled.cancel();
    drop(cancelled.add_errback(|_| Err(Failure::message("handled")) as ropewalk::Result<_>).add_both(|_| ()));
    assert!(!record.is_made());
    assert_no_result(&mut made);
    let connection = StringTransport::new().joined(protocol);
    assert!(record.is_made());
    let transport = success_result_of(&mut made);
    assert_eq!(transport.peer(), connection.transport().peer());
    connection.deliver(b"ab");
    connection.deliver(b"cd");
    assert_eq!((record.take_data(), record.deliveries()), (b"abcd".to_vec(), 2));
    assert!(record.data().is_empty() && !record.is_read_lost());
    connection.end_of_stream();
    assert!(record.is_read_lost() && !record.is_lost() && !record.is_write_lost());
    assert_no_result(&mut lost);
    connection.with(|_, transport| transport.lose_write_connection()).unwrap();
    assert!(record.is_write_lost() && record.is_lost());
    assert_eq!(connection.connection().with(|_, _| ()), Err(Unavailable::Gone));
    let (now, later) = (success_result_of(&mut lost), success_result_of(&mut record.when_lost()));
    assert_eq!(now.to_string(), later.to_string());
    assert_eq!(record.reason().unwrap().to_string(), now.to_string());
    success_result_of(&mut record.when_made());
    assert!(format!("{record:?}").contains("closed cleanly"));
}

/// A factory keeps every record, starts before the first and stops after the last.
#[test]
fn an_accumulating_factory_keeps_every_record() {
    let (client, server) = (AccumulatingFactory::new(), AccumulatingFactory::with_half_close());
    let pump = PumpOptions::new().connect_factories(client.clone(), server.clone());
    assert_eq!((client.starts(), client.stops(), client.records().len()), (1, 0, 1));
    pump.client().transport().lose_write_connection();
    pump.flush();
    assert!(server.records()[0].is_read_lost(), "{}", pump.transcript());
    pump.server().transport().lose_connection();
    pump.flush();
    assert!(client.records()[0].is_lost() && server.records()[0].is_lost());
    assert_eq!((client.stops(), server.stops()), (1, 1));
    let refused = panic_of(|| PumpOptions::new().connect_factories(client, |_| None::<Echo>).flush());
    assert_eq!(refused, "the server's factory built no protocol");
}

/// Each of the three gives what it is for, and says what was there instead.
#[test]
fn results_of_deferreds() {
    let failed = || Deferred::<u8>::fail("broken");
    assert_eq!(success_result_of(&mut Deferred::succeed(7)), 7);
    assert_eq!(failure_result_of(&mut failed()).to_string(), "broken");
    let (promise, mut waiting) = Promise::<u8>::new();
    assert_no_result(&mut waiting);

    assert!(panic_of(|| success_result_of(&mut failed())).contains("it has failed: broken"));
    assert!(panic_of(|| success_result_of(&mut waiting)).contains("it has no result"));
    assert!(panic_of(|| failure_result_of(&mut Deferred::succeed(7))).contains("it has the value 7"));
    assert!(panic_of(|| failure_result_of(&mut waiting)).contains("it has no result"));
    assert!(panic_of(|| assert_no_result(&mut failed())).contains("it has failed: broken"));
    assert!(panic_of(|| assert_no_result(&mut Deferred::succeed(7))).contains("it has the value 7"));

    let pause = waiting.pause();
    promise.callback(9).unwrap();
    assert_no_result(&mut waiting);
    drop(pause);
    assert_eq!(success_result_of(&mut waiting), 9);
    assert_no_result(&mut waiting);
}

/// Where sends tell what came of them later, as those of a ring do, bytes count as queued until the
/// next turn, and arrive all the same.
#[test]
fn sends_that_are_told_of_later() {
    let network = Network::with_conditions(1, Conditions::ideal().slow_sends(1_000));
    let reactor = network.reactor([10, 0, 0, 1].into());
    let to = address("10.0.0.1:7");
    let kept: Rc<RefCell<Option<Transport>>> = Rc::default();
    let script = Script::new(&Log::default()).transport_into(&kept);
    let _port = reactor.listen_tcp(to, &ListenOptions::new(), crate::common::once(script)).unwrap();
    let peer = network.connect(to);
    network.settle().unwrap();
    let transport = kept.take().unwrap();
    for round in 0..100_usize {
        let data = vec![round as u8; 1 + round * 37];
        let (queued, told) = (Rc::new(RefCell::new(Vec::new())), transport.clone());
        let seen = Rc::clone(&queued);
        transport.write(&data);
        // Timers without delay come in one turn after the other, each before that turn hears what
        // became of sends.
        in_turns(&reactor, 3, move || seen.borrow_mut().push(told.queued_bytes()));
        network.settle().unwrap();
        assert_eq!(*queued.borrow(), [data.len(), data.len(), 0], "round {round}");
        assert_eq!(peer.read(), data, "round {round}");
    }
}

/// Calls in so many turns, one after the other.
fn in_turns(reactor: &Reactor, count: usize, mut call: impl FnMut() + 'static) {
    let Some(left) = count.checked_sub(1) else { return };
    let next = reactor.clone();
    reactor.call_later(Duration::ZERO, move || {
        call();
        in_turns(&next, left, call);
    });
}
