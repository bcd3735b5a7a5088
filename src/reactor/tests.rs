//! The engine under faults that the kernel does not produce on request. Each test orders faults on
//! its thread for the next calls of a kind: from the socket calls (`backend::socket::faults`), or
//! from the requests to a ring.

mod layers;
mod pipes;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::backend::socket::faults::{self, Fault, SystemCall, left, plan};
use super::backend::{Closed, Completion, Incoming, IncomingSocket};
use super::interest::Ready;
use super::{BackendKind, ConnectOptions, Interest, ListenOptions, Port, Reactor, SIGUSR2, Slot};
use crate::address::{Address, AddressPair};
use crate::deferred::Promise;
use crate::error::{ConnectError, ReactorError, ReactorGone};
use crate::failure::{Failure, Result};
use crate::protocol::{Factory, Protocol};
use crate::testing::{Conditions, Network};
use crate::time::Clock;
use crate::transport::Transport;
use crate::transport::id::Id;

type Log = Rc<RefCell<Vec<String>>>;

/// Echoes, and records its callbacks.
struct Echo(Log);

impl Protocol for Echo {
    fn connection_made(&mut self, _: &Transport) -> Result<()> {
        self.0.borrow_mut().push("made".to_owned());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }

    fn file_descriptor_received(&mut self, _: &Transport, _: OwnedFd) -> Result<()> {
        self.0.borrow_mut().push("descriptor".to_owned());
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

fn reactor() -> Reactor {
    Reactor::builder().backend(BackendKind::Mio).signals(false).build().unwrap()
}

/// The same on io_uring, if the system provides it.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn ring_reactor() -> Option<Reactor> {
    let reactor = Reactor::builder().backend(BackendKind::IoUring).signals(false).build().unwrap();
    let is_there = reactor.backend() == BackendKind::IoUring;
    if !is_there {
        println!("skipped: no io_uring here");
    }
    is_there.then_some(reactor)
}

fn listen(reactor: &Reactor, log: &Log) -> (Port, SocketAddr) {
    let log = Rc::clone(log);
    let factory = move |_| Some(Echo(Rc::clone(&log)));
    let port = reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), &ListenOptions::new(), factory).unwrap();
    let address = port.host().socket_addr().unwrap();
    (port, address)
}

fn run_until(reactor: &Reactor, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "the condition was not met in time");
        reactor.iterate(Duration::from_millis(5)).unwrap();
    }
}

/// Makes one echo through a blocking peer.
fn echo(reactor: &Reactor, address: SocketAddr, message: Vec<u8>) -> Vec<u8> {
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let length = message.len();
        let writing = thread::spawn(move || writer.write_all(&message).unwrap());
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).unwrap();
        writing.join().unwrap();
        answer
    });
    run_until(reactor, || peer.is_finished());
    peer.join().unwrap()
}

/// F02: a shortage in the system suspends accepting for a while. The loop does not spin, and
/// waiting connections are served.
#[test]
fn shortages_at_accept_back_off_and_recover() {
    for errno in [Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        let (reactor, log) = (reactor(), Log::default());
        let (_port, address) = listen(&reactor, &log);
        plan(SystemCall::Accept, [Fault::Fails(errno); 4]);
        assert_eq!(echo(&reactor, address, b"patience".to_vec()), b"patience");
        assert_eq!(left(SystemCall::Accept), 0);
        let counters = reactor.counters();
        assert_eq!(counters.accept_failures, 4);
        // 5 + 10 + 20 + 40 ms of suspension, in turns of at most 5 ms.
        assert!(counters.turns < 200, "{errno}: the loop spun, {} turns", counters.turns);
    }
}

/// F02 on a ring, whose accept repeats by itself until it fails.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn shortages_at_accept_of_a_ring_back_off_and_recover() {
    for errno in [Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        plan(SystemCall::RingAccept, [Fault::Fails(errno); 4]);
        let Some(reactor) = ring_reactor() else { return faults::clear() };
        let log = Log::default();
        let (_port, address) = listen(&reactor, &log);
        assert_eq!(echo(&reactor, address, b"patience".to_vec()), b"patience");
        assert_eq!((left(SystemCall::RingAccept), reactor.counters().accept_failures), (0, 4));
        assert!(reactor.counters().turns < 200, "{errno}: the loop spun, {} turns", reactor.counters().turns);
    }
}

