//! The line receiver: delimiters, limits, raw mode, and mistakes in its use.

use ropewalk::protocols::LineError;
use ropewalk::testing::StringTransport;

use super::*;

fn lines() -> Recorder<LineReceiver> {
    Recorder::new(LineReceiver::new())
}

fn too_long(start: &str) -> Event {
    Event::TooLong(start.as_bytes().to_vec())
}

fn raw(text: &str) -> Vec<Event> {
    text.bytes().map(|byte| Event::Raw(vec![byte])).collect()
}

/// A8: with CR LF as the delimiter, a lone CR or LF is a byte of the line, wherever it is cut.
#[test]
fn a_lone_cr_or_lf_is_no_delimiter() {
    let expected = [message("a\rb\nc\n\rd\r"), message("\n"), message("")];
    let input = b"a\rb\nc\n\rd\r\r\n\n\r\n\r\n";
    assert_eq!(events(lines(), &[input]), expected);
    assert_eq!(events(lines(), &input.chunks(1).collect::<Vec<_>>()), expected);
}

/// A delimiter whose front repeats is found at its first end.
#[test]
fn delimiters_of_any_bytes() {
    let receiver = || {
        let mut receiver = LineReceiver::new();
        receiver.set_delimiter(&b"aab"[..]).unwrap();
        Recorder::new(receiver)
    };
    let input = b"aaab-aab-aaaab";
    let expected = [message("a"), message("-"), message("-aa")];
    assert_eq!(events(receiver(), &[input]), expected);
    assert_eq!(events(receiver(), &input.chunks(1).collect::<Vec<_>>()), expected);
    assert_eq!(LineReceiver::new().set_delimiter(&b""[..]), Err(LineError::EmptyDelimiter));
}

/// A delimiter and a limit that a line changes hold for the next byte of the same chunk.
#[test]
fn changes_hold_from_the_next_byte_on() {
    let changed = [message("dot"), message("one"), message("\r\ntwo")];
    assert_eq!(events(lines(), &[b"dot\r\none.\r\ntwo."]), changed);
    assert_eq!(
        events(lines().lenient(), &[b"short\r\n12345\r\n123456\r\nx\r\n"]),
        [message("short"), message("12345"), too_long("12345"), message("x")]
    );
}

/// Raw data begins and ends in the middle of a chunk, and no byte is lost or repeated.
#[test]
fn raw_mode_and_back() {
    let expected = [vec![message("raw")], raw("data\r\n."), vec![message("line"), message("raw")], raw("x.")].concat();
    let input = b"raw\r\ndata\r\n.line\r\nraw\r\nx.";
    assert_eq!(events(lines(), &[input]), expected);
    assert_eq!(events(lines(), &input.chunks(1).collect::<Vec<_>>()), expected);
}

/// A mode that is set from outside of the callbacks applies to the bytes of an incomplete line too:
/// they come first.
#[test]
fn raw_mode_from_outside() {
    let connection = StringTransport::new().joined(lines());
    connection.deliver(b"one\r\npart");
    connection.with(|recorder, _| recorder.receiver.set_raw_mode()).unwrap();
    connection.deliver(b"ly.two\r\nlast");
    let expected = [vec![Event::Made, message("one")], raw("partly."), vec![message("two")]].concat();
    assert_eq!(connection.with(|recorder, _| recorder.events.clone()).unwrap(), expected);
    let rest = connection.with(|recorder, _| recorder.receiver.clear_line_buffer()).unwrap();
    assert_eq!(rest, b"last");
}

/// A delimiter that is set from outside is looked for in the bytes of an incomplete line.
#[test]
fn a_delimiter_from_outside() {
    let connection = StringTransport::new().joined(lines());
    connection.deliver(b"one.two.thr");
    connection.with(|recorder, _| recorder.receiver.set_delimiter(&b"."[..])).unwrap().unwrap();
    connection.deliver(b"ee.");
    let expected = [Event::Made, message("one"), message("two"), message("three")];
    assert_eq!(connection.with(|recorder, _| recorder.events.clone()).unwrap(), expected);
}

/// A line that is too long is reported once, as soon as it can be known, with its first bytes. By
/// default the connection closes; a protocol that keeps it open gets the next line.
#[test]
fn a_line_that_is_too_long_is_reported_once() {
    let receiver = || Recorder::new(LineReceiver::new().max_length(4)).lenient();
    let input = b"1234\r\n12345\r\n1234567890\r\n\r\r\r\r\r\r\nnext\r\n";
    let expected = [message("1234"), too_long("1234"), too_long("1234"), too_long("\r\r\r\r"), message("next")];
    assert_eq!(events(receiver(), &[input]), expected);
    assert_eq!(events(receiver(), &input.chunks(1).collect::<Vec<_>>()), expected);
    assert_eq!(events(receiver(), &[b"12345"]), []);
    assert_eq!(events(receiver(), &[b"12345", b"6"]), [too_long("1234")]);
    let none = Recorder::new(LineReceiver::new().max_length(0)).lenient();
    assert_eq!(events(none, &[b"\r\nx\r\n\r\n"]), [message(""), too_long(""), message("")]);

    let connection = StringTransport::new().joined(Recorder::new(LineReceiver::new().max_length(4)));
    connection.deliver(b"12345678\r\nmore\r\n");
    assert_eq!(connection.lost().unwrap().to_string(), "the connection was closed cleanly");
}

/// Raw data that is taken by nothing is an error, not an endless loop.
#[test]
fn raw_data_that_nothing_takes() {
    struct Stuck {
        lines: LineReceiver,
        takes_raw: bool,
    }
    impl Protocol for Stuck {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.receive_lines(transport, data)
        }
    }
    impl LineProtocol for Stuck {
        fn lines(&mut self) -> &mut LineReceiver {
            &mut self.lines
        }
        fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
            self.takes_raw = line.is_empty();
            self.lines.set_raw_mode();
            Ok(())
        }
        fn raw_data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<usize> {
            if self.takes_raw { Ok(0) } else { Err(LineError::RawData.into()) }
        }
    }
    for (line, error) in [("\r\nx", LineError::NothingTaken), ("any\r\nx", LineError::RawData)] {
        let stuck = Stuck { lines: LineReceiver::new(), takes_raw: false };
        let connection = StringTransport::new().joined(stuck);
        connection.deliver(line.as_bytes());
        assert_eq!(connection.lost().unwrap().check(), Some(&error));
    }
}
