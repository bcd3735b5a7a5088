//! F01: a process that has no descriptors left. The tests change the limit of their process, so
//! each has one of its own.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::interfaces::*;
use ropewalk::reactor::UnixListenOptions;
use ropewalk::{ListenOptions, Reactor};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sets the limit of descriptors, until it is dropped.
struct Limit(Rlimit);

impl Limit {
    fn set(limit: u64) -> Self {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum }).expect("the soft limit");
        Self(before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).expect("the soft limit");
    }
}

/// Opens every number below the highest that is in use: from then on the limit says exactly how
/// many more there can be.
fn fill_gaps() -> Vec<File> {
    let (mut fillers, highest) = (Vec::new(), highest());
    loop {
        let filler = File::open("/dev/null").expect("/dev/null");
        if filler.as_raw_fd() > highest {
            return fillers;
        }
        fillers.push(filler);
    }
}

fn highest() -> i32 {
    let names = std::fs::read_dir("/proc/self/fd").expect("/proc").map(|entry| entry.unwrap().file_name());
    // The number under which the directory itself is being read is given back.
    let open = names.filter_map(|name| name.to_str()?.parse().ok()).filter(|fd| {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.is_ok_and(|target| !target.ends_with("fd"))
    });
    open.max().expect("something is open")
}

/// Turns the loop for as long as a timer takes, and says how many turns that were.
fn turns_in(reactor: &Reactor, time: Duration) -> u64 {
    let (log, before) = (Log::default(), reactor.counters().turns);
    let fired = log.clone();
    reactor.call_later(time, move || fired.add("fired"));
    run_until(reactor, || log.has("fired"));
    reactor.counters().turns - before
}

/// Number of peers that were closed without having been served. The others receive nothing.
fn cut_off(peers: &mut [TcpStream]) -> usize {
    let ended = peers.iter_mut().filter_map(|peer| read_now(peer, &mut Vec::new()));
    ended.inspect(|end| assert!(matches!(end, Ok(()) | Err(ErrorKind::ConnectionReset)), "{end:?}")).count()
}

/// F01: more peers than descriptors. Peers that fit are served, the excess is closed, the loop does
/// not spin, and new peers are served once there is room again.
#[test]
fn the_excess_is_shed() {
    own_process!();
    const ROOM: usize = 12;
    const PEERS: usize = 40;
    let log = Log::default();
    let start = descriptors();
    let reactor = reactor();
    let gaps = fill_gaps();
    // For the port and its reserve, the peers' own ends, and ours. Before anything is listened for:
    // an accept that goes on in the kernel keeps to the limit that there was when it began.
    let limit = Limit::set((highest() as usize + 1 + 2 + PEERS + ROOM) as u64);
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new().backlog(128), echoes(&log)).unwrap();
    let address = port.host().socket_addr().unwrap();
    settle(&reactor);
    let before = descriptors() - gaps.len();
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(address)).collect();

    let turns = reactor.counters().turns;
    run_until(&reactor, || reactor.counters().accepted + reactor.counters().shed == PEERS as u64);
    settle(&reactor);
    assert_eq!(reactor.counters().accepted, ROOM as u64);
    assert_eq!(reactor.counters().shed, (PEERS - ROOM) as u64);
    assert_eq!(log.count("made"), ROOM);
    assert_eq!(cut_off(&mut peers), PEERS - ROOM);
    assert!(reactor.counters().turns - turns < 100, "the loop spun");
    assert!(turns_in(&reactor, Duration::from_millis(50)) < 100, "the loop spins although no task waits");
    assert_eq!(reactor.counters().accept_failures, 0);

    // The accepted peers are served, first of all the first.
    peers[0].write_all(b"one").unwrap();
    assert_eq!(read_exact(&reactor, &mut peers[0], 3), b"one");
    // Five go: a new one finds room, at both ends.
    peers.drain(..5);
    run_until(&reactor, || log.count("lost") == 5);
    let shed = reactor.counters().shed;
    let mut late = dial(address);
    late.write_all(b"late").unwrap();
    assert_eq!(read_exact(&reactor, &mut late, 4), b"late");
    assert_eq!(reactor.counters().shed, shed);

    // The reserve is there again: another shortage is met in the same way.
    drop(limit);
    let (more_gaps, mut another) = (fill_gaps(), [dial(address)]);
    let limit = Limit::set(highest() as u64 + 1);
    run_until(&reactor, || reactor.counters().shed == shed + 1);
    assert_eq!(cut_off(&mut another), 1);

    drop(limit);
    drop((peers, late, another, gaps, more_gaps));
    run_until(&reactor, || reactor.counters().watched == 1);
    assert_eq!(descriptors(), before);
    drop((port, reactor));
    assert_eq!(descriptors(), start);
}

