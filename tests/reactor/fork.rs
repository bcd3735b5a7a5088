//! F45: a process that forks without executing another program. A child that was forked before the
//! first turn can go on with the reactor; in any other every call says so, and nothing that the
//! child does gets at its parent's sockets, files and locks.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::hosted::{Guest, host};
use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::error::{ConnectError, ListenError, ReactorError, ReactorGone};
use ropewalk::interfaces::*;
use ropewalk::locks::FilesystemLock;
use ropewalk::process::ProcessStatus;
use ropewalk::reactor::{AdoptOptions, UnixListenOptions};
use ropewalk::{BackendKind, Deferred, ListenOptions, Phase, Port, ProcessTransport, Reactor, SystemEvent, Transport};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

#[allow(unsafe_code, reason = "no other thread forks")]
mod system {
    unsafe extern "C" {
        fn fork() -> i32;
        fn _exit(code: i32) -> !;
    }

    /// The child's number; zero in the child.
    pub(super) fn forked() -> i32 {
        // SAFETY: the child goes on on this thread alone, and leaves with `leave`.
        unsafe { fork() }
    }

    /// Ends the child without anything that its parent had to be done at its end.
    pub(super) fn leave(code: i32) -> ! {
        // SAFETY: it only ends this process.
        unsafe { _exit(code) }
    }
}

/// A forked child, and what it did: ends with what `act` says, a line if something was wrong.
pub(super) struct Child(Pid);

impl Child {
    pub(super) fn new(act: impl FnOnce()) -> Self {
        match system::forked() {
            0 => {
                let code = i32::from(catch_unwind(AssertUnwindSafe(act)).is_err());
                system::leave(code)
            }
            child => Self(Pid::from_raw(child).expect("it was forked")),
        }
    }

    /// Waits for its end, while the loop of this process turns if there is one.
    #[track_caller]
    pub(super) fn ends_well(self, mut meanwhile: impl FnMut()) {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some((_, status)) = waitpid(Some(self.0), WaitOptions::NOHANG).unwrap() {
                assert_eq!(status.exit_status(), Some(0), "the child panicked");
                return;
            }
            if Instant::now() > until {
                kill_process(self.0, Signal::KILL).unwrap();
                panic!("the child hangs");
            }
            meanwhile();
            thread::yield_now();
        }
    }
}

/// A path that no other test has.
pub(super) fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ropewalk-fork-{}-{name}", getpid().as_raw_nonzero()))
}

/// The lock beside the file of a UNIX socket.
pub(super) fn lock_of(file: &Path) -> PathBuf {
    file.with_file_name(format!("{}.lock", file.file_name().unwrap().display()))
}

/// A reactor of the parent's with a TCP port, a UNIX port with a lock, and a connection, which has
/// turned.
struct Parent {
    reactor: Rc<RefCell<Option<Reactor>>>,
    address: SocketAddr,
    file: PathBuf,
    ports: [Port; 2],
    client: TcpStream,
    transport: Transport,
}

impl Parent {
    fn new(name: &str) -> Self {
        let (reactor, log, kept) = (reactor(), Log::default(), Rc::<RefCell<Option<Transport>>>::default());
        let own = Rc::clone(&kept);
        let (tcp, address) = listen(&reactor, move |_| {
            let place = Rc::clone(&own);
            Some(Script::new(&log).transport_into(&place).data(|transport, data| {
                transport.write(data);
                Ok(())
            }))
        });
        let file = path(name);
        let (at, options) = (UnixAddress::path(&file).unwrap(), UnixListenOptions::new().want_pid(true));
        let unix = reactor.listen_unix(&at, &options, |_| Some(Echo)).unwrap();
        let client = dial(address);
        run_until(&reactor, || kept.borrow().is_some());
        let transport = kept.borrow_mut().take().unwrap();
        let reactor = Rc::new(RefCell::new(Some(reactor)));
        Self { reactor, address, file, ports: [tcp, unix], client, transport }
    }

    fn reactor(&self) -> Reactor {
        self.reactor.borrow().clone().unwrap()
    }

