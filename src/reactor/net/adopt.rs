//! Ports and connections of sockets that the program hands over (Twisted: `adoptStreamPort`,
//! `adoptStreamConnection`). They come from a service manager, from a parent, or over a UNIX
//! socket.
//!
//! A descriptor is examined before anything is done with it, and given back if it is refused. A
//! socket that is adopted may have other descriptors, here or in other processes:
//!
//! - Nothing is shut down when an adopted port stops, and waiting connections are not reset.
//! - The file of a UNIX socket belongs to the process that made it, unless the program says
//!   otherwise ([`AdoptOptions::remove_file`]).
//! - All descriptors of a socket share its blocking mode. So a ring polls such a
//!   port.

use std::cell::RefMut;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::admission::apply_policies;
use super::listener::{ListenerState, PortCore};
use super::port_role::{PortRole, TakenRole};
use crate::address::{AddressFamily, AddressPair};
use crate::deferred::{Deferred, Promise};
use crate::error::{AdoptError, ConnectError, ListenError, NotAdopted};
use crate::failure::Result;
use crate::policies::{ConnectionLimits, ConnectionPolicies};
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory};
use crate::reactor::backend::{
    AdoptedOptions, AnyBackend, ConnectionOptions, Examined, IncomingSocket, ListenRefusal, PortPolicies, Role,
};
use crate::reactor::{Core, Port, Reactor, Slot};
use crate::transport::{QueueLimit, Transport};

/// Options of an adopted port or connection.
///
/// ```
/// use ropewalk::address::AddressFamily;
/// use ropewalk::reactor::AdoptOptions;
/// use ropewalk::transport::QueueLimit;
///
/// let options = AdoptOptions::new().family(AddressFamily::Inet6).queue_limit(QueueLimit::abort(8 << 20));
/// # drop(options);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptOptions(AdoptedOptions);

impl AdoptOptions {
    /// Default options: a stream socket of any family, Nagle's algorithm off, no queue limit, and
    /// the file of a UNIX socket stays.
    pub fn new() -> Self {
        Self(AdoptedOptions::new())
    }

    /// Refuses sockets of another family, with
    /// [`WrongFamily`](crate::error::AdoptError::WrongFamily) (Twisted: `addressFamily`, which it
    /// believes).
    pub fn family(mut self, family: AddressFamily) -> Self {
        self.0.family = Some(family);
        self
    }

    /// Turns Nagle's algorithm off for the connection, or for those that the port accepts. It is
    /// off by default. `false` leaves the socket's setting alone.
    pub fn tcp_no_delay(mut self, on: bool) -> Self {
        self.0.connections.no_delay = on;
        self
    }

    /// Bounds the bytes that wait for a peer that does not read: sets the [queue
    /// limit](crate::Transport::set_queue_limit) with which connections begin. No limit by default.
    pub fn queue_limit(mut self, limit: QueueLimit) -> Self {
        self.0.connections.queue_limit = Some(limit);
        self
    }

    /// Removes the file of a UNIX socket when the adopted port stops. By default the file stays: it
    /// belongs to the process that made it, such as systemd. An old process that hands its port
    /// over for good leaves the file with [`Port::leave_socket_file`]. Other ports and connections
    /// have no file.
    pub fn remove_file(mut self, on: bool) -> Self {
        self.0.remove_file = on;
        self
    }

    /// Limits the connections of an adopted port, as
    /// [`ListenOptions::limits`](crate::ListenOptions::limits) does. An adopted connection has no
    /// such limits.
    pub fn limits(mut self, limits: ConnectionLimits) -> Self {
        self.0.policies.limits = limits;
        self
    }

    /// Sets the policies with which the adopted connection, or those of the adopted port, begin.
    pub fn policies(mut self, policies: ConnectionPolicies) -> Self {
        self.0.policies.begin = policies;
        self
    }

    pub(super) fn adopted(&self) -> &AdoptedOptions {
        &self.0
    }

    pub(crate) fn port_policies(&mut self) -> &mut PortPolicies {
        &mut self.0.policies
    }

    pub(crate) fn connections(&mut self) -> &mut ConnectionOptions {
        &mut self.0.connections
    }
}

impl Default for AdoptOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Reactor {
    /// Listens on a socket that another part of the system has made, and lets `factory` build a
    /// protocol for each connection (Twisted: `adoptStreamPort`, which duplicates the descriptor).
    ///
    /// The descriptor is of a listening TCP or UNIX socket. The port takes it over, makes it
    /// nonblocking and close-on-exec, and closes it when it stops. Connections that wait already
    /// are accepted. The port does not listen again after it has stopped.
    ///
    /// ```
    /// use ropewalk::reactor::AdoptOptions;
    /// # use ropewalk::{Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let reactor = Reactor::new()?;
    /// let port = reactor.adopt_stream_port(listener, &AdoptOptions::new(), |_| Some(Echo))?;
    /// assert!(port.is_listening());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The descriptor comes back with a [`ListenError`]. [`ListenError::Adopt`] says what it is
    /// instead of a listening stream socket. On a simulated network it is
    /// [`AdoptError::Unsupported`].
    pub fn adopt_stream_port(
        &self,
        descriptor: impl Into<OwnedFd>,
        options: &AdoptOptions,
        factory: impl Factory,
    ) -> Result<Port, NotAdopted<ListenError>> {
        self.adopt_stream_port_boxed(descriptor.into(), options, BoxedFactory::new(factory))
    }

