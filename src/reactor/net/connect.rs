//! Outgoing connections (Twisted: `connectTCP`, `IConnector`).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::dial::{Destination, Dial, DialAttempt, DialStage};
use super::options::ConnectOptions;
use crate::address::{Address, AddressPair};
use crate::deferred::{Deferred, Promise};
use crate::error::{ConnectError, FailedAttempt, LoopWaits};
use crate::failure::Failure;
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory};
use crate::reactor::backend::ConnectRefusal;
use crate::reactor::{Core, Reactor, Slot};
use crate::time::Clock;
use crate::transport::Transport;
use crate::transport::id::Id;

/// Number of further tries after a socket has connected to itself. The system chose our own port as
/// the local one, which is unlikely to happen twice.
const SELF_CONNECT_RETRIES: u32 = 3;

/// Delay before a UNIX socket is tried again whose queue is full: no event reports that there is
/// room. Within 10 ms, a live listener has accepted many connections.
const BUSY_RETRY: Duration = Duration::from_millis(10);

impl Reactor {
    /// Connects to a TCP address, and joins the protocol that `factory` builds to the connection
    /// (Twisted: `connectTCP`, with an endpoint's Deferred).
    ///
    /// The Deferred fires after the protocol's `connection_made`. It never fires before this
    /// returns, unless the reactor is stopping or closed, or the factory's `do_start` panics.
    /// Cancelling it ends the attempt.
    ///
    /// The Deferred fails with a [`ConnectError`], or with the failure of the protocol's
    /// `connection_made`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use ropewalk::{ConnectOptions, Reactor, Result, for_protocol};
    /// # use ropewalk::{Protocol, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let options = ConnectOptions::new().timeout(Some(Duration::from_secs(5)));
    /// let connected = reactor.connect_tcp("127.0.0.1:8888".parse()?, &options, for_protocol(|_| Echo));
    /// let told = connected.add_callback(|connection| {
    ///     println!("connected to {}", connection.transport().peer());
    ///     Ok(())
    /// });
    /// told.or_log("connecting");
    /// # Ok(reactor.run()?)
    /// # }
    /// ```
    pub fn connect_tcp<F: Factory>(
        &self,
        address: SocketAddr,
        options: &ConnectOptions,
        factory: F,
    ) -> Deferred<Connection<F::Protocol>> {
        self.connect_tcp_boxed(address, options, BoxedFactory::new(factory)).add_callback(AnyConnection::expect)
    }

    /// Does the same as [`connect_tcp`](Self::connect_tcp), for endpoints, which do not know the
    /// factory's type.
    pub fn connect_tcp_boxed(
        &self,
        address: SocketAddr,
        options: &ConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        self.connect_to(Destination::Address(address.into()), options, factory)
    }

    /// Does the same as [`connect_tcp_boxed`](Self::connect_tcp_boxed), for one or several
    /// addresses.
    pub(crate) fn connect_to(
        &self,
        to: Destination,
        options: &ConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        self.0.connect(to, options, factory)
    }
}

impl Core {
    pub(in crate::reactor) fn connect(
        self: &Rc<Self>,
        to: Destination,
        options: &ConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        if self.run.is_closing() {
            return Deferred::fail(ConnectError::ReactorStopped { to: to.to_string() });
        }
        if !self.is_ours() {
            return Deferred::fail(ConnectError::ForkedChild { to: to.to_string() });
        }
        let mut options = options.clone();
        if let (Some(SocketAddr::V6(from)), Some(name)) = (&mut options.dial.from, &options.bind_scope) {
            match self.interface_index(name) {
                Ok(index) => from.set_scope_id(index),
                Err(source) => return Deferred::fail(ConnectError::UnknownInterface { name: name.clone(), source }),
            }
        }
        if let Err(panic) = factory.start() {
            return Deferred::fail(panic);
        }
        if self.is_closed() {
            // `do_start` has closed a reactor whose loop has no control.
            factory.stop();
            return Deferred::fail(ConnectError::ReactorStopped { to: to.to_string() });
        }
        let (core, named) = (Rc::downgrade(self), Rc::new(RefCell::new(Weak::new())));
        let current = Rc::clone(&named);
        let (promise, connection) = Promise::with_canceller(move || {
            let dial = current.take().upgrade();
            if let (Some(core), Some(dial)) = (core.upgrade(), dial) {
                core.dial_cancelled(&dial);
            }
        });
        let dial = Rc::new(Dial {
            to,
            options,
            factory,
            promise,
            stage: Cell::new(DialStage::Trying),
            begun: Cell::new(0),
            under_way: RefCell::default(),
            failed: RefCell::default(),
            next: RefCell::default(),
        });
        named.replace(Rc::downgrade(&dial));
        self.start_next_attempt(&dial);
        connection
    }

