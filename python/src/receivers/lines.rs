//! [`Lines`]: the whole lines of a call of Twisted's `LineReceiver.dataReceived`.
//!
//! The loop itself is in Python (`ropewalk/accelerate.py`): a method in Python costs less when
//! Python calls it. Each step of it asks [`LineLoop`] for a line. It stops at all that is not
//! a whole line, and Twisted's own code goes on there: raw mode, lines that are too long, unusual
//! types.
//!
//! A segment that is one line needs no loop: [`Lines::receive`] delivers it.
//!
//! Twisted's loop reads four attributes before each line, and the buffer too. The callback may
//! have paused, changed the mode, the delimiter or the limit, or replaced the buffer. This loop
//! sees at once that the callback has stored none of them. [`Entries`] are read before the first
//! callback, in one pass over the protocol's `__dict__`. Unless they are found again at their
//! positions, everything is read anew:
//!
//! - The last key is still there, and still the last: a new key would stand behind it.
//! - The entries that the loop reads have the values that they had.
//!
//! So an attribute of the class that a callback changes counts from the next call on.

use std::cell::{Cell, RefCell};

use memchr::memchr_iter;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::rest::{Rest, Unparsed};
use super::{Original, exact_bytes, exact_int, is_true, joined};
use crate::conn::Conn;
use crate::gil::{self, Gil, call_method};

/// Makes loops for `LineReceiver`.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct Lines(Gil<Inner>);

struct Inner {
    original: Original,
    rest: Py<Rest>,
    /// The attribute `disconnecting` of [`Conn`].
    disconnecting: Py<PyAny>,
}

#[pymethods]
impl Lines {
    #[new]
    fn new(py: Python<'_>, original: Py<PyAny>, judge: Py<PyAny>, rest: Py<Rest>) -> PyResult<Self> {
        let disconnecting = py.get_type::<Conn>().getattr(intern!(py, "disconnecting"))?.unbind();
        Ok(Self(Gil::new(Inner { original: Original::new(original, judge), rest, disconnecting }, py)))
    }

    /// Receives bytes, and returns the outcome of `dataReceived`. If there may be several lines, it
    /// returns the loop that is to deliver them.
    fn receive<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.begin(protocol, data)? {
            Begun::Loop(lines) => Ok(Bound::new(protocol.py(), lines)?.into_any()),
            Begun::Over(outcome) => Ok(outcome),
            Begun::Uncovered => self.0.get(protocol.py()).original.call(protocol, data),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.peek().original.traverse(&visit)
    }
}

/// The outcome of the beginning of `dataReceived`.
enum Begun<'py> {
    /// Lines are to be delivered.
    Loop(LineLoop),
    Over(Bound<'py, PyAny>),
    /// Twisted's code is to handle it.
    Uncovered,
}

impl Lines {
    fn begin<'py>(&self, protocol: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> PyResult<Begun<'py>> {
        let py = protocol.py();
        let inner = self.0.get(py);
        let Ok(data) = data.cast_exact::<PyBytes>() else { return Ok(Begun::Uncovered) };
        let Some(attributes) = inner.original.attributes(protocol)? else { return Ok(Begun::Uncovered) };
        let mut entries = Entries::read(&attributes);
        if is_true(&entries.get(protocol, BUSY)?)? {
            return Ok(Begun::Uncovered);
        }
        let Some(earlier) = exact_bytes(entries.get(protocol, BUFFER)?) else { return Ok(Begun::Uncovered) };
        let Some(settings) = Settings::read(protocol, &entries)? else { return Ok(Begun::Uncovered) };
        if earlier.as_bytes().is_empty()
            && let Some(line) = settings.only_line(py, data.as_bytes())
        {
            if entries.found[BUFFER].is_none() {
                attributes.set_item(name(py, BUFFER), earlier)?;
            }
            attributes.set_item(name(py, BUSY), true)?;
            let delivered = deliver(protocol, &attributes, PyBytes::new(py, line), &entries);
            attributes.set_item(name(py, BUSY), false)?;
            return Ok(Begun::Over(match delivered? {
                Delivered::Over(outcome) => outcome,
                Delivered::More => inner.original.go_on(protocol)?,
            }));
        }
        if entries.found[BUFFER].is_some() {
            attributes.del_item(name(py, BUFFER))?;
        }
        attributes.set_item(name(py, BUSY), true)?;
        if entries.found[BUSY].is_none() {
            entries = Entries::read(&attributes);
        }
        let state = State {
            protocol: protocol.clone().unbind(),
            unparsed: RefCell::new(Some(Unparsed::begin(&inner.rest, protocol, &attributes, joined(&earlier, data)?))),
            attributes: attributes.unbind(),
            conn: inner.plain_conn(&entries)?,
            settings: RefCell::new(settings),
            places: RefCell::new(Places::of(entries)),
            has_called: Cell::new(false),
            end: Cell::new(End::Nothing),
        };
        Ok(Begun::Loop(LineLoop(Gil::new(state, py))))
    }
}