    /// Does the same as [`adopt_stream_port`](Self::adopt_stream_port), for endpoints, which do not
    /// know the factory's type.
    ///
    /// # Errors
    /// As `adopt_stream_port`.
    pub fn adopt_stream_port_boxed(
        &self,
        descriptor: OwnedFd,
        options: &AdoptOptions,
        factory: BoxedFactory,
    ) -> Result<Port, NotAdopted<ListenError>> {
        self.0.adopt_port(descriptor, options.0, factory)
    }

    /// Makes the port of a group member, for an endpoint whose socket exists once in the process:
    /// the group's own reactor has taken it. Gives the factory back on any other occasion.
    pub(crate) fn listen_without_socket(
        &self,
        options: &AdoptOptions,
        factory: BoxedFactory,
    ) -> Result<Result<Port, ListenError>, BoxedFactory> {
        match self.0.take_receiver() {
            Some(receiver) => Ok(self.0.listen_to_handed(receiver, options.0.of_port(), factory)),
            None => Err(factory),
        }
    }

    /// Takes over a connected stream socket, and joins the protocol that `factory` builds to it
    /// (Twisted: `adoptStreamConnection`). The socket may be of TCP, a UNIX socket or one of a
    /// socket pair.
    ///
    /// The Deferred fires after the protocol's `connection_made`, at the end of a turn, and never
    /// before this returns. If it is cancelled before that, the socket is closed. `do_start` and
    /// `do_stop` of the factory are not called, as in Twisted: it may be the factory of a port.
    ///
    /// The Deferred fails with [`NoProtocol`](ConnectError::NoProtocol) if the factory builds none,
    /// with [`ReactorStopped`](ConnectError::ReactorStopped) if the reactor stops first, or with
    /// the failure of `connection_made`. The socket is closed then.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use ropewalk::reactor::AdoptOptions;
    /// # use ropewalk::{Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let (ours, _for_a_child) = UnixStream::pair()?;
    /// let reactor = Reactor::new()?;
    /// let adopting = reactor.adopt_stream_connection(ours, &AdoptOptions::new(), |_| Some(Echo))?;
    /// adopting.or_log("adopting");
    /// # reactor.iterate(std::time::Duration::ZERO)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The descriptor comes back with a [`ConnectError`]. [`ConnectError::Adopt`] says what it is
    /// instead of a connected stream socket. On a simulated network it is
    /// [`AdoptError::Unsupported`].
    pub fn adopt_stream_connection<F: Factory>(
        &self,
        descriptor: impl Into<OwnedFd>,
        options: &AdoptOptions,
        factory: F,
    ) -> Result<Deferred<Connection<F::Protocol>>, NotAdopted<ConnectError>> {
        let adopted = self.0.adopt_connection(descriptor.into(), options.0, BoxedFactory::new(factory))?;
        Ok(adopted.add_callback(AnyConnection::expect))
    }
}

impl Core {
    fn adopt_port(
        self: &Rc<Self>,
        socket: OwnedFd,
        options: AdoptedOptions,
        factory: BoxedFactory,
    ) -> Result<Port, NotAdopted<ListenError>> {
        let role = match self.take_role() {
            None => None,
            Some(PortRole::HandsOver(hand)) => Some(TakenRole::HandsOver(hand)),
            Some(PortRole::Receives(receiver)) => {
                let port = self.listen_to_handed(receiver, options.of_port(), factory);
                return port.map_err(|error| NotAdopted::new(socket, error));
            }
            Some(PortRole::ReusesPort { .. }) => return Err(NotAdopted::new(socket, AdoptError::NotShareable.into())),
        };
        let host = match self.examine_port(&socket, &options) {
            Ok(host) => host,
            Err(error) => return Err(NotAdopted::new(socket, error)),
        };
        if let Err(panic) = factory.start() {
            return Err(NotAdopted::new(socket, ListenError::Factory(panic)));
        }
        if self.is_closed() {
            // `do_start` has closed a reactor whose loop has no control.
            factory.stop();
            return Err(NotAdopted::new(socket, ListenError::ReactorGone));
        }
        let port_options = options.of_port();
        let port = PortCore::adopted(host.clone(), port_options, factory);
        let port = Rc::new(role.into_iter().fold(port, PortCore::with_role));
        let id = self.slots.borrow_mut().insert(Slot::Port(Rc::clone(&port)));
        let adopt = |socket| match self.backend_for_request() {
            Ok(mut backend) => backend.adopt_port(id, socket, &host, &port.options, options.remove_file),
            Err(waits) => Err((socket, waits.into())),
        };
        let adopted = adopt(socket).or_else(|(socket, error)| match error.into() {
            ListenRefusal::NoDescriptors(_) if self.end_oldest_lingering() => adopt(socket),
            ListenRefusal::NoDescriptors(error) | ListenRefusal::System(error) => Err((socket, error)),
            ListenRefusal::Locked => Err((socket, std::io::ErrorKind::ResourceBusy.into())),
        });
        match adopted {
            Ok(()) => {
                *port.state.borrow_mut() = ListenerState::Listening(id);
                self.begin_limits(&port, id);
                if port.hands_over() {
                    self.net.add_shared_port(&port);
                }
                Ok(self.port_handle(port))
            }
            Err((socket, error)) => {
                self.slots.borrow_mut().remove(id);
                port.factory.stop();
                Err(NotAdopted::new(socket, AdoptError::System(error).into()))
            }
        }
    }

