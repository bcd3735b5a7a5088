//! Foreign descriptors (Twisted: `IReactorFDSet`): ports, UNIX sockets, datagrams, processes,
//! terminals, and clients that are connecting.
//!
//! A descriptor is known by its number, as in Twisted's `EPollReactor`. Its reader and its writer
//! may be two objects. An entry goes when the last of them is removed, so the owner may close the
//! descriptor then. If the owner closes it earlier and the number is used again, the next request
//! for the number notices.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;

use pyo3::exceptions::{PyOSError, PyPermissionError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, intern};
use ropewalk::error::WatchError;
use ropewalk::reactor::{Descriptor, Interest, Watch, WatchHandle, Watcher};
use ropewalk::{Failure, Result};

use crate::conn::Conn;
use crate::state::{State, WeakState};

/// The table of descriptors.
#[derive(Debug)]
pub(crate) struct Watches {
    entries: RefCell<HashMap<RawFd, Entry>>,
    /// Number of watches so far.
    made: Cell<u64>,
}

#[derive(Debug)]
struct Entry {
    /// The number of its watch. A number of a descriptor is used again, and the end of an earlier
    /// watch may be told late.
    serial: u64,
    reader: Option<Py<PyAny>>,
    writer: Option<Py<PyAny>>,
    watch: Watch,
}

impl Entry {
    fn interest(&self) -> Interest {
        let read = if self.reader.is_some() { Interest::READ } else { Interest::NONE };
        let write = if self.writer.is_some() { Interest::WRITE } else { Interest::NONE };
        read | write
    }

    fn place(&mut self, kind: Interest) -> &mut Option<Py<PyAny>> {
        if kind.reads() { &mut self.reader } else { &mut self.writer }
    }

    fn object(&self, kind: Interest) -> Option<&Py<PyAny>> {
        if kind.reads() { self.reader.as_ref() } else { self.writer.as_ref() }
    }
}

impl Watches {
    pub(crate) fn new() -> Self {
        Self { entries: RefCell::default(), made: Cell::new(0) }
    }

    pub(crate) fn readers(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.entries
            .borrow()
            .values()
            .filter_map(|entry| entry.reader.as_ref())
            .map(|reader| reader.clone_ref(py))
            .collect()
    }

    pub(crate) fn writers(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.entries
            .borrow()
            .values()
            .filter_map(|entry| entry.writer.as_ref())
            .map(|writer| writer.clone_ref(py))
            .collect()
    }

    /// Returns `true` if the descriptor has a reader.
    pub(crate) fn is_read(&self, number: RawFd) -> bool {
        self.entries.borrow().get(&number).is_some_and(|entry| entry.reader.is_some())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(entries) = self.entries.try_borrow() else { return Ok(()) };
        for entry in entries.values() {
            visit.call(&entry.reader)?;
            visit.call(&entry.writer)?;
        }
        Ok(())
    }

    /// Drops everything. Nothing is borrowed while objects are dropped.
    pub(crate) fn clear(&self) {
        let entries = self.entries.take();
        drop(entries);
    }

    /// Returns the number under which the selectable stands: its own, or the one that it had before
    /// it was closed.
    fn number(&self, selectable: &Bound<'_, PyAny>, kind: Interest, now: RawFd) -> Option<RawFd> {
        let is_it = |entry: &Entry| entry.object(kind).is_some_and(|object| object.is(selectable));
        let entries = self.entries.borrow();
        if now >= 0 {
            return entries.get(&now).is_some_and(is_it).then_some(now);
        }
        entries.iter().find(|(_, entry)| is_it(entry)).map(|(number, _)| *number)
    }

    fn remove(&self, number: RawFd) -> Option<Entry> {
        self.entries.borrow_mut().remove(&number)
    }
}

impl State {
    /// Adds a reader or a writer.
    pub(crate) fn watch(self: &Rc<Self>, selectable: &Bound<'_, PyAny>, kind: Interest) -> PyResult<()> {
        let py = selectable.py();
        if is_adopted(selectable) {
            return if kind.reads() { Conn::read(selectable.cast()?).map(drop) } else { Ok(()) };
        }
        if self.is_elsewhere() {
            return self.hand_over(selectable, if kind.reads() { "addReader" } else { "addWriter" });
        }
        let number: RawFd = selectable.call_method0(intern!(py, "fileno"))?.extract()?;
        let mut replaced = None;
        let entry_is_good = {
            let mut entries = self.watches.entries.borrow_mut();
            match entries.get_mut(&number) {
                Some(entry) if entry.object(kind).is_some_and(|object| object.is(selectable)) => return Ok(()),
                Some(entry) => {
                    let changed = entry.watch.set_interest(entry.interest() | kind);
                    if changed.is_ok() {
                        replaced = entry.place(kind).replace(selectable.clone().unbind());
                    }
                    changed.is_ok()
                }
                None => false,
            }
        };
        drop(replaced);
        if entry_is_good {
            return Ok(());
        }
        // Either there was none, or its descriptor was closed.
        drop(self.watches.remove(number));
        let serial = self.watches.made.replace(self.watches.made.get() + 1);
        let watcher = Callbacks { state: Rc::downgrade(self), number, serial };
        let watch = self.engine.watch(Descriptor::raw(number), kind, watcher).map_err(refused)?;
        let mut entry = Entry { serial, reader: None, writer: None, watch };
        *entry.place(kind) = Some(selectable.clone().unbind());
        let earlier = self.watches.entries.borrow_mut().insert(number, entry);
        debug_assert!(earlier.is_none(), "nothing runs between the removal and the insertion");
        Ok(())
    }

