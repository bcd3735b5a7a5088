//! [`Engine`]: a reactor of the crate, for the class `RopewalkReactor`.
//!
//! Twisted's `ReactorBase` has the life of a run, with its events and triggers. The engine makes
//! the turns, and has the timers, the foreign descriptors and the connections.
//!
//! All objects of Python that the engine keeps stand in the tables of [`State`], so that the
//! garbage collector sees them. An abandoned reactor goes with the next collection.
//!
//! **Threads.** Other threads may call while the loop runs. A request about a connection or a
//! descriptor is handed to `callFromThread`, and takes effect in the next turn. Timers are set at
//! once, and ring the loop.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use ropewalk::reactor::Interest;
use ropewalk::{BackendKind, Clock};

use crate::call_later::Usual;
use crate::conn::Conn;
use crate::gil::Gil;
use crate::state::{State, duration, this_thread};
use crate::table::Table;
use crate::timers::{DelayedCall, Special};

/// The event loop below a `RopewalkReactor`. Programs use the reactor.
#[pyclass(frozen, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Engine {
    state: Gil<Rc<State>>,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, reactor: Py<PyAny>, backend: Option<&str>) -> PyResult<Self> {
        let kind = match backend {
            None => None,
            Some("mio") => Some(BackendKind::Mio),
            Some("io_uring") => Some(BackendKind::IoUring),
            Some(other) => {
                return Err(PyValueError::new_err(format!("the backend is {other:?}: expected 'mio' or 'io_uring'")));
            }
        };
        Ok(Self { state: Gil::new(State::new(reactor, kind)?, py) })
    }

    /// The name of the backend: "mio" or "io_uring".
    #[getter]
    fn backend(&self, py: Python<'_>) -> &'static str {
        self.state.get(py).engine.backend().name()
    }

    /// Lets an event loop of asyncio make the turns, by `turns_for_asyncio`. `ready` is its queue
    /// of callbacks.
    fn serve_asyncio(&self, py: Python<'_>, ready: Py<PyAny>) {
        let earlier = self.state.get(py).asyncio.replace(Some(ready));
        drop(earlier);
    }

    /// Tells that the event loop of asyncio has work which is not in its queue.
    fn asyncio_asks(&self, py: Python<'_>) {
        self.state.get(py).asyncio_asks.set(true);
    }

    /// Makes turns until asyncio has something to do: a callback in its queue, an event in
    /// `events`, other work (`asyncio_asks`), or a timer, which is due in `timeout` seconds.
    fn turns_for_asyncio(&self, py: Python<'_>, timeout: Option<f64>, events: &Bound<'_, PyDict>) -> PyResult<()> {
        let state = Rc::clone(self.state.get(py));
        state.asyncio_asks.set(false);
        let mut longest = timeout.map(duration);
        let until = longest.map(|longest| state.engine.seconds().saturating_add(longest));
        loop {
            state.turn(py, longest)?;
            longest = until.map(|until| until.saturating_sub(state.engine.seconds()));
            if longest.is_some_and(|left| left.is_zero()) || !events.is_empty() || state.asyncio_has_work(py) {
                return Ok(());
            }
        }
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
        state.begin_run()?;
        state.loop_thread.set(this_thread());
        Ok(())
    }

    /// Ends the run. Timers, descriptors and connections stay.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state.get(py);
        let run = state.run.take();
        drop(run);
        state.loop_thread.set(0);
        // No turn may come any more, which would end it.
        state.engine.end_lingering();
        state.contexts.end(py)
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

    /// Tells `callLater` the reactor's own `seconds`, and Twisted's class of delayed calls.
    fn schedules_by(&self, py: Python<'_>, seconds: Py<PyAny>, twisted: Py<PyType>) {
        let earlier = self.state.get(py).usual.replace(Some(Usual { seconds, twisted }));
        drop(earlier);
    }

    /// Schedules `call(*args, **kw)` in `delay` seconds, for a call that may need more:
    /// `special` is a clock that replaces `seconds`, and the stack of the caller. Both may be None.
    fn call_later(
        &self,
        py: Python<'_>,
        delay: f64,
        call: Py<PyAny>,
        args: Py<PyTuple>,
        kw: Option<Py<PyDict>>,
        special: (Option<Py<PyAny>>, Option<Py<PyAny>>),
    ) -> PyResult<Py<DelayedCall>> {
        let (clock, creator) = special;
        let clock = match clock {
            Some(clock) => {
                let time = clock.call0(py)?.extract::<f64>(py)? + delay;
                Some((clock, time))
            }
            None => None,
        };
        let special = Box::new(Special { clock, creator });
        DelayedCall::schedule(py, self.state.get(py), duration(delay), (call, args, kw), Some(special))
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
                state.called(py);
            });
        });
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
        self.state.get(selectable.py()).watch(selectable, Interest::READ)
    }

    /// Calls `reactor._ready` when the selectable can be written to.
    fn add_writer(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).watch(selectable, Interest::WRITE)
    }

    /// Ends `add_reader`.
    fn remove_reader(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).unwatch(selectable, Interest::READ)
    }

    /// Ends `add_writer`.
    fn remove_writer(&self, selectable: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(selectable.py()).unwatch(selectable, Interest::WRITE)
    }

    /// True if a selectable is read that had this number when it was added.
    fn is_read(&self, py: Python<'_>, number: RawFd) -> bool {
        self.state.get(py).watches.is_read(number)
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
        state.contexts.traverse(&visit)?;
        if let Ok(soon) = state.soon.try_borrow() {
            soon.iter().try_for_each(|call| visit.call(call))?;
        }
        if let Ok(usual) = state.usual.try_borrow() {
            usual.iter().try_for_each(|usual| usual.traverse(&visit))?;
        }
        if let Ok(asyncio) = state.asyncio.try_borrow() {
            visit.call(&*asyncio)?;
        }
        state.watches.traverse(visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        let state = self.state.get(py);
        let reactor = state.reactor.take();
        let timers = state.timers.replace(Table::new());
        let soon = state.soon.replace(Table::new());
        let connections = state.connections.replace(Table::new());
        let (usual, asyncio) = (state.usual.take(), state.asyncio.take());
        drop((reactor, timers, soon, connections, usual, asyncio));
        state.contexts.clear();
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
