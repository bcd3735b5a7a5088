//! Unusual outcomes of requests to the ring, on the backend alone. Faults of requests are ordered as those of socket
//! calls are (`faults.rs`).

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::*;
use crate::reactor::backend::socket::faults::{Call, Fault, left, plan};
use crate::reactor::backend::tests::{ID, LIMIT, tcp_pair, unix_pair};

/// A ring, where the system has one for us.
fn ring() -> Option<Uring> {
    let made = Uring::new();
    if let Err(error) = &made {
        println!("skipped: {error}");
    }
    made.ok()
}

fn adopt(ring: &mut Uring, socket: OwnedFd, unix: bool) {
    ring.adopt(ID, IncomingSocket::Descriptor { socket, unix }).expect("it takes the socket");
}

/// Turns without waiting until nothing comes of that; what came.
fn drain(ring: &mut Uring) -> Vec<Completion> {
    let (mut inbox, mut came) = (Inbox::default(), Vec::new());
    for _ in 0..5 {
        ring.wait(Some(Duration::ZERO)).expect("the ring turns");
        came.extend(std::iter::from_fn(|| ring.next(&mut inbox)).map(|(_, completion)| completion));
    }
    came
}

/// Turns until there is a completion that is wanted.
#[track_caller]
fn wait_for(ring: &mut Uring, wanted: impl Fn(&Completion) -> bool) {
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    loop {
        assert!(Instant::now() < until, "it did not come");
        ring.wait(Some(LIMIT)).expect("the ring turns");
        if std::iter::from_fn(|| ring.next(&mut inbox)).any(|(_, completion)| wanted(&completion)) {
            return;
        }
    }
}

/// A stream that is not received from is polled for errors, and polled on when the kernel ends that for no reason.
#[test]
fn a_poll_for_errors_that_ends_is_begun_anew() {
    let Some(mut ring) = ring() else { return };
    let (socket, peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    plan(Call::RingPoll, [Fault::Ends; 3]);
    ring.receive(ID, false);
    assert!(drain(&mut ring).is_empty() && left(Call::RingPoll) == 0);
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("a reset on close");
    drop(peer);
    wait_for(&mut ring, |completion| matches!(completion, Completion::Broken { .. }));
}

/// A lasting poll, of a UNIX stream or a watched descriptor, is begun anew when the kernel ends it behind an event.
#[test]
fn a_poll_for_bytes_that_ends_is_begun_anew() {
    for watched in [false, true] {
        let Some(mut ring) = ring() else { return };
        let (socket, mut peer) = unix_pair();
        let copy = socket.try_clone().expect("a descriptor");
        plan(Call::RingPoll, [Fault::Once; 2]);
        if watched {
            ring.watch(ID, socket.as_raw_fd()).expect("it is watched");
        } else {
            adopt(&mut ring, socket.try_clone().expect("a descriptor"), true);
            ring.receive(ID, true);
        }
        for _ in 0..4 {
            peer.write_all(b"more").expect("we are there");
            wait_for(&mut ring, |completion| matches!(completion, Completion::Received | Completion::Readable));
            if watched {
                assert_eq!(rustix::io::read(&copy, &mut [0; 9]), Ok(4));
                drain(&mut ring);
            }
        }
        assert_eq!(left(Call::RingPoll), 0);
    }
}

/// The bell is polled on when the kernel ends that: the ring is woken by each ring of it.
#[test]
fn a_poll_of_the_bell_that_ends_is_begun_anew() {
    plan(Call::RingPoll, [Fault::Once; 2]);
    let Some(mut ring) = ring() else { return socket::faults::clear() };
    let waker = ring.waker();
    for _ in 0..4 {
        assert!(drain(&mut ring).is_empty());
        waker.wake();
        let began = Instant::now();
        ring.wait(Some(LIMIT)).expect("the ring turns");
        assert!(began.elapsed() < LIMIT, "it was not woken");
    }
    assert_eq!(left(Call::RingPoll), 0);
}

/// Each pause of a stream cancels the receive that is under way, not only the first: nothing is received until it is resumed.
#[test]
fn a_receive_is_cancelled_by_every_pause() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    for _ in 0..3 {
        ring.receive(ID, true);
        assert!(drain(&mut ring).is_empty());
        ring.receive(ID, false);
        assert!(drain(&mut ring).is_empty());
    }
    peer.write_all(b"later").expect("we are there");
    assert!(drain(&mut ring).is_empty(), "it was received during a pause");
    ring.receive(ID, true);
    wait_for(&mut ring, |completion| matches!(completion, Completion::Received));
}

/// F14: of a chunk that the kernel did not take, or took a part of, the rest comes back to be sent again.
#[test]
fn a_send_that_comes_to_little_leaves_the_rest() {
    let Some(mut ring) = ring() else { return };
    let (spares, mut inbox) = (Spares::default(), Inbox::default());
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    let mut stream = transport::Stream::new();
    stream.push(b"the whole message", &spares);
    let faults = [Fault::Fails(Errno::AGAIN), Fault::Fails(Errno::INTR), Fault::Fails(Errno::NOBUFS), Fault::Short(5)];
    plan(Call::RingSend, faults);
    for (unsent, in_time) in [(17, true), (17, true), (17, false), (12, true), (0, true)] {
        assert_eq!(ring.send(ID, &mut stream, &spares).expect("the peer is there"), Progress::Blocked(0));
        ring.wait(Some(LIMIT)).expect("the ring turns");
        let Some((ID, Completion::Returned(loan, result))) = ring.next(&mut inbox) else { panic!("nothing came back") };
        assert_eq!(stream.returned(loan, result, &spares), in_time);
        assert_eq!(stream.queue.len(), unsent);
    }
    let mut received = [0; 17];
    std::io::Read::read_exact(&mut peer, &mut received).expect("it was sent");
    assert_eq!(&received, b"the whole message");
}
