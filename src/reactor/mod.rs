//! The reactor: the event loop, and the room that makes system calls (Twisted: `IReactorCore`, `IReactorTCP`,
//! `IReactorTime`, `IReactorThreads`).
//!
//! [`Reactor`] is a cheap handle to a loop that is a plain value: a process may have many, and one that has stopped can
//! run again. A reactor lives on the thread that made it; other threads reach it through its [`Remote`].
//!
//! | file or folder | holds |
//! |---|---|
//! | `core.rs`, `backend_kind.rs` | the parts of a reactor, and the choice of its backend |
//! | `run.rs` | starting, stopping, crashing |
//! | `turn.rs`, `aftermath.rs` | the phases of one turn, and the work that one leaves for another |
//! | `react.rs` | a whole program |
//! | `life.rs`, `process.rs` | the owner of a reactor, and its end; forked children |
//! | `triggers.rs`, `events.rs` | system events: startup, shutdown, and the program's own |
//! | `signals.rs` | signal handlers |
//! | `signal_handling.rs`, `on_signal.rs` | subscribers, and what the loop does when a signal came |
//! | `net/` | ports, connections, attempts, names |
//! | `threads/` | jobs in threads, and calls from threads |
//! | `slot_map.rs`, `paged_vec.rs` | the table of what is watched |
//! | `backend/` | the system calls |

mod aftermath;
mod backend;
mod backend_kind;
mod core;
mod events;
mod life;
mod net;
mod on_signal;
mod paged_vec;
mod process;
mod react;
mod run;
mod run_state;
mod signal_handling;
mod signals;
mod slot_map;
#[cfg(test)]
mod tests;
mod threads;
mod triggers;
mod turn;

use std::fmt;
use std::mem;
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(crate) use self::backend::{AnyBackend, ConnectionOptions};
#[cfg(feature = "testing")]
pub(crate) use self::backend::{
    Backend, BackendEvent, Completion, ConnectRefusal, DialOptions, Inbox, Incoming, IncomingSocket, Interest,
    ListenRefusal, PortOptions, Progress, RECEIVE, Wake,
};
pub use self::backend_kind::BackendKind;
use self::core::{Core, Slot};
use self::life::Handle;
pub(crate) use self::net::dial::Destination;
pub use self::net::options::{ConnectOptions, ListenOptions, UnixConnectOptions, UnixListenOptions};
pub use self::net::port::Port;
pub use self::net::resolver::{Resolver, SystemResolver};
pub use self::on_signal::SignalSubscription;
pub use self::react::{Finish, run};
pub use self::threads::pool::ThreadPoolStatistics;
pub use self::threads::remote::Remote;
pub use self::threads::thread_pool::ThreadPool;
pub use self::triggers::{NoSuchTrigger, Phase, SystemEvent, TriggerId};
/// Numbers of signals, for [`Reactor::on_signal`]. They differ from one system to another.
pub use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use crate::deferred::{Deferred, Outcome, Spawner};
use crate::error::ReactorError;
use crate::failure::{Result, guarded};
use crate::log::error;
use crate::time::{Clock, Timers};
use crate::transport::observer::Observer;

/// How long a shutdown waits for triggers that returned a Deferred, unless said otherwise. A minute: longer than any of
/// our own deadlines, short enough that a service manager does not lose patience first.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// The event loop (Twisted: `reactor`).
///
/// A cheap handle: clones name the same loop, and are what callbacks keep. Not `Send`; see [`remote`](Self::remote).
/// Its time and its timers are those of [`Clock`].
///
/// The reactor closes when its last handle is dropped. A handle that is kept by something that waits in the reactor (a timer, a
/// future, a trigger, a factory, a protocol, a callback of a Deferred) counts as well, so such a program ends its reactor with
/// [`close`](Self::close). A `run` that returns does not close: what waits goes on in the next run.
///
/// A reactor belongs to the process that made it. A process that forks before the reactor's first turn, as a daemon does, may go on
/// with it in the child, which takes it over with its next `run`, `iterate`, `listen` or `connect`. In any other forked child every call
/// says so ([`ReactorError::ForkedChild`] and its like), and dropping the reactor closes its descriptors and does nothing else.
///
/// ```
/// use ropewalk::{Clock, Reactor};
/// use std::time::Duration;
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::new()?;
/// let handle = reactor.clone();
/// reactor.call_later(Duration::from_millis(10), move || {
///     handle.stop().expect("a reactor that makes calls is running");
/// });
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Reactor(Rc<Handle>);

