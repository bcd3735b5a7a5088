//! Errors of endpoint strings say what was wrong, where it stands, and what was expected.

use ropewalk::endpoints::{Argument, Arguments, DescriptionError, DescriptionErrorKind};

use super::endpoint_descriptions::{INTERNATIONAL, client, parse, server};

#[test]
fn server_errors_say_what_where_and_what_was_expected() {
    for (text, at, message) in [
        ("", 0, "there is no type: expected one, as in tcp:8888"),
        (":80", 0, "there is no type: expected one, as in tcp:8888"),
        ("port=80", 0, "there is no type: expected one, as in tcp:8888"),
        ("a=b::80", 4, "there is no type: expected one, as in tcp:8888"),
        ("tpc:80", 0, r#""tpc" is not a type of endpoint: expected tcp or tcp6"#),
        ("a=b:UDP", 4, r#""UDP" is not a type of endpoint: expected tcp or tcp6"#),
        ("tcp", 3, "port is missing: expected a field for it, such as port=..."),
        ("tcp:backlog=5", 13, "port is missing: expected a field for it, such as port=..."),
        ("tcp:", 4, r#""" is not a port: expected a whole number from 0 to 65535"#),
        ("tcp:http", 4, r#""http" is not a port: expected a whole number from 0 to 65535"#),
        ("tcp:port=-1", 9, r#""-1" is not a port: expected a whole number from 0 to 65535"#),
        (
            "tcp:80:localhost",
            7,
            r#""localhost" is not an interface: expected an IP address, such as 127.0.0.1 or [::1]"#,
        ),
        (
            "tcp:80:[fe80::1%0]",
            7,
            r#""[fe80::1%0]" is not an interface: expected the number of a network interface after the %, from 1 on, or its name"#,
        ),
        ("tcp:80:backlog=-1", 15, r#""-1" is not a backlog: expected a whole number from 0 to 2147483647"#),
        (
            "tcp:80:prot=1",
            7,
            r#""prot" is not an argument of this type of endpoint: expected port, interface, backlog, noDelay, ipv6Only, reuseAddress, reusePort, receiveBuffer, sendBuffer, queueLimit, atQueueLimit, maxConnections, maxPerPeer, peerPrefix, acceptRate, whenFull, idleTimeout, receiveTimeout, firstBytes, lifetime, rate, receiveRate, sendRate, totalRate, totalReceiveRate, totalSendRate or trafficLog"#,
        ),
        (
            "tcp:80:idle_timeout=5",
            7,
            r#""idle_timeout" is not an argument of this type of endpoint: expected idleTimeout"#,
        ),
        ("tcp:80:NoDelay=1", 7, r#""NoDelay" is not an argument of this type of endpoint: expected noDelay"#),
        (
            "tcp:80:=",
            7,
            r#""" is not an argument of this type of endpoint: expected port, interface, backlog, noDelay, ipv6Only, reuseAddress, reusePort, receiveBuffer, sendBuffer, queueLimit, atQueueLimit, maxConnections, maxPerPeer, peerPrefix, acceptRate, whenFull, idleTimeout, receiveTimeout, firstBytes, lifetime, rate, receiveRate, sendRate, totalRate, totalReceiveRate, totalSendRate or trafficLog"#,
        ),
        (
            "tcp:80:::1",
            9,
            r#""1" is one field too many: expected port, interface or backlog without a name (in a value, a colon is written \:, and an IPv6 address may be in brackets)"#,
        ),
        ("tcp:80:port=80", 7, "port is given twice: expected it by its position or as port=, not both"),
        ("tcp:port=80:80", 12, "port is given twice: expected it by its position or as port=, not both"),
        (
            r"tcp:80\",
            6,
            r"a backslash ends the description: expected the character that it stands for (\\ is a backslash)",
        ),
        ("é\\", 2, r"a backslash ends the description: expected the character that it stands for (\\ is a backslash)"),
        (r"tcp:\:\:1", 4, r#""::1" is not a port: expected a whole number from 0 to 65535"#),
    ] {
        let error = server(text).unwrap_err();
        assert_eq!(error.to_string(), format!(r#"in "{text}" at byte {at}: {message}"#));
        assert_eq!((error.description(), error.position()), (text, at));
    }
}

/// The range of an error covers the words that it is about, with their escapes.
#[test]
fn an_error_covers_its_words() {
    for (text, words) in [
        ("tcp:http:backlog=1", "http"),
        ("tcp:80:backlog=many:noDelay=1", "many"),
        ("tcp:80:backlog=[::2]:noDelay=1", "[::2]"),
        (r"tcp:a\:80", r"a\:80"),
        ("tcp:80:colour=blue:noDelay=1", "colour"),
        ("tcp:80:port=81:noDelay=1", "port=81"),
        ("tcp:80:::1", "1"),
        ("smoke:80", "smoke"),
        ("x=1:smoke:80", "smoke"),
        ("tcp", ""),
        ("tcp:backlog=1", ""),
        (":80", ""),
        (r"tcp:80\", r"\"),
    ] {
        let error = server(text).unwrap_err();
        assert_eq!(&text[error.range()], words, "{error}");
    }
}

#[test]
fn client_errors_say_what_where_and_what_was_expected() {
    for (text, at, message) in [
        ("tcp", 3, "host is missing: expected a field for it, such as host=..."),
        ("tcp:h", 5, "port is missing: expected a field for it, such as port=..."),
        ("tcp:host=h", 10, "port is missing: expected a field for it, such as port=..."),
        ("tcp:port=80", 11, "host is missing: expected a field for it, such as host=..."),
        ("tcp::80", 4, r#""" is not a host: expected a host name or an IP address"#),
        (
            "tcp:h:0",
            6,
            r#""0" is not a port: expected a whole number from 1 to 65535 (port 0 is for servers: it cannot be connected to)"#,
        ),
        (
            "tcp:h:port=000",
            11,
            r#""000" is not a port: expected a whole number from 1 to 65535 (port 0 is for servers: it cannot be connected to)"#,
        ),
        ("tcp:h:http", 6, r#""http" is not a port: expected a whole number from 1 to 65535"#),
        (
            "tcp:a:1:b",
            8,
            r#""b" is one field too many: expected host or port without a name (in a value, a colon is written \:, and an IPv6 address may be in brackets)"#,
        ),
        // Twisted takes h, and 80.
        ("tcp:h:80:host=i", 9, "host is given twice: expected it by its position or as host=, not both"),
        ("tcp:80:host=h:port=81", 14, "port is given twice: expected it by its position or as port=, not both"),
        // Twisted drops the three fields without a name.
        (
            "tcp:a:b:c:host=h:port=80",
            8,
            r#""c" is one field too many: expected host or port without a name (in a value, a colon is written \:, and an IPv6 address may be in brackets)"#,
        ),
        (
            "tcp:h:80:interface=::1",
            9,
            r#""interface" is not an argument of this type of endpoint: expected host, port, timeout, bindAddress, noDelay, reuseAddress, reusePort, receiveBuffer, sendBuffer, queueLimit or atQueueLimit"#,
        ),
        (
            "tcp:h:80:timeout=-1",
            17,
            r#""-1" is not a timeout: expected seconds, such as 30 or 0.5, from 0 to 4294967295"#,
        ),
        (
            "tcp:h:80:bindAddress=lo",
            21,
            r#""lo" is not a bindAddress: expected an IP address, such as 127.0.0.1 or [::1]"#,
        ),
        ("tcp:a b:80", 4, r#""a b" is not a host: expected a host name without white space and control characters"#),
        ("tcp:bü_cher.example:80", 4, &format!(r#""bü_cher.example" is not a host: expected {INTERNATIONAL}"#)),
        ("tcp:a..b:80", 4, r#""a..b" is not a host: expected a host name with something before and between its dots"#),
        (r"tcp:h\:80:80", 4, r#""h:80" is not a host: expected a host name, which has no : in it, or an IP address"#),
    ] {
        let error = client(text).unwrap_err();
        assert_eq!(error.to_string(), format!(r#"in "{text}" at byte {at}: {message}"#));
        assert_eq!((error.description(), error.position()), (text, at));
    }
    let label = "a".repeat(64);
    let error = client(&format!("tcp:{label}:80")).unwrap_err().to_string();
    assert!(error.ends_with("is not a host: expected a host name with at most 63 bytes between its dots"), "{error}");
    let name = "a.".repeat(127) + "aa";
    let error = client(&format!("tcp:{name}:80")).unwrap_err().to_string();
    assert!(error.ends_with("is not a host: expected a host name of at most 253 bytes"), "{error}");
}

#[test]
fn an_error_is_one_line_whatever_the_description_holds() {
    assert_eq!(
        client("tcp:a\n\r\t\0\u{202e}b:80").unwrap_err().to_string(),
        format!(
            r#"in "tcp:a\n\r\t\0\u{{202e}}b:80" at byte 4: "a\n\r\t\0\u{{202e}}b" is not a host: expected {INTERNATIONAL}"#
        )
    );
    assert_eq!(
        server(r#"tcp:"\\""#).unwrap_err().to_string(),
        r#"in "tcp:"\\"" at byte 4: ""\"" is not a port: expected a whole number from 0 to 65535"#
    );
}

#[test]
fn an_error_knows_its_kind() {
    let error = parse("tpc:80").unknown_type(&["tcp", "unix"]);
    let known = vec!["tcp".to_owned(), "unix".to_owned()];
    assert_eq!(error.kind(), &DescriptionErrorKind::UnknownType { name: "tpc".to_owned(), known });

    let error = server("tcp").unwrap_err();
    assert_eq!(error.kind(), &DescriptionErrorKind::Missing { name: "port" });
    assert!(ropewalk::Failure::from(error).check::<DescriptionError>().is_some());
}

/// Another type of endpoint, as one outside the crate would be.
#[test]
fn another_type_may_have_only_names_or_nothing() {
    let description = parse("stdio");
    assert!(Arguments::of(&description, "stdio", &[], &[]).is_ok());

    let description = parse("stdio:");
    let error = Arguments::of(&description, "stdio", &[], &[]).unwrap_err();
    assert!(error.to_string().contains(r#""" is one field too many: expected none without a name"#), "{error}");

    let description = parse("unix:x=1");
    let error = Arguments::of(&description, "unix", &[], &[]).unwrap_err();
    assert!(error.to_string().ends_with("is not an argument of this type of endpoint: expected none"), "{error}");

    let description = parse("unix:mode=8:index=1");
    let arguments = Arguments::of(&description, "unix", &[], &["mode", "index"]).unwrap();
    let octal = |mode: Argument<'_>| u16::from_str_radix(mode.value(), 8).map_err(|_| mode.invalid("an octal number"));
    assert_eq!(
        arguments.required("mode", octal).unwrap_err().to_string(),
        r#"in "unix:mode=8:index=1" at byte 10: "8" is not a mode: expected an octal number"#
    );
    assert_eq!(
        arguments.required("index", |index| index.number(3..=9_u8)).unwrap_err().to_string(),
        r#"in "unix:mode=8:index=1" at byte 18: "1" is not an index: expected a whole number from 3 to 9"#
    );
}
