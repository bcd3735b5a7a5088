//! [`Rest`]: the bytes that a receiver has not parsed yet, as an attribute of the protocol.
//!
//! Twisted's loops store the rest in the protocol before each callback, and each time all of it is
//! copied. A native loop keeps the bytes and a position instead. A `Rest` in the class answers if
//! the program reads the attribute meanwhile:
//!
//! | moment | entry in the protocol's `__dict__` | reading | writing |
//! |---|---|---|---|
//! | outside of a loop | the rest | the entry | the entry |
//! | in a callback of a loop | none | `Rest.__get__`, from the loop | makes an entry |
//! | in that callback, once written | new bytes, with which the loop goes on | the entry | the entry |
//!
//! `Rest` has no `__set__`, so an entry wins over it, and costs what it costs without a `Rest`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::gil::Gil;

/// A class's attribute that holds the unparsed bytes of its protocols.
#[pyclass(frozen, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Rest(Gil<Inner>);

#[derive(Debug)]
struct Inner {
    name: Py<PyString>,
    /// The attribute of a protocol that has received nothing. `None` if it has none then.
    default: Option<Py<PyBytes>>,
    /// The loops under way. A callback may lead to a loop of another protocol, or of the same.
    loops: RefCell<Vec<Rc<Place>>>,
}

/// The position of a loop. It may be behind the end, which means the same as the end.
#[derive(Debug)]
struct Place {
    protocol: usize,
    bytes: RefCell<Py<PyBytes>>,
    offset: Cell<usize>,
}

#[pymethods]
impl Rest {
    #[new]
    #[pyo3(signature = (name, default = None))]
    fn new(py: Python<'_>, name: Py<PyString>, default: Option<Py<PyBytes>>) -> Self {
        Self(Gil::new(Inner { name, default, loops: RefCell::default() }, py))
    }

    /// The bytes that a loop of `instance` has not parsed yet, or the default.
    fn __get__<'py>(
        &self,
        instance: &Bound<'py, PyAny>,
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = instance.py();
        let inner = self.0.get(py);
        let protocol = instance.as_ptr() as usize;
        // The innermost loop of a protocol has its bytes.
        if let Some(place) = inner.loops.borrow().iter().rev().find(|place| place.protocol == protocol) {
            return Ok(place.rest(py));
        }
        match &inner.default {
            Some(default) => Ok(default.bind(py).clone()),
            None => {
                let what = if instance.is_none() { owner.unwrap_or(instance) } else { instance };
                Err(PyAttributeError::new_err(format!("{what:?} has no attribute {:?}", inner.name.bind(py))))
            }
        }
    }

    /// True while a loop runs, or rather one of its callbacks.
    #[getter]
    fn busy(&self, py: Python<'_>) -> bool {
        !self.0.get(py).loops.borrow().is_empty()
    }
}

impl Place {
    fn rest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = self.bytes.borrow();
        let bytes = bytes.bind(py);
        match self.offset.get() {
            0 => bytes.clone(),
            offset => PyBytes::new(py, bytes.as_bytes().get(offset..).unwrap_or_default()),
        }
    }
}

/// The unparsed bytes of a loop. [`finish`](Self::finish) gives them back to the protocol.
#[derive(Debug)]
pub(super) struct Unparsed {
    rest: Py<Rest>,
    attributes: Py<PyDict>,
    place: Rc<Place>,
}

/// The unparsed bytes at one moment.
pub(super) struct View<'py> {
    bytes: Bound<'py, PyBytes>,
    offset: usize,
}

impl View<'_> {
    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.as_bytes().get(self.offset..).unwrap_or_default()
    }
}

impl Unparsed {
    /// Takes the bytes over. The protocol's entry for them is deleted already.
    pub(super) fn begin(
        rest: &Py<Rest>,
        protocol: &Bound<'_, PyAny>,
        attributes: &Bound<'_, PyDict>,
        bytes: Bound<'_, PyBytes>,
    ) -> Self {
        let py = protocol.py();
        let inner = rest.get().0.get(py);
        let place = Rc::new(Place {
            protocol: protocol.as_ptr() as usize,
            bytes: RefCell::new(bytes.unbind()),
            offset: Cell::new(0),
        });
        inner.loops.borrow_mut().push(place.clone());
        Self { rest: rest.clone_ref(py), attributes: attributes.clone().unbind(), place }
    }

    /// The bytes that are not parsed yet.
    #[inline]
    pub(super) fn view<'py>(&self, py: Python<'py>) -> View<'py> {
        View { bytes: self.place.bytes.borrow().bind(py).clone(), offset: self.place.offset.get() }
    }

    /// Makes an object of the first bytes, and moves behind them and `skipped` more.
    #[inline]
    pub(super) fn take<'py>(&self, py: Python<'py>, length: usize, skipped: usize) -> Bound<'py, PyBytes> {
        let taken = PyBytes::new(py, self.view(py).as_bytes().get(..length).unwrap_or_default());
        self.skip(length + skipped);
        taken
    }

    /// Moves behind the first bytes. A position behind the end is the end.
    #[inline]
    pub(super) fn skip(&self, length: usize) {
        self.place.offset.set(self.place.offset.get() + length);
    }

    /// Goes on with the bytes that a callback has stored instead, if it has. Returns false if they
    /// are of a type that only Twisted's code can handle; they stay in the protocol then.
    #[inline]
    pub(super) fn renew(&self, py: Python<'_>) -> PyResult<bool> {
        match self.attributes.bind(py).get_item(&self.rest.get().0.get(py).name)? {
            None => Ok(true),
            Some(stored) => self.renew_slow(stored),
        }
    }

    #[cold]
    fn renew_slow(&self, stored: Bound<'_, PyAny>) -> PyResult<bool> {
        let py = stored.py();
        let Some(bytes) = super::exact_bytes(stored) else { return Ok(false) };
        self.attributes.bind(py).del_item(&self.rest.get().0.get(py).name)?;
        self.place.offset.set(0);
        let earlier = self.place.bytes.replace(bytes.unbind());
        drop(earlier);
        Ok(true)
    }

    /// Ends the loop: the protocol has the rest, or the bytes that it has stored itself.
    pub(super) fn finish(self, py: Python<'_>) -> PyResult<()> {
        let inner = self.rest.get().0.get(py);
        let mut loops = inner.loops.borrow_mut();
        // Usually the last: loops end in order, unless a program switches stacks in a callback.
        if let Some(position) = loops.iter().rposition(|place| Rc::ptr_eq(place, &self.place)) {
            loops.remove(position);
        }
        drop(loops);
        let attributes = self.attributes.bind(py);
        if attributes.contains(&inner.name)? {
            return Ok(());
        }
        attributes.set_item(&inner.name, self.place.rest(py))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.attributes)
    }
}
