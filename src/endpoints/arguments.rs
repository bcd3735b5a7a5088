//! The arguments that a type of endpoint takes from its [`Description`], and their permitted values
//! (Twisted: the signatures of `_parseTCP`, `_parseClientTCP` and their like).
//!
//! A type is a struct with a `from_description`, which names its arguments once, in order, and
//! reads each:
//!
//! | type | by position or name | by name only |
//! |---|---|---|
//! | server `tcp`, [`TcpServerSpec`] | `port`, `interface`, `backlog` | options of ports |
//! | server `tcp6`, [`TcpServerSpec`] | `port`, `backlog`, `interface` | options of ports |
//! | client `tcp`, [`TcpClientSpec`] | `host`, `port` | `timeout`, `bindAddress`, options of clients |
//!
//! Options of ports are `noDelay`, `ipv6Only`, `reuseAddress`, `reusePort`, `receiveBuffer`,
//! `sendBuffer`, `queueLimit`, `atQueueLimit`, and their limits and policies (`policies.rs`).
//! Options of clients are the first eight without `ipv6Only` (`options.rs`).
//!
//! Differences from Twisted, for all types:
//!
//! - An argument given by position and by name is an error on both sides (Twisted's clients prefer
//!   the position). Surplus fields are an error too (Twisted's clients ignore the third and later
//!   ones if the names suffice).
//! - Numbers consist of decimal digits only: `+80`, ` 80`, `8_0` and digits of other scripts are
//!   errors.
//! - Addresses of interfaces are IP addresses. A name is an error, and is not looked up. The scope
//!   of an IPv6 address is the number of an interface, or its name (`fe80::1%2`, `fe80::1%eth0`),
//!   which is looked up when listening or connecting.
//! - Seconds may have a decimal part.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::description::{Description, Field, without_brackets};
use super::description_error::{DescriptionError, DescriptionErrorKind};
use super::options;
use crate::address::{parse_ipv6, to_ascii};
use crate::reactor::{ConnectOptions, ListenOptions};

/// Address and options of `tcp:port[:interface[:backlog]]` and `tcp6:port[:backlog[:interface]]`
/// (Twisted: the server types `tcp` and `tcp6`, whose orders differ there too).
///
/// ```
/// use ropewalk::ListenOptions;
/// use ropewalk::endpoints::{Description, TcpServerSpec};
///
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let spec = TcpServerSpec::from_description(&Description::parse("tcp:8888:backlog=128")?)?;
/// assert_eq!((spec.port, spec.interface), (8888, None));
/// assert_eq!(spec.options, ListenOptions::new().backlog(128));
/// assert_eq!(spec.address().to_string(), "0.0.0.0:8888");
///
/// let spec = TcpServerSpec::from_description(&Description::parse("tcp:8888:[::1]")?)?;
/// assert_eq!(spec.address().to_string(), "[::1]:8888");
///
/// let spec = TcpServerSpec::from_description(&Description::parse("tcp6:8888:128:[fe80::1%2]")?)?;
/// assert_eq!(spec.address().to_string(), "[fe80::1%2]:8888");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpServerSpec {
    /// The port; 0 lets the system choose one.
    pub port: u16,
    /// The address of the interface; `None` is all IPv4 interfaces. If the description has no
    /// interface, or an empty one, this is `None` for `tcp` and `::` for `tcp6`, which takes IPv6
    /// addresses only.
    pub interface: Option<IpAddr>,
    /// The scope of an IPv6 interface, as the system's number of it. 0 is no scope, or a scope
    /// given by name, which is in the options.
    pub scope_id: u32,
    /// All other arguments.
    pub options: ListenOptions,
}

