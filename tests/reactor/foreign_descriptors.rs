//! Foreign descriptors on every backend of this system, as far as the kernel is the subject. The
//! conformance suite has the rest (`src/testing/conformance/watching.rs`).

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::WatchError;
use ropewalk::interfaces::*;
use ropewalk::reactor::{Descriptor, Interest, Watch, WatchCallbacks, WatchHandle, Watcher};
use ropewalk::{BackendKind, Failure, Reactor};

/// Runs a test on each backend that the system has.
fn on_each(test: impl Fn(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// A pair of nonblocking sockets.
fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    [&ours, &theirs].iter().for_each(|socket| socket.set_nonblocking(true).expect("O_NONBLOCK"));
    (ours, theirs)
}

/// A watch with a log of its callbacks: `read`, `write`, `urgent`, `lost: ..`.
#[track_caller]
fn logged_watch(reactor: &Reactor, descriptor: impl Into<Descriptor>, interest: Interest) -> (Watch, Log) {
    let log = Log::default();
    let noting = |what: &'static str| {
        let log = log.clone();
        move |_: &WatchHandle| {
            log.add(what);
            Ok(())
        }
    };
    let lost = log.clone();
    let callbacks = WatchCallbacks::new()
        .on_read(noting("read"))
        .on_write(noting("write"))
        .on_urgent(noting("urgent"))
        .on_lost(move |reason| lost.add(format!("lost: {reason}")));
    (reactor.watch(descriptor, interest, callbacks).expect("it can be watched"), log)
}

/// An echo over a connection of the reactor's own, which shows that nothing harmed it.
fn echoes_still(reactor: &Reactor, client: &mut Client) {
    echo_round(reactor, std::slice::from_mut(client), b"still there");
}

/// F35. Files that are always ready are refused, on io_uring too, and so is a number that is not
/// open.
#[test]
fn files_and_closed_numbers_are_refused() {
    on_each(|reactor| {
        for path in ["Cargo.toml", "src", "/dev/null"] {
            let file = File::open(path).expect("it is there");
            let refused = reactor.watch(file, Interest::READ, WatchCallbacks::new());
            assert!(matches!(refused, Err(WatchError::NotPollable { .. })), "{path}: {refused:?}");
        }
        let refused = reactor.watch(Descriptor::raw(-1), Interest::NONE, WatchCallbacks::new());
        assert!(matches!(refused, Err(WatchError::Closed { descriptor: -1 })), "{refused:?}");
        let refused = reactor.watch(Descriptor::raw(1 << 30), Interest::READ, WatchCallbacks::new());
        assert!(matches!(refused, Err(WatchError::Closed { .. })), "{refused:?}");
        assert_eq!((reactor.counters().watched, reactor.watched_descriptors().len()), (0, 0));
    });
}

/// F16. A descriptor that is closed behind its watch, and whose number becomes one of the reactor's
/// own connections, harms nothing of that connection: neither when the watch is changed nor when it
/// ends.
#[test]
fn a_closed_number_that_becomes_a_connection_is_left_alone() {
    on_each(|reactor| {
        let (_port, address) = listen(&reactor, |_| Some(Echo));
        let taken = File::open("/dev/null").expect("/dev/null");
        for drops in [false, true] {
            let (ours, _theirs) = pair();
            let (first, client) = (ours.into_raw_fd(), TcpListener::bind(loopback()).expect("a port"));
            let (watch, log) = logged_watch(&reactor, Descriptor::raw(first), Interest::READ);
            settle(&reactor);
            close_behind(first);
            // Every number below is taken by now, so the next socket may get that one; a few more
            // make sure.
            let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&reactor, address)).collect();
            if drops {
                drop(watch);
            } else {
                let lost = watch.set_interest(Interest::READ | Interest::WRITE);
                assert!(matches!(lost, Err(WatchError::Closed { .. } | WatchError::Replaced { .. })), "{lost:?}");
                assert!(!watch.is_active() && log.all().is_empty(), "it is told at the end of a turn");
                settle(&reactor);
                assert_eq!((log.count("lost"), log.all().len()), (1, 1), "{:?}", log.all());
            }
            clients.iter_mut().for_each(|client| echoes_still(&reactor, client));
            drop(client);
        }
        drop(taken);
        assert!(reactor.watched_descriptors().is_empty());
    });
}

