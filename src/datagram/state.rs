//! [`DatagramState`]: the state of one datagram port, without I/O: its life, its peer, its queue.
//!
//! | state | [`write`](DatagramState::write) | leads to | by |
//! |---|---|---|---|
//! | listening, the queue is empty | goes to the socket | listening with a queue | a full socket |
//! | listening with a queue | is queued, or refused at the limit | the first state | [`flush`](DatagramState::flush) |
//! | stopping | fails | stopped | the end of the turn |
//! | stopped | fails | | |
//!
//! While there is a queue, a call of `flush` is due: the socket reports room, a timer runs, or the
//! wait of the loop ends. So datagrams leave in the order of their writes, and none is forgotten.
//!
//! A UNIX socket also has a queue for each full receiver (`lanes.rs`), to which the table applies
//! alike. The system reports the room of the peer of a connected socket alone, so a timer runs for
//! the others. A receiver that is gone loses its queue. A connected socket loses its peer with that
//! peer's socket, and is connected again by the next write, since another may have the name.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::rc::{Rc, Weak};

use super::driver::{DatagramDriver, DatagramSend, Destination};
use super::ends::{Ends, Reach, most_bytes};
use super::lanes::DatagramLanes;
use super::queue::DatagramQueue;
use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::error::{DatagramError, ListenError};
use crate::failure::Result;
use crate::transport::id::Id;

/// Times that a send is repeated that reports the refusal of an earlier datagram. A call reports
/// one refusal; a second may come in between.
const REFUSALS: usize = 4;

/// Full receivers that one call of `flush` tries. 64: so many refusals cost some tens of
/// microseconds. The others have their turn at the next call.
const RECEIVERS_PER_FLUSH: usize = 64;

/// See the module.
pub(crate) struct DatagramState {
    pub(super) driver: Weak<dyn DatagramDriver>,
    id: Id,
    ends: Ends,
    /// Bytes that are taken of one datagram.
    max_packet: usize,
    life: RefCell<Life>,
    lanes: RefCell<DatagramLanes>,
    /// A timer runs that calls `retry`.
    is_retry_due: Cell<bool>,
    is_paused: Cell<bool>,
    /// The system may hand several datagrams over as one.
    coalesces: bool,
    /// Writes of callbacks are collected ([`UdpOptions::collect_writes`](super::UdpOptions)).
    collects: bool,
    /// The reactor, while such a callback may run.
    collecting: RefCell<Option<Rc<dyn DatagramDriver>>>,
    /// A call of `connection_refused` is due.
    is_refused: Cell<bool>,
    counts: Cell<DatagramCounts>,
}

/// The stages of a port.
enum Life {
    Listening,
    /// The socket is closed. `stop_protocol` and these Deferreds are still to come.
    Stopping(Vec<Promise<()>>),
    Stopped,
}

/// The end of a call that sends one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    Empty,
    /// The socket or the receiver is full.
    Full,
    /// The system or the loop takes nothing at present. Another call is due.
    Later,
}

/// Numbers of a datagram port, from its start on. From
/// [`DatagramTransport::counts`](crate::DatagramTransport::counts).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Datagrams that were received, the truncated ones included.
    pub received: u64,
    /// Datagrams that were received and longer than the port takes.
    pub truncated: u64,
    /// Datagrams that the system took.
    pub sent: u64,
    /// Datagrams that were dropped because the queue was full.
    pub queue_full: u64,
    /// Datagrams that were accepted into the queue, and that the system refused later.
    pub failed: u64,
}

/// The settings of a port that its socket does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatagramLimits {
    /// Bytes that are taken of one datagram.
    pub(crate) max_packet: usize,
    /// Bytes that may be queued.
    pub(crate) queue: usize,
    /// The system may hand several datagrams over as one.
    pub(crate) coalesces: bool,
    /// Writes of callbacks are collected.
    pub(crate) collects: bool,
}

