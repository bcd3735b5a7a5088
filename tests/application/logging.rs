//! The log of a program on standard error, in processes of its own.

use std::io::pipe;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::process::{own_process, this_program};
use ropewalk::Deferred;
use ropewalk::logging::ProgramLog;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Asks [`program`] to run, in a process of its own: with a subscriber of its own, if it says so.
const INSIDE: &str = "ROPEWALK_TEST_LOGGING";

/// The variable of the program's log.
const LOG: &str = "ROPEWALK_TEST_LOG";

/// The program of the tests. It is no test by itself.
#[test]
fn program() {
    let Some(role) = std::env::var_os(INSIDE) else { return };
    if role == "subscriber" {
        tracing::subscriber::set_global_default(Counting).unwrap();
    }
    drop(Deferred::<()>::fail("before"));
    match ProgramLog::from_env(LOG) {
        Ok(log) => println!("started: {}", log.start()),
        Err(error) => return println!("{error}"),
    }
    tracing::debug!(number = 7, "a detail");
    tracing::info!("a message");
    drop(Deferred::<()>::fail("after"));
    println!("a second start: {}", ProgramLog::new().start());
    println!("counted: {}", COUNTED.load(Ordering::Relaxed));
}

static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Counts events.
struct Counting;

impl Subscriber for Counting {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {
        COUNTED.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Runs the program with this value of its variable. Returns its output and the lines of its log.
fn run(role: &str, setting: Option<&str>) -> (String, Vec<String>) {
    let mut command = this_program("logging::program");
    command.env(INSIDE, role).env_remove(LOG).envs(setting.map(|setting| (LOG, setting)));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (said, log) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{status}: {said}{log}");
    (said, log.lines().map(str::to_owned).collect())
}

/// Each setting, and the events that are written: those from the level on, in the format. An error
/// before the start is a line of the engine's own.
#[test]
fn settings_of_the_environment() {
    own_process!();
    for (setting, written) in [
        (None, &["a message", "after"][..]),
        (Some(""), &["a message", "after"]),
        (Some("error"), &["after"]),
        (Some("debug"), &["a detail", "a message", "after"]),
        (Some("json,debug"), &["a detail", "a message", "after"]),
        (Some("off"), &[]),
    ] {
        let (said, log) = run("program", setting);
        assert!(said.contains("started: true") && said.contains("a second start: false"), "{said}");
        let [before, log @ ..] = &log[..] else { panic!("{setting:?}: {log:?}") };
        assert!(before.contains(": error: unhandled error") && before.contains("before"), "{before}");
        assert_eq!(log.len(), written.len(), "{setting:?}: {log:?}");
        for (line, text) in log.iter().zip(written) {
            assert!(line.contains(text) && !line.contains('\u{1b}'), "{setting:?}: {line}");
            let is_json = line.starts_with(r#"{"timestamp":""#) && line.ends_with('}');
            assert_eq!(is_json, setting == Some("json,debug"), "{line}");
        }
    }
}

/// JSON has the level and the fields of an event by their names.
#[test]
fn json_has_names() {
    own_process!();
    let (_, log) = run("program", Some("debug,json"));
    assert!(log[1].contains(r#""level":"DEBUG","fields":{"message":"a detail","number":7}"#), "{}", log[1]);
    assert!(log[3].contains(r#""level":"ERROR""#) && log[3].contains(r#""failure":"after""#), "{}", log[3]);
}

/// A setting that is none is an error that names the variable, and no log is started.
#[test]
fn a_wrong_setting_is_refused() {
    own_process!();
    let (said, log) = run("program", Some("loud"));
    assert!(said.contains("ROPEWALK_TEST_LOG in the environment: \"loud\" is no setting of a log"), "{said}");
    assert!(!said.contains("started") && log.len() == 1, "{said}{log:?}");
}

/// A subscriber that is set already keeps all events, those before the start included.
#[test]
fn a_subscriber_of_the_program_stays() {
    own_process!();
    let (said, log) = run("subscriber", Some("trace"));
    assert!(said.contains("started: false") && said.contains("counted: 4"), "{said}");
    assert!(log.is_empty(), "{log:?}");
}

/// A program whose standard error is gone goes on.
#[test]
fn a_log_without_a_reader_is_dropped() {
    own_process!();
    for setting in ["debug", "json"] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = this_program("logging::program");
        command.env(INSIDE, "program").env(LOG, setting).stdout(Stdio::piped()).stderr(writer);
        let Output { status, stdout, .. } = command.output().unwrap();
        let said = String::from_utf8(stdout).unwrap();
        assert!(status.success() && said.contains("counted: 0"), "{status}: {said}");
    }
}
