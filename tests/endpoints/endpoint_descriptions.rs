//! Endpoint strings are read as Twisted reads them, differ only where we say so, and are refused
//! with a message that names the place; no string at all makes the parser panic.

use std::net::{IpAddr, SocketAddrV6};
use std::time::Duration;

use proptest::prelude::*;
use ropewalk::endpoints::{
    Description, DescriptionError, DescriptionErrorKind, TcpClientSpec, TcpServerSpec, quote_string_argument,
};
use ropewalk::transport::QueueLimit;
use ropewalk::{ConnectOptions, ListenOptions};

pub(super) fn parse(text: &str) -> Description {
    Description::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn server(text: &str) -> Result<TcpServerSpec, DescriptionError> {
    TcpServerSpec::from_description(&Description::parse(text)?)
}

pub(super) fn client(text: &str) -> Result<TcpClientSpec, DescriptionError> {
    TcpClientSpec::from_description(&Description::parse(text)?)
}

/// The name, if there is one, and the value of a field.
type Fields<'a> = &'a [(Option<&'a str>, &'a str)];

fn fields(description: &Description) -> Vec<(Option<&str>, &str)> {
    description.fields().iter().map(|field| (field.name(), field.value())).collect()
}

// The grammar.

#[test]
fn fields_are_split_as_twisted_splits_them() {
    let table: &[(&str, &str, Fields)] = &[
        ("tcp", "tcp", &[]),
        ("tcp:", "tcp", &[(None, "")]),
        ("tcp::", "tcp", &[(None, ""), (None, "")]),
        ("tcp:80:127.0.0.1", "tcp", &[(None, "80"), (None, "127.0.0.1")]),
        // The first bare "=" splits, further ones are literal.
        ("tcp:port=80", "tcp", &[(Some("port"), "80")]),
        ("tcp:port=8=0=", "tcp", &[(Some("port"), "8=0=")]),
        ("tcp:=80", "tcp", &[(Some(""), "80")]),
        ("tcp:port=", "tcp", &[(Some("port"), "")]),
        ("tcp:=", "tcp", &[(Some(""), "")]),
        // A backslash takes any character literally.
        (r"unix:/a\:b", "unix", &[(None, "/a:b")]),
        (r"unix:/a\=b", "unix", &[(None, "/a=b")]),
        (r"unix:/a\\b", "unix", &[(None, r"/a\b")]),
        (r"unix:/a\b\é\n", "unix", &[(None, "/abén")]),
        (r"unix:a\=b=c\:d\=e", "unix", &[(Some("a=b"), "c:d=e")]),
        (r"t\:c\=p:80", "t:c=p", &[(None, "80")]),
        // Positionals may follow keywords, and the first positional is the type wherever it stands.
        ("tcp:backlog=5:80", "tcp", &[(Some("backlog"), "5"), (None, "80")]),
        ("port=80:tcp:backlog=5", "tcp", &[(Some("port"), "80"), (Some("backlog"), "5")]),
        // Nothing is trimmed.
        (" tcp : 80 ", " tcp ", &[(None, " 80 ")]),
    ];
    for (text, kind, expected) in table {
        let description = parse(text);
        assert_eq!(description.kind(), *kind, "{text}");
        assert_eq!(fields(&description), *expected, "{text}");
    }
}

#[test]
fn the_last_of_equal_keywords_wins() {
    assert_eq!(parse("tcp:port=1:port=2:port=3").keyword("port").map(|field| field.value()), Some("3"));
    assert_eq!(parse("tcp:port=1").keyword("Port"), None);
    assert_eq!(server("tcp:port=x:port=80").unwrap().port, 80);
    assert_eq!(client("tcp:host=a b:host=h:port=1:port=2").unwrap().host, "h");
}

#[test]
fn the_type_is_case_insensitive_and_remembered_as_written() {
    for text in ["tcp:80", "TCP:80", "tCp:80", r"t\cp:80"] {
        assert_eq!(parse(text).kind(), "tcp");
        assert_eq!(server(text).unwrap().port, 80);
    }
    assert_eq!("TCP:80".parse(), Ok(parse("TCP:80")));
    assert_eq!(parse("TCP:80").to_string(), "TCP:80");
    // Only ASCII letters have a case here: the Kelvin sign is no k.
    assert_eq!(parse("\u{212a}:80").kind(), "\u{212a}");
}

#[test]
fn fields_know_where_they_stand() {
    let description = parse(r"é:\::ü=a:=:x");
    let positions = description.fields().iter().map(|field| (field.position(), field.value_position()));
    assert_eq!(positions.collect::<Vec<_>>(), [(3, 3), (6, 9), (11, 12), (13, 13)]);
}

#[test]
fn an_ipv6_address_in_brackets_is_one_value() {
    let table: &[(&str, Fields)] = &[
        ("t:[::1]", &[(None, "[::1]")]),
        ("t:[::1]:80", &[(None, "[::1]"), (None, "80")]),
        ("t:a=[::1]:80", &[(Some("a"), "[::1]"), (None, "80")]),
        ("t:[1:2:3:4:5:6:7:8]", &[(None, "[1:2:3:4:5:6:7:8]")]),
        ("t:[::ffff:192.0.2.1]", &[(None, "[::ffff:192.0.2.1]")]),
        ("t:[fe80::1%eth0.1]:x", &[(None, "[fe80::1%eth0.1]"), (None, "x")]),
        // With escapes it is the same.
        (r"t:[\:\:1]:80", &[(None, "[::1]"), (None, "80")]),
    ];
    for (text, expected) in table {
        assert_eq!(fields(&parse(text)), *expected, "{text}");
    }
    assert_eq!(parse("[::1]:80").kind(), "[::1]");
}

#[test]
fn other_brackets_are_characters_like_any_other() {
    for (text, count) in [
        ("t:[a:b]", 2),
        ("t:[::1", 3),
        ("t:[::1]x", 3),
        ("t:x[::1]", 3),
        ("t:[::1]]", 3),
        ("t:[[::1]]", 3),
        ("t:[::g]", 3),
        ("t:[]", 1),
        ("t:[1.2.3.4]", 1),
        ("t:[::1%]", 3),
        ("t:[::1%a b]", 3),
        (r"t:[:\:1]", 2),
        (r"t:\[::1]", 3),
    ] {
        assert_eq!(parse(text).fields().len(), count, "{text}");
    }
    // A name in brackets is a name: Twisted's reading.
    assert_eq!(fields(&parse("t:[::1]=x")), [(None, "["), (None, ""), (Some("1]"), "x")]);
}

#[test]
fn many_brackets_take_no_longer_than_many_other_characters() {
    let text = format!("t{}", ":[".repeat(500_000));
    assert_eq!(parse(&text).fields().len(), 500_000);
}

#[test]
fn quoting_escapes_what_has_a_meaning() {
    for (argument, quoted) in [
        ("", ""),
        ("/run/socket", "/run/socket"),
        ("::1", r"\:\:1"),
        ("a=b", r"a\=b"),
        (r"C:\x", r"C\:\\x"),
        ("[::1]", r"\[\:\:1]"),
        ("é", "é"),
    ] {
        assert_eq!(quote_string_argument(argument), quoted);
    }
    assert!(matches!(quote_string_argument("plain"), std::borrow::Cow::Borrowed(_)));
}

/// Three quoted values in a row, which together look like an address in brackets.
#[test]
fn quoted_values_do_not_become_an_address_together() {
    let values = ["[", "", "1]"];
    let text = format!("t:{}", values.map(|value| quote_string_argument(value).into_owned()).join(":"));
    assert_eq!(fields(&parse(&text)), values.map(|value| (None, value)));
}

// Servers.

/// The largest backlog. The system cuts it down to its own limit.
const ALL: u32 = i32::MAX as u32;

#[test]
fn tcp_servers() {
    for (text, address, backlog) in [
        ("tcp:80", "0.0.0.0:80", ALL),
        ("tcp:0", "0.0.0.0:0", ALL),
        ("tcp:65535", "0.0.0.0:65535", ALL),
        ("tcp:0080", "0.0.0.0:80", ALL),
        ("tcp:port=80", "0.0.0.0:80", ALL),
        ("tcp:80:127.0.0.1", "127.0.0.1:80", ALL),
        ("tcp:80:127.0.0.1:5", "127.0.0.1:80", 5),
        ("tcp:80:interface=127.0.0.1", "127.0.0.1:80", ALL),
        ("tcp:80:backlog=128", "0.0.0.0:80", 128),
        ("tcp:backlog=0:interface=127.0.0.1:port=80", "127.0.0.1:80", 0),
        ("tcp:interface=127.0.0.1:80:backlog=5", "127.0.0.1:80", 5),
        ("tcp:80::5", "0.0.0.0:80", 5),
        ("tcp:80:interface=", "0.0.0.0:80", ALL),
        ("tcp:80:backlog=2147483647", "0.0.0.0:80", 2_147_483_647),
        (r"tcp:80:\:\:", "[::]:80", ALL),
        (r"tcp:80:interface=\:\:1", "[::1]:80", ALL),
        ("tcp:80:[::1]", "[::1]:80", ALL),
        ("tcp:80:[::1]:5", "[::1]:80", 5),
        ("tcp:80:interface=[2001:db8::1]:backlog=5", "[2001:db8::1]:80", 5),
        (r"tcp:80:[\:\:1]", "[::1]:80", ALL),
        (r"tcp:80:fe80\:\:1%2", "[fe80::1%2]:80", ALL),
        ("tcp:80:[fe80::1%2]", "[fe80::1%2]:80", ALL),
        ("tcp:80:[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]:80", ALL),
        ("port=80:tcp", "0.0.0.0:80", ALL),
    ] {
        let spec = server(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.address().to_string(), address, "{text}");
        assert_eq!(spec.options, ListenOptions::new().backlog(backlog), "{text}");
    }
}

/// The order of `tcp6` is another one, as it is in Twisted, and it listens on all of IPv6 if it is
/// not told where.
#[test]
fn tcp6_servers() {
    for (text, address, backlog) in [
        ("tcp6:80", "[::]:80", ALL),
        ("TCP6:port=80", "[::]:80", ALL),
        ("tcp6:80:5", "[::]:80", 5),
        ("tcp6:80:5:", "[::]:80", 5),
        ("tcp6:80:interface=", "[::]:80", ALL),
        ("tcp6:80:5:[::1]", "[::1]:80", 5),
        (r"tcp6:80:interface=\:\:1", "[::1]:80", ALL),
        ("tcp6:interface=[fe80::1%2]:80:5", "[fe80::1%2]:80", 5),
        ("tcp6:backlog=0:0:interface=[2001:db8::1]", "[2001:db8::1]:0", 0),
    ] {
        let spec = server(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.address().to_string(), address, "{text}");
        assert_eq!(spec.options, ListenOptions::new().backlog(backlog), "{text}");
    }
}

#[test]
fn an_interface_left_out_and_an_empty_one_are_the_same() {
    for text in ["tcp:80", "tcp:80:", "tcp:80:interface="] {
        let spec = server(text).unwrap();
        assert_eq!((spec.port, spec.interface, spec.scope_id), (80, None, 0), "{text}");
    }
    let spec = server("tcp:80:[fe80::1%7]").unwrap();
    assert_eq!((spec.interface, spec.scope_id), (Some("fe80::1".parse().unwrap()), 7));
}

/// Each option of a port, by the name of Twisted's or ours.
#[test]
fn options_of_ports() {
    let new = ListenOptions::new;
    for (text, options) in [
        ("tcp:80:noDelay=0", new().tcp_no_delay(false)),
        ("tcp:80:[::]:ipv6Only=1", new().ipv6_only(true)),
        ("tcp6:80:ipv6Only=0", new().ipv6_only(false)),
        ("tcp:80:reuseAddress=0", new().reuse_address(false)),
        ("tcp:80:reusePort=1", new().reuse_port(true)),
        (
            "tcp:80:receiveBuffer=65536:sendBuffer=2147483647",
            new().receive_buffer_bytes(65_536).send_buffer_bytes(i32::MAX as u32),
        ),
        ("tcp:80:queueLimit=8388608", new().queue_limit(QueueLimit::abort(8_388_608))),
        ("tcp:80:queueLimit=1:atQueueLimit=abort", new().queue_limit(QueueLimit::abort(1))),
        ("tcp:80:atQueueLimit=pause:queueLimit=7", new().queue_limit(QueueLimit::pause(7))),
        ("tcp:80:queueLimit=4294967295:atQueueLimit=tell", new().queue_limit(QueueLimit::tell(u32::MAX))),
        ("tcp:80:[fe80::1%eth0]", new().scope("eth0")),
        ("tcp6:80:interface=[fe80::1%eth0.1]:reusePort=0", new().scope("eth0.1")),
    ] {
        let spec = server(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.options, options, "{text}");
        assert_eq!((spec.port, spec.scope_id), (80, 0), "{text}");
    }
}

/// Each option of a client.
#[test]
fn options_of_clients() {
    let new = ConnectOptions::new;
    for (text, options) in [
        ("noDelay=0", new().tcp_no_delay(false)),
        ("reuseAddress=0", new().reuse_address(false)),
        ("reusePort=1", new().reuse_port(true)),
        ("receiveBuffer=1:sendBuffer=4096", new().receive_buffer_bytes(1).send_buffer_bytes(4_096)),
        ("queueLimit=8388608", new().queue_limit(QueueLimit::abort(8_388_608))),
        ("queueLimit=100:atQueueLimit=pause", new().queue_limit(QueueLimit::pause(100))),
        ("queueLimit=100:atQueueLimit=tell", new().queue_limit(QueueLimit::tell(100))),
    ] {
        assert_eq!(client(&format!("tcp:h:80:{text}")).unwrap().options, options, "{text}");
    }
}

/// Options that are out of range, of another family, or nothing by themselves.
#[test]
fn options_that_are_refused() {
    let buffer = "a whole number from 1 to 2147483647";
    for (option, expected) in [
        ("noDelay=yes", "a whole number from 0 to 1"),
        ("reuseAddress=2", "a whole number from 0 to 1"),
        ("reusePort=", "a whole number from 0 to 1"),
        ("receiveBuffer=0", buffer),
        ("sendBuffer=2147483648", buffer),
        ("sendBuffer=64k", buffer),
        ("queueLimit=0", "a whole number from 1 to 4294967295"),
        ("queueLimit=4294967296", "a whole number from 1 to 4294967295"),
        ("atQueueLimit=pause", "nothing without queueLimit, the number of bytes"),
        ("queueLimit=1:atQueueLimit=drop", "abort, pause or tell"),
    ] {
        for (text, error) in [
            (format!("tcp:80:{option}"), server(&format!("tcp:80:{option}")).unwrap_err()),
            (format!("tcp:h:80:{option}"), client(&format!("tcp:h:80:{option}")).unwrap_err()),
        ] {
            assert_eq!(error.position(), text.rfind('=').unwrap() + 1, "{error}");
            assert!(error.to_string().ends_with(&format!(": expected {expected}")), "{error}");
        }
    }
    for text in ["tcp:80:ipv6Only=1", "tcp:80:127.0.0.1:ipv6Only=0", "tcp:80:[::ffff:127.0.0.1]:ipv6Only=0"] {
        let error = server(text).unwrap_err().to_string();
        assert!(error.ends_with("is not an ipv6Only: expected nothing here: the interface is one of IPv4"), "{error}");
    }
    let error = server("tcp6:80:ipv6Only=no").unwrap_err().to_string();
    assert!(error.ends_with("expected a whole number from 0 to 1"), "{error}");
}

// Clients.

#[test]
fn tcp_clients() {
    for (text, host, port) in [
        ("tcp:h:80", "h", 80),
        ("TCP:h:80", "h", 80),
        ("tcp:host=h:80", "h", 80),
        ("tcp:h:port=80", "h", 80),
        ("tcp:80:host=h", "h", 80),
        ("tcp:host=h:port=80", "h", 80),
        ("tcp:port=80:host=h", "h", 80),
        ("tcp:port=80:h", "h", 80),
        ("tcp:timeout=1:h:bindAddress=:80", "h", 80),
        ("tcp:80:80", "80", 80),
        ("tcp:80:port=1", "80", 1),
        ("tcp:127.0.0.1:1", "127.0.0.1", 1),
        (r"tcp:\:\:1:80", "::1", 80),
        (r"tcp:[\:\:1]:80", "::1", 80),
        ("tcp:[::1]:80", "::1", 80),
        ("tcp:host=[::1]:port=80", "::1", 80),
        ("tcp:80:host=[::1]", "::1", 80),
        ("tcp:[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("tcp:Example.ORG.:65535", "Example.ORG.", 65535),
    ] {
        let spec = client(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((spec.host.as_str(), spec.port), (host, port), "{text}");
    }
}

#[test]
fn tcp_clients_have_a_timeout_and_may_have_a_local_address() {
    let spec = client("tcp:h:80").unwrap();
    assert_eq!(spec.options, ConnectOptions::new());
    assert_eq!(spec.options, ConnectOptions::new().timeout(Some(Duration::from_secs(30))));

    let spec = client("tcp:h:80:timeout=5:bindAddress=192.0.2.1").unwrap();
    let options = ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
    assert_eq!(spec.options, options.bind_address("192.0.2.1:0".parse().unwrap()));

    let spec = client("tcp:h:80:bindAddress=[fe80::1%3]").unwrap();
    assert_eq!(spec.options, ConnectOptions::new().bind_address("[fe80::1%3]:0".parse().unwrap()));

    let spec = client("tcp:h:80:bindAddress=[fe80::1%eth0]").unwrap();
    let local = SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, 0);
    assert_eq!(spec.options, ConnectOptions::new().bind_address_on(local, "eth0"));

    assert_eq!(client("tcp:h:80:bindAddress=").unwrap().options, ConnectOptions::new());
}

#[test]
fn timeouts_are_whole_or_decimal_seconds() {
    for (text, timeout) in [
        ("0", Duration::ZERO),
        ("0.0", Duration::ZERO),
        ("1.5", Duration::from_millis(1500)),
        ("0.25", Duration::from_millis(250)),
        ("00030", Duration::from_secs(30)),
        ("0.000000001", Duration::from_nanos(1)),
        ("1.000000001", Duration::new(1, 1)),
        ("4294967295.999999999", Duration::new(4_294_967_295, 999_999_999)),
    ] {
        let spec = client(&format!("tcp:h:80:timeout={text}")).unwrap();
        assert_eq!(spec.options, ConnectOptions::new().timeout(Some(timeout)), "{text}");
    }
    let refused = "|.|1.|.5|-1|-0|+1| 1|1 |1e3|1_0|0x1|nan|NaN|inf|infinity|1.5.5|1,5|1.-5|1.+5|0.0000000001|4294967296|\
                   18446744073709551616|１|1s";
    for text in refused.split('|') {
        let error = client(&format!("tcp:h:80:timeout={text}")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "timeout", .. }), "{text}: {error}");
        assert_eq!(error.position(), 17, "{text}");
    }
}

