//! Processes in a terminal of their own.

use super::*;
use ropewalk::error::ProcessError;
use ropewalk::process::{Signal, WindowSize};

/// Starts a script in a terminal of 30 lines.
fn in_terminal(reactor: &Reactor, seen: &Seen, script: &str) -> ProcessTransport {
    let mut command = shell(script);
    command.terminal(WindowSize::new(30, 100));
    reactor.spawn_process(&command, seen.recorder()).expect("it starts")
}

/// The three standard streams are one terminal, of the given size, and its end is the child's.
#[test]
fn the_standard_streams_are_a_terminal() {
    own_process!();
    on_each(|reactor| {
        let before = descriptors();
        let seen = Seen::default();
        in_terminal(&reactor, &seen, "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty size; echo err >&2; : </dev/tty");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "30 100\r\nerr\r\n");
        assert_eq!((seen.log.count("lost 1"), seen.log.count("lost")), (1, 1));
        assert!(seen.status().is_success());
        settle(&reactor);
        assert!(descriptors() <= before + 1, "the loop may have opened its timer");
    });
}

/// Input is typed: it is echoed, and byte 3 interrupts the program in front.
#[test]
fn an_interrupt_is_typed() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = in_terminal(&reactor, &seen, "exec cat");
        process.write(b"typed\n").expect("it is open");
        run_until(&reactor, || seen.text().matches("typed\r\n").count() == 2);
        process.write(b"\x03").expect("it is open");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.status().signal(), Some(Signal::INT));
    });
}

/// A new size is told to the program, and refused where there is no terminal.
#[test]
fn a_new_size_is_told() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do read line; done";
        let process = in_terminal(&reactor, &seen, script);
        run_until(&reactor, || seen.text() == "ready\r\n");
        process.set_window_size(WindowSize::new(50, 120)).expect("it has a terminal");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "ready\r\n50 120\r\n");
        let refused = process.set_window_size(WindowSize::new(1, 1));
        assert!(matches!(refused, Err(ProcessError::NoTerminal)), "{refused:?}");
    });
}

/// Closing the terminal hangs up.
#[test]
fn a_closed_terminal_hangs_up() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let process = in_terminal(&reactor, &seen, "echo ready; exec sleep 1000");
        run_until(&reactor, || seen.text() == "ready\r\n");
        process.lose_connection();
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.status().signal(), Some(Signal::HUP));
    });
}

/// socat is the peer of the terminal, whose modes it changes, and makes another one on its other
/// side: bytes and the end of the input pass through both.
#[test]
fn socat_has_a_terminal_on_both_sides() {
    own_process!();
    if std::process::Command::new("socat").arg("-V").output().is_err() {
        println!("skipped: socat is not installed");
        return;
    }
    on_each(|reactor| {
        let seen = Seen::default();
        let mut command = Command::new("socat");
        // Its side of our terminal passes each byte on: no echo, no lines, no signals.
        command.args(["-,raw,echo=0", "SYSTEM:tty; echo ready; exec cat,pty,setsid,ctty"]);
        command.terminal(WindowSize::new(30, 100));
        let process = reactor.spawn_process(&command, seen.recorder()).expect("it starts");
        run_until(&reactor, || seen.text().contains("ready"));
        process.write(b"typed\n").expect("it is open");
        // The echo of the inner terminal, and the line that `cat` has read.
        run_until(&reactor, || seen.text().matches("typed").count() == 2);
        // The end of the input, for the inner terminal.
        process.write(&[4]).expect("it is open");
        run_until(&reactor, || seen.is_ended());
        assert!(seen.status().is_success(), "{}: {}", seen.status(), seen.text());
        let text = seen.text();
        assert!(text.contains("/dev/pts/") && text.contains("typed\r\ntyped\r\n"), "{text:?}");
    });
}
