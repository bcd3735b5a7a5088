//! Handles that reach a protocol from outside of its callbacks: from another connection, a timer,
//! or a Deferred. [`Spawner::spawn_for`] binds a future to a connection.

use std::any::{Any, TypeId};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;

use super::Protocol;
use super::joint::{ErasedJoint, Joint};
use crate::deferred::{Cancelled, Deferred, Outcome, Promise, Spawner, maybe_deferred};
use crate::error::Unavailable;
use crate::failure::{Result, drop_guarded};
use crate::transport::Transport;

/// A protocol of type `P` and its transport (Twisted: the protocol instance, reached through
/// `self`). `connect` returns one, and so does [`Transport::connection`] inside a callback.
///
/// A `Connection` is a cheap handle. It keeps neither the connection nor the protocol alive, so a
/// protocol may keep its own. Once the connection is over, [`with`](Self::with) returns
/// [`Unavailable::Gone`].
///
/// ```
/// # use ropewalk::{protocol::Connection, Protocol, Result, Transport, error::Unavailable};
/// # struct Counter { seen: usize }
/// # impl Protocol for Counter {
/// #     fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> { self.seen += data.len(); Ok(()) }
/// # }
/// fn seen(connection: &Connection<Counter>) -> Result<usize, Unavailable> {
///     connection.with(|counter, _transport| counter.seen)
/// }
/// ```
pub struct Connection<P> {
    transport: Transport,
    protocol: PhantomData<fn(&mut P)>,
}

impl<P: Protocol> Connection<P> {
    fn new(transport: Transport) -> Self {
        Self { transport, protocol: PhantomData }
    }

    /// Returns the transport. It stays usable, and does nothing, after the connection is over.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Runs `call` with the protocol and its transport.
    ///
    /// Like a callback, `call` runs to completion. Its reactor can't be run, turned or closed
    /// meanwhile ([`AlreadyRunning`](crate::error::ReactorError::AlreadyRunning)). If the last
    /// handle of the reactor is dropped in `call`, the reactor closes after `call` returns.
    ///
    /// # Errors
    /// - [`Unavailable::Busy`] from inside one of that protocol's own callbacks. Use the arguments
    ///   of the callback, or [`later`](Self::later).
    /// - [`Unavailable::Gone`] once the connection is over.
    /// - [`Unavailable::OtherProtocol`] if the handle came from [`Transport::connection`], and the
    ///   protocol is not a `P`.
    pub fn with<R>(&self, call: impl FnOnce(&mut P, &Transport) -> R) -> Result<R, Unavailable> {
        let result = self.reach(|free| free.map(|(protocol, transport)| call(protocol, transport)));
        self.transport.make_waiting_calls();
        result
    }

    /// Runs `call` with the protocol and its transport: now, or if the protocol is in one of its
    /// calls, as soon as that call returns. Waiting calls are made in the order in which they were
    /// requested, before anything else happens to the connection. None is made from inside another
    /// call of the same protocol.
    ///
    /// The Deferred fires with the result of `call`. If it is cancelled first, `call` is dropped.
    ///
    /// # Errors
    /// The Deferred fails with the failure of `call`. A panic of `call` is one too, and does not
    /// end the connection. The Deferred fails with [`Unavailable::Gone`] if the connection is over
    /// first, and with [`Unavailable::OtherProtocol`] under the same condition as
    /// [`with`](Self::with).
    ///
    /// ```
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Answers a line that is too long from code that has no `self`.
    /// struct Strict { refused: usize }
    ///
    /// impl Protocol for Strict {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
    ///         if data.len() > 80 {
    ///             let refusal = transport.connection::<Self>().later(|strict, transport| {
    ///                 strict.refused += 1;
    ///                 transport.write(b"too long\r\n");
    ///             });
    ///             drop(refusal);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Strict { refused: 0 });
    /// connection.deliver(&[b'x'; 81]);
    /// assert_eq!(connection.with(|strict, _| strict.refused), Ok(1));
    /// assert_eq!(connection.string().value(), b"too long\r\n");
    /// ```
    #[track_caller]
    pub fn later<R: Outcome>(&self, call: impl FnOnce(&mut P, &Transport) -> R + 'static) -> Deferred<R::Output> {
        self.when_free(|free| match free {
            Ok((protocol, transport)) => maybe_deferred(|| call(protocol, transport)),
            Err(unavailable) => Deferred::fail(unavailable),
        })
    }

