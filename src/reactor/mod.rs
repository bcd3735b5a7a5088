//! The event loop: running it, listening and connecting, timers, threads, signals and system events
//! (Twisted: `twisted.internet.reactor`; `IReactorCore`, `IReactorTCP`, `IReactorTime`,
//! `IReactorThreads`).
//!
//! A [`Reactor`] is a cheap handle to an event loop. The loop is a plain value: a process may have
//! many, and a reactor that has stopped can run again. A reactor lives on the thread that made it.
//! Other threads reach it through its [`Remote`].
//!
//! | to | use |
//! |---|---|
//! | run a whole program | [`run()`] |
//! | start, drive and stop a loop | [`Reactor::run`], [`Reactor::iterate`], [`Reactor::stop`], [`Reactor::crash`], [`Reactor::close`] |
//! | run inside another event loop | [`Reactor::begin_run`], [`HostedRun`] |
//! | choose the backend and other settings | [`Reactor::builder`], [`BackendKind`] |
//! | listen and connect over TCP | [`Reactor::listen_tcp`], [`Reactor::connect_tcp`], [`Port`] |
//! | listen and connect over UNIX sockets | [`Reactor::listen_unix`], [`Reactor::connect_unix`] |
//! | send and receive datagrams | [`Reactor::listen_udp`], [`Reactor::listen_unix_datagram`] |
//! | listen and connect on sockets from elsewhere | [`Reactor::adopt_stream`], [`adopt_stream_port`](Reactor::adopt_stream_port) |
//! | use standard input and output as a connection | [`StandardIo`] |
//! | look up a host name | [`Reactor::resolve`], [`Resolver`] |
//! | call a function later | [`Clock::call_later`] |
//! | run a future | [`Reactor::spawn`] |
//! | block or compute in a thread | [`Reactor::defer_to_thread`], [`Reactor::call_in_thread`], [`ThreadPool`] |
//! | run reactors on several threads behind one port | [`ReactorGroup`] |
//! | call the reactor from another thread | [`Reactor::remote`], [`Remote`] |
//! | send to a connection from another thread | [`Connection::remote`](crate::Connection::remote), [`RemoteConnection`] |
//! | embed an interpreter | [`Builder::around_wait`], [`Builder::on_ring`], [`Reactor::is_waiting`] |
//! | handle a signal | [`Reactor::on_signal`] |
//! | wait for a descriptor of a C library or another crate | [`Reactor::watch`], [`Watcher`] |
//! | run code at startup or shutdown | [`Reactor::add_system_event_trigger`], [`Reactor::when_stopped`] |
//! | monitor the loop | [`Reactor::counters`], [`Reactor::snapshot`], [`Reactor::observe`] |
//!
//! Most programs connect and listen through [endpoints](crate::endpoints), which call the methods
//! of this module.
//!
//! A loop makes turns. One turn runs the calls from other threads, then the timers that are due. It
//! waits for the network, delivers what arrived to the protocols, and polls the futures that were
//! woken. Then it sends what was written, and reports ended connections.

// | file or folder | holds |
// |---|---|
// | `core.rs`, `backend_kind.rs` | the parts of a reactor, and the choice of its backend |
// | `run.rs`, `run_state.rs` | starting, stopping, crashing, and the states of a run |
// | `turn.rs`, `aftermath.rs` | the phases of one turn, and the work that one leaves for another |
// | `react.rs` | a whole program |
// | `hosting.rs`, `around_wait.rs` | a run inside another event loop; a hook around the wait |
// | `on_ring.rs` | a hook for the rings of other threads |
// | `awake.rs`, `postponed.rs` | requests to the backend, and those that wait for the end of a wait |
// | `life.rs`, `process.rs` | the owner of a reactor, and its end; forked children |
// | `triggers.rs`, `events.rs` | system events: startup, shutdown, and the program's own |
// | `signals.rs` | signal handlers |
// | `standard_io.rs` | standard input and output as a connection |
// | `inherited.rs` | descriptors from the process that started this one |
// | `signal_handling.rs`, `on_signal.rs` | subscribers, and the loop's reaction to a signal |
// | `group/` | reactors on several threads behind the same ports |
// | `remote_connection.rs` | messages to the connections of other reactors |
// | `watch.rs`, `watched.rs` | foreign descriptors: the interface and its state, and the part that the table knows |
// | `descriptor.rs`, `interest.rs`, `watch_callbacks.rs` | the arguments of a watch |
// | `net/` | ports, connections, attempts, names |
// | `threads/` | jobs in threads, and calls from threads |
// | `meter.rs` | bytes and durations, once the program asks for them |
// | `snapshot/` | the reactor seen from outside: connections, ports, timers, pools |
// | `slot_map.rs`, `paged_vec.rs` | the table of watched items |
// | `backend/` | the system calls |

