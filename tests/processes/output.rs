//! The output of a program in one call.

use super::*;
use ropewalk::error::{ProcessOutputError, SpawnError};

/// The three calls return what the program has written, and its code.
#[test]
fn output_and_values() {
    own_process!();
    on_each(|reactor| {
        let output = result_of(&reactor, reactor.process_output(&shell("echo out; exit 2"), 100));
        assert_eq!(output.expect("it has output"), b"out\n");
        assert_eq!(result_of(&reactor, reactor.process_value(&shell("echo out; exit 2"))).expect("a code"), 2);
        let both = reactor.process_output_and_value(&shell("echo out; echo err >&2; exit 2"), 100);
        let both = result_of(&reactor, both).expect("it has output");
        assert_eq!(
            (&both.stdout[..], &both.stderr[..], both.status),
            (&b"out\n"[..], &b"err\n"[..], ProcessStatus::Exited(2))
        );
    });
}

/// The limit: as many bytes pass, and one more kills the program.
#[test]
fn output_beyond_the_limit_kills_the_program() {
    own_process!();
    on_each(|reactor| {
        let exact = result_of(&reactor, reactor.process_output(&shell("printf 12345"), 5));
        assert_eq!(exact.expect("it fits"), b"12345");
        let endless = result_of(&reactor, reactor.process_output(&shell("yes"), 100_000)).expect_err("it is too long");
        let error = endless.check::<ProcessOutputError>();
        assert!(matches!(error, Some(ProcessOutputError::TooLong { limit: 100_000 })), "{endless}");
        assert_eq!(children(), (0, 0));
    });
}

/// Standard error fails the first call only, which kills the program; a program that was killed has
/// no code.
#[test]
fn standard_error_and_signals() {
    own_process!();
    on_each(|reactor| {
        let failed = result_of(&reactor, reactor.process_output(&shell("echo bad >&2; exec sleep 1000"), 100));
        let failed = failed.expect_err("it wrote an error");
        let error = failed.check::<ProcessOutputError>();
        assert!(matches!(error, Some(ProcessOutputError::StandardError { start }) if start == "bad\n"), "{failed}");
        let killed = result_of(&reactor, reactor.process_value(&shell("kill -9 $$"))).expect_err("it has no code");
        assert_eq!(killed.to_string(), "the process did not exit by itself: killed by SIGKILL");
        let missing = result_of(&reactor, reactor.process_value(&Command::new("/no/such"))).expect_err("no program");
        assert!(missing.check::<SpawnError>().is_some());
        assert_eq!(children(), (0, 0));
    });
}

/// Other pipes of a command are not mixed into its output, and a terminal has an end of input.
#[test]
fn other_pipes_and_terminals() {
    own_process!();
    on_each(|reactor| {
        let mut command = shell("echo out; echo other >&5");
        command.descriptor(5, ropewalk::process::ChildDescriptor::Read);
        assert_eq!(result_of(&reactor, reactor.process_output(&command, 100)).expect("it has output"), b"out\n");
        let mut command = shell("stty -echo; cat; echo done");
        command.terminal(ropewalk::process::WindowSize::new(24, 80));
        let output = result_of(&reactor, reactor.process_output(&command, 100)).expect("it has output");
        assert!(output.ends_with(b"done\r\n"), "{output:?}");
    });
}

/// Cancelled after the program's exit, the call waits no longer for a pipe that a child of the
/// program holds.
#[test]
fn cancelling_gives_up_pipes_of_a_program_that_has_exited() {
    own_process!();
    on_each(|reactor| {
        run_to_end(&reactor, &shell("exit 0"));
        let before = descriptors();
        // The child of the program ends when its standard input does, which it holds at 3.
        let (input, held) = std::io::pipe().expect("a pipe");
        let mut command = shell("cat <&3 & exit 0");
        command.descriptor(3, ropewalk::process::ChildDescriptor::share(input));
        let output = reactor.process_output(&command, 100);
        drop(command);
        run_until(&reactor, || children() == (0, 0));
        settle(&reactor);
        assert!(!output.is_called() && descriptors() > before + 1, "the pipes are open");
        output.cancel();
        assert!(result_of(&reactor, output).is_err());
        settle(&reactor);
        assert_eq!(descriptors(), before + 1, "the end that this test holds");
        drop(held);
    });
}

/// A cancelled Deferred kills the program, and its end is waited for.
#[test]
fn cancelling_kills_the_program() {
    own_process!();
    on_each(|reactor| {
        // The loop makes its own descriptors first.
        run_to_end(&reactor, &shell("exit 0"));
        let before = descriptors();
        let output = reactor.process_output(&shell("exec sleep 1000"), 100);
        assert_eq!(children(), (0, 1));
        output.cancel();
        assert!(result_of(&reactor, output).is_err());
        run_until(&reactor, || children() == (0, 0));
        settle(&reactor);
        assert_eq!(descriptors(), before);
    });
}