/// F02: the pause after a failed accept doubles up to a second. An accepted connection resets it.
#[test]
fn the_pause_of_accepting_doubles_until_it_works() {
    let network = Network::with_conditions(1, Conditions::ideal());
    let at: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let reactor = network.reactor(at.ip());
    let factory = |_| Some(Echo(Log::default()));
    let _port = reactor.listen_tcp(at, &ListenOptions::new(), factory).unwrap();
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| matches!(slot, Slot::Port(_)))[0];
    let pause = || {
        core.complete(id, Completion::AcceptFailed(Errno::NFILE.into()));
        let pause = core.timers.next_deadline().expect("accepting resumes") - core.timers.seconds();
        network.run_for(pause).unwrap();
        pause.as_millis()
    };
    for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
        assert_eq!(pause(), expected);
    }
    let _peer = network.connect(at);
    network.settle().unwrap();
    assert_eq!([pause(), pause()], [5, 10]);
    assert_eq!((reactor.counters().accept_failures, reactor.counters().accepted), (12, 1));
}

/// F03: an error that belongs to a waiting connection stops neither the others nor the port.
#[test]
fn errors_of_waiting_connections_are_skipped() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let errors = [Errno::CONNABORTED, Errno::PROTO, Errno::PERM, Errno::NETDOWN, Errno::HOSTUNREACH, Errno::INTR];
    plan(SystemCall::Accept, errors.map(Fault::Fails));
    assert_eq!(echo(&reactor, address, b"next".to_vec()), b"next");
    assert_eq!(left(SystemCall::Accept), 0);
    assert_eq!(reactor.counters().accept_failures, 0);
}

/// F14: short, interrupted, full and starved calls in any order leave the stream of bytes
/// unchanged.
#[test]
fn any_schedule_of_short_and_failing_calls_keeps_the_bytes() {
    let message: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for seed in 0..12_u32 {
        let mut random = seed.wrapping_mul(747_796_405) | 1;
        let mut draw = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random
        };
        let mut faults = || match draw() % 4 {
            0 => Fault::Fails(Errno::INTR),
            _ => Fault::Short(1 + (draw() % 700) as usize),
        };
        let (reactor, log) = (reactor(), Log::default());
        let (_port, address) = listen(&reactor, &log);
        plan(SystemCall::Receive, (0..300).map(|_| faults()));
        // "Full" is reported only once: the edge that follows comes from the registration for it.
        plan(SystemCall::Send, [Fault::Fails(Errno::AGAIN), Fault::Fails(Errno::NOBUFS)]);
        plan(SystemCall::Send, (0..300).map(|_| faults()));
        assert!(echo(&reactor, address, message.clone()) == message, "seed {seed}");
        faults::clear();
    }
}

/// A send for which the system has no memory is tried again after a while, and not before.
#[test]
fn a_send_without_memory_is_tried_again_in_a_while() {
    for is_paused in [false, true] {
        let (reactor, log) = (reactor(), Log::default());
        let (_port, address) = listen(&reactor, &log);
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        run_until(&reactor, || !log.borrow().is_empty());
        let core = &reactor.0;
        let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
        plan(SystemCall::Send, [Fault::Fails(Errno::NOBUFS); 4]);
        core.with_transport(id, |transport| {
            transport.write(b"patience");
            if is_paused {
                // Leaves the fast path.
                transport.pause_producing();
            }
        });
        for unmet in [3, 2, 1, 0] {
            core.settle();
            core.settle();
            assert_eq!(left(SystemCall::Send), unmet, "paused {is_paused}");
            assert!(core.timers.next_deadline().is_some());
            core.with_transport(id, |transport| transport.update(|stream| stream.unblocked()));
        }
        core.settle();
        let mut received = [0; 8];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"patience");
    }
}

/// A send that fails ends the connection, whatever its peer does.
#[test]
fn a_send_that_fails_ends_the_connection() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let _peer = TcpStream::connect(address).unwrap();
    run_until(&reactor, || !log.borrow().is_empty());
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
    plan(SystemCall::Send, [Fault::Fails(Errno::CONNRESET)]);
    core.with_transport(id, |transport| transport.write(b"lost"));
    run_until(&reactor, || log.borrow().len() == 2);
    assert_eq!(log.borrow()[1], "the peer reset the connection (4 bytes were still to be sent)");
}

