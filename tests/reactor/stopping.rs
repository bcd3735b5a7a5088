//! A stop: from inside each callback, with everything that is open, and with a connection that has
//! much to send. Nothing stays open after it.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use crate::running::{Counting, is_not_running};
use ropewalk::deferred::Promise;
use ropewalk::endpoints::HostnameEndpoint;
use ropewalk::error::{ConnectError, ConnectionClosed, ListenError};
use ropewalk::interfaces::*;
use ropewalk::{Failure, ListenOptions, Phase, Reactor, SystemEvent, Transport};

/// Sends, and gives what comes back until the other side ends.
fn ask(to: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(question).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Waits for descriptors that threads still hold for a moment.
#[track_caller]
fn await_descriptors(expected: usize) {
    let until = Instant::now() + LIMIT;
    while descriptors() != expected {
        assert!(Instant::now() < until, "{} descriptors, {expected} before", descriptors());
        thread::yield_now();
    }
}

/// F32: stop works from inside every callback there is. Each time the run ends without an error,
/// every shutdown trigger fires once, the connection is lost once, the factory stops once, and
/// nothing stays open.
#[test]
fn stop_works_from_inside_every_callback() {
    own_process!();
    let places = [
        "timer",
        "call from thread",
        "connection made",
        "data received",
        "connection lost",
        "build protocol",
        "do start",
        "do stop",
        "deferred callback",
        "before startup",
        "during startup",
        "after startup",
        "when running",
    ];
    for place in places {
        let start = descriptors();
        stop_from(place);
        await_descriptors(start);
    }
}

fn stop_from(place: &'static str) {
    let (reactor, log) = (reactor(), Log::default());
    for (phase, name) in [(Phase::Before, "1 before"), (Phase::During, "2 during"), (Phase::After, "3 after")] {
        let (log, handle) = (log.clone(), reactor.clone());
        reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || {
            log.add(name);
            assert!(is_not_running(handle.stop()));
        });
    }
    // Stops at the one place that is asked for, the first time that it is reached.
    let stop = {
        let (reactor, log) = (reactor.clone(), log.clone());
        move |here: &str| {
            if here == place && !log.has("stopped") {
                reactor.stop().unwrap();
                log.add("stopped");
                assert!(is_not_running(reactor.stop()));
            }
        }
    };
    let hook = |here: &'static str| {
        let stop = stop.clone();
        Box::new(move || stop(here))
    };
    let mut triggers = Vec::new();
    for (phase, name) in
        [(Phase::Before, "before startup"), (Phase::During, "during startup"), (Phase::After, "after startup")]
    {
        triggers.push(reactor.add_system_event_trigger(phase, SystemEvent::Startup, hook(name)));
    }
    triggers.extend(reactor.call_when_running(hook("when running")));
    let (connection, factory) = (Log::default(), Log::default());
    let script = {
        let (connection, stop) = (connection.clone(), stop.clone());
        move || {
            let (made, data, lost) = (stop.clone(), stop.clone(), stop.clone());
            let script = Script::new(&connection).made(move |_| {
                made("connection made");
                Ok(())
            });
            let script = script.data(move |transport, _| {
                data("data received");
                transport.lose_connection();
                Ok(())
            });
            script.lost(move |_| lost("connection lost"))
        }
    };
    let counting = Counting {
        on_start: hook("do start"),
        on_build: hook("build protocol"),
        on_stop: hook("do stop"),
        script: Box::new(script),
        ..Counting::new(&factory)
    };
    // Everything begins in the loop, so that each place is reached while it runs; and ends by
    // itself at the latest.
    let (begin, timer, called, deferred) = (reactor.clone(), hook("timer"), stop.clone(), stop.clone());
    let clients = Rc::new(RefCell::new(Vec::new()));
    let began = Rc::clone(&clients);
    let last = stop.clone();
    let begin_all = move || {
        let (port, address) = listen(&begin, counting);
        began.borrow_mut().push(thread::spawn(move || {
            let Ok(mut stream) = TcpStream::connect(address) else { return };
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let _ = stream.write_all(b"x");
            // A stop that comes before the connection was accepted closes the port with a reset.
            let _ = stream.read_to_end(&mut Vec::new());
        }));
        begin.call_later(Duration::from_millis(1), timer);
        let remote = begin.remote();
        thread::spawn(move || {
            // The closure of the call is to be `Send`, which the hook is not: it is found on the
            // other side.
            let _ = remote.call_from_thread(|reactor| {
                let calls = reactor.delayed_calls();
                assert!(calls.len() < 100);
                CALLED.with(|called| {
                    let called = called.borrow();
                    if let Some(called) = &*called {
                        called("call from thread");
                    }
                });
            });
        })
        .join()
        .unwrap();
        let (promise, answer) = Promise::<()>::new();
        drop(answer.add_callback(move |()| deferred("deferred callback")));
        begin.call_later(Duration::from_millis(2), move || promise.callback(()).unwrap());
        // When all else is over, `do_stop` is reached in the run.
        fn stop_port(reactor: Reactor, port: ropewalk::Port, log: Log) {
            let again = reactor.clone();
            reactor.call_later(Duration::from_millis(1), move || {
                if log.is_over() {
                    drop(port.stop_listening());
                } else {
                    stop_port(again, port, log);
                }
            });
        }
        stop_port(begin.clone(), port, connection);
        last("");
    };
    CALLED.with(|place| place.replace(Some(Box::new(called))));
    triggers.extend(reactor.call_when_running(begin_all));
    run(&reactor).unwrap_or_else(|error| panic!("{place}: {error}"));
    CALLED.with(|place| place.take());
    for client in clients.take() {
        client.join().unwrap();
    }
    assert_eq!(log.all(), ["stopped", "1 before", "2 during", "3 after"], "{place}");
    assert!(factory.count("start") <= 1, "{place}");
    assert_eq!(factory.count("stop"), factory.count("start"), "{place}");
    assert_eq!(reactor.counters().watched, 0, "{place}");
    assert!(!reactor.is_running(), "{place}");
    // Calls that were not reached wait for the next run, and keep the reactor that they name.
    for call in reactor.delayed_calls() {
        call.cancel().unwrap();
    }
    for trigger in triggers {
        let _ = reactor.remove_system_event_trigger(trigger);
    }
}

