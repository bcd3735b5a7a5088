//! [`Core`]: the parts of a reactor.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::aftermath::Aftermath;
use super::backend::{self, AnyBackend, Inbox};
use super::meter::Meter;
use super::net::Net;
use super::net::dial::DialAttempt;
use super::net::lingering_socket::Lingering;
use super::net::listener::PortCore;
use super::net::port_role::CountedGuard;
use super::postponed::Postponed;
use super::process::{Process, survives_sigpipe};
use super::run_state::Run;
use super::signal_handling::SignalHandling;
use super::slot_map::SlotMap;
use super::threads::Threads;
use super::triggers::Triggers;
use super::watched::Watched;
use super::{Builder, Counters, Handle, NameResolver, Reactor};
use crate::datagram::DatagramJoint;
use crate::deferred::Spawner;
use crate::protocol::{ErasedJoint, FactoryGuard};
use crate::time::Timers;
use crate::transport::DiscardMode;
use crate::transport::context::TransportContext;
use crate::transport::driver::{Credentials, Driver, SocketOption};
use crate::transport::id::Id;
use crate::transport::observer::Observer;

/// The state that the clones of a [`Reactor`] share. Every part has a cell of its own. No part
/// stays borrowed during a call of foreign code.
pub(crate) struct Core {
    /// The handle that all clones of a [`Reactor`](super::Reactor) share. The handle keeps the
    /// core, and not the other way round.
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
    pub(super) postponed: Postponed<Self>,
    pub(super) net: Net<NameResolver>,
    /// The receive buffer, between turns.
    pub(super) inbox: Cell<Inbox>,
    pub(super) counters: Cell<Counters>,
    /// Set once the program observes the reactor. A simulated reactor has one from the start.
    pub(super) meter: OnceCell<Rc<Meter>>,
    /// The connection that has standard input and output, if it is open.
    standard_io: Cell<Option<Id>>,
    /// The process that may use the reactor.
    pub(super) process: Arc<Process>,
    pub(super) settings: Builder,
}

/// An entry of the reactor's table.
pub(super) enum Slot {
    /// A slot that is taken, and becomes one of the other variants or is freed.
    Reserved,
    Port(Rc<PortCore>),
    Connecting(Rc<DialAttempt>),
    /// A client's connection, and the guard that stops its factory when it is over.
    Client(Box<(Rc<dyn ErasedJoint>, FactoryGuard)>),
    Connected(Rc<dyn ErasedJoint>),
    /// A connection of a port with extras, and the guard that counts it.
    Counted(Box<(Rc<dyn ErasedJoint>, CountedGuard)>),
    /// A connection whose protocol has ended. The bytes that the peer still sends are read and
    /// dropped.
    Lingering(Box<Lingering>),
    Signals,
    Datagrams(Rc<DatagramJoint>),
    /// A foreign descriptor.
    Watched(Rc<dyn Watched>),
}

impl Slot {
    /// Returns the joint that handles the events of this connection, if it has a protocol.
    #[inline]
    pub(super) fn joint(&self) -> Option<&Rc<dyn ErasedJoint>> {
        match self {
            Self::Connected(joint) => Some(joint),
            Self::Client(client) => Some(&client.0),
            Self::Counted(counted) => Some(&counted.0),
            _ => None,
        }
    }
}

