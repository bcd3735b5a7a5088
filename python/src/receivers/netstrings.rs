//! [`Netstrings`]: the loop of Twisted's `NetstringReceiver`, for whole netstrings and for the
//! parts of a long payload.
//!
//! | `_state` | the rest begins with | handled by |
//! |---|---|---|
//! | length | a whole netstring | this loop |
//! | length | a length, and a part of its payload | this loop: the part moves into `_payload` |
//! | length | a part of a length; anything else | Twisted's code |
//! | payload | more of the payload | this loop |
//! | payload | the end of the payload, without a comma | Twisted's code |
//!
//! Twisted's code finds the attributes as it would have left them, so it reports every fault
//! itself.

use memchr::memchr;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::rest::{Rest, Unparsed};
use super::{Original, exact_bytes, exact_int, joined};
use crate::gil::{Gil, call_method};

/// `NetstringReceiver._PARSING_LENGTH` and `_PARSING_PAYLOAD`.
const LENGTH: i64 = 0;
const PAYLOAD: i64 = 1;

/// Longest number that a length is read from. It fits an `i64`, and Twisted's code takes the rest.
const MOST_DIGITS: usize = 18;

/// The loop of `NetstringReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Netstrings(Gil<Inner>);

struct Inner {
    original: Original,
    rest: Py<Rest>,
    /// The names of the private methods for which this loop stands in.
    machinery: Py<PyTuple>,
    /// `io.BytesIO`, the type of `_payload`.
    payload: Py<PyType>,
    incomplete: Py<PyType>,
    parse_error: Py<PyType>,
}

/// The outcome of one step.
enum Step<'py> {
    /// A netstring is complete.
    String(Bound<'py, PyBytes>),
    /// All bytes are taken, and more are needed.
    Incomplete,
    /// Twisted's code has to go on.
    Uncovered,
}

#[pymethods]
impl Netstrings {
    #[new]
    fn new(
        py: Python<'_>,
        original: Py<PyAny>,
        judge: Py<PyAny>,
        rest: Py<Rest>,
        machinery: Py<PyTuple>,
        types: (Py<PyType>, Py<PyType>, Py<PyType>),
    ) -> Self {
        let (payload, incomplete, parse_error) = types;
        let original = Original::new(original, judge);
        Self(Gil::new(Inner { original, rest, machinery, payload, incomplete, parse_error }, py))
    }

    /// `NetstringReceiver.dataReceived(protocol, data)`.
    fn receive<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = protocol.py();
        let inner = self.0.get(py);
        let Some(attributes) = inner.original.attributes(protocol)? else {
            return inner.original.call(protocol, data);
        };
        let Some((payload, bytes)) = inner.first_bytes(&attributes, data)? else {
            return inner.original.call(protocol, data);
        };
        attributes.del_item(intern!(py, "_remainingData"))?;
        let unparsed = Unparsed::begin(&inner.rest, protocol, &attributes, bytes);
        let reader = Reader { inner, protocol, attributes: &attributes, payload };
        let covered = reader.run(&unparsed);
        unparsed.finish(py)?;
        if covered? { Ok(py.None().into_bound(py)) } else { inner.original.go_on(protocol) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let inner = self.0.peek();
        inner.original.traverse(&visit)?;
        visit.call(&inner.incomplete)?;
        visit.call(&inner.parse_error)
    }
}

impl Inner {
    /// Returns `_payload` and the bytes to parse. `None` if the protocol has private methods or
    /// types of its own, or was never connected.
    fn first_bytes<'py>(
        &self,
        attributes: &Bound<'py, PyDict>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyBytes>)>> {
        let py = attributes.py();
        let Ok(data) = data.cast_exact::<PyBytes>() else { return Ok(None) };
        for name in self.machinery.bind(py) {
            if attributes.contains(name)? {
                return Ok(None);
            }
        }
        let Some(payload) = attributes.get_item(intern!(py, "_payload"))? else { return Ok(None) };
        if !payload.get_type().is(&self.payload) {
            return Ok(None);
        }
        match attributes.get_item(intern!(py, "_remainingData"))?.and_then(exact_bytes) {
            Some(earlier) => Ok(Some((payload, joined(&earlier, data)?))),
            None => Ok(None),
        }
    }
}

/// A loop of one protocol.
struct Reader<'a, 'py> {
    inner: &'a Inner,
    protocol: &'a Bound<'py, PyAny>,
    attributes: &'a Bound<'py, PyDict>,
    payload: Bound<'py, PyAny>,
}

