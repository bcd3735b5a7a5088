//! `describe`: its texts and exit codes.

use std::fs;

use crate::common::{assert_code, path, run, text};

fn shown(arguments: &[&str]) -> String {
    let output = run(&[&["describe"], arguments].concat());
    assert_code(&output, 0);
    assert!(output.stderr.is_empty());
    text(&output.stdout)
}

fn refused(arguments: &[&str]) -> String {
    let output = run(&[&["describe"], arguments].concat());
    assert_code(&output, 2);
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn each_argument_has_its_value_and_meaning() {
    let shown = shown(&["fd:3:queueLimit=4096:idleTimeout=60"]);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fd (server): listens on a socket that the process has inherited, by its number");
    let expected = [
        "number 3 the number of the descriptor",
        "domain - (any family) the expected family: INET, INET6 or UNIX",
        "noDelay 1 (default) 1: small writes leave at once (Nagle's algorithm is off)",
        "queueLimit 4096 bytes that may wait for a peer that does not read",
        "atQueueLimit abort (default) at that limit: abort, pause or tell",
        "idleTimeout 60 seconds without a byte in either direction",
    ];
    for expected in expected {
        let is_shown = |line: &&str| line.split_whitespace().eq(expected.split_whitespace());
        assert!(lines.iter().any(is_shown), "{expected} is not in {shown}");
    }
    // The columns are as wide as their widest text, so the meanings stand below each other.
    let meaning = lines[1].find("the number").expect("a meaning");
    assert!(lines[1..].iter().all(|line| line.is_char_boundary(meaning) && line[meaning - 2..].starts_with("  ")));
}

/// A description that is one of a server and of a client is explained as both.
#[test]
fn both_sides_are_explained_unless_one_is_asked_for() {
    let both = shown(&["unix:/run/a.sock"]);
    assert!(both.starts_with("unix (server): listens") && both.contains("\nunix (client): connects"), "{both}");
    assert!(!shown(&["unix:/run/a.sock", "--server"]).contains("client"));
    assert!(!shown(&["unix:/run/a.sock", "--client"]).contains("server"));
    assert!(shown(&["tcp:localhost:80"]).starts_with("tcp (client): connects to a host"));
}

#[test]
fn an_error_has_carets_under_its_place() {
    assert_eq!(
        refused(&["tcp:80:backlog=many"]),
        "\
tcp:80:backlog=many
               ^^^^
\"many\" is not a backlog: expected a whole number from 0 to 2147483647
"
    );
    assert_eq!(
        refused(&["--server", "tcp"]),
        "\
tcp
   ^
port is missing: expected a field for it, such as port=...
"
    );
    assert!(refused(&["smoke:signal"]).starts_with("smoke:signal\n^^^^^\n\"smoke\" is not a type of endpoint"));
}

/// The files of TLS are read: those that are missing are an error, and those that are there are
/// shown.
#[test]
fn files_of_tls_are_looked_at() {
    let folder = path("certificates");
    fs::create_dir(&folder).unwrap();
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = issued.cert.pem() + &issued.signing_key.serialize_pem();
    fs::write(folder.join("localhost.pem"), &pem).unwrap();
    let one = folder.join("localhost.pem");
    let description = format!("ssl:8443:privateKey={}", one.display());
    let text = shown(&[&description]);
    assert!(text.contains(&format!("{} is a file of {} bytes", one.display(), pem.len())), "{text}");
    let text = shown(&["--server", &format!("tls:{}:8443", folder.display())]);
    assert!(text.contains(&format!("{} is a folder with 1 .pem files", folder.display())), "{text}");
    fs::remove_dir_all(&folder).unwrap();
    let text = refused(&[&description]);
    assert!(text.contains("the arguments cannot be used: "), "{text}");
}
