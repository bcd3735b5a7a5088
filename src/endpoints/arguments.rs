//! What a type of endpoint takes from its [`Description`]: which arguments, and what each may be (Twisted: the
//! signatures of `_parseTCP`, `_parseClientTCP` and their like).
//!
//! A type is a struct with a `from_description`, which names its arguments once, in order, and reads each:
//!
//! | type | by position or name | by name only |
//! |---|---|---|
//! | server `tcp`, [`TcpServerSpec`] | `port`, `interface`, `backlog` | options of ports |
//! | server `tcp6`, [`TcpServerSpec`] | `port`, `backlog`, `interface` | options of ports |
//! | client `tcp`, [`TcpClientSpec`] | `host`, `port` | `timeout`, `bindAddress`, options of clients |
//!
//! Options of ports are `noDelay`, `ipv6Only`, `reuseAddress`, `reusePort`, `receiveBuffer`, `sendBuffer`, `queueLimit` and `atQueueLimit`;
//! those of clients are the same without `ipv6Only` (`options.rs`).
//!
//! What differs from Twisted, for all types:
//!
//! - An argument given by position and by name is an error on both sides (Twisted's clients prefer the position), and
//!   so are fields too many (Twisted's clients overlook three and more if the names suffice).
//! - Numbers are decimal digits and nothing else: `+80`, ` 80`, `8_0` and digits of other scripts are errors.
//! - Addresses of interfaces are IP addresses; a name is an error, and is not looked up. The scope of an IPv6 address
//!   is the number of an interface, or its name (`fe80::1%2`, `fe80::1%eth0`), which is looked up when listening or connecting.
//! - Seconds may have a decimal part.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::description::{Description, DescriptionError, DescriptionErrorKind, Field, without_brackets};
use super::options;
use crate::address::{parse_ipv6, to_ascii};
use crate::reactor::{ConnectOptions, ListenOptions};

/// Where `tcp:port[:interface[:backlog]]` and `tcp6:port[:backlog[:interface]]` listen (Twisted: the server types `tcp` and
/// `tcp6`, whose orders differ there too).
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
    /// The address of the interface; `None` is all of IPv4. If the description has none, or an empty one, it is `None` for `tcp`
    /// and `::` for `tcp6`, which takes IPv6 addresses only.
    pub interface: Option<IpAddr>,
    /// The scope of an IPv6 interface, a number of the system's; 0 is none, or one by name, which is among the options.
    pub scope_id: u32,
    /// Everything else.
    pub options: ListenOptions,
}

impl TcpServerSpec {
    /// Reads the arguments of a description of type `tcp` or `tcp6`.
    ///
    /// # Errors
    /// [`DescriptionError`], for the first argument that is unknown, missing, given twice or out of range, and for another
    /// type.
    pub fn from_description(description: &Description) -> Result<Self, DescriptionError> {
        let is_tcp6 = match description.kind() {
            "tcp" => false,
            "tcp6" => true,
            _ => return Err(description.unknown_type(&["tcp", "tcp6"])),
        };
        let order = if is_tcp6 { ["port", "backlog", "interface"] } else { ["port", "interface", "backlog"] };
        let arguments = Arguments::of(description, description.kind(), &order, &options::LISTEN)?;
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

    /// The address to bind: port, interface and scope in one.
    pub fn address(&self) -> SocketAddr {
        socket_addr(self.interface.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), self.port, self.scope_id)
    }
}

/// Where `tcp:host:port` connects to (Twisted: the client type `tcp`).
///
/// Host and port may each be given by position or by name, in any mix; where the host has a name, a single positional
/// field is the port.
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
    /// A host name or an IP address, as it is written, but for the brackets around an IPv6 address; see
    /// [`Argument::host`].
    pub host: String,
    /// The port, which is not 0.
    pub port: u16,
    /// Everything else: a timeout of 30 s unless one is given (zero waits for nothing, as in Twisted), and no local address unless
    /// `bindAddress` has one that is not empty.
    pub options: ConnectOptions,
}