/// F01, at its worst: the limit was lowered below what is open, so that the reserve, once given up,
/// can't be opened again. The port waits, longer each time, and serves all peers when there is
/// room.
#[test]
fn without_a_reserve_the_port_waits() {
    own_process!();
    const PEERS: usize = 10;
    let log = Log::default();
    let start = descriptors();
    let reactor = reactor();
    let gaps = fill_gaps();
    // The first number that the port takes is its socket, the second its reserve.
    let reserve = highest() + 2;
    let (port, address) = listen(&reactor, echoes(&log));
    let target = std::fs::read_link(format!("/proc/self/fd/{reserve}")).unwrap();
    let is_socket = target.to_str().is_some_and(|target| target.starts_with("socket:"));
    assert!(is_socket, "the reserve is {target:?}, or somewhere else: the test shows nothing");
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(address)).collect();

    let limit = Limit::set(reserve as u64);
    let turns = turns_in(&reactor, Duration::from_millis(100));
    assert!(turns < 200, "the loop spun, {turns} turns");
    // Tried at 0, 5, 15, 35 and 75 ms, or less often if the machine is busy.
    let failures = reactor.counters().accept_failures;
    assert!((1..10).contains(&failures), "tried {failures} times");
    run_until(&reactor, || reactor.counters().accept_failures > failures.max(2));
    assert_eq!((reactor.counters().accepted, reactor.counters().shed), (0, 0));
    assert_eq!(cut_off(&mut peers), 0, "they wait");

    drop(limit);
    for peer in &mut peers {
        peer.write_all(b"at last").unwrap();
        assert_eq!(read_exact(&reactor, peer, 7), b"at last");
    }
    assert_eq!(reactor.counters().accepted, PEERS as u64);
    drop((peers, gaps));
    run_until(&reactor, || reactor.counters().watched == 1);
    drop((port, reactor));
    assert_eq!(descriptors(), start);
}

