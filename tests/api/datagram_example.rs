//! The examples `udp_echo` and `multicast_chat`, run as a user would.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::*;
use crate::running::{Running, executable, output};

/// The server and its client end by themselves, after three answers. An address that is none is one
/// line of error.
#[test]
fn udp_echo_has_three_answers() {
    own_process!();
    let good = output("udp_echo", &[]);
    let printed = String::from_utf8(good.stdout).expect("text");
    assert!(good.status.success() && good.stderr.is_empty(), "{printed}{}", String::from_utf8_lossy(&good.stderr));
    let answers: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("client: ")).collect();
    assert_eq!(answers, ["answer to question 1", "answer to question 2", "answer to question 3"]);
    let bad = output("udp_echo", &["nowhere"]);
    assert!(!bad.status.success());
    assert_eq!(String::from_utf8_lossy(&bad.stderr).trim().lines().count(), 1);
}

/// Starts a member of a chat over the loopback interface. Returns it with its group.
fn member(name: &str, group: &str, input: Stdio) -> (Running, String) {
    let mut command = Command::new(executable("multicast_chat"));
    command.args([name, group, "127.0.0.1"]);
    let member = Running::of(command, input);
    let line = member.line();
    let group = line.strip_prefix("group ").unwrap_or_else(|| panic!("it says {line:?}"));
    assert_eq!(member.line(), format!("* {name} is here"));
    (member, group.to_owned())
}

/// Two members hear each other and themselves, and leave when their input ends. An address that is
/// no group is one line of error.
#[test]
fn members_of_a_multicast_chat_hear_each_other() {
    own_process!();
    let (keyboard, mut typist) = std::io::pipe().expect("a pipe");
    let (ann, group) = member("ann", "239.255.60.61:0", keyboard.into());
    let (input, mut other) = std::io::pipe().expect("a pipe");
    other.write_all(b"hello\nand goodbye\n").expect("it is typed");
    let (bob, same) = member("bob", &group, input.into());
    assert_eq!(same, group);
    assert_eq!(bob.line(), "<bob> hello");
    drop(other);
    let (status, rest, errors) = bob.end();
    assert!(status.success() && errors.is_empty(), "{errors}");
    assert_eq!(rest, ["<bob> and goodbye", "* bob has left"]);
    for line in ["* bob is here", "<bob> hello", "<bob> and goodbye", "* bob has left"] {
        assert_eq!(ann.line(), line);
    }
    typist.write_all(b"alone\n").expect("it is typed");
    assert_eq!(ann.line(), "<ann> alone");
    drop(typist);
    let (status, rest, errors) = ann.end();
    assert!(status.success() && errors.is_empty(), "{errors}");
    assert_eq!(rest, ["* ann has left"]);
    let bad = output("multicast_chat", &["ann", "127.0.0.1:6060"]);
    assert!(!bad.status.success());
    assert_eq!(String::from_utf8_lossy(&bad.stderr).trim().lines().count(), 1);
}
