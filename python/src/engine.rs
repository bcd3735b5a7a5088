//! [`Engine`]: a reactor of the crate, for the class `RopewalkReactor`.
//!
//! Twisted's `ReactorBase` has the life of a run, with its events and triggers. The engine makes the
//! turns, and has the timers, the foreign descriptors and the connections.
//!
//! All objects of Python that the engine keeps stand in the tables of [`State`], so that the
//! garbage collector sees them. The engine's own closures hold a number and a `Weak`. An abandoned
//! reactor goes with the next collection.
//!
//! **Threads.** While the loop waits, other threads may call. A request that reaches the backend is
//! handed to `callFromThread`, and takes effect when the loop has woken up. Timers are set at once,
//! and ring the loop.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};
use ropewalk::error::ReactorError;
use ropewalk::reactor::{HostedRun, Remote};
use ropewalk::{BackendKind, Clock, Protocol, Reactor, Transport};

use crate::conn::Conn;
use crate::gil::{Gil, Wait};
use crate::logs;
use crate::table::Table;
use crate::timers::DelayedCall;
use crate::watches::Watches;

/// The longest wait of a turn outside of a run: 20 days, below the 24 that `Reactor::iterate` waits.
const LONGEST_TURN: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// The event loop below a `RopewalkReactor`. Programs use the reactor.
#[pyclass(frozen, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Engine {
    state: Gil<Rc<State>>,
}

