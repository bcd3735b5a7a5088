//! [`Prefixed`]: the loop of Twisted's `IntNStringReceiver`.
//!
//! Twisted keeps all bytes of a call and an offset into them while callbacks run, in `_unprocessed`
//! and `_compatibilityOffset`. So does this loop, for programs that look at `recvd`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::{Original, attribute, exact_bytes, exact_int, is_true, joined};
use crate::gil::{Gil, call_method};

/// The loop of `IntNStringReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Prefixed(Gil<Original>);

#[pymethods]
impl Prefixed {
    #[new]
    fn new(py: Python<'_>, original: Py<PyAny>, judge: Py<PyAny>) -> Self {
        Self(Gil::new(Original::new(original, judge), py))
    }

    /// `IntNStringReceiver.dataReceived(protocol, data)`.
    fn receive<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = protocol.py();
        let original = self.0.get(py);
        let Some(attributes) = original.attributes(protocol)? else { return original.call(protocol, data) };
        let Some(width) = prefix_width(protocol)? else { return original.call(protocol, data) };
        let Some(bytes) = first_bytes(protocol, &attributes, data)? else { return original.call(protocol, data) };
        if run(protocol, &attributes, width, bytes)? { Ok(py.None().into_bound(py)) } else { original.go_on(protocol) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.peek().traverse(&visit)
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

/// Calls the protocol with each whole string. Returns false if Twisted's code has to go on.
fn run<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    width: usize,
    mut bytes: Bound<'py, PyBytes>,
) -> PyResult<bool> {
    let py = protocol.py();
    let (unprocessed, compatibility) = (intern!(py, "_unprocessed"), intern!(py, "_compatibilityOffset"));
    let recvd = intern!(py, "recvd");
    let mut offset = 0;
    attributes.set_item(unprocessed, &bytes)?;
    while let Some((prefix, rest)) = bytes.as_bytes()[offset..].split_at_checked(width)
        && !is_true(&protocol.getattr(intern!(py, "paused"))?)?
    {
        let length = prefix.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let limit = protocol.getattr(intern!(py, "MAX_LENGTH"))?;
        let is_too_long = match exact_int(&limit) {
            Some(limit) => i64::try_from(length).is_ok_and(|length| length > limit),
            None => length.into_pyobject(py)?.gt(&limit)?,
        };
        if is_too_long {
            attributes.set_item(unprocessed, &bytes)?;
            attributes.set_item(compatibility, offset)?;
            call_method(protocol, intern!(py, "lengthLimitExceeded"), length.into_pyobject(py)?.as_any())?;
            return Ok(true);
        }
        let Some(packet) = rest.get(..length) else { break };
        let packet = PyBytes::new(py, packet);
        offset += width + length;
        attributes.set_item(compatibility, offset)?;
        call_method(protocol, intern!(py, "stringReceived"), packet.as_any())?;

        // The program has put other bytes in the place of all that were left.
        if let Some(replaced) = attributes.get_item(recvd)? {
            attributes.del_item(recvd)?;
            offset = 0;
            attributes.set_item(unprocessed, &replaced)?;
            attributes.set_item(compatibility, offset)?;
            if !replaced.is_truthy()? {
                return Ok(true);
            }
            let Some(replaced) = exact_bytes(replaced) else { return Ok(false) };
            bytes = replaced;
        }
    }
    attributes.set_item(unprocessed, PyBytes::new(py, &bytes.as_bytes()[offset..]))?;
    attributes.set_item(compatibility, 0)?;
    Ok(true)
}
