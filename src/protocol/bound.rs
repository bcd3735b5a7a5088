//! [`BoundFutures`]: futures that end with a connection, from [`Spawner::spawn_for`].
//!
//! The joint of a connection keeps their cancellers. When the connection is lost, it calls them
//! before the last call of the protocol. A connection may be discarded in the middle of a callback,
//! and `discard` calls nothing: a future of the same spawner calls them then, in the next turn. A
//! future that is done leaves a canceller without an effect, and the list is swept whenever it
//! would grow.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::mem::{self, ManuallyDrop};
use std::task::Poll;

use crate::deferred::{Canceller, Spawner};

/// The futures that are bound to one connection.
///
/// Few connections have any, so the type has no drop glue, which would cost each of them 35
/// instructions. Its owner calls [`free`](Self::free).
#[derive(Default)]
pub(super) struct BoundFutures(ManuallyDrop<OnceCell<Box<BoundList>>>);

struct BoundList {
    /// Runs the future that cancels the others in the next turn.
    spawner: Spawner,
    cancellers: RefCell<Vec<Canceller>>,
}

impl BoundFutures {
    /// Adds a future of `spawner` that is to be cancelled with the others.
    pub(super) fn add(&self, spawner: &Spawner, canceller: Canceller) {
        let list =
            self.0.get_or_init(|| Box::new(BoundList { spawner: spawner.clone(), cancellers: RefCell::default() }));
        let mut cancellers = list.cancellers.borrow_mut();
        if cancellers.len() == cancellers.capacity() {
            // Amortized: a list that is still full doubles its capacity.
            cancellers.retain(|canceller| !canceller.is_gone());
        }
        cancellers.push(canceller);
    }

    /// Cancels all futures, in the order in which they were added.
    #[inline(always)]
    pub(super) fn cancel(&self) {
        if let Some(list) = self.0.get() {
            list.cancel();
        }
    }

    /// Cancels all futures in the next turn.
    #[inline(always)]
    pub(super) fn cancel_later(&self) {
        if let Some(list) = self.0.get() {
            list.cancel_later();
        }
    }

    /// Frees the list. Futures that are in it go on without the connection.
    #[inline(always)]
    pub(super) fn free(&mut self) {
        if self.0.get().is_some() {
            self.drop_list();
        }
    }

    #[cold]
    #[inline(never)]
    fn drop_list(&mut self) {
        drop(self.0.take());
    }
}

impl BoundList {
    #[cold]
    #[inline(never)]
    fn cancel(&self) {
        // A canceller may run code of the program.
        mem::take(&mut *self.cancellers.borrow_mut()).iter().for_each(Canceller::cancel);
    }

    #[cold]
    #[inline(never)]
    fn cancel_later(&self) {
        let cancellers = mem::take(&mut *self.cancellers.borrow_mut());
        let mut is_next_turn = false;
        let cancelled = self.spawner.spawn(poll_fn(move |context| {
            if is_next_turn {
                cancellers.iter().for_each(Canceller::cancel);
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
        let (spawner, mut bound) = (Spawner::new(|| {}), BoundFutures::default());
        let (first, first_end) = Promise::<()>::new();
        bound.add(&spawner, first_end.canceller());
        for _ in 0..10_000 {
            let (promise, end) = Promise::<()>::new();
            bound.add(&spawner, end.canceller());
            promise.callback(()).unwrap();
        }
        let (last, last_end) = Promise::<()>::new();
        bound.add(&spawner, last_end.canceller());
        let kept = bound.0.get().expect("futures are bound").cancellers.borrow().capacity();
        assert!(kept <= 8, "{kept}");
        bound.cancel();
        assert!(first.is_called() && last.is_called());
        bound.free();
        drop((first_end.add_errback(|_| ()), last_end.add_errback(|_| ())));
    }
}
