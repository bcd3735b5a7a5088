//! The rules of a byte stream, between two in-memory transports: flow control, wake-ups, closing.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::Context;

use futures::io::{AsyncRead, AsyncWrite};
use ropewalk::error::ConnectionClosed;
use ropewalk::transport::QueueLimit;

use super::*;

const KIB_64: usize = 64 * 1024;

/// A reader that waits is woken by bytes, gets them in order, and waits again.
#[test]
fn received_bytes_are_read() {
    let (connection, mut stream) = joined();
    let task = Task::new();
    assert!(task.read(&mut stream, 10).is_pending());
    connection.deliver(b"one ");
    connection.deliver(b"two");
    assert_eq!(task.woken(), 1);
    assert_eq!((ready(task.read(&mut stream, 5)), stream.unread_bytes()), (b"one t".to_vec(), 2));
    assert_eq!(ready(task.read(&mut stream, 5)), b"wo");
    assert!(task.read(&mut stream, 5).is_pending());
    assert_eq!(ready(task.read(&mut stream, 0)), b"", "no room is no end of file");
}

/// A peer whose bytes are not read is made to wait, at 64 KiB and one receive, and goes on when
/// half of that is read.
#[test]
fn a_reader_that_stops_makes_the_peer_wait() {
    let (pump, mut ours, mut theirs) = pair(KIB_64);
    let (writer, reader) = (Task::new(), Task::new());
    let data = pattern(1_000_000);
    let (mut sent, mut read) = (0, Vec::new());
    let mut write_all = |ours: &mut ByteStream| {
        for _ in 0..100 {
            while sent < data.len()
                && let Poll::Ready(count) = writer.write(ours, &data[sent..])
            {
                sent += count.unwrap();
            }
            pump.flush();
        }
    };
    write_all(&mut ours);
    assert!((KIB_64..2 * KIB_64).contains(&theirs.unread_bytes()), "{} bytes", theirs.unread_bytes());
    assert!(ours.transport().queued_bytes() <= KIB_64);
    while read.len() < data.len() {
        let before = theirs.unread_bytes();
        read.extend(ready(reader.read(&mut theirs, 10_000)));
        pump.flush();
        assert!(theirs.unread_bytes() < 2 * KIB_64);
        if before > KIB_64 / 2 + 10_000 {
            assert_eq!(theirs.unread_bytes(), before - 10_000, "it resumes at half");
        }
        write_all(&mut ours);
    }
    assert!(read == data);
}

/// A writer is stopped at 64 KiB, however large its piece is, and woken when half of them have
/// left.
#[test]
fn a_writer_waits_for_its_peer() {
    let (pump, mut ours, theirs) = pair(1000);
    let task = Task::new();
    let data = pattern(1_000_000);
    assert_eq!(ready(task.write(&mut ours, &data)), KIB_64);
    pump.pump();
    let count = KIB_64 - ours.transport().queued_bytes();
    assert!(count > 0 && ready(task.write(&mut ours, &data)) <= count);
    assert!(task.write(&mut ours, &data).is_pending());
    assert_eq!(task.woken(), 0);
    while ours.transport().queued_bytes() > KIB_64 / 2 {
        assert_eq!(task.woken(), 0, "{} bytes are queued", ours.transport().queued_bytes());
        pump.pump();
    }
    pump.pump();
    assert_eq!((task.woken(), task.woken()), (1, 0));
    assert!(task.write(&mut ours, &data).is_ready());
    drop(theirs);
}

/// A writer that waits is woken even if all that it waits for leaves in the same turn: a push
/// producer would not be told.
#[test]
fn a_writer_whose_bytes_leave_at_once_is_woken() {
    let (connection, mut stream) = joined();
    let task = Task::new();
    let small = vec![1; 1000];
    let mut written = 0;
    while let Poll::Ready(count) = task.write(&mut stream, &small) {
        written += count.unwrap();
    }
    assert_eq!((written, task.woken()), (KIB_64, 0));
    connection.turn();
    assert_eq!((connection.string().take_value().len(), task.woken()), (written, 1));
    assert_eq!(ready(task.write(&mut stream, &small)), 1000);
}

