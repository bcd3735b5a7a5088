//! Groups of reactors: starts that fail, stops, and members that fail.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use crate::group::{ANY_PORT, Counting, backends, counters, counting, echo, greeted, group, inet, read_rest};
use ropewalk::endpoints::{ServerEndpoint, server_from_string};
use ropewalk::error::{GroupError, ListenError};
use ropewalk::failure::Panicked;
use ropewalk::interfaces::*;
use ropewalk::protocol::BoxedFactory;
use ropewalk::reactor::{Member, MemberEnd, OnMemberFailure, PortSharing, ReactorGroup};
use ropewalk::{Address, BackendKind, Deferred, Failure, Port, Result, Transport, for_protocol};

fn count_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux").count()
}

/// Waits until the process has this number of threads. The system lists a joined thread until it
/// has ended there, too, and the workers of a ring until they have noticed its end.
#[track_caller]
fn wait_for_threads(number: usize) {
    let until = Instant::now() + LIMIT;
    while count_threads() != number {
        assert!(Instant::now() < until, "{} threads, not {number}", count_threads());
        thread::yield_now();
    }
}

/// A start that fails says why, and leaves neither threads nor ports behind.
#[test]
fn a_failed_start_leaves_nothing() {
    own_process!();
    let _watchdog = Watchdog::new();
    let served = counters(2);
    let taken = TcpListener::bind(loopback()).unwrap();
    let before = (count_threads(), descriptors());
    let nothing_is_left = || {
        wait_for_threads(before.0);
        assert_eq!(descriptors(), before.1);
    };
    let address = taken.local_addr().unwrap();
    let description = format!("tcp:{}:interface=127.0.0.1", address.port());
    for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
        let error = group(2).port_sharing(sharing).listen(&description, counting(&served)).start().unwrap_err();
        let GroupError::Listen { endpoint, failure } = error else { panic!("{error}") };
        assert_eq!(endpoint, description);
        assert!(matches!(failure.check(), Some(ListenError::Bind { .. })), "{failure}");
        nothing_is_left();
    }
    let error = group(2).listen("tcp:http", counting(&served)).start().unwrap_err();
    assert!(error.to_string().contains("is not a port"), "{error}");
    nothing_is_left();

    // The second member fails, when the first is ready.
    for panics in [false, true] {
        let setup = move |member: &Member| match member.index() {
            1 if panics => panic!("of the setup"),
            1 => Err("of the setup".into()),
            _ => Ok(()),
        };
        let failing = group(2).setup(setup).listen(ANY_PORT, counting(&served));
        let GroupError::Setup { member: 1, failure } = failing.start().unwrap_err() else { panic!("of member 1") };
        assert_eq!(failure.check::<Panicked>().is_some(), panics);
        assert!(failure.to_string().contains("of the setup"));
        nothing_is_left();
    }
    let unmade = |_: &Member| -> Result<Box<dyn Factory<Protocol = Counting>>> { Err("no factory".into()) };
    let error = group(1).listen(ANY_PORT, unmade).run().unwrap_err();
    assert!(matches!(error, GroupError::Setup { member: 0, .. }), "{error}");
    nothing_is_left();
    assert!(matches!(group(0).start().unwrap_err(), GroupError::NoThreads));
    nothing_is_left();
    drop(taken);
}

/// A group does not start on a backend that the system does not provide.
#[test]
fn a_missing_backend_is_an_error() {
    if reactor_on(BackendKind::IoUring).is_some() {
        println!("skipped: this system has every backend");
        return;
    }
    let error = group(2).backend(BackendKind::IoUring).start().unwrap_err();
    assert!(matches!(error, GroupError::Backend { expected: "io_uring", found: "mio" }), "{error}");
    // A member is held to the backend of its group, whatever its own settings say.
    let group = group(1).configure(|builder, _| builder.backend(BackendKind::IoUring)).start().unwrap();
    drop(group);
}

