//! The syntax of hosts: IP addresses and names.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use thiserror::Error;

/// The rule that a malformed host name breaks. Such a name is never looked up, and never shortened
/// into one that could be.
///
/// Every other name is passed to the resolver unchanged. The resolver decides whether `0x7f000001`
/// or `127.1` is an address, and whether `xn--..` is a name. International names (`bücher.example`)
/// are passed to it in their ASCII form (`xn--bcher-kva.example`) with the feature `idna`, and
/// refused without it.
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
    /// The name is empty.
    #[error("a host name or an IP address")]
    Empty,
    /// The name has characters beyond ASCII, and this crate was built without its feature `idna`,
    /// which converts such names.
    #[error("ASCII, and international names in punycode (xn--...), for the feature `idna` is off")]
    NotAscii,
    /// The name has characters beyond ASCII, and is not an international name by UTS 46 with the
    /// rules of STD 3 for host names.
    #[error("an international name that IDNA allows")]
    NotIdna,
    /// The name contains white space, a control character or a NUL.
    #[error("a host name without white space and control characters")]
    Blank,
    /// The name contains a character that delimits hosts in addresses and URLs.
    #[error("a host name, which has no {0} in it, or an IP address")]
    Delimiter(char),
    /// The name is longer than 253 bytes, not counting a dot at its end.
    #[error("a host name of at most {MAX_NAME} bytes")]
    TooLong,
    /// There is nothing before a dot, or between two dots.
    #[error("a host name with something before and between its dots")]
    EmptyLabel,
    /// There are more than 63 bytes between two dots.
    #[error("a host name with at most {MAX_LABEL} bytes between its dots")]
    LongLabel,
}

/// Returns a host in the form that resolvers and TLS use: an IP address (an IPv6 one may have a
/// scope), or a name in ASCII.
pub(crate) fn to_ascii(host: &str) -> Result<Cow<'_, str>, BadHostName> {
    let ascii = if host.is_ascii() { Cow::Borrowed(host) } else { Cow::Owned(international(host)?) };
    check(&ascii).map(|()| ascii)
}

/// Returns the ASCII form of an international name (Twisted: `twisted.internet._idna`). A name that
/// is an IP address in other digits is refused.
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

/// Checks that a host in ASCII is an IP address or could be a name.
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

/// Returns the address if the host is a literal one, which needs no lookup. Its scope has to be the
/// number of an interface. [`parse_ipv6`] also takes a scope that is the name of an interface.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some((ip, port).into());
    }
    let (ip, scope_id) = match parse_ipv6(host)? {
        (ip, None) => (ip, 0),
        // The standard library also parses a leading plus sign, but no scope contains one.
        (ip, Some(scope)) => (ip, scope.parse().ok().filter(|&scope_id| scope_id != 0)?),
    };
    Some(SocketAddrV6::new(ip, port, 0, scope_id).into())
}

/// Parses an IPv6 address, and returns the scope after its `%` if there is one.
///
/// A scope is the number or the name of a network interface. Its characters are those that RFC 6874
/// allows.
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

/// RFC 1035, 2.3.4: 255 bytes on the wire. One is the length of the first label, and one is the
/// root, a final dot.
const MAX_NAME: usize = 253;

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;

/// Characters that delimit hosts in addresses and URLs. In a name, one is a mistake, or an attempt
/// to make two parsers disagree.
const DELIMITERS: [char; 9] = [':', '/', '?', '#', '@', '%', '\\', '[', ']'];
