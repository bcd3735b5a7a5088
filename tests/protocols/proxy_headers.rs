//! PROXY headers (A7, F62): good and bad ones, in each cut, at each limit.

use std::net::SocketAddr;

use proptest::prelude::*;
use ropewalk::Address;
use ropewalk::address::UnixAddress;
use ropewalk::haproxy::{ProxyHeader, ProxyHeaderError, ProxyHeaderReader, ProxyVersion};

use super::common::allocator;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

type Read = Result<(usize, Option<ProxyHeader>), ProxyHeaderError>;

fn inet(text: &str) -> Address {
    text.parse::<SocketAddr>().unwrap().into()
}

fn proxied(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::proxied(inet(source), inet(destination))
}

/// A header of version 2 with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// Reads chunks. Returns the number of bytes taken in all, and the header.
fn read(chunks: &[&[u8]]) -> Read {
    let (mut reader, mut taken) = (ProxyHeaderReader::new(), 0);
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

/// Reads the input at once, in two pieces at each place, and byte by byte. The result is the same.
#[track_caller]
fn read_in_each_cut(input: &[u8]) -> Read {
    let whole = read(&[input]);
    for place in 0..input.len().min(400) {
        let (one, two) = input.split_at(place);
        assert_eq!(read(&[one, two]), whole, "cut after {place} bytes");
    }
    assert_eq!(read(&input.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    whole
}

/// Good headers are read with the bytes behind them left alone, wherever they are cut.
#[test]
fn good_headers_in_each_cut() {
    let v4 = proxied("192.0.2.1:49152", "192.0.2.2:80");
    let v6 = proxied("[2001:db8::1]:1", "[2001:db8::2]:65535");
    let unix = |name: &str| Address::from(UnixAddress::path(name).unwrap());
    let named = ProxyHeader::proxied(unix("/run/client"), UnixAddress::abstract_name("server").unwrap().into());
    let unnamed = ProxyHeader::proxied(UnixAddress::unnamed().into(), unix(&"x".repeat(100)));
    let valued = v4.clone().with_value(2, b"example.org").unwrap().with_value(4, b"").unwrap();
    let v1 = |header: &ProxyHeader| header.clone().version(ProxyVersion::V1);
    let unknown = v1(&ProxyHeader::unknown());
    let longest: &[u8] =
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 and whatever else the sender has to say of ..\r\n";
    assert_eq!(longest.len(), 105);
    let cases = [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 49152 80\r\n".to_vec(), v1(&v4)),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), v1(&v6)),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 0\r\n".to_vec(), v1(&proxied("0.0.0.0:0", "255.255.255.255:0"))),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), v1(&proxied("192.0.2.1:1", "[::1]:2"))),
        (b"PROXY UNKNOWN\r\n".to_vec(), unknown.clone()),
        (longest.to_vec(), unknown),
        (binary(0x21, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0xc0, 0, 0, 80]), v4.clone()),
        // Datagrams have the same addresses.
        (binary(0x21, 0x12, &[192, 0, 2, 1, 192, 0, 2, 2, 0xc0, 0, 0, 80]), v4),
        (binary(0x20, 0x00, b""), ProxyHeader::local()),
        // The family and the body of a local connection mean nothing.
        (binary(0x20, 0xff, b"anything"), ProxyHeader::local()),
        (binary(0x21, 0x00, b"anything"), ProxyHeader::unknown()),
        (v6.encode(), v6),
        (named.encode(), named),
        (unnamed.encode(), unnamed),
        (valued.encode(), valued),
    ];
    for (bytes, header) in cases {
        let expected = Ok((bytes.len(), Some(header)));
        assert_eq!(read_in_each_cut(&bytes), expected, "{}", bytes.escape_ascii());
        // Bytes that look like another header are the protocol's, too.
        assert_eq!(read_in_each_cut(&[&bytes[..], b"\r\nPROXY \r\n"].concat()), expected, "{}", bytes.escape_ascii());
        for cut in 1..bytes.len() {
            let mut reader = ProxyHeaderReader::new();
            assert_eq!((reader.read(&bytes[..cut]), reader.cut()), (Ok((cut, None)), Some(ProxyHeaderError::Cut)));
        }
    }
    assert_eq!(ProxyHeaderReader::new().cut(), None);
}

