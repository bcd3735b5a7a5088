//! The reactor inside GLib's main loop, and so inside GTK: a source for the reactor's poller, and a
//! timeout for its next deadline. No waker is needed, because the poller's descriptor tells of
//! everything.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use glib::{ControlFlow, IOCondition, SourceId};
use ropewalk::error::ReactorError;
use ropewalk::reactor::HostedRun;
use ropewalk::{Reactor, Result};

/// Turns made in a row before other sources have their turn. 16, which is arbitrary: a busy reactor
/// must not freeze the windows.
const TURNS_AT_ONCE: usize = 16;

/// Begins a run inside the main loop of this thread's default context. `ended` is called when it is
/// over. Build the reactor with `signals(false)`.
///
/// The callbacks of the reactor must not run a main loop of their own (a modal dialog does): the
/// reactor stands still in it.
///
/// # Errors
/// The same as [`Reactor::begin_run`] and [`HostedRun::poller`].
pub fn attach(
    reactor: &Reactor,
    ended: impl FnOnce(Result<(), ReactorError>) + 'static,
) -> Result<Attached, ReactorError> {
    let run = reactor.begin_run()?;
    let poller = run.poller()?;
    let guest = Rc::new(Guest {
        run,
        poller,
        is_driving: Cell::new(false),
        watch: RefCell::default(),
        timeout: RefCell::default(),
        ended: RefCell::new(Some(Box::new(ended))),
    });
    let watched = Rc::downgrade(&guest);
    let watch = glib::source::unix_fd_add_local(guest.poller.as_raw_fd(), IOCondition::IN, move |_, _| {
        if let Some(guest) = watched.upgrade() {
            guest.drive(true);
        }
        ControlFlow::Continue
    });
    guest.watch.replace(Some(watch));
    guest.drive_after(Duration::ZERO);
    Ok(Attached(guest))
}

/// A run inside GLib's main loop. Dropping it leaves the run as [`Reactor::crash`] does.
#[must_use = "dropping it leaves the run"]
pub struct Attached(Rc<Guest>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.detach();
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("run", &self.0.run).finish_non_exhaustive()
    }
}

type Ended = Box<dyn FnOnce(Result<(), ReactorError>)>;

struct Guest {
    run: HostedRun,
    poller: OwnedFd,
    /// A turn is under way. A callback that runs a main loop of its own may lead here again.
    is_driving: Cell<bool>,
    watch: RefCell<Option<SourceId>>,
    timeout: RefCell<Option<SourceId>>,
    ended: RefCell<Option<Ended>>,
}

impl Guest {
    /// Makes the turns that are due. `is_readable`: the poller has told of something.
    fn drive(self: &Rc<Self>, is_readable: bool) {
        if self.is_driving.replace(true) {
            return;
        }
        let next = self.turns(is_readable);
        self.is_driving.set(false);
        match next {
            Ok(Next::Wait(longest)) => {
                self.cancel_timeout();
                if let Some(longest) = longest {
                    self.drive_after(longest);
                }
            }
            Ok(Next::Over) => self.end(Ok(())),
            Err(error) => self.end(Err(error)),
        }
    }

    fn turns(&self, is_readable: bool) -> Result<Next, ReactorError> {
        let mut is_due = is_readable;
        for _ in 0..TURNS_AT_ONCE {
            if !is_due {
                let longest = self.run.prepare_to_wait(None);
                if longest != Some(Duration::ZERO) {
                    return Ok(Next::Wait(longest));
                }
            }
            is_due = false;
            if !self.run.step(Some(Duration::ZERO))? {
                return Ok(Next::Over);
            }
        }
        Ok(Next::Wait(Some(Duration::ZERO)))
    }

    fn drive_after(self: &Rc<Self>, delay: Duration) {
        let guest: Weak<Self> = Rc::downgrade(self);
        // GLib counts in milliseconds. A timeout that is rounded down would come too early.
        let delay = Duration::from_millis(delay.as_nanos().div_ceil(1_000_000).min(u128::from(u32::MAX)) as u64);
        let timeout = glib::timeout_add_local_once(delay, move || {
            if let Some(guest) = guest.upgrade() {
                // The source is gone when this returns.
                guest.timeout.replace(None);
                guest.drive(false);
            }
        });
        self.timeout.replace(Some(timeout));
    }

    fn cancel_timeout(&self) {
        if let Some(timeout) = self.timeout.take() {
            timeout.remove();
        }
    }

    fn detach(&self) {
        self.cancel_timeout();
        if let Some(watch) = self.watch.take() {
            watch.remove();
        }
    }

    fn end(&self, result: Result<(), ReactorError>) {
        self.detach();
        if let Some(ended) = self.ended.take() {
            ended(result);
        }
    }
}

/// The step behind the turns.
enum Next {
    /// A wait, at most so long.
    Wait(Option<Duration>),
    Over,
}
