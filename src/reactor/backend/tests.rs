//! The contract of every backend, shown on backends alone, without a reactor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;

use super::socket::faults::{Call, Fault, left, plan};
use super::{Backend, IncomingSocket, Mio, Progress, readiness};
use crate::transport::agenda::Id;
use crate::transport::send_queue::{CHUNK, Spares};
use crate::transport::stream::Stream;

/// After this, a test has failed. Nothing waits for it in a test that passes.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) const ID: Id = Id { slot: 3, generation: 5 };

/// A socket of ours, and its peer, of TCP.
pub(super) fn tcp_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
    peer.set_read_timeout(Some(LIMIT)).expect("a time limit");
    (listener.accept().expect("a connection").0.into(), peer)
}

/// The same of UNIX sockets.
pub(super) fn unix_pair() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair");
    peer.set_read_timeout(Some(LIMIT)).expect("a time limit");
    (ours.into(), peer)
}

/// The backends that this system has.
fn backends() -> Vec<Box<dyn Backend>> {
    let mio: Box<dyn Backend> = Box::new(Mio::new().expect("the system gives us a poller"));
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

/// Closing a socket whose received bytes were not read is an end behind what was sent, and no reset: whether it was not received from
/// yet, is not any more, or is.
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
                backend.adopt(ID, IncomingSocket::Descriptor { socket, unix }).expect("it takes the socket");
                receiving.iter().for_each(|on| backend.receive(ID, *on));
                backend.flush();
                peer.write_all(b"unread").expect("we are there");
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

/// F14: whatever a socket takes of one chunk, or of many, leaves the queue, and nothing else does.
#[test]
fn short_sends_take_what_was_sent_off_the_queue() {
    let spares = Spares::default();
    for length in [1, 10, 3_000, CHUNK, 5 * CHUNK + 1] {
        let (socket, mut peer) = tcp_pair();
        let mut stream = Stream::new();
        let message: Vec<u8> = (0..length).map(|at| (at * 31 + at / 251) as u8).collect();
        stream.push(&message, &spares);
        plan(Call::Send, [1, 3, 7, 700].map(Fault::Short));
        plan(Call::Send, [Errno::AGAIN, Errno::NOBUFS, Errno::INTR].map(Fault::Fails));
        let (mut sent, mut received) = (0, Vec::new());
        while !stream.queue.is_empty() {
            let progress = readiness::send(socket.as_fd(), &mut stream, &spares).expect("the peer is there");
            let (Progress::Advanced(count) | Progress::Blocked(count) | Progress::Starved(count)) = progress;
            sent += count;
            assert_eq!(stream.queue.len(), length - sent);
            let mut piece = vec![0; count];
            peer.read_exact(&mut piece).expect("it was sent");
            received.append(&mut piece);
        }
        assert!(received == message, "{length} bytes");
        super::socket::faults::clear();
    }
    assert_eq!(left(Call::Send), 0);
}
