//! [`Listener`] accepts the connections of a port. It takes the place of the port's socket object
//! in Twisted's loop (`tcp._accept`), which only calls its `accept`.
//!
//! An [`Accepted`] is what a socket object is to Twisted: it is closed with its last reference, or
//! by `close`, unless a [`Conn`](crate::conn::Conn) takes it over.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use ropewalk::reactor::AcceptedSocket;

use crate::engine::Engine;
use crate::gil::{self, Gil};
use crate::state::WeakState;

/// The listening socket of a TCP port. It is the port's to close.
#[pyclass(frozen, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Listener {
    state: Gil<WeakState>,
    number: RawFd,
    is_ipv6: bool,
}

#[pymethods]
impl Listener {
    #[new]
    fn new(py: Python<'_>, engine: &Bound<'_, Engine>, number: RawFd, is_ipv6: bool) -> Self {
        Self { state: Gil::new(Rc::downgrade(engine.get().state(py)), py), number, is_ipv6 }
    }

    /// Accepts a connection. Returns it with the address of its peer, as `socket.accept` does. The
    /// listener has to be nonblocking.
    fn accept<'py>(&self, py: Python<'py>) -> PyResult<(Accepted, Bound<'py, PyAny>)> {
        let Some(state) = self.state.get(py).upgrade() else {
            return Err(PyRuntimeError::new_err("the reactor is gone"));
        };
        let accepted =
            gil::borrowed(self.number, |listener| state.engine.accept_from(listener)).map_err(system_error)?;
        let address = match accepted.peer().socket_addr() {
            // The engine's addresses of IPv4 are not mapped.
            Some(SocketAddr::V4(peer)) if self.is_ipv6 => {
                (format!("::ffff:{}", peer.ip()), peer.port(), 0, 0).into_pyobject(py)?.into_any()
            }
            Some(SocketAddr::V4(peer)) => (peer.ip().to_string(), peer.port()).into_pyobject(py)?.into_any(),
            Some(SocketAddr::V6(peer)) => {
                (peer.ip().to_string(), peer.port(), peer.flowinfo(), peer.scope_id()).into_pyobject(py)?.into_any()
            }
            None => return Err(PyValueError::new_err("the listener is no TCP socket")),
        };
        Ok((Accepted(Gil::new(RefCell::new(Some(accepted)), py)), address))
    }
}

/// An accepted connection without a transport.
#[pyclass(frozen, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Accepted(Gil<RefCell<Option<AcceptedSocket>>>);

#[pymethods]
impl Accepted {
    /// Closes the connection.
    fn close(&self, py: Python<'_>) {
        self.0.get(py).take();
    }

    /// Returns the number of the descriptor, which is the caller's to close. -1 if it is closed.
    fn detach(&self, py: Python<'_>) -> RawFd {
        self.0.get(py).take().map_or(-1, |accepted| OwnedFd::from(accepted).into_raw_fd())
    }
}

impl Accepted {
    /// Takes the socket for a transport.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<AcceptedSocket> {
        self.0.get(py).take().ok_or_else(|| PyValueError::new_err("the socket is closed"))
    }
}

/// Returns the exception as the socket module has it: Twisted compares the number.
fn system_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}
