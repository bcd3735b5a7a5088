//! The stream's state machine on its own: its tables, row by row, and random orders of requests and
//! events.

mod drained;
mod layers;

use std::io;
use std::time::Duration;

use proptest::prelude::*;

use super::Transport;
use super::producer::{Notice, Producer, Streaming};
use super::queue_limit::{LimitAction, QueueLimit};
use super::send_queue::BufferPool;
use super::step::{CloseMode, Delivery, EndNotice, Ending, Step};
use super::stream::Stream;
use crate::error::ConnectionClosed;
use crate::failure::Failure;

/// Each connection has a stream, so it is small: its fields are ordered and packed without a gap.
#[test]
fn a_stream_is_small() {
    assert!(size_of::<Stream>() <= 72, "{} bytes", size_of::<Stream>());
}

/// A stream that receives, as after the first settling.
fn open() -> Stream {
    let mut stream = Stream::new();
    assert_eq!(steps(&mut stream), [Step::Receive(true)]);
    stream
}

/// All steps up to rest or close. Sends take all bytes.
fn steps(stream: &mut Stream) -> Vec<Step> {
    let pool = BufferPool::default();
    let mut all = Vec::new();
    for _ in 0..20 {
        let step = stream.next_step();
        match step {
            Step::Rest => return all,
            Step::Send => {
                let count = stream.queue.len();
                stream.queue.advance(count, &pool);
                stream.sent(count);
            }
            _ => {}
        }
        all.push(step);
        if matches!(step, Step::Close(_) | Step::DeliverHeld) {
            return all;
        }
    }
    panic!("it never rests: {all:?}");
}

