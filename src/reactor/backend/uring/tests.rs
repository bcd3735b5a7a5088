//! Tests of unusual results of requests to the ring, on the backend alone. Faults of requests are
//! planned like those of socket calls (`faults.rs`).

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::*;
use crate::reactor::backend::socket::faults::{Fault, SystemCall, left, plan};
use crate::reactor::backend::tests::{ID, LIMIT, tcp_pair, unix_pair};
use crate::reactor::backend::{Completion, RECEIVE};

/// Makes a ring, if the system lets this process have one.
fn ring() -> Option<Uring> {
    let made = Uring::new();
    if let Err(error) = &made {
        println!("skipped: {error}");
    }
    made.ok()
}

fn adopt(ring: &mut Uring, socket: OwnedFd, unix: bool) {
    ring.adopt(ID, IncomingSocket::Descriptor { socket, unix }).expect("the backend adopts the socket");
}

/// Runs a few turns that do not wait, and returns their events.
fn drain(ring: &mut Uring) -> Vec<BackendEvent> {
    let (mut inbox, mut came) = (Inbox::default(), Vec::new());
    for _ in 0..5 {
        ring.wait(Some(Duration::ZERO)).expect("the ring waits");
        came.extend(std::iter::from_fn(|| ring.next(&mut inbox)).map(|(_, event)| event));
    }
    came
}

/// Runs turns until there is a matching event.
#[track_caller]
fn wait_for(ring: &mut Uring, wanted: impl Fn(&BackendEvent) -> bool) {
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    loop {
        assert!(Instant::now() < until, "no event came in time");
        ring.wait(Some(LIMIT)).expect("the ring waits");
        if std::iter::from_fn(|| ring.next(&mut inbox)).any(|(_, event)| wanted(&event)) {
            return;
        }
    }
}

/// A stream without a receive is polled for errors. The poll is started anew if the kernel ends it
/// without a reason.
#[test]
fn a_poll_for_errors_that_ends_is_begun_anew() {
    let Some(mut ring) = ring() else { return };
    let (socket, peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    plan(SystemCall::RingPoll, [Fault::Ends; 3]);
    ring.receive(ID, false);
    assert!(drain(&mut ring).is_empty() && left(SystemCall::RingPoll) == 0);
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("a reset on close");
    drop(peer);
    wait_for(&mut ring, |event| matches!(event, BackendEvent::Other(Completion::Broken { .. })));
}

/// A multishot poll of a UNIX stream is started anew if the kernel ends it after an event.
#[test]
fn a_poll_for_bytes_that_ends_is_begun_anew() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = unix_pair();
    plan(SystemCall::RingPoll, [Fault::Once; 2]);
    adopt(&mut ring, socket, true);
    ring.receive(ID, true);
    for _ in 0..4 {
        peer.write_all(b"more").expect("the socket is open");
        wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
    }
    assert_eq!(left(SystemCall::RingPoll), 0);
}

/// The poll of the waker is started anew if the kernel ends it: each call of the waker wakes the
/// ring.
#[test]
fn a_poll_of_the_bell_that_ends_is_begun_anew() {
    plan(SystemCall::RingPoll, [Fault::Once; 2]);
    let Some(mut ring) = ring() else { return socket::faults::clear() };
    let waker = ring.waker();
    for _ in 0..4 {
        assert!(drain(&mut ring).is_empty());
        waker.wake();
        let began = Instant::now();
        ring.wait(Some(LIMIT)).expect("the ring waits");
        assert!(began.elapsed() < LIMIT, "the ring was not woken");
    }
    assert_eq!(left(SystemCall::RingPoll), 0);
}

/// Each pause of a stream cancels the receive under way, not only the first one. Nothing is
/// received until the stream is resumed.
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
    peer.write_all(b"later").expect("the socket is open");
    assert!(drain(&mut ring).is_empty(), "bytes were received during a pause");
    ring.receive(ID, true);
    wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
}

