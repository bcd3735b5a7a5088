//! Python's lock, the GIL, and the only `unsafe` code of the package.
//!
//! The engine is made of `Rc`s and cells, which belong to one thread. An object of Python may be
//! reached from any thread, but only by the one that holds the GIL. So the GIL takes the place of
//! the one thread, by these rules:
//!
//! 1. Values of the engine stand in a [`Gil`], which is opened with the proof that the GIL is held.
//! 2. The loop gives up the GIL in one place: around a wait ([`Wait`]). The wait touches the
//!    backend alone: the poller or ring, its table of sockets and its buffers.
//! 3. Other threads touch no part of the engine that the wait uses. Their requests are queued, and
//!    the loop is rung ([`State::is_elsewhere`](crate::state::State::is_elsewhere)). The engine
//!    itself keeps the rest until the wait is over (docs/guide/src/how-to/embedding.md).
//!
//! A free-threaded interpreter has no such lock. The module says so (`gil_used`), and the
//! interpreter turns its GIL on.

use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::PyValueError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{Borrowed, ffi, intern};

/// A value of one thread, for whichever thread holds the GIL.
#[derive(Debug)]
pub(crate) struct Gil<T>(T);

#[allow(unsafe_code, reason = "the GIL takes the place of the one thread: see the module")]
// SAFETY: the value is only reached through `get`, whose argument proves that the caller holds the
// GIL, and through `peek` and drops, whose callers hold it. Taking and giving up the GIL orders the
// memory accesses of the threads, as a mutex does.
unsafe impl<T> Send for Gil<T> {}

#[allow(unsafe_code, reason = "the GIL takes the place of the one thread: see the module")]
// SAFETY: as for `Send`. Two threads never hold the GIL at once.
unsafe impl<T> Sync for Gil<T> {}

impl<T> Gil<T> {
    pub(crate) fn new(value: T, _held: Python<'_>) -> Self {
        Self(value)
    }

    /// Returns the value, for a caller that holds the GIL.
    #[inline]
    pub(crate) fn get<'a>(&'a self, _held: Python<'a>) -> &'a T {
        &self.0
    }

    /// Returns the value to `__traverse__`. The garbage collector calls it under the GIL, and gives
    /// no proof.
    pub(crate) fn peek(&self) -> &T {
        &self.0
    }
}

/// The wait of the loop, in which the GIL is free.
#[derive(Debug)]
pub(crate) struct Wait {
    /// The thread's state while it is without the GIL; null otherwise.
    thread: Cell<*mut ffi::PyThreadState>,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Self { thread: Cell::new(ptr::null_mut()) }
    }

    /// Gives up the GIL. The reactor calls it ahead of a wait that may block.
    pub(crate) fn begin(&self) {
        #[allow(unsafe_code, reason = "no function of pyo3 gives up the GIL without a closure")]
        // SAFETY: the reactor turns inside of `State::turn`, whose caller holds the GIL. Up to
        // `end` the thread runs the wait of the reactor, which touches no object of Python: log
        // events are kept (`logs.rs`).
        let thread = unsafe { ffi::PyEval_SaveThread() };
        self.thread.set(thread);
    }

    /// Takes the GIL again, behind the wait.
    pub(crate) fn end(&self) {
        #[allow(unsafe_code, reason = "no function of pyo3 gives up the GIL without a closure")]
        // SAFETY: the reactor calls this once for each `begin`, on the same thread. The cell holds
        // the state that this thread had then. Only this thread uses the cell: the loop of a
        // reactor is not entered twice.
        unsafe {
            ffi::PyEval_RestoreThread(self.thread.get())
        };
        self.thread.set(ptr::null_mut());
    }
}

/// Calls a method with one argument. The lookup is that of `getattr`: an attribute of the instance
/// comes first, and a `__getattr__` is asked.
///
/// pyo3's `call_method1` makes a bound method and a tuple for each call, under the stable ABI of
/// Python 3.10. This makes neither.
pub(crate) fn call_method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let end = ptr::null_mut::<ffi::PyObject>();
    #[allow(unsafe_code, reason = "no function of pyo3 makes this call under the stable ABI")]
    // SAFETY: the three objects live as long as their references, the list of arguments ends with a
    // null pointer, and the caller holds the GIL. The result is a new reference, or null with an
    // exception set.
    unsafe {
        let result = ffi::PyObject_CallMethodObjArgs(object.as_ptr(), name.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// A method with any arguments, which it finds on the stack of the caller.
///
/// pyo3 makes a tuple and a dictionary for a method with `*args` and `**kw`, ahead of each call.
pub(crate) trait Method {
    const NAME: &'static CStr;
    /// The signature for `inspect`, as CPython writes it, and the text for `help`.
    const DOC: &'static CStr;

    /// Makes the call. The values of the keywords stand behind the positional arguments, in the
    /// order of `keywords`.
    fn call(
        slf: &Bound<'_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        keywords: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<PyAny>>;
}

/// Makes the method, for any class that has it among its attributes.
pub(crate) fn method<M: Method>(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let class = py.get_type::<PyAny>();
    let definition = Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: called::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOC.as_ptr(),
    });
    #[allow(unsafe_code, reason = "pyo3 has another calling convention for such a method")]
    // SAFETY: the class is `object`, which is live, and the caller holds the GIL. The definition
    // and its texts live for good, and the flags are those of its function. The result is a new
    // reference, or null with an exception set.
    unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), Box::into_raw(definition));
        Bound::from_owned_ptr_or_err(py, method)
    }
}

