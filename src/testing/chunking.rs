//! The chunking check: does a protocol do the same however its input is cut?

use std::fmt::{self, Write};

use super::StringTransport;
use super::quote::{around, excerpt};
use super::random::Random;
use crate::protocol::Protocol;

/// Runs a protocol over the same bytes, cut in every way that matters, and asserts that it does the same each time. TCP keeps
/// bytes in order, and nothing else: a protocol that takes a piece for a message works on one machine, and fails on the next.
///
/// The cuts are: all at once (in pieces of 64 KiB, which is the most that a reactor hands over); byte by byte; in two, at every
/// place, or at places spread over the input where there are more than [`splits`](Self::splits); and at random. Each run has a
/// protocol of its own. What is compared is what it wrote (`abort_connection` does not take back what was written before), whether
/// and how it closed, and what an observation of yours returns.
///
/// ```
/// use ropewalk::testing::ChunkingCheck;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Says how long each line is.
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
/// A protocol that waits for a clock or a Deferred is run without their ever coming, unless the observation sees to them: it is
/// made while the connection is still there. One that pauses reading gets no more until something resumes it.
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
    /// A check with this input, up to 1,000 cuts in two, and 50 random ones.
    pub fn new(input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref().to_vec();
        Self { input, splits: SPLITS, random: RANDOM, seed: SEED, only: false, end: false }
    }

    /// How many cuts in two there are at most.
    pub fn splits(mut self, most: usize) -> Self {
        self.splits = most;
        self
    }

    /// How many random cuts there are.
    pub fn random(mut self, count: usize) -> Self {
        self.random = count;
        self
    }

    /// Makes other random cuts. Without this they are the same in each run of the test.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes no cuts but the random one of this seed, which a failure printed.
    pub fn only_seed(mut self, seed: u64) -> Self {
        (self.seed, self.only) = (seed, true);
        self
    }

    /// The peer's end of stream follows the input.
    pub fn then_end_of_stream(mut self) -> Self {
        self.end = true;
        self
    }

    /// Runs the check with protocols that `make` makes.
    ///
    /// # Panics
    ///
    /// If one of the runs differs from the one with the whole input: with the cut, the seed or the place of it, and what
    /// differed. And if two runs with the whole input differ, for then there is nothing to compare with.
    #[track_caller]
    pub fn run<P: Protocol>(&self, mut make: impl FnMut() -> P) {
        self.run_observed(|| (make(), || ()));
    }

    /// The same with an observation for each protocol: what it returns after the input is compared as well.
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
    /// As [`run`](Self::run), and with what the observation panics with.
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
            panic!("two runs over the same whole input differ, so it is not the cuts that matter:\n{difference}");
        }
        for cut in self.cuts() {
            if let Some(difference) = whole.difference(&run(&cut)) {
                panic!(
                    "what the protocol does depends on how its input is cut.\n\nthe cut: {}\n\n{difference}",
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
        // Spread, from the first place to the last, where there is no time for all.
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

    /// How a failure tells of it.
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

/// Pieces of random lengths: of few bytes with one seed, of many with another, so that both cuts within a message and messages
/// within a piece come up.
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

/// The result of a run.
struct RunResult<S> {
    written: Vec<u8>,
    close: String,
    observed: S,
}

impl<S: PartialEq + fmt::Debug> RunResult<S> {
    /// What is not the same in another run, told for a failure.
    fn difference(&self, other: &Self) -> Option<String> {
        let mut text = String::new();
        let mut say = |what: String| text.write_str(&what).is_ok();
        if self.written != other.written {
            let same = self.written.iter().zip(&other.written).take_while(|(one, other)| one == other).count();
            say(format!(
                "what it wrote differs after {same} bytes\n  the whole: {} bytes, {}\n  cut:       {} bytes, {}\n",
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
            say(format!("what was observed differs\n  the whole: {whole:?}\n  cut:       {cut:?}\n"));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// How many cuts in two: all of those of a short dialogue. Each is a run over the whole input, so more would be felt.
const SPLITS: usize = 1000;

/// How many random cuts. Arbitrary: some ten of each length.
const RANDOM: usize = 50;

/// The longest piece of a random cut: within a message, about a message, about a packet, and much at once.
const LENGTHS: [u64; 5] = [2, 8, 64, 1460, 20_000];

/// Where random cuts begin, so that a test does the same each time. Any number will do.
const SEED: u64 = 0x726f_7065;

/// How many pieces of a random cut are shown: those before a fault are what matters, but nobody reads hundreds.
const PIECES_SHOWN: usize = 12;
