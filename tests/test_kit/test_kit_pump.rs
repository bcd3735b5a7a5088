//! The test kit's pump: two protocols that talk to each other without a reactor, by the rules of
//! the real transport.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Echo, Log, Script};
use ropewalk::error::ConnectionClosed;
use ropewalk::failure::Panicked;
use ropewalk::testing::{self, AccumulatingProtocol, Pump, PumpOptions, connected_pair};
use ropewalk::{Clock, Failure, Protocol, Transport};

const DONE: &str = "the connection was closed cleanly";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn text(reason: Option<Failure>) -> String {
    reason.map_or_else(|| "still there".to_owned(), |reason| reason.to_string())
}

/// One round moves what was sent before it, and no answer; a flush moves everything.
#[test]
fn a_pump_moves_once_and_a_flush_until_nothing_moves() {
    let client = AccumulatingProtocol::new();
    let heard = client.record();
    let pump = connected_pair(client, Echo);
    pump.client().transport().write(b"hello");
    assert_eq!(pump.client().transport().queued_bytes(), 5);
    assert!(pump.pump());
    assert!(heard.data().is_empty());
    assert_eq!(pump.server().in_flight(), 5);
    assert!(pump.pump());
    assert_eq!(heard.data(), b"hello");
    assert!(!pump.pump() && !pump.flush());
    pump.client().transport().write(b" again");
    assert!(pump.flush());
    assert_eq!(heard.data(), b"hello again");
}

/// A large answer, which goes straight to the socket, waits for the next round as well.
#[test]
fn a_large_answer_waits_for_its_round() {
    let client = AccumulatingProtocol::new();
    let heard = client.record();
    let pump = connected_pair(client, Echo);
    pump.client().transport().write(&[1; 20_000]);
    pump.pump();
    assert!(heard.data().is_empty());
    pump.pump();
    assert_eq!(heard.data().len(), 20_000);
}

/// Both sides know who they are connected to.
#[test]
fn addresses() {
    let ends = |pump: &Pump<Echo, Echo>| {
        let (client, server) = (pump.client().transport(), pump.server().transport());
        assert_eq!((client.host(), client.peer()), (server.peer(), server.host()));
        client.host().to_string()
    };
    assert_eq!(ends(&connected_pair(Echo, Echo)), "10.0.0.2:49152");
    let (client, server) = ("[::1]:7".parse::<std::net::SocketAddr>(), "[::2]:8".parse::<std::net::SocketAddr>());
    let options = PumpOptions::new().addresses(client.unwrap(), server.unwrap());
    assert_eq!(ends(&options.connect(Echo, Echo)), "[::1]:7");
}

/// Bytes written before a close arrive, and so do those written after it in the same turn,
/// whichever side closes; both sides end cleanly.
#[test]
fn what_is_written_around_a_close_arrives() {
    let (client, server) = (AccumulatingProtocol::new(), AccumulatingProtocol::new());
    let (at_client, at_server) = (client.record(), server.record());
    let pump = connected_pair(client, server);
    let body = vec![3; 500_000];
    pump.server().transport().write(&body);
    pump.server().transport().lose_connection();
    pump.server().transport().write(b"last");
    pump.client().transport().write(b"not delivered: it is closing");
    pump.flush();
    assert_eq!(at_client.data().len(), body.len() + 4);
    assert!(at_server.data().is_empty());
    assert_eq!([text(at_client.reason()), text(at_server.reason())], [DONE, DONE], "{}", pump.transcript());
    assert!(pump.transcript().contains("server lost: the connection was closed cleanly"));
}

/// An answer that is still on its way when the asker shuts its side arrives whole, half-close or
/// not.
#[test]
fn the_end_does_not_throw_away_the_answer() {
    for half_close in [false, true] {
        let client = AccumulatingProtocol::new().with_half_close();
        let heard = client.record();
        let log = Log::default();
        let answer = |transport: &Transport| {
            transport.write(&[7; 300_000]);
            Ok(())
        };
        let server = Script::new(&log).data(move |transport, _| answer(transport));
        let server = if half_close {
            server.half_close().read_lost(|transport| {
                transport.lose_connection();
                Ok(())
            })
        } else {
            server
        };
        let pump = connected_pair(client, server);
        pump.client().transport().write(b"ask");
        pump.client().transport().lose_write_connection();
        pump.client().transport().write(b", and the rest");
        pump.flush();
        assert_eq!(heard.data().len(), 300_000, "{}", pump.transcript());
        assert!(heard.is_write_lost() && heard.is_read_lost());
        assert_eq!(log.has("read lost"), half_close);
        assert_eq!([text(heard.reason()), log.reason()], [DONE, DONE]);
    }
}

