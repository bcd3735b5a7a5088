//! Running, crashing and turning a reactor by hand.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::{Address, Phase, Reactor, SystemEvent};

fn is_running_already(result: Result<(), ReactorError>) -> bool {
    matches!(result, Err(ReactorError::AlreadyRunning))
}

pub(crate) fn is_not_running(result: Result<(), ReactorError>) -> bool {
    matches!(result, Err(ReactorError::NotRunning))
}

/// A factory that writes down its own start and stop, and whose protocols echo.
pub(crate) struct Counting {
    pub(crate) log: Log,
    pub(crate) on_start: Box<dyn Fn()>,
    pub(crate) on_build: Box<dyn Fn()>,
    pub(crate) on_stop: Box<dyn Fn()>,
    pub(crate) script: Box<dyn Fn() -> Script>,
}

impl Counting {
    pub(crate) fn new(log: &Log) -> Self {
        let own = log.clone();
        let script = move || {
            Script::new(&own).data(|transport, data| {
                transport.write(data);
                Ok(())
            })
        };
        let log = log.clone();
        let nothing = || Box::new(|| ());
        Self { log, on_start: nothing(), on_build: nothing(), on_stop: nothing(), script: Box::new(script) }
    }
}

impl Factory for Counting {
    type Protocol = Script;

    fn build_protocol(&mut self, _: &Address) -> Option<Script> {
        self.log.add("build");
        (self.on_build)();
        Some((self.script)())
    }

    fn do_start(&mut self) {
        self.log.add("start");
        (self.on_start)();
    }

    fn do_stop(&mut self) {
        self.log.add("stop");
        (self.on_stop)();
    }
}

/// A reactor that does not run can be neither stopped nor crashed.
#[test]
fn stopping_what_does_not_run_is_an_error() {
    let reactor = reactor();
    assert!(!reactor.is_running());
    assert!(is_not_running(reactor.stop()));
    assert!(is_not_running(reactor.crash()));
    let handle = reactor.clone();
    reactor.call_later(Duration::ZERO, move || {
        // Turned by hand, it does not run either.
        assert!(!handle.is_running());
        assert!(is_not_running(handle.stop()));
        assert!(is_not_running(handle.crash()));
    });
    let (_, errors) = logged(|| settle(&reactor));
    assert_eq!(errors, Vec::<String>::new());
    assert!(reactor.timers().is_empty());
}

/// The second stop is an error, whether it comes at once or while the first is being carried out;
/// and so is a run of what runs, and a turn by hand from inside a callback.
#[test]
fn a_running_reactor_refuses_what_makes_no_sense() {
    let (reactor, log) = (reactor(), Log::default());
    let refused = {
        let (reactor, log) = (reactor.clone(), log.clone());
        move |place: &str| {
            assert!(is_running_already(reactor.run()), "{place}");
            assert!(is_running_already(reactor.iterate(Duration::ZERO)), "{place}");
            log.add(place);
        }
    };
    for (phase, event, name) in [
        (Phase::Before, SystemEvent::Startup, "before startup"),
        (Phase::During, SystemEvent::Startup, "during startup"),
        (Phase::After, SystemEvent::Startup, "after startup"),
        (Phase::Before, SystemEvent::Shutdown, "before shutdown"),
        (Phase::During, SystemEvent::Shutdown, "during shutdown"),
        (Phase::After, SystemEvent::Shutdown, "after shutdown"),
    ] {
        let (refused, handle) = (refused.clone(), reactor.clone());
        reactor.add_system_event_trigger(phase, event.clone(), move || {
            refused(name);
            if event == SystemEvent::Shutdown {
                assert!(is_not_running(handle.stop()), "{name}");
            }
            let expected = match event {
                SystemEvent::Startup => phase > Phase::Before,
                // The first thing that Twisted does `During` a shutdown is to take the flag down.
                _ => phase < Phase::During,
            };
            assert_eq!(handle.is_running(), expected, "{name}");
        });
    }
    let (timer, lost, handle) = (refused.clone(), refused.clone(), reactor.clone());
    let script = Script::new(&Log::default()).lost(move |_| lost("connection lost"));
    let (_port, address) = listen(
        &reactor,
        once(script.made(move |_| {
            let (timer, handle) = (timer.clone(), handle.clone());
            handle.clone().call_later(Duration::ZERO, move || {
                timer("timer");
                handle.stop().unwrap();
                assert!(handle.is_running());
                assert!(is_not_running(handle.stop()));
            });
            Ok(())
        })),
    );
    let client = peer(address, |mut stream| stream.read_to_end(&mut Vec::new()).unwrap());
    let (result, errors) = logged(|| run(&reactor));
    result.unwrap();
    client.join().unwrap();
    assert_eq!(errors, Vec::<String>::new());
    let order = [
        "before startup",
        "during startup",
        "after startup",
        "timer",
        "before shutdown",
        "connection lost",
        "during shutdown",
        "after shutdown",
    ];
    assert_eq!(log.all(), order);
    assert!(!reactor.is_running());
    assert!(is_not_running(reactor.stop()));
}

