//! A child process as the peer of a connection: the endpoint, its description, its ends.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek};
use std::rc::Rc;

use super::common::*;
use ropewalk::endpoints::{ClientEndpoint, ClientEndpointExt, EndpointRegistry, ProcessEndpoint, client_from_string};
use ropewalk::error::{ConnectError, ConnectionClosed, ProcessTerminated, SpawnError};
use ropewalk::process::{ChildDescriptor, Command, Signal, StandardErrorBehavior};
use ropewalk::testing::Network;
use ropewalk::{
    Address, BackendKind, Clock, Failure, ProcessTransport, Protocol, Reactor, Result, Transport, for_protocol,
};
use rustix::fs::{MemfdFlags, memfd_create};

/// The end of a connection, and the bytes before it.
#[derive(Default)]
struct Seen {
    log: Log,
    output: Rc<RefCell<Vec<u8>>>,
    reason: Rc<RefCell<Option<Failure>>>,
}

struct Recorder {
    log: Log,
    output: Rc<RefCell<Vec<u8>>>,
    reason: Rc<RefCell<Option<Failure>>>,
    input: Option<Vec<u8>>,
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.log.add("made");
        assert_eq!((transport.host(), transport.peer()), (Address::Pipe, Address::Pipe));
        if let Some(input) = self.input.take() {
            transport.write(&input);
            transport.lose_write_connection();
        }
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.output.borrow_mut().extend_from_slice(data);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
        self.log.add("lost");
        self.reason.replace(Some(reason.clone()));
    }
}

impl Seen {
    fn recorder(&self, input: Option<&[u8]>) -> Recorder {
        let (log, output, reason) = (self.log.clone(), Rc::clone(&self.output), Rc::clone(&self.reason));
        Recorder { log, output, reason, input: input.map(<[u8]>::to_vec) }
    }

    fn is_lost(&self) -> bool {
        self.log.has("lost")
    }

    fn text(&self) -> String {
        String::from_utf8(self.output.borrow().clone()).expect("text")
    }

    #[track_caller]
    fn reason(&self) -> Failure {
        self.reason.borrow().clone().expect("it is over")
    }
}

fn on_each(mut test: impl FnMut(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// Connects to a process, and runs until the connection is lost.
#[track_caller]
fn run(reactor: &Reactor, endpoint: &(impl ClientEndpoint + ?Sized), input: Option<&[u8]>) -> Seen {
    let seen = Seen::default();
    let mut recorder = Some(seen.recorder(input));
    let mut connecting = endpoint.connect(move |_: Address| recorder.take());
    assert!(!seen.log.has("made"), "nothing is called inside of connect");
    run_until(reactor, || seen.is_lost());
    connecting.take_result().expect("it fires after connection_made").expect("it is connected");
    assert_eq!(seen.log.all(), ["made", "lost"]);
    seen
}

fn shell(reactor: &Reactor, script: &str) -> ProcessEndpoint {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    ProcessEndpoint::new(reactor, command)
}

/// A process is a peer: bytes go in, bytes come out, and the exit is the end.
#[test]
fn a_process_is_a_peer() {
    own_process!();
    on_each(|reactor| {
        let before = descriptors();
        let megabyte: Vec<u8> = (0..1_000_000_u32).map(|at| at as u8).collect();
        let seen = run(&reactor, &ProcessEndpoint::new(&reactor, Command::new("cat")), Some(&megabyte));
        assert!(*seen.output.borrow() == megabyte, "{} bytes", seen.output.borrow().len());
        assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)), "{}", seen.reason());
        settle(&reactor);
        assert!(descriptors() <= before + 1, "the loop may have opened its timer");
    });
}

/// A failed process is the reason of the loss, behind the last byte.
#[test]
fn a_failed_process_is_the_reason_of_the_loss() {
    own_process!();
    on_each(|reactor| {
        for (script, code, signal, text) in [
            ("echo out; exit 3", Some(3), None, "the process did not succeed: exited with code 3"),
            ("echo out; kill -KILL $$", None, Some(9), "the process did not succeed: killed by SIGKILL"),
        ] {
            let seen = run(&reactor, &shell(&reactor, script), None);
            assert_eq!(seen.text(), "out\n");
            let reason = seen.reason();
            assert!(matches!(reason.check(), Some(ConnectionClosed::Lost { unsent: 0, .. })), "{reason}");
            let terminated = ProcessTerminated::of(&reason).expect("the process has failed");
            assert_eq!((terminated.code, terminated.signal), (code, signal));
            assert_eq!(terminated.to_string(), text);
        }
    });
}

/// A process that reads nothing, or closes its input, is no broken connection. Bytes for it are
/// dropped, as in Twisted, and its output is read to the end.
#[test]
fn unread_input_is_dropped() {
    own_process!();
    on_each(|reactor| {
        for script in ["exec <&-; echo closed; sleep 0.05; echo more", "echo closed; echo more"] {
            // More than a pipe holds, so that a send waits for room.
            let seen = run(&reactor, &shell(&reactor, script), Some(&vec![b'x'; 300_000]));
            assert_eq!(seen.text(), "closed\nmore\n");
            assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)), "{}", seen.reason());
        }
    });
}

