//! A client that keeps one connection (Twisted: `twisted.application.internet.ClientService`).
//!
//! The state machine stands in this file. An attempt ([`attempt`]) has an answer (its endpoint's
//! Deferred and the preparation), and perhaps a connection. It is over when it has its answer and
//! no connection is left.
//!
//! | state | means | start | stop | answered | connection gone | timer |
//! |---|---|---|---|---|---|---|
//! | initial | never started | connecting | stopped | | | |
//! | connecting | an attempt has no answer yet | | disconnecting (cancel, abort) | connected, or rejected | cancels the preparation | |
//! | rejected | a failed attempt's connection is not gone yet | | disconnecting | | waiting | |
//! | connected | the connection is ready | | disconnecting (close) | | waiting | |
//! | waiting | the timer of the next attempt runs | | stopped | | | connecting |
//! | disconnecting | stopped; the attempt is not over | restarting | | stopped, if over | stopped, if over | abandons it |
//! | restarting | started again; the attempt is not over | | disconnecting | connecting, if over | connecting, if over | abandons it |
//! | stopped | at rest | connecting | | | | |
//!
//! Rules:
//! 1. There is one attempt at a time. The next one begins when the one before is over, so there are
//!    never two connections.
//! 2. Each failed attempt and each lost connection adds one to the failures, and waits for the
//!    delay of that number. A connection that is ready, and a start, set them to zero.
//! 3. A Deferred of `when_connected` fires with the next connection that is ready. It fails when
//!    its number of attempts has failed, and with `Cancelled` when the service is stopped. A stop
//!    that is followed by a start in time does not end it.
//! 4. A Deferred of `stop_service` fires when the attempt is over. The timer of disconnecting and
//!    restarting is that of the stop's time limit: the connection is aborted then, and an answer
//!    that has not come is not waited for. So the attempt is over.
//! 5. The next state is set before code of the program runs, and nothing is borrowed meanwhile.

mod attempt;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use self::attempt::{Attempt, AttemptFactory, AttemptOwner, AttemptProtocol};
use super::backoff::{Backoff, MAX_DELAY};
use super::{Service, fire_stopped};
use crate::deferred::{Cancelled, Deferred, Outcome, Promise, maybe_deferred};
use crate::endpoints::ClientEndpoint;
use crate::error::ConnectError;
use crate::failure::{Failure, Result, guarded};
use crate::log::error;
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory, Protocol, SharedFactory};
use crate::time::{Clock, DelayedCall, Timers};

/// Default time limit of a stop: 30 s, as that of a [group](crate::reactor::GroupBuilder). Shorter
/// than the minute that a reactor's shutdown has for all services.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps one connection to an endpoint, and connects again after a delay when an attempt fails or
/// the connection is lost (Twisted: `ClientService`).
///
/// `start_service` begins the first attempt, and its Deferred fires at once: a service is started
/// before it is connected. [`when_connected`](Self::when_connected) waits for the connection.
/// `stop_service` cancels an attempt, or closes the connection once all written bytes are sent. Its
/// Deferred fires when the connection is gone, at the latest after the
/// [time limit](ClientServiceBuilder::stop_timeout).
///
/// Failures go to the Deferreds of `when_connected` that have waited long enough, and to the log:
/// the first attempt since the last start or connection that fails with a
/// [`ConnectError`](crate::error::ConnectError) at WARN, the others at DEBUG. Clones are handles to
/// the same service. Dropping them changes nothing: a service that runs is kept by its timer, its
/// attempt or its connection, until it is stopped or its reactor is closed.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::application::{ClientService, Service};
/// use ropewalk::endpoints::client_from_string;
/// use ropewalk::testing::MemoryReactor;
/// use ropewalk::{Protocol, Result, Transport, for_protocol};
///
/// struct Client;
///
/// impl Protocol for Client {
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let memory = MemoryReactor::new();
/// let endpoint = client_from_string(memory.reactor(), "tcp:198.51.100.7:6379")?;
/// let service = ClientService::new(memory.reactor(), endpoint, for_protocol(|_| Client));
/// service.start_service().or_log("starting");
/// let greeted = service.when_connected(None).add_callback(|client| client.transport().write(b"hello"));
/// let server = memory.attempts().remove(0).accept().expect("it was not given up");
/// memory.settle()?;
/// assert_eq!(server.read(), b"hello");
/// # greeted.or_log("greeting");
/// # service.stop_service().or_log("stopping");
/// # memory.settle()?;
/// # assert!(server.is_ended());
/// # Ok(())
/// # }
/// ```
pub struct ClientService<P: Protocol>(Rc<Client<P>>);