fn write(stream: &mut Stream, data: &[u8]) {
    if stream.accepts_writes() {
        stream.queue.push(data, &BufferPool::default());
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A stream with an empty queue and no request is idle.
#[test]
fn a_stream_is_idle_when_nothing_is_to_be_done() {
    let mut stream = open();
    assert!(stream.is_idle());
    write(&mut stream, b"queued");
    assert!(!stream.is_idle());
    let mut stream = open();
    stream.lose();
    assert!(!stream.is_idle() && !stream.is_aborting());
    stream.abort(ConnectionClosed::Aborted.into());
    assert!(stream.is_aborting());
}

/// A write may go straight to the socket if nothing is queued ahead of it, and the socket has not
/// reported that it is full.
#[test]
fn a_write_goes_past_an_empty_queue_only() {
    let mut stream = open();
    assert!(stream.may_send_directly());
    stream.blocked();
    assert!(!stream.may_send_directly());
    stream.unblocked();
    assert!(stream.may_send_directly());
    write(&mut stream, b"ahead");
    assert!(!stream.may_send_directly());
}

/// The getters of a stream follow from its requests.
#[test]
fn questions_are_answered() {
    let asked = |stream: &Stream| {
        [
            stream.delivers(),
            stream.takes_layers(),
            stream.is_write_closing(),
            stream.is_failing(),
            stream.has_deadline(),
            stream.has_more_to_send(),
        ]
    };
    let mut stream = open();
    assert_eq!(asked(&stream), [true, true, false, false, false, false]);
    assert_eq!([stream.mark_dirty(), stream.mark_dirty()], [true, false]);
    stream.clear_dirty();
    assert!(stream.mark_dirty());
    write(&mut stream, b"queued");
    assert_eq!(asked(&stream), [true, true, false, false, false, true]);
    stream.lose_write();
    assert_eq!(asked(&stream), [true, true, true, false, false, true]);

    let mut stream = open();
    write(&mut stream, b"queued");
    stream.blocked();
    stream.lose();
    assert_eq!(stream.next_step(), Step::ArmDeadline(super::stream::CLOSE_TIMEOUT));
    assert_eq!(asked(&stream), [false, false, false, false, true, true]);
    stream.fail(Failure::message("no"));
    assert!(stream.is_failing());

    let mut stream = open();
    stream.set_half_close(true);
    stream.ended(0, Ending::Clean);
    assert_eq!(asked(&stream), [true, false, false, false, false, false]);
}

/// A close that makes progress is not given up, for any number of sends, and for both ways to send.
#[test]
fn a_close_that_goes_on_is_not_given_up() {
    for sends in 0..4 {
        for lends in [false, true] {
            let (mut stream, pool) = (open(), BufferPool::default());
            write(&mut stream, b"queued");
            stream.blocked();
            stream.lose();
            assert!(matches!(stream.next_step(), Step::ArmDeadline(_)));
            for _ in 0..sends {
                if lends {
                    let in_flight = stream.queue.lend().expect("there is a chunk");
                    assert!(stream.returned(in_flight, Ok(1), &pool));
                } else {
                    stream.queue.advance(1, &pool);
                    stream.sent(1);
                }
            }
            stream.sent(0);
            assert!(stream.deadline_passed().is_none());
            assert_eq!(stream.is_aborting(), sends == 0, "{sends} sends, lends {lends}");
        }
    }
}

/// The first reason to abort stays.
#[test]
fn the_first_reason_stays() {
    let mut stream = open();
    stream.abort(Failure::message("first"));
    stream.abort(Failure::message("second"));
    assert_eq!(stream.take_reason().to_string(), "first");
}

/// A producer that writes nothing.
struct Silent;

impl Producer for Silent {
    fn resume_producing(&mut self, _: &Transport) -> crate::failure::Result<()> {
        Ok(())
    }

    fn stop_producing(&mut self, _: &Transport) {}
}

/// A pull producer whose piece went straight to the socket is asked for the next.
#[test]
fn a_piece_that_is_sent_at_once_is_followed_by_the_next() {
    let mut stream = open();
    assert!(stream.register(Box::new(Silent), Streaming::Pull).is_none());
    for _ in 0..3 {
        assert_eq!(stream.next_step(), Step::TellOfQueue);
        let (producer, notice) = stream.take_producer().expect("it is to be told");
        assert_eq!(notice, Notice::Resume);
        assert_eq!(stream.next_step(), Step::Rest);
        stream.sent_directly(20_000);
        assert!(stream.put_back(producer).is_none());
    }
}

/// A peer that is gone after all bytes were sent is no loss, unless a producer had more to write.
#[test]
fn a_producer_that_is_cut_short_is_a_loss() {
    for produces in [false, true] {
        let mut stream = open();
        if produces {
            assert!(stream.register(Box::new(Silent), Streaming::Pull).is_none());
        }
        stream.lose();
        stream.broken(io::ErrorKind::BrokenPipe.into(), false);
        let reason = stream.take_reason();
        assert_eq!(matches!(reason.check(), Some(ConnectionClosed::Done)), !produces, "{reason}");
    }
}

/// Bytes that are held back while the network ends are delivered, with the end behind them. A held
/// end alone is nothing to wait for, and a reason to close does not wait either.
#[test]
fn what_is_held_back_outlives_the_network() {
    let broken = |data: &[u8]| {
        let mut stream = open();
        stream.pause();
        if data.is_empty() {
            stream.ended(0, Ending::Clean);
        } else {
            assert_eq!(stream.received(0, data), Delivery::Kept);
        }
        stream.broken(reset(), false);
        stream
    };
    let mut stream = broken(b"held");
    assert!(matches!(steps(&mut stream)[..], [Step::ArmDeadline(_), Step::Receive(false)]));
    stream.resume();
    assert_eq!(steps(&mut stream), [Step::DisarmDeadline, Step::DeliverHeld]);
    let held = stream.take_held().expect("it is due");
    assert!(held.data() == b"held" && matches!(held.end, Some(Ending::Clean)));
    // A callback that fails over the held bytes is the reason, because the protocol knows of no
    // other.
    stream.callback_failed(Failure::message("no"));
    assert!(matches!(steps(&mut stream)[..], [Step::Close(_)]));
    assert_eq!(stream.take_reason().to_string(), "no");
    for is_empty in [true, false] {
        let mut stream = broken(if is_empty { b"" } else { b"held" });
        if !is_empty {
            stream.fail(ConnectionClosed::ReactorStopped.into());
        }
        assert!(matches!(steps(&mut stream)[..], [Step::Close(_)]));
        assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { .. })));
    }
}