/// A deadline leaves nothing behind, whether it was not needed or has passed.
#[test]
fn deadlines_leave_nothing_behind() {
    for reads in [true, false] {
        let network = Network::with_conditions(1, Conditions::ideal().window(1000));
        let (at, log) = (SocketAddr::from(([10, 0, 0, 1], 7)), Log::default());
        let reactor = network.reactor(at.ip());
        let told = Rc::clone(&log);
        let factory = move |_| Some(Echo(Rc::clone(&told)));
        let _port = reactor.listen_tcp(at, &ListenOptions::new(), factory).unwrap();
        let peer = network.connect(at);
        network.settle().unwrap();
        let core = &reactor.0;
        let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
        core.with_transport(id, |transport| {
            transport.write(&[0; 1500]);
            transport.lose_connection();
        });
        network.settle().unwrap();
        assert_eq!((core.net.deadlines(), core.timers.len()), (1, 1));
        if reads {
            while !peer.read().is_empty() {
                network.settle().unwrap();
            }
            peer.close();
            network.settle().unwrap();
        } else {
            network.run_for(Duration::from_secs(3600)).unwrap();
        }
        assert_eq!(log.borrow().len(), 2, "{:?}", log.borrow());
        assert_eq!((core.net.deadlines(), core.timers.len()), (0, 0), "reads {reads}");
    }
}

/// A socket that connects to itself is tried again a few times, and then refused.
#[test]
fn a_socket_that_meets_itself_again_and_again_is_refused() {
    let network = Network::new(1);
    network.answer_by_hand();
    let (reactor, to) = (network.reactor([10, 0, 0, 1].into()), SocketAddr::from(([10, 0, 0, 1], 7)));
    let factory = |_| -> Option<Echo> { None };
    let mut connecting = reactor.connect_tcp(to, &ConnectOptions::new(), factory);
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| matches!(slot, Slot::Connecting(_)))[0];
    for tries in 0..4 {
        network.settle().unwrap();
        assert!(!connecting.is_called(), "{tries}");
        core.complete(id, Completion::Connected(to.into()));
    }
    network.settle().unwrap();
    let failure = connecting.take_result().expect("it is over").expect_err("it failed");
    assert!(matches!(failure.check(), Some(ConnectError::Refused { .. })), "{failure}");
}

/// A receive for which the system has no memory is tried again in the next turn.
#[test]
fn a_receive_without_memory_is_tried_again() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    plan(SystemCall::Receive, [Errno::NOBUFS, Errno::NOMEM, Errno::NOBUFS].map(Fault::Fails));
    assert_eq!(echo(&reactor, address, b"patience".to_vec()), b"patience");
    assert_eq!(left(SystemCall::Receive), 0);
}

/// F14 on a ring: requests that are cut short, or fail for a passing reason, leave the stream of
/// bytes unchanged.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn any_schedule_of_short_and_failing_requests_keeps_the_bytes() {
    // Shorter than a message that is sent by a plain call.
    let message: Vec<u8> = (0..6_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for seed in 0..12_usize {
        let Some(reactor) = ring_reactor() else { return };
        let log = Log::default();
        let (_port, address) = listen(&reactor, &log);
        let receives = [Errno::NOBUFS, Errno::AGAIN, Errno::INTR, Errno::NOMEM].map(Fault::Fails);
        plan(SystemCall::RingReceive, receives.into_iter().cycle().skip(seed).take(6));
        let fails = |errno| Fault::Fails(errno);
        let sends =
            [Fault::Short(1 + seed), fails(Errno::AGAIN), Fault::Short(700), fails(Errno::INTR), fails(Errno::NOBUFS)];
        plan(SystemCall::RingSend, sends.into_iter().cycle().skip(seed).take(10));
        assert!(echo(&reactor, address, message.clone()) == message, "seed {seed}");
        assert_eq!((left(SystemCall::RingReceive), left(SystemCall::RingSend)), (0, 0), "seed {seed}");
        faults::clear();
    }
}

/// A connection that fails while the ring sends a chunk of it takes the chunk back, so that the
/// bytes that the socket has taken end cleanly.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn a_failing_connection_takes_back_what_is_being_sent() {
    let Some(reactor) = ring_reactor() else { return };
    let log = Log::default();
    let (_port, address) = listen(&reactor, &log);
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    run_until(&reactor, || !log.borrow().is_empty());
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
    core.with_transport(id, |transport| transport.write(b"last words"));
    core.settle();
    core.with_transport(id, |transport| {
        assert!(transport.stream().queue.is_lent(), "the ring has it");
        transport.update(|stream| stream.callback_failed(Failure::message("no")));
    });
    core.settle();
    core.deliver_losses();
    assert_eq!(*log.borrow(), ["made", "no"]);
    reactor.iterate(Duration::ZERO).unwrap();
    let mut answer = Vec::new();
    assert!(peer.read_to_end(&mut answer).is_ok() && answer == b"last words", "{answer:?}");
}

