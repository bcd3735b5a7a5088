//! [`Lines`]: the whole lines of a call of Twisted's `LineReceiver.dataReceived`.
//!
//! The loop itself is in Python (`ropewalk/accelerate.py`): a method in Python costs less when
//! Python calls it. Each step of it asks [`LineLoop`] for a line. It stops at all that is not
//! a whole line, and Twisted's own code goes on there: raw mode, lines that are too long, unusual
//! types.
//!
//! Twisted's loop reads four attributes before each line, and the buffer too. The callback may
//! have paused, changed the mode, the delimiter or the limit, or replaced the buffer. This loop
//! sees at once that the callback has stored none of them:
//!
//! - `_busyReceiving` becomes the last key of the protocol's `__dict__`. New keys stand behind it.
//! - The keys that were there before are compared with their earlier values.
//!
//! So an attribute of the class that a callback changes counts from the next call on.

use std::cell::{Cell, RefCell};

use memchr::memchr_iter;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::rest::{Rest, Unparsed};
use super::{Original, attribute, exact_bytes, exact_int, is_true, joined};
use crate::gil::{self, Gil};

/// Makes loops for `LineReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Lines(Gil<Inner>);

struct Inner {
    original: Original,
    rest: Py<Rest>,
}

#[pymethods]
impl Lines {
    #[new]
    fn new(py: Python<'_>, original: Py<PyAny>, judge: Py<PyAny>, rest: Py<Rest>) -> Self {
        Self(Gil::new(Inner { original: Original::new(original, judge), rest }, py))
    }

    /// Begins a call of `dataReceived`. Returns None if Twisted's code is to handle it.
    fn begin(&self, protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Option<LineLoop>> {
        let py = protocol.py();
        let inner = self.0.get(py);
        let Some(attributes) = inner.original.attributes(protocol)? else { return Ok(None) };
        let Some(bytes) = first_bytes(protocol, &attributes, data)? else { return Ok(None) };
        let Some(settings) = Settings::read(protocol, &attributes)? else { return Ok(None) };
        let unparsed = Unparsed::begin(&inner.rest, protocol, &attributes, bytes)?;
        let position = mark(&attributes)?;
        let state = State {
            protocol: protocol.clone().unbind(),
            attributes: attributes.unbind(),
            unparsed: RefCell::new(Some(unparsed)),
            settings: RefCell::new(settings),
            position: Cell::new(position),
            has_called: Cell::new(false),
            end: Cell::new(End::Running),
        };
        Ok(Some(LineLoop(Gil::new(state, py))))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.peek().original.traverse(&visit)
    }
}

/// The lines of one call.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct LineLoop(Gil<State>);

struct State {
    protocol: Py<PyAny>,
    attributes: Py<PyDict>,
    /// `None` once the loop is over.
    unparsed: RefCell<Option<Unparsed>>,
    settings: RefCell<Settings>,
    /// The position of `_busyReceiving` among the keys.
    position: Cell<isize>,
    has_called: Cell<bool>,
    end: Cell<End>,
}

/// The reason why there is no more line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Running,
    /// The connection closes.
    Disconnecting,
    /// The bytes are over, or the protocol has paused.
    Nothing,
    /// Twisted's code has to go on.
    Uncovered,
}

/// The protocol's attributes that say how to go on.
#[derive(Debug)]
struct Settings {
    delimiter: Py<PyBytes>,
    limit: i64,
    is_paused: bool,
    is_line_mode: bool,
    /// The entries of the protocol's `__dict__` for these.
    entries: Vec<(Py<PyString>, Py<PyAny>)>,
}

#[pymethods]
impl LineLoop {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let state = self.0.get(py);
        if state.has_called.replace(true) {
            let protocol = state.protocol.bind(py);
            if is_disconnecting(protocol, state.attributes.bind(py))? {
                state.end.set(End::Disconnecting);
                return Ok(None);
            }
            if !state.is_unchanged(py)? && !state.renew(py)? {
                state.end.set(End::Uncovered);
                return Ok(None);
            }
        }
        Ok(state.next_line(py))
    }

    /// Ends the loop, on every path: the protocol has the rest of the bytes again.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.0.get(py);
        let Some(unparsed) = state.unparsed.take() else { return Ok(()) };
        unparsed.finish(py)?;
        state.attributes.bind(py).set_item(intern!(py, "_busyReceiving"), false)
    }

    /// True if Twisted's code has to go on.
    #[getter]
    fn uncovered(&self, py: Python<'_>) -> bool {
        self.0.get(py).end.get() == End::Uncovered
    }

    /// True if the connection closes.
    #[getter]
    fn disconnecting(&self, py: Python<'_>) -> bool {
        self.0.get(py).end.get() == End::Disconnecting
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let state = self.0.peek();
        visit.call(&state.protocol)?;
        visit.call(&state.attributes)?;
        state.unparsed.try_borrow().map_or(Ok(()), |unparsed| unparsed.iter().try_for_each(|it| it.traverse(&visit)))
    }
}

