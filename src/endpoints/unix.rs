//! UNIX endpoints (Twisted: `UNIXServerEndpoint`, `UNIXClientEndpoint`).

use std::time::Duration;

use super::arguments::{Argument, Arguments};
use super::description::{Description, quote_string_argument};
use super::description_error::DescriptionError;
use super::{ClientEndpoint, ServerEndpoint, options};
use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{Port, Reactor, UnixConnectOptions, UnixListenOptions};

/// Listens on a UNIX socket (Twisted: `UNIXServerEndpoint`).
///
/// ```
/// use ropewalk::address::UnixAddress;
/// use ropewalk::endpoints::UnixServerEndpoint;
/// use ropewalk::reactor::UnixListenOptions;
///
/// # fn main() -> ropewalk::Result<()> {
/// # let reactor = ropewalk::Reactor::new()?;
/// let address = UnixAddress::path("/run/ropewalk.sock")?;
/// let endpoint = UnixServerEndpoint::new(&reactor, address).options(UnixListenOptions::new().mode(0o660));
/// # drop(endpoint);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct UnixServerEndpoint {
    reactor: Reactor,
    address: UnixAddress,
    options: UnixListenOptions,
}

impl UnixServerEndpoint {
    /// Creates an endpoint with the default options: the largest backlog that the system allows,
    /// mode 0o666, no lock.
    pub fn new(reactor: &Reactor, address: UnixAddress) -> Self {
        Self { reactor: reactor.clone(), address, options: UnixListenOptions::new() }
    }

    /// Sets all options, in place of those set before.
    pub fn options(mut self, options: UnixListenOptions) -> Self {
        self.options = options;
        self
    }
}

impl ServerEndpoint for UnixServerEndpoint {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        match self.reactor.listen_unix_boxed(&self.address, &self.options, factory) {
            Ok(port) => Deferred::succeed(port),
            Err(error) => Deferred::fail(error),
        }
    }
}

/// Connects to a UNIX socket (Twisted: `UNIXClientEndpoint`).
///
/// ```
/// use ropewalk::address::UnixAddress;
/// use ropewalk::endpoints::UnixClientEndpoint;
///
/// # fn main() -> ropewalk::Result<()> {
/// # let reactor = ropewalk::Reactor::new()?;
/// let endpoint = UnixClientEndpoint::new(&reactor, UnixAddress::abstract_name("ropewalk")?);
/// # drop(endpoint);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct UnixClientEndpoint {
    reactor: Reactor,
    address: UnixAddress,
    options: UnixConnectOptions,
}

impl UnixClientEndpoint {
    /// Creates an endpoint with the default options: a timeout of 30 s, and no check of a lock.
    pub fn new(reactor: &Reactor, address: UnixAddress) -> Self {
        Self { reactor: reactor.clone(), address, options: UnixConnectOptions::new() }
    }

    /// Sets all options, in place of those set before.
    pub fn options(mut self, options: UnixConnectOptions) -> Self {
        self.options = options;
        self
    }
}

impl ClientEndpoint for UnixClientEndpoint {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        self.reactor.connect_unix_boxed(&self.address, &self.options, factory)
    }
}

/// Creates the endpoint of `unix:address[:mode[:backlog[:lockfile]]]`, with options by name. The
/// lock is held unless `lockfile=0` is given, as in Twisted.
pub(super) fn server(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let names = [&options::UNIX[..], &options::POLICIES].concat();
    let arguments = Arguments::of(description, "unix", &["address", "mode", "backlog", "lockfile"], &names)?;
    let address = arguments.required("address", address)?;
    let mode = arguments.optional("mode", mode)?;
    let backlog = arguments.optional("backlog", Argument::backlog)?;
    let lock = arguments.optional("lockfile", Argument::flag)?;
    let options = UnixListenOptions::new().want_pid(lock.unwrap_or(true));
    let options = mode.into_iter().fold(options, UnixListenOptions::mode);
    let mut options = backlog.into_iter().fold(options, UnixListenOptions::backlog);
    arguments.read_connection_options(options.connections())?;
    arguments.refuse_peers()?;
    arguments.read_policies(options.port_policies())?;
    Ok(Box::new(UnixServerEndpoint::new(reactor, address).options(options)))
}

/// Creates the endpoint of `unix:path[:timeout=..][:lockfile=..]`.
pub(super) fn client(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let arguments =
        Arguments::of(description, "unix", &["path"], &[&["timeout", "lockfile"], &options::UNIX[..]].concat())?;
    let address = arguments.required("path", address)?;
    let timeout: Option<Duration> = arguments.optional("timeout", Argument::seconds)?;
    let check = arguments.optional("lockfile", Argument::flag)?;
    let mut options = UnixConnectOptions::new().check_pid(check.unwrap_or(false));
    if timeout.is_some() {
        options = options.timeout(timeout);
    }
    arguments.read_connection_options(options.connections())?;
    Ok(Box::new(UnixClientEndpoint::new(reactor, address).options(options)))
}

/// Returns the client description of a listening socket.
pub(super) fn client_description(address: &UnixAddress) -> String {
    let name = match (address.as_path(), address.as_abstract_name()) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (_, Some(name)) => format!("\0{}", String::from_utf8_lossy(name)),
        // A listening socket always has a name.
        (None, None) => String::new(),
    };
    format!("unix:{}", quote_string_argument(&name))
}

/// Reads a path, or an abstract name after a NUL.
fn address(argument: Argument<'_>) -> Result<UnixAddress, DescriptionError> {
    let value = argument.value();
    let address = match value.strip_prefix('\0') {
        Some(name) => UnixAddress::abstract_name(name),
        None => UnixAddress::path(value),
    };
    address.map_err(|error| argument.invalid(format!("the address of a UNIX socket ({error})")))
}

fn mode(argument: Argument<'_>) -> Result<u32, DescriptionError> {
    let value = argument.value();
    let digits = !value.is_empty() && value.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = if digits { u32::from_str_radix(value, 8).ok() } else { None };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| argument.invalid("permissions in octal, such as 660"))
}