impl<P: Protocol> ClientService<P> {
    /// Makes a service with the default [`Backoff`], and without a preparation. `clock` is the
    /// clock of the delays, in a program the reactor.
    pub fn new(
        clock: &impl Clock,
        endpoint: impl ClientEndpoint + 'static,
        factory: impl Factory<Protocol = P>,
    ) -> Self {
        Self::builder(clock, endpoint, factory).build()
    }

    /// Returns a builder, for a service with other settings.
    pub fn builder(
        clock: &impl Clock,
        endpoint: impl ClientEndpoint + 'static,
        factory: impl Factory<Protocol = P>,
    ) -> ClientServiceBuilder<P> {
        let shared = SharedFactory::new(factory);
        ClientServiceBuilder {
            timers: clock.timers().clone(),
            endpoint: Box::new(endpoint),
            factory: Box::new(move |attempt, owner| AttemptFactory::boxed(&shared, attempt, owner)),
            policy: None,
            prepare: None,
            stop_timeout: Some(STOP_TIMEOUT),
        }
    }

    /// Returns a Deferred for the connection: the present one, or the next one that is ready
    /// (Twisted: `whenConnected`).
    ///
    /// With `Some(n)` it fails when `n` attempts from now on have failed, with the failure of the
    /// last one (Twisted: `failAfterFailures`). `Some(0)` means the same as `Some(1)`. With `None`
    /// it waits as long as the service runs.
    ///
    /// # Errors
    /// The Deferred fails with the failure of an attempt, see above, and with
    /// [`Cancelled`] if the service is stopped first, or is stopped already. It may be called
    /// before the first start, and then waits for that.
    ///
    /// ```
    /// use ropewalk::application::ClientService;
    /// use ropewalk::{Deferred, Protocol};
    ///
    /// fn send<P: Protocol>(service: &ClientService<P>, message: &'static [u8]) -> Deferred<()> {
    ///     service.when_connected(Some(3)).add_callback(move |connection| connection.transport().write(message))
    /// }
    /// ```
    #[track_caller]
    pub fn when_connected(&self, fail_after_failures: Option<u32>) -> Deferred<Connection<P>> {
        match &*self.0.state.borrow() {
            Lifecycle::Connected(_, connection) => return Deferred::succeed(connection.clone()),
            Lifecycle::Stopped => return Deferred::fail(Cancelled),
            _ => {}
        }
        let (promise, connected) = Promise::new();
        let mut waiters = self.0.connect_waiters.borrow_mut();
        waiters.retain(|waiter| !waiter.promise.is_called());
        waiters.push(ConnectWaiter { promise, failures_left: fail_after_failures });
        connected
    }

    /// Returns the connection, if one is ready (Twisted: `whenConnected`, without waiting).
    pub fn connection(&self) -> Option<Connection<P>> {
        match &*self.0.state.borrow() {
            Lifecycle::Connected(_, connection) => Some(connection.clone()),
            _ => None,
        }
    }

    /// Returns the state, for logs and for checks of a program's health.
    pub fn state(&self) -> ClientState {
        match &*self.0.state.borrow() {
            Lifecycle::Initial => ClientState::Initial,
            Lifecycle::Connecting(_) => ClientState::Connecting,
            Lifecycle::Rejected(..) => ClientState::Rejected,
            Lifecycle::Connected(..) => ClientState::Connected,
            Lifecycle::Waiting(_) => ClientState::Waiting,
            Lifecycle::Disconnecting(_) => ClientState::Disconnecting,
            Lifecycle::Restarting(_) => ClientState::Restarting,
            Lifecycle::Stopped => ClientState::Stopped,
        }
    }