/// An abort drops what was queued and resets the peer, who has first what had arrived, and knows
/// how much it had unsent.
#[test]
fn an_abort_resets_the_peer() {
    let (client, server) = (AccumulatingProtocol::new(), AccumulatingProtocol::new());
    let (at_client, at_server) = (client.record(), server.record());
    let pump = PumpOptions::new().room(10).connect(client, server);
    pump.server().transport().pause_producing();
    pump.client().transport().pause_producing();
    pump.server().transport().write(b"more than there is room for");
    pump.client().transport().write(b"more than there is room for");
    pump.flush();
    pump.client().transport().abort_connection();
    pump.flush();
    assert!(matches!(at_client.reason().unwrap().check(), Some(ConnectionClosed::Aborted)));
    assert!(pump.server().transport().is_disconnecting() && !at_server.is_lost(), "known, and behind what is unread");
    pump.server().transport().resume_producing();
    pump.flush();
    let reason = at_server.reason().unwrap();
    assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { unsent: 17 })), "{reason}");
    assert_eq!(at_server.data(), b"more than ");

    // One round moves 64 KiB; the rest has left already.
    let server = AccumulatingProtocol::new();
    let at_server = server.record();
    let pump = PumpOptions::new().room(1_000_000).connect(Echo, server);
    pump.client().transport().write(&[1; 100_000]);
    pump.pump();
    assert_eq!((at_server.data().len(), pump.client().in_flight()), (65_536, 34_464));
    pump.client().transport().write(b"dropped");
    pump.client().transport().abort_connection();
    pump.flush();
    assert_eq!(at_server.data(), [1; 100_000]);
    assert!(matches!(at_server.reason().unwrap().check(), Some(ConnectionClosed::Reset { unsent: 0 })));
}

/// A paused side is given nothing, and what it does not take is bounded on the way and waits at the
/// sender; resumed, it has everything in order.
#[test]
fn a_paused_side_bounds_what_is_on_its_way() {
    let server = AccumulatingProtocol::new();
    let heard = server.record();
    let pump = PumpOptions::new().room(1000).connect(Echo, server);
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    pump.server().transport().pause_producing();
    for piece in body.chunks(10_000) {
        pump.client().transport().write(piece);
        pump.flush();
        assert!(pump.client().in_flight() <= 1000);
    }
    assert_eq!((pump.client().in_flight(), pump.client().transport().queued_bytes()), (1000, 99_000));
    assert!(heard.data().is_empty());
    pump.server().transport().resume_producing();
    pump.flush();
    assert!(heard.data() == body);
    assert_eq!((pump.client().in_flight(), pump.client().transport().queued_bytes()), (0, 0));
}

/// The peer's end stays behind bytes that a pause holds back.
#[test]
fn the_end_waits_behind_a_pause() {
    let server = AccumulatingProtocol::new();
    let heard = server.record();
    let pump = connected_pair(Echo, server);
    pump.server().transport().pause_producing();
    pump.client().transport().write(b"first");
    pump.client().transport().lose_connection();
    pump.flush();
    assert_eq!(text(pump.client().lost()), DONE);
    assert!(!heard.is_lost() && heard.data().is_empty());
    pump.server().transport().resume_producing();
    pump.flush();
    assert_eq!((heard.data(), text(heard.reason())), (b"first".to_vec(), DONE.to_owned()));
}

/// Bytes that come in the very turn of a pause, before it has taken effect, are held back, and
/// delivered when reading is resumed.
#[test]
fn what_comes_in_the_turn_of_a_pause_is_held() {
    let server = AccumulatingProtocol::new().with_half_close();
    let heard = server.record();
    let pump = connected_pair(Echo, server);
    pump.flush();
    // Of two requests of a turn, the pause is the second to be seen to.
    pump.server().transport().pause_producing();
    pump.server().transport().lose_write_connection();
    pump.client().transport().write(b"in between");
    pump.flush();
    assert!(heard.is_write_lost() && heard.data().is_empty(), "{}", pump.transcript());
    pump.server().transport().resume_producing();
    pump.flush();
    assert_eq!(heard.data(), b"in between");
}

/// Once both ends were sent the kernels are done with the connection: an abort, with unread bytes
/// too, resets no peer any more.
#[test]
fn an_abort_after_both_ends_resets_nobody() {
    for unread in [false, true] {
        let (client, server) = (AccumulatingProtocol::new().with_half_close(), AccumulatingProtocol::new());
        let (at_client, at_server) = (client.record(), server.record());
        let pump = connected_pair(client, server);
        pump.server().transport().lose_write_connection();
        pump.server().transport().pause_producing();
        if unread {
            pump.client().transport().write(b"unread");
        }
        pump.flush();
        pump.server().transport().abort_connection();
        pump.client().transport().lose_write_connection();
        pump.flush();
        assert_eq!(text(at_client.reason()), DONE, "{}", pump.transcript());
        assert!(matches!(at_server.reason().unwrap().check(), Some(ConnectionClosed::Aborted)));
    }
}