/// After a pause, at most 64 KiB are received in a turn, however many wait in the socket, and
/// nothing in the next pause. The ring receives again when the socket is empty.
#[test]
fn a_stream_that_pauses_receives_little_at_once() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 * RECEIVE).expect("a socket");
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    assert!(drain(&mut ring).is_empty());
    ring.receive(ID, false);
    assert!(drain(&mut ring).is_empty());
    // The socket has room for all of it.
    let sent = 2 * RECEIVE + RECEIVE / 2;
    peer.write_all(&vec![7; sent]).expect("the socket has room");
    let (mut inbox, mut came) = (Inbox::default(), 0);
    let until = Instant::now() + LIMIT;
    while came < sent {
        assert!(Instant::now() < until, "{came} of {sent} bytes came");
        ring.receive(ID, true);
        ring.wait(Some(LIMIT)).expect("the ring waits");
        let before = came;
        while let Some((_, event)) = ring.next(&mut inbox) {
            assert!(matches!(event, BackendEvent::Received));
            came += inbox.bytes().len();
        }
        assert!(came - before <= RECEIVE, "{} bytes in a turn", came - before);
        ring.receive(ID, false);
        let more = drain(&mut ring).len();
        assert_eq!(more, 0, "bytes were received during a pause, after {came} of {sent}");
    }
    ring.receive(ID, true);
    assert!(drain(&mut ring).is_empty());
    peer.write_all(b"by the ring").expect("the socket has room");
    wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
}

/// F14: if the kernel took a part of a chunk, or nothing, the rest comes back to be sent again.
#[test]
fn a_send_that_comes_to_little_leaves_the_rest() {
    let Some(mut ring) = ring() else { return };
    let (pool, mut inbox) = (crate::transport::send_queue::BufferPool::default(), Inbox::default());
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    let mut stream = crate::transport::stream::Stream::new();
    stream.push(b"the whole message", &pool);
    let faults = [Fault::Fails(Errno::AGAIN), Fault::Fails(Errno::INTR), Fault::Fails(Errno::NOBUFS), Fault::Short(5)];
    plan(SystemCall::RingSend, faults);
    for (unsent, in_time) in [(17, true), (17, true), (17, false), (12, true), (0, true)] {
        assert_eq!(ring.send(ID, stream.outgoing(&pool)).expect("the peer is connected"), Progress::Blocked(0));
        ring.wait(Some(LIMIT)).expect("the ring waits");
        let Some((ID, BackendEvent::Returned(in_flight, result))) = ring.next(&mut inbox) else {
            panic!("no chunk came back")
        };
        assert_eq!(stream.returned(in_flight, result, &pool), in_time);
        assert_eq!(stream.queue.len(), unsent);
    }
    let mut received = [0; 17];
    std::io::Read::read_exact(&mut peer, &mut received).expect("the bytes were sent");
    assert_eq!(&received, b"the whole message");
}

/// The descriptor of the waker is not inherited by child programs.
#[test]
fn the_bell_is_not_inherited() {
    let Some(ring) = ring() else { return };
    let flags = rustix::io::fcntl_getfd(ring.waker.bell()).expect("the socket is open");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

/// The reactor gives receive buffers back to the kernel: there are 256 at most, and many more
/// messages.
#[test]
fn buffers_come_back_from_the_reactor() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    for _ in 0..600 {
        peer.write_all(b"message").expect("the socket is open");
        let came = loop {
            assert!(Instant::now() < until, "no event came in time");
            ring.wait(Some(LIMIT)).expect("the ring waits");
            if let Some((ID, completion)) = ring.next(&mut inbox) {
                break completion;
            }
        };
        assert!(matches!(came, BackendEvent::Received) && ring.next(&mut inbox).is_none());
    }
}

/// Connections that were closed meanwhile give their receive buffers back, and their completions
/// are counted.
#[test]
fn buffers_come_back_from_closed_connections() {
    let lasting = Id { slot: 7, generation: 1 };
    let Some(mut ring) = ring() else { return };
    let (socket, mut lasting_peer) = tcp_pair();
    ring.adopt(lasting, IncomingSocket::Descriptor { socket, unix: false }).expect("the backend adopts the socket");
    ring.receive(lasting, true);
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    for _ in 0..300 {
        let (socket, mut peer) = tcp_pair();
        adopt(&mut ring, socket, false);
        ring.receive(ID, true);
        ring.flush();
        peer.write_all(b"too late").expect("the socket is open");
        drop(peer);
        ring.flush();
        let stale = ring.stale();
        ring.close(ID, true);
        lasting_peer.write_all(b"in time").expect("the socket is open");
        let came = loop {
            assert!(Instant::now() < until, "nothing is received any more");
            ring.wait(Some(LIMIT)).expect("the ring waits");
            if let Some((id, completion)) = ring.next(&mut inbox) {
                break (id, completion);
            }
        };
        assert!(matches!(came, (id, BackendEvent::Received) if id == lasting));
        assert!(ring.next(&mut inbox).is_none() && ring.stale() > stale);
    }
}

