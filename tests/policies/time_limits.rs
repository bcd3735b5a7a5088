//! Limits of time on a virtual clock: exactly when they pass, and what moves them (A9).

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::common::{Log, Script};
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionPolicies, Timeout};
use ropewalk::testing::{PumpOptions, StringConnection, StringTransport};
use ropewalk::{Address, Transport};

/// A connection whose protocol does nothing, with these policies.
fn idle(policies: ConnectionPolicies) -> StringConnection<Script> {
    let string = StringTransport::new();
    policies.share().apply(string.transport());
    string.joined(Script::new(&Log::default()))
}

/// Bytes of either direction move the limit, to the exact moment.
#[test]
fn silence_in_both_directions_ends_a_connection() {
    let connection = idle(ConnectionPolicies::new().idle(SECOND * 60));
    connection.advance(SECOND * 59);
    connection.deliver(b"?");
    connection.advance(SECOND * 59);
    connection.transport().write(b"!");
    connection.turn();
    connection.advance(SECOND * 60 - Duration::from_nanos(1));
    assert!(connection.lost().is_none());
    connection.advance(Duration::from_nanos(1));
    assert_eq!(limit_of(connection.lost()), (TimeLimit::Idle, SECOND * 60));
}

/// A thousand messages move no timer, and a connection that is over leaves none behind.
#[test]
fn a_busy_connection_moves_no_timer() {
    let connection = idle(ConnectionPolicies::new().idle(SECOND * 60).lifetime(SECOND * 3600));
    let timers = connection.transport().timers();
    assert_eq!(timers.len(), 1, "all limits have one timer");
    let due = connection.string().clock().seconds() + SECOND * 60;
    for _ in 0..1_000 {
        connection.advance(Duration::from_millis(50));
        connection.deliver(b"?");
        assert_eq!(timers.len(), 1);
    }
    assert!(connection.string().clock().seconds() < due, "the test stays in front of the timer");
    connection.transport().abort_connection();
    connection.turn();
    assert!(connection.lost().is_some());
    assert_eq!(timers.len(), 0, "a timer was left");
    assert_eq!(idle(ConnectionPolicies::new()).transport().timers().len(), 0);
}

/// A peer that does not read is idle, whatever is written, and is cut off after the close timeout.
#[test]
fn a_peer_that_does_not_read_is_idle() {
    let reader = Script::new(&Log::default()).made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let pump = PumpOptions::new().room(10).connect(reader, Script::new(&Log::default()));
    ConnectionPolicies::new().idle(SECOND * 60).share().apply(pump.server().transport());
    for _ in 0..59 {
        pump.server().transport().write(&[0; 20]);
        pump.advance(SECOND);
    }
    assert!(!pump.server().transport().is_disconnecting());
    pump.advance(SECOND);
    assert!(pump.server().transport().is_disconnecting() && pump.server().lost().is_none());
    pump.advance(SECOND * 30);
    let reason = pump.server().lost().expect("it was cut off");
    assert!(matches!(reason.check(), Some(ConnectionClosed::CloseTimedOut { .. })), "{reason}");
}

/// For the limit of receiving, bytes to the peer don't count.
#[test]
fn written_bytes_do_not_make_up_for_a_silent_peer() {
    let connection = idle(ConnectionPolicies::new().receive_timeout(SECOND * 10));
    for _ in 0..9 {
        connection.transport().write(b"still there?");
        connection.advance(SECOND);
    }
    assert!(connection.lost().is_none());
    connection.advance(SECOND);
    assert_eq!(limit_of(connection.lost()), (TimeLimit::Receive, SECOND * 10));
}

/// The first byte ends its limit. A protocol that has paused can't know of it, so its peer is not
/// blamed until it reads again.
#[test]
fn a_peer_has_to_speak_first() {
    let policies = ConnectionPolicies::new().first_byte(SECOND * 10);
    let silent = idle(policies);
    silent.transport().write(b"who is there?");
    silent.advance(SECOND * 10);
    assert_eq!(limit_of(silent.lost()), (TimeLimit::FirstByte, SECOND * 10));
    for paused in [false, true] {
        let speaks = idle(policies);
        if paused {
            speaks.transport().pause_producing();
        }
        speaks.advance(SECOND * 9);
        speaks.deliver(b"me");
        speaks.advance(SECOND * 3600);
        assert!(speaks.lost().is_none());
        speaks.transport().resume_producing();
        speaks.turn();
        speaks.advance(SECOND * 3600);
        assert!(speaks.lost().is_none());
        assert_eq!(speaks.transport().timers().len(), 0, "no limit is left");
    }
    let paused = idle(policies);
    paused.transport().pause_producing();
    paused.advance(SECOND * 25);
    paused.transport().resume_producing();
    paused.turn();
    paused.advance(SECOND * 5);
    assert_eq!(limit_of(paused.lost()).0, TimeLimit::FirstByte);
}