impl Inner {
    /// Returns the transport of a protocol, if it is a [`Conn`] whose class leaves `disconnecting`
    /// to it.
    fn plain_conn(&self, entries: &Entries<'_>) -> PyResult<Option<Py<Conn>>> {
        let Some(entry) = &entries.found[TRANSPORT] else { return Ok(None) };
        let Ok(conn) = entry.value.cast::<Conn>() else { return Ok(None) };
        let attribute = conn.get_type().getattr(intern!(conn.py(), "disconnecting"))?;
        Ok(attribute.is(&self.disconnecting).then(|| conn.clone().unbind()))
    }
}

/// The lines of one call.
#[pyclass(frozen, module = "ropewalk._native")]
pub(crate) struct LineLoop(Gil<State>);

struct State {
    protocol: Py<PyAny>,
    attributes: Py<PyDict>,
    /// The transport, if it can be asked without a search for its attribute.
    conn: Option<Py<Conn>>,
    /// `None` once the loop is over.
    unparsed: RefCell<Option<Unparsed>>,
    settings: RefCell<Settings>,
    places: RefCell<Places>,
    has_called: Cell<bool>,
    end: Cell<End>,
}

/// The reason why there is no more line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The bytes are over, or the protocol has paused.
    Nothing,
    /// The connection closes.
    Disconnecting,
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
}

/// The attributes that the loop reads, by their places in the lists below. The first four are those
/// of [`Settings`].
const PAUSED: usize = 0;
const LINE_MODE: usize = 1;
const DELIMITER: usize = 2;
const LIMIT: usize = 3;
const TRANSPORT: usize = 4;
const BUSY: usize = 5;
const BUFFER: usize = 6;
const NAMES: usize = 7;

#[inline]
fn name(py: Python<'_>, place: usize) -> &Bound<'_, PyString> {
    match place {
        PAUSED => intern!(py, "paused"),
        LINE_MODE => intern!(py, "line_mode"),
        DELIMITER => intern!(py, "delimiter"),
        LIMIT => intern!(py, "MAX_LENGTH"),
        TRANSPORT => intern!(py, "transport"),
        BUSY => intern!(py, "_busyReceiving"),
        _ => intern!(py, "_buffer"),
    }
}

/// The entries of a protocol's `__dict__` for these attributes. The keys are compared by their
/// addresses: Python interns the names of attributes.
struct Entries<'py> {
    found: [Option<Entry<'py>>; NAMES],
    /// The last entry, other than that of the buffer.
    last: Option<(usize, isize)>,
}

struct Entry<'py> {
    position: isize,
    value: Bound<'py, PyAny>,
}

impl<'py> Entries<'py> {
    /// Reads them in one pass.
    fn read(attributes: &Bound<'py, PyDict>) -> Self {
        let keys: [usize; NAMES] = std::array::from_fn(|place| name(attributes.py(), place).as_ptr() as usize);
        let mut entries = Self { found: [const { None }; NAMES], last: None };
        let mut next = 0;
        loop {
            let mut place = None;
            let wants = |key| {
                place = keys.iter().position(|&wanted| wanted == key);
                place.is_some()
            };
            let Some((key, value)) = gil::next_entry(attributes, &mut next, wants) else { return entries };
            // A step ends one behind its key.
            let position = next - 1;
            if place != Some(BUFFER) {
                entries.last = Some((key, position));
            }
            if let (Some(place), Some(value)) = (place, value) {
                entries.found[place] = Some(Entry { position, value });
            }
        }
    }

