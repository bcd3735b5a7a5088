//! Logs of traffic: in the order of the calls, bounded, and harmless.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::common::{Log, Script, logged, recorded};
use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionPolicies, TrafficDirection, TrafficFormat, TrafficLog};
use ropewalk::testing::{MemoryReactor, StringTransport};
use ropewalk::{Address, Transport};

/// Records in their order, with the length of all bytes and the first of them.
#[test]
fn records_come_in_the_order_of_the_calls() {
    let records: Rc<RefCell<Vec<String>>> = Rc::default();
    let seen = Rc::clone(&records);
    let log = TrafficLog::function(move |record| {
        assert!(matches!(record.peer, Address::Inet(_)));
        let arrow = if record.direction == TrafficDirection::Received { '<' } else { '>' };
        let excerpt = TrafficFormat::Text.show(record.excerpt);
        seen.borrow_mut().push(format!("{arrow} {} {excerpt}", record.length));
    });
    let string = StringTransport::new();
    ConnectionPolicies::new().share().traffic_log(log.excerpt(4)).apply(string.transport());
    let (at_call, records_then) = (Rc::clone(&records), Rc::<RefCell<Vec<usize>>>::default());
    let counts = Rc::clone(&records_then);
    let echo = Script::new(&Log::default()).data(move |transport, data| {
        counts.borrow_mut().push(at_call.borrow().len());
        transport.write(data);
        transport.write(b"\r\n");
        Ok(())
    });
    let connection = string.joined(echo);
    connection.deliver(b"one");
    connection.deliver(b"three");
    assert_eq!(*records_then.borrow(), [1, 4], "received bytes are logged before the protocol has them");
    connection.advance(Duration::ZERO);
    let expected = ["< 3 one", "> 3 one", r"> 2 \r\n", "< 5 thre", "> 5 thre", r"> 2 \r\n"];
    assert_eq!(*records.borrow(), expected);
    assert_eq!(connection.transport().timers().len(), 0);
}

/// Returns `true` for the events of the log.
fn is_traffic(event: &tracing::Metadata<'_>) -> bool {
    event.target() == "ropewalk::traffic" && *event.level() == tracing::Level::DEBUG
}

/// Events of `tracing`, as text and as hex.
#[test]
fn events_go_to_tracing() {
    let ((), lines) = recorded(is_traffic, || {
        for format in [TrafficFormat::Text, TrafficFormat::Hex] {
            let string = StringTransport::new();
            ConnectionPolicies::new().log_traffic(format).share().apply(string.transport());
            string.joined(Script::new(&Log::default())).deliver(b"GET /\n");
        }
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(r"bytes=GET /\n") && lines[1].contains("bytes=47 45 54 20 2f 0a"), "{lines:?}");
    assert!(lines[0].contains("length=6") && lines[0].contains("direction=Received"), "{lines:?}");
}

/// Behind a PROXY header, the events have the client's address. The header is not logged.
#[test]
fn events_have_the_address_of_a_header() {
    let ((), lines) = recorded(is_traffic, || {
        let memory = MemoryReactor::new();
        let description = format!("haproxy:tcp:80:{}:trafficLog=text", MemoryReactor::HOST);
        let factory = |_| Script::new(&Log::default());
        drop(server_from_string(memory.reactor(), &description).unwrap().listen(factory));
        memory.settle().unwrap();
        let peer = memory.connect(80).unwrap();
        peer.write(b"PROXY TCP4 198.51.100.7 203.0.113.1 49152 443\r\nGET /\n").unwrap();
        memory.settle().unwrap();
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("peer=198.51.100.7:49152") && lines[0].contains(r"bytes=GET /\n"), "{lines:?}");
}

/// A function may do anything: write to the connection, end it, panic. No call is made while the
/// transport is in use.
#[test]
fn a_log_may_do_anything() {
    let place: Rc<RefCell<Option<Transport>>> = Rc::default();
    let known = Rc::clone(&place);
    let log = TrafficLog::function(move |record| {
        let transport = known.borrow().clone().expect("the connection is made");
        match record.excerpt {
            b"write" => transport.write(b"from the log"),
            b"end" => transport.lose_connection(),
            b"panic" => panic!("on purpose"),
            _ => assert!(transport.queued_bytes() < 1_000),
        }
    });
    let string = StringTransport::new();
    ConnectionPolicies::new().share().traffic_log(log).apply(string.transport());
    let connection = string.joined(Script::new(&Log::default()).transport_into(&place));
    connection.deliver(b"write");
    let ((), lines) = logged(|| connection.deliver(b"panic"));
    assert!(lines.iter().any(|line| line.contains("a log of traffic failed")), "{lines:?}");
    assert!(connection.lost().is_none(), "a panic of a log ends no connection");
    connection.transport().write(b"write");
    connection.advance(Duration::ZERO);
    connection.deliver(b"end");
    assert_eq!(connection.string().value(), b"from the logwritefrom the log");
    assert!(connection.lost().is_some());
}