/// Closes a descriptor by its number, as a C library does.
#[allow(unsafe_code, reason = "this is the mistake that the test is about")]
fn close_behind(number: i32) {
    use std::os::fd::FromRawFd;
    // SAFETY: this test has made the descriptor, has given up its owner, and closes it once.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// F16. If a copy keeps the file open, its events reach no callback once the descriptor was closed:
/// the watch is lost, and the log tells the place of the watch.
#[test]
fn a_copy_of_a_closed_descriptor_calls_nothing() {
    on_each(|reactor| {
        let (ours, mut theirs) = pair();
        let (copy, number) = (ours.try_clone().expect("a descriptor"), ours.into_raw_fd());
        let (watch, log) = logged_watch(&reactor, Descriptor::raw(number), Interest::READ);
        settle(&reactor);
        close_behind(number);
        let ((), lines) = logged(|| {
            theirs.write_all(b"for the copy").expect("it is open");
            settle(&reactor);
        });
        assert_eq!((log.count("lost"), log.all().len(), watch.is_active()), (1, 1, false), "{:?}", log.all());
        assert!(lines.len() == 1 && lines[0].contains("tests/reactor/foreign_descriptors.rs"), "{lines:?}");
        drop(copy);
    });
}

/// A watch that is paused, or whose descriptor is not ready, makes no turns: the loop sleeps until
/// a timer.
#[test]
fn an_idle_watch_lets_the_loop_sleep() {
    on_each(|reactor| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"unread").expect("it is open");
        let (watch, log) = logged_watch(&reactor, ours, Interest::READ);
        run_until(&reactor, || log.count("read") > 2);
        watch.pause_reading().expect("it is open");
        settle(&reactor);
        for hangs_up in [false, true] {
            if hangs_up {
                theirs.shutdown(std::net::Shutdown::Both).expect("it is open");
                settle(&reactor);
            }
            let (calls, turns) = (log.all().len(), reactor.counters().turns);
            let fired = Rc::new(Cell::new(false));
            let fires = Rc::clone(&fired);
            reactor.call_later(Duration::from_millis(30), move || fires.set(true));
            while !fired.get() {
                reactor.iterate(Duration::from_millis(50)).expect("the loop turns");
            }
            assert!(reactor.counters().turns - turns <= 3, "{} turns", reactor.counters().turns - turns);
            assert_eq!(log.all().len(), calls);
        }
        watch.resume_reading().expect("it is open");
        run_until(&reactor, || watch.is_hung_up());
    });
}

/// A watched socket in blocking mode is called when there is something to read, and never else: a
/// read would block the loop.
#[test]
fn a_blocking_descriptor_is_never_called_in_vain() {
    on_each(|reactor| {
        let listener = TcpListener::bind(loopback()).expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
        let socket = Rc::new(listener.accept().expect("a connection").0);
        let (read, log) = (Rc::clone(&socket), Log::default());
        let (heard, urgent) = (log.clone(), log.clone());
        let callbacks = WatchCallbacks::new()
            .on_read(move |_| {
                let mut buffer = [0; 100];
                let count = (&*read).read(&mut buffer)?;
                heard.add(String::from_utf8_lossy(&buffer[..count]));
                Ok(())
            })
            .on_urgent(move |watch| {
                urgent.add("urgent");
                watch.set_interest(Interest::READ)?;
                Ok(())
            });
        let _watch = reactor.watch(socket, Interest::READ | Interest::URGENT, callbacks).expect("it can be watched");
        rustix::net::send(&peer, b"!", rustix::net::SendFlags::OOB).expect("it is open");
        run_until(&reactor, || log.has("urgent"));
        settle(&reactor);
        peer.write_all(b"more").expect("it is open");
        run_until(&reactor, || log.has("more"));
        assert_eq!(log.all(), ["urgent", "more"]);
    });
}

