//! The endpoint on standard input and output (Twisted: `StandardIOEndpoint`).

use super::ServerEndpoint;
use super::arguments::{Argument, Arguments};
use super::description::Description;
use super::description_error::DescriptionError;
use crate::deferred::Deferred;
use crate::protocol::BoxedFactory;
use crate::reactor::{Port, Reactor};

/// Listens on standard input and output (Twisted: `StandardIOEndpoint`): its factory builds one
/// protocol, at once. The port has the address [`Address::Pipe`](crate::Address::Pipe), and stays
/// until it is stopped. See [`StandardIo`](crate::reactor::StandardIo).
///
/// ```no_run
/// use ropewalk::endpoints::{ServerEndpointExt, StandardIoEndpoint};
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Reactor, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// StandardIoEndpoint::new(&reactor).listen(for_protocol(|_| Echo)).or_log("listening");
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StandardIoEndpoint {
    reactor: Reactor,
}

impl StandardIoEndpoint {
    /// Creates the endpoint.
    pub fn new(reactor: &Reactor) -> Self {
        Self { reactor: reactor.clone() }
    }
}

impl ServerEndpoint for StandardIoEndpoint {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        Deferred::with_result(self.reactor.listen_on_standard_io(factory).map_err(Into::into))
    }
}

/// Creates the endpoint of `stdio:` or `stdio`, which has no options: the colon is followed by an
/// empty field.
pub(super) fn server(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ServerEndpoint>, DescriptionError> {
    let arguments = Arguments::of(description, "stdio", &["rest"], &[])?;
    let is_empty = |rest: Argument<'_>| if rest.value().is_empty() { Ok(()) } else { Err(rest.invalid("nothing")) };
    arguments.optional("rest", is_empty)?;
    Ok(Box::new(StandardIoEndpoint::new(reactor)))
}
