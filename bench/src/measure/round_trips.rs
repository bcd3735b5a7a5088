//! Round trips of 1 B to 1 MiB, one after the other: the time of an answer by its size and by its
//! writes.
//!
//! The sizes take turns in several passes, so that a disturbance does not affect one size alone.
//! The client runs in this process, on the last core.

use std::time::{Duration, Instant};

use super::Effort;
use crate::answers::{MAX_ANSWER_BYTES, Request, Writes, content};
use crate::histogram::Histogram;
use crate::peers::Service;
use crate::programs::{Peer, Programs};
use crate::results::RoundTrip;
use crate::round_trips::Client;
use crate::server::Server;
use crate::{Result, tls};

/// Measured sizes in ascending order. Some are slightly larger than a buffer or a segment.
pub const SIZES: [usize; 12] =
    [1, 64, 1 << 10, 8 << 10, 9_004, 16 << 10, 20_000, 40_000, 64 << 10, 70_000, 256 << 10, 1 << 20];

/// Number of passes over all sizes in a full run.
const PASSES: usize = 10;

/// Number of round trips at the start of each pass that are not counted. After another size, the
/// first ones find different buffers and a different window.
const WARM_UP: usize = 3;

/// Time limit for one size in a pass. Fewer round trips are counted where each stalls.
const PASS_LIMIT: Duration = Duration::from_secs(1);

/// Shape of a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundTripKind {
    /// The bytes are sent and come back.
    Echo,
    /// A request of ten bytes is answered with the bytes.
    Answer(Writes),
}

/// All kinds, in the order of the tables.
pub const KINDS: [RoundTripKind; 4] = [
    RoundTripKind::Echo,
    RoundTripKind::Answer(Writes::One),
    RoundTripKind::Answer(Writes::Two),
    RoundTripKind::Answer(Writes::Many),
];

impl RoundTripKind {
    /// Returns the name in the tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Answer(Writes::One) => "one write",
            Self::Answer(Writes::Two) => "two writes",
            Self::Answer(Writes::Many) => "many writes",
        }
    }

    fn request(self, content: &[u8], bytes: usize) -> Vec<u8> {
        match self {
            Self::Echo => content[..bytes].to_vec(),
            Self::Answer(writes) => Request { writes, bytes }.encode().to_vec(),
        }
    }
}

/// A peer, with or without TLS.
#[derive(Debug, Clone, Copy)]
pub struct RoundTripPeer {
    peer: Peer,
    tls: bool,
}

impl RoundTripPeer {
    /// Returns the peers whose servers answer requests, first without TLS and then with it.
    pub fn all(peers: &[Peer]) -> Vec<Self> {
        let each = |tls| peers.iter().map(move |&peer| Self { peer, tls });
        each(false)
            .chain(each(true))
            .filter(|it| it.peer.offers(it.service(RoundTripKind::Answer(Writes::One))))
            .collect()
    }

    /// Returns the name in the tables.
    pub fn name(&self) -> String {
        format!("{}{}", self.peer.name, if self.tls { " over TLS" } else { "" })
    }

    fn service(&self, kind: RoundTripKind) -> Service {
        Service { answers: kind != RoundTripKind::Echo, tls: self.tls, ..Service::ECHO }
    }
}

/// Measures all sizes. `tick` is called after each pass.
///
/// # Errors
/// Fails if the peer is missing, if it fails, or if it sends other bytes.
pub fn measure(
    programs: &Programs,
    peer: &RoundTripPeer,
    kind: RoundTripKind,
    effort: &Effort,
    mut tick: impl FnMut(),
) -> Result<Vec<RoundTrip>> {
    let server = Server::start(programs, &peer.peer, peer.service(kind), &[])?;
    let config = if peer.tls { Some(tls::client(tls::from_text(&server.detail)?)?) } else { None };
    let mut client = Client::connect(server.address, config)?;
    let (content, mut answer) = (content(), vec![0; MAX_ANSWER_BYTES]);
    let mut latencies: [Histogram; SIZES.len()] = Default::default();
    for _ in 0..passes(effort) {
        for (size, latency) in SIZES.into_iter().zip(&mut latencies) {
            let (request, answer) = (kind.request(&content, size), &mut answer[..size]);
            let (count, begun) = (effort.or(trips_per_pass(size), 5), Instant::now());
            for trip in 0..WARM_UP + count {
                let took = client.round_trip(&request, answer)?;
                if *answer != content[..size] {
                    return Err(format!("an answer of {size} B has other bytes").into());
                }
                if trip >= WARM_UP {
                    latency.record(took.as_nanos() as u64);
                    if begun.elapsed() > PASS_LIMIT {
                        break;
                    }
                }
            }
        }
        tick();
    }
    Ok(SIZES.into_iter().zip(&latencies).map(|(size, latency)| figures(size, latency)).collect())
}

/// Returns the number of passes.
pub fn passes(effort: &Effort) -> usize {
    effort.or(PASSES, 1)
}

/// Returns the number of counted round trips in a pass: 400 in all passes, 200 of the largest size.
fn trips_per_pass(size: usize) -> usize {
    if size < MAX_ANSWER_BYTES { 40 } else { 20 }
}

fn figures(size: usize, latency: &Histogram) -> RoundTrip {
    RoundTrip { size, count: latency.count(), p50: latency.percentile(50.0), p99: latency.percentile(99.0) }
}