/// Endpoints that cannot be shared are refused.
#[test]
fn endpoints_that_cannot_be_shared_are_refused() {
    /// Listens when it pleases.
    #[derive(Debug)]
    struct Late;
    impl ServerEndpoint for Late {
        fn listen_boxed(&self, _factory: BoxedFactory) -> Deferred<Port> {
            let (promise, port) = ropewalk::deferred::Promise::new();
            std::mem::forget(promise);
            port
        }
    }
    /// Listens on a reactor of its own.
    #[derive(Debug)]
    struct Elsewhere;
    impl ServerEndpoint for Elsewhere {
        fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
            let reactor = reactor();
            server_from_string(&reactor, ANY_PORT).unwrap().listen_boxed(factory)
        }
    }
    let served = counters(1);
    let error = group(1).listen_on("late", |_| Ok(Late), counting(&served)).start().unwrap_err();
    assert!(matches!(&error, GroupError::NotShareable { endpoint } if endpoint == "late"), "{error}");
    let error = group(1).listen_on("elsewhere", |_| Ok(Elsewhere), counting(&served)).start().unwrap_err();
    assert!(matches!(&error, GroupError::NotShareable { endpoint } if endpoint == "elsewhere"), "{error}");
    let unix = group(1).port_sharing(PortSharing::ReusePort).listen("unix:\0ropewalk-group", counting(&served));
    let GroupError::Listen { failure, .. } = unix.start().unwrap_err() else { panic!("of the port") };
    assert!(matches!(failure.check(), Some(ListenError::NotShareable { .. })), "{failure}");
}

/// A stop sends queued bytes, closes every connection, and frees the address.
#[test]
fn a_stop_drains() {
    let _watchdog = Watchdog::new();
    for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
        let served = counters(2);
        let group = group(2).port_sharing(sharing).listen(ANY_PORT, counting(&served)).start().unwrap();
        let to = inet(&group, 0);
        let streams: Vec<_> = (0..8).map(|_| greeted(to).0).collect();
        let big = vec![7; 1 << 20];
        let read_echoes = |stream: TcpStream| {
            let (mut writing, big) = (stream.try_clone().unwrap(), big.clone());
            thread::spawn(move || {
                writing.write_all(&big).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            thread::spawn(move || read_rest(stream).len())
        };
        let readers: Vec<_> = streams.into_iter().map(read_echoes).collect();
        let echoed: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(echoed, 8 << 20);
        let (idle, _) = greeted(to);
        let remote = group.remote().clone();
        remote.stop();
        remote.stop();
        assert_eq!(read_rest(idle), b"");
        let report = group.join().unwrap();
        assert!(report.is_success() && report.signal.is_none(), "{report:?}");
        assert!(TcpStream::connect(to).is_err());
        TcpListener::bind(to).expect("the address is free");
    }
}

/// At the deadline, connections whose peers do not read are lost, and the group has ended in time.
#[test]
fn the_deadline_ends_what_does_not_drain() {
    let _watchdog = Watchdog::new();
    let (lost, reasons) = mpsc::channel();
    let flooding = move |_: &Member| {
        let lost = lost.clone();
        Ok(for_protocol(move |_| Flood { lost: lost.clone() }))
    };
    let timeout = Some(Duration::from_millis(50));
    let group = group(2).stop_timeout(timeout).listen(ANY_PORT, flooding).start().unwrap();
    let _peers = [greeted(inet(&group, 0)), greeted(inet(&group, 0))];
    group.stop();
    let report = group.join().unwrap();
    assert!(report.is_success(), "{report:?}");
    let reasons: Vec<String> = reasons.iter().collect();
    assert_eq!(reasons, ["the reactor stopped"; 2]);
}

/// Sends more than any socket takes, and reports the reason of its end.
struct Flood {
    lost: Sender<String>,
}

impl Protocol for Flood {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(&vec![0; 64 << 20]);
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.lost.send(reason.to_string()).unwrap();
    }
}