mod aftermath;
mod around_wait;
mod awake;
mod backend;
mod backend_kind;
mod children;
mod core;
mod descriptor;
mod events;
mod group;
mod hosting;
mod inherited;
mod interest;
mod life;
mod meter;
mod net;
mod on_ring;
mod on_signal;
mod paged_vec;
mod postponed;
mod process;
mod react;
mod remote_connection;
mod run;
mod run_state;
mod service_manager;
mod signal_handling;
mod signals;
mod slot_map;
mod snapshot;
mod standard_io;
#[cfg(test)]
mod tests;
mod threads;
mod triggers;
mod turn;
mod watch;
mod watch_callbacks;
mod watched;

use std::fmt;
use std::mem;
use std::rc::{Rc, Weak};
use std::time::Duration;

use self::around_wait::AroundWait;
#[allow(unused_imports, reason = "for child processes")]
pub(crate) use self::backend::PipeEnds;
pub(crate) use self::backend::{AnyBackend, ConnectionOptions, PortPolicies};
#[cfg(feature = "testing")]
pub(crate) use self::backend::{
    Backend, BackendEvent, Completion, ConnectRefusal, DatagramBatch, DatagramReceive, DatagramsBound, DialOptions,
    Inbox, Incoming, IncomingSocket, ListenRefusal, PortOptions, Progress, RECEIVE, ReceivedDatagram, Wake,
};
pub use self::backend_kind::BackendKind;
pub(crate) use self::children::{OnStart, ProcessConnect};
use self::core::{Core, Slot};
pub use self::descriptor::Descriptor;
pub use self::group::{
    GroupBuilder, GroupRemote, GroupReport, Member, MemberEnd, OnMemberFailure, PortSharing, ReactorGroup,
};
pub use self::hosting::HostedRun;
pub(crate) use self::inherited::give_back;
pub use self::inherited::{InheritedDescriptor, ListenFds};
pub use self::interest::Interest;
#[cfg(feature = "testing")]
pub(crate) use self::interest::Ready;
use self::life::Handle;
pub use self::net::adopt::AdoptOptions;
pub use self::net::adopt_stream::AcceptedSocket;
pub(crate) use self::net::dial::Destination;
pub use self::net::options::{ConnectOptions, ListenOptions, UnixConnectOptions, UnixListenOptions};
pub use self::net::port::Port;
pub use self::net::resolver::{Resolver, SystemResolver};
use self::on_ring::OnRing;
pub use self::on_signal::SignalSubscription;
pub use self::react::{Finish, run};
pub use self::remote_connection::RemoteConnection;
pub use self::snapshot::{
    ConnectionSnapshot, ConnectionState, ItemId, LongestCallback, PortSnapshot, Snapshot, TimersSnapshot,
};
pub use self::standard_io::StandardIo;
pub use self::threads::pool::ThreadPoolStatistics;
pub use self::threads::remote::Remote;
pub use self::threads::thread_pool::ThreadPool;
pub use self::triggers::{NoSuchTrigger, Phase, SystemEvent, TriggerId};
pub use self::watch::{Watch, WatchHandle, Watcher};
pub use self::watch_callbacks::WatchCallbacks;
/// Numbers of signals, for [`Reactor::on_signal`]. They differ from one system to another.
pub use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use crate::deferred::{Deferred, Outcome, Spawner};
use crate::error::ReactorError;
use crate::failure::{Result, guarded};
use crate::log::error;
use crate::time::{Clock, Timers};
use crate::transport::observer::Observer;

