//! The example `udp_echo`, run as a user would.

use crate::common::*;
use crate::running::output;

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