impl State {
    fn next_line<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let unparsed = self.unparsed.borrow();
        let unparsed = unparsed.as_ref()?;
        let settings = self.settings.borrow();
        let view = unparsed.view(py);
        let rest = view.as_bytes();
        if rest.is_empty() || settings.is_paused {
            self.end.set(End::Nothing);
            return None;
        }
        let delimiter = settings.delimiter.as_bytes(py);
        let found = if settings.is_line_mode { find(rest, delimiter) } else { None };
        if let Some(length) = found
            && signed(length) <= settings.limit
        {
            return Some(unparsed.take(py, length, delimiter.len()));
        }
        let most = settings.limit.saturating_add(signed(delimiter.len()));
        let is_partial = settings.is_line_mode && found.is_none() && signed(rest.len()) < most;
        self.end.set(if is_partial { End::Nothing } else { End::Uncovered });
        None
    }

    /// True if the callback has stored none of the attributes.
    #[inline]
    fn is_unchanged(&self, py: Python<'_>) -> PyResult<bool> {
        let attributes = self.attributes.bind(py);
        let mut position = self.position.get();
        let last = intern!(py, "_busyReceiving").as_ptr() as usize;
        if gil::next_key(attributes, &mut position) != Some(last) || gil::next_key(attributes, &mut position).is_some()
        {
            return Ok(false);
        }
        for (name, value) in &self.settings.borrow().entries {
            if !attributes.get_item(name)?.is_some_and(|present| present.is(value)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads all attributes again. Returns false for types that are not covered.
    #[cold]
    fn renew(&self, py: Python<'_>) -> PyResult<bool> {
        let (protocol, attributes) = (self.protocol.bind(py), self.attributes.bind(py));
        let renewed = match &*self.unparsed.borrow() {
            Some(unparsed) => unparsed.renew(py)?,
            None => false,
        };
        if !renewed {
            return Ok(false);
        }
        let Some(settings) = Settings::read(protocol, attributes)? else { return Ok(false) };
        let earlier = self.settings.replace(settings);
        drop(earlier);
        self.position.set(mark(attributes)?);
        Ok(true)
    }
}

impl Settings {
    /// Reads the attributes. Returns `None` for types that are not covered.
    fn read<'py>(protocol: &Bound<'py, PyAny>, attributes: &Bound<'py, PyDict>) -> PyResult<Option<Self>> {
        let py = protocol.py();
        let mut entries = Vec::new();
        let mut read = |name: &Bound<'py, PyString>| match attributes.get_item(name)? {
            None => protocol.getattr(name),
            Some(value) => {
                entries.push((name.clone().unbind(), value.clone().unbind()));
                Ok(value)
            }
        };
        let is_paused = is_true(&read(intern!(py, "paused"))?)?;
        let is_line_mode = is_true(&read(intern!(py, "line_mode"))?)?;
        let delimiter = exact_bytes(read(intern!(py, "delimiter"))?);
        let limit = exact_int(&read(intern!(py, "MAX_LENGTH"))?);
        let (Some(delimiter), Some(limit)) = (delimiter, limit) else { return Ok(None) };
        Ok(Some(Self { delimiter: delimiter.unbind(), limit, is_paused, is_line_mode, entries }))
    }
}

/// Makes `_busyReceiving` true, and the last key. Returns its position.
fn mark(attributes: &Bound<'_, PyDict>) -> PyResult<isize> {
    let busy = intern!(attributes.py(), "_busyReceiving");
    if attributes.contains(busy)? {
        attributes.del_item(busy)?;
    }
    attributes.set_item(busy, true)?;
    let (mut position, mut last) = (0, 0);
    while gil::next_key(attributes, &mut position).is_some() {
        last = position;
    }
    // A step ends one behind its key.
    Ok(last - 1)
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
fn is_disconnecting(protocol: &Bound<'_, PyAny>, attributes: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = protocol.py();
    let transport = attribute(protocol, attributes, intern!(py, "transport"))?;
    Ok(is_true(&transport)? && is_true(&transport.getattr(intern!(py, "disconnecting"))?)?)
}

/// Lengths of objects of Python fit: they are signed themselves.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
