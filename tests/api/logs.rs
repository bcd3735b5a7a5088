//! The events of the log: every failure of a program's code once, where it enters, as an event of
//! level ERROR; and nothing of that level about ends that the network made. Where no subscriber
//! hears it, it goes to standard error.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::application::ClientService;
use ropewalk::deferred::Promise;
use ropewalk::endpoints::client_from_string;
use ropewalk::interfaces::*;
use ropewalk::testing::MemoryReactor;
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{Connections, Deferred, Failure, ListenOptions, Reactor, Result, Transport, for_protocol};

/// An error with a cause, of which both are to be told.
#[derive(Debug, thiserror::Error)]
#[error("the order of {item} can't be read")]
struct BadOrder {
    item: &'static str,
    source: std::num::ParseIntError,
}

fn bad_order() -> Failure {
    BadOrder { item: "rope", source: "many".parse::<u8>().unwrap_err() }.into()
}

/// The events logged while a connection with this script is made, spoken to by its peer, and over.
fn told(script: Script) -> Vec<String> {
    let ((), lines) = logged(|| {
        let (reactor, log) = (reactor(), script.log.clone());
        let (_port, address) = listen(&reactor, once(script));
        let client = peer(address, |mut stream| {
            // At any step it may have been reset.
            let _ = stream.write_all(b"now");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        run_until(&reactor, || log.is_over());
        run_beside(&reactor, client);
    });
    lines
}

/// The engine wraps protocols, for a list of connections and for the attempts of a client. An event
/// names the program's own type all the same.
#[test]
fn the_programs_own_type_is_logged() {
    struct Orders;

    impl Protocol for Orders {
        fn connection_made(&mut self, _transport: &Transport) -> Result<()> {
            Err(bad_order())
        }

        fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
            Ok(())
        }
    }

    let ((), lines) = logged(|| {
        let memory = MemoryReactor::new();
        let orders = Connections::new().for_protocol(|_room, _peer| Orders);
        memory.reactor().listen_tcp("0.0.0.0:7".parse().unwrap(), &ListenOptions::new(), orders).unwrap();
        memory.connect(7).unwrap();
        let endpoint = client_from_string(memory.reactor(), "tcp:198.51.100.7:7").unwrap();
        let client = ClientService::new(memory.reactor(), endpoint, for_protocol(|_| Orders));
        client.start_service().or_log("starting");
        drop(memory.attempts().remove(0).accept());
        memory.settle().unwrap();
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    let own = format!("protocol={:?}", std::any::type_name::<Orders>());
    assert!(lines.iter().all(|line| line.contains(&own)), "{lines:?}");
}

/// A failing callback of any kind, by an error or a panic: one event, with the peer, the protocol's
/// type, the failure and its cause.
#[test]
fn a_failing_callback_is_logged_once() {
    for panics in [false, true] {
        let fails = move || if panics { panic!("the rope broke") } else { Err(bad_order()) };
        let script = || Script::new(&Log::default()).half_close();
        let scripts = [
            ("connection_made", script().made(move |_| fails())),
            ("data_received", script().data(move |_, _| fails())),
            ("read_connection_lost", script().read_lost(move |_| fails())),
            (
                "write_connection_lost",
                script()
                    .made(|transport| {
                        transport.lose_write_connection();
                        Ok(())
                    })
                    .write_lost(move |_| fails()),
            ),
        ];
        for (callback, script) in scripts {
            let lines = told(script);
            assert_eq!(lines.len(), 1, "{callback}: {lines:?}");
            let line = &lines[0];
            assert!(line.contains(&format!("message={callback} failed")), "{line}");
            assert!(line.contains("peer=127.0.0.1:") && line.contains("Script"), "{callback}: {line}");
            let failure = if panics { "the rope broke" } else { "the order of rope can't be read: invalid digit" };
            assert!(line.contains(failure), "{callback}: {line}");
        }
    }
}

/// A failure behind `abort_connection` in the same callback is logged, and is the reason of the
/// end; so is one behind `lose_connection`.
#[test]
fn a_failure_behind_an_abort_is_logged_and_the_reason() {
    for aborts in [false, true] {
        let log = Log::default();
        let lines = told(Script::new(&log).data(move |transport, _| {
            if aborts {
                transport.abort_connection();
            } else {
                transport.lose_connection();
            }
            Err(bad_order())
        }));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(log.reason().starts_with("the order of rope"), "{}", log.reason());
    }
}

/// A producer that fails.
struct Broken;

impl Producer for Broken {
    fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
        Err(bad_order())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {}
}

#[test]
fn a_failing_producer_is_logged_once() {
    let lines = told(
        Script::new(&Log::default()).data(|transport, _| Ok(transport.register_producer(Broken, Streaming::Pull)?)),
    );
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("a producer failed") && lines[0].contains("invalid digit"), "{lines:?}");
}

/// A failed preparation of a transport, as of an endpoint around another.
#[test]
fn a_failing_preparation_is_logged_once() {
    let ((), lines) = logged(|| {
        let (reactor, log) = (reactor(), Log::default());
        let factory = ropewalk::protocol::BoxedFactory::new(once(Script::new(&log))).prepared(|_| Err(bad_order()));
        let port = reactor.listen_tcp_boxed(loopback(), &ropewalk::ListenOptions::new(), factory).unwrap();
        let _peer = dial(port.host().socket_addr().unwrap());
        run_until(&reactor, || log.is_over());
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// Ends that the network made are no errors: resets, clean ends, and a peer that is gone while we
/// write.
#[test]
fn what_the_network_does_is_no_error() {
    for resets in [false, true] {
        let ((), lines) = logged(|| {
            let (reactor, log) = (reactor(), Log::default());
            let (_port, address) = listen(&reactor, once(Script::new(&log)));
            let stream = dial(address);
            run_until(&reactor, || log.has("made"));
            if resets {
                reset_on_close(&stream);
            }
            drop(stream);
            run_until(&reactor, || log.is_over());
        });
        assert_eq!(lines, [""; 0]);
    }
}

/// A failure of what was started with `or_log` is logged once, with the word, the failure and the
/// line.
#[test]
fn what_is_started_with_or_log_is_logged() {
    let ((), lines) = logged(|| {
        Deferred::<()>::fail(bad_order()).or_log("reading the order");
        Deferred::succeed(1).or_log("counting");
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["message=reading the order failed", "can't be read: invalid digit", "place=tests/api/logs.rs:"] {
        assert!(lines[0].contains(part), "{lines:?} without {part}");
    }
}

#[cfg(feature = "tls")]
mod tls {
    use crate::common::certificates::Authority;
    use ropewalk::testing::StringTransport;

    use super::*;
    use crate::common::tls::play;

    /// A handshake that fails is logged once, by the side that finds the fault; callbacks over TLS
    /// as any.
    #[test]
    fn a_failed_handshake_is_logged() {
        let authority = Authority::new();
        let ((), lines) = logged(|| {
            let _ended = play(authority.client("example.org"), authority.server(&["example.com"]));
        });
        let ours: Vec<&String> = lines.iter().filter(|line| line.contains("certificate is not for")).collect();
        assert_eq!(ours.len(), 1, "{lines:?}");
        assert!(ours[0].contains("message=TLS failed") && ours[0].contains("peer="), "{ours:?}");
    }

    /// So is one that takes too long, in the test kit too.
    #[test]
    fn a_late_handshake_is_logged() {
        let client = Authority::new().client("example.org");
        let log = Log::default();
        let script = Script::new(&log).made(move |transport| Ok(transport.start_tls(&client)?));
        let ((), lines) = logged(|| {
            let connection = StringTransport::new().joined(script);
            connection.advance(Duration::from_secs(3600));
            assert!(connection.lost().is_some());
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("message=TLS failed") && lines[0].contains("peer="), "{lines:?}");
    }
}

/// Tells this program that it is the one without a subscriber.
const SILENT: &str = "ROPEWALK_TEST_WITHOUT_SUBSCRIBER";

/// A program's standard error without a subscriber, and its exit code.
fn without_subscriber(test: &str, scenario: &str) -> (Option<i32>, String) {
    let output = this_program(test).env(SILENT, scenario).env_remove("RUST_BACKTRACE").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Without a subscriber a failure of a callback, and a failure that nothing handles, are lines on
/// standard error.
#[test]
fn without_a_subscriber_errors_go_to_standard_error() {
    if std::env::var_os(SILENT).is_some() {
        let reactor = reactor();
        let log = Log::default();
        let (_port, address) = listen(&reactor, once(Script::new(&log).data(|_, _| Err(bad_order()))));
        let mut stream = dial(address);
        stream.write_all(b"now").unwrap();
        run_until(&reactor, || log.is_over());
        drop(Deferred::<()>::fail("lost on the way"));
        return;
    }
    own_process!();
    let (code, said) = without_subscriber("logs::without_a_subscriber_errors_go_to_standard_error", "callback");
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(": error: ")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("data_received failed") && lines[0].contains("the order of rope can't be read: invalid"));
    assert!(lines[1].contains("unhandled error in a Deferred") && lines[1].contains("lost on the way"));
}

/// Does what a scenario of `run` says, and ends the process with its exit code.
fn run_scenario(scenario: &str) -> ! {
    let code = match scenario {
        "succeeds" => ropewalk::run(|_| Ok(())),
        "later" => ropewalk::run(|reactor| ropewalk::task::defer_later(reactor, Duration::from_millis(1), || Ok(()))),
        "fails" => ropewalk::run(|_| Err::<(), _>(bad_order())),
        "fails later" => ropewalk::run(|reactor| {
            ropewalk::task::defer_later(reactor, Duration::from_millis(1), || Err::<(), _>(bad_order()))
        }),
        "panics" => ropewalk::run(|_: &Reactor| -> Result<()> { panic!("the rope broke") }),
        "stops" => ropewalk::run(|reactor| {
            reactor.stop()?;
            let (promise, never) = Promise::<()>::new();
            std::mem::forget(promise);
            Ok(never)
        }),
        "awaits" => ropewalk::run(|reactor| {
            let handle = reactor.clone();
            reactor.spawn(async move {
                ropewalk::task::defer_later(&handle, Duration::from_millis(1), || Ok(())).await?;
                Err::<(), _>(bad_order())
            })
        }),
        "terminated" => ropewalk::run(|reactor| {
            let pid = rustix::process::getpid();
            let kill = move || rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            reactor.call_later(Duration::from_millis(1), kill);
            Ok(reactor.when_stopped())
        }),
        "taken" => ropewalk::run(|reactor| {
            let taken = std::net::TcpListener::bind(loopback()).unwrap();
            let description = format!("tcp:{}:interface=127.0.0.1", taken.local_addr().unwrap().port());
            let stopped = reactor.when_stopped();
            let endpoint = ropewalk::endpoints::server_from_string(reactor, &description)?;
            Ok(endpoint.listen(|_| Some(Echo)).add_callback(move |_port| {
                drop(taken);
                stopped
            }))
        }),
        _ => unreachable!("no such scenario"),
    };
    // An exit code can't be read but by the system.
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { code_of(code) })
}

fn code_of(code: ExitCode) -> i32 {
    (0..=255_u8).find(|number| ExitCode::from(*number) == code).map_or(-1, i32::from)
}

/// The exit code of a program under `run`, and what it says: success, a failure now and later, a
/// panic, a stop, a signal, and a port that is taken.
#[test]
fn run_has_an_exit_code_and_says_why() {
    if let Some(scenario) = std::env::var_os(SILENT) {
        run_scenario(scenario.to_str().unwrap());
    }
    own_process!();
    let order = "Error: the order of rope can't be read: invalid digit found in string\n";
    for (scenario, code, said) in [
        ("succeeds", 0, ""),
        ("later", 0, ""),
        ("fails", 1, order),
        ("fails later", 1, order),
        ("awaits", 1, order),
        ("panics", 1, "Error: a callback panicked: the rope broke\n"),
        ("stops", 0, ""),
        ("terminated", 128 + 15, ""),
        ("taken", 1, "Error: cannot listen on 127.0.0.1:"),
    ] {
        let (exit, printed) = without_subscriber("logs::run_has_an_exit_code_and_says_why", scenario);
        assert_eq!(exit, Some(code), "{scenario}: {printed}");
        assert!(printed.contains(said), "{scenario}: {printed}");
        assert!(!said.is_empty() || printed.is_empty(), "{scenario}: {printed}");
    }
}

/// `when_stopped` fires before ports and connections are closed, and a program may still use them
/// then.
#[test]
fn when_stopped_comes_before_connections_end() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, once(Script::new(&log)));
    let stopped = log.clone();
    drop(reactor.when_stopped().add_callback(move |()| stopped.add("stopped")));
    let (handle, seen) = (reactor.clone(), log.clone());
    let peers = Rc::new(std::cell::RefCell::new(Vec::new()));
    let place = Rc::clone(&peers);
    reactor.call_when_running(move || {
        place.borrow_mut().push(dial(address));
        stop_when_made(handle, seen);
    });
    run(&reactor).unwrap();
    assert_eq!(log.all(), ["made", "stopped", "lost: the reactor stopped"]);
}

fn stop_when_made(reactor: Reactor, log: Log) {
    if log.has("made") {
        return reactor.stop().unwrap();
    }
    reactor.clone().call_later(Duration::from_millis(1), move || stop_when_made(reactor, log));
}
