//! Streams with layers: the owner of each byte, the end of a direction, the time limit of a
//! handshake, and the counts.

use std::time::Duration;

use super::{open, reset, steps};
use crate::error::ConnectionClosed;
use crate::failure::Failure;
use crate::transport::layer::{Layer, Opened};
use crate::transport::send_queue::BufferPool;
use crate::transport::step::{CloseMode, Delivery, EndNotice, Ending, Step};
use crate::transport::stream::Stream;

/// A layer that becomes ready with its first input, and changes no byte. It answers all input,
/// unless it is mute.
#[derive(Default)]
struct Glass {
    ready: bool,
    mute: bool,
    /// It fails to seal.
    broken: bool,
    /// The peer's direction has ended in this layer.
    ended: bool,
    timeout: Option<Duration>,
}

const ANSWER: &[u8] = b"<answer>";
const END: &[u8] = b"<end>";

impl Layer for Glass {
    fn open(&mut self, data: &[u8], answer: &mut Vec<u8>, _spares: &BufferPool) -> Opened {
        if !self.mute {
            answer.extend_from_slice(ANSWER);
        }
        let completed = !data.is_empty() && !std::mem::replace(&mut self.ready, true);
        Opened { plain: data.to_vec(), completed, ..Opened::default() }
    }

    fn end(&mut self) -> Option<Failure> {
        (!self.ended).then(|| Failure::message("cut"))
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn is_late(&self, _after: Duration) -> Failure {
        Failure::message("late")
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> crate::failure::Result<()> {
        if self.broken {
            return Err(Failure::message("no more records"));
        }
        sealed.extend_from_slice(plain);
        Ok(())
    }

    fn close(&mut self, sealed: &mut Vec<u8>) {
        sealed.extend_from_slice(END);
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// An open stream with a layer that is ready.
fn layered() -> (Stream, BufferPool) {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass::default()), &pool);
    assert_eq!(stream.received(0, b"hello"), Delivery::Sealed);
    assert!(stream.open(0, b"hello", &pool).completed);
    assert_eq!(sent(&mut stream, &pool, usize::MAX), [ANSWER, ANSWER].concat());
    (stream, pool)
}

/// Sends a stream's bytes, up to `room`, until it rests or closes, and returns them.
fn sent(stream: &mut Stream, pool: &BufferPool, mut room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..20 {
        match stream.next_step() {
            Step::Seal => stream.seal(pool),
            Step::Send => {
                let count = stream.queue.front().len().min(room);
                all.extend_from_slice(&stream.queue.front()[..count]);
                stream.queue.advance(count, pool);
                stream.sent(count);
                room -= count;
                if room == 0 {
                    stream.blocked();
                }
            }
            Step::Rest | Step::Close(_) => return all,
            _ => {}
        }
    }
    panic!("it never rests");
}

/// A layer's end stands behind all written bytes, and nothing comes behind it: no later write, and
/// no answer.
#[test]
fn the_end_of_a_layer_is_the_last() {
    let (mut stream, pool) = layered();
    stream.push(b"all of it", &pool);
    stream.lose_write();
    assert_eq!(sent(&mut stream, &pool, 10), b"all of it<");
    assert!(!stream.accepts_writes(), "the end is on its way");
    stream.unblocked();
    assert_eq!(sent(&mut stream, &pool, usize::MAX), b"end>");
    assert!(stream.is_shut());
    drop(stream.open(0, b"anything", &pool));
    assert!(stream.queue.is_empty(), "an answer behind the end");
    assert_eq!(sent(&mut stream, &pool, usize::MAX), b"");
}

/// Input held back when a layer came belongs to the layer, even if the connection is to be lost:
/// written bytes wait for its handshake.
#[test]
fn what_was_held_back_is_not_dropped_with_the_protocols_bytes() {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.pause();
    assert_eq!(stream.received(0, b"hello"), Delivery::Kept);
    stream.add_layer(Box::new(Glass::default()), &pool);
    stream.push(b"last words", &pool);
    stream.lose();
    let steps: Vec<Step> = (0..4).map(|_| stream.next_step()).collect();
    assert!(!steps.iter().any(|step| matches!(step, Step::Close(_))), "{steps:?}");
    let held = stream.take_held().expect("it is the layer's");
    assert_eq!((held.level, held.data()), (0, &b"hello"[..]));
    assert!(stream.open(0, held.data(), &pool).completed);
    assert_eq!(sent(&mut stream, &pool, usize::MAX), b"<answer><answer>last words<end>");
    assert!(stream.is_over());
}

/// An end below a layer that has not seen its own is a cut, and written bytes are still sent.
#[test]
fn an_end_below_a_layer_is_a_cut() {
    let (mut stream, pool) = layered();
    stream.set_half_close(true);
    stream.push(b"last words", &pool);
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(sent(&mut stream, &pool, usize::MAX), b"last words<end>");
    assert!(stream.is_over());
    assert_eq!(stream.take_reason().to_string(), "cut");
}

/// Bytes that have passed all layers are the protocol's, and a write does not bypass a layer.
#[test]
fn bytes_above_all_layers_are_the_protocols() {
    assert!(open().is_top(0) && !open().is_layered());
    let (stream, _) = layered();
    assert!(stream.is_layered() && !stream.is_top(0) && stream.is_top(1) && stream.is_top(2));
    assert!(!stream.may_send_directly());
}

/// Sealed bytes are opened as long as their plain ones may be delivered, until the stream ends for
/// good.
#[test]
fn sealed_bytes_are_opened_while_they_may_be_delivered() {
    let (mut stream, _) = layered();
    stream.broken(reset(), true);
    assert_eq!(stream.received(0, b"before the break"), Delivery::Sealed);
    let (mut stream, _) = layered();
    stream.lose();
    assert_eq!(stream.received(0, b"an end, perhaps"), Delivery::Sealed);
    stream.abort(ConnectionClosed::Aborted.into());
    assert_eq!(stream.received(0, b"too late"), Delivery::Kept);
}

/// Bytes that are held back during a pause are delivered at the level that they had reached.
#[test]
fn held_bytes_keep_their_level() {
    let (mut stream, _) = layered();
    stream.pause();
    assert_eq!(stream.received(1, b"opened"), Delivery::Kept);
    stream.resume();
    let held = stream.take_held().expect("it was held");
    assert_eq!((held.level, held.data()), (1, &b"opened"[..]));
}

/// After the peer's end of a layer, the stream receives until the network's end, and then stops.
#[test]
fn the_networks_end_is_received_behind_a_layers() {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass { ready: true, mute: true, ended: true, ..Glass::default() }), &pool);
    stream.set_half_close(true);
    assert_eq!(stream.ended(1, Ending::Clean), EndNotice::Tell);
    assert_eq!(steps(&mut stream), []);
    assert_eq!(stream.ended(0, Ending::Clean), EndNotice::Silent);
    assert_eq!(steps(&mut stream), [Step::Receive(false)]);
    stream.lose();
    assert_eq!(stream.next_step(), Step::Seal);
    stream.seal(&pool);
    assert_eq!(steps(&mut stream), [Step::Send, Step::Close(CloseMode::Plain)]);
}

