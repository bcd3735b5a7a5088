//! The netstring receiver: its strict syntax, and its limit.

use ropewalk::testing::StringTransport;

use super::*;

fn broken(error: NetstringError) -> Event {
    Event::Broken(error)
}

fn outcome(input: &[u8]) -> Vec<Event> {
    let strings = || Recorder::new(NetstringReceiver::new().max_length(20)).lenient();
    let whole = events(strings(), &[input]);
    assert_eq!(events(strings(), &input.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

/// A4: a length is decimal digits and nothing else: no sign, blank, underscore, leading zero or
/// digit of another script. The error is reported once, and nothing behind it is read.
#[test]
fn lengths_are_strict() {
    use NetstringError::{LeadingZero, NoLength};
    for (input, error) in [
        ("00:,", LeadingZero),
        ("01:x,", LeadingZero),
        ("+5:hello,", NoLength),
        ("-1:,", NoLength),
        (" 5:hello,", NoLength),
        ("1_0:0123456789,", NoLength),
        ("\u{ff15}:hello,", NoLength),
        (":,", NoLength),
        ("5 :hello,", NoLength),
        ("0x5:hello,", NoLength),
        (",", NoLength),
    ] {
        assert_eq!(outcome(format!("2:of,{input}2:on,").as_bytes()), [message("of"), broken(error)], "{input}");
    }
}

/// A4: a length above the limit is refused at the digit that exceeds it, however many follow.
#[test]
fn lengths_have_a_limit() {
    let refused = [broken(NetstringError::TooLong { limit: 20 })];
    assert_eq!(outcome(b"20:01234567890123456789,0:,"), [message("01234567890123456789"), message("")]);
    for length in ["21", "99", "2147483648", "4294967296", "18446744073709551616", &"9".repeat(10_000)] {
        assert_eq!(outcome(length.as_bytes()), refused, "{length}");
        assert_eq!(outcome(format!("{length}:x,").as_bytes()), refused, "{length}");
    }
    // With a limit as large as its type, a length beyond it is refused all the same.
    let most = || Recorder::new(NetstringReceiver::new().max_length(usize::MAX)).lenient();
    let refused = [broken(NetstringError::TooLong { limit: usize::MAX })];
    assert_eq!(events(most(), &[usize::MAX.to_string().as_bytes(), b":x"]), []);
    assert_eq!(events(most(), &[b"18446744073709551616"]), refused);
    assert_eq!(events(most(), &[b"184467440737095516150"]), refused);
}

/// A comma that is missing is noticed at its place, not earlier.
#[test]
fn a_comma_ends_a_string() {
    assert_eq!(outcome(b"3:abc"), []);
    assert_eq!(outcome(b"3:abcd"), [broken(NetstringError::NoComma)]);
    assert_eq!(outcome(b"3:a,c,0:,"), [message("a,c"), message("")]);
}

/// By default an error closes the connection.
#[test]
fn an_error_closes() {
    let connection = StringTransport::new().joined(Recorder::new(NetstringReceiver::new()));
    connection.deliver(b"99999");
    assert!(connection.lost().is_none());
    assert_eq!(connection.with(|recorder, _| recorder.receiver.is_broken()), Ok(false));
    connection.deliver(b"0");
    assert_eq!(connection.lost().unwrap().to_string(), "the connection was closed cleanly");
}

/// Strings that are sent are strings that are received.
#[test]
fn sent_strings_are_received() {
    let string = StringTransport::new();
    let receiver = NetstringReceiver::new();
    for text in ["", "x", "hello, world"] {
        receiver.send_string(string.transport(), text.as_bytes());
    }
    assert_eq!(string.value(), b"0:,1:x,12:hello, world,");
    assert_eq!(outcome(&string.value()), [message(""), message("x"), message("hello, world")]);
}
