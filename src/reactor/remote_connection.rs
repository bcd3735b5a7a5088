//! [`RemoteConnection`]: a connection as other threads reach it (Twisted: `callFromThread` with a
//! method of a protocol).
//!
//! A message waits in the reactor's queue for calls from other threads, and is delivered in phase 1
//! of a turn. Exactly one of two things happens to it:
//!
//! | the message | by | on the thread of |
//! |---|---|---|
//! | is delivered: `call` gets it with the protocol | the joint, guarded as a callback | the connection's reactor |
//! | comes back: `returned` gets it with the reason | `send` itself, if the reactor is gone or its queue is full | the sender |
//! | | the reactor, if the connection is over by then | the connection's reactor |
//! | | the reactor's end, if it waits at that moment | the connection's reactor |

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use super::threads::answer::{AnswerSender, answer};
use super::threads::calls::{Calls, MessageRoom};
use super::{Builder, Reactor};
use crate::deferred::Deferred;
use crate::error::{ReactorGone, Unavailable, Undelivered, UndeliveredReason};
use crate::failure::{Failure, Result, guarded, guarded_result};
use crate::log::error;
use crate::protocol::{Connection, Protocol, find};
use crate::transport::Transport;
use crate::transport::id::Id;

/// Number of messages that may wait for one reactor, by default. Arbitrary: a few megabytes of
/// envelopes, and more than a turn of a healthy reactor lets come together.
const MESSAGES_PER_REACTOR: usize = 65_536;

/// A [`Connection`] for other threads: `Send`, `Sync`, cheap to clone. From [`Connection::remote`].
///
/// It keeps neither the connection nor its reactor alive.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use ropewalk::reactor::RemoteConnection;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// The members of a room, on all reactors of the process.
/// type Room = Arc<Mutex<Vec<RemoteConnection<Member>>>>;
///
/// struct Member { room: Room }
///
/// impl Protocol for Member {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         self.room.lock().unwrap().push(transport.connection().remote());
///         Ok(())
///     }
///
///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
///         let line: Arc<[u8]> = data.into();
///         for member in self.room.lock().unwrap().iter() {
///             // A member that is gone needs no line.
///             member.send(Arc::clone(&line), Member::hear, drop);
///         }
///         Ok(())
///     }
/// }
///
/// impl Member {
///     fn hear(&mut self, transport: &Transport, line: Arc<[u8]>) -> Result<()> {
///         transport.write(&line);
///         Ok(())
///     }
/// }
/// ```
pub struct RemoteConnection<P> {
    id: Id,
    /// `None`: the connection has no reactor.
    calls: Option<Arc<Calls<Reactor>>>,
    protocol: PhantomData<fn(&mut P)>,
}

impl<P: Protocol> Connection<P> {
    /// Returns a handle with which other threads send to this connection.
    ///
    /// A connection of the test kit that has no reactor, such as that of a `StringTransport`, gives
    /// every message back.
    pub fn remote(&self) -> RemoteConnection<P> {
        RemoteConnection { id: self.transport().id(), calls: calls(self.transport()), protocol: PhantomData }
    }
}

impl<P: Protocol> RemoteConnection<P> {
    /// Sends a message: has `call` called with the protocol, its transport and the message, on the
    /// thread of the connection's reactor, in its next turn. Any thread may send, that of the same
    /// reactor included.
    ///
    /// - `call` is guarded as every callback of a protocol: an `Err` or a panic ends that
    ///   connection, and no other.
    /// - Messages of one thread to the connections of one reactor are delivered in their order.
    /// - A connection that is closing, and has not lost its protocol yet, gets messages. One that
    ///   ends with a failure does not.
    /// - A paused transport gets messages: [`pause_producing`](Transport::pause_producing) is about
    ///   the bytes of the peer.
    /// - While the reactor does not run, the message waits.
    ///
    /// A message that is not delivered comes back: `returned` gets it, with the reason. `returned`
    /// is called on this thread, before `send` returns, if the reactor is gone or too many messages
    /// wait for it. Otherwise it is called on the reactor's thread, outside of all callbacks. A
    /// panic of it there is logged. Pass [`drop`] if the message is of no further use.
    ///
    /// In a forked child of the process every message comes back. A message that waited when the
    /// process forked belongs to the parent: the child neither delivers it nor gives it back.
    ///
    /// ```
    /// use ropewalk::error::Undelivered;
    /// use ropewalk::reactor::RemoteConnection;
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Worker;
    /// # impl Protocol for Worker {
    /// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
    /// # }
    ///
    /// fn give(worker: &RemoteConnection<Worker>, job: String) {
    ///     let work = |_: &mut Worker, transport: &Transport, job: String| {
    ///         transport.write(job.as_bytes());
    ///         Ok(())
    ///     };
    ///     worker.send(job, work, |undelivered: Undelivered<String>| {
    ///         eprintln!("{undelivered}: {}", undelivered.message);
    ///     });
    /// }
    /// ```
    pub fn send<M: Send + 'static>(
        &self,
        message: M,
        call: impl FnOnce(&mut P, &Transport, M) -> Result<()> + Send + 'static,
        returned: impl FnOnce(Undelivered<M>) + Send + 'static,
    ) {
        let Some(calls) = &self.calls else {
            return returned(Undelivered::new(message, UndeliveredReason::ConnectionGone));
        };
        let Some(room) = calls.reserve_message() else {
            return returned(Undelivered::new(message, UndeliveredReason::QueueFull));
        };
        let envelope = Envelope { contents: Some((message, call, returned)), _room: room };
        let id = self.id;
        // A refused call is dropped here, which gives the message back.
        let _ = calls.add(Box::new(move |reactor| envelope.deliver::<P>(reactor, id)));
    }

    /// Sends a message, as [`send`](Self::send) does, and returns a Deferred of `from`, the
    /// sender's reactor, that fires there with the result of `call`.
    ///
    /// # Errors
    /// The Deferred fails with the failure of `call`, which also ends the connection, and with
    /// [`Undelivered`] if the message comes back. It fails with
    /// [`Abandoned`](crate::deferred::Abandoned) if `from` closes first. Cancelling it does not
    /// take the message back.
    ///
    /// ```
    /// use ropewalk::reactor::RemoteConnection;
    /// # use ropewalk::{Deferred, Protocol, Reactor, Result, Transport};
    /// # struct Counter { seen: usize }
    /// # impl Protocol for Counter {
    /// #     fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> { self.seen += data.len(); Ok(()) }
    /// # }
    ///
    /// fn seen(reactor: &Reactor, there: &RemoteConnection<Counter>) -> Deferred<usize> {
    ///     there.ask(reactor, (), |counter, _transport, ()| Ok(counter.seen))
    /// }
    /// ```
    #[track_caller]
    pub fn ask<M: Send + Sync + 'static, T: Send + 'static>(
        &self,
        from: &Reactor,
        message: M,
        call: impl FnOnce(&mut P, &Transport, M) -> Result<T> + Send + 'static,
    ) -> Deferred<T> {
        let (sender, result) = answer();
        // One of the two functions is called, and takes the sender.
        let sender = Arc::new(Mutex::new(Some(sender)));
        let unsent = Arc::clone(&sender);
        let call = move |protocol: &mut P, transport: &Transport, message: M| {
            // A panic of `call` becomes the answer, before it ends the connection.
            let result = guarded_result(|| call(protocol, transport, message));
            let failure = result.as_ref().err().cloned();
            send_answer(&sender, result);
            failure.map_or(Ok(()), Err)
        };
        self.send(message, call, move |undelivered| send_answer(&unsent, Err(Failure::new(undelivered))));
        // Without an answer, the process has forked: the message belongs to the parent.
        let gone = || Failure::new(ReactorGone);
        from.spawn(async move { result.await.unwrap_or_else(|| Err(gone())) })
    }
}