impl TcpClientSpec {
    /// Reads the arguments of a description of type `tcp`.
    ///
    /// # Errors
    /// [`DescriptionError`], for the first argument that is unknown, missing, given twice or out of range.
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
    /// Matches every field with an argument of the type `kind`: the positional ones in the order of `positional`, the
    /// others by name, which may be any of `positional` and `keyword_only`.
    ///
    /// # Errors
    /// For the first field that does not fit: [`TooMany`](DescriptionErrorKind::TooMany),
    /// [`Unknown`](DescriptionErrorKind::Unknown) or [`Repeated`](DescriptionErrorKind::Repeated). For another type:
    /// [`UnknownType`](DescriptionErrorKind::UnknownType).
    pub fn of(
        description: &'d Description,
        kind: &str,
        positional: &[&'static str],
        keyword_only: &[&'static str],
    ) -> Result<Self, DescriptionError> {
        if description.kind() != kind {
            return Err(description.unknown_type(&[kind]));
        }
        let mut unnamed = positional.iter();
        let mut given: Vec<Argument<'d>> = Vec::new();
        for field in description.fields() {
            let name = match field.name() {
                None => unnamed.next().copied().ok_or_else(|| too_many(field, positional)),
                Some(name) => {
                    let mut known = positional.iter().chain(keyword_only).copied();
                    known.find(|&known| known == name).ok_or_else(|| unknown(name, positional, keyword_only))
                }
            };
            let name = name.map_err(|kind| description.error(field.position(), kind))?;
            let argument = Argument { description, name, field };
            match given.iter_mut().find(|other| other.name == name) {
                None => given.push(argument),
                // Of equal keywords the last wins.
                Some(other) if other.field.name().is_some() && field.name().is_some() => *other = argument,
                Some(_) => return Err(description.error(field.position(), DescriptionErrorKind::Repeated { name })),
            }
        }
        Ok(Self { description, given })
    }

    /// The same for types whose clients are given a host and a port by position or by name, in any mix: where the host has a name,
    /// a single positional field is the port.
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

    /// The error for arguments that, taken together, can't be used.
    #[cfg(feature = "tls")]
    pub(super) fn unusable(&self, reason: impl Display) -> DescriptionError {
        let kind = DescriptionErrorKind::Unusable { reason: reason.to_string() };
        self.description.error(self.description.end(), kind)
    }

    /// Reads an argument that must be given.
    ///
    /// # Errors
    /// [`Missing`](DescriptionErrorKind::Missing), or what `read` finds wrong.
    pub fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Argument<'d>) -> Result<T, DescriptionError>,
    ) -> Result<T, DescriptionError> {
        let missing = || self.description.error(self.description.end(), DescriptionErrorKind::Missing { name });
        self.optional(name, read)?.ok_or_else(missing)
    }

    /// Reads an argument that may be left out. An empty one is given: `tcp:80::` has a backlog, which is not a number.
    ///
    /// # Errors
    /// What `read` finds wrong.
    pub fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(Argument<'d>) -> Result<T, DescriptionError>,
    ) -> Result<Option<T>, DescriptionError> {
        self.given.iter().find(|argument| argument.name == name).map(|&argument| read(argument)).transpose()
    }
}

/// One argument that is given, and the ways to read it.
///
/// All of them fail with [`BadValue`](DescriptionErrorKind::BadValue), at the value, and read all of it or nothing.
/// [`Arguments`] has an example.
#[derive(Debug, Clone, Copy)]
pub struct Argument<'d> {
    description: &'d Description,
    name: &'static str,
    field: &'d Field,
}

