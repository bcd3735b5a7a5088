//! [`BoundFutures`]: futures that end with a connection, from [`Spawner::spawn_for`].
//!
//! The joint of a connection keeps their cancellers. When the connection is lost, it calls them
//! before the last call of the protocol. A connection may be discarded in the middle of a callback,
//! and `discard` calls nothing: a future of the same spawner calls them then, in the next turn. A
//! future that is done leaves a canceller without an effect, and the list is swept whenever it
//! would grow.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::task::Poll;

use crate::deferred::{Canceller, Spawner};

/// The futures that are bound to one connection.
///
/// Few connections have any, so the type has no drop glue, which would cost each of them 35
/// instructions. Its owner calls [`clear`](Self::clear).
#[derive(Default)]
pub(super) struct BoundFutures(ManuallyDrop<Cell<Option<Box<BoundList>>>>);

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
            list.cancel_now();
        }
    }

    /// Lets the futures go on without the connection, and frees the list.
    #[inline(always)]
    pub(super) fn clear(&self) {
        if let Some(list) = self.0.take() {
            list.free();
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
    fn cancel(&self) {
        self.cancellers.iter().for_each(Canceller::cancel);
    }

    #[cold]
    #[inline(never)]
    #[expect(clippy::boxed_local, reason = "the drop of the box is out of line, too")]
    fn cancel_now(self: Box<Self>) {
        self.cancel();
    }

    #[cold]
    #[inline(never)]
    #[expect(clippy::boxed_local, reason = "the drop of the box is out of line, too")]
    fn free(self: Box<Self>) {}

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