/// Losing sends the queue and later writes, and then closes, lingering because the peer has not
/// ended.
#[test]
fn losing_drains_and_closes() {
    let mut stream = open();
    write(&mut stream, b"before");
    stream.lose();
    write(&mut stream, b"after");
    assert_eq!(stream.received(0, b"ignored"), Delivery::Kept);
    assert_eq!(steps(&mut stream), [Step::Send, Step::Close(CloseMode::Linger)]);
    assert!(!stream.accepts_writes());
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Done)));
}

/// After the peer's end there is nothing to linger for.
#[test]
fn losing_after_the_peers_end_closes_plainly() {
    let mut stream = open();
    stream.set_half_close(true);
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Tell);
    assert_eq!(steps(&mut stream), [Step::Receive(false)]);
    stream.lose();
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
}

/// Without half-close the peer's end loses the connection, once the queue was sent.
#[test]
fn the_peers_end_drains() {
    let mut stream = open();
    write(&mut stream, b"the whole answer");
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(steps(&mut stream), [Step::Send, Step::Close(CloseMode::Plain)]);
}

/// When both directions have ended, in either order, the connection is over.
#[test]
fn both_ends_are_the_end() {
    for ours_first in [true, false] {
        let mut stream = open();
        stream.set_half_close(true);
        if ours_first {
            stream.lose_write();
            assert_eq!(steps(&mut stream), [Step::ShutDownWriting]);
            assert_eq!(stream.shut(), EndNotice::Tell);
            assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Tell);
        } else {
            assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Tell);
            stream.lose_write();
            assert_eq!(stream.next_step(), Step::ShutDownWriting);
        }
        assert_eq!(steps(&mut stream).last(), Some(&Step::Close(CloseMode::Plain)));
    }
}

/// A blocked, closing stream asks for its deadline. Progress buys the same time again, and no
/// progress ends it with a reset.
#[test]
fn the_close_deadline_runs_while_nothing_is_taken() {
    let mut stream = open();
    write(&mut stream, b"stuck");
    stream.blocked();
    stream.lose();
    let deadline = Step::ArmDeadline(super::stream::CLOSE_TIMEOUT);
    assert_eq!(steps(&mut stream), [deadline]);
    stream.sent(1);
    assert!(stream.deadline_passed().is_none());
    assert_eq!(steps(&mut stream), [deadline]);
    assert!(stream.deadline_passed().is_none());
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Reset)]);
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::CloseTimedOut { unsent: 5, .. })));
}

/// A failed callback's connection gets one flush, and does not wait for a socket that is full.
#[test]
fn failing_flushes_once() {
    let mut stream = open();
    write(&mut stream, b"400");
    stream.fail(Failure::message("no"));
    assert_eq!(steps(&mut stream), [Step::Send, Step::Close(CloseMode::Linger)]);
    assert_eq!(stream.take_reason().to_string(), "no");

    let mut stream = open();
    write(&mut stream, b"400");
    stream.blocked();
    stream.fail(Failure::message("no"));
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Reset)], "what is cut short must not look whole");
}

/// A callback's failure is the reason even after an abort, whose reset stays.
#[test]
fn a_failure_behind_an_abort_is_the_reason() {
    let mut stream = open();
    stream.abort(ConnectionClosed::Aborted.into());
    stream.callback_failed(Failure::message("no"));
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Reset)]);
    assert_eq!(stream.take_reason().to_string(), "no");
}