type Called = Box<dyn Fn(&str)>;

thread_local! {
    /// The action of a call from another thread on this one.
    static CALLED: RefCell<Option<Called>> = const { RefCell::new(None) };
}

/// On stop, whatever is open hears of it once, with the right reason, and the order is that of the
/// design: ports, attempts, connections, then their factories and the Deferreds of ports.
#[test]
fn a_stop_ends_everything_that_is_open() {
    own_process!();
    let (_listener, _queued, mute) = silent();
    let start = descriptors();
    {
        let reactor = reactor();
        let (server, client, attempt, other) = (Log::default(), Log::default(), Log::default(), Log::default());
        let (port, address) = listen(&reactor, Counting::new(&server));
        drop(connect(&reactor, address, Counting::new(&client)));
        let second = Counting::new(&other);
        let (waiting, _) = listen(&reactor, second);
        let failed = attempt.clone();
        drop(
            connect(&reactor, mute, Counting::new(&attempt))
                .add_errback(move |failure| {
                    assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })), "{failure}");
                    failed.add("failed");
                    Err(failure)
                })
                .add_both(|_| ()),
        );
        run_until(&reactor, || server.has("made") && client.has("made"));
        // One port was being stopped already: its Deferred fires all the same.
        let (stopped, handle) = (other.clone(), reactor.clone());
        reactor.call_later(Duration::ZERO, move || {
            drop(waiting.stop_listening().add_callback(move |()| stopped.add("port stopped")));
            handle.stop().unwrap();
        });
        let (stopped, by_trigger) = (server.clone(), port.clone());
        reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            by_trigger.stop_listening().add_callback(move |()| stopped.add("port stopped"))
        });
        run(&reactor).unwrap();
        assert_eq!(server.all(), ["start", "build", "made", "stop", "port stopped", "lost: the reactor stopped"]);
        assert_eq!(client.all(), ["start", "build", "made", "lost: the reactor stopped", "stop"]);
        assert_eq!(attempt.all(), ["start", "failed", "stop"]);
        assert_eq!(other.all(), ["start", "stop", "port stopped"]);
        assert_eq!(reactor.counters().watched, 0);
        assert_eq!(reactor.delayed_calls(), []);
        // It is not closing any more: new things begin.
        let (_port, _) = listen(&reactor, Counting::new(&Log::default()));
    }
    assert_eq!(descriptors(), start);
}

