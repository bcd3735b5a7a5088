//! Messages that a function cuts: limits, wrong cuts, and errors of the function.

use ropewalk::protocols::{BadCut, Cut, FrameTooLong, FramedProtocol};
use ropewalk::testing::StringTransport;
use ropewalk::{Failure, Protocol, Result, Transport};

use super::recorder::stop_frames;
use super::*;

/// A protocol without a `frame_broken` of its own.
struct Plain(FrameReceiver, Vec<Vec<u8>>);

impl Protocol for Plain {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_frames(transport, data)
    }
}

impl FramedProtocol for Plain {
    fn frames(&mut self) -> &mut FrameReceiver {
        &mut self.0
    }

    fn message_received(&mut self, _transport: &Transport, message: &[u8]) -> Result<()> {
        self.1.push(message.to_vec());
        Ok(())
    }
}

/// The reason of the end after these chunks.
fn reason(receiver: FrameReceiver, chunks: &[&[u8]]) -> Option<Failure> {
    let connection = StringTransport::new().joined(Plain(receiver, Vec::new()));
    chunks.iter().for_each(|chunk| connection.deliver(chunk));
    connection.lost()
}

/// The length and the number of received bytes of a bad cut.
fn bad_cut(reason: Option<Failure>) -> Option<(usize, usize)> {
    reason?.check::<BadCut>().map(|cut| (cut.length, cut.received))
}

/// A message of the limit is received, and a longer one is not, in each cut.
#[test]
fn a_message_has_a_limit() {
    for cut in 1..9 {
        for (text, is_good) in [(&b"1234567."[..], true), (b"12345678.", false), (b"12345678", false)] {
            let result = reason(stop_frames().max_length(8), &text.chunks(cut).collect::<Vec<_>>());
            let too_long = result.as_ref().map(|reason| reason.check::<FrameTooLong>().is_some());
            assert_eq!(too_long, (!is_good).then_some(true), "{} cut every {cut}", text.escape_ascii());
        }
    }
    assert!(reason(stop_frames().max_length(0), &[b"."]).is_some());
}

/// A limit that is lowered in the middle of a message holds at once.
#[test]
fn a_limit_that_is_lowered() {
    let connection = StringTransport::new().joined(Plain(stop_frames(), Vec::new()));
    connection.deliver(b"1234567");
    connection.with(|plain, _| plain.0.set_max_length(4)).unwrap();
    connection.deliver(b"8");
    let reason = connection.lost().expect("it is too long");
    assert_eq!(reason.check::<FrameTooLong>().map(|error| error.limit), Some(4));
}

/// A cut at no place, or beyond the bytes, is an error of the program, and not an endless loop.
#[test]
fn impossible_cuts() {
    for length in [0, 5, usize::MAX] {
        let result = reason(FrameReceiver::new(move |_| Ok(Cut::Message(length))), &[b"four"]);
        assert_eq!(bad_cut(result), Some((length, 4)));
    }
    // A function that finds an end in bytes in which it has found none before.
    let mut calls = 0;
    let fickle = FrameReceiver::new(move |_| {
        calls += 1;
        Ok((calls > 1).then_some(2))
    });
    assert_eq!(bad_cut(reason(fickle, &[b"four", b"more"])), Some((2, 4)));
}

/// A function that needs more bytes than the limit has refused the message. One that asks for what
/// is there already is asked again.
#[test]
fn needs() {
    let greedy = FrameReceiver::new(|_| Ok(Cut::Needs(usize::MAX)));
    assert!(reason(greedy, &[b"x"]).expect("it ends").check::<FrameTooLong>().is_some());
    let connection = StringTransport::new().joined(Plain(
        FrameReceiver::new(|data| Ok(if data.len() < 4 { Cut::Needs(1) } else { Cut::Message(4) })),
        Vec::new(),
    ));
    connection.deliver(b"a");
    connection.deliver(b"bcdefgh");
    assert_eq!(connection.with(|plain, _| plain.1.clone()).unwrap(), [b"abcd", b"efgh"]);
}

/// The error of the function is the reason of the end, and is reported once.
#[test]
fn the_error_of_the_function() {
    assert_eq!(reason(stop_frames(), &[b"one.two!"]).expect("it ends").to_string(), "not so loud");
    let expected = [message(""), Event::Unframed("not so loud".to_owned())];
    assert_eq!(events(Recorder::new(stop_frames()).lenient(), &[b"one.", b"two!three.", b"four.!"]), expected);
    // A function that panics ends the connection as well.
    let panicking = FrameReceiver::new(|_| -> Result<Cut> { panic!("as ordered") });
    assert!(reason(panicking, &[b"x"]).expect("it ends").to_string().contains("as ordered"));
}
