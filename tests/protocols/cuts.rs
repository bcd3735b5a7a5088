//! F61: for any cut of its input a receiver makes the same callbacks.

use proptest::prelude::*;

use super::recorder::{length_frames, stop_frames};
use super::targets::assert_same as same;
use super::*;

/// Text made of the parts that mean something to the receivers, and of noise.
fn text(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => prop::sample::select(parts).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..12, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines: with a limit of eight bytes, raw mode, changes of delimiter and limit, pauses.
    #[test]
    fn of_lines(
        input in text(&["a", "\r\n", "\r", "\n", "raw\r\n", "dot\r\n", "short\r\n", "pause\r\n", "blink\r\n",
                        "bye\r\n", "fail\r\n", ".", "a long line"]),
        cuts in cuts(),
        is_lenient: bool,
        is_pausing: bool,
    ) {
        same(&input, &cuts, || Recorder {
            is_lenient, is_pausing, ..Recorder::new(LineReceiver::new().max_length(8))
        });
    }

    /// Netstrings, right and wrong ones.
    #[test]
    fn of_netstrings(
        input in text(&["0:,", "1:a,", "5:pause,", "5:blink,", "3:bye,", "4:gone,", "8:01234567,", "9:", "0", "1"]),
        cuts in cuts(),
        is_lenient: bool,
        is_pausing: bool,
    ) {
        same(&input, &cuts, || Recorder {
            is_lenient, is_pausing, ..Recorder::new(NetstringReceiver::new().max_length(8))
        });
    }

    /// Strings with their length in front, of each width.
    #[test]
    fn of_prefixed_strings(
        input in text(&["\0", "\0\0", "\0\0\0", "\x01a", "\x05pause", "\x05blink", "\x03bye", "\x0a0123456789"]),
        cuts in cuts(),
        width in 0_usize..3,
        is_lenient: bool,
        is_pausing: bool,
    ) {
        let make = [IntNStringReceiver::int8, IntNStringReceiver::int16, IntNStringReceiver::int32][width];
        same(&input, &cuts, || Recorder { is_lenient, is_pausing, ..Recorder::new(make().max_length(8)) });
    }

    /// Messages that a function cuts, by their length.
    #[test]
    fn of_frames_with_a_length(
        input in text(&["\0\0\0", "\0\0\0\0", "\0\0\0\x01a", "\0\0\0\x05pause", "\0\0\0\x05blink",
                        "\0\0\0\x03bye", "\0\0\0\x0a0123456789", "\x01\0\0\0"]),
        cuts in cuts(),
        is_lenient: bool,
        is_pausing: bool,
    ) {
        same(&input, &cuts, || Recorder {
            is_lenient, is_pausing, ..Recorder::new(length_frames().max_length(12))
        });
    }

    /// Messages that a function cuts behind a full stop, or refuses.
    #[test]
    fn of_frames_with_a_stop(
        input in text(&["a", ".", "....pause.", "1234blink.", "....bye.", "!", "a long message."]),
        cuts in cuts(),
        is_lenient: bool,
        is_pausing: bool,
    ) {
        same(&input, &cuts, || Recorder { is_lenient, is_pausing, ..Recorder::new(stop_frames().max_length(12)) });
    }
}
