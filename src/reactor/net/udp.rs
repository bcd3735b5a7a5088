//! Datagram ports (Twisted: `listenUDP`, `listenMulticast`, `twisted.internet.udp`): binding,
//! receiving and sending, between datagram protocols and the backend. UNIX sockets are bound here
//! too; their methods stand in `unix_datagrams.rs`.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::address::{Address, unmapped};
use crate::datagram::{
    DatagramDriver, DatagramJoint, DatagramLimits, DatagramOption, DatagramProtocol, DatagramQueue, DatagramSend,
    DatagramSocketOptions, DatagramState, DatagramTransport, DatagramValue, Destination, Spent, UdpOptions,
};
use crate::error::{ListenError, LoopWaits};
use crate::reactor::backend::{DatagramBatch, DatagramReceive, ListenRefusal, TakenDatagram};
use crate::reactor::{Core, Reactor, Slot};
use crate::time::Clock;
use crate::transport::id::Id;

/// Datagrams that one port may deliver in a turn, empty ones included. 128: so many short callbacks
/// take well under a millisecond, and a flood leaves the other sources their share of each turn.
const DATAGRAMS_PER_TURN: usize = 128;

/// Bytes that one port may deliver in a turn. 256 KiB, as Twisted takes per event.
const BYTES_PER_TURN: usize = 256 * 1024;

/// Delay before a call is tried again that failed because the system lacks memory, or for an
/// unknown reason. As for streams.
const RETRY: Duration = Duration::from_millis(10);

impl Reactor {
    /// Binds a UDP port, and calls `protocol` for each datagram (Twisted: `listenUDP`,
    /// `listenMulticast`). The address is of IPv4 or IPv6. Port 0 lets the system choose a port:
    /// see [`DatagramTransport::host`].
    ///
    /// The port is bound and the protocol started when this returns. The port stays open without a
    /// handle, until [`stop_listening`](DatagramTransport::stop_listening) or the end of the
    /// reactor. In one turn it delivers 128 datagrams or 256 KiB at most, so that a flood does not
    /// hold up others. A client sends from such a port too.
    ///
    /// ```
    /// use ropewalk::datagram::UdpOptions;
    /// use ropewalk::interfaces::*;
    /// use ropewalk::{Address, DatagramTransport, Reactor, Result};
    ///
    /// struct Echo;
    ///
    /// impl DatagramProtocol for Echo {
    ///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
    ///         transport.write(data, peer)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let port = reactor.listen_udp("127.0.0.1:0".parse()?, &UdpOptions::new(), Echo)?;
    /// println!("listening on {}", port.host());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ListenError`]: the address is in use, not local or not allowed; an option does not fit the
    /// address; `start_protocol` failed; the reactor is stopping or closed.
    pub fn listen_udp(
        &self,
        address: SocketAddr,
        options: &UdpOptions,
        protocol: impl DatagramProtocol,
    ) -> Result<DatagramTransport, ListenError> {
        let address = self.0.udp_address(unmapped(address), options)?;
        self.0.listen_datagrams(address.into(), &options.socket, options.limits, Box::new(protocol))
    }
}

impl Core {
    /// Adds the scope of the named interface to an address, and checks that the options fit its
    /// family.
    fn udp_address(&self, address: SocketAddr, options: &UdpOptions) -> Result<SocketAddr, ListenError> {
        let scope = options.scope.as_ref();
        let for_ipv6 = options.socket.ipv6_only.map(|_| "ipv6_only").or(scope.map(|_| "scope"));
        let Some(option) = for_ipv6 else { return Ok(address) };
        let SocketAddr::V6(mut v6) = address else {
            return Err(ListenError::NotIpv6 { address: address.into(), option });
        };
        if let Some(name) = scope {
            let index = self.interface_index(name);
            let unknown = |source| ListenError::UnknownInterface { name: name.clone(), source };
            v6.set_scope_id(index.map_err(unknown)?);
        }
        Ok(v6.into())
    }

    /// Binds a socket and starts a protocol on it.
    pub(super) fn listen_datagrams(
        self: &Rc<Self>,
        address: Address,
        socket: &DatagramSocketOptions,
        limits: DatagramLimits,
        protocol: Box<dyn DatagramProtocol>,
    ) -> Result<DatagramTransport, ListenError> {
        let transport = self.bind_datagrams(address, socket, limits, protocol)?;
        self.start_datagrams(&transport)?;
        Ok(transport)
    }

