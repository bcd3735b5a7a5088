//! [`DelayedCall`]: Twisted's `IDelayedCall`, on a timer of the engine.
//!
//! | stage | `active()` | `cancel`, `reset`, `delay` |
//! |---|---|---|
//! | pending | True | done |
//! | called | False | `AlreadyCalled` |
//! | cancelled | False | `AlreadyCancelled` |
//!
//! The engine's table keeps a pending call, and the call keeps its function. A call that was made
//! keeps its function as well, as Twisted's does; a cancelled one drops it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};
use ropewalk::Clock;
use ropewalk::error::TimerError;

use crate::gil::Gil;
use crate::state::{State, WeakState, duration};

/// The function of a call, with its arguments.
pub(crate) type Function = (Py<PyAny>, Py<PyTuple>, Option<Py<PyDict>>);

/// A call that `reactor.callLater` has scheduled.
#[pyclass(frozen, weakref, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct DelayedCall(Gil<Inner>);

struct Inner {
    state: WeakState,
    /// The place in the engine's table.
    number: Cell<usize>,
    /// It is set as soon as the call has its number.
    timer: OnceCell<ropewalk::DelayedCall>,
    stage: Cell<Stage>,
    /// `None` once it was cancelled, or cleared by the collector.
    function: RefCell<Option<Function>>,
    special: RefCell<Option<Box<Special>>>,
}

/// The parts that few calls have.
#[derive(Default)]
pub(crate) struct Special {
    /// The clock that a program has put in the place of `reactor.seconds`, and the time by it.
    pub(crate) clock: Option<(Py<PyAny>, f64)>,
    /// The stack of the caller, if `twisted.internet.base.DelayedCall.debug` was on.
    pub(crate) creator: Option<Py<PyAny>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    Called,
    Cancelled,
}

impl DelayedCall {
    /// Schedules a call on the engine.
    pub(crate) fn schedule(
        py: Python<'_>,
        state: &Rc<State>,
        delay: Duration,
        function: Function,
        special: Option<Box<Special>>,
    ) -> PyResult<Py<Self>> {
        let inner = Inner {
            state: Rc::downgrade(state),
            number: Cell::new(0),
            timer: OnceCell::new(),
            stage: Cell::new(Stage::Pending),
            function: RefCell::new(Some(function)),
            special: RefCell::new(special),
        };
        let call = Py::new(py, Self(Gil::new(inner, py)))?;
        let number = state.timers.borrow_mut().insert(call.clone_ref(py));
        let weak = Rc::downgrade(state);
        let timer = state.engine.call_later(delay, move || Python::attach(|py| fire(py, &weak, number)));
        let inner = call.get().0.get(py);
        inner.number.set(number);
        // It has none yet.
        let _ = inner.timer.set(timer);
        Ok(call)
    }

    /// Returns the moment at which it is due, on the engine's clock.
    pub(crate) fn deadline(&self, py: Python<'_>) -> Duration {
        self.0.get(py).timer.get().map_or(Duration::ZERO, ropewalk::DelayedCall::time)
    }

    /// Moves a pending call.
    fn move_by(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&ropewalk::DelayedCall) -> Result<(), TimerError>,
    ) -> PyResult<()> {
        let inner = self.0.get(py);
        inner.check_pending(py)?;
        if let Some(timer) = inner.timer.get() {
            // It is pending, as was checked.
            let _ = change(timer);
        }
        Ok(())
    }
}

