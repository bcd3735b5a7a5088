//! Signals. Each test starts the test [`child`] in a new process and sends signals to it; the child
//! reports each step on its standard error.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::error::SignalError;
use ropewalk::reactor::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SignalSubscription};
use ropewalk::testing::Network;
use ropewalk::{Phase, Reactor, SystemEvent};
use rustix::process::{Pid, Signal, kill_process};

/// Names what the child is to do.
const SCENARIO: &str = "ROPEWALK_TEST_SIGNALS";

/// The test that does it.
const CHILD: &str = "signals::child";

fn say(what: impl std::fmt::Display) {
    eprintln!("child: {what}");
}

/// Not a test by itself: the other tests start it in a process of its own.
#[test]
#[ignore = "run by the other tests of this file, in a process of its own"]
fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let _watchdog = Watchdog::new();
    match scenario.as_str() {
        "subscribers" => subscribers(),
        "unwieldy" => unwieldy_subscribers(),
        "stop and tell" => subscribed_to_what_stops(true),
        "tell" => subscribed_to_what_stops(false),
        "two reactors" => two_reactors(),
        "another handler" => beside_another_handler(),
        "ignored" => subscribed_to_what_was_ignored(),
        _ => stopping(&scenario),
    }
}

/// Waits for the signal that ends the process.
fn wait_for_the_end() {
    let (_never, wait) = mpsc::channel::<()>();
    let _ = wait.recv_timeout(LIMIT);
}

/// Runs, and says when it does and how it ended.
fn run(reactor: &Reactor) {
    reactor.call_when_running(|| say("running"));
    let result = reactor.run();
    say(format!("{result:?} {:?}", reactor.exit_signal()));
}

/// A subscriber that says so.
fn says(reactor: &Reactor, signal: i32, what: &'static str) -> SignalSubscription {
    reactor.on_signal(signal, move || say(what)).unwrap()
}

/// Two subscribers to SIGHUP, of which SIGUSR1 ends the second and SIGUSR2 the first; two runs, and
/// the time after them.
fn subscribers() {
    let reactor = Reactor::new().unwrap();
    let first = Rc::new(RefCell::new(Some(says(&reactor, SIGHUP, "first"))));
    let mut second = Some(says(&reactor, SIGHUP, "second"));
    let _ends_second = reactor.on_signal(SIGUSR1, move || {
        assert_eq!(second.take().unwrap().signal(), SIGHUP);
        say("the second has ended");
    });
    let ending = Rc::clone(&first);
    let _ends_first = reactor.on_signal(SIGUSR2, move || {
        ending.take().unwrap().cancel();
        say("the first has ended");
    });
    run(&reactor);
    run(&reactor);
    wait_for_the_end();
}

/// Subscribers that make the best of it: one asks for the signal again while it is called, one
/// panics, one ends itself.
fn unwieldy_subscribers() {
    std::panic::set_hook(Box::new(|_| ()));
    let reactor = Reactor::new().unwrap();
    let mut calls = 0;
    let depth = Rc::new(RefCell::new(()));
    let _again = reactor.on_signal(SIGHUP, move || {
        let _alone = depth.borrow_mut();
        calls += 1;
        say(format!("call {calls}"));
        if calls == 1 {
            signal_hook::low_level::raise(SIGHUP).unwrap();
        }
    });
    let _panics = reactor.on_signal(SIGHUP, || {
        say("panics");
        panic!("a callback for a signal");
    });
    let own = Rc::new(RefCell::new(None));
    let ends = Rc::clone(&own);
    let subscription = reactor.on_signal(SIGHUP, move || {
        say("ends itself");
        drop(ends.take());
    });
    own.replace(subscription.ok());
    let late = Rc::new(RefCell::new(None));
    let handle = reactor.clone();
    let _adds = reactor.on_signal(SIGHUP, move || {
        late.borrow_mut().get_or_insert_with(|| says(&handle, SIGHUP, "late"));
    });
    run(&reactor);
}

/// A subscriber to SIGTERM, where that stops the reactor as well, and where it does not.
fn subscribed_to_what_stops(stops: bool) {
    let reactor = Reactor::builder().signals(stops).build().unwrap();
    let handle = reactor.clone();
    let _subscription = reactor.on_signal(SIGTERM, move || say(format!("told; stop: {:?}", handle.stop().is_ok())));
    run(&reactor);
    wait_for_the_end();
}

/// Another reactor, in a thread, subscribes while it runs; SIGUSR1 stops it.
fn two_reactors() {
    let (here, beside) = (Reactor::new().unwrap(), mpsc::channel());
    let thread = thread::spawn(move || {
        let other = Reactor::builder().signals(false).build().unwrap();
        let handle = other.clone();
        other.call_when_running(move || {
            let told = says(&handle, SIGHUP, "other");
            let stopping = handle.clone();
            let stop = handle.on_signal(SIGUSR1, move || stopping.stop().unwrap()).unwrap();
            beside.0.send(()).unwrap();
            handle.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, move || drop((told, stop)));
        });
        other.run().unwrap();
        say("other is done");
    });
    beside.1.recv().unwrap();
    let _subscription = says(&here, SIGHUP, "this");
    run(&here);
    thread.join().unwrap();
}