/// The reason can be told from others by its type, and the same connection does not hear of it
/// twice however it is asked.
#[test]
fn the_reason_is_that_the_reactor_stopped() {
    let (reactor, reasons) = (reactor(), Rc::<RefCell<Vec<Failure>>>::default());
    struct Keeps(Rc<RefCell<Vec<Failure>>>);
    impl Protocol for Keeps {
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> ropewalk::Result<()> {
            Ok(())
        }
        fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
            assert!(transport.is_disconnected());
            transport.abort_connection();
            transport.write(b"too late");
            self.0.borrow_mut().push(reason.clone());
        }
    }
    let (kept, handle) = (Rc::clone(&reasons), reactor.clone());
    let (_port, address) = listen(&reactor, move |_| {
        handle.stop().unwrap();
        Some(Keeps(Rc::clone(&kept)))
    });
    let client = peer(address, |mut stream| stream.read_to_end(&mut Vec::new()).unwrap());
    run(&reactor).unwrap();
    settle(&reactor);
    assert_eq!(client.join().unwrap(), 0);
    assert_eq!(reasons.borrow().len(), 1);
    assert!(matches!(reasons.borrow()[0].check(), Some(ConnectionClosed::ReactorStopped)));
}

/// Nothing new begins while the reactor closes for good.
#[test]
fn nothing_new_begins_while_everything_is_closed() {
    let (reactor, log) = (reactor(), Log::default());
    let (own, handle) = (log.clone(), reactor.clone());
    let script = Script::new(&Log::default()).lost(move |_| {
        let listening = handle.listen_tcp(loopback(), &ListenOptions::new(), Counting::new(&own));
        assert!(matches!(listening, Err(ListenError::ReactorStopping)));
        let failed = own.clone();
        drop(connect(&handle, loopback(), Counting::new(&own)).add_both(move |result| {
            let failure = result.unwrap_err();
            assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })), "{failure}");
            failed.add("refused");
        }));
    });
    let handle = reactor.clone();
    let (_port, address) = listen(&reactor, once(script.made(move |_| Ok(handle.stop()?))));
    let client = peer(address, |mut stream| stream.read_to_end(&mut Vec::new()).unwrap());
    run(&reactor).unwrap();
    client.join().unwrap();
    assert_eq!(log.all(), ["refused"]);
}

