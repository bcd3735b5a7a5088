//! [`Core`]: what a reactor consists of.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::aftermath::Aftermath;
use super::backend::{AnyBackend, Inbox};
use super::net::Net;
use super::net::dial::DialAttempt;
use super::net::lingering_socket::Lingering;
use super::net::listener::PortCore;
use super::process::Process;
use super::run_state::Run;
use super::signal_handling::SignalHandling;
use super::slot_map::SlotMap;
use super::threads::Threads;
use super::triggers::Triggers;
use super::{Builder, Counters, Handle, NameResolver, Reactor};
use crate::deferred::Spawner;
use crate::protocol::{ErasedJoint, FactoryGuard};
use crate::time::Timers;
use crate::transport::context::TransportContext;
use crate::transport::driver::{Credentials, Driver, SocketOption};
use crate::transport::id::Id;

/// What the clones of a [`Reactor`] share. Every part has a cell of its own, and none stays borrowed while anything is
/// called that is not ours.
pub(crate) struct Core {
    /// The handle that all clones of a [`Reactor`](super::Reactor) share. It keeps this, and not the other way round.
    pub(super) handle: Weak<Handle>,
    pub(super) backend: RefCell<AnyBackend>,
    pub(super) slots: RefCell<SlotMap<Slot>>,
    pub(super) context: Rc<TransportContext>,
    pub(super) timers: Timers,
    pub(super) spawner: Spawner,
    pub(super) threads: Threads<Reactor>,
    pub(super) triggers: Triggers,
    pub(super) signals: SignalHandling,
    pub(super) run: Run,
    pub(super) aftermath: Aftermath<Self>,
    pub(super) net: Net<NameResolver>,
    /// Where what is received is put, between turns.
    pub(super) inbox: Cell<Inbox>,
    pub(super) counters: Cell<Counters>,
    /// The one that may use all of this.
    pub(super) process: Arc<Process>,
    pub(super) settings: Builder,
}

/// What an id names.
pub(super) enum Slot {
    /// Taken, and about to become one of the others, or nothing.
    Reserved,
    Port(Rc<PortCore>),
    Connecting(Rc<DialAttempt>),
    /// A connection of a client, whose factory stops when it is over.
    Client(Box<(Rc<dyn ErasedJoint>, FactoryGuard)>),
    Connected(Rc<dyn ErasedJoint>),
    /// Our end is over, and the protocol was told; what the peer still sends is read and dropped.
    Lingering(Box<Lingering>),
    Signals,
}

impl Slot {
    /// What is to be told what happens to a connection.
    #[inline]
    pub(super) fn joint(&self) -> Option<&Rc<dyn ErasedJoint>> {
        match self {
            Self::Connected(joint) => Some(joint),
            Self::Client(client) => Some(&client.0),
            _ => None,
        }
    }
}

impl Core {
    pub(super) fn new(backend: AnyBackend, mut settings: Builder, handle: &Weak<Handle>) -> Rc<Self> {
        let resolver = settings.take_resolver();
        let clock = backend.clock();
        let process = Arc::new(Process::current());
        let threads = Threads::new(backend.waker(), &process);
        Rc::new_cyclic(|weak: &Weak<Self>| Self {
            handle: handle.clone(),
            backend: RefCell::new(backend),
            slots: RefCell::new(SlotMap::new()),
            context: Rc::new(TransportContext::new(weak.clone(), settings.observer())),
            timers: Timers::new(clock),
            spawner: Spawner::new(threads.waker()),
            threads,
            triggers: Triggers::default(),
            signals: SignalHandling::default(),
            run: Run::new(),
            aftermath: Aftermath::default(),
            net: Net::new(resolver),
            inbox: Cell::default(),
            counters: Cell::default(),
            process,
            settings,
        })
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.context.close();
    }
}

impl Driver for Core {
    fn send_now(&self, id: Id, data: &[u8]) -> usize {
        if self.is_foreign() {
            return 0;
        }
        self.backend.borrow_mut().send_now(id, data)
    }

    fn set_option(&self, id: Id, option: SocketOption) -> io::Result<()> {
        if self.is_foreign() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.backend.borrow_mut().set_option(id, option)
    }

    fn no_delay(&self, id: Id) -> io::Result<bool> {
        self.backend.borrow().no_delay(id)
    }

    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        self.backend.borrow().keep_alive(id)
    }

    fn passes_descriptors(&self, id: Id) -> bool {
        self.backend.borrow().passes_descriptors(id)
    }

    fn peer_credentials(&self, id: Id) -> io::Result<Credentials> {
        self.backend.borrow().peer_credentials(id)
    }

    fn raw_fd(&self, id: Id) -> Option<RawFd> {
        self.backend.borrow().descriptor(id).map(|descriptor| descriptor.as_raw_fd())
    }

    fn above(&self, id: Id, look: &mut dyn FnMut(&dyn Any)) {
        let joint = self.joint(id);
        if let Some(joint) = &joint {
            look(joint);
        }
    }

    fn timers(&self) -> Timers {
        self.timers.clone()
    }
}