/// A close towards a peer that takes nothing waits for the close timeout, by the clock, and then
/// cuts it off.
#[test]
fn a_close_times_out_by_the_clock() {
    let clock = testing::VirtualClock::new();
    let (client, server) = (AccumulatingProtocol::new(), AccumulatingProtocol::new());
    let (at_client, at_server) = (client.record(), server.record());
    let pump = PumpOptions::new().clock(&clock).room(10).connect(client, server);
    pump.server().transport().pause_producing();
    pump.client().transport().set_close_timeout(Some(seconds(7)));
    pump.client().transport().write(&[1; 25]);
    pump.client().transport().lose_connection();
    pump.advance(seconds(6));
    assert!(!at_client.is_lost());
    // Progress starts it anew.
    pump.server().transport().resume_producing();
    pump.pump();
    pump.server().transport().pause_producing();
    pump.advance(seconds(6));
    assert!(!at_client.is_lost());
    pump.advance(seconds(20));
    let reason = at_client.reason().expect("it was cut off");
    assert!(matches!(reason.check(), Some(ConnectionClosed::CloseTimedOut { .. })), "{reason}");
    // The other end is paused, and notices within a second.
    pump.advance(seconds(1));
    assert!(matches!(at_server.reason().unwrap().check(), Some(ConnectionClosed::Reset { .. })));
    assert_eq!(clock.delayed_calls().len(), 0, "nothing is left behind");
}

/// After a close what the peer goes on sending is dropped for five seconds, and then answered with
/// a reset.
#[test]
fn a_closed_end_lingers_and_then_refuses() {
    let server = AccumulatingProtocol::new().with_half_close();
    let heard = server.record();
    let pump = connected_pair(Echo, server);
    pump.client().transport().lose_connection();
    pump.flush();
    assert!(heard.is_read_lost() && !heard.is_lost());
    pump.server().transport().write(b"does anybody hear?");
    pump.flush();
    assert!(pump.transcript().contains("18 bytes, dropped"), "{}", pump.transcript());
    assert!(!heard.is_lost());
    pump.advance(seconds(5));
    pump.server().transport().write(b"and now?");
    pump.flush();
    assert!(matches!(heard.reason().unwrap().check(), Some(ConnectionClosed::Reset { .. })), "{}", pump.transcript());
}

/// After a close no more than 8 MiB of what the peer goes on sending is dropped; then it is reset.
#[test]
fn a_closed_end_refuses_a_flood() {
    const MIB: usize = 1024 * 1024;
    let server = AccumulatingProtocol::new().with_half_close();
    let heard = server.record();
    let pump = connected_pair(Echo, server);
    pump.client().transport().lose_connection();
    pump.flush();
    let mut sent = 0;
    while !heard.is_lost() && sent < 16 * MIB {
        pump.server().transport().write(&vec![7; MIB]);
        sent += MIB;
        pump.flush();
    }
    assert!((8 * MIB..=9 * MIB).contains(&sent), "lost after {sent} bytes");
    assert!(matches!(heard.reason().unwrap().check(), Some(ConnectionClosed::Reset { .. })));
}

/// A callback that fails ends its own connection: what it wrote arrives, and the peer sees a clean
/// end.
#[test]
fn a_failing_callback_ends_its_connection() {
    for panics in [false, true] {
        let client = AccumulatingProtocol::new();
        let heard = client.record();
        let log = Log::default();
        let pump = connected_pair(
            client,
            Script::new(&log).data(move |transport, _| {
                transport.write(b"400");
                assert!(!panics, "it panics");
                Err(Failure::message("it fails"))
            }),
        );
        pump.client().transport().write(b"?");
        pump.flush();
        let reason = pump.server().lost().expect("it failed");
        assert_eq!(reason.check::<Panicked>().is_some(), panics);
        assert_eq!((heard.data(), text(heard.reason())), (b"400".to_vec(), DONE.to_owned()));
        assert_eq!(log.count("lost"), 1);
    }
}

