//! [`Wakeup`]: ends the wait of the loop from other threads (Twisted: the waker, `wakeUp`), at no
//! cost while the loop is awake.
//!
//! It is not a queue. Before a thread notifies the loop, it puts its data where the loop looks.
//! Calls from threads use it, and so may any other request from outside.
//!
//! | the notifying thread | the loop |
//! |---|---|
//! | 1. puts data where the loop looks | 1. sets `asleep` |
//! | 2. clears `asleep` | 2. looks once more |
//! | 3. wakes the loop, if `asleep` was set | 3. waits, or does not wait if it found data; clears `asleep` |
//!
//! No wake-up is lost. Every change of `asleep` is a swap that acquires and releases. So the
//! changes have one order, and each sees everything that was done before the earlier ones. Take
//! step 2 of any notifying thread, and the loop's next step 1:
//!
//! - If step 2 came first, the loop sees the data when it looks, and does not wait.
//! - If step 2 came later, and before the loop cleared the flag again, the flag was set. Then this
//!   thread wakes the loop, or another one that was in between does.
//! - If step 2 came after the loop had cleared the flag, the loop is awake, and there is a next
//!   step 1.
//!
//! A wake-up may come late, when the loop is awake for another reason. That costs the loop one wait
//! that ends at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::reactor::backend::Wake;

/// Wakes the loop if it sleeps.
pub(in crate::reactor) struct Wakeup {
    /// Set while the loop waits, or is about to, and no thread has notified it since.
    asleep: AtomicBool,
    targets: Mutex<Targets>,
}

/// The objects that a notification may wake.
struct Targets {
    /// `None` once the reactor is closed: threads may keep the `Wakeup`, but not the descriptor.
    waker: Option<Arc<dyn Wake>>,
    /// The host that waits in the place of the loop, if it has a waker. It is woken instead of the
    /// backend, once.
    host: Option<Waker>,
}

impl Wakeup {
    pub(in crate::reactor) fn new(waker: Arc<dyn Wake>) -> Self {
        Self { asleep: AtomicBool::new(false), targets: Mutex::new(Targets { waker: Some(waker), host: None }) }
    }

    /// Wakes the loop, from any thread, after data was put where the loop looks. It makes a system
    /// call only if the loop sleeps, and only for the first notification.
    pub(in crate::reactor) fn notify(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let mut targets = self.targets();
        let (host, waker) = (targets.host.take(), targets.waker.clone());
        // The lock is released first: a waker of a host is foreign code.
        drop(targets);
        match (host, waker) {
            (Some(host), _) => host.wake(),
            (None, Some(waker)) => waker.wake(),
            (None, None) => {}
        }
    }

    /// Replaces the waker.
    pub(in crate::reactor) fn reopen(&self, waker: Arc<dyn Wake>) {
        let old = self.targets().waker.replace(waker);
        drop(old);
    }

    /// Drops the waker, at the end of the loop.
    pub(in crate::reactor) fn close(&self) {
        let mut targets = self.targets();
        let (waker, host) = (targets.waker.take(), targets.host.take());
        drop(targets);
        drop((waker, host));
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        // No code panics while it holds the lock.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the waker of the host that is about to wait in the place of the loop, or removes it.
    pub(in crate::reactor) fn set_host(&self, host: Option<Waker>) {
        let mut targets = self.targets();
        let old = std::mem::replace(&mut targets.host, host);
        drop(targets);
        drop(old);
    }

    /// Step 1 of the loop. Afterwards the loop looks once more, and may wait if it finds no data.
    #[inline]
    pub(in crate::reactor) fn fall_asleep(&self) {
        self.asleep.swap(true, Ordering::AcqRel);
    }

    /// The end of step 3 of the loop.
    #[inline]
    pub(in crate::reactor) fn wake_up(&self) {
        self.asleep.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeup").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// After this time, a wake-up counts as lost.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A model of a poller: a wake-up ends the present wait, or the next.
    #[derive(Default)]
    struct Poller {
        woken: Mutex<bool>,
        wakes: AtomicUsize,
        woke: Condvar,
    }

    impl Wake for Poller {
        fn wake(&self) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            *self.woken.lock().unwrap() = true;
            self.woke.notify_one();
        }
    }

    impl Poller {
        /// Returns `true` if it was woken.
        fn wait(&self, timeout: Duration) -> bool {
            let (mut woken, _) =
                self.woke.wait_timeout_while(self.woken.lock().unwrap(), timeout, |woken| !*woken).unwrap();
            std::mem::take(&mut woken)
        }
    }

    /// Spins for a time that differs from round to round, so that the two sides meet at different
    /// moments.
    fn spin(round: usize) {
        for _ in 0..round * 7 % 97 {
            std::hint::spin_loop();
        }
    }

    /// F37: the loop never sleeps on, however putting and notifying coincide with its falling
    /// asleep. There is no second notification before the data is taken, so that no later one makes
    /// up for a lost one.
    #[test]
    fn no_ring_is_lost() {
        const ROUNDS: usize = 50_000;
        let poller = Arc::new(Poller::default());
        let wakeup = Arc::new(Wakeup::new(poller.clone()));
        let (put, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ringing = {
            let (wakeup, put, taken) = (Arc::clone(&wakeup), Arc::clone(&put), Arc::clone(&taken));
            thread::spawn(move || {
                for round in 1..=ROUNDS {
                    spin(round);
                    // Relaxed: only the wakeup may carry the data across.
                    put.store(round, Ordering::Relaxed);
                    wakeup.notify();
                    while taken.load(Ordering::Relaxed) < round {
                        // If both threads share one processor, the other one needs time to run.
                        if round % 2 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
                    }
                }
            })
        };
        let mut seen = 0;
        while seen < ROUNDS {
            let pause = seen / 97;
            spin(pause);
            wakeup.fall_asleep();
            let is_idle = put.load(Ordering::Relaxed) == seen;
            spin(pause + 1);
            let woken = poller.wait(if is_idle { LIMIT } else { Duration::ZERO });
            wakeup.wake_up();
            assert!(woken || !is_idle, "the loop slept on, with {seen} of {} seen", put.load(Ordering::Relaxed));
            seen = put.load(Ordering::Relaxed);
            taken.store(seen, Ordering::Relaxed);
        }
        ringing.join().unwrap();
    }

    /// A notification costs nothing while the loop is awake, and one wake-up while it sleeps.
    #[test]
    fn only_a_sleeping_loop_is_woken() {
        let poller = Arc::new(Poller::default());
        let wakeup = Wakeup::new(poller.clone());
        let wakes = || poller.wakes.load(Ordering::Relaxed);
        wakeup.notify();
        assert_eq!(wakes(), 0);
        wakeup.fall_asleep();
        (0..3).for_each(|_| wakeup.notify());
        assert_eq!(wakes(), 1);
        wakeup.wake_up();
        wakeup.notify();
        assert_eq!(wakes(), 1);
    }
}
