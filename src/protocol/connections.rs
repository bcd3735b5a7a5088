//! The list of a factory's open connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::{Connection, Factory, Protocol, for_protocol, forward_callbacks};
use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::failure::{Failure, Result};
use crate::transport::Transport;

/// The open connections of one or more factories whose protocols are `P` (Twisted: the set that a
/// factory keeps by hand, filled in `connectionMade` and emptied in `connectionLost`).
///
/// A `Connections` is a cheap handle, and its clones are the same list. Iterating yields each
/// [`Connection`], in the order in which they were made. The list may change meanwhile: a lost
/// connection is skipped, and a new one comes last.
///
/// A connection is in the list from its `connection_made` until its `connection_lost`. During
/// `connection_lost` it is no longer in the list.
///
/// ```
/// use ropewalk::protocol::Connections;
/// use ropewalk::interfaces::*;
/// use ropewalk::{Deferred, Port, Result, Transport};
///
/// /// Passes each message on to all connections.
/// struct Member { room: Connections<Member> }
///
/// impl Protocol for Member {
///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
///         for member in &self.room {
///             member.transport().write(data);
///         }
///         Ok(())
///     }
/// }
///
/// fn open(endpoint: &dyn ServerEndpoint, room: &Connections<Member>) -> Deferred<Port> {
///     endpoint.listen(room.for_protocol(|room, _peer| Member { room: room.clone() }))
/// }
///
/// /// Closes every connection once its queue is sent. The Deferred fires when all are closed.
/// fn drain(room: &Connections<Member>) -> Deferred<()> {
///     for member in room {
///         member.transport().lose_connection();
///     }
///     room.when_empty()
/// }
/// # let reactor = ropewalk::Reactor::new().unwrap();
/// # let endpoint = ropewalk::endpoints::server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap();
/// # open(&endpoint, &Connections::new()).or_log("listening");
/// ```
pub struct Connections<P>(Rc<List<P>>);

struct List<P> {
    open: RefCell<BTreeMap<u64, Connection<P>>>,
    /// Number of connections so far: the key of the next one.
    made: Cell<u64>,
    /// Promises to fire when the last connection has closed.
    waiters: RefCell<Vec<Promise<()>>>,
}

impl<P: Protocol> Connections<P> {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps a factory, so that the list has each of its connections while it is open. One list may
    /// have the connections of several factories.
    pub fn track<F: Factory<Protocol = P>>(&self, factory: F) -> TrackedFactory<F> {
        TrackedFactory { inner: factory, connections: self.clone() }
    }

    /// Makes a factory that calls `build`, with the list, for the protocol of every connection. It
    /// is [`track`](Self::track) of [`for_protocol`](crate::for_protocol) (Twisted:
    /// `Factory.forProtocol`, whose protocols reach the factory by `self.factory`).
    ///
    /// ```
    /// use ropewalk::protocol::Connections;
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Member { room: Connections<Member> }
    /// # impl Protocol for Member {
    /// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
    /// # }
    ///
    /// let room = Connections::new();
    /// let factory = room.for_protocol(|room, _peer| Member { room: room.clone() });
    /// # drop(factory);
    /// ```
    pub fn for_protocol<B>(&self, mut build: B) -> TrackedFactory<impl Factory<Protocol = P> + use<P, B>>
    where
        B: FnMut(&Self, Address) -> P + 'static,
    {
        let list = self.clone();
        self.track(for_protocol(move |peer| build(&list, peer)))
    }

    /// Iterates over the open connections, in the order in which they were made.
    pub fn iter(&self) -> ConnectionsIter<P> {
        ConnectionsIter { connections: self.clone(), last: None }
    }

    /// Returns the number of open connections.
    pub fn len(&self) -> usize {
        self.0.open.borrow().len()
    }

    /// Returns `true` if no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no connection is open. The Deferred fires at once if none is, otherwise after
    /// the last `connection_lost`.
    ///
    /// It closes no connection, and new ones may come: stop the port first.
    #[track_caller]
    pub fn when_empty(&self) -> Deferred<()> {
        if self.is_empty() {
            return Deferred::succeed(());
        }
        let (promise, deferred) = Promise::new();
        let mut waiters = self.0.waiters.borrow_mut();
        waiters.retain(|waiter| !waiter.is_called());
        waiters.push(promise);
        deferred
    }

