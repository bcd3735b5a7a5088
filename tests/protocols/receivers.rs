//! Duties of every receiver, each of them a test over the list [`RECEIVERS`]. A receiver of the
//! crate that is not in the list fails `every_receiver_is_listed`.

use std::collections::BTreeSet;
use std::path::Path;

use ropewalk::testing::{ChunkingCheck, StringTransport};

use super::common::allocator;
use super::recorder::length_frames;
use super::*;

/// A receiver, and how its messages look.
struct Kind {
    name: &'static str,
    /// Runs a check with a recorder of this receiver and a limit of [`LIMIT_BYTES`].
    run: fn(&dyn Check),
    /// Encodes a message.
    encode: fn(&[u8]) -> Vec<u8>,
    /// The start of a message of `LIMIT_BYTES` bytes and of a message that is longer without end.
    starts: fn() -> [Vec<u8>; 2],
}

const LIMIT_BYTES: usize = 20_000;

/// Memory of a limit, of the allocator's rounding, and of the transport.
const ALLOWANCE_BYTES: usize = LIMIT_BYTES + 4096;

const CHUNK_BYTES: usize = 64 * 1024;

const RECEIVERS: &[Kind] = &[
    Kind {
        name: "LineReceiver",
        run: |check| check.with(&|| LineReceiver::new().max_length(LIMIT_BYTES)),
        encode: |message| [message, b"\r\n"].concat(),
        starts: || [Vec::new(), Vec::new()],
    },
    Kind {
        name: "NetstringReceiver",
        run: |check| check.with(&|| NetstringReceiver::new().max_length(LIMIT_BYTES)),
        encode: |message| [format!("{}:", message.len()).as_bytes(), message, b","].concat(),
        starts: || [b"20000:".to_vec(), b"20001:".to_vec()],
    },
    Kind {
        name: "IntNStringReceiver",
        run: |check| check.with(&|| IntNStringReceiver::int32().max_length(LIMIT_BYTES)),
        encode: |message| [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat(),
        starts: || [20_000_u32.to_be_bytes().to_vec(), u32::MAX.to_be_bytes().to_vec()],
    },
    Kind {
        name: "FrameReceiver",
        run: |check| check.with(&|| length_frames().max_length(4 + LIMIT_BYTES)),
        encode: |message| [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat(),
        starts: || [20_000_u32.to_be_bytes().to_vec(), u32::MAX.to_be_bytes().to_vec()],
    },
];

/// Receivers whose duties are tested elsewhere: they take one message only, or copy by design. Each
/// has a file, and its tests of every cut and of the limits.
const ELSEWHERE: &[(&str, &str, [&str; 2])] = &[
    ("ProxyHeaderReader", "proxy_headers.rs", ["good_headers_in_each_cut", "a_binary_header_has_a_limit"]),
    ("CodecReceiver", "codecs.rs", ["every_cut_gives_the_same_items", "limits_hold"]),
];

/// A check of any receiver.
trait Check {
    fn frames(&self, make: &dyn Fn() -> FrameReceiver);
    fn lines(&self, make: &dyn Fn() -> LineReceiver);
    fn netstrings(&self, make: &dyn Fn() -> NetstringReceiver);
    fn prefixed(&self, make: &dyn Fn() -> IntNStringReceiver);
}

/// A receiver that a [`Check`] takes.
trait Checked: Sized + 'static {
    fn check(check: &dyn Check, make: &dyn Fn() -> Self);
}

impl dyn Check + '_ {
    fn with<R: Checked>(&self, make: &dyn Fn() -> R) {
        R::check(self, make);
    }
}

macro_rules! checked {
    ($receiver:ty, $method:ident) => {
        impl Checked for $receiver {
            fn check(check: &dyn Check, make: &dyn Fn() -> Self) {
                check.$method(make);
            }
        }
    };
}

checked!(FrameReceiver, frames);
checked!(LineReceiver, lines);
checked!(NetstringReceiver, netstrings);
checked!(IntNStringReceiver, prefixed);

