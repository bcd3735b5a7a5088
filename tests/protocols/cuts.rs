//! F61: for any cut of its input a receiver makes the same callbacks.

use proptest::prelude::*;

use super::*;

fn same<R: 'static>(input: &[u8], cuts: &[usize], make: impl Fn() -> Recorder<R>)
where
    Recorder<R>: Protocol,
{
    let (mut rest, mut chunks) = (input, Vec::new());
    for cut in cuts {
        let (chunk, behind) = rest.split_at(rest.len().min(*cut));
        chunks.push(chunk);
        rest = behind;
    }
    chunks.push(rest);
    let all = |chunks: &[&[u8]]| {
        let (observed, record) = Observed::new(make());
        let connection = ropewalk::testing::StringTransport::new().joined(observed);
        for chunk in chunks {
            connection.deliver(chunk);
            // A pause lasts until the chunk is delivered, and each of its bytes may bring one.
            for _ in 0..chunk.len() {
                connection.transport().resume_producing();
                connection.turn();
            }
        }
        (record.take(), connection.lost().map(|reason| reason.to_string()))
    };
    let whole = all(&[input]);
    assert_eq!(all(&chunks), whole);
    assert_eq!(all(&input.chunks(1).collect::<Vec<_>>()), whole);
}

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
}
