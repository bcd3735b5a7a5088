//! Waiting for a short queue, and the way back to the fast path.

use std::task::Waker;

use super::*;

/// A waiter is told once, when the queue is down to its number of bytes, and then the stream is on
/// the fast path again.
#[test]
fn a_waiter_is_told_once() {
    let pool = BufferPool::default();
    let mut stream = open();
    write(&mut stream, &[0; 1000]);
    assert!(!stream.is_drained(999) && stream.is_drained(1000));
    assert!(stream.set_drain_waiter(400, Waker::noop().clone()).is_none());
    assert!(!stream.is_fast_path());
    assert_eq!(stream.next_step(), Step::Send);
    stream.queue.advance(599, &pool);
    stream.sent(599);
    stream.blocked();
    assert_eq!(stream.next_step(), Step::Rest);
    assert!(stream.take_drained().is_none());
    stream.unblocked();
    stream.queue.advance(1, &pool);
    stream.sent(1);
    stream.blocked();
    assert_eq!((stream.next_step(), stream.next_step()), (Step::TellOfQueue, Step::Rest));
    assert!(stream.take_drained().is_some() && stream.take_drained().is_none());
    assert!(stream.is_fast_path());
}

/// A waiter does not hold up a close, and is told when the direction or the network ends.
#[test]
fn a_waiter_is_told_of_an_end() {
    let mut stream = open();
    write(&mut stream, b"left");
    stream.set_drain_waiter(0, Waker::noop().clone());
    stream.lose();
    assert_eq!(steps(&mut stream), [Step::Send, Step::TellOfQueue, Step::Close(CloseMode::Linger)]);

    let mut stream = open();
    write(&mut stream, b"left");
    stream.blocked();
    stream.set_drain_waiter(0, Waker::noop().clone());
    stream.broken(io::ErrorKind::ConnectionReset.into(), true);
    assert_eq!(stream.next_step(), Step::TellOfQueue, "before the bytes that are still to be delivered");
    assert!(stream.take_drained().is_some() && stream.is_drained(0));
    assert!(stream.end_reason().is_some());
}

struct Silent;

impl Producer for Silent {
    fn resume_producing(&mut self, _: &Transport) -> crate::failure::Result<()> {
        Ok(())
    }

    fn stop_producing(&mut self, _: &Transport) {}
}

/// A stream whose producer is gone is on the fast path again, also if the producer unregistered
/// itself in its own call. Marks that were set are kept.
#[test]
fn a_producer_leaves_nothing_behind() {
    for streaming in [Streaming::Push, Streaming::Pull] {
        let mut stream = open();
        assert!(stream.register(Box::new(Silent), streaming).is_none());
        assert!(!stream.is_fast_path());
        assert!(stream.unregister().is_some());
        assert!(stream.is_fast_path(), "{streaming:?}");
    }
    let mut stream = open();
    stream.register(Box::new(Silent), Streaming::Pull);
    assert_eq!(stream.next_step(), Step::TellOfQueue);
    let (producer, _) = stream.take_producer().unwrap();
    assert!(stream.unregister().is_none(), "it is being called");
    assert!(stream.is_fast_path());
    assert!(stream.put_back(producer).is_some(), "it is given back");

    stream.set_marks(10, 20);
    stream.register(Box::new(Silent), Streaming::Push);
    assert!(stream.unregister().is_some());
    assert!(!stream.is_fast_path());
    stream.set_marks(0, 64 * 1024);
    assert!(stream.is_fast_path());
}
