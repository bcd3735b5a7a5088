//! The answer of another thread: a value that is sent once, and awaited by a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Makes the two ends of an answer.
pub(in crate::reactor) fn answer<T>() -> (AnswerSender<T>, Answer<T>) {
    let shared = Arc::new(Mutex::new(AnswerState { value: None, sender_is_gone: false, waker: None }));
    (AnswerSender(Arc::clone(&shared)), Answer(shared))
}

/// The sending end. Dropping it without an answer ends the waiting, too.
pub(in crate::reactor) struct AnswerSender<T>(Arc<Mutex<AnswerState<T>>>);

impl<T> AnswerSender<T> {
    /// Sends the answer, from any thread.
    pub(in crate::reactor) fn send(self, value: T) {
        lock(&self.0).value = Some(value);
        // Dropping `self` wakes the future.
    }
}

impl<T> Drop for AnswerSender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.sender_is_gone = true;
        let waker = state.waker.take();
        // A waker is foreign code: nothing is locked while it runs.
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The future of an answer. `None`: the sender was dropped without one.
pub(in crate::reactor) struct Answer<T>(Arc<Mutex<AnswerState<T>>>);

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        if state.sender_is_gone {
            return Poll::Ready(state.value.take());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

struct AnswerState<T> {
    value: Option<T>,
    sender_is_gone: bool,
    waker: Option<Waker>,
}

fn lock<T>(state: &Mutex<AnswerState<T>>) -> MutexGuard<'_, AnswerState<T>> {
    // No code panics while it holds the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer, and a sender that goes without one, both end the waiting and wake the future.
    #[test]
    fn an_answer_and_a_lost_sender_end_the_waiting() {
        let mut context = Context::from_waker(Waker::noop());
        let (sender, mut answer_of_one) = answer();
        assert!(Pin::new(&mut answer_of_one).poll(&mut context).is_pending());
        sender.send(1);
        assert_eq!(Pin::new(&mut answer_of_one).poll(&mut context), Poll::Ready(Some(1)));
        let (sender, mut answer_of_none) = answer::<u8>();
        drop(sender);
        assert_eq!(Pin::new(&mut answer_of_none).poll(&mut context), Poll::Ready(None));
    }
}
