//! Tests of the contract on backends alone, without a reactor.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::socket::faults::{Fault, SystemCall, left, plan};
use super::{
    Backend, BackendEvent, Closed, Completion, Inbox, IncomingSocket, Interest, Mio, Progress, RECEIVE, readiness,
};
use super::{DialOptions, PortOptions};
use crate::address::Address;
use crate::transport::id::Id;
use crate::transport::send_queue::{BufferPool, CHUNK};
use crate::transport::stream::Stream;

/// Time limit after which a test fails. A passing test never waits for it.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) const ID: Id = Id { slot: 3, generation: 5 };

/// A local TCP socket and its peer.
pub(super) fn tcp_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("the port listens");
    peer.set_read_timeout(Some(LIMIT)).expect("a time limit");
    (listener.accept().expect("a connection").0.into(), peer)
}

/// A local UNIX socket and its peer.
pub(super) fn unix_pair() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair");
    peer.set_read_timeout(Some(LIMIT)).expect("a time limit");
    (ours.into(), peer)
}

/// The backends of this system.
fn backends() -> Vec<Box<dyn Backend>> {
    let mio: Box<dyn Backend> = Box::new(Mio::new().expect("a poller"));
    [mio].into_iter().chain(ring()).collect()
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn ring() -> Option<Box<dyn Backend>> {
    let ring = super::Uring::new().inspect_err(|error| println!("skipped on io_uring: {error}")).ok()?;
    Some(Box::new(ring))
}

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
fn ring() -> Option<Box<dyn Backend>> {
    None
}

/// Closing a socket with unread bytes ends the stream behind the sent bytes, and does not reset it.
/// This holds before the first receive, while paused, and while receiving.
#[test]
fn a_close_with_unread_bytes_is_no_reset() {
    trait Peer: Read + Write {}
    impl<T: Read + Write> Peer for T {}
    for unix in [false, true] {
        for receiving in [&[][..], &[false], &[true]] {
            for mut backend in backends() {
                let (socket, mut peer): (OwnedFd, Box<dyn Peer>) = if unix {
                    let (socket, peer) = unix_pair();
                    (socket, Box::new(peer))
                } else {
                    let (socket, peer) = tcp_pair();
                    (socket, Box::new(peer))
                };
                backend.adopt(ID, IncomingSocket::Descriptor { socket, unix }).expect("the backend adopts the socket");
                receiving.iter().for_each(|on| backend.receive(ID, *on));
                backend.flush();
                peer.write_all(b"unread").expect("the socket is open");
                assert_eq!(backend.send_now(ID, b"answer"), 6);
                backend.close(ID, false);
                backend.flush();
                let mut answer = Vec::new();
                let read = peer.read_to_end(&mut answer);
                assert!(read.is_ok(), "unix {unix}, {receiving:?}: {read:?}");
                assert_eq!(answer, b"answer", "unix {unix}, {receiving:?}");
            }
        }
    }
}

/// F14: the bytes that a socket takes of one chunk, or of several, leave the queue, and no others
/// do.
#[test]
fn short_sends_take_what_was_sent_off_the_queue() {
    let pool = BufferPool::default();
    for length in [1, 10, 3_000, CHUNK, 5 * CHUNK + 1] {
        let (socket, mut peer) = tcp_pair();
        let mut stream = Stream::new();
        let message: Vec<u8> = (0..length).map(|at| (at * 31 + at / 251) as u8).collect();
        stream.push(&message, &pool);
        plan(SystemCall::Send, [1, 3, 7, 700].map(Fault::Short));
        plan(SystemCall::Send, [Errno::AGAIN, Errno::NOBUFS, Errno::INTR].map(Fault::Fails));
        let (mut sent, mut received) = (0, Vec::new());
        while !stream.queue.is_empty() {
            let progress = readiness::send(socket.as_fd(), stream.outgoing(&pool)).expect("the peer is connected");
            let (Progress::Advanced(count) | Progress::Blocked(count) | Progress::Starved(count)) = progress;
            sent += count;
            assert_eq!(stream.queue.len(), length - sent);
            let mut piece = vec![0; count];
            peer.read_exact(&mut piece).expect("the bytes were sent");
            received.append(&mut piece);
        }
        assert!(received == message, "{length} bytes");
        super::socket::faults::clear();
    }
    assert_eq!(left(SystemCall::Send), 0);
}

/// One turn accepts 64 connections of a port at most. The next turns accept the others.
#[test]
fn so_many_are_accepted_in_a_turn() {
    const PEERS: usize = 150;
    for (number, mut backend) in backends().into_iter().enumerate() {
        let options = PortOptions { backlog: 200, ..PortOptions::new() };
        let at = backend.listen(ID, &SocketAddr::from(([127, 0, 0, 1], 0)).into(), &options).expect("the port listens");
        let at = at.socket_addr().expect("a TCP address");
        let _peers: Vec<TcpStream> = (0..PEERS).map(|_| TcpStream::connect(at).expect("the port listens")).collect();
        let (mut inbox, mut turns, mut began) = (Inbox::default(), Vec::new(), Instant::now());
        while turns.iter().sum::<usize>() < PEERS {
            assert!(began.elapsed() < LIMIT, "{turns:?}");
            backend.wait(Some(Duration::ZERO)).expect("the wait succeeds");
            let mut accepted = 0;
            while let Some((ID, event)) = backend.next(&mut inbox) {
                assert!(matches!(event, BackendEvent::Other(Completion::Accepted(_))), "{event:?}");
                accepted += 1;
            }
            if accepted > 0 {
                began = Instant::now();
            }
            turns.push(accepted);
        }
        assert!(turns.iter().all(|accepted| *accepted <= 64), "{turns:?}");
        // The first backend is mio. The second is the ring, whose kernel may deliver in smaller
        // portions.
        assert!(number > 0 || turns.contains(&64), "{turns:?}");
    }
}

/// One turn receives 64 KiB of a connection at most, and all bytes arrive in the end.
#[test]
fn so_much_is_received_in_a_turn() {
    const LENGTH: usize = 3_000_000;
    for mut backend in backends() {
        let (socket, mut peer) = tcp_pair();
        backend.adopt(ID, IncomingSocket::Descriptor { socket, unix: false }).expect("the backend adopts the socket");
        backend.receive(ID, true);
        let writing = std::thread::spawn(move || peer.write_all(&vec![7; LENGTH]).map(|()| peer));
        let (mut inbox, mut all, began) = (Inbox::default(), 0, Instant::now());
        while all < LENGTH {
            assert!(began.elapsed() < LIMIT, "{all} bytes came");
            let now = backend.clock()();
            backend.wait(Some(now + Duration::from_millis(5))).expect("the wait succeeds");
            let mut received = 0;
            while let Some((ID, event)) = backend.next(&mut inbox) {
                assert!(matches!(event, BackendEvent::Received), "{event:?}");
                received += inbox.bytes().len();
            }
            assert!(received <= RECEIVE, "{received} bytes came in a turn");
            all += received;
        }
        drop(writing.join().expect("it does not panic").expect("the socket is open"));
    }
}

/// A watched descriptor reports the directions that were asked for, in each turn in which it is
/// ready. An end is reported in all of them. A released descriptor reports nothing.
#[test]
fn a_watched_descriptor_tells_what_was_asked_for() {
    for interest in [Interest::READ, Interest::WRITE, Interest::READ | Interest::WRITE] {
        for mut backend in backends() {
            let (socket, mut peer) = unix_pair();
            backend.watch(ID, socket.as_raw_fd(), interest).expect("the descriptor is watched");
            let room = Interest::WRITE.both(interest);
            assert_eq!(told(&mut *backend), room, "a new socket has room");
            peer.write_all(b"more").expect("the socket is open");
            for _ in 0..3 {
                assert_eq!(told(&mut *backend), interest, "it is a level");
            }
            rustix::io::read(&socket, &mut [0; 9]).expect("the bytes were written");
            assert_eq!(told(&mut *backend), room, "it was drained");
            backend.rewatch(ID, Interest::NONE).expect("the descriptor is open");
            drop(peer);
            assert_eq!(told(&mut *backend), Interest::NONE, "it is paused");
            backend.rewatch(ID, interest).expect("the descriptor is open");
            assert_eq!(told(&mut *backend), interest, "the end");

            let (socket, mut peer) = unix_pair();
            let id = Id { slot: 7, ..ID };
            backend.watch(id, socket.as_raw_fd(), interest).expect("the descriptor is watched");
            backend.close(id, false);
            backend.close(ID, false);
            let stale = backend.stale();
            peer.write_all(b"too late").expect("the socket is open");
            assert_eq!((told(&mut *backend), backend.stale()), (Interest::NONE, stale));
        }
    }
}

/// F16. A descriptor that was closed, or whose number belongs to another file, ends its watch: at a
/// change of the interest, at the next watch of the number, and at an event that a copy makes.
#[test]
fn a_descriptor_that_was_closed_behind_its_watch_is_lost() {
    let is = |error: &io::Error, errno| Errno::from_io_error(error) == Some(errno);
    for mut backend in backends() {
        let (socket, _peer) = unix_pair();
        let number = socket.as_raw_fd();
        backend.watch(ID, number, Interest::READ).expect("the descriptor is watched");
        drop(socket);
        let lost = backend.rewatch(ID, Interest::NONE).expect_err("it was closed");
        assert!(is(&lost, Errno::BADF) || is(&lost, Errno::NOENT), "{lost}");
        assert!(backend.rewatch(ID, Interest::READ).is_err(), "the id names nothing");
        assert!(lost_ids(&mut *backend).is_empty(), "it is told once");

        // A copy keeps the file alive, and its events go on. Another file takes the number.
        let (socket, mut peer) = unix_pair();
        let copy = socket.try_clone().expect("a descriptor");
        backend.watch(ID, socket.as_raw_fd(), Interest::READ).expect("the descriptor is watched");
        let (other, mut other_peer) = unix_pair();
        let mut number = socket;
        rustix::io::dup2(&other, &mut number).expect("the number is replaced");
        peer.write_all(b"for the copy").expect("the copy is open");
        assert_eq!(lost_ids(&mut *backend), [ID]);

        // The number can be watched anew, and is the other file's.
        backend.watch(Id { slot: 3, ..ID }, number.as_raw_fd(), Interest::READ).expect("it is another file");
        assert_eq!(told(&mut *backend), Interest::NONE);
        other_peer.write_all(b"for the other").expect("the socket is open");
        assert_eq!(told(&mut *backend), Interest::READ);
        drop(copy);

        // The next watch of the same number ends the one before.
        let (third, _third_peer) = unix_pair();
        rustix::io::dup2(&third, &mut number).expect("the number is replaced");
        backend.watch(Id { slot: 4, ..ID }, number.as_raw_fd(), Interest::READ).expect("it is another file");
        assert_eq!(lost_ids(&mut *backend), [Id { slot: 3, ..ID }]);
    }
}

/// Runs a few turns, and returns the ids whose descriptors they report as lost.
fn lost_ids(backend: &mut dyn Backend) -> Vec<Id> {
    let (mut inbox, mut lost) = (Inbox::default(), Vec::new());
    for _ in 0..4 {
        backend.wait(Some(Duration::ZERO)).expect("the wait succeeds");
        while let Some((id, event)) = backend.next(&mut inbox) {
            match event {
                BackendEvent::Other(Completion::DescriptorLost(_)) => lost.push(id),
                other => panic!("{other:?}"),
            }
        }
    }
    lost
}

/// Runs a few turns, and returns the directions that they report for a watched descriptor.
fn told(backend: &mut dyn Backend) -> Interest {
    let (mut inbox, mut told) = (Inbox::default(), Interest::NONE);
    for _ in 0..4 {
        backend.wait(Some(Duration::ZERO)).expect("the wait succeeds");
        while let Some((_, event)) = backend.next(&mut inbox) {
            match event {
                BackendEvent::Other(Completion::Ready(ready)) => told |= ready.kinds,
                other => panic!("{other:?}"),
            }
        }
    }
    told
}

/// Bytes that the peer has no room for are not acknowledged. Once the peer has read them, they are.
#[test]
fn what_the_peer_has_not_taken_is_not_acknowledged() {
    for mut backend in backends() {
        let (socket, mut peer) = tcp_pair();
        backend.adopt(ID, IncomingSocket::Descriptor { socket, unix: false }).expect("the backend adopts the socket");
        assert!(backend.is_acknowledged(ID));
        let (piece, mut sent) = (vec![7; 1 << 20], 0);
        while let count @ 1.. = backend.send_now(ID, &piece) {
            sent += count;
        }
        assert!(!backend.is_acknowledged(ID));
        let mut rest = sent;
        while rest > 0 {
            rest -= peer.read(&mut vec![0; 1 << 20]).expect("the bytes were sent");
        }
        let began = Instant::now();
        while !backend.is_acknowledged(ID) {
            assert!(began.elapsed() < LIMIT, "it is not acknowledged");
            std::thread::yield_now();
        }
        // An unread byte at this end counts as unfinished too.
        peer.write_all(b"unread").expect("the socket is open");
        assert!(!backend.is_acknowledged(ID));
    }
}

/// The backend of a closed reactor has no sources, and refuses every request.
#[test]
fn a_closed_backend_refuses_everything() {
    let mut closed = Closed::new(3);
    let at: Address = SocketAddr::from(([127, 0, 0, 1], 7)).into();
    let options = PortOptions { backlog: 1, ..PortOptions::new() };
    assert!(closed.listen(ID, &at, &options).is_err());
    assert!(closed.connect(ID, &at, &DialOptions::new()).is_err());
    assert!(closed.adopt(ID, IncomingSocket::Descriptor { socket: tcp_pair().0, unix: false }).is_err());
    assert!(closed.send(ID, Stream::new().outgoing(&BufferPool::default())).is_err());
    assert!(
        closed.watch(ID, 0, Interest::READ).is_err()
            && closed.rewatch(ID, Interest::READ).is_err()
            && closed.wait(None).is_err()
            && closed.reopen().is_err()
    );
    assert_eq!((closed.send_now(ID, b"data"), closed.stale(), closed.passes_descriptors(ID)), (0, 3, false));
    assert!(closed.stop_listening(ID).is_empty() && closed.descriptor(ID).is_none());
    assert!(closed.next(&mut Inbox::default()).is_none());
}

/// Events of a source that was closed meanwhile are dropped, and counted.
#[test]
fn events_of_sources_that_are_gone_are_counted() {
    let mut backend = Mio::new().expect("a poller");
    let (mut inbox, mut peers) = (Inbox::default(), Vec::new());
    for expected in 1..=3 {
        let (socket, mut peer) = tcp_pair();
        peer.write_all(b"too late").expect("the socket is open");
        backend.adopt(ID, IncomingSocket::Descriptor { socket, unix: false }).expect("the backend adopts the socket");
        backend.receive(ID, true);
        backend.wait(Some(LIMIT)).expect("the wait succeeds");
        backend.close(ID, false);
        assert!(backend.next(&mut inbox).is_none());
        assert_eq!(backend.stale(), expected);
        peers.push(peer);
    }
}

/// Linux reports a lack of descriptors even if no connection waits. The reactor is not asked for
/// one then.
#[test]
fn no_descriptor_is_wanted_where_nobody_waits() {
    let mut backend = Mio::new().expect("a poller");
    let options = PortOptions { backlog: 5, ..PortOptions::new() };
    let at = backend.listen(ID, &SocketAddr::from(([127, 0, 0, 1], 0)).into(), &options).expect("the port listens");
    let (mut inbox, mut peers) = (Inbox::default(), Vec::new());
    for waits in [false, true] {
        if waits {
            peers.push(TcpStream::connect(at.socket_addr().expect("a TCP address")).expect("the port listens"));
        }
        plan(SystemCall::Accept, [Fault::Fails(Errno::MFILE)]);
        backend.accept(ID);
        backend.wait(Some(Duration::ZERO)).expect("the wait succeeds");
        let next = backend.next(&mut inbox);
        assert_eq!(matches!(next, Some((ID, BackendEvent::Other(Completion::NoDescriptors)))), waits, "{next:?}");
        assert_eq!((next.is_some(), left(SystemCall::Accept)), (waits, 0));
    }
}

/// A wait ends at its deadline and not before, for any fraction of a millisecond. A deadline in the
/// past does not wait.
#[test]
fn a_wait_is_as_long_as_its_deadline_says() {
    for mut backend in backends() {
        let clock = backend.clock();
        for micros in [1, 100, 300, 999, 1_000, 1_001, 2_500] {
            let until = clock() + Duration::from_micros(micros);
            backend.wait(Some(until)).expect("the wait succeeds");
            assert!(clock() >= until, "{micros} us: it is only {:?}, not {until:?}", clock());
        }
        for over in [Duration::ZERO, Duration::from_nanos(1)] {
            backend.wait(Some(over)).expect("the wait succeeds");
        }
    }
}

/// A turn does not wait if the previous one left sources over.
#[test]
fn what_is_left_over_is_not_waited_for() {
    const PEERS: usize = 150;
    for mut backend in backends() {
        let options = PortOptions { backlog: 200, ..PortOptions::new() };
        let at = backend.listen(ID, &SocketAddr::from(([127, 0, 0, 1], 0)).into(), &options).expect("the port listens");
        let at = at.socket_addr().expect("a TCP address");
        let _peers: Vec<TcpStream> = (0..PEERS).map(|_| TcpStream::connect(at).expect("the port listens")).collect();
        let (mut inbox, mut accepted, began) = (Inbox::default(), 0, Instant::now());
        while accepted < PEERS {
            backend.wait(Some(LIMIT)).expect("the wait succeeds");
            accepted += std::iter::from_fn(|| backend.next(&mut inbox)).count();
            assert!(began.elapsed() < LIMIT, "{accepted} were accepted");
        }
    }
}

/// Without descriptors, a listener without a reserve fails, and has a reserve from then on. A
/// listener with a reserve goes on, although it accepts nothing with it.
#[test]
fn a_listener_without_a_reserve_fails() {
    for has_reserve in [false, true] {
        let any = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let options = PortOptions { backlog: 5, ..PortOptions::new() };
        let Ok((socket, bound, file)) = super::socket::listen(&any, &options) else { panic!("the port listens") };
        let mut listener = readiness::Listener::new(socket, &bound, file, &options);
        let _peer = TcpStream::connect(bound.socket_addr().expect("a TCP address")).expect("the port listens");
        let mut reserve = has_reserve.then(|| super::socket::reserve().expect("a descriptor"));
        listener.waiting = true;
        plan(SystemCall::Accept, [Fault::Fails(Errno::MFILE); 4]);
        plan(SystemCall::Accept, [Fault::Fails(Errno::AGAIN)]);
        let (first, _) = listener.next(1, &mut reserve);
        assert!(matches!(first, Some(Completion::NoDescriptors)) && listener.next(1, &mut reserve).0.is_none());
        let (again, _) = listener.next(2, &mut reserve);
        assert!(matches!(again, Some(Completion::NoDescriptors)));
        let (last, _) = listener.next(2, &mut reserve);
        assert_eq!(matches!(last, Some(Completion::AcceptFailed(_))), !has_reserve, "{last:?}");
        assert_eq!((listener.accepting, last.is_none()), (has_reserve, has_reserve));
        assert_eq!((left(SystemCall::Accept), reserve.is_some()), (usize::from(!has_reserve), true));
        super::socket::faults::clear();
    }
}

/// Before a close, 16 buffers are read at most: no peer can hold up the loop by sending on.
#[test]
fn so_much_is_read_before_a_close() {
    let (socket, mut peer) = tcp_pair();
    peer.write_all(&[7; 1000]).expect("the socket is open");
    plan(SystemCall::Receive, [Fault::Short(10); 20]);
    readiness::read_last(socket.as_fd());
    assert_eq!(left(SystemCall::Receive), 4);
    super::socket::faults::clear();
    assert_eq!(rustix::io::ioctl_fionread(&socket), Ok(1000 - 160));
}