    /// Returns an attribute: of the protocol, or else of its class.
    fn get(&self, protocol: &Bound<'py, PyAny>, place: usize) -> PyResult<Bound<'py, PyAny>> {
        match &self.found[place] {
            Some(entry) => Ok(entry.value.clone()),
            None => protocol.getattr(name(protocol.py(), place)),
        }
    }
}

/// The positions at which a callback that stores none of the attributes leaves them.
#[derive(Debug)]
struct Places {
    /// The last entry: the address of its key, and its position.
    last: Option<(usize, isize)>,
    transport: Option<isize>,
    /// The entries of the settings. Those of the class have none.
    settings: [Option<(isize, Py<PyAny>)>; TRANSPORT],
}

impl Places {
    fn of(entries: Entries<'_>) -> Self {
        let [paused, line_mode, delimiter, limit, transport, ..] = entries.found;
        let settings = [paused, line_mode, delimiter, limit];
        Self {
            last: entries.last,
            transport: transport.map(|entry| entry.position),
            settings: settings.map(|entry| entry.map(|entry| (entry.position, entry.value.unbind()))),
        }
    }

    /// True if the callback has stored none of the attributes.
    #[inline]
    fn are_unchanged(&self, attributes: &Bound<'_, PyDict>) -> bool {
        let Some((key, mut position)) = self.last else { return false };
        let found = |position: &mut isize| gil::next_entry(attributes, position, |_| false).map(|(key, _)| key);
        if found(&mut position) != Some(key) || found(&mut position).is_some() {
            return false;
        }
        self.settings.iter().enumerate().all(|(place, setting)| match setting {
            Some((position, value)) => entry_at(attributes, *position, place).is_some_and(|present| present.is(value)),
            None => true,
        })
    }
}

/// Returns the value of an entry that is expected at a position.
#[inline]
fn entry_at<'py>(attributes: &Bound<'py, PyDict>, mut position: isize, place: usize) -> Option<Bound<'py, PyAny>> {
    let key = name(attributes.py(), place).as_ptr() as usize;
    gil::next_entry(attributes, &mut position, |found| found == key)?.1
}

#[pymethods]
impl LineLoop {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let state = self.0.get(py);
        if state.has_called.replace(true) {
            if state.is_disconnecting(py)? {
                state.end.set(End::Disconnecting);
                return Ok(None);
            }
            let unchanged = state.places.borrow().are_unchanged(state.attributes.bind(py));
            if !unchanged && !state.renew(py)? {
                state.end.set(End::Uncovered);
                return Ok(None);
            }
        }
        Ok(state.next_line(py))
    }

    /// Ends the loop, on every path: the protocol has the rest of the bytes again. Returns True if
    /// Twisted's code has to go on, and False if the connection closes.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let state = self.0.get(py);
        if let Some(unparsed) = state.unparsed.take() {
            unparsed.finish(py)?;
            state.attributes.bind(py).set_item(name(py, BUSY), false)?;
        }
        Ok(match state.end.get() {
            End::Nothing => None,
            End::Disconnecting => Some(false),
            End::Uncovered => Some(true),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let state = self.0.peek();
        visit.call(&state.protocol)?;
        visit.call(&state.attributes)?;
        visit.call(&state.conn)?;
        state.unparsed.try_borrow().map_or(Ok(()), |unparsed| unparsed.iter().try_for_each(|it| it.traverse(&visit)))
    }
}