    /// Returns the number of attempts that failed and connections that were lost since the last
    /// connection was ready.
    pub fn failures(&self) -> u32 {
        self.0.failures.get()
    }
}

impl<P: Protocol> Service for ClientService<P> {
    fn start_service(&self) -> Deferred<()> {
        self.0.start();
        Deferred::succeed(())
    }

    fn stop_service(&self) -> Deferred<()> {
        self.0.stop()
    }
}

impl<P: Protocol> Clone for ClientService<P> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<P: Protocol> fmt::Debug for ClientService<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientService");
        shown.field("endpoint", &self.0.endpoint).field("state", &self.state());
        shown.field("failures", &self.failures()).finish_non_exhaustive()
    }
}

/// State of a [`ClientService`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientState {
    /// It was never started.
    Initial,
    /// It connects, or prepares a connection.
    Connecting,
    /// The attempt has failed, and its connection is being closed.
    Rejected,
    /// The connection is ready.
    Connected,
    /// It waits before the next attempt.
    Waiting,
    /// It was stopped, and the attempt or the connection is being closed.
    Disconnecting,
    /// It was stopped and started again, and the old attempt or connection is being closed.
    Restarting,
    /// It is stopped.
    Stopped,
}

/// The settings of a client service, from [`ClientService::builder`].
///
/// ```
/// use ropewalk::application::{Backoff, ClientService};
/// use ropewalk::endpoints::client_from_string;
/// use ropewalk::{Protocol, Reactor, Result, Transport, for_protocol};
///
/// struct Client;
///
/// impl Protocol for Client {
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// # let reactor = Reactor::new()?;
/// let endpoint = client_from_string(&reactor, "tcp:localhost:6379")?;
/// let backoff = Backoff::new();
/// let service = ClientService::builder(&reactor, endpoint, for_protocol(|_| Client))
///     .retry_policy(move |failures| backoff.delay(failures))
///     .prepare_connection(|client| client.transport().write(b"AUTH secret\r\n"))
///     .build();
/// # drop(service);
/// # Ok(())
/// # }
/// ```
#[must_use = "`build` makes the service"]
pub struct ClientServiceBuilder<P: Protocol> {
    timers: Timers,
    endpoint: Box<dyn ClientEndpoint>,
    factory: MakeFactory,
    policy: Option<RetryPolicy>,
    prepare: Option<Preparation<P>>,
    stop_timeout: Option<Duration>,
}

impl<P: Protocol> ClientServiceBuilder<P> {
    /// Sets the delay before the next attempt (Twisted: `retryPolicy`). `policy` gets the number of
    /// failures in a row, from 1 on. The default is that of [`Backoff::new`]. If it panics, the
    /// panic is logged, and the delay is one minute.
    pub fn retry_policy(mut self, policy: impl Fn(u32) -> Duration + 'static) -> Self {
        self.policy = Some(Box::new(policy));
        self
    }

    /// Sets a function that is called with each new connection before it is ready, to log in or to
    /// check the server (Twisted: `prepareConnection`). It returns nothing, a `Result<()>` or a
    /// `Deferred<()>`.
    ///
    /// A failure rejects the connection: it is aborted, and counts as a failed attempt. (Twisted
    /// leaves it open.) The Deferred is cancelled if the connection is lost, or the service is
    /// stopped.
    pub fn prepare_connection<R: Outcome<Output = ()>>(
        mut self,
        prepare: impl Fn(&Connection<P>) -> R + 'static,
    ) -> Self {
        self.prepare = Some(Box::new(move |connection| maybe_deferred(|| prepare(connection))));
        self
    }