/// Output that is closed early is not the end, and output of a grandchild comes before the end.
#[test]
fn the_end_is_that_of_the_process_and_of_its_output() {
    own_process!();
    on_each(|reactor| {
        let seen = run(&reactor, &shell(&reactor, "echo out; exec >&-; exit 7"), None);
        assert_eq!((seen.text().as_str(), ProcessTerminated::of(&seen.reason()).unwrap().code), ("out\n", Some(7)));
        let seen = run(&reactor, &shell(&reactor, "(sleep 0.1; echo grandchild) & exit 0"), None);
        assert_eq!(seen.text(), "grandchild\n");
        assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)));
    });
}

/// A program that does not start is a failure of the Deferred, and nothing is left.
#[test]
fn a_program_that_does_not_start() {
    own_process!();
    on_each(|reactor| {
        let before = descriptors();
        let seen = Seen::default();
        let failed = |endpoint: ProcessEndpoint| {
            let mut recorder = Some(seen.recorder(None));
            let mut connecting = endpoint.connect(move |_: Address| recorder.take());
            settle(&reactor);
            connecting.take_result().expect("it has failed").expect_err("it does not start")
        };
        let failure = failed(ProcessEndpoint::new(&reactor, Command::new("/no/such/program")));
        assert!(matches!(failure.check(), Some(SpawnError::Program { .. })), "{failure}");
        let mut command = Command::new("true");
        command.terminal(ropewalk::process::WindowSize::new(24, 80));
        let failure = failed(ProcessEndpoint::new(&reactor, command));
        assert!(failure.to_string().contains("over pipes, and no terminal"), "{failure}");
        assert_eq!(seen.log.all(), [""; 0]);

        // A factory without a protocol starts no process.
        let mut refused = shell(&reactor, "exit 0").connect(|_: Address| None::<Recorder>);
        settle(&reactor);
        let failure = refused.take_result().expect("it has failed").expect_err("there is no protocol");
        assert!(matches!(failure.check(), Some(ConnectError::NoProtocol { .. })), "{failure}");

        // Cancelled in the same turn.
        let mut cancelled = shell(&reactor, "exit 0").connect(for_protocol(|_| -> Recorder { unreachable!() }));
        cancelled.cancel();
        settle(&reactor);
        assert!(cancelled.take_result().expect("it is cancelled").is_err());
        assert_eq!(descriptors(), before);
    });
}

/// The handle of the process: its number before the first callback, and signals.
#[test]
fn a_started_process_can_be_signalled() {
    own_process!();
    on_each(|reactor| {
        let process = Rc::new(RefCell::new(None::<ProcessTransport>));
        let kept = Rc::clone(&process);
        let endpoint = ProcessEndpoint::new(&reactor, Command::new("cat")).on_start(move |process| {
            kept.replace(Some(process.clone()));
        });
        let seen = Seen::default();
        let mut recorder = Some(seen.recorder(None));
        endpoint.connect(move |_: Address| recorder.take()).or_log("a process");
        run_until(&reactor, || seen.log.has("made"));
        let process = process.borrow().clone().expect("it was called");
        assert!(process.is_running());
        process.signal(Signal::TERM).expect("it runs");
        run_until(&reactor, || seen.is_lost());
        assert_eq!(ProcessTerminated::of(&seen.reason()).unwrap().signal, Some(15));
    });
}

/// Closing ends the input, and the process ends by itself. The loss does not wait for it.
#[test]
fn closing_ends_the_input() {
    own_process!();
    on_each(|reactor| {
        let process = Rc::new(RefCell::new(None::<ProcessTransport>));
        let kept = Rc::clone(&process);
        let endpoint = ProcessEndpoint::new(&reactor, Command::new("cat"));
        let endpoint = endpoint.on_start(move |process| drop(kept.replace(Some(process.clone()))));
        let seen = Seen::default();
        let mut recorder = Some(seen.recorder(None));
        let mut connecting = endpoint.connect(move |_: Address| recorder.take());
        run_until(&reactor, || seen.log.has("made"));
        let connection = connecting.take_result().expect("it fires").expect("it is connected");
        connection.transport().lose_connection();
        run_until(&reactor, || seen.is_lost());
        assert!(matches!(seen.reason().check(), Some(ConnectionClosed::Done)));
        let process = process.borrow().clone().expect("it was called");
        run_until(&reactor, || !process.is_running());
        assert!(process.status().expect("it has exited").is_success());
    });
}

