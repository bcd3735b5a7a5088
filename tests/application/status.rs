//! The service that shows a reactor on a socket: its answers, its limits, and its file.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ropewalk::Result;
use ropewalk::application::{Service, StatusService};
use ropewalk::endpoints::server_from_string;
use ropewalk::testing::{MemoryReactor, Peer, success_result_of};

use crate::common::*;

/// A status service at a port of a simulated reactor.
fn service(memory: &MemoryReactor) -> StatusService {
    let service = StatusService::new(memory.reactor(), server_from_string(memory.reactor(), "tcp:9").unwrap());
    success_result_of(&mut service.start_service());
    service
}

/// The lines that have arrived.
fn lines(memory: &MemoryReactor, peer: &Peer) -> Vec<String> {
    memory.settle().unwrap();
    String::from_utf8(peer.read()).unwrap().lines().map(str::to_owned).collect()
}

fn ask(memory: &MemoryReactor, peer: &Peer, request: &str) -> Vec<String> {
    peer.write(request.as_bytes()).unwrap();
    lines(memory, peer)
}

/// One line comes at once, one for each request, and one at each interval until they are ended.
#[test]
fn each_request_has_its_answer() {
    let memory = MemoryReactor::new();
    let service = service(&memory);
    assert!(memory.reactor().snapshot().observed.is_some(), "a start observes the reactor");
    let peer = memory.connect(9).unwrap();
    let first = lines(&memory, &peer);
    assert!(first.len() == 1 && first[0].starts_with(r#"{"format":1,"#), "{first:?}");
    assert!(first[0].contains(r#""protocol":"ropewalk::application::status::Status""#), "{first:?}");
    assert_eq!(ask(&memory, &peer, "\n").len(), 1);
    assert_eq!(ask(&memory, &peer, "\r\n\n").len(), 2);
    assert_eq!(ask(&memory, &peer, "2").len(), 0, "the line has not ended");
    assert_eq!(ask(&memory, &peer, ".5\n").len(), 0, "an interval has to pass");
    memory.advance(Duration::from_secs(5)).unwrap();
    assert_eq!(lines(&memory, &peer).len(), 2);
    assert_eq!(ask(&memory, &peer, "0\n").len(), 0);
    memory.advance(Duration::from_secs(50)).unwrap();
    assert_eq!(lines(&memory, &peer).len(), 0);
    assert_eq!(memory.reactor().snapshot().timers.pending, 0);

    let mut stopped = service.stop_service();
    memory.settle().unwrap();
    success_result_of(&mut stopped);
    assert!(peer.is_ended());
}

/// Anything else is refused with a line that names the permitted requests.
#[test]
fn other_requests_are_refused() {
    let long = "1".repeat(33);
    for request in ["what\n", "-1\n", "0.01\n", "inf\n", "NaN\n", "1e9\n", "\u{fffd}\n", &long, &format!("{long}\n")] {
        let memory = MemoryReactor::new();
        let _service = service(&memory);
        let peer = memory.connect(9).unwrap();
        let answers = ask(&memory, &peer, request);
        assert_eq!(answers.len(), 2, "{request:?}: {answers:?}");
        assert!(answers[1].starts_with(r#"{"error":""#), "{request:?}: {answers:?}");
        assert!(peer.is_ended(), "{request:?}");
    }
}

/// A peer that asks and does not read costs a bounded number of bytes.
#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let memory = MemoryReactor::new();
    let _service = service(&memory);
    let peer = memory.connect(9).unwrap();
    let mut asked = 0;
    while !memory.reactor().snapshot().connections.is_empty() && asked < 1000 {
        peer.write(&[b'\n'; 100]).unwrap();
        memory.settle().unwrap();
        let queued = memory.reactor().snapshot().connections.first().map_or(0, |shown| shown.queued_bytes);
        assert!(queued < 2 << 20, "{queued} bytes");
        asked += 1;
        if queued > 1 << 20 {
            memory.advance(Duration::from_secs(31)).unwrap();
        }
    }
    assert!(asked < 1000, "it is cut off");
}

/// Only this user may connect; the file is gone with the service; the file of a dead process is
/// replaced.
#[test]
fn a_socket_is_private_and_replaced_if_stale() -> Result<()> {
    let path = std::env::temp_dir().join(format!("ropewalk-status-{}.sock", std::process::id()));
    let lock = PathBuf::from(format!("{}.lock", path.display()));
    // A socket whose process has died: its file is there, and nothing holds the lock.
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    std::fs::write(&lock, "")?;

    let reactor = reactor();
    let service = StatusService::at_path(&reactor, &path)?;
    success_result_of(&mut service.start_service());
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let to = path.clone();
    let peer = std::thread::spawn(move || -> Result<[String; 2]> {
        let stream = UnixStream::connect(to)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut answers = [String::new(), String::new()];
        let mut reader = BufReader::new(&stream);
        reader.read_line(&mut answers[0])?;
        (&stream).write_all(b"\n")?;
        reader.read_line(&mut answers[1])?;
        Ok(answers)
    });
    let answers = run_beside(&reactor, peer)?;
    let shown = format!(r#""host":"{}""#, path.display());
    assert!(answers.iter().all(|answer| answer.contains(&shown) && answer.ends_with("}\n")), "{answers:?}");
    let stopped = service.stop_service();
    run_until(&reactor, || stopped.is_called());
    assert!(!path.exists() && !lock.exists());
    reactor.close()?;
    Ok(())
}