impl TcpServerSpec {
    /// Reads the arguments of a description of type `tcp` or `tcp6`.
    ///
    /// # Errors
    /// [`DescriptionError`] for the first argument that is unknown, missing, given twice or out of
    /// range, and for another type.
    pub fn from_description(description: &Description) -> Result<Self, DescriptionError> {
        let is_tcp6 = match description.kind() {
            "tcp" => false,
            "tcp6" => true,
            _ => return Err(description.unknown_type(&["tcp", "tcp6"])),
        };
        let order = if is_tcp6 { ["port", "backlog", "interface"] } else { ["port", "interface", "backlog"] };
        let arguments = Arguments::of(description, description.kind(), &order, &options::of_port(&[]))?;
        let port = arguments.required("port", Argument::port)?;
        let read_ip = if is_tcp6 { Argument::ipv6_unless_empty } else { Argument::ip_unless_empty };
        let interface = arguments.optional("interface", read_ip)?.flatten();
        let interface = interface.or(is_tcp6.then_some(ScopedIp::new(Ipv6Addr::UNSPECIFIED)));
        let options = arguments.listen_options(interface.unwrap_or(ScopedIp::new(Ipv4Addr::UNSPECIFIED)))?;
        Ok(Self {
            port,
            interface: interface.map(|interface| interface.ip),
            scope_id: interface.map_or(0, |interface| interface.scope_id),
            options,
        })
    }

    /// Returns the address to bind: port, interface and scope in one.
    pub fn address(&self) -> SocketAddr {
        socket_addr(self.interface.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), self.port, self.scope_id)
    }
}

/// Address and options of `tcp:host:port` (Twisted: the client type `tcp`).
///
/// Host and port may each be given by position or by name, in any mix. If the host is given by
/// name, a single positional field is the port.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::ConnectOptions;
/// use ropewalk::endpoints::{Description, TcpClientSpec};
///
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let description = Description::parse("tcp:example.org:80:timeout=1.5:bindAddress=192.0.2.1")?;
/// let spec = TcpClientSpec::from_description(&description)?;
/// assert_eq!((spec.host.as_str(), spec.port), ("example.org", 80));
/// let options = ConnectOptions::new().timeout(Some(Duration::from_millis(1500)));
/// assert_eq!(spec.options, options.bind_address("192.0.2.1:0".parse().unwrap()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpClientSpec {
    /// A host name or an IP address, as written, without the brackets around an IPv6 address; see
    /// [`Argument::host`].
    pub host: String,
    /// The port, which is not 0.
    pub port: u16,
    /// All other arguments. The timeout is 30 s unless one is given (0 does not wait at all, as in
    /// Twisted). There is no local address unless `bindAddress` is given and not empty.
    pub options: ConnectOptions,
}

impl TcpClientSpec {
    /// Reads the arguments of a description of type `tcp`.
    ///
    /// # Errors
    /// [`DescriptionError`] for the first argument that is unknown, missing, given twice or out of
    /// range.
    pub fn from_description(description: &Description) -> Result<Self, DescriptionError> {
        let names = [&["timeout", "bindAddress"], &options::CONNECT[..]].concat();
        let arguments = Arguments::of_client(description, "tcp", &names)?;
        let host = arguments.required("host", Argument::host)?;
        let port = arguments.required("port", Argument::peer_port)?;
        Ok(Self { host: host.to_owned(), port, options: arguments.connect_options()? })
    }
}

/// The fields of a description, each matched with the argument that it gives.
///
/// ```
/// use ropewalk::endpoints::{Argument, Arguments, Description, DescriptionError};
///
/// /// `onion:port[:name]`
/// fn onion(description: &Description) -> Result<(u16, Option<&str>), DescriptionError> {
///     let arguments = Arguments::of(description, "onion", &["port", "name"], &[])?;
///     let port = arguments.required("port", Argument::port)?;
///     let name = arguments.optional("name", |name| match name.value() {
///         "" => Err(name.invalid("a name")),
///         given => Ok(given),
///     })?;
///     Ok((port, name))
/// }
///
/// # fn main() -> Result<(), DescriptionError> {
/// assert_eq!(onion(&Description::parse("onion:80:name=blog")?)?, (80, Some("blog")));
/// assert_eq!(
///     onion(&Description::parse("onion:80:")?).unwrap_err().to_string(),
///     r#"in "onion:80:" at byte 9: "" is not a name: expected a name"#,
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Arguments<'d> {
    description: &'d Description,
    given: Vec<Argument<'d>>,
}

