//! The chunking check: verifies that a protocol behaves the same for any chunking of its input.

use std::fmt::{self, Write};

use super::StringTransport;
use super::quote::{around, excerpt};
use crate::protocol::{Factory, Protocol};
use crate::random::Random;

/// Runs a protocol over the same bytes in every relevant chunking, and asserts that it behaves the
/// same each time.
///
/// TCP keeps bytes in order, and nothing else. A protocol that takes one chunk for one message
/// works on one machine, and fails on the next.
///
/// The check cuts the input in these ways:
///
/// - all at once (in chunks of 64 KiB, the most that a reactor delivers);
/// - byte by byte;
/// - in two, at every place, or at places spread over the input if there are more than
///   [`splits`](Self::splits);
/// - at random.
///
/// Each run has a protocol of its own. The check compares the bytes that the protocol wrote
/// (`abort_connection` does not take back earlier writes), whether and how it closed the
/// connection, and the value of an optional observation.
///
/// ```
/// use ropewalk::testing::ChunkingCheck;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Answers each line with its length.
/// #[derive(Default)]
/// struct Lengths { line: usize }
///
/// impl Protocol for Lengths {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         for byte in data {
///             match byte {
///                 b'\n' => transport.write(format!("{}\n", std::mem::take(&mut self.line)).as_bytes()),
///                 _ => self.line += 1,
///             }
///         }
///         Ok(())
///     }
/// }
///
/// ChunkingCheck::new(b"one\nthree\n\nand no end").run(Lengths::default);
/// ```
///
/// The check neither moves a clock nor fires a Deferred. A protocol that waits for one gets it only
/// if the observation provides it; the observation runs while the connection still exists. A
/// protocol that pauses reading gets no more bytes until something resumes it.
#[derive(Debug, Clone)]
pub struct ChunkingCheck {
    input: Vec<u8>,
    splits: usize,
    random: usize,
    seed: u64,
    only: bool,
    end: bool,
}

impl ChunkingCheck {
    /// Creates a check of this input, with up to 1,000 cuts in two and 50 random ones.
    pub fn new(input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref().to_vec();
        Self { input, splits: SPLITS, random: RANDOM, seed: SEED, only: false, end: false }
    }

    /// Sets the maximum number of cuts in two.
    pub fn splits(mut self, most: usize) -> Self {
        self.splits = most;
        self
    }

    /// Sets the number of random cuts.
    pub fn random(mut self, count: usize) -> Self {
        self.random = count;
        self
    }

    /// Sets the seed of the random cuts. By default they are the same in each run of the test.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes a single cut: the random one of this seed, as a failure has printed it.
    pub fn only_seed(mut self, seed: u64) -> Self {
        (self.seed, self.only) = (seed, true);
        self
    }

    /// Sends the peer's end of stream after the input.
    pub fn then_end_of_stream(mut self) -> Self {
        self.end = true;
        self
    }

    /// Runs the check on protocols built by `make`.
    ///
    /// # Panics
    ///
    /// If a run differs from the run with the whole input. The message names the cut, with its seed
    /// or its place, and the difference.
    ///
    /// If two runs with the whole input differ, because the check then has nothing to compare with.
    #[track_caller]
    pub fn run<P: Protocol>(&self, mut make: impl FnMut() -> P) {
        self.run_observed(|| (make(), || ()));
    }

    /// Runs the check on protocols that factories build, each by a factory of its own from `make`.
    /// So state that the connections of a factory share begins anew in each run.
    ///
    /// ```
    /// use ropewalk::testing::ChunkingCheck;
    /// use ropewalk::{Connections, Protocol, Result, Transport};
    ///
    /// /// Passes all bytes on to all connections.
    /// struct Talker(Connections<Self>);
    ///
    /// impl Protocol for Talker {
    ///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
    ///         self.0.iter().for_each(|talker| talker.transport().write(data));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// ChunkingCheck::new(b"hello, all")
    ///     .run_factory(|| Connections::new().for_protocol(|room, _peer| Talker(room.clone())));
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`run`](Self::run), and if a factory refuses the connection.
    #[track_caller]
    pub fn run_factory<F: Factory>(&self, mut make: impl FnMut() -> F) {
        let peer = StringTransport::new().transport().peer();
        self.run(|| make().build_protocol(&peer).expect("the factory refused the connection"));
    }

    /// Runs the check with an observation for each protocol, whose value after the input is
    /// compared as well.
    ///
    /// ```
    /// use ropewalk::testing::{AccumulatingProtocol, ChunkingCheck};
    ///
    /// ChunkingCheck::new(b"some bytes").then_end_of_stream().run_observed(|| {
    ///     let protocol = AccumulatingProtocol::new();
    ///     let record = protocol.record();
    ///     (protocol, move || record.data())
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`run`](Self::run), and with the panic of an observation.
    #[track_caller]
    pub fn run_observed<P, O, S>(&self, mut make: impl FnMut() -> (P, O))
    where
        P: Protocol,
        O: FnOnce() -> S,
        S: PartialEq + fmt::Debug,
    {
        let mut run = |cut: &Cut| {
            let (protocol, observe) = make();
            self.outcome(cut, protocol, observe)
        };
        let whole = run(&Cut::Whole);
        if let Some(difference) = whole.difference(&run(&Cut::Whole)) {
            panic!(
                "two runs over the same whole input differ, so the check has nothing to compare with:\n{difference}"
            );
        }
        for cut in self.cuts() {
            if let Some(difference) = whole.difference(&run(&cut)) {
                panic!(
                    "the protocol's behaviour depends on the chunking of its input.\n\nthe cut: {}\n\n{difference}",
                    cut.describe(&self.input)
                );
            }
        }
    }

    fn cuts(&self) -> Vec<Cut> {
        if self.only {
            return vec![Cut::Random(self.seed)];
        }
        let places = self.input.len().saturating_sub(1);
        let count = places.min(self.splits);
        let mut cuts = vec![Cut::Bytes];
        // Too many places for a run each: spread the cuts from the first place to the last.
        cuts.extend((0..count).map(|n| Cut::Two(1 + n * (places - 1) / count.saturating_sub(1).max(1))));
        let mut seeds = Random::new(self.seed);
        cuts.extend((0..self.random).map(|_| Cut::Random(seeds.next())));
        cuts
    }

    fn outcome<P: Protocol, S>(&self, cut: &Cut, protocol: P, observe: impl FnOnce() -> S) -> RunResult<S> {
        let connection = StringTransport::new().joined(protocol);
        for piece in cut.pieces(&self.input) {
            connection.deliver(piece);
        }
        if self.end {
            connection.end_of_stream();
        }
        let observed = observe();
        connection.turn();
        let string = connection.string();
        let close = match connection.lost() {
            Some(reason) if string.is_aborted() => format!("aborted ({reason})"),
            Some(reason) => format!("closed ({reason})"),
            None if string.is_write_disconnecting() => "open, and its writing side was shut".to_owned(),
            None => "open".to_owned(),
        };
        RunResult { written: string.take_value(), close, observed }
    }
}