/// A turn does not wait if a flush has already brought a completion.
#[test]
fn completions_that_are_there_are_not_waited_for() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    ring.flush();
    peer.write_all(b"bytes").expect("the socket is open");
    ring.flush();
    let began = Instant::now();
    ring.wait(Some(LIMIT)).expect("the ring waits");
    assert!(began.elapsed() < LIMIT, "a turn waits although a completion is there");
    assert!(matches!(ring.next(&mut Inbox::default()), Some((ID, BackendEvent::Received))));
}

/// A UNIX stream has one poll under way, however many events it has reported.
#[test]
fn polls_do_not_multiply() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = unix_pair();
    adopt(&mut ring, socket, true);
    ring.receive(ID, true);
    for _ in 0..6 {
        peer.write_all(b"more").expect("the socket is open");
        wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
        drain(&mut ring);
    }
    peer.write_all(b"more").expect("the socket is open");
    ring.ring.flush();
    let events = std::iter::from_fn(|| ring.ring.next()).count();
    assert!((1..=4).contains(&events), "{events} events of one message");
}

/// No request is ever made on a descriptor that was closed and now belongs to another connection.
#[test]
fn a_closed_descriptor_is_not_received_from() {
    for _ in 0..20 {
        let Some(mut ring) = ring() else { return };
        let (socket, _gone) = tcp_pair();
        adopt(&mut ring, socket, false);
        // The request was not submitted to the kernel yet.
        ring.receive(ID, true);
        ring.close(ID, true);
        // One of these gets its number, unless another thread was faster.
        let (one, other) = unix_pair();
        let other = OwnedFd::from(other);
        for socket in [&one, &other] {
            rustix::io::write(socket, b"of another").expect("the socket is open");
        }
        assert!(drain(&mut ring).is_empty());
        for socket in [&one, &other] {
            let read = rustix::net::recv(socket, &mut [0; 20][..], rustix::net::RecvFlags::DONTWAIT);
            assert_eq!(read.map(|(_, count)| count), Ok(10), "another connection was received from");
        }
    }
}

/// A watched descriptor is released at once: its owner may close it, and the peer then sees the
/// end.
#[test]
fn a_descriptor_that_is_not_watched_any_more_is_let_go_of() {
    use std::io::Read;
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = unix_pair();
    ring.watch(ID, socket.as_raw_fd(), Interest::READ).expect("the descriptor is watched");
    ring.flush();
    ring.close(ID, false);
    drop(socket);
    assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
}