    /// Makes `call` once, now or when the protocol is free, with the protocol or with the reason
    /// why it is unavailable.
    #[track_caller]
    fn when_free<T>(
        &self,
        call: impl FnOnce(Result<(&mut P, &Transport), Unavailable>) -> Deferred<T> + 'static,
    ) -> Deferred<T> {
        let (promise, deferred) = Promise::new();
        let connection = self.clone();
        let act = move || {
            if promise.is_called() {
                return;
            }
            connection.reach(call).chain_deferred(promise);
        };
        if self.is_busy() || self.transport.has_waiting_calls() {
            self.transport.wait(act);
        } else {
            act();
            self.transport.make_waiting_calls();
        }
        deferred
    }

    /// Makes `call` with the protocol, or with the reason why it is unavailable.
    fn reach<R>(&self, call: impl FnOnce(Result<(&mut P, &Transport), Unavailable>) -> R) -> R {
        let _entered = self.transport.enter();
        let (mut call, mut result) = (Some(call), None);
        let mut act = |free: Result<(&mut P, &Transport), Unavailable>| result = call.take().map(|call| call(free));
        let reached = joint(&self.transport).ok_or(Unavailable::Gone).and_then(|joint| {
            joint.reach(&mut |protocol, transport| {
                act(find(protocol).map(|protocol| (protocol, transport)).ok_or(Unavailable::OtherProtocol));
            })
        });
        if let Err(unavailable) = reached {
            act(Err(unavailable));
        }
        result.expect("a joint makes the call, or returns why it cannot")
    }

    fn is_busy(&self) -> bool {
        joint(&self.transport).is_some_and(|joint| joint.is_busy())
    }
}

impl<P: Protocol> Connection<P> {
    /// Joins a protocol to a transport. Returns the handle, and the joint to drive.
    pub(crate) fn join(protocol: P, transport: Transport) -> (Self, Rc<dyn ErasedJoint>) {
        (Self::new(transport.clone()), Rc::new(Joint::new(protocol, transport)))
    }
}

impl Transport {
    /// Returns this connection with its protocol, which is a `P` or wraps one
    /// ([`Protocol::inner`]). A protocol uses the handle to reach itself from a timer, a Deferred
    /// or another connection (Twisted: `self`, and `transport.protocol`).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::protocol::Connection;
    /// use ropewalk::{Clock, Protocol, Result, Transport};
    ///
    /// /// Reports the number of received bytes, each second.
    /// struct Counter { seen: usize }
    ///
    /// impl Protocol for Counter {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         tick(transport.connection());
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
    ///         self.seen += data.len();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn tick(connection: Connection<Counter>) {
    ///     connection.transport().timers().call_later(Duration::from_secs(1), move || {
    ///         let told = connection.with(|counter, transport| transport.write(counter.seen.to_string().as_bytes()));
    ///         // Once the connection is over there is nothing left to count.
    ///         if told.is_ok() {
    ///             tick(connection);
    ///         }
    ///     });
    /// }
    /// ```
    pub fn connection<P: Protocol>(&self) -> Connection<P> {
        Connection::new(self.clone())
    }
}

impl<T> Deferred<T> {
    /// Passes the result to a protocol, in the same way as [`Connection::later`]: now, or as soon
    /// as the protocol is free. The returned Deferred fires with the result of `call`.
    ///
    /// If the connection is over first, the returned Deferred fails with the failure that was to be
    /// passed on, or with [`Unavailable::Gone`] if there is none.
    ///
    /// ```
    /// use ropewalk::deferred::Promise;
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// struct Client { replies: usize }
    ///
    /// impl Protocol for Client {
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Client { replies: 0 });
    /// let (promise, reply) = Promise::new();
    /// let counted = reply.then_with(connection.connection(), |client, transport, reply: Result<u32>| {
    ///     client.replies += 1;
    ///     transport.write(reply?.to_string().as_bytes());
    ///     Ok(())
    /// });
    /// promise.callback(7).unwrap();
    /// drop(counted);
    /// assert_eq!(connection.string().value(), b"7");
    /// ```
    #[track_caller]
    pub fn then_with<P: Protocol, R: Outcome>(
        self,
        connection: &Connection<P>,
        call: impl FnOnce(&mut P, &Transport, Result<T>) -> R + 'static,
    ) -> Deferred<R::Output> {
        let connection = connection.clone();
        self.add_both(move |result| {
            connection.when_free(|free| match (free, result) {
                (Ok((protocol, transport)), result) => maybe_deferred(|| call(protocol, transport, result)),
                (Err(_), Err(failure)) => Deferred::fail(failure),
                (Err(unavailable), Ok(_)) => Deferred::fail(unavailable),
            })
        })
    }
}