/// Default time limit of a shutdown for triggers that returned a Deferred. One minute is longer
/// than any deadline of the engine, and short enough that a service manager does not lose patience
/// first.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// The event loop (Twisted: `reactor`).
///
/// A `Reactor` is a cheap handle. Clones name the same loop; callbacks keep clones. It is not
/// `Send`: see [`remote`](Self::remote). [`Clock`] has its time and its timers.
///
/// The reactor closes when its last handle is dropped. A handle also counts if something that waits
/// in the reactor keeps it: a timer, a future, a trigger, a factory, a protocol, a callback of a
/// Deferred. Such a program ends its reactor with [`close`](Self::close). A `run` that returns does
/// not close the reactor: pending work goes on in the next run.
///
/// A reactor belongs to the process that made it. A process that forks before the reactor's first
/// turn, as a daemon does, may use the reactor in the child: the child takes it over with its next
/// `run`, `iterate`, `listen` or `connect`. In any other forked child every call fails with
/// [`ReactorError::ForkedChild`] or its like, and dropping the reactor only closes its descriptors.
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
    /// Makes a reactor with default settings: SIGINT and SIGTERM stop it, and a shutdown waits at
    /// most one minute for its triggers.
    ///
    /// # Errors
    /// [`ReactorError::Setup`] if the system provides no poller, or if `ROPEWALK_BACKEND` is not
    /// the name of a backend.
    pub fn new() -> Result<Self, ReactorError> {
        Self::builder().build()
    }

    /// Returns a builder, for a reactor with other settings.
    pub fn builder() -> Builder {
        Builder {
            signals: true,
            shutdown_timeout: Some(SHUTDOWN_TIMEOUT),
            backend: None,
            resolver: Rc::new(SystemResolver),
            simulated_jobs: None,
            observer: None,
            around_wait: None,
            message_limit: Builder::default_message_limit(),
            on_ring: None,
            is_observed: false,
        }
    }

    /// Runs the loop until [`stop`](Self::stop), [`crash`](Self::crash), SIGINT or SIGTERM
    /// (Twisted: `run`). A reactor that has stopped can run again (Twisted's cannot).
    ///
    /// # Errors
    /// - [`ReactorError::AlreadyRunning`] from inside the loop, or from inside a call of
    ///   [`Connection::with`](crate::Connection::with).
    /// - [`ReactorError::Closed`] after [`close`](Self::close).
    /// - [`ReactorError::ForkedChild`] in a forked child that cannot take the reactor over.
    /// - [`ReactorError::Setup`] if signal handlers cannot be installed.
    /// - [`ReactorError::Poll`] if the poller fails. Every connection is lost before this returns.
    pub fn run(&self) -> Result<(), ReactorError> {
        self.0.run()
    }

    /// Makes one turn of the loop (Twisted: `iterate`): does the work that is due, or waits at most
    /// `delay` for an event if there is none. No wait is longer than 24 days.
    ///
    /// For tests. It needs no [`run`](Self::run), and runs no triggers of a startup or a shutdown.
    /// To run the reactor inside another event loop, use [`begin_run`](Self::begin_run).
    ///
    /// # Errors
    /// - [`ReactorError::AlreadyRunning`] from inside the loop, or from inside a call of
    ///   [`Connection::with`](crate::Connection::with).
    /// - [`ReactorError::Closed`] after [`close`](Self::close).
    /// - [`ReactorError::ForkedChild`] in a forked child that cannot take the reactor over.
    /// - [`ReactorError::Poll`] if the poller fails.
    pub fn iterate(&self, delay: Duration) -> Result<(), ReactorError> {
        self.0.iterate(delay)
    }

    /// Stops a running loop (Twisted: `stop`), in this order:
    ///
    /// 1. A startup that is under way finishes, without waiting for its Deferreds.
    /// 2. This turn finishes.
    /// 3. The `Before` triggers of [`SystemEvent::Shutdown`] run. The loop goes on until their
    ///    Deferreds have results.
    /// 4. Ports close. Every connection is lost with
    ///    [`ReactorStopped`](crate::error::ConnectionClosed::ReactorStopped). Every factory stops.
    /// 5. Jobs in threads finish, the remaining triggers run, and [`run`](Self::run) returns.
    ///
    /// # Errors
    /// - [`ReactorError::NotRunning`] if the reactor does not run, or is stopping already.
    /// - [`ReactorError::ForkedChild`] in a forked child.
    pub fn stop(&self) -> Result<(), ReactorError> {
        self.0.stop()
    }

    /// Leaves the loop at the end of this turn, without running triggers and without closing
    /// anything (Twisted: `crash`). Connections and ports stay open, and wait for the next
    /// [`run`](Self::run). The triggers of a startup that is under way still run.
    ///
    /// # Errors
    /// - [`ReactorError::NotRunning`] if the reactor does not run.
    /// - [`ReactorError::ForkedChild`] in a forked child.
    pub fn crash(&self) -> Result<(), ReactorError> {
        self.0.crash()
    }

    /// Returns `true` if the loop runs (Twisted: `running`): from the `During` triggers of its
    /// startup until a shutdown reaches `During`, where connections are closed.
    pub fn is_running(&self) -> bool {
        self.0.run.is_running()
    }

    /// Returns the signal that stopped the last [`run`](Self::run), if a signal did (Twisted:
    /// `_exitSignal`).
    pub fn exit_signal(&self) -> Option<i32> {
        self.0.run.exit_signal()
    }

    /// Calls `call` now if the reactor [runs](Self::is_running), otherwise after its next startup
    /// (Twisted: `callWhenRunning`). A panic is logged. A closed reactor drops `call`.
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

    /// Runs a future on this reactor (Twisted: `ensureDeferred`, `inlineCallbacks`).
    ///
    /// The future is polled at once, up to its first wait. Whenever it is woken, it is polled again
    /// in phase 6 of a turn. See [`Spawner::spawn`]. A future that is not done when a run ends goes
    /// on in the next run. A future that is not done when the reactor closes is dropped.
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

    /// Returns the spawner of this reactor: a handle for code that only runs futures.
    pub fn spawner(&self) -> &Spawner {
        &self.0.spawner
    }

    /// Begins a run that the simulated network drives with
    /// [`step_simulated`](Self::step_simulated).
    #[cfg(feature = "testing")]
    pub(crate) fn begin_simulated(&self) -> Result<(), ReactorError> {
        self.0.begin_run()
    }

    /// Makes one turn of a run. Returns `false` if the run is over.
    #[cfg(feature = "testing")]
    pub(crate) fn step_simulated(&self, longest: Option<Duration>) -> Result<bool, ReactorError> {
        self.0.step(longest)
    }

    /// Returns `true` if the next turn would not wait, even without an event from the network.
    #[cfg(feature = "testing")]
    pub(crate) fn is_busy(&self) -> bool {
        self.0.is_busy()
    }

    /// Returns `true` if both handles name the same reactor.
    #[cfg(feature = "testing")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Returns `true` if the backend makes no system calls.
    fn is_simulated(&self) -> bool {
        self.0.settings.backend.is_none()
    }

    pub(crate) fn downgrade(&self) -> WeakReactor {
        WeakReactor(Rc::downgrade(&self.0))
    }

    /// Returns the backend that makes the system calls. A simulated reactor makes none, and returns
    /// [`BackendKind::Mio`].
    pub fn backend(&self) -> BackendKind {
        self.0.settings.backend.unwrap_or(BackendKind::Mio)
    }

    /// Returns the counters of this reactor, from its creation on.
    pub fn counters(&self) -> Counters {
        let jobs = self.0.threads.load();
        Counters {
            stale_events: self.0.stale_events(),
            watched: self.0.slots.borrow().len(),
            jobs_waiting: jobs.queued,
            messages_waiting: self.0.threads.calls().messages(),
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

/// A handle that does not keep the reactor alive, for objects that the reactor itself keeps.
#[derive(Debug, Clone)]
pub(crate) struct WeakReactor(Weak<Handle>);

impl WeakReactor {
    /// Returns the reactor, unless it is gone.
    pub(crate) fn upgrade(&self) -> Option<Reactor> {
        self.0.upgrade().map(Reactor)
    }
}

/// The settings of a reactor, from [`Reactor::builder`].
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
    /// The requested backend. Once the reactor is built: the backend in use.
    backend: Option<BackendKind>,
    resolver: Rc<NameResolver>,
    simulated_jobs: Option<JobTime>,
    observer: Option<BuilderObserver>,
    around_wait: Option<AroundWait>,
    /// Number of messages from other threads to connections that may wait.
    message_limit: usize,
    on_ring: Option<OnRing>,
    /// Counts bytes and measures callbacks from the start.
    is_observed: bool,
}

/// Draws the duration of the next job, on a reactor without threads.
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

/// Observes the calls between the transports and the protocols of a reactor.
#[derive(Clone)]
struct BuilderObserver(Rc<dyn Observer>);

impl fmt::Debug for BuilderObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuilderObserver")
    }
}

