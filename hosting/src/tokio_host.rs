//! The reactor inside tokio: a future that drives a run.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ropewalk::error::ReactorError;
use ropewalk::reactor::HostedRun;
use ropewalk::{Reactor, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep, sleep_until};

/// Turns made in a row before other tasks of the runtime have their turn. 16: a busy reactor must
/// not starve them, and a wake-up of the runtime for each turn would cost more than the turn.
const TURNS_AT_ONCE: usize = 16;

/// A run of a reactor, as a future. It completes when the reactor has stopped, and makes a turn
/// only when there is something to do.
///
/// It is not `Send`, as the reactor is not: await it in `Runtime::block_on` of a current-thread
/// runtime, or spawn it in a `LocalSet`. Dropping it leaves the run as
/// [`Reactor::crash`] does.
pub struct Hosted {
    run: HostedRun,
    poller: AsyncFd<OwnedFd>,
    /// The timer of the reactor's next deadline.
    timer: Pin<Box<Sleep>>,
}

impl Hosted {
    /// Begins a run, inside a runtime with I/O and time. Build the reactor with `signals(false)`:
    /// tokio handles the signals.
    ///
    /// # Errors
    /// The same as [`Reactor::begin_run`], and an error of the system if the descriptor cannot be
    /// watched.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[allow(deprecated, reason = "the call in its place is unsafe; this descriptor is owned, and open until the drop")]
    pub fn begin(reactor: &Reactor) -> Result<Self> {
        let run = reactor.begin_run()?;
        let poller = AsyncFd::with_interest(run.poller()?, Interest::READABLE)?;
        Ok(Self { run, poller, timer: Box::pin(sleep_until(Instant::now())) })
    }

    /// Makes one turn. Returns `true` if the run is over.
    fn step(&self) -> Result<bool, ReactorError> {
        Ok(!self.run.step(Some(Duration::ZERO))?)
    }

    /// Returns `true` if the timer of the deadline has passed.
    fn is_due(&mut self, longest: Option<Duration>, context: &mut Context<'_>) -> bool {
        let Some(deadline) = longest.and_then(|longest| Instant::now().checked_add(longest)) else { return false };
        self.timer.as_mut().reset(deadline);
        self.timer.as_mut().poll(context).is_ready()
    }

    /// Takes the readiness of the poller. Returns `true` if it was readable.
    fn is_readable(&self, context: &mut Context<'_>) -> io::Result<bool> {
        match self.poller.poll_read_ready(context) {
            Poll::Ready(ready) => {
                // The next turn takes all events. A later event is a new edge.
                ready?.clear_ready();
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }
}

impl Future for Hosted {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        for _ in 0..TURNS_AT_ONCE {
            let longest = this.run.prepare_to_wait(Some(context.waker()));
            let is_due = longest == Some(Duration::ZERO) || this.is_readable(context)? || this.is_due(longest, context);
            if !is_due {
                return Poll::Pending;
            }
            if this.step()? {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("run", &self.run).finish_non_exhaustive()
    }
}