/// Connecting without descriptors is an error of the attempt, which comes later, like any other,
/// and leaves nothing.
#[test]
fn connecting_without_descriptors_fails() {
    own_process!();
    let log = Log::default();
    let reactor = reactor();
    let (_port, address) = listen(&reactor, echoes(&log));
    settle(&reactor);
    let before = (descriptors(), reactor.counters().watched);
    let gaps = fill_gaps();
    let limit = Limit::set(highest() as u64 + 1);
    let attempt = connect(&reactor, address, Watched::new(&log, scripts(&log)));
    assert!(!attempt.is_called());
    let failure = result_of(&reactor, attempt).unwrap_err();
    drop((limit, gaps));
    match failure.check::<ropewalk::error::ConnectError>() {
        Some(ropewalk::error::ConnectError::Other { source, .. }) => {
            assert_eq!(source.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        }
        other => panic!("{other:?}"),
    }
    settle(&reactor);
    assert_eq!(log.all(), ["start", "stop"]);
    assert_eq!((descriptors(), reactor.counters().watched), before);
}

/// A descriptor that is passed to us when there is no room for it is lost; the bytes that it came
/// with, and those behind them, are not.
#[test]
fn a_passed_descriptor_without_room_holds_nothing_up() {
    own_process!();
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    let (reactor, log, buffer) = (reactor(), Log::default(), Rc::default());
    let name = format!("ropewalk-no-room-{}", std::process::id());
    let at = UnixAddress::abstract_name(&name).unwrap();
    let script = Script::new(&log).into_buffer(&buffer);
    let _port = reactor.listen_unix(&at, &UnixListenOptions::new(), once(script)).unwrap();
    let mut peer = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    run_until(&reactor, || log.has("made"));

    let passed = File::open("/dev/null").unwrap();
    let passed = [passed.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    rustix::net::sendmsg(&peer, &[IoSlice::new(b"with it ")], &mut control, SendFlags::empty()).unwrap();
    peer.write_all(b"and behind").unwrap();
    let gaps = fill_gaps();
    let limit = Limit::set(highest() as u64 + 1);
    settle(&reactor);
    drop((limit, gaps));
    assert_eq!(String::from_utf8_lossy(&buffer.borrow()), "with it and behind");
}

/// A server that greets and closes, whose peers keep their own ends open: their sockets linger, the
/// oldest give way to newcomers, and every peer is served.
#[test]
fn lingering_sockets_give_way_to_newcomers() {
    own_process!();
    const ROOM: usize = 12;
    const PEERS: usize = 60;
    let log = Log::default();
    let reactor = reactor();
    let gaps = fill_gaps();
    let limit = Limit::set((highest() as usize + 1 + 2 + PEERS + ROOM) as u64);
    let made = log.clone();
    let factory = move |_| {
        Some(Script::new(&made).made(|transport| {
            transport.write(b"hello");
            transport.lose_connection();
            Ok(())
        }))
    };
    let (port, address) = listen(&reactor, factory);
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(address)).collect();
    for peer in &mut peers {
        assert_eq!(read_exact(&reactor, peer, 5), b"hello");
    }
    assert_eq!((reactor.counters().accepted, reactor.counters().shed), (PEERS as u64, 0));
    // None of them was reset: each finds the end behind the greeting.
    for peer in &mut peers {
        assert_eq!(read_to_end(&reactor, peer), Ok(Vec::new()));
    }
    drop((limit, gaps, port));
}

/// A connection of ours takes its descriptor from one that lingers, too.
#[test]
fn lingering_sockets_give_way_to_a_client() {
    own_process!();
    let log = Log::default();
    let reactor = reactor();
    let (_port, address) = listen(&reactor, |_| {
        Some(Script::new(&Log::default()).made(|transport| {
            transport.write(b"bye");
            transport.lose_connection();
            Ok(())
        }))
    });
    let (_target, elsewhere) = {
        let it = std::net::TcpListener::bind(loopback()).unwrap();
        let at = it.local_addr().unwrap();
        (it, at)
    };
    let mut peer = dial(address);
    assert_eq!(read_exact(&reactor, &mut peer, 3), b"bye");
    settle(&reactor);
    let gaps = fill_gaps();
    let limit = Limit::set(highest() as u64 + 1);
    let connection = result_of(&reactor, connect(&reactor, elsewhere, scripts(&log))).unwrap();
    drop((limit, gaps));
    assert_eq!(connection.transport().peer(), elsewhere.into());
    assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()));
}

/// So does a port.
#[test]
fn lingering_sockets_give_way_to_a_port() {
    own_process!();
    let reactor = reactor();
    let (_port, address) = listen(&reactor, |_| {
        Some(Script::new(&Log::default()).made(|transport| {
            transport.write(b"bye");
            transport.lose_connection();
            Ok(())
        }))
    });
    let mut peer = dial(address);
    assert_eq!(read_exact(&reactor, &mut peer, 3), b"bye");
    settle(&reactor);
    assert_eq!(reactor.counters().watched, 2);
    let gaps = fill_gaps();
    let limit = Limit::set(highest() as u64 + 1);
    let (second, _) = listen(&reactor, scripts(&Log::default()));
    drop((limit, gaps));
    assert!(second.is_listening() && reactor.counters().watched == 2);
    assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()));
}

/// A peer that has acknowledged everything and says nothing is not waited for long.
#[test]
fn a_silent_peer_is_not_lingered_for() {
    own_process!();
    let log = Log::default();
    let reactor = reactor();
    let (_port, address) = listen(
        &reactor,
        once(Script::new(&log).made(|transport| {
            transport.write(b"bye");
            transport.lose_connection();
            Ok(())
        })),
    );
    let mut peer = dial(address);
    assert_eq!(read_exact(&reactor, &mut peer, 3), b"bye");
    let started = std::time::Instant::now();
    run_until(&reactor, || reactor.counters().watched == 1);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(read_to_end(&reactor, &mut peer), Ok(Vec::new()));
}
