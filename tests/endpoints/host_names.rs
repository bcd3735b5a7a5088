//! Names of hosts (A21, F49): each is passed to the resolver whole and unchanged, or refused
//! without a look-up.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::common::{Log, scripts};
use proptest::prelude::*;
use ropewalk::address::BadHostName;
use ropewalk::endpoints::HostnameEndpoint;
use ropewalk::error::ConnectError;
use ropewalk::interfaces::*;
use ropewalk::reactor::Resolver;
use ropewalk::{Deferred, Failure, Reactor};

/// A resolver that knows nothing, and remembers what it was asked.
#[derive(Clone, Default)]
struct Asked(Rc<RefCell<Vec<String>>>);

impl Resolver for Asked {
    fn resolve(&self, _reactor: &Reactor, host: &str, _port: u16) -> Deferred<Vec<SocketAddr>> {
        self.0.borrow_mut().push(host.to_owned());
        Deferred::succeed(Vec::new())
    }
}

thread_local! {
    static REACTOR: (Reactor, Asked) = {
        let asked = Asked::default();
        let reactor = Reactor::builder().signals(false).resolver(asked.clone()).build().unwrap();
        (reactor, asked)
    };
}

/// The failure of connecting to a host, and the names that the resolver was asked for. A host that
/// is an address is only looked up.
fn connect(host: &str) -> (Failure, Vec<String>) {
    REACTOR.with(|(reactor, asked)| {
        let log = Log::default();
        let mut connecting = HostnameEndpoint::new(reactor, host, 80).connect(scripts(&log));
        let failure = connecting.take_result().expect("nothing has to be waited for").expect_err("nobody is known");
        assert!(log.all().is_empty());
        (failure, asked.0.take())
    })
}

#[track_caller]
fn assert_refused(host: &str, expected: BadHostName) {
    let (failure, asked) = connect(host);
    match failure.check() {
        Some(ConnectError::BadHostName { host: named, source }) => {
            assert_eq!((named.as_str(), *source), (host, expected))
        }
        _ => panic!("{host:?}: {failure}"),
    }
    assert!(asked.is_empty(), "{host:?} was looked up");
}

#[track_caller]
fn assert_asked(host: &str) {
    let (failure, asked) = connect(host);
    assert!(matches!(failure.check(), Some(ConnectError::Lookup { host: named, .. }) if named == host), "{failure}");
    assert_eq!(asked, [host]);
}

/// A name with labels of 63 bytes that is `length` bytes long.
fn name_of(length: usize) -> String {
    let mut name = "a".repeat(length);
    for at in (63..length.saturating_sub(1)).step_by(64) {
        name.replace_range(at..=at, ".");
    }
    name
}

#[test]
fn names_that_no_resolver_should_see() {
    for (host, expected) in [
        ("", BadHostName::Empty),
        (".", BadHostName::EmptyLabel),
        ("..", BadHostName::EmptyLabel),
        (".example", BadHostName::EmptyLabel),
        ("www..example", BadHostName::EmptyLabel),
        ("www.example..", BadHostName::EmptyLabel),
        ("www.example\0.evil", BadHostName::Blank),
        ("www example", BadHostName::Blank),
        (" www.example", BadHostName::Blank),
        ("www.example\n", BadHostName::Blank),
        ("www.example\u{7f}", BadHostName::Blank),
        ("www.example%eth0", BadHostName::Delimiter('%')),
        ("127.0.0.1%1", BadHostName::Delimiter('%')),
        ("fe80::1%", BadHostName::Delimiter(':')),
        ("www.example:80", BadHostName::Delimiter(':')),
        ("[::1]", BadHostName::Delimiter('[')),
        ("user@www.example", BadHostName::Delimiter('@')),
        ("http://www.example", BadHostName::Delimiter(':')),
    ] {
        assert_refused(host, expected);
    }
}

/// An international name is refused by a crate without tables of Unicode, and the error says what
/// would help.
#[cfg(not(feature = "idna"))]
#[test]
fn international_names_need_the_feature() {
    assert_refused("bücher.example", BadHostName::NotAscii);
    let (failure, _) = connect("bücher.example");
    assert!(failure.to_string().contains("the feature `idna` is off"), "{failure}");
}

