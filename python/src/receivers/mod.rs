//! Native parsing for Twisted's receivers of messages (`twisted.protocols.basic`). It is off unless
//! a program asks for it: `ropewalk/accelerate.py` puts these methods in the place of Twisted's.
//!
//! | file | takes the place of `dataReceived` of |
//! |---|---|
//! | `lines.rs` | `LineReceiver` |
//! | `prefixed.rs` | `IntNStringReceiver`, the base of `Int8StringReceiver` and the like |
//! | `netstrings.rs` | `NetstringReceiver` |
//! | `rest.rs` | none; holds the bytes that are not parsed yet, where programs look for them |
//!
//! The state stays where Twisted has it: in attributes of the protocol, which are as Twisted's code
//! would have them whenever code of the program runs. Each callback is looked up when it is called.
//! Twisted's own method goes on in each case that is not covered here:
//!
//! - A class that overrides a part of the private machinery, or that makes a property of one of its
//!   attributes. A class is looked at when it is first used ([`Original::attributes`]).
//! - An attribute of another type than Twisted's: a `bytearray` as delimiter, a float as limit.
//! - Raw mode, lines that are too long, and broken netstrings.
//!
//! Three things differ:
//!
//! - A traceback has lines of `ropewalk/accelerate.py`, or none, instead of Twisted's.
//! - While a callback runs, the bytes that are not parsed yet are an attribute of the protocol
//!   without an entry in its `__dict__` (`rest.rs`).
//! - An attribute of a class of lines that a callback changes counts from the next call on
//!   (`lines.rs`).

mod lines;
mod netstrings;
mod prefixed;
mod rest;

use std::cell::RefCell;
use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyString, PyType, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use crate::gil;

pub(crate) use lines::{LineLoop, Lines};
pub(crate) use netstrings::Netstrings;
pub(crate) use prefixed::Prefixed;
pub(crate) use rest::Rest;

/// Number of known classes at which the table is first searched for dead ones; arbitrary.
const FIRST_SWEEP: usize = 64;

/// Twisted's own method, and the classes that are served without it.
struct Original {
    method: Py<PyAny>,
    /// Tells of a class if native code may serve it.
    judge: Py<PyAny>,
    classes: RefCell<Classes>,
}

/// The classes that were looked at, by the addresses of their objects.
#[derive(Default)]
struct Classes {
    known: BTreeMap<usize, (Py<PyWeakrefReference>, bool)>,
    next_sweep: usize,
}

impl Original {
    fn new(method: Py<PyAny>, judge: Py<PyAny>) -> Self {
        Self { method, judge, classes: RefCell::default() }
    }

    /// Has Twisted's own method handle the bytes.
    fn call<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.method.bind(protocol.py()).call1((protocol, data))
    }

    /// Has Twisted's own method go on with the bytes that the protocol holds.
    fn go_on<'py>(&self, protocol: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.call(protocol, PyBytes::new(protocol.py(), b"").as_any())
    }

    /// Returns the dictionary of a protocol whose class may be served. The class has no hooks
    /// between this dictionary and the protocol's attributes.
    fn attributes<'py>(&self, protocol: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
        if !self.serves(&protocol.get_type())? {
            return Ok(None);
        }
        gil::attributes(protocol).map(Some)
    }

    fn serves(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let key = class.as_ptr() as usize;
        // A class may have died, and another may have its address.
        if let Some((weak, verdict)) = self.classes.borrow().known.get(&key)
            && weak.bind(class.py()).upgrade().is_some_and(|known| known.is(class))
        {
            return Ok(*verdict);
        }
        let verdict = self.judge.bind(class.py()).call1((class,))?.is_truthy()?;
        let weak = PyWeakrefReference::new(class)?.unbind();
        self.classes.borrow_mut().add(class.py(), key, weak, verdict);
        Ok(verdict)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.method)?;
        visit.call(&self.judge)
    }
}

impl Classes {
    fn add(&mut self, py: Python<'_>, key: usize, weak: Py<PyWeakrefReference>, verdict: bool) {
        if self.known.len() >= self.next_sweep {
            self.known.retain(|_, (weak, _)| weak.bind(py).upgrade().is_some());
            self.next_sweep = FIRST_SWEEP.max(2 * self.known.len());
        }
        self.known.insert(key, (weak, verdict));
    }
}

/// Returns `earlier + later`, without a copy if one of them is empty.
fn joined<'py>(earlier: &Bound<'py, PyBytes>, later: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyBytes>> {
    let (first, second) = (earlier.as_bytes(), later.as_bytes());
    if first.is_empty() {
        return Ok(later.clone());
    }
    if second.is_empty() {
        return Ok(earlier.clone());
    }
    PyBytes::new_with(earlier.py(), first.len() + second.len(), |all| {
        let (head, tail) = all.split_at_mut(first.len());
        head.copy_from_slice(first);
        tail.copy_from_slice(second);
        Ok(())
    })
}

/// Returns an attribute: of the protocol, or else of its class.
fn attribute<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    match attributes.get_item(name)? {
        Some(value) => Ok(value),
        None => protocol.getattr(name),
    }
}

/// Returns bytes, of exactly this type: a subclass could do anything when it is sliced.
fn exact_bytes<'py>(value: Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    value.cast_into_exact().ok()
}

/// Returns an `int` that a length can be compared with.
fn exact_int(value: &Bound<'_, PyAny>) -> Option<i64> {
    value.cast_exact::<PyInt>().ok()?.extract().ok()
}

/// Returns the truth of a value, without a call for the usual ones.
#[inline]
fn is_true(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_none() {
        return Ok(false);
    }
    match value.cast_exact::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => value.is_truthy(),
    }
}
