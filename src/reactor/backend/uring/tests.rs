//! Unusual outcomes of requests to the ring, on the backend alone. Faults of requests are ordered as those of socket
//! calls are (`faults.rs`).

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::*;
use crate::reactor::backend::socket::faults::{Fault, SystemCall, left, plan};
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
fn drain(ring: &mut Uring) -> Vec<BackendEvent> {
    let (mut inbox, mut came) = (Inbox::default(), Vec::new());
    for _ in 0..5 {
        ring.wait(Some(Duration::ZERO)).expect("the ring turns");
        came.extend(std::iter::from_fn(|| ring.next(&mut inbox)).map(|(_, event)| event));
    }
    came
}

/// Turns until there is a completion that is wanted.
#[track_caller]
fn wait_for(ring: &mut Uring, wanted: impl Fn(&BackendEvent) -> bool) {
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    loop {
        assert!(Instant::now() < until, "it did not come");
        ring.wait(Some(LIMIT)).expect("the ring turns");
        if std::iter::from_fn(|| ring.next(&mut inbox)).any(|(_, event)| wanted(&event)) {
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
    plan(SystemCall::RingPoll, [Fault::Ends; 3]);
    ring.receive(ID, false);
    assert!(drain(&mut ring).is_empty() && left(SystemCall::RingPoll) == 0);
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("a reset on close");
    drop(peer);
    wait_for(&mut ring, |event| matches!(event, BackendEvent::Other(Completion::Broken { .. })));
}

/// A lasting poll, of a UNIX stream or a watched descriptor, is begun anew when the kernel ends it behind an event.
#[test]
fn a_poll_for_bytes_that_ends_is_begun_anew() {
    for watched in [false, true] {
        let Some(mut ring) = ring() else { return };
        let (socket, mut peer) = unix_pair();
        let copy = socket.try_clone().expect("a descriptor");
        plan(SystemCall::RingPoll, [Fault::Once; 2]);
        if watched {
            ring.watch(ID, socket.as_raw_fd(), Interest { readable: true, writable: false }).expect("it is watched");
        } else {
            adopt(&mut ring, socket.try_clone().expect("a descriptor"), true);
            ring.receive(ID, true);
        }
        for _ in 0..4 {
            peer.write_all(b"more").expect("we are there");
            wait_for(&mut ring, |event| {
                matches!(event, BackendEvent::Received | BackendEvent::Other(Completion::Readable))
            });
            if watched {
                assert_eq!(rustix::io::read(&copy, &mut [0; 9]), Ok(4));
                drain(&mut ring);
            }
        }
        assert_eq!(left(SystemCall::RingPoll), 0);
    }
}

/// The bell is polled on when the kernel ends that: the ring is woken by each ring of it.
#[test]
fn a_poll_of_the_bell_that_ends_is_begun_anew() {
    plan(SystemCall::RingPoll, [Fault::Once; 2]);
    let Some(mut ring) = ring() else { return socket::faults::clear() };
    let waker = ring.waker();
    for _ in 0..4 {
        assert!(drain(&mut ring).is_empty());
        waker.wake();
        let began = Instant::now();
        ring.wait(Some(LIMIT)).expect("the ring turns");
        assert!(began.elapsed() < LIMIT, "it was not woken");
    }
    assert_eq!(left(SystemCall::RingPoll), 0);
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
    wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
}

/// F14: of a chunk that the kernel did not take, or took a part of, the rest comes back to be sent again.
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
        assert_eq!(ring.send(ID, stream.outgoing(&pool)).expect("the peer is there"), Progress::Blocked(0));
        ring.wait(Some(LIMIT)).expect("the ring turns");
        let Some((ID, BackendEvent::Returned(in_flight, result))) = ring.next(&mut inbox) else {
            panic!("nothing came back")
        };
        assert_eq!(stream.returned(in_flight, result, &pool), in_time);
        assert_eq!(stream.queue.len(), unsent);
    }
    let mut received = [0; 17];
    std::io::Read::read_exact(&mut peer, &mut received).expect("it was sent");
    assert_eq!(&received, b"the whole message");
}