/// All that an engine keeps.
pub(crate) struct State {
    pub(crate) engine: Reactor,
    remote: Remote,
    /// The run, from `begin` to `end`. A turn holds a clone.
    run: RefCell<Option<Rc<HostedRun>>>,
    wait: Rc<Wait>,
    /// The first exception of a handler of Python's signals, which the turn raises at its end.
    raised: Rc<RefCell<Option<PyErr>>>,
    /// The loop was rung, and phase 1 has not seen it yet.
    is_rung: Cell<bool>,
    /// An event loop of asyncio makes the turns: see `answers_asyncio`.
    answers_asyncio: Cell<bool>,
    /// The loop of `run` is to return.
    is_leaving: Cell<bool>,
    thread: ThreadId,
    /// Time of day at the start of the engine's clock, in seconds.
    epoch: f64,
    /// The `RopewalkReactor`, whose methods the engine calls. `None` once the collector has
    /// cleared it.
    reactor: RefCell<Option<Py<PyAny>>>,
    pub(crate) timers: RefCell<Table<Py<DelayedCall>>>,
    pub(crate) connections: RefCell<Table<Py<Conn>>>,
    /// The stack of log contexts of the thread that makes the turn, once a callback has used it.
    contexts: RefCell<Option<Py<PyList>>>,
    /// The calls of `call_soon`.
    soon: RefCell<Table<Py<PyAny>>>,
    pub(crate) watches: Watches,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, reactor: Py<PyAny>, backend: Option<&str>) -> PyResult<Self> {
        let (wait, raised) = (Rc::new(Wait::new()), Rc::new(RefCell::new(None)));
        let (begins, ends, raises) = (Rc::clone(&wait), Rc::clone(&wait), Rc::clone(&raised));
        let builder = Reactor::builder().signals(false).around_wait(
            move || begins.begin(),
            move || {
                ends.end();
                // A signal may have ended the wait. Its handler runs here, as in a wait of Python's.
                Python::attach(|py| {
                    if let Err(error) = py.check_signals() {
                        raises.replace(Some(error));
                    }
                });
            },
        );
        let builder = match backend {
            None => builder,
            Some("mio") => builder.backend(BackendKind::Mio),
            Some("io_uring") => builder.backend(BackendKind::IoUring),
            Some(other) => {
                return Err(PyValueError::new_err(format!("the backend is {other:?}: expected 'mio' or 'io_uring'")));
            }
        };
        let engine = builder.build().map_err(failed)?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            remote: engine.remote(),
            run: RefCell::new(None),
            wait,
            raised,
            is_rung: Cell::new(false),
            answers_asyncio: Cell::new(false),
            is_leaving: Cell::new(false),
            thread: thread::current().id(),
            epoch: wall.as_secs_f64() - engine.seconds().as_secs_f64(),
            reactor: RefCell::new(Some(reactor)),
            timers: RefCell::new(Table::new()),
            connections: RefCell::new(Table::new()),
            contexts: RefCell::new(None),
            soon: RefCell::new(Table::new()),
            watches: Watches::new(),
            engine,
        };
        Ok(Self { state: Gil::new(Rc::new(state), py) })
    }

    /// The name of the backend: "mio" or "io_uring".
    #[getter]
    fn backend(&self, py: Python<'_>) -> &'static str {
        self.state.get(py).engine.backend().name()
    }

    /// True if an event loop of asyncio makes the turns. A call of phase 1 or 2 may give that loop
    /// work of which the engine does not know. So the turn does not wait behind such a call.
    #[getter]
    fn answers_asyncio(&self, py: Python<'_>) -> bool {
        self.state.get(py).answers_asyncio.get()
    }

    #[setter]
    fn set_answers_asyncio(&self, py: Python<'_>, answers: bool) {
        self.state.get(py).answers_asyncio.set(answers);
    }

    /// Begins a run on this thread.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state.get(py);
        if state.engine.backend() == BackendKind::IoUring && thread::current().id() != state.thread {
            return Err(PyRuntimeError::new_err(
                "a ring belongs to the thread that made the reactor: run it there, or use the backend mio",
            ));
        }
        state.is_leaving.set(false);
        let contexts = state.contexts.take();
        drop(contexts);
        state.begin_run()
    }

    /// Ends the run. What was written leaves; timers, descriptors and connections stay.
    fn end(&self, py: Python<'_>) {
        let state = self.state.get(py);
        let (run, contexts) = (state.run.take(), state.contexts.take());
        drop((run, contexts));
    }

    /// Makes turns until `leave`, or until a signal's handler raises.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let state = Rc::clone(self.state.get(py));
        if state.run.borrow().is_none() {
            state.begin_run()?;
        }
        while !state.is_leaving.replace(false) {
            state.turn(py, None)?;
        }
        Ok(())
    }

    /// Makes `run` return after this turn.
    fn leave(&self, py: Python<'_>) {
        let state = self.state.get(py);
        state.is_leaving.set(true);
        state.ring();
    }

    /// Makes one turn, which waits at most `timeout` seconds: without limit if it is None.
    fn turn(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let state = Rc::clone(self.state.get(py));
        state.turn(py, timeout.map(duration))
    }

    /// Wakes the loop, from any thread, and has it run the calls from threads.
    fn ring(&self, py: Python<'_>) {
        self.state.get(py).ring();
    }

    /// The time: monotonic, from the time of day at which the engine was made.
    pub(crate) fn seconds(&self, py: Python<'_>) -> f64 {
        self.state.get(py).seconds()
    }

    /// Schedules `call(*args, **kw)` in `delay` seconds. `special` is a pair for calls that need it:
    /// a function that replaces `seconds`, and the stack of the caller. Both may be None.
    fn call_later<'py>(
        &self,
        py: Python<'py>,
        delay: f64,
        call: Py<PyAny>,
        args: Py<PyTuple>,
        kw: Option<Py<PyDict>>,
        special: Option<(Option<Bound<'py, PyAny>>, Option<Py<PyAny>>)>,
    ) -> PyResult<Py<DelayedCall>> {
        let state = self.state.get(py);
        let (clock, creator) = special.unwrap_or_default();
        let clock = match clock {
            Some(clock) => {
                let time = clock.call0()?.extract::<f64>()? + delay;
                Some((clock.unbind(), time))
            }
            None => None,
        };
        let made = DelayedCall::schedule(py, state, duration(delay), (call, args, kw), clock, creator)?;
        state.ring_if_asleep();
        Ok(made)
    }

    /// Makes a call in the next turn, behind all that are due by now. It is no call of the program:
    /// `delayed_calls` does not list it.
    fn call_soon(&self, py: Python<'_>, call: Py<PyAny>) {
        let state = self.state.get(py);
        let number = state.soon.borrow_mut().insert(call);
        let weak = Rc::downgrade(state);
        state.engine.call_later(Duration::ZERO, move || {
            Python::attach(|py| {
                let Some(state) = weak.upgrade() else { return };
                let due = state.soon.borrow_mut().remove(number);
                if let Some(Err(error)) = due.map(|call| call.call0(py)) {
                    state.raise(error);
                }
                state.called();
            });
        });
        state.ring_if_asleep();
    }

    /// The calls that are still to be made, the next one first.
    fn delayed_calls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let state = self.state.get(py);
        let mut calls: Vec<_> = state.timers.borrow().iter().map(|call| call.clone_ref(py)).collect();
        calls.sort_by_key(|call| call.get().deadline(py));
        PyList::new(py, calls)
    }

    /// Calls `reactor._ready` when the selectable can be read.
    fn add_reader(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).watch(selectable, ropewalk::reactor::Interest::READ)
    }

    /// Calls `reactor._ready` when the selectable can be written to.
    fn add_writer(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).watch(selectable, ropewalk::reactor::Interest::WRITE)
    }

    /// Ends `add_reader`.
    fn remove_reader(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).unwatch(selectable, ropewalk::reactor::Interest::READ)
    }

    /// Ends `add_writer`.
    fn remove_writer(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).unwatch(selectable, ropewalk::reactor::Interest::WRITE)
    }

    /// The selectables that are read, and the connections that read.
    fn readers(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let state = self.state.get(py);
        let mut readers = state.watches.readers(py);
        readers.extend(state.connections(py, Conn::is_reader));
        readers
    }

    /// The selectables that are written to, and the connections that have something to send.
    fn writers(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let state = self.state.get(py);
        let mut writers = state.watches.writers(py);
        writers.extend(state.connections(py, Conn::is_writer));
        writers
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let state = self.state.peek();
        if let Ok(reactor) = state.reactor.try_borrow() {
            visit.call(&*reactor)?;
        }
        if let Ok(timers) = state.timers.try_borrow() {
            timers.iter().try_for_each(|call| visit.call(call))?;
        }
        if let Ok(connections) = state.connections.try_borrow() {
            connections.iter().try_for_each(|conn| visit.call(conn))?;
        }
        if let Ok(contexts) = state.contexts.try_borrow() {
            visit.call(&*contexts)?;
        }
        if let Ok(soon) = state.soon.try_borrow() {
            soon.iter().try_for_each(|call| visit.call(call))?;
        }
        state.watches.traverse(visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        let state = self.state.get(py);
        let reactor = state.reactor.take();
        let timers = state.timers.replace(Table::new());
        let soon = state.soon.replace(Table::new());
        let connections = state.connections.replace(Table::new());
        drop((reactor, timers, soon, connections, state.contexts.take()));
        state.watches.clear();
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let state = self.state.get(py);
        format!("<ropewalk.Engine on {}, running: {}>", state.engine.backend().name(), state.run.borrow().is_some())
    }
}