    /// Asserts that all of it works as if no process had been forked.
    fn is_well(&mut self) {
        let reactor = self.reactor();
        self.client.write_all(b"still there?").unwrap();
        assert_eq!(read_exact(&reactor, &mut self.client, 12), b"still there?");
        let mut other = dial(self.address);
        other.write_all(b"new").unwrap();
        assert_eq!(read_exact(&reactor, &mut other, 3), b"new");
        let file = self.file.clone();
        assert!(file.exists(), "the file of the UNIX socket is gone");
        assert!(FilesystemLock::is_held(lock_of(&file)).unwrap());
        let local = thread::spawn(move || {
            let mut local = UnixStream::connect(file).unwrap();
            local.write_all(b"local").unwrap();
            let mut answer = [0; 5];
            local.read_exact(&mut answer).unwrap();
            answer
        });
        assert_eq!(&run_beside(&reactor, local), b"local");
        drop(reactor);
    }
}

/// Tells when it is dropped.
struct Tells(Rc<Cell<bool>>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// A child that drops its parent's reactor, or closes it, closes its descriptors and does nothing
/// else: no file is removed, no lock is released, nothing is sent, no callback is called, and the
/// parent goes on accepting.
#[test]
fn a_child_that_lets_the_reactor_go_harms_nobody() {
    own_process!();
    for closes in [false, true] {
        let mut parent = Parent::new(if closes { "closes" } else { "drops" });
        let reactor = Rc::clone(&parent.reactor);
        let (dropped, tells) = (Rc::new(Cell::new(false)), reactor.borrow().as_ref().unwrap().clone());
        let guard = Tells(Rc::clone(&dropped));
        tells.call_later(Duration::from_secs(3600), move || unreachable!("an hour has passed: {:p}", &guard));
        let remote = tells.remote();
        drop(tells);
        let before = descriptors();
        let child = Child::new(|| {
            parent.transport.write(b"of the child");
            let reactor = parent.reactor.borrow_mut().take().unwrap();
            if closes {
                reactor.close().unwrap();
                reactor.close().unwrap();
                assert!(reactor.is_closed());
            }
            drop(reactor);
            assert!(!dropped.get(), "what the program gave to the reactor is its parent's");
            assert!(remote.call_from_thread(|_| ()).is_err());
            assert!(descriptors() < before - 4, "its descriptors are closed: {} of {before}", descriptors());
        });
        let handle = parent.reactor();
        child.ends_well(|| handle.iterate(Duration::ZERO).unwrap());
        drop(handle);
        parent.is_well();
        let file = parent.file.clone();
        drop((parent, reactor));
        assert!(!file.exists(), "its own process removes it");
    }
}

/// The failure of a call in a forked child.
fn failure<T>(mut deferred: Deferred<T>) -> ropewalk::Failure {
    deferred.take_result().expect("it has failed").err().expect("it has failed")
}

/// Watches of foreign descriptors go with a reactor that a child takes over. Any other child can
/// end its copy of a watch, and the parent's goes on.
#[test]
fn watches_belong_to_the_process_of_their_reactor() {
    use ropewalk::error::WatchError;
    use ropewalk::reactor::{Interest, WatchCallbacks};
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let log = Log::default();
        let heard = log.clone();
        let callbacks = WatchCallbacks::new().on_read(move |_| {
            heard.add("read");
            Ok(())
        });
        let watch = reactor.watch(ours, Interest::READ, callbacks).expect("it can be watched");
        theirs.write_all(b"x").expect("it is open");
        let early = Child::new(|| run_until(&reactor, || log.count("read") > 2));
        early.ends_well(|| ());
        run_until(&reactor, || log.count("read") > 2);
        // The parent keeps its copy, whatever the child does with the child's.
        let watch = Cell::new(Some(watch));
        let late = Child::new(|| {
            let watch = watch.take().expect("it is there");
            assert!(matches!(watch.set_interest(Interest::NONE), Err(WatchError::ForkedChild)));
            watch.stop();
            drop(watch);
        });
        let before = log.count("read");
        late.ends_well(|| settle(&reactor));
        run_until(&reactor, || log.count("read") > before + 2);
    }
}

