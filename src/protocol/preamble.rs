//! A connection that begins with bytes of the engine's own, such as a PROXY header. Its protocol is
//! built when they are complete, with the addresses that they name.
//!
//! [`PreambleJoint`] stands in the place of the protocol's joint:
//!
//! | event | before the protocol is built | afterwards |
//! |---|---|---|
//! | bytes | are read by the [`Preamble`]; those behind it are the protocol's | go to the protocol's joint |
//! | a descriptor | is kept if bytes of the protocol arrive with it, and closed otherwise | goes to the protocol's joint |
//! | the end of the stream | closes; in the middle of the preamble it is a failure | goes to the protocol's joint |
//! | the time limit | is a failure | was cancelled |
//! | a failure | is logged, and ends the connection | |
//!
//! The protocol's joint is built, told of its connection and given the bytes in one go, as if all
//! of it had arrived together. No callback of a protocol is on the stack meanwhile. Until then the
//! factory is kept started: a port that stops serves the connections that it has accepted.

use std::any::TypeId;
use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::joint::RemoteCallback;
use super::{BoxedFactory, ErasedJoint, FactoryGuard, Protocol};
use crate::address::AddressPair;
use crate::deferred::{Canceller, Spawner};
use crate::error::Unavailable;
use crate::failure::{Failure, Panicked, Result, drop_guarded};
use crate::log::error;
use crate::time::{Clock, DelayedCall};
use crate::transport::Transport;
use crate::transport::step::Ending;

/// Reads the bytes in front of those of a protocol.
pub(crate) trait Preamble {
    /// Returns its name, for logs.
    fn name(&self) -> &'static str;

    /// Returns the time limit for it to arrive, from the start.
    fn timeout(&self) -> Option<Duration>;

    /// Returns the failure of a preamble that takes longer than `after`.
    fn is_late(&self, after: Duration) -> Failure;

    /// Reads bytes. An incomplete preamble takes all of them.
    fn read(&mut self, transport: &Transport, data: &[u8]) -> Result<PreambleRead>;

    /// Returns the failure of a stream that ends here, or `None` if nothing has arrived.
    fn cut(&self) -> Option<Failure>;
}

/// The result of reading bytes of a preamble.
pub(crate) enum PreambleRead {
    Incomplete,
    /// It is complete, and its last `taken` bytes are in this chunk. The connection has these
    /// addresses from now on.
    Complete {
        taken: usize,
        ends: AddressPair,
    },
}

/// The joint of a connection with a preamble.
pub(crate) struct PreambleJoint {
    transport: Transport,
    preamble: RefCell<Box<dyn Preamble>>,
    factory: BoxedFactory,
    /// The start of the factory, until the protocol is built or the connection is lost.
    started: Cell<Option<FactoryGuard>>,
    deadline: Cell<Option<DelayedCall>>,
    /// Descriptors that arrived before the chunk that completes the preamble.
    descriptors: RefCell<Vec<OwnedFd>>,
    /// The connection with the addresses of the preamble, once that is complete.
    readdressed: OnceCell<Transport>,
    /// The joint of the protocol, unless the factory has refused the connection.
    built: OnceCell<Rc<dyn ErasedJoint>>,
}

impl PreambleJoint {
    pub(super) fn new(
        preamble: Box<dyn Preamble>,
        transport: Transport,
        factory: BoxedFactory,
    ) -> Result<Self, Panicked> {
        factory.start()?;
        Ok(Self {
            transport,
            preamble: RefCell::new(preamble),
            started: Cell::new(Some(factory.started())),
            factory,
            deadline: Cell::default(),
            descriptors: RefCell::default(),
            readdressed: OnceCell::new(),
            built: OnceCell::new(),
        })
    }