    /// Sets the time limit of a stop, 30 s by default. A connection that is not gone by then is
    /// aborted: the peer takes its bytes too slowly, or a producer does not end. A preparation that
    /// goes on after its cancellation is left to itself. `None` waits without limit, as Twisted
    /// does.
    ///
    /// Keep it below the reactor's [`shutdown_timeout`](crate::reactor::Builder::shutdown_timeout).
    /// A start within that time keeps the limit of the stop, and connects when the old connection
    /// is gone.
    pub fn stop_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// Makes the service. It does nothing before its start.
    pub fn build(self) -> ClientService<P> {
        let Self { timers, endpoint, factory, policy, prepare, stop_timeout } = self;
        let policy = policy.unwrap_or_else(|| {
            let backoff = Backoff::new();
            Box::new(move |failures| backoff.delay(failures))
        });
        ClientService(Rc::new(Client {
            timers,
            endpoint,
            factory,
            policy,
            prepare,
            stop_timeout,
            stop_timer: RefCell::default(),
            state: RefCell::new(Lifecycle::Initial),
            failures: Cell::new(0),
            is_warned: Cell::new(false),
            connect_waiters: RefCell::default(),
            stop_waiters: RefCell::default(),
        }))
    }
}

impl<P: Protocol> fmt::Debug for ClientServiceBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientServiceBuilder").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Makes the factory of one attempt.
type MakeFactory = Box<dyn Fn(&Rc<Attempt>, Rc<dyn AttemptOwner>) -> BoxedFactory>;
type RetryPolicy = Box<dyn Fn(u32) -> Duration>;
type Preparation<P> = Box<dyn Fn(&Connection<P>) -> Deferred<()>>;

/// A caller of `when_connected` that waits.
struct ConnectWaiter<P: 'static> {
    promise: Promise<Connection<P>>,
    /// The number of failed attempts that end the wait.
    failures_left: Option<u32>,
}

/// The state, with what belongs to it. The table is at the top of the file.
enum Lifecycle<P> {
    Initial,
    Connecting(Rc<Attempt>),
    Rejected(Rc<Attempt>, Failure),
    Connected(Rc<Attempt>, Connection<P>),
    /// `None` while the delay is computed.
    Waiting(Option<DelayedCall>),
    Disconnecting(Rc<Attempt>),
    Restarting(Rc<Attempt>),
    Stopped,
}

struct Client<P: Protocol> {
    timers: Timers,
    endpoint: Box<dyn ClientEndpoint>,
    factory: MakeFactory,
    policy: RetryPolicy,
    prepare: Option<Preparation<P>>,
    stop_timeout: Option<Duration>,
    /// The end of the time of a stop that is under way.
    stop_timer: RefCell<Option<DelayedCall>>,
    state: RefCell<Lifecycle<P>>,
    failures: Cell<u32>,
    /// An attempt has failed, and was logged, since the last start or connection.
    is_warned: Cell<bool>,
    connect_waiters: RefCell<Vec<ConnectWaiter<P>>>,
    stop_waiters: RefCell<Vec<Promise<()>>>,
}

impl<P: Protocol> Client<P> {
    fn start(self: &Rc<Self>) {
        let unfinished = match &*self.state.borrow() {
            Lifecycle::Initial | Lifecycle::Stopped => None,
            Lifecycle::Disconnecting(attempt) => Some(Rc::clone(attempt)),
            _ => return,
        };
        self.forget_failures();
        match unfinished {
            Some(attempt) => drop(self.state.replace(Lifecycle::Restarting(attempt))),
            None => self.begin(),
        }
    }

    fn forget_failures(&self) {
        self.failures.set(0);
        self.is_warned.set(false);
    }

    #[track_caller]
    fn stop(self: &Rc<Self>) -> Deferred<()> {
        let state = self.state.replace(Lifecycle::Stopped);
        let (attempt, is_connected) = match state {
            Lifecycle::Initial | Lifecycle::Waiting(None) | Lifecycle::Stopped => {
                self.end_connect_waiters();
                return Deferred::succeed(());
            }
            Lifecycle::Waiting(Some(timer)) => {
                // It is pending, unless its clock is gone.
                let _ = timer.cancel();
                self.end_connect_waiters();
                return Deferred::succeed(());
            }
            Lifecycle::Connected(attempt, _) => (attempt, true),
            Lifecycle::Connecting(attempt) | Lifecycle::Rejected(attempt, _) => (attempt, false),
            // The attempt was ended by the first stop.
            Lifecycle::Disconnecting(attempt) | Lifecycle::Restarting(attempt) => {
                self.state.replace(Lifecycle::Disconnecting(attempt));
                return self.when_stopped();
            }
        };
        self.state.replace(Lifecycle::Disconnecting(Rc::clone(&attempt)));
        let stopped = self.when_stopped();
        self.limit_stop(&attempt);
        if is_connected {
            attempt.lose();
        } else {
            attempt.give_up();
        }
        stopped
    }

