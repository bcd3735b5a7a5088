//! Requests while the loop waits between the functions of `Builder::around_wait`, as other threads
//! of an interpreter make them under its lock. The functions stand for those threads here: they run
//! while the backend is out of reach.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::*;
use ropewalk::error::{ConnectError, ListenError, LoopWaits, ReactorError, WatchError};
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, Interest, WatchCallbacks, WatchHandle};
use ropewalk::transport::DiscardMode;
use ropewalk::{Address, BackendKind, ConnectOptions, ListenOptions, Reactor, Transport};

type Act = Box<dyn FnOnce(&Reactor)>;

/// The function in which a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    After,
}

/// A reactor whose hooks make requests.
struct Hooked {
    reactor: Reactor,
    acts: Rc<RefCell<Option<(Place, Act)>>>,
    /// The handle that the hooks use. Taken out at the end, so that the reactor closes.
    known: Rc<RefCell<Option<Reactor>>>,
}

impl Hooked {
    fn new(kind: BackendKind) -> Option<Self> {
        let acts = Rc::<RefCell<Option<(Place, Act)>>>::default();
        let known = Rc::<RefCell<Option<Reactor>>>::default();
        let hook = |at: Place| {
            let (acts, known) = (Rc::clone(&acts), Rc::clone(&known));
            move || {
                let act = acts.borrow_mut().take_if(|(place, _)| *place == at);
                let reactor = known.borrow().clone();
                if let (Some((_, act)), Some(reactor)) = (act, reactor) {
                    assert!(reactor.is_waiting());
                    act(&reactor);
                }
            }
        };
        let (before, after) = (hook(Place::Before), hook(Place::After));
        let builder = Reactor::builder().signals(false).backend(kind).around_wait(before, after);
        let reactor = builder.build().expect("a poller");
        known.replace(Some(reactor.clone()));
        (reactor.backend() == kind).then_some(Self { reactor, acts, known })
    }

    /// Makes a turn whose wait has `act` in one of its hooks. A request ends the wait.
    #[track_caller]
    fn during<T: 'static>(&self, place: Place, act: impl FnOnce(&Reactor) -> T + 'static) -> T {
        // A turn with work does not wait.
        settle(&self.reactor);
        let result = Rc::<RefCell<Option<T>>>::default();
        let made = Rc::clone(&result);
        let act = move |reactor: &Reactor| drop(made.replace(Some(act(reactor))));
        self.acts.replace(Some((place, Box::new(act))));
        let begun = Instant::now();
        // Requests after the wait need not end it.
        let longest = if place == Place::Before { LIMIT } else { Duration::from_millis(1) };
        let until = begun + LIMIT / 2;
        while result.borrow().is_none() && Instant::now() < until {
            self.reactor.iterate(longest).expect("the loop turns");
        }
        assert!(begun.elapsed() < LIMIT / 2, "the loop slept on, on {:?}", self.reactor.backend());
        assert!(!self.reactor.is_waiting());
        result.take().expect("the loop waited")
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        self.known.take();
    }
}

/// Runs a test on each backend that the system has, with each hook.
fn on_each(test: impl Fn(&Hooked, Place)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        for place in [Place::Before, Place::After] {
            match Hooked::new(kind) {
                Some(hooked) => test(&hooked, place),
                None => println!("skipped on {kind:?}: {NO_BACKEND}"),
            }
        }
    }
}

/// A watch that counts its reads, and keeps its end.
struct CountedWatch {
    handle: WatchHandle,
    reads: Rc<Cell<usize>>,
    lost: Rc<RefCell<Option<String>>>,
}

fn watch(reactor: &Reactor, descriptor: impl Into<ropewalk::reactor::Descriptor>) -> CountedWatch {
    let (reads, lost) = (Rc::<Cell<usize>>::default(), Rc::<RefCell<Option<String>>>::default());
    let (counted, reason) = (Rc::clone(&reads), Rc::clone(&lost));
    let callbacks = WatchCallbacks::new()
        .on_read(move |_| {
            counted.set(counted.get() + 1);
            Ok(())
        })
        .on_lost(move |failure| drop(reason.replace(Some(failure.to_string()))));
    let handle = reactor.watch(descriptor, Interest::READ, callbacks).expect("it takes the watch").detach();
    CountedWatch { handle, reads, lost }
}