/// True if a program that is started would inherit the bell.
#[test]
fn the_bell_is_not_inherited() {
    let Some(ring) = ring() else { return };
    let flags = rustix::io::fcntl_getfd(&ring.bell.0).expect("it is open");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

/// Receive buffers come back to the kernel from the reactor: there are 256 at most, and many more messages.
#[test]
fn buffers_come_back_from_the_reactor() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    for _ in 0..600 {
        peer.write_all(b"message").expect("we are there");
        let came = loop {
            assert!(Instant::now() < until, "it did not come");
            ring.wait(Some(LIMIT)).expect("the ring turns");
            if let Some((ID, completion)) = ring.next(&mut inbox) {
                break completion;
            }
        };
        assert!(matches!(came, BackendEvent::Received) && ring.next(&mut inbox).is_none());
    }
}

/// Receive buffers come back from connections that have closed meanwhile, and what had come for those is counted.
#[test]
fn buffers_come_back_from_closed_connections() {
    let lasting = Id { slot: 7, generation: 1 };
    let Some(mut ring) = ring() else { return };
    let (socket, mut lasting_peer) = tcp_pair();
    ring.adopt(lasting, IncomingSocket::Descriptor { socket, unix: false }).expect("it takes the socket");
    ring.receive(lasting, true);
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    for _ in 0..300 {
        let (socket, mut peer) = tcp_pair();
        adopt(&mut ring, socket, false);
        ring.receive(ID, true);
        ring.flush();
        peer.write_all(b"too late").expect("we are there");
        drop(peer);
        ring.flush();
        let stale = ring.stale();
        ring.close(ID, true);
        lasting_peer.write_all(b"in time").expect("we are there");
        let came = loop {
            assert!(Instant::now() < until, "nothing is received any more");
            ring.wait(Some(LIMIT)).expect("the ring turns");
            if let Some((id, completion)) = ring.next(&mut inbox) {
                break (id, completion);
            }
        };
        assert!(matches!(came, (id, BackendEvent::Received) if id == lasting));
        assert!(ring.next(&mut inbox).is_none() && ring.stale() > stale);
    }
}

/// Something that a flush has brought already is not waited for.
#[test]
fn completions_that_are_there_are_not_waited_for() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = tcp_pair();
    adopt(&mut ring, socket, false);
    ring.receive(ID, true);
    ring.flush();
    peer.write_all(b"bytes").expect("we are there");
    ring.flush();
    let began = Instant::now();
    ring.wait(Some(LIMIT)).expect("the ring turns");
    assert!(began.elapsed() < LIMIT, "it waits for what is there");
    assert!(matches!(ring.next(&mut Inbox::default()), Some((ID, BackendEvent::Received))));
}

/// One poll is under way for a UNIX stream, however often it has told of something.
#[test]
fn polls_do_not_multiply() {
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = unix_pair();
    adopt(&mut ring, socket, true);
    ring.receive(ID, true);
    for _ in 0..6 {
        peer.write_all(b"more").expect("we are there");
        wait_for(&mut ring, |event| matches!(event, BackendEvent::Received));
        drain(&mut ring);
    }
    peer.write_all(b"more").expect("we are there");
    ring.ring.flush();
    let events = std::iter::from_fn(|| ring.ring.next()).count();
    assert!((1..=4).contains(&events), "{events} events of one message");
}

/// A request is never made of a descriptor that has been closed and is another connection's meanwhile.
#[test]
fn a_closed_descriptor_is_not_received_from() {
    for _ in 0..20 {
        let Some(mut ring) = ring() else { return };
        let (socket, _gone) = tcp_pair();
        adopt(&mut ring, socket, false);
        // Not handed on to the kernel yet.
        ring.receive(ID, true);
        ring.close(ID, true);
        // One of these has its number, if no other thread was faster.
        let (one, other) = unix_pair();
        let other = OwnedFd::from(other);
        for socket in [&one, &other] {
            rustix::io::write(socket, b"of another").expect("it is open");
        }
        assert!(drain(&mut ring).is_empty());
        for socket in [&one, &other] {
            let read = rustix::net::recv(socket, &mut [0; 20][..], rustix::net::RecvFlags::DONTWAIT);
            assert_eq!(read.map(|(_, count)| count), Ok(10), "another connection was received from");
        }
    }
}

/// A watched descriptor is let go of at once: its owner may close it, and the peer then sees the end.
#[test]
fn a_descriptor_that_is_not_watched_any_more_is_let_go_of() {
    use std::io::Read;
    let Some(mut ring) = ring() else { return };
    let (socket, mut peer) = unix_pair();
    ring.watch(ID, socket.as_raw_fd(), Interest { readable: true, writable: false }).expect("it is watched");
    ring.flush();
    ring.close(ID, false);
    drop(socket);
    assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
}

