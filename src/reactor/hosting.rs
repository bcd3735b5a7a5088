//! [`Reactor::begin_run`] and [`HostedRun`]: a run inside an event loop that is not ours, the host
//! (Twisted: `asyncioreactor`, `gireactor` and their like, where Twisted's loop is a guest).
//!
//! The host waits in the place of the loop. While it does, everything that would end a wait of the
//! loop has to wake the host:
//!
//! | reason | reported by |
//! |---|---|
//! | the network, signals | the poller's descriptor |
//! | a deadline | the time that [`HostedRun::prepare_to_wait`] returns |
//! | events left over from the last turn | that time is zero |
//! | calls from other threads, wakers of futures | `Wakeup`, which is marked as asleep (`threads/wakeup.rs`) |
//! | a connection that becomes dirty outside of a turn | `TransportContext::add_dirty` |
//! | a timer with an earlier deadline | `Timers::fall_asleep` |
//! | a request to the backend outside of a turn | [`Core::backend_for_request`] |
//! | `stop`, `crash`, `close` | `Core::stop`, `Core::crash`, `Core::end` |
//! | a result that a startup or shutdown waits for | `Triggers::fire`, `Core::cancel_job` |
//! | a call for the end of a turn | `Core::at_end_of_turn` |
//!
//! A loop that waits between the program's hooks is woken through the same doors (`awake.rs`).
//!
//! None of them costs anything in a turn: each is a flag that is set only while a host waits.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;
use std::time::Duration;

use super::Reactor;
use super::core::Core;
use crate::error::ReactorError;
use crate::time::Clock;

impl Reactor {
    /// Begins a run that another event loop drives: the host, such as an async runtime or a user
    /// interface. [`HostedRun`] shows how.
    ///
    /// The run is like one of [`run`](Self::run): startup triggers run, [`stop`](Self::stop) shuts
    /// down in the same order, and [`is_running`](Self::is_running) returns `true` between.
    ///
    /// Build the reactor with [`signals(false)`](super::Builder::signals). Otherwise SIGINT and
    /// SIGTERM are handled by the reactor from here to the end of the run, and have no effect while
    /// the host does not step.
    ///
    /// # Errors
    /// - [`ReactorError::AlreadyRunning`] while a run is under way, hosted or not, and from inside
    ///   the loop or a call of [`Connection::with`](crate::Connection::with).
    /// - [`ReactorError::Closed`] after [`close`](Self::close).
    /// - [`ReactorError::ForkedChild`] in a forked child that cannot take the reactor over.
    /// - [`ReactorError::Setup`] if signal handlers cannot be installed.
    pub fn begin_run(&self) -> Result<HostedRun, ReactorError> {
        self.0.begin_run()?;
        Ok(HostedRun { reactor: self.clone(), is_over: Cell::new(false) })
    }
}

/// A run of a reactor inside another event loop, from [`Reactor::begin_run`].
///
/// The host repeats these steps on the reactor's thread:
///
/// 1. Call [`prepare_to_wait`](Self::prepare_to_wait). If it returns a time of zero, go to step 3.
/// 2. Wait until the [`poller`](Self::poller) is readable, or the returned time has passed, or the
///    waker was called. In the last two cases, go to step 1.
/// 3. Call [`step`](Self::step) with a limit of zero. If it returns `false`, the run is over.
///
/// So a host makes no turn while nothing happens. Between the steps it may do anything, also use
/// the reactor: a request from outside of a turn wakes the host. A host that stops stepping loses
/// nothing, and goes on later; meanwhile the reactor stands still, with its timers and deadlines.
///
/// Dropping this value leaves the run as [`Reactor::crash`] does: no triggers run, and connections
/// and ports stay open for the next run. To end it in order, call [`Reactor::stop`], and step until
/// the run is over. The value keeps the reactor from being closed by the drop of its last handle.
///
/// A host that can only poll descriptors:
///
/// ```
/// use std::time::Duration;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
/// use ropewalk::{Clock, Reactor};
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::builder().signals(false).build()?;
/// let handle = reactor.clone();
/// reactor.call_later(Duration::from_millis(5), move || handle.stop().expect("the reactor runs"));
///
/// let run = reactor.begin_run()?;
/// let poller = run.poller()?;
/// loop {
///     let longest = run.prepare_to_wait(None);
///     if longest != Some(Duration::ZERO) {
///         let timeout = longest.map(|longest| Timespec::try_from(longest).expect("it is below 146 years"));
///         let mut descriptors = [PollFd::new(&poller, PollFlags::IN)];
///         if poll(&mut descriptors, timeout.as_ref())? == 0 {
///             continue;
///         }
///     }
///     if !run.step(Some(Duration::ZERO))? {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it leaves the run"]
pub struct HostedRun {
    reactor: Reactor,
    is_over: Cell<bool>,
}

impl HostedRun {
    /// Makes one turn of the run. Returns `false` if the run is over, because the reactor has
    /// stopped, crashed or was closed.
    ///
    /// A host passes a limit of zero, and the turn does not wait. With another limit the turn waits
    /// as one of [`Reactor::run`] does, at most so long; `None` is no limit.
    ///
    /// # Errors
    /// - [`ReactorError::AlreadyRunning`] from inside the loop, or from inside a call of
    ///   [`Connection::with`](crate::Connection::with). The run goes on.
    /// - [`ReactorError::NotRunning`] if the run was over before.
    /// - [`ReactorError::ForkedChild`] in a forked child of the reactor's process.
    /// - [`ReactorError::Poll`] if the poller fails. Every connection is lost before this returns,
    ///   and the run is over.
    pub fn step(&self, longest: Option<Duration>) -> Result<bool, ReactorError> {
        let core = &self.reactor.0;
        if core.has_control() {
            return Err(ReactorError::AlreadyRunning);
        }
        if core.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        if self.is_over() {
            return Err(ReactorError::NotRunning);
        }
        core.end_host_wait();
        // If a panic gets out of the turn, it ends the run.
        self.is_over.set(true);
        let stepped = core.step(longest);
        if matches!(stepped, Ok(true)) {
            self.is_over.set(false);
        } else {
            core.end_hosting();
        }
        stepped
    }

