//! Processes that do not start: the reason comes back at once, and nothing is left.

use super::*;
use ropewalk::error::{SpawnError, SpawnStep};
use ropewalk::process::ChildDescriptor;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Starts a command that cannot start. Nothing is called, and no child is left.
#[track_caller]
fn refused(reactor: &Reactor, command: &Command) -> SpawnError {
    let seen = Seen::default();
    let error = reactor.spawn_process(command, seen.recorder()).expect_err("it does not start");
    settle(reactor);
    assert_eq!(seen.log.all(), [""; 0]);
    assert_eq!(children(), (0, 0));
    error
}

/// The step that has failed, and the system's reason.
#[track_caller]
fn step(error: SpawnError) -> (SpawnStep, std::io::ErrorKind) {
    match error {
        SpawnError::Setup { step, source, .. } => (step, source.kind()),
        other => panic!("it is no step: {other}"),
    }
}

/// F44: a missing program is an error of the call, with its name.
#[test]
fn a_missing_program_is_an_error_of_the_call() {
    own_process!();
    on_each(|reactor| {
        let before = descriptors();
        for program in ["/no/such/program", "no-such-program", "/etc/passwd", "", "nul\0byte"] {
            let error = refused(&reactor, &Command::new(program));
            assert!(matches!(&error, SpawnError::Program { program: named, .. } if named == program), "{error}");
        }
        let error = refused(&reactor, &Command::new("/no/such/program"));
        assert_eq!(error.to_string(), "cannot start /no/such/program: No such file or directory (os error 2)");
        let error = refused(&reactor, Command::new("true").arg("nul\0byte"));
        assert!(matches!(error, SpawnError::Program { .. }));
        assert_eq!(descriptors(), before);
    });
}

/// F44: each step in the child is named, with the reason of the system.
#[test]
fn a_failed_step_in_the_child_is_named() {
    own_process!();
    on_each(|reactor| {
        let before = descriptors();
        let error = refused(&reactor, Command::new("true").current_dir("/no/such/directory"));
        assert_eq!(step(error), (SpawnStep::WorkingDirectory, std::io::ErrorKind::NotFound));
        let error = refused(&reactor, Command::new("true").current_dir("nul\0byte"));
        assert_eq!(step(error).0, SpawnStep::WorkingDirectory);
        let error = refused(&reactor, Command::new("true").process_group(1));
        assert_eq!(step(error), (SpawnStep::Session, std::io::ErrorKind::PermissionDenied));
        let error = refused(&reactor, Command::new("true").descriptor(-1, ChildDescriptor::Null));
        assert_eq!(step(error), (SpawnStep::Descriptors, std::io::ErrorKind::InvalidInput));
        let error = refused(&reactor, Command::new("true").descriptor(i32::MAX, ChildDescriptor::Null));
        assert_eq!(step(error).0, SpawnStep::Descriptors);
        let error = refused(&reactor, Command::new("true").descriptor(0, ChildDescriptor::Number(9999)));
        assert_eq!(step(error).0, SpawnStep::Pipes);
        assert_eq!(descriptors(), before);
    });
}

/// A user that the system refuses: the child of a process without rights is not started as root.
#[test]
fn a_refused_user_is_an_error_of_the_call() {
    own_process!();
    // A number that is no user's: the system's "no change".
    on_each(|reactor| {
        let error = refused(&reactor, Command::new("true").uid(u32::MAX));
        assert_eq!(step(error).0, SpawnStep::Credentials);
    });
}

/// F44, A16: a start at every limit of descriptors. It works or fails, and the open descriptors
/// are the same before and after.
#[test]
fn no_descriptor_is_left_at_any_limit() {
    own_process!();
    on_each(|reactor| {
        // The loop makes its own descriptors first.
        run_to_end(&reactor, &shell("exit 0"));
        let before = descriptors();
        let full = getrlimit(Resource::Nofile);
        let open = before as u64 + 1;
        let (mut failed, mut started) = (0, 0);
        for limit in open..open + 30 {
            let seen = Seen::default();
            let mut command = shell("exit 0");
            command.descriptor(3, ChildDescriptor::Read);
            let limited = rustix::process::Rlimit { current: Some(limit), maximum: full.maximum };
            setrlimit(Resource::Nofile, limited).expect("a lower limit");
            let result = reactor.spawn_process(&command, seen.recorder());
            setrlimit(Resource::Nofile, full).expect("the old limit");
            match result {
                Ok(_) => {
                    started += 1;
                    run_until(&reactor, || seen.is_ended());
                    assert!(seen.status().is_success(), "with {limit} descriptors: {}", seen.status());
                }
                Err(error) => {
                    failed += 1;
                    assert!(!matches!(error, SpawnError::Unsupported), "{error}");
                    settle(&reactor);
                    assert_eq!(seen.log.all(), [""; 0]);
                }
            }
            assert_eq!((descriptors(), children()), (before, (0, 0)), "with {limit} descriptors");
        }
        assert!(failed > 3 && started > 3, "{failed} failed, {started} started");
    });
}

/// A reactor that is closed starts nothing.
#[test]
fn a_closed_reactor_starts_nothing() {
    own_process!();
    on_each(|reactor| {
        reactor.close().expect("it closes");
        let refused = reactor.spawn_process(&Command::new("true"), Seen::default().recorder());
        assert!(matches!(refused, Err(SpawnError::ReactorStopped)));
        assert_eq!(children(), (0, 0));
    });
}
