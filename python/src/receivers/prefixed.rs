//! [`Prefixed`]: the strings of a call of Twisted's `IntNStringReceiver.dataReceived`.
//!
//! The loop itself is in Python (`ropewalk/accelerate.py`), as that of `lines.rs` is. Twisted keeps
//! all bytes of a call and an offset into them while callbacks run, in `_unprocessed` and
//! `_compatibilityOffset`. So does [`PrefixedLoop`], for programs that look at `recvd`.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::{Original, attribute, exact_bytes, exact_int, is_true, joined};
use crate::gil::{Gil, call_method};

/// Makes loops for `IntNStringReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Prefixed(Gil<Original>);

#[pymethods]
impl Prefixed {
    #[new]
    fn new(py: Python<'_>, original: Py<PyAny>, judge: Py<PyAny>) -> Self {
        Self(Gil::new(Original::new(original, judge), py))
    }

    /// Begins a call of `dataReceived`. Returns None if Twisted's code is to handle it.
    fn begin(&self, protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Option<PrefixedLoop>> {
        let py = protocol.py();
        let Some(attributes) = self.0.get(py).attributes(protocol)? else { return Ok(None) };
        let Some(width) = prefix_width(protocol)? else { return Ok(None) };
        let Some(bytes) = first_bytes(protocol, &attributes, data)? else { return Ok(None) };
        attributes.set_item(intern!(py, "_unprocessed"), &bytes)?;
        let state = State {
            protocol: protocol.clone().unbind(),
            attributes: attributes.unbind(),
            width,
            bytes: RefCell::new(bytes.unbind()),
            offset: Cell::new(0),
            has_called: Cell::new(false),
            is_uncovered: Cell::new(false),
        };
        Ok(Some(PrefixedLoop(Gil::new(state, py))))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.peek().traverse(&visit)
    }
}

/// The strings of one call.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct PrefixedLoop(Gil<State>);

struct State {
    protocol: Py<PyAny>,
    attributes: Py<PyDict>,
    width: usize,
    /// All bytes of the call, or those that the program has put in their place.
    bytes: RefCell<Py<PyBytes>>,
    offset: Cell<usize>,
    has_called: Cell<bool>,
    is_uncovered: Cell<bool>,
}

#[pymethods]
impl PrefixedLoop {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let state = self.0.get(py);
        // The callback may have put other bytes in the place of all that were left.
        if state.has_called.replace(true)
            && let Some(replaced) = state.attributes.bind(py).get_item(intern!(py, "recvd"))?
            && !state.replace(replaced)?
        {
            return Ok(None);
        }
        state.next_string(py)
    }

    /// True if Twisted's code has to go on.
    #[getter]
    fn uncovered(&self, py: Python<'_>) -> bool {
        self.0.get(py).is_uncovered.get()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let state = self.0.peek();
        visit.call(&state.protocol)?;
        visit.call(&state.attributes)
    }
}

impl State {
    /// Returns the next whole string. If there is none, the protocol has the rest.
    fn next_string<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (protocol, attributes) = (self.protocol.bind(py), self.attributes.bind(py));
        let (unprocessed, compatibility) = (intern!(py, "_unprocessed"), intern!(py, "_compatibilityOffset"));
        let offset = self.offset.get();
        let bytes = self.bytes.borrow().bind(py).clone();
        let left = bytes.as_bytes().get(offset..).unwrap_or_default();
        if let Some((prefix, rest)) = left.split_at_checked(self.width)
            && !is_true(&protocol.getattr(intern!(py, "paused"))?)?
        {
            let length = prefix.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
            if is_above(length, &protocol.getattr(intern!(py, "MAX_LENGTH"))?)? {
                attributes.set_item(unprocessed, &bytes)?;
                attributes.set_item(compatibility, offset)?;
                call_method(protocol, intern!(py, "lengthLimitExceeded"), length.into_pyobject(py)?.as_any())?;
                return Ok(None);
            }
            if let Some(string) = rest.get(..length) {
                let end = offset + self.width + length;
                self.offset.set(end);
                attributes.set_item(compatibility, end)?;
                return Ok(Some(PyBytes::new(py, string)));
            }
        }
        attributes.set_item(unprocessed, PyBytes::new(py, left))?;
        attributes.set_item(compatibility, 0)?;
        Ok(None)
    }

    /// Goes on with other bytes. Returns false if there are none, or if only Twisted's code can
    /// handle them.
    #[cold]
    fn replace(&self, replaced: Bound<'_, PyAny>) -> PyResult<bool> {
        let py = replaced.py();
        let attributes = self.attributes.bind(py);
        attributes.del_item(intern!(py, "recvd"))?;
        attributes.set_item(intern!(py, "_unprocessed"), &replaced)?;
        attributes.set_item(intern!(py, "_compatibilityOffset"), 0)?;
        if !replaced.is_truthy()? {
            return Ok(false);
        }
        let Some(bytes) = exact_bytes(replaced) else {
            self.is_uncovered.set(true);
            return Ok(false);
        };
        self.offset.set(0);
        let earlier = self.bytes.replace(bytes.unbind());
        drop(earlier);
        Ok(true)
    }
}

/// Compares a length with `MAX_LENGTH`, which may be a number of any type.
fn is_above(length: usize, limit: &Bound<'_, PyAny>) -> PyResult<bool> {
    match exact_int(limit) {
        Some(limit) => Ok(i64::try_from(length).is_ok_and(|length| length > limit)),
        None => length.into_pyobject(limit.py())?.gt(limit),
    }
}

/// Returns the width of the prefix in bytes, unless it has a format that is not covered.
fn prefix_width(protocol: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let py = protocol.py();
    let Ok(format) = protocol.getattr(intern!(py, "structFormat"))?.cast_into_exact::<PyString>() else {
        return Ok(None);
    };
    let width = match &*format.to_cow()? {
        "!B" => 1,
        "!H" => 2,
        "!I" => 4,
        _ => return Ok(None),
    };
    let length = exact_int(&protocol.getattr(intern!(py, "prefixLength"))?);
    Ok((length == Some(width)).then_some(width.unsigned_abs() as usize))
}

fn first_bytes<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Ok(data) = data.cast_exact::<PyBytes>() else { return Ok(None) };
    match exact_bytes(attribute(protocol, attributes, intern!(protocol.py(), "_unprocessed"))?) {
        Some(earlier) => joined(&earlier, data).map(Some),
        None => Ok(None),
    }
}
