//! A protocol that records its callbacks, and its factory.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::failure::{Failure, Result};
use crate::protocol::{Factory, Protocol};
use crate::transport::Transport;

/// Records every callback, and does nothing else (Twisted: `AccumulatingProtocol`).
///
/// The test reads the [`record`](Self::record), which outlives the protocol.
///
/// ```
/// use ropewalk::testing::{AccumulatingProtocol, StringTransport};
///
/// let protocol = AccumulatingProtocol::new();
/// let record = protocol.record();
/// let connection = StringTransport::new().joined(protocol);
/// connection.deliver(b"hello ");
/// connection.deliver(b"there");
/// connection.end_of_stream();
///
/// assert_eq!(record.data(), b"hello there");
/// assert_eq!(record.reason().unwrap().to_string(), "the connection was closed cleanly");
/// ```
#[derive(Debug, Default)]
pub struct AccumulatingProtocol {
    record: Accumulated,
    half_close: bool,
}

impl AccumulatingProtocol {
    /// Creates a protocol with an empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opts in to half-closes: the peer's end of stream is recorded, and does not end the
    /// connection.
    pub fn with_half_close(mut self) -> Self {
        self.half_close = true;
        self
    }

    /// Returns a handle to the protocol's record.
    pub fn record(&self) -> Accumulated {
        self.record.clone()
    }
}

impl Protocol for AccumulatingProtocol {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let waiting = self.record.change(|record| {
            record.made += 1;
            record.transport = Some(transport.clone());
            std::mem::take(&mut record.wait_made)
        });
        fire(waiting, transport);
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.record.change(|record| {
            record.data.extend_from_slice(data);
            record.deliveries += 1;
        });
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
        let waiting = self.record.change(|record| {
            record.reason = Some(reason.clone());
            std::mem::take(&mut record.wait_lost)
        });
        fire(waiting, reason);
    }

    fn half_close(&self) -> bool {
        self.half_close
    }

    fn read_connection_lost(&mut self, _: &Transport) -> Result<()> {
        self.record.change(|record| record.read_lost = true);
        Ok(())
    }

    fn write_connection_lost(&mut self, _: &Transport) -> Result<()> {
        self.record.change(|record| record.write_lost = true);
        Ok(())
    }
}

/// The record of an [`AccumulatingProtocol`]. Clones are handles to the same record.
#[derive(Clone, Default)]
pub struct Accumulated(Rc<RefCell<Record>>);

#[derive(Default)]
struct Record {
    made: usize,
    transport: Option<Transport>,
    data: Vec<u8>,
    deliveries: usize,
    read_lost: bool,
    write_lost: bool,
    reason: Option<Failure>,
    wait_made: Vec<Promise<Transport>>,
    wait_lost: Vec<Promise<Failure>>,
}

impl Accumulated {
    /// Returns `true` if `connection_made` was called (Twisted: `made`).
    pub fn is_made(&self) -> bool {
        self.0.borrow().made > 0
    }

    /// Returns the transport, once `connection_made` was called (Twisted: `transport`).
    pub fn transport(&self) -> Option<Transport> {
        self.0.borrow().transport.clone()
    }

    /// Returns all received bytes (Twisted: `data`), except those already taken.
    pub fn data(&self) -> Vec<u8> {
        self.0.borrow().data.clone()
    }

    /// Takes the bytes received since the last call.
    pub fn take_data(&self) -> Vec<u8> {
        self.change(|record| std::mem::take(&mut record.data))
    }

    /// Returns the number of calls of `data_received`.
    pub fn deliveries(&self) -> usize {
        self.0.borrow().deliveries
    }

    /// Returns `true` if the peer's end of stream has arrived. Recorded only
    /// [with half-closes](AccumulatingProtocol::with_half_close).
    pub fn is_read_lost(&self) -> bool {
        self.0.borrow().read_lost
    }

    /// Returns `true` if this side's direction was shut. Recorded only
    /// [with half-closes](AccumulatingProtocol::with_half_close).
    pub fn is_write_lost(&self) -> bool {
        self.0.borrow().write_lost
    }

    /// Returns `true` if `connection_lost` was called (Twisted: `closed`).
    pub fn is_lost(&self) -> bool {
        self.0.borrow().reason.is_some()
    }

    /// Returns the reason for which the connection ended (Twisted: `closedReason`).
    pub fn reason(&self) -> Option<Failure> {
        self.0.borrow().reason.clone()
    }

