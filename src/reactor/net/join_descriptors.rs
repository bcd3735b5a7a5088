//! [`Core::join_descriptors`]: connections over pipes and terminals, for child processes and for
//! standard input and output.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::listener::PortCore;
use super::port::BacklogPolicy;
use crate::address::{Address, AddressPair};
use crate::error::{AdoptError, ConnectError, ListenError};
use crate::failure::Failure;
use crate::protocol::{BoxedFactory, Connection, ErasedJoint, Protocol};
use crate::reactor::backend::{PipeEnds, PortOptions};
use crate::reactor::{Core, Port, Reactor, Slot};
use crate::transport::id::Id;
use crate::transport::{QueueLimit, Transport};

impl Reactor {
    /// Joins `protocol` to descriptors that are not one socket: see [`Core::join_descriptors`].
    pub(crate) fn join_descriptors<P: Protocol>(
        &self,
        ends: PipeEnds,
        limit: Option<QueueLimit>,
        protocol: P,
    ) -> Result<Connection<P>, ConnectError> {
        self.0.join_descriptors(ends, limit, protocol)
    }
}

impl Core {
    /// Joins a protocol to the ends of pipes, or to a terminal. A missing end is a direction that
    /// has ended from the start, of which the protocol is not told. `connection_made` is called at
    /// the end of the turn, as for [`Reactor::adopt_stream`].
    ///
    /// | event | effect |
    /// |---|---|
    /// | the end of the input | that of a stream: `read_connection_lost`, or the loss of the connection |
    /// | the other side of a terminal is closed (`EIO`) | the same |
    /// | no reader of the output (`EPIPE`) | the loss of the connection, behind the bytes that are there |
    /// | `lose_write_connection` | the writing end is closed |
    /// | `lose_connection` without a reading end, or the end of a lone reading end | `Done` |
    ///
    /// There is no close timeout. The reader of a pipe may be slow, and it would take cut bytes for
    /// all of them: a pipe has no reset.
    ///
    /// While the loop waits, the descriptors are taken over when the wait has ended. An error of
    /// that is the reason of the connection's end.
    ///
    /// # Errors
    /// The descriptors are closed, and the protocol is dropped. [`ConnectError::Adopt`]: on a
    /// simulated network, `Unsupported`; otherwise the system's error.
    /// [`ConnectError::ReactorStopped`], [`ConnectError::ForkedChild`].
    pub(in crate::reactor) fn join_descriptors<P: Protocol>(
        &self,
        ends: PipeEnds,
        limit: Option<QueueLimit>,
        protocol: P,
    ) -> Result<Connection<P>, ConnectError> {
        self.join_ends(ends, limit, |transport| Ok(Connection::join(protocol, transport)))
    }

    /// Listens to one connection, which is there already. The port has no socket, and builds no
    /// other connection.
    ///
    /// # Errors
    /// The port cannot listen, the factory builds no protocol, or the descriptors are refused.
    pub(in crate::reactor) fn listen_once(
        self: &Rc<Self>,
        ends: PipeEnds,
        factory: BoxedFactory,
    ) -> Result<(Port, Transport), ListenError> {
        let port = Rc::new(PortCore::adopted(Address::Pipe, PortOptions::new(), factory));
        self.start_receiving(&port)?;
        let joined = self.join_ends(ends, None, |transport| match port.factory.build(transport) {
            Ok(Some(joint)) => Ok((joint.transport().clone(), joint)),
            Ok(None) => Err(ConnectError::NoProtocol { address: Address::Pipe }),
            Err(failure) => {
                Err(ConnectError::Other { address: Address::Pipe, source: io::Error::other(failure.to_string()) })
            }
        });
        match joined {
            Ok(transport) => {
                port.count_served();
                Ok((self.port_handle(port), transport))
            }
            Err(error) => {
                // The Deferred would tell of the stop, and there is no handle to ask for one.
                drop(self.stop_port(&port, BacklogPolicy::Refuse));
                Err(refusal(error))
            }
        }
    }

    /// Makes a transport over the ends, and joins what `join` returns for it.
    pub(in crate::reactor) fn join_ends<C, E: From<ConnectError>>(
        &self,
        ends: PipeEnds,
        limit: Option<QueueLimit>,
        join: impl FnOnce(Transport) -> Result<(C, Rc<dyn ErasedJoint>), E>,
    ) -> Result<C, E> {
        self.may_adopt()?;
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let transport = Transport::new(id, Rc::clone(&self.context), AddressPair::new(Address::Pipe, Address::Pipe));
        transport.begin_with_limit(limit);
        transport.stream().set_close_timeout(None);
        transport.stream().begin_unmade();
        if ends.read.is_none() {
            transport.stream().begin_read_all();
        }
        if ends.write.is_none() {
            transport.stream().begin_shut();
        }
        // The program builds its protocol, and is asked if that handles half-closes.
        let joined = catch_unwind(AssertUnwindSafe(|| join(transport)));
        let (connection, joint) = match joined {
            Ok(Ok(joined)) => joined,
            Ok(Err(error)) => {
                self.slots.borrow_mut().remove(id);
                return Err(error);
            }
            Err(panic) => {
                self.slots.borrow_mut().remove(id);
                resume_unwind(panic);
            }
        };
        let adopted = match self.backend_for_request() {
            Ok(mut backend) => backend.adopt_descriptors(id, ends),
            Err(_) => {
                self.when_awake(move |core| core.join_awake(id, ends));
                Ok(())
            }
        };
        if let Err(error) = adopted {
            self.slots.borrow_mut().remove(id);
            return Err(ConnectError::from(AdoptError::of_backend(error)).into());
        }
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Connected(Rc::clone(&joint));
        }
        joint.transport().mark_dirty();
        Ok(connection)
    }

    /// Takes over descriptors that were handed over while the loop waited.
    fn join_awake(&self, id: Id, ends: PipeEnds) {
        // The connection may have been discarded meanwhile. The descriptors are closed then.
        let Some(joint) = self.joint(id) else { return };
        let adopted = self.backend.borrow_mut().adopt_descriptors(id, ends);
        if let Err(error) = adopted {
            let reason = Failure::untraced(AdoptError::of_backend(error));
            joint.transport().update(|stream| stream.fail(reason));
        }
    }
}

/// Names the reason for which a port has no connection.
fn refusal(error: ConnectError) -> ListenError {
    match error {
        ConnectError::Adopt(error) => error.into(),
        ConnectError::ReactorStopped { .. } => ListenError::ReactorStopping,
        ConnectError::ForkedChild { .. } => ListenError::ForkedChild,
        error => ListenError::Bind { address: Address::Pipe, source: io::Error::other(error) },
    }
}