/// F15, F17: a backend may report events twice, without reason, or for a closed connection. The
/// callbacks are still those of one connection that ends once.
#[test]
fn spurious_and_stale_completions_are_tolerated() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let peer = TcpStream::connect(address).unwrap();
    run_until(&reactor, || !log.borrow().is_empty());
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
    let stale = Id { generation: id.generation + 1, ..id };
    for id in [id, stale] {
        core.complete(id, Completion::SendReady);
        core.complete(id, Completion::Shed(1));
        core.complete(id, Completion::Connected(address.into()));
        core.complete(id, Completion::ConnectFailed(Errno::CONNREFUSED.into()));
        core.complete(id, Completion::Ready(Ready { kinds: Interest::READ, hung_up: true }));
        core.complete(id, Completion::DescriptorLost(Errno::BADF.into()));
    }
    core.complete(stale, Completion::EndOfStream);
    let broken = || Completion::Broken { error: Errno::CONNRESET.into(), rest: false };
    core.complete(stale, broken());
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(*log.borrow(), ["made"]);
    for _ in 0..2 {
        core.complete(id, Completion::EndOfStream);
        core.complete(id, broken());
    }
    reactor.iterate(Duration::ZERO).unwrap();
    core.complete(id, Completion::EndOfStream);
    reactor.iterate(Duration::ZERO).unwrap();
    assert_eq!(*log.borrow(), ["made", "the peer reset the connection (0 bytes were still to be sent)"]);
    drop(peer);
}

/// F34: a poller that fails ends the run with an error, and every connection is lost before.
#[test]
fn a_failing_poller_ends_the_run() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let made = Rc::clone(&log);
    let called = Arc::new(AtomicBool::new(false));
    fn order_when_made(reactor: Reactor, made: Log, called: Arc<AtomicBool>) {
        if made.borrow().is_empty() || !called.load(Ordering::SeqCst) {
            let again = reactor.clone();
            reactor.call_later(Duration::from_millis(1), move || order_when_made(again, made, called));
        } else {
            plan(SystemCall::Wait, [Fault::Fails(Errno::BADF)]);
        }
    }
    order_when_made(reactor.clone(), made, Arc::clone(&called));
    let remote = reactor.remote();
    let caller = thread::spawn(move || {
        remote.blocking_call_from_thread(move |reactor| {
            called.store(true, Ordering::SeqCst);
            let (promise, answer) = Promise::<()>::new();
            reactor.call_later(Duration::from_secs(3600), move || drop(promise));
            answer
        })
    });
    assert!(matches!(reactor.run(), Err(ReactorError::Poll(_))));
    assert_eq!(*log.borrow(), ["made", "the reactor stopped"]);
    peer.join().unwrap();
    assert_eq!(reactor.counters().watched, 0);
    run_until(&reactor, || caller.is_finished());
    let failure = caller.join().unwrap().expect_err("there is no answer");
    assert!(failure.check::<ReactorGone>().is_some(), "{failure}");
    let again = reactor.clone();
    reactor.call_later(Duration::ZERO, move || again.stop().expect("it runs"));
    reactor.run().expect("it can be run again");
}

/// A run leaves none of its signals behind, and does not report the signal that ended the run
/// before.
#[test]
fn a_run_leaves_no_signals_behind() {
    let reactor = reactor();
    let core = &reactor.0;
    let _subscription = reactor.on_signal(SIGUSR2, || ()).unwrap();
    core.run.set_exit_signal(Some(15));
    for _ in 0..2 {
        let handle = reactor.clone();
        reactor.call_later(Duration::ZERO, move || {
            assert_eq!(handle.counters().watched, 1);
            handle.stop().expect("it runs");
        });
        reactor.run().unwrap();
        assert_eq!((core.slots.borrow().len(), reactor.exit_signal()), (0, None));
        assert!(!core.signals.are_installed());
    }
}