#[pymethods]
impl DelayedCall {
    /// Cancels the call, and drops its function.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.0.get(py);
        inner.check_pending(py)?;
        inner.stage.set(Stage::Cancelled);
        let kept = inner.state.upgrade().and_then(|state| {
            // The timer's own closure holds no object of Python. It is pending, as was checked.
            let _ = inner.timer.get().map(ropewalk::DelayedCall::cancel);
            state.timers.borrow_mut().remove(inner.number.get())
        });
        drop((kept, inner.function.take()));
        Ok(())
    }

    /// Makes the call due in `secondsFromNow` seconds.
    #[pyo3(signature = (secondsFromNow))]
    #[allow(non_snake_case, reason = "the name of the argument is Twisted's")]
    fn reset(&self, py: Python<'_>, secondsFromNow: f64) -> PyResult<()> {
        self.move_by(py, |timer| timer.reset(duration(secondsFromNow)))?;
        let inner = self.0.get(py);
        if let Some(clock) = inner.clock(py) {
            let time = clock.call0(py)?.extract::<f64>(py)? + secondsFromNow;
            inner.set_time(|_| time);
        }
        Ok(())
    }

    /// Makes the call due `secondsLater` seconds later than planned; sooner, if it is negative.
    #[pyo3(signature = (secondsLater))]
    #[allow(non_snake_case, reason = "the name of the argument is Twisted's")]
    fn delay(&self, py: Python<'_>, secondsLater: f64) -> PyResult<()> {
        self.move_by(py, |timer| {
            if secondsLater < 0.0 { timer.hasten(duration(-secondsLater)) } else { timer.delay(duration(secondsLater)) }
        })?;
        self.0.get(py).set_time(|time| time + secondsLater);
        Ok(())
    }

    /// True if the call is still to be made.
    fn active(&self, py: Python<'_>) -> bool {
        self.0.get(py).stage.get() == Stage::Pending
    }

    /// The time at which the call is due, as `reactor.seconds` counts.
    #[pyo3(name = "getTime")]
    fn get_time(&self, py: Python<'_>) -> f64 {
        let inner = self.0.get(py);
        if let Some((_, time)) = inner.special.borrow().as_ref().and_then(|special| special.clock.as_ref()) {
            return *time;
        }
        inner.state.upgrade().map_or(0.0, |state| state.wall(self.deadline(py)))
    }

    /// The same as `getTime`.
    #[getter]
    fn time(&self, py: Python<'_>) -> f64 {
        self.get_time(py)
    }

    /// The time of the reactor's clock.
    fn seconds(&self, py: Python<'_>) -> PyResult<f64> {
        let inner = self.0.get(py);
        match inner.clock(py) {
            Some(clock) => clock.call0(py)?.extract(py),
            None => Ok(inner.state.upgrade().map_or(0.0, |state| state.seconds())),
        }
    }

    /// 1 once the call was made.
    #[getter]
    fn called(&self, py: Python<'_>) -> u8 {
        u8::from(self.0.get(py).stage.get() == Stage::Called)
    }

    /// 1 once the call was cancelled.
    #[getter]
    fn cancelled(&self, py: Python<'_>) -> u8 {
        u8::from(self.0.get(py).stage.get() == Stage::Cancelled)
    }

    /// The function, unless the call was cancelled.
    #[getter]
    fn func(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py).part(py, "func", |(function, _, _)| function.clone_ref(py))
    }

    /// The arguments of the function.
    #[getter]
    fn args(&self, py: Python<'_>) -> PyResult<Py<PyTuple>> {
        self.0.get(py).part(py, "args", |(_, args, _)| args.clone_ref(py))
    }

    /// The named arguments of the function.
    #[getter]
    fn kw(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        self.0.get(py).part(py, "kw", |(_, _, kw)| match kw {
            Some(kw) => kw.clone_ref(py),
            None => PyDict::new(py).unbind(),
        })
    }

    /// The stack of the caller, if `twisted.internet.base.DelayedCall.debug` was on.
    #[getter]
    fn creator(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let special = self.0.get(py).special.borrow();
        special.as_ref()?.creator.as_ref().map(|creator| creator.clone_ref(py))
    }

    /// Twisted's calls are ordered by their times.
    fn __lt__(&self, other: &Bound<'_, Self>) -> bool {
        self.get_time(other.py()) < other.get().get_time(other.py())
    }

    fn __le__(&self, other: &Bound<'_, Self>) -> bool {
        self.get_time(other.py()) <= other.get().get_time(other.py())
    }

    /// It is equal to itself alone. A class with an order inherits no hash.
    fn __hash__(slf: &Bound<'_, Self>) -> usize {
        slf.as_ptr() as usize
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let described = py.import(intern!(py, "ropewalk._timers"))?.getattr(intern!(py, "describe"))?.call1((slf,))?;
        Ok(described.unbind())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let inner = self.0.peek();
        if let Ok(function) = inner.function.try_borrow()
            && let Some((function, args, kw)) = &*function
        {
            visit.call(function)?;
            visit.call(args)?;
            visit.call(kw)?;
        }
        if let Ok(special) = inner.special.try_borrow()
            && let Some(special) = &*special
        {
            visit.call(special.clock.as_ref().map(|(clock, _)| clock))?;
            visit.call(&special.creator)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let inner = self.0.get(py);
        let parts = (inner.function.take(), inner.special.take());
        drop(parts);
    }
}

impl Inner {
    fn check_pending(&self, py: Python<'_>) -> PyResult<()> {
        let name = match self.stage.get() {
            Stage::Pending => return Ok(()),
            Stage::Called => intern!(py, "AlreadyCalled"),
            Stage::Cancelled => intern!(py, "AlreadyCancelled"),
        };
        let class = py.import(intern!(py, "twisted.internet.error"))?.getattr(name)?;
        Err(PyErr::from_value(class.call0()?))
    }

    /// Returns the clock of the program that it was scheduled by, if it was.
    fn clock(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let special = self.special.borrow();
        let (clock, _) = special.as_ref()?.clock.as_ref()?;
        Some(clock.clone_ref(py))
    }

    /// Changes the time by the clock of the program, if there is one.
    fn set_time(&self, change: impl FnOnce(f64) -> f64) {
        if let Some((_, time)) = self.special.borrow_mut().as_mut().and_then(|special| special.clock.as_mut()) {
            *time = change(*time);
        }
    }

    fn part<T>(&self, _py: Python<'_>, name: &'static str, part: impl FnOnce(&Function) -> T) -> PyResult<T> {
        let missing = || pyo3::exceptions::PyAttributeError::new_err(name);
        self.function.borrow().as_ref().map(part).ok_or_else(missing)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelayedCall").field("stage", &self.stage.get()).finish_non_exhaustive()
    }
}

/// Makes a due call. The engine's timer calls this.
fn fire(py: Python<'_>, state: &WeakState, number: usize) {
    let Some(state) = state.upgrade() else { return };
    let due = state.timers.borrow_mut().remove(number);
    let Some(call) = due else { return };
    let inner = call.get().0.get(py);
    inner.stage.set(Stage::Called);
    let function = inner.function.borrow().as_ref().map(|(function, args, kw)| {
        (function.clone_ref(py), args.clone_ref(py), kw.as_ref().map(|kw| kw.clone_ref(py)))
    });
    let Some((function, args, kw)) = function else { return };
    if let Err(error) = function.call(py, args, kw.as_ref().map(|kw| kw.bind(py))) {
        // An exception of the log itself ends the turn.
        let _ = state.tell(py, |reactor| {
            reactor.call_method1(py, intern!(py, "_timedCallFailed"), (&call, error.into_value(py)))
        });
    }
    state.called(py);
}