    /// Sets the timer that abandons an attempt if its end takes too long.
    fn limit_stop(self: &Rc<Self>, attempt: &Rc<Attempt>) {
        let Some(timeout) = self.stop_timeout else { return };
        let (client, attempt) = (Rc::clone(self), Rc::clone(attempt));
        let timer = self.timers.call_later(timeout, move || {
            tracing::debug!(endpoint = ?client.endpoint, "the stop of a client service took too long");
            attempt.set_answered();
            attempt.abort();
            client.go_on(&attempt);
        });
        self.stop_timer.replace(Some(timer));
    }

    /// Ends the time of a stop.
    fn end_stop_timer(&self) {
        if let Some(timer) = self.stop_timer.take() {
            // It may be the caller.
            let _ = timer.cancel();
        }
    }

    #[track_caller]
    fn when_stopped(&self) -> Deferred<()> {
        let (promise, stopped) = Promise::new();
        self.stop_waiters.borrow_mut().push(promise);
        stopped
    }

    /// Begins an attempt. The one before is over.
    fn begin(self: &Rc<Self>) {
        let attempt = Rc::<Attempt>::default();
        self.state.replace(Lifecycle::Connecting(Rc::clone(&attempt)));
        let factory = (self.factory)(&attempt, Rc::clone(self) as Rc<dyn AttemptOwner>);
        let (client, preparing) = (Rc::clone(self), Rc::clone(&attempt));
        let ready = maybe_deferred(|| self.endpoint.connect_boxed(factory))
            .add_callback(move |connection| client.prepare(&preparing, connection));
        attempt.set_canceller(ready.canceller());
        let client = Rc::clone(self);
        drop(ready.add_both(move |result| client.answered(&attempt, result)));
    }

    /// Calls the preparation with a new connection.
    fn prepare(&self, attempt: &Attempt, made: AnyConnection) -> Deferred<Connection<P>> {
        let connection = match made.downcast::<AttemptProtocol<P>>() {
            Ok(connection) => connection.transport().connection::<P>(),
            Err(other) => {
                other.transport().abort_connection();
                return Deferred::fail("the endpoint's connection has a protocol that was not built by its factory");
            }
        };
        // It may be lost before its endpoint says that it was made. `answered` finds the reason.
        if attempt.is_given_up() || !attempt.is_open() {
            return Deferred::fail(Cancelled);
        }
        let Some(prepare) = &self.prepare else { return Deferred::succeed(connection) };
        attempt.set_preparing();
        let prepared = prepare(&connection);
        // The preparation may have stopped the service, when there was no Deferred to cancel yet.
        if attempt.is_given_up() || !attempt.is_open() {
            prepared.cancel();
        }
        prepared.add_callback(move |()| Ok(connection))
    }

    /// Handles the answer of an attempt.
    fn answered(self: &Rc<Self>, attempt: &Rc<Attempt>, result: Result<Connection<P>>) {
        attempt.set_answered();
        let is_wanted = matches!(&*self.state.borrow(), Lifecycle::Connecting(current) if Rc::ptr_eq(current, attempt));
        if is_wanted {
            match result {
                Ok(connection) if attempt.is_open() => return self.connected(attempt, connection),
                result => {
                    let failure = attempt.reason().or(result.err()).unwrap_or_else(|| Cancelled.into());
                    self.state.replace(Lifecycle::Rejected(Rc::clone(attempt), failure));
                }
            }
        }
        attempt.abort();
        self.go_on(attempt);
    }