/// Bytes written before the stop are sent as far as the socket takes them at once. An end of stream
/// follows rather than a reset.
#[test]
fn a_stop_sends_what_the_socket_takes() {
    let (reactor, log) = (reactor(), Log::default());
    let handle = reactor.clone();
    let script = Script::new(&log).data(move |transport, _| {
        transport.write(b"head, ");
        transport.write(&vec![b'x'; 60_000]);
        handle.stop()?;
        transport.write(b", tail");
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = thread::spawn(move || ask(address, b"go"));
    run(&reactor).unwrap();
    let answer = client.join().unwrap();
    assert_eq!(answer.len(), 60_012);
    assert!(answer.starts_with(b"head, x") && answer.ends_with(b"x, tail"));
    assert_eq!(log.reason(), "the reactor stopped");
}

/// A connection with far more to send than its socket takes at once is lost with the stop like any
/// other, and its peer sees a reset: half an answer must not look whole.
#[test]
fn a_stop_does_not_forget_those_with_much_to_send() {
    own_process!();
    let start = descriptors();
    {
        let (reactor, log) = (reactor(), Log::default());
        let handle = reactor.clone();
        let script = Script::new(&log).data(move |transport, _| {
            // In small pieces, so that they are queued.
            for _ in 0..(16 << 10) {
                transport.write(&[b'x'; 1 << 10]);
            }
            handle.stop()?;
            Ok(())
        });
        let (_port, address) = listen(&reactor, once(script));
        let client = peer(address, |mut stream| {
            stream.write_all(b"go").unwrap();
            let mut received = Vec::new();
            let end = stream.read_to_end(&mut received).map_err(|error| error.kind());
            (received.len(), end)
        });
        run(&reactor).unwrap();
        assert_eq!(log.count("lost: the reactor stopped"), 1);
        assert_eq!(reactor.counters().watched, 0);
        let (received, end) = client.join().unwrap();
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "{received} bytes looked whole");
    }
    assert_eq!(descriptors(), start);
}

/// Connections that were being closed when the stop came, lingering ones too, hold nothing up and
/// keep no descriptor.
#[test]
fn a_stop_ends_what_lingers() {
    own_process!();
    let start = descriptors();
    {
        let (reactor, log) = (reactor(), Log::default());
        let script = Script::new(&log).made(|transport| {
            transport.lose_connection();
            Ok(())
        });
        let (_port, address) = listen(&reactor, once(script));
        let stream = TcpStream::connect(address).unwrap();
        run_until(&reactor, || log.is_over());
        assert_eq!(reactor.counters().watched, 2);
        let handle = reactor.clone();
        reactor.call_later(Duration::ZERO, move || handle.stop().unwrap());
        run(&reactor).unwrap();
        assert_eq!(reactor.counters().watched, 0);
        assert_eq!(log.count("lost"), 1);
        drop(stream);
    }
    assert_eq!(descriptors(), start);
}

/// Dropping a reactor with anything open closes it all, cancels its timers, and panics nowhere.
#[test]
fn dropping_a_reactor_leaks_nothing() {
    own_process!();
    let (_listener, _queued, mute) = silent();
    // The resolver of the system may keep something open from its first use on.
    assert!(("localhost", 1).to_socket_addrs().is_ok());
    let start = descriptors();
    for turns in 0..4 {
        let (reactor, log) = (reactor(), Log::default());
        let (port, address) = listen(&reactor, Counting::new(&log));
        let client = TcpStream::connect(address).unwrap();
        let failed = log.clone();
        let attempt = connect(&reactor, mute, Counting::new(&Log::default()));
        drop(attempt.add_both(move |result| failed.add(format!("attempt: {}", result.unwrap_err()))));
        let endpoint = HostnameEndpoint::new(&reactor, "localhost", address.port());
        let connecting = endpoint.connect(Counting::new(&Log::default()));
        drop(endpoint);
        let timer = reactor.call_later(Duration::from_secs(3600), || ());
        let queued = log.clone();
        let token = Rc::new(());
        let weak = Rc::downgrade(&token);
        let cancelled = reactor.call_later(Duration::MAX, move || {
            let _kept = token;
            queued.add("never");
        });
        for _ in 0..turns {
            reactor.iterate(Duration::ZERO).unwrap();
        }
        drop(connecting.add_both(|_| ()));
        drop(reactor);
        assert!(weak.upgrade().is_none(), "the function of a timer stayed");
        assert!(!timer.active() && !cancelled.active());
        assert_eq!(log.count("attempt: "), 1, "{:?}", log.all());
        assert!(matches!(port.start_listening(), Err(ListenError::ReactorGone)));
        assert!(port.stop_listening().is_called());
        let mut rest = Vec::new();
        let end = (&client).read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
        drop(client);
        await_descriptors(start);
    }
}

/// A transport outlives its reactor and does nothing.
#[test]
fn a_transport_outlives_its_reactor() {
    let (reactor, kept) = (reactor(), Rc::default());
    let (_port, address) = listen(&reactor, once(Script::new(&Log::default()).transport_into(&kept)));
    let _client = TcpStream::connect(address).unwrap();
    run_until(&reactor, || kept.borrow().is_some());
    drop(reactor);
    let transport: Transport = kept.borrow_mut().take().unwrap();
    transport.write(&[0; 100_000]);
    transport.lose_connection();
    transport.abort_connection();
    assert_eq!(transport.raw_fd(), None);
    assert_eq!(transport.set_tcp_no_delay(true).unwrap_err().kind(), ErrorKind::NotConnected);
}
