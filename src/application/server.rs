//! A port that is open while a service runs (Twisted: `StreamServerEndpointService`,
//! `strports.service`).
//!
//! | state | means | start | stop |
//! |---|---|---|---|
//! | idle | no port | starting | |
//! | starting | the endpoint's Deferred has no result yet | | stopping; the Deferred is cancelled |
//! | listening | the port is open | | stopping |
//! | stopping | the port, the drain or the cancelled start is not over | starting, when that is over | waits for the same end |

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::{Service, fire_stopped};
use crate::address::Address;
use crate::deferred::{Cancelled, Canceller, Deferred, Promise, maybe_deferred};
use crate::endpoints::ServerEndpoint;
use crate::failure::{Result, guarded};
use crate::log::error;
use crate::protocol::{BoxedFactory, Connection, Connections, Factory, Protocol};
use crate::reactor::Port;
use crate::time::{Clock, Timers};

/// Listens on an endpoint while it runs (Twisted: `StreamServerEndpointService`).
///
/// The Deferred of a start fires when the port listens, or fails with a
/// [`ListenError`](crate::error::ListenError). (Twisted's service logs that failure.)
/// `privileged_start_service` listens already; a `start_service` after it changes nothing. After a
/// failure, the next start tries again.
///
/// A stop closes the port. Its connections live on, unless the service
/// [drains](Self::drain) them.
///
/// ```
/// use ropewalk::application::{Service, StreamServerEndpointService};
/// use ropewalk::endpoints::server_from_string;
/// use ropewalk::testing::MemoryReactor;
/// use ropewalk::{Protocol, Result, Transport, for_protocol};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let memory = MemoryReactor::new();
/// let endpoint = server_from_string(memory.reactor(), "tcp:7")?;
/// let service = StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo));
/// service.start_service().or_log("starting");
/// assert_eq!(memory.ports().len(), 1);
/// service.stop_service().or_log("stopping");
/// memory.settle()?;
/// assert!(memory.ports().is_empty());
/// # Ok(())
/// # }
/// ```
pub struct StreamServerEndpointService<P: Protocol> {
    server: Rc<Server<P>>,
}

impl<P: Protocol> StreamServerEndpointService<P> {
    /// Makes a service that listens on `endpoint` with `factory`.
    pub fn new(endpoint: impl ServerEndpoint + 'static, factory: impl Factory<Protocol = P>) -> Self {
        let connections = Connections::new();
        let factory = BoxedFactory::new(connections.track(factory));
        let server = Server {
            endpoint: Box::new(endpoint),
            factory,
            connections,
            drain: RefCell::new(None),
            state: RefCell::new(PortState::Idle),
            is_wanted: Cell::new(false),
            restart: RefCell::new(None),
            stop_waiters: RefCell::default(),
        };
        Self { server: Rc::new(server) }
    }

    /// Makes a stop wait for the connections, at most `deadline` on `clock`. Each connection is
    /// closed once all bytes that were written to it are sent. When the deadline has passed, the
    /// remaining connections are aborted.
    pub fn drain(self, clock: &impl Clock, deadline: Duration) -> Self {
        self.drain_with(clock, deadline, |connection| connection.transport().lose_connection())
    }

    /// Makes a stop wait for the connections as [`drain`](Self::drain) does, but calls `finish`
    /// with each open connection instead of closing it. `finish` tells the protocol to close the
    /// connection when its present work is done, and idle connections at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::application::StreamServerEndpointService;
    /// use ropewalk::endpoints::ServerEndpoint;
    /// use ropewalk::{Protocol, Reactor, Result, Transport, for_protocol};
    ///
    /// #[derive(Default)]
    /// struct Answers { is_busy: bool, is_last: bool }
    ///
    /// impl Protocol for Answers {
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         // Answers, now or later. After the answer it closes the connection if `is_last`.
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn service(reactor: &Reactor, endpoint: Box<dyn ServerEndpoint>) -> StreamServerEndpointService<Answers> {
    ///     StreamServerEndpointService::new(endpoint, for_protocol(|_| Answers::default()))
    ///         .drain_with(reactor, Duration::from_secs(10), |connection| {
    ///             let told = connection.later(|answers, transport| {
    ///                 answers.is_last = true;
    ///                 if !answers.is_busy {
    ///                     transport.lose_connection();
    ///                 }
    ///             });
    ///             told.or_log("draining a connection");
    ///         })
    /// }
    /// ```
    pub fn drain_with(self, clock: &impl Clock, deadline: Duration, finish: impl Fn(&Connection<P>) + 'static) -> Self {
        let drain = Drain { timers: clock.timers().clone(), deadline, finish: Box::new(finish) };
        self.server.drain.replace(Some(Rc::new(drain)));
        self
    }

    /// Returns the address of the port, while it listens.
    pub fn host(&self) -> Option<Address> {
        self.port().map(|port| port.host())
    }

    /// Returns the port, while it listens: to pause it, or to
    /// [hand it over](super::hand_over_ports). Stop the service rather than the port.
    pub fn port(&self) -> Option<Port> {
        match &*self.server.state.borrow() {
            PortState::Listening(port) => Some(port.clone()),
            _ => None,
        }
    }

    /// Returns the open connections of the port.
    pub fn connections(&self) -> &Connections<P> {
        &self.server.connections
    }
}

impl<P: Protocol> Service for StreamServerEndpointService<P> {
    fn privileged_start_service(&self) -> Deferred<()> {
        self.server.start()
    }

    fn start_service(&self) -> Deferred<()> {
        self.server.start()
    }