/// Returns the `__dict__` of an object.
#[inline]
pub(crate) fn attributes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    #[allow(unsafe_code, reason = "the attribute `__dict__` is found by a search through the classes")]
    // SAFETY: the object is live, and its `Bound` proves that the GIL is held. Null is allowed for
    // the context. The result is a new reference, or null with an exception set.
    let attributes = unsafe {
        let found = ffi::PyObject_GenericGetDict(object.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(object.py(), found)?
    };
    Ok(attributes.cast_into()?)
}

#[allow(unsafe_code, reason = "Python calls it")]
// SAFETY: Python calls it by the definition in `method` alone, with these promises: the GIL is
// held; `slf` is an object; `names` is null or a tuple
// of the names of the keywords; behind `arguments` stand `count` objects and one for each name. All
// of them outlive the call.
unsafe extern "C" fn called<M: Method>(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: by the promises of the caller, above.
    let (py, slf, arguments, names) = unsafe {
        // Not `Python::attach`, which counts in a variable of the thread: the GIL is held.
        let py = Python::assume_attached();
        let slf = Borrowed::from_ptr(py, slf);
        let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
        let count = count as usize + names.map_or(0, |names| names.len());
        // A `Borrowed` is a pointer to an object. No slice begins at null.
        let arguments = match count {
            0 => &[][..],
            _ => std::slice::from_raw_parts(arguments.cast::<Borrowed<'_, '_, PyAny>>(), count),
        };
        (py, slf, arguments, names)
    };
    let call = AssertUnwindSafe(|| M::call(&slf, arguments, names.as_deref()));
    let result = catch_unwind(call).unwrap_or_else(|_| Err(PanicException::new_err("a method has panicked")));
    match result {
        Ok(returned) => returned.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// Returns the address of the key at a position of a dictionary, in the order of insertion, with
/// its value if `wants` the key, and moves behind it.
#[inline]
pub(crate) fn next_entry<'py>(
    dictionary: &Bound<'py, PyDict>,
    position: &mut isize,
    wants: impl FnOnce(usize) -> bool,
) -> Option<(usize, Option<Bound<'py, PyAny>>)> {
    let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
    #[allow(unsafe_code, reason = "iterators of pyo3 do not begin in the middle")]
    // SAFETY: the dictionary is live, and its `Bound` proves that the GIL is held. Any position is
    // allowed. Of an entry that is found, the key is not used as an object. The value is live, and
    // becomes a reference of its own at once: `wants` has no token for code of Python.
    unsafe {
        if ffi::PyDict_Next(dictionary.as_ptr(), position, &mut key, &mut value) == 0 {
            return None;
        }
        let key = key as usize;
        let value = wants(key).then(|| Bound::from_borrowed_ptr(dictionary.py(), value));
        Some((key, value))
    }
}

/// Takes the descriptor out of a socket object (`socket.detach`), which has none from then on.
pub(crate) fn detached(socket: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let number: RawFd = socket.call_method0(intern!(socket.py(), "detach"))?.extract()?;
    if number < 0 {
        return Err(PyValueError::new_err("the socket is closed"));
    }
    #[allow(unsafe_code, reason = "Python's objects name descriptors by their numbers")]
    // SAFETY: `detach` returns an open descriptor, and leaves it to its caller. An object of the
    // program that pretends to be a socket breaks the promise, as it could with `os.close`.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(socket)
}

/// Duplicates a descriptor of the program.
pub(crate) fn duplicated(number: RawFd) -> io::Result<OwnedFd> {
    borrowed(number, |descriptor| descriptor.try_clone_to_owned())
}

/// Makes a call with a descriptor of the program.
pub(crate) fn borrowed<R>(number: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
    if number < 0 {
        // EBADF
        return Err(io::Error::from_raw_os_error(9));
    }
    #[allow(unsafe_code, reason = "Python's objects name descriptors by their numbers")]
    // SAFETY: the number is not negative, and is used for this call alone. No other thread closes
    // it meanwhile, because the caller holds the GIL. If it is closed already, the call fails.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    call(descriptor)
}