/// One way to cut the input.
enum Cut {
    Whole,
    Bytes,
    Two(usize),
    Random(u64),
}

impl Cut {
    fn pieces<'a>(&self, input: &'a [u8]) -> Vec<&'a [u8]> {
        match *self {
            Self::Whole => vec![input],
            Self::Bytes => input.chunks(1).collect(),
            Self::Two(place) => {
                let (first, rest) = input.split_at(place);
                vec![first, rest]
            }
            Self::Random(seed) => random_pieces(input, seed),
        }
    }

    /// Describes the cut in a failure message.
    fn describe(&self, input: &[u8]) -> String {
        match *self {
            Self::Whole => "all at once".to_owned(),
            Self::Bytes => format!("byte by byte, {}", excerpt(input)),
            Self::Two(place) => format!("in two, after {place} of {} bytes: {}", input.len(), around(input, place)),
            Self::Random(seed) => {
                let pieces = random_pieces(input, seed);
                let mut text = format!("random, `only_seed({seed:#x})`, in {} pieces:", pieces.len());
                for piece in pieces.iter().take(PIECES_SHOWN) {
                    text += " ";
                    text += &excerpt(piece);
                }
                if pieces.len() > PIECES_SHOWN {
                    text += " ...";
                }
                text
            }
        }
    }
}

/// Cuts the input into chunks of random lengths. Their maximum depends on the seed, so that both
/// cuts within a message and several messages within a chunk come up.
fn random_pieces(input: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = Random::new(seed);
    let most = LENGTHS[random.below(LENGTHS.len() as u64) as usize];
    let (mut rest, mut pieces) = (input, Vec::new());
    while !rest.is_empty() {
        let length = random.between(1, most) as usize;
        let (piece, behind) = rest.split_at(rest.len().min(length));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// The outcome of a run.
struct RunResult<S> {
    written: Vec<u8>,
    close: String,
    observed: S,
}

impl<S: PartialEq + fmt::Debug> RunResult<S> {
    /// Describes the difference from another run, for a failure message. Returns `None` if there is
    /// none.
    fn difference(&self, other: &Self) -> Option<String> {
        let mut text = String::new();
        let mut say = |what: String| text.write_str(&what).is_ok();
        if self.written != other.written {
            let same = self.written.iter().zip(&other.written).take_while(|(one, other)| one == other).count();
            say(format!(
                "the written output differs after {same} bytes\n  the whole: {} bytes, {}\n  cut:       {} bytes, {}\n",
                self.written.len(),
                around(&self.written, same),
                other.written.len(),
                around(&other.written, same)
            ));
        }
        if self.close != other.close {
            say(format!("the connection's state differs\n  the whole: {}\n  cut:       {}\n", self.close, other.close));
        }
        if self.observed != other.observed {
            let (whole, cut) = (&self.observed, &other.observed);
            say(format!("the observations differ\n  the whole: {whole:?}\n  cut:       {cut:?}\n"));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Default maximum of cuts in two: enough for every place of a short dialogue. Each cut runs the
/// whole input, so more would slow tests down noticeably.
const SPLITS: usize = 1000;

/// Default number of random cuts. Arbitrary: some ten of each length.
const RANDOM: usize = 50;

/// Maximum lengths of random chunks: within a message, about a message, about a packet, and many
/// messages at once.
const LENGTHS: [u64; 5] = [2, 8, 64, 1460, 20_000];

/// Default seed, so that a test makes the same random cuts in each run. Any number will do.
const SEED: u64 = 0x726f_7065;

/// Maximum number of chunks that a failure shows. Only the chunks before a fault matter, and
/// hundreds would be unreadable.
const PIECES_SHOWN: usize = 12;
