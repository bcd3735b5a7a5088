//! The functions of the fuzz targets and the property tests: they take any bytes, and panic at a
//! fault. `fuzz/` has a target for each of them, and `fuzzed.rs` a property test.

use ropewalk::Protocol;
use ropewalk::endpoints::{Description, TcpClientSpec, TcpServerSpec};
use ropewalk::haproxy::{ProxyHeader, ProxyHeaderError, ProxyHeaderReader};
use ropewalk::protocols::{IntNStringReceiver, LineReceiver, NetstringReceiver};
use ropewalk::testing::StringTransport;

use super::recorder::{Event, Observed, Recorder, length_frames, stop_frames};

/// The name of a target in `fuzz/`, and its function.
type Target = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    ("lines", lines),
    ("netstrings", netstrings),
    ("prefixed_strings", prefixed_strings),
    ("frames", frames),
    ("proxy_header", proxy_header),
    ("description", description),
];

/// The longest message of the receivers, in bytes: short, so that limits are met often.
pub(crate) const LIMIT_BYTES: usize = 8;

/// The options of a run, from the first two bytes of the input.
struct Options {
    is_lenient: bool,
    is_pausing: bool,
    variant: usize,
    /// The lengths of the chunks, in turn.
    cuts: [usize; 2],
}

impl Options {
    fn take(data: &[u8]) -> (Self, &[u8]) {
        let (&[flags, cuts], input) = data.split_first_chunk().unwrap_or((&[0, 0], &[]));
        let options = Self {
            is_lenient: flags & 1 != 0,
            is_pausing: flags & 2 != 0,
            variant: usize::from(flags >> 2),
            cuts: [usize::from(cuts & 15) + 1, usize::from(cuts >> 4) + 1],
        };
        (options, input)
    }

    fn recorder<R>(&self, receiver: R) -> Recorder<R> {
        let (is_lenient, is_pausing) = (self.is_lenient, self.is_pausing);
        Recorder { is_lenient, is_pausing, ..Recorder::new(receiver) }
    }
}

/// Lines, in every mode of the receiver.
pub(crate) fn lines(data: &[u8]) {
    let (options, input) = Options::take(data);
    assert_same(input, &options.cuts, || options.recorder(LineReceiver::new().max_length(LIMIT_BYTES)));
}

/// Netstrings.
pub(crate) fn netstrings(data: &[u8]) {
    let (options, input) = Options::take(data);
    assert_same(input, &options.cuts, || options.recorder(NetstringReceiver::new().max_length(LIMIT_BYTES)));
}

/// Strings with their length in front, of each width.
pub(crate) fn prefixed_strings(data: &[u8]) {
    let (options, input) = Options::take(data);
    let make = [IntNStringReceiver::int8, IntNStringReceiver::int16, IntNStringReceiver::int32][options.variant % 3];
    assert_same(input, &options.cuts, || options.recorder(make().max_length(LIMIT_BYTES)));
}

/// Messages that a function cuts: by a length in front, or by a stop.
pub(crate) fn frames(data: &[u8]) {
    let (options, input) = Options::take(data);
    let make = [length_frames, stop_frames][options.variant % 2];
    assert_same(input, &options.cuts, || options.recorder(make().max_length(LIMIT_BYTES)));
}

/// PROXY headers of both versions: the same result in each cut, and a good header is read again as
/// it is sent on.
pub(crate) fn proxy_header(data: &[u8]) {
    let (options, input) = Options::take(data);
    let whole = read_header(&[input]);
    assert_eq!(read_header(&pieces(input, &options.cuts)), whole, "the header depends on its cut");
    assert_eq!(read_header(&input.chunks(1).collect::<Vec<_>>()), whole, "the header depends on its cut");
    let Ok((taken, Some(header))) = whole else { return };
    assert!(taken <= input.len() && header.source().is_some() == header.destination().is_some());
    assert_eq!(header.values().map(|(_, value)| 3 + value.len()).sum::<usize>(), header_values(&header));
    let sent = header.encode();
    let (length, again) =
        ProxyHeaderReader::new().max_length(usize::MAX).read(&sent).expect("it is sent as a good one");
    let again = again.expect("it is complete");
    assert_eq!((length, again.source(), again.destination()), (sent.len(), header.source(), header.destination()));
    assert_eq!((again.is_local(), again.protocol_version()), (header.is_local(), header.protocol_version()));
}

/// Number of bytes of the values of a header, from what it takes without them.
fn header_values(header: &ProxyHeader) -> usize {
    let bare = match (header.source(), header.destination()) {
        (Some(source), Some(destination)) => ProxyHeader::proxied(source.clone(), destination.clone()),
        _ => ProxyHeader::unknown(),
    };
    header.encode().len().saturating_sub(bare.version(header.protocol_version()).encode().len())
}

fn read_header(chunks: &[&[u8]]) -> Result<(usize, Option<ProxyHeader>), ProxyHeaderError> {
    let (mut reader, mut taken) = (ProxyHeaderReader::new().max_length(300), 0);
    for chunk in chunks {
        let (count, header) = reader.read(chunk)?;
        taken += count;
        if header.is_some() {
            return Ok((taken, header));
        }
        assert_eq!(count, chunk.len(), "an incomplete header takes all");
    }
    Ok((taken, None))
}

/// Descriptions of endpoints: the position of an error is one of the text, and a good description
/// is written as it was read.
pub(crate) fn description(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = match Description::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(text.is_char_boundary(error.position()), "{error}"),
    };
    assert_eq!(parsed.to_string(), text);
    assert!(!parsed.kind().is_empty());
    for field in parsed.fields() {
        assert!(field.position() <= field.value_position() && text.is_char_boundary(field.value_position()));
    }
    for error in [TcpServerSpec::from_description(&parsed).err(), TcpClientSpec::from_description(&parsed).err()] {
        assert!(error.is_none_or(|error| text.is_char_boundary(error.position())));
    }
}

/// Asserts that a receiver makes the same callbacks for the whole input, for these chunks, and for
/// single bytes.
pub(crate) fn assert_same<R: 'static>(input: &[u8], cuts: &[usize], make: impl Fn() -> Recorder<R>)
where
    Recorder<R>: Protocol,
{
    let whole = outcome(&[input], make());
    assert_eq!(outcome(&pieces(input, cuts), make()), whole, "the callbacks depend on the cut");
    assert_eq!(outcome(&input.chunks(1).collect::<Vec<_>>(), make()), whole, "the callbacks depend on the cut");
}

/// Cuts the input into chunks of these lengths, in turn.
fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut chunks) = (input, Vec::new());
    for cut in cuts.iter().cycle().take_while(|_| !cuts.is_empty()) {
        if rest.is_empty() {
            return chunks;
        }
        let (chunk, behind) = rest.split_at(rest.len().min(*cut));
        chunks.push(chunk);
        rest = behind;
    }
    chunks.push(rest);
    chunks
}

fn outcome<R: 'static>(chunks: &[&[u8]], recorder: Recorder<R>) -> (Vec<Event>, Option<String>)
where
    Recorder<R>: Protocol,
{
    let (observed, record) = Observed::new(recorder);
    let connection = StringTransport::new().joined(observed);
    for chunk in chunks {
        connection.deliver(chunk);
        // A pause lasts until the chunk is delivered, and each of its bytes may bring one.
        for _ in 0..chunk.len() {
            connection.transport().resume_producing();
            connection.turn();
        }
    }
    (record.take(), connection.lost().map(|reason| reason.to_string()))
}
