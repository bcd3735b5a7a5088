//! [`Port`]: a listening socket and its factory (Twisted: `IListeningPort`,
//! `twisted.internet.tcp.Port`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::listener::{ListenerState, PortCore};
use super::options::ListenOptions;
use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::error::ListenError;
use crate::protocol::{BoxedFactory, Factory};
use crate::reactor::backend::{Incoming, ListenRefusal, PortOptions};
use crate::reactor::{Core, Reactor, Slot};
use crate::time::Clock;
use crate::transport::id::Id;

impl Reactor {
    /// Listens for TCP connections, and has `factory` build a protocol for each (Twisted:
    /// `listenTCP`).
    ///
    /// The port is bound and the factory started when this returns. Port 0 lets the system choose a
    /// port: see [`Port::host`].
    ///
    /// # Errors
    /// [`ListenError`]: the address is in use, not local or not allowed; an option does not fit the
    /// address, or names an interface that does not exist; the factory did not start; the reactor
    /// is stopping or closed.
    pub fn listen_tcp(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
        factory: impl Factory,
    ) -> Result<Port, ListenError> {
        self.listen_tcp_boxed(address, options, BoxedFactory::new(factory))
    }

    /// Does the same as [`listen_tcp`](Self::listen_tcp), for endpoints, which do not know the
    /// factory's type.
    ///
    /// # Errors
    /// As `listen_tcp`.
    pub fn listen_tcp_boxed(
        &self,
        address: SocketAddr,
        options: &ListenOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        self.0.listen(address.into(), options.port.clone(), factory)
    }
}

/// A listening port (Twisted: `IListeningPort`). It is a cheap handle: the port listens even if no
/// handle is kept.
#[derive(Clone)]
pub struct Port {
    core: Weak<Core>,
    port: Rc<PortCore>,
}

impl Port {
    /// Returns the address of the port (Twisted: `getHost`). If port 0 was requested, it has the
    /// port number that the system chose.
    pub fn host(&self) -> Address {
        self.port.host.borrow().clone()
    }

    /// Returns `true` if the port accepts connections.
    pub fn is_listening(&self) -> bool {
        matches!(&*self.port.state.borrow(), ListenerState::Listening(_))
    }

    /// Listens again after [`stop_listening`](Self::stop_listening), on the same address (Twisted:
    /// `startListening`). A port from `listen` is listening already.
    ///
    /// # Errors
    /// [`ListenError`]: the port is listening already, or still stopping; the address is not
    /// available any longer; the factory's `do_start` panicked; the reactor is closed or stopping.
    pub fn start_listening(&self) -> Result<(), ListenError> {
        let core = self.core.upgrade().ok_or(ListenError::ReactorGone)?;
        core.start_port(&self.port)
    }

    /// Stops listening (Twisted: `stopListening`). The address is free when this returns.
    ///
    /// Open connections live on. Connections that the system has accepted by now are served as
    /// well, at the end of this turn: an admitted peer is not turned away, so that another server
    /// can take over the address.
    ///
    /// The Deferred fires after that and after the factory's `do_stop`, and never before this
    /// returns. It fails with [`Panicked`](crate::failure::Panicked) if `do_stop` panicked.
    /// Stopping twice is fine: both Deferreds fire.
    pub fn stop_listening(&self) -> Deferred<()> {
        self.stop(BacklogPolicy::Serve)
    }

    /// Stops listening, and resets the connections that the system has accepted but that have no
    /// protocol yet, as Twisted's `stopListening` does. Their peers can tell a reset from an
    /// answer. Otherwise as [`stop_listening`](Self::stop_listening).
    ///
    /// ```
    /// # use ropewalk::{ListenOptions, Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    /// let stopped = port.abort_listening();
    /// assert!(!port.is_listening());
    /// # drop(stopped);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort_listening(&self) -> Deferred<()> {
        self.stop(BacklogPolicy::Refuse)
    }

    fn stop(&self, policy: BacklogPolicy) -> Deferred<()> {
        match self.core.upgrade() {
            Some(core) => core.stop_port(&self.port, policy),
            None => Deferred::succeed(()),
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, listening) = (self.host(), self.is_listening());
        f.debug_struct("Port").field("host", &host).field("listening", &listening).finish()
    }
}

/// The treatment of connections that the system has accepted, but that have no protocol yet when a
/// port stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) enum BacklogPolicy {
    Serve,
    /// The connection is closed with a reset.
    Refuse,
}

impl Core {
    pub(in crate::reactor) fn listen(
        self: &Rc<Self>,
        address: Address,
        options: PortOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        let port = Rc::new(PortCore::new(address, options, factory));
        self.start_port(&port)?;
        Ok(Port { core: Rc::downgrade(self), port })
    }