/// A task that writes without an end gives way after 1 MiB, and is woken at once.
#[test]
fn a_writer_gives_way() {
    let (connection, mut stream) = joined();
    let task = Task::new();
    let piece = vec![1; 50_000];
    let mut written = 0;
    while let Poll::Ready(count) = task.write(&mut stream, &piece) {
        written += count.unwrap();
        connection.turn();
        assert!(written < 2_000_000, "it never gives way");
    }
    assert!(written >= 1024 * 1024);
    assert_eq!(task.woken(), 1);
    assert_eq!(ready(task.write(&mut stream, &piece)), piece.len());
}

/// A stream keeps to the limit of its transport's queue if that is lower than its own.
#[test]
fn a_writer_keeps_to_the_limit_of_the_queue() {
    for limit in [QueueLimit::abort(5000), QueueLimit::tell(5000), QueueLimit::pause(5000)] {
        let (pump, mut ours, theirs) = pair(1000);
        ours.transport().set_queue_limit(Some(limit));
        let task = Task::new();
        assert_eq!(ready(task.write(&mut ours, &pattern(20_000))), 5000);
        assert!(task.write(&mut ours, b"more").is_pending());
        pump.flush();
        assert_eq!((task.woken(), theirs.unread_bytes()), (1, 5000), "{limit:?}");
        assert!(ours.reason().is_none());
    }
}

/// Pieces of a vectored write leave in order, as far as there is room, and a vectored read fills
/// its buffers.
#[test]
fn pieces_are_taken_as_they_are() {
    let (connection, mut stream) = joined();
    let (task, large) = (Task::new(), pattern(KIB_64));
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    let pieces = [b"head".as_slice(), b"", &large, b"tail"].map(IoSlice::new);
    assert_eq!(ready(Pin::new(&mut stream).poll_write_vectored(&mut cx, &pieces)), KIB_64);
    connection.turn();
    assert_eq!(connection.string().value(), [b"head", &large[..KIB_64 - 4]].concat());
    assert_eq!(ready(Pin::new(&mut stream).poll_write_vectored(&mut cx, &[])), 0);

    connection.deliver(b"a rope of yarn");
    let (mut one, mut two, mut none, mut three) = ([0; 2], [0; 5], [0; 0], [0; 20]);
    let buffers = &mut [&mut one[..], &mut none, &mut two, &mut three].map(IoSliceMut::new);
    assert_eq!(ready(Pin::new(&mut stream).poll_read_vectored(&mut cx, buffers)), 14);
    assert_eq!((&one, &two, &three[..7]), (b"a ", b"rope ", &b"of yarn"[..]));
}

/// Dropping a stream sends the accepted bytes, then closes. Unread input does not hurt them.
#[test]
fn a_dropped_stream_sends_what_it_accepted() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let task = Task::new();
    let data = pattern(KIB_64);
    assert_eq!(ready(task.write(&mut ours, &data)), data.len());
    assert_eq!(ready(task.write(&mut theirs, b"it is never read")), 16);
    drop(ours);
    pump.flush();
    assert!(pump.client().lost().unwrap().check().is_some_and(|end| matches!(end, ConnectionClosed::Done)));
    let mut read = Vec::new();
    while let Poll::Ready(piece) = task.read(&mut theirs, 7000) {
        let piece = piece.unwrap();
        if piece.is_empty() {
            break;
        }
        read.extend(piece);
        pump.flush();
    }
    assert!(read == data);
}

/// An aborted stream drops its queue, and the peer sees a reset.
#[test]
fn an_aborted_stream_is_reset() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let task = Task::new();
    assert!(task.write(&mut ours, &pattern(50_000)).is_ready());
    assert!(task.read(&mut theirs, 10).is_pending());
    ours.abort();
    pump.flush();
    assert_eq!(task.woken(), 1);
    while task.read(&mut theirs, 1000).map(|piece| piece.is_ok()) == Poll::Ready(true) {}
    assert_eq!(error(task.read(&mut theirs, 10)).kind(), ErrorKind::ConnectionReset);
}