    /// Begins the next attempt of a dial. The dial has failed if there is none, and none is under
    /// way.
    fn start_next_attempt(self: &Rc<Self>, dial: &Rc<Dial>) {
        dial.cancel_next();
        let number = dial.begun.get();
        if let Some(to) = dial.to.addresses().get(number) {
            dial.begun.set(number + 1);
            self.begin_attempt(dial, number, to);
            self.set_next(dial);
        } else if dial.under_way.borrow().is_empty() {
            self.end_dial(dial, dial.failure().into());
        }
    }

    /// Asks the backend for a connection. An immediate answer is delivered at the end of the turn,
    /// so that the Deferred has not fired when `connect` returns.
    fn begin_attempt(self: &Rc<Self>, dial: &Rc<Dial>, number: usize, to: &Address) {
        let (timer, self_connects) = (RefCell::default(), Cell::new(0));
        let attempt = Rc::new(DialAttempt { dial: Rc::clone(dial), number, to: to.clone(), timer, self_connects });
        let id = self.slots.borrow_mut().insert(Slot::Connecting(Rc::clone(&attempt)));
        dial.under_way.borrow_mut().push(id);
        self.start_attempt(id, &attempt);
        if let Some(after) = dial.options.timeout {
            let (core, address) = (Rc::downgrade(self), to.clone());
            let timer = self.timers.call_later(after, move || {
                if let Some(core) = core.upgrade() {
                    core.attempt_failed(id, ConnectError::NoAnswer { address, after });
                }
            });
            attempt.timer.replace(Some(timer));
        }
    }

    /// Schedules the next attempt of a dial, if there is one.
    fn set_next(self: &Rc<Self>, dial: &Rc<Dial>) {
        if let Destination::Name { addresses, delay, .. } = &dial.to
            && dial.begun.get() < addresses.len()
        {
            let (core, waiting) = (Rc::downgrade(self), Rc::downgrade(dial));
            let timer = self.timers.call_later(*delay, move || {
                if let (Some(core), Some(dial)) = (core.upgrade(), waiting.upgrade()) {
                    core.start_next_attempt(&dial);
                }
            });
            dial.next.replace(Some(timer));
        }
    }

    fn start_attempt(self: &Rc<Self>, id: Id, attempt: &DialAttempt) {
        let options = attempt.dial.options.dial;
        let connect = || Ok::<_, LoopWaits>(self.backend_for_request()?.connect(id, &attempt.to, &options));
        let begun = match connect() {
            // A new connection is worth more than the oldest lingering socket.
            Ok(Err(ConnectRefusal::NoDescriptors(_))) if self.end_oldest_lingering() => connect(),
            begun => begun,
        };
        let refusal = match begun {
            Ok(Ok(())) => return,
            Ok(Err(refusal)) => refusal,
            Err(LoopWaits) => return self.start_attempt_awake(id),
        };
        let error = match (refusal, options.from) {
            (ConnectRefusal::Busy, _) => return self.start_attempt_later(id),
            (ConnectRefusal::Bind(source), Some(local)) => ConnectError::Bind { local: local.into(), source },
            (
                ConnectRefusal::Bind(source) | ConnectRefusal::Socket(source) | ConnectRefusal::NoDescriptors(source),
                _,
            ) => ConnectError::from_io(attempt.to.clone(), source),
        };
        let core = Rc::downgrade(self);
        self.at_end_of_turn(move |_| {
            if let Some(core) = core.upgrade() {
                core.attempt_failed(id, error);
            }
        });
    }

    /// Begins an attempt when the loop does not wait any more, unless it has ended by then.
    fn start_attempt_awake(self: &Rc<Self>, id: Id) {
        let core = Rc::downgrade(self);
        self.when_awake(move |_| {
            if let Some(core) = core.upgrade()
                && let Some(attempt) = core.attempt(id)
            {
                core.start_attempt(id, &attempt);
            }
        });
    }

    /// Tries again after a while, until the attempt's timeout.
    fn start_attempt_later(self: &Rc<Self>, id: Id) {
        let core = Rc::downgrade(self);
        self.timers.call_later(BUSY_RETRY, move || {
            if let Some(core) = core.upgrade()
                && let Some(attempt) = core.attempt(id)
            {
                core.start_attempt(id, &attempt);
            }
        });
    }