impl Core {
    pub(super) fn new(backend: AnyBackend, mut settings: Builder, handle: &Weak<Handle>) -> Rc<Self> {
        let resolver = settings.take_resolver();
        let clock = backend.clock();
        let process = Arc::new(Process::current());
        let threads = Threads::new(backend.waker(), &process, settings.message_limit);
        let timers = Timers::new(clock);
        timers.set_wake(threads.waker());
        let (observer, is_observed) = (settings.observer(), settings.is_observed);
        let core = Rc::new_cyclic(|weak: &Weak<Self>| Self {
            handle: handle.clone(),
            backend: RefCell::new(backend),
            slots: RefCell::new(SlotMap::new()),
            context: Rc::new(TransportContext::new(weak.clone())),
            timers,
            spawner: Spawner::new(threads.waker()),
            threads,
            triggers: Triggers::default(),
            signals: SignalHandling::default(),
            run: Run::new(),
            aftermath: Aftermath::default(),
            postponed: Postponed::default(),
            net: Net::new(resolver),
            inbox: Cell::default(),
            counters: Cell::default(),
            meter: OnceCell::new(),
            standard_io: Cell::default(),
            process,
            settings,
        });
        if let Some(observer) = observer {
            core.add_meter(Some(observer));
        }
        if is_observed {
            core.observe();
        }
        core
    }

    /// Counts bytes and measures callbacks, from now on.
    pub(super) fn observe(&self) {
        let meter = match self.meter.get() {
            Some(meter) => Rc::clone(meter),
            None => self.add_meter(None),
        };
        meter.begin();
    }

    /// Puts a meter between the transports and their observer.
    fn add_meter(&self, observer: Option<Rc<dyn Observer>>) -> Rc<Meter> {
        let meter = Meter::new(&self.timers, observer);
        let observer: Rc<dyn Observer> = Rc::clone(&meter) as _;
        self.context.set_observer(observer);
        Rc::clone(self.meter.get_or_init(|| meter))
    }

    /// Returns `true` while a connection has standard input and output.
    pub(super) fn has_standard_io(&self) -> bool {
        self.standard_io.get().is_some_and(|id| self.joint(id).is_some())
    }

    pub(super) fn set_standard_io(&self, id: Id) {
        self.standard_io.set(Some(id));
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
        if self.is_forked_child() {
            return 0;
        }
        // Bytes that are not sent at once are queued.
        self.awake_backend().map_or(0, |mut backend| backend.send_now(id, data))
    }

    fn set_option(&self, id: Id, option: SocketOption) -> io::Result<()> {
        if self.is_forked_child() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.awake_backend()?.set_option(id, option)
    }

    fn no_delay(&self, id: Id) -> io::Result<bool> {
        self.awake_backend()?.no_delay(id)
    }

    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        self.awake_backend()?.keep_alive(id)
    }

    fn passes_descriptors(&self, id: Id) -> bool {
        self.awake_backend().is_ok_and(|backend| backend.passes_descriptors(id))
    }

    fn system_file(&self, id: Id, file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        // Sends of bytes raise no signal, and no flag of `sendfile` says the same.
        if self.is_forked_child() || !self.awake_backend()?.sends_files(id) || !survives_sigpipe() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        backend::duplicate(file)
    }

    fn bytes_left(&self, file: BorrowedFd<'_>) -> io::Result<u64> {
        backend::bytes_left(file)
    }

    fn peer_credentials(&self, id: Id) -> io::Result<Credentials> {
        self.awake_backend()?.peer_credentials(id)
    }

    fn raw_fd(&self, id: Id) -> Option<RawFd> {
        self.awake_backend().ok()?.descriptor(id).map(|descriptor| descriptor.as_raw_fd())
    }

    fn duplicate(&self, id: Id, lasting: bool) -> io::Result<OwnedFd> {
        if self.is_forked_child() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let duplicate = self.second_descriptor(id)?;
        if lasting {
            self.backend_for_request()?.share(id)?;
        }
        Ok(duplicate)
    }

    fn discard(&self, id: Id, mode: DiscardMode) {
        self.discard_connection(id, mode);
    }

    fn above(&self, id: Id, look: &mut dyn FnMut(&dyn Any)) {
        let joint = self.joint(id);
        if let Some(joint) = &joint {
            look(joint);
        }
    }

    fn remote(&self, look: &mut dyn FnMut(&dyn Any)) {
        look(self.threads.calls());
    }

    fn wake_host(&self) {
        self.threads.wake_host();
    }

    fn timers(&self) -> Timers {
        self.timers.clone()
    }
}