/// Whatever every callback writes and closes, nothing is called from inside another callback, each
/// side is lost once, and both clean up.
#[test]
fn every_callback_may_write_and_close() {
    let requests: [fn(&Transport); 5] = [
        Transport::lose_connection,
        Transport::abort_connection,
        Transport::lose_write_connection,
        Transport::pause_producing,
        |_| panic!("it panics"),
    ];
    for request in requests {
        for callback in ["made", "data", "read lost", "write lost", "lost"] {
            let log = Log::default();
            // An assertion inside would only end the connection.
            let (inside, nested) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let act = {
                let (inside, nested) = (Rc::clone(&inside), Rc::clone(&nested));
                move |name: &str, transport: &Transport| {
                    nested.set(nested.get() | inside.replace(true));
                    transport.write(b"x");
                    let leaving = Leaving(&inside);
                    if name == callback {
                        request(transport);
                    }
                    drop(leaving);
                    Ok(())
                }
            };
            let (made, data, read, write, lost) = (act.clone(), act.clone(), act.clone(), act.clone(), act);
            let script = Script::new(&log)
                .half_close()
                .made(move |transport| made("made", transport))
                .data(move |transport, _| data("data", transport))
                .read_lost(move |transport| read("read lost", transport))
                .write_lost(move |transport| write("write lost", transport))
                .lost(move |transport| lost("lost", transport).unwrap_or(()));
            let pump = connected_pair(script, AccumulatingProtocol::new().with_half_close());
            pump.flush();
            pump.server().transport().write(b"data");
            pump.flush();
            pump.client().transport().lose_write_connection();
            pump.flush();
            pump.server().transport().lose_connection();
            pump.flush();
            pump.client().transport().resume_producing();
            pump.client().transport().lose_connection();
            pump.flush();
            assert!(!nested.get(), "a callback inside another");
            assert_eq!(log.count("lost"), 1, "{callback}: {:?}\n{}", log.all(), pump.transcript());
            assert!(log.all().last().unwrap().starts_with("lost"));
            assert!(pump.server().lost().is_some(), "{callback}\n{}", pump.transcript());
            assert_eq!(pump.clock().delayed_calls().len(), 0);
        }
    }
}

/// The callback is left, by a panic too.
struct Leaving<'a>(&'a Cell<bool>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Calls of the clock are made while pumping, and may write.
#[test]
fn the_clock_is_turned_with_the_pump() {
    let server = AccumulatingProtocol::new();
    let heard = server.record();
    let pump = connected_pair(Echo, server);
    let transport = pump.client().transport().clone();
    pump.clock().call_later(seconds(1), move || transport.write(b"a second later"));
    pump.flush();
    assert!(heard.data().is_empty());
    pump.advance(seconds(1));
    assert_eq!(heard.data(), b"a second later");
    assert_eq!(pump.clock().seconds(), seconds(1));
}

/// A conversation without end fails the test, and says what goes round.
#[test]
fn a_conversation_without_end_is_told() {
    let pump = connected_pair(Echo, Echo);
    pump.client().transport().write(b"round and round");
    let payload = catch_unwind(AssertUnwindSafe(|| pump.flush())).expect_err("it never ends");
    let message = payload.downcast_ref::<String>().expect("a formatted message");
    assert!(message.contains("after 10000 rounds") && message.contains("client: open; 0 bytes queued"), "{message}");
    assert!(message.contains("client -> server: \"round and round\""), "{message}");
    assert!(message.lines().count() < 20, "{message}");
    assert_eq!(pump.transcript().lines().count(), 1000);
    pump.client().transport().lose_connection();
    pump.flush();
    assert_eq!(text(pump.server().lost()), DONE);
}

/// A callback that pumps gets an error, and its connection ends with that.
#[test]
fn a_callback_cannot_pump() {
    type Place = Rc<RefCell<Option<Rc<Pump<Script, Echo>>>>>;
    let place = Place::default();
    let inner = Rc::clone(&place);
    let log = Log::default();
    let script = Script::new(&log).data(move |_, _| {
        let pump = inner.borrow().clone().expect("it is there by now");
        pump.flush();
        Ok(())
    });
    let pump = Rc::new(connected_pair(script, Echo));
    place.replace(Some(Rc::clone(&pump)));
    pump.client().transport().write(b"echo");
    pump.flush();
    assert!(log.reason().contains("in the middle of a turn"), "{}", log.reason());
    place.replace(None);
}

/// The protocols are reached while they are there, and dropped with their connection, or with the
/// pump.
#[test]
fn protocols_are_dropped_with_their_connection() {
    struct Counted(Rc<()>);
    impl Protocol for Counted {
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> ropewalk::Result<()> {
            Ok(())
        }
    }
    let alive = Rc::new(());
    let pump = connected_pair(Counted(Rc::clone(&alive)), Counted(Rc::clone(&alive)));
    assert_eq!(pump.client().with(|protocol, _| Rc::strong_count(&protocol.0)), Ok(3));
    drop(pump);
    assert_eq!(Rc::strong_count(&alive), 1);
    let pump = connected_pair(Counted(Rc::clone(&alive)), Counted(Rc::clone(&alive)));
    let connection = pump.server().connection().clone();
    pump.client().transport().lose_connection();
    pump.flush();
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(connection.with(|_, _| ()).is_err());
}
