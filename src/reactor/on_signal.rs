//! [`Reactor::on_signal`], and the signals that stop a reactor: what the loop does when one came.
//!
//! Signals are handled while a run lasts. Their callbacks are called in phase 6 of a turn, guarded, one after the other.

use std::fmt;
use std::io;

use super::backend::Interest;
use super::core::{Core, Slot};
use super::signals::{self, Signals};
use super::{Reactor, WeakReactor};
use crate::error::{ReactorError, SignalError};

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
        let id = self.0.signals.subscribe(signal, Box::new(call));
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
    /// Installs the handlers of a run that begins.
    pub(super) fn install_signals(&self) -> Result<(), ReactorError> {
        let wanted = self.signals.subscribed();
        let stopping = if self.settings.signals { self.with_signals(Signals::handle_stopping) } else { Ok(()) };
        let mut subscribed = wanted.into_iter().map(|signal| self.with_signals(|signals| signals.subscribe(signal)));
        stopping.and_then(|()| subscribed.try_for_each(|done| done)).map_err(|error| {
            self.remove_signals();
            ReactorError::Setup(error)
        })
    }

    /// Gives every signal back.
    pub(super) fn remove_signals(&self) {
        let handlers = self.signals.take();
        if let Some((id, signals)) = handlers {
            self.backend.borrow_mut().close(id, false);
            self.slots.borrow_mut().remove(id);
            drop(signals);
        }
    }

    /// Changes the handlers of this run, which are made with the first of them.
    fn with_signals(&self, change: impl FnOnce(&mut Signals) -> io::Result<()>) -> io::Result<()> {
        if self.signals.are_installed() {
            return self.signals.change(change);
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
        self.signals.install(id, signals);
        Ok(())
    }

    /// Signals came: those that stop are first, so that a subscriber finds the reactor stopping.
    pub(super) fn signalled(&self) {
        let Some(came) = self.signals.take_came() else { return };
        if let Some(signal) = came.stop {
            self.stop_by(signal);
        }
        came.subscribed.into_iter().for_each(|signal| self.signals.tell_subscribers(signal));
    }

    /// The first signal stops, the second does not wait.
    fn stop_by(&self, signal: i32) {
        self.run.set_exit_signal(Some(signal));
        if self.stop().is_err() {
            tracing::warn!(signal, "a second signal: the reactor leaves at once");
            // It is running: this is its loop.
            let _ = self.crash();
        }
    }
}
