//! [`Conn`]: the native half of a TCP or UNIX connection (Twisted: `tcp.Connection`). The other
//! half is in `ropewalk/_tcp.py` and `_unix.py`, whose classes `Server` and `Client` are a `Conn`
//! and Twisted's own class.
//!
//! | stage | transport | requests go to |
//! |---|---|---|
//! | new: accepted, or connecting | none | Twisted's own methods |
//! | adopted | the engine's | the engine |
//! | over | none | nothing |
//!
//! The engine's state machine stays as it is. Twisted's rules are kept here and in the Python half:
//!
//! - `connectionLost` may come from inside of a request (`disconnectAll`, an exception, the peer's
//!   end without half-close). The engine's connection is discarded then, and calls nothing more.
//! - A protocol that ended both directions is told nothing more, until it calls `loseConnection`.
//! - Producers are called as Twisted calls them. The engine tells when the queue is empty, with a
//!   pull producer of its own ([`DrainNotice`]), which also holds a close for them.
//!
//! | file | holds |
//! |---|---|
//! | `bridge.rs` | the engine's callbacks, which find their `Conn` by a number in the engine's table |
//! | `ending.rs` | the end of a connection, and its socket object |

mod bridge;
mod ending;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};
use ropewalk::Transport;
use ropewalk::transport::{DiscardMode, Streaming};

use self::bridge::{Bridge, DrainNotice};
use crate::accepting::Accepted;
use crate::engine::Engine;
use crate::gil::{self, Gil};
use crate::state::{State, WeakState};

/// Up to this size, the engine queues a write: its limit for copies.
const QUEUED_WRITE_BYTES: usize = 32 * 1024;

/// The native half of a connection.
#[pyclass(frozen, subclass, module = "ropewalk._native")]
#[derive(Debug)]
pub(crate) struct Conn(Gil<Inner>);

#[derive(Default)]
struct Inner {
    /// The engine, once it has adopted the socket.
    place: OnceCell<(WeakState, usize)>,
    /// `None` before it was adopted, and once it is over.
    transport: RefCell<Option<Transport>>,
    /// `None` once it was deleted.
    protocol: RefCell<Option<Py<PyAny>>>,
    logstr: RefCell<Option<Py<PyAny>>>,
    /// The log's context for this connection, made of `logstr`.
    context: RefCell<Option<Py<PyDict>>>,
    /// The socket object. That of an accepted connection is made when the program asks for it.
    socket: RefCell<Option<Py<PyAny>>>,
    /// The descriptor, if it came from a [`Listener`](crate::accepting::Listener).
    accepted: Cell<Option<RawFd>>,
    /// `connectionLost` has taken the socket and the protocol away.
    is_gone: Cell<bool>,
    connected: Cell<bool>,
    disconnected: Cell<bool>,
    disconnecting: Cell<bool>,
    write_disconnected: Cell<bool>,
    read_ended: Cell<bool>,
    is_reading: Cell<bool>,
    tls: Cell<bool>,
    /// A streaming producer is registered, so each write compares the queue with its limit.
    watches_queue: Cell<bool>,
    /// The engine sends descriptors with the queued bytes: it is a UNIX socket.
    passes_descriptors: Cell<bool>,
    /// The engine has our [`DrainNotice`].
    awaits_drain: Cell<bool>,
    /// Something was written since the queue was empty.
    has_written: Cell<bool>,
}

#[pymethods]
impl Conn {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(py: Python<'_>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self(Gil::new(Inner::default(), py))
    }

    /// Hands the descriptor of `socket` to the engine, which reads from it from now on. `peer` is
    /// the address of the other end, for the engine's log, or None for a UNIX socket. Returns the
    /// descriptor's number.
    #[pyo3(name = "_takeOver")]
    fn take_over(
        slf: &Bound<'_, Self>,
        engine: &Bound<'_, Engine>,
        socket: &Bound<'_, PyAny>,
        peer: Option<(String, u16)>,
    ) -> PyResult<i32> {
        let py = slf.py();
        let state = engine.get().state(py);
        let descriptor = gil::detached(socket)?;
        let fileno = descriptor.as_raw_fd();
        let address = peer.as_ref().map(address_of);
        Self::join(slf, state, |bridge| state.adopt(descriptor, address, bridge))?;
        slf.get().0.get(py).passes_descriptors.set(peer.is_none());
        Ok(fileno)
    }