/// The program's own drain takes the place of closing every connection. One that fails does not
/// keep the connections.
#[test]
fn a_program_drains_in_its_own_way() {
    let _watchdog = Watchdog::new();
    thread_local!(static OPEN: std::cell::RefCell<Vec<Transport>> = std::cell::RefCell::default());
    struct Kept;
    impl Protocol for Kept {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            OPEN.with_borrow_mut(|open| open.push(transport.clone()));
            transport.write(b"!");
            Ok(())
        }
        fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    let farewell = |member: &Member| {
        if member.index() == 1 {
            return Deferred::fail("no farewell of member 1");
        }
        OPEN.with_borrow(|open| {
            for transport in open {
                transport.write(b"farewell");
                transport.lose_connection();
            }
        });
        Deferred::succeed(())
    };
    let kept = |_: &Member| Ok(for_protocol(|_| Kept));
    let group = group(2).drain(farewell).listen(ANY_PORT, kept).start().unwrap();
    let (first, second) = (greeted(inet(&group, 0)).0, greeted(inet(&group, 0)).0);
    group.stop();
    assert_eq!((read_rest(first), read_rest(second)), (b"farewell".to_vec(), Vec::new()));
    assert!(group.join().unwrap().is_success());
}

/// Has the loop of this thread panic when its next connection is lost: the log of that panic
/// panics, which no guard catches.
fn panic_at_the_next_end() {
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("of the log");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    std::mem::forget(tracing::subscriber::set_default(Panics));
}

/// Greets with the index of its member. On member 0 it panics at its end.
struct Fragile {
    member: u8,
}

impl Protocol for Fragile {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(&[self.member]);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        assert_ne!(self.member, 0, "of connection_lost");
    }
}

/// A group of two, whose first member panics out of its loop when its connection is lost; and the
/// ends as they are told.
fn fragile(effect: OnMemberFailure) -> (ReactorGroup, Receiver<(usize, MemberEnd)>) {
    let (told, ends) = mpsc::channel();
    let group = group(2)
        .on_member_failure(effect)
        .setup(|member| {
            if member.index() == 0 {
                panic_at_the_next_end();
            }
            Ok(())
        })
        .member_ended(move |member, end| told.send((member, end.clone())).unwrap())
        .listen(ANY_PORT, |member| {
            let member = u8::try_from(member.index())?;
            Ok(for_protocol(move |_| Fragile { member }))
        })
        .start()
        .unwrap();
    (group, ends)
}

fn is_panic(end: &MemberEnd) -> bool {
    matches!(end, MemberEnd::Failed(failure) if failure.check::<Panicked>().is_some())
}

/// A panic of one reactor is told, and stops the group.
#[test]
fn a_panic_of_one_stops_the_group() {
    let _watchdog = Watchdog::new();
    let (group, ends) = fragile(OnMemberFailure::StopGroup);
    let open = [greeted(inet(&group, 0)), greeted(inet(&group, 0))];
    let [(first, 0), (second, 1)] = open else { panic!("one for each") };
    drop(first);
    let (member, end) = ends.recv_timeout(LIMIT).unwrap();
    assert!(member == 0 && is_panic(&end), "{member} {end:?}");
    assert_eq!(read_rest(second), b"", "the other drains");
    let report = group.join().unwrap();
    assert!(is_panic(&report.members[0]) && matches!(report.members[1], MemberEnd::Stopped), "{report:?}");
    assert!(!report.is_success());
    assert_eq!(format!("{:?}", report.exit_code()), format!("{:?}", std::process::ExitCode::FAILURE));
    assert!(matches!(ends.recv_timeout(LIMIT), Ok((1, MemberEnd::Stopped))));
}

