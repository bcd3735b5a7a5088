//! The output to a terminal: the line about connections, and the view that is rewritten.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{ANY_PORT, Server, path, ropewalk};

/// The two ends of a terminal of this size: the test's, and the program's.
fn terminal(rows: u16, columns: u16) -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("a terminal");
    unlockpt(&ours).expect("a terminal");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let theirs = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).expect("a terminal");
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).expect("a terminal");
    (ours.into(), theirs)
}

/// Reads until the text has `marker` so many times. The end of the program ends the text.
fn read_until(terminal: &mut File, marker: &str, times: usize) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while String::from_utf8_lossy(&all).matches(marker).count() < times {
        match terminal.read(&mut piece) {
            Ok(count) if count > 0 => all.extend_from_slice(&piece[..count]),
            // A terminal whose other end is closed has an error.
            _ => panic!("no {marker:?} in {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn rest(terminal: &mut File) -> String {
    let mut all = Vec::new();
    // The end of the other side is an error of this one.
    let _ = terminal.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_server_shows_its_connections_below_its_address() {
    let (mut ours, theirs) = terminal(24, 80);
    let mut command: Command = ropewalk(&["echo", ANY_PORT]);
    let mut child = command.stderr(Stdio::from(theirs)).spawn().unwrap();
    // The command has the other end of the terminal until it is dropped.
    drop(command);
    // The second line has rates. It is written in pieces.
    let shown = read_until(&mut ours, ", 0 B/s in, 0 B/s out\u{1b}[K\r", 1);
    assert!(shown.starts_with("listening on 127.0.0.1:"), "{shown:?}");
    assert_eq!(shown.matches("0 open, 0 accepted").count(), 2, "{shown:?}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let rest = rest(&mut ours);
    assert!(!rest.contains("ERROR"), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_view_is_rewritten_within_the_terminal() {
    let socket = path("terminal.sock").display().to_string();
    let (_server, _address) = Server::on_a_port(&["echo", "--status", &socket]);
    let (mut ours, theirs) = terminal(4, 30);
    let mut command = ropewalk(&["top", "--interval", "0.1", &socket]);
    let mut child = command.stdout(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let shown = read_until(&mut ours, "\u{1b}[J", 2);
    let view = shown.split("\u{1b}[H").nth(1).expect("a view");
    let lines: Vec<_> = view.split("\u{1b}[K").map(str::trim_start).collect();
    assert_eq!(lines.len(), 5, "four lines, and the end: {shown:?}");
    assert!(lines[0].starts_with("reactor on ") && lines[3].ends_with(" more"), "{shown:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 30), "{shown:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    rest(&mut ours);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