/// Plain calls receive the rest before a fatal error, after a receive that is under way and may not
/// notice the error.
#[test]
fn the_rest_ends_a_receive_that_is_under_way() {
    let Some(mut ring) = ring() else { return };
    let (socket, _peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    assert!(drain(&mut ring).is_empty());
    ring.receive_rest(ID);
    assert!(
        matches!(drain(&mut ring)[..], [BackendEvent::Other(Completion::EndOfStream)]),
        "the receive was not cancelled"
    );
}

fn listen(ring: &mut Uring) -> std::net::SocketAddr {
    let options = PortOptions { backlog: 5, ..PortOptions::new() };
    let at = ring.listen(ID, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into(), &options);
    at.expect("the port listens").socket_addr().expect("a TCP address")
}

/// Returns `true` if calls on a socket wait instead of failing, as requests to the ring need it.
fn is_blocking(socket: BorrowedFd<'_>) -> bool {
    !rustix::fs::fcntl_getfl(socket).expect("the socket is open").contains(rustix::fs::OFlags::NONBLOCK)
}

/// A port, an accepted connection and an outgoing one wait in the kernel. They report an event only
/// when something happens.
#[test]
fn idle_sockets_say_nothing() {
    let (server, client) = (Id { slot: 4, generation: 1 }, Id { slot: 5, generation: 1 });
    let Some(mut ring) = ring() else { return };
    let at = listen(&mut ring);
    ring.ring.flush();
    assert!(ring.ring.next().is_none(), "a port without a waiting connection reports an event");
    ring.connect(client, &at.into(), &DialOptions::new()).expect("the port listens");
    let (until, mut inbox, mut came) = (Instant::now() + LIMIT, Inbox::default(), 0);
    while came < 2 {
        assert!(Instant::now() < until, "the events did not come in time");
        ring.wait(Some(LIMIT)).expect("the ring waits");
        while let Some((_, event)) = ring.next(&mut inbox) {
            match event {
                BackendEvent::Other(Completion::Accepted(incoming)) => {
                    ring.adopt(server, incoming.socket).expect("the backend adopts the socket");
                }
                BackendEvent::Other(Completion::Connected(_)) => {}
                other => panic!("{other:?}"),
            }
            came += 1;
        }
    }
    for id in [server, client] {
        assert!(is_blocking(ring.descriptor(id).expect("a stream")));
        ring.receive(id, true);
    }
    ring.ring.flush();
    assert!(ring.ring.next().is_none(), "an idle stream reports an event");
}

/// A port without descriptors is polled until a connection arrives. The ring serves that connection
/// like the others. If the port is closed then, its address is free at once.
#[test]
fn a_port_without_descriptors_is_polled() {
    let Some(mut ring) = ring() else { return };
    plan(SystemCall::RingAccept, [Fault::Fails(Errno::MFILE)]);
    plan(SystemCall::Accept, [Fault::Fails(Errno::MFILE)]);
    let at = listen(&mut ring);
    assert!(drain(&mut ring).is_empty(), "no connection waits");
    assert_eq!((left(SystemCall::RingAccept), left(SystemCall::Accept)), (0, 0));
    let _peer = std::net::TcpStream::connect(at).expect("the port listens");
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    let incoming = loop {
        assert!(Instant::now() < until, "no connection is accepted");
        ring.wait(Some(LIMIT)).expect("the ring waits");
        match ring.next(&mut inbox) {
            Some((ID, BackendEvent::Other(Completion::Accepted(incoming)))) => break incoming,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    };
    let IncomingSocket::Descriptor { socket, .. } = incoming.socket else { panic!("a socket") };
    assert!(is_blocking(socket.as_fd()));
}

/// A port that is closed while it is polled, or was told twice to accept, does not listen any more.
#[test]
fn a_closed_port_listens_no_more() {
    for polled in [false, true] {
        let Some(mut ring) = ring() else { return };
        if polled {
            plan(SystemCall::RingAccept, [Fault::Fails(Errno::MFILE)]);
            plan(SystemCall::Accept, [Fault::Fails(Errno::MFILE)]);
        }
        let at = listen(&mut ring);
        assert!(drain(&mut ring).is_empty());
        if !polled {
            let _peer = std::net::TcpStream::connect(at).expect("the port listens");
            wait_for(&mut ring, |event| matches!(event, BackendEvent::Other(Completion::Accepted(_))));
            ring.accept(ID);
            assert!(drain(&mut ring).is_empty());
        }
        assert!(ring.stop_listening(ID).is_empty());
        ring.flush();
        let late = std::net::TcpStream::connect(at);
        assert!(late.is_err(), "polled {polled}: the closed port listens");
    }
}

/// A connection attempt is polled again if its poll reports nothing. An abandoned attempt leaves no
/// socket behind.
#[test]
fn an_attempt_is_polled_again_and_given_up() {
    let Some(mut ring) = ring() else { return };
    // The queue of this listener is full: further attempts get no answer.
    let listener = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    rustix::net::bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    rustix::net::listen(&listener, 0).expect("the port listens");
    let at = socket::local_address(&listener).expect("a local address").socket_addr().expect("a TCP address");
    let _first = std::net::TcpStream::connect(at).expect("the port listens");
    plan(SystemCall::RingPoll, [Fault::Ends; 3]);
    ring.connect(ID, &at.into(), &DialOptions::new()).expect("the attempt begins");
    assert!(drain(&mut ring).is_empty(), "it is not connected");
    assert_eq!(left(SystemCall::RingPoll), 0, "the attempt is not polled again");
    let peer = format!("0100007F:{:04X} 02", at.port());
    let under_way = || std::fs::read_to_string("/proc/self/net/tcp").expect("the table of sockets").contains(&peer);
    assert!(under_way());
    ring.close(ID, false);
    assert!(!under_way(), "the attempt goes on");
}

/// Every way in which the kernel reports an end or an error is recognized.
#[test]
fn ends_and_errors_are_told() {
    let of = |flags| {
        let readiness = Readiness::of(flags);
        (
            readiness.has(Readiness::READABLE),
            readiness.has(Readiness::HUNG_UP),
            readiness.has(Readiness::FAILED),
            readiness.has(Readiness::GONE),
        )
    };
    assert_eq!(of(PollFlags::OUT), (false, false, false, false));
    assert_eq!(of(PollFlags::IN), (true, false, false, false));
    assert_eq!(of(PollFlags::RDHUP), (false, false, false, false));
    assert_eq!(of(PollFlags::IN | PollFlags::RDHUP), (true, true, false, false));
    assert_eq!(of(PollFlags::HUP), (true, true, false, true));
    assert_eq!(of(PollFlags::ERR), (true, true, true, true));
}
