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

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use super::driver::{DatagramDriver, DatagramSend};
use super::queue::DatagramQueue;
use crate::address::{Address, unmapped};
use crate::deferred::{Deferred, Promise};
use crate::error::{DatagramError, ListenError};
use crate::failure::Result;
use crate::transport::id::Id;

/// The longest payloads of a UDP datagram, without IPv6's jumbograms: 65,535 bytes less the
/// headers.
const MOST_IPV4_BYTES: usize = 65_507;
const MOST_IPV6_BYTES: usize = 65_527;

/// Times that a send is repeated that reports the refusal of an earlier datagram. A call reports
/// one refusal; a second may come in between.
const REFUSALS: usize = 4;

/// See the module.
pub(crate) struct DatagramState {
    pub(super) driver: Weak<dyn DatagramDriver>,
    pub(super) id: Id,
    host: Cell<SocketAddr>,
    /// The socket is of IPv6 and reaches IPv4 addresses too.
    is_dual: bool,
    peer: Cell<Option<SocketAddr>>,
    /// Bytes that are taken of one datagram.
    max_packet: usize,
    life: RefCell<Life>,
    queue: RefCell<DatagramQueue>,
    is_paused: Cell<bool>,
    /// Writes of callbacks are collected ([`UdpOptions::collect_writes`](super::UdpOptions)).
    collects: bool,
    /// Such a callback may run at present.
    is_collecting: Cell<bool>,
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
    /// Writes of callbacks are collected.
    pub(crate) collects: bool,
}

impl DatagramState {
    pub(crate) fn new(
        driver: Weak<dyn DatagramDriver>,
        id: Id,
        host: SocketAddr,
        is_dual: bool,
        limits: DatagramLimits,
    ) -> Self {
        Self {
            driver,
            id,
            host: Cell::new(host),
            is_dual,
            peer: Cell::new(None),
            max_packet: limits.max_packet,
            life: RefCell::new(Life::Listening),
            queue: RefCell::new(DatagramQueue::new(limits.queue)),
            is_paused: Cell::new(false),
            collects: limits.collects,
            is_collecting: Cell::new(false),
            is_refused: Cell::new(false),
            counts: Cell::default(),
        }
    }

    pub(super) fn host(&self) -> SocketAddr {
        self.host.get()
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer.get()
    }

    pub(crate) fn has_peer(&self) -> bool {
        self.peer.get().is_some()
    }