    /// Handles an attempt that the network has answered.
    pub(in crate::reactor) fn connected(self: &Rc<Self>, id: Id, host: Address) {
        let Some(attempt) = self.attempt(id) else { return };
        if host == attempt.to && attempt.self_connects.get() < SELF_CONNECT_RETRIES {
            // The connection goes to a free port of the local range, and the system chose that same
            // port as the local one.
            attempt.self_connects.set(attempt.self_connects.get() + 1);
            self.close_source(id, true, ());
            self.start_attempt(id, &attempt);
            return;
        }
        if host == attempt.to {
            return self.attempt_failed(id, ConnectError::Refused { address: attempt.to.clone() });
        }
        attempt.cancel_timer();
        let dial = &attempt.dial;
        dial.cancel_next();
        let losers: Vec<Id> = dial.under_way.borrow_mut().extract_if(.., |other| *other != id).collect();
        losers.into_iter().for_each(|loser| self.close_attempt(loser));
        self.join(id, host, &attempt);
    }

    /// Joins a connection to a protocol, and fires the Deferred.
    fn join(&self, id: Id, host: Address, attempt: &DialAttempt) {
        let (dial, peer) = (&attempt.dial, &attempt.to);
        let transport = Transport::new(id, Rc::clone(&self.context), AddressPair::new(host, peer.clone()));
        transport.begin_with_limit(dial.options.dial.connection.queue_limit);
        let joint = match dial.factory.build(transport) {
            Ok(Some(joint)) => joint,
            Ok(None) => return self.end_dial(dial, ConnectError::NoProtocol { address: peer.clone() }.into()),
            Err(panic) => return self.end_dial(dial, panic.into()),
        };
        let client = Box::new((Rc::clone(&joint), dial.factory.started()));
        // The Deferred may have been cancelled inside `build_protocol`.
        match self.slots.borrow_mut().get_mut(id) {
            Some(slot @ Slot::Connecting(_)) => *slot = Slot::Client(client),
            _ => return,
        }
        dial.under_way.borrow_mut().clear();
        dial.stage.set(DialStage::Made(id));
        joint.transport().mark_dirty();
        // The Deferred may be cancelled inside `connection_made`.
        match joint.connection_made() {
            Ok(()) => drop(dial.promise.callback(AnyConnection(joint))),
            Err(failure) => drop(dial.promise.errback(failure)),
        }
    }

    /// Handles the cancellation of the Deferred: before there was a connection, or inside its
    /// `connection_made`.
    fn dial_cancelled(&self, dial: &Dial) {
        let cancelled = ConnectError::ConnectingCancelled { to: dial.to.to_string() };
        match dial.stage.get() {
            DialStage::Made(id) => {
                self.with_transport(id, Transport::lose_connection);
                let _ = dial.promise.errback(cancelled);
            }
            DialStage::Trying | DialStage::Over => self.end_dial(dial, cancelled.into()),
        }
    }

    /// Ends a dial with a failure, and closes all its sockets.
    fn end_dial(&self, dial: &Dial, failure: Failure) {
        // If the Deferred was cancelled inside `build_protocol`, and that built no protocol, the
        // dial ends a second time.
        if !matches!(dial.stage.replace(DialStage::Over), DialStage::Trying) {
            return;
        }
        dial.cancel_next();
        for id in dial.under_way.take() {
            self.close_attempt(id);
        }
        let factory = dial.factory.clone();
        self.at_end_of_turn(move |_| factory.stop());
        // If it was cancelled from outside, the Deferred may have its result already.
        let _ = dial.promise.errback(failure);
    }

    /// Handles the failure of one attempt, by the network or the system. The next one begins at
    /// once.
    fn attempt_failed(self: &Rc<Self>, id: Id, error: ConnectError) {
        let Some(attempt) = self.attempt(id) else { return };
        self.close_attempt(id);
        let dial = &attempt.dial;
        dial.under_way.borrow_mut().retain(|other| *other != id);
        dial.failed.borrow_mut().push((attempt.number, FailedAttempt { address: attempt.to.clone(), error }));
        self.start_next_attempt(dial);
    }

    fn close_attempt(&self, id: Id) {
        if let Some(attempt) = self.attempt(id) {
            self.slots.borrow_mut().remove(id);
            self.close_source(id, false, ());
            attempt.cancel_timer();
        }
    }

    /// Handles an attempt that the system has reported as failed.
    pub(in crate::reactor) fn connect_failed(self: &Rc<Self>, id: Id, error: std::io::Error) {
        if let Some(attempt) = self.attempt(id) {
            self.attempt_failed(id, ConnectError::from_io(attempt.to.clone(), error));
        }
    }

    /// Ends an attempt that is under way when the reactor stops.
    pub(in crate::reactor) fn attempt_stopped(&self, id: Id) {
        if let Some(attempt) = self.attempt(id) {
            let to = attempt.dial.to.to_string();
            self.end_dial(&attempt.dial, ConnectError::ReactorStopped { to }.into());
        }
    }

    fn attempt(&self, id: Id) -> Option<Rc<DialAttempt>> {
        match self.slots.borrow().get(id) {
            Some(Slot::Connecting(attempt)) => Some(Rc::clone(attempt)),
            _ => None,
        }
    }
}