/// A lifetime ends a busy connection, and its last bytes are sent.
#[test]
fn a_lifetime_ends_a_busy_connection() {
    let connection = idle(ConnectionPolicies::new().lifetime(SECOND * 3));
    for _ in 0..3 {
        assert!(connection.lost().is_none());
        connection.transport().write(b"tick ");
        connection.deliver(b"tock ");
        connection.advance(SECOND);
    }
    assert_eq!(limit_of(connection.lost()), (TimeLimit::Lifetime, SECOND * 3));
    assert_eq!(connection.string().value(), b"tick tick tick ");
}

/// Of several policies, the shorter limit holds, in any order.
#[test]
fn the_shorter_limit_holds() {
    for (first, second) in [(30, 60), (60, 30)] {
        let string = StringTransport::new();
        for after in [first, second] {
            ConnectionPolicies::new().idle(SECOND * after).share().apply(string.transport());
        }
        let connection = string.joined(Script::new(&Log::default()));
        assert_eq!(connection.transport().timers().len(), 1);
        connection.advance(SECOND * 30);
        assert_eq!(limit_of(connection.lost()), (TimeLimit::Idle, SECOND * 30));
    }
}

/// A connection that closes already keeps its own reason.
#[test]
fn a_limit_does_not_replace_a_reason() {
    let reader = Script::new(&Log::default()).made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let pump = PumpOptions::new().room(10).connect(reader, Script::new(&Log::default()));
    let server = pump.server().transport();
    ConnectionPolicies::new().lifetime(SECOND * 10).share().apply(server);
    server.write(&[0; 20]);
    server.lose_connection();
    pump.advance(SECOND * 20);
    pump.client().transport().resume_producing();
    pump.flush();
    let reason = pump.server().lost().expect("it has closed");
    assert!(matches!(reason.check(), Some(ConnectionClosed::Done)), "{reason}");
}

/// The message says what did not happen, and for how long.
#[test]
fn reasons_say_what_passed() {
    let reason = |policies: ConnectionPolicies| {
        let connection = idle(policies);
        connection.advance(SECOND * 5);
        connection.lost().expect("it is over").to_string()
    };
    let (policies, five) = (ConnectionPolicies::new(), SECOND * 5);
    assert_eq!(reason(policies.idle(five)), "no byte was received or sent for 5s");
    assert_eq!(reason(policies.receive_timeout(five)), "the peer sent nothing for 5s");
    assert_eq!(reason(policies.first_byte(five)), "the peer sent no first byte for 5s");
    assert_eq!(reason(policies.lifetime(five)), "the connection was open for 5s");
}

/// A timeout of a protocol: set, moved, ended, set anew, dropped.
#[test]
fn a_timeout_inside_a_protocol() {
    let string = StringTransport::new();
    let (transport, timers) = (string.transport().clone(), string.transport().timers());
    let connection = string.joined(Script::new(&Log::default()));
    let (mut timeout, passed) = (Timeout::new(), Rc::new(Cell::new(0)));
    timeout.reset();
    assert_eq!(timeout.left(), None);
    let set = |timeout: &mut Timeout| {
        let counted = Rc::clone(&passed);
        timeout.set_with(&transport, SECOND * 10, move |_| counted.set(counted.get() + 1));
    };
    set(&mut timeout);
    for _ in 0..5 {
        connection.advance(SECOND * 9);
        timeout.reset();
        assert_eq!((timeout.left(), timers.len()), (Some(SECOND * 10), 1));
    }
    connection.advance(SECOND * 10 - Duration::from_nanos(1));
    assert_eq!(passed.get(), 0);
    connection.advance(Duration::from_nanos(1));
    assert_eq!((passed.get(), timeout.left(), timers.len()), (1, None, 0));
    timeout.reset();
    connection.advance(SECOND * 20);
    assert_eq!(passed.get(), 1, "a timeout passes once");
    set(&mut timeout);
    set(&mut timeout);
    assert_eq!(timers.len(), 1, "the new one takes the place of the old one");
    timeout.clear();
    assert_eq!((timers.len(), timeout.left()), (0, None));
    set(&mut timeout);
    drop(timeout);
    connection.advance(SECOND * 20);
    assert_eq!((passed.get(), timers.len()), (1, 0), "a dropped timeout has ended");
    let mut closing = Timeout::new();
    closing.set(&transport, SECOND);
    connection.advance(SECOND);
    assert!(connection.lost().is_some());
}

/// A factory under policies puts them on each of its connections, of a client too.
#[test]
fn a_factory_puts_policies_on_its_connections() {
    let silent = |_: Address| Script::new(&Log::default());
    let server = ConnectionPolicies::new().idle(SECOND * 60).over(silent);
    let client = ConnectionPolicies::new().idle(SECOND * 30).over(silent);
    let pump = PumpOptions::new().connect_factories(client, server);
    pump.advance(SECOND * 30);
    assert_eq!(limit_of(pump.client().lost()), (TimeLimit::Idle, SECOND * 30));
    pump.flush();
    assert!(pump.server().lost().is_some());
    let ended: fn(&Transport) -> bool = Transport::is_disconnected;
    assert!(ended(pump.server().transport()));
}
