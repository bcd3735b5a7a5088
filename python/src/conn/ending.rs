//! The end of a connection (Twisted: `tcp.Connection.connectionLost`), and its socket object.
//!
//! The socket object of an accepted connection is made when the program asks for it. Most programs
//! never do.

use std::os::fd::RawFd;

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use ropewalk::transport::DiscardMode;

use super::Conn;
use crate::gil;

/// Ends a connection: closes it if it is open, and tells the protocol. A second call does nothing.
///
/// The steps and their order are Twisted's.
pub(super) fn connection_lost(conn: &Bound<'_, Conn>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = conn.py();
    let inner = conn.get().0.get(py);
    if inner.is_gone.get() {
        return Ok(());
    }
    inner.disconnected.set(true);
    inner.connected.set(false);
    let producer = conn.getattr(intern!(py, "producer"))?;
    if !producer.is_none() {
        producer.call_method0(intern!(py, "stopProducing"))?;
        conn.setattr(intern!(py, "producer"), py.None())?;
    }
    let is_orderly = is_orderly(conn, reason)?;
    if inner.place.get().is_some() {
        inner.discard(if is_orderly { DiscardMode::End } else { DiscardMode::Reset });
        retire(conn)?;
    } else {
        conn.call_method1(intern!(py, "_closeSocket"), (is_orderly,))?;
    }
    let Some(protocol) = inner.protocol.take() else { return Err(no_attribute(conn, "protocol")) };
    inner.is_gone.set(true);
    let socket = inner.socket.take();
    drop(socket);
    if inner.accepted.get().is_none() {
        // The method of the socket object.
        let attributes = gil::attributes(conn.as_any())?;
        if attributes.contains(intern!(py, "fileno"))? {
            attributes.del_item(intern!(py, "fileno"))?;
        }
    }
    gil::call_method(protocol.bind(py), intern!(py, "connectionLost"), reason).map(drop)
}

/// Returns `true` unless the connection is to be reset.
fn is_orderly(conn: &Bound<'_, Conn>, reason: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = conn.py();
    // Both say how the peer or the network has ended it.
    if reason.is(&conn.getattr(intern!(py, "_done"))?) || reason.is(&conn.getattr(intern!(py, "_lost"))?) {
        return Ok(true);
    }
    let aborted = conn.getattr(intern!(py, "_aborted"))?;
    Ok(!gil::call_method(reason, intern!(py, "check"), &aborted)?.is_truthy()?)
}

/// Takes the number away from the socket object, if there is one.
pub(super) fn retire(conn: &Bound<'_, Conn>) -> PyResult<()> {
    let py = conn.py();
    let socket = conn.get().0.get(py).socket.borrow().as_ref().map(|socket| socket.clone_ref(py));
    socket.map_or(Ok(()), |socket| socket.call_method0(py, intern!(py, "detach")).map(drop))
}

/// Returns the number of the descriptor: that of the socket object, which a program may close.
pub(super) fn fileno(conn: &Bound<'_, Conn>) -> PyResult<RawFd> {
    let py = conn.py();
    let inner = conn.get().0.get(py);
    let socket = inner.socket.borrow().as_ref().map(|socket| socket.clone_ref(py));
    match socket {
        Some(socket) => socket.call_method0(py, intern!(py, "fileno"))?.extract(py),
        None => Ok(inner.number()),
    }
}

/// Returns the socket object. That of an accepted connection is made now.
pub(super) fn socket(conn: &Bound<'_, Conn>) -> PyResult<Py<PyAny>> {
    let py = conn.py();
    let inner = conn.get().0.get(py);
    if let Some(socket) = &*inner.socket.borrow() {
        return Ok(socket.clone_ref(py));
    }
    if inner.accepted.get().is_none() || inner.is_gone.get() {
        return Err(no_attribute(conn, "socket"));
    }
    let made = conn.call_method1(intern!(py, "_makeSocket"), (inner.number(),))?.unbind();
    inner.socket.replace(Some(made.clone_ref(py)));
    Ok(made)
}

/// Returns the exception for an attribute that is not there.
pub(super) fn no_attribute(conn: &Bound<'_, Conn>, name: &str) -> PyErr {
    let class = conn.get_type().name().map_or_else(|_| "Conn".to_owned(), |name| name.to_string());
    PyAttributeError::new_err(format!("'{class}' object has no attribute '{name}'"))
}
