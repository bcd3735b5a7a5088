//! Strings with their length in front: the widths, and the limits.

use ropewalk::testing::StringTransport;

use super::*;

fn widths() -> [(usize, fn() -> IntNStringReceiver); 3] {
    [(1, IntNStringReceiver::int8), (2, IntNStringReceiver::int16), (4, IntNStringReceiver::int32)]
}

fn outcome(receiver: impl Fn() -> IntNStringReceiver, input: &[u8]) -> Vec<Event> {
    let whole = events(Recorder::new(receiver()).lenient(), &[input]);
    assert_eq!(events(Recorder::new(receiver()).lenient(), &input.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

/// Strings that are sent are strings that are received, with each width. The length is big-endian.
#[test]
fn sent_strings_are_received() {
    for (width, receiver) in widths() {
        let string = StringTransport::new();
        for text in ["", "x", "hello"] {
            receiver().send_string(string.transport(), text.as_bytes()).unwrap();
        }
        assert_eq!(string.value().len(), 3 * width + 6);
        assert_eq!(outcome(receiver, &string.value()), [message(""), message("x"), message("hello")]);
    }
    let string = StringTransport::new();
    IntNStringReceiver::int32().send_string(string.transport(), &[b'x'; 0x1_02_03]).unwrap();
    assert_eq!(string.value()[..4], [0, 1, 2, 3]);
}

/// A string that is too long for its prefix is refused, and nothing is written.
#[test]
fn a_string_too_long_to_be_sent_is_refused() {
    for (receiver, most) in [(IntNStringReceiver::int8(), 255), (IntNStringReceiver::int16(), 65_535)] {
        let string = StringTransport::new();
        let refused = receiver.send_string(string.transport(), &vec![0; most + 1]).unwrap_err();
        assert_eq!((refused.length, refused.most as usize), (most + 1, most));
        assert_eq!(string.value(), b"");
        receiver.send_string(string.transport(), &vec![0; most]).unwrap();
        assert!(string.value().starts_with(&[255]));
    }
}

/// A4: the largest length of each width is read without overflow. With a limit below it, it is
/// refused once, and with a larger one it is received.
#[test]
fn the_largest_lengths() {
    for (width, receiver) in widths() {
        let largest = u32::MAX >> (32 - 8 * width);
        let refusing = || receiver().max_length(largest as usize - 1);
        assert_eq!(outcome(refusing, &vec![255; width]), [Event::Announced(largest)]);
        let accepting = || receiver().max_length(usize::MAX);
        assert_eq!(outcome(accepting, &vec![255; width]), []);
        if width < 4 {
            let input = [vec![255; width], vec![b'x'; largest as usize]].concat();
            assert_eq!(outcome(accepting, &input), [Event::Message(vec![b'x'; largest as usize])]);
        }
    }
}

/// A string that is announced as too long is reported once. By default the connection closes. A
/// protocol that keeps it open gets the string behind it.
#[test]
fn a_string_that_is_too_long_is_skipped() {
    let receiver = || IntNStringReceiver::int8().max_length(3);
    let input = b"\x03abc\x04abcd\x00\xff";
    let expected = [message("abc"), Event::Announced(4), message(""), Event::Announced(255)];
    assert_eq!(outcome(receiver, input), expected);

    let connection = StringTransport::new().joined(Recorder::new(receiver()));
    connection.deliver(input);
    assert_eq!(connection.lost().unwrap().to_string(), "the connection was closed cleanly");
}