/// A reactor that stopped runs again, with ports and connections anew, and nothing stays open in
/// between.
#[test]
fn a_stopped_reactor_runs_again() {
    own_process!();
    let before = descriptors();
    let reactor = reactor();
    // A reactor that listened once keeps a descriptor in reserve.
    drop(listen(&reactor, Counting::new(&Log::default())).0.stop_listening());
    settle(&reactor);
    let start = descriptors();
    for round in 0..3 {
        let log = Log::default();
        let (port, address) = listen(&reactor, Counting::new(&log));
        let own = log.clone();
        let handle = reactor.clone();
        let script = Script::new(&log).made(|transport| {
            transport.write(b"ping");
            Ok(())
        });
        let script = script.data(move |_, data| {
            own.add(String::from_utf8_lossy(data));
            handle.stop().unwrap();
            Ok(())
        });
        drop(connect(&reactor, address, once(script)));
        run(&reactor).unwrap();
        assert!(!port.is_listening());
        assert_eq!(log.count("ping"), 1, "round {round}");
        assert_eq!(log.count("lost: the reactor stopped"), 2, "round {round}");
        assert_eq!(log.count("stop"), 1, "round {round}");
        assert_eq!(descriptors(), start, "round {round}");
        assert_eq!(reactor.counters().watched, 0, "round {round}");
    }
    drop(reactor);
    assert_eq!(descriptors(), before);
}

/// A crash leaves connections and ports as they are; a second run, or turns by hand, serve them.
#[test]
fn a_crash_leaves_everything_for_the_next_run() {
    let (reactor, log) = (reactor(), Log::default());
    let fired = Rc::new(Cell::new(0));
    for event in [SystemEvent::Shutdown, SystemEvent::Startup] {
        let fired = Rc::clone(&fired);
        reactor.add_system_event_trigger(Phase::Before, event, move || fired.set(fired.get() + 1));
    }
    let (port, address) = listen(&reactor, Counting::new(&log));
    let (said, heard) = mpsc::channel();
    let (go, on) = mpsc::channel();
    let client = peer(address, move |mut stream| {
        let mut answer = [0; 5];
        for message in ["first", "again", "third"] {
            stream.write_all(message.as_bytes()).unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, message.as_bytes());
            said.send(()).unwrap();
            on.recv().unwrap();
        }
    });
    fn crash_when_told(reactor: &Reactor, heard: Rc<mpsc::Receiver<()>>) {
        let handle = reactor.clone();
        reactor.call_later(Duration::from_millis(1), move || match heard.try_recv() {
            Ok(()) => {
                handle.crash().unwrap();
                assert!(!handle.is_running());
                assert!(is_not_running(handle.crash()));
                assert!(is_not_running(handle.stop()));
            }
            Err(_) => crash_when_told(&handle, heard),
        });
    }
    let heard = Rc::new(heard);
    for _ in 0..2 {
        crash_when_told(&reactor, Rc::clone(&heard));
        run(&reactor).unwrap();
        assert!(!log.is_over());
        assert!(port.is_listening());
        go.send(()).unwrap();
    }
    go.send(()).unwrap();
    run_beside(&reactor, client);
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the connection was closed cleanly");
    assert_eq!(fired.get(), 1, "a crash runs no shutdown triggers");
    assert_eq!(log.count("stop"), 0);
}

/// A crash in the middle of a shutdown leaves nothing of that shutdown behind, and the reactor runs
/// again.
#[test]
fn a_crash_ends_a_shutdown_that_waits() {
    let reactor = reactor();
    let (promise, hanging) = Promise::<()>::new();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || hanging);
    let handle = reactor.clone();
    reactor.call_later(Duration::ZERO, move || {
        handle.stop().unwrap();
        let again = handle.clone();
        handle.call_later(Duration::from_millis(1), move || again.crash().unwrap());
    });
    run(&reactor).unwrap();
    assert!(!reactor.is_running());
    assert_eq!(reactor.delayed_calls(), []);
    let _ = promise.callback(());
    let handle = reactor.clone();
    reactor.call_later(Duration::ZERO, move || handle.stop().unwrap());
    run(&reactor).unwrap();
}