impl DatagramState {
    pub(crate) fn new(
        driver: Weak<dyn DatagramDriver>,
        id: Id,
        host: Address,
        reach: Reach,
        limits: DatagramLimits,
    ) -> Self {
        Self {
            driver,
            id,
            ends: Ends::new(host, reach),
            max_packet: limits.max_packet,
            life: RefCell::new(Life::Listening),
            lanes: RefCell::new(DatagramLanes::new(limits.queue)),
            is_retry_due: Cell::new(false),
            is_paused: Cell::new(false),
            coalesces: limits.coalesces,
            collects: limits.collects,
            collecting: RefCell::default(),
            is_refused: Cell::new(false),
            counts: Cell::default(),
        }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }

    pub(crate) fn has_peer(&self) -> bool {
        self.ends.peer().is_some()
    }

    pub(super) fn max_packet(&self) -> usize {
        self.max_packet
    }

    pub(crate) fn coalesces(&self) -> bool {
        self.coalesces
    }

    pub(super) fn counts(&self) -> DatagramCounts {
        self.counts.get()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut DatagramCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(&*self.life.borrow(), Life::Listening)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.get()
    }

    /// Returns the reactor, while this process may use the port.
    #[inline]
    pub(super) fn driver(&self) -> Result<Rc<dyn DatagramDriver>, DatagramError> {
        let driver = self.driver.upgrade().filter(|driver| self.is_listening() && driver.is_usable());
        driver.ok_or(DatagramError::NotListening)
    }

    /// Sends a datagram, or queues it: to collect it, or behind others. `None` sends to the peer.
    #[inline]
    pub(super) fn write(&self, data: &[u8], to: Option<&Address>) -> Result<(), DatagramError> {
        if self.is_collecting() && self.collect(data, to)? { Ok(()) } else { self.write_through(data, to) }
    }

    fn write_through(&self, data: &[u8], to: Option<&Address>) -> Result<(), DatagramError> {
        let driver = self.driver()?;
        let (to, named) = self.destination(data, to)?;
        if self.lanes.borrow().holds(to) {
            return self.push(data, to);
        }
        match self.send(&*driver, data, to) {
            DatagramSend::Sent => self.count(|counts| counts.sent += 1),
            DatagramSend::Full => {
                self.push(data, to)?;
                if let Destination::Unix(_) = to {
                    self.retry_later(&*driver);
                }
            }
            DatagramSend::Starved => {
                self.push(data, to)?;
                self.retry_later(&*driver);
            }
            DatagramSend::Waits => {
                self.push(data, to)?;
                driver.flush_when_awake(self.id);
            }
            DatagramSend::TooLong => {
                return Err(DatagramError::MessageTooLong { to: named.clone(), length: data.len() });
            }
            DatagramSend::Refused => {
                return Err(DatagramError::Send { to: named.clone(), source: io::ErrorKind::ConnectionRefused.into() });
            }
            DatagramSend::Failed(source) => return Err(DatagramError::Send { to: named.clone(), source }),
        }
        Ok(())
    }

