//! Ports that the reactors of a group share.
//!
//! An endpoint listens as always, through [`Core::listen`]. While a [`PortRole`] is set, the port
//! that it makes takes part in the group:
//!
//! | role | socket | accepted connections |
//! |---|---|---|
//! | [`HandsOver`](PortRole::HandsOver) | its own | go to the other reactors, before a protocol is built |
//! | [`Receives`](PortRole::Receives) | none | come from the port that hands over |
//! | [`ReusesPort`](PortRole::ReusesPort) | its own, on the address that all share | are its own |
//!
//! The connections of the last two are counted ([`OpenCount`]), so that the group knows the load of
//! a reactor, and when it is drained. A connection counts until its socket is closed, the time of
//! its lingering included.
//!
//! The limits of the port hold for all of its reactors (`admission.rs`), and each reactor has its
//! part of the total rates. All other policies are those of each connection.

use std::mem;
use std::rc::Rc;

use super::listener::{ListenerState, PortCore};
use super::port_role::{CountedGuard, HandedSocket, Load, OpenGuard, PortRole, ReceivingPort, TakenRole};
use crate::address::Address;
use crate::error::ListenError;
use crate::policies::{ConnectionLimits, Seat};
use crate::protocol::BoxedFactory;
use crate::reactor::backend::{Incoming, IncomingSocket, PortOptions, PortPolicies};
use crate::reactor::{Core, Port, Reactor, Slot};
use crate::transport::Transport;

impl Reactor {
    /// Has `listen` make a port with a role. Returns its result, and `true` if it has made one.
    pub(in crate::reactor) fn with_port_role<T>(&self, role: PortRole, listen: impl FnOnce() -> T) -> (T, bool) {
        self.0.net.role.replace(Some(role));
        let result = listen();
        let unused = self.0.net.role.take();
        (result, unused.is_none())
    }

    /// Serves a connection that another reactor has accepted, at the shared port with this number.
    pub(in crate::reactor) fn serve_handed(&self, number: usize, handed: HandedSocket, load: &Load) {
        let core = &self.0;
        let port = core.net.shared_port(number);
        let HandedSocket { socket, unix, ends, seat } = handed;
        let incoming = Incoming { socket: IncomingSocket::Descriptor { socket, unix }, ends };
        match port {
            Some(port) if port.is_listening() => {
                core.count_accepted(&port);
                core.begin_connection(&port, incoming, Some(CountedGuard::new(port.count_open(), seat)));
            }
            // The program has stopped the port of this reactor alone.
            _ => core.backend.borrow_mut().refuse(incoming.socket),
        }
        load.receive();
    }

    /// Returns the port with this number that hands connections over.
    pub(in crate::reactor) fn port_that_hands_over(&self, number: usize) -> Option<Port> {
        let port = self.0.net.shared_port(number).filter(|port| port.hands_over());
        port.map(|port| self.0.port_handle(port))
    }

    /// Asks every counted connection to close, once its queue is sent.
    pub(in crate::reactor) fn lose_counted_connections(&self) {
        for id in self.0.slots.borrow().ids(|slot| matches!(slot, Slot::Counted(counted) if counted.1.is_of_group())) {
            self.0.with_transport(id, Transport::lose_connection);
        }
    }
}

impl Core {
    /// Takes the role for the port that is about to be made.
    pub(super) fn take_role(&self) -> Option<PortRole> {
        self.net.role.take()
    }

    /// Takes the role if it is that of a port without a socket.
    pub(super) fn take_receiver(&self) -> Option<ReceivingPort> {
        match self.take_role() {
            Some(PortRole::Receives(receiver)) => Some(receiver),
            other => {
                self.net.role.replace(other);
                None
            }
        }
    }

    /// Makes a port with a role.
    pub(super) fn listen_as(
        self: &Rc<Self>,
        role: PortRole,
        address: Address,
        mut options: PortOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        let (address, role) = match role {
            PortRole::Receives(receiver) => return self.listen_to_handed(receiver, options, factory),
            PortRole::HandsOver(hand) => (address, TakenRole::HandsOver(hand)),
            PortRole::ReusesPort { host, open, members, gate } => {
                if address.socket_addr().is_none() {
                    return Err(ListenError::NotShareable { address });
                }
                options.connections.reuse_port = true;
                let PortPolicies { limits, begin } = &mut options.policies;
                *begin = begin.of_member(members);
                let gate = gate.with(mem::take(limits));
                (host.unwrap_or(address), TakenRole::ReusesPort(open, gate))
            }
        };
        let port = Rc::new(PortCore::new(address, options, factory).with_role(role));
        self.start_port(&port)?;
        if port.hands_over() {
            self.net.add_shared_port(&port);
        }
        Ok(self.port_handle(port))
    }

    /// Makes a port without a socket.
    pub(super) fn listen_to_handed(
        self: &Rc<Self>,
        receiver: ReceivingPort,
        mut options: PortOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        let ReceivingPort { host, open, members } = receiver;
        // The port that hands over keeps the limits.
        let begin = options.policies.begin.of_member(members);
        options.policies = PortPolicies { limits: ConnectionLimits::new(), begin };
        let port = Rc::new(PortCore::new(host, options, factory).with_role(TakenRole::Receives(open)));
        self.start_receiving(&port)?;
        self.net.add_shared_port(&port);
        Ok(self.port_handle(port))
    }

    /// Begins to receive connections. There is no socket to bind.
    pub(super) fn start_receiving(&self, port: &Rc<PortCore>) -> Result<(), ListenError> {
        self.may_listen()?;
        port.factory.start().map_err(ListenError::Factory)?;
        if self.is_closed() {
            // `do_start` may close a reactor whose loop has no control.
            port.factory.stop();
            return Err(ListenError::ReactorGone);
        }
        let id = self.slots.borrow_mut().insert(Slot::Port(Rc::clone(port)));
        *port.state.borrow_mut() = ListenerState::Listening(id);
        Ok(())
    }

    /// Hands a connection over to the group.
    #[cold]
    pub(super) fn hand_over(&self, port: &PortCore, incoming: Incoming, seat: Option<Seat>) {
        let Some(TakenRole::HandsOver(hand)) = port.role() else { return };
        let Incoming { socket, ends } = incoming;
        match socket {
            IncomingSocket::Descriptor { socket, unix } => hand(HandedSocket { socket, unix, ends, seat }),
            // The socket of a simulated network cannot leave its thread. A group has none.
            other => self.backend.borrow_mut().refuse(other),
        }
    }
}

impl PortCore {
    /// Counts a new connection, if its port's connections are counted.
    #[inline]
    pub(super) fn count_open(&self) -> Option<OpenGuard> {
        match self.role()? {
            TakenRole::HandsOver(_) => None,
            TakenRole::Receives(open) | TakenRole::ReusesPort(open, _) => Some(OpenGuard::new(open)),
        }
    }

    /// Returns `true` if the port hands its connections over.
    #[inline]
    pub(super) fn hands_over(&self) -> bool {
        matches!(self.role(), Some(TakenRole::HandsOver(_)))
    }

    /// Returns `true` if the port has no socket of its own.
    pub(super) fn has_no_socket(&self) -> bool {
        matches!(self.role(), Some(TakenRole::Receives(_)))
    }

    fn is_listening(&self) -> bool {
        matches!(&*self.state.borrow(), ListenerState::Listening(_))
    }
}
