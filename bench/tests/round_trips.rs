//! Every server that answers requests does so in each way, plain and over TLS. The client that
//! measures round trips copes with an echo larger than the socket buffers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ropewalk_bench::answers::{MAX_ANSWER_BYTES, Request, Writes, content};
use ropewalk_bench::round_trips::Client;
use ropewalk_bench::tls;

const LIMIT: Duration = Duration::from_secs(60);

struct Server {
    process: Child,
    address: SocketAddr,
    detail: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Starts a server, or returns `None` if it reports that it is missing here.
fn start(peer: &str, backend: Option<&str>, flags: &[&str]) -> Option<Server> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
    command.arg("--unpinned").arg(peer).args(flags).stdout(Stdio::piped());
    if let Some(backend) = backend {
        command.env("ROPEWALK_BACKEND", backend);
    }
    let mut process = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut server = Server { process, address: ([127, 0, 0, 1], 0).into(), detail: String::new() };
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["ready", port, ref detail @ ..] => {
            server.address.set_port(port.parse().unwrap());
            server.detail = detail.concat();
            Some(server)
        }
        ["missing", ..] => None,
        _ => panic!("{peer} printed {line:?}"),
    }
}

fn connect(server: &Server, is_tls: bool) -> Client {
    let config = is_tls.then(|| tls::client(tls::from_text(&server.detail).unwrap()).unwrap());
    Client::connect(server.address, config).unwrap()
}

fn round_trips(peer: &str, backend: Option<&str>) {
    for is_tls in [false, true] {
        let (answers, echoes): (&[&str], &[&str]) =
            if is_tls { (&["--answers", "--tls"], &["--tls"]) } else { (&["--answers"], &[]) };
        let Some(server) = start(peer, backend, answers) else {
            return println!("{peer} on {backend:?} is missing here");
        };
        let (mut client, content) = (connect(&server, is_tls), content());
        for writes in [Writes::One, Writes::Two, Writes::Many] {
            for bytes in [1, 4, 5, 1_024, 9_004, 65_536, 70_000, MAX_ANSWER_BYTES] {
                let mut answer = vec![0; bytes];
                client.round_trip(&Request { writes, bytes }.encode(), &mut answer).unwrap();
                assert!(answer == content[..bytes], "{peer} {writes:?} {bytes}, TLS {is_tls}");
            }
        }
        let server = start(peer, backend, echoes).unwrap();
        // The echo exceeds the socket buffers of both ends, so neither end may wait for the other.
        let sent: Vec<u8> = content.iter().copied().cycle().take(24 << 20).collect();
        let mut back = vec![0; sent.len()];
        connect(&server, is_tls).round_trip(&sent, &mut back).unwrap();
        assert!(back == sent, "{peer} sent other bytes back, TLS {is_tls}");
    }
}

/// Ropewalk on mio answers and echoes.
#[test]
fn ropewalk_on_mio() {
    round_trips("ropewalk", Some("mio"));
}

/// Ropewalk on io_uring answers and echoes.
#[test]
fn ropewalk_on_io_uring() {
    round_trips("ropewalk", Some("io_uring"));
}

/// tokio answers and echoes.
#[test]
fn tokio() {
    round_trips("tokio", None);
}

/// A plain socket gets the answers to requests in any chunking, in order, and none to an invalid
/// request.
#[test]
fn requests_in_any_chunking() {
    for peer in ["ropewalk", "tokio"] {
        let server = start(peer, None, &["--answers"]).unwrap();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in ["1000", "000003", "2000000006m0000000", "02"] {
            stream.write_all(piece.as_bytes()).unwrap();
        }
        let mut answers = [0; 11];
        stream.read_exact(&mut answers).unwrap();
        assert_eq!(answers, [0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1], "{peer}");
        stream.write_all(b"1000000000").unwrap();
        assert_eq!(stream.read(&mut answers).unwrap(), 0, "{peer} closes");
    }
}

/// A peer that only echoes reports that, instead of answering requests by an echo.
#[test]
fn a_peer_without_answers_reports_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_serve")).args(["mio", "--answers", "--unpinned"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("mio offers only a plain echo"), "{output:?}");
}

/// The client trusts only the certificate of its server.
#[test]
fn another_servers_certificate_is_refused() {
    let server = start("tokio", None, &["--tls"]).unwrap();
    let (_, other) = tls::server().unwrap();
    Client::connect(server.address, Some(tls::client(other).unwrap())).unwrap_err();
}
