//! The fuzz targets, run on random inputs: on any bytes, and on bytes that mean something to them.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::targets::TARGETS;

/// Parts of inputs that mean something to one of the targets.
const PARTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"raw\r\n",
    b"dot\r\n",
    b"0:,",
    b"1:a,",
    b"5:pause,",
    b"\0\0\0\x05pause",
    b"\x05pause",
    b"....bye.",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 ::1 ::ffff:1.2.3.4 1 65535\r\n",
    b"PROXY UNKNOWN",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
    b"\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02\x04\0\x01x",
    b"\x20\0\0\0",
    b"tcp:80",
    b"tcp6:port=80:interface=\\:\\:",
    b"tcp:[::1%eth0]:80",
    b":",
    b"=",
    b"\\",
    b"\xff",
];

fn input() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => prop::sample::select(PARTS).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    (any::<[u8; 2]>(), prop::collection::vec(part, 0..12))
        .prop_map(|(options, parts)| [&options[..], &parts.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Every target copes with inputs of parts.
    #[test]
    fn inputs_of_parts(input in input(), behind in prop::collection::vec(any::<u8>(), 0..40)) {
        for (_, target) in TARGETS {
            target(&input);
            target(&[&input[2..], &behind[..]].concat());
        }
    }

    /// Every target copes with any bytes.
    #[test]
    fn any_bytes(input in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, target) in TARGETS {
            target(&input);
        }
    }
}

/// Each function is a target of `fuzz/`, and each of its targets is run here. The package that is
/// published has no `fuzz/`.
#[test]
fn every_target_is_fuzzed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let files: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
