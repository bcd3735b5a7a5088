//! [`TransportContext`]: the state that a reactor shares with its transports. It holds the dirty
//! list (connections with work for the end of the turn), the buffer pool, and the way down to the
//! sockets for requests that cannot wait for the end of the turn.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::Transport;
use super::driver::Driver;
use super::id::Id;
use super::observer::Observer;
use super::send_queue::BufferPool;

/// A call that waits until the protocol of a connection is free.
type WaitingCall = (Id, Box<dyn FnOnce()>);

/// Shared by a reactor and all its transports.
pub(crate) struct TransportContext {
    dirty: RefCell<Vec<Transport>>,
    mode: Cell<DirtyMode>,
    pub(crate) pool: BufferPool,
    pub(crate) driver: Weak<dyn Driver>,
    observer: OnceCell<Rc<dyn Observer>>,
    /// Number of protocols that are entered from outside at present.
    entered: Cell<usize>,
    /// The call to make when none of them is entered any more.
    postponed: Cell<Option<Box<dyn FnOnce()>>>,
    /// Calls wait for a protocol. It is checked after each callback.
    has_waiting: Cell<bool>,
    waiting: RefCell<VecDeque<WaitingCall>>,
}

/// The reaction of the dirty list to one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirtyMode {
    /// The list is looked at before the next wait.
    Open,
    /// A host waits in the place of the loop, and is to be woken.
    Watched,
    /// The reactor is closed. From then on the list keeps no transport, because each transport
    /// keeps the list.
    Closed,
}

impl TransportContext {
    pub(crate) fn new(driver: Weak<dyn Driver>) -> Self {
        Self {
            dirty: RefCell::default(),
            mode: Cell::new(DirtyMode::Open),
            pool: BufferPool::default(),
            driver,
            observer: OnceCell::new(),
            entered: Cell::new(0),
            postponed: Cell::default(),
            has_waiting: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    /// Returns the observer of the calls between transports and protocols, if there is one.
    #[inline(always)]
    pub(crate) fn observer(&self) -> Option<&Rc<dyn Observer>> {
        self.observer.get()
    }

    /// Sets the observer, once and for all. A callback that is under way is not reported to it.
    pub(crate) fn set_observer(&self, observer: Rc<dyn Observer>) {
        let is_first = self.observer.set(observer).is_ok();
        debug_assert!(is_first, "the reactor sets one observer");
    }

    /// Marks a protocol as entered from outside. Until the guard is dropped, nothing may call
    /// protocols.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.entered.set(self.entered.get() + 1);
        Entered(self)
    }

    /// Returns `true` if a protocol is entered from outside at present.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered.get() > 0
    }

    /// Makes `call` when no protocol is entered from outside any more.
    pub(crate) fn postpone(&self, call: impl FnOnce() + 'static) {
        self.postponed.set(Some(Box::new(call)));
    }

    /// Keeps a call until the protocol of a connection is free.
    pub(crate) fn wait(&self, id: Id, call: Box<dyn FnOnce()>) {
        self.waiting.borrow_mut().push_back((id, call));
        self.has_waiting.set(true);
    }

    /// Returns `true` if calls wait for any protocol.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_waiting.get()
    }

    /// Returns `true` if calls wait for the protocol of this connection.
    pub(crate) fn has_waiting_for(&self, id: Id) -> bool {
        self.waiting.borrow().iter().any(|(of, _)| *of == id)
    }

    /// Takes the first call that waits for the protocol of this connection.
    pub(crate) fn next_waiting(&self, id: Id) -> Option<Box<dyn FnOnce()>> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.iter().position(|(of, _)| *of == id)?;
        let (_, call) = waiting.remove(first)?;
        self.has_waiting.set(!waiting.is_empty());
        Some(call)
    }

    /// Puts a connection on the dirty list. The connection itself ensures that it is there only
    /// once.
    #[inline(always)]
    pub(crate) fn add_dirty(&self, transport: &Transport) {
        if self.mode.get() == DirtyMode::Open {
            self.dirty.borrow_mut().push(transport.clone());
        } else {
            self.add_dirty_slow(transport);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_dirty_slow(&self, transport: &Transport) {
        if self.mode.get() == DirtyMode::Watched {
            self.dirty.borrow_mut().push(transport.clone());
            if let Some(driver) = self.driver.upgrade() {
                driver.wake_host();
            }
        }
    }

    /// Sets whether a connection that becomes dirty wakes the host that waits in the place of the
    /// loop.
    pub(crate) fn watch_dirty(&self, is_watched: bool) {
        if self.mode.get() != DirtyMode::Closed {
            self.mode.set(if is_watched { DirtyMode::Watched } else { DirtyMode::Open });
        }
    }

    /// Empties the list, which takes no more connections.
    pub(crate) fn close(&self) {
        self.mode.set(DirtyMode::Closed);
        drop(self.dirty.take());
    }

    /// Returns `true` if no connection is dirty.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.borrow().is_empty()
    }

    /// Takes the list, leaving `empty` (which keeps its capacity) for connections that are added
    /// meanwhile.
    pub(crate) fn take_dirty(&self, empty: Vec<Transport>) -> Vec<Transport> {
        self.dirty.replace(empty)
    }
}

/// Guard of a protocol that is entered from outside. From [`TransportContext::enter`].
pub(crate) struct Entered<'a>(&'a TransportContext);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.entered.set(self.0.entered.get() - 1);
        if !self.0.is_entered()
            && let Some(call) = self.0.postponed.take()
        {
            call();
        }
    }
}