/// Makes a [`Check`] of a function that is generic over receivers.
macro_rules! check {
    ($name:ident, $kind:ident, |$make:ident| $body:block) => {
        struct $name<'a>(&'a Kind);
        impl $name<'_> {
            fn check<R: 'static>(&self, $make: &dyn Fn() -> R)
            where
                Recorder<R>: Protocol,
            {
                let $kind = self.0;
                $body
            }
        }
        impl Check for $name<'_> {
            fn frames(&self, make: &dyn Fn() -> FrameReceiver) {
                self.check(make);
            }
            fn lines(&self, make: &dyn Fn() -> LineReceiver) {
                self.check(make);
            }
            fn netstrings(&self, make: &dyn Fn() -> NetstringReceiver) {
                self.check(make);
            }
            fn prefixed(&self, make: &dyn Fn() -> IntNStringReceiver) {
                self.check(make);
            }
        }
        for kind in RECEIVERS {
            (kind.run)(&$name(kind));
        }
    };
}

/// A receiver of the crate without these tests is a mistake.
#[test]
fn every_receiver_is_listed() {
    fn search(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                search(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("pub struct "));
            let names = names.filter_map(|rest| rest.split([' ', '<', '{', '(', ';']).next());
            let is_receiver = |name: &&str| name.ends_with("Receiver") || name.ends_with("Reader");
            found.extend(names.filter(is_receiver).map(str::to_owned));
        }
    }
    let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")), BTreeSet::new());
    search(&root.join("src"), &mut found);
    let listed = RECEIVERS.iter().map(|kind| kind.name).chain(ELSEWHERE.iter().map(|(name, ..)| *name));
    assert_eq!(found, listed.map(str::to_owned).collect());
    for (name, file, tests) in ELSEWHERE {
        let text = std::fs::read_to_string(root.join("tests/protocols").join(file)).unwrap();
        for test in tests {
            assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "{name} has no test {test} in {file}");
        }
    }
}

/// F61: the chunking check passes, with messages that pause and resume, that close, and that are
/// refused.
#[test]
fn every_cut_gives_the_same_callbacks() {
    check!(Cuts, kind, |make| {
        let texts: [&[u8]; 4] = [b"one", b"", b"two\n", b"blink"];
        let messages = texts.map(kind.encode).concat();
        let closed = [&messages[..], &(kind.encode)(b"bye"), &messages].concat();
        let endless = [&messages[..], &(kind.starts)()[1], &[b'x'; 21_000]].concat();
        for (input, splits) in [(closed, 1000), (endless, 50)] {
            ChunkingCheck::new(&input).splits(splits).random(20).then_end_of_stream().run_observed(|| {
                let (observed, record) = Observed::new(Recorder::new(make()));
                (observed, move || record.take())
            });
        }
    });
}

/// A1: a message of the limit is received, in pieces too. A longer one is reported once and closes
/// the connection, and what is kept stays within the limit, however much is sent.
#[test]
fn limits_hold() {
    check!(Limits, kind, |make| {
        let full = (kind.encode)(&[b'x'; LIMIT_BYTES]);
        assert_eq!(events(Recorder::new(make()), &[&full[..7], &full[7..]]), [Event::Message(vec![b'x'; LIMIT_BYTES])]);
        for (start, is_lenient) in (kind.starts)().into_iter().flat_map(|start| [(start.clone(), false), (start, true)])
        {
            let junk = [b'x'; CHUNK_BYTES];
            let connection = StringTransport::new().joined(Recorder { is_lenient, ..Recorder::new(make()).counting() });
            connection.deliver(&start);
            let before = allocator::live();
            // A chunk's worth of the test kit's own memory comes with the first one.
            connection.deliver(&junk);
            let counted = || connection.connection().with(|recorder, _| recorder.count);
            assert_eq!(connection.lost().is_some(), !is_lenient, "{}", kind.name);
            if !is_lenient {
                continue;
            }
            allocator::begin_peak();
            let count = counted().unwrap();
            for _ in 0..100 {
                connection.deliver(&junk);
            }
            let grown = allocator::peak().saturating_sub(before);
            assert!(grown <= ALLOWANCE_BYTES + 2 * CHUNK_BYTES, "{}: {grown} bytes", kind.name);
            if start != (kind.starts)()[0] || start.is_empty() {
                assert_eq!((count, counted().unwrap()), (2, 2), "{}", kind.name);
            }
        }
    });
}