impl<'d> Arguments<'d> {
    /// Matches every field with an argument of the type `kind`. Positional fields are matched in
    /// the order of `positional`, the others by name, which may be any of `positional` and
    /// `keyword_only`.
    ///
    /// # Errors
    /// For the first field that does not fit: [`TooMany`](DescriptionErrorKind::TooMany),
    /// [`Unknown`](DescriptionErrorKind::Unknown) or [`Repeated`](DescriptionErrorKind::Repeated).
    /// For another type: [`UnknownType`](DescriptionErrorKind::UnknownType).
    pub fn of(
        description: &'d Description,
        kind: &str,
        positional: &[&'static str],
        keyword_only: &[&'static str],
    ) -> Result<Self, DescriptionError> {
        Self::of_fields(description, description.fields(), kind, positional, keyword_only)
    }

    /// As [`of`](Self::of), for some of the fields. The type reads the others itself.
    pub(super) fn of_fields(
        description: &'d Description,
        fields: impl IntoIterator<Item = &'d Field>,
        kind: &str,
        positional: &[&'static str],
        keyword_only: &[&'static str],
    ) -> Result<Self, DescriptionError> {
        if description.kind() != kind {
            return Err(description.unknown_type(&[kind]));
        }
        let mut unnamed = positional.iter();
        let mut given: Vec<Argument<'d>> = Vec::new();
        for field in fields {
            let name = match field.name() {
                None => unnamed.next().copied().ok_or_else(|| too_many(field, positional)),
                Some(name) => {
                    let mut known = positional.iter().chain(keyword_only).copied();
                    known.find(|&known| known == name).ok_or_else(|| unknown(name, positional, keyword_only))
                }
            };
            let name = name.map_err(|kind| {
                let range = if field.name().is_some() { field.name_range() } else { field.range() };
                description.error(range, kind)
            })?;
            let argument = Argument::new(description, name, field);
            match given.iter_mut().find(|other| other.name == name) {
                None => given.push(argument),
                // The last of several equal keywords wins.
                Some(other) if other.field.name().is_some() && field.name().is_some() => *other = argument,
                Some(_) => return Err(description.error(field.range(), DescriptionErrorKind::Repeated { name })),
            }
        }
        Ok(Self { description, given })
    }

    /// Matches the fields of a client type, which takes host and port by position or by name, in
    /// any mix. If the host is given by name, a single positional field is the port.
    pub(super) fn of_client(
        description: &'d Description,
        kind: &str,
        keyword_only: &[&'static str],
    ) -> Result<Self, DescriptionError> {
        let positional = description.fields().iter().filter(|field| field.name().is_none()).count();
        if positional == 1 && description.keyword("host").is_some() {
            Self::of(description, kind, &["port"], &[&["host"], keyword_only].concat())
        } else {
            Self::of(description, kind, &["host", "port"], keyword_only)
        }
    }

    /// Creates the error for arguments that are unusable in combination.
    pub(super) fn unusable(&self, reason: impl Display) -> DescriptionError {
        let kind = DescriptionErrorKind::Unusable { reason: reason.to_string() };
        self.description.error(self.description.end(), kind)
    }

    /// Reads a required argument.
    ///
    /// # Errors
    /// [`Missing`](DescriptionErrorKind::Missing), or an error of `read`.
    pub fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Argument<'d>) -> Result<T, DescriptionError>,
    ) -> Result<T, DescriptionError> {
        let missing = || self.description.error(self.description.end(), DescriptionErrorKind::Missing { name });
        self.optional(name, read)?.ok_or_else(missing)
    }

    /// Reads an optional argument. An empty one counts as given: `tcp:80::` has a backlog, which is
    /// not a number.
    ///
    /// # Errors
    /// An error of `read`.
    pub fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Argument<'d>) -> Result<T, DescriptionError>,
    ) -> Result<Option<T>, DescriptionError> {
        self.given.iter().find(|argument| argument.name == name).map(|&argument| read(argument)).transpose()
    }
}

/// A given argument, and the ways to read it.
///
/// Every reading method fails with [`BadValue`](DescriptionErrorKind::BadValue), at the position of
/// the value, and reads all of the value or nothing. [`Arguments`] has an example.
#[derive(Debug, Clone, Copy)]
pub struct Argument<'d> {
    description: &'d Description,
    name: &'static str,
    field: &'d Field,
}

impl<'d> Argument<'d> {
    pub(super) fn new(description: &'d Description, name: &'static str, field: &'d Field) -> Self {
        Self { description, name, field }
    }

    /// Returns the text, without its escapes.
    pub fn value(self) -> &'d str {
        self.field.value()
    }

    /// Creates the error for an unusable value; `expected` completes the sentence "expected ...".
    pub fn invalid(self, expected: impl Into<String>) -> DescriptionError {
        let (name, value, expected) = (self.name, self.value().to_owned(), expected.into());
        self.description.error(self.field.value_range(), DescriptionErrorKind::BadValue { name, value, expected })
    }

    /// Reads a port to listen on; 0 lets the system choose one.
    ///
    /// # Errors
    /// Anything but a whole number from 0 to 65535: names of services are not looked up.
    pub fn port(self) -> Result<u16, DescriptionError> {
        self.number(0..=u16::MAX)
    }

    /// Reads a port to connect to.
    ///
    /// # Errors
    /// As for [`port`](Self::port), and for 0, on which no server listens.
    pub fn peer_port(self) -> Result<u16, DescriptionError> {
        match self.number(1..=u16::MAX) {
            Err(_) if self.number(0..=0_u16).is_ok() => {
                Err(self.invalid("a whole number from 1 to 65535 (port 0 is for servers: it cannot be connected to)"))
            }
            result => result,
        }
    }

    /// Reads a whole number in a range of an unsigned type, in decimal digits, with or without
    /// leading zeros.
    ///
    /// # Errors
    /// Anything but digits, and a number out of range.
    pub fn number<N>(self, range: RangeInclusive<N>) -> Result<N, DescriptionError>
    where
        N: FromStr + PartialOrd + Display,
    {
        let number = if is_digits(self.value()) { self.value().parse().ok() } else { None };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.invalid(format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// Reads a boolean, written as 1 or 0.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(self) -> Result<bool, DescriptionError> {
        self.number(0..=1_u8).map(|number| number == 1)
    }

    /// Reads the number of connections that may wait to be accepted.
    pub(super) fn backlog(self) -> Result<u32, DescriptionError> {
        self.number(0..=MAX_BACKLOG)
    }

    /// Reads a duration in seconds, whole or with up to nine decimals.
    ///
    /// # Errors
    /// Anything but digits with an optional decimal point between them (so no negative or infinite
    /// duration), and more than 4294967295.
    pub fn seconds(self) -> Result<Duration, DescriptionError> {
        let expected = || self.invalid(format!("seconds, such as 30 or 0.5, from 0 to {MAX_SECONDS}"));
        let (whole, decimals) = self.value().split_once('.').unwrap_or((self.value(), "0"));
        if !is_digits(whole) || !is_digits(decimals) || decimals.len() > NANOSECOND_DIGITS {
            return Err(expected());
        }
        let seconds = whole.parse().ok().filter(|&seconds| seconds <= MAX_SECONDS);
        let nanoseconds = format!("{decimals:0<NANOSECOND_DIGITS$}").parse().ok();
        seconds.zip(nanoseconds).map(|(seconds, nanos)| Duration::new(seconds, nanos)).ok_or_else(expected)
    }

    /// Reads the size of a socket buffer of the system, in bytes.
    pub(super) fn buffer(self) -> Result<u32, DescriptionError> {
        self.number(1..=MAX_BUFFER)
    }

    /// Reads an IP address and its scope. An IPv6 address may be in brackets.
    ///
    /// # Errors
    /// Host names, and a numeric scope that is not the number of an interface; those numbers start
    /// at 1.
    pub fn ip(self) -> Result<ScopedIp<'d>, DescriptionError> {
        let text = without_brackets(self.value()).filter(|inside| parse_ipv6(inside).is_some());
        let text = text.unwrap_or(self.value());
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(ScopedIp::new(ip));
        }
        match parse_ipv6(text) {
            None => Err(self.invalid("an IP address, such as 127.0.0.1 or [::1]")),
            Some((ip, None)) => Ok(ScopedIp::new(ip)),
            Some((ip, Some(scope))) if is_digits(scope) => match scope.parse() {
                Ok(scope_id @ 1..) => Ok(ScopedIp { scope_id, ..ScopedIp::new(ip) }),
                _ => Err(self.invalid("the number of a network interface after the %, from 1 on, or its name")),
            },
            Some((ip, scope_name)) => Ok(ScopedIp { scope_name, ..ScopedIp::new(ip) }),
        }
    }

