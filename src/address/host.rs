//! How hosts are written.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use thiserror::Error;

/// What a host name should have been and is not. Such a name is never looked up, and never shortened into one that could be.
///
/// Everything else is passed to the resolver unchanged: whether `0x7f000001` or `127.1` is an address, and `xn--..` a name, is
/// for it to say. International names (`bücher.example`) are passed to it in their ASCII form (`xn--bcher-kva.example`) with the feature
/// `idna`, and refused without it.
///
/// ```
/// use ropewalk::Reactor;
/// use ropewalk::address::BadHostName;
/// use ropewalk::error::ConnectError;
///
/// # fn main() -> ropewalk::Result<()> {
/// let failure = Reactor::new()?.resolve("www..example", 80).take_result().unwrap().unwrap_err();
/// let Some(ConnectError::BadHostName { source, .. }) = failure.check() else { unreachable!() };
/// assert_eq!(*source, BadHostName::EmptyLabel);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadHostName {
    /// It is empty.
    #[error("a host name or an IP address")]
    Empty,
    /// It has characters beyond ASCII, and this crate was built without its feature `idna`, which converts such names.
    #[error("ASCII, and international names in punycode (xn--...), for the feature `idna` is off")]
    NotAscii,
    /// It has characters beyond ASCII, and is no international name by UTS 46, with the rules of STD 3 for host names.
    #[error("an international name that IDNA allows")]
    NotIdna,
    /// It has white space, a control character or a NUL in it.
    #[error("a host name without white space and control characters")]
    Blank,
    /// It has a character in it that delimits hosts in addresses and URLs.
    #[error("a host name, which has no {0} in it, or an IP address")]
    Delimiter(char),
    /// It is longer than 253 bytes, a dot at its end not counted.
    #[error("a host name of at most {MAX_NAME} bytes")]
    TooLong,
    /// There is nothing before a dot, or between two.
    #[error("a host name with something before and between its dots")]
    EmptyLabel,
    /// There are more than 63 bytes between two dots.
    #[error("a host name with at most {MAX_LABEL} bytes between its dots")]
    LongLabel,
}

/// Returns a host as resolvers and TLS know it: an IP address, an IPv6 one perhaps with a scope, or a name in ASCII.
pub(crate) fn to_ascii(host: &str) -> Result<Cow<'_, str>, BadHostName> {
    let ascii = if host.is_ascii() { Cow::Borrowed(host) } else { Cow::Owned(international(host)?) };
    check(&ascii).map(|()| ascii)
}

/// The ASCII form of an international name (Twisted: `twisted.internet._idna`). None is an IP address in other digits.
#[cfg(feature = "idna")]
fn international(host: &str) -> Result<String, BadHostName> {
    use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
    let ascii =
        Uts46::new().to_ascii(host.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::VerifyAllowRootDot);
    let ascii = ascii.map_err(|_| BadHostName::NotIdna)?.into_owned();
    if ascii.parse::<std::net::IpAddr>().is_ok() { Err(BadHostName::NotIdna) } else { Ok(ascii) }
}

#[cfg(not(feature = "idna"))]
fn international(_host: &str) -> Result<String, BadHostName> {
    Err(BadHostName::NotAscii)
}

/// Sees to it that a host in ASCII is an IP address, or could be a name.
fn check(host: &str) -> Result<(), BadHostName> {
    if parse_ipv6(host).is_some() {
        return Ok(());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        Err(BadHostName::Empty)
    } else if host.contains(|char: char| !char.is_ascii_graphic()) {
        Err(BadHostName::Blank)
    } else if let Some(delimiter) = host.chars().find(|char| DELIMITERS.contains(char)) {
        Err(BadHostName::Delimiter(delimiter))
    } else if name.len() > MAX_NAME {
        Err(BadHostName::TooLong)
    } else if name.split('.').any(str::is_empty) {
        Err(BadHostName::EmptyLabel)
    } else if name.split('.').any(|label| label.len() > MAX_LABEL) {
        Err(BadHostName::LongLabel)
    } else {
        Ok(())
    }
}

/// The address that a host is, if it is one: nothing has to be looked up for it. A scope is the number of an interface here; of one with
/// the name of an interface, [`parse_ipv6`] gives both.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some((ip, port).into());
    }
    let (ip, scope_id) = match parse_ipv6(host)? {
        (ip, None) => (ip, 0),
        // The standard library's sign can't be here: no scope has a plus.
        (ip, Some(scope)) => (ip, scope.parse().ok().filter(|&scope_id| scope_id != 0)?),
    };
    Some(SocketAddrV6::new(ip, port, 0, scope_id).into())
}

/// An IPv6 address and the scope behind its `%`, if it has one.
///
/// A scope is the number or the name of a network interface; its characters are those that RFC 6874 allows.
pub(crate) fn parse_ipv6(text: &str) -> Option<(Ipv6Addr, Option<&str>)> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some((text.parse().ok()?, None));
    };
    let is_scope = !scope.is_empty() && scope.chars().all(is_scope_char);
    is_scope.then_some((address.parse().ok()?, Some(scope)))
}

fn is_scope_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_' | '~')
}

/// RFC 1035, 2.3.4: 255 bytes on the wire, of which one is the length of the first label and one the root, a final dot.
const MAX_NAME: usize = 253;

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;

/// What delimits hosts in addresses and URLs: in a name it is there by mistake, or to have two parsers disagree.
const DELIMITERS: [char; 9] = [':', '/', '?', '#', '@', '%', '\\', '[', ']'];
