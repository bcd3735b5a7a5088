//! Outgoing connections (Twisted: `connectTCP`, `IConnector`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::backend::ConnectRefusal;
use super::{Core, Slot};
use crate::deferred::{Deferred, Promise};
use crate::error::ConnectError;
use crate::failure::Failure;
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::time::{Clock, DelayedCall};
use crate::transport::Transport;
use crate::transport::agenda::Id;

/// How long an attempt may take, unless said otherwise. 30 s, as Twisted.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a socket that met itself is tried anew: the system chose our own port for us, which it hardly does twice.
const SELF_CONNECTS: u32 = 3;

/// How a connection is made.
///
/// ```
/// use std::time::Duration;
///
/// let options = ropewalk::ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    timeout: Option<Duration>,
    bind_address: Option<SocketAddr>,
}

impl ConnectOptions {
    /// Twisted's: 30 s, and whatever local address the system chooses.
    pub fn new() -> Self {
        Self { timeout: Some(CONNECT_TIMEOUT), bind_address: None }
    }

    /// How long to wait for an answer; `None` leaves it to the operating system.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The local address to connect from; port 0 lets the system choose one.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        self.bind_address = Some(address);
        self
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A connection that is being made.
pub(super) struct Attempt {
    to: SocketAddr,
    from: Option<SocketAddr>,
    factory: BoxedFactory,
    promise: Promise<AnyConnection>,
    timer: RefCell<Option<DelayedCall>>,
    self_connects: Cell<u32>,
}

impl Core {
    pub(super) fn connect(
        self: &Rc<Self>,
        to: SocketAddr,
        options: &ConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        if self.closing.get() {
            return Deferred::fail(ConnectError::ReactorStopped { to: to.to_string() });
        }
        if let Err(panic) = factory.start() {
            return Deferred::fail(panic);
        }
        let (core, named) = (Rc::downgrade(self), Rc::new(Cell::new(None)));
        let current = Rc::clone(&named);
        let (promise, connection) = Promise::with_canceller(move || {
            if let (Some(core), Some((id, attempt))) = (core.upgrade(), current.take()) {
                core.attempt_cancelled(id, &attempt);
            }
        });
        let attempt = Rc::new(Attempt {
            to,
            from: options.bind_address,
            factory,
            promise,
            timer: RefCell::default(),
            self_connects: Cell::new(0),
        });
        let id = self.begin_attempt(&attempt);
        named.set(Some((id, Rc::downgrade(&attempt))));
        if let Some(after) = options.timeout {
            let core = Rc::downgrade(self);
            let timer = self.timers.call_later(after, move || {
                if let Some(core) = core.upgrade() {
                    core.attempt_failed(id, ConnectError::TimedOut { address: to.into(), after }.into());
                }
            });
            attempt.timer.replace(Some(timer));
        }
        connection
    }

    /// Asks the backend. An answer that is known at once is given at the end of the turn: nothing has fired when `connect`
    /// returns.
    fn begin_attempt(self: &Rc<Self>, attempt: &Rc<Attempt>) -> Id {
        let id = self.slots.borrow_mut().insert(Slot::Connecting(Rc::clone(attempt)));
        self.ask(id, attempt);
        id
    }

    fn ask(self: &Rc<Self>, id: Id, attempt: &Attempt) {
        let begun = self.backend.borrow_mut().connect(id, attempt.to, attempt.from);
        let Err(refusal) = begun else { return };
        let error = match (refusal, attempt.from) {
            (ConnectRefusal::Bind(source), Some(local)) => ConnectError::Bind { local: local.into(), source },
            (ConnectRefusal::Bind(source) | ConnectRefusal::Socket(source), _) => {
                ConnectError::from_io(attempt.to.into(), source)
            }
        };
        self.later(move |core| core.attempt_failed(id, error.into()));
    }

    /// The network answered.
    pub(super) fn connected(self: &Rc<Self>, id: Id, host: SocketAddr) {
        let Some(attempt) = self.attempt(id) else { return };
        if host == attempt.to && attempt.self_connects.get() < SELF_CONNECTS {
            // A free port of the local range was dialled, and the system dialled from that same port.
            attempt.self_connects.set(attempt.self_connects.get() + 1);
            self.backend.borrow_mut().close(id, true);
            self.ask(id, &attempt);
            return;
        }
        attempt.cancel_timer();
        if host == attempt.to {
            let refused = ConnectError::Refused { address: attempt.to.into() };
            self.attempt_failed(id, refused.into());
            return;
        }
        let transport = Transport::new(id, Rc::clone(&self.agenda), host, attempt.to);
        let joint = match attempt.factory.build(transport) {
            Ok(Some(joint)) => joint,
            Ok(None) => return self.attempt_failed(id, ConnectError::NoProtocol { address: attempt.to.into() }.into()),
            Err(panic) => return self.attempt_failed(id, panic.into()),
        };
        let factory = Some(attempt.factory.clone());
        // The attempt may have been cancelled from inside `build_protocol`.
        match self.slots.borrow_mut().get_mut(id) {
            Some(slot @ Slot::Connecting(_)) => *slot = Slot::Connected { joint: Rc::clone(&joint), factory },
            _ => return,
        }
        joint.transport().list();
        // The attempt may have been cancelled from inside `connection_made`.
        match joint.connection_made() {
            Ok(()) => drop(attempt.promise.callback(AnyConnection(joint))),
            Err(failure) => drop(attempt.promise.errback(failure)),
        }
    }

    /// Whoever waited gave the attempt up: before it came to a connection, or from inside its `connection_made`.
    fn attempt_cancelled(&self, id: Id, attempt: &Weak<Attempt>) {
        let Some(attempt) = attempt.upgrade() else { return };
        let cancelled = ConnectError::Cancelled { to: attempt.to.to_string() };
        if self.attempt(id).is_some() {
            self.attempt_failed(id, cancelled.into());
            return;
        }
        self.with_transport(id, Transport::lose_connection);
        let _ = attempt.promise.errback(cancelled);
    }

    /// An attempt is over.
    pub(super) fn attempt_failed(&self, id: Id, failure: Failure) {
        let Some(attempt) = self.attempt(id) else { return };
        self.slots.borrow_mut().remove(id);
        self.backend.borrow_mut().close(id, false);
        attempt.cancel_timer();
        let factory = attempt.factory.clone();
        self.later(move |_| factory.stop());
        // Cancelled from outside, the Deferred may have its result already.
        let _ = attempt.promise.errback(failure);
    }

    /// What the system said of an attempt.
    pub(super) fn connect_failed(&self, id: Id, error: std::io::Error) {
        if let Some(attempt) = self.attempt(id) {
            self.attempt_failed(id, ConnectError::from_io(attempt.to.into(), error).into());
        }
    }

    /// The reactor stops while an attempt is under way.
    pub(super) fn attempt_stopped(&self, id: Id) {
        if let Some(attempt) = self.attempt(id) {
            self.attempt_failed(id, ConnectError::ReactorStopped { to: attempt.to.to_string() }.into());
        }
    }

    fn attempt(&self, id: Id) -> Option<Rc<Attempt>> {
        match self.slots.borrow().get(id) {
            Some(Slot::Connecting(attempt)) => Some(Rc::clone(attempt)),
            _ => None,
        }
    }
}

impl Attempt {
    fn cancel_timer(&self) {
        if let Some(timer) = self.timer.take() {
            // The timer itself may be what brought us here.
            let _ = timer.cancel();
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("to", &self.to).finish_non_exhaustive()
    }
}