    /// Reads an IP address as [`ip`](Self::ip) does. An empty value is `None`.
    ///
    /// # Errors
    /// As for [`ip`](Self::ip).
    pub fn ip_unless_empty(self) -> Result<Option<ScopedIp<'d>>, DescriptionError> {
        if self.value().is_empty() { Ok(None) } else { self.ip().map(Some) }
    }

    /// Reads an IPv6 address as [`ip`](Self::ip) does. An empty value is `None`.
    ///
    /// # Errors
    /// As for [`ip`](Self::ip), and for IPv4 addresses.
    pub fn ipv6_unless_empty(self) -> Result<Option<ScopedIp<'d>>, DescriptionError> {
        match self.ip_unless_empty() {
            Ok(Some(ScopedIp { ip: IpAddr::V4(_), .. })) => Err(self.invalid("an IPv6 address, such as [::1]")),
            result => result,
        }
    }

    /// Reads a host: an IP address, without the brackets that may surround an IPv6 address, or a
    /// syntactically valid name.
    ///
    /// Apart from the brackets, the text is returned unchanged: letters keep their case, and a dot
    /// at the end stays. The resolver decides if a name such as `0x7f000001` or `127.1` is an
    /// address. The scope of an IPv6 address may be a name here.
    ///
    /// # Errors
    /// Names that no resolver should be asked for:
    ///
    /// - empty names, and names of more than 253 bytes (without a dot at the end, which is
    ///   permitted);
    /// - labels that are empty or longer than 63 bytes;
    /// - white space, control characters and NUL;
    /// - characters that delimit hosts in addresses and URLs (`: / ? # @ % \ [ ]`);
    /// - characters beyond ASCII, unless the feature `idna` is on and the name is a valid
    ///   international one.
    pub fn host(self) -> Result<&'d str, DescriptionError> {
        let host = without_brackets(self.value()).filter(|inside| parse_ipv6(inside).is_some());
        let host = host.unwrap_or(self.value());
        to_ascii(host).map(|_| host).map_err(|bad| self.invalid(bad.to_string()))
    }
}