/// A send that fails ends the write direction. Bytes that arrived before are received, and then the
/// loss is reported with that error.
#[test]
fn a_failed_send_leaves_what_arrived_to_be_received() {
    let mut stream = open();
    write(&mut stream, b"request");
    stream.broken(reset(), true);
    assert!(!stream.accepts_writes() && stream.is_closing());
    assert_eq!(steps(&mut stream), [Step::ReceiveRest]);
    assert_eq!(stream.received(0, b"413"), Delivery::Deliver);
    assert_eq!(steps(&mut stream), []);
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { unsent: 7 })));
}

/// A protocol that pauses in the middle of a chunk returns the rest. The rest is delivered first,
/// with the end behind it, and nothing is received before. Bytes that are returned again are not
/// moved.
#[test]
fn the_rest_of_a_chunk_is_delivered_first() {
    let mut stream = open();
    assert!(stream.takes_more(0));
    assert!(!stream.keep_rest(0, b"the protocol reads on"));
    stream.pause();
    assert!(!stream.takes_more(0) && stream.keep_rest(0, b"two three"));
    assert_eq!(stream.received(0, b" four"), Delivery::Kept);
    assert_eq!(steps(&mut stream), [Step::Receive(false)]);
    stream.resume();
    assert_eq!(steps(&mut stream), [Step::DeliverHeld]);
    let held = stream.take_held().expect("it is due");
    assert_eq!(held.data(), b"two three four");
    let place = held.data()[4..].as_ptr();
    stream.pause();
    assert!(stream.keep_rest(0, b"three four"));
    assert!(stream.settle_lent(held).is_none());
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    stream.resume();
    let held = stream.take_held().expect("it is due");
    assert_eq!((held.data(), held.data().as_ptr()), (&b"three four"[..], place));
    assert!(matches!(stream.settle_lent(held), Some(Ending::Clean)));
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert!(stream.is_closing() && !stream.takes_more(0) && !stream.keep_rest(0, b"dropped"));
    assert!(stream.take_held().is_none());
}

/// A break during a pause is noticed at once, and reported behind the bytes before it to a protocol
/// that resumes within a second.
#[test]
fn a_break_during_a_pause_waits_for_the_protocol() {
    let deadline = Step::ArmDeadline(Duration::from_secs(1));
    let mut stream = open();
    stream.pause();
    assert_eq!(steps(&mut stream), [Step::Receive(false)]);
    assert_eq!(stream.received(0, b"held"), Delivery::Kept);
    stream.broken(reset(), true);
    assert_eq!(steps(&mut stream), [deadline]);
    stream.resume();
    assert_eq!(steps(&mut stream), [Step::DisarmDeadline, Step::DeliverHeld]);
    assert_eq!(stream.take_held().expect("bytes were held").data(), b"held");
    assert_eq!(steps(&mut stream), [Step::ReceiveRest]);
    stream.pause();
    assert_eq!(steps(&mut stream), [deadline, Step::Receive(false)]);
    assert!(stream.deadline_passed().is_none());
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { unsent: 0 })));
}

/// A break with nothing left to deliver ends the stream at once, paused or not. Giving up the held
/// bytes does the same.
#[test]
fn a_break_with_nothing_left_is_the_end() {
    for paused in [false, true] {
        let mut stream = open();
        if paused {
            stream.pause();
        }
        stream.broken(reset(), false);
        assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
    }
    let mut stream = open();
    stream.broken(reset(), true);
    stream.lose();
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { .. })));
}

/// An abort drops the queue and resets in every state. An error of the network takes precedence
/// over a failure before or after it.
#[test]
fn closing_only_moves_down_its_table() {
    let mut stream = open();
    write(&mut stream, b"dropped");
    stream.lose();
    stream.fail(Failure::message("failed"));
    stream.broken(reset(), false);
    stream.fail(Failure::message("too late"));
    stream.lose();
    assert_eq!(stream.next_step(), Step::Close(CloseMode::Plain));
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { unsent: 7 })));

    let mut stream = open();
    stream.broken(reset(), false);
    stream.abort(ConnectionClosed::Aborted.into());
    assert_eq!(stream.next_step(), Step::Close(CloseMode::Reset));
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Aborted)));
}

