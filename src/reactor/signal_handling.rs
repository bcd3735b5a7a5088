//! [`SignalHandling`]: the handlers of a run, and the subscribers. `on_signal.rs` installs and
//! removes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use super::signals::{ArrivedSignals, Signals};
use crate::failure::{drop_guarded, guarded};
use crate::log::error;
use crate::transport::id::Id;

/// The signal handlers and the subscribers of one reactor.
#[derive(Default)]
pub(super) struct SignalHandling {
    /// The handlers of the run, with their slot in the table, if there are any.
    handlers: RefCell<Option<(Id, Signals)>>,
    subscribers: RefCell<Subscribers>,
}

impl SignalHandling {
    /// Adds a subscriber, and returns its number.
    pub(super) fn subscribe(&self, signal: i32, call: Box<dyn FnMut()>) -> u64 {
        self.subscribers.borrow_mut().add(signal, call)
    }

    /// Drops a subscriber. The handler of a signal is removed with its last subscriber.
    pub(super) fn unsubscribe(&self, id: u64, signal: i32) {
        let ended = self.subscribers.borrow_mut().all.remove(&id);
        if !self.subscribers.borrow().has(signal)
            && let Some((_, signals)) = &mut *self.handlers.borrow_mut()
        {
            signals.unsubscribe(signal);
        }
        drop_guarded("a callback for a signal", ended);
    }

    /// Returns the signal of each subscriber.
    pub(super) fn subscribed(&self) -> Vec<i32> {
        self.subscribers.borrow().all.values().map(|subscriber| subscriber.signal).collect()
    }

    /// Calls the subscribers of a signal, in the order in which they subscribed.
    pub(super) fn tell_subscribers(&self, signal: i32) {
        let ids = self.subscribers.borrow().of(signal);
        for id in ids {
            // Nothing is borrowed during the call: it may end any subscription, and make new ones.
            let call = self.subscribers.borrow_mut().lend(id);
            let Some(mut call) = call else { continue };
            if let Err(failure) = guarded(&mut *call) {
                error!(signal, %failure, "a callback for a signal failed");
            }
            let ended = self.subscribers.borrow_mut().give_back(id, call);
            drop_guarded("a callback for a signal", ended);
        }
    }

    /// Returns `true` if this reactor handles signals of the process.
    pub(super) fn are_installed(&self) -> bool {
        self.handlers.borrow().is_some()
    }

    /// Stores the handlers of a run, with their slot in the table.
    pub(super) fn install(&self, id: Id, signals: Signals) {
        self.handlers.replace(Some((id, signals)));
    }

    /// Changes the handlers, if there are any.
    pub(super) fn change(&self, change: impl FnOnce(&mut Signals) -> io::Result<()>) -> io::Result<()> {
        match &mut *self.handlers.borrow_mut() {
            Some((_, signals)) => change(signals),
            None => Ok(()),
        }
    }

    /// Takes the handlers out, with their slot in the table.
    pub(super) fn take(&self) -> Option<(Id, Signals)> {
        self.handlers.take()
    }

    /// Takes the signals that arrived since the last call, if there are handlers.
    pub(super) fn take_arrived(&self) -> Option<ArrivedSignals> {
        self.handlers.borrow_mut().as_mut().map(|(_, signals)| signals.take())
    }

    /// Drops the subscribers.
    pub(super) fn close(&self) {
        drop_guarded("a callback for a signal", self.subscribers.take());
    }

    /// Drops the handlers in a forked child. The subscribers belong to the parent.
    pub(super) fn leave_to_parent(&self) {
        drop(self.handlers.take());
    }
}

/// The subscriptions of a reactor, in the order in which they were made.
#[derive(Default)]
struct Subscribers {
    all: BTreeMap<u64, Subscriber>,
    last_id: u64,
}

struct Subscriber {
    signal: i32,
    /// `None` during a call.
    call: Option<Box<dyn FnMut()>>,
}

impl Subscribers {
    fn add(&mut self, signal: i32, call: Box<dyn FnMut()>) -> u64 {
        self.last_id += 1;
        self.all.insert(self.last_id, Subscriber { signal, call: Some(call) });
        self.last_id
    }

    fn has(&self, signal: i32) -> bool {
        self.all.values().any(|subscriber| subscriber.signal == signal)
    }

    fn of(&self, signal: i32) -> Vec<u64> {
        self.all.iter().filter(|(_, subscriber)| subscriber.signal == signal).map(|(&id, _)| id).collect()
    }

    fn lend(&mut self, id: u64) -> Option<Box<dyn FnMut()>> {
        self.all.get_mut(&id)?.call.take()
    }

    /// Takes a callback back. Returns it if its subscription has ended meanwhile.
    fn give_back(&mut self, id: u64, call: Box<dyn FnMut()>) -> Option<Box<dyn FnMut()>> {
        match self.all.get_mut(&id) {
            Some(subscriber) => subscriber.call.replace(call),
            None => Some(call),
        }
    }
}
