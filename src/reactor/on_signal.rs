//! [`Reactor::on_signal`], and the signals that stop a reactor: the loop's reaction to a signal.
//!
//! Signals are handled while a run lasts. Their callbacks run in phase 6 of a turn, guarded, one
//! after the other.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use super::core::{Core, Slot};
use super::interest::Interest;
use super::signals::{self, Signals};
use super::{Reactor, WeakReactor};
use crate::error::{LoopWaits, ReactorError, SignalError};
use crate::log::error;
use crate::transport::id::Id;

impl Reactor {
    /// Calls `call` in the loop whenever the process receives `signal` (Twisted: `signal.signal`
    /// with `reactor.callFromThread`). Returns the subscription, which ends when it is dropped.
    ///
    /// Signals are handled from the start of [`run`](Self::run) to its end, and in every later run;
    /// from now on if the reactor runs already. Between runs, and after the last subscription has
    /// ended, the signal has its previous effect: SIGHUP ends the process again. A loop that is
    /// driven by [`iterate`](Self::iterate) alone handles no signals.
    ///
    /// - Any number of subscriptions, of any number of reactors, may be for one signal. All are
    ///   called. Subscriptions of one reactor are called in the order in which they were made.
    /// - A signal that arrives several times before the loop gets to it causes one call, as the
    ///   system merges pending signals.
    /// - SIGINT and SIGTERM still stop the reactor, unless
    ///   [`Builder::signals`](super::Builder::signals) turns that off. [`stop`](Self::stop) has
    ///   been called by the time of the callback.
    /// - Handlers that other libraries installed before are still called. Handlers that are
    ///   installed through `signal-hook` later do not suppress the default action while no reactor
    ///   handles the signal.
    /// - A signal that was ignored when the process started (`nohup`) is reported to subscribers,
    ///   and ignored otherwise.
    /// - A callback that panics is logged, and stays subscribed.
    ///
    /// ```
    /// use ropewalk::Reactor;
    /// use ropewalk::reactor::SIGUSR1;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let asked = reactor.clone();
    /// let _subscription = reactor.on_signal(SIGUSR1, move || println!("{:?}", asked.counters()))?;
    /// # reactor.call_when_running({ let reactor = reactor.clone(); move || reactor.stop().expect("the reactor runs") });
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SignalError`]: this signal cannot be handled, there is no such signal, or the system
    /// refuses the handler.
    pub fn on_signal(&self, signal: i32, call: impl FnMut() + 'static) -> Result<SignalSubscription, SignalError> {
        signals::check(signal)?;
        let refused = |source| SignalError::Install { signal, source };
        if self.0.settings.backend.is_none() {
            // A reactor of a simulated network does not handle signals of the process.
            return Err(refused(io::ErrorKind::Unsupported.into()));
        }
        signals::prepare(signal).map_err(refused)?;
        let id = self.0.signals.subscribe(signal, Box::new(call));
        let subscription = SignalSubscription { reactor: self.downgrade(), id, signal };
        if !self.0.run.is_idle() {
            self.0.with_signals(|signals| signals.subscribe(signal)).map_err(refused)?;
        }
        Ok(subscription)
    }
}

/// A subscription of [`Reactor::on_signal`]. Dropping it ends it, also from inside the callback.
#[must_use = "a subscription ends when it is dropped"]
pub struct SignalSubscription {
    reactor: WeakReactor,
    id: u64,
    signal: i32,
}

impl SignalSubscription {
    /// Returns the signal's number.
    pub fn signal(&self) -> i32 {
        self.signal
    }

    /// Ends the subscription, as dropping it does. The callback is not called any more.
    pub fn cancel(self) {}
}

impl Drop for SignalSubscription {
    fn drop(&mut self) {
        if let Some(Reactor(core)) = self.reactor.upgrade() {
            core.signals.unsubscribe(self.id, self.signal);
        }
    }
}

impl fmt::Debug for SignalSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalSubscription").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl Core {
    /// Installs the handlers at the beginning of a run.
    pub(super) fn install_signals(&self) -> Result<(), ReactorError> {
        let wanted = self.signals.subscribed();
        let stopping = if self.settings.signals { self.with_signals(Signals::handle_stopping) } else { Ok(()) };
        let mut subscribed = wanted.into_iter().map(|signal| self.with_signals(|signals| signals.subscribe(signal)));
        stopping.and_then(|()| subscribed.try_for_each(|done| done)).map_err(|error| {
            self.remove_signals();
            ReactorError::Setup(error)
        })
    }

    /// Removes every handler.
    pub(super) fn remove_signals(&self) {
        let handlers = self.signals.take();
        if let Some((id, signals)) = handlers {
            self.slots.borrow_mut().remove(id);
            self.close_source(id, false, signals);
        }
    }

    /// Changes the handlers of this run. The first change creates them.
    fn with_signals(&self, change: impl FnOnce(&mut Signals) -> io::Result<()>) -> io::Result<()> {
        if self.signals.are_installed() {
            return self.signals.change(change);
        }
        let mut signals = Signals::new()?;
        change(&mut signals)?;
        let id = self.slots.borrow_mut().insert(Slot::Signals);
        let descriptor = signals.descriptor();
        let watched = self.backend_for_request().map(|mut backend| backend.watch(id, descriptor, Interest::READ));
        if let Ok(Err(error)) = watched {
            self.slots.borrow_mut().remove(id);
            return Err(error);
        }
        self.signals.install(id, signals);
        if let Err(LoopWaits) = watched {
            self.when_awake(move |core| core.watch_signals(id, descriptor));
        }
        Ok(())
    }

    /// Watches the descriptor of handlers that were installed while the loop waited.
    fn watch_signals(&self, id: Id, descriptor: RawFd) {
        let watched = self.backend.borrow_mut().watch(id, descriptor, Interest::READ);
        if let Err(error) = watched {
            error!(%error, "signals are not handled");
        }
    }

    /// Handles the signals that arrived. Stopping comes first, so that a subscriber sees the
    /// reactor stopping.
    pub(super) fn signalled(&self) {
        let Some(arrived) = self.signals.take_arrived() else { return };
        if let Some(signal) = arrived.stop {
            self.stop_by(signal);
        }
        arrived.subscribed.into_iter().for_each(|signal| self.signals.tell_subscribers(signal));
    }

    /// Stops the reactor at the first signal. A second signal ends the loop without waiting.
    fn stop_by(&self, signal: i32) {
        self.run.set_exit_signal(Some(signal));
        if self.stop().is_err() {
            tracing::warn!(signal, "a second signal: the loop ends at once");
            // The reactor runs, since this is its loop.
            let _ = self.crash();
        }
    }
}
