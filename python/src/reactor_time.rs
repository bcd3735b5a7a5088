//! [`ReactorTime`]: the native half of a `RopewalkReactor`, with Twisted's `callLater`.
//!
//! It is a base class of the reactor, so `callLater` takes its turn in the order of the classes: a
//! subclass overrides it, and an attribute of the instance hides it. A call of it makes no frame of
//! Python.
//!
//! | case | who schedules |
//! |---|---|
//! | no argument is named, and the delay is a `float` or an `int`, and not negative | this file |
//! | any other arguments; `seconds` was replaced; `DelayedCall.debug` is on | `reactor._callLater`, in Python |

use std::cell::RefCell;
use std::ffi::CStr;
use std::rc::Rc;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, intern};

use crate::engine::Engine;
use crate::gil::{Gil, Method};
use crate::state::{State, duration};
use crate::timers::DelayedCall;

/// The native half of a `RopewalkReactor`.
#[pyclass(frozen, subclass, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct ReactorTime(Gil<RefCell<Option<Parts>>>);

/// All that `callLater` looks at.
#[derive(Debug)]
struct Parts {
    engine: Py<Engine>,
    /// The attributes of the reactor. Among them is `seconds`, which a program may replace.
    attributes: Py<PyDict>,
    /// The `seconds` of the engine.
    seconds: Py<PyAny>,
    /// Twisted's class of delayed calls, with its attribute `debug`.
    twisted: Py<PyType>,
}

#[pymethods]
impl ReactorTime {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(py: Python<'_>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self(Gil::new(RefCell::new(None), py))
    }

    /// Gives the reactor its engine, and the function that is its own `seconds`. `twisted` is
    /// Twisted's class of delayed calls.
    #[pyo3(name = "_schedulesOn")]
    fn schedules_on(
        slf: &Bound<'_, Self>,
        engine: Py<Engine>,
        seconds: Py<PyAny>,
        twisted: Py<PyType>,
    ) -> PyResult<()> {
        let attributes = slf.getattr(intern!(slf.py(), "__dict__"))?.cast_into::<PyDict>()?.unbind();
        let earlier = slf.get().0.get(slf.py()).replace(Some(Parts { engine, attributes, seconds, twisted }));
        drop(earlier);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(parts) = self.0.peek().try_borrow() else { return Ok(()) };
        let Some(parts) = &*parts else { return Ok(()) };
        visit.call(&parts.engine)?;
        visit.call(&parts.attributes)?;
        visit.call(&parts.seconds)?;
        visit.call(&parts.twisted)
    }

    fn __clear__(&self, py: Python<'_>) {
        let parts = self.0.get(py).take();
        drop(parts);
    }
}

/// `callLater(delay, callable, *args, **kw)`.
#[derive(Debug)]
pub(crate) struct CallLater;

impl Method for CallLater {
    type Class = ReactorTime;
    const NAME: &'static CStr = c"callLater";
    const DOC: &'static CStr = c"callLater($self, delay, callable, *args, **kw)
--

Call a function later. `delay` is in seconds.";

    fn call(
        slf: &Bound<'_, ReactorTime>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        keywords: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if let ([delay, callable, rest @ ..], None) = (arguments, keywords)
            && let Some(delay) = usual(delay)
            && let Some(state) = slf.get().usual_state(py)?
        {
            let args = if rest.is_empty() { PyTuple::empty(py) } else { PyTuple::new(py, rest)? };
            let function = (callable.as_unbound().clone_ref(py), args.unbind(), None);
            return Ok(DelayedCall::schedule(py, &state, delay, function, None)?.into_any());
        }
        let (positional, values) = arguments.split_at(arguments.len() - keywords.map_or(0, |names| names.len()));
        let named = PyDict::new(py);
        for (name, value) in keywords.into_iter().flatten().zip(values) {
            named.set_item(name, value)?;
        }
        let method = slf.getattr(intern!(py, "_callLater"))?;
        Ok(method.call(PyTuple::new(py, positional)?, Some(&named))?.unbind())
    }
}

impl ReactorTime {
    /// Returns the engine's state, unless a call needs a clock of the program or the stack of its
    /// creator.
    fn usual_state(&self, py: Python<'_>) -> PyResult<Option<Rc<State>>> {
        let parts = self.0.get(py).borrow();
        let Some(parts) = &*parts else {
            return Err(PyRuntimeError::new_err("the reactor has no engine: its __init__ was not called"));
        };
        let seconds = parts.attributes.bind(py).get_item(intern!(py, "seconds"))?;
        let is_own = seconds.is_some_and(|seconds| seconds.is(&parts.seconds));
        let debug = parts.twisted.bind(py).getattr(intern!(py, "debug"))?;
        let is_usual = is_own && debug.is(PyBool::new(py, false));
        Ok(is_usual.then(|| Rc::clone(parts.engine.get().state(py))))
    }
}

/// Returns a delay that is a `float` or an `int`, and not negative.
fn usual(delay: &Bound<'_, PyAny>) -> Option<Duration> {
    if delay.is_exact_instance_of::<PyFloat>() {
        let seconds = delay.extract::<f64>().ok()?;
        return (seconds >= 0.0).then(|| duration(seconds));
    }
    if delay.is_exact_instance_of::<PyInt>() {
        return delay.extract().ok().map(Duration::from_secs);
    }
    None
}
