//! `forward`: bytes, ends, headers, limits, and peers that come and go.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use crate::common::{ANY_PORT, LIMIT_SECONDS, Server, assert_code, dial, path, run, text};

/// Time limit of the forwarder that carries the most bytes, in seconds. It takes a tenth of that.
const LONGEST_SECONDS: u64 = 900;

/// A forwarder in front of this address, and its own address.
fn in_front_of(target: SocketAddr, options: &[&str]) -> (Server, SocketAddr) {
    in_front_within(LIMIT_SECONDS, target, options)
}

/// The same with a time limit of its own.
fn in_front_within(seconds: u64, target: SocketAddr, options: &[&str]) -> (Server, SocketAddr) {
    let client = format!("tcp:127.0.0.1:{}", target.port());
    let mut server = Server::start_within(seconds, &[&["forward", ANY_PORT, &client], options].concat());
    let address = server.listens_on().parse().expect("an address");
    (server, address)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Bytes that tell their place: the chunks of a stream are equal, and their length is a prime.
fn chunk() -> Vec<u8> {
    (0..1_048_573_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Writes `count` bytes, and ends the direction.
fn send(mut stream: TcpStream, count: u64) {
    let (chunk, mut left) = (chunk(), count);
    while left > 0 {
        let piece = &chunk[..(chunk.len() as u64).min(left) as usize];
        stream.write_all(piece).unwrap();
        left -= piece.len() as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads on behind `from` bytes, up to the end or to `enough` bytes and a little more. Checks each
/// byte, and returns their number.
fn receive(mut stream: &TcpStream, from: u64, enough: u64) -> u64 {
    let (chunk, mut count) = (chunk(), from);
    let mut buffer = vec![0; 256 * 1024];
    while count < enough {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        let (mut rest, mut place) = (&buffer[..read], (count % chunk.len() as u64) as usize);
        while !rest.is_empty() {
            let part = rest.len().min(chunk.len() - place);
            assert!(rest[..part] == chunk[place..place + part], "other bytes after {count}");
            (rest, place) = (&rest[part..], 0);
        }
        count += read as u64;
    }
    count
}

/// Many bytes go both ways at once. One side reads nothing until the other has half of its bytes,
/// and the memory of the forwarder stays small all the same. A debug build carries less of it.
#[test]
fn bytes_go_both_ways_in_constant_memory() {
    let count: u64 = if cfg!(debug_assertions) { 64 << 20 } else { 10 << 30 };
    let (listener, target) = listener();
    let (server, address) = in_front_within(LONGEST_SECONDS, target, &[]);
    let outward = dial(address);
    let (inward, _) = listener.accept().unwrap();
    let began = Instant::now();
    let senders = [&outward, &inward].map(|stream| {
        let stream = stream.try_clone().unwrap();
        thread::spawn(move || send(stream, count))
    });
    let half = receive(&outward, 0, count / 2);
    let half_time = began.elapsed();
    let fast = thread::spawn(move || receive(&outward, half, u64::MAX));
    assert_eq!([receive(&inward, 0, u64::MAX), fast.join().unwrap()], [count, count]);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let peak = server.peak_memory();
    println!(
        "{count} bytes each way: half of one in {half_time:?}, all in {:?}, {peak} bytes of memory",
        began.elapsed()
    );
    assert!(peak < 32 << 20, "{peak} bytes at most");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
}

/// Any endpoint in front of any other: here TCP in front of a UNIX socket.
#[test]
fn tcp_goes_to_a_unix_socket() {
    let socket = path("target.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut server = Server::start(&["forward", ANY_PORT, &format!("unix:{}", socket.display())]);
    let mut stream = dial(server.listens_on().parse().unwrap());
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut target, _) = listener.accept().unwrap();
    let mut question = Vec::new();
    target.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    target.write_all(b"answer").unwrap();
    drop(target);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    std::fs::remove_file(socket).unwrap();
}

/// A header of the client is passed on, with the addresses that it names.
#[test]
fn proxy_headers_come_in_and_go_out() {
    let (listener, target) = listener();
    let client = format!("tcp:127.0.0.1:{}", target.port());
    let mut server = Server::start(&["forward", &format!("haproxy:{ANY_PORT}"), &client, "--proxy-header", "1"]);
    let mut stream = dial(server.listens_on().parse().unwrap());
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\nhello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = BufReader::new(listener.accept().unwrap().0);
    let mut header = String::new();
    received.read_line(&mut header).unwrap();
    assert_eq!(header, "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n");
    let mut rest = Vec::new();
    received.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"hello");
}

/// A connection beyond the limit is closed at once, and one that is idle after its time.
#[test]
fn limits_close_connections() {
    let (listener, target) = listener();
    let (_server, address) = in_front_of(target, &["--limit", "1", "--timeout", "0.3"]);
    let mut first = dial(address);
    let (mut behind, _) = listener.accept().unwrap();
    let mut second = dial(address);
    assert!(is_over(&mut second));
    first.write_all(b"x").unwrap();
    behind.read_exact(&mut [0]).unwrap();
    assert!(is_over(&mut first), "the first is idle");
    assert!(is_over(&mut behind));
    // Its place is free.
    let mut third = dial(address);
    third.write_all(b"y").unwrap();
    listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
}

/// Reads the end of a connection: an end or a reset.
fn is_over(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// A rate lets all bytes through, and no sooner than it allows.
#[test]
fn a_throttle_spreads_bytes() {
    const BYTES: usize = 60_000;
    let (listener, target) = listener();
    let (_server, address) = in_front_of(target, &["--throttle", "100000"]);
    let stream = dial(address);
    let (inward, _) = listener.accept().unwrap();
    let began = Instant::now();
    let sending = thread::spawn(move || send(inward, BYTES as u64));
    assert_eq!(receive(&stream, 0, u64::MAX), BYTES as u64);
    sending.join().unwrap();
    // A tenth of a second's bytes may pass at once. The rest takes half a second.
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
}

/// A thousand connections come and are reset, and the forwarder goes on serving.
#[test]
fn resets_by_the_thousand_harm_no_other() {
    let (listener, target) = listener();
    let (_server, address) = in_front_of(target, &["--log", "off"]);
    let mut steady = dial(address);
    let (mut behind, _) = listener.accept().unwrap();
    let accepting = thread::spawn(move || {
        for stream in listener.incoming().take(1_000) {
            drop(stream);
        }
    });
    for _ in 0..1_000 {
        let mut stream = dial(address);
        // The forwarder may have reset it already.
        let _ = stream.write(b"x");
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    for round in 0..100_u8 {
        steady.write_all(&[round]).unwrap();
        let mut byte = [0];
        behind.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
    }
    drop(steady);
    // The last ones may never have reached the target: it is not waited for.
    drop(accepting);
}

/// Resets from either side, in front of bytes and behind them, leave no descriptor open and little
/// memory used. Each connection is over before the next one begins.
#[test]
fn resets_leave_nothing_open() {
    const ROUNDS: usize = 1_000;
    let (listener, target) = listener();
    let (server, address) = in_front_of(target, &["--log", "off"]);
    let mut steady = dial(address);
    let (mut behind, _) = listener.accept().unwrap();
    let mut echo = || {
        steady.write_all(b"x").unwrap();
        behind.read_exact(&mut [0]).unwrap();
        behind.write_all(b"x").unwrap();
        steady.read_exact(&mut [0]).unwrap();
    };
    echo();
    let before = server.open_descriptors();
    for round in 0..ROUNDS {
        let client = dial(address);
        let (served, _) = listener.accept().unwrap();
        served.set_read_timeout(Some(Duration::from_secs(LIMIT_SECONDS))).unwrap();
        let (mut one, mut other) = if round % 2 == 0 { (client, served) } else { (served, client) };
        let has_bytes = round % 4 < 2;
        if has_bytes {
            one.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
        }
        set_socket_linger(&one, Some(Duration::ZERO)).unwrap();
        drop(one);
        let end = other.read(&mut [0]);
        let is_reset = end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        // In front of all bytes, the target's side may still be an attempt, which is given up.
        let is_given_up = !has_bytes && matches!(end, Ok(0));
        assert!(is_reset || is_given_up, "round {round}: {end:?}");
    }
    // The forwarder answers behind all of its work for the last one.
    echo();
    assert_eq!(server.open_descriptors(), before);
    let peak = server.peak_memory();
    assert!(peak < 32 << 20, "{peak} bytes at most");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
}

/// Without a target, the client's connection ends, and the log says why. The next one is tried
/// again.
#[test]
fn a_target_that_refuses_ends_the_connection() {
    let (listener, target) = listener();
    drop(listener);
    let (server, address) = in_front_of(target, &[]);
    for _ in 0..2 {
        assert!(is_over(&mut dial(address)));
    }
    server.signal(Signal::TERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn wrong_usage_has_exit_code_two() {
    let target = "tcp:127.0.0.1:1";
    for options in [&["--limit", "0"], &["--timeout", "0"], &["--throttle", "x"], &["--proxy-header", "3"]] {
        assert_code(&run(&[&["forward", ANY_PORT, target], &options[..]].concat()), 2);
    }
    let said = text(&run(&["forward", ANY_PORT, "tcp:localhost"]).stderr);
    assert!(said.contains("port"), "{said}");
}