impl State {
    #[inline]
    fn is_disconnecting(&self, py: Python<'_>) -> PyResult<bool> {
        let position = self.places.borrow().transport;
        let transport = transport_of(self.protocol.bind(py), self.attributes.bind(py), position)?;
        match &self.conn {
            Some(conn) if conn.is(&transport) => Ok(is_true(&transport)? && conn.get().is_disconnecting(py)),
            _ => is_disconnecting(&transport),
        }
    }

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
            unparsed.skip(length + delimiter.len());
            return Some(PyBytes::new(py, &rest[..length]));
        }
        let most = settings.limit.saturating_add(signed(delimiter.len()));
        let is_partial = settings.is_line_mode && found.is_none() && signed(rest.len()) < most;
        self.end.set(if is_partial { End::Nothing } else { End::Uncovered });
        None
    }

    /// Reads all attributes again. Returns false for types that are not covered.
    #[cold]
    fn renew(&self, py: Python<'_>) -> PyResult<bool> {
        let renewed = match &*self.unparsed.borrow() {
            Some(unparsed) => unparsed.renew(py)?,
            None => false,
        };
        if !renewed {
            return Ok(false);
        }
        let entries = Entries::read(self.attributes.bind(py));
        let Some(settings) = Settings::read(self.protocol.bind(py), &entries)? else { return Ok(false) };
        let earlier = (self.settings.replace(settings), self.places.replace(Places::of(entries)));
        drop(earlier);
        Ok(true)
    }
}

impl Settings {
    /// Reads the attributes. Returns `None` for types that are not covered.
    fn read<'py>(protocol: &Bound<'py, PyAny>, entries: &Entries<'py>) -> PyResult<Option<Self>> {
        let is_paused = is_true(&entries.get(protocol, PAUSED)?)?;
        let is_line_mode = is_true(&entries.get(protocol, LINE_MODE)?)?;
        let delimiter = exact_bytes(entries.get(protocol, DELIMITER)?);
        let limit = exact_int(&entries.get(protocol, LIMIT)?);
        let (Some(delimiter), Some(limit)) = (delimiter, limit) else { return Ok(None) };
        Ok(Some(Self { delimiter: delimiter.unbind(), limit, is_paused, is_line_mode }))
    }

    /// Returns the line of bytes that are one line, which is to be delivered.
    fn only_line<'a>(&self, py: Python<'_>, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let delimiter = self.delimiter.as_bytes(py);
        let length = find(bytes, delimiter)?;
        let is_all = length + delimiter.len() == bytes.len();
        let is_due = self.is_line_mode && !self.is_paused && signed(length) <= self.limit;
        (is_all && is_due).then(|| &bytes[..length])
    }
}

/// The outcome of a line that was all there was.
enum Delivered<'py> {
    Over(Bound<'py, PyAny>),
    /// The callback has left bytes.
    More,
}

/// Calls the protocol with the only line.
fn deliver<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    line: Bound<'py, PyBytes>,
    entries: &Entries<'py>,
) -> PyResult<Delivered<'py>> {
    let py = protocol.py();
    let why = call_method(protocol, intern!(py, "lineReceived"), line.as_any())?;
    let position = entries.found[TRANSPORT].as_ref().map(|entry| entry.position);
    if is_true(&why)? || is_disconnecting(&transport_of(protocol, attributes, position)?)? {
        return Ok(Delivered::Over(why));
    }
    match attributes.get_item(name(py, BUFFER))? {
        Some(left) if left.is_truthy()? => Ok(Delivered::More),
        _ => Ok(Delivered::Over(py.None().into_bound(py))),
    }
}

/// Returns the transport of a protocol. `position` is that of its entry, if it has not moved.
#[inline]
fn transport_of<'py>(
    protocol: &Bound<'py, PyAny>,
    attributes: &Bound<'py, PyDict>,
    position: Option<isize>,
) -> PyResult<Bound<'py, PyAny>> {
    match position.and_then(|position| entry_at(attributes, position, TRANSPORT)) {
        Some(transport) => Ok(transport),
        None => protocol.getattr(name(protocol.py(), TRANSPORT)),
    }
}

/// True if a transport has been told to close. A protocol without a transport is not closing.
fn is_disconnecting(transport: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(is_true(transport)? && is_true(&transport.getattr(intern!(transport.py(), "disconnecting"))?)?)
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

/// Lengths of objects of Python fit: they are signed themselves.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