/// A2: a length that is only announced reserves nothing.
#[test]
fn an_announced_length_reserves_nothing() {
    check!(Announced, kind, |make| {
        for start in (kind.starts)() {
            let connection = StringTransport::new().joined(Recorder::new(make()).lenient().counting());
            connection.deliver(b"");
            let before = allocator::live();
            allocator::begin_peak();
            connection.deliver(&start);
            let grown = allocator::peak().saturating_sub(before);
            assert!(grown < 4096, "{}: {grown} bytes", kind.name);
        }
    });
}

/// A3: empty messages are messages. A flood of them keeps nothing, and each chunk is one call of
/// `data_received`.
#[test]
fn floods_of_empty_messages() {
    check!(Empty, kind, |make| {
        let empty = (kind.encode)(b"");
        let chunk = empty.repeat(CHUNK_BYTES / empty.len());
        let connection = StringTransport::new().joined(Recorder::new(make()).counting());
        connection.deliver(&chunk);
        let (before, mut chunks) = (allocator::live(), 1);
        for _ in 0..10 {
            connection.deliver(&chunk);
            chunks += 1;
        }
        assert!(allocator::live() <= before, "{}", kind.name);
        let count = connection.with(|recorder, _| recorder.count).unwrap();
        assert_eq!(count, 1 + chunks * (chunk.len() / empty.len()), "{}", kind.name);
    });
}

/// F60, A5: what is allocated and moved for a message that comes byte by byte is proportional to
/// it: a message of twice the bytes takes one allocation more.
#[test]
fn single_bytes_take_linear_memory_traffic() {
    check!(Single, kind, |make| {
        let allocations = |bytes: usize| {
            let connection = StringTransport::new().joined(Recorder::new(make()).counting());
            let input = (kind.encode)(&vec![b'x'; bytes]);
            let before = allocator::allocations();
            for byte in input.chunks(1) {
                connection.with(|recorder, transport| recorder.data_received(transport, byte)).unwrap().unwrap();
            }
            assert_eq!(connection.with(|recorder, _| recorder.count), Ok(2), "{}", kind.name);
            allocator::allocations() - before
        };
        let (one, two) = (allocations(8_000), allocations(16_000));
        assert!(two <= one + 2, "{}: {one} allocations, {two} for twice the bytes", kind.name);
    });
}

/// Messages that arrive whole are lent from their chunk: none is copied, and nothing is allocated.
#[test]
fn whole_messages_allocate_nothing() {
    check!(Whole, kind, |make| {
        let connection = StringTransport::new().joined(Recorder::new(make()).counting());
        let chunk = (kind.encode)(b"a short message").repeat(16);
        connection.deliver(&chunk);
        let before = allocator::allocations();
        for _ in 0..100 {
            connection.with(|recorder, transport| recorder.data_received(transport, &chunk)).unwrap().unwrap();
        }
        assert_eq!(allocator::allocations() - before, 0, "{}", kind.name);
    });
}

/// A6: no receiver calls itself for a message. A hundred thousand messages in one call take no more
/// of the stack than one.
#[test]
fn messages_take_no_stack() {
    let thread = std::thread::Builder::new().stack_size(128 * 1024);
    let run = || {
        check!(Deep, kind, |make| {
            let connection = StringTransport::new().joined(Recorder::new(make()).counting());
            let chunk = (kind.encode)(b"").repeat(100_000);
            connection.with(|recorder, transport| recorder.data_received(transport, &chunk)).unwrap().unwrap();
            assert_eq!(connection.with(|recorder, _| recorder.count), Ok(100_001), "{}", kind.name);
        });
    };
    thread.spawn(run).unwrap().join().expect("the stack is large enough");
}