/// A handler that another library installed before.
fn beside_another_handler() {
    let seen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&seen)).unwrap();
    let reactor = Reactor::new().unwrap();
    let sees = Arc::clone(&seen);
    let _subscription = reactor.on_signal(SIGHUP, move || say(format!("both: {}", sees.swap(false, Ordering::SeqCst))));
    run(&reactor);
    while !seen.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    say("the other alone");
    wait_for_the_end();
}

/// SIGINT and SIGHUP were ignored when the process started: subscribers are called, and the first
/// does not stop the reactor.
fn subscribed_to_what_was_ignored() {
    let reactor = Reactor::new().unwrap();
    let _interrupts = says(&reactor, SIGINT, "interrupt");
    let _hangups = says(&reactor, SIGHUP, "hangup");
    run(&reactor);
    run(&reactor);
    wait_for_the_end();
}

/// Reactors that signals stop, or not.
fn stopping(scenario: &str) {
    let reactor = Reactor::builder().signals(scenario != "off").build().unwrap();
    let rounds = if scenario == "twice" { 2 } else { 1 };
    for _ in 0..rounds {
        for phase in [Phase::Before, Phase::After] {
            reactor.add_system_event_trigger(phase, SystemEvent::Shutdown, move || say(format!("{phase:?} shutdown")));
        }
        reactor.call_when_running(|| say("running"));
        let mut kept = None;
        if scenario == "hang" {
            let (promise, hanging) = Promise::<()>::new();
            kept = Some(promise);
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
        if let Some(promise) = kept {
            let _ = promise.callback(());
        }
    }
    if scenario == "after" {
        wait_for_the_end();
    }
}

/// A child that is being talked to.
struct Process {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Process {
    /// A child that has no signal ignored, even if this process was started by `nohup` or in a
    /// shell's background.
    fn start(scenario: &str) -> Self {
        Self::spawn(with_default_signals(this_program(CHILD)), scenario)
    }

    /// A child that is started by a process which ignores SIGINT and SIGHUP, as shells and `nohup`
    /// do it.
    fn start_ignoring(scenario: &str) -> Self {
        Self::start_by(&["sh", "-c", "trap '' INT HUP; exec \"$0\" \"$@\""], scenario)
    }

    /// A child that is started by the command `by`.
    fn start_by(by: &[&str], scenario: &str) -> Self {
        let (child, mut command) = (this_program(CHILD), Command::new(by[0]));
        command.args(&by[1..]).arg(child.get_program()).args(child.get_args()).stdin(Stdio::null());
        Self::spawn(command, scenario)
    }

    fn spawn(mut command: Command, scenario: &str) -> Self {
        command.env(SCENARIO, scenario).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, said }
    }

    /// The next line of the child. Its watchdog ends it, and so this wait, at the limit.
    fn next(&mut self) -> Option<String> {
        self.said.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("child: ").map(str::to_owned))
    }

    /// Waits for what the child says next.
    #[track_caller]
    fn expect(&mut self, what: &str) {
        assert_eq!(self.next().as_deref(), Some(what));
    }

    /// Waits for the next two lines, which come from two threads.
    #[track_caller]
    fn expect_both(&mut self, what: [&str; 2]) {
        let mut said = [self.next(), self.next()];
        said.sort();
        assert_eq!(said.each_ref().map(Option::as_deref), what.map(Some));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns `true` if this mask in the child's status has the signal.
    fn is_in_mask(&self, mask: &str, signal: Signal) -> bool {
        is_in_mask(&self.child.id().to_string(), mask, signal.as_raw())
    }

    /// Waits for the end; nothing more may have been said.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        let rest: Vec<String> = self.said.by_ref().map(Result::unwrap).collect();
        assert_eq!(rest, Vec::<String>::new());
        self.child.wait().unwrap()
    }
}

