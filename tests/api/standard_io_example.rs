//! `tee`: the endpoint `stdio:` in the pipelines of a shell.

use std::process::{Command, Stdio};

use super::running::executable;
use crate::common::*;

/// Runs a line of the shell, in which `$TEE` is the example. Returns its output and its errors.
fn shell(line: &str) -> (String, String) {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "bash", "-o", "pipefail", "-c", line]).env("TEE", executable("tee"));
    let output = command.stdin(Stdio::null()).output().expect("bash runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (printed, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{line}: {}\n{printed}{errors}", output.status);
    (printed, errors)
}

/// All bytes pass through a pipeline, through files and through `/dev/null`, and are counted.
#[test]
fn pipelines_and_files_pass_through_tee() {
    own_process!();
    let (printed, errors) = shell("seq 300000 | $TEE | tail -n 1");
    assert_eq!((&*printed, &*errors), ("300000\n", "1988895 bytes\n"));
    let (printed, _) = shell("copy=$(mktemp); $TEE < $TEE > $copy && cmp $TEE $copy && echo same; rm $copy");
    assert_eq!(printed, "same\n");
    assert_eq!(shell("$TEE < /dev/null > /dev/null"), (String::new(), "0 bytes\n".to_owned()));
    // A closed descriptor is `/dev/null` for Rust's runtime, which opens that in its place.
    assert_eq!(shell("$TEE <&-"), (String::new(), "0 bytes\n".to_owned()));
}

/// A file that is appended to keeps what it has, and what is written behind the example's bytes.
#[test]
fn the_output_of_several_programs_stays_in_order() {
    own_process!();
    let line = "file=$(mktemp); { echo one; echo two | $TEE; echo three; } >> $file; cat $file; rm $file";
    let (printed, errors) = shell(line);
    assert_eq!(printed, "one\ntwo\nthree\n", "{errors}");
}

/// A reader that has enough ends the example with a reason, not with a signal.
#[test]
fn a_reader_that_has_enough_is_no_signal() {
    own_process!();
    let (printed, _) = shell("yes | $TEE | head -c 100000 | wc -c; echo ${PIPESTATUS[1]}; true");
    assert_eq!(printed, "100000\n0\n");
}