    /// Removes a reader or a writer. Does nothing if it is none.
    pub(crate) fn unwatch(self: &Rc<Self>, selectable: &Bound<'_, PyAny>, kind: Interest) -> PyResult<()> {
        if is_adopted(selectable) {
            return if kind.reads() { Conn::pause(selectable.cast()?).map(drop) } else { Ok(()) };
        }
        if self.is_elsewhere() {
            return self.hand_over(selectable, if kind.reads() { "removeReader" } else { "removeWriter" });
        }
        let now: RawFd = selectable.call_method0(intern!(selectable.py(), "fileno"))?.extract()?;
        let Some(number) = self.watches.number(selectable, kind, now) else { return Ok(()) };
        let (removed, is_last) = {
            let mut entries = self.watches.entries.borrow_mut();
            let Some(entry) = entries.get_mut(&number) else { return Ok(()) };
            let removed = entry.place(kind).take();
            let left = entry.interest();
            // If the descriptor was closed, the watch has ended with that, and its entry goes too.
            (removed, left.is_none() || entry.watch.set_interest(left).is_err())
        };
        let ended = if is_last { self.watches.remove(number) } else { None };
        drop((removed, ended));
        Ok(())
    }

    fn hand_over(&self, selectable: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
        let py = selectable.py();
        match self.reactor(py) {
            Some(reactor) => self.call_from_thread(reactor.bind(py).getattr(method)?, Some(selectable)),
            None => Ok(()),
        }
    }
}

/// Returns `true` for a connection of the engine, which needs no watch.
fn is_adopted(selectable: &Bound<'_, PyAny>) -> bool {
    selectable.cast::<Conn>().is_ok_and(|conn| conn.get().is_adopted(conn.py()))
}

/// The callbacks of one descriptor.
struct Callbacks {
    state: WeakState,
    number: RawFd,
    serial: u64,
}

impl Callbacks {
    /// Tells the reactor that its selectable is ready.
    fn ready(&self, kind: Interest, is_hung_up: bool) {
        Python::attach(|py| {
            let Some(state) = self.state.upgrade() else { return };
            let found = state
                .watches
                .entries
                .borrow()
                .get(&self.number)
                .and_then(|entry| entry.object(kind).map(|selectable| selectable.clone_ref(py)));
            let Some(selectable) = found else { return };
            // The method logs what the selectable raises. Its own failure is the turn's.
            let _ = state.tell(py, |reactor| {
                let ready = (selectable, self.number, kind.reads(), is_hung_up);
                reactor.call_method1(py, intern!(py, "_ready"), ready)
            });
        });
    }
}

impl Watcher for Callbacks {
    fn do_read(&mut self, watch: &WatchHandle) -> Result<()> {
        self.ready(Interest::READ, watch.is_hung_up());
        Ok(())
    }

    fn do_write(&mut self, watch: &WatchHandle) -> Result<()> {
        self.ready(Interest::WRITE, watch.is_hung_up());
        Ok(())
    }

    /// The descriptor was closed without being removed.
    fn connection_lost(&mut self, _reason: &Failure) {
        Python::attach(|py| {
            let Some(state) = self.state.upgrade() else { return };
            let is_ours = state.watches.entries.borrow().get(&self.number).is_some_and(|it| it.serial == self.serial);
            let Some(entry) = is_ours.then(|| state.watches.remove(self.number)).flatten() else { return };
            let mut lost: Vec<_> = [entry.reader, entry.writer].into_iter().flatten().collect();
            if lost.len() == 2 && lost[0].is(&lost[1]) {
                lost.pop();
            }
            for selectable in lost {
                let _ = state.tell(py, |reactor| reactor.call_method1(py, intern!(py, "_closed"), (selectable,)));
            }
        });
    }
}

/// Returns the exception for a descriptor that cannot be watched. `PermissionError` means a file.
fn refused(error: WatchError) -> PyErr {
    let message = error.to_string();
    match error {
        WatchError::NotPollable { .. } => PyPermissionError::new_err((rustix_errno::PERM, message)),
        WatchError::Closed { .. } | WatchError::Replaced { .. } => PyOSError::new_err((rustix_errno::BADF, message)),
        WatchError::System { source, .. } => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, message)),
            None => PyOSError::new_err(message),
        },
        WatchError::AlreadyWatched { .. } => PyOSError::new_err((rustix_errno::EXIST, message)),
        _ => PyValueError::new_err(message),
    }
}

/// The numbers of errors, the same on every system.
mod rustix_errno {
    pub(super) const PERM: i32 = 1;
    pub(super) const BADF: i32 = 9;
    pub(super) const EXIST: i32 = 17;
}