impl<'py> Reader<'_, 'py> {
    /// Calls the protocol with each netstring. Returns false if Twisted's code has to go on.
    fn run(&self, unparsed: &Unparsed) -> PyResult<bool> {
        let py = self.protocol.py();
        while !unparsed.view(py).as_bytes().is_empty() {
            let step = match self.number(intern!(py, "_state"))? {
                Some(LENGTH) => self.read_length(unparsed)?,
                Some(PAYLOAD) => self.read_payload(unparsed)?,
                _ => Step::Uncovered,
            };
            match step {
                Step::Incomplete => break,
                Step::Uncovered => return Ok(false),
                Step::String(string) => {
                    if let Err(error) = call_method(self.protocol, intern!(py, "stringReceived"), string.as_any()) {
                        self.handle(error)?;
                        break;
                    }
                }
            }
            if !unparsed.renew(py)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a whole netstring, or its length and the first part of its payload.
    fn read_length(&self, unparsed: &Unparsed) -> PyResult<Step<'py>> {
        let py = self.protocol.py();
        let Some(limit) = exact_int(&self.protocol.getattr(intern!(py, "MAX_LENGTH"))?) else {
            return Ok(Step::Uncovered);
        };
        let view = unparsed.view(py);
        let rest = view.as_bytes();
        let Some((length, header)) = length_of(rest) else { return Ok(Step::Uncovered) };
        if limit <= 0 || length > limit {
            return Ok(Step::Uncovered);
        }
        let size = length.unsigned_abs() as usize + 1;
        let Some(payload) = rest.get(header..header + size) else {
            let part = rest.len() - header;
            unparsed.skip(header);
            self.set(intern!(py, "_expectedPayloadSize"), size)?;
            self.set(intern!(py, "_state"), 1)?;
            self.restart_payload()?;
            self.write(unparsed.take(py, part, 0))?;
            self.set(intern!(py, "_currentPayloadSize"), part)?;
            return Ok(Step::Incomplete);
        };
        if payload.last() != Some(&b',') {
            return Ok(Step::Uncovered);
        }
        self.set(intern!(py, "_expectedPayloadSize"), size)?;
        self.set(intern!(py, "_currentPayloadSize"), size)?;
        self.restart_payload()?;
        self.write(PyBytes::new(py, payload))?;
        unparsed.skip(header);
        Ok(Step::String(unparsed.take(py, size - 1, 1)))
    }

    /// Reads more of a payload that has begun.
    fn read_payload(&self, unparsed: &Unparsed) -> PyResult<Step<'py>> {
        let py = self.protocol.py();
        let (current, expected) = (intern!(py, "_currentPayloadSize"), intern!(py, "_expectedPayloadSize"));
        let (Some(present), Some(size)) = (self.number(current)?, self.number(expected)?) else {
            return Ok(Step::Uncovered);
        };
        let Ok(missing @ 1..) = usize::try_from(size.saturating_sub(present)) else { return Ok(Step::Uncovered) };
        let view = unparsed.view(py);
        let rest = view.as_bytes();
        let Some(part) = rest.get(..missing) else {
            let part = rest.len();
            self.write(unparsed.take(py, part, 0))?;
            self.set(current, present.saturating_add_unsigned(part as u64))?;
            return Ok(Step::Incomplete);
        };
        if part.last() != Some(&b',') {
            return Ok(Step::Uncovered);
        }
        self.write(unparsed.take(py, missing, 0))?;
        self.set(current, size)?;
        self.set(intern!(py, "_state"), LENGTH)?;
        let payload = self.payload.call_method0(intern!(py, "getvalue"))?;
        let payload = payload.cast::<PyBytes>()?.as_bytes();
        Ok(Step::String(PyBytes::new(py, payload.split_last().map_or(&[], |(_, string)| string))))
    }

    /// Treats an exception of the program as Twisted does, whose own exceptions end the loop.
    fn handle(&self, error: PyErr) -> PyResult<()> {
        let py = self.protocol.py();
        if error.is_instance(py, self.inner.incomplete.bind(py)) {
            return Ok(());
        }
        if error.is_instance(py, self.inner.parse_error.bind(py)) {
            self.protocol.call_method0(intern!(py, "_handleParseError"))?;
            return Ok(());
        }
        Err(error)
    }

    fn restart_payload(&self) -> PyResult<()> {
        let py = self.protocol.py();
        call_method(&self.payload, intern!(py, "seek"), 0_u8.into_pyobject(py)?.as_any())?;
        self.payload.call_method0(intern!(py, "truncate"))?;
        Ok(())
    }

    fn write(&self, part: Bound<'py, PyBytes>) -> PyResult<()> {
        call_method(&self.payload, intern!(part.py(), "write"), part.as_any()).map(drop)
    }

    fn number(&self, name: &Bound<'py, PyString>) -> PyResult<Option<i64>> {
        Ok(self.attributes.get_item(name)?.as_ref().and_then(exact_int))
    }

    fn set<T: IntoPyObject<'py>>(&self, name: &Bound<'py, PyString>, value: T) -> PyResult<()> {
        self.attributes.set_item(name, value)
    }
}

/// Reads the length of a netstring with its colon: `0`, or digits of which the first is none.
/// Returns it with the number of bytes that it takes.
fn length_of(rest: &[u8]) -> Option<(i64, usize)> {
    let head = &rest[..rest.len().min(MOST_DIGITS + 1)];
    let colon = memchr(b':', head)?;
    let digits = &head[..colon];
    let is_number = digits.iter().all(u8::is_ascii_digit);
    if digits.is_empty() || !is_number || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    Some((digits.iter().fold(0, |length, &digit| length * 10 + i64::from(digit - b'0')), colon + 1))
}