/// Bytes and an end that come while paused are held in order, and nothing overtakes them.
#[test]
fn what_comes_while_paused_is_held() {
    let mut stream = open();
    assert!(!stream.is_paused());
    stream.pause();
    assert!(stream.is_paused());
    assert_eq!(stream.received(0, b"one "), Delivery::Kept);
    assert_eq!(steps(&mut stream), [Step::Receive(false)]);
    stream.resume();
    assert!(!stream.is_paused());
    assert_eq!(stream.received(0, b"two"), Delivery::Kept);
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(steps(&mut stream), [Step::DeliverHeld]);
    let held = stream.take_held().expect("it was held");
    assert!(held.data() == b"one two" && held.end.is_some());
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
}

/// Losing after a pause drops the held bytes, but keeps a held end.
#[test]
fn losing_drops_what_was_held() {
    let mut stream = open();
    stream.pause();
    let _ = stream.received(0, b"never seen");
    let _ = stream.ended(0, Ending::Clean);
    stream.lose();
    assert_eq!(steps(&mut stream), [Step::Close(CloseMode::Plain)]);
    assert!(stream.take_held().is_none());
}

#[derive(Debug, Clone)]
enum Act {
    Write(usize),
    Lose,
    LoseWrite,
    Abort,
    Fail,
    Pause,
    Resume,
    Received(usize),
    Ended,
    Broken(bool),
    Unblocked,
    Deadline,
    Limit(Option<QueueLimit>),
    /// Settle. The socket takes this many bytes, then is full.
    Settle(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..200_000_usize).prop_map(Act::Write),
        1 => Just(Act::Lose),
        1 => Just(Act::LoseWrite),
        1 => Just(Act::Abort),
        1 => Just(Act::Fail),
        2 => Just(Act::Pause),
        2 => Just(Act::Resume),
        3 => (1..1000_usize).prop_map(Act::Received),
        1 => Just(Act::Ended),
        1 => any::<bool>().prop_map(Act::Broken),
        2 => Just(Act::Unblocked),
        1 => Just(Act::Deadline),
        1 => limits().prop_map(Act::Limit),
        6 => (0..300_000_usize).prop_map(Act::Settle),
    ]
}

fn limits() -> impl Strategy<Value = Option<QueueLimit>> {
    let bytes = prop_oneof![0..1_000_u32, 0..400_000_u32];
    let action = prop_oneof![Just(LimitAction::Tell), Just(LimitAction::Pause), Just(LimitAction::Abort)];
    proptest::option::weighted(0.8, (bytes, action).prop_map(|(bytes, action)| QueueLimit::new(bytes, action)))
}