/// Every call in a forked child says so, and none gets at the parent.
#[test]
fn every_call_in_a_forked_child_says_so() {
    own_process!();
    let mut parent = Parent::new("calls");
    let pool = parent.reactor().thread_pool("parent", 1);
    let of_the_child = pool.clone();
    let event = SystemEvent::custom("of the parent");
    parent.reactor().add_system_event_trigger(Phase::Before, event, || -> ropewalk::Result<()> { unreachable!() });
    let child = Child::new(|| {
        let pool = of_the_child;
        let reactor = parent.reactor();
        let factory = |_| Some(Echo);
        for result in [reactor.run(), reactor.iterate(Duration::ZERO), reactor.stop(), reactor.crash()] {
            assert!(matches!(result, Err(ReactorError::ForkedChild)), "{result:?}");
        }
        let listening = reactor.listen_tcp(loopback(), &ListenOptions::new(), factory);
        assert!(matches!(listening, Err(ListenError::ForkedChild)));
        let failed = failure(connect(&reactor, parent.address, factory));
        assert!(matches!(failed.check(), Some(ConnectError::ForkedChild { .. })), "{failed}");
        for port in &parent.ports {
            let failed = failure(port.stop_listening());
            assert!(matches!(failed.check(), Some(ListenError::ForkedChild)), "{failed}");
        }
        assert!(failure(reactor.defer_to_thread(|| Ok(()))).check::<ReactorGone>().is_some());
        let jobs = [pool.defer_to_thread(|| Ok(())), pool.stop()];
        assert!(jobs.into_iter().all(|job| failure(job).check::<ReactorGone>().is_some()));
        pool.suggest_size(3);
        assert_eq!(pool.statistics(), Default::default());
        drop(pool);
        let fired = failure(reactor.fire_system_event("of the parent"));
        assert!(matches!(fired.check(), Some(ReactorError::ForkedChild)), "{fired}");
        assert_eq!(reactor.remote().call_from_thread(|_| unreachable!("the parent's")), Err(ReactorGone));
        parent.transport.write(&[b'x'; 100_000]);
        assert!(parent.transport.set_tcp_no_delay(true).is_err());
        parent.transport.abort_connection();
    });
    child.ends_well(|| ());
    let handle = parent.reactor();
    assert_eq!(result_of(&handle, pool.defer_to_thread(|| Ok(7))).unwrap(), 7);
    drop(handle);
    parent.is_well();
}

/// A forked child neither waits for its parent's processes nor signals them, and starts none.
#[test]
fn processes_belong_to_the_process_of_their_reactor() {
    use ropewalk::error::{ProcessError, SpawnError};
    use ropewalk::process::{Command, ProcessStatus, Signal};
    struct Ended(Log);
    impl ProcessProtocol for Ended {
        fn process_ended(&mut self, _: &ropewalk::ProcessTransport, status: &ProcessStatus) -> ropewalk::Result<()> {
            self.0.add(status.to_string());
            Ok(())
        }
    }
    own_process!();
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        let log = Log::default();
        let cat = Command::new("cat");
        let process = reactor.spawn_process(&cat, Ended(log.clone())).expect("it starts");
        settle(&reactor);
        let kept = Cell::new(Some(reactor));
        let child = Child::new(|| {
            let reactor = kept.take().expect("it is there");
            assert!(matches!(process.kill(), Err(ProcessError::ForkedChild)));
            let refused = reactor.spawn_process(&cat, Ended(log.clone()));
            assert!(matches!(refused, Err(SpawnError::ForkedChild)));
            process.lose_connection();
            drop(reactor);
            assert!(log.all().is_empty());
        });
        child.ends_well(|| ());
        let reactor = kept.take().expect("it is there");
        settle(&reactor);
        assert!(log.all().is_empty() && process.is_running());
        process.signal(Signal::TERM).expect("it runs");
        run_until(&reactor, || log.all() == ["killed by SIGTERM"]);
    }
}