    /// Prepares a wait of the host. Returns how long it may be: `None` is without limit, and zero
    /// means that there is work, so [`step`](Self::step) is due at once.
    ///
    /// The host also has to wait for the [`poller`](Self::poller), and for `waker`. The waker is
    /// called once, from any thread, when there is work that the poller does not report: a call
    /// from another thread, a woken future, or a request to the reactor, a transport or a timer
    /// that the host's own code makes meanwhile. The waker must not step, and is not told whether
    /// it was right: the host prepares again.
    ///
    /// Without a waker, the poller becomes readable for these as well, at the cost of a system call
    /// each time. That suits hosts that only poll descriptors.
    ///
    /// Each call replaces the one before. A host whose timers are coarse rounds the time up; a
    /// timer of the reactor is never early.
    pub fn prepare_to_wait(&self, waker: Option<&Waker>) -> Option<Duration> {
        if self.is_over() {
            return Some(Duration::ZERO);
        }
        self.reactor.0.prepare_to_wait(waker)
    }

    /// Returns a descriptor for the host's poller. It is readable while a [`step`](Self::step)
    /// would find something, and stays readable until then (level-triggered). Watch it for reading,
    /// and never read it.
    ///
    /// It is a duplicate, which the host owns, with close-on-exec set. One is enough for a run. It
    /// reports nothing after the run.
    ///
    /// # Errors
    /// - [`ReactorError::NotRunning`] if the run is over.
    /// - [`ReactorError::ForkedChild`] in a forked child of the reactor's process.
    /// - [`ReactorError::Setup`] if the system provides no descriptor. A simulated reactor has
    ///   none.
    pub fn poller(&self) -> Result<OwnedFd, ReactorError> {
        let core = &self.reactor.0;
        if core.is_forked_child() {
            return Err(ReactorError::ForkedChild);
        }
        if self.is_over() || core.is_closed() {
            return Err(ReactorError::NotRunning);
        }
        core.awake_backend()
            .map_err(io::Error::from)
            .and_then(|mut backend| backend.poller())
            .map_err(ReactorError::Setup)
    }

    /// Returns `true` if the run is over: [`step`](Self::step) has returned `false` or an error of
    /// the poller.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Returns the reactor.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }
}

impl Drop for HostedRun {
    fn drop(&mut self) {
        let core = &self.reactor.0;
        if self.is_over() || core.is_forked_child() {
            return;
        }
        core.end_hosting();
        // No turn is under way: a turn borrows this value.
        core.finish();
    }
}

impl fmt::Debug for HostedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedRun").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Core {
    /// Prepares a wait of the host: see [`HostedRun::prepare_to_wait`].
    fn prepare_to_wait(&self, waker: Option<&Waker>) -> Option<Duration> {
        self.end_host_wait();
        if self.has_control() || self.is_closed() || self.is_forked_child() || self.is_busy() {
            return Some(Duration::ZERO);
        }
        if !self.backend.borrow_mut().prepare_to_wait() {
            return Some(Duration::ZERO);
        }
        let left = self.timers.next_deadline().map(|next| next.saturating_sub(self.timers.seconds()));
        if left == Some(Duration::ZERO) {
            return left;
        }
        // As in a turn: the loop is marked as asleep first, and then looks once more.
        if !self.threads.begin_host_wait(waker.cloned(), || !self.spawner.is_woken()) {
            self.threads.end_host_wait();
            return Some(Duration::ZERO);
        }
        self.context.watch_dirty(true);
        self.timers.fall_asleep();
        left
    }

    /// Marks the host as awake.
    fn end_host_wait(&self) {
        if self.threads.end_host_wait() {
            self.context.watch_dirty(false);
            self.timers.wake_up();
        }
    }

    /// Ends what a host has asked for, at the end of its run.
    fn end_hosting(&self) {
        self.end_host_wait();
        if !self.is_forked_child() {
            self.backend.borrow_mut().end_hosting();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call for the end of a turn that is not under way wakes the host, like the requests that
    /// leave such calls.
    #[test]
    fn a_call_for_the_end_of_a_turn_wakes_the_host() -> Result<(), ReactorError> {
        let reactor = Reactor::builder().signals(false).build()?;
        let run = reactor.begin_run()?;
        let (alarm, called) = (Arc::new(Alarm::default()), std::rc::Rc::new(Cell::new(false)));
        let waker = Waker::from(Arc::clone(&alarm));
        while run.prepare_to_wait(Some(&waker)) == Some(Duration::ZERO) {
            run.step(Some(Duration::ZERO))?;
        }
        let told = std::rc::Rc::clone(&called);
        reactor.0.at_end_of_turn(move |_| told.set(true));
        assert_eq!((alarm.0.load(Ordering::Relaxed), called.get()), (1, false));
        assert_eq!(run.prepare_to_wait(Some(&waker)), Some(Duration::ZERO));
        run.step(Some(Duration::ZERO))?;
        assert!(called.get());
        Ok(())
    }
}