/// A watch begins, pauses, resumes and ends in a wait. Each holds from the end of the wait on.
#[test]
fn watches_change() {
    on_each(|hooked, place| {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let watched = hooked.during(place, |reactor| watch(reactor, ours));
        theirs.write_all(b"ready").expect("it is open");
        run_until(&hooked.reactor, || watched.reads.get() > 0);
        let handle = watched.handle.clone();
        assert!(hooked.during(place, move |_| handle.pause_reading()).is_ok());
        let before = watched.reads.get();
        settle(&hooked.reactor);
        assert_eq!(watched.reads.get(), before, "it is paused");
        let handle = watched.handle.clone();
        assert!(hooked.during(place, move |_| handle.resume_reading()).is_ok());
        run_until(&hooked.reactor, || watched.reads.get() > before);
        let handle = watched.handle.clone();
        hooked.during(place, move |_| handle.stop());
        assert_eq!((watched.handle.is_active(), hooked.reactor.counters().watched), (false, 0));
        assert!(watched.lost.borrow().is_none(), "a stop is told to none");
        // The kept descriptor was closed.
        assert!(theirs.write_all(b"late").is_err());
    });
}

/// A watch that the system refuses is told so, since `watch` has returned before. One that ends
/// before the wait does is never begun.
#[test]
fn a_refused_watch_is_told() {
    on_each(|hooked, place| {
        let file = File::open("/proc/self/exe").expect("a file");
        let (refused, lines) = logged(|| hooked.during(place, |reactor| watch(reactor, file)));
        run_until(&hooked.reactor, || refused.lost.borrow().is_some());
        assert!(!refused.handle.is_active() && !lines.is_empty());
        assert!(matches!(refused.handle.pause_reading(), Err(WatchError::Ended)));
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let ended = hooked.during(place, |reactor| {
            let watched = watch(reactor, ours);
            watched.handle.pause_reading().expect("it is watched");
            watched.handle.stop();
            watched
        });
        settle(&hooked.reactor);
        assert!(ended.lost.borrow().is_none());
        assert_eq!(hooked.reactor.counters().watched, 0);
    });
}

/// Written bytes leave, of any size, and so does an end.
#[test]
fn writes_leave() {
    on_each(|hooked, place| {
        for size in [5, 100_000] {
            let (transport, mut peer) = served(hooked);
            hooked.during(place, move |_| {
                transport.write(&vec![7; size]);
                transport.lose_connection();
            });
            let all = read_to_end(&hooked.reactor, &mut peer).expect("an end");
            assert!(all == vec![7; size], "{} of {size} bytes", all.len());
        }
    });
}

/// A connection of a port, and its foreign peer.
fn served(hooked: &Hooked) -> (Transport, TcpStream) {
    let kept = Rc::<RefCell<Option<Transport>>>::default();
    let log = Log::default();
    let (port, to) = listen(&hooked.reactor, once(Script::new(&log).transport_into(&kept)));
    let peer = dial(to);
    run_until(&hooked.reactor, || kept.borrow().is_some());
    drop(port.stop_listening());
    settle(&hooked.reactor);
    (kept.take().expect("it was just there"), peer)
}