    /// Binds a socket. Nothing is received before the next turn.
    pub(super) fn bind_datagrams(
        self: &Rc<Self>,
        address: Address,
        socket: &DatagramSocketOptions,
        limits: DatagramLimits,
        protocol: Box<dyn DatagramProtocol>,
    ) -> Result<DatagramTransport, ListenError> {
        self.may_listen()?;
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let bind = || self.backend_for_request().map_err(io::Error::from)?.bind_datagrams(id, &address, socket);
        let bound = bind().or_else(|refusal| match refusal {
            ListenRefusal::NoDescriptors(_) if self.end_oldest_lingering() => bind(),
            refusal => Err(refusal),
        });
        let (host, reach) = bound.map_err(|refusal| {
            self.slots.borrow_mut().remove(id);
            match refusal {
                ListenRefusal::Locked => ListenError::Locked { address: address.clone() },
                ListenRefusal::NoDescriptors(source) | ListenRefusal::System(source) => {
                    ListenError::Bind { address: address.clone(), source }
                }
            }
        })?;
        let driver: Weak<Self> = Rc::downgrade(self);
        let transport = DatagramTransport::new(DatagramState::new(driver, id, host, reach, limits));
        let joint = Rc::new(DatagramJoint::new(transport.clone(), protocol));
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Datagrams(joint);
        }
        Ok(transport)
    }

    /// Starts the protocol of a port. A failure closes the port.
    pub(super) fn start_datagrams(&self, transport: &DatagramTransport) -> Result<(), ListenError> {
        let id = transport.state().id();
        let Some(joint) = self.datagram_joint(id) else { return Err(ListenError::ReactorGone) };
        // The loop must not be entered meanwhile: it would call the protocol again.
        let entered = self.context.enter();
        let started = joint.start();
        drop(entered);
        match started {
            Ok(()) if self.is_closed() => Err(ListenError::ReactorGone),
            Ok(()) => Ok(()),
            Err(failure) => {
                self.discard_datagrams(transport);
                Err(ListenError::Protocol(failure))
            }
        }
    }

    /// Closes a port whose protocol has not started, and drops the protocol. A protocol that has
    /// stopped the port itself is told of the end.
    pub(super) fn discard_datagrams(&self, transport: &DatagramTransport) {
        let id = transport.state().id();
        if transport.is_listening()
            && let Some(joint) = self.datagram_joint(id)
        {
            joint.discard();
            self.slots.borrow_mut().remove(id);
            self.close_source(id, false, joint);
        }
    }

    /// Phase 6: delivers the datagrams of a port, within its budget. Out of line, so that the frame
    /// of the other completions stays small.
    #[inline(never)]
    pub(super) fn datagrams_ready(self: &Rc<Self>, id: Id) {
        let Some(joint) = self.datagram_joint(id) else { return };
        let state = joint.transport().state();
        let mut batch = self.net.take_batch(id, joint.transport().max_packet_bytes(), state.coalesces());
        state.set_collecting(true);
        // The backend may report a port twice in a turn.
        let mut spent = joint.spent_in(self.counters.get().turns);
        self.deliver_datagrams(id, &joint, &mut batch, &mut spent);
        joint.set_spent(spent);
        state.set_collecting(false);
        // In a forked child, what is left belongs to the parent.
        if batch.is_empty() || !joint.transport().is_listening() || self.is_forked_child() {
            self.net.give_batch(batch);
        } else {
            self.net.leave_batch(id, batch);
        }
    }

    /// Delivers a batch, and receives others, until the port has nothing left, stops to receive or
    /// has used its budget.
    fn deliver_datagrams(self: &Rc<Self>, id: Id, joint: &DatagramJoint, batch: &mut DatagramBatch, spent: &mut Spent) {
        let mut received = DatagramReceive::More;
        // A callback may stop or pause the port, or fork. In the child, the socket belongs to the
        // parent.
        while joint.is_receiving() && !self.is_forked_child() {
            if spent.datagrams >= DATAGRAMS_PER_TURN || spent.bytes >= BYTES_PER_TURN {
                self.backend.borrow_mut().receive(id, true);
                return;
            }
            if let Some(TakenDatagram { data, truncated, peer }) = batch.take() {
                spent.datagrams += 1;
                spent.bytes += data.len();
                self.measured("datagram_received", || joint.datagram_received(data, truncated, peer));
                continue;
            }
            match received {
                DatagramReceive::More => {}
                DatagramReceive::Last if joint.transport().state().has_peer() => {}
                // Others may have come meanwhile. To ask for them costs less than a wait of the
                // loop, and the answers to these leave before.
                DatagramReceive::Last if batch.filled_rooms() > 1 => joint.transport().state().send_collected(),
                DatagramReceive::Last | DatagramReceive::Empty => return,
                DatagramReceive::Refused => {
                    // Counts as well, since a peer can cause it.
                    spent.datagrams += 1;
                    self.measured("connection_refused", || joint.connection_refused());
                }
                DatagramReceive::Failed(error) => {
                    let host = joint.transport().host();
                    tracing::warn!(%host, %error, "a datagram port cannot receive, and tries again");
                    return self.later(id, move |core, joint| core.resume(id, joint));
                }
            }
            if joint.is_receiving() && !self.is_forked_child() {
                batch.clear();
                received = self.backend.borrow_mut().receive_datagrams(id, batch);
            }
        }
    }

    /// A full socket has room.
    #[inline(never)]
    pub(super) fn datagrams_can_be_sent(&self, id: Id) {
        if let Some(joint) = self.datagram_joint(id) {
            joint.transport().state().flush();
        }
    }

    /// Stops the datagram ports, because the reactor stops.
    pub(super) fn stop_datagram_ports(&self) {
        let ids = self.slots.borrow().ids(|slot| matches!(slot, Slot::Datagrams(_)));
        for joint in ids.into_iter().filter_map(|id| self.datagram_joint(id)) {
            // Every call of `stop_listening` has a Deferred of its own.
            drop(joint.transport().stop_listening());
        }
    }

    fn datagram_joint(&self, id: Id) -> Option<Rc<DatagramJoint>> {
        match self.slots.borrow().get(id)? {
            Slot::Datagrams(joint) => Some(Rc::clone(joint)),
            _ => None,
        }
    }

    /// Receives again, unless the program has paused the port meanwhile.
    fn resume(&self, id: Id, joint: &DatagramJoint) {
        if joint.is_receiving() {
            self.backend.borrow_mut().receive(id, true);
        }
    }

    /// Makes a call for a port after a short time, if the port still exists.
    fn later(&self, id: Id, call: impl FnOnce(&Self, &DatagramJoint) + 'static) {
        let core = self.handle.clone();
        self.timers.call_later(RETRY, move || {
            let Some(core) = core.upgrade() else { return };
            if let Some(joint) = core.datagram_joint(id) {
                call(&core, &joint);
            }
        });
    }
}

