//! [`State`]: all that an [`Engine`](crate::engine::Engine) keeps, and its turns.
//!
//! Objects of Python stand in the tables of the state, where the engine's `__traverse__` sees them.
//! Closures of the engine hold a [`WeakState`] and a number.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::ptr;
use std::rc::{Rc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use ropewalk::address::{Address, UnixAddress};
use ropewalk::error::ReactorError;
use ropewalk::reactor::{AcceptedSocket, AdoptOptions, HostedRun, Remote};
use ropewalk::{BackendKind, Clock, Protocol, Reactor, Transport};

use crate::call_later::Usual;
use crate::conn::{Conn, unspecified};
use crate::contexts::LogContexts;
use crate::gil::Wait;
use crate::logs;
use crate::table::Table;
use crate::timers::DelayedCall;
use crate::watches::Watches;

/// The longest wait of a turn outside of a run: 20 days. `Reactor::iterate` waits for 24 at most.
const LONGEST_TURN: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// All that an engine keeps.
pub(crate) struct State {
    pub(crate) engine: Reactor,
    remote: Remote,
    /// The run, from `begin` to `end`. A turn holds a clone.
    pub(crate) run: RefCell<Option<Rc<HostedRun>>>,
    /// The first exception of a handler of Python's signals, which the turn raises at its end.
    raised: Rc<RefCell<Option<PyErr>>>,
    /// The callbacks that an event loop of asyncio is about to call, if it makes the turns.
    pub(crate) asyncio: RefCell<Option<Py<PyAny>>>,
    /// That loop has other work: a new timer, or its end.
    pub(crate) asyncio_asks: Cell<bool>,
    /// The thread that runs or turns the loop ([`this_thread`]); zero if there is none.
    pub(crate) loop_thread: Cell<usize>,
    /// The loop of `run` is to return.
    pub(crate) is_leaving: Cell<bool>,
    pub(crate) thread: ThreadId,
    /// Time of day at the start of the engine's clock, in seconds.
    epoch: f64,
    /// The `RopewalkReactor`, whose methods the engine calls. `None` once the collector has
    /// cleared it.
    pub(crate) reactor: RefCell<Option<Py<PyAny>>>,
    pub(crate) timers: RefCell<Table<Py<DelayedCall>>>,
    /// `None` until the reactor has told it, and once the collector has cleared it.
    pub(crate) usual: RefCell<Option<Usual>>,
    pub(crate) connections: RefCell<Table<Py<Conn>>>,
    pub(crate) contexts: LogContexts,
    /// The calls of `call_soon`.
    pub(crate) soon: RefCell<Table<Py<PyAny>>>,
    pub(crate) watches: Watches,
}

impl State {
    /// Makes the engine of a `RopewalkReactor`.
    pub(crate) fn new(reactor: Py<PyAny>, backend: Option<BackendKind>) -> PyResult<Rc<Self>> {
        let (wait, raised) = (Rc::new(Wait::new()), Rc::new(RefCell::new(None)));
        let rung = Rc::new(RefCell::new(WeakState::new()));
        let answers = Rc::clone(&rung);
        let (begins, raises) = (Rc::clone(&wait), Rc::clone(&raised));
        let builder = Reactor::builder().signals(false).on_ring(move |_| {
            let Some(state) = answers.borrow().upgrade() else { return };
            Python::attach(|py| {
                // It logs what its calls raise.
                let _ = state.tell(py, |reactor| reactor.call_method0(py, intern!(py, "_runThreadCalls")));
            });
        });
        let builder = builder.around_wait(
            move || begins.begin(),
            move || {
                wait.end();
                // A signal may have ended the wait. Its handler runs here.
                Python::attach(|py| {
                    if let Err(error) = py.check_signals() {
                        raises.replace(Some(error));
                    }
                });
            },
        );
        let builder = match backend {
            Some(kind) => builder.backend(kind),
            None => builder,
        };
        let engine = builder.build().map_err(failed)?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = Self {
            remote: engine.remote(),
            run: RefCell::new(None),
            raised,
            asyncio: RefCell::new(None),
            asyncio_asks: Cell::new(false),
            loop_thread: Cell::new(0),
            is_leaving: Cell::new(false),
            thread: thread::current().id(),
            epoch: wall.as_secs_f64() - engine.seconds().as_secs_f64(),
            reactor: RefCell::new(Some(reactor)),
            timers: RefCell::new(Table::new()),
            usual: RefCell::new(None),
            connections: RefCell::new(Table::new()),
            contexts: LogContexts::default(),
            soon: RefCell::new(Table::new()),
            watches: Watches::new(),
            engine,
        };
        let state = Rc::new(state);
        rung.replace(Rc::downgrade(&state));
        Ok(state)
    }

    pub(crate) fn begin_run(&self) -> PyResult<()> {
        let run = self.engine.begin_run().map_err(failed)?;
        self.run.replace(Some(Rc::new(run)));
        Ok(())
    }

    /// Makes a turn: one of the run, if there is one.
    pub(crate) fn turn(&self, py: Python<'_>, longest: Option<Duration>) -> PyResult<()> {
        let run = self.run.borrow().clone();
        let turned = match run {
            Some(run) => run.step(longest).map(|goes_on| {
                if !goes_on {
                    self.run.take();
                }
            }),
            None => {
                let earlier = self.loop_thread.replace(this_thread());
                let turned = self.engine.iterate(longest.unwrap_or(LONGEST_TURN));
                self.loop_thread.set(earlier);
                turned
            }
        };
        let is_over = self.run.borrow().is_none();
        // Another thread may make the next one.
        let ended = if is_over { self.contexts.end(py) } else { Ok(()) };
        logs::forward(py);
        if let Err(error) = turned {
            if matches!(error, ReactorError::Poll(_)) {
                // The run is over. The next turn begins another one.
                self.run.take();
            }
            return Err(failed(error));
        }
        self.raised.take().map_or(ended, Err)
    }

    /// Hands a connected socket to the engine. Without the address of a peer, it is a UNIX socket.
    pub(crate) fn adopt(
        &self,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        protocol: impl Protocol,
    ) -> PyResult<Transport> {
        let options = AdoptOptions::new().tcp_no_delay(false);
        let (host, peer) = match peer {
            Some(peer) => (Address::from(unspecified(peer)), Address::from(peer)),
            None => (UnixAddress::unnamed().into(), UnixAddress::unnamed().into()),
        };
        let adopted = self.engine.adopt_stream(socket, host, peer, &options, protocol);
        match adopted {
            Ok(connection) => Ok(connection.transport().clone()),
            // The descriptor is closed with the error: its socket object has none any more.
            Err(refused) => Err(PyOSError::new_err(refused.error.to_string())),
        }
    }

    /// Hands an accepted socket to the engine.
    pub(crate) fn adopt_accepted(&self, accepted: AcceptedSocket, protocol: impl Protocol) -> PyResult<Transport> {
        let host = match accepted.peer().socket_addr() {
            Some(peer) => Address::from(unspecified(peer)),
            None => UnixAddress::unnamed().into(),
        };
        let adopted = self.engine.adopt_accepted(accepted, host, protocol);
        adopted.map(|connection| connection.transport().clone()).map_err(|error| PyOSError::new_err(error.to_string()))
    }

    /// Returns the connections of a kind.
    pub(crate) fn connections(&self, py: Python<'_>, kind: fn(&Conn, Python<'_>) -> bool) -> Vec<Py<PyAny>> {
        let connections = self.connections.borrow();
        connections.iter().filter(|conn| kind(conn.get(), py)).map(|conn| conn.clone_ref(py).into_any()).collect()
    }

    /// Has the turn raise an exception at its end. The first one stays.
    pub(crate) fn raise(&self, error: PyErr) {
        self.raised.borrow_mut().get_or_insert(error);
    }

    /// Wakes the loop, from any thread. Phase 1 of the next turn makes the calls of threads.
    pub(crate) fn ring(&self) {
        self.remote.ring();
    }

    /// Keeps this turn from waiting, behind a call that has given work to asyncio.
    pub(crate) fn called(&self, py: Python<'_>) {
        if self.asyncio_has_work(py) {
            self.ring();
        }
    }

    /// Returns `true` if an event loop of asyncio has work that the engine does not know.
    pub(crate) fn asyncio_has_work(&self, py: Python<'_>) -> bool {
        let ready = self.asyncio.borrow();
        let Some(ready) = &*ready else { return false };
        // A queue of the program that has no length is looked at by its loop.
        self.asyncio_asks.get() || ready.bind(py).len().map_or(true, |length| length > 0)
    }

    /// Returns `true` if the loop belongs to another thread: it waits without the GIL, or is in a
    /// callback that has lost the GIL for a moment.
    ///
    /// Both count, so that the requests of a thread keep their order.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let thread = self.loop_thread.get();
        thread != 0 && thread != this_thread()
    }

    /// Has the loop make this call of another thread, once it has woken up.
    pub(crate) fn call_from_thread(
        &self,
        method: Bound<'_, PyAny>,
        argument: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = method.py();
        self.tell(py, |reactor| {
            let name = intern!(py, "callFromThread");
            match argument {
                Some(argument) => reactor.call_method1(py, name, (method, argument)),
                None => reactor.call_method1(py, name, (method,)),
            }
        })
    }

    /// Returns the `RopewalkReactor`, unless it is gone.
    pub(crate) fn reactor(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.reactor.borrow().as_ref().map(|reactor| reactor.clone_ref(py))
    }

    /// Calls the `RopewalkReactor`. An exception is returned, and also kept for the end of the
    /// turn, so that no caller loses it.
    pub(crate) fn tell(&self, py: Python<'_>, call: impl FnOnce(Py<PyAny>) -> PyResult<Py<PyAny>>) -> PyResult<()> {
        match self.reactor(py).map(call) {
            Some(Err(error)) => {
                self.raise(error.clone_ref(py));
                Err(error)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.epoch + self.engine.seconds().as_secs_f64()
    }

    /// Returns a moment of the engine's clock as a time of day.
    pub(crate) fn wall(&self, at: Duration) -> f64 {
        self.epoch + at.as_secs_f64()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// A state that a closure of the engine refers to.
pub(crate) type WeakState = Weak<State>;

/// Returns a number that no other living thread has, in fewer steps than `thread::current`.
pub(crate) fn this_thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| ptr::from_ref(place).addr())
}

/// Returns a delay of Python. One that is negative or no number is zero, and one that is too long
/// is the longest there is.
pub(crate) fn duration(seconds: f64) -> Duration {
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Returns the exception for an error of the engine.
fn failed(error: ReactorError) -> PyErr {
    let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    let message = format!("{error}{cause}");
    match error {
        ReactorError::AlreadyRunning => Python::attach(|py| {
            let found = py.import("twisted.internet.error").and_then(|module| module.getattr("ReactorAlreadyRunning"));
            found.and_then(|class| class.call1((message,))).map_or_else(|error| error, PyErr::from_value)
        }),
        ReactorError::Poll(error) | ReactorError::Setup(error) => match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, message)),
            None => PyOSError::new_err(message),
        },
        _ => PyRuntimeError::new_err(message),
    }
}
