//! Waiting until a transport's queue is short: [`Transport::poll_drained`], for futures that write.
//!
//! A producer does not serve them. A push producer is paused only if the queue is above its mark
//! after the settling. So a writer that saw a long queue during the turn, and waits for a resume,
//! may never be told.

use std::fmt;
use std::task::{Context, Poll, Waker};

use super::Transport;

impl Transport {
    /// Waits until at most `low` bytes are [queued](Self::queued_bytes) (Twisted has producers
    /// instead). Also ready when nothing can be written any more.
    ///
    /// While the queue is longer, the waker of `cx` is kept, and woken at the end of the turn in
    /// which the queue is down to `low` bytes, or in which the write direction or the connection
    /// ends. A transport keeps one waker: that of the last call. The wait does not hold up
    /// [`lose_connection`](Self::lose_connection), as a paused producer does.
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use ropewalk::testing::{AccumulatingProtocol, PumpOptions, VirtualClock};
    ///
    /// let clock = VirtualClock::new();
    /// let (client, server) = (AccumulatingProtocol::new(), AccumulatingProtocol::new());
    /// let heard = server.record();
    /// let pump = PumpOptions::new().clock(&clock).room(1000).connect(client, server);
    /// let transport = pump.client().transport().clone();
    /// let sent = clock.spawner().spawn(async move {
    ///     for _ in 0..10 {
    ///         transport.write(&[7; 5000]);
    ///         poll_fn(|cx| transport.poll_drained(cx, 0)).await;
    ///     }
    /// });
    /// assert!(pump.client().transport().queued_bytes() <= 5000);
    /// pump.flush();
    /// assert_eq!((heard.data().len(), sent.is_called()), (50_000, true));
    /// ```
    pub fn poll_drained(&self, cx: &mut Context<'_>, low: usize) -> Poll<()> {
        {
            let mut stream = self.stream();
            if stream.is_drained(low) {
                let old = stream.take_drain_waiter();
                drop(stream);
                drop(old);
                return Poll::Ready(());
            }
            if stream.keeps_drain_waiter(low, cx.waker()) {
                return Poll::Pending;
            }
        }
        // Cloning and dropping a waker are calls of the program: nothing is borrowed meanwhile.
        let waker = cx.waker().clone();
        let old = self.stream().set_drain_waiter(low, waker);
        drop(old);
        // The clone may have used this transport.
        if self.stream().is_drained(low) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A future that waits for a short queue.
pub(super) struct DrainWaiter {
    /// Number of queued bytes at which it is woken.
    pub(super) low: usize,
    pub(super) waker: Waker,
    /// It is to be woken in phase 8.
    pub(super) is_due: bool,
}

impl fmt::Debug for DrainWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainWaiter").field("low", &self.low).field("is_due", &self.is_due).finish_non_exhaustive()
    }
}
