//! [`CallLater`]: Twisted's `callLater`, as a native method of the class `RopewalkReactor`.
//!
//! It stands among the attributes of the class, so that a subclass overrides it and an attribute of
//! the instance hides it. A call of it makes no frame of Python. The class has no native base:
//! Twisted assigns the `__dict__` and the `__class__` of one reactor to another, so the layout of a
//! reactor is that of Twisted's, and all of its state is in its `__dict__`.
//!
//! | case | who schedules |
//! |---|---|
//! | no argument is named, and the delay is a `float` or an `int`, and not negative | this file |
//! | any other arguments; `seconds` was replaced; `DelayedCall.debug` is on | `reactor._callLater`, in Python |

use std::ffi::CStr;
use std::rc::Rc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, intern};

use crate::engine::Engine;
use crate::gil::{self, Method};
use crate::state::{State, duration};
use crate::timers::DelayedCall;

/// The attributes without which a call needs no more than a timer of the engine.
#[derive(Debug)]
pub(crate) struct Usual {
    /// The reactor's own `seconds`.
    pub(crate) seconds: Py<PyAny>,
    /// Twisted's class of delayed calls, with its attribute `debug`.
    pub(crate) twisted: Py<PyType>,
}

impl Usual {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.seconds)?;
        visit.call(&self.twisted)
    }
}

/// `callLater(delay, callable, *args, **kw)`.
#[derive(Debug)]
pub(crate) struct CallLater;

impl Method for CallLater {
    const NAME: &'static CStr = c"callLater";
    const DOC: &'static CStr = c"callLater($self, delay, callable, *args, **kw)
--

Call a function later. `delay` is in seconds.";

    fn call(
        slf: &Bound<'_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        keywords: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if let ([delay, callable, rest @ ..], None) = (arguments, keywords)
            && let Some(delay) = usual_delay(delay)
            && let Some(state) = usual_state(slf)?
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

/// Returns the state of a reactor's engine, unless a call needs a clock of the program or the stack
/// of its creator.
fn usual_state(reactor: &Bound<'_, PyAny>) -> PyResult<Option<Rc<State>>> {
    let py = reactor.py();
    let attributes = gil::attributes(reactor)?;
    let Some(engine) = attributes.get_item(intern!(py, "_engine"))? else { return Ok(None) };
    let Ok(engine) = engine.cast_exact::<Engine>() else { return Ok(None) };
    let state = engine.get().state(py);
    let Some(seconds) = attributes.get_item(intern!(py, "seconds"))? else { return Ok(None) };
    let usual = state.usual.borrow();
    let Some(usual) = &*usual else { return Ok(None) };
    let debug = usual.twisted.bind(py).getattr(intern!(py, "debug"))?;
    let is_usual = seconds.is(&usual.seconds) && debug.is(PyBool::new(py, false));
    Ok(is_usual.then(|| Rc::clone(state)))
}

/// Returns a delay that is a `float` or an `int`, and not negative.
fn usual_delay(delay: &Bound<'_, PyAny>) -> Option<Duration> {
    if delay.is_exact_instance_of::<PyFloat>() {
        let seconds = delay.extract::<f64>().ok()?;
        return (seconds >= 0.0).then(|| duration(seconds));
    }
    if delay.is_exact_instance_of::<PyInt>() {
        return delay.extract().ok().map(Duration::from_secs);
    }
    None
}