impl Reactor {
    /// A reactor with the usual settings: SIGINT and SIGTERM stop it, shutdown waits a minute for its triggers.
    ///
    /// # Errors
    /// [`ReactorError::Setup`] where the system gives us no poller, or `ROPEWALK_BACKEND` is no name of a backend.
    pub fn new() -> Result<Self, ReactorError> {
        Self::builder().build()
    }

    /// A reactor with other settings.
    pub fn builder() -> Builder {
        Builder {
            signals: true,
            shutdown_timeout: Some(SHUTDOWN_TIMEOUT),
            backend: None,
            resolver: Rc::new(SystemResolver),
            simulated_jobs: None,
            observer: None,
        }
    }

    /// Runs the loop until [`stop`](Self::stop), [`crash`](Self::crash), SIGINT or SIGTERM (Twisted: `run`). A reactor that
    /// has stopped can run again (Twisted's cannot).
    ///
    /// # Errors
    /// [`ReactorError::AlreadyRunning`] from inside the loop, or of a call of [`Connection::with`](crate::Connection::with); [`ReactorError::Closed`];
    /// [`ReactorError::Setup`] where signal handlers can't be installed; [`ReactorError::Poll`] where the poller fails, after every
    /// connection was told.
    pub fn run(&self) -> Result<(), ReactorError> {
        self.0.run()
    }

    /// Makes one turn of the loop: what is due is done, and if there is nothing to do, waits at most `delay` for something
    /// to happen (Twisted: `iterate`). For programs that bring their own loop, and for tests; needs no [`run`](Self::run). No wait is
    /// longer than 24 days.
    ///
    /// # Errors
    /// [`ReactorError::AlreadyRunning`] from inside the loop, or of a call of [`Connection::with`](crate::Connection::with); [`ReactorError::Closed`];
    /// [`ReactorError::Poll`] where the poller fails.
    pub fn iterate(&self, delay: Duration) -> Result<(), ReactorError> {
        self.0.iterate(delay)
    }

    /// Stops a running loop (Twisted: `stop`): a startup that is under way is finished first, without waiting for its Deferreds;
    /// this turn is finished; the `Before` triggers of [`SystemEvent::Shutdown`] run, and
    /// the loop goes on until their Deferreds have their results; then ports close, every connection is lost
    /// with [`ReactorStopped`](crate::error::ConnectionClosed::ReactorStopped), every factory stops, jobs in threads come to
    /// their end, the remaining triggers run, and [`run`](Self::run) returns.
    ///
    /// # Errors
    /// [`ReactorError::NotRunning`] when it does not run or is stopping already.
    pub fn stop(&self) -> Result<(), ReactorError> {
        self.0.stop()
    }

    /// Leaves the loop at the end of this turn, without triggers, and without closing anything (Twisted: `crash`). Connections
    /// and ports wait for the next [`run`](Self::run). The triggers of a startup that is under way still run.
    ///
    /// # Errors
    /// [`ReactorError::NotRunning`] when it does not run.
    pub fn crash(&self) -> Result<(), ReactorError> {
        self.0.crash()
    }

    /// Whether the loop runs: from the `During` triggers of its startup until a shutdown comes to `During`, where connections are
    /// closed (Twisted: `running`).
    pub fn is_running(&self) -> bool {
        self.0.run.is_running()
    }

    /// The signal that stopped the last [`run`](Self::run), if one did (Twisted: `_exitSignal`).
    pub fn exit_signal(&self) -> Option<i32> {
        self.0.run.exit_signal()
    }

