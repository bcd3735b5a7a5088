//! Time-outs and the limit of connections, in virtual time.

use std::time::Duration;

use ropewalk::testing::{Network, Peer};
use ropewalk_interop::http::HttpLimits;

use super::simulation::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0ropewalk";

fn simulated() -> Simulated {
    Simulated::new(Network::new(1), HttpLimits::default())
}

/// Runs until the peer's connection is over, and calls `act` every second, with the number of
/// seconds. Returns the time that it took.
#[track_caller]
fn seconds_until_end(simulated: &Simulated, peer: &Peer, mut act: impl FnMut(u64)) -> u64 {
    for second in 0..600 {
        if peer.is_ended() || peer.is_reset() {
            return second;
        }
        act(second);
        simulated.run_for(Duration::from_secs(1));
    }
    panic!("it is not over");
}

/// A header that comes byte by byte has 20 s, as has the next request of a connection.
#[test]
fn a_header_has_a_time_limit() {
    let simulated = simulated();
    let slow = simulated.peer();
    slow.write(b"GET /10 HTTP/1.1\r\nHost: ").unwrap();
    let took = seconds_until_end(&simulated, &slow, |_| assert_eq!(slow.write(b"x").unwrap(), 1));
    assert!((20..=21).contains(&took), "{took} s");

    let idle = simulated.peer();
    simulated.run_for(Duration::from_secs(10));
    idle.write(b"GET /10 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let took = seconds_until_end(&simulated, &idle, |_| ());
    assert!((20..=21).contains(&took), "{took} s");
    assert!(idle.read().starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(simulated.http.open_connections(), 0);
}

/// A connection without a request is closed after 60 s: a silent one, one that sends the preface of
/// HTTP/2 byte by byte, and one that sends pings.
#[test]
fn a_connection_without_requests_has_a_time_limit() {
    let simulated = simulated();
    for (first, more) in [(&b""[..], &b""[..]), (b"", &PREFACE[..1]), (PREFACE, b""), (PREFACE, PING)] {
        let peer = simulated.peer();
        peer.write(first).unwrap();
        let took = seconds_until_end(&simulated, &peer, |second| {
            // The preface is sent up to its last byte but one.
            if second % 10 == 9 {
                let byte = &PREFACE[(second / 10) as usize..][..1];
                peer.write(if more.len() == 1 { byte } else { more }).unwrap();
            }
        });
        assert!((60..=66).contains(&took), "{took} s: {first:?} {more:?}");
        if first == PREFACE {
            let bytes = peer.read();
            let goaway = b"\0\0\x08\x07\0\0\0\0\0";
            assert!(bytes.windows(goaway.len()).any(|frame| frame == goaway), "{bytes:?}");
        }
    }
    assert_eq!(simulated.http.open_connections(), 0);
}

/// An answer that is not taken for 60 s is aborted. A client that takes a little now and then gets
/// all of it.
#[test]
fn an_answer_that_stalls_is_aborted() {
    const SIZE: usize = 600_000;
    let request = format!("GET /{SIZE} HTTP/1.0\r\nHost: x\r\n\r\n");
    let simulated = simulated();
    let stalled = simulated.peer();
    stalled.write(request.as_bytes()).unwrap();
    let took = seconds_until_end(&simulated, &stalled, |_| ());
    // The look at the deadline may itself find room for a piece, once.
    assert!(stalled.is_reset() && (60..=121).contains(&took), "{took} s");
    assert_eq!(simulated.failures(), ["no progress"]);

    let slow = simulated.peer();
    slow.write(request.as_bytes()).unwrap();
    let mut count = 0;
    let took = seconds_until_end(&simulated, &slow, |second| {
        if second % 40 == 39 {
            count += slow.read().len();
        }
    });
    assert!(!slow.is_reset() && count + slow.read().len() > SIZE && took > 120, "{count} bytes in {took} s");
    assert_eq!(simulated.http.open_connections(), 0);
}

/// An upload that does not go on is aborted.
#[test]
fn an_upload_that_stalls_is_aborted() {
    let simulated = simulated();
    let peer = simulated.peer();
    peer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin").unwrap();
    simulated.run_for(Duration::from_secs(50));
    peer.write(b"more").unwrap();
    let took = seconds_until_end(&simulated, &peer, |_| ());
    assert!(peer.is_reset() && (60..=61).contains(&took), "{took} s");
    assert_eq!(simulated.failures(), ["no progress"]);
}

/// One connection too many is refused, and reported once until there is room again.
#[test]
fn connections_have_a_limit() {
    let mut limits = HttpLimits::default();
    limits.connections = 2;
    let simulated = Simulated::new(Network::new(1), limits);
    let refused = "refused: too many connections are open";
    for round in 1..3 {
        let kept = [simulated.peer(), simulated.peer()];
        let surplus = [simulated.peer(), simulated.peer()];
        assert!(surplus.iter().all(Peer::is_reset) && !kept.iter().any(Peer::is_reset));
        assert_eq!(simulated.failures(), vec![refused; round]);
        kept[1].write(b"GET /3 HTTP/1.0\r\n\r\n").unwrap();
        simulated.run_for(Duration::from_secs(1));
        assert!(kept[1].read().starts_with(b"HTTP/1.0 200 OK"));
        kept.into_iter().for_each(Peer::close);
        simulated.run_for(Duration::from_secs(1));
        assert_eq!(simulated.http.open_connections(), 0);
    }
}

/// A client that ends its direction behind its request gets the answer.
#[test]
fn a_half_closed_client_is_answered() {
    let simulated = simulated();
    let peer = simulated.peer();
    peer.write(b"GET /500000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    peer.shut_down().unwrap();
    let mut count = 0;
    seconds_until_end(&simulated, &peer, |_| count += peer.read().len());
    assert!(!peer.is_reset() && count + peer.read().len() > 500_000, "{count} bytes");
}

/// A drain lets a request finish, closes idle connections at once, and says so in the answer.
#[test]
fn a_drain_says_that_it_closes() {
    let simulated = simulated();
    let (idle, upload) = (simulated.peer(), simulated.peer());
    idle.write(b"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    simulated.run_for(Duration::from_secs(1));
    upload.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nrope").unwrap();
    simulated.run_for(Duration::from_secs(1));
    assert_eq!(simulated.http.open_connections(), 2);
    let mut drained = simulated.http.drain(Duration::from_secs(10));
    simulated.run_for(Duration::from_secs(1));
    assert!(idle.is_ended() && !upload.is_ended() && !drained.is_called());
    upload.write(b"walk").unwrap();
    simulated.run_for(Duration::from_secs(1));
    assert_eq!(drained.take_result().unwrap().unwrap(), 0);
    assert!(upload.read().ends_with(b"ropewalk") && upload.is_ended());
    assert!(simulated.network.ports(&simulated.server).is_empty());
}
