//! SIGINT and SIGTERM, in processes of their own: each test runs this file's `child` in a new process, which says on its
//! standard error what it is at.

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use common::*;
use ropewalk::deferred::Promise;
use ropewalk::{Phase, Reactor, SystemEvent};
use rustix::process::{Pid, Signal, kill_process};

/// Names what the child is to do.
const SCENARIO: &str = "ROPEWALK_TEST_SIGNALS";

fn say(what: impl std::fmt::Display) {
    eprintln!("child: {what}");
}

/// Not a test by itself: what the others run in a process of its own.
#[test]
#[ignore = "run by the other tests of this file, in a process of its own"]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let _watchdog = Watchdog::new();
    let reactor = Reactor::builder().signals(scenario != "off").build().unwrap();
    let rounds = if scenario == "twice" { 2 } else { 1 };
    for _ in 0..rounds {
        for phase in [Phase::Before, Phase::After] {
            reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || say(format!("{phase:?} shutdown")));
        }
        reactor.call_when_running(|| say("running"));
        let (promise, hanging) = Promise::<()>::new();
        if scenario == "hang" {
            reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
                say("hanging");
                hanging
            });
        }
        let handle = reactor.clone();
        if scenario == "stop" {
            reactor.call_when_running(move || handle.stop().unwrap());
        }
        let result = reactor.run();
        say(format!("{result:?} {:?}", reactor.exit_signal()));
        drop(promise);
    }
    if scenario == "after" {
        let (_never, wait) = mpsc::channel::<()>();
        let _ = wait.recv_timeout(LIMIT);
    }
}

/// A child that is being talked to.
struct Process {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn start(scenario: &str) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), scenario)
    }

    /// A child that is started by a process which ignores SIGINT, as `nohup` and shells do it.
    fn start_ignoring_interrupts(scenario: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        Self::spawn(command, scenario)
    }

    fn spawn(mut command: Command, scenario: &str) -> Self {
        command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(SCENARIO, scenario).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits for what the child says next. Its watchdog ends it, and so this wait, at the limit.
    #[track_caller]
    fn expect(&mut self, what: &str) {
        let said = self.said.by_ref().map(Result::unwrap).find(|line| line.starts_with("child: "));
        assert_eq!(said.as_deref().map(|line| &line["child: ".len()..]), Some(what));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether one of the masks in its status has the signal.
    fn is_in_mask(&self, mask: &str, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let bits = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap();
        u64::from_str_radix(bits.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Waits for the end; nothing more may have been said.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        let rest: Vec<String> = self.said.by_ref().map(Result::unwrap).collect();
        assert_eq!(rest, Vec::<String>::new());
        self.child.wait().unwrap()
    }
}

/// SIGTERM and SIGINT each stop a running reactor as `stop` does, and `run` returns with the signal known.
#[test]
fn a_signal_stops_the_reactor() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let mut process = Process::start("plain");
        process.expect("running");
        process.signal(signal);
        process.expect("Before shutdown");
        process.expect("After shutdown");
        process.expect(&format!("Ok(()) Some({number})"));
        assert!(process.end().success());
    }
}

/// Every run has its handlers, and its own signal.
#[test]
fn each_run_has_its_signal() {
    let mut process = Process::start("twice");
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        process.expect("running");
        process.signal(signal);
        process.expect("Before shutdown");
        process.expect("After shutdown");
        process.expect(&format!("Ok(()) Some({number})"));
    }
    assert!(process.end().success());
}

/// Without a signal there is none to tell of.
#[test]
fn without_a_signal_there_is_none() {
    let mut process = Process::start("stop");
    process.expect("running");
    process.expect("Before shutdown");
    process.expect("After shutdown");
    process.expect("Ok(()) None");
    assert!(process.end().success());
}

/// A second signal while a shutdown waits ends the loop at once: later triggers do not run.
#[test]
fn a_second_signal_does_not_wait() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start("hang");
        process.expect("running");
        process.signal(signal);
        process.expect("Before shutdown");
        process.expect("hanging");
        process.signal(signal);
        process.expect(&format!("Ok(()) Some({})", signal.as_raw()));
        assert!(process.end().success());
    }
}

/// After `run` has returned, a signal does what it did before: it kills the process.
#[test]
fn signals_are_given_back_after_the_run() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut process = Process::start("after");
        process.expect("running");
        process.signal(Signal::TERM);
        process.expect("Before shutdown");
        process.expect("After shutdown");
        process.expect("Ok(()) Some(15)");
        process.signal(signal);
        assert_eq!(process.end().signal(), Some(signal.as_raw()));
    }
}

/// A reactor that is told to leave signals alone does.
#[test]
fn signals_can_be_left_alone() {
    let mut process = Process::start("off");
    process.expect("running");
    for signal in [Signal::INT, Signal::TERM] {
        assert!(!process.is_in_mask("SigCgt:", signal));
    }
    process.signal(Signal::TERM);
    assert_eq!(process.end().signal(), Some(15));
}

/// What was ignored when the process started stays ignored; the other signal works.
#[test]
fn an_ignored_signal_stays_ignored() {
    let mut process = Process::start_ignoring_interrupts("after");
    process.expect("running");
    assert!(process.is_in_mask("SigIgn:", Signal::INT) && process.is_in_mask("SigCgt:", Signal::TERM));
    process.signal(Signal::INT);
    process.signal(Signal::TERM);
    process.expect("Before shutdown");
    process.expect("After shutdown");
    process.expect("Ok(()) Some(15)");
    // Nor is it brought about by us after the run.
    assert!(process.is_in_mask("SigIgn:", Signal::INT));
    process.signal(Signal::INT);
    process.signal(Signal::TERM);
    assert_eq!(process.end().signal(), Some(15));
}
