//! Bytes written in one callback are sent together, and no message waits for an acknowledgement of
//! the one before.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use crate::common::tls::Library;
use crate::common::*;
use ropewalk::{Protocol, Result, Transport};

/// Answers a message with pieces, each written by itself.
struct InPieces(Vec<usize>);

impl Protocol for InPieces {
    fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
        for size in &self.0 {
            transport.write(&vec![b'p'; *size]);
        }
        Ok(())
    }
}

/// The time of the quickest of some round trips. The system holds an acknowledgement back for 40
/// ms, and a message that waits for one waits in every round but the first few.
fn quickest_round_trip(pieces: &[usize]) -> Duration {
    let reactor = reactor();
    let ours = pieces.to_vec();
    let (_port, address) = listen(&reactor, move |_| Some(InPieces(ours.clone())));
    let total: usize = pieces.iter().sum();
    let client = peer(address, move |mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut answer = vec![0; total];
        let trips = (0..24).map(|_| {
            let begun = Instant::now();
            stream.write_all(b"0123456789").unwrap();
            stream.read_exact(&mut answer).unwrap();
            begun.elapsed()
        });
        // The first are acknowledged at once, whatever is written.
        trips.skip(16).min().unwrap()
    });
    run_beside(&reactor, client)
}

/// However an answer is cut into writes, none of it waits for the peer's delayed acknowledgement.
#[test]
fn an_answer_in_pieces_does_not_wait() {
    for pieces in [&[9_000, 4][..], &[4, 9_000], &[8_192, 8_192, 1], &[70_000, 4], &[1; 100], &[20_000, 1, 20_000, 1]] {
        let trip = quickest_round_trip(pieces);
        assert!(trip < Duration::from_millis(20), "{pieces:?}: {trip:?}");
    }
}

/// An echo of a message that comes in several receives does not wait either: its first part is
/// answered by itself.
#[test]
fn an_echo_of_much_does_not_wait() {
    let reactor = reactor();
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    for size in [20_000, 40_000] {
        let client = peer(address, move |mut stream: TcpStream| {
            let (message, mut answer) = (vec![b'm'; size], vec![0; size]);
            let trips = (0..24).map(|_| {
                let begun = Instant::now();
                stream.write_all(&message).unwrap();
                stream.read_exact(&mut answer).unwrap();
                begun.elapsed()
            });
            trips.skip(16).min().unwrap()
        });
        let trip = run_beside(&reactor, client);
        assert!(trip < Duration::from_millis(20), "{size}: {trip:?}");
    }
}

/// Large pieces go to the system at once and leave with what is written behind them: a peer that
/// reads once has all of it, whether Nagle's algorithm is on or not; and what nothing follows
/// leaves as well.
#[test]
fn what_is_written_in_one_callback_leaves_together() {
    let reactor = reactor();
    for pieces in [&[9_000, 4, 30_000, 3][..], &[9_000, 4], &[20_000, 20_000], &[9_000]] {
        for no_delay in [false, true] {
            let ours = pieces.to_vec();
            let factory = move |_| {
                let ours = ours.clone();
                Some(Script::new(&Log::default()).data(move |transport, _| {
                    transport.set_tcp_no_delay(no_delay)?;
                    ours.iter().for_each(|size| transport.write(&vec![b'p'; *size]));
                    Ok(())
                }))
            };
            let (_port, address) = listen(&reactor, factory);
            let mut client = Client::connect(&reactor, address);
            let trips = (0..10).map(|_| {
                client.send(b"go");
                let (mut answer, mut count) = (vec![0; 50_000], 0);
                let begun = Instant::now();
                run_until(&reactor, || {
                    count = client.0.read(&mut answer).unwrap_or(0);
                    count > 0
                });
                assert_eq!(count, pieces.iter().sum::<usize>(), "{pieces:?}");
                begun.elapsed()
            });
            assert!(trips.min().unwrap() < Duration::from_millis(150), "{pieces:?} waited for more");
        }
    }
}

/// The same over TLS, where a large piece is sealed when it is written, and the rest behind it.
#[cfg(feature = "tls")]
#[test]
fn pieces_leave_together_over_tls() {
    let (authority, _, tls) = crate::common::tls::usual();
    let reactor = reactor();
    for pieces in [&[9_000, 4, 30_000, 3][..], &[9_000, 4], &[4, 9_000]] {
        let (ours, tls) = (pieces.to_vec(), tls.clone());
        let factory = move |_| {
            let (ours, tls) = (ours.clone(), tls.clone());
            let script = Script::new(&Log::default()).made(move |transport| Ok(transport.start_tls(&tls)?));
            Some(script.data(move |transport, _| {
                ours.iter().for_each(|size| transport.write(&vec![b'p'; *size]));
                Ok(())
            }))
        };
        let (_port, address) = listen(&reactor, factory);
        let mut connection = Library::client(&authority, "example.org").connection;
        let total: usize = pieces.iter().sum();
        let client = peer(address, move |mut stream| {
            while connection.is_handshaking() {
                connection.complete_io(&mut stream).unwrap();
            }
            for _ in 0..10 {
                connection.writer().write_all(b"go").unwrap();
                connection.write_tls(&mut stream).unwrap();
                let (mut sealed, mut plain) = (vec![0; 100_000], 0);
                // Tickets come before the first answer.
                while plain == 0 {
                    let count = stream.read(&mut sealed).unwrap();
                    let mut rest = &sealed[..count];
                    while !rest.is_empty() {
                        connection.read_tls(&mut rest).unwrap();
                        let ready = connection.process_new_packets().unwrap().plaintext_bytes_to_read();
                        connection.reader().read_exact(&mut vec![0; ready]).unwrap();
                        plain += ready;
                    }
                }
                assert_eq!(plain, total);
            }
        });
        run_beside(&reactor, client);
    }
}