/// Attempts begin, sockets are taken over, ports stop and connections are discarded.
#[test]
fn connections_begin_and_end() {
    on_each(|hooked, place| {
        let reactor = &hooked.reactor;
        let log = Log::default();
        let (port, to) = listen(reactor, echoes(&log));
        let connecting = hooked.during(place, move |reactor| {
            let script = Script::new(&Log::default());
            reactor.connect_tcp(to, &ConnectOptions::new(), once(script))
        });
        let connection = result_of(reactor, connecting).expect("it is reached");
        run_until(reactor, || log.count("made") == 1);

        let transport = connection.transport().clone();
        hooked.during(place, move |_| {
            transport.discard(DiscardMode::End);
            assert!(transport.is_disconnected());
        });
        run_until(reactor, || log.count("lost") == 1);

        let accepting = TcpListener::bind(loopback()).expect("a port");
        let host = accepting.local_addr().expect("an address");
        let (mut peer, (socket, from)) = (dial(host), accepting.accept().expect("it is there"));
        let adopted = hooked.during(place, move |reactor| {
            let adopted = reactor.adopt_stream(socket, host, from, &AdoptOptions::new(), Echo);
            adopted.map(|connection| connection.transport().clone())
        });
        assert_eq!(adopted.expect("it is taken over").peer(), Address::from(from));
        peer.write_all(b"echo").expect("it is open");
        assert_eq!(read_exact(reactor, &mut peer, 4), b"echo");

        let stopping = port.clone();
        let stopped = hooked.during(place, move |_| stopping.stop_listening());
        result_of(reactor, stopped).expect("it stops");
        assert!(!port.is_listening());
        assert_eq!(TcpStream::connect(to).map(drop).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    });
}

/// Requests that need an answer of the system fail with a typed error, and give back what they
/// were given.
#[test]
fn requests_with_an_answer_are_refused() {
    on_each(|hooked, place| {
        let (transport, _peer) = served(hooked);
        let log = Log::default();
        let (port, to) = listen(&hooked.reactor, scripts(&log));
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let listener = TcpListener::bind(loopback()).expect("a port");
        let asked = transport.clone();
        hooked.during(place, move |reactor| {
            let is_refusal = |error: &std::io::Error| {
                error.kind() == ErrorKind::ResourceBusy && error.get_ref().is_some_and(|inner| inner.is::<LoopWaits>())
            };
            let refused = [
                asked.set_tcp_no_delay(true),
                asked.tcp_keep_alive().map(drop),
                asked.duplicate().map(drop),
                port.duplicate().map(drop),
                port.leave_socket_file(),
            ];
            assert!(refused.iter().all(|refused| refused.as_ref().is_err_and(is_refusal)), "{refused:?}");
            assert!(asked.raw_fd().is_none());
            let listening = reactor.listen_tcp(to, &ListenOptions::new(), |_| Some(Echo));
            assert!(matches!(listening, Err(ListenError::Bind { source, .. }) if is_refusal(&source)));
            let refused = reactor.adopt_stream_port(listener, &AdoptOptions::new(), |_| Some(Echo));
            assert!(refused.is_err_and(|refused| matches!(refused.error, ListenError::Adopt(_))));
            let refused = reactor.adopt_stream_connection(ours, &AdoptOptions::new(), |_| Some(Echo));
            assert!(refused.is_err_and(|refused| matches!(refused.error, ConnectError::Adopt(_))));
            assert!(matches!(reactor.iterate(Duration::ZERO), Err(ReactorError::AlreadyRunning)));
            assert!(matches!(reactor.close(), Err(ReactorError::AlreadyRunning)));
            assert!(matches!(reactor.begin_run(), Err(ReactorError::AlreadyRunning)));
            assert!(reactor.counters().watched >= 2);
            // The others are no reason for the loop to wake up.
            reactor.remote().ring();
        });
        assert!(transport.set_tcp_no_delay(true).is_ok() && transport.raw_fd().is_some());
    });
}

/// A timer, a call for the end of a turn, a future and a stop wake the loop.
#[test]
fn the_loop_wakes_up_for_its_own_work() {
    on_each(|hooked, place| {
        let called = Rc::<Cell<bool>>::default();
        let told = Rc::clone(&called);
        drop(hooked.during(place, move |reactor| reactor.call_later(Duration::ZERO, move || told.set(true))));
        run_until(&hooked.reactor, || called.get());
        let _watchdog = Watchdog::new();
        let stop = |reactor: &Reactor| reactor.stop().expect("it runs");
        hooked.acts.replace(Some((Place::Before, Box::new(stop))));
        hooked.reactor.run().expect("the loop turns");
    });
}