impl Spawner {
    /// Runs a future as [`spawn`](Self::spawn) does, until the connection of `transport` is lost
    /// (Twisted: a Deferred that `connectionLost` cancels).
    ///
    /// Then the future is dropped, which cancels the Deferred that it awaits, and the returned
    /// Deferred fails with [`Cancelled`]. This comes right before
    /// [`connection_lost`](crate::Protocol::connection_lost), so that no future of the protocol is
    /// left in its last call. Handles of the connection return
    /// [`Unavailable::Gone`](crate::error::Unavailable::Gone) by then. If the connection is
    /// [discarded](Transport::discard), it comes in the next turn. A connection that is closing,
    /// and not lost yet, keeps its futures.
    ///
    /// Several futures end in the order in which they were spawned. For a connection that is over,
    /// the future is dropped without a poll.
    ///
    /// Any other failure of the future reaches the returned Deferred, and does not end the
    /// connection. For that, call [`abort_connection`](Transport::abort_connection) in an errback.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::deferred::{Cancelled, Spawner};
    /// use ropewalk::task::defer_later;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Says that it is still there, each second.
    /// struct Talkative { spawner: Spawner }
    ///
    /// impl Protocol for Talkative {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         let talking = self.spawner.spawn_for(transport, talk(transport.clone()));
    ///         // The end of the connection cancels it. Any other failure is a line in the log.
    ///         talking.add_errback(|failure| failure.trap::<Cancelled>().map(drop)).or_log("talking");
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// async fn talk(transport: Transport) -> Result<()> {
    ///     loop {
    ///         defer_later(&transport.timers(), Duration::from_secs(1), || Ok(())).await?;
    ///         transport.write(b"still there\n");
    ///     }
    /// }
    /// # use ropewalk::testing::MemoryReactor;
    /// # fn main() -> Result<()> {
    /// # let memory = MemoryReactor::new();
    /// # let spawner = memory.reactor().spawner().clone();
    /// # let factory = ropewalk::for_protocol(move |_| Talkative { spawner: spawner.clone() });
    /// # memory.reactor().listen_tcp("0.0.0.0:7000".parse()?, &ropewalk::ListenOptions::new(), factory)?;
    /// # let peer = memory.connect(7000)?;
    /// # memory.advance(Duration::from_secs(1))?;
    /// # assert_eq!(peer.read(), b"still there\n");
    /// # peer.close();
    /// # memory.settle()?;
    /// # assert!(memory.reactor().spawner().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn_for<F>(&self, transport: &Transport, future: F) -> Deferred<<F::Output as Outcome>::Output>
    where
        F: Future + 'static,
        F::Output: Outcome + 'static,
    {
        let Some(joint) = joint(transport).filter(|_| !transport.is_disconnected()) else {
            drop_guarded("a future", future);
            return Deferred::fail(Cancelled);
        };
        let spawned = self.spawn(future);
        if transport.is_disconnected() {
            // Its first poll discarded the connection.
            spawned.cancel();
        } else if !spawned.is_called() {
            joint.bind(self, spawned.canceller());
        }
        spawned
    }
}

/// Returns the joint of a transport, or `None` if the connection is over.
fn joint(transport: &Transport) -> Option<Rc<dyn ErasedJoint>> {
    let mut found = None;
    transport.above(&mut |joint| found = joint.downcast_ref::<Rc<dyn ErasedJoint>>().cloned());
    found
}

/// Finds the `P`: the protocol itself, or one that it wraps.
pub(crate) fn find<P: Protocol>(protocol: &mut dyn Protocol) -> Option<&mut P> {
    let mut protocol = protocol;
    while !(protocol as &dyn Any).is::<P>() {
        protocol = protocol.inner()?;
    }
    (protocol as &mut dyn Any).downcast_mut()
}

impl<P> Clone for Connection<P> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.clone(), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.transport).finish()
    }
}

/// A [`Connection`] with the type of its protocol erased, because it came through an endpoint that
/// is a trait object.
pub struct AnyConnection(pub(crate) Rc<dyn ErasedJoint>);

impl AnyConnection {
    /// Returns the transport.
    pub fn transport(&self) -> &Transport {
        self.0.transport()
    }

    /// Returns the connection with its protocol's type.
    ///
    /// # Errors
    /// Returns `self` if the protocol is not a `P`.
    pub fn downcast<P: Protocol>(self) -> Result<Connection<P>, Self> {
        if self.0.protocol_type() == TypeId::of::<P>() { Ok(self.transport().connection()) } else { Err(self) }
    }

    /// Returns the connection with the type of the protocol that its own factory built.
    pub(crate) fn expect<P: Protocol>(self) -> Result<Connection<P>> {
        Ok(self.downcast().expect("the joint was made by the factory whose protocol this is"))
    }
}

impl fmt::Debug for AnyConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyConnection").field(self.0.transport()).finish()
    }
}