/// An international name is looked up in its ASCII form, by UTS 46 without transitions; errors name
/// it as it is written.
#[cfg(feature = "idna")]
#[test]
fn international_names_are_looked_up_in_ascii() {
    for (host, ascii) in [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example.", "xn--bcher-kva.example."),
        ("www.faß.example", "www.xn--fa-hia.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("ﬁne。example", "fine.example"),
    ] {
        let (failure, asked) = connect(host);
        assert_eq!(asked, [ascii], "{host}");
        match failure.check() {
            Some(ConnectError::Lookup { host: named, reason }) => {
                assert_eq!(named, host);
                assert!(reason.ends_with(&format!("(asked for {ascii})")), "{reason}");
            }
            _ => panic!("{failure}"),
        }
    }
}

/// A name that IDNA does not allow, that would be an address in other digits, or that has what no
/// host name has.
#[cfg(feature = "idna")]
#[test]
fn international_names_that_are_none() {
    let (long_label, long) = ("ü".repeat(60), "ü.".repeat(100));
    for host in [
        "１２７.0.0.1",
        "ü_a.example",
        "-ü.example",
        "ü..example",
        "ü example",
        "ü\u{a0}example",
        "user@bücher.example",
        "bücher.example:80",
        "ü%eth0",
        "a\u{202e}b",
        "xn--ü",
        &long_label,
        &long,
    ] {
        assert_refused(host, BadHostName::NotIdna);
    }
}

/// TLS asks for the ASCII form too, and verifies that.
#[cfg(all(feature = "idna", feature = "tls"))]
#[test]
fn international_names_in_tls() {
    let authority = crate::common::certificates::Authority::new();
    let server = authority.server(&["xn--bcher-kva.example"]);
    let (_pump, asking, serving) = crate::common::tls::play(authority.client("bücher.example"), server.clone());
    assert_eq!(asking.session().server_name.as_deref(), None);
    assert_eq!(serving.session().server_name.as_deref(), Some("xn--bcher-kva.example"));
    let (_pump, asking, _) = crate::common::tls::play(authority.client("bucher.example"), server);
    assert!(asking.error().contains("not for bucher.example"), "{}", asking.error());
}

/// The limits, to the byte.
#[test]
fn the_longest_names() {
    let (longest, label) = (name_of(253), "a".repeat(63));
    assert_asked(&longest);
    assert_asked(&format!("{longest}."));
    assert_refused(&name_of(254), BadHostName::TooLong);
    assert_refused(&format!("{}.", name_of(254)), BadHostName::TooLong);
    assert_refused(&name_of(100_000), BadHostName::TooLong);
    assert_asked(&label);
    assert_asked(&format!("{label}.{label}."));
    assert_refused(&format!("{label}a"), BadHostName::LongLabel);
    assert_refused(&format!("www.{label}a.example"), BadHostName::LongLabel);
}

/// Odd names are passed to the resolver, which judges them.
#[test]
fn odd_names_are_passed_on() {
    for host in [
        "localhost.",
        "0x7f000001",
        "127.1",
        "2130706433",
        "127.0.0.01",
        "xn--",
        "xn--\u{2d}a",
        "_srv._tcp.example",
        "-",
        "a_b",
        "WWW.Example",
    ] {
        assert_asked(host);
    }
}

/// The system alone knows the names of interfaces, and no resolver is asked for them.
#[test]
fn interfaces_have_names() {
    for (host, name) in [("fe80::1%nosuchinterface", "nosuchinterface"), ("fe80::1%0", "0")] {
        let (failure, asked) = connect(host);
        assert!(
            matches!(failure.check(), Some(ConnectError::UnknownInterface { name: said, .. }) if said == name),
            "{failure}"
        );
        assert!(failure.to_string().contains(name) && asked.is_empty(), "{failure}");
    }
    REACTOR.with(|(reactor, _)| {
        let found = reactor.resolve("::1%lo", 80).take_result().unwrap().unwrap();
        assert_eq!(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), ["[::1%1]:80"]);
    });
}

/// An address is its own answer, with the number of its interface.
#[test]
fn addresses_are_not_looked_up() {
    REACTOR.with(|(reactor, asked)| {
        for (host, address) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("::1", "[::1]:80"),
            ("fe80::1%2", "[fe80::1%2]:80"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"),
        ] {
            let found = reactor.resolve(host, 80).take_result().unwrap().unwrap();
            assert_eq!(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), [address]);
        }
        assert!(asked.0.borrow().is_empty());
    });
}

/// Text that is often nearly a name.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.-]{0,80}",
        "([a-z]{1,70}\\.){0,6}[a-z]{0,70}",
        "[a-f0-9:]{2,12}(%[a-z0-9]{0,3})?",
        "[ -~]{0,12}",
        any::<String>(),
    ]
}

/// Returns `true` if it is a name, by a rule written in another way than the engine's.
fn is_name(text: &str) -> bool {
    let bytes = text.strip_suffix('.').unwrap_or(text).as_bytes();
    let is_fine = |byte: &u8| matches!(byte, b'!'..=b'~') && !b":/?#@%\\[]".contains(byte);
    let labels = || bytes.split(|byte| *byte == b'.');
    bytes.len() <= 253 && labels().all(|label| (1..=63).contains(&label.len()) && label.iter().all(is_fine))
}

/// Returns `true` if it is an IPv6 address with the name of an interface.
fn has_scope(text: &str) -> bool {
    text.split_once('%').is_some_and(|(ip, scope)| {
        ip.parse::<std::net::Ipv6Addr>().is_ok()
            && !scope.is_empty()
            && scope.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
    })
}

proptest! {
    #[test]
    fn a_host_is_passed_whole_or_refused(host in texts()) {
        let literal = host.split('%').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
        if literal && (!host.contains('%') || has_scope(&host)) {
            // It is an address, or for the resolver to say; who answers there is another question.
            return Ok(());
        }
        let (failure, asked) = connect(&host);
        if cfg!(feature = "idna") && !host.is_ascii() {
            // It becomes a name, or is refused.
            match failure.check() {
                Some(ConnectError::Lookup { host: named, .. }) => prop_assert!(*named == host && is_name(&asked[0])),
                Some(ConnectError::BadHostName { host: named, .. }) => prop_assert!(*named == host && asked.is_empty()),
                _ => return Err(TestCaseError::fail(failure.to_string())),
            }
        } else if is_name(&host) {
            prop_assert_eq!(asked, [host]);
            prop_assert!(matches!(failure.check(), Some(ConnectError::Lookup { .. })), "{}", failure);
        } else {
            prop_assert!(asked.is_empty(), "{asked:?}");
            let named = match failure.check() {
                Some(ConnectError::BadHostName { host, .. }) => host,
                _ => return Err(TestCaseError::fail(failure.to_string())),
            };
            prop_assert_eq!(named, &host);
        }
    }
}
