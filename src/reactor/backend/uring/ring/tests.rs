//! Tests of the ring alone.

use std::os::fd::AsRawFd;

use super::*;
use crate::reactor::backend::tests::{ID, LIMIT, tcp_pair};

/// Completions that were handed over leave the list. Requests beyond the kernel's queue are
/// submitted at once.
#[test]
fn nothing_piles_up() {
    let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
    let (socket, _peer) = tcp_pair();
    let asked = 2 * REQUESTS as usize + 7;
    for _ in 0..asked {
        ring.poll(Kind::Poll, ID, socket.as_raw_fd(), PollFlags::OUT, false);
        assert!(ring.waiting.is_empty(), "a request waits although the kernel takes it");
    }
    let mut came = 0;
    for _ in 0..1000 {
        ring.enter(Some(if came < asked { LIMIT } else { Duration::ZERO })).expect("the ring waits");
        while let Some(done) = ring.next() {
            assert!(done.kind() == Kind::Poll && done.id() == ID && done.poll_flags().is_ok() && !done.goes_on());
            came += 1;
        }
        if came == asked {
            break;
        }
    }
    assert_eq!((came, ring.pending), (asked, 0));
    ring.enter(Some(Duration::ZERO)).expect("the ring waits");
    assert!(ring.next().is_none() && ring.completions() == 0, "{} completions are kept", ring.completions());
}

/// Makes a ring with `count` polls under way.
fn polling(socket: &OwnedFd, count: usize) -> Option<Ring> {
    let mut ring = Ring::new().ok()?;
    for _ in 0..count {
        ring.poll(Kind::Poll, ID, socket.as_raw_fd(), PollFlags::IN, false);
    }
    ring.flush();
    assert_eq!((ring.completions(), ring.pending), (0, count));
    Some(ring)
}

/// A flush takes all completions that are due, however many. A turn takes its share of them.
#[test]
fn a_flush_takes_everything_and_a_turn_its_share() {
    use std::io::Write;
    const COUNT: usize = 2 * EVENTS;
    for flush in [true, false] {
        let (socket, mut peer) = tcp_pair();
        let Some(mut ring) = polling(&socket, COUNT) else { return println!("skipped: no io_uring here") };
        peer.write_all(b"wake up").expect("the socket is open");
        if flush {
            ring.flush();
            assert_eq!(ring.completions(), COUNT);
            continue;
        }
        ring.enter(Some(Duration::ZERO)).expect("the ring waits");
        let came = std::iter::from_fn(|| ring.next()).count();
        assert_eq!(came, EVENTS, "in a turn");
        ring.enter(Some(Duration::ZERO)).expect("the ring waits");
        assert_eq!(std::iter::from_fn(|| ring.next()).count(), COUNT - EVENTS, "in the next");
    }
}

/// Dropping a ring waits until the kernel has released all its memory.
#[test]
fn everything_is_taken_back() {
    let (socket, _peer) = tcp_pair();
    let Some(mut ring) = polling(&socket, 3 * EVENTS) else { return println!("skipped: no io_uring here") };
    assert!(ring.take_back());
    assert_eq!(ring.pending, 0);
}

/// Chunks that have come back free their numbers for later ones.
#[test]
fn numbers_of_chunks_are_used_again() {
    use crate::transport::send_queue::BufferPool;
    let mut flights = Flights::default();
    let pool = BufferPool::default();
    for _ in 0..100 {
        let mut stream = crate::transport::stream::Stream::new();
        stream.push(b"a chunk", &pool);
        let in_flight = stream.queue.lend().expect("a chunk");
        let number = flights.leave(ID, in_flight);
        assert!(flights.land(number).is_some_and(|(id, _)| id == ID) && flights.land(number).is_none());
    }
    assert_eq!(flights.places.len(), 1);
}

/// Errors that only mean that there was no completion are ignored. Others end the run.
#[test]
fn errors_of_the_ring_are_told() {
    for error in [Errno::TIME, Errno::INTR, Errno::BUSY, Errno::AGAIN] {
        assert!(forgive(error.into()).is_ok(), "{error}");
    }
    for error in [Errno::BADF, Errno::NOMEM, Errno::PERM] {
        assert!(forgive(error.into()).is_err(), "{error}");
    }
}