/// A close is done when the end was sent, behind the written bytes. The other direction goes on.
#[test]
fn a_close_waits_for_the_end_to_be_sent() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let (task, other) = (Task::new(), Task::new());
    assert_eq!(ready(task.write(&mut ours, &pattern(3000))), 3000);
    assert!(task.close(&mut ours).is_pending());
    assert_eq!(error(task.write(&mut ours, b"late")).kind(), ErrorKind::BrokenPipe);
    while ours.transport().queued_bytes() > 0 {
        assert!(task.close(&mut ours).is_pending());
        pump.pump();
    }
    pump.flush();
    assert_eq!(task.woken(), 1);
    assert_eq!((ready(task.close(&mut ours)), ready(task.close(&mut ours))), ((), ()));
    assert_eq!(ready(other.read(&mut theirs, 5000)).len(), 3000);
    assert_eq!(ready(other.read(&mut theirs, 5000)), b"", "an end of file");

    assert_eq!(ready(other.write(&mut theirs, b"the answer")), 10);
    assert!(other.close(&mut theirs).is_pending());
    pump.flush();
    ready(other.close(&mut theirs));
    assert_eq!((ready(task.read(&mut ours, 50)), ready(task.read(&mut ours, 50))), (b"the answer".to_vec(), vec![]));
    assert!(matches!(ours.reason().unwrap().check(), Some(ConnectionClosed::Done)));
    assert_eq!(error(task.write(&mut ours, b"late")).kind(), ErrorKind::BrokenPipe);
}

/// The task that polled last is woken, and the one before it is not: of readers, writers and those
/// that close.
#[test]
fn the_last_task_is_woken() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let (first, second) = (Task::new(), Task::new());
    for task in [&first, &second] {
        assert!(task.read(&mut theirs, 10).is_pending());
    }
    while first.write(&mut ours, &pattern(10_000)).is_ready() {}
    assert!(second.write(&mut ours, b"more").is_pending());
    let reader = Task::new();
    for _ in 0..1000 {
        pump.pump();
        let _ = theirs.unread_bytes();
    }
    assert_eq!((first.woken(), second.woken()), (0, 2), "one for the read, one for the write");
    while reader.read(&mut theirs, 10_000).is_ready() {
        pump.flush();
    }
    for task in [&first, &second] {
        assert!(task.close(&mut ours).is_pending());
    }
    pump.flush();
    assert_eq!((first.woken(), second.woken()), (0, 1));
}

/// A task that polls twice is woken once, and its waker is not cloned again.
#[test]
fn a_waker_is_kept() {
    let (_connection, mut stream) = joined();
    let task = Task::new();
    assert!(task.read(&mut stream, 10).is_pending());
    let count = Arc::strong_count(&task);
    for _ in 0..3 {
        assert!(task.read(&mut stream, 10).is_pending());
    }
    assert_eq!(Arc::strong_count(&task), count);
    drop(stream);
    assert_eq!(Arc::strong_count(&task), 1, "a dropped stream keeps no waker");
}

/// A stream may be dropped where it is made, and a panic there is the end of its connection alone.
#[test]
fn a_stream_is_dropped_where_it_is_made() {
    let connection = StringTransport::new().joined(StreamProtocol::new(drop));
    assert!(matches!(connection.lost().unwrap().check(), Some(ConnectionClosed::Done)));

    let (_, lines) = common::logged(|| {
        let connection = StringTransport::new().joined(StreamProtocol::new(|_| panic!("not today")));
        assert!(connection.lost().unwrap().to_string().contains("not today"));
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// `drained` waits for an empty queue, which a flush does not.
#[test]
fn a_stream_can_be_waited_for_until_it_is_drained() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let task = Task::new();
    assert!(task.write(&mut ours, &pattern(3000)).is_ready());
    ready(task.flush(&mut ours));
    let spawner = pump.clock().spawner().clone();
    let drained = spawner.spawn(async move { ours.drained().await });
    assert!(!drained.is_called());
    while theirs.unread_bytes() < 3000 {
        pump.pump();
    }
    pump.flush();
    assert!(drained.is_called());
    assert_eq!(ready(task.read(&mut theirs, 5000)), pattern(3000));
}
