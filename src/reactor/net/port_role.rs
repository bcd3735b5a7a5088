//! The part of a port in a group of reactors, and the counts of its connections. `shared.rs` makes
//! such ports.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::address::{Address, AddressPair};
use crate::deferred::{Deferred, Promise};
use crate::policies::{ConnectionLimits, Gate, Seat};

/// The part of a port in a group. `shared.rs` has the table.
pub(in crate::reactor) enum PortRole {
    HandsOver(Rc<dyn Fn(HandedSocket)>),
    Receives(ReceivingPort),
    ReusesPort {
        /// The address of the group's first socket. `None` for that socket itself.
        host: Option<Address>,
        open: Rc<OpenCount>,
        members: usize,
        gate: Arc<SharedGate>,
    },
}

/// A port without a socket.
pub(in crate::reactor) struct ReceivingPort {
    /// The address of the port that hands over.
    pub(in crate::reactor) host: Address,
    pub(in crate::reactor) open: Rc<OpenCount>,
    /// The number of such ports.
    pub(in crate::reactor) members: usize,
}

/// The gate of sockets on the same address, which count their connections as those of one port.
#[derive(Debug, Default)]
pub(in crate::reactor) struct SharedGate(OnceLock<Option<Arc<Gate>>>);

impl SharedGate {
    /// Returns the gate. The limits are those of the first port that asks.
    pub(super) fn with(&self, limits: ConnectionLimits) -> Option<Arc<Gate>> {
        self.0.get_or_init(|| (!limits.is_empty()).then(|| Gate::new(limits))).clone()
    }
}

/// A role that a port has taken.
pub(super) enum TakenRole {
    HandsOver(Rc<dyn Fn(HandedSocket)>),
    Receives(Rc<OpenCount>),
    ReusesPort(Rc<OpenCount>, Option<Arc<Gate>>),
}

/// An accepted connection on its way to another reactor. Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::reactor) struct HandedSocket {
    pub(super) socket: OwnedFd,
    pub(super) unix: bool,
    pub(super) ends: AddressPair,
    /// Its place in the port that has accepted it, if that has limits.
    pub(super) seat: Option<Seat>,
}

/// The load of a reactor, as the thread that hands over sees it. The numbers guard no other memory.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Load {
    open: AtomicUsize,
    in_transit: AtomicUsize,
    is_closed: AtomicBool,
}

impl Load {
    /// Returns the number of connections that the reactor has or is about to get.
    pub(in crate::reactor) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed) + self.in_transit.load(Ordering::Relaxed)
    }

    /// Marks the reactor as one that takes no more connections.
    pub(in crate::reactor) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    pub(in crate::reactor) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Counts a connection that is about to be handed over.
    pub(in crate::reactor) fn send(&self) {
        self.in_transit.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends that: the reactor has it, and counts it as open, or has refused it.
    pub(super) fn receive(&self) {
        self.in_transit.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The open connections of a reactor's shared ports.
pub(in crate::reactor) struct OpenCount {
    load: Arc<Load>,
    waiters: RefCell<Vec<Promise<()>>>,
}

impl OpenCount {
    pub(in crate::reactor) fn new(load: Arc<Load>) -> Rc<Self> {
        Rc::new(Self { load, waiters: RefCell::default() })
    }

    /// Waits until no connection is open.
    pub(in crate::reactor) fn when_none(&self) -> Deferred<()> {
        if self.load.open.load(Ordering::Relaxed) == 0 {
            return Deferred::succeed(());
        }
        let (promise, none) = Promise::new();
        self.waiters.borrow_mut().push(promise);
        none
    }
}

/// One counted connection. Dropping it ends the counting.
pub(super) struct OpenGuard(Rc<OpenCount>);

impl OpenGuard {
    pub(super) fn new(count: &Rc<OpenCount>) -> Self {
        count.load.open.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(count))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.load.open.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let waiters = self.0.waiters.take();
        for promise in waiters {
            // It may have been cancelled meanwhile.
            let _ = promise.callback(());
        }
    }
}

/// Ends the counting of a connection when it is dropped: once its socket is closed.
pub(in crate::reactor) struct CountedGuard {
    group: Option<OpenGuard>,
    _seat: Option<Seat>,
}

impl CountedGuard {
    pub(super) fn new(group: Option<OpenGuard>, seat: Option<Seat>) -> Self {
        Self { group, _seat: seat }
    }

    /// Returns `true` if the connection is one of a shared port.
    pub(super) fn is_of_group(&self) -> bool {
        self.group.is_some()
    }
}

impl fmt::Debug for PortRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HandsOver(_) => "HandsOver",
            Self::Receives(_) => "Receives",
            Self::ReusesPort { .. } => "ReusesPort",
        })
    }
}