    /// Hands out a connection that is ready.
    fn connected(&self, attempt: &Rc<Attempt>, connection: Connection<P>) {
        self.forget_failures();
        self.state.replace(Lifecycle::Connected(Rc::clone(attempt), connection.clone()));
        for waiter in self.connect_waiters.take() {
            // A waiter that was cancelled has fired.
            let _ = waiter.promise.callback(connection.clone());
        }
    }

    /// Leaves the state of an attempt, if the attempt is over.
    fn go_on(self: &Rc<Self>, attempt: &Rc<Attempt>) {
        if !attempt.is_over() {
            return;
        }
        let state = self.state.borrow();
        match &*state {
            Lifecycle::Rejected(current, failure) if Rc::ptr_eq(current, attempt) => {
                let failure = failure.clone();
                drop(state);
                self.retry();
                self.tell_failure(&failure);
            }
            Lifecycle::Connected(current, _) if Rc::ptr_eq(current, attempt) => {
                drop(state);
                self.retry();
            }
            Lifecycle::Disconnecting(current) if Rc::ptr_eq(current, attempt) => {
                drop(state);
                self.end_stop_timer();
                self.state.replace(Lifecycle::Stopped);
                let stop_waiters = self.stop_waiters.take();
                self.end_connect_waiters();
                fire_stopped(stop_waiters, Ok(()));
            }
            Lifecycle::Restarting(current) if Rc::ptr_eq(current, attempt) => {
                drop(state);
                self.end_stop_timer();
                let stop_waiters = self.stop_waiters.take();
                self.begin();
                fire_stopped(stop_waiters, Ok(()));
            }
            // `answered` leaves `Connecting`. The other states have no attempt.
            _ => {}
        }
    }

    /// Counts a failure, and sets the timer of the next attempt.
    fn retry(self: &Rc<Self>) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        self.state.replace(Lifecycle::Waiting(None));
        let delay = guarded(|| (self.policy)(failures)).unwrap_or_else(|panic| {
            error!(%panic, "the retry policy of a client service failed");
            MAX_DELAY
        });
        // The policy may have stopped the service.
        if !matches!(&*self.state.borrow(), Lifecycle::Waiting(None)) {
            return;
        }
        tracing::debug!(endpoint = ?self.endpoint, failures, ?delay, "a client service waits for its next attempt");
        let client = Rc::clone(self);
        let timer = self.timers.call_later(delay, move || {
            let is_due = matches!(&*client.state.borrow(), Lifecycle::Waiting(_));
            if is_due {
                client.begin();
            }
        });
        self.state.replace(Lifecycle::Waiting(Some(timer)));
    }

    /// Logs the failure of an attempt, and fails the waiters of `when_connected` that have waited
    /// for enough attempts.
    fn tell_failure(&self, failure: &Failure) {
        // One line for a server that is away, however often it is tried. Failures of a connection
        // that was made are in the log already.
        if failure.check::<ConnectError>().is_some() && !self.is_warned.replace(true) {
            tracing::warn!(endpoint = ?self.endpoint, %failure, "an attempt of a client service failed");
        } else {
            tracing::debug!(endpoint = ?self.endpoint, %failure, "an attempt of a client service failed");
        }
        let is_done = |waiter: &mut ConnectWaiter<P>| match &mut waiter.failures_left {
            Some(0 | 1) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let ended: Vec<_> = self.connect_waiters.borrow_mut().extract_if(.., is_done).collect();
        for waiter in ended {
            // A waiter that was cancelled has fired.
            let _ = waiter.promise.errback(failure.clone());
        }
    }

    /// Fails all waiters of `when_connected`, because the service is stopped.
    fn end_connect_waiters(&self) {
        for waiter in self.connect_waiters.take() {
            // A waiter that was cancelled has fired.
            let _ = waiter.promise.errback(Cancelled);
        }
    }
}

impl<P: Protocol> AttemptOwner for Client<P> {
    fn connection_gone(self: Rc<Self>, attempt: &Rc<Attempt>) {
        if attempt.is_preparing() && !attempt.is_answered() {
            // There is nothing left to prepare. The cancellation answers the attempt.
            attempt.cancel();
        } else {
            self.go_on(attempt);
        }
    }
}