// Refused descriptions.

/// The expectation in the error of a host with characters beyond ASCII.
pub(super) const INTERNATIONAL: &str = if cfg!(feature = "idna") {
    "an international name that IDNA allows"
} else {
    "ASCII, and international names in punycode (xn--...), for the feature `idna` is off"
};

/// An international name is passed on as it is written.
#[test]
fn international_hosts() {
    for host in ["bücher.example", "a。b"] {
        let spec = client(&format!("tcp:{host}:80"));
        assert_eq!(spec.is_ok(), cfg!(feature = "idna"), "{host}");
        assert!(spec.is_ok_and(|spec| spec.host == host) || !cfg!(feature = "idna"));
    }
}

#[test]
fn numbers_are_decimal_digits_and_nothing_else() {
    for text in "| 80|80 |+80|-1|-0|8_0|80.0|0x50|８０|٨٠|8e1|http|65536|99999999999999".split('|') {
        for description in [format!("tcp:{text}"), format!("tcp:port={text}")] {
            let error = server(&description).unwrap_err();
            assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "port", .. }), "{error}");
        }
        let error = client(&format!("tcp:h:{text}")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "port", .. }), "{error}");
    }
    for text in ["", "+5", "-1", "2147483648", "5.0"] {
        let error = server(&format!("tcp:80::{text}")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "backlog", .. }), "{error}");
    }
}