    fn start_port(&self, port: &Rc<PortCore>) -> Result<(), ListenError> {
        let address = port.host.borrow().clone();
        if !matches!(&*port.state.borrow(), ListenerState::Stopped) {
            return Err(ListenError::AlreadyListening { address });
        }
        if self.is_closed() {
            return Err(ListenError::ReactorGone);
        }
        if !self.is_ours() {
            return Err(ListenError::ForkedChild);
        }
        if self.run.is_closing() {
            return Err(ListenError::ReactorStopping);
        }
        let address = self.local_address(address, &port.options)?;
        let id = self.slots.borrow_mut().insert(Slot::Port(Rc::clone(port)));
        let listen = || self.backend_for_request().listen(id, &address, &port.options);
        let bound = listen().or_else(|refusal| match refusal {
            ListenRefusal::NoDescriptors(_) if self.end_oldest_lingering() => listen(),
            refusal => Err(refusal),
        });
        // As in Twisted, the factory starts between binding and accepting: no connection is
        // accepted before the next turn.
        let bound = bound.map(|bound| port.factory.start().map(|()| bound));
        match bound {
            // `do_start` may close a reactor whose loop has no control.
            Ok(Ok(_)) if self.is_closed() => {
                port.factory.stop();
                Err(ListenError::ReactorGone)
            }
            Ok(Ok(bound)) => {
                port.host.replace(bound);
                *port.state.borrow_mut() = ListenerState::Listening(id);
                Ok(())
            }
            Ok(Err(panic)) => {
                let mut backend = self.backend_for_request();
                for incoming in backend.stop_listening(id) {
                    backend.refuse(incoming.socket);
                }
                drop(backend);
                self.slots.borrow_mut().remove(id);
                Err(ListenError::Factory(panic))
            }
            Err(refusal) => {
                self.slots.borrow_mut().remove(id);
                Err(match refusal {
                    ListenRefusal::Locked => ListenError::Locked { address },
                    ListenRefusal::NoDescriptors(source) | ListenRefusal::System(source) => {
                        ListenError::Bind { address, source }
                    }
                })
            }
        }
    }

    /// Adds the scope of the named interface to an address, and checks that the options fit its
    /// family.
    fn local_address(&self, address: Address, options: &PortOptions) -> Result<Address, ListenError> {
        let Some(option) = options.for_ipv6() else { return Ok(address) };
        let Some(SocketAddr::V6(mut v6)) = address.socket_addr() else {
            return Err(ListenError::NotIpv6 { address, option });
        };
        if let Some(name) = &options.scope {
            let index = self.interface_index(name);
            let unknown = |source| ListenError::UnknownInterface { name: name.clone(), source };
            v6.set_scope_id(index.map_err(unknown)?);
        }
        Ok(SocketAddr::from(v6).into())
    }

    /// Returns the number of a network interface.
    pub(in crate::reactor) fn interface_index(&self, name: &str) -> io::Result<u32> {
        self.backend.borrow().interface_index(name)
    }

    pub(in crate::reactor) fn stop_port(&self, port: &Rc<PortCore>, policy: BacklogPolicy) -> Deferred<()> {
        if self.is_forked_child() {
            return Deferred::fail(ListenError::ForkedChild);
        }
        let (promise, stopped) = Promise::new();
        let mut state = port.state.borrow_mut();
        match &mut *state {
            ListenerState::Stopped => return Deferred::succeed(()),
            ListenerState::Stopping(promises) => promises.push(promise),
            ListenerState::Listening(id) => {
                let id = *id;
                *state = ListenerState::Stopping(vec![promise]);
                self.slots.borrow_mut().remove(id);
                let accepted = self.backend_for_request().stop_listening(id);
                // This may be inside a callback, and building a protocol is another one.
                for incoming in accepted {
                    let port = Rc::clone(port);
                    self.at_end_of_turn(move |core| core.serve_or_refuse(&port, incoming, policy));
                }
                let port = Rc::clone(port);
                self.at_end_of_turn(move |_| port.stopped());
            }
        }
        stopped
    }

    /// Handles a connection that was accepted when its port stopped.
    fn serve_or_refuse(&self, port: &PortCore, incoming: Incoming, policy: BacklogPolicy) {
        if policy == BacklogPolicy::Serve && !self.run.is_closing() {
            return self.serve(port, incoming);
        }
        self.backend_for_request().refuse(incoming.socket);
    }

    /// Counts connections that were closed unserved.
    pub(in crate::reactor) fn shed(&self, id: Id, count: usize) {
        let Some(port) = self.port(id) else { return };
        self.count(|counters| counters.shed += count as u64);
        port.shed(self.timers.seconds(), count);
    }

    /// Suspends accepting for a while after it has failed.
    pub(in crate::reactor) fn accept_failed(self: &Rc<Self>, id: Id, error: &io::Error) {
        let Some(port) = self.port(id) else { return };
        self.count(|counters| counters.accept_failures += 1);
        let pause = port.accept_failed(self.timers.seconds(), error);
        let core = Rc::downgrade(self);
        self.timers.call_later(pause, move || {
            if let Some(core) = core.upgrade() {
                core.backend_for_request().accept(id);
            }
        });
    }

    /// Returns the port that `id` names.
    pub(in crate::reactor) fn port(&self, id: Id) -> Option<Rc<PortCore>> {
        match self.slots.borrow().get(id) {
            Some(Slot::Port(port)) => Some(Rc::clone(port)),
            _ => None,
        }
    }
}