impl<P> Clone for RemoteConnection<P> {
    fn clone(&self) -> Self {
        Self { id: self.id, calls: self.calls.clone(), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for RemoteConnection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteConnection").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Two handles are equal if they lead to the same connection.
impl<P> PartialEq for RemoteConnection<P> {
    fn eq(&self, other: &Self) -> bool {
        let reactor = |handle: &Self| handle.calls.as_ref().map(Arc::as_ptr);
        self.id == other.id && reactor(self) == reactor(other)
    }
}

impl<P> Eq for RemoteConnection<P> {}

impl Builder {
    /// Sets the number of messages that may wait for this reactor at a time, sent by
    /// [`RemoteConnection`]s: 65,536 by default. `None` is no limit, so that a reactor that is slow
    /// lets the memory of the process grow. Messages above the limit are given back to their
    /// senders, with [`UndeliveredReason::QueueFull`].
    ///
    /// [`Counters::messages_waiting`](super::Counters::messages_waiting) has their present number.
    pub fn message_limit(mut self, limit: Option<usize>) -> Self {
        self.message_limit = limit.unwrap_or(usize::MAX);
        self
    }

    pub(super) fn default_message_limit() -> usize {
        MESSAGES_PER_REACTOR
    }
}

/// A message on its way. Dropping it unopened gives the message back.
struct Envelope<M, C, R: FnOnce(Undelivered<M>)> {
    /// `None` once it is opened.
    contents: Option<(M, C, R)>,
    _room: MessageRoom<Reactor>,
}

impl<M, C, R: FnOnce(Undelivered<M>)> Envelope<M, C, R> {
    /// Delivers the message, or gives it back.
    fn deliver<P: Protocol>(mut self, reactor: &Reactor, id: Id)
    where
        C: FnOnce(&mut P, &Transport, M) -> Result<()>,
    {
        let Some((message, call, returned)) = self.contents.take() else { return };
        let mut undelivered = Some((message, call));
        let joint = reactor.0.joint(id).ok_or(Unavailable::Gone);
        let reached = joint.and_then(|joint| {
            joint.call_from_thread(&mut |protocol, transport| {
                let Some(protocol) = find::<P>(protocol) else { return Ok(()) };
                undelivered.take().map_or(Ok(()), |(message, call)| call(protocol, transport, message))
            })
        });
        let Some((message, _call)) = undelivered else { return };
        let reason = match reached {
            Ok(()) => UndeliveredReason::OtherProtocol,
            Err(_) => UndeliveredReason::ConnectionGone,
        };
        if let Err(panic) = guarded(|| returned(Undelivered::new(message, reason))) {
            error!(%panic, "a function for an undelivered message failed");
        }
    }
}

impl<M, C, R: FnOnce(Undelivered<M>)> Drop for Envelope<M, C, R> {
    fn drop(&mut self) {
        if let Some((message, _call, returned)) = self.contents.take() {
            returned(Undelivered::new(message, UndeliveredReason::ReactorGone));
        }
    }
}

/// Returns the queue of the reactor that a transport belongs to.
fn calls(transport: &Transport) -> Option<Arc<Calls<Reactor>>> {
    let mut found = None;
    transport.remote(&mut |calls: &dyn Any| found = calls.downcast_ref().cloned());
    found
}

/// Sends the answer, unless it was sent.
fn send_answer<T>(place: &Mutex<Option<AnswerSender<Result<T>>>>, answer: Result<T>) {
    let sender = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(sender) = sender {
        sender.send(answer);
    }
}