    pub(super) fn max_packet(&self) -> usize {
        self.max_packet
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
    pub(super) fn driver(&self) -> Result<Rc<dyn DatagramDriver>, DatagramError> {
        let driver = self.driver.upgrade().filter(|driver| self.is_listening() && driver.is_usable());
        driver.ok_or(DatagramError::NotListening)
    }

    /// Sends a datagram, or queues it behind others. `None` sends to the peer.
    pub(super) fn write(&self, data: &[u8], to: Option<&Address>) -> Result<(), DatagramError> {
        let driver = self.driver()?;
        let (to, named) = self.destination(to)?;
        let most = if named.is_ipv4() { MOST_IPV4_BYTES } else { MOST_IPV6_BYTES };
        if data.len() > most {
            return Err(DatagramError::MessageTooLong { to: named.into(), length: data.len() });
        }
        if self.is_collecting.get() && self.collect(data, to) {
            return Ok(());
        }
        let mut queue = self.queue.borrow_mut();
        if !queue.is_empty() {
            return self.push(&mut queue, data, to);
        }
        match self.send(&*driver, data, to) {
            DatagramSend::Sent => self.count(|counts| counts.sent += 1),
            DatagramSend::Full => self.push(&mut queue, data, to)?,
            DatagramSend::Starved => {
                self.push(&mut queue, data, to)?;
                driver.flush_later(self.id);
            }
            DatagramSend::Waits => {
                self.push(&mut queue, data, to)?;
                driver.flush_when_awake(self.id);
            }
            DatagramSend::TooLong => {
                return Err(DatagramError::MessageTooLong { to: named.into(), length: data.len() });
            }
            DatagramSend::Refused => {
                return Err(DatagramError::Send { to: named.into(), source: io::ErrorKind::ConnectionRefused.into() });
            }
            DatagramSend::Failed(source) => return Err(DatagramError::Send { to: named.into(), source }),
        }
        Ok(())
    }

    /// Starts or ends collecting writes, if the port is to. The end sends what was collected. A
    /// queue that waits already is not sent by this: its flush is due.
    pub(crate) fn set_collecting(&self, on: bool) {
        let collects = on && self.collects && self.queue.borrow().is_empty();
        if self.is_collecting.replace(collects) && !on {
            self.flush();
        }
    }

    /// Collects a datagram. Returns `false` if the queue has no room for it: it is to be sent at
    /// once, or behind a queue that waits since this call.
    fn collect(&self, data: &[u8], to: Option<SocketAddr>) -> bool {
        if self.queue.borrow_mut().push(data, to) {
            return true;
        }
        self.flush();
        let mut queue = self.queue.borrow_mut();
        self.is_collecting.set(queue.is_empty());
        queue.is_empty() && queue.push(data, to)
    }

    /// Passes a datagram to the socket, again if the call has reported another one.
    fn send(&self, driver: &dyn DatagramDriver, data: &[u8], to: Option<SocketAddr>) -> DatagramSend {
        for _ in 0..REFUSALS {
            match driver.send(self.id, data, to) {
                DatagramSend::Refused => self.note_refusal(driver),
                result => return result,
            }
        }
        DatagramSend::Refused
    }

    fn push(&self, queue: &mut DatagramQueue, data: &[u8], to: Option<SocketAddr>) -> Result<(), DatagramError> {
        if queue.push(data, to) {
            return Ok(());
        }
        self.count(|counts| counts.queue_full += 1);
        Err(DatagramError::QueueFull { queued: queue.size(), limit: queue.limit() })
    }

    /// Sends the queue, until it is empty or the socket is full. The limit of the queue is the
    /// bound on the work of one call.
    pub(crate) fn flush(&self) {
        let Ok(driver) = self.driver() else { return };
        let mut queue = self.queue.borrow_mut();
        while !queue.is_empty() {
            let (taken, result) = driver.send_queue(self.id, &queue);
            queue.remove(taken);
            self.count(|counts| counts.sent += taken as u64);
            match result {
                // The rest of the queue is another batch.
                DatagramSend::Sent => {}
                DatagramSend::Full => return,
                DatagramSend::Starved => return driver.flush_later(self.id),
                DatagramSend::Waits => return driver.flush_when_awake(self.id),
                DatagramSend::Refused => self.note_refusal(&*driver),
                DatagramSend::TooLong => self.drop_first(&mut queue, "it is too long"),
                DatagramSend::Failed(error) => self.drop_first(&mut queue, error),
            }
        }
    }

    /// Drops a queued datagram that the system does not take. Its write has returned long ago.
    fn drop_first(&self, queue: &mut DatagramQueue, reason: impl fmt::Display) {
        queue.remove(1);
        self.count(|counts| counts.failed += 1);
        if self.counts().failed == 1 {
            let host = Address::from(self.host());
            tracing::warn!(%host, "a queued datagram is dropped: {reason}; later ones are counted");
        }
    }

    /// Records that the peer has refused a datagram. The protocol is told at the end of the turn,
    /// because this may be inside a call of it.
    fn note_refusal(&self, driver: &dyn DatagramDriver) {
        // A socket without a peer may send to many, and one of them is no news about the others.
        if self.peer().is_some() && !self.is_refused.replace(true) {
            driver.tell_of_refusal(self.id);
        }
    }

    /// Takes the refusal that the protocol is to be told of.
    pub(super) fn take_refusal(&self) -> bool {
        self.is_refused.take()
    }

    /// Returns the address for the system, which is `None` for the peer, and the one that errors
    /// name.
    fn destination(&self, to: Option<&Address>) -> Result<(Option<SocketAddr>, SocketAddr), DatagramError> {
        match (to, self.peer()) {
            (None, Some(peer)) => Ok((None, unmapped(peer))),
            (None, None) => Err(DatagramError::NotConnected),
            (Some(to), None) => {
                let address = self.reachable(to)?;
                Ok((Some(address), unmapped(address)))
            }
            (Some(to), Some(peer)) if self.reachable(to)? == peer => Ok((None, unmapped(peer))),
            (Some(to), Some(peer)) => Err(DatagramError::OtherPeer { to: to.clone(), peer: peer.into() }),
        }
    }

    /// Returns an address in the form that the socket takes.
    fn reachable(&self, to: &Address) -> Result<SocketAddr, DatagramError> {
        match (self.host(), to.socket_addr().map(unmapped)) {
            (SocketAddr::V4(_), Some(to @ SocketAddr::V4(_))) => Ok(to),
            (SocketAddr::V6(_), Some(to @ SocketAddr::V6(_))) => Ok(to),
            (SocketAddr::V6(_), Some(SocketAddr::V4(to))) if self.is_dual => {
                Ok(SocketAddr::new(IpAddr::V6(to.ip().to_ipv6_mapped()), to.port()))
            }
            (host, _) => Err(DatagramError::WrongFamily { to: to.clone(), host: host.into() }),
        }
    }

    /// Gives the port a peer.
    pub(super) fn connect(&self, peer: &Address) -> Result<(), DatagramError> {
        let driver = self.driver()?;
        if let Some(peer) = self.peer() {
            return Err(DatagramError::AlreadyConnected { peer: peer.into() });
        }
        let address = self.reachable(peer)?;
        let connected = driver.connect(self.id, address);
        let host = connected.map_err(|source| DatagramError::Connect { peer: peer.clone(), source })?;
        self.host.set(host);
        self.peer.set(Some(address));
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
        self.queue.borrow().size()
    }

    pub(super) fn set_queue_limit(&self, limit: usize) {
        self.queue.borrow_mut().set_limit(limit);
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
        self.queue.borrow_mut().clear();
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