impl Engine {
    pub(crate) fn state<'a>(&'a self, py: Python<'a>) -> &'a Rc<State> {
        self.state.get(py)
    }
}

impl State {
    fn begin_run(&self) -> PyResult<()> {
        let run = self.engine.begin_run().map_err(failed)?;
        self.run.replace(Some(Rc::new(run)));
        Ok(())
    }

    /// Makes a turn: one of the run, if there is one.
    fn turn(&self, py: Python<'_>, longest: Option<Duration>) -> PyResult<()> {
        let run = self.run.borrow().clone();
        let turned = match run {
            Some(run) => run.step(longest).map(|goes_on| {
                if !goes_on {
                    self.run.take();
                }
            }),
            None => self.engine.iterate(longest.unwrap_or(LONGEST_TURN)),
        };
        if self.run.borrow().is_none() {
            // Another thread may make the next one.
            let contexts = self.contexts.take();
            drop(contexts);
        }
        logs::forward(py);
        if let Err(error) = turned {
            if matches!(error, ReactorError::Poll(_)) {
                // The run is over. The next turn begins another one.
                self.run.take();
            }
            return Err(failed(error));
        }
        self.raised.take().map_or(Ok(()), Err)
    }

    /// Hands a connected socket to the engine.
    pub(crate) fn adopt(&self, socket: OwnedFd, peer: SocketAddr, protocol: impl Protocol) -> PyResult<Transport> {
        Ok(self.engine.tmp_adopt(socket, crate::conn::unspecified(peer), peer, protocol)?)
    }

    /// Returns the stack of log contexts of this thread (Twisted: `ContextTracker.contexts`).
    pub(crate) fn log_contexts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        if let Some(contexts) = &*self.contexts.borrow() {
            return Ok(contexts.bind(py).clone());
        }
        let module = py.import(intern!(py, "twisted.python.context"))?;
        let tracker = module.getattr(intern!(py, "theContextTracker"))?.call_method0(intern!(py, "currentContext"))?;
        let contexts = tracker.getattr(intern!(py, "contexts"))?.cast_into::<PyList>()?;
        self.contexts.replace(Some(contexts.clone().unbind()));
        Ok(contexts)
    }

    /// Returns the connections of a kind.
    fn connections(&self, py: Python<'_>, kind: fn(&Conn, Python<'_>) -> bool) -> Vec<Py<PyAny>> {
        let connections = self.connections.borrow();
        connections.iter().filter(|conn| kind(conn.get(), py)).map(|conn| conn.clone_ref(py).into_any()).collect()
    }

    /// Has the turn raise an exception at its end. The first one stays.
    pub(crate) fn raise(&self, error: PyErr) {
        self.raised.borrow_mut().get_or_insert(error);
    }

    /// Wakes the loop, from any thread. Phase 1 of the next turn runs the calls from threads.
    pub(crate) fn ring(self: &Rc<Self>) {
        if self.is_rung.replace(true) {
            return;
        }
        let rung = Python::attach(|py| Gil::new(Rc::downgrade(self), py));
        let answer = move |_: &Reactor| {
            Python::attach(|py| {
                if let Some(state) = rung.get(py).upgrade() {
                    state.is_rung.set(false);
                    // It logs what its calls raise, and rings again if asyncio has to be served.
                    let _ = state.tell(py, |reactor| reactor.call_method0(py, intern!(py, "_runThreadCalls")));
                }
            });
        };
        if self.remote.call_from_thread(answer).is_err() {
            // A forked child, or the reactor is closed: there is no loop to wake.
            self.is_rung.set(false);
        }
    }

    /// Keeps this turn from waiting, behind a call that may have given work to asyncio.
    pub(crate) fn called(self: &Rc<Self>) {
        if self.answers_asyncio.get() {
            self.ring();
        }
    }

    /// Rings if the loop waits: the caller is another thread, whose change the wait does not see.
    pub(crate) fn ring_if_asleep(self: &Rc<Self>) {
        if self.is_asleep() {
            self.ring();
        }
    }

    /// Returns `true` while the loop waits. The caller is another thread then.
    pub(crate) fn is_asleep(&self) -> bool {
        self.wait.is_under_way()
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

/// Returns a delay of Python. One that is negative or no number is zero, and one that is too long is
/// the longest there is.
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
