//! Listening and connecting for the cases: the only place that distinguishes kinds of addresses.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::scene::Role;
use crate::address::Address;
use crate::deferred::Deferred;
use crate::error::{ConnectError, ListenError};
use crate::failure::Result;
use crate::protocol::{Connection, Factory, Protocol};
use crate::reactor::{ConnectOptions, ListenOptions, Port, Reactor, UnixConnectOptions, UnixListenOptions};
use crate::transport::Transport;

/// A function to call on a transport before its protocol hears of the connection.
pub type Begin = Rc<dyn Fn(&Transport)>;

/// The reason for skipping a case about resets.
pub(super) const NO_RESETS: &str = "UNIX sockets have no resets: an abort is an end for the peer";

/// Number of connections that may wait to be accepted: as many as a case makes at once.
const BACKLOG: u32 = 512;

pub(super) fn listen(reactor: &Reactor, at: &Address, factory: impl Factory) -> Result<Port, ListenError> {
    match at {
        Address::Inet(at) => reactor.listen_tcp(*at, &ListenOptions::new().backlog(BACKLOG), factory),
        Address::Unix(at) => reactor.listen_unix(at, &UnixListenOptions::new().backlog(BACKLOG), factory),
        Address::Pipe => Err(ListenError::Bind { address: Address::Pipe, source: io::ErrorKind::InvalidInput.into() }),
    }
}

pub(super) fn connect<F: Factory>(reactor: &Reactor, to: &Address, factory: F) -> Deferred<Connection<F::Protocol>> {
    match to {
        Address::Inet(to) => reactor.connect_tcp(*to, &ConnectOptions::new(), factory),
        Address::Unix(to) => reactor.connect_unix(to, &UnixConnectOptions::new(), factory),
        Address::Pipe => no_connection(),
    }
}

/// Connects with a time limit.
pub(super) fn connect_within<F: Factory>(
    reactor: &Reactor,
    to: &Address,
    limit: Duration,
    factory: F,
) -> Deferred<Connection<F::Protocol>> {
    match to {
        Address::Inet(to) => reactor.connect_tcp(*to, &ConnectOptions::new().timeout(Some(limit)), factory),
        Address::Unix(to) => reactor.connect_unix(to, &UnixConnectOptions::new().timeout(Some(limit)), factory),
        Address::Pipe => no_connection(),
    }
}

/// Connects from a local address, if addresses have ports.
pub(super) fn connect_from<F: Factory>(
    reactor: &Reactor,
    to: &Address,
    from: SocketAddr,
    factory: F,
) -> Deferred<Connection<F::Protocol>> {
    match to {
        Address::Inet(to) => reactor.connect_tcp(*to, &ConnectOptions::new().bind_address(from), factory),
        Address::Unix(_) | Address::Pipe => connect(reactor, to, factory),
    }
}

/// Nothing connects to a pipe.
fn no_connection<P: Protocol>() -> Deferred<Connection<P>> {
    let source = io::ErrorKind::InvalidInput.into();
    Deferred::fail(ConnectError::Other { address: Address::Pipe, source })
}

/// A factory whose protocols call `begin` on their transports.
pub(super) struct Beginning<F> {
    pub(super) inner: F,
    pub(super) begin: Option<Begin>,
}

impl<F: Factory<Protocol = Role>> Factory for Beginning<F> {
    type Protocol = Role;

    fn build_protocol(&mut self, peer: &Address) -> Option<Role> {
        let role = self.inner.build_protocol(peer)?;
        Some(role.begins(self.begin.clone()))
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.inner.prepare_transport(transport)
    }

    fn do_start(&mut self) {
        self.inner.do_start();
    }

    fn do_stop(&mut self) {
        self.inner.do_stop();
    }
}