/// The unsent bytes in the reason of a break or a close timeout include the queue and the bytes
/// that wait above a layer.
#[test]
fn the_unsent_count_includes_what_waits_above_a_layer() {
    let (mut stream, pool) = layered();
    stream.push(b"above", &pool);
    stream.broken(reset(), false);
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::Reset { unsent: 5 })));
    assert_eq!(stream.queued_bytes(), 0, "it is dropped");

    let (mut stream, pool) = layered();
    stream.push(b"sealed", &pool);
    stream.seal(&pool);
    stream.push(b"above", &pool);
    stream.blocked();
    stream.lose();
    assert!(matches!(stream.next_step(), Step::ArmDeadline(_)));
    assert!(stream.deadline_passed().is_none());
    assert!(matches!(stream.take_reason().check(), Some(ConnectionClosed::CloseTimedOut { unsent: 11, .. })));
}

/// A handshake under way receives during a pause, keeps the write direction open, and has its
/// deadline until it is done.
#[test]
fn a_handshake_has_a_deadline_until_it_is_done() {
    let (mut stream, pool) = (open(), BufferPool::default());
    let timeout = Duration::from_secs(7);
    let opened = stream.add_layer(Box::new(Glass { timeout: Some(timeout), mute: true, ..Glass::default() }), &pool);
    assert!(!opened.completed && !opened.unanswered);
    assert!(stream.is_handshaking() && stream.top_layer().is_some_and(|layer| layer.as_any().is::<Glass>()));
    stream.pause();
    stream.lose_write();
    assert_eq!(steps(&mut stream), [Step::ArmDeadline(timeout)]);
    let opened = stream.open(0, b"hello", &pool);
    assert!(opened.completed && opened.unanswered, "nothing was answered");
    assert!(!stream.is_handshaking() && !stream.is_shut());
    assert_eq!(stream.next_step(), Step::DisarmDeadline);
}

/// A handshake that takes too long fails its connection with the layer's failure.
#[test]
fn a_late_handshake_fails_the_connection() {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass { timeout: Some(Duration::from_secs(7)), mute: true, ..Glass::default() }), &pool);
    assert_eq!(steps(&mut stream).len(), 1);
    assert_eq!(stream.deadline_passed().expect("it is late").to_string(), "late");
    assert!(stream.is_failing() && stream.take_reason().to_string() == "late");
}

