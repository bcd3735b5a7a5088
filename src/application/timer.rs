//! A function that is called at intervals while a service runs (Twisted: `TimerService`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::{Service, fire_stopped};
use crate::deferred::{Deferred, Outcome, Promise};
use crate::task::LoopingCall;
use crate::time::Clock;

/// Calls a function at regular intervals while it runs (Twisted: `TimerService`). The rules for the
/// times of the calls are those of [`LoopingCall`].
///
/// The first call is made by `start_service`. If the function fails, the failure is logged and the
/// calls end. A stop and a start begin them again. The Deferred of `stop_service` fires when the
/// call that is under way is over.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use ropewalk::application::{Service, TimerService};
/// use ropewalk::testing::VirtualClock;
///
/// let clock = VirtualClock::new();
/// let count = Rc::new(Cell::new(0));
/// let counted = Rc::clone(&count);
/// let service = TimerService::new(&clock, Duration::from_secs(1), move || counted.set(counted.get() + 1));
/// service.start_service().or_log("starting");
/// clock.pump([Duration::from_secs(1); 2]);
/// service.stop_service().or_log("stopping");
/// clock.pump([Duration::from_secs(1); 2]);
/// assert_eq!(count.get(), 3);
/// ```
#[derive(Clone)]
pub struct TimerService {
    looping: LoopingCall,
    interval: Duration,
    runs: Rc<LoopRuns>,
}

/// The runs of the loop that have not ended.
#[derive(Default)]
struct LoopRuns {
    open: Cell<usize>,
    waiters: RefCell<Vec<Promise<()>>>,
}

impl TimerService {
    /// Makes a service that calls `call` each `interval`, on any clock. An interval of zero means
    /// every turn.
    pub fn new<R: Outcome<Output = ()>>(
        clock: &impl Clock,
        interval: Duration,
        call: impl FnMut() -> R + 'static,
    ) -> Self {
        Self { looping: LoopingCall::new(clock, call), interval, runs: Rc::default() }
    }

    /// Returns `true` while the function is called at intervals (Twisted: `running`). It is false
    /// again after a failure of the function.
    pub fn is_running(&self) -> bool {
        self.looping.is_running()
    }
}

impl Service for TimerService {
    fn start_service(&self) -> Deferred<()> {
        if self.looping.is_running() {
            return Deferred::succeed(());
        }
        let runs = Rc::clone(&self.runs);
        runs.open.set(runs.open.get() + 1);
        let ended = self.looping.start(self.interval).add_both(move |result| {
            runs.open.set(runs.open.get() - 1);
            if runs.open.get() == 0 {
                fire_stopped(runs.waiters.take(), Ok(()));
            }
            result
        });
        ended.or_log("the call of a timer service");
        Deferred::succeed(())
    }

    fn stop_service(&self) -> Deferred<()> {
        // A loop that does not run has ended by a failure, or is in its last call.
        let _ = self.looping.stop();
        if self.runs.open.get() == 0 {
            return Deferred::succeed(());
        }
        let (promise, stopped) = Promise::new();
        self.runs.waiters.borrow_mut().push(promise);
        stopped
    }
}

impl fmt::Debug for TimerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TimerService");
        shown.field("running", &self.is_running()).field("interval", &self.interval).finish_non_exhaustive()
    }
}