    /// Reads bytes that arrived before the protocol is built. A closing connection drops them.
    #[inline(never)]
    fn read(&self, data: &[u8]) {
        // Nothing pauses yet. The policies count and log the bytes of the protocol, in its joint.
        if !self.transport().stream().delivers() {
            return;
        }
        let descriptors = self.descriptors.take();
        let read = self.preamble.borrow_mut().read(self.transport(), data);
        match read {
            // They came with bytes of the preamble, which has none.
            Ok(PreambleRead::Incomplete) => self.transport().note_taken(data),
            Ok(PreambleRead::Complete { taken, ends }) => {
                let (front, rest) = data.split_at(taken.min(data.len()));
                self.transport().note_taken(front);
                self.cancel_deadline();
                let transport = self.readdressed.get_or_init(|| self.transport.readdressed(ends));
                self.begin(transport, descriptors, rest);
                self.release_factory();
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Builds the protocol, and gives it the bytes behind the preamble.
    fn begin(&self, transport: &Transport, descriptors: Vec<OwnedFd>, rest: &[u8]) {
        let joint = match self.factory.build(transport.clone()) {
            Ok(Some(joint)) => self.built.get_or_init(|| joint),
            refused => {
                if let Err(failure) = refused {
                    error!(peer = %transport.peer(), %failure, "build_protocol failed; the connection is closed");
                }
                return transport.lose_connection();
            }
        };
        // A failure is already the connection's reason to end.
        let _ = joint.connection_made();
        if !rest.is_empty() {
            if !descriptors.is_empty() {
                joint.descriptors_received(descriptors);
            }
            joint.data_received(rest);
        }
    }

    fn fail(&self, failure: Failure) {
        self.cancel_deadline();
        log_failure(self.transport(), self.preamble.borrow().name(), &failure);
        self.transport().update(|stream| stream.fail(failure));
    }

    /// Takes back the start of the factory, which stops now if its port has stopped meanwhile.
    fn release_factory(&self) {
        if let Some(started) = self.started.take() {
            started.stop();
        }
    }

    fn cancel_deadline(&self) {
        if let Some(deadline) = self.deadline.take() {
            // This may be the call that runs now.
            let _ = deadline.cancel();
        }
    }
}

/// Logs the failure of a connection that has no protocol yet.
#[cold]
fn log_failure(transport: &Transport, place: &'static str, failure: &Failure) {
    error!(peer = %transport.peer(), %failure, "{place} failed; the connection ends");
}

impl ErasedJoint for PreambleJoint {
    fn transport(&self) -> &Transport {
        match self.built.get() {
            Some(joint) => joint.transport(),
            None => self.readdressed.get().unwrap_or(&self.transport),
        }
    }

    fn protocol_name(&self) -> &'static str {
        match self.built.get() {
            Some(joint) => joint.protocol_name(),
            None => self.preamble.borrow().name(),
        }
    }

    /// Arms the time limit. The protocol's own `connection_made` comes when it is built.
    fn connection_made(&self) -> Result<()> {
        let (timeout, name) = (self.preamble.borrow().timeout(), self.preamble.borrow().name());
        if let Some(after) = timeout {
            let (transport, late) = (self.transport.clone(), self.preamble.borrow().is_late(after));
            let deadline = self.transport.timers().call_later(after, move || {
                log_failure(&transport, name, &late);
                transport.update(|stream| stream.fail(late));
            });
            self.deadline.set(Some(deadline));
        }
        Ok(())
    }

    fn data_received(&self, data: &[u8]) {
        match self.built.get() {
            Some(joint) => joint.data_received(data),
            None => self.read(data),
        }
    }

    fn descriptors_received(&self, mut descriptors: Vec<OwnedFd>) {
        match self.built.get() {
            Some(joint) => joint.descriptors_received(descriptors),
            None => self.descriptors.borrow_mut().append(&mut descriptors),
        }
    }

    fn end_of_stream(&self) {
        if let Some(joint) = self.built.get() {
            return joint.end_of_stream();
        }
        let ending = self.preamble.borrow().cut().map_or(Ending::Clean, Ending::Cut);
        // Without a protocol that handles half-closes, the end closes the connection.
        let _ = self.transport().stream().ended(0, ending);
        self.transport().mark_dirty();
    }

    /// Nothing is held before the protocol is built: nothing pauses until then.
    fn deliver_held(&self) {
        if let Some(joint) = self.built.get() {
            joint.deliver_held();
        }
    }

    fn write_connection_lost(&self) {
        if let Some(joint) = self.built.get() {
            joint.write_connection_lost();
        }
    }

    fn tell_of_queue(&self) {
        if let Some(joint) = self.built.get() {
            return joint.tell_of_queue();
        }
        let is_unmade = self.transport().stream().take_unmade();
        if is_unmade {
            // It does not fail.
            let _ = self.connection_made();
        }
        self.transport().mark_dirty();
    }

    fn deadline_passed(&self) {
        match self.built.get() {
            Some(joint) => joint.deadline_passed(),
            // No layer is there yet whose handshake could be late.
            None => self.transport().update(|stream| drop(stream.deadline_passed())),
        }
    }

    fn callback_failed(&self, callback: &'static str, failure: Failure) {
        match self.built.get() {
            Some(joint) => joint.callback_failed(callback, failure),
            None => {
                log_failure(self.transport(), callback, &failure);
                self.transport().update(|stream| stream.callback_failed(failure));
            }
        }
    }

    fn connection_lost(&self, reason: &Failure) {
        self.cancel_deadline();
        self.descriptors.take();
        match self.built.get() {
            Some(joint) => joint.connection_lost(reason),
            None => {
                let (peer, place) = (self.transport().peer(), self.preamble.borrow().name());
                tracing::debug!(%peer, %reason, "a connection was lost before {place} was complete");
            }
        }
        self.release_factory();
    }

    fn discard(self: Rc<Self>) {
        self.cancel_deadline();
        if let Some(joint) = self.built.get() {
            return Rc::clone(joint).discard();
        }
        // No program has a handle yet, so no future waits for the queue.
        let (_, rest) = self.transport().stream().discard();
        drop_guarded("the state of a connection", rest);
        self.release_factory();
    }

    fn protocol_type(&self) -> TypeId {
        self.built.get().map_or(TypeId::of::<Self>(), |joint| joint.protocol_type())
    }

    /// No program has a handle before the protocol is built.
    fn bind(&self, spawner: &Spawner, canceller: Canceller) {
        if let Some(joint) = self.built.get() {
            joint.bind(spawner, canceller);
        }
    }

    fn is_busy(&self) -> bool {
        self.built.get().is_some_and(|joint| joint.is_busy())
    }

    fn reach(&self, call: &mut dyn FnMut(&mut dyn Protocol, &Transport)) -> Result<(), Unavailable> {
        self.built.get().ok_or(Unavailable::Gone)?.reach(call)
    }

    fn call_from_thread(&self, call: &mut RemoteCallback<'_>) -> Result<(), Unavailable> {
        self.built.get().ok_or(Unavailable::Gone)?.call_from_thread(call)
    }
}