impl Builder {
    /// Sets whether SIGINT and SIGTERM stop the reactor while it runs (Twisted:
    /// `installSignalHandlers`). On by default. A second signal during the shutdown ends the loop
    /// at once. For other signals, see [`Reactor::on_signal`].
    ///
    /// Turn it off for a run inside another event loop ([`Reactor::begin_run`]). There, the host
    /// handles signals: while a host does not step, a signal that was handled here would have no
    /// effect.
    pub fn signals(mut self, install: bool) -> Self {
        self.signals = install;
        self
    }

    /// Sets the time limit of a shutdown: for all triggers that returned a Deferred, and for jobs
    /// in threads, together. The default is 60 s. `None` waits without limit, as Twisted does.
    ///
    /// When the time is over, the log names the triggers that hang and the number of threads, and
    /// the shutdown goes on without them.
    pub fn shutdown_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Sets the resolver of host names (Twisted: `installNameResolver`). The default is the
    /// system's resolver, in threads.
    pub fn resolver(mut self, resolver: impl Resolver + 'static) -> Self {
        self.resolver = Rc::new(resolver);
        self
    }

    /// Selects the backend that makes the system calls. Without this setting, the environment
    /// variable `ROPEWALK_BACKEND` selects it: `mio` or `io_uring`. If that is not set either, the
    /// backend is mio.
    ///
    /// Where io_uring is not available, the reactor uses mio and logs the reason. See
    /// [`Reactor::backend`].
    pub fn backend(mut self, kind: BackendKind) -> Self {
        self.backend = Some(kind);
        self
    }