    /// Calls `call` now if the reactor [runs](Self::is_running), otherwise after its next startup (Twisted: `callWhenRunning`). A
    /// panic is logged. A closed reactor drops `call`.
    #[track_caller]
    pub fn call_when_running(&self, call: impl FnOnce() + 'static) -> Option<TriggerId> {
        if self.is_running() {
            if let Err(failure) = guarded(call) {
                error!(%failure, "a call failed");
            }
            return None;
        }
        Some(self.0.triggers.add(Phase::After, SystemEvent::Startup, call))
    }

    /// Runs a future on this reactor (Twisted: `ensureDeferred`, `inlineCallbacks`): at once up to its first wait, then, whenever
    /// it was woken, in phase 6 of a turn. See [`Spawner::spawn`]. One that is not done when a run ends goes on in the next run;
    /// one that is not done when the reactor closes is dropped.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::task::defer_later;
    /// use ropewalk::Reactor;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let handle = reactor.clone();
    /// let done = reactor.spawn(async move {
    ///     defer_later(&handle, Duration::from_millis(10), || Ok(())).await?;
    ///     handle.stop()?;
    ///     Ok("slept well")
    /// });
    /// reactor.run()?;
    /// assert!(done.is_called());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Deferred<<F::Output as Outcome>::Output>
    where
        F: Future + 'static,
        F::Output: Outcome + 'static,
    {
        self.0.spawner.spawn(future)
    }

    /// What runs futures on this reactor: a handle for code that needs no more of it.
    pub fn spawner(&self) -> &Spawner {
        &self.0.spawner
    }

    /// A run begins, for whoever drives it with [`step`](Self::step)s.
    #[cfg(feature = "testing")]
    pub(crate) fn begin_run(&self) -> Result<(), ReactorError> {
        self.0.begin_run()
    }

    /// A turn of a run. `false`: the run is over.
    #[cfg(feature = "testing")]
    pub(crate) fn step(&self, longest: Option<Duration>) -> Result<bool, ReactorError> {
        self.0.step(longest)
    }

    /// Whether a turn would not wait, whatever the network has.
    #[cfg(feature = "testing")]
    pub(crate) fn is_busy(&self) -> bool {
        self.0.is_busy()
    }

    /// Whether both are handles to the same reactor.
    #[cfg(feature = "testing")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn downgrade(&self) -> WeakReactor {
        WeakReactor(Rc::downgrade(&self.0))
    }

    /// What does its system calls. A simulated reactor has none, and says mio.
    pub fn backend(&self) -> BackendKind {
        self.0.settings.backend.unwrap_or(BackendKind::Mio)
    }

    /// What this reactor has counted since it was made.
    pub fn counters(&self) -> Counters {
        let jobs = self.0.threads.load();
        Counters {
            stale_events: self.0.backend.borrow().stale(),
            watched: self.0.slots.borrow().len(),
            jobs_waiting: jobs.queued,
            threads_at_work: jobs.working,
            ..self.0.counters.get()
        }
    }
}

impl Clock for Reactor {
    fn timers(&self) -> &Timers {
        &self.0.timers
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("running", &self.is_running()).finish_non_exhaustive()
    }
}

/// A handle that does not keep the reactor alive: for what the reactor itself keeps.
#[derive(Debug, Clone)]
pub(crate) struct WeakReactor(Weak<Handle>);

impl WeakReactor {
    /// The reactor, unless it is gone.
    pub(crate) fn upgrade(&self) -> Option<Reactor> {
        self.0.upgrade().map(Reactor)
    }
}

/// Settings of a reactor. From [`Reactor::builder`].
///
/// ```
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = ropewalk::Reactor::builder().signals(false).shutdown_timeout(None).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    signals: bool,
    shutdown_timeout: Option<Duration>,
    /// Once the reactor is built, what it is.
    backend: Option<BackendKind>,
    resolver: Rc<NameResolver>,
    simulated_jobs: Option<JobTime>,
    observer: Option<BuilderObserver>,
}

/// How long the next job takes, where there are no threads.
#[derive(Clone)]
pub(crate) struct JobTime(Rc<dyn Fn() -> Duration>);