/// The rest before a fatal error is received by plain calls, behind a receive that is under way and may not hear of the error.
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
    at.expect("it listens").socket_addr().expect("of TCP")
}

/// True if a socket waits instead of failing, as requests to the ring need it.
fn is_blocking(socket: BorrowedFd<'_>) -> bool {
    !rustix::fs::fcntl_getfl(socket).expect("it is open").contains(rustix::fs::OFlags::NONBLOCK)
}

/// A port, a connection that was accepted and one that was made wait in the kernel, and are heard of only when something happens.
#[test]
fn idle_sockets_say_nothing() {
    let (server, client) = (Id { slot: 4, generation: 1 }, Id { slot: 5, generation: 1 });
    let Some(mut ring) = ring() else { return };
    let at = listen(&mut ring);
    ring.ring.flush();
    assert!(ring.ring.next().is_none(), "a port without a waiting connection says something");
    ring.connect(client, &at.into(), &DialOptions::new()).expect("it listens");
    let (until, mut inbox, mut came) = (Instant::now() + LIMIT, Inbox::default(), 0);
    while came < 2 {
        assert!(Instant::now() < until, "they did not come");
        ring.wait(Some(LIMIT)).expect("the ring turns");
        while let Some((_, event)) = ring.next(&mut inbox) {
            match event {
                BackendEvent::Other(Completion::Accepted(incoming)) => {
                    ring.adopt(server, incoming.socket).expect("it takes the socket");
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
    assert!(ring.ring.next().is_none(), "an idle stream says something");
}

/// A port without descriptors is polled until a connection comes, which is served by the ring as the others are; and when it is
/// closed then, its address is free at once.
#[test]
fn a_port_without_descriptors_is_polled() {
    let Some(mut ring) = ring() else { return };
    plan(SystemCall::RingAccept, [Fault::Fails(Errno::MFILE)]);
    plan(SystemCall::Accept, [Fault::Fails(Errno::MFILE)]);
    let at = listen(&mut ring);
    assert!(drain(&mut ring).is_empty(), "no connection waits");
    assert_eq!((left(SystemCall::RingAccept), left(SystemCall::Accept)), (0, 0));
    let _peer = std::net::TcpStream::connect(at).expect("it listens");
    let (until, mut inbox) = (Instant::now() + LIMIT, Inbox::default());
    let incoming = loop {
        assert!(Instant::now() < until, "nobody is accepted");
        ring.wait(Some(LIMIT)).expect("the ring turns");
        match ring.next(&mut inbox) {
            Some((ID, BackendEvent::Other(Completion::Accepted(incoming)))) => break incoming,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    };
    let IncomingSocket::Descriptor { socket, .. } = incoming.socket else { panic!("a socket") };
    assert!(is_blocking(socket.as_fd()));
}

/// A port that is closed while it is polled, or has been told twice to accept, listens no more.
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
            let _peer = std::net::TcpStream::connect(at).expect("it listens");
            wait_for(&mut ring, |event| matches!(event, BackendEvent::Other(Completion::Accepted(_))));
            ring.accept(ID);
            assert!(drain(&mut ring).is_empty());
        }
        assert!(ring.stop_listening(ID).is_empty());
        ring.flush();
        let late = std::net::TcpStream::connect(at);
        assert!(late.is_err(), "polled {polled}: it listens");
    }
}

/// An attempt to connect whose poll says nothing is polled again, and one that is given up leaves no socket behind.
#[test]
fn an_attempt_is_polled_again_and_given_up() {
    let Some(mut ring) = ring() else { return };
    // Its queue is full: further attempts are not answered.
    let listener = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    rustix::net::bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    rustix::net::listen(&listener, 0).expect("it listens");
    let at = socket::local_address(&listener).expect("it has one").socket_addr().expect("of TCP");
    let _first = std::net::TcpStream::connect(at).expect("it listens");
    plan(SystemCall::RingPoll, [Fault::Ends; 3]);
    ring.connect(ID, &at.into(), &DialOptions::new()).expect("it begins");
    assert!(drain(&mut ring).is_empty(), "it is not connected");
    assert_eq!(left(SystemCall::RingPoll), 0, "it is not polled again");
    let peer = format!("0100007F:{:04X} 02", at.port());
    let under_way = || std::fs::read_to_string("/proc/self/net/tcp").expect("the system tells").contains(&peer);
    assert!(under_way());
    ring.close(ID, false);
    assert!(!under_way(), "the attempt goes on");
}

/// However the kernel tells of an end or an error, it is one.
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