impl DatagramDriver for Core {
    fn is_usable(&self) -> bool {
        !self.is_forked_child()
    }

    fn send(&self, id: Id, data: &[u8], to: Destination<'_>) -> DatagramSend {
        match self.awake_backend() {
            Ok(mut backend) => {
                let result = backend.send_datagram(id, data, to);
                if let DatagramSend::Full = result {
                    // The request for an event may have to be submitted.
                    self.threads.wake_host();
                }
                result
            }
            Err(LoopWaits) => DatagramSend::Waits,
        }
    }

    fn send_queue(&self, id: Id, queue: &DatagramQueue) -> (usize, DatagramSend) {
        match self.backend_for_request() {
            Ok(mut backend) => backend.send_datagrams(id, queue),
            Err(LoopWaits) => (0, DatagramSend::Waits),
        }
    }

    fn flush_when_awake(&self, id: Id) {
        self.when_awake(move |core| core.datagrams_can_be_sent(id));
    }

    fn flush_later(&self, id: Id) {
        self.later(id, |_, joint| joint.transport().state().retry());
    }

    fn tell_of_refusal(&self, id: Id) {
        self.at_end_of_turn(move |core| {
            if let Some(joint) = core.datagram_joint(id) {
                joint.tell_of_refusal();
            }
        });
    }

    fn receive(&self, id: Id, on: bool) {
        self.when_awake(move |core| {
            core.threads.wake_host();
            core.backend.borrow_mut().receive(id, on);
        });
    }

    fn connect(&self, id: Id, peer: Destination<'_>) -> io::Result<Address> {
        self.awake_backend()?.connect_datagrams(id, peer)
    }

    fn set_option(&self, id: Id, option: DatagramOption) -> io::Result<()> {
        self.awake_backend()?.set_datagram_option(id, option)
    }

    fn option(&self, id: Id, option: DatagramValue) -> io::Result<u32> {
        self.awake_backend()?.datagram_option(id, option)
    }

    fn interface_index(&self, name: &str) -> io::Result<u32> {
        self.awake_backend()?.interface_index(name)
    }

    fn stop(&self, id: Id) {
        let slot = self.slots.borrow_mut().remove(id);
        self.net.drop_batch(id);
        self.close_source(id, false, ());
        if let Some(Slot::Datagrams(joint)) = slot {
            self.at_end_of_turn(move |_| joint.stopped());
        }
    }
}
