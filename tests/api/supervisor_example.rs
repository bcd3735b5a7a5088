//! The example `supervisor`, run as a user would.

use rustix::process::Signal;

use crate::common::*;
use crate::running::{Running, TERMINATED, output};

/// Splits a line into the number of its process and its text.
#[track_caller]
fn split(line: &str) -> (u32, &str) {
    let (number, text) = line.strip_prefix('[').and_then(|line| line.split_once("] ")).expect("a prefix");
    (number.parse().expect("a number"), text)
}

/// A program that dies is started again, as another process, and its lines have its number. A line
/// without an end is passed on with the exit.
#[test]
fn a_program_that_dies_is_started_again() {
    own_process!();
    let supervisor = Running::start("supervisor", &["sh", "-c", "echo first; printf second; exit 3"]);
    let lines: Vec<String> = (0..4).map(|_| supervisor.line()).collect();
    let lines: Vec<_> = lines.iter().map(|line| split(line)).collect();
    assert_eq!([lines[0].1, lines[1].1, lines[2].1, lines[3].1], ["first", "second", "first", "second"]);
    assert!(lines[0].0 == lines[1].0 && lines[2].0 == lines[3].0 && lines[0].0 != lines[2].0, "{lines:?}");
    supervisor.signal(Signal::TERM);
    let (status, _, errors) = supervisor.end();
    assert_eq!(status.code(), Some(TERMINATED), "{errors}");
    let delays: Vec<u64> = errors.lines().filter_map(delay).collect();
    assert!(delays.len() >= 2 && delays.windows(2).all(|pair| pair[0] < pair[1]), "{errors}");
    assert!(errors.contains("the program has exited with code 3"), "{errors}");
}

/// Returns the milliseconds until the next start.
fn delay(line: &str) -> Option<u64> {
    line.split_once("next start in ")?.1.strip_suffix(" ms")?.parse().ok()
}

/// SIGTERM is passed on, and the supervisor waits for the end of the program.
#[test]
fn a_signal_is_passed_on_and_waited_for() {
    own_process!();
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let supervisor = Running::start("supervisor", &["sh", "-c", script]);
    assert_eq!(split(&supervisor.line()).1, "ready");
    supervisor.signal(Signal::TERM);
    let (status, rest, errors) = supervisor.end();
    assert_eq!(status.code(), Some(TERMINATED), "{errors}");
    assert_eq!(rest.iter().map(|line| split(line).1).collect::<Vec<_>>(), ["bye"]);
    assert!(errors.contains("the program has exited with code 0"), "{errors}");
}

/// A program that does not exist is tried again until the supervisor is stopped. Without one there
/// is a line of usage.
#[test]
fn a_missing_program_is_tried_again() {
    own_process!();
    let usage = output("supervisor", &[]);
    assert!(!usage.status.success());
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage: supervisor PROGRAM"));
    let mut command = std::process::Command::new("timeout");
    command.args(["-s", "TERM", "0.6"]).arg(crate::running::executable("supervisor")).arg("/no/such/program");
    let (_, _, errors) = Running::of(command, std::process::Stdio::null()).end();
    let tries = errors.matches("cannot start /no/such/program: No such file or directory").count();
    assert!(tries >= 2, "{errors}");
}
