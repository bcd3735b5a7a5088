//! One attempt of a client service to connect, and the connection that came of it.
//!
//! An attempt is over when both are true:
//! 1. it has its answer: the Deferred of the endpoint and of the preparation has fired;
//! 2. its connection is gone, or there was none.
//!
//! The protocol of the connection is wrapped, so that the service learns of its end by the drop of
//! the wrapper. That follows `connection_lost`, and comes for a discarded connection too, whose
//! `connection_lost` is not called. An attempt has one protocol at a time: a second one is refused.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::address::Address;
use crate::deferred::Canceller;
use crate::failure::{Failure, Result};
use crate::protocol::{BoxedFactory, Factory, Protocol, SharedFactory, forward_callbacks};
use crate::transport::Transport;

/// The client service that an attempt belongs to.
pub(super) trait AttemptOwner {
    /// The connection of `attempt` is gone.
    fn connection_gone(self: Rc<Self>, attempt: &Rc<Attempt>);
}

/// An attempt to connect.
#[derive(Default)]
pub(super) struct Attempt {
    /// The transport, from `connection_made` until the connection is gone.
    open: RefCell<Option<Transport>>,
    /// True while there is a protocol.
    has_protocol: Cell<bool>,
    is_preparing: Cell<bool>,
    is_answered: Cell<bool>,
    is_given_up: Cell<bool>,
    canceller: RefCell<Option<Canceller>>,
    /// The reason for which the connection was lost.
    reason: RefCell<Option<Failure>>,
}

impl Attempt {
    /// Returns `true` from `connection_made` until the connection is gone.
    pub(super) fn is_open(&self) -> bool {
        self.open.borrow().is_some()
    }

    /// Returns `true` if there is nothing left to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.is_answered.get() && !self.is_open()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.get()
    }

    pub(super) fn set_answered(&self) {
        self.is_answered.set(true);
    }

    pub(super) fn is_preparing(&self) -> bool {
        self.is_preparing.get()
    }

    pub(super) fn set_preparing(&self) {
        self.is_preparing.set(true);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }

    /// Returns the reason for which the connection was lost.
    pub(super) fn reason(&self) -> Option<Failure> {
        self.reason.borrow().clone()
    }

    /// Sets the handle that ends the attempt. An attempt that was given up meanwhile ends now.
    pub(super) fn set_canceller(&self, canceller: Canceller) {
        self.canceller.replace(Some(canceller));
        if self.is_given_up.get() {
            self.cancel();
        }
    }

    /// Gives up: closes the connection at once, and cancels everything that is under way.
    pub(super) fn give_up(&self) {
        self.is_given_up.set(true);
        self.abort();
        self.cancel();
    }

    /// Closes the connection at once, if there is one.
    pub(super) fn abort(&self) {
        if let Some(transport) = &*self.open.borrow() {
            transport.abort_connection();
        }
    }

    /// Closes the connection once all written bytes are sent, if there is one.
    pub(super) fn lose(&self) {
        if let Some(transport) = &*self.open.borrow() {
            transport.lose_connection();
        }
    }

    /// Cancels the Deferred that the attempt waits for. That may answer the attempt.
    pub(super) fn cancel(&self) {
        let canceller = self.canceller.take();
        if let Some(canceller) = canceller {
            canceller.cancel();
        }
    }
}

/// Builds the protocols of one attempt with the factory of the program.
pub(super) struct AttemptFactory<F> {
    factory: SharedFactory<F>,
    attempt: Rc<Attempt>,
    owner: Rc<dyn AttemptOwner>,
}

impl<F: Factory> AttemptFactory<F> {
    pub(super) fn boxed(
        factory: &SharedFactory<F>,
        attempt: &Rc<Attempt>,
        owner: Rc<dyn AttemptOwner>,
    ) -> BoxedFactory {
        BoxedFactory::new(Self { factory: factory.clone(), attempt: Rc::clone(attempt), owner })
    }
}

impl<F: Factory> Factory for AttemptFactory<F> {
    type Protocol = AttemptProtocol<F::Protocol>;

    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol> {
        if self.attempt.has_protocol.get() || self.attempt.is_given_up() {
            return None;
        }
        let inner = self.factory.build_protocol(peer)?;
        self.attempt.has_protocol.set(true);
        Some(AttemptProtocol { inner, attempt: Rc::clone(&self.attempt), owner: Some(Rc::clone(&self.owner)) })
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.factory.prepare_transport(transport)
    }

    fn do_start(&mut self) {
        self.factory.do_start();
    }

    fn do_stop(&mut self) {
        self.factory.do_stop();
    }
}

/// The protocol of an attempt. It wraps the one that the program's factory built.
pub(super) struct AttemptProtocol<P: Protocol> {
    inner: P,
    attempt: Rc<Attempt>,
    /// `None` once it was told of the end.
    owner: Option<Rc<dyn AttemptOwner>>,
}

impl<P: Protocol> Protocol for AttemptProtocol<P> {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.attempt.open.replace(Some(transport.clone()));
        let made = self.inner.connection_made(transport);
        if self.attempt.is_given_up() {
            transport.abort_connection();
        }
        made
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        self.attempt.reason.replace(Some(reason.clone()));
        self.inner.connection_lost(transport, reason);
    }

    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some(&mut self.inner)
    }

    fn protocol_name() -> &'static str {
        P::protocol_name()
    }

    forward_callbacks! { |self| self.inner;
        data_received, handshake_completed, file_descriptor_received, half_close, read_connection_lost, write_connection_lost,
        queue_limit_reached
    }
}

/// Tells the service after `connection_lost`, even if `connection_lost` panicked.
impl<P: Protocol> Drop for AttemptProtocol<P> {
    fn drop(&mut self) {
        self.attempt.has_protocol.set(false);
        let open = self.attempt.open.take();
        // A protocol whose connection was never made says nothing about the attempt.
        if let (Some(_), Some(owner)) = (open, self.owner.take()) {
            owner.connection_gone(&self.attempt);
        }
    }
}