proptest! {
    /// In every order, the machine comes to rest and closes at most once. After that it delivers
    /// nothing and asks for nothing. Before it, no byte is lost or repeated, received bytes are
    /// delivered in order, and the queue keeps its limit.
    #[test]
    fn any_order_of_requests_and_events(acts in proptest::collection::vec(act(), 1..60), half_close: bool) {
        let pool = BufferPool::default();
        let mut stream = Stream::new();
        stream.set_half_close(half_close);
        let (mut written, mut sent, mut closed) = (0, 0, false);
        let (mut came, mut delivered, mut end_came, mut ends) = (0, 0, false, 0);
        let (mut shut, mut broken) = (false, false);
        for act in acts {
            match act {
                Act::Write(count) if stream.accepts_writes() => {
                    prop_assert!(!closed && !shut);
                    let before = stream.queue.len();
                    stream.push(&vec![0; count], &pool);
                    written += stream.queue.len() - before;
                    let is_kept = stream.queue.len() == before + count;
                    prop_assert!(is_kept || (stream.queue.len() == before && stream.is_aborting()));
                    if let Some(limit) = stream.limit().filter(|limit| limit.action() == LimitAction::Abort) {
                        prop_assert_eq!(is_kept, count == 0 || before + count <= limit.bytes() as usize);
                    }
                }
                Act::Write(_) => {}
                Act::Lose => stream.lose(),
                Act::LoseWrite => stream.lose_write(),
                Act::Abort => stream.abort(ConnectionClosed::Aborted.into()),
                Act::Fail => stream.fail(Failure::message("failed")),
                Act::Pause => stream.pause(),
                Act::Resume => stream.resume(),
                // Backends report nothing about a closed connection, and no bytes come behind an
                // end.
                Act::Received(count) if !closed && !end_came => {
                    came += count;
                    if stream.received(0, &vec![0; count]) == Delivery::Deliver {
                        delivered += count;
                        prop_assert_eq!(came, delivered, "something was overtaken");
                    }
                }
                Act::Ended if !closed => {
                    end_came = true;
                    if stream.ended(0, Ending::Clean) == EndNotice::Tell {
                        ends += 1;
                        prop_assert_eq!(came, delivered, "the end overtook bytes");
                    }
                }
                Act::Broken(rest) if !closed => {
                    stream.broken(reset(), rest);
                    (broken, end_came) = (true, end_came || !rest);
                }
                Act::Received(_) | Act::Ended | Act::Broken(_) => {}
                Act::Unblocked => stream.unblocked(),
                Act::Deadline => drop(stream.deadline_passed()),
                Act::Limit(limit) if !closed => stream.set_limit(limit),
                Act::Limit(_) => {}
                Act::Settle(room) => {
                    let mut room = room;
                    for turn in 0.. {
                        prop_assert!(turn < 50, "it never rests");
                        match stream.next_step() {
                            Step::Rest => {
                                let queued = stream.queue.len();
                                let above = stream.limit().filter(|limit| queued > limit.bytes() as usize);
                                if above.is_some_and(|limit| limit.action() == LimitAction::Pause) && !stream.is_closing() {
                                    prop_assert!(stream.is_paused() || end_came, "it reads above its limit");
                                }
                                break;
                            }
                            Step::Send => {
                                prop_assert!(!closed && !shut && !broken && !stream.queue.is_empty());
                                let count = stream.queue.len().min(room);
                                stream.queue.advance(count, &pool);
                                stream.sent(count);
                                (room, sent) = (room - count, sent + count);
                                if !stream.queue.is_empty() {
                                    stream.blocked();
                                }
                            }
                            Step::ShutDownWriting => {
                                prop_assert!(!closed && !shut && stream.queue.is_empty());
                                shut = true;
                            }
                            Step::Receive(_) | Step::ArmDeadline(_) => prop_assert!(!closed),
                            Step::ReceiveRest | Step::DisarmDeadline => prop_assert!(!closed && broken),
                            Step::Seal => prop_assert!(false, "there is no layer"),
                            Step::TellOfQueue => {
                                let limit = stream.limit().filter(|limit| limit.action() == LimitAction::Tell);
                                prop_assert!(limit.is_some_and(|limit| stream.queue.len() > limit.bytes() as usize));
                                prop_assert!(stream.take_limit_notice() && !stream.take_limit_notice());
                            }
                            Step::DeliverHeld => {
                                prop_assert!(!closed);
                                let held = stream.take_held().expect("it said so");
                                delivered += held.data().len();
                                prop_assert_eq!(came, delivered, "held bytes were lost or repeated");
                                if held.end.is_some() && stream.ended(0, Ending::Clean) == EndNotice::Tell {
                                    ends += 1;
                                }
                            }
                            Step::Close(_) => {
                                prop_assert!(!closed, "closed twice");
                                closed = true;
                            }
                        }
                    }
                }
            }
            prop_assert!(ends <= 1);
            prop_assert!(closed || broken || sent + stream.queue.len() == written, "bytes were lost or repeated");
            prop_assert_eq!(stream.is_over(), closed);
        }
    }
}