    fn examine_port(
        self: &Rc<Self>,
        socket: &OwnedFd,
        options: &AdoptedOptions,
    ) -> Result<crate::address::Address, ListenError> {
        self.may_listen()?;
        match self.examining()?.examine(socket.as_fd(), Role::Port, options)? {
            Examined::Port(host) => Ok(host),
            Examined::Connection(_) => Err(AdoptError::NotListening.into()),
        }
    }

    /// Returns the backend, to examine a socket.
    fn examining(&self) -> Result<RefMut<'_, AnyBackend>, AdoptError> {
        self.awake_backend().map_err(|waits| AdoptError::System(waits.into()))
    }

    fn adopt_connection(
        self: &Rc<Self>,
        socket: OwnedFd,
        options: AdoptedOptions,
        factory: BoxedFactory,
    ) -> Result<Deferred<AnyConnection>, NotAdopted<ConnectError>> {
        let ends = match self.examine_connection(&socket, &options) {
            Ok(ends) => ends,
            Err(error) => return Err(NotAdopted::new(socket, error)),
        };
        let (promise, connection) = Promise::new();
        // This may be inside a callback, and building a protocol is another one.
        self.at_end_of_turn(move |core| {
            // It may have been cancelled meanwhile. The socket is closed then.
            if !promise.is_called() {
                core.join_adopted(socket, ends, &options, &factory, &promise);
            }
        });
        Ok(connection)
    }

    fn examine_connection(
        self: &Rc<Self>,
        socket: &OwnedFd,
        options: &AdoptedOptions,
    ) -> Result<AddressPair, ConnectError> {
        self.may_adopt()?;
        match self.examining()?.examine(socket.as_fd(), Role::Connection, options)? {
            Examined::Connection(ends) => Ok(ends),
            Examined::Port(_) => Err(AdoptError::Listening.into()),
        }
    }

    /// Joins an examined socket to a protocol, and fires the Deferred.
    fn join_adopted(
        &self,
        socket: OwnedFd,
        ends: AddressPair,
        options: &AdoptedOptions,
        factory: &BoxedFactory,
        promise: &Promise<AnyConnection>,
    ) {
        let (peer, unix) = (ends.peer(), ends.host().unix().is_some());
        // Without a caller that waits any more, the results of a cancelled promise go nowhere.
        let fail = |error: crate::failure::Failure| drop(promise.errback(error));
        if self.run.is_closing() || self.is_closed() {
            return fail(ConnectError::ReactorStopped { to: peer.to_string() }.into());
        }
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let transport = Transport::new(id, Rc::clone(&self.context), ends);
        transport.begin_with_limit(options.connections.queue_limit);
        apply_policies(options.policies.begin, &transport);
        let built = match factory.build(transport) {
            Ok(Some(joint)) if !promise.is_called() => Ok(joint),
            Ok(Some(_)) => Err(ConnectError::ConnectingCancelled { to: peer.to_string() }.into()),
            Ok(None) => Err(ConnectError::NoProtocol { address: peer }.into()),
            Err(panic) => Err(panic.into()),
        };
        let adopted = built.and_then(|joint| {
            let mut backend = self.backend.borrow_mut();
            backend.adopt(id, IncomingSocket::Descriptor { socket, unix }).map_err(AdoptError::System)?;
            backend.share(id).map_err(AdoptError::System)?;
            Ok(joint)
        });
        let joint = match adopted {
            Ok(joint) => joint,
            Err(failure) => {
                self.slots.borrow_mut().remove(id);
                return fail(failure);
            }
        };
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Connected(Rc::clone(&joint));
        }
        joint.transport().mark_dirty();
        // The Deferred may be cancelled inside `connection_made`.
        match joint.connection_made() {
            Ok(()) if promise.is_called() => joint.transport().lose_connection(),
            Ok(()) => drop(promise.callback(AnyConnection(joint))),
            Err(failure) => fail(failure),
        }
    }
}
