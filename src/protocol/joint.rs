//! The joint between a protocol and its transport.
//!
//! Only this file turns the events of a stream into calls of a [`Protocol`]. These rules make
//! "`data_received` after `connection_lost`" and "`connection_lost` twice" impossible:
//!
//! 1. the protocol is called only while the joint holds it;
//! 2. `connection_lost` takes it out of the joint for good;
//! 3. each call is guarded: an `Err` or a panic is logged, and becomes the reason of the
//!    connection's end
//!    ([`Stream::callback_failed`](crate::transport::stream::Stream::callback_failed));
//! 4. a protocol whose connection is discarded is dropped as soon as no call of it is under way,
//!    and before any other could begin;
//! 5. no borrow of the stream is held during a call, and no borrow of the protocol outside of one.

use std::any::TypeId;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;

use super::Protocol;
use super::bound::BoundFutures;
use crate::deferred::{Canceller, Spawner};
use crate::error::{ConnectionClosed, Unavailable};
use crate::failure::{Failure, Panicked, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;
use crate::transport::observer::Callback;
use crate::transport::step::{Delivery, EndNotice, Ending};
use crate::transport::{Notice, Producer, Transport};

/// A joint with any type of protocol, as the reactor drives it.
pub(crate) trait ErasedJoint {
    fn transport(&self) -> &Transport;
    /// Makes the first call. Its failure goes to the caller of `connect`.
    fn connection_made(&self) -> Result<()>;
    /// Delivers received bytes.
    fn data_received(&self, data: &[u8]);
    /// Delivers received descriptors, before the bytes that they were sent with.
    fn descriptors_received(&self, descriptors: Vec<OwnedFd>);
    /// Handles the peer's end of stream.
    fn end_of_stream(&self);
    /// Delivers the bytes that were held while reading was paused.
    fn deliver_held(&self);
    /// Reports that the write direction was shut.
    fn write_connection_lost(&self);
    /// Makes the first call for a connection that was handed over. Otherwise reports that the
    /// transport's queue is above its limit, or that the producer is to pause or to resume.
    fn tell_of_queue(&self);
    /// Handles a deadline of the stream that has passed.
    fn deadline_passed(&self);
    /// Ends the connection with the failure of a callback, and logs it, because the protocol may
    /// not.
    fn callback_failed(&self, callback: &'static str, failure: Failure);
    /// Makes the last call, and drops the protocol.
    fn connection_lost(&self, reason: &Failure);
    /// Drops the protocol without another call: now, or when the call that is under way returns.
    fn discard(self: Rc<Self>);
    /// Returns the type of the protocol that the factory built.
    fn protocol_type(&self) -> TypeId;
    /// Returns the name of that type.
    fn protocol_name(&self) -> &'static str;
    /// Binds a future to the connection: it is cancelled before the last call of the protocol.
    fn bind(&self, spawner: &Spawner, canceller: Canceller);
    /// Returns `true` while a call of the protocol is on the stack.
    fn is_busy(&self) -> bool;
    /// Calls `call` with the protocol.
    fn reach(&self, call: &mut dyn FnMut(&mut dyn Protocol, &Transport)) -> Result<(), Unavailable>;
    /// Makes a call that another thread has sent, guarded as a callback: its failure ends the
    /// connection. A connection that ends with a failure already takes no more calls.
    fn call_from_thread(&self, call: &mut RemoteCallback<'_>) -> Result<(), Unavailable>;
}

/// A call from another thread, with the type of the protocol erased.
pub(crate) type RemoteCallback<'a> = dyn FnMut(&mut dyn Protocol, &Transport) -> Result<()> + 'a;

/// A protocol joined to its transport.
pub(crate) struct Joint<P> {
    transport: Transport,
    protocol: RefCell<Option<P>>,
    bound: BoundFutures,
}

impl<P> Drop for Joint<P> {
    /// A protocol is left only if its connection was never made.
    fn drop(&mut self) {
        drop_guarded("a protocol", self.protocol.get_mut().take());
        self.bound.free();
    }
}

impl<P: Protocol> Joint<P> {
    pub(crate) fn new(protocol: P, transport: Transport) -> Self {
        transport.stream().set_half_close(protocol.half_close());
        Self { transport, protocol: RefCell::new(Some(protocol)), bound: BoundFutures::default() }
    }

    /// Calls the protocol, unless `connection_lost` has taken it. A failure closes the connection.
    #[inline(always)]
    fn call(&self, call: Callback<'_>, callback: impl FnOnce(&mut P, &Transport) -> Result<()>) -> Result<()> {
        let mut place = self.protocol.borrow_mut();
        let Some(protocol) = place.as_mut() else { return Ok(()) };
        let result = self.transport.observed(call, || guarded_result(|| callback(protocol, &self.transport)));
        drop(place);
        if let Err(failure) = &result {
            self.callback_failed(call.name(), failure.clone());
        }
        self.transport.make_waiting_calls();
        result
    }

    /// Logs the failure of a connection, once, where the failure enters.
    fn log_failure(&self, place: &'static str, failure: &Failure) {
        log_failure(&self.transport, P::protocol_name(), place, failure);
    }

    /// Wakes a future that waits for the queue. Wakers of other crates may do anything.
    fn wake(&self, waiter: Option<Waker>) {
        if let Some(waker) = waiter
            && let Err(panic) = guarded(|| waker.wake())
        {
            log_panic(&self.transport, "a waker", &panic);
        }
    }

    /// Handles bytes that have passed `level` layers. They go to the protocol, or to the next
    /// layer, or the stream keeps them.
    #[inline(always)]
    fn arrived(&self, level: usize, data: &[u8]) {
        let delivery = self.transport.stream().received(level, data);
        self.deliver(level, data, delivery);
    }

    #[inline(always)]
    fn deliver(&self, level: usize, data: &[u8], delivery: Delivery) {
        match delivery {
            Delivery::Deliver => {
                self.tell(Callback::Data(data), |protocol, transport| protocol.data_received(transport, data))
            }
            Delivery::DeliverLogged => {
                self.transport.log_received(data);
                self.tell(Callback::Data(data), |protocol, transport| protocol.data_received(transport, data));
            }
            Delivery::Kept => {}
            Delivery::Sealed => self.open(level, data),
        }
    }

    /// Passes sealed bytes through the layer at `level`. A callback may put another layer above it,
    /// which the bytes that follow belong to.
    #[inline(never)]
    fn open(&self, level: usize, data: &[u8]) {
        let opened = self.transport.open(level, data);
        let above = level + 1;
        if opened.completed && self.transport.stream().is_top(above) {
            self.tell(Callback::HandshakeCompleted, P::handshake_completed);
        }
        if !opened.plain.is_empty() {
            self.arrived(above, &opened.plain);
        }
        self.transport.give_back(opened.plain);
        if opened.ended {
            self.ended(above, Ending::Clean);
        }
        if let Some(failure) = opened.failure {
            self.log_failure("TLS", &failure);
            self.transport.update(|stream| stream.fail(failure));
        }
    }

    /// Handles the end of the peer's direction, as seen above `level` layers.
    fn ended(&self, level: usize, ending: Ending) {
        let notice = self.transport.stream().ended(level, ending);
        if notice == EndNotice::Tell {
            self.tell(Callback::ReadLost, P::read_connection_lost);
        }
        self.transport.mark_dirty();
    }

    fn drop_protocol(&self) {
        let protocol = self.protocol.borrow_mut().take();
        drop_guarded("a protocol", protocol);
    }

    /// Calls the protocol for an event whose failure concerns this connection only.
    #[inline(always)]
    fn tell(&self, call: Callback<'_>, callback: impl FnOnce(&mut P, &Transport) -> Result<()>) {
        // `call` has already made the failure the reason for the connection's end.
        let _ = self.call(call, callback);
    }
}

impl<P: Protocol> ErasedJoint for Joint<P> {
    fn transport(&self) -> &Transport {
        &self.transport
    }

    fn connection_made(&self) -> Result<()> {
        self.call(Callback::Made, P::connection_made)
    }

    fn data_received(&self, data: &[u8]) {
        let delivery = self.transport.arrived(data);
        self.deliver(0, data, delivery);
    }

    fn descriptors_received(&self, descriptors: Vec<OwnedFd>) {
        // A pause does not hold descriptors back. It holds the bytes back, and a descriptor may
        // come before its bytes. Descriptors are dropped on a closing connection, and on a layered
        // one: a layer vouches for bytes only.
        for descriptor in descriptors {
            let is_delivered = {
                let stream = self.transport.stream();
                stream.delivers() && !stream.is_layered()
            };
            if is_delivered {
                self.tell(Callback::Descriptor, |protocol, transport| {
                    protocol.file_descriptor_received(transport, descriptor)
                });
            }
        }
    }

    fn end_of_stream(&self) {
        self.ended(0, Ending::Clean);
    }

    fn deliver_held(&self) {
        let held = self.transport.stream().take_held();
        let Some(held) = held else { return };
        if !held.data().is_empty() {
            self.arrived(held.level, held.data());
        }
        let level = held.level;
        let end = self.transport.stream().settle_lent(held);
        if let Some(ending) = end {
            self.ended(level, ending);
        }
        self.transport.mark_dirty();
    }

    fn write_connection_lost(&self) {
        self.tell(Callback::WriteLost, P::write_connection_lost);
    }

    fn tell_of_queue(&self) {
        let is_unmade = self.transport.stream().take_unmade();
        if is_unmade {
            self.tell(Callback::Made, P::connection_made);
            return self.transport.mark_dirty();
        }
        let is_over_limit = self.transport.stream().take_limit_notice();
        if is_over_limit {
            self.tell(Callback::QueueLimit, P::queue_limit_reached);
        }
        let told = self.transport.stream().take_producer();
        if let Some((mut producer, notice)) = told {
            let result = guarded_result(|| match notice {
                Notice::Pause => producer.pause_producing(&self.transport),
                Notice::Resume => producer.resume_producing(&self.transport),
            });
            let unregistered = self.transport.stream().put_back(producer);
            if let Err(failure) = dropped(unregistered).and(result) {
                self.callback_failed("a producer", failure);
            }
        }
        let drained = self.transport.stream().take_drained();
        self.wake(drained);
        self.transport.mark_dirty();
    }

    fn deadline_passed(&self) {
        let mut late = None;
        self.transport.update(|stream| late = stream.deadline_passed());
        if let Some(failure) = late {
            self.log_failure("TLS", &failure);
        }
    }

    #[cold]
    fn callback_failed(&self, callback: &'static str, failure: Failure) {
        self.log_failure(callback, &failure);
        self.transport.update(|stream| stream.callback_failed(failure));
    }

    fn connection_lost(&self, reason: &Failure) {
        match reason.check() {
            None | Some(ConnectionClosed::Done) => {}
            Some(end) => log_end(&self.transport, P::protocol_name(), end, reason),
        }
        let producer = self.transport.stream().unregister();
        if let Some(producer) = producer {
            stop_producer(&self.transport, producer);
        }
        let waiter = self.transport.stream().take_drain_waiter();
        self.wake(waiter);
        self.bound.cancel();
        let protocol = self.protocol.borrow_mut().take();
        let Some(mut protocol) = protocol else { return };
        let lose = || guarded(|| protocol.connection_lost(&self.transport, reason));
        let told = self.transport.observed(Callback::Lost, lose);
        // The drop is guarded separately from the call: a drop that panics while a panic unwinds
        // would abort the process.
        let dropped = guarded(move || drop(protocol));
        for panic in [told, dropped].into_iter().filter_map(Result::err) {
            log_panic(&self.transport, "connection_lost", &panic);
        }
        self.transport.make_waiting_calls();
    }

    fn discard(self: Rc<Self>) {
        let (waiter, rest) = self.transport.stream().discard();
        drop_guarded("a producer or a layer", rest);
        self.wake(waiter);
        self.bound.cancel_later();
        if self.is_busy() {
            // The call under way makes the waiting calls as soon as it has returned.
            let joint = Rc::clone(&self);
            self.transport.wait(move || joint.drop_protocol());
        } else {
            self.drop_protocol();
        }
    }

    fn protocol_type(&self) -> TypeId {
        TypeId::of::<P>()
    }

    fn protocol_name(&self) -> &'static str {
        P::protocol_name()
    }

    fn bind(&self, spawner: &Spawner, canceller: Canceller) {
        self.bound.add(spawner, canceller);
    }

    fn is_busy(&self) -> bool {
        self.protocol.try_borrow().is_err()
    }

    fn reach(&self, call: &mut dyn FnMut(&mut dyn Protocol, &Transport)) -> Result<(), Unavailable> {
        let mut place = self.protocol.try_borrow_mut().map_err(|_| Unavailable::Busy)?;
        call(place.as_mut().ok_or(Unavailable::Gone)?, &self.transport);
        Ok(())
    }

    fn call_from_thread(&self, call: &mut RemoteCallback<'_>) -> Result<(), Unavailable> {
        let is_there = self.protocol.try_borrow().map_err(|_| Unavailable::Busy)?.is_some();
        if !is_there || self.transport.stream().is_failing() {
            return Err(Unavailable::Gone);
        }
        self.tell(Callback::Remote, |protocol, transport| call(protocol, transport));
        Ok(())
    }
}

// The functions below don't depend on the type of the protocol, and are compiled once.

#[cold]
fn log_failure(transport: &Transport, protocol: &'static str, place: &'static str, failure: &Failure) {
    error!(
        peer = %transport.peer(),
        protocol,
        %failure,
        backtrace = failure.backtrace().map(tracing::field::display),
        "{place} failed; the connection ends"
    );
}

#[cold]
fn log_panic(transport: &Transport, callback: &'static str, panic: &Panicked) {
    error!(peer = %transport.peer(), %panic, "{callback} failed");
}

/// Logs the end of a connection that is not an orderly one.
#[cold]
fn log_end(transport: &Transport, protocol: &'static str, end: &ConnectionClosed, reason: &Failure) {
    match end {
        ConnectionClosed::QueueLimit { .. } => {
            let peer = transport.peer();
            tracing::warn!(%peer, protocol, failure = %reason, "too much is queued for a peer; the connection is aborted");
        }
        _ => tracing::debug!(peer = %transport.peer(), protocol, %reason, "a connection was lost"),
    }
}

/// Stops and drops the producer of a connection that has ended.
#[cold]
fn stop_producer(transport: &Transport, mut producer: Box<dyn Producer>) {
    let told = guarded(|| producer.stop_producing(transport)).map_err(Failure::from);
    if let Err(failure) = told.and(dropped(Some(producer))) {
        error!(peer = %transport.peer(), %failure, "stop_producing failed");
    }
}

/// Drops a value of the program. A panic becomes a failure.
fn dropped<T>(value: T) -> Result<()> {
    Ok(guarded(|| drop(value))?)
}
