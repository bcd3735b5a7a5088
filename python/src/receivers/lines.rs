//! [`Lines`]: the loop of Twisted's `LineReceiver`.
//!
//! After each callback the loop reads all attributes again: the callback may have paused, changed
//! the mode, the delimiter or the limit, replaced the buffer, or closed the connection.

use memchr::memchr_iter;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::rest::{Rest, Unparsed};
use super::{Original, attribute, exact_bytes, exact_int, is_true, joined};
use crate::gil::{Gil, call_method};

/// The loop of `LineReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Lines(Gil<Inner>);

struct Inner {
    original: Original,
    rest: Py<Rest>,
}

/// The end of a loop.
enum End<'py> {
    Returned(Bound<'py, PyAny>),
    /// The lines are over for now.
    Nothing,
    /// Twisted's code has to go on.
    Uncovered,
}

#[pymethods]
impl Lines {
    #[new]
    fn new(py: Python<'_>, original: Py<PyAny>, judge: Py<PyAny>, rest: Py<Rest>) -> Self {
        Self(Gil::new(Inner { original: Original::new(original, judge), rest }, py))
    }

    /// `LineReceiver.dataReceived(protocol, data)`.
    fn receive<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = protocol.py();
        let inner = self.0.get(py);
        let Some(attributes) = inner.original.attributes(protocol)? else {
            return inner.original.call(protocol, data);
        };
        let Some(bytes) = first_bytes(protocol, &attributes, data)? else {
            return inner.original.call(protocol, data);
        };
        let busy = intern!(py, "_busyReceiving");
        attributes.set_item(busy, true)?;
        let mut unparsed = Unparsed::begin(&inner.rest, protocol, &attributes, bytes)?;
        let end = run(protocol, &mut unparsed);
        unparsed.finish()?;
        attributes.set_item(busy, false)?;
        match end? {
            End::Returned(value) => Ok(value),
            End::Nothing => Ok(py.None().into_bound(py)),
            End::Uncovered => inner.original.go_on(protocol),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.peek().original.traverse(&visit)
    }
}

/// Returns the bytes to parse. `None` if the loop is busy already, or for types that are not
/// covered.
fn first_bytes<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = protocol.py();
    let Ok(data) = data.cast_exact::<PyBytes>() else { return Ok(None) };
    if is_true(&attribute(protocol, attributes, intern!(py, "_busyReceiving"))?)? {
        return Ok(None);
    }
    match exact_bytes(attribute(protocol, attributes, intern!(py, "_buffer"))?) {
        Some(earlier) => joined(&earlier, data).map(Some),
        None => Ok(None),
    }
}

/// Calls the protocol until its bytes are over, or until it wants no more of them.
fn run<'py>(protocol: &Bound<'py, PyAny>, unparsed: &mut Unparsed<'_, 'py>) -> PyResult<End<'py>> {
    let py = protocol.py();
    let exceeded = |bytes: Bound<'py, PyBytes>| {
        call_method(protocol, intern!(py, "lineLengthExceeded"), bytes.as_any()).map(End::Returned)
    };
    while !unparsed.as_bytes().is_empty() && !is_true(&protocol.getattr(intern!(py, "paused"))?)? {
        let why = if is_true(&protocol.getattr(intern!(py, "line_mode"))?)? {
            let Some(delimiter) = exact_bytes(protocol.getattr(intern!(py, "delimiter"))?) else {
                return Ok(End::Uncovered);
            };
            let Some(limit) = exact_int(&protocol.getattr(intern!(py, "MAX_LENGTH"))?) else {
                return Ok(End::Uncovered);
            };
            let rest = unparsed.as_bytes();
            let Some(length) = find(rest, delimiter.as_bytes()) else {
                let most = limit.saturating_add(signed(delimiter.as_bytes().len()));
                return if signed(rest.len()) >= most { exceeded(unparsed.take_all()) } else { Ok(End::Nothing) };
            };
            if signed(length) > limit {
                return exceeded(unparsed.take_all());
            }
            let line = unparsed.take(length, delimiter.as_bytes().len());
            let why = call_method(protocol, intern!(py, "lineReceived"), line.as_any())?;
            if is_true(&why)? || is_disconnecting(protocol)? {
                return Ok(End::Returned(why));
            }
            why
        } else {
            let data = unparsed.take_all();
            let why = call_method(protocol, intern!(py, "rawDataReceived"), data.as_any())?;
            if is_true(&why)? {
                return Ok(End::Returned(why));
            }
            why
        };
        drop(why);
        if !unparsed.renew()? {
            return Ok(End::Uncovered);
        }
    }
    Ok(End::Nothing)
}

/// Returns the length of the first line, without its delimiter.
fn find(bytes: &[u8], delimiter: &[u8]) -> Option<usize> {
    let (&last, others) = delimiter.split_last()?;
    // An occurrence ends at the last byte of the delimiter.
    memchr_iter(last, bytes)
        .filter(|&end| end >= others.len())
        .map(|end| end - others.len())
        .find(|&start| bytes[start..].starts_with(others))
}

/// True if the transport has been told to close. A protocol without a transport is not closing.
fn is_disconnecting(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    let transport = protocol.getattr(intern!(py, "transport"))?;
    Ok(is_true(&transport)? && is_true(&transport.getattr(intern!(py, "disconnecting"))?)?)
}

/// Lengths of objects of Python fit: they are signed themselves.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
