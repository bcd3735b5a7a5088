//! F19: random sequences of requests and of what peers do over real sockets, and what a connection
//! is while it ends. All requests inside all callbacks are a case of the conformance suite
//! (`src/testing/conformance/reentry.rs`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::Transport;

/// The connection is over for its protocol while the socket is still being read: it has no
/// descriptor and no options any more.
#[test]
fn a_lost_connection_has_no_socket_even_while_it_lingers() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let script = Script::new(&log).transport_into(&kept).made(|transport| {
        transport.write(b"bye");
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = TcpStream::connect(address).unwrap();
    run_until(&reactor, || log.is_over());
    assert_eq!(reactor.counters().watched, 2, "it lingers");
    let transport: Transport = kept.take().unwrap();
    assert_eq!(transport.raw_fd(), None);
    assert_eq!(transport.set_tcp_no_delay(true).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.tcp_no_delay().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.tcp_keep_alive().unwrap_err().kind(), ErrorKind::NotConnected);
    drop(client);
    run_until(&reactor, || reactor.counters().watched == 1);
}

/// A reactor that stops tells a connection of its end also when more is queued than one turn sends,
/// and the peer that it was cut short. (How much arrives before a reset is the kernel's affair.)
#[test]
fn stopping_with_much_queued_loses_the_connection_once() {
    let (reactor, log) = (reactor(), Log::default());
    let stop = reactor.clone();
    let script = Script::new(&log).data(move |transport, _| {
        (0..4096).for_each(|_| transport.write(&[b'q'; 4096]));
        stop.stop().expect("it runs");
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"go").unwrap();
        stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind())
    });
    reactor.run().unwrap();
    assert_eq!(log.all(), ["made", "data", "lost: the reactor stopped"]);
    assert_eq!(reactor.counters().watched, 0);
    assert_eq!(client.join().unwrap(), Err(ErrorKind::ConnectionReset));
}

/// A small generator of random numbers (SplitMix64), so that a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let scale = [10, 1000, 10_000, 1_000_000][self.below(4)];
        let length = 1 + self.below(scale);
        let mut cycle: Vec<u8> = (0..=250).collect();
        cycle.rotate_left(self.below(251));
        cycle.repeat(length / cycle.len() + 1)[..length].to_vec()
    }
}

/// Two ends that do random things, and what each has sent and received.
struct Pair {
    random: Random,
    transport: Transport,
    peer: Option<TcpStream>,
    /// Given to `write`, in order.
    written: Vec<u8>,
    /// Number of bytes written before either side closed anything.
    owed: usize,
    read_by_peer: Vec<u8>,
    sent_by_peer: Vec<u8>,
    closing: bool,
    violent: bool,
}

impl Pair {
    fn act(&mut self) {
        match self.random.below(14) {
            0..=3 => {
                let data = self.random.bytes();
                self.transport.write(&data);
                self.written.extend_from_slice(&data);
                if !self.closing {
                    self.owed = self.written.len();
                }
            }
            4 => {
                self.closing = true;
                self.transport.lose_connection();
            }
            5 => {
                self.closing = true;
                self.transport.lose_write_connection();
            }
            6 if self.random.below(3) == 0 => {
                self.violent = true;
                self.transport.abort_connection();
            }
            7 => self.transport.pause_producing(),
            8 => self.transport.resume_producing(),
            9 | 10 => self.peer_sends(),
            11 => drop(self.peer_reads()),
            12 => {
                self.closing = true;
                if let Some(peer) = &self.peer {
                    // It may be closed already.
                    let _ = peer.shutdown(Shutdown::Write);
                }
            }
            13 if self.random.below(3) == 0 => {
                self.violent = true;
                let reset = self.random.below(2) == 0;
                if let Some(peer) = self.peer.take().filter(|_| reset) {
                    reset_on_close(&peer);
                }
            }
            _ => {}
        }
    }

    fn peer_sends(&mut self) {
        let data = self.random.bytes();
        if let Some(Ok(count)) = self.peer.as_mut().map(|peer| peer.write(&data)) {
            self.sent_by_peer.extend_from_slice(&data[..count]);
        }
    }

    /// Reads the bytes that are there. Returns `true` at the end of the stream.
    fn peer_reads(&mut self) -> bool {
        let Some(peer) = &mut self.peer else { return true };
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.read_by_peer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    assert!(self.violent, "{error}");
                    return true;
                }
            }
        }
    }
}

/// Whatever both ends do in whatever order: made once, lost once and last, each end reads a prefix
/// of what the other wrote, and all of it if neither reset the connection; and nothing stays
/// behind.
#[test]
fn random_sequences_keep_the_rules() {
    let mut violent = 0;
    for seed in 0..300 {
        violent += usize::from(random_sequence(seed));
    }
    assert!((50..250).contains(&violent), "the mixture is one-sided: {violent}");
}

fn random_sequence(seed: u64) -> bool {
    let mut random = Random(seed);
    let (reactor, log, kept, received) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let script = Script::new(&log).transport_into(&kept).into_buffer(&received);
    let script = if random.below(2) == 0 { script.half_close() } else { script };
    let (_port, address) = listen(&reactor, once(script));
    let peer = TcpStream::connect(address).unwrap();
    peer.set_nonblocking(true).unwrap();
    run_until(&reactor, || log.has("made"));
    let mut pair = Pair {
        random,
        transport: kept.take().unwrap(),
        peer: Some(peer),
        written: Vec::new(),
        owed: 0,
        read_by_peer: Vec::new(),
        sent_by_peer: Vec::new(),
        closing: false,
        violent: false,
    };
    for _ in 0..pair.random.below(30) {
        pair.act();
        for _ in 0..pair.random.below(3) {
            reactor.iterate(Duration::ZERO).unwrap();
        }
    }
    pair.transport.resume_producing();
    pair.transport.lose_connection();
    run_until(&reactor, || pair.peer_reads() && log.is_over());
    drop(pair.peer.take());
    run_until(&reactor, || reactor.counters().watched == 1);
    settle(&reactor);
    let calls = log.all();
    assert_eq!(calls.first().map(String::as_str), Some("made"), "seed {seed}: {calls:?}");
    assert!(calls.last().is_some_and(|last| last.starts_with("lost: ")), "seed {seed}: {calls:?}");
    assert_eq!((log.count("made"), log.count("lost")), (1, 1), "seed {seed}: {calls:?}");
    assert!(log.count("read lost") <= 1 && log.count("write lost") <= 1, "seed {seed}: {calls:?}");
    assert!(pair.written.starts_with(&pair.read_by_peer), "seed {seed}: the peer read something else");
    assert!(pair.sent_by_peer.starts_with(&received.borrow()), "seed {seed}: we read something else");
    if !pair.violent {
        assert_eq!(log.reason(), "the connection was closed cleanly", "seed {seed}");
        assert!(pair.read_by_peer.len() >= pair.owed, "seed {seed}: {} of {}", pair.read_by_peer.len(), pair.owed);
    }
    pair.violent
}