/// Input that is queued when the connection is closed waits for the process: no timer cuts it.
#[test]
fn a_process_that_reads_late_gets_all_of_its_input() {
    own_process!();
    on_each(|reactor| {
        let mut file = File::from(memfd_create("number", MemfdFlags::CLOEXEC).unwrap());
        let process = Rc::new(RefCell::new(None::<ProcessTransport>));
        let kept = Rc::clone(&process);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cat <&3; wc -c >&4"]).descriptor(3, ChildDescriptor::Write);
        command.descriptor(4, ChildDescriptor::share(file.try_clone().unwrap()));
        let endpoint = ProcessEndpoint::new(&reactor, command);
        let endpoint = endpoint.on_start(move |process| drop(kept.replace(Some(process.clone()))));
        let seen = Seen::default();
        let mut recorder = Some(seen.recorder(None));
        let mut connecting = endpoint.connect(move |_: Address| recorder.take());
        run_until(&reactor, || seen.log.has("made"));
        let connection = connecting.take_result().expect("it fires").expect("it is connected");
        connection.transport().write(&vec![b'x'; 1 << 20]);
        connection.transport().lose_connection();
        settle(&reactor);
        assert!(!seen.is_lost() && reactor.delayed_calls().is_empty());
        let process = process.borrow().clone().expect("it was called");
        process.close_child(3);
        run_until(&reactor, || seen.is_lost() && !process.is_running());
        let mut number = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut number).unwrap();
        assert_eq!(number, "1048576\n");
    });
}

/// The standard error is logged by lines, or dropped.
#[test]
fn standard_error_is_logged_or_dropped() {
    own_process!();
    let reactor = reactor();
    let script = "echo first >&2; printf 'se\\033cond' >&2; echo out";
    let wanted = |metadata: &tracing::Metadata<'_>| *metadata.level() == tracing::Level::INFO;
    let (seen, lines) = logs::recorded(wanted, || {
        let process = Rc::new(RefCell::new(None::<ProcessTransport>));
        let kept = Rc::clone(&process);
        let endpoint = shell(&reactor, script).on_start(move |process| drop(kept.replace(Some(process.clone()))));
        let seen = run(&reactor, &endpoint, None);
        let process = process.borrow().clone().expect("it was called");
        run_until(&reactor, || process.child(2).is_none());
        seen
    });
    assert_eq!(seen.text(), "out\n");
    let lines = lines.join("\n");
    assert!(lines.contains("first") && lines.contains(r"se\u{1b}cond"), "{lines}");
    let dropped = shell(&reactor, script).standard_error(StandardErrorBehavior::Drop);
    let (_, lines) = logs::recorded(wanted, || run(&reactor, &dropped, None));
    assert_eq!(lines, [""; 0]);
}

/// Each part of a description reaches the program.
#[test]
fn a_description_names_program_arguments_and_surroundings() {
    own_process!();
    on_each(|reactor| {
        let text = r"process:/bin/sh:-c:pwd; echo $A-$B-$1-$2-$HOME:zero:one\:1:--two\=2:env.A=a:env.B=b\=c:directory=/usr:clearEnv=1";
        let endpoint = client_from_string(&reactor, text).expect("a description");
        assert_eq!(run(&reactor, &*endpoint, None).text(), "/usr\na-b=c-one:1---two=2-\n");
        let endpoint = client_from_string(&reactor, "process:tr:a-z:A-Z:stderr=drop").expect("a description");
        assert_eq!(run(&reactor, &*endpoint, Some(b"shout")).text(), "SHOUT");
    });
}

/// Errors of descriptions name the place and the expectation.
#[test]
fn wrong_descriptions_are_explained() {
    let (reactor, registry) = (reactor(), EndpointRegistry::new());
    for (text, message) in [
        ("process", r#"in "process" at byte 7: program is missing"#),
        ("process:", r#"in "process:" at byte 8: "" is not a program: expected the name or the path of a program"#),
        ("process:cat:stderr=both", r#"at byte 19: "both" is not a stderr: expected log, drop or inherit"#),
        ("process:cat:uid=root", r#"at byte 16: "root" is not an uid: expected a whole number from 0 to 4294967294"#),
        ("process:cat:atQueueLimit=abort", "expected nothing without queueLimit, the number of bytes"),
        ("process:cat:env.=1", "env. is followed by the name of a variable"),
        (
            "process:cat:--level=3",
            "--level\" is not an argument of this type of endpoint: expected program, directory, uid, gid, clearEnv, \
             stderr, queueLimit, atQueueLimit or env.NAME",
        ),
    ] {
        let Err(error) = registry.client_from_string(&reactor, text) else { panic!("{text} is taken") };
        let error = error.to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(registry.server_from_string(&reactor, "process:cat").is_err(), "it is a type for clients");
}

/// A simulated network starts no process, and says so.
#[test]
fn a_simulated_network_starts_no_process() {
    let network = Network::new(1);
    let reactor = network.reactor([192, 0, 2, 1].into());
    let endpoint = ProcessEndpoint::new(&reactor, Command::new("true"));
    let mut connecting = endpoint.connect(for_protocol(|_| -> Recorder { unreachable!() }));
    network.settle().expect("it goes on");
    let failure = connecting.take_result().expect("it has failed").expect_err("it does not start");
    assert!(matches!(failure.check(), Some(SpawnError::Unsupported)), "{failure}");
}