    /// Hands an accepted connection to the engine, as `_takeOver` does.
    #[pyo3(name = "_takeAccepted")]
    fn take_accepted(slf: &Bound<'_, Self>, engine: &Bound<'_, Engine>, accepted: &Accepted) -> PyResult<()> {
        let py = slf.py();
        let state = engine.get().state(py);
        let accepted = accepted.take(py)?;
        let number = accepted.as_fd().as_raw_fd();
        Self::join(slf, state, |bridge| state.adopt_accepted(accepted, bridge))?;
        slf.get().0.get(py).accepted.set(Some(number));
        Ok(())
    }

    /// Writes bytes, through TLS if it was started.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let inner = slf.get().0.get(slf.py());
        if inner.tls.get() {
            return inner.through_tls(slf.py(), intern!(slf.py(), "write"), data);
        }
        Self::write_raw(slf, data)
    }

    /// Writes bytes below TLS.
    #[pyo3(name = "_write")]
    fn write_raw(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = bytes_of(data)?.as_bytes();
        let inner = slf.get().0.get(slf.py());
        if inner.may_write() && !bytes.is_empty() {
            if inner.is_elsewhere() {
                return inner.call_from_thread(slf, intern!(slf.py(), "_write").as_any(), Some(data));
            }
            inner.send(bytes);
            inner.maybe_pause(slf)?;
        }
        Ok(())
    }

    /// Writes each piece, through TLS if it was started.
    #[pyo3(name = "writeSequence")]
    fn write_sequence(slf: &Bound<'_, Self>, iovec: &Bound<'_, PyAny>) -> PyResult<()> {
        let inner = slf.get().0.get(slf.py());
        if inner.tls.get() {
            return inner.through_tls(slf.py(), intern!(slf.py(), "writeSequence"), iovec);
        }
        Self::write_sequence_raw(slf, iovec)
    }

    /// Writes each piece, below TLS.
    #[pyo3(name = "_writeSequence")]
    fn write_sequence_raw(slf: &Bound<'_, Self>, iovec: &Bound<'_, PyAny>) -> PyResult<()> {
        // All are looked at before the first is written.
        let pieces = iovec.try_iter()?.map(|piece| Ok(bytes_of(&piece?)?.clone())).collect::<PyResult<Vec<_>>>()?;
        let inner = slf.get().0.get(slf.py());
        if !inner.may_write() || pieces.is_empty() {
            return Ok(());
        }
        if inner.is_elsewhere() {
            return inner.call_from_thread(slf, intern!(slf.py(), "_writeSequence").as_any(), Some(iovec));
        }
        pieces.iter().for_each(|piece| inner.send(piece.as_bytes()));
        inner.maybe_pause(slf)
    }

    /// Begins or goes on to read.
    #[pyo3(name = "startReading")]
    fn start_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !Self::read(slf)? && slf.getattr(intern!(slf.py(), "_isConnecting"))?.is_truthy()? {
            let reactor = slf.getattr(intern!(slf.py(), "reactor"))?;
            gil::call_method(&reactor, intern!(slf.py(), "addReader"), slf)?;
        }
        Ok(())
    }

    /// Goes on to read, for a consumer of the received bytes.
    #[pyo3(name = "resumeProducing")]
    fn resume_producing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let inner = slf.get().0.get(slf.py());
        if inner.connected.get() && !inner.disconnecting.get() {
            slf.call_method0(intern!(slf.py(), "startReading"))?;
        }
        Ok(())
    }

    /// Begins or goes on to read. Returns False if the engine has not adopted the socket.
    #[pyo3(name = "_read")]
    pub(crate) fn read(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let inner = slf.get().0.get(slf.py());
        inner.request(slf, "_read", |transport| {
            inner.is_reading.set(true);
            transport.resume_producing();
        })
    }

    /// Stops reading. Returns False if the engine has not adopted the socket.
    #[pyo3(name = "_pause")]
    pub(crate) fn pause(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let inner = slf.get().0.get(slf.py());
        inner.request(slf, "_pause", |transport| {
            if inner.is_reading.replace(false) {
                transport.pause_producing();
            }
        })
    }

    /// Closes the connection once the queue was sent.
    #[pyo3(name = "_lose")]
    fn lose(slf: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().0.get(slf.py()).request(slf, "_lose", Transport::lose_connection)
    }

    /// Shuts the write direction once the queue was sent.
    #[pyo3(name = "_loseWrite")]
    fn lose_write(slf: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().0.get(slf.py()).request(slf, "_loseWrite", Transport::lose_write_connection)
    }

    /// Resets the connection at the end of this turn. Returns False if the engine has none.
    #[pyo3(name = "_abort")]
    fn abort(slf: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().0.get(slf.py()).request(slf, "_abort", Transport::abort_connection)
    }

    /// Lets the connection go at once: its descriptor is closed, and no callback comes any more.
    #[pyo3(name = "_discard")]
    fn discard(slf: &Bound<'_, Self>, reset: bool) {
        slf.get().0.get(slf.py()).discard(if reset { DiscardMode::Reset } else { DiscardMode::End });
    }

    /// Takes the number away from the socket object, once the engine has closed the descriptor.
    #[pyo3(name = "_retire")]
    fn retire(slf: &Bound<'_, Self>) -> PyResult<()> {
        ending::retire(slf)
    }

    /// Ends the connection, and tells the protocol the reason.
    #[pyo3(name = "connectionLost")]
    fn connection_lost(slf: &Bound<'_, Self>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        ending::connection_lost(slf, reason)
    }

    /// The number of the descriptor; -1 if there is none any more.
    fn fileno(slf: &Bound<'_, Self>) -> PyResult<RawFd> {
        ending::fileno(slf)
    }

    /// The socket object.
    #[getter]
    fn socket(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        ending::socket(slf)
    }

    #[setter]
    fn set_socket(&self, py: Python<'_>, socket: Py<PyAny>) {
        let earlier = self.0.get(py).socket.replace(Some(socket));
        drop(earlier);
    }

    #[deleter]
    fn delete_socket(slf: &Bound<'_, Self>) -> PyResult<()> {
        let socket = slf.get().0.get(slf.py()).socket.take();
        socket.map(drop).ok_or_else(|| ending::no_attribute(slf, "socket"))
    }

    /// Sends a descriptor of the program's with the first queued byte that has none. It is
    /// duplicated. Returns False if there is no such byte.
    #[pyo3(name = "_sendDescriptor")]
    fn send_descriptor(&self, py: Python<'_>, number: i32) -> PyResult<bool> {
        let inner = self.0.get(py);
        // The loop's thread tries again.
        let Some(transport) = inner.transport().filter(|_| !inner.is_elsewhere()) else { return Ok(false) };
        Ok(transport.send_file_descriptor(gil::duplicated(number)?, &[]).is_ok())
    }

    /// Number of bytes that the system has not taken yet.
    #[pyo3(name = "_queued")]
    fn queued(&self, py: Python<'_>) -> usize {
        self.0.get(py).queued()
    }

    /// Has `_drained` called when the queue is empty, and a close wait for it.
    #[pyo3(name = "_awaitDrain")]
    fn await_drain(&self, py: Python<'_>) {
        let inner = self.0.get(py);
        if inner.awaits_drain.get() {
            return;
        }
        let Some((state, number)) = inner.place.get() else { return };
        let Some(transport) = inner.transport() else { return };
        let notice = DrainNotice(Bridge::new(state.clone(), *number));
        // If nothing can be written any more, the connection's end is all that can come.
        inner.awaits_drain.set(transport.register_producer(notice, Streaming::Pull).is_ok());
    }

    /// Ends `_awaitDrain`.
    #[pyo3(name = "_forgetDrain")]
    fn forget_drain(&self, py: Python<'_>) {
        let inner = self.0.get(py);
        if inner.awaits_drain.replace(false)
            && let Some(transport) = inner.transport()
        {
            transport.unregister_producer();
        }
    }

    /// Has each write compare the queue with `bufferSize`, for a streaming producer.
    #[pyo3(name = "_watchQueue")]
    fn watch_queue(&self, py: Python<'_>, watch: bool) {
        self.0.get(py).watches_queue.set(watch);
    }

    /// True once the engine has adopted the socket.
    #[getter(_isAdopted)]
    pub(crate) fn is_adopted(&self, py: Python<'_>) -> bool {
        self.0.get(py).place.get().is_some()
    }

    #[getter]
    fn connected(&self, py: Python<'_>) -> u8 {
        self.0.get(py).connected.get().into()
    }

    #[setter]
    fn set_connected(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.get(value.py()).connected.set(value.is_truthy()?);
        Ok(())
    }

    #[getter]
    fn disconnected(&self, py: Python<'_>) -> u8 {
        self.0.get(py).disconnected.get().into()
    }

    #[setter]
    fn set_disconnected(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.get(value.py()).disconnected.set(value.is_truthy()?);
        Ok(())
    }

    #[getter]
    fn disconnecting(&self, py: Python<'_>) -> u8 {
        self.is_disconnecting(py).into()
    }

    #[setter]
    fn set_disconnecting(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.get(value.py()).disconnecting.set(value.is_truthy()?);
        Ok(())
    }

    #[getter(_writeDisconnected)]
    fn write_disconnected(&self, py: Python<'_>) -> bool {
        self.0.get(py).write_disconnected.get()
    }

    #[setter(_writeDisconnected)]
    fn set_write_disconnected(&self, py: Python<'_>, value: bool) {
        self.0.get(py).write_disconnected.set(value);
    }

    /// True once TLS was started on the connection.
    #[getter(TLS)]
    fn tls(&self, py: Python<'_>) -> bool {
        self.0.get(py).tls.get()
    }

    #[setter(TLS)]
    fn set_tls(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.get(value.py()).tls.set(value.is_truthy()?);
        Ok(())
    }

    /// The prefix of log lines about this connection.
    #[getter]
    fn logstr(&self, py: Python<'_>) -> Py<PyAny> {
        let logstr = self.0.get(py).logstr.borrow().as_ref().map(|logstr| logstr.clone_ref(py));
        logstr.unwrap_or_else(|| intern!(py, "Uninitialized").clone().into_any().unbind())
    }

    /// Returns the prefix of log lines.
    #[pyo3(name = "logPrefix")]
    fn log_prefix(&self, py: Python<'_>) -> Py<PyAny> {
        self.logstr(py)
    }

    #[setter]
    fn set_logstr(&self, py: Python<'_>, logstr: Py<PyAny>) {
        let inner = self.0.get(py);
        let earlier = (inner.logstr.replace(Some(logstr)), inner.context.take());
        drop(earlier);
    }

    #[getter]
    fn protocol(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let protocol = slf.get().0.get(slf.py()).protocol(slf.py());
        protocol.ok_or_else(|| ending::no_attribute(slf, "protocol"))
    }

    #[setter]
    fn set_protocol(&self, py: Python<'_>, protocol: Py<PyAny>) {
        let earlier = self.0.get(py).protocol.replace(Some(protocol));
        drop(earlier);
    }

    #[deleter]
    fn delete_protocol(slf: &Bound<'_, Self>) -> PyResult<()> {
        let protocol = slf.get().0.get(slf.py()).protocol.take();
        protocol.map(drop).ok_or_else(|| ending::no_attribute(slf, "protocol"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let inner = self.0.peek();
        for cell in [&inner.protocol, &inner.logstr, &inner.socket] {
            if let Ok(object) = cell.try_borrow() {
                visit.call(&*object)?;
            }
        }
        inner.context.try_borrow().map_or(Ok(()), |context| visit.call(&*context))
    }

    fn __clear__(&self, py: Python<'_>) {
        let inner = self.0.get(py);
        drop((inner.protocol.take(), inner.logstr.take(), inner.context.take(), inner.socket.take()));
    }
}

impl Conn {
    /// Joins a `Conn` to a transport of the engine, which `adopt` makes.
    fn join(
        slf: &Bound<'_, Self>,
        state: &Rc<State>,
        adopt: impl FnOnce(Bridge) -> PyResult<Transport>,
    ) -> PyResult<()> {
        let number = state.connections.borrow_mut().insert(slf.clone().unbind());
        let transport = match adopt(Bridge::new(Rc::downgrade(state), number)) {
            Ok(transport) => transport,
            Err(error) => {
                let conn = state.connections.borrow_mut().remove(number);
                drop(conn);
                return Err(error);
            }
        };
        // Twisted waits for a peer as long as the program does.
        transport.set_close_timeout(None);
        let inner = slf.get().0.get(slf.py());
        // A `Conn` is adopted once: its socket object has no descriptor any more.
        let _ = inner.place.set((Rc::downgrade(state), number));
        inner.transport.replace(Some(transport));
        inner.is_reading.set(true);
        Ok(())
    }

    pub(crate) fn is_disconnecting(&self, py: Python<'_>) -> bool {
        self.0.get(py).disconnecting.get()
    }

    /// Returns `true` if Twisted would list it among the readers.
    pub(crate) fn is_reader(&self, py: Python<'_>) -> bool {
        let inner = self.0.get(py);
        inner.is_reading.get() && !inner.read_ended.get() && !inner.disconnecting.get()
    }

    /// Returns `true` if Twisted would list it among the writers.
    pub(crate) fn is_writer(&self, py: Python<'_>) -> bool {
        let inner = self.0.get(py);
        inner.disconnecting.get() || inner.queued() > 0
    }
}

impl Inner {
    fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.protocol.borrow().as_ref().map(|protocol| protocol.clone_ref(py))
    }

    fn transport(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    /// Returns the number of an accepted connection's descriptor; -1 once it is closed.
    fn number(&self) -> RawFd {
        let transport = self.transport.borrow();
        let (Some(number), Some(transport)) = (self.accepted.get(), &*transport) else { return -1 };
        // The engine cannot be asked while it waits, and closes nothing then.
        let is_waiting = self.state().is_some_and(|state| state.engine.is_waiting());
        if is_waiting { number } else { transport.raw_fd().unwrap_or(-1) }
    }

    /// Lets the transport go at once: no callback comes any more.
    fn discard(&self, mode: DiscardMode) {
        self.is_reading.set(false);
        let transport = self.transport.take();
        if let Some(transport) = transport {
            transport.discard(mode);
            self.forget();
        }
    }

    fn may_write(&self) -> bool {
        self.connected.get() && !self.write_disconnected.get()
    }

    fn is_elsewhere(&self) -> bool {
        self.state().is_some_and(|state| state.is_elsewhere())
    }

    fn state(&self) -> Option<Rc<State>> {
        self.place.get()?.0.upgrade()
    }

    fn queued(&self) -> usize {
        self.transport.borrow().as_ref().map_or(0, Transport::queued_bytes)
    }

    fn send(&self, data: &[u8]) {
        if let Some(transport) = &*self.transport.borrow() {
            self.has_written.set(true);
            if self.passes_descriptors.get() && data.len() > QUEUED_WRITE_BYTES {
                // The rest is queued behind the first byte. Otherwise it is handed to the socket at
                // once, and a descriptor that the program sends next finds no byte.
                let (first, rest) = data.split_at(1);
                transport.write(first);
                return transport.write(rest);
            }
            transport.write(data);
        }
    }

    /// Pauses a streaming producer that has written enough.
    fn maybe_pause(&self, slf: &Bound<'_, Conn>) -> PyResult<()> {
        if self.watches_queue.get() && !self.has_room(slf)? {
            slf.call_method0(intern!(slf.py(), "_maybePauseProducer"))?;
        }
        Ok(())
    }

    /// Returns `true` if nothing but the length of the queue decides, and it is below its limit.
    fn has_room(&self, slf: &Bound<'_, Conn>) -> PyResult<bool> {
        let py = slf.py();
        Ok(!self.passes_descriptors.get()
            && self.queued() <= slf.getattr(intern!(py, "bufferSize"))?.extract()?
            && !slf.getattr(intern!(py, "producerPaused"))?.is_truthy()?)
    }

    fn through_tls(&self, py: Python<'_>, method: &Bound<'_, PyString>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.connected.get()
            && let Some(protocol) = self.protocol(py)
        {
            protocol.call_method1(py, method, (data,))?;
        }
        Ok(())
    }

    /// Makes a request to the engine's transport, on the loop's thread. Returns `false` if there is
    /// none.
    fn request(&self, slf: &Bound<'_, Conn>, name: &str, request: impl FnOnce(&Transport)) -> PyResult<bool> {
        let Some(transport) = self.transport() else { return Ok(false) };
        if self.is_elsewhere() {
            self.call_from_thread(slf, PyString::new(slf.py(), name).as_any(), None)?;
        } else {
            request(&transport);
        }
        Ok(true)
    }

    /// Has the loop make a call of another thread.
    fn call_from_thread(
        &self,
        slf: &Bound<'_, Conn>,
        name: &Bound<'_, PyAny>,
        argument: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let method = slf.getattr(name.cast::<PyString>()?)?;
        self.state().map_or(Ok(()), |state| state.call_from_thread(method, argument))
    }

    /// Takes it out of the engine's table, once: behind that, the number may be another's.
    fn forget(&self) {
        if let Some((state, number)) = self.place.get()
            && let Some(state) = state.upgrade()
        {
            let conn = state.connections.borrow_mut().remove(*number);
            drop(conn);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("connected", &self.connected)
            .field("disconnecting", &self.disconnecting)
            .finish_non_exhaustive()
    }
}

fn bytes_of<'a, 'py>(data: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    data.cast::<PyBytes>().map_err(|_| PyTypeError::new_err("Data must be bytes"))
}

/// Returns the address of a peer, without the scope of IPv6, which the log does not need.
fn address_of((host, port): &(String, u16)) -> SocketAddr {
    let host = host.split('%').next().unwrap_or_default();
    SocketAddr::new(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), *port)
}

/// Returns an address of the same family that stands for our own. Twisted asks the socket for it.
pub(crate) fn unspecified(peer: SocketAddr) -> SocketAddr {
    let host = if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(host, 0)
}
