//! Futures that end with a connection: [`Spawner::spawn_for`].
//!
//! The joint of a connection keeps their cancellers. When the connection is lost, it calls them
//! before the last call of the protocol. A connection may be discarded in the middle of a callback,
//! and `discard` calls nothing: a future of the same spawner calls them then, in the next turn. A
//! future that is done leaves a canceller without an effect, and the list is swept whenever it
//! would grow.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::task::Poll;

use super::connection::joint;
use crate::deferred::{Cancelled, Canceller, Deferred, Outcome, Spawner};
use crate::failure::drop_guarded;
use crate::transport::Transport;

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

/// The futures that are bound to one connection.
#[derive(Default)]
pub(super) struct BoundFutures(Cell<Option<Box<BoundList>>>);

struct BoundList {
    spawner: Spawner,
    cancellers: Vec<Canceller>,
}

impl BoundFutures {
    /// Adds a future of `spawner` that is to be cancelled with the others.
    pub(super) fn add(&self, spawner: &Spawner, canceller: Canceller) {
        let mut list = self.0.take().unwrap_or_else(|| {
            let (spawner, cancellers) = (spawner.clone(), Vec::new());
            Box::new(BoundList { spawner, cancellers })
        });
        if list.cancellers.len() == list.cancellers.capacity() {
            // Amortized: a list that is still full doubles its capacity.
            list.cancellers.retain(|canceller| !canceller.is_gone());
        }
        list.cancellers.push(canceller);
        self.0.set(Some(list));
    }

    /// Cancels all futures, in the order in which they were added.
    #[inline(always)]
    pub(super) fn cancel(&self) {
        if let Some(list) = self.0.take() {
            list.cancel();
        }
    }

    /// Cancels all futures in the next turn.
    #[inline(always)]
    pub(super) fn cancel_later(&self) {
        if let Some(list) = self.0.take() {
            list.cancel_later();
        }
    }
}

impl BoundList {
    #[cold]
    #[inline(never)]
    fn cancel(&self) {
        self.cancellers.iter().for_each(Canceller::cancel);
    }

    #[cold]
    #[inline(never)]
    fn cancel_later(self: Box<Self>) {
        let spawner = self.spawner.clone();
        let mut is_next_turn = false;
        let cancelled = spawner.spawn(poll_fn(move |context| {
            if is_next_turn {
                self.cancel();
                return Poll::Ready(());
            }
            is_next_turn = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        // It fails if the spawner is closed, which has ended the futures in its own way.
        drop(cancelled.add_errback(|_closed| ()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deferred::Promise;

    /// Ten thousand futures that end one after the other leave a list of a few. Futures that
    /// are not done stay in it, in their order.
    #[test]
    fn the_list_is_swept() {
        let (spawner, bound) = (Spawner::new(|| {}), BoundFutures::default());
        let (first, first_end) = Promise::<()>::new();
        bound.add(&spawner, first_end.canceller());
        for _ in 0..10_000 {
            let (promise, end) = Promise::<()>::new();
            bound.add(&spawner, end.canceller());
            promise.callback(()).unwrap();
        }
        let (last, last_end) = Promise::<()>::new();
        bound.add(&spawner, last_end.canceller());
        let list = bound.0.take().expect("futures are bound");
        assert!(list.cancellers.capacity() <= 8, "{}", list.cancellers.capacity());
        bound.0.set(Some(list));
        bound.cancel();
        assert!(first.is_called() && last.is_called() && bound.0.take().is_none());
        drop((first_end.add_errback(|_| ()), last_end.add_errback(|_| ())));
    }
}
