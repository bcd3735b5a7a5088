//! [`LogContexts`]: the log context of a callback, on Twisted's stack of contexts
//! (`ContextTracker.contexts`).
//!
//! `context.call` appends a context for a call, and takes it off behind it. Here one entry stays on
//! the stack for the length of a run. It is empty, so that Twisted's search passes it by, and a
//! context takes its place for the length of a callback. Two replacements take fewer instructions
//! than an entry that comes and goes.
//!
//! | stack when a callback comes | context of the callback |
//! |---|---|
//! | our entry is the last one | takes its place |
//! | a program has put more on top (turns inside of `context.call`) | is appended, and taken off |

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit, intern};

/// The stack of contexts of the thread that makes the turns, once a callback has used it.
#[derive(Debug, Default)]
pub(crate) struct LogContexts(RefCell<Option<Place>>);

/// Our entry on the stack.
#[derive(Debug)]
struct Place {
    stack: Py<PyList>,
    index: usize,
    empty: Py<PyDict>,
    /// The key of the log's context: `log.ILogContext`.
    key: Py<PyAny>,
}

impl LogContexts {
    /// Puts a context on the stack of this thread, until [`Entered::leave`].
    pub(crate) fn enter<'py>(&self, py: Python<'py>, context: Py<PyDict>) -> PyResult<Entered<'py>> {
        let place = self.0.borrow().as_ref().map(|it| (it.stack.bind(py).clone(), it.index, it.empty.bind(py).clone()));
        let (stack, index, empty) = match place {
            Some(place) => place,
            None => self.make(py)?,
        };
        let length = stack.len();
        if length == index + 1 {
            stack.set_item(index, context)?;
            return Ok(Entered { stack, index, empty: Some(empty) });
        }
        stack.append(context)?;
        Ok(Entered { stack, index: length, empty: None })
    }

    /// Returns a context for log events of a `system`: the log's context of this thread, with that
    /// entry replaced.
    pub(crate) fn of_system(&self, py: Python<'_>, system: &Bound<'_, PyAny>) -> PyResult<Py<PyDict>> {
        let place = self.0.borrow().as_ref().map(|it| (it.stack.bind(py).clone(), it.key.bind(py).clone()));
        let (stack, key) = match place {
            Some(place) => place,
            None => {
                self.make(py)?;
                return self.of_system(py, system);
            }
        };
        let mut entries = None;
        for index in (0..stack.len()).rev() {
            let context = stack.get_item(index)?;
            // `context.call` takes any mapping.
            let found = match context.cast::<PyDict>() {
                Ok(context) => context.get_item(&key)?,
                Err(_) => context.get_item(&key).ok(),
            };
            if found.is_some() {
                entries = found;
                break;
            }
        }
        let events = PyDict::new(py);
        if let Some(entries) = entries.filter(|entries| !entries.is_none()) {
            events.update(entries.cast()?)?;
        }
        events.set_item(intern!(py, "system"), system)?;
        let context = PyDict::new(py);
        context.set_item(key, events)?;
        Ok(context.unbind())
    }

    /// Takes our entry off the stack. Another thread may make the next turn.
    pub(crate) fn end(&self, py: Python<'_>) -> PyResult<()> {
        let Some(place) = self.0.take() else { return Ok(()) };
        let stack = place.stack.bind(py);
        // A program that has changed the stack has perhaps taken it off.
        let is_there = stack.get_item(place.index).is_ok_and(|entry| entry.is(&place.empty));
        if is_there { stack.del_item(place.index) } else { Ok(()) }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(place) = self.0.try_borrow() else { return Ok(()) };
        place.as_ref().map_or(Ok(()), |it| {
            visit.call(&it.stack).and_then(|()| visit.call(&it.empty)).and_then(|()| visit.call(&it.key))
        })
    }

    /// Forgets the stack. Nothing is borrowed while it is dropped.
    pub(crate) fn clear(&self) {
        let place = self.0.take();
        drop(place);
    }

    #[cold]
    fn make<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyList>, usize, Bound<'py, PyDict>)> {
        let module = py.import(intern!(py, "twisted.python.context"))?;
        let tracker = module.getattr(intern!(py, "theContextTracker"))?.call_method0(intern!(py, "currentContext"))?;
        let stack = tracker.getattr(intern!(py, "contexts"))?.cast_into::<PyList>()?;
        let (index, empty) = (stack.len(), PyDict::new(py));
        stack.append(&empty)?;
        let key = py.import(intern!(py, "twisted.python.log"))?.getattr(intern!(py, "ILogContext"))?.unbind();
        self.0.replace(Some(Place { stack: stack.clone().unbind(), index, empty: empty.clone().unbind(), key }));
        Ok((stack, index, empty))
    }
}

/// A context that is on the stack.
pub(crate) struct Entered<'py> {
    stack: Bound<'py, PyList>,
    index: usize,
    /// Takes the context's place. `None` if the context was appended.
    empty: Option<Bound<'py, PyDict>>,
}

impl Entered<'_> {
    /// Takes the context off the stack.
    pub(crate) fn leave(self) -> PyResult<()> {
        match self.empty {
            Some(empty) => self.stack.set_item(self.index, empty),
            None => self.stack.del_item(self.index),
        }
    }
}