/// SIGTERM and SIGINT each stop a running reactor as `stop` does, and `run` returns with the signal
/// known.
#[test]
fn a_signal_stops_the_reactor() {
    own_process!();
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
    own_process!();
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
    own_process!();
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
    own_process!();
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
    own_process!();
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

/// A reactor without signal handling leaves signals alone.
#[test]
fn signals_can_be_left_alone() {
    own_process!();
    let mut process = Process::start("off");
    process.expect("running");
    for signal in [Signal::INT, Signal::TERM] {
        assert!(!process.is_in_mask("SigCgt:", signal));
    }
    process.signal(Signal::TERM);
    assert_eq!(process.end().signal(), Some(15));
}

/// A signal that was ignored when the process started stays ignored; the other signal works.
#[test]
fn an_ignored_signal_stays_ignored() {
    own_process!();
    let mut process = Process::start_ignoring("after");
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

/// Subscribers are called in their order, until their subscriptions end, in every run; behind the
/// run the signal does what it did before.
#[test]
fn subscribers_are_told() {
    own_process!();
    let mut process = Process::start("subscribers");
    for said in [&["first", "second"][..], &["first"]] {
        process.expect("running");
        process.signal(Signal::HUP);
        said.iter().for_each(|said| process.expect(said));
        if said.len() == 2 {
            process.signal(Signal::USR1);
            process.expect("the second has ended");
            process.signal(Signal::HUP);
            process.expect("first");
        }
        process.signal(Signal::TERM);
        process.expect("Ok(()) Some(15)");
    }
    process.signal(Signal::HUP);
    assert_eq!(process.end().signal(), Some(SIGHUP));
}

/// When the last subscription ends while the reactor runs, the signal does at once what it did
/// before.
#[test]
fn the_last_subscription_gives_the_signal_back() {
    own_process!();
    let mut process = Process::start("subscribers");
    process.expect("running");
    process.signal(Signal::USR1);
    process.expect("the second has ended");
    process.signal(Signal::USR2);
    process.expect("the first has ended");
    process.signal(Signal::HUP);
    assert_eq!(process.end().signal(), Some(SIGHUP));
}

/// A callback that panics, ends itself, subscribes or is signalled anew disturbs no other, and none
/// comes inside another.
#[test]
fn unwieldy_callbacks_of_signals() {
    own_process!();
    let mut process = Process::start("unwieldy");
    process.expect("running");
    process.signal(Signal::HUP);
    for said in ["call 1", "panics", "ends itself", "call 2", "panics", "late"] {
        process.expect(said);
    }
    process.signal(Signal::HUP);
    for said in ["call 3", "panics", "late"] {
        process.expect(said);
    }
    process.signal(Signal::TERM);
    process.expect("Ok(()) Some(15)");
    assert!(process.end().success());
}

/// A subscriber to SIGTERM is called when that has stopped the reactor; where it does not stop it,
/// the subscriber may.
#[test]
fn subscribers_to_what_stops() {
    own_process!();
    for (scenario, told, exit) in
        [("stop and tell", "told; stop: false", "Ok(()) Some(15)"), ("tell", "told; stop: true", "Ok(()) None")]
    {
        let mut process = Process::start(scenario);
        process.expect("running");
        process.signal(Signal::TERM);
        process.expect(told);
        process.expect(exit);
        // It is subscribed still, but nothing runs.
        process.signal(Signal::TERM);
        assert_eq!(process.end().signal(), Some(SIGTERM));
    }
}

/// Two reactors of a process receive the same signal; when one has stopped, the other goes on.
#[test]
fn two_reactors_with_subscribers() {
    own_process!();
    let mut process = Process::start("two reactors");
    process.expect("running");
    process.signal(Signal::HUP);
    process.expect_both(["other", "this"]);
    process.signal(Signal::USR1);
    process.expect("other is done");
    process.signal(Signal::HUP);
    process.expect("this");
    process.signal(Signal::TERM);
    process.expect("Ok(()) Some(15)");
    assert!(process.end().success());
}

/// A handler of another library that was there before is called beside the subscriber, and alone
/// behind the run.
#[test]
fn a_handler_of_another_library() {
    own_process!();
    let mut process = Process::start("another handler");
    process.expect("running");
    process.signal(Signal::HUP);
    process.expect("both: true");
    process.signal(Signal::TERM);
    process.expect("Ok(()) Some(15)");
    process.signal(Signal::HUP);
    process.expect("the other alone");
    process.signal(Signal::TERM);
    assert_eq!(process.end().signal(), Some(SIGTERM));
}

/// Signals that were ignored from the start call their subscribers; SIGINT stops no reactor for
/// that, in no run, and behind the run they do nothing.
#[test]
fn subscribers_to_ignored_signals() {
    own_process!();
    let mut process = Process::start_ignoring("ignored");
    for _ in 0..2 {
        process.expect("running");
        process.signal(Signal::INT);
        process.expect("interrupt");
        process.signal(Signal::HUP);
        process.expect("hangup");
        process.signal(Signal::TERM);
        process.expect("Ok(()) Some(15)");
    }
    process.signal(Signal::INT);
    process.signal(Signal::HUP);
    process.signal(Signal::TERM);
    assert_eq!(process.end().signal(), Some(SIGTERM));
}

/// Signals that no program can handle are refused with their number, and so is everything on a
/// simulated network.
#[test]
fn signals_that_cannot_be_handled() {
    let reactor = reactor();
    for signal in [4, 8, 9, 11, rustix::process::Signal::STOP.as_raw()] {
        let error = reactor.on_signal(signal, || ()).unwrap_err();
        assert!(matches!(error, SignalError::Forbidden { signal: said } if said == signal), "{error}");
    }
    for signal in [i32::MIN, -1, 0, 34, 64, 65, 1_000, i32::MAX] {
        let error = reactor.on_signal(signal, || ()).unwrap_err();
        assert!(matches!(error, SignalError::Unknown { signal: said } if said == signal), "{error}");
    }
    let simulated = Network::new(1).reactor(std::net::Ipv4Addr::LOCALHOST.into());
    let error = simulated.on_signal(SIGHUP, || ()).unwrap_err();
    assert!(matches!(error, SignalError::Install { signal: SIGHUP, .. }), "{error}");
}
