//! The chunking check: right protocols pass, and each kind of wrong one is caught, with a cut that
//! shows it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ropewalk::testing::{AccumulatingProtocol, ChunkingCheck, StringTransport};
use ropewalk::{Connections, Protocol, Result, Transport, for_protocol};

/// Answers each line, closes after `bye`, fails on a line that is too long: right.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    /// Bytes written from now on arrive or not, depending on the cuts.
    silent: bool,
}

const LONGEST: usize = 20;

impl Protocol for Lines {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for byte in data {
            if transport.is_disconnecting() || self.silent {
                return Ok(());
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > LONGEST {
                    return Err("the line is too long".into());
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            match &line[..] {
                b"bye" => transport.lose_connection(),
                b"gone" => transport.abort_connection(),
                b"enough" => {
                    transport.lose_write_connection();
                    self.silent = true;
                }
                line => transport.write_sequence([b"<", line, b">"]),
            }
        }
        Ok(())
    }
}

/// Takes a piece for a message: wrong.
struct Pieces;

impl Protocol for Pieces {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write_sequence([b"<", data.trim_ascii_end(), b">"]);
        Ok(())
    }
}

/// Right, but for one place: goes on after `bye` if more is in the same piece.
#[derive(Default)]
struct GoesOn {
    line: Vec<u8>,
}

impl Protocol for GoesOn {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for byte in data {
            self.line.push(*byte);
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                transport.write(&line);
                if line == b"bye\n" {
                    transport.lose_connection();
                }
            }
        }
        Ok(())
    }
}

/// Looks for a two-byte mark in each piece, and so misses one that is cut: wrong at a single place.
#[derive(Default)]
struct MissesMark;

impl Protocol for MissesMark {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if data.windows(2).any(|pair| pair == b"\r\n") {
            transport.write(b"found");
        }
        Ok(())
    }
}

fn failure_of(call: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("the check fails");
    payload.downcast_ref::<String>().expect("a formatted message").clone()
}

/// A right protocol passes, whatever it does at the end: nothing, close, abort, shut its side,
/// fail; with half a line left over.
#[test]
fn a_right_protocol_passes() {
    for last in
        ["", "bye\nand more\n", "gone\nand more\n", "enough\nnot answered\n", "a line that is too long\nmore\n", "half"]
    {
        let input = format!("one\ntwo\n\nthree\n{last}");
        ChunkingCheck::new(&input).run(Lines::default);
        ChunkingCheck::new(&input).then_end_of_stream().run(Lines::default);
    }
    ChunkingCheck::new(b"").run(Lines::default);
    ChunkingCheck::new(b"\n").run(Lines::default);
}

/// A protocol that takes a piece for a message is caught, and the message says how it was cut and
/// what came of it.
#[test]
fn a_piece_taken_for_a_message_is_caught() {
    let message = failure_of(|| ChunkingCheck::new(b"one\ntwo\n").run(|| Pieces));
    assert!(message.contains("byte by byte"), "{message}");
    assert!(message.contains("differs after 2 bytes"), "{message}");
    assert!(message.contains(r#""<o|ne\ntwo>""#) && message.contains(r#""<o|><n>"#), "{message}");
}

/// A protocol that handles what follows its own close is caught.
#[test]
fn what_follows_a_close_is_caught() {
    let message = failure_of(|| ChunkingCheck::new(b"bye\nmore\n").run(GoesOn::default));
    assert!(message.contains("differs after 4 bytes"), "{message}");
}

/// Each kind of cut is made, and each failure names its place or its seed, with which it can be
/// repeated.
#[test]
fn every_kind_of_cut_is_made_and_named() {
    let input = [vec![b'x'; 300], b"\r\n".to_vec(), vec![b'x'; 300]].concat();
    let message = failure_of(|| ChunkingCheck::new(&input).run(|| MissesMark));
    assert!(message.contains("byte by byte"), "{message}");

    // Wrong only when cut in two at one place.
    let two = || once_cut(|cuts| cuts == [301, 301]);
    let message = failure_of(|| ChunkingCheck::new(&input).run(two()));
    assert!(message.contains(r"in two, after 301 of 602 bytes: ..."), "{message}");
    assert!(message.contains(r"xx\r|\nxx"), "{message}");

    // Wrong only when cut at random.
    let random = || once_cut(|cuts| cuts.len() > 2 && cuts.iter().any(|count| *count > 1));
    let message = failure_of(|| ChunkingCheck::new(&input).run(random()));
    let seed = message.split("only_seed(0x").nth(1).and_then(|rest| rest.split(')').next()).expect("a seed is named");
    let seed = u64::from_str_radix(seed, 16).unwrap();
    let again = failure_of(|| ChunkingCheck::new(&input).only_seed(seed).run(random()));
    assert_eq!(message, again);
    ChunkingCheck::new(&input).random(0).run(random());
}

/// Protocols that answer according to the pieces they were given.
fn once_cut(wrong: impl Fn(&[usize]) -> bool + Clone + 'static) -> impl FnMut() -> Watcher {
    move || Watcher { pieces: Vec::new(), total: 0, wrong: Box::new(wrong.clone()) }
}

struct Watcher {
    pieces: Vec<usize>,
    total: usize,
    wrong: Judge,
}

type Judge = Box<dyn Fn(&[usize]) -> bool>;

impl Protocol for Watcher {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.pieces.push(data.len());
        self.total += data.len();
        if self.total == 602 {
            transport.write(if (self.wrong)(&self.pieces) { b"wrong" } else { b"right" });
        }
        Ok(())
    }
}

/// The cuts in two are at every place of a short input, and from the first to the last of a long
/// one; all cuts together lose nothing.
#[test]
fn cuts_cover_the_input() {
    let firsts = |length: usize, most: usize| {
        let runs: Rc<RefCell<Vec<Vec<usize>>>> = Rc::default();
        ChunkingCheck::new(vec![0; length]).splits(most).random(20).run(|| {
            runs.borrow_mut().push(Vec::new());
            Recorder(Rc::clone(&runs))
        });
        let runs = runs.take();
        assert!(runs.iter().all(|pieces| pieces.iter().sum::<usize>() == length));
        // Behind two of the whole and one of single bytes.
        let two = &runs[3..runs.len() - 20];
        two.iter().map(|pieces| pieces[0]).collect::<Vec<_>>()
    };
    assert_eq!(firsts(6, 100), [1, 2, 3, 4, 5]);
    assert_eq!(firsts(10_001, 5), [1, 2500, 5000, 7500, 10_000]);
    assert_eq!(firsts(10, 1), [1]);
    assert_eq!(firsts(10, 0), [0_usize; 0]);
    assert_eq!(firsts(1, 5), [0_usize; 0]);
}

struct Recorder(Rc<RefCell<Vec<Vec<usize>>>>);

impl Protocol for Recorder {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.0.borrow_mut().last_mut().expect("a run has begun").push(data.len());
        Ok(())
    }
}

