//! The ends of processes: statuses, signals, zombies, and ends that other code has seen first.

use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::*;
use ropewalk::Clock;
use ropewalk::error::ProcessError;
use ropewalk::process::Signal;

/// Short children of a test of zombies. Enough for ends that coincide.
const MANY: usize = 1_000;

/// Each exit code and signal arrives as it is.
#[test]
fn a_status_is_a_code_or_a_signal() {
    own_process!();
    on_each(|reactor| {
        for code in [0, 1, 127, 255] {
            let seen = run_to_end(&reactor, &shell(&format!("exit {code}")));
            assert_eq!(seen.status(), ProcessStatus::Exited(code));
        }
        for signal in [Signal::HUP, Signal::KILL, Signal::TERM, Signal::from_number(40).expect("a signal")] {
            let seen = run_to_end(&reactor, &shell(&format!("kill -{} $$", signal.number())));
            assert_eq!(seen.status().signal(), Some(signal));
        }
    });
}

/// A signal reaches a running process, and none that has exited.
#[test]
fn signals_are_refused_after_the_exit() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = reactor.spawn_process(&Command::new("/bin/cat"), seen.recorder()).expect("it starts");
        let real_time = Signal::from_number(34).expect("a signal");
        process.signal(Signal::STOP).expect("it runs");
        process.signal(Signal::CONT).expect("it runs");
        process.signal(real_time).expect("it runs");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.status().signal(), Some(real_time));
        for result in [process.signal(Signal::TERM), process.kill()] {
            assert!(matches!(result, Err(ProcessError::ExitedAlready)), "{result:?}");
        }
    });
}

/// F42: a thousand children that exit at once leave no zombie, and each is told of once.
#[test]
fn a_thousand_children_leave_no_zombie() {
    own_process!();
    allow_many_descriptors();
    on_each(|reactor| {
        let seen = Seen::default();
        // A batch at a time, since each has four descriptors.
        for batch in 1..=10 {
            for _ in 0..MANY / 10 {
                reactor.spawn_process(&Command::new("true"), seen.recorder()).expect("it starts");
            }
            run_until(&reactor, || seen.log.count("ended") == batch * MANY / 10);
        }
        assert_eq!(seen.log.count("ended: exited with code 0"), MANY);
        assert_eq!(seen.log.count("exited"), MANY);
        assert_eq!(children(), (0, 0));
    });
}

/// The same with ten thousand.
#[test]
#[ignore = "it takes half a minute; run: cargo test --test processes ten_thousand -- --ignored"]
fn ten_thousand_children_leave_no_zombie() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        for ended in 1..=10_000 {
            reactor.spawn_process(&Command::new("true"), seen.recorder()).expect("it starts");
            if ended % 20 == 0 {
                run_until(&reactor, || seen.log.count("ended") == ended);
            }
        }
        assert_eq!(children(), (0, 0));
    });
}

/// F43: other code has waited for the child. The end is told, with an unknown status.
#[test]
fn a_child_that_was_reaped_elsewhere_ends() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = reactor.spawn_process(&shell("exit 7"), seen.recorder()).expect("it starts");
        let pid = Pid::from_raw(process.pid().try_into().expect("a number"));
        waitpid(pid, WaitOptions::empty()).expect("it has ended");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.status(), ProcessStatus::Unknown);
        assert_eq!(seen.log.count("exited: ended, with an unknown status"), 1);
    });
}

/// Other children of the program are not waited for.
#[test]
fn foreign_children_are_left_alone() {
    own_process!();
    on_each(|reactor| {
        let mut foreign = std::process::Command::new("true").spawn().expect("it starts");
        let seen = run_to_end(&reactor, &shell("exit 0"));
        assert!(seen.status().is_success());
        assert!(foreign.wait().expect("it is still ours to wait for").success());
    });
}

/// F46: a child of the child keeps the output open. The exit is told at once, the end when the pipe
/// is closed.
#[test]
fn a_grandchild_that_keeps_the_output_delays_the_end() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        // The grandchild ends when its input does, which is a pipe of its own.
        let mut command = shell("{ cat <&3 >/dev/null; echo late; } & exit 0");
        command.descriptor(3, ropewalk::process::ChildDescriptor::Write);
        let process = reactor.spawn_process(&command, seen.recorder()).expect("it starts");
        run_until(&reactor, || seen.log.has("exited"));
        settle(&reactor);
        assert!(!seen.is_ended() && process.status() == Some(ProcessStatus::Exited(0)));
        process.close_child(3);
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "late\n");
        assert_eq!(children(), (0, 0));
    });
}

