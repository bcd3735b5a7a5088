//! [`Wakeup`]: how other threads end the loop's sleep (Twisted: the waker, `wakeUp`), at no cost while it is awake.
//!
//! It is not a queue: whoever rings has put somewhere what the loop is to find. Calls from threads use it, and so may
//! whatever else is asked for from outside.
//!
//! | who rings | the loop |
//! |---|---|
//! | 1. puts something where the loop looks | 1. sets `asleep` |
//! | 2. clears `asleep` | 2. looks once more |
//! | 3. wakes the loop, if it was set | 3. waits, not at all if there was something; clears `asleep` |
//!
//! No wake-up is lost. Every change of `asleep` is a swap that acquires and releases, so the changes have one order, and
//! each sees all that was done before the earlier ones. Take anybody's step 2 and the loop's next step 1. If step 2 came
//! first, the loop sees what was put there when it looks, and does not wait. If it came later, and before the loop cleared
//! the flag again, the flag was set: then this one wakes the loop, or another that was in between does. If it came after the
//! loop had cleared the flag, the loop is awake, and there is a next step 1. A wake-up may come late, when the loop is awake
//! for another reason; that costs it one wait that ends at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::reactor::backend::Wake;

/// Wakes the loop if it sleeps.
pub(in crate::reactor) struct Wakeup {
    /// The loop waits, or is about to, and nobody has rung since.
    asleep: AtomicBool,
    /// `None` once the reactor is closed: threads may keep the wakeup, but not the descriptor.
    waker: Mutex<Option<Arc<dyn Wake>>>,
}

impl Wakeup {
    pub(in crate::reactor) fn new(waker: Arc<dyn Wake>) -> Self {
        Self { asleep: AtomicBool::new(false), waker: Mutex::new(Some(waker)) }
    }

    /// From any thread, after something was put where the loop looks. A system call only if the loop sleeps, and only for the
    /// first that rings.
    pub(in crate::reactor) fn ring(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            let waker = self.waker().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The loop is woken in another way from now on.
    pub(in crate::reactor) fn reopen(&self, waker: Arc<dyn Wake>) {
        let old = self.waker().replace(waker);
        drop(old);
    }

    /// There is no loop any more that could be woken.
    pub(in crate::reactor) fn close(&self) {
        let waker = self.waker().take();
        drop(waker);
    }

    fn waker(&self) -> MutexGuard<'_, Option<Arc<dyn Wake>>> {
        // Nothing panics while it holds the lock.
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop's step 1. It looks once more behind this, and may wait if there is nothing.
    #[inline]
    pub(in crate::reactor) fn fall_asleep(&self) {
        self.asleep.swap(true, Ordering::AcqRel);
    }

    /// The end of the loop's step 3.
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

    /// After this, a wake-up was lost.
    const LIMIT: Duration = Duration::from_secs(30);

    /// What a poller does: a wake-up ends the present wait, or the next.
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
        /// Says whether it was woken.
        fn wait(&self, timeout: Duration) -> bool {
            let (mut woken, _) =
                self.woke.wait_timeout_while(self.woken.lock().unwrap(), timeout, |woken| !*woken).unwrap();
            std::mem::take(&mut woken)
        }
    }

    /// A while that differs from round to round, so that the two sides meet at different moments.
    fn dawdle(round: usize) {
        for _ in 0..round * 7 % 97 {
            std::hint::spin_loop();
        }
    }

    /// F37: however putting and ringing meets the loop's falling asleep, it never sleeps on. Nobody rings again before what was
    /// put is taken, so that no later ring makes up for a lost one.
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
                    dawdle(round);
                    // Relaxed: only the wakeup may bring it across.
                    put.store(round, Ordering::Relaxed);
                    wakeup.ring();
                    while taken.load(Ordering::Relaxed) < round {
                        // Where both share one processor, the other side has to come to its turn.
                        if round % 2 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
                    }
                }
            })
        };
        let mut seen = 0;
        while seen < ROUNDS {
            let pause = seen / 97;
            dawdle(pause);
            wakeup.fall_asleep();
            let is_idle = put.load(Ordering::Relaxed) == seen;
            dawdle(pause + 1);
            let woken = poller.wait(if is_idle { LIMIT } else { Duration::ZERO });
            wakeup.wake_up();
            assert!(woken || !is_idle, "it slept on, with {seen} of {} seen", put.load(Ordering::Relaxed));
            seen = put.load(Ordering::Relaxed);
            taken.store(seen, Ordering::Relaxed);
        }
        ringing.join().unwrap();
    }

    /// Ringing costs nothing while the loop is awake, and one wake-up while it sleeps.
    #[test]
    fn only_a_sleeping_loop_is_woken() {
        let poller = Arc::new(Poller::default());
        let wakeup = Wakeup::new(poller.clone());
        let wakes = || poller.wakes.load(Ordering::Relaxed);
        wakeup.ring();
        assert_eq!(wakes(), 0);
        wakeup.fall_asleep();
        (0..3).for_each(|_| wakeup.ring());
        assert_eq!(wakes(), 1);
        wakeup.wake_up();
        wakeup.ring();
        assert_eq!(wakes(), 1);
    }
}
