//! [`Core::join_descriptors`]: connections over pipes and terminals, for child processes and for
//! standard input and output.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::address::{Address, AddressPair};
use crate::error::{AdoptError, ConnectError};
use crate::failure::Failure;
use crate::protocol::{Connection, Protocol};
use crate::reactor::backend::PipeEnds;
use crate::reactor::{Core, Reactor, Slot};
use crate::transport::id::Id;
use crate::transport::{QueueLimit, Transport};

impl Reactor {
    /// Joins `protocol` to descriptors that are not one socket: see [`Core::join_descriptors`].
    #[allow(dead_code, reason = "child processes and standard input and output use it")]
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
        self.may_adopt()?;
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let transport = Transport::new(id, Rc::clone(&self.context), AddressPair::new(Address::Pipe, Address::Pipe));
        transport.begin_with_limit(limit);
        transport.stream().begin_unmade();
        if ends.read.is_none() {
            transport.stream().begin_read_all();
        }
        if ends.write.is_none() {
            transport.stream().begin_shut();
        }
        // The program is asked if its protocol handles half-closes.
        let joined = catch_unwind(AssertUnwindSafe(|| Connection::join(protocol, transport)));
        let (connection, joint) = match joined {
            Ok(joined) => joined,
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
            return Err(AdoptError::of_backend(error).into());
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