    /// Returns the destination of a datagram, and the address that errors name.
    #[inline]
    fn destination<'a>(
        &'a self,
        data: &[u8],
        to: Option<&'a Address>,
    ) -> Result<(Destination<'a>, &'a Address), DatagramError> {
        let (to, named) = self.ends.destination(to)?;
        if data.len() > most_bytes(named) {
            return Err(DatagramError::MessageTooLong { to: named.clone(), length: data.len() });
        }
        Ok((to, named))
    }

    /// Starts or ends collecting writes, if the port is to. The end sends what was collected. A
    /// queue that waits already is not sent by this: its flush is due.
    pub(crate) fn set_collecting(&self, on: bool) {
        let collects = on && self.collects && self.lanes.borrow().is_shared_empty();
        let driver = if collects { self.driver().ok() } else { None };
        if self.collecting.replace(driver).is_some() && !on {
            self.flush();
        }
    }

    /// Sends what was collected, and goes on collecting.
    pub(crate) fn send_collected(&self) {
        if self.collecting.borrow().is_some() {
            self.set_collecting(false);
            self.set_collecting(true);
        }
    }

    /// Returns `true` if writes are collected. A child that a callback has forked collects none.
    #[inline]
    fn is_collecting(&self) -> bool {
        self.collecting.borrow().as_ref().is_some_and(|driver| driver.is_usable())
    }

    /// Collects a datagram. Returns `false` if the queue has no room for it: it is to be sent at
    /// once, or behind a queue that waits since this call.
    #[inline]
    fn collect(&self, data: &[u8], to: Option<&Address>) -> Result<bool, DatagramError> {
        let (to, _) = self.destination(data, to)?;
        Ok(self.lanes.borrow_mut().push(data, to) || self.collect_again(data, to))
    }

    /// Sends what was collected, and collects a datagram that had no room before.
    #[cold]
    fn collect_again(&self, data: &[u8], to: Destination<'_>) -> bool {
        self.flush();
        let mut lanes = self.lanes.borrow_mut();
        if !lanes.is_shared_empty() {
            self.collecting.take();
            return false;
        }
        lanes.push(data, to)
    }

    /// Passes a datagram to the socket, again if the call has reported another one.
    fn send(&self, driver: &dyn DatagramDriver, data: &[u8], to: Destination<'_>) -> DatagramSend {
        for _ in 0..REFUSALS {
            match driver.send(self.id, data, to) {
                DatagramSend::Refused => {
                    if let Err(error) = self.refused(driver, to) {
                        return DatagramSend::Failed(error);
                    }
                }
                result => return result,
            }
        }
        DatagramSend::Refused
    }

    /// Handles a refusal. An error means that a repeated send would be refused too.
    fn refused(&self, driver: &dyn DatagramDriver, to: Destination<'_>) -> io::Result<()> {
        let connected = match (to, self.ends.peer()) {
            (Destination::Unix(_), _) => return Err(io::ErrorKind::ConnectionRefused.into()),
            (_, Some(Address::Unix(peer))) => driver.connect(self.id, Destination::Unix(peer)).map(drop),
            _ => {
                self.note_refusal(driver);
                return Ok(());
            }
        };
        if connected.is_err() {
            self.note_refusal(driver);
        }
        connected
    }

    fn push(&self, data: &[u8], to: Destination<'_>) -> Result<(), DatagramError> {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.push(data, to) {
            return Ok(());
        }
        self.count(|counts| counts.queue_full += 1);
        Err(DatagramError::QueueFull { queued: lanes.size(), limit: lanes.limit() })
    }

    /// Has [`retry`](Self::retry) called once after a while.
    fn retry_later(&self, driver: &dyn DatagramDriver) {
        if !self.is_retry_due.replace(true) {
            driver.flush_later(self.id);
        }
    }

    /// Sends the queues, because a timer is over.
    pub(crate) fn retry(&self) {
        self.is_retry_due.set(false);
        self.flush();
    }

    /// Sends the queues, until they are empty or the socket is full. The limit of the queues is the
    /// bound on the work of one call.
    pub(crate) fn flush(&self) {
        let Ok(driver) = self.driver() else { return };
        let mut lanes = self.lanes.borrow_mut();
        if self.flush_lane(&*driver, lanes.shared()) == Flushed::Later {
            return;
        }
        for _ in 0..lanes.receivers().min(RECEIVERS_PER_FLUSH) {
            let Some(mut lane) = lanes.take_next() else { break };
            let flushed = self.flush_lane(&*driver, &mut lane);
            lanes.put_back(lane);
            if flushed == Flushed::Later {
                return;
            }
        }
        if lanes.receivers() > 0 {
            self.retry_later(&*driver);
        }
    }

    /// Sends one queue.
    fn flush_lane(&self, driver: &dyn DatagramDriver, queue: &mut DatagramQueue) -> Flushed {
        while !queue.is_empty() {
            let (taken, result) = driver.send_queue(self.id, queue);
            queue.remove(taken);
            self.count(|counts| counts.sent += taken as u64);
            match result {
                // The rest of the queue is another batch.
                DatagramSend::Sent => {}
                DatagramSend::Full => return Flushed::Full,
                DatagramSend::Starved => {
                    self.retry_later(driver);
                    return Flushed::Later;
                }
                DatagramSend::Waits => {
                    driver.flush_when_awake(self.id);
                    return Flushed::Later;
                }
                DatagramSend::Refused => {
                    if let Err(error) = self.refused(driver, queue.receiver()) {
                        self.drop_queued(queue, queue.len(), error);
                    }
                }
                DatagramSend::TooLong => self.drop_queued(queue, 1, "it is too long"),
                DatagramSend::Failed(error) => {
                    // A receiver that is gone, or not accessible, takes none of them.
                    let is_to_one = matches!(queue.receiver(), Destination::Unix(_));
                    self.drop_queued(queue, if is_to_one { queue.len() } else { 1 }, error);
                }
            }
        }
        Flushed::Empty
    }

    /// Drops queued datagrams that the system does not take. Their writes have returned long ago.
    fn drop_queued(&self, queue: &mut DatagramQueue, count: usize, reason: impl fmt::Display) {
        let is_first = self.counts().failed == 0;
        queue.remove(count);
        self.count(|counts| counts.failed += count as u64);
        if is_first {
            let host = self.ends.host();
            tracing::warn!(%host, count, "a queued datagram is dropped: {reason}; later ones are counted");
        }
    }

    /// Records that the peer has refused a datagram. The protocol is told at the end of the turn,
    /// because this may be inside a call of it.
    fn note_refusal(&self, driver: &dyn DatagramDriver) {
        // A socket without a peer may send to many, and one of them is no news about the others.
        if self.has_peer() && !self.is_refused.replace(true) {
            driver.tell_of_refusal(self.id);
        }
    }

    /// Takes the refusal that the protocol is to be told of.
    pub(super) fn take_refusal(&self) -> bool {
        self.is_refused.take()
    }

    /// Gives the port a peer.
    pub(super) fn connect(&self, peer: &Address) -> Result<(), DatagramError> {
        let driver = self.driver()?;
        if let Some(peer) = self.ends.peer() {
            return Err(DatagramError::AlreadyConnected { peer: peer.clone() });
        }
        let connected = driver.connect(self.id, self.ends.reachable(peer)?);
        let host = connected.map_err(|source| DatagramError::Connect { peer: peer.clone(), source })?;
        self.ends.set_peer(peer.clone(), host);
        Ok(())
    }

    /// Stops or resumes the delivery of datagrams.
    pub(super) fn set_paused(&self, is_paused: bool) {
        if let Ok(driver) = self.driver()
            && self.is_paused.replace(is_paused) != is_paused
        {
            driver.receive(self.id, !is_paused);
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.lanes.borrow().size()
    }

    pub(super) fn set_queue_limit(&self, limit: usize) {
        self.lanes.borrow_mut().set_limit(limit);
    }

    /// Stops the port. The Deferred fires when the protocol has stopped.
    pub(super) fn stop(&self) -> Deferred<()> {
        let Some(driver) = self.driver.upgrade() else { return Deferred::succeed(()) };
        if !driver.is_usable() {
            return Deferred::fail(ListenError::ForkedChild);
        }
        let (promise, stopped) = Promise::new();
        let mut life = self.life.borrow_mut();
        match &mut *life {
            Life::Stopped => return Deferred::succeed(()),
            Life::Stopping(promises) => {
                promises.push(promise);
                return stopped;
            }
            Life::Listening => *life = Life::Stopping(vec![promise]),
        }
        drop(life);
        self.collecting.take();
        self.lanes.borrow_mut().clear();
        driver.stop(self.id);
        stopped
    }

    /// Takes the last step of stopping. Returns the Deferreds to fire.
    pub(super) fn stopped(&self) -> Vec<Promise<()>> {
        match mem::replace(&mut *self.life.borrow_mut(), Life::Stopped) {
            Life::Stopping(promises) => promises,
            Life::Listening | Life::Stopped => Vec::new(),
        }
    }
}