/// A child that was forked between two steps of a host has no run: its steps say so, and neither
/// they nor the drop of the run get at the parent's poller.
#[test]
fn a_child_of_a_host_has_no_run() {
    own_process!();
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        let log = Log::default();
        let scripts = log.clone();
        let (_port, address) = listen(&reactor, move |_| Some(Script::new(&scripts)));
        let mut client = dial(address);
        let mut guests = vec![Guest::begin(&reactor).unwrap()];
        host(&mut guests, &mut || log.has("made")).unwrap();
        let reactor = RefCell::new(Some(reactor));
        let guests = RefCell::new(guests);
        let child = Child::new(|| {
            let guest = guests.borrow_mut().pop().unwrap();
            assert_eq!(guest.run.prepare_to_wait(None), Some(Duration::ZERO));
            assert!(matches!(guest.run.step(Some(Duration::ZERO)), Err(ReactorError::ForkedChild)));
            assert!(matches!(guest.run.poller(), Err(ReactorError::ForkedChild)));
            assert!(matches!(reactor.borrow().as_ref().unwrap().begin_run(), Err(ReactorError::ForkedChild)));
            drop(guest);
            drop(reactor.take());
            assert!(!log.has("lost"), "it belongs to the parent");
        });
        child.ends_well(|| ());
        let mut guests = guests.into_inner();
        client.write_all(b"still there?").unwrap();
        host(&mut guests, &mut || log.has("data")).unwrap();
        assert!(!log.is_over());
    }
}

/// A child that was forked by a callback leaves the loop at once, and takes nothing of what its
/// parent is to have.
#[test]
fn a_callback_that_forks() {
    own_process!();
    for place in ["a timer", "data_received", "connection_lost"] {
        let (reactor, log, pid) = (reactor(), Log::default(), getpid());
        let child = Rc::new(RefCell::new(None));
        let fork = {
            let (child, place_of_child) = (Rc::clone(&child), place);
            move |here: &str| {
                if here != place_of_child || child.borrow().is_some() || getpid() != pid {
                    return;
                }
                let forked = system::forked();
                if forked != 0 {
                    *child.borrow_mut() = Some(Child(Pid::from_raw(forked).unwrap()));
                }
            }
        };
        let (data, lost, timer) = (fork.clone(), fork.clone(), fork);
        let own = log.clone();
        let (_port, address) = listen(&reactor, move |_| {
            let (data, lost) = (data.clone(), lost.clone());
            let script = Script::new(&own).data(move |transport, bytes| {
                transport.write(bytes);
                data("data_received");
                Ok(())
            });
            Some(script.lost(move |_| lost("connection_lost")))
        });
        let mut clients = [dial(address), dial(address)];
        run_until(&reactor, || log.count("made") == 2);
        clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
        reactor.call_later(Duration::ZERO, move || timer("a timer"));
        let mut heard = [Vec::new(), Vec::new()];
        let until = Instant::now() + LIMIT;
        let mut ending = false;
        loop {
            let turned = reactor.iterate(Duration::from_millis(5));
            if getpid() != pid {
                // The turn in which it was forked may have been its last thing.
                let told = turned.err().or_else(|| reactor.iterate(Duration::ZERO).err());
                system::leave(i32::from(!matches!(told, Some(ReactorError::ForkedChild))));
            }
            turned.unwrap();
            for (client, heard) in clients.iter_mut().zip(&mut heard) {
                let _ = read_now(client, heard);
            }
            if !ending && heard.iter().all(|heard| heard == b"hello") {
                ending = true;
                clients.iter().for_each(|client| client.shutdown(std::net::Shutdown::Write).unwrap());
            }
            if log.count("lost") == 2 {
                break;
            }
            assert!(Instant::now() < until, "{place}: {heard:?} {:?}", log.all());
        }
        assert_eq!(log.count("lost: the connection was closed cleanly"), 2, "{place}");
        child.borrow_mut().take().expect(place).ends_well(|| ());
    }
}

