//! The servers: the bytes of each protocol, their start and their stop.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::common::{ANY_PORT, Server, assert_code, dial, path, run, text};

#[test]
fn an_echo_sends_all_bytes_back() {
    let (_server, address) = Server::on_a_port(&["echo"]);
    let mut stream = dial(address);
    let message: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let (mut writer, sent) = (stream.try_clone().unwrap(), message.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    writing.join().unwrap();
    assert!(answer == message, "{} bytes", answer.len());
}

#[test]
fn a_discard_answers_nothing() {
    let (_server, address) = Server::on_a_port(&["discard"]);
    let mut stream = dial(address);
    stream.write_all(b"lost").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_chargen_goes_on_until_its_peer_closes() {
    let (_server, address) = Server::on_a_port(&["chargen"]);
    let mut stream = dial(address);
    let mut received = vec![0; 74 * 95 * 20];
    stream.read_exact(&mut received).unwrap();
    assert!(received.starts_with(b" !\"#$%&") && received.ends_with(b"\r\n"));
    let patterns: Vec<_> = received.chunks(74 * 95).collect();
    assert!(patterns.windows(2).all(|two| two[0] == two[1]));
}

#[test]
fn a_time_server_sends_four_bytes_and_closes() {
    let (_server, address) = Server::on_a_port(&["time"]);
    let mut answer = Vec::new();
    dial(address).read_to_end(&mut answer).unwrap();
    let sent = u32::from_be_bytes(answer.try_into().expect("four bytes"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2_208_988_800;
    // The number begins again in the year 2036.
    assert!((now as u32).wrapping_sub(sent) < 60, "{sent}");
}

/// One process serves several endpoints. A signal ends connections and ports, and is a success.
#[test]
fn a_server_of_several_endpoints_stops_at_a_signal() {
    let socket = path("echo.sock");
    let unix = format!("unix:{}", socket.display());
    let mut server = Server::start(&["echo", ANY_PORT, &unix]);
    let address = server.listens_on().parse().unwrap();
    assert_eq!(server.listens_on(), socket.display().to_string());
    let (mut tcp, mut local) = (dial(address), UnixStream::connect(&socket).unwrap());
    for stream in [&mut tcp as &mut dyn ReadWrite, &mut local] {
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    server.signal(Signal::TERM);
    assert_eq!(tcp.read(&mut [0]).unwrap(), 0, "an end, and no reset");
    assert_eq!(local.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.end(), (Some(0), String::new()));
    assert!(!socket.exists());
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A connection whose peer never reads is cut off when the time of the drain is over.
#[test]
fn the_drain_has_a_limit() {
    let (server, address) = Server::on_a_port(&["chargen", "--drain", "0"]);
    let mut stream = dial(address);
    stream.read_exact(&mut [0]).unwrap();
    server.signal(Signal::INT);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_port_that_is_taken_is_a_failure() {
    let (_server, address) = Server::on_a_port(&["echo"]);
    let output = run(&["echo", &format!("tcp:{}:interface=127.0.0.1", address.port())]);
    assert_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.starts_with("ropewalk: ") && said.contains(&address.port().to_string()), "{said}");
}

#[test]
fn wrong_usage_has_exit_code_two() {
    for arguments in [&["echo"][..], &["echo", "--drain", "never", "tcp:0"], &["sing"], &["echo", "tcp:http"]] {
        assert_code(&run(arguments), 2);
    }
    let said = text(&run(&["echo", "tcp:80", "tcp:http"]).stderr);
    assert!(said.starts_with("tcp:http\n    ^^^^\n\"http\" is not a port"), "{said}");
}