impl<'d> Argument<'d> {
    /// The text, without its escapes.
    pub fn value(self) -> &'d str {
        self.field.value()
    }

    /// The error for a value that can't be used; `expected` completes the sentence "expected ...".
    pub fn invalid(self, expected: impl Into<String>) -> DescriptionError {
        let (name, value, expected) = (self.name, self.value().to_owned(), expected.into());
        self.description.error(self.field.value_position(), DescriptionErrorKind::BadValue { name, value, expected })
    }

    /// A port to listen on; 0 lets the system choose one.
    ///
    /// # Errors
    /// Anything but a whole number from 0 to 65535: the names of services are not looked up.
    pub fn port(self) -> Result<u16, DescriptionError> {
        self.number(0..=u16::MAX)
    }

    /// A port to connect to.
    ///
    /// # Errors
    /// As for [`port`](Self::port), and for 0, on which nobody listens.
    pub fn peer_port(self) -> Result<u16, DescriptionError> {
        match self.number(1..=u16::MAX) {
            Err(_) if self.number(0..=0_u16).is_ok() => {
                Err(self.invalid("a whole number from 1 to 65535 (port 0 is for servers: nobody can connect to it)"))
            }
            result => result,
        }
    }

    /// A whole number in a range of an unsigned type, in decimal digits, with or without leading zeros.
    ///
    /// # Errors
    /// Anything but digits, and what is out of range.
    pub fn number<N>(self, range: RangeInclusive<N>) -> Result<N, DescriptionError>
    where
        N: FromStr + PartialOrd + Display,
    {
        let number = if is_digits(self.value()) { self.value().parse().ok() } else { None };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.invalid(format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// Yes or no, as 1 or 0.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(self) -> Result<bool, DescriptionError> {
        self.number(0..=1_u8).map(|number| number == 1)
    }

    /// How many connections may wait to be accepted.
    pub(super) fn backlog(self) -> Result<u32, DescriptionError> {
        self.number(0..=MAX_BACKLOG)
    }

    /// A duration in seconds, whole or with up to nine decimals.
    ///
    /// # Errors
    /// Anything but digits with perhaps a point between them (so nothing negative or infinite), and more than
    /// 4294967295.
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

    /// The size of a buffer of the system's, in bytes.
    pub(super) fn buffer(self) -> Result<u32, DescriptionError> {
        self.number(1..=MAX_BUFFER)
    }

    /// An IP address and its scope. An IPv6 address may stand in brackets.
    ///
    /// # Errors
    /// Names of hosts, and a scope that is a number but not one of an interface, which begin with 1.
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

    /// An IP address as [`ip`](Self::ip) reads it, or nothing, which is `None`.
    ///
    /// # Errors
    /// Those of [`ip`](Self::ip).
    pub fn ip_unless_empty(self) -> Result<Option<ScopedIp<'d>>, DescriptionError> {
        if self.value().is_empty() { Ok(None) } else { self.ip().map(Some) }
    }

    /// An IPv6 address as [`ip`](Self::ip) reads it, or nothing, which is `None`.
    ///
    /// # Errors
    /// Those of [`ip`](Self::ip), and IPv4 addresses.
    pub fn ipv6_unless_empty(self) -> Result<Option<ScopedIp<'d>>, DescriptionError> {
        match self.ip_unless_empty() {
            Ok(Some(ScopedIp { ip: IpAddr::V4(_), .. })) => Err(self.invalid("an IPv6 address, such as [::1]")),
            result => result,
        }
    }

    /// A host: an IP address, without the brackets that may surround an IPv6 one, or a name that could be one.
    ///
    /// What is returned is what is written, and all of it: no case is changed, no dot removed. Whether a name such as
    /// `0x7f000001` or `127.1` is an address is for the resolver to say. The scope of an IPv6 address may be a name
    /// here.
    ///
    /// # Errors
    /// Names that no resolver should be asked for: empty ones, more than 253 bytes (without a dot at the end, which
    /// is fine), labels that are empty or longer than 63 bytes, white space, control characters and NUL, characters
    /// that delimit hosts in addresses and URLs (`: / ? # @ % \ [ ]`), and anything beyond ASCII, unless the feature `idna` is on and
    /// it is an international name.
    pub fn host(self) -> Result<&'d str, DescriptionError> {
        let host = without_brackets(self.value()).filter(|inside| parse_ipv6(inside).is_some());
        let host = host.unwrap_or(self.value());
        to_ascii(host).map(|_| host).map_err(|bad| self.invalid(bad.to_string()))
    }
}

/// An IP address, and the network interface that an IPv6 address belongs to. From [`Argument::ip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopedIp<'d> {
    /// The address.
    pub ip: IpAddr,
    /// The number of the interface; 0 is none.
    pub scope_id: u32,
    /// The name of the interface, if the address has a name instead of a number: for [`ListenOptions::scope`] and
    /// [`ConnectOptions::bind_address_on`].
    pub scope_name: Option<&'d str>,
}

impl ScopedIp<'_> {
    pub(super) fn new(ip: impl Into<IpAddr>) -> Self {
        Self { ip: ip.into(), scope_id: 0, scope_name: None }
    }

    /// The address with a port, and with the number of its interface.
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

/// The standard library also takes a sign in front of a number; a description does not.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The largest that `listen(2)` can be told, an `int`. The system has a limit of its own, far below.
const MAX_BACKLOG: u32 = i32::MAX.unsigned_abs();

/// The largest size of a buffer that a socket can be told, an `int`. The system has a limit of its own, far below.
const MAX_BUFFER: u32 = i32::MAX.unsigned_abs();

/// 136 years: arbitrary, but so far from the end of every clock that adding it to a time of day never overflows.
const MAX_SECONDS: u64 = u32::MAX as u64;

/// What a [`Duration`] can hold. More are an error rather than lost.
const NANOSECOND_DIGITS: usize = 9;