/// Lines that are refused, each with its reason.
#[test]
fn bad_lines() {
    use ProxyHeaderError::*;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(long.len(), 108);
    let cases: &[(&[u8], ProxyHeaderError)] = &[
        (b"GET / HTTP/1.1\r\n", Missing),
        (b"proxy TCP4", Missing),
        (b"PROXY\tTCP4", Missing),
        (b" PROXY", Missing),
        (b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", LineFamily),
        (b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", LineFamily),
        (b"PROXY UNKNOWNS\r\n", LineFamily),
        (b"PROXY \r\n", LineFamily),
        (b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", LineFamily),
        (b"PROXY TCP4\r\n", Fields),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Fields),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Fields),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Fields),
        (b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", Fields),
        (b"PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n", Fields),
        (b"PROXY TCP4 banana 192.0.2.2 1 2\r\n", InvalidAddress),
        (b"PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n", InvalidAddress),
        (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", InvalidAddress),
        (b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n", InvalidAddress),
        (b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", InvalidAddress),
        (b"PROXY TCP6 [::1] ::1 1 2\r\n", InvalidAddress),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", InvalidAddress),
        (b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n", InvalidAddress),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1_0 2\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 99999999999999999999 2\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 01\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \xef\xbc\x95\r\n", InvalidPort),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nPROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Fields),
        (long.as_bytes(), TooLong { limit: 107 }),
        (&[b'P'; 200], Missing),
    ];
    for (line, error) in cases {
        assert_eq!(read_in_each_cut(line), Err(*error), "{}", line.escape_ascii());
    }
}

/// A line may have 107 bytes with its CR LF, and is refused at the next one, in one chunk too.
#[test]
fn a_line_has_a_limit() {
    let line = |bytes: usize| [&b"PROXY UNKNOWN "[..], &vec![b'x'; bytes - 16], b"\r\n"].concat();
    let good = Ok((107, Some(ProxyHeader::unknown().version(ProxyVersion::V1))));
    assert_eq!(read_in_each_cut(&[&line(107)[..], b"more"].concat()), good);
    for endless in [line(108), line(60_000), line(60_000)[..59_000].to_vec()] {
        assert_eq!(read(&[&endless]), Err(ProxyHeaderError::TooLong { limit: 107 }));
        assert_eq!(read(&endless.chunks(1).collect::<Vec<_>>()), Err(ProxyHeaderError::TooLong { limit: 107 }));
        assert_eq!(read(&[&endless[..106]]).map(|(taken, header)| (taken, header.is_some())), Ok((106, false)));
    }
}

/// Binary headers that are refused, each with its reason.
#[test]
fn bad_binary_headers() {
    use ProxyHeaderError::*;
    let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xc0, 0, 0, 80];
    let with = |values: &[u8]| binary(0x21, 0x11, &[&v4[..], values].concat());
    let unix = |name: &[u8]| {
        let mut body = [0; 216];
        body[..name.len()].copy_from_slice(name);
        binary(0x21, 0x31, &body)
    };
    let cases = [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Missing),
        (binary(0x11, 0x11, &v4), Version { byte: 0x11 }),
        (binary(0x22, 0x11, &v4), Version { byte: 0x22 }),
        (binary(0x2f, 0x11, &v4), Version { byte: 0x2f }),
        (binary(0x21, 0x41, &v4), Family { byte: 0x41 }),
        (binary(0x21, 0x13, &v4), Family { byte: 0x13 }),
        (binary(0x21, 0x10, &v4), Family { byte: 0x10 }),
        (binary(0x21, 0x01, &v4), Family { byte: 0x01 }),
        (binary(0x21, 0x11, &v4[..11]), Short { length: 11, needed: 12 }),
        (binary(0x21, 0x21, &v4), Short { length: 12, needed: 36 }),
        (binary(0x21, 0x31, &[0; 215]), Short { length: 215, needed: 216 }),
        (with(&[2]), Value),
        (with(&[2, 0]), Value),
        (with(&[2, 0, 1]), Value),
        (with(&[2, 0xff, 0xff, 0]), Value),
        (with(&[2, 0, 0, 9]), Value),
        (with(&[3, 0, 4, 1, 2, 3, 4]), Checksum),
        (with(&[3, 0, 3, 1, 2, 3]), Checksum),
        (unix(b"/a\0b"), InvalidAddress),
        (unix(&[b'x'; 108]), InvalidAddress),
    ];
    for (header, error) in cases {
        assert_eq!(read_in_each_cut(&header), Err(error), "{}", header.escape_ascii());
    }
}

/// The checksum is Castagnoli's CRC of the whole header, in which it counts as zero.
#[test]
fn a_good_checksum() {
    fn crc32c(data: &[u8]) -> u32 {
        let table: Vec<u32> = (0..256_u32)
            .map(|byte| (0..8).fold(byte, |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 }))
            .collect();
        !data.iter().fold(!0, |sum: u32, byte| sum >> 8 ^ table[(sum as u8 ^ byte) as usize])
    }
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let header = proxied("192.0.2.1:1", "192.0.2.2:2").with_value(1, b"h2").unwrap();
    let header = header.with_value(3, &[0; 4]).unwrap().with_value(4, b"padding").unwrap();
    let bytes = header.encode();
    let place = bytes.len() - 10 - 4;
    let mut blank = bytes.clone();
    blank[place..place + 4].fill(0);
    assert_eq!(bytes[place..place + 4], crc32c(&blank).to_be_bytes());
    let (_, read) = read_in_each_cut(&bytes).expect("it is right");
    assert_eq!(read.expect("it is complete").values().count(), 3);
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let result = self::read(&[&wrong]);
        let same =
            result.as_ref().is_ok_and(|(_, header)| header.as_ref().is_some_and(|header| header.source().is_some()));
        // A flipped bit of the checksum's own type makes it a value of another type.
        assert!(!same || bit / 8 == place - 3, "bit {bit} is flipped: {result:?}");
    }
}