    fn stop_service(&self) -> Deferred<()> {
        self.server.stop()
    }
}

impl<P: Protocol> Clone for StreamServerEndpointService<P> {
    fn clone(&self) -> Self {
        Self { server: Rc::clone(&self.server) }
    }
}

impl<P: Protocol> fmt::Debug for StreamServerEndpointService<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StreamServerEndpointService");
        shown.field("endpoint", &self.server.endpoint).field("host", &self.host());
        shown.field("connections", &self.server.connections.len()).finish_non_exhaustive()
    }
}

/// The table is at the top of the file.
enum PortState {
    Idle,
    /// `None` while the endpoint is called.
    Starting(Option<Canceller>),
    Listening(Port),
    Stopping,
}

/// Tells an open connection to finish.
type FinishConnection<P> = Box<dyn Fn(&Connection<P>)>;

/// The end of a port's connections.
struct Drain<P> {
    timers: Timers,
    deadline: Duration,
    finish: FinishConnection<P>,
}

struct Server<P: Protocol> {
    endpoint: Box<dyn ServerEndpoint>,
    factory: BoxedFactory,
    connections: Connections<P>,
    drain: RefCell<Option<Rc<Drain<P>>>>,
    state: RefCell<PortState>,
    /// True from a start until the next stop, or until listening fails.
    is_wanted: Cell<bool>,
    /// The start that waits for the end of a stop.
    restart: RefCell<Option<Promise<()>>>,
    stop_waiters: RefCell<Vec<Promise<()>>>,
}

impl<P: Protocol> Server<P> {
    #[track_caller]
    fn start(self: &Rc<Self>) -> Deferred<()> {
        if self.is_wanted.replace(true) {
            return Deferred::succeed(());
        }
        let is_stopping = matches!(&*self.state.borrow(), PortState::Stopping);
        if !is_stopping {
            return self.listen();
        }
        let (promise, started) = Promise::new();
        self.restart.replace(Some(promise));
        started
    }

    fn listen(self: &Rc<Self>) -> Deferred<()> {
        self.state.replace(PortState::Starting(None));
        let listening = maybe_deferred(|| self.endpoint.listen_boxed(self.factory.clone()));
        // The endpoint may have stopped the service.
        let is_starting = matches!(&*self.state.borrow(), PortState::Starting(_));
        if is_starting {
            self.state.replace(PortState::Starting(Some(listening.canceller())));
        } else {
            listening.cancel();
        }
        let server = Rc::clone(self);
        listening.add_both(move |result| server.listened(result))
    }

    fn listened(self: &Rc<Self>, result: Result<Port>) -> Result<()> {
        let is_stopping = matches!(&*self.state.borrow(), PortState::Stopping);
        match (is_stopping, result) {
            (false, Ok(port)) => {
                self.state.replace(PortState::Listening(port));
                Ok(())
            }
            (false, Err(failure)) => {
                self.is_wanted.set(false);
                self.state.replace(PortState::Idle);
                Err(failure)
            }
            (true, Ok(port)) => {
                self.close(&port);
                Err(Cancelled.into())
            }
            (true, Err(failure)) => {
                self.stopped(Ok(()));
                Err(failure)
            }
        }
    }

    #[track_caller]
    fn stop(self: &Rc<Self>) -> Deferred<()> {
        self.is_wanted.set(false);
        let restart = self.restart.take();
        let state = self.state.replace(PortState::Stopping);
        if matches!(state, PortState::Idle) {
            self.state.replace(PortState::Idle);
            return Deferred::succeed(());
        }
        let (promise, stopped) = Promise::new();
        self.stop_waiters.borrow_mut().push(promise);
        match state {
            PortState::Starting(Some(canceller)) => canceller.cancel(),
            PortState::Listening(port) => self.close(&port),
            PortState::Idle | PortState::Starting(None) | PortState::Stopping => {}
        }
        if let Some(restart) = restart {
            // The Deferred may have been cancelled.
            let _ = restart.errback(Cancelled);
        }
        stopped
    }

    /// Closes the port, then drains its connections.
    fn close(self: &Rc<Self>, port: &Port) {
        let (draining, server) = (Rc::clone(self), Rc::clone(self));
        let closed = port.stop_listening().add_both(move |result| draining.drain().add_both(move |_| result));
        drop(closed.add_both(move |result| server.stopped(result)));
    }

    /// Lets the connections end. The Deferred fires when none is left.
    fn drain(self: &Rc<Self>) -> Deferred<()> {
        let drain = self.drain.borrow().clone();
        let Some(drain) = drain.filter(|_| !self.connections.is_empty()) else { return Deferred::succeed(()) };
        for connection in &self.connections {
            if let Err(panic) = guarded(|| (drain.finish)(&connection)) {
                error!(%panic, "draining a connection failed");
                connection.transport().abort_connection();
            }
        }
        let connections = self.connections.clone();
        let deadline = drain.timers.call_later(drain.deadline, move || {
            for connection in &connections {
                connection.transport().abort_connection();
            }
        });
        self.connections.when_empty().add_both(move |result| {
            // It has been called if the connections were aborted.
            let _ = deadline.cancel();
            result
        })
    }

    /// Ends a stop. A start that came meanwhile goes on.
    fn stopped(self: &Rc<Self>, result: Result<()>) {
        self.state.replace(PortState::Idle);
        let waiters = self.stop_waiters.take();
        let restart = self.restart.take();
        if let Some(restart) = restart {
            self.listen().chain_deferred(restart);
        }
        fire_stopped(waiters, result);
    }
}
