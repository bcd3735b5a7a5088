//! [`Reactor::on_signal`], and the signals that stop a reactor: what the loop does when one came.
//!
//! Signals are handled while a run lasts. Their callbacks are called in phase 6 of a turn, guarded, one after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::backend::Interest;
use super::core::{Core, Slot};
use super::signals::{self, Signals};
use super::{Reactor, WeakReactor};
use crate::error::{ReactorError, SignalError};
use crate::failure::{drop_guarded, guarded};
use crate::log::error;
use crate::transport::agenda::Id;

impl Reactor {
    /// Has `call` called in the loop whenever the process gets this signal (Twisted: `signal.signal` with
    /// `reactor.callFromThread`). Returns the subscription, which ends when it is dropped.
    ///
    /// Signals are handled from the start of [`run`](Self::run) to its end, and in every later run; from now on if the
    /// reactor runs already. Between runs, and when the last subscription has ended, the signal does what it did before: SIGHUP
    /// ends the process again. A loop that is driven by [`iterate`](Self::iterate) alone handles none.
    ///
    /// - Any number of subscriptions, of any number of reactors, may be for one signal. All are called; those of one reactor
    ///   in the order in which they were made.
    /// - A signal that comes several times before the loop gets to it is told once, as the system does it.
    /// - SIGINT and SIGTERM stop the reactor all the same, unless [`Builder::signals`](super::Builder::signals) says otherwise.
    ///   [`stop`](Self::stop) has been called by then.
    /// - Handlers that other libraries installed before are still called. Those that are installed through `signal-hook` later
    ///   do not keep the default action away while no reactor handles the signal.
    /// - A signal that was ignored when the process started (`nohup`) is told to subscribers, and ignored otherwise.
    /// - A callback that panics is reported, and stays subscribed.
    ///
    /// ```
    /// use ropewalk::Reactor;
    /// use ropewalk::reactor::SIGUSR1;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let asked = reactor.clone();
    /// let _subscription = reactor.on_signal(SIGUSR1, move || println!("{:?}", asked.counters()))?;
    /// # reactor.call_when_running({ let reactor = reactor.clone(); move || reactor.stop().expect("it runs") });
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SignalError`]: nobody can handle this signal, there is no such signal, or the system refuses.
    pub fn on_signal(&self, signal: i32, call: impl FnMut() + 'static) -> Result<SignalSubscription, SignalError> {
        signals::check(signal)?;
        let refused = |source| SignalError::Install { signal, source };
        if self.0.settings.backend.is_none() {
            // A simulated network: its reactors are not the process's.
            return Err(refused(io::ErrorKind::Unsupported.into()));
        }
        signals::prepare(signal).map_err(refused)?;
        let id = self.0.signals.subscribers.borrow_mut().add(signal, Box::new(call));
        let subscription = SignalSubscription { reactor: self.downgrade(), id, signal };
        if !self.0.run.is_idle() {
            self.0.with_signals(|signals| signals.subscribe(signal)).map_err(refused)?;
        }
        Ok(subscription)
    }
}

/// A callback for a signal: from [`Reactor::on_signal`]. Dropped, it ends, also from inside of the callback.
#[must_use = "a subscription ends when it is dropped"]
pub struct SignalSubscription {
    reactor: WeakReactor,
    id: u64,
    signal: i32,
}

impl SignalSubscription {
    /// The signal's number.
    pub fn signal(&self) -> i32 {
        self.signal
    }

    /// Ends the subscription, as dropping it does: the callback is not called any more.
    pub fn cancel(self) {}
}

impl Drop for SignalSubscription {
    fn drop(&mut self) {
        let Some(Reactor(core)) = self.reactor.upgrade() else { return };
        let ended = core.signals.subscribers.borrow_mut().all.remove(&self.id);
        if !core.signals.subscribers.borrow().has(self.signal)
            && let Some((_, signals)) = &mut *core.signals.handlers.borrow_mut()
        {
            signals.unsubscribe(self.signal);
        }
        drop_guarded("a callback for a signal", ended);
    }
}

impl fmt::Debug for SignalSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalSubscription").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl Core {
    /// Installs the handlers of a run that begins.
    pub(super) fn install_signals(&self) -> Result<(), ReactorError> {
        let wanted: Vec<i32> =
            self.signals.subscribers.borrow().all.values().map(|subscriber| subscriber.signal).collect();
        let stopping = if self.settings.signals { self.with_signals(Signals::handle_stopping) } else { Ok(()) };
        let mut subscribed = wanted.into_iter().map(|signal| self.with_signals(|signals| signals.subscribe(signal)));
        stopping.and_then(|()| subscribed.try_for_each(|done| done)).map_err(|error| {
            self.remove_signals();
            ReactorError::Setup(error)
        })
    }

    /// Gives every signal back.
    pub(super) fn remove_signals(&self) {
        let handlers = self.signals.handlers.take();
        if let Some((id, signals)) = handlers {
            self.backend.borrow_mut().close(id, false);
            self.slots.borrow_mut().remove(id);
            drop(signals);
        }
    }

    /// Changes the handlers of this run, which are made with the first of them.
    fn with_signals(&self, change: impl FnOnce(&mut Signals) -> io::Result<()>) -> io::Result<()> {
        let mut place = self.signals.handlers.borrow_mut();
        if let Some((_, signals)) = &mut *place {
            return change(signals);
        }
        let mut signals = Signals::new()?;
        change(&mut signals)?;
        let id = self.slots.borrow_mut().insert(Slot::Signals);
        if let Err(error) =
            self.backend.borrow_mut().watch(id, signals.descriptor(), Interest { readable: true, writable: false })
        {
            self.slots.borrow_mut().remove(id);
            return Err(error);
        }
        *place = Some((id, signals));
        Ok(())
    }

    /// Signals came: those that stop are first, so that a subscriber finds the reactor stopping.
    pub(super) fn signalled(&self) {
        let came = match &mut *self.signals.handlers.borrow_mut() {
            Some((_, signals)) => signals.take(),
            None => return,
        };
        if let Some(signal) = came.stop {
            self.stop_by(signal);
        }
        came.subscribed.into_iter().for_each(|signal| self.tell_subscribers(signal));
    }

    /// The first signal stops, the second does not wait.
    fn stop_by(&self, signal: i32) {
        self.run.set_exit_signal(signal);
        if self.stop().is_err() {
            tracing::warn!(signal, "a second signal: the reactor leaves at once");
            // It is running: this is its loop.
            let _ = self.crash();
        }
    }

    fn tell_subscribers(&self, signal: i32) {
        let ids = self.signals.subscribers.borrow().of(signal);
        for id in ids {
            // Nothing is borrowed while it is called: it may end any subscription, and make others.
            let call = self.signals.subscribers.borrow_mut().lend(id);
            let Some(mut call) = call else { continue };
            if let Err(failure) = guarded(&mut *call) {
                error!(signal, %failure, "a callback for a signal failed");
            }
            let ended = self.signals.subscribers.borrow_mut().give_back(id, call);
            drop_guarded("a callback for a signal", ended);
        }
    }
}

/// A reactor's part in signals.
#[derive(Default)]
pub(super) struct SignalHandling {
    /// The handlers of the run, with their place in the table, if it has any.
    handlers: RefCell<Option<(Id, Signals)>>,
    subscribers: RefCell<Subscribers>,
}

impl SignalHandling {
    /// Drops the subscribers.
    pub(super) fn close(&self) {
        drop_guarded("a callback for a signal", self.subscribers.take());
    }

    /// True if the process's signals are handled for this reactor.
    #[cfg(test)]
    pub(super) fn are_installed(&self) -> bool {
        self.handlers.borrow().is_some()
    }

    /// In a forked child: the handlers go, and the subscribers are the parent's.
    pub(super) fn leave_to_parent(&self) {
        drop(self.handlers.take());
    }
}

/// The subscriptions of a reactor, in the order in which they were made.
#[derive(Default)]
struct Subscribers {
    all: BTreeMap<u64, Subscriber>,
    made: u64,
}

struct Subscriber {
    signal: i32,
    /// None while it is called.
    call: Option<Box<dyn FnMut()>>,
}

impl Subscribers {
    fn add(&mut self, signal: i32, call: Box<dyn FnMut()>) -> u64 {
        self.made += 1;
        self.all.insert(self.made, Subscriber { signal, call: Some(call) });
        self.made
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

    /// Takes a callback back; returns it if its subscription has ended meanwhile.
    fn give_back(&mut self, id: u64, call: Box<dyn FnMut()>) -> Option<Box<dyn FnMut()>> {
        match self.all.get_mut(&id) {
            Some(subscriber) => subscriber.call.replace(call),
            None => Some(call),
        }
    }
}