#[test]
fn interfaces_are_ip_addresses() {
    let refused = "localhost|127.1|127.0.0.01|0x7f.0.0.1|2130706433|127.0.0.1%1|[127.0.0.1]| 127.0.0.1|[]|[\\:\\:1|\\:\\:1]|\
                   \\:\\:\\:1|fe80\\:\\:1%|fe80\\:\\:1%0|fe80\\:\\:1%+1|fe80\\:\\:1%4294967296|\\:\\:1%1%1";
    for text in refused.split('|') {
        let error = server(&format!("tcp:80:{text}")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "interface", .. }), "{error}");
        let error = client(&format!("tcp:h:80:bindAddress={text}")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "bindAddress", .. }), "{error}");
    }
}

#[test]
fn hosts_are_passed_whole_and_unchanged() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    let names = "localhost|a|a.|_dmarc.example.org|xn--bcher-kva.example|xn--|0x7f000001|127.1|1.2.3.4|-a-|a_b|*";
    for host in names.split('|').chain([&*label, &*longest, &*format!("{longest}.")]) {
        assert_eq!(client(&format!("tcp:{host}:80")).unwrap().host, host);
    }
}

#[test]
fn hosts_that_no_resolver_should_see_are_refused() {
    let label = "a".repeat(63);
    let long = [format!("{label}a"), format!("a.{label}a.b"), format!("{label}.{label}.{label}.{}", "a".repeat(62))];
    let refused = "|.|..|.a|a..|a..b| |a b|a\tb|a\n|a\0|\0|a\u{7f}|a\u{a0}b|１２７.0.0.1|é_b|a/b|u@h|a%b|\
                   127.0.0.1%eth0|a\\:80|\\:\\:g|[a]|a\\\\b|a?b|a#b|\\:\\:1%|\\:\\:1%a b|\\:\\:1%é|[127.0.0.1]|[\\:\\:1].";
    for host in refused.split('|').chain(long.iter().map(String::as_str)) {
        let error = client(&format!("tcp:{host}:80")).unwrap_err();
        assert!(matches!(error.kind(), DescriptionErrorKind::BadValue { name: "host", .. }), "{error}");
        assert_eq!(error.position(), 4, "{error}");
    }
}