/// A poller that takes no more descriptors: the items that it was to watch are released, and no
/// slot stays taken.
#[test]
fn a_poller_that_takes_nothing_leaves_nothing_behind() {
    /// Panics when it is dropped.
    struct Bomb;
    impl Protocol for Bomb {
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a panic of a drop");
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| matches!(slot, Slot::Port(_)))[0];
    let bombs = reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), &ListenOptions::new(), |_| Some(Bomb)).unwrap();
    let bomb = core.slots.borrow().ids(|slot| matches!(slot, Slot::Port(_)))[1];
    let working = core.backend.replace(Box::new(Closed::new(0)).into());

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [id, bomb] {
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let socket = IncomingSocket::Descriptor { socket: listener.accept().unwrap().0.into(), unix: false };
        let incoming = Incoming { socket, ends: AddressPair::new(address.into(), address.into()) };
        core.complete(port, Completion::Accepted(incoming));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        assert!(log.borrow().is_empty() && core.slots.borrow().len() == 2);
    }
    drop(bombs.stop_listening());

    let subscription = reactor.on_signal(SIGUSR2, || ()).unwrap();
    assert_eq!(subscription.signal(), SIGUSR2);
    assert!(matches!(reactor.run(), Err(ReactorError::Setup(_))));
    assert_eq!(core.slots.borrow().len(), 1);
    drop(subscription);

    drop(core.backend.replace(working));
    assert_eq!(echo(&reactor, address, b"as before".to_vec()), b"as before");
}

/// A forked child that takes a reactor over has none of the threads. Earlier jobs fail, and new
/// jobs are done.
#[test]
fn jobs_of_threads_that_are_gone_fail() {
    let (reactor, log) = (reactor(), Log::default());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let told = Rc::clone(&log);
    let stuck = reactor.defer_to_thread(move || Ok(released.recv().is_err())).add_both(move |result| {
        let is_gone = result.is_err_and(|failure| failure.check::<ReactorGone>().is_some());
        told.borrow_mut().push(format!("gone: {is_gone}"));
    });
    reactor.0.renew_jobs();
    assert_eq!(*log.borrow(), ["gone: true"]);
    let told = Rc::clone(&log);
    let done = reactor.defer_to_thread(|| Ok("done")).add_both(move |result| {
        told.borrow_mut().push(result.unwrap().to_owned());
    });
    run_until(&reactor, || log.borrow().len() == 2);
    assert_eq!(log.borrow()[1], "done");
    drop((release, stuck, done));
}

/// A wait that a signal interrupts is not a failure.
#[test]
fn an_interrupted_wait_goes_on() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    plan(SystemCall::Wait, [Fault::Fails(Errno::INTR); 3]);
    assert_eq!(echo(&reactor, address, b"on".to_vec()), b"on");
}

/// F51: the error of a failed attempt gets its own kind.
#[test]
fn connect_errors_have_kinds() {
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for (errno, expected) in [
        (Errno::CONNREFUSED, "127.0.0.1:9 refused the connection"),
        (Errno::NETUNREACH, "127.0.0.1:9 is unreachable"),
        (Errno::HOSTUNREACH, "127.0.0.1:9 is unreachable"),
        (Errno::TIMEDOUT, "127.0.0.1:9 did not answer within the limits of the operating system"),
        (Errno::ADDRNOTAVAIL, "cannot connect to 127.0.0.1:9"),
        (Errno::AGAIN, "cannot connect to 127.0.0.1:9"),
    ] {
        let (reactor, log) = (reactor(), Log::default());
        plan(SystemCall::Connect, [Fault::Fails(errno)]);
        let said = Rc::clone(&log);
        let factory = |_| -> Option<Echo> { None };
        let connecting = reactor.connect_tcp(address, &ConnectOptions::new(), factory).add_errback(move |failure| {
            assert!(failure.check::<ConnectError>().is_some());
            said.borrow_mut().push(failure.error().to_string());
            Err(failure)
        });
        assert!(log.borrow().is_empty(), "nothing has fired when connect returns");
        run_until(&reactor, || !log.borrow().is_empty());
        assert_eq!(*log.borrow(), [expected]);
        drop(connecting.add_errback(|_| Err(Failure::message("seen"))).add_both(|_| ()));
    }
}

/// A factory that is started for an attempt is stopped when the attempt fails.
#[test]
fn a_failed_attempt_stops_its_factory() {
    struct Counting(Log);
    impl Factory for Counting {
        type Protocol = Echo;
        fn build_protocol(&mut self, _: &Address) -> Option<Echo> {
            None
        }
        fn do_start(&mut self) {
            self.0.borrow_mut().push("start".to_owned());
        }
        fn do_stop(&mut self) {
            self.0.borrow_mut().push("stop".to_owned());
        }
    }
    let (reactor, log) = (reactor(), Log::default());
    plan(SystemCall::Connect, [Fault::Fails(Errno::CONNREFUSED)]);
    let options = ConnectOptions::new();
    let connecting = reactor.connect_tcp("127.0.0.1:9".parse().unwrap(), &options, Counting(Rc::clone(&log)));
    drop(connecting.add_both(|_| ()));
    run_until(&reactor, || log.borrow().len() == 2);
    assert_eq!(*log.borrow(), ["start", "stop"]);
}
