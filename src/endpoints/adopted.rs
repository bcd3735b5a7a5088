//! Endpoints on sockets that others have made (Twisted: `AdoptedStreamServerEndpoint`, and the
//! endpoint `systemd`).

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use super::arguments::{Argument, Arguments};
use super::description::Description;
use super::description_error::DescriptionError;
use super::{ServerEndpoint, options};
use crate::address::{AddressFamily, UnknownFamily};
use crate::deferred::Deferred;
use crate::error::{AdoptError, ListenError, NotAdopted};
use crate::protocol::BoxedFactory;
use crate::reactor::{AdoptOptions, InheritedDescriptor, Port, Reactor, give_back};

/// Options of adopted sockets in descriptions, besides the descriptor: all are given by name only.
const OPTIONS: [&str; 3] = ["noDelay", "queueLimit", "atQueueLimit"];

/// Returns the names of these options, and of the policies of ports.
fn names() -> Vec<&'static str> {
    [&OPTIONS[..], &options::POLICIES].concat()
}

/// Listens on a socket that another part of the system has made (Twisted:
/// `AdoptedStreamServerEndpoint`). It listens once. If that fails, the endpoint keeps the
/// descriptor, and can try again.
///
/// ```
/// use ropewalk::endpoints::{AdoptedStreamServerEndpoint, ServerEndpointExt};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let endpoint = AdoptedStreamServerEndpoint::new(&reactor, listener);
/// endpoint.listen(for_protocol(|_| Echo)).or_log("listening");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AdoptedStreamServerEndpoint {
    reactor: Reactor,
    source: DescriptorSource,
    options: AdoptOptions,
}

/// The place that an endpoint has its descriptor from.
#[derive(Debug)]
enum DescriptorSource {
    /// `None` once it was adopted.
    Given(RefCell<Option<OwnedFd>>),
    Inherited(InheritedDescriptor),
}

impl AdoptedStreamServerEndpoint {
    /// Creates an endpoint for a listening socket.
    pub fn new(reactor: &Reactor, descriptor: impl Into<OwnedFd>) -> Self {
        Self::of(reactor, DescriptorSource::Given(RefCell::new(Some(descriptor.into()))))
    }

    /// Creates an endpoint for a listening socket that this process has inherited. It is taken when
    /// the endpoint listens; [`ListenError::Inherited`] says if there is none.
    ///
    /// ```
    /// use ropewalk::endpoints::AdoptedStreamServerEndpoint;
    /// use ropewalk::reactor::InheritedDescriptor;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// let endpoint = AdoptedStreamServerEndpoint::inherited(&reactor, InheritedDescriptor::Index(0));
    /// # drop(endpoint);
    /// # Ok(())
    /// # }
    /// ```
    pub fn inherited(reactor: &Reactor, descriptor: InheritedDescriptor) -> Self {
        Self::of(reactor, DescriptorSource::Inherited(descriptor))
    }

    fn of(reactor: &Reactor, source: DescriptorSource) -> Self {
        Self { reactor: reactor.clone(), source, options: AdoptOptions::new() }
    }

    /// Sets all options, in place of those set before.
    pub fn options(mut self, options: AdoptOptions) -> Self {
        self.options = options;
        self
    }
}

impl ServerEndpoint for AdoptedStreamServerEndpoint {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        // The group that the reactor is a member of has taken the descriptor already.
        let factory = match self.reactor.listen_without_socket(&self.options, factory) {
            Ok(listening) => return Deferred::with_result(listening.map_err(Into::into)),
            Err(factory) => factory,
        };
        let taken = match &self.source {
            DescriptorSource::Given(given) => given.take().ok_or(AdoptError::Taken.into()),
            DescriptorSource::Inherited(inherited) => inherited.take().map_err(ListenError::from),
        };
        let adopted = taken.and_then(|descriptor| {
            let adopted = self.reactor.adopt_stream_port_boxed(descriptor, &self.options, factory);
            adopted.map_err(|NotAdopted { descriptor, error }| {
                match &self.source {
                    DescriptorSource::Given(given) => drop(given.replace(Some(descriptor))),
                    DescriptorSource::Inherited(_) => give_back(descriptor),
                }
                error
            })
        });
        match adopted {
            Ok(port) => Deferred::succeed(port),
            Err(error) => Deferred::fail(error),
        }
    }
}

/// Creates the endpoint of `fd:number[:domain]`, with options by name.
pub(super) fn descriptor(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let arguments = Arguments::of(description, "fd", &["number", "domain"], &names())?;
    let number = arguments.required("number", |number| number.number(0..=i32::MAX.unsigned_abs()))?;
    // The cast is within the range.
    endpoint(reactor, &arguments, InheritedDescriptor::Number(number as i32))
}

/// Creates the endpoint of `systemd:domain=INET:index=0` or `systemd:domain=INET:name=web`, with
/// options by name.
pub(super) fn systemd(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let arguments = Arguments::of(description, "systemd", &["domain", "index", "name"], &names())?;
    let index = arguments.optional("index", |index| index.number(0..=u32::from(u16::MAX)))?;
    let name = arguments.optional("name", |name| Ok(name.value().to_owned()))?;
    let descriptor = match (index, name) {
        (Some(index), None) => InheritedDescriptor::Index(index as usize),
        (None, Some(name)) => InheritedDescriptor::Name(name),
        _ => return Err(arguments.unusable("exactly one of index and name has to be given")),
    };
    endpoint(reactor, &arguments, descriptor)
}

fn endpoint(
    reactor: &Reactor,
    arguments: &Arguments<'_>,
    descriptor: InheritedDescriptor,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let mut options = AdoptOptions::new();
    arguments.read_connection_options(options.connections())?;
    arguments.read_policies(options.port_policies())?;
    if let Some(family) = arguments.optional("domain", family)? {
        options = options.family(family);
    }
    Ok(Box::new(AdoptedStreamServerEndpoint::inherited(reactor, descriptor).options(options)))
}

fn family(argument: Argument<'_>) -> Result<AddressFamily, DescriptionError> {
    argument.value().parse().map_err(|UnknownFamily| argument.invalid("INET, INET6 or UNIX"))
}
