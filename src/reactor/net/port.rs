//! [`Port`]: a listening socket and its factory (Twisted: `IListeningPort`,
//! `twisted.internet.tcp.Port`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use super::hold::Hold;
use super::listener::{ListenerState, PortCore};
use super::options::ListenOptions;
use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::error::{AdoptError, ListenError, LoopWaits};
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
    /// ```
    /// use ropewalk::{ListenOptions, Reactor, Result, for_protocol};
    /// # use ropewalk::{Protocol, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let options = ListenOptions::new().backlog(1000);
    /// let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &options, for_protocol(|_| Echo))?;
    /// println!("listening on {}", port.host());
    /// # Ok(())
    /// # }
    /// ```
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
    /// available any longer; the factory's `do_start` panicked; the reactor is closed or stopping;
    /// the port was adopted, and its descriptor is closed.
    pub fn start_listening(&self) -> Result<(), ListenError> {
        let core = self.core.upgrade().ok_or(ListenError::ReactorGone)?;
        core.start_port(&self.port)
    }

    /// Returns a second descriptor of the listening socket, for another process (Twisted:
    /// `fileno`, which the program duplicates). It is close-on-exec, and the caller's to close.
    ///
    /// Both descriptors accept connections, each its own, from one queue. So another process can
    /// take the port over without losing one: send it the descriptor
    /// ([`send_file_descriptor`](crate::Transport::send_file_descriptor)), let it
    /// [adopt](crate::Reactor::adopt_stream_port) the port, and then
    /// [stop listening](Self::stop_listening) here. The address is free when the last descriptor is
    /// closed. From this call on, [`abort_listening`](Self::abort_listening) and a reactor that
    /// stops leave waiting connections to the other descriptors. On io_uring the port is polled
    /// from now on, because the mode of the socket is shared as well.
    ///
    /// The file of a UNIX socket is removed when this port stops: see
    /// [`leave_socket_file`](Self::leave_socket_file).
    ///
    /// ```
    /// # use ropewalk::reactor::AdoptOptions;
    /// # use ropewalk::{ListenOptions, Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// let (old, new) = (Reactor::new()?, Reactor::new()?);
    /// let port = old.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    /// let taken_over = new.adopt_stream_port(port.duplicate()?, &AdoptOptions::new(), |_| Some(Echo))?;
    /// assert_eq!(taken_over.host(), port.host());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The port does not listen (`NotConnected`), the process has no descriptor left, or the
    /// reactor is on a simulated network (`Unsupported`).
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        let (core, id) = self.open()?;
        let duplicate = core.second_descriptor(id)?;
        core.backend_for_request()?.share(id)?;
        self.port.shared.set(true);
        Ok(duplicate)
    }

    /// Calls `call` with a descriptor of the listening socket, for options that have no method here
    /// (Twisted: `socket`). It is a duplicate that is closed after the call: do not duplicate it
    /// further, but use [`duplicate`](Self::duplicate).
    ///
    /// # Errors
    /// As [`duplicate`](Self::duplicate).
    pub fn with_descriptor<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let (core, id) = self.open()?;
        // A duplicate, because nothing of the reactor's may be borrowed while `call` runs.
        let duplicate = core.second_descriptor(id)?;
        Ok(call(duplicate.as_fd()))
    }

    /// Leaves the file of a UNIX socket behind when this port stops, for the process that has taken
    /// the port over. Otherwise the file is removed, and no peer finds the new process.
    ///
    /// The new process removes it in turn if it adopts the port with
    /// [`remove_file`](crate::reactor::AdoptOptions::remove_file). Call this when the new process
    /// has said that it has adopted the port. For ports without a file it does nothing.
    ///
    /// # Errors
    /// `ResourceBusy` if the port holds a lock ([`want_pid`](crate::reactor::UnixListenOptions)),
    /// which cannot be handed over: a third process would take the free lock, and replace the file.
    /// `NotConnected` if the port does not listen, `Unsupported` on a simulated network.
    pub fn leave_socket_file(&self) -> io::Result<()> {
        let (core, id) = self.open()?;
        core.awake_backend()?.leave_file(id)
    }

    /// Returns the reactor and the id of a listening port.
    fn open(&self) -> io::Result<(Rc<Core>, Id)> {
        match (self.core.upgrade(), &*self.port.state.borrow()) {
            (Some(core), ListenerState::Listening(id)) if !core.is_forked_child() => Ok((core, *id)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
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
    ///
    /// ```
    /// use ropewalk::{Deferred, Port};
    ///
    /// /// Makes way for another server.
    /// fn retire(port: &Port) -> Deferred<()> {
    ///     let address = port.host();
    ///     port.stop_listening().add_callback(move |()| {
    ///         println!("nothing listens on {address} any more");
    ///         Ok(())
    ///     })
    /// }
    /// ```
    pub fn stop_listening(&self) -> Deferred<()> {
        self.stop(BacklogPolicy::Serve)
    }

    /// Stops listening, and resets the connections that the system has accepted but that have no
    /// protocol yet, as Twisted's `stopListening` does. Their peers can tell a reset from an
    /// answer. Otherwise as [`stop_listening`](Self::stop_listening). If the socket has other
    /// descriptors (an adopted port, [`duplicate`](Self::duplicate)), the connections that wait are
    /// left to them.
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

    /// Returns the reactor, while there is one, in the process that made it.
    pub(super) fn core(&self) -> Option<Rc<Core>> {
        self.core.upgrade().filter(|core| !core.is_forked_child())
    }

    pub(super) fn port_core(&self) -> &PortCore {
        &self.port
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
    /// Returns a second descriptor of a port or a stream.
    pub(in crate::reactor) fn second_descriptor(&self, id: Id) -> io::Result<OwnedFd> {
        let backend = self.awake_backend()?;
        backend.descriptor(id).ok_or(io::ErrorKind::Unsupported)?.try_clone_to_owned()
    }

    /// Returns the handle of a port.
    pub(super) fn port_handle(self: &Rc<Self>, port: Rc<PortCore>) -> Port {
        Port { core: Rc::downgrade(self), port }
    }

    pub(in crate::reactor) fn listen(
        self: &Rc<Self>,
        address: Address,
        options: PortOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        if let Some(role) = self.take_role() {
            return self.listen_as(role, address, options, factory);
        }
        let port = Rc::new(PortCore::new(address, options, factory));
        self.start_port(&port)?;
        Ok(self.port_handle(port))
    }

    pub(super) fn start_port(self: &Rc<Self>, port: &Rc<PortCore>) -> Result<(), ListenError> {
        let address = port.host.borrow().clone();
        if !matches!(&*port.state.borrow(), ListenerState::Stopped) {
            return Err(ListenError::AlreadyListening { address });
        }
        if port.has_no_socket() {
            return self.start_receiving(port);
        }
        self.may_listen()?;
        if port.adopted {
            return Err(AdoptError::Taken.into());
        }
        if self.postponed.is_waiting() {
            return Err(ListenError::Bind { address, source: LoopWaits.into() });
        }
        let address = self.local_address(address, &port.options)?;
        let id = self.slots.borrow_mut().insert(Slot::Port(Rc::clone(port)));
        let listen = || self.backend_for_request().map_err(io::Error::from)?.listen(id, &address, &port.options);
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
                port.holds.set(0);
                *port.state.borrow_mut() = ListenerState::Listening(id);
                self.begin_limits(port, id);
                Ok(())
            }
            Ok(Err(panic)) => {
                self.slots.borrow_mut().remove(id);
                self.when_awake(move |core| {
                    let mut backend = core.backend.borrow_mut();
                    for incoming in backend.stop_listening(id) {
                        backend.refuse(incoming.socket);
                    }
                });
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

    /// Checks that the reactor takes ports and connections.
    pub(super) fn may_listen(&self) -> Result<(), ListenError> {
        if self.is_closed() {
            return Err(ListenError::ReactorGone);
        }
        if !self.is_ours() {
            return Err(ListenError::ForkedChild);
        }
        if self.run.is_closing() { Err(ListenError::ReactorStopping) } else { Ok(()) }
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
        self.awake_backend()?.interface_index(name)
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
                if port.has_no_socket() {
                    let port = Rc::clone(port);
                    self.at_end_of_turn(move |_| port.stopped());
                    return stopped;
                }
                let port = Rc::clone(port);
                self.when_awake(move |core| core.close_port(&port, id, policy));
            }
        }
        stopped
    }

    /// Closes the socket of a port that stops.
    fn close_port(&self, port: &Rc<PortCore>, id: Id, policy: BacklogPolicy) {
        self.threads.wake_host();
        let mut backend = self.backend.borrow_mut();
        if port.shared.get() && policy == BacklogPolicy::Refuse {
            backend.leave_waiting(id);
        }
        let accepted = backend.stop_listening(id);
        drop(backend);
        // Connections that wait for a place are counted already.
        let waiting = port.extras.iter().flat_map(|extras| extras.waiting.take()).map(|incoming| (incoming, false));
        let accepted = accepted.into_iter().map(|incoming| (incoming, true));
        // This may be inside a callback, and building a protocol is another one.
        for (incoming, is_new) in waiting.chain(accepted) {
            let port = Rc::clone(port);
            self.at_end_of_turn(move |core| core.serve_or_refuse(&port, incoming, policy, is_new));
        }
        let port = Rc::clone(port);
        self.at_end_of_turn(move |_| port.stopped());
    }

    /// Handles a connection that was accepted when its port stopped.
    fn serve_or_refuse(&self, port: &PortCore, incoming: Incoming, policy: BacklogPolicy, is_new: bool) {
        if policy != BacklogPolicy::Serve || self.run.is_closing() {
            self.backend.borrow_mut().refuse(incoming.socket);
        } else if is_new {
            self.serve(port, incoming);
        } else {
            self.admit_incoming(port, incoming);
        }
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
        self.hold_port(&port, Hold::Failure);
        let core = Rc::downgrade(self);
        self.timers.call_later(pause, move || {
            if let Some(core) = core.upgrade() {
                core.release_port_of(id, Hold::Failure);
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
