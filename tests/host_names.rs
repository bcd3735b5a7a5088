//! Names of hosts (A21, F49): each is passed to the resolver whole and unchanged, or refused before anybody is asked.

mod common;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use common::{Log, scripts};
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

/// What connecting to a host fails with, and what the resolver was asked for it. A host that is an address is only looked up.
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
        ("bücher.example", BadHostName::NotAscii),
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

/// What looks odd and is for the resolver to judge.
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
    // What name an interface has, only the system knows.
    assert_asked("fe80::1%eth0");
    assert_asked("fe80::1%0");
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

/// Whether it is a name, said in another way than the engine says it.
fn is_name(text: &str) -> bool {
    let bytes = text.strip_suffix('.').unwrap_or(text).as_bytes();
    let is_fine = |byte: &u8| matches!(byte, b'!'..=b'~') && !b":/?#@%\\[]".contains(byte);
    let labels = || bytes.split(|byte| *byte == b'.');
    bytes.len() <= 253 && labels().all(|label| (1..=63).contains(&label.len()) && label.iter().all(is_fine))
}

/// Whether it is an IPv6 address with the name of an interface.
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
        if is_name(&host) {
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