    fn add(&self, transport: &Transport) -> u64 {
        let key = self.0.made.get();
        self.0.made.set(key + 1);
        self.0.open.borrow_mut().insert(key, transport.connection());
        key
    }

    fn remove(&self, key: u64) {
        self.0.open.borrow_mut().remove(&key);
    }

    /// Fires the waiters, if the list is empty.
    fn tell(&self) {
        if !self.is_empty() {
            return;
        }
        for waiter in self.0.waiters.take() {
            // A cancelled waiter has fired already.
            let _ = waiter.callback(());
        }
    }
}

/// Iterates over [`Connections`]. It holds no borrow, so the loop may do anything with a
/// connection.
pub struct ConnectionsIter<P> {
    connections: Connections<P>,
    last: Option<u64>,
}

impl<P> Iterator for ConnectionsIter<P> {
    type Item = Connection<P>;

    fn next(&mut self) -> Option<Connection<P>> {
        let open = self.connections.0.open.borrow();
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let (&key, connection) = open.range((behind, Bound::Unbounded)).next()?;
        self.last = Some(key);
        Some(connection.clone())
    }
}

impl<P: Protocol> IntoIterator for &Connections<P> {
    type Item = Connection<P>;
    type IntoIter = ConnectionsIter<P>;

    fn into_iter(self) -> ConnectionsIter<P> {
        self.iter()
    }
}

/// A factory whose connections are in a list, from [`Connections::track`].
pub struct TrackedFactory<F: Factory> {
    inner: F,
    connections: Connections<F::Protocol>,
}

impl<F: Factory> Factory for TrackedFactory<F> {
    type Protocol = Tracked<F::Protocol>;

    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol> {
        let inner = self.inner.build_protocol(peer)?;
        Some(Tracked { inner, connections: self.connections.clone(), key: None })
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.inner.prepare_transport(transport)
    }

    fn do_start(&mut self) {
        self.inner.do_start();
    }

    fn do_stop(&mut self) {
        self.inner.do_stop();
    }
}

/// A protocol whose connection is in a list. It wraps the protocol of the factory.
/// [`Transport::connection`] and the list reach the wrapped protocol.
pub struct Tracked<P: Protocol> {
    inner: P,
    connections: Connections<P>,
    /// The key in the list. `None` before the connection is made, and once it is lost.
    key: Option<u64>,
}

impl<P: Protocol> Tracked<P> {
    /// Returns the protocol of the factory.
    pub fn protocol(&self) -> &P {
        &self.inner
    }

    /// Returns the protocol of the factory.
    pub fn protocol_mut(&mut self) -> &mut P {
        &mut self.inner
    }
}

impl<P: Protocol> Protocol for Tracked<P> {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.key = Some(self.connections.add(transport));
        self.inner.connection_made(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        if let Some(key) = self.key {
            self.connections.remove(key);
        }
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

/// Removes the connection and fires the waiters after `connection_lost`, even if `connection_lost`
/// panicked.
impl<P: Protocol> Drop for Tracked<P> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.connections.remove(key);
            self.connections.tell();
        }
    }
}

impl<P> Clone for Connections<P> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<P> Default for Connections<P> {
    fn default() -> Self {
        Self(Rc::new(List { open: RefCell::default(), made: Cell::new(0), waiters: RefCell::default() }))
    }
}

impl<P> fmt::Debug for Connections<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.0.open.borrow().len()).finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for ConnectionsIter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionsIter").field("connections", &self.connections).field("last", &self.last).finish()
    }
}

impl<F: Factory + fmt::Debug> fmt::Debug for TrackedFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedFactory").field("inner", &self.inner).field("connections", &self.connections).finish()
    }
}

impl<P: Protocol + fmt::Debug> fmt::Debug for Tracked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("inner", &self.inner).finish_non_exhaustive()
    }
}