/// A daemon starts a program and adopts a connection, forks, and goes on with both in the child.
/// The program is a child of the parent, so its status is unknown.
#[test]
fn a_daemon_keeps_its_processes_and_connections() {
    struct Cat(Log);
    impl ProcessProtocol for Cat {
        fn child_data_received(&mut self, process: &ProcessTransport, _: i32, data: &[u8]) -> ropewalk::Result<()> {
            self.0.add(String::from_utf8_lossy(data));
            Ok(process.kill()?)
        }

        fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> ropewalk::Result<()> {
            self.0.add(status.to_string());
            Ok(())
        }
    }
    own_process!();
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        let log = Log::default();
        let process = reactor.spawn_process(&ropewalk::process::Command::new("cat"), Cat(log.clone()));
        let process = process.expect("it starts");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let tcp_peer = TcpStream::connect(at).unwrap();
        let (tcp, from) = listener.accept().unwrap();
        reactor.adopt_stream(tcp, at, from, &AdoptOptions::new(), Echo).expect("a connection");
        let (unix, unix_peer) = UnixStream::pair().unwrap();
        let unnamed = UnixAddress::unnamed;
        reactor.adopt_stream(unix, unnamed(), unnamed(), &AdoptOptions::new(), Echo).expect("a connection");
        let peers = [OwnedFd::from(tcp_peer), unix_peer.into()].map(File::from);
        let child = Child::new(|| {
            process.write(b"hello").expect("it runs");
            run_until(&reactor, || log.has("ended"));
            assert_eq!(log.all(), ["hello", "ended, with an unknown status"]);
            for mut peer in peers {
                let reading = thread::spawn(move || {
                    let mut answer = [0; 4];
                    peer.write_all(b"echo").and_then(|()| peer.read_exact(&mut answer)).unwrap();
                    answer
                });
                assert_eq!(&run_beside(&reactor, reading), b"echo");
            }
        });
        child.ends_well(|| ());
    }
}

/// A daemon makes its reactor, its ports and its attempts, forks, and runs in the child; the parent
/// may be there still, and may go on as well.
#[test]
fn a_daemon_forks_before_the_first_turn() {
    own_process!();
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, echoes(&log));
    let file = path("daemon");
    let at = UnixAddress::path(&file).unwrap();
    let options = UnixListenOptions::new().want_pid(true);
    let _unix = reactor.listen_unix(&at, &options, |_| Some(Echo)).unwrap();
    let attempt = connect(&reactor, address, |_| Some(Echo));
    // Without a thread: one that runs could have a lock in the moment of the fork.
    reactor.suggest_thread_pool_size(0);
    let early = reactor.defer_to_thread(|| Ok(0));
    let mut lock = FilesystemLock::new(path("daemon-lock"));
    let held = Rc::new(RefCell::new(Some((reactor, attempt, early))));
    let child = Child::new(|| {
        let (reactor, attempt, mut early) = held.take().unwrap();
        let called = Arc::new(AtomicBool::new(false));
        let calls = Arc::clone(&called);
        reactor.remote().call_from_thread(move |_| calls.store(true, Ordering::Relaxed)).unwrap();
        let connection = result_of(&reactor, attempt).expect("the attempt goes on");
        let failure = early.take_result().expect("it has failed").expect_err("it is the parent's");
        assert!(failure.check::<ReactorGone>().is_some(), "{failure}");
        let (more, _) = listen(&reactor, |_| Some(Echo));
        assert!(more.is_listening());
        let handle = reactor.clone();
        reactor.call_when_running(move || connection.transport().lose_connection());
        let own = log.clone();
        let looping = ropewalk::task::LoopingCall::new(&reactor, move || {
            if own.count("lost") >= 2 {
                let _ = handle.stop();
            }
        });
        drop(looping.start(Duration::from_millis(1)));
        run(&reactor).unwrap();
        assert!(called.load(Ordering::Relaxed));
        looping.stop().unwrap();
        reactor.suggest_thread_pool_size(1);
        for _ in 0..20 {
            let job = reactor.defer_to_thread(|| {
                // By now it sleeps, probably.
                (0..200).for_each(|_| thread::yield_now());
                Ok(())
            });
            // Nothing but the thread wakes the child.
            let handle = reactor.clone();
            drop(job.add_callback(move |()| Ok(handle.stop()?)));
            run(&reactor).unwrap();
        }
        reactor.close().unwrap();
        let left = [file.clone(), lock_of(&file)].map(|file| file.exists());
        assert_eq!(left, [false; 2], "they are the child's now");
        // One that was made by the parent, and taken by the child.
        assert!(lock.lock().unwrap());
        lock.unlock().unwrap();
    });
    let client = thread::spawn(move || {
        let mut client = dial(address);
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        answer
    });
    child.ends_well(|| ());
    assert_eq!(&client.join().unwrap(), b"hello");
    let (reactor, attempt, _early) = held.take().unwrap();
    drop(attempt.add_both(|_| ()));
    let mut own = dial(address);
    own.write_all(b"parent").unwrap();
    assert_eq!(read_exact(&reactor, &mut own, 6), b"parent", "the parent has a poller of its own");
}