/// A header of version 2 has a limit of its own. A length beyond it is refused with the byte that
/// completes it, and a length within it reserves nothing (A2).
#[test]
fn a_binary_header_has_a_limit() {
    let longest = binary(0x20, 0, &vec![0; 65_535]);
    assert_eq!(longest.len(), 65_551);
    let refused = Err(ProxyHeaderError::TooLong { limit: 16_384 });
    assert_eq!(read(&[&longest]), refused);
    assert_eq!(read(&[&longest[..16]]), refused);
    assert_eq!(read(&[&longest[..15], &longest[15..]]), refused);
    let mut reader = ProxyHeaderReader::new().max_length(65_551);
    assert_eq!(reader.read(&longest[..60_000]), Ok((60_000, None)));
    assert_eq!(reader.read(&longest[60_000..]), Ok((5_551, Some(ProxyHeader::local()))));
    let mut reader = ProxyHeaderReader::new().max_length(0);
    assert_eq!(reader.read(&longest), Err(ProxyHeaderError::TooLong { limit: 0 }));

    let mut reader = ProxyHeaderReader::new().max_length(65_551);
    allocator::begin_peak();
    let before = allocator::live();
    assert_eq!(reader.read(&longest[..16]), Ok((16, None)));
    assert!(allocator::peak() - before < 1024, "{} bytes for a prefix", allocator::peak() - before);
}

/// Values are bounded by the length of a header.
#[test]
fn values_have_a_limit() {
    let header = proxied("192.0.2.1:1", "192.0.2.2:2");
    let most = 65_535 - 216 - 3;
    let full = header.clone().with_value(5, &vec![7; most]).expect("it fits");
    let (_, read) = ProxyHeaderReader::new().max_length(usize::MAX).read(&full.encode()).unwrap();
    assert_eq!(read, Some(full.clone()));
    let too_long = Err(ProxyHeaderError::TooLong { limit: 65_551 });
    assert_eq!(header.with_value(5, &vec![7; most + 1]), too_long);
    assert_eq!(full.with_value(5, b""), too_long);
}

/// Addresses without a form in the header are sent as unknown, and those of two families in IPv6.
#[test]
fn addresses_without_a_form() {
    let unix = Address::from(UnixAddress::path("/run/socket").unwrap());
    let half = ProxyHeader::proxied(unix.clone(), inet("192.0.2.1:1"));
    let unknown = |version| Ok((None, version));
    let ends = |header: &ProxyHeader| {
        let (_, read) = ProxyHeaderReader::new().read(&header.encode())?;
        let read = read.expect("it is complete");
        Ok::<_, ProxyHeaderError>((read.source().cloned().zip(read.destination().cloned()), read.protocol_version()))
    };
    assert_eq!(ends(&half), unknown(ProxyVersion::V2));
    assert_eq!(ends(&half.version(ProxyVersion::V1)), unknown(ProxyVersion::V1));
    assert_eq!(ends(&ProxyHeader::proxied(unix.clone(), unix).version(ProxyVersion::V1)), unknown(ProxyVersion::V1));
    assert_eq!(ends(&ProxyHeader::local().version(ProxyVersion::V1)), unknown(ProxyVersion::V1));
    let mixed = proxied("192.0.2.1:1", "[2001:db8::1]:2");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let both = Some((inet("192.0.2.1:1"), inet("[2001:db8::1]:2")));
        assert_eq!(ends(&mixed.clone().version(version)), Ok((both, version)));
    }
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u8; 16], u16)>().prop_map(SocketAddr::from)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A header that is sent is the header that is read.
    #[test]
    fn sent_headers_are_read(
        source in socket_addr(),
        destination in socket_addr(),
        values in prop::collection::vec((4_u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
        cut in 0_usize..300,
    ) {
        let header = ProxyHeader::proxied(source.into(), destination.into());
        let line = header.clone().version(ProxyVersion::V1);
        let header = values.iter().try_fold(header, |header, (kind, value)| header.with_value(*kind, value)).unwrap();
        for header in [header, line] {
            let bytes = header.encode();
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read(&[one, two]), Ok((bytes.len(), Some(header))));
        }
    }
}