    /// Makes the reactor.
    ///
    /// # Errors
    /// [`ReactorError::Setup`] if the system provides no poller, or if `ROPEWALK_BACKEND` is not
    /// the name of a backend.
    pub fn build(mut self) -> Result<Reactor, ReactorError> {
        let (kind, backend) = backend_kind::backend(self.backend).map_err(ReactorError::Setup)?;
        self.backend = Some(kind);
        Ok(self.build_on(backend))
    }

    /// Runs jobs on the reactor's own thread, each after the time that `takes` returns. For
    /// reactors without real time.
    #[cfg(feature = "testing")]
    pub(crate) fn simulate_jobs(mut self, takes: impl Fn() -> Duration + 'static) -> Self {
        self.simulated_jobs = Some(JobTime(Rc::new(takes)));
        self
    }

    /// Reports the calls between transports and protocols to `observer`.
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

    /// Makes a reactor on a given backend.
    pub(crate) fn build_on(self, backend: impl Into<AnyBackend>) -> Reactor {
        let backend = backend.into();
        Reactor(Rc::new_cyclic(|handle| Handle::new(Core::new(backend, self, handle))))
    }
}

/// The resolver of a reactor.
type NameResolver = dyn Resolver;

/// Counters of a reactor, for monitoring and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Number of turns of the loop.
    pub turns: u64,
    /// Number of accepted connections.
    pub accepted: u64,
    /// Number of connections that were closed unserved because descriptors ran out.
    pub shed: u64,
    /// Number of times that accepting failed and was suspended for a while.
    pub accept_failures: u64,
    /// Number of events that were dropped because they belonged to something closed already.
    pub stale_events: u64,
    /// The longest delay of a timer behind its due time.
    pub longest_lateness: Duration,
    /// Number of watched items at present: ports, connections, attempts, sockets that are still
    /// read after their end, foreign descriptors, and that of the signal handlers if there are any.
    pub watched: usize,
    /// Number of jobs of [`Reactor::defer_to_thread`] and [`Reactor::call_in_thread`] that wait for
    /// a thread at present.
    pub jobs_waiting: usize,
    /// Number of threads that work on such jobs at present.
    pub threads_at_work: usize,
    /// Number of messages of [`RemoteConnection`]s that wait at present.
    pub messages_waiting: usize,
}
