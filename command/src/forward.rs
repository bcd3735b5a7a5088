//! `forward`: each connection of a server endpoint is joined to a connection of a client endpoint.

use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::Reactor;
use ropewalk::endpoints::{ClientEndpoint, HaproxyClientEndpoint, client_from_string};
use ropewalk::haproxy::{ProxyHeader, ProxyVersion};
use ropewalk::policies::{ConnectionPolicies, PolicedFactory, Rate};
use ropewalk::protocols::{ForwardFactory, ForwardServer};

use crate::options::ForwardOptions;
use crate::program::CommandError;
use crate::protocols::Served;
use crate::servers;

pub(crate) fn run(options: &ForwardOptions) -> Result<ExitCode, CommandError> {
    servers::serve(&options.serving, std::slice::from_ref(&options.server), |reactor| factory(reactor, options))
}

/// Makes the factory of the accepted connections, with its policies.
fn factory(reactor: &Reactor, options: &ForwardOptions) -> Result<PolicedFactory<ForwardFactory>, CommandError> {
    let target: Rc<dyn ClientEndpoint> = client_from_string(reactor, &options.client)?.into();
    let mut forward = match options.proxy_header {
        None => ForwardFactory::new(target),
        Some(version) => naming(target, if version == 1 { ProxyVersion::V1 } else { ProxyVersion::V2 }),
    };
    if let Some(most) = options.limit {
        forward = forward.max_open(most as usize);
    }
    let mut policies = ConnectionPolicies::new();
    if let Some(after) = options.timeout {
        policies = policies.idle(after);
    }
    if let Some(bytes) = options.throttle {
        policies = policies.rate(Rate::bytes_per_second(bytes));
    }
    Ok(policies.over(forward))
}

/// Makes a factory that tells the server the addresses of each client.
fn naming(target: Rc<dyn ClientEndpoint>, version: ProxyVersion) -> ForwardFactory {
    ForwardFactory::choosing(move |client| {
        let header = ProxyHeader::proxied(client.peer(), client.host()).version(version);
        Ok(Rc::new(HaproxyClientEndpoint::new(Rc::clone(&target)).header(header)))
    })
}

impl Served for ForwardServer {}