/// Two reactors in one thread, turned by hand in alternation, talk to each other.
#[test]
fn reactors_share_a_thread() {
    own_process!();
    let start = descriptors();
    {
        let (server, client, log) = (reactor(), reactor(), Log::default());
        let (_port, address) = listen(&server, Counting::new(&Log::default()));
        let script = Script::new(&log).made(|transport| {
            transport.write(b"hello");
            Ok(())
        });
        let script = script.data(|transport, _| {
            transport.lose_connection();
            Ok(())
        });
        drop(connect(&client, address, once(script)));
        run_until(&server, || {
            client.iterate(Duration::ZERO).unwrap();
            log.is_over()
        });
        assert_eq!(log.all(), ["made", "data", "lost: the connection was closed cleanly"]);
        assert_eq!((server.counters().accepted, client.counters().accepted), (1, 0));
    }
    assert_eq!(descriptors(), start);
}

/// A reactor may be turned, and even run, from inside a callback of another one.
#[test]
fn reactors_nest() {
    let (outer, log) = (reactor(), Log::default());
    let (handle, own) = (outer.clone(), log.clone());
    outer.call_later(Duration::ZERO, move || {
        let inner = reactor();
        let again = inner.clone();
        inner.call_later(Duration::ZERO, move || again.stop().unwrap());
        inner.run().unwrap();
        own.add("inner ended");
        assert!(handle.is_running());
        handle.stop().unwrap();
    });
    run(&outer).unwrap();
    assert_eq!(log.all(), ["inner ended"]);
}

/// Each thread may have a reactor, and they run side by side.
#[test]
fn each_thread_has_its_reactor() {
    own_process!();
    let start = descriptors();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                let (reactor, log) = (reactor(), Log::default());
                let (_port, address) = listen(&reactor, Counting::new(&Log::default()));
                let handle = reactor.clone();
                let script = Script::new(&log).made(|transport| {
                    transport.write(b"hello");
                    Ok(())
                });
                let script = script.data(move |_, data| {
                    assert_eq!(data, b"hello");
                    handle.stop().unwrap();
                    Ok(())
                });
                drop(connect(&reactor, address, once(script)));
                run(&reactor).unwrap();
                assert_eq!(log.all(), ["made", "data", "lost: the reactor stopped"]);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(descriptors(), start);
}

/// `call_when_running` waits for the startup of a reactor that does not run, and calls at once on
/// one that does; what it calls may fail.
#[test]
fn call_when_running_waits_or_calls_at_once() {
    let (reactor, log) = (reactor(), Log::default());
    let (handle, own) = (reactor.clone(), log.clone());
    let waits = reactor.call_when_running(move || {
        assert!(handle.is_running());
        own.add("running");
        let inner = own.clone();
        assert!(handle.call_when_running(move || inner.add("at once")).is_none());
        own.add("after it");
        let (failing, errors) = logged(|| handle.call_when_running(|| panic!("a call that fails")));
        assert!(failing.is_none());
        assert!(errors.len() == 1 && errors[0].contains("a call that fails"), "{errors:?}");
        handle.stop().unwrap();
    });
    assert!(waits.is_some());
    let dropped = reactor.call_when_running(|| unreachable!("taken back")).unwrap();
    reactor.remove_system_event_trigger(dropped).unwrap();
    assert_eq!(log.all(), Vec::<String>::new());
    settle(&reactor);
    assert_eq!(log.all(), Vec::<String>::new(), "turning by hand is not running");
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["running", "at once", "after it"]);
}

/// Without a signal there is no exit signal.
#[test]
fn a_stop_is_no_signal() {
    own_process!();
    let start = descriptors();
    {
        let reactor = Reactor::new().unwrap();
        assert_eq!(reactor.exit_signal(), None);
        let handle = reactor.clone();
        reactor.call_when_running(move || handle.stop().unwrap());
        run(&reactor).unwrap();
        assert_eq!(reactor.exit_signal(), None);
    }
    assert_eq!(descriptors(), start, "the handlers of signals hold descriptors");
}