/// An IP address, and the network interface that an IPv6 address belongs to. Returned by
/// [`Argument::ip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopedIp<'d> {
    /// The address.
    pub ip: IpAddr,
    /// The number of the interface; 0 is none.
    pub scope_id: u32,
    /// The name of the interface, if the address has a name instead of a number. It is passed to
    /// [`ListenOptions::scope`] or [`ConnectOptions::bind_address_on`].
    pub scope_name: Option<&'d str>,
}

impl ScopedIp<'_> {
    pub(super) fn new(ip: impl Into<IpAddr>) -> Self {
        Self { ip: ip.into(), scope_id: 0, scope_name: None }
    }

    /// Returns the address with a port, and with the number of its interface.
    pub fn socket_addr(self, port: u16) -> SocketAddr {
        socket_addr(self.ip, port, self.scope_id)
    }
}

fn too_many(field: &Field, positional: &[&'static str]) -> DescriptionErrorKind {
    DescriptionErrorKind::TooMany { value: field.value().to_owned(), positional: positional.to_vec() }
}

fn unknown(name: &str, positional: &[&'static str], keyword_only: &[&'static str]) -> DescriptionErrorKind {
    DescriptionErrorKind::Unknown { name: name.to_owned(), known: [positional, keyword_only].concat() }
}

fn socket_addr(ip: IpAddr, port: u16, scope_id: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(ip) => (ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope_id).into(),
    }
}

/// Returns `true` if `text` consists of digits. `FromStr` of the standard library also accepts a
/// sign, which a description may not have.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The largest backlog that `listen(2)` accepts, an `int`. The system's own limit is far below.
const MAX_BACKLOG: u32 = i32::MAX.unsigned_abs();

/// The largest buffer size that a socket option accepts, an `int`. The system's own limit is far
/// below.
const MAX_BUFFER: u32 = i32::MAX.unsigned_abs();

/// 136 years: arbitrary, but so far from the end of every clock that adding it to a time of day
/// never overflows.
const MAX_SECONDS: u64 = u32::MAX as u64;

/// Decimals that a [`Duration`] can hold. Further digits are an error, so that none is lost
/// silently.
const NANOSECOND_DIGITS: usize = 9;
