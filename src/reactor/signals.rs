//! Signal handlers of the process, and the signals that they report to one reactor (Twisted:
//! `run(installSignalHandlers=True)`, `_exitSignal`). `on_signal.rs` has the reaction of the
//! reactor.
//!
//! A handler stores the signal's number and writes a byte into a socket pair. Everything else
//! happens in the loop. Signals belong to the process, so this is the one place with state of the
//! process:
//!
//! | before the first reactor handled it, a signal | while a reactor handles it | while no reactor does |
//! |---|---|---|
//! | had its default action | it is reported to the reactor | we perform its default action |
//! | had a handler of another library | that handler runs, and it is reported to the reactor | that handler runs |
//! | was ignored (`nohup`) | it is reported to subscribers, and stops no reactor | nothing happens |

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::SigId;
use signal_hook::consts::{FORBIDDEN, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::SignalError;

/// The signals that stop a reactor.
const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// The handlers of one run of one reactor. Dropping this removes them.
pub(super) struct Signals {
    pipe: UnixStream,
    writing: UnixStream,
    handlers: BTreeMap<i32, Handler>,
}

/// The signals that arrived since the last call of [`Signals::take`].
pub(super) struct ArrivedSignals {
    /// A signal that stops the reactor.
    pub(super) stop: Option<i32>,
    /// Signals with subscribers, each once.
    pub(super) subscribed: Vec<i32>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (pipe, writing) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        Ok(Self { pipe, writing, handlers: BTreeMap::new() })
    }

    /// Stops the reactor on SIGINT and SIGTERM, unless they were ignored from the start.
    pub(super) fn handle_stopping(&mut self) -> io::Result<()> {
        for signal in STOPPING.into_iter().filter(|&signal| !was_ignored(signal)) {
            self.handler(signal)?.stops = true;
        }
        Ok(())
    }

    /// Handles a signal for its subscribers.
    pub(super) fn subscribe(&mut self, signal: i32) -> io::Result<()> {
        self.handler(signal)?.is_subscribed = true;
        Ok(())
    }

    /// Returns the handler for a signal. There is one for all its purposes, so that stopping and
    /// subscribers see the signal at the same time.
    fn handler(&mut self, signal: i32) -> io::Result<&mut Handler> {
        match self.handlers.entry(signal) {
            Entry::Occupied(place) => Ok(place.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Handler::install(signal, &self.writing)?)),
        }
    }

    /// Removes the handler for a signal's subscribers, unless it stops the reactor as well.
    pub(super) fn unsubscribe(&mut self, signal: i32) {
        if let Some(handler) = self.handlers.get_mut(&signal) {
            handler.is_subscribed = false;
            if !handler.stops {
                self.handlers.remove(&signal);
            }
        }
    }

    /// Returns the descriptor that becomes readable when a signal arrives.
    pub(super) fn descriptor(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Takes the signals that arrived since the last call.
    pub(super) fn take(&mut self) -> ArrivedSignals {
        let mut bytes = [0; 64];
        // A handler sets its flag before it writes the byte. So the flags are read after the bytes.
        // An error means that there are no more bytes.
        while matches!(self.pipe.read(&mut bytes), Ok(count) if count > 0) {}
        let mut arrived = ArrivedSignals { stop: None, subscribed: Vec::new() };
        for (&signal, handler) in
            self.handlers.iter().filter(|(_, handler)| handler.arrived.swap(false, Ordering::SeqCst))
        {
            if handler.stops {
                arrived.stop = Some(signal);
            }
            if handler.is_subscribed {
                arrived.subscribed.push(signal);
            }
        }
        arrived
    }
}

/// One reactor's handler for one signal.
struct Handler {
    signal: i32,
    arrived: Arc<AtomicBool>,
    stops: bool,
    is_subscribed: bool,
    registered: [SigId; 2],
}

impl Handler {
    fn install(signal: i32, writing: &UnixStream) -> io::Result<Self> {
        prepare(signal)?;
        let arrived = Arc::default();
        let writing = writing.try_clone()?;
        let stores = flag::register(signal, Arc::clone(&arrived))?;
        let wakes = low_level::pipe::register(signal, writing).inspect_err(|_| {
            low_level::unregister(stores);
        })?;
        // Only now: a signal that arrives in between has its previous effect, and is not lost.
        if let Some(disposition) = process().get_mut(&signal) {
            disposition.handlers += 1;
            disposition.is_idle.store(false, Ordering::SeqCst);
        }
        Ok(Self { signal, arrived, stops: false, is_subscribed: false, registered: [stores, wakes] })
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(disposition) = process().get_mut(&self.signal) {
            disposition.handlers -= 1;
            disposition.is_idle.store(disposition.handlers == 0, Ordering::SeqCst);
        }
        for id in self.registered {
            low_level::unregister(id);
        }
    }
}

/// The signals that a reactor has handled in this process.
static PROCESS: Mutex<BTreeMap<i32, Disposition>> = Mutex::new(BTreeMap::new());

/// The effect of a signal while no reactor handles it.
struct Disposition {
    /// Number of handlers of reactors.
    handlers: usize,
    /// Set if there are none. Then the signal has its default action, if it had it before.
    is_idle: Arc<AtomicBool>,
    was_ignored: bool,
}

fn process() -> MutexGuard<'static, BTreeMap<i32, Disposition>> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses the signals for which there can be no handler.
pub(super) fn check(signal: i32) -> Result<(), SignalError> {
    if FORBIDDEN.contains(&signal) {
        return Err(SignalError::Forbidden { signal });
    }
    // Only the signals with a name have a known default action, which must be performed once the
    // handler is gone.
    low_level::signal_name(signal).map(drop).ok_or(SignalError::Unknown { signal })
}

/// Prepares a signal, once, so that it has its previous effect while no reactor handles it.
pub(super) fn prepare(signal: i32) -> io::Result<()> {
    if let Entry::Vacant(place) = process().entry(signal) {
        let (was_ignored, is_idle) = (is_in_mask("SigIgn:", signal), Arc::new(AtomicBool::new(true)));
        if !was_ignored && !is_in_mask("SigCgt:", signal) {
            flag::register_conditional_default(signal, Arc::clone(&is_idle))?;
        }
        place.insert(Disposition { handlers: 0, is_idle, was_ignored });
    }
    Ok(())
}

/// Returns `true` if the signal was ignored before a reactor handled it.
fn was_ignored(signal: i32) -> bool {
    process().get(&signal).map_or_else(|| is_in_mask("SigIgn:", signal), |disposition| disposition.was_ignored)
}

/// Asks the system for the present effect of a signal. If the system does not tell, the signal is
/// assumed to have its default action.
fn is_in_mask(name: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