    /// Fires with the transport when the connection is made, or at once if it already is (Twisted:
    /// the factory's `protocolConnectionMade`).
    pub fn when_made(&self) -> Deferred<Transport> {
        match self.transport() {
            Some(transport) => Deferred::succeed(transport),
            None => self.wait(|record| &mut record.wait_made),
        }
    }

    /// Fires with the reason when the connection has ended, or at once if it already has (Twisted:
    /// `closedDeferred`). The reason is the value of the Deferred, not its failure.
    ///
    /// ```
    /// use ropewalk::testing::{AccumulatingProtocol, StringTransport, assert_no_result, success_result_of};
    ///
    /// let protocol = AccumulatingProtocol::new();
    /// let mut lost = protocol.record().when_lost();
    /// let connection = StringTransport::new().joined(protocol);
    /// assert_no_result(&mut lost);
    /// connection.end_of_stream();
    /// success_result_of(&mut lost);
    /// ```
    pub fn when_lost(&self) -> Deferred<Failure> {
        match self.reason() {
            Some(reason) => Deferred::succeed(reason),
            None => self.wait(|record| &mut record.wait_lost),
        }
    }

    fn wait<T>(&self, place: impl FnOnce(&mut Record) -> &mut Vec<Promise<T>>) -> Deferred<T> {
        let (promise, deferred) = Promise::new();
        place(&mut self.0.borrow_mut()).push(promise);
        deferred
    }

    /// Changes the record. `call` must not call out, because the record is borrowed.
    fn change<R>(&self, call: impl FnOnce(&mut Record) -> R) -> R {
        call(&mut self.0.borrow_mut())
    }
}

impl fmt::Debug for Accumulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0.borrow();
        f.debug_struct("Accumulated")
            .field("made", &(record.made > 0))
            .field("data", &super::quote::excerpt(&record.data))
            .field("reason", &record.reason)
            .finish_non_exhaustive()
    }
}

/// Fires every promise. The callbacks may read the record.
fn fire<T: Clone>(waiting: Vec<Promise<T>>, value: &T) {
    for promise in waiting {
        // Fails if the Deferred was cancelled. Then nothing waits for the value.
        let _ = promise.callback(value.clone());
    }
}

/// Builds [`AccumulatingProtocol`]s and keeps their records (Twisted: a factory whose `protocol` is
/// `AccumulatingProtocol`).
///
/// Clones are handles to the same factory: the engine gets one, and the test keeps another.
///
/// ```
/// use ropewalk::testing::{AccumulatingFactory, AccumulatingProtocol, PumpOptions};
///
/// let server = AccumulatingFactory::new();
/// let pump = PumpOptions::new().connect_factories(AccumulatingFactory::new(), server.clone());
/// pump.client().transport().write(b"hello");
/// pump.flush();
/// assert_eq!(server.records()[0].data(), b"hello");
/// ```
#[derive(Debug, Clone, Default)]
pub struct AccumulatingFactory(Rc<Built>);

#[derive(Debug, Default)]
struct Built {
    half_close: bool,
    records: RefCell<Vec<Accumulated>>,
    starts: Cell<usize>,
    stops: Cell<usize>,
}

impl AccumulatingFactory {
    /// Creates a factory that has built no protocols.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a factory whose protocols opt in to half-closes.
    pub fn with_half_close() -> Self {
        Self(Rc::new(Built { half_close: true, ..Built::default() }))
    }

    /// Returns the records of the built protocols, in order.
    pub fn records(&self) -> Vec<Accumulated> {
        self.0.records.borrow().clone()
    }

    /// Returns the number of calls of `do_start`.
    pub fn starts(&self) -> usize {
        self.0.starts.get()
    }

    /// Returns the number of calls of `do_stop`.
    pub fn stops(&self) -> usize {
        self.0.stops.get()
    }
}

impl Factory for AccumulatingFactory {
    type Protocol = AccumulatingProtocol;

    fn build_protocol(&mut self, _: &Address) -> Option<AccumulatingProtocol> {
        let protocol = AccumulatingProtocol { half_close: self.0.half_close, ..AccumulatingProtocol::new() };
        self.0.records.borrow_mut().push(protocol.record());
        Some(protocol)
    }

    fn do_start(&mut self) {
        self.0.starts.set(self.0.starts.get() + 1);
    }

    fn do_stop(&mut self) {
        self.0.stops.set(self.0.stops.get() + 1);
    }
}