impl JobTime {
    fn draw(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for JobTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobTime")
    }
}

/// Sees the calls between the transports and the protocols of a reactor.
#[derive(Clone)]
struct BuilderObserver(Rc<dyn Observer>);

impl fmt::Debug for BuilderObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuilderObserver")
    }
}

impl Builder {
    /// Whether SIGINT and SIGTERM stop the reactor while it runs (Twisted: `installSignalHandlers`). They do unless told
    /// otherwise. A second signal while it stops ends the loop at once. Of other signals, see [`Reactor::on_signal`].
    pub fn signals(mut self, install: bool) -> Self {
        self.signals = install;
        self
    }

    /// How long a shutdown waits in all for triggers that returned a Deferred, and for jobs in threads. 60 s unless said
    /// otherwise; `None` waits without limit, as Twisted does. After it, the log is told which triggers hang, and how many
    /// threads, and the shutdown goes on without them.
    pub fn shutdown_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// What looks names up (Twisted: `installNameResolver`). The system's resolver, in threads, unless said otherwise.
    pub fn resolver(mut self, resolver: impl Resolver + 'static) -> Self {
        self.resolver = Rc::new(resolver);
        self
    }

    /// What does its system calls. Unless said here, the environment's `ROPEWALK_BACKEND` says it, `mio` or `io_uring`; where that
    /// says nothing either, it is mio. Where io_uring can't be had, the log is told why, and it is mio as well: see
    /// [`Reactor::backend`].
    pub fn backend(mut self, kind: BackendKind) -> Self {
        self.backend = Some(kind);
        self
    }

    /// Makes the reactor.
    ///
    /// # Errors
    /// [`ReactorError::Setup`] where the system gives us no poller, or `ROPEWALK_BACKEND` is no name of a backend.
    pub fn build(mut self) -> Result<Reactor, ReactorError> {
        let (kind, backend) = backend_kind::backend(self.backend).map_err(ReactorError::Setup)?;
        self.backend = Some(kind);
        Ok(self.build_on(backend))
    }

    /// Has jobs run on the reactor's own thread, each after the time that `takes` says: for reactors without real time.
    #[cfg(feature = "testing")]
    pub(crate) fn simulate_jobs(mut self, takes: impl Fn() -> Duration + 'static) -> Self {
        self.simulated_jobs = Some(JobTime(Rc::new(takes)));
        self
    }

    /// Shows the calls between transports and protocols to `observer`.
    #[cfg(feature = "testing")]
    pub(crate) fn observed(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(BuilderObserver(Rc::new(observer)));
        self
    }

    fn take_resolver(&mut self) -> Rc<NameResolver> {
        mem::replace(&mut self.resolver, Rc::new(SystemResolver))
    }

    fn observer(&self) -> Option<Rc<dyn Observer>> {
        self.observer.as_ref().map(|observer| Rc::clone(&observer.0))
    }

    /// Makes a reactor on a backend.
    pub(crate) fn build_on(self, backend: impl Into<AnyBackend>) -> Reactor {
        let backend = backend.into();
        Reactor(Rc::new_cyclic(|handle| Handle::new(Core::new(backend, self, handle))))
    }
}

/// What looks names up for a reactor.
type NameResolver = dyn Resolver;

/// What a reactor has counted: for monitoring, and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed unserved because descriptors ran out.
    pub shed: u64,
    /// Times that accepting failed and was suspended for a while.
    pub accept_failures: u64,
    /// Events for something that had been closed already: dropped.
    pub stale_events: u64,
    /// The longest that a timer ran after it was due.
    pub longest_lateness: Duration,
    /// What is watched at present: ports, connections, attempts, and sockets that are still being read after their end.
    pub watched: usize,
    /// Jobs of [`Reactor::defer_to_thread`] and [`Reactor::call_in_thread`] that wait for a thread at present.
    pub jobs_waiting: usize,
    /// Threads that are at work on such jobs at present.
    pub threads_at_work: usize,
}
