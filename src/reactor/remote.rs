//! Calls from other threads (Twisted: `callFromThread`).

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Reactor;
use super::alarm::Alarm;
use crate::error::ReactorGone;

/// A reactor as other threads see it: `Send`, `Sync`, cheap to clone. From [`Reactor::remote`].
///
/// ```
/// use ropewalk::Reactor;
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::new()?;
/// let remote = reactor.remote();
/// let worker = std::thread::spawn(move || {
///     remote.call_from_thread(|reactor| {
///         reactor.stop().expect("it runs, for it runs this call");
///     })
/// });
/// reactor.run()?;
/// worker.join().expect("the thread did not panic")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Remote(Arc<Queue>);

/// A call on its way to the reactor's thread.
pub(super) type Call = Box<dyn FnOnce(&Reactor) + Send>;

struct Queue {
    /// `None` once the reactor is gone.
    calls: Mutex<Option<Vec<Call>>>,
    /// Whether there may be calls: what the reactor looks at each turn, without the lock.
    waiting: AtomicBool,
    alarm: Arc<Alarm>,
}

impl Remote {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self(Arc::new(Queue { calls: Mutex::new(Some(Vec::new())), waiting: AtomicBool::new(false), alarm }))
    }

    /// Has `call` run on the reactor's thread, in its next turn, and wakes the reactor if it sleeps (Twisted:
    /// `callFromThread`). Callable from any thread, the reactor's own included. The calls of one thread run in their order.
    ///
    /// A reactor that is not running keeps the calls until it is.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor was dropped; `call` is dropped then, on this thread.
    pub fn call_from_thread(&self, call: impl FnOnce(&Reactor) + Send + 'static) -> Result<(), ReactorGone> {
        let mut calls = self.calls();
        let queue = calls.as_mut().ok_or(ReactorGone)?;
        queue.push(Box::new(call));
        self.0.waiting.store(true, Ordering::Release);
        drop(calls);
        self.0.alarm.ring();
        Ok(())
    }

    /// Whether there may be calls.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// The calls queued so far.
    pub(super) fn take(&self) -> Vec<Call> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let mut calls = self.calls();
        self.0.waiting.store(false, Ordering::Relaxed);
        calls.as_mut().map(mem::take).unwrap_or_default()
    }

    /// The reactor goes; so do the calls that nobody will make.
    pub(super) fn close(&self) {
        let calls = self.calls().take();
        drop(calls);
    }

    fn calls(&self) -> MutexGuard<'_, Option<Vec<Call>>> {
        // Nothing in here panics while it holds the lock; a poisoned one is as good as any.
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