// Random strings.

/// Any text, and text that is nearly a description.
fn texts() -> impl Strategy<Value = String> {
    let pieces = "tcp|TCP|:|:|:|:|=|\\|[|]|[::1]|[fe80::1%2]|%|host=|port=|timeout=|bindAddress=|interface=|backlog=|80|0|1.5|.|\
                  127.0.0.1|é|\u{1f409}|\0|\n|-|h";
    let piece = prop::sample::select(pieces.split('|').collect::<Vec<_>>());
    prop_oneof![
        any::<String>(),
        prop::collection::vec(piece.clone(), 0..16).prop_map(|pieces| pieces.concat()),
        prop::collection::vec(piece, 0..16).prop_map(|pieces| format!("tcp:{}", pieces.concat())),
    ]
}

proptest! {
    #[test]
    fn no_string_panics_and_every_error_has_its_place(text in texts()) {
        for error in [Description::parse(&text).err(), server(&text).err(), client(&text).err()].into_iter().flatten() {
            prop_assert!(text.get(error.range()).is_some(), "{error}");
            prop_assert_eq!(error.range().start, error.position());
            prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
    }

    #[test]
    fn a_description_is_displayed_as_it_was_written(text in texts()) {
        if let Ok(description) = Description::parse(&text) {
            prop_assert_eq!(&description.to_string(), &text);
            prop_assert_eq!(&parse(&text), &description);
            for field in description.fields() {
                prop_assert!(text.is_char_boundary(field.position()));
                prop_assert!(text.is_char_boundary(field.value_position()));
                prop_assert!(field.position() <= field.value_position());
                prop_assert!(text.get(field.range()).is_some_and(|words| words.ends_with(&text[field.value_range()])));
            }
        }
    }

    #[test]
    fn quoted_text_is_one_positional(argument in texts()) {
        let quoted = quote_string_argument(&argument);
        let description = parse(&format!("t:{quoted}"));
        prop_assert_eq!(fields(&description), [(None, argument.as_str())]);
        match Description::parse(&quoted) {
            Ok(description) => {
                prop_assert_eq!(description.kind(), argument.to_ascii_lowercase());
                prop_assert!(description.fields().is_empty());
            }
            Err(error) => prop_assert!(argument.is_empty(), "{error}"),
        }
    }

    #[test]
    fn quoted_fields_come_back_in_order(expected in prop::collection::vec((prop::option::of(texts()), texts()), 0..6)) {
        let mut text = "t".to_owned();
        let mut positions = Vec::new();
        for (name, value) in &expected {
            text.push(':');
            let start = text.len();
            if let Some(name) = name {
                text.push_str(&quote_string_argument(name));
                text.push('=');
            }
            positions.push((start, text.len()));
            text.push_str(&quote_string_argument(value));
        }
        let description = parse(&text);
        let expected: Vec<_> = expected.iter().map(|(name, value)| (name.as_deref(), value.as_str())).collect();
        prop_assert_eq!(fields(&description), expected);
        let found = description.fields().iter().map(|field| (field.position(), field.value_position()));
        prop_assert_eq!(found.collect::<Vec<_>>(), positions);
    }

    #[test]
    fn every_port_address_and_backlog_arrives(port: u16, ip: IpAddr, backlog in 0..=i32::MAX.unsigned_abs()) {
        let quoted = quote_string_argument(&ip.to_string()).into_owned();
        let bare = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        for interface in [quoted, bare] {
            let spec = server(&format!("tcp:{port}:{interface}:{backlog}")).unwrap();
            prop_assert_eq!((spec.port, spec.interface), (port, Some(ip)));
            prop_assert_eq!(spec.options, ListenOptions::new().backlog(backlog));
            let peer = client(&format!("tcp:{interface}:{port}:bindAddress={interface}"));
            let tcp6 = server(&format!("tcp6:{port}:{backlog}:{interface}"));
            if let Ok(spec) = &tcp6 {
                prop_assert_eq!((spec.port, spec.interface), (port, Some(ip)));
                prop_assert_eq!(&spec.options, &ListenOptions::new().backlog(backlog));
            }
            prop_assert_eq!(tcp6.is_ok(), ip.is_ipv6());
            if port == 0 {
                prop_assert!(peer.is_err());
            } else {
                let spec = peer.unwrap();
                prop_assert_eq!((spec.host, spec.port), (ip.to_string(), port));
                prop_assert_eq!(spec.options, ConnectOptions::new().bind_address((ip, 0).into()));
            }
        }
    }

    #[test]
    fn every_duration_arrives(seconds: u32, nanoseconds in 0..1_000_000_000_u32) {
        let spec = client(&format!("tcp:h:80:timeout={seconds}.{nanoseconds:09}")).unwrap();
        let timeout = Duration::new(seconds.into(), nanoseconds);
        prop_assert_eq!(spec.options, ConnectOptions::new().timeout(Some(timeout)));
    }

    #[test]
    fn a_host_is_returned_whole_or_not_at_all(host in texts()) {
        if let Ok(spec) = client(&format!("tcp:{}:80", quote_string_argument(&host))) {
            let bracketed = format!("[{}]", spec.host);
            prop_assert!(spec.host == host || bracketed == host);
            prop_assert!(spec.host.bytes().all(|byte| byte.is_ascii_graphic()) || cfg!(feature = "idna"));
        }
    }
}