/// A watch keeps a value that implements `AsFd`, and drops it; so does the watcher.
#[test]
fn a_watch_keeps_its_descriptor_and_its_watcher() {
    on_each(|reactor| {
        let (ours, mut theirs) = pair();
        let ours = Rc::new(ours);
        let value = Rc::new(());
        struct Holder(#[expect(dead_code, reason = "it is held")] Rc<()>);
        impl Watcher for Holder {}
        let holder = Holder(Rc::clone(&value));
        let watch = reactor.watch(Rc::clone(&ours), Interest::READ, holder).expect("it can be watched");
        assert_eq!((Rc::strong_count(&ours), Rc::strong_count(&value)), (2, 2));
        let handle = watch.detach();
        handle.stop();
        assert_eq!((Rc::strong_count(&ours), Rc::strong_count(&value)), (1, 1));
        let owned: OwnedFd = Rc::into_inner(ours).expect("no other").into();
        drop(reactor.watch(owned, Interest::READ, WatchCallbacks::new()).expect("it can be watched"));
        assert_eq!(theirs.read(&mut [0; 1]).expect("it was closed"), 0);
    });
}

/// A watch without the callback for its interest ends at the event, and is told once.
#[test]
fn an_interest_without_a_callback_is_an_error() {
    on_each(|reactor| {
        let (ours, _theirs) = pair();
        let reason = Rc::new(RefCell::new(None::<Failure>));
        let told = Rc::clone(&reason);
        let callbacks = WatchCallbacks::new().on_lost(move |reason| drop(told.replace(Some(reason.clone()))));
        let watch = reactor.watch(ours, Interest::WRITE, callbacks).expect("it can be watched");
        let ((), lines) = logged(|| settle(&reactor));
        assert!(lines.len() == 1 && lines[0].contains("`do_write`"), "{lines:?}");
        assert!(!watch.is_active());
        let reason = reason.take().expect("it was told");
        assert!(matches!(reason.check(), Some(WatchError::NoCallback { callback: "do_write", .. })), "{reason}");
    });
}

/// A descriptor that is lost inside of its own callback is told at the end of the turn, and the
/// callback is not entered again.
#[test]
fn a_watch_that_is_lost_in_its_own_callback_is_told_afterwards() {
    on_each(|reactor| {
        let (ours, mut theirs) = pair();
        let number = ours.into_raw_fd();
        let log = Log::default();
        let (heard, lost) = (log.clone(), log.clone());
        let callbacks = WatchCallbacks::new()
            .on_read(move |watch| {
                close_behind(watch.raw_fd());
                heard.add("closed");
                let refused = watch.pause_reading();
                heard.add("refused");
                Ok(refused?)
            })
            .on_lost(move |_| lost.add("lost"));
        let _watch = reactor.watch(Descriptor::raw(number), Interest::READ, callbacks).expect("it can be watched");
        theirs.write_all(b"x").expect("it is open");
        let ((), lines) = logged(|| settle(&reactor));
        assert_eq!(log.all(), ["closed", "refused", "lost"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

/// A closed reactor has no watches, and takes none; handles that are left do nothing.
#[test]
fn a_closed_reactor_watches_nothing() {
    on_each(|reactor| {
        let (ours, _theirs) = pair();
        let ours = Rc::new(ours);
        let (watch, log) = logged_watch(&reactor, Rc::clone(&ours), Interest::READ);
        reactor.close().expect("it is idle");
        assert_eq!(log.all(), ["lost: the reactor stopped"]);
        assert_eq!(Rc::strong_count(&ours), 1);
        assert!(matches!(watch.set_interest(Interest::READ), Err(WatchError::Ended)));
        let refused = reactor.watch(ours, Interest::READ, WatchCallbacks::new());
        assert!(matches!(refused, Err(WatchError::ReactorGone)), "{refused:?}");
    });
}

/// More ready descriptors than a turn takes are all reported, in turns.
#[test]
fn many_ready_descriptors_are_all_reported() {
    const MANY: usize = 700;
    on_each(|reactor| {
        let pairs: Vec<_> = (0..MANY).map(|_| pair()).collect();
        let watches: Vec<_> = pairs
            .iter()
            .map(|(ours, theirs)| {
                (&*theirs).write_all(b"x").expect("it is open");
                logged_watch(&reactor, ours.try_clone().expect("a descriptor"), Interest::READ)
            })
            .collect();
        run_until(&reactor, || watches.iter().all(|(_, log)| log.count("read") >= 3));
        let counts = watches.iter().map(|(_, log)| log.count("read"));
        let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        assert!(most <= least + 2, "one was called {least} times, and another {most} times");
    });
}

/// Both ends of pipes can be watched; a peer that is gone is a hang-up.
#[test]
fn both_ends_of_pipes_are_watched() {
    on_each(|reactor| {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (watch, log) = logged_watch(&reactor, reader, Interest::READ);
        settle(&reactor);
        assert!(log.all().is_empty());
        (&writer).write_all(b"x").expect("it is open");
        run_until(&reactor, || log.has("read"));
        drop(writer);
        run_until(&reactor, || watch.is_hung_up());
        let (reader, writer) = io::pipe().expect("a pipe");
        let number = writer.as_raw_fd();
        let (watch, log) = logged_watch(&reactor, writer, Interest::WRITE);
        assert_eq!(watch.raw_fd(), number);
        run_until(&reactor, || log.has("write"));
        drop(reader);
        run_until(&reactor, || watch.is_hung_up());
    });
}