/// The same with a limit: the pipes are closed when it has passed.
#[test]
fn pipe_grace_ends_a_process_whose_pipes_stay_open() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let mut command = shell("sleep 1000 & echo $!; exit 0");
        command.pipe_grace(Duration::from_millis(20));
        reactor.spawn_process(&command, seen.recorder()).expect("it starts");
        run_until(&reactor, || seen.is_ended());
        let events = seen.log.all();
        assert!(
            events.iter().position(|event| event == "lost 1")
                > events.iter().position(|event| event.starts_with("exited"))
        );
        let grandchild = seen.text().trim().parse().ok().and_then(Pid::from_raw).expect("its number");
        rustix::process::kill_process(grandchild, rustix::process::Signal::KILL).expect("it runs");
    });
}

/// The output that the process has left in its pipe is delivered, though the limit is over. The
/// output of a child that goes on and on is not.
#[test]
fn pipe_grace_leaves_no_output_behind() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().made(|process| {
            process.pause_child(1);
            Ok(())
        });
        let mut command = shell("head -c 60000 /dev/zero; cat <&3 & exit 0");
        command.pipe_grace(Duration::ZERO).descriptor(3, ropewalk::process::ChildDescriptor::Write);
        let process = reactor.spawn_process(&command, recorder).expect("it starts");
        run_until(&reactor, || seen.log.has("lost 3"));
        assert!(seen.log.has("exited") && seen.output.borrow().is_empty());
        process.resume_child(1);
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.output.borrow().len(), 60_000);
        let seen = Seen::default();
        let mut command = shell("yes & exit 0");
        command.pipe_grace(Duration::ZERO);
        reactor.spawn_process(&command, seen.recorder()).expect("it starts");
        run_until(&reactor, || seen.is_ended());
    });
}

/// The timer of that limit goes with the process, whichever of its ends came first.
#[test]
fn pipe_grace_leaves_no_timer() {
    own_process!();
    on_each(|reactor| {
        // The pipes end with the child, before it, and after it.
        for script in ["cat <&3", "exec >&- 2>&-; cat <&3", "{ cat <&3; } & exit 0"] {
            let seen = Seen::default();
            let mut command = shell(script);
            command.pipe_grace(Duration::from_secs(1000));
            command.descriptor(3, ropewalk::process::ChildDescriptor::Write);
            let process = reactor.spawn_process(&command, seen.recorder()).expect("it starts");
            settle(&reactor);
            process.close_child(3);
            run_until(&reactor, || seen.is_ended());
            assert!(reactor.delayed_calls().is_empty(), "{script}");
        }
    });
}

/// A reactor that stops leaves its processes running. Their protocols are told, once, and signals
/// are refused.
#[test]
fn a_stopped_reactor_leaves_processes_running() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = reactor.spawn_process(&shell("exec sleep 1000"), seen.recorder()).expect("it starts");
        let ((), lines) = logged(|| reactor.close().expect("it closes"));
        assert!(lines.iter().any(|line| line.contains("leaves a child process running")), "{lines:?}");
        assert_eq!(seen.status(), ProcessStatus::LeftRunning);
        assert_eq!((seen.log.count("lost"), seen.log.count("exited"), seen.log.count("ended")), (3, 0, 1));
        assert!(matches!(process.kill(), Err(ProcessError::ReactorStopped)));
        assert_eq!(children(), (0, 1));
        let pid = Pid::from_raw(process.pid().try_into().expect("a number")).expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
        waitpid(Some(pid), WaitOptions::empty()).expect("it is still ours to wait for");
    });
}

/// A process that has ended before the stop of its reactor is no zombie, and has its status.
#[test]
fn a_stopped_reactor_takes_the_status_of_ended_processes() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = reactor.spawn_process(&shell("exit 5"), seen.recorder()).expect("it starts");
        let pid = Pid::from_raw(process.pid().try_into().expect("a number")).expect("a number");
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).expect("it ends");
        reactor.close().expect("it closes");
        assert_eq!(seen.status(), ProcessStatus::Exited(5));
        assert_eq!(children(), (0, 0));
    });
}
