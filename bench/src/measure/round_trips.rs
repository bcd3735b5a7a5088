//! Round trips of 1 B to 1 MiB, one after the other: how long an answer takes by its size, and by how it was written.
//!
//! The sizes have their turns in several passes, so that a disturbance does not hit one of them alone. The client runs in this process,
//! which is on the last core.

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

/// The sizes measured, from the smallest. Some are just above what fits into a buffer or a segment.
pub const SIZES: [usize; 12] =
    [1, 64, 1 << 10, 8 << 10, 9_004, 16 << 10, 20_000, 40_000, 64 << 10, 70_000, 256 << 10, 1 << 20];

/// How often all sizes have their turn in a whole run.
const PASSES: usize = 10;

/// Round trips of each pass that are not counted: the first after another size finds other buffers and another window.
const WARM_UP: usize = 3;

/// How long one size may take in a pass. Fewer round trips are counted where each stalls.
const LIMIT: Duration = Duration::from_secs(1);

/// The shape of a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The bytes are sent, and come back.
    Echo,
    /// A request of ten bytes is answered with the bytes.
    Answer(Writes),
}

/// All kinds, in the order of the tables.
pub const KINDS: [Kind; 4] =
    [Kind::Echo, Kind::Answer(Writes::One), Kind::Answer(Writes::Two), Kind::Answer(Writes::Many)];

impl Kind {
    /// The name in the tables.
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
pub struct Contestant {
    peer: Peer,
    tls: bool,
}

impl Contestant {
    /// All that these peers make: those whose server answers requests, and those that do so over TLS.
    pub fn all(peers: &[Peer]) -> Vec<Self> {
        let each = |tls| peers.iter().map(move |&peer| Self { peer, tls });
        each(false).chain(each(true)).filter(|it| it.peer.offers(it.service(Kind::Answer(Writes::One)))).collect()
    }

    /// The name in the tables.
    pub fn name(&self) -> String {
        format!("{}{}", self.peer.name, if self.tls { " over TLS" } else { "" })
    }

    fn service(&self, kind: Kind) -> Service {
        Service { answers: kind != Kind::Echo, tls: self.tls }
    }
}

/// Measures all sizes.
///
/// # Errors
/// The peer is missing, fails, or sends something else.
pub fn measure(
    programs: &Programs,
    contestant: &Contestant,
    kind: Kind,
    effort: &Effort,
    mut tick: impl FnMut(),
) -> Result<Vec<RoundTrip>> {
    let server = Server::start(programs, &contestant.peer, contestant.service(kind), &[])?;
    let config = if contestant.tls { Some(tls::client(tls::from_text(&server.detail)?)?) } else { None };
    let mut client = Client::connect(server.address, config)?;
    let (content, mut answer) = (content(), vec![0; MAX_ANSWER_BYTES]);
    let mut latencies: [Histogram; SIZES.len()] = Default::default();
    for _ in 0..passes(effort) {
        for (size, latency) in SIZES.into_iter().zip(&mut latencies) {
            let (request, answer) = (kind.request(&content, size), &mut answer[..size]);
            let (count, begun) = (effort.or(in_a_pass(size), 5), Instant::now());
            for trip in 0..WARM_UP + count {
                let took = client.round_trip(&request, answer)?;
                if *answer != content[..size] {
                    return Err(format!("an answer of {size} B was something else").into());
                }
                if trip >= WARM_UP {
                    latency.record(took.as_nanos() as u64);
                    if begun.elapsed() > LIMIT {
                        break;
                    }
                }
            }
        }
        tick();
    }
    Ok(SIZES.into_iter().zip(&latencies).map(|(size, latency)| figures(size, latency)).collect())
}

/// How often every size has its turn.
pub fn passes(effort: &Effort) -> usize {
    effort.or(PASSES, 1)
}

/// How many are counted: 400 in all passes, 200 of the largest size.
fn in_a_pass(size: usize) -> usize {
    if size < MAX_ANSWER_BYTES { 40 } else { 20 }
}

fn figures(size: usize, latency: &Histogram) -> RoundTrip {
    RoundTrip { size, count: latency.count(), p50: latency.percentile(50.0), p99: latency.percentile(99.0) }
}
