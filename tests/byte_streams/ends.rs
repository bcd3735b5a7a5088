//! The ends of a connection, as errors of reads and writes.

use std::io::{self, ErrorKind};
use std::time::Duration;

use ropewalk::Failure;
use ropewalk::error::ConnectionClosed;
use ropewalk::streams::StreamClosed;
use ropewalk::transport::DiscardMode;

use super::*;

/// Each reason is reported by the kind that the table of the module names, to reads and to writes,
/// by every call, and wakes a task that waits.
#[test]
fn each_end_has_its_kind() {
    let refused = io::Error::from(ErrorKind::HostUnreachable);
    let cases: Vec<(Failure, Option<ErrorKind>)> = vec![
        (ConnectionClosed::Done.into(), None),
        (ConnectionClosed::Reset { unsent: 7 }.into(), Some(ErrorKind::ConnectionReset)),
        (ConnectionClosed::TcpTimedOut { unsent: 0 }.into(), Some(ErrorKind::TimedOut)),
        (ConnectionClosed::CloseTimedOut { after: Duration::ZERO, unsent: 0 }.into(), Some(ErrorKind::TimedOut)),
        (ConnectionClosed::Truncated.into(), Some(ErrorKind::UnexpectedEof)),
        (ConnectionClosed::Aborted.into(), Some(ErrorKind::ConnectionAborted)),
        (ConnectionClosed::ReactorStopped.into(), Some(ErrorKind::ConnectionAborted)),
        (ConnectionClosed::QueueLimit { limit: 1, unsent: 2 }.into(), Some(ErrorKind::ConnectionAborted)),
        (ConnectionClosed::Lost { source: refused, unsent: 0 }.into(), Some(ErrorKind::HostUnreachable)),
        (io::Error::from(ErrorKind::PermissionDenied).into(), Some(ErrorKind::PermissionDenied)),
        (Failure::message("another"), Some(ErrorKind::Other)),
    ];
    for (reason, kind) in cases {
        let text = reason.to_string();
        let (connection, mut stream) = joined();
        let (reader, closer) = (Task::new(), Task::new());
        connection.deliver(b"last");
        assert_eq!(ready(reader.read(&mut stream, 10)), b"last");
        assert!(reader.read(&mut stream, 10).is_pending());
        connection.lose(reason);
        assert_eq!((reader.woken(), closer.woken()), (1, 0), "{text}");
        for _ in 0..2 {
            match kind {
                None => {
                    assert_eq!(ready(reader.read(&mut stream, 10)), b"");
                    assert_eq!(error(closer.write(&mut stream, b"x")).kind(), ErrorKind::BrokenPipe);
                    ready(closer.flush(&mut stream));
                    ready(closer.close(&mut stream));
                }
                Some(kind) => {
                    let errors = [
                        error(reader.read(&mut stream, 10)),
                        error(closer.write(&mut stream, b"x")),
                        error(closer.flush(&mut stream)),
                        error(closer.close(&mut stream)),
                    ];
                    for error in errors {
                        assert_eq!((error.kind(), error.to_string()), (kind, text.clone()));
                        let closed = error.get_ref().unwrap().downcast_ref::<StreamClosed>().expect("the reason");
                        assert_eq!(closed.failure().to_string(), text);
                    }
                }
            }
        }
        assert_eq!(stream.reason().unwrap().to_string(), text);
    }
}

/// A stream whose connection is discarded ends for the tasks that wait, although its protocol is
/// told nothing.
#[test]
fn a_discard_ends_the_stream() {
    let (connection, mut stream) = joined();
    let reader = Task::new();
    assert!(reader.read(&mut stream, 10).is_pending());
    connection.string().transport().discard(DiscardMode::Reset);
    assert_eq!(reader.woken(), 1);
    assert_eq!(error(reader.read(&mut stream, 10)).kind(), ErrorKind::ConnectionAborted);
    assert_eq!(stream.reason().unwrap().to_string(), ConnectionClosed::Aborted.to_string());
}

/// Bytes that arrived before a reset are read before it is reported, even if they fill the buffer.
#[test]
fn bytes_come_before_the_end() {
    for count in [10, 200_000] {
        let (pump, mut ours, mut theirs) = pair(1_000_000);
        let task = Task::new();
        let data = pattern(count);
        let mut sent = 0;
        while sent < count {
            sent += ready(task.write(&mut ours, &data[sent..]));
            pump.flush();
        }
        ours.abort();
        pump.flush();
        let mut read = Vec::new();
        while read.len() < count {
            read.extend(ready(task.read(&mut theirs, 9999)));
            pump.flush();
        }
        assert!(read == data);
        assert_eq!(error(task.read(&mut theirs, 10)).kind(), ErrorKind::ConnectionReset, "{count} bytes");
    }
}

/// A writer that waits is woken by the end of the connection, and by that of the direction. One
/// that does not read is told of a reset at once, although bytes before it are unread.
#[test]
fn a_writer_that_waits_is_told_of_the_end() {
    let (pump, mut ours, mut theirs) = pair(1000);
    let (task, peer) = (Task::new(), Task::new());
    // We read nothing, so that our reading is paused, and write until we wait.
    for _ in 0..300 {
        let _ = peer.write(&mut theirs, &pattern(1000));
        pump.pump();
    }
    while task.write(&mut ours, &pattern(10_000)).is_ready() {
        pump.flush();
    }
    task.woken();
    theirs.abort();
    pump.flush();
    assert_eq!(task.woken(), 1);
    let end = error(task.write(&mut ours, b"more"));
    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{end}");
    assert_eq!(ready(task.read(&mut ours, 1000)).len(), 1000, "the bytes before are still there");
}

/// A connection that the program closes through the transport takes no more writes, and a stream
/// whose reactor is gone has ended.
#[test]
fn other_ends_are_noticed() {
    let (connection, mut stream) = joined();
    let task = Task::new();
    assert!(task.read(&mut stream, 1).is_pending());
    stream.transport().lose_connection();
    assert_eq!(error(task.write(&mut stream, b"x")).kind(), ErrorKind::BrokenPipe);
    connection.turn();
    assert_eq!((task.woken(), ready(task.read(&mut stream, 1))), (1, vec![]));

    let (stopped, place) = protocol();
    let reactor = common::reactor();
    let (port, address) = {
        let mut stopped = Some(stopped);
        common::listen(&reactor, move |_| stopped.take())
    };
    let peer = std::net::TcpStream::connect(address).unwrap();
    let mut stream = None;
    common::run_until(&reactor, || {
        stream = place.take();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    assert!(task.read(&mut stream, 1).is_pending());
    drop((port, reactor));
    assert_eq!(task.woken(), 1);
    assert_eq!(error(task.read(&mut stream, 1)).kind(), ErrorKind::ConnectionAborted);
    assert_eq!(error(task.write(&mut stream, b"x")).kind(), ErrorKind::ConnectionAborted);
    drop((stream, peer));
}