/// The answer that completes a handshake counts as an answer. Of a long write no more than 256 KiB
/// are sealed before they are sent.
#[test]
fn a_long_write_is_sealed_in_parts() {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass::default()), &pool);
    let opened = stream.open(0, b"hello", &pool);
    assert!(opened.completed && !opened.unanswered);
    assert_eq!(sent(&mut stream, &pool, usize::MAX), [ANSWER, ANSWER].concat());
    stream.push(&vec![1; 1024 * 1024], &pool);
    assert_eq!((stream.queue.len(), stream.queued_bytes()), (256 * 1024, 1024 * 1024));
    assert_eq!(stream.queue.front().len(), 48 * 1024, "three full records at a time");
}

/// Many small writes are sealed in parts as well, 256 KiB at a time.
#[test]
fn many_writes_are_sealed_in_parts() {
    let (mut stream, pool) = layered();
    for _ in 0..128 {
        stream.push(&[1; 4096], &pool);
    }
    for part in 1..=2 {
        assert_eq!(stream.next_step(), Step::Seal);
        stream.seal(&pool);
        assert_eq!((stream.queue.len(), stream.queued_bytes()), (256 * 1024, (3 - part) * 256 * 1024));
        assert_eq!(sent_once(&mut stream, &pool), 256 * 1024);
    }
    assert_eq!(stream.next_step(), Step::Rest);
}

/// A large piece is sealed when it is written, and small ones behind it before it is sent: they
/// leave together, unless there are too many.
#[test]
fn pieces_of_all_sizes_leave_together() {
    for small in [1, 10] {
        let (mut stream, pool) = layered();
        let all = 9000 + 4 * small;
        stream.push(&[1; 9000], &pool);
        for _ in 0..small {
            stream.push(&[2; 4], &pool);
        }
        assert_eq!((stream.queue.len(), stream.queued_bytes()), (9000, all));
        assert_eq!(stream.next_step(), Step::Seal);
        stream.seal(&pool);
        assert_eq!(stream.next_step(), Step::Send);
        assert_eq!(sent_once(&mut stream, &pool), all);
        assert_eq!(stream.next_step(), Step::Rest);
    }
    // The socket is full: later writes wait unsealed, and share records later.
    let (mut stream, pool) = layered();
    stream.push(&[1; 9000], &pool);
    stream.blocked();
    stream.push(&[2; 4], &pool);
    assert_eq!((stream.next_step(), stream.queue.len()), (Step::Rest, 9000));
    // Beyond the limit, the sealed bytes leave first.
    let (mut stream, pool) = layered();
    stream.push(&vec![1; 256 * 1024], &pool);
    stream.push(&[2; 4], &pool);
    assert_eq!(stream.next_step(), Step::Send);
    assert_eq!(sent_once(&mut stream, &pool), 256 * 1024);
    assert_eq!(stream.next_step(), Step::Seal);
}

/// Sends all queued bytes, and returns their number.
fn sent_once(stream: &mut Stream, pool: &BufferPool) -> usize {
    let count = stream.queue.len();
    while !stream.queue.is_empty() {
        stream.queue.advance(stream.queue.front().len(), pool);
    }
    stream.sent(count);
    count
}

/// A layer whose handshake is not done ends the write direction as well, but no layer above it
/// does.
#[test]
fn a_handshake_that_is_not_done_is_ended() {
    for (ready, ends) in [(&[false][..], 1), (&[false, false], 1), (&[true, false], 2), (&[true, true], 2)] {
        let (mut stream, pool) = (open(), BufferPool::default());
        for ready in ready {
            stream.add_layer(Box::new(Glass { ready: *ready, mute: true, ..Glass::default() }), &pool);
        }
        stream.lose();
        assert_eq!(sent(&mut stream, &pool, usize::MAX), END.repeat(ends), "{ready:?}");
        assert!(stream.is_over());
    }
}

/// A large write is not sealed at once before the handshake is done, nor ahead of earlier writes.
#[test]
fn a_large_write_waits_where_it_must() {
    let large = vec![1; 16 * 1024];
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass { mute: true, ..Glass::default() }), &pool);
    stream.push(&large, &pool);
    assert_eq!((stream.queue.len(), stream.queued_bytes()), (0, large.len()));

    let (mut stream, pool) = layered();
    stream.push(b"before", &pool);
    stream.push(&large, &pool);
    assert_eq!((stream.queue.len(), stream.queued_bytes()), (0, 6 + large.len()));
    assert_eq!(sent(&mut stream, &pool, usize::MAX), [b"before", &*large].concat());
}

/// A layer that can't seal ends the connection, with its failure.
#[test]
fn a_layer_that_fails_to_seal_ends_the_connection() {
    let (mut stream, pool) = (open(), BufferPool::default());
    stream.add_layer(Box::new(Glass { ready: true, mute: true, broken: true, ..Glass::default() }), &pool);
    assert!(!stream.has_more_to_send());
    stream.push(b"secret", &pool);
    assert!(stream.has_more_to_send());
    assert_eq!(stream.next_step(), Step::Seal);
    stream.seal(&pool);
    assert!(stream.is_failing());
    assert_eq!(stream.take_reason().to_string(), "no more records");
}
