//! User instructions of taking a message out of a received segment: the receivers of `protocols`
//! beside the codecs of tokio-util.
//!
//! `cargo run --release -p ropewalk-bench --bin receiver_instructions`
//!
//! | case | a segment | ours | tokio-util's |
//! |---|---|---|---|
//! | `lines` | 16 lines of 40 bytes | `LineReceiver`, which lends bytes | `LinesCodec`, which makes a `String` of each |
//! | `prefixed` | 16 strings of 40 bytes, with a length of 32 bits | `IntNStringReceiver` | `LengthDelimitedCodec` |
//!
//! Each segment arrives whole, as one receive. Ours is lent to `data_received` by an in-memory
//! transport. A codec gets it in the buffer that it decodes from, which a `Framed` has it received
//! into; the copy into that buffer is made before the count begins. Both have a limit. A message is
//! counted, and its bytes are read by a sum of their first and last.
//!
//! The program runs itself under callgrind. The difference of two runs of different lengths leaves
//! out one-time work. It fails if a receiver takes more than 0.75 of its codec's instructions.

use std::hint::black_box;
use std::process::ExitCode;

use bytes::BytesMut;
use ropewalk::protocols::{IntNStringProtocol, IntNStringReceiver, LineProtocol, LineReceiver};
use ropewalk::testing::StringTransport;
use ropewalk::{Protocol, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::callgrind::Profile;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

/// Messages of a segment.
const MESSAGES: usize = 16;

/// Bytes of a message.
const MESSAGE_BYTES: usize = 40;

/// The limit of a message.
const LIMIT_BYTES: usize = 16_384;

/// Numbers of segments of the two runs.
const SEGMENTS: [usize; 2] = [1_000, 3_000];

/// Name of the functions whose instructions are counted.
const COUNTED: &str = "receiver_instructions::take_";

/// Each receiver, and the codec beside it.
const PAIRS: [(&str, &str); 2] = [("lines", "lines-codec"), ("prefixed", "prefixed-codec")];

/// The highest ratio of ours to theirs.
const BOUND: f64 = 0.75;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => PAIRS.into_iter().try_for_each(|(ours, theirs)| compare(ours, theirs)),
        ["--run", case, segments] => segments.parse().map_err(Into::into).and_then(|segments| run(case, segments)),
        _ => Err("usage: receiver_instructions".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the instructions of a pair.
///
/// # Errors
/// Ours takes more than the bound.
fn compare(ours: &str, theirs: &str) -> Result<()> {
    let (one, other) = (instructions(ours)?, instructions(theirs)?);
    let ratio = one / other;
    println!("{ours}: {one:.1} instructions for a message, {theirs}: {other:.1}; ratio {ratio:.2}");
    if ratio > BOUND { Err(format!("{ours} takes more than {BOUND} of {theirs}").into()) } else { Ok(()) }
}

/// Returns the instructions for a message.
fn instructions(case: &str) -> Result<f64> {
    let count = |segments: usize| -> Result<f64> {
        let profile = Profile::of_this_program(&["--run", case, &segments.to_string()], COUNTED)?;
        Ok(profile.instructions as f64)
    };
    let [short, long] = SEGMENTS;
    let messages = ((long - short) * MESSAGES) as f64;
    Ok((count(long)? - count(short)?) / messages)
}

/// Takes the messages out of so many segments.
fn run(case: &str, segments: usize) -> Result<()> {
    let message = [b'x'; MESSAGE_BYTES];
    let line = [&message[..], b"\r\n"].concat().repeat(MESSAGES);
    let prefixed = [&(MESSAGE_BYTES as u32).to_be_bytes()[..], &message].concat().repeat(MESSAGES);
    let seen = match case {
        "lines" => receive(Lines(LineReceiver::new().max_length(LIMIT_BYTES), Seen::default()), &line, segments)?,
        "prefixed" => {
            let receiver = IntNStringReceiver::int32().max_length(LIMIT_BYTES);
            receive(Prefixed(receiver, Seen::default()), &prefixed, segments)?
        }
        "lines-codec" => decode(LinesCodec::new_with_max_length(LIMIT_BYTES), &line, segments)?,
        "prefixed-codec" => {
            let codec = LengthDelimitedCodec::builder().max_frame_length(LIMIT_BYTES).new_codec();
            decode(codec, &prefixed, segments)?
        }
        _ => return Err(format!("no case is named {case}").into()),
    };
    let expected = segments * MESSAGES;
    if seen.messages == expected { Ok(()) } else { Err(format!("{} of {expected} messages", seen.messages).into()) }
}

/// Counts messages, and reads two bytes of each.
#[derive(Default, Clone, Copy)]
struct Seen {
    messages: usize,
    sum: u64,
}

impl Seen {
    #[inline]
    fn see(&mut self, message: &[u8]) {
        self.messages += 1;
        if let ([first, ..], [.., last]) = (message, message) {
            self.sum += u64::from(*first) + u64::from(*last);
        }
    }
}

fn receive<P: Protocol + Sees>(protocol: P, segment: &[u8], segments: usize) -> Result<Seen> {
    let connection = StringTransport::new().joined(protocol);
    for _ in 0..segments {
        connection
            .with(|protocol, transport| take_lent(protocol, transport, black_box(segment)))?
            .map_err(|failure| failure.to_string())?;
    }
    Ok(connection.with(|protocol, _| black_box(protocol.seen()))?)
}

#[inline(never)]
fn take_lent<P: Protocol>(protocol: &mut P, transport: &Transport, segment: &[u8]) -> ropewalk::Result<()> {
    protocol.data_received(transport, segment)
}

fn decode<D: Decoder>(mut codec: D, segment: &[u8], segments: usize) -> Result<Seen>
where
    D::Item: AsRef<[u8]>,
    D::Error: std::error::Error + Send + Sync + 'static,
{
    let (mut seen, mut buffer) = (Seen::default(), BytesMut::with_capacity(8 * 1024));
    for _ in 0..segments {
        buffer.extend_from_slice(black_box(segment));
        take_decoded(&mut codec, &mut buffer, &mut seen)?;
    }
    Ok(black_box(seen))
}

#[inline(never)]
fn take_decoded<D: Decoder>(codec: &mut D, buffer: &mut BytesMut, seen: &mut Seen) -> Result<(), D::Error>
where
    D::Item: AsRef<[u8]>,
{
    while let Some(message) = codec.decode(buffer)? {
        seen.see(message.as_ref());
    }
    Ok(())
}

trait Sees {
    fn seen(&self) -> Seen;
}

struct Lines(LineReceiver, Seen);

impl Sees for Lines {
    fn seen(&self) -> Seen {
        self.1
    }
}

impl Protocol for Lines {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        self.receive_lines(transport, data)
    }
}

impl LineProtocol for Lines {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.0
    }

    fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> ropewalk::Result<()> {
        self.1.see(line);
        Ok(())
    }
}

struct Prefixed(IntNStringReceiver, Seen);

impl Sees for Prefixed {
    fn seen(&self) -> Seen {
        self.1
    }
}

impl Protocol for Prefixed {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        self.receive_strings(transport, data)
    }
}

impl IntNStringProtocol for Prefixed {
    fn strings(&mut self) -> &mut IntNStringReceiver {
        &mut self.0
    }

    fn string_received(&mut self, _transport: &Transport, string: &[u8]) -> ropewalk::Result<()> {
        self.1.see(string);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without valgrind, each case takes all messages out of a few segments.
    #[test]
    fn all_messages_are_taken() {
        for case in PAIRS.into_iter().flat_map(|(ours, theirs)| [ours, theirs]) {
            run(case, 3).unwrap();
        }
        assert!(run("netstrings", 1).is_err());
    }
}