/// If the others are kept, they go on serving the port, and get all new connections.
#[test]
fn a_panic_of_one_leaves_the_others() {
    let _watchdog = Watchdog::new();
    let (group, ends) = fragile(OnMemberFailure::KeepOthers);
    let [(first, 0), (mut second, 1)] = [greeted(inet(&group, 0)), greeted(inet(&group, 0))] else {
        panic!("one each")
    };
    drop(first);
    let (member, end) = ends.recv_timeout(LIMIT).unwrap();
    assert!(member == 0 && is_panic(&end), "{member} {end:?}");
    echo(&mut second, b"still here");
    for _ in 0..4 {
        let (mut stream, member) = greeted(inet(&group, 0));
        assert_eq!(member, 1);
        echo(&mut stream, b"hello");
    }
    group.stop();
    assert!(!group.join().unwrap().is_success());
}

/// A member that stops itself ends alone, and the group ends with the last one.
#[test]
fn a_group_ends_with_its_last_member() {
    let _watchdog = Watchdog::new();
    let served = counters(2);
    let (told, ends) = mpsc::channel();
    let group = group(2)
        .member_ended(move |member, _| told.send(member).unwrap())
        .listen(ANY_PORT, counting(&served))
        .start()
        .unwrap();
    let stop = |member: usize| {
        group.remote().members()[member].call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
        assert_eq!(ends.recv_timeout(LIMIT), Ok(member));
    };
    stop(0);
    let served_by: Vec<u8> = (0..3).map(|_| greeted(inet(&group, 0)).1).collect();
    assert_eq!(served_by, [1; 3]);
    stop(1);
    assert!(group.join().unwrap().is_success());
}

/// A member whose thread is kept by a call of the program is left behind, and named.
#[test]
fn a_stuck_member_is_left_behind() {
    let _watchdog = Watchdog::new();
    let (go_on, wait) = mpsc::channel::<()>();
    let (wait, stuck) = (Arc::new(Mutex::new(wait)), mpsc::channel());
    let group = group(2).stop_timeout(Some(Duration::ZERO)).start().unwrap();
    let members = group.remote().members();
    let told = stuck.0;
    members[1]
        .call_from_thread(move |_| {
            told.send(()).unwrap();
            // It ends with the test.
            let _ = wait.lock().unwrap().recv();
        })
        .unwrap();
    stuck.1.recv_timeout(LIMIT).unwrap();
    group.stop();
    let report = group.join().unwrap();
    assert!(matches!(&report.members[..], [MemberEnd::Stopped, MemberEnd::StillRunning]), "{report:?}");
    drop(go_on);
}

/// Threads and descriptors go with the group, by `join` and by dropping it.
#[test]
fn a_group_leaves_nothing_behind() {
    own_process!();
    let _watchdog = Watchdog::new();
    let served = counters(3);
    let before = (count_threads(), descriptors());
    for backend in backends() {
        for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
            let builder = group(3).backend(backend).port_sharing(sharing).listen(ANY_PORT, counting(&served));
            let running = builder.start().unwrap();
            wait_for_threads(before.0 + 4);
            drop(greeted(inet(&running, 0)));
            drop(running);
            wait_for_threads(before.0);
            assert_eq!(descriptors(), before.1);
        }
    }
}

/// The group runs on the calling thread, and `started` learns its address.
#[test]
fn a_group_runs_on_the_calling_thread() {
    let _watchdog = Watchdog::new();
    let served = counters(1);
    let here = thread::current().id();
    let (told, peer) = mpsc::channel::<Address>();
    let peer = thread::spawn(move || greeted(peer.recv().unwrap().socket_addr().unwrap()).1);
    let report = group(1)
        .listen(ANY_PORT, counting(&served))
        .started(move |group| {
            assert_eq!(thread::current().id(), here);
            told.send(group.addresses()[0].clone()).unwrap();
            let group = group.clone();
            thread::spawn(move || {
                assert_eq!(peer.join().unwrap(), 0);
                group.stop();
            });
        })
        .run()
        .unwrap();
    assert!(report.is_success());
}
