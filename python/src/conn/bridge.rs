//! [`Bridge`]: the engine's callbacks, made in the log context of their [`Conn`].

use std::os::fd::{IntoRawFd, OwnedFd};

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use ropewalk::error::ConnectionClosed;
use ropewalk::transport::Producer;
use ropewalk::{Failure, Protocol, Result, Transport};

use super::{Conn, Inner, ending};
use crate::gil;
use crate::state::{State, WeakState};

/// Passes the engine's callbacks to a `Conn`. It never fails: an exception of the program is
/// logged, and ends the connection in Twisted's way.
pub(super) struct Bridge {
    state: WeakState,
    number: usize,
}

impl Bridge {
    pub(super) fn new(state: WeakState, number: usize) -> Self {
        Self { state, number }
    }

    /// Calls a method of the `Conn` in its log context. An exception ends the connection.
    fn tell<'py>(&self, py: Python<'py>, call: impl FnOnce(&Bound<'py, Conn>, &Inner) -> PyResult<()>) {
        let Some(state) = self.state.upgrade() else { return };
        let found = state.connections.borrow().get(self.number).map(|conn| conn.clone_ref(py));
        let Some(conn) = found else { return };
        let conn = conn.into_bound(py);
        let inner = conn.get().0.get(py);
        if let Err(error) = in_context(&state, &conn, inner, call) {
            // The log itself has failed.
            state.raise(error);
        }
    }
}

impl Protocol for Bridge {
    fn half_close(&self) -> bool {
        // The Python half asks the protocol, when the time has come.
        true
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        Python::attach(|py| {
            self.tell(py, |_, inner| {
                let Some(protocol) = inner.protocol(py) else { return Ok(()) };
                let data = PyBytes::new(py, data);
                gil::call_method(protocol.bind(py), intern!(py, "dataReceived"), &data).map(drop)
            });
        });
        Ok(())
    }

    fn file_descriptor_received(&mut self, _transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        Python::attach(|py| {
            self.tell(py, |conn, _| {
                // The program closes it, as it does with Twisted's.
                conn.call_method1(intern!(py, "_descriptorReceived"), (descriptor.into_raw_fd(),)).map(drop)
            });
        });
        Ok(())
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        Python::attach(|py| {
            self.tell(py, |conn, inner| {
                inner.read_ended.set(true);
                // As Twisted's reactor removes a reader that has ended.
                if inner.is_reading.replace(false) {
                    transport.pause_producing();
                }
                let done = conn.getattr(intern!(py, "_done"))?;
                gil::call_method(conn, intern!(py, "readConnectionLost"), &done).map(drop)
            });
        });
        Ok(())
    }

    fn write_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        Python::attach(|py| {
            self.tell(py, |conn, inner| {
                inner.write_disconnected.set(true);
                conn.call_method0(intern!(py, "_closeWriteConnection")).map(drop)
            });
        });
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        Python::attach(|py| {
            self.tell(py, |conn, inner| {
                inner.transport.take();
                inner.is_reading.set(false);
                inner.forget();
                // Nothing is registered with Twisted's reactor after both half-closes, so the
                // program is told nothing.
                let is_half_closed_twice = inner.read_ended.get() && inner.write_disconnected.get();
                let reason = match reason.check::<ConnectionClosed>() {
                    // `abortConnection` has scheduled the call.
                    Some(ConnectionClosed::Aborted) => return ending::retire(conn),
                    _ if is_half_closed_twice && !inner.disconnecting.get() => return ending::retire(conn),
                    Some(ConnectionClosed::Done) => conn.getattr(intern!(py, "_done"))?,
                    _ => conn.getattr(intern!(py, "_lost"))?,
                };
                gil::call_method(conn, intern!(py, "connectionLost"), &reason).map(drop)
            });
        });
    }
}

/// Tells a `Conn` that its queue is empty. To the engine it is a pull producer.
pub(super) struct DrainNotice(pub(super) Bridge);

impl Producer for DrainNotice {
    fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
        Python::attach(|py| {
            self.0.tell(py, |conn, inner| {
                // The first notice comes at the registration.
                if inner.has_written.replace(false) {
                    conn.call_method0(intern!(py, "_drained"))?;
                }
                Ok(())
            });
        });
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {}
}

/// Makes a call with the connection's log context, as `log.callWithLogger` does. An exception is
/// logged in that context, and ends the connection.
fn in_context<'py>(
    state: &State,
    conn: &Bound<'py, Conn>,
    inner: &Inner,
    call: impl FnOnce(&Bound<'py, Conn>, &Inner) -> PyResult<()>,
) -> PyResult<()> {
    let py = conn.py();
    let context = inner.context.borrow().as_ref().map(|context| context.clone_ref(py));
    let context = match context {
        Some(context) => context,
        None => {
            let made = log_context(state, conn)?;
            inner.context.replace(Some(made.clone_ref(py)));
            made
        }
    };
    let entered = state.contexts.enter(py, context)?;
    let done =
        call(conn, inner).or_else(|error| conn.call_method1(intern!(py, "_failed"), (error.into_value(py),)).map(drop));
    let left = entered.leave();
    done.and(left)
}

/// Makes the context in which the callbacks of a connection log, as `log.callWithLogger` does.
fn log_context(state: &State, conn: &Bound<'_, Conn>) -> PyResult<Py<PyDict>> {
    let py = conn.py();
    let prefix = match conn.call_method0(intern!(py, "logPrefix")) {
        Err(error) if error.is_instance_of::<PyException>(py) => {
            conn.call_method1(intern!(py, "_prefixFailed"), (error.into_value(py),))?
        }
        found => found?,
    };
    state.contexts.of_system(py, &prefix)
}