/// The result of the observation is compared as well. It is made while the connection is still
/// there.
#[test]
fn observations_are_compared() {
    let observed = |what: fn(&ropewalk::testing::Accumulated) -> usize| {
        move || {
            let protocol = AccumulatingProtocol::new();
            let record = protocol.record();
            (protocol, move || {
                assert!(!record.is_lost());
                what(&record)
            })
        }
    };
    ChunkingCheck::new(b"abc").run_observed(observed(|record| record.data().len()));
    let message = failure_of(|| ChunkingCheck::new(b"abc").run_observed(observed(|record| record.deliveries())));
    assert!(message.contains("the observations differ\n  the whole: 1\n  cut:       3"), "{message}");
}

/// How it closed is compared: a failure in one run only, and an abort in the place of a close.
#[test]
fn closes_are_compared() {
    struct FailsOnSmall;
    impl Protocol for FailsOnSmall {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            match data.len() {
                1 => Err("too small".into()),
                2 => {
                    transport.abort_connection();
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }
    let message = failure_of(|| ChunkingCheck::new(b"abc").run(|| FailsOnSmall));
    assert!(message.contains("the whole: open\n  cut:       closed (too small)"), "{message}");
}

/// A protocol that does something else each time is told apart from one that depends on cuts.
#[test]
fn a_protocol_that_never_does_the_same_is_named() {
    struct Counting(usize);
    impl Protocol for Counting {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            transport.write(self.0.to_string().as_bytes());
            Ok(())
        }
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    let runs = Cell::new(0);
    let message = failure_of(|| {
        ChunkingCheck::new(b"abc").run(|| {
            runs.set(runs.get() + 1);
            Counting(runs.get())
        })
    });
    assert!(message.contains("two runs over the same whole input differ"), "{message}");
}

/// The protocol of these tests that is right is so by itself, too.
#[test]
fn the_line_receiver_answers() {
    let connection = StringTransport::new().joined(Lines::default());
    connection.deliver(b"on");
    connection.deliver(b"e\ntwo\nth");
    assert_eq!(connection.string().value(), b"<one><two>");
}

/// A factory of its own for each run: shared state begins anew, and a protocol that a factory wraps
/// is checked with what wraps it.
#[test]
fn protocols_of_factories_are_checked() {
    let made = Cell::new(0);
    ChunkingCheck::new(b"one\ntwo\n").run_factory(|| {
        made.set(made.get() + 1);
        Connections::new().for_protocol(|room, _peer| Counted(room.clone()))
    });
    assert!(made.get() > 10, "{} factories", made.get());
    let wrong = catch_unwind(|| ChunkingCheck::new(b"one\ntwo\n").run_factory(|| for_protocol(|_| Pieces)));
    assert!(wrong.is_err());
    let refused = catch_unwind(|| ChunkingCheck::new(b"one").run_factory(|| |_peer| None::<Pieces>));
    assert!(refused.is_err());
}

/// Answers with the number of connections, once: right, if each run has a list of its own.
struct Counted(Connections<Self>);

impl Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(self.0.len().to_string().as_bytes());
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}
